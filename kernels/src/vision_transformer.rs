//! A frozen vision transformer as one operation: images in, cosines with given embeddings out, and the image gradient.
//!
//! The network is never trained: its matrices are packed once for either direction, no gradient by a parameter is
//! computed, the memory of a call serves the next one, and the last block works on the class tokens alone, the only ones
//! that are read.
//!
//! `f32` only. In other precisions, or where parameters need gradients, write the network in tensor operations.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::dense::{Onto, Packed, multiply};
use super::embedding::Units;
use super::matmul::{Matrix, SharedMut, multiply_into};
use super::spare::Spare;
use super::winograd::lanes::Instructions;
use super::{count, count_in_memory};
use crate::once::get_or_make;
use crate::shape::check_length;
use crate::{Error, Result};

mod rows;

use rows::{ROWS, back_through_norm, gelu, norm, softmax, softmax_back};

const OPERATION: &str = "VisionTransformer";
/// Channels of an image.
const CHANNELS: usize = 3;

/// A weight and its bias: a matrix (outputs, inputs), or the factors of a layer norm.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The weight, row-major.
    pub weight: Arc<[f32]>,
    /// The bias, an element per output.
    pub bias: Arc<[f32]>,
}

/// The parameters of a residual attention block: x + attention(norm(x)), then x + mlp(norm(x)) with QuickGELU.
#[derive(Clone, Debug)]
pub struct Block {
    /// The layer norm before the attention.
    pub before_attention: Layer,
    /// Queries, keys and values, one below the other: (3 W, W).
    pub attention: Layer,
    /// The map of what the heads have seen: (W, W).
    pub attention_out: Layer,
    /// The layer norm before the two-layer network.
    pub before_mlp: Layer,
    /// Its first layer: (4 W, W).
    pub mlp_in: Layer,
    /// Its second layer: (W, 4 W).
    pub mlp_out: Layer,
}

/// The parameters of a [`VisionTransformer`] of width W.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Height and width of an image, a multiple of `patch`.
    pub resolution: usize,
    /// Height and width of a patch.
    pub patch: usize,
    /// Heads; W is a multiple of 16 times their number.
    pub heads: usize,
    /// The embedding of patches: (W, 3, `patch`, `patch`).
    pub patches: Arc<[f32]>,
    /// The class token: (W).
    pub class: Arc<[f32]>,
    /// What is added to the class token and the patches: (1 + patches, W).
    pub places: Arc<[f32]>,
    /// The layer norm before the blocks.
    pub before: Layer,
    /// The blocks; at least one.
    pub blocks: Vec<Block>,
    /// The layer norm of the class token after them.
    pub after: Layer,
    /// The projection to the embedding: (W, D).
    pub projection: Arc<[f32]>,
}

/// A frozen vision transformer, as CLIP has it: patches and a class token, layer norm, blocks of attention and QuickGELU,
/// layer norm of the class token, projection, division by the length.
///
/// Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; A. Radford et al., "Learning Transferable Visual
/// Models From Natural Language Supervision", 2021.
pub struct VisionTransformer {
    resolution: usize,
    patch: usize,
    heads: usize,
    width: usize,
    embedding: usize,
    patches: Frozen,
    class: Arc<[f32]>,
    places: Arc<[f32]>,
    before: Layer,
    blocks: Vec<FrozenBlock>,
    after: Layer,
    projection: Frozen,
    instructions: Instructions,
    /// The last call's memory.
    workspace: Spare<Workspace>,
}

impl fmt::Debug for VisionTransformer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct(OPERATION)
            .field("resolution", &self.resolution)
            .field("patch", &self.patch)
            .field("width", &self.width)
            .field("blocks", &self.blocks.len())
            .finish_non_exhaustive()
    }
}

/// A matrix, packed for either direction when first used.
struct Frozen {
    /// (outputs, inputs), or transposed.
    weight: Arc<[f32]>,
    bias: Arc<[f32]>,
    outputs: usize,
    inputs: usize,
    is_transposed: bool,
    forward: OnceLock<Packed>,
    backward: OnceLock<Packed>,
}

