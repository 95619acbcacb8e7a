//! Documents in JSON, TOML and YAML.

use std::fmt;
use std::path::Path;

use image_losses_core::{Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::fields::refuse;

/// A format that configurations are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Syntax {
    /// JSON.
    Json,
    /// TOML.
    #[cfg(feature = "toml")]
    Toml,
    /// YAML.
    #[cfg(feature = "yaml")]
    Yaml,
}

impl Syntax {
    /// The format by the ending of a file's name; `None` for another, or one whose feature is not enabled.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Syntax::Json),
            #[cfg(feature = "toml")]
            "toml" => Some(Syntax::Toml),
            #[cfg(feature = "yaml")]
            "yaml" | "yml" => Some(Syntax::Yaml),
            _ => None,
        }
    }
}

/// Reads a document.
///
/// Keys may be numbers or switches, as the layer indices of `layer_weights` are in YAML. A key that comes twice in one
/// mapping is refused.
///
/// ```
/// use image_losses::config::{Syntax, parse};
///
/// let value = parse(r#"{"type": "L1Loss", "loss_weight": 0.5}"#, Syntax::Json)?;
/// assert_eq!(value["loss_weight"], 0.5);
/// # Ok::<(), image_losses::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] with the line and column where the text is not in the format.
pub fn parse(text: &str, syntax: Syntax) -> Result<Value> {
    let document: std::result::Result<Document, String> = match syntax {
        Syntax::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
        #[cfg(feature = "toml")]
        Syntax::Toml => toml::from_str(text).map_err(|error| error.to_string()),
        #[cfg(feature = "yaml")]
        Syntax::Yaml => serde_saphyr::from_str(text).map_err(|error| error.to_string()),
    };
    document.map(|document| document.0).map_err(|message| refuse("", message.trim_end()))
}

/// Reads a file, in the format that its name's ending says.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::Format`] where its ending is no known one or its text is not in the
/// format.
pub fn read(path: &Path) -> Result<Value> {
    let refuse = |message: String| Error::Format { path: path.to_owned(), message };
    let syntax = Syntax::of(path).ok_or_else(|| {
        refuse("configurations end in .json, .toml (feature `toml`) or .yaml (feature `yaml`)".into())
    })?;
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, &error))?;
    parse(&text, syntax).map_err(|error| match error {
        Error::Config { message, .. } => refuse(message),
        other => other,
    })
}

/// Any value; keys become words.
struct Document(Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Document)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> std::result::Result<Value, E> {
        serde_json::Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("{value} is not finite")))
    }
    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(value.into())
    }
    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        Document::deserialize(deserializer).map(|document| document.0)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Document>()? {
            list.push(item.0);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = items.next_key::<Document>()? {
            let key = match key.0 {
                Value::String(word) => word,
                key @ (Value::Number(_) | Value::Bool(_)) => key.to_string(),
                _ => return Err(A::Error::custom("a key is a word, a number or a switch")),
            };
            let value = items.next_value::<Document>()?.0;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` comes twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_three_formats_say_the_same() {
        let value = json!({"type": "PerceptualLoss", "layer_weights": {"4": 1.0, "9": 0.5}, "norm_img": false});
        assert_eq!(parse(&value.to_string(), Syntax::Json).unwrap(), value);
        #[cfg(feature = "yaml")]
        {
            let text = "type: PerceptualLoss\nlayer_weights: {4: 1.0, '9': 0.5}\nnorm_img: false\n";
            assert_eq!(parse(text, Syntax::Yaml).unwrap(), value);
            assert!(matches!(parse("a: 1\na: 2\n", Syntax::Yaml), Err(Error::Config { .. })));
        }
        #[cfg(feature = "toml")]
        {
            let text = "type = 'PerceptualLoss'\nlayer_weights = {4 = 1.0, 9 = 0.5}\nnorm_img = false\n";
            assert_eq!(parse(text, Syntax::Toml).unwrap(), value);
        }
    }

    #[test]
    fn a_key_twice_is_refused() {
        assert!(matches!(parse(r#"{"a": 1, "a": 2}"#, Syntax::Json), Err(Error::Config { .. })));
    }

    #[test]
    fn a_file_is_read_by_its_ending() {
        assert!(matches!(read(Path::new("losses.ini")), Err(Error::Format { .. })));
        assert!(matches!(read(Path::new("no/such/file.json")), Err(Error::Io { .. })));
    }
}
