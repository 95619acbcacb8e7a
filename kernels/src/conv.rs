//! 2-D convolution and its two gradients, for any stride, padding, dilation and number of groups.
//!
//! Two ways lead to a result. Most convolutions gather the windows of a block of output pixels into the columns of a
//! matrix, a few channels at a time, and multiply it with the kernels (im2col). Where a group has one channel on either
//! side (blurs, Sobel filters) that matrix product would be a mere row, and the kernel *slides* over the plane directly.
//!
//! The work is cut into blocks by the shapes alone and every sum has one fixed order, so results have the same bits for
//! any number of threads.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::matmul::{Matrix, SharedMut, multiply_into};
use super::{assert_fills, count, count_in_memory, panels};
use crate::{Conv2d, Element};

mod slide;

use slide::Slide;

/// Rows of a gathered matrix, about: channels and taps that are multiplied at a time.
const DEPTH: usize = 384;
/// Columns of a gathered matrix, about: with [`DEPTH`] rows it stays in the second-level cache.
const PIXELS: usize = 384;
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

    /// The output's pixels, cut into blocks of about [`PIXELS`]: rows of a sample, or small samples together.
    fn blocks(&self) -> Vec<Block> {
        let plane = self.output_plane().max(1);
        let rows = (PIXELS / self.output[1].max(1)).clamp(1, self.output[0].max(1));
        let samples = (PIXELS / plane).max(1);
        let starts = (0..self.batch).step_by(samples);
        let block = |first: usize, top: usize| Block {
            samples: first..(first + samples).min(self.batch),
            rows: top..(top + rows).min(self.output[0]),
        };
        starts.flat_map(|first| (0..self.output[0]).step_by(rows).map(move |top| block(first, top))).collect()
    }

    /// Where each tap of the kernel meets the input.
    fn reaches(&self) -> Vec<Reach> {
        let reach = |tap: usize| {
            let (rows, row_offset) = self.inside(0, tap / self.kernel[1]);
            let (columns, column_offset) = self.inside(1, tap % self.kernel[1]);
            Reach { rows, row_offset, columns, column_offset }
        };
        (0..self.taps()).map(reach).collect()
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

    /// A tap's elements of the windows of a block over a channel: as many as the block has pixels.
    fn gather<F: Element>(
        &self,
        input: &[F],
        block: &Block,
        [group, channel]: [usize; 2],
        reach: &Reach,
        line: &mut [F],
    ) {
        let (width, columns) = (self.output[1], &reach.columns);
        let first = ((columns.start * self.stride[1]) as isize + reach.column_offset) as usize;
        let mut targets = line.chunks_exact_mut(width);
        for sample in block.samples.clone() {
            let plane = &self.group_input(input, sample, group)[channel * self.input_plane()..][..self.input_plane()];
            for (row, target) in block.rows.clone().zip(&mut targets) {
                if !reach.rows.contains(&row) || columns.is_empty() {
                    target.fill(F::ZERO);
                    continue;
                }
                let source_row = ((row * self.stride[0]) as isize + reach.row_offset) as usize;
                let source = &plane[source_row * self.input[1]..][..self.input[1]];
                // Rows are short: a call that fills nothing would count.
                if columns.len() < width {
                    target[..columns.start].fill(F::ZERO);
                    target[columns.end..].fill(F::ZERO);
                }
                if self.stride[1] == 1 {
                    target[columns.clone()].copy_from_slice(&source[first..][..columns.len()]);
                } else {
                    let step = source[first..].iter().step_by(self.stride[1]);
                    target[columns.clone()].iter_mut().zip(step).for_each(|(target, &source)| *target = source);
                }
            }
        }
    }

    /// Adds a tap's sums at output rows `rows` to the pixels of a channel that it meets.
    fn scatter<F: Element>(&self, line: &[F], rows: &std::ops::Range<usize>, reach: &Reach, plane: &mut [F]) {
        let columns = &reach.columns;
        for (row, source) in rows.clone().zip(line.chunks_exact(self.output[1])) {
            if !reach.rows.contains(&row) || columns.is_empty() {
                continue;
            }
            let target_row = ((row * self.stride[0]) as isize + reach.row_offset) as usize;
            let first = ((columns.start * self.stride[1]) as isize + reach.column_offset) as usize;
            let target = &mut plane[target_row * self.input[1]..][..self.input[1]];
            let step = target[first..].iter_mut().step_by(self.stride[1]);
            step.zip(&source[columns.clone()]).for_each(|(target, &source)| *target += source);
        }
    }
}

