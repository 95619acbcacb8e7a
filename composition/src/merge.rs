//! The composition that all losses of the family share.

use image_losses_core::{Element, Input};

/// MMagic's arguments.
pub(crate) const INPUTS: [Input; 4] =
    [Input::per_pixel("pred_alpha"), Input::full("fg"), Input::full("bg"), Input::full("ori_merged")];

/// α·f + (1 − α)·b − m.
#[inline(always)]
pub(crate) fn difference<E: Element>([alpha, foreground, background, merged]: [E; 4]) -> E {
    alpha * foreground + (-alpha + 1.0) * background - merged
}
