//! Linear maps along one axis: resampling, averaging, blurring, differences.

use std::sync::{Arc, OnceLock};

use image_losses_kernels::is_beyond;
use image_losses_kernels::once::get_or_make;

use crate::{Error, Interpolation, Result, Shape};

/// A sparse matrix applied along one axis of a tensor: output i = Σ weight · input j over row i's entries.
///
/// Resizing, average pooling, separable filters and finite differences are all such maps along one axis after another.
/// The gradient of one is its transpose, which is made once and kept.
#[derive(Debug)]
pub struct LinearMap {
    inputs: usize,
    /// Row i's entries are `entries[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    entries: Vec<(usize, f64)>,
    transposed: OnceLock<Arc<LinearMap>>,
}

impl PartialEq for LinearMap {
    fn eq(&self, other: &Self) -> bool {
        self.inputs == other.inputs && self.starts == other.starts && self.entries == other.entries
    }
}

impl LinearMap {
    /// A map of `inputs` numbers, one row of (input, weight) pairs per output.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an entry beyond the inputs.
    pub fn from_rows(inputs: usize, rows: impl IntoIterator<Item = Vec<(usize, f64)>>) -> Result<Arc<Self>> {
        let mut starts = vec![0];
        let mut entries = Vec::new();
        for row in rows {
            if let Some(&(input, _)) = row.iter().find(|(input, _)| *input >= inputs) {
                return Err(Error::option("LinearMap", "row", format!("inputs below {inputs}"), input));
            }
            entries.extend(row);
            starts.push(entries.len());
        }
        Ok(Arc::new(LinearMap { inputs, starts, entries, transposed: OnceLock::new() }))
    }

    /// Correlation with `kernel`, zeros beyond the ends, as many outputs as inputs; the kernel's middle
    /// (⌊length/2⌋) lies on the output.
    ///
    /// # Errors
    /// None in practice: entries are inside by construction.
    pub fn filter(inputs: usize, kernel: &[f64]) -> Result<Arc<Self>> {
        let middle = kernel.len() / 2;
        Self::from_rows(
            inputs,
            (0..inputs).map(|i| {
                kernel
                    .iter()
                    .enumerate()
                    .filter_map(|(k, &weight)| (i + k).checked_sub(middle).filter(|&j| j < inputs).map(|j| (j, weight)))
                    .collect()
            }),
        )
    }

    /// Means of consecutive windows of `size`; what is left over at the end is dropped.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a window of 0 or larger than the axis.
    pub fn average(inputs: usize, size: usize) -> Result<Arc<Self>> {
        if size == 0 || size > inputs {
            return Err(Error::ShapeRule {
                operation: "avg_pool2d",
                argument: "input",
                expected: format!("extents of at least the window {size} (which must not be 0)"),
                got: vec![inputs],
            });
        }
        let weight = 1.0 / size as f64;
        Self::from_rows(inputs, (0..inputs / size).map(|i| (i * size..(i + 1) * size).map(|j| (j, weight)).collect()))
    }

    /// Means of `outputs` windows that cover the axis: window i is ⌊i·n/m⌋ .. ⌈(i+1)·n/m⌉.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for an axis or an output without extent.
    pub fn adaptive_average(inputs: usize, outputs: usize) -> Result<Arc<Self>> {
        not_empty("adaptive_avg_pool2d", inputs, outputs)?;
        Self::from_rows(
            inputs,
            (0..outputs).map(|i| {
                let (start, end) = (i * inputs / outputs, ((i + 1) * inputs).div_ceil(outputs));
                let weight = 1.0 / (end - start) as f64;
                (start..end).map(|j| (j, weight)).collect()
            }),
        )
    }

