//! The way through the network and back.

use rayon::prelude::*;

use super::passes::{
    Above, Affine, Bits, BitsMut, CompareTask, Gather, Images, ImagesMut, MaxFeature, PoolTask, RowGradient, Split,
    each_row, pass_over,
};
use super::{Criterion, FrozenNetwork, Operation, Step, Target, Term};
use crate::Element;
use crate::conv::{conv2d, conv2d_input_gradient};
use crate::matmul::{Matrix, SharedMut, multiply};
use crate::once::get_or_make;
use crate::winograd::engine::{Activation, Backward, Convolution, Forward};
use crate::winograd::lanes::{Instructions, LANES};
use crate::winograd::layout::{Buffer, Layout};

/// A call's memory, kept for the next one.
#[derive(Default)]
pub(super) struct Workspace {
    /// Activations, later gradients: one holds a step's input, the other takes its output.
    buffers: [Buffer; 2],
    /// Scratch of the convolutions.
    points: Buffer,
    /// For each step that ends in a ReLU, what passed it.
    masks: Vec<Vec<u16>>,
    /// For each pool, what it took.
    routes: Vec<Vec<u16>>,
    /// For each step with a tap, the gradient of its terms.
    taps: Vec<TapGradient>,
}

/// The gradient of a tap's terms with respect to the prediction's features.
#[derive(Default)]
pub(super) struct TapGradient {
    positive: Vec<u16>,
    negative: Vec<u16>,
    /// Vectors without border.
    dense: Vec<f32>,
    /// The factor of the signs, if they are in use.
    signs: Option<f32>,
    is_dense: bool,
}

/// Sees a tap's layer, activations and room for its gradient.
type Visit<'a> = dyn FnMut(usize, &[f32], Layout, &mut TapGradient) + 'a;

impl Workspace {
    /// Makes room for the layouts, and for the way back of `samples` images.
    pub(super) fn plan(&mut self, steps: &[Step], layouts: &[Layout], samples: usize) {
        let largest = layouts.iter().map(Layout::len).max().unwrap_or(0);
        self.buffers.iter_mut().for_each(|buffer| buffer.reserve(largest));
        for kept in [&mut self.masks, &mut self.routes] {
            kept.resize_with(steps.len(), Vec::new);
        }
        self.taps.resize_with(steps.len(), TapGradient::default);
        for (index, step) in steps.iter().enumerate() {
            if step.relu {
                self.masks[index].resize(layouts[index + 1].vectors(samples), 0);
            }
            if matches!(step.operation, Operation::Pool { .. }) {
                // Cleared: a row or column that no window reaches is never written.
                self.routes[index].clear();
                self.routes[index].resize(layouts[index].vectors(samples), 0);
            }
            if matches!(step.operation, Operation::MaxFeature) {
                self.routes[index].resize(layouts[index + 1].vectors(samples), 0);
            }
            self.taps[index].signs = None;
            self.taps[index].is_dense = false;
        }
    }

    /// Puts images in as samples `first..`.
    pub(super) fn load(&mut self, layout: &Layout, affine: &[[f32; 2]], images: &[f32], first: usize) {
        layout.fill_from_planes(images, first, |channel| affine[channel], &mut self.buffers[0]);
    }
}

/// The two buffers, the one in use first.
fn in_order(buffers: &mut [Buffer; 2], current: usize) -> (&mut Buffer, &mut Buffer) {
    let [first, second] = buffers;
    if current == 0 { (first, second) } else { (second, first) }
}

