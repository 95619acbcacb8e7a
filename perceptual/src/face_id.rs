//! The identity loss of face generation.

use image_losses_core::{Error, Result, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::networks::{BoundIrNet, IrDepth, IrMode, IrNet, check_image};
use crate::weights::{Request, Weights};

const NAME: &str = "FaceIdLoss";
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
    /// Checks them without reading any weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn validate(&self) -> Result<()> {
        finite(NAME, "loss_weight", self.loss_weight).map(drop)
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
        let published = match (num_layers, mode) {
            (IrDepth::L50, IrMode::IrSe) => "Arcface-IR-SE50",
            _ => IrNet::name(num_layers, mode),
        };
        let request = Request {
            owner: NAME,
            option: "ir_se50_weights",
            configured: options.facenet.ir_se50_weights.as_deref(),
            published,
        };
        let checkpoint = weights.open(&request, || Ok(IrNet::architecture(num_layers, mode, true)))?;
        Ok(FaceIdLoss { network: IrNet::load(num_layers, mode, &checkpoint)?, options })
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
        Ok(BoundFaceIdLoss { loss_weight: self.options.loss_weight, network: self.network.bind(context)? })
    }

    /// The loss on the context of `pred`. To use the network more than once, [`bind`](FaceIdLoss::bind) it.
    ///
    /// # Errors
    /// Those of the type's description.
    pub fn forward<T: Tensor>(&self, pred: &T, gt: &T) -> Result<T> {
        self.bind(&pred.context())?.forward(pred, gt)
    }
}

/// [`FaceIdLoss`] with its network on a context.
#[derive(Clone, Debug)]
pub struct BoundFaceIdLoss<T> {
    loss_weight: f64,
    network: BoundIrNet<T>,
}

impl<T: Tensor> BoundFaceIdLoss<T> {
    /// The loss of the prediction `pred` for the target `gt`.
    ///
    /// # Errors
    /// Those of [`FaceIdLoss`].
    pub fn forward(&self, pred: &T, gt: &T) -> Result<T> {
        let (expected, got) = (pred.shape(), gt.shape());
        if expected != got {
            return Err(Error::ShapeMismatch { operation: NAME, argument: "gt", expected, got });
        }
        self.forward_with(pred, &self.features(gt)?)
    }

    /// The embeddings of a target, (N, 512), without gradient, for [`forward_with`](BoundFaceIdLoss::forward_with).
    ///
    /// # Errors
    /// [`Error::ShapeRule`], [`Error::Empty`].
    pub fn features(&self, gt: &T) -> Result<T> {
        self.embed(&gt.detach(), "gt")
    }

    /// The loss of the prediction `pred` for a target whose embeddings are known.
    ///
    /// # Errors
    /// Those of [`FaceIdLoss`].
    pub fn forward_with(&self, pred: &T, target: &T) -> Result<T> {
        let embedding = self.embed(pred, "pred")?;
        let (expected, got) = (embedding.shape(), target.shape());
        if expected != got {
            return Err(Error::ShapeMismatch { operation: NAME, argument: "target features", expected, got });
        }
        let samples = expected[0] as f64;
        let cosines = embedding.accumulator()?.mul(&target.accumulator()?)?.sum_all()?;
        cosines.affine(-self.loss_weight / samples, self.loss_weight)?.cast_like(pred)
    }

    fn embed(&self, image: &T, argument: &'static str) -> Result<T> {
        let shape = image.shape();
        check_image(NAME, argument, &shape, 3)?;
        let ([row, column], extent) = CROP;
        let image = if shape[2] == ALIGNED { image.clone() } else { image.adaptive_avg_pool2d([ALIGNED; 2])? };
        if image.shape()[3] < column + extent {
            return Err(Error::ShapeRule {
                operation: NAME,
                argument,
                expected: format!("at least {} columns where it has {ALIGNED} rows", column + extent),
                got: shape,
            });
        }
        let face = image.narrow(2, row, extent)?.narrow(3, column, extent)?;
        self.network.embed(&face.adaptive_avg_pool2d([FACE; 2])?)
    }
}
