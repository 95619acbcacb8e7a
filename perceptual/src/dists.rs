//! The deep image structure and texture similarity.

use std::sync::LazyLock;

use image_losses_core::NetworkId;
use image_losses_core::config::{Argument, Inputs, Outcome};
use image_losses_core::{
    About, Declared, Differentiable, Error, Expr, Function, Pointwise, Result, Tensor, Unary, finite,
};
use serde::{Deserialize, Serialize};

use crate::frozen::{Call, Frozen, Kept, Sources, pair_arguments};
use crate::networks::{
    Architecture, BoundAffine, BoundSequential, Parameter, Parameters, Vgg, VggType, check_image,
    imagenet_normalisation,
};
use crate::weights::{Request, Weights, named};

/// The names under which the backbone and the weights of its layers are published.
const PUBLISHED_BACKBONE: &str = "torchvision://vgg16";
const PUBLISHED_WEIGHTS: &str = "dists/weights.pt";
/// The compared layers of VGG-16, after the last ReLU of each block.
const TAPS: [usize; 5] = [3, 8, 15, 22, 29];
/// The channels of the image and of those layers.
const CHANNELS: [usize; 6] = [3, 64, 128, 256, 512, 512];
/// The stabiliser of both similarities.
const STABILISER: f64 = 1e-6;

/// Options of [`Dists`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `pretrained` | VGG-16's file, see [`Weights`] | `torchvision://vgg16` |
/// | `prefix` | where VGG-16 lies in its file, see [`Weights`] | the file as a whole |
/// | `dists_weights` | the file of α and β, see [`Weights`] | `dists/weights.pt` |
/// | `loss_weight` | λ, multiplies the result | 1 |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DistsOptions {
    /// VGG-16's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,
    /// Where VGG-16 lies in its file: the names' part before its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The file of α and β.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dists_weights: Option<String>,
    /// λ, multiplies the result.
    pub loss_weight: f64,
}

impl Default for DistsOptions {
    fn default() -> Self {
        DistsOptions { pretrained: None, prefix: None, dists_weights: None, loss_weight: 1.0 }
    }
}

impl DistsOptions {
    /// The names of the checkpoints that its networks are read from, as configured or else as published.
    pub fn checkpoints(&self) -> Vec<String> {
        let backbone = named(self.pretrained.as_deref(), PUBLISHED_BACKBONE);
        vec![backbone, named(self.dists_weights.as_deref(), PUBLISHED_WEIGHTS)]
    }

    /// Checks them without reading any weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn validate(&self) -> Result<()> {
        finite(Dists::NAME, "loss_weight", self.loss_weight)
    }
}

/// The deep image structure and texture similarity: DISTS.
///
/// L(x, y)ₙ = λ · (1 − Σₖ Σ_c (αₖ,c · l + βₖ,c · s))
///
/// l = (2·μₓ·μᵧ + c)/(μₓ² + μᵧ² + c), s = (2·σₓᵧ + c)/(σₓ² + σᵧ² + c), c = 1e-6
///
/// with mean μ, variance σ² and covariance σₓᵧ of each channel over its pixels, in the image itself (k = 0) and the last
/// ReLU of each block of a frozen VGG-16 whose poolings are replaced by a blurred L2 pooling. α, β: the authors' trained
/// weights, divided by their sum.
///
/// # Shapes
/// Images x and y: (N, 3, H, W) in [0, 1], equal. Value: (N, 1, 1, 1).
///
/// In [0, 2λ] for weights that are not negative; 0 for equal images. Not differentiable at the kinks of ReLU. Both images
/// carry gradients.
///
/// Options: [`DistsOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`], [`Error::Empty`].
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_perceptual::{Dists, DistsOptions, Weights};
/// use ndarray::Array4;
///
/// // Real use: Weights::directory("weights"). Here: made-up parameters from a seed.
/// let loss = Dists::new(DistsOptions::default(), &Weights::Seeded(7), &Weights::Seeded(7))?;
/// let image = NdTensor::new(Array4::from_shape_fn((1, 3, 8, 8), |(_, c, y, x)| (c + y * x) as f64 / 64.0));
/// assert!(loss.forward(&image, &image)?.item()?.abs() < 1e-8);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: K. Ding, K. Ma, S. Wang, E. Simoncelli, "Image Quality Assessment: Unifying Structure and Texture Similarity",
/// 2020, equations 3 to 5; PyPI's `dists-pytorch`.
#[derive(Clone, Debug)]
pub struct Dists {
    options: DistsOptions,
    network: Vgg,
    id: NetworkId,
    alpha: Parameter,
    beta: Parameter,
}

