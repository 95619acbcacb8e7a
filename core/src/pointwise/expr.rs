//! Expressions: pointwise functions as data.

use std::cell::RefCell;
use std::fmt::{self, Debug};
use std::ops::{Add, Div, Mul, Neg, Sub};

use image_losses_kernels::program::Test;

use crate::Unary;

/// The position of a node in its arena.
pub(crate) type Id = u32;

/// A constant, compared and hashed by its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Constant(u64);

impl Constant {
    pub(crate) fn new(value: f64) -> Self {
        // −0 as 0: they are one constant.
        Constant((value + 0.0).to_bits())
    }
    pub(crate) fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// One operation; operands are earlier nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    Input(u32),
    Constant(Constant),
    /// Any function but [`Unary::LogSigmoid`], which is −softplus(−x).
    Unary(Unary, Id),
    /// 1/x
    Reciprocal(Id),
    Add(Id, Id),
    Sub(Id, Id),
    Mul(Id, Id),
    Div(Id, Id),
    Max(Id, Id),
    Min(Id, Id),
    /// x + c
    Shift(Id, Constant),
    /// x·c
    Scale(Id, Constant),
    Huber(Id, Constant),
    LeakyRelu(Id, Constant),
    /// Lower and upper bound.
    Clip(Id, Constant, Constant),
    /// The third where the comparison of the first with the second holds, else the fourth; NaN where either of the first
    /// two is.
    Select(Test, [Id; 4]),
}

impl Node {
    /// The nodes that this one takes.
    pub(crate) fn operands(&self) -> impl Iterator<Item = Id> + use<> {
        let (operands, number) = match *self {
            Node::Input(_) | Node::Constant(_) => ([0; 4], 0),
            Node::Unary(_, x)
            | Node::Reciprocal(x)
            | Node::Shift(x, _)
            | Node::Scale(x, _)
            | Node::Huber(x, _)
            | Node::LeakyRelu(x, _)
            | Node::Clip(x, ..) => ([x, 0, 0, 0], 1),
            Node::Add(a, b)
            | Node::Sub(a, b)
            | Node::Mul(a, b)
            | Node::Div(a, b)
            | Node::Max(a, b)
            | Node::Min(a, b) => ([a, b, 0, 0], 2),
            Node::Select(_, operands) => (operands, 4),
        };
        operands.into_iter().take(number)
    }

    /// The same operation on the nodes that `at` gives for its operands.
    pub(crate) fn with(self, at: impl Fn(Id) -> Id) -> Self {
        match self {
            Node::Input(_) | Node::Constant(_) => self,
            Node::Unary(function, x) => Node::Unary(function, at(x)),
            Node::Reciprocal(x) => Node::Reciprocal(at(x)),
            Node::Add(a, b) => Node::Add(at(a), at(b)),
            Node::Sub(a, b) => Node::Sub(at(a), at(b)),
            Node::Mul(a, b) => Node::Mul(at(a), at(b)),
            Node::Div(a, b) => Node::Div(at(a), at(b)),
            Node::Max(a, b) => Node::Max(at(a), at(b)),
            Node::Min(a, b) => Node::Min(at(a), at(b)),
            Node::Shift(x, c) => Node::Shift(at(x), c),
            Node::Scale(x, c) => Node::Scale(at(x), c),
            Node::Huber(x, c) => Node::Huber(at(x), c),
            Node::LeakyRelu(x, c) => Node::LeakyRelu(at(x), c),
            Node::Clip(x, low, high) => Node::Clip(at(x), low, high),
            Node::Select(test, operands) => Node::Select(test, operands.map(at)),
        }
    }

