//! `PerceptualLoss` on small images: gradients, taps, cached targets, options, errors.
#![cfg(feature = "vgg")]

use std::collections::BTreeMap;

use image_losses_autograd::{AgTensor, differentiate, run};
use image_losses_core::gradcheck::check_gradient;
use image_losses_core::kernels::Array;
use image_losses_core::{Differentiable, Error, Result, Tensor};
use image_losses_laws::drawn;
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::checkpoint::Checkpoint;
use image_losses_perceptual::networks::{Architecture, Vgg, VggType};
use image_losses_perceptual::{Criterion, PerceptualLoss, PerceptualOptions, Target, Weights};
use proptest::prelude::*;

fn image(seed: u64, shape: &[usize]) -> Vec<f64> {
    let architecture = [("image".to_owned(), shape.to_vec())];
    let values = Checkpoint::seeded(&architecture, seed).unwrap();
    let scale = (shape[1..].iter().product::<usize>() as f64 / 6.0).sqrt();
    values.get("image").unwrap().to_f32().unwrap().into_iter().map(|value| f64::from(value) * scale).collect()
}

fn layers(names: &[(&str, f64)]) -> BTreeMap<String, f64> {
    names.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

fn options(names: &[(&str, f64)]) -> PerceptualOptions {
    PerceptualOptions { layer_weights: layers(names), vgg_type: VggType::Vgg11, ..PerceptualOptions::default() }
}

fn tensor(values: &[f64], shape: &[usize]) -> NdTensor<'static, f64> {
    Tensor::constant(&(), values, shape).unwrap()
}

/// Both terms' values.
fn values(loss: &PerceptualLoss, x: &[f64], gt: &[f64], shape: &[usize]) -> Result<[Option<f64>; 2]> {
    let terms = loss.forward(&tensor(x, shape), &tensor(gt, shape))?;
    let item = |term: Option<NdTensor<'_, f64>>| term.map(|term| term.item()).transpose();
    Ok([item(terms.perceptual)?, item(terms.style)?])
}

fn total<'g>(loss: &PerceptualLoss, inputs: &[AgTensor<'g, f64>]) -> Result<AgTensor<'g, f64>> {
    Ok(loss.forward(&inputs[0], &inputs[1])?.total()?.unwrap())
}

proptest! {
    #![proptest_config(drawn(12))]

    /// Against central differences, with options drawn too. The target has no gradient.
    #[test]
    fn drawn_gradients(
        kind in prop::sample::select(&VggType::ALL[..4]),
        criterion in prop::sample::select(&[Criterion::L1, Criterion::Mse, Criterion::Fro][..]),
        (use_input_norm, norm_img) in any::<(bool, bool)>(),
        (perceptual_weight, style_weight) in (0.1..2.0f64, 0.1..2.0f64),
        (layer, style) in (0..5usize, 0..5usize),
        seed in any::<u64>(),
    ) {
        let loss = PerceptualLoss::new(PerceptualOptions {
            layer_weights: layers(&[(&layer.to_string(), 1.3)]),
            layer_weights_style: Some(layers(&[(&style.to_string(), 40.0)])),
            vgg_type: kind,
            use_input_norm,
            norm_img,
            perceptual_weight,
            style_weight,
            criterion,
            pretrained: None,
            prefix: None,
        }, &Weights::Seeded(seed)).unwrap();
        let shape = [1, 3, 2, 4];
        let (x, gt) = (image(seed ^ 1, &shape), image(seed ^ 2, &shape));
        let inputs = [(x.clone(), shape.to_vec()), (gt.clone(), shape.to_vec())];
        let (_, gradients) = differentiate(&inputs, |inputs| total(&loss, inputs)).unwrap();
        prop_assert!(gradients[1].iter().all(|g| *g == 0.0));
        let value = |x: &[Vec<f64>]| Ok(values(&loss, &x[0], &gt, &shape)?.into_iter().flatten().sum());
        let worst = check_gradient(&[x], 1e-6, value, |_| Ok(vec![gradients[0].clone()])).unwrap().unwrap();
        prop_assert!(worst.error < 1e-4, "{worst:?}");
    }
}

