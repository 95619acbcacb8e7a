//! A loss built from data, with its place in a training step.

use std::borrow::Cow;
use std::collections::BTreeMap;

use image_losses_core::config::{Argument, Carried, Inputs, Item, Outcome};
use image_losses_core::{Error, Result, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::fields::{join, read_options, refuse, unknown};
use super::registry::{BuildContext, Entry, ErasedLoss, loss_weight};
use crate::AnyTensor;
use crate::objective::{Erased, Note};

/// The fields that every configured loss may have beside its own.
pub(crate) const COMPONENT_FIELDS: [&str; 3] = ["data_info", "loss_name", "interval"];

/// A loss built from data.
///
/// Beside the options of its type, a configuration may give it:
///
/// | field | meaning | default |
/// |---|---|---|
/// | `data_info` | {argument of the loss: name in the training step's outputs} | none: called with its arguments |
/// | `loss_name` | the name of its term | per type: `loss_gp`, `loss_id`, `loss_l1`, … |
/// | `interval` | it acts when `iteration` is a multiple of it | 1 |
#[derive(Debug)]
pub struct Component {
    entry: Entry,
    path: String,
    data_info: Option<BTreeMap<String, String>>,
    loss_name: Option<String>,
    /// The common field; a loss may have an option of that name instead.
    interval: Option<u64>,
    loss: Box<dyn ErasedLoss>,
    notes: Vec<Note>,
}

impl Clone for Component {
    fn clone(&self) -> Self {
        Component {
            entry: self.entry.clone(),
            path: self.path.clone(),
            data_info: self.data_info.clone(),
            loss_name: self.loss_name.clone(),
            interval: self.interval,
            loss: self.loss.boxed_clone(),
            notes: self.notes.clone(),
        }
    }
}

/// The common fields as they are read.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Common {
    data_info: Option<BTreeMap<String, String>>,
    loss_name: Option<String>,
    interval: Option<u64>,
}

impl Component {
    pub(crate) fn build(
        entry: &Entry,
        mut options: Map<String, Value>,
        path: &str,
        context: &BuildContext,
        notes: Vec<Note>,
    ) -> Result<Self> {
        let own = entry.fields();
        let mut common = Map::new();
        for name in COMPONENT_FIELDS {
            if !own.contains(&name)
                && let Some(value) = options.shift_remove(name)
            {
                common.insert(name.to_owned(), value);
            }
        }
        let drawing = BuildContext { draws: seed_at(context.draws, path), ..context.clone() };
        let loss = entry.build_erased(Value::Object(options), path, &drawing).map_err(|error| match error {
            // A slip in a common field's name is as likely as in one of the loss's.
            Error::UnknownName { path: place, kind: "field", name, nearest: None, .. }
                if place == join(path, &name) =>
            {
                unknown(place, "field", &name, COMPONENT_FIELDS)
            }
            error => error,
        })?;
        let Common { data_info, loss_name, interval } = read_options(Value::Object(common), path)?;
        if interval == Some(0) {
            return Err(Error::option(entry.name(), "interval", "at least 1", 0).at(path));
        }
        let (entry, path) = (entry.clone(), path.to_owned());
        let component = Component { entry, path, data_info, loss_name, interval, loss, notes };
        component.check(context)?;
        Ok(component)
    }

    /// A loss of a program, whose arguments are taken from these outputs; the name is its term's.
    pub(crate) fn typed(
        Erased(entry, loss): Erased,
        name: &str,
        takes: Option<Vec<(String, String)>>,
        context: &BuildContext,
    ) -> Result<Self> {
        let data_info = takes.as_ref().filter(|takes| !takes.is_empty()).map(|takes| takes.iter().cloned().collect());
        let loss_name = takes.map(|_| name.to_owned());
        let (path, interval, notes) = (name.to_owned(), None, Vec::new());
        let component = Component { entry, path, data_info, loss_name, interval, loss, notes };
        component.check(context)?;
        Ok(component)
    }

    /// Refuses a `data_info` that names what the loss does not take, lacks what it needs, or asks for outputs that the
    /// step does not offer.
    fn check(&self, context: &BuildContext) -> Result<()> {
        let Some(data_info) = &self.data_info else { return Ok(()) };
        let place = join(&self.path, "data_info");
        let arguments = self.loss.arguments();
        for (argument, output) in data_info {
            if !arguments.iter().any(|known| known.name == argument) {
                let known = arguments.iter().map(|known| known.name);
                return Err(unknown(join(&place, argument), "argument", argument, known));
            }
            check_offered(&join(&place, argument), output, context)?;
        }
        if self.interval() > 1 {
            check_offered(&join(&self.path, "interval"), "iteration", context)?;
        }
        for argument in arguments.iter().filter(|argument| argument.required) {
            if !data_info.contains_key(argument.name) {
                match argument.output {
                    None => return Err(Error::MissingKey { path: place, key: argument.name.to_owned() }),
                    Some(output) => check_offered(&place, output, context)?,
                }
            }
        }
        Ok(())
    }

