//! Half precision: how far each loss and its gradient are from double precision, a mask whose sum vanishes in it, Gram
//! matrices out of its range, and tensors of different types.

use image_losses_composition::*;
use image_losses_core::{Differentiable, Loss, Result, Tensor, Unary};
use image_losses_gan::*;
use image_losses_penalties::*;
use image_losses_perceptual::checkpoint::Checkpoint;
use image_losses_perceptual::networks::VggType;
use image_losses_perceptual::{PerceptualLoss, PerceptualOptions, Weights};
use image_losses_pixelwise::*;
use image_losses_tch::{TchLoss, TchTensor, differentiate};
use tch::{Kind, Tensor as Torch};

const HALVES: [Kind; 2] = [Kind::Half, Kind::BFloat16];

/// Relative errors allowed of a value and, against the largest of them, of a gradient. A value is rounded once (2⁻¹¹,
/// 2⁻⁸); a gradient is computed in single precision and rounded where it passes through a tensor of its own type.
fn allowed(kind: Kind) -> [f64; 2] {
    if kind == Kind::Half { [5e-4, 1e-3] } else { [4e-3, 8e-3] }
}

/// Numbers in (−1, 1) without a pattern, on the grid of either half-precision type: what is measured is the computing,
/// not the storing.
fn numbers(shape: &[i64], seed: i64) -> Torch {
    let count: i64 = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|i| ((i * 7919 + seed * 104_729) % 255 - 127) as f64 / 128.0).collect();
    Torch::from_slice(&values).reshape(shape)
}

fn values(tensor: &Torch) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).reshape([-1])).unwrap()
}

/// Errors of value and gradients in either type against double precision; printed, and held to what is allowed.
fn measure(name: &str, inputs: &[Torch], loss: impl Fn(&[TchTensor]) -> Result<TchTensor>) {
    let evaluate = |kind: Kind| {
        let inputs: Vec<Torch> = inputs.iter().map(|input| input.to_kind(kind)).collect();
        let (value, gradients) = differentiate(&inputs.iter().collect::<Vec<_>>(), &loss).unwrap();
        assert!(value.kind() == kind && gradients.iter().all(|gradient| gradient.kind() == kind), "{name}");
        (values(&value)[0], gradients.iter().flat_map(values).collect::<Vec<f64>>())
    };
    let (value, gradients) = evaluate(Kind::Double);
    let largest = gradients.iter().fold(f64::MIN_POSITIVE, |largest, g| largest.max(g.abs()));
    for kind in HALVES {
        let (half, half_gradients) = evaluate(kind);
        let of_value = ((half - value) / value).abs();
        let of_gradient =
            gradients.iter().zip(&half_gradients).fold(0.0f64, |e, (a, b)| e.max((a - b).abs())) / largest;
        println!("| {name} | {kind:?} | {of_value:.1e} | {of_gradient:.1e} |");
        let [value, gradient] = allowed(kind);
        assert!(of_value <= value && of_gradient <= gradient, "{name} {kind:?}: {of_value:e}, {of_gradient:e}");
    }
}

