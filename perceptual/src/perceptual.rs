//! The perceptual and style loss on VGG features.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use image_losses_core::NetworkId;
use image_losses_core::config::{Argument, Inputs, Kind, Outcome};
use image_losses_core::frozen_function::applies_to;
use image_losses_core::kernels::Array;
use image_losses_core::{About, Declared, Differentiable, Error, Result, Tensor, finite, not_negative};
use image_losses_kernels::frozen::{Features, FrozenNetwork, Target, Term};
use image_losses_kernels::once::get_or_try_make;
use serde::{Deserialize, Serialize};

use crate::criterion::{self, Criterion};
use crate::frozen::{Call, Frozen, Kept, Sources};
use crate::fused::{Compare, Flatten, four};
use crate::lazy::Lazy;
use crate::networks::{BoundAffine, BoundSequential, Vgg, VggType, check_image, imagenet_normalisation};
use crate::target::TargetFeatures;
use crate::weights::{Request, Weights, named};

/// Options of [`PerceptualLoss`].
///
/// | option | meaning | default |
/// |---|---|---|
/// | `layer_weights` | layer, by its index in torchvision's `features` (`"34"`) or its name (`relu5_4`), to its weight | required |
/// | `layer_weights_style` | the same for the style term | as `layer_weights` |
/// | `vgg_type` | `vgg11`, `vgg13`, `vgg16` or `vgg19`, each also with `_bn` | `vgg19` |
/// | `use_input_norm` | subtract ImageNet's mean, divide by its deviation | `true` |
/// | `perceptual_weight` | weight of the perceptual term; 0 switches it off | 1 |
/// | `style_weight` | weight of the style term; 0 switches it off | 1 |
/// | `norm_img` | images are in [−1, 1], and mapped to [0, 1] first | `true` |
/// | `pretrained` | the parameters' file, see [`Weights`] | `torchvision://` and `vgg_type` |
/// | `prefix` | where the network lies in the file, see [`Weights`] | the file as a whole |
/// | `criterion` | `l1`, `mse` or `fro` between features | `l1` |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PerceptualOptions {
    /// Layers of the perceptual term and their weights.
    pub layer_weights: BTreeMap<String, f64>,
    /// Layers of the style term and their weights; `None`: those of the perceptual term.
    pub layer_weights_style: Option<BTreeMap<String, f64>>,
    /// Which network.
    pub vgg_type: VggType,
    /// Subtract ImageNet's mean, divide by its deviation.
    pub use_input_norm: bool,
    /// Weight of the perceptual term.
    pub perceptual_weight: f64,
    /// Weight of the style term.
    pub style_weight: f64,
    /// Images are in [−1, 1].
    pub norm_img: bool,
    /// The parameters' file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,
    /// Where the network lies in the file: the names' part before its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How features are compared.
    pub criterion: Criterion,
}

impl Default for PerceptualOptions {
    fn default() -> Self {
        PerceptualOptions {
            layer_weights: BTreeMap::new(),
            layer_weights_style: None,
            vgg_type: VggType::Vgg19,
            use_input_norm: true,
            perceptual_weight: 1.0,
            style_weight: 1.0,
            norm_img: true,
            pretrained: None,
            prefix: None,
            criterion: Criterion::L1,
        }
    }
}

/// The terms that are on, with their layers as (index, weight).
#[derive(Clone, Debug, Default, PartialEq)]
struct Layers {
    perceptual: Vec<(usize, f64)>,
    style: Vec<(usize, f64)>,
}

impl PerceptualOptions {
    /// The names of the checkpoints that its network is read from, as configured or else as published.
    pub fn checkpoints(&self) -> Vec<String> {
        vec![named(self.pretrained.as_deref(), &self.published())]
    }

    /// Checks them without reading any weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for no layers, weights out of range or another network's `pretrained`;
    /// [`Error::UnknownName`] for a layer that the network has not.
    pub fn validate(&self) -> Result<()> {
        self.layers().map(drop)
    }

    /// The name under which the network is published.
    fn published(&self) -> String {
        format!("torchvision://{}", self.vgg_type.name())
    }

