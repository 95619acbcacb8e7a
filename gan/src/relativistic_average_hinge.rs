//! Real and generated images judged against each other's average.

use image_losses_core::config::{Argument, Configurable, Inputs, Outcome};
use image_losses_core::{About, Declared, Differentiable, Function, Result, Side, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::scores::{Hinge, check_scores, less, mean};
use crate::side::{pair_arguments, side_of};

/// The hinge loss of scores less the other side's average: RaHinge, relativistic average hinge GAN.
///
/// With r = s_real − mean(s_fake) and f = s_fake − mean(s_real): discriminator mean max(0, 1 − r) + mean max(0, 1 + f);
/// generator λ · (mean max(0, 1 + r) + mean max(0, 1 − f)).
///
/// The averages are those of the batch and carry gradients, as in the paper's program; that program halves the sum, the
/// paper's formula does not. Averages over past batches without gradients: [`AdvLoss`](crate::AdvLoss)'s `ragan`.
///
/// # Shapes
/// Scores of real and of generated images: any, rank at least 1; the two batches may differ.
///
/// In [0, ∞) for λ > 0; 2 where all scores tie. Not differentiable at the kinks r, f = ±1; the gradient of the hinge is 0
/// there.
///
/// # Errors
/// `Error::ShapeRule` for scores without axes, `Error::Empty`.
///
/// ```
/// use image_losses_core::Side;
/// use image_losses_gan::{RelativisticAverageHingeLoss};
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let (fake, real) = (NdTensor::new(array![0.0f64, 1.0]), NdTensor::new(array![1.0f64, 2.0]));
/// let loss = RelativisticAverageHingeLoss::default().forward(&fake, &real, Side::Discriminator)?;
/// assert_eq!(loss.item()?, 0.5); // r = 0.5, 1.5; f = −1.5, −0.5: mean of 0.5, 0 and mean of 0, 0.5
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: A. Jolicoeur-Martineau, *The Relativistic Discriminator: a Key Element Missing from Standard GAN*, 2018,
/// section 4.3 with the hinge functions of RaHingeGAN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RelativisticAverageHingeLoss {
    /// λ, multiplies the generator's loss alone, as in `GANLoss`. Default: 1.
    pub loss_weight: f64,
}

impl Default for RelativisticAverageHingeLoss {
    fn default() -> Self {
        RelativisticAverageHingeLoss { loss_weight: 1.0 }
    }
}

impl Declared for RelativisticAverageHingeLoss {
    const NAME: &'static str = "RelativisticAverageHingeLoss";
    const ABOUT: About = About {
        summary: "Each image against the other kind's average.",
        formula: "mean max(0, 1 − (s_real − mean s_fake)) + mean max(0, 1 + (s_fake − mean s_real)),\n\
                  with roles swapped for the generator",
        source: "Jolicoeur-Martineau, The Relativistic Discriminator, 2018",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl RelativisticAverageHingeLoss {
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
        check_scores(Self::NAME, "fake", fake)?;
        check_scores(Self::NAME, "real", real)?;
        let sign = if side == Side::Discriminator { 1.0 } else { -1.0 };
        let weight = self.weight(side);
        let (wide_fake, wide_real) = (fake.accumulator()?, real.accumulator()?);
        let r = less(&wide_real, &wide_fake.mean_all()?)?;
        let f = less(&wide_fake, &wide_real.mean_all()?)?;
        let of_real = mean(Self::NAME, &Function::new(Hinge { sign }), &[("real", &r)], weight)?;
        let of_fake = mean(Self::NAME, &Function::new(Hinge { sign: -sign }), &[("fake", &f)], weight)?;
        of_real.add(&of_fake)?.cast_like(fake)
    }
}

impl Configurable for RelativisticAverageHingeLoss {
    type State = ();

    fn arguments(&self) -> Vec<Argument> {
        pair_arguments()
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, _: &mut ()) -> Result<Outcome<T>> {
        let (fake, real) = (inputs.get_tensor(Self::NAME, "fake")?, inputs.get_tensor(Self::NAME, "real")?);
        self.forward(fake, real, side_of(Self::NAME, inputs)?).map(Outcome::Value)
    }

    fn weight<T>(&self, _: &str, inputs: &Inputs<'_, T>) -> Result<Option<f64>> {
        Ok(Some(RelativisticAverageHingeLoss::weight(self, side_of(Self::NAME, inputs)?)))
    }
}