    /// Resampling from one extent to another, as `torch.nn.functional.interpolate` with a size given.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for an axis or an output without extent.
    pub fn resize(inputs: usize, outputs: usize, interpolation: Interpolation) -> Result<Arc<Self>> {
        not_empty("resize", inputs, outputs)?;
        let (n, m) = (inputs as f64, outputs as f64);
        // Where output i looks, in input pixels.
        let position = |i: usize, align_corners: bool| {
            if align_corners {
                if outputs > 1 { i as f64 * (n - 1.0) / (m - 1.0) } else { 0.0 }
            } else {
                (i as f64 + 0.5) * (n / m) - 0.5
            }
        };
        let clamp = |j: f64| j.clamp(0.0, n - 1.0) as usize;
        Self::from_rows(
            inputs,
            (0..outputs).map(|i| {
                let mut row: Vec<(usize, f64)> = Vec::with_capacity(4);
                let mut push = |j: usize, weight: f64| match row.iter_mut().find(|(known, _)| *known == j) {
                    Some((_, sum)) => *sum += weight,
                    None => row.push((j, weight)),
                };
                match interpolation {
                    Interpolation::Nearest => push((i * inputs / outputs).min(inputs - 1), 1.0),
                    Interpolation::Bilinear { align_corners } => {
                        let x = position(i, align_corners).max(0.0);
                        let left = x.floor();
                        push(clamp(left), 1.0 - (x - left));
                        push(clamp(left + 1.0), x - left);
                    }
                    Interpolation::Bicubic { align_corners } => {
                        let x = position(i, align_corners);
                        let left = x.floor();
                        for tap in -1..3 {
                            let j = left + f64::from(tap);
                            push(clamp(j), cubic((x - j).abs()));
                        }
                    }
                }
                row
            }),
        )
    }

    /// The number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        self.starts.len() - 1
    }

    /// The (input, weight) pairs of output `i`.
    pub fn row(&self, i: usize) -> &[(usize, f64)] {
        &self.entries[self.starts[i]..self.starts[i + 1]]
    }

    /// The transpose, made once.
    pub fn transposed(self: &Arc<Self>) -> Arc<Self> {
        Arc::clone(get_or_make(&self.transposed, || {
            let mut rows = vec![Vec::new(); self.inputs];
            for i in 0..self.outputs() {
                for &(j, weight) in self.row(i) {
                    rows[j].push((i, weight));
                }
            }
            let mut starts = vec![0];
            let mut entries = Vec::with_capacity(self.entries.len());
            for row in rows {
                entries.extend(row);
                starts.push(entries.len());
            }
            Arc::new(LinearMap { inputs: self.outputs(), starts, entries, transposed: OnceLock::new() })
        }))
    }

    /// The matrix, row-major.
    pub fn to_dense(&self) -> Vec<f64> {
        let mut dense = vec![0.0; self.outputs() * self.inputs];
        for i in 0..self.outputs() {
            for &(j, weight) in self.row(i) {
                dense[i * self.inputs + j] += weight;
            }
        }
        dense
    }

    /// The shape of a tensor after the map along `axis`.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for an axis that is not there or has another extent than the map's inputs.
    pub fn output_shape(&self, shape: &[usize], axis: usize) -> Result<Shape> {
        if shape.get(axis) != Some(&self.inputs) {
            return Err(Error::ShapeRule {
                operation: "linear",
                argument: "input",
                expected: format!("extent {} on axis {axis}", self.inputs),
                got: shape.to_vec(),
            });
        }
        let mut out = shape.to_vec();
        out[axis] = self.outputs();
        Ok(out)
    }
}

/// The cubic convolution kernel at distance `x`, a = −0.75 (Keys 1981, with PyTorch's a).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

/// Refuses an extent of 0.
fn not_empty(operation: &'static str, inputs: usize, outputs: usize) -> Result<()> {
    if inputs == 0 || outputs == 0 || is_beyond(&[inputs, outputs]) {
        return Err(Error::ShapeRule {
            operation,
            argument: "input",
            expected: "extents above 0 that fit into memory, before and after".into(),
            got: vec![inputs, outputs],
        });
    }
    Ok(())
}
