//! The losses over LightCNN, ArcFace's network, CLIP, LPIPS's and DISTS's backbones with seeded parameters, with options
//! drawn. The including test names the engine. Hand values are the reference's: MMagic's, and the packages' of LPIPS and
//! DISTS.

use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use image_losses_core::{Differentiable, Result, Tensor};
use image_losses_laws::{Hand, Lawful, Network, Rank, Takes, Weight, general};
use image_losses_perceptual::checkpoint::Checkpoint;
use image_losses_perceptual::networks::{ClipShape, IrDepth, IrMode, IrNet, LightCnn, SqueezeNet, Tokens, VggType};
use image_losses_perceptual::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ENGINE;

/// The seed of the reference's parameters.
const SEED: u64 = 7;

/// Drawn once: a seeded checkpoint draws at every reading, which takes as long as the network.
fn seeded(architecture: &[(String, Vec<usize>)]) -> Weights {
    let drawn = Checkpoint::seeded(architecture, SEED).unwrap();
    let entries = drawn.iter().map(|(name, entry)| (name.to_owned(), entry.shape().to_vec(), entry.to_f32().unwrap()));
    Checkpoint::from_entries(entries.collect::<Vec<_>>()).unwrap().into()
}

/// Losses by their options: their networks' parameters are converted and prepared once, not at each evaluation.
struct Built<O, L>(Mutex<Vec<(O, Arc<L>)>>);

impl<O: Clone + PartialEq, L> Built<O, L> {
    /// Losses that are kept: a law changes options a few at a time, and a loss may take half a gigabyte.
    const KEPT: usize = 4;

    const fn new() -> Self {
        Built(Mutex::new(Vec::new()))
    }

    /// The loss of these options.
    fn get(&self, options: &O, new: impl FnOnce(O) -> Result<L>) -> Result<Arc<L>> {
        let mut built = self.0.lock().unwrap();
        if let Some((_, loss)) = built.iter().find(|(known, _)| known == options) {
            return Ok(Arc::clone(loss));
        }
        let loss = Arc::new(new(options.clone())?);
        if built.len() == Self::KEPT {
            built.remove(0);
        }
        built.push((options.clone(), Arc::clone(&loss)));
        Ok(loss)
    }
}

/// Not 0, which would leave nothing to compare.
fn loss_weight() -> impl Strategy<Value = f64> + Clone {
    prop_oneof![Just(-1.5), Just(0.5), Just(2.0)]
}

/// A file of the workspace with reference values.
fn reference(path: &str) -> Checkpoint {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|root| root.join(path).exists());
    Checkpoint::open(root.expect("the workspace").join(path)).unwrap()
}

fn numbers(reference: &Checkpoint, name: &str) -> Vec<f64> {
    reference.get(name).unwrap().to_f32().unwrap().into_iter().map(f64::from).collect()
}

/// A perfect prediction, whose value is 0, and a reference's value times `factor`, for a loss of two images.
fn against(reference: &Checkpoint, [x, gt]: [&str; 2], factor: f64) -> Vec<Hand<2>> {
    let shape = reference.get(x).unwrap().shape().to_vec();
    let [x, gt] = [numbers(reference, x), numbers(reference, gt)];
    let value = factor * numbers(reference, "value").iter().sum::<f64>();
    let perfect = Hand { shape: shape.clone(), inputs: [gt.clone(), gt.clone()], value: 0.0 };
    vec![perfect, Hand { shape, inputs: [x, gt], value }]
}

/// A loss over a network, of `K` images. An engine of required methods alone has no convolution.
macro_rules! lawful {
    ($loss:ty, $count:literal) => {
        impl Lawful<$count> for $loss {
            fn apply<T: Differentiable>(&self, inputs: [&T; $count], _: Option<&T>) -> Result<T> {
                self.compute(inputs)
            }
            fn apply_plainly<T: Tensor>(&self, inputs: [&T; $count], _: Option<&T>) -> Option<Result<T>> {
                let can_convolve = std::any::type_name::<T>().contains("NdTensor");
                can_convolve.then(|| self.compute(inputs))
            }
        }
    };
}

