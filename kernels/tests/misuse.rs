//! What no caller should do, at every public entry that leads to `unsafe` code: features of another network, wrong lengths,
//! extents of zero and near the limits. All of it is refused, in release builds too; inputs are small enough for Miri
//! (scripts/miri.sh), and run under AddressSanitizer (scripts/sanitize.sh).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use image_losses_core::{
    Conv2d, Declared, Error, Expr, Function, Input, Pointwise, PointwiseLoss, Pool2d, Reducer, Unary,
};
use image_losses_kernels::conv::{conv2d, conv2d_input_gradient, conv2d_weight_gradient};
use image_losses_kernels::frozen::{Criterion, FrozenLayer, FrozenNetwork, Target, Term};
use image_losses_kernels::map::Map;
use image_losses_kernels::matmul::matmul;
use image_losses_kernels::pool::{gather, max_pool2d_indices, scatter_add};
use image_losses_kernels::program::{Instruction, Operation, Program, Stored};
use image_losses_kernels::residual::{self, Affine, ResidualNetwork, Unit};
use image_losses_kernels::stencil::{Stencil, Taps};
use image_losses_kernels::stream::stream;
use image_losses_kernels::vision_transformer::{self as transformer, VisionTransformer};
use image_losses_kernels::winograd::{WinogradWeights, conv3x3, conv3x3_input_gradient};
use image_losses_kernels::{Array, broadcast, count, isa};

/// Extents that are not those of any data: none, and with products that do not fit a `usize`.
const HOSTILE: [usize; 7] = [0, (1 << 32) + 1, 1 << 33, 1 << 60, 1 << 62, isize::MAX as usize, usize::MAX];

/// All of them, or what an interpreter finishes.
fn hostile() -> impl Iterator<Item = usize> {
    HOSTILE.into_iter().step_by(if cfg!(miri) { 3 } else { 1 })
}

/// Numbers between −1 and 1 without a pattern.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (1..=count).map(|i| ((i * 389 + seed * 577) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// A contract of a kernel that the engines keep: it stops with words before it touches memory.
#[track_caller]
fn stops<R>(call: impl FnOnce() -> R) {
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err(), "accepted");
}

fn convolution(outputs: usize, inputs: usize, seed: usize) -> FrozenLayer {
    let (shape, geometry) = ([outputs, inputs, 3, 3], Conv2d::padded(1));
    FrozenLayer::Convolution { weight: numbers(outputs * inputs * 9, seed), shape, bias: Vec::new(), geometry }
}

fn term(tap: usize, gram: bool) -> Term {
    Term { tap, weight: 1.0, criterion: Criterion::L1, gram }
}

#[test]
fn features_of_another_network_are_refused() {
    use FrozenLayer::{MaxPool, Relu};
    let network =
        |second: FrozenLayer, seed| FrozenNetwork::new(1, vec![convolution(2, 1, seed), second], &[1]).unwrap();
    let ours = network(Relu, 1);
    let (shape, image) = ([1, 1, 4, 4], numbers(16, 3));
    let others = [
        // Shorter features.
        network(MaxPool { ceil_mode: false }, 1),
        // The same architecture, with other weights and with the same.
        network(Relu, 2),
        network(Relu, 1),
        // Another input.
        network(Relu, 1).with_input_affine(&[2.0], &[0.0]).unwrap(),
        // Fewer channels, other layers, no tap in the place.
        FrozenNetwork::new(1, vec![Relu, Relu], &[1]).unwrap(),
        FrozenNetwork::new(1, vec![Relu, Relu], &[0]).unwrap(),
        FrozenNetwork::new(1, vec![Relu], &[]).unwrap(),
    ];
    for gram in [false, true] {
        let terms = [term(1, gram)];
        for (index, other) in others.iter().enumerate() {
            let features = other.features(&image, shape).unwrap();
            for with_gradient in [false, true] {
                for terms in [&terms[..], &[]] {
                    let refused = ours.compare(&image, Target::Features(&features), shape, terms, with_gradient);
                    let Err(error @ Error::OtherNetwork { .. }) = refused else { panic!("{index}: {refused:?}") };
                    let text = error.to_string();
                    assert!(text.contains("features must be of network") && text.contains("got those of"), "{text}");
                }
            }
        }
        let features = ours.features(&image, shape).unwrap();
        let found = ours.compare(&image, Target::Features(&features), shape, &terms, true).unwrap();
        assert_eq!(found.values, [0.0]);
        let refused = ours.compare(&image, Target::Features(&features), [1, 1, 2, 8], &terms, true);
        assert!(matches!(refused, Err(Error::ShapeMismatch { .. })), "{refused:?}");
    }
    // Features of before the input was changed are not of the network that came of it.
    let before = network(Relu, 1);
    let features = before.features(&image, shape).unwrap();
    let after = before.with_input_affine(&[2.0], &[0.0]).unwrap();
    let refused = after.compare(&image, Target::Features(&features), shape, &[term(1, false)], false);
    assert!(matches!(refused, Err(Error::OtherNetwork { .. })), "{refused:?}");
}

