//! The rule by which an engine's numbers agree with the reference: what rounding explains, and nothing else.
//!
//! The same rule holds for every case and every engine. u is the unit roundoff of single precision, 2⁻²⁴.
//!
//! **Double precision** is compared with MMagic's numbers, element by element. Allowed is 1e-12 of the scale. A reference
//! that is stored in single precision (the frozen networks) was computed in double precision and rounded once: each
//! element may be off by u of itself as well.
//!
//! **Single precision** may be off by 32 u of the scale: ten operations per element, and a sum whose partial sums are at
//! most log₂ n ≈ 20 roundings deep. The gradient through a frozen network may be off by 256 u: the error of a sum of n
//! rounded products is a random walk, u·√(n/6) of the sum; the deepest network, IR-SE50, has 50 layers of up to 4,608
//! products and is passed twice, which makes √100 · √(4608/6) = 277.
//!
//! **The scale** of a value is the sum of the magnitudes that it is a sum of, since that is what rounding is relative to:
//! Σ|xᵢ·∂L/∂xᵢ| over everything the case differentiates by, at least the largest element. (For the mean of scores this
//! is the mean of their magnitudes, however they cancel.) The terms of a frozen network's criterion are not negative, and
//! the value is their sum of magnitudes. The scale of a gradient is the largest element, of all parameters of a network
//! together, which are one vector (the gradient of a single bias may cancel). For frozen networks error and scale are
//! Euclidean norms, image by image.
//!
//! **Kinks.** ReLU, maximum pooling and L1 make the gradient jump where rounding takes an argument to the other side of
//! a kink. Where that happens is a matter of the point; a fault of the engine is there at every point. So a gradient in
//! single precision that is off at the case's own inputs is compared again at nearby inputs, with the same engine's
//! double precision, which must agree with MMagic at the case's own inputs. It agrees if each of its parts agrees at one
//! of the points. Where inputs are equal, which is a kink by intent, there are no nearby inputs.
//!
//! **Ill-conditioned gradients**, as 1/√eps in the Charbonnier composition, and networks so large that rounding
//! crosses kinks at every point: the exact gradient of inputs that differ by rounding (8 u, relative) differs as much. A
//! part's smallest error over the points may be 4 times the smallest such difference: rounding of inputs alone stands for
//! the rounding of all layers.

use super::case::{Array, Case};

/// The unit roundoff of single precision.
pub(super) const UNIT: f64 = 1.0 / (1u32 << 24) as f64;
/// Double precision: of the scale.
const DOUBLE: f64 = 1e-12;
/// Single precision: of the scale.
const SINGLE: f64 = 32.0 * UNIT;
/// Single precision: the gradient through a frozen network.
const SINGLE_NETWORK_GRADIENT: f64 = 256.0 * UNIT;
/// How many nearby inputs are tried.
pub(super) const POINTS: u64 = 8;
/// How far they are, relative to each element: many roundings, so that other kinks are close; the inputs keep their ranges.
pub(super) const NEARBY: f64 = 1.0 / 256.0;
/// Inputs that differ by rounding: relative to each element.
pub(super) const ROUNDING: f64 = 8.0 * UNIT;
/// How many of these at each point.
pub(super) const ROUNDINGS: u64 = 3;
/// What is allowed of the difference that rounding makes.
const SPREAD: f64 = 4.0;

/// The largest errors accepted, of values and of gradients.
pub(super) fn limits(case: &Case, single: bool) -> (f64, f64) {
    match (single, frozen(case)) {
        (false, _) => (DOUBLE, DOUBLE),
        (true, false) => (SINGLE, SINGLE),
        (true, true) => (SINGLE, SINGLE_NETWORK_GRADIENT),
    }
}

/// Looks through a frozen network.
pub(super) fn frozen(case: &Case) -> bool {
    case.description.weights.is_some()
}

