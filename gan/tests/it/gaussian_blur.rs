use image_losses_core::{Declared, Error};
use image_losses_gan::GaussianBlur;
use image_losses_laws::drawn;
use proptest::prelude::*;

use crate::tools::{close, differentiate, nd, variant};

fn blur(kernel_size: [usize; 2], sigma: [f64; 2]) -> GaussianBlur {
    GaussianBlur { kernel_size, sigma }
}

/// One convolution with the two kernels' outer product, zeros beyond the border.
fn convolved(x: &[f64], shape: &[usize], kernel_size: [usize; 2], sigma: [f64; 2]) -> Vec<f64> {
    let (planes, h, w) = (shape[0] * shape[1], shape[2] as i64, shape[3] as i64);
    let [rows, columns] = kernel_size.map(|size| size as i64 / 2);
    let weight =
        |i: i64, j: i64| (-(i * i) as f64 / (2.0 * sigma[0].powi(2)) - (j * j) as f64 / (2.0 * sigma[1].powi(2))).exp();
    let taps: Vec<(i64, i64)> = (-rows..=rows).flat_map(|i| (-columns..=columns).map(move |j| (i, j))).collect();
    let total: f64 = taps.iter().map(|&(i, j)| weight(i, j)).sum();
    let mut out = Vec::new();
    for plane in 0..planes {
        for y in 0..h {
            for z in 0..w {
                let inside = taps.iter().filter(|(i, j)| (0..h).contains(&(y + i)) && (0..w).contains(&(z + j)));
                let at = |i: i64, j: i64| x[plane * (h * w) as usize + ((y + i) * w + z + j) as usize];
                out.push(inside.map(|&(i, j)| weight(i, j) / total * at(i, j)).sum());
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(drawn(64))]

    #[test]
    fn drawn_two_passes_are_one_convolution(
        (kernel, sigma) in ([0usize..5, 0usize..5], [0.3f64..4.0, 0.3f64..4.0]),
        (x, shape) in [1usize..3, 1..3, 1..6, 1..6].prop_flat_map(|shape| {
            (prop::collection::vec(-1.0f64..1.0, shape.iter().product::<usize>()), Just(shape))
        }),
    ) {
        let kernel_size = kernel.map(|half| 2 * half + 1);
        let expected = convolved(&x, &shape, kernel_size, sigma);
        let got = blur(kernel_size, sigma).forward(&nd(&x, &shape))?;
        for (a, b) in got.array().iter().zip(&expected) {
            close(*a, *b, 1e-14);
        }
        // The kernel is symmetric, so the gradient of Σ c·blur(x) is blur(c).
        let cotangent: Vec<f64> = (0..x.len()).map(|i| (i as f64).sin()).collect();
        let inputs = [(x, shape.to_vec())];
        let (_, gradients) = differentiate(&inputs, |t| {
            use image_losses_core::Tensor;
            let cotangent = Tensor::constant(&t[0].context(), &cotangent, &shape)?;
            blur(kernel_size, sigma).forward(&t[0])?.mul(&cotangent)?.sum_all()
        })?;
        for (a, b) in gradients[0].iter().zip(convolved(&cotangent, &shape, kernel_size, sigma)) {
            close(*a, b, 1e-14);
        }
    }
}

#[test]
fn height_comes_first() {
    // A kernel over the height alone moves nothing sideways.
    let spread = blur([3, 1], [1.0, 1.0]).forward(&nd(&[0.0, 1.0, 0.0, 0.0], &[1, 1, 1, 4])).unwrap();
    let middle = 1.0 / (1.0 + 2.0 * (-0.5f64).exp());
    close(spread.array()[[0, 0, 0, 1]], middle, 1e-15);
    assert_eq!(spread.array()[[0, 0, 0, 0]], 0.0);
}

#[test]
fn a_flat_image_stays_flat_inside() {
    let flat = blur([3, 5], [0.7, 1.1]).forward(&nd(&[2.0; 25], &[1, 1, 5, 5])).unwrap();
    close(flat.array()[[0, 0, 2, 2]], 2.0, 1e-15);
    assert!(flat.array()[[0, 0, 0, 0]] < 1.9);
}

#[test]
fn what_is_no_filter_is_refused() {
    let new = |kernel_size, sigma| GaussianBlur { kernel_size, sigma }.check();
    for kernel_size in [[2, 3], [3, 0], [usize::MAX, 3]] {
        assert!(matches!(new(kernel_size, [1.0, 1.0]), Err(Error::InvalidOption { option: "kernel_size", .. })));
    }
    for sigma in [[0.0, 1.0], [1.0, -1.0], [f64::NAN, 1.0]] {
        assert!(matches!(new([3, 3], sigma), Err(Error::InvalidOption { option: "sigma", .. })));
    }
    assert_eq!(variant(GaussianBlur::default().forward(&nd(&[1.0; 4], &[1, 2, 2]))), "ShapeRule");
}

#[test]
fn configurations_are_read_and_written() {
    let read: GaussianBlur = serde_json::from_str(r#"{"sigma": [2, 3]}"#).unwrap();
    assert_eq!(read, blur([71, 71], [2.0, 3.0]));
    let other = blur([5, 9], [1.5, 2.5]);
    assert_eq!(serde_json::from_str::<GaussianBlur>(&serde_json::to_string(&other).unwrap()).unwrap(), other);
    assert!(serde_json::from_str::<GaussianBlur>(r#"{"size": [3, 3]}"#).is_err());
    assert_eq!(
        variant(serde_json::from_str::<GaussianBlur>(r#"{"kernel_size": [4, 3]}"#).unwrap().check()),
        "InvalidOption"
    );
}

#[test]
fn its_defaults_are_mmagics() {
    // MMagic, GaussianBlur(kernel_size=(71, 71), sigma=(10, 10)).
    assert_eq!(GaussianBlur::default(), GaussianBlur { kernel_size: [71, 71], sigma: [10.0, 10.0] });
}
