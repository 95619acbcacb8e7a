//! The examples reach what they are for, in few steps.
#![allow(clippy::duplicate_mod, reason = "each example has its own copy of what they share")]

#[cfg(all(
    feature = "gan",
    feature = "penalties",
    feature = "pixelwise",
    feature = "tch",
    feature = "toml",
    feature = "vgg"
))]
mod inpaint_gan;
#[cfg(all(
    feature = "composition",
    feature = "ndarray",
    feature = "penalties",
    feature = "pixelwise",
    feature = "toml"
))]
mod matting;
#[cfg(all(
    feature = "gan",
    feature = "ndarray",
    feature = "penalties",
    feature = "pixelwise",
    feature = "toml",
    feature = "vgg"
))]
mod restore;
#[cfg(all(
    feature = "config",
    feature = "gan",
    feature = "ndarray",
    feature = "penalties",
    feature = "pixelwise",
    feature = "vgg"
))]
mod stylegan2;
#[cfg(all(feature = "gan", feature = "ndarray", feature = "penalties"))]
mod wgan_gp;
