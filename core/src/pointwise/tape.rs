//! A pointwise function as a list of tensor operations.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::element::{Element, operators};
use crate::kernels::broadcast::broadcast_shape;
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
    /// The Huber function of x
    Huber {
        x: usize,
        delta: f64,
    },
    IfNotPositive(usize, usize, usize),
    IfZero(usize, usize, usize),
    /// The third where the first is at most the second, else the fourth
    IfAtMost([usize; 4]),
}

/// 1 where `x` is a number, NaN where it is not; no gradient flows back.
fn one_or_nan<T: Tensor>(x: &T) -> Result<T> {
    let one = T::constant(&x.context(), &[1.0], &[1])?;
    x.detach().if_zero(&one, &one)
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

    /// Runs the operations on tensors (broadcasting among them). The function is the result times the number beside it,
    /// which a sum need not apply to every element.
    ///
    /// # Errors
    /// Those of the operations: shapes that do not broadcast.
    pub fn evaluate<T: Tensor>(&self, inputs: &[&T]) -> Result<(T, f64)> {
        let missing = || crate::Error::InputCount { operation: "pointwise", expected: 1, got: inputs.len() };
        let first = inputs.first().ok_or_else(missing)?;
        let context = first.context();
        let smallest = first.dtype().smallest_normal();
        let bound = self.lower_bounds();
        // A last multiplication by a number is left to the caller.
        let (output, factor) = match self.steps[self.output] {
            Step::Affine { x, scale, shift: 0.0 } => (x, scale),
            _ => (self.output, 1.0),
        };
        // Which steps are computed: what the result needs, through the operations that take several steps at once.
        let mut needed = vec![false; self.steps.len()];
        needed[output] = true;
        for id in (0..self.steps.len()).rev().filter(|&id| id <= output) {
            if needed[id] {
                self.fused(id, smallest).operands().into_iter().flatten().for_each(|operand| needed[operand] = true);
            }
        }
        let mut done: Vec<Option<T>> = Vec::with_capacity(self.steps.len());
        for (id, &is_needed) in needed.iter().enumerate() {
            let at = |id: usize| done[id].as_ref().ok_or_else(missing);
            let value = match self.fused(id, smallest) {
                _ if !is_needed => {
                    done.push(None);
                    continue;
                }
                Fused::SquaredDifference(a, b) => at(a)?.squared_difference(at(b)?),
                Fused::HuberDifference(a, b, delta) => at(a)?.huber_difference(at(b)?, delta),
                Fused::Hypotenuse(x, square) => at(x)?.hypotenuse(square),
                Fused::Step(step) => match step {
                    Step::Input(i) => Ok(inputs[i].clone()),
                    Step::Constant(value) => T::constant(&context, &[value], &[1]),
                    Step::Add(a, b) => at(a)?.add(at(b)?),
                    Step::Sub(a, b) => at(a)?.sub(at(b)?),
                    Step::Mul(a, b) if a == b => at(a)?.unary(Unary::Square),
                    Step::Mul(a, b) => at(a)?.mul(at(b)?),
                    Step::Div(a, b) => at(a)?.div(at(b)?),
                    Step::Affine { x, scale, shift } => at(x)?.affine(scale, shift),
                    // A root whose operand may be zero has its derivative guarded: 0, not infinite.
                    Step::Unary(Unary::Sqrt, x) if bound[x] < smallest => {
                        let one = T::constant(&context, &[1.0], &[1])?;
                        let zero = T::constant(&context, &[0.0], &[1])?;
                        let root = at(x)?.if_zero(&one, at(x)?)?.unary(Unary::Sqrt)?;
                        at(x)?.if_zero(&zero, &root)
                    }
                    // Engines' own derivative is 1 at NaN.
                    Step::Unary(Unary::Relu, x) => at(x)?.unary(Unary::Relu)?.mul(&one_or_nan(at(x)?)?),
                    Step::Unary(op, x) => at(x)?.unary(op),
                    Step::Huber { x, delta } => at(x)?.huber_difference(&T::constant(&context, &[0.0], &[1])?, delta),
                    Step::IfNotPositive(c, a, b) => at(c)?.if_not_positive(at(a)?, at(b)?),
                    Step::IfZero(c, a, b) => at(c)?.if_zero(at(a)?, at(b)?),
                    Step::IfAtMost([x, y, a, b]) => at(x)?.if_at_most(at(y)?, at(a)?, at(b)?),
                },
            }?;
            done.push(Some(value));
        }
        let mut result = done[output].take().ok_or_else(missing)?;
        // A function that ignores an input is repeated over its shape all the same.
        let mut full = Vec::new();
        for input in inputs {
            full = broadcast_shape("pointwise", &full, &input.shape())?;
        }
        let shape = result.shape();
        if shape.len() > full.len() {
            // A constant has one axis, a number may have none.
            result = result.reshape(&full)?;
        } else if shape != full {
            result = result.broadcast_to(&full)?;
        }
        Ok((result, factor))
    }

    /// The operation that computes a step: one that takes the steps before it along, where there is such.
    fn fused(&self, id: usize, smallest: f64) -> Fused {
        let step = self.steps[id];
        match step {
            Step::Mul(d, e) if d == e => match self.steps[d] {
                Step::Sub(a, b) => Fused::SquaredDifference(a, b),
                _ => Fused::Step(step),
            },
            Step::Huber { x, delta } => match self.steps[x] {
                Step::Sub(a, b) => Fused::HuberDifference(a, b, delta),
                _ => Fused::Step(step),
            },
            Step::Unary(Unary::Sqrt, sum) => match self.steps[sum] {
                Step::Affine { x: square, scale: 1.0, shift } if shift >= smallest => match self.steps[square] {
                    Step::Mul(x, y) if x == y => Fused::Hypotenuse(x, shift),
                    _ => Fused::Step(step),
                },
                _ => Fused::Step(step),
            },
            _ => Fused::Step(step),
        }
    }

    /// For each step a number that its result is never below.
    fn lower_bounds(&self) -> Vec<f64> {
        let mut bounds = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            bounds.push(self.lower_bound(step, &bounds));
        }
        bounds
    }

    /// A number that the step's result is never below.
    fn lower_bound(&self, step: &Step, bound: &[f64]) -> f64 {
        match *step {
            Step::Constant(value) => value,
            Step::Mul(a, b) if a == b => 0.0,
            Step::Add(a, b) => bound[a] + bound[b],
            Step::Affine { x, scale, shift } if scale >= 0.0 => bound[x] * scale + shift,
            Step::Unary(Unary::Abs | Unary::Sqrt | Unary::Exp | Unary::Sigmoid | Unary::Softplus, _)
            | Step::Huber { .. } => 0.0,
            _ => f64::NEG_INFINITY,
        }
    }
}

