//! The adversarial losses of one list of scores.

use std::sync::LazyLock;

use image_losses_core::config::{Argument, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{
    About, Declared, Differentiable, Error, Expr, Extent, Function, Input, Interpolation, On, Pointwise, PointwiseLoss,
    Reducer, Result, Side, Tensor, finite,
};
use serde::{Deserialize, Serialize};

use crate::GaussianBlur;
use crate::scores::{SQUARED_DIFFERENCE, check_scores, mean};

/// Which function of the score a [`GanLoss`] averages. The table stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum GanType {
    /// Binary cross-entropy with logits.
    Vanilla,
    /// Squared distance from the label.
    Lsgan,
    /// Distance from the label.
    L1,
    /// The score itself, with the sign of its role.
    Wgan,
    /// Hinge for the discriminator, the score for the generator.
    Hinge,
    /// Softplus of the score, with the sign of its role; BasicSR's `wgan_softplus`.
    #[serde(alias = "wgan_softplus")]
    WganLogisticNs,
    /// Squared distance from a soft mask.
    Smgan,
}

/// The mean of a function of a critic's scores: adversarial loss, GAN loss (`GANLoss` and `GANLossComps`).
///
/// With s a score, t its label (`real_label_val` where [`Side::wants_real`], else `fake_label_val`):
///
/// | `gan_type` | value |
/// |---|---|
/// | `vanilla` | t·softplus(−s) + (1 − t)·softplus(s): binary cross-entropy of sigmoid(s) with t |
/// | `lsgan` | (s − t)² |
/// | `l1` | abs(s − t) |
/// | `wgan` | −s towards real, s towards fake |
/// | `hinge` | discriminator: max(0, 1 − s) on real, max(0, 1 + s) on fake; generator: −s |
/// | `wgan-logistic-ns` | softplus(−s) towards real, softplus(s) towards fake: `vanilla` without label values |
/// | `smgan` | discriminator: (s − t)², on fake images with the blurred mask as t; generator: (s − t)², 0 if the mask is empty |
///
/// The result is the mean over all elements; the generator's is multiplied by λ, the discriminator's never.
///
/// `smgan` is AOT-GAN's soft mask-guided loss: the mask is 1 in the hole; scores of another height and width are resized
/// to it (bilinear, corners aligned). MMagic averages the generator's squared error before the mask multiplies it, so
/// that the mask's own mean cancels; AOT-GAN's authors weigh pixel by pixel. This is MMagic's. The other types ignore a
/// mask, as MMagic does.
///
/// # Shapes
/// Scores: any, rank at least 1. For `smgan` scores (N, C, h, w) and mask (N, 1, H, W).
///
/// Where not differentiable: `l1` at s = t and `hinge` at the kink, gradient 0 there. `vanilla` and `wgan-logistic-ns`
/// stay finite with exact gradients however confident the scores are.
///
/// # Errors
/// `Error::ShapeRule` for scores without axes, `Error::Empty`; for `smgan` `Error::MissingInput` without a mask,
/// `Error::ShapeRule` for scores of another rank than 4, `Error::ShapeMismatch` for a mask that is not (N, 1, H, W).
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_core::{On, Side};
/// use image_losses_gan::{GanLoss, GanType};
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let hinge = GanLoss::new(GanType::Hinge);
/// let scores = NdTensor::new(array![0.5f64, 2.0]);
/// assert_eq!(hinge.forward(&scores, Side::Discriminator, On::Real, None)?.item()?, 0.25); // mean of 0.5, 0
/// assert_eq!(hinge.forward(&scores, Side::Discriminator, On::Fake, None)?.item()?, 2.25); // mean of 1.5, 3
/// assert_eq!(hinge.forward(&scores, Side::Generator, On::Fake, None)?.item()?, -1.25);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: MMagic, `mmagic.models.losses.GANLoss` and `GANLossComps`. `vanilla`: I. Goodfellow et al., *Generative
/// Adversarial Nets*, 2014, non-saturating; `lsgan`: X. Mao et al., *Least Squares Generative Adversarial Networks*,
/// 2017; `wgan`: M. Arjovsky et al., *Wasserstein GAN*, 2017; `hinge`: J. H. Lim and J. C. Ye, *Geometric GAN*, 2017;
/// `wgan-logistic-ns`: T. Karras et al., *A Style-Based Generator Architecture for GANs*, 2019; `smgan`: Y. Zeng et al.,
/// *Aggregated Contextual Transformations for High-Resolution Image Inpainting*, 2021.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GanLoss {
    /// `vanilla`, `lsgan`, `l1`, `wgan`, `hinge`, `wgan-logistic-ns` or `smgan`. It has no default.
    pub gan_type: GanType,
    /// The label of real images (`vanilla`, `lsgan`, `l1`, `smgan`). Default: 1.
    #[serde(default = "one")]
    pub real_label_val: f64,
    /// The label of generated images (the same; the discriminator's `smgan` has the mask instead). Default: 0.
    #[serde(default)]
    pub fake_label_val: f64,
    /// λ, multiplies the generator's loss alone. Default: 1.
    #[serde(default = "one")]
    pub loss_weight: f64,
    /// The filter that softens the mask (`smgan`). Default: 71×71, σ 10.
    #[serde(default)]
    pub gaussian_blur: GaussianBlur,
}

