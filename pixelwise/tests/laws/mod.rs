//! The laws that every loss keeps, each called by one line per loss over instances with drawn options.
//!
//! [`pointwise`] holds a pointwise loss to all of them; [`general`] holds any loss to those that ask for no map.
//! Inputs are drawn from a grid (eighths; for the last input odd multiples of 1/128), on which differences of inputs
//! are exact and are never 0 nor at a kink that lies on a multiple of 1/64.

mod plain;

use std::fmt::Debug;

use image_losses_autograd::{AgTensor, Element, run};
use image_losses_core::gradcheck::{STEP, check_gradient};
use image_losses_core::kernels::Array;
use image_losses_core::{Differentiable, Error, Loss, PointwiseLoss, Reduction, Result, Scalar, Tensor};
use image_losses_ndarray::NdTensor;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use plain::Plain;

/// Cases drawn per law.
const CASES: u32 = 64;
/// Relative error allowed between double-precision results that differ in order of summation.
const CLOSE: f64 = 1e-12;
/// Relative error allowed for a central difference. Its truncation is (h/d)² for a logarithm or a power of the
/// difference d: with d from 1/128 and h up to 1.4e-5, 3e-6.
const DIFFERENCE: f64 = 1e-5;
/// Relative error allowed between single and double precision.
const SINGLE: f64 = 2e-5;

/// What a loss must be for its laws to be checked: configurable, comparable, movable between threads.
pub(crate) trait Configured:
    Serialize + DeserializeOwned + PartialEq + Debug + Clone + Send + Sync + 'static
{
}
impl<L: Serialize + DeserializeOwned + PartialEq + Debug + Clone + Send + Sync + 'static> Configured for L {}

/// What a loss takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takes<const K: usize> {
    /// The inputs' names, in order.
    pub(crate) names: [&'static str; K],
    /// Which inputs have one channel.
    pub(crate) per_pixel: [bool; K],
    /// It takes a weight.
    pub(crate) weight: bool,
    /// The number of axes: any from 2 to 5, or 4.
    pub(crate) image: bool,
    /// The number of channels, if it is fixed.
    pub(crate) channels: Option<usize>,
    /// The value comes from a map of the inputs' shape by `reduction`.
    pub(crate) map: bool,
    /// It has second derivatives on the grid.
    pub(crate) smooth: bool,
    /// The last input lies above all others: for a loss of sums of differences, which could cancel to nearly nothing
    /// under a logarithm.
    pub(crate) apart: bool,
}