/// How a step is computed.
enum Fused {
    /// By itself.
    Step(Step),
    /// (a − b)²
    SquaredDifference(usize, usize),
    /// The Huber function of a − b.
    HuberDifference(usize, usize, f64),
    /// √(x² + a number)
    Hypotenuse(usize, f64),
}

impl Fused {
    /// The steps whose results it takes.
    fn operands(&self) -> [Option<usize>; 4] {
        match *self {
            Fused::SquaredDifference(a, b) | Fused::HuberDifference(a, b, _) => [Some(a), Some(b), None, None],
            Fused::Hypotenuse(x, _) => [Some(x), None, None, None],
            Fused::Step(step) => match step {
                Step::Input(_) | Step::Constant(_) => [None; 4],
                Step::Add(a, b) | Step::Sub(a, b) | Step::Mul(a, b) | Step::Div(a, b) => [Some(a), Some(b), None, None],
                Step::Affine { x, .. } | Step::Unary(_, x) | Step::Huber { x, .. } => [Some(x), None, None, None],
                Step::IfNotPositive(a, b, c) | Step::IfZero(a, b, c) => [Some(a), Some(b), Some(c), None],
                Step::IfAtMost(operands) => operands.map(Some),
            },
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
        // Twice a sign change is none.
        let before = self.steps.borrow()[self.id];
        if let (Step::Affine { x, scale: -1.0, shift: 0.0 }, -1.0, 0.0) = (before, scale, shift) {
            return Recorded { steps: self.steps, id: x };
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
        // One operation on every engine, where a softplus without a threshold is several on some.
        let inner = self.negated();
        inner.push(Step::Unary(Unary::LogSigmoid, inner.id)).negated()
    }
    fn huber(self, delta: f64) -> Self {
        self.push(Step::Huber { x: self.id, delta })
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
    fn if_at_most(self, other: Self, then: Self, otherwise: Self) -> Self {
        self.push(Step::IfAtMost([self.id, other.id, then.id, otherwise.id]))
    }
}
