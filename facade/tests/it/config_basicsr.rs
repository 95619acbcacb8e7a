//! Losses of BasicSR's option files: values by the formulas of its documentation, with its names and fields.
#![cfg(all(feature = "config", feature = "ndarray", feature = "pixelwise", feature = "gan", feature = "vgg"))]

use image_losses::AnyTensor;
use image_losses::config::check::check;
use image_losses::config::{BuildContext, Component, Inputs, Registry};
use image_losses::core::{Error, Result};
use image_losses::ndarray::NdTensor;
use serde_json::{Value, json};

type Any = AnyTensor<'static>;

fn build(document: &Value) -> Result<Component> {
    let context = BuildContext { seeded: Some(7), ..BuildContext::default() };
    Registry::standard().build(document, "train.pixel_opt", &context)
}

fn tensor(shape: &[usize], values: &[f64]) -> Any {
    NdTensor::new(ndarray::ArrayD::from_shape_vec(shape.to_vec(), values.to_vec()).unwrap()).into()
}

fn images(seed: usize) -> Any {
    let values: Vec<f64> = (0..3 * 64).map(|i| ((i * 37 + seed * 101) % 97) as f64 / 97.0).collect();
    tensor(&[1, 3, 8, 8], &values)
}

/// The values of a loss by name.
fn values(document: Value, inputs: &Inputs<'_, Any>) -> Vec<(&'static str, f64)> {
    let mut loss = build(&document).unwrap();
    let (values, _) = loss.evaluate(inputs).unwrap().into_parts();
    values.into_iter().map(|(name, value)| (name, value.values().unwrap()[0])).collect()
}

fn value(document: Value, inputs: &Inputs<'_, Any>) -> f64 {
    values(document, inputs)[0].1
}

fn assert_near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-9 * b.abs().max(1e-3), "{a} {b}");
}

#[test]
fn psnr_is_of_the_mean_and_on_luma() {
    let (pred, target) = ([0.2, 0.4, 0.6], [0.1, 0.7, 0.5]);
    let inputs =
        Inputs::new().tensor("pred", tensor(&[1, 3, 1, 1], &pred)).tensor("target", tensor(&[1, 3, 1, 1], &target));
    let document = |luma: bool| json!({"type": "PSNRLoss", "loss_weight": 0.5, "reduction": "mean", "toY": luma});
    // λ · 10/ln 10 · ln(mean (x − y)² + 1e-8); on luma of (65.481, 128.553, 24.966)/255 + 16/255.
    let decibel = |mse: f64| 0.5 * 10.0 / 10f64.ln() * (mse + 1e-8).ln();
    let difference: Vec<f64> = pred.iter().zip(target).map(|(x, y)| x - y).collect();
    assert_near(value(document(false), &inputs), decibel(difference.iter().map(|d| d * d).sum::<f64>() / 3.0));
    let luma: f64 = difference.iter().zip([65.481, 128.553, 24.966]).map(|(d, c)| d * c / 255.0).sum();
    assert_near(value(document(true), &inputs), decibel(luma * luma));
    let error = build(&json!({"type": "PSNRLoss", "reduction": "sum"})).unwrap_err();
    assert!(error.to_string().contains("reduction"), "{error}");
}

