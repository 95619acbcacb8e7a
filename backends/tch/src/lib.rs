//! The tch engine: libtorch's tensors, on any device, with its automatic differentiation.
//!
//! Pass `tch::Tensor`s and get one back, ready for `backward()`:
//!
//! ```
//! use image_losses_tch::TchLoss;
//! # use image_losses_core::{Declared, Expr, Pointwise, Reduced};
//! # #[derive(Clone, Debug)]
//! # struct Squared;
//! # impl Pointwise<2> for Squared {
//! #     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> { (x - y).square() }
//! # }
//! # impl Declared for Squared { const NAME: &'static str = "Squared"; }
//! # let criterion = Reduced::new(Squared);
//! let prediction = tch::Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).reshape([1, 1, 2, 2]).set_requires_grad(true);
//! let target = tch::Tensor::zeros_like(&prediction);
//! let loss = criterion.call([&prediction, &target], None)?;
//! loss.backward();
//! assert_eq!(loss.double_value(&[]), 7.5); // mean of 1, 4, 9, 16
//! assert_eq!(prediction.grad().double_value(&[0, 0, 1, 1]), 2.0); // 2·4/4
//! # Ok::<(), image_losses_core::Error>(())
//! ```
//!
//! Half-precision inputs are computed and reduced in single precision; the result is cast back.
//!
//! # Tensors of different element types
//!
//! As under autocast, a prediction may be half-precision and its target single. Every operation of tensors promotes
//! them as PyTorch does: to the widest type, `f16` with `bf16` to `f32`. [`TchLoss::call`] promotes all inputs of a loss
//! first, so that its value has the widest one's type; a loss that is called on [`TchTensor`]s gives its value in the
//! type of its first. A weight or mask takes no part: it is converted to what it multiplies. Each gradient has the type
//! of its own input. Tensors that are not floating are refused.
//!
//! ```
//! use image_losses_tch::TchLoss;
//! # use image_losses_core::{Declared, Expr, Pointwise, Reduced};
//! # #[derive(Clone, Debug)]
//! # struct Squared;
//! # impl Pointwise<2> for Squared {
//! #     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> { (x - y).square() }
//! # }
//! # impl Declared for Squared { const NAME: &'static str = "Squared"; }
//! # let criterion = Reduced::new(Squared);
//! use tch::{Device, Kind};
//!
//! let prediction = tch::Tensor::full([1, 1, 2, 2], 300.0, (Kind::Half, Device::Cpu)).set_requires_grad(true);
//! let target = tch::Tensor::zeros([1, 1, 2, 2], (Kind::Float, Device::Cpu));
//! let loss = criterion.call([&prediction, &target], None)?;
//! loss.backward();
//! // 300² is above the largest half-precision number.
//! assert_eq!((loss.kind(), loss.double_value(&[])), (Kind::Float, 90_000.0));
//! assert_eq!(prediction.grad().kind(), Kind::Half);
//! # Ok::<(), image_losses_core::Error>(())
//! ```

use std::sync::Arc;

use image_losses_core::op::{Arithmetic, Op, Selection, linear_by_matrix};
use image_losses_core::{
    Conv2d, DType, Differentiable, Error, Function, Interpolation, LinearMap, Literal, Loss, Result, Shape, Tensor,
    Unary,
};
use tch::{Device, Kind, Reduction, TchError};

/// The crate beneath, in the version that these tensors are of.
pub use tch;

const ENGINE: &str = "tch";

/// A tensor of the tch engine. Wrapping shares the storage; nothing is copied.
#[derive(Debug)]
pub struct TchTensor {
    tensor: tch::Tensor,
    dtype: DType,
}

impl Clone for TchTensor {
    fn clone(&self) -> Self {
        TchTensor { tensor: self.tensor.shallow_clone(), dtype: self.dtype }
    }
}

impl TchTensor {
    /// Shares a tensor.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an element type that is not floating, a layout that is not strided (sparse tensors)
    /// and an undefined tensor.
    pub fn new(tensor: &tch::Tensor) -> Result<Self> {
        Self::own(tensor.shallow_clone())
    }

