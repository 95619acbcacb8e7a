//! The registry: which `type` builds which loss.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use image_losses_core::{
    Differentiable, Error, Function, Input, Loss, Pointwise, PointwiseLoss, Reducer, Reduction, Result, Tensor, finite,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::basicsr::{own_name_of, rewrite};
use super::component::Component;
use super::fields::{fields_of, join, read_options, refuse, unknown};
use super::inputs::{Inputs, Outcome};
use super::names::{own_name, own_name_at, plain};
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
    /// The seed of random draws (a penalty's α, the noise of path lengths). Each loss mixes its place in the document into
    /// it: losses at different places draw independently, one at the same place draws the same again.
    pub draws: u64,
    /// The names of the outputs that the training step will offer: with it, a `data_info` that asks for another is
    /// refused when the loss is built.
    pub outputs: Option<Vec<String>>,
}

/// A loss that can be built from data, evaluated by named arguments on any engine.
///
/// [`PointwiseLoss`]es need no implementation: see [`Entry::pointwise`]. Anything else over the tensor trait says here
/// which arguments it takes and how it is called.
pub trait Configurable: Debug + Clone + Send + Sync + 'static {
    /// The options, deserialised from the mapping without `type`.
    type Options: Serialize + DeserializeOwned;
    /// Where the loss gives several values: their names, and the names of the terms they become in a training step. A
    /// term whose name contains `loss` counts in the total, another is only logged. Empty for a single value.
    const TERMS: &'static [(&'static str, &'static str)] = &[];
    /// The arguments of its call.
    fn arguments(&self) -> Vec<Argument>;
    /// Builds it.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an option out of range; [`Error::Io`] and the like where a checkpoint is read.
    fn build(options: Self::Options, context: &BuildContext) -> Result<Self>;
    /// The options it was built from.
    fn options(&self) -> Self::Options;
    /// Evaluates it. Tensors whose values later calls need go along as [`Outcome::Carrying`].
    ///
    /// # Errors
    /// [`Error::MissingInput`], shape errors.
    fn evaluate<T: Differentiable>(&mut self, inputs: &Inputs<'_, T>) -> Result<Outcome<T>>;
    /// The weight that is in one of its values, by that name, where it is evaluated with these inputs: the value is the
    /// weight times the value at weight 1. Reported beside the value.
    ///
    /// By default the option `loss_weight` where there is one, for a value that is part of the loss; 1 for one that is only
    /// logged. A loss that weighs otherwise says so here.
    ///
    /// # Errors
    /// [`Error::MissingInput`] for inputs that the loss cannot be evaluated with.
    fn weight<T>(&self, value: &str, inputs: &Inputs<'_, T>) -> Result<f64> {
        let _ = inputs;
        let is_logged = Self::TERMS.iter().any(|(name, term)| *name == value && !term.contains("loss"));
        Ok(if is_logged { 1.0 } else { loss_weight(&to_value(&self.options())?) })
    }
    /// It acts when the iteration is a multiple of this: for a loss with an option `interval` of its own.
    fn interval(&self) -> u64 {
        1
    }
    /// Takes over the value of a tensor that an evaluation carried. A value that is not finite is no error, and is not
    /// remembered: the state keeps its last finite value.
    ///
    /// # Errors
    /// As the loss says.
    fn remember(&mut self, name: &str, values: &[f64], shape: &[usize]) -> Result<()> {
        let _ = (name, values, shape);
        Ok(())
    }
    /// What the loss remembers, to be saved with a training's checkpoint; null where that is nothing.
    ///
    /// # Errors
    /// [`Error::Config`] where it cannot be serialised.
    fn state(&self) -> Result<Value> {
        Ok(Value::Null)
    }
    /// Goes on from a saved state.
    ///
    /// # Errors
    /// [`Error::Config`] where it is not one.
    fn restore(&mut self, state: Value) -> Result<()> {
        let _ = state;
        Ok(())
    }
}

