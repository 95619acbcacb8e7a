//! Matrix products on row-major slices.
//!
//! The work is cut into tiles by the *shape* alone, never by the number of threads, and each tile is summed in one fixed
//! order, that of the module `panels`: a product has the same bits on one thread and on sixty-four.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{assert_fills, count, count_in_memory, panels};
use crate::Element;

/// Multiply-adds one task should have at least, and about at most: some 100 microseconds of work.
const TASK_WORK: usize = 1 << 22;
/// The shortest side a tile is cut to.
const TILE: usize = 64;
/// Columns, and length of the inner axis, of a right factor's part that is packed at a time: a few hundred KiB.
const BLOCK: usize = 384;
/// Longest run of the inner axis that one product sums; longer ones are summed piece by piece.
const DEPTH: usize = 4096;

/// A mutable slice that several tasks write to, each to elements of its own.
#[derive(Debug)]
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

impl<T> Clone for SharedMut<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<'_, T> {}

// SAFETY: it hands out raw pointers only; whoever writes through them vouches that no two tasks share an element.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, MaybeUninit<T>> {
    /// The same elements; whoever reads them vouches that they have been written.
    pub(crate) fn cast(self) -> SharedMut<'a, T> {
        SharedMut { start: self.start.cast(), len: self.len, slice: PhantomData }
    }
}

impl<'a, T> SharedMut<'a, T> {
    /// Shares `slice` for as long as it is borrowed.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        SharedMut { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// A pointer to element `index`, valid up to the slice's end.
    ///
    /// # Panics
    /// If `index` is past the end.
    pub(crate) fn at(&self, index: usize) -> *mut T {
        assert!(index <= self.len, "element {index} of {}", self.len);
        self.start.wrapping_add(index)
    }

    /// A pointer to the first element.
    #[inline(always)]
    pub(crate) fn start(&self) -> *mut T {
        self.start
    }

    /// The `len` elements from `index`.
    ///
    /// # Safety
    /// No other task may hold or touch any of them meanwhile.
    ///
    /// # Panics
    /// If they end past the slice.
    pub(crate) unsafe fn part(&self, index: usize, len: usize) -> &'a mut [T] {
        assert!(index <= self.len && len <= self.len - index, "elements {index}.. of {}", self.len);
        // SAFETY: inside the borrowed slice (checked above), and exclusive by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.wrapping_add(index), len) }
    }
}

/// A matrix inside a slice: element `(row, column)` is `data[row * row_stride + column * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a, F> {
    /// The elements.
    pub(crate) data: &'a [F],
    /// Distance between rows.
    pub(crate) row_stride: usize,
    /// Distance between columns.
    pub(crate) column_stride: usize,
}

impl<'a, F> Matrix<'a, F> {
    /// Rows of `width` contiguous elements.
    pub(crate) fn rows(data: &'a [F], width: usize) -> Self {
        Matrix { data, row_stride: width, column_stride: 1 }
    }