/// Inputs, weight and options of a case.
#[derive(Clone, Debug)]
struct Case<const K: usize> {
    shape: Vec<usize>,
    shapes: [Vec<usize>; K],
    inputs: [Vec<f64>; K],
    weight: Option<(Vec<f64>, Vec<usize>)>,
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// A shape with one channel.
fn per_pixel(shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape[1] = 1;
    shape
}

fn cases<const K: usize>(takes: Takes<K>) -> impl Strategy<Value = Case<K>> {
    let rank = if takes.image { 4..5usize } else { 2..6usize };
    let shapes = rank.prop_flat_map(|rank| prop::collection::vec(1..4usize, rank)).prop_map(move |mut shape| {
        shape[1] = takes.channels.unwrap_or(shape[1]);
        shape
    });
    (shapes, 0..3u8).prop_flat_map(move |(shape, weighted)| {
        let shapes = takes.per_pixel.map(|one| if one { per_pixel(&shape) } else { shape.clone() });
        let inputs: Vec<_> = shapes
            .iter()
            .enumerate()
            .map(|(k, shape)| {
                let last = k + 1 == K;
                let above = if takes.apart { 5.0 } else { 0.0 };
                let values = (-16..=16i32).prop_map(move |v| {
                    if last { above + f64::from(8 * v + 1) / 64.0 + 1.0 / 128.0 } else { f64::from(v) / 8.0 }
                });
                prop::collection::vec(values, count(shape))
            })
            .collect();
        let weight_shape = match (takes.weight, weighted) {
            (true, 1) => Some(per_pixel(&shape)),
            (true, 2) => Some(shape.clone()),
            _ => None,
        };
        let weight = weight_shape.map_or(Just(None).boxed(), |shape| {
            let values = prop_oneof![1 => Just(0.0), 4 => (0..=8u8).prop_map(|v| f64::from(v) / 4.0)];
            prop::collection::vec(values, count(&shape)).prop_map(move |v| Some((v, shape.clone()))).boxed()
        });
        (Just(shape), Just(shapes), inputs, weight).prop_map(|(shape, shapes, inputs, weight)| {
            let inputs = inputs.try_into().expect("K inputs");
            Case { shape, shapes, inputs, weight }
        })
    })
}

/// Runs a law over drawn losses and cases.
fn law<L: Debug, const K: usize>(
    losses: impl Strategy<Value = L>,
    takes: Takes<K>,
    cases_per_law: u32,
    law: impl Fn(&L, &Case<K>) -> Result<()>,
) {
    let config = Config { cases: cases_per_law, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&(losses, cases(takes)), |(loss, case)| {
        law(&loss, &case).expect("a loss refuses nothing that fits");
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The same loss with other values in its configuration; fields it does not have are left alone.
fn with<L: Configured>(loss: &L, changes: &[(&str, Value)]) -> L {
    let mut options = serde_json::to_value(loss).unwrap();
    for (field, value) in changes {
        if let Some(slot) = options.get_mut(field) {
            *slot = value.clone();
        }
    }
    serde_json::from_value(options).unwrap()
}

fn option(loss: &impl Configured, field: &str) -> Option<Value> {
    serde_json::to_value(loss).unwrap().get(field).cloned()
}

/// The loss on the ndarray engine.
fn value<const K: usize, F: Scalar>(loss: &impl Loss<K>, case: &Case<K>) -> Result<Vec<f64>> {
    let tensor = |values: &[f64], shape: &[usize]| NdTensor::<F>::constant(&(), values, shape);
    let mut inputs = Vec::new();
    for (values, shape) in case.inputs.iter().zip(&case.shapes) {
        inputs.push(tensor(values, shape)?);
    }
    let weight = case.weight.as_ref().map(|(values, shape)| tensor(values, shape)).transpose()?;
    let out = loss.forward(std::array::from_fn(|k| &inputs[k]), weight.as_ref())?;
    Ok(out.array().iter().map(|v| v.to_f64()).collect())
}

/// The loss on an engine with nothing but the required methods.
fn plain_value<const K: usize>(loss: &impl Loss<K>, case: &Case<K>) -> Result<Vec<f64>> {
    let inputs: [Plain; K] = std::array::from_fn(|k| Plain::new(&case.inputs[k], &case.shapes[k]));
    let weight = case.weight.as_ref().map(|(values, shape)| Plain::new(values, shape));
    Ok(loss.forward(std::array::from_fn(|k| &inputs[k]), weight.as_ref())?.values())
}

/// Zeros where an input has no influence.
fn or_zero<'g, F: Element>(
    gradients: Vec<Option<AgTensor<'g, F>>>,
    inputs: &[AgTensor<'g, F>],
) -> Result<Vec<AgTensor<'g, F>>> {
    let zeros = |input: &AgTensor<'g, F>| input.affine(0.0, 0.0);
    gradients.into_iter().zip(inputs).map(|(gradient, input)| gradient.map_or_else(|| zeros(input), Ok)).collect()
}

/// Value, gradients, and with `direction` the gradients of Σ direction·gradient; all on autograd.
type Derived = (Vec<f64>, Vec<Vec<f64>>, Vec<Vec<f64>>);

fn derived<const K: usize, F: Element>(
    loss: &impl Loss<K>,
    case: &Case<K>,
    direction: Option<&[Vec<f64>]>,
) -> Result<Derived> {
    let convert = |values: &[f64]| values.iter().map(|&v| F::from_f64(v)).collect::<Vec<F>>();
    run(|session| {
        let mut inputs = Vec::new();
        for (values, shape) in case.inputs.iter().zip(&case.shapes) {
            inputs.push(session.input(convert(values), shape)?);
        }
        let weight = case.weight.as_ref().map(|(values, shape)| session.input(convert(values), shape)).transpose()?;
        let wanted: Vec<&AgTensor<'_, F>> = inputs.iter().collect();
        let value = loss.forward(std::array::from_fn(|k| &inputs[k]), weight.as_ref())?;
        let first = or_zero(Differentiable::gradients(&value, &wanted, true)?, &inputs)?;
        let mut second = Vec::new();
        if let Some(direction) = direction {
            let mut along = inputs[0].affine(0.0, 0.0)?.sum_all()?;
            for ((gradient, direction), shape) in first.iter().zip(direction).zip(&case.shapes) {
                let direction = AgTensor::constant(&gradient.context(), direction, shape)?;
                along = along.add(&gradient.mul(&direction)?.sum_all()?.reshape(&along.shape())?)?;
            }
            second = or_zero(Differentiable::gradients(&along, &wanted, false)?, &inputs)?;
        }
        let asked: Vec<_> = [&value].into_iter().chain(&first).chain(&second).collect();
        let mut results = session
            .evaluate(&asked)?
            .into_iter()
            .map(|values| values.into_iter().map(Scalar::to_f64).collect::<Vec<f64>>());
        let value = results.next().unwrap();
        let gradients = results.by_ref().take(K).collect();
        Ok((value, gradients, results.collect()))
    })
}

/// Value and gradients in one fused pass.
fn fused<const K: usize, F: Scalar>(loss: &impl PointwiseLoss<K>, case: &Case<K>) -> Result<(f64, Vec<Vec<f64>>)> {
    let convert = |values: &[f64]| values.iter().map(|&v| F::from_f64(v)).collect::<Vec<F>>();
    let inputs: [Vec<F>; K] = std::array::from_fn(|k| convert(&case.inputs[k]));
    let arrays = std::array::from_fn(|k| Array { shape: &case.shapes[k], data: &inputs[k] });
    let weight = case.weight.as_ref().map(|(values, shape)| (convert(values), shape));
    let weight = weight.as_ref().map(|(data, shape)| Array { shape, data });
    let (value, gradients) = loss.value_and_gradients(arrays, weight, [true; K])?;
    let gradients =
        gradients.into_iter().map(|g| g.unwrap().into_iter().map(Scalar::to_f64).collect()).collect::<Vec<_>>();
    Ok((value.to_f64(), gradients))
}

#[track_caller]
fn assert_close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1.0f64, |scale, v| scale.max(v.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= tolerance * scale, "got {got}, expected {expected} within {tolerance}");
    }
}

/// Every law of a pointwise loss. `hand` gives points with the map's value there, before `loss_weight`; the first is of
/// a perfect prediction.
pub(crate) fn pointwise<const K: usize, L: PointwiseLoss<K> + Configured>(
    losses: impl Strategy<Value = L> + Clone,
    hand: impl Fn(&L) -> Vec<([f64; K], f64)>,
) {
    let takes = Takes {
        names: L::INPUTS.map(|input| input.name),
        per_pixel: L::INPUTS.map(|input| input.per_pixel),
        weight: true,
        image: false,
        channels: None,
        map: true,
        smooth: true,
        apart: false,
    };
    law(losses.clone(), takes, CASES, |loss, _| {
        let sum = with(loss, &[("reduction", "sum".into())]);
        let points = hand(loss);
        assert!(points.len() >= 2, "a perfect prediction and another point");
        for (point, map) in points {
            let case = Case {
                shape: vec![1, 1],
                shapes: [const { Vec::new() }; K].map(|_: Vec<usize>| vec![1, 1]),
                inputs: point.map(|v| vec![v]),
                weight: None,
            };
            assert_close(&value::<K, f64>(&sum, &case)?, &[loss.reducer().loss_weight * map], CLOSE);
        }
        Ok(())
    });
    // One fused pass, the graph, and ndarray's values are the same.
    law(losses.clone(), takes, CASES, |loss, case| {
        if loss.reducer().reduction == Reduction::None {
            let refused = fused::<K, f64>(loss, case).unwrap_err();
            assert!(matches!(refused, Error::InvalidOption { option: "reduction", .. }), "{refused}");
            return Ok(());
        }
        let (value, gradients, _) = derived::<K, f64>(loss, case, None)?;
        let (fused_value, fused_gradients) = fused::<K, f64>(loss, case)?;
        assert_close(&[fused_value], &value, CLOSE);
        let single = fused::<K, f32>(loss, case)?;
        assert_close(&[single.0], &value, SINGLE);
        for k in 0..K {
            assert_close(&fused_gradients[k], &gradients[k], CLOSE);
            assert_close(&single.1[k], &gradients[k], SINGLE);
        }
        Ok(())
    });
    fused_extremes(losses.clone(), takes);
    fused_shapes(losses.clone(), takes);
    general(losses, takes);
}

/// Every law that any loss keeps.
pub(crate) fn general<const K: usize, L: Loss<K> + Configured>(
    losses: impl Strategy<Value = L> + Clone,
    takes: Takes<K>,
) {
    engines(losses.clone(), takes);
    gradients(losses.clone(), takes);
    scaling(losses.clone(), takes);
    permutation(losses.clone(), takes);
    if takes.map {
        reductions(losses.clone(), takes);
    }
    if takes.weight {
        masks(losses.clone(), takes);
    }
    extremes(losses.clone(), takes);
    not_a_number(losses.clone(), takes);
    shapes(losses.clone(), takes);
    configuration(losses, takes);
}

/// The same value on every engine and in both precisions: fused form = composed form.
fn engines<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES, |loss, case| {
        let expected = value::<K, f64>(loss, case)?;
        assert!(expected.iter().all(|v| v.is_finite()));
        assert_close(&plain_value(loss, case)?, &expected, CLOSE);
        assert_close(&derived::<K, f64>(loss, case, None)?.0, &expected, CLOSE);
        assert_close(&value::<K, f32>(loss, case)?, &expected, SINGLE);
        let (single, gradients, _) = derived::<K, f32>(loss, case, None)?;
        assert_close(&single, &expected, SINGLE);
        for (single, double) in gradients.iter().zip(derived::<K, f64>(loss, case, None)?.1) {
            assert_close(single, &double, SINGLE);
        }
        Ok(())
    });
}