#[test]
fn errors_against_double_precision_are_those_of_one_rounding() {
    let image = [2, 3, 16, 16];
    let (x, y) = (numbers(&image, 1), numbers(&image, 2));
    let pair = [x.shallow_clone(), y.shallow_clone()];
    let sum = |gan_type, role: (Side, On)| {
        let loss = GanLoss::new(gan_type);
        move |x: &[TchTensor]| loss.forward(&x[0], role.0, role.1, None)
    };
    measure("L1Loss", &pair, |x| L1Loss::default().forward([&x[0], &x[1]], None));
    measure("MSELoss", &pair, |x| MseLoss::default().forward([&x[0], &x[1]], None));
    measure("CharbonnierLoss", &pair, |x| CharbonnierLoss::default().forward([&x[0], &x[1]], None));
    measure("HuberLoss", &pair, |x| HuberLoss::default().forward([&x[0], &x[1]], None));
    measure("PSNRLoss", &pair, |x| PsnrLoss::default().forward([&x[0], &x[1]], None));
    measure("tv_loss", &pair[..1], |x| TvLoss::default().forward([&x[0]], None));
    measure("MaskedTVLoss", &pair[..1], |x| MaskedTvLoss::default().forward([&x[0]], None));
    measure("GradientLoss", &pair, |x| GradientLoss::default().forward([&x[0], &x[1]], None));
    let matting = [numbers(&[2, 1, 16, 16], 5).abs(), x.shallow_clone(), y, numbers(&image, 3)];
    measure("MSECompositionLoss", &matting, |x| {
        MseCompositionLoss::default().forward([&x[0], &x[1], &x[2], &x[3]], None)
    });
    let scores = &pair[..1];
    measure("GANLoss vanilla", scores, sum(GanType::Vanilla, (Side::Discriminator, On::Real)));
    measure("GANLoss lsgan", scores, sum(GanType::Lsgan, (Side::Generator, On::Fake)));
    measure("GANLoss hinge", scores, sum(GanType::Hinge, (Side::Discriminator, On::Fake)));
    measure("GANLoss wgan-logistic-ns", scores, sum(GanType::WganLogisticNs, (Side::Generator, On::Fake)));
    measure("DiscShiftLoss", scores, |x| DiscShiftLoss::default().forward([&x[0]], None));
    measure("R1GradientPenaltyComps", scores, |w| {
        let images = TchTensor::full(&w[0].context(), 1.0, &w[0].shape())?;
        R1GradientPenalty::default().forward(
            |x| x.mul(&w[0])?.unary(Unary::Square)?.scale(0.5),
            &images,
            Call::default(),
        )
    });
}

#[test]
fn a_mask_of_so_little_that_its_sum_vanishes_in_half_precision_still_divides() {
    // One pixel of a 64×64 mask at 2⁻²⁴, the smallest half-precision number; 1e-12 itself rounds to 0 there.
    for kind in HALVES {
        let (x, y) = (
            Torch::full([1, 3, 64, 64], 2.0, (kind, tch::Device::Cpu)).set_requires_grad(true),
            numbers(&[1, 3, 64, 64], 1).to_kind(kind),
        );
        let mask = Torch::zeros([1, 1, 64, 64], (Kind::Float, tch::Device::Cpu));
        let _ = mask.narrow(2, 0, 1).narrow(3, 0, 1).fill_(2f64.powi(-24));
        let loss = L1Loss::default().call([&x, &y], Some(&mask.to_kind(kind))).unwrap();
        loss.backward();
        // The mean of what the pixel's channels are off by; 1e-12 against a sum of 3·2⁻²⁴ is 6e-6.
        let expected =
            values(&(&x - &y).to_kind(Kind::Double).abs().narrow(2, 0, 1).narrow(3, 0, 1).mean(Kind::Double))[0];
        let [tolerance, _] = allowed(kind);
        assert!((values(&loss)[0] / expected - 1.0).abs() <= tolerance, "{kind:?}: {loss:?} {expected}");
        let gradient: f64 = values(&x.grad()).iter().sum();
        assert!((gradient - 1.0).abs() <= 2.0 * tolerance, "{kind:?}: {gradient}");
    }
}

/// VGG-11 up to `relu4_1` whose 512 features are all 200 times the image's first channel.
fn two_hundredfold() -> Weights {
    let entries = VggType::Vgg11.architecture().into_iter().map(|(name, shape)| {
        let mut values = vec![0.0; shape.iter().product()];
        if let [_, channels, 3, 3] = shape[..] {
            let factor = if name == "features.11.weight" { 200.0 } else { 1.0 };
            values.iter_mut().skip(4).step_by(channels * 9).for_each(|centre| *centre = factor);
        }
        (name, shape, values)
    });
    Checkpoint::from_entries(entries).unwrap().into()
}

