//! Checks a whole document: every loss and every `loss_config` in it, at any depth.

use image_losses_core::Error;
use serde_json::{Map, Value, json};

use super::fields::{join, refuse};
use super::registry::{BuildContext, Registry};
use crate::objective::{Note, Objective, has_fixed_losses, is_configured, is_model};

/// One loss of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its place: `model.losses.0`.
    pub path: String,
    /// Its `type`; `loss_config of` or `objective of` a model's; `document` for one without losses.
    pub name: String,
    /// Why it cannot be built.
    pub error: Option<Error>,
    /// Checkpoints that it is to be read from and that are not there, as configured or else as published.
    pub missing: Vec<String>,
}

/// What was found in a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Every loss, in the order of the document.
    pub rows: Vec<Row>,
    /// What is allowed and may not be meant, each note once.
    pub notes: Vec<Note>,
}

impl Findings {
    /// Whether the document has losses: all that is found of another is that it has none.
    pub fn has_losses(&self) -> bool {
        self.rows.iter().any(|row| row.name != NO_LOSSES)
    }
}

/// The name of the row of a document without losses.
const NO_LOSSES: &str = "document";

/// Builds every loss of a document, at any depth: every mapping whose `type` the registry knows or that ends as a
/// loss's, every `loss_config` beside a `type`, and the objective of every known model: a row of its own where its losses
/// stand in its code, or where they build and it does not. Networks get seeded parameters, nothing is computed.
///
/// A document without losses has one row, with an error.
pub fn check(registry: &Registry, document: &Value, context: &BuildContext) -> Findings {
    // CLIP of a small size: nothing is computed, and the real one fills most of a gigabyte.
    let clip = json!({
        "context_length": 77, "embed_dim": 8, "image_resolution": 224, "transformer_layers": 1,
        "transformer_width": 64, "vision_layers": 1, "vision_patch_size": 32, "vision_width": 64, "vocab_size": 8,
    });
    let context = BuildContext {
        seeded: Some(context.seeded.unwrap_or(0)),
        architecture: Some(context.architecture.clone().unwrap_or(clip)),
        ..context.clone()
    };
    let mut findings = Findings::default();
    walk(registry, document, "", &context, &mut findings);
    if findings.rows.is_empty() {
        let error = refuse("document", "there is no loss in it");
        let (path, name) = (String::new(), NO_LOSSES.to_owned());
        findings.rows.push(Row { path, name, error: Some(error), missing: Vec::new() });
    }
    findings
}

fn walk(registry: &Registry, value: &Value, path: &str, context: &BuildContext, findings: &mut Findings) {
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                walk(registry, item, &join(path, &i.to_string()), context, findings);
            }
        }
        Value::Object(map) => {
            let name = map.get("type").and_then(Value::as_str);
            if let Some(name) = name
                && registry.is_loss(name)
            {
                findings.rows.push(loss_row(registry, value, path, name, context, &mut findings.notes));
            }
            let first = findings.rows.len();
            let mut model = name.filter(|name| !registry.is_loss(name)).and_then(|name| Checked::of(name, map));
            if let Some(model) = &mut model {
                let objective = Objective::model(registry, value, path, context);
                if let Ok(objective) = &objective {
                    note(&mut findings.notes, objective.notes());
                }
                model.error = objective.err();
            } else if map.contains_key("gan_loss") {
                // The keys of an objective may stand in a mapping among others.
                let keys = ["gan_loss", "disc_auxiliary_loss", "gen_auxiliary_loss"];
                let own = map.iter().filter(|(key, _)| keys.contains(&key.as_str()));
                let own = Value::Object(own.map(|(key, value)| (key.clone(), value.clone())).collect());
                if let Ok(objective) = Objective::gan(registry, &own, path, context) {
                    note(&mut findings.notes, objective.notes());
                }
            }
            for (key, item) in map {
                if key == "loss_config"
                    && let Some(model) = model.take_if(|model| model.has_config)
                {
                    findings.rows.push(model.row(path));
                }
                walk(registry, item, &join(path, key), context, findings);
            }
            if let Some(model) = model {
                let rows = &findings.rows[first..];
                // What is wrong with one of its losses stands in the loss's row.
                let is_said = model.error.is_none() || rows.iter().any(|row| row.error.is_some());
                if rows.is_empty() || !is_said {
                    findings.rows.push(model.row(path));
                }
            }
        }
        _ => {}
    }
}

/// A model whose objective is built.
struct Checked {
    name: String,
    /// Its losses are what its `loss_config` says.
    has_config: bool,
    error: Option<Error>,
}

impl Checked {
    /// A mapping that says what a model is trained with: one with a `loss_config`, or of a known model with losses or with
    /// losses in its code.
    fn of(name: &str, map: &Map<String, Value>) -> Option<Self> {
        let is_empty = |config: &Value| config.is_null() || config.as_object().is_some_and(Map::is_empty);
        let config = map.get("loss_config");
        let is_config_read = is_configured(name) && config.is_some();
        let has_config = is_config_read || config.is_some_and(|config| !is_empty(config));
        let has_losses = map.iter().any(|(key, value)| key.contains("loss") && !value.is_null());
        let is_trained = has_config || (is_model(name) && (has_losses || has_fixed_losses(name)));
        is_trained.then(|| Checked { name: name.to_owned(), has_config, error: None })
    }

    fn row(self, path: &str) -> Row {
        let (path, name) = match self.has_config {
            true => (join(path, "loss_config"), format!("loss_config of {}", self.name)),
            false => (path.to_owned(), format!("objective of {}", self.name)),
        };
        Row { path, name, error: self.error, missing: Vec::new() }
    }
}

/// Builds a loss.
fn loss_row(
    registry: &Registry,
    loss: &Value,
    path: &str,
    name: &str,
    context: &BuildContext,
    notes: &mut Vec<Note>,
) -> Row {
    let (mut error, mut missing) = (None, Vec::new());
    match registry.build(loss, path, context) {
        Ok(loss) => {
            note(notes, loss.notes());
            missing = loss.checkpoints();
            missing.retain(|name| !is_there(name, context));
        }
        Err(found) => error = Some(found),
    }
    Row { path: path.to_owned(), name: name.to_owned(), error, missing }
}

/// Adds the notes that are new.
fn note(notes: &mut Vec<Note>, found: &[Note]) {
    for note in found {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
}

#[cfg(not(feature = "perceptual"))]
fn is_there(name: &str, _: &BuildContext) -> bool {
    std::path::Path::new(name).is_file()
}

#[cfg(feature = "perceptual")]
fn is_there(name: &str, context: &BuildContext) -> bool {
    use image_losses_perceptual::Weights;
    name.starts_with("seeded:") || Weights::locate(name, context.weights_directory.as_deref()).is_some()
}
