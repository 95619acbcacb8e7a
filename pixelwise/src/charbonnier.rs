//! The Charbonnier loss.

use image_losses_core::{
    Error, Expr, Function, Input, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite, not_negative,
};
use serde::{Deserialize, Serialize};

use crate::l1::Absolute;

/// Options of [`CharbonnierLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `reduction` | `none`, `mean` or `sum` | `mean` |
/// | `sample_wise` | average each sample by its own weights first | `false` |
/// | `eps` | ε under the root, at least 0; 0 gives the L1 loss | 1e-12 |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CharbonnierOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// What becomes of the map.
    pub reduction: Reduction,
    /// Average each sample by its own weights first.
    pub sample_wise: bool,
    /// ε under the root, at least 0.
    pub eps: f64,
}

impl Default for CharbonnierOptions {
    fn default() -> Self {
        CharbonnierOptions { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false, eps: 1e-12 }
    }
}

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
/// Options: [`CharbonnierOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`].
///
/// ```
/// use image_losses_core::{Loss, Reduction};
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::{CharbonnierLoss, CharbonnierOptions};
/// use ndarray::array;
///
/// let loss = CharbonnierLoss::new(CharbonnierOptions { eps: 9.0, ..Default::default() })?;
/// let prediction = NdTensor::new(array![[4.0f64, 1.0]]);
/// let target = NdTensor::new(array![[0.0f64, 1.0]]);
/// assert_eq!(loss.forward([&prediction, &target], None)?.item()?, 4.0); // mean of √(16 + 9) and √9
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: P. Charbonnier, L. Blanc-Féraud, G. Aubert, M. Barlaud, "Two deterministic half-quadratic regularization
/// algorithms for computed imaging", 1994; MMagic, `mmagic.models.losses.CharbonnierLoss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CharbonnierOptions", into = "CharbonnierOptions")]
pub struct CharbonnierLoss {
    options: CharbonnierOptions,
}

impl CharbonnierLoss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite, or an `eps` that is not finite or is negative.
    pub fn new(options: CharbonnierOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        not_negative(Self::NAME, "eps", options.eps)?;
        Ok(CharbonnierLoss { options })
    }
}

impl TryFrom<CharbonnierOptions> for CharbonnierLoss {
    type Error = Error;
    fn try_from(options: CharbonnierOptions) -> Result<Self> {
        CharbonnierLoss::new(options)
    }
}

impl From<CharbonnierLoss> for CharbonnierOptions {
    fn from(loss: CharbonnierLoss) -> Self {
        loss.options
    }
}

impl PointwiseLoss<2> for CharbonnierLoss {
    const NAME: &'static str = "CharbonnierLoss";
    const INPUTS: [Input; 2] = [Input::full("pred"), Input::full("target")];
    fn function(&self) -> Function {
        // √(d²) has no derivative at 0 to speak of and rounds d² away for small d; |d| is the same function.
        if self.options.eps == 0.0 {
            Function::new(Absolute)
        } else {
            Function::new(Charbonnier { eps: self.options.eps })
        }
    }
    fn reducer(&self) -> Reducer {
        let CharbonnierOptions { loss_weight, reduction, sample_wise, eps: _ } = self.options;
        Reducer { loss_weight, reduction, sample_wise }
    }
}

/// √((x − y)² + ε), ε > 0.
#[derive(Clone, Copy, Debug)]
struct Charbonnier {
    eps: f64,
}

impl Pointwise<2> for Charbonnier {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        ((x - y).square() + self.eps).sqrt()
    }
}
