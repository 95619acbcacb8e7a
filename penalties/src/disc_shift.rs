//! The penalty on the size of a critic's scores.

use image_losses_core::{Error, Expr, Function, Input, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite};
use serde::{Deserialize, Serialize};

/// Options of [`DiscShiftLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 0.1 |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiscShiftOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
}

impl Default for DiscShiftOptions {
    fn default() -> Self {
        DiscShiftOptions { loss_weight: 0.1 }
    }
}

/// The discriminator shift loss, or drift penalty: keeps a critic's scores near zero.
///
/// L = λ · mean(s²), s the scores.
///
/// A Wasserstein critic is free to add a constant to all scores; this ties it down. The paper has λ = 0.001, on the
/// scores of real data. [`DiscShiftLossComps`] is the map before its mean.
///
/// # Shapes
/// Scores s: (N, C, …). Weight: (N, 1, …) or (N, C, …).
///
/// In [0, ∞) for λ > 0; 0 for scores of zero. Differentiable everywhere.
///
/// Options: [`DiscShiftOptions`].
///
/// # Errors
/// [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`].
///
/// ```
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_penalties::{DiscShiftLoss, DiscShiftOptions};
/// use ndarray::array;
///
/// let scores = NdTensor::new(array![[1.0f64], [-3.0]]);
/// let loss = DiscShiftLoss::new(DiscShiftOptions { loss_weight: 0.5 })?.forward([&scores], None)?;
/// assert_eq!(loss.item()?, 2.5); // ½ · mean of 1, 9
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: Karras, Aila, Laine, Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
/// 2018, appendix A.1; MMagic, `mmagic.models.losses.DiscShiftLoss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "DiscShiftOptions", into = "DiscShiftOptions")]
pub struct DiscShiftLoss {
    options: DiscShiftOptions,
}

impl DiscShiftLoss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: DiscShiftOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        Ok(DiscShiftLoss { options })
    }
}

impl TryFrom<DiscShiftOptions> for DiscShiftLoss {
    type Error = Error;
    fn try_from(options: DiscShiftOptions) -> Result<Self> {
        DiscShiftLoss::new(options)
    }
}

impl From<DiscShiftLoss> for DiscShiftOptions {
    fn from(loss: DiscShiftLoss) -> Self {
        loss.options
    }
}

impl PointwiseLoss<1> for DiscShiftLoss {
    const NAME: &'static str = "DiscShiftLoss";
    const INPUTS: [Input; 1] = [Input::full("pred")];
    fn function(&self) -> Function {
        Function::new(Squared)
    }
    fn reducer(&self) -> Reducer {
        Reducer { loss_weight: self.options.loss_weight, ..Reducer::default() }
    }
}

/// Options of [`DiscShiftLossComps`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the map | 1 |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiscShiftCompsOptions {
    /// λ, multiplies the map.
    pub loss_weight: f64,
}

impl Default for DiscShiftCompsOptions {
    fn default() -> Self {
        DiscShiftCompsOptions { loss_weight: 1.0 }
    }
}

/// The discriminator shift loss as a component of an objective: the map, averaged where losses are summed.
///
/// L = λ · s², s the scores; [`DiscShiftLoss`] is its mean.
///
/// # Shapes
/// Scores s: (N, C, …); the result has their shape. Weight: (N, 1, …) or (N, C, …).
///
/// In [0, ∞) for λ > 0; 0 for scores of zero. Differentiable everywhere.
///
/// Options: [`DiscShiftCompsOptions`].
///
/// # Errors
/// [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`].
///
/// ```
/// use image_losses_core::{Loss, Tensor};
/// use image_losses_ndarray::NdTensor;
/// use image_losses_penalties::DiscShiftLossComps;
/// use ndarray::array;
///
/// let scores = NdTensor::new(array![[1.0f64], [-3.0]]);
/// let map = DiscShiftLossComps::default().forward([&scores], None)?;
/// assert_eq!(map.into_array(), array![[1.0], [9.0]].into_dyn());
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: as [`DiscShiftLoss`]; MMagic, `mmagic.models.losses.DiscShiftLossComps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "DiscShiftCompsOptions", into = "DiscShiftCompsOptions")]
pub struct DiscShiftLossComps {
    options: DiscShiftCompsOptions,
}

impl DiscShiftLossComps {
    /// The component with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: DiscShiftCompsOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        Ok(DiscShiftLossComps { options })
    }
}

impl TryFrom<DiscShiftCompsOptions> for DiscShiftLossComps {
    type Error = Error;
    fn try_from(options: DiscShiftCompsOptions) -> Result<Self> {
        DiscShiftLossComps::new(options)
    }
}

impl From<DiscShiftLossComps> for DiscShiftCompsOptions {
    fn from(loss: DiscShiftLossComps) -> Self {
        loss.options
    }
}

impl PointwiseLoss<1> for DiscShiftLossComps {
    const NAME: &'static str = "DiscShiftLossComps";
    const INPUTS: [Input; 1] = [Input::full("pred")];
    fn function(&self) -> Function {
        Function::new(Squared)
    }
    fn reducer(&self) -> Reducer {
        Reducer { loss_weight: self.options.loss_weight, reduction: Reduction::None, sample_wise: false }
    }
}

/// s².
#[derive(Clone, Copy, Debug)]
struct Squared;

impl Pointwise<1> for Squared {
    fn value<'e>(&self, [scores]: [Expr<'e>; 1]) -> Expr<'e> {
        scores.square()
    }
}
