//! Means over the batches of several processes.

use image_losses_core::config::Processes;
use image_losses_core::{Result, Tensor};

use crate::inner;

/// This process's share of the mean of `map`, weighted by `mask`, over the batches of all processes.
///
/// With R processes, d the map and w the mask: R · Σ_here w·d / Σ_everywhere w, w counted once per element of d. The
/// mean of the shares is the mean of the whole batch, and the mean of their gradients (what data-parallel training
/// averages) is its gradient, however unevenly samples and mask fall on the processes. 0 where the mask is 0 everywhere.
///
/// ```
/// use image_losses_ndarray::NdTensor;
/// use image_losses_penalties::{Processes, SingleProcess, global_masked_mean};
/// use ndarray::array;
///
/// let map = NdTensor::new(array![[1.0f64, 2.0], [3.0, 4.0]]);
/// let mask = NdTensor::new(array![[1.0f64], [3.0]]);
/// let read = |x: &NdTensor<'_, f64>| x.item();
/// let mean = global_masked_mean(&map, Some(&mask), &Processes { communicator: &SingleProcess, read: &read })?;
/// assert_eq!(mean.item()?, 3.0); // (1 + 2 + 3·3 + 3·4) / (1 + 1 + 3 + 3)
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::WeightShape`](image_losses_core::Error::WeightShape) for a mask that is neither (N, 1, …) nor (N, C, …);
/// those of the communicator and of the reading.
pub fn global_masked_mean<T: Tensor>(map: &T, mask: Option<&T>, processes: &Processes<'_, T>) -> Result<T> {
    const NAME: &str = "global_masked_mean";
    let shape = inner::check_data(NAME, "map", map)?;
    inner::check_mask(NAME, &shape, mask)?;
    let wide = map.accumulator()?;
    let weighted = match mask {
        Some(mask) => wide.weighted(&mask.accumulator()?)?,
        None => wide,
    };
    inner::masked_mean(&weighted, mask, Some(processes))?.cast_like(map)
}