    /// Takes a tensor.
    ///
    /// # Errors
    /// As [`new`](TchTensor::new).
    pub fn own(tensor: tch::Tensor) -> Result<Self> {
        if !tensor.defined() {
            return Err(Error::option("TchTensor", "tensor", "a defined tensor", "an undefined one"));
        }
        let tensor = Self::result(tensor)?;
        // Only strided tensors have other views of their elements; the first two flags say it without an exception.
        let x = &tensor.tensor;
        if x.is_sparse() || x.is_mkldnn() || x.f_unsqueeze(0).is_err() {
            return Err(Error::option("TchTensor", "layout", "Strided", "a sparse or an opaque one"));
        }
        Ok(tensor)
    }

    /// The result of an operation, which is strided where its operands are.
    fn result(tensor: tch::Tensor) -> Result<Self> {
        let dtype = match tensor.f_kind() {
            Ok(Kind::Half) => DType::F16,
            Ok(Kind::BFloat16) => DType::BF16,
            Ok(Kind::Float) => DType::F32,
            Ok(Kind::Double) => DType::F64,
            kind => {
                let kind = kind.map_or_else(|error| error.to_string(), |kind| format!("{kind:?}"));
                return Err(Error::option("TchTensor", "kind", "Half, BFloat16, Float or Double", kind));
            }
        };
        Ok(TchTensor { tensor, dtype })
    }

    /// The tensor, with its gradient history.
    pub fn tensor(&self) -> &tch::Tensor {
        &self.tensor
    }

    /// The tensor, with its gradient history.
    pub fn into_tensor(self) -> tch::Tensor {
        self.tensor
    }

    /// A linear map as a constant matrix (outputs, inputs) on a device; those of the maps used last are kept.
    ///
    /// # Errors
    /// [`Error::Engine`] where libtorch fails.
    pub fn matrix(context: &(Kind, Device), map: &Arc<LinearMap>) -> Result<Self> {
        matrices::get(context, map)
    }

    /// A copy of the values, row-major.
    ///
    /// # Errors
    /// [`Error::Engine`] where libtorch fails.
    pub fn values(&self) -> Result<Vec<f64>> {
        let flat = self.tensor.detach().f_to_device(Device::Cpu).and_then(|x| x.f_to_kind(Kind::Double));
        let flat = flat.and_then(|x| x.f_reshape([-1])).map_err(engine)?;
        Vec::<f64>::try_from(&flat).map_err(engine)
    }

    /// The result of an operation that keeps the element type.
    fn same(&self, result: Result<tch::Tensor, TchError>) -> Result<Self> {
        Ok(TchTensor { tensor: result.map_err(engine)?, dtype: self.dtype })
    }

    /// What to divide elements by so that their squares and the sums of these over `axes` are in range, without history; 1
    /// wherever they are. Its derivatives cancel: c·|x/c| is |x| for every c.
    fn scale_of_squares(&self, axes: &[usize]) -> Result<tch::Tensor, TchError> {
        // The scale keeps the largest magnitude between these bounds: the squares of what is 1e-4 (1e-54) of it are normal
        // numbers, and 1e8 (1e108) squares have a sum. It is not the magnitude itself, by which the gradient of the norm is
        // multiplied before it is divided by it: that may be out of range.
        let (smallest, low, high) = match self.dtype {
            DType::F64 => (f64::MIN_POSITIVE, 1e-100, 1e100),
            _ => (f64::from(f32::MIN_POSITIVE), 1e-15, 1e15),
        };
        let x = self.tensor.detach();
        if x.numel() == 0 {
            return tch::Tensor::f_ones([0i64; 0], (x.kind(), x.device()));
        }
        let largest = x.f_norm_scalaropt_dim(f64::INFINITY, extents(axes), true)?;
        let largest = largest.f_clamp_min(smallest)?;
        largest.f_div(&largest.f_clamp(low, high)?)?.f_nan_to_num(1.0, 1.0, 1.0)
    }
}

/// The type that two are promoted to: the wider, single precision for the two half-precision ones.
fn wider(a: Kind, b: Kind) -> Kind {
    match (a, b) {
        _ if a == b => a,
        (Kind::Double, _) | (_, Kind::Double) => Kind::Double,
        _ => Kind::Float,
    }
}

