//! How features are compared.

use image_losses_core::{Expr, Function, Input, Pointwise, Reducer, Result, Tensor};
use serde::{Deserialize, Serialize};

/// The mean absolute or the mean squared difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Criterion {
    /// mean |a − b|
    #[default]
    #[serde(alias = "L1")]
    L1,
    /// mean (a − b)²
    #[serde(alias = "MSE")]
    Mse,
}

impl Criterion {
    /// The same as the fused networks have it.
    #[cfg(any(feature = "vgg", feature = "light-cnn"))]
    pub(crate) fn frozen(self) -> image_losses_core::kernels::frozen::Criterion {
        match self {
            Criterion::L1 => image_losses_core::kernels::frozen::Criterion::L1,
            Criterion::Mse => image_losses_core::kernels::frozen::Criterion::Mse,
        }
    }

    fn function(self) -> Function {
        match self {
            Criterion::L1 => Function::new(Absolute),
            Criterion::Mse => Function::new(Squared),
        }
    }

    /// `weight` · mean of the differences of two tensors of one shape.
    pub(crate) fn compare<T: Tensor>(
        self,
        operation: &'static str,
        features: &T,
        target: &T,
        weight: f64,
    ) -> Result<T> {
        const NAMES: [Input; 2] = [Input::full("features"), Input::full("target features")];
        let reducer = Reducer { loss_weight: weight, ..Reducer::default() };
        reducer.reduce(operation, &self.function(), &NAMES, &[features, target], None)
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
