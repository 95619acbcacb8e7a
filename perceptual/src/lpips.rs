//! The learned perceptual image patch similarity.

use std::sync::LazyLock;

use image_losses_core::NetworkId;
use image_losses_core::config::{Argument, Inputs, Outcome};
use image_losses_core::{
    About, Declared, Differentiable, Error, Expr, Function, Interpolation, Pointwise, Result, Tensor, Unary, finite,
};
use serde::{Deserialize, Serialize};

use crate::frozen::{Call, Frozen, Kept, Sources, pair_arguments};
use crate::networks::{
    AlexNet, Architecture, BoundAffine, BoundSequential, ChannelAffine, Parameter, Parameters, SqueezeNet, Vgg,
    VggType, check_image,
};
use crate::target::TargetFeatures;
use crate::weights::{Request, Weights, named};

/// The network of [`Lpips`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LpipsNet {
    /// AlexNet.
    #[default]
    Alex,
    /// VGG-16.
    #[serde(alias = "vgg16")]
    Vgg,
    /// SqueezeNet 1.1.
    Squeeze,
}

impl LpipsNet {
    /// The compared layers, by their index in torchvision's `features`, with their channels.
    fn layers(self) -> &'static [(usize, usize)] {
        match self {
            LpipsNet::Alex => &[(1, 64), (4, 192), (7, 384), (9, 256), (11, 256)],
            LpipsNet::Vgg => &[(3, 64), (8, 128), (15, 256), (22, 512), (29, 512)],
            LpipsNet::Squeeze => &[(1, 64), (4, 128), (7, 256), (9, 384), (10, 384), (11, 512), (12, 512)],
        }
    }

    /// The name under which the backbone is published.
    fn published(self) -> &'static str {
        match self {
            LpipsNet::Alex => "torchvision://alexnet",
            LpipsNet::Vgg => "torchvision://vgg16",
            LpipsNet::Squeeze => "torchvision://squeezenet1_1",
        }
    }

    fn architecture(self) -> Architecture {
        match self {
            LpipsNet::Alex => AlexNet::architecture(),
            LpipsNet::Vgg => VggType::Vgg16.architecture(),
            LpipsNet::Squeeze => SqueezeNet::architecture(),
        }
    }

    /// The tensors of the linear layers, as the package `lpips` names them.
    pub fn linear_architecture(self) -> Architecture {
        let layer = |(index, (_, channels)): (usize, &(usize, usize))| {
            (format!("lin{index}.model.1.weight"), vec![1, *channels, 1, 1])
        };
        self.layers().iter().enumerate().map(layer).collect()
    }
}

/// The version of the published linear layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LpipsVersion {
    /// The first release, which does not normalise images.
    #[serde(rename = "0.0")]
    V0_0,
    /// The second.
    #[default]
    #[serde(rename = "0.1")]
    V0_1,
}

/// Options of [`Lpips`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `net` | `alex`, `vgg` or `squeeze` | `alex` |
/// | `version` | `0.0` or `0.1`: with the second, images are normalised | `0.1` |
/// | `lpips` | weigh channels with the linear layers; without, channels are added | `true` |
/// | `spatial` | a map in the images' size instead of its mean | `false` |
/// | `normalize` | images are in [0, 1], and mapped to [−1, 1] first | `false` |
/// | `pretrained` | the backbone's file, see [`Weights`] | torchvision's |
/// | `prefix` | where the backbone lies in its file, see [`Weights`] | the file as a whole |
/// | `linear_weights` | the linear layers' file, see [`Weights`] | `lpips/v0.1/alex.pth` |
/// | `loss_weight` | λ, multiplies the result | 1 |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LpipsOptions {
    /// Which backbone.
    pub net: LpipsNet,
    /// Which linear layers.
    pub version: LpipsVersion,
    /// Weigh channels with the linear layers.
    pub lpips: bool,
    /// A map instead of its mean.
    pub spatial: bool,
    /// Images are in [0, 1].
    pub normalize: bool,
    /// The backbone's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,
    /// Where the backbone lies in its file: the names' part before its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The linear layers' file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear_weights: Option<String>,
    /// λ, multiplies the result.
    pub loss_weight: f64,
}

