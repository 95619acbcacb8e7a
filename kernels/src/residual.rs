//! A frozen residual network of face recognition as one operation: faces in, products of embeddings out, and the image
//! gradient.
//!
//! The network is never trained: batch norms after a convolution are part of it, the one before the projection is part of
//! that, and the way back keeps a bit per PReLU and what squeeze-and-excitation multiplies. Prediction and target go
//! through together, so that each weight is read once for both. 3×3 convolutions at stride 1 run by Winograd, those at
//! stride 2 tap by tap.
//!
//! `f32` only. In other precisions, or where parameters need gradients, write the network in tensor operations.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::count;
use super::dense::{Onto, Packed, multiply};
use super::embedding::Units;
use super::frozen::passes::{Images, ImagesMut, pass_over};
use super::matmul::SharedMut;
use super::simd;
use super::spare::Spare;
use super::winograd::WinogradWeights;
use super::winograd::engine::{Activation, Backward, Convolution, Forward};
use super::winograd::lanes::{Instructions, LANES};
use super::winograd::layout::{Buffer, Layout};
use super::winograd::strided::{StridedWeights, input_len};
use crate::once::get_or_make;
use crate::shape::check_length;
use crate::{Error, Result};

mod passes;

use passes::{Back, Join, Norm, Past, SlopeMask, Spread, SumTask, Thin};

const OPERATION: &str = "ResidualNetwork";
/// Channels of a face.
const CHANNELS: usize = 3;
/// Channels that a task sums.
const GROUP: usize = 4 * LANES;

/// A factor and a summand per channel: a batch norm in evaluation.
#[derive(Clone, Debug, Default)]
pub struct Affine {
    /// The factors.
    pub scale: Vec<f64>,
    /// The summands.
    pub shift: Vec<f64>,
}

/// The parameters of a residual unit of I channels in and O out: past(x) + g · a(conv(prelu(conv(b(x))))), with the batch
/// norms b and a, and the gate g of squeeze-and-excitation, σ(E max(S mean(·), 0)), or 1.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The stride of the second convolution and of the way past: 1 or 2.
    pub stride: usize,
    /// b: (I).
    pub before: Affine,
    /// The first convolution's weight: (O, I, 3, 3).
    pub first: Arc<[f32]>,
    /// PReLU's slopes: (O).
    pub slope: Arc<[f32]>,
    /// The second convolution's weight: (O, O, 3, 3).
    pub second: Arc<[f32]>,
    /// a: (O).
    pub after: Affine,
    /// S (R, O) and E (O, R).
    pub excitation: Option<[Arc<[f32]>; 2]>,
    /// The way past where the number of channels changes, a convolution (O, I, 1, 1) and its batch norm; else x itself, or
    /// every second of its pixels.
    pub shortcut: Option<(Arc<[f32]>, Affine)>,
}

/// The parameters of a [`ResidualNetwork`].
#[derive(Clone, Debug)]
pub struct Parts {
    /// Height and width of a face.
    pub size: usize,
    /// The first convolution's weight: (C, 3, 3, 3).
    pub first: Arc<[f32]>,
    /// Its batch norm: (C).
    pub first_norm: Affine,
    /// Its PReLU's slopes: (C).
    pub first_slope: Arc<[f32]>,
    /// The units; at least one.
    pub units: Vec<Unit>,
    /// The batch norm after them.
    pub last_norm: Affine,
    /// The projection's weight, (D, C·H·W) of the last unit, and bias, (D).
    pub projection: [Arc<[f32]>; 2],
    /// The embedding's batch norm: (D).
    pub embedding_norm: Affine,
}

/// What embeddings are compared with.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// As many faces; they go through the network along with the others.
    Faces(&'a [f32]),
    /// As many embeddings, (N, D).
    Embeddings(&'a [f32]),
}

/// The frozen improved residual network that ArcFace is published with, with or without squeeze-and-excitation.
///
/// Source: J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019,
/// section 3.1; J. Hu, L. Shen, G. Sun, "Squeeze-and-Excitation Networks", 2018.
pub struct ResidualNetwork {
    size: usize,
    first: WinogradWeights,
    first_bias: Vec<f32>,
    first_slope: Vec<f32>,
    units: Vec<FrozenUnit>,
    projection: Projection,
    instructions: Instructions,
    /// The last call's memory.
    workspace: Spare<Workspace>,
}

impl fmt::Debug for ResidualNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct(OPERATION)
            .field("size", &self.size)
            .field("units", &self.units.len())
            .field("embedding", &self.projection.outputs)
            .finish_non_exhaustive()
    }
}

