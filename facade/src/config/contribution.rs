//! Losses that other crates contribute by being linked.

use super::registry::Entry;

/// A loss that another crate contributes: submit it, and [`Registry::standard`](super::Registry::standard) knows it in
/// every program that links the crate.
///
/// ```
/// use image_losses::config::{Contribution, Entry, Registry, inventory};
/// use image_losses::core::{Declared, Expr, Pointwise};
///
/// /// ln(1 + (x − y)²)
/// #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
/// struct Cauchy;
///
/// impl Declared for Cauchy {
///     const NAME: &'static str = "CauchyLoss";
/// }
///
/// impl Pointwise<2> for Cauchy {
///     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
///         ((x - y).square() + 1.0).ln()
///     }
/// }
///
/// inventory::submit!(Contribution(|| Entry::function::<Cauchy, 2>()));
///
/// let document = serde_json::json!({"type": "CauchyLoss", "loss_weight": 0.1});
/// assert!(Registry::standard().build(&document, "loss", &Default::default()).is_ok());
/// # assert!(Registry::standard().build(&serde_json::json!({"type": "CauchyLoss", "x": 1}), "", &Default::default()).is_err());
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