    /// The node's value, from those of its operands: its definition, which folds constants and which the machine is tested
    /// against.
    pub(crate) fn value(&self, inputs: &[f64], at: impl Fn(Id) -> f64) -> f64 {
        let clip = |x: f64, low: f64, high: f64| {
            if x < low {
                low
            } else if x > high {
                high
            } else {
                x
            }
        };
        match *self {
            Node::Input(k) => inputs[k as usize],
            Node::Constant(c) => c.get(),
            Node::Unary(function, x) => {
                let x = at(x);
                let softplus = |x: f64| (if x <= 0.0 { 0.0 } else { x }) + (-x.abs()).exp().ln_1p();
                match function {
                    Unary::Abs => x.abs(),
                    Unary::Sign if x == 0.0 || x.is_nan() => x + 0.0,
                    Unary::Sign => x.signum(),
                    Unary::Square => x * x,
                    Unary::Sqrt => x.sqrt(),
                    Unary::Exp => x.exp(),
                    Unary::Ln => x.ln(),
                    Unary::Tanh => x.tanh(),
                    Unary::Sigmoid => {
                        let z = (-x.abs()).exp();
                        (if x < 0.0 { z } else { 1.0 }) / (1.0 + z)
                    }
                    Unary::Softplus => softplus(x),
                    Unary::LogSigmoid => -softplus(-x),
                    Unary::Relu => {
                        if x <= 0.0 {
                            0.0
                        } else {
                            x
                        }
                    }
                }
            }
            Node::Reciprocal(x) => 1.0 / at(x),
            Node::Add(a, b) => at(a) + at(b),
            Node::Sub(a, b) => at(a) - at(b),
            Node::Mul(a, b) => at(a) * at(b),
            Node::Div(a, b) => at(a) / at(b),
            Node::Max(a, b) => {
                let (a, b) = (at(a), at(b));
                if a.is_nan() || a > b { a } else { b }
            }
            Node::Min(a, b) => {
                let (a, b) = (at(a), at(b));
                if a.is_nan() || a < b { a } else { b }
            }
            Node::Shift(x, c) => at(x) + c.get(),
            Node::Scale(x, c) => at(x) * c.get(),
            Node::Huber(x, delta) => {
                // With c the clipped x both pieces are c·(x − ½c), in which no square of a large x arises.
                let x = at(x);
                let clipped = clip(x, -delta.get(), delta.get());
                clipped * (x - clipped * 0.5)
            }
            Node::LeakyRelu(x, slope) => {
                let x = at(x);
                if x <= 0.0 { x * slope.get() } else { x }
            }
            Node::Clip(x, low, high) => clip(at(x), low.get(), high.get()),
            Node::Select(test, [x, bound, then, otherwise]) => {
                let (x, bound) = (at(x), at(bound));
                let holds = match test {
                    _ if x.is_nan() || bound.is_nan() => return f64::NAN,
                    Test::AtMost => x <= bound,
                    Test::Below => x < bound,
                    Test::Equal => x == bound,
                };
                at(if holds { then } else { otherwise })
            }
        }
    }
}

/// Nodes in the order in which they were made; each operation on the same operands is there once.
#[derive(Debug, Default)]
pub(crate) struct Arena(RefCell<Vec<Node>>);

impl Arena {
    /// The nodes of a graph, operands first.
    pub(crate) fn of(nodes: &[Node]) -> Self {
        Arena(RefCell::new(nodes.to_vec()))
    }

    pub(crate) fn node(&self, id: Id) -> Node {
        self.0.borrow()[id as usize]
    }

    pub(crate) fn input(&self, k: u32) -> Id {
        self.raw(Node::Input(k))
    }

    pub(crate) fn constant(&self, value: f64) -> Id {
        self.raw(Node::Constant(Constant::new(value)))
    }

    fn known(&self, id: Id) -> Option<f64> {
        match self.node(id) {
            Node::Constant(c) => Some(c.get()),
            _ => None,
        }
    }

    /// Adds a node as it is, or finds the same one.
    fn raw(&self, node: Node) -> Id {
        let mut nodes = self.0.borrow_mut();
        let found = nodes.iter().rposition(|known| *known == node);
        found.unwrap_or_else(|| {
            nodes.push(node);
            nodes.len() - 1
        }) as Id
    }

    /// x and c where the node is x·c with a small power of two c, which can move past a product without rounding; else
    /// the node and 1.
    fn factored(&self, id: Id) -> (Id, f64) {
        match self.node(id) {
            Node::Scale(x, c) if is_small_power_of_two(c.get()) => (x, c.get()),
            _ => (id, 1.0),
        }
    }

    pub(crate) fn scale(&self, x: Id, by: f64) -> Id {
        self.push(Node::Scale(x, Constant::new(by)))
    }

