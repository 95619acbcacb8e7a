//! Tests of the pixelwise losses: laws, hand values, options, errors.

use image_losses_laws::Cpu as Judged;

/// The engine that is judged.
const ENGINE: Judged = Judged;

mod arrays;
mod laws;
mod values;