    fn layers(&self) -> Result<Layers> {
        not_negative(PerceptualLoss::NAME, "perceptual_weight", self.perceptual_weight)?;
        not_negative(PerceptualLoss::NAME, "style_weight", self.style_weight)?;
        let indices = |option: &'static str, weights: &BTreeMap<String, f64>| {
            if weights.is_empty() {
                return Err(Error::option(PerceptualLoss::NAME, option, "at least one layer with its weight", "none"));
            }
            let mut layers = Vec::new();
            for (layer, weight) in weights {
                let index = self.vgg_type.layer(layer)?;
                finite(PerceptualLoss::NAME, option, *weight)?;
                if layers.iter().any(|(known, _)| *known == index) {
                    return Err(Error::option(
                        PerceptualLoss::NAME,
                        option,
                        "each layer once, by index or by name",
                        layer,
                    ));
                }
                layers.push((index, *weight));
            }
            Ok(layers)
        };
        let perceptual = indices("layer_weights", &self.layer_weights)?;
        let style = match &self.layer_weights_style {
            Some(weights) => indices("layer_weights_style", weights)?,
            None => perceptual.clone(),
        };
        if let Some(named) = self.pretrained.as_deref().and_then(|file| file.strip_prefix("torchvision://"))
            && named != self.vgg_type.name()
        {
            return Err(Error::option(
                PerceptualLoss::NAME,
                "pretrained",
                format!("torchvision://{}", self.vgg_type.name()),
                named,
            ));
        }
        let when = |weight: f64, layers: Vec<(usize, f64)>| if weight > 0.0 { layers } else { Vec::new() };
        Ok(Layers { perceptual: when(self.perceptual_weight, perceptual), style: when(self.style_weight, style) })
    }
}

