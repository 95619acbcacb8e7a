//! The gradient checker finds what is wrong, and nothing where all is right.

use image_losses_autograd::{AgTensor, run};
use image_losses_core::gradcheck::{STEP, check_curvature, check_gradient, check_second_derivatives, check_slope};
use image_losses_core::{Differentiable, Error, Result, Tensor, Unary};

/// Inputs without symmetry.
fn inputs() -> [Vec<f64>; 2] {
    [vec![0.5, -1.25, 2.0], vec![1.5, 0.75, -0.5]]
}

/// Gradients of Σ of a loss of two inputs, and with a direction those of Σ direction·gradient.
fn derived(
    loss: impl for<'g> Fn(&AgTensor<'g, f64>, &AgTensor<'g, f64>) -> Result<AgTensor<'g, f64>>,
    x: &[Vec<f64>],
    direction: Option<&[Vec<f64>]>,
) -> Result<(f64, Vec<Vec<f64>>)> {
    run(|session| {
        let inputs = [session.input(x[0].clone(), &[3])?, session.input(x[1].clone(), &[3])?];
        let wanted: Vec<_> = inputs.iter().collect();
        let mut value = loss(&inputs[0], &inputs[1])?.sum_all()?.reshape(&[1])?;
        if let Some(direction) = direction {
            let gradients = AgTensor::gradients(&value, &wanted, true)?;
            value = value.affine(0.0, 0.0)?;
            for (gradient, direction) in gradients.into_iter().zip(direction) {
                let direction = AgTensor::constant(&session.graph(), direction, &[3])?;
                value = value.add(&gradient.unwrap().mul(&direction)?.sum_all()?.reshape(&[1])?)?;
            }
        }
        let gradients: Vec<_> = AgTensor::gradients(&value, &wanted, false)?.into_iter().map(Option::unwrap).collect();
        let values = session.evaluate(&[&value, &gradients[0], &gradients[1]])?;
        Ok((values[0][0], values[1..].to_vec()))
    })
}

/// (x − y)²·x, and the same with a factor kept out of the derivatives: first of one, then of all but the first.
fn right<'g>(x: &AgTensor<'g, f64>, y: &AgTensor<'g, f64>) -> Result<AgTensor<'g, f64>> {
    x.sub(y)?.unary(Unary::Square)?.mul(x)
}

fn wrong<'g>(x: &AgTensor<'g, f64>, y: &AgTensor<'g, f64>) -> Result<AgTensor<'g, f64>> {
    x.sub(y)?.unary(Unary::Square)?.mul(&x.detach())
}

#[test]
fn a_right_gradient_passes_and_a_wrong_one_does_not() {
    let value = |x: &[Vec<f64>]| Ok(derived(right, x, None)?.0);
    let worst = check_gradient(&inputs(), STEP, value, |x| Ok(derived(right, x, None)?.1)).unwrap().unwrap();
    assert!(worst.error < 1e-9, "{worst:?}");
    // What the derivative misses is (x − y)²: 1, 4, 6.25.
    let worst = check_gradient(&inputs(), STEP, value, |x| Ok(derived(wrong, x, None)?.1)).unwrap().unwrap();
    assert_eq!((worst.input, worst.element < 3), (0, true));
    assert!((worst.difference - worst.gradient) >= 1.0 - 1e-6 && worst.error > 0.1, "{worst:?}");

    let slope = check_slope(&inputs(), STEP, value, |x| Ok(derived(right, x, None)?.1)).unwrap();
    assert!(slope.error < 1e-9, "{slope:?}");
    let slope = check_slope(&inputs(), STEP, value, |x| Ok(derived(wrong, x, None)?.1)).unwrap();
    assert!(slope.error > 0.1, "{slope:?}");
}

