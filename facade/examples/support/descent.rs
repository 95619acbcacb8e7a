//! Gradient descent on the numbers of a picture, under an objective from a configuration, on any engine.

use clap::ValueEnum;
use image_losses::AnyTensor;
use image_losses::config::Inputs;
use image_losses::core::{Differentiable, Result, Tensor};
use image_losses::ndarray::NdTensor;
use image_losses::objective::{Objective, Report, Side, Step};

use super::picture::Picture;

/// Where tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Pure Rust.
    Ndarray,
    /// libtorch.
    #[cfg(feature = "tch")]
    Tch,
}

/// A picture as a constant on the context of `like`.
pub fn constant<'g>(like: &AnyTensor<'g>, picture: &Picture) -> Result<AnyTensor<'g>> {
    AnyTensor::shared_constant(&like.context(), &picture.shared(), &picture.shape())
}

/// Descends from `start` for so many steps with Adam, whose rate falls from `rate` to zero; `outputs` offers the
/// objective's tensors as a function of the variable. `progress` hears of each step and the numbers before it.
pub fn descend(
    engine: Engine,
    objective: &mut Objective,
    start: &Picture,
    (steps, rate): (usize, f32),
    outputs: impl for<'g> Fn(&AnyTensor<'g>) -> Result<Inputs<'g, AnyTensor<'g>>>,
    mut progress: impl FnMut(&Report, &Picture),
) -> Result<Picture> {
    let mut current = start.clone();
    let mut adam = Adam::new(current.values.len());
    let mut update = |current: &mut Picture, step: usize, report: &Report, gradient: Vec<f64>| {
        progress(report, current);
        let rate = rate * (0.5 + 0.5 * (std::f32::consts::PI * step as f32 / steps as f32).cos());
        adam.update(rate, &mut current.values, &gradient);
        for value in &mut current.values {
            *value = value.clamp(0.0, 1.0);
        }
    };
    for step in 0..steps {
        let variable = match engine {
            Engine::Ndarray => NdTensor::from_vec(current.values.clone(), &start.shape())?.leaf()?.into(),
            #[cfg(feature = "tch")]
            Engine::Tch => {
                use image_losses::tch::{TchTensor, tch};
                let shape = start.shape().map(|extent| extent as i64);
                TchTensor::own(tch::Tensor::from_slice(&current.values).reshape(shape))?.leaf()?.into()
            }
        };
        let (evaluated, gradient) = differentiated(objective, &variable, &outputs)?;
        let report = objective.finish(&evaluated, &evaluated.values()?)?;
        update(&mut current, step, &report, gradient.values()?);
    }
    Ok(current)
}

/// The objective at a variable, and its gradient.
fn differentiated<'g>(
    objective: &mut Objective,
    variable: &AnyTensor<'g>,
    outputs: &impl Fn(&AnyTensor<'g>) -> Result<Inputs<'g, AnyTensor<'g>>>,
) -> Result<(Step<'g>, AnyTensor<'g>)> {
    let step = objective.evaluate(Side::Generator, &outputs(variable)?)?;
    let gradient = match step.total() {
        Some(total) => AnyTensor::gradients(total, &[variable], false)?.pop().flatten(),
        None => None,
    };
    // An objective that nothing depends on leaves everything as it is.
    let gradient = match gradient {
        Some(gradient) => gradient,
        None => AnyTensor::full(&variable.context(), 0.0, &variable.shape())?,
    };
    Ok((step, gradient))
}

/// The optimiser of Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.
#[derive(Clone, Debug)]
struct Adam {
    step: i32,
    moments: Vec<[f32; 2]>,
}

impl Adam {
    const BETA: [f32; 2] = [0.9, 0.99];

    fn new(length: usize) -> Self {
        Adam { step: 0, moments: vec![[0.0; 2]; length] }
    }

    fn update(&mut self, rate: f32, values: &mut [f32], gradient: &[f64]) {
        self.step += 1;
        let correction = Adam::BETA.map(|beta| 1.0 - beta.powi(self.step));
        // Means over many pixels have small gradients: relative to them, ε must be smaller still.
        const EPSILON: f32 = 1e-12;
        for ((value, &g), moments) in values.iter_mut().zip(gradient).zip(&mut self.moments) {
            let g = g as f32;
            moments[0] = Adam::BETA[0] * moments[0] + (1.0 - Adam::BETA[0]) * g;
            moments[1] = Adam::BETA[1] * moments[1] + (1.0 - Adam::BETA[1]) * g * g;
            *value -= rate * (moments[0] / correction[0]) / ((moments[1] / correction[1]).sqrt() + EPSILON);
        }
    }
}
