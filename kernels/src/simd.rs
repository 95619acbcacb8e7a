//! Vectors of one instruction set behind one trait, and the elementary functions over them.
//!
//! Every type computes the same bits: all operations are IEEE's, multiplications and additions are fused by
//! [`Vector::fma`] and nowhere else, and what has no instruction is one function of the library for all.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::array;

use super::lanes::Lanes;
use crate::Element;

/// Numbers side by side, one instruction for all of them.
///
/// # Safety
/// Every method may be called only where the processor has the type's instruction set, in code compiled for it (all methods
/// are inlined into their callers). Pointers hold [`LANES`](Vector::LANES) elements, at any alignment unless said otherwise.
pub(super) trait Vector: Copy {
    /// The element.
    type Item: Element;
    /// [`Lanes`], in registers.
    type Sums: Copy;
    /// How many elements; a divisor of the number of [`Lanes`].
    const LANES: usize;

    unsafe fn load(from: *const Self::Item) -> Self;
    unsafe fn store(self, to: *mut Self::Item);
    /// Stores past the caches; `to` is a multiple of 64 bytes plus a multiple of the vector's size.
    unsafe fn stream(self, to: *mut Self::Item);
    unsafe fn splat(x: Self::Item) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
    /// self·b + c, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// `self` where it is greater, else `other`: also where either is NaN.
    unsafe fn greater_or(self, other: Self) -> Self;
    /// `self` where it is less, else `other`: also where either is NaN.
    unsafe fn less_or(self, other: Self) -> Self;
    /// `then` where `self` ≤ `bound`, else `otherwise`.
    unsafe fn if_le(self, bound: Self, then: Self, otherwise: Self) -> Self;
    /// `then` where `self` < `bound`, else `otherwise`.
    unsafe fn if_lt(self, bound: Self, then: Self, otherwise: Self) -> Self;
    /// `then` where `self` = `other`, else `otherwise`.
    unsafe fn if_eq(self, other: Self, then: Self, otherwise: Self) -> Self;
    /// `self` where it is NaN, else `otherwise`.
    unsafe fn nan_or(self, otherwise: Self) -> Self;
    /// weight·value, and 0 where the weight is 0, whatever the value is.
    unsafe fn weigh(weight: Self, value: Self) -> Self;

    /// Reads the lanes.
    unsafe fn load_sums(from: &Lanes) -> Self::Sums;
    /// Writes the lanes.
    unsafe fn store_sums(sums: Self::Sums, to: &mut Lanes);
    /// Adds the elements to the lanes from `LANES`·`group`.
    unsafe fn add_to(self, sums: &mut Self::Sums, group: usize);

    /// eˣ.
    unsafe fn exp(self) -> Self;
    /// Natural logarithm.
    unsafe fn ln(self) -> Self;
    /// Hyperbolic tangent.
    unsafe fn tanh(self) -> Self;
    /// softplus(x) and sigmoid(x), which share an exponential.
    unsafe fn softplus_sigmoid(self) -> (Self, Self);
    /// sigmoid(x).
    #[inline(always)]
    unsafe fn sigmoid(self) -> Self {
        // SAFETY: as for this method.
        unsafe { self.softplus_sigmoid().1 }
    }

    /// `function` of each element.
    #[inline(always)]
    unsafe fn map(self, function: fn(Self::Item) -> Self::Item) -> Self {
        let mut values = [Self::Item::ZERO; 16];
        // SAFETY: no vector has more elements than the array.
        unsafe {
            self.store(values.as_mut_ptr());
            each(&mut values[..Self::LANES], function);
            Self::load(values.as_ptr())
        }
    }