/// A unit as it runs; what is read in whole vectors fills them.
struct FrozenUnit {
    inputs: usize,
    outputs: usize,
    stride: usize,
    scale: Vec<f32>,
    shift: Vec<f32>,
    first: WinogradWeights,
    /// The first convolution's: zeros.
    no_bias: Vec<f32>,
    slope: Vec<f32>,
    second: Second,
    bias: Vec<f32>,
    gate: Option<Gate>,
    shortcut: Option<(WinogradWeights, Vec<f32>)>,
}

/// The second convolution, its batch norm included.
enum Second {
    Near(WinogradWeights),
    Strided(StridedWeights),
}

/// Squeeze-and-excitation's matrices.
struct Gate {
    squeeze: Arc<[f32]>,
    expand: Arc<[f32]>,
    channels: usize,
    squeezed: usize,
}

/// The projection between two batch norms, as one matrix.
struct Projection {
    weight: Arc<[f32]>,
    before: Affine,
    after: Affine,
    bias: Vec<f32>,
    outputs: usize,
    channels: usize,
    pixels: usize,
    forward: OnceLock<Packed>,
    backward: OnceLock<Packed>,
}

/// What a unit keeps for the way back.
#[derive(Default)]
struct Kept {
    /// Where its PReLU let elements pass.
    mask: Vec<u16>,
    /// What the gate multiplies.
    outputs: Buffer,
    gates: Gates,
}

/// The gates of some images.
#[derive(Default)]
struct Gates {
    /// Of each image, an element per channel, in whole vectors.
    values: Vec<f32>,
    /// Of each image, the squeezed features.
    squeezed: Vec<f32>,
}

#[derive(Default)]
struct Workspace {
    /// A unit's input and output; on the way back, their gradients.
    x: [Buffer; 2],
    /// What enters a unit's first convolution; on the way back, the gradient of its second one's output.
    normed: Buffer,
    /// What is between the convolutions; on the way back, its gradient.
    inner: Buffer,
    past: [Buffer; 2],
    points: Buffer,
    sums: Vec<f32>,
    rows: Vec<f32>,
    first_mask: Vec<u16>,
    units: Vec<Kept>,
}

/// `values` in whole vectors.
fn filled(values: impl IntoIterator<Item = f32>) -> Vec<f32> {
    let mut values: Vec<f32> = values.into_iter().collect();
    values.resize(values.len().next_multiple_of(LANES), 0.0);
    values
}

/// Refuses another number of elements than the product of `extents`.
fn check(name: &str, got: usize, extents: &[usize]) -> Result<()> {
    let expected = count(extents);
    if got == expected {
        return Ok(());
    }
    Err(Error::option(OPERATION, "parts", format!("{expected} elements of {name}"), got))
}

impl Affine {
    fn check(&self, name: &str, expected: usize) -> Result<()> {
        check(name, self.scale.len(), &[expected])?;
        check(name, self.shift.len(), &[expected])
    }

    /// A convolution's weight times the factor of its output.
    fn fold(&self, weight: &[f32]) -> Vec<f32> {
        let len = (weight.len() / self.scale.len().max(1)).max(1);
        let kernels = weight.chunks_exact(len).zip(&self.scale);
        kernels.flat_map(|(kernel, scale)| kernel.iter().map(move |&tap| (f64::from(tap) * scale) as f32)).collect()
    }

    fn filled_shift(&self) -> Vec<f32> {
        filled(self.shift.iter().map(|&shift| shift as f32))
    }
}

