//! The registry: which `type` builds which loss.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::sync::Arc;

use image_losses_core::config::{Argument, Carried, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{About, Declared, Error, Loss, Pointwise, Reduced, Reducer, Reduction, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::basicsr::{own_name_of, rewrite};
use super::component::Component;
use super::fields::{fields_of, join, read_options, refuse, unknown};
use super::names::{own_name, own_name_at, plain};
use crate::AnyTensor;

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

/// A built loss whose type is erased, with what it remembers: what a [`Component`] holds.
pub(crate) trait ErasedLoss: Debug + Send + Sync {
    fn arguments(&self) -> Vec<Argument>;
    fn options(&self) -> Result<Value>;
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>>;
    fn boxed_clone(&self) -> Box<dyn ErasedLoss>;
    /// The names of the checkpoints that its networks are read from.
    fn checkpoints(&self) -> Vec<String> {
        Vec::new()
    }
    fn terms(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    /// The weight that is in a value, where the loss says another than its `loss_weight`.
    fn weight(&self, value: &str, inputs: &Inputs<'_, AnyTensor<'_>>) -> Result<Option<f64>> {
        let _ = (value, inputs);
        Ok(None)
    }
    fn interval(&self) -> u64 {
        1
    }
    fn remember(&mut self, carried: &[Carried]) -> Result<()> {
        let _ = carried;
        Ok(())
    }
    fn state(&self) -> Result<Value> {
        Ok(Value::Null)
    }
    fn restore(&mut self, state: Value) -> Result<()> {
        let _ = state;
        Ok(())
    }
}

/// A configurable loss with its state.
#[derive(Clone, Debug)]
struct WithState<L: Configurable> {
    loss: L,
    state: L::State,
}

impl<L: Configurable> ErasedLoss for WithState<L> {
    fn arguments(&self) -> Vec<Argument> {
        self.loss.arguments()
    }
    fn terms(&self) -> &'static [(&'static str, &'static str)] {
        L::TERMS
    }
    fn options(&self) -> Result<Value> {
        to_value(&self.loss)
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        self.loss.evaluate(inputs, &mut self.state)
    }
    fn weight(&self, value: &str, inputs: &Inputs<'_, AnyTensor<'_>>) -> Result<Option<f64>> {
        self.loss.weight(value, inputs)
    }
    fn interval(&self) -> u64 {
        self.loss.interval()
    }
    fn remember(&mut self, carried: &[Carried]) -> Result<()> {
        self.loss.remember(&mut self.state, carried)
    }
    fn state(&self) -> Result<Value> {
        to_value(&self.state)
    }
    fn restore(&mut self, state: Value) -> Result<()> {
        self.state = read_options(state, "")?;
        Ok(())
    }
    fn boxed_clone(&self) -> Box<dyn ErasedLoss> {
        Box::new(self.clone())
    }
}

/// A loss of `K` tensors.
#[derive(Clone, Debug)]
struct OfTensors<L, const K: usize>(L);

impl<L: Loss<K> + Serialize, const K: usize> ErasedLoss for OfTensors<L, K> {
    fn arguments(&self) -> Vec<Argument> {
        arguments_of::<L, K>()
    }
    fn options(&self) -> Result<Value> {
        to_value(&self.0)
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        call(&self.0, inputs)
    }
    fn boxed_clone(&self) -> Box<dyn ErasedLoss> {
        Box::new(self.clone())
    }
}

/// A loss of `K` tensors, its type erased.
pub(crate) fn of_tensors<L: Loss<K> + Serialize, const K: usize>(loss: L) -> Box<dyn ErasedLoss> {
    Box::new(OfTensors(loss))
}

/// A loss of named arguments, its type erased.
pub(crate) fn of_arguments<L: Configurable>(loss: L, seed: u64) -> Box<dyn ErasedLoss> {
    Box::new(WithState { state: loss.start(seed), loss })
}

/// A pointwise function with its reduction, its type erased.
pub(crate) fn of_function<P, const K: usize>(loss: Reduced<P>) -> Box<dyn ErasedLoss>
where
    P: Pointwise<K> + Declared + Serialize,
{
    Box::new(OfFunction(loss))
}

/// A pointwise function with the options of its reduction.
#[derive(Clone, Debug)]
struct OfFunction<P, const K: usize>(Reduced<P>);

impl<P: Pointwise<K> + Declared + Serialize, const K: usize> ErasedLoss for OfFunction<P, K> {
    fn arguments(&self) -> Vec<Argument> {
        arguments_of::<Reduced<P>, K>()
    }
    fn options(&self) -> Result<Value> {
        let Reduced { ref function, loss_weight, reduction, sample_wise } = self.0;
        let mut all = match to_value(function)? {
            Value::Object(own) => own,
            _ => Map::new(),
        };
        if let Value::Object(common) = to_value(&ReductionOptions { loss_weight, reduction, sample_wise })? {
            all.extend(common);
        }
        Ok(Value::Object(all))
    }
    fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        call(&self.0, inputs)
    }
    fn boxed_clone(&self) -> Box<dyn ErasedLoss> {
        Box::new(self.clone())
    }
}

/// The options of the reduction of a pointwise function.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ReductionOptions {
    loss_weight: f64,
    reduction: Reduction,
    sample_wise: bool,
}

