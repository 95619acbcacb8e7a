use super::super::matmul::test_support::{on_threads, values};
use super::*;
use crate::conv::{conv2d, conv2d_input_gradient};
use crate::isa::Isa;
use crate::pool::{gather, max_pool2d_indices, scatter_add};
use crate::{Element, Pool2d};

/// The network by the general kernels, layer by layer, in any precision.
struct Plain<'a> {
    layers: &'a [FrozenLayer],
    taps: &'a [usize],
}

struct Trace<F> {
    /// The input of each layer, and the last one's output.
    values: Vec<(Vec<F>, [usize; 4])>,
}

fn cast<F: Element>(values: &[f32]) -> Vec<F> {
    values.iter().map(|&value| F::from_f64(f64::from(value))).collect()
}

fn four(shape: Vec<usize>) -> [usize; 4] {
    [shape[0], shape[1], shape[2], shape[3]]
}

fn pool(ceil_mode: bool) -> Pool2d {
    Pool2d { ceil_mode, ..Pool2d::square(2) }
}

/// Whether the first of two halves is taken: the larger, or the one that is NaN.
fn is_first<F: Element>(first: F, second: F) -> bool {
    first > second || first.to_f64().is_nan()
}

impl Plain<'_> {
    fn forward<F: Element>(&self, input: Vec<F>, shape: [usize; 4]) -> Trace<F> {
        let mut values = vec![(input, shape)];
        for layer in self.layers {
            let (x, shape) = values.last().unwrap();
            let plane = shape[2] * shape[3];
            let next = match layer {
                FrozenLayer::Convolution { weight, shape: ws, bias, geometry } => {
                    let mut y = conv2d(geometry, x, *shape, &cast::<F>(weight), *ws);
                    let os = four(geometry.output_shape(shape, ws).unwrap());
                    for (index, y) in y.iter_mut().enumerate() {
                        let channel = index / (os[2] * os[3]) % os[1];
                        *y += bias.get(channel).map_or(F::ZERO, |&bias| F::from_f64(f64::from(bias)));
                    }
                    (y, os)
                }
                FrozenLayer::Affine { scale, shift } => {
                    let (scale, shift) = (cast::<F>(scale), cast::<F>(shift));
                    let channel = |index: usize| index / plane % shape[1];
                    let y = x.iter().enumerate().map(|(i, &x)| x * scale[channel(i)] + shift[channel(i)]).collect();
                    (y, *shape)
                }
                FrozenLayer::Relu => (x.iter().map(|&x| if x <= F::ZERO { F::ZERO } else { x }).collect(), *shape),
                FrozenLayer::MaxFeature => {
                    let half = shape[1] / 2 * plane;
                    let larger = |pair: &[F]| {
                        let (a, b) = pair.split_at(half);
                        a.iter().zip(b).map(|(&a, &b)| if is_first(a, b) { a } else { b }).collect::<Vec<F>>()
                    };
                    (x.chunks(2 * half).flat_map(larger).collect(), [shape[0], shape[1] / 2, shape[2], shape[3]])
                }
                FrozenLayer::MaxPool { ceil_mode } => {
                    let pool = pool(*ceil_mode);
                    (gather(x, &max_pool2d_indices(&pool, x, *shape)), four(pool.output_shape(shape).unwrap()))
                }
            };
            values.push(next);
        }
        Trace { values }
    }

    fn compare<F: Element>(
        &self,
        prediction: &[F],
        target: &[F],
        shape: [usize; 4],
        terms: &[Term],
    ) -> (Vec<f64>, Vec<F>) {
        let (x, y) = (self.forward(prediction.to_vec(), shape), self.forward(target.to_vec(), shape));
        let mut results = vec![0.0; terms.len()];
        let mut gradient: Option<Vec<F>> = None;
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let (features, fs) = &x.values[index + 1];
            for (term, result) in terms.iter().zip(&mut results).filter(|(term, _)| term.tap == index) {
                assert!(self.taps.contains(&index));
                let target = &y.values[index + 1].0;
                let (value, slope) = if term.gram {
                    gram_term(term, features, target, *fs)
                } else {
                    term_of(term.criterion, features, target)
                };
                *result = term.weight * value;
                let slope = slope.into_iter().map(|slope| F::from_f64(slope * term.weight));
                gradient = Some(match gradient {
                    Some(gradient) => gradient.iter().zip(slope).map(|(&a, b)| a + b).collect(),
                    None => slope.collect(),
                });
            }
            let Some(above) = gradient.take() else { continue };
            let (input, is) = &x.values[index];
            gradient = Some(match layer {
                FrozenLayer::Convolution { weight, shape: ws, geometry, .. } => {
                    conv2d_input_gradient(geometry, &above, *fs, &cast::<F>(weight), *ws, [is[2], is[3]])
                }
                FrozenLayer::Affine { scale, .. } => {
                    let scale = cast::<F>(scale);
                    above.iter().enumerate().map(|(i, &g)| g * scale[i / (is[2] * is[3]) % is[1]]).collect()
                }
                FrozenLayer::Relu => {
                    above.iter().zip(input).map(|(&g, &x)| if x <= F::ZERO { F::ZERO } else { g }).collect()
                }
                FrozenLayer::MaxFeature => {
                    let half = fs[1] * fs[2] * fs[3];
                    let split = |(x, above): (&[F], &[F])| {
                        let taken = |i: usize, first: bool| {
                            if is_first(x[i], x[i + half]) == first { above[i] } else { F::ZERO }
                        };
                        let parts = [true, false].map(|first| (0..half).map(|i| taken(i, first)).collect::<Vec<F>>());
                        parts.concat()
                    };
                    input.chunks(2 * half).zip(above.chunks(half)).flat_map(split).collect()
                }
                FrozenLayer::MaxPool { ceil_mode } => {
                    scatter_add(&above, &max_pool2d_indices(&pool(*ceil_mode), input, *is), input.len())
                }
            });
        }
        (results, gradient.unwrap_or_else(|| vec![F::ZERO; prediction.len()]))
    }
}

