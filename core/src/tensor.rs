//! The tensor trait that every loss is written against.

use std::sync::Arc;

use crate::broadcast::broadcast_all;
use crate::linear::LinearMap;
use crate::op::{Arithmetic, Op, Selection, check_arity, perform};
use crate::{
    Conv2d, Error, Expr, Function, Pointwise, Pool2d, Result, Scalar, Shape, Unary, check_length, checked_count,
};

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE half precision.
    F16,
    /// Half precision with the exponent range of single precision.
    BF16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl DType {
    /// The smallest positive normal number.
    pub fn smallest_normal(self) -> f64 {
        match self {
            DType::F16 => 6.103_515_625e-5,
            DType::BF16 | DType::F32 => f64::from(f32::MIN_POSITIVE),
            DType::F64 => f64::MIN_POSITIVE,
        }
    }
}

/// How [`Tensor::map_reduce`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// The map itself.
    Map,
    /// Its sum, a tensor with one element and no axes.
    Sum,
}

/// How [`Tensor::resize`] reads between pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// The nearest pixel to the left (`torch`'s `nearest`).
    Nearest,
    /// Linear in each direction.
    Bilinear {
        /// Corner pixels' centres coincide.
        align_corners: bool,
    },
    /// Cubic convolution with a = −0.75 in each direction.
    Bicubic {
        /// Corner pixels' centres coincide.
        align_corners: bool,
    },
}

/// What a tensor is made of.
#[derive(Clone, Copy, Debug)]
pub enum Literal<'a> {
    /// Elements, row-major.
    Elements(&'a [f64]),
    /// Elements in single precision that are shared, such as a network's weights.
    Shared(&'a Arc<[f32]>),
    /// One number, repeated.
    Filled(f64),
}

impl Literal<'_> {
    /// The elements of a tensor with so many, as an engine has them.
    pub fn elements<F: Scalar>(self, count: usize) -> Vec<F> {
        match self {
            Literal::Elements(elements) => elements.iter().map(|&element| F::from_f64(element)).collect(),
            Literal::Shared(elements) => elements.iter().map(|&element| F::from_f64(f64::from(element))).collect(),
            Literal::Filled(value) => vec![F::from_f64(value); count],
        }
    }
}

/// A tensor of an engine, as losses see it.
///
/// Every operation checks shapes and returns an error instead of broadcasting silently: the four arithmetic operations
/// and the selections broadcast as NumPy does, nothing else. A full reduction is a tensor with one element; code
/// over this trait must not rely on its rank.
///
/// An engine implements the six required methods, of which [`apply`](Tensor::apply) runs an [`Op`]. All others build
/// operations of it: their shape rules are the table's, and an operation that the engine declines is decomposed into others.
pub trait Tensor: Clone + Sized {
    /// What a tensor is made from: a graph, or a device and an element type.
    type Context: Clone;