    pub(crate) fn shift(&self, x: Id, by: f64) -> Id {
        self.push(Node::Shift(x, Constant::new(by)))
    }

    /// Adds a node in its simplest form, or finds the same one. Only rewritten so that NaN and infinity come out as they
    /// would have: never x·0 = 0 or x − x = 0.
    pub(crate) fn push(&self, node: Node) -> Id {
        if node.operands().next().is_some() && node.operands().all(|operand| self.known(operand).is_some()) {
            let value = node.value(&[], |operand| self.known(operand).unwrap_or(f64::NAN));
            if value.is_finite() {
                return self.constant(value);
            }
        }
        match node {
            Node::Shift(x, c) if c.get() == 0.0 => x,
            Node::Scale(x, c) => match self.node(x) {
                _ if c.get() == 1.0 => x,
                Node::Scale(inner, d) if is_moderate(c.get()) && is_moderate(d.get()) => {
                    self.scale(inner, c.get() * d.get())
                }
                _ => self.raw(node),
            },
            Node::Unary(function @ (Unary::Square | Unary::Abs), x) => match self.factored(x) {
                (inner, -1.0) => self.push(Node::Unary(function, inner)),
                _ => self.raw(node),
            },
            Node::Add(a, b) | Node::Sub(a, b) => self.push_sum(node, a, b),
            Node::Mul(a, b) => match (self.known(a), self.known(b)) {
                (None, Some(c)) => self.scale(a, c),
                (Some(c), None) => self.scale(b, c),
                _ if a == b => self.push(Node::Unary(Unary::Square, a)),
                _ => {
                    let ((x, c), (y, d)) = (self.factored(a), self.factored(b));
                    match (self.node(x), self.node(y)) {
                        _ if (c, d) != (1.0, 1.0) => self.scale(self.push(Node::Mul(x, y)), c * d),
                        (_, Node::Reciprocal(divisor)) => self.push(Node::Div(x, divisor)),
                        (Node::Reciprocal(divisor), _) => self.push(Node::Div(y, divisor)),
                        _ => self.raw(Node::Mul(x.min(y), x.max(y))),
                    }
                }
            },
            Node::Div(a, b) => match (self.known(a), self.known(b)) {
                (None, Some(c)) if is_moderate(c) => self.scale(a, 1.0 / c),
                (Some(c), None) if c.abs() >= 0.5 => self.scale(self.raw(Node::Reciprocal(b)), c),
                _ => match (self.factored(a), self.factored(b)) {
                    ((_, 1.0), (_, 1.0)) => self.raw(node),
                    ((x, c), (y, d)) => self.scale(self.push(Node::Div(x, y)), c / d),
                },
            },
            _ => self.raw(node),
        }
    }

    /// As [`push`](Arena::push), for the sum or the difference of `a` and `b`.
    fn push_sum(&self, node: Node, a: Id, b: Id) -> Id {
        let is_sum = matches!(node, Node::Add(..));
        match (self.known(a), self.known(b)) {
            (None, Some(c)) => return self.shift(a, if is_sum { c } else { -c }),
            (Some(c), None) => return self.shift(if is_sum { b } else { self.scale(b, -1.0) }, c),
            _ => {}
        }
        match (self.factored(a), self.factored(b)) {
            _ if is_sum && a == b => self.scale(a, 2.0),
            ((x, c), (y, d)) if c == d && c != 1.0 && c.abs() >= 1.0 => {
                let of_factored = if is_sum { Node::Add(x, y) } else { Node::Sub(x, y) };
                self.scale(self.push(of_factored), c)
            }
            (_, (y, -1.0)) => self.push(if is_sum { Node::Sub(a, y) } else { Node::Add(a, y) }),
            ((x, -1.0), _) if is_sum => self.push(Node::Sub(b, x)),
            _ if is_sum => self.raw(Node::Add(a.min(b), a.max(b))),
            _ => self.raw(node),
        }
    }

    /// A number that the node's value is never below.
    pub(crate) fn lower_bound(&self, id: Id) -> f64 {
        lower_bound(&self.0.borrow(), id)
    }

