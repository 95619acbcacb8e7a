//! Whose turn it is in adversarial training, and on which images.

use serde::{Deserialize, Serialize};

/// Whose step of adversarial training it is (MMagic's `model`). Where there is no adversary, the one network that learns is
/// the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Side {
    /// The discriminator learns.
    Discriminator,
    /// The generator learns.
    Generator,
}

/// The images whose scores are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum On {
    /// Real images. The discriminator's scores of them should become real; the generator of a relativistic objective
    /// pushes them towards fake.
    Real,
    /// Generated images. The discriminator pushes their scores towards fake, the generator towards real.
    Fake,
}

impl Side {
    /// Whether the scores should become real: the discriminator's of real images, the generator's of generated ones.
    /// MMagic's `target_is_real`.
    pub fn wants_real(self, on: On) -> bool {
        (self == Side::Discriminator) == (on == On::Real)
    }

    /// Side and images that MMagic's two booleans mean.
    ///
    /// | `is_disc` | `target_is_real` | side | on |
    /// |---|---|---|---|
    /// | false | true | generator | fake |
    /// | false | false | generator | real |
    /// | true | true | discriminator | real |
    /// | true | false | discriminator | fake |
    pub fn from_flags(target_is_real: bool, is_disc: bool) -> (Self, On) {
        let side = if is_disc { Side::Discriminator } else { Side::Generator };
        (side, if target_is_real == is_disc { On::Real } else { On::Fake })
    }
}
