//! Total variation inside a mask.

use std::sync::LazyLock;

use image_losses_core::{About, Declared, Expr, Loss, Pointwise, Result, Stencil, Tensor, finite, same_images};
use serde::{Deserialize, Serialize};

use crate::total_variation::{NEIGHBOURS, sum};

/// The absolute differences of neighbouring pixels, averaged inside a mask: masked total variation, anisotropic TV.
/// Configured as `MaskedTVLoss`.
///
/// L = λ · [mean_m |x_{i,j+1} − x_{i,j}| + mean_m |x_{i+1,j} − x_{i,j}|], where mean_m is the weighted mean of
/// [`Reducer`](image_losses_core::Reducer) over the pairs of pixels inside the image, weighted by the mask m at the
/// pair's left or upper pixel. Each direction is divided by its own sum of weights. Without a mask m is 1 everywhere
/// (MMagic fails there). An axis of extent 1 contributes 0.
///
/// # Shapes
/// Prediction x: (N, C, H, W). Mask, in the weight's place: (N, 1, H, W) or (N, C, H, W).
///
/// In [0, ∞) for λ > 0 and a mask that is not negative; 0 for a constant image and for an empty mask. Not
/// differentiable where neighbours are equal; they contribute 0 to the gradient there.
///
/// # Errors
/// `Error::ShapeRule` (rank other than 4), `Error::WeightShape`, `Error::Empty`.
///
/// ```
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::MaskedTvLoss;
/// use ndarray::array;
///
/// let image = NdTensor::new(array![[[[0.0f64, 1.0], [3.0, 7.0]]]]);
/// let mask = NdTensor::new(array![[[[1.0f64, 0.0], [1.0, 0.0]]]]);
/// let loss = MaskedTvLoss::default();
/// let masked = loss.forward([&image], Some(&mask))?.item()?;
/// assert!((masked - 5.5).abs() < 1e-9); // across: mean of 1 and 4; down: 3 alone
/// assert_eq!(loss.forward([&image], None)?.item()?, 7.0); // across: as before; down: mean of 3 and 6
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: MMagic, `mmagic.models.losses.MaskedTVLoss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MaskedTvLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
}

impl Default for MaskedTvLoss {
    fn default() -> Self {
        MaskedTvLoss { loss_weight: 1.0 }
    }
}

impl Declared for MaskedTvLoss {
    const NAME: &'static str = "MaskedTVLoss";
    const ABOUT: About = About {
        summary: "Total variation with absolute differences, where a mask allows. Of the prediction alone.",
        formula: "λ · [ mean_m |xᵢ₊₁,ⱼ − xᵢ,ⱼ| + mean_m |xᵢ,ⱼ₊₁ − xᵢ,ⱼ| ]",
        source: "MMagic",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

static STENCIL: LazyLock<Stencil> = LazyLock::new(|| Stencil::new(Magnitude, NEIGHBOURS));

impl Loss<1> for MaskedTvLoss {
    const WEIGHT: Option<&'static str> = Some("mask");

    fn forward<T: Tensor>(&self, [pred]: [&T; 1], mask: Option<&T>) -> Result<T> {
        self.check()?;
        same_images(Self::NAME, ["pred"], [pred])?;
        let mask = mask.map(Tensor::accumulator).transpose()?;
        let scale = self.loss_weight;
        sum(&STENCIL.means(Self::NAME, &pred.accumulator()?, None, mask.as_ref(), scale)?)?.cast_like(pred)
    }
}

/// |d|.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Magnitude;

impl Pointwise<1> for Magnitude {
    fn value<'e>(&self, [d]: [Expr<'e>; 1]) -> Expr<'e> {
        d.abs()
    }
}
