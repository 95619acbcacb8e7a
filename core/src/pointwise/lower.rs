//! From a graph to the instructions of the block machine.

use std::collections::{HashMap, HashSet};

use image_losses_kernels::program::{Instruction, Operation, Program, Slot, Stored, Summand, Test};

use super::expr::{Arena, Constant, Id, Node};
use crate::Unary;

/// What an instruction takes, before it has a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Input(u32),
    Constant(Constant),
    /// A node's value.
    Value(Id),
}

/// The program that sums node `sum` and stores nodes `outputs`.
pub(super) fn lower(arena: &Arena, inputs: usize, sum: Option<Id>, outputs: &[Id]) -> Program {
    let wanted: Vec<Id> = sum.iter().chain(outputs).copied().collect();
    let (nodes, wanted) = arena.needed(&wanted);
    let (sum, outputs) = match sum {
        Some(_) => (Some(wanted[0]), &wanted[1..]),
        None => (None, &wanted[..]),
    };
    let instructions = fused(lowered(&nodes, sum, outputs));
    let (instructions, constants, registers) = allocated(instructions, inputs);
    Program::new([inputs, outputs.len(), registers], sum.is_some(), constants, instructions)
}

type List = Vec<Instruction<Operand>>;

/// One instruction for each node; what is wanted of it follows at once, so that its register is free early.
fn lowered(nodes: &[Node], sum: Option<Id>, outputs: &[Id]) -> List {
    let operand = |id: Id| match nodes[id as usize] {
        Node::Input(k) => Operand::Input(k),
        Node::Constant(c) => Operand::Constant(c),
        _ => Operand::Value(id),
    };
    let mut list = List::new();
    for (id, node) in nodes.iter().enumerate() {
        let id = id as Id;
        let lowered = match *node {
            Node::Input(_) | Node::Constant(_) => None,
            Node::Unary(function, _) => Some((Operation::Unary(function), [0.0; 2])),
            Node::Reciprocal(_) => Some((Operation::Reciprocal, [0.0; 2])),
            Node::Add(..) => Some((Operation::Add, [0.0; 2])),
            Node::Sub(..) => Some((Operation::Sub, [0.0; 2])),
            Node::Mul(..) => Some((Operation::Mul, [0.0; 2])),
            Node::Div(..) => Some((Operation::Div, [0.0; 2])),
            Node::Max(..) => Some((Operation::Max, [0.0; 2])),
            Node::Min(..) => Some((Operation::Min, [0.0; 2])),
            Node::Shift(_, c) => Some((Operation::Shift, [c.get(), 0.0])),
            Node::Scale(_, c) => Some((Operation::Scale, [c.get(), 0.0])),
            Node::Huber(_, delta) => Some((Operation::Huber, [delta.get(), 0.0])),
            Node::LeakyRelu(_, slope) => Some((Operation::LeakyRelu, [slope.get(), 0.0])),
            Node::Clip(_, low, high) => Some((Operation::Clip, [low.get(), high.get()])),
            Node::Select(test, _) => Some((Operation::Select(test), [0.0; 2])),
        };
        if let Some((operation, constants)) = lowered {
            let operands = node.operands().map(operand).collect();
            list.push(Instruction { operation, operands, results: vec![Operand::Value(id)], constants });
        }
        let mut want = |operation| {
            list.push(Instruction { operation, operands: vec![operand(id)], results: vec![], constants: [1.0, 0.0] });
        };
        if sum == Some(id) {
            want(Operation::Sum(Summand::Value));
        }
        for (k, _) in outputs.iter().enumerate().filter(|(_, output)| **output == id) {
            want(Operation::Store(k as u32, Stored::Value));
        }
    }
    list
}

/// A change to a list: an instruction at a position, and the positions of those that go.
struct Rewrite {
    at: usize,
    instruction: Instruction<Operand>,
    gone: Vec<usize>,
}

/// The list with several instructions in one, where one loop does the work of two.
fn fused(mut list: List) -> List {
    while let Some(Rewrite { at, instruction, mut gone }) = (0..list.len()).find_map(|at| rewrite(&list, at)) {
        list[at] = instruction;
        gone.sort_unstable();
        for position in gone.into_iter().rev() {
            list.remove(position);
        }
        list = ordered(list);
    }
    list
}

