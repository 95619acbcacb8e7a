//! What several tests use.
#![allow(dead_code)]

use image_losses_autograd::{AgTensor, differentiate};
use image_losses_core::{Result, Tensor};
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::checkpoint::Checkpoint;

/// Numbers in (−1, 1), the same for the same seed.
pub(crate) fn values(seed: u64, shape: &[usize]) -> Vec<f64> {
    let checkpoint = Checkpoint::seeded(&[("bias".to_owned(), vec![shape.iter().product()])], seed).unwrap();
    let values = checkpoint.get("bias").unwrap().to_f32().unwrap();
    values.into_iter().map(|value| 10.0 * f64::from(value)).collect()
}

/// A tensor of the ndarray engine.
pub(crate) fn tensor(values: &[f64], shape: &[usize]) -> NdTensor<'static, f64> {
    Tensor::constant(&(), values, shape).unwrap()
}

/// A tensor's elements.
pub(crate) fn elements(tensor: &NdTensor<'_, f64>) -> Vec<f64> {
    tensor.array().iter().copied().collect()
}

/// How far the gradient by the first input, along one direction, is from the central difference of the value: for
/// networks too large to step along every pixel.
pub(crate) fn directional_error(
    inputs: &[(Vec<f64>, Vec<usize>)],
    step: f64,
    differentiable: impl for<'g> Fn(&[AgTensor<'g, f64>]) -> Result<AgTensor<'g, f64>>,
    value: impl Fn(&NdTensor<'static, f64>) -> Result<f64>,
) -> f64 {
    let (_, gradients) = differentiate(inputs, differentiable).unwrap();
    assert!(gradients[1..].iter().flatten().all(|g| *g == 0.0), "the target carries no gradient");
    let (x, shape) = &inputs[0];
    let direction = values(99, shape);
    let at = |step: f64| {
        let moved: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
        value(&tensor(&moved, shape)).unwrap()
    };
    let difference = (at(step) - at(-step)) / (2.0 * step);
    let slope: f64 = gradients[0].iter().zip(&direction).map(|(g, d)| g * d).sum();
    (slope - difference).abs() / slope.abs().max(difference.abs())
}