impl FrozenNetwork {
    /// From the loaded images to the last tap. `visit` sees each tap's layer, activations and room for its gradient. The
    /// ReLUs and pools of the first `samples` images leave their marks for the way back.
    pub(super) fn forward(&self, layouts: &[Layout], workspace: &mut Workspace, samples: usize, visit: &mut Visit<'_>) {
        let instructions = self.instructions;
        let Workspace { buffers, points, masks, routes, taps } = workspace;
        let mut current = 0;
        for (index, step) in self.steps.iter().enumerate() {
            let (from, to) = (layouts[index], layouts[index + 1]);
            let (source, target) = in_order(buffers, current);
            let mask = &mut masks[index];
            match &step.operation {
                Operation::Winograd { weights, bias } => {
                    to.clear_border(target);
                    let mask = (samples > 0 && step.relu).then_some((&mut mask[..], samples));
                    let activation = if step.relu { Activation::Relu } else { Activation::None };
                    let finish = Forward::new(target, to, bias, activation, mask);
                    Convolution::new(source, from, weights.forward(), instructions).run(&finish, points);
                    current = 1 - current;
                }
                Operation::General { weight, shape, bias, geometry } => {
                    let planes = from.to_planes(source, from.batch, |_| 1.0);
                    let input = [from.batch, from.channels, from.height, from.width];
                    let planes = conv2d(geometry, &planes, input, weight, *shape);
                    to.fill_from_planes(&planes, 0, |channel| [1.0, bias[channel]], target);
                    if step.relu {
                        affine(instructions, target, to, None, None, Some((mask, samples)));
                    }
                    current = 1 - current;
                }
                Operation::Affine { scale, shift } => {
                    let relu = step.relu.then_some((mask, samples));
                    affine(instructions, source, to, Some(scale), Some(shift), relu);
                }
                Operation::Identity => affine(instructions, source, to, None, None, Some((mask, samples))),
                Operation::Pool { relu, .. } => {
                    to.clear_border(target);
                    let input = Images::new(source, from);
                    let output = ImagesMut::new(target, to);
                    let route = BitsMut::new(&mut routes[index], from, samples);
                    each_row(&to, to.batch, |sample, y| {
                        let route = (sample < samples).then_some(route);
                        let task = PoolTask { input, output, relu: *relu, route, sample, y };
                        // SAFETY: each task has a row of the output, and the two rows of the input beneath it.
                        unsafe { instructions.run(task) };
                    });
                    current = 1 - current;
                }
                Operation::MaxFeature => {
                    to.clear_border(target);
                    let input = Images::new(source, from);
                    let output = ImagesMut::new(target, to);
                    let route = BitsMut::new(&mut routes[index], to, samples);
                    // SAFETY: the output has this layout, and the input twice its channels.
                    unsafe { pass_over(instructions, &to, to.batch, MaxFeature { input, output, route, samples }) };
                    current = 1 - current;
                }
            }
            if let Some(layer) = step.tap {
                visit(layer, &buffers[current], to, &mut taps[index]);
            }
        }
    }

