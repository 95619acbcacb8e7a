//! The JSON Schema knows every loss with every option, and every reference in it leads somewhere.
#![cfg(feature = "schema")]

use image_losses::config::{Registry, schema};
use serde_json::Value;

/// Every `$ref` below a value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|item| references(item, found));
        }
        _ => {}
    }
}

#[test]
fn it_describes_every_option() {
    let registry = Registry::standard();
    let schema = schema(&registry);
    let conditions = schema["$defs"]["loss"]["allOf"].as_array().unwrap();
    assert_eq!(conditions.len(), registry.types().count());
    for (entry, condition) in registry.types().zip(conditions) {
        assert_eq!(condition["if"]["properties"]["type"]["const"], entry.name());
        let then = &condition["then"];
        assert_eq!(then["additionalProperties"], false);
        for field in entry.fields().iter().chain(&["data_info", "loss_name", "interval"]) {
            let described = &then["properties"][field];
            assert!(described.is_object(), "{}: {field} is {described}", entry.name());
        }
    }
    let gan = conditions.iter().find(|condition| condition["if"]["properties"]["type"]["const"] == "GANLoss").unwrap();
    assert!(gan["then"]["required"].as_array().unwrap().contains(&"gan_type".into()));
}

#[test]
fn it_describes_the_losses_of_models() {
    let schema = schema(&Registry::standard());
    let documents = schema["anyOf"].as_array().unwrap();
    let of = |name: &str| {
        let has =
            |one: &&Value| one["properties"]["type"]["enum"].as_array().is_some_and(|all| all.contains(&name.into()));
        documents.iter().find(has).unwrap_or_else(|| panic!("no {name}"))
    };
    for (name, field) in [("SRGAN", "gan_loss"), ("DIM", "loss_alpha"), ("StyleGAN2", "loss_config")] {
        assert!(of(name)["properties"][field].is_object(), "{name}: {field}");
    }
}

#[test]
fn its_references_lead_somewhere() {
    let schema = schema(&Registry::standard());
    let mut found = Vec::new();
    references(&schema, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        let target = reference.strip_prefix('#').and_then(|pointer| schema.pointer(pointer));
        assert!(target.is_some(), "{reference} leads nowhere");
    }
}
