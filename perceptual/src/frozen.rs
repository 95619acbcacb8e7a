//! How losses over frozen networks are built from data and called by named arguments.

use std::fmt::{self, Debug};
use std::path::Path;

#[cfg(any(feature = "light-cnn", feature = "face-id", feature = "lpips"))]
use image_losses_core::config::Kind;
use image_losses_core::config::{Argument, Inputs, Outcome};
use image_losses_core::{Declared, Described, Differentiable, Result, Tensor, Visitor};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Weights;

/// What a loss over a frozen network is built from, beside its options.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Where parameters come from.
    pub weights: &'a Weights,
    /// Where checkpoints named by URL are looked up.
    pub directory: Option<&'a Path>,
    /// Parameters are drawn from this seed instead, on explicit wish alone.
    pub seeded: Option<u64>,
    /// The shapes of a seeded network that has many (CLIP), as the checkpoint would tell.
    pub architecture: Option<&'a Value>,
}

/// A loss over a frozen network. It is no structure of options: building it reads a checkpoint.
pub trait Frozen: Declared {
    /// The options, read from a configuration.
    type Options: Serialize + DeserializeOwned + Described;
    /// The loss with its network on a context.
    type Bound<T: Tensor>;
    /// Where the loss gives several values: their names, and the names of the terms they become in a training step.
    const TERMS: &'static [(&'static str, &'static str)] = &[];

    /// The arguments of its call.
    fn arguments() -> Vec<Argument>;
    /// Builds it.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](image_losses_core::Error::InvalidOption), and what reading a checkpoint refuses.
    fn build(options: Self::Options, sources: Sources<'_>) -> Result<Self>;
    /// The options it was built from.
    fn configuration(&self) -> &Self::Options;
    /// The names of the checkpoints that its networks are read from.
    fn checkpoints(&self) -> Vec<String>;
    /// The loss with its network on a context: kept, the network is put on a device once.
    ///
    /// # Errors
    /// The engine's own.
    fn on<T: Tensor>(&self, context: &T::Context) -> Result<Self::Bound<T>>;
    /// The bound loss as one that may change threads: `Box::new(Call::<Self, T>(bound))`.
    fn kept<T: Differentiable<Context: Send> + Send + 'static>(bound: Self::Bound<T>) -> Box<dyn Kept<T>>;
    /// Evaluates it.
    ///
    /// # Errors
    /// [`Error::MissingInput`](image_losses_core::Error::MissingInput), shape errors.
    fn call<T: Differentiable>(bound: &Self::Bound<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>>;
    /// The weight that is in the value of this name; `None`: the option `loss_weight`.
    fn weight(&self, value: &str) -> Option<f64> {
        let _ = value;
        None
    }
}

/// A bound loss that may change threads, whatever its type.
pub trait Kept<T>: Send {
    /// Evaluates it.
    ///
    /// # Errors
    /// As [`Frozen::call`].
    fn call(&self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>>;
}

/// A bound loss with the type of its loss.
pub struct Call<L: Frozen, T: Tensor>(pub L::Bound<T>);

impl<L: Frozen, T: Tensor> Debug for Call<L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&L::NAME).finish()
    }
}

impl<L: Frozen, T: Differentiable> Kept<T> for Call<L, T>
where
    L::Bound<T>: Send,
{
    fn call(&self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        L::call(&self.0, inputs)
    }
}

/// Sees every loss of this family by its type.
pub trait FrozenVisitor: Visitor {
    /// A loss over a frozen network.
    fn frozen<L: Frozen>(&mut self);
}

/// The arguments of a loss of two images.
#[cfg(any(feature = "light-cnn", feature = "face-id", feature = "lpips"))]
pub(crate) fn pair_arguments(target: &'static str) -> Vec<Argument> {
    vec![Argument::required("pred", Kind::Tensor), Argument::required(target, Kind::Tensor)]
}
