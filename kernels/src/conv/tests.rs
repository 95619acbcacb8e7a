use super::super::matmul::test_support::{on_threads, values, worst_error};
use super::*;

/// A convolution to be checked: input (N, C, H, W), kernels (count, rows, columns), geometry.
type Case = ([usize; 4], [usize; 3], Conv2d);

fn cases() -> Vec<Case> {
    let general = |stride, padding, dilation, groups| Conv2d { stride, padding, dilation, groups };
    vec![
        ([2, 3, 7, 6], [4, 3, 3], Conv2d::padded(1)),
        ([1, 2, 5, 5], [3, 5, 5], Conv2d::default()),
        ([2, 5, 4, 7], [6, 1, 1], Conv2d::default()),
        ([2, 5, 4, 7], [6, 1, 1], Conv2d::default().strided(2)),
        ([1, 5, 4, 7], [2, 1, 1], Conv2d::padded(1)),
        ([2, 4, 11, 9], [6, 4, 4], Conv2d::padded(1).strided(2)),
        ([1, 4, 9, 10], [4, 3, 2], general([2, 3], [1, 2], [2, 1], 1)),
        ([2, 6, 9, 8], [4, 3, 3], general([1, 2], [2, 0], [1, 2], 2)),
        ([1, 3, 4, 5], [2, 3, 3], general([1, 1], [5, 4], [1, 1], 1)),
        ([1, 3, 4, 5], [2, 2, 3], general([3, 2], [4, 5], [2, 2], 1)),
        ([2, 4, 10, 12], [4, 5, 3], general([1, 1], [2, 1], [1, 1], 4)),
        ([1, 3, 40, 45], [3, 9, 11], general([1, 1], [4, 5], [1, 1], 3)),
        ([2, 3, 21, 40], [3, 4, 3], general([2, 3], [3, 4], [1, 2], 3)),
        ([1, 2, 17, 9], [2, 3, 3], general([3, 2], [0, 5], [3, 2], 2)),
        ([1, 1, 12, 13], [1, 3, 3], Conv2d::padded(1)),
        ([2, 2, 8, 8], [6, 3, 3], Conv2d::padded(1).grouped(2)),
        ([1, 70, 9, 13], [130, 3, 3], Conv2d::padded(1)),
        ([1, 60, 8, 9], [70, 3, 3], general([2, 2], [1, 1], [1, 1], 1)),
        // Towards few channels, and small samples in one block.
        ([2, 3, 21, 40], [24, 4, 4], Conv2d::padded(1).strided(2)),
        ([3, 4, 9, 10], [40, 3, 2], general([2, 3], [1, 2], [2, 1], 2)),
        ([40, 12, 6, 5], [13, 3, 3], general([2, 3], [1, 1], [1, 1], 1)),
        ([3, 2, 1, 1], [2, 1, 1], Conv2d::default()),
        ([0, 2, 4, 4], [2, 3, 3], Conv2d::padded(1)),
        ([1, 1, 75, 40], [1, 31, 31], Conv2d::padded(15)),
    ]
}

struct Reference {
    output: Vec<f64>,
    input_gradient: Vec<f64>,
    weight_gradient: Vec<f64>,
}

