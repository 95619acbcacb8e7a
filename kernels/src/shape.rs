//! The product of extents, checked.

use crate::{Error, Result};

/// The most elements of a tensor: as `f64` they are more than a process can address.
const MOST: usize = 1 << 44;

/// The number of elements of a shape. Every shape rule ends with it, so that no product of extents overflows after it.
///
/// ```
/// use image_losses_kernels::checked_count;
/// assert_eq!(checked_count("full", "shape", &[2, 3])?, 6);
/// assert_eq!(checked_count("full", "shape", &[2, 0])?, 0);
/// assert!(checked_count("full", "shape", &[1 << 62, 8]).is_err());
/// assert!(checked_count("full", "shape", &[0, 1 << 62]).is_err());
/// # Ok::<(), image_losses_kernels::Error>(())
/// ```
///
/// # Errors
/// [`Error::ShapeRule`] where the product is above 2⁴⁴; extents of 0 count as 1 there, since a sum over them leaves the
/// others.
pub fn checked_count(operation: &'static str, argument: &'static str, shape: &[usize]) -> Result<usize> {
    count_in_memory(shape).ok_or_else(|| {
        let expected = format!("extents whose product is at most {MOST}");
        Error::ShapeRule { operation, argument, expected, got: shape.to_vec() }
    })
}

/// As [`checked_count`]; none where that is an error.
pub fn count_in_memory(shape: &[usize]) -> Option<usize> {
    let others = shape.iter().filter(|&&extent| extent != 0).try_fold(1usize, |n, &extent| n.checked_mul(extent))?;
    (others <= MOST).then_some(if shape.contains(&0) { 0 } else { others })
}

/// Whether a step, a padding or a window is so large that positions could overflow.
pub fn is_beyond(extents: &[usize]) -> bool {
    extents.iter().any(|&extent| extent > MOST)
}

/// The number of elements of a shape; `usize::MAX`, more than memory can hold, where that is too large for a `usize`.
pub fn count(shape: &[usize]) -> usize {
    // Zeros first: the extents beside a zero may have any product.
    if shape.contains(&0) { 0 } else { shape.iter().fold(1, |product, &extent| product.saturating_mul(extent)) }
}

/// Refuses a number of values that does not fill the shape; returns the number.
///
/// # Errors
/// As [`checked_count`]; [`Error::Length`].
pub fn check_length(operation: &'static str, got: usize, shape: &[usize]) -> Result<usize> {
    let expected = checked_count(operation, "shape", shape)?;
    if expected == got { Ok(got) } else { Err(Error::Length { operation, shape: shape.to_vec(), expected, got }) }
}