#[test]
fn right_second_derivatives_pass_and_wrong_ones_do_not() {
    let gradient = |x: &[Vec<f64>]| Ok(derived(right, x, None)?.1);
    let product = |x: &[Vec<f64>], d: &[Vec<f64>]| Ok(derived(right, x, Some(d))?.1);
    let worst = check_second_derivatives(&inputs(), STEP, gradient, product).unwrap().unwrap();
    assert!(worst.error < 1e-8, "{worst:?}");
    let slope = check_curvature(&inputs(), STEP, gradient, product).unwrap();
    assert!(slope.error < 1e-8, "{slope:?}");
    // The gradient is right, what is made of it is another function's.
    let product = |x: &[Vec<f64>], d: &[Vec<f64>]| Ok(derived(wrong, x, Some(d))?.1);
    let worst = check_second_derivatives(&inputs(), STEP, gradient, product).unwrap().unwrap();
    assert!(worst.error > 0.05, "{worst:?}");
    let slope = check_curvature(&inputs(), STEP, gradient, product).unwrap();
    assert!(slope.error > 0.05, "{slope:?}");
}

#[test]
fn an_error_in_any_one_entry_of_a_hessian_shows() {
    // ½ xᵀHx with a full symmetric H, and one entry off by 1/10.
    let entry = |i: usize, j: usize| 1.0 / (1 + i + j) as f64;
    let multiply = |x: &[f64], off: Option<(usize, usize)>| -> Vec<f64> {
        let of = |i, j| entry(i, j) + if off == Some((i, j)) { 0.1 } else { 0.0 };
        (0..4).map(|i| (0..4).map(|j| of(i, j) * x[j]).sum()).collect()
    };
    let inputs = [vec![0.3, -0.7, 1.1, 0.9]];
    let worst = |off| {
        let gradient = |x: &[Vec<f64>]| Ok(vec![multiply(&x[0], None)]);
        let product = |_: &[Vec<f64>], d: &[Vec<f64>]| Ok(vec![multiply(&d[0], off)]);
        check_second_derivatives(&inputs, STEP, gradient, product).unwrap().unwrap()
    };
    assert!(worst(None).error < 1e-9);
    for i in 0..4 {
        for j in 0..4 {
            let worst = worst(Some((i, j)));
            assert!(worst.element == i && worst.error > 0.02, "{i}, {j}: {worst:?}");
        }
    }
}

#[test]
fn a_kink_within_the_step_hides_neither_a_right_slope_nor_a_wrong_one() {
    // 2x below the kink, 5x − 3·kink above it: from beyond the step to where no step gets past it, and at the point.
    for distance in [2.0, 0.9, 0.5, 1.0 / 3.0, 0.2, 1e-2, 1e-3, 1e-4, 1e-6, 0.0] {
        for kink in [1.0 - distance * STEP, 1.0 + distance * STEP] {
            let value = |x: &[Vec<f64>]| Ok(2.0 * x[0][0] + 3.0 * (x[0][0] - kink).max(0.0));
            let slope = if kink < 1.0 { 5.0 } else { 2.0 };
            let check = |slope: f64| check_slope(&[vec![1.0]], STEP, value, |_| Ok(vec![vec![slope]])).unwrap();
            assert!(check(slope).agrees(), "{distance}: {:?}", check(slope));
            for wrong in [slope * 1.001, slope * 0.999, -slope, 3.0] {
                assert!(!check(wrong).agrees(), "{distance}: {:?}", check(wrong));
            }
            let worst = |slope: f64| check_gradient(&[vec![1.0]], STEP, value, |_| Ok(vec![vec![slope]])).unwrap();
            assert!(worst(slope).unwrap().error < 1e-6, "{distance}: {:?}", worst(slope));
            assert!(worst(slope * 1.001).unwrap().error > 9e-4, "{distance}: {:?}", worst(slope * 1.001));
        }
    }
}

#[test]
fn a_jump_of_the_gradient_hides_neither_a_right_second_derivative_nor_a_wrong_one() {
    // The gradient of x² + 3·max(x − kink, 0): 2x, and 3 more above the kink.
    for distance in [2.0, 0.9, 0.5, 0.2, 1e-2, 1e-4] {
        for kink in [1.0 - distance * STEP, 1.0 + distance * STEP] {
            let gradient = |x: &[Vec<f64>]| Ok(vec![vec![2.0 * x[0][0] + if x[0][0] > kink { 3.0 } else { 0.0 }]]);
            let check = |second: f64| {
                check_curvature(&[vec![1.0]], STEP, gradient, |_, d| Ok(vec![vec![second * d[0][0]]])).unwrap()
            };
            assert!(check(2.0).agrees(), "{distance}: {:?}", check(2.0));
            for wrong in [2.002, 1.998, -2.0, 0.0] {
                assert!(!check(wrong).agrees(), "{distance}: {:?}", check(wrong));
            }
        }
    }
}

