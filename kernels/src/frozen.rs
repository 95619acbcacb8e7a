//! A frozen sequential network as one operation: images in, criteria on tapped layers out, and the image gradient.
//!
//! Perceptual losses run a prediction and a target through a network that is never trained, compare features at a few
//! layers, and want the gradient of the prediction alone. So nothing but a bit per ReLU and per pooled element need be
//! kept for the way back, activations live in two buffers that are used again and again, bias, ReLU and folded batch norm
//! cost nothing, and prediction and target share every weight that is read.
//!
//! `f32` only. In other precisions, or where parameters need gradients, write the network in tensor operations.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::OnceLock;

use super::spare::Spare;
use super::winograd::WinogradWeights;
use super::winograd::lanes::Instructions;
use super::winograd::layout::{Buffer, Layout};
use crate::network_id::NetworkId;
use crate::shape::check_length;
use crate::{Conv2d, Error, Result};

pub(super) mod passes;
pub(super) mod run;

use run::Workspace;

/// One layer, as torchvision's `features` count them.
#[derive(Clone, Debug)]
pub enum FrozenLayer {
    /// A convolution with bias. At stride 1 and padded by half the kernel, 3×3 runs by Winograd, and in place 1×1 and any
    /// odd size of few channels (8, of 5×5 kernels 6); others by matrix products over gathered windows.
    Convolution {
        /// The weight (O, I / groups, KH, KW).
        weight: Vec<f32>,
        /// The weight's shape.
        shape: [usize; 4],
        /// The bias (O), or empty for none.
        bias: Vec<f32>,
        /// Stride, padding, dilation, groups.
        geometry: Conv2d,
    },
    /// A scale and a shift per channel: a batch norm in evaluation mode. Folded into a convolution before it unless that
    /// is tapped.
    Affine {
        /// The factors (C).
        scale: Vec<f32>,
        /// The terms (C).
        shift: Vec<f32>,
    },
    /// max(x, 0).
    Relu,
    /// The larger of the first and the second half of the channels, each of which fills whole vectors of 16; on a tie the
    /// gradient goes to the second.
    MaxFeature,
    /// The maximum of windows of 2×2 that step by 2; the gradient goes to the first of equals.
    MaxPool {
        /// Round the number of windows up: the last one may hang over the edge.
        ceil_mode: bool,
    },
}

/// How the features of prediction and target are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Criterion {
    /// The mean absolute difference; subgradient 0 at equality.
    L1,
    /// The mean squared difference.
    Mse,
}

/// One comparison at one tap: `weight` times the criterion between features or between their Gram matrices.
///
/// The Gram matrix of a sample's features f (C × HW) is f fᵀ / (C H W).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// The index of a tapped layer.
    pub tap: usize,
    /// What the criterion is multiplied by.
    pub weight: f64,
    /// The criterion.
    pub criterion: Criterion,
    /// Compare Gram matrices instead of features.
    pub gram: bool,
}

