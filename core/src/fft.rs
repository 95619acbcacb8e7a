//! The real Fourier transform of planes, and its adjoint, on slices.

use std::sync::{Mutex, OnceLock, PoisonError};

use image_losses_kernels::once::get_or_make;
use rayon::prelude::*;
use realfft::RealFftPlanner;
use rustfft::num_complex::Complex;
use rustfft::{FftNum, FftPlanner};

/// Extents of the planes: how many, rows and columns; none is 0.
pub(crate) type Planes = [usize; 3];

/// The columns of a transform of `width` real columns: the others are their conjugates.
pub(crate) fn columns(width: usize) -> usize {
    width / 2 + 1
}

/// An element type with transforms.
pub(crate) trait Transform: FftNum {
    /// What is known of the sizes that came before.
    fn plans() -> &'static OnceLock<Mutex<Plans<Self>>>;
}

/// Plans of rows and of columns.
pub(crate) struct Plans<T: FftNum> {
    rows: RealFftPlanner<T>,
    columns: FftPlanner<T>,
}

macro_rules! transform {
    ($element:ty) => {
        impl Transform for $element {
            fn plans() -> &'static OnceLock<Mutex<Plans<Self>>> {
                static PLANS: OnceLock<Mutex<Plans<$element>>> = OnceLock::new();
                &PLANS
            }
        }
    };
}
transform!(f32);
transform!(f64);

/// Plans for one size.
fn planned<T: Transform, P>(plan: impl FnOnce(&mut Plans<T>) -> P) -> P {
    let new = || Mutex::new(Plans { rows: RealFftPlanner::new(), columns: FftPlanner::new() });
    plan(&mut get_or_make(T::plans(), new).lock().unwrap_or_else(PoisonError::into_inner))
}

/// X = Σ x·e^(−2πi(hu/H + wv/W)) for u below H and v up to W/2, plane by plane: real and imaginary parts side by side.
pub(crate) fn rfft2<T: Transform>(data: &[T], [planes, height, width]: Planes) -> Vec<T> {
    let kept = columns(width);
    let (rows, down) =
        planned::<T, _>(|plans| (plans.rows.plan_fft_forward(width), plans.columns.plan_fft_forward(height)));
    let mut out = vec![T::zero(); planes * height * kept * 2];
    out.par_chunks_mut(height * kept * 2).zip(data.par_chunks(height * width)).for_each(|(out, plane)| {
        let mut row = rows.make_input_vec();
        let mut spectrum = rows.make_output_vec();
        let mut scratch = rows.make_scratch_vec();
        // Column after column, each of all rows.
        let mut turned = vec![Complex::new(T::zero(), T::zero()); height * kept];
        for (h, values) in plane.chunks(width).enumerate() {
            row.copy_from_slice(values);
            // The lengths are the plan's own: it has nothing to refuse.
            let _ = rows.process_with_scratch(&mut row, &mut spectrum, &mut scratch);
            for (column, &value) in turned.chunks_mut(height).zip(&spectrum) {
                column[h] = value;
            }
        }
        down.process(&mut turned);
        for (column, values) in turned.chunks(height).enumerate() {
            for (h, value) in values.iter().enumerate() {
                let at = (h * kept + column) * 2;
                (out[at], out[at + 1]) = (value.re, value.im);
            }
        }
    });
    out
}

/// The adjoint of [`rfft2`] for planes of these extents: x = Re Σ X·e^(2πi(hu/H + wv/W)) over the same u and v.
pub(crate) fn rfft2_adjoint<T: Transform>(data: &[T], [planes, height, width]: Planes) -> Vec<T> {
    let kept = columns(width);
    let (rows, up) =
        planned::<T, _>(|plans| (plans.rows.plan_fft_inverse(width), plans.columns.plan_fft_inverse(height)));
    let half = T::one() / (T::one() + T::one());
    let mut out = vec![T::zero(); planes * height * width];
    out.par_chunks_mut(height * width).zip(data.par_chunks(height * kept * 2)).for_each(|(out, plane)| {
        let mut turned = vec![Complex::new(T::zero(), T::zero()); height * kept];
        for (column, values) in turned.chunks_mut(height).enumerate() {
            for (h, value) in values.iter_mut().enumerate() {
                let at = (h * kept + column) * 2;
                *value = Complex::new(plane[at], plane[at + 1]);
            }
        }
        up.process(&mut turned);
        let mut spectrum = rows.make_input_vec();
        let mut scratch = rows.make_scratch_vec();
        for (h, row) in out.chunks_mut(width).enumerate() {
            for (column, value) in spectrum.iter_mut().enumerate() {
                let sum = turned[column * height + h];
                // The plan adds each column's conjugate where there is one, and wants no imaginary part where there is none:
                // there it is multiplied by the sine of a multiple of π.
                let is_alone = column == 0 || column * 2 == width;
                *value = if is_alone { Complex::new(sum.re, T::zero()) } else { sum * half };
            }
            let _ = rows.process_with_scratch(&mut spectrum, row, &mut scratch);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    const SIZES: [[usize; 2]; 9] = [[1, 1], [1, 2], [1, 5], [4, 1], [3, 4], [5, 7], [6, 8], [2, 9], [16, 12]];

    fn numbers(count: usize, step: usize) -> Vec<f64> {
        (0..count).map(|i| ((i * step + 13) % 1009) as f64 / 504.5 - 0.999).collect()
    }

    #[test]
    fn the_transform_is_its_definition() {
        for [height, width] in SIZES {
            let x = numbers(2 * height * width, 389);
            let mut expected = Vec::new();
            for plane in x.chunks(height * width) {
                for u in 0..height {
                    for v in 0..columns(width) {
                        let angle =
                            |h: usize, w: usize| TAU * ((h * u) as f64 / height as f64 + (w * v) as f64 / width as f64);
                        let all = (0..height * width).map(|i| (plane[i], angle(i / width, i % width)));
                        expected.push(all.clone().map(|(x, angle)| x * angle.cos()).sum::<f64>());
                        expected.push(all.map(|(x, angle)| -x * angle.sin()).sum::<f64>());
                    }
                }
            }
            let close = |got: &[f64], bound: f64| {
                assert_eq!(got.len(), expected.len());
                let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst <= bound, "{height}×{width}: {worst}");
            };
            let magnitude = (height * width) as f64;
            close(&rfft2(&x, [2, height, width]), 8.0 * f64::EPSILON * magnitude);
            let single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let got: Vec<f64> = rfft2(&single, [2, height, width]).into_iter().map(f64::from).collect();
            close(&got, 8.0 * f64::from(f32::EPSILON) * magnitude);
        }
    }

    #[test]
    fn the_adjoint_is_one() {
        for [height, width] in SIZES {
            let planes = [2, height, width];
            let (x, g) = (numbers(2 * height * width, 577), numbers(4 * height * columns(width), 797));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (there, back) = (dot(&rfft2(&x, planes), &g), dot(&x, &rfft2_adjoint(&g, planes)));
            let magnitude = (height * width) as f64;
            assert!((there - back).abs() <= 64.0 * f64::EPSILON * magnitude, "{height}×{width}: {there} and {back}");
        }
    }
}
