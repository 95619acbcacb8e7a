//! Tests of the adversarial losses: laws, hand values, gradients, errors, configuration.

mod adv_loss;
mod beyond;
mod gan_loss;
mod gaussian_blur;
mod image_pool;
mod tools;