#[test]
fn a_frozen_network_takes_data_that_fill_their_shape() {
    let layers = vec![convolution(2, 2, 1), FrozenLayer::Relu, FrozenLayer::MaxPool { ceil_mode: true }];
    let network = FrozenNetwork::new(2, layers, &[1, 2]).unwrap();
    let (shape, images) = ([1, 2, 3, 2], numbers(20, 1));
    let good = &images[..12];
    let terms = [term(1, false), term(2, true)];
    let features = network.features(good, shape).unwrap();
    let flat = network.flat_features(good, shape).unwrap();
    assert_eq!(flat.len(), network.flat_len(shape).unwrap());
    for length in (0..20).filter(|&length| length != 12) {
        let bad = &images[..length];
        assert!(matches!(network.features(bad, shape), Err(Error::Length { expected: 12, .. })));
        assert!(matches!(network.flat_features(bad, shape), Err(Error::Length { .. })));
        for (prediction, target) in
            [(bad, Target::Images(good)), (good, Target::Images(bad)), (bad, Target::Features(&features))]
        {
            assert!(matches!(network.compare(prediction, target, shape, &terms, true), Err(Error::Length { .. })));
        }
    }
    for length in [0, flat.len() - 1] {
        assert!(matches!(network.features_from_flat(&flat[..length], shape), Err(Error::Length { .. })));
    }
    for factors in [&[][..], &[1.0], &[1.0; 3]] {
        let refused = network.compare_weighted(good, Target::Images(good), shape, &terms, Some(factors));
        assert!(matches!(refused, Err(Error::Length { .. })));
    }
    for axis in 0..4 {
        for extent in hostile() {
            let mut shape = shape;
            shape[axis] = extent;
            for images in [&[][..], good] {
                assert!(network.features(images, shape).is_err(), "{shape:?}");
                assert!(network.flat_features(images, shape).is_err(), "{shape:?}");
                assert!(network.features_from_flat(images, shape).is_err(), "{shape:?}");
                for target in [Target::Images(images), Target::Features(&features)] {
                    assert!(network.compare(images, target, shape, &terms, true).is_err(), "{shape:?}");
                }
            }
            // What fits no memory fits no network; a number of pixels alone may.
            if extent == 0 || extent > 1 << 59 {
                assert!(network.check_shape(shape).is_err() && network.flat_len(shape).is_err(), "{shape:?}");
            }
        }
    }
    // The product of these extents wraps to 0.
    let first = FrozenNetwork::new(16, vec![FrozenLayer::Relu], &[0]).unwrap();
    assert!(first.features(&[], [1 << 60, 16, 4, 4]).is_err());
    assert!(first.flat_len([1 << 60, 16, 4, 4]).is_err());
}