fn term_of<F: Element>(criterion: Criterion, x: &[F], y: &[F]) -> (f64, Vec<f64>) {
    let count = x.len() as f64;
    let differences: Vec<f64> = x.iter().zip(y).map(|(x, y)| x.to_f64() - y.to_f64()).collect();
    match criterion {
        Criterion::L1 => (
            differences.iter().map(|d| d.abs()).sum::<f64>() / count,
            differences.iter().map(|d| if *d == 0.0 { 0.0 } else { d.signum() / count }).collect(),
        ),
        Criterion::Mse => (
            differences.iter().map(|d| d * d).sum::<f64>() / count,
            differences.iter().map(|d| 2.0 * d / count).collect(),
        ),
    }
}

fn gram_term<F: Element>(term: &Term, x: &[F], y: &[F], [n, c, h, w]: [usize; 4]) -> (f64, Vec<f64>) {
    let scale = 1.0 / (c * h * w) as f64;
    let at = |x: &[F], sample: usize, channel: usize, pixel: usize| x[(sample * c + channel) * h * w + pixel].to_f64();
    let gram = |x: &[F]| -> Vec<f64> {
        let mut gram = Vec::new();
        for (sample, i) in (0..n).flat_map(|sample| (0..c).map(move |i| (sample, i))) {
            for j in 0..c {
                gram.push((0..h * w).map(|p| at(x, sample, i, p) * at(x, sample, j, p)).sum::<f64>() * scale);
            }
        }
        gram
    };
    let (value, slope) = term_of(term.criterion, &gram(x), &gram(y));
    let mut gradient = vec![0.0; x.len()];
    for (index, gradient) in gradient.iter_mut().enumerate() {
        let (sample, i, p) = (index / (c * h * w), index / (h * w) % c, index % (h * w));
        *gradient = (0..c)
            .map(|j| (slope[(sample * c + i) * c + j] + slope[(sample * c + j) * c + i]) * at(x, sample, j, p) * scale)
            .sum();
    }
    (value, gradient)
}

