//! Max pooling: which element wins, and moving values and gradients along.

use rayon::prelude::*;

use super::{assert_fills, count};
use crate::{Element, Pool2d};

/// The index, into the whole input, of the largest element of each window of an (N, C, H, W) input.
///
/// As PyTorch has it: the first of equal elements wins, and a NaN beats everything (of several the last). Padding never
/// wins. The result has the elements of [`Pool2d::output_shape`]; callers check the geometry with it first.
///
/// # Panics
/// If the input does not fill its shape, or the window does not fit it.
///
/// ```
/// use image_losses_kernels::{Pool2d, pool::max_pool2d_indices};
/// let winners = max_pool2d_indices(&Pool2d::square(2), &[1.0, 3.0, 3.0, 2.0], [1, 1, 2, 2]);
/// assert_eq!(winners, [1]);
/// ```
pub fn max_pool2d_indices<F: Element>(pool: &Pool2d, input: &[F], shape: [usize; 4]) -> Vec<usize> {
    let [_, _, height, width] = shape;
    assert_fills("max_pool2d: input", &shape, input.len());
    let output = match pool.output_shape(&shape) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    };
    let (rows, columns) = (output[2], output[3]);
    let mut winners = vec![0; count(&output)];
    if winners.is_empty() {
        return winners;
    }
    winners.par_chunks_mut(rows * columns).enumerate().for_each(|(plane, winners)| {
        let start = plane * height * width;
        let values = &input[start..][..height * width];
        for (row, winners) in winners.chunks_mut(columns).enumerate() {
            let [top, bottom] = span(pool, 0, row, height);
            for (column, winner) in winners.iter_mut().enumerate() {
                let [left, right] = span(pool, 1, column, width);
                let mut best = (top * width + left).min(values.len() - 1);
                for y in top..bottom {
                    for x in left..right {
                        let value = values[y * width + x];
                        // A NaN differs from itself.
                        #[allow(clippy::eq_op)]
                        if value > values[best] || value != value {
                            best = y * width + x;
                        }
                    }
                }
                *winner = start + best;
            }
        }
    });
    winners
}

/// The part of window `index` along `axis` that lies on the image.
fn span(pool: &Pool2d, axis: usize, index: usize, extent: usize) -> [usize; 2] {
    let (padding, end) = (pool.padding[axis], index * pool.stride[axis] + pool.size[axis]);
    [(index * pool.stride[axis]).saturating_sub(padding), end.saturating_sub(padding).min(extent)]
}

/// `values[index]` for every index.
///
/// # Panics
/// If an index is past the end.
pub fn gather<F: Element>(values: &[F], indices: &[usize]) -> Vec<F> {
    indices.iter().map(|&index| values[index]).collect()
}

/// `len` zeros with each gradient added at its index: the adjoint of [`gather`].
///
/// # Panics
/// If an index is past the end.
pub fn scatter_add<F: Element>(gradient: &[F], indices: &[usize], len: usize) -> Vec<F> {
    assert_eq!(gradient.len(), indices.len(), "scatter_add: one index per gradient");
    let mut result = vec![F::ZERO; len];
    for (&value, &index) in gradient.iter().zip(indices) {
        result[index] += value;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::matmul::test_support::{on_threads, values};
    use super::*;

    /// By the definition, on a plane padded with `None`.
    fn naive<F: Element>(pool: &Pool2d, input: &[F], [batch, channels, height, width]: [usize; 4]) -> Vec<usize> {
        let shape = pool.output_shape(&[batch, channels, height, width]).unwrap();
        let mut winners = Vec::new();
        for plane in 0..batch * channels {
            for row in 0..shape[2] {
                for column in 0..shape[3] {
                    let mut best: Option<usize> = None;
                    for a in 0..pool.size[0] {
                        for b in 0..pool.size[1] {
                            let y = (row * pool.stride[0] + a).wrapping_sub(pool.padding[0]);
                            let x = (column * pool.stride[1] + b).wrapping_sub(pool.padding[1]);
                            if y >= height || x >= width {
                                continue;
                            }
                            let index = (plane * height + y) * width + x;
                            if best.is_none_or(|best| input[index] > input[best]) {
                                best = Some(index);
                            }
                        }
                    }
                    winners.push(best.unwrap());
                }
            }
        }
        winners
    }

    fn agrees<F: Element>() {
        let pools = [
            Pool2d::square(2),
            Pool2d { ceil_mode: true, ..Pool2d::square(2) },
            Pool2d { size: [3, 3], stride: [2, 2], padding: [1, 1], ceil_mode: false },
            Pool2d { size: [3, 2], stride: [1, 3], padding: [1, 0], ceil_mode: true },
            Pool2d { size: [1, 1], stride: [2, 2], padding: [0, 0], ceil_mode: false },
            Pool2d { size: [2, 3], stride: [3, 3], padding: [1, 1], ceil_mode: true },
        ];
        for pool in pools {
            for shape in [[2, 3, 7, 9], [1, 1, 3, 3], [1, 2, 8, 5], [0, 2, 4, 4], [3, 1, 16, 16]] {
                // Few distinct values, so that windows hold ties.
                let input: Vec<F> = values::<F>(shape.iter().product(), 7)
                    .into_iter()
                    .map(|v| F::from_f64((v.to_f64() * 4.0).round()))
                    .collect();
                assert_eq!(max_pool2d_indices(&pool, &input, shape), naive(&pool, &input, shape), "{pool:?} {shape:?}");
            }
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        agrees::<f32>();
        agrees::<f64>();
    }

    #[test]
    fn nan_wins_and_minus_infinity_is_a_value() {
        let pool = Pool2d::square(2);
        assert_eq!(max_pool2d_indices(&pool, &[1.0, f32::NAN, 5.0, 2.0], [1, 1, 2, 2]), [1]);
        assert_eq!(max_pool2d_indices(&pool, &[f32::NAN, 9.0, 5.0, f32::NAN], [1, 1, 2, 2]), [3]);
        assert_eq!(max_pool2d_indices(&pool, &[f64::NEG_INFINITY; 4], [1, 1, 2, 2]), [0]);
    }

    #[test]
    fn gather_and_scatter_are_adjoint() {
        let pool = Pool2d { size: [3, 3], stride: [1, 1], padding: [1, 1], ceil_mode: false };
        let shape = [2, 2, 6, 5];
        let (input, gradient) = (values::<f64>(120, 1), values::<f64>(120, 2));
        let winners = max_pool2d_indices(&pool, &input, shape);
        let pooled = gather(&input, &winners);
        let returned = scatter_add(&gradient, &winners, input.len());
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert!((dot(&pooled, &gradient) - dot(&input, &returned)).abs() < 1e-12);
    }

    #[test]
    fn same_winners_on_any_number_of_threads() {
        let input = values::<f32>(4 * 33 * 35, 5);
        let run = || max_pool2d_indices(&Pool2d::square(2), &input, [1, 4, 33, 35]);
        assert_eq!(on_threads(1, run), on_threads(2, run));
    }
}