#[test]
fn second_derivatives_with_mse() {
    let mut options = options(&[("conv1_1", 1.0)]);
    options.criterion = Criterion::Mse;
    options.style_weight = 3.0;
    let loss = PerceptualLoss::new(options, &Weights::Seeded(3)).unwrap();
    let shape = [1, 3, 2, 2];
    let (x, gt) = (image(1, &shape), image(2, &shape));
    // The directional derivative along v, and its gradient.
    let direction: Vec<f64> = (0..12).map(|i| (i as f64).sin()).collect();
    let both = |x: &[f64]| {
        run(|session| {
            let x = session.input(x.to_vec(), &shape)?;
            let gt = session.input(gt.clone(), &shape)?;
            let value = total(&loss, &[x.clone(), gt])?;
            let first = Differentiable::gradients(&value, &[&x], true)?.remove(0).unwrap();
            let along = first.mul(&Tensor::constant(&session.graph(), &direction, &shape)?)?.sum_all()?;
            let second = Differentiable::gradients(&along, &[&x], false)?.remove(0).unwrap();
            let mut values = session.evaluate(&[&along, &second])?;
            let second = values.remove(1);
            Ok::<_, Error>((values[0][0], second))
        })
    };
    let worst = check_gradient(&[x], 1e-6, |x| Ok(both(&x[0])?.0), |x| Ok(vec![both(&x[0])?.1])).unwrap().unwrap();
    assert!(worst.error < 1e-6, "{worst:?}");
}

#[test]
fn taps_by_name_are_taps_by_index() {
    let shape = [1, 3, 8, 8];
    let (x, gt) = (image(1, &shape), image(2, &shape));
    // vgg11_bn: conv bn relu pool | conv bn relu pool | …
    for (name, index) in [("conv1_1", "0"), ("bn1_1", "1"), ("relu1_1", "2"), ("pool1", "3"), ("bn2_1", "5")] {
        let value = |layer: &str| {
            let options = PerceptualOptions { vgg_type: VggType::Vgg11Bn, ..options(&[(layer, 1.0)]) };
            values(&PerceptualLoss::new(options, &Weights::Seeded(7)).unwrap(), &x, &gt, &shape).unwrap()
        };
        assert_eq!(value(name), value(index), "{name}");
    }
    for kind in VggType::ALL {
        for (index, name) in kind.layer_names().iter().enumerate() {
            assert_eq!(kind.layer(name).unwrap(), index);
            assert_eq!(kind.layer(&index.to_string()).unwrap(), index);
        }
    }
    // Known places of torchvision's networks.
    for (kind, name, index) in [
        (VggType::Vgg19, "relu5_4", 35),
        (VggType::Vgg19, "conv5_4", 34),
        (VggType::Vgg16, "relu3_3", 15),
        (VggType::Vgg16Bn, "pool5", 43),
        (VggType::Vgg13, "pool5", 24),
        (VggType::Vgg11, "conv4_2", 13),
    ] {
        assert_eq!(kind.layer(name).unwrap(), index);
    }
}

#[test]
fn images_are_normalised_as_torchvision_does() {
    // https://pytorch.org/vision/stable/models.html: the mean colour becomes 0, one deviation above it 1.
    let [mean, deviation] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
    let shape = [1, 3, 4, 4];
    let features = |use_input_norm, colour: [f64; 3]| {
        let options = PerceptualOptions { use_input_norm, norm_img: false, ..options(&[("relu1_1", 1.0)]) };
        let bound = PerceptualLoss::new(options, &Weights::Seeded(7)).unwrap().bind::<NdTensor<f64>>(&()).unwrap();
        let pixels: Vec<f64> = colour.iter().flat_map(|&value| [value; 16]).collect();
        let mut all = Vec::new();
        let map = |map: &NdTensor<'static, f64>| {
            all.extend(map.array().iter().copied());
            Ok(map.clone())
        };
        bound.features(&tensor(&pixels, &shape)).unwrap().map(map).unwrap();
        all
    };
    let above: [f64; 3] = std::array::from_fn(|c| mean[c] + deviation[c]);
    for (colour, normalised) in [(mean, 0.0), (above, 1.0)] {
        let (found, expected) = (features(true, colour), features(false, [normalised; 3]));
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12));
        assert!(expected.iter().any(|&b| b > 0.01));
    }
}

