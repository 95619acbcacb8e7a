//! How the adversarial losses are called from data.

use image_losses_core::{Differentiable, Error, Result};
use image_losses_gan::{
    AdvLoss, AdvOptions, AdvPredictions, AdvState, FeatureMatchingLoss, FeatureMatchingOptions, GanLoss, GanOptions,
    GaussianBlur, GaussianBlurOptions, LeCamAverages, LeCamLoss, LeCamOptions, RelativisticAverageHingeLoss,
    RelativisticAverageHingeOptions, RelativisticPairingLoss, RelativisticPairingOptions, Role, Sample, Step,
};
use serde_json::Value;

use crate::config::fields::read_options;
use crate::config::inputs::{Inputs, Outcome};
use crate::config::registry::{Argument, BuildContext, Configurable, Kind, to_value};

impl Configurable for GanLoss {
    type Options = GanOptions;
    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("input", Kind::Tensors),
            Argument::required("target_is_real", Kind::Flag),
            // MMagic's default.
            Argument::optional("is_disc", Kind::Flag),
            // The soft labels are made of it.
            Argument { required: self.is_masked(), ..Argument::optional("mask", Kind::Tensor) },
        ]
    }
    fn build(options: GanOptions, _: &BuildContext) -> Result<Self> {
        GanLoss::new(options)
    }
    fn options(&self) -> GanOptions {
        (*self).into()
    }
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let name = "GANLoss";
        let role = role_of(inputs)?;
        let mask = inputs.get_tensor_if_any(name, "mask")?;
        let scores = inputs.get_tensors(name, "input")?;
        self.forward_scales(&scores, role, mask).map(Outcome::Value)
    }
    fn weight<T>(&self, _: &str, inputs: &Inputs<'_, T>) -> Result<f64> {
        Ok(GanLoss::weight(self, role_of(inputs)?))
    }
}

/// The role that the switches name.
fn role_of<T>(inputs: &Inputs<'_, T>) -> Result<Role> {
    let name = "GANLoss";
    let is_disc = inputs.get_flag_if_any(name, "is_disc")?.unwrap_or(false);
    Ok(Role::from_flags(inputs.get_flag(name, "target_is_real")?, is_disc))
}

impl Configurable for GaussianBlur {
    type Options = GaussianBlurOptions;
    fn arguments(&self) -> Vec<Argument> {
        vec![Argument::required("x", Kind::Tensor)]
    }
    fn build(options: GaussianBlurOptions, _: &BuildContext) -> Result<Self> {
        GaussianBlur::new(options)
    }
    fn options(&self) -> GaussianBlurOptions {
        (*self).into()
    }
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        self.forward(inputs.get_tensor("GaussianBlur", "x")?).map(Outcome::Value)
    }
}

/// The step that a word names.
fn step_of<T>(operation: &'static str, inputs: &Inputs<'_, T>) -> Result<Step> {
    match inputs.get_text(operation, "model")? {
        "discriminator" => Ok(Step::Discriminator),
        "generator" => Ok(Step::Generator),
        other => Err(Error::option(operation, "model", "`generator` or `discriminator`", other)),
    }
}

/// [`AdvLoss`] with its pools.
///
/// The discriminator's call carries its predictions (`fake_predictions`, `real_predictions`) for the pools. A
/// generator's call in the same graph may be given them as arguments of these names before they are evaluated: they
/// then count as if they had been added.
#[derive(Clone, Debug)]
pub(super) struct Adversarial {
    loss: AdvLoss,
    state: AdvState<Sample>,
    /// The predictions on generated images, until those on real ones have come as well.
    waiting: Option<(Vec<f64>, Vec<usize>)>,
}

const FAKE: &str = "fake_predictions";
const REAL: &str = "real_predictions";