fn convolution(inputs: usize, outputs: usize, seed: u64) -> FrozenLayer {
    general(inputs, [outputs, inputs, 3, 3], Conv2d::padded(1), seed)
}

fn general(inputs: usize, shape: [usize; 4], geometry: Conv2d, seed: u64) -> FrozenLayer {
    let gain = (6.0 / (inputs * shape[2] * shape[3]) as f32).sqrt();
    let weight = values::<f32>(shape.iter().product(), seed).into_iter().map(|w| w * gain).collect();
    let bias = values::<f32>(shape[0], seed + 100).into_iter().map(|b| b * 0.1).collect();
    FrozenLayer::Convolution { weight, shape, bias, geometry }
}

fn affine(channels: usize, seed: u64) -> FrozenLayer {
    let scale = values::<f32>(channels, seed).into_iter().map(|s| 1.0 + 0.5 * s).collect();
    FrozenLayer::Affine { scale, shift: values(channels, seed + 1) }
}

fn term(tap: usize, weight: f64, criterion: Criterion, gram: bool) -> Term {
    Term { tap, weight, criterion, gram }
}

/// Layers, terms and image shapes.
type Case = (Vec<FrozenLayer>, Vec<Term>, Vec<[usize; 4]>);

fn cases() -> Vec<Case> {
    use Criterion::{L1, Mse};
    use FrozenLayer::{MaxFeature, MaxPool, Relu};
    let floor = MaxPool { ceil_mode: false };
    let ceil = MaxPool { ceil_mode: true };
    vec![
        // A small VGG, tapped before its ReLUs.
        (
            vec![
                convolution(3, 20, 1),
                Relu,
                convolution(20, 20, 2),
                Relu,
                floor.clone(),
                convolution(20, 40, 3),
                Relu,
                convolution(40, 40, 4),
                Relu,
                floor.clone(),
                convolution(40, 48, 5),
            ],
            vec![term(2, 0.5, Mse, false), term(7, 1.0, Mse, false), term(10, 2.0, Mse, false)],
            vec![[1, 3, 16, 16], [2, 3, 13, 22], [1, 3, 5, 4], [3, 3, 9, 31]],
        ),
        // Everything after the ReLU, pools rounded up, Gram matrices beside features, batch norm folded and not.
        (
            vec![
                convolution(5, 17, 6),
                affine(17, 50),
                Relu,
                ceil.clone(),
                convolution(17, 33, 7),
                affine(33, 51),
                Relu,
                convolution(33, 16, 8),
                Relu,
                ceil.clone(),
                convolution(16, 8, 9),
                Relu,
                convolution(8, 3, 10),
            ],
            vec![
                term(2, 1.0, Mse, true),
                term(4, 0.7, Mse, false),
                term(6, 0.3, Mse, true),
                term(6, 1.5, Mse, false),
                term(9, 2.0, Mse, false),
                term(12, 1.0, Mse, true),
            ],
            vec![[1, 5, 7, 7], [2, 5, 12, 9], [1, 5, 4, 3]],
        ),
        // Other kernels, a tap on a tapped convolution's ReLU, pools at the ends, a ReLU after a pool.
        (
            vec![
                floor.clone(),
                Relu,
                general(4, [12, 2, 5, 4], Conv2d { stride: [2, 1], padding: [2, 1], dilation: [1, 1], groups: 2 }, 11),
                Relu,
                general(12, [20, 12, 1, 1], Conv2d::default(), 12),
                affine(20, 52),
                Relu,
                affine(20, 53),
                Relu,
                convolution(20, 18, 13),
                ceil,
                Relu,
                affine(18, 54),
            ],
            vec![
                term(0, 0.2, Mse, false),
                term(2, 1.0, Mse, false),
                term(3, 0.5, Mse, false),
                term(6, 0.9, Mse, true),
                term(9, 1.0, Mse, false),
                term(11, 1.1, Mse, false),
                term(12, 1.0, Mse, false),
            ],
            vec![[2, 4, 15, 18], [1, 4, 9, 40]],
        ),
        // A small LightCNN: the larger half of the channels, kernels of one pixel.
        (
            vec![
                general(3, [64, 3, 5, 5], Conv2d::padded(2), 60),
                MaxFeature,
                MaxPool { ceil_mode: true },
                general(32, [64, 32, 1, 1], Conv2d::default(), 61),
                MaxFeature,
                convolution(32, 96, 62),
                MaxFeature,
                MaxPool { ceil_mode: true },
                general(48, [32, 48, 1, 1], Conv2d::default(), 63),
            ],
            vec![term(1, 0.5, Mse, false), term(6, 1.0, Mse, true), term(8, 2.0, Mse, false)],
            vec![[1, 3, 16, 16], [2, 3, 9, 13], [3, 3, 1, 2]],
        ),
        (
            vec![convolution(3, 64, 14), Relu, convolution(64, 64, 15), Relu, floor],
            vec![
                term(0, 1.0, L1, false),
                term(2, 1.0, L1, false),
                term(2, 1.0, L1, true),
                term(2, 0.1, Mse, false),
                term(4, 3.0, L1, false),
            ],
            vec![[1, 3, 18, 17], [2, 3, 8, 8]],
        ),
    ]
}

