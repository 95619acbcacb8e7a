//! Losses from data: built by MMagic's `type` and field names, fed by named inputs.
//!
//! A [`Registry`] builds a [`Component`] from a mapping (JSON, TOML or YAML through [`parse`] and [`read`], or any serde
//! data as a `serde_json::Value`); [`Inputs`] are its arguments by name, or a training step's outputs, of which its
//! `data_info` picks. Objectives are made of components: [`objective`](crate::objective).
//!
//! BasicSR's names and fields are read too, where the loss is one of ours: `docs/from-basicsr.md`.
//!
//! A loss of one's own joins in with one [`Entry`]: [`Entry::loss`] for a loss of tensors, [`Entry::function`] for a
//! pointwise function, [`Entry::of`] for anything that is [`Configurable`]. [`Registry::register`] adds it; with the feature
//! `inventory`, a `Contribution` does from another crate. [`check`] says what is wrong with a whole document.

mod basicsr;
pub mod check;
mod component;
#[cfg(feature = "inventory")]
mod contribution;
mod document;
mod families;
pub(crate) mod fields;
#[cfg(feature = "perceptual")]
mod held;
pub(crate) mod names;
mod registry;
#[cfg(feature = "schema")]
mod schema;

pub use component::Component;
pub(crate) use component::{check_offered, seed_at};
#[cfg(feature = "inventory")]
pub use contribution::Contribution;
pub use document::{Syntax, parse, read};
#[cfg(feature = "perceptual")]
pub(crate) use held::over_network;
pub use image_losses_core::config::{
    Argument, Carried, Configurable, Inputs, Item, Kind, Network, Outcome, Processes, network,
};
#[cfg(feature = "inventory")]
pub use inventory;
pub use registry::{BuildContext, Entry, Registry};
pub(crate) use registry::{ErasedLoss, of_arguments, of_function, of_tensors, to_value};
#[cfg(feature = "schema")]
pub use schema::{OptionOf, options, schema};
