//! The loss of image and text on CLIP.

use std::fmt;
use std::sync::{Arc, OnceLock};

use image_losses_core::NetworkId;
use image_losses_core::config::{Argument, Inputs, Kind, Outcome};
use image_losses_core::frozen_function::{FrozenFunction, applies_to, apply};
use image_losses_core::kernels::Array;
use image_losses_core::{About, Declared, Differentiable, Error, LinearMap, Result, Shape, Tensor, finite};
use image_losses_kernels::once::get_or_try_make;
use image_losses_kernels::vision_transformer::VisionTransformer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::frozen::{Call, Frozen, Kept, Sources};
use crate::lazy::Lazy;
use crate::networks::{
    BoundAffine, BoundClip, ChannelAffine, Clip, ClipActivation, ClipShape, HEAD, Tokens, check_image,
};
use crate::target::TargetFeatures;
use crate::weights::{Request, Weights};

/// OpenAI's models whose image tower is a ResNet.
const RESNETS: [&str; 5] = ["RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"];

/// The network of [`ClipLoss`] and what happens to an image before it.
///
/// | option | meaning | default |
/// |---|---|---|
/// | `in_size` | height and width of the images | 1024 |
/// | `scale_factor` | enlarge so many times first | 7 |
/// | `pool_size` | the size to average down to; `scale_factor`·`in_size` // `pool_size` is the window | 224 |
/// | `clip_type` | the parameters' file, or a published model's name, see [`Weights`] | `ViT-B/32` |
/// | `prefix` | where the model lies in the file, see [`Weights`] | the file as a whole |
/// | `activation` | `quick_gelu`, or the exact `gelu` of most models of OpenCLIP; the file does not tell | `quick_gelu` |
/// | `head_width` | length of a head's vectors in the vision transformer; 80 in OpenCLIP's ViT-H/14; the file does not tell | 64 |
/// | `normalize` | subtract CLIP's mean, divide by its deviation (MMagic does not) | `false` |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClipModelOptions {
    /// Height and width of the images.
    pub in_size: usize,
    /// Enlarge so many times first.
    pub scale_factor: usize,
    /// The size to average down to.
    pub pool_size: usize,
    /// The parameters' file or a published model's name.
    pub clip_type: String,
    /// Where the model lies in the file: the names' part before its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The activation that the model was trained with, which its file does not tell. OpenAI's models have `quick_gelu`,
    /// as those of OpenCLIP whose name ends with `quickgelu`; OpenCLIP's other models have `gelu`. `gelu` is computed by
    /// composed operations on every engine.
    pub activation: ClipActivation,
    /// The length of a head's vectors in the vision transformer, which the file does not tell: 64 in OpenAI's models, 80
    /// in OpenCLIP's ViT-H/14. Heads of the text transformer have 64.
    pub head_width: usize,
    /// Subtract CLIP's mean, divide by its deviation.
    pub normalize: bool,
}

impl Default for ClipModelOptions {
    fn default() -> Self {
        ClipModelOptions {
            in_size: 1024,
            scale_factor: 7,
            pool_size: 224,
            clip_type: "ViT-B/32".into(),
            prefix: None,
            activation: ClipActivation::QuickGelu,
            head_width: HEAD,
            normalize: false,
        }
    }
}

/// Options of [`ClipLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `clip_model` | the network: [`ClipModelOptions`] | ViT-B/32 for 1024×1024 |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClipOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// The network.
    pub clip_model: ClipModelOptions,
}

impl Default for ClipOptions {
    fn default() -> Self {
        ClipOptions { loss_weight: 1.0, clip_model: ClipModelOptions::default() }
    }
}

impl ClipOptions {
    /// The names of the checkpoints that its network is read from, as configured or else as published.
    pub fn checkpoints(&self) -> Vec<String> {
        vec![self.clip_model.clip_type.clone()]
    }

