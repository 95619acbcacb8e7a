//! What a loss is given by name, and what it gives back.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::Processes;
use crate::{Error, Result};

/// A network: a function from tensor to tensor.
pub type Network<'a, T> = dyn Fn(&T) -> Result<T> + 'a;

/// A closure as a network: tells the compiler that it takes and gives tensors of one type, which it does not find out
/// for a closure that is given a name first.
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_core::config::{Inputs, network};
/// # use image_losses_ndarray::NdTensor;
/// # type T = NdTensor<'static, f64>;
///
/// let disc = network(|x: &T| x.scale(3.0));
/// let outputs = Inputs::new().network("disc", &disc).network("gen", |x: &T| x.neg());
/// # let _ = outputs;
/// ```
pub fn network<T, F: Fn(&T) -> Result<T>>(function: F) -> F {
    function
}

/// One named input.
#[derive(Clone)]
#[non_exhaustive]
pub enum Item<'a, T> {
    /// A tensor.
    Tensor(T),
    /// Several tensors: feature maps, scores at several scales.
    Tensors(Vec<T>),
    /// A network.
    Network(Rc<Network<'a, T>>),
    /// A number, such as `iteration`.
    Number(f64),
    /// A switch, such as `target_is_real`.
    Flag(bool),
    /// A word, such as `model`.
    Text(String),
    /// Rows of token ids.
    Tokens(Vec<Vec<u32>>),
    /// The processes that train together.
    Processes(Processes<'a, T>),
}

impl<T> Item<'_, T> {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Item::Tensor(_) => "a tensor",
            Item::Tensors(_) => "several tensors",
            Item::Network(_) => "a network",
            Item::Number(_) => "a number",
            Item::Flag(_) => "a switch",
            Item::Text(_) => "a word",
            Item::Tokens(_) => "tokens",
            Item::Processes(_) => "processes",
        }
    }
}

impl<T> fmt::Debug for Item<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// Inputs by name: a training step's outputs, or a loss's arguments.
#[derive(Clone, Debug)]
pub struct Inputs<'a, T> {
    items: BTreeMap<String, Item<'a, T>>,
    picked: bool,
}

impl<T> Default for Inputs<'_, T> {
    fn default() -> Self {
        Inputs { items: BTreeMap::new(), picked: false }
    }
}

impl<'a, T> Inputs<'a, T> {
    /// No inputs yet.
    pub fn new() -> Self {
        Inputs::default()
    }

    /// Adds or replaces one.
    pub fn insert(&mut self, name: impl Into<String>, item: Item<'a, T>) {
        self.items.insert(name.into(), item);
    }

    /// Adds a tensor.
    #[must_use]
    pub fn tensor(mut self, name: impl Into<String>, tensor: T) -> Self {
        self.insert(name, Item::Tensor(tensor));
        self
    }

    /// Adds several tensors under one name.
    #[must_use]
    pub fn tensors(mut self, name: impl Into<String>, tensors: Vec<T>) -> Self {
        self.insert(name, Item::Tensors(tensors));
        self
    }

    /// Adds a network, by value or by reference.
    #[must_use]
    pub fn network(mut self, name: impl Into<String>, network: impl Fn(&T) -> Result<T> + 'a) -> Self {
        self.insert(name, Item::Network(Rc::new(network)));
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, name: impl Into<String>, number: f64) -> Self {
        self.insert(name, Item::Number(number));
        self
    }

    /// Adds a switch.
    #[must_use]
    pub fn flag(mut self, name: impl Into<String>, flag: bool) -> Self {
        self.insert(name, Item::Flag(flag));
        self
    }

