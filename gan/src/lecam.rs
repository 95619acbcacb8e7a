//! The LeCam regulariser.

use image_losses_core::config::{Argument, Carried, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{About, Declared, Differentiable, Error, Expr, Function, Pointwise, Result, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::scores::{SquaredDistance, mean};

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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LeCamLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// γ, the part of the moving averages that an update keeps. Default: 0.99.
    pub decay: f64,
    /// Penalise only real scores above α_fake and generated scores below α_real, as the authors' program does. Default:
    /// `false`.
    pub one_sided: bool,
}

impl Default for LeCamLoss {
    fn default() -> Self {
        LeCamLoss { loss_weight: 1.0, decay: 0.99, one_sided: false }
    }
}

impl Declared for LeCamLoss {
    const NAME: &'static str = "LeCamLoss";
    const TERM: Option<&'static str> = Some("loss_lecam");
    const ABOUT: About = About {
        summary: "Holds scores near the other kind's moving average.",
        formula: "λ · [ mean (s_real − α_fake)² + mean (s_fake − α_real)² ]",
        source: "Tseng et al., Regularizing Generative Adversarial Networks under Limited Data, 2021",
    };

    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite or a `decay` outside [0, 1].
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)?;
        if !(0.0..=1.0).contains(&self.decay) {
            return Err(Error::option(Self::NAME, "decay", "in [0, 1]", self.decay));
        }
        Ok(())
    }
}

impl LeCamLoss {
    /// Moves the averages towards the means of this step's scores, evaluated. The authors update before they regularise.
    ///
    /// A mean that is not finite is not remembered: its average stays as it was.
    pub fn update(&self, averages: &mut LeCamAverages, mean_real: f64, mean_fake: f64) {
        let decay = self.decay;
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
        self.check()?;
        let known = |average: Option<f64>, argument: &str| {
            let hint = ": update the moving averages with the scores' means first".into();
            average.ok_or_else(|| Error::MissingInput { operation: Self::NAME, argument: argument.into(), hint })
        };
        let alpha_real = known(averages.real, "averages.real")?;
        let alpha_fake = known(averages.fake, "averages.fake")?;
        let distance = |alpha: f64, sign: f64| match self.one_sided {
            true => Function::new(SquaredExcess { alpha, sign }),
            false => Function::new(SquaredDistance { label: alpha }),
        };
        let weight = self.loss_weight;
        let of_real = mean(Self::NAME, &distance(alpha_fake, 1.0), &[("real", real)], weight)?;
        let of_fake = mean(Self::NAME, &distance(alpha_real, -1.0), &[("fake", fake)], weight)?;
        of_real.add(&of_fake)?.cast_like(fake)
    }
}

const MEAN_REAL: &str = "mean_real";
const MEAN_FAKE: &str = "mean_fake";

/// Each call carries the means of its scores for the averages. A call without averages, as the first, has no value and
/// carries alone.
impl Configurable for LeCamLoss {
    type State = LeCamAverages;

    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("fake", Kind::Tensor),
            Argument::required("real", Kind::Tensor),
            Argument::optional(MEAN_REAL, Kind::Number),
            Argument::optional(MEAN_FAKE, Kind::Number),
        ]
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, state: &mut LeCamAverages) -> Result<Outcome<T>> {
        let (fake, real) = (inputs.get_tensor(Self::NAME, "fake")?, inputs.get_tensor(Self::NAME, "real")?);
        let averages = LeCamAverages {
            real: inputs.get_number_if_any(Self::NAME, MEAN_REAL)?.or(state.real),
            fake: inputs.get_number_if_any(Self::NAME, MEAN_FAKE)?.or(state.fake),
        };
        let mean = |scores: &T| scores.detach().accumulator()?.mean_all();
        let carried = vec![(MEAN_REAL, mean(real)?), (MEAN_FAKE, mean(fake)?)];
        let values = match averages {
            LeCamAverages { real: Some(_), fake: Some(_) } => vec![("", self.forward(fake, real, &averages)?)],
            _ => Vec::new(),
        };
        Ok(Outcome::Carrying { values, state: carried })
    }

    fn remember(&self, state: &mut LeCamAverages, carried: &[Carried]) -> Result<()> {
        let mean = |name| Carried::find(carried, name)?.values.first().copied();
        if let (Some(real), Some(fake)) = (mean(MEAN_REAL), mean(MEAN_FAKE)) {
            self.update(state, real, fake);
        }
        Ok(())
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
