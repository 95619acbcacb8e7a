//! The least a tensor engine can be: the required methods of the trait, one element after another, nothing overridden.

use image_losses_core::{Conv2d, DType, Error, Pool2d, Primitive, Result, Shape, Tensor, Unary, checked_count};
use ndarray::{ArrayD, Axis, IxDyn, Slice, Zip};

/// Numbers in double precision; every operation makes new ones.
#[derive(Clone, Debug)]
pub struct Plain(ArrayD<f64>);

impl Plain {
    /// A tensor of these elements.
    ///
    /// # Panics
    /// Where they do not fill the shape.
    pub fn new(values: &[f64], shape: &[usize]) -> Self {
        Plain(ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap())
    }
    /// The elements, row-major.
    pub fn values(&self) -> Vec<f64> {
        self.0.iter().copied().collect()
    }
    /// Refuses a shape that the operation does not take.
    fn rule(&self, operation: Primitive) -> Result<Shape> {
        operation.output_shape(&[self.0.shape()])
    }
    fn zip(&self, other: &Self, operation: &'static str, f: impl Fn(f64, f64) -> f64) -> Result<Self> {
        let (left, right) = (self.0.shape(), other.0.shape());
        let rank = left.len().max(right.len());
        let extent =
            |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
        let shape: Shape = (0..rank)
            .map(|axis| match (extent(left, axis), extent(right, axis)) {
                (1, b) => Ok(b),
                (a, b) if a == b || b == 1 => Ok(a),
                _ => Err(Error::Broadcast { operation, left: left.to_vec(), right: right.to_vec() }),
            })
            .collect::<Result<_>>()?;
        let (a, b) = (self.0.broadcast(IxDyn(&shape)).unwrap(), other.0.broadcast(IxDyn(&shape)).unwrap());
        Ok(Plain(Zip::from(&a).and(&b).map_collect(|&a, &b| f(a, b))))
    }
    fn choose(&self, then: &Self, otherwise: &Self, test: impl Fn(f64) -> bool) -> Result<Self> {
        // The branches are never multiplied: what is not taken may be infinite or NaN.
        let (zero, operation) = (self.zip(self, "choose", |_, _| 0.0)?, "choose");
        let zero = zero.zip(then, operation, |_, _| 0.0)?.zip(otherwise, operation, |_, _| 0.0)?;
        let spread = |x: &Self| zero.zip(x, operation, |_, x| x);
        let (condition, then, otherwise) = (spread(self)?, spread(then)?, spread(otherwise)?);
        let mut out = otherwise.0;
        Zip::from(&mut out).and(&condition.0).and(&then.0).for_each(|out, &condition, &then| {
            if condition.is_nan() {
                *out = condition;
            } else if test(condition) {
                *out = then;
            }
        });
        Ok(Plain(out))
    }
}

impl Tensor for Plain {
    type Context = ();

