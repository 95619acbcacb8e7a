//! The losses of this workspace, from their families' lists.

use image_losses_core::config::Configurable;
use image_losses_core::{Described, Loss, Visitor};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::registry::{Entry, Registry};

/// Registers every loss of the enabled families.
#[allow(unused_variables)]
pub(super) fn visit(registry: &mut Registry) {
    #[cfg(feature = "pixelwise")]
    image_losses_pixelwise::every(registry);
    #[cfg(feature = "composition")]
    image_losses_composition::every(registry);
    #[cfg(feature = "gan")]
    image_losses_gan::every(registry);
    #[cfg(feature = "penalties")]
    image_losses_penalties::every(registry);
    #[cfg(feature = "perceptual")]
    image_losses_perceptual::every(registry);
}

/// An entry with the schema of its options, where schemas are enabled.
#[cfg_attr(not(feature = "schema"), expect(clippy::extra_unused_type_parameters, reason = "the schema's options"))]
pub(super) fn described<O: Described>(entry: Entry) -> Entry {
    #[cfg(feature = "schema")]
    let entry = entry.described::<O>();
    entry
}

impl Visitor for Registry {
    fn loss<L: Loss<K> + Serialize + DeserializeOwned + Described, const K: usize>(&mut self) {
        self.register(described::<L>(Entry::loss::<L, K>()));
    }
    fn configurable<L: Configurable + Described>(&mut self) {
        self.register(described::<L>(Entry::of::<L>()));
    }
}