#[test]
fn a_frozen_network_takes_layers_that_fit() {
    let layer = |weight: usize, shape, bias: usize, geometry| FrozenLayer::Convolution {
        weight: vec![0.5; weight],
        shape,
        bias: vec![0.5; bias],
        geometry,
    };
    let plain = Conv2d::default();
    let far = usize::MAX;
    for bad in [
        layer(0, [1 << 62, 1, 2, 2], 0, plain),
        layer(1, [1, 1, 1, 1], 2, plain),
        layer(1, [1, 1, 1, 1], 0, Conv2d { stride: [0, 1], ..plain }),
        layer(1, [1, 1, 1, 1], 0, Conv2d { stride: [far, 1], ..plain }),
        layer(1, [1, 1, 1, 1], 0, Conv2d { dilation: [1, 0], ..plain }),
        layer(2, [1, 1, 2, 1], 0, Conv2d { dilation: [far, 1], ..plain }),
        layer(1, [1, 1, 1, 1], 0, Conv2d { padding: [far, 0], ..plain }),
        layer(1, [1, 1, 1, 1], 0, Conv2d { padding: [1 << 62, 1 << 62], ..plain }),
        layer(1, [1, 1, 1, 1], 0, Conv2d { groups: 0, ..plain }),
        layer(1, [1, 1, 1, 1], 0, Conv2d { groups: far, ..plain }),
        FrozenLayer::Affine { scale: vec![1.0], shift: vec![] },
        FrozenLayer::MaxFeature,
    ] {
        let refused = FrozenNetwork::new(1, vec![bad.clone()], &[0]);
        assert!(refused.is_err(), "{bad:?}");
    }
    // Nothing tapped, nothing there, a pool alone: no features or a few, and no panic.
    let pool = FrozenLayer::MaxPool { ceil_mode: false };
    for (layers, taps) in
        [(vec![], &[][..]), (vec![pool.clone()], &[]), (vec![pool.clone()], &[0]), (vec![pool], &[0, 0])]
    {
        let network = FrozenNetwork::new(1, layers, taps).unwrap();
        let terms: Vec<Term> = taps.iter().map(|&tap| term(tap, false)).collect();
        let images = [1.0, 2.0, 3.0, 4.0];
        let found = network.compare(&images, Target::Images(&[0.0; 4]), [1, 1, 2, 2], &terms, true).unwrap();
        assert_eq!(found.values, vec![4.0; taps.len()]);
        assert_eq!(found.gradient.unwrap(), [0.0, 0.0, 0.0, taps.len() as f32]);
        for extents in [[1, 1, 0, 2], [1, 1, 2, 0], [0, 1, 2, 2], [1, 0, 2, 2]] {
            assert!(matches!(
                network.compare(&[], Target::Images(&[]), extents, &terms, true),
                Err(Error::Empty { .. } | Error::ShapeRule { .. })
            ));
        }
        if !taps.is_empty() {
            assert!(matches!(network.features(&images, [1, 1, 1, 4]), Err(Error::ShapeRule { .. })));
        }
    }
    for channels in hostile() {
        let network = FrozenNetwork::new(1, vec![FrozenLayer::Relu], &[0]).unwrap();
        assert!(network.with_input_affine(&[1.0], &vec![0.0; channels.min(3)]).is_err());
    }
}

fn arc(count: usize, seed: usize) -> Arc<[f32]> {
    numbers(count, seed).into_iter().map(|value| 0.3 * value).collect()
}

/// Faces of 3×3 pixels, one unit at stride 2 with everything that a unit has, embeddings of two elements.
fn residual_parts() -> residual::Parts {
    let affine = |channels| Affine { scale: vec![1.1; channels], shift: vec![0.1; channels] };
    residual::Parts {
        size: 3,
        first: arc(2 * 27, 1),
        first_norm: affine(2),
        first_slope: arc(2, 2),
        units: vec![Unit {
            stride: 2,
            before: affine(2),
            first: arc(3 * 2 * 9, 3),
            slope: arc(3, 4),
            second: arc(3 * 3 * 9, 5),
            after: affine(3),
            excitation: Some([arc(3, 6), arc(3, 7)]),
            shortcut: Some((arc(6, 8), affine(3))),
        }],
        last_norm: affine(3),
        projection: [arc(2 * 3 * 4, 9), arc(2, 10)],
        embedding_norm: affine(2),
    }
}

#[test]
fn a_residual_network_takes_what_fits() {
    use residual::Target::{Embeddings, Faces};
    let network = ResidualNetwork::new(&residual_parts()).unwrap();
    let faces = numbers(2 * 27 + 1, 11);
    let good = &faces[..54];
    let embeddings = network.embed(good, 2).unwrap();
    assert!(network.compare(good, 2, Embeddings(&embeddings), Some(&[1.0; 2])).is_ok());
    for length in [0, 1, 26, 27, 53, 55] {
        let bad = &faces[..length];
        assert!(matches!(network.embed(bad, 2), Err(Error::Length { .. })));
        assert!(matches!(network.compare(bad, 2, Faces(good), Some(&[1.0; 2])), Err(Error::Length { .. })));
        assert!(matches!(network.compare(good, 2, Faces(bad), Some(&[1.0; 2])), Err(Error::Length { .. })));
    }
    for length in [0, 3, 5] {
        let bad = &[0.5; 5][..length];
        assert!(matches!(network.compare(good, 2, Embeddings(bad), None), Err(Error::Length { .. })));
        assert!(matches!(network.compare(good, 2, Faces(good), Some(bad)), Err(Error::Length { .. })));
    }
    for batch in hostile().filter(|&batch| batch > 0) {
        assert!(network.embed(&[], batch).is_err() && network.embed(good, batch).is_err());
        assert!(network.compare(&[], batch, Faces(&[]), Some(&[])).is_err());
    }
    // No faces, no embeddings.
    assert_eq!(network.embed(&[], 0).unwrap(), [0.0; 0]);
    assert_eq!(network.compare(&[], 0, Faces(&[]), Some(&[])).unwrap(), (vec![], Some(vec![])));

    for size in hostile().chain([1, 2, 7]) {
        assert!(ResidualNetwork::new(&residual::Parts { size, ..residual_parts() }).is_err(), "{size}");
        let none: Arc<[f32]> = Arc::new([]);
        let projection = [Arc::clone(&none), none];
        assert!(ResidualNetwork::new(&residual::Parts { size, projection, ..residual_parts() }).is_err(), "{size}");
    }
    for stride in hostile() {
        let mut parts = residual_parts();
        parts.units[0].stride = stride;
        assert!(ResidualNetwork::new(&parts).is_err(), "{stride}");
    }
}

