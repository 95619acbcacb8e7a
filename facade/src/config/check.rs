//! Checks a whole document: every loss and every `loss_config` in it, at any depth.

use image_losses_core::Error;
use serde_json::{Value, json};

use super::fields::join;
use super::registry::{BuildContext, Registry};
use crate::objective::{Model, Note, Objective};

/// One loss of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its place: `model.losses.0`.
    pub path: String,
    /// Its `type`, or `loss_config of` the model's.
    pub name: String,
    /// Why it cannot be built.
    pub error: Option<Error>,
    /// Checkpoints that it names and that are not there.
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
    /// Adds the notes that are new.
    fn note(&mut self, notes: &[Note]) {
        for note in notes {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
    }
}

/// The endings of a `type` that says it is a loss.
const ENDINGS: [&str; 4] = ["Loss", "Comps", "Penalty", "Regularizer"];

/// The options that name a checkpoint.
const CHECKPOINTS: [&str; 4] = ["pretrained", "ir_se50_weights", "linear_weights", "dists_weights"];

/// Builds every loss of a document, at any depth: every mapping whose `type` the registry knows or that ends as a
/// loss's, and every `loss_config` beside the `type` of a known model. Networks get seeded parameters, nothing is
/// computed.
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
                && (registry.get(name).is_some() || ENDINGS.iter().any(|ending| name.ends_with(ending)))
            {
                let built = registry.build(value, path, context);
                if let Ok(loss) = &built {
                    findings.note(loss.notes());
                }
                findings.rows.push(Row {
                    path: path.to_owned(),
                    name: name.to_owned(),
                    error: built.err(),
                    missing: missing_checkpoints(value, context),
                });
            }
            let mut configured = None;
            if let Some(name) = name
                && Model::of(name).is_some()
                && map.contains_key("loss_config")
            {
                let objective = Objective::model(registry, value, path, context);
                if let Ok(objective) = &objective {
                    findings.note(objective.notes());
                }
                configured = Some(Row {
                    path: join(path, "loss_config"),
                    name: format!("loss_config of {name}"),
                    error: objective.err(),
                    missing: Vec::new(),
                });
            }
            if map.contains_key("gan_loss") {
                // The keys of an objective may stand in a model's mapping among others.
                let keys = ["gan_loss", "disc_auxiliary_loss", "gen_auxiliary_loss"];
                let own = map.iter().filter(|(key, _)| keys.contains(&key.as_str()));
                let own = Value::Object(own.map(|(key, value)| (key.clone(), value.clone())).collect());
                if let Ok(objective) = Objective::gan(registry, &own, path, context) {
                    findings.note(objective.notes());
                }
            }
            for (key, item) in map {
                if key == "loss_config" {
                    findings.rows.extend(configured.take());
                }
                walk(registry, item, &join(path, key), context, findings);
            }
        }
        _ => {}
    }
}

/// The checkpoints that a loss names, below it at any depth, and that are not there.
fn missing_checkpoints(loss: &Value, context: &BuildContext) -> Vec<String> {
    let mut missing = Vec::new();
    let mut pending = vec![loss];
    while let Some(value) = pending.pop() {
        match value {
            Value::Array(items) => pending.extend(items),
            Value::Object(map) => {
                for (key, item) in map {
                    match item {
                        Value::String(name) if CHECKPOINTS.contains(&key.as_str()) => {
                            if !is_there(name, context) {
                                missing.push(name.clone());
                            }
                        }
                        item => pending.push(item),
                    }
                }
            }
            _ => {}
        }
    }
    missing
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
