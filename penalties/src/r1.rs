//! The zero-centred penalty on the gradient at real data.

use image_losses_core::config::{Argument, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{About, Declared, Differentiable, Result, Unary, finite, positive};
use serde::{Deserialize, Serialize};

use crate::inner::{
    LOSS_SCALER, PROCESSES, check_data, check_mask, effective_loss_scale, inner_gradient, loss_scaler, masked_mean,
};
use crate::interval::{check_interval, due, weight};
use crate::{Call, NormMode};

/// The R1 penalty: the squared gradient of a critic at real data, centred on zero.
///
/// g = ∂ΣD(x)/∂x at the real data x, times the mask m if there is one;
///
/// `pixel`: L = λ · mean_{n,h,w} ‖g_{n,·,h,w}‖² / mean(m), `HWC`: L = λ · mean_n ‖g_n‖² / mean(m).
///
/// No factor ½: the paper's γ/2 is λ, its norm `HWC`. The gradient with respect to the critic's parameters is a second
/// derivative. The data are detached.
///
/// # Shapes
/// Data: (N, C, …). Mask: (N, 1, …) or (N, C, …). Scores: any shape.
///
/// In [0, ∞) for λ > 0; 0 for a flat critic. Differentiable wherever the critic is, twice. An all-zero mask gives 0.
///
/// # Errors
/// `Error::ShapeRule` (rank under 2), `Error::WeightShape`, `Error::Empty`; `Error::NotConnected` for a critic
/// that ignores its input.
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::differentiate;
/// use image_losses_penalties::{Call, R1GradientPenalty};
/// use ndarray::array;
///
/// // D(x) = s·Σx with slope s = 3: ‖g‖² = 2·9, whose derivative by s is 2·2·3.
/// let slope = array![[3.0f64]];
/// let (value, gradients) = differentiate(&[slope.view()], |inputs| {
///     let real = Tensor::constant(&inputs[0].context(), &[1.0, 2.0], &[1, 2])?;
///     R1GradientPenalty::default().forward(|x| x.mul(&inputs[0]), &real, Call::default())
/// })?;
/// assert_eq!((value.sum(), gradients[0].sum()), (18.0, 12.0));
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018, equation 9;
/// MMagic, `mmagic.models.losses.R1GradientPenaltyComps`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct R1GradientPenalty {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// `pixel`: a norm per pixel, over the channels; `HWC`: a norm per sample. Default: `pixel`.
    pub norm_mode: NormMode,
    /// The penalty acts when the iteration is a multiple of it. Default: 1.
    pub interval: u64,
    /// λ is multiplied by the interval: its mean over the iterations stays. Default: `false`.
    pub multiply_by_interval: bool,
    /// The critic's scores are multiplied by it before the inner gradient, the gradient divided by it after. Default:
    /// 1.
    pub loss_scale: f64,
    /// MMagic's name for loss scaling: a `loss_scale` of 1 means [`AMP_LOSS_SCALE`](crate::AMP_LOSS_SCALE). Default:
    /// `false`.
    pub use_apex_amp: bool,
}

impl Default for R1GradientPenalty {
    fn default() -> Self {
        R1GradientPenalty {
            loss_weight: 1.0,
            norm_mode: NormMode::Pixel,
            interval: 1,
            multiply_by_interval: false,
            loss_scale: 1.0,
            use_apex_amp: false,
        }
    }
}

impl Declared for R1GradientPenalty {
    const NAME: &'static str = "R1GradientPenaltyComps";
    const TERM: Option<&'static str> = Some("loss_r1_gp");
    const ABOUT: About = About {
        summary: "Holds a critic flat at real images.",
        formula: "λ · mean ‖∂ΣD(x)/∂x‖²  at real x",
        source: "Mescheder et al., Which Training Methods for GANs do actually Converge?, 2018",
    };

