//! Summing down, repeating, and moving elements about.

use std::sync::OnceLock;

use image_losses_kernels::checked_count;
use image_losses_kernels::once::get_or_make;

use super::linear::inverse;
use super::{Op, broadcasts_to, if_wanted, perform, rule, same};
use crate::{Error, Expr, Function, Pointwise, Result, Shape, Tensor};

/// The shape rule of these operations.
pub(super) fn shape(op: &Op, inputs: &[Shape]) -> Result<Shape> {
    let Some(input) = inputs.first() else {
        return Err(Error::InputCount { operation: op.name(), expected: 1, got: 0 });
    };
    match op {
        Op::SumTo(shape) | Op::NormTo(shape) => {
            broadcasts_to(op.name(), shape, input)?;
            Ok(shape.clone())
        }
        Op::BroadcastTo(shape) => {
            broadcasts_to(op.name(), input, shape)?;
            Ok(shape.clone())
        }
        Op::Reshape(shape) => {
            if checked_count(op.name(), "shape", shape)? != crate::kernels::count(input) {
                same(op.name(), "input", shape, input)?;
            }
            Ok(shape.clone())
        }
        Op::Permute(order) => {
            let mut seen = vec![false; input.len()];
            let permutation = order.len() == input.len()
                && order.iter().all(|&axis| axis < seen.len() && !std::mem::replace(&mut seen[axis], true));
            if !permutation {
                return rule(op, format!("axes that {order:?} permutes"), input);
            }
            Ok(order.iter().map(|&axis| input[axis]).collect())
        }
        Op::Narrow { axis, start, length } => match input.get(*axis) {
            Some(&extent) if start.checked_add(*length).is_some_and(|end| end <= extent) => {
                Ok(with_extent(input, *axis, *length))
            }
            _ => rule(op, format!("elements {start} to {start} + {length} on axis {axis}"), input),
        },
        Op::Pad { axis, before, after } => {
            let Some(&extent) = input.get(*axis) else { return rule(op, format!("an axis {axis}"), input) };
            match before.checked_add(extent).and_then(|extent| extent.checked_add(*after)) {
                Some(extent) => Ok(with_extent(input, *axis, extent)),
                None => rule(op, format!("room for {before} before and {after} after axis {axis}"), input),
            }
        }
        Op::Concatenate { axis } => {
            if *axis >= input.len() {
                return rule(op, format!("an axis {axis}"), input);
            }
            let mut total = 0;
            for other in inputs {
                if other.len() != input.len() || with_extent(other, *axis, input[*axis]) != *input {
                    same(op.name(), "input", input, other)?;
                }
                total += other[*axis];
            }
            Ok(with_extent(input, *axis, total))
        }
        _ => Ok(input.clone()),
    }
}

/// The gradients of these operations.
pub(super) fn gradients<T: Tensor>(op: &Op, inputs: &[T], above: &T, wanted: &[bool]) -> Result<Vec<Option<T>>> {
    let shape = inputs[0].shape();
    let one = |op: Op| Ok(vec![Some(perform(&op, &[above])?)]);
    match op {
        Op::SumTo(_) => one(Op::BroadcastTo(shape)),
        Op::NormTo(_) => {
            // The direction first: the gradient over the norm, or times the input, may be out of range.
            let norms = perform(op, &[&inputs[0]])?;
            Ok(vec![Some(perform(&Op::map(direction()), &[&inputs[0], &norms, above])?)])
        }
        Op::BroadcastTo(_) => Ok(vec![Some(above.sum_to(&shape)?)]),
        Op::Reshape(_) => one(Op::Reshape(shape)),
        Op::Permute(order) => one(Op::Permute(inverse(order))),
        Op::Narrow { axis, start, length } => {
            one(Op::Pad { axis: *axis, before: *start, after: shape[*axis] - start - length })
        }
        Op::Pad { axis, before, .. } => one(Op::Narrow { axis: *axis, start: *before, length: shape[*axis] }),
        Op::Concatenate { axis } => {
            let mut start = 0;
            (0..inputs.len())
                .map(|input| {
                    let length = inputs[input].shape()[*axis];
                    let narrow = Op::Narrow { axis: *axis, start, length };
                    start += length;
                    if_wanted(wanted[input], || perform(&narrow, &[above]))
                })
                .collect()
        }
        _ => Ok(vec![None; inputs.len()]),
    }
}

/// The shape with another extent on one axis.
fn with_extent(shape: &[usize], axis: usize, extent: usize) -> Shape {
    let mut shape = shape.to_vec();
    shape[axis] = extent;
    shape
}

/// x/n, 0 where n is 0.
#[derive(Clone, Copy, Debug)]
struct Direction;

impl Pointwise<2> for Direction {
    fn value<'e>(&self, [x, norm]: [Expr<'e>; 2]) -> Expr<'e> {
        // The divisor is replaced before dividing: no infinity arises in the branch that is not taken.
        norm.if_zero(norm.constant(0.0), x / norm.if_zero(norm.constant(1.0), norm))
    }
}

/// A norm's derivative by its elements.
fn direction() -> &'static Function {
    static DIRECTION: OnceLock<Function> = OnceLock::new();
    get_or_make(&DIRECTION, || Function::new(Direction))
}
