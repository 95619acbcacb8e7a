//! Files that training programs leave, written by PyTorch (`xtask/scripts/make_trainer_checkpoints.py`): a file's name
//! says what becomes of it.
#![cfg(feature = "vgg")]

use std::path::PathBuf;

use image_losses_core::{Error, Tensor};
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::checkpoint::{Checkpoint, Strictness};
use image_losses_perceptual::networks::{VggType, located};
use image_losses_perceptual::{PerceptualLoss, PerceptualOptions, Weights};

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data_trainers"].iter().collect()
}

/// The files whose name begins with `outcome`, without that and the ending.
fn files(outcome: &str) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| Some(name(entry).strip_prefix(outcome)?.strip_suffix(".pth")?.to_owned()))
        .collect();
    files.sort();
    files
}

/// The style term over the first convolution: any other parameters give another value.
fn loss(file: &str, prefix: Option<&str>) -> Result<f64, Error> {
    let options = PerceptualOptions {
        layer_weights: [("0".to_owned(), 1.0)].into(),
        vgg_type: VggType::Vgg11,
        pretrained: Some(folder().join(file).to_str().unwrap().to_owned()),
        prefix: prefix.map(str::to_owned),
        ..PerceptualOptions::default()
    };
    let loss = PerceptualLoss::new(options, &Weights::default())?;
    let image = |factor: f64| {
        let values: Vec<f64> = (0..48).map(|i| (f64::from(i) * factor).sin()).collect();
        <NdTensor<'static, f64> as Tensor>::constant(&(), &values, &[1, 3, 4, 4]).unwrap()
    };
    loss.forward(&image(1.0), &image(0.7))?.style.expect("the style term is on").item()
}

#[test]
fn what_stands_beside_the_parameters_is_read_past() {
    let plain = loss("reads_plain.pth", None).unwrap();
    assert!(plain > 0.0);
    let files = files("reads_");
    assert!(files.len() >= 15, "{files:?}");
    for file in files {
        let value = loss(&format!("reads_{file}.pth"), None).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(value.to_bits(), plain.to_bits(), "{file}");
    }
}

