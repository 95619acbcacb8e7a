//! The reductions against a naive implementation, on the CPU engines.
//!
//! A reduced loss is linear in its map: L = Σ cᵢ·dᵢ. The coefficients c are written down here once more, by loops over
//! samples, channels and pixels; value and gradients must be those of that sum.

use image_losses_autograd::{Element, Values, differentiate, run};
use image_losses_core::gradcheck::{STEP, check_gradient};
use image_losses_core::kernels::Array;
use image_losses_core::{
    Declared, Differentiable, Error, Expr, Function, Input, Loss, Pointwise, PointwiseLoss, Reducer, Reduction, Result,
    Scalar, Tensor, finite, not_negative, positive, weighted_mean,
};
use image_losses_laws::drawn;
use image_losses_ndarray::NdTensor;
use proptest::prelude::*;

/// α·(x − y)², α per pixel.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    reducer: Reducer,
}

impl Declared for Scaled {
    const NAME: &'static str = "Scaled";
}

impl Pointwise<3> for Scaled {
    fn value<'e>(&self, [alpha, x, y]: [Expr<'e>; 3]) -> Expr<'e> {
        alpha * (x - y).square()
    }
}

impl PointwiseLoss<3> for Scaled {
    const INPUTS: [Input; 3] = [Input::per_pixel("alpha"), Input::full("x"), Input::full("y")];
    fn reducer(&self) -> Reducer {
        self.reducer
    }
}

/// Which weight comes with a case.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weight {
    None,
    PerPixel,
    PerElement,
}

#[derive(Clone, Debug)]
struct Case {
    shape: Vec<usize>,
    alpha: Vec<f64>,
    x: Vec<f64>,
    y: Vec<f64>,
    weight: Option<(Vec<f64>, Vec<usize>)>,
    reducer: Reducer,
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn one_channel(shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape[1] = 1;
    shape
}

impl Case {
    /// Numbers that repeat at no power of two.
    fn new(shape: &[usize], weight: Weight, reducer: Reducer, seed: usize) -> Self {
        let values = |count: usize, step: usize, from: f64| {
            (0..count).map(|i| from + ((i * step + seed) % 101) as f64 / 50.0).collect::<Vec<f64>>()
        };
        let weight = match weight {
            Weight::None => None,
            Weight::PerPixel => Some(one_channel(shape)),
            Weight::PerElement => Some(shape.to_vec()),
        };
        Case {
            shape: shape.to_vec(),
            alpha: values(count(&one_channel(shape)), 13, 0.0),
            x: values(count(shape), 37, -1.0),
            y: values(count(shape), 59, -1.0),
            // Every fifth weight or so is 0.
            weight: weight.map(|shape| (values(count(&shape), 71, -0.4).iter().map(|w| w.max(0.0)).collect(), shape)),
            reducer,
        }
    }

    /// Position of element `i` of the full shape in a tensor with one channel.
    fn pixel(&self, i: usize) -> usize {
        let plane = count(&self.shape[2..]);
        i / (plane * self.shape[1]) * plane + i % plane
    }

    /// cᵢ for every element.
    fn coefficients(&self) -> Vec<f64> {
        let Reducer { loss_weight, reduction, sample_wise } = self.reducer;
        let n = count(&self.shape);
        let samples = self.shape[0];
        let w: Vec<f64> = (0..n)
            .map(|i| match &self.weight {
                None => 1.0,
                Some((weight, shape)) if shape == &self.shape => weight[i],
                Some((weight, _)) => weight[self.pixel(i)],
            })
            .collect();
        let over = |w: f64, total: f64| if total == 0.0 { 0.0 } else { w / (total + 1e-12) };
        let scaled = |c: Vec<f64>| c.into_iter().map(|c| loss_weight * c).collect::<Vec<f64>>();
        match (reduction, &self.weight) {
            (Reduction::None | Reduction::Sum, _) => scaled(w),
            (Reduction::Mean, None) => scaled(vec![1.0 / n as f64; n]),
            (Reduction::Mean, Some(_)) if sample_wise => scaled(
                w.chunks(n / samples)
                    .flat_map(|w| {
                        let total: f64 = w.iter().sum();
                        w.iter().map(move |&w| over(w, total) / samples as f64).collect::<Vec<_>>()
                    })
                    .collect(),
            ),
            (Reduction::Mean, Some(_)) => {
                let total: f64 = w.iter().sum();
                scaled(w.iter().map(|&w| over(w, total)).collect())
            }
        }
    }

