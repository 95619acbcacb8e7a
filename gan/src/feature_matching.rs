//! The distance between a critic's features.

use std::sync::LazyLock;

use image_losses_core::config::{Argument, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{About, Declared, Differentiable, Error, Expr, Function, Pointwise, Result, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::scores::{SQUARED_DIFFERENCE, mean};

/// The distance that a [`FeatureMatchingLoss`] averages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FeatureCriterion {
    /// |x − y|.
    #[default]
    L1,
    /// (x − y)².
    Mse,
}

/// The distance between the features that a discriminator finds in generated and in real images: feature matching loss.
/// It is a generator's loss.
///
/// L = λ · Σ_i mean |f_i(fake) − f_i(real)| over the layers i, and summed over the scales k of a multi-scale
/// discriminator. The real images' features carry no gradient.
///
/// That is the paper's equation 4, each layer divided by its number of elements, and summed over the discriminators as
/// in its equation 5. The authors' program divides by the number of discriminators and multiplies by
/// 4/(number of layers); give that as the `loss_weight` where its numbers are wanted.
///
/// # Shapes
/// Two lists of tensors of any shape (rank at least 1), in pairs equal.
///
/// In [0, ∞) for λ > 0; 0 for equal features. `l1` is not differentiable where features are equal; the gradient is 0 there.
///
/// # Errors
/// [`Error::InputCount`] for no features, or lists of different lengths; [`Error::ShapeMismatch`],
/// [`Error::ShapeRule`] for features without axes, [`Error::Empty`].
///
/// ```
/// use image_losses_gan::FeatureMatchingLoss;
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let fake = [NdTensor::new(array![[1.0f64, 2.0]]), NdTensor::new(array![[5.0f64]])];
/// let real = [NdTensor::new(array![[0.0f64, 0.0]]), NdTensor::new(array![[3.0f64]])];
/// let loss = FeatureMatchingLoss::default().forward(&[&fake[0], &fake[1]], &[&real[0], &real[1]])?;
/// assert_eq!(loss.item()?, 3.5); // mean of 1, 2; and 2
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: T.-C. Wang et al., *High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs*
/// (pix2pixHD), 2018, equations 4 and 5.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FeatureMatchingLoss {
    /// λ, multiplies the result; the paper takes 10. Default: 1.
    pub loss_weight: f64,
    /// `l1` or `mse`. Default: `l1`.
    pub criterion: FeatureCriterion,
}

impl Default for FeatureMatchingLoss {
    fn default() -> Self {
        FeatureMatchingLoss { loss_weight: 1.0, criterion: FeatureCriterion::L1 }
    }
}

impl Declared for FeatureMatchingLoss {
    const NAME: &'static str = "FeatureMatchingLoss";
    const ABOUT: About = About {
        summary: "A critic's features of generated and of real images, layer by layer.",
        formula: "λ · Σ over layers, mean criterion(f_fake, f_real)",
        source: "Wang et al., High-Resolution Image Synthesis with Conditional GANs, 2018",
    };

    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl FeatureMatchingLoss {
    /// The loss of one discriminator's features of generated and of real images, layer by layer.
    ///
    /// # Errors
    /// As the type says.
    pub fn forward<T: Tensor>(&self, fake: &[&T], real: &[&T]) -> Result<T> {
        self.check()?;
        let (expected, got) = (fake.len(), real.len());
        let Some(&first) = fake.first() else {
            return Err(Error::InputCount { operation: Self::NAME, expected: 1, got: 0 });
        };
        if expected != got {
            return Err(Error::InputCount { operation: Self::NAME, expected, got });
        }
        let function = match self.criterion {
            FeatureCriterion::L1 => &*ABSOLUTE_DIFFERENCE,
            FeatureCriterion::Mse => &*SQUARED_DIFFERENCE,
        };
        let mut sum: Option<T> = None;
        for (fake, real) in fake.iter().zip(real) {
            let inputs = [("fake", *fake), ("real", &real.detach())];
            let term = mean(Self::NAME, function, &inputs, self.loss_weight)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
        }
        sum.ok_or(Error::InputCount { operation: Self::NAME, expected: 1, got: 0 })?.cast_like(first)
    }

    /// The sum over the scales of a multi-scale discriminator, each with its own list of features.
    ///
    /// # Errors
    /// As the type says.
    pub fn forward_scales<T: Tensor>(&self, fake: &[Vec<&T>], real: &[Vec<&T>]) -> Result<T> {
        let (expected, got) = (fake.len(), real.len());
        if expected != got {
            return Err(Error::InputCount { operation: Self::NAME, expected, got });
        }
        for (fake, real) in fake.iter().zip(real) {
            let (expected, got) = (fake.len(), real.len());
            if expected != got {
                return Err(Error::InputCount { operation: Self::NAME, expected, got });
            }
        }
        self.forward(&fake.concat(), &real.concat())
    }
}

impl Configurable for FeatureMatchingLoss {
    type State = ();

    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("fake", Kind::Tensors),
            Argument::required("real", Kind::Tensors),
            // BasicSR divides by it.
            Argument::optional(DISCRIMINATORS, Kind::Number),
        ]
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, _: &mut ()) -> Result<Outcome<T>> {
        let (fake, real) = (inputs.get_tensors(Self::NAME, "fake")?, inputs.get_tensors(Self::NAME, "real")?);
        let value = self.forward(&fake, &real)?;
        let value = match discriminators_of(inputs)? {
            1.0 => value,
            number => value.accumulator()?.scale(1.0 / number)?.cast_like(&value)?,
        };
        Ok(Outcome::Value(value))
    }

    fn weight<T>(&self, _: &str, inputs: &Inputs<'_, T>) -> Result<Option<f64>> {
        Ok(Some(self.loss_weight / discriminators_of(inputs)?))
    }
}

const DISCRIMINATORS: &str = "num_discriminators";

/// The number of discriminators that the features are of, 1 where it is not given.
fn discriminators_of<T>(inputs: &Inputs<'_, T>) -> Result<f64> {
    match inputs.get_number_if_any(FeatureMatchingLoss::NAME, DISCRIMINATORS)? {
        None => Ok(1.0),
        Some(number) if number >= 1.0 && number.fract() == 0.0 => Ok(number),
        Some(number) => {
            Err(Error::option(FeatureMatchingLoss::NAME, DISCRIMINATORS, "a whole number, at least 1", number))
        }
    }
}

/// |x − y|.
#[derive(Clone, Copy, Debug)]
struct AbsoluteDifference;

static ABSOLUTE_DIFFERENCE: LazyLock<Function> = LazyLock::new(|| Function::new(AbsoluteDifference));

impl Pointwise<2> for AbsoluteDifference {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).abs()
    }
}
