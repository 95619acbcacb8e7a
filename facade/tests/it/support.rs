//! What several of the tests make.
#![cfg(feature = "ndarray")]

use image_losses::AnyTensor;
use image_losses::core::Differentiable;
use image_losses::ndarray::NdTensor;

/// A tensor that gradients can be asked for.
pub(crate) fn leaf(values: Vec<f64>, shape: &[usize]) -> AnyTensor<'static> {
    NdTensor::from_vec(values, shape).unwrap().leaf().unwrap().into()
}