impl FrozenUnit {
    fn new(unit: &Unit, inputs: usize) -> Result<Self> {
        let outputs = unit.slope.len();
        if !matches!(unit.stride, 1 | 2) {
            return Err(Error::option(OPERATION, "stride", "1 or 2", unit.stride));
        }
        if outputs == 0 || (unit.shortcut.is_none() && inputs != outputs) {
            return Err(Error::option(
                OPERATION,
                "parts",
                format!("{inputs} channels of a unit without shortcut"),
                outputs,
            ));
        }
        unit.before.check("before", inputs)?;
        check("first", unit.first.len(), &[outputs, inputs, 9])?;
        check("second", unit.second.len(), &[outputs, outputs, 9])?;
        unit.after.check("after", outputs)?;
        let gate = unit.excitation.as_ref().map(|[squeeze, expand]| {
            let squeezed = squeeze.len() / outputs;
            check("excitation", squeeze.len(), &[squeezed, outputs])?;
            check("excitation", expand.len(), &[squeezed, outputs])?;
            Ok::<_, Error>(Gate {
                squeeze: Arc::clone(squeeze),
                expand: Arc::clone(expand),
                channels: outputs,
                squeezed,
            })
        });
        let shortcut = unit.shortcut.as_ref().map(|(weight, norm)| {
            norm.check("shortcut", outputs)?;
            check("shortcut", weight.len(), &[outputs, inputs])?;
            Ok::<_, Error>((WinogradWeights::of_size(1, outputs, inputs, norm.fold(weight)), norm.filled_shift()))
        });
        let second = unit.after.fold(&unit.second);
        Ok(FrozenUnit {
            inputs,
            outputs,
            stride: unit.stride,
            scale: filled(unit.before.scale.iter().map(|&scale| scale as f32)),
            shift: unit.before.filled_shift(),
            first: WinogradWeights::new(outputs, inputs, unit.first.to_vec()),
            no_bias: filled(vec![0.0; outputs]),
            slope: filled(unit.slope.iter().copied()),
            second: match unit.stride {
                1 => Second::Near(WinogradWeights::new(outputs, outputs, second)),
                _ => Second::Strided(StridedWeights::new(outputs, outputs, second.into())),
            },
            bias: unit.after.filled_shift(),
            gate: gate.transpose()?,
            shortcut: shortcut.transpose()?,
        })
    }
}

impl Gate {
    /// The gates of images whose channels sum to `sums` over `pixels` pixels.
    fn open(&self, sums: &[f32], pixels: usize, gates: &mut Gates) {
        let Gate { squeeze, expand, channels, squeezed } = self;
        let lanes = channels.next_multiple_of(LANES);
        let Gates { values, squeezed: kept } = gates;
        values.clear();
        kept.clear();
        let per_pixel = 1.0 / pixels as f64;
        for sums in sums.chunks_exact(lanes) {
            let start = kept.len();
            kept.extend(squeeze.chunks_exact(*channels).map(|row| {
                let products = row.iter().zip(sums).map(|(&weight, &sum)| f64::from(weight) * f64::from(sum));
                let mean = products.sum::<f64>() * per_pixel;
                // A NaN stays a NaN.
                (if mean <= 0.0 { 0.0 } else { mean }) as f32
            }));
            let features = &kept[start..];
            values.extend((0..*channels).map(|channel| {
                let row = &expand[channel * squeezed..][..*squeezed];
                let sum: f64 = row.iter().zip(features).map(|(&w, &z)| f64::from(w) * f64::from(z)).sum();
                // Not the C library's exponential: the same bits everywhere.
                simd::sigmoid(sum as f32)
            }));
            values.resize(values.len().next_multiple_of(LANES), 0.0);
        }
    }

    /// In the place of the gradients of the gates, those of each pixel by way of the means.
    fn carry_back(&self, sums: &mut [f32], pixels: usize, gates: &Gates) {
        let Gate { squeeze, expand, channels, squeezed } = self;
        let lanes = channels.next_multiple_of(LANES);
        for (image, sums) in sums.chunks_exact_mut(lanes).enumerate() {
            let gates_of = &gates.values[image * lanes..][..*channels];
            let features = &gates.squeezed[image * squeezed..][..*squeezed];
            let mut back = vec![0.0_f64; *squeezed];
            for (channel, (&gate, &sum)) in gates_of.iter().zip(&*sums).enumerate() {
                let gate = f64::from(gate);
                let above = f64::from(sum) * gate * (1.0 - gate);
                for (back, &weight) in back.iter_mut().zip(&expand[channel * squeezed..]) {
                    *back += above * f64::from(weight);
                }
            }
            let mut means = vec![0.0_f64; *channels];
            for ((&back, &feature), row) in back.iter().zip(features).zip(squeeze.chunks_exact(*channels)) {
                if feature != 0.0 {
                    means.iter_mut().zip(row).for_each(|(mean, &weight)| *mean += back * f64::from(weight));
                }
            }
            sums.fill(0.0);
            sums.iter_mut().zip(means).for_each(|(sum, mean)| *sum = (mean / pixels as f64) as f32);
        }
    }
}

