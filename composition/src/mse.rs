//! The squared error of a composition.

use image_losses_core::{Error, Expr, Function, Input, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite};
use serde::{Deserialize, Serialize};

use crate::merge::{INPUTS, difference};

/// Options of [`MseCompositionLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `reduction` | `none`, `mean` or `sum` | `mean` |
/// | `sample_wise` | average each sample by its own weights first | `false` |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MseCompositionOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// What becomes of the map.
    pub reduction: Reduction,
    /// Average each sample by its own weights first.
    pub sample_wise: bool,
}

impl Default for MseCompositionOptions {
    fn default() -> Self {
        MseCompositionOptions { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false }
    }
}

/// The squared error of a composition, (α·f + (1 − α)·b − m)², reduced: MSE composition loss of image matting.
/// Configured as `MSECompositionLoss`.
///
/// L = λ · reduce((α·f + (1 − α)·b − m)²), with the weighted reductions of [`Reducer`]. No factor ½.
///
/// # Shapes
/// α: (N, 1, …). Foreground f, background b and observed image m: (N, C, …), equal, any C. Weight: (N, 1, …) or
/// (N, C, …).
///
/// In [0, ∞) for λ > 0; 0 where α, f and b compose to m. Differentiable everywhere.
///
/// Options: [`MseCompositionOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`].
///
/// ```
/// use image_losses_composition::MseCompositionLoss;
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let alpha = NdTensor::new(array![[[0.25f64, 1.0]]]);
/// let foreground = NdTensor::new(array![[[8.0f64, 3.0]]]);
/// let background = NdTensor::new(array![[[4.0f64, 9.0]]]);
/// let merged = NdTensor::new(array![[[1.0f64, 3.0]]]);
/// // Composed: 0.25·8 + 0.75·4 = 5 and 3.
/// let loss = MseCompositionLoss::default().forward([&alpha, &foreground, &background, &merged], None)?;
/// assert_eq!(loss.item()?, 8.0); // mean of (5 − 1)² and 0
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: N. Xu, B. Price, S. Cohen, T. Huang, "Deep image matting", 2017; MMagic,
/// `mmagic.models.losses.MSECompositionLoss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "MseCompositionOptions", into = "MseCompositionOptions")]
pub struct MseCompositionLoss {
    options: MseCompositionOptions,
}

impl MseCompositionLoss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: MseCompositionOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        Ok(MseCompositionLoss { options })
    }
}

impl TryFrom<MseCompositionOptions> for MseCompositionLoss {
    type Error = Error;
    fn try_from(options: MseCompositionOptions) -> Result<Self> {
        MseCompositionLoss::new(options)
    }
}

impl From<MseCompositionLoss> for MseCompositionOptions {
    fn from(loss: MseCompositionLoss) -> Self {
        loss.options
    }
}

impl PointwiseLoss<4> for MseCompositionLoss {
    const NAME: &'static str = "MSECompositionLoss";
    const INPUTS: [Input; 4] = INPUTS;
    fn function(&self) -> Function {
        Function::new(Squared)
    }
    fn reducer(&self) -> Reducer {
        let MseCompositionOptions { loss_weight, reduction, sample_wise } = self.options;
        Reducer { loss_weight, reduction, sample_wise }
    }
}

/// (α·f + (1 − α)·b − m)².
#[derive(Clone, Copy, Debug)]
struct Squared;

impl Pointwise<4> for Squared {
    fn value<'e>(&self, inputs: [Expr<'e>; 4]) -> Expr<'e> {
        difference(inputs).square()
    }
}