/// The distance of two images in the features of a VGG network, and in their Gram matrices: perceptual loss, feature
/// reconstruction loss, content loss, VGG loss; and style loss.
///
/// perceptual = `perceptual_weight` · Σₖ wₖ · criterion(fₖ(x), fₖ(y))
///
/// style = `style_weight` · Σₖ vₖ · criterion(G(fₖ(x)), G(fₖ(y))), G(f) = f·fᵀ/(c·h·w) with f as (c, h·w)
///
/// fₖ: layer k of the frozen network, wₖ its `layer_weights`, vₖ its `layer_weights_style`; criterion: the mean absolute
/// or squared difference, or the length of the difference (`fro`, BasicSR's). This is MMagic's form, which taps any layer before or after its ReLU; SRGAN and ESRGAN use the
/// same with single layers of VGG-19.
///
/// One run of the network serves both terms, and ends with the deepest layer needed. The network holds no context:
/// [`bind`](PerceptualLoss::bind) puts it on one, to be used again and again.
///
/// # Shapes
/// Image x and target y: (N, 3, H, W), equal; for the style term alone y may have another height and width. The network
/// halves the image at each pooling up to the deepest layer, and needs at least one pixel there.
///
/// Both in [0, ∞) for weights that are not negative; 0 for a perfect prediction. Not differentiable where features are
/// equal (`l1`) or at the kinks of ReLU and maximum pooling. The target carries no gradient.
///
/// Options: [`PerceptualOptions`].
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::ShapeRule`] (rank, channels, too few pixels), [`Error::Empty`].
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_perceptual::{PerceptualLoss, PerceptualOptions, Weights};
/// use ndarray::Array4;
///
/// let options = PerceptualOptions {
///     layer_weights: [("relu1_1".to_owned(), 1.0)].into(),
///     style_weight: 0.0,
///     ..PerceptualOptions::default()
/// };
/// // Real use: Weights::directory("weights"), which has vgg19-dcbb9e9d.pth. Here: made-up parameters from a seed.
/// let loss = PerceptualLoss::new(options, &Weights::Seeded(7))?.bind::<NdTensor<f64>>(&())?;
/// let image = NdTensor::new(Array4::from_elem((1, 3, 4, 4), 0.5));
/// let terms = loss.forward(&image, &image)?;
/// assert_eq!(terms.perceptual.unwrap().item()?, 0.0);
/// assert!(terms.style.is_none());
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: J. Johnson, A. Alahi, L. Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", 2016,
/// sections 3.2 and 3.3; MMagic, `mmagic.models.losses.PerceptualLoss`.
#[derive(Clone, Debug)]
pub struct PerceptualLoss {
    options: PerceptualOptions,
    layers: Layers,
    network: Vgg,
    id: NetworkId,
    fused: Lazy<FrozenNetwork>,
}

impl PerceptualLoss {
    /// The loss with the given options and the network's parameters from `weights`.
    ///
    /// # Errors
    /// As [`PerceptualOptions::validate`]; [`Error::Io`], [`Error::Format`] or [`Error::CheckpointMismatch`] for weights
    /// that cannot be had or are another network's.
    pub fn new(options: PerceptualOptions, weights: &Weights) -> Result<Self> {
        let layers = options.layers()?;
        let needed = layers.perceptual.iter().chain(&layers.style).map(|(index, _)| index + 1).max().unwrap_or(0);
        let published = options.published();
        let request = Request {
            owner: PerceptualLoss::NAME,
            option: "pretrained",
            configured: options.pretrained.as_deref(),
            prefix: options.prefix.as_deref(),
            published: &published,
        };
        let checkpoint = weights.open(&request, || Ok(options.vgg_type.architecture()))?;
        let network = Vgg::load(options.vgg_type, needed, &checkpoint)?;
        Ok(PerceptualLoss { options, layers, network, id: NetworkId::unique(), fused: Lazy::default() })
    }

    /// Its options.
    pub fn options(&self) -> &PerceptualOptions {
        &self.options
    }

    /// The loss with its network on a context.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundPerceptualLoss<T>> {
        Ok(BoundPerceptualLoss {
            loss: self.clone(),
            context: context.clone(),
            network: OnceLock::new(),
            is_composed: false,
        })
    }

    /// The features of a target (N, 3, H, W), for [`value_and_gradient`](PerceptualLoss::value_and_gradient).
    ///
    /// # Errors
    /// [`Error::ShapeRule`], [`Error::Empty`], [`Error::Length`].
    pub fn target_features(&self, gt: Array<'_, f32>) -> Result<Features> {
        let shape = four(PerceptualLoss::NAME, gt.shape)?;
        self.fused()?.features(gt.data, shape)
    }

    /// The terms and the gradient of their sum by the image, without an engine: one run of the fused network there and
    /// back, in memory that the next call uses again.
    ///
    /// The target's images have the shape of `x`; give features instead where the target comes again.
    ///
    /// ```
    /// use image_losses_core::kernels::Array;
    /// use image_losses_perceptual::{PerceptualLoss, PerceptualOptions, Target, Weights};
    ///
    /// let options = PerceptualOptions {
    ///     layer_weights: [("relu1_2".to_owned(), 1.0)].into(),
    ///     style_weight: 0.0,
    ///     ..PerceptualOptions::default()
    /// };
    /// let loss = PerceptualLoss::new(options, &Weights::Seeded(7))?;
    /// let (x, gt) = (vec![0.5; 3 * 8 * 8], vec![0.25; 3 * 8 * 8]);
    /// let images = |data| Array { shape: &[1, 3, 8, 8], data };
    /// let found = loss.value_and_gradient(images(&x), Target::Images(&gt))?;
    /// let features = loss.target_features(images(&gt))?;
    /// assert_eq!(loss.value_and_gradient(images(&x), Target::Features(&features))?, found);
    /// assert!(found.perceptual.unwrap() > 0.0 && found.style.is_none());
    /// # Ok::<(), image_losses_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the type's description; [`Error::Length`] for target images of another size, [`Error::ShapeMismatch`] for
    /// features of images of another size, for the style term alone too; [`Error::OtherNetwork`] for another loss's
    /// features; [`Error::Unsupported`] for the criterion `fro`.
    pub fn value_and_gradient(&self, x: Array<'_, f32>, target: Target<'_>) -> Result<PerceptualGradient> {
        let shape = four(PerceptualLoss::NAME, x.shape)?;
        let groups = self.groups()?;
        if groups.is_empty() {
            return Ok(PerceptualGradient { perceptual: None, style: None, gradient: vec![0.0; x.data.len()] });
        }
        let found = self.fused()?.compare(x.data, target, shape, &groups.concat(), true)?;
        let mut values = found.values.into_iter();
        let mut sum =
            |group: &[(usize, f64)]| (!group.is_empty()).then(|| values.by_ref().take(group.len()).sum::<f64>() as f32);
        Ok(PerceptualGradient {
            perceptual: sum(&self.layers.perceptual),
            style: sum(&self.layers.style),
            gradient: found.gradient.unwrap_or_default(),
        })
    }

    /// The fused network, on images as the loss takes them.
    fn fused(&self) -> Result<Arc<FrozenNetwork>> {
        self.fused.get(|| {
            let layers = self.layers.perceptual.iter().chain(&self.layers.style);
            let taps: Vec<usize> = layers.map(|(index, _)| *index).collect();
            // x·scale + shift, of (v + 1)/2 where images are in [−1, 1].
            let (scale, shift) = match self.options.use_input_norm {
                true => {
                    let normalisation = imagenet_normalisation();
                    let [scale, shift] = normalisation.parts();
                    (scale.to_vec(), shift.to_vec())
                }
                false => (vec![1.0; 3], vec![0.0; 3]),
            };
            let (factor, summand) = if self.options.norm_img { (0.5, 0.5) } else { (1.0, 0.0) };
            let shift = shift.iter().zip(&scale).map(|(shift, scale)| (shift + scale * summand) as f32).collect();
            let scale = scale.iter().map(|scale| (scale * factor) as f32).collect();
            self.network.frozen(&taps, [scale, shift])
        })
    }

    /// The terms of the fused network: those of the perceptual term, those of the style term; none that is off.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a criterion that it has not.
    fn groups(&self) -> Result<Vec<Vec<Term>>> {
        let PerceptualOptions { perceptual_weight, style_weight, criterion, .. } = self.options;
        let criterion = criterion.fused()?;
        let group = |layers: &[(usize, f64)], weight: f64, gram: bool| {
            layers.iter().map(|&(tap, layer)| Term { tap, weight: weight * layer, criterion, gram }).collect::<Vec<_>>()
        };
        let groups =
            [group(&self.layers.perceptual, perceptual_weight, false), group(&self.layers.style, style_weight, true)];
        Ok(groups.into_iter().filter(|group| !group.is_empty()).collect())
    }

    /// The loss on the context of `x`. To use the network more than once, [`bind`](PerceptualLoss::bind) it.
    ///
    /// # Errors
    /// Those of the type's description.
    pub fn forward<T: Tensor>(&self, x: &T, gt: &T) -> Result<PerceptualTerms<T>> {
        self.bind(&x.context())?.forward(x, gt)
    }
}