impl Dists {
    /// The tensors of the trained weights, as the package `dists-pytorch` names them.
    pub fn weights_architecture() -> Architecture {
        let shape = vec![1, CHANNELS.iter().sum(), 1, 1];
        vec![("alpha".into(), shape.clone()), ("beta".into(), shape)]
    }

    /// The loss with the given options, VGG-16's parameters from `backbone`, and α and β from `weights`.
    ///
    /// # Errors
    /// As [`DistsOptions::validate`]; [`Error::Io`], [`Error::Format`] or [`Error::CheckpointMismatch`] for weights that
    /// cannot be had or are another network's.
    pub fn new(options: DistsOptions, backbone: &Weights, weights: &Weights) -> Result<Self> {
        options.validate()?;
        let request = Request {
            owner: Dists::NAME,
            option: "pretrained",
            configured: options.pretrained.as_deref(),
            prefix: options.prefix.as_deref(),
            published: PUBLISHED_BACKBONE,
        };
        let checkpoint = backbone.open(&request, || Ok(VggType::Vgg16.architecture()))?;
        let network = Vgg::load(VggType::Vgg16, TAPS[4] + 1, &checkpoint)?.with_l2_pooling();
        let request = Request {
            owner: Dists::NAME,
            option: "dists_weights",
            configured: options.dists_weights.as_deref(),
            prefix: None,
            published: PUBLISHED_WEIGHTS,
        };
        let needed = Self::weights_architecture();
        let checkpoint = weights.open(&request, || Ok(needed.clone()))?;
        let mut parameters = Parameters::load(&checkpoint, Dists::NAME, &needed, &[], &["stage", "mean", "std"])?;
        let [alpha, beta] = [parameters.take("alpha")?, parameters.take("beta")?];
        Ok(Dists { options, network, id: NetworkId::unique(), alpha, beta })
    }

    /// Its options.
    pub fn options(&self) -> &DistsOptions {
        &self.options
    }

    /// The loss with its network on a context.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundDists<T>> {
        let values = |parameter: &Parameter| parameter.values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (alpha, beta) = (values(&self.alpha), values(&self.beta));
        let total: f64 = alpha.iter().chain(&beta).sum();
        let mut start = 0;
        let mut weights = Vec::new();
        for channels in CHANNELS {
            let part = |all: &[f64]| {
                let part: Vec<f64> = all[start..start + channels].iter().map(|weight| weight / total).collect();
                T::constant(context, &part, &[1, channels, 1, 1])
            };
            weights.push([part(&alpha)?, part(&beta)?]);
            start += channels;
        }
        Ok(BoundDists {
            id: self.id,
            loss_weight: self.options.loss_weight,
            normalisation: imagenet_normalisation().bind(context)?,
            network: self.network.bind(context)?,
            weights,
        })
    }

    /// The loss on the context of `prediction`. To use the network more than once, [`bind`](Dists::bind) it.
    ///
    /// # Errors
    /// Those of the type's description.
    pub fn forward<T: Tensor>(&self, prediction: &T, target: &T) -> Result<T> {
        self.bind(&prediction.context())?.forward(prediction, target)
    }
}

/// [`Dists`] with its network on a context.
#[derive(Clone, Debug)]
pub struct BoundDists<T> {
    id: NetworkId,
    loss_weight: f64,
    normalisation: BoundAffine<T>,
    network: BoundSequential<T>,
    /// α and β of each layer, divided by the sum of all.
    weights: Vec<[T; 2]>,
}

/// An image's features with each channel's mean and variance, for [`BoundDists::forward_with`] of the loss that computed
/// them or a copy of it.
#[derive(Clone, Debug)]
pub struct DistsFeatures<T> {
    network: NetworkId,
    layers: Vec<Statistics<T>>,
}

#[derive(Clone, Debug)]
struct Statistics<T> {
    /// The features without their mean.
    centred: T,
    mean: T,
    variance: T,
}

impl<T: Tensor> BoundDists<T> {
    /// The loss between two images, one value per sample. Both carry gradients.
    ///
    /// # Errors
    /// Those of [`Dists`].
    pub fn forward(&self, prediction: &T, target: &T) -> Result<T> {
        let (expected, got) = (prediction.shape(), target.shape());
        if expected != got {
            return Err(Error::ShapeMismatch { operation: Dists::NAME, argument: "target", expected, got });
        }
        self.forward_with(prediction, &self.features(target)?)
    }

    /// The features of an image, with its gradient, for [`forward_with`](BoundDists::forward_with).
    ///
    /// # Errors
    /// [`Error::ShapeRule`], [`Error::Empty`].
    pub fn features(&self, image: &T) -> Result<DistsFeatures<T>> {
        check_image(Dists::NAME, "image", &image.shape(), 3)?;
        let statistics = |features: &T| {
            let features = features.accumulator()?;
            let mean = features.mean(&[2, 3], true)?;
            let centred = features.sub(&mean)?;
            let variance = centred.unary(Unary::Square)?.mean(&[2, 3], true)?;
            Ok(Statistics { centred, mean, variance })
        };
        let deep = self.network.taps(&self.normalisation.forward(image)?, &TAPS)?;
        let layers = [image].into_iter().chain(&deep).map(statistics).collect::<Result<_>>()?;
        Ok(DistsFeatures { network: self.id, layers })
    }