/// Gradients, and gradients of gradients, against central differences.
fn gradients<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES / 4, |loss, case| {
        let moved = |inputs: &[Vec<f64>]| Case { inputs: inputs.to_vec().try_into().unwrap(), ..case.clone() };
        let total = |inputs: &[Vec<f64>]| Ok(value::<K, f64>(loss, &moved(inputs))?.iter().sum());
        let worst =
            check_gradient(&case.inputs, STEP, total, |inputs| Ok(derived::<K, f64>(loss, &moved(inputs), None)?.1))?;
        assert!(worst.is_some_and(|worst| worst.error < DIFFERENCE), "{worst:?}");
        if !takes.smooth {
            return Ok(());
        }
        // A direction without symmetry: the second derivative is that of one number.
        let direction: Vec<Vec<f64>> = case
            .inputs
            .iter()
            .enumerate()
            .map(|(k, input)| (0..input.len()).map(|i| ((3 * k + 5 * i) % 7) as f64 / 4.0 - 0.7).collect())
            .collect();
        let along = |inputs: &[Vec<f64>]| {
            let gradients = derived::<K, f64>(loss, &moved(inputs), None)?.1;
            let products = gradients.iter().flatten().zip(direction.iter().flatten()).map(|(g, d)| g * d);
            Ok(products.sum())
        };
        let second = |inputs: &[Vec<f64>]| Ok(derived::<K, f64>(loss, &moved(inputs), Some(&direction))?.2);
        let worst = check_gradient(&case.inputs, STEP, along, second)?;
        assert!(worst.is_some_and(|worst| worst.error < DIFFERENCE), "second: {worst:?}");
        Ok(())
    });
}