#[test]
fn a_network_that_lies_elsewhere_is_named_and_read_with_its_prefix() {
    let plain = loss("reads_plain.pth", None).unwrap();
    let files = files("says_");
    assert_eq!(files.len(), 6, "{files:?}");
    for file in files {
        let path = format!("says_{file}.pth");
        let prefix = file.strip_suffix(".module_legacy").unwrap_or(&file);
        match loss(&path, None) {
            Err(Error::Format { message, .. }) => {
                assert!(message.contains(&format!("`prefix: \"{prefix}\"`")), "{file}: {message}");
            }
            other => panic!("{file}: {other:?}"),
        }
        // With and without the dot at its end.
        for prefix in [prefix.to_owned(), format!("{prefix}.")] {
            let value = loss(&path, Some(&prefix)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(value.to_bits(), plain.to_bits(), "{file}");
        }
        match loss(&path, Some("elsewhere")) {
            Err(Error::Format { message, .. }) => {
                assert!(message.contains("`elsewhere.`") && message.contains("there are `"), "{file}: {message}");
            }
            other => panic!("{file}: {other:?}"),
        }
    }
}

#[test]
fn what_stands_in_a_tensors_place_is_named() {
    for (file, why) in [
        ("refused_object", "features.0.weight: needs a floating-point type, has `some_trainer.logging.History`"),
        ("refused_float8", "features.0.weight: needs a floating-point type, has `torch.float8_e5m2`"),
        ("refused_complex", "features.0.weight: needs a floating-point type, has `torch.ComplexFloatStorage`"),
        ("refused_array", "features.0.weight: needs a floating-point type, has `numpy._core.multiarray._reconstruct`"),
    ] {
        match loss(&format!("{file}.pth"), None) {
            Err(Error::CheckpointMismatch { missing, mismatched, .. }) => {
                assert!(missing.is_empty() && mismatched == [why], "{file}: {missing:?} {mismatched:?}");
            }
            other => panic!("{file}: {other:?}"),
        }
    }
    let refused = loss("refused_history.pth", None).unwrap_err().to_string();
    assert!(refused.contains("an object of `some_trainer.logging.History`"), "{refused}");
    assert_eq!(files("refused_").len(), 5);
}

#[test]
fn wrapped_dictionaries_say_what_was_passed_over() {
    let checkpoint = Checkpoint::open(folder().join("reads_training.pth")).unwrap();
    let wrapping = checkpoint.wrapping();
    assert_eq!(wrapping.dictionaries, ["state_dict"]);
    assert!(wrapping.passed_over.contains(&"`milestones`".to_owned()), "{:?}", wrapping.passed_over);
    let inside = Checkpoint::open(folder().join("reads_compiled_inside.pth")).unwrap();
    assert_eq!(inside.wrapping().prefix, "module._orig_mod.");
    let beside = Checkpoint::open(folder().join("reads_beside_float8.pth")).unwrap();
    assert_eq!(beside.unread(), []);
    let unread = Checkpoint::open(folder().join("refused_object.pth")).unwrap();
    assert_eq!(unread.unread(), [("features.0.weight", "some_trainer.logging.History")]);
}

/// A dictionary of the optimizer's and one of the average beside: each is read by its key.
#[test]
fn every_dictionary_of_a_file_can_be_asked_for() {
    let checkpoint = Checkpoint::open(folder().join("says_vgg.module_legacy.pth")).unwrap();
    assert_eq!(checkpoint.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["w"]);
    let beside: Vec<_> = checkpoint.beside().map(|(name, _)| name).collect();
    assert_eq!(beside, ["vgg.features.0.weight", "vgg.features.0.bias"]);
    for (prefix, names) in [
        ("state_dict", vec!["w"]),
        ("state_dict.", vec!["w"]),
        ("", vec!["w"]),
        ("vgg", vec!["features.0.weight", "features.0.bias"]),
        ("vgg.module", vec!["features.0.weight", "features.0.bias"]),
        ("vgg.features", vec!["0.weight", "0.bias"]),
    ] {
        let part = checkpoint.under(prefix).unwrap();
        assert_eq!(part.iter().map(|(name, _)| name).collect::<Vec<_>>(), names, "{prefix}");
    }
    // Half a name is no prefix.
    assert!(matches!(checkpoint.under("vg"), Err(Error::Format { .. })));
}

#[test]
fn whole_networks_are_located() {
    let named = |prefix: &str, parent: &str| -> Vec<(String, Vec<usize>)> {
        let name = |name: String| format!("{prefix}{}", name.strip_prefix(parent).unwrap_or(&name));
        VggType::Vgg11.architecture().into_iter().map(|(tensor, shape)| (name(tensor), shape)).collect()
    };
    let places = |architecture: &[(String, Vec<usize>)]| -> Vec<(String, String)> {
        let found = located(&Checkpoint::seeded(architecture, 0).unwrap());
        found.into_iter().map(|found| (found.network, found.prefix)).collect()
    };
    let vgg = |prefix: &str| ("vgg11".to_owned(), prefix.to_owned());
    assert_eq!(places(&named("", "")), []);
    assert_eq!(places(&named("generator.", "")), [vgg("generator")]);
    assert_eq!(places(&named("", "features.")), [vgg("")]);
    assert_eq!(places(&named("a.b.", "features.")), [vgg("a.b")]);
    assert_eq!(places(&[named("a.", ""), named("b.", "")].concat()), [vgg("a"), vgg("b")]);
    // A part of a network, or another shape, is none.
    assert_eq!(places(&named("a.", "")[1..]), []);
    let mut other = named("a.", "");
    other[0].1[0] = 65;
    assert_eq!(places(&other), []);
}

#[test]
fn counters_stand_beside_the_modules_and_names_that_would_meet_stay() {
    let entry = |name: &str| (name.to_owned(), vec![1], vec![1.0]);
    let checkpoint = Checkpoint::from_entries([entry("module.a"), entry("a"), entry("x.module.b")]).unwrap();
    assert_eq!(checkpoint.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["module.a", "a", "x.b"]);
    let averaged = Checkpoint::open(folder().join("reads_averaged.pth")).unwrap();
    let needed = [("features.0.weight".to_owned(), vec![64, 3, 3, 3]), ("features.0.bias".to_owned(), vec![64])];
    assert_eq!(averaged.load("first", &needed, Strictness::Strict).unwrap().len(), 2);
}

/// An index of shards reads the files beside it, and no others; a shard says which file to open.
#[test]
fn shards_are_read_through_their_index() {
    let folder = std::env::temp_dir().join(format!("image-losses-shards-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |file: &str, name: &str, values: &[f32]| {
        let header = format!(
            r#"{{"{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}}}}"#,
            values.len(),
            4 * values.len()
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        std::fs::write(folder.join(file), bytes).unwrap();
    };
    write("model-00001-of-00002.safetensors", "conv.weight", &[1.0, 2.0]);
    write("model-00002-of-00002.safetensors", "conv.bias", &[3.0]);
    let index = |map: &str| {
        let path = folder.join("model.safetensors.index.json");
        std::fs::write(&path, format!(r#"{{"metadata": {{"total_size": 12}}, "weight_map": {{{map}}}}}"#)).unwrap();
        Checkpoint::open(path)
    };
    let shard = r#""conv.weight": "model-00001-of-00002.safetensors""#;
    let needed = [("conv.weight".to_owned(), vec![2]), ("conv.bias".to_owned(), vec![1])];
    let whole = index(&format!(r#"{shard}, "conv.bias": "model-00002-of-00002.safetensors""#)).unwrap();
    let loaded = whole.load("conv", &needed, Strictness::Strict).unwrap();
    assert_eq!((loaded["conv.weight"].as_slice(), loaded["conv.bias"].as_slice()), (&[1.0, 2.0][..], &[3.0][..]));

    let alone = Checkpoint::open(folder.join("model-00001-of-00002.safetensors")).unwrap();
    match alone.load("conv", &needed, Strictness::Strict) {
        Err(Error::Format { message, .. }) => assert!(message.contains("`model.safetensors.index.json`"), "{message}"),
        other => panic!("{other:?}"),
    }
    for (map, why) in [
        (r#""a": "../model-00001-of-00002.safetensors""#, "no file beside it"),
        (r#""a": "/etc/passwd""#, "no file beside it"),
        (r#""a": "..""#, "no file beside it"),
        (r#""a": """#, "no file beside it"),
        (r#""a": "missing.safetensors""#, "missing.safetensors"),
        ("", "an index without shards"),
    ] {
        let refused = index(map).unwrap_err().to_string();
        assert!(refused.contains(why), "{map}: {refused}");
    }
    let bytes = format!(r#"{{"weight_map": {{{shard}}}}}"#).into_bytes();
    let refused = Checkpoint::from_bytes("index", bytes).unwrap_err().to_string();
    assert!(refused.contains("an index of shards"), "{refused}");
    std::fs::remove_dir_all(folder).unwrap();
}
