//! Arrays as tensors.

use std::sync::Arc;

use image_losses_core::kernels::{self, Array, give_back};
use image_losses_core::{DType, Error, Literal, Op, Result, Scalar, Shape, Tensor, checked_count};
use ndarray::{ArrayD, ArrayView, ArrayView1, ArrayViewD, Dimension, IxDyn};

use crate::record::Node;

/// A tensor of the ndarray engine: a borrowed or shared array of any rank.
///
/// Wrapping a view borrows it, wrapping an owned array in standard layout takes it; neither copies. Cloning shares. The
/// memory of results over 1 MiB is used again for later ones
/// ([`set_kept_memory`](image_losses_core::kernels::set_kept_memory)).
///
/// Operations on a [`leaf`](image_losses_core::Differentiable::leaf), and on what was computed from one, are recorded for
/// [`gradients`](image_losses_core::Differentiable::gradients). A record lives as long as a tensor that was computed by it.
#[derive(Clone, Debug)]
pub struct NdTensor<'a, F: Scalar> {
    /// As many as the shape has, row-major.
    elements: Storage<'a, F>,
    pub(crate) shape: Arc<[usize]>,
    /// How it was computed, where gradients can be asked for.
    pub(crate) node: Option<Arc<Node<'a, F>>>,
}

#[derive(Clone, Debug)]
enum Storage<'a, F: Scalar> {
    Borrowed(&'a [F]),
    Shared(Arc<Elements<F>>),
}

/// Elements whose memory is given back.
#[derive(Debug)]
struct Elements<F: Scalar>(Vec<F>);

impl<F: Scalar> Drop for Elements<F> {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.0));
    }
}

impl<'a, F: Scalar> NdTensor<'a, F> {
    /// Borrows a view in standard layout; copies one in another layout.
    pub fn view<D: Dimension>(view: ArrayView<'a, F, D>) -> Self {
        let shape = view.shape().into();
        match view.to_slice() {
            Some(elements) => NdTensor { elements: Storage::Borrowed(elements), shape, node: None },
            None => Self::of_elements(view.iter().copied().collect(), shape),
        }
    }

    /// Takes an array.
    pub fn new<D: Dimension>(array: ndarray::Array<F, D>) -> Self {
        let shape: Arc<[usize]> = array.shape().into();
        let elements = match array.is_standard_layout() {
            true => {
                let (elements, offset) = array.into_raw_vec_and_offset();
                // An array may begin within its memory, as after slicing it in place.
                match offset.unwrap_or(0) {
                    0 => elements,
                    offset => elements[offset..].to_vec(),
                }
            }
            false => array.iter().copied().collect(),
        };
        Self::of_elements(elements, shape)
    }

    /// Takes elements, row-major.
    ///
    /// # Errors
    /// [`Error::Length`] where they do not fill the shape.
    pub fn from_vec(elements: Vec<F>, shape: &[usize]) -> Result<Self> {
        let (operation, expected) = ("from_vec", checked_count("from_vec", "shape", shape)?);
        if elements.len() != expected {
            return Err(Error::Length { operation, shape: shape.to_vec(), expected, got: elements.len() });
        }
        Ok(Self::of_elements(elements, shape.into()))
    }

    /// As many elements as the shape has; more are dropped.
    pub(crate) fn of_elements(mut elements: Vec<F>, shape: Arc<[usize]>) -> Self {
        elements.truncate(kernels::count(&shape));
        // Kernels return as many elements as the shape has; were one missing, the shape is the elements'.
        let shape = if elements.len() == kernels::count(&shape) { shape } else { Arc::from([elements.len()]) };
        NdTensor { elements: Storage::Shared(Arc::new(Elements(elements))), shape, node: None }
    }

    /// The same elements, computed by `node`.
    pub(crate) fn with_node(&self, node: Option<Arc<Node<'a, F>>>) -> Self {
        NdTensor { elements: self.elements.clone(), shape: Arc::clone(&self.shape), node }
    }

    /// A view of the values.
    pub fn array(&self) -> ArrayViewD<'_, F> {
        // Without any element, the extents may be more than `ndarray` takes.
        ArrayViewD::from_shape(IxDyn(&self.shape), self.elements())
            .unwrap_or_else(|_| ArrayView1::from(self.elements()).into_dyn())
    }

    /// The values as an array of one's own; copies only what is borrowed or shared.
    pub fn into_array(self) -> ArrayD<F> {
        drop(self.node);
        let elements = match self.elements {
            Storage::Borrowed(elements) => elements.to_vec(),
            Storage::Shared(elements) => match Arc::try_unwrap(elements) {
                Ok(mut elements) => std::mem::take(&mut elements.0),
                Err(shared) => shared.0.clone(),
            },
        };
        ArrayD::from_shape_vec(IxDyn(&self.shape), elements).unwrap_or_else(|_| ArrayD::from_elem(IxDyn(&[0]), F::ZERO))
    }

    /// The single element.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] where there is not exactly one.
    pub fn item(&self) -> Result<F> {
        match self.elements() {
            [value] => Ok(*value),
            _ => Err(Error::ShapeRule {
                operation: "item",
                argument: "tensor",
                expected: "exactly one element".into(),
                got: self.shape.to_vec(),
            }),
        }
    }

    /// The elements in row-major order.
    pub(crate) fn elements(&self) -> &[F] {
        match &self.elements {
            Storage::Borrowed(elements) => elements,
            Storage::Shared(elements) => &elements.0,
        }
    }
}

impl<F: Scalar> Tensor for NdTensor<'_, F> {
    type Context = ();

    fn context(&self) {}
    fn shape(&self) -> Shape {
        self.shape.to_vec()
    }
    fn dtype(&self) -> DType {
        F::DTYPE
    }
    fn literal((): &(), literal: Literal<'_>, shape: &[usize]) -> Result<Self> {
        Ok(Self::of_elements(literal.elements(kernels::count(shape)), shape.into()))
    }
    fn detach(&self) -> Self {
        self.with_node(None)
    }
    fn fuses(&self) -> bool {
        true
    }
    fn apply(op: &Op, inputs: &[&Self], shape: &[usize]) -> Result<Option<Self>> {
        if !kernels::runs(op, inputs.len()) {
            return Ok(None);
        }
        let is_recorded = inputs.iter().any(|input| input.node.is_some());
        if let (Op::Reshape(_), [input]) = (op, inputs) {
            // The elements are shared.
            let node = is_recorded.then(|| Node::operation(op, inputs, None));
            return Ok(Some(NdTensor { elements: input.elements.clone(), shape: shape.into(), node }));
        }
        let arrays: Vec<Array<'_, F>> =
            inputs.iter().map(|input| Array { shape: &input.shape, data: input.elements() }).collect();
        if !is_recorded {
            return Ok(Some(Self::of_elements(kernels::evaluate(op, &arrays, shape), shape.into())));
        }
        // The gradients of a sum take no more than its value: they come along.
        let wanted: Vec<bool> = inputs.iter().map(|input| input.node.is_some()).collect();
        let (value, gradients) = match kernels::sum_and_gradients(op, &arrays, &wanted) {
            Some((value, gradients)) => (value, Some(gradients)),
            None => (kernels::evaluate(op, &arrays, shape), None),
        };
        let node = Node::operation(op, inputs, gradients);
        Ok(Some(Self::of_elements(value, shape.into()).with_node(Some(node))))
    }
}
