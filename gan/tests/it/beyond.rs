//! The losses beyond MMagic, against their papers' formulas written out here.

use image_losses_core::{Declared, Tensor};
use image_losses_gan::{
    FeatureCriterion, FeatureMatchingLoss, LeCamAverages, LeCamLoss, RelativisticAverageHingeLoss,
    RelativisticPairingLoss, Side,
};
use image_losses_laws::drawn;
use proptest::prelude::*;

use crate::tools::{
    Values, check_derivatives, close, differentiate, mean, nd, nd32, quarter, scores, shapes, softplus, variant,
};

fn steps() -> impl Strategy<Value = Side> {
    prop::sample::select(vec![Side::Discriminator, Side::Generator])
}

fn pairs() -> impl Strategy<Value = [Values; 2]> {
    shapes().prop_flat_map(|shape| (scores(shape.clone()), scores(shape)).prop_map(|(fake, real)| [fake, real]))
}

/// Two batches whose shapes differ.
fn batches() -> impl Strategy<Value = [Values; 2]> {
    (shapes().prop_flat_map(scores), shapes().prop_flat_map(scores)).prop_map(|(fake, real)| [fake, real])
}

proptest! {
    #![proptest_config(drawn(64))]

    #[test]
    fn drawn_pairing_is_r3gans_formula([fake, real] in pairs(), step in steps(), loss_weight in -2.0f64..2.0) {
        let loss = RelativisticPairingLoss { loss_weight };
        // L(θ, ψ) = E f(D(G(z)) − D(x)) with f(t) = −ln(1 + e⁻ᵗ): the generator minimises it with the roles of the two
        // swapped, in its non-saturating form; both are the softplus of a negated difference.
        let f = |t: f64| -(1.0 + (-t).exp()).ln();
        let expected = mean(fake.0.iter().zip(&real.0).map(|(fake, real)| match step {
            Side::Discriminator => -f(real - fake),
            Side::Generator => -f(fake - real) * loss_weight,
        }));
        close(loss.forward(&nd(&fake.0, &fake.1), &nd(&real.0, &real.1), step)?.item()?, expected, 1e-13);
        check_derivatives(&[fake, real], |x| loss.forward(&x[0], &x[1], step));
    }

    #[test]
    fn drawn_average_hinge_is_the_papers_formula([fake, real] in batches(), step in steps(), loss_weight in -2.0f64..2.0) {
        let loss = RelativisticAverageHingeLoss { loss_weight };
        let (mean_fake, mean_real) = (mean(fake.0.clone()), mean(real.0.clone()));
        let (mut expected, mut kink) = (0.0, f64::INFINITY);
        for (scores, other, is_real) in [(&real.0, mean_fake, true), (&fake.0, mean_real, false)] {
            for &s in scores {
                // The discriminator wants real scores above 1 and fake ones below −1; the generator the reverse.
                let towards = if is_real == (step == Side::Discriminator) { s - other } else { other - s };
                expected += f64::max(0.0, 1.0 - towards) / scores.len() as f64;
                kink = kink.min((1.0 - towards).abs());
            }
        }
        if step == Side::Generator {
            expected *= loss_weight;
        }
        close(loss.forward(&nd(&fake.0, &fake.1), &nd(&real.0, &real.1), step)?.item()?, expected, 1e-13);
        prop_assume!(kink > 1e-3);
        check_derivatives(&[fake, real], |x| loss.forward(&x[0], &x[1], step));
    }

    #[test]
    fn drawn_lecam_is_the_papers_formula(
        [fake, real] in batches(),
        (alpha_real, alpha_fake) in (quarter(), quarter()),
        loss_weight in -2.0f64..2.0,
        one_sided: bool,
    ) {
        let loss = LeCamLoss { loss_weight, one_sided, ..Default::default() };
        let averages = LeCamAverages { real: Some(alpha_real), fake: Some(alpha_fake) };
        let square = |distance: f64| if one_sided && distance < 0.0 { 0.0 } else { distance * distance };
        let expected = loss_weight
            * (mean(real.0.iter().map(|s| square(s - alpha_fake))) + mean(fake.0.iter().map(|s| square(alpha_real - s))));
        close(loss.forward(&nd(&fake.0, &fake.1), &nd(&real.0, &real.1), &averages)?.item()?, expected, 1e-13);
        check_derivatives(&[fake, real], |x| loss.forward(&x[0], &x[1], &averages));
    }

    #[test]
    fn drawn_averages_move_as_the_paper_says(decay in 0.0f64..1.0, means in prop::collection::vec((-3.0f64..3.0, -3.0f64..3.0), 1..6)) {
        let loss = LeCamLoss { decay, ..Default::default() };
        let mut averages = LeCamAverages::default();
        // In closed form: γᵗ·v₀ + (1 − γ) Σ γᵗ⁻ⁱ vᵢ.
        for (t, &(real, fake)) in means.iter().enumerate() {
            loss.update(&mut averages, real, fake);
            let closed = |value: fn(&(f64, f64)) -> f64| {
                let later: f64 = (1..=t).map(|i| decay.powi((t - i) as i32) * value(&means[i])).sum();
                decay.powi(t as i32) * value(&means[0]) + (1.0 - decay) * later
            };
            close(averages.real.unwrap(), closed(|means| means.0), 1e-13);
            close(averages.fake.unwrap(), closed(|means| means.1), 1e-13);
        }
        // serde_json may read a number one unit in the last place off.
        let text = serde_json::to_string(&averages).unwrap();
        let loaded: LeCamAverages = serde_json::from_str(&text).unwrap();
        close(loaded.real.unwrap(), averages.real.unwrap(), 1e-15);
        close(loaded.fake.unwrap(), averages.fake.unwrap(), 1e-15);
    }

    #[test]
    fn drawn_feature_matching_is_the_papers_formula(
        layers in prop::collection::vec(pairs(), 1..4),
        mse: bool,
        loss_weight in -2.0f64..2.0,
    ) {
        let criterion = if mse { FeatureCriterion::Mse } else { FeatureCriterion::L1 };
        let loss = FeatureMatchingLoss { loss_weight, criterion };
        let mut expected = 0.0;
        let mut kink = f64::INFINITY;
        for [fake, real] in &layers {
            for (fake_value, real_value) in fake.0.iter().zip(&real.0) {
                let distance = (fake_value - real_value).abs();
                kink = kink.min(distance);
                expected += loss_weight * if mse { distance * distance } else { distance } / fake.0.len() as f64;
            }
        }
        let tensors: Vec<_> = layers.iter().map(|[f, r]| (nd(&f.0, &f.1), nd(&r.0, &r.1))).collect();
        let (fake, real): (Vec<_>, Vec<_>) = tensors.iter().map(|(fake, real)| (fake, real)).unzip();
        close(loss.forward(&fake, &real)?.item()?, expected, 1e-13);
        // As scales of one layer each, and as one scale.
        let (fake, real): (Vec<_>, Vec<_>) = tensors.iter().map(|(fake, real)| (vec![fake], vec![real])).unzip();
        close(loss.forward_scales(&fake, &real)?.item()?, expected, 1e-13);
        prop_assume!(kink > 1e-3);
        let inputs: Vec<Values> = layers.iter().map(|[fake, _]| fake.clone()).collect();
        check_derivatives(&inputs, |x| {
            let real = layers
                .iter()
                .zip(x)
                .map(|([_, real], x)| Tensor::constant(&x.context(), &real.0, &real.1))
                .collect::<image_losses_core::Result<Vec<_>>>()?;
            loss.forward(&x.iter().collect::<Vec<_>>(), &real.iter().collect::<Vec<_>>())
        });
    }
}