impl Default for LpipsOptions {
    fn default() -> Self {
        LpipsOptions {
            net: LpipsNet::Alex,
            version: LpipsVersion::V0_1,
            lpips: true,
            spatial: false,
            normalize: false,
            pretrained: None,
            prefix: None,
            linear_weights: None,
            loss_weight: 1.0,
        }
    }
}

impl LpipsOptions {
    /// The name under which the linear layers are published.
    fn published_linear(&self) -> String {
        let version = if self.version == LpipsVersion::V0_0 { "v0.0" } else { "v0.1" };
        let file = match self.net {
            LpipsNet::Alex => "alex",
            LpipsNet::Vgg => "vgg",
            LpipsNet::Squeeze => "squeeze",
        };
        format!("lpips/{version}/{file}.pth")
    }

    /// The names of the checkpoints that its networks are read from, as configured or else as published.
    pub fn checkpoints(&self) -> Vec<String> {
        let backbone = named(self.pretrained.as_deref(), self.net.published());
        let linear = self.lpips.then(|| named(self.linear_weights.as_deref(), &self.published_linear()));
        [backbone].into_iter().chain(linear).collect()
    }

    /// Checks them without reading any weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn validate(&self) -> Result<()> {
        finite(Lpips::NAME, "loss_weight", self.loss_weight)
    }
}

/// The learned perceptual image patch similarity: LPIPS.
///
/// L(x, y)ₙ = λ · Σₖ mean over pixels of Σ_c wₖ,c · (f̂ₖ(x) − f̂ₖ(y))², f̂ = f/(‖f‖ + 1e-10), the norm over channels
///
/// fₖ: layer k of the frozen backbone (after a ReLU), wₖ: the trained linear layer of the metric's authors. With `spatial`
/// the maps are enlarged to the images' size (bilinear, corners not aligned) instead of averaged, and added. Version 0.0
/// omits the normalisation of images by ImageNet's statistics. That is what the package `lpips` computes; other
/// implementations average over the batch too.
///
/// # Shapes
/// Images x and y: (N, 3, H, W) in [−1, 1], equal. Value: (N, 1, 1, 1); with `spatial` (N, 1, H, W).
///
/// In [0, ∞) for weights that are not negative (the published are so); 0 for equal images. Not differentiable at the
/// kinks of ReLU and maximum pooling. Both images carry gradients.
///
/// Options: [`LpipsOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank, channels, too few pixels), [`Error::Empty`].
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_perceptual::{Lpips, LpipsNet, LpipsOptions, Weights};
/// use ndarray::Array4;
///
/// let options = LpipsOptions { net: LpipsNet::Squeeze, ..LpipsOptions::default() };
/// // Real use: Weights::directory("weights"). Here: made-up parameters from a seed.
/// let loss = Lpips::new(options, &Weights::Seeded(7), &Weights::Seeded(7))?;
/// let image = NdTensor::new(Array4::from_elem((2, 3, 32, 32), 0.5f32));
/// let value = loss.forward(&image, &image)?;
/// assert_eq!(value.shape(), [2, 1, 1, 1]);
/// assert_eq!(value.sum_all()?.item()?, 0.0);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang, "The Unreasonable Effectiveness of Deep Features as a
/// Perceptual Metric", 2018, equation 1; PyPI's `lpips`.
#[derive(Clone, Debug)]
pub struct Lpips {
    options: LpipsOptions,
    backbone: Backbone,
    id: NetworkId,
    linear: Vec<Parameter>,
}

#[derive(Clone, Debug)]
enum Backbone {
    Alex(AlexNet),
    Vgg(Vgg),
    Squeeze(SqueezeNet),
}