impl Frozen {
    fn new(name: &str, layer: &Layer, outputs: usize, inputs: usize) -> Result<Self> {
        check(name, &layer.weight, &[outputs, inputs])?;
        check(name, &layer.bias, &[outputs])?;
        Ok(Self::plain(&layer.weight, Arc::clone(&layer.bias), outputs, inputs, false))
    }

    fn plain(weight: &Arc<[f32]>, bias: Arc<[f32]>, outputs: usize, inputs: usize, is_transposed: bool) -> Self {
        let (forward, backward) = Default::default();
        Frozen { weight: Arc::clone(weight), bias, outputs, inputs, is_transposed, forward, backward }
    }

    fn at(&self, output: usize, input: usize) -> f32 {
        self.weight[if self.is_transposed { input * self.outputs + output } else { output * self.inputs + input }]
    }

    /// x Wᵀ + b.
    fn forward(&self, instructions: Instructions, rows: usize, x: &[f32], onto: Onto, target: &mut [f32]) {
        let pack = || Packed::new(self.inputs, self.outputs, |input, output| self.at(output, input));
        multiply(instructions, rows, x, self.inputs, get_or_make(&self.forward, pack), &self.bias, onto, target);
    }

    /// g W, g's rows `stride` apart.
    fn backward(&self, instructions: Instructions, rows: usize, gradient: &[f32], stride: usize, target: &mut [f32]) {
        let pack = || Packed::new(self.outputs, self.inputs, |output, input| self.at(output, input));
        multiply(instructions, rows, gradient, stride, get_or_make(&self.backward, pack), &[], Onto::Zero, target);
    }
}

struct FrozenBlock {
    before_attention: Layer,
    attention: Frozen,
    attention_out: Frozen,
    before_mlp: Layer,
    mlp_in: Frozen,
    mlp_out: Frozen,
}

/// Rows before a layer norm, centred and divided by their deviation, and the inverse deviations.
#[derive(Default)]
struct Normed {
    rows: Vec<f32>,
    inverse: Vec<f32>,
}

/// What a block keeps for the way back.
#[derive(Default)]
struct Kept {
    before_attention: Normed,
    /// Queries, keys and values.
    joint: Vec<f32>,
    /// The attention of each head of each image.
    weights: Vec<f32>,
    before_mlp: Normed,
    /// QuickGELU's derivative.
    slopes: Vec<f32>,
}

#[derive(Default)]
struct Workspace {
    windows: Vec<f32>,
    x: Vec<f32>,
    narrow: Vec<f32>,
    seen: Vec<f32>,
    wide: Vec<f32>,
    joint: Vec<f32>,
    before: Normed,
    blocks: Vec<Kept>,
    after: Normed,
}

/// `len` elements of a vector whose contents do not matter.
fn sized(vector: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if vector.len() < len {
        vector.resize(len, 0.0);
    }
    &mut vector[..len]
}

/// Refuses another number of elements than the product of `extents`.
fn check(name: &str, values: &[f32], extents: &[usize]) -> Result<()> {
    let expected = count(extents);
    if values.len() == expected {
        return Ok(());
    }
    Err(Error::option(OPERATION, "parts", format!("{expected} elements of {name}"), values.len()))
}

/// The sizes of a call.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    /// Tokens of an image.
    tokens: usize,
    width: usize,
    heads: usize,
}

