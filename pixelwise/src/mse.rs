//! The mean squared error.

use std::sync::LazyLock;

use image_losses_core::{
    About, Declared, Expr, Function, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite,
};
use serde::{Deserialize, Serialize};

/// The squared error (x − y)², reduced: mean squared error, MSE, L2 loss. Configured as `MSELoss`.
///
/// L = λ · reduce((x − y)²), with the weighted reductions of [`Reducer`]. No factor ½: this is PyTorch's convention;
/// textbooks on regression often halve it.
///
/// # Shapes
/// Prediction x and target y: (N, C, …), equal. Weight: (N, 1, …) or (N, C, …).
///
/// In [0, ∞) for λ > 0; 0 for a perfect prediction. Differentiable everywhere.
///
/// # Errors
/// `Error::ShapeMismatch`, `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`.
///
/// ```
/// use image_losses_core::{Loss, Tensor};
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::MseLoss;
/// use ndarray::array;
///
/// let prediction = NdTensor::new(array![[1.0f64, 2.0], [3.0, 4.0]]);
/// let target = NdTensor::new(array![[1.0f64, 4.0], [3.0, 0.0]]);
/// let loss = MseLoss::default().forward([&prediction, &target], None)?;
/// assert_eq!(loss.item()?, 5.0); // mean of 0, 4, 0, 16
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: MMagic, `mmagic.models.losses.MSELoss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MseLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `none`, `mean` or `sum`. Default: `mean`.
    pub reduction: Reduction,
    /// Average each sample by its own weights first. Default: `false`.
    pub sample_wise: bool,
}

impl Default for MseLoss {
    fn default() -> Self {
        MseLoss { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false }
    }
}

impl Declared for MseLoss {
    const NAME: &'static str = "MSELoss";
    const ABOUT: About = About {
        summary: "The mean squared error: large errors rule.",
        formula: "λ · reduce (x − y)²",
        source: "MMagic",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl Pointwise<2> for MseLoss {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).square()
    }
}

impl PointwiseLoss<2> for MseLoss {
    fn reducer(&self) -> Reducer {
        let MseLoss { loss_weight, reduction, sample_wise } = *self;
        Reducer { loss_weight, reduction, sample_wise }
    }
}

/// (x − y)², for the losses that are made of it.
pub(crate) static SQUARED: LazyLock<Function> = LazyLock::new(|| Function::new(MseLoss::default()));