/// Images of 2×2 pixels, four patches, one block of width 16, embeddings of three elements.
fn transformer_parts() -> transformer::Parts {
    let layer =
        |outputs: usize, inputs: usize| transformer::Layer { weight: arc(outputs * inputs, 1), bias: arc(outputs, 2) };
    let norm = || transformer::Layer { weight: arc(16, 3), bias: arc(16, 4) };
    transformer::Parts {
        resolution: 2,
        patch: 1,
        heads: 1,
        patches: arc(16 * 3, 5),
        class: arc(16, 6),
        places: arc(5 * 16, 7),
        before: norm(),
        blocks: vec![transformer::Block {
            before_attention: norm(),
            attention: layer(48, 16),
            attention_out: layer(16, 16),
            before_mlp: norm(),
            mlp_in: layer(64, 16),
            mlp_out: layer(16, 64),
        }],
        after: norm(),
        projection: arc(48, 8),
    }
}

#[test]
fn a_vision_transformer_takes_what_fits() {
    let network = VisionTransformer::new(&transformer_parts()).unwrap();
    let images = numbers(25, 1);
    let (good, others) = (&images[..24], numbers(6, 2));
    assert!(network.embed(good, 2).is_ok() && network.compare(good, 2, &others, Some(&[1.0; 4])).is_ok());
    for length in [0, 1, 12, 23, 25] {
        assert!(matches!(network.embed(&images[..length], 2), Err(Error::Length { .. })));
        assert!(matches!(network.compare(&images[..length], 2, &others, None), Err(Error::Length { .. })));
    }
    for length in [1, 2, 4, 5] {
        assert!(matches!(network.compare(good, 2, &others[..length], None), Err(Error::Length { .. })));
        let gradient = &[1.0; 5][..if length == 4 { 3 } else { length }];
        assert!(matches!(network.compare(good, 2, &others, Some(gradient)), Err(Error::Length { .. })));
    }
    for batch in hostile().filter(|&batch| batch > 0) {
        assert!(network.embed(&[], batch).is_err() && network.embed(good, batch).is_err());
        assert!(network.compare(&[], batch, &[], Some(&[])).is_err());
    }
    assert_eq!(network.embed(&[], 0).unwrap(), [0.0; 0]);
    assert_eq!(network.compare(&[], 0, &others, Some(&[])).unwrap(), (vec![], Some(vec![])));
    assert_eq!(network.compare(good, 2, &[], Some(&[])).unwrap(), (vec![], Some(vec![0.0; 24])));

    let none: Arc<[f32]> = Arc::new([]);
    for hostile in hostile() {
        for patches in [Arc::clone(&none), arc(48, 5)] {
            for (resolution, patch, heads) in
                [(hostile, 1, 1), (2, hostile, 1), (2, 1, hostile), (hostile, hostile, 1), (hostile, hostile, hostile)]
            {
                let places = arc(if resolution == patch { 32 } else { 80 }, 7);
                let patches = Arc::clone(&patches);
                let parts = transformer::Parts { resolution, patch, heads, patches, places, ..transformer_parts() };
                assert!(VisionTransformer::new(&parts).is_err(), "{resolution} {patch} {heads}");
            }
        }
    }
    assert!(VisionTransformer::new(&transformer::Parts { projection: none, ..transformer_parts() }).is_err());
}

