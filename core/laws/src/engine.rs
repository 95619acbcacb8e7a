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

    /// As [`derived`](Engine::derived), on each of its other engines with derivatives and in other ways; none by default.
    ///
    /// # Errors
    /// The loss's and the engine's.
    fn more_derived<const K: usize>(
        &self,
        _: &impl Lawful<K>,
        _: &Case<K>,
        _: DType,
        _: Option<&[Vec<f64>]>,
    ) -> Vec<Result<Derived>> {
        Vec::new()
    }

    /// Value and gradients the way a training step has them, where they are not recorded in turn; as
    /// [`derived`](Engine::derived) by default.
    ///
    /// # Errors
    /// The loss's and the engine's.
    fn trained<const K: usize>(&self, loss: &impl Lawful<K>, case: &Case<K>, dtype: DType) -> Result<Derived> {
        self.derived(loss, case, dtype, None)
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

/// This workspace's CPU engines: ndarray, and beside it one with nothing overridden, and autograd.
#[derive(Clone, Copy, Debug)]
pub struct Cpu;

impl Engine for Cpu {
    const CPU: bool = true;

    fn value<const K: usize>(&self, loss: &impl Lawful<K>, case: &Case<K>, dtype: DType) -> Result<Vec<f64>> {
        if dtype == DType::F32 { value::<K, f32>(loss, case) } else { value::<K, f64>(loss, case) }
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
            on_ndarray::<K, f32>(loss, case, direction)
        } else {
            on_ndarray::<K, f64>(loss, case, direction)
        }
    }

    fn trained<const K: usize>(&self, loss: &impl Lawful<K>, case: &Case<K>, dtype: DType) -> Result<Derived> {
        if dtype == DType::F32 { in_one_pass::<K, f32>(loss, case) } else { in_one_pass::<K, f64>(loss, case) }
    }

    fn more_derived<const K: usize>(
        &self,
        loss: &impl Lawful<K>,
        case: &Case<K>,
        dtype: DType,
        direction: Option<&[Vec<f64>]>,
    ) -> Vec<Result<Derived>> {
        let mut derived = vec![if dtype == DType::F32 {
            on_autograd::<K, f32>(loss, case, direction)
        } else {
            on_autograd::<K, f64>(loss, case, direction)
        }];
        if direction.is_none() {
            derived.push(self.trained(loss, case, dtype));
        }
        derived
    }
}

/// The inputs, and the weight.
type Arrays<F> = (Vec<NdTensor<'static, F>>, Option<NdTensor<'static, F>>);

/// A case's numbers as arrays.
fn arrays<const K: usize, F: Scalar>(case: &Case<K>) -> Result<Arrays<F>> {
    let array = |values: &[f64], shape: &[usize]| NdTensor::constant(&(), values, shape);
    let inputs =
        case.inputs.iter().zip(&case.shapes).map(|(values, shape)| array(values, shape)).collect::<Result<_>>()?;
    let weight = case.weight.as_ref().map(|(values, shape)| array(values, shape)).transpose()?;
    Ok((inputs, weight))
}

/// The same, that gradients can be asked for.
fn leaves<F: Scalar>(tensors: &[NdTensor<'static, F>]) -> Result<Vec<NdTensor<'static, F>>> {
    tensors.iter().map(NdTensor::leaf).collect()
}

fn numbers<F: Scalar>(tensor: &NdTensor<'_, F>) -> Vec<f64> {
    tensor.array().iter().map(|value| value.to_f64()).collect()
}

/// The value, recorded only where the loss differentiates inside.
fn value<const K: usize, F: Scalar>(loss: &impl Lawful<K>, case: &Case<K>) -> Result<Vec<f64>> {
    let (inputs, weight) = arrays::<K, F>(case)?;
    let all = std::array::from_fn(|k| &inputs[k]);
    match loss.apply_plainly(all, weight.as_ref()) {
        Some(value) => Ok(numbers(&value?)),
        None => Ok(numbers(&loss.apply(all, weight.as_ref())?)),
    }
}

fn on_ndarray<const K: usize, F: Scalar>(
    loss: &impl Lawful<K>,
    case: &Case<K>,
    direction: Option<&[Vec<f64>]>,
) -> Result<Derived> {
    let (inputs, weight) = arrays::<K, F>(case)?;
    let inputs = leaves(&inputs)?;
    let weight = weight.as_ref().map(NdTensor::leaf).transpose()?;
    let (value, first, second) = derive(loss, &inputs, weight.as_ref(), direction)?;
    let all = |tensors: &[NdTensor<'_, F>]| tensors.iter().map(numbers).collect();
    Ok((numbers(&value), all(&first), all(&second)))
}

/// Value and gradients where these are not recorded in turn: those of sums come with the value.
fn in_one_pass<const K: usize, F: Scalar>(loss: &impl Lawful<K>, case: &Case<K>) -> Result<Derived> {
    let (inputs, weight) = arrays::<K, F>(case)?;
    let inputs = leaves(&inputs)?;
    let value = loss.apply(std::array::from_fn(|k| &inputs[k]), weight.as_ref())?;
    let gradients = NdTensor::gradients(&value, &inputs.iter().collect::<Vec<_>>(), false)?;
    let or_zeros = |(gradient, input): (Option<NdTensor<'_, F>>, &Vec<f64>)| {
        gradient.as_ref().map_or_else(|| vec![0.0; input.len()], numbers)
    };
    Ok((numbers(&value), gradients.into_iter().zip(&case.inputs).map(or_zeros).collect(), Vec::new()))
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
            .map(|values| values.into_iter().map(image_losses_core::Element::to_f64).collect::<Vec<f64>>());
        let value = results.next().unwrap_or_default();
        let gradients = results.by_ref().take(K).collect();
        Ok((value, gradients, results.collect()))
    })
}