/// A built loss whose type is erased: what a [`Component`] holds.
pub(crate) trait ErasedLoss: Debug + Send + Sync {
    fn arguments(&self) -> Vec<Argument>;
    /// The names of the checkpoints that its networks are read from.
    fn checkpoints(&self) -> Vec<String> {
        Vec::new()
    }
    fn terms(&self) -> &'static [(&'static str, &'static str)];
    fn options(&self) -> Result<Value>;
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>>;
    fn weight(&self, value: &str, inputs: &Inputs<'_, AnyTensor<'_>>) -> Result<f64>;
    fn interval(&self) -> u64;
    fn remember(&mut self, name: &str, values: &[f64], shape: &[usize]) -> Result<()>;
    fn state(&self) -> Result<Value>;
    fn restore(&mut self, state: Value) -> Result<()>;
    fn boxed_clone(&self) -> Box<dyn ErasedLoss>;
}

impl<L: Configurable> ErasedLoss for L {
    fn arguments(&self) -> Vec<Argument> {
        Configurable::arguments(self)
    }
    fn terms(&self) -> &'static [(&'static str, &'static str)] {
        L::TERMS
    }
    fn options(&self) -> Result<Value> {
        to_value(&Configurable::options(self))
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        Configurable::evaluate(self, inputs)
    }
    fn weight(&self, value: &str, inputs: &Inputs<'_, AnyTensor<'_>>) -> Result<f64> {
        Configurable::weight(self, value, inputs)
    }
    fn interval(&self) -> u64 {
        Configurable::interval(self)
    }
    fn remember(&mut self, name: &str, values: &[f64], shape: &[usize]) -> Result<()> {
        Configurable::remember(self, name, values, shape)
    }
    fn state(&self) -> Result<Value> {
        Configurable::state(self)
    }
    fn restore(&mut self, state: Value) -> Result<()> {
        Configurable::restore(self, state)
    }
    fn boxed_clone(&self) -> Box<dyn ErasedLoss> {
        Box::new(self.clone())
    }
}

/// The option `loss_weight`, 1 where there is none.
pub(crate) fn loss_weight(options: &Value) -> f64 {
    options.get("loss_weight").and_then(Value::as_f64).unwrap_or(1.0)
}

/// A structure as data.
pub(crate) fn to_value<T: Serialize>(options: &T) -> Result<Value> {
    serde_json::to_value(options).map_err(|error| refuse("", error.to_string()))
}

type Build = dyn Fn(Value, &str, &BuildContext) -> Result<Box<dyn ErasedLoss>> + Send + Sync;

/// What builds the losses of one `type`.
#[derive(Clone)]
pub struct Entry {
    name: &'static str,
    loss_name: Option<&'static str>,
    fields: Vec<&'static str>,
    build: Arc<Build>,
    #[cfg(feature = "schema")]
    schema: Option<super::schema::Describe>,
}

impl Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.name).finish()
    }
}

