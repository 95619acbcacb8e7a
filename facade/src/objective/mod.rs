//! Objectives: what a training step minimises, made of configured losses.
//!
//! An [`Objective`] has the terms of a discriminator's and of a generator's step, or of one step where there is one
//! network ([`Side`]). It is built from data:
//!
//! | document | objective |
//! |---|---|
//! | `gan_loss`, `disc_auxiliary_loss`, `gen_auxiliary_loss` | adversarial with auxiliary losses ([`Objective::gan`]) |
//! | a model's `type` and `loss_config` | that model's ([`Objective::model`]): [`StyleGan2Config`], [`WganGpConfig`], [`CycleGanConfig`], [`Pix2PixConfig`] |
//! | {name: loss, …} or a list of losses | their sum ([`Objective::sum`]) |
//!
//! [`evaluate`](Objective::evaluate) picks each loss's inputs from the step's outputs and gives a [`Step`] of tensors:
//! every term whose name contains `loss` counts in the total, others are only logged; terms that share a name are
//! added; a map counts by its mean. [`finish`](Objective::finish) takes the values, hands the losses what they are to
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
//! let step = objective.evaluate(Side::Only, &outputs)?;
//! let report = objective.finish(&step, &step.values()?)?;
//! assert_eq!(report.to_string(), "total 1.000000, loss_pixel 1.000000 (weight 2), skipped loss_tv");
//! # Ok::<(), image_losses::Error>(())
//! ```

mod models;
mod report;

use std::borrow::Cow;

use image_losses_core::{Error, Result, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use models::{CycleGanConfig, Model, Pix2PixConfig, StyleGan2Config, WganGpConfig};
pub(crate) use report::Carried;
pub use report::{Report, Step, StepTerm, Term};

use crate::AnyTensor;
use crate::config::fields::{join, read_options, refuse, unknown};
use crate::config::{Argument, BuildContext, Component, Inputs, Item, Kind, Registry, check_offered, seed_at};

/// Whose step it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The discriminator's.
    Discriminator,
    /// The generator's.
    Generator,
    /// The only one, of an objective without an adversary.
    Only,
}

/// Where an argument of a part comes from.
#[derive(Clone, Debug)]
enum Source {
    /// An output of the training step.
    Output { name: String, required: bool },
    /// A switch.
    Flag(bool),
    /// A word.
    Text(&'static str),
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
    /// Multiplies what the loss gives.
    factor: f64,
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
        match value {
            Value::Object(map) if map.contains_key("loss_config") => Self::model(registry, value, path, context),
            Value::Object(map) if map.get("type").and_then(Value::as_str).is_some_and(|t| Model::of(t).is_some()) => {
                Self::model(registry, value, path, context)
            }
            Value::Object(map) if map.contains_key("gan_loss") => Self::gan(registry, value, path, context),
            _ => Self::sum(registry, value, path, context),
        }
    }

