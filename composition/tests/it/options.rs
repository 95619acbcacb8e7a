//! Options refused, and defaults.

use image_losses_autograd::differentiate;
use image_losses_composition::*;
use image_losses_core::{Declared, Error, Loss, PointwiseLoss};

#[test]
fn options_outside_their_range_are_refused() {
    let refused = |error: Error, expected: &str| match error {
        Error::InvalidOption { option, .. } => assert_eq!(option, expected),
        other => panic!("{other}"),
    };
    for loss_weight in [f64::NAN, f64::INFINITY] {
        let options = L1CompositionLoss { loss_weight, ..Default::default() };
        refused(options.check().unwrap_err(), "loss_weight");
        let options = MseCompositionLoss { loss_weight, ..Default::default() };
        refused(options.check().unwrap_err(), "loss_weight");
        let options = CharbonnierCompLoss { loss_weight, ..Default::default() };
        refused(options.check().unwrap_err(), "loss_weight");
    }
    for eps in [-1e-12, f64::NAN, f64::INFINITY] {
        let options = CharbonnierCompLoss { eps, ..Default::default() };
        refused(options.check().unwrap_err(), "eps");
    }
    let read = serde_json::from_str::<CharbonnierCompLoss>(r#"{"eps": -1}"#).unwrap();
    refused(read.check().unwrap_err(), "eps");
}

#[test]
fn names_and_defaults_are_those_of_the_original() {
    assert_eq!(CharbonnierCompLoss::default().eps, 1e-12);
    assert_eq!(L1CompositionLoss::default().loss_weight, 1.0);
    assert_eq!(MseCompositionLoss::default().loss_weight, 1.0);
    assert_eq!(CharbonnierCompLoss::default().loss_weight, 1.0);
    let names = [L1CompositionLoss::NAME, MseCompositionLoss::NAME, CharbonnierCompLoss::NAME];
    assert_eq!(names, ["L1CompositionLoss", "MSECompositionLoss", "CharbonnierCompLoss"]);
    let inputs = L1CompositionLoss::INPUTS.map(|input| (input.name, input.per_pixel));
    assert_eq!(inputs, [("pred_alpha", true), ("fg", false), ("bg", false), ("ori_merged", false)]);
}

#[test]
fn charbonnier_without_eps_is_l1() {
    // The last difference is one whose square is 0 in double precision.
    let shape = vec![1, 1, 3];
    let inputs = [vec![0.5, 0.5, 1.0], vec![1.0, 1.0, 1e-200], vec![0.0, 0.0, 0.0], vec![0.5, 1.5, 0.0]];
    let inputs = inputs.map(|values| (values, shape.clone()));
    let charbonnier = CharbonnierCompLoss { eps: 0.0, ..Default::default() };
    let l1 = L1CompositionLoss::default();
    let derived = differentiate(&inputs, |t| charbonnier.forward([&t[0], &t[1], &t[2], &t[3]], None)).unwrap();
    let expected = differentiate(&inputs, |t| l1.forward([&t[0], &t[1], &t[2], &t[3]], None)).unwrap();
    assert_eq!(derived, expected);
    assert_eq!(derived.1[3], [0.0, 1.0 / 3.0, -1.0 / 3.0]);
}
