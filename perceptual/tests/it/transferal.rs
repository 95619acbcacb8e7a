//! `TransferalPerceptualLoss`: gradients, both forms, errors.

use crate::common::{tensor, values};
use image_losses_autograd::differentiate;
use image_losses_core::gradcheck::{STEP, check_gradient};
use image_losses_core::{Declared, Error, Result, Tensor};
use image_losses_laws::drawn;
use image_losses_perceptual::{Criterion, TransferalForm, TransferalPerceptualLoss};
use proptest::prelude::*;

/// Attention, two maps, two textures.
const SHAPES: [[usize; 4]; 5] = [[2, 1, 2, 3], [2, 2, 2, 3], [2, 1, 4, 6], [2, 2, 2, 3], [2, 1, 4, 6]];

fn forward<T: Tensor>(loss: &TransferalPerceptualLoss, inputs: &[T]) -> Result<T> {
    let [attention, a, b, c, d] = inputs else { unreachable!() };
    loss.forward(&[a, b], Some(attention), &[c, d])
}

proptest! {
    #![proptest_config(drawn(32))]

    #[test]
    fn drawn_gradients_of_all_inputs(
        eighths in -16..16i32,
        use_attention in any::<bool>(),
        criterion in prop::sample::select(&[Criterion::L1, Criterion::Mse][..]),
        form in prop::sample::select(&[TransferalForm::Mmagic, TransferalForm::Paper][..]),
        seed in any::<u64>(),
    ) {
        // Exact in decimal digits, for the round trip.
        let loss_weight = f64::from(eighths) / 8.0;
        let loss = TransferalPerceptualLoss { loss_weight, use_attention, criterion, form };
        let text = serde_json::to_string(&loss).unwrap();
        prop_assert_eq!(serde_json::from_str::<TransferalPerceptualLoss>(&text).unwrap(), loss);
        let inputs: Vec<Vec<f64>> = (0..5).map(|i| values(seed ^ i, &SHAPES[i as usize])).collect();
        // L1 has no derivative where map and texture meet: keep them apart.
        prop_assume!((1..3).all(|i| inputs[i].iter().zip(&inputs[i + 2]).all(|(a, b)| (a - b).abs() > 1e-3)));
        let value = |x: &[Vec<f64>]| {
            let tensors: Vec<_> = x.iter().zip(&SHAPES).map(|(x, shape)| tensor(x, shape)).collect();
            forward(&loss, &tensors)?.item()
        };
        let gradient = |x: &[Vec<f64>]| {
            let inputs: Vec<_> = x.iter().zip(&SHAPES).map(|(x, shape)| (x.clone(), shape.to_vec())).collect();
            Ok(differentiate(&inputs, |x| forward(&loss, x))?.1)
        };
        let worst = check_gradient(&inputs, STEP, value, gradient).unwrap().unwrap();
        prop_assert!(worst.error < 1e-6, "{worst:?}");
    }
}

/// Attention a everywhere, differences 2 and 4: enlarging a constant gives it back.
#[test]
fn both_forms_by_hand() {
    let full = |channels: usize, size: usize, value: f64| {
        tensor(&vec![value; channels * size * size], &[1, channels, size, size])
    };
    let value = |loss: TransferalPerceptualLoss| {
        let maps = [full(3, 2, 2.5), full(1, 4, 1.0)];
        let textures = [full(3, 2, 0.5), full(1, 4, 5.0)];
        let value = loss.forward(&[&maps[0], &maps[1]], Some(&full(1, 2, 0.7)), &[&textures[0], &textures[1]]);
        value.unwrap().item().unwrap()
    };
    let options = TransferalPerceptualLoss::default();
    let sigmoid = 1.0 / (1.0 + (-0.7f64).exp());
    let close = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-12, "{value} {expected}");
    close(value(options), 4.0 * sigmoid * sigmoid + 16.0 * 0.49);
    let paper = TransferalPerceptualLoss { form: TransferalForm::Paper, ..options };
    close(value(paper), (4.0 + 16.0) * sigmoid * sigmoid / 2.0);
    close(value(TransferalPerceptualLoss { criterion: Criterion::L1, ..paper }), (2.0 + 4.0) * sigmoid / 2.0);
    close(value(TransferalPerceptualLoss { use_attention: false, loss_weight: 0.5, ..options }), 10.0);
}

#[test]
fn wrong_inputs_are_refused() {
    let loss = TransferalPerceptualLoss::default();
    let zeros = |shape: &[usize]| tensor(&vec![0.0; shape.iter().product()], shape);
    let (attention, small, large) = (zeros(&[1, 1, 2, 2]), zeros(&[1, 3, 2, 2]), zeros(&[1, 3, 4, 4]));
    let call = |maps: &[&_], attention, textures: &[&_]| loss.forward(maps, attention, textures).unwrap_err();
    let a = Some(&attention);
    assert!(matches!(call(&[&small], None, &[&small]), Error::MissingInput { .. }));
    assert!(matches!(call(&[&small, &large], a, &[&small]), Error::InputCount { expected: 2, got: 1, .. }));
    assert!(matches!(call(&[], a, &[]), Error::InputCount { .. }));
    assert!(matches!(call(&[&small, &small], a, &[&small, &small]), Error::ShapeMismatch { argument: "maps", .. }));
    assert!(matches!(call(&[&small], a, &[&large]), Error::ShapeMismatch { argument: "textures", .. }));
    assert!(matches!(call(&[&small], Some(&small), &[&small]), Error::ShapeRule { argument: "soft_attention", .. }));
    let infinite = TransferalPerceptualLoss { loss_weight: f64::INFINITY, ..Default::default() };
    assert!(matches!(infinite.check(), Err(Error::InvalidOption { .. })));
    assert!(serde_json::from_str::<TransferalPerceptualLoss>(r#"{"attention": true}"#).is_err());
    assert!(serde_json::from_str::<TransferalPerceptualLoss>(r#"{"form": "ttsr"}"#).is_err());
}