#[test]
fn gram_matrices_of_512_channels_do_not_overflow() {
    let options = PerceptualOptions {
        layer_weights: [("relu4_1".to_owned(), 1.0)].into(),
        vgg_type: VggType::Vgg11,
        perceptual_weight: 0.0,
        use_input_norm: false,
        norm_img: false,
        ..PerceptualOptions::default()
    };
    let loss = PerceptualLoss::new(options, &two_hundredfold()).unwrap();
    for kind in HALVES {
        // Features of 150 over 2×2 pixels: the product's sums are 4·150² = 90,000, above the largest f16, 65,504.
        let image = |value: f64| Torch::full([1, 3, 16, 16], value, (kind, tch::Device::Cpu));
        let gt = TchTensor::own(image(0.5)).unwrap();
        let style = |x: &[TchTensor]| Ok(loss.forward(&x[0], &gt)?.style.unwrap());
        let (value, gradients) = differentiate(&[&image(0.75)], style).unwrap();
        // Over 512·4: (150² − 100²)/512. By a shift of the image: 2·200²·0.75/512. A factor's rounding, of 2⁻¹¹ or 2⁻⁸,
        // counts twice in a matrix, and 2.6 times in the difference of two.
        let tolerance = 5.2 * if kind == Kind::Half { 2f64.powi(-11) } else { 2f64.powi(-8) };
        let (value, gradient) = (values(&value)[0], values(&gradients[0]).iter().sum::<f64>());
        assert!((value / (12_500.0 / 512.0) - 1.0).abs() <= tolerance, "{kind:?}: {value}");
        assert!((gradient / (60_000.0 / 512.0) - 1.0).abs() <= 2.0 * tolerance, "{kind:?}: {gradient}");
    }
}

/// Pairs of different types and what they are promoted to.
const MIXED: [([Kind; 2], Kind); 6] = [
    ([Kind::Half, Kind::Float], Kind::Float),
    ([Kind::Float, Kind::Half], Kind::Float),
    ([Kind::BFloat16, Kind::Float], Kind::Float),
    ([Kind::Half, Kind::BFloat16], Kind::Float),
    ([Kind::Double, Kind::BFloat16], Kind::Double),
    ([Kind::Float, Kind::Double], Kind::Double),
];

#[test]
fn a_called_loss_of_different_types_is_that_of_the_widest() {
    let image = [2, 3, 8, 8];
    let mask = numbers(&[2, 1, 8, 8], 9).abs();
    fn check<const K: usize>(loss: &impl Loss<K>, inputs: [Torch; K], mask: Option<&Torch>) {
        for (pair, widest) in MIXED {
            // The first input has the one type, all others have the other.
            let leaves = |kind: &dyn Fn(usize) -> Kind| -> Vec<Torch> {
                let leaf = |(k, x): (usize, &Torch)| x.to_kind(kind(k)).detach().copy().set_requires_grad(true);
                inputs.iter().enumerate().map(leaf).collect()
            };
            let mixed = leaves(&|k| pair[k.min(1)]);
            let wide = leaves(&|_| widest);
            for mask_kind in [Kind::Half, Kind::Float] {
                let mask = mask.map(|mask| mask.to_kind(mask_kind));
                let [value, expected] = [&mixed, &wide].map(|inputs| {
                    let value = loss.call(std::array::from_fn(|k| &inputs[k]), mask.as_ref()).unwrap();
                    inputs.iter().for_each(|input| drop(input.grad().defined().then(|| input.grad().zero_())));
                    value.backward();
                    value
                });
                assert_eq!((value.kind(), values(&value)), (widest, values(&expected)), "{pair:?}");
                for (mixed, wide) in mixed.iter().zip(&wide) {
                    let expected = wide.grad().to_kind(mixed.kind());
                    assert_eq!((mixed.grad().kind(), values(&mixed.grad())), (mixed.kind(), values(&expected)));
                }
            }
        }
    }
    let pair = || [numbers(&image, 1), numbers(&image, 2)];
    for mask in [None, Some(&mask)] {
        check(&L1Loss::default(), pair(), mask);
        check(&MseLoss::default(), pair(), mask);
        check(&HuberLoss::default(), pair(), mask);
        check(&CharbonnierLoss::default(), pair(), mask);
        check(&GradientLoss::default(), pair(), mask);
        let [foreground, background] = pair();
        let matting = || [numbers(&[2, 1, 8, 8], 5).abs(), foreground.copy(), background.copy(), numbers(&image, 3)];
        check(&L1CompositionLoss::default(), matting(), mask);
        check(&MseCompositionLoss::default(), matting(), mask);
    }
    check(&PsnrLoss::default(), pair(), None);
}

