//! How the perceptual losses are called from data.

#[cfg(any(feature = "vgg", feature = "light-cnn", feature = "face-id", feature = "clip"))]
mod frozen;

use image_losses_core::{Differentiable, Result};
use image_losses_perceptual::{TransferalPerceptualLoss, TransferalPerceptualOptions};

use crate::config::inputs::{Inputs, Outcome};
use crate::config::registry::{Argument, BuildContext, Configurable, Kind};

#[cfg(any(feature = "vgg", feature = "light-cnn", feature = "face-id", feature = "clip"))]
pub(super) use frozen::entry;

impl Configurable for TransferalPerceptualLoss {
    type Options = TransferalPerceptualOptions;
    fn arguments(&self) -> Vec<Argument> {
        let required = Configurable::options(self).use_attention;
        vec![
            Argument::required("maps", Kind::Tensors),
            Argument { required, ..Argument::optional("soft_attention", Kind::Tensor) },
            Argument::required("textures", Kind::Tensors),
        ]
    }
    fn build(options: TransferalPerceptualOptions, _: &BuildContext) -> Result<Self> {
        TransferalPerceptualLoss::new(options)
    }
    fn options(&self) -> TransferalPerceptualOptions {
        (*self).into()
    }
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let name = "TransferalPerceptualLoss";
        let (maps, textures) = (inputs.get_tensors(name, "maps")?, inputs.get_tensors(name, "textures")?);
        let attention = inputs.get_tensor_if_any(name, "soft_attention")?;
        self.forward(&maps, attention, &textures).map(Outcome::Value)
    }
}