#[test]
fn perceptual_is_of_layers_by_name_with_a_range_and_a_criterion() {
    let inputs = Inputs::new().tensor("x", images(1)).tensor("gt", images(2));
    let theirs = |more: Value| {
        let mut document = json!({"type": "PerceptualLoss", "layer_weights": {"conv1_2": 0.5}});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document
    };
    let ours = |norm_img: bool, criterion: &str| {
        json!({
            "type": "PerceptualLoss", "layer_weights": {"conv1_2": 0.5}, "norm_img": norm_img, "style_weight": 2.0,
            "criterion": criterion,
        })
    };
    // No style by default, images in [0, 1] by default: MMagic's defaults are a style term, and [−1, 1].
    let mmagic = |document: Value| {
        let context = BuildContext { seeded: Some(7), ..BuildContext::default() };
        let mut loss = Registry::standard().build(&document, "perceptual_loss", &context).unwrap();
        let (values, _) = loss.evaluate(&inputs).unwrap().into_parts();
        values.into_iter().map(|(name, value)| (name, value.values().unwrap()[0])).collect::<Vec<_>>()
    };
    for (range, norm_img) in [(json!({}), false), (json!({"range_norm": true}), true)] {
        let found = values(theirs(range), &inputs);
        assert_eq!(found.len(), 1);
        assert_near(found[0].1, mmagic(ours(norm_img, "l1"))[0].1);
    }
    let styled = values(theirs(json!({"range_norm": false, "style_weight": 2.0})), &inputs);
    assert_eq!(styled.len(), 2);
    assert_near(styled[1].1, mmagic(ours(false, "l1"))[1].1);
    // `l2` is the mean of squares. The Frobenius norm of n differences is √(n · the mean of squares), per layer: of one
    // layer of weight w, √n · √w · √(w · mean). 64 channels of 8×8 features, and of 64×64 entries in the Gram matrix.
    let squares = values(theirs(json!({"style_weight": 2.0, "criterion": "l2"})), &inputs);
    let lengths = values(theirs(json!({"style_weight": 2.0, "criterion": "fro"})), &inputs);
    for (k, (count, weight)) in [(64.0 * 64.0, 1.0), (64.0 * 64.0, 2.0)].into_iter().enumerate() {
        assert_near(squares[k].1, mmagic(ours(false, "mse"))[k].1);
        let mean: f64 = squares[k].1 / (0.5 * weight);
        assert_near(lengths[k].1, 0.5 * weight * (count * mean).sqrt());
    }
    // Equal images: 0, and a gradient of 0 rather than NaN is the norm's own law.
    let equal = Inputs::new().tensor("x", images(1)).tensor("gt", images(1));
    assert_eq!(value(theirs(json!({"criterion": "fro"})), &equal), 0.0);
    for (more, word) in [
        (json!({"range_norm": true, "norm_img": true}), "norm_img"),
        (json!({"range_norm": "yes"}), "range_norm"),
        (json!({"criterion": "cosine"}), "`fro`"),
    ] {
        let error = build(&theirs(more)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn adversarial_losses_have_their_names() {
    let scores: [&[f64]; 2] = [&[1.0, -2.0], &[0.5]];
    let (first, second) = (tensor(&[2, 1], scores[0]), tensor(&[1, 1], scores[1]));
    let inputs = |real: bool, disc: bool| {
        let scales = vec![first.clone(), second.clone()];
        Inputs::new().tensors("input", scales).flag("target_is_real", real).flag("is_disc", disc)
    };
    let softplus = |x: f64| x.exp().ln_1p();
    let mean = |f: &dyn Fn(f64) -> f64| {
        let means = scores.map(|scores| scores.iter().map(|&s| f(s)).sum::<f64>() / scores.len() as f64);
        (means[0] + means[1]) / 2.0
    };
    for name in ["GANLoss", "ganloss", "MultiScaleGANLoss"] {
        let document = |kind: &str| json!({"type": name, "gan_type": kind, "loss_weight": 0.1});
        // The weight is the generator's alone.
        assert_near(value(document("wgan_softplus"), &inputs(true, false)), 0.1 * mean(&|s| softplus(-s)));
        assert_near(value(document("wgan_softplus"), &inputs(false, true)), mean(&softplus));
        assert_near(value(document("lsgan"), &inputs(true, true)), mean(&|s| (s - 1.0) * (s - 1.0)));
        assert_near(value(document("hinge"), &inputs(false, true)), mean(&|s| (1.0 + s).max(0.0)));
        assert_near(value(document("hinge"), &inputs(true, false)), 0.1 * mean(&|s| -s));
    }
}

#[test]
fn feature_matching_is_its_program() {
    let layers = |values: [&[f64]; 2]| values.map(|values| tensor(&[1, values.len()], values)).to_vec();
    let inputs = Inputs::new()
        .tensors("fake", layers([&[1.0, 2.0], &[5.0]]))
        .tensors("real", layers([&[0.0, 0.0], &[3.0]]))
        .number("num_discriminators", 2.0);
    let document = |criterion: &str| json!({"type": "GANFeatLoss", "criterion": criterion, "loss_weight": 10, "reduction": "mean"});
    // λ · Σ λ · mean over each layer, divided by the number of discriminators.
    assert_near(value(document("l1"), &inputs), 100.0 * (1.5 + 2.0) / 2.0);
    assert_near(value(document("l2"), &inputs), 100.0 * (2.5 + 4.0) / 2.0);
    let error = build(&document("charbonnier")).unwrap_err().to_string();
    assert!(error.contains("`l1`, `l2`"), "{error}");
}

#[test]
fn total_variation_is_of_weighted_differences() {
    let image = tensor(&[1, 1, 2, 2], &[0.0, 1.0, 3.0, 7.0]);
    let weight = tensor(&[1, 1, 2, 2], &[1.0, 0.5, 2.0, 4.0]);
    let document = json!({"type": "WeightedTVLoss", "loss_weight": 2.0, "reduction": "mean"});
    let inputs = Inputs::new().tensor("pred", image);
    // λ · (mean of 3, 6 down + mean of 1, 4 across); weighted at the upper or left pixel of each pair.
    assert_near(value(document.clone(), &inputs), 2.0 * (4.5 + 2.5));
    let weighted = 2.0 * ((3.0 + 0.5 * 6.0) / 1.5 + (1.0 + 2.0 * 4.0) / 3.0);
    assert_near(value(document, &inputs.tensor("mask", weight)), weighted);
    let error = build(&json!({"type": "WeightedTVLoss", "reduction": "sum"})).unwrap_err();
    assert!(matches!(error, Error::At { .. }) && error.to_string().contains("reduction"), "{error}");
}

#[test]
fn option_files_build() {
    let pixel = |name: &str| json!({"type": name, "loss_weight": 1.0, "reduction": "mean"});
    let vgg = json!({
        "type": "PerceptualLoss", "vgg_type": "vgg19", "use_input_norm": true, "perceptual_weight": 1.0, "style_weight": 0,
        "layer_weights": {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}, "range_norm": false,
        "criterion": "l1",
    });
    let gan = json!({"type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 0.1});
    let documents = [
        // Restoration (EDSR, SwinIR, NAFNet), video (EDVR, BasicVSR).
        (json!({"pixel_opt": pixel("L1Loss")}), 1),
        (json!({"pixel_opt": pixel("PSNRLoss")}), 1),
        (json!({"pixel_opt": pixel("CharbonnierLoss")}), 1),
        // ESRGAN and Real-ESRGAN, with locally discriminative learning.
        (json!({"pixel_opt": pixel("L1Loss"), "ldl_opt": pixel("L1Loss"), "perceptual_opt": vgg, "gan_opt": gan}), 4),
        // A switched-off term.
        (json!({"pixel_opt": pixel("MSELoss"), "perceptual_opt": null}), 1),
        // traiNNer-redux' list.
        (json!({"losses": [{"type": "l1loss", "loss_weight": 1.0}, {"type": "charbonnierloss"}, gan]}), 3),
    ];
    for (train, count) in documents {
        let document = json!({"name": "x", "network_g": {"type": "RRDBNet"}, "train": train});
        let findings = check(&Registry::standard(), &document, &BuildContext::default());
        let errors: Vec<_> = findings.rows.iter().filter(|row| row.error.is_some()).collect();
        assert!(errors.is_empty() && findings.rows.len() == count, "{errors:?}");
    }
}
