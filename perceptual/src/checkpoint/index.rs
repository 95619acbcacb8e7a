//! Indices of shards: a JSON document that says in which file beside it each tensor lies.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::Deserialize;

use super::source::{Read, Region, refuse, shown};

/// The longest document: a hundred thousand tensors.
const MAX_INDEX: u64 = 1 << 24;
/// The most files.
const MAX_SHARDS: usize = 1 << 10;

/// The names of tensors by the file that holds them.
pub(super) type Shards = BTreeMap<String, HashSet<String>>;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shards of an index, or `None` if the file is none.
pub(super) fn shards(file: &Region) -> Read<Option<Shards>> {
    if file.len() == 0 || file.len() > MAX_INDEX || file.bytes(0, 1, "the first byte")? != b"{" {
        return Ok(None);
    }
    let bytes = file.bytes(0, file.len(), "the index")?;
    let Ok(index) = serde_json::from_slice::<Index>(&bytes) else { return Ok(None) };
    let mut shards = Shards::new();
    for (name, file) in index.weight_map {
        // A file beside the index, and no other: a path could lead anywhere.
        let is_plain =
            Path::new(&file).file_name().is_some_and(|name| name == file.as_str()) && !file.contains(['/', '\\']);
        if !is_plain {
            return refuse(format!("an index that names {}, which is no file beside it", shown(&file)));
        }
        shards.entry(file).or_default().insert(name);
    }
    if shards.len() > MAX_SHARDS {
        return refuse(format!("an index of {} shards; {MAX_SHARDS} are read at most", shards.len()));
    }
    Ok(Some(shards))
}

/// What to open instead of a file that is one of several shards (`model-00001-of-00002.safetensors`).
pub(super) fn sharded(path: &Path) -> Option<String> {
    let (stem, end) = (path.file_stem()?.to_str()?, path.extension()?.to_str()?);
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (model, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(number) && is_number(count)).then(|| {
        let index = format!("{model}.{end}.index.json");
        format!("shard {number} of {count}, and the network is in several; open {} instead", shown(&index))
    })
}
