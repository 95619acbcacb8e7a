//! The gradient penalty of WGAN-GP and DRAGAN.

use image_losses_core::config::{Argument, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{About, Declared, Differentiable, Error, Result, Tensor, Unary, finite, positive};
use serde::{Deserialize, Serialize};

use crate::inner::{LOSS_SCALER, PROCESSES, check_data, check_mask, effective_loss_scale, inner_gradient, masked_mean};
use crate::{Call, Draws, Random};

/// Over what the norm of a gradient (N, C, …) is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum NormMode {
    /// Over the channels: one norm per pixel.
    #[default]
    #[serde(rename = "pixel")]
    Pixel,
    /// Over everything but the batch: one norm per sample.
    #[serde(rename = "HWC")]
    Hwc,
}

impl NormMode {
    /// The axes that the norm of a tensor of this rank runs over.
    pub(crate) fn axes(self, rank: usize) -> Vec<usize> {
        match self {
            NormMode::Pixel => vec![1],
            NormMode::Hwc => (1..rank).collect(),
        }
    }
}

/// Where between the data the critic's slope is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Interpolation {
    /// Between a real and a fake sample (WGAN-GP): x̂ = α·real + (1 − α)·fake.
    #[default]
    RealFake,
    /// Around the real samples (DRAGAN): as `real_fake`, with real + ½·σ·u in the place of the fake samples; σ is the
    /// standard deviation of all elements of the real batch, u uniform in [0, 1) for each element.
    Dragan,
}

/// The gradient penalty: keeps the norm of a critic's gradient near one between the data (WGAN-GP, DRAGAN).
///
/// x̂ = α·real + (1 − α)·fake, g = ∂ΣD(x̂)/∂x̂, times the mask m if there is one;
///
/// `pixel`: L = λ · mean_{n,h,w} (‖g_{n,·,h,w}‖ − 1)² / mean(m), `HWC`: L = λ · mean_n (‖g_n‖ − 1)² / mean(m).
///
/// α is one uniform draw per sample. `HWC` is the paper's penalty; `pixel` is MMagic's default. The gradient of the
/// penalty with respect to the critic's parameters is a second derivative. The data are detached: the penalty trains
/// the critic alone.
///
/// # Shapes
/// Real and fake: (N, C, …), equal. Mask: (N, 1, …) or (N, C, …). Scores: any shape. α: (N, 1, …, 1).
///
/// In [0, ∞) for λ > 0; 0 where every norm is 1. The norm is not differentiable where a gradient is zero; there its
/// derivative is 0. An all-zero mask gives 0.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`];
/// [`Error::MissingInput`] for absent fake samples or noise; [`Error::NotConnected`] for a critic that ignores its
/// input.
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_penalties::{Call, Draws, GradientPenaltyLoss};
/// use ndarray::array;
///
/// let mut draws = Draws::new(7);
/// let (real, fake) = (NdTensor::new(array![[1.0f64, 2.0]]), NdTensor::new(array![[0.0f64, 5.0]]));
/// let loss = GradientPenaltyLoss::default();
/// let penalty = loss.forward(|x| x.scale(3.0), Some(&fake), &real, &mut draws, Call::default())?;
/// // The gradient is (3, 3) wherever α falls: its norm is √18.
/// assert!((penalty.item()? - (18f64.sqrt() - 1.0).powi(2)).abs() < 1e-12);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, "Improved Training of Wasserstein GANs", 2017, equation 3;
/// Kodali, Abernethy, Hays, Kira, "On Convergence and Stability of GANs", 2017, section 2.3 (the perturbation is their
/// published code's). MMagic, `mmagic.models.losses.GradientPenaltyLoss` and `GradientPenaltyLossComps`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GradientPenaltyLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `pixel`: a norm per pixel, over the channels; `HWC`: a norm per sample. Default: `pixel`.
    pub norm_mode: NormMode,
    /// `real_fake` (WGAN-GP) or `dragan`. Default: `real_fake`.
    pub interpolation: Interpolation,
    /// The same α for every sample, in [0, 1], instead of a draw. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// The critic's scores are multiplied by it before the inner gradient, the gradient divided by it after. Default:
    /// 1.
    pub loss_scale: f64,
}

impl Default for GradientPenaltyLoss {
    fn default() -> Self {
        GradientPenaltyLoss {
            loss_weight: 1.0,
            norm_mode: NormMode::Pixel,
            interpolation: Interpolation::RealFake,
            alpha: None,
            loss_scale: 1.0,
        }
    }
}