impl VisionTransformer {
    /// The network with the given parameters.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for parameters that do not fit each other.
    pub fn new(parts: &Parts) -> Result<Self> {
        let Parts { resolution, patch, heads, patches, class, places, before, blocks, after, projection } = parts;
        let (width, patch, heads) = (class.len(), *patch, *heads);
        if patch == 0 || *resolution == 0 || !resolution.is_multiple_of(patch) {
            return Err(Error::option(OPERATION, "resolution", format!("a multiple of {patch} pixels"), resolution));
        }
        if heads == 0 || width == 0 || !width.is_multiple_of(heads.saturating_mul(16)) {
            return Err(Error::option(OPERATION, "heads", format!("a divisor of {width} / 16"), heads));
        }
        if blocks.is_empty() {
            return Err(Error::option(OPERATION, "blocks", "at least one", 0));
        }
        let grid = resolution / patch;
        let inputs = count(&[CHANNELS, patch, patch]);
        check("patches", patches, &[width, inputs])?;
        check("places", places, &[count(&[grid, grid]).saturating_add(1), width])?;
        check("projection", projection, &[(projection.len() / width).max(1), width])?;
        let norm = |name: &str, layer: &Layer| {
            check(name, &layer.weight, &[width])?;
            check(name, &layer.bias, &[width])?;
            Ok::<_, Error>(layer.clone())
        };
        let frozen = |block: &Block| {
            Ok(FrozenBlock {
                before_attention: norm("before_attention", &block.before_attention)?,
                attention: Frozen::new("attention", &block.attention, 3 * width, width)?,
                attention_out: Frozen::new("attention_out", &block.attention_out, width, width)?,
                before_mlp: norm("before_mlp", &block.before_mlp)?,
                mlp_in: Frozen::new("mlp_in", &block.mlp_in, 4 * width, width)?,
                mlp_out: Frozen::new("mlp_out", &block.mlp_out, width, 4 * width)?,
            })
        };
        let none: Arc<[f32]> = Arc::new([]);
        let embedding = projection.len() / width;
        Ok(VisionTransformer {
            resolution: *resolution,
            patch,
            heads,
            width,
            embedding,
            patches: Frozen::plain(patches, Arc::clone(&none), width, inputs, false),
            class: Arc::clone(class),
            places: Arc::clone(places),
            before: norm("before", before)?,
            blocks: blocks.iter().map(frozen).collect::<Result<_>>()?,
            after: norm("after", after)?,
            projection: Frozen::plain(projection, none, embedding, width, true),
            instructions: Instructions::detect(),
            workspace: Spare::default(),
        })
    }

    /// Height and width of an image.
    pub fn resolution(&self) -> usize {
        self.resolution
    }

    /// The length of an embedding.
    pub fn embedding_len(&self) -> usize {
        self.embedding
    }

    /// The embeddings (N, D) of images (N, 3, R, R), each of length 1.
    ///
    /// # Errors
    /// [`Error::Length`] for images of another size.
    pub fn embed(&self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        self.check_images(images, batch)?;
        let mut workspace = self.workspace.take();
        let units = self.forward(images, batch, &mut workspace);
        self.workspace.keep(workspace);
        Ok(units.rows.iter().map(|&value| value as f32).collect())
    }

    /// The products (N, M) of the images' embeddings with `others` (M, D), and, where `gradient` (N, M) is given, the
    /// gradient of their sum weighted by it, by the images.
    ///
    /// # Errors
    /// [`Error::Length`] for inputs of another size.
    pub fn compare(
        &self,
        images: &[f32],
        batch: usize,
        others: &[f32],
        gradient: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        self.check_images(images, batch)?;
        let count = others.len() / self.embedding.max(1);
        check_length(OPERATION, others.len(), &[count, self.embedding])?;
        if let Some(gradient) = gradient {
            check_length(OPERATION, gradient.len(), &[batch, count])?;
        }
        if batch == 0 || self.embedding == 0 {
            return Ok((vec![0.0; batch * count], gradient.map(|_| vec![0.0; images.len()])));
        }
        let mut workspace = self.workspace.take();
        let units = self.forward(images, batch, &mut workspace);
        let cosine = |unit: &[f64], other: &[f32]| -> f64 {
            unit.iter().zip(other).map(|(unit, &other)| unit * f64::from(other)).sum()
        };
        let cosines = units
            .rows
            .chunks_exact(self.embedding)
            .flat_map(|unit| others.chunks_exact(self.embedding).map(move |other| cosine(unit, other) as f32));
        let cosines = cosines.collect();
        let gradient = gradient.map(|above| {
            let mut through = vec![0.0; batch * self.embedding];
            for (image, target) in through.chunks_exact_mut(self.embedding).enumerate() {
                let mut sum = vec![0.0; self.embedding];
                for (&factor, other) in above[image * count..].iter().zip(others.chunks_exact(self.embedding)) {
                    sum.iter_mut().zip(other).for_each(|(sum, &other)| *sum += f64::from(factor) * f64::from(other));
                }
                units.carry_back(image, &sum, target);
            }
            self.backward(&through, batch, &mut workspace)
        });
        self.workspace.keep(workspace);
        Ok((cosines, gradient))
    }

