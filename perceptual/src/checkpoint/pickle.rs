//! A pickle machine that knows what `torch.save` and `torch.jit.save` write, and nothing else.
//!
//! Nothing is imported or called: a name such as `torch._utils._rebuild_tensor_v2` is looked up in a closed list, and
//! its "call" builds a description of a tensor. Everything built lies in one arena and is referred to by its number,
//! so that neither deep nesting nor cycles can exhaust the stack, and the number of steps is bounded.

use std::collections::HashMap;
use std::sync::Arc;

use super::entry::{Dtype, Layout};
use super::source::{Cursor, Read, refuse, shown};

/// The most steps of one pickle; a step costs about a hundred bytes. A transformer of 36 layers (432 tensors) takes
/// 16,000 as a state dictionary, 17,000 traced, 55,000 with its optimizer's state.
const MAX_STEPS: usize = 1 << 20;
/// The longest text and the longest name.
const MAX_TEXT: u64 = 1 << 20;
const MAX_NAME: usize = 1 << 10;

/// The magic number that opens a legacy file, as `torch.save` writes it (little-endian).
pub(super) const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Who wrote the pickle, which decides the names it may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Dialect {
    Python,
    TorchScript,
}

/// What lies on the machine's stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Something no tensor depends on, such as a float or a device.
    Opaque,
    Node(u32),
}

#[derive(Debug)]
pub(super) enum Node {
    Text(Box<str>),
    /// An integer of more than eight bytes.
    Long(Box<[u8]>),
    Tuple(Box<[Value]>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(Global),
    /// An instance of a TorchScript class, with its attributes once `BUILD` has given them.
    Object(Value),
    Storage(Storage),
    Tensor(Arc<Tensor>),
}

/// The names a pickle may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    /// A call gives back its first argument: `torch.Size`, `_rebuild_parameter`, TorchScript's typed lists.
    First,
    /// A call gives back something no tensor depends on.
    Opaque,
    RebuildTensor,
    /// With an untyped storage and the dtype as an argument.
    RebuildTensorV3,
    /// `None`: untyped bytes.
    StorageType(Option<Dtype>),
    Dtype(Dtype),
    TensorType,
    ScriptClass,
}

/// A part of the storage in a slot of the file's table, in elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    pub(super) slot: usize,
    /// `None`: untyped bytes.
    pub(super) dtype: Option<Dtype>,
    pub(super) base: u64,
    pub(super) elements: u64,
}

/// A tensor and the slot of its storage.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) slot: usize,
    pub(super) layout: Arc<Layout>,
}

/// What a persistent id refers to; each format has its own.
pub(super) trait Persistent {
    fn resolve(&mut self, arena: &Arena, id: Value) -> Read<Node>;
}

/// For pickles that refer to nothing outside.
pub(super) struct NoPersistent;

impl Persistent for NoPersistent {
    fn resolve(&mut self, _: &Arena, _: Value) -> Read<Node> {
        refuse("a persistent id where none can be")
    }
}

/// Everything one pickle built.
#[derive(Debug, Default)]
pub(super) struct Arena {
    nodes: Vec<Node>,
    steps: usize,
}

impl Arena {
    pub(super) fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(index) => self.nodes.get(index as usize),
            _ => None,
        }
    }

    /// How many steps the pickle took.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    pub(super) fn text(&self, value: Value) -> Option<&str> {
        match self.node(value) {
            Some(Node::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, value: Value) -> Option<&[Value]> {
        match self.node(value) {
            Some(Node::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    pub(super) fn list(&self, value: Value) -> Option<&[Value]> {
        match self.node(value) {
            Some(Node::List(items)) => Some(items),
            _ => None,
        }
    }

    pub(super) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value) {
            Some(Node::Dict(items)) => Some(items),
            _ => None,
        }
    }

    pub(super) fn global(&self, value: Value) -> Option<Global> {
        match self.node(value) {
            Some(&Node::Global(global)) => Some(global),
            _ => None,
        }
    }

    /// What a value is, in words.
    pub(super) fn kind(&self, value: Value) -> &'static str {
        match value {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an int",
            Value::Opaque => "a value without tensors",
            Value::Node(_) => match self.node(value) {
                Some(Node::Text(_)) => "a string",
                Some(Node::Long(_)) => "a long int",
                Some(Node::Tuple(_)) => "a tuple",
                Some(Node::List(_)) => "a list",
                Some(Node::Dict(_)) => "a dictionary",
                Some(Node::Global(_)) => "a class",
                Some(Node::Object(_)) => "a module",
                Some(Node::Storage(_)) => "a storage",
                Some(Node::Tensor(_)) => "a tensor",
                None => "nothing",
            },
        }
    }
}

