//! The same network through every checkpoint format, written by PyTorch (`xtask/scripts/make_vgg_checkpoints.py`):
//! the losses are the same to the last bit, and those that PyTorch computes.
#![cfg(feature = "vgg")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use half::{bf16, f16};
use image_losses_core::Tensor;
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::checkpoint::Checkpoint;
use image_losses_perceptual::networks::VggType;
use image_losses_perceptual::{PerceptualLoss, PerceptualOptions, Weights};

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data_formats", name].iter().collect()
}

#[derive(serde::Deserialize)]
struct Expected {
    shape: Vec<usize>,
    x: Vec<f64>,
    target: Vec<f64>,
    /// By file, the parameters' type and the format.
    files: BTreeMap<String, (String, String)>,
    /// By type, the perceptual and the style term.
    losses: BTreeMap<String, [f64; 2]>,
}

fn expected() -> Expected {
    let text = std::fs::read(data("expected.json")).expect("the expected values are in the repository");
    serde_json::from_slice(&text).expect("they are as the script writes them")
}

/// Both terms with the parameters of a file.
fn losses(path: &str, expected: &Expected) -> [f64; 2] {
    let options = PerceptualOptions {
        layer_weights: [("0".to_owned(), 1.0)].into(),
        vgg_type: VggType::Vgg11,
        pretrained: Some(path.to_owned()),
        ..PerceptualOptions::default()
    };
    let loss = PerceptualLoss::new(options, &Weights::default()).unwrap_or_else(|error| panic!("{path}: {error}"));
    let tensor = |values: &[f64]| <NdTensor<'static, f64> as Tensor>::constant(&(), values, &expected.shape).unwrap();
    let terms = loss.forward(&tensor(&expected.x), &tensor(&expected.target)).unwrap();
    [terms.perceptual, terms.style].map(|term| term.expect("both terms are on").item().unwrap())
}

#[test]
fn every_format_gives_the_same_losses() {
    let expected = expected();
    let mut bits: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    let mut formats = BTreeSet::new();
    for (name, (dtype, format)) in &expected.files {
        let path = data(name);
        assert_eq!(Checkpoint::open(&path).unwrap().format().to_string(), *format, "{name}");
        formats.insert((format.as_str(), dtype.as_str()));
        let losses = losses(path.to_str().unwrap(), &expected);
        for (loss, torch) in losses.iter().zip(expected.losses[dtype]) {
            assert!((loss - torch).abs() < 1e-12 * torch, "{name}: {loss}, in PyTorch {torch}");
        }
        // Parameters are single: doubles are rounded to the ones that the f32 files hold.
        let group = if dtype == "f64" { "f32" } else { dtype };
        let losses = losses.map(f64::to_bits);
        assert_eq!(*bits.entry(group).or_insert(losses), losses, "{name}: not the bits of the other {group} files");
    }
    assert_eq!(bits.len(), 3, "{bits:?}");
    assert_eq!(bits.values().collect::<BTreeSet<_>>().len(), 3, "rounding to half precision must show: {bits:?}");
    for format in ["safetensors", "zip .pth", "legacy .pth", "tar .pth", "TorchScript"] {
        assert!(formats.contains(&(format, "f32")) && formats.iter().any(|&(f, dtype)| f == format && dtype != "f32"));
    }
}

#[test]
fn half_precision_is_that_of_the_rounded_parameters() {
    let single = Checkpoint::open(data("zip_f32.pth")).unwrap();
    for (file, round) in [
        ("scripted_f16.pt", (|value| f16::from_f32(value).to_f32()) as fn(f32) -> f32),
        ("legacy_f16.pth", |value| f16::from_f32(value).to_f32()),
        ("traced_bf16.pt", |value| bf16::from_f32(value).to_f32()),
        ("plain_bf16.safetensors", |value| bf16::from_f32(value).to_f32()),
    ] {
        let half = Checkpoint::open(data(file)).unwrap();
        for name in ["features.0.weight", "features.0.bias"] {
            let values = single.get(name).unwrap().to_f32().unwrap();
            let rounded: Vec<f32> = values.iter().copied().map(round).collect();
            assert_ne!(rounded, values, "{file}: {name}");
            assert_eq!(half.get(name).unwrap().to_f32().unwrap(), rounded, "{file}: {name}");
        }
    }
}