    /// The number nearest to `x`, in every element.
    #[inline(always)]
    unsafe fn constant(x: f64) -> Self {
        // SAFETY: as for this method.
        unsafe { Self::splat(Self::Item::from_f64(x)) }
    }
    /// −1, 0 or 1; NaN stays NaN.
    #[inline(always)]
    unsafe fn sign(self) -> Self {
        // SAFETY: as for this method.
        unsafe {
            let zero = Self::constant(0.0);
            let negative = self.if_lt(zero, Self::constant(-1.0), zero);
            self.nan_or(zero.if_lt(self, Self::constant(1.0), negative))
        }
    }
    /// max(0, x); NaN stays NaN.
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: as for this method.
        unsafe { Self::constant(0.0).greater_or(self) }
    }
    /// `height` where x > 0, else 0; NaN stays NaN.
    #[inline(always)]
    unsafe fn step(self, height: Self) -> Self {
        // SAFETY: as for this method.
        unsafe {
            let zero = Self::constant(0.0);
            self.nan_or(zero.if_lt(self, height, zero))
        }
    }
    /// ½x² where |x| < `delta`, else `delta`·(|x| − ½·`delta`).
    #[inline(always)]
    unsafe fn huber(self, delta: Self) -> Self {
        // SAFETY: as for this method.
        unsafe {
            let clipped = self.clip(Self::constant(0.0).sub(delta), delta);
            clipped.mul(self.sub(clipped.mul(Self::constant(0.5))))
        }
    }
    /// The nearest number from `low` to `high`; NaN stays NaN.
    #[inline(always)]
    unsafe fn clip(self, low: Self, high: Self) -> Self {
        // SAFETY: as for this method.
        unsafe { high.less_or(low.greater_or(self)) }
    }
}

/// A loop that is not unrolled: calls of the library would make the machine's loops huge.
#[inline(never)]
fn each<F: Element>(values: &mut [F], function: fn(F) -> F) {
    for value in values {
        *value = function(*value);
    }
}

/// Vectors of single precision, whose bits the elementary functions work on.
trait Single: Vector<Item = f32> {
    /// 2ᵏ for the k whose sum with 127 stands in the low bits, from 1 to 254, and 0 where that is 0.
    unsafe fn power_of_two(self) -> Self;
    /// Two factors whose product is 2ᵏ for the k whose sum with 127 stands in the low nine bits: k may be 128.
    unsafe fn power_of_two_halves(self) -> (Self, Self);
}

/// The elementary functions in single precision, within about one unit in the last place.
mod single {
    use super::{Single, Vector};

    /// Below it eˣ is no normal number.
    const LEAST: f64 = -87.336_54;
    /// Above it eˣ is infinite.
    const MOST: f64 = 88.722_84;

    /// x = n·ln 2 + r with |r| ≤ ½ ln 2: r, and a number whose low bits are n + 127. `x` is from −88 to [`MOST`], or NaN.
    #[inline(always)]
    unsafe fn reduced<V: Vector>(x: V) -> (V, V) {
        /// 1.5·2²³, adding which rounds to an integer, and the exponent's bias.
        const ROUND: f64 = 12_582_912.0 + 127.0;
        // SAFETY: as for `Vector::exp`, which this is a part of.
        unsafe {
            let shifted = x.fma(V::constant(std::f64::consts::LOG2_E), V::constant(ROUND));
            let n = shifted.sub(V::constant(ROUND));
            // ln 2 in two parts (Cody and Waite).
            let r = n.fma(V::constant(-0.693_359_375), x);
            // No conversion to an integer: the bits are read off the shifted number, NaN or not.
            (n.fma(V::constant(2.121_944_40e-4), r), shifted)
        }
    }

    /// eʳ for |r| ≤ ½ ln 2: 1 + r + r²·p(r), p the Chebyshev interpolation, whose own error is 1.1e-8.
    #[inline(always)]
    unsafe fn exp_of_reduced<V: Vector>(r: V) -> V {
        // SAFETY: as for `Vector::exp`, which this is a part of.
        unsafe {
            let square = r.mul(r);
            let low = V::constant(0.166_665_76).fma(r, V::constant(0.5));
            let middle = V::constant(8.363_179e-3).fma(r, V::constant(4.166_655_6e-2));
            let p = V::constant(1.392_618_4e-3).fma(square, middle).fma(square, low);
            p.fma(square, r).add(V::constant(1.0))
        }
    }

    /// eˣ; 0 below −87.3, infinite above 88.7.
    #[inline(always)]
    pub(super) unsafe fn exp<V: Single>(x: V) -> V {
        // SAFETY: as for `Vector::exp`.
        unsafe {
            let (least, most) = (V::constant(LEAST), V::constant(MOST));
            let (r, shifted) = reduced(x.clip(least, most));
            let (half, rest) = shifted.power_of_two_halves();
            let value = exp_of_reduced(r).mul(half).mul(rest);
            let finite = most.if_lt(x, V::constant(f64::INFINITY), value);
            x.nan_or(x.if_lt(least, V::constant(0.0), finite))
        }
    }