/// The definition, seven loops deep.
fn naive(geometry: &Conv2d, input: &[f64], is: [usize; 4], weight: &[f64], ws: [usize; 4], grad: &[f64]) -> Reference {
    let os = geometry.output_shape(&is, &ws).unwrap();
    let mut reference = Reference {
        output: vec![0.0; os.iter().product()],
        input_gradient: vec![0.0; input.len()],
        weight_gradient: vec![0.0; weight.len()],
    };
    let (channels, outputs) = (ws[1], ws[0] / geometry.groups);
    for sample in 0..is[0] {
        for output in 0..ws[0] {
            for (y, x) in (0..os[2]).flat_map(|y| (0..os[3]).map(move |x| (y, x))) {
                let at = ((sample * os[1] + output) * os[2] + y) * os[3] + x;
                for channel in 0..channels {
                    for (a, b) in (0..ws[2]).flat_map(|a| (0..ws[3]).map(move |b| (a, b))) {
                        let row = (y * geometry.stride[0] + a * geometry.dilation[0]).wrapping_sub(geometry.padding[0]);
                        let column =
                            (x * geometry.stride[1] + b * geometry.dilation[1]).wrapping_sub(geometry.padding[1]);
                        if row >= is[2] || column >= is[3] {
                            continue;
                        }
                        let source = output / outputs * channels + channel;
                        let from = ((sample * is[1] + source) * is[2] + row) * is[3] + column;
                        let tap = ((output * channels + channel) * ws[2] + a) * ws[3] + b;
                        reference.output[at] += input[from] * weight[tap];
                        reference.input_gradient[from] += grad[at] * weight[tap];
                        reference.weight_gradient[tap] += grad[at] * input[from];
                    }
                }
            }
        }
    }
    reference
}

fn shapes((input, [outputs, rows, columns], geometry): &Case) -> ([usize; 4], [usize; 4], [usize; 4]) {
    let weight = [*outputs, input[1] / geometry.groups, *rows, *columns];
    let output = geometry.output_shape(input, &weight).unwrap();
    (*input, weight, [output[0], output[1], output[2], output[3]])
}

fn agrees<F: Element>(tolerance: f64) {
    for case in cases() {
        let (is, ws, os) = shapes(&case);
        let geometry = &case.2;
        let input = values::<F>(is.iter().product(), 1);
        let weight = values::<F>(ws.iter().product(), 2);
        let grad = values::<F>(os.iter().product(), 3);
        let wide = |values: &[F]| values.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
        let expected = naive(geometry, &wide(&input), is, &wide(&weight), ws, &wide(&grad));
        let errors = [
            worst_error(&conv2d(geometry, &input, is, &weight, ws), &expected.output),
            worst_error(
                &conv2d_input_gradient(geometry, &grad, os, &weight, ws, [is[2], is[3]]),
                &expected.input_gradient,
            ),
            worst_error(
                &conv2d_weight_gradient(geometry, &input, is, &grad, os, [ws[2], ws[3]]),
                &expected.weight_gradient,
            ),
        ];
        assert!(errors.iter().all(|&error| error < tolerance), "{case:?}: {errors:?}");
    }
}

#[test]
fn agrees_with_the_definition_in_f64() {
    agrees::<f64>(1e-13);
}

#[test]
fn agrees_with_the_definition_in_f32() {
    agrees::<f32>(5e-6);
}

#[test]
fn same_bits_on_any_number_of_threads() {
    let mut cases = cases();
    cases.push(([2, 8, 64, 60], [16, 3, 3], Conv2d::padded(1)));
    cases.push(([2, 8, 64, 60], [16, 4, 4], Conv2d::padded(1).strided(2)));
    for case in cases {
        let (is, ws, os) = shapes(&case);
        let geometry = &case.2;
        let input = values::<f32>(is.iter().product(), 1);
        let weight = values::<f32>(ws.iter().product(), 2);
        let grad = values::<f32>(os.iter().product(), 3);
        let run = || {
            (
                conv2d(geometry, &input, is, &weight, ws),
                conv2d_input_gradient(geometry, &grad, os, &weight, ws, [is[2], is[3]]),
                conv2d_weight_gradient(geometry, &input, is, &grad, os, [ws[2], ws[3]]),
            )
        };
        let alone = on_threads(1, run);
        assert!(alone == on_threads(2, run) && alone == on_threads(5, run), "{case:?}");
    }
}

#[test]
fn a_kernel_of_zeros_and_one_moves_the_image() {
    let input = [1.0_f32, 2.0, 3.0, 4.0];
    let shifted =
        conv2d(&Conv2d::padded(1), &input, [1, 1, 2, 2], &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1, 1, 3, 3]);
    assert_eq!(shifted, [0.0, 0.0, 0.0, 1.0]);
}