impl Configurable for Adversarial {
    type Options = AdvOptions;
    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("net", Kind::Network),
            Argument::required("fake", Kind::Tensor),
            Argument::required("real", Kind::Tensor),
            Argument::required("model", Kind::Text),
            Argument::optional("alpha", Kind::Tensor),
            Argument::optional(FAKE, Kind::Tensor),
            Argument::optional(REAL, Kind::Tensor),
        ]
    }
    fn build(options: AdvOptions, context: &BuildContext) -> Result<Self> {
        Ok(Adversarial { loss: AdvLoss::new(options)?, state: AdvState::new(context.draws), waiting: None })
    }
    fn options(&self) -> AdvOptions {
        self.loss.into()
    }
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let name = "AdvLoss";
        let step = step_of(name, inputs)?;
        let net = inputs.get_network(name, "net")?;
        let (fake, real) = (inputs.get_tensor(name, "fake")?, inputs.get_tensor(name, "real")?);
        let alpha = inputs.get_tensor_if_any(name, "alpha")?;
        let given = (inputs.get_tensor_if_any(name, FAKE)?, inputs.get_tensor_if_any(name, REAL)?);
        if let (Step::Generator, (Some(on_fake), Some(on_real))) = (step, given) {
            // For this call alone: what is added may not be evaluated yet.
            let mut state = AdvState::<T>::new(0);
            for (pool, known, new) in [
                (&mut state.fake_pool, &self.state.fake_pool, on_fake),
                (&mut state.real_pool, &self.state.real_pool, on_real),
            ] {
                let known = known.iter().map(|sample| T::constant(&fake.context(), sample.values(), sample.shape()));
                pool.add(known.collect::<Result<Vec<_>>>()?);
                let samples = new.shape().first().copied().unwrap_or(0);
                pool.add((0..samples).map(|n| new.narrow(0, n, 1)).collect::<Result<Vec<_>>>()?);
            }
            return Ok(Outcome::Value(self.loss.forward(net, fake, real, step, alpha, &mut state)?.loss));
        }
        let terms = self.loss.forward(net, fake, real, step, alpha, &mut self.state)?;
        let outcome = Outcome::Value(terms.loss);
        Ok(match terms.predictions {
            Some(AdvPredictions { fake, real }) => outcome.carrying(vec![(FAKE, fake), (REAL, real)]),
            None => outcome,
        })
    }
    fn remember(&mut self, name: &str, values: &[f64], shape: &[usize]) -> Result<()> {
        match (name, self.waiting.take()) {
            (FAKE, _) => self.waiting = Some((values.to_vec(), shape.to_vec())),
            (REAL, Some((fake, extents))) => self.state.add_values((&fake, &extents), (values, shape))?,
            _ => {}
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

/// [`LeCamLoss`] with its averages.
///
/// Each call carries the means of its scores for the averages. A call without averages, as the first, has no value and
/// carries alone.
#[derive(Clone, Debug)]
pub(super) struct LeCam {
    loss: LeCamLoss,
    averages: LeCamAverages,
    /// The mean of the real scores, until that of the generated ones has come as well.
    waiting: Option<f64>,
}

const MEAN_REAL: &str = "mean_real";
const MEAN_FAKE: &str = "mean_fake";

impl Configurable for LeCam {
    type Options = LeCamOptions;
    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("fake", Kind::Tensor),
            Argument::required("real", Kind::Tensor),
            Argument::optional(MEAN_REAL, Kind::Number),
            Argument::optional(MEAN_FAKE, Kind::Number),
        ]
    }
    fn build(options: LeCamOptions, _: &BuildContext) -> Result<Self> {
        Ok(LeCam { loss: LeCamLoss::new(options)?, averages: LeCamAverages::default(), waiting: None })
    }
    fn options(&self) -> LeCamOptions {
        self.loss.into()
    }
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let name = "LeCamLoss";
        let (fake, real) = (inputs.get_tensor(name, "fake")?, inputs.get_tensor(name, "real")?);
        let mut averages = self.averages;
        if let Some(mean) = inputs.get_number_if_any(name, MEAN_REAL)? {
            averages.real = Some(mean);
        }
        if let Some(mean) = inputs.get_number_if_any(name, MEAN_FAKE)? {
            averages.fake = Some(mean);
        }
        let mean = |scores: &T| scores.detach().accumulator()?.mean_all();
        let state = vec![(MEAN_REAL, mean(real)?), (MEAN_FAKE, mean(fake)?)];
        let values = match averages {
            LeCamAverages { real: Some(_), fake: Some(_) } => vec![("", self.loss.forward(fake, real, &averages)?)],
            _ => Vec::new(),
        };
        Ok(Outcome::Carrying { values, state })
    }
    fn remember(&mut self, name: &str, values: &[f64], _: &[usize]) -> Result<()> {
        let Some(&mean) = values.first() else { return Ok(()) };
        match (name, self.waiting.take()) {
            (MEAN_REAL, _) => self.waiting = Some(mean),
            (MEAN_FAKE, Some(real)) => self.loss.update(&mut self.averages, real, mean),
            _ => {}
        }
        Ok(())
    }
    fn state(&self) -> Result<Value> {
        to_value(&self.averages)
    }
    fn restore(&mut self, state: Value) -> Result<()> {
        self.averages = read_options(state, "")?;
        Ok(())
    }
}