#[test]
fn kinks_to_either_side_are_left_behind_by_smaller_steps() {
    let value = |x: &[Vec<f64>]| {
        let x = (x[0][0] - 1.0) / STEP;
        Ok((2.0 * x + 3.0 * (x - 0.03).max(0.0) + (-0.02 - x).max(0.0)) * STEP)
    };
    let check = |slope: f64| check_slope(&[vec![1.0]], STEP, value, |_| Ok(vec![vec![slope]])).unwrap();
    assert!(check(2.0).agrees(), "{:?}", check(2.0));
    assert!([2.002, 1.998, 5.0, 1.0].into_iter().all(|wrong| !check(wrong).agrees()));
}

#[test]
fn one_wrong_entry_of_many_behind_kinks_shows() {
    // Σ |x − a| + (x − a)², a quarter of the kinks within the step.
    let at: Vec<f64> = (0..12).map(|i| if i % 4 == 0 { STEP / 3.0 } else { (f64::from(i) * 0.7).sin() }).collect();
    let value = |x: &[Vec<f64>]| Ok(x[0].iter().zip(&at).map(|(x, a)| (x - a).abs() + (x - a).powi(2)).sum());
    let gradient: Vec<f64> = at.iter().map(|a| -a.signum() - 2.0 * a).collect();
    let check = |gradient: &[f64]| check_slope(&[vec![0.0; 12]], STEP, value, |_| Ok(vec![gradient.to_vec()])).unwrap();
    assert!(check(&gradient).agrees(), "{:?}", check(&gradient));
    for entry in 0..12 {
        let mut wrong = gradient.clone();
        wrong[entry] *= 1.001;
        assert!(!check(&wrong).agrees(), "{entry}: {:?}", check(&wrong));
    }
}

#[test]
fn what_is_no_number_is_worst_and_what_does_not_fit_is_refused() {
    let value = |x: &[Vec<f64>]| Ok(x[0].iter().sum());
    let worst = check_gradient(&[vec![1.0; 3]], STEP, value, |_| Ok(vec![vec![1.0, f64::NAN, 5.0]])).unwrap().unwrap();
    assert!(worst.error.is_nan() && worst.element == 1, "{worst:?}");
    let slope = check_slope(&[vec![1.0; 3]], STEP, value, |_| Ok(vec![vec![1.0, f64::NAN, 5.0]])).unwrap();
    assert!(slope.error.is_nan(), "{slope:?}");
    let flat = check_slope(&[vec![1.0; 3]], STEP, |_| Ok(2.0), |_| Ok(vec![vec![0.0; 3]])).unwrap();
    assert_eq!(flat.error, 0.0);
    let refused = check_slope(&[vec![1.0; 3]], STEP, value, |_| Ok(vec![vec![1.0]])).unwrap_err();
    assert!(matches!(refused, Error::Length { .. }), "{refused}");
    let refused = check_gradient(&[vec![1.0; 3]], STEP, value, |_| Ok(Vec::new())).unwrap_err();
    assert!(matches!(refused, Error::InputCount { expected: 1, got: 0, .. }), "{refused}");
    let refused = check_gradient(&[vec![1.0; 3]], STEP, value, |_| Ok(vec![vec![1.0]])).unwrap_err();
    assert!(matches!(refused, Error::Length { .. }), "{refused}");
    let short = |_: &[Vec<f64>]| Ok(vec![vec![1.0]]);
    let refused = check_second_derivatives(&[vec![1.0; 3]], STEP, short, |x, _| Ok(x.to_vec())).unwrap_err();
    assert!(matches!(refused, Error::Length { .. }), "{refused}");
}
