//! A choice between two tensors, element by element.

use std::sync::OnceLock;

use image_losses_kernels::once::get_or_make;

use super::Op;
use crate::{Expr, Function, Pointwise, Result, Tensor};

/// The condition of [`Op::Select`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selection {
    /// x ≤ 0
    NotPositive,
    /// x = 0
    Zero,
    /// x ≤ y, of two tensors
    AtMost,
}

impl Selection {
    /// The number of tensors that are compared.
    pub(super) fn conditions(self) -> usize {
        if self == Selection::AtMost { 2 } else { 1 }
    }
}

impl Selection {
    /// Its name, for error messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Selection::NotPositive => "if_not_positive",
            Selection::Zero => "if_zero",
            Selection::AtMost => "if_at_most",
        }
    }

    /// The selection as a pointwise function.
    pub(crate) fn function(self) -> &'static Function {
        static NOT_POSITIVE: OnceLock<Function> = OnceLock::new();
        static ZERO: OnceLock<Function> = OnceLock::new();
        static AT_MOST: OnceLock<Function> = OnceLock::new();
        match self {
            Selection::NotPositive => get_or_make(&NOT_POSITIVE, || Function::new(IfNotPositive)),
            Selection::Zero => get_or_make(&ZERO, || Function::new(IfZero)),
            Selection::AtMost => get_or_make(&AT_MOST, || Function::new(IfAtMost)),
        }
    }

    /// The gradients by the two that are chosen from: their values do not matter, only which was taken.
    pub(super) fn gradients<T: Tensor>(self, inputs: &[T], above: &T, wanted: &[bool]) -> Result<Vec<Option<T>>> {
        let zero = T::full(&above.context(), 0.0, &[])?;
        let conditions = self.conditions();
        let part = |then: &T, otherwise: &T, input: usize| {
            super::if_wanted(wanted[input], || {
                let operands: Vec<&T> = inputs[..conditions].iter().chain([then, otherwise]).collect();
                super::perform(&Op::Select(self), &operands)?.sum_to(&inputs[input].shape())
            })
        };
        let mut gradients = vec![None; conditions];
        gradients.extend([part(above, &zero, conditions)?, part(&zero, above, conditions + 1)?]);
        Ok(gradients)
    }
}

#[derive(Clone, Copy, Debug)]
struct IfNotPositive;
impl Pointwise<3> for IfNotPositive {
    fn value<'e>(&self, [condition, then, otherwise]: [Expr<'e>; 3]) -> Expr<'e> {
        condition.if_not_positive(then, otherwise)
    }
}

#[derive(Clone, Copy, Debug)]
struct IfZero;
impl Pointwise<3> for IfZero {
    fn value<'e>(&self, [condition, then, otherwise]: [Expr<'e>; 3]) -> Expr<'e> {
        condition.if_zero(then, otherwise)
    }
}

#[derive(Clone, Copy, Debug)]
struct IfAtMost;
impl Pointwise<4> for IfAtMost {
    fn value<'e>(&self, [x, y, then, otherwise]: [Expr<'e>; 4]) -> Expr<'e> {
        x.if_at_most(y, then, otherwise)
    }
}
