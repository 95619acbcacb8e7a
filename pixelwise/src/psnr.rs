//! The peak signal-to-noise ratio as a loss.

use std::sync::LazyLock;

use image_losses_core::{
    About, Declared, Error, Expr, Extent, Function, LinearMap, Loss, Pointwise, Result, Tensor, Unary, finite,
    no_weight, same_shape,
};
use serde::{Deserialize, Serialize};

use crate::mse::SQUARED;

/// Added to the mean squared error before the logarithm.
const EPSILON: f64 = 1e-8;
/// The luma of R, G and B in [0, 1] by ITU-R BT.601, less its offset 16/255.
const LUMA: [f64; 3] = [65.481 / 255.0, 128.553 / 255.0, 24.966 / 255.0];

/// The negative peak signal-to-noise ratio in decibels, averaged over the batch: PSNR loss. Configured as `PSNRLoss`.
///
/// L = λ · meanₙ [10/ln 10 · ln(MSEₙ + 1e-8)], where MSEₙ is the mean of (x − y)² over one sample and the peak is 1.
/// Lower is better, as for every loss; the PSNR itself is −L/λ.
///
/// With `toY`, both images are first mapped to luma, (65.481·R + 128.553·G + 24.966·B + 16)/255, as NAFNet does; MMagic
/// takes the option and ignores it. Only the difference of the lumas enters, so that the offset 16 drops out.
///
/// # Shapes
/// Prediction x and target y: (N, C, …), equal; C = 3 with `toY`. There is no weight.
///
/// In [−80λ, ∞) for λ > 0; −80λ for a perfect prediction. Differentiable everywhere.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank under 2; with `toY`, other than 3 channels), [`Error::Empty`];
/// [`Error::InvalidOption`] where a weight is given.
///
/// ```
/// use image_losses_core::Loss;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_pixelwise::PsnrLoss;
/// use ndarray::array;
///
/// let prediction = NdTensor::new(array![[0.5f64, 0.5], [0.1, 0.2]]);
/// let target = NdTensor::new(array![[0.4f64, 0.6], [0.1, 0.2]]);
/// let loss = PsnrLoss::default().forward([&prediction, &target], None)?;
/// assert!((loss.item()? + 50.0).abs() < 1e-5); // mean of −20 dB (an error of 0.1) and −80 dB (none)
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: L. Chen, X. Chu, X. Zhang, J. Sun, "Simple baselines for image restoration" (NAFNet), 2022, and its
/// repository; MMagic, `mmagic.models.losses.PSNRLoss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PsnrLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// Compare the luma of RGB images in [0, 1]. Default: `false`.
    #[serde(rename = "toY")]
    pub to_y: bool,
}

impl Default for PsnrLoss {
    fn default() -> Self {
        PsnrLoss { loss_weight: 1.0, to_y: false }
    }
}

impl Declared for PsnrLoss {
    const NAME: &'static str = "PSNRLoss";
    const ABOUT: About = About {
        summary: "The negative peak signal-to-noise ratio in decibels; −80 where nothing differs.",
        formula: "λ · meanₙ 10·log₁₀( mean (xₙ − yₙ)² + 1e-8 )",
        source: "Chen et al., Simple Baselines for Image Restoration, 2022",
    };

    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl Loss<2> for PsnrLoss {
    fn forward<T: Tensor>(&self, [pred, target]: [&T; 2], weight: Option<&T>) -> Result<T> {
        self.check()?;
        let shape = same_shape(Self::NAME, ["pred", "target"], [pred, target])?;
        no_weight(Self::NAME, weight)?;
        if self.to_y && shape[1] != 3 {
            return Err(Error::ShapeRule {
                operation: Self::NAME,
                argument: "pred",
                expected: "3 channels (toY is set)".into(),
                got: shape,
            });
        }
        let (x, y) = (pred.accumulator()?, target.accumulator()?);
        let pixels: usize = shape[2..].iter().product();
        let error = if self.to_y {
            let luma = LinearMap::from_rows(3, [LUMA.into_iter().enumerate().collect()])?;
            let luma = x.sub(&y)?.linear(1, &luma)?;
            T::map_sample_sums(&Function::unary(Unary::Square), &[&luma], 1.0 / pixels as f64)?
        } else {
            T::map_sample_sums(&SQUARED, &[&x, &y], 1.0 / (shape[1] * pixels) as f64)?
        };
        let scale = self.loss_weight / shape[0] as f64;
        T::map_reduce(&DECIBEL, &[&error], None, None, scale, Extent::Sum)?.cast_like(pred)
    }
}

/// 10/ln 10 · ln(e + 1e-8).
#[derive(Clone, Copy, Debug)]
struct Decibel;

static DECIBEL: LazyLock<Function> = LazyLock::new(|| Function::new(Decibel));

impl Pointwise<1> for Decibel {
    fn value<'e>(&self, [error]: [Expr<'e>; 1]) -> Expr<'e> {
        (error + EPSILON).ln() * (10.0 / std::f64::consts::LN_10)
    }
}
