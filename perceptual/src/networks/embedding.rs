//! Vectors of length 1.

use std::sync::LazyLock;

use image_losses_core::{Expr, Function, Pointwise, Result, Tensor};

/// Rows of length 1; a row of zeros stays so.
pub(crate) fn normalised<T: Tensor>(rows: &T) -> Result<T> {
    let last = rows.rank() - 1;
    let wide = rows.accumulator()?;
    let inverse = T::pointwise(&GUARDED_INVERSE, &[&wide.norm(&[last], true)?])?;
    wide.mul(&inverse)?.cast_like(rows)
}

/// 1/x, 0 at 0.
#[derive(Clone, Copy, Debug)]
struct GuardedInverse;

static GUARDED_INVERSE: LazyLock<Function> = LazyLock::new(|| Function::new(GuardedInverse));

impl Pointwise<1> for GuardedInverse {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        let one = x.constant(1.0);
        x.if_zero(x.constant(0.0), one / x.if_zero(one, x))
    }
}

#[cfg(test)]
mod tests {
    use image_losses_autograd::{AgTensor, differentiate};

    use super::*;

    fn along_a_direction<'g>(x: &[AgTensor<'g, f64>]) -> Result<AgTensor<'g, f64>> {
        let direction = Tensor::constant(&x[0].context(), &[1.0, 0.5], &[1, 2])?;
        normalised(&x[0])?.mul(&direction)?.sum(&[0, 1], false)
    }

    #[test]
    fn rows_have_length_one_and_zeros_stay_with_no_gradient() {
        let rows = (vec![3.0, 4.0, 0.0, 0.0], vec![2, 2]);
        let (value, gradients) = differentiate(&[rows], along_a_direction).unwrap();
        assert!((value[0] - 1.0).abs() < 1e-12, "{value:?}");
        // Of a row e: (d − e (e·d))/5, with e = (0.6, 0.8), d = (1, 0.5) and e·d = 1.
        let expected = [0.4 / 5.0, -0.3 / 5.0, 0.0, 0.0];
        assert!(gradients[0].iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-12), "{gradients:?}");
    }
}
