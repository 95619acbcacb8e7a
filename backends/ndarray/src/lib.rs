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
use image_losses_core::{Differentiable, Error, Loss, Result, Scalar, Tensor};
use ndarray::{ArrayD, ArrayView, ArrayViewMut, CowArray, Dimension, IxDyn};

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

/// The value of a loss and its gradients by the inputs that are `wanted`, each in its input's shape.
///
/// Of a pointwise loss in one fused pass, without a record; of any other as [`differentiate`] does it. Views in standard
/// layout are read in place.
///
/// # Errors
/// Those of [`Loss::forward`]; [`Error::InvalidOption`] or [`Error::ShapeRule`] for a loss that gives a map or a value per
/// sample.
pub fn value_and_gradients<const K: usize, F: Scalar, D: Dimension, L: Loss<K>>(
    loss: &L,
    inputs: [ArrayView<'_, F, D>; K],
    weight: Option<ArrayView<'_, F, D>>,
    wanted: [bool; K],
) -> Result<(F, [Option<ArrayD<F>>; K])> {
    let standard = inputs.map(|input| CowArray::from(input.into_dyn()).into_standard());
    let weight = weight.map(|weight| CowArray::from(weight.into_dyn()).into_standard());
    let arrays = std::array::from_fn(|k| as_array(&standard[k]));
    let Some(fused) = loss.fused(arrays, weight.as_ref().map(as_array), wanted) else {
        return recorded(loss, &standard, weight.as_ref(), wanted);
    };
    let (value, gradients) = fused?;
    let mut shapes = standard.iter().map(|input| input.shape());
    let gradients = gradients.map(|gradient| {
        let shape = shapes.next()?;
        ArrayD::from_shape_vec(IxDyn(shape), gradient?).ok()
    });
    Ok((value, gradients))
}

/// The value of a loss; the gradients that are asked for are written to arrays of the caller's, which a training loop can use
/// again and again.
///
/// ```
/// use image_losses_ndarray::value_and_gradients_into;
/// use ndarray::array;
/// # use image_losses_core::{Declared, Expr, Pointwise, Reduced};
/// # #[derive(Clone, Debug)]
/// # struct Squared;
/// # impl Pointwise<2> for Squared {
/// #     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> { (x - y).square() }
/// # }
/// # impl Declared for Squared { const NAME: &'static str = "Squared"; }
/// # let loss = Reduced::new(Squared);
///
/// let (x, y) = (array![[1.0f32, 2.0]], array![[1.0f32, 4.0]]);
/// let mut gradient = array![[0.0f32, 0.0]];
/// let wanted = [Some(gradient.view_mut()), None];
/// let value = value_and_gradients_into(&loss, [x.view(), y.view()], None, wanted)?;
/// assert_eq!((value, gradient), (2.0, array![[0.0, -2.0]]));
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// # Errors
/// As [`value_and_gradients`]; [`Error::ShapeMismatch`] for an array that has not its input's shape.
pub fn value_and_gradients_into<const K: usize, F: Scalar, D: Dimension, L: Loss<K>>(
    loss: &L,
    inputs: [ArrayView<'_, F, D>; K],
    weight: Option<ArrayView<'_, F, D>>,
    mut gradients: [Option<ArrayViewMut<'_, F, D>>; K],
) -> Result<F> {
    for (k, gradient) in gradients.iter().enumerate() {
        if let Some(gradient) = gradient
            && gradient.shape() != inputs[k].shape()
        {
            let (expected, got) = (inputs[k].shape().to_vec(), gradient.shape().to_vec());
            return Err(Error::ShapeMismatch { operation: L::NAME, argument: "gradient", expected, got });
        }
    }
    let standard = inputs.map(|input| CowArray::from(input.into_dyn()).into_standard());
    let weight = weight.map(|weight| CowArray::from(weight.into_dyn()).into_standard());
    let is_in_place = gradients.iter().flatten().all(|gradient| gradient.is_standard_layout());
    if is_in_place {
        let arrays = std::array::from_fn(|k| as_array(&standard[k]));
        let targets =
            gradients.each_mut().map(|gradient| gradient.as_mut().and_then(|gradient| gradient.as_slice_mut()));
        if let Some(value) = loss.fused_into(arrays, weight.as_ref().map(as_array), targets) {
            return value;
        }
    }
    let wanted = gradients.each_ref().map(Option::is_some);
    let views = std::array::from_fn(|k| standard[k].view());
    let (value, found) = value_and_gradients(loss, views, weight.as_ref().map(|weight| weight.view()), wanted)?;
    for (target, gradient) in gradients.into_iter().zip(found) {
        if let (Some(target), Some(gradient)) = (target, gradient) {
            target.into_dyn().assign(&gradient);
        }
    }
    Ok(value)
}

/// The same by a record.
fn recorded<const K: usize, F: Scalar, L: Loss<K>>(
    loss: &L,
    inputs: &[CowArray<'_, F, IxDyn>; K],
    weight: Option<&CowArray<'_, F, IxDyn>>,
    wanted: [bool; K],
) -> Result<(F, [Option<ArrayD<F>>; K])> {
    let mut tensors = Vec::with_capacity(K);
    for (input, wanted) in inputs.iter().zip(wanted) {
        let tensor = NdTensor::view(input.view());
        tensors.push(if wanted { tensor.leaf()? } else { tensor });
    }
    let weight = weight.map(|weight| NdTensor::view(weight.view()));
    let value = loss.forward(std::array::from_fn(|k| &tensors[k]), weight.as_ref())?;
    if value.rank() > 0 {
        let expected = "a number: a mean or a sum".to_owned();
        return Err(Error::ShapeRule { operation: L::NAME, argument: "its value", expected, got: value.shape() });
    }
    let leaves: Vec<_> = tensors.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(tensor, _)| tensor).collect();
    let mut found = NdTensor::gradients(&value, &leaves, false)?.into_iter();
    let mut gradients = [const { None }; K];
    for k in (0..K).filter(|&k| wanted[k]) {
        gradients[k] = Some(match found.next().flatten() {
            Some(gradient) => gradient.into_array(),
            None => NdTensor::full(&(), 0.0, inputs[k].shape())?.into_array(),
        });
    }
    Ok((value.item()?, gradients))
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
