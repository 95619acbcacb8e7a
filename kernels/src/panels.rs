//! The inner loops of matrix products: rows of a left factor times panels of columns of a right one.
//!
//! A panel holds the [`width`] columns that a tile of the result has, row after row, so that the loop over the inner axis
//! reads it in order. The inner axis is cut into pieces by its length alone, each piece is summed in registers from its
//! first term to its last by fused multiply-adds, and the pieces are added in order: an element of the result has the same
//! bits on every instruction set that fuses, whatever its tile.
#![allow(unsafe_code)]

use super::isa::{self, Isa};
use super::matmul::Matrix;
use super::simd::{Portable, Vector};
use crate::Element;

/// The longest part of the inner axis that is summed in one go: the rounding error grows with the root of a part's length
/// and of the number of parts, not with that of the whole axis. A part of a panel stays in the first-level cache.
const PIECE: usize = 96;
/// Vectors of a row of a panel.
const VECTORS: usize = 3;

/// Columns of a panel on this machine.
pub(crate) fn width<F: Element>() -> usize {
    let lanes = if isa::detect() == Isa::Avx512 { 64 } else { 32 } / size_of::<F>();
    lanes * VECTORS
}

/// A part of a product: `sums (+)= left panels`.
#[doc(hidden)]
#[derive(Debug)]
pub struct Tiles<'a, F> {
    rows: usize,
    depth: usize,
    columns: usize,
    left: Matrix<'a, F>,
    panels: &'a [F],
    sums: &'a mut [F],
    adds: bool,
}

/// Adds a product of `rows` × `depth` × `columns` to `sums`, or overwrites them unless `adds`. `panels` has
/// ⌈`columns` / [`width`]⌉ panels of `depth` rows, and `sums` as many of `rows` rows; what lies in them beyond the last
/// column may be anything.
///
/// # Panics
/// If a slice is shorter than its shape.
pub(crate) fn multiply<F: Element>(
    [rows, depth, columns]: [usize; 3],
    left: Matrix<'_, F>,
    panels: &[F],
    sums: &mut [F],
    adds: bool,
) {
    let whole = columns.next_multiple_of(width::<F>());
    assert!(left.holds(rows, depth), "panels: the left factor is too short");
    assert!(
        panels.len() >= whole * depth && sums.len() >= whole * rows,
        "panels: too short for {rows}x{depth}x{columns}"
    );
    if rows > 0 && columns > 0 {
        // SAFETY: `detect` chooses what the processor has; the slices hold their shapes (checked above).
        unsafe { F::multiply(isa::detect(), Tiles { rows, depth, columns, left, panels, sums, adds }) }
    }
}

/// An element type that the loops are compiled for.
#[doc(hidden)]
pub trait Multiply: Sized {
    /// # Safety
    /// The processor has the instruction set, and the slices hold their shapes.
    unsafe fn multiply(isa: Isa, tiles: Tiles<'_, Self>);
}

macro_rules! multiply {
    ($element:ty, $lanes:literal, $avx2:ident, $avx512:ident) => {
        impl Multiply for $element {
            unsafe fn multiply(isa: Isa, tiles: Tiles<'_, Self>) {
                #[cfg(target_arch = "x86_64")]
                {
                    use super::simd::{$avx2, $avx512};

                    /// # Safety
                    /// As [`Multiply::multiply`].
                    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                    unsafe fn avx512(tiles: Tiles<'_, $element>) {
                        // SAFETY: the instruction set is enabled; the rest is the caller's.
                        unsafe { tiles.run::<$avx512, 8, true>() }
                    }
                    /// # Safety
                    /// As [`Multiply::multiply`].
                    #[target_feature(enable = "avx2,fma")]
                    unsafe fn avx2(tiles: Tiles<'_, $element>) {
                        // SAFETY: as above.
                        unsafe { tiles.run::<$avx2, 4, true>() }
                    }
                    match isa {
                        // SAFETY: the caller's.
                        Isa::Avx512 => return unsafe { avx512(tiles) },
                        // Portable code without the instruction would call the library for each multiply-add.
                        // SAFETY: the caller's, or what the processor was found to have.
                        _ if isa::available_once() > Isa::Portable => return unsafe { avx2(tiles) },
                        _ => {}
                    }
                }
                let _ = isa;
                // SAFETY: portable vectors need no instruction set; the rest is the caller's.
                unsafe { tiles.run::<Portable<$element, $lanes>, 4, { cfg!(target_arch = "aarch64") }>() }
            }
        }
    };
}
multiply!(f32, 8, Avx2Single, Avx512Single);
multiply!(f64, 4, Avx2Double, Avx512Double);

impl<F: Element> Tiles<'_, F> {
    /// # Safety
    /// As [`Multiply::multiply`], in code compiled for the vectors' instruction set, whose panels are as [`width`] says.
    #[inline(always)]
    unsafe fn run<V: Vector<Item = F>, const HEIGHT: usize, const FUSED: bool>(mut self) {
        let width = V::LANES * VECTORS;
        for panel in 0..self.columns.div_ceil(width) {
            let vectors = (self.columns - panel * width).min(width).div_ceil(V::LANES);
            // SAFETY: the panel is one of these, and the vectors hold its columns.
            unsafe {
                match vectors {
                    1 => self.panel::<V, HEIGHT, 1, FUSED>(panel),
                    2 => self.panel::<V, HEIGHT, 2, FUSED>(panel),
                    _ => self.panel::<V, HEIGHT, VECTORS, FUSED>(panel),
                }
            }
        }
    }