impl Projection {
    fn new(parts: &Parts, channels: usize, pixels: usize) -> Result<Self> {
        let [weight, bias] = &parts.projection;
        let (outputs, depth) = (bias.len(), count(&[channels, pixels]));
        if outputs == 0 {
            return Err(Error::option(OPERATION, "parts", "an embedding of at least one element", outputs));
        }
        check("projection", weight.len(), &[outputs, depth])?;
        parts.last_norm.check("last_norm", channels)?;
        parts.embedding_norm.check("embedding_norm", outputs)?;
        let Affine { scale, shift } = &parts.embedding_norm;
        let bias = bias.iter().zip(weight.chunks_exact(depth)).zip(scale.iter().zip(shift));
        let bias = bias.map(|((&bias, row), (scale, shift))| {
            let of_channels = row.chunks_exact(pixels).zip(&parts.last_norm.shift);
            let sum: f64 = of_channels.map(|(row, shift)| row.iter().map(|&w| f64::from(w)).sum::<f64>() * shift).sum();
            ((f64::from(bias) + sum) * scale + shift) as f32
        });
        Ok(Projection {
            weight: Arc::clone(weight),
            before: parts.last_norm.clone(),
            after: parts.embedding_norm.clone(),
            bias: filled(bias),
            outputs,
            channels,
            pixels,
            forward: OnceLock::new(),
            backward: OnceLock::new(),
        })
    }

    fn depth(&self) -> usize {
        self.channels * self.pixels
    }

    /// The factor of an input, counted pixel by pixel, in an output.
    fn at(&self, input: usize, output: usize) -> f32 {
        let (pixel, channel) = (input / self.channels, input % self.channels);
        let weight = f64::from(self.weight[(output * self.channels + channel) * self.pixels + pixel]);
        (weight * self.before.scale[channel] * self.after.scale[output]) as f32
    }

    fn forward(&self) -> &Packed {
        get_or_make(&self.forward, || Packed::new(self.depth(), self.outputs, |input, output| self.at(input, output)))
    }

    fn backward(&self) -> &Packed {
        get_or_make(&self.backward, || Packed::new(self.outputs, self.depth(), |output, input| self.at(input, output)))
    }
}

impl ResidualNetwork {
    /// The network with the given parameters.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for parameters that do not fit each other.
    pub fn new(parts: &Parts) -> Result<Self> {
        let channels = parts.first_slope.len();
        check("first", parts.first.len(), &[channels, CHANNELS, 9])?;
        parts.first_norm.check("first_norm", channels)?;
        if parts.units.is_empty() || parts.size == 0 || channels == 0 {
            return Err(Error::option(OPERATION, "parts", "units, channels and pixels", 0));
        }
        if Layout::checked([1, channels, parts.size, parts.size]).is_none() {
            return Err(Error::option(OPERATION, "size", "as many pixels as memory can hold", parts.size));
        }
        let mut units: Vec<FrozenUnit> = Vec::new();
        let (mut inputs, mut extent) = (channels, parts.size);
        for unit in &parts.units {
            let unit = FrozenUnit::new(unit, inputs)?;
            (inputs, extent) = (unit.outputs, extent.div_ceil(unit.stride));
            units.push(unit);
        }
        Ok(ResidualNetwork {
            size: parts.size,
            first: WinogradWeights::new(channels, CHANNELS, parts.first_norm.fold(&parts.first)),
            first_bias: parts.first_norm.filled_shift(),
            first_slope: filled(parts.first_slope.iter().copied()),
            units,
            projection: Projection::new(parts, inputs, count(&[extent, extent]))?,
            instructions: Instructions::detect(),
            workspace: Spare::default(),
        })
    }