/// A non-negative integer.
pub(super) fn natural(value: Value) -> Read<u64> {
    match value {
        Value::Int(int) => u64::try_from(int).or_else(|_| refuse(format!("{int} where a size belongs"))),
        _ => refuse("something else where a size belongs"),
    }
}

/// Runs the pickle at the cursor; the cursor then stands behind it.
pub(super) fn run(cursor: &mut Cursor, dialect: Dialect, persistent: &mut dyn Persistent) -> Read<(Arena, Value)> {
    let mut machine =
        Machine { dialect, arena: Arena::default(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    loop {
        machine.charge(1)?;
        let opcode = cursor.byte()?;
        if opcode == b'.' {
            let value = machine.pop()?;
            return Ok((machine.arena, value));
        }
        machine.step(opcode, cursor, persistent)?;
    }
}

struct Machine {
    dialect: Dialect,
    arena: Arena,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl Machine {
    fn step(&mut self, opcode: u8, cursor: &mut Cursor, persistent: &mut dyn Persistent) -> Read<()> {
        match opcode {
            // PROTO, FRAME: a version and a length that change nothing for us.
            0x80 => match cursor.byte()? {
                2..=5 => {}
                protocol => return refuse(format!("pickle protocol {protocol}; 2 to 5 are read")),
            },
            0x95 => drop(cursor.array::<8>()?),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => self.stack.push(Value::Int(i64::from(cursor.byte()?))),
            b'M' => self.stack.push(Value::Int(i64::from(u16::from_le_bytes(cursor.array()?)))),
            b'J' => self.stack.push(Value::Int(i64::from(i32::from_le_bytes(cursor.array()?)))),
            0x8a => {
                let len = cursor.byte()?;
                let bytes = cursor.bytes(u64::from(len), MAX_TEXT)?;
                self.push_long(bytes)?;
            }
            b'G' => {
                cursor.array::<8>()?;
                self.stack.push(Value::Opaque);
            }
            // SHORT_BINSTRING and BINSTRING (Python 2), then the three lengths of unicode.
            b'U' | 0x8c => {
                let len = cursor.byte()?;
                self.push_text(cursor, u64::from(len))?;
            }
            b'T' | b'X' => {
                let len = u32::from_le_bytes(cursor.array()?);
                self.push_text(cursor, u64::from(len))?;
            }
            0x8d => {
                let len = u64::from_le_bytes(cursor.array()?);
                self.push_text(cursor, len)?;
            }
            b'q' => {
                let key = cursor.byte()?;
                self.remember(u32::from(key))?;
            }
            b'r' => {
                let key = u32::from_le_bytes(cursor.array()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let key = cursor.byte()?;
                self.recall(u32::from(key))?;
            }
            b'j' => {
                let key = u32::from_le_bytes(cursor.array()?);
                self.recall(key)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push_node(Node::Tuple(Box::default()))?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Tuple(items.into()))?;
            }
            0x85..=0x87 => {
                let mut items = vec![Value::None; usize::from(opcode - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.push_node(Node::Tuple(items.into()))?;
            }
            b']' => self.push_node(Node::List(Vec::new()))?,
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b'}' => self.push_node(Node::Dict(Vec::new()))?,
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }
            b'c' => {
                let module = text(cursor.line(MAX_NAME)?)?;
                let name = text(cursor.line(MAX_NAME)?)?;
                self.push_global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(name), Some(module)) = (self.arena.text(name), self.arena.text(module)) else {
                    return refuse("a class whose name is no string");
                };
                let global = global(module, name, self.dialect)?;
                self.push_node(Node::Global(global))?;
            }
            b'Q' => {
                let id = self.pop()?;
                let node = persistent.resolve(&self.arena, id)?;
                self.push_node(node)?;
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let value = self.call(callable, arguments)?;
                self.stack.push(value);
            }
            0x81 => {
                let (_arguments, class) = (self.pop()?, self.pop()?);
                match self.arena.global(class) {
                    Some(Global::ScriptClass) => self.push_node(Node::Object(Value::None))?,
                    _ => return refuse(format!("the pickle makes an instance of {}", self.arena.kind(class))),
                }
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                match self.node_mut(object) {
                    Some(Node::Object(attributes)) => *attributes = state,
                    // Attributes of a dictionary (`_metadata`) or of a parameter: no tensors.
                    Some(Node::Dict(_) | Node::Tensor(_)) => {}
                    _ => return refuse(format!("the pickle sets attributes of {}", self.arena.kind(object))),
                }
            }
            _ => return refuse(format!("the pickle opcode {opcode:#04x}, which no checkpoint has use for")),
        }
        Ok(())
    }

    fn charge(&mut self, steps: usize) -> Read<()> {
        self.arena.steps = self.arena.steps.saturating_add(steps);
        if self.arena.steps > MAX_STEPS { refuse(format!("a pickle of more than {MAX_STEPS} steps")) } else { Ok(()) }
    }

    fn pop(&mut self) -> Read<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return refuse("the pickle takes from an empty stack");
        }
        self.stack.pop().map_or_else(|| refuse("the pickle takes from an empty stack"), Ok)
    }

    fn top(&self) -> Read<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&value) if self.stack.len() > floor => Ok(value),
            _ => refuse("the pickle takes from an empty stack"),
        }
    }

    fn pop_to_mark(&mut self) -> Read<Vec<Value>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => refuse("the pickle closes a group it did not open"),
        }
    }

    fn node_mut(&mut self, value: Value) -> Option<&mut Node> {
        match value {
            Value::Node(index) => self.arena.nodes.get_mut(index as usize),
            _ => None,
        }
    }

    fn push_node(&mut self, node: Node) -> Read<()> {
        // A node costs a step, and the steps are far fewer than a u32 can count.
        self.stack.push(Value::Node(self.arena.nodes.len() as u32));
        self.arena.nodes.push(node);
        Ok(())
    }

    fn push_text(&mut self, cursor: &mut Cursor, len: u64) -> Read<()> {
        let text = text(cursor.bytes(len, MAX_TEXT)?)?;
        self.push_node(Node::Text(text.into()))
    }

    fn push_long(&mut self, bytes: Vec<u8>) -> Read<()> {
        if bytes.len() > 8 {
            return self.push_node(Node::Long(bytes.into()));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        whole[..bytes.len()].copy_from_slice(&bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(whole)));
        Ok(())
    }

    fn push_global(&mut self, module: &str, name: &str) -> Read<()> {
        let global = global(module, name, self.dialect)?;
        self.push_node(Node::Global(global))
    }

    fn remember(&mut self, key: u32) -> Read<()> {
        let value = self.top()?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Read<()> {
        match self.memo.get(&key) {
            Some(&value) => self.stack.push(value),
            None => return refuse(format!("the pickle refers to its object {key}, which it has not made")),
        }
        Ok(())
    }

    fn append(&mut self, items: &[Value]) -> Read<()> {
        let list = self.top()?;
        match self.node_mut(list) {
            Some(Node::List(list)) => list.extend_from_slice(items),
            _ => return refuse(format!("the pickle appends to {}", self.arena.kind(list))),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Value]) -> Read<()> {
        let dict = self.top()?;
        if !items.len().is_multiple_of(2) {
            return refuse("a dictionary with a key without a value");
        }
        match self.node_mut(dict) {
            Some(Node::Dict(dict)) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            _ => return refuse(format!("the pickle sets items of {}", self.arena.kind(dict))),
        }
        Ok(())
    }

    /// What `callable(*arguments)` stands for.
    fn call(&mut self, callable: Value, arguments: Value) -> Read<Value> {
        let Some(global) = self.arena.global(callable) else {
            return refuse(format!("the pickle calls {}", self.arena.kind(callable)));
        };
        let Some(arguments) = self.arena.tuple(arguments) else {
            return refuse(format!("the pickle calls something with {}", self.arena.kind(arguments)));
        };
        let node = match global {
            Global::First => match arguments.first() {
                Some(&first) => return Ok(first),
                None => return refuse("a call without arguments"),
            },
            Global::Opaque => return Ok(Value::Opaque),
            Global::OrderedDict => match *arguments {
                [] => Node::Dict(Vec::new()),
                [items] => self.ordered(items)?,
                _ => return refuse("a dictionary of something else than pairs"),
            },
            Global::RebuildTensor | Global::RebuildTensorV3 => {
                let tensor = self.tensor(global, arguments)?;
                self.charge(tensor.layout.rank())?;
                Node::Tensor(Arc::new(tensor))
            }
            Global::StorageType(_) | Global::Dtype(_) | Global::TensorType | Global::ScriptClass => {
                return refuse("the pickle calls a class that it has no reason to call");
            }
        };
        self.push_node(node)?;
        self.pop()
    }

    /// `OrderedDict(items)`, as Python 2 writes it. The list, made for this alone, is used up: a list copied again and
    /// again would be a bomb.
    fn ordered(&mut self, items: Value) -> Read<Node> {
        let Some(Node::List(items)) = self.node_mut(items) else {
            return refuse("a dictionary of something else than pairs");
        };
        let items = std::mem::take(items);
        let pair = |item| match self.arena.tuple(item).or_else(|| self.arena.list(item)) {
            Some(&[key, value]) => Ok((key, value)),
            _ => refuse("a dictionary of something else than pairs"),
        };
        Ok(Node::Dict(items.into_iter().map(pair).collect::<Read<_>>()?))
    }

    /// `_rebuild_tensor(storage, offset, shape, strides, …)`.
    fn tensor(&self, global: Global, arguments: &[Value]) -> Read<Tensor> {
        let [storage, offset, shape, strides, rest @ ..] = arguments else {
            return refuse("a tensor without storage, offset, shape and strides");
        };
        let Some(Node::Storage(storage)) = self.arena.node(*storage) else {
            return refuse(format!("a tensor whose storage is {}", self.arena.kind(*storage)));
        };
        let offset = natural(*offset)?;
        let (Some(shape), Some(strides)) = (self.arena.tuple(*shape), self.arena.tuple(*strides)) else {
            return refuse("a tensor whose shape or strides are no tuple");
        };
        let extent = |&extent| natural(extent).map(usize::try_from)?.or_else(|_| refuse("an extent too large"));
        let shape = shape.iter().map(extent).collect::<Read<Vec<_>>>()?;
        let strides = strides.iter().map(|&stride| natural(stride)).collect::<Read<Vec<_>>>()?;
        let dtype = match (global, storage.dtype) {
            (Global::RebuildTensorV3, None) => match rest.get(2).and_then(|&dtype| self.arena.global(dtype)) {
                Some(Global::Dtype(dtype)) => dtype,
                _ => return refuse("a tensor without a dtype"),
            },
            (Global::RebuildTensor, Some(dtype)) => dtype,
            _ => return refuse("a tensor over a storage of another kind"),
        };
        let stored = match storage.dtype {
            None => storage.elements / dtype.size() as u64,
            Some(_) => storage.elements,
        };
        let layout = Layout::new(dtype, storage.base, stored, offset, shape, strides)?;
        Ok(Tensor { slot: storage.slot, layout: Arc::new(layout) })
    }
}

