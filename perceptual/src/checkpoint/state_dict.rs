//! From what a pickle holds to named tensors: wrappers opened, dictionaries and modules flattened.

use std::collections::HashMap;
use std::sync::Arc;

use super::Wrapping;
use super::entry::Entry;
use super::pickle::{Arena, Node, Tensor, Value};
use super::source::{Named, Read, refuse, shown};

/// The keys under which training programs put the parameters, in the order in which they are tried.
const WRAPPERS: [&str; 7] = ["params_ema", "params", "state_dict", "model_state_dict", "model", "net", "network"];
/// How deep modules may nest.
const MAX_DEPTH: usize = 64;
/// How many keys that hold no tensors are remembered.
const MAX_PASSED_OVER: usize = 64;
/// Parts of a name that stand for a wrapper around a module: of a parallel or averaged one, a compiled one, a sharded
/// one, a recomputed one.
const WRAPPER_PARTS: [&str; 6] =
    ["module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_forward_module"];

/// What a file holds.
#[derive(Debug)]
pub(super) struct Contents<T> {
    /// The tensors of the dictionary that was opened.
    pub(super) tensors: Named<T>,
    /// Those that lie elsewhere in the file, by their names from its root.
    pub(super) beside: Named<T>,
    /// Opaque values in the place of a tensor, and their classes.
    pub(super) unread: Named<Arc<str>>,
    pub(super) wrapping: Wrapping,
}

impl<T> Contents<T> {
    /// Tensors alone.
    pub(super) fn plain(tensors: Named<T>) -> Self {
        Contents { tensors, beside: Vec::new(), unread: Vec::new(), wrapping: Wrapping::default() }
    }

    /// The same with what `entry` makes of each tensor. A fault beside the opened dictionary only takes that tensor out.
    pub(super) fn read(self, mut entry: impl FnMut(&str, &T) -> Read<Entry>) -> Read<Contents<Entry>> {
        let tensors = self.tensors.into_iter().map(|(name, tensor)| {
            let entry = entry(&name, &tensor)?;
            Ok((name, entry))
        });
        let tensors = tensors.collect::<Read<_>>()?;
        let beside = self.beside.into_iter().filter_map(|(name, tensor)| {
            let entry = entry(&name, &tensor).ok()?;
            Some((name, entry))
        });
        Ok(Contents { tensors, beside: beside.collect(), unread: self.unread, wrapping: self.wrapping })
    }
}

/// The named tensors of `root`, in the file's order, and what lay around them.
pub(super) fn tensors(arena: &Arena, whole: Value) -> Read<Contents<Arc<Tensor>>> {
    let mut root = whole;
    let mut wrapping = Wrapping::default();
    let may_hold = |value| matches!(arena.node(value), Some(Node::Tensor(_) | Node::Dict(_) | Node::Object(_)));
    for _ in 0..MAX_DEPTH {
        let Some(items) = arena.dict(root) else { break };
        let wrapped = WRAPPERS.iter().find_map(|&wrapper| {
            let mut items = items.iter().rev();
            let &(_, value) = items.find(|&&(key, _)| arena.text(key) == Some(wrapper))?;
            let inner = arena.dict(value)?;
            inner.iter().any(|&(_, value)| may_hold(value)).then_some((wrapper, value))
        });
        let Some((wrapper, wrapped)) = wrapped else { break };
        let others = items.iter().filter_map(|&(key, _)| arena.text(key)).filter(|&key| key != wrapper);
        wrapping.pass_over(others);
        wrapping.dictionaries.push(wrapper.to_owned());
        root = wrapped;
    }
    if !matches!(arena.node(root), Some(Node::Dict(_) | Node::Object(_))) {
        let hint = if arena.class(root).is_some() { " (save the `state_dict()` alone)" } else { "" };
        return refuse(format!("the file holds {}, not a dictionary of tensors{hint}", arena.kind(root)));
    }
    let mut walk = Walk::new(arena, None);
    walk.visit(root, "", 0)?;
    let mut beside = Walk::new(arena, Some(root));
    if !wrapping.dictionaries.is_empty() {
        // What is not asked for is no reason to refuse a file: a fault ends the search.
        let _ = beside.visit(whole, "", 0);
    }
    let others = arena.dict(root).unwrap_or_default().iter().filter(|&&(_, value)| !may_hold(value));
    wrapping.pass_over(others.filter_map(|&(key, _)| arena.text(key)));
    Ok(Contents { tensors: walk.found, beside: beside.found, unread: walk.unread, wrapping })
}