#[test]
fn real_features_carry_no_gradient() {
    let inputs = [(vec![1.0, 2.0], vec![2]), (vec![0.0, 5.0], vec![2])];
    let loss = FeatureMatchingLoss::default();
    let (value, gradients) = differentiate(&inputs, |x| loss.forward(&[&x[0]], &[&x[1]])).unwrap();
    assert_eq!((value, &gradients[0][..], &gradients[1][..]), (2.0, &[0.5, -0.5][..], &[0.0, 0.0][..]));
}

#[test]
fn equal_features_give_zero_and_no_gradient() {
    let inputs = [(vec![1.0, -2.0], vec![2])];
    for criterion in [FeatureCriterion::L1, FeatureCriterion::Mse] {
        let loss = FeatureMatchingLoss { criterion, ..Default::default() };
        let (value, gradients) = differentiate(&inputs, |x| loss.forward(&[&x[0]], &[&x[0]])).unwrap();
        assert_eq!((value, &gradients[0][..]), (0.0, &[0.0, 0.0][..]));
    }
}

#[test]
fn hand_values() {
    let (fake, real) = (nd(&[0.0, 2.0], &[2]), nd(&[1.0, 0.0], &[2]));
    // Differences real − fake: 1, −2.
    let pairing = RelativisticPairingLoss::default();
    let value = pairing.forward(&fake, &real, Side::Discriminator).unwrap().item().unwrap();
    close(value, (softplus(-1.0) + softplus(2.0)) / 2.0, 1e-14);
    // Means 1 and ½. r = 0, −1; f = −½, 1½. Discriminator (1 + 2)/2 + (½ + 2½)/2; generator (1 + 0)/2 + (1½ + 0)/2.
    let hinge = RelativisticAverageHingeLoss::default();
    assert_eq!(hinge.forward(&fake, &real, Side::Discriminator).unwrap().item().unwrap(), 3.0);
    assert_eq!(hinge.forward(&fake, &real, Side::Generator).unwrap().item().unwrap(), 1.25);
    // α_real = ½, α_fake = 1: real 0², (−1)²; fake (½)², (−1½)². One-sided: real 0, 0; fake ½², 0.
    let averages = LeCamAverages { real: Some(0.5), fake: Some(1.0) };
    let value = |one_sided| {
        let loss = LeCamLoss { loss_weight: 2.0, one_sided, ..Default::default() };
        loss.forward(&fake, &real, &averages).unwrap().item().unwrap()
    };
    assert_eq!(value(false), 2.0 * (0.5 + 1.25));
    assert_eq!(value(true), 2.0 * 0.125);
}