    /// e^(−|x|); 0 beyond 87.3.
    #[inline(always)]
    unsafe fn exp_of_minus_abs<V: Single>(x: V) -> V {
        // SAFETY: as for `Vector::exp`.
        unsafe {
            let x = V::constant(0.0).sub(x.abs());
            // At −88 n is −127, which `power_of_two` makes 0: no comparison is needed for what is too small.
            let (r, shifted) = reduced(V::constant(-88.0).greater_or(x));
            exp_of_reduced(r).mul(shifted.power_of_two())
        }
    }

    /// 1/w for w in [1, 2]; a division of vectors takes longer than all of this.
    ///
    /// The parabola whose relative error is the least, 1/99 (1 − w·r is then Chebyshev's polynomial of degree 3, scaled),
    /// and two of Newton's steps, each of which squares the error.
    #[inline(always)]
    unsafe fn reciprocal_of_1_to_2<V: Vector>(w: V) -> V {
        // SAFETY: as for `Vector::softplus_sigmoid`, which this is a part of.
        unsafe {
            let r = V::constant(32.0 / 99.0).fma(w, V::constant(-144.0 / 99.0)).fma(w, V::constant(210.0 / 99.0));
            let (minus_w, one) = (V::constant(0.0).sub(w), V::constant(1.0));
            let r = r.fma(minus_w.fma(r, one), r);
            r.fma(minus_w.fma(r, one), r)
        }
    }

    /// softplus(x) and sigmoid(x).
    ///
    /// With z = e^(−|x|), which never overflows, q = 1/(1 + z) and t = z/(1 + z), the sigmoid is q on the positive side
    /// and t on the negative, and the softplus is max(0, x) + ln(1 + z). With L that logarithm z + t = 2 sinh L and
    /// z·t = 2 cosh L − 2, small where z is: L is their product with an even function of L, L/(2 sinh L), in the second. A
    /// polynomial of degree 4 is that to 1.7e-8 (Chebyshev interpolation), where one in z takes degree 9; and the division
    /// is the sigmoid's as well.
    #[inline(always)]
    pub(super) unsafe fn softplus_sigmoid<V: Single>(x: V) -> (V, V) {
        // SAFETY: as for `Vector::softplus_sigmoid`.
        unsafe {
            let zero = V::constant(0.0);
            let z = exp_of_minus_abs(x);
            let q = reciprocal_of_1_to_2(z.add(V::constant(1.0)));
            let t = z.mul(q);
            let v = z.mul(t);
            let h = V::constant(6.046_531e-4)
                .fma(v, V::constant(-3.493_473e-3))
                .fma(v, V::constant(1.665_311_1e-2))
                .fma(v, V::constant(-8.333_249_4e-2))
                .fma(v, V::constant(0.5));
            // NaN shows in the logarithm: it need not stay in the maximum.
            (x.greater_or(zero).add(z.add(t).mul(h)), x.if_lt(zero, t, q))
        }
    }
}

/// softplus(x) and sigmoid(x) in double precision.
fn softplus_sigmoid_f64(x: f64) -> (f64, f64) {
    let z = (-x.abs()).exp();
    let q = 1.0 / (1.0 + z);
    let positive = if x <= 0.0 { 0.0 } else { x };
    (positive + z.ln_1p(), if x < 0.0 { z * q } else { q })
}

/// eˣ of one number: for loops that the compiler turns into vectors itself.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // SAFETY: the portable vector needs no instruction set.
    unsafe { single::exp(Portable([x])).0[0] }
}

/// The logistic function 1/(1 + e⁻ˣ) of one number.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    // SAFETY: the portable vector needs no instruction set.
    unsafe { single::softplus_sigmoid(Portable([x])).1.0[0] }
}

/// Methods that are one intrinsic, or a few, each.
macro_rules! methods {
    ($($name:ident($this:ident $(, $other:ident)*) = $value:expr;)*) => {
        $(#[inline(always)]
        #[allow(unused_unsafe)]
        unsafe fn $name(self $(, $other: Self)*) -> Self {
            let $this = self;
            // SAFETY: the caller vouches for the instruction set.
            unsafe { $value }
        })*
    };
}

