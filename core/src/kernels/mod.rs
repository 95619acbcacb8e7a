//! Kernels on contiguous slices: what the CPU engines run.
//!
//! An engine needs [`runs`], [`evaluate`] and, for a value with its gradients in one pass, [`sum_and_gradients`]. The modules with the kernels themselves are for the crates,
//! tests and benches of this workspace, and hidden: their functions leave shapes to the caller, and stop with a panic where
//! a slice does not fill its shape.

pub(crate) mod broadcast;
pub(crate) mod buffers;
#[doc(hidden)]
pub mod conv;
pub(crate) mod dense;
pub(crate) mod embedding;
#[doc(hidden)]
pub mod frozen;
#[doc(hidden)]
pub mod isa;
pub(crate) mod lanes;
pub(crate) mod machine;
#[doc(hidden)]
pub mod map;
#[doc(hidden)]
pub mod matmul;
#[doc(hidden)]
pub mod pool;
#[doc(hidden)]
pub mod residual;
mod simd;
pub(crate) mod spare;
pub(crate) mod stencil;
pub(crate) mod stream;
#[doc(hidden)]
pub mod vision_transformer;
#[doc(hidden)]
pub mod winograd;

use crate::op::{Arithmetic, Op};
use crate::shape::count_in_memory;
use crate::{Extent, Scalar};

pub use buffers::{give_back, release_memory, set_kept_memory};
#[doc(hidden)]
pub use stream::stream;

/// A tensor's shape and its elements, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a, F> {
    /// The extents.
    pub shape: &'a [usize],
    /// The elements; as many as the extents' product.
    pub data: &'a [F],
}

/// The number of elements of a shape; `usize::MAX`, more than memory can hold, where that is too large for a `usize`.
pub fn count(shape: &[usize]) -> usize {
    // Zeros first: the extents beside a zero may have any product.
    if shape.contains(&0) { 0 } else { shape.iter().fold(1, |product, &extent| product.saturating_mul(extent)) }
}

/// Panics unless there are as many elements as the shape has.
#[track_caller]
pub(crate) fn assert_fills(what: &str, shape: &[usize], got: usize) {
    assert_eq!(count_in_memory(shape), Some(got), "{what} of shape {shape:?}");
}

/// The sum of a slice, in double precision over fixed blocks.
pub fn sum<F: Scalar>(values: &[F]) -> f64 {
    map::sum(isa::detect(), values)
}

/// The elements of the gradient by each input, where there is one.
pub type Gradients<F> = Vec<Option<Vec<F>>>;