/// Each with the shapes and lengths that fit, and everything beside them.
#[test]
fn convolutions_take_slices_that_fill_their_shapes() {
    let geometry = Conv2d::padded(1);
    let (is, ws, os) = ([1, 2, 3, 2], [4, 2, 3, 3], [1, 4, 3, 2]);
    let (input, weight, above) = (numbers(13, 1), numbers(73, 2), numbers(25, 3));
    let value = |i: &[f32], is, w: &[f32], ws| conv2d(&geometry, i, is, w, ws);
    let by_input = |g: &[f32], os, w: &[f32], ws, hw| conv2d_input_gradient(&geometry, g, os, w, ws, hw);
    let by_weight = |i: &[f32], is, g: &[f32], os, hw| conv2d_weight_gradient(&geometry, i, is, g, os, hw);
    assert_eq!(value(&input[..12], is, &weight[..72], ws).len(), 24);
    assert_eq!(by_input(&above[..24], os, &weight[..72], ws, [3, 2]).len(), 12);
    assert_eq!(by_weight(&input[..12], is, &above[..24], os, [3, 3]).len(), 72);
    for (i, w, g) in [(11, 72, 24), (13, 72, 24), (12, 71, 24), (12, 73, 24), (12, 72, 23), (12, 72, 25), (0, 0, 0)] {
        let (i, w, g) = (&input[..i], &weight[..w], &above[..g]);
        if (i.len(), w.len()) != (12, 72) {
            stops(|| value(i, is, w, ws));
        }
        if (g.len(), w.len()) != (24, 72) {
            stops(|| by_input(g, os, w, ws, [3, 2]));
        }
        if (i.len(), g.len()) != (12, 24) {
            stops(|| by_weight(i, is, g, os, [3, 3]));
        }
    }
    for hostile in hostile() {
        for axis in 0..4 {
            let with = |shape: [usize; 4]| std::array::from_fn(|k| if k == axis { hostile } else { shape[k] });
            stops(|| value(&input[..12], with(is), &weight[..72], ws));
            stops(|| value(&input[..12], is, &weight[..72], with(ws)));
            stops(|| by_input(&above[..24], with(os), &weight[..72], ws, [3, 2]));
            stops(|| by_input(&above[..24], os, &weight[..72], with(ws), [3, 2]));
            stops(|| by_weight(&input[..12], with(is), &above[..24], os, [3, 3]));
            stops(|| by_weight(&input[..12], is, &above[..24], with(os), [3, 3]));
            if hostile != 0 || axis > 1 {
                stops(|| value(&[], with(is), &weight[..72], ws));
            }
        }
        stops(|| by_input(&above[..24], os, &weight[..72], ws, [hostile, 2]));
        stops(|| by_weight(&input[..12], is, &above[..24], os, [3, hostile]));
        for padding in [[hostile, 0], [0, hostile]] {
            if hostile > 0 {
                // One pixel, and a step so long that there are few windows.
                let geometry = Conv2d { padding, ..Conv2d::default() };
                assert!(geometry.output_shape(&[1, 1, 1, 1], &[1, 1, 1, 1]).is_err() || hostile < 1 << 59);
            }
        }
    }
    // A step and a spacing past the image are never taken.
    let far = Conv2d { stride: [1 << 44, 1 << 40], dilation: [1 << 43, 1 << 44], ..Conv2d::default() };
    assert_eq!(conv2d(&far, &[2.0, 3.0], [1, 1, 1, 2], &[4.0], [1, 1, 1, 1]), [8.0]);
    assert_eq!(conv2d_input_gradient(&far, &[1.0], [1, 1, 1, 1], &[4.0], [1, 1, 1, 1], [1, 2]), [4.0, 0.0]);
    assert_eq!(conv2d_weight_gradient(&far, &[2.0, 3.0], [1, 1, 1, 2], &[1.0], [1, 1, 1, 1], [1, 1]), [2.0]);
    // No samples, no channels.
    assert_eq!(value(&[], [0, 2, 3, 2], &weight[..72], ws), [0.0; 0]);
    assert_eq!(value(&input[..12], is, &[], [0, 2, 3, 3]), [0.0; 0]);
    assert_eq!(by_input(&[], [1, 0, 3, 2], &[], [0, 2, 3, 3], [3, 2]), [0.0; 12]);
    assert_eq!(by_weight(&[], [0, 2, 3, 2], &[], [0, 4, 3, 2], [3, 3]), [0.0; 72]);
}

