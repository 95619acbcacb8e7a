//! Value and gradients of any loss on arrays, returned and written to memory of the caller's.

use image_losses_core::{Error, Loss, Reduction};
use image_losses_ndarray::{differentiate, value_and_gradients, value_and_gradients_into};
use image_losses_pixelwise::{GradientLoss, L1Loss, PsnrLoss, TvLoss};
use ndarray::{Array4, Axis, array};

fn image(seed: usize) -> Array4<f64> {
    Array4::from_shape_fn((2, 1, 4, 5), |(n, _, y, x)| ((7 * n + 5 * y + 3 * x + 11 * seed) % 13) as f64 / 13.0)
}

/// Returned and written, they are those of a recorded function.
fn check<L: Loss<2>>(loss: &L) {
    let (x, y) = (image(1), image(2));
    let (expected, gradients) =
        differentiate(&[x.view(), y.view()], |tensors| loss.forward([&tensors[0], &tensors[1]], None)).unwrap();
    let (value, [by_x, by_y]) = value_and_gradients(loss, [x.view(), y.view()], None, [true, false]).unwrap();
    assert!(by_y.is_none());
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1.0);
    assert!(near(value, expected.sum()) && by_x.unwrap().iter().zip(&gradients[0]).all(|(a, b)| near(*a, *b)));
    // Both, in one piece and not.
    let (mut by_x, mut by_y) = (Array4::from_elem(x.raw_dim(), f64::NAN), Array4::from_elem((2, 1, 5, 4), f64::NAN));
    let mut turned = by_y.view_mut();
    turned.swap_axes(2, 3);
    let wanted = [Some(by_x.view_mut()), Some(turned)];
    let value = value_and_gradients_into(loss, [x.view(), y.view()], None, wanted).unwrap();
    assert!(near(value, expected.sum()) && by_x.iter().zip(&gradients[0]).all(|(a, b)| near(*a, *b)));
    by_y.swap_axes(2, 3);
    assert!(by_y.iter().zip(&gradients[1]).all(|(a, b)| near(*a, *b)));
}

#[test]
fn losses_of_any_kind_have_their_gradients_on_arrays() {
    check(&L1Loss::default());
    check(&PsnrLoss::default());
    check(&GradientLoss::default());
}

#[test]
fn maps_and_wrong_memory_are_refused() {
    let (x, y) = (image(1), image(2));
    let map = GradientLoss { reduction: Reduction::None, ..GradientLoss::default() };
    let error = value_and_gradients(&map, [x.view(), y.view()], None, [true, false]).unwrap_err();
    assert!(matches!(error, Error::ShapeRule { argument: "its value", .. }), "{error}");
    let map = L1Loss { reduction: Reduction::None, ..L1Loss::default() };
    let error = value_and_gradients(&map, [x.view(), y.view()], None, [true, false]).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { option: "reduction", .. }), "{error}");
    // A value per sample.
    let error = value_and_gradients(&TvLoss::default(), [x.view()], None, [true]).unwrap_err();
    assert!(matches!(&error, Error::ShapeRule { got, .. } if got == &[2]), "{error}");
    let mut small = array![[[[0.0]]]];
    let wanted = [Some(small.view_mut()), None];
    let error = value_and_gradients_into(&L1Loss::default(), [x.view(), y.view()], None, wanted).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { argument: "gradient", .. }), "{error}");
    let weight = x.index_axis(Axis(0), 0).insert_axis(Axis(0));
    let error = value_and_gradients(&PsnrLoss::default(), [x.view(), y.view()], Some(weight), [true; 2]).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { option: "weight", .. } | Error::WeightShape { .. }), "{error}");
}