/// The tensors in the type that all are promoted to.
fn promoted<const N: usize>(tensors: [&TchTensor; N]) -> Result<[tch::Tensor; N]> {
    let kind = tensors.iter().map(|tensor| tensor.tensor.kind()).reduce(wider).unwrap_or(Kind::Float);
    let mut converted = tensors.map(|tensor| tensor.tensor.shallow_clone());
    for tensor in converted.iter_mut().filter(|tensor| tensor.kind() != kind) {
        *tensor = tensor.f_to_kind(kind).map_err(engine)?;
    }
    Ok(converted)
}

/// libtorch's words as an error of ours.
fn engine(error: TchError) -> Error {
    // Its message carries a C++ stack trace after the first line.
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().to_owned();
    Error::Engine { engine: ENGINE, message }
}

/// Extents as libtorch takes them.
fn extents(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&extent| extent as i64).collect()
}

impl Tensor for TchTensor {
    type Context = (Kind, Device);

    fn context(&self) -> Self::Context {
        (self.tensor.kind(), self.tensor.device())
    }
    fn shape(&self) -> Shape {
        self.tensor.size().into_iter().map(|extent| extent as usize).collect()
    }
    fn dtype(&self) -> DType {
        self.dtype
    }
    fn literal(context: &Self::Context, literal: Literal<'_>, shape: &[usize]) -> Result<Self> {
        match literal {
            Literal::Elements([first, rest @ ..]) if rest.iter().all(|value| value.to_bits() == first.to_bits()) => {
                filled(context, *first, shape)
            }
            Literal::Elements(values) => uploaded(context, values, shape),
            Literal::Shared(values) => uploaded(context, values, shape),
            Literal::Filled(value) => filled(context, value, shape),
        }
    }
    fn detach(&self) -> Self {
        TchTensor { tensor: self.tensor.detach(), dtype: self.dtype }
    }
    fn apply(op: &Op, inputs: &[&Self], shape: &[usize]) -> Result<Option<Self>> {
        let Some(&first) = inputs.first() else { return Ok(None) };
        let x = &first.tensor;
        let same = |result: Result<tch::Tensor, TchError>| first.same(result);
        Ok(Some(match op {
            Op::Arithmetic(operation) => first.arithmetic(*operation, inputs[1])?,
            Op::Affine { scale, shift } => first.times_plus(*scale, *shift)?,
            Op::Unary(function) => first.function(*function)?,
            Op::SquaredDifference => {
                // libtorch's derivative takes one type alone, here and below.
                let [a, b] = promoted([first, inputs[1]])?;
                Self::result(a.f_mse_loss(&b, Reduction::None).map_err(engine)?)?
            }
            Op::HuberDifference(delta) => {
                let [a, b] = promoted([first, inputs[1]])?;
                Self::result(a.f_huber_loss(&b, Reduction::None, *delta).map_err(engine)?)?
            }
            Op::Hypotenuse(square) => {
                // One pass forwards and one back, where the square, the sum and the root are three and as many.
                let side = filled(&first.context(), square.sqrt(), &[])?;
                same(x.f_hypot(&side.tensor))?
            }
            Op::Select(Selection::NotPositive) => choose(x.f_le(0.0), &inputs[..1], inputs[1], inputs[2])?,
            Op::Select(Selection::Zero) => choose(x.f_eq(0.0), &inputs[..1], inputs[1], inputs[2])?,
            Op::Select(Selection::AtMost) => {
                choose(x.f_le_tensor(&inputs[1].tensor), &inputs[..2], inputs[2], inputs[3])?
            }
            Op::UnlessZero(value) => {
                let value = tch::Tensor::f_full([0i64; 0], *value, (x.kind(), x.device()));
                let is_inside = inputs[1].tensor.f_ne(0.0).map_err(engine)?;
                same(value.and_then(|value| x.f_where_self(&is_inside, &value)))?
            }
            Op::SumTo(_) if shape.iter().all(|&extent| extent == 1) => {
                same(x.f_sum(None::<Kind>).and_then(|sum| sum.f_reshape(extents(shape))))?
            }
            Op::SumTo(_) => same(x.f_sum_to_size(extents(shape)))?,
            Op::NormTo(_) if shape.len() == x.dim() => first.norm_to(shape)?,
            Op::BroadcastTo(_) => same(x.f_broadcast_to(extents(shape)))?,
            Op::Reshape(_) => same(x.f_reshape(extents(shape)))?,
            Op::Permute(order) => same(x.f_permute(extents(order)))?,
            Op::Narrow { axis, start, length } => same(x.f_narrow(*axis as i64, *start as i64, *length as i64))?,
            Op::Pad { axis, before, after } => {
                // libtorch lists pairs from the last axis on.
                let mut pairs = vec![0; 2 * (shape.len() - axis)];
                let last = pairs.len() - 2;
                pairs[last] = *before as i64;
                pairs[last + 1] = *after as i64;
                same(x.f_constant_pad_nd(pairs))?
            }
            Op::Concatenate { axis } => {
                // libtorch promotes here.
                let tensors: Vec<&tch::Tensor> = inputs.iter().map(|input| &input.tensor).collect();
                Self::result(tch::Tensor::f_cat(&tensors, *axis as i64).map_err(engine)?)?
            }
            Op::Linear { axis, map } => linear_by_matrix(first, *axis, map, &Self::matrix(&first.context(), map)?)?,
            Op::AveragePool { size } => {
                let size = extents(size);
                same(x.f_avg_pool2d(&size, &size, [0, 0], false, true, None::<i64>))?
            }
            Op::AdaptiveAveragePool { size } => same(x.f_adaptive_avg_pool2d(extents(size)))?,
            Op::Resize { size, interpolation } => {
                let target = extents(size);
                same(match *interpolation {
                    Interpolation::Nearest => x.f_upsample_nearest2d(target, None::<f64>, None::<f64>),
                    Interpolation::Bilinear { align_corners } => {
                        x.f_upsample_bilinear2d(target, align_corners, None::<f64>, None::<f64>)
                    }
                    Interpolation::Bicubic { align_corners } => {
                        x.f_upsample_bicubic2d(target, align_corners, None::<f64>, None::<f64>)
                    }
                })?
            }
            Op::RealFft => same(x.f_fft_rfft2(None::<&[i64]>, [-2, -1], "backward").and_then(|x| x.f_view_as_real()))?,
            Op::Softmax => same(x.f_softmax(-1, None::<Kind>))?,
            Op::MatMul { transpose_left, transpose_right } => {
                let side = |tensor: &tch::Tensor, transpose: bool| {
                    if transpose { tensor.f_transpose(-2, -1) } else { Ok(tensor.shallow_clone()) }.map_err(engine)
                };
                let [left, right] = promoted([first, inputs[1]])?;
                let (left, right) = (side(&left, *transpose_left)?, side(&right, *transpose_right)?);
                Self::result(left.f_matmul(&right).map_err(engine)?)?
            }
            Op::Convolve(geometry) => first.convolved(inputs[1], inputs.get(2).copied(), geometry, shape)?,
            Op::MaxPool(pool) => {
                let [size, stride, padding] = [&pool.size, &pool.stride, &pool.padding].map(|pair| extents(pair));
                same(x.f_max_pool2d(size, stride, padding, [1, 1], pool.ceil_mode))?
            }
            Op::Cast(dtype) => {
                let kind = match dtype {
                    DType::F16 => Kind::Half,
                    DType::BF16 => Kind::BFloat16,
                    DType::F32 => Kind::Float,
                    DType::F64 => Kind::Double,
                };
                Self::result(x.f_to_kind(kind).map_err(engine)?)?
            }
            _ => return Ok(None),
        }))
    }
}

