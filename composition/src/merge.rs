//! The composition that all losses of the family share.

use image_losses_core::{Expr, Input};

/// MMagic's arguments.
pub(crate) const INPUTS: [Input; 4] =
    [Input::per_pixel("pred_alpha"), Input::full("fg"), Input::full("bg"), Input::full("ori_merged")];

/// α·f + (1 − α)·b − m.
pub(crate) fn difference<'e>([alpha, foreground, background, merged]: [Expr<'e>; 4]) -> Expr<'e> {
    alpha * foreground + (-alpha + 1.0) * background - merged
}
