//! What the penalties on a network's gradient share.

use image_losses_core::config::{Argument, Kind, Processes};
use image_losses_core::{Differentiable, Error, Result, Shape, Tensor, positive, total_weight, weighted_mean};

/// Refuses data without batch, channels or elements; returns its shape.
pub(crate) fn check_data<T: Tensor>(operation: &'static str, argument: &'static str, data: &T) -> Result<Shape> {
    let shape = data.shape();
    if shape.len() < 2 {
        let expected = "rank at least 2 (batch, channels, …)".into();
        return Err(Error::ShapeRule { operation, argument, expected, got: shape });
    }
    if shape.contains(&0) {
        return Err(Error::Empty { operation, argument, got: shape });
    }
    Ok(shape)
}

/// Refuses a mask that is neither per pixel nor per element of data of this shape.
pub(crate) fn check_mask<T: Tensor>(operation: &'static str, shape: &[usize], mask: Option<&T>) -> Result<()> {
    let Some(mask) = mask else { return Ok(()) };
    let mut per_pixel = shape.to_vec();
    per_pixel[1] = 1;
    let got = mask.shape();
    if got == shape || got == per_pixel {
        return Ok(());
    }
    Err(Error::WeightShape { operation, per_pixel, per_element: shape.to_vec(), got })
}

/// The scale of an inner gradient that `use_apex_amp` means where no scaler gives one: large enough for the small gradients of
/// half precision, small enough not to overflow its largest number.
pub const AMP_LOSS_SCALE: f64 = 1024.0;

/// The scale of the inner gradient: the call's, else the option's where it is not 1, else what `use_apex_amp` means.
pub(crate) fn effective_loss_scale(
    operation: &'static str,
    given: Option<f64>,
    loss_scale: f64,
    use_apex_amp: bool,
) -> Result<f64> {
    match given {
        Some(given) => positive(operation, "loss_scale", given).map(|()| given),
        None => Ok(if use_apex_amp && loss_scale == 1.0 { AMP_LOSS_SCALE } else { loss_scale }),
    }
}

/// ∂ΣD(x)/∂x at detached data, times the mask and 0 where that is 0, in the type that sums are accumulated in.
pub(crate) fn inner_gradient<T: Differentiable>(
    operation: &'static str,
    critic: impl Fn(&T) -> Result<T>,
    data: &T,
    mask: Option<&T>,
    loss_scale: f64,
) -> Result<T> {
    let data = data.leaf()?;
    let gradient = scaled_gradient(&critic(&data)?, &data, loss_scale)?;
    let gradient = gradient.ok_or_else(|| Error::NotConnected { operation, argument: "the critic's input".into() })?;
    match mask {
        Some(mask) => gradient.weighted(&mask.accumulator()?),
        None => Ok(gradient),
    }
}

/// The gradient of the sum of `output`, ready to be differentiated again. Scaled up before, so that no small gradient
/// vanishes in half precision, and down again after, in the type that sums are accumulated in.
pub(crate) fn scaled_gradient<T: Differentiable>(output: &T, input: &T, loss_scale: f64) -> Result<Option<T>> {
    let scaled = if loss_scale == 1.0 { output.clone() } else { output.scale(loss_scale)? };
    let gradient = T::gradients(&scaled, &[input], true)?.pop().flatten();
    let Some(gradient) = gradient else { return Ok(None) };
    let gradient = gradient.accumulator()?;
    Ok(Some(if loss_scale == 1.0 { gradient } else { gradient.scale(1.0 / loss_scale)? }))
}

/// The mean of `map` divided by the mean of `mask`, 0 where that is 0; across processes, this one's share of it.
pub(crate) fn masked_mean<T: Tensor>(map: &T, mask: Option<&T>, processes: Option<&Processes<'_, T>>) -> Result<T> {
    let sum = map.sum_all()?;
    let Some(mask) = mask else {
        return match processes {
            None => sum.scale(1.0 / map.elements() as f64),
            Some(processes) => sum.scale(processes.size() / processes.sum(map.elements() as f64)?),
        };
    };
    // mean(map) / mean(mask) = (Σ map · elements of the mask / elements of the map) / Σ mask.
    let sum = sum.scale(mask.elements() as f64 / map.elements() as f64)?;
    let total = total_weight(&mask.accumulator()?)?;
    match processes {
        None => weighted_mean(&sum.reshape(&total.shape())?, &total),
        Some(processes) => {
            let total = processes.sum((processes.read)(&total)?)?;
            sum.scale(if total == 0.0 { 0.0 } else { processes.size() / total })
        }
    }
}

/// The scale that a gradient scaler has at the moment.
pub(crate) const LOSS_SCALER: &str = "loss_scaler";

/// The scaler's scale as an argument. With `use_apex_amp` the training step's is taken where it offers one.
pub(crate) const fn loss_scaler(use_apex_amp: bool) -> Argument {
    let argument = Argument::optional(LOSS_SCALER, Kind::Number);
    if use_apex_amp { argument.or_output(LOSS_SCALER) } else { argument }
}

/// The processes that train together; every loss that knows of them takes them from the outputs.
pub(crate) const PROCESSES: Argument = Argument::optional("processes", Kind::Processes).or_output("processes");
