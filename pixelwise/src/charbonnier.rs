//! The Charbonnier loss.

use image_losses_core::{
    About, Declared, Expr, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite, not_negative,
};
use serde::{Deserialize, Serialize};

/// The absolute error with a rounded tip, √((x − y)² + ε), reduced: Charbonnier loss, pseudo-L1, smooth L1 (not
/// PyTorch's).
///
/// L = λ · reduce(√((x − y)² + ε)), with the weighted reductions of [`Reducer`]. ε is added as it is, as in MMagic and
/// BasicSR; Charbonnier et al. and Lai et al. (LapSRN) write ε², so that their ε = 1e-3 is 1e-6 here.
///
/// # Shapes
/// Prediction x and target y: (N, C, …), equal. Weight: (N, 1, …) or (N, C, …).
///
/// In [√ε, ∞) for λ = 1; √ε, not 0, for a perfect prediction. Differentiable everywhere for ε > 0; for ε = 0 not where
/// x = y, and the gradient there is 0. Where ε is below the element type's smallest normal number (1e-12 is, in
/// `f16`), the gradient at x = y is 0 as well.
///
/// # Errors
/// `Error::ShapeMismatch`, `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`.
///
/// ```
/// use image_losses_core::{Loss, Reduction};
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::CharbonnierLoss;
/// use ndarray::array;
///
/// let loss = CharbonnierLoss { eps: 9.0, ..Default::default() };
/// let prediction = NdTensor::new(array![[4.0f64, 1.0]]);
/// let target = NdTensor::new(array![[0.0f64, 1.0]]);
/// assert_eq!(loss.forward([&prediction, &target], None)?.item()?, 4.0); // mean of √(16 + 9) and √9
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: P. Charbonnier, L. Blanc-Féraud, G. Aubert, M. Barlaud, "Two deterministic half-quadratic regularization
/// algorithms for computed imaging", 1994; MMagic, `mmagic.models.losses.CharbonnierLoss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CharbonnierLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `none`, `mean` or `sum`. Default: `mean`.
    pub reduction: Reduction,
    /// Average each sample by its own weights first. Default: `false`.
    pub sample_wise: bool,
    /// ε under the root, at least 0; 0 gives the L1 loss. Default: 1e-12.
    pub eps: f64,
}

impl Default for CharbonnierLoss {
    fn default() -> Self {
        CharbonnierLoss { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false, eps: 1e-12 }
    }
}

impl Declared for CharbonnierLoss {
    const NAME: &'static str = "CharbonnierLoss";
    const ABOUT: About = About {
        summary: "L1 with a rounded corner: differentiable at zero, the rounder the larger ε.",
        formula: "λ · reduce √((x − y)² + ε)",
        source: "Charbonnier et al., Two Deterministic Half-Quadratic Regularization Algorithms, 1994",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite, or an `eps` that is not finite or is negative.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)?;
        not_negative(Self::NAME, "eps", self.eps)
    }
}

impl Pointwise<2> for CharbonnierLoss {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        if self.eps == 0.0 {
            // √(d²) has no derivative at 0 and rounds d² away for small d; |d| is the same function.
            return (x - y).abs();
        }
        ((x - y).square() + self.eps).sqrt()
    }
}

impl PointwiseLoss<2> for CharbonnierLoss {
    fn reducer(&self) -> Reducer {
        let CharbonnierLoss { loss_weight, reduction, sample_wise, .. } = *self;
        Reducer { loss_weight, reduction, sample_wise }
    }
}
