//! The feature loss on LightCNN.

use std::fmt;
use std::sync::{Arc, OnceLock};

use image_losses_core::NetworkId;
use image_losses_core::config::{Argument, Inputs, Outcome};
use image_losses_core::frozen_function::applies_to;
use image_losses_core::kernels::Array;
use image_losses_core::{About, Declared, Differentiable, Error, Result, Tensor, finite};
use image_losses_kernels::frozen::{Features, FrozenNetwork, Target, Term};
use image_losses_kernels::once::get_or_try_make;
use serde::{Deserialize, Serialize};

use crate::criterion::Criterion;
use crate::frozen::{Call, Frozen, Kept, Sources, pair_arguments};
use crate::fused::{Compare, Flatten, four};
use crate::lazy::Lazy;
use crate::networks::{BoundSequential, LightCnn};
use crate::target::TargetFeatures;
use crate::weights::{Request, Weights, named};

/// The name under which the network is published.
const PUBLISHED: &str = "light_cnn_feature";
/// The channels of the features.
const CHANNELS: usize = 128;

/// Options of [`LightCnnFeatureLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `pretrained` | the parameters' file, see [`Weights`] | `light_cnn_feature` |
/// | `prefix` | where the network lies in the file, see [`Weights`] | the file as a whole |
/// | `loss_weight` | λ, multiplies the result | 1 |
/// | `criterion` | `l1`, `mse` or `fro` between features | `l1` |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LightCnnFeatureOptions {
    /// The parameters' file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,
    /// Where the network lies in the file: the names' part before its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// How features are compared.
    pub criterion: Criterion,
}

impl Default for LightCnnFeatureOptions {
    fn default() -> Self {
        LightCnnFeatureOptions { pretrained: None, prefix: None, loss_weight: 1.0, criterion: Criterion::L1 }
    }
}

impl LightCnnFeatureOptions {
    /// The names of the checkpoints that its network is read from, as configured or else as published.
    pub fn checkpoints(&self) -> Vec<String> {
        vec![named(self.pretrained.as_deref(), PUBLISHED)]
    }

    /// Checks them without reading any weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    pub fn validate(&self) -> Result<()> {
        finite(LightCnnFeatureLoss::NAME, "loss_weight", self.loss_weight)
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
    id: NetworkId,
    fused: Lazy<FrozenNetwork>,
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
            owner: LightCnnFeatureLoss::NAME,
            option: "pretrained",
            configured: options.pretrained.as_deref(),
            prefix: options.prefix.as_deref(),
            published: PUBLISHED,
        };
        let network = LightCnn::load(&weights.open(&request, || Ok(LightCnn::architecture()))?)?;
        Ok(LightCnnFeatureLoss { options, network, id: NetworkId::unique(), fused: Lazy::default() })
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
        Ok(BoundLightCnnFeatureLoss {
            loss: self.clone(),
            context: context.clone(),
            network: OnceLock::new(),
            is_composed: false,
        })
    }

    /// The features of a target (N, 3, H, W), for [`value_and_gradient`](LightCnnFeatureLoss::value_and_gradient).
    ///
    /// # Errors
    /// [`Error::ShapeRule`], [`Error::Empty`], [`Error::Length`].
    pub fn target_features(&self, gt: Array<'_, f32>) -> Result<Features> {
        self.fused()?.features(gt.data, four(LightCnnFeatureLoss::NAME, gt.shape)?)
    }

    /// The loss and its gradient by the prediction, without an engine: one run of the fused network there and back, in
    /// memory that the next call uses again. The target's images have the shape of `pred`.
    ///
    /// # Errors
    /// Those of the type's description, [`Error::Length`] for a target of another size and [`Error::OtherNetwork`] for
    /// another loss's features.
    pub fn value_and_gradient(&self, pred: Array<'_, f32>, target: Target<'_>) -> Result<(f32, Vec<f32>)> {
        let shape = four(LightCnnFeatureLoss::NAME, pred.shape)?;
        let found = self.fused()?.compare(pred.data, target, shape, &[self.term()?], true)?;
        Ok((found.values.iter().sum::<f64>() as f32, found.gradient.unwrap_or_default()))
    }

    fn fused(&self) -> Result<Arc<FrozenNetwork>> {
        self.fused.get(|| self.network.frozen())
    }

    /// The loss as a term of the fused network.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a criterion that it has not.
    fn term(&self) -> Result<Term> {
        let LightCnnFeatureOptions { loss_weight, criterion, .. } = self.options;
        Ok(Term { tap: LightCnn::LAST, weight: loss_weight, criterion: criterion.fused()?, gram: false })
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
///
/// On the CPU engines, in single precision, the network and its criterion are fused: one operation for the value and one
/// for the gradient, which has no gradient in turn. Elsewhere they are composed of tensor operations;
/// [`composed`](BoundLightCnnFeatureLoss::composed) has them so everywhere.
#[derive(Clone)]
pub struct BoundLightCnnFeatureLoss<T: Tensor> {
    loss: LightCnnFeatureLoss,
    context: T::Context,
    network: OnceLock<BoundSequential<T>>,
    is_composed: bool,
}

impl<T: Tensor> fmt::Debug for BoundLightCnnFeatureLoss<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("BoundLightCnnFeatureLoss");
        debug.field("loss", &self.loss).field("is_composed", &self.is_composed).finish_non_exhaustive()
    }
}

