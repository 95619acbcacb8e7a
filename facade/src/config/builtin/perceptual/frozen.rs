//! Losses over frozen networks.
// Without an engine there is no tensor to call them with.
#![cfg_attr(not(any(feature = "ndarray", feature = "autograd", feature = "tch")), allow(unreachable_code))]

use std::fmt::{self, Debug};

#[cfg(any(feature = "tch", feature = "clip"))]
use image_losses_core::Error;
use image_losses_core::{Differentiable, Result, Tensor};
use image_losses_perceptual::Weights;
#[cfg(feature = "clip")]
use image_losses_perceptual::{
    BoundClipLoss, ClipLoss, ClipOptions,
    checkpoint::Checkpoint,
    networks::{ClipShape, Tokens},
};
#[cfg(feature = "lpips")]
use image_losses_perceptual::{BoundDists, BoundLpips, Dists, DistsOptions, Lpips, LpipsOptions};
#[cfg(feature = "face-id")]
use image_losses_perceptual::{BoundFaceIdLoss, FaceIdLoss, FaceIdOptions};
#[cfg(feature = "light-cnn")]
use image_losses_perceptual::{BoundLightCnnFeatureLoss, LightCnnFeatureLoss, LightCnnFeatureOptions};
#[cfg(feature = "vgg")]
use image_losses_perceptual::{BoundPerceptualLoss, PerceptualLoss, PerceptualOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::AnyTensor;
use crate::config::fields::{fields_of, read_options};
use crate::config::inputs::{Inputs, Outcome};
use crate::config::registry::{Argument, BuildContext, Entry, ErasedLoss, Kind, loss_weight, to_value};

/// A loss over a frozen network.
pub(in crate::config::builtin) trait Frozen:
    Debug + Clone + Send + Sync + Sized + 'static
{
    const TYPE: &'static str;
    const TERMS: &'static [(&'static str, &'static str)] = &[];
    type Options: Serialize + DeserializeOwned;
    /// The loss with its network on a context.
    type Bound<T: Tensor>;
    fn arguments() -> Vec<Argument>;
    fn build(options: Self::Options, weights: &Weights, context: &BuildContext) -> Result<Self>;
    fn configuration(&self) -> Self::Options;
    fn on<T: Tensor>(&self, context: &T::Context) -> Result<Self::Bound<T>>;
    fn call<T: Differentiable>(bound: &Self::Bound<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>>;
    /// The names of the checkpoints that its networks are read from.
    fn checkpoints(&self) -> Vec<String>;
    /// The weight that is in the value of this name.
    fn weight(&self, value: &str) -> Result<f64> {
        let _ = value;
        Ok(loss_weight(&to_value(&self.configuration())?))
    }
}

/// An entry for a loss over a frozen network.
pub(in crate::config::builtin) fn entry<L: Frozen>(name: &'static str) -> Entry
where
    Held<L>: Send + Sync,
{
    Entry::new(name, fields_of::<L::Options>(), |value, path, context| {
        let options = read_options::<L::Options>(value, path)?;
        let weights = match (context.seeded, &context.weights_directory) {
            (Some(seed), _) => Weights::Seeded(seed),
            (None, Some(directory)) => Weights::directory(directory),
            (None, None) => Weights::default(),
        };
        let loss = L::build(options, &weights, context).map_err(|error| error.at(path))?;
        Ok(Box::new(Held::new(loss)))
    })
}

/// A loss over a frozen network as a configured one. On tch the network is put on a device once; a graph takes it anew,
/// and ndarray borrows it.
pub(in crate::config::builtin) struct Held<L: Frozen> {
    loss: L,
    /// The network where it was needed last. Tensors of tch may change threads, and not be shared between them.
    #[cfg(feature = "tch")]
    on_device: std::sync::Mutex<Option<OnDevice<L>>>,
}

#[cfg(feature = "tch")]
struct OnDevice<L: Frozen> {
    context: <image_losses_tch::TchTensor as Tensor>::Context,
    bound: L::Bound<image_losses_tch::TchTensor>,
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
        use crate::config::inputs::Item;
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
            None => OnDevice { bound: self.loss.on(&context)?, context },
        };
        let outcome = L::call(&device.bound, &given);
        *held = Some(device);
        Ok(outcome?.map(AnyTensor::Tch))
    }
}

impl<L: Frozen> Debug for Held<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.loss.fmt(f)
    }
}