/// `loss_weight` multiplies the result.
fn scaling<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES, |loss, case| {
        let one = value::<K, f64>(&with(loss, &[("loss_weight", 1.0.into())]), case)?;
        for factor in [-2.5, 0.0, 7.0] {
            let scaled = value::<K, f64>(&with(loss, &[("loss_weight", factor.into())]), case)?;
            assert_close(&scaled, &one.iter().map(|v| factor * v).collect::<Vec<_>>(), CLOSE);
        }
        Ok(())
    });
}

/// The order of the samples changes no number, only the order of a result per sample.
fn permutation<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES, |loss, case| {
        let samples = case.shape[0];
        let reversed =
            |values: &[f64]| values.chunks(values.len() / samples).rev().flatten().copied().collect::<Vec<f64>>();
        let turned = Case {
            inputs: std::array::from_fn(|k| reversed(&case.inputs[k])),
            weight: case.weight.as_ref().map(|(values, shape)| (reversed(values), shape.clone())),
            ..case.clone()
        };
        let before = value::<K, f64>(loss, case)?;
        let after = value::<K, f64>(loss, &turned)?;
        let expected = if before.len() == 1 { before } else { reversed(&before) };
        assert_close(&after, &expected, CLOSE);
        Ok(())
    });
}

/// None, mean and sum, with and without a weight, from the map itself.
fn reductions<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES, |loss, case| {
        let reduced = |reduction: &str, sample_wise: bool, case: &Case<K>| {
            let changes = [("reduction", reduction.into()), ("sample_wise", sample_wise.into())];
            value::<K, f64>(&with(loss, &changes), case)
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
fn masks<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES, |loss, case| {
        let shape = case.weight.as_ref().map_or_else(|| per_pixel(&case.shape), |(_, shape)| shape.clone());
        let masked = |weight: Option<Vec<f64>>| Case { weight: weight.map(|w| (w, shape.clone())), ..case.clone() };
        let ones = value::<K, f64>(loss, &masked(Some(vec![1.0; count(&shape)])))?;
        assert_close(&ones, &value::<K, f64>(loss, &masked(None))?, 2e-12);

        let sample = count(&shape[1..]);
        let same: Vec<f64> = (0..count(&shape)).map(|i| 0.25 + (i % sample) as f64).collect();
        let sample_wise =
            |on: bool| value::<K, f64>(&with(loss, &[("sample_wise", on.into())]), &masked(Some(same.clone())));
        assert_close(&sample_wise(true)?, &sample_wise(false)?, 1e-11);

        let empty = masked(Some(vec![0.0; count(&shape)]));
        for (value, gradients, _) in [derived::<K, f64>(loss, &empty, None)?, derived::<K, f32>(loss, &empty, None)?] {
            assert!(value.iter().all(|&v| v == 0.0), "{value:?}");
            assert!(gradients.iter().flatten().all(|&g| g == 0.0), "{gradients:?}");
        }
        assert!(value::<K, f64>(loss, &empty)?.iter().all(|&v| v == 0.0));
        assert!(value::<K, f32>(loss, &empty)?.iter().all(|&v| v == 0.0));
        Ok(())
    });
}