    /// Checks them without reading any weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite, the name of a model whose image tower is a ResNet, a
    /// `head_width` of 0, or sizes that leave no window.
    pub fn validate(&self) -> Result<()> {
        finite(ClipLoss::NAME, "loss_weight", self.loss_weight)?;
        let clip_type = self.clip_model.clip_type.as_str();
        if RESNETS.contains(&clip_type) {
            let expected = format!("a model with a vision transformer ({})", ClipShape::PUBLISHED.join(", "));
            return Err(Error::option(ClipLoss::NAME, "clip_type", expected, clip_type));
        }
        if self.clip_model.head_width == 0 {
            return Err(Error::option(ClipLoss::NAME, "head_width", "at least 1", 0));
        }
        self.window().map(drop)
    }

    /// The averaging window, in enlarged pixels.
    fn window(&self) -> Result<usize> {
        let ClipModelOptions { in_size, scale_factor, pool_size, .. } = self.clip_model;
        match scale_factor.checked_mul(in_size).and_then(|enlarged| enlarged.checked_div(pool_size)) {
            Some(window) if window > 0 => Ok(window),
            _ => {
                let expected = "at most scale_factor·in_size, none of them 0";
                Err(Error::option(ClipLoss::NAME, "pool_size", expected, pool_size))
            }
        }
    }
}

/// How far images are from texts in CLIP's embedding.
///
/// L = λ · (1 − exp(s)·cos(e(xₙ), e(tₘ))/100), an N×M matrix
///
/// e: the frozen embeddings of image and text, s: the model's trained `logit_scale` (exp(s) is 100 in the published
/// models). Before the network, the image is enlarged `scale_factor` times (nearest) and averaged over windows of
/// ⌊`scale_factor`·`in_size`/`pool_size`⌋; both are done as one, so that the enlarged image is never held. As in MMagic
/// and StyleCLIP the image is not normalised as CLIP was trained, unless `normalize` says so.
///
/// # Shapes
/// Image: (N, 3, H, W) that becomes the network's size, 224×224 for ViT-B/32. Text: M rows of token ids. Value: (N, M).
///
/// In [0, 2λ] for λ > 0 and exp(s) = 100. The text carries no gradient; its embedding can be computed once.
///
/// Options: [`ClipOptions`].
///
/// # Errors
/// [`Error::ShapeRule`] for images that do not become the network's size, [`Error::Empty`], [`Error::InvalidOption`] for
/// texts that are too long or ids beyond the vocabulary.
///
/// ```no_run
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_perceptual::networks::Tokens;
/// use image_losses_perceptual::{ClipLoss, ClipOptions, Weights};
/// use ndarray::Array4;
///
/// // Reads ViT-B-32.pt, OpenAI's archive.
/// let loss = ClipLoss::new(ClipOptions::default(), &Weights::directory("weights"))?.bind::<NdTensor<f32>>(&())?;
/// let text = loss.encode_text(&Tokens::tokenize(&["a happy face"], 77)?)?;
/// let image = NdTensor::new(Array4::from_elem((1, 3, 1024, 1024), 0.5));
/// assert_eq!(loss.forward_with(&image, &text)?.shape(), [1, 1]);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: O. Patashnik, Z. Wu, E. Shechtman, D. Cohen-Or, D. Lischinski, "StyleCLIP: Text-Driven Manipulation of
/// StyleGAN Imagery", 2021, section 4; MMagic, `mmagic.models.losses.CLIPLoss`.
#[derive(Clone, Debug)]
pub struct ClipLoss {
    options: ClipOptions,
    network: Clip,
    id: NetworkId,
    fused: Lazy<VisionTransformer>,
}

