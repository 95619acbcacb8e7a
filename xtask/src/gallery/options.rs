//! The options of a loss, from the JSON Schema of configurations.

use serde_json::Value;

/// An option as the page shows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    pub(super) name: String,
    pub(super) default: String,
    pub(super) meaning: String,
}

/// The options of a type of a schema.
pub(super) fn options(schema: &Value, name: &str) -> Vec<Choice> {
    let types = schema["$defs"]["loss"]["allOf"].as_array().into_iter().flatten();
    let Some(described) = types.map(|one| &one["then"]).find(|then| then["properties"]["type"]["const"] == name) else {
        return Vec::new();
    };
    let required = |field: &str| described["required"].as_array().is_some_and(|all| all.iter().any(|one| one == field));
    let own = described["properties"].as_object().into_iter().flatten();
    own.filter(|(field, _)| !["type", "data_info", "loss_name", "interval"].contains(&field.as_str()))
        .map(|(field, property)| {
            let default = match property.get("default") {
                Some(default) => default.to_string(),
                None if required(field) => "must be given".to_owned(),
                None => "none".to_owned(),
            };
            let mut meaning = plain(property["description"].as_str().unwrap_or_default());
            let words = words(schema, property);
            if !words.is_empty() {
                meaning = format!("{} One of {}.", meaning.trim_end(), words.join(", "));
            }
            Choice { name: field.clone(), default, meaning }
        })
        .collect()
}

/// The words an option may be, where it is one of some.
fn words(schema: &Value, property: &Value) -> Vec<String> {
    let Some(name) = property["$ref"].as_str().and_then(|path| path.rsplit('/').next()) else { return Vec::new() };
    let definition = &schema["$defs"][name];
    let listed = definition["enum"].as_array().into_iter().flatten();
    let described = definition["oneOf"].as_array().into_iter().flatten();
    let described = described.flat_map(|one| {
        let several = one["enum"].as_array().into_iter().flatten();
        one.get("const").into_iter().chain(several)
    });
    listed.chain(described).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A description without the marks of Rust's documentation, and without the default, which has a column.
fn plain(text: &str) -> String {
    let text = text.split(" Default:").next().unwrap_or(text).trim_end_matches(" It has no default.");
    text.replace("[`", "").replace("`]", "").replace('`', "").replace('\n', " ")
}
