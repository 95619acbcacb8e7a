//! The laws themselves.

use std::fmt::Debug;

use image_losses_core::gradcheck::{check_curvature, check_gradient, check_second_derivatives, check_slope};
use image_losses_core::kernels::{Array, count};
use image_losses_core::{DType, Error, PointwiseLoss, Reduction, Result, Scalar};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::case::{Case, cases, per_pixel};
use crate::{Configured, Cpu, Derived, Engine, Hand, Lawful, Network, Rank, Takes, Weight, drawn};

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

/// Cases drawn per law.
const CASES: u32 = 64;
/// Relative error allowed between double-precision results that differ in order of summation.
const CLOSE: f64 = 1e-12;
/// Relative error allowed for a central difference. Its truncation is (h/d)² for a logarithm or a power of the
/// difference d: with d from 1/128 and h up to 1.4e-5, 3e-6. So far h goes where an input of 2.3 has a factor of 3, as a
/// foreground has in its difference from the background.
const DIFFERENCE: f64 = 1e-5;
/// Step of a central difference, for an input of magnitude 1. Rounding adds some 1e-16/STEP: 1e-10.
const STEP: f64 = 2e-6;
/// Relative error allowed between single and double precision.
const SINGLE: f64 = 2e-5;
/// The first step of a difference through a network: truncation of 1e-12·f‴ and rounding of some 1e-14/NETWORK_STEP are
/// below what counts as exact. Where a kink lies nearer, smaller steps follow.
const NETWORK_STEP: f64 = 1e-6;

/// Runs a law over drawn losses and cases; a failure begins with its name.
fn law<L: Debug, const K: usize>(
    name: &str,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
    cases_per_law: u32,
    law: impl Fn(&L, &Case<K>) -> Result<()>,
) {
    let cases_per_law = takes.network.map_or(cases_per_law.max(4), |network| network.cases);
    let outcome = TestRunner::new(drawn(cases_per_law)).run(&(losses, cases(takes)), |(loss, case)| {
        law(&loss, &case).expect("a loss refuses nothing that fits");
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
}

/// The same loss with other values in its configuration; fields it does not have are left alone.
fn with<L: Configured>(loss: &L, changes: &[(&str, Value)]) -> L {
    let mut options = serde_json::to_value(loss).expect("options");
    for (field, value) in changes {
        if let Some(slot) = options.get_mut(field) {
            *slot = value.clone();
        }
    }
    serde_json::from_value(options).expect("a loss")
}

fn option(loss: &impl Configured, field: &str) -> Option<Value> {
    serde_json::to_value(loss).expect("options").get(field).cloned()
}

/// Value and gradients in one fused pass.
fn fused_pass<const K: usize, F: Scalar>(loss: &impl PointwiseLoss<K>, case: &Case<K>) -> Result<(f64, Vec<Vec<f64>>)> {
    let convert = |values: &[f64]| values.iter().map(|&v| F::from_f64(v)).collect::<Vec<F>>();
    let inputs: [Vec<F>; K] = std::array::from_fn(|k| convert(&case.inputs[k]));
    let arrays = std::array::from_fn(|k| Array { shape: &case.shapes[k], data: &inputs[k] });
    let weight = case.weight.as_ref().map(|(values, shape)| (convert(values), shape));
    let weight = weight.as_ref().map(|(data, shape)| Array { shape, data });
    let (value, gradients) = loss.value_and_gradients(arrays, weight, [true; K])?;
    let numbers = |gradient: Vec<F>| gradient.into_iter().map(F::to_f64).collect();
    Ok((value.to_f64(), gradients.into_iter().flatten().map(numbers).collect()))
}

#[track_caller]
fn assert_close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1.0f64, |scale, v| scale.max(v.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= tolerance * scale, "got {got}, expected {expected} within {tolerance}");
    }
}

impl<const K: usize> Takes<K> {
    /// The case; before a network, its first sample: samples do not meet in it.
    fn least(&self, case: &Case<K>) -> Case<K> {
        let mut case = case.clone();
        if self.network.is_some() {
            let samples = case.shape[0];
            case.inputs.iter_mut().for_each(|input| input.truncate(input.len() / samples));
            case.shapes.iter_mut().chain([&mut case.shape]).for_each(|shape| shape[0] = 1);
        }
        case
    }

    /// Asserts that two results in double precision are the same.
    #[track_caller]
    fn assert_same(&self, got: &[f64], expected: &[f64]) {
        assert_close(got, expected, self.network.map_or(CLOSE, |network| network.double));
    }

    /// Asserts that a value in single precision is that in double.
    #[track_caller]
    fn assert_single(&self, got: &[f64], expected: &[f64]) {
        assert_close(got, expected, self.network.map_or(SINGLE, |network| network.single[0]));
    }

