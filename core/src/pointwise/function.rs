//! The pointwise function, as its author writes it and as the engines hold it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use image_losses_kernels::machine::{Block, Machine};
use image_losses_kernels::once::get_or_make;
use image_losses_kernels::program::Program;
use image_losses_kernels::stream::Sink;
use image_losses_kernels::{Programs, isa};

use super::expr::{Arena, Expr, Id, Node};
use super::lower::lower;
use crate::{Error, Result, Scalar, Unary};

/// Functions that are remembered with their programs; where there are more, all are forgotten, and made again.
const REMEMBERED: usize = 1024;

/// A function of `K` numbers, applied to `K` tensors element by element.
///
/// Most losses are one such function followed by a weighted reduction. Write it once over [`Expr`]; the value, the partial
/// derivatives of any order, the fused CPU kernel and the composition of tensor operations all come from it.
///
/// ```
/// use image_losses_core::{Expr, Function, Pointwise};
///
/// /// The Cauchy loss ln(1 + ((x − y)/γ)²).
/// #[derive(Clone, Debug)]
/// struct Cauchy { gamma: f64 }
///
/// impl Pointwise<2> for Cauchy {
///     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
///         (((x - y) / self.gamma).square() + 1.0).ln()
///     }
/// }
///
/// let f = Function::new(Cauchy { gamma: 2.0 });
/// let (x, y) = ([3.0f64], [1.0f64]);
/// assert_eq!(f.at(&[], &[&x[..], &y])?, vec![2f64.ln()]); // d = 2 = γ
/// assert_eq!(f.at(&[0], &[&x[..], &y])?, vec![0.5]); // 2d/(γ² + d²)
/// # Ok::<(), image_losses_core::Error>(())
/// ```
pub trait Pointwise<const K: usize>: Clone + Debug + Send + Sync + 'static {
    /// The function's value.
    fn value<'e>(&self, inputs: [Expr<'e>; K]) -> Expr<'e>;
}

/// A pointwise function as data: what tensors and graph nodes hold. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Function(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    graph: Graph,
    programs: Mutex<Vec<(Wanted, Arc<Program>)>>,
}

/// A function's nodes, operands first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Graph {
    pub(super) arity: usize,
    pub(super) nodes: Vec<Node>,
    pub(super) output: Id,
}

impl Graph {
    /// The derivative by the inputs listed in `partial`, in an arena that begins with the graph's nodes.
    fn derivative(&self, arena: &Arena, partial: &[usize]) -> Id {
        partial
            .iter()
            .fold(self.output, |of, &input| arena.derivative(of, input as u32).unwrap_or_else(|| arena.constant(0.0)))
    }
}

/// What a program computes: partial derivatives, each given by the inputs differentiated by (none: the value).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    sum: Option<Vec<usize>>,
    outputs: Vec<Vec<usize>>,
}

impl Function {
    /// The function as data. Cheap: it may be made again wherever it is used, since the same graph made before is found,
    /// with its programs.
    pub fn new<const K: usize, P: Pointwise<K>>(function: P) -> Self {
        Function::of(|inputs| function.value(inputs))
    }

    /// The function that `value` writes down.
    fn of<const K: usize>(value: impl for<'e> FnOnce([Expr<'e>; K]) -> Expr<'e>) -> Self {
        let arena = Arena::default();
        let inputs = std::array::from_fn(|k| Expr::new(&arena, arena.input(k as u32)));
        let output = value(inputs).id();
        let (nodes, outputs) = arena.needed(&[output]);
        Function::shared(Graph { arity: K, nodes, output: outputs[0] })
    }

    /// The function with this graph: the one made before, where there is such.
    fn shared(graph: Graph) -> Self {
        static KNOWN: OnceLock<Mutex<HashMap<Graph, Function>>> = OnceLock::new();
        let mut known = get_or_make(&KNOWN, Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = known.get(&graph) {
            return function.clone();
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let function = Function(Arc::new(Shared { graph: graph.clone(), programs: Mutex::default() }));
        known.insert(graph, function.clone());
        function
    }

    /// The function behind a tensor's unary operation.
    pub fn unary(operation: Unary) -> Self {
        Function::of(|[x]| match operation {
            Unary::Abs => x.abs(),
            Unary::Sign => x.sign(),
            Unary::Square => x.square(),
            Unary::Sqrt => x.sqrt(),
            Unary::Exp => x.exp(),
            Unary::Ln => x.ln(),
            Unary::Tanh => x.tanh(),
            Unary::Sigmoid => x.sigmoid(),
            Unary::Softplus => x.softplus(),
            Unary::LogSigmoid => -(-x).softplus(),
            Unary::Relu => x.relu(),
        })
    }

    /// The number of inputs.
    pub fn arity(&self) -> usize {
        self.graph().arity
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.0.graph
    }

    /// The partial derivative by the inputs listed in `partial` (none: the value) at every position of the inputs,
    /// up to the length of the shortest.
    ///
    /// # Errors
    /// [`Error::InputCount`] for another number of inputs than [`arity`](Function::arity), or a position in `partial`
    /// beyond it.
    pub fn at<F: Scalar>(&self, partial: &[usize], inputs: &[&[F]]) -> Result<Vec<F>> {
        let (arity, got) = (self.arity(), inputs.len());
        if got != arity || partial.iter().any(|&input| input >= arity) {
            return Err(Error::InputCount { operation: "pointwise", expected: arity, got });
        }
        let length = inputs.iter().map(|input| input.len()).min().unwrap_or(0);
        let mut out = vec![F::ZERO; length];
        Machine::new(isa::detect(), &self.program(None, &[partial])).run(Block {
            length,
            inputs,
            weight: None,
            scale: F::ONE,
            outputs: &mut [Sink::new(&mut out)],
            sum: None,
        });
        Ok(out)
    }

    /// The partial derivative at one position, by each node's definition: what the machine is tested against.
    #[cfg(test)]
    pub(crate) fn defined(&self, partial: &[usize], inputs: &[f64]) -> f64 {
        let arena = Arena::of(&self.graph().nodes);
        let output = self.graph().derivative(&arena, partial);
        let (nodes, outputs) = arena.needed(&[output]);
        let mut values: Vec<f64> = Vec::new();
        for node in &nodes {
            let value = node.value(inputs, |operand| values[operand as usize]);
            values.push(value);
        }
        values[outputs[0] as usize]
    }
}

impl Programs for Function {
    /// Made once for each.
    fn program(&self, sum: Option<&[usize]>, outputs: &[&[usize]]) -> Arc<Program> {
        let mut programs = self.0.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |known: &Wanted| {
            known.sum.as_deref() == sum
                && known.outputs.len() == outputs.len()
                && known.outputs.iter().zip(outputs).all(|(known, output)| known == output)
        };
        if let Some((_, program)) = programs.iter().find(|(known, _)| is_wanted(known)) {
            return Arc::clone(program);
        }
        let arena = Arena::of(&self.graph().nodes);
        let summed = sum.map(|partial| self.graph().derivative(&arena, partial));
        let stored: Vec<Id> = outputs.iter().map(|partial| self.graph().derivative(&arena, partial)).collect();
        let program = Arc::new(lower(&arena, self.arity(), summed, &stored));
        let wanted = Wanted {
            sum: sum.map(<[usize]>::to_vec),
            outputs: outputs.iter().map(|partial| partial.to_vec()).collect(),
        };
        programs.push((wanted, Arc::clone(&program)));
        program
    }
}
