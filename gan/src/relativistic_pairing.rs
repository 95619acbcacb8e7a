//! Real and generated images judged in pairs.

use image_losses_core::{Error, Expr, Function, Pointwise, Result, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::Step;
use crate::scores::mean;

const NAME: &str = "RelativisticPairingLoss";

/// Options of [`RelativisticPairingLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the generator's loss alone, as in `GANLoss` | 1 |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelativisticPairingOptions {
    /// λ, multiplies the generator's loss alone.
    pub loss_weight: f64,
}

impl Default for RelativisticPairingOptions {
    fn default() -> Self {
        RelativisticPairingOptions { loss_weight: 1.0 }
    }
}

/// Softplus of the negated difference of paired scores: the relativistic pairing loss (RpGAN), R3GAN's objective.
///
/// With d = s_real − s_fake, sample by sample: discriminator mean softplus(−d), generator λ · mean softplus(d).
///
/// That is f(t) = −log(1 + e⁻ᵗ) of the paper's equation 2. R3GAN adds the penalties R1 and R2 to the discriminator's
/// loss, which are losses of their own. Averages in place of pairs: [`AdvLoss`](crate::AdvLoss)'s `ragan` and
/// [`RelativisticAverageHingeLoss`](crate::RelativisticAverageHingeLoss).
///
/// # Shapes
/// Scores of real and of generated images: equal, any, rank at least 1.
///
/// In [0, ∞) for λ > 0; ln 2 where critic scores tie; 0 in the limit of a confident critic. Smooth everywhere.
///
/// Options: [`RelativisticPairingOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] for scores without axes, [`Error::Empty`].
///
/// ```
/// use image_losses_gan::{RelativisticPairingLoss, Step};
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let (fake, real) = (NdTensor::new(array![1.0f64, -2.0]), NdTensor::new(array![1.0f64, -2.0]));
/// let loss = RelativisticPairingLoss::default().forward(&fake, &real, Step::Discriminator)?;
/// assert_eq!(loss.item()?, 2f64.ln()); // softplus(0)
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: N. Huang, A. Gokaslan, V. Kuleshov, J. Tompkin, *The GAN is dead; long live the GAN! A Modern GAN Baseline*,
/// 2024, equations 2 and 3; A. Jolicoeur-Martineau, *The Relativistic Discriminator: a Key Element Missing from Standard
/// GAN*, 2018.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RelativisticPairingOptions", into = "RelativisticPairingOptions")]
pub struct RelativisticPairingLoss {
    options: RelativisticPairingOptions,
}

impl RelativisticPairingLoss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: RelativisticPairingOptions) -> Result<Self> {
        finite(NAME, "loss_weight", options.loss_weight)?;
        Ok(RelativisticPairingLoss { options })
    }

    /// The weight that is in the value: λ in the generator's step, 1 in the discriminator's.
    pub fn weight(&self, step: Step) -> f64 {
        match step {
            Step::Discriminator => 1.0,
            Step::Generator => self.options.loss_weight,
        }
    }

    /// The loss of the scores of generated and of real images.
    ///
    /// # Errors
    /// As the type says.
    pub fn forward<T: Tensor>(&self, fake: &T, real: &T, step: Step) -> Result<T> {
        let sign = if step == Step::Discriminator { -1.0 } else { 1.0 };
        let function = Function::new(SoftplusOfDifference { sign });
        mean(NAME, &function, &[("real", real), ("fake", fake)], self.weight(step))?.cast_like(fake)
    }
}

impl TryFrom<RelativisticPairingOptions> for RelativisticPairingLoss {
    type Error = Error;
    fn try_from(options: RelativisticPairingOptions) -> Result<Self> {
        RelativisticPairingLoss::new(options)
    }
}

impl From<RelativisticPairingLoss> for RelativisticPairingOptions {
    fn from(loss: RelativisticPairingLoss) -> Self {
        loss.options
    }
}

/// softplus(`sign`·(x − y)).
#[derive(Clone, Copy, Debug)]
struct SoftplusOfDifference {
    sign: f64,
}

impl Pointwise<2> for SoftplusOfDifference {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        ((x - y) * self.sign).softplus()
    }
}