    /// The value, and the gradients of its sum by α, x and y.
    fn expected(&self) -> (Vec<f64>, [Vec<f64>; 3]) {
        let c = self.coefficients();
        let n = count(&self.shape);
        let d = |i: usize| self.x[i] - self.y[i];
        let map: Vec<f64> = (0..n).map(|i| c[i] * self.alpha[self.pixel(i)] * d(i) * d(i)).collect();
        let mut alpha = vec![0.0; self.alpha.len()];
        for i in 0..n {
            alpha[self.pixel(i)] += c[i] * d(i) * d(i);
        }
        let x: Vec<f64> = (0..n).map(|i| c[i] * self.alpha[self.pixel(i)] * 2.0 * d(i)).collect();
        let y = x.iter().map(|v| -v).collect();
        let value = if self.reducer.reduction == Reduction::None { map } else { vec![map.iter().sum()] };
        (value, [alpha, x, y])
    }

    fn inputs<F: Scalar>(&self) -> [(Vec<F>, Vec<usize>); 3] {
        let convert = |values: &[f64]| values.iter().map(|&v| F::from_f64(v)).collect();
        let full = || self.shape.clone();
        [(convert(&self.alpha), one_channel(&self.shape)), (convert(&self.x), full()), (convert(&self.y), full())]
    }

    /// Holds ndarray, autograd and the fused pass to `expected`.
    fn hold<F: Element>(&self, tolerance: f64) -> Result<()> {
        let loss = Scaled { reducer: self.reducer };
        let (value, gradients) = self.expected();
        let close = |got: &[F], expected: &[f64], what: &str| {
            assert_eq!(got.len(), expected.len(), "{what}");
            let scale = expected.iter().fold(1.0f64, |scale, v| scale.max(v.abs()));
            for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
                let error = (image_losses_core::Element::to_f64(*got) - expected).abs();
                assert!(error <= tolerance * scale, "{what} {i}: got {got}, expected {expected}; {self:?}");
            }
        };
        let inputs = self.inputs::<F>();
        let weight: Option<Values<F>> =
            self.weight.as_ref().map(|(w, shape)| (w.iter().map(|&w| F::from_f64(w)).collect(), shape.clone()));

        let nd: Vec<NdTensor<'_, F>> =
            inputs.iter().chain(&weight).map(|(values, shape)| NdTensor::view(ndarray_view(values, shape))).collect();
        let out = loss.forward([&nd[0], &nd[1], &nd[2]], nd.get(3))?;
        close(&out.array().iter().copied().collect::<Vec<_>>(), &value, "ndarray value");

        let leaves: Vec<Values<F>> = inputs.iter().chain(&weight).cloned().collect();
        let (got, by_input) = differentiate(&leaves, |t| loss.forward([&t[0], &t[1], &t[2]], t.get(3)))?;
        close(&got, &value, "autograd value");
        for (k, expected) in gradients.iter().enumerate() {
            close(&by_input[k], expected, "autograd gradient");
        }

        let arrays = std::array::from_fn(|k| Array { shape: &inputs[k].1, data: &inputs[k].0 });
        let array = weight.as_ref().map(|(data, shape)| Array { shape, data });
        if self.reducer.reduction == Reduction::None {
            assert!(matches!(
                loss.value_and_gradients(arrays, array, [true; 3]),
                Err(Error::InvalidOption { option: "reduction", .. })
            ));
            return Ok(());
        }
        let (got, by_input) = loss.value_and_gradients(arrays, array, [true; 3])?;
        close(&[got], &value, "fused value");
        for (got, expected) in by_input.iter().zip(&gradients) {
            close(got.as_ref().expect("wanted"), expected, "fused gradient");
        }
        let (_, some) = loss.value_and_gradients(arrays, array, [false, true, false])?;
        assert_eq!(some.map(|gradient| gradient.is_some()), [false, true, false]);
        Ok(())
    }
}

