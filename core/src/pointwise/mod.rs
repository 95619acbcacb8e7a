//! Pointwise functions as data: written once, evaluated as values, partial derivatives of any order, or tensor operations.

mod compose;
mod derivative;
mod expr;
mod function;
mod lower;
#[cfg(test)]
mod tests;

pub use expr::Expr;
pub use function::{Function, Pointwise};