impl Declared for GanLoss {
    const NAME: &'static str = "GANLoss";
    const ALIASES: &'static [&'static str] = &["GANLossComps"];
    const ABOUT: About = About {
        summary: "What a critic's scores say, in seven functions. λ multiplies the generator's loss alone.",
        formula: "vanilla            mean BCE(σ(s), t)\n\
                  lsgan              mean (s − t)²\n\
                  l1                 mean |s − t|\n\
                  wgan               mean −s on real, mean s on generated\n\
                  hinge              discriminator mean max(0, 1 ∓ s), generator mean −s\n\
                  wgan-logistic-ns   mean softplus(∓s)\n\
                  smgan              discriminator mean (s − blur(mask))² on generated;\n\
                  \u{20}                  generator mean [ mean (s − 1)² · mask / mean mask ]",
        source: "MMagic; Zeng et al., Aggregated Contextual Transformations for High-Resolution Image Inpainting, 2021 \
                 (smgan)",
    };

    /// # Errors
    /// `Error::InvalidOption` for labels or a `loss_weight` that are not finite, and for a `gaussian_blur` that
    /// [`GaussianBlur`] refuses.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "real_label_val", self.real_label_val)?;
        finite(Self::NAME, "fake_label_val", self.fake_label_val)?;
        finite(Self::NAME, "loss_weight", self.loss_weight)?;
        self.gaussian_blur.check()
    }
}

impl GanLoss {
    /// A type, and the defaults of everything else.
    pub fn new(gan_type: GanType) -> Self {
        GanLoss {
            gan_type,
            real_label_val: 1.0,
            fake_label_val: 0.0,
            loss_weight: 1.0,
            gaussian_blur: GaussianBlur::default(),
        }
    }

    /// Whether it needs a mask (`smgan`).
    pub fn is_masked(&self) -> bool {
        self.gan_type == GanType::Smgan
    }

    /// The loss of scores.
    ///
    /// # Errors
    /// As the type says.
    pub fn forward<T: Tensor>(&self, scores: &T, side: Side, on: On, mask: Option<&T>) -> Result<T> {
        self.forward_scales(&[scores], side, on, mask)
    }

    /// The mean over the scales of a multi-scale discriminator, each with its own scores.
    ///
    /// # Errors
    /// As the type says, and `Error::InputCount` for no scales.
    pub fn forward_scales<T: Tensor>(&self, scores: &[&T], side: Side, on: On, mask: Option<&T>) -> Result<T> {
        self.check()?;
        let Some((&first, rest)) = scores.split_first() else {
            return Err(Error::InputCount { operation: Self::NAME, expected: 1, got: 0 });
        };
        let scale = self.weight(side) / scores.len() as f64;
        let mut sum = self.scaled(first, side, on, mask, scale)?;
        for &scores in rest {
            sum = sum.add(&self.scaled(scores, side, on, mask, scale)?)?;
        }
        sum.cast_like(first)
    }

