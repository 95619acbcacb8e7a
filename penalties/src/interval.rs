//! Penalties that act in every so many iterations.

use image_losses_core::{Error, Result};

/// Refuses an interval of 0.
pub(crate) fn check_interval(owner: &'static str, interval: u64) -> Result<()> {
    if interval > 0 { Ok(()) } else { Err(Error::option(owner, "interval", "at least 1", interval)) }
}

/// Whether a penalty with this interval acts.
pub(crate) fn due(interval: u64, iteration: u64) -> bool {
    iteration.is_multiple_of(interval)
}

/// λ, times the interval if so chosen.
pub(crate) fn weight(loss_weight: f64, interval: u64, multiply: bool) -> f64 {
    if multiply { loss_weight * interval as f64 } else { loss_weight }
}
