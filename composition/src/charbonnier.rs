//! The Charbonnier loss of a composition.

use image_losses_core::{
    About, Declared, Expr, Input, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite, not_negative,
};
use serde::{Deserialize, Serialize};

use crate::merge::{INPUTS, difference};

/// The Charbonnier loss of a composition, √((α·f + (1 − α)·b − m)² + ε), reduced: the compositional loss of image
/// matting.
///
/// L = λ · reduce(√((α·f + (1 − α)·b − m)² + ε)), with the weighted reductions of [`Reducer`]. Deep image matting writes
/// ε² with ε = 1e-6, which is the default here.
///
/// # Shapes
/// α: (N, 1, …). Foreground f, background b and observed image m: (N, C, …), equal, any C. Weight: (N, 1, …) or
/// (N, C, …).
///
/// In [√ε, ∞) for λ = 1; √ε, not 0, where α, f and b compose to m. Differentiable everywhere for ε > 0; for ε = 0 not
/// where they compose to m, and the gradient there is 0.
///
/// # Errors
/// `Error::ShapeMismatch`, `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`.
///
/// ```
/// use image_losses_composition::CharbonnierCompLoss;
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let alpha = NdTensor::new(array![[[0.25f64, 1.0]]]);
/// let foreground = NdTensor::new(array![[[8.0f64, 3.0]]]);
/// let background = NdTensor::new(array![[[4.0f64, 9.0]]]);
/// let merged = NdTensor::new(array![[[1.0f64, 3.0]]]);
/// let loss = CharbonnierCompLoss { eps: 9.0, ..Default::default() };
/// // Composed: 0.25·8 + 0.75·4 = 5 and 3.
/// let value = loss.forward([&alpha, &foreground, &background, &merged], None)?;
/// assert_eq!(value.item()?, 4.0); // mean of √(4² + 9) and √9
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: N. Xu, B. Price, S. Cohen, T. Huang, "Deep image matting", 2017; MMagic,
/// `mmagic.models.losses.CharbonnierCompLoss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CharbonnierCompLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `none`, `mean` or `sum`. Default: `mean`.
    pub reduction: Reduction,
    /// Average each sample by its own weights first. Default: `false`.
    pub sample_wise: bool,
    /// ε under the root, at least 0; 0 gives the L1 composition loss. Default: 1e-12.
    pub eps: f64,
}

impl Default for CharbonnierCompLoss {
    fn default() -> Self {
        CharbonnierCompLoss { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false, eps: 1e-12 }
    }
}

impl Declared for CharbonnierCompLoss {
    const NAME: &'static str = "CharbonnierCompLoss";
    const ABOUT: About = About {
        summary: "The same, with a rounded corner.",
        formula: "λ · reduce √((α·f + (1 − α)·b − m)² + ε)",
        source: "Xu et al., Deep Image Matting, 2017",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite, or an `eps` that is not finite or is negative.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)?;
        not_negative(Self::NAME, "eps", self.eps)
    }
}

impl Pointwise<4> for CharbonnierCompLoss {
    fn value<'e>(&self, inputs: [Expr<'e>; 4]) -> Expr<'e> {
        if self.eps == 0.0 {
            // √(d²) has no derivative at 0 and rounds d² away for small d; |d| is the same function.
            return difference(inputs).abs();
        }
        (difference(inputs).square() + self.eps).sqrt()
    }
}

impl PointwiseLoss<4> for CharbonnierCompLoss {
    const INPUTS: [Input; 4] = INPUTS;

    fn reducer(&self) -> Reducer {
        let CharbonnierCompLoss { loss_weight, reduction, sample_wise, .. } = *self;
        Reducer { loss_weight, reduction, sample_wise }
    }
}