    /// Asserts that a gradient in single precision is that in double: behind a network by the length of the difference
    /// relative to its own, since a kink that rounding crosses changes a few elements much.
    #[track_caller]
    fn assert_single_gradient(&self, got: &[f64], expected: &[f64]) {
        let Some(Network { single: [_, tolerance], .. }) = self.network else {
            return assert_close(got, expected, SINGLE);
        };
        let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let difference = length(&mut got.iter().zip(expected).map(|(got, expected)| got - expected));
        let own = length(&mut expected.iter().copied());
        assert!(difference <= tolerance * own, "a gradient {difference} from one of length {own}");
    }
}

#[track_caller]
fn assert_finite(gradients: &[Vec<f64>], case: &impl Debug) {
    assert!(gradients.iter().flatten().all(|g| g.is_finite()), "{gradients:?} at {case:?}");
}

/// The value at points computed by hand, in double and in single precision.
pub(crate) fn hand_values<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
    hand: impl Fn(&L) -> Vec<Hand<K>>,
) {
    law("hand values", losses, takes, CASES / E::SPARSE, |loss, _| {
        let sum = with(loss, &[("reduction", "sum".into())]);
        let points = hand(loss);
        assert!(points.len() >= 2, "a perfect prediction and another point");
        for Hand { shape, inputs, value } in points {
            let case = Case { shapes: takes.shapes(&shape), shape, inputs, weight: None };
            let [double, single] = takes.network.map_or([CLOSE, SINGLE], |network| [network.hand, network.single[0]]);
            for (dtype, tolerance) in [(DType::F64, double), (DType::F32, single)] {
                let got = engine.value(&sum, &case, dtype)?.iter().sum();
                assert_close(&[got], &[value], tolerance);
            }
        }
        Ok(())
    });
}

/// One fused pass, the graph, and the values are the same.
pub(crate) fn fused<const K: usize, L: PointwiseLoss<K> + Configured>(
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("fused", losses, takes, CASES, |loss, case| {
        if loss.reducer().reduction == Reduction::None {
            let refused = fused_pass::<K, f64>(loss, case).unwrap_err();
            assert!(matches!(refused, Error::InvalidOption { option: "reduction", .. }), "{refused}");
            return Ok(());
        }
        let (value, gradients, _) = Cpu.derived(loss, case, DType::F64, None)?;
        let (fused_value, fused_gradients) = fused_pass::<K, f64>(loss, case)?;
        assert_close(&[fused_value], &value, CLOSE);
        let single = fused_pass::<K, f32>(loss, case)?;
        assert_close(&[single.0], &value, SINGLE);
        for k in 0..K {
            assert_close(&fused_gradients[k], &gradients[k], CLOSE);
            assert_close(&single.1[k], &gradients[k], SINGLE);
        }
        Ok(())
    });
}

/// The same value and gradients on every engine and in both precisions: fused form = composed form.
pub(crate) fn engines<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("engines", losses, takes, CASES / E::SPARSE, |loss, case| {
        let expected = Cpu.value(loss, case, DType::F64)?;
        assert!(expected.iter().all(|v| v.is_finite()));
        for value in engine.more_values(loss, case) {
            takes.assert_same(&value?, &expected);
        }
        let (value, gradients, _) = engine.derived(loss, case, DType::F64, None)?;
        takes.assert_same(&value, &expected);
        for other in engine.more_derived(loss, case, DType::F64, None) {
            let (value, others, _) = other?;
            takes.assert_same(&value, &expected);
            for (other, gradient) in others.iter().zip(&gradients) {
                takes.assert_same(other, gradient);
            }
        }
        if !E::CPU {
            for (gradient, expected) in gradients.iter().zip(Cpu.derived(loss, case, DType::F64, None)?.1) {
                takes.assert_same(gradient, &expected);
            }
        }
        takes.assert_single(&engine.value(loss, case, DType::F32)?, &expected);
        let mut singles = engine.more_derived(loss, case, DType::F32, None);
        singles.push(engine.derived(loss, case, DType::F32, None));
        for single in singles {
            let (single, single_gradients, _) = single?;
            takes.assert_single(&single, &expected);
            for (single, double) in single_gradients.iter().zip(&gradients) {
                takes.assert_single_gradient(single, double);
            }
        }
        Ok(())
    });
}

