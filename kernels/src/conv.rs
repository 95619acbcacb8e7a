//! 2-D convolution and its two gradients, for any stride, padding, dilation and number of groups.
//!
//! Two ways lead to a result. Most convolutions gather the windows of a block of output rows into the columns of a
//! matrix and multiply it with the kernels (im2col). Where a group has one channel on either side (blurs, Sobel filters)
//! that matrix product would be a mere row, and the kernel *slides* over the plane directly.
//!
//! The work is cut into blocks by the shapes alone and every sum has one fixed order, so results have the same bits for
//! any number of threads.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::matmul::{Matrix, SharedMut, multiply_into};
use super::{assert_fills, count, count_in_memory};
use crate::{Conv2d, Element};

mod slide;

use slide::Slide;

/// Elements of a gathered matrix: it should stay in the second-level cache.
const GATHERED: usize = 1 << 17;
/// Tasks worth cutting finer for.
const TASKS: usize = 16;

/// Everything about one convolution that its kernels need, per group. Unlike [`Conv2d`]'s padding, `lead` may be
/// negative (rows to skip), and `output` is given rather than derived: input gradients need both.
#[derive(Clone, Copy)]
struct Plan {
    batch: usize,
    groups: usize,
    /// Input channels of a group.
    channels: usize,
    /// Output channels of a group.
    outputs: usize,
    input: [usize; 2],
    kernel: [usize; 2],
    output: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    lead: [isize; 2],
}

impl Plan {
    fn new(
        geometry: &Conv2d,
        [batch, channels, height, width]: [usize; 4],
        [_, outputs, rows, columns]: [usize; 4],
        kernel: [usize; 2],
    ) -> Self {
        let groups = geometry.groups.max(1);
        let padded = [0, 1].map(|axis| {
            let extent: usize = [height, width][axis];
            extent.saturating_add(geometry.padding[axis].saturating_mul(2)).max(1)
        });
        Plan {
            batch,
            groups,
            channels: channels / groups,
            outputs: outputs / groups,
            input: [height, width],
            kernel,
            output: [rows, columns],
            // No window takes a step past the padded input, and no kernel of several taps reaches that far.
            stride: [0, 1].map(|axis| geometry.stride[axis].min(padded[axis])),
            dilation: [0, 1].map(|axis| geometry.dilation[axis].min(padded[axis])),
            lead: geometry.padding.map(|padding| padding as isize),
        }
    }

    /// Taps of a kernel's plane.
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Elements of an input plane.
    fn input_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Elements of an output plane.
    fn output_plane(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// One channel in and one out: no matrix to speak of.
    fn is_depthwise(&self) -> bool {
        self.channels == 1 && self.outputs == 1
    }

    /// A 1×1 kernel at stride 1: the input is the gathered matrix.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.lead == [0, 0] && self.input == self.output
    }

    /// Output rows of a block whose gathered matrix has `depth` rows.
    fn block_rows(&self, depth: usize) -> usize {
        let pixels = (GATHERED / depth.max(1)).clamp(128, 4096);
        (pixels / self.output[1].max(1)).clamp(1, self.output[0].max(1))
    }