    fn check_images(&self, images: &[f32], batch: usize) -> Result<()> {
        let Sizes { tokens, width, heads, .. } = self.sizes(batch);
        // What grows faster than the images: attention, and the second layer's inputs.
        if [[heads, tokens, tokens], [4, tokens, width]]
            .iter()
            .any(|&[a, b, c]| count_in_memory(&[batch, a, b, c]).is_none())
        {
            return Err(Error::option(OPERATION, "batch", "as many images as memory can hold", batch));
        }
        check_length(OPERATION, images.len(), &[batch, CHANNELS, self.resolution, self.resolution]).map(drop)
    }

    fn sizes(&self, batch: usize) -> Sizes {
        let grid = self.resolution / self.patch;
        Sizes { batch, tokens: grid * grid + 1, width: self.width, heads: self.heads }
    }

    /// The tokens of a block's output that later ones read: all, or after the last block the class token.
    fn tokens_after(&self, block: usize, sizes: Sizes) -> usize {
        if block + 1 == self.blocks.len() { 1 } else { sizes.tokens }
    }

    /// The embeddings.
    fn forward(&self, images: &[f32], batch: usize, work: &mut Workspace) -> Units {
        let sizes @ Sizes { tokens, width, .. } = self.sizes(batch);
        let (rows, patches, inputs) = (batch * tokens, tokens - 1, self.patches.inputs);
        let isa = self.instructions;
        let windows = sized(&mut work.windows, batch * patches * inputs);
        self.gather(images, windows);
        let narrow = sized(&mut work.narrow, rows * width);
        self.patches.forward(isa, batch * patches, windows, Onto::Zero, narrow);
        // Two buffers hold the tokens in turn where a pass does not work in place.
        let seen = sized(&mut work.seen, rows * width);
        seen.par_chunks_mut(width).enumerate().for_each(|(row, target)| {
            let (image, token) = (row / tokens, row % tokens);
            let place = &self.places[token * width..][..width];
            let source =
                if token == 0 { &self.class[..] } else { &narrow[(image * patches + token - 1) * width..][..width] };
            target.iter_mut().zip(source).zip(place).for_each(|((target, x), place)| *target = x + place);
        });
        norm(seen, &self.before, sized(&mut work.x, rows * width), &mut work.before);
        work.blocks.resize_with(self.blocks.len(), Kept::default);
        for (index, (block, kept)) in self.blocks.iter().zip(&mut work.blocks).enumerate() {
            let tokens_after = self.tokens_after(index, sizes);
            let rows_after = batch * tokens_after;
            let (x, narrow) = (&mut work.x, sized(&mut work.narrow, rows * width));
            norm(&x[..rows * width], &block.before_attention, narrow, &mut kept.before_attention);
            let joint = sized(&mut kept.joint, rows * 3 * width);
            block.attention.forward(isa, rows, narrow, Onto::Zero, joint);
            let seen = sized(&mut work.seen, rows_after * width);
            attend(
                sizes,
                tokens_after,
                joint,
                sized(&mut kept.weights, batch * sizes.heads * tokens_after * tokens),
                seen,
            );
            if tokens_after < tokens {
                for image in 1..batch {
                    x.copy_within(
                        image * tokens * width..(image * tokens + tokens_after) * width,
                        image * tokens_after * width,
                    );
                }
            }
            let x = &mut x[..rows_after * width];
            block.attention_out.forward(isa, rows_after, seen, Onto::Result, x);
            norm(x, &block.before_mlp, &mut narrow[..rows_after * width], &mut kept.before_mlp);
            let wide = sized(&mut work.wide, rows_after * 4 * width);
            block.mlp_in.forward(isa, rows_after, narrow, Onto::Zero, wide);
            gelu(wide, sized(&mut kept.slopes, rows_after * 4 * width));
            block.mlp_out.forward(isa, rows_after, wide, Onto::Result, x);
        }
        let narrow = sized(&mut work.narrow, batch * width);
        norm(&work.x[..batch * width], &self.after, narrow, &mut work.after);
        let row_len = self.embedding.next_multiple_of(16);
        let mut embeddings = vec![0.0; batch * row_len];
        self.projection.forward(isa, batch, narrow, Onto::Zero, &mut embeddings);
        Units::new(&embeddings, self.embedding, row_len)
    }

