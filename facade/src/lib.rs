//! Loss functions for image and video generation, restoration, inpainting and matting.
//!
//! # Where to begin
//!
//! | you have | you want | use |
//! |---|---|---|
//! | arrays | a loss and its gradient, without a graph | `ndarray::value_and_gradients` |
//! | a function of arrays | its value and gradients | `ndarray::differentiate` |
//! | an `autograd` graph of your own | a node for the loss | `autograd::AgTensor::from_node`, then `forward` |
//! | `tch` tensors | a tensor ready for `backward()` | `tch::TchLoss::call` |
//! | a configuration of MMagic | the losses it names | `config::Registry` |
//! | a whole GAN objective | the terms of a training step | `objective` |
//! | a checkpoint | a frozen network | `perceptual::checkpoint`, or the option `pretrained` |
//!
//! # Families
//!
//! `pixelwise` (restoration), `gan` (adversarial), `penalties` (gradient penalties, R1, path length), `composition`
//! (matting) and `perceptual` (losses over frozen networks); each module's first page lists its losses with formula and
//! source. A loss is a plain structure built from its options, whose fields and defaults are those of MMagic:
//!
//! ```
//! # #[cfg(all(feature = "ndarray", feature = "pixelwise"))] {
//! use image_losses::prelude::*;
//!
//! let x = NdTensor::new(ndarray::array![[0.0f64, 3.0]]);
//! let y = NdTensor::new(ndarray::array![[0.0f64, 1.0]]);
//! let weight = NdTensor::new(ndarray::array![[1.0f64, 3.0]]);
//! assert_eq!(L1Loss::default().forward([&x, &y], None)?.item()?, 1.0); // the mean of 0 and 2
//! let weighted = L1Loss::default().forward([&x, &y], Some(&weight))?.item()?;
//! assert!((weighted - 1.5).abs() < 1e-12); // (1·0 + 3·2) / (1 + 3 + 1e-12), as in MMagic
//! # }
//! # Ok::<(), image_losses::Error>(())
//! ```
//!
//! # Engines
//!
//! A loss is written once over the traits [`Tensor`](core::Tensor) and [`Differentiable`](core::Differentiable), and takes
//! tensors of whichever engine is enabled by its feature: `ndarray` (arrays, the default), `tch` (libtorch, any device),
//! `autograd` (graphs of that crate). Each has derivatives of any order.
//!
//! # Errors
//!
//! A wrong shape, an option out of range or a file that does not fit is an [`Error`] that names what was expected and
//! what came. Nothing broadcasts silently: what may be broadcast (a map of weights over channels) is said at each loss.
//!
//! # Features
//!
//! Each engine, each family, each frozen network and each syntax of configurations is a feature; `docs/features.md`
//! has the table with what each costs.
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
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "config")]
pub mod config;

#[cfg(feature = "config")]
pub mod objective;

pub use any::{AnyContext, AnyTensor};

/// The traits, the engines' tensors and the losses.
pub mod prelude {
    pub use image_losses_core::{Declared, Differentiable, Loss, On, PointwiseLoss, Reduction, Side, Tensor};

    #[cfg(feature = "autograd")]
    pub use image_losses_autograd::AgTensor;
    #[cfg(feature = "composition")]
    pub use image_losses_composition::{CharbonnierCompLoss, L1CompositionLoss, MseCompositionLoss};
    #[cfg(feature = "gan")]
    pub use image_losses_gan::{
        AdvLoss, FeatureMatchingLoss, GanLoss, GanType, LeCamLoss, RelativisticAverageHingeLoss,
        RelativisticPairingLoss,
    };
    #[cfg(feature = "ndarray")]
    pub use image_losses_ndarray::NdTensor;
    #[cfg(feature = "penalties")]
    pub use image_losses_penalties::{
        DiscShiftLoss, Draws, GeneratorPathRegularizer, GradientPenaltyLoss, R1GradientPenalty, R2GradientPenalty,
    };
    #[cfg(feature = "clip")]
    pub use image_losses_perceptual::ClipLoss;
    #[cfg(feature = "face-id")]
    pub use image_losses_perceptual::FaceIdLoss;
    #[cfg(feature = "light-cnn")]
    pub use image_losses_perceptual::LightCnnFeatureLoss;
    #[cfg(feature = "vgg")]
    pub use image_losses_perceptual::PerceptualLoss;
    #[cfg(feature = "lpips")]
    pub use image_losses_perceptual::{Dists, Lpips};
    #[cfg(feature = "perceptual")]
    pub use image_losses_perceptual::{TransferalPerceptualLoss, Weights};
    #[cfg(feature = "pixelwise")]
    pub use image_losses_pixelwise::{
        CharbonnierLoss, GradientLoss, HuberLoss, L1Loss, MaskedTvLoss, MseLoss, PsnrLoss, TvLoss, tv_loss,
    };
    #[cfg(feature = "tch")]
    pub use image_losses_tch::{TchLoss, TchTensor};
}

/// The README's examples.
#[cfg(all(doctest, feature = "config", feature = "ndarray", feature = "pixelwise"))]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// The examples of the page on training.
#[cfg(all(doctest, feature = "config", feature = "ndarray", feature = "pixelwise"))]
#[doc = include_str!("../../docs/training.md")]
pub struct Training;