/// Pixels of an output, of all its channels: rows of some samples, all rows where there are several.
#[derive(Clone, Debug)]
struct Block {
    samples: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
}

/// The outputs whose window has a tap inside the input, and the tap's offset, as [`Plan::inside`] gives them.
struct Reach {
    rows: std::ops::Range<usize>,
    row_offset: isize,
    columns: std::ops::Range<usize>,
    column_offset: isize,
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
    if !plan.is_depthwise() {
        // Towards few channels the windows of the gradient would be many times the sums.
        let scatters = plan.stride != [1, 1] && 8 * plan.channels <= plan.outputs;
        return if scatters { scattered(&plan, grad_output, weight) } else { phases(&plan, grad_output, weight) };
    }
    // Backwards, a window slides over the gradient with the kernel turned around.
    let lead = |axis: usize| ((plan.kernel[axis] - 1) * plan.dilation[axis]) as isize - plan.lead[axis];
    let back = Plan { input: plan.output, output: plan.input, stride: [1, 1], lead: [lead(0), lead(1)], ..plan };
    let turned: Vec<F> = weight.chunks_exact(plan.taps()).flat_map(|kernel| kernel.iter().rev().copied()).collect();
    slide_planes(&back, plan.stride, grad_output, |plane| {
        let group = plane % plan.groups;
        &turned[group * plan.taps()..][..plan.taps()]
    })
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
    let (plane, taps, reaches, blocks) = (plan.output_plane(), plan.taps(), plan.reaches(), plan.blocks());
    // Small images with many channels: let several tasks share a block's outputs.
    let parts = TASKS.div_ceil(plan.groups * blocks.len()).min(plan.outputs.div_ceil(128));
    let part = plan.outputs.div_ceil(parts);
    let width = panels::width::<F>();
    let channels = (DEPTH / taps).clamp(1, plan.channels);
    let output = SharedMut::new(&mut result);
    (0..blocks.len() * plan.groups * parts).into_par_iter().for_each_init(Default::default, |scratch, task| {
        let (first, task) = (task % parts * part, task / parts);
        let (group, block) = (task % plan.groups, &blocks[task / plan.groups]);
        if first >= plan.outputs {
            return;
        }
        let outputs = part.min(plan.outputs - first);
        let rows = block.rows.len() * plan.output[1];
        let pixels = block.samples.len() * rows;
        let whole = pixels.next_multiple_of(width);
        let [line, windows, sums]: &mut [Vec<F>; 3] = scratch;
        // A line ends with zeros, up to the end of its last panel.
        line.clear();
        line.resize(whole, F::ZERO);
        windows.resize(whole * channels * taps, F::ZERO);
        sums.resize(whole * outputs, F::ZERO);
        for start in (0..plan.channels).step_by(channels) {
            let count = channels.min(plan.channels - start);
            let depth_here = count * taps;
            for row in 0..depth_here {
                let at = [group, start + row / taps];
                plan.gather(input, block, at, &reaches[row % taps], &mut line[..pixels]);
                for (panel, source) in line.chunks_exact(width).enumerate() {
                    windows[(panel * depth_here + row) * width..][..width].copy_from_slice(source);
                }
            }
            let kernels = &weight[(group * plan.outputs + first) * depth..][..outputs * depth];
            let kernels = Matrix::rows(&kernels[start * taps..], depth);
            panels::multiply([outputs, depth_here, pixels], kernels, windows, sums, start > 0);
        }
        for (index, sample) in block.samples.clone().enumerate() {
            for row in 0..outputs {
                let start =
                    plan.group_output(sample, group) + (first + row) * plane + block.rows.start * plan.output[1];
                // SAFETY: the block's pixels of the task's output channels are no other task's.
                let target = unsafe { output.part(start, rows) };
                panels::copy_row(sums, outputs, row, index * rows, target);
            }
        }
    });
    result
}

/// The taps that carry a gradient back to every `stride`-th row or column of the input, from the `phase`-th on: the last
/// one, the distance between two, and their number; and `lead` and dilation of their convolution over the gradient.
struct Phase {
    last: usize,
    step: usize,
    taps: usize,
    lead: isize,
    dilation: usize,
}

