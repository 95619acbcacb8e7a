//! Files of `torch.save` before 1.6: five pickles, then the storages one after the other.

use super::entry::Entry;
use super::pickle::{self, Arena, Dialect, LEGACY_MAGIC, NoPersistent, Node, Value};
use super::source::{Cursor, Read, Region, refuse, shown};
use super::state_dict::{self, Contents};
use super::storages::Storages;

/// The only version of the format there was.
const PROTOCOL: i64 = 1001;

pub(super) fn read(file: &Region) -> Read<Contents<Entry>> {
    let mut cursor = Cursor::new(file.clone());
    let plain = |cursor: &mut Cursor| pickle::run(cursor, Dialect::Python, &mut NoPersistent);
    let (arena, magic) = plain(&mut cursor)?;
    if !matches!(arena.node(magic), Some(Node::Long(bytes)) if **bytes == LEGACY_MAGIC) {
        return refuse("a pickle without PyTorch's magic number");
    }
    let (_, protocol) = plain(&mut cursor)?;
    if protocol != Value::Int(PROTOCOL) {
        return refuse(format!("not version {PROTOCOL} of the format"));
    }
    let (arena, system) = plain(&mut cursor)?;
    check_byte_order(&arena, system)?;
    let mut storages = Storages::default();
    let (arena, value) = pickle::run(&mut cursor, Dialect::Python, &mut storages)?;
    let (keys_arena, keys) = plain(&mut cursor)?;
    let Some(keys) = keys_arena.list(keys) else { return refuse("no list of storages") };

    let mut data: Vec<Option<Region>> = vec![None; storages.declared().len()];
    for &key in keys {
        let Some(key) = keys_arena.text(key) else { return refuse("a storage whose key is no string") };
        let slot = storages.slot(key);
        let (Some(data), Some(declared)) = (
            slot.and_then(|slot| data.get_mut(slot)).filter(|data| data.is_none()),
            slot.and_then(|slot| storages.declared().get(slot)),
        ) else {
            return refuse(format!("the storage {} is listed twice or never used", shown(key)));
        };
        let elements = u64::from_le_bytes(cursor.array()?);
        if elements != declared.elements {
            return refuse(format!("the storage {} has {elements} elements, not {}", shown(key), declared.elements));
        }
        *data = Some(cursor.region(elements.saturating_mul(declared.kind.size()), "a storage")?);
    }

    state_dict::tensors(&arena, value)?.read(|name, tensor| match data.get(tensor.slot) {
        Some(Some(storage)) => Entry::stored(tensor.layout.clone(), storage.clone()),
        _ => refuse(format!("the storage of {} is not in the file", shown(name))),
    })
}

/// Refuses the system description of a big-endian machine.
pub(super) fn check_byte_order(arena: &Arena, system: Value) -> Read<()> {
    let items = arena.dict(system).unwrap_or_default();
    match items.iter().find(|&&(key, _)| arena.text(key) == Some("little_endian")) {
        Some((_, Value::Bool(true))) => Ok(()),
        Some((_, Value::Bool(false))) => refuse("the tensors are stored big-endian"),
        _ => refuse("the file does not say its byte order"),
    }
}
