//! Real and generated images judged in pairs.

use image_losses_core::config::{Argument, Configurable, Inputs, Outcome};
use image_losses_core::{About, Declared, Differentiable, Expr, Function, Pointwise, Result, Side, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::scores::mean;
use crate::side::{pair_arguments, side_of};

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
/// # Errors
/// `Error::ShapeMismatch`, `Error::ShapeRule` for scores without axes, `Error::Empty`.
///
/// ```
/// use image_losses_core::Side;
/// use image_losses_gan::{RelativisticPairingLoss};
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let (fake, real) = (NdTensor::new(array![1.0f64, -2.0]), NdTensor::new(array![1.0f64, -2.0]));
/// let loss = RelativisticPairingLoss::default().forward(&fake, &real, Side::Discriminator)?;
/// assert_eq!(loss.item()?, 2f64.ln()); // softplus(0)
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: N. Huang, A. Gokaslan, V. Kuleshov, J. Tompkin, *The GAN is dead; long live the GAN! A Modern GAN Baseline*,
/// 2024, equations 2 and 3; A. Jolicoeur-Martineau, *The Relativistic Discriminator: a Key Element Missing from Standard
/// GAN*, 2018.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelativisticPairingLoss {
    /// λ, multiplies the generator's loss alone, as in `GANLoss`. Default: 1.
    pub loss_weight: f64,
}

impl Default for RelativisticPairingLoss {
    fn default() -> Self {
        RelativisticPairingLoss { loss_weight: 1.0 }
    }
}

impl Declared for RelativisticPairingLoss {
    const NAME: &'static str = "RelativisticPairingLoss";
    const ABOUT: About = About {
        summary: "Each generated image against its real partner.",
        formula: "discriminator softplus(s_fake − s_real), generator λ · softplus(s_real − s_fake), means",
        source: "Huang et al., The GAN is dead; long live the GAN!, 2024",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl RelativisticPairingLoss {
    /// The weight that is in the value: λ in the generator's step, 1 in the discriminator's.
    pub fn weight(&self, side: Side) -> f64 {
        match side {
            Side::Discriminator => 1.0,
            Side::Generator => self.loss_weight,
        }
    }

    /// The loss of the scores of generated and of real images.
    ///
    /// # Errors
    /// As the type says.
    pub fn forward<T: Tensor>(&self, fake: &T, real: &T, side: Side) -> Result<T> {
        self.check()?;
        let sign = if side == Side::Discriminator { -1.0 } else { 1.0 };
        let function = Function::new(SoftplusOfDifference { sign });
        mean(Self::NAME, &function, &[("real", real), ("fake", fake)], self.weight(side))?.cast_like(fake)
    }
}

impl Configurable for RelativisticPairingLoss {
    type State = ();

    fn arguments(&self) -> Vec<Argument> {
        pair_arguments()
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, _: &mut ()) -> Result<Outcome<T>> {
        let (fake, real) = (inputs.get_tensor(Self::NAME, "fake")?, inputs.get_tensor(Self::NAME, "real")?);
        self.forward(fake, real, side_of(Self::NAME, inputs)?).map(Outcome::Value)
    }

    fn weight<T>(&self, _: &str, inputs: &Inputs<'_, T>) -> Result<Option<f64>> {
        Ok(Some(RelativisticPairingLoss::weight(self, side_of(Self::NAME, inputs)?)))
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
