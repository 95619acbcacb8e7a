//! Elementary functions without branches, so that the compiler turns a loop over them into vector code.
//!
//! No fused multiply-add anywhere: every instruction set then computes the same bits.

use crate::Scalar;

/// Dispatches a generic call to the function for the element type; the comparison is resolved at compile time.
macro_rules! dispatch {
    ($name:ident, $doc:literal, $single:expr, $double:expr) => {
        #[doc = $doc]
        #[inline(always)]
        pub(crate) fn $name<F: Scalar>(x: F) -> F {
            x.apply(
                #[inline(always)]
                |x: f32| $single(x),
                #[inline(always)]
                |x: f64| $double(x),
            )
        }
    };
}

dispatch!(abs, "|x|.", f32::abs, f64::abs);
dispatch!(sqrt, "√x.", f32::sqrt, f64::sqrt);
dispatch!(exp, "eˣ.", exp_f32, f64::exp);
dispatch!(ln, "ln x.", f32::ln, f64::ln);
dispatch!(tanh, "tanh x.", f32::tanh, f64::tanh);
dispatch!(sigmoid, "1/(1 + e⁻ˣ).", sigmoid_f32, sigmoid_f64);
dispatch!(softplus, "ln(1 + eˣ).", softplus_f32, softplus_f64);

/// −1, 0 or 1; NaN stays NaN.
#[inline(always)]
pub(crate) fn sign<F: Scalar>(x: F) -> F {
    // Two comparisons and a subtraction: the `if`/`else if` form is not vectorised.
    let positive = if x > F::ZERO { F::ONE } else { F::ZERO };
    let negative = if x < F::ZERO { F::ONE } else { F::ZERO };
    let sign = positive - negative;
    #[allow(clippy::eq_op)]
    if x == x { sign } else { x }
}

/// eˣ within about one unit in the last place; 0 below −87.3, infinite above 88.7.
#[inline(always)]
#[allow(clippy::excessive_precision)]
fn exp_f32(x: f32) -> f32 {
    // x = n·ln 2 + r with |r| ≤ ½ ln 2; ln 2 in two parts (Cody and Waite), a degree-7 polynomial for eʳ (Cephes).
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding it rounds to an integer
    let clamped = if x < -87.336_54 { -87.336_54 } else { x };
    let clamped = if clamped > 88.722_84 { 88.722_84 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_375 - n * -2.121_944_40e-4;
    let mut p = 1.987_569_15e-4;
    p = p * r + 1.398_199_95e-3;
    p = p * r + 8.333_451_91e-3;
    p = p * r + 4.166_579_59e-2;
    p = p * r + 1.666_666_55e-1;
    p = p * r + 5.000_000_12e-1;
    let mantissa = p * r * r + r + 1.0;
    // n is read from the low bits of the shifted number: no float-to-integer conversion, hence no NaN to fear.
    let k = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    // 2ⁿ in two factors, for n = 128.
    let half = k >> 1;
    let power = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
    let value = mantissa * power(half) * power(k - half);
    let value = if x < -87.336_54 { 0.0 } else { value };
    let value = if x > 88.722_84 { f32::INFINITY } else { value };
    #[allow(clippy::eq_op)]
    if x == x { value } else { x }
}

/// ln(1 + z) for z in [0, 1], to about 1e-7 relative.
#[inline(always)]
fn ln_1p_unit_f32(z: f32) -> f32 {
    // With s = z/(2 + z): ln(1 + z) = 2·artanh s = 2s + s³·(2/3 + 2s²/5 + …), |s| ≤ 1/3.
    let s = z / (2.0 + z);
    let w = s * s;
    let mut p = 2.0 / 15.0;
    p = p * w + 2.0 / 13.0;
    p = p * w + 2.0 / 11.0;
    p = p * w + 2.0 / 9.0;
    p = p * w + 2.0 / 7.0;
    p = p * w + 2.0 / 5.0;
    p = p * w + 2.0 / 3.0;
    s * w * p + 2.0 * s
}

#[inline(always)]
fn sigmoid_f32(x: f32) -> f32 {
    // e^(−|x|) never overflows; 1/(1 + e) on the positive side, e/(1 + e) on the negative.
    let e = exp_f32(-x.abs());
    let r = 1.0 / (1.0 + e);
    if x < 0.0 { e * r } else { r }
}

#[inline(always)]
fn softplus_f32(x: f32) -> f32 {
    let positive = if x <= 0.0 { 0.0 } else { x };
    positive + ln_1p_unit_f32(exp_f32(-x.abs()))
}

#[inline(always)]
fn sigmoid_f64(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    let r = 1.0 / (1.0 + e);
    if x < 0.0 { e * r } else { r }
}

#[inline(always)]
fn softplus_f64(x: f64) -> f64 {
    let positive = if x <= 0.0 { 0.0 } else { x };
    positive + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative error of a single-precision function against the double-precision library's.
    fn worst(single: impl Fn(f32) -> f32, double: impl Fn(f64) -> f64, range: std::ops::Range<i32>) -> f64 {
        range
            .map(|i| {
                let x = i as f32 / 1024.0;
                let expected = double(f64::from(x));
                (f64::from(single(x)) - expected).abs() / expected.abs().max(f64::from(f32::MIN_POSITIVE))
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn single_precision_functions_agree_with_the_library() {
        // Two units in the last place of f32 are 2.4e-7.
        assert!(worst(exp_f32, f64::exp, -87 * 1024..88 * 1024) < 2.4e-7);
        assert!(worst(sigmoid_f32, sigmoid_f64, -80 * 1024..80 * 1024) < 3.6e-7);
        assert!(worst(softplus_f32, softplus_f64, -80 * 1024..80 * 1024) < 3.6e-7);
    }

    #[test]
    fn extremes_are_exact() {
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_f32(0.0), 1.0);
        assert!(exp_f32(f32::NAN).is_nan() && sigmoid_f32(f32::NAN).is_nan() && softplus_f32(f32::NAN).is_nan());
        assert_eq!(softplus_f32(1e30), 1e30);
        assert_eq!(softplus_f32(-1e30), 0.0);
        assert_eq!(sigmoid_f32(-1e30), 0.0);
        assert_eq!(sign(-0.0f32), 0.0);
        assert!(sign(f64::NAN).is_nan());
    }
}
