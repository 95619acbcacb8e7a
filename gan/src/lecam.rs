//! The LeCam regulariser.

use image_losses_core::{Error, Expr, Function, Pointwise, Result, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::scores::{SquaredDistance, mean, scalar};

const NAME: &str = "LeCamLoss";

/// Options of [`LeCamLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `decay` | γ, the part of the moving averages that an update keeps | 0.99 |
/// | `one_sided` | penalise only real scores above α_fake and generated scores below α_real, as the authors' program does | `false` |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LeCamOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// γ, the part of the moving averages that an update keeps.
    pub decay: f64,
    /// Penalise only real scores above α_fake and generated scores below α_real.
    pub one_sided: bool,
}

impl Default for LeCamOptions {
    fn default() -> Self {
        LeCamOptions { loss_weight: 1.0, decay: 0.99, one_sided: false }
    }
}

/// The moving averages α of a critic's scores, the state of a [`LeCamLoss`].
///
/// `None` until the first update with a finite mean, which they are set to; start them elsewhere by filling the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeCamAverages {
    /// α_real, of scores of real images.
    pub real: Option<f64>,
    /// α_fake, of scores of generated images.
    pub fake: Option<f64>,
}

/// The distance of scores from the other side's moving average: the LeCam regulariser, for critics trained on little
/// data. It is added to the discriminator's loss.
///
/// R = λ · ( mean (s_real − α_fake)² + mean (s_fake − α_real)² ); `one_sided`:
/// λ · ( mean max(0, s_real − α_fake)² + mean max(0, α_real − s_fake)² ).
/// The averages are constants: α ← γ·α + (1 − γ)·mean(s), by [`update`](LeCamLoss::update).
///
/// The squares are the paper's; the rectified form is what the authors' program computes.
///
/// # Shapes
/// Scores of real and of generated images: any, rank at least 1; the two batches may differ.
///
/// In [0, ∞) for λ > 0. Differentiable everywhere.
///
/// Options: [`LeCamOptions`].
///
/// # Errors
/// [`Error::MissingInput`] before the first update, [`Error::ShapeRule`] for scores without axes, [`Error::Empty`].
///
/// ```
/// use image_losses_gan::{LeCamAverages, LeCamLoss};
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let loss = LeCamLoss::default();
/// let mut averages = LeCamAverages::default();
/// loss.update(&mut averages, 2.0, -1.0); // the means of the real and of the generated scores
/// let (fake, real) = (NdTensor::new(array![-2.0f64, 0.0]), NdTensor::new(array![2.0f64, 2.0]));
/// // mean (2 + 1)² + mean ((−2 − 2)², (0 − 2)²)
/// assert_eq!(loss.forward(&fake, &real, &averages)?.item()?, 19.0);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: H.-Y. Tseng, L. Jiang, C. Liu, M.-H. Yang, W. Yang, *Regularizing Generative Adversarial Networks under
/// Limited Data*, 2021, section 3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "LeCamOptions", into = "LeCamOptions")]
pub struct LeCamLoss {
    options: LeCamOptions,
}

impl LeCamLoss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite or a `decay` outside [0, 1].
    pub fn new(options: LeCamOptions) -> Result<Self> {
        finite(NAME, "loss_weight", options.loss_weight)?;
        if !(0.0..=1.0).contains(&options.decay) {
            return Err(Error::option(NAME, "decay", "in [0, 1]", options.decay));
        }
        Ok(LeCamLoss { options })
    }

    /// Moves the averages towards the means of this step's scores, evaluated. The authors update before they regularise.
    ///
    /// A mean that is not finite is not remembered: its average stays as it was.
    pub fn update(&self, averages: &mut LeCamAverages, mean_real: f64, mean_fake: f64) {
        let decay = self.options.decay;
        for (average, mean) in [(&mut averages.real, mean_real), (&mut averages.fake, mean_fake)] {
            if mean.is_finite() {
                *average = Some(average.map_or(mean, |average| decay * average + (1.0 - decay) * mean));
            }
        }
    }

    /// The regulariser of the scores of generated and of real images.
    ///
    /// # Errors
    /// As the type says.
    pub fn forward<T: Tensor>(&self, fake: &T, real: &T, averages: &LeCamAverages) -> Result<T> {
        let known = |average: Option<f64>, argument: &str| {
            let hint = ": update the moving averages with the scores' means first".into();
            average.ok_or_else(|| Error::MissingInput { operation: NAME, argument: argument.into(), hint })
        };
        let alpha_real = known(averages.real, "averages.real")?;
        let alpha_fake = known(averages.fake, "averages.fake")?;
        let distance = |alpha: f64, sign: f64| match self.options.one_sided {
            true => Function::new(SquaredExcess { alpha, sign }),
            false => Function::new(SquaredDistance { label: alpha }),
        };
        let weight = self.options.loss_weight;
        let of_real = mean(NAME, &distance(alpha_fake, 1.0), &[("real", real)], weight)?;
        let of_fake = mean(NAME, &distance(alpha_real, -1.0), &[("fake", fake)], weight)?;
        scalar(&of_real)?.add(&scalar(&of_fake)?)?.cast_like(fake)
    }
}

impl TryFrom<LeCamOptions> for LeCamLoss {
    type Error = Error;
    fn try_from(options: LeCamOptions) -> Result<Self> {
        LeCamLoss::new(options)
    }
}

impl From<LeCamLoss> for LeCamOptions {
    fn from(loss: LeCamLoss) -> Self {
        loss.options
    }
}

/// max(0, `sign`·(s − α))².
#[derive(Clone, Copy, Debug)]
struct SquaredExcess {
    alpha: f64,
    sign: f64,
}

impl Pointwise<1> for SquaredExcess {
    fn value<'e>(&self, [s]: [Expr<'e>; 1]) -> Expr<'e> {
        ((s - self.alpha) * self.sign).relu().square()
    }
}
