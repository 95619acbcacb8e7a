//! The kernels one by one: `cargo bench -p image-losses-kernels`. For comparisons with PyTorch see `cargo xtask bench`.
#![allow(missing_docs, reason = "criterion's macro makes a public function without")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use image_losses_core::{Conv2d, Expr, Function, Pointwise, Unary};
use image_losses_kernels::frozen::{self, FrozenLayer, FrozenNetwork, Target, Term};
use image_losses_kernels::map::Map;
use image_losses_kernels::matmul::matmul;
use image_losses_kernels::stream::stream;
use image_losses_kernels::winograd::{WinogradWeights, conv3x3, conv3x3_input_gradient};
use image_losses_kernels::{Array, sum};

/// √((x − y)² + 1e-6)
#[derive(Clone, Copy, Debug)]
struct Charbonnier;

impl Pointwise<2> for Charbonnier {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        ((x - y).square() + 1e-6).sqrt()
    }
}

/// Numbers from −1 to 1 that repeat at no power of two.
fn values(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| (i * step % 1009) as f32 / 504.5 - 1.0).collect()
}

fn pointwise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pointwise");
    let functions = [("charbonnier", Function::new(Charbonnier)), ("softplus", Function::unary(Unary::Softplus))];
    for count in [1 << 14, 1 << 22] {
        let shape = [1, 1, count];
        let (x, y) = (values(count, 389), values(count, 577));
        group.throughput(Throughput::Elements(count as u64));
        for (name, function) in &functions {
            let inputs: Vec<_> =
                [&x, &y][..function.arity()].iter().map(|data| Array { shape: &shape, data }).collect();
            let map = Map::new(function, &inputs, &[], &shape, 1.0);
            group.bench_function(BenchmarkId::new(format!("{name} value"), count), |b| b.iter(|| map.sum(&[])));
            group.bench_function(BenchmarkId::new(format!("{name} value and gradient"), count), |b| {
                b.iter(|| map.sum_and_gradients(&[0]));
            });
        }
        group.bench_function(BenchmarkId::new("sum", count), |b| b.iter(|| sum(black_box(&x))));
        let mut written = vec![0.0; count];
        group.bench_function(BenchmarkId::new("stream", count), |b| b.iter(|| stream(black_box(&x), &mut written)));
    }
    group.finish();
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matmul");
    for n in [64, 512] {
        let (a, b) = (values(n * n, 389), values(n * n, 577));
        group.throughput(Throughput::Elements((2 * n * n * n) as u64));
        group.bench_function(BenchmarkId::from_parameter(n), |bench| {
            bench.iter(|| matmul(1, n, n, n, &a, false, &b, true));
        });
    }
    group.finish();
}

fn convolutions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("conv3x3");
    for (channels, size) in [(64, 64), (256, 32), (512, 16)] {
        let shape = [1, channels, size, size];
        let weights = WinogradWeights::new(channels, channels, values(channels * channels * 9, 389));
        let input = values(channels * size * size, 577);
        group.throughput(Throughput::Elements((2 * 9 * channels * channels * size * size) as u64));
        let name = format!("{channels}×{size}×{size}");
        group.bench_function(BenchmarkId::new("forward", &name), |b| {
            b.iter(|| conv3x3(&weights, &input, shape, None, true));
        });
        group.bench_function(BenchmarkId::new("backward", &name), |b| {
            b.iter(|| conv3x3_input_gradient(&weights, &input, shape));
        });
    }
    group.finish();
}

fn networks(criterion: &mut Criterion) {
    let convolution = |inputs: usize, outputs: usize| FrozenLayer::Convolution {
        weight: values(inputs * outputs * 9, 389),
        shape: [outputs, inputs, 3, 3],
        bias: Vec::new(),
        geometry: Conv2d::padded(1),
    };
    let layers = vec![convolution(3, 64), FrozenLayer::Relu, convolution(64, 64), FrozenLayer::Relu];
    let Ok(network) = FrozenNetwork::new(3, layers, &[3]) else { return };
    let terms = [Term { tap: 3, weight: 1.0, criterion: frozen::Criterion::L1, gram: false }];
    let shape = [1, 3, 128, 128];
    let (x, y) = (values(3 * 128 * 128, 389), values(3 * 128 * 128, 577));
    criterion.bench_function("frozen VGG block, value and gradient", |b| {
        b.iter(|| network.compare(&x, Target::Images(&y), shape, &terms, true));
    });
}

criterion_group!(benches, pointwise, products, convolutions, networks);
criterion_main!(benches);