impl Phase {
    /// `None` where no tap does.
    fn new(plan: &Plan, axis: usize, phase: usize) -> Option<Self> {
        let (stride, dilation) = (plan.stride[axis], plan.dilation[axis]);
        // The row of the gradient that tap `tap` takes for the first of these rows, if there is such a row.
        let row = |tap: usize| {
            let position = phase as isize + plan.lead[axis] - (tap * dilation) as isize;
            (position.rem_euclid(stride as isize) == 0).then_some(position / stride as isize)
        };
        let mut taps = (0..plan.kernel[axis]).rev().filter_map(|tap| Some((tap, row(tap)?)));
        let (last, row) = taps.next()?;
        // Those before it follow at equal distances.
        let Some((tap, next)) = taps.next() else {
            return Some(Phase { last, step: 1, taps: 1, lead: -row, dilation: 1 });
        };
        let step = last - tap;
        Some(Phase { last, step, taps: last / step + 1, lead: -row, dilation: (next - row) as usize })
    }
}

/// The kernels' taps of two phases, turned by half a turn, input and output channels exchanged.
fn turn_kernels<F: Element>(plan: &Plan, [rows, columns]: [&Phase; 2], weight: &[F]) -> Vec<F> {
    /// Channels that are read together: their taps lie side by side, the next output's far away.
    const TOGETHER: usize = 32;
    let taps = plan.taps();
    let order: Vec<usize> = (0..rows.taps)
        .flat_map(|row| {
            let start = (rows.last - row * rows.step) * plan.kernel[1] + columns.last;
            (0..columns.taps).map(move |tap| start - tap * columns.step)
        })
        .collect();
    let of_channel = plan.outputs * order.len();
    let mut turned = vec![F::ZERO; plan.groups * plan.channels * of_channel];
    let kernels = weight.chunks_exact(plan.outputs * plan.channels * taps);
    for (turned, weight) in turned.chunks_exact_mut(plan.channels * of_channel).zip(kernels) {
        turned.par_chunks_mut(TOGETHER * of_channel).enumerate().for_each(|(part, turned)| {
            for output in 0..plan.outputs {
                let source = &weight[(output * plan.channels + part * TOGETHER) * taps..];
                for (turned, source) in turned.chunks_exact_mut(of_channel).zip(source.chunks_exact(taps)) {
                    let turned = &mut turned[output * order.len()..][..order.len()];
                    turned.iter_mut().zip(&order).for_each(|(target, &tap)| *target = source[tap]);
                }
            }
        });
    }
    turned
}

/// The input gradient, a convolution of stride 1 over the output's for every position in a stride: a window slides over the
/// gradient with those taps of the kernel that meet the position, turned around, input and output channels exchanged.
fn phases<F: Element>(plan: &Plan, grad_output: &[F], weight: &[F]) -> Vec<F> {
    let along = |axis: usize| {
        let phases =
            (0..plan.stride[axis].min(plan.input[axis])).map(move |phase| (phase, Phase::new(plan, axis, phase)));
        phases.filter_map(|(phase, taps)| Some((phase, taps?))).collect::<Vec<_>>()
    };
    let (along_rows, along_columns) = (along(0), along(1));
    let mut result = Vec::new();
    for (top, rows) in &along_rows {
        for (first, columns) in &along_columns {
            let turned = turn_kernels(plan, [rows, columns], weight);
            let of_stride = |axis: usize, first: usize| (plan.input[axis] - first).div_ceil(plan.stride[axis]);
            let back = Plan {
                channels: plan.outputs,
                outputs: plan.channels,
                input: plan.output,
                kernel: [rows.taps, columns.taps],
                output: [of_stride(0, *top), of_stride(1, *first)],
                stride: [1, 1],
                dilation: [rows.dilation, columns.dilation],
                lead: [rows.lead, columns.lead],
                ..*plan
            };
            let found = convolve(&back, grad_output, &turned);
            if plan.stride == [1, 1] {
                return found;
            }
            result.resize(plan.batch * plan.groups * plan.channels * plan.input_plane(), F::ZERO);
            let planes = result.par_chunks_mut(plan.input_plane()).zip(found.par_chunks(back.output_plane()));
            planes.for_each(|(plane, found)| {
                let lines = plane.chunks_exact_mut(plan.input[1]).skip(*top).step_by(plan.stride[0]);
                for (line, found) in lines.zip(found.chunks_exact(back.output[1])) {
                    let targets = line[*first..].iter_mut().step_by(plan.stride[1]);
                    targets.zip(found).for_each(|(target, &found)| *target = found);
                }
            });
            super::buffers::give_back(found);
        }
    }
    result.resize(plan.batch * plan.groups * plan.channels * plan.input_plane(), F::ZERO);
    result
}

