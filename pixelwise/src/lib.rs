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
mod check;
mod gradient;
mod huber;
mod l1;
mod masked_tv;
mod mse;
mod psnr;
mod total_variation;

pub use charbonnier::{CharbonnierLoss, CharbonnierOptions};
pub use gradient::{GradientLoss, GradientOptions};
pub use huber::{HuberLoss, HuberOptions};
pub use l1::{L1Loss, L1Options};
pub use masked_tv::{MaskedTvLoss, MaskedTvOptions};
pub use mse::{MseLoss, MseOptions};
pub use psnr::{PsnrLoss, PsnrOptions};
pub use total_variation::{TvLoss, TvOptions, tv_loss};
