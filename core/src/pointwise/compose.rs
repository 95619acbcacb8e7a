//! A pointwise function as a composition of tensor operations, for engines without the machine.

use image_losses_kernels::program::Test;

use super::expr::{Id, Node, lower_bound};
use super::function::{Function, Graph};
use crate::broadcast::broadcast_all;
use crate::{Error, Result, Shape, Tensor, Unary};

/// How a node is computed.
enum Fused {
    /// By itself.
    Node(Node),
    /// (a − b)²
    SquaredDifference(Id, Id),
    /// The Huber function of a − b.
    HuberDifference(Id, Id, f64),
    /// √(x² + a number)
    Hypotenuse(Id, f64),
    /// x·scale + shift
    Affine { x: Id, scale: f64, shift: f64 },
    /// ln(1 + e⁻ˣ)
    SoftplusOfNegated(Id),
}

impl Fused {
    /// The nodes that it takes.
    fn operands(&self) -> impl Iterator<Item = Id> + use<> {
        let (node, others) = match *self {
            Fused::Node(node) => (Some(node), [None; 2]),
            Fused::SquaredDifference(a, b) | Fused::HuberDifference(a, b, _) => (None, [Some(a), Some(b)]),
            Fused::Hypotenuse(x, _) | Fused::Affine { x, .. } | Fused::SoftplusOfNegated(x) => (None, [Some(x), None]),
        };
        node.into_iter().flat_map(|node| node.operands()).chain(others.into_iter().flatten())
    }
}

impl Graph {
    /// The operation that computes a node: one that takes the nodes before it along, where there is such.
    fn fused(&self, id: Id, smallest: f64) -> Fused {
        let of = |id: Id| self.nodes[id as usize];
        let node = of(id);
        let fused = match node {
            Node::Unary(Unary::Square, x) => match of(x) {
                Node::Sub(a, b) => Some(Fused::SquaredDifference(a, b)),
                _ => None,
            },
            Node::Huber(x, delta) => match of(x) {
                Node::Sub(a, b) => Some(Fused::HuberDifference(a, b, delta.get())),
                _ => None,
            },
            Node::Unary(Unary::Sqrt, x) => match of(x) {
                Node::Shift(square, shift) if shift.get() >= smallest => match of(square) {
                    Node::Unary(Unary::Square, x) => Some(Fused::Hypotenuse(x, shift.get())),
                    _ => None,
                },
                _ => None,
            },
            Node::Shift(x, shift) => match of(x) {
                Node::Scale(x, scale) => Some(Fused::Affine { x, scale: scale.get(), shift: shift.get() }),
                _ => Some(Fused::Affine { x, scale: 1.0, shift: shift.get() }),
            },
            Node::Scale(x, scale) => Some(Fused::Affine { x, scale: scale.get(), shift: 0.0 }),
            Node::Unary(Unary::Softplus, x) => match of(x) {
                Node::Scale(x, c) if c.get() == -1.0 => Some(Fused::SoftplusOfNegated(x)),
                _ => None,
            },
            _ => None,
        };
        fused.unwrap_or(Fused::Node(node))
    }
}