    /// From the taps' gradients to that of the first `samples` images, as planes.
    pub(super) fn backward(&self, layouts: &[Layout], workspace: &mut Workspace, samples: usize) -> Vec<f32> {
        let instructions = self.instructions;
        let layout = |index: usize| layouts[index].with_batch(samples);
        let Workspace { buffers, points, masks, routes, taps } = workspace;
        let mut current = 0;
        let mut arrived = Arrived::Nothing;
        for (index, step) in self.steps.iter().enumerate().rev() {
            let (from, to) = (layout(index), layout(index + 1));
            let tap = &taps[index];
            let has_tap = tap.signs.is_some() || tap.is_dense;
            if arrived == Arrived::Nothing && !has_tap {
                continue;
            }
            // The gradient of the step's output, behind its ReLU.
            let is_masked = arrived == Arrived::Masked || !step.relu;
            if has_tap || !is_masked || arrived == Arrived::Pooled {
                let (source, target) = in_order(buffers, current);
                let (target, above) = match arrived {
                    Arrived::Pooled => {
                        to.clear_border(target);
                        let gradient = Images::new(source, layout(index + 2));
                        (target, Above::Pooled { gradient, route: Bits::new(&routes[index + 1], to) })
                    }
                    Arrived::Nothing => {
                        to.clear_border(source);
                        (source, Above::None)
                    }
                    Arrived::Plain | Arrived::Masked => (source, Above::InPlace),
                };
                let gradient = ImagesMut::new(target, to);
                let signs =
                    tap.signs.map(|factor| (Bits::new(&tap.positive, to), Bits::new(&tap.negative, to), factor));
                let dense = tap.is_dense.then_some(&tap.dense[..]);
                let mask = step.relu.then(|| Bits::new(&masks[index], to));
                // SAFETY: all of these hold this layout.
                unsafe { pass_over(instructions, &to, samples, Gather { gradient, above, signs, dense, mask }) };
                if arrived == Arrived::Pooled {
                    current = 1 - current;
                }
            }
            let (source, target) = in_order(buffers, current);
            match &step.operation {
                Operation::Winograd { weights, .. } => {
                    from.clear_border(target);
                    // The ReLU below, unless its tap comes first.
                    let below = index.checked_sub(1).filter(|&below| {
                        self.steps[below].relu && taps[below].signs.is_none() && !taps[below].is_dense
                    });
                    let finish = Backward::new(target, from, below.map(|below| &masks[below][..]));
                    Convolution::new(source, to, weights.backward(), instructions).run(&finish, points);
                    arrived = if below.is_some() { Arrived::Masked } else { Arrived::Plain };
                    current = 1 - current;
                }
                Operation::General { weight, shape, geometry, .. } => {
                    let planes = to.to_planes(source, samples, |_| 1.0);
                    let grad_shape = [samples, to.channels, to.height, to.width];
                    let extents = [from.height, from.width];
                    let planes = conv2d_input_gradient(geometry, &planes, grad_shape, weight, *shape, extents);
                    from.fill_from_planes(&planes, 0, |_| [1.0, 0.0], target);
                    arrived = Arrived::Plain;
                    current = 1 - current;
                }
                Operation::Affine { scale, .. } => {
                    affine(instructions, source, to, Some(scale), None, None);
                    arrived = Arrived::Plain;
                }
                Operation::Identity => arrived = Arrived::Plain,
                Operation::Pool { .. } => arrived = Arrived::Pooled,
                Operation::MaxFeature => {
                    from.clear_border(target);
                    let (above, gradient) = (Images::new(source, to), ImagesMut::new(target, from));
                    let route = Bits::new(&routes[index], to);
                    // SAFETY: what is above has this layout, and the gradient twice its channels.
                    unsafe { pass_over(instructions, &to, samples, Split { above, gradient, route }) };
                    arrived = Arrived::Plain;
                    current = 1 - current;
                }
            }
        }
        let first = layout(0);
        if arrived == Arrived::Nothing {
            return vec![0.0; samples * first.channels * first.height * first.width];
        }
        if arrived == Arrived::Pooled {
            let (source, target) = in_order(buffers, current);
            let gradient = Images::new(source, layout(1));
            let above = Above::Pooled { gradient, route: Bits::new(&routes[0], first) };
            let gradient = ImagesMut::new(target, first);
            // SAFETY: the gradient and the route have this layout.
            unsafe {
                pass_over(
                    instructions,
                    &first,
                    samples,
                    Gather { gradient, above, signs: None, dense: None, mask: None },
                )
            };
            current = 1 - current;
        }
        first.to_planes(&buffers[current], samples, |channel| self.input[channel][0])
    }
}

/// In which state the gradient of a step's output is, on the way back.
#[derive(Clone, Copy, PartialEq)]
enum Arrived {
    /// There is none.
    Nothing,
    /// As the step above left it.
    Plain,
    /// Behind the step's ReLU.
    Masked,
    /// It is still that of the pool above.
    Pooled,
}

/// Scale, shift and ReLU of every pixel, in place; with a ReLU, the marks of the first images.
fn affine(
    instructions: Instructions,
    data: &mut [f32],
    layout: Layout,
    scale: Option<&[f32]>,
    shift: Option<&[f32]>,
    relu: Option<(&mut Vec<u16>, usize)>,
) {
    let images = ImagesMut::new(data, layout);
    let has_relu = relu.is_some();
    let mask = relu.map(|(mask, samples)| (BitsMut::new(mask, layout, samples), samples));
    // SAFETY: the images and the mask have this layout.
    unsafe { pass_over(instructions, &layout, layout.batch, Affine { images, scale, shift, relu: has_relu, mask }) };
}