    /// The gradient by the images, from that by the embeddings before their division.
    fn backward(&self, above: &[f32], batch: usize, work: &mut Workspace) -> Vec<f32> {
        let sizes @ Sizes { tokens, width, .. } = self.sizes(batch);
        let (rows, patches, inputs) = (batch * tokens, tokens - 1, self.patches.inputs);
        let isa = self.instructions;
        let narrow = sized(&mut work.narrow, rows * width);
        self.projection.backward(isa, batch, above, self.embedding, &mut narrow[..batch * width]);
        let x = sized(&mut work.x, rows * width);
        x[..batch * width].fill(0.0);
        back_through_norm(&narrow[..batch * width], &self.after, &work.after, &mut x[..batch * width]);
        for (index, (block, kept)) in self.blocks.iter().zip(&work.blocks).enumerate().rev() {
            let tokens_after = self.tokens_after(index, sizes);
            let rows_after = batch * tokens_after;
            let wide = sized(&mut work.wide, rows_after * 4 * width);
            block.mlp_out.backward(isa, rows_after, x, width, wide);
            let slopes = kept.slopes[..wide.len()].par_chunks(ROWS * width);
            wide.par_chunks_mut(ROWS * width).zip(slopes).for_each(|(wide, slopes)| {
                wide.iter_mut().zip(slopes).for_each(|(wide, slope)| *wide *= slope);
            });
            block.mlp_in.backward(isa, rows_after, wide, 4 * width, narrow);
            let after = rows_after * width;
            back_through_norm(&narrow[..after], &block.before_mlp, &kept.before_mlp, &mut x[..after]);
            let seen = sized(&mut work.seen, rows_after * width);
            block.attention_out.backward(isa, rows_after, x, width, seen);
            let joint = sized(&mut work.joint, rows * 3 * width);
            if tokens_after < tokens {
                joint.fill(0.0);
                for image in (0..batch).rev() {
                    let (from, to) = (image * tokens_after * width, image * tokens * width);
                    x.copy_within(from..from + tokens_after * width, to);
                    x[to + tokens_after * width..to + tokens * width].fill(0.0);
                }
            }
            attend_back(sizes, tokens_after, &kept.joint, &kept.weights, seen, joint);
            block.attention.backward(isa, rows, joint, 3 * width, narrow);
            back_through_norm(narrow, &block.before_attention, &kept.before_attention, x);
        }
        let seen = sized(&mut work.seen, rows * width);
        seen.fill(0.0);
        back_through_norm(x, &self.before, &work.before, seen);
        for image in 0..batch {
            let from = (image * tokens + 1) * width;
            narrow[image * patches * width..][..patches * width].copy_from_slice(&seen[from..][..patches * width]);
        }
        let row_len = inputs.next_multiple_of(16);
        let windows = sized(&mut work.windows, batch * patches * row_len);
        self.patches.backward(isa, batch * patches, narrow, width, windows);
        let mut images = vec![0.0; batch * CHANNELS * self.resolution * self.resolution];
        self.windows_of_lines(&mut images, |line, start| {
            line.copy_from_slice(&windows[start.0 * row_len + start.1..][..line.len()]);
        });
        images
    }