/// Gradients, and gradients of gradients, against central differences; none by an input that is held constant.
pub(crate) fn gradients<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    if takes.detached || (takes.is_deep() && !E::CPU) {
        return;
    }
    let free: Vec<usize> = (0..K).filter(|&k| !takes.held[k]).collect();
    law("gradients", losses, takes, CASES / 4 / E::SPARSE, |loss, case| {
        let case = &takes.least(case);
        let of_free = |all: &[Vec<f64>]| free.iter().map(|&k| all[k].clone()).collect::<Vec<_>>();
        let moved = |inputs: &[Vec<f64>]| {
            let mut case = case.clone();
            free.iter().zip(inputs).for_each(|(&k, input)| case.inputs[k].clone_from(input));
            case
        };
        let derived = |inputs: &[Vec<f64>], direction: Option<&[Vec<f64>]>| {
            let mut all: [Vec<f64>; K] = std::array::from_fn(|k| vec![0.0; case.inputs[k].len()]);
            free.iter().zip(direction.unwrap_or_default()).for_each(|(&k, direction)| all[k].clone_from(direction));
            engine.derived(loss, &moved(inputs), DType::F64, direction.map(|_| &all[..]))
        };
        let total = |inputs: &[Vec<f64>]| Ok(engine.value(loss, &moved(inputs), DType::F64)?.iter().sum());
        let first = |inputs: &[Vec<f64>]| {
            let gradients = derived(inputs, None)?.1;
            let held = (0..K).filter(|&k| takes.held[k]).flat_map(|k| &gradients[k]);
            assert!(held.clone().all(|&g| g == 0.0), "a gradient by what is held constant: {gradients:?}");
            Ok(of_free(&gradients))
        };
        let inputs = of_free(&case.inputs);
        let second = |inputs: &[Vec<f64>], direction: &[Vec<f64>]| Ok(of_free(&derived(inputs, Some(direction))?.2));
        if takes.network.is_some() {
            let slope = check_slope(&inputs, NETWORK_STEP, total, first)?;
            assert!(slope.agrees(), "{slope:?}");
            if takes.smooth {
                let slope = check_curvature(&inputs, NETWORK_STEP, first, second)?;
                assert!(slope.agrees(), "second: {slope:?}");
            }
            return Ok(());
        }
        let ones: [Vec<f64>; K] = std::array::from_fn(|k| vec![1.0; case.inputs[k].len()]);
        let expected = engine.derived(loss, case, DType::F64, Some(&ones))?.2;
        for other in engine.more_derived(loss, case, DType::F64, Some(&ones)) {
            for (other, expected) in other?.2.iter().zip(&expected) {
                takes.assert_same(other, expected);
            }
        }
        let worst = check_gradient(&inputs, STEP, total, first)?;
        assert!(worst.is_some_and(|worst| worst.error < DIFFERENCE), "{worst:?}");
        if !takes.smooth {
            return Ok(());
        }
        let worst = check_second_derivatives(&inputs, STEP, first, second)?;
        assert!(worst.is_some_and(|worst| worst.error < DIFFERENCE), "second: {worst:?}");
        Ok(())
    });
}

/// The options that multiply the result do, and a homogeneous loss has its degree.
pub(crate) fn scaling<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("scaling", losses, takes, CASES / E::SPARSE, |loss, case| {
        // A network is built anew for each factor, and the hand values have three more.
        let factors = if takes.network.is_some() { &[-2.5][..] } else { &[-2.5, 0.0, 7.0] };
        for &field in takes.scaled_by {
            let one = engine.value(&with(loss, &[(field, 1.0.into())]), case, DType::F64)?;
            for &factor in factors {
                let scaled = engine.value(&with(loss, &[(field, factor.into())]), case, DType::F64)?;
                takes.assert_same(&scaled, &one.iter().map(|v| factor * v).collect::<Vec<_>>());
            }
        }
        if let Some(degree) = takes.degree {
            let value = engine.value(loss, case, DType::F64)?;
            for k in [0.5, 3.0f64] {
                let mut scaled = case.clone();
                scaled.inputs.iter_mut().flatten().for_each(|x| *x *= k);
                let expected: Vec<f64> = value.iter().map(|v| v * k.powi(degree)).collect();
                takes.assert_same(&engine.value(loss, &scaled, DType::F64)?, &expected);
            }
        }
        Ok(())
    });
}

/// Exchanging the first two inputs changes nothing, or does.
pub(crate) fn symmetry<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    let Some(symmetric) = takes.symmetric else { return };
    let broken = std::cell::Cell::new(false);
    law("symmetry", losses, takes, CASES / E::SPARSE, |loss, case| {
        let loss = &with(loss, &[("loss_weight", 1.5.into())]);
        let mut exchanged = case.clone();
        exchanged.inputs.swap(0, 1);
        exchanged.shapes.swap(0, 1);
        let (value, other) = (engine.value(loss, case, DType::F64)?, engine.value(loss, &exchanged, DType::F64)?);
        if symmetric {
            takes.assert_same(&other, &value);
        }
        broken.set(broken.get() || value.iter().zip(&other).any(|(a, b)| (a - b).abs() > 1e-3));
        Ok(())
    });
    assert!(symmetric || broken.get(), "symmetry: exchanging {:?} changes nothing", &takes.names[..2]);
}

