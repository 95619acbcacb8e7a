//! Total variation, squared.

use std::sync::LazyLock;

use image_losses_core::{
    About, Along, Declared, Expr, Filter, Input, Loss, Pointwise, Result, Stencil, Tensor, finite, no_weight,
    same_images,
};
use serde::{Deserialize, Serialize};

/// The squared differences of neighbouring pixels, averaged over each sample: total variation with exponent β = 2, TV
/// regulariser. Configured as `tv_loss`; [`tv_loss`] is the same as a function.
///
/// Lₙ = λ · mean over c, i, j of [(x_{i,j+1} − x_{i,j})² + (x_{i+1,j} − x_{i,j})²], the last row and column repeated
/// beyond the edge. Rudin, Osher and Fatemi's total variation takes the root of the bracket; [`MaskedTvLoss`] takes
/// absolute differences.
///
/// # Shapes
/// Image x: (N, C, H, W); result: (N), one number per sample. There is no weight.
///
/// In [0, ∞) for λ > 0; 0 for a constant image. Differentiable everywhere.
///
/// # Errors
/// `Error::ShapeRule` (rank other than 4), `Error::Empty`; `Error::InvalidOption` where a weight is given.
///
/// ```
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::TvLoss;
/// use ndarray::array;
///
/// let image = NdTensor::new(array![[[[0.0f64, 1.0], [3.0, 3.0]]]]);
/// let loss = TvLoss::default().forward([&image], None)?;
/// assert_eq!(loss.item()?, 3.5); // (1² + 0²) across and (3² + 2²) down, over 4 pixels
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: A. Mahendran, A. Vedaldi, "Understanding deep image representations by inverting them", 2015; MMagic,
/// `mmagic.models.losses.tv_loss`.
///
/// [`MaskedTvLoss`]: crate::MaskedTvLoss
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TvLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
}

impl Default for TvLoss {
    fn default() -> Self {
        TvLoss { loss_weight: 1.0 }
    }
}

impl Declared for TvLoss {
    const NAME: &'static str = "tv_loss";
    const ABOUT: About = About {
        summary: "Total variation: the squared differences of neighbours. Of the prediction alone.",
        formula: "λ · mean [ (xᵢ,ⱼ₊₁ − xᵢ,ⱼ)² + (xᵢ₊₁,ⱼ − xᵢ,ⱼ)² ]",
        source: "Mahendran and Vedaldi, Understanding Deep Image Representations by Inverting Them, 2015",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

static STENCIL: LazyLock<Stencil> = LazyLock::new(|| Stencil::new(Square, NEIGHBOURS));

impl Loss<1> for TvLoss {
    const TAKES: [Input; 1] = [Input::full("input")];

    fn forward<T: Tensor>(&self, [input]: [&T; 1], weight: Option<&T>) -> Result<T> {
        self.check()?;
        let shape = same_images(Self::NAME, ["input"], [input])?;
        no_weight(Self::NAME, weight)?;
        let scale = self.loss_weight / (shape[1] * shape[2] * shape[3]) as f64;
        let sums = STENCIL.sums(Self::NAME, &input.accumulator()?, None, None, scale)?;
        sum(&sums)?.cast_like(input)
    }
}

/// The squared differences of neighbouring pixels, averaged over each sample: [`TvLoss`] as a function.
///
/// # Errors
/// `Error::ShapeRule` (rank other than 4), `Error::Empty`.
///
/// ```
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::tv_loss;
/// use ndarray::array;
///
/// let image = NdTensor::new(array![[[[0.0f64, 1.0], [3.0, 3.0]]]]);
/// assert_eq!(tv_loss(&image)?.item()?, 3.5);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
pub fn tv_loss<T: Tensor>(input: &T) -> Result<T> {
    TvLoss::default().forward([input], None)
}

/// The differences of neighbouring pixels, across and down.
pub(crate) const NEIGHBOURS: [Filter; 2] = [
    Filter { height: Along::Pixel, width: Along::Difference },
    Filter { height: Along::Difference, width: Along::Pixel },
];

/// d².
#[derive(Clone, Copy, Debug)]
struct Square;

impl Pointwise<1> for Square {
    fn value<'e>(&self, [d]: [Expr<'e>; 1]) -> Expr<'e> {
        d.square()
    }
}

/// The sum of the terms of two filters.
pub(crate) fn sum<T: Tensor>(terms: &[T]) -> Result<T> {
    terms[0].add(&terms[1])
}
