//! The Charbonnier loss of a composition.

use image_losses_core::{
    Error, Expr, Function, Input, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite, not_negative,
};
use serde::{Deserialize, Serialize};

use crate::l1::Absolute;
use crate::merge::{INPUTS, difference};

/// Options of [`CharbonnierCompLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `reduction` | `none`, `mean` or `sum` | `mean` |
/// | `sample_wise` | average each sample by its own weights first | `false` |
/// | `eps` | ε under the root, at least 0; 0 gives the L1 composition loss | 1e-12 |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CharbonnierCompOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// What becomes of the map.
    pub reduction: Reduction,
    /// Average each sample by its own weights first.
    pub sample_wise: bool,
    /// ε under the root, at least 0.
    pub eps: f64,
}

impl Default for CharbonnierCompOptions {
    fn default() -> Self {
        CharbonnierCompOptions { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false, eps: 1e-12 }
    }
}

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
/// Options: [`CharbonnierCompOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`].
///
/// ```
/// use image_losses_composition::{CharbonnierCompLoss, CharbonnierCompOptions};
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let alpha = NdTensor::new(array![[[0.25f64, 1.0]]]);
/// let foreground = NdTensor::new(array![[[8.0f64, 3.0]]]);
/// let background = NdTensor::new(array![[[4.0f64, 9.0]]]);
/// let merged = NdTensor::new(array![[[1.0f64, 3.0]]]);
/// let loss = CharbonnierCompLoss::new(CharbonnierCompOptions { eps: 9.0, ..Default::default() })?;
/// // Composed: 0.25·8 + 0.75·4 = 5 and 3.
/// let value = loss.forward([&alpha, &foreground, &background, &merged], None)?;
/// assert_eq!(value.item()?, 4.0); // mean of √(4² + 9) and √9
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: N. Xu, B. Price, S. Cohen, T. Huang, "Deep image matting", 2017; MMagic,
/// `mmagic.models.losses.CharbonnierCompLoss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CharbonnierCompOptions", into = "CharbonnierCompOptions")]
pub struct CharbonnierCompLoss {
    options: CharbonnierCompOptions,
}

impl CharbonnierCompLoss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite, or an `eps` that is not finite or is negative.
    pub fn new(options: CharbonnierCompOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        not_negative(Self::NAME, "eps", options.eps)?;
        Ok(CharbonnierCompLoss { options })
    }
}

impl TryFrom<CharbonnierCompOptions> for CharbonnierCompLoss {
    type Error = Error;
    fn try_from(options: CharbonnierCompOptions) -> Result<Self> {
        CharbonnierCompLoss::new(options)
    }
}

impl From<CharbonnierCompLoss> for CharbonnierCompOptions {
    fn from(loss: CharbonnierCompLoss) -> Self {
        loss.options
    }
}

impl PointwiseLoss<4> for CharbonnierCompLoss {
    const NAME: &'static str = "CharbonnierCompLoss";
    const INPUTS: [Input; 4] = INPUTS;
    fn function(&self) -> Function {
        // As for the pixelwise loss: √(d²) has no derivative at 0 to speak of; |d| is the same function.
        if self.options.eps == 0.0 {
            Function::new(Absolute)
        } else {
            Function::new(Charbonnier { eps: self.options.eps })
        }
    }
    fn reducer(&self) -> Reducer {
        let CharbonnierCompOptions { loss_weight, reduction, sample_wise, eps: _ } = self.options;
        Reducer { loss_weight, reduction, sample_wise }
    }
}

/// √((α·f + (1 − α)·b − m)² + ε), ε > 0.
#[derive(Clone, Copy, Debug)]
struct Charbonnier {
    eps: f64,
}

impl Pointwise<4> for Charbonnier {
    fn value<'e>(&self, inputs: [Expr<'e>; 4]) -> Expr<'e> {
        (difference(inputs).square() + self.eps).sqrt()
    }
}
