//! Objectives of the models in the table, and the table in words.

use image_losses_core::{Error, Result};
use serde_json::{Map, Value, json};

use super::table::{LossOf, MODELS, ModelTerms, Take, TermRow, When, at};
use super::{Builder, Made, Model, Objective, Part, Side, Source};
use crate::config::fields::{join, refuse};
use crate::config::{Argument, BuildContext, Component, Kind, Registry};

/// At most so many steps of a model that gives several results.
const MOST_STEPS: u64 = 64;

/// The objective of a model's mapping.
pub(super) fn build(
    model: &ModelTerms,
    mapping: &Value,
    registry: &Registry,
    path: &str,
    context: &BuildContext,
) -> Result<Objective> {
    let mut parts = Builder::new(registry, path, context);
    let mut held: Vec<(LossOf, usize)> = Vec::new();
    let mut normal = Map::new();
    keep(&mut normal, mapping, "type");
    for row in model.terms {
        row.when.iter().for_each(|when| keep(&mut normal, mapping, when.field()));
        let factor = row.factor(mapping, path, &mut normal)?;
        // A term of another term's value is off with it.
        let is_there = |name: &str| parts.parts.iter().any(|part| part.name.as_deref() == Some(name));
        let lacks = row.takes.iter().any(|take| matches!(take, Take::Term(name) if !is_there(name)));
        if factor == 0.0 || lacks || !row.when.iter().all(|when| when.holds(mapping)) {
            continue;
        }
        let Some(loss) = row.loss.value(mapping, path)? else { continue };
        let index = match held.iter().find(|(known, _)| *known == row.loss) {
            Some((_, index)) => *index,
            None => {
                let (place, field) = match row.loss {
                    LossOf::Field(field) => (field.to_owned(), Some(field)),
                    LossOf::CopyOf(field) => (join(field, "copy"), Some(field)),
                    LossOf::Fixed(_) => (row.name.to_owned(), None),
                };
                let at = field.map_or_else(|| path.to_owned(), |field| join(path, field));
                let index = parts.hold_at(&loss, &at, place)?;
                if let (LossOf::Field(field), Some(held)) = (row.loss, parts.losses.get(index)) {
                    normal.insert(field.to_owned(), held.to_value()?);
                }
                held.push((row.loss, index));
                index
            }
        };
        for step in 0..row.steps(mapping, path, &mut normal)? {
            let step = step.to_string();
            let named = |name: &str| name.replace("{i}", &step);
            let sources = row.sources(&parts.losses[index], mapping, &named, &mut normal)?;
            let values = row.values.iter().map(|(value, name)| (*value, named(name))).collect();
            let (side, name) = (row.side, Some(named(row.name)));
            let sources = Some(sources);
            parts.push_part(Part { side, loss: index, name, values, sources, factor, counts: false, shares: true })?;
        }
    }
    parts.finish(Value::Object(normal))
}

/// Takes a field over into the normal form, at its dotted path.
fn keep(normal: &mut Map<String, Value>, mapping: &Value, field: &str) {
    let Some(value) = at(mapping, field) else { return };
    match field.split_once('.') {
        None => drop(normal.insert(field.to_owned(), value.clone())),
        Some((outer, inner)) => {
            let outer = normal.entry(outer).or_insert_with(|| json!({}));
            if let Value::Object(outer) = outer {
                outer.insert(inner.to_owned(), value.clone());
            }
        }
    }
}

impl LossOf {
    /// The loss's configuration; none where it is off.
    fn value(self, mapping: &Value, path: &str) -> Result<Option<Value>> {
        let field = match self {
            LossOf::Field(field) | LossOf::CopyOf(field) => field,
            LossOf::Fixed(text) => {
                let loss = serde_json::from_str(text).map_err(|error| refuse(path, error.to_string()))?;
                return Ok(Some(loss));
            }
        };
        Ok(match mapping.get(field) {
            None | Some(Value::Null) => None,
            // DeblurGAN-v2's adversarial loss may be its kind alone.
            Some(Value::String(kind)) if field == "disc_loss" => Some(json!({"type": "AdvLoss", "loss_type": kind})),
            Some(loss) => Some(loss.clone()),
        })
    }
}

impl TermRow {
    fn factor(&self, mapping: &Value, path: &str, normal: &mut Map<String, Value>) -> Result<f64> {
        let Some((field, default)) = self.factor_of else { return Ok(self.factor) };
        keep(normal, mapping, field);
        let value = match at(mapping, field) {
            None | Some(Value::Null) => default,
            Some(value) => value.as_f64().ok_or_else(|| refuse(&join(path, field), "expected a finite number"))?,
        };
        Ok(self.factor * value)
    }