    /// The transpose: the same elements, read the other way.
    pub(crate) fn transposed(self) -> Self {
        Matrix { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    /// The part that starts at `(row, column)`.
    pub(crate) fn from(self, row: usize, column: usize) -> Self {
        let start = row * self.row_stride + column * self.column_stride;
        Matrix { data: &self.data[start.min(self.data.len())..], ..self }
    }

    /// Whether `rows` × `columns` elements lie inside the slice.
    pub(crate) fn holds(&self, rows: usize, columns: usize) -> bool {
        let last = |rows: usize, columns: usize| {
            let (down, across) = (rows.checked_mul(self.row_stride)?, columns.checked_mul(self.column_stride)?);
            down.checked_add(across)
        };
        rows == 0 || columns == 0 || last(rows - 1, columns - 1).is_some_and(|last| last < self.data.len())
    }
}

/// `destination = scale * a b`, or `+=` with `accumulate`, on one thread; `a` is m×k, `b` is k×n and the destination's
/// rows lie `row_stride` apart with contiguous columns.
///
/// # Safety
/// `destination` must be valid for reads and writes of every row's `n` elements, and no other thread may touch them.
///
/// # Panics
/// If a factor's slice is too short for its shape.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn multiply_into<F: Element>(
    m: usize,
    k: usize,
    n: usize,
    scale: F,
    a: Matrix<'_, F>,
    b: Matrix<'_, F>,
    accumulate: bool,
    destination: *mut F,
    row_stride: usize,
) {
    assert!(a.holds(m, k) && b.holds(k, n), "matmul: a factor is shorter than its shape");
    let width = panels::width::<F>();
    let together = (BLOCK / width * width).min(n);
    let (mut packed, mut rows) = (Vec::new(), Vec::new());
    let mut sums = vec![F::ZERO; m * together.next_multiple_of(width)];
    for column in (0..n).step_by(together.max(1)) {
        let columns = together.min(n - column);
        let mut start = 0;
        loop {
            let length = BLOCK.min(k - start);
            packed.resize(columns.next_multiple_of(width) * length, F::ZERO);
            panels::pack(b.from(start, column), [length, columns], &mut packed, [0, length]);
            let mut left = a.from(0, start);
            if left.column_stride != 1 {
                // A step along the inner axis would be a step to another line of the cache.
                rows.clear();
                for row in 0..m {
                    let elements = left.from(row, 0).data.iter().step_by(left.column_stride.max(1));
                    rows.extend(elements.take(length));
                }
                left = Matrix::rows(&rows, length);
            }
            panels::multiply([m, length, columns], left, &packed, &mut sums, start > 0);
            start += length;
            if start >= k {
                break;
            }
        }
        for (index, source) in sums.chunks_exact(width).take(m * columns.div_ceil(width)).enumerate() {
            let (first, row) = (index / m * width, index % m);
            let count = width.min(columns - first);
            // SAFETY: the row's elements are the caller's alone.
            let target =
                unsafe { std::slice::from_raw_parts_mut(destination.add(row * row_stride + column + first), count) };
            for (target, &sum) in target.iter_mut().zip(source) {
                *target = if accumulate { *target + scale * sum } else { scale * sum };
            }
        }
    }
}

/// `scale * a b` for m×k and k×n, in parallel tiles, written to an m×n row-major slice.
pub(crate) fn multiply<F: Element>(
    [m, k, n]: [usize; 3],
    scale: F,
    a: Matrix<'_, F>,
    b: Matrix<'_, F>,
    destination: &mut [F],
) {
    assert_eq!(destination.len(), count(&[m, n]), "matmul: the result needs {m} x {n} elements");
    if m == 0 || n == 0 {
        return;
    }
    if k > 2 * DEPTH && m * n <= TILE * TILE * 16 {
        return multiply_deep([m, k, n], scale, a, b, destination);
    }
    let [tile_m, tile_n] = tile_sides(m, k, n);
    let across = n.div_ceil(tile_n);
    let output = SharedMut::new(destination);
    (0..m.div_ceil(tile_m) * across).into_par_iter().for_each(|tile| {
        let (row, column) = (tile / across * tile_m, tile % across * tile_n);
        let (rows, columns) = (tile_m.min(m - row), tile_n.min(n - column));
        // SAFETY: the tiles are disjoint and end inside the m×n destination.
        unsafe {
            let target = output.at(row * n + column);
            multiply_into(rows, k, columns, scale, a.from(row, 0), b.from(0, column), false, target, n);
        }
    });
}

/// A small product over a long inner axis (a Gram matrix, say): pieces of the axis in parallel, added in order.
fn multiply_deep<F: Element>(
    [m, k, n]: [usize; 3],
    scale: F,
    a: Matrix<'_, F>,
    b: Matrix<'_, F>,
    destination: &mut [F],
) {
    let parts: Vec<Vec<F>> = (0..k.div_ceil(DEPTH))
        .into_par_iter()
        .map(|part| {
            let start = part * DEPTH;
            let mut sum = vec![F::ZERO; m * n];
            // SAFETY: `sum` has m×n elements and belongs to this task.
            unsafe {
                let depth = DEPTH.min(k - start);
                multiply_into(m, depth, n, scale, a.from(0, start), b.from(start, 0), false, sum.as_mut_ptr(), n);
            }
            sum
        })
        .collect();
    destination.copy_from_slice(&parts[0]);
    for part in &parts[1..] {
        for (sum, &term) in destination.iter_mut().zip(part) {
            *sum += term;
        }
    }
}

/// Halves the longer side until a tile is about one task's work.
fn tile_sides(m: usize, k: usize, n: usize) -> [usize; 2] {
    let mut sides = [m, n];
    while sides[0].saturating_mul(sides[1]).saturating_mul(k) > TASK_WORK && sides[0].max(sides[1]) > TILE {
        let longer = usize::from(sides[1] > sides[0]);
        sides[longer] = sides[longer].div_ceil(2).next_multiple_of(16).max(TILE);
    }
    sides
}

/// The product of `batch` pairs of matrices: (m×k)·(k×n), all row-major and one after the other.
///
/// With `transpose_a` the left factors are stored as k×m, with `transpose_b` the right ones as n×k. The result has
/// `batch * m * n` elements and the same bits for any number of threads.
///
/// # Panics
/// If a slice does not fill its shape; callers check shapes first.
///
/// ```
/// use image_losses_kernels::matmul::matmul;
/// let product = matmul(1, 2, 2, 1, &[1.0, 2.0, 3.0, 4.0], false, &[10.0, 1.0], false);
/// assert_eq!(product, [12.0, 34.0]);
/// ```
#[allow(clippy::too_many_arguments)]
pub fn matmul<F: Element>(
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    a: &[F],
    transpose_a: bool,
    b: &[F],
    transpose_b: bool,
) -> Vec<F> {
    assert_fills("matmul: left factor", &[batch, m, k], a.len());
    assert_fills("matmul: right factor", &[batch, k, n], b.len());
    assert!(count_in_memory(&[batch, m, n]).is_some(), "matmul: {batch} products of {m} x {n}");
    let mut result = super::buffers::zeros(count(&[batch, m, n]));
    if result.is_empty() {
        return result;
    }
    result.par_chunks_mut(m * n).enumerate().for_each(|(index, product)| {
        let (a, b) = (&a[index * m * k..][..m * k], &b[index * k * n..][..k * n]);
        let left = if transpose_a { Matrix::rows(a, m).transposed() } else { Matrix::rows(a, k) };
        let right = if transpose_b { Matrix::rows(b, k).transposed() } else { Matrix::rows(b, n) };
        multiply([m, k, n], F::ONE, left, right, product);
    });
    result
}

/// What the kernels' tests share.
#[cfg(test)]
pub(crate) mod test_support {
    use crate::Element;

