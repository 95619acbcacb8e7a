use image_losses_core::{Declared, Error, Loss};
use image_losses_gan::{GanLoss, GanType, GaussianBlur, On, Side};
use image_losses_laws::drawn;
use image_losses_ndarray::value_and_gradients;
use ndarray::{Array2, array};
use proptest::prelude::*;

use crate::tools::{
    check_derivatives, close, differentiate, mean, nd, nd32, quarter, scores, shapes, softplus, variant,
};

const ROLES: [(Side, On); 4] = [
    (Side::Generator, On::Fake),
    (Side::Generator, On::Real),
    (Side::Discriminator, On::Real),
    (Side::Discriminator, On::Fake),
];
const TYPES: [GanType; 6] =
    [GanType::Vanilla, GanType::Lsgan, GanType::L1, GanType::Wgan, GanType::Hinge, GanType::WganLogisticNs];

/// The formulas of the type's table, one score at a time.
fn formula(options: &GanLoss, (side, on): (Side, On), s: f64) -> f64 {
    let (real, discriminator) = (side.wants_real(on), side == Side::Discriminator);
    let t = if real { options.real_label_val } else { options.fake_label_val };
    let value = match options.gan_type {
        GanType::Vanilla => {
            let p = 1.0 / (1.0 + (-s).exp());
            -t * p.ln() - (1.0 - t) * (1.0 - p).ln()
        }
        GanType::Lsgan => (s - t).powi(2),
        GanType::L1 => (s - t).abs(),
        GanType::Wgan => {
            if real {
                -s
            } else {
                s
            }
        }
        GanType::Hinge if !discriminator => -s,
        GanType::Hinge => f64::max(0.0, if real { 1.0 - s } else { 1.0 + s }),
        GanType::WganLogisticNs => softplus(if real { -s } else { s }),
        GanType::Smgan => unreachable!(),
    };
    if discriminator { value } else { value * options.loss_weight }
}

fn options() -> impl Strategy<Value = GanLoss> {
    (prop::sample::select(TYPES.to_vec()), quarter(), quarter(), -2.0f64..2.0).prop_map(
        |(gan_type, real_label_val, fake_label_val, loss_weight)| GanLoss {
            real_label_val,
            fake_label_val,
            loss_weight,
            ..GanLoss::new(gan_type)
        },
    )
}

#[test]
fn hand_values() {
    // Scores 2 and −1 with λ = 3; the discriminator's values lack it.
    let scores = nd(&[2.0, -1.0], &[2]);
    let value = |gan_type, role: (Side, On)| {
        GanLoss { loss_weight: 3.0, ..GanLoss::new(gan_type) }
            .forward(&scores, role.0, role.1, None)
            .unwrap()
            .item()
            .unwrap()
    };
    use GanType::{Hinge, L1, Lsgan, Vanilla, Wgan, WganLogisticNs};
    // (1² + 2²)/2 and (2² + 1²)/2
    assert_eq!(value(Lsgan, (Side::Discriminator, On::Real)), 2.5);
    assert_eq!(value(Lsgan, (Side::Discriminator, On::Fake)), 2.5);
    assert_eq!(value(Lsgan, (Side::Generator, On::Fake)), 7.5);
    // (1 + 2)/2, (2 + 1)/2
    assert_eq!(value(L1, (Side::Discriminator, On::Real)), 1.5);
    assert_eq!(value(L1, (Side::Generator, On::Real)), 4.5);
    assert_eq!(value(Wgan, (Side::Discriminator, On::Real)), -0.5);
    assert_eq!(value(Wgan, (Side::Discriminator, On::Fake)), 0.5);
    assert_eq!(value(Wgan, (Side::Generator, On::Fake)), -1.5);
    assert_eq!(value(Wgan, (Side::Generator, On::Real)), 1.5);
    // (0 + 2)/2, (3 + 0)/2; the generator's ignores its target
    assert_eq!(value(Hinge, (Side::Discriminator, On::Real)), 1.0);
    assert_eq!(value(Hinge, (Side::Discriminator, On::Fake)), 1.5);
    assert_eq!(value(Hinge, (Side::Generator, On::Fake)), -1.5);
    assert_eq!(value(Hinge, (Side::Generator, On::Real)), -1.5);
    // ln(1 + e⁻²) = 0.126928011, ln(1 + e) = 1.313261688, ln(1 + e²) = 2.126928011, ln(1 + e⁻¹) = 0.313261688
    for gan_type in [Vanilla, WganLogisticNs] {
        close(value(gan_type, (Side::Discriminator, On::Real)), (0.126_928_011 + 1.313_261_688) / 2.0, 1e-9);
        close(value(gan_type, (Side::Discriminator, On::Fake)), (2.126_928_011 + 0.313_261_688) / 2.0, 1e-9);
        close(value(gan_type, (Side::Generator, On::Fake)), 3.0 * (0.126_928_011 + 1.313_261_688) / 2.0, 1e-9);
    }
}

