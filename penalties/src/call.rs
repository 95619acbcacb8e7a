//! What a call of a penalty may have beside its data.

use image_losses_core::config::Processes;
use image_losses_core::{Error, Result, Tensor};

use crate::Draws;

/// The optional things of a call; none by default.
#[derive(Debug)]
pub struct Call<'a, T> {
    /// A map (N, 1, …) or (N, C, …) that the gradient is multiplied by.
    pub mask: Option<&'a T>,
    /// The processes that train together: the result is this process's share, and the mean of the shares, and of their
    /// gradients, is the whole's.
    pub processes: Option<&'a Processes<'a, T>>,
    /// The scale of the inner gradient instead of the option `loss_scale`: what a gradient scaler has at the moment.
    pub loss_scale: Option<f64>,
}

impl<T> Clone for Call<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Call<'_, T> {}

impl<T> Default for Call<'_, T> {
    fn default() -> Self {
        Call { mask: None, processes: None, loss_scale: None }
    }
}

impl<'a, T> Call<'a, T> {
    /// A call with a mask alone.
    pub fn masked(mask: &'a T) -> Self {
        Call { mask: Some(mask), ..Call::default() }
    }
}

/// Where a loss takes random values from. A loss takes `&mut Draws` as well.
#[derive(Debug)]
pub enum Random<'a, T> {
    /// They are drawn.
    Drawn(&'a mut Draws),
    /// They are these, in the order in which the loss asks for them.
    Given(&'a [&'a T]),
}

impl<'a, T> From<&'a mut Draws> for Random<'a, T> {
    fn from(draws: &'a mut Draws) -> Self {
        Random::Drawn(draws)
    }
}

impl<'a, T, const N: usize> From<&'a [&'a T; N]> for Random<'a, T> {
    fn from(values: &'a [&'a T; N]) -> Self {
        Random::Given(values)
    }
}

impl<T: Tensor> Random<'_, T> {
    /// The next values, in this shape: drawn by `draw`, or the next of those given.
    ///
    /// # Errors
    /// [`Error::MissingInput`] where too few are given, [`Error::ShapeMismatch`] for values of another shape, the engine's
    /// own.
    pub(crate) fn next(
        &mut self,
        (operation, argument): (&'static str, &'static str),
        shape: &[usize],
        draw: impl FnOnce(&mut Draws) -> Result<T>,
    ) -> Result<T> {
        match self {
            Random::Drawn(draws) => draw(draws),
            Random::Given(values) => {
                let (&first, rest) = values.split_first().ok_or_else(|| Error::MissingInput {
                    operation,
                    argument: argument.to_owned(),
                    hint: ": its random values are given, and too few of them".to_owned(),
                })?;
                *values = rest;
                let got = first.shape();
                if got != shape {
                    return Err(Error::ShapeMismatch { operation, argument, expected: shape.to_vec(), got });
                }
                Ok(first.clone())
            }
        }
    }
}
