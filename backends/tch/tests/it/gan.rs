//! The adversarial losses on tch: the same numbers as the pure-Rust engines, in every element type.

use image_losses_core::{Differentiable, Error, Tensor, Unary};
use image_losses_gan::{
    AdvLoss, AdvLossType, AdvState, FeatureMatchingLoss, GanLoss, GanType, GaussianBlur, ImagePool, LeCamAverages,
    LeCamLoss, On, RelativisticAverageHingeLoss, RelativisticPairingLoss, Sample, Side,
};
use image_losses_tch::TchTensor;
use tch::{Kind, Tensor as Torch};

const ROLES: [(Side, On); 4] = [
    (Side::Generator, On::Fake),
    (Side::Generator, On::Real),
    (Side::Discriminator, On::Real),
    (Side::Discriminator, On::Fake),
];

/// What each element type may miss by, relative to 1 or the value: the input's own rounding included.
const KINDS: [(Kind, f64); 4] =
    [(Kind::Double, 1e-12), (Kind::Float, 2e-6), (Kind::Half, 2e-3), (Kind::BFloat16, 2e-2)];

type Values = (Vec<f64>, Vec<usize>);

fn wave(shape: &[usize], phase: f64) -> Values {
    let count = shape.iter().product();
    // Multiples of 2⁻⁵ below 4: exact in every element type.
    let value = |i: usize| ((i as f64 * 0.77 + phase).sin() * 96.0).round() / 32.0;
    ((0..count).map(value).collect(), shape.to_vec())
}

fn torch((values, shape): &Values, kind: Kind) -> Torch {
    let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
    Torch::from_slice(values).reshape(shape).to_kind(kind)
}

fn values(tensor: &Torch) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

#[track_caller]
fn close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f64, |scale, value| scale.max(value.abs())).max(1.0);
    for (a, b) in got.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance * scale, "{what}: {a} and {b}");
    }
}

/// A loss of some tensors, written once for any engine that differentiates.
trait Case {
    fn call<T: Differentiable>(&self, x: &[T]) -> Result<T, Error>;
}

/// Value and gradients on tch in every element type, against the autograd engine in double precision.
fn agrees(case: &impl Case, inputs: &[Values], what: &str) {
    let (expected, expected_gradients) = image_losses_autograd::differentiate(inputs, |x| case.call(x)).unwrap();
    for (kind, tolerance) in KINDS {
        let tensors: Vec<Torch> = inputs.iter().map(|input| torch(input, kind)).collect();
        let views: Vec<&Torch> = tensors.iter().collect();
        let (value, gradients) = image_losses_tch::differentiate(&views, |x| case.call(x)).unwrap();
        assert_eq!(value.kind(), kind, "{what}");
        close(&values(&value), &expected, tolerance, &format!("{what} in {kind:?}"));
        for (gradient, expected) in gradients.iter().zip(&expected_gradients) {
            close(&values(gradient), expected, tolerance, &format!("gradient of {what} in {kind:?}"));
        }
    }
}

struct Gan(GanLoss, (Side, On));

impl Case for Gan {
    fn call<T: Differentiable>(&self, x: &[T]) -> Result<T, Error> {
        let mask = x.get(1).map(Tensor::detach);
        self.0.forward_scales(&[&x[0]], self.1.0, self.1.1, mask.as_ref())
    }
}

#[test]
fn gan_losses_agree() {
    use GanType::{Hinge, L1, Lsgan, Vanilla, Wgan, WganLogisticNs};
    for gan_type in [Vanilla, Lsgan, L1, Wgan, Hinge, WganLogisticNs] {
        for role in ROLES {
            let options = GanLoss { real_label_val: 0.875, loss_weight: 0.5, ..GanLoss::new(gan_type) };
            agrees(&Gan(options, role), &[wave(&[2, 3, 4], 0.3)], &format!("{gan_type:?} {role:?}"));
        }
    }
}

