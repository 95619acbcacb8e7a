//! The identity loss of face generation.

use std::fmt;
use std::sync::{Arc, OnceLock};

use image_losses_core::NetworkId;
use image_losses_core::config::{Argument, Inputs, Outcome};
use image_losses_core::frozen_function::{FrozenFunction, applies_to, apply};
use image_losses_core::kernels::Array;
use image_losses_core::{About, Declared, Differentiable, Error, Result, Shape, Tensor, finite};
use image_losses_kernels::once::get_or_try_make;
use image_losses_kernels::residual::{ResidualNetwork, Target};
use serde::{Deserialize, Serialize};

use crate::frozen::{Call, Frozen, Kept, Sources, pair_arguments};
use crate::lazy::Lazy;
use crate::networks::{BoundIrNet, IrDepth, IrMode, IrNet, check_image};
use crate::target::TargetFeatures;
use crate::weights::{Request, Weights, named};

/// Height and width of an image as it is cropped.
const ALIGNED: usize = 256;
/// The first row and column of the crop, and its height and width.
const CROP: ([usize; 2], usize) = ([35, 32], 188);
/// Height and width of the network's input.
const FACE: usize = 112;

/// The network that [`FaceIdLoss`] compares faces with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FaceNetKind {
    /// ArcFace's improved residual network.
    #[default]
    ArcFace,
}

/// The network of [`FaceIdLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `type` | `ArcFace` | `ArcFace` |
/// | `ir_se50_weights` | the parameters' file, see [`Weights`] | `Arcface-IR-SE50` |
/// | `prefix` | where the network lies in the file, see [`Weights`] | the file as a whole |
/// | `num_layers` | 50, 100 or 152 | 50 |
/// | `mode` | `ir`, or `ir_se` with squeeze-and-excitation | `ir_se` |
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FaceNetOptions {
    /// Which kind of network.
    #[serde(rename = "type")]
    pub kind: FaceNetKind,
    /// The parameters' file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ir_se50_weights: Option<String>,
    /// Where the network lies in the file: the names' part before its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The number of layers.
    pub num_layers: IrDepth,
    /// With or without squeeze-and-excitation.
    pub mode: IrMode,
}

/// Options of [`FaceIdLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `facenet` | the network: [`FaceNetOptions`] | IR-SE50 |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FaceIdOptions {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// The network.
    pub facenet: FaceNetOptions,
}

impl Default for FaceIdOptions {
    fn default() -> Self {
        FaceIdOptions { loss_weight: 1.0, facenet: FaceNetOptions::default() }
    }
}

impl FaceIdOptions {
    /// The name under which the network is published.
    fn published(&self) -> &'static str {
        match (self.facenet.num_layers, self.facenet.mode) {
            (IrDepth::L50, IrMode::IrSe) => "Arcface-IR-SE50",
            (num_layers, mode) => IrNet::name(num_layers, mode),
        }
    }

    /// The names of the checkpoints that its network is read from, as configured or else as published.
    pub fn checkpoints(&self) -> Vec<String> {
        vec![named(self.facenet.ir_se50_weights.as_deref(), self.published())]
    }

    /// Checks them without reading any weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn validate(&self) -> Result<()> {
        finite(FaceIdLoss::NAME, "loss_weight", self.loss_weight)
    }
}

/// The difference of two faces' identities: ArcFace loss, ID loss.
///
/// L = λ · meanₙ (1 − e(xₙ)·e(yₙ))
///
/// e: the embedding, of length 1, that a frozen face recognition network gives to the face: the image is averaged to
/// 256×256 unless its height is 256, cropped to rows 35 to 222 and columns 32 to 219 as portraits of FFHQ are aligned, and
/// averaged to 112×112.
///
/// # Shapes
/// Prediction x and target y: (N, 3, H, W), equal. An image of height 256 is not resized, and must be 220 wide or wider.
///
/// In [0, 2λ] for λ > 0; 0 for a perfect prediction. Not differentiable at the kinks of the network's PReLU. The target
/// carries no gradient.
///
/// Options: [`FaceIdOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`], [`Error::Empty`].
///
/// ```no_run
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_perceptual::{FaceIdLoss, FaceIdOptions, Weights};
/// use ndarray::Array4;
///
/// let loss = FaceIdLoss::new(FaceIdOptions::default(), &Weights::directory("weights"))?;
/// let face = NdTensor::new(Array4::from_elem((1, 3, 256, 256), 0.5f32));
/// assert!(loss.forward(&face, &face)?.item()?.abs() < 1e-6);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
/// 2019; as a loss E. Richardson et al., "Encoding in Style", 2021, equation 4; MMagic, `mmagic.models.losses.FaceIdLoss`.
#[derive(Clone, Debug)]
pub struct FaceIdLoss {
    options: FaceIdOptions,
    network: IrNet,
    id: NetworkId,
    fused: Lazy<ResidualNetwork>,
}

