//! Pixelwise losses: what a prediction differs from its target by, pixel by pixel.
//!
//! | loss | unreduced map | source |
//! |---|---|---|
//! | [`L1Loss`] | abs(x − y) | MMagic |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod l1;

pub use l1::{L1Loss, L1Options};
