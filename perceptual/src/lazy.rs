//! What a loss makes when it is first needed.

use std::fmt;
use std::sync::{Arc, OnceLock};

use image_losses_core::Result;
use image_losses_kernels::once::get_or_try_make;

/// A fused network that is made when first needed, and shared by all copies of a loss.
pub(crate) struct Lazy<N>(Arc<OnceLock<Arc<N>>>);

impl<N> Default for Lazy<N> {
    fn default() -> Self {
        Lazy(Arc::default())
    }
}

impl<N> Clone for Lazy<N> {
    fn clone(&self) -> Self {
        Lazy(Arc::clone(&self.0))
    }
}

impl<N> fmt::Debug for Lazy<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Lazy").field(&self.0.get().is_some()).finish()
    }
}

impl<N> Lazy<N> {
    /// The network, made by `make` on the first call.
    pub(crate) fn get(&self, make: impl FnOnce() -> Result<N>) -> Result<Arc<N>> {
        get_or_try_make(&self.0, || make().map(Arc::new)).cloned()
    }
}