impl<L: Frozen> ErasedLoss for Held<L>
where
    Held<L>: Send + Sync,
{
    fn arguments(&self) -> Vec<Argument> {
        L::arguments()
    }
    fn terms(&self) -> &'static [(&'static str, &'static str)] {
        L::TERMS
    }
    fn options(&self) -> Result<Value> {
        to_value(&self.loss.configuration())
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        let first = L::arguments().first().map_or("", |argument| argument.name);
        let tensor = inputs.get_tensor(L::TYPE, first)?;
        #[cfg(feature = "tch")]
        if let AnyTensor::Tch(tensor) = tensor {
            return self.on_tch(tensor.context(), inputs);
        }
        L::call(&self.loss.on::<AnyTensor<'g>>(&tensor.context())?, inputs)
    }
    fn checkpoints(&self) -> Vec<String> {
        self.loss.checkpoints()
    }
    fn weight(&self, value: &str, _: &Inputs<'_, AnyTensor<'_>>) -> Result<f64> {
        self.loss.weight(value)
    }
    fn interval(&self) -> u64 {
        1
    }
    fn remember(&mut self, _: &str, _: &[f64], _: &[usize]) -> Result<()> {
        Ok(())
    }
    fn state(&self) -> Result<Value> {
        Ok(Value::Null)
    }
    fn restore(&mut self, _: Value) -> Result<()> {
        Ok(())
    }
    fn boxed_clone(&self) -> Box<dyn ErasedLoss> {
        Box::new(Held::new(self.loss.clone()))
    }
}

#[cfg(feature = "vgg")]
impl Frozen for PerceptualLoss {
    const TYPE: &'static str = "PerceptualLoss";
    const TERMS: &'static [(&'static str, &'static str)] =
        &[("perceptual", "loss_perceptual"), ("style", "loss_style")];
    type Options = PerceptualOptions;
    type Bound<T: Tensor> = BoundPerceptualLoss<T>;
    fn arguments() -> Vec<Argument> {
        vec![Argument::required("x", Kind::Tensor), Argument::required("gt", Kind::Tensor)]
    }
    fn build(options: PerceptualOptions, weights: &Weights, _: &BuildContext) -> Result<Self> {
        PerceptualLoss::new(options, weights)
    }
    fn checkpoints(&self) -> Vec<String> {
        self.options().checkpoints()
    }
    fn configuration(&self) -> PerceptualOptions {
        self.options().clone()
    }
    fn on<T: Tensor>(&self, context: &T::Context) -> Result<BoundPerceptualLoss<T>> {
        self.bind(context)
    }
    fn call<T: Differentiable>(bound: &BoundPerceptualLoss<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let terms = bound.forward(inputs.get_tensor(Self::TYPE, "x")?, inputs.get_tensor(Self::TYPE, "gt")?)?;
        let named = [("perceptual", terms.perceptual), ("style", terms.style)];
        Ok(Outcome::Values(named.into_iter().filter_map(|(name, term)| Some((name, term?))).collect()))
    }
    fn weight(&self, value: &str) -> Result<f64> {
        let PerceptualOptions { perceptual_weight, style_weight, .. } = *self.options();
        Ok(if value == "style" { style_weight } else { perceptual_weight })
    }
}