    /// The loss between an image and one whose features are known.
    ///
    /// # Errors
    /// Those of [`Dists`], and [`Error::OtherNetwork`] for another loss's features.
    pub fn forward_with(&self, prediction: &T, target: &DistsFeatures<T>) -> Result<T> {
        self.id.check(Dists::NAME, target.network)?;
        let ours = self.features(prediction)?;
        let layer = |((ours, theirs), [alpha, beta]): ((&Statistics<T>, &Statistics<T>), &[T; 2])| {
            let (expected, got) = (ours.centred.shape(), theirs.centred.shape());
            if expected != got {
                return Err(Error::ShapeMismatch {
                    operation: Dists::NAME,
                    argument: "target features",
                    expected,
                    got,
                });
            }
            // The covariance of centred features: mean(xy) − mean(x)·mean(y) without its cancellation.
            let covariance = ours.centred.mul(&theirs.centred)?.mean(&[2, 3], true)?;
            let luminance = T::pointwise(&LUMINANCE, &[&ours.mean, &theirs.mean])?;
            let structure = T::pointwise(&STRUCTURE, &[&covariance, &ours.variance, &theirs.variance])?;
            let weighted = luminance.mul(&alpha.accumulator()?)?.add(&structure.mul(&beta.accumulator()?)?)?;
            weighted.sum(&[1], true)
        };
        let layers = ours.layers.iter().zip(&target.layers).zip(&self.weights).map(layer);
        let sum =
            crate::criterion::sum(layers)?.ok_or(Error::InputCount { operation: Dists::NAME, expected: 1, got: 0 })?;
        sum.affine(-self.loss_weight, self.loss_weight)?.cast_like(prediction)
    }
}

/// (2ab + c)/(a² + b² + c).
#[derive(Clone, Copy, Debug)]
struct Luminance;

static LUMINANCE: LazyLock<Function> = LazyLock::new(|| Function::new(Luminance));

impl Pointwise<2> for Luminance {
    fn value<'e>(&self, [a, b]: [Expr<'e>; 2]) -> Expr<'e> {
        (a * b * 2.0 + STABILISER) / (a.square() + b.square() + STABILISER)
    }
}

/// (2·covariance + c)/(variance + variance + c).
#[derive(Clone, Copy, Debug)]
struct Structure;

static STRUCTURE: LazyLock<Function> = LazyLock::new(|| Function::new(Structure));

impl Pointwise<3> for Structure {
    fn value<'e>(&self, [covariance, a, b]: [Expr<'e>; 3]) -> Expr<'e> {
        (covariance * 2.0 + STABILISER) / (a + b + STABILISER)
    }
}

impl Declared for Dists {
    const NAME: &'static str = "DISTS";
    const ABOUT: About = About {
        summary: "Structure and texture over VGG features: forgiving towards texture that is only elsewhere. The \
                  ranking has α = β everywhere.",
        formula: "λ · (1 − Σₖ (αₖ·luminanceₖ + βₖ·structureₖ))",
        source: "Ding et al., Image Quality Assessment: Unifying Structure and Texture Similarity, 2020",
    };

    fn check(&self) -> Result<()> {
        self.options().validate()
    }
}

impl Frozen for Dists {
    type Options = DistsOptions;
    type Bound<T: Tensor> = BoundDists<T>;

    fn arguments() -> Vec<Argument> {
        pair_arguments("target")
    }

    fn build(options: DistsOptions, sources: Sources<'_>) -> Result<Self> {
        Dists::new(options, sources.weights, sources.weights)
    }

    fn configuration(&self) -> &DistsOptions {
        self.options()
    }

    fn checkpoints(&self) -> Vec<String> {
        self.options().checkpoints()
    }

    fn on<T: Tensor>(&self, context: &T::Context) -> Result<BoundDists<T>> {
        self.bind(context)
    }

    fn kept<T: Differentiable<Context: Send> + Send + 'static>(bound: Self::Bound<T>) -> Box<dyn Kept<T>> {
        Box::new(Call::<Self, T>(bound))
    }

    fn call<T: Differentiable>(bound: &BoundDists<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let (pred, target) = (inputs.get_tensor(Self::NAME, "pred")?, inputs.get_tensor(Self::NAME, "target")?);
        bound.forward(pred, target).map(Outcome::Value)
    }
}
