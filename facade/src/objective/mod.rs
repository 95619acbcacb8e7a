//! Objectives: what a training step minimises, made of configured losses.
//!
//! An [`Objective`] has the terms of a discriminator's and of a generator's step ([`Side`]); where there is no adversary,
//! all are the generator's. It is built from data:
//!
//! | document | objective |
//! |---|---|
//! | `gan_loss`, `disc_auxiliary_loss`, `gen_auxiliary_loss` | adversarial with auxiliary losses ([`Objective::gan`]) |
//! | a model's mapping: its `type` and its losses | that model's ([`Objective::model`]) |
//! | a model's `type` and `loss_config` | that model's: [`StyleGan2Config`], [`WganGpConfig`], [`CycleGanConfig`], [`Pix2PixConfig`] |
//! | {name: loss, …} or a list of losses | their sum ([`Objective::sum`]) |
//! | a loss | it alone ([`Objective::sum`]) |
//!
//! A loss that is null is off, everywhere. What MMagic's models train with is a table in the code, printed by
//! [`model_table`] and in `docs/from-mmagic.md`.
//!
//! [`evaluate`](Objective::evaluate) picks each loss's inputs from the step's outputs and gives a [`Step`] of tensors:
//! every term whose name contains `loss` counts in the total, others are only logged (in a sum none of whose names contains
//! `loss`, all count); terms that share a name are added; a map counts by its mean. [`finish`](Objective::finish) takes the values, hands the losses what they are to
//! remember, and gives a [`Report`].
//!
//! ```
//! use image_losses::config::{BuildContext, Inputs, Registry};
//! use image_losses::ndarray::NdTensor;
//! use image_losses::objective::{Objective, Side};
//! use ndarray::array;
//!
//! let document = serde_json::json!({
//!     "loss_pixel": {"type": "L1Loss", "loss_weight": 2.0, "data_info": {"pred": "fake_imgs", "target": "real_imgs"}},
//!     "loss_tv": {"type": "tv_loss", "data_info": {"input": "fake_imgs"}, "interval": 2},
//! });
//! let mut objective = Objective::sum(&Registry::standard(), &document, "losses", &BuildContext::default())?;
//! let outputs = Inputs::new()
//!     .tensor("fake_imgs", NdTensor::new(array![[[[1.0f64, 1.0]]]]).into())
//!     .tensor("real_imgs", NdTensor::new(array![[[[1.0f64, 2.0]]]]).into())
//!     .number("iteration", 1.0);
//! let step = objective.evaluate(Side::Generator, &outputs)?;
//! let report = objective.finish(&step, &step.values()?)?;
//! assert_eq!(report.to_string(), "total 1.000000, loss_pixel 1.000000 (weight 2), skipped loss_tv");
//! # Ok::<(), image_losses::Error>(())
//! ```
// Without an engine there is no tensor.
#![cfg_attr(
    not(any(feature = "ndarray", feature = "autograd", feature = "tch")),
    allow(unused_variables, unreachable_code)
)]

mod models;
mod report;
mod rows;
mod table;
mod typed;

use std::borrow::Cow;