#[test]
fn winograd_takes_slices_that_fill_their_shapes() {
    let weights = WinogradWeights::new(3, 2, numbers(54, 1));
    let (input, above) = (numbers(13, 2), numbers(19, 3));
    let (is, os) = ([1, 2, 3, 2], [1, 3, 3, 2]);
    assert_eq!(conv3x3(&weights, &input[..12], is, Some(&[0.0; 3]), true).len(), 18);
    assert_eq!(conv3x3_input_gradient(&weights, &above[..18], os).len(), 12);
    for length in [0, 11, 13] {
        stops(|| conv3x3(&weights, &input[..length], is, None, false));
    }
    for length in [0, 17, 19] {
        stops(|| conv3x3_input_gradient(&weights, &above[..length], os));
    }
    for bias in [0, 2, 4] {
        stops(|| conv3x3(&weights, &input[..12], is, Some(&[0.0; 4][..bias]), false));
    }
    for hostile in hostile() {
        for axis in 0..4 {
            let with = |shape: [usize; 4]| std::array::from_fn(|k| if k == axis { hostile } else { shape[k] });
            for input in [&[][..], &input[..12]] {
                if hostile != 0 || !input.is_empty() || axis == 1 {
                    stops(|| conv3x3(&weights, input, with(is), None, false));
                    stops(|| conv3x3_input_gradient(&weights, input, with(os)));
                }
            }
        }
        if hostile > 0 {
            stops(|| WinogradWeights::new(hostile, 1, vec![]));
            stops(|| WinogradWeights::new(1 << 33, hostile, vec![0.0; 9]));
        }
    }
    assert_eq!(conv3x3(&weights, &[], [0, 2, 3, 2], None, false), [0.0; 0]);
    assert_eq!(conv3x3(&weights, &[], [1, 2, 0, 2], None, false), [0.0; 0]);
    assert_eq!(conv3x3_input_gradient(&weights, &[], [1, 3, 3, 0]), [0.0; 0]);
}

#[test]
fn products_pools_and_streams_take_slices_that_fill_their_shapes() {
    let product = |[batch, m, k, n]: [usize; 4], a: &[f32], b: &[f32]| matmul(batch, m, k, n, a, false, b, true);
    let (a, b) = (numbers(13, 1), numbers(9, 2));
    assert_eq!(product([1, 3, 4, 2], &a[..12], &b[..8]).len(), 6);
    for (i, j) in [(11, 8), (13, 8), (12, 7), (12, 9), (0, 0)] {
        stops(|| product([1, 3, 4, 2], &a[..i], &b[..j]));
    }
    for hostile in hostile() {
        for axis in 0..4 {
            let sizes = std::array::from_fn(|k| if k == axis { hostile } else { [1, 3, 4, 2][k] });
            stops(|| product(sizes, &a[..12], &b[..8]));
        }
    }
    // No inner axis: results of any size from nothing.
    assert_eq!(product([2, 2, 0, 1], &[], &[]), [0.0; 4]);
    stops(|| product([1 << 32, 1 << 16, 0, 1 << 16], &[], &[]));

    let pool = |pool: Pool2d, shape| max_pool2d_indices::<f32>(&pool, &[1.0; 4], shape);
    let square = Pool2d::square(2);
    assert_eq!(pool(square, [1, 1, 2, 2]), [0]);
    for hostile in hostile() {
        for axis in 0..4 {
            stops(|| pool(square, std::array::from_fn(|k| if k == axis { hostile } else { [1, 1, 2, 2][k] })));
        }
        if hostile != 2 {
            stops(|| pool(Pool2d { size: [hostile, 2], ..square }, [1, 1, 2, 2]));
            stops(|| pool(Pool2d { padding: [2, hostile | 2], ..square }, [1, 1, 2, 2]));
        }
    }
    stops(|| gather(&[1.0f32], &[1]));
    stops(|| scatter_add(&[1.0f32], &[1], 1));
    stops(|| scatter_add(&[1.0f32], &[], 1));

    let mut written = [1.0; 3];
    assert_eq!((stream(&[], &mut written), written), (0.0, [0.0; 3]));
    assert_eq!(stream(&[2.0], &mut []), 2.0);
    for (shape, expected) in [(&[][..], 1), (&[3, 0, usize::MAX], 0), (&[usize::MAX, 2], usize::MAX), (&[2, 3], 6)] {
        assert_eq!(count(shape), expected, "{shape:?}");
    }
}

