//! Tests of the perceptual losses: laws, gradients, checkpoints, weights, errors. `tests/checkpoint_hostile.rs` measures
//! the memory of its process and stands alone.

#[cfg(feature = "vgg")]
use image_losses_laws::Cpu as Judged;

/// The engine that is judged.
#[cfg(feature = "vgg")]
const ENGINE: Judged = Judged;

mod checkpoint;
mod clip;
mod common;
mod faces;
mod formats;
mod fused;
mod laws;
mod lpips;
mod other_networks;
mod perceptual;
mod trainers;
mod transferal;
mod weights;
