use image_losses_autograd::{AgTensor, run};
use image_losses_core::{Differentiable, Error, Result, Tensor, Unary};
use image_losses_gan::{AdvLoss, AdvLossType, AdvPredictions, AdvState, AdvTerms, ImagePool, Sample, Side};
use image_losses_laws::drawn;
use image_losses_ndarray::NdTensor;
use proptest::prelude::*;

use crate::tools::{Values, check_derivatives, close, differentiate, mean, scores, softplus, variant};

const TYPES: [AdvLossType; 5] =
    [AdvLossType::Gan, AdvLossType::Lsgan, AdvLossType::WganGp, AdvLossType::Ragan, AdvLossType::RaganLs];

fn loss(loss_type: AdvLossType) -> AdvLoss {
    AdvLoss { loss_type }
}

/// softplus(2x), a critic that keeps the shape and whose slope depends on its input.
fn critic<T: Tensor>(x: &T) -> Result<T> {
    x.scale(2.0)?.unary(Unary::Softplus)
}

/// The table of the type's documentation, from predictions and the pools' means, without the gradient penalty.
fn formula(kind: AdvLossType, step: Side, f: &[f64], r: &[f64], m_f: f64, m_r: f64) -> f64 {
    let each = |scores: &[f64], value: &dyn Fn(f64) -> f64| mean(scores.iter().map(|&s| value(s)));
    match (kind, step) {
        (AdvLossType::Gan, Side::Discriminator) => 0.5 * (each(f, &softplus) + each(r, &|s| softplus(-s))),
        (AdvLossType::Gan, Side::Generator) => each(f, &|s| softplus(-s)),
        (AdvLossType::Lsgan, Side::Discriminator) => 0.5 * (each(f, &f64::abs) + each(r, &|s| (s - 1.0).abs())),
        (AdvLossType::Lsgan, Side::Generator) => each(f, &|s| (s - 1.0).abs()),
        (AdvLossType::WganGp, Side::Discriminator) => each(f, &|s| s) - each(r, &|s| s),
        (AdvLossType::WganGp, Side::Generator) => -each(f, &|s| s),
        (AdvLossType::Ragan, Side::Discriminator) => {
            0.5 * (each(r, &|s| softplus(-(s - m_f))) + each(f, &|s| softplus(s - m_r)))
        }
        (AdvLossType::Ragan, Side::Generator) => {
            0.5 * (each(r, &|s| softplus(s - m_f)) + each(f, &|s| softplus(-(s - m_r))))
        }
        (AdvLossType::RaganLs, Side::Discriminator) => {
            0.5 * (each(r, &|s| (s - m_f - 1.0).powi(2)) + each(f, &|s| (s - m_r + 1.0).powi(2)))
        }
        (AdvLossType::RaganLs, Side::Generator) => {
            0.5 * (each(r, &|s| (s - m_f + 1.0).powi(2)) + each(f, &|s| (s - m_r - 1.0).powi(2)))
        }
    }
}

fn images() -> impl Strategy<Value = [Values; 2]> {
    (1usize..4, 1usize..3, 1usize..3).prop_flat_map(|(n, c, h)| {
        (scores(vec![n, c, h, 2]), scores(vec![n, c, h, 2])).prop_map(|(fake, real)| [fake, real])
    })
}

