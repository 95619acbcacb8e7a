//! The Huber loss.

use image_losses_core::{
    About, Declared, Expr, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite, positive,
};
use serde::{Deserialize, Serialize};

/// A parabola with straight arms, reduced: Huber loss, robust loss.
///
/// L = λ · reduce(h(x − y)) with h(d) = ½d² for |d| < δ, else δ(|d| − ½δ), and the weighted reductions of [`Reducer`].
/// This is PyTorch's `HuberLoss`; its `SmoothL1Loss` is the same divided by δ.
///
/// # Shapes
/// Prediction x and target y: (N, C, …), equal. Weight: (N, 1, …) or (N, C, …).
///
/// In [0, ∞) for λ > 0; 0 for a perfect prediction. Differentiable once everywhere; the second derivative jumps from 1
/// to 0 at |d| = δ.
///
/// # Errors
/// `Error::ShapeMismatch`, `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`.
///
/// ```
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::HuberLoss;
/// use ndarray::array;
///
/// let loss = HuberLoss { delta: 2.0, ..Default::default() };
/// let prediction = NdTensor::new(array![[1.0f64, -5.0]]);
/// let target = NdTensor::new(array![[0.0f64, 0.0]]);
/// assert_eq!(loss.forward([&prediction, &target], None)?.item()?, 4.25); // mean of ½·1² and 2·(5 − 1)
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: P. J. Huber, "Robust estimation of a location parameter", 1964; PyTorch, `torch.nn.HuberLoss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HuberLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `none`, `mean` or `sum`. Default: `mean`.
    pub reduction: Reduction,
    /// Average each sample by its own weights first. Default: `false`.
    pub sample_wise: bool,
    /// δ, the difference where the parabola goes over into a line; above 0. Default: 1.
    pub delta: f64,
}

impl Default for HuberLoss {
    fn default() -> Self {
        HuberLoss { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false, delta: 1.0 }
    }
}

impl Declared for HuberLoss {
    const NAME: &'static str = "HuberLoss";
    const ABOUT: About = About {
        summary: "A parabola that goes over into lines at δ.",
        formula: "λ · reduce { ½d² where |d| < δ, else δ(|d| − ½δ) },  d = x − y",
        source: "Huber, Robust Estimation of a Location Parameter, 1964",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite, or a `delta` that is not finite and positive.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)?;
        positive(Self::NAME, "delta", self.delta)
    }
}

impl Pointwise<2> for HuberLoss {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).huber(self.delta)
    }
}

impl PointwiseLoss<2> for HuberLoss {
    fn reducer(&self) -> Reducer {
        let HuberLoss { loss_weight, reduction, sample_wise, .. } = *self;
        Reducer { loss_weight, reduction, sample_wise }
    }
}