impl<T: Tensor> BoundLightCnnFeatureLoss<T> {
    /// The same composed of tensor operations on every engine: slower on the CPU, differentiable to any order.
    pub fn composed(self) -> Self {
        BoundLightCnnFeatureLoss { is_composed: true, ..self }
    }

    /// The loss of the prediction `pred` for the target `gt`.
    ///
    /// # Errors
    /// Those of [`LightCnnFeatureLoss`].
    pub fn forward(&self, pred: &T, gt: &T) -> Result<T> {
        let (expected, got) = (pred.shape(), gt.shape());
        if expected != got {
            return Err(Error::ShapeMismatch { operation: LightCnnFeatureLoss::NAME, argument: "gt", expected, got });
        }
        if let Some(network) = self.fused(pred)?
            && let Some(value) = self.compare(network, false)?.apply(pred, &gt.detach())
        {
            return value?.reshape(&[]);
        }
        self.compare_composed(pred, &self.features_composed(gt)?)
    }

    /// The features of a target, (N, 128, h, w), without gradient, for
    /// [`forward_with`](BoundLightCnnFeatureLoss::forward_with).
    ///
    /// # Errors
    /// [`Error::ShapeRule`], [`Error::Empty`].
    pub fn features(&self, gt: &T) -> Result<TargetFeatures<T>> {
        if let Some(network) = self.fused(gt)?
            && let Some(flat) = (Flatten { name: LightCnnFeatureLoss::NAME, network }).apply(gt)
        {
            let features = flat?.reshape(&output_shape(&gt.shape()))?;
            return Ok(TargetFeatures::new(self.loss.id, gt.shape(), vec![features]));
        }
        self.features_composed(gt)
    }

    /// The loss of the prediction `pred` for a target whose features are known.
    ///
    /// # Errors
    /// Those of [`LightCnnFeatureLoss`], [`Error::OtherNetwork`] for another loss's features, and
    /// [`Error::ShapeMismatch`] for features of images of another size.
    pub fn forward_with(&self, pred: &T, target: &TargetFeatures<T>) -> Result<T> {
        self.loss.id.check(LightCnnFeatureLoss::NAME, target.network)?;
        let (expected, got) = (pred.shape(), &target.shape);
        if expected != *got {
            return Err(Error::ShapeMismatch {
                operation: LightCnnFeatureLoss::NAME,
                argument: "target features",
                expected,
                got: got.clone(),
            });
        }
        let features = target.only(LightCnnFeatureLoss::NAME)?;
        if let Some(network) = self.fused(pred)?
            && let Some(value) =
                self.compare(network, true)?.apply(pred, &features.detach().reshape(&[features.elements()])?)
        {
            return value?.reshape(&[]);
        }
        self.compare_composed(pred, target)
    }

