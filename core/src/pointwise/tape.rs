//! A pointwise function as a list of tensor operations.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::element::{Element, operators};
use crate::{Result, Tensor, Unary};

/// One recorded operation; operands are positions of earlier ones.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Input(usize),
    Constant(f64),
    Add(usize, usize),
    Sub(usize, usize),
    Mul(usize, usize),
    Div(usize, usize),
    /// x·scale + shift
    Affine {
        x: usize,
        scale: f64,
        shift: f64,
    },
    Unary(Unary, usize),
    IfNotPositive(usize, usize, usize),
    IfZero(usize, usize, usize),
}

/// A pointwise function recorded as a straight line of operations, each computed once.
///
/// Engines that have no fused kernel run it step by step; it also prints as a formula.
#[derive(Clone, Debug, PartialEq)]
pub struct Tape {
    steps: Vec<Step>,
    output: usize,
}

impl Tape {
    /// Records `function` of `arity` inputs.
    pub(super) fn record(arity: usize, function: impl for<'t> FnOnce(&[Recorded<'t>]) -> Recorded<'t>) -> Self {
        let steps = RefCell::new((0..arity).map(Step::Input).collect::<Vec<_>>());
        let output = {
            let inputs: Vec<_> = (0..arity).map(|id| Recorded { steps: &steps, id }).collect();
            function(&inputs).id
        };
        Tape { steps: steps.into_inner(), output }
    }

    /// The number of tensor operations it takes.
    pub fn operations(&self) -> usize {
        self.steps.iter().filter(|step| !matches!(step, Step::Input(_) | Step::Constant(_))).count()
    }

    /// Runs the operations on tensors (broadcasting among them).
    ///
    /// # Errors
    /// Those of the operations: shapes that do not broadcast.
    pub fn evaluate<T: Tensor>(&self, inputs: &[&T]) -> Result<T> {
        let Some(first) = inputs.first() else {
            return Err(crate::Error::InputCount { operation: "pointwise", expected: 1, got: 0 });
        };
        let context = first.context();
        let smallest = first.dtype().smallest_normal();
        let mut bound: Vec<f64> = Vec::with_capacity(self.steps.len());
        let mut done: Vec<T> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            bound.push(self.lower_bound(step, &bound));
            done.push(match *step {
                Step::Input(i) => inputs[i].clone(),
                Step::Constant(value) => T::constant(&context, &[value], &[1])?,
                Step::Add(a, b) => done[a].add(&done[b])?,
                Step::Sub(a, b) => done[a].sub(&done[b])?,
                Step::Mul(a, b) if a == b => done[a].unary(Unary::Square)?,
                Step::Mul(a, b) => done[a].mul(&done[b])?,
                Step::Div(a, b) => done[a].div(&done[b])?,
                Step::Affine { x, scale, shift } => done[x].affine(scale, shift)?,
                // A root whose operand may be zero has its derivative guarded: 0, not infinite.
                Step::Unary(Unary::Sqrt, x) if bound[x] < smallest => {
                    let one = T::constant(&context, &[1.0], &[1])?;
                    let zero = T::constant(&context, &[0.0], &[1])?;
                    let root = done[x].if_zero(&one, &done[x])?.unary(Unary::Sqrt)?;
                    done[x].if_zero(&zero, &root)?
                }
                Step::Unary(op, x) => done[x].unary(op)?,
                Step::IfNotPositive(c, a, b) => done[c].if_not_positive(&done[a], &done[b])?,
                Step::IfZero(c, a, b) => done[c].if_zero(&done[a], &done[b])?,
            });
        }
        done.into_iter().nth(self.output).ok_or(crate::Error::InputCount {
            operation: "pointwise",
            expected: 1,
            got: 0,
        })
    }

    /// A number that the step's result is never below.
    fn lower_bound(&self, step: &Step, bound: &[f64]) -> f64 {
        match *step {
            Step::Constant(value) => value,
            Step::Mul(a, b) if a == b => 0.0,
            Step::Add(a, b) => bound[a] + bound[b],
            Step::Affine { x, scale, shift } if scale >= 0.0 => bound[x] * scale + shift,
            Step::Unary(Unary::Abs | Unary::Sqrt | Unary::Exp | Unary::Sigmoid | Unary::Softplus, _) => 0.0,
            _ => f64::NEG_INFINITY,
        }
    }
}

/// An element that writes down what is done with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded<'t> {
    steps: &'t RefCell<Vec<Step>>,
    id: usize,
}

impl Recorded<'_> {
    /// Appends a step, or finds the same one made before.
    fn push(self, step: Step) -> Self {
        let mut steps = self.steps.borrow_mut();
        let id = steps.iter().position(|known| *known == step).unwrap_or_else(|| {
            steps.push(step);
            steps.len() - 1
        });
        Recorded { steps: self.steps, id }
    }
    fn plus(self, other: Self) -> Self {
        self.push(Step::Add(self.id, other.id))
    }
    fn minus(self, other: Self) -> Self {
        self.push(Step::Sub(self.id, other.id))
    }
    fn times(self, other: Self) -> Self {
        self.push(Step::Mul(self.id, other.id))
    }
    fn over(self, other: Self) -> Self {
        self.push(Step::Div(self.id, other.id))
    }
    fn affine(self, scale: f64, shift: f64) -> Self {
        if scale == 1.0 && shift == 0.0 {
            return self;
        }
        self.push(Step::Affine { x: self.id, scale, shift })
    }
    fn shifted(self, by: f64) -> Self {
        self.affine(1.0, by)
    }
    fn scaled(self, by: f64) -> Self {
        self.affine(by, 0.0)
    }
    fn divided(self, by: f64) -> Self {
        self.affine(1.0 / by, 0.0)
    }
    fn negated(self) -> Self {
        self.affine(-1.0, 0.0)
    }
}
operators!(['t] Recorded<'t>);

impl Element for Recorded<'_> {
    fn constant(self, value: f64) -> Self {
        self.push(Step::Constant(value))
    }
    fn abs(self) -> Self {
        self.push(Step::Unary(Unary::Abs, self.id))
    }
    fn sign(self) -> Self {
        self.push(Step::Unary(Unary::Sign, self.id))
    }
    fn sqrt(self) -> Self {
        self.push(Step::Unary(Unary::Sqrt, self.id))
    }
    fn exp(self) -> Self {
        self.push(Step::Unary(Unary::Exp, self.id))
    }
    fn ln(self) -> Self {
        self.push(Step::Unary(Unary::Ln, self.id))
    }
    fn tanh(self) -> Self {
        self.push(Step::Unary(Unary::Tanh, self.id))
    }
    fn sigmoid(self) -> Self {
        self.push(Step::Unary(Unary::Sigmoid, self.id))
    }
    fn softplus(self) -> Self {
        self.push(Step::Unary(Unary::Softplus, self.id))
    }
    fn relu(self) -> Self {
        self.push(Step::Unary(Unary::Relu, self.id))
    }
    fn if_not_positive(self, then: Self, otherwise: Self) -> Self {
        self.push(Step::IfNotPositive(self.id, then.id, otherwise.id))
    }
    fn if_zero(self, then: Self, otherwise: Self) -> Self {
        self.push(Step::IfZero(self.id, then.id, otherwise.id))
    }
}
