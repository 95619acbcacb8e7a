//! The perceptual losses on frozen networks: forward, and backward to the image.

use std::collections::BTreeMap;
use std::path::PathBuf;

use image_losses::Error;
use image_losses::autograd::{AgTensor, run as graph};
use image_losses::core::kernels::Array;
use image_losses::core::{Differentiable, Tensor};
use image_losses::ndarray::NdTensor;
use image_losses::perceptual::checkpoint::Checkpoint;
use image_losses::perceptual::networks::{Architecture, ClipShape, IrDepth, IrMode, IrNet, LightCnn, Tokens, VggType};
use image_losses::perceptual::{
    ClipLoss, ClipOptions, FaceIdLoss, FaceIdOptions, LightCnnFeatureLoss, LightCnnFeatureOptions, PerceptualLoss,
    PerceptualOptions, Target, Weights,
};
use ndarray::ArrayD;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::json;

use super::pointwise::stop;
use super::subject::{Case, Contestant, Gradient, Output, Subject, Work, uniform};
use crate::Stop;
use crate::command::root;

/// The perceptual loss' images.
const VGG_SHAPES: [[usize; 4]; 2] = [[1, 3, 256, 256], [4, 3, 192, 192]];
/// The face loss' images.
const LIGHT_CNN_SHAPES: [[usize; 4]; 2] = [[1, 3, 128, 128], [8, 3, 128, 128]];
/// CLIP's images, as its tower takes them.
const CLIP_SHAPES: [[usize; 4]; 2] = [[1, 3, 224, 224], [4, 3, 224, 224]];
/// Portraits as FFHQ aligns them, of whose faces IR-SE50 takes 112×112 pixels.
const FACE_SHAPES: [[usize; 4]; 1] = [[4, 3, 256, 256]];
/// The layers compared (before their ReLU: 2, 7, 16, 25, 34 in torchvision's order) and their weights.
pub(crate) const VGG_LAYERS: [(usize, f64); 5] = [(2, 0.1), (7, 0.1), (16, 1.0), (25, 1.0), (34, 1.0)];
/// How far value and gradient may be from the peer's: ReLU, pooling and l1 have kinks, where rounding picks the side.
const TOLERANCE: [f64; 2] = [1e-4, 1e-2];
/// What the parameters are made from.
const SEED: u64 = 7;

/// Each loss and shape, the target as images and, for VGG, as features that are known already.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in VGG_SHAPES {
        for is_cached in [false, true] {
            cases.push(Case::new(name("vgg19", shape, is_cached), move |name| vgg(name, shape, is_cached)));
        }
    }
    for shape in CLIP_SHAPES {
        cases.push(Case::new(name("clip_vit_b_32", shape, false), move |name| clip(name, shape)));
    }
    for shape in FACE_SHAPES {
        cases.push(Case::new(name("ir_se50", shape, false), move |name| face(name, shape)));
    }
    for shape in LIGHT_CNN_SHAPES {
        cases.push(Case::new(name("light_cnn", shape, false), move |name| light_cnn(name, shape)));
    }
    cases
}

fn name(network: &str, [n, c, h, w]: [usize; 4], is_cached: bool) -> String {
    let cached = if is_cached { "_cached_target" } else { "" };
    format!("networks/{network}{cached} {n}×{c}×{h}×{w}")
}

/// The perceptual loss between two images, each of which is the same in every run.
#[derive(Clone)]
pub(crate) struct VggLoss {
    loss: PerceptualLoss,
    images: [ArrayD<f32>; 2],
}

impl VggLoss {
    pub(crate) fn new(checkpoint: Checkpoint, shape: [usize; 4]) -> Result<Self, Stop> {
        let options = PerceptualOptions {
            layer_weights: VGG_LAYERS.iter().map(|(layer, weight)| (layer.to_string(), *weight)).collect(),
            style_weight: 0.0,
            norm_img: false,
            ..PerceptualOptions::default()
        };
        let loss = PerceptualLoss::new(options, &Weights::Checkpoint(checkpoint)).map_err(stop)?;
        Ok(VggLoss { loss, images: images(&shape) })
    }

