//! How the losses of two sides are called by name.

use image_losses_core::config::{Argument, Inputs, Kind};
use image_losses_core::{Error, Result, Side};

/// The side that the word `model` names.
pub(crate) fn side_of<T>(operation: &'static str, inputs: &Inputs<'_, T>) -> Result<Side> {
    match inputs.get_text(operation, "model")? {
        "discriminator" => Ok(Side::Discriminator),
        "generator" => Ok(Side::Generator),
        other => Err(Error::option(operation, "model", "`generator` or `discriminator`", other)),
    }
}

/// The arguments of a loss of a pair of scores.
pub(crate) fn pair_arguments() -> Vec<Argument> {
    vec![
        Argument::required("fake", Kind::Tensor),
        Argument::required("real", Kind::Tensor),
        Argument::required("model", Kind::Text),
    ]
}