    /// # Safety
    /// As [`Tiles::run`].
    #[inline(always)]
    unsafe fn panel<V: Vector<Item = F>, const HEIGHT: usize, const WIDTH: usize, const FUSED: bool>(
        &mut self,
        panel: usize,
    ) {
        let pieces = self.depth.div_ceil(PIECE).max(1);
        for piece in 0..pieces {
            let part = piece * self.depth / pieces..(piece + 1) * self.depth / pieces;
            let adds = self.adds || piece > 0;
            let mut row = 0;
            while row < self.rows {
                let left = self.rows - row;
                // SAFETY: the rows and the part of the depth lie inside the shape.
                unsafe {
                    row += match left {
                        1 => self.tile::<V, 1, WIDTH, FUSED>(panel, row, part.clone(), adds),
                        2..=4 => self.tile::<V, 4, WIDTH, FUSED>(panel, row, part.clone(), adds),
                        _ => self.tile::<V, HEIGHT, WIDTH, FUSED>(panel, row, part.clone(), adds),
                    };
                }
            }
        }
    }

    /// A part of the sums of some rows, whose number is the result: `HEIGHT`, or those that are left.
    ///
    /// # Safety
    /// As [`Tiles::run`].
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn tile<V: Vector<Item = F>, const HEIGHT: usize, const WIDTH: usize, const FUSED: bool>(
        &mut self,
        panel: usize,
        row: usize,
        part: std::ops::Range<usize>,
        adds: bool,
    ) -> usize {
        let width = V::LANES * VECTORS;
        let rows = HEIGHT.min(self.rows - row);
        let step = self.left.column_stride;
        // SAFETY: rows, panel and part lie inside the shapes, which the slices hold.
        unsafe {
            // Past the last row, that one again: the loop has no branch, and its sums are dropped.
            let starts: [*const F; HEIGHT] = std::array::from_fn(|index| {
                let row = row + index.min(rows - 1);
                self.left.data.as_ptr().add(row * self.left.row_stride + part.start * step)
            });
            let mut right = self.panels.as_ptr().add((panel * self.depth + part.start) * width);
            let mut sums = [[V::splat(F::ZERO); WIDTH]; HEIGHT];
            let mut at = 0;
            for _ in part {
                let mut vectors = [V::splat(F::ZERO); WIDTH];
                for vector in 0..WIDTH {
                    vectors[vector] = V::load(right.add(vector * V::LANES));
                }
                for index in 0..HEIGHT {
                    let left = V::splat(*starts[index].add(at));
                    for vector in 0..WIDTH {
                        let sum = sums[index][vector];
                        sums[index][vector] =
                            if FUSED { left.fma(vectors[vector], sum) } else { sum.add(left.mul(vectors[vector])) };
                    }
                }
                at += step;
                right = right.add(width);
            }
            let target = self.sums.as_mut_ptr().add((panel * self.rows + row) * width);
            for index in 0..HEIGHT {
                if index == rows {
                    break;
                }
                for vector in 0..WIDTH {
                    let target = target.add(index * width + vector * V::LANES);
                    let sum = sums[index][vector];
                    if adds { V::load(target).add(sum) } else { sum }.store(target);
                }
            }
        }
        rows
    }
}

/// Packs a right factor of `rows` × `columns` elements as the rows from `first` of panels with `depth` rows; elements beyond
/// the last column become 0.
///
/// # Panics
/// If the factor or the panels are shorter than their shape.
pub(crate) fn pack<F: Element>(
    right: Matrix<'_, F>,
    [rows, columns]: [usize; 2],
    panels: &mut [F],
    [first, depth]: [usize; 2],
) {
    assert!(right.holds(rows, columns), "panels: the right factor is too short");
    let width = width::<F>();
    for (panel, target) in panels.chunks_exact_mut((depth * width).max(1)).take(columns.div_ceil(width)).enumerate() {
        let target = &mut target[first * width..][..rows * width];
        let start = panel * width;
        let count = width.min(columns - start);
        for (row, target) in target.chunks_exact_mut(width).enumerate() {
            let source = &right.data[row * right.row_stride + start * right.column_stride..];
            if right.column_stride == 1 {
                target[..count].copy_from_slice(&source[..count]);
            } else {
                let source = source.iter().step_by(right.column_stride.max(1));
                target[..count].iter_mut().zip(source).for_each(|(target, &source)| *target = source);
            }
            target[count..].fill(F::ZERO);
        }
    }
}

/// Copies elements of row `row` of sums of `rows` rows, from column `first` on.
pub(crate) fn copy_row<F: Element>(sums: &[F], rows: usize, row: usize, first: usize, target: &mut [F]) {
    let width = width::<F>();
    let (mut column, mut rest) = (first, target);
    while !rest.is_empty() {
        let count = (width - column % width).min(rest.len());
        let (here, after) = rest.split_at_mut(count);
        here.copy_from_slice(&sums[(column / width * rows + row) * width + column % width..][..count]);
        (column, rest) = (column + count, after);
    }
}