impl Declared for GradientPenaltyLoss {
    const NAME: &'static str = "GradientPenaltyLoss";
    const TERM: Option<&'static str> = Some("loss_gp");
    const ABOUT: About = About {
        summary: "Holds a critic's slope at one.",
        formula: "λ · mean (‖∂ΣD(x̂)/∂x̂‖ − 1)²,  x̂ = α·real + (1 − α)·fake",
        source: "Gulrajani et al., Improved Training of Wasserstein GANs, 2017",
    };

    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite, an `alpha` outside [0, 1], a `loss_scale` that
    /// is not finite and above 0.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)?;
        positive(Self::NAME, "loss_scale", self.loss_scale)?;
        if let Some(alpha) = self.alpha
            && !(0.0..=1.0).contains(&alpha)
        {
            return Err(Error::option(Self::NAME, "alpha", "in [0, 1]", alpha));
        }
        Ok(())
    }
}

impl GradientPenaltyLoss {
    /// Whether it needs generated data (`real_fake`).
    pub fn needs_fake(&self) -> bool {
        self.interpolation == Interpolation::RealFake
    }

    /// The penalty of `critic`. `dragan` looks at no fake samples.
    ///
    /// Random are α, (N, 1, …, 1), the rank of the data, unless the option fixes it, and after it DRAGAN's u, in the data's
    /// shape.
    ///
    /// # Errors
    /// See the type; those of the communicator.
    pub fn forward<'r, T: Differentiable + 'r>(
        &self,
        critic: impl Fn(&T) -> Result<T>,
        fake: Option<&T>,
        real: &T,
        random: impl Into<Random<'r, T>>,
        call: Call<'_, T>,
    ) -> Result<T> {
        let mut random = random.into();
        let shape = check_data(Self::NAME, "real_data", real)?;
        let alpha = self.alpha_of(real, &shape, &mut random)?;
        self.at(critic, fake, real, &alpha, &mut random, call)
    }

    fn alpha_of<T: Tensor>(&self, real: &T, shape: &[usize], random: &mut Random<'_, T>) -> Result<T> {
        let (context, shape) = (real.context(), per_sample(shape));
        match self.alpha {
            Some(alpha) => T::full(&context, alpha, &shape),
            None => random.next((Self::NAME, "alpha"), &shape, |draws| draws.uniform(&context, &shape)),
        }
    }

    /// The penalty at a given α.
    fn at<T: Differentiable>(
        &self,
        critic: impl Fn(&T) -> Result<T>,
        fake: Option<&T>,
        real: &T,
        alpha: &T,
        random: &mut Random<'_, T>,
        call: Call<'_, T>,
    ) -> Result<T> {
        self.check()?;
        let other = match (self.interpolation, fake) {
            (Interpolation::RealFake, Some(fake)) => fake.clone(),
            (Interpolation::RealFake, None) => {
                let hint = ": `real_fake` interpolates with it".to_owned();
                return Err(Error::MissingInput { operation: Self::NAME, argument: "fake_data".to_owned(), hint });
            }
            (Interpolation::Dragan, _) => {
                let shape = check_data(Self::NAME, "real_data", real)?;
                let draw = |draws: &mut Draws| draws.uniform(&real.context(), &shape);
                perturbed(real, &random.next((Self::NAME, "noise"), &shape, draw)?)?
            }
        };
        penalty(self, critic, [&other, real, alpha], call)
    }
}

/// The penalty between two batches at a given α.
fn penalty<T: Differentiable>(
    options: &GradientPenaltyLoss,
    critic: impl Fn(&T) -> Result<T>,
    [fake, real, alpha]: [&T; 3],
    Call { mask, processes, loss_scale }: Call<'_, T>,
) -> Result<T> {
    let shape = check_data(GradientPenaltyLoss::NAME, "real_data", real)?;
    let same = |argument: &'static str, got: &T, expected: Vec<usize>| {
        let got = got.shape();
        if got == expected {
            return Ok(());
        }
        Err(Error::ShapeMismatch { operation: GradientPenaltyLoss::NAME, argument, expected, got })
    };
    same("fake_data", fake, shape.clone())?;
    same("alpha", alpha, per_sample(&shape))?;
    check_mask(GradientPenaltyLoss::NAME, &shape, mask)?;
    let interpolates = alpha.mul(real)?.add(&alpha.affine(-1.0, 1.0)?.mul(fake)?)?;
    let loss_scale = effective_loss_scale(GradientPenaltyLoss::NAME, loss_scale, options.loss_scale, false)?;
    let gradient = inner_gradient(GradientPenaltyLoss::NAME, critic, &interpolates, mask, loss_scale)?;
    let norms = gradient.norm(&options.norm_mode.axes(shape.len()), true)?;
    let distances = norms.shift(-1.0)?.unary(Unary::Square)?;
    masked_mean(&distances, mask, processes)?.scale(options.loss_weight)?.cast_like(real)
}

