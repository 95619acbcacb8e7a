//! The least a tensor engine can be: the required methods, and the operations that everything else is composed of.

use image_losses_core::{DType, Error, Extent, Literal, Op, Result, Shape, Tensor};
use ndarray::{Array2, ArrayD, Axis, IxDyn, Slice};

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
    /// The elements repeated to a shape, row-major.
    fn repeated(&self, shape: &[usize]) -> Vec<f64> {
        self.0.broadcast(IxDyn(shape)).unwrap().iter().copied().collect()
    }
}

/// Summed over the axes that the shape does not have, or has with an extent of 1.
fn sum_to(x: &ArrayD<f64>, shape: &[usize]) -> ArrayD<f64> {
    let mut sum = x.clone();
    while sum.ndim() > shape.len() {
        sum = sum.sum_axis(Axis(0));
    }
    for (axis, &extent) in shape.iter().enumerate() {
        if sum.shape()[axis] != extent {
            sum = sum.sum_axis(Axis(axis)).insert_axis(Axis(axis));
        }
    }
    sum
}

/// Batches of matrices multiplied one by one.
fn matmul(a: &Plain, b: &Plain, [transpose_a, transpose_b]: [bool; 2], shape: &[usize]) -> Plain {
    let matrices = |x: &Plain, transpose: bool| -> Vec<Array2<f64>> {
        let rank = x.0.ndim();
        let (rows, columns) = (x.0.shape()[rank - 2], x.0.shape()[rank - 1]);
        let batch: usize = x.0.shape()[..rank - 2].iter().product();
        let values = x.values();
        let matrix = |i: usize| values[i * rows * columns..][..rows * columns].to_vec();
        let matrix = |i: usize| Array2::from_shape_vec((rows, columns), matrix(i)).unwrap();
        (0..batch).map(|i| if transpose { matrix(i).reversed_axes() } else { matrix(i) }).collect()
    };
    let (left, right) = (matrices(a, transpose_a), matrices(b, transpose_b));
    let products = left.iter().zip(&right).flat_map(|(a, b)| a.dot(b).iter().copied().collect::<Vec<_>>());
    Plain::new(&products.collect::<Vec<_>>(), shape)
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
    fn literal((): &(), literal: Literal<'_>, shape: &[usize]) -> Result<Self> {
        Ok(Plain::new(&literal.elements::<f64>(shape.iter().product()), shape))
    }
    fn detach(&self) -> Self {
        self.clone()
    }
    fn apply(op: &Op, inputs: &[&Self], shape: &[usize]) -> Result<Option<Self>> {
        let Some(first) = inputs.first() else {
            return Err(Error::InputCount { operation: op.name(), expected: 1, got: 0 });
        };
        Ok(Some(match op {
            Op::Map { function, partial, scale, extent: Extent::Map, .. }
                if partial.is_empty() && *scale == 1.0 && inputs.len() == function.arity() =>
            {
                let inputs: Vec<Vec<f64>> = inputs.iter().map(|input| input.repeated(shape)).collect();
                let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
                Plain::new(&function.at(&[], &slices)?, shape)
            }
            Op::SumTo(_) => Plain(sum_to(&first.0, shape)),
            Op::BroadcastTo(_) => Plain::new(&first.repeated(shape), shape),
            Op::Reshape(_) => Plain::new(&first.values(), shape),
            Op::Permute(order) => Plain(first.0.clone().permuted_axes(&order[..])),
            Op::Narrow { axis, start, length } => {
                Plain(first.0.slice_axis(Axis(*axis), Slice::from(*start..start + length)).to_owned())
            }
            Op::Pad { axis, before, .. } => {
                let mut padded = ArrayD::zeros(IxDyn(shape));
                let inside = Slice::from(*before..before + first.0.shape()[*axis]);
                padded.slice_axis_mut(Axis(*axis), inside).assign(&first.0);
                Plain(padded)
            }
            Op::Concatenate { axis } => {
                let views: Vec<_> = inputs.iter().map(|input| input.0.view()).collect();
                Plain(ndarray::concatenate(Axis(*axis), &views).unwrap())
            }
            Op::MatMul { transpose_left, transpose_right } => {
                matmul(first, inputs[1], [*transpose_left, *transpose_right], shape)
            }
            _ => return Ok(None),
        }))
    }
}
