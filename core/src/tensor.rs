//! The tensor trait that every loss is written against.

use std::sync::Arc;

use crate::kernels::broadcast::broadcast_shape;
use crate::linear::LinearMap;
use crate::primitive::FusedOperation;
use crate::shape::checked_count;
use crate::{Conv2d, Error, Expr, Function, Pointwise, Pool2d, Result, Shape};

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

/// A function of one tensor, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// |x|; derivative 0 at 0.
    Abs,
    /// sign(x); derivative 0.
    Sign,
    /// x².
    Square,
    /// √x.
    Sqrt,
    /// eˣ.
    Exp,
    /// Natural logarithm.
    Ln,
    /// Hyperbolic tangent.
    Tanh,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
    /// ln(1 + eˣ), without overflow.
    Softplus,
    /// −ln(1 + e⁻ˣ), without overflow: the logarithm of the sigmoid.
    LogSigmoid,
    /// max(0, x); derivative 0 at 0, NaN at NaN.
    Relu,
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

/// A tensor of an engine, as losses see it.
///
/// Every operation checks shapes and returns an error instead of broadcasting silently: the four arithmetic operations
/// and the two selections broadcast as NumPy does, nothing else. A full reduction is a tensor with one element; code
/// over this trait must not rely on its rank.
///
/// An engine implements the required methods; the provided ones are correct compositions of them, differentiable
/// wherever the engine is, and may be overridden with something fused. CPU engines implement
/// [`PrimitiveTensor`](crate::PrimitiveTensor) instead and receive all of this.
pub trait Tensor: Clone + Sized {
    /// What a tensor is made from: a graph, or a device and an element type.
    type Context: Clone;

    /// The context of this tensor.
    fn context(&self) -> Self::Context;
    /// The extents, outermost axis first.
    fn shape(&self) -> Shape;
    /// The element type.
    fn dtype(&self) -> DType;
    /// A tensor of the given values, row-major, that carries no gradient.
    ///
    /// # Errors
    /// [`Error::Length`] where the values do not fill the shape.
    fn constant(context: &Self::Context, values: &[f64], shape: &[usize]) -> Result<Self>;
    /// As [`constant`](Tensor::constant), from shared single-precision values such as a network's weights.
    ///
    /// # Errors
    /// [`Error::Length`] where the values do not fill the shape.
    fn shared_constant(context: &Self::Context, values: &Arc<[f32]>, shape: &[usize]) -> Result<Self> {
        let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        Self::constant(context, &values, shape)
    }
    /// The same value; no gradient flows back through it.
    fn detach(&self) -> Self;

    /// Sum, broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn add(&self, other: &Self) -> Result<Self>;
    /// Difference, broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn sub(&self, other: &Self) -> Result<Self>;
    /// Product, broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn mul(&self, other: &Self) -> Result<Self>;
    /// Quotient, broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn div(&self, other: &Self) -> Result<Self>;
    /// x·scale + shift.
    ///
    /// # Errors
    /// The engine's own.
    fn affine(&self, scale: f64, shift: f64) -> Result<Self>;
    /// A function of each element.
    ///
    /// # Errors
    /// The engine's own.
    fn unary(&self, function: Unary) -> Result<Self>;
    /// `then` where `self` ≤ 0, `otherwise` where `self` > 0, NaN where `self` is NaN; broadcasting. No gradient flows
    /// back through the condition.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn if_not_positive(&self, then: &Self, otherwise: &Self) -> Result<Self>;
    /// `then` where `self` = 0, `otherwise` where it is another number, NaN where `self` is NaN; broadcasting. No gradient
    /// flows back through the condition.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn if_zero(&self, then: &Self, otherwise: &Self) -> Result<Self>;

