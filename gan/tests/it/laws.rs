//! Every loss of the family in each of its roles, with options drawn. The including test names the engine.

use image_losses_core::{Differentiable, Result, Tensor};
use image_losses_gan::*;
use image_losses_laws::{Hand, Lawful, Rank, Takes, Weight, general};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ENGINE;

fn weights() -> impl Strategy<Value = f64> + Clone {
    (-8..=8i8).prop_map(|v| f64::from(v) / 4.0)
}

/// A quarter in [−1.5, 1.5]; where a hinge or a distance bends, the grid of the scores does not.
fn quarter() -> impl Strategy<Value = f64> + Clone {
    (-6..=6i8).prop_map(|v| f64::from(v) / 4.0 + 1.0 / 64.0)
}

/// Implements the laws' trait for a wrapper by one expression, for engines with derivatives and without.
macro_rules! lawful {
    ($wrapper:ty, $inputs:literal, [$($generic:tt)*], |$this:ident, $x:ident, $weight:ident| $call:expr) => {
        impl<$($generic)*> Lawful<$inputs> for $wrapper {
            fn apply<T: Differentiable>(&self, inputs: [&T; $inputs], weight: Option<&T>) -> Result<T> {
                self.apply_plainly(inputs, weight).expect("every engine will do")
            }
            fn apply_plainly<T: Tensor>(&self, $x: [&T; $inputs], $weight: Option<&T>) -> Option<Result<T>> {
                let $this = self;
                Some($call)
            }
        }
    };
}

/// A loss of scores in one role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct InRole<const REAL: bool, const DISCRIMINATOR: bool>(GanLoss);

lawful!(InRole<REAL, DISCRIMINATOR>, 1, [const REAL: bool, const DISCRIMINATOR: bool], |this, x, mask| {
    let (side, on) = Side::from_flags(REAL, DISCRIMINATOR);
    this.0.forward(x[0], side, on, mask)
});

const SCORES: Takes<1> = Takes {
    weight: Weight::Absent,
    rank: Rank::Scores,
    scaled_by: &[],
    required: &["gan_type"],
    ..Takes::new(["scores"])
};

/// The formulas, a score at a time, as the family's table writes them.
fn formula(options: &GanLoss, real: bool, discriminator: bool, s: f64) -> f64 {
    let label = if real { options.real_label_val } else { options.fake_label_val };
    let toward = if real { s } else { -s };
    let value = match options.gan_type {
        GanType::Vanilla => (1.0 + s.exp()).ln() - s * label,
        GanType::Lsgan => (s - label).powi(2),
        GanType::L1 => (s - label).abs(),
        GanType::Wgan => -toward,
        GanType::Hinge if discriminator => f64::max(0.0, 1.0 - toward),
        GanType::Hinge => -s,
        GanType::WganLogisticNs => (1.0 + (-toward).exp()).ln(),
        GanType::Smgan => unreachable!("it has no formula of a score alone"),
    };
    if discriminator { value } else { options.loss_weight * value }
}

fn in_role<const REAL: bool, const DISCRIMINATOR: bool>(gan_type: GanType) {
    let losses = (quarter(), quarter(), weights()).prop_map(move |(real_label_val, fake_label_val, loss_weight)| {
        let options = GanLoss { real_label_val, fake_label_val, loss_weight, ..GanLoss::new(gan_type) };
        InRole::<REAL, DISCRIMINATOR>(options)
    });
    let scaled_by: &[_] = if DISCRIMINATOR { &[] } else { &["loss_weight"] };
    general(&ENGINE, losses, Takes { scaled_by, ..SCORES }, |loss| {
        let options = loss.0;
        let mut points = vec![if REAL { options.real_label_val } else { options.fake_label_val }];
        points.extend([2.0, -1.0, 0.125, -3.0]);
        let hand = |s| Hand { shape: vec![1], inputs: [vec![s]], value: formula(&options, REAL, DISCRIMINATOR, s) };
        points.into_iter().map(hand).collect()
    });
}

/// In all four roles.
fn in_all_roles(gan_type: GanType) {
    in_role::<true, true>(gan_type);
    in_role::<false, true>(gan_type);
    in_role::<true, false>(gan_type);
    in_role::<false, false>(gan_type);
}

#[test]
fn vanilla() {
    in_all_roles(GanType::Vanilla);
}

#[test]
fn lsgan() {
    in_all_roles(GanType::Lsgan);
}

#[test]
fn l1() {
    in_all_roles(GanType::L1);
}

#[test]
fn wgan() {
    in_all_roles(GanType::Wgan);
}

