//! Every loss of the family over fixed networks, with options drawn. The including test names the engine.

use image_losses_core::{Differentiable, PointwiseLoss, Result, Tensor, Unary};
use image_losses_laws::{Hand, Lawful, Rank, Takes, Weight, general, pointwise};
use image_losses_penalties::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ENGINE;

fn weights() -> impl Strategy<Value = f64> + Clone {
    (-8..=8i8).prop_map(|v| f64::from(v) / 4.0)
}

#[test]
fn disc_shift() {
    let losses = weights().prop_map(|loss_weight| DiscShiftLoss { loss_weight });
    let takes = Takes { weight: Weight::Taken, degree: Some(2), ..Takes::pointwise(DiscShiftLoss::INPUTS) };
    pointwise(&ENGINE, losses, Takes { map: false, ..takes }, |_| vec![([0.0], 0.0), ([3.0], 9.0), ([-0.5], 0.25)]);
}

#[test]
fn disc_shift_comps() {
    let losses = weights().prop_map(|loss_weight| DiscShiftLossComps { loss_weight });
    let takes = Takes { degree: Some(2), map: false, ..Takes::pointwise(DiscShiftLossComps::INPUTS) };
    pointwise(&ENGINE, losses, takes, |_| vec![([0.0], 0.0), ([3.0], 9.0), ([-0.5], 0.25)]);
}

/// The penalties' gradients reach the critic's parameters, not the images: the laws draw the parameters w of
/// D(x) = Σ ½·w·x² over all that a sample has, at images of ones. Its gradient is w.
fn critic<T: Tensor>(w: &T) -> impl Fn(&T) -> Result<T> {
    |x| {
        let axes: Vec<usize> = (1..x.rank()).collect();
        x.unary(Unary::Square)?.mul(w)?.sum(&axes, true)?.scale(0.5)
    }
}

fn images<T: Tensor>(w: &T, value: f64) -> Result<T> {
    T::full(&w.context(), value, &w.shape())
}

/// Parameters for data of any size.
const PARAMETERS: Takes<1> = Takes { weight: Weight::Taken, rank: Rank::Batch, ..Takes::new(["w"]) };

macro_rules! at_images {
    ($wrapper:ident, $loss:ty) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        struct $wrapper($loss);

        impl Lawful<1> for $wrapper {
            fn apply<T: Differentiable>(&self, [w]: [&T; 1], mask: Option<&T>) -> Result<T> {
                self.0.forward(critic(w), &images(w, 1.0)?, Call { mask, ..Call::default() })
            }
            fn apply_plainly<T: Tensor>(&self, _: [&T; 1], _: Option<&T>) -> Option<Result<T>> {
                None
            }
        }
    };
}

at_images!(R1, R1GradientPenalty);
at_images!(R2, R2GradientPenalty);

fn r1_options() -> impl Strategy<Value = R1GradientPenalty> + Clone {
    let mode = prop_oneof![Just(NormMode::Pixel), Just(NormMode::Hwc)];
    (weights(), mode).prop_map(|(loss_weight, norm_mode)| R1GradientPenalty {
        loss_weight,
        norm_mode,
        ..Default::default()
    })
}

/// Two pixels of one sample. By pixel the mean of 1 and 64, by sample their sum.
fn r1_by_hand(loss_weight: f64, norm_mode: NormMode) -> Vec<Hand<1>> {
    let value = loss_weight * if norm_mode == NormMode::Pixel { 32.5 } else { 65.0 };
    vec![
        Hand { shape: vec![1, 1, 1, 2], inputs: [vec![0.0, 0.0]], value: 0.0 },
        Hand { shape: vec![1, 1, 1, 2], inputs: [vec![1.0, 8.0]], value },
    ]
}

#[test]
fn r1() {
    let losses = r1_options().prop_map(R1);
    let takes = Takes { degree: Some(2), ..PARAMETERS };
    general(&ENGINE, losses, takes, |loss| r1_by_hand(loss.0.loss_weight, loss.0.norm_mode));
}

#[test]
fn r2() {
    let losses = r1_options().prop_map(|options| R2(options.into()));
    let takes = Takes { degree: Some(2), ..PARAMETERS };
    general(&ENGINE, losses, takes, |loss| r1_by_hand(loss.0.loss_weight, loss.0.norm_mode));
}

