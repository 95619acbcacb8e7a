//! The primitive table of the CPU engines: shape rule, kernel, and derivative in terms of primitives.
//!
//! The table is closed under differentiation, so that an engine that applies primitives has derivatives of any order.

use std::fmt::Debug;
use std::sync::Arc;

use crate::kernels::broadcast::broadcast_shape;
use crate::kernels::{self, Array};
use crate::shape::checked_count;
use crate::tensor::{check_arity, one_element};
use crate::{Conv2d, DType, Error, Extent, Function, LinearMap, Pool2d, Result, Scalar, Shape, Tensor, Unary};

/// An arithmetic operation of two tensors that broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a·b
    Mul,
    /// a/b
    Div,
}

/// The condition of [`Primitive::Select`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selection {
    /// x ≤ 0
    NotPositive,
    /// x = 0
    Zero,
    /// x ≤ y, of two tensors
    AtMost,
}

impl Selection {
    /// The number of tensors that are compared.
    fn conditions(self) -> usize {
        if self == Selection::AtMost { 2 } else { 1 }
    }
}

/// An operation of the CPU engines on tensors.
#[derive(Clone, Debug)]
pub enum Primitive {
    /// Arithmetic of two tensors that broadcast.
    Arithmetic(Arithmetic),
    /// x·scale + shift.
    Affine {
        /// The factor.
        scale: f64,
        /// The summand.
        shift: f64,
    },
    /// `scale` · ∂f · Π multipliers, as a map or summed; 0 where a multiplier is 0, whatever ∂f is. Inputs: the function's,
    /// then any number of multipliers, which do not enlarge the map's shape.
    Map {
        /// The function f.
        function: Function,
        /// The inputs f is differentiated by; empty for f itself.
        partial: Vec<usize>,
        /// The factor.
        scale: f64,
        /// The first multiplier is a weight: where it is 0, so is the gradient by it. The others are gradients.
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
    /// From (what is compared, then, otherwise): the second last where the condition holds, the last where it does not, NaN
    /// where NaN is compared; broadcasting.
    Select(Selection),
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
    /// Batched matrix product of the last two axes.
    MatMul {
        /// Transpose the left operand first.
        transpose_left: bool,
        /// Transpose the right operand first.
        transpose_right: bool,
    },
    /// Convolution of (input, weight).
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
    /// Maximum pooling.
    MaxPool(Pool2d),
    /// Gradient of maximum pooling, from (input, output gradient).
    MaxPoolScatter(Pool2d),
    /// The values of the second input where the first has its maxima, from (input, values).
    MaxPoolGather(Pool2d),
    /// An operation with kernels of its own.
    Fused(Arc<dyn FusedOperation>),
}

/// An operation with kernels of its own: a network, a filter, a loss with neighbouring pixels.
pub trait FusedOperation: Debug + Send + Sync {
    /// Its name, for error messages.
    fn name(&self) -> &'static str;
    /// The shape rule.
    ///
    /// # Errors
    /// A shape error where the inputs do not fit.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape>;
    /// The kernel in single precision.
    fn evaluate_f32(&self, inputs: &[Array<'_, f32>]) -> Vec<f32>;
    /// The kernel in double precision.
    fn evaluate_f64(&self, inputs: &[Array<'_, f64>]) -> Vec<f64>;
    /// The gradient by input `input`: an operation on (inputs…, output gradient); `None` where it is always zero.
    ///
    /// # Errors
    /// [`Error::SecondDerivative`] where there is one, and the operation has no kernel for it.
    fn gradient(&self, input: usize) -> Result<Option<Arc<dyn FusedOperation>>>;
    /// What it has in common with the operation that it is a derivative of.
    fn sharing(&self) -> Sharing {
        Sharing::Alone
    }
    /// The result of a derivative, and the value that it is a derivative of: see [`Sharing::Derivative`].
    fn evaluate_both_f32(&self, inputs: &[Array<'_, f32>]) -> Option<(Vec<f32>, Vec<f64>)> {
        let _ = inputs;
        None
    }
    /// As [`evaluate_both_f32`](FusedOperation::evaluate_both_f32).
    fn evaluate_both_f64(&self, inputs: &[Array<'_, f64>]) -> Option<(Vec<f64>, Vec<f64>)> {
        let _ = inputs;
        None
    }
}

/// Whether a [`FusedOperation`] computes a value and its derivative at once, for engines that evaluate graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each by itself.
    Alone,
    /// It is a value that its derivatives may compute as well.
    Value,
    /// It is the gradient of such a value by one of its inputs, and computes both at once, on the value's inputs and the
    /// gradient from above.
    Derivative,
}

impl Primitive {
    /// The function itself as a primitive.
    pub fn map(function: &Function) -> Self {
        let (function, partial) = (function.clone(), Vec::new());
        Primitive::Map { function, partial, scale: 1.0, weighted: false, extent: Extent::Map }
    }

    /// The shape of the result.
    ///
    /// # Errors
    /// A shape error where the inputs do not fit the operation.
    pub fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        for input in inputs {
            checked_count(self.name(), "input", input)?;
        }
        let shape = self.unchecked_shape(inputs)?;
        checked_count(self.name(), "output", &shape)?;
        Ok(shape)
    }

    /// The shape rule of inputs whose extents' products do not overflow; the result's may.
    fn unchecked_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let expected = match self {
            Primitive::Arithmetic(_)
            | Primitive::MatMul { .. }
            | Primitive::Convolve(_)
            | Primitive::ConvolveInputGradient { .. }
            | Primitive::ConvolveWeightGradient { .. }
            | Primitive::MaxPoolScatter(_)
            | Primitive::MaxPoolGather(_) => 2,
            Primitive::Select(selection) => selection.conditions() + 2,
            Primitive::Map { .. } | Primitive::MapTo { .. } | Primitive::Concatenate { .. } | Primitive::Fused(_) => {
                inputs.len()
            }
            _ => 1,
        };
        if inputs.len() != expected {
            return Err(Error::InputCount { operation: self.name(), expected, got: inputs.len() });
        }
        let rule = |expected: String, got: &[usize]| {
            Err(Error::ShapeRule { operation: self.name(), argument: "input", expected, got: got.to_vec() })
        };
        match self {
            Primitive::Arithmetic(_) => broadcast_shape(self.name(), inputs[0], inputs[1]),
            Primitive::Affine { .. } => Ok(inputs[0].to_vec()),
            Primitive::Map { function, extent, .. } => {
                let full = map_shape(function, inputs)?;
                Ok(if *extent == Extent::Sum { Vec::new() } else { full })
            }
            Primitive::MapTo { function, shape, .. } => {
                broadcasts_to(self.name(), shape, &map_shape(function, inputs)?)?;
                Ok(shape.clone())
            }
            Primitive::Select(_) => {
                inputs.iter().try_fold(Vec::new(), |full, input| broadcast_shape(self.name(), &full, input))
            }
            Primitive::SumTo(shape) | Primitive::NormTo(shape) => {
                broadcasts_to(self.name(), shape, inputs[0])?;
                Ok(shape.clone())
            }
            Primitive::BroadcastTo(shape) => {
                broadcasts_to(self.name(), inputs[0], shape)?;
                Ok(shape.clone())
            }
            Primitive::Reshape(shape) => {
                let wanted = checked_count(self.name(), "shape", shape)?;
                if wanted != kernels::count(inputs[0]) {
                    return Err(Error::ShapeMismatch {
                        operation: self.name(),
                        argument: "input",
                        expected: shape.clone(),
                        got: inputs[0].to_vec(),
                    });
                }
                Ok(shape.clone())
            }
            Primitive::Permute(order) => {
                let mut seen = vec![false; inputs[0].len()];
                let permutation = order.len() == inputs[0].len()
                    && order.iter().all(|&axis| axis < seen.len() && !std::mem::replace(&mut seen[axis], true));
                if !permutation {
                    return rule(format!("axes that {order:?} permutes"), inputs[0]);
                }
                Ok(order.iter().map(|&axis| inputs[0][axis]).collect())
            }
            Primitive::Narrow { axis, start, length } => {
                match inputs[0].get(*axis) {
                    Some(&extent) if start.checked_add(*length).is_some_and(|end| end <= extent) => {}
                    _ => return rule(format!("elements {start} to {start} + {length} on axis {axis}"), inputs[0]),
                }
                Ok(with_extent(inputs[0], *axis, *length))
            }
            Primitive::Pad { axis, before, after } => {
                let Some(&extent) = inputs[0].get(*axis) else { return rule(format!("an axis {axis}"), inputs[0]) };
                match before.checked_add(extent).and_then(|extent| extent.checked_add(*after)) {
                    Some(extent) => Ok(with_extent(inputs[0], *axis, extent)),
                    None => rule(format!("room for {before} before and {after} after axis {axis}"), inputs[0]),
                }
            }
            Primitive::Concatenate { axis } => {
                let Some(first) = inputs.first() else {
                    return Err(Error::InputCount { operation: self.name(), expected: 1, got: 0 });
                };
                if *axis >= first.len() {
                    return rule(format!("an axis {axis}"), first);
                }
                let mut total = 0;
                for input in inputs {
                    if input.len() != first.len() || with_extent(input, *axis, first[*axis]) != *first {
                        return Err(Error::ShapeMismatch {
                            operation: self.name(),
                            argument: "input",
                            expected: first.to_vec(),
                            got: input.to_vec(),
                        });
                    }
                    total += input[*axis];
                }
                Ok(with_extent(first, *axis, total))
            }
            Primitive::Linear { axis, map } => map.output_shape(inputs[0], *axis),
            Primitive::MatMul { transpose_left, transpose_right } => {
                matmul_shape(inputs[0], *transpose_left, inputs[1], *transpose_right)
            }
            Primitive::Convolve(geometry) => geometry.output_shape(inputs[0], inputs[1]),
            Primitive::ConvolveInputGradient { geometry, extents } => {
                let (gradient, weight) = (inputs[0], inputs[1]);
                if gradient.len() != 4 || weight.len() != 4 {
                    return rule("rank 4".into(), gradient);
                }
                let input = vec![gradient[0], weight[1].saturating_mul(geometry.groups), extents[0], extents[1]];
                same(self.name(), "output gradient", &geometry.output_shape(&input, weight)?, gradient)?;
                Ok(input)
            }
            Primitive::ConvolveWeightGradient { geometry, extents } => {
                let (input, gradient) = (inputs[0], inputs[1]);
                if input.len() != 4 || gradient.len() != 4 || geometry.groups == 0 {
                    return rule("rank 4".into(), input);
                }
                let weight = vec![gradient[1], input[1] / geometry.groups, extents[0], extents[1]];
                same(self.name(), "output gradient", &geometry.output_shape(input, &weight)?, gradient)?;
                Ok(weight)
            }
            Primitive::MaxPool(pool) => pool.output_shape(inputs[0]),
            Primitive::MaxPoolScatter(pool) => {
                same(self.name(), "output gradient", &pool.output_shape(inputs[0])?, inputs[1])?;
                Ok(inputs[0].to_vec())
            }
            Primitive::MaxPoolGather(pool) => {
                same(self.name(), "values", inputs[0], inputs[1])?;
                pool.output_shape(inputs[0])
            }
            Primitive::Fused(operation) => operation.output_shape(inputs),
        }
    }

    /// Its name, for error messages.
    pub fn name(&self) -> &'static str {
        match self {
            Primitive::Arithmetic(Arithmetic::Add) => "add",
            Primitive::Arithmetic(Arithmetic::Sub) => "sub",
            Primitive::Arithmetic(Arithmetic::Mul) => "mul",
            Primitive::Arithmetic(Arithmetic::Div) => "div",
            Primitive::Affine { .. } => "affine",
            Primitive::Map { .. } | Primitive::MapTo { .. } => "pointwise",
            Primitive::Select(Selection::NotPositive) => "if_not_positive",
            Primitive::Select(Selection::Zero) => "if_zero",
            Primitive::Select(Selection::AtMost) => "if_at_most",
            Primitive::SumTo(_) => "sum",
            Primitive::NormTo(_) => "norm",
            Primitive::BroadcastTo(_) => "broadcast_to",
            Primitive::Reshape(_) => "reshape",
            Primitive::Permute(_) => "permute",
            Primitive::Narrow { .. } => "narrow",
            Primitive::Pad { .. } => "pad",
            Primitive::Concatenate { .. } => "concatenate",
            Primitive::Linear { .. } => "linear",
            Primitive::MatMul { .. } => "matmul",
            Primitive::Convolve(_) => "conv2d",
            Primitive::ConvolveInputGradient { .. } => "conv2d_input_gradient",
            Primitive::ConvolveWeightGradient { .. } => "conv2d_weight_gradient",
            Primitive::MaxPool(_) => "max_pool2d",
            Primitive::MaxPoolScatter(_) => "max_pool2d_scatter",
            Primitive::MaxPoolGather(_) => "max_pool2d_gather",
            Primitive::Fused(operation) => operation.name(),
        }
    }
}

/// The shape a map is evaluated over; multipliers must not enlarge it.
fn map_shape(function: &Function, inputs: &[&[usize]]) -> Result<Shape> {
    let arity = function.arity();
    if inputs.len() < arity {
        check_arity(function, inputs.len())?;
    }
    let mut full = Vec::new();
    for input in &inputs[..arity] {
        full = broadcast_shape("pointwise", &full, input)?;
    }
    for multiplier in &inputs[arity..] {
        broadcasts_to("pointwise", multiplier, &full)?;
    }
    Ok(full)
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

/// The shape with another extent on one axis.
fn with_extent(shape: &[usize], axis: usize, extent: usize) -> Shape {
    let mut shape = shape.to_vec();
    shape[axis] = extent;
    shape
}

/// The shape of a batched matrix product.
fn matmul_shape(left: &[usize], transpose_left: bool, right: &[usize], transpose_right: bool) -> Result<Shape> {
    let rank = left.len();
    if rank < 2 {
        return Err(Error::ShapeRule {
            operation: "matmul",
            argument: "left",
            expected: "rank at least 2".into(),
            got: left.to_vec(),
        });
    }
    let matrix = |shape: &[usize], transpose: bool| {
        let (rows, columns) = (shape[rank - 2], shape[rank - 1]);
        if transpose { (columns, rows) } else { (rows, columns) }
    };
    let (rows, inner) = matrix(left, transpose_left);
    let mut expected = left[..rank - 2].to_vec();
    if right.len() != rank || right[..rank - 2] != expected[..] || matrix(right, transpose_right).0 != inner {
        let columns = right.last().copied().unwrap_or(1);
        expected.extend(if transpose_right { [columns, inner] } else { [inner, columns] });
        return Err(Error::ShapeMismatch { operation: "matmul", argument: "right", expected, got: right.to_vec() });
    }
    expected.extend([rows, matrix(right, transpose_right).1]);
    Ok(expected)
}

/// A tensor of a CPU engine: the engine says how a primitive is applied, and receives [`Tensor`].
pub trait PrimitiveTensor: Clone + Sized {
    /// What a tensor is made from.
    type Context: Clone;
    /// The element type.
    type Element: Scalar;
    /// The context of this tensor.
    fn primitive_context(&self) -> Self::Context;
    /// The extents.
    fn extents(&self) -> &[usize];
    /// A tensor of the given elements; their number fits the shape.
    ///
    /// # Errors
    /// The engine's own.
    fn from_elements(context: &Self::Context, elements: Vec<Self::Element>, shape: &[usize]) -> Result<Self>;
    /// The same value without gradient.
    fn detached(&self) -> Self;
    /// Applies a primitive: checks shapes with [`Primitive::output_shape`], then computes with
    /// [`kernels::evaluate`](crate::kernels::evaluate), at once or later.
    ///
    /// # Errors
    /// Those of the shape rule.
    fn apply(primitive: Primitive, inputs: &[&Self]) -> Result<Self>;
}

/// Summed down to `shape`, if it is not there yet.
fn sum_to<T: PrimitiveTensor>(tensor: &T, shape: &[usize]) -> Result<T> {
    if tensor.extents() == shape { Ok(tensor.clone()) } else { T::apply(Primitive::SumTo(shape.to_vec()), &[tensor]) }
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
fn dropped<T: PrimitiveTensor>(tensor: T, axes: &[usize], keep: bool) -> Result<T> {
    if keep {
        return Ok(tensor);
    }
    let shape = tensor.extents();
    let left = (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    T::apply(Primitive::Reshape(left), &[&tensor])
}

/// The vector-Jacobian product of a primitive: the gradient by each of the `wanted` inputs (`None`: none flows, or it is not
/// wanted), from the inputs and the output's gradient, in primitives.
///
/// # Errors
/// [`Error::SecondDerivative`] for a fused operation without one; none else for shapes that the primitive was applied to.
pub fn vjp<T: PrimitiveTensor>(
    primitive: &Primitive,
    inputs: &[T],
    gradient: &T,
    wanted: &[bool],
) -> Result<Vec<Option<T>>> {
    if !wanted.contains(&true) {
        return Ok(vec![None; inputs.len()]);
    }
    let one = |primitive: Primitive| Ok(vec![Some(T::apply(primitive, &[gradient])?)]);
    // The gradient by an input, where it is wanted.
    let of = |input: usize, make: &dyn Fn() -> Result<T>| wanted[input].then(make).transpose();
    let shape = |input: usize| inputs[input].extents();
    match primitive {
        Primitive::Arithmetic(operation) => {
            let mul = |a: &T, b: &T| T::apply(Primitive::Arithmetic(Arithmetic::Mul), &[a, b]);
            let neg = |a: &T| T::apply(Primitive::Affine { scale: -1.0, shift: 0.0 }, &[a]);
            let div = |a: &T, b: &T| T::apply(Primitive::Arithmetic(Arithmetic::Div), &[a, b]);
            let left = || match operation {
                Arithmetic::Add | Arithmetic::Sub => Ok(gradient.clone()),
                Arithmetic::Mul => mul(gradient, &inputs[1]),
                Arithmetic::Div => div(gradient, &inputs[1]),
            };
            let right = || match operation {
                Arithmetic::Add => Ok(gradient.clone()),
                Arithmetic::Sub => neg(gradient),
                Arithmetic::Mul => mul(gradient, &inputs[0]),
                Arithmetic::Div => neg(&mul(&div(gradient, &inputs[1])?, &div(&inputs[0], &inputs[1])?)?),
            };
            Ok(vec![of(0, &|| sum_to(&left()?, shape(0)))?, of(1, &|| sum_to(&right()?, shape(1)))?])
        }
        Primitive::Affine { scale, .. } => one(Primitive::Affine { scale: *scale, shift: 0.0 }),
        Primitive::Map { function, partial, scale, weighted, .. } => {
            let arity = function.arity();
            let (arguments, multipliers) = inputs.split_at(arity);
            let extents: Vec<&[usize]> = inputs.iter().map(|input| input.extents()).collect();
            let full = map_shape(function, &extents)?;
            let derivative = |partial: Vec<usize>, without: Option<usize>, target: &[usize]| {
                let mut operands: Vec<&T> = arguments.iter().collect();
                operands.extend(multipliers.iter().enumerate().filter(|(i, _)| Some(*i) != without).map(|(_, m)| m));
                operands.push(gradient);
                let (function, scale) = (function.clone(), *scale);
                let weighted = *weighted && without != Some(0);
                let map = if target == full {
                    Primitive::Map { function, partial, scale, weighted, extent: Extent::Map }
                } else {
                    Primitive::MapTo { function, partial, scale, weighted, shape: target.to_vec() }
                };
                T::apply(map, &operands)
            };
            let mut gradients = Vec::with_capacity(inputs.len());
            for input in 0..arity {
                let partial: Vec<usize> = partial.iter().copied().chain([input]).collect();
                gradients.push(of(input, &|| derivative(partial.clone(), None, shape(input)))?);
            }
            for (k, multiplier) in multipliers.iter().enumerate() {
                if !wanted[arity + k] {
                    gradients.push(None);
                    continue;
                }
                let mut derivative = derivative(partial.clone(), Some(k), multiplier.extents())?;
                if *weighted && k == 0 {
                    let zero = T::from_elements(&multiplier.primitive_context(), vec![T::Element::ZERO], &[])?;
                    derivative = T::apply(Primitive::Select(Selection::Zero), &[multiplier, &zero, &derivative])?;
                }
                gradients.push(Some(derivative));
            }
            Ok(gradients)
        }
        Primitive::MapTo { function, partial, scale, weighted, .. } => {
            // The gradient has the shape of the result, which repeats over the map's: a multiplier like another.
            let (function, partial, scale, weighted) = (function.clone(), partial.clone(), *scale, *weighted);
            vjp(&Primitive::Map { function, partial, scale, weighted, extent: Extent::Map }, inputs, gradient, wanted)
        }
        Primitive::Select(selection) => {
            // The branches' values do not matter, only which was taken.
            let zero = T::from_elements(&inputs[0].primitive_context(), vec![T::Element::ZERO], &[])?;
            let conditions = selection.conditions();
            let part = |then: &T, otherwise: &T, input: usize| {
                of(input, &|| {
                    let operands: Vec<&T> = inputs[..conditions].iter().chain([then, otherwise]).collect();
                    sum_to(&T::apply(primitive.clone(), &operands)?, shape(input))
                })
            };
            let mut gradients = vec![None; conditions];
            gradients.extend([part(gradient, &zero, conditions)?, part(&zero, gradient, conditions + 1)?]);
            Ok(gradients)
        }
        Primitive::SumTo(_) => one(Primitive::BroadcastTo(shape(0).to_vec())),
        Primitive::NormTo(_) => {
            // The direction first: the gradient over the norm, or times the input, may be out of range.
            let norms = T::apply(primitive.clone(), &[&inputs[0]])?;
            Ok(vec![Some(T::apply(Primitive::map(functions::direction()), &[&inputs[0], &norms, gradient])?)])
        }
        Primitive::BroadcastTo(_) => Ok(vec![Some(sum_to(gradient, shape(0))?)]),
        Primitive::Reshape(_) => one(Primitive::Reshape(shape(0).to_vec())),
        Primitive::Permute(order) => {
            let mut inverse = vec![0; order.len()];
            for (position, &axis) in order.iter().enumerate() {
                inverse[axis] = position;
            }
            one(Primitive::Permute(inverse))
        }
        Primitive::Narrow { axis, start, length } => {
            one(Primitive::Pad { axis: *axis, before: *start, after: shape(0)[*axis] - start - length })
        }
        Primitive::Pad { axis, before, .. } => {
            one(Primitive::Narrow { axis: *axis, start: *before, length: shape(0)[*axis] })
        }
        Primitive::Concatenate { axis } => {
            let mut start = 0;
            (0..inputs.len())
                .map(|input| {
                    let length = shape(input)[*axis];
                    let narrow = Primitive::Narrow { axis: *axis, start, length };
                    start += length;
                    of(input, &|| T::apply(narrow.clone(), &[gradient]))
                })
                .collect()
        }
        Primitive::Linear { axis, map } => one(Primitive::Linear { axis: *axis, map: map.transposed() }),
        Primitive::MatMul { transpose_left, transpose_right } => {
            let product = |a: &T, b: &T, transpose_left: bool, transpose_right: bool| {
                T::apply(Primitive::MatMul { transpose_left, transpose_right }, &[a, b])
            };
            let left = || match transpose_left {
                true => product(&inputs[1], gradient, *transpose_right, true),
                false => product(gradient, &inputs[1], false, !transpose_right),
            };
            let right = || match transpose_right {
                true => product(gradient, &inputs[0], true, *transpose_left),
                false => product(&inputs[0], gradient, !transpose_left, false),
            };
            Ok(vec![of(0, &left)?, of(1, &right)?])
        }
        // The three convolutions are each other's derivatives: the trilinear form ⟨gradient, input ⋆ weight⟩ in one of
        // its arguments.
        Primitive::Convolve(geometry) => Ok(vec![
            of(0, &|| convolve_input_gradient(*geometry, shape(0), gradient, &inputs[1]))?,
            of(1, &|| convolve_weight_gradient(*geometry, shape(1), &inputs[0], gradient))?,
        ]),
        Primitive::ConvolveInputGradient { geometry, .. } => Ok(vec![
            of(0, &|| T::apply(Primitive::Convolve(*geometry), &[gradient, &inputs[1]]))?,
            of(1, &|| convolve_weight_gradient(*geometry, shape(1), gradient, &inputs[0]))?,
        ]),
        Primitive::ConvolveWeightGradient { geometry, .. } => Ok(vec![
            of(0, &|| convolve_input_gradient(*geometry, shape(0), &inputs[1], gradient))?,
            of(1, &|| T::apply(Primitive::Convolve(*geometry), &[&inputs[0], gradient]))?,
        ]),
        Primitive::MaxPool(pool) => {
            Ok(vec![Some(T::apply(Primitive::MaxPoolScatter(*pool), &[&inputs[0], gradient])?)])
        }
        Primitive::MaxPoolScatter(pool) => {
            Ok(vec![None, of(1, &|| T::apply(Primitive::MaxPoolGather(*pool), &[&inputs[0], gradient]))?])
        }
        Primitive::MaxPoolGather(pool) => {
            Ok(vec![None, of(1, &|| T::apply(Primitive::MaxPoolScatter(*pool), &[&inputs[0], gradient]))?])
        }
        Primitive::Fused(operation) => (0..inputs.len())
            .map(|input| {
                let derivative = if wanted[input] { operation.gradient(input)? } else { None };
                let Some(derivative) = derivative else { return Ok(None) };
                let operands: Vec<&T> = inputs.iter().chain([gradient]).collect();
                T::apply(Primitive::Fused(derivative), &operands).map(Some)
            })
            .collect(),
    }
}

/// The gradient of a convolution by its input.
fn convolve_input_gradient<T: PrimitiveTensor>(
    geometry: Conv2d,
    input: &[usize],
    gradient: &T,
    weight: &T,
) -> Result<T> {
    T::apply(Primitive::ConvolveInputGradient { geometry, extents: [input[2], input[3]] }, &[gradient, weight])
}

/// The gradient of a convolution by its weight.
fn convolve_weight_gradient<T: PrimitiveTensor>(
    geometry: Conv2d,
    weight: &[usize],
    input: &T,
    gradient: &T,
) -> Result<T> {
    T::apply(Primitive::ConvolveWeightGradient { geometry, extents: [weight[2], weight[3]] }, &[input, gradient])
}

impl<T: PrimitiveTensor> Tensor for T {
    type Context = <T as PrimitiveTensor>::Context;

    fn context(&self) -> Self::Context {
        self.primitive_context()
    }
    fn shape(&self) -> Shape {
        self.extents().to_vec()
    }
    fn dtype(&self) -> DType {
        T::Element::DTYPE
    }
    fn constant(context: &Self::Context, values: &[f64], shape: &[usize]) -> Result<Self> {
        check_length("constant", values.len(), shape)?;
        T::from_elements(context, values.iter().map(|&value| T::Element::from_f64(value)).collect(), shape)
    }
    fn shared_constant(context: &Self::Context, values: &Arc<[f32]>, shape: &[usize]) -> Result<Self> {
        check_length("constant", values.len(), shape)?;
        let elements = values.iter().map(|&value| T::Element::from_f64(f64::from(value))).collect();
        T::from_elements(context, elements, shape)
    }
    fn detach(&self) -> Self {
        self.detached()
    }
    fn add(&self, other: &Self) -> Result<Self> {
        T::apply(Primitive::Arithmetic(Arithmetic::Add), &[self, other])
    }
    fn sub(&self, other: &Self) -> Result<Self> {
        T::apply(Primitive::Arithmetic(Arithmetic::Sub), &[self, other])
    }
    fn mul(&self, other: &Self) -> Result<Self> {
        T::apply(Primitive::Arithmetic(Arithmetic::Mul), &[self, other])
    }
    fn div(&self, other: &Self) -> Result<Self> {
        T::apply(Primitive::Arithmetic(Arithmetic::Div), &[self, other])
    }
    fn affine(&self, scale: f64, shift: f64) -> Result<Self> {
        T::apply(Primitive::Affine { scale, shift }, &[self])
    }
    fn unary(&self, function: Unary) -> Result<Self> {
        T::apply(Primitive::map(&Function::unary(function)), &[self])
    }
    fn if_not_positive(&self, then: &Self, otherwise: &Self) -> Result<Self> {
        T::apply(Primitive::Select(Selection::NotPositive), &[self, then, otherwise])
    }
    fn if_zero(&self, then: &Self, otherwise: &Self) -> Result<Self> {
        T::apply(Primitive::Select(Selection::Zero), &[self, then, otherwise])
    }
    fn if_at_most(&self, other: &Self, then: &Self, otherwise: &Self) -> Result<Self> {
        T::apply(Primitive::Select(Selection::AtMost), &[self, other, then, otherwise])
    }
    fn sum(&self, axes: &[usize], keep: bool) -> Result<Self> {
        let kept = without_axes("sum", self.extents(), axes)?;
        dropped(sum_to(self, &kept)?, axes, keep)
    }
    fn norm(&self, axes: &[usize], keep: bool) -> Result<Self> {
        let kept = without_axes("norm", self.extents(), axes)?;
        dropped(T::apply(Primitive::NormTo(kept), &[self])?, axes, keep)
    }
    fn broadcast_to(&self, shape: &[usize]) -> Result<Self> {
        T::apply(Primitive::BroadcastTo(shape.to_vec()), &[self])
    }
    fn reshape(&self, shape: &[usize]) -> Result<Self> {
        T::apply(Primitive::Reshape(shape.to_vec()), &[self])
    }
    fn permute(&self, order: &[usize]) -> Result<Self> {
        T::apply(Primitive::Permute(order.to_vec()), &[self])
    }
    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        T::apply(Primitive::Narrow { axis, start, length }, &[self])
    }
    fn pad(&self, axis: usize, before: usize, after: usize) -> Result<Self> {
        T::apply(Primitive::Pad { axis, before, after }, &[self])
    }
    fn concatenate(tensors: &[&Self], axis: usize) -> Result<Self> {
        T::apply(Primitive::Concatenate { axis }, tensors)
    }
    fn matmul(&self, other: &Self, transpose_self: bool, transpose_other: bool) -> Result<Self> {
        let primitive = Primitive::MatMul { transpose_left: transpose_self, transpose_right: transpose_other };
        T::apply(primitive, &[self, other])
    }
    fn convolve(&self, weight: &Self, geometry: Conv2d) -> Result<Self> {
        T::apply(Primitive::Convolve(geometry), &[self, weight])
    }
    fn max_pool2d(&self, pool: Pool2d) -> Result<Self> {
        T::apply(Primitive::MaxPool(pool), &[self])
    }
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
            one_element(factor.extents())?;
        }
        let operands: Vec<&Self> = inputs.iter().copied().chain(weight).chain(factor).collect();
        let (function, partial, weighted) = (function.clone(), Vec::new(), weight.is_some());
        T::apply(Primitive::Map { function, partial, scale, weighted, extent }, &operands)
    }
    fn map_sample_sums(function: &Function, inputs: &[&Self], scale: f64) -> Result<Self> {
        check_arity(function, inputs.len())?;
        let extents: Vec<&[usize]> = inputs.iter().map(|input| input.extents()).collect();
        let full = map_shape(function, &extents)?;
        let samples = full.first().copied().unwrap_or(1);
        let shape = full.iter().enumerate().map(|(axis, &extent)| if axis == 0 { extent } else { 1 }).collect();
        let (function, partial) = (function.clone(), Vec::new());
        let sums = Primitive::MapTo { function, partial, scale, weighted: false, shape };
        T::apply(Primitive::Reshape(vec![samples]), &[&T::apply(sums, inputs)?])
    }
    fn linear(&self, axis: usize, map: &Arc<LinearMap>) -> Result<Self> {
        T::apply(Primitive::Linear { axis, map: Arc::clone(map) }, &[self])
    }
    fn fuses(&self) -> bool {
        true
    }
    fn fused(operation: &Arc<dyn FusedOperation>, inputs: &[&Self]) -> Option<Result<Self>> {
        Some(T::apply(Primitive::Fused(Arc::clone(operation)), inputs))
    }
    fn full(context: &Self::Context, value: f64, shape: &[usize]) -> Result<Self> {
        let count = checked_count("full", "shape", shape)?;
        T::from_elements(context, vec![T::Element::from_f64(value); count], shape)
    }
}

/// Refuses a number of values that does not fill the shape; returns the number.
pub(crate) fn check_length(operation: &'static str, got: usize, shape: &[usize]) -> Result<usize> {
    let expected = checked_count(operation, "shape", shape)?;
    if expected == got { Ok(got) } else { Err(Error::Length { operation, shape: shape.to_vec(), expected, got }) }
}

/// The functions behind selections and norms, erased once.
mod functions {
    use std::sync::OnceLock;

    use crate::once::get_or_make;
    use crate::{Expr, Function, Pointwise};

    #[derive(Clone, Copy, Debug)]
    struct IfNotPositive;
    impl Pointwise<3> for IfNotPositive {
        fn value<'e>(&self, [condition, then, otherwise]: [Expr<'e>; 3]) -> Expr<'e> {
            condition.if_not_positive(then, otherwise)
        }
    }