/// The value by hand: a network of one convolution, whose features are written out.
#[test]
fn value_by_hand() {
    // Kernel o picks the channel o % 3 of the centre pixel, times o + 1; the bias is o.
    let mut weight = vec![0.0f32; 64 * 27];
    for o in 0..64 {
        weight[o * 27 + (o % 3) * 9 + 4] = (o + 1) as f32;
    }
    let bias: Vec<f32> = (0..64).map(|o| o as f32).collect();
    let checkpoint = Checkpoint::from_entries([
        ("features.0.weight".to_owned(), vec![64, 3, 3, 3], weight),
        ("features.0.bias".to_owned(), vec![64], bias),
        ("classifier.6.bias".to_owned(), vec![2], vec![0.0; 2]),
    ])
    .unwrap();
    let (x, gt) = ([0.5, 0.25, 0.0], [0.0, 0.0, 1.0]);
    let feature = |image: [f64; 3], o: usize| image[o % 3] * (o + 1) as f64 + o as f64;
    let l1: f64 = (0..64).map(|o| (feature(x, o) - feature(gt, o)).abs()).sum::<f64>() / 64.0;
    // One pixel: the Gram matrix is f fᵀ / 64.
    let pairs = (0..64).flat_map(|i| (0..64).map(move |j| (i, j)));
    let gram = |image, (i, j)| feature(image, i) * feature(image, j) / 64.0;
    let style: f64 = pairs.map(|pair| (gram(x, pair) - gram(gt, pair)).abs()).sum::<f64>() / 4096.0;
    let mut options = PerceptualOptions {
        use_input_norm: false,
        norm_img: false,
        perceptual_weight: 2.0,
        style_weight: 0.5,
        ..options(&[("0", 3.0)])
    };
    let shape = [1, 3, 1, 1];
    let loss = PerceptualLoss::new(options.clone(), &checkpoint.clone().into()).unwrap();
    let [perceptual, style_term] = values(&loss, &x, &gt, &shape).unwrap().map(Option::unwrap);
    assert!((perceptual - 6.0 * l1).abs() < 1e-12 * l1, "{perceptual} {l1}");
    assert!((style_term - 1.5 * style).abs() < 1e-11 * style, "{style_term} {style}");
    // Each switch: [−1, 1] to [0, 1], and ImageNet's statistics.
    options.norm_img = true;
    let loss = PerceptualLoss::new(options.clone(), &checkpoint.clone().into()).unwrap();
    let doubled = x.map(|v| 2.0 * v - 1.0);
    let found = values(&loss, &doubled, &gt.map(|v| 2.0 * v - 1.0), &shape).unwrap()[0].unwrap();
    assert!((found - 6.0 * l1).abs() < 1e-11 * l1);
    (options.norm_img, options.use_input_norm) = (false, true);
    let loss = PerceptualLoss::new(options, &checkpoint.into()).unwrap();
    let (mean, deviation) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let raw = |image: [f64; 3]| std::array::from_fn::<f64, 3, _>(|c| image[c] * deviation[c] + mean[c]);
    let found = values(&loss, &raw(x), &raw(gt), &shape).unwrap()[0].unwrap();
    assert!((found - 6.0 * l1).abs() < 1e-11 * l1);
}

#[test]
fn cached_features_give_the_same() {
    let loss = PerceptualLoss::new(
        PerceptualOptions {
            layer_weights_style: Some(layers(&[("relu1_1", 2.0), ("relu2_1", 1.0)])),
            ..options(&[("conv2_1", 1.0), ("pool1", 0.5)])
        },
        &Weights::Seeded(7),
    )
    .unwrap();
    let shape = [2, 3, 6, 5];
    let (x, gt) = (tensor(&image(1, &shape), &shape), tensor(&image(2, &shape), &shape));
    let bound = loss.bind::<NdTensor<f64>>(&()).unwrap();
    let features = bound.features(&gt).unwrap();
    assert_eq!(features.tensors().count(), 4);
    let carried = features.map(|tensor| Ok(tensor.clone())).unwrap();
    let item = |term: &Option<NdTensor<'_, f64>>| term.as_ref().unwrap().item().unwrap();
    let direct = loss.forward(&x, &gt).unwrap();
    for _ in 0..2 {
        let cached = bound.forward_with(&x, &carried).unwrap();
        assert_eq!(item(&cached.perceptual), item(&direct.perceptual));
        assert_eq!(item(&cached.style), item(&direct.style));
    }
    // Another loss's features do not pass.
    let other = PerceptualLoss::new(options(&[("0", 1.0)]), &Weights::Seeded(7)).unwrap();
    let refused = other.bind::<NdTensor<f64>>(&()).unwrap().forward_with(&x, &features);
    assert!(matches!(refused, Err(Error::OtherNetwork { operation: "PerceptualLoss", .. })), "{refused:?}");
}

