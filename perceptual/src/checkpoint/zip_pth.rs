//! Zip files of `torch.save` (since 1.6) and of `torch.jit.save`: a pickle, and a record per storage.

use super::entry::Entry;
use super::pickle::{self, Dialect};
use super::source::{Cursor, Read, Region, refuse, shown};
use super::state_dict::{self, Contents};
use super::storages::Storages;
use super::torchscript;
use super::zip::Archive;

/// The tensors, what lay around them, and the dialect of the pickle that named them.
pub(super) fn read(file: &Region) -> Read<(Contents<Entry>, Dialect)> {
    let mut archive = Archive::open(file)?;
    let root = root(&archive)?;
    if let Some(order) = archive.read(&format!("{root}/byteorder"))? {
        match order.bytes(0, order.len().min(16), "the byte order")?.as_slice() {
            b"little" => {}
            b"big" => return refuse("the tensors are stored big-endian"),
            _ => return refuse("an unknown byte order"),
        }
    }
    let dialect = torchscript::dialect(&archive, &root);
    let Some(pickle) = archive.read(&format!("{root}/data.pkl"))? else { return refuse("the pickle is gone") };
    let mut storages = Storages::default();
    let (arena, value) = pickle::run(&mut Cursor::new(pickle), dialect, &mut storages)?;
    let mut records: Vec<Option<Region>> = vec![None; storages.declared().len()];
    let contents = state_dict::tensors(&arena, value)?.read(|name, tensor| {
        let (Some(record), Some(declared)) = (records.get_mut(tensor.slot), storages.declared().get(tensor.slot))
        else {
            return refuse(format!("the tensor {} has no storage", shown(name)));
        };
        let storage = match record {
            Some(storage) => storage.clone(),
            None => {
                let Some(data) = archive.read(&format!("{root}/data/{}", declared.key))? else {
                    return refuse(format!("the storage {} is not in the archive", shown(&declared.key)));
                };
                // The record may be longer than the tensors need, never shorter.
                let len = declared.elements.saturating_mul(declared.kind.size());
                record.insert(data.part(0, len, "a storage")?).clone()
            }
        };
        Entry::stored(tensor.layout.clone(), storage)
    })?;
    Ok((contents, dialect))
}

/// The folder that holds everything; its name is the file's at the time of writing.
fn root(archive: &Archive) -> Read<String> {
    let mut roots =
        archive.names().filter_map(|name| name.strip_suffix("/data.pkl")).filter(|root| !root.contains('/'));
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root.to_owned()),
        (None, _) => refuse("a zip archive without `data.pkl`: not written by torch.save or torch.jit.save"),
        _ => refuse("a zip archive with more than one `data.pkl`"),
    }
}
