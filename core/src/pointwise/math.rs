//! Elementary functions without branches, so that the compiler turns a loop over them into vector code.
//!
//! Multiplications and additions are fused where `mul_add` says so and nowhere else: every instruction set then computes
//! the same bits. What is the standard library's calls the platform's C library: ln, tanh, and eˣ in double precision.

use crate::Scalar;

/// Each of several numbers through `step`. A function of several numbers goes one step at a time through all of them: the
/// steps of one number wait for each other, those of different numbers do not, and a processor sees only so far ahead.
#[inline(always)]
fn through<A: Copy, B: Copy + Default, const W: usize>(x: [A; W], step: impl Fn(A) -> B) -> [B; W] {
    let mut results = [B::default(); W];
    for (result, &x) in results.iter_mut().zip(&x) {
        *result = step(x);
    }
    results
}

/// Dispatches a generic call to the function for the element type; the comparison is resolved at compile time.
macro_rules! dispatch {
    ($name:ident, $doc:literal, $single:expr, $double:expr) => {
        #[doc = $doc]
        #[inline(always)]
        pub(crate) fn $name<F: Scalar, const W: usize>(x: [F; W]) -> [F; W] {
            F::apply(
                x,
                #[inline(always)]
                |x: [f32; W]| $single(x),
                #[inline(always)]
                |x: [f64; W]| through(x, $double),
            )
        }
    };
}

dispatch!(abs, "|x|.", |x| through(x, f32::abs), f64::abs);
dispatch!(sqrt, "√x.", |x| through(x, f32::sqrt), f64::sqrt);
dispatch!(exp, "eˣ.", exp_f32, f64::exp);
dispatch!(ln, "ln x.", |x| through(x, f32::ln), f64::ln);
dispatch!(tanh, "tanh x.", |x| through(x, f32::tanh), f64::tanh);
dispatch!(sigmoid, "1/(1 + e⁻ˣ).", sigmoid_f32, sigmoid_f64);
dispatch!(softplus, "ln(1 + eˣ).", softplus_f32, softplus_f64);

