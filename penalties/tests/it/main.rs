//! Tests of the penalties: laws, hand values, second derivatives, several processes, errors.

use image_losses_laws::Cpu as Judged;

/// The engine that is judged.
const ENGINE: Judged = Judged;

mod laws;
mod penalties;
mod processes;
mod second_derivatives;
mod support;
