//! Files of `torch.save` before 0.1.10: a tar archive of storages, tensors and the pickle that names them.

use std::collections::HashMap;
use std::sync::Arc;

use super::entry::{Dtype, Entry, Layout};
use super::legacy_pth::check_byte_order;
use super::pickle::{
    self, Arena, Dialect, Global, NoPersistent, Node, Persistent, StorageType, Tensor, Value, natural,
};
use super::source::{Cursor, Read, Region, refuse, shown};
use super::state_dict::{self, Contents};

const BLOCK: u64 = 512;
/// The archive has four members; room for those that a tool adds.
const MAX_MEMBERS: usize = 64;
/// Higher ranks are refused later; this bounds what is read before.
const MAX_RANK: u32 = 64;

/// The tar magic and where it stands.
pub(super) const MAGIC: &[u8; 5] = b"ustar";
pub(super) const MAGIC_AT: usize = 257;

pub(super) fn read(file: &Region) -> Read<Contents<Entry>> {
    let members = members(file)?;
    let member = |name: &str| match members.get(name) {
        Some(region) => Ok(Cursor::new(region.clone())),
        None => refuse(format!("a tar archive without `{name}`: not written by torch.save")),
    };
    if let Ok(mut system) = member("sys_info") {
        let (arena, system) = plain(&mut system)?;
        check_byte_order(&arena, system)?;
    }
    let storages = storages(&mut member("storages")?)?;
    let mut tensors = tensors(&mut member("tensors")?, &storages)?;
    let (arena, value) = pickle::run(&mut member("pickle")?, Dialect::Python, &mut tensors)?;
    state_dict::tensors(&arena, value)?.read(|name, tensor| match storages.views.get(tensor.slot) {
        Some(view) => Entry::stored(tensor.layout.clone(), view.data.clone()),
        None => refuse(format!("the tensor {} has no storage", shown(name))),
    })
}

fn plain(cursor: &mut Cursor) -> Read<(Arena, Value)> {
    pickle::run(cursor, Dialect::Python, &mut NoPersistent)
}