    /// The patches as rows: channels, lines, pixels.
    fn gather(&self, images: &[f32], windows: &mut [f32]) {
        let (size, patch, inputs) = (self.resolution, self.patch, self.patches.inputs);
        let grid = size / patch;
        windows.par_chunks_mut(inputs).enumerate().for_each(|(row, window)| {
            let (image, y, x) = (row / (grid * grid), row / grid % grid, row % grid);
            for (index, line) in window.chunks_exact_mut(patch).enumerate() {
                let (channel, dy) = (index / patch, index % patch);
                let start = ((image * CHANNELS + channel) * size + y * patch + dy) * size + x * patch;
                line.copy_from_slice(&images[start..][..patch]);
            }
        });
    }

    /// Calls `fill` with each line of each patch and its place: the patch's row and the offset in it.
    fn windows_of_lines(&self, images: &mut [f32], fill: impl Fn(&mut [f32], (usize, usize)) + Sync) {
        let (size, patch) = (self.resolution, self.patch);
        let grid = size / patch;
        images.par_chunks_mut(size).enumerate().for_each(|(line, pixels)| {
            let (plane, y) = (line / size, line % size);
            let (image, channel) = (plane / CHANNELS, plane % CHANNELS);
            for (x, part) in pixels.chunks_exact_mut(patch).enumerate() {
                fill(part, ((image * grid + y / patch) * grid + x, (channel * patch + y % patch) * patch));
            }
        });
    }
}

/// A head's part of queries (0), keys (1) or values (2).
fn head(joint: &[f32], sizes: Sizes, image: usize, head: usize, part: usize) -> Matrix<'_, f32> {
    let Sizes { tokens, width, heads, .. } = sizes;
    let start = image * tokens * 3 * width + part * width + head * (width / heads);
    Matrix::rows(&joint[start..], 3 * width)
}

/// What the first `tokens_after` tokens of each image see: `weights` softmax(q kᵀ/√d), `seen` their sums of values.
fn attend(sizes: Sizes, tokens_after: usize, joint: &[f32], weights: &mut [f32], seen: &mut [f32]) {
    let Sizes { tokens, width, heads, .. } = sizes;
    let length = width / heads;
    let scale = (1.0 / (length as f64).sqrt()) as f32;
    let seen = SharedMut::new(seen);
    weights.par_chunks_mut(tokens_after * tokens).enumerate().for_each(|(index, weights)| {
        let (image, at) = (index / heads, index % heads);
        let [queries, keys, values] = [0, 1, 2].map(|part| head(joint, sizes, image, at, part));
        // SAFETY: `weights` holds the product.
        unsafe {
            let target = weights.as_mut_ptr();
            multiply_into(tokens_after, length, tokens, scale, queries, keys.transposed(), false, target, tokens);
        }
        softmax(weights, tokens);
        let weights = Matrix::rows(weights, tokens);
        // SAFETY: the head's columns of the image's rows are this task's alone.
        unsafe {
            let target = seen.at(image * tokens_after * width + at * length);
            multiply_into(tokens_after, tokens, length, 1.0, weights, values, false, target, width);
        }
    });
}

