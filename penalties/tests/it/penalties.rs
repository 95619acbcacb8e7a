//! Values by hand, laws, refusals, states and intervals, on autograd.

use image_losses_autograd::{AgTensor, differentiate, run};
use image_losses_core::{Declared, Differentiable, Error, Loss, PointwiseLoss, Result, Tensor, Unary};
use image_losses_ndarray::NdTensor;
use image_losses_penalties::{
    Call, DiscShiftLoss, DiscShiftLossComps, Draws, GeneratorPathRegularizer, GradientPenaltyLoss, Interpolation,
    NormMode, PathLengthState, R1GradientPenalty, R2GradientPenalty, Random,
};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

const MODES: [NormMode; 2] = [NormMode::Pixel, NormMode::Hwc];

/// A function of two tensors, evaluated with its gradients; the tensors are inputs of the graph.
fn evaluate(
    inputs: &[(Vec<f64>, Vec<usize>)],
    function: impl for<'g> Fn(&[AgTensor<'g, f64>]) -> Result<AgTensor<'g, f64>>,
) -> Result<(f64, Vec<Vec<f64>>)> {
    differentiate(inputs, function).map(|(value, gradients)| (value[0], gradients))
}

fn constant<'g>(like: &AgTensor<'g, f64>, values: &[f64], shape: &[usize]) -> AgTensor<'g, f64> {
    Tensor::constant(&like.context(), values, shape).unwrap()
}

fn square<T: Tensor>(x: &T) -> Result<T> {
    x.unary(Unary::Square)
}

fn softplus<T: Tensor>(x: &T) -> Result<T> {
    x.unary(Unary::Softplus)
}

/// The penalty between real and fake data at a given α.
fn gradient_penalty<T: Differentiable>(
    critic: impl Fn(&T) -> Result<T>,
    real: &T,
    fake: &T,
    alpha: &T,
    mask: Option<&T>,
    norm_mode: NormMode,
) -> Result<T> {
    let loss = GradientPenaltyLoss { norm_mode, ..GradientPenaltyLoss::default() };
    loss.forward(critic, Some(fake), real, &[alpha], Call { mask, ..Call::default() })
}

#[test]
fn gradient_penalty_by_hand() {
    // D(x) = Σ c·x with c = (3, 4) for the two channels of one pixel, (0, 5) for those of the other.
    // pixel: both norms are 5, penalty 16. HWC: the norm is √50.
    let slope = (vec![3.0, 0.0, 4.0, 5.0], vec![1, 2, 1, 2]);
    for (mode, expected) in [(NormMode::Pixel, 16.0), (NormMode::Hwc, (50f64.sqrt() - 1.0).powi(2))] {
        let (value, gradients) = evaluate(std::slice::from_ref(&slope), |inputs| {
            let real = constant(&inputs[0], &[1.0, 2.0, 3.0, 4.0], &[1, 2, 1, 2]);
            let alpha = constant(&inputs[0], &[0.25], &[1, 1, 1, 1]);
            gradient_penalty(|x| x.mul(&inputs[0]), &real, &real.neg()?, &alpha, None, mode)
        })
        .unwrap();
        assert!((value - expected).abs() < 1e-12, "{mode:?}: {value}");
        // pixel: ∂/∂c = (1/2)·2·(5 − 1)·c/5.
        if mode == NormMode::Pixel {
            let expected = [2.4, 0.0, 3.2, 4.0];
            assert!(gradients[0].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{gradients:?}");
        }
    }
}

#[test]
fn masks_multiply_the_gradient_and_divide_by_their_mean() {
    // As above with a mask that hides the second pixel: its norm is 0, its distance 1.
    // pixel: (16 + 1)/2 / ½ = 17; HWC: (5 − 1)² / ½ = 32. R1: 25/2 / ½ = 25; 25 / ½ = 50.
    let hidden = [[0.0, 5.0], [f64::INFINITY, f64::NAN]];
    let modes = [(NormMode::Pixel, 17.0, 25.0), (NormMode::Hwc, 32.0, 50.0)];
    for (hidden, (mode, gp, r1)) in hidden.into_iter().flat_map(|hidden| modes.map(|mode| (hidden, mode))) {
        let inputs = [(vec![3.0, hidden[0], 4.0, hidden[1]], vec![1, 2, 1, 2])];
        let value = |is_r1: bool| {
            evaluate(&inputs, |inputs| {
                let slope = &inputs[0];
                let real = constant(slope, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 1, 2]);
                let alpha = constant(slope, &[0.25], &[1, 1, 1, 1]);
                let mask = constant(slope, &[1.0, 0.0], &[1, 1, 1, 2]);
                if is_r1 {
                    let options = R1GradientPenalty { norm_mode: mode, ..R1GradientPenalty::default() };
                    options.forward(|x| x.mul(slope), &real, Call::masked(&mask))
                } else {
                    gradient_penalty(|x| x.mul(slope), &real, &real.neg()?, &alpha, Some(&mask), mode)
                }
            })
            .unwrap()
        };
        let value = |is_r1: bool| {
            let (value, gradients) = value(is_r1);
            assert_eq!([gradients[0][1], gradients[0][3]], [0.0; 2], "by the hidden pixel");
            value
        };
        assert!((value(false) - gp).abs() < 1e-9, "{mode:?}: {}", value(false));
        assert!((value(true) - r1).abs() < 1e-9, "{mode:?}: {}", value(true));
    }
}

