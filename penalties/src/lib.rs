//! Penalties on networks: on a critic's gradient, on a generator's path lengths, on the size of scores.
//!
//! The first four are built on a gradient of the network's output by its input; their own gradient with respect to the
//! network's parameters is a second derivative, so they need an engine that is `Differentiable`.
//!
//! | loss | value | source |
//! |---|---|---|
//! | [`GradientPenaltyLoss`] | mean (‖∂D/∂x̂‖ − 1)² | WGAN-GP, DRAGAN; MMagic |
//! | [`R1GradientPenalty`] | mean ‖∂D/∂x‖² at real x | Mescheder et al.; MMagic |
//! | [`R2GradientPenalty`] | mean ‖∂D/∂x‖² at fake x | Mescheder et al. |
//! | [`GeneratorPathRegularizer`] | mean (ℓ − a)², ℓ the length of ∂(image·noise)/∂w | StyleGAN2; MMagic |
//! | [`DiscShiftLoss`] | mean s² | ProGAN; MMagic |
//! | [`DiscShiftLossComps`] | s² | MMagic |
//!
//! Networks are closures over tensors. Random values come from a seeded [`Draws`] or are given ([`Random`]);
//! what else a call may have is a [`Call`]. State is passed in and handed back. Over several processes, a [`Communicator`] makes the means those of the whole batch.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod call;
mod disc_shift;
mod draws;
mod global_mean;
mod gradient_penalty;
mod inner;
mod interval;
#[cfg(feature = "mpi")]
mod mpi_communicator;
mod path_length;
mod r1;
mod r2;

#[cfg(feature = "mpi")]
pub use ::mpi;
pub use call::{Call, Random};
pub use disc_shift::{DiscShiftLoss, DiscShiftLossComps};
pub use draws::Draws;
pub use global_mean::global_masked_mean;
pub use gradient_penalty::{GradientPenaltyLoss, GradientPenaltyLossComps, Interpolation, NormMode};
pub use image_losses_core::config::{Communicator, Processes, SingleProcess};
pub use inner::AMP_LOSS_SCALE;
#[cfg(feature = "mpi")]
pub use mpi_communicator::MpiCommunicator;
pub use path_length::{GeneratorPathRegularizer, PathLength, PathLengthMemory, PathLengthState};
pub use r1::R1GradientPenalty;
pub use r2::R2GradientPenalty;

/// Every loss of the family.
pub fn every(visitor: &mut impl image_losses_core::Visitor) {
    visitor.loss::<DiscShiftLoss, 1>();
    visitor.loss::<DiscShiftLossComps, 1>();
    visitor.configurable::<GradientPenaltyLoss>();
    visitor.configurable::<GradientPenaltyLossComps>();
    visitor.configurable::<R1GradientPenalty>();
    visitor.configurable::<R2GradientPenalty>();
    visitor.configurable::<GeneratorPathRegularizer>();
}

/// The page of the registry.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
