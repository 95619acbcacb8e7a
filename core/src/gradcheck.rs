//! Checks first and second derivatives against central differences: for this workspace's losses and for yours.
//!
//! A loss of your own, its gradient checked at every element of both inputs:
//!
//! ```
//! use image_losses_core::gradcheck::{STEP, check_gradient};
//! use image_losses_core::kernels::Array;
//! use image_losses_core::{Declared, Expr, Pointwise, PointwiseLoss, Reduced, Result};
//!
//! /// ln(1 + (x − y)²)
//! #[derive(Clone, Debug)]
//! struct Cauchy;
//!
//! impl Pointwise<2> for Cauchy {
//!     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
//!         ((x - y).square() + 1.0).ln()
//!     }
//! }
//!
//! impl Declared for Cauchy {
//!     const NAME: &'static str = "CauchyLoss";
//! }
//!
//! let both = |x: &[Vec<f64>]| -> Result<(f64, Vec<Vec<f64>>)> {
//!     let array = |k: usize| Array { shape: &[1, 3], data: &x[k] };
//!     let loss = Reduced::new(Cauchy);
//!     let (value, gradients) = loss.value_and_gradients([array(0), array(1)], None, [true, true])?;
//!     Ok((value, gradients.into_iter().flatten().collect()))
//! };
//! let inputs = [vec![0.5, -1.0, 2.0], vec![0.25, 1.0, 2.5]];
//! let worst = check_gradient(&inputs, STEP, |x| Ok(both(x)?.0), |x| Ok(both(x)?.1))?.unwrap();
//! assert!(worst.error < 1e-9, "{worst:?}");
//! # Ok::<(), image_losses_core::Error>(())
//! ```
//!
//! The second derivatives of a loss with an engine that has them: [`check_second_derivatives`]. Where the inputs have too
//! many elements to move each, as before a network, [`check_slope`] and [`check_curvature`] move all of them at once.

use image_losses_kernels::check_length;

use crate::Result;

/// The step of [`check_gradient`] where the caller has no better one: near the cube root of double precision's
/// epsilon, where truncation (h²) and rounding (ε/h) balance.
pub const STEP: f64 = 6e-6;

/// The element where a gradient differs most from the central difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorstElement {
    /// Which input.
    pub input: usize,
    /// Which of its elements.
    pub element: usize,
    /// The gradient under test.
    pub gradient: f64,
    /// The central difference.
    pub difference: f64,
    /// |gradient − difference| / max(1, |gradient|, |difference|).
    pub error: f64,
}

/// Compares a gradient with central differences of the value, element by element, in double precision.
///
/// `value` maps the inputs to a number, `gradient` to one gradient per input, of the input's length. An element x is moved
/// by `step`·max(1, |x|) to either side, and by less where a kink lies so near (see [`Slope`]). Returns the worst element
/// (`None` where there are no elements); the caller compares its `error` with a tolerance.
///
/// ```
/// use image_losses_core::gradcheck::{STEP, check_gradient};
///
/// let cube = |x: &[Vec<f64>]| Ok(x[0][0].powi(3));
/// let right = check_gradient(&[vec![2.0]], STEP, cube, |x| Ok(vec![vec![3.0 * x[0][0].powi(2)]]))?;
/// assert!(right.unwrap().error < 1e-9);
/// let wrong = check_gradient(&[vec![2.0]], STEP, cube, |x| Ok(vec![vec![2.0 * x[0][0].powi(2)]]))?;
/// assert!(wrong.unwrap().error > 0.1);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// # Errors
/// Those of `value` and `gradient`; [`Error::InputCount`](crate::Error::InputCount) and
/// [`Error::Length`](crate::Error::Length) where the gradients are not one per input, of its length.
pub fn check_gradient(
    inputs: &[Vec<f64>],
    step: f64,
    value: impl Fn(&[Vec<f64>]) -> Result<f64>,
    gradient: impl FnOnce(&[Vec<f64>]) -> Result<Vec<Vec<f64>>>,
) -> Result<Option<WorstElement>> {
    let gradients = gradient(inputs)?;
    check_count(inputs, &gradients)?;
    let mut moved = inputs.to_vec();
    let mut worst: Option<WorstElement> = None;
    for (input, gradient) in gradients.iter().enumerate() {
        check_length("check_gradient", gradient.len(), &[inputs[input].len()])?;
        for (element, &gradient) in gradient.iter().enumerate() {
            let x = inputs[input][element];
            let Slope { difference, error, .. } = Slope::of(gradient, step * x.abs().max(1.0), 1.0, |by| {
                moved[input][element] = x + by;
                value(&moved)
            })?;
            moved[input][element] = x;
            // NaN counts as worst.
            if worst.is_none_or(|worst| error.is_nan() || error > worst.error) {
                worst = Some(WorstElement { input, element, gradient, difference, error });
            }
        }
    }
    Ok(worst)
}

