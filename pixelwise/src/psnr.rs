//! The peak signal-to-noise ratio as a loss.

use std::sync::LazyLock;

use image_losses_core::{
    Error, Expr, Extent, Function, Input, LinearMap, Loss, Pointwise, Result, Tensor, Unary, finite,
};
use serde::{Deserialize, Serialize};

use crate::check::{self, Rank};
use crate::mse::SQUARED;

/// Added to the mean squared error before the logarithm.
const EPSILON: f64 = 1e-8;
/// The luma of R, G and B in [0, 1] by ITU-R BT.601, less its offset 16/255.
const LUMA: [f64; 3] = [65.481 / 255.0, 128.553 / 255.0, 24.966 / 255.0];

/// Options of [`PsnrLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `toY` | compare the luma of RGB images in [0, 1] | `false` |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PsnrOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// Compare the luma of RGB images in [0, 1].
    #[serde(rename = "toY")]
    pub to_y: bool,
}

impl Default for PsnrOptions {
    fn default() -> Self {
        PsnrOptions { loss_weight: 1.0, to_y: false }
    }
}

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
/// Options: [`PsnrOptions`].
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PsnrOptions", into = "PsnrOptions")]
pub struct PsnrLoss {
    options: PsnrOptions,
}

impl PsnrLoss {
    /// Its name, as a configuration writes it.
    pub const NAME: &'static str = "PSNRLoss";
    /// Its inputs.
    pub const INPUTS: [Input; 2] = [Input::full("pred"), Input::full("target")];

    /// The loss with the given options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn new(options: PsnrOptions) -> Result<Self> {
        finite(Self::NAME, "loss_weight", options.loss_weight)?;
        Ok(PsnrLoss { options })
    }
}

impl TryFrom<PsnrOptions> for PsnrLoss {
    type Error = Error;
    fn try_from(options: PsnrOptions) -> Result<Self> {
        PsnrLoss::new(options)
    }
}

impl From<PsnrLoss> for PsnrOptions {
    fn from(loss: PsnrLoss) -> Self {
        loss.options
    }
}

impl Loss<2> for PsnrLoss {
    fn forward<T: Tensor>(&self, [pred, target]: [&T; 2], weight: Option<&T>) -> Result<T> {
        let shape = check::pair(Self::NAME, [pred, target], Rank::Any)?;
        check::no_weight(Self::NAME, weight)?;
        if self.options.to_y && shape[1] != 3 {
            return Err(Error::ShapeRule {
                operation: Self::NAME,
                argument: "pred",
                expected: "3 channels (toY is set)".into(),
                got: shape,
            });
        }
        let (x, y) = (pred.accumulator()?, target.accumulator()?);
        let pixels: usize = shape[2..].iter().product();
        let error = if self.options.to_y {
            let luma = LinearMap::from_rows(3, [LUMA.into_iter().enumerate().collect()])?;
            let luma = x.sub(&y)?.linear(1, &luma)?;
            T::map_sample_sums(&Function::unary(Unary::Square), &[&luma], 1.0 / pixels as f64)?
        } else {
            T::map_sample_sums(&SQUARED, &[&x, &y], 1.0 / (shape[1] * pixels) as f64)?
        };
        let scale = self.options.loss_weight / shape[0] as f64;
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
