//! Symbolic derivatives.

use image_losses_kernels::program::Test;

use super::expr::{Arena, Constant, Id, Node};
use crate::Unary;

impl Arena {
    /// The derivative of node `of` by input `input`, as a node; `None` where it does not depend on it.
    ///
    /// Forward through the graph, each operation once: a product's rule is applied on the way, and a choice between
    /// operands is one between their derivatives. No derivative that is infinite in the operand not taken is ever multiplied
    /// by 0, as it would be in a sweep backward.
    pub(crate) fn derivative(&self, of: Id, input: u32) -> Option<Id> {
        let is_needed = self.needed_by(of);
        let mut derivatives: Vec<Option<Id>> = Vec::with_capacity(of as usize + 1);
        for id in 0..=of {
            let derivative = match is_needed[id as usize] {
                true => self.derivative_of_node(id, input, |operand| derivatives[operand as usize]),
                false => None,
            };
            derivatives.push(derivative);
        }
        derivatives.pop().flatten()
    }

    /// Which of the nodes up to `of` it depends on.
    fn needed_by(&self, of: Id) -> Vec<bool> {
        let mut needed = vec![false; of as usize + 1];
        needed[of as usize] = true;
        for id in (0..=of).rev() {
            if needed[id as usize] {
                self.node(id).operands().for_each(|operand| needed[operand as usize] = true);
            }
        }
        needed
    }

    /// The derivative of node `id`, from those of its operands.
    fn derivative_of_node(&self, id: Id, input: u32, of: impl Fn(Id) -> Option<Id>) -> Option<Id> {
        let zero = || self.constant(0.0);
        let mul = |a, b| self.push(Node::Mul(a, b));
        // `then` where x ≤ `bound`, else `otherwise`.
        let at_most = |x, bound, then, otherwise| self.push(Node::Select(Test::AtMost, [x, bound, then, otherwise]));
        // Operands of which one is taken: what has no derivative has 0.
        let either = |a, b| match (of(a), of(b)) {
            (None, None) => None,
            (da, db) => Some((da.unwrap_or_else(zero), db.unwrap_or_else(zero))),
        };
        Some(match self.node(id) {
            Node::Input(k) if k == input => self.constant(1.0),
            Node::Input(_) | Node::Constant(_) => return None,
            Node::Unary(function, x) => {
                let dx = of(x)?;
                match function {
                    Unary::Abs => mul(dx, self.push(Node::Unary(Unary::Sign, x))),
                    // 0, or NaN.
                    Unary::Sign => self.scale(id, 0.0),
                    Unary::Square => self.scale(mul(dx, x), 2.0),
                    Unary::Sqrt => {
                        let slope = self.scale(self.push(Node::Div(dx, id)), 0.5);
                        // Where the operand may be zero, in single precision too.
                        match self.lower_bound(x) >= f64::from(f32::MIN_POSITIVE) {
                            true => slope,
                            false => self.push(Node::Select(Test::Equal, [x, zero(), zero(), slope])),
                        }
                    }
                    Unary::Exp => mul(dx, id),
                    Unary::Ln => self.push(Node::Div(dx, x)),
                    Unary::Tanh => {
                        let square = self.push(Node::Unary(Unary::Square, id));
                        mul(dx, self.shift(self.scale(square, -1.0), 1.0))
                    }
                    Unary::Sigmoid => mul(dx, mul(id, self.shift(self.scale(id, -1.0), 1.0))),
                    Unary::Softplus => mul(dx, self.push(Node::Unary(Unary::Sigmoid, x))),
                    Unary::LogSigmoid => mul(dx, self.push(Node::Unary(Unary::Sigmoid, self.scale(x, -1.0)))),
                    Unary::Relu => at_most(x, zero(), zero(), dx),
                }
            }
            Node::Reciprocal(x) => self.scale(mul(mul(of(x)?, id), id), -1.0),
            Node::Add(a, b) => match (of(a), of(b)) {
                (Some(da), Some(db)) => self.push(Node::Add(da, db)),
                (da, db) => da.or(db)?,
            },
            Node::Sub(a, b) => match (of(a), of(b)) {
                (Some(da), Some(db)) => self.push(Node::Sub(da, db)),
                (Some(da), None) => da,
                (None, db) => self.scale(db?, -1.0),
            },
            Node::Mul(a, b) => match (of(a), of(b)) {
                (Some(da), Some(db)) => self.push(Node::Add(mul(da, b), mul(a, db))),
                (Some(da), None) => mul(da, b),
                (None, db) => mul(a, db?),
            },
            Node::Div(a, b) => {
                let dividend = match (of(a), of(b)) {
                    (Some(da), Some(db)) => self.push(Node::Sub(da, mul(id, db))),
                    (Some(da), None) => da,
                    (None, db) => self.scale(mul(id, db?), -1.0),
                };
                self.push(Node::Div(dividend, b))
            }
            Node::Max(a, b) => {
                let (da, db) = either(a, b)?;
                at_most(a, b, db, da)
            }
            Node::Min(a, b) => {
                let (da, db) = either(a, b)?;
                at_most(a, b, da, db)
            }
            Node::Shift(x, _) => of(x)?,
            Node::Scale(x, c) => self.scale(of(x)?, c.get()),
            Node::Huber(x, delta) => mul(of(x)?, self.push(Node::Clip(x, Constant::new(-delta.get()), delta))),
            Node::LeakyRelu(x, slope) => {
                let dx = of(x)?;
                at_most(x, zero(), self.scale(dx, slope.get()), dx)
            }
            Node::Clip(x, low, high) => {
                let (low, high) = (self.constant(low.get()), self.constant(high.get()));
                let below_high = self.push(Node::Select(Test::Below, [x, high, of(x)?, zero()]));
                at_most(x, low, zero(), below_high)
            }
            Node::Select(test, [x, bound, then, otherwise]) => {
                let branches = either(then, otherwise);
                if branches.is_none() {
                    // 0, or NaN where what is compared is.
                    of(x).or(of(bound))?;
                }
                let (then, otherwise) = branches.unwrap_or_else(|| (zero(), zero()));
                self.push(Node::Select(test, [x, bound, then, otherwise]))
            }
        })
    }
}