fn ndarray_view<'a, F>(values: &'a [F], shape: &[usize]) -> ndarray::ArrayViewD<'a, F> {
    ndarray::ArrayViewD::from_shape(ndarray::IxDyn(shape), values).expect("values fill the shape")
}

fn reducers() -> impl Strategy<Value = Reducer> {
    let reduction = prop_oneof![Just(Reduction::None), Just(Reduction::Mean), Just(Reduction::Sum)];
    (-3.0..3.0f64, reduction, any::<bool>()).prop_map(|(loss_weight, reduction, sample_wise)| Reducer {
        loss_weight,
        reduction,
        sample_wise,
    })
}

fn weights() -> impl Strategy<Value = Weight> {
    prop_oneof![Just(Weight::None), Just(Weight::PerPixel), Just(Weight::PerElement)]
}

proptest! {
    #![proptest_config(drawn(128))]

    #[test]
    fn drawn_reductions_are_the_naive_ones(
        shape in prop::collection::vec(1..5usize, 2..6),
        weight in weights(),
        reducer in reducers(),
        seed in 0..101usize,
    ) {
        let case = Case::new(&shape, weight, reducer, seed);
        case.hold::<f64>(1e-12).expect("fits");
        case.hold::<f32>(1e-5).expect("fits");
    }

    #[test]
    fn drawn_a_sample_without_weight_is_left_out(
        shape in prop::collection::vec(2..4usize, 2..6),
        weight in prop_oneof![Just(Weight::PerPixel), Just(Weight::PerElement)],
        reducer in reducers(),
        seed in 0..101usize,
    ) {
        // The first sample's weights are all 0; with `sample_wise` it still counts as one of N.
        let mut case = Case::new(&shape, weight, reducer, seed);
        if let Some((weight, weight_shape)) = &mut case.weight {
            let sample = count(&weight_shape[1..]);
            weight[..sample].fill(0.0);
        }
        case.hold::<f64>(1e-12).expect("fits");
        case.hold::<f32>(1e-5).expect("fits");
    }

    #[test]
    fn drawn_the_weight_has_a_gradient_too(
        shape in prop::collection::vec(1..4usize, 2..5),
        weight in prop_oneof![Just(Weight::PerPixel), Just(Weight::PerElement)],
        reducer in reducers(),
        seed in 0..101usize,
    ) {
        let mut case = Case::new(&shape, weight, reducer, seed);
        let (weights, weight_shape) = case.weight.take().expect("weighted");
        // Away from 0, where the sum of weights would divide by nearly nothing.
        let weights: Vec<f64> = weights.iter().map(|w| w + 0.5).collect();
        let loss = Scaled { reducer };
        let derived = |weights: &[Vec<f64>]| {
            let leaves: Vec<Values<f64>> =
                case.inputs().into_iter().chain([(weights[0].clone(), weight_shape.clone())]).collect();
            differentiate(&leaves, |t| loss.forward([&t[0], &t[1], &t[2]], Some(&t[3])))
        };
        let worst = check_gradient(
            &[weights],
            STEP,
            |w| Ok(derived(w)?.0.iter().sum()),
            |w| Ok(vec![derived(w)?.1.remove(3)]),
        ).expect("fits").expect("elements");
        prop_assert!(worst.error < 1e-7, "{worst:?}");
    }

    #[test]
    fn drawn_an_empty_mask_is_exactly_nothing(
        shape in prop::collection::vec(1..4usize, 2..6),
        per_pixel in any::<bool>(),
        reducer in reducers(),
        seed in 0..101usize,
    ) {
        let weight = if per_pixel { Weight::PerPixel } else { Weight::PerElement };
        let mut case = Case::new(&shape, weight, reducer, seed);
        if let Some((weight, _)) = &mut case.weight {
            weight.fill(0.0);
        }
        // No tolerance: exactly 0.
        case.hold::<f64>(0.0).expect("fits");
        case.hold::<f32>(0.0).expect("fits");
    }
}

