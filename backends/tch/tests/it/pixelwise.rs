//! The pixelwise and composition losses on libtorch: the same numbers as on autograd, half precision, `backward()`.

use image_losses_autograd::{Values, differentiate};
use image_losses_composition::*;
use image_losses_core::{DType, Error, Loss, PointwiseLoss, Reduction, Tensor};
use image_losses_pixelwise::*;
use image_losses_tch::{TchLoss, TchTensor};
use tch::{Device, Kind};

const REDUCTIONS: [Reduction; 3] = [Reduction::None, Reduction::Mean, Reduction::Sum];

/// Relative errors allowed, per element type: of a value, of a gradient.
///
/// In half precision a value is rounded once at the end (2⁻¹¹, 2⁻⁸); a map (`none`) and its gradient are computed in
/// half precision, a handful of roundings.
fn tolerance(kind: Kind, reduced: bool) -> (f64, f64) {
    match (kind, reduced) {
        (Kind::Double, _) => (1e-12, 1e-12),
        (Kind::Float, _) => (2e-6, 2e-6),
        (Kind::Half, true) => (5e-4, 1e-3),
        (Kind::Half, false) => (2e-3, 2e-3),
        (_, true) => (4e-3, 8e-3),
        (_, false) => (1.6e-2, 1.6e-2),
    }
}

/// Numbers that every element type holds exactly; differences are never 0.
fn numbers(shape: &[usize], step: usize, offset: f64) -> Values<f64> {
    let count = shape.iter().product();
    ((0..count).map(|i| ((i * step) % 17) as f64 / 8.0 - 1.0 + offset).collect(), shape.to_vec())
}

/// Quarters from 0 to 2.
fn weights(shape: &[usize]) -> Values<f64> {
    let count = shape.iter().product();
    ((0..count).map(|i| ((i * 7) % 9) as f64 / 4.0).collect(), shape.to_vec())
}

fn tensor((values, shape): &Values<f64>, kind: Kind) -> tch::Tensor {
    let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
    tch::Tensor::from_slice(values).reshape(shape).to_kind(kind)
}

fn numbers_of(tensor: &tch::Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).reshape([-1])).unwrap()
}

#[track_caller]
fn close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(f64::MIN_POSITIVE, |scale, v| scale.max(v.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= tolerance * scale, "{what}: got {got}, expected {expected}");
    }
}

/// Value and `backward()` gradients in every element type against autograd in double precision.
fn compare<const K: usize>(loss: &impl Loss<K>, inputs: &[Values<f64>; K], weight: Option<&Values<f64>>) {
    let leaves: Vec<Values<f64>> = inputs.iter().chain(weight).cloned().collect();
    let (value, gradients) =
        differentiate(&leaves, |t| loss.forward(std::array::from_fn(|k| &t[k]), t.get(K))).unwrap();
    for kind in [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16] {
        let tensors: [tch::Tensor; K] = std::array::from_fn(|k| tensor(&inputs[k], kind).set_requires_grad(true));
        let weight = weight.map(|weight| tensor(weight, kind));
        let got = loss.call(std::array::from_fn(|k| &tensors[k]), weight.as_ref()).unwrap();
        assert_eq!(got.kind(), kind, "the result has the inputs' element type");
        let (of_value, of_gradient) = tolerance(kind, value.len() == 1);
        close(&numbers_of(&got), &value, of_value, &format!("{kind:?} value"));
        got.sum(None::<Kind>).backward();
        for (k, tensor) in tensors.iter().enumerate() {
            assert_eq!(tensor.grad().kind(), kind);
            close(&numbers_of(&tensor.grad()), &gradients[k], of_gradient, &format!("{kind:?} gradient {k}"));
        }
    }
}

/// A pointwise loss without weight, with one per pixel and with one per element; on images and on matrices.
fn compare_pointwise<const K: usize, L: PointwiseLoss<K>>(loss: &L) {
    for shape in [&[2, 3, 4, 5][..], &[3, 7], &[1, 2, 3]] {
        let mut one = shape.to_vec();
        one[1] = 1;
        let inputs: [Values<f64>; K] = std::array::from_fn(|k| {
            let shape = if L::INPUTS[k].per_pixel { &one } else { shape };
            numbers(shape, 3 + 2 * k, if k + 1 == K { 0.0625 } else { 0.0 })
        });
        compare(loss, &inputs, None);
        compare(loss, &inputs, Some(&weights(&one)));
        compare(loss, &inputs, Some(&weights(shape)));
    }
}

#[test]
fn pointwise_losses_are_the_same() {
    for reduction in REDUCTIONS {
        for sample_wise in [false, true] {
            let loss_weight = 0.75;
            compare_pointwise(&L1Loss { loss_weight, reduction, sample_wise });
            compare_pointwise(&MseLoss { loss_weight, reduction, sample_wise });
            for eps in [0.0, 1e-12, 0.25] {
                let options = CharbonnierLoss { loss_weight, reduction, sample_wise, eps };
                compare_pointwise(&options);
            }
            for delta in [0.5, 1.0] {
                let options = HuberLoss { loss_weight, reduction, sample_wise, delta };
                compare_pointwise(&options);
            }
        }
    }
}

