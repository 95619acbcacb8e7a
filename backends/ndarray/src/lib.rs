//! The ndarray engine: values at once and gradients of any order, in pure Rust.
//!
//! [`NdTensor`] wraps an `ndarray` array or view of any rank and implements
//! [`Tensor`], so that every loss runs on it:
//!
//! ```
//! use image_losses_core::{Differentiable, Loss, Tensor};
//! use image_losses_ndarray::NdTensor;
//! use ndarray::array;
//! # use image_losses_core::{Declared, Expr, Pointwise, Reduced};
//! # #[derive(Clone, Debug)]
//! # struct Squared;
//! # impl Pointwise<2> for Squared {
//! #     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> { (x - y).square() }
//! # }
//! # impl Declared for Squared { const NAME: &'static str = "Squared"; }
//! # let loss = Reduced::new(Squared);
//! let x = array![[1.0f32, 2.0], [3.0, 4.0]];
//! let y = array![[1.0f32, 0.0], [3.0, 4.0]];
//! let value = loss.forward([&NdTensor::view(x.view()), &NdTensor::view(y.view())], None)?;
//! assert_eq!(value.item()?, 1.0); // mean of 0, 4, 0, 0
//!
//! // The gradient: operations on a leaf are recorded.
//! let leaf = NdTensor::view(x.view()).leaf()?;
//! let value = loss.forward([&leaf, &NdTensor::view(y.view())], None)?;
//! let gradient = NdTensor::gradients(&value, &[&leaf], false)?.remove(0).unwrap();
//! assert_eq!(gradient.array(), array![[0.0, 1.0], [0.0, 0.0]].into_dyn());
//!
//! // The same of slices, without a record:
//! let (value, [gradient, _]) =
//!     image_losses_ndarray::value_and_gradients(&loss, [x.view(), y.view()], None, [true, false])?;
//! assert_eq!(value, 1.0);
//! assert_eq!(gradient.unwrap(), array![[0.0, 1.0], [0.0, 0.0]].into_dyn());
//! # Ok::<(), image_losses_core::Error>(())
//! ```

mod record;
mod tensor;

use image_losses_core::kernels::Array;
use image_losses_core::{Differentiable, PointwiseLoss, Result, Scalar, Tensor};
use ndarray::{ArrayD, ArrayView, CowArray, Dimension, IxDyn};

pub use image_losses_core::kernels::{release_memory, set_kept_memory};
pub use tensor::NdTensor;

/// The value of a function of arrays and its gradient with respect to each.
///
/// The arrays are read in place. A value with several elements is differentiated through its sum. An input without influence
/// has a gradient of zeros.
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::differentiate;
/// use ndarray::array;
///
/// let x = array![1.0f64, 2.0];
/// let (value, gradients) = differentiate(&[x.view()], |x| x[0].mul(&x[0])?.sum_all())?;
/// assert_eq!((value.sum(), &gradients[0]), (5.0, &array![2.0, 4.0].into_dyn()));
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// # Errors
/// Those of `function`.
pub fn differentiate<'a, F: Scalar, D: Dimension>(
    inputs: &[ArrayView<'a, F, D>],
    function: impl FnOnce(&[NdTensor<'a, F>]) -> Result<NdTensor<'a, F>>,
) -> Result<(ArrayD<F>, Vec<ArrayD<F>>)> {
    let leaves = inputs.iter().map(|input| NdTensor::view(input.clone()).leaf()).collect::<Result<Vec<_>>>()?;
    let value = function(&leaves)?;
    let gradients = NdTensor::gradients(&value, &leaves.iter().collect::<Vec<_>>(), false)?;
    let gradients = gradients.into_iter().zip(&leaves).map(|(gradient, leaf)| match gradient {
        Some(gradient) => Ok(gradient.into_array()),
        None => Ok(NdTensor::full(&(), 0.0, &leaf.shape())?.into_array()),
    });
    Ok((value.into_array(), gradients.collect::<Result<_>>()?))
}

/// The value and the gradients of a pointwise loss with a mean or a sum, in one fused pass.
///
/// `wanted` says for which inputs a gradient is computed; each comes in its input's shape. Views in standard layout are
/// read in place.
///
/// # Errors
/// Shape errors as for [`Loss::forward`](image_losses_core::Loss::forward);
/// [`Error::InvalidOption`](image_losses_core::Error::InvalidOption) for the reduction `none`.
pub fn value_and_gradients<const K: usize, F: Scalar, D: Dimension, L: PointwiseLoss<K>>(
    loss: &L,
    inputs: [ArrayView<'_, F, D>; K],
    weight: Option<ArrayView<'_, F, D>>,
    wanted: [bool; K],
) -> Result<(F, [Option<ArrayD<F>>; K])> {
    let standard = inputs.map(|input| CowArray::from(input.into_dyn()).into_standard());
    let weight = weight.map(|weight| CowArray::from(weight.into_dyn()).into_standard());
    let arrays = std::array::from_fn(|k| as_array(&standard[k]));
    let (value, gradients) = loss.value_and_gradients(arrays, weight.as_ref().map(as_array), wanted)?;
    let mut shapes = standard.iter().map(|input| input.shape());
    let gradients = gradients.map(|gradient| {
        let shape = shapes.next()?;
        ArrayD::from_shape_vec(IxDyn(shape), gradient?).ok()
    });
    Ok((value, gradients))
}

/// An array in standard layout as the kernels take it.
fn as_array<'v, F: Scalar>(array: &'v CowArray<'_, F, IxDyn>) -> Array<'v, F> {
    Array { shape: array.shape(), data: array.as_slice().unwrap_or(&[]) }
}

/// Puts an array into standard layout, copying only if it is not there.
trait IntoStandard {
    fn into_standard(self) -> Self;
}

impl<F: Scalar> IntoStandard for CowArray<'_, F, IxDyn> {
    fn into_standard(self) -> Self {
        if self.is_standard_layout() { self } else { CowArray::from(self.as_standard_layout().into_owned()) }
    }
}

/// The page of the registry.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
