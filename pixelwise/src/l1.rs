//! The mean absolute error.

use image_losses_core::{Error, Expr, Function, Input, Pointwise, PointwiseLoss, Reducer, Reduction, Result, finite};
use serde::{Deserialize, Serialize};

/// Options of [`L1Loss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `reduction` | `none`, `mean` or `sum` | `mean` |
/// | `sample_wise` | average each sample by its own weights first | `false` |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct L1Options {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// What becomes of the map.
    pub reduction: Reduction,
    /// Average each sample by its own weights first.
    pub sample_wise: bool,
}

impl Default for L1Options {
    fn default() -> Self {
        L1Options { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false }
    }
}

/// The absolute error |x − y|, reduced: mean absolute error, MAE, L1 loss.
///
/// L = λ · reduce(|x − y|), with the weighted reductions of [`Reducer`].
///
/// # Shapes
/// Prediction x and target y: (N, C, …), equal. Weight: (N, 1, …) or (N, C, …).
///
/// In [0, ∞) for λ > 0; 0 for a perfect prediction. Not differentiable where x = y; the gradient there is 0.
///
/// Options: [`L1Options`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`].
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "L1Options", into = "L1Options")]
pub struct L1Loss {
    options: L1Options,
}

impl L1Loss {
    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: L1Options) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        Ok(L1Loss { options })
    }
}

impl TryFrom<L1Options> for L1Loss {
    type Error = Error;
    fn try_from(options: L1Options) -> Result<Self> {
        L1Loss::new(options)
    }
}

impl From<L1Loss> for L1Options {
    fn from(loss: L1Loss) -> Self {
        loss.options
    }
}

impl PointwiseLoss<2> for L1Loss {
    const NAME: &'static str = "L1Loss";
    const INPUTS: [Input; 2] = [Input::full("pred"), Input::full("target")];
    fn function(&self) -> Function {
        Function::new(Absolute)
    }
    fn reducer(&self) -> Reducer {
        let L1Options { loss_weight, reduction, sample_wise } = self.options;
        Reducer { loss_weight, reduction, sample_wise }
    }
}

/// |x − y|.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absolute;

impl Pointwise<2> for Absolute {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).abs()
    }
}
