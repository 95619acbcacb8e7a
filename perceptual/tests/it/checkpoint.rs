//! Files written by PyTorch (`xtask/scripts/make_checkpoints.py`), read and compared exactly.

use std::collections::BTreeMap;
use std::path::PathBuf;

use image_losses_core::Error;
use image_losses_perceptual::checkpoint::{Checkpoint, Strictness};

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect()
}

#[derive(serde::Deserialize)]
struct Expected {
    format: String,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(serde::Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    values: Vec<f64>,
}

fn expected() -> BTreeMap<String, Expected> {
    let text = std::fs::read(data("expected.json")).expect("the expected values are in the repository");
    serde_json::from_slice(&text).expect("they are as the script writes them")
}

fn shapes(names: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    names.iter().map(|&(name, shape)| (name.to_owned(), shape.to_vec())).collect()
}

#[test]
fn every_format_gives_what_pytorch_reads() {
    let files = expected();
    assert!(files.len() >= 20, "only {} files", files.len());
    for (name, file) in files {
        let from_memory = Checkpoint::from_bytes(&*name, std::fs::read(data(&name)).unwrap()).unwrap();
        for checkpoint in [Checkpoint::open(data(&name)).unwrap(), from_memory] {
            assert_eq!(checkpoint.format().to_string(), file.format, "{name}");
            let names: Vec<_> = checkpoint.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), file.tensors.len(), "{name}: {names:?}");
            for (tensor, expected) in &file.tensors {
                let entry = checkpoint.get(tensor).unwrap_or_else(|| panic!("{name}: no {tensor} among {names:?}"));
                assert_eq!(entry.shape(), expected.shape, "{name}: {tensor}");
                assert_eq!(entry.dtype().to_string(), expected.dtype, "{name}: {tensor}");
                let values = entry.to_f32().unwrap();
                // serde_json may miss a double's last bit, never a float's.
                let expected: Vec<f32> = expected.values.iter().map(|&value| value as f32).collect();
                assert_eq!(values, expected, "{name}: {tensor}");
                assert_eq!(values.len(), entry.elements(), "{name}: {tensor}");
            }
        }
    }
}

#[test]
fn the_extension_says_nothing() {
    let path = std::env::temp_dir().join(format!("image-losses-checkpoint-{}.safetensors", std::process::id()));
    std::fs::copy(data("legacy.pth"), &path).unwrap();
    let opened = Checkpoint::open(&path);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(opened.unwrap().format().to_string(), "legacy .pth");
}