/// The terms on one tap: their values, and their gradient if `gradient` takes it.
#[allow(clippy::too_many_arguments)]
pub(super) fn compare_tap(
    instructions: Instructions,
    tap: usize,
    data: &[f32],
    layout: Layout,
    samples: usize,
    target: Target<'_>,
    terms: &[Term],
    factors: &[f64],
    values: &mut [f64],
    gradient: Option<&mut TapGradient>,
) {
    let weights = |gram: bool| {
        let mut weights = [0.0; 2];
        let mut any = false;
        for (term, factor) in terms.iter().zip(factors).filter(|(term, _)| term.tap == tap && term.gram == gram) {
            weights[usize::from(term.criterion == Criterion::Mse)] += term.weight * factor;
            any = true;
        }
        any.then_some(weights)
    };
    let prediction = Images::new(data, layout);
    let cached = match target {
        Target::Images(_) => None,
        Target::Features(features) => features.taps.iter().find(|features| features.layer == tap),
    };
    let (target, offset) = match cached {
        Some(features) => (Images::new(&features.data, features.layout), 0),
        None => (prediction, samples),
    };
    let mut unused = TapGradient::default();
    let wanted = gradient.is_some();
    let gradient = gradient.unwrap_or(&mut unused);
    let mut means = [[0.0; 2]; 2];
    let (features, grams) = (weights(false), weights(true));
    if let Some(weights) = features {
        let count = (samples * layout.channels * layout.height * layout.width) as f64;
        // Signs take a sixteenth of the memory, but serve alone.
        let keep = wanted.then_some((weights.map(|weight| weight / count), grams.is_none()));
        means[0] =
            compare_features(instructions, prediction, target, offset, samples, keep, gradient).map(|sum| sum / count);
    }
    if let Some(weights) = grams {
        let target = match cached {
            Some(features) => get_or_make(&features.grams, || gram_matrices(target, 0, samples)).clone(),
            None => gram_matrices(target, offset, samples),
        };
        let weights = wanted.then_some(weights);
        means[1] = compare_grams(prediction, &target, samples, weights, gradient);
    }
    for (value, term) in values.iter_mut().zip(terms).filter(|(_, term)| term.tap == tap) {
        *value = term.weight * means[usize::from(term.gram)][usize::from(term.criterion == Criterion::Mse)];
    }
}

/// The sums of the features' absolute and squared differences. `keep` has the weights of either in the gradient, and
/// whether signs will do if only the first counts.
fn compare_features(
    instructions: Instructions,
    prediction: Images<'_>,
    target: Images<'_>,
    offset: usize,
    samples: usize,
    keep: Option<([f64; 2], bool)>,
    gradient: &mut TapGradient,
) -> [f64; 2] {
    let layout = prediction.layout;
    let vectors = layout.vectors(samples);
    let kept = match keep {
        None => RowGradient::None,
        Some(([sign, 0.0], true)) => {
            gradient.positive.resize(vectors, 0);
            gradient.negative.resize(vectors, 0);
            gradient.signs = Some(sign as f32);
            RowGradient::Signs {
                positive: BitsMut::new(&mut gradient.positive, layout, samples),
                negative: BitsMut::new(&mut gradient.negative, layout, samples),
            }
        }
        Some(([sign, square], _)) => {
            gradient.dense.resize(vectors * LANES, 0.0);
            gradient.is_dense = true;
            let values = SharedMut::new(&mut gradient.dense[..vectors * LANES]);
            RowGradient::Dense { values, sign: sign as f32, linear: (2.0 * square) as f32 }
        }
    };
    let mut sums = vec![[0.0; 2]; samples * layout.height];
    sums.par_iter_mut().with_min_len(2).enumerate().for_each(|(row, sums)| {
        let (sample, y) = (row / layout.height, row % layout.height);
        let task = CompareTask { prediction, target, offset, gradient: kept, sums, sample, y };
        // SAFETY: each task has a row of the gradient.
        unsafe { instructions.run(task) };
    });
    sums.iter().fold([0.0; 2], |total, sums| [total[0] + sums[0], total[1] + sums[1]])
}

