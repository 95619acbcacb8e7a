//! Batched matrix products.

use super::{Op, if_wanted, perform};
use crate::{Error, Result, Shape, Tensor};

/// The shape of a batched matrix product.
pub(super) fn shape(left: &[usize], transpose_left: bool, right: &[usize], transpose_right: bool) -> Result<Shape> {
    let rank = left.len();
    if rank < 2 {
        return Err(Error::ShapeRule {
            operation: "matmul",
            argument: "left",
            expected: "rank at least 2".into(),
            got: left.to_vec(),
        });
    }
    let matrix = |shape: &[usize], transpose: bool| {
        let (rows, columns) = (shape[rank - 2], shape[rank - 1]);
        if transpose { (columns, rows) } else { (rows, columns) }
    };
    let (rows, inner) = matrix(left, transpose_left);
    let mut expected = left[..rank - 2].to_vec();
    if right.len() != rank || right[..rank - 2] != expected[..] || matrix(right, transpose_right).0 != inner {
        let columns = right.last().copied().unwrap_or(1);
        expected.extend(if transpose_right { [columns, inner] } else { [inner, columns] });
        return Err(Error::ShapeMismatch { operation: "matmul", argument: "right", expected, got: right.to_vec() });
    }
    expected.extend([rows, matrix(right, transpose_right).1]);
    Ok(expected)
}

/// The gradients by the two operands.
pub(super) fn gradients<T: Tensor>(
    [transpose_left, transpose_right]: [bool; 2],
    inputs: &[T],
    above: &T,
    wanted: &[bool],
) -> Result<Vec<Option<T>>> {
    let product = |a: &T, b: &T, transpose_left: bool, transpose_right: bool| {
        perform(&Op::MatMul { transpose_left, transpose_right }, &[a, b])
    };
    let left = || match transpose_left {
        true => product(&inputs[1], above, transpose_right, true),
        false => product(above, &inputs[1], false, !transpose_right),
    };
    let right = || match transpose_right {
        true => product(above, &inputs[0], true, transpose_left),
        false => product(&inputs[0], above, !transpose_left, false),
    };
    Ok(vec![if_wanted(wanted[0], left)?, if_wanted(wanted[1], right)?])
}