    /// Height and width of a face.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The length of an embedding.
    pub fn embedding_len(&self) -> usize {
        self.projection.outputs
    }

    /// The embeddings (N, D) of faces (N, 3, S, S), each of length 1.
    ///
    /// # Errors
    /// [`Error::Length`] for faces of another size.
    pub fn embed(&self, faces: &[f32], batch: usize) -> Result<Vec<f32>> {
        self.check_faces(faces, batch)?;
        let mut workspace = self.workspace.take();
        let units = self.forward(&[faces], batch, false, &mut workspace);
        self.workspace.keep(workspace);
        Ok(units.rows.iter().map(|&value| value as f32).collect())
    }

    /// The products (N) of the embeddings of `faces` (N, 3, S, S) with those of `target`, and, where `gradient` (N) is
    /// given, the gradient of their sum weighted by it, by `faces`. The target has no gradient.
    ///
    /// # Errors
    /// [`Error::Length`] for inputs of another size.
    pub fn compare(
        &self,
        faces: &[f32],
        batch: usize,
        target: Target<'_>,
        gradient: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        self.check_faces(faces, batch)?;
        let embedding = self.projection.outputs;
        if let Some(gradient) = gradient {
            check_length(OPERATION, gradient.len(), &[batch])?;
        }
        let sources = match target {
            Target::Faces(others) => {
                self.check_faces(others, batch)?;
                vec![faces, others]
            }
            Target::Embeddings(others) => {
                check_length(OPERATION, others.len(), &[batch, embedding])?;
                vec![faces]
            }
        };
        let mut workspace = self.workspace.take();
        let units = self.forward(&sources, batch, gradient.is_some(), &mut workspace);
        let theirs = |face: usize| -> Vec<f64> {
            match target {
                Target::Faces(_) => units.row(batch + face).to_vec(),
                Target::Embeddings(others) => {
                    others[face * embedding..][..embedding].iter().copied().map(f64::from).collect()
                }
            }
        };
        let product = |face: usize| units.row(face).iter().zip(theirs(face)).map(|(a, b)| a * b).sum::<f64>() as f32;
        let products = (0..batch).map(product).collect();
        let gradient = gradient.map(|factors| {
            let mut above = vec![0.0; batch * embedding];
            for (face, &factor) in factors.iter().enumerate() {
                let theirs: Vec<f64> = theirs(face).iter().map(|&value| value * f64::from(factor)).collect();
                units.carry_back(face, &theirs, &mut above[face * embedding..][..embedding]);
            }
            self.backward(&above, batch, sources.len() * batch, &mut workspace)
        });
        self.workspace.keep(workspace);
        Ok((products, gradient))
    }

    fn check_faces(&self, faces: &[f32], batch: usize) -> Result<()> {
        check_length(OPERATION, faces.len(), &[batch, CHANNELS, self.size, self.size]).map(drop)
    }

    /// The layouts of a batch: of the faces, and of each unit's input and the last one's output.
    fn layouts(&self, batch: usize) -> (Layout, Vec<Layout>) {
        let faces = Layout::new([batch, CHANNELS, self.size, self.size]);
        let mut layouts = vec![faces.with_channels(self.first.shape()[0])];
        let mut extent = self.size;
        for unit in &self.units {
            extent = extent.div_ceil(unit.stride);
            layouts.push(Layout::new([batch, unit.outputs, extent, extent]));
        }
        (faces, layouts)
    }

