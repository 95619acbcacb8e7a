//! Every loss of the family, held to the laws on the CPU engines.

use image_losses_laws::Cpu as Judged;

/// The engine that is judged.
const ENGINE: Judged = Judged;

mod losses;