#[test]
fn an_all_zero_mask_gives_zero_with_zero_gradients() {
    for mode in MODES {
        for per_element in [false, true] {
            let slope = (vec![3.0, -1.0], vec![1, 2]);
            let penalties = |which: usize| {
                evaluate(std::slice::from_ref(&slope), |inputs| {
                    let real = constant(&inputs[0], &[1.0, 2.0, -1.0, 0.5], &[2, 2]);
                    let columns = if per_element { 2 } else { 1 };
                    let mask = constant(&inputs[0], &vec![0.0; 2 * columns], &[2, columns]);
                    let alpha = constant(&inputs[0], &[0.2, 0.9], &[2, 1]);
                    let slope = &inputs[0];
                    let options = R1GradientPenalty { norm_mode: mode, ..R1GradientPenalty::default() };
                    match which {
                        0 => gradient_penalty(
                            |x| softplus(&x.mul(slope)?),
                            &real,
                            &real.neg()?,
                            &alpha,
                            Some(&mask),
                            mode,
                        ),
                        1 => options.forward(|x| softplus(&x.mul(slope)?), &real, Call::masked(&mask)),
                        _ => R2GradientPenalty::from(options).forward(
                            |x| softplus(&x.mul(slope)?),
                            &real,
                            Call::masked(&mask),
                        ),
                    }
                })
                .unwrap()
            };
            for which in 0..3 {
                assert_eq!(penalties(which), (0.0, vec![vec![0.0, 0.0]]), "{mode:?} {which}");
            }
        }
    }
}

#[test]
fn a_slope_of_exactly_zero_gives_finite_values_and_gradients() {
    // The critic depends on its input, with slope 0: every norm sits at its kink, where its derivative is 0.
    for mode in MODES {
        let slope = (vec![0.0], vec![1, 1]);
        let (value, gradients) = evaluate(std::slice::from_ref(&slope), |inputs| {
            let real = constant(&inputs[0], &[1.0, 2.0], &[1, 2]);
            let alpha = constant(&inputs[0], &[0.25], &[1, 1]);
            gradient_penalty(|x| x.mul(&inputs[0]), &real, &real.neg()?, &alpha, None, mode)
        })
        .unwrap();
        assert_eq!((value, gradients), (1.0, vec![vec![0.0]]), "{mode:?}");
        let (value, gradients) = evaluate(&[slope], |inputs| {
            let real = constant(&inputs[0], &[1.0, 2.0], &[1, 2]);
            let options = R1GradientPenalty { norm_mode: mode, ..R1GradientPenalty::default() };
            options.forward(|x| x.mul(&inputs[0]), &real, Call::default())
        })
        .unwrap();
        assert_eq!((value, gradients), (0.0, vec![vec![0.0]]), "{mode:?}");
    }
    let (value, gradients) = evaluate(&[(vec![0.0], vec![1, 1, 1])], |inputs| {
        let latents = constant(&inputs[0], &[1.0, 2.0], &[1, 1, 2]);
        let noise = constant(&inputs[0], &[1.0, -1.0], &[1, 1, 1, 2]);
        let state = PathLengthState { mean_path_length: 2.0 };
        let loss = GeneratorPathRegularizer { decay: 0.5, ..GeneratorPathRegularizer::default() };
        let scaled = |w: &_| inputs[0].mul(w)?.reshape(&[1, 1, 1, 2]);
        Ok(loss.forward(scaled, &latents, &[&noise], &state, Call::default())?.penalty)
    })
    .unwrap();
    assert_eq!((value, gradients), (1.0, vec![vec![0.0]])); // (0 − ½·2)²
}