fn build(layers: &[FrozenLayer], terms: &[Term], channels: usize) -> FrozenNetwork {
    let taps: Vec<usize> = terms.iter().map(|term| term.tap).collect();
    FrozenNetwork::new(channels, layers.to_vec(), &taps).unwrap()
}

fn distance(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let difference: f64 = got.iter().zip(expected).map(|(&got, expected)| (f64::from(got) - expected).powi(2)).sum();
    (difference / expected.iter().map(|value| value * value).sum::<f64>()).sqrt()
}

#[test]
fn agrees_with_the_layers_one_by_one() {
    for (index, (layers, terms, shapes)) in cases().iter().enumerate() {
        let network = build(layers, terms, shapes[0][1]);
        let taps: Vec<usize> = terms.iter().map(|term| term.tap).collect();
        let plain = Plain { layers, taps: &taps };
        for &shape in shapes {
            let (x, y) = (values::<f32>(shape.iter().product(), 21), values::<f32>(shape.iter().product(), 22));
            let (expected, gradient) = plain.compare(&cast::<f64>(&x), &cast::<f64>(&y), shape, terms);
            let (direct, direct_gradient) = plain.compare(&x, &y, shape, terms);
            let found = network.compare(&x, Target::Images(&y), shape, terms, true).unwrap();
            let limit = |direct: f64| 3.0 * direct + 2e-6;
            let worst = |values: &[f64]| {
                values.iter().zip(&expected).map(|(a, b)| (a - b).abs() / b.abs().max(1e-3)).fold(0.0, f64::max)
            };
            assert!(worst(&found.values) < limit(worst(&direct)), "{index} {shape:?}: {:?} {expected:?}", found.values);
            let error = distance(&found.gradient.unwrap(), &gradient);
            assert!(error < limit(distance(&direct_gradient, &gradient)), "{index} {shape:?}: {error:e}");
            assert_eq!(network.compare(&x, Target::Images(&y), shape, terms, false).unwrap().values, found.values);
        }
    }
}