    /// Value and gradient without an engine.
    pub(crate) fn plain(&self) -> Result<Output, Stop> {
        self.compare(Target::Images(array(&self.images[1]).data))
    }

    fn compare(&self, target: Target<'_>) -> Result<Output, Stop> {
        let found = self.loss.value_and_gradient(array(&self.images[0]), target).map_err(stop)?;
        Ok(output(found.perceptual.unwrap_or(f32::NAN), found.gradient))
    }

    /// Value and gradient as a graph.
    pub(crate) fn on_autograd(&self) -> Result<Output, Stop> {
        on_autograd(&self.images, |x, gt| {
            let terms = self.loss.forward(x, gt)?;
            Ok(terms.total()?.unwrap_or_else(|| x.clone()))
        })
    }
}

fn vgg(name: &str, shape: [usize; 4], is_cached: bool) -> Result<Subject, Stop> {
    let (checkpoint, weights) = seeded("vgg19", &VggType::Vgg19.architecture())?;
    let loss = VggLoss::new(checkpoint, shape)?;
    let tensors = tensors(loss.images.clone());
    let contestants = if is_cached {
        let features = loss.loss.target_features(array(&loss.images[1])).map_err(stop)?;
        vec![Contestant::new("plain", move || loss.compare(Target::Features(&features)))]
    } else {
        let plain = loss.clone();
        vec![Contestant::new("plain", move || plain.plain()), Contestant::new("autograd", move || loss.on_autograd())]
    };
    Ok(Subject {
        name: name.to_owned(),
        description: json!({
            "kind": "vgg19", "wanted": "prediction", "weights": weights, "layers": VGG_LAYERS, "cached": is_cached,
        }),
        tensors,
        work: Work::Arithmetic(vgg_operations(shape) * if is_cached { 2.0 } else { 3.0 }),
        contestants,
        tolerance: TOLERANCE,
    })
}

fn light_cnn(name: &str, shape: [usize; 4]) -> Result<Subject, Stop> {
    let (checkpoint, weights) = seeded("light_cnn", &LightCnn::architecture())?;
    let options = LightCnnFeatureOptions::default();
    let loss = LightCnnFeatureLoss::new(options, &Weights::Checkpoint(checkpoint)).map_err(stop)?;
    let images = images(&shape);
    let (plain, recorded, bound) = (loss.clone(), loss.clone(), loss);
    let (plain_images, recorded_images, bound_images) = (images.clone(), images.clone(), images.clone());
    let contestants = vec![
        Contestant::new("plain", move || {
            let [x, gt] = plain_images.each_ref().map(array);
            let (value, gradient) = plain.value_and_gradient(x, Target::Images(gt.data)).map_err(stop)?;
            Ok(output(value, gradient))
        }),
        Contestant::new("ndarray graph", move || on_arrays(&recorded_images, |x, gt| recorded.forward(x, gt))),
        Contestant::new("autograd", move || on_autograd(&bound_images, |x, gt| bound.forward(x, gt))),
    ];
    Ok(Subject {
        name: name.to_owned(),
        description: json!({ "kind": "light_cnn", "wanted": "prediction", "weights": weights }),
        tensors: tensors(images),
        work: Work::Arithmetic(light_cnn_operations(shape) * 3.0),
        contestants,
        tolerance: TOLERANCE,
    })
}

