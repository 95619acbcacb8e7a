//! The frozen 3×3 convolution: stride 1, padding 1, `f32`, by Winograd's F(4×4, 3×3); beside it those of other odd sizes
//! that have few input channels, as first layers do.
//!
//! A network that is never trained convolves with the same weights again and again, so these are prepared once
//! ([`WinogradWeights`]); the convolution then takes a quarter of the direct one's multiplications. Any extents, batch and
//! numbers of channels; AVX-512, AVX2 with FMA or plain arrays, chosen at run time.
//!
//! [`conv3x3`] and [`conv3x3_input_gradient`] work on planes. A whole network that should not leave the layout between
//! its layers is a [`FrozenNetwork`](super::frozen::FrozenNetwork).
//!
//! Rounding: the transforms alone lose some 4e-7 of the result's root mean square, a direct convolution in `f32` 1e-7 to
//! 4e-7, growing with the channels. With up to 8 channels on either side the convolution is direct.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use lanes::Instructions;
use layout::{Buffer, Layout};

use engine::{Activation, Backward, Convolution, Forward, Prepared};

use super::assert_fills;
use crate::once::get_or_make;

pub(crate) mod engine;
pub(crate) mod lanes;
pub(crate) mod layout;
pub(crate) mod strided;
pub(crate) mod transform;

/// The weights of a frozen convolution at stride 1, padded by half the kernel, prepared when first used, for either
/// direction. The kernel is 3×3, inside this crate also of one pixel, or of any odd size for few input channels.
///
/// Cloning shares them, and so does another one of the same shape and weight for as long as this one lives: two losses on
/// the same network prepare its weights once.
#[derive(Clone)]
pub struct WinogradWeights {
    shared: Arc<Shared>,
}

struct Shared {
    /// Taps of a kernel along an axis.
    size: usize,
    outputs: usize,
    inputs: usize,
    weight: Vec<f32>,
    forward: OnceLock<Prepared>,
    backward: OnceLock<Prepared>,
}

/// Weights by their hash, as long as somebody holds them.
type InUse = HashMap<u64, Vec<Weak<Shared>>>;

/// The weights that are in use.
static IN_USE: OnceLock<(RandomState, Mutex<InUse>)> = OnceLock::new();

impl Shared {
    /// The same weights as somebody has them already; else these, for others to find.
    fn in_use(self) -> Arc<Self> {
        let (hasher, in_use) = get_or_make(&IN_USE, Default::default);
        let mut hash = hasher.build_hasher();
        (self.size, self.outputs, self.inputs).hash(&mut hash);
        self.bits().for_each(|bits| hash.write_u32(bits));
        let hash = hash.finish();
        let mut in_use = in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let found = in_use.get(&hash).into_iter().flatten().filter_map(Weak::upgrade).find(|other| self.is(other));
        found.unwrap_or_else(|| {
            in_use.retain(|_, weights| {
                weights.retain(|weights| weights.strong_count() > 0);
                !weights.is_empty()
            });
            let shared = Arc::new(self);
            in_use.entry(hash).or_default().push(Arc::downgrade(&shared));
            shared
        })
    }

    fn bits(&self) -> impl Iterator<Item = u32> {
        self.weight.iter().map(|value| value.to_bits())
    }

    fn is(&self, other: &Self) -> bool {
        let shape = |shared: &Self| [shared.size, shared.outputs, shared.inputs];
        shape(self) == shape(other) && self.weight.len() == other.weight.len() && self.bits().eq(other.bits())
    }
}

impl std::fmt::Debug for WinogradWeights {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WinogradWeights").field("shape", &self.shape()).finish_non_exhaustive()
    }
}

impl WinogradWeights {
    /// From a weight (`outputs`, `inputs`, 3, 3).
    ///
    /// # Panics
    /// If the weight has another number of elements.
    pub fn new(outputs: usize, inputs: usize, weight: Vec<f32>) -> Self {
        Self::of_size(3, outputs, inputs, weight)
    }

    /// Whether [`of_size`](Self::of_size) takes kernels of this size and number of input channels.
    pub(crate) fn takes(size: usize, inputs: usize) -> bool {
        Prepared::takes(size, inputs)
    }

    /// From a weight (`outputs`, `inputs`, `size`, `size`).
    ///
    /// # Panics
    /// If the weight has another number of elements, or its size is not one of those it [`takes`](Self::takes).
    pub(crate) fn of_size(size: usize, outputs: usize, inputs: usize, weight: Vec<f32>) -> Self {
        assert_fills("a weight", &[outputs, inputs, size, size], weight.len());
        assert!(Self::takes(size, inputs), "kernels of {size} by {size} taps of {inputs} channels");
        let shared = Shared { size, outputs, inputs, weight, forward: OnceLock::new(), backward: OnceLock::new() };
        WinogradWeights { shared: shared.in_use() }
    }

