//! Any function over the tensor trait as a loss: here one of whole images, not of pixels.

use image_losses::config::{Argument, BuildContext, Configurable, Inputs, Kind, Outcome};
use image_losses::core::{Differentiable, Error, Result, Tensor, Unary, finite};
use serde::{Deserialize, Serialize};

/// λ · mean over the samples of (mean(x) − mean(y))²: compares how bright images are.
#[derive(Clone, Debug)]
pub struct BrightnessLoss {
    options: BrightnessOptions,
}

/// Options of [`BrightnessLoss`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrightnessOptions {
    pub loss_weight: f64,
}

impl BrightnessLoss {
    fn forward<T: Tensor>(&self, pred: &T, target: &T) -> Result<T> {
        let (expected, got) = (pred.shape(), target.shape());
        if expected != got {
            return Err(Error::ShapeMismatch { operation: "BrightnessLoss", argument: "target", expected, got });
        }
        let axes: Vec<usize> = (1..pred.rank()).collect();
        let brighter = pred.sub(target)?.mean(&axes, false)?;
        brighter.unary(Unary::Square)?.mean_all()?.scale(self.options.loss_weight)
    }
}

impl Configurable for BrightnessLoss {
    type Options = BrightnessOptions;

    fn arguments(&self) -> Vec<Argument> {
        vec![Argument::required("pred", Kind::Tensor), Argument::required("target", Kind::Tensor)]
    }

    fn build(options: BrightnessOptions, _: &BuildContext) -> Result<Self> {
        finite("BrightnessLoss", "loss_weight", options.loss_weight)?;
        Ok(BrightnessLoss { options })
    }

    fn options(&self) -> BrightnessOptions {
        self.options.clone()
    }

    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let pred = inputs.get_tensor("BrightnessLoss", "pred")?;
        let target = inputs.get_tensor("BrightnessLoss", "target")?;
        self.forward(pred, target).map(Outcome::Value)
    }
}
