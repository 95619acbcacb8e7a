//! Products with a frozen right factor: packed once, multiplied again and again, in `f32`.
//!
//! A task holds some columns of the result and all its rows, so that the packed factor is read once from memory whatever
//! the number of rows. Which columns, and the order of every sum, follow from the shape alone: the same bits on any number
//! of threads.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::count;
use super::matmul::SharedMut;
use super::winograd::lanes::{Instructions, LANES, Lanes, Task};
use super::winograd::layout::Buffer;

/// The longest part of the inner axis that is summed in one go: rounding errors grow with the root of a part's length and
/// of the number of parts, and a part of three panels fits the first-level cache.
const PIECE: usize = 128;
/// The most rows of a block of the result.
const ROWS: usize = 8;
/// Multiply-adds that a task should have at least.
const TASK_WORK: usize = 1 << 20;

/// A right factor in panels of 16 columns, each as deep as the factor.
pub(crate) struct Packed {
    depth: usize,
    columns: usize,
    data: Buffer,
}

impl Packed {
    /// The factor whose element (row, column) is `at(row, column)`.
    pub(crate) fn new(depth: usize, columns: usize, at: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        let mut data = Buffer::new(depth * columns.next_multiple_of(LANES));
        if depth > 0 {
            data.par_chunks_mut(depth * LANES).enumerate().for_each(|(panel, target)| {
                let first = panel * LANES;
                for (row, target) in target.chunks_exact_mut(LANES).enumerate() {
                    for (lane, target) in target.iter_mut().enumerate().take(columns - first) {
                        *target = at(row, first + lane);
                    }
                }
            });
        }
        Packed { depth, columns, data }
    }

    /// The elements that a row of the result takes: its columns, rounded up to whole vectors.
    pub(crate) fn row_len(&self) -> usize {
        self.columns.next_multiple_of(LANES)
    }
}

/// What a product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onto {
    /// Nothing: the result is overwritten.
    Zero,
    /// What the result holds.
    Result,
}

/// `c = a b + bias`, or `c += a b + bias`: `a` has `rows` rows `a_stride` apart, `c` as many of [`Packed::row_len`]
/// elements; `bias` fills a row of `c` if it is not empty.
///
/// # Panics
/// If a slice is shorter than its shape.
#[allow(clippy::too_many_arguments)]
pub(crate) fn multiply(
    instructions: Instructions,
    rows: usize,
    a: &[f32],
    a_stride: usize,
    b: &Packed,
    bias: &[f32],
    onto: Onto,
    c: &mut [f32],
) {
    let (depth, panels) = (b.depth, b.row_len() / LANES);
    if rows == 0 || panels == 0 {
        return;
    }
    let needed = (rows - 1).saturating_mul(a_stride).saturating_add(depth);
    assert!(a.len() >= needed && a_stride >= depth, "dense: the left factor is too short");
    assert!(c.len() >= count(&[rows, b.row_len()]), "dense: the result is too short");
    assert!(bias.is_empty() || bias.len() == b.row_len(), "dense: a bias of {} for {}", bias.len(), b.row_len());
    // Three panels at a time where there are 32 registers of 16 lanes; one of two registers each where there are 16.
    let (height, width) = match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => (ROWS, 3),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => (6, 1),
        Instructions::Portable => (4, 1),
    };
    let groups = panels.div_ceil(width);
    let together = (TASK_WORK / (rows * depth * width * LANES).max(1)).clamp(1, groups);
    let shared = SharedMut::new(c);
    (0..groups.div_ceil(together)).into_par_iter().for_each(|task| {
        let first = task * together * width;
        let task = Columns {
            rows,
            a,
            a_stride,
            b,
            bias,
            onto,
            c: shared,
            panels: [first, (first + together * width).min(panels)],
            height,
            width,
        };
        // SAFETY: the slices hold their shapes (checked above), and the panels are this task's alone.
        unsafe { instructions.run(task) }
    });
}

/// Some panels of a product, this task's alone; the slices hold their shapes.
struct Columns<'a> {
    rows: usize,
    a: &'a [f32],
    a_stride: usize,
    b: &'a Packed,
    bias: &'a [f32],
    onto: Onto,
    c: SharedMut<'a, f32>,
    panels: [usize; 2],
    height: usize,
    width: usize,
}