pub use image_losses_core::Side;
use image_losses_core::{Error, Result, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use models::{CycleGanConfig, Model, Pix2PixConfig, StyleGan2Config, WganGpConfig};
pub(crate) use report::CarriedTensor;
pub use report::{Report, Step, StepTerm, Term};
pub use rows::model_table;
pub use typed::{Descended, EngineTensor, IntoLoss, ObjectiveBuilder, Outputs};
#[doc(hidden)]
pub use typed::{Erased, kind};

use crate::AnyTensor;
use crate::config::fields::{join, read_options, refuse, unknown};
use crate::config::names::{own_name, own_name_at};
use crate::config::{
    Argument, BuildContext, Carried, Component, Entry, Inputs, Item, Kind, Registry, check_offered, seed_at,
};

/// Where an argument of a part comes from.
#[derive(Clone, Debug)]
enum Source {
    /// An output of the training step.
    Output { name: String, required: bool },
    /// A switch.
    Flag(bool),
    /// A word.
    Text(&'static str),
    /// A tensor made of outputs.
    Made(Made),
    /// The value of an earlier term of the same step.
    Term(String),
}

/// A tensor made of outputs of the training step, which are named.
#[derive(Clone, Debug)]
enum Made {
    /// 1 − the output.
    OneMinus(String),
    /// Scores minus the mean of others.
    LessMean { scores: String, others: String, is_constant: bool },
    /// Images in [−1, 1] as VGG takes them.
    ImageNet(String),
    /// What a network says of images.
    Scores { critic: String, images: String, is_constant: bool },
}

impl Made {
    fn outputs(&self) -> Vec<(&str, Kind)> {
        match self {
            Made::OneMinus(name) | Made::ImageNet(name) => vec![(name, Kind::Tensor)],
            Made::LessMean { scores, others, .. } => vec![(scores, Kind::Tensor), (others, Kind::Tensor)],
            Made::Scores { critic, images, .. } => vec![(critic, Kind::Network), (images, Kind::Tensor)],
        }
    }
}

/// One loss of one side.
#[derive(Clone, Debug)]
struct Part {
    side: Side,
    /// Its position among the objective's losses: a loss of both sides is one, with one state.
    loss: usize,
    /// The name of its term, where the loss's configuration gives none.
    name: Option<String>,
    /// Where the arguments come from; `None`: as the component's configuration says.
    sources: Option<Vec<(&'static str, Source)>>,
    /// The names of the terms where the loss has several values; its other values are no terms.
    values: Vec<(&'static str, String)>,
    /// Multiplies what the loss gives.
    factor: f64,
    /// It counts in the total whatever its name.
    counts: bool,
    /// It may share its name with others.
    shares: bool,
}

/// Something about an objective that is allowed, and may not be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Several losses give terms of one name, which are added, and not all of them are configured with that name.
    SharedName {
        /// The name.
        name: String,
        /// The losses' places in the document.
        paths: Vec<String>,
    },
    /// A field that says where a network is computed. The tensors given say so.
    PassedOver {
        /// The field's place in the document.
        path: String,
    },
    /// A loss's term has no `loss` in its name: it is logged, and trains nothing.
    NotCounted {
        /// The name.
        name: String,
        /// The loss's place in the document.
        path: String,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::SharedName { name, paths } => {
                write!(f, "{} share the name `{name}`: their terms are added", paths.join(" and "))
            }
            Note::PassedOver { path } => {
                write!(f, "{path} is passed over: a loss is computed where the tensors given lie")
            }
            Note::NotCounted { name, path } => {
                write!(f, "{path}: a term named `{name}` is only logged: a name that counts contains `loss`")
            }
        }
    }
}

/// An output that an objective asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The output's name.
    pub output: String,
    /// What it is.
    pub kind: Kind,
    /// The step fails without it.
    pub required: bool,
    /// The place in the document of the loss that takes it.
    pub path: String,
}

/// What a training step minimises.
#[derive(Clone, Debug)]
pub struct Objective {
    losses: Vec<Component>,
    /// The place of each loss in the objective, under which its state is saved. No two are equal.
    places: Vec<String>,
    parts: Vec<Part>,
    notes: Vec<Note>,
    value: Value,
}

impl Objective {
    /// The objective of a document: a model's, an adversarial one, or a sum of losses, as the
    /// [module](crate::objective) says.
    ///
    /// # Errors
    /// As [`model`](Objective::model), [`gan`](Objective::gan), [`sum`](Objective::sum).
    pub fn build(registry: &Registry, value: &Value, path: &str, context: &BuildContext) -> Result<Self> {
        let Value::Object(map) = value else { return Self::sum(registry, value, path, context) };
        let is_on = |key: &str| map.get(key).is_some_and(|value| !value.is_null());
        let name = map.get("type").and_then(Value::as_str);
        let is_loss = name.is_some_and(|name| registry.get(name).is_some());
        if is_on("loss_config") || (!is_loss && name.is_some_and(is_model)) {
            return Self::model(registry, value, path, context);
        }
        let is_adversarial = is_on("gan_loss") || KEYS[1..].iter().any(|key| is_on(key));
        if !is_loss && is_adversarial && map.contains_key("gan_loss") {
            return Self::gan(registry, value, path, context);
        }
        Self::sum(registry, value, path, context)
    }

    /// The objective of a model's mapping, by its `type`: its losses, or its `loss_config`; its other fields are passed over.
    ///
    /// What a model calls its losses with, and what it names their terms, is in [`model_table`]. A `loss_config` with a
    /// `gan_loss` is read as [`gan`](Objective::gan), whatever the model.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a type that is no known model and for an unknown key, [`Error::MissingKey`] without a
    /// type, [`Error::InvalidOption`] for a value out of range, [`Error::Config`] for a `loss_config` of a model that reads
    /// none, for a model without losses and for a loss that the model cannot call; those of [`Registry::build`].
    pub fn model(registry: &Registry, value: &Value, path: &str, context: &BuildContext) -> Result<Self> {
        let Value::Object(map) = value else { return Err(refuse(path, "a model is a mapping with a `type`")) };
        let place = join(path, "loss_config");
        if let Some(config @ Value::Object(fields)) = map.get("loss_config")
            && fields.contains_key("gan_loss")
        {
            return Self::gan(registry, config, &place, context);
        }
        let name = match map.get("type") {
            Some(Value::String(name)) => name,
            Some(_) => return Err(refuse(&join(path, "type"), "a type is a word")),
            None => return Err(Error::MissingKey { path: path.to_owned(), key: "type".to_owned() }),
        };
        let name = own_name_at(name, &join(path, "type"))?;
        if let Some(model) = Model::of(name) {
            return models::build(model, map, registry, &place, context);
        }
        let config = map.get("loss_config").filter(|config| !config.is_null());
        if models::CONFIGURED.contains(&name) {
            return Self::gan(registry, config.unwrap_or(&Value::Object(Map::new())), &place, context);
        }
        let Some(row) = table::model(name) else {
            return Err(unknown(join(path, "type"), "type", name, model_names()));
        };
        if config.is_some_and(|config| config.as_object().is_none_or(|fields| !fields.is_empty())) {
            return Err(refuse(&place, format!("`{name}` reads no `loss_config`")));
        }
        rows::build(row, value, registry, path, context)
    }

    /// The adversarial objective: `gan_loss`, and `disc_auxiliary_loss` and `gen_auxiliary_loss`, each a loss or a list.
    ///
    /// The `gan_loss` takes scores (`input`) with `target_is_real` and `is_disc`, as `GANLoss` does, and gives
    /// `loss_disc_fake` of the output `disc_pred_fake`, `loss_disc_real` of `disc_pred_real` and `loss_gen` of
    /// `disc_pred_fake_g`, with the output `mask` where there is one. Or it takes both kinds of scores or images (`fake`,
    /// `real`) with the step's name (`model`), as `RelativisticPairingLoss` and `AdvLoss` do, and gives `loss_disc` and
    /// `loss_gen`: of the same outputs (the generator's step has `disc_pred_real_g`), or of `fake_imgs`, `real_imgs` and
    /// the network `disc`. Auxiliary losses take what their `data_info` says. Any other key with a loss is the generator's,
    /// as in a [`sum`](Objective::sum).
    ///
    /// # Errors
    /// [`Error::MissingKey`] without a `gan_loss`, [`Error::UnknownName`] for another key, [`Error::Config`] for a
    /// `gan_loss` that takes neither, and those of [`Registry::build`].
    pub fn gan(registry: &Registry, value: &Value, path: &str, context: &BuildContext) -> Result<Self> {
        let Value::Object(map) = value else { return Err(refuse(path, "an objective is a mapping")) };
        let is_other = |(key, value): &(&String, &Value)| {
            !KEYS.contains(&key.as_str()) && !value.is_null() && value.get("type").is_none()
        };
        if let Some((key, _)) = map.iter().find(is_other) {
            return Err(unknown(join(path, key), "field", key, KEYS));
        }
        let gan_loss =
            map.get(KEYS[0]).ok_or_else(|| Error::MissingKey { path: path.to_owned(), key: KEYS[0].to_owned() })?;
        let mut parts = Builder::new(registry, path, context);
        let mut normal = Map::new();
        let gan_loss = match gan_loss {
            Value::Null => Value::Null,
            loss => parts.adversarial(loss, &join(path, KEYS[0]))?,
        };
        normal.insert(KEYS[0].to_owned(), gan_loss);
        for (key, side) in [(KEYS[1], Side::Discriminator), (KEYS[2], Side::Generator)] {
            let place = join(path, key);
            let values = match map.get(key) {
                None | Some(Value::Null) => continue,
                Some(Value::Array(losses)) => parts.listed(side, losses, &place)?,
                Some(loss) => parts.configured(side, loss, place, None)?,
            };
            normal.insert(key.to_owned(), values);
        }
        for (key, loss) in map.iter().filter(|(key, loss)| !KEYS.contains(&key.as_str()) && !loss.is_null()) {
            let value = parts.configured(Side::Generator, loss, join(path, key), Some(key))?;
            normal.insert(key.clone(), value);
        }
        parts.finish(Value::Object(normal))
    }

    /// The sum of losses: a mapping {name: loss, …}, whose keys name the terms where the losses do not, a list, or one loss.
    ///
    /// A loss without a `data_info` takes the outputs of its arguments' names. Where no term has a name that contains
    /// `loss`, all of them count: a name that the user chose says nothing of that.
    ///
    /// # Errors
    /// [`Error::Config`] where it is neither or has no loss that is on, and those of [`Registry::build`].
    pub fn sum(registry: &Registry, value: &Value, path: &str, context: &BuildContext) -> Result<Self> {
        let mut parts = Builder::new(registry, path, context);
        let value = match value {
            Value::Object(map) if map.contains_key("type") => {
                if let Some(Value::String(name)) = map.get("type")
                    && registry.get(name).is_none()
                {
                    let place = join(path, "type");
                    let name = own_name_at(name, &place)?;
                    let known = registry.types().map(Entry::name).chain(model_names());
                    return Err(unknown(place, "type", name, known));
                }
                parts.configured(Side::Generator, value, path.to_owned(), None)?
            }
            Value::Object(map) if map.values().any(|loss| loss.is_null() || loss.is_object()) => {
                let added = map.iter().filter(|(_, loss)| !loss.is_null()).map(|(key, loss)| {
                    let value = parts.configured(Side::Generator, loss, join(path, key), Some(key))?;
                    Ok((key.clone(), value))
                });
                Value::Object(added.collect::<Result<_>>()?)
            }
            Value::Array(list) if !list.is_empty() => parts.listed(Side::Generator, list, path)?,
            _ => {
                let message = "there is no loss: a sum is a mapping {name: loss, …} or a list of losses";
                return Err(refuse(path, message));
            }
        };
        let mut objective = parts.finish(value)?;
        objective.count_all_if_none();
        Ok(objective)
    }

    /// Where no term counts, all do.
    fn count_all_if_none(&mut self) {
        let Objective { losses, parts, notes, .. } = self;
        let mut names = parts.iter().flat_map(|part| part.term_names(&losses[part.loss]));
        if !names.any(|name| name.contains("loss")) {
            parts.iter_mut().for_each(|part| part.counts = true);
            notes.retain(|note| !matches!(note, Note::NotCounted { .. }));
        }
    }

    /// What is allowed and may not be meant.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Its configuration, complete: builds an equal objective.
    pub fn to_value(&self) -> &Value {
        &self.value
    }

    /// The outputs that a side asks for.
    pub fn needs(&self, side: Side) -> Vec<Need> {
        let parts = self.parts.iter().filter(|part| part.side == side);
        parts.flat_map(|part| self.losses.get(part.loss).map(|loss| part.needs(loss)).unwrap_or_default()).collect()
    }

    /// The names of a side's terms, in the order of their losses, without what losses only log; one for each value that a loss
    /// adds.
    pub fn term_names(&self, side: Side) -> Vec<String> {
        let parts = self.parts.iter().filter(|part| part.side == side);
        parts
            .flat_map(|part| self.losses.get(part.loss).map(|loss| part.term_names(loss)).unwrap_or_default())
            .collect()
    }

    /// Evaluates one side at a training step's outputs.
    ///
    /// # Errors
    /// [`Error::MissingInput`] for an output that is not there, the losses' own; each with the loss's place.
    pub fn evaluate<'g>(&mut self, side: Side, outputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Step<'g>> {
        let mut step = Step { total: None, terms: Vec::new(), skipped: Vec::new(), state: Vec::new() };
        for part in self.parts.iter().filter(|part| part.side == side) {
            if let Some(loss) = self.losses.get_mut(part.loss) {
                part.evaluate(loss, outputs, &mut step)?;
            }
        }
        for term in step.terms.iter().filter(|term| term.counts) {
            step.total = Some(match step.total {
                Some(total) => total.add(&term.value)?,
                None => term.value.clone(),
            });
        }
        Ok(step)
    }

    /// Takes the values of a step's [`tensors`](Step::tensors): the losses remember what they carried, and the report
    /// is complete.
    ///
    /// A value that is not finite is reported ([`Report::first_not_finite`]) and not remembered: the losses keep their last
    /// finite values.
    ///
    /// # Errors
    /// As [`Step::report`], and the losses' own.
    pub fn finish(&mut self, step: &Step<'_>, values: &[Vec<f64>]) -> Result<Report> {
        let report = step.report(values)?;
        let values = &values[values.len() - step.state.len()..];
        for (index, loss) in self.losses.iter_mut().enumerate() {
            let own = step.state.iter().zip(values).filter(|(carried, _)| carried.loss == index);
            let carried: Vec<Carried> = own
                .map(|(CarriedTensor { name, value, .. }, values)| Carried {
                    name,
                    values: values.clone(),
                    shape: value.shape(),
                })
                .collect();
            loss.remember(&carried)?;
        }
        Ok(report)
    }

    /// What the losses remember, to be saved with a training's checkpoint: `{place: {"type": …, "state": …}}`, with an
    /// entry for each loss that remembers something.
    ///
    /// The place is that of the loss in the objective's own document (`gan_loss`, `disc_auxiliary_loss.0`, a key of a sum),
    /// the name that the builder was given (`gan_loss` for the adversarial loss), or the name of the term that a model's `loss_config` gives it (`loss_path_regular`). The `type` is the loss's; the
    /// `state` is its [`Component::state`].
    ///
    /// # Errors
    /// [`Error::Config`] where it cannot be serialised.
    pub fn state(&self) -> Result<Value> {
        let mut states = Map::new();
        for (loss, place) in self.losses.iter().zip(&self.places) {
            let state = loss.state()?;
            if !state.is_null() {
                states.insert(place.clone(), json!({"type": loss.type_name(), "state": state}));
            }
        }
        Ok(Value::Object(states))
    }

    /// Goes on from a saved [`state`](Objective::state) of an objective of the same configuration. Where that fails, the
    /// objective stays as it was.
    ///
    /// # Errors
    /// [`Error::Config`] where it is none, or another objective's: with a loss at another place, of another type, one more
    /// or one less; with the place.
    pub fn restore(&mut self, state: Value) -> Result<()> {
        let Value::Object(mut states) = state else {
            return Err(refuse("state", "the state of an objective is a mapping {place: {type, state}}"));
        };
        let mut restored = Vec::new();
        for (index, (loss, place)) in self.losses.iter().zip(&self.places).enumerate() {
            let (name, path) = (loss.type_name(), join("state", place));
            let Some(saved) = states.shift_remove(place) else {
                if loss.state()?.is_null() {
                    continue;
                }
                let message = format!("it is of another objective: there is none of the {name} at this place");
                return Err(refuse(&path, message));
            };
            let Saved { name: saved_name, state } = read_options(saved, &path)?;
            if saved_name != name {
                return Err(refuse(&path, format!("it is of another objective: of {saved_name}, expected of {name}")));
            }
            let mut loss = loss.clone();
            loss.restore(state).map_err(|error| error.at(path))?;
            restored.push((index, loss));
        }
        if let Some(place) = states.keys().next() {
            let message = "it is of another objective: this one has no loss at this place";
            return Err(refuse(&join("state", place), message));
        }
        for (index, loss) in restored {
            self.losses[index] = loss;
        }
        Ok(())
    }
}

/// What a loss remembers, in an objective's state.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    #[serde(rename = "type")]
    name: String,
    state: Value,
}