fn text(bytes: Vec<u8>) -> Read<String> {
    String::from_utf8(bytes).or_else(|_| refuse("a text that is not UTF-8"))
}

/// Looks a name up in the closed list.
fn global(module: &str, name: &str, dialect: Dialect) -> Read<Global> {
    let storage = || name.strip_suffix("Storage").and_then(Dtype::from_storage);
    let tensor = || name.strip_suffix("Tensor").and_then(Dtype::from_storage);
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch", "Size") | ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::First,
        ("torch", "device") => Global::Opaque,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
        ("torch" | "torch.storage", "UntypedStorage" | "_UntypedStorage") => Global::StorageType(None),
        ("torch" | "torch.cuda", _) if storage().is_some() => Global::StorageType(storage()),
        ("torch" | "torch.cuda", _) if tensor().is_some() => Global::TensorType,
        ("torch", _) if Dtype::from_torch(name).is_some() => {
            Dtype::from_torch(name).map_or(Global::Opaque, Global::Dtype)
        }
        _ if dialect == Dialect::TorchScript => match (module, name) {
            ("torch.jit._pickle", _) if name == "restore_type_tag" || name.starts_with("build_") => Global::First,
            _ if module == "__torch__" || module.starts_with("__torch__.") => Global::ScriptClass,
            _ => return unexpected(module, name),
        },
        _ => return unexpected(module, name),
    })
}

fn unexpected(module: &str, name: &str) -> Read<Global> {
    refuse(format!(
        "the pickle names {}, which a dictionary of tensors has no use for (save the `state_dict()` alone)",
        shown(&format!("{module}.{name}"))
    ))
}
