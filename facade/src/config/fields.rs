//! The field names of a serde structure, and the nearest of several names.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};

/// The fields that `T` is deserialised from; empty where it is no structure.
pub(super) fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
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

/// The known name nearest to `name`, if one is near enough to be a slip.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase()), known))
        .filter(|(similarity, _)| *similarity > 0.75)
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
    fn nearest_finds_slips_only() {
        assert_eq!(nearest("L1los", ["L1Loss", "MSELoss"]), Some("L1Loss".to_owned()));
        assert_eq!(nearest("weigth", ["loss_weight", "reduction"]), None);
        assert_eq!(nearest("los_weight", ["loss_weight", "reduction"]), Some("loss_weight".to_owned()));
    }
}
