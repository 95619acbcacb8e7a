//! The operations that engines run: each with its shape rule, its derivative in terms of operations, and, where it has one,
//! its decomposition into others.

mod arithmetic;
mod convolve;
mod custom;
mod fourier;
mod layout;
mod linear;
mod map;
mod matmul;
mod select;
mod softmax;

use std::sync::Arc;

use crate::broadcast::{broadcast_all, broadcast_shape};
use crate::{
    Conv2d, DType, Error, Extent, Function, Interpolation, LinearMap, Pool2d, Result, Shape, Tensor, Unary,
    checked_count,
};

pub use arithmetic::Arithmetic;
pub use custom::Custom;
pub use linear::linear_by_matrix;
pub use select::Selection;

/// An operation on tensors.
///
/// An engine runs those that it has, and declines others, which are then decomposed. It must run maps, or the elementary
/// operations that a map is composed of; `SumTo`, `BroadcastTo`, `Reshape`, `Permute`, `Narrow`, `Pad`, `Concatenate` and
/// `MatMul`; and, for what needs them, convolution and maximum pooling. The gradients of an operation are operations of this
/// table again: an engine that has all of them has derivatives of any order.
#[derive(Clone, Debug)]
pub enum Op {
    /// `scale` · ∂f · Π multipliers, as a map or summed; 0 where a multiplier is 0, whatever ∂f is. Inputs: the function's,
    /// then any number of multipliers, which do not enlarge the map's shape.
    Map {
        /// The function f.
        function: Function,
        /// The inputs f is differentiated by; empty for f itself.
        partial: Vec<usize>,
        /// The factor.
        scale: f64,
        /// The first multiplier is a weight: where it is 0, so is the gradient by it. The others are gradients and factors.
        weighted: bool,
        /// Map or sum.
        extent: Extent,
    },
    /// As `Map`, summed down to a shape that broadcasts to the map's: the gradient by an input that all channels share.
    MapTo {
        /// The function f.
        function: Function,
        /// The inputs f is differentiated by.
        partial: Vec<usize>,
        /// The factor.
        scale: f64,
        /// The first multiplier is a weight.
        weighted: bool,
        /// The shape of the result.
        shape: Shape,
    },
    /// Arithmetic of two tensors that broadcast. Elementary, as the next six.
    Arithmetic(Arithmetic),
    /// x·scale + shift.
    Affine {
        /// The factor.
        scale: f64,
        /// The summand.
        shift: f64,
    },
    /// A function of each element.
    Unary(Unary),
    /// (x − y)², broadcasting.
    SquaredDifference,
    /// h(x − y), broadcasting, with h the function of [`Expr::huber`](crate::Expr::huber) and this δ.
    HuberDifference(f64),
    /// √(x² + c), c > 0.
    Hypotenuse(f64),
    /// From (what is compared, then, otherwise): the second last where the condition holds, the last where it does not, NaN
    /// where NaN is compared; broadcasting.
    Select(Selection),
    /// From (x, weight): x, and this number where the weight is exactly 0; broadcasting.
    UnlessZero(f64),
    /// Summed down to a shape that broadcasts to the input's.
    SumTo(Shape),
    /// Euclidean norms over what is summed down to a shape; derivative 0 at 0.
    NormTo(Shape),
    /// Repeated to a shape.
    BroadcastTo(Shape),
    /// The same elements in another shape.
    Reshape(Shape),
    /// Axes in another order.
    Permute(Vec<usize>),
    /// A part of an axis.
    Narrow {
        /// The axis.
        axis: usize,
        /// Its first element.
        start: usize,
        /// The number of elements.
        length: usize,
    },
    /// Zeros around an axis.
    Pad {
        /// The axis.
        axis: usize,
        /// Zeros before.
        before: usize,
        /// Zeros after.
        after: usize,
    },
    /// Joined along an axis.
    Concatenate {
        /// The axis.
        axis: usize,
    },
    /// A linear map along an axis.
    Linear {
        /// The axis.
        axis: usize,
        /// The map.
        map: Arc<LinearMap>,
    },
    /// Means of windows that step by their own size, of images.
    AveragePool {
        /// The window's height and width.
        size: [usize; 2],
    },
    /// Means of windows that cover images, which may overlap.
    AdaptiveAveragePool {
        /// The result's height and width.
        size: [usize; 2],
    },
    /// Images in another size.
    Resize {
        /// The result's height and width.
        size: [usize; 2],
        /// How pixels between pixels are read.
        interpolation: Interpolation,
    },
    /// X = Σ x·e^(−2πi(hu/H + wv/W)) of images x of H rows and W columns, the last two axes: (…, H, W) to
    /// (…, H, ⌊W/2⌋ + 1, 2), real and imaginary parts. Columns beyond are conjugates of these.
    RealFft,
    /// The adjoint of `RealFft`: x = Re Σ X·e^(2πi(hu/H + wv/W)) over the columns that it keeps.
    RealFftAdjoint {
        /// W, which the number of columns leaves open by one.
        width: usize,
    },
    /// Softmax over the last axis.
    Softmax,
    /// Batched matrix product of the last two axes.
    MatMul {
        /// Transpose the left operand first.
        transpose_left: bool,
        /// Transpose the right operand first.
        transpose_right: bool,
    },
    /// Convolution of (input, weight), or of (input, weight, bias).
    Convolve(Conv2d),
    /// Gradient of a convolution by its input, from (output gradient, weight).
    ConvolveInputGradient {
        /// The convolution.
        geometry: Conv2d,
        /// The input's height and width.
        extents: [usize; 2],
    },
    /// Gradient of a convolution by its weight, from (input, output gradient).
    ConvolveWeightGradient {
        /// The convolution.
        geometry: Conv2d,
        /// The kernel's height and width.
        extents: [usize; 2],
    },
    /// Maximum pooling; the gradient goes to the first maximum of each window.
    MaxPool(Pool2d),
    /// Gradient of maximum pooling, from (input, output gradient).
    MaxPoolScatter(Pool2d),
    /// The values of the second input where the first has its maxima, from (input, values).
    MaxPoolGather(Pool2d),
    /// The same in another element type.
    Cast(DType),
    /// An operation with kernels of its own.
    Custom(Arc<dyn Custom>),
}