    /// The nodes that `outputs` need, in an order in which operands come first, and where in it the outputs are.
    pub(crate) fn needed(&self, outputs: &[Id]) -> (Vec<Node>, Vec<Id>) {
        let nodes = self.0.borrow();
        let mut is_needed = vec![false; nodes.len()];
        outputs.iter().for_each(|&output| is_needed[output as usize] = true);
        for (id, node) in nodes.iter().enumerate().rev() {
            if is_needed[id] {
                node.operands().for_each(|operand| is_needed[operand as usize] = true);
            }
        }
        let mut place = vec![0; nodes.len()];
        let mut kept = Vec::new();
        for (id, node) in nodes.iter().enumerate().filter(|(id, _)| is_needed[*id]) {
            place[id] = kept.len() as Id;
            kept.push(node.with(|operand| place[operand as usize]));
        }
        (kept, outputs.iter().map(|&output| place[output as usize]).collect())
    }
}

/// A number that the value of node `id` is never below.
pub(crate) fn lower_bound(nodes: &[Node], id: Id) -> f64 {
    let of = |id: Id| lower_bound(nodes, id);
    match nodes[id as usize] {
        Node::Constant(c) => c.get(),
        Node::Unary(
            Unary::Abs | Unary::Square | Unary::Sqrt | Unary::Exp | Unary::Sigmoid | Unary::Softplus | Unary::Relu,
            _,
        )
        | Node::Huber(..) => 0.0,
        Node::Add(a, b) => of(a) + of(b),
        Node::Shift(x, c) => of(x) + c.get(),
        Node::Scale(x, c) if c.get() > 0.0 => of(x) * c.get(),
        Node::Clip(_, low, _) => low.get(),
        _ => f64::NEG_INFINITY,
    }
}

/// Whether a factor can move past products without rounding, and without overflow that would not have been.
fn is_small_power_of_two(c: f64) -> bool {
    [0.25, 0.5, 1.0, 2.0, 4.0].contains(&c.abs())
}

/// Whether a constant's reciprocal and product with another such one are normal numbers of single precision.
fn is_moderate(c: f64) -> bool {
    (1e-18..1e18).contains(&c.abs())
}

/// A quantity in a [`Pointwise`](crate::Pointwise) function: an input, a constant, or what was computed of them.
///
/// Operators take expressions and numbers on either side. Nothing is computed while a function is written down: the result
/// is the function as data, from which the value, the derivatives of any order, the kernels of the CPU engines and the
/// operations of the others are made.
///
/// Every operation has a derivative that is finite wherever its value is, with the field's conventions where the
/// mathematical one does not exist: `abs` and `sqrt` have derivative 0 at 0.
///
/// NaN in, NaN out: a function of NaN is NaN and so is its derivative, also where the function only compares the number. A
/// derivative that is constant, as that of 2x, stays what it is. Where one of several operands is chosen (`max`, `relu`, `if_zero`, …), the derivatives of those not taken do not matter, be
/// they infinite.
///
/// ```
/// use image_losses_core::{Expr, Function, Pointwise};
///
/// /// x·tanh(ln(1 + eˣ))
/// #[derive(Clone, Debug)]
/// struct Mish;
///
/// impl Pointwise<1> for Mish {
///     fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
///         x * x.softplus().tanh()
///     }
/// }
///
/// let mish = Function::new(Mish);
/// assert_eq!(mish.at(&[0], &[&[0.0f64]])?, [2f64.ln().tanh()]); // the derivative at 0
/// # Ok::<(), image_losses_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Expr<'e> {
    arena: &'e Arena,
    id: Id,
}

impl<'e> Expr<'e> {
    pub(crate) fn new(arena: &'e Arena, id: Id) -> Self {
        Expr { arena, id }
    }
    pub(crate) fn id(self) -> Id {
        self.id
    }
    fn push(self, node: Node) -> Self {
        Expr { arena: self.arena, id: self.arena.push(node) }
    }
    fn unary(self, function: Unary) -> Self {
        self.push(Node::Unary(function, self.id))
    }
    fn select(self, test: Test, bound: Self, then: Self, otherwise: Self) -> Self {
        self.push(Node::Select(test, [self.id, bound.id, then.id, otherwise.id]))
    }