/// What a prediction is compared with.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Images of the prediction's shape; their features are computed along with the prediction's.
    Images(&'a [f32]),
    /// Features from [`FrozenNetwork::features`] of the same network.
    Features(&'a Features),
}

/// The features of some images at every tap, for use as a [`Target`] again and again.
pub struct Features {
    network: NetworkId,
    shape: [usize; 4],
    taps: Vec<TapFeatures>,
}

/// The features at one tap.
struct TapFeatures {
    layer: usize,
    layout: Layout,
    data: Buffer,
    /// The Gram matrices, once asked for.
    grams: OnceLock<Vec<f32>>,
}

impl fmt::Debug for Features {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Features")
            .field("network", &self.network)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl Features {
    /// The shape of the images they are of.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The features at the tap on layer `layer`, as (N, C, H, W) with their shape; `None` where there is no tap.
    pub fn at(&self, layer: usize) -> Option<(Vec<f32>, [usize; 4])> {
        let TapFeatures { layout, data, .. } = self.taps.iter().find(|tap| tap.layer == layer)?;
        let shape = [layout.batch, layout.channels, layout.height, layout.width];
        Some((layout.to_planes(data, layout.batch, |_| 1.0), shape))
    }
}

/// What [`FrozenNetwork::compare`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Each term's value, its weight included.
    pub values: Vec<f64>,
    /// The gradient of the values' sum with respect to the prediction, if asked for.
    pub gradient: Option<Vec<f32>>,
}

/// A sequence of frozen layers, tapped at some.
///
/// A tap records what its layer puts out: at a convolution before the ReLU that follows, at a ReLU after it. (MMagic
/// copies features as it taps them, so torchvision's in-place ReLU does not reach back into them.) Layers after the last
/// tap never run.
///
/// # Examples
/// ```
/// use image_losses_kernels::Conv2d;
/// use image_losses_kernels::frozen::{Criterion, FrozenLayer, FrozenNetwork, Target, Term};
///
/// let convolution = FrozenLayer::Convolution {
///     weight: vec![2.0],
///     shape: [1, 1, 1, 1],
///     bias: vec![-1.0],
///     geometry: Conv2d::default(),
/// };
/// let network = FrozenNetwork::new(1, vec![convolution, FrozenLayer::Relu], &[1])?;
/// let term = Term { tap: 1, weight: 1.0, criterion: Criterion::L1, gram: false };
/// let found = network.compare(&[3.0, 0.0], Target::Images(&[1.0, 0.0]), [1, 1, 1, 2], &[term], true)?;
/// assert_eq!(found.values, [2.0]);
/// assert_eq!(found.gradient.unwrap(), [1.0, 0.0]);
/// # Ok::<(), image_losses_kernels::Error>(())
/// ```
pub struct FrozenNetwork {
    id: NetworkId,
    channels: usize,
    input: Vec<[f32; 2]>,
    steps: Vec<Step>,
    instructions: Instructions,
    /// The last call's memory.
    workspace: Spare<Workspace>,
}

impl fmt::Debug for FrozenNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taps: Vec<usize> = self.steps.iter().filter_map(|step| step.tap).collect();
        formatter
            .debug_struct("FrozenNetwork")
            .field("id", &self.id)
            .field("channels", &self.channels)
            .field("steps", &self.steps.len())
            .field("taps", &taps)
            .finish_non_exhaustive()
    }
}

/// One or several layers that run at once.
struct Step {
    operation: Operation,
    /// Ends in a ReLU whose mask is kept.
    relu: bool,
    /// Channels of its output.
    channels: usize,
    /// The tapped layer that its output is.
    tap: Option<usize>,
}

/// What a step does before its ReLU.
enum Operation {
    /// A convolution in this layout; the bias fills whole vectors.
    Winograd { weights: WinogradWeights, bias: Vec<f32> },
    /// Any other convolution.
    General { weight: Vec<f32>, shape: [usize; 4], bias: Vec<f32>, geometry: Conv2d },
    /// Scale and shift, filling whole vectors.
    Affine { scale: Vec<f32>, shift: Vec<f32> },
    /// Nothing: a ReLU by itself.
    Identity,
    /// Pooling, of max(x, 0) with `relu`.
    Pool { ceil_mode: bool, relu: bool },
    /// The larger half of the channels.
    MaxFeature,
}

const OPERATION: &str = "FrozenNetwork";