proptest! {
    #![proptest_config(drawn(64))]

    #[test]
    fn drawn_values_are_the_formulas(
        kind in prop::sample::select(TYPES.to_vec()),
        step in prop::sample::select(vec![Side::Discriminator, Side::Generator]),
        [fake, real] in images(),
    ) {
        let state = AdvState::<Sample>::new(0);
        let judge = |x: &[f64]| -> Vec<f64> { x.iter().map(|&x| softplus(2.0 * x)).collect() };
        let (f, r) = (judge(&fake.0), judge(&real.0));
        let (m_f, m_r) = (mean(f.clone()), mean(r.clone()));
        let mut expected = formula(kind, step, &f, &r, m_f, m_r);
        if (kind, step) == (AdvLossType::WganGp, Side::Discriminator) {
            // α = ¼: x̂ = r/4 + 3f/4, and the critic's slope is 2·sigmoid(2x̂), normed over the channels.
            let slopes: Vec<f64> = fake.0.iter().zip(&real.0)
                .map(|(f, r)| 2.0 / (1.0 + (-2.0 * (0.25 * r + 0.75 * f)).exp()))
                .collect();
            let [n, c, h, w] = fake.1[..] else { unreachable!() };
            let pixels = (0..n).flat_map(|n| (0..h * w).map(move |p| (n, p)));
            let norms = pixels.map(|(n, p)| {
                let squares = (0..c).map(|c_| slopes[(n * c + c_) * h * w + p].powi(2));
                (squares.sum::<f64>().sqrt() - 1.0).powi(2)
            });
            expected += 10.0 * mean(norms);
        }
        let (value, _) = differentiate(&[fake.clone(), real.clone()], |x| {
            let mut state = state.clone();
            let n = fake.1[0];
            let alpha = AgTensor::constant(&x[0].context(), &vec![0.25; n], &[n, 1, 1, 1])?;
            if step == Side::Generator {
                state.add_values((&f, &fake.1), (&r, &real.1))?;
            }
            Ok(loss(kind).forward(critic, &x[0], &x[1], step, Some(&alpha), &mut state)?.loss)
        })?;
        close(value, expected, 1e-12);
    }

    #[test]
    fn drawn_derivatives_are_those_of_the_value(
        kind in prop::sample::select(TYPES.to_vec()),
        [fake, real] in images(),
        past in prop::collection::vec(-1.0f64..1.0, 1..4),
    ) {
        let mut state = AdvState::<Sample>::new(0);
        state.add_values((&past, &[past.len()]), (&past, &[past.len()])).unwrap();
        // The generator's step by both images; in the discriminator's nothing reaches the generated ones.
        check_derivatives(&[fake.clone(), real.clone()], |x| {
            Ok(loss(kind).forward(critic, &x[0], &x[1], Side::Generator, None, &mut state.clone())?.loss)
        });
        let (_, gradients) = differentiate(&[fake, real], |x| {
            Ok(loss(kind).forward(critic, &x[0], &x[1], Side::Discriminator, None, &mut state.clone())?.loss)
        })?;
        prop_assert!(gradients[0].iter().all(|&g| g == 0.0));
        prop_assert!(gradients[1].iter().any(|&g| g != 0.0) || matches!(kind, AdvLossType::Lsgan | AdvLossType::RaganLs));
    }

    #[test]
    fn drawn_the_critics_gradient_is_that_of_its_value(
        kind in prop::sample::select(vec![AdvLossType::Gan, AdvLossType::WganGp]),
        [fake, real] in images(),
        slope in 0.5f64..2.0,
    ) {
        // A parameter of the critic; with wgan-gp a second derivative. The pools' means are constants in the relativistic
        // objectives, so their gradient is not that of the value.
        check_derivatives(&[(vec![slope], vec![1])], |w| {
            let image = |(values, shape): &Values| AgTensor::constant(&w[0].context(), values, shape);
            let (fake, real) = (image(&fake)?, image(&real)?);
            let n = fake.shape()[0];
            let alpha = AgTensor::constant(&w[0].context(), &vec![0.25; n], &[n, 1, 1, 1])?;
            let critic = |x: &_| w[0].mul(x)?.unary(Unary::Softplus);
            let mut state = AdvState::<Sample>::new(0);
            Ok(loss(kind).forward(critic, &fake, &real, Side::Discriminator, Some(&alpha), &mut state)?.loss)
        });
    }
}

