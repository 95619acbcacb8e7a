//! The penalties on tch: second derivatives against central differences, agreement with autograd, half precision.

#[path = "../../../../penalties/tests/it/support/mod.rs"]
mod support;

use self::support::{Engine, Penalty, Program, Values, critic, generator, second_derivative_error};
use image_losses_core::{Error, Result, Tensor, Unary};
use image_losses_laws::drawn;
use image_losses_penalties::{
    Call, Draws, GeneratorPathRegularizer, GradientPenaltyLoss, Interpolation, NormMode, PathLengthState,
    R1GradientPenalty,
};
use image_losses_tch::{TchTensor, differentiate};
use proptest::prelude::*;
use tch::{Device, Kind};

struct Tch;
const ENGINE: Tch = Tch;
const CASES: u32 = 24;

fn tensor((values, shape): &Values) -> tch::Tensor {
    let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
    tch::Tensor::from_slice(values).reshape(shape)
}

fn values(tensor: &tch::Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().flatten(0, -1)).unwrap()
}

impl Engine for Tch {
    fn differentiate(&self, inputs: &[Values], program: &impl Program) -> Result<(f64, Vec<Vec<f64>>)> {
        // Tensors of a few elements: more threads only wait for one another.
        tch::set_num_threads(1);
        let tensors: Vec<tch::Tensor> = inputs.iter().map(tensor).collect();
        let (value, gradients) =
            differentiate(&tensors.iter().collect::<Vec<_>>(), |inputs| program.run(inputs, None))?;
        Ok((values(&value)[0], gradients.iter().map(values).collect()))
    }
}

include!("../../../../penalties/tests/it/support/second_derivatives.rs");

/// The autograd engine's value and gradients are tch's.
fn agree(penalty: &Penalty) {
    let (value, gradients) = ENGINE.differentiate(penalty.parameters(), penalty).unwrap();
    let (other, others) =
        image_losses_autograd::differentiate(penalty.parameters(), |inputs| penalty.run(inputs, None)).unwrap();
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-11 * a.abs().max(b.abs()).max(1.0);
    assert!(close(value, other[0]), "{value} {}", other[0]);
    for (a, b) in gradients.concat().into_iter().zip(others.concat()) {
        assert!(close(a, b), "{a} {b}");
    }
}

proptest! {
    #![proptest_config(drawn(CASES))]

    #[test]
    fn drawn_engines_agree_and_draw_the_same(critic in critic(), generator in generator(), hwc: bool, dragan: bool) {
        let norm_mode = if hwc { NormMode::Hwc } else { NormMode::Pixel };
        let interpolation = if dragan { Interpolation::Dragan } else { Interpolation::RealFake };
        let options = GradientPenaltyLoss { norm_mode, interpolation, ..GradientPenaltyLoss::default() };
        agree(&Penalty::Gradient(options, critic.clone()));
        let options = R1GradientPenalty { norm_mode, ..R1GradientPenalty::default() };
        agree(&Penalty::R1(options, critic));
        agree(&Penalty::PathLength(GeneratorPathRegularizer::default(), PathLengthState::default(), generator));
    }
}

#[test]
fn a_slope_of_exactly_zero_gives_finite_values_and_gradients() {
    for mode in [NormMode::Pixel, NormMode::Hwc] {
        let slope = tch::Tensor::from_slice(&[0.0f64]).reshape([1, 1]);
        let data = |like: &TchTensor| TchTensor::constant(&like.context(), &[1.0, 2.0], &[1, 2]);
        let (value, gradients) = differentiate(&[&slope], |inputs| {
            let alpha = TchTensor::constant(&inputs[0].context(), &[0.25], &[1, 1])?;
            let real = data(&inputs[0])?;
            let loss = GradientPenaltyLoss { norm_mode: mode, ..GradientPenaltyLoss::default() };
            loss.forward(|x| x.mul(&inputs[0]), Some(&real.neg()?), &real, &[&alpha], Call::default())
        })
        .unwrap();
        assert_eq!((values(&value), values(&gradients[0])), (vec![1.0], vec![0.0]));
        let (value, gradients) = differentiate(&[&slope], |inputs| {
            let loss = R1GradientPenalty { norm_mode: mode, ..R1GradientPenalty::default() };
            loss.forward(|x| x.mul(&inputs[0]), &data(&inputs[0])?, Call::default())
        })
        .unwrap();
        assert_eq!((values(&value), values(&gradients[0])), (vec![0.0], vec![0.0]));
    }
    let factor = tch::Tensor::from_slice(&[0.0f64]).reshape([1, 1, 1]);
    let (value, gradients) = differentiate(&[&factor], |inputs| {
        let latents = TchTensor::constant(&inputs[0].context(), &[1.0, 2.0], &[1, 1, 2])?;
        let noise = TchTensor::constant(&inputs[0].context(), &[1.0, -1.0], &[1, 1, 1, 2])?;
        let generator = |w: &TchTensor| w.mul(&inputs[0])?.reshape(&[1, 1, 1, 2]);
        let loss = GeneratorPathRegularizer { decay: 0.5, ..GeneratorPathRegularizer::default() };
        let state = PathLengthState { mean_path_length: 2.0 };
        Ok(loss.forward(generator, &latents, &[&noise], &state, Call::default())?.penalty)
    })
    .unwrap();
    assert_eq!((values(&value), values(&gradients[0])), (vec![1.0], vec![0.0]));
}

