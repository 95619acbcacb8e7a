//! The difference of image gradients.

use std::sync::LazyLock;

use image_losses_core::{
    Along, Error, Filter, Function, Input, Loss, Reducer, Reduction, Result, Stencil, Tensor, Unary, finite,
};
use serde::{Deserialize, Serialize};

use crate::check::{self, Rank};
use crate::masked_tv::Magnitude;
use crate::total_variation::sum;

/// The Sobel operator's two factors: across the edge and along it.
const DIFFERENCE: [f64; 3] = [-1.0, 0.0, 1.0];
const SMOOTHING: [f64; 3] = [1.0, 2.0, 1.0];
/// Across the image, and down.
const SOBEL: [Filter; 2] = [
    Filter { height: Along::Taps(SMOOTHING), width: Along::Taps(DIFFERENCE) },
    Filter { height: Along::Taps(DIFFERENCE), width: Along::Taps(SMOOTHING) },
];

/// Options of [`GradientLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `reduction` | `none`, `mean` or `sum` | `mean` |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GradientOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// What becomes of the map.
    pub reduction: Reduction,
}

impl Default for GradientOptions {
    fn default() -> Self {
        GradientOptions { loss_weight: 1.0, reduction: Reduction::Mean }
    }
}

/// The absolute differences of two images' Sobel responses, reduced: gradient loss, edge loss.
///
/// L = λ · [reduce(|Sₓx − Sₓy|) + reduce(|S_y x − S_y y|)], with the weighted reductions of [`Reducer`]. Sₓ is the 3×3
/// Sobel filter (1, 2, 1)ᵀ(−1, 0, 1), S_y its transpose; zeros lie beyond the edge, and each channel is filtered by
/// itself (MMagic takes one channel only). Filtering is linear, so that S(x − y) is what is computed.
///
/// # Shapes
/// Prediction x and target y: (N, C, H, W), equal. Weight: (N, 1, H, W) or (N, C, H, W), the same for both responses.
///
/// In [0, ∞) for λ > 0; 0 for a perfect prediction. Not differentiable where a response is the same in both images; it
/// contributes 0 to the gradient there.
///
/// Options: [`GradientOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank other than 4), [`Error::WeightShape`], [`Error::Empty`].
///
/// ```
/// use image_losses_core::{Loss, Tensor};
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::GradientLoss;
/// use ndarray::array;
///
/// let prediction = NdTensor::new(array![[[[1.0f64, 0.0], [0.0, 0.0]]]]);
/// let target = NdTensor::new(array![[[[0.0f64, 0.0], [0.0, 0.0]]]]);
/// let loss = GradientLoss::default().forward([&prediction, &target], None)?;
/// // The pixel's right neighbour sees it with 2 across, the one below that with 1; likewise downwards.
/// assert_eq!(loss.item()?, 1.5); // (2 + 1)/4 + (2 + 1)/4
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: MMagic, `mmagic.models.losses.GradientLoss`; the filter is I. Sobel and G. Feldman's, 1968.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "GradientOptions", into = "GradientOptions")]
pub struct GradientLoss {
    options: GradientOptions,
}

impl GradientLoss {
    /// Its name, as a configuration writes it.
    pub const NAME: &'static str = "GradientLoss";
    /// Its inputs.
    pub const INPUTS: [Input; 2] = [Input::full("pred"), Input::full("target")];

    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: GradientOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        Ok(GradientLoss { options })
    }
}

impl TryFrom<GradientOptions> for GradientLoss {
    type Error = Error;
    fn try_from(options: GradientOptions) -> Result<Self> {
        GradientLoss::new(options)
    }
}

impl From<GradientLoss> for GradientOptions {
    fn from(loss: GradientLoss) -> Self {
        loss.options
    }
}

static STENCIL: LazyLock<Stencil> = LazyLock::new(|| Stencil::new(Magnitude, SOBEL));

impl Loss<2> for GradientLoss {
    fn forward<T: Tensor>(&self, [pred, target]: [&T; 2], weight: Option<&T>) -> Result<T> {
        check::pair(Self::NAME, [pred, target], Rank::Image)?;
        let GradientOptions { loss_weight, reduction } = self.options;
        if reduction == Reduction::None {
            return self.map(pred, target, weight);
        }
        let (x, y) = (pred.accumulator()?, target.accumulator()?);
        let weight = weight.map(Tensor::accumulator).transpose()?;
        let terms = match reduction {
            Reduction::Mean => STENCIL.means(Self::NAME, &x, Some(&y), weight.as_ref(), loss_weight)?,
            _ => {
                let sums = STENCIL.sums(Self::NAME, &x, Some(&y), weight.as_ref(), loss_weight)?;
                sums.iter().map(Tensor::sum_all).collect::<Result<_>>()?
            }
        };
        sum(&terms)?.cast_like(pred)
    }
}

impl GradientLoss {
    /// The map, before it is reduced.
    fn map<T: Tensor>(&self, pred: &T, target: &T, weight: Option<&T>) -> Result<T> {
        let reducer = Reducer { loss_weight: self.options.loss_weight, reduction: Reduction::None, sample_wise: false };
        let error = pred.accumulator()?.sub(&target.accumulator()?)?;
        let term = |filter: &Filter| {
            let absolute = Function::unary(Unary::Abs);
            reducer.reduce(Self::NAME, &absolute, &Self::INPUTS[..1], &[&filter.apply(&error)?], weight)
        };
        term(&SOBEL[0])?.add(&term(&SOBEL[1])?)?.cast_like(pred)
    }
}
