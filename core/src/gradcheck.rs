//! Checks a gradient against central differences: for this workspace's losses and for yours.

use crate::Result;

/// The step of [`check_gradient`] where the caller has no better one: near the cube root of double precision's
/// epsilon, where truncation (h²) and rounding (ε/h) balance.
pub const STEP: f64 = 6e-6;

/// The element where a gradient differs most from the central difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorstElement {
    /// Which input.
    pub input: usize,
    /// Which of its elements.
    pub element: usize,
    /// The gradient under test.
    pub gradient: f64,
    /// The central difference.
    pub difference: f64,
    /// |gradient − difference| / max(1, |gradient|, |difference|).
    pub error: f64,
}

/// Compares a gradient with central differences of the value, element by element, in double precision.
///
/// `value` maps the inputs to a number, `gradient` to one gradient per input, of the input's length. With
/// `value` itself a component of a gradient, this checks second derivatives. Returns the worst element (`None` where
/// there are no elements); the caller compares its `error` with a tolerance. Inputs must keep `step` away from points
/// where the function has no derivative.
///
/// ```
/// use image_losses_core::gradcheck::{STEP, check_gradient};
///
/// let cube = |x: &[Vec<f64>]| Ok(x[0][0].powi(3));
/// let right = check_gradient(&[vec![2.0]], STEP, cube, |x| Ok(vec![vec![3.0 * x[0][0].powi(2)]]))?;
/// assert!(right.unwrap().error < 1e-9);
/// let wrong = check_gradient(&[vec![2.0]], STEP, cube, |x| Ok(vec![vec![2.0 * x[0][0].powi(2)]]))?;
/// assert!(wrong.unwrap().error > 0.1);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// # Errors
/// Those of `value` and `gradient`; [`Error::InputCount`](crate::Error::InputCount) and
/// [`Error::Length`](crate::Error::Length) where the gradients are not one per input, of its length.
pub fn check_gradient(
    inputs: &[Vec<f64>],
    step: f64,
    value: impl Fn(&[Vec<f64>]) -> Result<f64>,
    gradient: impl FnOnce(&[Vec<f64>]) -> Result<Vec<Vec<f64>>>,
) -> Result<Option<WorstElement>> {
    let gradients = gradient(inputs)?;
    if gradients.len() != inputs.len() {
        let (expected, got) = (inputs.len(), gradients.len());
        return Err(crate::Error::InputCount { operation: "check_gradient", expected, got });
    }
    let mut moved = inputs.to_vec();
    let mut worst: Option<WorstElement> = None;
    for (input, gradient) in gradients.iter().enumerate() {
        crate::primitive::check_length("check_gradient", gradient.len(), &[inputs[input].len()])?;
        for (element, &gradient) in gradient.iter().enumerate() {
            let x = inputs[input][element];
            let h = step * x.abs().max(1.0);
            moved[input][element] = x + h;
            let above = value(&moved)?;
            moved[input][element] = x - h;
            let below = value(&moved)?;
            moved[input][element] = x;
            let difference = (above - below) / (2.0 * h);
            let error = (gradient - difference).abs() / gradient.abs().max(difference.abs()).max(1.0);
            // Not a number counts as worst.
            if worst.is_none_or(|worst| error.is_nan() || error > worst.error) {
                worst = Some(WorstElement { input, element, gradient, difference, error });
            }
        }
    }
    Ok(worst)
}
