//! Documents in JSON, TOML and YAML.

use std::borrow::Cow;
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
/// A number that is not finite (`Infinity` and `NaN` as Python writes them in JSON, `.inf` in YAML, `inf` in TOML; a number
/// beyond the range of f64) becomes the word `inf`, `-inf` or `NaN`: documents have them beside their losses, and no loss takes
/// a word for a number.
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
        Syntax::Json => serde_json::from_str(&with_words(text)).map_err(|error| error.to_string()),
        #[cfg(feature = "toml")]
        Syntax::Toml => toml::from_str(text).map_err(|error| error.to_string()),
        #[cfg(feature = "yaml")]
        Syntax::Yaml => {
            let options = serde_saphyr::options! {
                non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough
            };
            serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
        }
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

/// JSON with its numbers that are not finite as words, which are as long where they can be: errors keep their place.
fn with_words(text: &str) -> Cow<'_, str> {
    let is_part = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                continue;
            }
            byte if is_part(byte) => at += bytes[at..].iter().take_while(|byte| is_part(**byte)).count(),
            _ => {
                at += 1;
                continue;
            }
        }
        let token = &text[start..at];
        let value = match token {
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            "NaN" => f64::NAN,
            token if token.bytes().any(|byte| byte.is_ascii_digit()) => token.parse().unwrap_or(0.0),
            _ => 0.0,
        };
        if !value.is_finite() {
            out.push_str(&text[copied..start]);
            out.push_str(&format!("{:<width$}", format!("\"{value}\""), width = token.len()));
            copied = at;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
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
    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number))
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
    fn numbers_that_are_not_finite_are_words() {
        let text = r#"{"a": Infinity, "b": [-Infinity, NaN, 1e999], "c": "Infinity \"NaN", "d": -1.5e+3}"#;
        let value = json!({"a": "inf", "b": ["-inf", "NaN", "inf"], "c": "Infinity \"NaN", "d": -1500.0});
        assert_eq!(parse(text, Syntax::Json).unwrap(), value);
        #[cfg(feature = "yaml")]
        assert_eq!(parse("a: .inf\nb: -.inf\n", Syntax::Yaml).unwrap(), json!({"a": "inf", "b": "-inf"}));
        #[cfg(feature = "toml")]
        assert_eq!(
            parse("a = inf\nb = -inf\nc = nan\n", Syntax::Toml).unwrap(),
            json!({"a": "inf", "b": "-inf", "c": "NaN"})
        );
        // Broken texts end, wherever they are cut, and what is wrong keeps its place.
        for end in 0..text.len() {
            parse(&text[..end], Syntax::Json).unwrap_err();
        }
        let error = parse(r#"{"a": Infinity, "b": x}"#, Syntax::Json).unwrap_err().to_string();
        assert!(error.ends_with("line 1 column 22"), "{error}");
    }

    #[test]
    fn a_file_is_read_by_its_ending() {
        assert!(matches!(read(Path::new("losses.ini")), Err(Error::Format { .. })));
        assert!(matches!(read(Path::new("no/such/file.json")), Err(Error::Io { .. })));
    }
}
