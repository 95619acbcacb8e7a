use super::super::matmul::test_support::{on_threads, values};
use super::*;
use crate::Conv2d;
use crate::conv::{conv2d, conv2d_input_gradient};
use crate::isa::Isa;

/// Taps along an axis; batch, input channels, output channels, height, width.
const CASES: [(usize, [usize; 5]); 21] = [
    (3, [1, 1, 1, 1, 1]),
    (3, [1, 3, 64, 17, 23]),
    (3, [2, 5, 7, 4, 9]),
    (3, [3, 5, 64, 8, 8]),
    (3, [2, 64, 64, 13, 30]),
    (3, [1, 64, 3, 20, 20]),
    (3, [1, 130, 48, 9, 5]),
    (3, [2, 16, 33, 2, 50]),
    (3, [1, 64, 80, 40, 41]),
    (3, [1, 150, 40, 33, 32]),
    (3, [1, 256, 512, 6, 7]),
    (3, [1, 520, 270, 5, 3]),
    (3, [5, 20, 17, 3, 3]),
    (1, [2, 33, 20, 5, 6]),
    (5, [1, 1, 1, 1, 1]),
    (5, [2, 1, 96, 9, 14]),
    (5, [1, 6, 20, 1, 30]),
    (5, [1, 3, 40, 21, 2]),
    (7, [2, 4, 33, 12, 11]),
    (11, [1, 2, 16, 7, 19]),
    (31, [1, 1, 9, 40, 5]),
];

