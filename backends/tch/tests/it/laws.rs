//! Every loss of every family, held to the laws on libtorch: against central differences, and against the CPU engines.

use image_losses_core::{DType, Result};
use image_losses_laws::{Case, Derived, Engine, Lawful, derive, operations};
use image_losses_tch::TchTensor;
use tch::Kind;

/// libtorch on the CPU.
pub(crate) struct Tch;
pub(crate) const ENGINE: Tch = Tch;

#[path = "../../../../composition/tests/it/laws.rs"]
mod composition;
#[path = "../../../../gan/tests/it/laws.rs"]
mod gan;
#[path = "../../../../penalties/tests/it/laws.rs"]
mod penalties;
#[path = "../../../../perceptual/tests/it/laws/losses.rs"]
mod perceptual;
#[path = "../../../../perceptual/tests/it/laws/networks.rs"]
mod perceptual_networks;
#[path = "../../../../pixelwise/tests/it/laws.rs"]
mod pixelwise;

#[test]
fn tensor_operations() {
    let context = (Kind::Double, tch::Device::Cpu);
    operations::extents(&context, &TchTensor::values);
    operations::overflows::<TchTensor>(&context);
    operations::ignored_inputs(&context, &TchTensor::values);
    operations::extents_of_gradients(&context, &TchTensor::values);
    operations::weights_of_zero(&context, &TchTensor::values);
    operations::nan(&context, &TchTensor::values);
}

/// The inputs, with a history to come or without, and the weight.
fn tensors<const K: usize>(
    case: &Case<K>,
    dtype: DType,
    requires_grad: bool,
) -> Result<([TchTensor; K], Option<TchTensor>)> {
    // Tensors of a few elements: more threads only wait for one another.
    tch::set_num_threads(1);
    let kind = match dtype {
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::F32 => Kind::Float,
        _ => Kind::Double,
    };
    let tensor = |values: &[f64], shape: &[usize]| {
        let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
        tch::Tensor::from_slice(values).reshape(shape).to_kind(kind)
    };
    let input = |k: usize| tensor(&case.inputs[k], &case.shapes[k]).set_requires_grad(requires_grad);
    let inputs = (0..K).map(|k| TchTensor::own(input(k))).collect::<Result<Vec<_>>>()?;
    let weight = case.weight.as_ref().map(|(values, shape)| TchTensor::own(tensor(values, shape))).transpose()?;
    Ok((inputs.try_into().expect("K inputs"), weight))
}

impl Engine for Tch {
    const CPU: bool = false;
    const SPARSE: u32 = 8;

    fn value<const K: usize>(&self, loss: &impl Lawful<K>, case: &Case<K>, dtype: DType) -> Result<Vec<f64>> {
        let (inputs, weight) = tensors(case, dtype, false)?;
        loss.apply(inputs.each_ref(), weight.as_ref())?.values()
    }

    fn derived<const K: usize>(
        &self,
        loss: &impl Lawful<K>,
        case: &Case<K>,
        dtype: DType,
        direction: Option<&[Vec<f64>]>,
    ) -> Result<Derived> {
        let (inputs, weight) = tensors(case, dtype, true)?;
        let (value, first, second) = derive(loss, &inputs, weight.as_ref(), direction)?;
        let numbers = |tensors: &[TchTensor]| tensors.iter().map(TchTensor::values).collect::<Result<Vec<_>>>();
        Ok((value.values()?, numbers(&first)?, numbers(&second)?))
    }
}