    /// Adds a word.
    #[must_use]
    pub fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.insert(name, Item::Text(text.into()));
        self
    }

    /// Adds rows of token ids.
    #[must_use]
    pub fn tokens(mut self, name: impl Into<String>, tokens: Vec<Vec<u32>>) -> Self {
        self.insert(name, Item::Tokens(tokens));
        self
    }

    /// No arguments yet, to be picked from a training step's outputs.
    pub fn picking() -> Self {
        Inputs { items: BTreeMap::new(), picked: true }
    }

    /// Whether these are a loss's arguments that `data_info` picked from a training step's outputs; otherwise the loss
    /// is called directly.
    pub fn picked(&self) -> bool {
        self.picked
    }

    /// The item of that name.
    pub fn get(&self, name: &str) -> Option<&Item<'a, T>> {
        self.items.get(name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.items.keys().map(String::as_str)
    }

    fn required<'s, R>(
        &'s self,
        operation: &'static str,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'s Item<'a, T>) -> Option<R>,
    ) -> Result<R> {
        let item = self.get(name).ok_or_else(|| Error::MissingInput {
            operation,
            argument: name.to_owned(),
            hint: format!(": it takes {expected}"),
        })?;
        read(item).ok_or_else(|| Error::MissingInput {
            operation,
            argument: name.to_owned(),
            hint: format!(": it takes {expected}, but was given {}", item.kind()),
        })
    }

    fn optional<'s, R>(&'s self, name: &str, read: impl FnOnce(&'s Self) -> Result<R>) -> Result<Option<R>> {
        if self.items.contains_key(name) { read(self).map(Some) } else { Ok(None) }
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where it is absent or not a tensor.
    pub fn get_tensor(&self, operation: &'static str, name: &str) -> Result<&T> {
        self.required(operation, name, "a tensor", |item| match item {
            Item::Tensor(tensor) => Some(tensor),
            _ => None,
        })
    }

    /// The tensor of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where the item is not a tensor.
    pub fn get_tensor_if_any(&self, operation: &'static str, name: &str) -> Result<Option<&T>> {
        self.optional(name, |inputs| inputs.get_tensor(operation, name))
    }

    /// The tensors of that name; one tensor counts as a list of one.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where they are absent or not tensors.
    pub fn get_tensors(&self, operation: &'static str, name: &str) -> Result<Vec<&T>> {
        self.required(operation, name, "tensors", |item| match item {
            Item::Tensor(tensor) => Some(vec![tensor]),
            Item::Tensors(tensors) => Some(tensors.iter().collect()),
            _ => None,
        })
    }

    /// The network of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where it is absent or not a network.
    pub fn get_network(&self, operation: &'static str, name: &str) -> Result<&Network<'a, T>> {
        self.required(operation, name, "a network", |item| match item {
            Item::Network(network) => Some(&**network),
            _ => None,
        })
    }

    /// The number of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where it is absent or not a number.
    pub fn get_number(&self, operation: &'static str, name: &str) -> Result<f64> {
        self.required(operation, name, "a number", |item| match item {
            Item::Number(number) => Some(*number),
            _ => None,
        })
    }

    /// The number of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where the item is not a number.
    pub fn get_number_if_any(&self, operation: &'static str, name: &str) -> Result<Option<f64>> {
        self.optional(name, |inputs| inputs.get_number(operation, name))
    }

    /// The switch of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where it is absent or not a switch.
    pub fn get_flag(&self, operation: &'static str, name: &str) -> Result<bool> {
        self.required(operation, name, "a switch", |item| match item {
            Item::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// The switch of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where the item is not a switch.
    pub fn get_flag_if_any(&self, operation: &'static str, name: &str) -> Result<Option<bool>> {
        self.optional(name, |inputs| inputs.get_flag(operation, name))
    }

    /// The word of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where it is absent or not a word.
    pub fn get_text(&self, operation: &'static str, name: &str) -> Result<&str> {
        self.required(operation, name, "a word", |item| match item {
            Item::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The processes of that name, if there are any.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where the item is something else.
    pub fn get_processes_if_any(&self, operation: &'static str, name: &str) -> Result<Option<&Processes<'a, T>>> {
        self.optional(name, |inputs| {
            inputs.required(operation, name, "processes", |item| match item {
                Item::Processes(processes) => Some(processes),
                _ => None,
            })
        })
    }

    /// The tokens of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where they are absent or not tokens.
    pub fn get_tokens(&self, operation: &'static str, name: &str) -> Result<&[Vec<u32>]> {
        self.required(operation, name, "tokens", |item| match item {
            Item::Tokens(tokens) => Some(tokens.as_slice()),
            _ => None,
        })
    }
}

/// What a loss gives back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome<T> {
    /// One value: a number, or a map where nothing is reduced.
    Value(T),
    /// Several values by name; the ones that are not part of the loss itself (a moving average) among them.
    Values(Vec<(&'static str, T)>),
    /// Values (a single one has the empty name), and tensors whose values the loss needs in later calls.
    Carrying {
        /// The values by name.
        values: Vec<(&'static str, T)>,
        /// What to hand to [`Configurable::remember`](super::Configurable::remember) once it is evaluated.
        state: Vec<(&'static str, T)>,
    },
    /// The loss does not act in this iteration.
    Skipped,
}

impl<T> Outcome<T> {
    /// The same with every tensor as another type.
    pub fn map<U>(self, mut wrap: impl FnMut(T) -> U) -> Outcome<U> {
        let mut all = |named: Vec<(&'static str, T)>| named.into_iter().map(|(name, t)| (name, wrap(t))).collect();
        match self {
            Outcome::Values(values) => Outcome::Values(all(values)),
            Outcome::Carrying { values, state } => Outcome::Carrying { values: all(values), state: all(state) },
            Outcome::Skipped => Outcome::Skipped,
            Outcome::Value(value) => Outcome::Value(wrap(value)),
        }
    }

    /// The same values with tensors that the loss needs in later calls.
    #[must_use]
    pub fn carrying(self, mut more: Vec<(&'static str, T)>) -> Self {
        let (values, mut state) = self.into_parts();
        state.append(&mut more);
        Outcome::Carrying { values, state }
    }

    /// The values by name (a single one has the empty name; none where the loss is skipped), and the state to carry.
    #[allow(clippy::type_complexity)]
    pub fn into_parts(self) -> (Vec<(&'static str, T)>, Vec<(&'static str, T)>) {
        match self {
            Outcome::Value(value) => (vec![("", value)], Vec::new()),
            Outcome::Values(values) => (values, Vec::new()),
            Outcome::Carrying { values, state } => (values, state),
            Outcome::Skipped => (Vec::new(), Vec::new()),
        }
    }
}
