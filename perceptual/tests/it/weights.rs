//! Where weights are looked for: paths, names, the directory, seeds; nothing is made up or fetched.
#![cfg(feature = "vgg")]

use std::path::{Path, PathBuf};

use image_losses_core::{Error, Tensor};
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::networks::VggType;
use image_losses_perceptual::{PerceptualLoss, PerceptualOptions, Weights};

/// A directory that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("image-losses-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    /// A safetensors file with VGG-11's first convolution.
    fn write(&self, name: &str) {
        let (weight, bias) = (64 * 27 * 4, 64 * 4);
        let header = format!(
            r#"{{"features.0.weight":{{"dtype":"F32","shape":[64,3,3,3],"data_offsets":[0,{weight}]}},
            "features.0.bias":{{"dtype":"F32","shape":[64],"data_offsets":[{weight},{}]}}}}"#,
            weight + bias
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + weight + bias, 0);
        std::fs::write(self.0.join(name), bytes).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn load(pretrained: Option<&str>, weights: &Weights) -> Result<PerceptualLoss, Error> {
    let options = PerceptualOptions {
        layer_weights: [("0".to_owned(), 1.0)].into(),
        vgg_type: VggType::Vgg11,
        pretrained: pretrained.map(str::to_owned),
        ..PerceptualOptions::default()
    };
    PerceptualLoss::new(options, weights)
}

#[test]
fn names_are_looked_up() {
    let folder = Folder::new("names");
    let weights = Weights::directory(&folder.0);
    let missing = load(None, &weights).unwrap_err();
    assert!(matches!(&missing, Error::Io { path, .. } if path.ends_with("vgg11")), "{missing}");
    folder.write("vgg11_bn-6002323d.pth");
    folder.write("vgg11-notahash.pth");
    folder.write("vgg11-abc.pth");
    folder.write("vgg11-8a719046.txt");
    assert!(load(None, &weights).is_err(), "another network's file");
    folder.write("vgg11-8a719046.pth");
    load(None, &weights).unwrap();
    load(Some("torchvision://vgg11"), &weights).unwrap();
    load(Some("https://download.pytorch.org/models/vgg11-8a719046.pth"), &weights).unwrap();
    load(Some("https://example.org/vgg11-8a719046.pth?download=1"), &weights).unwrap();
    load(Some("vgg11-8a719046.pth"), &weights).unwrap();
    load(Some(folder.0.join("vgg11-8a719046.pth").to_str().unwrap()), &Weights::default()).unwrap();
    assert!(matches!(load(Some("https://example.org/other.pth"), &weights), Err(Error::Io { .. })));
    assert!(matches!(load(Some("https://example.org/"), &weights), Err(Error::InvalidOption { .. })));
    assert!(matches!(load(None, &Weights::directory(folder.0.join("not there"))), Err(Error::Io { .. })));
    // Names without a scheme: the published one, and a path inside the directory.
    load(Some("vgg11"), &weights).unwrap();
    std::fs::create_dir_all(folder.0.join("sub")).unwrap();
    folder.write("sub/mine.pth");
    load(Some("sub/mine.pth"), &weights).unwrap();
    // A path that is missing is named as it was given, directory or not.
    let missing = folder.0.join("missing.pth");
    for weights in [&weights, &Weights::default()] {
        let refused = load(Some(missing.to_str().unwrap()), weights);
        assert!(matches!(&refused, Err(Error::Io { path, .. }) if *path == missing), "{refused:?}");
    }
    assert!(Path::new(&folder.0).exists());
}

/// torchvision publishes AlexNet as `alexnet-owt-7be5be79.pth`.
#[test]
fn published_names_are_known() {
    let folder = Folder::new("published");
    folder.write("alexnet-other-7be5be79.pth");
    folder.write("alexnet-owt-7be5be7.pth");
    folder.write("vgg11-owt-7be5be79.pth");
    for name in ["torchvision://alexnet", "alexnet"] {
        assert_eq!(Weights::locate(name, Some(&folder.0)), None, "{name}");
    }
    folder.write("alexnet-owt-7be5be79.pth");
    for name in ["torchvision://alexnet", "alexnet", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"] {
        assert_eq!(Weights::locate(name, Some(&folder.0)), Some(folder.0.join("alexnet-owt-7be5be79.pth")), "{name}");
    }
    assert_eq!(Weights::locate("torchvision://vgg11", Some(&folder.0)), None);
}

#[test]
fn seeds_are_asked_for_by_name() {
    load(Some("seeded:7"), &Weights::default()).unwrap();
    for wrong in ["seeded", "seeded:", "seeded:x", "seeded7"] {
        let refused = load(Some(wrong), &Weights::default());
        assert!(matches!(refused, Err(Error::InvalidOption { option: "pretrained", .. })), "{wrong}: {refused:?}");
    }
    // A prefix gives other parameters, those of the names with it.
    let loss = |prefix: Option<&str>| {
        let options = PerceptualOptions {
            layer_weights: [("0".to_owned(), 1.0)].into(),
            vgg_type: VggType::Vgg11,
            prefix: prefix.map(str::to_owned),
            ..PerceptualOptions::default()
        };
        let image = |value: f64| <NdTensor<'static, f64> as Tensor>::constant(&(), &[value; 3], &[1, 3, 1, 1]).unwrap();
        let loss = PerceptualLoss::new(options, &Weights::Seeded(7)).unwrap();
        loss.forward(&image(0.25), &image(0.5)).unwrap().perceptual.unwrap().item().unwrap()
    };
    assert_eq!(loss(Some("")), loss(None));
    assert_eq!(loss(Some("a")), loss(Some("a.")));
    assert!(loss(Some("a")) != loss(None) && loss(Some("a")) != loss(Some("b")));
    // A caller's own choice overrules the configuration.
    load(Some("nowhere.pth"), &Weights::Seeded(1)).unwrap();
}

#[test]
fn without_a_directory_names_are_refused() {
    if std::env::var_os("IMAGE_LOSSES_WEIGHTS").is_some() {
        return;
    }
    assert!(matches!(load(None, &Weights::default()), Err(Error::InvalidOption { option: "pretrained", .. })));
}