/// One value per sample of data of this shape.
fn per_sample(shape: &[usize]) -> Vec<usize> {
    let mut per_sample = vec![1; shape.len()];
    per_sample[0] = shape[0];
    per_sample
}

/// DRAGAN's neighbours of the real samples: real + ½·σ·u.
fn perturbed<T: Tensor>(real: &T, noise: &T) -> Result<T> {
    let axes: Vec<usize> = (0..real.rank()).collect();
    let wide = real.accumulator()?;
    let centred = wide.sub(&wide.mean(&axes, true)?)?;
    let deviation = centred.unary(Unary::Square)?.mean(&axes, true)?.unary(Unary::Sqrt)?;
    wide.add(&deviation.mul(&noise.accumulator()?)?.scale(0.5)?)?.cast_like(real)
}

impl Configurable for GradientPenaltyLoss {
    type State = Draws;

    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("discriminator", Kind::Network),
            Argument::required("real_data", Kind::Tensor),
            Argument { required: self.needs_fake(), ..Argument::optional("fake_data", Kind::Tensor) },
            Argument::optional("mask", Kind::Tensor),
            Argument::optional("alpha", Kind::Tensor),
            Argument::optional(LOSS_SCALER, Kind::Number),
            PROCESSES,
        ]
    }

    fn start(&self, seed: u64) -> Draws {
        Draws::new(seed)
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, draws: &mut Draws) -> Result<Outcome<T>> {
        let discriminator = inputs.get_network(Self::NAME, "discriminator")?;
        let real = inputs.get_tensor(Self::NAME, "real_data")?;
        let fake = inputs.get_tensor_if_any(Self::NAME, "fake_data")?;
        let call = Call {
            mask: inputs.get_tensor_if_any(Self::NAME, "mask")?,
            processes: inputs.get_processes_if_any(Self::NAME, PROCESSES.name)?,
            loss_scale: inputs.get_number_if_any(Self::NAME, LOSS_SCALER)?,
        };
        let mut random = Random::Drawn(draws);
        // Drawn even where one is given: what is drawn after it does not depend on that.
        let drawn = self.alpha_of(real, &check_data(Self::NAME, "real_data", real)?, &mut random)?;
        let alpha = inputs.get_tensor_if_any(Self::NAME, "alpha")?.unwrap_or(&drawn);
        self.at(discriminator, fake, real, alpha, &mut random, call).map(Outcome::Value)
    }
}

/// [`GradientPenaltyLoss`] as MMagic's component of that name: it takes another `norm_mode` than the default only where a
/// `data_info` picks its arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GradientPenaltyLossComps(pub GradientPenaltyLoss);

impl Declared for GradientPenaltyLossComps {
    const NAME: &'static str = "GradientPenaltyLossComps";
    const TERM: Option<&'static str> = GradientPenaltyLoss::TERM;
    const ABOUT: About = About {
        summary: "GradientPenaltyLoss as a component that picks its inputs by `data_info`.",
        formula: "as GradientPenaltyLoss",
        source: "MMagic",
    };

    fn check(&self) -> Result<()> {
        self.0.check()
    }
}

impl Configurable for GradientPenaltyLossComps {
    type State = Draws;

    fn arguments(&self) -> Vec<Argument> {
        self.0.arguments()
    }

    fn start(&self, seed: u64) -> Draws {
        self.0.start(seed)
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, draws: &mut Draws) -> Result<Outcome<T>> {
        // MMagic's component passes `norm_mode` on only where `data_info` picks its arguments; called directly it computes
        // the pixel norm whatever is configured.
        if !inputs.picked() && self.0.norm_mode != NormMode::Pixel {
            let expected =
                "`pixel` where no `data_info` picks the arguments (MMagic's component passes it on only then)";
            return Err(Error::option(Self::NAME, "norm_mode", expected, "HWC"));
        }
        self.0.evaluate(inputs, draws)
    }
}