#[test]
fn files_of_other_machines_and_whole_modules_are_refused() {
    for (name, why) in [
        ("refused_big_endian.pth", "big-endian"),
        ("refused_big_endian_legacy.pth", "big-endian"),
        ("refused_module.pth", "`torch.nn.modules.linear.Linear`"),
        ("expected.json", "neither safetensors nor"),
    ] {
        match Checkpoint::open(data(name)) {
            Err(Error::Format { path, message }) => {
                assert!(path.ends_with(name) && message.contains(why), "{name}: {message}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(matches!(Checkpoint::open(data("no such file")), Err(Error::Io { .. })));
    assert!(matches!(Checkpoint::open(data("")), Err(Error::Io { .. } | Error::Format { .. })));
}

#[test]
fn loading_checks_names_shapes_and_types() {
    let checkpoint = Checkpoint::open(data("zip_training.pth")).unwrap();
    let all: Vec<_> = checkpoint.iter().map(|(name, entry)| (name.to_owned(), entry.shape().to_vec())).collect();
    let floats: Vec<_> = all.iter().filter(|(name, _)| name != "first.input_resolution").cloned().collect();

    // A whole number is no parameter, unless it is batch norm's counter; that may also be left out or be too many.
    let counter = "first.norm.num_batches_tracked";
    assert!(floats.iter().any(|(name, _)| name == counter));
    let weights = checkpoint.load("net", &floats, Strictness::IgnoreUnexpected).unwrap();
    assert_eq!(weights.len(), floats.len());
    assert_eq!(weights["layers.0.bias"], checkpoint.get("layers.0.bias").unwrap().to_f32().unwrap());
    match checkpoint.load("net", &floats, Strictness::Strict) {
        Err(Error::CheckpointMismatch { path, network, missing, unexpected, mismatched }) => {
            assert!(path.ends_with("zip_training.pth") && network == "net");
            assert!(missing.is_empty() && mismatched.is_empty());
            assert_eq!(unexpected, ["first.input_resolution"]);
        }
        other => panic!("{other:?}"),
    }

    let mut wrong: Vec<_> = all.iter().filter(|(name, _)| name != counter).cloned().collect();
    wrong.iter_mut().find(|(name, _)| name == "layers.0.bias").unwrap().1 = vec![1, 3];
    wrong.push(("layers.9.weight".to_owned(), vec![1]));
    wrong.push(("layers.9.num_batches_tracked".to_owned(), vec![]));
    match checkpoint.load("net", &wrong, Strictness::default()) {
        Err(Error::CheckpointMismatch { missing, unexpected, mismatched, .. }) => {
            assert_eq!(missing, ["layers.9.weight"]);
            assert!(unexpected.is_empty(), "{unexpected:?}");
            assert_eq!(mismatched.len(), 2, "{mismatched:?}");
            assert!(mismatched.iter().any(|text| text == "layers.0.bias: needs [1, 3], has [3]"), "{mismatched:?}");
            assert!(mismatched.iter().any(|text| text.contains("input_resolution: needs a floating-point type")));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_in_memory() {
    let entry = |name: &str, values: &[f32]| (name.to_owned(), vec![values.len()], values.to_vec());
    let checkpoint =
        Checkpoint::from_entries([entry("module.module.b", &[1.0]), entry("module.module.a", &[2.0, 3.0])]);
    let checkpoint = checkpoint.unwrap();
    assert_eq!(checkpoint.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(checkpoint.get("a").unwrap().to_f32().unwrap(), [2.0, 3.0]);
    // A wrapper's part comes off wherever it stands, unless two names would become one.
    let partly = Checkpoint::from_entries([entry("x.module.b", &[1.0]), entry("a", &[2.0])]).unwrap();
    assert!(partly.get("x.b").is_some() && partly.get("a").is_some());
    assert!(matches!(Checkpoint::from_entries([entry("a", &[1.0]), entry("a", &[1.0])]), Err(Error::Format { .. })));
    assert!(matches!(
        Checkpoint::from_entries([("a".to_owned(), vec![2, 2], vec![0.0; 3])]),
        Err(Error::Length { expected: 4, got: 3, .. })
    ));
}

/// The bits come from the scheme's text, worked out apart from this crate in Python:
///
/// ```python
/// s = fnv1a64(key) ^ seed; s += 0x9e3779b97f4a7c15; z = s
/// z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9; z = (z ^ z >> 27) * 0x94d049bb133111eb; z ^= z >> 31   # mod 2**64
/// u = (z >> 40) / 2**24; struct.pack("<f", (2*u - 1) * math.sqrt(6 / 27))                       # and so on
/// ```
#[test]
fn seeded_parameters_are_those_of_the_scheme() {
    for (name, shape, seed, bits) in [
        ("features.0.weight", vec![64, 3, 3, 3], 0, [0x3eab_bb0a, 0x3ccc_3687, 0x3e06_9412]),
        ("features.0.bias", vec![64], 0, [0xbd15_1b00, 0x3c60_cd40, 0x3d94_e55e]),
        ("features.1.weight", vec![64], 7, [0x3f0b_2688, 0x3f28_7f64, 0x3f7d_2c44]),
        ("features.1.running_var", vec![64], 7, [0x3fab_a2c7, 0x3f2a_78c1, 0x3f6e_8dae]),
    ] {
        let checkpoint = Checkpoint::seeded(&shapes(&[(name, &shape)]), seed).unwrap();
        let values = checkpoint.get(name).unwrap().to_f32().unwrap();
        assert_eq!(values.len(), shape.iter().product::<usize>());
        assert_eq!(values[..3], bits.map(f32::from_bits), "{name}");
    }
    let scalars = shapes(&[("logit_scale", &[]), ("bn.num_batches_tracked", &[])]);
    let checkpoint = Checkpoint::seeded(&scalars, 7).unwrap();
    let weights = checkpoint.load("scalars", &scalars, Strictness::Strict).unwrap();
    assert_eq!(weights["logit_scale"], [f32::from_bits(0x402a_3151)]);
    assert_eq!(weights["bn.num_batches_tracked"], [0.0]);
    assert!(matches!(Checkpoint::seeded(&shapes(&[("a", &[usize::MAX, 2])]), 0), Err(Error::Format { .. })));
}