/// Operations that are more than one call.
impl TchTensor {
    fn arithmetic(&self, operation: Arithmetic, other: &Self) -> Result<Self> {
        let (x, other) = (&self.tensor, &other.tensor);
        let result = match operation {
            Arithmetic::Add => x.f_add(other),
            Arithmetic::Sub => x.f_sub(other),
            Arithmetic::Mul => x.f_mul(other),
            Arithmetic::Div => x.f_div(other),
        };
        Self::result(result.map_err(engine)?)
    }

    fn times_plus(&self, scale: f64, shift: f64) -> Result<Self> {
        if scale == -1.0 && shift != 0.0 {
            // One pass for both.
            return self.same(self.tensor.f_rsub_scalar(shift));
        }
        let scaled = if scale == 1.0 {
            Ok(self.tensor.shallow_clone())
        } else if scale == -1.0 {
            self.tensor.f_neg()
        } else {
            self.tensor.f_mul_scalar(scale)
        };
        let scaled = scaled.map_err(engine)?;
        self.same(if shift == 0.0 { Ok(scaled) } else { scaled.f_add_scalar(shift) })
    }

    fn function(&self, function: Unary) -> Result<Self> {
        let x = &self.tensor;
        self.same(match function {
            Unary::Abs => slope(x).and_then(|slope| x.f_mul(&slope)),
            Unary::Sign => {
                // libtorch's sign of NaN is 0.
                let x = x.detach();
                x.f_eq_tensor(&x).and_then(|is_number| x.f_sign()?.f_where_self(&is_number, &x))
            }
            Unary::Square => x.f_square(),
            Unary::Sqrt => x.f_sqrt(),
            Unary::Exp => x.f_exp(),
            Unary::Ln => x.f_log(),
            Unary::Tanh => x.f_tanh(),
            Unary::Sigmoid => x.f_sigmoid(),
            // libtorch's `softplus` is the identity above 20, 2e-9 off there.
            Unary::Softplus => x.f_neg().and_then(|x| x.f_log_sigmoid()).and_then(|x| x.f_neg()),
            Unary::LogSigmoid => x.f_log_sigmoid(),
            Unary::Relu => relu(x),
        })
    }

