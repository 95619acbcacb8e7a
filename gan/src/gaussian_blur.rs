//! A Gaussian filter.

use image_losses_core::config::{Argument, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{About, Declared, Differentiable, Error, LinearMap, Result, Tensor, positive};
use serde::{Deserialize, Serialize};

/// The longest kernel that is accepted.
const LONGEST: usize = 65_535;

/// Each channel filtered with a Gaussian kernel: Gaussian smoothing, the soft target of the `smgan` loss.
///
/// y = k_h ∗ x ∗ k_w with k(i) = exp(−(i − m)²/(2σ²)) / Σ_j exp(−(j − m)²/(2σ²)), m the kernel's middle. The image is
/// zero beyond its border. MMagic multiplies the two kernels out and convolves once; two passes give the same.
///
/// # Shapes
/// x: (N, C, H, W); the result has the same. The kernel may be larger than the image.
///
/// Linear in x. Inside an image the kernel's sum is 1, near the border less.
///
/// # Errors
/// [`Error::ShapeRule`] for another rank than 4.
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_gan::GaussianBlur;
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// // Weights e^(−1/(2σ²)) : 1 : e^(−1/(2σ²)) along the width; σ² = 1/(2 ln 2) makes them 1 : 2 : 1.
/// let sigma = (0.5 / 2f64.ln()).sqrt();
/// let blur = GaussianBlur { kernel_size: [1, 3], sigma: [1.0, sigma] };
/// let spread = blur.forward(&NdTensor::new(array![[[[0.0f64, 4.0, 0.0]]]]))?.into_array();
/// assert!((spread - array![[[[1.0, 2.0, 1.0]]]]).iter().all(|error| error.abs() < 1e-12));
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: MMagic, `mmagic.models.losses.gan_loss.GaussianBlur`, after kornia.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GaussianBlur {
    /// The kernel's extents along height and width, odd. Default: (71, 71).
    pub kernel_size: [usize; 2],
    /// The standard deviations along height and width, in pixels. Default: (10, 10).
    pub sigma: [f64; 2],
}

impl Default for GaussianBlur {
    fn default() -> Self {
        GaussianBlur { kernel_size: [71, 71], sigma: [10.0, 10.0] }
    }
}

impl Declared for GaussianBlur {
    const NAME: &'static str = "GaussianBlur";
    const ABOUT: About = About {
        summary: "A filter, no loss: it softens the masks of smgan.",
        formula: "x ∗ g_σ gᵀ_σ,  g_σ(k) ∝ exp(−k²/2σ²), zero padding",
        source: "MMagic",
    };

    /// # Errors
    /// [`Error::InvalidOption`] for an even `kernel_size` or one above 65,535, and for a `sigma` that is not positive.
    fn check(&self) -> Result<()> {
        for size in self.kernel_size {
            if size % 2 == 0 || size > LONGEST {
                return Err(Error::option(Self::NAME, "kernel_size", format!("odd and at most {LONGEST}"), size));
            }
        }
        for sigma in self.sigma {
            positive(Self::NAME, "sigma", sigma)?;
        }
        Ok(())
    }
}

impl GaussianBlur {
    /// The filtered image.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for another rank than 4.
    pub fn forward<T: Tensor>(&self, x: &T) -> Result<T> {
        self.check()?;
        let shape = x.shape();
        let [_, _, height, width] = shape[..] else {
            let expected = "rank 4 (N, C, H, W)".into();
            return Err(Error::ShapeRule { operation: Self::NAME, argument: "x", expected, got: shape });
        };
        let GaussianBlur { kernel_size, sigma } = *self;
        let rows = LinearMap::filter(height, &kernel(kernel_size[0], sigma[0]))?;
        let columns = LinearMap::filter(width, &kernel(kernel_size[1], sigma[1]))?;
        x.accumulator()?.linear(2, &rows)?.linear(3, &columns)?.cast_like(x)
    }
}

impl Configurable for GaussianBlur {
    type State = ();

    fn arguments(&self) -> Vec<Argument> {
        vec![Argument::required("x", Kind::Tensor)]
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, _: &mut ()) -> Result<Outcome<T>> {
        self.forward(inputs.get_tensor(Self::NAME, "x")?).map(Outcome::Value)
    }
}

/// The normalised kernel along one axis.
fn kernel(size: usize, sigma: f64) -> Vec<f64> {
    let middle = (size / 2) as f64;
    let weights: Vec<f64> = (0..size).map(|i| (-0.5 * ((i as f64 - middle) / sigma).powi(2)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}