impl FrozenNetwork {
    /// A network for images with `channels` channels, tapped at the layers whose indices are `taps`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a layer that does not fit the one before it, [`Error::InvalidOption`] for a tap that is
    /// no layer.
    pub fn new(channels: usize, layers: Vec<FrozenLayer>, taps: &[usize]) -> Result<Self> {
        if let Some(tap) = taps.iter().find(|&&tap| tap >= layers.len()) {
            return Err(Error::option(OPERATION, "taps", format!("layers below {}", layers.len()), tap));
        }
        let last = taps.iter().max().map_or(0, |tap| tap + 1);
        let mut steps: Vec<Step> = Vec::new();
        let mut current = channels;
        for (index, layer) in layers.into_iter().take(last).enumerate() {
            let tap = taps.contains(&index).then_some(index);
            // A step whose output nobody taps takes the next layer in.
            let open = steps.last_mut().filter(|step| step.tap.is_none());
            let rule = |expected: String, got: Vec<usize>| {
                Err(Error::ShapeRule { operation: OPERATION, argument: "layers", expected, got })
            };
            let (operation, outputs) = match layer {
                FrozenLayer::Convolution { weight, shape, bias, geometry } => {
                    check_convolution(index, current, &weight, shape, &bias, &geometry)?;
                    let outputs = shape[0];
                    let bias = if bias.is_empty() { vec![0.0; outputs] } else { bias };
                    let [_, inputs, kernel @ ..] = shape;
                    let size = kernel[0];
                    let is_centred = kernel == [size, size] && geometry == Conv2d::padded(size / 2);
                    let operation = if is_centred && WinogradWeights::takes(size, inputs) {
                        let weights = WinogradWeights::of_size(size, outputs, inputs, weight);
                        Operation::Winograd { weights, bias }
                    } else {
                        Operation::General { weight, shape, bias, geometry }
                    };
                    (operation, outputs)
                }
                FrozenLayer::Affine { scale, shift } => {
                    if scale.len() != current || shift.len() != current {
                        return rule(
                            format!("{current} scales and shifts in layer {index}"),
                            vec![scale.len(), shift.len()],
                        );
                    }
                    if let Some(step) = open
                        && !step.relu
                        && step.operation.folds(&scale, &shift)
                    {
                        step.tap = tap;
                        continue;
                    }
                    (Operation::Affine { scale, shift }, current)
                }
                FrozenLayer::Relu => {
                    if let Some(step) = open
                        && !matches!(step.operation, Operation::Pool { .. } | Operation::MaxFeature)
                    {
                        step.relu = true;
                        step.tap = tap;
                        continue;
                    }
                    (Operation::Identity, current)
                }
                FrozenLayer::MaxFeature => {
                    if !current.is_multiple_of(2 * super::winograd::lanes::LANES) {
                        return rule(format!("a multiple of 32 channels before layer {index}"), vec![current]);
                    }
                    (Operation::MaxFeature, current / 2)
                }
                FrozenLayer::MaxPool { ceil_mode } => {
                    // A ReLU by itself that ends in a pool is part of it.
                    if let Some(step) = open
                        && matches!(step.operation, Operation::Identity)
                    {
                        step.operation = Operation::Pool { ceil_mode, relu: true };
                        step.relu = false;
                        step.tap = tap;
                        continue;
                    }
                    (Operation::Pool { ceil_mode, relu: false }, current)
                }
            };
            let relu = matches!(operation, Operation::Identity);
            steps.push(Step { operation, relu, channels: outputs, tap });
            current = outputs;
        }
        for step in &mut steps {
            step.operation.fill_vectors();
        }
        Ok(FrozenNetwork {
            id: NetworkId::unique(),
            channels,
            input: vec![[1.0, 0.0]; channels],
            steps,
            instructions: Instructions::detect(),
            workspace: Spare::default(),
        })
    }

    /// The same network on images whose channels are first multiplied by `scale` and increased by `shift`: input
    /// normalisation. It does not count as a layer.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless there is one of each for every channel.
    pub fn with_input_affine(mut self, scale: &[f32], shift: &[f32]) -> Result<Self> {
        if scale.len() != self.channels || shift.len() != self.channels {
            let expected = format!("{} scales and shifts", self.channels);
            return Err(Error::option(OPERATION, "input", expected, format!("{} and {}", scale.len(), shift.len())));
        }
        self.input = scale.iter().zip(shift).map(|(&scale, &shift)| [scale, shift]).collect();
        self.id = NetworkId::unique();
        Ok(self)
    }

