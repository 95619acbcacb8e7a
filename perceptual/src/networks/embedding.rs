//! Vectors of length 1.

use image_losses_core::{Element, Function, Pointwise, Result, Tensor};

/// Rows of length 1; a row of zeros stays so.
pub(crate) fn normalised<T: Tensor>(rows: &T) -> Result<T> {
    let last = rows.rank() - 1;
    let wide = rows.accumulator()?;
    let inverse = T::pointwise(&Function::new(GuardedInverse), &[&wide.norm(&[last], true)?])?;
    wide.mul(&inverse)?.cast_like(rows)
}

/// 1/x, 0 at 0.
#[derive(Clone, Copy, Debug)]
struct GuardedInverse;

impl Pointwise<1> for GuardedInverse {
    #[inline(always)]
    fn value<E: Element>(&self, [x]: [E; 1]) -> E {
        let one = x.constant(1.0);
        x.if_zero(x.constant(0.0), one / x.if_zero(one, x))
    }
}
