//! Half precision: how far each loss and its gradient are from double precision, and a mask whose sum vanishes in it.

use image_losses_composition::*;
use image_losses_core::{Loss, Result, Tensor, Unary};
use image_losses_gan::{GanLoss, GanOptions, GanType, Role};
use image_losses_penalties::{DiscShiftLoss, R1GradientPenalty};
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
    let sum = |gan_type, role| {
        let loss = GanLoss::new(GanOptions::new(gan_type)).unwrap();
        move |x: &[TchTensor]| loss.forward(&x[0], role, None)
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
    measure("GANLoss vanilla", scores, sum(GanType::Vanilla, Role::DiscriminatorOnReal));
    measure("GANLoss lsgan", scores, sum(GanType::Lsgan, Role::Generator));
    measure("GANLoss hinge", scores, sum(GanType::Hinge, Role::DiscriminatorOnFake));
    measure("GANLoss wgan-logistic-ns", scores, sum(GanType::WganLogisticNs, Role::Generator));
    measure("DiscShiftLoss", scores, |x| DiscShiftLoss::default().forward([&x[0]], None));
    measure("R1GradientPenaltyComps", scores, |w| {
        let images = TchTensor::full(&w[0].context(), 1.0, &w[0].shape())?;
        R1GradientPenalty::default().forward(|x| x.mul(&w[0])?.unary(Unary::Square)?.scale(0.5), &images, None)
    });
}

#[test]
fn a_mask_of_so_little_that_its_sum_vanishes_in_half_precision_still_divides() {
    // One pixel of a 64×64 mask at 2⁻²⁴, the smallest half-precision number; 1e-12 itself is no number there.
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
