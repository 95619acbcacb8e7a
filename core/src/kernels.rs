//! What the CPU engines run: operations on contiguous slices.
//!
//! An engine needs [`runs`], [`evaluate`] and, for a value with its gradients in one pass, [`sum_and_gradients`].

use image_losses_kernels::{broadcast, buffers, conv, map, matmul, pool};

use crate::broadcast::broadcast_shape;
use crate::op::{Arithmetic, Op};
use crate::{Extent, Scalar, fft};

pub use image_losses_kernels::buffers::{give_back, release_memory, set_kept_memory};
pub use image_losses_kernels::{Array, count};

/// The elements of the gradient by each input, where there is one.
pub type Gradients<F> = Vec<Option<Vec<F>>>;

/// The value of an operation, and the gradient of the sum of its elements by each of the `wanted` inputs, in one pass. `None`
/// where that takes no less than each by itself, and for other operations than sums of a function and custom ones.
pub fn sum_and_gradients<F: Scalar>(
    op: &Op,
    inputs: &[Array<'_, F>],
    wanted: &[bool],
) -> Option<(Vec<F>, Gradients<F>)> {
    F::sum_and_gradients(op, inputs, wanted)
}

/// [`sum_and_gradients`], compiled in this crate alone.
pub(crate) fn sum_and_gradients_of<F: Scalar>(
    op: &Op,
    inputs: &[Array<'_, F>],
    wanted: &[bool],
) -> Option<(Vec<F>, Gradients<F>)> {
    let positions: Vec<usize> = (0..inputs.len()).filter(|&input| wanted[input]).collect();
    if let Op::Custom(operation) = op {
        let [input] = positions[..] else { return None };
        let (value, gradient) = F::custom_with_gradient(&**operation, inputs, input)?;
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
    arguments.iter().fold(Vec::new(), |full, input| broadcast_shape("pointwise", &full, input.shape).unwrap_or(full))
}

/// The first four extents: primitives with images have checked the rank.
fn extents4(shape: &[usize]) -> [usize; 4] {
    std::array::from_fn(|axis| shape[axis])
}

/// How many images, their rows and columns: the last two extents.
fn planes(shape: &[usize]) -> fft::Planes {
    let (rest, image) = shape.split_at(shape.len() - 2);
    [count(rest), image[0], image[1]]
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
    F::evaluate(op, inputs, shape)
}

/// [`evaluate`], compiled in this crate alone.
pub(crate) fn evaluate_of<F: Scalar>(op: &Op, inputs: &[Array<'_, F>], shape: &[usize]) -> Vec<F> {
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
        Op::Linear { axis, map } => {
            let rows: Vec<_> = (0..map.outputs()).map(|i| map.row(i)).collect();
            broadcast::linear(inputs[0], *axis, &rows)
        }
        Op::RealFft => F::rfft2(inputs[0].data, planes(inputs[0].shape)),
        Op::RealFftAdjoint { .. } => F::rfft2_adjoint(inputs[0].data, planes(shape)),
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
        Op::Custom(operation) => F::custom(&**operation, inputs),
        _ => Vec::new(),
    }
}