/// The numbers where a derivative is most likely to be none: equal inputs, 0, denormals, huge ones. Inputs with one
/// channel (an α) stay in [0, 1]; with them a gradient is a product of two others, so that huge is less.
fn hard_cases<const K: usize>(takes: Takes<K>, case: &Case<K>, single: bool) -> Vec<Case<K>> {
    let huge = if single && takes.per_pixel.contains(&true) { 1e15 } else { 1e30 };
    let denormal = if single { 1e-40 } else { 1e-310 };
    let mut hard = Vec::new();
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

/// The gradient is finite at zero difference, at ±1e30 and for denormals.
fn extremes<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES / 4, |loss, case| {
        // Not 0, which times infinity is no number.
        let loss = &with(loss, &[("loss_weight", 1.5.into())]);
        for hard in hard_cases(takes, case, false) {
            let (value, gradients, _) = derived::<K, f64>(loss, &hard, None)?;
            assert!(value.iter().all(|v| v.is_finite()), "{value:?} at {hard:?}");
            assert!(gradients.iter().flatten().all(|g| g.is_finite()), "{gradients:?} at {hard:?}");
        }
        for hard in hard_cases(takes, case, true) {
            // The value may overflow in single precision, as a square of 1e30 does (and then a weight of 0 makes it no
            // number); the gradient must not.
            let (value, gradients, _) = derived::<K, f32>(loss, &hard, None)?;
            assert!(hard.weight.is_some() || value.iter().all(|v| !v.is_nan()), "{value:?} at {hard:?}");
            assert!(gradients.iter().flatten().all(|g| g.is_finite()), "{gradients:?} at {hard:?}");
        }
        Ok(())
    });
}