    fn features_composed(&self, gt: &T) -> Result<TargetFeatures<T>> {
        let features = self.network()?.forward(&gt.detach())?;
        Ok(TargetFeatures::new(self.loss.id, gt.shape(), vec![features]))
    }

    fn compare_composed(&self, pred: &T, target: &TargetFeatures<T>) -> Result<T> {
        let LightCnnFeatureOptions { loss_weight, criterion, .. } = self.loss.options;
        criterion.compare(
            LightCnnFeatureLoss::NAME,
            &self.network()?.forward(pred)?,
            target.only(LightCnnFeatureLoss::NAME)?,
            loss_weight,
        )
    }

    fn compare(&self, network: Arc<FrozenNetwork>, is_flat: bool) -> Result<Compare> {
        Ok(Compare { name: LightCnnFeatureLoss::NAME, network, groups: vec![vec![self.loss.term()?]], is_flat })
    }

    /// The fused network, if it is to be used and takes the image.
    fn fused(&self, image: &T) -> Result<Option<Arc<FrozenNetwork>>> {
        let has_criterion = self.loss.options.criterion.frozen().is_some();
        if self.is_composed || !has_criterion || !applies_to(image) {
            return Ok(None);
        }
        let network = self.loss.fused()?;
        // What does not fit the network is refused by its composed form, in its words.
        let fits = four(LightCnnFeatureLoss::NAME, &image.shape()).and_then(|shape| network.check_shape(shape));
        Ok(fits.is_ok().then_some(network))
    }

    /// The composed network.
    fn network(&self) -> Result<&BoundSequential<T>> {
        get_or_try_make(&self.network, || self.loss.network.bind(&self.context))
    }
}

/// The shape of the features of images (N, C, H, W).
fn output_shape(images: &[usize]) -> Vec<usize> {
    // Four poolings, each rounding up.
    let halved = images.iter().skip(2).map(|extent| extent.div_ceil(16));
    images.iter().take(1).copied().chain([CHANNELS]).chain(halved).collect()
}

impl Declared for LightCnnFeatureLoss {
    const NAME: &'static str = "LightCNNFeatureLoss";
    const ABOUT: About = About {
        summary: "Faces, over LightCNN-9 features.",
        formula: "λ · criterion(f(x), f(y))",
        source: "MMagic (DIC-GAN)",
    };

    fn check(&self) -> Result<()> {
        self.options().validate()
    }
}

impl Frozen for LightCnnFeatureLoss {
    type Options = LightCnnFeatureOptions;
    type Bound<T: Tensor> = BoundLightCnnFeatureLoss<T>;

    fn arguments() -> Vec<Argument> {
        pair_arguments("gt")
    }

    fn build(options: LightCnnFeatureOptions, sources: Sources<'_>) -> Result<Self> {
        LightCnnFeatureLoss::new(options, sources.weights)
    }

    fn configuration(&self) -> &LightCnnFeatureOptions {
        self.options()
    }

    fn checkpoints(&self) -> Vec<String> {
        self.options().checkpoints()
    }

    fn on<T: Tensor>(&self, context: &T::Context) -> Result<BoundLightCnnFeatureLoss<T>> {
        self.bind(context)
    }

    fn kept<T: Differentiable<Context: Send> + Send + 'static>(bound: Self::Bound<T>) -> Box<dyn Kept<T>> {
        Box::new(Call::<Self, T>(bound))
    }

    fn call<T: Differentiable>(bound: &BoundLightCnnFeatureLoss<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let (pred, target) = (inputs.get_tensor(Self::NAME, "pred")?, inputs.get_tensor(Self::NAME, "gt")?);
        bound.forward(pred, target).map(Outcome::Value)
    }
}