/// What [`PerceptualLoss`] gives: one-element tensors, `None` where a term is off.
#[derive(Clone, Debug)]
pub struct PerceptualTerms<T> {
    /// The perceptual term.
    pub perceptual: Option<T>,
    /// The style term.
    pub style: Option<T>,
}

impl<T: Tensor> PerceptualTerms<T> {
    /// The sum of the terms that are on.
    ///
    /// # Errors
    /// The engine's own.
    pub fn total(&self) -> Result<Option<T>> {
        criterion::sum(self.perceptual.iter().chain(&self.style).map(|term| Ok(term.clone())))
    }
}

/// What [`PerceptualLoss::value_and_gradient`] gives: numbers, `None` where a term is off.
#[derive(Clone, Debug, PartialEq)]
pub struct PerceptualGradient {
    /// The perceptual term.
    pub perceptual: Option<f32>,
    /// The style term.
    pub style: Option<f32>,
    /// The gradient of their sum by the image, in its shape.
    pub gradient: Vec<f32>,
}

/// [`PerceptualLoss`] with its network on a context.
///
/// On the CPU engines, in single precision, the network and its criteria are fused: one operation for the terms and one
/// for their gradient, which has no gradient in turn. Elsewhere they are composed of tensor operations;
/// [`composed`](BoundPerceptualLoss::composed) has them so everywhere.
#[derive(Clone)]
pub struct BoundPerceptualLoss<T: Tensor> {
    loss: PerceptualLoss,
    context: T::Context,
    /// Where the network is composed: it, and the normalisation before it.
    network: OnceLock<(BoundSequential<T>, Option<BoundAffine<T>>)>,
    is_composed: bool,
}

