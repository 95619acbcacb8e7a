//! The losses held to the laws: those that small networks or none serve, and those over whole networks.
#![cfg(feature = "vgg")]

mod losses;
#[cfg(all(feature = "clip", feature = "face-id", feature = "light-cnn", feature = "lpips"))]
mod networks;