/// The archive's plain files.
fn members(file: &Region) -> Read<HashMap<String, Region>> {
    let mut members = HashMap::new();
    let mut cursor = Cursor::new(file.clone());
    while cursor.remaining() >= BLOCK {
        let header = cursor.region(BLOCK, "a tar header")?.bytes(0, BLOCK, "a tar header")?;
        if header.iter().all(|&byte| byte == 0) {
            break;
        }
        if header.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) != Some(MAGIC) {
            return refuse("a tar header without its magic");
        }
        if members.len() == MAX_MEMBERS {
            return refuse("a tar archive with too many members");
        }
        let name = header.split(|&byte| byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(&name[..name.len().min(100)]).into_owned();
        let size = header.get(124..136).and_then(octal);
        let Some(size) = size else { return refuse(format!("the tar member {} has no size", shown(&name))) };
        let data = cursor.region(size, "a tar member")?;
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        cursor.region(padding.min(cursor.remaining()), "a tar member")?;
        // '0' and NUL are files; others (folders, pax headers) say nothing of tensors.
        if matches!(header.get(156), Some(b'0' | 0)) {
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            if members.insert(name, data).is_some() {
                return refuse("a tar archive with two members of one name");
            }
        }
    }
    Ok(members)
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

/// A storage, or a view of one.
#[derive(Debug)]
struct View {
    dtype: Dtype,
    elements: u64,
    data: Region,
}

/// The views by their keys (addresses in the program that wrote them).
#[derive(Debug, Default)]
struct Storages {
    views: Vec<View>,
    slots: HashMap<i64, usize>,
}

impl Storages {
    fn insert(&mut self, key: Value, view: View) -> Read<()> {
        let Value::Int(key) = key else { return refuse("a storage whose key is no int") };
        self.slots.insert(key, self.views.len());
        self.views.push(view);
        Ok(())
    }

    fn get(&self, key: Value) -> Option<(usize, &View)> {
        let Value::Int(key) = key else { return None };
        let &slot = self.slots.get(&key)?;
        Some((slot, self.views.get(slot)?))
    }
}

/// A count, that many storages (`(key, location, type)`, the number of elements, the elements), and a list of views
/// (`(key, root, offset, elements)`).
fn storages(cursor: &mut Cursor) -> Read<Storages> {
    let mut storages = Storages::default();
    let (_, count) = plain(cursor)?;
    for _ in 0..natural(count)? {
        let (arena, header) = plain(cursor)?;
        let &[key, _location, kind] = arena.tuple(header).unwrap_or_default() else {
            return refuse("a storage that is no triple");
        };
        let Some(Global::StorageType(StorageType::Of(dtype))) = arena.global(kind) else {
            return refuse("a storage without a type");
        };
        let elements = u64::from_le_bytes(cursor.array()?);
        let data = cursor.region(elements.saturating_mul(dtype.size() as u64), "a storage")?;
        storages.insert(key, View { dtype, elements, data })?;
    }
    let (arena, views) = plain(cursor)?;
    let Some(views) = arena.list(views) else { return refuse("no list of storage views") };
    for &view in views {
        let &[key, root, offset, elements] = arena.tuple(view).unwrap_or_default() else {
            return refuse("a storage view that is no quadruple");
        };
        let (offset, elements) = (natural(offset)?, natural(elements)?);
        let Some((_, root)) = storages.get(root) else { return refuse("a view of no storage") };
        let (dtype, size) = (root.dtype, root.dtype.size() as u64);
        let data = root.data.part(offset.saturating_mul(size), elements.saturating_mul(size), "a storage view")?;
        storages.insert(key, View { dtype, elements, data })?;
    }
    Ok(storages)
}

/// The tensors by their keys; the pickle refers to nothing else.
struct Tensors(HashMap<i64, Arc<Tensor>>);

/// A count, and that many tensors: `(key, storage, type)`, rank, shape, strides, offset.
fn tensors(cursor: &mut Cursor, storages: &Storages) -> Read<Tensors> {
    let mut tensors = HashMap::new();
    let (_, count) = plain(cursor)?;
    for _ in 0..natural(count)? {
        let (arena, header) = plain(cursor)?;
        let &[Value::Int(key), storage, _kind] = arena.tuple(header).unwrap_or_default() else {
            return refuse("a tensor that is no triple");
        };
        let Some((slot, view)) = storages.get(storage) else { return refuse("a tensor without a storage") };
        let rank = u32::from_le_bytes(cursor.array()?);
        // The rank was once written in eight bytes.
        cursor.array::<4>()?;
        if rank > MAX_RANK {
            return refuse(format!("a tensor of rank {rank}"));
        }
        let mut numbers = |count| (0..count).map(|_| Ok(u64::from_le_bytes(cursor.array()?))).collect::<Read<Vec<_>>>();
        let shape = numbers(rank)?;
        let strides = numbers(rank)?;
        let offset = u64::from_le_bytes(cursor.array()?);
        let extent = |extent| usize::try_from(extent).or_else(|_| refuse("an extent too large"));
        let shape = shape.into_iter().map(extent).collect::<Read<Vec<_>>>()?;
        let layout = Arc::new(Layout::new(view.dtype, 0, view.elements, offset, shape, strides)?);
        tensors.insert(key, Arc::new(Tensor { slot, layout }));
    }
    Ok(Tensors(tensors))
}

impl Persistent for Tensors {
    /// The tensor's key, as a number or as its digits.
    fn resolve(&mut self, arena: &Arena, id: Value) -> Read<Node> {
        let key = match id {
            Value::Int(key) => Some(key),
            _ => arena.text(id).and_then(|text| text.parse().ok()),
        };
        match key.and_then(|key| self.0.get(&key)) {
            Some(tensor) => Ok(Node::Tensor(Arc::clone(tensor))),
            None => refuse("a persistent id that is no tensor"),
        }
    }
}