    /// The same for another weight of the same shape.
    pub(crate) fn with_weight(&self, weight: Vec<f32>) -> Self {
        let Shared { size, outputs, inputs, .. } = *self.shared;
        Self::of_size(size, outputs, inputs, weight)
    }

    /// The weight's shape (O, I, 3, 3).
    pub fn shape(&self) -> [usize; 4] {
        [self.shared.outputs, self.shared.inputs, self.shared.size, self.shared.size]
    }

    /// The weight as it was given.
    pub fn weight(&self) -> &[f32] {
        &self.shared.weight
    }

    /// For the convolution.
    pub(crate) fn forward(&self) -> &Prepared {
        let Shared { size, outputs, inputs, weight, forward, .. } = &*self.shared;
        let taps = size * size;
        get_or_make(forward, || {
            Prepared::new(*size, *outputs, *inputs, |output, input, tap| weight[(output * inputs + input) * taps + tap])
        })
    }

    /// For its input gradient: channels exchanged, kernels turned by half a turn.
    pub(crate) fn backward(&self) -> &Prepared {
        let Shared { size, outputs, inputs, weight, backward, .. } = &*self.shared;
        let taps = size * size;
        get_or_make(backward, || {
            Prepared::new(*size, *inputs, *outputs, |input, output, tap| {
                weight[(output * inputs + input) * taps + taps - 1 - tap]
            })
        })
    }
}

/// The convolution of `input` (N, I, H, W) at stride 1 and padding 1, plus `bias` if any, followed by a ReLU if asked:
/// (N, O, H, W).
///
/// # Panics
/// If the input or the bias does not fill its shape; callers check shapes first.
///
/// ```
/// use image_losses_kernels::winograd::{WinogradWeights, conv3x3};
/// let weights = WinogradWeights::new(1, 1, vec![1.0; 9]);
/// let sums = conv3x3(&weights, &[1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2], Some(&[0.5]), false);
/// assert!(sums.iter().all(|sum| (sum - 10.5).abs() < 1e-5));
/// ```
pub fn conv3x3(
    weights: &WinogradWeights,
    input: &[f32],
    input_shape: [usize; 4],
    bias: Option<&[f32]>,
    relu: bool,
) -> Vec<f32> {
    assert_eq!(input_shape[1], weights.shared.inputs, "conv3x3: input channels");
    conv3x3_with(Instructions::detect(), weights, input, input_shape, bias, relu)
}

/// The gradient of [`conv3x3`] (without ReLU) with respect to its input: `grad_output` (N, O, H, W) carried back to
/// (N, I, H, W).
///
/// # Panics
/// If the gradient does not fill its shape; callers check shapes first.
pub fn conv3x3_input_gradient(weights: &WinogradWeights, grad_output: &[f32], grad_shape: [usize; 4]) -> Vec<f32> {
    assert_eq!(grad_shape[1], weights.shared.outputs, "conv3x3_input_gradient: output channels");
    conv3x3_input_gradient_with(Instructions::detect(), weights, grad_output, grad_shape)
}

fn conv3x3_with(
    instructions: Instructions,
    weights: &WinogradWeights,
    input: &[f32],
    input_shape: [usize; 4],
    bias: Option<&[f32]>,
    relu: bool,
) -> Vec<f32> {
    let (from, to) = layouts(input_shape, weights.shared.outputs);
    let source = laid_out(input, from);
    let mut padded_bias = vec![0.0; to.lanes()];
    if let Some(bias) = bias {
        padded_bias[..to.channels].copy_from_slice(bias);
    }
    let mut target = Buffer::new(to.len());
    let activation = if relu { Activation::Relu } else { Activation::None };
    let finish = Forward::new(&mut target, to, &padded_bias, activation, None);
    Convolution::new(&source, from, weights.forward(), instructions).run(&finish, &mut Buffer::default());
    to.to_planes(&target, to.batch, |_| 1.0)
}

fn conv3x3_input_gradient_with(
    instructions: Instructions,
    weights: &WinogradWeights,
    grad_output: &[f32],
    grad_shape: [usize; 4],
) -> Vec<f32> {
    let (from, to) = layouts(grad_shape, weights.shared.inputs);
    let source = laid_out(grad_output, from);
    let mut target = Buffer::new(to.len());
    let finish = Backward::new(&mut target, to, None);
    Convolution::new(&source, from, weights.backward(), instructions).run(&finish, &mut Buffer::default());
    to.to_planes(&target, to.batch, |_| 1.0)
}

fn layouts(shape: [usize; 4], channels: usize) -> (Layout, Layout) {
    (Layout::new(shape), Layout::new(shape).with_channels(channels))
}

fn laid_out(planes: &[f32], layout: Layout) -> Buffer {
    assert_fills("images", &[layout.batch, layout.channels, layout.height, layout.width], planes.len());
    let mut buffer = Buffer::new(layout.len());
    layout.fill_from_planes(planes, 0, |_| [1.0, 0.0], &mut buffer);
    buffer
}

#[cfg(test)]
mod tests;