    /// Norms over the axes that the shape has with an extent of 1.
    fn norm_to(&self, shape: &[usize]) -> Result<Self> {
        let axes: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] == 1).collect();
        if axes.is_empty() {
            return self.unary(Unary::Abs);
        }
        // Not libtorch's own norm, whose second derivative is NaN where the norm is 0.
        let wide = match self.tensor.device() {
            // Squares in double precision, which holds that of every number in single precision.
            Device::Cpu => Self::result(self.tensor.f_to_kind(Kind::Double).map_err(engine)?)?,
            // Other devices are slow at it, or do not have it: the scale keeps squares in range, and the gradient too
            // unless the one from above is beyond 1e23.
            _ => self.accumulator()?,
        };
        let scale = wide.scale_of_squares(&axes).map_err(engine)?;
        let scaled = wide.tensor.f_div(&scale).and_then(|x| x.f_square());
        let squares = wide.same(scaled)?.sum(&axes, true)?;
        let norm = Self::pointwise(&Function::unary(Unary::Sqrt), &[&squares])?;
        let norm = norm.same(norm.tensor.f_mul(&scale))?;
        norm.cast_like(self)
    }

    fn convolved(&self, weight: &Self, bias: Option<&Self>, geometry: &Conv2d, shape: &[usize]) -> Result<Self> {
        if self.tensor.numel() == 0 || weight.tensor.numel() == 0 {
            // Sums of nothing, to which libtorch gives other shapes.
            let zeros = Self::full(&self.context(), 0.0, shape)?;
            return bias.map_or(Ok(zeros.clone()), |bias| zeros.add(&bias.reshape(&[1, shape[1], 1, 1])?));
        }
        let has_bias = bias.is_some();
        let [input, weight, bias] = promoted([self, weight, bias.unwrap_or(weight)])?;
        let out = input.f_conv2d(
            &weight,
            has_bias.then_some(bias),
            extents(&geometry.stride),
            extents(&geometry.padding),
            extents(&geometry.dilation),
            geometry.groups as i64,
        );
        Self::result(out.map_err(engine)?)
    }
}

/// A tensor filled with a value, made on its device: nothing waits for a copy.
fn filled(context: &(Kind, Device), value: f64, shape: &[usize]) -> Result<TchTensor> {
    let largest = match context.0 {
        Kind::Half => 65504.0,
        // That of `BFloat16` is slightly less than that of `Float`.
        Kind::BFloat16 | Kind::Float => 3.38e38,
        _ => f64::MAX,
    };
    if value.is_finite() && value.abs() > largest {
        // libtorch refuses a number that the type does not hold; a conversion makes it infinite.
        return uploaded(context, &[value], &vec![1; shape.len()])?.broadcast_to(shape);
    }
    TchTensor::result(tch::Tensor::f_full(extents(shape), value, *context).map_err(engine)?)
}

