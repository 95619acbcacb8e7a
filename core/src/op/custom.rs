//! Operations with kernels of their own.

use std::fmt::Debug;
use std::sync::Arc;

use super::{Op, perform};
use crate::kernels::Array;
use crate::{Result, Shape, Tensor};

/// An operation with kernels of its own: a network, a filter, a loss with neighbouring pixels.
pub trait Custom: Debug + Send + Sync {
    /// Its name, for error messages.
    fn name(&self) -> &'static str;
    /// The shape rule.
    ///
    /// # Errors
    /// A shape error where the inputs do not fit.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape>;
    /// The kernel in single precision.
    fn evaluate_f32(&self, inputs: &[Array<'_, f32>]) -> Vec<f32>;
    /// The kernel in double precision.
    fn evaluate_f64(&self, inputs: &[Array<'_, f64>]) -> Vec<f64>;
    /// The gradient by input `input`: an operation on (inputs…, output gradient); `None` where it is always zero.
    ///
    /// # Errors
    /// [`Error::SecondDerivative`](crate::Error::SecondDerivative) where there is one, and the operation has no kernel for
    /// it.
    fn gradient(&self, input: usize) -> Result<Option<Arc<dyn Custom>>>;
    /// The value, and the gradient of the sum of its elements by input `input`, where that takes less than the two by
    /// themselves and the gradients from above are likely to be equal.
    fn with_gradient_f32(&self, inputs: &[Array<'_, f32>], input: usize) -> Option<(Vec<f32>, Vec<f32>)> {
        let _ = (inputs, input);
        None
    }
    /// As [`with_gradient_f32`](Custom::with_gradient_f32).
    fn with_gradient_f64(&self, inputs: &[Array<'_, f64>], input: usize) -> Option<(Vec<f64>, Vec<f64>)> {
        let _ = (inputs, input);
        None
    }
}

/// The gradients by the wanted inputs.
pub(super) fn gradients<T: Tensor>(
    operation: &Arc<dyn Custom>,
    inputs: &[T],
    above: &T,
    wanted: &[bool],
) -> Result<Vec<Option<T>>> {
    (0..inputs.len())
        .map(|input| {
            let derivative = if wanted[input] { operation.gradient(input)? } else { None };
            let Some(derivative) = derivative else { return Ok(None) };
            let operands: Vec<&T> = inputs.iter().chain([above]).collect();
            perform(&Op::Custom(derivative), &operands).map(Some)
        })
        .collect()
}
