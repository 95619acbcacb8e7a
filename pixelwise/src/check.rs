//! Shape checks of the losses that are no pointwise functions.

use image_losses_core::{Error, Result, Tensor};

/// Refuses an input of another rank, or without elements; returns its shape.
pub(crate) fn input<T: Tensor>(
    operation: &'static str,
    argument: &'static str,
    tensor: &T,
    rank: Rank,
) -> Result<Vec<usize>> {
    let shape = tensor.shape();
    let (fits, expected) = match rank {
        Rank::Any => (shape.len() >= 2, "rank at least 2 (batch, channels, …)"),
        Rank::Image => (shape.len() == 4, "rank 4 (N, C, H, W)"),
    };
    if !fits {
        return Err(Error::ShapeRule { operation, argument, expected: expected.into(), got: shape });
    }
    if shape.contains(&0) {
        return Err(Error::Empty { operation, argument, got: shape });
    }
    Ok(shape)
}

/// The ranks a loss takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rank {
    /// Two or more.
    Any,
    /// Four.
    Image,
}

/// Refuses a prediction and a target that do not fit each other; returns their shape.
pub(crate) fn pair<T: Tensor>(operation: &'static str, [pred, target]: [&T; 2], rank: Rank) -> Result<Vec<usize>> {
    let expected = input(operation, "pred", pred, rank)?;
    let got = target.shape();
    if got == expected {
        Ok(expected)
    } else {
        Err(Error::ShapeMismatch { operation, argument: "target", expected, got })
    }
}

/// Refuses a weight that the loss has no use for.
pub(crate) fn no_weight<T: Tensor>(operation: &'static str, weight: Option<&T>) -> Result<()> {
    match weight {
        None => Ok(()),
        Some(weight) => {
            let got = format!("a tensor of shape {:?}", weight.shape());
            Err(Error::option(operation, "weight", "absent, the loss takes none", got))
        }
    }
}
