//! Derivatives of an engine's operations up to the third order, against closed forms.

use image_losses_core::{Differentiable, Expr, Extent, Function, Pointwise, Result, Unary};

/// x³.
#[derive(Clone, Copy, Debug)]
struct Cube;

impl Pointwise<1> for Cube {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        x * x * x
    }
}

/// An engine's derivatives of the first three orders, along a direction, against closed forms: powers, quotients, roots,
/// exponentials, products of matrices, Fourier transforms, norms (also at 0).
///
/// `evaluate` gives the values of tensors in one evaluation; `tolerance` is relative to the largest element.
///
/// # Errors
/// The engine's own.
///
/// # Panics
/// Where a derivative is wrong.
pub fn closed_forms<T: Differentiable>(
    context: &T::Context,
    evaluate: impl Fn(&[&T]) -> Result<Vec<Vec<f64>>>,
    tolerance: f64,
) -> Result<()> {
    // Powers of two and their sums: exact in every element type.
    let x: [f64; 4] = [0.5, 1.25, -2.0, 0.75];
    let v: [f64; 4] = [1.0, -0.5, 0.25, 2.0];
    let constant = |values: &[f64]| T::constant(context, values, &[2, 2]);
    let weights: [f64; 4] = [3.0, 0.25, -1.5, 2.0];
    let elementwise = |forms: [fn(f64) -> f64; 4]| {
        let terms = |order: usize| {
            x.iter().zip(&v).zip(&weights).map(move |((x, v), w)| w * v.powi(order as i32) * forms[order + 1](*x))
        };
        [
            vec![x.iter().zip(&weights).map(|(x, w)| w * forms[0](*x)).sum()],
            terms(0).collect(),
            terms(1).collect(),
            terms(2).collect(),
        ]
    };
    let weighted = |f: &T| f.mul(&constant(&weights)?)?.sum_all();
    // Of each row (a, b), with its norm n, u = x/n, s = u·v: ∇ = u, Hv = (v − us)/n,
    // T(v, v) = −(2s(v − us) + u(|v|² − s²))/n².
    let norm = {
        let mut expected = [vec![0.0], vec![], vec![], vec![]];
        for (x, v) in x.chunks(2).zip(v.chunks(2)) {
            let n = x[0].hypot(x[1]);
            let u = [x[0] / n, x[1] / n];
            let s = u[0] * v[0] + u[1] * v[1];
            expected[0][0] += n;
            for (u, v, square) in [(u[0], v[0], v[0] * v[0] + v[1] * v[1]), (u[1], v[1], v[0] * v[0] + v[1] * v[1])] {
                expected[1].push(u);
                expected[2].push((v - u * s) / n);
                expected[3].push(-(2.0 * s * (v - u * s) + u * (square - s * s)) / (n * n));
            }
        }
        expected
    };
    // The trace of a matrix' cube x³: ∇ = 3(x²)ᵀ, Hv = 3(xv + vx)ᵀ, T(v, v) = 6(v²)ᵀ.
    let product = |a: &[f64; 4], b: &[f64; 4]| {
        [a[0] * b[0] + a[1] * b[2], a[0] * b[1] + a[1] * b[3], a[2] * b[0] + a[3] * b[2], a[2] * b[1] + a[3] * b[3]]
    };
    let turned = |a: [f64; 4], factor: f64| vec![factor * a[0], factor * a[2], factor * a[1], factor * a[3]];
    let square = product(&x, &x);
    let cube = product(&square, &x);
    let (xv, vx) = (product(&x, &v), product(&v, &x));
    let both = std::array::from_fn(|i| xv[i] + vx[i]);
    let trace = [vec![cube[0] + cube[3]], turned(square, 3.0), turned(both, 3.0), turned(product(&v, &v), 6.0)];
    // Cubes of a transform Mx of four pixels in a row: ∇ = 3Mᵀ(Mx)², Hv = 6Mᵀ(Mx·Mv), T(v, v) = 6Mᵀ(Mv)².
    let transform = {
        // X₀, X₁ and X₂, each with its imaginary part: 1, −i, −1 and i are the powers of e^(−2πi/4).
        let matrix = [
            [1.0, 1.0, 1.0, 1.0],
            [0.0; 4],
            [1.0, 0.0, -1.0, 0.0],
            [0.0, -1.0, 0.0, 1.0],
            [1.0, -1.0, 1.0, -1.0],
            [0.0; 4],
        ];
        let of = |x: [f64; 4]| matrix.map(|row| row.iter().zip(x).map(|(m, x)| m * x).sum::<f64>());
        let (x, v) = (of(x), of(v));
        let back =
            |terms: [f64; 6]| (0..4).map(|k| matrix.iter().zip(terms).map(|(row, t)| row[k] * t).sum()).collect();
        [
            vec![x.iter().map(|x| x * x * x).sum()],
            back(x.map(|x| 3.0 * x * x)),
            back(std::array::from_fn(|i| 6.0 * x[i] * v[i])),
            back(v.map(|v| 6.0 * v * v)),
        ]
    };
    // f, ∇f, ∂(∇f·v), ∂(∂(∇f·v)·v).
    let check = |name: &str, function: &dyn Fn(&T) -> Result<T>, expected: [Vec<f64>; 4]| -> Result<()> {
        let x = constant(&x)?.leaf()?;
        let mut results = vec![function(&x)?];
        let mut output = results[0].clone();
        for _ in 0..3 {
            // None: the derivative is 0 everywhere.
            let gradient = T::gradients(&output, &[&x], true)?.remove(0).map_or_else(|| x.scale(0.0), Ok)?;
            output = gradient.mul(&constant(&v)?)?.sum_all()?;
            results.push(gradient);
        }
        // All together, and each alone.
        let together = evaluate(&results.iter().collect::<Vec<_>>())?;
        for (order, (result, expected)) in results.iter().zip(&expected).enumerate() {
            let alone = evaluate(&[result])?.remove(0);
            let largest = expected.iter().fold(1.0f64, |largest, value| largest.max(value.abs()));
            for (values, how) in [(&together[order], "with the others"), (&alone, "alone")] {
                assert_eq!(values.len(), expected.len(), "{name}, derivative {order}");
                let near = values
                    .iter()
                    .zip(expected)
                    .all(|(value, expected)| (value - expected).abs() <= tolerance * largest);
                assert!(near, "{name}, derivative {order}, {how}: {values:?}, not {expected:?}");
            }
        }
        Ok(())
    };
    check(
        "a weighted sum of a map",
        &|x| T::map_reduce(&Function::new(Cube), &[x], Some(&constant(&weights)?), None, 1.0, Extent::Sum),
        elementwise([|x| x * x * x, |x| 3.0 * x * x, |x| 6.0 * x, |_| 6.0]),
    )?;
    check(
        "a quotient",
        &|x| weighted(&T::full(context, 1.0, &[2, 2])?.div(x)?),
        elementwise([|x| 1.0 / x, |x| -x.powi(-2), |x| 2.0 * x.powi(-3), |x| -6.0 * x.powi(-4)]),
    )?;
    check(
        "an exponential",
        &|x| weighted(&x.unary(Unary::Exp)?),
        elementwise([f64::exp, f64::exp, f64::exp, f64::exp]),
    )?;
    check(
        "a hyperbolic tangent",
        &|x| weighted(&x.unary(Unary::Tanh)?),
        elementwise([
            f64::tanh,
            |x| 1.0 - x.tanh().powi(2),
            |x| -2.0 * x.tanh() * (1.0 - x.tanh().powi(2)),
            |x| (1.0 - x.tanh().powi(2)) * (6.0 * x.tanh().powi(2) - 2.0),
        ]),
    )?;
    check(
        "a root",
        &|x| weighted(&x.unary(Unary::Square)?.shift(1.0)?.unary(Unary::Sqrt)?),
        elementwise([
            |x| (x * x + 1.0).sqrt(),
            |x| x / (x * x + 1.0).sqrt(),
            |x| (x * x + 1.0).powf(-1.5),
            |x| -3.0 * x * (x * x + 1.0).powf(-2.5),
        ]),
    )?;
    check("norms", &|x| x.norm(&[1], false)?.sum_all(), norm.clone())?;
    check("norms with their axis", &|x| x.norm(&[1], true)?.sum_all(), norm)?;
    check(
        "norms of nothing but zeros",
        &|x| x.scale(0.0)?.norm(&[1], false)?.sum_all(),
        [vec![0.0], vec![0.0; 4], vec![0.0; 4], vec![0.0; 4]],
    )?;
    check(
        "a Fourier transform",
        &|x| T::map_reduce(&Function::new(Cube), &[&x.reshape(&[1, 4])?.rfft2()?], None, None, 1.0, Extent::Sum),
        transform,
    )?;
    check(
        "a product of matrices",
        &|x| {
            let cube = x.matmul(x, false, false)?.matmul(x, false, false)?;
            cube.mul(&constant(&[1.0, 0.0, 0.0, 1.0])?)?.sum_all()
        },
        trace,
    )?;
    Ok(())
}