    /// The features of `images` (N, C, H, W) at every tap.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for another number of channels or images too small for the pools, [`Error::Length`] for data
    /// that do not fill the shape.
    pub fn features(&self, images: &[f32], shape: [usize; 4]) -> Result<Features> {
        self.check(images, shape)?;
        let layouts = self.layouts(shape)?;
        let mut workspace = self.take_workspace(&layouts, 0);
        workspace.load(&layouts[0], &self.input, images, 0);
        let mut taps = Vec::new();
        self.forward(&layouts, &mut workspace, 0, &mut |layer, data, layout, _| {
            let mut copy = Buffer::new(layout.len());
            copy.copy_from_slice(&data[..layout.len()]);
            taps.push(TapFeatures { layer, layout, data: copy, grams: OnceLock::new() });
        });
        self.workspace.keep(workspace);
        Ok(Features { network: self.id, shape, taps })
    }

    /// Compares `prediction` (N, C, H, W) with `target`, and with `with_gradient` carries the sum of the terms back to
    /// the prediction. The target has no gradient.
    ///
    /// # Errors
    /// As [`FrozenNetwork::features`]; [`Error::InvalidOption`] for a term on a layer without tap,
    /// [`Error::OtherNetwork`] for features of another network, [`Error::ShapeMismatch`] for features of images of
    /// another shape.
    pub fn compare(
        &self,
        prediction: &[f32],
        target: Target<'_>,
        shape: [usize; 4],
        terms: &[Term],
        with_gradient: bool,
    ) -> Result<Comparison> {
        let factors = vec![1.0; terms.len()];
        self.compare_weighted(prediction, target, shape, terms, with_gradient.then_some(&factors))
    }

    /// As [`compare`](FrozenNetwork::compare); the gradient, if `factors` are given, is that of the terms times their
    /// factors.
    ///
    /// # Errors
    /// As [`compare`](FrozenNetwork::compare), and [`Error::Length`] for another number of factors than of terms.
    pub fn compare_weighted(
        &self,
        prediction: &[f32],
        target: Target<'_>,
        shape: [usize; 4],
        terms: &[Term],
        factors: Option<&[f64]>,
    ) -> Result<Comparison> {
        self.check(prediction, shape)?;
        if let Some(term) = terms.iter().find(|term| !self.steps.iter().any(|step| step.tap == Some(term.tap))) {
            return Err(Error::option(OPERATION, "tap", "a tapped layer", term.tap));
        }
        let (expected, got) = (terms.len(), factors.map_or(terms.len(), <[f64]>::len));
        if got != expected {
            return Err(Error::Length { operation: OPERATION, shape: vec![expected], expected, got });
        }
        let samples = shape[0];
        let mut both = shape;
        match target {
            Target::Images(images) => {
                self.check(images, shape)?;
                // Two slices of so many samples are in memory.
                both[0] *= 2;
            }
            Target::Features(features) => {
                self.id.check(OPERATION, features.network)?;
                if features.shape != shape {
                    return Err(Error::ShapeMismatch {
                        operation: OPERATION,
                        argument: "target features",
                        expected: shape.to_vec(),
                        got: features.shape.to_vec(),
                    });
                }
            }
        }
        let layouts = self.layouts(both)?;
        let back = if factors.is_some() { samples } else { 0 };
        let mut workspace = self.take_workspace(&layouts, back);
        workspace.load(&layouts[0], &self.input, prediction, 0);
        if let Target::Images(images) = target {
            workspace.load(&layouts[0], &self.input, images, samples);
        }
        let mut values = vec![0.0; terms.len()];
        let ones = vec![1.0; terms.len()];
        self.forward(&layouts, &mut workspace, back, &mut |tap, data, layout, back| {
            let (factors, back) = (factors.unwrap_or(&ones), factors.map(|_| back));
            run::compare_tap(self.instructions, tap, data, layout, samples, target, terms, factors, &mut values, back);
        });
        let gradient = factors.map(|_| self.backward(&layouts, &mut workspace, samples));
        self.workspace.keep(workspace);
        Ok(Comparison { values, gradient })
    }

