//! Losses on a fresh network from within rayon, by many threads at once: what is made when it is first needed must not
//! make a thread wait for a cell while it works for others, for it may be given work that needs the same cell.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use image_losses_kernels::Conv2d;
use image_losses_kernels::frozen::{Criterion, FrozenLayer, FrozenNetwork, Target, Term};
use image_losses_kernels::residual::{self, Affine, ResidualNetwork, Unit};
use image_losses_kernels::vision_transformer::{self as transformer, VisionTransformer};
use rayon::prelude::*;

/// Rounds of every test, each with a network that nobody has used.
const ROUNDS: usize = 200;
/// All rounds take a few seconds; a hang takes for ever.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `work` on what `make` gives, many times at once, in every round.
fn rounds<N: Sync + 'static>(make: impl Fn(usize) -> N + Send + 'static, work: impl Fn(&N) + Send + Sync + 'static) {
    let (done, wait) = channel();
    std::thread::spawn(move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().expect("a pool");
        for round in 0..ROUNDS {
            let network = make(round);
            pool.install(|| (0..32).into_par_iter().for_each(|_| work(&network)));
        }
        done.send(()).expect("somebody waits");
    });
    wait.recv_timeout(LIMIT).expect("no hang, and no panic");
}

/// Weights that no other round has: equal ones would be shared.
fn numbers(count: usize, round: usize) -> Vec<f32> {
    (1..=count).map(|i| ((i * 389 + round * 577) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn network(round: usize, [outputs, inputs]: [usize; 2]) -> FrozenNetwork {
    let shape = [outputs, inputs, 3, 3];
    let (weight, geometry) = (numbers(outputs * inputs * 9, round), Conv2d::padded(1));
    let layer = FrozenLayer::Convolution { weight, shape, bias: Vec::new(), geometry };
    FrozenNetwork::new(inputs, vec![layer], &[0]).expect("layers that fit")
}

fn term(gram: bool) -> [Term; 1] {
    [Term { tap: 0, weight: 1.0, criterion: Criterion::Mse, gram }]
}

#[test]
fn weights_of_a_convolution() {
    rounds(
        |round| network(round, [128, 16]),
        |network| drop(network.features(&[0.5; 16], [1, 16, 1, 1]).expect("features")),
    );
}

#[test]
fn weights_of_its_gradient() {
    rounds(
        |round| network(round, [16, 128]),
        |network| {
            let images = [0.5; 128];
            let target = Target::Images(&[0.25; 128]);
            network.compare(&images, target, [1, 128, 1, 1], &term(false), true).expect("a gradient");
        },
    );
}

#[test]
fn gram_matrices_of_a_target() {
    rounds(
        |round| {
            let network = network(round, [96, 4]);
            let features = network.features(&[0.5; 4 * 128], [1, 4, 8, 16]).expect("features");
            (network, features)
        },
        |(network, features)| {
            let (images, target) = ([0.25; 4 * 128], Target::Features(features));
            network.compare(&images, target, [1, 4, 8, 16], &term(true), false).expect("a value");
        },
    );
}

#[test]
fn weights_of_a_residual_network() {
    let affine = |channels| Affine { scale: vec![1.0; channels], shift: vec![0.0; channels] };
    rounds(
        move |round| {
            let list = |count: usize| -> Arc<[f32]> { numbers(count, round).into() };
            ResidualNetwork::new(&residual::Parts {
                size: 2,
                first: list(16 * 27),
                first_norm: affine(16),
                first_slope: list(16),
                units: vec![Unit {
                    stride: 2,
                    before: affine(16),
                    first: list(128 * 16 * 9),
                    slope: list(128),
                    second: list(128 * 128 * 9),
                    after: affine(128),
                    excitation: None,
                    shortcut: Some((list(128 * 16), affine(128))),
                }],
                last_norm: affine(128),
                projection: [list(128 * 128), list(128)],
                embedding_norm: affine(128),
            })
            .expect("parts that fit")
        },
        |network| {
            let target = residual::Target::Faces(&[0.25; 12]);
            network.compare(&[0.5; 12], 1, target, Some(&[1.0])).expect("a gradient");
        },
    );
}

#[test]
fn weights_of_a_vision_transformer() {
    rounds(
        |round| {
            let list = |count: usize| -> Arc<[f32]> { numbers(count, round).into() };
            let layer = |outputs: usize, inputs: usize| transformer::Layer {
                weight: list(outputs * inputs),
                bias: list(outputs),
            };
            let norm = || transformer::Layer { weight: list(64), bias: list(64) };
            VisionTransformer::new(&transformer::Parts {
                resolution: 2,
                patch: 2,
                heads: 1,
                patches: list(64 * 12),
                class: list(64),
                places: list(2 * 64),
                before: norm(),
                blocks: vec![transformer::Block {
                    before_attention: norm(),
                    attention: layer(192, 64),
                    attention_out: layer(64, 64),
                    before_mlp: norm(),
                    mlp_in: layer(256, 64),
                    mlp_out: layer(64, 256),
                }],
                after: norm(),
                projection: list(64 * 128),
            })
            .expect("parts that fit")
        },
        |network| drop(network.compare(&[0.5; 12], 1, &[0.25; 128], Some(&[1.0])).expect("a gradient")),
    );
}