    /// Sum over `axes`, which stay as extents of 1 if `keep`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for an axis that is not there, or is named twice.
    fn sum(&self, axes: &[usize], keep: bool) -> Result<Self>;
    /// Repeated along axes of extent 1 (and new leading axes) to `shape`.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn broadcast_to(&self, shape: &[usize]) -> Result<Self>;
    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] where the numbers of elements differ.
    fn reshape(&self, shape: &[usize]) -> Result<Self>;
    /// Axes in another order: axis i of the result is axis `order[i]` of `self`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] where `order` is no permutation.
    fn permute(&self, order: &[usize]) -> Result<Self>;
    /// The part of `axis` from `start` that is `length` long.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] where it is not inside.
    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self>;
    /// Zeros before and after along `axis`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for an axis that is not there.
    fn pad(&self, axis: usize, before: usize, after: usize) -> Result<Self>;
    /// Joined along `axis`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] where other extents differ, [`Error::InputCount`] for no tensors.
    fn concatenate(tensors: &[&Self], axis: usize) -> Result<Self>;

    /// Batched matrix product over the last two axes; the leading axes must agree. Either operand is transposed first
    /// where its flag says so.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for ranks under 2 or that differ, [`Error::ShapeMismatch`] where extents do not fit.
    fn matmul(&self, other: &Self, transpose_self: bool, transpose_other: bool) -> Result<Self>;
    /// 2-D convolution (cross-correlation) of (N, C, H, W) with (O, C / groups, KH, KW), without bias.
    ///
    /// # Errors
    /// As [`Conv2d::output_shape`].
    fn convolve(&self, weight: &Self, geometry: Conv2d) -> Result<Self>;
    /// 2-D maximum pooling; the gradient goes to the first maximum of each window.
    ///
    /// # Errors
    /// As [`Pool2d::output_shape`].
    fn max_pool2d(&self, pool: Pool2d) -> Result<Self>;

    // ------------------------------------------------------------------------------------------------ provided

    /// One fused operation: `scale` · f(inputs) · weight, as a map or summed.
    ///
    /// A weight of exactly 0 takes the element out: the map, its derivatives and the derivative by the weight are 0 there,
    /// whatever the inputs hold. Engines that compose tensor operations evaluate f at (1/2, 1/3, 1/4, …) there, where
    /// it must be finite with its derivatives.
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
        scale: f64,
        extent: Extent,
    ) -> Result<Self> {
        check_arity(function, inputs.len())?;
        let (mut map, factor) = match weight {
            None => function.compose(inputs)?,
            Some(weight) => weighted_map(function, inputs, weight)?,
        };
        if extent == Extent::Sum {
            map = map.sum_all()?;
        }
        let scale = scale * factor;
        if scale == 1.0 { Ok(map) } else { map.scale(scale) }
    }

    /// A pointwise function of several tensors, which broadcast as for [`map_reduce`](Tensor::map_reduce).
    ///
    /// # Errors
    /// As [`map_reduce`](Tensor::map_reduce).
    fn pointwise(function: &Function, inputs: &[&Self]) -> Result<Self> {
        Self::map_reduce(function, inputs, None, 1.0, Extent::Map)
    }

    /// `scale` · f(inputs) summed over each sample: (N) from inputs of (N, …), which broadcast as for
    /// [`map_reduce`](Tensor::map_reduce).
    ///
    /// # Errors
    /// As [`map_reduce`](Tensor::map_reduce).
    fn map_sample_sums(function: &Function, inputs: &[&Self], scale: f64) -> Result<Self> {
        let map = Self::map_reduce(function, inputs, None, 1.0, Extent::Map)?;
        let axes: Vec<usize> = (1..map.rank()).collect();
        map.sum(&axes, false)?.scale(scale)
    }

    /// `self`, and `value` where `weight` is exactly 0; broadcasting. No gradient flows back from there, nor to the weight.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn unless_zero(&self, weight: &Self, value: f64) -> Result<Self> {
        weight.if_zero(&Self::constant(&self.context(), &[value], &[1])?, self)
    }

    /// `self` · `weight`, and exactly 0 where `weight` is exactly 0, whatever `self` holds there; so are all derivatives.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn weighted(&self, weight: &Self) -> Result<Self> {
        self.unless_zero(weight, 0.0)?.mul(&weight.unless_zero(weight, 0.0)?)
    }

    /// `then` where `self` ≤ `other`, `otherwise` where `self` > `other`, NaN where either is NaN; broadcasting. The default
    /// compares the difference with 0, which takes two equal infinities for NaN.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn if_at_most(&self, other: &Self, then: &Self, otherwise: &Self) -> Result<Self> {
        self.sub(other)?.if_not_positive(then, otherwise)
    }

    /// (x − y)², broadcasting.
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn squared_difference(&self, other: &Self) -> Result<Self> {
        self.sub(other)?.unary(Unary::Square)
    }

    /// h(x − y), broadcasting, with h the function of [`Expr::huber`].
    ///
    /// # Errors
    /// [`Error::Broadcast`].
    fn huber_difference(&self, other: &Self, delta: f64) -> Result<Self> {
        let difference = self.sub(other)?;
        let ones = vec![1; difference.rank()];
        let bound = |value: f64| Self::constant(&self.context(), &[value], &ones);
        let (low, high) = (bound(-delta)?, bound(delta)?);
        let clipped = difference.sub(&high)?.if_not_positive(&difference, &high)?;
        let clipped = clipped.sub(&low)?.if_not_positive(&low, &clipped)?;
        clipped.mul(&difference.sub(&clipped.scale(0.5)?)?)
    }

    /// √(x² + `square`), `square` > 0.
    ///
    /// # Errors
    /// The engine's own.
    fn hypotenuse(&self, square: f64) -> Result<Self> {
        self.unary(Unary::Square)?.shift(square)?.unary(Unary::Sqrt)
    }

    /// A linear map along `axis`; the axis must have the map's number of inputs.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] where it has not.
    fn linear(&self, axis: usize, map: &Arc<LinearMap>) -> Result<Self> {
        // A dense matrix product over the moved axis; the CPU engines use the sparse rows.
        let shape = self.shape();
        map.output_shape(&shape, axis)?;
        let matrix = Self::matrix(&self.context(), map)?;
        let mut order: Vec<usize> = (0..shape.len()).filter(|&a| a != axis).collect();
        order.insert(0, axis);
        let rest: usize = order[1..].iter().map(|&a| shape[a]).product();
        let product = matrix.matmul(&self.permute(&order)?.reshape(&[map.inputs(), rest])?, false, false)?;
        let moved: Shape = order.iter().map(|&a| if a == axis { map.outputs() } else { shape[a] }).collect();
        let mut back = vec![0; order.len()];
        for (position, &axis) in order.iter().enumerate() {
            back[axis] = position;
        }
        product.reshape(&moved)?.permute(&back)
    }

    /// A linear map as a constant matrix (outputs, inputs), which an engine may keep.
    ///
    /// # Errors
    /// The engine's own.
    fn matrix(context: &Self::Context, map: &Arc<LinearMap>) -> Result<Self> {
        Self::constant(context, &map.to_dense(), &[map.outputs(), map.inputs()])
    }

    /// An operation with kernels of its own, where the engine runs such; `None` where the caller must compose it. See
    /// [`fuses`](Tensor::fuses).
    fn fused(operation: &Arc<dyn FusedOperation>, inputs: &[&Self]) -> Option<Result<Self>> {
        let _ = (operation, inputs);
        None
    }

    /// Whether [`fused`](Tensor::fused) runs operations on this tensor: where it does not, none need be prepared.
    fn fuses(&self) -> bool {
        false
    }

    /// The same in the type that sums are accumulated in: single precision for a half-precision tensor, else itself.
    ///
    /// # Errors
    /// The engine's own.
    fn accumulator(&self) -> Result<Self> {
        Ok(self.clone())
    }
    /// The same in `other`'s element type; undoes [`accumulator`](Tensor::accumulator).
    ///
    /// # Errors
    /// The engine's own.
    fn cast_like(&self, other: &Self) -> Result<Self> {
        let _ = other;
        Ok(self.clone())
    }
    /// A tensor filled with `value`.
    ///
    /// # Errors
    /// The engine's own.
    fn full(context: &Self::Context, value: f64, shape: &[usize]) -> Result<Self> {
        let ones = vec![1; shape.len()];
        Self::constant(context, &[value], &ones)?.broadcast_to(shape)
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
    /// Euclidean norm over `axes`, which stay as extents of 1 if `keep`; derivative 0 at 0.
    ///
    /// The default squares in the tensor's own element type, where a square may be out of range; the engines here
    /// square single precision in double precision.
    ///
    /// # Errors
    /// As [`sum`](Tensor::sum).
    fn norm(&self, axes: &[usize], keep: bool) -> Result<Self> {
        let squares = self.unary(Unary::Square)?.sum(axes, keep)?;
        Self::pointwise(&Function::unary(Unary::Sqrt), &[&squares])
    }
    /// [`convolve`](Tensor::convolve) and a bias per output channel.
    ///
    /// # Errors
    /// As [`convolve`](Tensor::convolve), and [`Error::ShapeMismatch`] for a bias of another length.
    fn conv2d(&self, weight: &Self, bias: Option<&Self>, geometry: Conv2d) -> Result<Self> {
        let out = self.convolve(weight, geometry)?;
        let Some(bias) = bias else { return Ok(out) };
        let channels = out.shape()[1];
        if bias.shape() != [channels] {
            return Err(Error::ShapeMismatch {
                operation: "conv2d",
                argument: "bias",
                expected: vec![channels],
                got: bias.shape(),
            });
        }
        out.add(&bias.reshape(&[1, channels, 1, 1])?)
    }
    /// 2-D average pooling of (N, C, H, W) by a window that steps by its own size, without padding.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a rank other than 4 or a window larger than the image.
    fn avg_pool2d(&self, size: [usize; 2]) -> Result<Self> {
        let [h, w] = image_extents(self, "avg_pool2d")?;
        self.linear(2, &LinearMap::average(h, size[0])?)?.linear(3, &LinearMap::average(w, size[1])?)
    }
    /// 2-D average pooling of (N, C, H, W) to a fixed size (`torch`'s windows, which may overlap).
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a rank other than 4 or an empty image.
    fn adaptive_avg_pool2d(&self, size: [usize; 2]) -> Result<Self> {
        let [h, w] = image_extents(self, "adaptive_avg_pool2d")?;
        checked_count("adaptive_avg_pool2d", "size", &[&self.shape()[..2], &size].concat())?;
        self.linear(2, &LinearMap::adaptive_average(h, size[0])?)?.linear(3, &LinearMap::adaptive_average(w, size[1])?)
    }
    /// (N, C, H, W) resampled to another size.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a rank other than 4 or an empty image.
    fn resize(&self, size: [usize; 2], interpolation: Interpolation) -> Result<Self> {
        let [h, w] = image_extents(self, "resize")?;
        checked_count("resize", "size", &[&self.shape()[..2], &size].concat())?;
        self.linear(2, &LinearMap::resize(h, size[0], interpolation)?)?
            .linear(3, &LinearMap::resize(w, size[1], interpolation)?)
    }
    /// Softmax over the last axis.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a tensor without axes.
    fn softmax(&self) -> Result<Self> {
        let rank = self.rank();
        if rank == 0 {
            return Err(Error::ShapeRule {
                operation: "softmax",
                argument: "input",
                expected: "rank at least 1".into(),
                got: self.shape(),
            });
        }
        if self.elements() == 0 {
            return Ok(self.clone());
        }
        // Shifted by each row's maximum, against overflow. The shift cancels, so that no gradient of any order flows
        // through it.
        let mut shape = self.shape();
        let row = std::mem::replace(&mut shape[rank - 1], 1);
        let rows = self.detach().reshape(&[1, 1, self.elements() / row, row])?;
        let window = Pool2d { size: [1, row], stride: [1, row], padding: [0; 2], ceil_mode: false };
        let exp = self.sub(&rows.max_pool2d(window)?.reshape(&shape)?)?.unary(Unary::Exp)?;
        exp.div(&exp.sum(&[rank - 1], true)?)
    }
}