/// Steps of 20 samples fill pools of 50 beyond their size. Numbers that outlive their graphs, tensors in one graph, and a
/// list kept by hand agree.
#[test]
fn pools_remember_the_last_fifty() {
    let batches: Vec<[Vec<f64>; 2]> = (0..5)
        .map(|step| {
            let wave = |phase: f64| (0..20).map(|i| (f64::from(step * 20 + i) * 0.7 + phase).sin() * 2.0).collect();
            [wave(0.0), wave(1.0)]
        })
        .collect();
    let tail = |all: &[f64]| all[all.len().saturating_sub(50)..].to_vec();
    let (mut seen_f, mut seen_r): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut expected = Vec::new();
    let kind = AdvLossType::RaganLs;
    for [f, r] in &batches {
        seen_f.extend(f);
        seen_r.extend(r);
        let (m_f, m_r) = (mean(tail(&seen_f)), mean(tail(&seen_r)));
        expected.push(formula(kind, Side::Discriminator, f, r, m_f, m_r));
        expected.push(formula(kind, Side::Generator, f, r, m_f, m_r));
    }

    let steps = [Side::Discriminator, Side::Generator];
    let mut state = AdvState::<Sample>::new(1);
    let mut across = Vec::new();
    for [f, r] in &batches {
        for step in steps {
            run(|session| {
                let (fake, real) = (session.input(f.clone(), &[20, 1])?, session.input(r.clone(), &[20, 1])?);
                let terms = loss(kind).forward(|x: &_| x.shift(0.0), &fake, &real, step, None, &mut state)?;
                match &terms.predictions {
                    Some(new) => {
                        let values = session.evaluate(&[&terms.loss, &new.fake, &new.real])?;
                        state.add_values((&values[1], &[20, 1]), (&values[2], &[20, 1]))?;
                        across.push(values[0][0]);
                    }
                    None => across.push(session.evaluate(&[&terms.loss])?[0][0]),
                }
                Ok::<_, image_losses_core::Error>(())
            })
            .unwrap();
        }
    }
    assert_eq!(state.fake_pool.len(), 50);
    let inside = run(|session| {
        let mut state = AdvState::new(1);
        let mut values = Vec::new();
        for [f, r] in &batches {
            for step in steps {
                let (fake, real) = (session.input(f.clone(), &[20, 1])?, session.input(r.clone(), &[20, 1])?);
                let terms = loss(kind).forward(|x: &_| x.shift(0.0), &fake, &real, step, None, &mut state)?;
                state.add(&terms, |x| Ok(session.evaluate(&[x])?.remove(0)))?;
                values.push(terms.loss);
            }
        }
        session.evaluate(&values.iter().collect::<Vec<_>>())
    })
    .unwrap();
    for ((expected, across), inside) in expected.iter().zip(&across).zip(&inside) {
        close(*across, *expected, 1e-13);
        close(inside[0], *expected, 1e-13);
    }
}

/// A step counts its own predictions among the past ones before it draws a sample: as adding and then asking does.
#[test]
fn a_step_draws_as_a_query_after_adding() {
    for seed in 0..20 {
        let pool = || {
            let mut pool = ImagePool::new(6, seed).with_sample_size(3).unwrap();
            pool.add(Sample::split(&[10.0, 20.0, 30.0, 40.0, 50.0], &[5]).unwrap());
            pool
        };
        let mut state = AdvState::<Sample>::new(0);
        (state.fake_pool, state.real_pool) = (pool(), pool());
        let (f, r) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]);
        let drawn = |new: &[f64]| {
            let mut pool = pool();
            pool.add(Sample::split(new, &[3]).unwrap());
            mean(pool.query().into_iter().map(|sample| sample.values()[0]))
        };
        let expected = formula(AdvLossType::RaganLs, Side::Discriminator, &f, &r, drawn(&f), drawn(&r));
        let inputs = [(f.to_vec(), vec![3]), (r.to_vec(), vec![3])];
        let (value, _) = differentiate(&inputs, |x| {
            let step = Side::Discriminator;
            Ok(loss(AdvLossType::RaganLs)
                .forward(|x: &_| x.shift(0.0), &x[0], &x[1], step, None, &mut state.clone())?
                .loss)
        })
        .unwrap();
        close(value, expected, 1e-14);
    }
}

