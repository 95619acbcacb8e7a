//! The same bits on every processor, for what the documentation of the crate says so of: digests that stand here, whatever
//! machine computes them, on every instruction set and number of threads.

use std::process::Command;
use std::sync::Arc;

use image_losses_core::{Conv2d, Expr, Function, Pointwise};
use image_losses_kernels::conv::{conv2d, conv2d_input_gradient, conv2d_weight_gradient};
use image_losses_kernels::frozen::{Criterion, FrozenLayer, FrozenNetwork, Target, Term};
use image_losses_kernels::map::Map;
use image_losses_kernels::matmul::matmul;
use image_losses_kernels::residual::{self, Affine, ResidualNetwork, Unit};
use image_losses_kernels::{Array, sum};

/// Set in a process that is to check its digests and start no other one.
const ONLY: &str = "IMAGE_LOSSES_BITS";

/// Numbers between −1 and 1, exact in single precision.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn arc(count: usize, seed: u32) -> Arc<[f32]> {
    numbers(count, seed).into_iter().map(|value| 0.25 * value).collect()
}

/// FNV-1a over the numbers' bits.
fn digest(parts: &[&[f32]], sums: &[f64]) -> u64 {
    let words = parts.iter().flat_map(|part| part.iter().map(|value| u64::from(value.to_bits())));
    let words = words.chain(sums.iter().map(|sum| sum.to_bits()));
    words.fold(0xcbf2_9ce4_8422_2325, |digest, word| (digest ^ word).wrapping_mul(0x0100_0000_01b3))
}

/// What is computed without the C library in single precision: eˣ, σ and softplus, roots and quotients.
#[derive(Clone, Copy, Debug)]
struct Elementary;

impl Pointwise<2> for Elementary {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x * y * 9.0).softplus() + (x - y).sigmoid() / (x.square() + 1.0).sqrt() + (x * 3.0).exp() * y.abs()
    }
}

fn pointwise() -> u64 {
    let (shape, channel) = ([2, 3, 37, 41], [2, 1, 37, 41]);
    let (x, y, weight) = (numbers(9102, 1), numbers(9102, 2), numbers(3034, 3));
    let function = Function::new(Elementary);
    let inputs = [Array { shape: &shape, data: &x }, Array { shape: &shape, data: &y }];
    let map = Map::new(&function, &inputs, &[Array { shape: &channel, data: &weight }], &shape, 0.5);
    let (value, gradients) = map.sum_and_gradients(&[0, 1]);
    digest(&[&gradients[0], &gradients[1], &map.values(&[0, 1])], &[value, sum(&x)])
}

fn convolutions() -> u64 {
    // A kernel for each channel, which slides.
    let geometry = Conv2d::padded(2).grouped(3).strided(2);
    let (is, ws, os) = ([2, 3, 19, 23], [3, 1, 5, 5], [2, 3, 10, 12]);
    let (x, weight, above) = (numbers(2622, 1), numbers(75, 2), numbers(720, 3));
    digest(
        &[
            &conv2d(&geometry, &x, is, &weight, ws),
            &conv2d_input_gradient(&geometry, &above, os, &weight, ws, [19, 23]),
            &conv2d_weight_gradient(&geometry, &x, is, &above, os, [5, 5]),
        ],
        &[],
    )
}

/// Convolutions of several channels, which are products of matrices, and a product itself.
fn products() -> u64 {
    let geometry = Conv2d { padding: [1, 2], dilation: [1, 2], ..Conv2d::default().grouped(2) }.strided(2);
    let (is, ws) = ([3, 24, 15, 13], [10, 12, 4, 3]);
    let os: [usize; 4] = geometry.output_shape(&is, &ws).expect("shapes that fit").try_into().expect("four extents");
    let (x, weight, above) = (numbers(14040, 1), numbers(1440, 2), numbers(os.iter().product(), 3));
    digest(
        &[
            &conv2d(&geometry, &x, is, &weight, ws),
            &conv2d_input_gradient(&geometry, &above, os, &weight, ws, [15, 13]),
            &conv2d_weight_gradient(&geometry, &x, is, &above, os, [4, 3]),
            &matmul(2, 13, 1000, 7, &numbers(26_000, 4), false, &numbers(14_000, 5), true),
        ],
        &[],
    )
}