/// Height and width of an image tensor.
fn image_extents<T: Tensor>(tensor: &T, operation: &'static str) -> Result<[usize; 2]> {
    let shape = tensor.shape();
    match shape[..] {
        [_, _, h, w] => Ok([h, w]),
        _ => Err(Error::ShapeRule { operation, argument: "input", expected: "rank 4 (N, C, H, W)".into(), got: shape }),
    }
}

/// f(inputs) · weight, composed of tensor operations, and the number that is left to multiply by: [`Tensor::map_reduce`]
/// before its sum. Where the weight is 0 the inputs are replaced before f sees them, so that neither its value nor any
/// derivative is 0·∞.
///
/// # Errors
/// As [`Tensor::map_reduce`].
pub fn weighted_map<T: Tensor>(function: &Function, inputs: &[&T], weight: &T) -> Result<(T, f64)> {
    // The weight does not enlarge the map.
    let mut shape = Vec::new();
    for input in inputs {
        shape = broadcast_shape("pointwise", &shape, &input.shape())?;
    }
    if broadcast_shape("pointwise", &shape, &weight.shape())? != shape {
        return Err(Error::Broadcast { operation: "pointwise", left: weight.shape(), right: shape });
    }
    let inside = |(k, input): (usize, &&T)| input.unless_zero(weight, 1.0 / (k + 2) as f64);
    let replaced = inputs.iter().enumerate().map(inside).collect::<Result<Vec<T>>>()?;
    let (map, factor) = function.compose(&replaced.iter().collect::<Vec<_>>())?;
    Ok((map.mul(&weight.unless_zero(weight, 0.0)?.cast_like(&map)?)?, factor))
}

/// Refuses another number of inputs than the function takes.
pub(crate) fn check_arity(function: &Function, got: usize) -> Result<()> {
    let expected = function.arity();
    if got == expected { Ok(()) } else { Err(Error::InputCount { operation: "pointwise", expected, got }) }
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