/// The input gradient of few channels: the product of kernels and gradient is a row per channel and tap, which is added to
/// the pixels that the tap meets.
fn scattered<F: Element>(plan: &Plan, grad_output: &[F], weight: &[F]) -> Vec<F> {
    let (depth, plane, width) = (plan.channels * plan.taps(), plan.output_plane(), plan.output[1]);
    let (reaches, rows) = (plan.reaches(), (PIXELS / width.max(1)).clamp(1, plan.output[0].max(1)));
    let mut result = super::buffers::zeros(plan.batch * plan.groups * plan.channels * plan.input_plane());
    let samples = result.par_chunks_mut((plan.channels * plan.input_plane()).max(1)).enumerate();
    samples.for_each_init(Vec::new, |sums, (task, target)| {
        let (sample, group) = (task / plan.groups, task % plan.groups);
        let kernels = Matrix::rows(&weight[group * plan.outputs * depth..][..plan.outputs * depth], depth).transposed();
        let gradient = &grad_output[plan.group_output(sample, group)..][..plan.outputs * plane];
        for top in (0..plan.output[0]).step_by(rows) {
            let block = top..(top + rows).min(plan.output[0]);
            let pixels = block.len() * width;
            sums.resize(depth * pixels, F::ZERO);
            let gradient = Matrix::rows(&gradient[top * width..], plane);
            // SAFETY: `sums` has `depth` rows of `pixels`, and belongs to this task.
            unsafe {
                let sums = sums.as_mut_ptr();
                multiply_into(depth, plan.outputs, pixels, F::ONE, kernels, gradient, false, sums, pixels);
            }
            let mut lines = sums.chunks_exact(pixels);
            for plane in target.chunks_exact_mut(plan.input_plane()) {
                for (reach, line) in reaches.iter().zip(&mut lines) {
                    plan.scatter(line, &block, reach, plane);
                }
            }
        }
    });
    result
}

/// The weight gradient by gathered windows: their product with the output's gradient, transposed, since the gradient has
/// fewer rows to be packed.
fn gather_gradient<F: Element>(plan: &Plan, input: &[F], grad_output: &[F]) -> Vec<F> {
    let taps = plan.taps();
    let (depth, plane) = (plan.channels * taps, plan.output_plane());
    let (reaches, blocks) = (plan.reaches(), plan.blocks());
    let channels = DEPTH.div_ceil(taps).min(plan.channels);
    let parts = plan.channels.div_ceil(channels);
    let width = panels::width::<F>();
    // Few weights: the image is cut as well, each piece has a sum of its own, and these are added in order.
    let len = plan.groups * plan.outputs * depth;
    let pieces = TASKS.div_ceil(plan.groups * parts).min((1 << 22) / len).clamp(1, blocks.len());
    let piece = blocks.len().div_ceil(pieces);
    let pieces = blocks.len().div_ceil(piece);
    let mut result = vec![F::ZERO; pieces * len];
    let output = SharedMut::new(&mut result);
    (0..pieces * plan.groups * parts).into_par_iter().for_each_init(Default::default, |scratch, task| {
        let [windows, gradients, sums]: &mut [Vec<F>; 3] = scratch;
        let (first, task) = (task % parts * channels, task / parts);
        let count = channels.min(plan.channels - first) * taps;
        let (group, piece_index) = (task % plan.groups, task / plan.groups);
        sums.resize(plan.outputs.next_multiple_of(width) * count, F::ZERO);
        let mine = &blocks[piece_index * piece..((piece_index + 1) * piece).min(blocks.len())];
        for (index, block) in mine.iter().enumerate() {
            let rows = block.rows.len() * plan.output[1];
            let pixels = block.samples.len() * rows;
            windows.resize(count * pixels, F::ZERO);
            for (row, line) in windows.chunks_exact_mut(pixels).enumerate() {
                plan.gather(input, block, [group, first + row / taps], &reaches[row % taps], line);
            }
            gradients.resize(plan.outputs.next_multiple_of(width) * pixels, F::ZERO);
            for (index, sample) in block.samples.clone().enumerate() {
                let start = plan.group_output(sample, group) + block.rows.start * plan.output[1];
                let gradient = Matrix::rows(&grad_output[start..], plane).transposed();
                panels::pack(gradient, [rows, plan.outputs], gradients, [index * rows, pixels]);
            }
            panels::multiply([count, pixels, plan.outputs], Matrix::rows(windows, pixels), gradients, sums, index > 0);
        }
        let start = piece_index * len + group * plan.outputs * depth + first * taps;
        for channel in 0..plan.outputs {
            let column = channel / width * width * count + channel % width;
            // SAFETY: these weights of this piece's sum are no other task's.
            let target = unsafe { output.part(start + channel * depth, count) };
            for (target, &sum) in target.iter_mut().zip(sums[column..].iter().step_by(width)) {
                *target = sum;
            }
        }
    });
    add_pieces(result, len)
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
