//! Broadcasting, its adjoint, and moving elements about.

use rayon::prelude::*;

use super::{Array, assert_fills, buffers, count, sum};
use crate::{Element, Shape};

/// Row-major strides.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Strides of `shape` read as if it were `target`: 0 along repeated axes.
fn repeated_strides(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let own = strides(shape);
    let new = target.len() - shape.len();
    (0..target.len()).map(|axis| if axis < new || shape[axis - new] == 1 { 0 } else { own[axis - new] }).collect()
}

/// Calls `visit` with the offset of every element of `shape`, row by row of the last axis: (offset, stride, length).
fn rows(shape: &[usize], strides: &[usize], mut visit: impl FnMut(usize, usize, usize)) {
    if shape.contains(&0) {
        return;
    }
    let Some((&length, outer)) = shape.split_last() else { return visit(0, 1, 1) };
    let stride = strides[outer.len()];
    let mut index = vec![0; outer.len()];
    let mut offset = 0;
    loop {
        visit(offset, stride, length);
        let mut axis = outer.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < outer[axis] {
                break;
            }
            offset -= strides[axis] * outer[axis];
            index[axis] = 0;
        }
    }
}

/// The array with the given strides, row-major in `shape`.
fn gather<F: Element>(data: &[F], shape: &[usize], strides: &[usize]) -> Vec<F> {
    let mut out = buffers::take(count(shape));
    rows(shape, strides, |offset, stride, length| match stride {
        1 => out.extend_from_slice(&data[offset..offset + length]),
        0 => out.extend(std::iter::repeat_n(data[offset], length)),
        _ => out.extend((0..length).map(|i| data[offset + i * stride])),
    });
    out
}

/// Repeated to `shape`.
///
/// # Panics
/// If the data do not fill the shape, or that does not broadcast to `shape`.
pub fn expand<F: Element>(array: Array<'_, F>, shape: &[usize]) -> Vec<F> {
    assert_fills("expand", array.shape, array.data.len());
    gather(array.data, shape, &repeated_strides(array.shape, shape))
}

/// Summed down to `shape`, the adjoint of [`expand`]; in double precision, in a fixed order.
pub fn sum_to<F: Element>(array: Array<'_, F>, shape: &[usize]) -> Vec<F> {
    assert_fills("sum_to", array.shape, array.data.len());
    let total = count(shape);
    if total == 1 {
        return vec![F::from_f64(sum(array.data))];
    }
    // Trailing axes summed alone are contiguous: one block sum per output.
    let kept = array.shape.len() - shape.len();
    let repeated = |axis: usize| axis < kept || (shape[axis - kept] == 1 && array.shape[axis] != 1);
    let split = (0..array.shape.len()).rev().take_while(|&axis| repeated(axis) || array.shape[axis] == 1).count();
    let leading = array.shape.len() - split;
    if split > 0 && (0..leading).all(|axis| !repeated(axis)) {
        let length = count(&array.shape[leading..]);
        if length == 0 {
            return vec![F::ZERO; total];
        }
        return array.data.chunks(length).map(|row| F::from_f64(sum(row))).collect();
    }
    let mut sums = vec![0.0; total];
    let mut read = 0;
    rows(array.shape, &repeated_strides(shape, array.shape), |offset, stride, length| {
        for (i, value) in array.data[read..read + length].iter().enumerate() {
            sums[offset + i * stride] += value.to_f64();
        }
        read += length;
    });
    sums.into_iter().map(F::from_f64).collect()
}

/// Euclidean norms of what is summed down to `shape`. The squares are in double precision, which holds that of every
/// number in single precision.
pub fn norm_to<F: Element>(array: Array<'_, F>, shape: &[usize]) -> Vec<F> {
    assert_fills("norm_to", array.shape, array.data.len());
    let squares = in_pieces(array.data.len(), 1, |start, out: &mut [f64]| {
        for (out, x) in out.iter_mut().zip(&array.data[start..]) {
            *out = x.to_f64() * x.to_f64();
        }
    });
    let sums = sum_to(Array { shape: array.shape, data: &squares }, shape);
    sums.into_iter().map(|sum| F::from_f64(sum.sqrt())).collect()
}

