//! Sums in double precision whose order no instruction set and no number of threads changes.

use crate::Element;

/// Independent partial sums: element i of a stretch goes to lane i modulo their number.
pub type Lanes = [f64; 32];

/// Adds values to the lanes; the first goes to the first.
#[inline(always)]
pub(crate) fn add<F: Element>(lanes: &mut Lanes, values: &[F]) {
    let (whole, rest) = values.as_chunks::<{ size_of::<Lanes>() / size_of::<f64>() }>();
    let mut sums = *lanes;
    for values in whole {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value.to_f64();
        }
    }
    *lanes = sums;
    // In memory: a number of additions that varies would keep the copy above out of vectors.
    for (sum, value) in lanes.iter_mut().zip(rest) {
        *sum += value.to_f64();
    }
}

/// A sum whose rounding error grows with the logarithm of the length.
pub(super) fn pairwise(values: &[f64]) -> f64 {
    if values.len() <= 8 {
        values.iter().sum()
    } else {
        let (left, right) = values.split_at(values.len() / 2);
        pairwise(left) + pairwise(right)
    }
}
