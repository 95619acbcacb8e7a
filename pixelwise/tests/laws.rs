//! Every loss of the family, held to the laws, with options drawn.

#[path = "laws/mod.rs"]
mod battery;

use battery::{Takes, general, pointwise};
use image_losses_core::Reduction;
use image_losses_pixelwise::*;
use proptest::prelude::*;

fn reductions() -> impl Strategy<Value = (f64, Reduction, bool)> + Clone {
    let reduction = prop_oneof![Just(Reduction::None), Just(Reduction::Mean), Just(Reduction::Sum)];
    ((-8..=8i8).prop_map(|v| f64::from(v) / 4.0), reduction, any::<bool>())
}

/// A loss of two images with a map.
const MAP: Takes<2> = Takes {
    names: ["pred", "target"],
    per_pixel: [false; 2],
    weight: true,
    image: true,
    channels: None,
    map: true,
    smooth: false,
    apart: false,
};

/// One image, no map.
const IMAGE: Takes<1> = Takes {
    names: ["input"],
    per_pixel: [false],
    weight: false,
    image: true,
    channels: None,
    map: false,
    smooth: true,
    apart: false,
};

#[test]
fn l1() {
    let losses = reductions().prop_map(|(loss_weight, reduction, sample_wise)| {
        L1Loss::new(L1Options { loss_weight, reduction, sample_wise }).unwrap()
    });
    pointwise(losses, |_| vec![([0.7, 0.7], 0.0), ([3.0, 1.0], 2.0), ([1.0, 3.0], 2.0)]);
}

#[test]
fn mse() {
    let losses = reductions().prop_map(|(loss_weight, reduction, sample_wise)| {
        MseLoss::new(MseOptions { loss_weight, reduction, sample_wise }).unwrap()
    });
    pointwise(losses, |_| vec![([0.7, 0.7], 0.0), ([3.0, 1.0], 4.0), ([1.0, 4.0], 9.0)]);
}

#[test]
fn charbonnier() {
    let eps = prop_oneof![Just(0.0), Just(1e-12), Just(1e-6), Just(0.25), Just(9.0)];
    let losses = (reductions(), eps).prop_map(|((loss_weight, reduction, sample_wise), eps)| {
        CharbonnierLoss::new(CharbonnierOptions { loss_weight, reduction, sample_wise, eps }).unwrap()
    });
    pointwise(losses, |&loss| {
        let eps = CharbonnierOptions::from(loss).eps;
        vec![([0.7, 0.7], eps.sqrt()), ([3.0, 1.0], (4.0 + eps).sqrt()), ([-1.0, 3.0], (16.0 + eps).sqrt())]
    });
}

#[test]
fn huber() {
    let delta = prop_oneof![Just(1.0), Just(0.5), Just(1.75), Just(100.0)];
    let losses = (reductions(), delta).prop_map(|((loss_weight, reduction, sample_wise), delta)| {
        HuberLoss::new(HuberOptions { loss_weight, reduction, sample_wise, delta }).unwrap()
    });
    pointwise(losses, |&loss| {
        let delta = HuberOptions::from(loss).delta;
        let arm = |d: f64| if d < delta { 0.5 * d * d } else { delta * (d - 0.5 * delta) };
        // On the parabola, where it meets the arms, and on either arm.
        vec![
            ([0.7, 0.7], 0.0),
            ([1.25, 1.0], 0.03125),
            ([delta, 0.0], 0.5 * delta * delta),
            ([3.0, 1.0], arm(2.0)),
            ([-3.0, 1.0], arm(4.0)),
        ]
    });
}

#[test]
fn psnr() {
    let options = |to_y: bool| {
        (-8..=8i8).prop_map(move |v| PsnrLoss::new(PsnrOptions { loss_weight: f64::from(v) / 4.0, to_y }).unwrap())
    };
    let takes = Takes { weight: false, image: false, map: false, smooth: true, apart: true, ..MAP };
    general(options(false), takes);
    general(options(true), Takes { channels: Some(3), ..takes });
}

#[test]
fn total_variation() {
    let losses = (-8..=8i8).prop_map(|v| TvLoss::new(TvOptions { loss_weight: f64::from(v) / 4.0 }).unwrap());
    general(losses, IMAGE);
}

#[test]
fn masked_total_variation() {
    let losses =
        (-8..=8i8).prop_map(|v| MaskedTvLoss::new(MaskedTvOptions { loss_weight: f64::from(v) / 4.0 }).unwrap());
    general(losses, Takes { names: ["pred"], weight: true, smooth: false, ..IMAGE });
}

#[test]
fn gradient() {
    let losses = reductions()
        .prop_map(|(loss_weight, reduction, _)| GradientLoss::new(GradientOptions { loss_weight, reduction }).unwrap());
    general(losses, MAP);
}