    /// The context of this tensor.
    fn context(&self) -> Self::Context;
    /// The extents, outermost axis first.
    fn shape(&self) -> Shape;
    /// The element type.
    fn dtype(&self) -> DType;
    /// A tensor that carries no gradient. The literal fills the shape.
    ///
    /// # Errors
    /// The engine's own.
    fn literal(context: &Self::Context, literal: Literal<'_>, shape: &[usize]) -> Result<Self>;
    /// The same value; no gradient flows back through it.
    fn detach(&self) -> Self;
    /// Runs an operation, whose result has this shape, on inputs that fit it; `None` to decline it.
    ///
    /// # Errors
    /// The engine's own.
    fn apply(op: &Op, inputs: &[&Self], shape: &[usize]) -> Result<Option<Self>>;

    // ------------------------------------------------------------------------------------------------ provided

    /// Whether the engine runs [`Op::Custom`] on this tensor: where it does not, none need be prepared.
    fn fuses(&self) -> bool {
        false
    }

    /// A tensor of the given values, row-major, that carries no gradient.
    ///
    /// # Errors
    /// [`Error::Length`] where the values do not fill the shape.
    fn constant(context: &Self::Context, values: &[f64], shape: &[usize]) -> Result<Self> {
        check_length("constant", values.len(), shape)?;
        Self::literal(context, Literal::Elements(values), shape)
    }
    /// As [`constant`](Tensor::constant), from shared single-precision values such as a network's weights.
    ///
    /// # Errors
    /// [`Error::Length`] where the values do not fill the shape.
    fn shared_constant(context: &Self::Context, values: &Arc<[f32]>, shape: &[usize]) -> Result<Self> {
        check_length("constant", values.len(), shape)?;
        Self::literal(context, Literal::Shared(values), shape)
    }
    /// A tensor filled with `value`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for more elements than memory can hold.
    fn full(context: &Self::Context, value: f64, shape: &[usize]) -> Result<Self> {
        checked_count("full", "shape", shape)?;
        Self::literal(context, Literal::Filled(value), shape)
    }

    /// Sum, broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn add(&self, other: &Self) -> Result<Self> {
        perform(&Op::Arithmetic(Arithmetic::Add), &[self, other])
    }
    /// Difference, broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn sub(&self, other: &Self) -> Result<Self> {
        perform(&Op::Arithmetic(Arithmetic::Sub), &[self, other])
    }
    /// Product, broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn mul(&self, other: &Self) -> Result<Self> {
        perform(&Op::Arithmetic(Arithmetic::Mul), &[self, other])
    }
    /// Quotient, broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn div(&self, other: &Self) -> Result<Self> {
        perform(&Op::Arithmetic(Arithmetic::Div), &[self, other])
    }
    /// x·scale + shift.
    ///
    /// # Errors
    /// The engine's own.
    fn affine(&self, scale: f64, shift: f64) -> Result<Self> {
        perform(&Op::Affine { scale, shift }, &[self])
    }
    /// A function of each element.
    ///
    /// # Errors
    /// The engine's own.
    fn unary(&self, function: Unary) -> Result<Self> {
        perform(&Op::Unary(function), &[self])
    }
    /// `then` where `self` ≤ 0, `otherwise` where `self` > 0, NaN where `self` is NaN; broadcasting. No gradient flows
    /// back through the condition.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn if_not_positive(&self, then: &Self, otherwise: &Self) -> Result<Self> {
        perform(&Op::Select(Selection::NotPositive), &[self, then, otherwise])
    }
    /// `then` where `self` = 0, `otherwise` where it is another number, NaN where `self` is NaN; broadcasting. No gradient
    /// flows back through the condition.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn if_zero(&self, then: &Self, otherwise: &Self) -> Result<Self> {
        perform(&Op::Select(Selection::Zero), &[self, then, otherwise])
    }
    /// `then` where `self` ≤ `other`, `otherwise` where `self` > `other`, NaN where either is NaN; broadcasting. No gradient
    /// flows back through the condition.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn if_at_most(&self, other: &Self, then: &Self, otherwise: &Self) -> Result<Self> {
        perform(&Op::Select(Selection::AtMost), &[self, other, then, otherwise])
    }

    /// Sum over `axes`, which stay as extents of 1 if `keep`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for an axis that is not there, or is named twice.
    fn sum(&self, axes: &[usize], keep: bool) -> Result<Self> {
        let kept = without_axes("sum", &self.shape(), axes)?;
        dropped(self.sum_to(&kept)?, axes, keep)
    }
    /// Summed down to a shape that broadcasts to this one.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn sum_to(&self, shape: &[usize]) -> Result<Self> {
        if self.shape() == shape { Ok(self.clone()) } else { perform(&Op::SumTo(shape.to_vec()), &[self]) }
    }
    /// Euclidean norm over `axes`, which stay as extents of 1 if `keep`; derivative 0 at 0.
    ///
    /// # Errors
    /// As [`sum`](Tensor::sum).
    fn norm(&self, axes: &[usize], keep: bool) -> Result<Self> {
        let kept = without_axes("norm", &self.shape(), axes)?;
        dropped(perform(&Op::NormTo(kept), &[self])?, axes, keep)
    }
    /// Repeated along axes of extent 1 (and new leading axes) to `shape`.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn broadcast_to(&self, shape: &[usize]) -> Result<Self> {
        perform(&Op::BroadcastTo(shape.to_vec()), &[self])
    }
    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] where the numbers of elements differ.
    fn reshape(&self, shape: &[usize]) -> Result<Self> {
        perform(&Op::Reshape(shape.to_vec()), &[self])
    }
    /// Axes in another order: axis i of the result is axis `order[i]` of `self`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] where `order` is no permutation.
    fn permute(&self, order: &[usize]) -> Result<Self> {
        perform(&Op::Permute(order.to_vec()), &[self])
    }
    /// The part of `axis` from `start` that is `length` long.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] where it is not inside.
    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        perform(&Op::Narrow { axis, start, length }, &[self])
    }
    /// Zeros before and after along `axis`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for an axis that is not there.
    fn pad(&self, axis: usize, before: usize, after: usize) -> Result<Self> {
        perform(&Op::Pad { axis, before, after }, &[self])
    }
    /// Joined along `axis`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] where other extents differ, [`Error::InputCount`] for no tensors.
    fn concatenate(tensors: &[&Self], axis: usize) -> Result<Self> {
        perform(&Op::Concatenate { axis }, tensors)
    }

    /// Batched matrix product over the last two axes; the leading axes must agree. Either operand is transposed first
    /// where its flag says so.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for ranks under 2 or that differ, [`Error::ShapeMismatch`] where extents do not fit.
    fn matmul(&self, other: &Self, transpose_self: bool, transpose_other: bool) -> Result<Self> {
        perform(&Op::MatMul { transpose_left: transpose_self, transpose_right: transpose_other }, &[self, other])
    }
    /// 2-D convolution (cross-correlation) of (N, C, H, W) with (O, C / groups, KH, KW), without bias.
    ///
    /// # Errors
    /// As [`Conv2d::output_shape`].
    fn convolve(&self, weight: &Self, geometry: Conv2d) -> Result<Self> {
        perform(&Op::Convolve(geometry), &[self, weight])
    }
    /// [`convolve`](Tensor::convolve) and a bias per output channel.
    ///
    /// # Errors
    /// As [`convolve`](Tensor::convolve), and [`Error::ShapeMismatch`] for a bias of another length.
    fn conv2d(&self, weight: &Self, bias: Option<&Self>, geometry: Conv2d) -> Result<Self> {
        let inputs: Vec<&Self> = [self, weight].into_iter().chain(bias).collect();
        perform(&Op::Convolve(geometry), &inputs)
    }
    /// 2-D maximum pooling; the gradient goes to the first maximum of each window.
    ///
    /// # Errors
    /// As [`Pool2d::output_shape`].
    fn max_pool2d(&self, pool: Pool2d) -> Result<Self> {
        perform(&Op::MaxPool(pool), &[self])
    }

    /// One fused operation: `scale` · f(inputs) · weight, as a map or summed.
    ///
    /// A weight of exactly 0 takes the element out: the map, its derivatives and the derivative by the weight are 0 there,
    /// whatever the inputs hold. Engines that compose tensor operations evaluate f at (1/2, 1/3, 1/4, …) there, where
    /// it must be finite with its derivatives.
    ///
    /// With a `factor`, of one element, times that; a factor of 0 takes everything out. The gradient of a weighted mean so
    /// comes from one pass, whatever the weights' sum is.
    ///
    /// Inputs and weight have the shape of the largest, or one channel (extent 1 on axis 1) where it has more; the
    /// weight may also have one element per sample or one in all.
    ///
    /// # Errors
    /// [`Error::InputCount`] for another number of inputs than the function takes, [`Error::Broadcast`].
    fn map_reduce(
        function: &Function,
        inputs: &[&Self],
        weight: Option<&Self>,
        factor: Option<&Self>,
        scale: f64,
        extent: Extent,
    ) -> Result<Self> {
        check_arity(function, inputs.len())?;
        if let Some(factor) = factor {
            one_element(&factor.shape())?;
        }
        let operands: Vec<&Self> = inputs.iter().copied().chain(weight).chain(factor).collect();
        let (function, partial, weighted) = (function.clone(), Vec::new(), weight.is_some());
        perform(&Op::Map { function, partial, scale, weighted, extent }, &operands)
    }

    /// A pointwise function of several tensors, which broadcast as for [`map_reduce`](Tensor::map_reduce).
    ///
    /// # Errors
    /// As [`map_reduce`](Tensor::map_reduce).
    fn pointwise(function: &Function, inputs: &[&Self]) -> Result<Self> {
        Self::map_reduce(function, inputs, None, None, 1.0, Extent::Map)
    }

    /// `scale` · f(inputs) summed over each sample: (N) from inputs of (N, …), which broadcast as for
    /// [`map_reduce`](Tensor::map_reduce).
    ///
    /// # Errors
    /// As [`map_reduce`](Tensor::map_reduce).
    fn map_sample_sums(function: &Function, inputs: &[&Self], scale: f64) -> Result<Self> {
        check_arity(function, inputs.len())?;
        let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape()).collect();
        let full = broadcast_all("pointwise", &shapes)?;
        let samples = full.first().copied().unwrap_or(1);
        let shape = full.iter().enumerate().map(|(axis, &extent)| if axis == 0 { extent } else { 1 }).collect();
        let (function, partial) = (function.clone(), Vec::new());
        perform(&Op::MapTo { function, partial, scale, weighted: false, shape }, inputs)?.reshape(&[samples])
    }

    /// `self`, and `value` where `weight` is exactly 0; broadcasting. No gradient flows back from there, nor to the weight.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn unless_zero(&self, weight: &Self, value: f64) -> Result<Self> {
        perform(&Op::UnlessZero(value), &[self, weight])
    }

    /// `self` · `weight`, and exactly 0 where `weight` is exactly 0, whatever `self` holds there; so are all derivatives.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn weighted(&self, weight: &Self) -> Result<Self> {
        self.unless_zero(weight, 0.0)?.mul(&weight.unless_zero(weight, 0.0)?)
    }

    /// (x − y)², broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn squared_difference(&self, other: &Self) -> Result<Self> {
        perform(&Op::SquaredDifference, &[self, other])
    }

    /// h(x − y), broadcasting, with h the function of [`Expr::huber`].
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn huber_difference(&self, other: &Self, delta: f64) -> Result<Self> {
        perform(&Op::HuberDifference(delta), &[self, other])
    }

    /// √(x² + `square`), `square` > 0.
    ///
    /// # Errors
    /// The engine's own.
    fn hypotenuse(&self, square: f64) -> Result<Self> {
        perform(&Op::Hypotenuse(square), &[self])
    }

    /// A linear map along `axis`; the axis must have the map's number of inputs.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] where it has not.
    fn linear(&self, axis: usize, map: &Arc<LinearMap>) -> Result<Self> {
        perform(&Op::Linear { axis, map: Arc::clone(map) }, &[self])
    }

    /// The discrete Fourier transform of images (…, H, W): X = Σ x·e^(−2πi(hu/H + wv/W)) for u below H and v up to ⌊W/2⌋, as
    /// (…, H, ⌊W/2⌋ + 1, 2), real and imaginary parts: `torch.view_as_real(torch.fft.rfft2(x))`. Times 1/√(HW) it is PyTorch's
    /// with `norm="ortho"`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for less than two axes or images without pixels.
    fn rfft2(&self) -> Result<Self> {
        perform(&Op::RealFft, &[self])
    }

    /// The same in the type that sums are accumulated in: single precision for a half-precision tensor, else itself.
    ///
    /// # Errors
    /// The engine's own.
    fn accumulator(&self) -> Result<Self> {
        match self.dtype() {
            DType::F16 | DType::BF16 => perform(&Op::Cast(DType::F32), &[self]),
            DType::F32 | DType::F64 => Ok(self.clone()),
        }
    }
    /// The same in `other`'s element type; undoes [`accumulator`](Tensor::accumulator).
    ///
    /// # Errors
    /// The engine's own.
    fn cast_like(&self, other: &Self) -> Result<Self> {
        if self.dtype() == other.dtype() { Ok(self.clone()) } else { perform(&Op::Cast(other.dtype()), &[self]) }
    }
    /// The number of elements.
    fn elements(&self) -> usize {
        self.shape().iter().product()
    }
    /// The number of axes.
    fn rank(&self) -> usize {
        self.shape().len()
    }
    /// x·factor.
    ///
    /// # Errors
    /// The engine's own.
    fn scale(&self, factor: f64) -> Result<Self> {
        self.affine(factor, 0.0)
    }
    /// x + constant.
    ///
    /// # Errors
    /// The engine's own.
    fn shift(&self, constant: f64) -> Result<Self> {
        self.affine(1.0, constant)
    }
    /// −x.
    ///
    /// # Errors
    /// The engine's own.
    fn neg(&self) -> Result<Self> {
        self.affine(-1.0, 0.0)
    }
    /// x where x > 0, else `slope`·x.
    ///
    /// # Errors
    /// The engine's own.
    fn leaky_relu(&self, slope: f64) -> Result<Self> {
        Self::pointwise(&Function::new(LeakyRelu { slope }), &[self])
    }
    /// Sum of all elements: a tensor with one element.
    ///
    /// # Errors
    /// The engine's own.
    fn sum_all(&self) -> Result<Self> {
        let axes: Vec<usize> = (0..self.rank()).collect();
        self.sum(&axes, false)
    }
    /// Mean of all elements: a tensor with one element.
    ///
    /// # Errors
    /// [`Error::Empty`] where there is none.
    fn mean_all(&self) -> Result<Self> {
        let axes: Vec<usize> = (0..self.rank()).collect();
        self.mean(&axes, false)
    }
    /// Mean over `axes`.
    ///
    /// # Errors
    /// As [`sum`](Tensor::sum), and [`Error::Empty`] where there is nothing to average.
    fn mean(&self, axes: &[usize], keep: bool) -> Result<Self> {
        let shape = self.shape();
        let sum = self.sum(axes, keep)?;
        let count: usize = axes.iter().map(|&axis| shape[axis]).product();
        if count == 0 {
            return Err(Error::Empty { operation: "mean", argument: "input", got: shape });
        }
        sum.scale(1.0 / count as f64)
    }
    /// 2-D average pooling of (N, C, H, W) by a window that steps by its own size, without padding.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a rank other than 4 or a window larger than the image.
    fn avg_pool2d(&self, size: [usize; 2]) -> Result<Self> {
        perform(&Op::AveragePool { size }, &[self])
    }
    /// 2-D average pooling of (N, C, H, W) to a fixed size (`torch`'s windows, which may overlap).
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a rank other than 4 or an empty image.
    fn adaptive_avg_pool2d(&self, size: [usize; 2]) -> Result<Self> {
        perform(&Op::AdaptiveAveragePool { size }, &[self])
    }
    /// (N, C, H, W) resampled to another size.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a rank other than 4 or an empty image.
    fn resize(&self, size: [usize; 2], interpolation: Interpolation) -> Result<Self> {
        perform(&Op::Resize { size, interpolation }, &[self])
    }
    /// Softmax over the last axis.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a tensor without axes.
    fn softmax(&self) -> Result<Self> {
        perform(&Op::Softmax, &[self])
    }
}