/// Whether nearby inputs tell of the same thing: not where inputs are equal.
pub(super) fn has_nearby(case: &Case) -> bool {
    let inputs: Vec<&Array> = case.inputs.values().collect();
    !inputs.iter().enumerate().any(|(i, a)| inputs[..i].iter().any(|b| a.values == b.values))
}

/// The case with each element of its inputs moved towards 0 by up to `size` of itself, rounded to single precision where
/// both precisions are to read the same. Inputs of zeros and ones alone are masks, and stay.
pub(super) fn moved(case: &Case, size: f64, seed: u64, round: bool) -> Case {
    let mut case = case.clone();
    let mut state = seed;
    for input in case.inputs.values_mut().filter(|input| input.values.iter().any(|&x| x != 0.0 && x != 1.0)) {
        for x in &mut input.values {
            let moved = *x * (1.0 - size * uniform(&mut state));
            *x = if round { f64::from(moved as f32) } else { moved };
        }
    }
    case
}

/// The next number of SplitMix64 in [0, 1).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = *state;
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f64 * UNIT
}

/// The sum of the magnitudes that make up a case's one number: Σ|xᵢ·∂L/∂xᵢ|. 0 where the case has several, or a frozen
/// network.
pub(super) fn magnitude(case: &Case) -> f64 {
    let one = case.values.len() == 1 && case.values.values().all(|value| value.values.len() == 1);
    if !one || frozen(case) {
        return 0.0;
    }
    let terms = case.gradients.iter().map(|(name, gradient)| {
        let at = match name.strip_prefix("net.") {
            Some(parameter) => case.parameters.get(parameter),
            None => case.inputs.get(name),
        };
        let products = at.iter().flat_map(|at| at.values.iter().zip(&gradient.values));
        products.map(|(x, gradient)| (x * gradient).abs()).sum::<f64>()
    });
    terms.sum()
}

/// The largest deviation relative to `scale` (absolute where that is 0), after `rounding` of each expected element is
/// taken off.
pub(super) fn largest_error(got: &[f64], expected: &[f64], scale: f64, rounding: f64) -> f64 {
    let deviation = got.iter().zip(expected).fold(0.0, |worst, (got, expected)| {
        let deviation = (got - expected).abs() - rounding * expected.abs();
        worse(worst, if deviation < 0.0 { 0.0 } else { deviation })
    });
    if scale > 0.0 { deviation / scale } else { deviation }
}

/// ‖got − expected‖ / ‖expected‖ of each of `parts` equal pieces. A piece that is 0 is relative to all of them.
pub(super) fn euclidean_errors(got: &[f64], expected: &[f64], parts: usize) -> Vec<f64> {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let whole = norm(&mut expected.iter().copied());
    let length = (expected.len() / parts.max(1)).max(1);
    let pieces = got.chunks(length).zip(expected.chunks(length)).map(|(got, expected)| {
        let deviation = norm(&mut got.iter().zip(expected).map(|(got, expected)| got - expected));
        let own = norm(&mut expected.iter().copied());
        let scale = if own > 0.0 { own } else { whole };
        if scale > 0.0 { deviation / scale } else { deviation }
    });
    pieces.collect()
}

/// Whether a part's smallest error at nearby inputs is explained: by the limit, or by the smallest difference that
/// rounding of the inputs makes. NaN is not.
pub(super) fn explained(error: f64, limit: f64, spread: f64) -> bool {
    error <= limit + SPREAD * spread
}