#[test]
fn flags_mean_the_roles_that_say_so() {
    for target_is_real in [false, true] {
        for is_disc in [false, true] {
            let (side, on) = Side::from_flags(target_is_real, is_disc);
            assert_eq!((side.wants_real(on), side == Side::Discriminator), (target_is_real, is_disc));
        }
    }
    assert_eq!(Side::from_flags(true, false), (Side::Generator, On::Fake));
    assert_eq!(serde_json::to_string(&(Side::Discriminator, On::Fake)).unwrap(), r#"["discriminator","fake"]"#);
}

proptest! {
    #![proptest_config(drawn(96))]

    #[test]
    fn drawn_values_are_the_formulas(
        loss in options(),
        role in prop::sample::select(ROLES.to_vec()),
        (values, shape) in shapes().prop_flat_map(scores),
    ) {
        let expected = mean(values.iter().map(|&s| formula(&loss, role, s)));
        close(loss.forward(&nd(&values, &shape), role.0, role.1, None)?.item()?, expected, 1e-12);
        // A mask is for smgan alone.
        let mask = nd(&[0.0], &[1]);
        close(loss.forward(&nd(&values, &shape), role.0, role.1, Some(&mask))?.item()?, expected, 1e-12);
    }

    #[test]
    fn drawn_derivatives_are_those_of_the_value(
        loss in options(),
        role in prop::sample::select(ROLES.to_vec()),
        input in shapes().prop_flat_map(scores),
    ) {
        check_derivatives(&[input], |x| loss.forward(&x[0], role.0, role.1, None));
    }

    #[test]
    fn drawn_the_criterion_is_the_loss(
        loss in options(),
        role in prop::sample::select(ROLES.to_vec()),
        (values, shape) in (1usize..4, 1usize..6).prop_flat_map(|(n, c)| scores(vec![n, c])),
    ) {
        let criterion = loss.criterion(role.0, role.1)?;
        let (expected, gradients) = differentiate(&[(values.clone(), shape.clone())], |x| {
            loss.forward(&x[0], role.0, role.1, None)
        })?;
        let array = Array2::from_shape_vec((shape[0], shape[1]), values.clone()).unwrap();
        let (value, [gradient]) = value_and_gradients(&criterion, [array.view()], None, [true])?;
        close(value, expected, 1e-14);
        for (a, b) in gradient.unwrap().iter().zip(&gradients[0]) {
            close(*a, *b, 1e-14);
        }
        close(criterion.forward([&nd(&values, &shape)], None)?.item()?, expected, 1e-14);
    }

    #[test]
    fn drawn_scales_are_averaged(
        loss in options(),
        role in prop::sample::select(ROLES.to_vec()),
        scales in prop::collection::vec(shapes().prop_flat_map(scores), 1..4),
    ) {
        let tensors: Vec<_> = scales.iter().map(|(values, shape)| nd(values, shape)).collect();
        let single = tensors.iter().map(|scores| loss.forward(scores, role.0, role.1, None).unwrap().item().unwrap());
        let expected = mean(single);
        let views: Vec<_> = tensors.iter().collect();
        close(loss.forward_scales(&views, role.0, role.1, None)?.item()?, expected, 1e-13);
    }

    #[test]
    fn drawn_smgan_derivatives_are_those_of_the_value(
        role in prop::sample::select(ROLES.to_vec()),
        (label, loss_weight, kernel) in (quarter(), -2.0f64..2.0, 0usize..3),
        (input, mask) in (1usize..3, 1usize..3, 1usize..4, 1usize..4, 1usize..5, 1usize..5).prop_flat_map(
            |(n, c, h, w, mask_h, mask_w)| {
                let mask = prop::collection::vec(0.0f64..1.0, n * mask_h * mask_w);
                (scores(vec![n, c, h, w]), (mask, Just(vec![n, 1, mask_h, mask_w])))
            },
        ),
    ) {
        let gaussian_blur = GaussianBlur { kernel_size: [2 * kernel + 1, 3], sigma: [1.0, 2.0] };
        let loss = GanLoss {
            loss_weight,
            real_label_val: label,
            fake_label_val: label + 0.5,
            gaussian_blur,
            ..GanLoss::new(GanType::Smgan)
        };
        // The mask is a constant: the differences must not move it.
        check_derivatives(&[input], |x| {
            let mask = image_losses_core::Tensor::constant(
                &image_losses_core::Tensor::context(&x[0]), &mask.0, &mask.1,
            )?;
            loss.forward(&x[0], role.0, role.1, Some(&mask))
        });
    }
}

#[test]
fn smgan_hand_values() {
    // One row of two pixels; the mask covers the first. The kernel along the width is 1 : 2 : 1.
    let sigma = (0.5 / 2f64.ln()).sqrt();
    let options = GanLoss {
        loss_weight: 10.0,
        real_label_val: 2.0,
        fake_label_val: -1.0,
        gaussian_blur: GaussianBlur { kernel_size: [1, 3], sigma: [1.0, sigma] },
        ..GanLoss::new(GanType::Smgan)
    };
    let (scores, mask) = (nd(&[1.0, 3.0], &[1, 1, 1, 2]), nd(&[1.0, 0.0], &[1, 1, 1, 2]));
    let value = |role: (Side, On)| options.forward(&scores, role.0, role.1, Some(&mask)).unwrap().item().unwrap();
    close(value((Side::Discriminator, On::Real)), 1.0, 1e-14); // (1 − 2)², (3 − 2)²
    // The blurred mask is (0.5, 0.25): mean of 0.5², 2.75²
    close(value((Side::Discriminator, On::Fake)), (0.25 + 7.5625) / 2.0, 1e-14);
    close(value((Side::Generator, On::Fake)), 10.0, 1e-14);
    close(value((Side::Generator, On::Real)), 10.0 * (4.0 + 16.0) / 2.0, 1e-14);

    // Scores of half the extents are resized with the corners aligned: 1, 5/3, 7/3, 3.
    let wide = nd(&[1.0, 1.0, 0.0, 0.0], &[1, 1, 1, 4]);
    let resized: [f64; 4] = [1.0, 5.0 / 3.0, 7.0 / 3.0, 3.0];
    let expected = mean(resized.map(|s| (s - 2.0).powi(2)));
    let value = options.forward(&scores, Side::Discriminator, On::Real, Some(&wide)).unwrap();
    close(value.item().unwrap(), expected, 1e-14);

    // The soft target is shared by all channels.
    let two = nd(&[1.0, 3.0, 1.0, 3.0], &[1, 2, 1, 2]);
    let value = options.forward(&two, Side::Discriminator, On::Fake, Some(&mask)).unwrap();
    close(value.item().unwrap(), (0.25 + 7.5625) / 2.0, 1e-14);
}

#[test]
fn an_empty_mask_gives_the_generator_nothing() {
    let smgan = GanLoss::new(GanType::Smgan);
    let smgan_roles = [(Side::Generator, On::Fake), (Side::Generator, On::Real)];
    let extremes = [0.3, 1e200, f64::INFINITY, f64::NAN];
    for (extreme, role) in extremes.into_iter().flat_map(|extreme| smgan_roles.map(|role| (extreme, role))) {
        let inputs = [(vec![extreme, -1.0, 2.0, 0.0], vec![1, 1, 2, 2]), (vec![0.0; 4], vec![1, 1, 2, 2])];
        let (value, gradients) = differentiate(&inputs, |x| smgan.forward(&x[0], role.0, role.1, Some(&x[1]))).unwrap();
        assert_eq!(value, 0.0);
        assert_eq!(gradients[0], [0.0; 4]);
    }
    // A single pixel of the hole is enough for the whole error.
    let (scores, mask) = (nd(&[3.0, 1.0], &[1, 1, 1, 2]), nd(&[0.0, 1e-3], &[1, 1, 1, 2]));
    assert_eq!(smgan.forward(&scores, Side::Generator, On::Fake, Some(&mask)).unwrap().item().unwrap(), 2.0);
}

#[test]
fn extremes_stay_finite() {
    for gan_type in TYPES {
        for role in ROLES {
            for label in [1.0, 0.9] {
                let loss = GanLoss { real_label_val: label, ..GanLoss::new(gan_type) };
                let input = (vec![1e30, -1e30, 0.0, 1.0], vec![4]);
                let (value, gradients) =
                    differentiate(&[input], |x| loss.forward(&x[0], role.0, role.1, None)).unwrap();
                assert!(value.is_finite() && gradients[0].iter().all(|g| g.is_finite()), "{gan_type:?} {role:?}");
                // The square overflows single precision; nothing else does.
                let single = loss.forward(&nd32(&[1e30, -1e30], &[2]), role.0, role.1, None).unwrap().item().unwrap();
                assert!(single.is_finite() || gan_type == GanType::Lsgan, "{gan_type:?} {role:?}");
            }
        }
    }
}

#[test]
fn gradients_at_distance_zero_are_zero() {
    for gan_type in [GanType::L1, GanType::Lsgan] {
        let loss = GanLoss::new(gan_type);
        let (_, gradients) =
            differentiate(&[(vec![1.0, 1.0], vec![2])], |x| loss.forward(&x[0], Side::Generator, On::Fake, None))
                .unwrap();
        assert_eq!(gradients[0], [0.0, 0.0]);
    }
}

#[test]
fn a_confident_score_keeps_its_gradient_in_single_precision() {
    // −sigmoid(−40) = −e⁻⁴⁰; softplus(s) − s would give 0.
    for gan_type in [GanType::Vanilla, GanType::WganLogisticNs] {
        let criterion = GanLoss::new(gan_type).criterion(Side::Discriminator, On::Real).unwrap();
        let (value, [gradient]) = value_and_gradients(&criterion, [array![[40.0f32]].view()], None, [true]).unwrap();
        let expected = (-40.0f64).exp();
        assert!((f64::from(value) / expected - 1.0).abs() < 1e-5);
        assert!((f64::from(gradient.unwrap()[[0, 0]]) / -expected - 1.0).abs() < 1e-5);
    }
}

#[test]
fn errors_name_their_cause() {
    let hinge = GanLoss::new(GanType::Hinge);
    let smgan = GanLoss::new(GanType::Smgan);
    let role = (Side::Generator, On::Fake);
    assert_eq!(variant(hinge.forward(&nd(&[1.0], &[]), role.0, role.1, None)), "ShapeRule");
    assert_eq!(variant(hinge.forward(&nd(&[], &[0, 3]), role.0, role.1, None)), "Empty");
    assert_eq!(
        variant(hinge.forward_scales::<image_losses_ndarray::NdTensor<'_, f64>>(&[], role.0, role.1, None)),
        "InputCount"
    );
    let scores = nd(&[1.0; 4], &[2, 1, 1, 2]);
    for role in ROLES {
        assert_eq!(variant(smgan.forward(&scores, role.0, role.1, None)), "MissingInput");
        for shape in [vec![1, 1, 2, 2], vec![2, 2, 1, 1], vec![4], vec![2, 1, 2]] {
            assert_eq!(variant(smgan.forward(&scores, role.0, role.1, Some(&nd(&[1.0; 4], &shape)))), "ShapeMismatch");
        }
        assert_eq!(variant(smgan.forward(&scores, role.0, role.1, Some(&nd(&[], &[2, 1, 0, 2])))), "Empty");
        assert_eq!(variant(smgan.forward(&nd(&[1.0], &[1, 1]), role.0, role.1, Some(&scores))), "ShapeRule");
        assert_eq!(variant(smgan.criterion(role.0, role.1)), "InvalidOption");
    }
    let message = smgan.forward(&scores, role.0, role.1, None).err().unwrap().to_string();
    assert_eq!(message, "GANLoss: the input `mask` is missing: smgan compares the scores with the inpainting mask");
}

#[test]
fn options_are_checked() {
    let wrong = [
        GanLoss { real_label_val: f64::NAN, ..GanLoss::new(GanType::Lsgan) },
        GanLoss { fake_label_val: f64::INFINITY, ..GanLoss::new(GanType::Lsgan) },
        GanLoss { loss_weight: f64::NEG_INFINITY, ..GanLoss::new(GanType::Lsgan) },
        GanLoss {
            gaussian_blur: GaussianBlur { kernel_size: [3, 4], ..Default::default() },
            ..GanLoss::new(GanType::Smgan)
        },
    ];
    for options in wrong {
        assert!(matches!(options.check(), Err(Error::InvalidOption { .. })));
    }
}

#[test]
fn configurations_are_read_and_written() {
    let text = r#"{"gan_type": "wgan-logistic-ns", "loss_weight": 0.5}"#;
    let read: GanLoss = serde_json::from_str(text).unwrap();
    assert_eq!(read, GanLoss { loss_weight: 0.5, ..GanLoss::new(GanType::WganLogisticNs) });
    let full = GanLoss {
        gan_type: GanType::Smgan,
        real_label_val: 0.9,
        fake_label_val: 0.1,
        loss_weight: 0.01,
        gaussian_blur: GaussianBlur { kernel_size: [7, 9], sigma: [1.5, 2.5] },
    };
    let written = serde_json::to_string(&full).unwrap();
    assert_eq!(serde_json::from_str::<GanLoss>(&written).unwrap(), full);
    for (name, gan_type) in [
        ("vanilla", GanType::Vanilla),
        ("lsgan", GanType::Lsgan),
        ("l1", GanType::L1),
        ("wgan", GanType::Wgan),
        ("hinge", GanType::Hinge),
        ("wgan-logistic-ns", GanType::WganLogisticNs),
        ("smgan", GanType::Smgan),
    ] {
        assert_eq!(serde_json::to_value(gan_type).unwrap(), name);
    }
    for wrong in ["{}", r#"{"gan_type": "dcgan"}"#, r#"{"gan_type": "lsgan", "real_label": 1}"#] {
        assert!(serde_json::from_str::<GanLoss>(wrong).is_err(), "{wrong}");
    }
    let even = r#"{"gan_type": "smgan", "gaussian_blur": {"kernel_size": [2, 3]}}"#;
    assert_eq!(variant(serde_json::from_str::<GanLoss>(even).unwrap().check()), "InvalidOption");
}
