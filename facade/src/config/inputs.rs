//! What a loss is given by name, and what it gives back.

use std::collections::BTreeMap;
use std::fmt;

use image_losses_core::{Error, Result};

/// A network: a function from tensor to tensor.
pub type Network<'a, T> = &'a dyn Fn(&T) -> Result<T>;

/// One named input.
#[derive(Clone)]
#[non_exhaustive]
pub enum Item<'a, T> {
    /// A tensor.
    Tensor(T),
    /// Several tensors: feature maps, scores at several scales.
    Tensors(Vec<T>),
    /// A network.
    Network(Network<'a, T>),
    /// A number, such as `iteration`.
    Number(f64),
    /// A switch, such as `target_is_real`.
    Flag(bool),
    /// A word, such as `model`.
    Text(String),
    /// Rows of token ids.
    Tokens(Vec<Vec<u32>>),
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
}

impl<T> Default for Inputs<'_, T> {
    fn default() -> Self {
        Inputs { items: BTreeMap::new() }
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

    /// Adds a network.
    #[must_use]
    pub fn network(mut self, name: impl Into<String>, network: Network<'a, T>) -> Self {
        self.insert(name, Item::Network(network));
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

    fn optional<R>(
        &self,
        operation: &'static str,
        name: &str,
        read: impl FnOnce(&Self) -> Result<R>,
    ) -> Result<Option<R>> {
        let _ = operation;
        if self.items.contains_key(name) { read(self).map(Some) } else { Ok(None) }
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where it is absent or no tensor.
    pub fn get_tensor(&self, operation: &'static str, name: &str) -> Result<&T> {
        self.required(operation, name, "a tensor", |item| match item {
            Item::Tensor(tensor) => Some(tensor),
            _ => None,
        })
    }

    /// The tensor of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where the item is no tensor.
    pub fn get_tensor_if_any(&self, operation: &'static str, name: &str) -> Result<Option<&T>> {
        if self.items.contains_key(name) { self.get_tensor(operation, name).map(Some) } else { Ok(None) }
    }

    /// The tensors of that name; one tensor counts as a list of one.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where they are absent or no tensors.
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
    /// [`Error::MissingInput`] where it is absent or no network.
    pub fn get_network(&self, operation: &'static str, name: &str) -> Result<Network<'a, T>> {
        self.required(operation, name, "a network", |item| match item {
            Item::Network(network) => Some(*network),
            _ => None,
        })
    }

    /// The number of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where it is absent or no number.
    pub fn get_number(&self, operation: &'static str, name: &str) -> Result<f64> {
        self.required(operation, name, "a number", |item| match item {
            Item::Number(number) => Some(*number),
            _ => None,
        })
    }

    /// The number of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where the item is no number.
    pub fn get_number_if_any(&self, operation: &'static str, name: &str) -> Result<Option<f64>> {
        self.optional(operation, name, |inputs| inputs.get_number(operation, name))
    }

    /// The switch of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where it is absent or no switch.
    pub fn get_flag(&self, operation: &'static str, name: &str) -> Result<bool> {
        self.required(operation, name, "a switch", |item| match item {
            Item::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// The switch of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where the item is no switch.
    pub fn get_flag_if_any(&self, operation: &'static str, name: &str) -> Result<Option<bool>> {
        self.optional(operation, name, |inputs| inputs.get_flag(operation, name))
    }

    /// The word of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where it is absent or no word.
    pub fn get_text(&self, operation: &'static str, name: &str) -> Result<&str> {
        self.required(operation, name, "a word", |item| match item {
            Item::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The tokens of that name.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where they are absent or no tokens.
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
    /// The loss does not act in this iteration.
    Skipped,
}
