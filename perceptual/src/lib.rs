//! Perceptual losses over frozen networks, on any tensor engine.
//!
//! | loss | formula | network | feature | source |
//! |---|---|---|---|---|
//! | [`PerceptualLoss`] | Σ wₖ·criterion(fₖ(x), fₖ(y)), and of Gram matrices | VGG 11 to 19 | `vgg` | Johnson et al. 2016 |
//! | [`LightCnnFeatureLoss`] | λ·criterion(f(x), f(y)) | LightCNN-9 | `light-cnn` | MMagic (DICGAN) |
//! | [`FaceIdLoss`] | λ·mean(1 − e(x)·e(y)) | IR-SE50 and its kin | `face-id` | Deng et al. 2019 |
//! | [`ClipLoss`] | λ·(1 − exp(s)·cos(e(x), e(t))/100) | CLIP with a vision transformer | `clip` | Patashnik et al. 2021 |
//! | [`Lpips`] | λ·Σ mean (wₖ·(f̂ₖ(x) − f̂ₖ(y))²) | VGG-16, AlexNet, SqueezeNet | `lpips` | Zhang et al. 2018 |
//! | [`Dists`] | λ·(1 − Σ (αₖ·luminance + βₖ·structure)) | VGG-16 | `lpips` | Ding et al. 2020 |
//! | [`TransferalPerceptualLoss`] | λ·Σ criterion(mᵢ·sᵢ, tᵢ·sᵢ) | none | | Yang et al. 2020 |
//!
//! A loss with a network is made from its options and from [`Weights`], which say where the parameters come from:
//! files that the user has, in any format that [`checkpoint`] reads. Nothing is ever downloaded. `bind` then puts the
//! network on a context (a graph, or a device and a type); what it gives can be called again and again, and takes
//! target features that were computed before.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod checkpoint;
pub mod networks;

mod criterion;
#[cfg_attr(
    not(any(feature = "vgg", feature = "light-cnn", feature = "face-id", feature = "clip")),
    expect(dead_code, reason = "only losses with a network read weights")
)]
mod weights;

#[cfg(feature = "clip")]
mod clip;
#[cfg(feature = "lpips")]
mod dists;
#[cfg(feature = "face-id")]
mod face_id;
mod frozen;
#[cfg(any(feature = "vgg", feature = "light-cnn"))]
mod fused;
#[cfg(any(feature = "vgg", feature = "light-cnn", feature = "face-id", feature = "clip"))]
mod lazy;
#[cfg(feature = "light-cnn")]
mod light_cnn_feature;
#[cfg(feature = "lpips")]
mod lpips;
#[cfg(feature = "vgg")]
mod perceptual;
#[cfg(any(feature = "vgg", feature = "light-cnn", feature = "face-id", feature = "clip"))]
mod target;
mod transferal;

#[cfg(feature = "clip")]
pub use clip::{BoundClipLoss, ClipLoss, ClipModelOptions, ClipOptions};
pub use criterion::Criterion;
#[cfg(feature = "lpips")]
pub use dists::{BoundDists, Dists, DistsFeatures, DistsOptions};
#[cfg(feature = "face-id")]
pub use face_id::{BoundFaceIdLoss, FaceIdLoss, FaceIdOptions, FaceNetKind, FaceNetOptions};
pub use frozen::{Call, Frozen, FrozenVisitor, Kept, Sources};
#[cfg(any(feature = "vgg", feature = "light-cnn"))]
#[doc(inline)]
pub use image_losses_kernels::frozen::{Features, Target};
#[cfg(feature = "light-cnn")]
pub use light_cnn_feature::{BoundLightCnnFeatureLoss, LightCnnFeatureLoss, LightCnnFeatureOptions};
#[cfg(feature = "lpips")]
pub use lpips::{BoundLpips, Lpips, LpipsNet, LpipsOptions, LpipsVersion};
#[cfg(feature = "vgg")]
pub use perceptual::{BoundPerceptualLoss, PerceptualGradient, PerceptualLoss, PerceptualOptions, PerceptualTerms};
#[cfg(any(feature = "vgg", feature = "light-cnn", feature = "face-id", feature = "clip"))]
pub use target::TargetFeatures;
pub use transferal::{TransferalForm, TransferalPerceptualLoss};
pub use weights::{WEIGHTS_VARIABLE, Weights};

/// Every loss of the family.
pub fn every(visitor: &mut impl FrozenVisitor) {
    visitor.configurable::<TransferalPerceptualLoss>();
    #[cfg(feature = "vgg")]
    visitor.frozen::<PerceptualLoss>();
    #[cfg(feature = "light-cnn")]
    visitor.frozen::<LightCnnFeatureLoss>();
    #[cfg(feature = "face-id")]
    visitor.frozen::<FaceIdLoss>();
    #[cfg(feature = "clip")]
    visitor.frozen::<ClipLoss>();
    #[cfg(feature = "lpips")]
    visitor.frozen::<Lpips>();
    #[cfg(feature = "lpips")]
    visitor.frozen::<Dists>();
}

/// The page of the registry.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
