//! A loss of whole images: its options, its name and its formula over the tensor trait.

use image_losses::core::{Declared, Loss, Result, Tensor, same_images};
use serde::{Deserialize, Serialize};

/// λ · mean over the samples of (mean(x) − mean(y))²: compares how bright images are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BrightnessLoss {
    pub loss_weight: f64,
}

impl Declared for BrightnessLoss {
    const NAME: &'static str = "BrightnessLoss";
}

impl Loss<2> for BrightnessLoss {
    fn forward<T: Tensor>(&self, [pred, target]: [&T; 2], _: Option<&T>) -> Result<T> {
        same_images(Self::NAME, ["pred", "target"], [pred, target])?;
        let brighter = pred.sub(target)?.mean(&[1, 2, 3], false)?;
        brighter.mul(&brighter)?.mean_all()?.scale(self.loss_weight)
    }
}
