//! Derivatives of any order: dual numbers nested at run time.
//!
//! Orders up to two are computed by nested [`Dual`](super::element::Dual) numbers, known at compile time and fast.
//! Beyond, an element is an index into a pool of nodes, so that it stays `Copy`; slow, and rarely asked for.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::element::{Element, Number, operators};
use crate::Scalar;

/// Every number made during one evaluation.
#[derive(Debug, Default)]
pub(super) struct Pool<F>(RefCell<Vec<Node<F>>>);

#[derive(Clone, Copy, Debug)]
enum Node<F> {
    Leaf(F),
    /// Value and derivative, by position in the pool.
    Dual(usize, usize),
}

/// A number with derivatives along `depth` directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tower<'p, F> {
    pool: &'p Pool<F>,
    id: usize,
}

impl<F: Scalar> Pool<F> {
    fn push(&self, node: Node<F>) -> Tower<'_, F> {
        let mut nodes = self.0.borrow_mut();
        nodes.push(node);
        Tower { pool: self, id: nodes.len() - 1 }
    }

    /// Forgets every number, keeping the memory.
    pub(super) fn clear(&mut self) {
        self.0.get_mut().clear();
    }

    /// The input number `value` that is differentiated along each direction for which `seeds` says so.
    pub(super) fn input(&self, value: F, seeds: &[bool]) -> Tower<'_, F> {
        match seeds.split_last() {
            None => self.push(Node::Leaf(value)),
            Some((&seed, rest)) => {
                let inner = self.input(value, rest);
                let derivative = inner.constant(if seed { 1.0 } else { 0.0 });
                self.push(Node::Dual(inner.id, derivative.id))
            }
        }
    }
}