/// The elementary functions of a vector of single precision.
macro_rules! single_functions {
    () => {
        methods! {
            exp(x) = single::exp(x);
            ln(x) = x.map(f32::ln);
            tanh(x) = x.map(f32::tanh);
        }
        #[inline(always)]
        unsafe fn softplus_sigmoid(self) -> (Self, Self) {
            // SAFETY: as for this method.
            unsafe { single::softplus_sigmoid(self) }
        }
    };
}

/// The elementary functions of a vector of double precision: the library's.
macro_rules! double_functions {
    () => {
        methods! {
            exp(x) = x.map(f64::exp);
            ln(x) = x.map(f64::ln);
            tanh(x) = x.map(f64::tanh);
        }
        #[inline(always)]
        unsafe fn softplus_sigmoid(self) -> (Self, Self) {
            /// As [`each`].
            #[inline(never)]
            fn both(softplus: &mut [f64], sigmoid: &mut [f64]) {
                for (softplus, sigmoid) in softplus.iter_mut().zip(sigmoid) {
                    (*softplus, *sigmoid) = softplus_sigmoid_f64(*softplus);
                }
            }
            let (mut softplus, mut sigmoid) = ([0.0; 8], [0.0; 8]);
            // SAFETY: no vector of double precision has more than 8 elements.
            unsafe {
                self.store(softplus.as_mut_ptr());
                both(&mut softplus[..Self::LANES], &mut sigmoid[..Self::LANES]);
                (Self::load(softplus.as_ptr()), Self::load(sigmoid.as_ptr()))
            }
        }
    };
}

/// Plain Rust, on any processor.
#[derive(Clone, Copy)]
pub(super) struct Portable<F, const N: usize>(pub(super) [F; N]);