/// A sample's features as a matrix of pixels by lanes, divided by the root of C H W: scaled before the product, so that
/// no sum leaves the range that single precision resolves.
fn scaled_features(images: Images<'_>, sample: usize) -> Vec<f32> {
    let Layout { height, width, channels, .. } = images.layout;
    let scale = gram_scale(&images.layout) as f32;
    debug_assert!(channels > 0);
    let row = width * images.layout.lanes();
    let mut features = vec![0.0; height * row];
    features.par_chunks_mut(row).enumerate().for_each(|(y, target)| {
        let source = &images.data[images.layout.at(sample, y, 0)..][..row];
        target.iter_mut().zip(source).for_each(|(target, &source)| *target = source * scale);
    });
    features
}

fn gram_scale(layout: &Layout) -> f64 {
    1.0 / ((layout.channels * layout.height * layout.width) as f64).sqrt()
}

/// The Gram matrix of scaled features.
fn gram_matrix(features: &[f32], lanes: usize) -> Vec<f32> {
    let mut gram = vec![0.0; lanes * lanes];
    let matrix = Matrix::rows(features, lanes);
    multiply([lanes, features.len() / lanes, lanes], 1.0, matrix.transposed(), matrix, &mut gram);
    gram
}

/// The Gram matrices of samples `first..first + samples`.
fn gram_matrices(images: Images<'_>, first: usize, samples: usize) -> Vec<f32> {
    let lanes = images.layout.lanes();
    (first..first + samples).flat_map(|sample| gram_matrix(&scaled_features(images, sample), lanes)).collect()
}

/// The mean absolute and squared differences of Gram matrices; with `weights`, their gradient is added.
fn compare_grams(
    prediction: Images<'_>,
    target: &[f32],
    samples: usize,
    weights: Option<[f64; 2]>,
    gradient: &mut TapGradient,
) -> [f64; 2] {
    let layout = prediction.layout;
    let (lanes, pixels) = (layout.lanes(), layout.height * layout.width);
    let count = (samples * layout.channels * layout.channels) as f64;
    let scale = gram_scale(&layout);
    if weights.is_some() && !gradient.is_dense {
        gradient.dense.clear();
        gradient.dense.resize(layout.vectors(samples) * LANES, 0.0);
        gradient.is_dense = true;
    }
    let mut sums = [0.0; 2];
    for (sample, target) in target.chunks_exact(lanes * lanes).enumerate() {
        let features = scaled_features(prediction, sample);
        let gram = gram_matrix(&features, lanes);
        let mut slope = vec![0.0_f32; lanes * lanes];
        for (index, (&gram, &target)) in gram.iter().zip(target).enumerate() {
            // Lanes that are no channel: zeros, or zero times infinity.
            if index / lanes >= layout.channels || index % lanes >= layout.channels {
                continue;
            }
            let difference = gram.to_f64() - target.to_f64();
            sums[0] += difference.abs();
            sums[1] += difference * difference;
            if let Some([absolute, square]) = weights {
                // The sign of a NaN is NaN; a weight of zero takes its criterion out.
                let sign = if difference == 0.0 || difference.is_nan() { difference } else { difference.signum() };
                let of = |weight: f64, slope: f64| if weight == 0.0 { 0.0 } else { weight * slope };
                let value = (of(absolute, sign) + of(2.0 * square, difference)) / count * scale;
                // The matrix and its transpose both depend on a feature.
                slope[index] += value as f32;
                slope[index % lanes * lanes + index / lanes] += value as f32;
            }
        }
        if weights.is_some() {
            let mut back = vec![0.0; pixels * lanes];
            let slope = Matrix::rows(&slope, lanes);
            multiply([pixels, lanes, lanes], 1.0, Matrix::rows(&features, lanes), slope, &mut back);
            let dense = &mut gradient.dense[sample * pixels * lanes..][..pixels * lanes];
            dense.iter_mut().zip(back).for_each(|(dense, back)| *dense += back);
        }
    }
    sums.map(|sum| sum / count)
}