    /// The constant `value`.
    pub fn constant(self, value: f64) -> Self {
        Expr { arena: self.arena, id: self.arena.constant(value) }
    }
    /// |x|; derivative sign(x), 0 at 0.
    pub fn abs(self) -> Self {
        self.unary(Unary::Abs)
    }
    /// sign(x): −1, 0 or 1; derivative 0. Both are NaN for NaN.
    pub fn sign(self) -> Self {
        self.unary(Unary::Sign)
    }
    /// x².
    pub fn square(self) -> Self {
        self.unary(Unary::Square)
    }
    /// √x; derivative 1/(2√x), 0 at 0.
    pub fn sqrt(self) -> Self {
        self.unary(Unary::Sqrt)
    }
    /// eˣ.
    pub fn exp(self) -> Self {
        self.unary(Unary::Exp)
    }
    /// Natural logarithm.
    pub fn ln(self) -> Self {
        self.unary(Unary::Ln)
    }
    /// Hyperbolic tangent.
    pub fn tanh(self) -> Self {
        self.unary(Unary::Tanh)
    }
    /// The logistic function 1/(1 + e⁻ˣ).
    pub fn sigmoid(self) -> Self {
        self.unary(Unary::Sigmoid)
    }
    /// ln(1 + eˣ), computed without overflow; its derivative is [`sigmoid`](Expr::sigmoid).
    pub fn softplus(self) -> Self {
        self.unary(Unary::Softplus)
    }
    /// max(0, x); derivative 0 at 0.
    pub fn relu(self) -> Self {
        self.unary(Unary::Relu)
    }
    /// x where x > 0, else `slope`·x; derivative `slope` at 0.
    pub fn leaky_relu(self, slope: f64) -> Self {
        self.push(Node::LeakyRelu(self.id, Constant::new(slope)))
    }
    /// The nearest number from `low` to `high`; derivative 1 between them, 0 at and beyond them.
    pub fn clip(self, low: f64, high: f64) -> Self {
        self.push(Node::Clip(self.id, Constant::new(low), Constant::new(high)))
    }
    /// ½x² where |x| < `delta`, else `delta`·(|x| − ½·`delta`); its derivative is x clipped to ±`delta`.
    pub fn huber(self, delta: f64) -> Self {
        self.push(Node::Huber(self.id, Constant::new(delta)))
    }
    /// The larger of two; on a tie the derivative goes to `other`.
    pub fn max(self, other: Self) -> Self {
        self.push(Node::Max(self.id, other.id))
    }
    /// The smaller of two; on a tie the derivative goes to `self`.
    pub fn min(self, other: Self) -> Self {
        self.push(Node::Min(self.id, other.id))
    }
    /// `then` where `self` ≤ 0, else `otherwise`; NaN where `self` is.
    pub fn if_not_positive(self, then: Self, otherwise: Self) -> Self {
        self.select(Test::AtMost, self.constant(0.0), then, otherwise)
    }
    /// `then` where `self` ≤ `other`, else `otherwise`; NaN where either of the two compared is.
    pub fn if_at_most(self, other: Self, then: Self, otherwise: Self) -> Self {
        self.select(Test::AtMost, other, then, otherwise)
    }
    /// `then` where `self` = 0, else `otherwise`; NaN where `self` is.
    pub fn if_zero(self, then: Self, otherwise: Self) -> Self {
        self.select(Test::Equal, self.constant(0.0), then, otherwise)
    }
}

/// An operator between expressions, and between one and a number on either side.
macro_rules! operator {
    ($trait:ident, $method:ident) => {
        impl<'e> $trait for Expr<'e> {
            type Output = Expr<'e>;
            fn $method(self, other: Expr<'e>) -> Expr<'e> {
                self.push(Node::$trait(self.id, other.id))
            }
        }
        impl<'e> $trait<f64> for Expr<'e> {
            type Output = Expr<'e>;
            fn $method(self, other: f64) -> Expr<'e> {
                $trait::$method(self, self.constant(other))
            }
        }
        impl<'e> $trait<Expr<'e>> for f64 {
            type Output = Expr<'e>;
            fn $method(self, other: Expr<'e>) -> Expr<'e> {
                $trait::$method(other.constant(self), other)
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

impl Neg for Expr<'_> {
    type Output = Self;
    fn neg(self) -> Self {
        self * -1.0
    }
}
