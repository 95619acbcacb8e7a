//! What the tests share.

use image_losses_autograd::{AgTensor, run};
use image_losses_core::gradcheck::{STEP, check_gradient};
use image_losses_core::{Differentiable, Error, Result, Tensor};
use image_losses_ndarray::NdTensor;
use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;

/// Values with their shape.
pub(crate) type Values = (Vec<f64>, Vec<usize>);

pub(crate) fn nd(values: &[f64], shape: &[usize]) -> NdTensor<'static, f64> {
    NdTensor::new(ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap())
}

pub(crate) fn nd32(values: &[f64], shape: &[usize]) -> NdTensor<'static, f32> {
    let values = values.iter().map(|&value| value as f32).collect();
    NdTensor::new(ArrayD::from_shape_vec(IxDyn(shape), values).unwrap())
}

pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// softplus as a textbook writes it; for moderate arguments.
pub(crate) fn softplus(x: f64) -> f64 {
    (1.0 + x.exp()).ln()
}

#[track_caller]
pub(crate) fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0), "{a} and {b}");
}

/// A shape of 1 to 4 axes and few elements.
pub(crate) fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..4, 1..5)
}

/// Scores for a shape, away from where hinges bend and distances have no derivative (quarters, by a margin).
pub(crate) fn scores(shape: Vec<usize>) -> impl Strategy<Value = Values> {
    let count: usize = shape.iter().product();
    // A quarter plus 0.02 … 0.23.
    let score = (-16i32..16, 0.02f64..0.23).prop_map(|(quarter, rest)| f64::from(quarter) * 0.25 + rest);
    (prop::collection::vec(score, count), Just(shape))
}

/// A quarter in [−1.5, 1.5]: labels that `scores` stay away from.
pub(crate) fn quarter() -> impl Strategy<Value = f64> {
    (-6i32..7).prop_map(|quarter| f64::from(quarter) * 0.25)
}

/// Value and gradients on the autograd engine.
pub(crate) fn differentiate(
    inputs: &[Values],
    function: impl for<'g> Fn(&[AgTensor<'g, f64>]) -> Result<AgTensor<'g, f64>>,
) -> Result<(f64, Vec<Vec<f64>>)> {
    let (value, gradients) = image_losses_autograd::differentiate(inputs, function)?;
    Ok((value[0], gradients))
}

/// The gradients, and the gradients of their sum weighted by fixed odd numbers: a second derivative along one direction.
pub(crate) fn second(
    inputs: &[Values],
    function: impl for<'g> Fn(&[AgTensor<'g, f64>]) -> Result<AgTensor<'g, f64>>,
) -> Result<(f64, Vec<Vec<f64>>)> {
    run(|session| {
        let tensors =
            inputs.iter().map(|(values, shape)| session.input(values.clone(), shape)).collect::<Result<Vec<_>>>()?;
        let views: Vec<_> = tensors.iter().collect();
        let first = Differentiable::gradients(&function(&tensors)?, &views, true)?;
        let mut direction = AgTensor::constant(&session.graph(), &[0.0], &[1])?;
        for gradient in first.iter().flatten() {
            let weights: Vec<f64> = (0..gradient.elements()).map(|i| (i as f64 * 1.7 + 0.3).sin() * 10.0).collect();
            let weights = AgTensor::constant(&session.graph(), &weights, &gradient.shape())?;
            direction = direction.add(&gradient.mul(&weights)?.sum_all()?)?;
        }
        let gradients = Differentiable::gradients(&direction, &views, false)?;
        let wanted: Vec<_> = [&direction].into_iter().chain(gradients.iter().flatten()).collect();
        let mut values = session.evaluate(&wanted)?.into_iter();
        let value = values.next().unwrap()[0];
        let gradients = gradients
            .iter()
            .zip(inputs)
            .map(|(gradient, (x, _))| gradient.as_ref().map_or(vec![0.0; x.len()], |_| values.next().unwrap()))
            .collect();
        Ok((value, gradients))
    })
}

/// Checks first and second derivatives of a function against central differences.
#[track_caller]
pub(crate) fn check_derivatives(
    inputs: &[Values],
    function: impl for<'g> Fn(&[AgTensor<'g, f64>]) -> Result<AgTensor<'g, f64>>,
) {
    let with = |moved: &[Vec<f64>]| -> Vec<Values> {
        moved.iter().zip(inputs).map(|(values, (_, shape))| (values.clone(), shape.clone())).collect()
    };
    let plain: Vec<Vec<f64>> = inputs.iter().map(|(values, _)| values.clone()).collect();
    let first = check_gradient(
        &plain,
        STEP,
        |x| Ok(differentiate(&with(x), &function)?.0),
        |x| Ok(differentiate(&with(x), &function)?.1),
    );
    assert!(first.clone().unwrap().unwrap().error < 1e-8, "{first:?}");
    let twice =
        check_gradient(&plain, STEP, |x| Ok(second(&with(x), &function)?.0), |x| Ok(second(&with(x), &function)?.1));
    assert!(twice.clone().unwrap().unwrap().error < 1e-7, "{twice:?}");
}

/// The variant of an error, for asserting on the cause alone.
#[track_caller]
pub(crate) fn variant<T>(result: Result<T>) -> &'static str {
    match result.err().expect("an error") {
        Error::ShapeMismatch { .. } => "ShapeMismatch",
        Error::ShapeRule { .. } => "ShapeRule",
        Error::Empty { .. } => "Empty",
        Error::Length { .. } => "Length",
        Error::InvalidOption { .. } => "InvalidOption",
        Error::MissingInput { .. } => "MissingInput",
        Error::InputCount { .. } => "InputCount",
        Error::NotConnected { .. } => "NotConnected",
        _ => "another",
    }
}