impl<T: Tensor> fmt::Debug for BoundPerceptualLoss<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("BoundPerceptualLoss");
        debug.field("loss", &self.loss).field("is_composed", &self.is_composed).finish_non_exhaustive()
    }
}

impl<T: Tensor> BoundPerceptualLoss<T> {
    /// The same composed of tensor operations on every engine: slower on the CPU, differentiable to any order.
    pub fn composed(self) -> Self {
        BoundPerceptualLoss { is_composed: true, ..self }
    }

    /// The terms for the image `x` and the target `gt`.
    ///
    /// # Errors
    /// Those of [`PerceptualLoss`].
    pub fn forward(&self, x: &T, gt: &T) -> Result<PerceptualTerms<T>> {
        self.check_target(x, &gt.shape())?;
        if let Some(network) = self.fused(gt, "gt")?
            && x.shape() == gt.shape()
            && let Some(sums) = self.compare(network, false)?.apply(x, &gt.detach())
        {
            return self.split(&sums?);
        }
        self.compare_composed(x, &self.features_composed(gt)?)
    }

    /// The features of a target, without gradient, for [`forward_with`](BoundPerceptualLoss::forward_with).
    ///
    /// # Errors
    /// [`Error::ShapeRule`], [`Error::Empty`].
    pub fn features(&self, gt: &T) -> Result<TargetFeatures<T>> {
        if let Some(network) = self.fused(gt, "gt")?
            && let Some(flat) = (Flatten { name: PerceptualLoss::NAME, network }).apply(gt)
        {
            return Ok(TargetFeatures::flat(self.loss.id, gt.shape(), flat?));
        }
        self.features_composed(gt)
    }

    /// The terms for the image `x` and a target whose features are known.
    ///
    /// # Errors
    /// Those of [`PerceptualLoss`], [`Error::OtherNetwork`] for another loss's features, and [`Error::InputCount`] for
    /// features of the fused network where this one is composed.
    pub fn forward_with(&self, x: &T, target: &TargetFeatures<T>) -> Result<PerceptualTerms<T>> {
        self.loss.id.check(PerceptualLoss::NAME, target.network)?;
        self.check_target(x, &target.shape)?;
        if let [flat] = &target.features[..]
            && target.is_flat
        {
            let other_form = Error::InputCount { operation: PerceptualLoss::NAME, expected: self.layers(), got: 1 };
            let Some(network) = self.fused(x, "x")? else { return Err(other_form) };
            if x.shape() != target.shape {
                return self.compare_composed(x, &self.grams_of_flat(&flat.detach(), &target.shape)?);
            }
            let sums = self.compare(network, true)?.apply(x, &flat.detach());
            return self.split(&sums.ok_or(other_form)??);
        }
        self.compare_composed(x, target)
    }

    /// The number of layers in both terms.
    fn layers(&self) -> usize {
        self.loss.layers.perceptual.len() + self.loss.layers.style.len()
    }

    /// The fused network, if it is to be used and takes the image; an image that none can take is refused.
    fn fused(&self, image: &T, argument: &'static str) -> Result<Option<Arc<FrozenNetwork>>> {
        check_image(PerceptualLoss::NAME, argument, &image.shape(), 3)?;
        let has_criterion = self.loss.options.criterion.frozen().is_some();
        if self.is_composed || !has_criterion || self.layers() == 0 || !applies_to(image) {
            return Ok(None);
        }
        let network = self.loss.fused()?;
        // What is too small for the network is refused by its composed form, in its words.
        Ok(network.check_shape(four(PerceptualLoss::NAME, &image.shape())?).is_ok().then_some(network))
    }