    /// The channels of a group's input in sample `sample`.
    fn group_input<'a, F>(&self, input: &'a [F], sample: usize, group: usize) -> &'a [F] {
        let len = self.channels * self.input_plane();
        &input[(sample * self.groups + group) * len..][..len]
    }

    /// Where a group's output channels in sample `sample` begin.
    fn group_output(&self, sample: usize, group: usize) -> usize {
        (sample * self.groups + group) * self.outputs * self.output_plane()
    }

    /// For tap `tap` along `axis`: the outputs whose window has it inside the input, and the tap's offset.
    fn inside(&self, axis: usize, tap: usize) -> (std::ops::Range<usize>, isize) {
        let offset = (tap * self.dilation[axis]) as isize - self.lead[axis];
        let stride = self.stride[axis] as isize;
        let below = |bound: isize| if bound <= 0 { 0 } else { ((bound - 1) / stride + 1) as usize };
        let end = below(self.input[axis] as isize - offset).min(self.output[axis]);
        (below(-offset).min(end)..end, offset)
    }

    /// The windows of output rows `rows` over `channels` of a group's input: a row per channel and tap, a column per
    /// output pixel.
    fn gather<F: Element>(
        &self,
        input: &[F],
        channels: std::ops::Range<usize>,
        rows: std::ops::Range<usize>,
        gathered: &mut [F],
    ) {
        let width = self.output[1];
        let mut lines = gathered.chunks_exact_mut(rows.len() * width);
        for channel in channels {
            let plane = &input[channel * self.input_plane()..][..self.input_plane()];
            for tap in 0..self.taps() {
                let Some(line) = lines.next() else { return };
                let (inside_rows, row_offset) = self.inside(0, tap / self.kernel[1]);
                let (columns, column_offset) = self.inside(1, tap % self.kernel[1]);
                for (row, target) in rows.clone().zip(line.chunks_exact_mut(width)) {
                    if !inside_rows.contains(&row) || columns.is_empty() {
                        target.fill(F::ZERO);
                        continue;
                    }
                    let source_row = ((row * self.stride[0]) as isize + row_offset) as usize;
                    let source = &plane[source_row * self.input[1]..][..self.input[1]];
                    let first = ((columns.start * self.stride[1]) as isize + column_offset) as usize;
                    target[..columns.start].fill(F::ZERO);
                    target[columns.end..].fill(F::ZERO);
                    if self.stride[1] == 1 {
                        target[columns.clone()].copy_from_slice(&source[first..][..columns.len()]);
                    } else {
                        let step = source[first..].iter().step_by(self.stride[1]);
                        target[columns.clone()].iter_mut().zip(step).for_each(|(target, &source)| *target = source);
                    }
                }
            }
        }
    }

    /// The adjoint of [`Plan::gather`]: adds a gathered gradient to the input's.
    fn scatter<F: Element>(&self, gathered: &[F], rows: std::ops::Range<usize>, input_gradient: &mut [F]) {
        let width = self.output[1];
        let mut lines = gathered.chunks_exact(rows.len() * width);
        for plane in input_gradient.chunks_exact_mut(self.input_plane()) {
            for tap in 0..self.taps() {
                let Some(line) = lines.next() else { return };
                let (inside_rows, row_offset) = self.inside(0, tap / self.kernel[1]);
                let (columns, column_offset) = self.inside(1, tap % self.kernel[1]);
                for (row, source) in rows.clone().zip(line.chunks_exact(width)) {
                    if !inside_rows.contains(&row) || columns.is_empty() {
                        continue;
                    }
                    let target_row = ((row * self.stride[0]) as isize + row_offset) as usize;
                    let target = &mut plane[target_row * self.input[1]..][..self.input[1]];
                    let first = ((columns.start * self.stride[1]) as isize + column_offset) as usize;
                    let step = target[first..].iter_mut().step_by(self.stride[1]);
                    step.zip(&source[columns.clone()]).for_each(|(target, &source)| *target += source);
                }
            }
        }
    }
}

/// The convolution (cross-correlation, as PyTorch has it) of `input` (N, C, H, W) with `weight` (O, C / groups, KH, KW).
///
/// The result has the shape of [`Conv2d::output_shape`]; callers check the shapes with it first.
///
/// # Panics
/// If a slice does not fill its shape, or the shapes do not fit each other.
///
/// ```
/// use image_losses_kernels::{Conv2d, conv::conv2d};
/// let sums = conv2d(&Conv2d::default(), &[1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2], &[1.0, 1.0], [1, 1, 1, 2]);
/// assert_eq!(sums, [3.0, 7.0]);
/// ```
pub fn conv2d<F: Element>(
    geometry: &Conv2d,
    input: &[F],
    input_shape: [usize; 4],
    weight: &[F],
    weight_shape: [usize; 4],
) -> Vec<F> {
    assert_fills("conv2d: input", &input_shape, input.len());
    assert_fills("conv2d: weight", &weight_shape, weight.len());
    let output = output_shape(geometry, input_shape, weight_shape);
    convolve(&Plan::new(geometry, input_shape, output, [weight_shape[2], weight_shape[3]]), input, weight)
}