    fn steps(&self, mapping: &Value, path: &str, normal: &mut Map<String, Value>) -> Result<u64> {
        let Some((field, default)) = self.steps else { return Ok(1) };
        keep(normal, mapping, field);
        match at(mapping, field) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => match value.as_u64() {
                Some(steps @ 1..=MOST_STEPS) => Ok(steps),
                _ => Err(refuse(&join(path, field), format!("expected a whole number from 1 to {MOST_STEPS}"))),
            },
        }
    }

    /// What the loss's arguments are taken from.
    fn sources(
        &self,
        loss: &Component,
        mapping: &Value,
        named: &dyn Fn(&str) -> String,
        normal: &mut Map<String, Value>,
    ) -> Result<Vec<(&'static str, Source)>> {
        let arguments = loss.arguments();
        let refused = |message: String| Err(refuse(loss.path(), message));
        if loss.data_info().is_some() {
            return Err(refuse(&join(loss.path(), "data_info"), "the model says what its loss takes"));
        }
        let is_given = |argument: &&Argument| matches!(argument.kind, Kind::Tensor | Kind::Tensors | Kind::Network);
        let given: Vec<&Argument> = arguments.iter().filter(is_given).collect();
        if given.len() < self.takes.len() {
            let (takes, gives) = (given.len(), self.takes.len());
            return refused(format!("{} takes {takes} tensors, the model gives it {gives}", loss.type_name()));
        }
        let output = |name: &str| Source::Output { name: named(name), required: true };
        let mut sources: Vec<(&'static str, Source)> = Vec::new();
        for (argument, take) in given.iter().zip(self.takes) {
            let source = match *take {
                Take::Out(name) => output(name),
                Take::OneMinus(name) => Source::Made(Made::OneMinus(named(name))),
                Take::ImageNet(name) => Source::Made(Made::ImageNet(named(name))),
                Take::LessMean(scores, others) | Take::LessConstantMean(scores, others) => {
                    Source::Made(Made::LessMean {
                        scores: named(scores),
                        others: named(others),
                        is_constant: matches!(take, Take::LessConstantMean(..)),
                    })
                }
                Take::Either(switch, on, off) => {
                    keep(normal, mapping, switch);
                    output(if When::On(switch).holds(mapping) { on } else { off })
                }
                Take::Term(name) => Source::Term(named(name)),
            };
            sources.push((argument.name, source));
        }
        for argument in &arguments {
            let is_assigned = sources.iter().any(|(name, _)| *name == argument.name);
            let is_discriminator = self.side == Side::Discriminator;
            let source = match (argument.name, self.real) {
                _ if is_assigned => continue,
                ("target_is_real", Some(real)) => Source::Flag(real),
                ("is_disc", Some(_)) => Source::Flag(is_discriminator),
                ("model", Some(_)) => Source::Text(if is_discriminator { "discriminator" } else { "generator" }),
                ("alpha", _) => Source::Output { name: "alpha".to_owned(), required: false },
                (name, _) if argument.required => {
                    return Err(Error::MissingKey { path: loss.path().to_owned(), key: name.to_owned() });
                }
                _ => match argument.output {
                    Some(output) => Source::Output { name: output.to_owned(), required: false },
                    None => continue,
                },
            };
            sources.push((argument.name, source));
        }
        if self.real.is_some() && !arguments.iter().any(|argument| matches!(argument.name, "target_is_real" | "model"))
        {
            return refused(format!("{} is no adversarial loss", loss.type_name()));
        }
        Ok(sources)
    }

    /// The row in words: side, term, loss, what it takes, and when.
    fn cells(&self) -> [String; 5] {
        let side = match self.side {
            Side::Discriminator => "discriminator",
            Side::Generator => "generator",
        };
        let terms = match self.values {
            [] => format!("`{}`", self.name),
            values => values.iter().map(|(_, name)| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        let loss = match self.loss {
            LossOf::Field(field) => format!("`{field}`"),
            LossOf::CopyOf(field) => format!("`{field}`, with a state of its own"),
            LossOf::Fixed(text) => fixed(text),
        };
        let role = match self.real {
            Some(true) if self.side != Side::Generator => " as real",
            Some(false) if self.side != Side::Generator => " as fake",
            Some(false) => ", to be fake",
            _ => "",
        };
        let mut loss = format!("{loss}{role}");
        if self.factor != 1.0 {
            loss.push_str(&format!(", × {}", self.factor));
        }
        if let Some((field, default)) = self.factor_of {
            loss.push_str(&format!(", × `{field}` ({default})"));
        }
        let takes: Vec<String> = self.takes.iter().map(Take::to_string).collect();
        let mut when: Vec<String> = self.when.iter().map(When::to_string).collect();
        if let Some((field, default)) = self.steps {
            when.push(format!("for each i below `{field}` ({default})"));
        }
        [side.to_owned(), terms, loss, takes.join(", "), when.join("; ")]
    }
}

/// A loss in a model's code, in words.
fn fixed(text: &str) -> String {
    let Ok(Value::Object(loss)) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    let words = loss.iter().map(|(key, value)| match value.as_str() {
        Some(word) if key == "type" => word.to_owned(),
        Some(word) => format!("`{key}: {word}`"),
        None => format!("`{key}: {value}`"),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What MMagic's models train with, as a Markdown table.
pub fn model_table() -> String {
    let mut text = String::from("| model | side | term | loss | of | only if |\n|---|---|---|---|---|---|\n");
    let mut row = |model: &str, cells: [String; 5]| text.push_str(&format!("| {model} | {} |\n", cells.join(" | ")));
    for model in MODELS {
        let types: Vec<String> = model.types.iter().map(|name| format!("`{name}`")).collect();
        let mut name = format!("{} ({})", types.join(", "), model.source);
        for term in model.terms {
            row(&std::mem::take(&mut name), term.cells());
        }
    }
    for name in Model::TYPES {
        let mut shown = format!("`{name}`, with a `loss_config`");
        let mapping = json!({"type": name});
        let registry = Registry::standard();
        let Ok(objective) = Objective::model(&registry, &mapping, "model", &BuildContext::default()) else { continue };
        for part in &objective.parts {
            let loss = &objective.losses[part.loss];
            let side = if part.side == Side::Discriminator { "discriminator" } else { "generator" };
            let takes: Vec<String> = part.needs(loss).iter().map(|need| format!("`{}`", need.output)).collect();
            let terms: Vec<String> = part.term_names(loss).iter().map(|name| format!("`{name}`")).collect();
            let factor = if part.factor == 1.0 { String::new() } else { format!(", × {}", part.factor) };
            let loss = format!("{}{factor}", loss.type_name());
            row(
                &std::mem::take(&mut shown),
                [side.to_owned(), terms.join(", "), loss, takes.join(", "), String::new()],
            );
        }
    }
    text
}