    fn compare(&self, network: Arc<FrozenNetwork>, is_flat: bool) -> Result<Compare> {
        Ok(Compare { name: PerceptualLoss::NAME, network, groups: self.loss.groups()?, is_flat })
    }

    /// The groups' sums as terms.
    fn split(&self, sums: &T) -> Result<PerceptualTerms<T>> {
        let mut from = 0;
        let mut next = |layers: &[(usize, f64)]| {
            if layers.is_empty() {
                return Ok(None);
            }
            from += 1;
            sums.narrow(0, from - 1, 1)?.reshape(&[]).map(Some)
        };
        Ok(PerceptualTerms { perceptual: next(&self.loss.layers.perceptual)?, style: next(&self.loss.layers.style)? })
    }

    fn features_composed(&self, gt: &T) -> Result<TargetFeatures<T>> {
        let (features, grams) = self.run(&gt.detach(), "gt")?;
        Ok(TargetFeatures { grams, ..TargetFeatures::new(self.loss.id, gt.shape(), features) })
    }

    /// The Gram matrices of the style term alone, from the fused network's features of a target of this shape. They can
    /// be compared with those of an image of another size, as the fused network's features cannot.
    fn grams_of_flat(&self, flat: &T, shape: &[usize]) -> Result<TargetFeatures<T>> {
        let PerceptualLoss { layers, network, .. } = &self.loss;
        // The flat features hold each tap once, in the network's order.
        let taps: BTreeSet<usize> = layers.style.iter().map(|(index, _)| *index).collect();
        let mut grams = BTreeMap::new();
        let mut from = 0;
        for tap in taps {
            let extents = network.output_shape(tap, four(PerceptualLoss::NAME, shape)?);
            let len = extents.iter().product();
            grams.insert(tap, gram(&flat.narrow(0, from, len)?.reshape(&extents)?)?);
            from += len;
        }
        let grams = layers.style.iter().filter_map(|(index, _)| grams.get(index).cloned()).collect();
        Ok(TargetFeatures { grams, ..TargetFeatures::new(self.loss.id, shape.to_vec(), Vec::new()) })
    }

    fn compare_composed(&self, x: &T, target: &TargetFeatures<T>) -> Result<PerceptualTerms<T>> {
        let PerceptualLoss { options, layers, .. } = &self.loss;
        let expected = self.layers();
        let got = target.features.len() + target.grams.len();
        if target.features.len() != layers.perceptual.len() || got != expected {
            return Err(Error::InputCount { operation: PerceptualLoss::NAME, expected, got });
        }
        let (features, grams) = self.run(x, "x")?;
        let term = |layers: &[(usize, f64)], weight: f64, ours: &[T], theirs: &[T]| {
            let pairs = layers.iter().zip(ours.iter().zip(theirs));
            criterion::sum(pairs.map(|((_, layer), (ours, theirs))| {
                options.criterion.compare(PerceptualLoss::NAME, ours, theirs, weight * layer)
            }))
        };
        Ok(PerceptualTerms {
            perceptual: term(&layers.perceptual, options.perceptual_weight, &features, &target.features)?,
            style: term(&layers.style, options.style_weight, &grams, &target.grams)?,
        })
    }

    fn check_target(&self, x: &T, target: &[usize]) -> Result<()> {
        let expected = x.shape();
        let same = if self.loss.layers.perceptual.is_empty() {
            // Gram matrices forget height and width.
            expected.get(..2) == target.get(..2) && expected.len() == target.len()
        } else {
            expected == target
        };
        if same {
            return Ok(());
        }
        Err(Error::ShapeMismatch { operation: PerceptualLoss::NAME, argument: "gt", expected, got: target.to_vec() })
    }

