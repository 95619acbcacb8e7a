//! Composition losses of image matting: how far foreground and background, composed by a predicted α, are from the
//! image observed.
//!
//! d = α·f + (1 − α)·b − m, with one α per pixel; λ (`loss_weight`) and the weighted reductions are those of
//! [`Reducer`](image_losses_core::Reducer).
//!
//! | loss | configured as | unreduced map | source |
//! |---|---|---|---|
//! | [`L1CompositionLoss`] | `L1CompositionLoss` | abs(d) | MMagic |
//! | [`MseCompositionLoss`] | `MSECompositionLoss` | d² | MMagic |
//! | [`CharbonnierCompLoss`] | `CharbonnierCompLoss` | √(d² + ε) | Xu et al. 2017 |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod charbonnier;
mod l1;
mod merge;
mod mse;

pub use charbonnier::CharbonnierCompLoss;
pub use l1::L1CompositionLoss;
pub use mse::MseCompositionLoss;

/// Every loss of the family.
pub fn every(visitor: &mut impl image_losses_core::Visitor) {
    visitor.loss::<L1CompositionLoss, 4>();
    visitor.loss::<MseCompositionLoss, 4>();
    visitor.loss::<CharbonnierCompLoss, 4>();
}

/// The page of the registry.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
