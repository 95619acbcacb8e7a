//! What a pointwise function computes with: plain numbers, dual numbers, towers of them, or a recorded expression.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::math;
use crate::Scalar;

/// A quantity that a [`Pointwise`](crate::Pointwise) function can compute with.
///
/// A function is written once over this trait. Evaluated over numbers it gives its value, over [`Dual`] numbers its
/// partial derivatives, over a recorder the list of tensor operations that an engine such as tch runs.
///
/// Every operation has a derivative that is finite wherever its value is, with the field's conventions where the
/// mathematical one does not exist: `abs` and `sqrt` have derivative 0 at 0.
///
/// NaN in, NaN out: a function of NaN is NaN and so is its derivative, also where the function only compares the number.
/// A derivative that is constant, as that of 2x, stays what it is.
pub trait Element:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Add<f64, Output = Self>
    + Sub<f64, Output = Self>
    + Mul<f64, Output = Self>
    + Div<f64, Output = Self>
{
    /// The constant `value`, of the same kind as `self`.
    fn constant(self, value: f64) -> Self;
    /// |x|; derivative sign(x), 0 at 0.
    fn abs(self) -> Self;
    /// sign(x): −1, 0 or 1; derivative 0. Both are NaN for NaN.
    fn sign(self) -> Self;
    /// √x; derivative 1/(2√x), 0 at 0.
    fn sqrt(self) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The logistic function 1/(1 + e⁻ˣ).
    fn sigmoid(self) -> Self;
    /// ln(1 + eˣ), computed without overflow; its derivative is [`sigmoid`](Element::sigmoid).
    fn softplus(self) -> Self;
    /// `then` where `self` ≤ 0, `otherwise` where `self` > 0, NaN where `self` is NaN.
    fn if_not_positive(self, then: Self, otherwise: Self) -> Self;
    /// `then` where `self` = 0, `otherwise` where it is another number, NaN where `self` is NaN.
    fn if_zero(self, then: Self, otherwise: Self) -> Self;
    /// `then` where `self` ≤ `other`, `otherwise` where `self` > `other`, NaN where either is NaN.
    fn if_at_most(self, other: Self, then: Self, otherwise: Self) -> Self;

    /// x².
    #[inline(always)]
    fn square(self) -> Self {
        self * self
    }
    /// max(0, x); derivative 0 at 0.
    #[inline(always)]
    fn relu(self) -> Self {
        self.if_not_positive(self.constant(0.0), self)
    }
    /// The nearest number from `low` to `high`; derivative 1 between them, 0 at and beyond them.
    #[inline(always)]
    fn clip(self, low: f64, high: f64) -> Self {
        self.min(self.constant(high)).max(self.constant(low))
    }
    /// ½x² where |x| < `delta`, else `delta`·(|x| − ½·`delta`); its derivative is x clipped to ±`delta`.
    #[inline(always)]
    fn huber(self, delta: f64) -> Self {
        // With c the clipped x both pieces are c·(x − ½c), in which no square of a large x arises.
        let clipped = self.clip(-delta, delta);
        clipped * (self - clipped * 0.5)
    }
    /// x where x > 0, else `slope`·x.
    #[inline(always)]
    fn leaky_relu(self, slope: f64) -> Self {
        self.if_not_positive(self * slope, self)
    }
    /// The larger of two, NaN where either is; on a tie the derivative goes to `other`.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.if_at_most(other, other, self)
    }
    /// The smaller of two, NaN where either is; on a tie the derivative goes to `self`.
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.if_at_most(other, self, other)
    }
}

/// A plain number, or `W` of them side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number<F, const W: usize = 1>(pub [F; W]);

