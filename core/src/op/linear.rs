//! Linear maps along axes: averages and resampling, as one map along the height and one along the width.

use std::sync::Arc;

use image_losses_kernels::checked_count;

use super::{Op, perform};
use crate::{Error, LinearMap, Result, Shape, Tensor};

/// Height and width of images.
pub(super) fn image_extents(operation: &'static str, shape: &[usize]) -> Result<[usize; 2]> {
    match *shape {
        [_, _, h, w] => Ok([h, w]),
        _ => Err(Error::ShapeRule {
            operation,
            argument: "input",
            expected: "rank 4 (N, C, H, W)".into(),
            got: shape.to_vec(),
        }),
    }
}

/// The shape of images (N, C, H, W) with another size, where neither has an extent of 0.
pub(super) fn resized_shape(operation: &'static str, shape: &[usize], size: [usize; 2]) -> Result<Shape> {
    let extents = image_extents(operation, shape)?;
    let resized = [&shape[..2], &size].concat();
    if extents.contains(&0) || size.contains(&0) {
        let expected = "rank 4 (N, C, H, W) and extents above 0, before and after".into();
        return Err(Error::ShapeRule { operation, argument: "input", expected, got: shape.to_vec() });
    }
    checked_count(operation, "size", &resized)?;
    Ok(resized)
}

/// The maps along the height and along the width that an operation consists of.
fn maps(op: &Op, [h, w]: [usize; 2]) -> Result<Option<[Arc<LinearMap>; 2]>> {
    Ok(Some(match *op {
        Op::AveragePool { size } => [LinearMap::average(h, size[0])?, LinearMap::average(w, size[1])?],
        Op::AdaptiveAveragePool { size } => {
            [LinearMap::adaptive_average(h, size[0])?, LinearMap::adaptive_average(w, size[1])?]
        }
        Op::Resize { size, interpolation } => {
            [LinearMap::resize(h, size[0], interpolation)?, LinearMap::resize(w, size[1], interpolation)?]
        }
        _ => return Ok(None),
    }))
}

/// Averages and resampling of maps along an axis; such a map of a matrix product.
pub(super) fn decompose<T: Tensor>(op: &Op, input: &T) -> Result<T> {
    if let Op::Linear { axis, map } = op {
        let matrix = T::constant(&input.context(), &map.to_dense(), &[map.outputs(), map.inputs()])?;
        return linear_by_matrix(input, *axis, map, &matrix);
    }
    let extents = image_extents(op.name(), &input.shape())?;
    let Some([rows, columns]) = maps(op, extents)? else {
        return Err(Error::Unsupported { operation: op.name(), engine: "present" });
    };
    let rows = perform(&Op::Linear { axis: 2, map: rows }, &[input])?;
    perform(&Op::Linear { axis: 3, map: columns }, &[&rows])
}

/// A linear map along an axis as a product with its matrix (outputs, inputs), for engines without one.
///
/// # Errors
/// Those of the operations.
pub fn linear_by_matrix<T: Tensor>(input: &T, axis: usize, map: &LinearMap, matrix: &T) -> Result<T> {
    let shape = input.shape();
    let mut order: Vec<usize> = (0..shape.len()).filter(|&a| a != axis).collect();
    order.insert(0, axis);
    let rest: usize = order[1..].iter().map(|&a| shape[a]).product();
    let product = matrix.matmul(&input.permute(&order)?.reshape(&[map.inputs(), rest])?, false, false)?;
    let moved: Shape = order.iter().map(|&a| if a == axis { map.outputs() } else { shape[a] }).collect();
    product.reshape(&moved)?.permute(&inverse(&order))
}

/// The order that undoes an order of axes.
pub(super) fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (position, &axis) in order.iter().enumerate() {
        inverse[axis] = position;
    }
    inverse
}
