//! The mean of a pointwise function of scores: how every loss of this crate ends.

use std::sync::LazyLock;

use image_losses_core::{Error, Expr, Extent, Function, Pointwise, Result, Tensor};

/// `scale` · the mean of `function` over named inputs of one shape: a tensor with one element, in the type that sums
/// are accumulated in.
pub(crate) fn mean<T: Tensor>(
    operation: &'static str,
    function: &Function,
    inputs: &[(&'static str, &T)],
    scale: f64,
) -> Result<T> {
    let Some(&(_, first)) = inputs.first() else {
        return Err(Error::InputCount { operation, expected: function.arity(), got: 0 });
    };
    let expected = first.shape();
    for &(argument, input) in inputs {
        check_scores(operation, argument, input)?;
        let got = input.shape();
        if got != expected {
            return Err(Error::ShapeMismatch { operation, argument, expected, got });
        }
    }
    let tensors: Vec<&T> = inputs.iter().map(|&(_, tensor)| tensor).collect();
    T::map_reduce(function, &tensors, None, None, scale / first.elements() as f64, Extent::Sum)
}

/// Refuses a tensor without axes or without elements.
pub(crate) fn check_scores<T: Tensor>(operation: &'static str, argument: &'static str, scores: &T) -> Result<()> {
    let got = scores.shape();
    if got.is_empty() {
        return Err(Error::ShapeRule { operation, argument, expected: "rank at least 1 (batch, …)".into(), got });
    }
    if scores.elements() == 0 {
        return Err(Error::Empty { operation, argument, got });
    }
    Ok(())
}

/// `scores` less one number, which is a tensor with one element.
pub(crate) fn less<T: Tensor>(scores: &T, number: &T) -> Result<T> {
    scores.sub(&number.reshape(&vec![1; scores.rank()])?)
}

/// `sign`·s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed {
    pub(crate) sign: f64,
}

impl Pointwise<1> for Signed {
    fn value<'e>(&self, [s]: [Expr<'e>; 1]) -> Expr<'e> {
        s * self.sign
    }
}

/// softplus(`sign`·s).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softplus {
    pub(crate) sign: f64,
}

impl Pointwise<1> for Softplus {
    fn value<'e>(&self, [s]: [Expr<'e>; 1]) -> Expr<'e> {
        (s * self.sign).softplus()
    }
}

/// max(0, 1 − `sign`·s).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hinge {
    pub(crate) sign: f64,
}

impl Pointwise<1> for Hinge {
    fn value<'e>(&self, [s]: [Expr<'e>; 1]) -> Expr<'e> {
        (s * -self.sign + 1.0).relu()
    }
}

/// (s − `label`)².
#[derive(Clone, Copy, Debug)]
pub(crate) struct SquaredDistance {
    pub(crate) label: f64,
}

impl Pointwise<1> for SquaredDistance {
    fn value<'e>(&self, [s]: [Expr<'e>; 1]) -> Expr<'e> {
        (s - self.label).square()
    }
}

/// |s − `label`|.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance {
    pub(crate) label: f64,
}

impl Pointwise<1> for Distance {
    fn value<'e>(&self, [s]: [Expr<'e>; 1]) -> Expr<'e> {
        (s - self.label).abs()
    }
}

/// (x − y)².
#[derive(Clone, Copy, Debug)]
struct SquaredDifference;

pub(crate) static SQUARED_DIFFERENCE: LazyLock<Function> = LazyLock::new(|| Function::new(SquaredDifference));

impl Pointwise<2> for SquaredDifference {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).square()
    }
}