/// The operators of an element type, in terms of its inherent `plus`, `minus`, `times`, `over` (with another element),
/// `shifted`, `scaled`, `divided` (by a constant) and `negated`.
macro_rules! operators {
    ([$($generics:tt)*] $type:ty) => {
        impl<$($generics)*> Add for $type {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.plus(other)
            }
        }
        impl<$($generics)*> Add<f64> for $type {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: f64) -> Self {
                self.shifted(other)
            }
        }
        impl<$($generics)*> Sub for $type {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.minus(other)
            }
        }
        impl<$($generics)*> Sub<f64> for $type {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: f64) -> Self {
                self.shifted(-other)
            }
        }
        impl<$($generics)*> Mul for $type {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.times(other)
            }
        }
        impl<$($generics)*> Mul<f64> for $type {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: f64) -> Self {
                self.scaled(other)
            }
        }
        impl<$($generics)*> Div for $type {
            type Output = Self;
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                self.over(other)
            }
        }
        impl<$($generics)*> Div<f64> for $type {
            type Output = Self;
            #[inline(always)]
            fn div(self, other: f64) -> Self {
                self.divided(other)
            }
        }
        impl<$($generics)*> Neg for $type {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                self.negated()
            }
        }
    };
}
pub(super) use operators;

impl<F: Scalar, const W: usize> Number<F, W> {
    #[inline(always)]
    fn each(mut self, f: impl Fn(F) -> F) -> Self {
        for x in &mut self.0 {
            *x = f(*x);
        }
        self
    }
    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(F, F) -> F) -> Self {
        for (x, &y) in self.0.iter_mut().zip(&other.0) {
            *x = f(*x, y);
        }
        self
    }
    /// `then` where the test holds, else `otherwise`; NaN where the number is NaN.
    #[inline(always)]
    fn choose(self, then: Self, otherwise: Self, test: impl Fn(F) -> bool) -> Self {
        let mut chosen = otherwise;
        for ((chosen, &then), &x) in chosen.0.iter_mut().zip(&then.0).zip(&self.0) {
            let number = if test(x) { then } else { *chosen };
            #[allow(clippy::eq_op)]
            let result = if x == x { number } else { x };
            *chosen = result;
        }
        chosen
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.zip(other, |x, y| x + y)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self.zip(other, |x, y| x - y)
    }
    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self.zip(other, |x, y| x * y)
    }
    #[inline(always)]
    fn over(self, other: Self) -> Self {
        self.zip(other, |x, y| x / y)
    }
    #[inline(always)]
    fn shifted(self, by: f64) -> Self {
        self.each(|x| x + F::from_f64(by))
    }
    #[inline(always)]
    fn scaled(self, by: f64) -> Self {
        self.each(|x| x * F::from_f64(by))
    }
    #[inline(always)]
    fn divided(self, by: f64) -> Self {
        self.each(|x| x / F::from_f64(by))
    }
    #[inline(always)]
    fn negated(self) -> Self {
        self.each(|x| -x)
    }
}
operators!([F: Scalar, const W: usize] Number<F, W>);

impl<F: Scalar, const W: usize> Element for Number<F, W> {
    #[inline(always)]
    fn constant(self, value: f64) -> Self {
        Number([F::from_f64(value); W])
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Number(math::abs(self.0))
    }
    #[inline(always)]
    fn sign(self) -> Self {
        self.each(math::sign)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Number(math::sqrt(self.0))
    }
    #[inline(always)]
    fn exp(self) -> Self {
        Number(math::exp(self.0))
    }
    #[inline(always)]
    fn ln(self) -> Self {
        Number(math::ln(self.0))
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        Number(math::tanh(self.0))
    }
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Number(math::sigmoid(self.0))
    }
    #[inline(always)]
    fn softplus(self) -> Self {
        Number(math::softplus(self.0))
    }
    #[inline(always)]
    fn clip(self, low: f64, high: f64) -> Self {
        self.each(|x| math::clip(x, F::from_f64(low), F::from_f64(high)))
    }
    #[inline(always)]
    fn if_not_positive(self, then: Self, otherwise: Self) -> Self {
        self.choose(then, otherwise, |x| x <= F::ZERO)
    }
    #[inline(always)]
    fn if_zero(self, then: Self, otherwise: Self) -> Self {
        self.choose(then, otherwise, |x| x == F::ZERO)
    }
    #[allow(clippy::eq_op)]
    #[inline(always)]
    fn if_at_most(self, other: Self, then: Self, otherwise: Self) -> Self {
        // The numbers themselves are compared: the difference of two equal infinities is NaN.
        let mut chosen = otherwise;
        for (i, chosen) in chosen.0.iter_mut().enumerate() {
            let (x, y) = (self.0[i], other.0[i]);
            let number = if x <= y { then.0[i] } else { *chosen };
            let number = if x == x { number } else { x };
            *chosen = if y == y { number } else { y };
        }
        chosen
    }
}

