//! The penalty on the size of a critic's scores.

use image_losses_core::{About, Declared, Expr, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite};
use serde::{Deserialize, Serialize};

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
/// # Errors
/// `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`.
///
/// ```
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_penalties::DiscShiftLoss;
/// use ndarray::array;
///
/// let scores = NdTensor::new(array![[1.0f64], [-3.0]]);
/// let loss = DiscShiftLoss { loss_weight: 0.5 }.forward([&scores], None)?;
/// assert_eq!(loss.item()?, 2.5); // ½ · mean of 1, 9
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: Karras, Aila, Laine, Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
/// 2018, appendix A.1; MMagic, `mmagic.models.losses.DiscShiftLoss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiscShiftLoss {
    /// λ, multiplies the result. Default: 0.1.
    pub loss_weight: f64,
}

impl Default for DiscShiftLoss {
    fn default() -> Self {
        DiscShiftLoss { loss_weight: 0.1 }
    }
}

impl Declared for DiscShiftLoss {
    const NAME: &'static str = "DiscShiftLoss";
    const TERM: Option<&'static str> = Some("loss_disc_shift");
    const ABOUT: About = About {
        summary: "Keeps scores from drifting away from zero.",
        formula: "λ · mean s²,  λ = 0.1",
        source: "Karras et al., Progressive Growing of GANs, 2018",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl Pointwise<1> for DiscShiftLoss {
    fn value<'e>(&self, [scores]: [Expr<'e>; 1]) -> Expr<'e> {
        scores.square()
    }
}

impl PointwiseLoss<1> for DiscShiftLoss {
    fn reducer(&self) -> Reducer {
        Reducer { loss_weight: self.loss_weight, ..Reducer::default() }
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
/// # Errors
/// `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`.
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiscShiftLossComps {
    /// λ, multiplies the map. Default: 1.
    pub loss_weight: f64,
}

impl Default for DiscShiftLossComps {
    fn default() -> Self {
        DiscShiftLossComps { loss_weight: 1.0 }
    }
}

impl Declared for DiscShiftLossComps {
    const NAME: &'static str = "DiscShiftLossComps";
    const TERM: Option<&'static str> = Some("loss_disc_shift");
    const ABOUT: About =
        About {
            summary: "The same as a map, averaged where losses are summed.", formula: "λ · s²", source: "MMagic"
        };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl Pointwise<1> for DiscShiftLossComps {
    fn value<'e>(&self, [scores]: [Expr<'e>; 1]) -> Expr<'e> {
        scores.square()
    }
}

impl PointwiseLoss<1> for DiscShiftLossComps {
    fn reducer(&self) -> Reducer {
        Reducer { loss_weight: self.loss_weight, reduction: Reduction::None, sample_wise: false }
    }
}
