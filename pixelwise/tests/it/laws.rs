//! Every loss of the family, with options drawn. The including test names the engine.

use image_losses_core::{PointwiseLoss, Reduction};
use image_losses_laws::{Hand, Rank, Takes, Weight, general, pointwise};
use image_losses_pixelwise::*;
use proptest::prelude::*;

use crate::ENGINE;

fn reductions() -> impl Strategy<Value = (f64, Reduction, bool)> + Clone {
    let reduction = prop_oneof![Just(Reduction::None), Just(Reduction::Mean), Just(Reduction::Sum)];
    (weights(), reduction, any::<bool>())
}

fn weights() -> impl Strategy<Value = f64> + Clone {
    (-8..=8i8).prop_map(|v| f64::from(v) / 4.0)
}

/// A loss of two images with a map.
const MAP: Takes<2> = Takes {
    weight: Weight::Taken,
    rank: Rank::Image,
    map: true,
    smooth: false,
    symmetric: Some(true),
    degree: Some(1),
    ..Takes::new(["pred", "target"])
};

/// One image, no map.
const IMAGE: Takes<1> = Takes { rank: Rank::Image, degree: Some(2), ..Takes::new(["input"]) };

#[test]
fn l1() {
    let losses =
        reductions().prop_map(|(loss_weight, reduction, sample_wise)| L1Loss { loss_weight, reduction, sample_wise });
    let takes = Takes { symmetric: Some(true), degree: Some(1), ..Takes::pointwise(L1Loss::INPUTS) };
    pointwise(&ENGINE, losses, takes, |_| vec![([0.7, 0.7], 0.0), ([3.0, 1.0], 2.0), ([1.0, 3.0], 2.0)]);
}

#[test]
fn mse() {
    let losses =
        reductions().prop_map(|(loss_weight, reduction, sample_wise)| MseLoss { loss_weight, reduction, sample_wise });
    let takes = Takes { symmetric: Some(true), degree: Some(2), ..Takes::pointwise(MseLoss::INPUTS) };
    pointwise(&ENGINE, losses, takes, |_| vec![([0.7, 0.7], 0.0), ([3.0, 1.0], 4.0), ([1.0, 4.0], 9.0)]);
}

#[test]
fn charbonnier() {
    let eps = prop_oneof![Just(0.0), Just(1e-12), Just(1e-6), Just(0.25), Just(9.0)];
    let losses = (reductions(), eps).prop_map(|((loss_weight, reduction, sample_wise), eps)| CharbonnierLoss {
        loss_weight,
        reduction,
        sample_wise,
        eps,
    });
    let takes = Takes { symmetric: Some(true), ..Takes::pointwise(CharbonnierLoss::INPUTS) };
    pointwise(&ENGINE, losses, takes, |&loss| {
        let eps = loss.eps;
        vec![([0.7, 0.7], eps.sqrt()), ([3.0, 1.0], (4.0 + eps).sqrt()), ([-1.0, 3.0], (16.0 + eps).sqrt())]
    });
}

#[test]
fn huber() {
    let delta = prop_oneof![Just(1.0), Just(0.5), Just(1.75), Just(100.0)];
    let losses = (reductions(), delta).prop_map(|((loss_weight, reduction, sample_wise), delta)| HuberLoss {
        loss_weight,
        reduction,
        sample_wise,
        delta,
    });
    let takes = Takes { symmetric: Some(true), ..Takes::pointwise(HuberLoss::INPUTS) };
    pointwise(&ENGINE, losses, takes, |&loss| {
        let delta = loss.delta;
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
    let options = |to_y: bool| weights().prop_map(move |loss_weight| PsnrLoss { loss_weight, to_y });
    let takes = Takes { apart: true, symmetric: Some(true), ..Takes::new(["pred", "target"]) };
    // 10·log10 of the mean square and 1e-8: of nothing −80; of (0² + 2²)/2 = 2, 3.0103. Of the luma
    // (65.481 + 128.553 + 24.966)/255·d = 219/255·d, the offset gone.
    general(&ENGINE, options(false), takes, |&loss| {
        let lambda = loss.loss_weight;
        vec![
            Hand { shape: vec![1, 2], inputs: [vec![0.5, 0.25], vec![0.5, 0.25]], value: -80.0 * lambda },
            Hand {
                shape: vec![1, 2],
                inputs: [vec![1.0, 3.0], vec![1.0, 1.0]],
                value: lambda * 10.0 * 2.000_000_01f64.log10(),
            },
        ]
    });
    general(&ENGINE, options(true), Takes { channels: Some(3), ..takes }, |&loss| {
        let lambda = loss.loss_weight;
        let luma = 219.0f64 / 255.0 * 0.5;
        vec![
            Hand { shape: vec![1, 3], inputs: [vec![0.5, 0.25, 0.75], vec![0.5, 0.25, 0.75]], value: -80.0 * lambda },
            Hand {
                shape: vec![1, 3],
                inputs: [vec![1.0; 3], vec![0.5; 3]],
                value: lambda * 10.0 * (luma * luma + 1e-8).log10(),
            },
        ]
    });
}

#[test]
fn total_variation() {
    let losses = weights().prop_map(|loss_weight| TvLoss { loss_weight });
    general(&ENGINE, losses, IMAGE, |&loss| {
        let lambda = loss.loss_weight;
        // A flat image; 1 2 over 4 8: along rows 1 + 16, along columns 9 + 36, over 4 pixels.
        vec![
            Hand { shape: vec![1, 1, 2, 2], inputs: [vec![0.7; 4]], value: 0.0 },
            Hand { shape: vec![1, 1, 2, 2], inputs: [vec![1.0, 2.0, 4.0, 8.0]], value: lambda * 62.0 / 4.0 },
        ]
    });
}

#[test]
fn masked_total_variation() {
    let losses = weights().prop_map(|loss_weight| MaskedTvLoss { loss_weight });
    let takes = Takes { weight: Weight::Taken, smooth: false, degree: Some(1), names: ["pred"], ..IMAGE };
    general(&ENGINE, losses, takes, |&loss| {
        let lambda = loss.loss_weight;
        // Each direction by its own mean: (3 + 6)/2 over rows, (1 + 4)/2 over columns.
        vec![
            Hand { shape: vec![1, 1, 2, 2], inputs: [vec![0.7; 4]], value: 0.0 },
            Hand { shape: vec![1, 1, 2, 2], inputs: [vec![1.0, 2.0, 4.0, 8.0]], value: lambda * 7.0 },
        ]
    });
}

#[test]
fn gradient() {
    let losses = reductions().prop_map(|(loss_weight, reduction, _)| GradientLoss { loss_weight, reduction });
    general(&ENGINE, losses, MAP, |&loss| {
        let lambda = loss.loss_weight;
        // One pixel of two, 3 apart: to either side the kernels' ±2 weighs it, along one axis.
        vec![
            Hand { shape: vec![1, 1, 1, 2], inputs: [vec![0.7; 2], vec![0.7; 2]], value: 0.0 },
            Hand { shape: vec![1, 1, 1, 2], inputs: [vec![4.0, 1.0], vec![1.0, 1.0]], value: lambda * 6.0 },
        ]
    });
}
