//! Total variation inside a mask.

use std::sync::LazyLock;

use image_losses_core::{Error, Expr, Input, Loss, Pointwise, Result, Stencil, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::check::{self, Rank};
use crate::total_variation::{NEIGHBOURS, sum};

/// Options of [`MaskedTvLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MaskedTvOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
}

impl Default for MaskedTvOptions {
    fn default() -> Self {
        MaskedTvOptions { loss_weight: 1.0 }
    }
}

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
/// Options: [`MaskedTvOptions`].
///
/// # Errors
/// [`Error::ShapeRule`] (rank other than 4), [`Error::WeightShape`], [`Error::Empty`].
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "MaskedTvOptions", into = "MaskedTvOptions")]
pub struct MaskedTvLoss {
    options: MaskedTvOptions,
}

impl MaskedTvLoss {
    /// Its name, as a configuration writes it.
    pub const NAME: &'static str = "MaskedTVLoss";
    /// Its inputs.
    pub const INPUTS: [Input; 1] = [Input::full("pred")];
    /// What MMagic calls the weight.
    pub const WEIGHT: &'static str = "mask";

    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: MaskedTvOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        Ok(MaskedTvLoss { options })
    }
}

impl TryFrom<MaskedTvOptions> for MaskedTvLoss {
    type Error = Error;
    fn try_from(options: MaskedTvOptions) -> Result<Self> {
        MaskedTvLoss::new(options)
    }
}

impl From<MaskedTvLoss> for MaskedTvOptions {
    fn from(loss: MaskedTvLoss) -> Self {
        loss.options
    }
}

static STENCIL: LazyLock<Stencil> = LazyLock::new(|| Stencil::new(Magnitude, NEIGHBOURS));

impl Loss<1> for MaskedTvLoss {
    fn forward<T: Tensor>(&self, [pred]: [&T; 1], mask: Option<&T>) -> Result<T> {
        check::input(Self::NAME, "pred", pred, Rank::Image)?;
        let mask = mask.map(Tensor::accumulator).transpose()?;
        let scale = self.options.loss_weight;
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
