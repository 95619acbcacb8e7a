//! One tensor type for all enabled engines: what losses built from data are evaluated with.
// Without an engine there is no tensor, and most arms are gone.
#![cfg_attr(
    not(any(feature = "ndarray", feature = "autograd", feature = "tch")),
    allow(unused_variables, unused_macros, unused_imports, dead_code, unreachable_code)
)]

use std::marker::PhantomData;

use image_losses_core::{DType, Differentiable, Error, Literal, Op, Result, Shape, Tensor};

/// A tensor of any enabled engine.
///
/// Losses built from a configuration are evaluated with this type, so that one compiled loss serves every engine; each
/// operation is passed on. Operands of one operation must come from one engine and have one element type. Convert
/// with `From`, and back by matching.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AnyTensor<'g> {
    /// ndarray, single precision.
    #[cfg(feature = "ndarray")]
    NdF32(image_losses_ndarray::NdTensor<'g, f32>),
    /// ndarray, double precision.
    #[cfg(feature = "ndarray")]
    NdF64(image_losses_ndarray::NdTensor<'g, f64>),
    /// autograd, single precision.
    #[cfg(feature = "autograd")]
    AgF32(image_losses_autograd::AgTensor<'g, f32>),
    /// autograd, double precision.
    #[cfg(feature = "autograd")]
    AgF64(image_losses_autograd::AgTensor<'g, f64>),
    /// tch.
    #[cfg(feature = "tch")]
    Tch(image_losses_tch::TchTensor),
    /// No engine: there is no such value.
    #[doc(hidden)]
    Never(Never, PhantomData<&'g ()>),
}

/// What an [`AnyTensor`] is made from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AnyContext<'g> {
    /// ndarray, single precision.
    #[cfg(feature = "ndarray")]
    NdF32,
    /// ndarray, double precision.
    #[cfg(feature = "ndarray")]
    NdF64,
    /// An autograd graph, single precision.
    #[cfg(feature = "autograd")]
    AgF32(GraphRef<'g, f32>),
    /// An autograd graph, double precision.
    #[cfg(feature = "autograd")]
    AgF64(GraphRef<'g, f64>),
    /// tch: element type and device.
    #[cfg(feature = "tch")]
    Tch(<image_losses_tch::TchTensor as Tensor>::Context),
    /// No engine: there is no such value.
    #[doc(hidden)]
    Never(Never, PhantomData<&'g ()>),
}

/// A reference to an autograd graph, which has no `Debug` of its own.
#[cfg(feature = "autograd")]
#[derive(Clone, Copy)]
pub struct GraphRef<'g, F: image_losses_autograd::Element>(pub &'g image_losses_autograd::Graph<F>);

#[cfg(feature = "autograd")]
impl<F: image_losses_autograd::Element> std::fmt::Debug for GraphRef<'_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GraphRef")
    }
}

/// A type without values.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Never {}

#[cfg(feature = "ndarray")]
impl<'g> From<image_losses_ndarray::NdTensor<'g, f32>> for AnyTensor<'g> {
    fn from(tensor: image_losses_ndarray::NdTensor<'g, f32>) -> Self {
        AnyTensor::NdF32(tensor)
    }
}
#[cfg(feature = "ndarray")]
impl<'g> From<image_losses_ndarray::NdTensor<'g, f64>> for AnyTensor<'g> {
    fn from(tensor: image_losses_ndarray::NdTensor<'g, f64>) -> Self {
        AnyTensor::NdF64(tensor)
    }
}
#[cfg(feature = "autograd")]
impl<'g> From<image_losses_autograd::AgTensor<'g, f32>> for AnyTensor<'g> {
    fn from(tensor: image_losses_autograd::AgTensor<'g, f32>) -> Self {
        AnyTensor::AgF32(tensor)
    }
}
#[cfg(feature = "autograd")]
impl<'g> From<image_losses_autograd::AgTensor<'g, f64>> for AnyTensor<'g> {
    fn from(tensor: image_losses_autograd::AgTensor<'g, f64>) -> Self {
        AnyTensor::AgF64(tensor)
    }
}
#[cfg(feature = "tch")]
impl From<image_losses_tch::TchTensor> for AnyTensor<'_> {
    fn from(tensor: image_losses_tch::TchTensor) -> Self {
        AnyTensor::Tch(tensor)
    }
}

