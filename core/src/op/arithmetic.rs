//! Arithmetic of two tensors, and functions of one: what an engine without [`Op::Map`] runs functions with.

use super::Op;
use crate::{Error, Expr, Function, Pointwise, Result, Tensor, Unary};

/// An arithmetic operation of two tensors that broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a·b
    Mul,
    /// a/b
    Div,
}

impl Arithmetic {
    /// Its name, for error messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Arithmetic::Add => "add",
            Arithmetic::Sub => "sub",
            Arithmetic::Mul => "mul",
            Arithmetic::Div => "div",
        }
    }

    /// As a function of two numbers.
    fn function(self) -> Function {
        Function::new(OfTwo(self))
    }

    /// The gradients by the two inputs.
    pub(super) fn gradients<T: Tensor>(self, inputs: &[T], above: &T, wanted: &[bool]) -> Result<Vec<Option<T>>> {
        let left = || match self {
            Arithmetic::Add | Arithmetic::Sub => Ok(above.clone()),
            Arithmetic::Mul => above.mul(&inputs[1]),
            Arithmetic::Div => above.div(&inputs[1]),
        };
        let right = || match self {
            Arithmetic::Add => Ok(above.clone()),
            Arithmetic::Sub => above.neg(),
            Arithmetic::Mul => above.mul(&inputs[0]),
            Arithmetic::Div => above.div(&inputs[1])?.mul(&inputs[0].div(&inputs[1])?)?.neg(),
        };
        Ok(vec![
            super::if_wanted(wanted[0], || left()?.sum_to(&inputs[0].shape()))?,
            super::if_wanted(wanted[1], || right()?.sum_to(&inputs[1].shape()))?,
        ])
    }
}

#[derive(Clone, Copy, Debug)]
struct OfTwo(Arithmetic);

impl Pointwise<2> for OfTwo {
    fn value<'e>(&self, [a, b]: [Expr<'e>; 2]) -> Expr<'e> {
        match self.0 {
            Arithmetic::Add => a + b,
            Arithmetic::Sub => a - b,
            Arithmetic::Mul => a * b,
            Arithmetic::Div => a / b,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Affine {
    scale: f64,
    shift: f64,
}

impl Pointwise<1> for Affine {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        x * self.scale + self.shift
    }
}

/// (x − y)²
#[derive(Clone, Copy, Debug)]
struct SquaredDifference;

impl Pointwise<2> for SquaredDifference {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).square()
    }
}

/// The Huber function of x − y.
#[derive(Clone, Copy, Debug)]
struct HuberDifference(f64);

impl Pointwise<2> for HuberDifference {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).huber(self.0)
    }
}

/// √(x² + c)
#[derive(Clone, Copy, Debug)]
struct Hypotenuse(f64);

impl Pointwise<1> for Hypotenuse {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        (x.square() + self.0).sqrt()
    }
}

/// An elementary operation as a function of numbers; `None` for other operations.
pub(super) fn function(op: &Op) -> Option<Function> {
    Some(match *op {
        Op::Arithmetic(operation) => operation.function(),
        Op::Affine { scale, shift } => Function::new(Affine { scale, shift }),
        Op::Unary(function) => Function::unary(function),
        Op::SquaredDifference => Function::new(SquaredDifference),
        Op::HuberDifference(delta) => Function::new(HuberDifference(delta)),
        Op::Hypotenuse(square) => Function::new(Hypotenuse(square)),
        Op::Select(selection) => selection.function().clone(),
        _ => return None,
    })
}

/// An elementary operation of other elementary ones, for engines that have neither it nor maps.
pub(super) fn decompose<T: Tensor>(op: &Op, inputs: &[&T], shape: &[usize]) -> Result<T> {
    // First as a map. What composes a map asks for elementary operations: no further that way.
    if let Some(function) = function(op)
        && let Some(value) = T::apply(&Op::map(&function), inputs, shape)?
    {
        return Ok(value);
    }
    match *op {
        Op::SquaredDifference => inputs[0].sub(inputs[1])?.unary(Unary::Square),
        Op::HuberDifference(delta) => {
            let difference = inputs[0].sub(inputs[1])?;
            let ones = vec![1; difference.rank()];
            let bound = |value: f64| T::constant(&difference.context(), &[value], &ones);
            let (low, high) = (bound(-delta)?, bound(delta)?);
            let clipped = difference.sub(&high)?.if_not_positive(&difference, &high)?;
            let clipped = clipped.sub(&low)?.if_not_positive(&low, &clipped)?;
            clipped.mul(&difference.sub(&clipped.scale(0.5)?)?)
        }
        Op::Hypotenuse(square) => inputs[0].unary(Unary::Square)?.shift(square)?.unary(Unary::Sqrt),
        _ => Err(Error::Unsupported { operation: op.name(), engine: "present" }),
    }
}
