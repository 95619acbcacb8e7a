//! Memory of a call, kept for the next one.

use std::sync::{Mutex, PoisonError};

/// A workspace that one call leaves to the next; calls at the same time have one each.
pub(crate) struct Spare<W>(Mutex<Option<Box<W>>>);

impl<W> Default for Spare<W> {
    fn default() -> Self {
        Spare(Mutex::new(None))
    }
}

impl<W: Default> Spare<W> {
    /// The workspace that was kept, or a new one.
    pub(crate) fn take(&self) -> Box<W> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    /// Keeps it for the next call.
    pub(crate) fn keep(&self, workspace: Box<W>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(workspace);
    }
}
