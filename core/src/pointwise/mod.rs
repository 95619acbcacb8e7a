//! Pointwise functions: written once, evaluated as values, partial derivatives of any order, or tensor operations.

mod element;
mod function;
pub(crate) mod math;
mod tape;
mod tower;

pub use element::{Dual, Element, Number};
pub(crate) use function::{Block, Erased};
pub use function::{Function, Pointwise};
pub use tape::Tape;
