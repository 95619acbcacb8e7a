//! The losses of the family that small networks or none serve, held to the laws on the CPU engines.
#![cfg(feature = "vgg")]

use image_losses_laws::Cpu as Judged;

/// The engine that is judged.
const ENGINE: Judged = Judged;

mod losses;
#[cfg(all(feature = "clip", feature = "face-id", feature = "light-cnn", feature = "lpips"))]
mod networks;
