//! A function with a gradient of its own, such as a frozen network with a criterion: two operations of the engines.

use std::fmt::Debug;
use std::sync::Arc;

use crate::kernels::Array;
use crate::op::{Custom, Op, perform};
use crate::{DType, Error, Result, Shape, Tensor};

/// A function of tensors in single precision, differentiable by its first input alone, with kernels of its own for the
/// value and for both at once.
///
/// [`apply`] makes one operation of the value and one of the gradient.
pub trait FrozenFunction: Debug + Send + Sync + 'static {
    /// Its name, for error messages.
    fn name(&self) -> &'static str;
    /// The shape rule: refuses whatever the kernels could not compute.
    ///
    /// # Errors
    /// A shape error where the inputs do not fit.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape>;
    /// The value.
    fn value(&self, inputs: &[Array<'_, f32>]) -> Vec<f32>;
    /// The value, and the gradient of Σ value · `gradient` by the first input.
    fn value_and_gradient(&self, inputs: &[Array<'_, f32>], gradient: &[f32]) -> (Vec<f32>, Vec<f32>);
}

/// Whether [`apply`] takes a tensor: where it does not, no kernels need be prepared.
pub fn applies_to<T: Tensor>(input: &T) -> bool {
    input.dtype() == DType::F32 && input.fuses()
}

/// The function of tensors, where their engine has fused operations and their elements are `f32`; else `None`: the caller
/// then composes the function of tensor operations.
///
/// The first input alone has a gradient, and that none in turn: a second derivative is [`Error::SecondDerivative`].
pub fn apply<T: Tensor, P: FrozenFunction>(function: &Arc<P>, inputs: &[&T]) -> Option<Result<T>> {
    if !inputs.iter().all(|input| applies_to(*input)) {
        return None;
    }
    Some(perform(&Op::Custom(Arc::new(Value { function: Arc::clone(function) })), inputs))
}

/// The operation of the value.
#[derive(Debug)]
struct Value<P> {
    function: Arc<P>,
}

/// The operation of the gradient: of (inputs…, gradient of the value).
#[derive(Debug)]
struct Gradient<P> {
    function: Arc<P>,
}

/// Elements in single precision.
fn narrow(inputs: &[Array<'_, f64>]) -> Vec<Vec<f32>> {
    inputs.iter().map(|input| input.data.iter().map(|&value| value as f32).collect()).collect()
}

/// Evaluates an operation of single precision on elements of double precision.
fn in_single(operation: &impl Custom, inputs: &[Array<'_, f64>]) -> Vec<f64> {
    let single = narrow(inputs);
    let arrays: Vec<_> = inputs.iter().zip(&single).map(|(input, data)| Array { shape: input.shape, data }).collect();
    operation.evaluate_f32(&arrays).into_iter().map(f64::from).collect()
}

impl<P: FrozenFunction> Custom for Value<P> {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        self.function.output_shape(inputs)
    }
    fn evaluate_f32(&self, inputs: &[Array<'_, f32>]) -> Vec<f32> {
        self.function.value(inputs)
    }
    fn evaluate_f64(&self, inputs: &[Array<'_, f64>]) -> Vec<f64> {
        in_single(self, inputs)
    }
    fn gradient(&self, input: usize) -> Result<Option<Arc<dyn Custom>>> {
        if input > 0 {
            return Ok(None);
        }
        Ok(Some(Arc::new(Gradient { function: Arc::clone(&self.function) })))
    }
    fn with_gradient_f32(&self, inputs: &[Array<'_, f32>], input: usize) -> Option<(Vec<f32>, Vec<f32>)> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape).collect();
        let shape = self.output_shape(&shapes).ok()?;
        // Of several values the gradients from above differ.
        let is_one = input == 0 && shape.iter().all(|&extent| extent == 1);
        is_one.then(|| self.function.value_and_gradient(inputs, &[1.0]))
    }
}

impl<P: FrozenFunction> Custom for Gradient<P> {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        inputs.first().map(|input| input.to_vec()).ok_or(Error::InputCount {
            operation: self.name(),
            expected: 2,
            got: 0,
        })
    }
    fn evaluate_f32(&self, inputs: &[Array<'_, f32>]) -> Vec<f32> {
        let Some((above, inputs)) = inputs.split_last() else { return Vec::new() };
        self.function.value_and_gradient(inputs, above.data).1
    }
    fn evaluate_f64(&self, inputs: &[Array<'_, f64>]) -> Vec<f64> {
        in_single(self, inputs)
    }
    fn gradient(&self, _: usize) -> Result<Option<Arc<dyn Custom>>> {
        Err(Error::SecondDerivative { operation: self.name() })
    }
}