/// What a loss of two images over a network takes.
const fn two_images(names: [&'static str; 2], network: Network) -> Takes<2> {
    Takes {
        weight: Weight::Absent,
        rank: Rank::Image,
        channels: Some(3),
        symmetric: Some(true),
        network: Some(network),
        ..Takes::new(names)
    }
}

static LIGHT_CNN: LazyLock<Weights> = LazyLock::new(|| seeded(&LightCnn::architecture()));

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct LightCnnLoss(LightCnnFeatureOptions);

impl LightCnnLoss {
    fn compute<T: Tensor>(&self, [pred, gt]: [&T; 2]) -> Result<T> {
        static BUILT: Built<LightCnnFeatureOptions, LightCnnFeatureLoss> = Built::new();
        BUILT.get(&self.0, |options| LightCnnFeatureLoss::new(options, &LIGHT_CNN))?.forward(pred, gt)
    }
}

lawful!(LightCnnLoss, 2);

#[test]
fn light_cnn() {
    let losses =
        (loss_weight(), prop_oneof![Just(Criterion::L1), Just(Criterion::Mse)]).prop_map(|(loss_weight, criterion)| {
            LightCnnLoss(LightCnnFeatureOptions { loss_weight, criterion, pretrained: None, prefix: None })
        });
    let network = Network { size: [9, 17], cases: 3, deep: false, hand: 1e-7, double: 1e-12, single: [2e-5, 2e-2] };
    let takes = Takes { held: [false, true], ..two_images(["pred", "gt"], network) };
    general(&ENGINE, losses, takes, |LightCnnLoss(options)| {
        let file = if options.criterion == Criterion::L1 { "l1" } else { "mse" };
        let reference = reference(&format!("xtask/reference/perceptual/light_cnn_{file}.safetensors"));
        // The reference's weight is 0.1.
        against(&reference, ["input.pred", "input.gt"], options.loss_weight / 0.1)
    });
}

static IR_SE50: LazyLock<Weights> = LazyLock::new(|| seeded(&IrNet::architecture(IrDepth::L50, IrMode::IrSe, true)));

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct IdLoss(FaceIdOptions);

impl IdLoss {
    fn compute<T: Tensor>(&self, [pred, gt]: [&T; 2]) -> Result<T> {
        static BUILT: Built<FaceIdOptions, FaceIdLoss> = Built::new();
        BUILT.get(&self.0, |options| FaceIdLoss::new(options, &IR_SE50))?.forward(pred, gt)
    }
}

lawful!(IdLoss, 2);

#[test]
fn face_id() {
    let losses = loss_weight().prop_map(|loss_weight| {
        let facenet = FaceNetOptions::default();
        IdLoss(FaceIdOptions { loss_weight, facenet })
    });
    let network = Network { size: [20, 30], cases: 1, deep: true, hand: 1e-7, double: 1e-12, single: [2e-5, 2e-2] };
    let takes = Takes { held: [false, true], ..two_images(["pred", "gt"], network) };
    general(&ENGINE, losses, takes, |IdLoss(options)| {
        let reference = reference("xtask/reference/perceptual/face_id_128.safetensors");
        against(&reference, ["input.pred", "input.gt"], options.loss_weight / 0.8)
    });
}

/// The architecture of the reference's small model.
const CLIP: ClipShape = ClipShape {
    embed_dim: 32,
    image_resolution: 64,
    vision_layers: 2,
    vision_width: 64,
    vision_patch_size: 16,
    context_length: 16,
    vocab_size: 100,
    transformer_width: 64,
    transformer_layers: 2,
};

static CLIP_WEIGHTS: LazyLock<Weights> = LazyLock::new(|| seeded(&CLIP.architecture()));
static CLIP_REFERENCE: LazyLock<Checkpoint> =
    LazyLock::new(|| reference("xtask/reference/perceptual/clip_small.safetensors"));
/// The reference's text.
static TEXT: LazyLock<Tokens> = LazyLock::new(|| {
    let ids = numbers(&CLIP_REFERENCE, "input.text");
    Tokens::from_ids(vec![ids.into_iter().map(|id| id as u32).collect()]).unwrap()
});

/// The loss of an image for the reference's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct ImageForText(ClipOptions);

impl ImageForText {
    fn compute<T: Tensor>(&self, [image]: [&T; 1]) -> Result<T> {
        static BUILT: Built<ClipOptions, ClipLoss> = Built::new();
        BUILT.get(&self.0, |options| ClipLoss::new(options, &CLIP_WEIGHTS))?.forward(image, &TEXT)
    }
}

lawful!(ImageForText, 1);

#[test]
fn clip() {
    let losses = loss_weight().prop_map(|loss_weight| {
        let clip_model = ClipModelOptions { in_size: 128, pool_size: 64, scale_factor: 4, ..Default::default() };
        ImageForText(ClipOptions { loss_weight, clip_model })
    });
    let takes = Takes {
        weight: Weight::Absent,
        rank: Rank::Image,
        channels: Some(3),
        network: Some(Network {
            size: [128; 2],
            cases: 3,
            deep: false,
            hand: 1e-7,
            double: 1e-12,
            single: [2e-5, 1e-4],
        }),
        ..Takes::new(["image"])
    };
    general(&ENGINE, losses, takes, |ImageForText(options)| {
        let (images, values) = (numbers(&CLIP_REFERENCE, "input.image"), numbers(&CLIP_REFERENCE, "value"));
        let images = images.chunks(images.len() / values.len()).zip(values);
        let hand = |(image, value): (&[f64], f64)| Hand {
            shape: vec![1, 3, 128, 128],
            inputs: [image.to_vec()],
            value: options.loss_weight / 0.9 * value,
        };
        images.map(hand).collect()
    });
}

/// The backbones of LPIPS and DISTS.
static ALEX_NET: LazyLock<Weights> = LazyLock::new(|| seeded(&networks::AlexNet::architecture()));
static SQUEEZE_NET: LazyLock<Weights> = LazyLock::new(|| seeded(&SqueezeNet::architecture()));
static VGG_16: LazyLock<Weights> = LazyLock::new(|| seeded(&VggType::Vgg16.architecture()));

/// The trained weights that stand beside reference values.
fn trained(file: &str) -> Weights {
    let reference = reference(&format!("perceptual/tests/data_lpips/{file}.safetensors"));
    let known = ["input.", "grad.", "value", "cotangent"];
    let entries = reference.iter().filter(|(name, _)| !known.iter().any(|prefix| name.starts_with(prefix)));
    let entries: Vec<_> =
        entries.map(|(name, entry)| (name.to_owned(), entry.shape().to_vec(), entry.to_f32().unwrap())).collect();
    if entries.is_empty() { Weights::default() } else { Checkpoint::from_entries(entries).unwrap().into() }
}

/// Every backbone and way of [`Lpips`], by the reference file that has it.
fn lpips_ways() -> Vec<(&'static str, LpipsOptions)> {
    let of = |net| LpipsOptions { net, ..LpipsOptions::default() };
    vec![
        ("lpips_alex", of(LpipsNet::Alex)),
        ("lpips_alex_v0.0", LpipsOptions { version: LpipsVersion::V0_0, ..of(LpipsNet::Alex) }),
        ("lpips_vgg", of(LpipsNet::Vgg)),
        ("lpips_squeeze", of(LpipsNet::Squeeze)),
        ("lpips_squeeze_spatial", LpipsOptions { spatial: true, normalize: true, ..of(LpipsNet::Squeeze) }),
        ("lpips_squeeze_baseline", LpipsOptions { lpips: false, ..of(LpipsNet::Squeeze) }),
    ]
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct LpipsLoss(LpipsOptions);

impl LpipsLoss {
    /// The reference file of these options.
    fn file(&self) -> &'static str {
        let unweighted = LpipsOptions { loss_weight: 1.0, ..self.0.clone() };
        lpips_ways().into_iter().find(|(_, options)| *options == unweighted).expect("one of the ways").0
    }

    fn compute<T: Tensor>(&self, [prediction, target]: [&T; 2]) -> Result<T> {
        static BUILT: Built<LpipsOptions, Lpips> = Built::new();
        let backbone = match self.0.net {
            LpipsNet::Alex => &ALEX_NET,
            LpipsNet::Squeeze => &SQUEEZE_NET,
            LpipsNet::Vgg => &VGG_16,
        };
        let loss = BUILT.get(&self.0, |options| Lpips::new(options, backbone, &trained(self.file())))?;
        loss.forward(prediction, target)
    }
}

lawful!(LpipsLoss, 2);

#[test]
fn lpips() {
    let losses = (loss_weight(), prop::sample::select(lpips_ways()))
        .prop_map(|(loss_weight, (_, options))| LpipsLoss(LpipsOptions { loss_weight, ..options }));
    let network = Network { size: [33, 35], cases: 4, deep: false, hand: 1e-7, double: 1e-12, single: [2e-5, 2e-2] };
    let takes = two_images(["prediction", "target"], network);
    general(&ENGINE, losses, takes, |loss| {
        let reference = reference(&format!("perceptual/tests/data_lpips/{}.safetensors", loss.file()));
        against(&reference, ["input.prediction", "input.target"], loss.0.loss_weight)
    });
}

static DISTS_WEIGHTS: LazyLock<Weights> = LazyLock::new(|| trained("dists"));

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct DistsLoss(DistsOptions);

impl DistsLoss {
    fn compute<T: Tensor>(&self, [prediction, target]: [&T; 2]) -> Result<T> {
        static BUILT: Built<DistsOptions, Dists> = Built::new();
        BUILT.get(&self.0, |options| Dists::new(options, &VGG_16, &DISTS_WEIGHTS))?.forward(prediction, target)
    }
}

lawful!(DistsLoss, 2);

#[test]
fn dists() {
    let losses = loss_weight().prop_map(|loss_weight| DistsLoss(DistsOptions { loss_weight, ..Default::default() }));
    let network = Network { size: [9, 11], cases: 1, deep: false, hand: 1e-7, double: 1e-12, single: [2e-5, 2e-2] };
    // The derivative of a similarity divides squares of squares.
    let takes = Takes { huge: [1e30, 1e8], ..two_images(["prediction", "target"], network) };
    general(&ENGINE, losses, takes, |DistsLoss(options)| {
        let reference = reference("perceptual/tests/data_lpips/dists.safetensors");
        against(&reference, ["input.prediction", "input.target"], options.loss_weight)
    });
}