/// A tensor of the values, which fill the shape.
fn uploaded<E: tch::kind::Element>(
    &(kind, device): &(Kind, Device),
    values: &[E],
    shape: &[usize],
) -> Result<TchTensor> {
    let tensor = tch::Tensor::f_from_slice(values).and_then(|x| x.f_to_kind(kind));
    let tensor = tensor.and_then(|x| x.f_to_device(device)).and_then(|x| x.f_reshape(extents(shape)));
    TchTensor::result(tensor.map_err(engine)?)
}

/// Matrices of linear maps, kept on their devices: losses apply the same few at every step.
mod matrices {
    use std::sync::{Arc, Mutex, PoisonError};

    use image_losses_core::{LinearMap, Result, Tensor};
    use tch::{Device, Kind};

    use super::{TchTensor, uploaded};

    /// The most matrices that are kept.
    const MATRICES: usize = 16;
    /// The most elements that they have together.
    const ELEMENTS: usize = 1 << 24;

    struct Entry {
        map: Arc<LinearMap>,
        context: (Kind, Device),
        matrix: tch::Tensor,
    }

    /// The one that was used last stands last.
    static KEPT: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

    /// The map as a matrix.
    pub(super) fn get(context: &(Kind, Device), map: &Arc<LinearMap>) -> Result<TchTensor> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        // Callers make maps anew: equal ones are the same.
        let is_it = |entry: &Entry| entry.context == *context && (Arc::ptr_eq(&entry.map, map) || entry.map == *map);
        if let Some(at) = kept.iter().position(is_it) {
            let entry = kept.remove(at);
            let matrix = entry.matrix.shallow_clone();
            kept.push(entry);
            return TchTensor::result(matrix);
        }
        let made = uploaded(context, &map.to_dense(), &[map.outputs(), map.inputs()])?;
        if made.elements() <= ELEMENTS {
            kept.push(Entry { map: Arc::clone(map), context: *context, matrix: made.tensor.shallow_clone() });
            let elements = |kept: &[Entry]| kept.iter().map(|entry| entry.matrix.numel()).sum::<usize>();
            while kept.len() > MATRICES || elements(&kept) > ELEMENTS {
                kept.remove(0);
            }
        }
        Ok(made)
    }
}

/// The derivative of |x|, without history: sign(x), NaN at NaN, where libtorch's has 0. A denormal x has the fraction of
/// the smallest normal number that it is.
fn slope(x: &tch::Tensor) -> Result<tch::Tensor, TchError> {
    let largest_power = match x.kind() {
        Kind::Half => 15,
        Kind::Double => 1023,
        _ => 127,
    };
    // A clamp keeps NaN, and takes the place of two comparisons.
    x.detach().f_mul_scalar(2f64.powi(largest_power))?.f_clamp(-1.0, 1.0)
}

/// max(0, x). libtorch's derivative is 1 at NaN: what may be differentiated is multiplied by 1 or NaN first.
fn relu(x: &tch::Tensor) -> Result<tch::Tensor, TchError> {
    if !x.requires_grad() {
        return x.f_relu();
    }
    x.f_mul(&x.detach().f_clamp(1.0, 1.0)?)?.f_relu_()
}

/// `then` where the condition holds, else `otherwise`, and NaN, as value and as gradient, where what was compared is NaN.
fn choose(
    condition: Result<tch::Tensor, TchError>,
    compared: &[&TchTensor],
    then: &TchTensor,
    otherwise: &TchTensor,
) -> Result<TchTensor> {
    let [then, otherwise] = promoted([then, otherwise])?;
    let mut chosen = condition.and_then(|condition| then.f_where_self(&condition, &otherwise)).map_err(engine)?;
    for compared in compared {
        let x = compared.tensor.detach().f_to_kind(chosen.kind()).map_err(engine)?;
        let one = tch::Tensor::f_full([0i64; 0], 1.0, (x.kind(), x.device())).map_err(engine)?;
        // 1, or NaN.
        let number = x.f_eq_tensor(&x).and_then(|is_number| one.f_where_self(&is_number, &x));
        chosen = number.and_then(|number| chosen.f_mul(&number)).map_err(engine)?;
    }
    TchTensor::result(chosen)
}

