//! Every loss of the family, with options drawn. The including test names the engine.

use image_losses_composition::*;
use image_losses_core::{PointwiseLoss, Reduction};
use image_losses_laws::{Takes, pointwise};
use proptest::prelude::*;

use crate::ENGINE;

fn reductions() -> impl Strategy<Value = (f64, Reduction, bool)> + Clone {
    let reduction = prop_oneof![Just(Reduction::None), Just(Reduction::Mean), Just(Reduction::Sum)];
    ((-8..=8i8).prop_map(|v| f64::from(v) / 4.0), reduction, any::<bool>())
}

/// Points (α, f, b, m) with what is composed less what is observed; the first composes exactly.
const POINTS: [([f64; 4], f64); 4] = [
    ([0.25, 8.0, 4.0, 5.0], 0.0), // 2 + 3 − 5
    ([0.25, 8.0, 4.0, 3.0], 2.0), // 2 + 3 − 3
    ([0.0, 8.0, 4.0, 1.0], 3.0),  // the background alone
    ([1.0, 8.0, 4.0, 9.0], -1.0), // the foreground alone
];

#[test]
fn l1() {
    let losses = reductions().prop_map(|(loss_weight, reduction, sample_wise)| L1CompositionLoss {
        loss_weight,
        reduction,
        sample_wise,
    });
    pointwise(&ENGINE, losses, Takes::pointwise(L1CompositionLoss::INPUTS), |_| {
        POINTS.map(|(point, d)| (point, d.abs())).to_vec()
    });
}

#[test]
fn mse() {
    let losses = reductions().prop_map(|(loss_weight, reduction, sample_wise)| MseCompositionLoss {
        loss_weight,
        reduction,
        sample_wise,
    });
    pointwise(&ENGINE, losses, Takes::pointwise(MseCompositionLoss::INPUTS), |_| {
        POINTS.map(|(point, d)| (point, d * d)).to_vec()
    });
}

#[test]
fn charbonnier() {
    let eps = prop_oneof![Just(0.0), Just(1e-12), Just(1e-6), Just(0.25), Just(9.0)];
    let losses = (reductions(), eps).prop_map(|((loss_weight, reduction, sample_wise), eps)| CharbonnierCompLoss {
        loss_weight,
        reduction,
        sample_wise,
        eps,
    });
    pointwise(&ENGINE, losses, Takes::pointwise(CharbonnierCompLoss::INPUTS), |&loss| {
        let eps = loss.eps;
        POINTS.map(|(point, d)| (point, (d * d + eps).sqrt())).to_vec()
    });
}