impl ClipLoss {
    /// The loss with the given options and the network's parameters from `weights`. The network's size is the
    /// checkpoint's; for made-up parameters that of the published `clip_type`, ViT-B/32 if it is none.
    ///
    /// # Errors
    /// As [`ClipOptions::validate`]; [`Error::Io`], [`Error::Format`] or [`Error::CheckpointMismatch`] for weights that
    /// cannot be had or are no CLIP with a vision transformer.
    pub fn new(options: ClipOptions, weights: &Weights) -> Result<Self> {
        options.validate()?;
        let clip_type = &options.clip_model.clip_type;
        let request = Request {
            owner: ClipLoss::NAME,
            option: "clip_type",
            configured: Some(clip_type),
            prefix: options.clip_model.prefix.as_deref(),
            published: clip_type,
        };
        let shape = || ClipShape::published(clip_type).unwrap_or(ClipShape::VIT_B_32);
        let checkpoint = weights.open(&request, || Ok(shape().architecture()))?;
        let ClipModelOptions { activation, head_width, .. } = options.clip_model;
        let network = Clip::load_as(&checkpoint, activation, head_width)?;
        Ok(ClipLoss { options, network, id: NetworkId::unique(), fused: Lazy::default() })
    }

    /// Its options.
    pub fn options(&self) -> &ClipOptions {
        &self.options
    }

    /// The size of its network.
    pub fn shape(&self) -> ClipShape {
        self.network.shape()
    }

    /// The loss with its network on a context.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundClipLoss<T>> {
        // The statistics of CLIP's own preprocessing, for images in [0, 1].
        const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
        const DEVIATION: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
        Ok(BoundClipLoss {
            loss_weight: self.options.loss_weight,
            scale_factor: self.options.clip_model.scale_factor,
            window: self.options.window()?,
            normalisation: match self.options.clip_model.normalize {
                true => Some(ChannelAffine::normalisation(&MEAN, &DEVIATION).bind(context)?),
                false => None,
            },
            context: context.clone(),
            network: OnceLock::new(),
            loss: self.clone(),
            is_composed: false,
        })
    }

    /// The loss on the context of `image`. To use the network more than once, [`bind`](ClipLoss::bind) it.
    ///
    /// # Errors
    /// Those of the type's description.
    pub fn forward<T: Tensor>(&self, image: &T, text: &Tokens) -> Result<T> {
        self.bind(&image.context())?.forward(image, text)
    }
}

impl ClipLoss {
    /// The fused image tower, if the model has one.
    fn fused(&self) -> Option<Arc<VisionTransformer>> {
        self.fused.get(|| self.network.frozen()).ok()
    }
}

/// The cosines of images, as the network takes them, with texts' embeddings.
#[derive(Debug)]
struct Cosines(Arc<VisionTransformer>);

impl FrozenFunction for Cosines {
    fn name(&self) -> &'static str {
        ClipLoss::NAME
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let [images, text] = *inputs else {
            return Err(Error::InputCount { operation: ClipLoss::NAME, expected: 2, got: inputs.len() });
        };
        let size = self.0.resolution();
        check_image(ClipLoss::NAME, "image", images, 3)?;
        if images[2..] != [size, size] {
            let expected = format!("{size}×{size} pixels for the vision transformer");
            return Err(Error::ShapeRule {
                operation: ClipLoss::NAME,
                argument: "image",
                expected,
                got: images.to_vec(),
            });
        }
        let &[texts, length] = text else {
            let expected = "rank 2 (M, D)".into();
            return Err(Error::ShapeRule { operation: ClipLoss::NAME, argument: "text", expected, got: text.to_vec() });
        };
        let expected = vec![texts, self.0.embedding_len()];
        if length != expected[1] {
            return Err(Error::ShapeMismatch {
                operation: ClipLoss::NAME,
                argument: "text",
                expected,
                got: text.to_vec(),
            });
        }
        Ok(vec![images[0], texts])
    }
    fn value(&self, inputs: &[Array<'_, f32>]) -> Vec<f32> {
        // The shape rule has refused whatever could fail.
        self.0
            .compare(inputs[0].data, inputs[0].shape[0], inputs[1].data, None)
            .map(|found| found.0)
            .unwrap_or_default()
    }
    fn value_and_gradient(&self, inputs: &[Array<'_, f32>], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let found = self.0.compare(inputs[0].data, inputs[0].shape[0], inputs[1].data, Some(gradient));
        found.map(|(cosines, gradient)| (cosines, gradient.unwrap_or_default())).unwrap_or_default()
    }
}

/// [`ClipLoss`] with its network on a context.
///
/// On the CPU engines, in single precision, the image tower and the cosines are fused: one operation for the value and one
/// for the gradient, which has no gradient in turn. Elsewhere they are composed of tensor operations;
/// [`composed`](BoundClipLoss::composed) has them so everywhere.
#[derive(Clone)]
pub struct BoundClipLoss<T: Tensor> {
    loss_weight: f64,
    scale_factor: usize,
    window: usize,
    normalisation: Option<BoundAffine<T>>,
    context: T::Context,
    /// The composed network, once it is needed: for texts, or where the tower is not fused.
    network: OnceLock<BoundClip<T>>,
    loss: ClipLoss,
    is_composed: bool,
}

impl<T: Tensor> fmt::Debug for BoundClipLoss<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("BoundClipLoss");
        debug.field("loss", &self.loss).field("is_composed", &self.is_composed).finish_non_exhaustive()
    }
}