#[test]
fn smgan_agrees() {
    for mask_shape in [[2, 1, 6, 5], [2, 1, 11, 13]] {
        let count: usize = mask_shape.iter().product();
        let mask = ((0..count).map(|i| f64::from(u8::from(i % 3 == 0))).collect(), mask_shape.to_vec());
        for role in ROLES {
            let gaussian_blur = GaussianBlur { kernel_size: [7, 5], sigma: [2.0, 1.5] };
            let options = GanLoss { loss_weight: 0.5, gaussian_blur, ..GanLoss::new(GanType::Smgan) };
            let case = Gan(options, role);
            agrees(&case, &[wave(&[2, 1, 6, 5], 0.3), mask.clone()], &format!("smgan {role:?}"));
        }
        let empty = (vec![0.0; count], mask_shape.to_vec());
        let loss = GanLoss::new(GanType::Smgan);
        agrees(&Gan(loss, (Side::Generator, On::Fake)), &[wave(&[2, 1, 6, 5], 0.3), empty], "smgan with an empty mask");
    }
}

/// libtorch's own softplus is the identity above 20; a critic's scores do get there.
#[test]
fn confident_scores_keep_their_digits() {
    let scores: Vec<f64> = vec![-700.0, -40.0, -1.0, 0.0, 1.0, 19.0, 21.0, 25.0, 40.0, 700.0];
    let input = (scores.clone(), vec![scores.len(), 1]);
    for role in ROLES {
        for gan_type in [GanType::Vanilla, GanType::WganLogisticNs] {
            agrees(&Gan(GanLoss::new(gan_type), role), std::slice::from_ref(&input), "confident scores");
        }
    }
    // As a map, in every element type; first and second derivatives σ(x) and σ(x)(1 − σ(x)).
    for (kind, tolerance) in KINDS {
        let x = TchTensor::own(torch(&input, kind)).unwrap().leaf().unwrap();
        let y = x.unary(Unary::Softplus).unwrap();
        assert_eq!(y.tensor().kind(), kind);
        let first = Differentiable::gradients(&y, &[&x], true).unwrap().remove(0).unwrap();
        let second = Differentiable::gradients(&first, &[&x], false).unwrap().remove(0).unwrap();
        let expected = |value: &dyn Fn(f64) -> f64| scores.iter().map(|&x| value(x)).collect::<Vec<f64>>();
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        close(&values(first.tensor()), &expected(&sigmoid), tolerance, "slope");
        close(&values(second.tensor()), &expected(&|x| sigmoid(x) * sigmoid(-x)), tolerance, "curvature");
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        for (got, expected) in values(y.tensor()).iter().zip(expected(&softplus)) {
            assert!((got - expected).abs() <= tolerance * expected.max(1.0), "{got} and {expected} in {kind:?}");
        }
    }
}

#[test]
fn half_precision_does_not_overflow() {
    // The sum is 300,000, beyond half precision's 65,504; the mean is 3.
    let scores = TchTensor::own(Torch::full([100_000], 3.0, (Kind::Half, tch::Device::Cpu))).unwrap();
    let loss = GanLoss::new(GanType::Wgan);
    let value = loss.forward(&scores, Side::Discriminator, On::Fake, None).unwrap();
    assert_eq!(values(value.tensor()), [3.0]);
}

enum Beyond {
    Pairing(Side),
    Hinge(Side),
    LeCam,
    Matching,
}

impl Case for Beyond {
    fn call<T: Differentiable>(&self, x: &[T]) -> Result<T, Error> {
        let (fake, real) = (&x[0], &x[1]);
        match *self {
            Beyond::Pairing(step) => RelativisticPairingLoss::default().forward(fake, real, step),
            Beyond::Hinge(step) => RelativisticAverageHingeLoss::default().forward(fake, real, step),
            Beyond::LeCam => {
                let averages = LeCamAverages { real: Some(0.5), fake: Some(-0.25) };
                LeCamLoss::default().forward(fake, real, &averages)
            }
            Beyond::Matching => FeatureMatchingLoss::default().forward(&[fake, real], &[real, fake]),
        }
    }
}

#[test]
fn losses_beyond_mmagic_agree() {
    let inputs = [wave(&[3, 4], 0.3), wave(&[3, 4], 1.9)];
    for step in [Side::Discriminator, Side::Generator] {
        agrees(&Beyond::Pairing(step), &inputs, "pairing");
        agrees(&Beyond::Hinge(step), &inputs, "average hinge");
    }
    agrees(&Beyond::LeCam, &inputs, "LeCam");
    agrees(&Beyond::Matching, &inputs, "feature matching");
}

/// A step of the critic softplus(w·x) with one weight per element, by w and both images.
struct Adversarial(AdvLoss, Side);

