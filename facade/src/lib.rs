//! Loss functions for image and video generation, restoration, inpainting and matting.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use image_losses_core as core;
pub use image_losses_core::{Error, Result};

#[cfg(feature = "autograd")]
pub use image_losses_autograd as autograd;
#[cfg(feature = "composition")]
pub use image_losses_composition as composition;
#[cfg(feature = "gan")]
pub use image_losses_gan as gan;
#[cfg(feature = "ndarray")]
pub use image_losses_ndarray as ndarray;
#[cfg(feature = "penalties")]
pub use image_losses_penalties as penalties;
#[cfg(feature = "perceptual")]
pub use image_losses_perceptual as perceptual;
#[cfg(feature = "pixelwise")]
pub use image_losses_pixelwise as pixelwise;
#[cfg(feature = "tch")]
pub use image_losses_tch as tch;

mod any;
#[cfg(feature = "config")]
pub mod config;

#[cfg(feature = "config")]
pub mod objective;

#[cfg(feature = "autograd")]
pub use any::SessionElement;
pub use any::{AnyContext, AnyTensor};

/// What most users need: the traits, the engines' tensors and the losses.
pub mod prelude {
    pub use image_losses_core::{Differentiable, Loss, PointwiseLoss, Reduction, Tensor};

    #[cfg(feature = "autograd")]
    pub use image_losses_autograd::AgTensor;
    #[cfg(feature = "composition")]
    pub use image_losses_composition::*;
    #[cfg(feature = "gan")]
    pub use image_losses_gan::*;
    #[cfg(feature = "ndarray")]
    pub use image_losses_ndarray::NdTensor;
    #[cfg(feature = "penalties")]
    pub use image_losses_penalties::*;
    #[cfg(feature = "perceptual")]
    pub use image_losses_perceptual::*;
    #[cfg(feature = "pixelwise")]
    pub use image_losses_pixelwise::*;
    #[cfg(feature = "tch")]
    pub use image_losses_tch::{TchLoss, TchTensor};
}
