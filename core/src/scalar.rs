//! The two element types of the CPU engines.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::DType;
use crate::kernels::Array;
use crate::kernels::buffers::Kept;
use crate::kernels::machine::Execute;
use crate::op::Custom;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// An element of a CPU tensor: `f32` or `f64`.
///
/// Sealed: kernels are compiled for these two inside this crate, not again in every crate that calls them.
pub trait Scalar:
    sealed::Sealed
    + Execute
    + Copy
    + PartialOrd
    + Default
    + Debug
    + Display
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Sum
    + 'static
{
    /// The additive identity.
    const ZERO: Self;
    /// The multiplicative identity.
    const ONE: Self;
    /// Its name: `"f32"` or `"f64"`.
    const NAME: &'static str;
    /// The nearest value to `value`.
    fn from_f64(value: f64) -> Self;
    /// The same value in double precision.
    fn to_f64(self) -> f64;
    /// As a tensor's element type.
    const DTYPE: DType;
    /// Memory for results of this type.
    #[doc(hidden)]
    fn kept() -> &'static Kept<Self>;
    /// Evaluates a custom operation on elements of this type.
    #[doc(hidden)]
    fn evaluate(operation: &dyn Custom, inputs: &[Array<'_, Self>]) -> Vec<Self>;
    /// Evaluates a custom operation with its gradient by an input.
    #[doc(hidden)]
    fn with_gradient(
        operation: &dyn Custom,
        inputs: &[Array<'_, Self>],
        input: usize,
    ) -> Option<(Vec<Self>, Vec<Self>)>;
}

impl Scalar for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NAME: &'static str = "f32";
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    const DTYPE: DType = DType::F32;
    fn kept() -> &'static Kept<Self> {
        static KEPT: Kept<f32> = Kept::new();
        &KEPT
    }
    fn evaluate(operation: &dyn Custom, inputs: &[Array<'_, Self>]) -> Vec<Self> {
        operation.evaluate_f32(inputs)
    }
    fn with_gradient(
        operation: &dyn Custom,
        inputs: &[Array<'_, Self>],
        input: usize,
    ) -> Option<(Vec<Self>, Vec<Self>)> {
        operation.with_gradient_f32(inputs, input)
    }
}

impl Scalar for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NAME: &'static str = "f64";
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    const DTYPE: DType = DType::F64;
    fn kept() -> &'static Kept<Self> {
        static KEPT: Kept<f64> = Kept::new();
        &KEPT
    }
    fn evaluate(operation: &dyn Custom, inputs: &[Array<'_, Self>]) -> Vec<Self> {
        operation.evaluate_f64(inputs)
    }
    fn with_gradient(
        operation: &dyn Custom,
        inputs: &[Array<'_, Self>],
        input: usize,
    ) -> Option<(Vec<Self>, Vec<Self>)> {
        operation.with_gradient_f64(inputs, input)
    }
}