#[test]
fn a_network_that_ignores_its_input_is_refused() {
    let inputs = [(vec![1.0, 2.0], vec![2, 1])];
    let errors = [0, 1, 2, 3].map(|which| {
        evaluate(&inputs, |inputs| {
            let x = &inputs[0];
            let critic = |_: &_| x.scale(2.0);
            let alpha = constant(x, &[0.5, 0.5], &[2, 1]);
            match which {
                0 => gradient_penalty(critic, x, x, &alpha, None, NormMode::Pixel),
                1 => R1GradientPenalty::default().forward(critic, x, Call::default()),
                2 => R2GradientPenalty::default().forward(critic, x, Call::default()),
                _ => {
                    let latents = constant(x, &[1.0, 2.0], &[2, 1, 1]);
                    let generator = |_: &_| x.reshape(&[2, 1, 1, 1]);
                    let (loss, mut draws) = (GeneratorPathRegularizer::default(), Draws::new(0));
                    let state = PathLengthState::default();
                    Ok(loss.forward(generator, &latents, &mut draws, &state, Call::default())?.penalty)
                }
            }
        })
        .unwrap_err()
    });
    for error in errors {
        assert!(matches!(error, Error::NotConnected { .. }), "{error}");
        assert!(error.to_string().contains("does not depend on"), "{error}");
    }
}

/// The error of a gradient penalty between tensors of the given shapes.
fn gradient_penalty_error(real: &[usize], fake: &[usize], alpha: &[usize], mask: Option<&[usize]>) -> Error {
    let values = |shape: &[usize]| (vec![0.5; shape.iter().product()], shape.to_vec());
    let inputs = [values(real), values(fake), values(alpha), values(mask.unwrap_or(&[1]))];
    evaluate(&inputs, |x| {
        let mask = mask.map(|_| &x[3]);
        gradient_penalty(square, &x[0], &x[1], &x[2], mask, NormMode::Pixel)
    })
    .unwrap_err()
}

#[test]
fn wrong_shapes_are_refused() {
    let wrong = |error: Error| match error {
        Error::ShapeMismatch { argument, .. } | Error::ShapeRule { argument, .. } => argument,
        Error::WeightShape { .. } => "weight",
        Error::Empty { .. } => "empty",
        error => panic!("{error}"),
    };
    assert_eq!(wrong(gradient_penalty_error(&[2, 3, 4], &[2, 3, 5], &[2, 1, 1], None)), "fake_data");
    assert_eq!(wrong(gradient_penalty_error(&[2, 3, 4], &[2, 3, 4], &[2], None)), "alpha");
    assert_eq!(wrong(gradient_penalty_error(&[2], &[2], &[2], None)), "real_data");
    assert_eq!(wrong(gradient_penalty_error(&[0, 3], &[0, 3], &[0, 1], None)), "empty");
    assert_eq!(wrong(gradient_penalty_error(&[2, 3, 4], &[2, 3, 4], &[2, 1, 1], Some(&[1, 1, 4]))), "weight");
    let r1 = |r2: bool| {
        let inputs = [(vec![1.0], vec![1])];
        evaluate(&inputs, |x| match r2 {
            false => R1GradientPenalty::default().forward(square, &x[0], Call::default()),
            true => R2GradientPenalty::default().forward(square, &x[0], Call::default()),
        })
        .unwrap_err()
    };
    assert_eq!((wrong(r1(false)), wrong(r1(true))), ("real_data", "fake_data"));
    let path = |latents: &[usize], image: &[usize], noise: &[usize]| {
        let inputs = [(vec![1.0; latents.iter().product()], latents.to_vec()), (vec![1.0; 4], noise.to_vec())];
        let image = image.to_vec();
        wrong(
            evaluate(&inputs, |x| {
                let (loss, state) = (GeneratorPathRegularizer::default(), PathLengthState::default());
                Ok(loss.forward(|w| w.reshape(&image), &x[0], &[&x[1]], &state, Call::default())?.penalty)
            })
            .unwrap_err(),
        )
    };
    assert_eq!(path(&[2, 2], &[2, 2, 1, 1], &[2, 2, 1, 1]), "latents");
    assert_eq!(path(&[2, 1, 2], &[2, 2], &[2, 2, 1, 1]), "fake_img");
    assert_eq!(path(&[2, 1, 2], &[1, 1, 2, 2], &[1, 1, 2, 2]), "fake_img");
    assert_eq!(path(&[2, 1, 2], &[2, 1, 2, 1], &[2, 2, 1, 1]), "noise");
}