fn instructions() -> Vec<Instructions> {
    let mut all: Vec<_> = [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().map(Instructions::of).collect();
    all.dedup();
    all
}

/// Root mean square difference, relative to the root mean square.
fn relative_error(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let difference: f64 = got.iter().zip(expected).map(|(&got, expected)| (f64::from(got) - expected).powi(2)).sum();
    (difference / expected.iter().map(|value| value * value).sum::<f64>()).sqrt()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// In root mean square: at most twice the direct error, and what the transforms lose for any number of channels.
#[test]
fn rounds_little_more_than_direct_convolution() {
    for (size, [batch, inputs, outputs, height, width]) in CASES {
        let geometry = Conv2d::padded(size / 2);
        let (is, ws) = ([batch, inputs, height, width], [outputs, inputs, size, size]);
        let os = [batch, outputs, height, width];
        let input = values::<f32>(is.iter().product(), 1);
        let weight = values::<f32>(ws.iter().product(), 2);
        let grad = values::<f32>(os.iter().product(), 3);
        let expected = conv2d(&geometry, &wide(&input), is, &wide(&weight), ws);
        let expected_gradient = conv2d_input_gradient(&geometry, &wide(&grad), os, &wide(&weight), ws, [height, width]);
        let direct = relative_error(&conv2d(&geometry, &input, is, &weight, ws), &expected);
        let direct_gradient = relative_error(
            &conv2d_input_gradient(&geometry, &grad, os, &weight, ws, [height, width]),
            &expected_gradient,
        );
        let weights = WinogradWeights::of_size(size, outputs, inputs, weight);
        for instructions in instructions() {
            let ours = relative_error(&conv3x3_with(instructions, &weights, &input, is, None, false), &expected);
            let ours_gradient =
                relative_error(&conv3x3_input_gradient_with(instructions, &weights, &grad, os), &expected_gradient);
            let limit = |direct: f64| 2.0 * direct + 4e-7;
            assert!(ours <= limit(direct), "{ws:?} {is:?}, {instructions:?}: {ours:e}, direct {direct:e}");
            assert!(
                ours_gradient <= limit(direct_gradient),
                "{ws:?} {is:?}, {instructions:?}: gradient {ours_gradient:e}, direct {direct_gradient:e}"
            );
        }
    }
}

#[test]
fn same_bits_on_any_number_of_threads_and_instruction_set() {
    for (size, [batch, inputs, outputs, height, width]) in CASES {
        let shape = [batch, inputs, height, width];
        let input = values::<f32>(shape.iter().product(), 1);
        let weights = WinogradWeights::of_size(size, outputs, inputs, values(outputs * inputs * size * size, 2));
        let run = || conv3x3(&weights, &input, shape, None, false);
        let alone = on_threads(1, run);
        assert!(alone == on_threads(2, run) && alone == on_threads(5, run), "{size}: {shape:?} to {outputs}");
        let above = values::<f32>(batch * outputs * height * width, 3);
        let both = |instructions| {
            let value = conv3x3_with(instructions, &weights, &input, shape, None, false);
            let above_shape = [batch, outputs, height, width];
            [value, conv3x3_input_gradient_with(instructions, &weights, &above, above_shape)]
        };
        let expected = both(Instructions::detect());
        for instructions in instructions() {
            assert!(expected == both(instructions), "{size}: {shape:?} to {outputs}, {instructions:?}");
        }
    }
}

/// The batch decides between blocks and groups, which agree up to 64 input channels, and on the groups' sizes.
#[test]
fn an_image_is_the_same_alone_and_in_a_batch() {
    for [inputs, outputs, height, width] in [[60, 33, 9, 20], [33, 60, 24, 24], [520, 270, 11, 12], [3, 20, 9, 9]] {
        let batch = 7;
        let weights = WinogradWeights::new(outputs, inputs, values(outputs * inputs * 9, 2));
        let (image, map) = (inputs * height * width, outputs * height * width);
        let (input, above) = (values::<f32>(batch * image, 1), values::<f32>(batch * map, 3));
        let both = |batch: usize, input: &[f32], above: &[f32]| {
            let value = conv3x3(&weights, input, [batch, inputs, height, width], None, false);
            [value, conv3x3_input_gradient(&weights, above, [batch, outputs, height, width])]
        };
        let together = both(batch, &input, &above);
        for sample in [0, 3, 6] {
            let [value, gradient] = both(1, &input[sample * image..][..image], &above[sample * map..][..map]);
            assert!(value == together[0][sample * map..][..map], "{inputs} to {outputs}, {sample}");
            assert!(gradient == together[1][sample * image..][..image], "{inputs} to {outputs}, {sample}: gradient");
        }
    }
}

#[test]
fn adds_the_bias_and_clips() {
    let shape = [2, 20, 6, 7];
    let (input, bias) = (values::<f32>(shape.iter().product(), 1), values::<f32>(19, 3));
    let weights = WinogradWeights::new(19, 20, values(19 * 20 * 9, 2));
    let plain = conv3x3(&weights, &input, shape, None, false);
    let clipped = conv3x3(&weights, &input, shape, Some(&bias), true);
    for (index, (plain, clipped)) in plain.into_iter().zip(clipped).enumerate() {
        assert_eq!(clipped, (plain + bias[index / 42 % 19]).max(0.0));
    }
}

#[test]
fn nan_is_not_clipped() {
    let mut input = vec![1.0_f32; 16 * 81];
    input[40] = f32::NAN;
    let weights = WinogradWeights::new(16, 16, values(16 * 16 * 9, 2));
    assert!(conv3x3(&weights, &input, [1, 16, 9, 9], None, true)[40].is_nan());
}

#[test]
fn equal_weights_are_prepared_once() {
    let make = |seed: u64| WinogradWeights::new(3, 2, values::<f32>(54, seed));
    let (first, second, other) = (make(901), make(901), make(902));
    assert!(Arc::ptr_eq(&first.shared, &second.shared));
    assert!(!Arc::ptr_eq(&first.shared, &other.shared));
    let turned = WinogradWeights::new(2, 3, values::<f32>(54, 901));
    assert!(!Arc::ptr_eq(&first.shared, &turned.shared));
    // A zero of the other sign is another weight.
    let [plus, minus] = [0.0, -0.0].map(|zero| WinogradWeights::new(1, 1, vec![zero; 9]));
    assert!(!Arc::ptr_eq(&plus.shared, &minus.shared));
    // Nobody holds them any more: the next ones are new.
    let before = Arc::downgrade(&first.shared);
    drop((first, second));
    assert!(before.upgrade().is_none());
    assert_eq!(make(901).weight(), values::<f32>(54, 901));
}