#[test]
fn extremes_stay_finite() {
    let inputs = [(vec![1e30, -1e30, 0.0], vec![3]), (vec![-1e30, 1e30, 0.0], vec![3])];
    let averages = LeCamAverages { real: Some(1e30), fake: Some(-1e30) };
    for step in [Side::Discriminator, Side::Generator] {
        let finite = |(value, gradients): (f64, Vec<Vec<f64>>)| {
            assert!(value.is_finite() && gradients.iter().flatten().all(|g| g.is_finite()));
        };
        finite(differentiate(&inputs, |x| RelativisticPairingLoss::default().forward(&x[0], &x[1], step)).unwrap());
        finite(
            differentiate(&inputs, |x| RelativisticAverageHingeLoss::default().forward(&x[0], &x[1], step)).unwrap(),
        );
        finite(differentiate(&inputs, |x| LeCamLoss::default().forward(&x[0], &x[1], &averages)).unwrap());
        finite(differentiate(&inputs, |x| FeatureMatchingLoss::default().forward(&[&x[0]], &[&x[1]])).unwrap());
        let (fake, real) = (nd32(&inputs[0].0, &[3]), nd32(&inputs[1].0, &[3]));
        assert!(RelativisticPairingLoss::default().forward(&fake, &real, step).unwrap().item().unwrap().is_finite());
        assert!(
            RelativisticAverageHingeLoss::default().forward(&fake, &real, step).unwrap().item().unwrap().is_finite()
        );
    }
}

