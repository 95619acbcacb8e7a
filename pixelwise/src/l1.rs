//! The mean absolute error.

use image_losses_core::{About, Declared, Expr, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite};
use serde::{Deserialize, Serialize};

/// The absolute error |x − y|, reduced: mean absolute error, MAE, L1 loss.
///
/// L = λ · reduce(|x − y|), with the weighted reductions of [`Reducer`].
///
/// # Shapes
/// Prediction x and target y: (N, C, …), equal. Weight: (N, 1, …) or (N, C, …).
///
/// In [0, ∞) for λ > 0; 0 for a perfect prediction. Not differentiable where x = y; the gradient there is 0.
///
/// # Errors
/// `Error::ShapeMismatch`, `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`.
///
/// ```
/// use image_losses_core::{Loss, Tensor};
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::L1Loss;
/// use ndarray::array;
///
/// let prediction = NdTensor::new(array![[1.0f64, 2.0], [3.0, 4.0]]);
/// let target = NdTensor::new(array![[1.0f64, 4.0], [3.0, 0.0]]);
/// let loss = L1Loss::default().forward([&prediction, &target], None)?;
/// assert_eq!(loss.item()?, 1.5); // mean of 0, 2, 0, 4
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: MMagic, `mmagic.models.losses.L1Loss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct L1Loss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `none`, `mean` or `sum`. Default: `mean`.
    pub reduction: Reduction,
    /// Average each sample by its own weights first. Default: `false`.
    pub sample_wise: bool,
}

impl Default for L1Loss {
    fn default() -> Self {
        L1Loss { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false }
    }
}

impl Declared for L1Loss {
    const NAME: &'static str = "L1Loss";
    const ABOUT: About = About {
        summary: "The mean absolute error: every error pulls alike, so a few large ones do not rule.",
        formula: "λ · reduce |x − y|",
        source: "MMagic",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl Pointwise<2> for L1Loss {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).abs()
    }
}

impl PointwiseLoss<2> for L1Loss {
    fn reducer(&self) -> Reducer {
        let L1Loss { loss_weight, reduction, sample_wise } = *self;
        Reducer { loss_weight, reduction, sample_wise }
    }
}
