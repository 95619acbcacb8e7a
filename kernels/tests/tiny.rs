//! The kernels on inputs of a few elements, against definitions: what an interpreter finishes (scripts/miri.sh).

use image_losses_core::{Conv2d, Declared, Expr, Pointwise, PointwiseLoss, Reducer};
use image_losses_kernels::Array;
use image_losses_kernels::conv::{conv2d, conv2d_input_gradient};
use image_losses_kernels::frozen::{Criterion, FrozenLayer, FrozenNetwork, Target, Term};
use image_losses_kernels::stream::stream;
use image_losses_kernels::winograd::{WinogradWeights, conv3x3, conv3x3_input_gradient};

/// Numbers between −1 and 1 without a pattern.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (1..=count).map(|i| ((i * 389 + seed * 577) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[track_caller]
fn close(got: impl IntoIterator<Item = f64>, expected: &[f64]) {
    let got: Vec<f64> = got.into_iter().collect();
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-5 * expected.abs().max(1.0), "{got} for {expected}");
    }
}

#[test]
fn a_convolution_by_winograd() {
    let (shape, kernel) = ([1, 2, 5, 3], [3, 2, 3, 3]);
    let (input, weight, above) = (numbers(30, 1), numbers(54, 2), numbers(45, 3));
    let geometry = Conv2d::padded(1);
    let weights = WinogradWeights::new(3, 2, weight.clone());
    let expected = conv2d(&geometry, &wide(&input), shape, &wide(&weight), kernel);
    close(wide(&conv3x3(&weights, &input, shape, None, false)), &expected);
    let expected = conv2d_input_gradient(&geometry, &wide(&above), [1, 3, 5, 3], &wide(&weight), kernel, [5, 3]);
    close(wide(&conv3x3_input_gradient(&weights, &above, [1, 3, 5, 3])), &expected);
}

#[test]
fn a_frozen_network() {
    let convolution = |weight: Vec<f32>, shape: [usize; 4], geometry: Conv2d| FrozenLayer::Convolution {
        weight,
        shape,
        bias: numbers(shape[0], 9),
        geometry,
    };
    let (first, second) = (numbers(18, 4), numbers(4, 5));
    let layers = vec![
        convolution(first.clone(), [2, 1, 3, 3], Conv2d::padded(1)),
        FrozenLayer::Relu,
        FrozenLayer::MaxPool { ceil_mode: false },
        convolution(second.clone(), [2, 2, 1, 1], Conv2d::default()),
    ];
    let network = FrozenNetwork::new(1, layers, &[1, 3]).unwrap();
    let (shape, images, others) = ([1, 1, 4, 4], numbers(16, 6), numbers(16, 7));

    // The layers one by one.
    let bias = |mut features: Vec<f64>| {
        let bias = numbers(2, 9);
        let pixels = features.len() / 2;
        features.iter_mut().enumerate().for_each(|(i, value)| *value += f64::from(bias[i / pixels]));
        features
    };
    let relu = |images: &[f64]| -> Vec<f64> {
        let sums = bias(conv2d(&Conv2d::padded(1), images, shape, &wide(&first), [2, 1, 3, 3]));
        sums.into_iter().map(|value| value.max(0.0)).collect()
    };
    let last = |relu: &[f64]| -> Vec<f64> {
        let window = |corner: usize| [0, 1, 4, 5].into_iter().map(|at| relu[corner + at]).fold(0.0, f64::max);
        let pooled: Vec<f64> = [0, 2, 8, 10, 16, 18, 24, 26].into_iter().map(window).collect();
        bias(conv2d(&Conv2d::default(), &pooled, [1, 2, 2, 2], &wide(&second), [2, 2, 1, 1]))
    };
    let squares = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64;
    let value = |images: &[f64]| {
        let (ours, theirs) = (relu(images), relu(&wide(&others)));
        [2.0 * squares(&ours, &theirs), 0.5 * squares(&last(&ours), &last(&theirs))]
    };

    let terms = [(1, 2.0), (3, 0.5)].map(|(tap, weight)| Term { tap, weight, criterion: Criterion::Mse, gram: false });
    let features = network.features(&others, shape).unwrap();
    for target in [Target::Images(&others), Target::Features(&features)] {
        let found = network.compare(&images, target, shape, &terms, true).unwrap();
        close(found.values, &value(&wide(&images)));
        let slope = |pixel: usize| {
            let at = |by: f64| {
                let mut images = wide(&images);
                images[pixel] += by;
                value(&images).iter().sum::<f64>()
            };
            (at(1e-6) - at(-1e-6)) / 2e-6
        };
        close(wide(&found.gradient.unwrap()), &(0..16).map(slope).collect::<Vec<_>>());
    }
    // Gram matrices.
    let term = Term { tap: 1, weight: 1.0, criterion: Criterion::L1, gram: true };
    let gram = |f: &[f64]| -> Vec<f64> {
        let entry = |i: usize| (0..16).map(|p| f[i / 2 * 16 + p] * f[i % 2 * 16 + p]).sum::<f64>() / 32.0;
        (0..4).map(entry).collect()
    };
    let (ours, theirs) = (gram(&relu(&wide(&images))), gram(&relu(&wide(&others))));
    let expected = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).sum::<f64>() / 4.0;
    close(network.compare(&images, Target::Images(&others), shape, &[term], true).unwrap().values, &[expected]);
}

/// ln(1 + (x − y)²)
#[derive(Clone, Debug)]
struct Cauchy;

impl Pointwise<2> for Cauchy {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        ((x - y).square() + 1.0).ln()
    }
}

impl Declared for Cauchy {
    const NAME: &'static str = "CauchyLoss";
}

impl PointwiseLoss<2> for Cauchy {
    fn reducer(&self) -> Reducer {
        Reducer::default()
    }
}

#[test]
fn a_pointwise_loss_with_a_mask() {
    let (shape, mask_shape) = ([2, 3, 2, 5], [2, 1, 2, 5]);
    let (x, y) = (numbers(60, 1), numbers(60, 2));
    let mask: Vec<f32> = (0..20).map(|i| [1.0, 0.0, 0.5][i % 3]).collect();
    let array = |data| Array { shape: &shape, data };
    let weight = Array { shape: &mask_shape, data: &mask };
    let (value, gradients) = Cauchy.value_and_gradients([array(&x), array(&y)], Some(weight), [true, true]).unwrap();

    let weights: Vec<f64> = (0..60).map(|i| f64::from(mask[i / 30 * 10 + i % 10])).collect();
    let total: f64 = weights.iter().sum();
    let differences: Vec<f64> = wide(&x).iter().zip(wide(&y)).map(|(x, y)| x - y).collect();
    let terms = differences.iter().zip(&weights);
    let expected = terms.clone().map(|(d, w)| w * (1.0 + d * d).ln()).sum::<f64>() / total;
    close([f64::from(value)], &[expected]);
    let slopes: Vec<f64> = terms.map(|(d, w)| w * 2.0 * d / (1.0 + d * d) / total).collect();
    let [of_x, of_y] = gradients.map(Option::unwrap);
    close(wide(&of_x), &slopes);
    close(wide(&of_y).into_iter().map(|slope| -slope), &slopes);
}

#[test]
fn a_stream() {
    let mut written = vec![1.0; 70];
    assert_eq!(stream(&[1.0; 50], &mut written), 50.0);
    assert_eq!(written, [0.0; 70]);
}