impl Entry {
    pub(crate) fn new(
        name: &'static str,
        fields: &[&'static str],
        build: impl Fn(Value, &str, &BuildContext) -> Result<Box<dyn ErasedLoss>> + Send + Sync + 'static,
    ) -> Self {
        Entry {
            name,
            loss_name: None,
            fields: fields.to_vec(),
            build: Arc::new(build),
            #[cfg(feature = "schema")]
            schema: None,
        }
    }

    /// An entry for a loss over the tensor trait.
    pub fn of<L: Configurable>(name: &'static str) -> Self {
        Entry::new(name, fields_of::<L::Options>(), |value, path, context| {
            let options = read_options::<L::Options>(value, path)?;
            Ok(Box::new(L::build(options, context).map_err(|error| error.at(path))?))
        })
    }

    /// An entry for a pointwise loss, whose options are `O`: nothing more is to be written for it.
    pub fn pointwise<L, O, const K: usize>() -> Self
    where
        L: PointwiseLoss<K> + TryFrom<O, Error = Error> + Into<O> + Debug + Clone + Send + Sync + 'static,
        O: Serialize + DeserializeOwned + 'static,
    {
        Entry::new(L::NAME, fields_of::<O>(), |value, path, _| {
            let names = L::INPUTS.map(|input| input.name);
            let loss_weight = |loss: &L| Ok(loss.reducer().loss_weight);
            Adapter::<L, O, K>::build(value, path, L::NAME, names, Some("weight"), loss_weight)
        })
    }

    /// An entry for a pointwise function, whose fields are its options: `loss_weight`, `reduction` and `sample_wise` and
    /// the argument `weight` come by themselves, and nothing more is to be written.
    ///
    /// ```
    /// use image_losses::config::{BuildContext, Entry, Inputs, Outcome, Registry};
    /// use image_losses::core::{Expr, Pointwise};
    /// use image_losses::ndarray::NdTensor;
    /// use ndarray::array;
    ///
    /// /// ln(1 + ((x − y)/γ)²)
    /// #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    /// struct Cauchy {
    ///     gamma: f64,
    /// }
    ///
    /// impl Pointwise<2> for Cauchy {
    ///     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
    ///         (((x - y) / self.gamma).square() + 1.0).ln()
    ///     }
    /// }
    ///
    /// let mut registry = Registry::standard();
    /// registry.register(Entry::function::<Cauchy, 2>("CauchyLoss", ["pred", "target"]));
    /// let document = serde_json::json!({"type": "CauchyLoss", "gamma": 2.0, "reduction": "sum", "loss_weight": 3.0});
    /// let mut loss = registry.build(&document, "loss", &BuildContext::default())?;
    /// let inputs = Inputs::new()
    ///     .tensor("pred", NdTensor::new(array![[3.0f64, 1.0]]).into())
    ///     .tensor("target", NdTensor::new(array![[1.0f64, 1.0]]).into());
    /// let Outcome::Value(value) = loss.evaluate(&inputs)? else { unreachable!() };
    /// assert_eq!(value.values()?, [3.0 * 2f64.ln()]); // d = 2 = γ at one element, 0 at the other
    /// # Ok::<(), image_losses::Error>(())
    /// ```
    pub fn function<P, const K: usize>(name: &'static str, inputs: [&'static str; K]) -> Self
    where
        P: Pointwise<K> + Serialize + DeserializeOwned,
    {
        let mut fields = fields_of::<P>().to_vec();
        fields.extend(fields_of::<ReductionOptions>());
        Entry::new(name, &fields, move |value, path, _| {
            let Value::Object(mut own) = value else { return Err(refuse(path, "the options of a loss are a mapping")) };
            let common = fields_of::<ReductionOptions>().iter().filter_map(|&field| {
                let value = own.shift_remove(field)?;
                Some((field.to_owned(), value))
            });
            let common = Value::Object(common.collect());
            let options: ReductionOptions = read_options(common, path)?;
            finite(name, "loss_weight", options.loss_weight).map_err(|error| error.at(path))?;
            // A function without options is `struct Name;`.
            let own = if own.is_empty() && fields_of::<P>().is_empty() { Value::Null } else { Value::Object(own) };
            let function = read_options::<P>(own, path)?;
            Ok(Box::new(FunctionLoss { name, inputs, function, options }))
        })
    }

    /// An entry for a loss of `K` tensors.
    #[cfg(feature = "pixelwise")]
    pub(crate) fn loss<L, O, const K: usize>() -> Self
    where
        L: NamedLoss<K> + TryFrom<O, Error = Error> + Into<O> + Debug + Clone + Send + Sync + 'static,
        O: Serialize + DeserializeOwned + 'static,
    {
        Entry::new(L::NAME, fields_of::<O>(), |value, path, _| {
            let loss_weight = |loss: &L| Ok(loss_weight(&to_value::<O>(&loss.clone().into())?));
            Adapter::<L, O, K>::build(value, path, L::NAME, L::INPUTS, L::WEIGHT, loss_weight)
        })
    }

