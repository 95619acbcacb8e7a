//! Losses called by named arguments, as configurations call them.
//!
//! A loss of tensors ([`Loss`](crate::Loss)) needs nothing of this. One that takes a network, a role or a state is
//! [`Configurable`]: it lists its [`Argument`]s and reads them from [`Inputs`].

mod inputs;
mod processes;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use crate::{Declared, Differentiable, Result};

pub use inputs::{Inputs, Item, Network, Outcome, network};
pub use processes::{Communicator, Processes, SingleProcess};

/// What an argument of a loss is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A tensor.
    Tensor,
    /// One or several tensors.
    Tensors,
    /// A network.
    Network,
    /// A number.
    Number,
    /// A switch.
    Flag,
    /// A word.
    Text,
    /// Token ids.
    Tokens,
    /// The processes that train together.
    Processes,
}

/// An argument of a loss: what its call takes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name, as MMagic's call has it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The loss cannot do without it.
    pub required: bool,
    /// The output it is taken from where `data_info` does not say.
    pub output: Option<&'static str>,
}

impl Argument {
    /// An argument the loss needs.
    pub const fn required(name: &'static str, kind: Kind) -> Self {
        Argument { name, kind, required: true, output: None }
    }

    /// An argument that may be absent.
    pub const fn optional(name: &'static str, kind: Kind) -> Self {
        Argument { name, kind, required: false, output: None }
    }

    /// The same, taken from this output of the training step where `data_info` does not name another.
    #[must_use]
    pub const fn or_output(self, output: &'static str) -> Self {
        Argument { output: Some(output), ..self }
    }
}

/// A loss that is called by named arguments, on any engine: one that takes more than tensors, or remembers.
///
/// ```
/// use image_losses_core::config::{Argument, Configurable, Inputs, Kind, Outcome};
/// use image_losses_core::{Declared, Differentiable, Result, Tensor};
/// use serde::{Deserialize, Serialize};
///
/// /// The mean score of a critic.
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct MeanScore { loss_weight: f64 }
///
/// impl Declared for MeanScore { const NAME: &'static str = "MeanScore"; }
///
/// impl Configurable for MeanScore {
///     type State = ();
///     fn arguments(&self) -> Vec<Argument> {
///         vec![Argument::required("critic", Kind::Network), Argument::required("x", Kind::Tensor)]
///     }
///     fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, _: &mut ()) -> Result<Outcome<T>> {
///         let critic = inputs.get_network(Self::NAME, "critic")?;
///         let scores = critic(inputs.get_tensor(Self::NAME, "x")?)?;
///         scores.mean_all()?.scale(self.loss_weight).map(Outcome::Value)
///     }
/// }
/// ```
pub trait Configurable: Declared + Serialize + DeserializeOwned {
    /// What it remembers between calls, saved with a training's checkpoint; `()` for nothing.
    type State: Default + Clone + Debug + Send + Sync + Serialize + DeserializeOwned + 'static;
    /// Where the loss gives several values: their names, and the names of the terms they become in a training step. A
    /// term whose name contains `loss` counts in the total, another is only logged. Empty for a single value.
    const TERMS: &'static [(&'static str, &'static str)] = &[];

    /// The arguments of its call.
    fn arguments(&self) -> Vec<Argument>;
    /// The state before the first call; random draws start from the seed.
    fn start(&self, seed: u64) -> Self::State {
        let _ = seed;
        Self::State::default()
    }
    /// Evaluates it. Tensors whose values later calls need go along as [`Outcome::Carrying`].
    ///
    /// # Errors
    /// [`Error::MissingInput`](crate::Error::MissingInput), shape errors.
    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, state: &mut Self::State) -> Result<Outcome<T>>;
    /// The weight that is in one of its values, by that name, where it is evaluated with these inputs: the value is the
    /// weight times the value at weight 1. Reported beside the value. `None`: the option `loss_weight`, or 1 where there
    /// is none, for a value that is part of the loss; 1 for one that is only logged.
    ///
    /// # Errors
    /// [`Error::MissingInput`](crate::Error::MissingInput) for inputs that the loss cannot be evaluated with.
    fn weight<T>(&self, value: &str, inputs: &Inputs<'_, T>) -> Result<Option<f64>> {
        let _ = (value, inputs);
        Ok(None)
    }
    /// It acts when the iteration is a multiple of this: for a loss with an option `interval` of its own.
    fn interval(&self) -> u64 {
        1
    }
    /// Takes over the values of the tensors that an evaluation carried. A value that is not finite is no error, and is not
    /// remembered: the state keeps its last finite value.
    ///
    /// # Errors
    /// As the loss says.
    fn remember(&self, state: &mut Self::State, carried: &[Carried]) -> Result<()> {
        let _ = (state, carried);
        Ok(())
    }
}

/// The value of a tensor that an evaluation carried ([`Outcome::Carrying`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Carried {
    /// Its name.
    pub name: &'static str,
    /// Its elements, row-major.
    pub values: Vec<f64>,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Carried {
    /// The one of this name.
    pub fn find<'a>(carried: &'a [Carried], name: &str) -> Option<&'a Carried> {
        carried.iter().find(|carried| carried.name == name)
    }
}