/// Compares second derivatives with central differences of the gradient, along one direction in all inputs together.
///
/// `gradient` maps the inputs to one gradient g per input; `product` maps the inputs and a direction d to the gradients
/// of Σ d·g, which is the Hessian times d. The direction has no symmetry, no zeros, and elements of either sign between
/// ¼ and 1¼, so that an error in any entry of the Hessian shows unless several cancel. Returns the worst element as
/// [`check_gradient`] does; its `gradient` is the product's.
///
/// ```
/// use image_losses_core::gradcheck::{STEP, check_second_derivatives};
///
/// // x²·y: the gradient (2xy, x²), the Hessian ((2y, 2x), (2x, 0)).
/// let gradient = |v: &[Vec<f64>]| Ok(vec![vec![2.0 * v[0][0] * v[1][0]], vec![v[0][0].powi(2)]]);
/// let product = |v: &[Vec<f64>], d: &[Vec<f64>]| {
///     let (x, y, dx, dy) = (v[0][0], v[1][0], d[0][0], d[1][0]);
///     Ok(vec![vec![2.0 * y * dx + 2.0 * x * dy], vec![2.0 * x * dx]])
/// };
/// let worst = check_second_derivatives(&[vec![3.0], vec![-2.0]], STEP, gradient, product)?;
/// assert!(worst.unwrap().error < 1e-9);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// # Errors
/// As [`check_gradient`].
pub fn check_second_derivatives(
    inputs: &[Vec<f64>],
    step: f64,
    gradient: impl Fn(&[Vec<f64>]) -> Result<Vec<Vec<f64>>>,
    product: impl FnOnce(&[Vec<f64>], &[Vec<f64>]) -> Result<Vec<Vec<f64>>>,
) -> Result<Option<WorstElement>> {
    let direction = direction(inputs, 0);
    let along = |inputs: &[Vec<f64>]| slope(inputs, &gradient(inputs)?, &direction);
    check_gradient(inputs, step, along, |inputs| product(inputs, &direction))
}

/// A difference whose doubt is below this, relative to the slope, is exact enough; so is a gradient that is no further from
/// a central difference.
const EXACT: f64 = 1e-6;
/// A difference with more doubt than this says nothing.
const UNSURE: f64 = 25.0 * EXACT;
/// Directions that are tried.
const DIRECTIONS: usize = 3;
/// Steps that are tried, each a quarter of the one before: from 1e-6 to 4e-9, where rounding of 1e-15 is 2.5e-7.
const RUNGS: usize = 5;

/// A slope along one direction, and what it was compared with.
///
/// A network has many kinks (ReLU, pooling, L1), and a step crosses one now and then. What a difference is worth is
/// therefore measured. With D(h) the central difference and δ⁴ = f(−h) − 4f(−h/2) + 6f(0) − 4f(h/2) + f(h), the estimate
/// is (4·D(h/2) − D(h))/3 and its doubt |D(h) − D(h/2)| + |δ⁴|/4h:
///
/// * where f is smooth, the estimate misses by O(h⁴), and the doubt is |f‴|·h²/8;
/// * where the slope changes by Δ at a distance t < h, the estimate misses by Δ·|3 − 7t/h|/6 for t ≤ h/2 and Δ·(1 − t/h)/6
///   beyond; the doubt is Δ·(2t/h + |3t/h − 1|)/4 or Δ·(1 − t/h)·¾, at least half of it;
/// * where f itself jumps by J, as the gradient of such a network does, the estimate misses by 7J/6h or J/6h, with a doubt of
///   5J/4h or 3J/4h;
/// * rounding by η in each value is an error of 3η/h at most; the doubt is 7η/h at most, and as a rule half of that.
///
/// Up to 4 times the doubt is thus allowed. The step is divided by 4 while the doubt is too large. A kink that lies at
/// the point itself leaves doubt at any step; then the differences to either side count, the closer one: the gradient is
/// that of one side. The mean of both sides passes as well: |x| has the gradient 0 at 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Σ gradient·direction.
    pub gradient: f64,
    /// The difference: central, or of one side where a kink lies at the point.
    pub difference: f64,
    /// How far the difference may be off, relative to max(|gradient|, |difference|); 0 where it agrees with the gradient.
    pub doubt: f64,
    /// |gradient − difference| / max(|gradient|, |difference|); 0 where both are 0.
    pub error: f64,
}

