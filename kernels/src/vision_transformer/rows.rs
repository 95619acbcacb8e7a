//! Passes over rows: layer norm, softmax, QuickGELU, there and back.

use rayon::prelude::*;

use super::{Layer, Normed, sized};
use crate::isa::{self, Kernel};
use crate::simd;

/// Rows of a task.
pub(super) const ROWS: usize = 8;
/// PyTorch's summand under the root of layer norm's deviation.
const EPSILON: f64 = 1e-5;
/// Sums that run side by side; widths are multiples of it.
const SUMS: usize = 16;

/// (x − mean)/√(var + ε)·w + b of each row, and what the way back needs.
pub(super) fn norm(x: &[f32], layer: &Layer, target: &mut [f32], kept: &mut Normed) {
    let width = layer.weight.len();
    let count = x.len() / width;
    let rows = sized(&mut kept.rows, x.len()).par_chunks_mut(ROWS * width);
    let inverse = sized(&mut kept.inverse, count).par_chunks_mut(ROWS);
    let passes = target.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).zip(rows).zip(inverse);
    passes.for_each(|(((target, x), rows), inverse)| isa::run(isa::detect(), Norm { x, layer, target, rows, inverse }));
}

struct Norm<'a> {
    x: &'a [f32],
    layer: &'a Layer,
    target: &'a mut [f32],
    rows: &'a mut [f32],
    inverse: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    #[inline(always)]
    fn run(self) {
        let Layer { weight, bias } = self.layer;
        let width = weight.len();
        let targets = self.target.chunks_exact_mut(width).zip(self.rows.chunks_exact_mut(width));
        for ((x, inverse), (target, row)) in self.x.chunks_exact(width).zip(self.inverse).zip(targets) {
            let mut sums = [0.0_f64; SUMS];
            for x in x.chunks_exact(SUMS) {
                for lane in 0..SUMS {
                    sums[lane] += f64::from(x[lane]);
                }
            }
            let mean = sums.iter().sum::<f64>() / width as f64;
            let mut squares = [0.0_f64; SUMS];
            for x in x.chunks_exact(SUMS) {
                for lane in 0..SUMS {
                    let centred = f64::from(x[lane]) - mean;
                    squares[lane] += centred * centred;
                }
            }
            let factor = 1.0 / (squares.iter().sum::<f64>() / width as f64 + EPSILON).sqrt();
            *inverse = factor as f32;
            for (row, &x) in row.iter_mut().zip(x) {
                *row = ((f64::from(x) - mean) * factor) as f32;
            }
            for (((target, row), weight), bias) in target.iter_mut().zip(row).zip(&weight[..]).zip(&bias[..]) {
                *target = *row * weight + bias;
            }
        }
    }
}

/// Adds the gradient of [`norm`] by its rows to `target`.
pub(super) fn back_through_norm(above: &[f32], layer: &Layer, kept: &Normed, target: &mut [f32]) {
    let weight = &layer.weight[..];
    let width = weight.len();
    let above = above.par_chunks(ROWS * width).zip(kept.rows[..above.len()].par_chunks(ROWS * width));
    let passes = target.par_chunks_mut(ROWS * width).zip(above).zip(kept.inverse.par_chunks(ROWS));
    passes.for_each(|((target, (above, rows)), inverse)| {
        isa::run(isa::detect(), NormBack { above, weight, rows, inverse, target });
    });
}

struct NormBack<'a> {
    above: &'a [f32],
    weight: &'a [f32],
    rows: &'a [f32],
    inverse: &'a [f32],
    target: &'a mut [f32],
}

impl Kernel for NormBack<'_> {
    #[inline(always)]
    fn run(self) {
        let width = self.weight.len();
        let sources = self.above.chunks_exact(width).zip(self.rows.chunks_exact(width)).zip(self.inverse);
        for (target, ((above, row), &inverse)) in self.target.chunks_exact_mut(width).zip(sources) {
            let (mut sums, mut along) = ([0.0_f64; SUMS], [0.0_f64; SUMS]);
            let parts = above.chunks_exact(SUMS).zip(row.chunks_exact(SUMS)).zip(self.weight.chunks_exact(SUMS));
            for ((above, row), weight) in parts {
                for lane in 0..SUMS {
                    let term = f64::from(above[lane] * weight[lane]);
                    sums[lane] += term;
                    along[lane] += term * f64::from(row[lane]);
                }
            }
            let mean = (sums.iter().sum::<f64>() / width as f64) as f32;
            let along = (along.iter().sum::<f64>() / width as f64) as f32;
            for (((target, above), row), weight) in target.iter_mut().zip(above).zip(row).zip(self.weight) {
                *target += inverse * (above * weight - mean - row * along);
            }
        }
    }
}

/// Rows of `width` to their softmax, in place, on one thread.
pub(super) fn softmax(rows: &mut [f32], width: usize) {
    struct Softmax<'a>(&'a mut [f32], usize);
    impl Kernel for Softmax<'_> {
        #[inline(always)]
        fn run(self) {
            for row in self.0.chunks_exact_mut(self.1) {
                let most = row.iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
                for x in &mut *row {
                    *x = simd::exp(*x - most);
                }
                let sum: f64 = row.iter().map(|&x| f64::from(x)).sum();
                let factor = (1.0 / sum) as f32;
                for x in row {
                    *x *= factor;
                }
            }
        }
    }
    isa::run(isa::detect(), Softmax(rows, width));
}

/// From the gradient by the softmax `weights` to that by the scores, in place: w (g − Σ w g).
pub(super) fn softmax_back(weights: &[f32], gradient: &mut [f32], width: usize) {
    for (weights, gradient) in weights.chunks_exact(width).zip(gradient.chunks_exact_mut(width)) {
        let sum: f64 = weights.iter().zip(&*gradient).map(|(&w, &g)| f64::from(w) * f64::from(g)).sum();
        let sum = sum as f32;
        for (gradient, weight) in gradient.iter_mut().zip(weights) {
            *gradient = weight * (*gradient - sum);
        }
    }
}

/// x σ(1.702 x), in place, and its derivative σ + 1.702 x σ (1 − σ).
pub(super) fn gelu(x: &mut [f32], slopes: &mut [f32]) {
    struct Gelu<'a>(&'a mut [f32], &'a mut [f32]);
    impl Kernel for Gelu<'_> {
        #[inline(always)]
        fn run(self) {
            for (x, slope) in self.0.iter_mut().zip(self.1) {
                let scaled = *x * 1.702;
                let share = simd::sigmoid(scaled);
                *slope = share + scaled * share * (1.0 - share);
                *x *= share;
            }
        }
    }
    const PART: usize = 1 << 13;
    x.par_chunks_mut(PART).zip(slopes.par_chunks_mut(PART)).for_each(|(x, slopes)| {
        isa::run(isa::detect(), Gelu(x, slopes));
    });
}