/// CLIP's image tower with the embedding of a text that is known; enlarging and averaging cancel at this size.
fn clip(name: &str, shape: [usize; 4]) -> Result<Subject, Stop> {
    let (checkpoint, weights) = seeded("clip_vit_b_32", &ClipShape::VIT_B_32.architecture())?;
    let mut options = ClipOptions::default();
    options.clip_model.in_size = shape[2];
    let loss = ClipLoss::new(options, &Weights::Checkpoint(checkpoint)).map_err(stop)?;
    let tokens = Tokens::tokenize(&["a happy face"], ClipShape::VIT_B_32.context_length).map_err(stop)?;
    let text = loss.bind::<NdTensor<'_, f32>>(&()).and_then(|bound| bound.encode_text(&tokens)).map_err(stop)?;
    let [image, _] = images(&shape);
    let embeddings = text.tensors().next().ok_or("no embedding of the text")?;
    let images = [image, embeddings.clone().into_array()];
    let tensors = tensors(images.clone());
    let layers = ClipShape::VIT_B_32;
    let places = (layers.image_resolution / layers.vision_patch_size).pow(2) + 1;
    let width = layers.vision_width;
    // Per layer: four projections and the two of the wide layer (4 times the width), and attention over all places.
    let per_place = 12 * width * width + 2 * places * width;
    let operations = 2 * shape[0] * places * layers.vision_layers * per_place;
    let (recorded, recorded_text, recorded_images) = (loss.clone(), text.clone(), images.clone());
    Ok(Subject {
        name: name.to_owned(),
        description: json!({ "kind": "clip", "wanted": "prediction", "weights": weights }),
        tensors,
        work: Work::Arithmetic(2.0 * operations as f64),
        contestants: vec![
            Contestant::new("ndarray graph", move || {
                on_arrays(&recorded_images, |image, embeddings| {
                    let text = recorded_text.map(|_| Ok(embeddings.clone()))?;
                    recorded.bind(&())?.forward_with(image, &text)?.mean_all()
                })
            }),
            Contestant::new("autograd", move || {
                on_autograd(&images, |image, embeddings| {
                    let text = text.map(|_| Ok(embeddings.clone()))?;
                    loss.bind(&image.context())?.forward_with(image, &text)?.mean_all()
                })
            }),
        ],
        tolerance: TOLERANCE,
    })
}

/// The identity loss between portraits, of which the network takes 112×112 pixels.
fn face(name: &str, shape: [usize; 4]) -> Result<Subject, Stop> {
    let architecture = IrNet::architecture(IrDepth::L50, IrMode::IrSe, true);
    let (checkpoint, weights) = seeded("ir_se50", &architecture)?;
    let loss = FaceIdLoss::new(FaceIdOptions::default(), &Weights::Checkpoint(checkpoint)).map_err(stop)?;
    let images = images(&shape);
    let tensors = tensors(images.clone());
    let (recorded, recorded_images) = (loss.clone(), images.clone());
    Ok(Subject {
        name: name.to_owned(),
        description: json!({ "kind": "ir_se50", "wanted": "prediction", "weights": weights }),
        tensors,
        // 6.3 thousand million multiplications and additions for a face of 112×112.
        work: Work::Arithmetic(2.0 * 6.3e9 * shape[0] as f64 * 3.0),
        contestants: vec![
            Contestant::new("ndarray graph", move || on_arrays(&recorded_images, |x, gt| recorded.forward(x, gt))),
            Contestant::new("autograd", move || on_autograd(&images, |x, gt| loss.forward(x, gt))),
        ],
        tolerance: TOLERANCE,
    })
}

/// The value and the gradient by the first image, recorded on arrays.
fn on_arrays<'i>(
    images: &'i [ArrayD<f32>; 2],
    loss: impl Fn(&NdTensor<'i, f32>, &NdTensor<'i, f32>) -> Result<NdTensor<'i, f32>, Error>,
) -> Result<Output, Stop> {
    let [x, gt] = images.each_ref().map(|image| NdTensor::view(image.view()));
    let x = x.leaf().map_err(stop)?;
    let value = loss(&x, &gt).map_err(stop)?;
    let gradient = NdTensor::gradients(&value, &[&x], false).map_err(stop)?.pop().flatten().ok_or("no gradient")?;
    Ok(output(value.item().map_err(stop)?, gradient.into_array().into_raw_vec_and_offset().0))
}

