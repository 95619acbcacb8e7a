//! The names of the pixelwise losses that are not pointwise.

use image_losses_pixelwise::{GradientLoss, MaskedTvLoss, PsnrLoss, TvLoss};

use crate::config::registry::NamedLoss;

impl NamedLoss<2> for PsnrLoss {
    const NAME: &'static str = "PSNRLoss";
    const INPUTS: [&'static str; 2] = ["pred", "target"];
    const WEIGHT: Option<&'static str> = None;
}

impl NamedLoss<1> for TvLoss {
    const NAME: &'static str = "tv_loss";
    const INPUTS: [&'static str; 1] = ["input"];
    const WEIGHT: Option<&'static str> = None;
}

impl NamedLoss<1> for MaskedTvLoss {
    const NAME: &'static str = "MaskedTVLoss";
    const INPUTS: [&'static str; 1] = ["pred"];
    const WEIGHT: Option<&'static str> = Some("mask");
}

impl NamedLoss<2> for GradientLoss {
    const NAME: &'static str = "GradientLoss";
    const INPUTS: [&'static str; 2] = ["pred", "target"];
    const WEIGHT: Option<&'static str> = Some("weight");
}