#[test]
fn terms_switch_off_and_style_forgets_the_size() {
    let mut options = options(&[("pool1", 1.0)]);
    options.perceptual_weight = 0.0;
    let loss = PerceptualLoss::new(options.clone(), &Weights::Seeded(7)).unwrap();
    let (small, large) = ([1, 3, 4, 4], [1, 3, 6, 8]);
    let (x, gt) = (tensor(&image(1, &small), &small), tensor(&image(2, &large), &large));
    let terms = loss.forward(&x, &gt).unwrap();
    assert!(terms.perceptual.is_none() && terms.style.is_some());
    // But not the number of images.
    let two = [2, 3, 4, 4];
    let refused = loss.forward(&tensor(&image(1, &two), &two), &gt);
    assert!(matches!(refused, Err(Error::ShapeMismatch { argument: "gt", .. })), "{refused:?}");
    options.perceptual_weight = 1.0;
    let loss = PerceptualLoss::new(options.clone(), &Weights::Seeded(7)).unwrap();
    let refused = loss.forward(&x, &gt);
    assert!(matches!(refused, Err(Error::ShapeMismatch { argument: "gt", .. })), "{refused:?}");
    (options.perceptual_weight, options.style_weight) = (0.0, 0.0);
    let neither = PerceptualLoss::new(options, &Weights::Seeded(7)).unwrap();
    assert!(neither.forward(&x, &x).unwrap().total().unwrap().is_none());
    let data: Vec<f32> = image(1, &small).into_iter().map(|x| x as f32).collect();
    let images = Array { shape: &small, data: &data };
    let found = neither.value_and_gradient(images, Target::Images(&data)).unwrap();
    assert_eq!((found.perceptual, found.style, found.gradient), (None, None, vec![0.0; data.len()]));
}

#[test]
fn wrong_images_are_refused() {
    let loss = PerceptualLoss::new(options(&[("pool3", 1.0)]), &Weights::Seeded(7)).unwrap();
    let refused = |shape: &[usize]| {
        let x = tensor(&vec![0.5; shape.iter().product()], shape);
        loss.forward(&x, &x).unwrap_err()
    };
    assert!(matches!(refused(&[1, 3, 7, 9]), Error::ShapeRule { argument: "image", got, .. } if got == [1, 3, 7, 9]));
    assert!(matches!(refused(&[1, 1, 8, 8]), Error::ShapeRule { argument: "gt", .. }));
    assert!(matches!(refused(&[3, 8, 8]), Error::ShapeRule { .. }));
    assert!(matches!(refused(&[0, 3, 8, 8]), Error::Empty { .. }));
    let (a, b) = (tensor(&vec![0.5; 192], &[1, 3, 8, 8]), tensor(&vec![0.5; 216], &[1, 3, 9, 8]));
    assert!(matches!(loss.forward(&a, &b), Err(Error::ShapeMismatch { argument: "gt", .. })));
}

#[test]
fn finite_gradients_for_equal_and_extreme_images() {
    for criterion in [Criterion::L1, Criterion::Mse, Criterion::Fro] {
        let options = PerceptualOptions { criterion, ..options(&[("relu2_1", 1.0)]) };
        let loss = PerceptualLoss::new(options, &Weights::Seeded(7)).unwrap();
        for scale in [0.0, 1.0, 1e6] {
            let shape = vec![1, 3, 4, 4];
            let x: Vec<f64> = image(1, &shape).iter().map(|v| v * scale).collect();
            let (value, gradients) =
                differentiate(&[(x.clone(), shape.clone()), (x, shape)], |inputs| total(&loss, inputs)).unwrap();
            assert_eq!(value, [0.0]);
            assert!(gradients[0].iter().all(|g| *g == 0.0), "{gradients:?}");
        }
    }
}

#[test]
fn the_frobenius_norm_is_composed_in_single_precision_too() {
    let options = PerceptualOptions { criterion: Criterion::Fro, ..options(&[("relu2_1", 0.5)]) };
    let loss = PerceptualLoss::new(options, &Weights::Seeded(7)).unwrap();
    let shape = [2, 3, 8, 8];
    let (x, gt) = (image(1, &shape), image(2, &shape));
    let wide = values(&loss, &x, &gt, &shape).unwrap();
    let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    let single = |values: &[f64]| -> NdTensor<'static, f32> { Tensor::constant(&(), values, &shape).unwrap() };
    let bound = loss.bind::<NdTensor<f32>>(&()).unwrap();
    let target = bound.features(&single(&gt)).unwrap();
    for terms in [bound.forward(&single(&x), &single(&gt)).unwrap(), bound.forward_with(&single(&x), &target).unwrap()]
    {
        let found = [terms.perceptual, terms.style].map(|term| term.unwrap().item().unwrap());
        for (a, b) in found.into_iter().zip(wide) {
            // Single precision over a few thousand additions.
            assert!((f64::from(a) - b.unwrap()).abs() <= 1e-4 * b.unwrap(), "{a} {b:?}");
        }
    }
    // What has no engine has no composed form.
    let (x, gt) = (narrow(&x), narrow(&gt));
    let refused = loss.value_and_gradient(Array { shape: &shape, data: &x }, Target::Images(&gt));
    assert!(matches!(refused, Err(Error::Unsupported { .. })));
}

