//! The Huber loss.

use image_losses_core::{
    Error, Expr, Function, Input, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite, positive,
};
use serde::{Deserialize, Serialize};

/// Options of [`HuberLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `reduction` | `none`, `mean` or `sum` | `mean` |
/// | `sample_wise` | average each sample by its own weights first | `false` |
/// | `delta` | δ, the difference where the parabola goes over into a line; above 0 | 1 |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HuberOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// What becomes of the map.
    pub reduction: Reduction,
    /// Average each sample by its own weights first.
    pub sample_wise: bool,
    /// δ, the difference where the parabola goes over into a line; above 0.
    pub delta: f64,
}

impl Default for HuberOptions {
    fn default() -> Self {
        HuberOptions { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false, delta: 1.0 }
    }
}

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
/// Options: [`HuberOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`].
///
/// ```
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::{HuberLoss, HuberOptions};
/// use ndarray::array;
///
/// let loss = HuberLoss::new(HuberOptions { delta: 2.0, ..Default::default() })?;
/// let prediction = NdTensor::new(array![[1.0f64, -5.0]]);
/// let target = NdTensor::new(array![[0.0f64, 0.0]]);
/// assert_eq!(loss.forward([&prediction, &target], None)?.item()?, 4.25); // mean of ½·1² and 2·(5 − 1)
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: P. J. Huber, "Robust estimation of a location parameter", 1964; PyTorch, `torch.nn.HuberLoss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "HuberOptions", into = "HuberOptions")]
pub struct HuberLoss {
    options: HuberOptions,
}

impl HuberLoss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite, or a `delta` that is not finite and positive.
    pub fn new(options: HuberOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        positive(Self::NAME, "delta", options.delta)?;
        Ok(HuberLoss { options })
    }
}

impl TryFrom<HuberOptions> for HuberLoss {
    type Error = Error;
    fn try_from(options: HuberOptions) -> Result<Self> {
        HuberLoss::new(options)
    }
}

impl From<HuberLoss> for HuberOptions {
    fn from(loss: HuberLoss) -> Self {
        loss.options
    }
}

impl PointwiseLoss<2> for HuberLoss {
    const NAME: &'static str = "HuberLoss";
    const INPUTS: [Input; 2] = [Input::full("pred"), Input::full("target")];
    fn function(&self) -> Function {
        Function::new(Huber { delta: self.options.delta })
    }
    fn reducer(&self) -> Reducer {
        let HuberOptions { loss_weight, reduction, sample_wise, delta: _ } = self.options;
        Reducer { loss_weight, reduction, sample_wise }
    }
}

/// h(x − y).
#[derive(Clone, Copy, Debug)]
struct Huber {
    delta: f64,
}

impl Pointwise<2> for Huber {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).huber(self.delta)
    }
}
