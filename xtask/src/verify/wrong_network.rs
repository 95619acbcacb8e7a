//! A network with one weight off is refused.

use image_losses::perceptual::checkpoint::Checkpoint;
use image_losses::perceptual::networks::{Architecture, LightCnn, VggType};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::case::{Case, find};
use super::evaluate::{Checked, compare};
use super::{Engine, Target};
use crate::command::root;

/// By how much a weight is off.
#[derive(Clone, Copy, Debug)]
enum Off {
    /// By this share of its tensor's largest weight.
    Relative(f32),
    /// By this much.
    Absolute(f32),
}

fn case(name: &str) -> Case {
    let directory = root().join("xtask").join("reference");
    let files = find(&directory, &[format!("perceptual/{name}")]).unwrap();
    Case::read(&files[0]).unwrap()
}

/// The case with its network's parameters from a file, in which one weight of the tensor `key` is off by `off` of the
/// tensor's largest weight.
fn with_one_weight_off(
    case: &Case,
    option: &[&str],
    architecture: &Architecture,
    key: &str,
    index: f64,
    off: Off,
) -> Case {
    let seed = case.description.weights.as_ref().and_then(|weights| weights.seed).unwrap();
    let checkpoint = Checkpoint::seeded(architecture, seed).unwrap();
    let mut tensors = Vec::new();
    for (name, entry) in checkpoint.iter().filter(|(name, _)| !name.starts_with("classifier.")) {
        let mut values = entry.to_f32().unwrap();
        if name == key {
            let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let count = values.len();
            values[(count as f64 * index) as usize] += match off {
                Off::Relative(share) => largest * share,
                Off::Absolute(by) => by,
            };
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((name.to_owned(), entry.shape().to_vec(), bytes));
    }
    assert!(tensors.iter().any(|(name, ..)| name == key), "the network has no `{key}`");
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let file = std::env::temp_dir().join(format!(
        "one-weight-off-{}-{}.safetensors",
        std::process::id(),
        case.name.replace('/', "-")
    ));
    safetensors::serialize_to_file(views, None, &file).unwrap();
    let mut wrong = case.clone();
    if let Some(weights) = &mut wrong.description.weights {
        weights.seed = None;
    }
    let mut place = &mut wrong.description.loss;
    for name in option {
        if place.get(name).is_none() {
            place[name] = json!({});
        }
        place = &mut place[*name];
    }
    *place = Value::String(file.display().to_string());
    wrong
}

/// The middle weight of each convolution, off by 1e-3 of its largest one in double precision; of the first convolution, off
/// by 1e-3 in single precision alone. (A deeper one among 512 channels moves the gradient by 3e-6, less than rounding does.)
/// Layers behind `deepest` are left out: there one weight moves no number by more than the rounding of those stored.
fn convolutions_count(name: &str, architecture: &Architecture, deepest: usize) {
    let case = case(name);
    for single in [false, true] {
        let target = Target { engine: Engine::Autograd, single };
        let right = compare(&case, &case, target);
        assert!(matches!(right, Ok(Checked::Compared { within: true, .. })), "{name} as it is: {right:?}");
    }
    let convolutions = architecture.iter().filter(|(key, shape)| shape.len() == 4 && key.ends_with("weight"));
    let used = convolutions.filter(|(key, _)| layer(key).is_none_or(|layer| layer <= deepest));
    for (position, (key, _)) in used.enumerate() {
        for (single, off) in [(false, Off::Relative(1e-3)), (true, Off::Absolute(1e-3))] {
            if single && position > 0 {
                continue;
            }
            let wrong = with_one_weight_off(&case, &["pretrained"], architecture, key, 0.5, off);
            let trusted = if single { &case } else { &wrong };
            let result = compare(&wrong, trusted, Target { engine: Engine::Autograd, single });
            std::fs::remove_file(wrong.option("pretrained").unwrap()).unwrap();
            assert!(
                matches!(result, Ok(Checked::Compared { within: false, .. })),
                "{name} with `{key}` off by {off:?}: {result:?}"
            );
        }
    }
}

/// The layer of the tensor `key`: 8 of `features.8.weight`.
fn layer(key: &str) -> Option<usize> {
    key.split('.').nth(1)?.parse().ok()
}

#[test]
fn a_vgg_with_one_weight_off_is_refused() {
    convolutions_count("vgg11_no_norm_mse", &VggType::Vgg11.architecture(), 8);
}

#[test]
fn a_light_cnn_with_one_weight_off_is_refused() {
    convolutions_count("light_cnn_mse", &LightCnn::architecture(), 3);
}
