//! Losses from data: built by MMagic's `type` and field names, fed by named inputs.

mod builtin;
mod fields;
mod inputs;
mod registry;

pub use inputs::{Inputs, Item, Network, Outcome};
pub use registry::{Argument, BuildContext, Configurable, ConfiguredLoss, Entry, Kind, Registry};