#[test]
fn compositions_are_the_same() {
    for reduction in REDUCTIONS {
        for sample_wise in [false, true] {
            let loss_weight = 0.75;
            let l1 = L1CompositionLoss { loss_weight, reduction, sample_wise };
            let mse = MseCompositionLoss { loss_weight, reduction, sample_wise };
            let charbonnier = CharbonnierCompLoss { loss_weight, reduction, sample_wise, eps: 0.25 };
            let (image, pixel) = (&[2, 3, 4, 5], &[2, 1, 4, 5]);
            // α in quarters, so that a product is exact in half precision.
            let (alpha, _) = weights(pixel);
            let inputs = [
                (alpha.iter().map(|a| a / 2.0).collect(), pixel.to_vec()),
                numbers(image, 3, 0.0),
                numbers(image, 5, 0.0),
                numbers(image, 7, 0.03125),
            ];
            for weight in [None, Some(weights(pixel)), Some(weights(image))] {
                compare(&l1, &inputs, weight.as_ref());
                compare(&mse, &inputs, weight.as_ref());
                compare(&charbonnier, &inputs, weight.as_ref());
            }
        }
    }
}

#[test]
fn the_other_losses_are_the_same() {
    for shape in [[2, 3, 4, 5], [1, 3, 7, 3], [2, 3, 1, 4]] {
        let (x, y) = (numbers(&shape, 3, 0.0), numbers(&shape, 5, 0.0625));
        for to_y in [false, true] {
            let psnr = PsnrLoss { loss_weight: -0.5, to_y };
            compare(&psnr, &[x.clone(), y.clone()], None);
        }
        compare(&TvLoss { loss_weight: 3.0 }, std::array::from_ref(&x), None);
        let pixel = [shape[0], 1, shape[2], shape[3]];
        for weight in [None, Some(weights(&pixel)), Some(weights(&shape))] {
            let masked = MaskedTvLoss { loss_weight: 0.5 };
            compare(&masked, std::array::from_ref(&x), weight.as_ref());
            for reduction in REDUCTIONS {
                let gradient = GradientLoss { loss_weight: 0.5, reduction };
                compare(&gradient, &[x.clone(), y.clone()], weight.as_ref());
            }
        }
    }
}

/// Value and gradient of the first input.
fn backward<const K: usize>(
    loss: &impl Loss<K>,
    inputs: [&tch::Tensor; K],
    weight: Option<&tch::Tensor>,
) -> (Vec<f64>, Vec<f64>) {
    let leaf = inputs[0].detach().copy().set_requires_grad(true);
    let value = loss.call(std::array::from_fn(|k| if k == 0 { &leaf } else { inputs[k] }), weight).unwrap();
    value.sum(None::<Kind>).backward();
    (numbers_of(&value), numbers_of(&leaf.grad()))
}

#[test]
fn an_empty_mask_is_exactly_nothing() {
    let image = [2, 3, 4, 5];
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float, Kind::Double] {
        let (x, y) = (tensor(&numbers(&image, 3, 0.0), kind), tensor(&numbers(&image, 5, 0.0625), kind));
        for channels in [1, 3] {
            let mask = tch::Tensor::zeros([2, channels, 4, 5], (kind, Device::Cpu));
            let check = |(value, gradient): (Vec<f64>, Vec<f64>)| {
                assert!(value.iter().chain(&gradient).all(|&v| v == 0.0), "{kind:?}: {value:?}, {gradient:?}");
            };
            for reduction in REDUCTIONS {
                for sample_wise in [false, true] {
                    let options = MseLoss { reduction, sample_wise, ..Default::default() };
                    check(backward(&options, [&x, &y], Some(&mask)));
                    let options = CharbonnierLoss { reduction, sample_wise, ..Default::default() };
                    check(backward(&options, [&x, &y], Some(&mask)));
                }
                let options = GradientLoss { reduction, ..Default::default() };
                check(backward(&options, [&x, &y], Some(&mask)));
            }
            check(backward(&MaskedTvLoss::default(), [&x], Some(&mask)));
        }
    }
}