#[test]
fn options_are_checked_and_survive_serde() {
    let good = PerceptualOptions {
        layer_weights_style: Some(layers(&[("relu1_1", 0.5)])),
        pretrained: Some("somewhere.pth".into()),
        criterion: Criterion::Mse,
        ..options(&[("4", 1.0), ("relu4_1", 2.0)])
    };
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<PerceptualOptions>(&text).unwrap(), good);
    assert!(serde_json::from_str::<PerceptualOptions>(r#"{"layer_weight": {}}"#).is_err());
    assert!(serde_json::from_str::<PerceptualOptions>(r#"{"vgg_type": "vgg17"}"#).is_err());
    let mmagic: PerceptualOptions = serde_json::from_str(
        r#"{"layer_weights": {"34": 1.0}, "pretrained": "torchvision://vgg19", "criterion": "l1"}"#,
    )
    .unwrap();
    mmagic.validate().unwrap();
    // MMagic's defaults.
    assert_eq!((mmagic.perceptual_weight, mmagic.style_weight), (1.0, 1.0));

    let with = |layer: &str, weight: f64| options(&[("4", 1.0), (layer, weight)]).validate().unwrap_err();
    let bad = |change: fn(&mut PerceptualOptions)| {
        let mut options = options(&[("4", 1.0)]);
        change(&mut options);
        options.validate().unwrap_err()
    };
    let option = |error| match error {
        Error::InvalidOption { option, .. } => option,
        other => panic!("{other}"),
    };
    assert_eq!(option(bad(|o| o.layer_weights.clear())), "layer_weights");
    assert_eq!(option(with("3", f64::NAN)), "layer_weights");
    // relu2_1 is layer 4 of VGG-11.
    assert_eq!(option(with("relu2_1", 1.0)), "layer_weights");
    assert_eq!(option(bad(|o| o.layer_weights_style = Some(BTreeMap::new()))), "layer_weights_style");
    assert_eq!(option(bad(|o| o.perceptual_weight = -1.0)), "perceptual_weight");
    assert_eq!(option(bad(|o| o.style_weight = f64::INFINITY)), "style_weight");
    assert_eq!(option(bad(|o| o.pretrained = Some("torchvision://vgg11_bn".into()))), "pretrained");
    let unknown = with("relu5_4", 1.0);
    assert!(matches!(&unknown, Error::UnknownName { nearest: Some(near), .. } if near == "relu5_2"), "{unknown}");
    assert!(matches!(with("21", 1.0), Error::UnknownName { .. }));
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let check = |change: &dyn Fn(&mut Architecture)| {
        let mut architecture = VggType::Vgg11.architecture();
        change(&mut architecture);
        Vgg::load(VggType::Vgg11, 7, &Checkpoint::seeded(&architecture, 0).unwrap())
    };
    assert!(check(&|_| {}).is_ok());
    // Deeper layers may be missing, since they are not used; and the classifier may be there.
    assert!(check(&|a| a.truncate(6)).is_ok());
    assert!(check(&|a| a.push(("classifier.0.weight".into(), vec![2, 2]))).is_ok());
    let fault = |result: Result<Vgg>| match result.unwrap_err() {
        Error::CheckpointMismatch { missing, unexpected, mismatched, .. } => (missing, unexpected, mismatched),
        other => panic!("{other}"),
    };
    let (missing, unexpected, mismatched) = fault(check(&|a| {
        a.remove(3);
        a[0].1 = vec![64, 3, 5, 5];
        a.push(("head.weight".into(), vec![2]));
    }));
    assert_eq!(missing, ["features.3.bias"]);
    assert_eq!(unexpected, ["head.weight"]);
    assert_eq!(mismatched.len(), 1);
    // Another VGG, although its first layers would fit.
    let other = Checkpoint::seeded(&VggType::Vgg13.architecture(), 0).unwrap();
    assert!(matches!(Vgg::load(VggType::Vgg11, 1, &other), Err(Error::CheckpointMismatch { .. })));
    assert!(matches!(Vgg::load(VggType::Vgg11, 99, &other), Err(Error::InvalidOption { .. })));
}