    fn context(&self) {}
    fn shape(&self) -> Shape {
        self.0.shape().to_vec()
    }
    fn dtype(&self) -> DType {
        DType::F64
    }
    fn constant((): &(), values: &[f64], shape: &[usize]) -> Result<Self> {
        let (expected, got) = (checked_count("constant", "shape", shape)?, values.len());
        if expected != got {
            return Err(Error::Length { operation: "constant", shape: shape.to_vec(), expected, got });
        }
        Ok(Plain::new(values, shape))
    }
    fn detach(&self) -> Self {
        self.clone()
    }
    fn add(&self, other: &Self) -> Result<Self> {
        self.zip(other, "add", |a, b| a + b)
    }
    fn sub(&self, other: &Self) -> Result<Self> {
        self.zip(other, "sub", |a, b| a - b)
    }
    fn mul(&self, other: &Self) -> Result<Self> {
        self.zip(other, "mul", |a, b| a * b)
    }
    fn div(&self, other: &Self) -> Result<Self> {
        self.zip(other, "div", |a, b| a / b)
    }
    fn affine(&self, scale: f64, shift: f64) -> Result<Self> {
        Ok(Plain(self.0.mapv(|x| x * scale + shift)))
    }
    fn unary(&self, function: Unary) -> Result<Self> {
        Ok(Plain(self.0.mapv(|x| match function {
            Unary::Abs => x.abs(),
            Unary::Sign if x == 0.0 => 0.0,
            Unary::Sign => x.signum(),
            Unary::Square => x * x,
            Unary::Sqrt => x.sqrt(),
            Unary::Exp => x.exp(),
            Unary::Ln => x.ln(),
            Unary::Tanh => x.tanh(),
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Unary::LogSigmoid => x.min(0.0) - (-x.abs()).exp().ln_1p(),
            // Not `max`, which takes 0 for NaN.
            Unary::Relu if x <= 0.0 => 0.0,
            Unary::Relu => x,
        })))
    }
    fn if_not_positive(&self, then: &Self, otherwise: &Self) -> Result<Self> {
        self.choose(then, otherwise, |x| x <= 0.0)
    }
    fn if_zero(&self, then: &Self, otherwise: &Self) -> Result<Self> {
        self.choose(then, otherwise, |x| x == 0.0)
    }
    fn if_at_most(&self, other: &Self, then: &Self, otherwise: &Self) -> Result<Self> {
        let sign = self.zip(other, "if_at_most", |x, y| match x.partial_cmp(&y) {
            Some(order) => f64::from(u8::from(order.is_gt())),
            None => f64::NAN,
        });
        sign?.choose(then, otherwise, |x| x <= 0.0)
    }
    fn sum(&self, axes: &[usize], keep: bool) -> Result<Self> {
        if axes.iter().enumerate().any(|(i, &axis)| axis >= self.rank() || axes[..i].contains(&axis)) {
            let expected = format!("the axes {axes:?}, each once");
            return Err(Error::ShapeRule { operation: "sum", argument: "input", expected, got: self.shape() });
        }
        let mut sum = self.0.clone();
        for &axis in axes {
            sum = sum.sum_axis(Axis(axis)).insert_axis(Axis(axis));
        }
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        for &axis in axes.iter().rev().filter(|_| !keep) {
            sum = sum.index_axis_move(Axis(axis), 0);
        }
        Ok(Plain(sum))
    }
    fn broadcast_to(&self, shape: &[usize]) -> Result<Self> {
        self.rule(Primitive::BroadcastTo(shape.to_vec()))?;
        Ok(Plain(self.0.broadcast(IxDyn(shape)).unwrap().to_owned()))
    }
    fn reshape(&self, shape: &[usize]) -> Result<Self> {
        self.rule(Primitive::Reshape(shape.to_vec()))?;
        Ok(Plain::new(&self.values(), shape))
    }
    fn permute(&self, order: &[usize]) -> Result<Self> {
        self.rule(Primitive::Permute(order.to_vec()))?;
        Ok(Plain(self.0.clone().permuted_axes(order)))
    }
    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        self.rule(Primitive::Narrow { axis, start, length })?;
        Ok(Plain(self.0.slice_axis(Axis(axis), Slice::from(start..start + length)).to_owned()))
    }
    fn pad(&self, axis: usize, before: usize, after: usize) -> Result<Self> {
        self.rule(Primitive::Pad { axis, before, after })?;
        let zeros = |length: usize| {
            let mut shape = self.shape();
            shape[axis] = length;
            Plain(ArrayD::zeros(IxDyn(&shape)))
        };
        Self::concatenate(&[&zeros(before), self, &zeros(after)], axis)
    }
    fn concatenate(tensors: &[&Self], axis: usize) -> Result<Self> {
        let shapes: Vec<&[usize]> = tensors.iter().map(|tensor| tensor.0.shape()).collect();
        Primitive::Concatenate { axis }.output_shape(&shapes)?;
        let views: Vec<_> = tensors.iter().map(|tensor| tensor.0.view()).collect();
        Ok(Plain(ndarray::concatenate(Axis(axis), &views).unwrap()))
    }
    fn matmul(&self, other: &Self, transpose_self: bool, transpose_other: bool) -> Result<Self> {
        let rule = Primitive::MatMul { transpose_left: transpose_self, transpose_right: transpose_other };
        rule.output_shape(&[self.0.shape(), other.0.shape()])?;
        if self.rank() != 2 {
            // Two axes are all that the losses here need.
            return Err(Error::Unsupported { operation: "batched matmul", engine: "plain" });
        }
        let matrix = |x: &Self, transpose: bool| {
            let matrix = x.0.clone().into_dimensionality::<ndarray::Ix2>().unwrap();
            if transpose { matrix.reversed_axes() } else { matrix }
        };
        Ok(Plain(matrix(self, transpose_self).dot(&matrix(other, transpose_other)).into_dyn()))
    }
    fn convolve(&self, _: &Self, _: Conv2d) -> Result<Self> {
        Err(Error::Unsupported { operation: "convolve", engine: "plain" })
    }
    fn max_pool2d(&self, _: Pool2d) -> Result<Self> {
        Err(Error::Unsupported { operation: "max_pool2d", engine: "plain" })
    }
}