impl FaceIdLoss {
    /// The loss with the given options and the network's parameters from `weights`.
    ///
    /// # Errors
    /// As [`FaceIdOptions::validate`]; [`Error::Io`], [`Error::Format`] or [`Error::CheckpointMismatch`] for weights that
    /// cannot be had or are another network's.
    pub fn new(options: FaceIdOptions, weights: &Weights) -> Result<Self> {
        options.validate()?;
        let FaceNetOptions { num_layers, mode, .. } = options.facenet;
        let published = options.published();
        let request = Request {
            owner: FaceIdLoss::NAME,
            option: "ir_se50_weights",
            configured: options.facenet.ir_se50_weights.as_deref(),
            prefix: options.facenet.prefix.as_deref(),
            published,
        };
        let checkpoint = weights.open(&request, || Ok(IrNet::architecture(num_layers, mode, true)))?;
        let network = IrNet::load(num_layers, mode, &checkpoint)?;
        Ok(FaceIdLoss { network, options, id: NetworkId::unique(), fused: Lazy::default() })
    }

    /// Its options.
    pub fn options(&self) -> &FaceIdOptions {
        &self.options
    }

    /// The loss with its network on a context.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundFaceIdLoss<T>> {
        Ok(BoundFaceIdLoss {
            loss: self.clone(),
            context: context.clone(),
            network: OnceLock::new(),
            is_composed: false,
        })
    }

    /// The fused network.
    fn fused(&self) -> Result<Arc<ResidualNetwork>> {
        self.fused.get(|| self.network.frozen())
    }

    /// The loss on the context of `pred`. To use the network more than once, [`bind`](FaceIdLoss::bind) it.
    ///
    /// # Errors
    /// Those of the type's description.
    pub fn forward<T: Tensor>(&self, pred: &T, gt: &T) -> Result<T> {
        self.bind(&pred.context())?.forward(pred, gt)
    }
}

/// The products of the embeddings of faces, as the network takes them, with those of others or with given ones.
#[derive(Debug)]
struct Products {
    network: Arc<ResidualNetwork>,
    /// The second input holds embeddings, not faces.
    is_embedded: bool,
}

/// The embeddings of faces, as the network takes them.
#[derive(Debug)]
struct Embeddings(Arc<ResidualNetwork>);

/// The number of faces, refusing what is none.
fn faces(network: &ResidualNetwork, shape: &[usize]) -> Result<usize> {
    check_image(FaceIdLoss::NAME, "face", shape, 3)?;
    let size = network.size();
    if shape[2..] != [size, size] {
        let expected = format!("{size}×{size} pixels");
        return Err(Error::ShapeRule { operation: FaceIdLoss::NAME, argument: "face", expected, got: shape.to_vec() });
    }
    Ok(shape[0])
}

