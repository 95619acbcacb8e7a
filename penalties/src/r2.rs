//! The zero-centred penalty on the gradient at fake data.

use image_losses_core::{Differentiable, Error, Result};
use serde::{Deserialize, Serialize};

use crate::{Processes, R1Options};

/// The R2 penalty: the squared gradient of a critic at fake data, centred on zero.
///
/// As [`R1GradientPenalty`](crate::R1GradientPenalty), in everything, at the generator's samples: g = ∂ΣD(x)/∂x at the
/// fake data x, detached; `pixel`: L = λ · mean_{n,h,w} ‖g_{n,·,h,w}‖² / mean(m), `HWC`: L = λ · mean_n ‖g_n‖² / mean(m).
///
/// # Shapes
/// Data: (N, C, …). Mask: (N, 1, …) or (N, C, …). Scores: any shape.
///
/// In [0, ∞) for λ > 0; 0 for a flat critic. Differentiable wherever the critic is, twice. An all-zero mask gives 0.
///
/// Options: [`R1Options`].
///
/// # Errors
/// [`Error::ShapeRule`] (rank under 2), [`Error::WeightShape`], [`Error::Empty`]; [`Error::NotConnected`] for a critic
/// that ignores its input.
///
/// ```
/// use image_losses_core::{Tensor, Unary};
/// use image_losses_ndarray::NdTensor;
/// use image_losses_penalties::R2GradientPenalty;
/// use ndarray::array;
///
/// // D(x) = Σx²: g = 2x, ‖g‖² = 4·(1 + 4).
/// let fake = NdTensor::new(array![[1.0f64, 2.0]]);
/// let value = R2GradientPenalty::default().forward(|x| x.unary(Unary::Square), &fake, None)?;
/// assert_eq!(value.item()?, 20.0);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018, equation 10;
/// used beside R1 by Huang, Gokaslan, Kuleshov, Tompkin, "The GAN is dead; long live the GAN! A Modern GAN Baseline",
/// 2024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "R1Options", into = "R1Options")]
pub struct R2GradientPenalty {
    options: R1Options,
}

impl R2GradientPenalty {
    const NAME: &'static str = "R2GradientPenaltyComps";

    /// The penalty with the given options.
    ///
    /// # Errors
    /// As [`R1GradientPenalty::new`](crate::R1GradientPenalty::new).
    pub fn new(options: R1Options) -> Result<Self> {
        Ok(R2GradientPenalty { options: options.check(Self::NAME)? })
    }

    /// The same penalty with another loss scale, as a scaler adjusts it while training.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a scale that is not finite and above 0.
    pub fn with_loss_scale(self, loss_scale: f64) -> Result<Self> {
        R2GradientPenalty::new(R1Options { loss_scale, use_apex_amp: false, ..self.options })
    }

    /// The weight that is in the value: λ, times the interval with `multiply_by_interval`.
    pub fn weight(&self) -> f64 {
        self.options.weight()
    }

    /// Whether the penalty acts in this iteration.
    pub fn is_due(&self, iteration: u64) -> bool {
        self.options.due(iteration)
    }

    /// The penalty of `critic` at fake data, whatever the interval.
    ///
    /// # Errors
    /// See the type.
    pub fn forward<T: Differentiable>(
        &self,
        critic: impl Fn(&T) -> Result<T>,
        fake: &T,
        mask: Option<&T>,
    ) -> Result<T> {
        self.forward_across(critic, fake, mask, None)
    }

    /// As [`forward`](R2GradientPenalty::forward), this process's share of the penalty of all processes' batches
    /// together: the mean of the shares, and of their gradients, is the whole's.
    ///
    /// # Errors
    /// See the type; those of the communicator.
    pub fn forward_across<T: Differentiable>(
        &self,
        critic: impl Fn(&T) -> Result<T>,
        fake: &T,
        mask: Option<&T>,
        processes: Option<&Processes<'_, T>>,
    ) -> Result<T> {
        self.options.penalty((Self::NAME, "fake_data"), critic, fake, mask, processes)
    }

    /// The penalty in a training step: `None` where the interval skips it, and the critic is not run.
    ///
    /// # Errors
    /// See the type.
    pub fn step<T: Differentiable>(
        &self,
        iteration: u64,
        critic: impl Fn(&T) -> Result<T>,
        fake: &T,
        mask: Option<&T>,
    ) -> Result<Option<T>> {
        self.is_due(iteration).then(|| self.forward(critic, fake, mask)).transpose()
    }
}

impl TryFrom<R1Options> for R2GradientPenalty {
    type Error = Error;
    fn try_from(options: R1Options) -> Result<Self> {
        R2GradientPenalty::new(options)
    }
}

impl From<R2GradientPenalty> for R1Options {
    fn from(loss: R2GradientPenalty) -> Self {
        loss.options
    }
}