/// The order of the samples changes no number, only the order of a result per sample.
pub(crate) fn permutation<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("permutation", losses, takes, CASES / E::SPARSE, |loss, case| {
        let samples = case.shape[0];
        let reversed =
            |values: &[f64]| values.chunks(values.len() / samples).rev().flatten().copied().collect::<Vec<f64>>();
        let turned = Case {
            inputs: std::array::from_fn(|k| reversed(&case.inputs[k])),
            weight: case.weight.as_ref().map(|(values, shape)| (reversed(values), shape.clone())),
            ..case.clone()
        };
        let before = engine.value(loss, case, DType::F64)?;
        let after = engine.value(loss, &turned, DType::F64)?;
        let expected = if before.len() == 1 { before } else { reversed(&before) };
        takes.assert_same(&after, &expected);
        Ok(())
    });
}

/// None, mean and sum, with and without a weight, from the map itself.
pub(crate) fn reductions<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("reductions", losses, takes, CASES / E::SPARSE, |loss, case| {
        let reduced = |reduction: &str, sample_wise: bool, case: &Case<K>| {
            let changes = [("reduction", reduction.into()), ("sample_wise", sample_wise.into())];
            engine.value(&with(loss, &changes), case, DType::F64)
        };
        let map = reduced("none", false, &Case { weight: None, ..case.clone() })?;
        let (n, samples) = (count(&case.shape), case.shape[0]);
        assert_eq!(map.len(), n);
        let Some((weight, weight_shape)) = &case.weight else {
            let sum: f64 = map.iter().sum();
            assert_close(&reduced("sum", false, case)?, &[sum], CLOSE);
            assert_close(&reduced("mean", false, case)?, &[sum / n as f64], CLOSE);
            assert_close(&reduced("mean", true, case)?, &[sum / n as f64], CLOSE);
            return Ok(());
        };
        // The weight of each element of the map.
        let pixels = count(&case.shape[2..]);
        let channels = case.shape[1];
        let full: Vec<f64> = (0..n)
            .map(|i| {
                let (sample, pixel) = (i / (channels * pixels), i % pixels);
                if weight_shape == &case.shape { weight[i] } else { weight[sample * pixels + pixel] }
            })
            .collect();
        let weighted: Vec<f64> = map.iter().zip(&full).map(|(d, w)| d * w).collect();
        assert_close(&reduced("none", false, case)?, &weighted, CLOSE);
        assert_close(&reduced("none", true, case)?, &weighted, CLOSE);
        assert_close(&reduced("sum", true, case)?, &[weighted.iter().sum()], CLOSE);
        let mean =
            |weighted: &[f64], weights: &[f64]| weighted.iter().sum::<f64>() / (weights.iter().sum::<f64>() + 1e-12);
        assert_close(&reduced("mean", false, case)?, &[mean(&weighted, &full)], CLOSE);
        if option(loss, "sample_wise").is_some() {
            let by_sample = weighted.chunks(n / samples).zip(full.chunks(n / samples)).map(|(d, w)| mean(d, w));
            assert_close(&reduced("mean", true, case)?, &[by_sample.sum::<f64>() / samples as f64], CLOSE);
        }
        Ok(())
    });
}

/// A mask of ones is none, equal masks make `sample_wise` the mean, an empty mask gives exactly nothing.
pub(crate) fn masks<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("masks", losses, takes, CASES / E::SPARSE, |loss, case| {
        let shape = case.weight.as_ref().map_or_else(|| per_pixel(&case.shape), |(_, shape)| shape.clone());
        let masked = |weight: Option<Vec<f64>>| Case { weight: weight.map(|w| (w, shape.clone())), ..case.clone() };
        let ones = engine.value(loss, &masked(Some(vec![1.0; count(&shape)])), DType::F64)?;
        assert_close(&ones, &engine.value(loss, &masked(None), DType::F64)?, 2e-12);

        let sample = count(&shape[1..]);
        let same: Vec<f64> = (0..count(&shape)).map(|i| 0.25 + (i % sample) as f64).collect();
        let sample_wise = |on: bool| {
            engine.value(&with(loss, &[("sample_wise", on.into())]), &masked(Some(same.clone())), DType::F64)
        };
        assert_close(&sample_wise(true)?, &sample_wise(false)?, 1e-11);

        let empty = masked(Some(vec![0.0; count(&shape)]));
        for dtype in [DType::F64, DType::F32] {
            let (value, gradients, _) = engine.derived(loss, &empty, dtype, None)?;
            assert!(value.iter().all(|&v| v == 0.0), "{dtype:?}: {value:?}");
            assert!(gradients.iter().flatten().all(|&g| g == 0.0), "{dtype:?}: {gradients:?}");
            assert!(engine.value(loss, &empty, dtype)?.iter().all(|&v| v == 0.0), "{dtype:?}");
        }
        Ok(())
    });
}