/// The gradient of [`conv2d`] with respect to its input of height and width `input_hw`: `grad_output` (N, O, OH, OW)
/// carried back through `weight` (O, C / groups, KH, KW). The result is (N, C, H, W).
///
/// Callers check the shapes with [`Conv2d::output_shape`] first.
///
/// # Panics
/// If a slice does not fill its shape, or the shapes do not fit each other.
pub fn conv2d_input_gradient<F: Element>(
    geometry: &Conv2d,
    grad_output: &[F],
    grad_shape: [usize; 4],
    weight: &[F],
    weight_shape: [usize; 4],
    input_hw: [usize; 2],
) -> Vec<F> {
    assert_fills("conv2d_input_gradient: grad_output", &grad_shape, grad_output.len());
    assert_fills("conv2d_input_gradient: weight", &weight_shape, weight.len());
    let channels = weight_shape[1].saturating_mul(geometry.groups);
    let input_shape = [grad_shape[0], channels, input_hw[0], input_hw[1]];
    assert!(count_in_memory(&input_shape).is_some(), "conv2d_input_gradient: an input of shape {input_shape:?}");
    assert_eq!(output_shape(geometry, input_shape, weight_shape), grad_shape, "conv2d_input_gradient: grad_output");
    let plan = Plan::new(geometry, input_shape, grad_shape, [weight_shape[2], weight_shape[3]]);
    if count(&input_shape) == 0 || grad_output.is_empty() || weight.is_empty() {
        return vec![F::ZERO; count(&input_shape)];
    }
    if !plan.is_depthwise() && plan.stride != [1, 1] {
        return scatter_gradient(&plan, grad_output, weight);
    }
    // Backwards, a window slides over the gradient with the kernel turned around and its channels exchanged.
    let lead = |axis: usize| ((plan.kernel[axis] - 1) * plan.dilation[axis]) as isize - plan.lead[axis];
    let back = Plan {
        channels: plan.outputs,
        outputs: plan.channels,
        input: plan.output,
        output: plan.input,
        stride: [1, 1],
        lead: [lead(0), lead(1)],
        ..plan
    };
    let turned = turn_kernels(&plan, weight);
    if plan.is_depthwise() {
        return slide_planes(&back, plan.stride, grad_output, |plane| {
            let group = plane % plan.groups;
            &turned[group * plan.taps()..][..plan.taps()]
        });
    }
    convolve(&back, grad_output, &turned)
}

/// The gradient of [`conv2d`] with respect to its weight of height and width `kernel_hw`: how `input` (N, C, H, W)
/// and `grad_output` (N, O, OH, OW) correlate. The result is (O, C / groups, KH, KW).
///
/// Callers check the shapes with [`Conv2d::output_shape`] first.
///
/// # Panics
/// If a slice does not fill its shape, or the shapes do not fit each other.
pub fn conv2d_weight_gradient<F: Element>(
    geometry: &Conv2d,
    input: &[F],
    input_shape: [usize; 4],
    grad_output: &[F],
    grad_shape: [usize; 4],
    kernel_hw: [usize; 2],
) -> Vec<F> {
    assert_fills("conv2d_weight_gradient: input", &input_shape, input.len());
    assert_fills("conv2d_weight_gradient: grad_output", &grad_shape, grad_output.len());
    let weight_shape = [grad_shape[1], input_shape[1] / geometry.groups.max(1), kernel_hw[0], kernel_hw[1]];
    assert!(count_in_memory(&weight_shape).is_some(), "conv2d_weight_gradient: a weight of shape {weight_shape:?}");
    assert_eq!(output_shape(geometry, input_shape, weight_shape), grad_shape, "conv2d_weight_gradient: grad_output");
    let plan = Plan::new(geometry, input_shape, grad_shape, kernel_hw);
    let len = count(&weight_shape);
    if input.is_empty() || grad_output.is_empty() || len == 0 {
        return vec![F::ZERO; len];
    }
    if plan.is_depthwise() {
        slide_weight_gradient(&plan, input, grad_output)
    } else {
        gather_gradient(&plan, input, grad_output)
    }
}

/// The output's shape, which callers have checked.
#[track_caller]
fn output_shape(geometry: &Conv2d, input_shape: [usize; 4], weight_shape: [usize; 4]) -> [usize; 4] {
    match geometry.output_shape(&input_shape, &weight_shape) {
        Ok(shape) => std::array::from_fn(|axis| shape[axis]),
        Err(error) => panic!("{error}"),
    }
}