impl Wrapping {
    /// Remembers keys, of which a hostile file may have any number.
    fn pass_over<'a>(&mut self, keys: impl Iterator<Item = &'a str>) {
        let room = MAX_PASSED_OVER - self.passed_over.len();
        self.passed_over.extend(keys.take(room).map(shown));
    }
}

struct Walk<'a> {
    arena: &'a Arena,
    /// How many more items may be visited, and how many letters their names may have.
    items: usize,
    letters: usize,
    /// A dictionary that is not visited.
    skipped: Option<Value>,
    found: Named<Arc<Tensor>>,
    positions: HashMap<String, usize>,
    unread: Named<Arc<str>>,
}

impl<'a> Walk<'a> {
    fn new(arena: &'a Arena, skipped: Option<Value>) -> Self {
        // A pickle takes two steps and more per item, fifteen and more per tensor. What needs many times that shares
        // its dictionaries to no end.
        let (items, letters) = (4 * arena.steps() + 1024, 16 * arena.steps() + (1 << 16));
        let (found, positions, unread) = Default::default();
        Walk { arena, items, letters, skipped, found, positions, unread }
    }

    fn visit(&mut self, value: Value, prefix: &str, depth: usize) -> Read<()> {
        if depth > MAX_DEPTH {
            return refuse(format!("modules nest deeper than {MAX_DEPTH}"));
        }
        if self.skipped == Some(value) {
            return Ok(());
        }
        let (items, is_object) = match self.arena.node(value) {
            Some(Node::Dict(items)) => (items.as_slice(), false),
            Some(&Node::Object(attributes)) => (self.arena.dict(attributes).unwrap_or_default(), true),
            _ => return Ok(()),
        };
        let endless = "modules that contain one another without end";
        for &(key, value) in items {
            self.items = self.items.checked_sub(1).map_or_else(|| refuse(endless), Ok)?;
            let class = self.arena.class(value);
            let child = match self.arena.node(value) {
                _ if class.is_some() => None,
                Some(Node::Tensor(tensor)) => Some(tensor),
                Some(Node::Object(_)) => None,
                // A dictionary that is an attribute of a module holds none of its parameters.
                Some(Node::Dict(_)) if !is_object => None,
                _ => continue,
            };
            let key = match (key, self.arena.text(key)) {
                (_, Some(text)) => text.to_owned(),
                (Value::Int(int), _) => int.to_string(),
                _ => continue,
            };
            let letters = prefix.len() + key.len() + 1;
            self.letters = self.letters.checked_sub(letters).map_or_else(|| refuse(endless), Ok)?;
            let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            if let Some(class) = class {
                self.unread.push((name, Arc::clone(class)));
                continue;
            }
            match child {
                None => self.visit(value, &name, depth + 1)?,
                // As in Python, a key given twice keeps its place and takes the later value.
                Some(tensor) => match self.positions.get(&name).and_then(|&at| self.found.get_mut(at)) {
                    Some(found) => found.1 = Arc::clone(tensor),
                    None => {
                        self.positions.insert(name.clone(), self.found.len());
                        self.found.push((name, Arc::clone(tensor)));
                    }
                },
            }
        }
        Ok(())
    }
}

/// Takes off the parts of names that stand for wrappers of a network, wherever they are; says what came off the name
/// with the most of them. Names that would become equal stay as they are.
pub(super) fn strip_wrappers<T>(tensors: &mut [(String, T)]) -> String {
    let mut taken = String::new();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (name, _) in &*tensors {
        *counts.entry(stripped(name)).or_default() += 1;
    }
    for (name, _) in tensors {
        let short = stripped(name);
        if short.len() == name.len() || counts.get(&short).is_none_or(|&count| count > 1) {
            continue;
        }
        if name.len() - short.len() > taken.len() {
            let parts = name.split('.').filter(|part| WRAPPER_PARTS.contains(part));
            taken = parts.flat_map(|part| [part, "."]).collect();
        }
        *name = short;
    }
    taken
}

/// A name, or a prefix of names, without the parts that stand for wrappers.
pub(super) fn stripped(name: &str) -> String {
    // The last part is the parameter's own name.
    let Some((path, own)) = name.rsplit_once('.') else { return name.to_owned() };
    let parts = path.split('.').filter(|part| !WRAPPER_PARTS.contains(part));
    parts.chain([own]).collect::<Vec<_>>().join(".")
}