    /// The loss of one side on one kind of images as a pointwise function with a mean: closed-form gradients on CPU slices and, on the engines,
    /// the same numbers as [`forward`](GanLoss::forward) for scores of rank at least 2.
    ///
    /// ```
    /// use image_losses_core::{On, Side};
    /// use image_losses_gan::{GanLoss, GanType};
    /// use ndarray::array;
    ///
    /// let wgan = GanLoss { loss_weight: 0.5, ..GanLoss::new(GanType::Wgan) };
    /// let scores = array![[3.0f64], [1.0]];
    /// let criterion = wgan.criterion(Side::Generator, On::Fake)?;
    /// let (value, [gradient]) =
    ///     image_losses_ndarray::value_and_gradients(&criterion, [scores.view()], None, [true])?;
    /// assert_eq!(value, -1.0); // −λ · mean of 3, 1
    /// assert_eq!(gradient.unwrap(), array![[-0.25], [-0.25]].into_dyn()); // −λ/2
    /// # Ok::<(), image_losses_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Error::InvalidOption` for `smgan`, which is no function of the scores alone.
    pub fn criterion(&self, side: Side, on: On) -> Result<GanCriterion> {
        if self.gan_type == GanType::Smgan {
            return Err(Error::option(Self::NAME, "gan_type", "a function of the scores alone", "smgan"));
        }
        self.check()?;
        Ok(self.criterion_of(side, on))
    }

    fn criterion_of(&self, side: Side, on: On) -> GanCriterion {
        GanCriterion { gan_type: self.gan_type, side, on, label: self.label(side, on), loss_weight: self.weight(side) }
    }

    /// `scale` · mean, in the accumulator's type.
    fn scaled<T: Tensor>(&self, scores: &T, side: Side, on: On, mask: Option<&T>, scale: f64) -> Result<T> {
        if self.gan_type == GanType::Smgan {
            return self.soft_mask(scores, side, on, mask, scale);
        }
        mean(Self::NAME, &Function::new(self.criterion_of(side, on)), &[("input", scores)], scale)
    }

    fn soft_mask<T: Tensor>(&self, scores: &T, side: Side, on: On, mask: Option<&T>, scale: f64) -> Result<T> {
        let Some(mask) = mask else {
            let hint = ": smgan compares the scores with the inpainting mask".into();
            return Err(Error::MissingInput { operation: Self::NAME, argument: "mask".into(), hint });
        };
        check_scores(Self::NAME, "input", scores)?;
        check_scores(Self::NAME, "mask", mask)?;
        let (shape, got) = (scores.shape(), mask.shape());
        let [n, _, height, width] = shape[..] else {
            let expected = "rank 4 (N, C, H, W) with smgan".into();
            return Err(Error::ShapeRule { operation: Self::NAME, argument: "input", expected, got: shape });
        };
        let size = match got[..] {
            [batch, 1, h, w] if batch == n => [h, w],
            _ => {
                let expected = vec![n, 1, height, width];
                return Err(Error::ShapeMismatch { operation: Self::NAME, argument: "mask", expected, got });
            }
        };
        let mut scores = scores.accumulator()?;
        if size != [height, width] {
            scores = scores.resize(size, Interpolation::Bilinear { align_corners: true })?;
        }
        let mask = mask.accumulator()?;
        if (side, on) == (Side::Discriminator, On::Fake) {
            let target = self.gaussian_blur.forward(&mask)?.detach();
            let scale = scale / scores.elements() as f64;
            return T::map_reduce(&SQUARED_DIFFERENCE, &[&scores, &target], None, None, scale, Extent::Sum);
        }
        let function = Function::new(self.criterion_of(side, on));
        let total = mask.sum_all()?;
        if side == Side::Generator {
            // Under an empty mask no score takes part, whatever it is: the error's derivative would be 0·∞.
            scores = scores.unless_zero(&total.reshape(&[1; 4])?, 0.0)?;
        }
        let error = mean(Self::NAME, &function, &[("input", &scores)], scale)?;
        if (side, on) == (Side::Discriminator, On::Real) {
            return Ok(error);
        }
        // The mean over pixels of error·mask/mean(mask) is the error itself, unless the mask is empty.
        T::pointwise(&ZERO_WHERE_EMPTY, &[&error, &total])
    }