/// PyTorch refuses an image without rows or columns. A batch without images has none to refuse.
#[test]
fn pooling_needs_a_pixel() {
    let padded = Pool2d { size: [2, 2], stride: [2, 2], padding: [1, 1], ceil_mode: false };
    for pool in [padded, Pool2d { ceil_mode: true, ..padded }, Pool2d::square(1)] {
        for shape in [[1, 1, 0, 2], [1, 1, 2, 0], [0, 1, 0, 0]] {
            assert!(matches!(pool.output_shape(&shape), Err(Error::ShapeRule { .. })), "{pool:?} {shape:?}");
        }
        assert!(pool.output_shape(&[0, 1, 2, 2]).is_ok() && pool.output_shape(&[1, 0, 2, 2]).is_ok());
        for extent in hostile() {
            // Rows beyond memory are refused or counted, never wrapped.
            if let Ok(shape) = pool.output_shape(&[1, 1, extent, 1]) {
                assert!(shape[2] >= extent / 2, "{shape:?}");
            }
            let _ = Pool2d { stride: [extent, 1], ..pool }.output_shape(&[1, 1, 3, 3]);
        }
    }
}

#[test]
fn what_moves_elements_takes_slices_that_fill_their_shapes() {
    let data = numbers(12, 1);
    let whole = Array { shape: &[3, 4], data: &data };
    for length in [0, 1, 11] {
        let short = Array { shape: &[3, 4], data: &data[..length] };
        stops(|| broadcast::expand(short, &[2, 3, 4]));
        stops(|| broadcast::sum_to(short, &[3, 1]));
        stops(|| broadcast::norm_to(short, &[3, 1]));
        stops(|| broadcast::permute(short, &[1, 0]));
        stops(|| broadcast::narrow(short, 0, 0, 1));
        stops(|| broadcast::pad(short, 0, 1, 1));
        stops(|| broadcast::linear(short, 1, &[&[(0, 1.0)]]));
        stops(|| broadcast::concatenate(&[whole, short], 0));
        stops(|| broadcast::binary(whole, short, &[3, 4], |a, b| a + b));
        stops(|| broadcast::binary(short, whole, &[3, 4], |a, b| a + b));
    }
    stops(|| broadcast::linear(whole, 1, &[&[(4, 1.0)]]));
}

#[test]
fn a_program_names_what_there_is() {
    // One input, one constant, one register: slots 0, 1 and 2.
    let program = |operation, operands: &[u32], results: &[u32]| {
        let (operands, results) = (operands.to_vec(), results.to_vec());
        Program::new(
            [1, 1, 1],
            false,
            vec![0.5],
            vec![Instruction { operation, operands, results, constants: [1.0, 0.0] }],
        )
    };
    program(Operation::Add, &[0, 1], &[2]);
    program(Operation::Store(0, Stored::Value), &[0], &[]);
    // Results that would overwrite the input or the constant, or that are nowhere.
    for result in [0, 1, 3, u32::MAX] {
        stops(|| program(Operation::Add, &[0, 1], &[result]));
    }
    for operand in [3, u32::MAX] {
        stops(|| program(Operation::Add, &[0, operand], &[2]));
        stops(|| program(Operation::Store(operand, Stored::Value), &[0], &[]));
    }
    for (operands, results) in [(&[0][..], &[2][..]), (&[0, 1], &[]), (&[0, 1, 2], &[2]), (&[0, 1], &[2, 2])] {
        stops(|| program(Operation::Add, operands, results));
    }
}

#[test]
fn a_stencil_takes_slices_that_fill_their_shapes() {
    let function = Function::unary(Unary::Square);
    let filters = [Taps { taps: vec![([1, 1], -1.0), ([1, 2], 1.0)], missing: [0, 1] }];
    let data = numbers(24, 1);
    let run = |shape: [usize; 4], image: usize, target: usize, weight: ([usize; 4], usize)| {
        let stencil = Stencil {
            function: &function,
            filters: &filters,
            shape,
            image: &data[..image],
            target: Some(&data[..target]),
            weight: Some(Array { shape: &weight.0, data: &data[..weight.1] }),
            mask: None,
            directions: Vec::new(),
            factors: None,
            scale: 1.0,
            isa: isa::detect(),
        };
        (stencil.sums(), stencil.image_gradient(), stencil.weight_gradient(&weight.0))
    };
    let shape = [1, 2, 3, 4];
    run(shape, 24, 24, ([1, 1, 3, 4], 12));
    run(shape, 24, 24, (shape, 24));
    for length in [0, 1, 12, 23] {
        stops(|| run(shape, length, 24, (shape, 24)));
        stops(|| run(shape, 24, length, (shape, 24)));
        stops(|| run(shape, 24, 24, (shape, length)));
    }
    stops(|| run(shape, 24, 24, ([1, 2, 4, 3], 24)));
    for extent in hostile().filter(|&extent| extent > 0) {
        stops(|| run([extent, 2, 3, 4], 24, 24, (shape, 24)));
        stops(|| run([1, 2, 3, extent], 24, 24, (shape, 24)));
    }
}