/// A planned convolution, whichever way.
fn convolve<F: Element>(plan: &Plan, input: &[F], weight: &[F]) -> Vec<F> {
    let depth = plan.channels * plan.taps();
    let len = plan.batch * plan.groups * plan.outputs * plan.output_plane();
    if plan.is_depthwise() && len > 0 {
        return slide_planes(plan, [1, 1], input, |plane| &weight[plane % plan.groups * plan.taps()..][..plan.taps()]);
    }
    let mut result = super::buffers::zeros(len);
    if len == 0 || depth == 0 {
        return result;
    }
    let [height, width] = plan.output;
    let rows = plan.block_rows(depth);
    let blocks = height.div_ceil(rows);
    // Small images with many channels: let several tasks share a block's outputs.
    let parts = TASKS.div_ceil(plan.batch * plan.groups * blocks).min(plan.outputs.div_ceil(64));
    let part = plan.outputs.div_ceil(parts);
    let tasks = plan.batch * plan.groups * blocks * parts;
    let output = SharedMut::new(&mut result);
    (0..tasks).into_par_iter().for_each_init(Vec::new, |gathered, task| {
        let (first, task) = (task % parts * part, task / parts);
        let (block, task) = (task % blocks, task / blocks);
        let (sample, group) = (task / plan.groups, task % plan.groups);
        if first >= plan.outputs {
            return;
        }
        let outputs = part.min(plan.outputs - first);
        let block = block * rows..((block + 1) * rows).min(height);
        let pixels = block.len() * width;
        let source = plan.group_input(input, sample, group);
        let windows = if plan.is_pointwise() {
            Matrix::rows(&source[block.start * width..], plan.input_plane())
        } else {
            gathered.resize(depth * pixels, F::ZERO);
            plan.gather(source, 0..plan.channels, block.clone(), gathered);
            Matrix::rows(gathered, pixels)
        };
        let kernels = Matrix::rows(&weight[(group * plan.outputs + first) * depth..][..outputs * depth], depth);
        let plane = plan.output_plane();
        let start = plan.group_output(sample, group) + first * plane + block.start * width;
        // SAFETY: the task's rows of its output channels lie inside `result` (checked by `at` for the last element) and
        // are no other task's.
        unsafe {
            output.at(start + (outputs - 1) * plane + pixels);
            multiply_into(outputs, depth, pixels, F::ONE, kernels, windows, false, output.at(start), plane);
        }
    });
    result
}

/// Each kernel turned by half a turn, input and output channels exchanged.
fn turn_kernels<F: Element>(plan: &Plan, weight: &[F]) -> Vec<F> {
    let taps = plan.taps();
    let mut turned = Vec::with_capacity(weight.len());
    for group in weight.chunks_exact(plan.outputs * plan.channels * taps) {
        for channel in 0..plan.channels {
            for output in 0..plan.outputs {
                turned.extend(group[(output * plan.channels + channel) * taps..][..taps].iter().rev());
            }
        }
    }
    turned
}

/// The input gradient for any stride: gradients of the gathered windows, added where they came from.
fn scatter_gradient<F: Element>(plan: &Plan, grad_output: &[F], weight: &[F]) -> Vec<F> {
    let taps = plan.taps();
    let (depth, plane) = (plan.channels * taps, plan.output_plane());
    let channels = 256_usize.div_ceil(taps).min(plan.channels);
    let parts = plan.channels.div_ceil(channels);
    let (height, width) = (plan.output[0], plan.output[1]);
    let rows = plan.block_rows(channels * taps);
    let mut result = super::buffers::zeros(plan.batch * plan.groups * plan.channels * plan.input_plane());
    let output = SharedMut::new(&mut result);
    (0..plan.batch * plan.groups * parts).into_par_iter().for_each_init(Vec::new, |gathered, task| {
        let (first, task) = (task % parts * channels, task / parts);
        let count = channels.min(plan.channels - first);
        let (sample, group) = (task / plan.groups, task % plan.groups);
        let start = (task * plan.channels + first) * plan.input_plane();
        // SAFETY: these channels of this sample are this task's alone.
        let target = unsafe { output.part(start, count * plan.input_plane()) };
        let kernels = &weight[group * plan.outputs * depth..][..plan.outputs * depth];
        let kernels = Matrix::rows(&kernels[first * taps..], depth).transposed();
        let gradient = &grad_output[plan.group_output(sample, group)..][..plan.outputs * plane];
        for top in (0..height).step_by(rows) {
            let block = top..(top + rows).min(height);
            let pixels = block.len() * width;
            gathered.resize(count * taps * pixels, F::ZERO);
            let gradient = Matrix::rows(&gradient[top * width..], plane);
            // SAFETY: `gathered` has a row of `pixels` for each of the channels' taps, and belongs to this task.
            unsafe {
                let target = gathered.as_mut_ptr();
                multiply_into(count * taps, plan.outputs, pixels, F::ONE, kernels, gradient, false, target, pixels);
            }
            plan.scatter(gathered, block, target);
        }
    });
    result
}