#[test]
fn same_bits_on_any_number_of_threads_and_in_any_memory() {
    for (layers, terms, shapes) in cases() {
        let network = build(&layers, &terms, shapes[0][1]);
        for &shape in &shapes {
            let (x, y) = (values::<f32>(shape.iter().product(), 31), values::<f32>(shape.iter().product(), 32));
            let run = || network.compare(&x, Target::Images(&y), shape, &terms, true).unwrap();
            let alone = on_threads(1, run);
            assert!(alone == on_threads(2, run) && alone == on_threads(5, run), "{shape:?}");
            // The memory is that of the shape before; a network that never ran gives the same.
            let fresh = build(&layers, &terms, shape[1]);
            assert_eq!(fresh.compare(&x, Target::Images(&y), shape, &terms, true).unwrap(), alone);
        }
    }
}

#[test]
fn cached_features_give_the_same() {
    for (layers, terms, shapes) in cases() {
        let network = build(&layers, &terms, shapes[0][1]);
        for &shape in &shapes {
            let (x, y) = (values::<f32>(shape.iter().product(), 41), values::<f32>(shape.iter().product(), 42));
            let features = network.features(&y, shape).unwrap();
            let expected = network.compare(&x, Target::Images(&y), shape, &terms, true).unwrap();
            for _ in 0..2 {
                let found = network.compare(&x, Target::Features(&features), shape, &terms, true).unwrap();
                assert_eq!(found.values.len(), expected.values.len());
                // A general convolution may cut another batch into other blocks.
                let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
                let expected_gradient = wide(expected.gradient.as_ref().unwrap());
                assert!(distance(found.gradient.as_ref().unwrap(), &expected_gradient) < 1e-6);
                for (found, expected) in found.values.iter().zip(&expected.values) {
                    assert!((found - expected).abs() <= 1e-6 * expected.abs());
                }
            }
        }
    }
}

#[test]
fn identical_images_have_no_difference_and_no_gradient() {
    let (layers, terms, shapes) = cases().swap_remove(3);
    let network = build(&layers, &terms, shapes[0][1]);
    let x = values::<f32>(shapes[0].iter().product(), 51);
    let found = network.compare(&x, Target::Images(&x), shapes[0], &terms, true).unwrap();
    assert!(found.values.iter().all(|&value| value == 0.0));
    assert!(found.gradient.unwrap().iter().all(|&slope| slope == 0.0));
}

#[test]
fn features_are_those_of_the_layers() {
    let (layers, terms, shapes) = cases().swap_remove(1);
    let network = build(&layers, &terms, shapes[0][1]);
    let taps: Vec<usize> = terms.iter().map(|term| term.tap).collect();
    let x = values::<f32>(shapes[1].iter().product(), 61);
    let features = network.features(&x, shapes[1]).unwrap();
    let trace = Plain { layers: &layers, taps: &taps }.forward(cast::<f64>(&x), shapes[1]);
    for &tap in &taps {
        let (values, shape) = features.at(tap).unwrap();
        assert_eq!(shape, trace.values[tap + 1].1);
        assert!(distance(&values, &trace.values[tap + 1].0) < 3e-6);
    }
    assert!(features.at(0).is_none());
    assert_eq!(features.shape(), shapes[1]);
}