/// A value with its derivative along one direction; nested, derivatives of higher order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dual<E> {
    /// The value.
    pub value: E,
    /// Its derivative.
    pub derivative: E,
}

impl<E: Element> Dual<E> {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Dual { value: self.value + other.value, derivative: self.derivative + other.derivative }
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Dual { value: self.value - other.value, derivative: self.derivative - other.derivative }
    }
    #[inline(always)]
    fn times(self, other: Self) -> Self {
        Dual {
            value: self.value * other.value,
            derivative: self.derivative * other.value + self.value * other.derivative,
        }
    }
    #[inline(always)]
    fn over(self, other: Self) -> Self {
        let value = self.value / other.value;
        Dual { value, derivative: (self.derivative - value * other.derivative) / other.value }
    }
    #[inline(always)]
    fn shifted(self, by: f64) -> Self {
        Dual { value: self.value + by, derivative: self.derivative }
    }
    #[inline(always)]
    fn scaled(self, by: f64) -> Self {
        Dual { value: self.value * by, derivative: self.derivative * by }
    }
    #[inline(always)]
    fn divided(self, by: f64) -> Self {
        Dual { value: self.value / by, derivative: self.derivative / by }
    }
    #[inline(always)]
    fn negated(self) -> Self {
        Dual { value: -self.value, derivative: -self.derivative }
    }
}
operators!([E: Element] Dual<E>);

impl<E: Element> Element for Dual<E> {
    #[inline(always)]
    fn constant(self, value: f64) -> Self {
        Dual { value: self.value.constant(value), derivative: self.value.constant(0.0) }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Dual { value: self.value.abs(), derivative: self.derivative * self.value.sign() }
    }
    #[inline(always)]
    fn sign(self) -> Self {
        // 0, or NaN.
        let sign = self.value.sign();
        Dual { value: sign, derivative: sign * 0.0 }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        let root = self.value.sqrt();
        let slope = self.derivative * 0.5 / root;
        Dual { value: root, derivative: self.value.if_zero(self.value.constant(0.0), slope) }
    }
    #[inline(always)]
    fn exp(self) -> Self {
        let value = self.value.exp();
        Dual { value, derivative: self.derivative * value }
    }
    #[inline(always)]
    fn ln(self) -> Self {
        Dual { value: self.value.ln(), derivative: self.derivative / self.value }
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        let value = self.value.tanh();
        Dual { value, derivative: self.derivative * (-value.square() + 1.0) }
    }
    #[inline(always)]
    fn sigmoid(self) -> Self {
        let value = self.value.sigmoid();
        Dual { value, derivative: self.derivative * (value * (-value + 1.0)) }
    }
    #[inline(always)]
    fn softplus(self) -> Self {
        Dual { value: self.value.softplus(), derivative: self.derivative * self.value.sigmoid() }
    }
    #[inline(always)]
    fn huber(self, delta: f64) -> Self {
        Dual { value: self.value.huber(delta), derivative: self.derivative * self.value.clip(-delta, delta) }
    }
    #[inline(always)]
    fn if_not_positive(self, then: Self, otherwise: Self) -> Self {
        Dual {
            value: self.value.if_not_positive(then.value, otherwise.value),
            derivative: self.value.if_not_positive(then.derivative, otherwise.derivative),
        }
    }
    #[inline(always)]
    fn if_zero(self, then: Self, otherwise: Self) -> Self {
        Dual {
            value: self.value.if_zero(then.value, otherwise.value),
            derivative: self.value.if_zero(then.derivative, otherwise.derivative),
        }
    }
    #[inline(always)]
    fn if_at_most(self, other: Self, then: Self, otherwise: Self) -> Self {
        Dual {
            value: self.value.if_at_most(other.value, then.value, otherwise.value),
            derivative: self.value.if_at_most(other.value, then.derivative, otherwise.derivative),
        }
    }
}
