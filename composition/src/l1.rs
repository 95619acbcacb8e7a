//! The absolute error of a composition.

use image_losses_core::{About, Declared, Expr, Input, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite};
use serde::{Deserialize, Serialize};

use crate::merge::{INPUTS, difference};

/// The absolute error of a composition, |α·f + (1 − α)·b − m|, reduced: L1 composition loss of image matting.
///
/// L = λ · reduce(|α·f + (1 − α)·b − m|), with the weighted reductions of [`Reducer`].
///
/// # Shapes
/// α: (N, 1, …). Foreground f, background b and observed image m: (N, C, …), equal, any C. Weight: (N, 1, …) or
/// (N, C, …).
///
/// In [0, ∞) for λ > 0; 0 where α, f and b compose to m. Not differentiable where they do; the gradient there is 0.
///
/// # Errors
/// `Error::ShapeMismatch`, `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`.
///
/// ```
/// use image_losses_composition::L1CompositionLoss;
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let alpha = NdTensor::new(array![[[0.25f64, 1.0]]]);
/// let foreground = NdTensor::new(array![[[8.0f64, 3.0]]]);
/// let background = NdTensor::new(array![[[4.0f64, 9.0]]]);
/// let merged = NdTensor::new(array![[[1.0f64, 3.0]]]);
/// // Composed: 0.25·8 + 0.75·4 = 5 and 3.
/// let loss = L1CompositionLoss::default().forward([&alpha, &foreground, &background, &merged], None)?;
/// assert_eq!(loss.item()?, 2.0); // mean of |5 − 1| and 0
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: N. Xu, B. Price, S. Cohen, T. Huang, "Deep image matting", 2017; MMagic,
/// `mmagic.models.losses.L1CompositionLoss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct L1CompositionLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `none`, `mean` or `sum`. Default: `mean`.
    pub reduction: Reduction,
    /// Average each sample by its own weights first. Default: `false`.
    pub sample_wise: bool,
}

impl Default for L1CompositionLoss {
    fn default() -> Self {
        L1CompositionLoss { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false }
    }
}

impl Declared for L1CompositionLoss {
    const NAME: &'static str = "L1CompositionLoss";
    const ABOUT: About = About {
        summary: "How far foreground and background, mixed by α, are from the image.",
        formula: "λ · reduce |α·f + (1 − α)·b − m|",
        source: "MMagic",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl Pointwise<4> for L1CompositionLoss {
    fn value<'e>(&self, inputs: [Expr<'e>; 4]) -> Expr<'e> {
        difference(inputs).abs()
    }
}

impl PointwiseLoss<4> for L1CompositionLoss {
    const INPUTS: [Input; 4] = INPUTS;

    fn reducer(&self) -> Reducer {
        let L1CompositionLoss { loss_weight, reduction, sample_wise } = *self;
        Reducer { loss_weight, reduction, sample_wise }
    }
}