/// The weight gradient by gathered windows.
fn gather_gradient<F: Element>(plan: &Plan, input: &[F], grad_output: &[F]) -> Vec<F> {
    let taps = plan.taps();
    let (depth, plane) = (plan.channels * taps, plan.output_plane());
    let [height, width] = plan.output;
    let channels = 512_usize.div_ceil(taps).min(plan.channels);
    let parts = plan.channels.div_ceil(channels);
    let rows = plan.block_rows(channels * taps);
    let blocks: Vec<(usize, usize)> =
        (0..plan.batch).flat_map(|sample| (0..height).step_by(rows).map(move |top| (sample, top))).collect();
    // Few weights: the image is cut as well, each piece has a sum of its own, and these are added in order.
    let len = plan.groups * plan.outputs * depth;
    let pieces = TASKS.div_ceil(plan.groups * parts).min((1 << 22) / len).clamp(1, blocks.len());
    let piece = blocks.len().div_ceil(pieces);
    let pieces = blocks.len().div_ceil(piece);
    let mut sums = vec![F::ZERO; pieces * len];
    let output = SharedMut::new(&mut sums);
    (0..pieces * plan.groups * parts).into_par_iter().for_each_init(Vec::new, |gathered, task| {
        let (first, task) = (task % parts * channels, task / parts);
        let count = channels.min(plan.channels - first);
        let (group, piece_index) = (task % plan.groups, task / plan.groups);
        let start = piece_index * len + group * plan.outputs * depth + first * taps;
        let mine = &blocks[piece_index * piece..((piece_index + 1) * piece).min(blocks.len())];
        for (index, &(sample, top)) in mine.iter().enumerate() {
            let block = top..(top + rows).min(height);
            let pixels = block.len() * width;
            gathered.resize(count * taps * pixels, F::ZERO);
            plan.gather(plan.group_input(input, sample, group), first..first + count, block, gathered);
            let gradient = &grad_output[plan.group_output(sample, group)..][..plan.outputs * plane];
            let gradient = Matrix::rows(&gradient[top * width..], plane);
            let windows = Matrix::rows(gathered, pixels).transposed();
            // SAFETY: a row of `count * taps` weights for each output channel of this group, inside `sums` (checked by
            // `at` for the last element), and no other task's.
            unsafe {
                output.at(start + (plan.outputs - 1) * depth + count * taps);
                let target = output.at(start);
                multiply_into(plan.outputs, pixels, count * taps, F::ONE, gradient, windows, index > 0, target, depth);
            }
        }
    });
    add_pieces(sums, len)
}

/// The weight gradient of planes with a kernel each: the output's gradient slides over the input, stride and dilation
/// exchanged.
fn slide_weight_gradient<F: Element>(plan: &Plan, input: &[F], grad_output: &[F]) -> Vec<F> {
    let back = Plan { kernel: plan.output, output: plan.kernel, stride: plan.dilation, dilation: plan.stride, ..*plan };
    let plane = plan.output_plane();
    let samples = slide_planes(&back, [1, 1], input, |index| &grad_output[index * plane..][..plane]);
    add_pieces(samples, plan.groups * plan.taps())
}

/// The sum of the pieces of `len` elements, in order.
fn add_pieces<F: Element>(mut pieces: Vec<F>, len: usize) -> Vec<F> {
    let (sum, rest) = pieces.split_at_mut(len);
    for piece in rest.chunks_exact(len) {
        for (sum, &term) in sum.iter_mut().zip(piece) {
            *sum += term;
        }
    }
    pieces.truncate(len);
    pieces
}

/// Slides each plane's kernel over it; `gap` is the spacing of the input's elements (zeros between them).
fn slide_planes<'a, F: Element>(
    plan: &Plan,
    gap: [usize; 2],
    input: &[F],
    kernel: impl Fn(usize) -> &'a [F] + Sync,
) -> Vec<F> {
    let slide = Slide {
        input: plan.input,
        gap,
        kernel: plan.kernel,
        output: plan.output,
        stride: plan.stride,
        dilation: plan.dilation,
        lead: plan.lead,
    };
    let mut result = super::buffers::zeros(plan.batch * plan.groups * plan.output_plane());
    let block = slide::ROWS * plan.output[1];
    let size = plan.input_plane();
    result.par_chunks_mut(plan.output_plane()).enumerate().for_each(|(plane, result)| {
        result.par_chunks_mut(block).enumerate().for_each_init(Vec::new, |strip, (index, rows)| {
            slide.run(&input[plane * size..][..size], kernel(plane), index * slide::ROWS, rows, strip);
        });
    });
    result
}

#[cfg(test)]
mod tests;
