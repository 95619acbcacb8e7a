//! safetensors: a length, a JSON header of names, types, shapes and offsets, and the tensors side by side.
//!
//! The crate of that name wants the whole file in memory; the header alone is enough here.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::entry::{Dtype, Entry, Layout};
use super::source::{Read, Region, refuse, shown};
use super::state_dict::Contents;

/// The header's length comes first.
const LENGTH: u64 = 8;
/// The longest header: a hundred thousand tensors.
const MAX_HEADER: u64 = 1 << 24;
/// How much of the name of a type that is not read is kept, for messages.
const MAX_TYPE: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

struct Header(Vec<(String, Info)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("{} is named twice", shown(&name))));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Header(tensors))
            }
        }

        deserializer.deserialize_map(Names)
    }
}

pub(super) fn read(file: &Region) -> Read<Contents<Entry>> {
    let mut length = [0; LENGTH as usize];
    file.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return refuse(format!("a header of {length} bytes; {MAX_HEADER} are read at most"));
    }
    let header = file.bytes(LENGTH, length, "the header")?;
    let Header(tensors) = match serde_json::from_slice(&header) {
        Ok(header) => header,
        Err(error) => return refuse(format!("the header: {error}")),
    };
    let data = file.part(LENGTH + length, file.len() - LENGTH - length, "the tensors")?;

    let mut spans: Vec<(u64, u64)> = tensors.iter().map(|(_, info)| info.data_offsets).collect();
    spans.sort_unstable();
    let end = spans.iter().try_fold(0, |end, &(from, to)| (from == end && to >= from).then_some(to));
    if end != Some(data.len()) {
        return refuse("the tensors overlap, leave holes or do not fill the file");
    }

    let mut contents = Contents::plain(Vec::with_capacity(tensors.len()));
    for (name, info) in tensors {
        let Some(dtype) = Dtype::from_safetensors(&info.dtype) else {
            contents.unread.push((name, info.dtype.chars().take(MAX_TYPE).collect::<String>().into()));
            continue;
        };
        let layout = Layout::contiguous(dtype, info.shape)?;
        let (from, to) = info.data_offsets;
        if (layout.elements() as u64).checked_mul(dtype.size() as u64) != Some(to - from) {
            return refuse(format!("the tensor {} does not fill its {} bytes", shown(&name), to - from));
        }
        let storage = data.part(from, to - from, "a tensor")?;
        contents.tensors.push((name, Entry::stored(Arc::new(layout), storage)?));
    }
    Ok(contents)
}