impl Slope {
    /// The gradient is what the difference says, as far as that can be told.
    pub fn agrees(&self) -> bool {
        self.doubt <= UNSURE && self.error <= 4.0 * self.doubt.max(EXACT)
    }

    /// Compares a gradient with differences of `value`, a function of the way from the point; errors and doubts are
    /// relative to `scale` at least.
    fn of(gradient: f64, step: f64, scale: f64, mut value: impl FnMut(f64) -> Result<f64>) -> Result<Slope> {
        let compared = |difference: f64, doubt: f64| {
            let scale = gradient.abs().max(difference.abs()).max(scale);
            let relative = |miss: f64| if miss == 0.0 { 0.0 } else { miss.abs() / scale };
            Slope { gradient, difference, doubt: relative(doubt), error: relative(gradient - difference) }
        };
        let [mut above, mut below] = [value(step)?, value(-step)?];
        let first = compared((above - below) / (2.0 * step), 0.0);
        if first.error <= EXACT {
            return Ok(first);
        }
        let here = value(0.0)?;
        // The differences with the least doubt: central, above, below.
        let mut best: [Option<Slope>; 3] = [None; 3];
        let mut h = step;
        for rung in 0..RUNGS {
            if rung > 0 {
                h /= 4.0;
                [above, below] = [value(h)?, value(-h)?];
            }
            let [near_above, near_below] = [value(h / 2.0)?, value(-h / 2.0)?];
            let [wide, narrow] = [(above - below) / (2.0 * h), (near_above - near_below) / h];
            let fourth = above + below - 4.0 * (near_above + near_below) + 6.0 * here;
            let central = compared((4.0 * narrow - wide) / 3.0, (wide - narrow).abs() + fourth.abs() / (4.0 * h));
            if central.doubt <= EXACT {
                return Ok(central);
            }
            let side = |near: f64, far: f64, h: f64| {
                let [wide, narrow] = [(far - here) / h, 2.0 * (near - here) / h];
                compared(2.0 * narrow - wide, wide - narrow)
            };
            let found = [central, side(near_above, above, h), side(near_below, below, -h)];
            for (best, slope) in best.iter_mut().zip(found) {
                if best.is_none_or(|best| slope.doubt < best.doubt) {
                    *best = Some(slope);
                }
            }
        }
        let sure = |slope: Option<Slope>| slope.filter(|slope| slope.doubt <= UNSURE);
        let sides = best[1..].iter().copied().filter_map(sure);
        let closer = sides.min_by(|a, b| a.error.total_cmp(&b.error));
        Ok(sure(best[0]).or(closer).or(best[0]).unwrap_or(first))
    }
}