/// Elements that a task computes; fewer in all are computed at once.
const TASK: usize = 1 << 14;

/// A vector whose pieces `work` fills, given where each begins: of whole multiples of `unit` elements, in parallel.
fn in_pieces<F: Element>(length: usize, unit: usize, work: impl Fn(usize, &mut [F]) + Sync) -> Vec<F> {
    let mut out = buffers::zeros(length);
    let piece = TASK.next_multiple_of(unit.max(1));
    if length <= piece {
        work(0, &mut out);
    } else {
        out.par_chunks_mut(piece).enumerate().for_each(|(index, out)| work(index * piece, out));
    }
    out
}

/// Multiplies every element by a factor.
pub fn scale<F: Element>(values: &mut [F], factor: F) {
    let multiply = |values: &mut [F]| values.iter_mut().for_each(|value| *value *= factor);
    if values.len() <= TASK {
        multiply(values);
    } else {
        values.par_chunks_mut(TASK).for_each(multiply);
    }
}

/// x·scale + shift.
pub fn affine<F: Element>(data: &[F], scale: F, shift: F) -> Vec<F> {
    in_pieces(data.len(), 1, |start, out| {
        for (out, &x) in out.iter_mut().zip(&data[start..]) {
            *out = x * scale + shift;
        }
    })
}

/// `combine` of two arrays that broadcast to `shape`.
pub fn binary<F: Element>(
    a: Array<'_, F>,
    b: Array<'_, F>,
    shape: &[usize],
    combine: impl Fn(F, F) -> F + Sync,
) -> Vec<F> {
    for operand in [a, b] {
        assert_fills("an operand", operand.shape, operand.data.len());
    }
    if a.shape == b.shape {
        return in_pieces(a.data.len(), 1, |start, out| {
            for ((out, &a), &b) in out.iter_mut().zip(&a.data[start..]).zip(&b.data[start..]) {
                *out = combine(a, b);
            }
        });
    }
    if a.shape == shape
        && let Some(run) = run_length(b.shape, shape)
    {
        return in_runs(a.data, b, shape, run, &combine);
    }
    if b.shape == shape
        && let Some(run) = run_length(a.shape, shape)
    {
        return in_runs(b.data, a, shape, run, |b, a| combine(a, b));
    }
    let mut out = expand(a, shape);
    let mut write = 0;
    rows(shape, &repeated_strides(b.shape, shape), |offset, stride, length| {
        for (i, out) in out[write..write + length].iter_mut().enumerate() {
            *out = combine(*out, b.data[offset + i * stride]);
        }
        write += length;
    });
    out
}

/// How many consecutive elements of `target` share one of `shape`, if more than one do: the trailing axes that are
/// repeated.
fn run_length(shape: &[usize], target: &[usize]) -> Option<usize> {
    let new = target.len() - shape.len();
    let is_repeated = |axis: usize| axis < new || shape[axis - new] == 1;
    let run = (0..target.len()).rev().take_while(|&axis| is_repeated(axis)).map(|axis| target[axis]).product();
    (run > 1).then_some(run)
}

/// `combine` of every element of `full` with the one of `small` that its run shares.
fn in_runs<F: Element>(
    full: &[F],
    small: Array<'_, F>,
    shape: &[usize],
    run: usize,
    combine: impl Fn(F, F) -> F + Sync,
) -> Vec<F> {
    // The runs' elements, in order: `small` repeated along the leading axes alone.
    let mut leading = Vec::new();
    let mut length = 1;
    for &extent in shape {
        if length * run >= count(shape) {
            break;
        }
        leading.push(extent);
        length *= extent;
    }
    let new = shape.len() - small.shape.len();
    let own: Shape = (0..leading.len()).map(|axis| if axis < new { 1 } else { small.shape[axis - new] }).collect();
    let values = expand(Array { shape: &own, data: small.data }, &leading);
    in_pieces(full.len(), run, |start, out| {
        for ((out, full), &small) in out.chunks_mut(run).zip(full[start..].chunks(run)).zip(&values[start / run..]) {
            for (out, &full) in out.iter_mut().zip(full) {
                *out = combine(full, small);
            }
        }
    })
}

