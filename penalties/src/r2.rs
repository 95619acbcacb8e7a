//! The zero-centred penalty on the gradient at fake data.

use image_losses_core::config::{Argument, Configurable, Inputs, Outcome};
use image_losses_core::{About, Declared, Differentiable, Result};
use serde::{Deserialize, Serialize};

use crate::{Call, NormMode, R1GradientPenalty};

/// The R2 penalty: the squared gradient of a critic at fake data, centred on zero.
///
/// As [`R1GradientPenalty`], in everything, at the generator's samples: g = ∂ΣD(x)/∂x at the
/// fake data x, detached; `pixel`: L = λ · mean_{n,h,w} ‖g_{n,·,h,w}‖² / mean(m), `HWC`: L = λ · mean_n ‖g_n‖² / mean(m).
///
/// # Shapes
/// Data: (N, C, …). Mask: (N, 1, …) or (N, C, …). Scores: any shape.
///
/// In [0, ∞) for λ > 0; 0 for a flat critic. Differentiable wherever the critic is, twice. An all-zero mask gives 0.
///
/// # Errors
/// `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`; `Error::NotConnected` for a critic
/// that ignores its input.
///
/// ```
/// use image_losses_core::{Tensor, Unary};
/// use image_losses_ndarray::NdTensor;
/// use image_losses_penalties::{Call, R2GradientPenalty};
/// use ndarray::array;
///
/// // D(x) = Σx²: g = 2x, ‖g‖² = 4·(1 + 4).
/// let fake = NdTensor::new(array![[1.0f64, 2.0]]);
/// let value = R2GradientPenalty::default().forward(|x| x.unary(Unary::Square), &fake, Call::default())?;
/// assert_eq!(value.item()?, 20.0);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018, equation 10;
/// used beside R1 by Huang, Gokaslan, Kuleshov, Tompkin, "The GAN is dead; long live the GAN! A Modern GAN Baseline",
/// 2024.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct R2GradientPenalty {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `pixel`: a norm per pixel, over the channels; `HWC`: a norm per sample. Default: `pixel`.
    pub norm_mode: NormMode,
    /// The penalty acts when the iteration is a multiple of it. Default: 1.
    pub interval: u64,
    /// λ is multiplied by the interval: its mean over the iterations stays. Default: `false`.
    pub multiply_by_interval: bool,
    /// The critic's scores are multiplied by it before the inner gradient, the gradient divided by it after. Default:
    /// 1.
    pub loss_scale: f64,
    /// MMagic's name for loss scaling: a `loss_scale` of 1 means [`AMP_LOSS_SCALE`](crate::AMP_LOSS_SCALE). Default:
    /// `false`.
    pub use_apex_amp: bool,
}

impl Default for R2GradientPenalty {
    fn default() -> Self {
        R1GradientPenalty::default().into()
    }
}

/// The same options.
impl From<R1GradientPenalty> for R2GradientPenalty {
    fn from(options: R1GradientPenalty) -> Self {
        let R1GradientPenalty { loss_weight, norm_mode, interval, multiply_by_interval, loss_scale, use_apex_amp } =
            options;
        R2GradientPenalty { loss_weight, norm_mode, interval, multiply_by_interval, loss_scale, use_apex_amp }
    }
}

impl Declared for R2GradientPenalty {
    const NAME: &'static str = "R2GradientPenaltyComps";
    const TERM: Option<&'static str> = Some("loss_r2_gp");
    const ABOUT: About = About {
        summary: "Holds a critic flat at generated images.",
        formula: "λ · mean ‖∂ΣD(x)/∂x‖²  at generated x",
        source: "Mescheder et al., Which Training Methods for GANs do actually Converge?, 2018",
    };

    /// # Errors
    /// As [`R1GradientPenalty`].
    fn check(&self) -> Result<()> {
        self.as_r1().check_as(Self::NAME)
    }
}

impl R2GradientPenalty {
    /// The same options for real data: the formula is one.
    fn as_r1(&self) -> R1GradientPenalty {
        let R2GradientPenalty { loss_weight, norm_mode, interval, multiply_by_interval, loss_scale, use_apex_amp } =
            *self;
        R1GradientPenalty { loss_weight, norm_mode, interval, multiply_by_interval, loss_scale, use_apex_amp }
    }

    /// The weight that is in the value: λ, times the interval with `multiply_by_interval`.
    pub fn weight(&self) -> f64 {
        self.as_r1().weight()
    }

    /// Whether the penalty acts in this iteration.
    pub fn is_due(&self, iteration: u64) -> bool {
        self.as_r1().is_due(iteration)
    }

    /// The penalty of `critic` at fake data, whatever the interval.
    ///
    /// # Errors
    /// See the type; those of the communicator.
    pub fn forward<T: Differentiable>(
        &self,
        critic: impl Fn(&T) -> Result<T>,
        fake: &T,
        call: Call<'_, T>,
    ) -> Result<T> {
        self.as_r1().penalty((Self::NAME, "fake_data"), critic, fake, call)
    }
}

impl Configurable for R2GradientPenalty {
    type State = ();

    fn arguments(&self) -> Vec<Argument> {
        self.as_r1().arguments_at("fake_data")
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, _: &mut ()) -> Result<Outcome<T>> {
        self.as_r1().evaluate_at((Self::NAME, "fake_data"), inputs)
    }

    fn weight<T>(&self, _: &str, _: &Inputs<'_, T>) -> Result<Option<f64>> {
        Ok(Some(R2GradientPenalty::weight(self)))
    }

    fn interval(&self) -> u64 {
        self.interval
    }
}