fn fused_extremes<const K: usize, L: PointwiseLoss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES / 4, |loss, case| {
        let loss = &with(loss, &[("reduction", "mean".into())]);
        for hard in hard_cases(takes, case, false) {
            let gradients = fused::<K, f64>(loss, &hard)?.1;
            assert!(gradients.iter().flatten().all(|g| g.is_finite()), "{gradients:?} at {hard:?}");
        }
        for hard in hard_cases(takes, case, true) {
            let gradients = fused::<K, f32>(loss, &hard)?.1;
            assert!(gradients.iter().flatten().all(|g| g.is_finite()), "{gradients:?} at {hard:?}");
        }
        Ok(())
    });
}

/// What is no number in an input is no number in the value, on every engine.
fn not_a_number<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES, |loss, case| {
        for k in 0..K {
            let mut broken = Case { weight: None, ..case.clone() };
            let last = broken.inputs[k].len() - 1;
            broken.inputs[k][last] = f64::NAN;
            let values = [
                value::<K, f64>(loss, &broken)?,
                value::<K, f32>(loss, &broken)?,
                plain_value(loss, &broken)?,
                derived::<K, f64>(loss, &broken, None)?.0,
            ];
            for value in values {
                assert!(value.iter().any(|v| v.is_nan()), "{value:?} at {broken:?}");
            }
        }
        Ok(())
    });
}

