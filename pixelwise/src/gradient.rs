//! The difference of image gradients.

use std::sync::LazyLock;

use image_losses_core::{
    About, Along, Declared, Filter, Function, Loss, Reducer, Reduction, Result, Stencil, Tensor, Unary, finite,
    same_images,
};
use serde::{Deserialize, Serialize};

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
/// # Errors
/// `Error::ShapeMismatch`, `Error::ShapeRule` (rank other than 4), `Error::WeightShape`, `Error::Empty`.
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GradientLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `none`, `mean` or `sum`. Default: `mean`.
    pub reduction: Reduction,
}

impl Default for GradientLoss {
    fn default() -> Self {
        GradientLoss { loss_weight: 1.0, reduction: Reduction::Mean }
    }
}

impl Declared for GradientLoss {
    const NAME: &'static str = "GradientLoss";
    const ABOUT: About = About {
        summary: "Edges: L1 between Sobel responses.",
        formula: "λ · [ reduce |Sₓ∗x − Sₓ∗y| + reduce |S_y∗x − S_y∗y| ]",
        source: "MMagic",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

static STENCIL: LazyLock<Stencil> = LazyLock::new(|| Stencil::new(Magnitude, SOBEL));

impl Loss<2> for GradientLoss {
    const WEIGHT: Option<&'static str> = Some("weight");

    fn forward<T: Tensor>(&self, [pred, target]: [&T; 2], weight: Option<&T>) -> Result<T> {
        self.check()?;
        same_images(Self::NAME, ["pred", "target"], [pred, target])?;
        let GradientLoss { loss_weight, reduction } = *self;
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
        let reducer = Reducer { loss_weight: self.loss_weight, reduction: Reduction::None, sample_wise: false };
        let error = pred.accumulator()?.sub(&target.accumulator()?)?;
        let term = |filter: &Filter| {
            let absolute = Function::unary(Unary::Abs);
            reducer.reduce(Self::NAME, &absolute, &Self::TAKES[..1], &[&filter.apply(&error)?], weight)
        };
        term(&SOBEL[0])?.add(&term(&SOBEL[1])?)?.cast_like(pred)
    }
}