/// The nearest number from `low` to `high`; NaN stays NaN.
#[inline(always)]
pub(crate) fn clip<F: Scalar>(x: F, low: F, high: F) -> F {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

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

/// Below it eˣ is no normal number any more.
const LEAST: f32 = -87.336_54;
/// Above it eˣ is infinite.
const MOST: f32 = 88.722_84;

/// x = n·ln 2 + r with |r| ≤ ½ ln 2: r, and a number whose low bits are n + 127. `x` is from −88 to [`MOST`], or not a
/// number.
#[inline(always)]
#[allow(clippy::excessive_precision)]
fn reduced(x: f32) -> (f32, u32) {
    // 1.5·2²³, adding which rounds to an integer, and the exponent's bias.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts (Cody and Waite).
    let r = n.mul_add(-0.693_359_375, x);
    let r = n.mul_add(2.121_944_40e-4, r);
    // The bits are read off the shifted number: no float-to-integer conversion, hence no NaN to fear.
    (r, shifted.to_bits())
}

/// eʳ for |r| ≤ ½ ln 2.
#[inline(always)]
fn exp_of_reduced(r: f32) -> f32 {
    // 1 + r + r²·p(r), p the Chebyshev interpolation, whose own error is 1.1e-8.
    let r2 = r * r;
    let low = 0.166_665_76f32.mul_add(r, 0.5);
    let middle = 8.363_179e-3f32.mul_add(r, 4.166_655_6e-2);
    let p = 1.392_618_4e-3f32.mul_add(r2, middle).mul_add(r2, low);
    p.mul_add(r2, r) + 1.0
}

/// 2ᵏ for the k whose sum with 127 stands in the low bits, from 1 to 254, and 0 where that is 0.
#[inline(always)]
fn power_of_two(biased: u32) -> f32 {
    f32::from_bits(biased << 23)
}

/// eˣ within about one unit in the last place; 0 below −87.3, infinite above 88.7.
#[inline(always)]
fn exp_f32<const W: usize>(x: [f32; W]) -> [f32; W] {
    let parts = through(x, |x| {
        let clamped = if x < LEAST { LEAST } else { x };
        reduced(if clamped > MOST { MOST } else { clamped })
    });
    let parts = through(parts, |(r, biased)| (exp_of_reduced(r), biased));
    let mut values = through(parts, |(mantissa, biased)| {
        // 2ᵏ in two factors, for k = 128: the bias is 127 in each.
        let k = (biased & 511) as i32 - 127;
        let half = k >> 1;
        mantissa * power_of_two((half + 127) as u32) * power_of_two((k - half + 127) as u32)
    });
    for (value, &x) in values.iter_mut().zip(&x) {
        let finite = if x < LEAST { 0.0 } else { *value };
        let number = if x > MOST { f32::INFINITY } else { finite };
        #[allow(clippy::eq_op)]
        let result = if x == x { number } else { x };
        *value = result;
    }
    values
}

/// e^(−|x|) within about one unit in the last place; 0 beyond 87.3.
#[inline(always)]
fn exp_of_minus_abs<const W: usize>(x: [f32; W]) -> [f32; W] {
    let parts = through(x, |x| {
        let x = -x.abs();
        // At −88 n is −127, which `power_of_two` makes 0: no comparison is needed for what is too small.
        reduced(if x < -88.0 { -88.0 } else { x })
    });
    through(through(parts, |(r, biased)| (exp_of_reduced(r), biased)), |(mantissa, biased)| {
        mantissa * power_of_two(biased)
    })
}

/// 1/w for w in [1, 2], within about one unit in the last place; a division of vectors takes longer than all of this.
///
/// The parabola whose relative error is the least, 1/99 (1 − w·r is then Chebyshev's polynomial of degree 3, scaled), and
/// two of Newton's steps, each of which squares the error.
#[inline(always)]
fn reciprocal_of_1_to_2(w: f32) -> f32 {
    let r = (32.0 / 99.0f32).mul_add(w, -144.0 / 99.0).mul_add(w, 210.0 / 99.0);
    let r = r.mul_add((-w).mul_add(r, 1.0), r);
    r.mul_add((-w).mul_add(r, 1.0), r)
}

/// z = e^(−|x|), 1/(1 + z) and z/(1 + z): what the logistic function and its integral have in common.
#[inline(always)]
fn logistic_parts<const W: usize>(x: [f32; W]) -> [[f32; 3]; W] {
    through(through(exp_of_minus_abs(x), |z| [z, reciprocal_of_1_to_2(1.0 + z)]), |[z, q]| [z, q, z * q])
}

#[inline(always)]
fn sigmoid_f32<const W: usize>(x: [f32; W]) -> [f32; W] {
    // e^(−|x|) never overflows: 1/(1 + z) on the positive side, z/(1 + z) on the negative.
    let parts = logistic_parts(x);
    let mut values = x;
    for (value, [_, q, t]) in values.iter_mut().zip(parts) {
        *value = if *value < 0.0 { t } else { q };
    }
    values
}

#[inline(always)]
fn softplus_f32<const W: usize>(x: [f32; W]) -> [f32; W] {
    let logarithms = through(logistic_parts(x), |[z, _, t]| ln_1p_of_parts(z, t));
    let mut values = x;
    for (value, logarithm) in values.iter_mut().zip(logarithms) {
        // NaN shows in the logarithm, so that the maximum is one instruction.
        let positive = if *value > 0.0 { *value } else { 0.0 };
        *value = positive + logarithm;
    }
    values
}

/// ln(1 + z) for z in [0, 1] from z and t = z/(1 + z), to 2e-7 relative.
///
/// With L the logarithm z + t = 2 sinh L and z·t = 2 cosh L − 2, small where z is: L is their product with an even function
/// of L, L/(2 sinh L), in the second. A polynomial of degree 4 is that to 1.7e-8 (Chebyshev interpolation), where one in z
/// takes degree 9; and the division is the derivative's as well.
#[inline(always)]
fn ln_1p_of_parts(z: f32, t: f32) -> f32 {
    let v = z * t;
    let h = 6.046_531e-4f32.mul_add(v, -3.493_473e-3).mul_add(v, 1.665_311_1e-2);
    (z + t) * h.mul_add(v, -8.333_249_4e-2).mul_add(v, 0.5)
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

    /// A function of one number.
    fn one(function: impl Fn([f32; 1]) -> [f32; 1]) -> impl Fn(f32) -> f32 {
        move |x| function([x])[0]
    }

    #[test]
    fn single_precision_functions_agree_with_the_library() {
        // Two units in the last place of f32 are 2.4e-7.
        assert!(worst(one(exp_f32), f64::exp, -87 * 1024..88 * 1024) < 2.4e-7);
        assert!(worst(one(sigmoid_f32), sigmoid_f64, -80 * 1024..80 * 1024) < 3.6e-7);
        assert!(worst(one(softplus_f32), softplus_f64, -80 * 1024..80 * 1024) < 3.6e-7);
    }

    #[test]
    fn extremes_are_exact() {
        let (exp, sigmoid, softplus) = (one(exp_f32), one(sigmoid_f32), one(softplus_f32));
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && softplus(f32::NAN).is_nan());
        assert_eq!(softplus(1e30), 1e30);
        assert_eq!(softplus(-1e30), 0.0);
        assert_eq!(sigmoid(-1e30), 0.0);
        assert_eq!([sigmoid(0.0), sigmoid(1e30)], [0.5, 1.0]);
        assert_eq!(sign(-0.0f32), 0.0);
        assert!(sign(f64::NAN).is_nan());
    }

    #[test]
    fn numbers_side_by_side_keep_to_themselves() {
        let x = [-3.5, f32::NAN, 0.25, 1e30];
        for function in [exp_f32::<4>, sigmoid_f32, softplus_f32] {
            let together = function(x);
            for (k, &x) in x.iter().enumerate() {
                assert_eq!(function([x; 4])[0].to_bits(), together[k].to_bits(), "{x}");
            }
        }
    }
}