/// The numbers where a derivative is most likely to be none: equal inputs, 0, denormals, huge ones. Inputs with one
/// channel (an α) stay in [0, 1].
fn hard_cases<const K: usize>(takes: Takes<K>, case: &Case<K>, huge: f64, denormal: f64) -> Vec<Case<K>> {
    let (case, mut hard) = (takes.least(case), Vec::new());
    for (left, right) in
        [(0.0, 0.0), (0.7, 0.7), (huge, huge), (huge, -huge), (-huge, 0.0), (denormal, 0.0), (denormal, -denormal)]
    {
        hard.push(Case {
            inputs: std::array::from_fn(|k| {
                let v = match () {
                    () if takes.per_pixel[k] => 0.5,
                    () if k + 1 == K => right,
                    () => left,
                };
                vec![v; case.inputs[k].len()]
            }),
            ..case.clone()
        });
    }
    hard
}

/// Hard cases in double precision, and in single.
fn doubles_and_singles<const K: usize>(takes: Takes<K>, case: &Case<K>) -> [Vec<Case<K>>; 2] {
    let mut doubles = hard_cases(takes, case, takes.huge[0], 1e-310);
    if takes.network.is_some() {
        // Every third: zeros, huge numbers of either sign, denormals. Single precision, whose range is smaller, has all.
        doubles = doubles.into_iter().step_by(3).collect();
    }
    [doubles, hard_cases(takes, case, takes.huge[1], 1e-40)]
}

/// The gradient is finite at zero difference, at ±1e30 and for denormals.
pub(crate) fn extremes<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("extremes", losses, takes, CASES / 4 / E::SPARSE, |loss, case| {
        // Not 0: 0·∞ is NaN.
        let loss = &with(loss, &[("loss_weight", 1.5.into())]);
        let [doubles, singles] = doubles_and_singles(takes, case);
        for hard in doubles.into_iter().filter(|_| !takes.is_deep()) {
            let (value, gradients, _) = engine.derived(loss, &hard, DType::F64, None)?;
            assert!(value.iter().all(|v| v.is_finite()), "{value:?} at {hard:?}");
            assert_finite(&gradients, &hard);
        }
        for hard in singles {
            // The value may overflow in single precision, as a square of 1e30 does; the gradient must not.
            let (value, gradients, _) = single(engine, loss, takes, &hard)?;
            assert!(value.iter().all(|v| !v.is_nan()), "{value:?} at {hard:?}");
            assert_finite(&gradients, &hard);
        }
        Ok(())
    });
}

/// [`extremes`] of the fused pass.
pub(crate) fn fused_extremes<const K: usize, L: PointwiseLoss<K> + Configured>(
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("fused extremes", losses, takes, CASES / 4, |loss, case| {
        if loss.reducer().reduction == Reduction::None {
            return Ok(());
        }
        let [doubles, singles] = doubles_and_singles(takes, case);
        for hard in doubles {
            assert_finite(&fused_pass::<K, f64>(loss, &hard)?.1, &hard);
        }
        for hard in singles {
            assert_finite(&fused_pass::<K, f32>(loss, &hard)?.1, &hard);
        }
        Ok(())
    });
}

/// Value and gradients of a case.
type Pass = (Vec<f64>, Vec<Vec<f64>>);

fn in_one((value, gradients): (f64, Vec<Vec<f64>>)) -> Pass {
    (vec![value], gradients)
}

/// NaN in an element of an input under a weight other than 0 is NaN in the value, and in the gradient by that element,
/// unless that gradient does not depend on the element: the element is held constant, or the loss is linear in it.
fn assert_nan<const K: usize>(
    takes: Takes<K>,
    case: &Case<K>,
    derived: impl Fn(&Case<K>) -> Result<Pass>,
) -> Result<()> {
    for (case, [k, at]) in broken(takes, case) {
        let with = |value: f64| {
            let mut case = case.clone();
            case.inputs[k][at] = value;
            derived(&case)
        };
        let (value, gradients) = with(f64::NAN)?;
        assert!(value.iter().any(|v| v.is_nan()), "{value:?} for NaN in input {k} at {case:?}");
        // None of a value that came alone.
        let Some(gradient) = gradients.get(k).map(|gradient| gradient[at]) else { continue };
        if !gradient.is_nan() && !takes.held[k] {
            // Far to either side of every kink: a gradient that is the same there is that of a linear function.
            let [above, below] = [with(64.0)?, with(-64.0)?].map(|(_, gradients)| gradients[k][at]);
            assert!(above == below, "gradient {gradient:?} by NaN in input {k} at {case:?}");
        }
    }
    Ok(())
}

