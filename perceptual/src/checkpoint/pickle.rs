//! A pickle machine that knows the tensors of `torch.save` and `torch.jit.save`, and reads past everything else.
//!
//! Nothing is imported or called: a name such as `torch._utils._rebuild_tensor_v2` is looked up in a closed list, and
//! its "call" builds a description of a tensor. A name that is not in the list is a class without a meaning; its
//! instances are opaque: no arguments, items or attributes of them are kept. Everything built lies in one arena and is
//! referred to by its number, so that neither deep nesting nor cycles can exhaust the stack, and the number of steps is
//! bounded.

use std::borrow::Cow;
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
/// How much of the name of an unknown class is kept, for messages.
const MAX_CLASS: usize = 160;

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
    /// An instance of the unknown class in this node, or whatever calling it gives.
    Instance(u32),
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
    /// A class or function outside the list of [`Global`], by its full name.
    Class(Arc<str>),
    /// An instance of a TorchScript class, with its attributes once `BUILD` has given them.
    Object(Value),
    Storage(Storage),
    Tensor(Arc<Tensor>),
}

/// The names that have a meaning here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    /// A call gives an empty dictionary; the factory of missing items is not needed.
    DefaultDict,
    /// A call gives back its first argument: `torch.Size`, `_rebuild_parameter`, TorchScript's typed lists.
    First,
    /// A call gives back something no tensor depends on.
    Opaque,
    RebuildTensor,
    /// With an untyped storage and the dtype as an argument.
    RebuildTensorV3,
    /// `_rebuild_from_type_v2(function, type, arguments, state)`: a tensor of a subclass or with attributes.
    RebuildFromType,
    StorageType(StorageType),
    Dtype(Dtype),
    TensorType,
    ScriptClass,
}

/// The elements of a storage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum StorageType {
    /// Untyped bytes.
    Bytes,
    Of(Dtype),
    /// Elements of a type that is not read, and their size in bytes.
    Unread(&'static str, u64),
}

impl StorageType {
    /// The type of `torch.<name>Storage`.
    fn named(name: &str) -> Option<StorageType> {
        const UNREAD: [(&str, u64); 7] = [
            ("ComplexFloat", 8),
            ("ComplexDouble", 16),
            ("QInt8", 1),
            ("QUInt8", 1),
            ("QInt32", 4),
            ("QUInt4x2", 1),
            ("QUInt2x4", 1),
        ];
        let unread = || UNREAD.iter().find(|(known, _)| *known == name);
        Dtype::from_storage(name)
            .map(StorageType::Of)
            .or_else(|| unread().map(|&(name, size)| StorageType::Unread(name, size)))
    }

    /// Bytes per element.
    pub(super) fn size(self) -> u64 {
        match self {
            StorageType::Bytes => 1,
            StorageType::Of(dtype) => dtype.size() as u64,
            StorageType::Unread(_, size) => size,
        }
    }
}