impl<'p, F: Scalar> Tower<'p, F> {
    fn node(self) -> Node<F> {
        self.pool.0.borrow()[self.id]
    }
    fn at(self, id: usize) -> Self {
        Tower { pool: self.pool, id }
    }
    fn dual(self, value: Self, derivative: Self) -> Self {
        self.pool.push(Node::Dual(value.id, derivative.id))
    }
    /// The derivative along every direction.
    pub(super) fn top(self) -> F {
        match self.node() {
            Node::Leaf(value) => value,
            Node::Dual(_, derivative) => self.at(derivative).top(),
        }
    }
    /// The plain value.
    fn plain(self) -> F {
        match self.node() {
            Node::Leaf(value) => value,
            Node::Dual(value, _) => self.at(value).plain(),
        }
    }
    /// A function of one number with its derivative: `leaf` on numbers, `slope` the derivative at the value (given the
    /// value and the function's result there).
    fn chain(
        self,
        leaf: impl Fn(Number<F>) -> Number<F> + Copy,
        of: impl Fn(Self) -> Self,
        slope: impl Fn(Self, Self) -> Self,
    ) -> Self {
        match self.node() {
            Node::Leaf(x) => self.pool.push(Node::Leaf(leaf(Number([x])).0[0])),
            Node::Dual(value, derivative) => {
                let value = self.at(value);
                let result = of(value);
                self.dual(result, self.at(derivative) * slope(value, result))
            }
        }
    }
    /// `then` or `otherwise`; where nothing could be compared, NaN with every derivative.
    fn choose(self, test: Option<bool>, then: Self, otherwise: Self) -> Self {
        match test {
            Some(true) => then,
            Some(false) => otherwise,
            None => self.spread(F::from_f64(f64::NAN)),
        }
    }
    /// The number, as value and as every derivative.
    fn spread(self, number: F) -> Self {
        match self.node() {
            Node::Leaf(_) => self.pool.push(Node::Leaf(number)),
            Node::Dual(inner, _) => {
                let inner = self.at(inner).spread(number);
                self.dual(inner, inner)
            }
        }
    }
    fn both(self, other: Self, leaf: impl Fn(F, F) -> F, dual: impl Fn([Self; 2], [Self; 2]) -> (Self, Self)) -> Self {
        match (self.node(), other.node()) {
            (Node::Leaf(a), Node::Leaf(b)) => self.pool.push(Node::Leaf(leaf(a, b))),
            (Node::Dual(a, da), Node::Dual(b, db)) => {
                let (value, derivative) = dual([self.at(a), self.at(b)], [self.at(da), self.at(db)]);
                self.dual(value, derivative)
            }
            // All numbers of one evaluation have the same depth; a constant is lifted to it.
            (Node::Leaf(a), Node::Dual(..)) => other.constant(a.to_f64()).both(other, leaf, dual),
            (Node::Dual(..), Node::Leaf(b)) => self.both(self.constant(b.to_f64()), leaf, dual),
        }
    }
    fn plus(self, other: Self) -> Self {
        self.both(other, |a, b| a + b, |[a, b], [da, db]| (a + b, da + db))
    }
    fn minus(self, other: Self) -> Self {
        self.both(other, |a, b| a - b, |[a, b], [da, db]| (a - b, da - db))
    }
    fn times(self, other: Self) -> Self {
        self.both(other, |a, b| a * b, |[a, b], [da, db]| (a * b, da * b + a * db))
    }
    fn over(self, other: Self) -> Self {
        self.both(
            other,
            |a, b| a / b,
            |[a, b], [da, db]| {
                let q = a / b;
                (q, (da - q * db) / b)
            },
        )
    }
    fn shifted(self, by: f64) -> Self {
        self.plus(self.constant(by))
    }
    fn scaled(self, by: f64) -> Self {
        self.times(self.constant(by))
    }
    fn divided(self, by: f64) -> Self {
        self.over(self.constant(by))
    }
    fn negated(self) -> Self {
        self.scaled(-1.0)
    }
}
operators!(['p, F: Scalar] Tower<'p, F>);

impl<F: Scalar> Element for Tower<'_, F> {
    fn constant(self, value: f64) -> Self {
        match self.node() {
            Node::Leaf(_) => self.pool.push(Node::Leaf(F::from_f64(value))),
            Node::Dual(inner, _) => {
                let inner = self.at(inner);
                self.dual(inner.constant(value), inner.constant(0.0))
            }
        }
    }
    fn abs(self) -> Self {
        self.chain(Element::abs, Element::abs, |x, _| x.sign())
    }
    fn sign(self) -> Self {
        // 0, or NaN.
        self.chain(Element::sign, Element::sign, |_, sign| sign * 0.0)
    }
    fn sqrt(self) -> Self {
        self.chain(Element::sqrt, Element::sqrt, |x, root| {
            let slope = x.constant(0.5) / root;
            x.if_zero(x.constant(0.0), slope)
        })
    }
    fn exp(self) -> Self {
        self.chain(Element::exp, Element::exp, |_, result| result)
    }
    fn ln(self) -> Self {
        self.chain(Element::ln, Element::ln, |x, _| x.constant(1.0) / x)
    }
    fn tanh(self) -> Self {
        self.chain(Element::tanh, Element::tanh, |x, t| x.constant(1.0) - t * t)
    }
    fn sigmoid(self) -> Self {
        self.chain(Element::sigmoid, Element::sigmoid, |x, s| s * (x.constant(1.0) - s))
    }
    fn softplus(self) -> Self {
        self.chain(Element::softplus, Element::softplus, |x, _| x.sigmoid())
    }
    fn if_not_positive(self, then: Self, otherwise: Self) -> Self {
        self.choose(self.plain().partial_cmp(&F::ZERO).map(Ordering::is_le), then, otherwise)
    }
    fn if_zero(self, then: Self, otherwise: Self) -> Self {
        self.choose(self.plain().partial_cmp(&F::ZERO).map(Ordering::is_eq), then, otherwise)
    }
    fn if_at_most(self, other: Self, then: Self, otherwise: Self) -> Self {
        self.choose(self.plain().partial_cmp(&other.plain()).map(Ordering::is_le), then, otherwise)
    }
}