    /// The objective of a model's mapping, by its `type` and its `loss_config`; its other fields are passed over.
    ///
    /// A `loss_config` with a `gan_loss` is read as [`gan`](Objective::gan), whatever the model.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a type that is no known model and for an unknown key, [`Error::MissingKey`] without a
    /// type, [`Error::InvalidOption`] for a value out of range.
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
        let model = Model::of(name).ok_or_else(|| unknown(join(path, "type"), "type", name, Model::TYPES))?;
        models::build(model, map, registry, &place, context)
    }

    /// The adversarial objective: `gan_loss`, and `disc_auxiliary_loss` and `gen_auxiliary_loss`, each a loss or a list.
    ///
    /// The `gan_loss` takes scores (`input`) with `target_is_real` and `is_disc`, as `GANLoss` does, and gives
    /// `loss_disc_fake` of the output `disc_pred_fake`, `loss_disc_real` of `disc_pred_real` and `loss_gen` of
    /// `disc_pred_fake_g`, with the output `mask` where there is one. Or it takes both kinds of scores or images (`fake`,
    /// `real`) with the step's name (`model`), as `RelativisticPairingLoss` and `AdvLoss` do, and gives `loss_disc` and
    /// `loss_gen`: of the same outputs (the generator's step has `disc_pred_real_g`), or of `fake_imgs`, `real_imgs` and
    /// the network `disc`. Auxiliary losses take what their `data_info` says.
    ///
    /// # Errors
    /// [`Error::MissingKey`] without a `gan_loss`, [`Error::UnknownName`] for another key, [`Error::Config`] for a
    /// `gan_loss` that takes neither, and those of [`Registry::build`].
    pub fn gan(registry: &Registry, value: &Value, path: &str, context: &BuildContext) -> Result<Self> {
        const KEYS: [&str; 3] = ["gan_loss", "disc_auxiliary_loss", "gen_auxiliary_loss"];
        let Value::Object(map) = value else { return Err(refuse(path, "an objective is a mapping")) };
        if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(unknown(join(path, key), "field", key, KEYS));
        }
        let gan_loss =
            map.get(KEYS[0]).ok_or_else(|| Error::MissingKey { path: path.to_owned(), key: KEYS[0].to_owned() })?;
        let mut parts = Builder::new(registry, path, context);
        let mut normal = Map::new();
        normal.insert(KEYS[0].to_owned(), parts.adversarial(gan_loss, &join(path, KEYS[0]))?);
        for (key, side) in [(KEYS[1], Side::Discriminator), (KEYS[2], Side::Generator)] {
            let place = join(path, key);
            let values = match map.get(key) {
                None | Some(Value::Null) => continue,
                Some(Value::Array(losses)) => {
                    let listed = losses.iter().enumerate();
                    let added =
                        listed.map(|(i, loss)| parts.configured(side, loss, join(&place, &i.to_string()), None));
                    Value::Array(added.collect::<Result<_>>()?)
                }
                Some(loss) => parts.configured(side, loss, place, None)?,
            };
            normal.insert(key.to_owned(), values);
        }
        Ok(parts.finish(Value::Object(normal)))
    }

    /// The sum of losses: a mapping {name: loss, …}, whose keys name the terms where the losses do not, or a list.
    ///
    /// A loss without a `data_info` takes the outputs of its arguments' names.
    ///
    /// # Errors
    /// [`Error::Config`] where it is neither or empty, and those of [`Registry::build`].
    pub fn sum(registry: &Registry, value: &Value, path: &str, context: &BuildContext) -> Result<Self> {
        let mut parts = Builder::new(registry, path, context);
        let value = match value {
            Value::Object(map) if !map.is_empty() => {
                let added = map.iter().map(|(key, loss)| {
                    let value = parts.configured(Side::Only, loss, join(path, key), Some(key))?;
                    Ok((key.clone(), value))
                });
                Value::Object(added.collect::<Result<_>>()?)
            }
            Value::Array(list) if !list.is_empty() => {
                let added = list
                    .iter()
                    .enumerate()
                    .map(|(i, loss)| parts.configured(Side::Only, loss, join(path, &i.to_string()), None));
                Value::Array(added.collect::<Result<_>>()?)
            }
            _ => return Err(refuse(path, "a sum is a mapping {name: loss, …} or a list of losses")),
        };
        Ok(parts.finish(value))
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
        let carried = &values[values.len() - step.state.len()..];
        for (Carried { loss, name, value, .. }, values) in step.state.iter().zip(carried) {
            if let Some(loss) = self.losses.get_mut(*loss) {
                loss.remember(name, values, &value.shape())?;
            }
        }
        Ok(report)
    }

    /// What the losses remember, to be saved with a training's checkpoint: `{place: {"type": …, "state": …}}`, with an
    /// entry for each loss that remembers something.
    ///
    /// The place is that of the loss in the objective's own document (`gan_loss`, `disc_auxiliary_loss.0`, a key of a sum),
    /// or the name of the term that a model's `loss_config` gives it (`loss_path_regular`). The `type` is the loss's; the
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
            .filter_map(|argument| match (&self.sources, loss.data_info()) {
                (Some(sources), _) => sources.iter().find_map(|(name, source)| match source {
                    Source::Output { name: output, required } if *name == argument.name => {
                        Some(need(argument, output, *required))
                    }
                    _ => None,
                }),
                (None, Some(data_info)) => match data_info.get(argument.name) {
                    Some(output) => Some(need(argument, output, true)),
                    None => argument.output.map(|output| need(argument, output, argument.required)),
                },
                (None, None) => Some(need(argument, argument.name, argument.required)),
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
            step.skipped.extend(loss.term_names(self.name.as_deref()));
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
            let name = loss.term_name(self.name.as_deref(), value_name);
            let wide = value.accumulator()?;
            let mut value = if wide.elements() == 1 { wide } else { wide.mean_all()? }.reshape(&[1])?;
            if self.factor != 1.0 {
                value = value.scale(self.factor)?;
            }
            let counts = name.contains("loss");
            let weight = self.factor * loss.weight(value_name, &picked).map_err(|error| placed(error, loss))?;
            step.terms.push(StepTerm { name, weight, value, counts });
        }
        let term = loss.term_names(self.name.as_deref()).into_iter().next().unwrap_or_default();
        let carried =
            state.into_iter().map(|(name, value)| Carried { loss: self.loss, term: term.clone(), name, value });
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
        let value = loss.to_value()?;
        let (name, shares) = (name.map(str::to_owned), loss.is_named());
        let part = Part { side, loss: self.losses.len(), name, sources: None, factor: 1.0, shares };
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
        let Some(loss) = self.losses.last() else { return Ok(()) };
        for (_, source) in &sources {
            if let Source::Output { name, required: true } = source {
                check_offered(loss.path(), name, self.context)?;
            }
        }
        let (loss, name) = (self.losses.len() - 1, Some(name.to_owned()));
        self.parts.push(Part { side, loss, name, sources: Some(sources), factor, shares: true });
        Ok(())
    }

    /// The parts of the adversarial loss at `place`.
    fn adversarial(&mut self, loss: &Value, place: &str) -> Result<Value> {
        let loss = self.registry.build(loss, place, self.context)?;
        let value = loss.to_value()?;
        for (given, field) in [(loss.data_info().is_some(), "data_info"), (loss.is_named(), "loss_name")] {
            if given {
                return Err(refuse(&join(place, field), "the objective says what a `gan_loss` takes and gives"));
            }
        }
        let takes = |name: &str| loss.arguments().iter().any(|argument| argument.name == name);
        let named = |name: &str| Source::Output { name: name.to_owned(), required: true };
        let optional = |name: &str| Source::Output { name: name.to_owned(), required: false };
        let mut parts = Vec::new();
        if takes("input") && takes("target_is_real") && takes("is_disc") {
            let roles = [
                (Side::Discriminator, "loss_disc_fake", "disc_pred_fake", false),
                (Side::Discriminator, "loss_disc_real", "disc_pred_real", true),
                (Side::Generator, "loss_gen", "disc_pred_fake_g", true),
            ];
            for (side, name, scores, real) in roles {
                let mut sources = vec![
                    ("input", named(scores)),
                    ("target_is_real", Source::Flag(real)),
                    ("is_disc", Source::Flag(side == Side::Discriminator)),
                ];
                if takes("mask") {
                    sources.push(("mask", optional("mask")));
                }
                parts.push((side, name, sources));
            }
        } else if takes("fake") && takes("real") && takes("model") {
            let networked = takes("net");
            for (side, name, model, scores) in [
                (Side::Discriminator, "loss_disc", "discriminator", ["disc_pred_fake", "disc_pred_real"]),
                (Side::Generator, "loss_gen", "generator", ["disc_pred_fake_g", "disc_pred_real_g"]),
            ] {
                let [fake, real] = if networked { ["fake_imgs", "real_imgs"] } else { scores };
                let mut sources = vec![("fake", named(fake)), ("real", named(real)), ("model", Source::Text(model))];
                if networked {
                    sources.push(("net", named("disc")));
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

    fn finish(self, value: Value) -> Objective {
        let Builder { losses, places, parts, .. } = self;
        let mut notes: Vec<Note> = losses.iter().flat_map(|loss| loss.notes().iter().cloned()).collect();
        let mut named: Vec<(Side, String, Vec<&Part>)> = Vec::new();
        for part in &parts {
            for name in losses[part.loss].term_names(part.name.as_deref()) {
                if !name.contains("loss") {
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
        Objective { losses, places, parts, notes, value }
    }
}

/// The JSON Schema of the documents that [`Objective::build`] takes, given that of a loss.
#[cfg(feature = "schema")]
pub(crate) fn schemas(generator: &mut schemars::SchemaGenerator, loss: &Value) -> Value {
    let losses = json!({"anyOf": [loss, {"type": "array", "items": loss}]});
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
            "properties": {"gan_loss": loss, "disc_auxiliary_loss": losses, "gen_auxiliary_loss": losses},
            "required": ["gan_loss"],
            "additionalProperties": false,
        },
        model(&Model::TYPES[..3], style),
        model(&["WGANGP"], wgan),
        model(&["CycleGAN"], cycle),
        model(&["Pix2Pix"], pix),
    ])
}