/// Between real images of 4 and fake ones of 0, at α = ¼ of the real ones: of ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Between(GradientPenaltyLoss);

impl Lawful<1> for Between {
    fn apply<T: Differentiable>(&self, [w]: [&T; 1], mask: Option<&T>) -> Result<T> {
        let mut shape = w.shape();
        if let Some(rest) = shape.get_mut(1..) {
            rest.fill(1);
        }
        let alpha = T::full(&w.context(), 0.25, &shape)?;
        let call = Call { mask, ..Call::default() };
        self.0.forward(critic(w), Some(&images(w, 0.0)?), &images(w, 4.0)?, &[&alpha], call)
    }
    fn apply_plainly<T: Tensor>(&self, _: [&T; 1], _: Option<&T>) -> Option<Result<T>> {
        None
    }
}

#[test]
fn gradient_penalty() {
    let mode = prop_oneof![Just(NormMode::Pixel), Just(NormMode::Hwc)];
    let losses = (weights(), mode).prop_map(|(loss_weight, norm_mode)| {
        let options = GradientPenaltyLoss { loss_weight, norm_mode, ..Default::default() };
        Between(options)
    });
    // Away from the norm's kink at 0.
    let takes = Takes { apart: true, ..PARAMETERS };
    general(&ENGINE, losses, takes, |loss| {
        let GradientPenaltyLoss { loss_weight, norm_mode, .. } = loss.0;
        // A norm of 1 is perfect. Of (0, 8): by pixel the mean of (0 − 1)² and (8 − 1)², by sample (8 − 1)².
        let value = loss_weight * if norm_mode == NormMode::Pixel { 25.0 } else { 49.0 };
        vec![
            Hand { shape: vec![1, 1, 1, 1], inputs: [vec![1.0]], value: 0.0 },
            Hand { shape: vec![1, 1, 1, 2], inputs: [vec![0.0, 8.0]], value },
        ]
    });
}

/// Path lengths of a generator that squares its latents (n, L, D) into an image; noise of ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Path(GeneratorPathRegularizer);

impl Lawful<1> for Path {
    fn apply<T: Differentiable>(&self, [x]: [&T; 1], _: Option<&T>) -> Result<T> {
        let shape = x.shape();
        let latents = match shape[..] {
            [n, l, h, w] => x.reshape(&[n, l, h * w])?,
            _ => x.clone(),
        };
        let generator = |latents: &T| latents.unary(Unary::Square)?.reshape(&shape);
        let noise = T::full(&x.context(), 1.0, &shape)?;
        let state = PathLengthState { mean_path_length: 2.5 };
        Ok(self.0.forward(generator, &latents, &[&noise], &state, Call::default())?.penalty)
    }
    fn apply_plainly<T: Tensor>(&self, _: [&T; 1], _: Option<&T>) -> Option<Result<T>> {
        None
    }
}

#[test]
fn path_length() {
    let losses = (weights(), prop_oneof![Just(0.0), Just(0.01), Just(0.5)]).prop_map(|(loss_weight, decay)| {
        let options = GeneratorPathRegularizer { loss_weight, decay, ..Default::default() };
        Path(options)
    });
    let takes = Takes {
        weight: Weight::Absent,
        rank: Rank::Image,
        // The last input is above 0: no length is 0, where it has no derivative.
        apart: true,
        ..Takes::new(["latents"])
    };
    general(&ENGINE, losses, takes, |loss| {
        let GeneratorPathRegularizer { loss_weight, decay, .. } = loss.0;
        // One latent, one pixel: the length is 2·x, the mean moves from 2.5 towards it by `decay`.
        let value = |length: f64| loss_weight * ((1.0 - decay) * (length - 2.5)).powi(2);
        vec![
            Hand { shape: vec![1; 4], inputs: [vec![1.25]], value: 0.0 },
            Hand { shape: vec![1; 4], inputs: [vec![3.0]], value: value(6.0) },
            // Two latents: the length is ‖2·x‖/√2.
            Hand { shape: vec![1, 2, 1, 1], inputs: [vec![3.0, 4.0]], value: value(50f64.sqrt()) },
        ]
    });
}