impl Function {
    /// Runs the function's operations on tensors (broadcasting among them). The function is the result times the number
    /// beside it, which a sum need not apply to every element.
    ///
    /// # Errors
    /// [`Error::InputCount`], and those of the operations: shapes that do not broadcast.
    pub fn compose<T: Tensor>(&self, inputs: &[&T]) -> Result<(T, f64)> {
        let graph = self.graph();
        let missing = || Error::InputCount { operation: "pointwise", expected: graph.arity, got: inputs.len() };
        let first = inputs.first().filter(|_| inputs.len() == graph.arity).ok_or_else(missing)?;
        let context = first.context();
        let smallest = first.dtype().smallest_normal();
        let number = |value: f64| T::constant(&context, &[value], &[1]);
        // A last multiplication by a number is left to the caller.
        let (output, mut factor) = match graph.nodes[graph.output as usize] {
            Node::Scale(x, c) => (x, c.get()),
            _ => (graph.output, 1.0),
        };
        // Which nodes are computed: what the result needs, through the operations that take several nodes at once.
        let mut is_needed = vec![false; graph.nodes.len()];
        is_needed[output as usize] = true;
        for id in (0..=output).rev() {
            if is_needed[id as usize] {
                graph.fused(id, smallest).operands().for_each(|operand| is_needed[operand as usize] = true);
            }
        }
        let mut done: Vec<Option<T>> = Vec::with_capacity(graph.nodes.len());
        for id in 0..=output {
            if !is_needed[id as usize] {
                done.push(None);
                continue;
            }
            let at = |id: Id| done[id as usize].as_ref().ok_or_else(missing);
            // The softplus is −ln σ(−x), one operation on every engine, where a softplus without a threshold is several on
            // some.
            let mut softplus_of_negated = |x: &T| {
                let logarithm = x.unary(Unary::LogSigmoid)?;
                if id == output {
                    factor = -factor;
                    return Ok(logarithm);
                }
                logarithm.scale(-1.0)
            };
            let value = match graph.fused(id, smallest) {
                Fused::SquaredDifference(a, b) => at(a)?.squared_difference(at(b)?),
                Fused::HuberDifference(a, b, delta) => at(a)?.huber_difference(at(b)?, delta),
                Fused::Hypotenuse(x, square) => at(x)?.hypotenuse(square),
                Fused::Affine { x, scale, shift } => at(x)?.affine(scale, shift),
                Fused::SoftplusOfNegated(x) => softplus_of_negated(at(x)?),
                Fused::Node(node) => match node {
                    Node::Input(k) => Ok(inputs[k as usize].clone()),
                    Node::Constant(c) => number(c.get()),
                    Node::Add(a, b) => at(a)?.add(at(b)?),
                    Node::Sub(a, b) => at(a)?.sub(at(b)?),
                    Node::Mul(a, b) => at(a)?.mul(at(b)?),
                    Node::Div(a, b) => at(a)?.div(at(b)?),
                    Node::Reciprocal(x) => number(1.0)?.div(at(x)?),
                    Node::Shift(x, c) => at(x)?.shift(c.get()),
                    Node::Scale(x, c) => at(x)?.scale(c.get()),
                    // A root whose operand may be zero has its derivative guarded: 0, not infinite.
                    Node::Unary(Unary::Sqrt, x) if lower_bound(&graph.nodes, x) < smallest => {
                        let root = at(x)?.if_zero(&number(1.0)?, at(x)?)?.unary(Unary::Sqrt)?;
                        at(x)?.if_zero(&number(0.0)?, &root)
                    }
                    Node::Unary(Unary::Softplus, x) => softplus_of_negated(&at(x)?.scale(-1.0)?),
                    Node::Unary(function, x) => at(x)?.unary(function),
                    Node::Huber(x, delta) => at(x)?.huber_difference(&number(0.0)?, delta.get()),
                    Node::LeakyRelu(x, slope) => {
                        let x = at(x)?;
                        x.if_not_positive(&x.scale(slope.get())?, x)
                    }
                    Node::Clip(x, low, high) => {
                        let (x, low, high) = (at(x)?, number(low.get())?, number(high.get())?);
                        let below = high.if_at_most(x, &high, x)?;
                        below.if_at_most(&low, &low, &below)
                    }
                    // On a tie the derivative goes to the second of a maximum, to the first of a minimum. Where that one is
                    // NaN, the other has been chosen: it is chosen again, so that its gradient is NaN too.
                    Node::Max(a, b) => {
                        let (a, b) = (at(a)?, at(b)?);
                        b.if_at_most(b, &a.if_at_most(b, b, a)?, b)
                    }
                    Node::Min(a, b) => {
                        let (a, b) = (at(a)?, at(b)?);
                        a.if_at_most(a, &a.if_at_most(b, a, b)?, a)
                    }
                    Node::Select(test, [x, bound, then, otherwise]) => {
                        let (then, otherwise) = (at(then)?, at(otherwise)?);
                        let is_zero = matches!(graph.nodes[bound as usize], Node::Constant(c) if c.get() == 0.0);
                        match test {
                            Test::AtMost if is_zero => at(x)?.if_not_positive(then, otherwise),
                            Test::AtMost => at(x)?.if_at_most(at(bound)?, then, otherwise),
                            Test::Below => at(bound)?.if_at_most(at(x)?, otherwise, then),
                            Test::Equal if is_zero => at(x)?.if_zero(then, otherwise),
                            Test::Equal => at(x)?.sub(at(bound)?)?.if_zero(then, otherwise),
                        }
                    }
                },
            }?;
            done.push(Some(value));
        }
        let mut result = done.pop().flatten().ok_or_else(missing)?;
        // A function that ignores an input is repeated over its shape all the same.
        let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape()).collect();
        let full = broadcast_all("pointwise", &shapes)?;
        let shape = result.shape();
        if shape.len() > full.len() {
            // A constant has one axis, a number may have none.
            result = result.reshape(&full)?;
        } else if shape != full {
            result = result.broadcast_to(&full)?;
        }
        Ok((result, factor))
    }
}
