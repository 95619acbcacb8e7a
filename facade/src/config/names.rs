//! Names as mmengine writes them: scopes, class paths, and fields of networks that say nothing about a loss.

use image_losses_core::Result;
use serde_json::{Map, Value};

use super::fields::{join, refuse};
use crate::objective::Note;

/// The package whose names are known here.
const PACKAGE: &str = "mmagic";

/// The scopes in which a name is one of [`PACKAGE`]'s: its own, and the one that every registry falls back to.
const SCOPES: [&str; 2] = [PACKAGE, "mmengine"];

/// Classes that are registered under another name than their own.
const REGISTERED: [(&str, &str); 1] = [("IDLossModel", "ArcFace")];

/// The fields of a network that say where it is computed. Here the tensors given say so.
const PLACEMENT: [&str; 2] = ["device", "map_location"];

/// The name of one of ours: that of `X`, of `mmagic.X` and of the full path of the class X in MMagic is X.
///
/// # Errors
/// The package of any other name with a path, and the last part of the name.
pub(crate) fn own_name(name: &str) -> std::result::Result<&str, (&str, &str)> {
    let Some((package, class)) = name.rsplit_once('.') else { return Ok(name) };
    if package.split('.').next() != Some(PACKAGE) {
        return Err((package, class));
    }
    Ok(REGISTERED.iter().find(|(known, _)| *known == class).map_or(class, |(_, registered)| registered))
}

/// As [`own_name`], with an error for the place.
pub(crate) fn own_name_at<'n>(name: &'n str, path: &str) -> Result<&'n str> {
    own_name(name).map_err(|(package, class)| {
        let message = format!("`{name}` is `{class}` of the package `{package}`, expected one of MMagic's");
        refuse(path, message)
    })
}

/// A loss's mapping with plain names at every depth below it, without scopes, and without what says where a network is
/// computed; the latter is noted.
pub(crate) fn plain(map: &Map<String, Value>, path: &str, notes: &mut Vec<Note>) -> Result<Map<String, Value>> {
    let mut kept = Map::new();
    for (key, value) in map {
        let place = join(path, key);
        match value {
            Value::String(scope) if key == "_scope_" => {
                if !SCOPES.contains(&scope.as_str()) {
                    return Err(refuse(&place, format!("`{scope}` is another package, expected `{PACKAGE}`")));
                }
            }
            value => {
                kept.insert(key.clone(), plain_below(value, &place, notes)?);
            }
        }
    }
    Ok(kept)
}

fn plain_below(value: &Value, path: &str, notes: &mut Vec<Note>) -> Result<Value> {
    match value {
        Value::Array(items) => {
            let items = items.iter().enumerate().map(|(i, item)| plain_below(item, &join(path, &i.to_string()), notes));
            items.collect()
        }
        Value::Object(map) => {
            let mut map = plain(map, path, notes)?;
            if let Some(Value::String(name)) = map.get("type") {
                let name = own_name_at(name, &join(path, "type"))?.to_owned();
                map.insert("type".to_owned(), name.into());
                for field in PLACEMENT {
                    if map.shift_remove(field).is_some() {
                        notes.push(Note::PassedOver { path: join(path, field) });
                    }
                }
            }
            Ok(Value::Object(map))
        }
        other => Ok(other.clone()),
    }
}
