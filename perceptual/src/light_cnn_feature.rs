//! The feature loss on LightCNN.

use image_losses_core::{Error, Result, Tensor, finite};
use serde::{Deserialize, Serialize};

use crate::criterion::Criterion;
use crate::networks::{BoundSequential, LightCnn};
use crate::weights::{Request, Weights};

const NAME: &str = "LightCNNFeatureLoss";

/// Options of [`LightCnnFeatureLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `pretrained` | the parameters' file, see [`Weights`] | `light_cnn_feature` |
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `criterion` | `l1` or `mse` between features | `l1` |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LightCnnFeatureOptions {
    /// The parameters' file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// How features are compared.
    pub criterion: Criterion,
}

impl Default for LightCnnFeatureOptions {
    fn default() -> Self {
        LightCnnFeatureOptions { pretrained: None, loss_weight: 1.0, criterion: Criterion::L1 }
    }
}

impl LightCnnFeatureOptions {
    /// Checks them without reading any weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn validate(&self) -> Result<()> {
        finite(NAME, "loss_weight", self.loss_weight).map(drop)
    }
}

/// The distance of two faces in the features of LightCNN-9: the identity loss of DICGAN.
///
/// L = λ · criterion(f(x), f(y)), f the frozen network without its classifier.
///
/// # Shapes
/// Prediction x and target y: (N, 3, H, W), equal; the network is trained on 128×128 and takes any size that leaves a
/// pixel after four halvings, rounded up.
///
/// In [0, ∞) for λ > 0; 0 for a perfect prediction. Not differentiable where features are equal (`l1`) or at the kinks of
/// max-feature-map and maximum pooling. The target carries no gradient.
///
/// Options: [`LightCnnFeatureOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`], [`Error::Empty`].
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_perceptual::{LightCnnFeatureLoss, LightCnnFeatureOptions, Weights};
/// use ndarray::Array4;
///
/// // Real use: Weights::directory("weights"). Here: made-up parameters from a seed.
/// let loss = LightCnnFeatureLoss::new(LightCnnFeatureOptions::default(), &Weights::Seeded(7))?;
/// let face = NdTensor::new(Array4::from_elem((1, 3, 16, 16), 0.5f32));
/// assert_eq!(loss.forward(&face, &face)?.item()?, 0.0);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: C. Ma, Z. Jiang, Y. Rao, J. Lu, J. Zhou, "Deep Face Super-Resolution with Iterative Collaboration between
/// Attentive Recovery and Landmark Estimation", 2020; MMagic, `mmagic.models.losses.LightCNNFeatureLoss`.
#[derive(Clone, Debug)]
pub struct LightCnnFeatureLoss {
    options: LightCnnFeatureOptions,
    network: LightCnn,
}

impl LightCnnFeatureLoss {
    /// The loss with the given options and the network's parameters from `weights`.
    ///
    /// # Errors
    /// As [`LightCnnFeatureOptions::validate`]; [`Error::Io`], [`Error::Format`] or [`Error::CheckpointMismatch`] for
    /// weights that cannot be had or are another network's.
    pub fn new(options: LightCnnFeatureOptions, weights: &Weights) -> Result<Self> {
        options.validate()?;
        let request = Request {
            owner: NAME,
            option: "pretrained",
            configured: options.pretrained.as_deref(),
            published: "light_cnn_feature",
        };
        let network = LightCnn::load(&weights.open(&request, || Ok(LightCnn::architecture()))?)?;
        Ok(LightCnnFeatureLoss { options, network })
    }

    /// Its options.
    pub fn options(&self) -> &LightCnnFeatureOptions {
        &self.options
    }

    /// The loss with its network on a context.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundLightCnnFeatureLoss<T>> {
        let LightCnnFeatureOptions { loss_weight, criterion, .. } = self.options;
        Ok(BoundLightCnnFeatureLoss { loss_weight, criterion, network: self.network.bind(context)? })
    }

    /// The loss on the context of `pred`. To use the network more than once, [`bind`](LightCnnFeatureLoss::bind) it.
    ///
    /// # Errors
    /// Those of the type's description.
    pub fn forward<T: Tensor>(&self, pred: &T, gt: &T) -> Result<T> {
        self.bind(&pred.context())?.forward(pred, gt)
    }
}

/// [`LightCnnFeatureLoss`] with its network on a context.
#[derive(Clone, Debug)]
pub struct BoundLightCnnFeatureLoss<T> {
    loss_weight: f64,
    criterion: Criterion,
    network: BoundSequential<T>,
}

impl<T: Tensor> BoundLightCnnFeatureLoss<T> {
    /// The loss of the prediction `pred` for the target `gt`.
    ///
    /// # Errors
    /// Those of [`LightCnnFeatureLoss`].
    pub fn forward(&self, pred: &T, gt: &T) -> Result<T> {
        let (expected, got) = (pred.shape(), gt.shape());
        if expected != got {
            return Err(Error::ShapeMismatch { operation: NAME, argument: "gt", expected, got });
        }
        self.forward_with(pred, &self.features(gt)?)
    }

    /// The features of a target, without gradient, for [`forward_with`](BoundLightCnnFeatureLoss::forward_with).
    ///
    /// # Errors
    /// [`Error::ShapeRule`], [`Error::Empty`].
    pub fn features(&self, gt: &T) -> Result<T> {
        self.network.forward(&gt.detach())
    }

    /// The loss of the prediction `pred` for a target whose features are known.
    ///
    /// # Errors
    /// Those of [`LightCnnFeatureLoss`].
    pub fn forward_with(&self, pred: &T, target: &T) -> Result<T> {
        self.criterion.compare(NAME, &self.network.forward(pred)?, target, self.loss_weight)
    }
}
