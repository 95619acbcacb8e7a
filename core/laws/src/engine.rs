//! What computes a loss.

use image_losses_autograd::{Element, run};
use image_losses_core::{DType, Differentiable, Result, Scalar, Tensor};
use image_losses_ndarray::NdTensor;

use crate::{Case, Lawful, Plain};

/// Value, gradients, and the gradients of Σ direction·gradient where a direction was given.
pub type Derived = (Vec<f64>, Vec<Vec<f64>>, Vec<Vec<f64>>);

/// A tensor engine with derivatives.
pub trait Engine {
    /// It is this workspace's CPU code: what concerns its kernels alone is checked, too.
    const CPU: bool;
    /// The fraction of the cases that is drawn, 1 / this: an engine with a cost per operation takes fewer.
    const SPARSE: u32 = 1;
    /// The element types beyond double and single precision in which gradients must be finite, with their largest
    /// numbers to try.
    const HALVES: &'static [(DType, f64)] = &[];

    /// The value alone.
    ///
    /// # Errors
    /// The loss's and the engine's.
    fn value<const K: usize>(&self, loss: &impl Lawful<K>, case: &Case<K>, dtype: DType) -> Result<Vec<f64>> {
        Ok(self.derived(loss, case, dtype, None)?.0)
    }

    /// The value in double precision on each of its engines without derivatives; none by default.
    ///
    /// # Errors
    /// The loss's and the engine's.
    fn more_values<const K: usize>(&self, _: &impl Lawful<K>, _: &Case<K>) -> Vec<Result<Vec<f64>>> {
        Vec::new()
    }

    /// Value and derivatives; [`derive()`] does it on tensors.
    ///
    /// # Errors
    /// The loss's and the engine's.
    fn derived<const K: usize>(
        &self,
        loss: &impl Lawful<K>,
        case: &Case<K>,
        dtype: DType,
        direction: Option<&[Vec<f64>]>,
    ) -> Result<Derived>;
}

/// Value, gradients, and with a direction the gradients of Σ direction·gradient, as tensors; zeros where an input has
/// no influence.
///
/// # Errors
/// The loss's and the engine's.
pub fn derive<const K: usize, T: Differentiable>(
    loss: &impl Lawful<K>,
    inputs: &[T],
    weight: Option<&T>,
    direction: Option<&[Vec<f64>]>,
) -> Result<(T, Vec<T>, Vec<T>)> {
    let wanted: Vec<&T> = inputs.iter().collect();
    let or_zero = |gradients: Vec<Option<T>>| -> Result<Vec<T>> {
        let gradients = gradients.into_iter().zip(inputs);
        // Not the input times 0, which is NaN where it is infinite.
        let zeros = |input: &T| T::full(&input.context(), 0.0, &input.shape());
        gradients.map(|(gradient, input)| gradient.map_or_else(|| zeros(input), Ok)).collect()
    };
    let value = loss.apply(std::array::from_fn(|k| &inputs[k]), weight)?;
    assert_eq!(value.dtype(), inputs[0].dtype(), "the value's element type");
    let first = or_zero(T::gradients(&value, &wanted, true)?)?;
    assert!(first.iter().all(|gradient| gradient.dtype() == inputs[0].dtype()), "the gradients' element type");
    let mut second = Vec::new();
    if let Some(direction) = direction {
        let mut along = inputs[0].affine(0.0, 0.0)?.sum_all()?;
        for ((gradient, direction), input) in first.iter().zip(direction).zip(inputs) {
            let direction = T::constant(&gradient.context(), direction, &input.shape())?;
            along = along.add(&gradient.mul(&direction)?.sum_all()?.reshape(&along.shape())?)?;
        }
        second = or_zero(T::gradients(&along, &wanted, false)?)?;
    }
    Ok((value, first, second))
}

/// This workspace's CPU engines: ndarray, one with nothing overridden, and autograd.
#[derive(Clone, Copy, Debug)]
pub struct Cpu;

impl Engine for Cpu {
    const CPU: bool = true;

    fn value<const K: usize>(&self, loss: &impl Lawful<K>, case: &Case<K>, dtype: DType) -> Result<Vec<f64>> {
        let value =
            if dtype == DType::F32 { on_ndarray::<K, f32>(loss, case) } else { on_ndarray::<K, f64>(loss, case) };
        value.unwrap_or_else(|| Ok(self.derived(loss, case, dtype, None)?.0))
    }

    fn more_values<const K: usize>(&self, loss: &impl Lawful<K>, case: &Case<K>) -> Vec<Result<Vec<f64>>> {
        let inputs: [Plain; K] = std::array::from_fn(|k| Plain::new(&case.inputs[k], &case.shapes[k]));
        let weight = case.weight.as_ref().map(|(values, shape)| Plain::new(values, shape));
        let value = loss.apply_plainly(std::array::from_fn(|k| &inputs[k]), weight.as_ref());
        value.map(|value| value.map(|value| value.values())).into_iter().collect()
    }

    fn derived<const K: usize>(
        &self,
        loss: &impl Lawful<K>,
        case: &Case<K>,
        dtype: DType,
        direction: Option<&[Vec<f64>]>,
    ) -> Result<Derived> {
        if dtype == DType::F32 {
            on_autograd::<K, f32>(loss, case, direction)
        } else {
            on_autograd::<K, f64>(loss, case, direction)
        }
    }
}

fn on_ndarray<const K: usize, F: Scalar>(loss: &impl Lawful<K>, case: &Case<K>) -> Option<Result<Vec<f64>>> {
    let tensor = |values: &[f64], shape: &[usize]| NdTensor::<F>::constant(&(), values, shape).expect("a full shape");
    let inputs: [_; K] = std::array::from_fn(|k| tensor(&case.inputs[k], &case.shapes[k]));
    let weight = case.weight.as_ref().map(|(values, shape)| tensor(values, shape));
    let out = loss.apply_plainly(std::array::from_fn(|k| &inputs[k]), weight.as_ref())?;
    Some(out.map(|out| out.array().iter().map(|v| v.to_f64()).collect()))
}

fn on_autograd<const K: usize, F: Element>(
    loss: &impl Lawful<K>,
    case: &Case<K>,
    direction: Option<&[Vec<f64>]>,
) -> Result<Derived> {
    let convert = |values: &[f64]| values.iter().map(|&v| F::from_f64(v)).collect::<Vec<F>>();
    run(|session| {
        let mut inputs = Vec::new();
        for (values, shape) in case.inputs.iter().zip(&case.shapes) {
            inputs.push(session.input(convert(values), shape)?);
        }
        let weight = case.weight.as_ref().map(|(values, shape)| session.input(convert(values), shape)).transpose()?;
        let (value, first, second) = derive(loss, &inputs, weight.as_ref(), direction)?;
        let asked: Vec<_> = [&value].into_iter().chain(&first).chain(&second).collect();
        let mut results = session
            .evaluate(&asked)?
            .into_iter()
            .map(|values| values.into_iter().map(Scalar::to_f64).collect::<Vec<f64>>());
        let value = results.next().unwrap_or_default();
        let gradients = results.by_ref().take(K).collect();
        Ok((value, gradients, results.collect()))
    })
}
