//! The checks of shapes that losses begin with.

use image_losses_kernels::{Error, Result, Shape};

use crate::Tensor;

/// Refuses tensors of different shapes, of a rank under 2 (batch, channels, …) or without elements; returns the shape.
///
/// # Errors
/// [`Error::ShapeRule`], [`Error::Empty`], [`Error::ShapeMismatch`].
pub fn same_shape<T: Tensor, const K: usize>(
    operation: &'static str,
    names: [&'static str; K],
    tensors: [&T; K],
) -> Result<Shape> {
    same(operation, names, tensors, |rank| rank >= 2, "rank at least 2 (batch, channels, …)")
}

/// Refuses tensors that are no images (N, C, H, W) of one shape; returns the shape.
///
/// # Errors
/// [`Error::ShapeRule`], [`Error::Empty`], [`Error::ShapeMismatch`].
pub fn same_images<T: Tensor, const K: usize>(
    operation: &'static str,
    names: [&'static str; K],
    tensors: [&T; K],
) -> Result<Shape> {
    same(operation, names, tensors, |rank| rank == 4, "rank 4 (N, C, H, W)")
}

fn same<T: Tensor, const K: usize>(
    operation: &'static str,
    names: [&'static str; K],
    tensors: [&T; K],
    fits: impl Fn(usize) -> bool,
    rank: &str,
) -> Result<Shape> {
    let (Some((&first, others)), Some(&argument)) = (tensors.split_first(), names.first()) else {
        return Err(Error::InputCount { operation, expected: 1, got: 0 });
    };
    let expected = first.shape();
    if !fits(expected.len()) {
        return Err(Error::ShapeRule { operation, argument, expected: rank.into(), got: expected });
    }
    if expected.contains(&0) {
        return Err(Error::Empty { operation, argument, got: expected });
    }
    for (&argument, tensor) in names[1..].iter().zip(others) {
        let got = tensor.shape();
        if got != expected {
            return Err(Error::ShapeMismatch { operation, argument, expected, got });
        }
    }
    Ok(expected)
}

/// Refuses a weight that the loss has no use for.
///
/// # Errors
/// [`Error::InvalidOption`].
pub fn no_weight<T: Tensor>(operation: &'static str, weight: Option<&T>) -> Result<()> {
    match weight {
        None => Ok(()),
        Some(weight) => {
            let got = format!("a tensor of shape {:?}", weight.shape());
            Err(Error::option(operation, "weight", "absent, the loss takes none", got))
        }
    }
}