#[test]
fn pools_carry_no_gradient() {
    // One sample each: with gradients through the means everything would cancel; as constants d/dr of
    // ½(r − m_f − 1)² is r − m_f − 1.
    let inputs = [(vec![2.0], vec![1, 1]), (vec![5.0], vec![1, 1])];
    let value = run(|session| {
        let w = session.input(vec![1.0], &[1])?;
        let (fake, real) = (session.input(inputs[0].0.clone(), &[1, 1])?, session.input(inputs[1].0.clone(), &[1, 1])?);
        let mut state = AdvState::<Sample>::new(0);
        let critic = |x: &_| w.mul(x);
        let terms = loss(AdvLossType::RaganLs).forward(critic, &fake, &real, Side::Discriminator, None, &mut state)?;
        let gradient = Differentiable::gradients(&terms.loss, &[&w], false)?.remove(0).unwrap();
        session.evaluate(&[&gradient])
    })
    .unwrap();
    // (5 − 2 − 1)·5 + (2 − 5 + 1)·2
    assert_eq!(value[0], [6.0]);
}

#[test]
fn alpha_follows_the_seed() {
    let value = |seed| {
        let inputs = [(vec![0.0, 1.0], vec![2, 1]), (vec![3.0, -2.0], vec![2, 1])];
        let loss = loss(AdvLossType::WganGp);
        let state = AdvState::<Sample>::new(seed);
        let step = Side::Discriminator;
        differentiate(&inputs, |x| Ok(loss.forward(critic, &x[0], &x[1], step, None, &mut state.clone())?.loss))
            .unwrap()
            .0
    };
    assert_eq!(value(1), value(1));
    assert_ne!(value(1), value(2));
    // A second draw from one state is another one.
    let mut state = AdvState::<Sample>::new(1);
    let values = run(|session| {
        let (fake, real) = (session.input(vec![0.0], &[1, 1])?, session.input(vec![3.0], &[1, 1])?);
        let loss = loss(AdvLossType::WganGp);
        let a = loss.forward(critic, &fake, &real, Side::Discriminator, None, &mut state)?.loss;
        let b = loss.forward(critic, &fake, &real, Side::Discriminator, None, &mut state)?.loss;
        session.evaluate(&[&a, &b])
    })
    .unwrap();
    assert_ne!(values[0], values[1]);
}

#[test]
fn errors_name_their_cause() {
    run(|session| {
        let images = session.input(vec![1.0f64, 2.0], &[2, 1]).unwrap();
        let other = session.input(vec![1.0f64, 2.0, 3.0], &[3, 1]).unwrap();
        for kind in [AdvLossType::Ragan, AdvLossType::RaganLs] {
            let mut state = AdvState::<Sample>::new(0);
            let result = loss(kind).forward(critic, &images, &images, Side::Generator, None, &mut state);
            assert_eq!(variant(result), "MissingInput");
            // A pool that stores nothing has no mean.
            state.fake_pool = ImagePool::new(0, 0);
            let result = loss(kind).forward(critic, &images, &images, Side::Discriminator, None, &mut state);
            assert_eq!(variant(result), "MissingInput");
        }
        let mut state = AdvState::<Sample>::new(0);
        let step = Side::Discriminator;
        let result = loss(AdvLossType::WganGp).forward(critic, &images, &other, step, None, &mut state);
        assert_eq!(variant(result), "ShapeMismatch");
        for kind in TYPES {
            let result =
                loss(kind).forward(|x: &_| x.sum_all()?.reshape(&[]), &images, &images, step, None, &mut state);
            assert_eq!(variant(result), "ShapeRule");
        }
        let ignores =
            loss(AdvLossType::WganGp).forward(|_: &_| Ok(other.clone()), &images, &images, step, None, &mut state);
        assert_eq!(variant(ignores), "NotConnected");
    });
}