    /// The same with the name of its term in a training step. Without it, `L1Loss` names its term `loss_l1`.
    #[must_use]
    pub fn named(self, loss_name: &'static str) -> Self {
        Entry { loss_name: Some(loss_name), ..self }
    }

    /// The same with the JSON Schema of its options; without it, a schema knows the options' names alone.
    #[cfg(feature = "schema")]
    #[must_use]
    pub fn described<O: schemars::JsonSchema>(self) -> Self {
        Entry { schema: Some(|generator| generator.subschema_for::<O>()), ..self }
    }

    #[cfg(feature = "schema")]
    pub(crate) fn describe(&self) -> Option<super::schema::Describe> {
        self.schema
    }

    /// The `type` it answers to.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The name of its term in a training step.
    pub fn loss_name(&self) -> String {
        self.loss_name.map_or_else(|| default_loss_name(self.name), str::to_owned)
    }

    /// The names of its options.
    pub fn fields(&self) -> &[&'static str] {
        &self.fields
    }

    pub(crate) fn build_erased(
        &self,
        options: Value,
        path: &str,
        context: &BuildContext,
    ) -> Result<Box<dyn ErasedLoss>> {
        (self.build)(options, path, context)
    }
}

/// `loss_` and the type in small letters, without what says that it is a loss.
fn default_loss_name(name: &str) -> String {
    let stem = ["Comps", "Loss", "_loss"].into_iter().fold(name, |stem, end| stem.strip_suffix(end).unwrap_or(stem));
    let letters: Vec<char> = stem.chars().collect();
    let mut text = String::from("loss_");
    for (i, &letter) in letters.iter().enumerate() {
        let starts_word = i > 0
            && letter.is_uppercase()
            && (!letters[i - 1].is_uppercase() || letters.get(i + 1).is_some_and(|next| next.is_lowercase()))
            && letters[i - 1] != '_';
        if starts_word {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// A loss of `K` tensors and perhaps a weight, with the names of its call.
#[cfg(feature = "pixelwise")]
pub(crate) trait NamedLoss<const K: usize>: Loss<K> {
    const NAME: &'static str;
    const INPUTS: [&'static str; K];
    const WEIGHT: Option<&'static str>;
}

/// A loss of `K` tensors as a configured one.
struct Adapter<L, O, const K: usize> {
    loss: L,
    name: &'static str,
    inputs: [&'static str; K],
    weight: Option<&'static str>,
    /// λ of the loss.
    loss_weight: fn(&L) -> Result<f64>,
    options: PhantomData<fn() -> O>,
}

impl<L, O, const K: usize> Adapter<L, O, K>
where
    L: Loss<K> + TryFrom<O, Error = Error> + Into<O> + Debug + Clone + Send + Sync + 'static,
    O: Serialize + DeserializeOwned + 'static,
{
    fn build(
        value: Value,
        path: &str,
        name: &'static str,
        inputs: [&'static str; K],
        weight: Option<&'static str>,
        loss_weight: fn(&L) -> Result<f64>,
    ) -> Result<Box<dyn ErasedLoss>> {
        let options = read_options::<O>(value, path)?;
        let loss = L::try_from(options).map_err(|error| error.at(path))?;
        Ok(Box::new(Adapter { loss, name, inputs, weight, loss_weight, options: PhantomData }))
    }
}

impl<L: Debug, O, const K: usize> Debug for Adapter<L, O, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.loss.fmt(f)
    }
}

impl<L, O, const K: usize> ErasedLoss for Adapter<L, O, K>
where
    L: Loss<K> + Into<O> + Debug + Clone + Send + Sync + 'static,
    O: Serialize + 'static,
{
    fn arguments(&self) -> Vec<Argument> {
        arguments_of(&self.inputs, self.weight)
    }
    fn terms(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    fn options(&self) -> Result<Value> {
        to_value(&self.loss.clone().into())
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        call(&self.loss, self.name, self.inputs, self.weight, inputs)
    }
    fn weight(&self, _: &str, _: &Inputs<'_, AnyTensor<'_>>) -> Result<f64> {
        (self.loss_weight)(&self.loss)
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
        let Adapter { ref loss, name, inputs, weight, loss_weight, .. } = *self;
        Box::new(Adapter::<L, O, K> { loss: loss.clone(), name, inputs, weight, loss_weight, options: PhantomData })
    }
}

/// How the map of a [`FunctionLoss`] is reduced.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ReductionOptions {
    loss_weight: f64,
    reduction: Reduction,
    sample_wise: bool,
}

impl Default for ReductionOptions {
    fn default() -> Self {
        ReductionOptions { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false }
    }
}

/// A pointwise function as a loss.
#[derive(Clone, Debug)]
struct FunctionLoss<P, const K: usize> {
    name: &'static str,
    inputs: [&'static str; K],
    function: P,
    options: ReductionOptions,
}

impl<P: Pointwise<K>, const K: usize> Loss<K> for FunctionLoss<P, K> {
    fn forward<T: Tensor>(&self, inputs: [&T; K], weight: Option<&T>) -> Result<T> {
        let ReductionOptions { loss_weight, reduction, sample_wise } = self.options;
        let names = self.inputs.map(Input::full);
        let function = Function::new(self.function.clone());
        Reducer { loss_weight, reduction, sample_wise }.reduce(self.name, &function, &names, &inputs, weight)
    }
}

impl<P: Pointwise<K> + Serialize, const K: usize> ErasedLoss for FunctionLoss<P, K> {
    fn arguments(&self) -> Vec<Argument> {
        arguments_of(&self.inputs, Some("weight"))
    }
    fn terms(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    fn options(&self) -> Result<Value> {
        let (own, common) = (to_value(&self.function)?, to_value(&self.options)?);
        let mut all = serde_json::Map::new();
        for options in [own, common] {
            if let Value::Object(options) = options {
                all.extend(options);
            }
        }
        Ok(Value::Object(all))
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        call(self, self.name, self.inputs, Some("weight"), inputs)
    }
    fn weight(&self, _: &str, _: &Inputs<'_, AnyTensor<'_>>) -> Result<f64> {
        Ok(self.options.loss_weight)
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
        Box::new(self.clone())
    }
}

/// The arguments of a loss of tensors.
fn arguments_of(inputs: &[&'static str], weight: Option<&'static str>) -> Vec<Argument> {
    let inputs = inputs.iter().map(|name| Argument::required(name, Kind::Tensor));
    inputs.chain(weight.map(|name| Argument::optional(name, Kind::Tensor))).collect()
}

/// Calls a loss of tensors by the names of its arguments.
fn call<'g, L: Loss<K>, const K: usize>(
    loss: &L,
    name: &'static str,
    names: [&'static str; K],
    weight: Option<&'static str>,
    inputs: &Inputs<'_, AnyTensor<'g>>,
) -> Result<Outcome<AnyTensor<'g>>> {
    let mut tensors = Vec::with_capacity(K);
    for input in names {
        tensors.push(inputs.get_tensor(name, input)?);
    }
    let weight = match weight {
        Some(weight) => inputs.get_tensor_if_any(name, weight)?,
        None => None,
    };
    loss.forward(std::array::from_fn(|k| tensors[k]), weight).map(Outcome::Value)
}

/// The known `type`s.
///
/// ```
/// use image_losses::AnyTensor;
/// use image_losses::config::{BuildContext, Inputs, Outcome, Registry};
/// use image_losses::ndarray::NdTensor;
/// use ndarray::array;
///
/// let document = serde_json::json!({"type": "L1Loss", "loss_weight": 2.0});
/// let mut loss = Registry::standard().build(&document, "pixel_loss", &BuildContext::default())?;
/// let inputs = Inputs::new()
///     .tensor("pred", AnyTensor::from(NdTensor::new(array![[1.0f64, 2.0]])))
///     .tensor("target", NdTensor::new(array![[1.0f64, 5.0]]).into());
/// let Outcome::Value(value) = loss.evaluate(&inputs)? else { unreachable!() };
/// assert_eq!(value.values()?, [3.0]); // 2 · mean of 0 and 3
/// # Ok::<(), image_losses::Error>(())
/// ```
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

    /// Every loss of the enabled families, and those that linked crates contribute (feature `inventory`).
    ///
    /// A contribution never replaces a loss of this crate or an earlier contribution; [`register`](Registry::register)
    /// does.
    pub fn standard() -> Self {
        let mut registry = Registry::empty();
        for entry in super::builtin::entries() {
            registry.register(entry);
        }
        #[cfg(feature = "inventory")]
        for entry in super::contribution::entries() {
            registry.entries.entry(entry.name).or_insert(entry);
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

    /// The entry of a type. `mmagic.L1Loss` and the full path of MMagic's class are `L1Loss`; another package's name is none
    /// of ours. BasicSR's `MultiScaleGANLoss`, `GANFeatLoss` and `WeightedTVLoss`, and traiNNer-redux' `l1loss`, `mseloss`,
    /// `charbonnierloss` and `ganloss`, are the losses that they compute.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        let name = if self.entries.contains_key(name) { name } else { own_name(name).ok()? };
        self.entries.get(name).or_else(|| self.entries.get(own_name_of(name)?))
    }

    /// Builds a loss from a mapping with `type` and its options; `path` is its place in the document, for errors.
    ///
    /// Beside the options of the loss, every mapping may have the fields of a component: `data_info`, `loss_name` and
    /// `interval` (see [`Component`]). A `_scope_` of MMagic's is passed over, and names are read as [`get`](Registry::get)
    /// reads them, at every depth. Where a network within it is to be computed (`device`) is passed over and noted
    /// ([`Component::notes`]). A whole number may be written as a float.
    ///
    /// # Errors
    /// [`Error::Config`] where it is no mapping and for a name or scope of another package, [`Error::MissingKey`] without a `type`, a required option or a required
    /// argument in `data_info`, [`Error::UnknownName`] for an unknown type, option, argument or output, and what
    /// building the loss refuses, with its path.
    pub fn build(&self, value: &Value, path: &str, context: &BuildContext) -> Result<Component> {
        let Value::Object(map) = value else { return Err(refuse(path, "a loss is a mapping with a `type`")) };
        let name = match map.get("type") {
            Some(Value::String(name)) => name,
            Some(_) => return Err(refuse(&join(path, "type"), "a type is a word")),
            None => return Err(Error::MissingKey { path: path.to_owned(), key: "type".to_owned() }),
        };
        let place = join(path, "type");
        let name = if self.entries.contains_key(name.as_str()) { name.as_str() } else { own_name_at(name, &place)? };
        let entry = self.get(name);
        let entry = entry.ok_or_else(|| unknown(place, "type", name, self.entries.keys().copied()))?;
        let mut notes = Vec::new();
        let mut options = plain(map, path, &mut notes)?;
        options.shift_remove("type");
        rewrite(name, &mut options, path)?;
        Component::build(entry, options, path, context, notes)
    }
}

#[cfg(test)]
mod tests {
    use super::default_loss_name;

    #[test]
    fn terms_are_named_after_their_type() {
        let names = [
            ("L1Loss", "loss_l1"),
            ("MSELoss", "loss_mse"),
            ("MaskedTVLoss", "loss_masked_tv"),
            ("L1CompositionLoss", "loss_l1_composition"),
            ("LightCNNFeatureLoss", "loss_light_cnn_feature"),
            ("GANLossComps", "loss_gan"),
            ("tv_loss", "loss_tv"),
        ];
        for (name, expected) in names {
            assert_eq!(default_loss_name(name), expected);
        }
    }
}