    /// One run: the perceptual layers' features and the style layers' Gram matrices.
    fn run(&self, image: &T, argument: &'static str) -> Result<(Vec<T>, Vec<T>)> {
        check_image(PerceptualLoss::NAME, argument, &image.shape(), 3)?;
        let PerceptualLoss { options, layers, network, .. } = &self.loss;
        let (network, normalisation) = get_or_try_make(&self.network, || {
            let normalisation = match options.use_input_norm {
                true => Some(imagenet_normalisation().bind(&self.context)?),
                false => None,
            };
            Ok((network.bind(&self.context)?, normalisation))
        })?;
        let mut image = image.clone();
        if options.norm_img {
            image = image.affine(0.5, 0.5)?;
        }
        if let Some(normalisation) = normalisation {
            image = normalisation.forward(&image)?;
        }
        let count = layers.perceptual.len();
        let taps: Vec<usize> = layers.perceptual.iter().chain(&layers.style).map(|(index, _)| *index).collect();
        let mut features = network.taps(&image, &taps)?;
        let grams = features.split_off(count).iter().map(gram).collect::<Result<_>>()?;
        Ok((features, grams))
    }
}

/// f·fᵀ/(c·h·w) of (N, c, h, w): (N, c, c).
fn gram<T: Tensor>(features: &T) -> Result<T> {
    let shape = features.shape();
    let (channels, pixels) = (shape[1], shape[2] * shape[3]);
    // Scaled before the product, each factor by the root: the sum stays in half precision's range.
    let scaled = features.scale(1.0 / ((channels * pixels) as f64).sqrt())?.reshape(&[shape[0], channels, pixels])?;
    scaled.matmul(&scaled, false, true)
}

impl Declared for PerceptualLoss {
    const NAME: &'static str = "PerceptualLoss";
    const ABOUT: About = About {
        summary: "Content and style over VGG features.",
        formula: "perceptual   w_p · Σₖ wₖ · criterion(fₖ(x), fₖ(y))\n\
                  style        w_s · Σₖ wₖ · criterion(G(fₖ(x)), G(fₖ(y))),  G(f) = f fᵀ/(c·h·w)",
        source: "Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016",
    };

    fn check(&self) -> Result<()> {
        self.options().validate()
    }
}

impl Frozen for PerceptualLoss {
    type Options = PerceptualOptions;
    type Bound<T: Tensor> = BoundPerceptualLoss<T>;
    const TERMS: &'static [(&'static str, &'static str)] =
        &[("perceptual", "loss_perceptual"), ("style", "loss_style")];

    fn arguments() -> Vec<Argument> {
        vec![Argument::required("x", Kind::Tensor), Argument::required("gt", Kind::Tensor)]
    }

    fn build(options: PerceptualOptions, sources: Sources<'_>) -> Result<Self> {
        PerceptualLoss::new(options, sources.weights)
    }

    fn configuration(&self) -> &PerceptualOptions {
        self.options()
    }

    fn checkpoints(&self) -> Vec<String> {
        self.options().checkpoints()
    }

    fn on<T: Tensor>(&self, context: &T::Context) -> Result<BoundPerceptualLoss<T>> {
        self.bind(context)
    }

    fn kept<T: Differentiable<Context: Send> + Send + 'static>(bound: Self::Bound<T>) -> Box<dyn Kept<T>> {
        Box::new(Call::<Self, T>(bound))
    }

    fn call<T: Differentiable>(bound: &BoundPerceptualLoss<T>, inputs: &Inputs<'_, T>) -> Result<Outcome<T>> {
        let terms = bound.forward(inputs.get_tensor(Self::NAME, "x")?, inputs.get_tensor(Self::NAME, "gt")?)?;
        let named = [("perceptual", terms.perceptual), ("style", terms.style)];
        Ok(Outcome::Values(named.into_iter().filter_map(|(name, term)| Some((name, term?))).collect()))
    }

    fn weight(&self, value: &str) -> Option<f64> {
        let PerceptualOptions { perceptual_weight, style_weight, .. } = *self.options();
        Some(if value == "style" { style_weight } else { perceptual_weight })
    }
}