#[test]
fn errors_name_their_cause() {
    let (two, three) = (nd(&[1.0, 2.0], &[2]), nd(&[1.0, 2.0, 3.0], &[3]));
    let (bare, empty) = (nd(&[1.0], &[]), nd(&[], &[0]));
    let averages = LeCamAverages { real: Some(0.0), fake: Some(0.0) };
    let pairing = RelativisticPairingLoss::default();
    let hinge = RelativisticAverageHingeLoss::default();
    let lecam = LeCamLoss::default();
    let matching = FeatureMatchingLoss::default();
    for step in [Side::Discriminator, Side::Generator] {
        assert_eq!(variant(pairing.forward(&two, &three, step)), "ShapeMismatch");
        assert_eq!(variant(pairing.forward(&bare, &bare, step)), "ShapeRule");
        assert_eq!(variant(pairing.forward(&empty, &empty, step)), "Empty");
        assert_eq!(variant(hinge.forward(&bare, &two, step)), "ShapeRule");
        assert_eq!(variant(hinge.forward(&two, &empty, step)), "Empty");
    }
    assert_eq!(variant(lecam.forward(&bare, &two, &averages)), "ShapeRule");
    assert_eq!(variant(lecam.forward(&two, &empty, &averages)), "Empty");
    for averages in [LeCamAverages { real: None, ..averages }, LeCamAverages { fake: None, ..averages }] {
        assert_eq!(variant(lecam.forward(&two, &two, &averages)), "MissingInput");
    }
    assert_eq!(variant(matching.forward::<image_losses_ndarray::NdTensor<'_, f64>>(&[], &[])), "InputCount");
    assert_eq!(variant(matching.forward(&[&two], &[])), "InputCount");
    assert_eq!(variant(matching.forward(&[&two], &[&three])), "ShapeMismatch");
    assert_eq!(variant(matching.forward(&[&bare], &[&bare])), "ShapeRule");
    assert_eq!(variant(matching.forward_scales(&[vec![&two], vec![&two]], &[vec![&two]])), "InputCount");
    // Equal totals, other scales.
    assert_eq!(variant(matching.forward_scales(&[vec![&two, &two], vec![]], &[vec![&two], vec![&two]])), "InputCount");
}

#[test]
fn a_mean_that_is_not_finite_is_not_remembered() {
    let lecam = LeCamLoss { decay: 0.5, ..Default::default() };
    let mut averages = LeCamAverages::default();
    lecam.update(&mut averages, f64::NAN, f64::INFINITY);
    assert_eq!(averages, LeCamAverages::default());
    lecam.update(&mut averages, 2.0, f64::NAN);
    assert_eq!(averages, LeCamAverages { real: Some(2.0), fake: None });
    lecam.update(&mut averages, f64::NEG_INFINITY, 4.0);
    assert_eq!(averages, LeCamAverages { real: Some(2.0), fake: Some(4.0) });
    // Saved after the overflow and loaded, they go on.
    let mut loaded: LeCamAverages = serde_json::from_str(&serde_json::to_string(&averages).unwrap()).unwrap();
    assert_eq!(loaded, averages);
    lecam.update(&mut loaded, 4.0, 0.0);
    assert_eq!(loaded, LeCamAverages { real: Some(3.0), fake: Some(2.0) });
}

#[test]
fn options_are_checked() {
    let loss_weight = f64::NAN;
    assert_eq!(variant(RelativisticPairingLoss { loss_weight }.check()), "InvalidOption");
    let options = RelativisticAverageHingeLoss { loss_weight };
    assert_eq!(variant(options.check()), "InvalidOption");
    assert_eq!(variant(LeCamLoss { loss_weight, ..Default::default() }.check()), "InvalidOption");
    for decay in [-0.1, 1.1, f64::NAN] {
        assert_eq!(variant(LeCamLoss { decay, ..Default::default() }.check()), "InvalidOption");
    }
    let options = FeatureMatchingLoss { loss_weight, ..Default::default() };
    assert_eq!(variant(options.check()), "InvalidOption");
}

#[test]
fn configurations_are_read_and_written() {
    fn survives<L>(loss: &L, text: &str)
    where
        L: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug + Default,
    {
        assert_ne!(*loss, L::default());
        assert_eq!(serde_json::from_str::<L>(text).unwrap(), *loss);
        assert_eq!(serde_json::from_str::<L>(&serde_json::to_string(loss).unwrap()).unwrap(), *loss);
        assert_eq!(serde_json::from_str::<L>("{}").unwrap(), L::default());
        assert!(serde_json::from_str::<L>(r#"{"weight": 1}"#).is_err());
    }
    let text = r#"{"loss_weight": 2}"#;
    survives(&RelativisticPairingLoss { loss_weight: 2.0 }, text);
    survives(&RelativisticAverageHingeLoss { loss_weight: 2.0 }, text);
    survives(
        &LeCamLoss { loss_weight: 0.3, decay: 0.9, one_sided: true },
        r#"{"loss_weight": 0.3, "decay": 0.9, "one_sided": true}"#,
    );
    survives(
        &FeatureMatchingLoss { loss_weight: 10.0, criterion: FeatureCriterion::Mse },
        r#"{"loss_weight": 10, "criterion": "mse"}"#,
    );
    assert_eq!(variant(serde_json::from_str::<LeCamLoss>(r#"{"decay": 2}"#).unwrap().check()), "InvalidOption");
    assert!(serde_json::from_str::<LeCamAverages>(r#"{"real": 1, "other": 2}"#).is_err());
}

#[test]
fn defaults() {
    // No factor; LeCam's decay is its published code's.
    assert_eq!(FeatureMatchingLoss::default().loss_weight, 1.0);
    assert_eq!(RelativisticAverageHingeLoss::default().loss_weight, 1.0);
    assert_eq!(RelativisticPairingLoss::default().loss_weight, 1.0);
    let LeCamLoss { loss_weight, decay, one_sided } = LeCamLoss::default();
    assert_eq!((loss_weight, decay, one_sided), (1.0, 0.99, false));
}