#[test]
fn missing_inputs_are_named() {
    let inputs = [(vec![1.0, 2.0], vec![2, 1])];
    let error = |interpolation| {
        evaluate(&inputs, |x| {
            let options = GradientPenaltyLoss { interpolation, ..GradientPenaltyLoss::default() };
            let alpha = constant(&x[0], &[0.5, 0.5], &[2, 1]);
            options.forward(square, None, &x[0], &[&alpha], Call::default())
        })
        .unwrap_err()
    };
    for (interpolation, expected) in [(Interpolation::RealFake, "fake_data"), (Interpolation::Dragan, "noise")] {
        match error(interpolation) {
            Error::MissingInput { argument, .. } => assert_eq!(argument, expected),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn dragan_looks_around_the_real_data() {
    // D(x) = Σx²: g = 2x̂. Real data −1 and 3: σ = 2, the neighbours are real + u; x̂ = real + (1 − α)·u.
    let (u, alpha) = ([0.5, 0.25], [0.75, 0.5]);
    let x = [-1.0 + 0.25 * u[0], 3.0 + 0.5 * u[1]];
    let expected = x.map(|x: f64| ((2.0 * x).abs() - 1.0).powi(2)).iter().sum::<f64>() / 2.0;
    let (value, _) = evaluate(&[(vec![-1.0, 3.0], vec![2, 1])], |inputs| {
        let loss = GradientPenaltyLoss { interpolation: Interpolation::Dragan, ..GradientPenaltyLoss::default() };
        let (alpha, noise) = (constant(&inputs[0], &alpha, &[2, 1]), constant(&inputs[0], &u, &[2, 1]));
        loss.forward(square, None, &inputs[0], &[&alpha, &noise], Call::default())
    })
    .unwrap();
    assert!((value - expected).abs() < 1e-12, "{value} {expected}");
}

/// The drawn gradient penalty of D(x) = Σx² between 1 and 3, for three samples.
fn drawn(loss: GradientPenaltyLoss, draws: &mut Draws) -> f64 {
    run(|session| {
        let real = session.input(vec![1.0f64; 3], &[3, 1])?;
        let fake = session.input(vec![3.0f64; 3], &[3, 1])?;
        let value = loss.forward(square, Some(&fake), &real, draws, Call::default())?;
        Ok::<_, Error>(session.evaluate(&[&value])?[0][0])
    })
    .unwrap()
}

#[test]
fn the_seed_decides_alpha_unless_it_is_fixed() {
    let options = GradientPenaltyLoss::default();
    assert_eq!(drawn(options, &mut Draws::new(1)), drawn(options, &mut Draws::new(1)));
    assert_ne!(drawn(options, &mut Draws::new(1)), drawn(options, &mut Draws::new(2)));
    let mut draws = Draws::new(1);
    assert_ne!(drawn(options, &mut draws), drawn(options, &mut draws));
    // α uniform per sample: x̂ = 3 − 2α.
    let expected: f64 = Draws::new(9).uniform_values(3).iter().map(|a| (2.0 * (3.0 - 2.0 * a) - 1.0).powi(2)).sum();
    assert!((drawn(options, &mut Draws::new(9)) - expected / 3.0).abs() < 1e-12);
    // α = ¼: x̂ = 2.5 for every sample, and nothing is drawn.
    let fixed = GradientPenaltyLoss { alpha: Some(0.25), ..options };
    let mut draws = Draws::new(1);
    assert_eq!(drawn(fixed, &mut draws), 16.0);
    assert_eq!(draws, Draws::new(1));
}

#[test]
fn data_are_detached() {
    let inputs = [(vec![1.0, 2.0], vec![2, 1]), (vec![0.5, -2.0], vec![2, 1])];
    let (_, gradients) = evaluate(&inputs, |x| {
        let alpha = constant(&x[0], &[0.5, 0.25], &[2, 1]);
        let gp = gradient_penalty(softplus, &x[0], &x[1], &alpha, None, NormMode::Pixel)?;
        let r1 = R1GradientPenalty::default().forward(softplus, &x[0], Call::default())?;
        gp.add(&r1.reshape(&gp.shape())?)
    })
    .unwrap();
    assert_eq!(gradients, vec![vec![0.0; 2]; 2]);
}

/// A factor into the latents, as of a mapping network; the penalty's value and its derivative by the factor, and the
/// mean and the lengths.
fn path_length(loss: GeneratorPathRegularizer, mean_path_length: f64, factor: f64) -> (f64, f64, f64, Vec<f64>) {
    run(|session| {
        let factor = session.input(vec![factor], &[1, 1, 1])?;
        let latents = constant(&factor, &[1.0, 2.0, -1.0, 0.5], &[2, 1, 2]).mul(&factor)?;
        let noise = constant(&factor, &[1.0, -0.5, 0.25, 2.0], &[2, 1, 1, 2]);
        let result = loss.forward(
            |w| square(w)?.reshape(&[2, 1, 1, 2]),
            &latents,
            &[&noise],
            &PathLengthState { mean_path_length },
            Call::default(),
        )?;
        let gradient = Differentiable::gradients(&result.penalty, &[&factor], false)?.remove(0).unwrap();
        let lost = [&result.mean_path_length, &result.path_lengths];
        for detached in lost {
            assert!(Differentiable::gradients(detached, &[&factor], false)?[0].is_none());
        }
        let values = session.evaluate(&[&result.penalty, &gradient, lost[0], lost[1]])?;
        Ok::<_, Error>((values[0][0], values[1][0], values[2][0], values[3].clone()))
    })
    .unwrap()
}

#[test]
fn path_length_by_hand() {
    // image = w², noise/√2: g = √2·w·noise, lengths √2·‖w·noise‖ with w scaled by the factor.
    let options = GeneratorPathRegularizer { decay: 0.25, loss_weight: 3.0, ..GeneratorPathRegularizer::default() };
    let exact = |factor: f64| {
        let lengths = [(1.0, -1.0), (-0.25, 1.0)].map(|(a, b): (f64, f64)| factor * (2.0 * (a * a + b * b)).sqrt());
        let mean = 1.5 + 0.25 * ((lengths[0] + lengths[1]) / 2.0 - 1.5);
        (3.0 * lengths.map(|length| (length - mean).powi(2)).iter().sum::<f64>() / 2.0, mean, lengths)
    };
    let (penalty, derivative, mean, lengths) = path_length(options, 1.5, 0.8);
    let (expected_penalty, expected_mean, expected_lengths) = exact(0.8);
    assert!((penalty - expected_penalty).abs() < 1e-12);
    assert!((mean - expected_mean).abs() < 1e-12);
    assert!(lengths.iter().zip(expected_lengths).all(|(a, b)| (a - b).abs() < 1e-12));
    // Through the latents too, whoever made them.
    let difference = (exact(0.8 + 1e-6).0 - exact(0.8 - 1e-6).0) / 2e-6;
    assert!((derivative - difference).abs() < 1e-8, "{derivative} {difference}");
}

#[test]
fn path_length_batches_and_state() {
    let with = |pl_batch_shrink, pl_batch_size| GeneratorPathRegularizer {
        pl_batch_shrink,
        pl_batch_size,
        ..GeneratorPathRegularizer::default()
    };
    assert_eq!([1, 3, 4, 8].map(|n| with(4, None).batch_size(n)), [1, 1, 1, 2]);
    assert_eq!(with(4, Some(7)).batch_size(8), 7);
    let state = PathLengthState { mean_path_length: 0.1 + 0.2 };
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<PathLengthState>(&text).unwrap(), state);
    assert!(serde_json::from_str::<PathLengthState>(r#"{"mean_path_length": 1, "mean": 2}"#).is_err());
    // After an overflow the last finite length is saved.
    let mut moved = state;
    for overflow in [f64::NAN, f64::INFINITY] {
        moved.update(overflow);
        assert_eq!(serde_json::from_str::<PathLengthState>(&serde_json::to_string(&moved).unwrap()).unwrap(), state);
    }
    moved.update(2.0);
    assert_eq!(moved.mean_path_length, 2.0);
}

#[test]
fn drawn_noise_comes_from_the_seed() {
    let penalty = |seed: u64| {
        let mut draws = Draws::new(seed);
        evaluate(&[(vec![1.0, 2.0], vec![1, 1, 2])], |x| {
            let (loss, state) = (GeneratorPathRegularizer::default(), PathLengthState::default());
            Ok(loss.forward(|w| w.reshape(&[1, 1, 1, 2]), &x[0], &mut draws.clone(), &state, Call::default())?.penalty)
        })
        .map(|(value, _)| (value, draws.normal_values(2)))
        .unwrap()
    };
    // image = w: g = noise/√2.
    let (value, noise) = penalty(4);
    let expected = 0.99f64.powi(2) * (noise[0].powi(2) + noise[1].powi(2)) / 2.0;
    assert!((value - expected).abs() < 1e-12);
    assert_ne!(value, penalty(5).0);
}

#[test]
fn intervals_say_when_a_penalty_is_due() {
    let r1 = R1GradientPenalty { interval: 3, ..R1GradientPenalty::default() };
    let path = GeneratorPathRegularizer { interval: 2, ..GeneratorPathRegularizer::default() };
    let due = |is_due: &dyn Fn(u64) -> bool| (0..7).filter(|&iteration| is_due(iteration)).collect::<Vec<_>>();
    assert_eq!(due(&|iteration| r1.is_due(iteration)), [0, 3, 6]);
    assert_eq!(due(&|iteration| R2GradientPenalty::from(r1).is_due(iteration)), [0, 3, 6]);
    assert_eq!(due(&|iteration| path.is_due(iteration)), [0, 2, 4, 6]);
}

#[test]
fn a_calls_loss_scale_takes_the_options_place() {
    // Two factors cancel, unless a scale overflows between them.
    fn stretched<'a>(x: &NdTensor<'a, f32>) -> Result<NdTensor<'a, f32>> {
        square(x)?.scale(1e-30)?.scale(1e30)
    }
    let array = |values: [f32; 2]| NdTensor::from_vec(values.to_vec(), &[1, 2]).unwrap();
    let (real, fake) = (array([1.0, 2.0]), array([0.5, 2.5]));
    let value = |loss_scale: Option<f64>| {
        let call = Call { loss_scale, ..Call::default() };
        let r1 = R1GradientPenalty { loss_scale: 1e15, ..R1GradientPenalty::default() };
        let gp = GradientPenaltyLoss { loss_scale: 1e15, ..GradientPenaltyLoss::default() };
        let gp = gp.forward(stretched, Some(&fake), &real, &mut Draws::new(0), call)?.item()?;
        Ok::<_, Error>([r1.forward(stretched, &real, call)?.item()?.is_finite(), gp.is_finite()])
    };
    assert_eq!((value(None).unwrap(), value(Some(2.0)).unwrap()), ([false; 2], [true; 2]));
    for wrong in [0.0, -1.0, f64::NAN] {
        match value(Some(wrong)).unwrap_err() {
            Error::InvalidOption { option, .. } => assert_eq!(option, "loss_scale"),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn given_values_that_are_too_few_or_of_another_shape_are_refused() {
    let x = NdTensor::from_vec(vec![1.0f64, 2.0], &[2, 1]).unwrap();
    let loss = GradientPenaltyLoss::default();
    let given = |values: &[&NdTensor<'_, f64>]| {
        loss.forward(square, Some(&x), &x, Random::Given(values), Call::default()).unwrap_err()
    };
    assert!(matches!(given(&[]), Error::MissingInput { ref argument, .. } if argument == "alpha"));
    let wrong = given(&[&x.reshape(&[1, 2]).unwrap()]);
    assert!(matches!(wrong, Error::ShapeMismatch { argument: "alpha", .. }), "{wrong}");
    let latents = x.reshape(&[2, 1, 1]).unwrap();
    let path = GeneratorPathRegularizer::default();
    let masked = path.forward(
        |w| w.reshape(&[2, 1, 1, 1]),
        &latents,
        &mut Draws::new(0),
        &PathLengthState::default(),
        Call::masked(&x),
    );
    assert!(matches!(masked, Err(Error::InvalidOption { option: "mask", .. })));
}

proptest! {
    #![proptest_config(image_losses_laws::drawn(64))]

    #[test]
    fn drawn_scaling_options_do_what_they_say(
        values in prop::collection::vec(-2.0..2.0, 4), loss_weight in -3.0..3.0f64, interval in 1u64..20,
        loss_scale in 1e-3..1e5f64, hwc: bool, multiply_by_interval: bool, use_apex_amp: bool, mean_path_length in 0.0..3.0f64,
    ) {
        let norm_mode = if hwc { NormMode::Hwc } else { NormMode::Pixel };
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-11 * b.abs().max(1.0);
        let real = (values, vec![2, 2]);
        fn critic<T: Tensor>(x: &T) -> Result<T> {
            square(&softplus(x)?)
        }
        let factor = loss_weight * if multiply_by_interval { interval as f64 } else { 1.0 };

        let plain = R1GradientPenalty { norm_mode, ..R1GradientPenalty::default() };
        let loss = R1GradientPenalty { loss_weight, norm_mode, interval, multiply_by_interval, loss_scale, use_apex_amp };
        for r2 in [false, true] {
            let value = |loss: R1GradientPenalty| {
                evaluate(std::slice::from_ref(&real), |x| match r2 {
                    false => loss.forward(critic, &x[0], Call::default()),
                    true => R2GradientPenalty::from(loss).forward(critic, &x[0], Call::default()),
                }).unwrap().0
            };
            prop_assert!(close(value(loss), factor * value(plain)));
        }

        let plain = GradientPenaltyLoss { norm_mode, alpha: Some(0.3), ..GradientPenaltyLoss::default() };
        let loss = GradientPenaltyLoss { loss_weight, loss_scale, ..plain };
        let value = |loss: GradientPenaltyLoss| {
            evaluate(std::slice::from_ref(&real), |x| {
                loss.forward(critic, Some(&x[0].neg()?), &x[0], &mut Draws::new(0), Call::default())
            }).unwrap().0
        };
        prop_assert!(close(value(loss), loss_weight * value(plain)));

        let plain = GeneratorPathRegularizer { decay: 0.4, ..GeneratorPathRegularizer::default() };
        let loss = GeneratorPathRegularizer { loss_weight, interval, multiply_by_interval, loss_scale, ..plain };
        let value = |loss| path_length(loss, mean_path_length, 0.9).0;
        prop_assert!(close(value(loss), factor * value(plain)));
    }

    #[test]
    fn drawn_disc_shift_is_a_mean_of_squares(
        scores in prop::collection::vec(-5.0..5.0, 6), loss_weight in -2.0..2.0f64,
    ) {
        let squares: Vec<f64> = scores.iter().map(|s: &f64| loss_weight * s * s).collect();
        let tensor = NdTensor::new(ndarray::Array::from_shape_vec((3, 2), scores.clone()).unwrap());
        let map = DiscShiftLossComps { loss_weight }.forward([&tensor], None).unwrap();
        prop_assert!(map.into_array().iter().zip(&squares).all(|(a, b): (&f64, &f64)| (a - b).abs() < 1e-12));
        let loss = DiscShiftLoss { loss_weight };
        let (value, gradients) = evaluate(&[(scores.clone(), vec![3, 2])], |x| loss.forward([&x[0]], None)).unwrap();
        prop_assert!((value - squares.iter().sum::<f64>() / 6.0).abs() < 1e-12);
        for (gradient, score) in gradients[0].iter().zip(&scores) {
            prop_assert!((gradient - loss_weight * score / 3.0).abs() < 1e-12);
        }
    }
}

#[test]
fn disc_shift_defaults_and_refusals() {
    assert_eq!(DiscShiftLoss::default().reducer().loss_weight, 0.1);
    assert_eq!(DiscShiftLossComps::default().reducer().loss_weight, 1.0);
    let scores = NdTensor::new(ndarray::array![1.0f64]);
    assert!(matches!(DiscShiftLoss::default().forward([&scores], None), Err(Error::ShapeRule { .. })));
}

#[test]
fn options_out_of_range_are_refused() {
    fn refused(loss: impl Declared, expected: &str) {
        match loss.check() {
            Err(Error::InvalidOption { option, .. }) => assert_eq!(option, expected),
            Err(error) => panic!("{error}"),
            Ok(()) => panic!("{expected} accepted"),
        }
    }
    let gradient = GradientPenaltyLoss::default();
    let r1 = R1GradientPenalty::default();
    let path = GeneratorPathRegularizer::default();
    for loss_weight in [f64::NAN, f64::INFINITY] {
        refused(GradientPenaltyLoss { loss_weight, ..gradient }, "loss_weight");
        refused(R1GradientPenalty { loss_weight, ..r1 }, "loss_weight");
        refused(R2GradientPenalty { loss_weight, ..Default::default() }, "loss_weight");
        refused(GeneratorPathRegularizer { loss_weight, ..path }, "loss_weight");
        refused(DiscShiftLoss { loss_weight }, "loss_weight");
        refused(DiscShiftLossComps { loss_weight }, "loss_weight");
    }
    for loss_scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(GradientPenaltyLoss { loss_scale, ..gradient }, "loss_scale");
        refused(R1GradientPenalty { loss_scale, ..r1 }, "loss_scale");
        refused(R2GradientPenalty { loss_scale, ..Default::default() }, "loss_scale");
        refused(GeneratorPathRegularizer { loss_scale, ..path }, "loss_scale");
    }
    for value in [-0.1, 1.1, f64::NAN] {
        refused(GradientPenaltyLoss { alpha: Some(value), ..gradient }, "alpha");
        refused(GeneratorPathRegularizer { decay: value, ..path }, "decay");
    }
    refused(R1GradientPenalty { interval: 0, ..r1 }, "interval");
    refused(R2GradientPenalty { interval: 0, ..Default::default() }, "interval");
    refused(GeneratorPathRegularizer { interval: 0, ..path }, "interval");
    refused(GeneratorPathRegularizer { pl_batch_shrink: 0, ..path }, "pl_batch_shrink");
    refused(GeneratorPathRegularizer { pl_batch_size: Some(0), ..path }, "pl_batch_size");
}

#[test]
fn configurations_round_trip_and_refuse_what_is_unknown() {
    fn check<L: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str, expected: L) {
        let loss: L = serde_json::from_str(text).unwrap();
        assert_eq!(loss, expected);
        assert_eq!(serde_json::from_str::<L>(&serde_json::to_string(&loss).unwrap()).unwrap(), loss);
        let unknown = text.replacen('{', r#"{"weight": 1, "#, 1);
        assert!(serde_json::from_str::<L>(&unknown).unwrap_err().to_string().contains("unknown field `weight`"));
        assert!(serde_json::from_str::<L>(r#"{"loss_weight": 1e999}"#).is_err());
    }
    let options = GradientPenaltyLoss {
        loss_weight: 10.0,
        norm_mode: NormMode::Hwc,
        interpolation: Interpolation::Dragan,
        alpha: Some(0.5),
        loss_scale: 8.0,
    };
    check(
        r#"{"loss_weight": 10, "norm_mode": "HWC", "interpolation": "dragan", "alpha": 0.5, "loss_scale": 8}"#,
        options,
    );
    check(r#"{"norm_mode": "pixel", "interpolation": "real_fake"}"#, GradientPenaltyLoss::default());
    let options = R1GradientPenalty { interval: 16, multiply_by_interval: true, ..R1GradientPenalty::default() };
    let text = r#"{"interval": 16, "multiply_by_interval": true}"#;
    check(text, options);
    check(text, R2GradientPenalty::from(options));
    let options = GeneratorPathRegularizer {
        loss_weight: 8.0,
        pl_batch_shrink: 2,
        pl_batch_size: Some(3),
        decay: 0.02,
        sync_mean_buffer: true,
        interval: 4,
        multiply_by_interval: true,
        loss_scale: 2.0,
        use_apex_amp: true,
    };
    check(
        r#"{"loss_weight": 8, "pl_batch_shrink": 2, "pl_batch_size": 3, "decay": 0.02, "sync_mean_buffer": true,
            "interval": 4, "multiply_by_interval": true, "loss_scale": 2, "use_apex_amp": true}"#,
        options,
    );
    check(r#"{"loss_weight": 0.5}"#, DiscShiftLoss { loss_weight: 0.5 });
    check(r#"{"loss_weight": 0.5}"#, DiscShiftLossComps { loss_weight: 0.5 });
}

/// A scale of the scores changes no result but in half precision: the default is to leave them alone, as MMagic does.
#[test]
fn scores_are_not_scaled_unless_asked() {
    assert_eq!(GradientPenaltyLoss::default().loss_scale, 1.0);
    assert_eq!(GeneratorPathRegularizer::default().loss_scale, 1.0);
    assert_eq!(R1GradientPenalty::default().loss_scale, 1.0);
}