/// (x − y)²
#[derive(Clone, Debug)]
struct Squared;

impl Pointwise<2> for Squared {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).square()
    }
}

impl Declared for Squared {
    const NAME: &'static str = "Squared";
}

impl PointwiseLoss<2> for Squared {
    const INPUTS: [Input; 2] = [Input::full("x"), Input::full("y")];
    fn reducer(&self) -> Reducer {
        Reducer::default()
    }
}

/// An input that is broadcast to no elements has some itself, and a gradient of zeros.
#[test]
fn a_map_without_elements_has_gradients_of_zeros() {
    let function = Function::new(Squared);
    for (first, second, full) in [
        (&[2, 1, 3, 3][..], &[2, 0, 3, 3][..], &[2, 0, 3, 3][..]),
        (&[1, 2, 3, 3], &[0, 2, 3, 3], &[0, 2, 3, 3]),
        (&[2, 3, 1, 1], &[2, 3, 0, 4], &[2, 3, 0, 4]),
        (&[2, 1, 1, 1], &[2, 3, 4, 0], &[2, 3, 4, 0]),
        (&[18], &[0, 18], &[0, 18]),
        (&[1], &[0], &[0]),
        (&[], &[0, 4], &[0, 4]),
    ] {
        let data = numbers(count(first), 1);
        let inputs = [Array { shape: first, data: &data }, Array { shape: second, data: &[] }];
        let map = Map::new(&function, &inputs, &[], full, 1.0);
        // Memory that is used again shows what nobody writes.
        drop((0..8).map(|_| vec![f32::NAN; data.len()]).collect::<Vec<_>>());
        let (sum, gradients) = map.sum_and_gradients(&[0, 1]);
        assert_eq!((sum, &gradients[0], &gradients[1]), (0.0, &vec![0.0; data.len()], &vec![]), "{first:?} {second:?}");
        let mut given = vec![f32::NAN; data.len()];
        assert_eq!(map.sum_and_gradients_into(vec![(0, &mut given)]), 0.0);
        assert_eq!(given, vec![0.0; data.len()], "{first:?} {second:?}");
        assert_eq!((map.sum(&[0]), map.values(&[0])), (0.0, vec![]));
    }
}

#[test]
fn a_map_takes_slices_that_fill_their_shapes() {
    let function = Function::new(Squared);
    let data = numbers(12, 1);
    fn array<'a>(shape: &'a [usize], data: &'a [f32]) -> Array<'a, f32> {
        Array { shape, data }
    }
    for length in [0, 1, 5, 7] {
        stops(|| {
            Map::new(&function, &[array(&[2, 3], &data[..6]), array(&[2, 3], &data[..length])], &[], &[2, 3], 1.0)
        });
        stops(|| {
            Map::new(&function, &[array(&[2, 3], &data[..6]); 2], &[array(&[2, 3], &data[..length])], &[2, 3], 1.0)
        });
        let refused =
            Squared.value_and_gradients([array(&[2, 3], &data[..6]), array(&[2, 3], &data[..length])], None, [true; 2]);
        assert!(matches!(refused, Err(Error::Length { .. })), "{refused:?}");
    }
    // The products of some of these wrap to the length, or to nothing.
    for shape in [[1 << 60, 2], [1 << 63, 2], [(1 << 63) + 1, 2], [usize::MAX, usize::MAX]] {
        let bad = [array(&shape, &data[..2]); 2];
        stops(|| Map::new(&function, &bad, &[], &shape, 1.0));
        stops(|| Map::new(&function, &[array(&[1, 1], &data[..1]); 2], &[], &shape, 1.0));
        let refused = Squared.value_and_gradients(bad, None, [true; 2]);
        assert!(matches!(refused, Err(Error::ShapeRule { .. })), "{shape:?}: {refused:?}");
    }
}