impl Made {
    /// The tensor, of a training step's outputs.
    fn tensor<'g>(&self, operation: &'static str, outputs: &Inputs<'_, AnyTensor<'g>>) -> Result<AnyTensor<'g>> {
        let output = |name: &str| outputs.get_tensor(operation, name);
        match self {
            Made::OneMinus(name) => output(name)?.affine(-1.0, 1.0),
            Made::LessMean { scores, others, is_constant } => {
                let (scores, others) = (output(scores)?, output(others)?);
                let mean = if *is_constant { others.detach() } else { others.clone() }.mean_all()?;
                let shape = scores.shape();
                scores.sub(&mean.reshape(&vec![1; shape.len()])?.broadcast_to(&shape)?)
            }
            Made::ImageNet(name) => {
                // ImageNet's statistics, for images in [0, 1].
                const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
                const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];
                let images = output(name)?;
                let shape = images.shape();
                if shape.len() < 2 || shape[1] != 3 {
                    let expected = "3 channels".to_owned();
                    return Err(Error::ShapeRule { operation, argument: "images", expected, got: shape });
                }
                let mut per_channel = vec![1; shape.len()];
                per_channel[1] = 3;
                let constant = |values: [f64; 3]| {
                    AnyTensor::constant(&images.context(), &values, &per_channel)?.broadcast_to(&shape)
                };
                let centred = images.affine(0.5, 0.5)?.sub(&constant(MEAN)?)?;
                centred.mul(&constant(DEVIATION.map(f64::recip))?)
            }
            Made::Scores { critic, images, is_constant } => {
                let images = output(images)?;
                let critic = outputs.get_network(operation, critic)?;
                if *is_constant { critic(&images.detach()) } else { critic(images) }
            }
        }
    }
}

