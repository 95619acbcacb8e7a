//! Whose loss is computed, and on which images.

use image_losses_core::config::{Argument, Inputs, Kind};
use image_losses_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// What scores are judged for: whose loss it is, and whether the scores should come out real or fake.
///
/// MMagic says it with two booleans, which [`from_flags`](Role::from_flags) takes:
///
/// | role | `is_disc` | `target_is_real` |
/// |---|---|---|
/// | [`Generator`](Role::Generator) | false | true |
/// | [`GeneratorTowardsFake`](Role::GeneratorTowardsFake) | false | false |
/// | [`DiscriminatorOnReal`](Role::DiscriminatorOnReal) | true | true |
/// | [`DiscriminatorOnFake`](Role::DiscriminatorOnFake) | true | false |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Role {
    /// The generator's step: the scores of its images should be real.
    Generator,
    /// The generator's step with the label turned: scores that should become fake, such as those of real images in a
    /// relativistic objective.
    GeneratorTowardsFake,
    /// The discriminator's step, on real images.
    DiscriminatorOnReal,
    /// The discriminator's step, on generated images.
    DiscriminatorOnFake,
}

impl Role {
    /// The role that MMagic's two booleans mean.
    pub fn from_flags(target_is_real: bool, is_disc: bool) -> Self {
        match (target_is_real, is_disc) {
            (true, false) => Role::Generator,
            (false, false) => Role::GeneratorTowardsFake,
            (true, true) => Role::DiscriminatorOnReal,
            (false, true) => Role::DiscriminatorOnFake,
        }
    }

    /// MMagic's `target_is_real`: the scores are compared with the real label.
    pub fn target_is_real(self) -> bool {
        matches!(self, Role::Generator | Role::DiscriminatorOnReal)
    }

    /// MMagic's `is_disc`: it is the discriminator's loss.
    pub fn is_discriminator(self) -> bool {
        matches!(self, Role::DiscriminatorOnReal | Role::DiscriminatorOnFake)
    }
}

/// Whose step it is, for losses that see real and generated images at once (MMagic's `model`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Step {
    /// The discriminator learns.
    Discriminator,
    /// The generator learns.
    Generator,
}

/// The step that the word `model` names.
pub(crate) fn step_of<T>(operation: &'static str, inputs: &Inputs<'_, T>) -> Result<Step> {
    match inputs.get_text(operation, "model")? {
        "discriminator" => Ok(Step::Discriminator),
        "generator" => Ok(Step::Generator),
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