impl Differentiable for TchTensor {
    fn leaf(&self) -> Result<Self> {
        Ok(TchTensor { tensor: self.tensor.detach().set_requires_grad(true), dtype: self.dtype })
    }

    fn gradients(output: &Self, inputs: &[&Self], create_graph: bool) -> Result<Vec<Option<Self>>> {
        // Without a history there is nothing to differentiate, and libtorch crashes. The root is the output itself, and not
        // its sum, which has no history where none is recorded: the gradient from above is 1 for each of its elements.
        let tracked: Vec<&tch::Tensor> =
            inputs.iter().filter(|input| input.tensor.requires_grad()).map(|input| &input.tensor).collect();
        if !output.tensor.requires_grad() || tracked.is_empty() {
            return Ok(vec![None; inputs.len()]);
        }
        let mut gradients =
            tch::Tensor::f_run_backward(&[&output.tensor], &tracked, true, create_graph).map_err(engine)?.into_iter();
        inputs
            .iter()
            .map(|input| {
                if !input.tensor.requires_grad() {
                    return Ok(None);
                }
                gradients.next().filter(tch::Tensor::defined).map(Self::own).transpose()
            })
            .collect()
    }
}

/// Calls a loss on `tch` tensors.
pub trait TchLoss<const K: usize> {
    /// The loss of `inputs`, weighted by `weight`: a tensor with history, ready for `backward()`, in the widest input's
    /// type.
    ///
    /// # Errors
    /// Shape errors as for [`Loss::forward`]; [`Error::InvalidOption`] as for [`TchTensor::new`]; [`Error::Engine`] where libtorch fails (tensors on different devices).
    fn call(&self, inputs: [&tch::Tensor; K], weight: Option<&tch::Tensor>) -> Result<tch::Tensor>;
}

impl<const K: usize, L: Loss<K>> TchLoss<K> for L {
    fn call(&self, inputs: [&tch::Tensor; K], weight: Option<&tch::Tensor>) -> Result<tch::Tensor> {
        let wrapped = inputs.into_iter().map(TchTensor::new).collect::<Result<Vec<_>>>()?;
        let weight = weight.map(TchTensor::new).transpose()?;
        let promoted = promoted::<K>(std::array::from_fn(|k| &wrapped[k]))?;
        let wrapped = promoted.into_iter().map(TchTensor::result).collect::<Result<Vec<_>>>()?;
        let inputs = std::array::from_fn(|k| &wrapped[k]);
        Ok(self.forward(inputs, weight.as_ref())?.into_tensor())
    }
}

/// The value of a function of tensors and its gradient with respect to each, detached from one another's history.
///
/// A value with several elements is differentiated through its sum. An input without influence has a gradient of
/// zeros. History is recorded also within `tch::no_grad`.
///
/// # Errors
/// As [`TchTensor::new`], and those of `function`.
pub fn differentiate(
    inputs: &[&tch::Tensor],
    function: impl Fn(&[TchTensor]) -> Result<TchTensor>,
) -> Result<(tch::Tensor, Vec<tch::Tensor>)> {
    let leaves = inputs.iter().map(|input| TchTensor::new(input)?.leaf()).collect::<Result<Vec<_>>>()?;
    let value = {
        // `with_grad` restores what was set before unless the closure panics; the guard does in any case.
        let _guard = tch::no_grad_guard();
        tch::with_grad(|| function(&leaves))?
    };
    let gradients = Differentiable::gradients(&value, &leaves.iter().collect::<Vec<_>>(), false)?;
    let gradients = gradients
        .into_iter()
        .zip(inputs)
        .map(|(gradient, input)| gradient.map_or_else(|| input.zeros_like(), TchTensor::into_tensor))
        .collect();
    Ok((value.into_tensor().detach(), gradients))
}

/// The page of the registry.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
