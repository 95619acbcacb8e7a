//! Adversarial losses: what a critic's scores say about real and generated images.
//!
//! | loss | formula | source |
//! |---|---|---|
//! | [`GanLoss`] | the mean of seven functions of a score; s for a score, for instance softplus(∓s) | MMagic, `GANLoss` |
//! | [`GaussianBlur`] | a separable Gaussian filter, the soft target of `smgan` | MMagic, `GaussianBlur` |
//! | [`AdvLoss`] | five objectives over a critic and two images, two of them relativistic with an [`ImagePool`] | MMagic, `AdvLoss` |
//! | [`RelativisticPairingLoss`] | softplus(−(s_real − s_fake)) | Huang et al. 2024 |
//! | [`RelativisticAverageHingeLoss`] | max(0, 1 − (s_real − mean s_fake)) + max(0, 1 + (s_fake − mean s_real)) | Jolicoeur-Martineau 2018 |
//! | [`LeCamLoss`] | (s_real − α_fake)² + (s_fake − α_real)² | Tseng et al. 2021 |
//! | [`FeatureMatchingLoss`] | Σ over layers of mean abs(f_fake − f_real) | Wang et al. 2018 |
//!
//! Critics are closures from tensor to tensor; scores are their outputs, of any shape. No loss names an engine. State
//! ([`ImagePool`], [`AdvState`], [`LeCamAverages`]) is a value of the caller's, saved and loaded through serde.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod adv_loss;
mod feature_matching;
mod gan_loss;
mod gaussian_blur;
mod image_pool;
mod lecam;
mod relativistic_average_hinge;
mod relativistic_pairing;
mod scores;
mod side;

pub use adv_loss::{AdvLoss, AdvLossType, AdvPredictions, AdvState, AdvTerms};
pub use feature_matching::{FeatureCriterion, FeatureMatchingLoss};
pub use gan_loss::{GanCriterion, GanLoss, GanType};
pub use gaussian_blur::GaussianBlur;
pub use image_losses_core::{On, Side};
pub use image_pool::{ImagePool, Sample, Stored};
pub use lecam::{LeCamAverages, LeCamLoss};
pub use relativistic_average_hinge::RelativisticAverageHingeLoss;
pub use relativistic_pairing::RelativisticPairingLoss;

/// Every loss of the family.
pub fn every(visitor: &mut impl image_losses_core::Visitor) {
    visitor.configurable::<GanLoss>();
    visitor.configurable::<GaussianBlur>();
    visitor.configurable::<AdvLoss>();
    visitor.configurable::<LeCamLoss>();
    visitor.configurable::<FeatureMatchingLoss>();
    visitor.configurable::<RelativisticPairingLoss>();
    visitor.configurable::<RelativisticAverageHingeLoss>();
}

/// The page of the registry.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
