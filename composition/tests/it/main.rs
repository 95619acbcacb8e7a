//! Tests of the composition losses: laws, options.

use image_losses_laws::Cpu as Judged;

/// The engine that is judged.
const ENGINE: Judged = Judged;

mod laws;
mod options;