impl<T: Tensor> BoundClipLoss<T> {
    /// The same composed of tensor operations on every engine: slower on the CPU, differentiable to any order.
    pub fn composed(self) -> Self {
        BoundClipLoss { is_composed: true, ..self }
    }

    /// The loss of every image with every text: (N, M).
    ///
    /// # Errors
    /// Those of [`ClipLoss`].
    pub fn forward(&self, image: &T, text: &Tokens) -> Result<T> {
        self.forward_with(image, &self.encode_text(text)?)
    }

    /// The texts' embeddings, (M, D), for [`forward_with`](BoundClipLoss::forward_with).
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for more tokens than the model takes or ids beyond its vocabulary.
    pub fn encode_text(&self, text: &Tokens) -> Result<TargetFeatures<T>> {
        let embeddings = self.network()?.encode_text(text)?;
        Ok(TargetFeatures::new(self.loss.id, embeddings.shape(), vec![embeddings]))
    }

    /// The loss of every image with texts whose embeddings are known: (N, M).
    ///
    /// # Errors
    /// Those of [`ClipLoss`], and [`Error::OtherNetwork`] for another loss's embeddings.
    pub fn forward_with(&self, image: &T, text: &TargetFeatures<T>) -> Result<T> {
        self.loss.id.check(ClipLoss::NAME, text.network)?;
        let text = text.only(ClipLoss::NAME)?;
        let shape = image.shape();
        check_image(ClipLoss::NAME, "image", &shape, 3)?;
        let resolution = self.loss.shape().image_resolution;
        let maps = [self.resample(shape[2])?, self.resample(shape[3])?];
        if maps.iter().any(|map| map.outputs() != resolution) {
            return Err(Error::ShapeRule {
                operation: ClipLoss::NAME,
                argument: "image",
                expected: format!(
                    "a height and a width that become {resolution}, enlarged {} times and averaged over windows of {}",
                    self.scale_factor, self.window
                ),
                got: shape,
            });
        }
        let mut image = image.linear(2, &maps[0])?.linear(3, &maps[1])?;
        if let Some(normalisation) = &self.normalisation {
            image = normalisation.forward(&image)?;
        }
        let cosines = match self.fused(&image, text) {
            Some(cosines) => cosines?,
            None => self.network()?.encode_image(&image)?.matmul(text, false, true)?,
        };
        cosines.affine(-self.loss_weight * self.loss.network.logit_scale().exp() / 100.0, self.loss_weight)
    }

    /// The composed network.
    fn network(&self) -> Result<&BoundClip<T>> {
        get_or_try_make(&self.network, || self.loss.network.bind(&self.context))
    }

    /// The cosines by the fused tower, where the engine has fused operations and the text fits.
    fn fused(&self, image: &T, text: &T) -> Option<Result<T>> {
        if self.is_composed || !applies_to(image) {
            return None;
        }
        let function = Cosines(self.loss.fused()?);
        // What does not fit is refused by the composed form, in its words.
        function.output_shape(&[&image.shape(), &text.shape()]).ok()?;
        apply(&Arc::new(function), &[image, &text.detach()])
    }

