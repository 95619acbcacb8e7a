//! The registry: which `type` builds which loss.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::path::PathBuf;

use image_losses_core::{Differentiable, Error, Loss, PointwiseLoss, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fields::{fields_of, nearest};
use super::inputs::{Inputs, Outcome};
use crate::AnyTensor;

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
}

impl Argument {
    /// An argument the loss needs.
    pub const fn required(name: &'static str, kind: Kind) -> Self {
        Argument { name, kind, required: true }
    }

    /// An argument that may be absent.
    pub const fn optional(name: &'static str, kind: Kind) -> Self {
        Argument { name, kind, required: false }
    }
}

/// What building a loss may draw on.
#[derive(Clone, Debug, Default)]
pub struct BuildContext {
    /// Where checkpoints named by URL are looked up; the environment variable `IMAGE_LOSSES_WEIGHTS` where this is
    /// `None`.
    pub weights_directory: Option<PathBuf>,
    /// Networks get seeded parameters instead of pretrained ones: for tests and checks, on explicit wish alone.
    pub seeded: Option<u64>,
    /// The shapes of a network that is seeded and has many (CLIP), as the checkpoint would tell.
    pub architecture: Option<Value>,
}

/// A loss that can be built from data, evaluated by named arguments on any engine.
///
/// [`PointwiseLoss`]es need no implementation: see [`Entry::pointwise`]. Anything else over the tensor trait says here
/// which arguments it takes and how it is called.
pub trait Configurable: Debug + Clone + Send + Sync + 'static {
    /// The options, deserialised from the mapping without `type`.
    type Options: Serialize + DeserializeOwned;
    /// The arguments of its call.
    fn arguments(&self) -> Vec<Argument>;
    /// Builds it.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an option out of range; [`Error::Io`] and the like where a checkpoint is read.
    fn build(options: Self::Options, context: &BuildContext) -> Result<Self>;
    /// The options it was built from.
    fn options(&self) -> Self::Options;
    /// Evaluates it.
    ///
    /// # Errors
    /// [`Error::MissingInput`], shape errors.
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>>;
}

/// A built loss whose type is erased.
pub trait ConfiguredLoss: Debug + Send + Sync {
    /// The arguments of its call.
    fn arguments(&self) -> Vec<Argument>;
    /// Its options as data, without `type`.
    ///
    /// # Errors
    /// [`Error::Config`] where they cannot be serialised.
    fn options(&self) -> Result<Value>;
    /// Evaluates it.
    ///
    /// # Errors
    /// [`Error::MissingInput`], shape errors.
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>>;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn ConfiguredLoss>;
}

impl<L: Configurable> ConfiguredLoss for L {
    fn arguments(&self) -> Vec<Argument> {
        Configurable::arguments(self)
    }
    fn options(&self) -> Result<Value> {
        to_value(&Configurable::options(self))
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        Configurable::evaluate(self, inputs)
    }
    fn boxed_clone(&self) -> Box<dyn ConfiguredLoss> {
        Box::new(self.clone())
    }
}

fn to_value<T: Serialize>(options: &T) -> Result<Value> {
    serde_json::to_value(options).map_err(|error| Error::Config { path: String::new(), message: error.to_string() })
}

/// Deserialises options; unknown fields and values of a wrong type are errors with their path.
fn read_options<O: DeserializeOwned>(value: Value, path: &str) -> Result<O> {
    let known = fields_of::<O>();
    if let Value::Object(map) = &value
        && !known.is_empty()
    {
        for name in map.keys() {
            if !known.contains(&name.as_str()) {
                return Err(Error::UnknownName {
                    path: join(path, name),
                    kind: "field",
                    name: name.clone(),
                    nearest: nearest(name, known.iter().copied()),
                });
            }
        }
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let path = if inner == "." { path.to_owned() } else { join(path, &inner) };
        Error::Config { path, message: error.into_inner().to_string() }
    })
}

/// A path one step deeper.
pub(crate) fn join(path: &str, step: &str) -> String {
    if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") }
}

/// What builds the losses of one `type`.
#[derive(Clone, Copy)]
pub struct Entry {
    name: &'static str,
    fields: fn() -> &'static [&'static str],
    build: fn(Value, &str, &BuildContext) -> Result<Box<dyn ConfiguredLoss>>,
}

impl Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.name).finish()
    }
}

