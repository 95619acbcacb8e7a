//! The ndarray engine: values at once, in pure Rust; for pointwise losses also gradients, in one fused pass.
//!
//! [`NdTensor`] wraps an `ndarray` array or view of any rank and implements
//! [`Tensor`](image_losses_core::Tensor), so that every loss runs on it:
//!
//! ```
//! use image_losses_core::{Loss, Tensor};
//! use image_losses_ndarray::NdTensor;
//! use ndarray::array;
//! # use image_losses_core::{Expr, Function, Input, Pointwise, PointwiseLoss, Reducer};
//! # #[derive(Clone, Debug)]
//! # struct Squared;
//! # impl Pointwise<2> for Squared {
//! #     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> { (x - y).square() }
//! # }
//! # impl PointwiseLoss<2> for Squared {
//! #     const NAME: &'static str = "Squared";
//! #     const INPUTS: [Input; 2] = [Input::full("pred"), Input::full("target")];
//! #     fn function(&self) -> Function { Function::new(self.clone()) }
//! #     fn reducer(&self) -> Reducer { Reducer::default() }
//! # }
//! # let loss = Squared;
//! let x = array![[1.0f32, 2.0], [3.0, 4.0]];
//! let y = array![[1.0f32, 0.0], [3.0, 4.0]];
//! let value = loss.forward([&NdTensor::view(x.view()), &NdTensor::view(y.view())], None)?;
//! assert_eq!(value.item()?, 1.0); // mean of 0, 4, 0, 0
//!
//! // Value and gradients without an engine, in one pass:
//! let (value, [gradient, _]) =
//!     image_losses_ndarray::value_and_gradients(&loss, [x.view(), y.view()], None, [true, false])?;
//! assert_eq!(value, 1.0);
//! assert_eq!(gradient.unwrap(), array![[0.0, 1.0], [0.0, 0.0]].into_dyn());
//! # Ok::<(), image_losses_core::Error>(())
//! ```

use std::borrow::Cow;

use image_losses_core::kernels::{self, Array};
use image_losses_core::{Error, PointwiseLoss, Primitive, PrimitiveTensor, Result, Scalar};
use ndarray::{ArcArray, ArrayD, ArrayView, ArrayViewD, CowArray, Dimension, IxDyn};

/// A tensor of the ndarray engine: a borrowed or shared array of any rank.
///
/// Wrapping a view borrows it, wrapping an owned array takes it; neither copies. Cloning shares.
#[derive(Clone, Debug)]
pub struct NdTensor<'a, F: Scalar>(Storage<'a, F>);

#[derive(Clone, Debug)]
enum Storage<'a, F: Scalar> {
    View(ArrayViewD<'a, F>),
    Shared(ArcArray<F, IxDyn>),
}

impl<'a, F: Scalar> NdTensor<'a, F> {
    /// Borrows a view.
    pub fn view<D: Dimension>(view: ArrayView<'a, F, D>) -> Self {
        NdTensor(Storage::View(view.into_dyn()))
    }

    /// Takes an array.
    pub fn new<D: Dimension>(array: ndarray::Array<F, D>) -> Self {
        NdTensor(Storage::Shared(array.into_dyn().into_shared()))
    }

    /// A view of the values.
    pub fn array(&self) -> ArrayViewD<'_, F> {
        match &self.0 {
            Storage::View(view) => view.view(),
            Storage::Shared(array) => array.view(),
        }
    }

    /// The values as an array of one's own; copies only what is borrowed or shared.
    pub fn into_array(self) -> ArrayD<F> {
        match self.0 {
            Storage::View(view) => view.to_owned(),
            Storage::Shared(array) => array.into_owned(),
        }
    }

    /// The single element.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] where there is not exactly one.
    pub fn item(&self) -> Result<F> {
        let array = self.array();
        match (array.len(), array.first()) {
            (1, Some(&value)) => Ok(value),
            _ => Err(Error::ShapeRule {
                operation: "item",
                argument: "tensor",
                expected: "exactly one element".into(),
                got: array.shape().to_vec(),
            }),
        }
    }
}

impl<'a, F: Scalar> PrimitiveTensor for NdTensor<'a, F> {
    type Context = ();
    type Element = F;

    fn primitive_context(&self) {}
    fn extents(&self) -> &[usize] {
        match &self.0 {
            Storage::View(view) => view.shape(),
            Storage::Shared(array) => array.shape(),
        }
    }
    fn from_elements((): &(), elements: Vec<F>, shape: &[usize]) -> Result<Self> {
        // The trait's contract gives as many elements as the shape has; were it broken, the shape is the elements'.
        let array = ArcArray::from_shape_vec(IxDyn(shape), elements)
            .unwrap_or_else(|_| ArcArray::from_elem(IxDyn(&[0]), F::ZERO));
        Ok(NdTensor(Storage::Shared(array)))
    }
    fn detached(&self) -> Self {
        self.clone()
    }
    fn apply(primitive: Primitive, inputs: &[&Self]) -> Result<Self> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.extents()).collect();
        let shape = primitive.output_shape(&shapes)?;
        if let (Primitive::Reshape(_), [NdTensor(Storage::Shared(array))]) = (&primitive, inputs)
            && let Ok(reshaped) = array.clone().into_shape_with_order(IxDyn(&shape))
        {
            return Ok(NdTensor(Storage::Shared(reshaped)));
        }
        let views: Vec<ArrayViewD<'_, F>> = inputs.iter().map(|input| input.array()).collect();
        let elements: Vec<Cow<'_, [F]>> = views.iter().map(row_major).collect();
        let arrays: Vec<Array<'_, F>> =
            shapes.iter().zip(&elements).map(|(shape, data)| Array { shape, data }).collect();
        Self::from_elements(&(), kernels::evaluate(&primitive, &arrays, &shape), &shape)
    }
}

/// The elements in row-major order; copied only where the view's layout is another.
fn row_major<'v, F: Scalar>(view: &'v ArrayViewD<'_, F>) -> Cow<'v, [F]> {
    match view.as_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().copied().collect()),
    }
}

/// The value and the gradients of a pointwise loss with a mean or a sum, in one fused pass.
///
/// `wanted` says for which inputs a gradient is computed; each comes in its input's shape. Views in standard layout are
/// read in place.
///
/// # Errors
/// Shape errors as for [`Loss::forward`](image_losses_core::Loss::forward); [`Error::InvalidOption`] for the reduction
/// `none`.
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