impl Lpips {
    /// The loss with the given options, the backbone's parameters from `backbone` and those of the linear layers from
    /// `linear` (which is not read without `lpips`).
    ///
    /// # Errors
    /// As [`LpipsOptions::validate`]; [`Error::Io`], [`Error::Format`] or [`Error::CheckpointMismatch`] for weights that
    /// cannot be had or are another network's.
    pub fn new(options: LpipsOptions, backbone: &Weights, linear: &Weights) -> Result<Self> {
        options.validate()?;
        let net = options.net;
        let request = Request {
            owner: Lpips::NAME,
            option: "pretrained",
            configured: options.pretrained.as_deref(),
            prefix: options.prefix.as_deref(),
            published: net.published(),
        };
        let checkpoint = backbone.open(&request, || Ok(net.architecture()))?;
        let backbone = match net {
            LpipsNet::Alex => Backbone::Alex(AlexNet::load(&checkpoint)?),
            LpipsNet::Squeeze => Backbone::Squeeze(SqueezeNet::load(&checkpoint)?),
            LpipsNet::Vgg => {
                let deepest = net.layers().iter().map(|(layer, _)| layer + 1).max().unwrap_or(0);
                Backbone::Vgg(Vgg::load(VggType::Vgg16, deepest, &checkpoint)?)
            }
        };
        let linear = if options.lpips {
            let published = options.published_linear();
            let request = Request {
                owner: Lpips::NAME,
                option: "linear_weights",
                configured: options.linear_weights.as_deref(),
                prefix: None,
                published: &published,
            };
            let needed = net.linear_architecture();
            let checkpoint = linear.open(&request, || Ok(needed.clone()))?;
            // A checkpoint of the whole module holds the first and a copy of each layer beside.
            let mut parameters =
                Parameters::load(&checkpoint, Lpips::NAME, &needed, &[], &["lins.", "net.", "scaling_layer."])?;
            needed.iter().map(|(name, _)| parameters.take(name)).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        Ok(Lpips { options, backbone, id: NetworkId::unique(), linear })
    }

    /// Its options.
    pub fn options(&self) -> &LpipsOptions {
        &self.options
    }

    /// The loss with its network on a context.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundLpips<T>> {
        // ImageNet's statistics for images in [−1, 1], as the package rounds them.
        const MEAN: [f64; 3] = [-0.030, -0.088, -0.188];
        const DEVIATION: [f64; 3] = [0.458, 0.448, 0.450];
        let normalisation = match self.options.version {
            LpipsVersion::V0_0 => None,
            LpipsVersion::V0_1 => Some(ChannelAffine::normalisation(&MEAN, &DEVIATION).bind(context)?),
        };
        Ok(BoundLpips {
            id: self.id,
            options: self.options.clone(),
            normalisation,
            backbone: match &self.backbone {
                Backbone::Alex(network) => network.bind(context)?,
                Backbone::Vgg(network) => network.bind(context)?,
                Backbone::Squeeze(network) => network.bind(context)?,
            },
            linear: self.linear.iter().map(|weight| weight.bind(context)).collect::<Result<_>>()?,
        })
    }

    /// The loss on the context of `prediction`. To use the network more than once, [`bind`](Lpips::bind) it.
    ///
    /// # Errors
    /// Those of the type's description.
    pub fn forward<T: Tensor>(&self, prediction: &T, target: &T) -> Result<T> {
        self.bind(&prediction.context())?.forward(prediction, target)
    }
}

/// [`Lpips`] with its network on a context.
#[derive(Clone, Debug)]
pub struct BoundLpips<T> {
    id: NetworkId,
    options: LpipsOptions,
    normalisation: Option<BoundAffine<T>>,
    backbone: BoundSequential<T>,
    linear: Vec<T>,
}

impl<T: Tensor> BoundLpips<T> {
    /// The loss between two images, one value (or map) per sample. Both carry gradients.
    ///
    /// # Errors
    /// Those of [`Lpips`].
    pub fn forward(&self, prediction: &T, target: &T) -> Result<T> {
        let (expected, got) = (prediction.shape(), target.shape());
        if expected != got {
            return Err(Error::ShapeMismatch { operation: Lpips::NAME, argument: "target", expected, got });
        }
        self.forward_with(prediction, &self.features(target)?)
    }

    /// The normalised features of an image, with its gradient, for [`forward_with`](BoundLpips::forward_with).
    ///
    /// # Errors
    /// [`Error::ShapeRule`], [`Error::Empty`].
    pub fn features(&self, image: &T) -> Result<TargetFeatures<T>> {
        let features = self.run(image)?;
        Ok(TargetFeatures::new(self.id, image.shape(), features))
    }

    fn run(&self, image: &T) -> Result<Vec<T>> {
        check_image(Lpips::NAME, "image", &image.shape(), 3)?;
        let mut image = image.clone();
        if self.options.normalize {
            image = image.affine(2.0, -1.0)?;
        }
        if let Some(normalisation) = &self.normalisation {
            image = normalisation.forward(&image)?;
        }
        let taps: Vec<usize> = self.options.net.layers().iter().map(|(layer, _)| *layer).collect();
        let unit = |features: &T| {
            let wide = features.accumulator()?;
            let inverse = T::pointwise(&INVERSE, &[&wide.norm(&[1], true)?])?;
            wide.mul(&inverse)?.cast_like(features)
        };
        self.backbone.taps(&image, &taps)?.iter().map(unit).collect()
    }

