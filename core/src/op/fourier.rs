//! The real Fourier transform and its adjoint: each is the other's gradient.

use std::f64::consts::TAU;
use std::sync::Arc;

use super::{Op, perform, rule};
use crate::fft::columns;
use crate::{LinearMap, Result, Shape, Tensor};

/// The shape rule.
pub(super) fn shape(op: &Op, input: &Shape) -> Result<Shape> {
    match (op, &input[..]) {
        (Op::RealFft, [rest @ .., height, width]) if *height > 0 && *width > 0 => {
            Ok([rest, &[*height, columns(*width), 2]].concat())
        }
        (Op::RealFft, _) => rule(op, "rank at least 2 and images of at least one pixel".into(), input),
        (Op::RealFftAdjoint { width }, [rest @ .., height, kept, 2])
            if *height > 0 && *width > 0 && *kept == columns(*width) =>
        {
            Ok([rest, &[*height, *width]].concat())
        }
        (Op::RealFftAdjoint { width }, _) => rule(op, format!("shape (…, H, {}, 2)", columns(*width)), input),
        _ => Ok(input.clone()),
    }
}

/// The gradient by the input.
pub(super) fn gradient<T: Tensor>(op: &Op, input: &T, above: &T) -> Result<T> {
    match op {
        Op::RealFft => {
            let width = input.shape().last().copied().unwrap_or_default();
            perform(&Op::RealFftAdjoint { width }, &[above])
        }
        _ => perform(&Op::RealFft, &[above]),
    }
}

/// Cosines and sines of the angles between `inputs` positions and `outputs` frequencies, as maps along an axis.
fn maps(inputs: usize, outputs: usize) -> Result<[Arc<LinearMap>; 2]> {
    let of = |function: fn(f64) -> f64| {
        // Whole turns are taken off before the angle is rounded.
        let weight = |i: usize, j: usize| function(TAU * ((i * j) % inputs) as f64 / inputs as f64);
        let row = |i: usize| (0..inputs).map(|j| (j, weight(i, j))).collect();
        LinearMap::from_rows(inputs, (0..outputs).map(row))
    };
    Ok([of(f64::cos)?, of(f64::sin)?])
}

/// As linear maps along both axes: many operations for each element, for engines without a fast transform.
pub(super) fn decompose<T: Tensor>(op: &Op, input: &T, shape: &[usize]) -> Result<T> {
    let is_forward = matches!(op, Op::RealFft);
    let extents = if is_forward { input.shape() } else { shape.to_vec() };
    let rank = extents.len();
    let (down, across) = (rank - 2, rank - 1);
    let [cos_down, sin_down] = maps(extents[down], extents[down])?;
    let [cos_across, sin_across] = maps(extents[across], columns(extents[across]))?;
    if is_forward {
        // (c − is) across, then (c − is) down.
        let (real, minus) = (input.linear(across, &cos_across)?, input.linear(across, &sin_across)?);
        let parts = [
            real.linear(down, &cos_down)?.sub(&minus.linear(down, &sin_down)?)?,
            minus.linear(down, &cos_down)?.add(&real.linear(down, &sin_down)?)?.neg()?,
        ];
        let alone = |part: &T| part.reshape(&[&part.shape()[..], &[1]].concat());
        let [real, imaginary] = [alone(&parts[0])?, alone(&parts[1])?];
        return T::concatenate(&[&real, &imaginary], rank);
    }
    let part = |index: usize| {
        let part = input.narrow(rank, index, 1)?;
        part.reshape(&part.shape()[..rank])
    };
    let (real, imaginary) = (part(0)?, part(1)?);
    let [cos_down, sin_down] = [cos_down.transposed(), sin_down.transposed()];
    let by_real = real.linear(down, &cos_down)?.sub(&imaginary.linear(down, &sin_down)?)?;
    let by_minus = real.linear(down, &sin_down)?.add(&imaginary.linear(down, &cos_down)?)?.neg()?;
    by_real.linear(across, &cos_across.transposed())?.add(&by_minus.linear(across, &sin_across.transposed())?)
}