/// Cases that must be refused, each with what to expect.
#[allow(clippy::type_complexity)]
fn misfits<const K: usize>(takes: Takes<K>) -> Vec<(Case<K>, Box<dyn Fn(&Error) -> bool>)> {
    let c = takes.channels.unwrap_or(3);
    let fitting = |shape: &[usize]| {
        let shapes = takes.per_pixel.map(|one| if one { per_pixel(shape) } else { shape.to_vec() });
        Case { shape: shape.to_vec(), inputs: shapes.clone().map(|s| vec![0.5; count(&s)]), shapes, weight: None }
    };
    let mut misfits: Vec<(Case<K>, Box<dyn Fn(&Error) -> bool>)> = Vec::new();
    for k in 0..K {
        // One input in another shape, rank or size. The first full input says what the others must be.
        let name = takes.names[k];
        let leads = takes.per_pixel.iter().position(|one| !one) == Some(k);
        for shape in [vec![2, c, 4, 6], vec![2, c, 5, 1], vec![1, c, 4, 5]] {
            let mut case = fitting(&[2, c, 4, 5]);
            case.inputs[k] = vec![0.5; count(&shape)];
            case.shapes[k] = shape;
            if K > 1 {
                misfits.push((
                    case,
                    Box::new(move |error| {
                        matches!(error, Error::ShapeMismatch { argument, .. } if *argument == name || leads)
                    }),
                ));
            }
        }
    }
    let rank_one = Case {
        shape: vec![4],
        shapes: std::array::from_fn(|_| vec![4]),
        inputs: std::array::from_fn(|_| vec![0.5; 4]),
        weight: None,
    };
    misfits.push((rank_one, Box::new(|error| matches!(error, Error::ShapeRule { .. }))));
    if takes.image {
        misfits.push((fitting(&[2, c, 4]), Box::new(|error| matches!(error, Error::ShapeRule { .. }))));
        misfits.push((fitting(&[2, c, 1, 4, 4]), Box::new(|error| matches!(error, Error::ShapeRule { .. }))));
    }
    for shape in [[0, c, 4, 5], [2, c, 0, 5], [2, c, 4, 0]] {
        misfits.push((fitting(&shape), Box::new(|error| matches!(error, Error::Empty { .. }))));
    }
    for shape in
        [vec![1, c, 4, 5], vec![2, 2, 4, 5], vec![2, 1, 5, 4], vec![1, 1, 1, 1], vec![2, 1, 4], vec![1], vec![]]
    {
        let weight = vec![1.0; count(&shape)];
        let case = Case { weight: Some((weight, shape)), ..fitting(&[2, c, 4, 5]) };
        let weighted = takes.weight;
        misfits.push((
            case,
            Box::new(move |error| match error {
                Error::WeightShape { .. } => weighted,
                Error::InvalidOption { option, .. } => !weighted && *option == "weight",
                _ => false,
            }),
        ));
    }
    misfits
}

/// Shapes that do not fit are refused by the right variant, on every engine.
fn shapes<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    let misfits = misfits(takes);
    law(losses, takes, 4, |loss, _| {
        for (case, expected) in &misfits {
            let errors = [
                value::<K, f64>(loss, case).unwrap_err(),
                derived::<K, f64>(loss, case, None).unwrap_err(),
                plain_value(loss, case).unwrap_err(),
            ];
            for error in errors {
                assert!(expected(&error), "{error:?} for {:?} and weight {:?}", case.shapes, case.weight);
            }
        }
        Ok(())
    });
}

fn fused_shapes<const K: usize, L: PointwiseLoss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    let misfits = misfits(takes);
    law(losses, takes, 4, |loss, _| {
        let loss = &with(loss, &[("reduction", "sum".into())]);
        for (case, expected) in &misfits {
            let error = fused::<K, f64>(loss, case).unwrap_err();
            assert!(expected(&error), "{error:?} for {:?} and weight {:?}", case.shapes, case.weight);
        }
        Ok(())
    });
}

/// Written and read back it is the same loss; nothing given is the default; unknown fields and a `loss_weight` that is
/// no number are refused.
fn configuration<const K: usize, L: Loss<K> + Configured>(losses: impl Strategy<Value = L>, takes: Takes<K>) {
    law(losses, takes, CASES, |loss, _| {
        let text = serde_json::to_string(loss).unwrap();
        assert_eq!(&serde_json::from_str::<L>(&text).unwrap(), loss);
        let mut options = serde_json::to_value(loss).unwrap();
        options["loss_wieght"] = 1.0.into();
        let error = serde_json::from_value::<L>(options).unwrap_err().to_string();
        assert!(error.contains("unknown field `loss_wieght`"), "{error}");
        // A configuration that names no option is the default: λ = 1 and, where there is one, the mean.
        let default: L = serde_json::from_str("{}").unwrap();
        assert_eq!(option(&default, "loss_weight"), Some(1.0.into()));
        assert!(option(&default, "reduction").is_none_or(|reduction| reduction == "mean"));
        assert!(option(&default, "sample_wise").is_none_or(|on| on == Value::Bool(false)));
        Ok(())
    });
}
