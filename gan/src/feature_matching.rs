//! The distance between a critic's features.

use std::sync::LazyLock;

use image_losses_core::{Error, Expr, Function, Pointwise, Result, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::scores::{SQUARED_DIFFERENCE, mean, scalar};

const NAME: &str = "FeatureMatchingLoss";

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

/// Options of [`FeatureMatchingLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result; the paper takes 10 | 1 |
/// | `criterion` | `l1` or `mse` | `l1` |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FeatureMatchingOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// The distance that is averaged.
    pub criterion: FeatureCriterion,
}

impl Default for FeatureMatchingOptions {
    fn default() -> Self {
        FeatureMatchingOptions { loss_weight: 1.0, criterion: FeatureCriterion::L1 }
    }
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
/// Options: [`FeatureMatchingOptions`].
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FeatureMatchingOptions", into = "FeatureMatchingOptions")]
pub struct FeatureMatchingLoss {
    options: FeatureMatchingOptions,
}

impl FeatureMatchingLoss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: FeatureMatchingOptions) -> Result<Self> {
        finite(NAME, "loss_weight", options.loss_weight)?;
        Ok(FeatureMatchingLoss { options })
    }

    /// The loss of one discriminator's features of generated and of real images, layer by layer.
    ///
    /// # Errors
    /// As the type says.
    pub fn forward<T: Tensor>(&self, fake: &[&T], real: &[&T]) -> Result<T> {
        let (expected, got) = (fake.len(), real.len());
        let Some(&first) = fake.first() else {
            return Err(Error::InputCount { operation: NAME, expected: 1, got: 0 });
        };
        if expected != got {
            return Err(Error::InputCount { operation: NAME, expected, got });
        }
        let function = match self.options.criterion {
            FeatureCriterion::L1 => &*ABSOLUTE_DIFFERENCE,
            FeatureCriterion::Mse => &*SQUARED_DIFFERENCE,
        };
        let mut sum: Option<T> = None;
        for (fake, real) in fake.iter().zip(real) {
            let inputs = [("fake", *fake), ("real", &real.detach())];
            let term = scalar(&mean(NAME, function, &inputs, self.options.loss_weight)?)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
        }
        sum.ok_or(Error::InputCount { operation: NAME, expected: 1, got: 0 })?.cast_like(first)
    }

    /// The sum over the scales of a multi-scale discriminator, each with its own list of features.
    ///
    /// # Errors
    /// As the type says.
    pub fn forward_scales<T: Tensor>(&self, fake: &[Vec<&T>], real: &[Vec<&T>]) -> Result<T> {
        let (expected, got) = (fake.len(), real.len());
        if expected != got {
            return Err(Error::InputCount { operation: NAME, expected, got });
        }
        for (fake, real) in fake.iter().zip(real) {
            let (expected, got) = (fake.len(), real.len());
            if expected != got {
                return Err(Error::InputCount { operation: NAME, expected, got });
            }
        }
        self.forward(&fake.concat(), &real.concat())
    }
}

impl TryFrom<FeatureMatchingOptions> for FeatureMatchingLoss {
    type Error = Error;
    fn try_from(options: FeatureMatchingOptions) -> Result<Self> {
        FeatureMatchingLoss::new(options)
    }
}

impl From<FeatureMatchingLoss> for FeatureMatchingOptions {
    fn from(loss: FeatureMatchingLoss) -> Self {
        loss.options
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