#[test]
fn large_tensors_are_summed_in_blocks() {
    // Planes beyond one block of 4096, more than 2¹⁵ elements: several threads, ends that are no multiple of anything.
    for weight in [Weight::None, Weight::PerPixel, Weight::PerElement] {
        for sample_wise in [false, true] {
            for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
                let reducer = Reducer { loss_weight: 0.5, reduction, sample_wise };
                for shape in [&[2, 3, 83, 101][..], &[3, 20011], &[40000, 1], &[1, 1, 1, 1, 33333]] {
                    let case = Case::new(shape, weight, reducer, 7);
                    case.hold::<f64>(1e-12).expect("fits");
                    case.hold::<f32>(1e-5).expect("fits");
                }
            }
        }
    }
}

#[test]
fn a_mean_of_many_equal_numbers_is_that_number_in_single_precision() {
    // A running sum in f32 stops growing at 2²⁴.
    let n = (1 << 24) + 999;
    let shape = [1, n];
    let (x, y) = (vec![1.0f32; n], vec![0.0f32; n]);
    let alpha = vec![1.0f32; 1];
    let loss = Scaled { reducer: Reducer::default() };
    let tensors = [(&alpha, &[1, 1][..]), (&x, &shape[..]), (&y, &shape[..])]
        .map(|(values, shape)| NdTensor::view(ndarray_view(values, shape)));
    let value = loss.forward([&tensors[0], &tensors[1], &tensors[2]], None).unwrap().item().unwrap();
    assert_eq!(value, 1.0);
}

#[test]
fn a_weighted_mean_divides_by_the_sum_plus_a_little_and_by_zero_not_at_all() {
    let divide = |sum: f64, total: f64| {
        let one = |v: f64| (vec![v], vec![1]);
        let (value, gradients) = differentiate(&[one(sum), one(total)], |t| weighted_mean(&t[0], &t[1])).unwrap();
        (value[0], gradients[0][0], gradients[1][0])
    };
    assert_eq!(divide(3.0, 0.0), (0.0, 0.0, 0.0));
    assert_eq!(divide(0.0, 0.0), (0.0, 0.0, 0.0));
    let (value, by_sum, by_total) = divide(3.0, 1e-12);
    assert!((value / 1.5e12 - 1.0).abs() < 1e-12 && (by_sum / 5e11 - 1.0).abs() < 1e-12, "{value} {by_sum}");
    assert!((by_total / -7.5e23 - 1.0).abs() < 1e-12, "{by_total}");
    // A sum that has overflowed keeps its own gradient.
    let (value, by_sum, _) = divide(f64::INFINITY, 4.0);
    assert_eq!(value, f64::INFINITY);
    assert!((by_sum - 0.25).abs() < 1e-12);
    // One that has overflowed where nothing counts is still nothing.
    let (value, by_sum, _) = divide(f64::INFINITY, 0.0);
    assert_eq!((value, by_sum), (0.0, 0.0));
    // Sums and totals of several elements.
    let (value, _) = differentiate(&[(vec![2.0, 5.0, 6.0], vec![3]), (vec![4.0, 0.0, 8.0], vec![3])], |t| {
        weighted_mean(&t[0], &t[1])
    })
    .unwrap();
    assert_eq!(value, [2.0 / (4.0 + 1e-12), 0.0, 6.0 / (8.0 + 1e-12)]);
}

