//! The JSON Schema of all losses and objectives, so that editors complete configurations.

use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::registry::{Entry, Registry};

/// Describes the options of an entry.
pub(crate) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// The JSON Schema (2020-12) of a document that is a loss of the registry, a list or a mapping of losses, or an
/// objective.
pub fn schema(registry: &Registry) -> Value {
    let mut generator = SchemaGenerator::default();
    let entries: Vec<(&str, Value)> =
        registry.types().map(|entry| (entry.name(), describe(entry, &mut generator))).collect();
    let loss = json!({"$ref": "#/$defs/loss"});
    // A loss that is null is off.
    let off = json!({"anyOf": [loss, {"type": "null"}]});
    let objectives = crate::objective::schemas(&mut generator, &loss);
    let mut definitions = generator.take_definitions(true);
    let types: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
    let conditions: Vec<Value> = entries
        .iter()
        .map(|(name, schema)| {
            json!({"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": schema})
        })
        .collect();
    let described = json!({
        "type": "object",
        "properties": {"type": {"enum": types}},
        "required": ["type"],
        "allOf": conditions,
    });
    definitions.insert("loss".to_owned(), described);
    let mut documents = vec![
        loss.clone(),
        json!({"type": "array", "items": off}),
        json!({"type": "object", "additionalProperties": off}),
    ];
    if let Value::Array(objectives) = objectives {
        documents.extend(objectives);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Losses and objectives of image-losses",
        "anyOf": documents,
        "$defs": definitions,
    })
}

/// An option of a loss, as its documentation has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptionOf {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The value where it is not given; null where there is none.
    pub default: Value,
    /// The loss is not built without it.
    pub required: bool,
}

/// The options of a loss, in the order of its structure.
pub fn options(entry: &Entry) -> Vec<OptionOf> {
    let schema = describe(entry, &mut SchemaGenerator::default());
    let is_required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let of = |name: &&str| {
        let property = &schema["properties"][name];
        OptionOf {
            name: (*name).to_owned(),
            description: property["description"].as_str().unwrap_or_default().to_owned(),
            default: property.get("default").cloned().unwrap_or_default(),
            required: is_required(name),
        }
    };
    entry.fields().iter().map(of).collect()
}

/// The mapping of one type: its options and the common fields.
fn describe(entry: &Entry, generator: &mut SchemaGenerator) -> Value {
    let options = entry.describe().map(|describe| resolve(describe(generator), generator));
    let mut properties = Map::new();
    properties.insert("type".to_owned(), json!({"const": entry.name()}));
    let mut required = vec![json!("type")];
    let own = options.as_ref().and_then(|options| options.get("properties")).and_then(Value::as_object);
    match own {
        Some(own) => properties.extend(own.clone()),
        None => properties.extend(entry.fields().iter().map(|field| ((*field).to_owned(), json!(true)))),
    }
    if let Some(Value::Array(fields)) = options.as_ref().and_then(|options| options.get("required")) {
        required.extend(fields.iter().cloned());
    }
    let common = [
        (
            "data_info",
            json!({
                "description": "Which of the training step's outputs each argument is taken from.",
                "type": ["object", "null"],
                "additionalProperties": {"type": "string"},
            }),
        ),
        ("loss_name", json!({"description": "The name of its term.", "type": ["string", "null"]})),
        (
            "interval",
            json!({"description": "It acts when the iteration is a multiple of it.", "type": "integer", "minimum": 1}),
        ),
    ];
    for (name, schema) in common {
        properties.entry(name).or_insert(schema);
    }
    let mut schema = json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    });
    if let Some(description) = options.as_ref().and_then(|options| options.get("description")) {
        schema["description"] = description.clone();
    }
    schema
}

/// The schema itself, where it is a reference to a definition, or to one that is a reference.
fn resolve(schema: Schema, generator: &SchemaGenerator) -> Value {
    let mut value = schema.to_value();
    loop {
        let name = value.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
        match name.and_then(|name| generator.definitions().get(name)) {
            Some(definition) => value = definition.clone(),
            None => return value,
        }
    }
}