/// Operands of different engines or element types met in one operation.
fn mixed() -> Error {
    Error::Unsupported { operation: "an operation on tensors of different engines or element types", engine: "any" }
}

/// Does `$body` with the engine's tensor; `$wrap` names the variant again.
macro_rules! each {
    ($self:expr, $tensor:ident, $wrap:ident => $body:expr) => {
        match $self {
            #[cfg(feature = "ndarray")]
            AnyTensor::NdF32($tensor) => {
                #[allow(unused)]
                use AnyTensor::NdF32 as $wrap;
                $body
            }
            #[cfg(feature = "ndarray")]
            AnyTensor::NdF64($tensor) => {
                #[allow(unused)]
                use AnyTensor::NdF64 as $wrap;
                $body
            }
            #[cfg(feature = "autograd")]
            AnyTensor::AgF32($tensor) => {
                #[allow(unused)]
                use AnyTensor::AgF32 as $wrap;
                $body
            }
            #[cfg(feature = "autograd")]
            AnyTensor::AgF64($tensor) => {
                #[allow(unused)]
                use AnyTensor::AgF64 as $wrap;
                $body
            }
            #[cfg(feature = "tch")]
            AnyTensor::Tch($tensor) => {
                #[allow(unused)]
                use AnyTensor::Tch as $wrap;
                $body
            }
            AnyTensor::Never(never, _) => match *never {},
        }
    };
}

/// As `each!`, with further tensors of the same engine: `$others` becomes a vector of references to them.
macro_rules! together {
    ($first:expr, $list:expr, $tensor:ident, $others:ident, $wrap:ident => $body:expr) => {{
        let list: &[&AnyTensor<'_>] = $list;
        each!($first, $tensor, $wrap => {
            let $others = list
                .iter()
                .map(|other| match other {
                    $wrap(other) => Ok(other),
                    #[allow(unreachable_patterns)]
                    _ => Err(mixed()),
                })
                .collect::<Result<Vec<_>>>()?;
            $body
        })
    }};
}

/// Calls a constructor of the tensor type behind an [`AnyContext`].
macro_rules! construct {
    ($context:expr, $method:ident($($argument:expr),*)) => {
        match $context {
            #[cfg(feature = "ndarray")]
            AnyContext::NdF32 => {
                image_losses_ndarray::NdTensor::<f32>::$method(&(), $($argument),*).map(AnyTensor::NdF32)
            }
            #[cfg(feature = "ndarray")]
            AnyContext::NdF64 => {
                image_losses_ndarray::NdTensor::<f64>::$method(&(), $($argument),*).map(AnyTensor::NdF64)
            }
            #[cfg(feature = "autograd")]
            AnyContext::AgF32(graph) => {
                image_losses_autograd::AgTensor::<f32>::$method(&graph.0, $($argument),*).map(AnyTensor::AgF32)
            }
            #[cfg(feature = "autograd")]
            AnyContext::AgF64(graph) => {
                image_losses_autograd::AgTensor::<f64>::$method(&graph.0, $($argument),*).map(AnyTensor::AgF64)
            }
            #[cfg(feature = "tch")]
            AnyContext::Tch(context) => {
                image_losses_tch::TchTensor::$method(context, $($argument),*).map(AnyTensor::Tch)
            }
            AnyContext::Never(never, _) => match *never {},
        }
    };
}

impl AnyTensor<'_> {
    /// The engine's name.
    pub fn engine(&self) -> &'static str {
        match self {
            #[cfg(feature = "ndarray")]
            AnyTensor::NdF32(_) | AnyTensor::NdF64(_) => "ndarray",
            #[cfg(feature = "autograd")]
            AnyTensor::AgF32(_) | AnyTensor::AgF64(_) => "autograd",
            #[cfg(feature = "tch")]
            AnyTensor::Tch(_) => "tch",
            AnyTensor::Never(never, _) => match *never {},
        }
    }
}