    /// # Errors
    /// `Error::InvalidOption` for a `loss_weight` that is not finite, an `interval` of 0, a `loss_scale` that is not
    /// finite and above 0.
    fn check(&self) -> Result<()> {
        self.check_as(Self::NAME)
    }
}

impl R1GradientPenalty {
    /// Refuses values outside their range.
    pub(crate) fn check_as(&self, owner: &'static str) -> Result<()> {
        finite(owner, "loss_weight", self.loss_weight)?;
        check_interval(owner, self.interval)?;
        positive(owner, "loss_scale", self.loss_scale)
    }

    /// The penalty at `data`, as the loss of this name and argument.
    pub(crate) fn penalty<T: Differentiable>(
        &self,
        (operation, argument): (&'static str, &'static str),
        critic: impl Fn(&T) -> Result<T>,
        data: &T,
        Call { mask, processes, loss_scale }: Call<'_, T>,
    ) -> Result<T> {
        self.check_as(operation)?;
        let shape = check_data(operation, argument, data)?;
        check_mask(operation, &shape, mask)?;
        let loss_scale = effective_loss_scale(operation, loss_scale, self.loss_scale, self.use_apex_amp)?;
        let gradient = inner_gradient(operation, critic, data, mask, loss_scale)?;
        let squares = gradient.unary(Unary::Square)?.sum(&self.norm_mode.axes(shape.len()), true)?;
        masked_mean(&squares, mask, processes)?.scale(self.weight())?.cast_like(data)
    }

    /// The weight that is in the value: λ, times the interval with `multiply_by_interval`.
    pub fn weight(&self) -> f64 {
        weight(self.loss_weight, self.interval, self.multiply_by_interval)
    }

    /// Whether the penalty acts in this iteration.
    pub fn is_due(&self, iteration: u64) -> bool {
        due(self.interval, iteration)
    }

    /// The penalty of `critic` at real data, whatever the interval.
    ///
    /// # Errors
    /// See the type; those of the communicator.
    pub fn forward<T: Differentiable>(
        &self,
        critic: impl Fn(&T) -> Result<T>,
        real: &T,
        call: Call<'_, T>,
    ) -> Result<T> {
        self.penalty((Self::NAME, "real_data"), critic, real, call)
    }
}

impl R1GradientPenalty {
    /// The arguments of the penalty at the data of this name.
    pub(crate) fn arguments_at(&self, data: &'static str) -> Vec<Argument> {
        vec![
            Argument::required("discriminator", Kind::Network),
            Argument::required(data, Kind::Tensor),
            Argument::optional("mask", Kind::Tensor),
            loss_scaler(self.use_apex_amp),
            PROCESSES,
        ]
    }

    /// The penalty at the data of this name among the inputs, as the loss of this name.
    pub(crate) fn evaluate_at<T: Differentiable>(
        self,
        (operation, data): (&'static str, &'static str),
        inputs: &Inputs<'_, T>,
    ) -> Result<Outcome<T>> {
        let discriminator = inputs.get_network(operation, "discriminator")?;
        let tensor = inputs.get_tensor(operation, data)?;
        let call = Call {
            mask: inputs.get_tensor_if_any(operation, "mask")?,
            processes: inputs.get_processes_if_any(operation, PROCESSES.name)?,
            loss_scale: inputs.get_number_if_any(operation, LOSS_SCALER)?,
        };
        self.penalty((operation, data), discriminator, tensor, call).map(Outcome::Value)
    }
}

impl Configurable for R1GradientPenalty {
    type State = ();

    fn arguments(&self) -> Vec<Argument> {
        self.arguments_at("real_data")
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, _: &mut ()) -> Result<Outcome<T>> {
        self.evaluate_at((Self::NAME, "real_data"), inputs)
    }

    fn weight<T>(&self, _: &str, _: &Inputs<'_, T>) -> Result<Option<f64>> {
        Ok(Some(R1GradientPenalty::weight(self)))
    }

    fn interval(&self) -> u64 {
        self.interval
    }
}
