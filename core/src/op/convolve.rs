//! Convolution and its two gradients, which are each other's derivatives: the trilinear form ⟨gradient, input ⋆ weight⟩ in
//! one of its arguments.

use super::{Op, if_wanted, perform, rule, same};
use crate::{Conv2d, Error, Result, Shape, Tensor};

/// The shape of a convolution, with a bias or without.
pub(super) fn shape(geometry: &Conv2d, inputs: &[Shape]) -> Result<Shape> {
    let out = geometry.output_shape(&inputs[0], &inputs[1])?;
    match inputs.get(2) {
        Some(bias) if bias[..] != [out[1]] => Err(Error::ShapeMismatch {
            operation: "conv2d",
            argument: "bias",
            expected: vec![out[1]],
            got: bias.clone(),
        }),
        _ => Ok(out),
    }
}

/// The shape of the gradient by the input, of (output gradient, weight).
pub(super) fn input_shape(op: &Op, geometry: &Conv2d, extents: [usize; 2], inputs: &[Shape]) -> Result<Shape> {
    let (gradient, weight) = (&inputs[0], &inputs[1]);
    if gradient.len() != 4 || weight.len() != 4 {
        return rule(op, "rank 4".into(), gradient);
    }
    let input = vec![gradient[0], weight[1].saturating_mul(geometry.groups), extents[0], extents[1]];
    same(op.name(), "output gradient", &geometry.output_shape(&input, weight)?, gradient)?;
    Ok(input)
}

/// The shape of the gradient by the weight, of (input, output gradient).
pub(super) fn weight_shape(op: &Op, geometry: &Conv2d, extents: [usize; 2], inputs: &[Shape]) -> Result<Shape> {
    let (input, gradient) = (&inputs[0], &inputs[1]);
    if input.len() != 4 || gradient.len() != 4 || geometry.groups == 0 {
        return rule(op, "rank 4".into(), input);
    }
    let weight = vec![gradient[1], input[1] / geometry.groups, extents[0], extents[1]];
    same(op.name(), "output gradient", &geometry.output_shape(input, &weight)?, gradient)?;
    Ok(weight)
}

/// The gradients of one of the three by its two inputs.
pub(super) fn gradients<T: Tensor>(op: &Op, inputs: &[T], above: &T, wanted: &[bool]) -> Result<Vec<Option<T>>> {
    let (first, second) = (&inputs[0], &inputs[1]);
    let by_input = |geometry: Conv2d, input: &T, gradient: &T, weight: &T| {
        let shape = input.shape();
        perform(&Op::ConvolveInputGradient { geometry, extents: [shape[2], shape[3]] }, &[gradient, weight])
    };
    let by_weight = |geometry: Conv2d, weight: &T, input: &T, gradient: &T| {
        let shape = weight.shape();
        perform(&Op::ConvolveWeightGradient { geometry, extents: [shape[2], shape[3]] }, &[input, gradient])
    };
    let forward = |geometry: Conv2d, input: &T, weight: &T| perform(&Op::Convolve(geometry), &[input, weight]);
    let mut gradients = match *op {
        Op::Convolve(g) => [
            if_wanted(wanted[0], || by_input(g, first, above, second))?,
            if_wanted(wanted[1], || by_weight(g, second, first, above))?,
        ],
        Op::ConvolveInputGradient { geometry: g, .. } => [
            if_wanted(wanted[0], || forward(g, above, second))?,
            if_wanted(wanted[1], || by_weight(g, second, above, first))?,
        ],
        Op::ConvolveWeightGradient { geometry: g, .. } => [
            if_wanted(wanted[0], || by_input(g, first, second, above))?,
            if_wanted(wanted[1], || forward(g, first, above))?,
        ],
        _ => [None, None],
    }
    .to_vec();
    if inputs.len() == 3 {
        gradients.push(if_wanted(wanted[2], || above.sum(&[0, 2, 3], false))?);
    }
    Ok(gradients)
}

/// A convolution with a bias, of one without.
pub(super) fn decompose<T: Tensor>(op: &Op, inputs: &[&T]) -> Result<T> {
    let &[input, weight, bias] = inputs else {
        return Err(Error::Unsupported { operation: op.name(), engine: "present" });
    };
    let out = perform(op, &[input, weight])?;
    out.add(&bias.reshape(&[1, bias.elements(), 1, 1])?)
}