#[test]
fn hinge() {
    in_all_roles(GanType::Hinge);
}

#[test]
fn wgan_logistic_ns() {
    in_all_roles(GanType::WganLogisticNs);
}

/// Two sets of scores, generated first.
const PAIR: Takes<2> =
    Takes { weight: Weight::Absent, rank: Rank::Scores, scaled_by: &[], ..Takes::new(["fake", "real"]) };

/// λ of the generator's step.
fn lambda(generator: bool) -> &'static [&'static str] {
    if generator { &["loss_weight"] } else { &[] }
}

fn step(generator: bool) -> Side {
    if generator { Side::Generator } else { Side::Discriminator }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Pairing<const GENERATOR: bool>(RelativisticPairingLoss);

lawful!(Pairing<GENERATOR>, 2, [const GENERATOR: bool], |this, x, _mask| {
    this.0.forward(x[1], x[0], step(GENERATOR))
});

fn pairing<const GENERATOR: bool>() {
    let losses = weights().prop_map(|loss_weight| Pairing::<GENERATOR>(RelativisticPairingLoss { loss_weight }));
    let takes = Takes { names: ["real", "fake"], symmetric: Some(false), scaled_by: lambda(GENERATOR), ..PAIR };
    general(&ENGINE, losses, takes, |loss| {
        let lambda = if GENERATOR { loss.0.loss_weight } else { 1.0 };
        // softplus(0) = ln 2; real above fake by 2: softplus(−2) = 0.126928011042972, softplus(2) = that + 2.
        let apart = 0.126_928_011_042_972 + if GENERATOR { 2.0 } else { 0.0 };
        vec![
            Hand { shape: vec![1], inputs: [vec![0.5], vec![0.5]], value: lambda * 2f64.ln() },
            Hand { shape: vec![1], inputs: [vec![1.0], vec![-1.0]], value: lambda * apart },
        ]
    });
}

#[test]
fn relativistic_pairing() {
    pairing::<true>();
    pairing::<false>();
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct AverageHinge<const GENERATOR: bool>(RelativisticAverageHingeLoss);

lawful!(AverageHinge<GENERATOR>, 2, [const GENERATOR: bool], |this, x, _mask| {
    this.0.forward(x[0], x[1], step(GENERATOR))
});

fn average_hinge<const GENERATOR: bool>() {
    let losses = weights().prop_map(|loss_weight| {
        let options = RelativisticAverageHingeLoss { loss_weight };
        AverageHinge::<GENERATOR>(options)
    });
    // Means of either set are subtracted: a hinge may bend on any fraction, so that only distant sets are smooth. The
    // two sets may differ in shape.
    let takes = Takes { symmetric: Some(false), same_shape: false, apart: true, scaled_by: lambda(GENERATOR), ..PAIR };
    general(&ENGINE, losses, takes, |loss| {
        let lambda = if GENERATOR { loss.0.loss_weight } else { 1.0 };
        // Real 1.5 above fake: the discriminator is content, the generator pays 2.5 twice.
        let apart = if GENERATOR { 5.0 } else { 0.0 };
        vec![
            Hand { shape: vec![1], inputs: [vec![0.5], vec![0.5]], value: lambda * 2.0 },
            Hand { shape: vec![2], inputs: [vec![0.0, 0.0], vec![1.5, 1.5]], value: lambda * apart },
        ]
    });
}

#[test]
fn relativistic_average_hinge() {
    average_hinge::<true>();
    average_hinge::<false>();
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct LeCam(LeCamLoss);

/// The moving averages of the real and of the generated scores; off the scores' grid.
const AVERAGES: LeCamAverages = LeCamAverages { real: Some(1.515_625), fake: Some(-0.734_375) };

lawful!(LeCam, 2, [], |this, x, _mask| this.0.forward(x[0], x[1], &AVERAGES));

#[test]
fn lecam() {
    let losses = (weights(), any::<bool>())
        .prop_map(|(loss_weight, one_sided)| LeCam(LeCamLoss { loss_weight, one_sided, decay: 0.5 }));
    let takes = Takes { symmetric: Some(false), same_shape: false, scaled_by: &["loss_weight"], ..PAIR };
    general(&ENGINE, losses, takes, |loss| {
        let LeCamLoss { loss_weight, one_sided, .. } = loss.0;
        // (real − α_fake)² + (fake − α_real)²; one-sided, only real above α_fake and fake below α_real count.
        let (real, fake) = (-1.734_375, 2.515_625);
        vec![
            Hand { shape: vec![1], inputs: [vec![1.515_625], vec![-0.734_375]], value: 0.0 },
            Hand {
                shape: vec![1],
                inputs: [vec![fake], vec![real]],
                value: if one_sided { 0.0 } else { 2.0 * loss_weight },
            },
            Hand { shape: vec![1], inputs: [vec![0.515_625], vec![1.265_625]], value: loss_weight * (1.0 + 4.0) },
        ]
    });
}

/// Features of two layers, as the discriminator gives them: the input and its half.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct TwoLayers(FeatureMatchingLoss);

lawful!(TwoLayers, 1, [], |this, x, _mask| {
    let second = |x: &T| x.scale(0.5)?.sum(&[0], true);
    let real = |x: &T| x.affine(0.0, 4.0);
    (|| this.0.forward(&[x[0], &second(x[0])?], &[&real(x[0])?, &second(&real(x[0])?)?]))()
});

#[test]
fn feature_matching() {
    let criterion = prop_oneof![Just(FeatureCriterion::L1), Just(FeatureCriterion::Mse)];
    let losses = (weights(), criterion)
        .prop_map(|(loss_weight, criterion)| TwoLayers(FeatureMatchingLoss { loss_weight, criterion }));
    let takes = Takes { scaled_by: &["loss_weight"], ..Takes { required: &[], ..SCORES } };
    general(&ENGINE, losses, takes, |loss| {
        let FeatureMatchingLoss { loss_weight, criterion } = loss.0;
        // 4 is what is matched; 3 from it in the first layer, 1.5 in the second.
        let apart = if criterion == FeatureCriterion::L1 { 3.0 + 1.5 } else { 9.0 + 2.25 };
        vec![
            Hand { shape: vec![1], inputs: [vec![4.0]], value: 0.0 },
            Hand { shape: vec![1], inputs: [vec![1.0]], value: loss_weight * apart },
        ]
    });
}

/// `smgan` with a fixed mask over the left half: every score's extent is the mask's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Masked<const REAL: bool, const DISCRIMINATOR: bool>(GanLoss);

lawful!(Masked<REAL, DISCRIMINATOR>, 1, [const REAL: bool, const DISCRIMINATOR: bool], |this, x, _mask| {
    let mut shape = x[0].shape();
    if shape.len() > 1 {
        shape[1] = 1;
    }
    let width = shape.last().copied().unwrap_or(1);
    let inside = |i: usize| if i % width.max(1) <= width / 2 { 1.0 } else { 0.0 };
    let values: Vec<f64> = (0..shape.iter().product()).map(inside).collect();
    let mask = T::constant(&x[0].context(), &values, &shape);
    let (side, on) = Side::from_flags(REAL, DISCRIMINATOR);
    mask.and_then(|mask| this.0.forward(x[0], side, on, Some(&mask)))
});

fn masked<const REAL: bool, const DISCRIMINATOR: bool>() {
    let losses = (quarter(), quarter(), weights()).prop_map(move |(real_label_val, fake_label_val, loss_weight)| {
        let gaussian_blur = GaussianBlur { kernel_size: [1, 1], sigma: [1.0, 1.0] };
        let options =
            GanLoss { real_label_val, fake_label_val, loss_weight, gaussian_blur, ..GanLoss::new(GanType::Smgan) };
        Masked::<REAL, DISCRIMINATOR>(options)
    });
    let takes = Takes { rank: Rank::Image, scaled_by: lambda(!DISCRIMINATOR), ..SCORES };
    general(&ENGINE, losses, takes, |loss| {
        let GanLoss { real_label_val, fake_label_val, loss_weight, .. } = loss.0;
        let label = if REAL { real_label_val } else { fake_label_val };
        // One pixel, in the hole; a kernel of one pixel leaves the mask as it is, 1: the discriminator's target of fakes.
        let target = if DISCRIMINATOR && !REAL { 1.0 } else { label };
        let lambda = if DISCRIMINATOR { 1.0 } else { loss_weight };
        vec![
            Hand { shape: vec![1; 4], inputs: [vec![target]], value: 0.0 },
            Hand { shape: vec![1; 4], inputs: [vec![target + 3.0]], value: lambda * 9.0 },
        ]
    });
}

#[test]
fn smgan() {
    masked::<true, true>();
    masked::<false, true>();
    masked::<true, false>();
    masked::<false, false>();
}

/// DeblurGANv2's objective in the generator's step: the critic gives the images back. The real ones are 1, the means of
/// the pools −½ and ¾.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Adversary(AdvLoss);

/// DeblurGANv2's objective in the discriminator's step: the laws draw the parameters w of the critic w·x at generated
/// images of 1 and real ones of −1, so that its predictions are w and −w. The pools are empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Critic(AdvLoss);

impl Lawful<1> for Adversary {
    fn apply<T: Differentiable>(&self, [fake]: [&T; 1], _: Option<&T>) -> Result<T> {
        let mut state = AdvState::<Sample>::new(7);
        state.add_values((&[-1.0, 0.0], &[2, 1]), (&[0.5, 1.0], &[2, 1]))?;
        let real = T::full(&fake.context(), 1.0, &fake.shape())?;
        Ok(self.0.forward(|x| Ok(x.clone()), fake, &real, Side::Generator, None, &mut state)?.loss)
    }
    fn apply_plainly<T: Tensor>(&self, _: [&T; 1], _: Option<&T>) -> Option<Result<T>> {
        None
    }
}

impl Lawful<1> for Critic {
    fn apply<T: Differentiable>(&self, [w]: [&T; 1], _: Option<&T>) -> Result<T> {
        let images = |value: f64| T::full(&w.context(), value, &w.shape());
        let mut per_sample = vec![1; w.rank()];
        per_sample[0] = w.shape()[0];
        let alpha = T::full(&w.context(), 0.25, &per_sample)?;
        let mut state = AdvState::<Sample>::new(7);
        let (fake, real) = (images(1.0)?, images(-1.0)?);
        Ok(self.0.forward(|x| x.mul(w), &fake, &real, Side::Discriminator, Some(&alpha), &mut state)?.loss)
    }
    fn apply_plainly<T: Tensor>(&self, _: [&T; 1], _: Option<&T>) -> Option<Result<T>> {
        None
    }
}

fn softplus(x: f64) -> f64 {
    (1.0 + x.exp()).ln()
}

/// Both steps of an objective, with their values at given inputs.
fn adversarial(loss_type: AdvLossType, generator: &[(f64, f64)], critic: &[(f64, f64)], of_critic: Takes<1>) {
    let loss = AdvLoss { loss_type };
    let takes = Takes { required: &["loss_type"], ..SCORES };
    let hand = |points: &[(f64, f64)]| -> Vec<Hand<1>> {
        points.iter().map(|&(x, value)| Hand { shape: vec![1, 1], inputs: [vec![x]], value }).collect()
    };
    general(&ENGINE, Just(Adversary(loss)), takes, |_| hand(generator));
    general(&ENGINE, Just(Critic(loss)), Takes { required: &["loss_type"], ..of_critic }, |_| hand(critic));
}

#[test]
fn adversarial_cross_entropy() {
    let (generator, critic) =
        ([(0.0, softplus(0.0)), (2.0, softplus(-2.0))], [(0.0, softplus(0.0)), (2.0, softplus(2.0))]);
    adversarial(AdvLossType::Gan, &generator, &critic, SCORES);
}

#[test]
fn adversarial_distance() {
    // ½·|w| + ½·|−w − 1|
    adversarial(AdvLossType::Lsgan, &[(1.0, 0.0), (-2.0, 3.0)], &[(-1.0, 0.5), (2.0, 2.5)], SCORES);
}

#[test]
fn adversarial_wasserstein() {
    // w − (−w) + 10·(|w| − 1)². The penalty needs channels, and has a kink at 0.
    let of_critic = Takes { rank: Rank::Batch, apart: true, ..SCORES };
    adversarial(AdvLossType::WganGp, &[(0.0, 0.0), (2.0, -2.0)], &[(1.0, 2.0), (3.0, 46.0)], of_critic);
}

/// The discriminator's own predictions are in the means, which are constants.
const RELATIVISTIC: Takes<1> = Takes { detached: true, ..SCORES };

#[test]
fn adversarial_relativistic() {
    let generator =
        [(0.75, 0.5 * softplus(1.5) + 0.5 * softplus(0.0)), (2.75, 0.5 * softplus(1.5) + 0.5 * softplus(-2.0))];
    // Of one sample the means are w and −w: softplus(2w).
    let critic = [(0.0, softplus(0.0)), (1.0, softplus(2.0))];
    adversarial(AdvLossType::Ragan, &generator, &critic, RELATIVISTIC);
}

#[test]
fn adversarial_relativistic_squares() {
    // ½·(1 + ½ + 1)² + ½·(f − ¾ − 1)²; (2w + 1)².
    let generator = [(1.75, 3.125), (0.75, 3.625)];
    adversarial(AdvLossType::RaganLs, &generator, &[(-0.5, 0.0), (1.0, 9.0)], RELATIVISTIC);
}