/// A part of the storage in a slot of the file's table, in elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    pub(super) slot: usize,
    pub(super) kind: StorageType,
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

    /// The class of an opaque value, by its full name; a class itself is as opaque.
    pub(super) fn class(&self, value: Value) -> Option<&Arc<str>> {
        let (Value::Instance(index) | Value::Node(index)) = value else { return None };
        match self.nodes.get(index as usize) {
            Some(Node::Class(name)) => Some(name),
            _ => None,
        }
    }

    /// What a value is, in words.
    pub(super) fn kind(&self, value: Value) -> Cow<'static, str> {
        if let Some(name) = self.class(value) {
            let what = if matches!(value, Value::Node(_)) { "the name" } else { "an object of" };
            return format!("{what} {}", shown(name)).into();
        }
        let kind = match value {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an int",
            Value::Opaque | Value::Instance(_) => "a value without tensors",
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
                Some(Node::Class(_)) | None => "nothing",
            },
        };
        kind.into()
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
    let mut machine = Machine {
        dialect,
        arena: Arena::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        classes: HashMap::new(),
    };
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
    /// The nodes of unknown classes.
    classes: HashMap<Arc<str>, u32>,
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
                let bytes = cursor.bytes(u64::from(len))?;
                self.push_long(bytes)?;
            }
            b'G' => {
                cursor.array::<8>()?;
                self.stack.push(Value::Opaque);
            }
            // LONG4, and bytes of every length: what a tensor needs is never among them.
            0x8b | b'B' => {
                let len = u32::from_le_bytes(cursor.array()?);
                self.push_bytes(cursor, u64::from(len))?;
            }
            b'C' => {
                let len = cursor.byte()?;
                self.push_bytes(cursor, u64::from(len))?;
            }
            0x8e | 0x96 => {
                let len = u64::from_le_bytes(cursor.array()?);
                self.push_bytes(cursor, len)?;
            }
            // SHORT_BINSTRING and BINSTRING: Python 2's bytes, which are text where they are UTF-8.
            b'U' => {
                let len = cursor.byte()?;
                self.push_python2_text(cursor, u64::from(len))?;
            }
            b'T' => {
                let len = u32::from_le_bytes(cursor.array()?);
                self.push_python2_text(cursor, u64::from(len))?;
            }
            // The three lengths of unicode.
            0x8c => {
                let len = cursor.byte()?;
                self.push_text(cursor, u64::from(len))?;
            }
            b'X' => {
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
            // POP and POP_MARK: how a tuple that contains itself is written.
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
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
            // EMPTY_SET, ADDITEMS and FROZENSET: no set has a tensor that is asked for.
            0x8f => self.stack.push(Value::Opaque),
            0x90 => {
                drop(self.pop_to_mark()?);
                let set = self.top()?;
                if !self.is_opaque(set) {
                    return refuse(format!("the pickle adds to {}", self.arena.kind(set)));
                }
            }
            0x91 => {
                drop(self.pop_to_mark()?);
                self.stack.push(Value::Opaque);
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
                self.push_class(global)?;
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
                self.instance(class)?;
            }
            // NEWOBJ_EX, with keyword arguments.
            0x92 => {
                let (_keywords, _arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.instance(class)?;
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                let is_opaque = self.is_opaque(object);
                match self.node_mut(object) {
                    _ if is_opaque => {}
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

    /// Whether nothing of the value is kept.
    fn is_opaque(&self, value: Value) -> bool {
        matches!(value, Value::Opaque) || self.arena.class(value).is_some()
    }

    /// What calling an opaque value gives: as opaque, and of the same name.
    fn opaque(&self, callable: Value) -> Value {
        match callable {
            Value::Node(class) => Value::Instance(class),
            other => other,
        }
    }

    /// Pushes a new instance of a class.
    fn instance(&mut self, class: Value) -> Read<()> {
        match self.arena.global(class) {
            Some(Global::ScriptClass) => return self.push_node(Node::Object(Value::None)),
            Some(Global::Opaque) => self.stack.push(Value::Opaque),
            None if self.is_opaque(class) => self.stack.push(self.opaque(class)),
            _ => return refuse(format!("the pickle makes an instance of {}", self.arena.kind(class))),
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
        if len > MAX_TEXT && len <= cursor.remaining() {
            return self.push_bytes(cursor, len);
        }
        let text = text(cursor.bytes(len)?)?;
        self.push_node(Node::Text(text.into()))
    }

    fn push_python2_text(&mut self, cursor: &mut Cursor, len: u64) -> Read<()> {
        if len > MAX_TEXT && len <= cursor.remaining() {
            return self.push_bytes(cursor, len);
        }
        match String::from_utf8(cursor.bytes(len)?) {
            Ok(text) => self.push_node(Node::Text(text.into()))?,
            Err(_) => self.stack.push(Value::Opaque),
        }
        Ok(())
    }

    /// Passes over bytes that nothing needs: an array of NumPy, or the text that protocol 2 writes it as.
    fn push_bytes(&mut self, cursor: &mut Cursor, len: u64) -> Read<()> {
        cursor.region(len, "bytes in a pickle")?;
        self.stack.push(Value::Opaque);
        Ok(())
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
        self.push_class(global)
    }

    /// Pushes what a name stands for; a class is one node, however often it is named.
    fn push_class(&mut self, node: Node) -> Read<()> {
        let Node::Class(name) = &node else { return self.push_node(node) };
        if let Some(&known) = self.classes.get(name) {
            self.stack.push(Value::Node(known));
            return Ok(());
        }
        self.classes.insert(Arc::clone(name), self.arena.nodes.len() as u32);
        self.push_node(node)
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
        if self.is_opaque(list) {
            return Ok(());
        }
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
        if self.is_opaque(dict) {
            return Ok(());
        }
        match self.node_mut(dict) {
            Some(Node::Dict(dict)) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            _ => return refuse(format!("the pickle sets items of {}", self.arena.kind(dict))),
        }
        Ok(())
    }

    /// What `callable(*arguments)` stands for.
    fn call(&mut self, mut callable: Value, mut arguments: Value) -> Read<Value> {
        let node = loop {
            if self.is_opaque(callable) {
                return Ok(self.opaque(callable));
            }
            let Some(global) = self.arena.global(callable) else {
                return refuse(format!("the pickle calls {}", self.arena.kind(callable)));
            };
            let Some(given) = self.arena.tuple(arguments) else {
                return refuse(format!("the pickle calls something with {}", self.arena.kind(arguments)));
            };
            break match global {
                Global::First => match given.first() {
                    Some(&first) => return Ok(first),
                    None => return refuse("a call without arguments"),
                },
                Global::Opaque => return Ok(Value::Opaque),
                Global::DefaultDict => Node::Dict(Vec::new()),
                Global::OrderedDict => match *given {
                    [] => Node::Dict(Vec::new()),
                    [items] => self.ordered(items)?,
                    _ => return refuse("a dictionary of something else than pairs"),
                },
                Global::RebuildFromType => {
                    let &[function, _type, inner, ..] = given else {
                        return refuse("a tensor of a subclass without its arguments");
                    };
                    (callable, arguments) = (function, inner);
                    self.charge(1)?;
                    continue;
                }
                Global::RebuildTensor | Global::RebuildTensorV3 => match self.tensor(global, given)? {
                    Ok(tensor) => {
                        self.charge(tensor.layout.rank())?;
                        Node::Tensor(Arc::new(tensor))
                    }
                    Err(elements) => {
                        self.push_class(Node::Class(elements))?;
                        let class = self.pop()?;
                        return Ok(self.opaque(class));
                    }
                },
                Global::StorageType(_) | Global::Dtype(_) | Global::TensorType | Global::ScriptClass => {
                    return refuse("the pickle calls a class that it has no reason to call");
                }
            };
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

    /// `_rebuild_tensor(storage, offset, shape, strides, …)`; the name of the elements' type where it is one that is not
    /// read.
    fn tensor(&self, global: Global, arguments: &[Value]) -> Read<Result<Tensor, Arc<str>>> {
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
        let dtype = match (global, storage.kind) {
            (Global::RebuildTensorV3, StorageType::Bytes) => {
                let dtype = rest.get(2).copied().unwrap_or(Value::None);
                match self.arena.global(dtype) {
                    Some(Global::Dtype(dtype)) => dtype,
                    Some(_) => return refuse("a tensor without a dtype"),
                    None => match self.arena.class(dtype) {
                        Some(name) => return Ok(Err(Arc::clone(name))),
                        None => return refuse("a tensor without a dtype"),
                    },
                }
            }
            (Global::RebuildTensor, StorageType::Of(dtype)) => dtype,
            (_, StorageType::Unread(name, _)) => return Ok(Err(format!("torch.{name}Storage").into())),
            _ => return refuse("a tensor over a storage of another kind"),
        };
        let stored = match storage.kind {
            StorageType::Bytes => storage.elements / dtype.size() as u64,
            _ => storage.elements,
        };
        let layout = Layout::new(dtype, storage.base, stored, offset, shape, strides)?;
        Ok(Ok(Tensor { slot: storage.slot, layout: Arc::new(layout) }))
    }
}

fn text(bytes: Vec<u8>) -> Read<String> {
    String::from_utf8(bytes).or_else(|_| refuse("a text that is not UTF-8"))
}

/// What a name stands for: a place in the closed list, or a class without a meaning.
fn global(module: &str, name: &str, dialect: Dialect) -> Read<Node> {
    let storage = || name.strip_suffix("Storage").and_then(StorageType::named);
    let tensor = || name.strip_suffix("Tensor").and_then(Dtype::from_storage);
    Ok(Node::Global(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("collections", "defaultdict") => Global::DefaultDict,
        ("torch", "Size") | ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::First,
        ("torch", "device") => Global::Opaque,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
        ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => Global::RebuildFromType,
        ("torch" | "torch.storage", "UntypedStorage" | "_UntypedStorage") => Global::StorageType(StorageType::Bytes),
        ("torch" | "torch.cuda", _) if storage().is_some() => storage().map_or(Global::Opaque, Global::StorageType),
        ("torch" | "torch.cuda", _) if tensor().is_some() => Global::TensorType,
        ("torch", _) if Dtype::from_torch(name).is_some() => {
            Dtype::from_torch(name).map_or(Global::Opaque, Global::Dtype)
        }
        _ if dialect == Dialect::TorchScript => match (module, name) {
            ("torch.jit._pickle", _) if name == "restore_type_tag" || name.starts_with("build_") => Global::First,
            _ if module == "__torch__" || module.starts_with("__torch__.") => Global::ScriptClass,
            _ => return class(module, name),
        },
        _ => return class(module, name),
    }))
}

/// A class outside the list. No name is ever imported, so that none can do harm here; but a file whose names start
/// programs or read files was made to harm whoever opens it with Python, and is refused as a whole.
fn class(module: &str, name: &str) -> Read<Node> {
    const MODULES: [&str; 12] = [
        "os",
        "posix",
        "nt",
        "subprocess",
        "pty",
        "runpy",
        "ctypes",
        "socket",
        "shutil",
        "webbrowser",
        "importlib",
        "pip",
    ];
    const BUILTINS: [&str; 8] = ["eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint"];
    let runs = match module {
        "builtins" | "__builtin__" => BUILTINS.contains(&name),
        "torch" | "torch.serialization" | "torch.jit" => name == "load",
        "torch.hub" => true,
        _ => module.split('.').next().is_some_and(|root| MODULES.contains(&root)),
    };
    // Beyond this, a long text named again and again would take more memory than the file has bytes.
    if module.len() + name.len() > MAX_NAME {
        return refuse(format!("a name longer than {MAX_NAME} bytes"));
    }
    let full = format!("{module}.{name}");
    if runs {
        return refuse(format!("the pickle names {}, which runs programs or opens files: it is hostile", shown(&full)));
    }
    Ok(Node::Class(full.chars().take(MAX_CLASS).collect::<String>().into()))
}