fn frozen() -> u64 {
    let layer = |outputs: usize, inputs: usize, size: usize, seed| FrozenLayer::Convolution {
        weight: arc(outputs * inputs * size * size, seed).to_vec(),
        shape: [outputs, inputs, size, size],
        bias: arc(outputs, seed + 1).to_vec(),
        geometry: Conv2d::padded(size / 2),
    };
    let layers = vec![
        layer(20, 3, 5, 1),
        FrozenLayer::Relu,
        layer(64, 20, 3, 3),
        FrozenLayer::MaxFeature,
        FrozenLayer::MaxPool { ceil_mode: true },
        layer(70, 32, 3, 5),
        FrozenLayer::Relu,
        layer(33, 70, 1, 7),
        FrozenLayer::Affine { scale: numbers(33, 9), shift: numbers(33, 10) },
    ];
    let network = FrozenNetwork::new(3, layers, &[1, 6, 8]).expect("layers that fit");
    let (shape, x, y) = ([2, 3, 13, 22], numbers(1716, 11), numbers(1716, 12));
    let terms: Vec<Term> = [(1, Criterion::L1), (6, Criterion::Mse), (8, Criterion::L1)]
        .map(|(tap, criterion)| Term { tap, weight: 1.5, criterion, gram: false })
        .into();
    let found = network.compare(&x, Target::Images(&y), shape, &terms, true).expect("images that fit");
    let flat = network.flat_features(&x, shape).expect("images that fit");
    digest(&[&found.gradient.expect("a gradient"), &flat], &found.values)
}

fn faces() -> u64 {
    let affine = |channels, seed| Affine {
        scale: numbers(channels, seed).iter().map(|&v| 1.0 + 0.25 * f64::from(v)).collect(),
        shift: numbers(channels, seed + 1).iter().map(|&v| 0.25 * f64::from(v)).collect(),
    };
    let unit = |inputs: usize, outputs: usize, stride, seed: u32| Unit {
        stride,
        before: affine(inputs, seed),
        first: arc(outputs * inputs * 9, seed + 2),
        slope: arc(outputs, seed + 3),
        second: arc(outputs * outputs * 9, seed + 4),
        after: affine(outputs, seed + 5),
        excitation: Some([arc(3 * outputs, seed + 7), arc(3 * outputs, seed + 8)]),
        shortcut: (inputs != outputs).then(|| (arc(outputs * inputs, seed + 9), affine(outputs, seed + 10))),
    };
    let network = ResidualNetwork::new(&residual::Parts {
        size: 9,
        first: arc(16 * 27, 1),
        first_norm: affine(16, 2),
        first_slope: arc(16, 4),
        units: vec![unit(16, 16, 2, 10), unit(16, 40, 1, 30)],
        last_norm: affine(40, 5),
        projection: [arc(20 * 40 * 25, 7), arc(20, 8)],
        embedding_norm: affine(20, 9),
    })
    .expect("parts that fit");
    let (faces, others) = (numbers(2 * 243, 50), numbers(2 * 243, 51));
    let target = residual::Target::Faces(&others);
    let (products, gradient) = network.compare(&faces, 2, target, Some(&[1.0, -0.5])).expect("faces that fit");
    digest(&[&products, &gradient.expect("a gradient")], &[])
}

/// Of [`pointwise`], [`convolutions`], [`products`], [`frozen`] and [`faces`]. They change where the arithmetic of a kernel
/// does, and then on
/// every processor alike.
const DIGESTS: [&str; 5] =
    ["6188d5a5f99672e0", "8c98316b34f37270", "8dd604b0ff455320", "f45a6f2d7ab54cc7", "a5972d31d8b4909c"];

#[test]
fn the_same_on_every_processor() {
    let found = [pointwise(), convolutions(), products(), frozen(), faces()];
    assert_eq!(found.map(|digest| format!("{digest:016x}")), DIGESTS, "{:?}", std::env::var("IMAGE_LOSSES_ISA"));
    if std::env::var_os(ONLY).is_some() || cfg!(miri) {
        return;
    }
    for (isa, threads) in [("portable", "1"), ("avx2", "1"), ("avx512", "1"), ("avx512", "3"), ("portable", "2")] {
        let mut child = Command::new(std::env::current_exe().expect("the path of this test"));
        child.args(["the_same_on_every_processor", "--exact"]).env(ONLY, "1");
        let output = child.env("IMAGE_LOSSES_ISA", isa).env("RAYON_NUM_THREADS", threads).output().expect("a process");
        assert!(output.status.success(), "{isa}, {threads} threads: {}", String::from_utf8_lossy(&output.stdout));
    }
}