impl Entry {
    /// An entry for a loss over the tensor trait.
    pub fn of<L: Configurable>(name: &'static str) -> Self {
        Entry {
            name,
            fields: fields_of::<L::Options>,
            build: |value, path, context| {
                let options = read_options::<L::Options>(value, path)?;
                L::build(options, context).map(|loss| Box::new(loss) as Box<dyn ConfiguredLoss>).map_err(|e| e.at(path))
            },
        }
    }

    /// An entry for a pointwise loss, whose options are `O`: nothing more is to be written for it.
    pub fn pointwise<L, O, const K: usize>() -> Self
    where
        L: PointwiseLoss<K> + TryFrom<O, Error = Error> + Into<O> + Debug + Clone + Send + Sync + 'static,
        O: Serialize + DeserializeOwned + 'static,
    {
        Entry {
            name: L::NAME,
            fields: fields_of::<O>,
            build: |value, path, _| {
                let options = read_options::<O>(value, path)?;
                let loss = L::try_from(options).map_err(|error| error.at(path))?;
                Ok(Box::new(PointwiseEntry::<L, O, K> { loss, options: std::marker::PhantomData }))
            },
        }
    }

    /// The `type` it answers to.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The names of its options.
    pub fn fields(&self) -> &'static [&'static str] {
        (self.fields)()
    }
}

/// A pointwise loss as a configured one.
struct PointwiseEntry<L, O, const K: usize> {
    loss: L,
    options: std::marker::PhantomData<fn() -> O>,
}

impl<L: Debug, O, const K: usize> Debug for PointwiseEntry<L, O, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.loss.fmt(f)
    }
}

impl<L, O, const K: usize> ConfiguredLoss for PointwiseEntry<L, O, K>
where
    L: PointwiseLoss<K> + Into<O> + Debug + Clone + Send + Sync + 'static,
    O: Serialize + 'static,
{
    fn arguments(&self) -> Vec<Argument> {
        let weight = Argument::optional("weight", Kind::Tensor);
        L::INPUTS.iter().map(|input| Argument::required(input.name, Kind::Tensor)).chain([weight]).collect()
    }
    fn options(&self) -> Result<Value> {
        to_value(&self.loss.clone().into())
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        let mut tensors = Vec::with_capacity(K);
        for input in &L::INPUTS {
            tensors.push(inputs.get_tensor(L::NAME, input.name)?);
        }
        let weight = inputs.get_tensor_if_any(L::NAME, "weight")?;
        self.loss.forward(std::array::from_fn(|k| tensors[k]), weight).map(Outcome::Value)
    }
    fn boxed_clone(&self) -> Box<dyn ConfiguredLoss> {
        Box::new(PointwiseEntry { loss: self.loss.clone(), options: std::marker::PhantomData })
    }
}

/// The known `type`s.
#[derive(Clone, Debug)]
pub struct Registry {
    entries: BTreeMap<&'static str, Entry>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry::standard()
    }
}

impl Registry {
    /// No types.
    pub fn empty() -> Self {
        Registry { entries: BTreeMap::new() }
    }

    /// Every loss of the enabled families.
    pub fn standard() -> Self {
        let mut registry = Registry::empty();
        for entry in super::builtin::entries() {
            registry.register(entry);
        }
        registry
    }

    /// Adds a type; one of that name is replaced.
    pub fn register(&mut self, entry: Entry) -> &mut Self {
        self.entries.insert(entry.name, entry);
        self
    }

    /// All types, in alphabetical order.
    pub fn types(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The entry of a type.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Builds a loss from a mapping with `type` and its options; `path` is its place in the document, for errors.
    ///
    /// # Errors
    /// [`Error::Config`] where it is no mapping with a `type`, [`Error::UnknownName`] for an unknown type or field,
    /// and what building the loss refuses, with its path.
    pub fn build(&self, value: &Value, path: &str, context: &BuildContext) -> Result<Box<dyn ConfiguredLoss>> {
        let refuse = |message: &str| Error::Config { path: path.to_owned(), message: message.to_owned() };
        let Value::Object(map) = value else { return Err(refuse("a loss is a mapping with a `type`")) };
        let mut map = map.clone();
        let name = match map.remove("type") {
            Some(Value::String(name)) => name,
            Some(_) => return Err(refuse("`type` must be a word")),
            None => return Err(refuse("`type` is missing")),
        };
        let entry = self.get(&name).ok_or_else(|| Error::UnknownName {
            path: join(path, "type"),
            kind: "type",
            nearest: nearest(&name, self.entries.keys().copied()),
            name,
        })?;
        (entry.build)(Value::Object(map), path, context)
    }
}