/// The case, for each input with the position of an element that may become NaN, under weights that are not 0.
fn broken<const K: usize>(takes: Takes<K>, case: &Case<K>) -> impl Iterator<Item = (Case<K>, [usize; 2])> {
    let mut case = takes.least(case);
    for weight in case.weight.iter_mut().flat_map(|(weight, _)| weight).filter(|weight| **weight == 0.0) {
        *weight = 0.25;
    }
    // In the middle of each axis: a loss may look at no more of an image than that.
    let middle = |shape: &Vec<usize>| shape.iter().fold(0, |at, extent| at * extent + extent / 2);
    let at: [usize; K] = case.shapes.each_ref().map(middle);
    (0..K).map(move |k| (case.clone(), [k, at[k]]))
}

/// The number of other ways to derivatives; behind networks the first is enough.
fn others<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    loss: &L,
    takes: Takes<K>,
    case: &Case<K>,
    dtype: DType,
) -> usize {
    if takes.network.is_some() { 0 } else { engine.more_derived(loss, case, dtype, None).len() }
}

/// Value and gradients in single precision; behind networks as a training step has them, fused.
fn single<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    loss: &L,
    takes: Takes<K>,
    case: &Case<K>,
) -> Result<Derived> {
    if takes.network.is_some() {
        engine.trained(loss, case, DType::F32)
    } else {
        engine.derived(loss, case, DType::F32, None)
    }
}

/// NaN in an input is NaN in the value and in the gradient, on every engine.
pub(crate) fn nan<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("NaN", losses, takes, CASES / 4 / E::SPARSE, |loss, case| {
        let loss = &with(loss, &[("loss_weight", 1.5.into())]);
        let dtypes = if takes.is_deep() { &[DType::F32][..] } else { &[DType::F64, DType::F32] };
        for &dtype in dtypes {
            assert_nan(takes, case, |case| {
                let derived = match dtype {
                    DType::F32 => single(engine, loss, takes, case),
                    _ => engine.derived(loss, case, dtype, None),
                };
                derived.map(|(value, first, _)| (value, first))
            })?;
            // The values alone may come another way.
            assert_nan(takes, case, |case| Ok((engine.value(loss, case, dtype)?, Vec::new())))?;
            for other in 0..others(engine, loss, takes, case, dtype) {
                assert_nan(takes, case, |case| {
                    let derived = engine.more_derived(loss, case, dtype, None).swap_remove(other);
                    derived.map(|(value, first, _)| (value, first))
                })?;
            }
        }
        for (mut case, [k, at]) in broken(takes, case) {
            case.inputs[k][at] = f64::NAN;
            for value in engine.more_values(loss, &case) {
                let value = value?;
                assert!(value.iter().any(|v| v.is_nan()), "{value:?} for NaN in input {k} at {case:?}");
            }
        }
        Ok(())
    });
}

/// [`nan`] of the fused pass.
pub(crate) fn fused_nan<const K: usize, L: PointwiseLoss<K> + Configured>(
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("fused NaN", losses, takes, CASES / 4, |loss, case| {
        let loss = &with(loss, &[("loss_weight", 1.5.into())]);
        if loss.reducer().reduction == Reduction::None {
            return Ok(());
        }
        assert_nan(takes, case, |case| fused_pass::<K, f64>(loss, case).map(in_one))?;
        assert_nan(takes, case, |case| fused_pass::<K, f32>(loss, case).map(in_one))
    });
}

impl<const K: usize> Takes<K> {
    /// The case with weights of 0 at and around a pixel, or everywhere, and for each input the elements of that pixel.
    /// Around: a filter of 3×3 reads a pixel from its neighbours.
    fn masked(&self, case: &Case<K>, empty: bool) -> (Case<K>, [Vec<usize>; K]) {
        let reach = usize::from(self.rank == Rank::Image);
        let shape = case.weight.as_ref().map_or_else(|| per_pixel(&case.shape), |(_, shape)| shape.clone());
        let drawn = case.weight.as_ref().map_or_else(|| vec![1.0; count(&shape)], |(weight, _)| weight.clone());
        // Each element's sample and pixel, as distances from those in the middle.
        let distance = |shape: &[usize], mut index: usize| {
            let mut farthest = 0;
            for (axis, &extent) in shape.iter().enumerate().rev() {
                let distance = (index % extent).abs_diff(extent / 2);
                farthest = farthest.max(match axis {
                    0 if distance > 0 => usize::MAX,
                    1 => 0,
                    _ => distance,
                });
                index /= extent;
            }
            farthest
        };
        let weight = drawn.iter().enumerate().map(|(index, &weight)| match () {
            () if empty || distance(&shape, index) <= reach => 0.0,
            () if weight == 0.0 => 0.25,
            () => weight,
        });
        let weight = weight.collect();
        let pixel = |shape: &Vec<usize>| (0..count(shape)).filter(|&index| distance(shape, index) == 0).collect();
        (Case { weight: Some((weight, shape.clone())), ..case.clone() }, case.shapes.each_ref().map(pixel))
    }
}