impl Products {
    fn compare(&self, inputs: &[Array<'_, f32>], gradient: Option<&[f32]>) -> (Vec<f32>, Option<Vec<f32>>) {
        // The shape rule has refused whatever could fail.
        let [images, target] = inputs else { return Default::default() };
        let target = if self.is_embedded { Target::Embeddings(target.data) } else { Target::Faces(target.data) };
        self.network.compare(images.data, images.shape[0], target, gradient).unwrap_or_default()
    }
}

impl FrozenFunction for Products {
    fn name(&self) -> &'static str {
        FaceIdLoss::NAME
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let [images, target] = *inputs else {
            return Err(Error::InputCount { operation: FaceIdLoss::NAME, expected: 2, got: inputs.len() });
        };
        let count = faces(&self.network, images)?;
        let expected = if self.is_embedded { vec![count, self.network.embedding_len()] } else { images.to_vec() };
        if target != expected {
            return Err(Error::ShapeMismatch {
                operation: FaceIdLoss::NAME,
                argument: "gt",
                expected,
                got: target.to_vec(),
            });
        }
        Ok(vec![count])
    }
    fn value(&self, inputs: &[Array<'_, f32>]) -> Vec<f32> {
        self.compare(inputs, None).0
    }
    fn value_and_gradient(&self, inputs: &[Array<'_, f32>], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (products, gradient) = self.compare(inputs, Some(gradient));
        (products, gradient.unwrap_or_default())
    }
}

impl FrozenFunction for Embeddings {
    fn name(&self) -> &'static str {
        FaceIdLoss::NAME
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let [images] = *inputs else {
            return Err(Error::InputCount { operation: FaceIdLoss::NAME, expected: 1, got: inputs.len() });
        };
        Ok(vec![faces(&self.0, images)?, self.0.embedding_len()])
    }
    fn value(&self, inputs: &[Array<'_, f32>]) -> Vec<f32> {
        inputs.first().and_then(|images| self.0.embed(images.data, images.shape[0]).ok()).unwrap_or_default()
    }
    fn value_and_gradient(&self, inputs: &[Array<'_, f32>], _: &[f32]) -> (Vec<f32>, Vec<f32>) {
        // Never asked for: a target is detached.
        (self.value(inputs), inputs.first().map(|images| vec![0.0; images.data.len()]).unwrap_or_default())
    }
}

/// [`FaceIdLoss`] with its network on a context.
///
/// On the CPU engines, in single precision, the network and the products are fused: one operation for the value and one
/// for the gradient, which has no gradient in turn; prediction and target go through the network together. Elsewhere they
/// are composed of tensor operations; [`composed`](BoundFaceIdLoss::composed) has them so everywhere.
#[derive(Clone)]
pub struct BoundFaceIdLoss<T: Tensor> {
    loss: FaceIdLoss,
    context: T::Context,
    /// The composed network, once it is needed.
    network: OnceLock<BoundIrNet<T>>,
    is_composed: bool,
}

impl<T: Tensor> fmt::Debug for BoundFaceIdLoss<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("BoundFaceIdLoss");
        debug.field("loss", &self.loss).field("is_composed", &self.is_composed).finish_non_exhaustive()
    }
}

impl<T: Tensor> BoundFaceIdLoss<T> {
    /// The same composed of tensor operations on every engine: slower on the CPU, differentiable to any order.
    pub fn composed(self) -> Self {
        BoundFaceIdLoss { is_composed: true, ..self }
    }

    /// The loss of the prediction `pred` for the target `gt`.
    ///
    /// # Errors
    /// Those of [`FaceIdLoss`].
    pub fn forward(&self, pred: &T, gt: &T) -> Result<T> {
        let (expected, got) = (pred.shape(), gt.shape());
        if expected != got {
            return Err(Error::ShapeMismatch { operation: FaceIdLoss::NAME, argument: "gt", expected, got });
        }
        let (face, target) = (align(pred, "pred")?, align(&gt.detach(), "gt")?);
        match self.fused(&face, &target, false) {
            Some(products) => self.of_products(&products?.sum_all()?, pred),
            None => self.compose(&face, &self.network()?.embed(&target)?, pred),
        }
    }

    /// The embeddings of a target, (N, 512), without gradient, for [`forward_with`](BoundFaceIdLoss::forward_with).
    ///
    /// # Errors
    /// [`Error::ShapeRule`], [`Error::Empty`].
    pub fn features(&self, gt: &T) -> Result<TargetFeatures<T>> {
        let face = align(&gt.detach(), "gt")?;
        let fused = match self.is_composed || !applies_to(&face) {
            true => None,
            false => apply(&Arc::new(Embeddings(self.loss.fused()?)), &[&face]),
        };
        let embeddings = fused.unwrap_or_else(|| self.network()?.embed(&face))?;
        Ok(TargetFeatures::new(self.loss.id, gt.shape(), vec![embeddings]))
    }

    /// The loss of the prediction `pred` for a target whose embeddings are known.
    ///
    /// # Errors
    /// Those of [`FaceIdLoss`], and [`Error::OtherNetwork`] for another loss's embeddings.
    pub fn forward_with(&self, pred: &T, target: &TargetFeatures<T>) -> Result<T> {
        self.loss.id.check(FaceIdLoss::NAME, target.network)?;
        let (face, target) = (align(pred, "pred")?, target.only(FaceIdLoss::NAME)?);
        match self.fused(&face, &target.detach(), true) {
            Some(products) => self.of_products(&products?.sum_all()?, pred),
            None => self.compose(&face, target, pred),
        }
    }