/// A loss of a prediction and a target.
#[allow(unused_macros)]
macro_rules! of_pair {
    ($loss:ident, $options:ident, $bound:ident, $name:literal, $target:literal, $build:expr) => {
        impl Frozen for $loss {
            const TYPE: &'static str = $name;
            type Options = $options;
            type Bound<T: Tensor> = $bound<T>;
            fn arguments() -> Vec<Argument> {
                vec![Argument::required("pred", Kind::Tensor), Argument::required($target, Kind::Tensor)]
            }
            fn build(options: $options, weights: &Weights, _: &BuildContext) -> Result<Self> {
                $build(options, weights)
            }
            fn checkpoints(&self) -> Vec<String> {
                self.options().checkpoints()
            }
            fn configuration(&self) -> $options {
                self.options().clone()
            }
            fn on<T: Tensor>(&self, context: &T::Context) -> Result<$bound<T>> {
                self.bind(context)
            }
            fn call<T: Differentiable>(bound: &$bound<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
                let (pred, target) = (inputs.get_tensor($name, "pred")?, inputs.get_tensor($name, $target)?);
                bound.forward(pred, target).map(Outcome::Value)
            }
        }
    };
}

#[cfg(feature = "face-id")]
of_pair!(FaceIdLoss, FaceIdOptions, BoundFaceIdLoss, "FaceIdLoss", "gt", FaceIdLoss::new);
#[cfg(feature = "light-cnn")]
of_pair!(
    LightCnnFeatureLoss,
    LightCnnFeatureOptions,
    BoundLightCnnFeatureLoss,
    "LightCNNFeatureLoss",
    "gt",
    LightCnnFeatureLoss::new
);
#[cfg(feature = "lpips")]
of_pair!(Lpips, LpipsOptions, BoundLpips, "LPIPS", "target", |options, weights| Lpips::new(options, weights, weights));
#[cfg(feature = "lpips")]
of_pair!(Dists, DistsOptions, BoundDists, "DISTS", "target", |options, weights| Dists::new(options, weights, weights));

#[cfg(feature = "clip")]
impl Frozen for ClipLoss {
    const TYPE: &'static str = "CLIPLoss";
    type Options = ClipOptions;
    type Bound<T: Tensor> = (BoundClipLoss<T>, usize);
    fn arguments() -> Vec<Argument> {
        vec![Argument::required("image", Kind::Tensor), Argument::required("text", Kind::Tokens)]
    }
    fn checkpoints(&self) -> Vec<String> {
        self.options().checkpoints()
    }
    fn build(options: ClipOptions, weights: &Weights, context: &BuildContext) -> Result<Self> {
        options.validate()?;
        // Where nothing is read, a name that means nothing is found here.
        let name = options.clip_model.clip_type.as_str();
        let is_known = ClipShape::PUBLISHED.contains(&name)
            || name == "seeded"
            || name.starts_with("seeded:")
            || Weights::locate(name, context.weights_directory.as_deref()).is_some();
        if context.seeded.is_some() && !is_known {
            let expected = format!("a published model ({}) or a file", ClipShape::PUBLISHED.join(", "));
            return Err(Error::option(Self::TYPE, "clip_type", expected, name));
        }
        match (context.seeded, &context.architecture) {
            (Some(seed), Some(shape)) => {
                let shape: ClipShape = read_options(known_fields(shape), "architecture")?;
                ClipLoss::new(options, &Checkpoint::seeded(&shape.architecture(), seed)?.into())
            }
            _ => ClipLoss::new(options, weights),
        }
    }
    fn configuration(&self) -> ClipOptions {
        self.options().clone()
    }
    fn on<T: Tensor>(&self, context: &T::Context) -> Result<Self::Bound<T>> {
        Ok((self.bind(context)?, self.shape().context_length))
    }
    fn call<T: Differentiable>((bound, length): &Self::Bound<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let image = inputs.get_tensor(Self::TYPE, "image")?;
        let text = match inputs.get_text(Self::TYPE, "text") {
            Ok(text) => Tokens::tokenize(&[text], *length)?,
            Err(_) => Tokens::from_ids(inputs.get_tokens(Self::TYPE, "text")?.to_vec())?,
        };
        bound.forward(image, &text).map(Outcome::Value)
    }
}

/// An architecture may say more than the shapes need.
#[cfg(feature = "clip")]
fn known_fields(shape: &Value) -> Value {
    let known = fields_of::<ClipShape>();
    match shape {
        Value::Object(map) => {
            let kept = map.iter().filter(|(name, _)| known.contains(&name.as_str()));
            Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        other => other.clone(),
    }
}