#[test]
fn configurations_and_states_are_read_and_written() {
    for (kind, name) in TYPES.into_iter().zip(["gan", "lsgan", "wgan-gp", "ragan", "ragan-ls"]) {
        let text = format!(r#"{{"loss_type":"{name}"}}"#);
        assert_eq!(serde_json::from_str::<AdvLoss>(&text).unwrap(), loss(kind));
        assert_eq!(serde_json::to_string(&loss(kind)).unwrap(), text);
    }
    for wrong in ["{}", r#"{"loss_type": "hinge"}"#, r#"{"loss_type": "gan", "loss_weight": 1}"#] {
        assert!(serde_json::from_str::<AdvLoss>(wrong).is_err(), "{wrong}");
    }
    let mut state = AdvState::<Sample>::new(4);
    state.add_values((&[1.0, 2.0], &[2, 1]), (&[3.0], &[1])).unwrap();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<AdvState<Sample>>(&text).unwrap(), state);
    assert_eq!(serde_json::to_string(&Side::Generator).unwrap(), "\"generator\"");
}

#[test]
fn predictions_that_are_not_finite_are_not_remembered() {
    for kind in [AdvLossType::Ragan, AdvLossType::RaganLs] {
        let mut state = AdvState::<Sample>::new(4);
        let step = |fake: f64, step: Side, state: &mut AdvState<Sample>| {
            run(|session| {
                let (fake, real) = (session.input(vec![fake, 1.0], &[2, 1])?, session.input(vec![4.0, 6.0], &[2, 1])?);
                let terms = loss(kind).forward(|x: &_| Ok(Clone::clone(x)), &fake, &real, step, None, state)?;
                let Some(new) = terms.predictions else { return Ok(session.evaluate(&[&terms.loss])?[0][0]) };
                let values = session.evaluate(&[&terms.loss, &new.fake, &new.real])?;
                state.add_values((&values[1], &new.fake.shape()), (&values[2], &new.real.shape()))?;
                Ok::<_, Error>(values[0][0])
            })
            .unwrap()
        };
        for overflow in [f64::INFINITY, f64::NAN] {
            assert!(!step(overflow, Side::Discriminator, &mut state).is_finite());
        }
        // Of each step the finite sample of the generated images, and both real ones.
        assert_eq!((state.fake_pool.len(), state.real_pool.len()), (2, 4));
        // Saved after the overflow and loaded, the pools go on.
        let text = serde_json::to_string(&state).unwrap();
        let mut loaded: AdvState<Sample> = serde_json::from_str(&text).unwrap();
        assert_eq!(loaded, state);
        for side in [Side::Generator, Side::Discriminator] {
            assert!(step(2.0, side, &mut loaded).is_finite());
        }
    }
}

#[test]
fn tensors_that_are_not_finite_are_not_remembered() {
    let tensor = |values: [f64; 6]| NdTensor::<f64>::constant(&(), &values, &[3, 2]).unwrap();
    let (nan, infinite) = (f64::NAN, f64::INFINITY);
    let values = |x: &NdTensor<'_, f64>| -> Vec<f64> { x.array().iter().copied().collect() };
    let mut state = AdvState::new(0);
    let fake = tensor([1.0, 2.0, 3.0, nan, infinite, 6.0]);
    let real = tensor([1.0, -infinite, nan, nan, 5.0, 6.0]);
    let terms = AdvTerms { loss: fake.clone(), predictions: Some(AdvPredictions { fake, real }) };
    state.add(&terms, |x| Ok(values(x))).unwrap();
    let kept = |pool: &ImagePool<_>| -> Vec<f64> { pool.iter().flat_map(values).collect() };
    assert_eq!((kept(&state.fake_pool), kept(&state.real_pool)), (vec![1.0, 2.0], vec![5.0, 6.0]));
    let refused = state.add(&terms, |_| Ok(vec![1.0; 5])).unwrap_err();
    assert!(matches!(refused, Error::Length { expected: 6, got: 5, .. }), "{refused}");
    assert_eq!((state.fake_pool.len(), state.real_pool.len()), (1, 1));
}