impl Configurable for FeatureMatchingLoss {
    type Options = FeatureMatchingOptions;
    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("fake", Kind::Tensors),
            Argument::required("real", Kind::Tensors),
            // BasicSR divides by it.
            Argument::optional(DISCRIMINATORS, Kind::Number),
        ]
    }
    fn build(options: FeatureMatchingOptions, _: &BuildContext) -> Result<Self> {
        FeatureMatchingLoss::new(options)
    }
    fn options(&self) -> FeatureMatchingOptions {
        (*self).into()
    }
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let name = "FeatureMatchingLoss";
        let (fake, real) = (inputs.get_tensors(name, "fake")?, inputs.get_tensors(name, "real")?);
        let value = self.forward(&fake, &real)?;
        let value = match discriminators_of(inputs)? {
            1.0 => value,
            number => value.accumulator()?.scale(1.0 / number)?.cast_like(&value)?,
        };
        Ok(Outcome::Value(value))
    }
    fn weight<T>(&self, _: &str, inputs: &Inputs<'_, T>) -> Result<f64> {
        Ok(Configurable::options(self).loss_weight / discriminators_of(inputs)?)
    }
}

const DISCRIMINATORS: &str = "num_discriminators";

/// The number of discriminators that the features are of, 1 where it is not given.
fn discriminators_of<T>(inputs: &Inputs<'_, T>) -> Result<f64> {
    let name = "FeatureMatchingLoss";
    match inputs.get_number_if_any(name, DISCRIMINATORS)? {
        None => Ok(1.0),
        Some(number) if number >= 1.0 && number.fract() == 0.0 => Ok(number),
        Some(number) => Err(Error::option(name, DISCRIMINATORS, "a whole number, at least 1", number)),
    }
}

/// The losses of a pair of scores and whose step it is.
macro_rules! relativistic {
    ($loss:ident, $options:ident, $name:literal) => {
        impl Configurable for $loss {
            type Options = $options;
            fn arguments(&self) -> Vec<Argument> {
                vec![
                    Argument::required("fake", Kind::Tensor),
                    Argument::required("real", Kind::Tensor),
                    Argument::required("model", Kind::Text),
                ]
            }
            fn build(options: $options, _: &BuildContext) -> Result<Self> {
                $loss::new(options)
            }
            fn options(&self) -> $options {
                (*self).into()
            }
            fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
                let step = step_of($name, inputs)?;
                let (fake, real) = (inputs.get_tensor($name, "fake")?, inputs.get_tensor($name, "real")?);
                self.forward(fake, real, step).map(Outcome::Value)
            }
            fn weight<T>(&self, _: &str, inputs: &Inputs<'_, T>) -> Result<f64> {
                Ok($loss::weight(self, step_of($name, inputs)?))
            }
        }
    };
}

relativistic!(RelativisticPairingLoss, RelativisticPairingOptions, "RelativisticPairingLoss");
relativistic!(RelativisticAverageHingeLoss, RelativisticAverageHingeOptions, "RelativisticAverageHingeLoss");
