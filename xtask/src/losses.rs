//! Every loss, in the order of its family's list.

use image_losses::composition;
use image_losses::core::config::Configurable;
use image_losses::core::{About, Declared, Described, Loss, Visitor};
use image_losses::perceptual::{self, Frozen, FrozenVisitor};
use image_losses::{gan, penalties, pixelwise};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A loss of a family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    /// The title of its family.
    #[cfg_attr(not(feature = "gallery"), expect(dead_code, reason = "the gallery's titles"))]
    pub(crate) family: &'static str,
    /// Its `type`.
    pub(crate) name: &'static str,
    /// The other `type`s that build it.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) about: About,
}

/// The losses of all families, in the page's order.
pub(crate) fn all() -> Vec<Listed> {
    let mut list = List { family: "Pixel by pixel", losses: Vec::new() };
    pixelwise::every(&mut list);
    list.family = "Adversarial";
    gan::every(&mut list);
    list.family = "Penalties on networks";
    penalties::every(&mut list);
    list.family = "Matting";
    composition::every(&mut list);
    list.family = "Perceptual";
    perceptual::every(&mut list);
    list.losses
}

struct List {
    family: &'static str,
    losses: Vec<Listed>,
}

impl List {
    fn add<L: Declared>(&mut self) {
        self.losses.push(Listed { family: self.family, name: L::NAME, aliases: L::ALIASES, about: L::ABOUT });
    }
}

impl Visitor for List {
    fn loss<L: Loss<K> + Serialize + DeserializeOwned + Described, const K: usize>(&mut self) {
        self.add::<L>();
    }
    fn configurable<L: Configurable + Described>(&mut self) {
        self.add::<L>();
    }
}

impl FrozenVisitor for List {
    fn frozen<L: Frozen>(&mut self) {
        self.add::<L>();
    }
}