/// The larger of two errors; NaN is the largest.
pub(crate) fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The largest magnitude; NaN is the largest.
pub(super) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| worse(largest, value.abs()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    /// The mean of scores.
    fn mean(scores: &[f64]) -> Case {
        let array = |values: Vec<f64>| Array { shape: vec![values.len()], values };
        let count = scores.len() as f64;
        Case {
            name: "gan/mean".to_owned(),
            description: serde_json::from_value(json!({ "loss": { "type": "GANLoss" } })).unwrap(),
            inputs: BTreeMap::from([("input".to_owned(), array(scores.to_vec()))]),
            tokens: BTreeMap::new(),
            parameters: BTreeMap::new(),
            values: BTreeMap::from([(String::new(), array(vec![scores.iter().sum::<f64>() / count]))]),
            cotangents: BTreeMap::new(),
            gradients: BTreeMap::from([("input".to_owned(), array(vec![1.0 / count; scores.len()]))]),
            stored_single: false,
        }
    }

    #[test]
    fn the_scale_of_a_mean_is_that_of_magnitudes() {
        assert_eq!(magnitude(&mean(&[3.0, -3.0, 1.0, -1.0])), 2.0);
        // Of several values the gradient does not tell the magnitudes apart.
        let mut several = mean(&[3.0, -3.0]);
        several.values.insert("other".to_owned(), Array { shape: vec![1], values: vec![1.0] });
        assert_eq!(magnitude(&several), 0.0);
    }

    #[test]
    fn nearby_inputs_keep_signs_zeros_and_masks() {
        let mut case = mean(&[1.0, -0.5, 0.0, 0.25]);
        case.inputs.insert("mask".to_owned(), Array { shape: vec![4], values: vec![1.0, 0.0, 0.0, 1.0] });
        let near = moved(&case, NEARBY, 1, true);
        assert_eq!(near.inputs["mask"].values, case.inputs["mask"].values);
        for (near, at) in near.inputs["input"].values.iter().zip(&case.inputs["input"].values) {
            assert_eq!(f64::from(*near as f32), *near);
            assert!(near.abs() <= at.abs() && near.abs() >= at.abs() * (1.0 - NEARBY) && near * at >= 0.0);
        }
        assert_ne!(near.inputs["input"].values, case.inputs["input"].values);
        assert_ne!(near.inputs["input"].values, moved(&case, NEARBY, 2, true).inputs["input"].values);
    }

    #[test]
    fn equal_inputs_have_no_nearby_ones() {
        let mut case = mean(&[1.0, 2.0]);
        assert!(has_nearby(&case));
        case.inputs.insert("target".to_owned(), case.inputs["input"].clone());
        assert!(!has_nearby(&case));
    }

    #[test]
    fn not_a_number_is_never_within() {
        assert!(worse(0.0, f64::NAN).is_nan());
        assert!(largest_error(&[f64::NAN], &[1.0], 1.0, UNIT).is_nan());
        assert!(euclidean_errors(&[f64::NAN], &[1.0], 1)[0].is_nan());
        assert!(!explained(f64::NAN, 1.0, 1.0));
        assert!(!explained(1.0, 1.0, f64::NAN));
    }

    #[test]
    fn errors_are_relative_to_the_scale() {
        assert_eq!(largest_error(&[1.0, 4.5], &[1.0, 5.0], 5.0, 0.0), 0.1);
        assert_eq!(largest_error(&[0.25], &[0.0], 0.0, 0.0), 0.25);
        assert_eq!(euclidean_errors(&[3.0, 0.0], &[3.0, 4.0], 1), [0.8]);
        assert_eq!(euclidean_errors(&[3.0, 5.0, 0.0, 1.0], &[3.0, 4.0, 0.0, 0.0], 2), [0.2, 0.2]);
    }

    #[test]
    fn the_rounding_of_what_is_stored_is_taken_off() {
        assert_eq!(largest_error(&[1.0 + UNIT], &[1.0], 1.0, UNIT), 0.0);
        assert_eq!(largest_error(&[1.0 + 3.0 * UNIT], &[1.0], 1.0, UNIT), 2.0 * UNIT);
    }

    #[test]
    fn a_difference_is_explained_by_rounding_or_not_at_all() {
        assert!(explained(1e-6, 2e-6, 0.0));
        assert!(explained(1e-4, 2e-6, 1e-4));
        assert!(!explained(1e-4, 2e-6, 1e-6));
    }
}
