//! A loss of whole images: its options, its name and its formula over the tensor trait.

use image_losses::core::{Declared, Loss, Result, Tensor, same_shape};
use serde::{Deserialize, Serialize};

/// λ · mean over the samples of (mean(x) − mean(y))²: compares how bright images are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrightnessLoss {
    pub loss_weight: f64,
}

impl Declared for BrightnessLoss {
    const NAME: &'static str = "BrightnessLoss";
}

impl Loss<2> for BrightnessLoss {
    fn forward<T: Tensor>(&self, [pred, target]: [&T; 2], _: Option<&T>) -> Result<T> {
        same_shape(Self::NAME, ["pred", "target"], [pred, target])?;
        let axes: Vec<usize> = (1..pred.rank()).collect();
        let brighter = pred.sub(target)?.mean(&axes, false)?;
        brighter.mul(&brighter)?.mean_all()?.scale(self.loss_weight)
    }
}
