//! The table of storages that the pickles of zip and legacy files refer to by persistent ids.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use super::pickle::{Arena, Global, Node, Persistent, Storage, StorageType, Value, natural};
use super::source::{Read, refuse, shown};

/// What a persistent id says of a storage.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) key: String,
    pub(super) elements: u64,
    pub(super) kind: StorageType,
}

/// The storages in the order in which the pickle first names them.
#[derive(Debug, Default)]
pub(super) struct Storages {
    declared: Vec<Declared>,
    slots: HashMap<String, usize>,
}

impl Storages {
    pub(super) fn declared(&self) -> &[Declared] {
        &self.declared
    }

    pub(super) fn slot(&self, key: &str) -> Option<usize> {
        self.slots.get(key).copied()
    }

    fn declare(&mut self, key: &str, kind: StorageType, elements: u64) -> Read<usize> {
        let slot = match self.slots.entry(key.to_owned()) {
            Slot::Occupied(slot) => *slot.get(),
            Slot::Vacant(slot) => {
                self.declared.push(Declared { key: key.to_owned(), elements, kind });
                *slot.insert(self.declared.len() - 1)
            }
        };
        match self.declared.get(slot) {
            Some(known) if known.kind == kind && known.elements == elements => Ok(slot),
            _ => refuse(format!("the storage {} is declared twice, differently", shown(key))),
        }
    }
}

impl Persistent for Storages {
    /// `("storage", type, key, location, elements)`; legacy files add `None` or `(key, offset, elements)` of a view.
    fn resolve(&mut self, arena: &Arena, id: Value) -> Read<Node> {
        let parts = arena.tuple(id).unwrap_or_default();
        // Legacy files hold the source beside the class of a module that was saved as a whole.
        if let [tag, class, ..] = parts
            && arena.text(*tag) == Some("module")
            && let Some(name) = arena.class(*class)
        {
            return Ok(Node::Class(name.clone()));
        }
        let [tag, kind, key, _location, elements, view @ ..] = parts else {
            return refuse("a persistent id that is no storage");
        };
        let (Some("storage"), Some(Global::StorageType(kind)), Some(key)) =
            (arena.text(*tag), arena.global(*kind), arena.text(*key))
        else {
            return refuse("a persistent id that is no storage");
        };
        let elements = natural(*elements)?;
        let slot = self.declare(key, kind, elements)?;
        let (base, elements) = match view {
            [] | [Value::None] => (0, elements),
            [view] => match *arena.tuple(*view).unwrap_or_default() {
                [_key, base, len] => {
                    let (base, len) = (natural(base)?, natural(len)?);
                    match base.checked_add(len) {
                        Some(end) if end <= elements => (base, len),
                        _ => return refuse(format!("a view reaches outside the storage {}", shown(key))),
                    }
                }
                _ => return refuse("a storage's view that is no triple"),
            },
            _ => return refuse("a persistent id that is no storage"),
        };
        Ok(Node::Storage(Storage { slot, kind, base, elements }))
    }
}
