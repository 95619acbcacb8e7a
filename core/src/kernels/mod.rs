//! Kernels on contiguous slices: what the CPU engines run.
//!
//! An engine needs [`evaluate`] and, for a value with its gradients in one pass, [`sum_and_gradients`] or
//! [`derivative_with_value`]. The modules with the kernels themselves are for the crates,
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

use crate::primitive::{Arithmetic, Primitive, Sharing};
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

/// A primitive that is a map differentiated once, with the sum of the map itself, or a fused derivative with its value: both
/// in one pass. `None` where the primitive is no such, or a map's last multiplier, the gradient from above, has several
/// elements.
pub fn derivative_with_value<F: Scalar>(primitive: &Primitive, inputs: &[Array<'_, F>]) -> Option<(Vec<F>, Vec<f64>)> {
    if let Primitive::Fused(operation) = primitive {
        return F::evaluate_both(&**operation, inputs);
    }
    let (function, partial, scale, target) = match primitive {
        Primitive::Map { function, partial, scale, extent: Extent::Map, .. } => (function, partial, *scale, None),
        Primitive::MapTo { function, partial, scale, shape, .. } => (function, partial, *scale, Some(&shape[..])),
        _ => return None,
    };
    let (gradient, inputs) = inputs.split_last().filter(|(gradient, _)| gradient.data.len() == 1)?;
    let (arguments, multipliers) = inputs.split_at_checked(function.arity())?;
    let full = full_shape(arguments);
    let map = map::Map::new(function, arguments, multipliers, &full, scale);
    let (sum, values) = map.sum_and_values(partial, gradient.data[0].to_f64(), target.unwrap_or(&full));
    Some((values, vec![sum]))
}

/// The elements of the gradient by each input, where there is one.
pub type Gradients<F> = Vec<Option<Vec<F>>>;

/// The value of a primitive that is a sum, and its gradient by each of the `wanted` inputs, in one pass. `None` where the
/// primitive is no sum of a function, or the gradient by something else than an argument of the function is wanted.
pub fn sum_and_gradients<F: Scalar>(
    primitive: &Primitive,
    inputs: &[Array<'_, F>],
    wanted: &[bool],
) -> Option<(Vec<F>, Gradients<F>)> {
    let positions: Vec<usize> = (0..inputs.len()).filter(|&input| wanted[input]).collect();
    if let Primitive::Fused(operation) = primitive {
        let [input] = positions[..] else { return None };
        if operation.sharing() != Sharing::Value {
            return None;
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape).collect();
        let shape = operation.output_shape(&shapes).ok().filter(|shape| count(shape) == 1)?;
        let derivative = operation.gradient(input).ok()??;
        let above = Array { shape: &shape, data: &[F::ONE] };
        let operands: Vec<Array<'_, F>> = inputs.iter().copied().chain([above]).collect();
        let (gradient, value) = F::evaluate_both(&*derivative, &operands)?;
        let mut gradients = vec![None; inputs.len()];
        gradients[input] = Some(gradient);
        return Some((value.into_iter().map(F::from_f64).collect(), gradients));
    }
    let Primitive::Map { function, partial, scale, extent: Extent::Sum, .. } = primitive else { return None };
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

/// Computes a primitive on arrays whose shapes [`Primitive::output_shape`] has accepted; `shape` is what it returned.
pub fn evaluate<F: Scalar>(primitive: &Primitive, inputs: &[Array<'_, F>], shape: &[usize]) -> Vec<F> {
    if count(shape) == 0 {
        return Vec::new();
    }
    let pooled = |pool| pool::max_pool2d_indices(pool, inputs[0].data, extents4(inputs[0].shape));
    match primitive {
        Primitive::Arithmetic(operation) => {
            let (a, b) = (inputs[0], inputs[1]);
            match operation {
                Arithmetic::Add => broadcast::binary(a, b, shape, |a, b| a + b),
                Arithmetic::Sub => broadcast::binary(a, b, shape, |a, b| a - b),
                Arithmetic::Mul => broadcast::binary(a, b, shape, |a, b| a * b),
                Arithmetic::Div => broadcast::binary(a, b, shape, |a, b| a / b),
            }
        }
        Primitive::Affine { scale, shift } => {
            broadcast::affine(inputs[0].data, F::from_f64(*scale), F::from_f64(*shift))
        }
        Primitive::Map { function, partial, scale, extent, .. } => {
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
        Primitive::MapTo { function, partial, scale, shape, .. } => {
            let (arguments, multipliers) = inputs.split_at(function.arity());
            let full = full_shape(arguments);
            map::Map::new(function, arguments, multipliers, &full, *scale).values_summed_to(partial, shape)
        }
        Primitive::Select(selection) => map::Map::new(selection.function(), inputs, &[], shape, 1.0).values(&[]),
        Primitive::SumTo(shape) => broadcast::sum_to(inputs[0], shape),
        Primitive::NormTo(shape) => broadcast::norm_to(inputs[0], shape),
        Primitive::BroadcastTo(shape) => broadcast::expand(inputs[0], shape),
        Primitive::Reshape(_) => {
            let mut elements = buffers::take(inputs[0].data.len());
            elements.extend_from_slice(inputs[0].data);
            elements
        }
        Primitive::Permute(order) => broadcast::permute(inputs[0], order),
        Primitive::Narrow { axis, start, length } => broadcast::narrow(inputs[0], *axis, *start, *length),
        Primitive::Pad { axis, before, after } => broadcast::pad(inputs[0], *axis, *before, *after),
        Primitive::Concatenate { axis } => broadcast::concatenate(inputs, *axis),
        Primitive::Linear { axis, map } => broadcast::linear(inputs[0], *axis, map),
        Primitive::MatMul { transpose_left, transpose_right } => {
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
        Primitive::Convolve(geometry) => {
            conv::conv2d(geometry, inputs[0].data, extents4(inputs[0].shape), inputs[1].data, extents4(inputs[1].shape))
        }
        Primitive::ConvolveInputGradient { geometry, extents } => conv::conv2d_input_gradient(
            geometry,
            inputs[0].data,
            extents4(inputs[0].shape),
            inputs[1].data,
            extents4(inputs[1].shape),
            *extents,
        ),
        Primitive::ConvolveWeightGradient { geometry, extents } => conv::conv2d_weight_gradient(
            geometry,
            inputs[0].data,
            extents4(inputs[0].shape),
            inputs[1].data,
            extents4(inputs[1].shape),
            *extents,
        ),
        Primitive::MaxPool(pool) => pool::gather(inputs[0].data, &pooled(pool)),
        Primitive::MaxPoolScatter(pool) => pool::scatter_add(inputs[1].data, &pooled(pool), inputs[0].data.len()),
        Primitive::MaxPoolGather(pool) => pool::gather(inputs[1].data, &pooled(pool)),
        Primitive::Fused(operation) => F::evaluate_fused(&**operation, inputs),
    }
}