    /// Reproducible values in [-1, 1).
    pub(crate) fn values<F: Element>(len: usize, seed: u64) -> Vec<F> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
        };
        (0..len).map(|_| F::from_f64(next())).collect()
    }

    /// The largest difference, in units of the largest expected magnitude (at least 1).
    pub(crate) fn worst_error<F: Element>(got: &[F], expected: &[f64]) -> f64 {
        assert_eq!(got.len(), expected.len());
        let scale = expected.iter().fold(1.0, |worst: f64, value| worst.max(value.abs()));
        let error = |(&got, &expected): (&F, &f64)| {
            let error = (got.to_f64() - expected).abs() / scale;
            if error.is_nan() { f64::INFINITY } else { error }
        };
        got.iter().zip(expected).map(error).fold(0.0, f64::max)
    }

    /// Runs `work` on a pool of `threads` threads.
    pub(crate) fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool").install(work)
    }
}

#[cfg(test)]
mod tests {
    use super::test_support::{on_threads, values, worst_error};
    use super::*;

    fn naive<F: Element>(
        [batch, m, k, n]: [usize; 4],
        a: &[F],
        transpose_a: bool,
        b: &[F],
        transpose_b: bool,
    ) -> Vec<f64> {
        let mut result = Vec::new();
        for index in 0..batch {
            let (a, b) = (&a[index * m * k..], &b[index * k * n..]);
            for row in 0..m {
                for column in 0..n {
                    let left = |i: usize| if transpose_a { a[i * m + row] } else { a[row * k + i] };
                    let right = |i: usize| if transpose_b { b[column * k + i] } else { b[i * n + column] };
                    result.push((0..k).map(|i| left(i).to_f64() * right(i).to_f64()).sum());
                }
            }
        }
        result
    }

    fn agrees<F: Element>(tolerance: f64) {
        let shapes = [
            [1, 1, 1, 1],
            [3, 2, 5, 4],
            [2, 1, 7, 33],
            [2, 33, 7, 1],
            [1, 17, 0, 3],
            [0, 3, 3, 3],
            [1, 0, 3, 3],
            [4, 65, 130, 71],
            [1, 300, 257, 190],
            [1, 9, 9001, 11],
        ];
        for shape @ [batch, m, k, n] in shapes {
            for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
                let (a, b) = (values::<F>(batch * m * k, 1), values::<F>(batch * k * n, 2));
                let got = matmul(batch, m, k, n, &a, transpose_a, &b, transpose_b);
                let expected = naive(shape, &a, transpose_a, &b, transpose_b);
                let error = worst_error(&got, &expected);
                assert!(error < tolerance, "{shape:?} {transpose_a} {transpose_b}: {error:e}");
            }
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        agrees::<f64>(1e-13);
        agrees::<f32>(1e-5);
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        for [m, k, n] in [[200, 300, 310], [12, 20_000, 13], [5, 64, 9000]] {
            let (a, b) = (values::<f32>(m * k, 3), values::<f32>(k * n, 4));
            let run = || matmul(1, m, k, n, &a, false, &b, false);
            assert_eq!(on_threads(1, run), on_threads(2, run));
            assert_eq!(on_threads(1, run), on_threads(5, run));
        }
    }

    #[test]
    #[should_panic(expected = "matmul")]
    fn refuses_a_short_factor() {
        let mut result = [0.0_f64; 4];
        let data = [1.0; 3];
        multiply([2, 2, 2], 1.0, Matrix::rows(&data, 2), Matrix::rows(&data, 2), &mut result);
    }
}
