//! Tests of the adversarial losses: laws, hand values, gradients, errors, configuration.

use image_losses_laws::Cpu as Judged;

/// The engine that is judged.
const ENGINE: Judged = Judged;

mod adv_loss;
mod beyond;
mod gan_loss;
mod gaussian_blur;
mod image_pool;
mod laws;
mod tools;