#[test]
fn the_input_is_normalised_first() {
    let (layers, terms, shapes) = cases().swap_remove(0);
    let (scale, shift) = ([2.0, 0.5, 1.5], [0.1, -0.2, 0.3]);
    let (x, y) = (values::<f32>(768, 71), values::<f32>(768, 72));
    let normalised =
        |x: &[f32]| -> Vec<f32> { x.iter().enumerate().map(|(i, x)| x * scale[i / 256] + shift[i / 256]).collect() };
    let plain = build(&layers, &terms, 3);
    let expected = plain.compare(&normalised(&x), Target::Images(&normalised(&y)), shapes[0], &terms, true).unwrap();
    let network = build(&layers, &terms, 3).with_input_affine(&scale, &shift).unwrap();
    let found = network.compare(&x, Target::Images(&y), shapes[0], &terms, true).unwrap();
    assert_eq!(found.values, expected.values);
    for (index, (found, slope)) in found.gradient.unwrap().into_iter().zip(expected.gradient.unwrap()).enumerate() {
        assert_eq!(found, slope * scale[index / 256]);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let layers = || vec![convolution(3, 8, 1), FrozenLayer::Relu, FrozenLayer::MaxPool { ceil_mode: false }];
    assert!(matches!(FrozenNetwork::new(3, layers(), &[3]), Err(Error::InvalidOption { .. })));
    assert!(matches!(FrozenNetwork::new(4, layers(), &[1]), Err(Error::ShapeRule { .. })));
    for [outputs, inputs] in [[0, 3], [4, 0]] {
        let empty = convolution(inputs, outputs, 1);
        assert!(matches!(FrozenNetwork::new(inputs, vec![empty], &[0]), Err(Error::ShapeRule { .. })));
    }
    let short = FrozenLayer::Affine { scale: vec![1.0; 3], shift: vec![0.0; 2] };
    assert!(matches!(FrozenNetwork::new(3, vec![short], &[0]), Err(Error::ShapeRule { .. })));
    assert!(FrozenNetwork::new(3, layers(), &[1]).unwrap().with_input_affine(&[1.0], &[0.0]).is_err());

    let network = FrozenNetwork::new(3, layers(), &[1, 2]).unwrap();
    let images = [0.0; 48];
    assert!(matches!(network.features(&images, [1, 4, 3, 4]), Err(Error::ShapeRule { .. })));
    assert!(matches!(network.features(&images, [1, 3, 4, 5]), Err(Error::Length { .. })));
    assert!(matches!(network.features(&images, [1, 3, 1, 16]), Err(Error::ShapeRule { .. })));
    assert!(matches!(network.features(&[], [0, 3, 4, 4]), Err(Error::Empty { .. })));
    let untapped = [term(0, 1.0, Criterion::L1, false)];
    let other = network.features(&images, [1, 3, 4, 4]).unwrap();
    assert!(network.compare(&images, Target::Images(&images), [1, 3, 4, 4], &untapped, true).is_err());
    assert!(matches!(
        network.compare(&images, Target::Features(&other), [1, 3, 8, 2], &[], true),
        Err(Error::ShapeMismatch { .. })
    ));
}

const SETS: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

/// A NaN in the prediction, after each number of layers: the value is NaN, and so is the gradient wherever that of the
/// layers one by one is. Elsewhere it is the same where no tile of Winograd's spreads the NaN.
#[test]
fn nan_in_nan_out_on_every_instruction_set() {
    use FrozenLayer::{MaxFeature, MaxPool, Relu};
    let pixel = |inputs: usize, outputs: usize, seed| general(inputs, [outputs, inputs, 1, 1], Conv2d::default(), seed);
    let stacks = [
        vec![Relu, MaxPool { ceil_mode: false }, Relu, pixel(32, 32, 1), MaxFeature],
        vec![MaxPool { ceil_mode: true }, affine(32, 2), Relu, MaxPool { ceil_mode: true }],
        vec![pixel(32, 64, 3), Relu, MaxPool { ceil_mode: false }, MaxFeature, Relu],
        vec![MaxFeature, affine(16, 4), pixel(16, 20, 5), Relu],
        vec![general(32, [24, 32, 2, 3], Conv2d::padded(1), 6), Relu, MaxPool { ceil_mode: true }],
        vec![convolution(32, 20, 7), Relu, convolution(20, 17, 8), Relu, MaxPool { ceil_mode: true }],
    ];
    let shape = [2, 32, 5, 6];
    let (clean, y) = (values::<f32>(1920, 91), values::<f32>(1920, 92));
    for (stack, layers) in stacks.iter().enumerate() {
        for depth in 1..=layers.len() {
            let (layers, tap) = (&layers[..depth], depth - 1);
            let spreads = layers.iter().any(|l| matches!(l, FrozenLayer::Convolution { shape: [.., 3, 3], .. }));
            for (criterion, gram, place) in [
                (Criterion::L1, false, 0),
                (Criterion::Mse, false, 7),
                (Criterion::L1, true, 500),
                (Criterion::Mse, true, 1000),
            ] {
                let terms = [term(tap, 1.0, criterion, gram)];
                let mut x = clean.clone();
                x[place] = f32::NAN;
                let (expected, gradient) = Plain { layers, taps: &[tap] }.compare::<f32>(&x, &y, shape, &terms);
                let network = build(layers, &terms, 32);
                let mut first = None;
                for isa in SETS {
                    let what = format!("stack {stack} to {depth}, {criterion:?}, {gram}, {isa:?}");
                    let network = FrozenNetwork { instructions: Instructions::of(isa), ..build(layers, &terms, 32) };
                    let found = network.compare(&x, Target::Images(&y), shape, &terms, true).unwrap();
                    assert!(expected[0].is_nan() && found.values[0].is_nan(), "{what}");
                    let found = found.gradient.unwrap();
                    assert!(found[place].is_nan(), "{what}: no gradient where the NaN is");
                    for (index, (found, expected)) in found.iter().zip(&gradient).enumerate() {
                        if expected.is_nan() {
                            assert!(found.is_nan(), "{what}: {found} at {index}");
                        } else if !spreads {
                            assert!((found - expected).abs() < 1e-6, "{what}: {found} for {expected} at {index}");
                        }
                    }
                    let bits: Vec<u32> = found.iter().map(|v| if v.is_nan() { 0 } else { v.to_bits() }).collect();
                    assert_eq!(*first.get_or_insert(bits.clone()), bits, "{what}");
                }
                // In the target as well.
                let found = network.compare(&y, Target::Images(&x), shape, &terms, true).unwrap();
                assert!(found.values[0].is_nan() && found.gradient.unwrap().iter().any(|slope| slope.is_nan()));
            }
        }
    }
}

/// Each way to lose a NaN by itself: both halves, every place in a window, a window over the edge, with and without ReLU.
#[test]
fn a_nan_wins_wherever_it_stands() {
    use FrozenLayer::{MaxFeature, MaxPool, Relu};
    let slopes = |layers: Vec<FrozenLayer>, images: &[f32], shape: [usize; 4], isa| {
        let terms = [term(layers.len() - 1, 1.0, Criterion::L1, false)];
        let network = FrozenNetwork { instructions: Instructions::of(isa), ..build(&layers, &terms, shape[1]) };
        let target = vec![-9.0; images.len()];
        let found = network.compare(images, Target::Images(&target), shape, &terms, true).unwrap();
        assert!(found.values[0].is_nan());
        found.gradient.unwrap()
    };
    for isa in SETS {
        for (layers, extent) in [
            (vec![MaxPool { ceil_mode: false }], 4),
            (vec![MaxPool { ceil_mode: true }], 3),
            (vec![Relu, MaxPool { ceil_mode: false }], 4),
            (vec![MaxPool { ceil_mode: true }, Relu], 3),
        ] {
            for place in 0..extent * extent {
                let mut images = values::<f32>(extent * extent, 5);
                images[place] = f32::NAN;
                let found = slopes(layers.clone(), &images, [1, 1, extent, extent], isa);
                assert!(found[place].is_nan(), "{isa:?} {layers:?} {place}: {found:?}");
                assert_eq!(found.iter().filter(|slope| slope.is_nan()).count(), 1, "{isa:?} {layers:?} {place}");
            }
        }
        for place in 0..32 {
            let mut images = values::<f32>(32, 6);
            images[place] = f32::NAN;
            let found = slopes(vec![MaxFeature], &images, [1, 32, 1, 1], isa);
            assert!(found[place].is_nan(), "{isa:?} {place}: {found:?}");
            assert_eq!(found.iter().filter(|slope| slope.is_nan()).count(), 1, "{isa:?} {place}");
        }
    }
}

/// An infinite difference has a sign: of features by themselves, beside Gram matrices, and of these.
#[test]
fn an_infinite_difference_has_the_slope_of_its_criterion() {
    let all = [term(0, 1.0, Criterion::L1, false), term(0, 1.0, Criterion::L1, true)];
    for isa in SETS {
        for (terms, gradient) in [(&all[..1], [-0.5, 0.0]), (&all[..], [-2.5, -1.0])] {
            let network =
                FrozenNetwork { instructions: Instructions::of(isa), ..build(&[FrozenLayer::Relu], terms, 1) };
            let target = [f32::INFINITY, 1.0];
            let found = network.compare(&[2.0, 1.0], Target::Images(&target), [1, 1, 1, 2], terms, true).unwrap();
            assert_eq!(found.values, vec![f64::INFINITY; terms.len()], "{isa:?}");
            for (found, expected) in found.gradient.unwrap().iter().zip(gradient) {
                assert!((found - expected).abs() < 1e-6, "{isa:?}: {found} for {expected}");
            }
        }
    }
}

/// Layers in any order, as many as there are: the order of steps, of memory and of marks is right for all of them.
#[test]
fn layers_in_any_order() {
    let mut state = 7u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..120 {
        let (mut channels, mut layers) = (32, Vec::new());
        for _ in 0..1 + draw(6) {
            let seed = draw(1000) as u64;
            layers.push(match draw(8) {
                0 | 1 => FrozenLayer::Relu,
                2 => FrozenLayer::MaxPool { ceil_mode: true },
                3 => FrozenLayer::MaxPool { ceil_mode: draw(2) == 0 },
                4 => affine(channels, seed),
                5 if channels % 32 == 0 => {
                    channels /= 2;
                    FrozenLayer::MaxFeature
                }
                kind => {
                    let outputs = [32, 64, 5, 17][draw(4)];
                    let inputs = std::mem::replace(&mut channels, outputs);
                    match kind {
                        6 => convolution(inputs, outputs, seed),
                        _ => general(inputs, [outputs, inputs, 1, 1], Conv2d::default(), seed),
                    }
                }
            });
        }
        let mut terms: Vec<Term> = (0..layers.len())
            .filter(|_| draw(3) == 0)
            .map(|tap| term(tap, 1.0 + tap as f64, Criterion::Mse, tap % 3 == 2))
            .collect();
        terms.push(term(layers.len() - 1, 1.0, Criterion::Mse, false));
        let taps: Vec<usize> = terms.iter().map(|term| term.tap).collect();
        let shape = [1 + draw(2), 32, [1, 2, 7, 8][draw(4)], [1, 3, 6, 8][draw(4)]];
        let (x, y) = (values::<f32>(shape.iter().product(), 21), values::<f32>(shape.iter().product(), 22));
        let network = build(&layers, &terms, 32);
        if network.check_shape(shape).is_err() {
            assert!(shape[2] == 1 || shape[3] == 1 || layers.len() > 2, "{round}: {layers:?} {shape:?}");
            continue;
        }
        let (expected, gradient) =
            Plain { layers: &layers, taps: &taps }.compare(&cast::<f64>(&x), &cast::<f64>(&y), shape, &terms);
        let found = network.compare(&x, Target::Images(&y), shape, &terms, true).unwrap();
        for (found, expected) in found.values.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1e-3), "{round}: {found} {expected}");
        }
        let found = found.gradient.unwrap();
        let (size, worst) = gradient.iter().zip(&found).fold((0.0f64, 0.0f64), |(size, worst), (&expected, &found)| {
            (size.max(expected.abs()), worst.max((expected - f64::from(found)).abs()))
        });
        // Rounding decides no kink: the inputs have none of these layers' kinks within 1e-5 of a feature.
        assert!(worst <= 1e-4 * size, "{round}: {worst:e} of {size:e}: {layers:?} {terms:?} {shape:?}");
    }
}
