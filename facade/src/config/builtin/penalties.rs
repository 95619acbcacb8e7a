//! How the penalties are called from data.

use image_losses_core::{Differentiable, Error, Result};
use image_losses_penalties::{
    Draws, GeneratorPathRegularizer, GradientPenaltyLoss, GradientPenaltyOptions, Noise, NormMode, PathLengthOptions,
    PathLengthState, R1GradientPenalty, R1Options, R2GradientPenalty,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::fields::read_options;
use crate::config::inputs::{Inputs, Outcome};
use crate::config::registry::{Argument, BuildContext, Configurable, Kind, to_value};

/// The scale that a gradient scaler has at the moment.
const LOSS_SCALER: &str = "loss_scaler";

/// The scaler's scale as an argument. With `use_apex_amp` the training step's is taken where it offers one.
const fn loss_scaler(use_apex_amp: bool) -> Argument {
    let argument = Argument::optional(LOSS_SCALER, Kind::Number);
    if use_apex_amp { argument.or_output(LOSS_SCALER) } else { argument }
}

/// The processes that train together; every loss that knows of them takes them from the outputs.
const PROCESSES: Argument = Argument::optional("processes", Kind::Processes).or_output("processes");

/// [`GradientPenaltyLoss`] with its draws; `COMPS` where it is configured as MMagic's component.
#[derive(Clone, Debug)]
pub(super) struct Gradient<const COMPS: bool> {
    loss: GradientPenaltyLoss,
    draws: Draws,
}

impl<const COMPS: bool> Configurable for Gradient<COMPS> {
    type Options = GradientPenaltyOptions;
    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("discriminator", Kind::Network),
            Argument::required("real_data", Kind::Tensor),
            Argument { required: self.loss.needs_fake(), ..Argument::optional("fake_data", Kind::Tensor) },
            Argument::optional("mask", Kind::Tensor),
            Argument::optional("alpha", Kind::Tensor),
            Argument::optional(LOSS_SCALER, Kind::Number),
            PROCESSES,
        ]
    }
    fn build(options: GradientPenaltyOptions, context: &BuildContext) -> Result<Self> {
        Ok(Gradient { loss: GradientPenaltyLoss::new(options)?, draws: Draws::new(context.draws) })
    }
    fn options(&self) -> GradientPenaltyOptions {
        self.loss.into()
    }
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let name = "GradientPenaltyLoss";
        let mut loss = self.loss;
        // MMagic's component passes `norm_mode` on only where `data_info` picks its arguments; called directly it computes
        // the pixel norm whatever is configured.
        if COMPS && !inputs.picked() && Configurable::options(self).norm_mode != NormMode::Pixel {
            let expected =
                "`pixel` where no `data_info` picks the arguments (MMagic's component passes it on only then)";
            return Err(Error::option("GradientPenaltyLossComps", "norm_mode", expected, "HWC"));
        }
        if let Some(scale) = inputs.get_number_if_any(name, LOSS_SCALER)? {
            loss = loss.with_loss_scale(scale)?;
        }
        let discriminator = inputs.get_network(name, "discriminator")?;
        let real = inputs.get_tensor(name, "real_data")?;
        let fake = inputs.get_tensor_if_any(name, "fake_data")?;
        let mask = inputs.get_tensor_if_any(name, "mask")?;
        let mut sample = loss.draw(real, &mut self.draws)?;
        if let Some(alpha) = inputs.get_tensor_if_any(name, "alpha")? {
            sample.alpha = alpha.clone();
        }
        let processes = inputs.get_processes_if_any(name, PROCESSES.name)?;
        loss.forward_across(discriminator, real, fake, mask, &sample, processes).map(Outcome::Value)
    }
    fn state(&self) -> Result<Value> {
        to_value(&self.draws)
    }
    fn restore(&mut self, state: Value) -> Result<()> {
        self.draws = read_options(state, "")?;
        Ok(())
    }
}

/// The penalties on the gradient at one kind of data.
macro_rules! at_data {
    ($loss:ident, $name:literal, $data:literal) => {
        impl Configurable for $loss {
            type Options = R1Options;
            fn arguments(&self) -> Vec<Argument> {
                vec![
                    Argument::required("discriminator", Kind::Network),
                    Argument::required($data, Kind::Tensor),
                    Argument::optional("mask", Kind::Tensor),
                    loss_scaler(Configurable::options(self).use_apex_amp),
                    PROCESSES,
                ]
            }
            fn build(options: R1Options, _: &BuildContext) -> Result<Self> {
                $loss::new(options)
            }
            fn options(&self) -> R1Options {
                (*self).into()
            }
            fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
                let mut loss = *self;
                if let Some(scale) = inputs.get_number_if_any($name, LOSS_SCALER)? {
                    loss = loss.with_loss_scale(scale)?;
                }
                let discriminator = inputs.get_network($name, "discriminator")?;
                let data = inputs.get_tensor($name, $data)?;
                let mask = inputs.get_tensor_if_any($name, "mask")?;
                let processes = inputs.get_processes_if_any($name, PROCESSES.name)?;
                loss.forward_across(discriminator, data, mask, processes).map(Outcome::Value)
            }
            fn weight<T>(&self, _: &str, _: &Inputs<'_, T>) -> Result<f64> {
                Ok($loss::weight(self))
            }
            fn interval(&self) -> u64 {
                Configurable::options(self).interval
            }
        }
    };
}