macro_rules! portable {
    ($element:ty, $functions:ident) => {
        impl<const N: usize> Vector for Portable<$element, N> {
            type Item = $element;
            type Sums = Lanes;
            const LANES: usize = N;

            #[inline(always)]
            unsafe fn load(from: *const $element) -> Self {
                // SAFETY: the caller vouches for the elements.
                Portable(unsafe { from.cast::<[$element; N]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $element) {
                // SAFETY: the caller vouches for the elements.
                unsafe { to.cast::<[$element; N]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn stream(self, to: *mut $element) {
                // SAFETY: as for this method.
                unsafe { self.store(to) }
            }
            #[inline(always)]
            unsafe fn splat(x: $element) -> Self {
                Portable([x; N])
            }
            methods! {
                add(a, b) = Portable(array::from_fn(|i| a.0[i] + b.0[i]));
                sub(a, b) = Portable(array::from_fn(|i| a.0[i] - b.0[i]));
                mul(a, b) = Portable(array::from_fn(|i| a.0[i] * b.0[i]));
                div(a, b) = Portable(array::from_fn(|i| a.0[i] / b.0[i]));
                sqrt(a) = Portable(array::from_fn(|i| a.0[i].sqrt()));
                fma(a, b, c) = Portable(array::from_fn(|i| a.0[i].mul_add(b.0[i], c.0[i])));
                abs(a) = Portable(array::from_fn(|i| a.0[i].abs()));
                greater_or(a, b) = Portable(array::from_fn(|i| if a.0[i] > b.0[i] { a.0[i] } else { b.0[i] }));
                less_or(a, b) = Portable(array::from_fn(|i| if a.0[i] < b.0[i] { a.0[i] } else { b.0[i] }));
                if_le(a, b, then, otherwise) =
                    Portable(array::from_fn(|i| if a.0[i] <= b.0[i] { then.0[i] } else { otherwise.0[i] }));
                if_lt(a, b, then, otherwise) =
                    Portable(array::from_fn(|i| if a.0[i] < b.0[i] { then.0[i] } else { otherwise.0[i] }));
                if_eq(a, b, then, otherwise) =
                    Portable(array::from_fn(|i| if a.0[i] == b.0[i] { then.0[i] } else { otherwise.0[i] }));
                nan_or(a, b) = Portable(array::from_fn(|i| if a.0[i].is_nan() { a.0[i] } else { b.0[i] }));
            }
            #[inline(always)]
            unsafe fn weigh(w: Self, v: Self) -> Self {
                Portable(array::from_fn(|i| if w.0[i] == 0.0 { 0.0 } else { w.0[i] * v.0[i] }))
            }
            #[inline(always)]
            unsafe fn load_sums(from: &Lanes) -> Lanes {
                *from
            }
            #[inline(always)]
            unsafe fn store_sums(sums: Lanes, to: &mut Lanes) {
                *to = sums;
            }
            #[inline(always)]
            unsafe fn add_to(self, sums: &mut Lanes, group: usize) {
                for (sum, value) in sums[group * N..][..N].iter_mut().zip(self.0) {
                    *sum += value.to_f64();
                }
            }
            $functions!();
        }
    };
}
portable!(f32, single_functions);
portable!(f64, double_functions);

impl<const N: usize> Single for Portable<f32, N> {
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Portable(self.0.map(|x| f32::from_bits(x.to_bits() << 23)))
    }
    #[inline(always)]
    unsafe fn power_of_two_halves(self) -> (Self, Self) {
        let k = self.0.map(|x| (x.to_bits() & 511) as i32 - 127);
        (
            Portable(k.map(|k| f32::from_bits((((k >> 1) + 127) as u32) << 23))),
            Portable(k.map(|k| f32::from_bits(((k - (k >> 1) + 127) as u32) << 23))),
        )
    }
}

/// Vectors of x86-64.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    /// What the four types have in common.
    macro_rules! vector {
        (
            $name:ident, $doc:literal, $register:ty, $element:ty, $lanes:literal, $sums:ty,
            $load:ident $store:ident $stream:ident $splat:ident,
            $add:ident $sub:ident $mul:ident $div:ident $sqrt:ident $fma:ident $max:ident $min:ident,
            $($rest:tt)*
        ) => {
            #[doc = $doc]
            #[derive(Clone, Copy)]
            pub(crate) struct $name($register);

            impl Vector for $name {
                type Item = $element;
                type Sums = $sums;
                const LANES: usize = $lanes;

                #[inline(always)]
                unsafe fn load(from: *const $element) -> Self {
                    // SAFETY: the caller vouches for the elements and the instruction set.
                    unsafe { $name($load(from)) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut $element) {
                    // SAFETY: as above.
                    unsafe { $store(to, self.0) }
                }
                #[inline(always)]
                unsafe fn stream(self, to: *mut $element) {
                    // SAFETY: as above; the caller vouches for the alignment.
                    unsafe { $stream(to, self.0) }
                }
                #[inline(always)]
                unsafe fn splat(x: $element) -> Self {
                    // SAFETY: the caller vouches for the instruction set.
                    unsafe { $name($splat(x)) }
                }
                methods! {
                    add(a, b) = $name($add(a.0, b.0));
                    sub(a, b) = $name($sub(a.0, b.0));
                    mul(a, b) = $name($mul(a.0, b.0));
                    div(a, b) = $name($div(a.0, b.0));
                    sqrt(a) = $name($sqrt(a.0));
                    fma(a, b, c) = $name($fma(a.0, b.0, c.0));
                    greater_or(a, b) = $name($max(a.0, b.0));
                    less_or(a, b) = $name($min(a.0, b.0));
                }
                $($rest)*
            }
        };
    }

    /// Comparisons that give a mask register.
    macro_rules! masks {
        ($name:ident, $compare:ident, $blend:ident, $multiply:ident, $abs:ident) => {
            methods! {
                abs(a) = $name($abs(a.0));
                if_le(a, b, then, otherwise) = $name($blend($compare::<_CMP_LE_OQ>(a.0, b.0), otherwise.0, then.0));
                if_lt(a, b, then, otherwise) = $name($blend($compare::<_CMP_LT_OQ>(a.0, b.0), otherwise.0, then.0));
                if_eq(a, b, then, otherwise) = $name($blend($compare::<_CMP_EQ_OQ>(a.0, b.0), otherwise.0, then.0));
                nan_or(a, b) = $name($blend($compare::<_CMP_UNORD_Q>(a.0, a.0), b.0, a.0));
            }
            #[inline(always)]
            unsafe fn weigh(w: Self, v: Self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { $name($multiply($compare::<_CMP_NEQ_UQ>(w.0, Self::constant(0.0).0), w.0, v.0)) }
            }
        };
    }

    /// Comparisons that give a vector of ones and zeros.
    macro_rules! vector_masks {
        ($name:ident, $compare:ident, $blend:ident, $and:ident, $and_not:ident, $multiply:ident) => {
            methods! {
                abs(a) = $name($and_not(Self::splat(-0.0).0, a.0));
                if_le(a, b, then, otherwise) = $name($blend(otherwise.0, then.0, $compare::<_CMP_LE_OQ>(a.0, b.0)));
                if_lt(a, b, then, otherwise) = $name($blend(otherwise.0, then.0, $compare::<_CMP_LT_OQ>(a.0, b.0)));
                if_eq(a, b, then, otherwise) = $name($blend(otherwise.0, then.0, $compare::<_CMP_EQ_OQ>(a.0, b.0)));
                nan_or(a, b) = $name($blend(b.0, a.0, $compare::<_CMP_UNORD_Q>(a.0, a.0)));
            }
            #[inline(always)]
            unsafe fn weigh(w: Self, v: Self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { $name($and($compare::<_CMP_NEQ_UQ>(w.0, Self::constant(0.0).0), $multiply(w.0, v.0))) }
            }
        };
    }

    /// The lanes in registers of `$width` numbers of double precision.
    macro_rules! sums {
        ($width:literal, $load:ident, $store:ident) => {
            #[inline(always)]
            unsafe fn load_sums(from: &Lanes) -> Self::Sums {
                // SAFETY: the registers together have as many numbers as the lanes; the caller vouches for the
                // instruction set.
                array::from_fn(|i| unsafe { $load(from.as_ptr().add(i * $width)) })
            }
            #[inline(always)]
            unsafe fn store_sums(sums: Self::Sums, to: &mut Lanes) {
                for (i, sum) in sums.into_iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { $store(to.as_mut_ptr().add(i * $width), sum) };
                }
            }
        };
    }

    /// Adds a vector of single precision as two of double.
    macro_rules! add_halves {
        ($add:ident, $convert:ident, $low:ident, $high:ident) => {
            #[inline(always)]
            unsafe fn add_to(self, sums: &mut Self::Sums, group: usize) {
                // SAFETY: the caller vouches for the instruction set.
                unsafe {
                    sums[2 * group] = $add(sums[2 * group], $convert($low(self.0)));
                    sums[2 * group + 1] = $add(sums[2 * group + 1], $convert($high::<1>(self.0)));
                }
            }
        };
    }

    /// Adds a vector of double precision.
    macro_rules! add_whole {
        ($add:ident) => {
            #[inline(always)]
            unsafe fn add_to(self, sums: &mut Self::Sums, group: usize) {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { sums[group] = $add(sums[group], self.0) };
            }
        };
    }

    /// Powers of two by shifts of bits.
    macro_rules! powers {
        (
            $name:ident, $as_integers:ident $as_numbers:ident $shift_left:ident $shift_right:ident $add:ident $sub:ident
            $and:ident $splat:ident
        ) => {
            impl Single for $name {
                #[inline(always)]
                unsafe fn power_of_two(self) -> Self {
                    // SAFETY: the caller vouches for the instruction set.
                    unsafe { $name($as_numbers($shift_left::<23>($as_integers(self.0)))) }
                }
                #[inline(always)]
                unsafe fn power_of_two_halves(self) -> (Self, Self) {
                    // SAFETY: as above.
                    unsafe {
                        let bias = $splat(127);
                        let k = $sub($and($as_integers(self.0), $splat(511)), bias);
                        let half = $shift_right::<1>(k);
                        (
                            $name($as_numbers($shift_left::<23>($add(half, bias)))),
                            $name($as_numbers($shift_left::<23>($add($sub(k, half), bias)))),
                        )
                    }
                }
            }
        };
    }

    vector! {
        Avx512Single, "16 numbers of single precision.", __m512, f32, 16, [__m512d; 4],
        _mm512_loadu_ps _mm512_storeu_ps _mm512_stream_ps _mm512_set1_ps,
        _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps _mm512_sqrt_ps _mm512_fmadd_ps _mm512_max_ps _mm512_min_ps,
        masks!(Avx512Single, _mm512_cmp_ps_mask, _mm512_mask_blend_ps, _mm512_maskz_mul_ps, _mm512_abs_ps);
        sums!(8, _mm512_loadu_pd, _mm512_storeu_pd);
        add_halves!(_mm512_add_pd, _mm512_cvtps_pd, _mm512_castps512_ps256, _mm512_extractf32x8_ps);
        single_functions!();
    }
    powers! {
        Avx512Single, _mm512_castps_si512 _mm512_castsi512_ps _mm512_slli_epi32 _mm512_srai_epi32 _mm512_add_epi32
        _mm512_sub_epi32 _mm512_and_si512 _mm512_set1_epi32
    }
    vector! {
        Avx2Single, "8 numbers of single precision.", __m256, f32, 8, [__m256d; 8],
        _mm256_loadu_ps _mm256_storeu_ps _mm256_stream_ps _mm256_set1_ps,
        _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps _mm256_sqrt_ps _mm256_fmadd_ps _mm256_max_ps _mm256_min_ps,
        vector_masks!(Avx2Single, _mm256_cmp_ps, _mm256_blendv_ps, _mm256_and_ps, _mm256_andnot_ps, _mm256_mul_ps);
        sums!(4, _mm256_loadu_pd, _mm256_storeu_pd);
        add_halves!(_mm256_add_pd, _mm256_cvtps_pd, _mm256_castps256_ps128, _mm256_extractf128_ps);
        single_functions!();
    }
    powers! {
        Avx2Single, _mm256_castps_si256 _mm256_castsi256_ps _mm256_slli_epi32 _mm256_srai_epi32 _mm256_add_epi32
        _mm256_sub_epi32 _mm256_and_si256 _mm256_set1_epi32
    }
    vector! {
        Avx512Double, "8 numbers of double precision.", __m512d, f64, 8, [__m512d; 4],
        _mm512_loadu_pd _mm512_storeu_pd _mm512_stream_pd _mm512_set1_pd,
        _mm512_add_pd _mm512_sub_pd _mm512_mul_pd _mm512_div_pd _mm512_sqrt_pd _mm512_fmadd_pd _mm512_max_pd _mm512_min_pd,
        masks!(Avx512Double, _mm512_cmp_pd_mask, _mm512_mask_blend_pd, _mm512_maskz_mul_pd, _mm512_abs_pd);
        sums!(8, _mm512_loadu_pd, _mm512_storeu_pd);
        add_whole!(_mm512_add_pd);
        double_functions!();
    }
    vector! {
        Avx2Double, "4 numbers of double precision.", __m256d, f64, 4, [__m256d; 8],
        _mm256_loadu_pd _mm256_storeu_pd _mm256_stream_pd _mm256_set1_pd,
        _mm256_add_pd _mm256_sub_pd _mm256_mul_pd _mm256_div_pd _mm256_sqrt_pd _mm256_fmadd_pd _mm256_max_pd _mm256_min_pd,
        vector_masks!(Avx2Double, _mm256_cmp_pd, _mm256_blendv_pd, _mm256_and_pd, _mm256_andnot_pd, _mm256_mul_pd);
        sums!(4, _mm256_loadu_pd, _mm256_storeu_pd);
        add_whole!(_mm256_add_pd);
        double_functions!();
    }
}
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2Double, Avx2Single, Avx512Double, Avx512Single};

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

    fn softplus(x: f32) -> f32 {
        // SAFETY: the portable vector needs no instruction set.
        unsafe { Portable([x]).softplus_sigmoid().0.0[0] }
    }

    #[test]
    fn single_precision_functions_agree_with_the_library() {
        // Two units in the last place of f32 are 2.4e-7.
        assert!(worst(exp, f64::exp, -87 * 1024..88 * 1024) < 2.4e-7);
        assert!(worst(sigmoid, |x| softplus_sigmoid_f64(x).1, -80 * 1024..80 * 1024) < 3.6e-7);
        assert!(worst(softplus, |x| softplus_sigmoid_f64(x).0, -80 * 1024..80 * 1024) < 3.6e-7);
    }

    #[test]
    fn extremes_are_exact() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && softplus(f32::NAN).is_nan());
        assert_eq!(softplus(1e30), 1e30);
        assert_eq!(softplus(-1e30), 0.0);
        assert_eq!(sigmoid(-1e30), 0.0);
        assert_eq!([sigmoid(0.0), sigmoid(1e30)], [0.5, 1.0]);
    }
}