impl Op {
    /// The function itself as an operation.
    pub fn map(function: &Function) -> Self {
        let (function, partial) = (function.clone(), Vec::new());
        Op::Map { function, partial, scale: 1.0, weighted: false, extent: Extent::Map }
    }

    /// Its name, for error messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Map { .. } | Op::MapTo { .. } => "pointwise",
            Op::Arithmetic(operation) => operation.name(),
            Op::Affine { .. } => "affine",
            Op::Unary(_) => "unary",
            Op::SquaredDifference => "squared_difference",
            Op::HuberDifference(_) => "huber_difference",
            Op::Hypotenuse(_) => "hypotenuse",
            Op::Select(selection) => selection.name(),
            Op::UnlessZero(_) => "unless_zero",
            Op::SumTo(_) => "sum",
            Op::NormTo(_) => "norm",
            Op::BroadcastTo(_) => "broadcast_to",
            Op::Reshape(_) => "reshape",
            Op::Permute(_) => "permute",
            Op::Narrow { .. } => "narrow",
            Op::Pad { .. } => "pad",
            Op::Concatenate { .. } => "concatenate",
            Op::Linear { .. } => "linear",
            Op::AveragePool { .. } => "avg_pool2d",
            Op::AdaptiveAveragePool { .. } => "adaptive_avg_pool2d",
            Op::Resize { .. } => "resize",
            Op::RealFft => "rfft2",
            Op::RealFftAdjoint { .. } => "rfft2_adjoint",
            Op::Softmax => "softmax",
            Op::MatMul { .. } => "matmul",
            Op::Convolve(_) => "conv2d",
            Op::ConvolveInputGradient { .. } => "conv2d_input_gradient",
            Op::ConvolveWeightGradient { .. } => "conv2d_weight_gradient",
            Op::MaxPool(_) => "max_pool2d",
            Op::MaxPoolScatter(_) => "max_pool2d_scatter",
            Op::MaxPoolGather(_) => "max_pool2d_gather",
            Op::Cast(_) => "cast",
            Op::Custom(operation) => operation.name(),
        }
    }

    /// The smallest and the largest number of inputs.
    fn arity(&self) -> [usize; 2] {
        match self {
            Op::Map { .. } | Op::MapTo { .. } | Op::Concatenate { .. } | Op::Custom(_) => [0, usize::MAX],
            Op::Convolve(_) => [2, 3],
            Op::Arithmetic(_)
            | Op::SquaredDifference
            | Op::HuberDifference(_)
            | Op::UnlessZero(_)
            | Op::MatMul { .. }
            | Op::ConvolveInputGradient { .. }
            | Op::ConvolveWeightGradient { .. }
            | Op::MaxPoolScatter(_)
            | Op::MaxPoolGather(_) => [2, 2],
            Op::Select(selection) => [selection.conditions() + 2; 2],
            _ => [1, 1],
        }
    }

    /// The shape of the result.
    ///
    /// # Errors
    /// A shape error where the inputs do not fit the operation.
    pub fn output_shape(&self, inputs: &[Shape]) -> Result<Shape> {
        for input in inputs {
            checked_count(self.name(), "input", input)?;
        }
        let [least, most] = self.arity();
        if inputs.len() < least || inputs.len() > most {
            return Err(Error::InputCount { operation: self.name(), expected: least, got: inputs.len() });
        }
        let shape = self.unchecked_shape(inputs)?;
        checked_count(self.name(), "output", &shape)?;
        Ok(shape)
    }

    /// The shape rule of as many inputs as there must be, whose extents' products do not overflow; the result's may.
    fn unchecked_shape(&self, inputs: &[Shape]) -> Result<Shape> {
        match self {
            Op::Map { function, extent, .. } => {
                let full = map::shape(function, inputs)?;
                Ok(if *extent == Extent::Sum { Vec::new() } else { full })
            }
            Op::MapTo { function, shape, .. } => {
                broadcasts_to(self.name(), shape, &map::shape(function, inputs)?)?;
                Ok(shape.clone())
            }
            Op::Arithmetic(_) | Op::SquaredDifference | Op::HuberDifference(_) | Op::Select(_) | Op::UnlessZero(_) => {
                broadcast_all(self.name(), inputs)
            }
            Op::Affine { .. } | Op::Unary(_) | Op::Hypotenuse(_) | Op::Cast(_) => Ok(inputs[0].clone()),
            Op::SumTo(_)
            | Op::NormTo(_)
            | Op::BroadcastTo(_)
            | Op::Reshape(_)
            | Op::Permute(_)
            | Op::Narrow { .. }
            | Op::Pad { .. }
            | Op::Concatenate { .. } => layout::shape(self, inputs),
            Op::Linear { axis, map } => map.output_shape(&inputs[0], *axis),
            Op::AveragePool { size } => {
                Pool2d { size: *size, stride: *size, padding: [0; 2], ceil_mode: false }.output_shape(&inputs[0])
            }
            Op::AdaptiveAveragePool { size } | Op::Resize { size, .. } => {
                linear::resized_shape(self.name(), &inputs[0], *size)
            }
            Op::RealFft | Op::RealFftAdjoint { .. } => fourier::shape(self, &inputs[0]),
            Op::Softmax => softmax::shape(self, &inputs[0]),
            Op::MatMul { transpose_left, transpose_right } => {
                matmul::shape(&inputs[0], *transpose_left, &inputs[1], *transpose_right)
            }
            Op::Convolve(geometry) => convolve::shape(geometry, inputs),
            Op::ConvolveInputGradient { geometry, extents } => convolve::input_shape(self, geometry, *extents, inputs),
            Op::ConvolveWeightGradient { geometry, extents } => {
                convolve::weight_shape(self, geometry, *extents, inputs)
            }
            Op::MaxPool(pool) => pool.output_shape(&inputs[0]),
            Op::MaxPoolScatter(pool) => {
                same(self.name(), "output gradient", &pool.output_shape(&inputs[0])?, &inputs[1])?;
                Ok(inputs[0].clone())
            }
            Op::MaxPoolGather(pool) => {
                same(self.name(), "values", &inputs[0], &inputs[1])?;
                pool.output_shape(&inputs[0])
            }
            Op::Custom(operation) => {
                operation.output_shape(&inputs.iter().map(Vec::as_slice).collect::<Vec<&[usize]>>())
            }
        }
    }

    /// The gradient by each of the `wanted` inputs (`None`: none flows, or it is not wanted), from the inputs and the
    /// output's gradient: the vector-Jacobian product.
    ///
    /// # Errors
    /// [`Error::SecondDerivative`] for a custom operation without one, [`Error::Unsupported`] for an operation that is always
    /// decomposed where derivatives are taken; none else for inputs that the operation was performed on.
    pub fn gradients<T: Tensor>(&self, inputs: &[T], above: &T, wanted: &[bool]) -> Result<Vec<Option<T>>> {
        if !wanted.contains(&true) {
            return Ok(vec![None; inputs.len()]);
        }
        match self {
            Op::Map { .. } | Op::MapTo { .. } => map::gradients(self, inputs, above, wanted),
            Op::Arithmetic(operation) => operation.gradients(inputs, above, wanted),
            Op::Affine { scale, .. } => Ok(vec![Some(above.scale(*scale)?)]),
            Op::Select(selection) => selection.gradients(inputs, above, wanted),
            Op::SumTo(_)
            | Op::NormTo(_)
            | Op::BroadcastTo(_)
            | Op::Reshape(_)
            | Op::Permute(_)
            | Op::Narrow { .. }
            | Op::Pad { .. }
            | Op::Concatenate { .. } => layout::gradients(self, inputs, above, wanted),
            Op::Linear { axis, map } => {
                Ok(vec![Some(perform(&Op::Linear { axis: *axis, map: map.transposed() }, &[above])?)])
            }
            Op::RealFft | Op::RealFftAdjoint { .. } => Ok(vec![Some(fourier::gradient(self, &inputs[0], above)?)]),
            Op::MatMul { transpose_left, transpose_right } => {
                matmul::gradients([*transpose_left, *transpose_right], inputs, above, wanted)
            }
            Op::Convolve(_) | Op::ConvolveInputGradient { .. } | Op::ConvolveWeightGradient { .. } => {
                convolve::gradients(self, inputs, above, wanted)
            }
            Op::MaxPool(pool) => Ok(vec![Some(perform(&Op::MaxPoolScatter(*pool), &[&inputs[0], above])?)]),
            Op::MaxPoolScatter(pool) => {
                let gather = || perform(&Op::MaxPoolGather(*pool), &[&inputs[0], above]);
                Ok(vec![None, if_wanted(wanted[1], gather)?])
            }
            Op::MaxPoolGather(pool) => {
                let scatter = || perform(&Op::MaxPoolScatter(*pool), &[&inputs[0], above]);
                Ok(vec![None, if_wanted(wanted[1], scatter)?])
            }
            Op::Custom(operation) => custom::gradients(operation, inputs, above, wanted),
            _ => Err(Error::Unsupported { operation: self.name(), engine: "present" }),
        }
    }

    /// The operation, whose result has this shape, in terms of others, for an engine that declines it.
    fn decompose<T: Tensor>(&self, inputs: &[&T], shape: &[usize]) -> Result<T> {
        match self {
            Op::Map { .. } | Op::MapTo { .. } => map::decompose(self, inputs),
            Op::Arithmetic(_)
            | Op::Affine { .. }
            | Op::Unary(_)
            | Op::SquaredDifference
            | Op::HuberDifference(_)
            | Op::Hypotenuse(_)
            | Op::Select(_) => arithmetic::decompose(self, inputs, shape),
            Op::UnlessZero(value) => {
                let weight = inputs[1];
                weight.if_zero(&T::full(&inputs[0].context(), *value, &[])?, inputs[0])
            }
            Op::NormTo(_) => {
                let squares = inputs[0].unary(Unary::Square)?.sum_to(shape)?;
                T::pointwise(&Function::unary(Unary::Sqrt), &[&squares])
            }
            Op::Linear { .. } | Op::AveragePool { .. } | Op::AdaptiveAveragePool { .. } | Op::Resize { .. } => {
                linear::decompose(self, inputs[0])
            }
            Op::RealFft | Op::RealFftAdjoint { .. } => fourier::decompose(self, inputs[0], shape),
            Op::Softmax => softmax::decompose(inputs[0]),
            Op::Convolve(_) => convolve::decompose(self, inputs),
            Op::Cast(dtype) if *dtype == inputs[0].dtype() => Ok(inputs[0].clone()),
            _ => Err(Error::Unsupported { operation: self.name(), engine: "present" }),
        }
    }
}

