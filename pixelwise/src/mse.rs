//! The mean squared error.

use std::sync::LazyLock;

use image_losses_core::{Error, Expr, Function, Input, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite};
use serde::{Deserialize, Serialize};

/// Options of [`MseLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `reduction` | `none`, `mean` or `sum` | `mean` |
/// | `sample_wise` | average each sample by its own weights first | `false` |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MseOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// What becomes of the map.
    pub reduction: Reduction,
    /// Average each sample by its own weights first.
    pub sample_wise: bool,
}

impl Default for MseOptions {
    fn default() -> Self {
        MseOptions { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false }
    }
}

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
/// Options: [`MseOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`].
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "MseOptions", into = "MseOptions")]
pub struct MseLoss {
    options: MseOptions,
}

impl MseLoss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: MseOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        Ok(MseLoss { options })
    }
}

impl TryFrom<MseOptions> for MseLoss {
    type Error = Error;
    fn try_from(options: MseOptions) -> Result<Self> {
        MseLoss::new(options)
    }
}

impl From<MseLoss> for MseOptions {
    fn from(loss: MseLoss) -> Self {
        loss.options
    }
}

impl PointwiseLoss<2> for MseLoss {
    const NAME: &'static str = "MSELoss";
    const INPUTS: [Input; 2] = [Input::full("pred"), Input::full("target")];
    fn function(&self) -> Function {
        SQUARED.clone()
    }
    fn reducer(&self) -> Reducer {
        let MseOptions { loss_weight, reduction, sample_wise } = self.options;
        Reducer { loss_weight, reduction, sample_wise }
    }
}

/// (x − y)².
#[derive(Clone, Copy, Debug)]
struct Squared;

pub(crate) static SQUARED: LazyLock<Function> = LazyLock::new(|| Function::new(Squared));

impl Pointwise<2> for Squared {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).square()
    }
}