    /// The embeddings of the faces of all sources, `samples` each. With `keep` what the way back of the first source
    /// needs is kept.
    fn forward(&self, sources: &[&[f32]], samples: usize, keep: bool, work: &mut Workspace) -> Units {
        let isa = self.instructions;
        let batch = samples * sources.len();
        let (faces, layouts) = self.layouts(batch);
        let kept_samples = if keep { samples } else { 0 };
        let largest = layouts.iter().zip(&self.units).map(|(from, unit)| from.with_channels(unit.outputs));
        let largest = largest.chain(layouts.iter().copied()).chain([faces]).map(|layout| input_len(&layout)).max();
        let Workspace { x: buffers, normed, inner, past, points, sums, rows, first_mask, units } = work;
        let [x, next] = buffers;
        for buffer in [&mut *x, next, normed, inner].into_iter().chain(past.iter_mut()) {
            buffer.reserve(largest.unwrap_or(0));
        }
        units.resize_with(self.units.len(), Kept::default);

        for (index, source) in sources.iter().enumerate() {
            faces.fill_from_planes(source, index * samples, |_| [1.0, 0.0], inner);
        }
        let first = layouts[0];
        first_mask.resize(first.vectors(kept_samples), 0);
        let mask = Some((&mut first_mask[..], kept_samples));
        let finish = Forward::new(x, first, &self.first_bias, Activation::Prelu(&self.first_slope), mask);
        Convolution::new(inner, faces, self.first.forward(), isa).run(&finish, points);
        let unit = &self.units[0];
        first.clear_border(normed);
        let (from, to) = (Images::new(x, first), ImagesMut::new(normed, first));
        let norm = Norm { from, to, scale: &unit.scale, shift: &unit.shift };
        // SAFETY: both have this layout.
        unsafe { pass_over(isa, &first, batch, norm) };

        let (mut x, mut next) = (x, next);
        for (index, (unit, kept)) in self.units.iter().zip(units).enumerate() {
            let (from, to) = (layouts[index], layouts[index + 1]);
            let middle = from.with_channels(unit.outputs);
            middle.clear_border(inner);
            kept.mask.resize(middle.vectors(kept_samples), 0);
            let mask = Some((&mut kept.mask[..], kept_samples));
            let finish = Forward::new(inner, middle, &unit.no_bias, Activation::Prelu(&unit.slope), mask);
            Convolution::new(normed, from, unit.first.forward(), isa).run(&finish, points);

            kept.outputs.reserve(to.len());
            let finish = Forward::new(&mut kept.outputs, to, &unit.bias, Activation::None, None);
            match &unit.second {
                Second::Near(weights) => Convolution::new(inner, middle, weights.forward(), isa).run(&finish, points),
                Second::Strided(weights) => weights.convolve(isa, inner, middle, to, &finish),
            }
            let outputs = Images::new(&kept.outputs, to);
            if let Some(gate) = &unit.gate {
                channel_sums(isa, outputs, None, batch, sums);
                gate.open(sums, to.height * to.width, &mut kept.gates);
            }

            let [thinned, through] = &mut *past;
            let low = to.with_channels(unit.inputs);
            let mut past = Images::new(x, from);
            if unit.stride > 1 {
                let thin = Thin { from: past, to: ImagesMut::new(thinned, low) };
                // SAFETY: the target has this layout, and its pixels are every second of the source's.
                unsafe { pass_over(isa, &low, batch, thin) };
                past = Images::new(thinned, low);
            }
            if let Some((weights, bias)) = &unit.shortcut {
                let finish = Forward::new(through, to, bias, Activation::None, None);
                Convolution::new(past.data, low, weights.forward(), isa).run(&finish, points);
                past = Images::new(through, to);
            }
            let following = self.units.get(index + 1);
            if following.is_some() {
                to.clear_border(normed);
            }
            let target = ImagesMut::new(next, to);
            let normed = ImagesMut::new(normed, to);
            let gates = unit.gate.as_ref().map(|_| &kept.gates.values[..]);
            let following = following.map(|unit| (normed, &unit.scale[..], &unit.shift[..]));
            // SAFETY: all of these have this layout.
            unsafe { pass_over(isa, &to, batch, Join { outputs, gates, past, target, following }) };
            (x, next) = (next, x);
        }

        let last = layouts[layouts.len() - 1];
        let depth = self.projection.depth();
        rows.resize(batch * depth, 0.0);
        let channels = last.channels;
        rows.par_chunks_exact_mut(channels).enumerate().for_each(|(pixel, target)| {
            let (row, across) = (pixel / last.width, pixel % last.width);
            let start = last.at(row / last.height, row % last.height, across);
            target.copy_from_slice(&x[start..][..channels]);
        });
        let packed = self.projection.forward();
        let mut embeddings = vec![0.0; batch * packed.row_len()];
        multiply(isa, batch, rows, depth, packed, &self.projection.bias, Onto::Zero, &mut embeddings);
        Units::new(&embeddings, self.projection.outputs, packed.row_len())
    }

