//! How features are compared.

use image_losses_core::{Error, Expr, Function, Input, Pointwise, Reducer, Result, Tensor};
use serde::{Deserialize, Serialize};

/// The mean absolute or the mean squared difference, or the length of the difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Criterion {
    /// mean |a − b|
    #[default]
    #[serde(alias = "L1")]
    L1,
    /// mean (a − b)²
    #[serde(alias = "MSE", alias = "l2")]
    Mse,
    /// √Σ (a − b)², the Frobenius norm of all elements; its gradient at equal features is 0. BasicSR's.
    Fro,
}

impl Criterion {
    /// The same as the fused networks have it; none where they do not.
    #[cfg(any(feature = "vgg", feature = "light-cnn"))]
    pub(crate) fn frozen(self) -> Option<image_losses_kernels::frozen::Criterion> {
        match self {
            Criterion::L1 => Some(image_losses_kernels::frozen::Criterion::L1),
            Criterion::Mse => Some(image_losses_kernels::frozen::Criterion::Mse),
            Criterion::Fro => None,
        }
    }

    /// The same in the fused network of a loss called without an engine.
    #[cfg(any(feature = "vgg", feature = "light-cnn"))]
    pub(crate) fn fused(self) -> Result<image_losses_kernels::frozen::Criterion> {
        let unsupported = Error::Unsupported { operation: "the criterion `fro`", engine: "fused network's" };
        self.frozen().ok_or(unsupported)
    }

    /// `weight` · the criterion of two tensors of one shape.
    pub(crate) fn compare<T: Tensor>(
        self,
        operation: &'static str,
        features: &T,
        target: &T,
        weight: f64,
    ) -> Result<T> {
        const NAMES: [Input; 2] = [Input::full("features"), Input::full("target features")];
        let function = match self {
            Criterion::L1 => Function::new(Absolute),
            Criterion::Mse => Function::new(Squared),
            Criterion::Fro => {
                let (expected, got) = (features.shape(), target.shape());
                if expected != got {
                    return Err(Error::ShapeMismatch { operation, argument: NAMES[1].name, expected, got });
                }
                let axes: Vec<usize> = (0..expected.len()).collect();
                let length = features.accumulator()?.sub(&target.accumulator()?)?.norm(&axes, false)?;
                return length.scale(weight)?.cast_like(features);
            }
        };
        let reducer = Reducer { loss_weight: weight, ..Reducer::default() };
        reducer.reduce(operation, &function, &NAMES, &[features, target], None)
    }
}

/// |a − b|.
#[derive(Clone, Copy, Debug)]
struct Absolute;

impl Pointwise<2> for Absolute {
    fn value<'e>(&self, [a, b]: [Expr<'e>; 2]) -> Expr<'e> {
        (a - b).abs()
    }
}

/// (a − b)².
#[derive(Clone, Copy, Debug)]
struct Squared;

impl Pointwise<2> for Squared {
    fn value<'e>(&self, [a, b]: [Expr<'e>; 2]) -> Expr<'e> {
        (a - b).square()
    }
}

/// The sum of one-element tensors, `None` for none of them.
pub(crate) fn sum<T: Tensor>(terms: impl IntoIterator<Item = Result<T>>) -> Result<Option<T>> {
    let mut sum: Option<T> = None;
    for term in terms {
        let term = term?;
        sum = Some(match sum {
            Some(sum) => sum.add(&term.reshape(&sum.shape())?)?,
            None => term,
        });
    }
    Ok(sum)
}