#[test]
fn losses_of_wrapped_tensors_of_different_types_have_the_first_ones() {
    let shape = [2, 3, 8, 8];
    let (x, y, mask) = (numbers(&shape, 1), numbers(&shape, 2), numbers(&[2, 1, 8, 8], 9).abs());
    type Function<'a> = &'a dyn Fn(&TchTensor, &TchTensor, &TchTensor) -> Result<TchTensor>;
    let check = |name: &str, loss: Function| {
        let run = |kinds: [Kind; 3]| {
            let wrap = |t: &Torch, kind: Kind| TchTensor::own(t.to_kind(kind)).unwrap().leaf().unwrap();
            let (x, y, mask) = (wrap(&x, kinds[0]), wrap(&y, kinds[1]), wrap(&mask, kinds[2]));
            let value = loss(&x, &y, &mask).unwrap();
            value.tensor().backward();
            assert_eq!(value.tensor().kind(), kinds[0], "{name} {kinds:?}");
            assert_eq!(x.tensor().grad().kind(), kinds[0], "{name} {kinds:?}");
            (values(value.tensor())[0], values(&x.tensor().grad()))
        };
        let (value, gradient) = run([Kind::Double; 3]);
        let largest = gradient.iter().fold(f64::MIN_POSITIVE, |largest, g| largest.max(g.abs()));
        for half in HALVES {
            for kinds in [[half, Kind::Float, Kind::Float], [Kind::Float, half, half], [half, half, Kind::Double]] {
                let (found, gradients) = run(kinds);
                let error = gradients.iter().zip(&gradient).fold(0.0f64, |e, (a, b)| e.max((a - b).abs())) / largest;
                let [of_value, of_gradient] = allowed(half);
                assert!(((found - value) / value).abs() <= of_value, "{name} {kinds:?}: {found} {value}");
                assert!(error <= of_gradient, "{name} {kinds:?}: {error:e}");
            }
        }
    };
    let gan = |gan_type| GanLoss::new(gan_type);
    let (smgan, vanilla) = (gan(GanType::Smgan), gan(GanType::Vanilla));
    check("smgan", &|x, _, mask| smgan.forward(x, Side::Generator, On::Fake, Some(mask)));
    check("vanilla", &|x, _, _| vanilla.forward(x, Side::Discriminator, On::Real, None));
    check("relativistic", &|x, y, _| RelativisticPairingLoss::default().forward(x, y, Side::Generator));
    check("feature matching", &|x, y, _| FeatureMatchingLoss::default().forward(&[x], &[y]));
    check("disc shift", &|x, _, mask| DiscShiftLoss::default().forward([x], Some(mask)));
    check("R1", &|x, y, mask| {
        // The penalty of a critic whose parameters are x, at the images y.
        let images = y.detach();
        let penalty =
            R1GradientPenalty::default().forward(|y| y.unary(Unary::Square)?.mul(x), &images, Call::masked(mask))?;
        penalty.cast_like(x)
    });
}