/// Norms and their gradients, where squares are out of an element type's range or what comes in is NaN.
///
/// `magnitudes` are to be in range, and so are three times these; `tolerance` is relative.
///
/// # Errors
/// The engine's own.
///
/// # Panics
/// Where a value or a gradient is wrong.
pub fn norms<T: Differentiable>(
    context: &T::Context,
    evaluate: impl Fn(&[&T]) -> Result<Vec<Vec<f64>>>,
    magnitudes: &[f64],
    tolerance: f64,
) -> Result<()> {
    let of = |row: [f64; 2]| {
        // A row that is out of no range stands beside it.
        let x = T::constant(context, &[row[0], row[1], 3.0, -4.0], &[2, 2])?.leaf()?;
        let norms = x.norm(&[1], false)?;
        let gradient = T::gradients(&norms.scale(2.0)?, &[&x], true)?.remove(0).expect("an influence");
        evaluate(&[&norms, &gradient])
    };
    let near = |value: f64, expected: f64| (value - expected).abs() <= tolerance * expected.abs();
    for &magnitude in magnitudes {
        let results = of([0.6 * magnitude, -0.8 * magnitude])?;
        let (values, gradients) = (&results[0], &results[1]);
        let right = near(values[0], magnitude) && near(gradients[0], 1.2) && near(gradients[1], -1.6);
        assert!(right, "norm of magnitude {magnitude}: {values:?}, gradients {gradients:?}");
        assert!(near(values[1], 5.0) && near(gradients[2], 1.2) && near(gradients[3], -1.6), "beside {magnitude}");
    }
    let zero = of([0.0, 0.0])?;
    assert_eq!((zero[0][0], &zero[1][..2]), (0.0, &[0.0, 0.0][..]));
    let infinite = of([f64::NEG_INFINITY, 1.0])?;
    assert_eq!((infinite[0][0], infinite[1][1]), (f64::INFINITY, 0.0));
    let none = of([f64::NAN, 1.0])?;
    assert!(none[0][0].is_nan() && none[1][..2].iter().all(|gradient| gradient.is_nan()), "norm of NaN: {none:?}");
    for beside in [zero, infinite, none] {
        assert!(near(beside[0][1], 5.0) && near(beside[1][2], 1.2) && near(beside[1][3], -1.6), "{beside:?}");
    }
    Ok(())
}