    #[derive(Clone, Copy, Debug)]
    struct IfZero;
    impl Pointwise<3> for IfZero {
        fn value<'e>(&self, [condition, then, otherwise]: [Expr<'e>; 3]) -> Expr<'e> {
            condition.if_zero(then, otherwise)
        }
    }

    #[derive(Clone, Copy, Debug)]
    struct IfAtMost;
    impl Pointwise<4> for IfAtMost {
        fn value<'e>(&self, [x, y, then, otherwise]: [Expr<'e>; 4]) -> Expr<'e> {
            x.if_at_most(y, then, otherwise)
        }
    }

    /// x/n, 0 where n is 0.
    #[derive(Clone, Copy, Debug)]
    struct Direction;
    impl Pointwise<2> for Direction {
        fn value<'e>(&self, [x, norm]: [Expr<'e>; 2]) -> Expr<'e> {
            // The divisor is replaced before dividing: no infinity arises in the branch that is not taken.
            norm.if_zero(norm.constant(0.0), x / norm.if_zero(norm.constant(1.0), norm))
        }
    }

    /// A norm's derivative by its elements.
    pub(super) fn direction() -> &'static Function {
        static DIRECTION: OnceLock<Function> = OnceLock::new();
        get_or_make(&DIRECTION, || Function::new(Direction))
    }

    impl super::Selection {
        /// The selection as a pointwise function.
        pub(crate) fn function(self) -> &'static Function {
            static NOT_POSITIVE: OnceLock<Function> = OnceLock::new();
            static ZERO: OnceLock<Function> = OnceLock::new();
            static AT_MOST: OnceLock<Function> = OnceLock::new();
            match self {
                super::Selection::NotPositive => get_or_make(&NOT_POSITIVE, || Function::new(IfNotPositive)),
                super::Selection::Zero => get_or_make(&ZERO, || Function::new(IfZero)),
                super::Selection::AtMost => get_or_make(&AT_MOST, || Function::new(IfAtMost)),
            }
        }
    }
}
