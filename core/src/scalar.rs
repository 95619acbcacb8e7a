//! The two element types of the CPU engines.

use image_losses_kernels::Element;

use crate::DType;
use crate::fft;
use crate::kernels::{self, Array, Gradients};
use crate::op::{Custom, Op};

/// An element of a CPU tensor: `f32` or `f64`.
///
/// What runs operations is compiled for these two in this crate, not again in every crate that calls it.
pub trait Scalar: Element {
    /// As a tensor's element type.
    const DTYPE: DType;
    /// [`kernels::evaluate`].
    #[doc(hidden)]
    fn evaluate(op: &Op, inputs: &[Array<'_, Self>], shape: &[usize]) -> Vec<Self>;
    /// [`kernels::sum_and_gradients`].
    #[doc(hidden)]
    fn sum_and_gradients(op: &Op, inputs: &[Array<'_, Self>], wanted: &[bool]) -> Option<(Vec<Self>, Gradients<Self>)>;
    /// [`fft::rfft2`].
    #[doc(hidden)]
    fn rfft2(data: &[Self], planes: [usize; 3]) -> Vec<Self>;
    /// [`fft::rfft2_adjoint`].
    #[doc(hidden)]
    fn rfft2_adjoint(data: &[Self], planes: [usize; 3]) -> Vec<Self>;
    /// Evaluates a custom operation.
    #[doc(hidden)]
    fn custom(operation: &dyn Custom, inputs: &[Array<'_, Self>]) -> Vec<Self>;
    /// Evaluates a custom operation with its gradient by an input.
    #[doc(hidden)]
    fn custom_with_gradient(
        operation: &dyn Custom,
        inputs: &[Array<'_, Self>],
        input: usize,
    ) -> Option<(Vec<Self>, Vec<Self>)>;
}

macro_rules! scalar {
    ($element:ty, $dtype:ident, $evaluate:ident, $with_gradient:ident) => {
        impl Scalar for $element {
            const DTYPE: DType = DType::$dtype;
            fn evaluate(op: &Op, inputs: &[Array<'_, Self>], shape: &[usize]) -> Vec<Self> {
                kernels::evaluate_of(op, inputs, shape)
            }
            fn sum_and_gradients(
                op: &Op,
                inputs: &[Array<'_, Self>],
                wanted: &[bool],
            ) -> Option<(Vec<Self>, Gradients<Self>)> {
                kernels::sum_and_gradients_of(op, inputs, wanted)
            }
            fn rfft2(data: &[Self], planes: [usize; 3]) -> Vec<Self> {
                fft::rfft2(data, planes)
            }
            fn rfft2_adjoint(data: &[Self], planes: [usize; 3]) -> Vec<Self> {
                fft::rfft2_adjoint(data, planes)
            }
            fn custom(operation: &dyn Custom, inputs: &[Array<'_, Self>]) -> Vec<Self> {
                operation.$evaluate(inputs)
            }
            fn custom_with_gradient(
                operation: &dyn Custom,
                inputs: &[Array<'_, Self>],
                input: usize,
            ) -> Option<(Vec<Self>, Vec<Self>)> {
                operation.$with_gradient(inputs, input)
            }
        }
    };
}
scalar!(f32, F32, evaluate_f32, with_gradient_f32);
scalar!(f64, F64, evaluate_f64, with_gradient_f64);