impl Part {
    fn needs(&self, loss: &Component) -> Vec<Need> {
        let arguments = loss.arguments();
        let need = |argument: &Argument, output: &str, required: bool| Need {
            output: output.to_owned(),
            kind: argument.kind,
            required,
            path: loss.path().to_owned(),
        };
        let mut needs: Vec<Need> = arguments
            .iter()
            .flat_map(|argument| match (&self.sources, loss.data_info()) {
                (Some(sources), _) => {
                    let own = sources.iter().filter(|(name, _)| *name == argument.name);
                    own.flat_map(|(_, source)| match source {
                        Source::Output { name: output, required } => vec![need(argument, output, *required)],
                        Source::Made(made) => made
                            .outputs()
                            .into_iter()
                            .map(|(output, kind)| Need { kind, ..need(argument, output, true) })
                            .collect(),
                        _ => Vec::new(),
                    })
                    .collect()
                }
                (None, Some(data_info)) => match data_info.get(argument.name) {
                    Some(output) => vec![need(argument, output, true)],
                    None => argument.output.iter().map(|output| need(argument, output, argument.required)).collect(),
                },
                (None, None) => vec![need(argument, argument.name, argument.required)],
            })
            .collect();
        if loss.interval() > 1 {
            needs.push(Need {
                output: "iteration".to_owned(),
                kind: Kind::Number,
                required: true,
                path: loss.path().to_owned(),
            });
        }
        needs
    }