#[test]
fn networks_that_ignore_their_input_are_refused() {
    let x = TchTensor::own(tch::Tensor::from_slice(&[1.0f64, 2.0]).reshape([2, 1])).unwrap();
    // Without any history, and with one that does not reach the input.
    for other in [x.clone(), TchTensor::own(x.tensor().detach().set_requires_grad(true)).unwrap()] {
        let error = R1GradientPenalty::default().forward(|_| other.scale(2.0), &x, Call::default()).unwrap_err();
        assert!(matches!(error, Error::NotConnected { .. }), "{error}");
        let latents = x.reshape(&[2, 1, 1]).unwrap();
        let (loss, state, mut draws) = (GeneratorPathRegularizer::default(), PathLengthState::default(), Draws::new(0));
        let generator = |_: &TchTensor| other.reshape(&[2, 1, 1, 1]);
        let error = loss.forward(generator, &latents, &mut draws, &state, Call::default()).unwrap_err();
        assert!(matches!(error, Error::NotConnected { .. }), "{error}");
    }
}

#[test]
fn latents_pass_the_gradient_on_to_what_made_them() {
    // image = w²·noise-weighted: the length depends on the latents, and these on the factor.
    let factor = tch::Tensor::from_slice(&[0.8f64]).reshape([1, 1, 1]);
    let penalty = |factor: &tch::Tensor| {
        differentiate(&[factor], |inputs| {
            let latents = TchTensor::constant(&inputs[0].context(), &[1.0, 2.0, -1.0, 0.5], &[2, 1, 2])?;
            let noise = TchTensor::constant(&inputs[0].context(), &[1.0, -0.5, 0.25, 2.0], &[2, 1, 1, 2])?;
            let generator = |w: &TchTensor| w.unary(Unary::Square)?.reshape(&[2, 1, 1, 2]);
            let (loss, state) = (GeneratorPathRegularizer::default(), PathLengthState { mean_path_length: 1.5 });
            Ok(loss.forward(generator, &latents.mul(&inputs[0])?, &[&noise], &state, Call::default())?.penalty)
        })
        .unwrap()
    };
    let (above, below) = (penalty(&(&factor + 1e-6)).0, penalty(&(&factor - 1e-6)).0);
    let difference = (values(&above)[0] - values(&below)[0]) / 2e-6;
    let gradient = values(&penalty(&factor).1[0])[0];
    assert!(gradient.abs() > 0.1 && (gradient - difference).abs() < 1e-7, "{gradient} {difference}");
}

#[test]
fn loss_scaling_saves_small_gradients_in_half_precision() {
    // D(x) = 2⁻¹⁴·(2⁻¹⁴·x): a gradient of 2⁻²⁸, below the smallest half-precision number, 2⁻²⁴.
    let data = TchTensor::own(tch::Tensor::ones([1, 1], (Kind::Half, Device::Cpu))).unwrap();
    let critic = |x: &TchTensor| x.scale(2f64.powi(-14))?.scale(2f64.powi(-14));
    let penalty = |loss_scale: f64| {
        let options = R1GradientPenalty { loss_weight: 2f64.powi(56), loss_scale, ..R1GradientPenalty::default() };
        let value = options.forward(critic, &data, Call::default()).unwrap();
        values(value.tensor())
    };
    assert_eq!(penalty(1.0), [0.0]);
    assert_eq!(penalty(16384.0), [1.0]); // 2⁵⁶·(2⁻²⁸)²
}

#[test]
fn large_gradients_do_not_overflow_in_half_precision() {
    // A gradient of 300 per element: its square alone is beyond half precision's 65,504.
    for kind in [Kind::Half, Kind::BFloat16] {
        let data = TchTensor::own(tch::Tensor::ones([2, 3, 4, 4], (kind, Device::Cpu))).unwrap();
        let mask = TchTensor::own(tch::Tensor::ones([2, 1, 4, 4], (kind, Device::Cpu))).unwrap();
        for call in [Call::default(), Call::masked(&mask)] {
            let loss = R1GradientPenalty { loss_weight: 1e-3, ..R1GradientPenalty::default() };
            let value = loss.forward(|x| x.scale(300.0), &data, call).unwrap();
            assert_eq!(value.dtype(), data.dtype());
            assert!((values(value.tensor())[0] - 270.0).abs() <= 1.0); // 10⁻³·3·300²
            let loss = GradientPenaltyLoss {
                loss_weight: 1e-3,
                alpha: Some(0.5),
                norm_mode: NormMode::Hwc,
                ..Default::default()
            };
            let value = loss.forward(|x| x.scale(300.0), Some(&data), &data, &mut Draws::new(0), call).unwrap();
            let expected = 1e-3 * (300.0 * 48f64.sqrt() - 1.0).powi(2);
            assert!((values(value.tensor())[0] / expected - 1.0).abs() < 4e-3);
        }
        // An all-zero mask gives 0, where 1e-12 is nothing.
        let zero = TchTensor::own(tch::Tensor::zeros([2, 1, 4, 4], (kind, Device::Cpu))).unwrap();
        let value = R1GradientPenalty::default().forward(|x| x.scale(300.0), &data, Call::masked(&zero)).unwrap();
        assert_eq!(values(value.tensor()), [0.0]);
    }
}