    fn label(&self, side: Side, on: On) -> f64 {
        if side.wants_real(on) { self.real_label_val } else { self.fake_label_val }
    }

    /// The weight that is in the value: λ for the generator, 1 for the discriminator.
    pub fn weight(&self, side: Side) -> f64 {
        if side == Side::Discriminator { 1.0 } else { self.loss_weight }
    }
}

impl Configurable for GanLoss {
    type State = ();

    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("input", Kind::Tensors),
            Argument::required("target_is_real", Kind::Flag),
            // MMagic's default.
            Argument::optional("is_disc", Kind::Flag),
            // The soft labels are made of it.
            Argument { required: self.is_masked(), ..Argument::optional("mask", Kind::Tensor) },
        ]
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, _: &mut ()) -> Result<Outcome<T>> {
        let (side, on) = side_of(inputs)?;
        let mask = inputs.get_tensor_if_any(Self::NAME, "mask")?;
        self.forward_scales(&inputs.get_tensors(Self::NAME, "input")?, side, on, mask).map(Outcome::Value)
    }

    fn weight<T>(&self, _: &str, inputs: &Inputs<'_, T>) -> Result<Option<f64>> {
        let (side, _) = side_of(inputs)?;
        Ok(Some(GanLoss::weight(self, side)))
    }
}

/// What the switches mean.
fn side_of<T>(inputs: &Inputs<'_, T>) -> Result<(Side, On)> {
    let is_disc = inputs.get_flag_if_any(GanLoss::NAME, "is_disc")?.unwrap_or(false);
    Ok(Side::from_flags(inputs.get_flag(GanLoss::NAME, "target_is_real")?, is_disc))
}

/// A [`GanLoss`] of one side on one kind of images, as a pointwise function of the scores and a mean. [`GanLoss::criterion`] makes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GanCriterion {
    gan_type: GanType,
    side: Side,
    on: On,
    label: f64,
    loss_weight: f64,
}

impl Declared for GanCriterion {
    const NAME: &'static str = GanLoss::NAME;
}

impl Pointwise<1> for GanCriterion {
    fn value<'e>(&self, [s]: [Expr<'e>; 1]) -> Expr<'e> {
        let GanCriterion { gan_type, side, on, label, .. } = *self;
        // Towards real the score should grow.
        let sign = if side.wants_real(on) { -1.0 } else { 1.0 };
        match gan_type {
            GanType::Vanilla if label == 1.0 => (-s).softplus(),
            GanType::Vanilla if label == 0.0 => s.softplus(),
            // Two softplus rather than softplus(s) − label·s: at a confident score nothing cancels, in value or derivative.
            GanType::Vanilla => (-s).softplus() * label + s.softplus() * (1.0 - label),
            GanType::Lsgan | GanType::Smgan => (s - label).square(),
            GanType::L1 => (s - label).abs(),
            GanType::Hinge if side == Side::Discriminator => (s * sign + 1.0).relu(),
            GanType::Hinge => -s,
            GanType::Wgan => s * sign,
            GanType::WganLogisticNs => (s * sign).softplus(),
        }
    }
}

impl PointwiseLoss<1> for GanCriterion {
    const INPUTS: [Input; 1] = [Input::full("input")];

    fn reducer(&self) -> Reducer {
        Reducer { loss_weight: self.loss_weight, ..Reducer::default() }
    }
}

fn one() -> f64 {
    1.0
}

/// The error, or 0 where the total is 0.
#[derive(Clone, Copy, Debug)]
struct ZeroWhereEmpty;

static ZERO_WHERE_EMPTY: LazyLock<Function> = LazyLock::new(|| Function::new(ZeroWhereEmpty));

impl Pointwise<2> for ZeroWhereEmpty {
    fn value<'e>(&self, [error, total]: [Expr<'e>; 2]) -> Expr<'e> {
        total.if_zero(total.constant(0.0), error)
    }
}