#[test]
fn the_gradient_is_finite_at_zero_difference_and_at_the_extremes() {
    for (kind, huge) in [(Kind::Half, 6e4), (Kind::BFloat16, 1e30), (Kind::Float, 1e30), (Kind::Double, 1e30)] {
        for (left, right) in [(0.5, 0.5), (0.0, 0.0), (huge, huge), (huge, 0.0), (-huge, 0.0), (1e-7, 0.0)] {
            let filled = |v: f64| tch::Tensor::full([2, 3, 4, 5], v, (kind, Device::Cpu));
            let (x, y) = (filled(left), filled(right));
            let check = |name: &str, (_, gradient): (Vec<f64>, Vec<f64>)| {
                assert!(gradient.iter().all(|g| g.is_finite()), "{name} {kind:?} at {left}, {right}: {gradient:?}");
            };
            for eps in [0.0, 1e-300, 1e-40, 1e-12, 1e-6] {
                let loss = CharbonnierLoss { eps, ..Default::default() };
                check("CharbonnierLoss", backward(&loss, [&x, &y], None));
            }
            check("L1Loss", backward(&L1Loss::default(), [&x, &y], None));
            check("MSELoss", backward(&MseLoss::default(), [&x, &y], None));
            check("HuberLoss", backward(&HuberLoss::default(), [&x, &y], None));
            check("PSNRLoss", backward(&PsnrLoss::default(), [&x, &y], None));
            check("GradientLoss", backward(&GradientLoss::default(), [&x, &y], None));
            check("tv_loss", backward(&TvLoss::default(), [&x], None));
            check("MaskedTVLoss", backward(&MaskedTvLoss::default(), [&x], None));
        }
    }
}

#[test]
fn a_mean_over_a_large_half_precision_image_neither_overflows_nor_stops_growing() {
    // 2²⁴ elements with a squared error of 100²: the sum is 1.7e11, the largest f16 is 65504.
    for kind in [Kind::Half, Kind::BFloat16] {
        let x = tch::Tensor::full([1, 1, 4096, 4096], 100.0, (kind, Device::Cpu));
        let y = tch::Tensor::zeros_like(&x);
        let value = |t: tch::Tensor| numbers_of(&t)[0];
        close(&[value(MseLoss::default().call([&x, &y], None).unwrap())], &[1e4], 4e-3, "mean");
        assert_eq!(value(L1Loss::default().call([&x, &y], None).unwrap()), 100.0);
        let weight = tch::Tensor::full([1, 1, 4096, 4096], 0.5, (kind, Device::Cpu));
        assert_eq!(value(L1Loss::default().call([&x, &y], Some(&weight)).unwrap()), 100.0);
        let decibels = value(PsnrLoss::default().call([&x, &y], None).unwrap());
        close(&[decibels], &[40.0], 4e-3, "decibels");
    }
}

#[test]
fn shapes_are_refused_before_libtorch_sees_them() {
    let ones = |shape: &[i64]| tch::Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let x = ones(&[2, 3, 4, 5]);
    let error = |y: &[i64], weight: Option<&[i64]>| {
        L1Loss::default().call([&x, &ones(y)], weight.map(ones).as_ref()).map(drop).unwrap_err()
    };
    assert!(matches!(error(&[2, 3, 4, 4], None), Error::ShapeMismatch { argument: "target", .. }));
    assert!(matches!(error(&[2, 3, 4, 5], Some(&[1, 3, 4, 5])), Error::WeightShape { .. }));
    let (flat, empty) = (ones(&[4]), ones(&[0, 3, 4, 5]));
    assert!(matches!(L1Loss::default().call([&flat, &flat], None), Err(Error::ShapeRule { .. })));
    assert!(matches!(L1Loss::default().call([&empty, &empty], None), Err(Error::Empty { .. })));
    let integers = x.to_kind(Kind::Int64);
    assert!(matches!(L1Loss::default().call([&integers, &integers], None), Err(Error::InvalidOption { .. })));
}

#[test]
fn what_is_no_number_comes_out_as_none() {
    let x = tch::Tensor::full([2, 3, 4, 5], f64::NAN, (Kind::Float, Device::Cpu));
    let y = tch::Tensor::zeros_like(&x);
    let is_nan = |value: tch::Tensor| numbers_of(&value).iter().all(|v| v.is_nan());
    assert!(is_nan(L1Loss::default().call([&x, &y], None).unwrap()));
    assert!(is_nan(HuberLoss::default().call([&y, &x], None).unwrap()));
    assert!(is_nan(CharbonnierLoss::default().call([&x, &y], None).unwrap()));
    assert!(is_nan(PsnrLoss::default().call([&x, &y], None).unwrap()));
    assert!(is_nan(GradientLoss::default().call([&x, &y], None).unwrap()));
    assert!(is_nan(TvLoss::default().call([&x], None).unwrap()));
    assert!(is_nan(MaskedTvLoss::default().call([&x], None).unwrap()));
}

#[test]
fn the_result_belongs_to_the_callers_graph() {
    // A prediction that is itself computed: the gradient reaches what it was computed from.
    let parameter = tch::Tensor::from_slice(&[2.0f64, -1.0]).set_requires_grad(true);
    let prediction = (&parameter * 3.0).reshape([1, 2]);
    let target = tch::Tensor::zeros_like(&prediction);
    let loss = MseLoss::default().call([&prediction, &target], None).unwrap();
    (loss * 2.0).backward();
    // d/dp of 2·mean (3p)² = 18·p.
    assert_eq!(numbers_of(&parameter.grad()), [36.0, -18.0]);
    let wrapped = TchTensor::new(&target).unwrap();
    assert_eq!((wrapped.dtype(), wrapped.shape()), (DType::F64, vec![1, 2]));
}