/// The gradient of [`attend`] by queries, keys and values, into `target`; queries that were not asked keep theirs.
fn attend_back(sizes: Sizes, tokens_after: usize, joint: &[f32], weights: &[f32], seen: &[f32], target: &mut [f32]) {
    let Sizes { batch, tokens, width, heads } = sizes;
    let length = width / heads;
    let scale = (1.0 / (length as f64).sqrt()) as f32;
    let shared = SharedMut::new(target);
    (0..batch * heads).into_par_iter().for_each(|index| {
        let (image, at) = (index / heads, index % heads);
        let [queries, keys, values] = [0, 1, 2].map(|part| head(joint, sizes, image, at, part));
        let above = Matrix::rows(&seen[image * tokens_after * width + at * length..], width);
        let weights = &weights[index * tokens_after * tokens..][..tokens_after * tokens];
        let mut scores = vec![0.0; weights.len()];
        // SAFETY: `scores` holds the product; the head's columns of the image's rows of the target, three parts of them,
        // are this task's alone.
        unsafe {
            let part = |part: usize| shared.at(image * tokens * 3 * width + part * width + at * length);
            let stride = 3 * width;
            multiply_into(
                tokens_after,
                length,
                tokens,
                1.0,
                above,
                values.transposed(),
                false,
                scores.as_mut_ptr(),
                tokens,
            );
            let columns = Matrix::rows(weights, tokens).transposed();
            multiply_into(tokens, tokens_after, length, 1.0, columns, above, false, part(2), stride);
            softmax_back(weights, &mut scores, tokens);
            let scores = Matrix::rows(&scores, tokens);
            multiply_into(tokens_after, tokens, length, scale, scores, keys, false, part(0), stride);
            multiply_into(tokens, tokens_after, length, scale, scores.transposed(), queries, false, part(1), stride);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::super::matmul::test_support::{on_threads, values};
    use super::*;

    const WIDTH: usize = 32;

    fn network() -> VisionTransformer {
        let list = |len: usize, seed: u64, size: f32| -> Arc<[f32]> {
            values::<f32>(len, seed).into_iter().map(|value| value * size).collect()
        };
        let layer = |outputs: usize, inputs: usize, seed: u64| Layer {
            weight: list(outputs * inputs, seed, 0.3),
            bias: list(outputs, seed + 1, 0.1),
        };
        let norm = |seed: u64| Layer { weight: list(WIDTH, seed, 1.0), bias: list(WIDTH, seed + 1, 0.1) };
        let block = |seed: u64| Block {
            before_attention: norm(seed),
            attention: layer(3 * WIDTH, WIDTH, seed + 2),
            attention_out: layer(WIDTH, WIDTH, seed + 4),
            before_mlp: norm(seed + 6),
            mlp_in: layer(4 * WIDTH, WIDTH, seed + 8),
            mlp_out: layer(WIDTH, 4 * WIDTH, seed + 10),
        };
        VisionTransformer::new(&Parts {
            resolution: 12,
            patch: 4,
            heads: 2,
            patches: list(WIDTH * 48, 1, 0.3),
            class: list(WIDTH, 2, 1.0),
            places: list(10 * WIDTH, 3, 1.0),
            before: norm(4),
            blocks: vec![block(10), block(30)],
            after: norm(6),
            projection: list(WIDTH * 20, 8, 0.3),
        })
        .expect("parts that fit")
    }

    fn compare(network: &VisionTransformer) -> (Vec<f32>, Option<Vec<f32>>) {
        let (images, others) = (values::<f32>(3 * 432, 50), values::<f32>(2 * 20, 51));
        network.compare(&images, 3, &others, Some(&[1.0, -0.5, 0.25, 2.0, 1.0, -1.0])).expect("inputs that fit")
    }

    #[test]
    fn same_bits_on_any_number_of_threads_and_instruction_set() {
        let run = |isa| move || compare(&VisionTransformer { instructions: Instructions::of(isa), ..network() });
        let one = on_threads(1, run(Isa::Avx512));
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            assert_eq!(one, on_threads(2, run(isa)), "{isa:?}");
            assert_eq!(one, on_threads(5, run(isa)), "{isa:?}");
        }
    }

    #[test]
    fn nan_in_nan_out_on_every_instruction_set() {
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            let network = VisionTransformer { instructions: Instructions::of(isa), ..network() };
            let (mut images, others) = (values::<f32>(2 * 432, 50), values::<f32>(20, 51));
            images[432] = f32::NAN;
            let (cosines, gradient) = network.compare(&images, 2, &others, Some(&[1.0; 2])).expect("inputs that fit");
            let gradient = gradient.expect("a gradient");
            assert!(!cosines[0].is_nan() && cosines[1].is_nan(), "{isa:?} {cosines:?}");
            assert!(gradient[..432].iter().all(|slope| !slope.is_nan()) && gradient[432].is_nan(), "{isa:?}");
        }
    }
}
