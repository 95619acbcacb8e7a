//! The transforms of Winograd's F(4×4, 3×3).
//!
//! A stride-1 correlation of 3 taps gives 4 outputs from 6 inputs with 6 products instead of 12 (36 instead of 144 on
//! both axes): outputs and taps are polynomials, multiplied at the points 0, ±A, ±B and ∞. With A = 3/4 and B = 3/2 the
//! transforms amplify rounding errors less than with Lavin and Gray's ±1, ±2 ("Fast Algorithms for Convolutional Neural
//! Networks", CVPR 2016): the coefficients stay nearer to one.

#![allow(clippy::needless_range_loop)]

use super::lanes::Lanes;

/// Outputs of a tile along an axis.
pub(crate) const OUTPUTS: usize = 4;
/// Inputs of a tile along an axis, and points.
pub(crate) const POINTS: usize = 6;
/// Points of a tile.
pub(crate) const TILE_POINTS: usize = POINTS * POINTS;

const A: f64 = 0.75;
const B: f64 = 1.5;
const A2: f64 = A * A;
const B2: f64 = B * B;
/// The derivative of `x (x² - A²) (x² - B²)` at A and B: what the taps' polynomial is divided by.
const NORM_A: f64 = 2.0 * A2 * (A2 - B2);
const NORM_B: f64 = 2.0 * B2 * (B2 - A2);

/// The coefficients, splatted.
#[derive(Clone, Copy)]
pub(crate) struct Transform<L> {
    a: L,
    b: L,
    a2: L,
    b2: L,
    a3: L,
    b3: L,
    a2_b2: L,
    a2_plus_b2: L,
    taps: [L; 7],
    zero: L,
}

