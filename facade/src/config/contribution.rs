//! Losses that other crates contribute by being linked.

use super::registry::Entry;

/// A loss that another crate contributes: submit it, and [`Registry::standard`](super::Registry::standard) knows it in
/// every program that links the crate.
///
/// ```ignore
/// image_losses::config::inventory::submit! {
///     Contribution(|| Entry::function::<Cauchy, 2>("CauchyLoss", ["pred", "target"]))
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Contribution(pub fn() -> Entry);

inventory::collect!(Contribution);

/// All contributions, in the order of their names (the linker's order is its own).
pub(super) fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = inventory::iter::<Contribution>().map(|contribution| contribution.0()).collect();
    entries.sort_by_key(Entry::name);
    entries
}