    /// The name of the term that a value becomes, if it becomes one.
    fn term_name(&self, loss: &Component, value: &str) -> Option<String> {
        if let Some((_, name)) = self.values.iter().find(|(known, _)| *known == value) {
            return Some(name.clone());
        }
        let is_dropped = !self.values.is_empty() && !value.is_empty();
        (!is_dropped).then(|| loss.term_name(self.name.as_deref(), value))
    }

    /// The names of the terms of the loss itself, without what it only logs.
    fn term_names(&self, loss: &Component) -> Vec<String> {
        loss.own_values().into_iter().filter_map(|value| self.term_name(loss, value)).collect()
    }

    fn evaluate<'g>(
        &self,
        loss: &mut Component,
        outputs: &Inputs<'_, AnyTensor<'g>>,
        step: &mut Step<'g>,
    ) -> Result<()> {
        if loss.interval() > 1 && outputs.get("iteration").is_none() {
            return Err(loss.missing("interval", "iteration"));
        }
        if !loss.is_due(outputs)? {
            step.skipped.extend(self.term_names(loss));
            return Ok(());
        }
        let picked = match &self.sources {
            None => loss.pick(outputs)?,
            Some(sources) => {
                let mut picked = Inputs::picking();
                for (argument, source) in sources {
                    let item = match source {
                        Source::Flag(flag) => Item::Flag(*flag),
                        Source::Text(text) => Item::Text((*text).to_owned()),
                        Source::Made(made) => {
                            let made = made.tensor(loss.type_name(), outputs).map_err(|error| placed(error, loss))?;
                            Item::Tensor(made)
                        }
                        Source::Term(name) => match step.terms.iter().rfind(|term| term.name == *name) {
                            Some(term) => Item::Tensor(term.value.reshape(&[1, 1])?),
                            None => return Err(loss.missing(argument, name)),
                        },
                        Source::Output { name, required } => match (outputs.get(name), required) {
                            (Some(item), _) => item.clone(),
                            (None, false) => continue,
                            (None, true) => return Err(loss.missing(argument, name)),
                        },
                    };
                    picked.insert(*argument, item);
                }
                Cow::Owned(picked)
            }
        };
        let outcome = loss.evaluate_picked(&picked);
        let (values, state) = outcome.map_err(|error| placed(error, loss))?.into_parts();
        for (value_name, value) in values {
            let Some(name) = self.term_name(loss, value_name) else { continue };
            let wide = value.accumulator()?;
            let mut value = wide.mean_all()?;
            if self.factor != 1.0 {
                value = value.scale(self.factor)?;
            }
            let counts = name.contains("loss") || (self.counts && loss.is_own(value_name));
            let weight = self.factor * loss.weight(value_name, &picked).map_err(|error| placed(error, loss))?;
            step.terms.push(StepTerm { name, weight, value, counts });
        }
        let term = self.term_names(loss).into_iter().next().unwrap_or_default();
        let carried =
            state.into_iter().map(|(name, value)| CarriedTensor { loss: self.loss, term: term.clone(), name, value });
        step.state.extend(carried);
        Ok(())
    }
}