    /// The gradient by the first `samples` faces of a batch that went [`forward`](Self::forward), from that by their
    /// embeddings before the division.
    fn backward(&self, above: &[f32], samples: usize, batch: usize, work: &mut Workspace) -> Vec<f32> {
        let isa = self.instructions;
        debug_assert!(samples <= batch);
        let (faces, layouts) = self.layouts(samples);
        let Workspace { x: buffers, normed, inner, past, points, sums, rows, first_mask, units } = work;
        let last = layouts[layouts.len() - 1];
        let packed = self.projection.backward();
        rows.resize((samples * packed.row_len()).max(rows.len()), 0.0);
        multiply(isa, samples, above, self.projection.outputs, packed, &[], Onto::Zero, rows);
        let [x, next] = buffers;
        for sample in 0..samples {
            for pixel in 0..last.height * last.width {
                let target = &mut x[last.at(sample, pixel / last.width, pixel % last.width)..][..last.lanes()];
                target.fill(0.0);
                let source = &rows[sample * packed.row_len() + pixel * last.channels..];
                target[..last.channels].copy_from_slice(&source[..last.channels]);
            }
        }

        let (mut x, mut next) = (x, next);
        for (index, (unit, kept)) in self.units.iter().zip(&*units).enumerate().rev() {
            let (from, to) = (layouts[index], layouts[index + 1]);
            let middle = from.with_channels(unit.outputs);
            let gradient = Images::new(x, to);
            let gates = unit.gate.as_ref().map(|gate| {
                channel_sums(isa, gradient, Some(Images::new(&kept.outputs, to)), samples, sums);
                gate.carry_back(sums, to.height * to.width, &kept.gates);
                (&kept.gates.values[..], &sums[..])
            });
            to.clear_border(normed);
            let target = ImagesMut::new(normed, to);
            // SAFETY: both have this layout.
            unsafe { pass_over(isa, &to, samples, Spread { gradient, gates, target }) };
            middle.clear_border(inner);
            let mask = SlopeMask::new(&kept.mask, &unit.slope, middle);
            let finish = Back::new(inner, middle, None, Some(mask));
            match &unit.second {
                Second::Near(weights) => Convolution::new(normed, to, weights.backward(), isa).run(&finish, points),
                Second::Strided(weights) => weights.carry_back(isa, normed, to, middle, &finish),
            }

            let low = to.with_channels(unit.inputs);
            let mut past_gradient = gradient;
            if let Some((weights, _)) = &unit.shortcut {
                let target = &mut past[0];
                let finish = Backward::new(target, low, None);
                Convolution::new(x, to, weights.backward(), isa).run(&finish, points);
                past_gradient = Images::new(target, low);
            }
            let past = Past { gradient: past_gradient, scale: &unit.scale, stride: unit.stride };
            let mask = (index == 0).then(|| {
                from.clear_border(next);
                SlopeMask::new(first_mask, &self.first_slope, from)
            });
            let finish = Back::new(next, from, Some(past), mask);
            Convolution::new(inner, middle, unit.first.backward(), isa).run(&finish, points);
            (x, next) = (next, x);
        }
        let finish = Backward::new(inner, faces, None);
        Convolution::new(x, layouts[0], self.first.backward(), isa).run(&finish, points);
        faces.to_planes(inner, samples, |_| 1.0)
    }
}

/// The sums over the pixels of each channel of the first `samples` images, of the products with `factors` if given: of
/// each image an element per channel, in whole vectors.
fn channel_sums(
    instructions: Instructions,
    images: Images<'_>,
    factors: Option<Images<'_>>,
    samples: usize,
    sums: &mut Vec<f32>,
) {
    let lanes = images.layout.lanes();
    sums.clear();
    sums.resize(samples * lanes, 0.0);
    let groups = lanes.div_ceil(GROUP);
    let target = SharedMut::new(sums);
    (0..samples * groups).into_par_iter().for_each(|index| {
        let (sample, first) = (index / groups, index % groups * GROUP);
        let channels = [first, (first + GROUP).min(lanes)];
        // SAFETY: these channels of this image are this task's alone, and `sums` has room for them.
        unsafe { instructions.run(SumTask { images, factors, sums: target, sample, channels }) };
    });
}

#[cfg(test)]
mod tests;