    /// The loss between an image and one whose features are known.
    ///
    /// # Errors
    /// Those of [`Lpips`], and [`Error::OtherNetwork`] for another loss's features.
    pub fn forward_with(&self, prediction: &T, target: &TargetFeatures<T>) -> Result<T> {
        self.id.check(Lpips::NAME, target.network)?;
        let features = self.run(prediction)?;
        let shape = prediction.shape();
        let size = [shape[2], shape[3]];
        let layer = |(layer, (ours, theirs)): (usize, (&T, &T))| {
            let (expected, got) = (ours.shape(), theirs.shape());
            if expected != got {
                return Err(Error::ShapeMismatch {
                    operation: Lpips::NAME,
                    argument: "target features",
                    expected,
                    got,
                });
            }
            let mut map = ours.sub(theirs)?.unary(Unary::Square)?;
            if let Some(weight) = self.linear.get(layer) {
                map = map.mul(weight)?;
            }
            let map = map.accumulator()?.sum(&[1], true)?;
            if self.options.spatial {
                map.resize(size, Interpolation::Bilinear { align_corners: false })
            } else {
                map.mean(&[2, 3], true)
            }
        };
        let layers = features.iter().zip(&target.features).enumerate().map(layer);
        let sum =
            crate::criterion::sum(layers)?.ok_or(Error::InputCount { operation: Lpips::NAME, expected: 1, got: 0 })?;
        sum.scale(self.options.loss_weight)?.cast_like(prediction)
    }
}

/// 1/(x + 1e-10).
#[derive(Clone, Copy, Debug)]
struct Inverse;

static INVERSE: LazyLock<Function> = LazyLock::new(|| Function::new(Inverse));

impl Pointwise<1> for Inverse {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        x.constant(1.0) / (x + 1e-10)
    }
}

impl Declared for Lpips {
    const NAME: &'static str = "LPIPS";
    const ABOUT: About = About {
        summary: "Weighted distances of normalised features, fitted to people's judgements.",
        formula: "λ · Σₖ mean_hw Σ_c wₖ·(f̂ₖ(x) − f̂ₖ(y))²",
        source: "Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018",
    };

    fn check(&self) -> Result<()> {
        self.options().validate()
    }
}

impl Frozen for Lpips {
    type Options = LpipsOptions;
    type Bound<T: Tensor> = BoundLpips<T>;

    fn arguments() -> Vec<Argument> {
        pair_arguments("target")
    }

    fn build(options: LpipsOptions, sources: Sources<'_>) -> Result<Self> {
        Lpips::new(options, sources.weights, sources.weights)
    }

    fn configuration(&self) -> &LpipsOptions {
        self.options()
    }

    fn checkpoints(&self) -> Vec<String> {
        self.options().checkpoints()
    }

    fn on<T: Tensor>(&self, context: &T::Context) -> Result<BoundLpips<T>> {
        self.bind(context)
    }

    fn kept<T: Differentiable<Context: Send> + Send + 'static>(bound: Self::Bound<T>) -> Box<dyn Kept<T>> {
        Box::new(Call::<Self, T>(bound))
    }

    fn call<T: Differentiable>(bound: &BoundLpips<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let (pred, target) = (inputs.get_tensor(Self::NAME, "pred")?, inputs.get_tensor(Self::NAME, "target")?);
        bound.forward(pred, target).map(Outcome::Value)
    }
}

#[cfg(test)]
mod tests {
    use image_losses_ndarray::NdTensor;

    use super::*;

    #[test]
    fn features_shorter_than_the_summand_stay_short() -> Result<()> {
        // The package's 1e-10: 1/(0 + 1e-10), 1/(1e-10 + 1e-10).
        for (length, expected) in [(0.0, 1e10), (1e-10, 5e9)] {
            let length = <NdTensor<f64> as Tensor>::constant(&(), &[length], &[1])?;
            let inverse = NdTensor::pointwise(&INVERSE, &[&length])?.item()?;
            assert!((inverse / expected - 1.0).abs() < 1e-12, "{inverse}");
        }
        Ok(())
    }
}