impl Case for Adversarial {
    fn call<T: Differentiable>(&self, x: &[T]) -> Result<T, Error> {
        let critic = |image: &T| x[2].mul(image)?.unary(Unary::Softplus)?.sum(&[1, 2, 3], false);
        let samples = x[0].shape()[0];
        let alpha = T::constant(&x[0].context(), &vec![0.25; samples], &[samples, 1, 1, 1])?;
        let mut state = AdvState::<Sample>::new(0);
        // Numbers rather than tensors: the same pools on every engine.
        let past = Sample::split(&[0.5, 1.5], &[2, 1])?;
        (state.fake_pool, state.real_pool) = (ImagePool::new(50, 0), ImagePool::new(50, 0));
        state.fake_pool.add(past.clone());
        state.real_pool.add(past);
        Ok(self.0.forward(critic, &x[0], &x[1], self.1, Some(&alpha), &mut state)?.loss)
    }
}

#[test]
fn adversarial_objectives_agree() {
    let inputs = [wave(&[3, 2, 2, 2], 0.3), wave(&[3, 2, 2, 2], 1.9), wave(&[1, 2, 2, 2], 0.7)];
    for loss_type in
        [AdvLossType::Gan, AdvLossType::Lsgan, AdvLossType::WganGp, AdvLossType::Ragan, AdvLossType::RaganLs]
    {
        for step in [Side::Discriminator, Side::Generator] {
            let case = Adversarial(AdvLoss { loss_type }, step);
            let (expected, expected_gradients) =
                image_losses_autograd::differentiate(&inputs, |x| case.call(x)).unwrap();
            // Half precision is left to the scores' own losses above: here the critic's rounding would dominate.
            for (kind, tolerance) in &KINDS[..2] {
                let tensors: Vec<Torch> = inputs.iter().map(|input| torch(input, *kind)).collect();
                let views: Vec<&Torch> = tensors.iter().collect();
                let (value, gradients) = image_losses_tch::differentiate(&views, |x| case.call(x)).unwrap();
                let what = format!("{loss_type:?} {step:?} in {kind:?}");
                close(&values(&value), &expected, *tolerance, &what);
                for (gradient, expected) in gradients.iter().zip(&expected_gradients) {
                    close(&values(gradient), expected, *tolerance, &what);
                }
            }
        }
    }
}

/// Pools of tensors: 4 steps of 20 samples; the pools hold the last 50 and carry no gradient.
#[test]
fn pools_hold_tensors() {
    let loss = AdvLoss { loss_type: AdvLossType::RaganLs };
    for (kind, tolerance) in KINDS {
        let mut state = AdvState::<TchTensor>::new(0);
        let (mut seen_f, mut seen_r): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
        for step in 0..4 {
            let (f, r) = (wave(&[20, 1], f64::from(step)), wave(&[20, 1], f64::from(step) + 0.5));
            seen_f.extend(&f.0);
            seen_r.extend(&r.0);
            let mean = |all: &[f64]| {
                let last = &all[all.len().saturating_sub(50)..];
                last.iter().sum::<f64>() / last.len() as f64
            };
            let (m_f, m_r) = (mean(&seen_f), mean(&seen_r));
            for (who, sign) in [(Side::Discriminator, 1.0), (Side::Generator, -1.0)] {
                let weight = Torch::from(1.0).to_kind(kind).set_requires_grad(true);
                let images = [&f, &r].map(|values| TchTensor::own(torch(values, kind)).unwrap());
                let scale = TchTensor::new(&weight).unwrap();
                let terms =
                    loss.forward(|x: &TchTensor| scale.mul(x), &images[0], &images[1], who, None, &mut state).unwrap();
                state.add(&terms, TchTensor::values).unwrap();
                let average = |scores: &[f64], value: &dyn Fn(f64) -> f64| {
                    scores.iter().map(|&s| value(s)).sum::<f64>() / scores.len() as f64
                };
                let expected =
                    0.5 * (average(&r.0, &|s| (s - m_f - sign).powi(2)) + average(&f.0, &|s| (s - m_r + sign).powi(2)));
                close(&values(terms.loss.tensor()), &[expected], tolerance, "value");
                // With the means constant: d/dw ½(w·s − c)² = (s − c)·s.
                let gradient = average(&r.0, &|s| (s - m_f - sign) * s) + average(&f.0, &|s| (s - m_r + sign) * s);
                terms.loss.tensor().backward();
                close(&values(&weight.grad()), &[gradient], tolerance * 4.0, "gradient");
            }
        }
        assert_eq!((state.fake_pool.len(), state.real_pool.len()), (50, 50));
    }
}