impl Columns<'_> {
    /// # Safety
    /// As [`Task::run`]; `VECTORS` panels from `panel` are this task's.
    #[inline(always)]
    unsafe fn group<L: Lanes, const VECTORS: usize>(&self, panel: usize) {
        let depth = self.b.depth;
        let blocks = self.rows.div_ceil(self.height);
        let mut start = 0;
        loop {
            let length = PIECE.min(depth - start);
            for block in 0..blocks {
                // Blocks of nearly equal height: a block of one or two rows would not fill the pipeline.
                let (from, to) = (block * self.rows / blocks, (block + 1) * self.rows / blocks);
                // SAFETY: rows, columns and depth lie inside the shapes.
                unsafe {
                    match to - from {
                        1 => self.block::<L, 1, VECTORS>(from, panel, start, length),
                        2 => self.block::<L, 2, VECTORS>(from, panel, start, length),
                        3 => self.block::<L, 3, VECTORS>(from, panel, start, length),
                        4 => self.block::<L, 4, VECTORS>(from, panel, start, length),
                        5 => self.block::<L, 5, VECTORS>(from, panel, start, length),
                        6 => self.block::<L, 6, VECTORS>(from, panel, start, length),
                        7 => self.block::<L, 7, VECTORS>(from, panel, start, length),
                        _ => self.block::<L, ROWS, VECTORS>(from, panel, start, length),
                    }
                }
            }
            start += length;
            if start >= depth {
                return;
            }
        }
    }

    /// A part of the sums of a block of the result, added to what is there or to the bias.
    ///
    /// # Safety
    /// As [`Task::run`]; the block lies inside the result and is this task's, the part inside the depth.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn block<L: Lanes, const HEIGHT: usize, const VECTORS: usize>(
        &self,
        row: usize,
        panel: usize,
        start: usize,
        length: usize,
    ) {
        let (stride, panel_len, row_len) = (self.a_stride, self.b.depth * LANES, self.b.row_len());
        // SAFETY: the caller vouches for the processor and the block; every offset stays inside the slices.
        unsafe {
            let a = self.a.as_ptr().add(row * stride + start);
            let b = self.b.data.as_ptr().add(panel * panel_len + start * LANES);
            let c = self.c.start().add(row * row_len + panel * LANES);
            let mut sums = [[L::splat(0.0); VECTORS]; HEIGHT];
            for step in 0..length {
                let mut right = [L::splat(0.0); VECTORS];
                for vector in 0..VECTORS {
                    right[vector] = L::load(b.add(vector * panel_len + step * LANES));
                }
                for index in 0..HEIGHT {
                    let left = L::splat(*a.add(index * stride + step));
                    for vector in 0..VECTORS {
                        sums[index][vector] = left.mul_add(right[vector], sums[index][vector]);
                    }
                }
            }
            for index in 0..HEIGHT {
                for vector in 0..VECTORS {
                    let target = c.add(index * row_len + vector * LANES);
                    let mut sum = sums[index][vector];
                    if start > 0 || self.onto == Onto::Result {
                        sum = sum.add(L::load(target));
                    }
                    if start == 0 && !self.bias.is_empty() {
                        sum = sum.add(L::load(self.bias.as_ptr().add((panel + vector) * LANES)));
                    }
                    sum.store(target);
                }
            }
        }
    }
}

impl Task for Columns<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let [mut panel, end] = self.panels;
        while panel < end {
            let vectors = self.width.min(end - panel);
            // SAFETY: the caller's word; the panels are this task's.
            unsafe {
                match vectors {
                    1 => self.group::<L, 1>(panel),
                    2 => self.group::<L, 2>(panel),
                    _ => self.group::<L, 3>(panel),
                }
            }
            panel += vectors;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::super::matmul::test_support::{on_threads, values, worst_error};
    use super::*;

    fn product(isa: Isa, [rows, depth, columns]: [usize; 3], onto: Onto, with_bias: bool) -> (Vec<f32>, Vec<f64>) {
        let (a, b) = (values::<f32>(rows * depth, 1), values::<f32>(depth * columns, 2));
        let packed = Packed::new(depth, columns, |row, column| b[row * columns + column]);
        let row_len = packed.row_len();
        let (mut c, bias) = (values::<f32>(rows * row_len, 3), values::<f32>(if with_bias { row_len } else { 0 }, 4));
        let expected = (0..rows * columns).map(|index| {
            let (row, column) = (index / columns, index % columns);
            let sum: f64 = (0..depth).map(|k| f64::from(a[row * depth + k]) * f64::from(b[k * columns + column])).sum();
            let before = if onto == Onto::Result { f64::from(c[row * row_len + column]) } else { 0.0 };
            sum + before + bias.get(column).map_or(0.0, |&bias| f64::from(bias))
        });
        let expected = expected.collect();
        multiply(Instructions::of(isa), rows, &a, depth, &packed, &bias, onto, &mut c);
        (c.chunks_exact(row_len).flat_map(|row| &row[..columns]).copied().collect(), expected)
    }

    #[test]
    fn agrees_with_the_definition() {
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            for shape in [[1, 1, 1], [2, 3, 17], [7, 128, 48], [9, 129, 64], [50, 300, 100], [23, 5, 33]] {
                for (onto, with_bias) in [(Onto::Zero, false), (Onto::Zero, true), (Onto::Result, true)] {
                    let (got, expected) = product(isa, shape, onto, with_bias);
                    let error = worst_error(&got, &expected);
                    assert!(error < 2e-6, "{isa:?} {shape:?} {onto:?}: {error:e}");
                }
            }
        }
    }

    #[test]
    fn same_bits_on_any_number_of_threads_and_instruction_set() {
        let run = |isa| move || product(isa, [50, 700, 400], Onto::Zero, true).0;
        let one = on_threads(1, run(Isa::Avx512));
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            assert_eq!(one, on_threads(2, run(isa)), "{isa:?}");
            assert_eq!(one, on_threads(5, run(isa)), "{isa:?}");
        }
    }
}