/// The shape with an extent of 1 on each of the axes, which must be there, each once.
fn without_axes(operation: &'static str, shape: &[usize], axes: &[usize]) -> Result<Shape> {
    let mut kept = shape.to_vec();
    for (i, &axis) in axes.iter().enumerate() {
        if axis >= shape.len() || axes[..i].contains(&axis) {
            return Err(Error::ShapeRule {
                operation,
                argument: "input",
                expected: format!("the axes {axes:?}, each once"),
                got: shape.to_vec(),
            });
        }
        kept[axis] = 1;
    }
    Ok(kept)
}

/// Without the axes, unless they are to be kept.
fn dropped<T: Tensor>(tensor: T, axes: &[usize], keep: bool) -> Result<T> {
    if keep || axes.is_empty() {
        return Ok(tensor);
    }
    let shape = tensor.shape();
    let left: Shape = (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    tensor.reshape(&left)
}

/// Refuses a factor of several elements.
fn one_element(shape: &[usize]) -> Result<()> {
    if shape.iter().all(|&extent| extent == 1) {
        return Ok(());
    }
    let (operation, expected) = ("pointwise", "one element".to_owned());
    Err(Error::ShapeRule { operation, argument: "factor", expected, got: shape.to_vec() })
}

/// x where x > 0, else slope·x.
#[derive(Clone, Copy, Debug)]
struct LeakyRelu {
    slope: f64,
}

impl Pointwise<1> for LeakyRelu {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        x.leaky_relu(self.slope)
    }
}

/// A tensor whose engine differentiates, to any order.
pub trait Differentiable: Tensor {
    /// The same value, detached, that gradients can be asked for.
    ///
    /// # Errors
    /// The engine's own.
    fn leaf(&self) -> Result<Self>;
    /// The gradients of the sum of `output`'s elements with respect to `inputs`; `None` for an input without
    /// influence. With `create_graph`, the gradients can be differentiated in turn.
    ///
    /// # Errors
    /// The engine's own.
    fn gradients(output: &Self, inputs: &[&Self], create_graph: bool) -> Result<Vec<Option<Self>>>;
}