/// A weight of 0 takes its pixel out: infinite and NaN pixels under it change neither the value nor any gradient, and
/// the gradient by them is exactly 0; in a mask that is not empty, and in one that is.
fn assert_masked_out<const K: usize>(
    takes: Takes<K>,
    case: &Case<K>,
    tolerance: f64,
    derived: impl Fn(&Case<K>) -> Result<Pass>,
) -> Result<()> {
    for empty in [false, true] {
        let (clean, pixel) = takes.masked(case, empty);
        let (expected, expected_gradients) = derived(&clean)?;
        let each = (0..K).map(|k| (k..k + 1, f64::INFINITY));
        for (inputs, value) in each.chain([(0..K, f64::NEG_INFINITY), (0..K, f64::NAN)]) {
            let mut case = clean.clone();
            for k in inputs {
                pixel[k].iter().for_each(|&at| case.inputs[k][at] = value);
            }
            let (value, gradients) = derived(&case)?;
            assert!(value.iter().all(|v| v.is_finite()), "{value:?} at {case:?}");
            assert_close(&value, &expected, tolerance);
            assert_finite(&gradients, &case);
            for (k, (gradient, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
                assert_close(gradient, expected, tolerance);
                // Beside the inputs' gradients stand their gradients of second order.
                let masked = pixel[k % K].iter().all(|&at| gradient[at] == 0.0);
                assert!(masked, "gradient {gradient:?} by what is masked out in input {} at {case:?}", k % K);
            }
        }
    }
    Ok(())
}

/// A weight of 0 takes its pixel out, on every engine: value, first and second derivatives.
pub(crate) fn masked_out<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("masked out", losses, takes, CASES / 4 / E::SPARSE, |loss, case| {
        let loss = &with(loss, &[("loss_weight", 1.5.into())]);
        let ones = case.inputs.each_ref().map(|input| vec![1.0; input.len()]);
        assert_masked_out(takes, case, CLOSE, |case| {
            let (value, mut first, second) = engine.derived(loss, case, DType::F64, Some(&ones))?;
            first.extend(second);
            Ok((value, first))
        })?;
        assert_masked_out(takes, case, SINGLE, |case| {
            engine.derived(loss, case, DType::F32, None).map(|(value, first, _)| (value, first))
        })?;
        for other in 0..others(engine, loss, takes, case, DType::F32) {
            assert_masked_out(takes, case, SINGLE, |case| {
                let derived = engine.more_derived(loss, case, DType::F32, None).swap_remove(other);
                derived.map(|(value, first, _)| (value, first))
            })?;
        }
        // The values alone may come another way.
        assert_masked_out(takes, case, CLOSE, |case| Ok((engine.value(loss, case, DType::F64)?, Vec::new())))?;
        for other in 0..engine.more_values(loss, case).len() {
            assert_masked_out(takes, case, CLOSE, |case| {
                Ok((engine.more_values(loss, case).swap_remove(other)?, Vec::new()))
            })?;
        }
        Ok(())
    });
}

/// [`masked_out`] of the fused pass.
pub(crate) fn fused_masked_out<const K: usize, L: PointwiseLoss<K> + Configured>(
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    law("fused masked out", losses, takes, CASES / 4, |loss, case| {
        let loss = &with(loss, &[("loss_weight", 1.5.into())]);
        if loss.reducer().reduction == Reduction::None {
            return Ok(());
        }
        assert_masked_out(takes, case, CLOSE, |case| fused_pass::<K, f64>(loss, case).map(in_one))?;
        assert_masked_out(takes, case, SINGLE, |case| fused_pass::<K, f32>(loss, case).map(in_one))
    });
}

/// Says whether an error is the one that is due.
type Due = Box<dyn Fn(&Error) -> bool>;