/// The first rewrite that the instruction at `at` allows.
fn rewrite(list: &List, at: usize) -> Option<Rewrite> {
    let this = &list[at];
    let maker = |operand: Operand| list.iter().position(|instruction| instruction.results.contains(&operand));
    let uses = |operand: Operand| {
        list.iter().flat_map(|instruction| &instruction.operands).filter(|&&used| used == operand).count()
    };
    // The instruction that makes operand `k`, and its position, if no other takes the result.
    let only_for_this = |k: usize| {
        let operand = this.operands[k];
        let position = maker(operand)?;
        (uses(operand) == 1 && list[position].results.len() == 1).then(|| (position, &list[position]))
    };
    let change = |instruction, gone: &[usize]| Some(Rewrite { at, instruction, gone: gone.to_vec() });
    match this.operation {
        Operation::Shift => {
            let (position, scaled) = only_for_this(0).filter(|(_, maker)| maker.operation == Operation::Scale)?;
            let constants = [scaled.constants[0], this.constants[0]];
            let operands = scaled.operands.clone();
            change(Instruction { operation: Operation::Affine, operands, constants, ..this.clone() }, &[position])
        }
        Operation::Unary(Unary::Sqrt) => {
            let (shift, shifted) = only_for_this(0).filter(|(_, maker)| maker.operation == Operation::Shift)?;
            let square = maker(shifted.operands[0])
                .filter(|&square| list[square].operation == Operation::Unary(Unary::Square))
                .filter(|_| uses(shifted.operands[0]) == 1)?;
            let (operands, constants) = (list[square].operands.clone(), shifted.constants);
            let instruction = Instruction { operation: Operation::Hypotenuse, operands, constants, ..this.clone() };
            change(instruction, &[shift, square])
        }
        Operation::Add => [0, 1].into_iter().find_map(|k| {
            let (position, product) = only_for_this(k).filter(|(_, maker)| maker.operation == Operation::Mul)?;
            let operands = vec![product.operands[0], product.operands[1], this.operands[1 - k]];
            change(Instruction { operation: Operation::MulAdd, operands, ..this.clone() }, &[position])
        }),
        Operation::Unary(Unary::Softplus) => {
            let is_sigmoid = |other: &Instruction<Operand>| {
                other.operation == Operation::Unary(Unary::Sigmoid) && other.operands == this.operands
            };
            let sigmoid = list.iter().position(is_sigmoid)?;
            let results = vec![this.results[0], list[sigmoid].results[0]];
            change(Instruction { operation: Operation::SoftplusSigmoid, results, ..this.clone() }, &[sigmoid])
        }
        Operation::Sum(Summand::Value) => {
            if let Some((position, made)) = only_for_this(0) {
                let summand = match made.operation {
                    Operation::Unary(Unary::Abs) => Some(Summand::Abs),
                    Operation::Unary(Unary::Square) => Some(Summand::Square),
                    Operation::Unary(Unary::Relu) => Some(Summand::Relu),
                    Operation::Huber => Some(Summand::Huber),
                    Operation::Hypotenuse => Some(Summand::Hypotenuse),
                    Operation::Sub => Some(Summand::Difference),
                    _ => None,
                };
                if let Some(summand) = summand {
                    let (operation, operands) = (Operation::Sum(summand), made.operands.clone());
                    let constants = [1.0, made.constants[0]];
                    return change(Instruction { operation, operands, results: vec![], constants }, &[position]);
                }
            }
            let root = maker(this.operands[0]).filter(|&root| list[root].operation == Operation::Hypotenuse)?;
            change(Instruction { operation: Operation::SumHypotenuse, ..list[root].clone() }, &[root])
        }
        Operation::Store(output, Stored::Value) => stored_with_maker(this, output, only_for_this(0))
            .or_else(|| summed_too(list, at))
            .map(|(instruction, gone)| Rewrite { at, instruction, gone }),
        Operation::Store(_, Stored::Sign | Stored::Step | Stored::Clip | Stored::Quotient) => {
            summed_too(list, at).map(|(instruction, gone)| Rewrite { at, instruction, gone })
        }
        _ => None,
    }
}

/// A store that takes along the instruction which makes its operand.
fn stored_with_maker(
    store: &Instruction<Operand>,
    output: u32,
    maker: Option<(usize, &Instruction<Operand>)>,
) -> Option<(Instruction<Operand>, Vec<usize>)> {
    let (position, made) = maker?;
    let (stored, constants) = match made.operation {
        Operation::Scale => (Stored::Value, [store.constants[0] * made.constants[0], 0.0]),
        Operation::Unary(Unary::Sign) => (Stored::Sign, store.constants),
        Operation::Shift => (Stored::Shift, [store.constants[0], made.constants[0]]),
        Operation::Clip if made.constants[0] == -made.constants[1] => {
            (Stored::Clip, [store.constants[0], made.constants[1]])
        }
        Operation::Sub => (Stored::Difference, store.constants),
        Operation::Div => (Stored::Quotient, store.constants),
        Operation::Mul => (Stored::Product, store.constants),
        Operation::Select(Test::AtMost) => match made.operands[1..] {
            [Operand::Constant(bound), Operand::Constant(then), Operand::Constant(otherwise)]
                if bound.get() == 0.0 && then.get() == 0.0 =>
            {
                (Stored::Step, [store.constants[0] * otherwise.get(), 0.0])
            }
            _ => return None,
        },
        _ => return None,
    };
    let operands = match stored {
        Stored::Step => vec![made.operands[0]],
        _ => made.operands.clone(),
    };
    let operation = Operation::Store(output, stored);
    Some((Instruction { operation, operands, results: vec![], constants }, vec![position]))
}