    /// The `type`.
    pub fn type_name(&self) -> &'static str {
        self.entry.name()
    }

    /// Its place in the document it was built from.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What of its configuration is passed over.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The names of the checkpoints that its networks are read from, as configured or else as published.
    pub fn checkpoints(&self) -> Vec<String> {
        self.loss.checkpoints()
    }

    /// The arguments of its call.
    pub fn arguments(&self) -> Vec<Argument> {
        self.loss.arguments()
    }

    /// Which output each argument is taken from, where the configuration says so.
    pub fn data_info(&self) -> Option<&BTreeMap<String, String>> {
        self.data_info.as_ref()
    }

    /// The name of its term in a training step.
    pub fn loss_name(&self) -> String {
        self.loss_name.clone().unwrap_or_else(|| self.entry.loss_name())
    }

    /// Whether the configuration names its term.
    pub fn is_named(&self) -> bool {
        self.loss_name.is_some()
    }

    /// The name of the term that one of its values becomes (a single value has the empty name), where the configuration
    /// or else the caller names the loss.
    pub(crate) fn term_name(&self, given: Option<&str>, value: &str) -> String {
        let given = self.loss_name.as_deref().or(given);
        let terms = self.loss.terms();
        let Some((_, default)) = terms.iter().find(|(name, _)| *name == value) else {
            let name = given.map_or_else(|| self.entry.loss_name(), str::to_owned);
            return if value.is_empty() { name } else { format!("{name}_{value}") };
        };
        let losses = terms.iter().filter(|(_, default)| default.contains("loss")).count();
        match given {
            Some(given) if default.contains("loss") && losses == 1 => given.to_owned(),
            Some(given) if default.contains("loss") => format!("{given}_{value}"),
            _ => (*default).to_owned(),
        }
    }

    /// The values of the loss itself, without what it only logs; a single value has the empty name.
    pub(crate) fn own_values(&self) -> Vec<&'static str> {
        match self.loss.terms() {
            [] => vec![""],
            terms => terms.iter().filter(|(_, default)| default.contains("loss")).map(|(value, _)| *value).collect(),
        }
    }

    /// Whether a value is one of the loss itself.
    pub(crate) fn is_own(&self, value: &str) -> bool {
        self.own_values().contains(&value)
    }

    /// It acts when the iteration is a multiple of this.
    pub fn interval(&self) -> u64 {
        self.interval.unwrap_or_else(|| self.loss.interval())
    }

    /// Its configuration, complete: builds an equal loss.
    ///
    /// # Errors
    /// [`Error::Config`] where its options cannot be serialised.
    pub fn to_value(&self) -> Result<Value> {
        let mut map = Map::new();
        map.insert("type".to_owned(), self.type_name().into());
        match self.loss.options()? {
            Value::Object(options) => map.extend(options),
            Value::Null => {}
            _ => return Err(refuse(&self.path, "the options of a loss are a mapping")),
        }
        if let Some(data_info) = &self.data_info {
            let pairs = data_info.iter().map(|(argument, output)| (argument.clone(), output.as_str().into()));
            map.insert("data_info".to_owned(), Value::Object(pairs.collect()));
        }
        if let Some(loss_name) = &self.loss_name {
            map.insert("loss_name".to_owned(), loss_name.as_str().into());
        }
        if let Some(interval) = self.interval {
            map.insert("interval".to_owned(), interval.into());
        }
        Ok(Value::Object(map))
    }

    /// Evaluates the loss.
    ///
    /// With a `data_info`, `inputs` are a training step's outputs, of which it picks; otherwise they are the arguments
    /// by name. [`Outcome::Skipped`] where the interval skips the `iteration` given.
    ///
    /// # Errors
    /// [`Error::MissingInput`], the loss's own.
    pub fn evaluate<'g>(&mut self, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        if !self.is_due(inputs)? {
            return Ok(Outcome::Skipped);
        }
        self.loss.evaluate(&*self.pick(inputs)?)
    }

    /// The value of the loss for named tensors: the sum of its own values, where it has several (perceptual and style).
    /// [`Registry::losses`](super::Registry::losses) has an example.
    ///
    /// # Errors
    /// As [`evaluate`](Component::evaluate), which also takes networks, switches and words;
    /// [`Error::Config`] where the call gives no value (LeCam before its averages are known).
    pub fn call<'g, const N: usize>(&mut self, tensors: [(&str, AnyTensor<'g>); N]) -> Result<AnyTensor<'g>> {
        let mut inputs = Inputs::new();
        for (name, tensor) in tensors {
            inputs.insert(name, Item::Tensor(tensor));
        }
        let (values, _) = self.evaluate(&inputs)?.into_parts();
        let mut own = values.into_iter().filter(|(name, _)| self.is_own(name)).map(|(_, value)| value);
        let first = own.next().ok_or_else(|| refuse(&self.path, "the loss has no value in this call"))?;
        own.try_fold(first, |sum, value| sum.add(&value))
    }

    /// The arguments among a training step's outputs; all of them where the configuration does not say.
    pub(crate) fn pick<'s, 'a, 'g>(
        &self,
        inputs: &'s Inputs<'a, AnyTensor<'g>>,
    ) -> Result<Cow<'s, Inputs<'a, AnyTensor<'g>>>> {
        let Some(data_info) = &self.data_info else { return Ok(Cow::Borrowed(inputs)) };
        let mut picked = Inputs::picking();
        for argument in self.loss.arguments() {
            let given = data_info.get(argument.name).map(String::as_str);
            let Some(output) = given.or(argument.output) else { continue };
            match inputs.get(output) {
                Some(item) => picked.insert(argument.name, item.clone()),
                // An optional argument that the configuration does not name may stay away.
                None if given.is_none() && !argument.required => {}
                None => return Err(self.missing(argument.name, output)),
            }
        }
        Ok(Cow::Owned(picked))
    }

    /// Evaluates the loss with arguments that the caller picked.
    pub(crate) fn evaluate_picked<'g>(&mut self, picked: &Inputs<'_, AnyTensor<'g>>) -> Result<Outcome<AnyTensor<'g>>> {
        self.loss.evaluate(picked)
    }

    /// Whether the interval lets it act.
    pub(crate) fn is_due<T>(&self, inputs: &Inputs<'_, T>) -> Result<bool> {
        let interval = self.interval();
        if interval <= 1 {
            return Ok(true);
        }
        let iteration = match inputs.get("iteration") {
            Some(Item::Number(iteration)) => *iteration,
            Some(other) => {
                let hint = format!(": it takes a number, but was given {}", other.kind());
                return Err(self.missing_iteration(hint));
            }
            // Called directly it computes what it is asked for.
            None if self.data_info.is_none() => return Ok(true),
            None => return Err(self.missing_iteration(format!(": the loss acts in every {interval} iterations"))),
        };
        if iteration < 0.0 || iteration.fract() != 0.0 {
            return Err(Error::option(self.type_name(), "iteration", "a whole number, at least 0", iteration));
        }
        Ok(iteration % interval as f64 == 0.0)
    }

    fn missing_iteration(&self, hint: String) -> Error {
        Error::MissingInput { operation: self.type_name(), argument: "iteration".to_owned(), hint }.at(&self.path)
    }

    /// An argument's output is not there.
    pub(crate) fn missing(&self, argument: &str, output: &str) -> Error {
        let hint = format!(": the loss takes it as `{argument}`");
        Error::MissingInput { operation: self.type_name(), argument: output.to_owned(), hint }.at(&self.path)
    }

    /// The weight that is in one of the values, where the loss is evaluated with these arguments.
    pub(crate) fn weight(&self, value: &str, picked: &Inputs<'_, AnyTensor<'_>>) -> Result<f64> {
        if let Some(weight) = self.loss.weight(value, picked)? {
            return Ok(weight);
        }
        let is_logged = self.loss.terms().iter().any(|(name, term)| *name == value && !term.contains("loss"));
        if is_logged { Ok(1.0) } else { self.loss.options().map(|options| loss_weight(&options)) }
    }

    /// Takes over the values of the tensors that an evaluation carried ([`Outcome::Carrying`]). One that is not finite is
    /// not remembered.
    ///
    /// # Errors
    /// As the loss says.
    pub fn remember(&mut self, carried: &[Carried]) -> Result<()> {
        self.loss.remember(carried)
    }

    /// What the loss remembers (a moving average, a pool, the state of its random draws), to be saved with a training's
    /// checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] where it cannot be serialised.
    pub fn state(&self) -> Result<Value> {
        self.loss.state()
    }

    /// Goes on from a saved [`state`](Component::state).
    ///
    /// # Errors
    /// [`Error::Config`] where it is not one of this loss.
    pub fn restore(&mut self, state: Value) -> Result<()> {
        self.loss.restore(state).map_err(|error| error.at(&self.path))
    }
}

/// The seed of the draws at a place: FNV-1a over the place's bytes, from the seed on.
pub(crate) fn seed_at(seed: u64, place: &str) -> u64 {
    place
        .bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Refuses an output that the training step does not offer, where it is known what it offers.
pub(crate) fn check_offered(path: &str, output: &str, context: &BuildContext) -> Result<()> {
    let Some(offered) = &context.outputs else { return Ok(()) };
    if offered.iter().any(|known| known == output) {
        return Ok(());
    }
    Err(unknown(path.to_owned(), "output", output, offered.iter().map(String::as_str)))
}