/// The value of an operation, and the gradient of the sum of its elements by each of the `wanted` inputs, in one pass. `None`
/// where that takes no less than each by itself, and for other operations than sums of a function and custom ones.
pub fn sum_and_gradients<F: Scalar>(
    op: &Op,
    inputs: &[Array<'_, F>],
    wanted: &[bool],
) -> Option<(Vec<F>, Gradients<F>)> {
    let positions: Vec<usize> = (0..inputs.len()).filter(|&input| wanted[input]).collect();
    if let Op::Custom(operation) = op {
        let [input] = positions[..] else { return None };
        let (value, gradient) = F::with_gradient(&**operation, inputs, input)?;
        let mut gradients = vec![None; inputs.len()];
        gradients[input] = Some(gradient);
        return Some((value, gradients));
    }
    let Op::Map { function, partial, scale, extent: Extent::Sum, .. } = op else { return None };
    let (arguments, multipliers) = inputs.split_at_checked(function.arity())?;
    if !partial.is_empty() || positions.iter().any(|&input| input >= arguments.len()) {
        return None;
    }
    let full = full_shape(arguments);
    let (sum, values) = map::Map::new(function, arguments, multipliers, &full, *scale).sum_and_gradients(&positions);
    let mut gradients = vec![None; inputs.len()];
    for (input, values) in positions.into_iter().zip(values) {
        gradients[input] = Some(values);
    }
    Some((vec![F::from_f64(sum)], gradients))
}

/// Multiplies every element by a factor.
pub fn scale<F: Scalar>(values: &mut [F], factor: F) {
    broadcast::scale(values, factor);
}

/// The shape that a function's arguments broadcast to; the shape rule has accepted them.
fn full_shape<F: Scalar>(arguments: &[Array<'_, F>]) -> Vec<usize> {
    arguments
        .iter()
        .fold(Vec::new(), |full, input| broadcast::broadcast_shape("pointwise", &full, input.shape).unwrap_or(full))
}

/// The first four extents: primitives with images have checked the rank.
fn extents4(shape: &[usize]) -> [usize; 4] {
    std::array::from_fn(|axis| shape[axis])
}

/// Whether [`evaluate`] computes an operation: others are decomposed.
pub fn runs(op: &Op, inputs: usize) -> bool {
    match op {
        Op::Unary(_)
        | Op::SquaredDifference
        | Op::HuberDifference(_)
        | Op::Hypotenuse(_)
        | Op::UnlessZero(_)
        | Op::AveragePool { .. }
        | Op::AdaptiveAveragePool { .. }
        | Op::Resize { .. }
        | Op::Softmax
        | Op::Cast(_) => false,
        Op::Convolve(_) => inputs == 2,
        _ => true,
    }
}

/// Computes an operation that [`runs`] on arrays whose shapes [`Op::output_shape`] has accepted; `shape` is what it returned.
/// Other operations have no elements.
pub fn evaluate<F: Scalar>(op: &Op, inputs: &[Array<'_, F>], shape: &[usize]) -> Vec<F> {
    if count(shape) == 0 || !runs(op, inputs.len()) {
        return Vec::new();
    }
    let pooled = |pool| pool::max_pool2d_indices(pool, inputs[0].data, extents4(inputs[0].shape));
    match op {
        Op::Arithmetic(operation) => {
            let (a, b) = (inputs[0], inputs[1]);
            match operation {
                Arithmetic::Add => broadcast::binary(a, b, shape, |a, b| a + b),
                Arithmetic::Sub => broadcast::binary(a, b, shape, |a, b| a - b),
                Arithmetic::Mul => broadcast::binary(a, b, shape, |a, b| a * b),
                Arithmetic::Div => broadcast::binary(a, b, shape, |a, b| a / b),
            }
        }
        Op::Affine { scale, shift } => broadcast::affine(inputs[0].data, F::from_f64(*scale), F::from_f64(*shift)),
        Op::Map { function, partial, scale, extent, .. } => {
            let (arguments, multipliers) = inputs.split_at(function.arity());
            match extent {
                Extent::Map => map::Map::new(function, arguments, multipliers, shape, *scale).values(partial),
                Extent::Sum => {
                    let full = full_shape(arguments);
                    let map = map::Map::new(function, arguments, multipliers, &full, *scale);
                    vec![F::from_f64(map.sum(partial))]
                }
            }
        }
        Op::MapTo { function, partial, scale, shape, .. } => {
            let (arguments, multipliers) = inputs.split_at(function.arity());
            let full = full_shape(arguments);
            map::Map::new(function, arguments, multipliers, &full, *scale).values_summed_to(partial, shape)
        }
        Op::Select(selection) => map::Map::new(selection.function(), inputs, &[], shape, 1.0).values(&[]),
        Op::SumTo(shape) => broadcast::sum_to(inputs[0], shape),
        Op::NormTo(shape) => broadcast::norm_to(inputs[0], shape),
        Op::BroadcastTo(shape) => broadcast::expand(inputs[0], shape),
        Op::Reshape(_) => {
            let mut elements = buffers::take(inputs[0].data.len());
            elements.extend_from_slice(inputs[0].data);
            elements
        }
        Op::Permute(order) => broadcast::permute(inputs[0], order),
        Op::Narrow { axis, start, length } => broadcast::narrow(inputs[0], *axis, *start, *length),
        Op::Pad { axis, before, after } => broadcast::pad(inputs[0], *axis, *before, *after),
        Op::Concatenate { axis } => broadcast::concatenate(inputs, *axis),
        Op::Linear { axis, map } => broadcast::linear(inputs[0], *axis, map),
        Op::MatMul { transpose_left, transpose_right } => {
            let rank = shape.len();
            let inner = inputs[0].shape[if *transpose_left { rank - 2 } else { rank - 1 }];
            matmul::matmul(
                count(&shape[..rank - 2]),
                shape[rank - 2],
                inner,
                shape[rank - 1],
                inputs[0].data,
                *transpose_left,
                inputs[1].data,
                *transpose_right,
            )
        }
        Op::Convolve(geometry) => {
            conv::conv2d(geometry, inputs[0].data, extents4(inputs[0].shape), inputs[1].data, extents4(inputs[1].shape))
        }
        Op::ConvolveInputGradient { geometry, extents } => conv::conv2d_input_gradient(
            geometry,
            inputs[0].data,
            extents4(inputs[0].shape),
            inputs[1].data,
            extents4(inputs[1].shape),
            *extents,
        ),
        Op::ConvolveWeightGradient { geometry, extents } => conv::conv2d_weight_gradient(
            geometry,
            inputs[0].data,
            extents4(inputs[0].shape),
            inputs[1].data,
            extents4(inputs[1].shape),
            *extents,
        ),
        Op::MaxPool(pool) => pool::gather(inputs[0].data, &pooled(pool)),
        Op::MaxPoolScatter(pool) => pool::scatter_add(inputs[1].data, &pooled(pool), inputs[0].data.len()),
        Op::MaxPoolGather(pool) => pool::gather(inputs[1].data, &pooled(pool)),
        Op::Custom(operation) => F::evaluate(&**operation, inputs),
        _ => Vec::new(),
    }
}