    /// Nearest enlargement and averaging along an axis, as one map.
    fn resample(&self, extent: usize) -> Result<Arc<LinearMap>> {
        let (scale, window) = (self.scale_factor, self.window);
        let row = |i: usize| {
            let (start, end) = (i * window, (i + 1) * window);
            let pixels = start / scale..(end - 1) / scale + 1;
            let share = |j: usize| (end.min((j + 1) * scale) - start.max(j * scale)) as f64 / window as f64;
            pixels.map(|j| (j, share(j))).collect()
        };
        LinearMap::from_rows(extent, (0..extent.saturating_mul(scale) / window).map(row))
    }
}

impl Declared for ClipLoss {
    const NAME: &'static str = "CLIPLoss";
    const ALIASES: &'static [&'static str] = &["CLIPLossComps"];
    const TERM: Option<&'static str> = Some("loss_clip");
    const ABOUT: About = About {
        summary: "How badly an image fits a text.",
        formula: "λ · (1 − exp(logit_scale)·cos(e(x), e(text))/100)",
        source: "Patashnik et al., StyleCLIP, 2021",
    };

    fn check(&self) -> Result<()> {
        self.options().validate()
    }
}

impl Frozen for ClipLoss {
    type Options = ClipOptions;
    type Bound<T: Tensor> = (BoundClipLoss<T>, usize);

    fn arguments() -> Vec<Argument> {
        vec![Argument::required("image", Kind::Tensor), Argument::required("text", Kind::Tokens)]
    }

    fn build(options: ClipOptions, sources: Sources<'_>) -> Result<Self> {
        options.validate()?;
        // Where nothing is read, a name that means nothing is found here.
        let name = options.clip_model.clip_type.as_str();
        let is_known = ClipShape::PUBLISHED.contains(&name)
            || name == "seeded"
            || name.starts_with("seeded:")
            || Weights::locate(name, sources.directory).is_some();
        if sources.seeded.is_some() && !is_known {
            let expected = format!("a published model ({}) or a file", ClipShape::PUBLISHED.join(", "));
            return Err(Error::option(Self::NAME, "clip_type", expected, name));
        }
        match (sources.seeded, sources.architecture) {
            (Some(seed), Some(architecture)) => {
                let shape = shape_of(architecture)?;
                ClipLoss::new(options, &Checkpoint::seeded(&shape.architecture(), seed)?.into())
            }
            _ => ClipLoss::new(options, sources.weights),
        }
    }

    fn configuration(&self) -> &ClipOptions {
        self.options()
    }

    fn checkpoints(&self) -> Vec<String> {
        self.options().checkpoints()
    }

    fn on<T: Tensor>(&self, context: &T::Context) -> Result<Self::Bound<T>> {
        Ok((self.bind(context)?, self.shape().context_length))
    }

    fn kept<T: Differentiable<Context: Send> + Send + 'static>(bound: Self::Bound<T>) -> Box<dyn Kept<T>> {
        Box::new(Call::<Self, T>(bound))
    }

    fn call<T: Differentiable>((bound, length): &Self::Bound<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let image = inputs.get_tensor(Self::NAME, "image")?;
        let text = match inputs.get_text(Self::NAME, "text") {
            Ok(text) => Tokens::tokenize(&[text], *length)?,
            Err(_) => Tokens::from_ids(inputs.get_tokens(Self::NAME, "text")?.to_vec())?,
        };
        bound.forward(image, &text).map(Outcome::Value)
    }
}

/// The shapes in a mapping, which may say more.
fn shape_of(architecture: &Value) -> Result<ClipShape> {
    // ClipShape passes over fields that it does not have.
    serde_json::from_value(architecture.clone())
        .map_err(|error| Error::Config { path: "architecture".to_owned(), message: error.to_string() })
}