/// The error with the loss's place, once.
fn placed(error: Error, loss: &Component) -> Error {
    match error {
        Error::At { .. } => error,
        error => error.at(loss.path()),
    }
}

/// Collects the parts of an objective.
struct Builder<'a> {
    registry: &'a Registry,
    context: &'a BuildContext,
    path: String,
    losses: Vec<Component>,
    places: Vec<String>,
    parts: Vec<Part>,
}

impl<'a> Builder<'a> {
    fn new(registry: &'a Registry, path: &str, context: &'a BuildContext) -> Self {
        Builder { registry, context, path: path.to_owned(), losses: Vec::new(), places: Vec::new(), parts: Vec::new() }
    }

    fn path(&self) -> &str {
        &self.path
    }

    /// A loss as it is configured.
    fn configured(&mut self, side: Side, loss: &Value, place: String, name: Option<&str>) -> Result<Value> {
        let loss = self.registry.build(loss, &place, self.context)?;
        self.built(side, loss, place, name, false)
    }

    /// A loss that is built; its configuration.
    fn built(&mut self, side: Side, loss: Component, place: String, name: Option<&str>, counts: bool) -> Result<Value> {
        let value = loss.to_value()?;
        let (name, shares) = (name.map(str::to_owned), loss.is_named());
        let (values, sources, factor) = (Vec::new(), None, 1.0);
        let part = Part { side, loss: self.losses.len(), name, values, sources, factor, counts, shares };
        if loss.data_info().is_none() {
            // Nothing says what it takes but its arguments' names.
            for need in part.needs(&loss).iter().filter(|need| need.required) {
                check_offered(&place, &need.output, self.context)?;
            }
        }
        self.hold(loss, self.relative(&place).to_owned());
        self.parts.push(part);
        Ok(value)
    }

    /// The losses of a list as they are configured. One that is off keeps its place.
    fn listed(&mut self, side: Side, losses: &[Value], path: &str) -> Result<Value> {
        let added = losses.iter().enumerate().map(|(i, loss)| match loss {
            Value::Null => Ok(Value::Null),
            loss => self.configured(side, loss, join(path, &i.to_string()), None),
        });
        Ok(Value::Array(added.collect::<Result<_>>()?))
    }