    /// Refuses a shape of images that the network cannot take.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for another number of channels or images too small for the pools or too large for memory,
    /// [`Error::Empty`].
    pub fn check_shape(&self, shape: [usize; 4]) -> Result<()> {
        if shape[1] != self.channels {
            return Err(Error::ShapeRule {
                operation: OPERATION,
                argument: "images",
                expected: format!("{} channels", self.channels),
                got: shape.to_vec(),
            });
        }
        if shape.contains(&0) {
            return Err(Error::Empty { operation: OPERATION, argument: "images", got: shape.to_vec() });
        }
        self.layouts(shape).map(drop)
    }

    /// The number of values that [`flat_features`](FrozenNetwork::flat_features) gives.
    ///
    /// # Errors
    /// As [`check_shape`](FrozenNetwork::check_shape).
    pub fn flat_len(&self, shape: [usize; 4]) -> Result<usize> {
        self.check_shape(shape)?;
        let layouts = self.layouts(shape)?;
        let taps = self.steps.iter().zip(&layouts[1..]).filter(|(step, _)| step.tap.is_some());
        Ok(taps.map(|(_, layout)| layout.batch * layout.channels * layout.height * layout.width).sum())
    }

    /// The features at every tap, tap after tap, each as planes: what a tensor can carry.
    ///
    /// # Errors
    /// As [`features`](FrozenNetwork::features).
    pub fn flat_features(&self, images: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
        let features = self.features(images, shape)?;
        let planes = features.taps.iter().flat_map(|tap| tap.layout.to_planes(&tap.data, tap.layout.batch, |_| 1.0));
        Ok(planes.collect())
    }

    /// The features of images of the given shape from [`flat_features`](FrozenNetwork::flat_features) of this network,
    /// for which the caller vouches: numbers carry no [`NetworkId`].
    ///
    /// # Errors
    /// As [`check_shape`](FrozenNetwork::check_shape); [`Error::Length`] for another number of values.
    pub fn features_from_flat(&self, flat: &[f32], shape: [usize; 4]) -> Result<Features> {
        let expected = self.flat_len(shape)?;
        if flat.len() != expected {
            return Err(Error::Length { operation: OPERATION, shape: shape.to_vec(), expected, got: flat.len() });
        }
        let layouts = self.layouts(shape)?;
        let mut rest = flat;
        let mut taps = Vec::new();
        for (step, &layout) in self.steps.iter().zip(&layouts[1..]) {
            let Some(layer) = step.tap else { continue };
            let (planes, left) = rest.split_at(layout.batch * layout.channels * layout.height * layout.width);
            rest = left;
            let mut data = Buffer::new(layout.len());
            layout.fill_from_planes(planes, 0, |_| [1.0, 0.0], &mut data);
            taps.push(TapFeatures { layer, layout, data, grams: OnceLock::new() });
        }
        Ok(Features { network: self.id, shape, taps })
    }

    fn check(&self, images: &[f32], shape: [usize; 4]) -> Result<()> {
        self.check_shape(shape)?;
        check_length(OPERATION, images.len(), &shape).map(drop)
    }