impl<L: Lanes> Transform<L> {
    /// # Safety
    /// The processor has the instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        // SAFETY: the caller vouches for the processor.
        unsafe {
            Transform {
                a: L::splat(A as f32),
                b: L::splat(B as f32),
                a2: L::splat(A2 as f32),
                b2: L::splat(B2 as f32),
                a3: L::splat((A * A2) as f32),
                b3: L::splat((B * B2) as f32),
                a2_b2: L::splat((A2 * B2) as f32),
                a2_plus_b2: L::splat((A2 + B2) as f32),
                taps: [
                    L::splat((1.0 / (A2 * B2)) as f32),
                    L::splat((1.0 / NORM_A) as f32),
                    L::splat((A / NORM_A) as f32),
                    L::splat((A2 / NORM_A) as f32),
                    L::splat((1.0 / NORM_B) as f32),
                    L::splat((B / NORM_B) as f32),
                    L::splat((B2 / NORM_B) as f32),
                ],
                zero: L::splat(0.0),
            }
        }
    }

    #[inline(always)]
    fn input_axis(&self, d: [L; POINTS]) -> [L; POINTS] {
        let even_a = d[2].mul_sub_from(self.b2, d[4]);
        let odd_a = d[1].mul_sub_from(self.b2, d[3]);
        let even_b = d[2].mul_sub_from(self.a2, d[4]);
        let odd_b = d[1].mul_sub_from(self.a2, d[3]);
        [
            d[0].mul_add(self.a2_b2, d[2].mul_sub_from(self.a2_plus_b2, d[4])),
            odd_a.mul_add(self.a, even_a),
            odd_a.mul_sub_from(self.a, even_a),
            odd_b.mul_add(self.b, even_b),
            odd_b.mul_sub_from(self.b, even_b),
            d[1].mul_add(self.a2_b2, d[3].mul_sub_from(self.a2_plus_b2, d[5])),
        ]
    }

    #[inline(always)]
    fn output_axis(&self, m: [L; POINTS]) -> [L; OUTPUTS] {
        let (sum_a, difference_a) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (sum_b, difference_b) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(sum_a).add(sum_b),
            difference_b.mul_add(self.b, difference_a.mul(self.a)),
            sum_b.mul_add(self.b2, sum_a.mul(self.a2)),
            difference_b.mul_add(self.b3, difference_a.mul_add(self.a3, m[5])),
        ]
    }

    #[inline(always)]
    fn tap_axis(&self, g: [L; 3]) -> [L; POINTS] {
        let [at_zero, a0, a1, a2, b0, b1, b2] = self.taps;
        let even_a = g[2].mul_add(a2, g[0].mul(a0));
        let even_b = g[2].mul_add(b2, g[0].mul(b0));
        [
            g[0].mul(at_zero),
            g[1].mul_add(a1, even_a),
            g[1].mul_sub_from(a1, even_a),
            g[1].mul_add(b1, even_b),
            g[1].mul_sub_from(b1, even_b),
            g[2],
        ]
    }

    /// A tile of 6×6 inputs, `row` and `column` apart, to its 36 points, `point` apart.
    ///
    /// # Safety
    /// Every input can be read and every point written.
    #[inline(always)]
    pub(crate) unsafe fn input(&self, source: *const f32, row: usize, column: usize, target: *mut f32, point: usize) {
        let mut half = [[self.zero; POINTS]; POINTS];
        for x in 0..POINTS {
            let mut line = [self.zero; POINTS];
            for y in 0..POINTS {
                // SAFETY: the caller vouches for the tile, and a value of `L` for the processor.
                line[y] = unsafe { L::load(source.add(y * row + x * column)) };
            }
            let line = self.input_axis(line);
            for y in 0..POINTS {
                half[y][x] = line[y];
            }
        }
        for y in 0..POINTS {
            let line = self.input_axis(half[y]);
            for x in 0..POINTS {
                // SAFETY: the caller vouches for the points.
                unsafe { line[x].store(target.add((y * POINTS + x) * point)) };
            }
        }
    }

    /// A tile's 36 points, `point` apart, to its 4×4 outputs.
    ///
    /// # Safety
    /// Every point can be read.
    #[inline(always)]
    pub(crate) unsafe fn output(&self, source: *const f32, point: usize) -> [[L; OUTPUTS]; OUTPUTS] {
        let mut half = [[self.zero; POINTS]; OUTPUTS];
        for x in 0..POINTS {
            let mut line = [self.zero; POINTS];
            for y in 0..POINTS {
                // SAFETY: the caller vouches for the points, and a value of `L` for the processor.
                line[y] = unsafe { L::load(source.add((y * POINTS + x) * point)) };
            }
            let line = self.output_axis(line);
            for y in 0..OUTPUTS {
                half[y][x] = line[y];
            }
        }
        [self.output_axis(half[0]), self.output_axis(half[1]), self.output_axis(half[2]), self.output_axis(half[3])]
    }

    /// The 3×3 taps of 16 kernels, `tap` apart, to their 36 points, `point` apart.
    ///
    /// # Safety
    /// Every tap can be read and every point written.
    #[inline(always)]
    pub(crate) unsafe fn taps(&self, source: *const f32, tap: usize, target: *mut f32, point: usize) {
        let mut half = [[self.zero; 3]; POINTS];
        for x in 0..3 {
            let mut line = [self.zero; 3];
            for y in 0..3 {
                // SAFETY: the caller vouches for the taps, and a value of `L` for the processor.
                line[y] = unsafe { L::load(source.add((y * 3 + x) * tap)) };
            }
            let line = self.tap_axis(line);
            for y in 0..POINTS {
                half[y][x] = line[y];
            }
        }
        for y in 0..POINTS {
            let line = self.tap_axis(half[y]);
            for x in 0..POINTS {
                // SAFETY: the caller vouches for the points.
                unsafe { line[x].store(target.add((y * POINTS + x) * point)) };
            }
        }
    }
}

/// The 36 points of one 3×3 kernel, in double precision: for weights that are transformed once.
pub(crate) fn taps_exact(kernel: &[f32]) -> [f64; TILE_POINTS] {
    let axis = |g: [f64; 3]| {
        let at = |point: f64| g[0] + point * (g[1] + point * g[2]);
        [g[0] / (A2 * B2), at(A) / NORM_A, at(-A) / NORM_A, at(B) / NORM_B, at(-B) / NORM_B, g[2]]
    };
    let mut half = [[0.0; 3]; POINTS];
    for x in 0..3 {
        let line = axis([0, 1, 2].map(|y| f64::from(kernel[y * 3 + x])));
        for y in 0..POINTS {
            half[y][x] = line[y];
        }
    }
    let mut points = [0.0; TILE_POINTS];
    for (points, half) in points.chunks_exact_mut(POINTS).zip(half) {
        points.copy_from_slice(&axis(half));
    }
    points
}