impl<'g> AnyTensor<'g> {
    /// The values, row-major, on an engine that has them at hand. On a graph its session evaluates the tensors inside the
    /// variants, many at once.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a graph, the engine's own.
    pub fn values(&self) -> Result<Vec<f64>> {
        match self {
            #[cfg(feature = "ndarray")]
            AnyTensor::NdF32(tensor) => Ok(tensor.array().iter().map(|&value| f64::from(value)).collect()),
            #[cfg(feature = "ndarray")]
            AnyTensor::NdF64(tensor) => Ok(tensor.array().iter().copied().collect()),
            #[cfg(feature = "autograd")]
            AnyTensor::AgF32(_) | AnyTensor::AgF64(_) => {
                Err(Error::Unsupported { operation: "reading a value without a session", engine: self.engine() })
            }
            #[cfg(feature = "tch")]
            AnyTensor::Tch(tensor) => tensor.values(),
            AnyTensor::Never(never, _) => match *never {},
        }
    }
}

impl<'g> Tensor for AnyTensor<'g> {
    type Context = AnyContext<'g>;

    fn context(&self) -> Self::Context {
        match self {
            #[cfg(feature = "ndarray")]
            AnyTensor::NdF32(_) => AnyContext::NdF32,
            #[cfg(feature = "ndarray")]
            AnyTensor::NdF64(_) => AnyContext::NdF64,
            #[cfg(feature = "autograd")]
            AnyTensor::AgF32(tensor) => AnyContext::AgF32(GraphRef(tensor.context())),
            #[cfg(feature = "autograd")]
            AnyTensor::AgF64(tensor) => AnyContext::AgF64(GraphRef(tensor.context())),
            #[cfg(feature = "tch")]
            AnyTensor::Tch(tensor) => AnyContext::Tch(tensor.context()),
            AnyTensor::Never(never, _) => match *never {},
        }
    }
    fn shape(&self) -> Shape {
        each!(self, tensor, Wrap => tensor.shape())
    }
    fn dtype(&self) -> DType {
        each!(self, tensor, Wrap => tensor.dtype())
    }
    fn literal(context: &Self::Context, literal: Literal<'_>, shape: &[usize]) -> Result<Self> {
        construct!(context, literal(literal, shape))
    }
    fn detach(&self) -> Self {
        each!(self, tensor, Wrap => Wrap(tensor.detach()))
    }
    fn fuses(&self) -> bool {
        each!(self, tensor, _Wrap => tensor.fuses())
    }
    fn apply(op: &Op, inputs: &[&Self], shape: &[usize]) -> Result<Option<Self>> {
        let Some(first) = inputs.first() else { return Ok(None) };
        // What the engine declines is decomposed into operations of this type: they come here again.
        together!(first, inputs, _first, tensors, Wrap => Ok(apply(&tensors, op, shape)?.map(Wrap)))
    }
}

/// [`Tensor::apply`] of the type of the tensors.
fn apply<T: Tensor>(tensors: &[&T], op: &Op, shape: &[usize]) -> Result<Option<T>> {
    T::apply(op, tensors, shape)
}

impl Differentiable for AnyTensor<'_> {
    fn leaf(&self) -> Result<Self> {
        each!(self, tensor, Wrap => tensor.leaf().map(Wrap))
    }

    fn gradients(output: &Self, inputs: &[&Self], create_graph: bool) -> Result<Vec<Option<Self>>> {
        together!(output, inputs, output, others, Wrap => {
            let gradients = Differentiable::gradients(output, &others, create_graph)?;
            Ok(gradients.into_iter().map(|gradient| gradient.map(Wrap)).collect())
        })
    }
}