    /// A loss of the objective's own, under this name, with these arguments and this factor.
    fn add(
        &mut self,
        side: Side,
        name: &str,
        loss: &Value,
        sources: Vec<(&'static str, Source)>,
        factor: f64,
    ) -> Result<()> {
        // The losses of a `loss_config` share their path: their terms' names are their places.
        let numbered = (1..).map(|number: usize| join(name, &number.to_string()));
        let mut places = std::iter::once(name.to_owned()).chain(numbered);
        let place = places.find(|place| !self.places.contains(place)).unwrap_or_default();
        let context = BuildContext { draws: seed_at(self.context.draws, &place), ..self.context.clone() };
        let loss = self.registry.build(loss, &self.path, &context)?;
        self.hold(loss, place);
        self.push(side, name, sources, factor)
    }

    /// A loss at `path` in the document, with its place in the objective; its index.
    fn hold_at(&mut self, loss: &Value, path: &str, place: String) -> Result<usize> {
        // Copies of a loss draw independently.
        let context = BuildContext { draws: seed_at(self.context.draws, &place), ..self.context.clone() };
        let loss = self.registry.build(loss, path, &context)?;
        self.hold(loss, place);
        Ok(self.losses.len() - 1)
    }

    /// Adds a loss with its place in the objective.
    fn hold(&mut self, loss: Component, place: String) {
        self.losses.push(loss);
        self.places.push(place);
    }

    /// A place in the objective's own document, of one in the whole.
    fn relative<'p>(&self, place: &'p str) -> &'p str {
        let below = place.strip_prefix(self.path.as_str()).and_then(|below| below.strip_prefix('.'));
        if self.path.is_empty() { place } else { below.unwrap_or(place) }
    }

    /// A part of the last loss.
    fn push(&mut self, side: Side, name: &str, sources: Vec<(&'static str, Source)>, factor: f64) -> Result<()> {
        let loss = self.losses.len().saturating_sub(1);
        let (name, values, sources, counts) = (Some(name.to_owned()), Vec::new(), Some(sources), false);
        self.push_part(Part { side, loss, name, values, sources, factor, counts, shares: true })
    }

    /// Adds a part whose sources are known.
    fn push_part(&mut self, part: Part) -> Result<()> {
        let Some(loss) = self.losses.get(part.loss) else { return Ok(()) };
        for (_, source) in part.sources.iter().flatten() {
            let outputs = match source {
                Source::Output { name, required: true } => vec![name.as_str()],
                Source::Made(made) => made.outputs().into_iter().map(|(name, _)| name).collect(),
                _ => Vec::new(),
            };
            for output in outputs {
                check_offered(loss.path(), output, self.context)?;
            }
        }
        if loss.interval() > 1 {
            check_offered(loss.path(), "iteration", self.context)?;
        }
        self.parts.push(part);
        Ok(())
    }

    /// The parts of the adversarial loss at `place`.
    fn adversarial(&mut self, loss: &Value, place: &str) -> Result<Value> {
        let loss = self.registry.build(loss, place, self.context)?;
        self.adversarial_built(loss, place, None)
    }

    /// The parts of an adversarial loss that is built. With the names of the critic, of the generated and of the real images
    /// it makes its scores itself.
    fn adversarial_built(&mut self, loss: Component, place: &str, made_of: Option<[&str; 3]>) -> Result<Value> {
        let value = loss.to_value()?;
        for (given, field) in [(loss.data_info().is_some(), "data_info"), (loss.is_named(), "loss_name")] {
            if given {
                return Err(refuse(&join(place, field), "the objective says what a `gan_loss` takes and gives"));
            }
        }
        let takes = |name: &str| loss.arguments().iter().any(|argument| argument.name == name);
        let named = |name: &str| Source::Output { name: name.to_owned(), required: true };
        let optional = |name: &str| Source::Output { name: name.to_owned(), required: false };
        let scored = |name: &str| match made_of {
            None => named(name),
            Some([critic, fake, real]) => {
                let images = if name.starts_with("disc_pred_fake") { fake } else { real };
                // The discriminator's step says nothing to the generator.
                let is_constant = name == "disc_pred_fake";
                Source::Made(Made::Scores { critic: critic.to_owned(), images: images.to_owned(), is_constant })
            }
        };
        let [critic, fake_images, real_images] = made_of.unwrap_or(["disc", "fake_imgs", "real_imgs"]);
        let mut parts = Vec::new();
        if takes("input") && takes("target_is_real") && takes("is_disc") {
            let roles = [
                (Side::Discriminator, "loss_disc_fake", "disc_pred_fake", false),
                (Side::Discriminator, "loss_disc_real", "disc_pred_real", true),
                (Side::Generator, "loss_gen", "disc_pred_fake_g", true),
            ];
            for (side, name, scores, real) in roles {
                let mut sources = vec![
                    ("input", scored(scores)),
                    ("target_is_real", Source::Flag(real)),
                    ("is_disc", Source::Flag(side == Side::Discriminator)),
                ];
                if let Some(mask) = loss.arguments().iter().find(|argument| argument.name == "mask") {
                    sources.push(("mask", Source::Output { name: "mask".to_owned(), required: mask.required }));
                }
                parts.push((side, name, sources));
            }
        } else if takes("fake") && takes("real") && takes("model") {
            let networked = takes("net");
            for (side, name, model, scores) in [
                (Side::Discriminator, "loss_disc", "discriminator", ["disc_pred_fake", "disc_pred_real"]),
                (Side::Generator, "loss_gen", "generator", ["disc_pred_fake_g", "disc_pred_real_g"]),
            ] {
                let [fake, real] =
                    if networked { [named(fake_images), named(real_images)] } else { scores.map(scored) };
                let mut sources = vec![("fake", fake), ("real", real), ("model", Source::Text(model))];
                if networked {
                    sources.push(("net", named(critic)));
                }
                if takes("alpha") {
                    sources.push(("alpha", optional("alpha")));
                }
                parts.push((side, name, sources));
            }
        } else {
            let message = "a `gan_loss` takes `input`, `target_is_real` and `is_disc`, or `fake`, `real` and `model`";
            return Err(refuse(place, message));
        }
        // A model's own `gan_loss` stands nowhere in its document.
        let place = if place == self.path { "gan_loss" } else { self.relative(place) };
        self.hold(loss, place.to_owned());
        for (side, name, sources) in parts {
            self.push(side, name, sources, 1.0)?;
        }
        Ok(value)
    }

    fn finish(self, value: Value) -> Result<Objective> {
        let Builder { losses, places, parts, path, .. } = self;
        if parts.is_empty() {
            return Err(refuse(&path, "there is no loss: all are null or missing"));
        }
        let mut notes: Vec<Note> = losses.iter().flat_map(|loss| loss.notes().iter().cloned()).collect();
        let mut named: Vec<(Side, String, Vec<&Part>)> = Vec::new();
        for part in &parts {
            for name in part.term_names(&losses[part.loss]) {
                if !name.contains("loss") && !part.counts {
                    let path = losses[part.loss].path().to_owned();
                    notes.push(Note::NotCounted { name: name.clone(), path });
                }
                match named.iter_mut().find(|(side, known, _)| *side == part.side && *known == name) {
                    Some((_, _, parts)) => parts.push(part),
                    None => named.push((part.side, name, vec![part])),
                }
            }
        }
        for (_, name, sharing) in named {
            if sharing.len() > 1 && !sharing.iter().all(|part| part.shares) {
                let paths = sharing.iter().map(|part| losses[part.loss].path().to_owned()).collect();
                notes.push(Note::SharedName { name, paths });
            }
        }
        Ok(Objective { losses, places, parts, notes, value })
    }
}