at_data!(R1GradientPenalty, "R1GradientPenaltyComps", "real_data");
at_data!(R2GradientPenalty, "R2GradientPenaltyComps", "fake_data");

/// [`GeneratorPathRegularizer`] with its moving average and its draws.
///
/// MMagic's generators draw their latents themselves; here the training step offers them, a batch as large as its own,
/// of which the first are taken.
#[derive(Clone, Debug)]
pub(super) struct PathLength {
    loss: GeneratorPathRegularizer,
    state: PathState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PathState {
    mean_path_length: f64,
    draws: Draws,
}

const MEAN: &str = "mean_path_length";

impl Configurable for PathLength {
    type Options = PathLengthOptions;
    const TERMS: &'static [(&'static str, &'static str)] =
        &[("penalty", "loss_path_regular"), (MEAN, MEAN), ("path_lengths", "path_lengths")];
    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("generator", Kind::Network),
            Argument::required("latents", Kind::Tensor).or_output("latents"),
            Argument::optional("num_batches", Kind::Number),
            Argument::optional("noise", Kind::Tensor),
            Argument::optional(MEAN, Kind::Number),
            loss_scaler(Configurable::options(self).use_apex_amp),
            PROCESSES,
        ]
    }
    fn build(options: PathLengthOptions, context: &BuildContext) -> Result<Self> {
        let state = PathState { mean_path_length: 0.0, draws: Draws::new(context.draws) };
        Ok(PathLength { loss: GeneratorPathRegularizer::new(options)?, state })
    }
    fn options(&self) -> PathLengthOptions {
        self.loss.into()
    }
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let name = "GeneratorPathRegularizerComps";
        let mut loss = self.loss;
        if let Some(scale) = inputs.get_number_if_any(name, LOSS_SCALER)? {
            loss = loss.with_loss_scale(scale)?;
        }
        let generator = inputs.get_network(name, "generator")?;
        let latents = inputs.get_tensor(name, "latents")?;
        let shape = latents.shape();
        let offered = shape.first().copied().unwrap_or(0);
        let batch = match inputs.get_number_if_any(name, "num_batches")? {
            None => offered,
            Some(number) if number >= 1.0 && number.fract() == 0.0 => number as usize,
            Some(number) => return Err(Error::option(name, "num_batches", "a whole number, at least 1", number)),
        };
        let wanted = loss.batch_size(batch);
        let latents = match offered.cmp(&wanted) {
            std::cmp::Ordering::Equal => latents.clone(),
            std::cmp::Ordering::Greater => latents.narrow(0, 0, wanted)?,
            std::cmp::Ordering::Less => {
                let expected = format!("at least {wanted} samples");
                return Err(Error::ShapeRule { operation: name, argument: "latents", expected, got: shape });
            }
        };
        let noise = match inputs.get_tensor_if_any(name, "noise")? {
            Some(noise) => Noise::Given(noise),
            None => Noise::Drawn(&mut self.state.draws),
        };
        let given = inputs.get_number_if_any(name, MEAN)?;
        let state = PathLengthState { mean_path_length: given.unwrap_or(self.state.mean_path_length) };
        let processes = inputs.get_processes_if_any(name, PROCESSES.name)?;
        let lengths = loss.forward_across(generator, &latents, noise, &state, processes)?;
        let mean = lengths.mean_path_length;
        let values = vec![("penalty", lengths.penalty), (MEAN, mean.clone()), ("path_lengths", lengths.path_lengths)];
        Ok(Outcome::Carrying { values, state: vec![(MEAN, mean)] })
    }
    fn weight<T>(&self, value: &str, _: &Inputs<'_, T>) -> Result<f64> {
        Ok(if value == "penalty" { self.loss.weight() } else { 1.0 })
    }
    fn interval(&self) -> u64 {
        Configurable::options(self).interval
    }
    fn remember(&mut self, name: &str, values: &[f64], _: &[usize]) -> Result<()> {
        if let (MEAN, Some(&mean)) = (name, values.first()) {
            let mut state = PathLengthState { mean_path_length: self.state.mean_path_length };
            state.update(mean);
            self.state.mean_path_length = state.mean_path_length;
        }
        Ok(())
    }
    fn state(&self) -> Result<Value> {
        to_value(&self.state)
    }
    fn restore(&mut self, state: Value) -> Result<()> {
        self.state = read_options(state, "")?;
        Ok(())
    }
}
