//! From what a pickle holds to named tensors: wrappers opened, dictionaries and modules flattened.

use std::collections::HashMap;
use std::sync::Arc;

use super::Wrapping;
use super::pickle::{Arena, Node, Tensor, Value};
use super::source::{Named, Read, refuse, shown};

/// The keys under which training programs put the parameters, in the order in which they are tried.
const WRAPPERS: [&str; 7] = ["params_ema", "params", "state_dict", "model_state_dict", "model", "net", "network"];
/// How deep modules may nest.
const MAX_DEPTH: usize = 64;
/// How many keys that hold no tensors are remembered.
const MAX_PASSED_OVER: usize = 64;
/// Prefixes that wrappers of a network put before every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// The named tensors of `root`, in the file's order, and what lay around them.
pub(super) fn tensors(arena: &Arena, root: Value) -> Read<(Named<Arc<Tensor>>, Wrapping)> {
    let mut root = root;
    let mut wrapping = Wrapping::default();
    for _ in 0..MAX_DEPTH {
        let Some(items) = arena.dict(root) else { break };
        let wrapped = WRAPPERS.iter().find_map(|&wrapper| {
            let mut items = items.iter().rev();
            let &(_, value) = items.find(|&&(key, _)| arena.text(key) == Some(wrapper))?;
            arena.dict(value).is_some().then_some((wrapper, value))
        });
        let Some((wrapper, wrapped)) = wrapped else { break };
        let others = items.iter().filter_map(|&(key, _)| arena.text(key)).filter(|&key| key != wrapper);
        wrapping.pass_over(others);
        wrapping.dictionaries.push(wrapper.to_owned());
        root = wrapped;
    }
    if !matches!(arena.node(root), Some(Node::Dict(_) | Node::Object(_))) {
        return refuse(format!("the file holds {}, not a dictionary of tensors", arena.kind(root)));
    }
    // A pickle takes two steps and more per item, fifteen and more per tensor. What needs many times that shares its
    // dictionaries to no end.
    let (items, letters) = (4 * arena.steps() + 1024, 16 * arena.steps() + (1 << 16));
    let mut walk = Walk { arena, items, letters, found: Vec::new(), positions: HashMap::new() };
    walk.visit(root, "", 0)?;
    let is_parameter = |value| matches!(arena.node(value), Some(Node::Tensor(_) | Node::Dict(_) | Node::Object(_)));
    let others = arena.dict(root).unwrap_or_default().iter().filter(|&&(_, value)| !is_parameter(value));
    wrapping.pass_over(others.filter_map(|&(key, _)| arena.text(key)));
    Ok((walk.found, wrapping))
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
    found: Named<Arc<Tensor>>,
    positions: HashMap<String, usize>,
}

impl Walk<'_> {
    fn visit(&mut self, value: Value, prefix: &str, depth: usize) -> Read<()> {
        if depth > MAX_DEPTH {
            return refuse(format!("modules nest deeper than {MAX_DEPTH}"));
        }
        let (items, is_object) = match self.arena.node(value) {
            Some(Node::Dict(items)) => (items.as_slice(), false),
            Some(&Node::Object(attributes)) => (self.arena.dict(attributes).unwrap_or_default(), true),
            _ => return Ok(()),
        };
        let endless = "modules that contain one another without end";
        for &(key, value) in items {
            self.items = self.items.checked_sub(1).map_or_else(|| refuse(endless), Ok)?;
            let child = match self.arena.node(value) {
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

/// Takes off, as often as it is there, a prefix that all names share because the network was wrapped; says what it took.
pub(super) fn strip_prefixes<T>(tensors: &mut [(String, T)]) -> String {
    let mut taken = String::new();
    let shared = |tensors: &[(String, T)]| {
        PREFIXES.iter().find(|&&prefix| tensors.iter().all(|(name, _)| name.starts_with(prefix)))
    };
    while !tensors.is_empty()
        && let Some(prefix) = shared(tensors)
    {
        for (name, _) in &mut *tensors {
            name.drain(..prefix.len());
        }
        taken.push_str(prefix);
    }
    taken
}
