//! A pointwise function of tensors, weighed, and as a map or summed.

use super::{Op, broadcasts_to, check_arity, if_wanted, perform};
use crate::broadcast::broadcast_all;
use crate::{Error, Extent, Function, Result, Shape, Tensor};

/// The shape a map is evaluated over; multipliers must not enlarge it.
pub(super) fn shape(function: &Function, inputs: &[Shape]) -> Result<Shape> {
    let arity = function.arity();
    if inputs.len() < arity {
        check_arity(function, inputs.len())?;
    }
    let full = broadcast_all("pointwise", &inputs[..arity])?;
    for multiplier in &inputs[arity..] {
        broadcasts_to("pointwise", multiplier, &full)?;
    }
    Ok(full)
}

/// The gradients of a map, its sum, or its sums down to a shape, by its arguments and multipliers.
pub(super) fn gradients<T: Tensor>(op: &Op, inputs: &[T], above: &T, wanted: &[bool]) -> Result<Vec<Option<T>>> {
    let (Op::Map { function, partial, scale, weighted, .. } | Op::MapTo { function, partial, scale, weighted, .. }) =
        op
    else {
        return Ok(vec![None; inputs.len()]);
    };
    let arity = function.arity();
    let (arguments, multipliers) = inputs.split_at(arity);
    let full = shape(function, &inputs.iter().map(|input| input.shape()).collect::<Vec<_>>())?;
    // The gradient from above repeats over the map's shape: a multiplier like another.
    let derivative = |partial: Vec<usize>, without: Option<usize>, target: Shape| {
        let mut operands: Vec<&T> = arguments.iter().collect();
        operands.extend(multipliers.iter().enumerate().filter(|(i, _)| Some(*i) != without).map(|(_, m)| m));
        operands.push(above);
        let (function, scale) = (function.clone(), *scale);
        let weighted = *weighted && without != Some(0);
        let map = if target == full {
            Op::Map { function, partial, scale, weighted, extent: Extent::Map }
        } else {
            Op::MapTo { function, partial, scale, weighted, shape: target }
        };
        perform(&map, &operands)
    };
    let mut gradients = Vec::with_capacity(inputs.len());
    for input in 0..arity {
        gradients.push(if_wanted(wanted[input], || {
            derivative(partial.iter().copied().chain([input]).collect(), None, inputs[input].shape())
        })?);
    }
    for (k, multiplier) in multipliers.iter().enumerate() {
        gradients.push(if_wanted(wanted[arity + k], || {
            let derivative = derivative(partial.clone(), Some(k), multiplier.shape())?;
            if !*weighted || k > 0 {
                return Ok(derivative);
            }
            multiplier.if_zero(&T::full(&multiplier.context(), 0.0, &[])?, &derivative)
        })?);
    }
    Ok(gradients)
}

/// A map of tensor operations: the function's own, where the engine has no map of it.
///
/// # Errors
/// [`Error::Unsupported`] for derivatives, which only engines with maps ask for.
pub(super) fn decompose<T: Tensor>(op: &Op, inputs: &[&T]) -> Result<T> {
    let (function, partial, scale, weighted, extent, target) = match op {
        Op::Map { function, partial, scale, weighted, extent } => (function, partial, scale, weighted, *extent, None),
        Op::MapTo { function, partial, scale, weighted, shape } => {
            (function, partial, scale, weighted, Extent::Map, Some(shape))
        }
        _ => return Err(Error::Unsupported { operation: op.name(), engine: "present" }),
    };
    let (arguments, multipliers) = inputs.split_at(function.arity());
    let (weight, factor) = match (*weighted, multipliers) {
        (_, []) => (None, None),
        (true, &[weight]) => (Some(weight), None),
        (true, &[weight, factor]) => (Some(weight), Some(factor)),
        (false, &[factor]) => (None, Some(factor)),
        _ => return Err(Error::Unsupported { operation: "a derivative of a map", engine: "present" }),
    };
    if !partial.is_empty() {
        return Err(Error::Unsupported { operation: "a derivative of a map", engine: "present" });
    }
    let is_summed = extent == Extent::Sum || target.is_some();
    // Sums of half-precision tensors are computed in single precision; maps keep their type.
    let wide = |input: &&T| if is_summed { input.accumulator() } else { Ok((*input).clone()) };
    let mut arguments = arguments.iter().map(wide).collect::<Result<Vec<T>>>()?;
    if let Some(weight) = weight {
        // Replaced before the function sees them, so that neither its value nor any derivative is 0·∞.
        for (k, argument) in arguments.iter_mut().enumerate() {
            *argument = argument.unless_zero(weight, 1.0 / (k + 2) as f64)?;
        }
    }
    let operands: Vec<&T> = arguments.iter().collect();
    let full = shape(function, &arguments.iter().map(|argument| argument.shape()).collect::<Vec<_>>())?;
    let (mut map, number) = match is_plain(op, inputs) {
        // The engine has just declined it.
        true => function.compose(&operands)?,
        false => match T::apply(&Op::map(function), &operands, &full)? {
            Some(map) => (map, 1.0),
            None => function.compose(&operands)?,
        },
    };
    if let Some(weight) = weight {
        map = map.mul(&weight.unless_zero(weight, 0.0)?.cast_like(&map)?)?;
    }
    if extent == Extent::Sum {
        map = map.sum_all()?;
    } else if let Some(target) = target {
        map = map.sum_to(target)?;
    }
    if *scale * number != 1.0 {
        map = map.scale(*scale * number)?;
    }
    let Some(factor) = factor else { return Ok(map) };
    let factor = factor.reshape(&vec![1; map.rank()])?;
    factor.if_zero(&T::full(&factor.context(), 0.0, &factor.shape())?, &map.mul(&factor)?)
}

/// Whether the operation is nothing but a function of its inputs.
fn is_plain<T>(op: &Op, inputs: &[&T]) -> bool {
    match op {
        Op::Map { function, partial, scale, extent, .. } => {
            partial.is_empty() && *scale == 1.0 && *extent == Extent::Map && inputs.len() == function.arity()
        }
        _ => false,
    }
}