    /// The composed network.
    fn network(&self) -> Result<&BoundIrNet<T>> {
        get_or_try_make(&self.network, || self.loss.network.bind(&self.context))
    }

    /// The products by the fused network, where the engine has fused operations.
    fn fused(&self, face: &T, target: &T, is_embedded: bool) -> Option<Result<T>> {
        if self.is_composed || !applies_to(face) {
            return None;
        }
        match self.loss.fused() {
            Ok(network) => apply(&Arc::new(Products { network, is_embedded }), &[face, target]),
            Err(error) => Some(Err(error)),
        }
    }

    /// The loss of a face and embeddings, of tensor operations.
    fn compose(&self, face: &T, target: &T, pred: &T) -> Result<T> {
        let embedding = self.network()?.embed(face)?;
        let (expected, got) = (embedding.shape(), target.shape());
        if expected != got {
            return Err(Error::ShapeMismatch {
                operation: FaceIdLoss::NAME,
                argument: "target features",
                expected,
                got,
            });
        }
        self.of_products(&embedding.accumulator()?.mul(&target.accumulator()?)?.sum_all()?, pred)
    }

    /// The loss, from the sum of the products.
    fn of_products(&self, sum: &T, pred: &T) -> Result<T> {
        let (loss_weight, samples) = (self.loss.options.loss_weight, pred.shape()[0] as f64);
        sum.affine(-loss_weight / samples, loss_weight)?.cast_like(pred)
    }
}

/// The faces of images, cropped and averaged to the network's size.
fn align<T: Tensor>(image: &T, argument: &'static str) -> Result<T> {
    let shape = image.shape();
    check_image(FaceIdLoss::NAME, argument, &shape, 3)?;
    let ([row, column], extent) = CROP;
    let image = if shape[2] == ALIGNED { image.clone() } else { image.adaptive_avg_pool2d([ALIGNED; 2])? };
    if image.shape()[3] < column + extent {
        return Err(Error::ShapeRule {
            operation: FaceIdLoss::NAME,
            argument,
            expected: format!("at least {} columns where it has {ALIGNED} rows", column + extent),
            got: shape,
        });
    }
    let face = image.narrow(2, row, extent)?.narrow(3, column, extent)?;
    face.adaptive_avg_pool2d([FACE; 2])
}

impl Declared for FaceIdLoss {
    const NAME: &'static str = "FaceIdLoss";
    const ALIASES: &'static [&'static str] = &["FaceIdLossComps"];
    const TERM: Option<&'static str> = Some("loss_id");
    const ABOUT: About = About {
        summary: "The same person? Over ArcFace's embedding e of length 1.",
        formula: "λ · meanₙ (1 − e(x)·e(y))",
        source: "Deng et al., ArcFace, 2019",
    };

    fn check(&self) -> Result<()> {
        self.options().validate()
    }
}

impl Frozen for FaceIdLoss {
    type Options = FaceIdOptions;
    type Bound<T: Tensor> = BoundFaceIdLoss<T>;

    fn arguments() -> Vec<Argument> {
        pair_arguments("gt")
    }

    fn build(options: FaceIdOptions, sources: Sources<'_>) -> Result<Self> {
        FaceIdLoss::new(options, sources.weights)
    }

    fn configuration(&self) -> &FaceIdOptions {
        self.options()
    }

    fn checkpoints(&self) -> Vec<String> {
        self.options().checkpoints()
    }

    fn on<T: Tensor>(&self, context: &T::Context) -> Result<BoundFaceIdLoss<T>> {
        self.bind(context)
    }

    fn kept<T: Differentiable<Context: Send> + Send + 'static>(bound: Self::Bound<T>) -> Box<dyn Kept<T>> {
        Box::new(Call::<Self, T>(bound))
    }

    fn call<T: Differentiable>(bound: &BoundFaceIdLoss<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let (pred, target) = (inputs.get_tensor(Self::NAME, "pred")?, inputs.get_tensor(Self::NAME, "gt")?);
        bound.forward(pred, target).map(Outcome::Value)
    }
}