/// The value and the gradient by the first image, in one evaluation of a graph.
fn on_autograd(
    images: &[ArrayD<f32>; 2],
    loss: impl for<'g> Fn(&AgTensor<'g, f32>, &AgTensor<'g, f32>) -> Result<AgTensor<'g, f32>, Error>,
) -> Result<Output, Stop> {
    graph::<f32, _>(|session| {
        let [x, gt] = images.each_ref().map(|image| session.placeholder(image.shape()));
        let value = loss(&x, &gt)?;
        let gradients = Differentiable::gradients(&value, &[&x], false)?;
        let gradient = gradients.first().and_then(Option::as_ref).unwrap_or(&x);
        let feeds = [(&x, array(&images[0]).data), (&gt, array(&images[1]).data)];
        let mut results = session.evaluate_with(&feeds, &[&value, gradient])?.into_iter();
        let value = results.next().and_then(|value| value.first().copied()).unwrap_or(f32::NAN);
        Ok(output(value, results.next().unwrap_or_default()))
    })
    .map_err(stop)
}

fn output(value: f32, gradient: Vec<f32>) -> Output {
    Output { value: f64::from(value), gradient: Gradient::Values(gradient) }
}

fn array(array: &ArrayD<f32>) -> Array<'_, f32> {
    Array { shape: array.shape(), data: array.as_slice().unwrap_or_default() }
}

fn images(shape: &[usize]) -> [ArrayD<f32>; 2] {
    [uniform(shape, 1, 0.0, 1.0), uniform(shape, 2, 0.0, 1.0)]
}

fn tensors([prediction, target]: [ArrayD<f32>; 2]) -> BTreeMap<&'static str, ArrayD<f32>> {
    [("prediction", prediction), ("target", target)].into()
}

/// Parameters from a seed, and the file that the peer reads them from.
pub(crate) fn seeded(network: &str, architecture: &Architecture) -> Result<(Checkpoint, PathBuf), Stop> {
    let checkpoint = Checkpoint::seeded(architecture, SEED).map_err(stop)?;
    let folder = root().join("target").join("bench");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let file = folder.join(format!("{network}.safetensors"));
    let mut tensors = Vec::new();
    for (name, entry) in checkpoint.iter() {
        let bytes: Vec<u8> = entry.to_f32().map_err(stop)?.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((name, entry.shape().to_vec(), bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| error.to_string())?;
    serialize_to_file(views, None, &file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((checkpoint, file))
}

/// Operations of one run of VGG-19 to its last convolution, the last one compared.
fn vgg_operations([n, _, h, w]: [usize; 4]) -> f64 {
    // Per block: channels in, channels out, convolutions, halvings before it; .
    let blocks = [(3, 64, 2, 0), (64, 128, 2, 1), (128, 256, 4, 2), (256, 512, 4, 3), (512, 512, 4, 4)];
    let count = |(from, to, convolutions, halvings): (usize, usize, usize, u32)| {
        let pixels = n * (h >> halvings) * (w >> halvings);
        let channels = from * to + (convolutions - 1) * to * to;
        (2 * 9 * pixels * channels) as f64
    };
    blocks.into_iter().map(count).sum()
}

/// Operations of one run of LightCNN-9's convolutional part.
fn light_cnn_operations([n, _, h, w]: [usize; 4]) -> f64 {
    // Channels in, channels out, kernel, halvings before it.
    let convolutions = [
        (3, 96, 5, 0),
        (48, 96, 1, 1),
        (48, 192, 3, 1),
        (96, 192, 1, 2),
        (96, 384, 3, 2),
        (192, 384, 1, 3),
        (192, 256, 3, 3),
        (128, 256, 1, 3),
        (128, 256, 3, 3),
    ];
    let count = |(from, to, kernel, halvings): (usize, usize, usize, u32)| {
        (2 * n * h.div_ceil(1 << halvings) * w.div_ceil(1 << halvings) * from * to * kernel * kernel) as f64
    };
    convolutions.into_iter().map(count).sum()
}