/// Checks shapes, and has the engine run the operation, or what it decomposes into.
///
/// # Errors
/// A shape error where the inputs do not fit, [`Error::Unsupported`] where the engine has neither the operation nor its parts,
/// and the engine's own.
pub fn perform<T: Tensor>(op: &Op, inputs: &[&T]) -> Result<T> {
    let shape = op.output_shape(&inputs.iter().map(|input| input.shape()).collect::<Vec<_>>())?;
    match T::apply(op, inputs, &shape)? {
        Some(result) => Ok(result),
        None => op.decompose(inputs, &shape),
    }
}

/// What is made only where it is wanted.
fn if_wanted<T>(is_wanted: bool, make: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if is_wanted { make().map(Some) } else { Ok(None) }
}

/// Refuses another number of inputs than the function takes.
pub(crate) fn check_arity(function: &Function, got: usize) -> Result<()> {
    let expected = function.arity();
    if got == expected { Ok(()) } else { Err(Error::InputCount { operation: "pointwise", expected, got }) }
}

/// The error of an input that breaks a rule.
fn rule(op: &Op, expected: String, got: &[usize]) -> Result<Shape> {
    Err(Error::ShapeRule { operation: op.name(), argument: "input", expected, got: got.to_vec() })
}

/// Refuses a shape that does not broadcast to another.
fn broadcasts_to(operation: &'static str, shape: &[usize], target: &[usize]) -> Result<()> {
    if broadcast_shape(operation, shape, target)? == target {
        return Ok(());
    }
    Err(Error::Broadcast { operation, left: shape.to_vec(), right: target.to_vec() })
}

/// Refuses a shape other than the expected one.
fn same(operation: &'static str, argument: &'static str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::ShapeMismatch { operation, argument, expected: expected.to_vec(), got: got.to_vec() })
}