/// Compares a gradient with differences of the value, along a direction in all inputs together: two evaluations where they
/// agree, and up to 21 where a kink lies near, however many elements there are.
///
/// The direction has the signs of the gradient and elements between ¼ and 1¼, so that its parts do not cancel: the error
/// is relative to a weighted sum of all magnitudes. What is wrong in a few elements of many stays below it;
/// [`check_gradient`] looks at each. An element x is moved by `step` times its direction, and by less where a kink lies so
/// near; where no step is free of them, other directions are tried. [`Slope::agrees`] is the comparison.
///
/// ```
/// use image_losses_core::gradcheck::{STEP, check_slope};
///
/// let squares = |x: &[Vec<f64>]| Ok(x[0].iter().map(|x| x * x).sum());
/// let inputs = [(0..10_000).map(f64::from).map(f64::sin).collect::<Vec<_>>()];
/// let right = check_slope(&inputs, STEP, squares, |x| Ok(vec![x[0].iter().map(|x| 2.0 * x).collect()]))?;
/// assert!(right.error < 1e-8 && right.agrees());
/// let wrong = check_slope(&inputs, STEP, squares, |x| Ok(vec![x[0].iter().map(|x| 1.9 * x).collect()]))?;
/// assert!(wrong.error > 0.04 && !wrong.agrees());
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// # Errors
/// As [`check_gradient`].
pub fn check_slope(
    inputs: &[Vec<f64>],
    step: f64,
    value: impl Fn(&[Vec<f64>]) -> Result<f64>,
    gradient: impl FnOnce(&[Vec<f64>]) -> Result<Vec<Vec<f64>>>,
) -> Result<Slope> {
    let gradients = gradient(inputs)?;
    let mut turn = 0;
    loop {
        let mut direction = direction(inputs, turn);
        for (direction, gradient) in direction.iter_mut().zip(&gradients) {
            direction.iter_mut().zip(gradient).for_each(|(d, g)| *d = d.abs().copysign(*g));
        }
        let moved = |by: f64| -> Vec<Vec<f64>> {
            let inputs = inputs.iter().zip(&direction);
            inputs.map(|(input, direction)| input.iter().zip(direction).map(|(x, d)| x + by * d).collect()).collect()
        };
        let slope = Slope::of(slope(inputs, &gradients, &direction)?, step, 0.0, |by| value(&moved(by)))?;
        turn += 1;
        if slope.doubt <= UNSURE || turn == DIRECTIONS {
            return Ok(slope);
        }
    }
}

/// Compares second derivatives with differences of the gradient: [`check_slope`] of the gradient along the
/// direction of [`check_second_derivatives`], whose arguments it has.
///
/// ```
/// use image_losses_core::gradcheck::{STEP, check_curvature};
///
/// // Σ x³
/// let gradient = |x: &[Vec<f64>]| Ok(vec![x[0].iter().map(|x| 3.0 * x * x).collect()]);
/// let product = |x: &[Vec<f64>], d: &[Vec<f64>]| Ok(vec![x[0].iter().zip(&d[0]).map(|(x, d)| 6.0 * x * d).collect()]);
/// let inputs = [(0..10_000).map(f64::from).map(f64::cos).collect::<Vec<_>>()];
/// assert!(check_curvature(&inputs, STEP, gradient, product)?.error < 1e-8);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// # Errors
/// As [`check_gradient`].
pub fn check_curvature(
    inputs: &[Vec<f64>],
    step: f64,
    gradient: impl Fn(&[Vec<f64>]) -> Result<Vec<Vec<f64>>>,
    product: impl FnOnce(&[Vec<f64>], &[Vec<f64>]) -> Result<Vec<Vec<f64>>>,
) -> Result<Slope> {
    let direction = direction(inputs, 0);
    let along = |inputs: &[Vec<f64>]| slope(inputs, &gradient(inputs)?, &direction);
    check_slope(inputs, step, along, |inputs| product(inputs, &direction))
}

/// A direction without symmetry or zeros, of either sign, its elements between ¼ and 1¼; another one each `turn`.
fn direction(inputs: &[Vec<f64>], turn: usize) -> Vec<Vec<f64>> {
    // The golden ratio's multiples fill an interval without a pattern.
    let element = |i: usize| {
        let fraction = (i as f64 * 0.618_033_988_749_895).fract();
        if i.is_multiple_of(2) { fraction + 0.25 } else { -fraction - 0.25 }
    };
    let mut position = 7919 * turn;
    let of_input = |input: &Vec<f64>| {
        let from = position;
        position += input.len();
        (from..position).map(|i| element(i + 1)).collect()
    };
    inputs.iter().map(of_input).collect()
}

/// Σ gradient·direction, refusing gradients that are not those of the inputs.
fn slope(inputs: &[Vec<f64>], gradients: &[Vec<f64>], direction: &[Vec<f64>]) -> Result<f64> {
    check_count(inputs, gradients)?;
    let mut sum = 0.0;
    for (gradient, direction) in gradients.iter().zip(direction) {
        check_length("gradcheck", gradient.len(), &[direction.len()])?;
        sum += gradient.iter().zip(direction).map(|(g, d)| g * d).sum::<f64>();
    }
    Ok(sum)
}

/// Refuses gradients that are not one per input.
fn check_count(inputs: &[Vec<f64>], gradients: &[Vec<f64>]) -> Result<()> {
    let (expected, got) = (inputs.len(), gradients.len());
    if expected == got { Ok(()) } else { Err(crate::Error::InputCount { operation: "check_gradient", expected, got }) }
}
