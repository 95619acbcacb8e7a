//! What a loss makes when it is first needed.

use std::fmt;
use std::sync::{Arc, OnceLock};

use image_losses_core::Result;

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
        if let Some(network) = self.0.get() {
            return Ok(Arc::clone(network));
        }
        let network = Arc::new(make()?);
        Ok(Arc::clone(self.0.get_or_init(|| network)))
    }
}
