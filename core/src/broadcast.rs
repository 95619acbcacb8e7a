//! The shape rule of broadcasting.

use crate::{Error, Result, Shape};

/// The shape two shapes broadcast to, by NumPy's rule.
///
/// # Errors
/// [`Error::Broadcast`] where extents differ and neither is 1.
pub(crate) fn broadcast_shape(operation: &'static str, left: &[usize], right: &[usize]) -> Result<Shape> {
    let rank = left.len().max(right.len());
    let extent = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (extent(left, axis), extent(right, axis)) {
            (a, b) if a == b => Ok(a),
            (1, b) => Ok(b),
            (a, 1) => Ok(a),
            _ => Err(Error::Broadcast { operation, left: left.to_vec(), right: right.to_vec() }),
        })
        .collect()
}

/// The shape that several shapes broadcast to.
///
/// # Errors
/// As [`broadcast_shape`].
pub(crate) fn broadcast_all(operation: &'static str, shapes: &[Shape]) -> Result<Shape> {
    shapes.iter().try_fold(Vec::new(), |full, shape| broadcast_shape(operation, &full, shape))
}
