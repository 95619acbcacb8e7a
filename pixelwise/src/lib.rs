//! Pixelwise losses: what a prediction differs from its target by, pixel by pixel.
//!
//! d = x − y is the difference of prediction and target; λ (`loss_weight`) and the weighted reductions are those of
//! [`Reducer`](image_losses_core::Reducer).
//!
//! | loss | configured as | formula, before λ | weight | source |
//! |---|---|---|---|---|
//! | [`L1Loss`] | `L1Loss` | reduce abs(d) | yes | MMagic |
//! | [`MseLoss`] | `MSELoss` | reduce d² | yes | MMagic |
//! | [`CharbonnierLoss`] | `CharbonnierLoss` | reduce √(d² + ε) | yes | Charbonnier et al. 1994 |
//! | [`HuberLoss`] | `HuberLoss` | reduce ½d² where abs(d) < δ, else δ(abs(d) − ½δ) | yes | Huber 1964 |
//! | [`PsnrLoss`] | `PSNRLoss` | meanₙ 10/ln 10 · ln(mean d² + 1e-8) | no | NAFNet 2022 |
//! | [`TvLoss`], [`tv_loss`] | `tv_loss` | per sample: mean of squared differences of neighbours | no | Mahendran and Vedaldi 2015 |
//! | [`MaskedTvLoss`] | `MaskedTVLoss` | means of absolute differences of neighbours, across + down | mask | MMagic |
//! | [`GradientLoss`] | `GradientLoss` | reduce abs(Sobel-x of d) + reduce abs(Sobel-y of d) | yes | MMagic |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod charbonnier;
mod gradient;
mod huber;
mod l1;
mod masked_tv;
mod mse;
mod psnr;
mod total_variation;

pub use charbonnier::CharbonnierLoss;
pub use gradient::GradientLoss;
pub use huber::HuberLoss;
pub use l1::L1Loss;
pub use masked_tv::MaskedTvLoss;
pub use mse::MseLoss;
pub use psnr::PsnrLoss;
pub use total_variation::{TvLoss, tv_loss};

/// Every loss of the family.
pub fn every(visitor: &mut impl image_losses_core::Visitor) {
    visitor.loss::<L1Loss, 2>();
    visitor.loss::<MseLoss, 2>();
    visitor.loss::<CharbonnierLoss, 2>();
    visitor.loss::<HuberLoss, 2>();
    visitor.loss::<PsnrLoss, 2>();
    visitor.loss::<TvLoss, 1>();
    visitor.loss::<MaskedTvLoss, 1>();
    visitor.loss::<GradientLoss, 2>();
}

/// The page of the registry.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
