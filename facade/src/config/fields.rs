//! Reading options: the field names of a serde structure, the nearest of several names, and errors by cause and place.

use image_losses_core::{Error, Result as LossResult};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde_json::Value;

/// The fields that `T` is deserialised from; empty where it is no structure.
pub(crate) fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // The deserialiser below always fails; what matters is what it was asked for.
    let _ = T::deserialize(Ask { fields: &mut fields });
    fields
}

/// A deserialiser that notes a structure's fields and then refuses.
struct Ask<'a> {
    fields: &'a mut &'static [&'static str],
}

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("not a structure"))
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.fields = fields;
        Err(Self::Error::custom("asked"))
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A path one step deeper.
pub(crate) fn join(path: &str, step: &str) -> String {
    if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") }
}

/// Refuses a value at a place in a document.
pub(crate) fn refuse(path: &str, message: impl Into<String>) -> Error {
    Error::Config { path: path.to_owned(), message: message.into() }
}

/// As many known values are named in an error.
const SHORT_LIST: usize = 16;

/// Refuses a name that is none of the known ones.
pub(crate) fn unknown<'a>(
    path: String,
    kind: &'static str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Error {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = nearest(name, known.iter().copied());
    // Fields and types are many; the values of an option are named.
    let is_short = kind == "value" && known.len() <= SHORT_LIST;
    let known = if is_short { known.into_iter().map(str::to_owned).collect() } else { Vec::new() };
    Error::UnknownName { path, kind, name: name.to_owned(), nearest, known }
}

/// The value with whole numbers as such: Python's `16.0` is an interval. Numbers beyond 2⁵³ stay as they are.
fn with_whole_numbers(value: Value) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
                // −0 has no whole number.
                if float == 0.0 && float.is_sign_negative() { Value::Number(number) } else { (float as i64).into() }
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(with_whole_numbers).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, with_whole_numbers(value))).collect(),
        other => other,
    }
}

/// Deserialises options; unknown names, missing fields and values of a wrong type are errors with their place. A
/// whole number may be written as a float.
pub(crate) fn read_options<O: DeserializeOwned>(value: Value, path: &str) -> LossResult<O> {
    let known = fields_of::<O>();
    if let Value::Object(map) = &value
        && !known.is_empty()
        && let Some(name) = map.keys().find(|name| !known.contains(&name.as_str()))
    {
        return Err(unknown(join(path, name), "field", name, known.iter().copied()));
    }
    serde_path_to_error::deserialize(with_whole_numbers(value)).map_err(|error| {
        let inner = error.path().to_string();
        // List positions are written as steps like the others: `losses.0`, not `losses[0]`.
        let inner = inner.replace('[', ".").replace(']', "");
        let place = if inner == "." { path.to_owned() } else { join(path, &inner) };
        classify(place, error.into_inner().to_string())
    })
}

/// The cause behind serde's words, which name what they speak of in backticks.
fn classify(path: String, message: String) -> Error {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(name) = quoted.next() else { return Error::Config { path, message } };
    let kind = match () {
        () if message.starts_with("missing field") => return Error::MissingKey { path, key: name.to_owned() },
        () if message.starts_with("unknown field") => "field",
        () if message.starts_with("unknown variant") => "value",
        () => return Error::Config { path, message },
    };
    // The place of an unknown field is the mapping it stands in, or already the field.
    let last = path.rsplit('.').next().unwrap_or_default();
    let path = if kind == "field" && last != name { join(&path, name) } else { path };
    unknown(path, kind, name, quoted)
}

/// The known name nearest to `name`, if one is near enough to be a slip.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .filter_map(|known| {
            let lower = known.to_lowercase();
            let similarity = strsim::jaro_winkler(&lower, &name);
            // Two letters changed places: little is left alike of a short name.
            let is_slip = similarity > 0.75 || strsim::osa_distance(&lower, &name) <= 1;
            is_slip.then_some((similarity, known))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Options {
        loss_weight: f64,
        #[serde(rename = "toY")]
        luma: bool,
    }

    #[test]
    fn fields_are_the_names_in_the_data() {
        assert_eq!(fields_of::<Options>(), ["loss_weight", "toY"]);
        assert_eq!(fields_of::<f64>(), [""; 0]);
    }

    #[test]
    fn causes_and_places_are_told_apart() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Outer {
            inner: Inner,
            #[serde(default)]
            list: Vec<f64>,
        }
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Inner {
            mode: Mode,
        }
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Mode {
            Pixel,
            Sample,
        }
        let read = |text: &str| read_options::<Outer>(serde_json::from_str(text).unwrap(), "a").unwrap_err();
        let unknown = |path: &str, kind, name: &str, nearest: Option<&str>| Error::UnknownName {
            path: path.into(),
            kind,
            name: name.into(),
            nearest: nearest.map(Into::into),
            known: if kind == "value" { vec!["pixel".into(), "sample".into()] } else { Vec::new() },
        };
        assert_eq!(read(r#"{"iner": 1}"#), unknown("a.iner", "field", "iner", Some("inner")));
        assert_eq!(read(r#"{"inner": {"mod": "pixel"}}"#), unknown("a.inner.mod", "field", "mod", Some("mode")));
        assert_eq!(read(r#"{"inner": {"mode": "pixle"}}"#), unknown("a.inner.mode", "value", "pixle", Some("pixel")));
        assert_eq!(read("{}"), Error::MissingKey { path: "a".into(), key: "inner".into() });
        assert_eq!(read(r#"{"inner": {}}"#), Error::MissingKey { path: "a.inner".into(), key: "mode".into() });
        let text = read(r#"{"inner": {"mode": "pixel"}, "list": [1, "x"]}"#);
        assert!(matches!(text, Error::Config { path, .. } if path == "a.list.1"));
    }

    #[test]
    fn nearest_finds_slips_only() {
        assert_eq!(nearest("L1los", ["L1Loss", "MSELoss"]), Some("L1Loss".to_owned()));
        assert_eq!(nearest("weigth", ["loss_weight", "reduction"]), None);
        assert_eq!(nearest("HCW", ["pixel", "HWC"]), Some("HWC".to_owned()));
        assert_eq!(nearest("los_weight", ["loss_weight", "reduction"]), Some("loss_weight".to_owned()));
    }
}