impl Default for ReductionOptions {
    fn default() -> Self {
        let Reducer { loss_weight, reduction, sample_wise } = Reducer::default();
        ReductionOptions { loss_weight, reduction, sample_wise }
    }
}

/// The arguments of a loss of tensors.
fn arguments_of<L: Loss<K>, const K: usize>() -> Vec<Argument> {
    let inputs = L::TAKES.into_iter().map(|input| Argument::required(input.name, Kind::Tensor));
    inputs.chain(L::WEIGHT.map(|name| Argument::optional(name, Kind::Tensor))).collect()
}

/// Calls a loss of tensors by the names of its arguments.
fn call<'g, L: Loss<K>, const K: usize>(
    loss: &L,
    inputs: &Inputs<'_, AnyTensor<'g>>,
) -> Result<Outcome<AnyTensor<'g>>> {
    let mut tensors = Vec::with_capacity(K);
    for input in L::TAKES {
        tensors.push(inputs.get_tensor(L::NAME, input.name)?);
    }
    let weight = match L::WEIGHT {
        Some(weight) => inputs.get_tensor_if_any(L::NAME, weight)?,
        None => None,
    };
    loss.forward(std::array::from_fn(|k| tensors[k]), weight).map(Outcome::Value)
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
    aliases: &'static [&'static str],
    term: Option<&'static str>,
    about: About,
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
    pub(crate) fn new<L: Declared>(
        fields: Vec<&'static str>,
        build: impl Fn(Value, &str, &BuildContext) -> Result<Box<dyn ErasedLoss>> + Send + Sync + 'static,
    ) -> Self {
        Entry {
            name: L::NAME,
            aliases: L::ALIASES,
            term: L::TERM,
            about: L::ABOUT,
            fields,
            build: Arc::new(build),
            #[cfg(feature = "schema")]
            schema: None,
        }
    }

    /// The entry of a loss of `K` tensors, whose fields are its options: nothing more is to be written for it.
    pub fn loss<L: Loss<K> + Serialize + DeserializeOwned, const K: usize>() -> Self {
        Entry::new::<L>(fields_of::<L>().to_vec(), |value, path, _| {
            let loss = read_options::<L>(value, path)?;
            loss.check().map_err(|error| error.at(path))?;
            Ok(of_tensors(loss))
        })
    }

    /// The entry of a loss that is called by named arguments.
    pub fn of<L: Configurable>() -> Self {
        Entry::new::<L>(fields_of::<L>().to_vec(), |value, path, context| {
            let loss = read_options::<L>(value, path)?;
            loss.check().map_err(|error| error.at(path))?;
            Ok(of_arguments(loss, context.draws))
        })
    }

    /// The entry of a pointwise function, whose fields are its options: `loss_weight`, `reduction` and `sample_wise` and
    /// the argument `weight` come by themselves. In a program the same loss is a [`Reduced`].
    ///
    /// ```
    /// use image_losses::config::{BuildContext, Entry, Inputs, Outcome, Registry};
    /// use image_losses::core::{Declared, Expr, Pointwise};
    /// use image_losses::ndarray::NdTensor;
    /// use ndarray::array;
    ///
    /// /// ln(1 + ((x − y)/γ)²)
    /// #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    /// struct Cauchy {
    ///     gamma: f64,
    /// }
    ///
    /// impl Declared for Cauchy {
    ///     const NAME: &'static str = "CauchyLoss";
    /// }
    ///
    /// impl Pointwise<2> for Cauchy {
    ///     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
    ///         (((x - y) / self.gamma).square() + 1.0).ln()
    ///     }
    /// }
    ///
    /// let mut registry = Registry::standard();
    /// registry.register(Entry::function::<Cauchy, 2>());
    /// let document = serde_json::json!({"type": "CauchyLoss", "gamma": 2.0, "reduction": "sum", "loss_weight": 3.0});
    /// let mut loss = registry.build(&document, "loss", &BuildContext::default())?;
    /// let inputs = Inputs::new()
    ///     .tensor("pred", NdTensor::new(array![[3.0f64, 1.0]]).into())
    ///     .tensor("target", NdTensor::new(array![[1.0f64, 1.0]]).into());
    /// let Outcome::Value(value) = loss.evaluate(&inputs)? else { unreachable!() };
    /// assert_eq!(value.values()?, [3.0 * 2f64.ln()]); // d = 2 = γ at one element, 0 at the other
    /// # Ok::<(), image_losses::Error>(())
    /// ```
    pub fn function<P, const K: usize>() -> Self
    where
        P: Pointwise<K> + Declared + Serialize + DeserializeOwned,
    {
        let mut fields = fields_of::<P>().to_vec();
        fields.extend(fields_of::<ReductionOptions>());
        Entry::new::<P>(fields, |value, path, _| {
            let Value::Object(mut own) = value else { return Err(refuse(path, "the options of a loss are a mapping")) };
            let common = fields_of::<ReductionOptions>().iter().filter_map(|&field| {
                let value = own.shift_remove(field)?;
                Some((field.to_owned(), value))
            });
            let common = Value::Object(common.collect());
            let ReductionOptions { loss_weight, reduction, sample_wise } = read_options(common, path)?;
            // A function without options is `struct Name;`.
            let own = if own.is_empty() && fields_of::<P>().is_empty() { Value::Null } else { Value::Object(own) };
            let loss = Reduced { function: read_options::<P>(own, path)?, loss_weight, reduction, sample_wise };
            loss.check().map_err(|error| error.at(path))?;
            Ok(of_function(loss))
        })
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

    /// The other `type`s it answers to.
    pub fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }

    /// Summary, formula and source.
    pub fn about(&self) -> About {
        self.about
    }

    /// The `type` it answers to.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The name of its term in a training step.
    pub fn loss_name(&self) -> String {
        self.term.map_or_else(|| default_loss_name(self.name), str::to_owned)
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
        super::families::visit(&mut registry);
        #[cfg(feature = "inventory")]
        for entry in super::contribution::entries() {
            if !registry.entries.contains_key(entry.name) {
                registry.register(entry);
            }
        }
        registry
    }

    /// Adds a type; one of that name, or of one of its other names, is replaced.
    pub fn register(&mut self, entry: Entry) -> &mut Self {
        for &alias in entry.aliases {
            self.entries.insert(alias, Entry { name: alias, aliases: &[], ..entry.clone() });
        }
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

    /// Builds every loss of a document, at any depth, in the document's order; each says its place
    /// ([`Component::path`]). A mapping is a loss where the registry knows its `type`, or that ends as a loss's.
    ///
    /// ```
    /// use image_losses::config::{BuildContext, Registry};
    /// use image_losses::ndarray::NdTensor;
    /// use ndarray::array;
    ///
    /// let document = serde_json::json!({"model": {
    ///     "type": "BasicVSR",
    ///     "generator": {"type": "BasicVSRNet"},
    ///     "pixel_loss": {"type": "CharbonnierLoss", "eps": 9.0},
    /// }});
    /// let mut losses = Registry::standard().losses(&document, &BuildContext::default())?;
    /// assert_eq!(losses[0].path(), "model.pixel_loss");
    /// let (pred, target) = (NdTensor::new(array![[4.0f64]]), NdTensor::new(array![[0.0f64]]));
    /// let value = losses[0].call([("pred", pred.into()), ("target", target.into())])?;
    /// assert_eq!(value.values()?, [5.0]); // √(4² + 9)
    /// # Ok::<(), image_losses::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] for a document without losses, and what [`build`](Registry::build) refuses.
    pub fn losses(&self, document: &Value, context: &BuildContext) -> Result<Vec<Component>> {
        let mut losses = Vec::new();
        self.collect(document, "", context, &mut losses)?;
        if losses.is_empty() {
            return Err(refuse("document", "there is no loss in it"));
        }
        Ok(losses)
    }

    fn collect(&self, value: &Value, path: &str, context: &BuildContext, losses: &mut Vec<Component>) -> Result<()> {
        match value {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(i, item)| self.collect(item, &join(path, &i.to_string()), context, losses)),
            Value::Object(map) if map.get("type").and_then(Value::as_str).is_some_and(|name| self.is_loss(name)) => {
                losses.push(self.build(value, path, context)?);
                Ok(())
            }
            Value::Object(map) => {
                map.iter().try_for_each(|(key, item)| self.collect(item, &join(path, key), context, losses))
            }
            _ => Ok(()),
        }
    }

    /// Whether a `type` is a loss's: one that is known, or whose ending says so.
    pub(super) fn is_loss(&self, name: &str) -> bool {
        const ENDINGS: [&str; 4] = ["Loss", "Comps", "Penalty", "Regularizer"];
        self.get(name).is_some() || ENDINGS.iter().any(|ending| name.ends_with(ending))
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
