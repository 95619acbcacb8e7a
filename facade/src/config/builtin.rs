//! The entries of this workspace's own losses: one line each.

use super::registry::Entry;

/// Every loss of the enabled families.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    #[cfg(feature = "pixelwise")]
    {
        use image_losses_pixelwise as p;
        entries.extend([Entry::pointwise::<p::L1Loss, p::L1Options, 2>()]);
    }
    entries
}