/// Cases that must be refused, each with what to expect.
fn misfits<const K: usize>(takes: Takes<K>) -> Vec<(Case<K>, Due)> {
    let c = takes.channels.unwrap_or(3);
    let [h, w] = takes.network.map_or([4, 5], |network| network.size);
    let fitting = |shape: &[usize]| {
        let shapes = takes.shapes(shape);
        Case { shape: shape.to_vec(), inputs: shapes.clone().map(|s| vec![0.5; count(&s)]), shapes, weight: None }
    };
    let mut misfits: Vec<(Case<K>, Due)> = Vec::new();
    for k in 0..K {
        // One input in another shape, rank or size. The first full input says what the others must be.
        let name = takes.names[k];
        let leads = takes.per_pixel.iter().position(|one| !one) == Some(k);
        for shape in [vec![2, c, h, w + 1], vec![2, c, w, 1], vec![1, c, h, w]] {
            let mut case = fitting(&[2, c, h, w]);
            case.inputs[k] = vec![0.5; count(&shape)];
            case.shapes[k] = shape;
            if K > 1 && takes.same_shape {
                misfits.push((
                    case,
                    Box::new(move |error| {
                        matches!(error, Error::ShapeMismatch { argument, .. } if *argument == name || leads)
                    }),
                ));
            }
        }
    }
    let rule = || -> Due { Box::new(|error| matches!(error, Error::ShapeRule { .. })) };
    if takes.rank != Rank::Scores {
        let rank_one = Case {
            shape: vec![4],
            shapes: std::array::from_fn(|_| vec![4]),
            inputs: std::array::from_fn(|_| vec![0.5; 4]),
            weight: None,
        };
        misfits.push((rank_one, rule()));
    }
    if takes.rank == Rank::Image {
        misfits.push((fitting(&[2, c, h]), rule()));
        misfits.push((fitting(&[2, c, 1, h, w]), rule()));
    }
    for shape in [[0, c, h, w], [2, c, 0, w], [2, c, h, 0]] {
        misfits.push((fitting(&shape), Box::new(|error| matches!(error, Error::Empty { .. }))));
    }
    if takes.weight == Weight::Absent {
        return misfits;
    }
    for shape in
        [vec![1, c, h, w], vec![2, 2, h, w], vec![2, 1, w, h], vec![1, 1, 1, 1], vec![2, 1, h], vec![1], vec![]]
    {
        let weight = vec![1.0; count(&shape)];
        let case = Case { weight: Some((weight, shape)), ..fitting(&[2, c, h, w]) };
        let taken = takes.weight == Weight::Taken;
        misfits.push((
            case,
            Box::new(move |error| match error {
                Error::WeightShape { .. } => taken,
                Error::InvalidOption { option, .. } => !taken && *option == "weight",
                _ => false,
            }),
        ));
    }
    misfits
}

/// Shapes that do not fit are refused by the right variant, on every engine.
pub(crate) fn shapes<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    let misfits = misfits(takes);
    law("shapes", losses, takes, 4, |loss, _| {
        for (case, due) in &misfits {
            let mut results = engine.more_values(loss, case);
            results.push(engine.value(loss, case, DType::F64));
            // Networks are moved to the engine's tensors before anything is refused: once on each kind of tensor.
            if E::CPU || takes.network.is_none() {
                results.push(engine.derived(loss, case, DType::F64, None).map(|derived| derived.0));
            }
            for result in results {
                let error = result.expect_err(&format!("{:?} and weight {:?} fit", case.shapes, case.weight));
                assert!(due(&error), "{error:?} for {:?} and weight {:?}", case.shapes, case.weight);
            }
        }
        Ok(())
    });
}

/// [`shapes`] of the fused pass.
pub(crate) fn fused_shapes<const K: usize, L: PointwiseLoss<K> + Configured>(
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
) {
    let misfits = misfits(takes);
    law("fused shapes", losses, takes, 4, |loss, _| {
        for (case, due) in &misfits {
            let error = fused_pass::<K, f64>(loss, case).unwrap_err();
            assert!(due(&error), "{error:?} for {:?} and weight {:?}", case.shapes, case.weight);
        }
        Ok(())
    });
}

/// Written and read back it is the same loss; nothing given is the default; unknown fields and a `loss_weight` that is
/// no number are refused.
pub(crate) fn configuration<const K: usize, L: Lawful<K>>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law("configuration", losses, takes, CASES, |loss, _| {
        let text = serde_json::to_string(loss).expect("text");
        assert_eq!(&serde_json::from_str::<L>(&text).expect("the loss"), loss);
        let options = serde_json::to_value(loss).expect("options");
        let mut unknown = options.clone();
        unknown["loss_wieght"] = 1.0.into();
        let error = serde_json::from_value::<L>(unknown).expect_err("a misspelt field").to_string();
        assert!(error.contains("unknown field `loss_wieght`"), "{error}");
        for number in ["\"one\"", "1e999"] {
            let text = format!("{{\"loss_weight\": {number}}}");
            assert!(serde_json::from_str::<L>(&text).is_err(), "{text}");
        }
        // A configuration that names nothing but what it must: where they exist, the mean, not by sample.
        let least: serde_json::Map<String, Value> =
            takes.required.iter().map(|&field| (field.to_owned(), options[field].clone())).collect();
        let default: L = serde_json::from_value(least.into()).expect("defaults");
        assert!(option(&default, "reduction").is_none_or(|reduction| reduction == "mean"));
        assert!(option(&default, "sample_wise").is_none_or(|on| on == Value::Bool(false)));
        for &field in takes.required {
            let mut missing = options.clone();
            missing.as_object_mut().and_then(|options| options.remove(field)).expect("a required field");
            let error = serde_json::from_value::<L>(missing).expect_err("a missing field").to_string();
            assert!(error.contains(&format!("missing field `{field}`")), "{error}");
        }
        Ok(())
    });
}