/// A store of a derivative together with the sum of the value, whose operand it shares.
fn summed_too(list: &List, at: usize) -> Option<(Instruction<Operand>, Vec<usize>)> {
    let store = &list[at];
    let Operation::Store(output, stored) = store.operation else { return None };
    let summand = match stored {
        Stored::Value => Summand::Square,
        Stored::Sign => Summand::Abs,
        Stored::Step => Summand::Relu,
        Stored::Clip => Summand::Huber,
        Stored::Quotient => Summand::Hypotenuse,
        _ => return None,
    };
    let operand = store.operands[0];
    let uses_of = |operand: Operand| {
        list.iter().flat_map(|instruction| &instruction.operands).filter(|&&used| used == operand).count()
    };
    let is_its_sum = |other: &Instruction<Operand>| match summand {
        // x over the root that is summed and that nothing else takes.
        Summand::Hypotenuse => {
            other.operation == Operation::SumHypotenuse
                && other.operands == [operand]
                && other.results == store.operands[1..]
                && uses_of(store.operands[1]) == 1
        }
        _ => {
            other.operation == Operation::Sum(summand)
                && other.operands == store.operands
                && (summand != Summand::Huber || other.constants[1] == store.constants[1])
        }
    };
    let sum = list.iter().position(is_its_sum)?;
    let mut constants = store.constants;
    if summand == Summand::Hypotenuse {
        constants[1] = list[sum].constants[0];
    }
    let mut gone = vec![sum];
    // A difference that nothing else takes is made in the same loop.
    let uses = uses_of(operand);
    let difference = list
        .iter()
        .position(|made| made.results == [operand] && made.operation == Operation::Sub)
        .filter(|_| uses == 2);
    let operands = match difference {
        Some(difference) => list[difference].operands.clone(),
        None => vec![operand],
    };
    gone.extend(difference);
    let operation = Operation::SumAndStore { output, summand, of_difference: difference.is_some() };
    Some((Instruction { operation, operands, results: vec![], constants }, gone))
}

/// The same instructions, each after those whose results it takes, else in the order given.
fn ordered(list: List) -> List {
    let mut ready: HashSet<Id> = HashSet::new();
    let mut left: Vec<Option<Instruction<Operand>>> = list.into_iter().map(Some).collect();
    let mut placed = List::with_capacity(left.len());
    while placed.len() < left.len() {
        let before = placed.len();
        for place in &mut left {
            let is_ready = |operand: &Operand| !matches!(operand, Operand::Value(id) if !ready.contains(id));
            if let Some(instruction) = place.take_if(|instruction| instruction.operands.iter().all(is_ready)) {
                ready.extend(instruction.results.iter().filter_map(|result| match result {
                    Operand::Value(id) => Some(*id),
                    _ => None,
                }));
                placed.push(instruction);
            }
        }
        assert!(placed.len() > before, "instructions that wait for each other");
    }
    placed
}

/// The instructions with a slot for each operand and result, the constants, and the number of registers: each is used again
/// once its value has been taken for the last time.
fn allocated(list: List, inputs: usize) -> (Vec<Instruction<Slot>>, Vec<f64>, usize) {
    let mut constants: Vec<Constant> = Vec::new();
    let mut last_use: HashMap<Id, usize> = HashMap::new();
    for (position, instruction) in list.iter().enumerate() {
        for operand in &instruction.operands {
            match *operand {
                Operand::Value(id) => {
                    last_use.insert(id, position);
                }
                Operand::Constant(c) if !constants.contains(&c) => constants.push(c),
                Operand::Constant(_) | Operand::Input(_) => {}
            }
        }
    }
    let first = inputs + constants.len();
    let mut registers = 0;
    let mut free: Vec<Slot> = Vec::new();
    let mut places: HashMap<Id, Slot> = HashMap::new();
    let mut instructions = Vec::with_capacity(list.len());
    for (position, instruction) in list.into_iter().enumerate() {
        let slot = |operand: &Operand| match operand {
            Operand::Input(k) => *k,
            Operand::Constant(c) => {
                (inputs + constants.iter().position(|known| known == c).unwrap_or_default()) as Slot
            }
            Operand::Value(id) => places[id],
        };
        let operands: Vec<Slot> = instruction.operands.iter().map(slot).collect();
        for operand in &instruction.operands {
            if let Operand::Value(id) = operand
                && last_use[id] == position
            {
                free.extend(places.remove(id));
            }
        }
        let mut results = Vec::with_capacity(instruction.results.len());
        for result in &instruction.results {
            let Operand::Value(id) = *result else { continue };
            let slot = free.pop().unwrap_or_else(|| {
                registers += 1;
                (first + registers - 1) as Slot
            });
            results.push(slot);
            places.insert(id, slot);
        }
        // A result that nothing takes.
        for result in &instruction.results {
            if let Operand::Value(id) = result
                && !last_use.contains_key(id)
            {
                free.extend(places.remove(id));
            }
        }
        let Instruction { operation, constants, .. } = instruction;
        instructions.push(Instruction { operation, operands, results, constants });
    }
    (instructions, constants.into_iter().map(Constant::get).collect(), registers)
}
