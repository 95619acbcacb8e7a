//! Softmax over the last axis.

use super::Op;
use crate::{Pool2d, Result, Shape, Tensor, Unary};

/// The shape rule.
pub(super) fn shape(op: &Op, input: &Shape) -> Result<Shape> {
    if input.is_empty() {
        return super::rule(op, "rank at least 1".into(), input);
    }
    Ok(input.clone())
}

/// Of exponentials, shifted by each row's maximum against overflow. The shift cancels, so that no gradient of any order
/// flows through it.
pub(super) fn decompose<T: Tensor>(x: &T) -> Result<T> {
    if x.elements() == 0 {
        return Ok(x.clone());
    }
    let (mut shape, last) = (x.shape(), x.rank() - 1);
    let row = std::mem::replace(&mut shape[last], 1);
    let rows = x.detach().reshape(&[1, 1, x.elements() / row, row])?;
    let window = Pool2d { size: [1, row], stride: [1, row], padding: [0; 2], ceil_mode: false };
    let exp = x.sub(&rows.max_pool2d(window)?.reshape(&shape)?)?.unary(Unary::Exp)?;
    exp.div(&exp.sum(&[last], true)?)
}