/// The keys of an adversarial objective.
const KEYS: [&str; 3] = ["gan_loss", "disc_auxiliary_loss", "gen_auxiliary_loss"];

/// The `type`s of all known models.
fn model_names() -> impl Iterator<Item = &'static str> {
    let rows = table::MODELS.iter().flat_map(|row| row.types.iter().copied());
    Model::TYPES.into_iter().chain(models::CONFIGURED).chain(rows)
}

/// Whether a `type` is that of a known model with a `loss_config`.
pub(crate) fn is_configured(name: &str) -> bool {
    own_name(name).is_ok_and(|name| Model::of(name).is_some() || models::CONFIGURED.contains(&name))
}

/// Whether a model of this `type` has losses in its code.
pub(crate) fn has_fixed_losses(name: &str) -> bool {
    let in_code = |row: &table::ModelTerms| row.terms.iter().any(|term| matches!(term.loss, table::LossOf::Fixed(_)));
    own_name(name).is_ok_and(|name| Model::of(name).is_some() || table::model(name).is_some_and(in_code))
}

/// Whether a `type` is a known model's.
pub(crate) fn is_model(name: &str) -> bool {
    own_name(name).is_ok_and(|name| model_names().any(|known| known == name))
}

/// The JSON Schema of the documents that [`Objective::build`] takes, given that of a loss.
#[cfg(feature = "schema")]
pub(crate) fn schemas(generator: &mut schemars::SchemaGenerator, loss: &Value) -> Value {
    let off = |loss: &Value| json!({"anyOf": [loss, {"type": "null"}]});
    let losses = json!({"anyOf": [loss, {"type": "null"}, {"type": "array", "items": off(loss)}]});
    // A model's mapping: the fields that hold its losses are known, the others are the model's own.
    let types: Vec<&str> = table::MODELS.iter().flat_map(|row| row.types.iter().copied()).collect();
    let mut fields = json!({"type": {"enum": types}});
    for row in table::MODELS.iter().flat_map(|model| model.terms) {
        match row.loss {
            // A word alone is DeblurGAN-v2's.
            table::LossOf::Field(field @ "disc_loss") => {
                fields[field] = json!({"anyOf": [off(loss), {"type": "string"}]})
            }
            table::LossOf::Field(field) => fields[field] = off(loss),
            _ => {}
        }
    }
    let model = |types: &[&str], config: schemars::Schema| {
        json!({
            "type": "object",
            "properties": {"type": {"enum": types}, "loss_config": config},
            "required": ["type"],
        })
    };
    let style = generator.subschema_for::<StyleGan2Config>();
    let wgan = generator.subschema_for::<WganGpConfig>();
    let cycle = generator.subschema_for::<CycleGanConfig>();
    let pix = generator.subschema_for::<Pix2PixConfig>();
    json!([
        {
            "type": "object",
            "properties": {"gan_loss": off(loss), "disc_auxiliary_loss": losses, "gen_auxiliary_loss": losses},
            "required": ["gan_loss"],
            "additionalProperties": off(loss),
        },
        {"type": "object", "properties": fields, "required": ["type"]},
        model(&Model::TYPES[..3], style),
        model(&["WGANGP"], wgan),
        model(&["CycleGAN"], cycle),
        model(&["Pix2Pix"], pix),
    ])
}