    /// The layout before the first step and after each.
    fn layouts(&self, shape: [usize; 4]) -> Result<Vec<Layout>> {
        let layout = |[batch, channels, height, width]: [usize; 4]| {
            Layout::checked([batch, channels, height, width]).ok_or_else(|| Error::ShapeRule {
                operation: OPERATION,
                argument: "images",
                expected: format!("room in memory for {batch} features of {channels}×{height}×{width}"),
                got: shape.to_vec(),
            })
        };
        let mut layouts = vec![layout(shape)?];
        for step in &self.steps {
            let Layout { batch, height, width, channels, .. } = layouts[layouts.len() - 1];
            let (height, width) = match &step.operation {
                Operation::Pool { ceil_mode: true, .. } => (height.div_ceil(2), width.div_ceil(2)),
                Operation::Pool { ceil_mode: false, .. } => (height / 2, width / 2),
                Operation::General { shape, geometry, .. } => {
                    let output = geometry.output_shape(&[batch, channels, height, width], shape)?;
                    (output[2], output[3])
                }
                _ => (height, width),
            };
            if height == 0 || width == 0 {
                return Err(Error::ShapeRule {
                    operation: OPERATION,
                    argument: "images",
                    expected: "height and width for every pool".into(),
                    got: shape.to_vec(),
                });
            }
            layouts.push(layout([batch, step.channels, height, width])?);
        }
        Ok(layouts)
    }

    /// Memory with room for the layouts, and for the way back of `samples` images.
    fn take_workspace(&self, layouts: &[Layout], samples: usize) -> Box<Workspace> {
        let mut workspace = self.workspace.take();
        workspace.plan(&self.steps, layouts, samples);
        workspace
    }
}

impl Operation {
    /// Takes a scale and a shift of its output in, if it can.
    fn folds(&mut self, scale: &[f32], shift: &[f32]) -> bool {
        let fold = |weight: &mut [f32], bias: &mut [f32]| {
            let len = weight.len() / bias.len().max(1);
            for (channel, kernel) in weight.chunks_exact_mut(len.max(1)).enumerate() {
                kernel.iter_mut().for_each(|tap| *tap *= scale[channel]);
            }
            for (channel, bias) in bias.iter_mut().enumerate() {
                *bias = *bias * scale[channel] + shift[channel];
            }
        };
        match self {
            Operation::Winograd { weights, bias } => {
                let mut weight = weights.weight().to_vec();
                fold(&mut weight, bias);
                *weights = weights.with_weight(weight);
            }
            Operation::General { weight, bias, .. } => fold(weight, bias),
            Operation::Affine { .. } | Operation::Identity | Operation::Pool { .. } | Operation::MaxFeature => {
                return false;
            }
        }
        true
    }

    /// Lengthens what is read in whole vectors.
    fn fill_vectors(&mut self) {
        let fill =
            |values: &mut Vec<f32>| values.resize(values.len().next_multiple_of(super::winograd::lanes::LANES), 0.0);
        match self {
            Operation::Winograd { bias, .. } => fill(bias),
            Operation::Affine { scale, shift } => {
                fill(scale);
                fill(shift);
            }
            Operation::General { .. } | Operation::Identity | Operation::Pool { .. } | Operation::MaxFeature => {}
        }
    }
}

/// Whether a convolution can follow `channels` channels.
fn check_convolution(
    index: usize,
    channels: usize,
    weight: &[f32],
    shape: [usize; 4],
    bias: &[f32],
    geometry: &Conv2d,
) -> Result<()> {
    check_length(OPERATION, weight.len(), &shape)?;
    if shape.contains(&0) {
        return Err(Error::ShapeRule {
            operation: OPERATION,
            argument: "layers",
            expected: format!("a weight of at least one channel and tap in layer {index}"),
            got: shape.to_vec(),
        });
    }
    if !bias.is_empty() && bias.len() != shape[0] {
        return Err(Error::ShapeRule {
            operation: OPERATION,
            argument: "layers",
            expected: format!("a bias for each of {} output channels in layer {index}", shape[0]),
            got: vec![bias.len()],
        });
    }
    // Any extents that hold the kernel do: what is checked here are the channels.
    let reach = |axis: usize| shape[2 + axis].saturating_mul(geometry.dilation[axis]).max(1);
    geometry.output_shape(&[1, channels, reach(0), reach(1)], &shape)?;
    Ok(())
}

#[cfg(test)]
mod tests;
