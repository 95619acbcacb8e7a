//! Third derivatives on arrays against central differences of second ones.
#![cfg(all(feature = "composition", feature = "gan", feature = "ndarray", feature = "pixelwise"))]

use image_losses::composition::CharbonnierCompLoss;
use image_losses::core::gradcheck::check_gradient;
use image_losses::core::{Differentiable, Loss, Result, Tensor};
use image_losses::gan::{GanLoss, GanType, On, Side};
use image_losses::ndarray::NdTensor;
use image_losses::pixelwise::CharbonnierLoss;

const SHAPE: [usize; 4] = [2, 1, 2, 3];

/// Numbers in (−1, 1) that look random.
fn numbers(seed: usize) -> Vec<f64> {
    (0..12).map(|i| ((i + 1) * 7919 + seed * 104_729) % 1009).map(|i| i as f64 / 504.5 - 1.0).collect()
}

fn tensor(values: &[f64]) -> Result<NdTensor<'static, f64>> {
    NdTensor::from_vec(values.to_vec(), &SHAPE)
}

/// Σ direction · (gradient of `value` by all inputs), recorded.
fn along<'a>(value: &NdTensor<'a, f64>, inputs: &[NdTensor<'a, f64>], seed: usize) -> Result<NdTensor<'a, f64>> {
    let gradients = NdTensor::gradients(value, &inputs.iter().collect::<Vec<_>>(), true)?;
    let mut sum = NdTensor::full(&(), 0.0, &[])?;
    for (k, gradient) in gradients.iter().enumerate() {
        let Some(gradient) = gradient else { continue };
        sum = sum.add(&gradient.mul(&tensor(&numbers(seed + k))?)?.sum_all()?)?;
    }
    Ok(sum)
}

#[track_caller]
fn has_third_derivatives<const K: usize>(loss: &impl Loss<K>) {
    let weight = tensor(&numbers(20).iter().map(|x| x.abs()).collect::<Vec<_>>()).unwrap();
    let second = |inputs: &[Vec<f64>]| {
        let leaves = inputs.iter().map(|input| tensor(input)?.leaf()).collect::<Result<Vec<_>>>()?;
        let value = loss.forward(std::array::from_fn(|k| &leaves[k]), Some(&weight))?;
        Ok((along(&along(&value, &leaves, 30)?, &leaves, 40)?, leaves))
    };
    let inputs: Vec<Vec<f64>> = (0..K).map(numbers).collect();
    let value = |inputs: &[Vec<f64>]| second(inputs)?.0.item();
    let third = |inputs: &[Vec<f64>]| {
        let (second, leaves) = second(inputs)?;
        let gradients = NdTensor::gradients(&second, &leaves.iter().collect::<Vec<_>>(), false)?;
        let numbers = |gradient: Option<NdTensor<'_, f64>>| gradient.map(|x| x.array().iter().copied().collect());
        Ok(gradients.into_iter().map(|gradient| numbers(gradient).unwrap_or_else(|| vec![0.0; 12])).collect())
    };
    // Truncation is h²/6 of the fifth derivative over the third: with ε = 0.1 some 100 · h². Rounding is 1e-16/h.
    let worst = check_gradient(&inputs, 1e-5, value, third).unwrap().unwrap();
    assert!(worst.error < 1e-6, "{worst:?}");
}

#[test]
fn of_three_losses() {
    let eps = 0.1;
    has_third_derivatives(&CharbonnierLoss { eps, ..Default::default() });
    let options = CharbonnierCompLoss { eps, ..Default::default() };
    has_third_derivatives(&options);
    let vanilla = GanLoss::new(GanType::Vanilla);
    let criterion = vanilla.criterion(Side::Discriminator, On::Real).unwrap();
    has_third_derivatives(&criterion);
}