#[test]
fn second_derivatives_pass_through_a_weighted_mean() {
    // L = Σ w·α·(x − y)² / Σ w: ∂²L/∂x² = 2·α·w/Σw.
    let case = Case::new(&[2, 2, 3], Weight::PerElement, Reducer { sample_wise: true, ..Reducer::default() }, 11);
    let (weight, weight_shape) = case.weight.clone().expect("weighted");
    let loss = Scaled { reducer: case.reducer };
    let second = run(|session| {
        let t = case.inputs::<f64>().map(|(values, shape)| session.input(values, &shape).unwrap());
        let weight = session.input(weight.clone(), &weight_shape)?;
        let value = loss.forward([&t[0], &t[1], &t[2]], Some(&weight))?;
        let first = Differentiable::gradients(&value, &[&t[1]], true)?.remove(0).expect("reached");
        let second = Differentiable::gradients(&first, &[&t[1]], false)?.remove(0).expect("reached");
        Ok::<_, Error>(session.evaluate(&[&second])?.remove(0))
    })
    .unwrap();
    for (i, (got, c)) in second.iter().zip(case.coefficients()).enumerate() {
        let expected = 2.0 * c * case.alpha[case.pixel(i)];
        assert!((got - expected).abs() < 1e-12, "{i}: got {got}, expected {expected}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let ones = |shape: &[usize]| NdTensor::<f64>::full(&(), 1.0, shape).unwrap();
    let refuse = |shapes: [&[usize]; 3], weight: Option<&[usize]>| {
        let tensors = shapes.map(ones);
        let weight = weight.map(ones);
        let loss = Scaled { reducer: Reducer::default() };
        loss.forward([&tensors[0], &tensors[1], &tensors[2]], weight.as_ref()).map(drop).unwrap_err()
    };
    let full: &[usize] = &[2, 3, 4];
    let pixel: &[usize] = &[2, 1, 4];
    let mismatch = |error: Error, name: &str, shape: &[usize]| match error {
        Error::ShapeMismatch { operation: "Scaled", argument, expected, .. } => {
            assert_eq!((argument, &expected[..]), (name, shape));
        }
        other => panic!("{other:?}"),
    };
    mismatch(refuse([pixel, full, &[2, 3, 5]], None), "y", full);
    mismatch(refuse([pixel, full, &[2, 3, 4, 1]], None), "y", full);
    mismatch(refuse([full, full, full], None), "alpha", pixel);
    mismatch(refuse([&[1, 1, 4], full, full], None), "alpha", pixel);
    for weight in [&[1, 3, 4][..], &[2, 2, 4], &[2, 3, 1], &[2, 3], &[3, 4], &[1], &[]] {
        match refuse([pixel, full, full], Some(weight)) {
            Error::WeightShape { operation: "Scaled", per_pixel, per_element, got } => {
                assert_eq!((&per_pixel[..], &per_element[..], &got[..]), (pixel, full, weight));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(refuse([&[4], &[4], &[4]], None), Error::ShapeRule { argument: "alpha", .. }));
    assert!(matches!(refuse([&[], &[], &[]], None), Error::ShapeRule { .. }));
    for shape in [[0, 3, 4], [2, 3, 0]] {
        assert!(matches!(refuse([&one_channel(&shape), &shape, &shape], None), Error::Empty { .. }));
    }
    assert!(matches!(refuse([&[2, 1, 4], &[2, 0, 4], &[2, 0, 4]], None), Error::Empty { .. }));
    // Names and inputs must be as many.
    let x = ones(full);
    let reduced = Reducer::default().reduce(
        "f",
        &Function::new(Scaled { reducer: Reducer::default() }),
        &[Input::full("x")],
        &[&x, &x],
        None,
    );
    assert!(matches!(reduced, Err(Error::InputCount { operation: "f", expected: 1, got: 2 })));
    let reduced = Reducer::default().reduce(
        "f",
        &Function::new(Scaled { reducer: Reducer::default() }),
        &[Input::full("x")],
        &[&x],
        None,
    );
    assert!(matches!(reduced, Err(Error::InputCount { expected: 3, got: 1, .. })));
}

#[test]
fn option_checks_accept_what_they_say() {
    let accepted = |check: fn(&'static str, &'static str, f64) -> Result<()>| {
        [f64::NEG_INFINITY, -1.0, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN]
            .map(|v| check("Owner", "option", v).is_ok())
    };
    assert_eq!(accepted(finite), [false, true, true, true, true, false, false]);
    assert_eq!(accepted(not_negative), [false, false, true, true, true, false, false]);
    assert_eq!(accepted(positive), [false, false, false, true, true, false, false]);
    let text = positive("Owner", "option", 0.0).unwrap_err().to_string();
    assert_eq!(text, "Owner: `option` must be finite and above 0, got 0");
}

#[test]
fn reductions_are_written_in_lower_case() {
    assert_eq!(Reducer::default(), Reducer { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false });
    for (text, reduction) in [("none", Reduction::None), ("mean", Reduction::Mean), ("sum", Reduction::Sum)] {
        assert_eq!(serde_json::from_value::<Reduction>(text.into()).unwrap(), reduction);
        assert_eq!(serde_json::to_value(reduction).unwrap(), text);
    }
    assert!(serde_json::from_value::<Reduction>("Mean".into()).is_err());
}
