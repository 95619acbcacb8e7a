//! Losses over frozen networks as configured ones.

use std::fmt::{self, Debug};

#[cfg(feature = "tch")]
use image_losses_core::Error;
use image_losses_core::config::{Argument, Inputs, Outcome};
use image_losses_core::{Result, Tensor};
use image_losses_perceptual::{Frozen, FrozenVisitor, Sources, Weights};
use serde_json::Value;

use super::families::described;
use super::fields::{fields_of, read_options};
use super::registry::{Entry, ErasedLoss, Registry, to_value};
use crate::AnyTensor;

impl FrozenVisitor for Registry {
    fn frozen<L: Frozen>(&mut self) {
        self.register(described::<L::Options>(Entry::frozen::<L>()));
    }
}

impl Entry {
    /// The entry of a loss over a frozen network.
    pub fn frozen<L: Frozen>() -> Self {
        Entry::new::<L>(fields_of::<L::Options>().to_vec(), |value, path, context| {
            let options = read_options::<L::Options>(value, path)?;
            let weights = match (context.seeded, &context.weights_directory) {
                (Some(seed), _) => Weights::Seeded(seed),
                (None, Some(directory)) => Weights::directory(directory),
                (None, None) => Weights::default(),
            };
            let sources = Sources {
                weights: &weights,
                directory: context.weights_directory.as_deref(),
                seeded: context.seeded,
                architecture: context.architecture.as_ref(),
            };
            Ok(over_network(L::build(options, sources).map_err(|error| error.at(path))?))
        })
    }
}

/// A loss over a frozen network, its type erased.
pub(crate) fn over_network<L: Frozen>(loss: L) -> Box<dyn ErasedLoss> {
    Box::new(Held::new(loss))
}

/// A loss over a frozen network as a configured one. On tch the network is put on a device once; a graph takes it anew,
/// and ndarray borrows it.
struct Held<L: Frozen> {
    loss: L,
    /// The network where it was needed last. Tensors of tch may change threads, and not be shared between them.
    #[cfg(feature = "tch")]
    on_device: std::sync::Mutex<Option<OnDevice>>,
}

#[cfg(feature = "tch")]
struct OnDevice {
    context: <image_losses_tch::TchTensor as Tensor>::Context,
    bound: Box<dyn image_losses_perceptual::Kept<image_losses_tch::TchTensor>>,
}

impl<L: Frozen> Held<L> {
    fn new(loss: L) -> Self {
        Held {
            loss,
            #[cfg(feature = "tch")]
            on_device: std::sync::Mutex::new(None),
        }
    }

    /// Evaluates with the network that is on the device.
    #[cfg(feature = "tch")]
    fn on_tch<'g>(
        &mut self,
        context: <image_losses_tch::TchTensor as Tensor>::Context,
        inputs: &Inputs<'_, AnyTensor<'g>>,
    ) -> Result<Outcome<AnyTensor<'g>>> {
        use image_losses_core::config::Item;

        let plain = |tensor: &AnyTensor<'g>| match tensor {
            AnyTensor::Tch(tensor) => Ok(tensor.clone()),
            other => Err(Error::Unsupported { operation: "a tensor beside those of tch", engine: other.engine() }),
        };
        let mut given = Inputs::new();
        for argument in L::arguments() {
            let item = match inputs.get(argument.name) {
                Some(Item::Tensor(tensor)) => Item::Tensor(plain(tensor)?),
                Some(Item::Tokens(tokens)) => Item::Tokens(tokens.clone()),
                Some(Item::Text(text)) => Item::Text(text.clone()),
                // What it does not take, it refuses itself.
                _ => continue,
            };
            given.insert(argument.name, item);
        }
        let held = self.on_device.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let device = match held.take().filter(|device| device.context == context) {
            Some(device) => device,
            None => OnDevice { bound: L::kept(self.loss.on(&context)?), context },
        };
        let outcome = device.bound.call(&given);
        *held = Some(device);
        Ok(outcome?.map(AnyTensor::Tch))
    }
}

impl<L: Frozen> Debug for Held<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.loss.fmt(f)
    }
}

impl<L: Frozen> ErasedLoss for Held<L> {
    fn arguments(&self) -> Vec<Argument> {
        L::arguments()
    }
    fn terms(&self) -> &'static [(&'static str, &'static str)] {
        L::TERMS
    }
    fn options(&self) -> Result<Value> {
        to_value(self.loss.configuration())
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        let first = L::arguments().first().map_or("", |argument| argument.name);
        let tensor = inputs.get_tensor(L::NAME, first)?;
        #[cfg(feature = "tch")]
        if let AnyTensor::Tch(tensor) = tensor {
            return self.on_tch(tensor.context(), inputs);
        }
        L::call(&self.loss.on::<AnyTensor<'g>>(&tensor.context())?, inputs)
    }
    fn checkpoints(&self) -> Vec<String> {
        self.loss.checkpoints()
    }
    fn weight(&self, value: &str, _: &Inputs<'_, AnyTensor<'_>>) -> Result<Option<f64>> {
        Ok(self.loss.weight(value))
    }
    fn boxed_clone(&self) -> Box<dyn ErasedLoss> {
        Box::new(Held::new(self.loss.clone()))
    }
}