/// Axes in another order.
pub fn permute<F: Element>(array: Array<'_, F>, order: &[usize]) -> Vec<F> {
    assert_fills("permute", array.shape, array.data.len());
    let own = strides(array.shape);
    let shape: Shape = order.iter().map(|&axis| array.shape[axis]).collect();
    let moved: Vec<usize> = order.iter().map(|&axis| own[axis]).collect();
    gather(array.data, &shape, &moved)
}

/// The product of the extents before and after `axis`.
fn around(shape: &[usize], axis: usize) -> (usize, usize) {
    (count(&shape[..axis]), count(&shape[axis + 1..]))
}

/// A part of one axis.
pub fn narrow<F: Element>(array: Array<'_, F>, axis: usize, start: usize, length: usize) -> Vec<F> {
    assert_fills("narrow", array.shape, array.data.len());
    let (outer, inner) = around(array.shape, axis);
    let extent = array.shape[axis];
    let mut out = buffers::take(outer * length * inner);
    for o in 0..outer {
        out.extend_from_slice(&array.data[(o * extent + start) * inner..][..length * inner]);
    }
    out
}

/// Zeros before and after along one axis.
pub fn pad<F: Element>(array: Array<'_, F>, axis: usize, before: usize, after: usize) -> Vec<F> {
    assert_fills("pad", array.shape, array.data.len());
    let (outer, inner) = around(array.shape, axis);
    let extent = array.shape[axis];
    let padded = before + extent + after;
    let mut out = buffers::zeros(outer * padded * inner);
    for o in 0..outer {
        let row = &array.data[o * extent * inner..][..extent * inner];
        out[(o * padded + before) * inner..][..extent * inner].copy_from_slice(row);
    }
    out
}

/// Joined along one axis.
pub fn concatenate<F: Element>(arrays: &[Array<'_, F>], axis: usize) -> Vec<F> {
    for array in arrays {
        assert_fills("concatenate", array.shape, array.data.len());
    }
    let mut out = buffers::take(arrays.iter().map(|array| array.data.len()).sum());
    let Some(first) = arrays.first() else { return out };
    let (outer, inner) = around(first.shape, axis);
    for o in 0..outer {
        for array in arrays {
            let length = array.shape[axis] * inner;
            out.extend_from_slice(&array.data[o * length..][..length]);
        }
    }
    out
}

/// A sparse linear map along one axis: output i is the sum over row i's pairs (input, weight).
///
/// # Panics
/// If the data do not fill the shape, or a row names an input that is not there.
pub fn linear<F: Element>(array: Array<'_, F>, axis: usize, rows: &[&[(usize, f64)]]) -> Vec<F> {
    assert_fills("linear", array.shape, array.data.len());
    let (outer, inner) = around(array.shape, axis);
    let (from, to) = (array.shape[axis], rows.len());
    // In the element type once, not at every element.
    let weights: Vec<Vec<(usize, F)>> =
        rows.iter().map(|row| row.iter().map(|&(j, weight)| (j * inner, F::from_f64(weight))).collect()).collect();
    in_pieces(outer * to * inner, to * inner, |start, out| {
        for (o, out) in out.chunks_mut((to * inner).max(1)).enumerate() {
            let source = &array.data[(start / (to * inner) + o) * from * inner..][..from * inner];
            for (target, row) in out.chunks_mut(inner.max(1)).zip(&weights) {
                if let [target] = target {
                    *target = row.iter().fold(F::ZERO, |sum, &(j, weight)| sum + weight * source[j]);
                    continue;
                }
                for &(j, weight) in row {
                    for (target, &value) in target.iter_mut().zip(&source[j..][..inner]) {
                        *target += weight * value;
                    }
                }
            }
        }
    })
}
