//! Pointwise functions as data: written once, evaluated as values, partial derivatives of any order, or tensor operations.

mod compose;
mod derivative;
mod expr;
mod function;
mod program;
#[cfg(test)]
mod tests;

pub use expr::Expr;
pub(crate) use expr::Test;
pub use function::{Function, Pointwise};
pub(crate) use program::{Instruction, Operation, Program, Slot, Stored, Summand};
