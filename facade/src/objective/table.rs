//! Which losses MMagic's models train with: one row per model, one entry per term.
//!
//! The rows say what the classes' training steps do in MMagic 1.2.0: which field holds a loss, what it is called with, and
//! the name of its term. Where a step trains in phases (`pixel_init`, `iter_tc`, `disc_step`), the training loop decides
//! which side is evaluated when.

use serde_json::Value;

use super::Side;

/// A model and its terms.
#[derive(Debug)]
pub(crate) struct ModelTerms {
    /// Its `type`s.
    pub(crate) types: &'static [&'static str],
    /// The classes in MMagic that say so, below `mmagic.models`.
    pub(crate) source: &'static str,
    /// Its terms. Those of one field are of one loss, with one state.
    pub(crate) terms: &'static [TermRow],
}

/// One loss, called once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TermRow {
    pub(crate) side: Side,
    pub(crate) loss: LossOf,
    /// The term's name.
    pub(crate) name: &'static str,
    /// The names of the terms where the loss has several values; its other values are no terms.
    pub(crate) values: &'static [(&'static str, &'static str)],
    /// What it is called with, in the order of its arguments; switches and words are not among them.
    pub(crate) takes: &'static [Take],
    /// Of an adversarial loss: whether the scores shall be real.
    pub(crate) real: Option<bool>,
    pub(crate) factor: f64,
    /// A field of the model that multiplies too, and its default.
    pub(crate) factor_of: Option<(&'static str, f64)>,
    /// All of these hold, or there is no such term.
    pub(crate) when: &'static [When],
    /// The term comes once for each step of this field of the model, whose default is this; `{i}` is the step.
    pub(crate) steps: Option<(&'static str, u64)>,
}

/// Where a loss is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LossOf {
    /// In this field of the model; off where that is null or missing.
    Field(&'static str),
    /// The same with a state of its own.
    CopyOf(&'static str),
    /// In the model's code.
    Fixed(&'static str),
}

/// What a loss is given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Take {
    /// An output of the training step.
    Out(&'static str),
    /// 1 − an output.
    OneMinus(&'static str),
    /// Scores minus the mean of others, which is a constant.
    LessConstantMean(&'static str, &'static str),
    /// Scores minus the mean of others.
    LessMean(&'static str, &'static str),
    /// Images in [−1, 1] as VGG takes them: ((v + 1)/2 − ImageNet's mean) / its deviation.
    ImageNet(&'static str),
    /// The first output where the model's switch is on, else the second.
    Either(&'static str, &'static str, &'static str),
    /// The value of an earlier term.
    Term(&'static str),
}

/// A condition on the model's mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// A switch is on; it is off by default.
    On(&'static str),
    /// A switch is not off.
    NotOff(&'static str),
    /// A field is not null. One that is missing may be left out of a document.
    NotNull(&'static str),
    /// A field is this word.
    Is(&'static str, &'static str),
    /// A field is not this word.
    IsNot(&'static str, &'static str),
    /// A field's list has this word; the default list.
    Lists(&'static str, &'static str, &'static [&'static str]),
}

/// The value at a dotted path of a mapping.
pub(crate) fn at<'v>(mapping: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(mapping, |value, step| value.get(step))
}

impl When {
    pub(crate) fn holds(&self, model: &Value) -> bool {
        let word = |field: &str| at(model, field).and_then(Value::as_str);
        match *self {
            When::On(field) => at(model, field).and_then(Value::as_bool).unwrap_or(false),
            When::NotOff(field) => at(model, field).and_then(Value::as_bool).unwrap_or(true),
            When::NotNull(field) => at(model, field).is_none_or(|value| !value.is_null()),
            When::Is(field, expected) => word(field) == Some(expected),
            When::IsNot(field, expected) => word(field) != Some(expected),
            When::Lists(field, name, default) => match at(model, field) {
                Some(Value::Array(names)) => names.iter().any(|listed| listed.as_str() == Some(name)),
                Some(_) => false,
                None => default.contains(&name),
            },
        }
    }

    /// The field that it looks at.
    pub(crate) fn field(&self) -> &'static str {
        match *self {
            When::On(field)
            | When::NotOff(field)
            | When::NotNull(field)
            | When::Is(field, _)
            | When::IsNot(field, _)
            | When::Lists(field, ..) => field,
        }
    }
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            When::On(field) => write!(f, "`{field}`"),
            When::NotOff(field) => write!(f, "not `{field}: false`"),
            When::NotNull(field) => write!(f, "not `{field}: null`"),
            When::Is(field, word) => write!(f, "`{field}: {word}`"),
            When::IsNot(field, word) => write!(f, "not `{field}: {word}`"),
            When::Lists(field, name, _) => write!(f, "`{field}` has `{name}`"),
        }
    }
}

impl std::fmt::Display for Take {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Take::Out(name) => write!(f, "`{name}`"),
            Take::OneMinus(name) => write!(f, "1 − `{name}`"),
            Take::LessConstantMean(a, b) => write!(f, "`{a}` − mean `{b}` (a constant)"),
            Take::LessMean(a, b) => write!(f, "`{a}` − mean `{b}`"),
            Take::ImageNet(name) => write!(f, "`{name}` normalised as for VGG"),
            Take::Either(switch, a, b) => write!(f, "`{a}` with `{switch}`, else `{b}`"),
            Take::Term(name) => write!(f, "the term `{name}`"),
        }
    }
}

use LossOf::{CopyOf, Field, Fixed};
use Take::{Either, ImageNet, LessConstantMean, LessMean, OneMinus, Out, Term};

impl TermRow {
    const fn of(side: Side, loss: LossOf, name: &'static str, takes: &'static [Take]) -> Self {
        let (factor, factor_of, steps) = (1.0, None, None);
        TermRow { side, loss, name, values: &[], takes, real: None, factor, factor_of, when: &[], steps }
    }
    const fn named(self, values: &'static [(&'static str, &'static str)]) -> Self {
        TermRow { values, ..self }
    }
    const fn shall_be(self, real: bool) -> Self {
        TermRow { real: Some(real), ..self }
    }
    const fn times(self, factor: f64) -> Self {
        TermRow { factor, ..self }
    }
    const fn times_field(self, field: &'static str, default: f64) -> Self {
        TermRow { factor_of: Some((field, default)), ..self }
    }
    const fn when(self, when: &'static [When]) -> Self {
        TermRow { when, ..self }
    }
    const fn each(self, field: &'static str, default: u64) -> Self {
        TermRow { steps: Some((field, default)), ..self }
    }
}

/// The generator's.
const fn g(loss: LossOf, name: &'static str, takes: &'static [Take]) -> TermRow {
    TermRow::of(Side::Generator, loss, name, takes)
}
/// The discriminator's.
const fn d(loss: LossOf, name: &'static str, takes: &'static [Take]) -> TermRow {
    TermRow::of(Side::Discriminator, loss, name, takes)
}
/// Of a model without an adversary.
const fn o(loss: LossOf, name: &'static str, takes: &'static [Take]) -> TermRow {
    TermRow::of(Side::Generator, loss, name, takes)
}

const IMAGES: &[Take] = &[Out("fake_imgs"), Out("real_imgs")];
const FAKE: &[Take] = &[Out("disc_pred_fake")];
const REAL: &[Take] = &[Out("disc_pred_real")];
const FAKE_G: &[Take] = &[Out("disc_pred_fake_g")];
const PERCEPTUAL: &[(&str, &str)] = &[("perceptual", "loss_perceptual"), ("style", "loss_style")];
const DISCRIMINATOR: &[When] = &[When::NotNull("discriminator")];

// Super-resolution with a discriminator.
const SR_PIXEL: TermRow = g(Field("pixel_loss"), "loss_pix", IMAGES);
const SR_PERCEPTUAL: TermRow = g(Field("perceptual_loss"), "loss_perceptual", IMAGES).named(PERCEPTUAL);
const SR_GAN_G: TermRow = g(Field("gan_loss"), "loss_gan", FAKE_G).shall_be(true).when(DISCRIMINATOR);
const SR_GAN_REAL: TermRow = d(Field("gan_loss"), "loss_d_real", REAL).shall_be(true).when(DISCRIMINATOR);
const SR_GAN_FAKE: TermRow = d(Field("gan_loss"), "loss_d_fake", FAKE).shall_be(false).when(DISCRIMINATOR);

// Real-ESRGAN's targets may be sharpened.
const SHARP_PIXEL: TermRow = TermRow {
    takes: &[Out("fake_imgs"), Either("is_use_sharpened_gt_in_pixel", "real_imgs_sharpened", "real_imgs")],
    ..SR_PIXEL
};
const SHARP_PERCEPTUAL: TermRow = TermRow {
    takes: &[Out("fake_imgs"), Either("is_use_sharpened_gt_in_percep", "real_imgs_sharpened", "real_imgs")],
    ..SR_PERCEPTUAL
};

// Inpainting: `fake_res` is the generator's result, `fake_imgs` the same in the hole of the real image.
const GAN: &[When] = &[When::NotNull("disc")];
const HOLE: &[Take] = &[Out("fake_res"), Out("real_imgs"), Out("mask")];
const VALID: &[Take] = &[Out("fake_res"), Out("real_imgs"), OneMinus("mask")];
const COMPOSED: &[(&str, &str)] = &[("perceptual", "loss_composed_percep"), ("style", "loss_composed_style")];
const OUT: &[(&str, &str)] = &[("perceptual", "loss_out_percep"), ("style", "loss_out_style")];
const IN_FAKE: TermRow = d(Field("loss_gan"), "fake_loss", FAKE).shall_be(false).when(GAN);
const IN_REAL: TermRow = d(Field("loss_gan"), "real_loss", REAL).shall_be(true).when(GAN);
const IN_FAKE_SHIFT: TermRow =
    d(Field("loss_disc_shift"), "loss_disc_shift", &[Term("fake_loss")]).times(0.5).when(GAN);
const IN_REAL_SHIFT: TermRow =
    d(Field("loss_disc_shift"), "loss_disc_shift", &[Term("real_loss")]).times(0.5).when(GAN);
const IN_GP: TermRow =
    d(Field("loss_gp"), "loss_gp", &[Out("disc"), Out("real_imgs"), Out("fake_imgs"), Out("mask")]).when(GAN);
const IN_GAN_G: TermRow = g(Field("loss_gan"), "loss_g_fake", FAKE_G).shall_be(true).when(GAN);
const IN_HOLE: TermRow = g(Field("loss_l1_hole"), "loss_l1_hole", HOLE);
const IN_VALID: TermRow = g(Field("loss_l1_valid"), "loss_l1_valid", VALID);
const IN_COMPOSED: TermRow = g(Field("loss_composed_percep"), "loss_composed_percep", IMAGES).named(COMPOSED);
const IN_OUT: TermRow = g(Field("loss_composed_percep"), "loss_out_percep", &[Out("fake_res"), Out("real_imgs")])
    .named(OUT)
    .when(&[When::On("loss_out_percep")]);
const IN_TV: TermRow = g(Field("loss_tv"), "loss_tv", &[Out("fake_imgs"), Out("mask")]);

/// A term of one of two stages, where its list names it.
macro_rules! staged {
    ($stage:literal, $list:literal, $default:expr, $loss:literal) => {{
        const WHEN: &[When] = &[When::Lists($list, $loss, $default)];
        match $loss.as_bytes() {
            b"loss_l1_hole" => g(
                Field("loss_l1_hole"),
                concat!($stage, "loss_l1_hole"),
                &[Out(concat!($stage, "fake_res")), Out("real_imgs"), Out("mask")],
            ),
            b"loss_l1_valid" => g(
                Field("loss_l1_valid"),
                concat!($stage, "loss_l1_valid"),
                &[Out(concat!($stage, "fake_res")), Out("real_imgs"), OneMinus("mask")],
            ),
            b"loss_tv" => {
                g(Field("loss_tv"), concat!($stage, "loss_tv"), &[Out(concat!($stage, "fake_imgs")), Out("mask")])
            }
            _ => g(
                Field("loss_composed_percep"),
                concat!($stage, "loss_composed_percep"),
                &[Out(concat!($stage, "fake_imgs")), Out("real_imgs")],
            )
            .named(&[
                ("perceptual", concat!($stage, "loss_composed_percep")),
                ("style", concat!($stage, "loss_composed_style")),
            ]),
        }
        .when(WHEN)
    }};
}

/// The default lists of `TwoStageInpaintor`; `DeepFillv1Inpaintor` has none.
const STAGE1: &[&str] = &["loss_l1_hole"];
const STAGE2: &[&str] = &["loss_l1_hole", "loss_gan"];

const TWO_STAGE_GP: TermRow =
    d(Field("loss_gp"), "loss_gp", &[Out("disc"), Out("real_imgs"), Out("stage2_fake_imgs"), Out("mask")]).when(GAN);

/// The terms of matting's alpha and of its composition; `unknown` is 1 in the trimap's unknown region.
const ALPHA: &[Take] = &[Out("pred_alpha"), Out("gt_alpha"), Out("unknown")];
const COMPOSITION: &[Take] = &[Out("pred_alpha"), Out("gt_fg"), Out("gt_bg"), Out("gt_merged"), Out("unknown")];

// Models whose losses stand in their code.
const HINGE: LossOf = Fixed(r#"{"type": "GANLoss", "gan_type": "hinge"}"#);
const WGAN: LossOf = Fixed(r#"{"type": "GANLoss", "gan_type": "wgan"}"#);
const LSGAN: LossOf = Fixed(r#"{"type": "GANLoss", "gan_type": "lsgan"}"#);
const VANILLA: LossOf = Fixed(r#"{"type": "GANLoss", "gan_type": "vanilla"}"#);
const LOGISTIC: LossOf = Fixed(r#"{"type": "GANLoss", "gan_type": "wgan-logistic-ns"}"#);
const MSE: LossOf = Fixed(r#"{"type": "MSELoss"}"#);
const fn on_fake(loss: LossOf) -> TermRow {
    d(loss, "loss_disc_fake", FAKE).shall_be(false)
}
const fn on_real(loss: LossOf) -> TermRow {
    d(loss, "loss_disc_real", REAL).shall_be(true)
}
const fn of_generator(loss: LossOf) -> TermRow {
    g(loss, "loss_gen", FAKE_G).shall_be(true)
}
const SHIFT: LossOf = Fixed(r#"{"type": "DiscShiftLoss", "loss_weight": 0.0005}"#);
const GP_DATA: &[Take] = &[Out("disc"), Out("real_imgs"), Out("fake_imgs")];
const DENOISED: &[Take] = &[Out("model_pred"), Out("model_target")];

// DeblurGAN-v2: the step adds the content and the adversarial term to the total twice (`loss_g` is their sum).
const DOUBLE: When = When::Is("discriminator.backbone", "DoubleGan");
const SINGLE: When = When::IsNot("discriminator.backbone", "DoubleGan");
const PATCH_TAKES: &[Take] = &[Out("disc"), Out("fake_imgs"), Out("real_imgs")];
const FULL_TAKES: &[Take] = &[Out("disc_full"), Out("fake_imgs"), Out("real_imgs")];
const DEBLUR_D: TermRow =
    d(Field("disc_loss"), "loss_d", PATCH_TAKES).shall_be(true).times_field("adv_lambda", 0.001).when(&[SINGLE]);
const DEBLUR_G: TermRow = g(Field("disc_loss"), "loss_g_adv", PATCH_TAKES)
    .shall_be(true)
    .times(2.0)
    .times_field("adv_lambda", 0.001)
    .when(&[SINGLE]);

/// All models whose terms are a matter of a table; those with a `loss_config` are built by [`models`](super::models).
pub(crate) const MODELS: &[ModelTerms] = &[
    ModelTerms {
        types: &["BaseEditModel", "BasicInterpolator", "BasicVSR", "EDVR", "CAIN", "FLAVR", "LIIF"],
        source: "base_models.BaseEditModel.forward_train, editors.BasicVSR.forward_train",
        terms: &[o(Field("pixel_loss"), "loss", IMAGES)],
    },
    ModelTerms {
        types: &["TDAN"],
        source: "editors.TDAN.forward_train",
        terms: &[
            o(Field("pixel_loss"), "loss_pix", IMAGES),
            o(Field("lq_pixel_loss"), "loss_pix_lq", &[Out("aligned_imgs"), Out("lq_imgs")]),
        ],
    },
    ModelTerms {
        types: &["SRGAN"],
        source: "editors.SRGAN.g_step, d_step_real, d_step_fake",
        terms: &[SR_PIXEL, SR_PERCEPTUAL, SR_GAN_G, SR_GAN_REAL, SR_GAN_FAKE],
    },
    ModelTerms {
        types: &["ESRGAN"],
        source: "editors.ESRGAN.g_step, d_step_real, d_step_fake",
        terms: &[
            SR_PIXEL,
            SR_PERCEPTUAL,
            TermRow { takes: &[LessMean("disc_pred_fake_g", "disc_pred_real_g")], factor: 0.5, ..SR_GAN_G },
            TermRow { takes: &[LessMean("disc_pred_real_g", "disc_pred_fake_g")], factor: 0.5, ..SR_GAN_G }
                .shall_be(false),
            TermRow { takes: &[LessConstantMean("disc_pred_real", "disc_pred_fake")], factor: 0.5, ..SR_GAN_REAL },
            TermRow { takes: &[LessConstantMean("disc_pred_fake", "disc_pred_real")], factor: 0.5, ..SR_GAN_FAKE },
        ],
    },
    ModelTerms {
        types: &["RealESRGAN"],
        source: "editors.RealESRGAN.g_step, d_step_real, d_step_fake",
        terms: &[SHARP_PIXEL, SHARP_PERCEPTUAL, SR_GAN_G, SR_GAN_REAL, SR_GAN_FAKE],
    },
    ModelTerms {
        types: &["RealBasicVSR"],
        source: "editors.RealBasicVSR.g_step",
        terms: &[
            SHARP_PIXEL,
            SHARP_PERCEPTUAL,
            SR_GAN_G,
            g(Field("cleaning_loss"), "loss_clean", &[Out("clean_imgs"), Out("real_imgs_small")]),
            SR_GAN_REAL,
            SR_GAN_FAKE,
        ],
    },
    ModelTerms {
        types: &["TTSR"],
        source: "editors.TTSR.g_step",
        terms: &[
            SR_PIXEL,
            SR_PERCEPTUAL,
            g(
                Field("transferal_perceptual_loss"),
                "loss_transferal",
                &[Out("fake_textures"), Out("soft_attention"), Out("textures")],
            ),
            SR_GAN_G,
            SR_GAN_REAL,
            SR_GAN_FAKE,
        ],
    },
    ModelTerms {
        types: &["DIC"],
        source: "editors.DIC.g_step",
        terms: &[
            g(Field("pixel_loss"), "loss_pixel_v{i}", &[Out("fake_imgs_{i}"), Out("real_imgs")])
                .each("generator.num_steps", 4),
            g(Field("align_loss"), "loss_align_v{i}", &[Out("heatmaps_{i}"), Out("real_heatmaps")])
                .each("generator.num_steps", 4),
            g(Field("feature_loss"), "loss_feature", IMAGES),
            SR_GAN_G,
            SR_GAN_REAL,
            SR_GAN_FAKE,
        ],
    },
    ModelTerms {
        types: &["DeblurGanV2"],
        source: "editors.DeblurGanV2.g_step, d_step",
        terms: &[
            g(Field("pixel_loss"), "loss_g_content", IMAGES).named(&[("perceptual", "loss_g_content")]).times(0.012),
            g(MSE, "loss_g_content", &[ImageNet("fake_imgs"), ImageNet("real_imgs")]),
            DEBLUR_G,
            TermRow { when: &[DOUBLE], factor: 1.0, ..DEBLUR_G },
            TermRow { loss: CopyOf("disc_loss"), takes: FULL_TAKES, when: &[DOUBLE], factor: 1.0, ..DEBLUR_G },
            DEBLUR_D,
            TermRow { when: &[DOUBLE], factor: 0.5, ..DEBLUR_D },
            TermRow { loss: CopyOf("disc_loss"), takes: FULL_TAKES, when: &[DOUBLE], factor: 0.5, ..DEBLUR_D },
        ],
    },
    ModelTerms {
        types: &["OneStageInpaintor"],
        source: "base_models.OneStageInpaintor.generator_loss, forward_train_d, train_step",
        terms: &[
            IN_FAKE,
            IN_FAKE_SHIFT,
            IN_REAL,
            IN_REAL_SHIFT,
            IN_GP,
            IN_GAN_G,
            IN_HOLE,
            IN_VALID,
            IN_COMPOSED,
            IN_OUT,
            IN_TV,
        ],
    },
    ModelTerms {
        types: &["PConvInpaintor"],
        source: "editors.PConvInpaintor.train_step, base_models.OneStageInpaintor.generator_loss",
        terms: &[IN_GAN_G, IN_HOLE, IN_VALID, IN_COMPOSED, IN_OUT, IN_TV],
    },
    ModelTerms {
        types: &["GLInpaintor"],
        source: "editors.GLInpaintor.generator_loss, train_step, base_models.OneStageInpaintor.forward_train_d",
        terms: &[IN_FAKE, IN_FAKE_SHIFT, IN_REAL, IN_REAL_SHIFT, IN_GAN_G, IN_HOLE, IN_VALID],
    },
    ModelTerms {
        types: &["AOTInpaintor"],
        source: "editors.AOTInpaintor.generator_loss, forward_train_d, train_step",
        terms: &[
            TermRow { name: "disc_losses", takes: &[Out("disc_pred_real"), Out("mask")], ..IN_REAL },
            TermRow { name: "disc_losses", takes: &[Out("disc_pred_fake"), Out("mask")], ..IN_FAKE },
            TermRow { takes: &[Out("disc_pred_fake_g"), Out("mask")], ..IN_GAN_G },
            TermRow { takes: &[Out("fake_res"), Out("real_imgs")], ..IN_VALID },
            IN_OUT,
        ],
    },
    ModelTerms {
        types: &["TwoStageInpaintor"],
        source: "base_models.TwoStageInpaintor.calculate_loss_with_type, train_step",
        terms: &[
            IN_FAKE,
            IN_FAKE_SHIFT,
            IN_REAL,
            IN_REAL_SHIFT,
            TWO_STAGE_GP,
            staged!("stage1_", "stage1_loss_type", STAGE1, "loss_l1_hole"),
            staged!("stage1_", "stage1_loss_type", STAGE1, "loss_l1_valid"),
            staged!("stage1_", "stage1_loss_type", STAGE1, "loss_composed_percep"),
            staged!("stage1_", "stage1_loss_type", STAGE1, "loss_tv"),
            g(Field("loss_gan"), "stage1_loss_g_fake", &[Out("stage1_disc_pred_fake_g")])
                .shall_be(true)
                .when(&[When::NotNull("disc"), When::Lists("stage1_loss_type", "loss_gan", STAGE1)]),
            staged!("stage2_", "stage2_loss_type", STAGE2, "loss_l1_hole"),
            staged!("stage2_", "stage2_loss_type", STAGE2, "loss_l1_valid"),
            staged!("stage2_", "stage2_loss_type", STAGE2, "loss_composed_percep"),
            staged!("stage2_", "stage2_loss_type", STAGE2, "loss_tv"),
            g(Field("loss_gan"), "stage2_loss_g_fake", FAKE_G)
                .shall_be(true)
                .when(&[When::NotNull("disc"), When::Lists("stage2_loss_type", "loss_gan", STAGE2)]),
        ],
    },
    ModelTerms {
        types: &["DeepFillv1Inpaintor"],
        source: "editors.DeepFillv1Inpaintor.forward_train_d, calculate_loss_with_type, train_step",
        terms: &[
            TermRow { name: "fake_loss_global", takes: &[Out("disc_pred_fake_global")], ..IN_FAKE },
            TermRow { name: "fake_loss_local", takes: &[Out("disc_pred_fake_local")], ..IN_FAKE },
            TermRow { name: "loss_disc_shift_global", takes: &[Term("fake_loss_global")], ..IN_FAKE_SHIFT },
            TermRow { name: "loss_disc_shift_local", takes: &[Term("fake_loss_local")], ..IN_FAKE_SHIFT },
            TermRow { name: "real_loss_global", takes: &[Out("disc_pred_real_global")], ..IN_REAL },
            TermRow { name: "real_loss_local", takes: &[Out("disc_pred_real_local")], ..IN_REAL },
            TermRow { name: "loss_disc_shift_global", takes: &[Term("real_loss_global")], ..IN_REAL_SHIFT },
            TermRow { name: "loss_disc_shift_local", takes: &[Term("real_loss_local")], ..IN_REAL_SHIFT },
            d(
                Field("loss_gp"),
                "loss_gp_global",
                &[Out("disc_global"), Out("real_imgs"), Out("stage2_fake_imgs"), Out("mask")],
            )
            .when(GAN),
            d(Field("loss_gp"), "loss_gp_local", &[Out("disc_local"), Out("real_local"), Out("fake_local")]).when(GAN),
            staged!("stage1_", "stage1_loss_type", &[], "loss_l1_hole"),
            staged!("stage1_", "stage1_loss_type", &[], "loss_l1_valid"),
            staged!("stage1_", "stage1_loss_type", &[], "loss_composed_percep"),
            staged!("stage1_", "stage1_loss_type", &[], "loss_tv"),
            staged!("stage2_", "stage2_loss_type", &[], "loss_l1_hole"),
            staged!("stage2_", "stage2_loss_type", &[], "loss_l1_valid"),
            staged!("stage2_", "stage2_loss_type", &[], "loss_composed_percep"),
            staged!("stage2_", "stage2_loss_type", &[], "loss_tv"),
            g(Field("loss_gan"), "stage2_loss_g_fake", &[Out("disc_pred_fake_g_global")])
                .shall_be(true)
                .when(&[When::NotNull("disc"), When::Lists("stage2_loss_type", "loss_gan", &[])]),
            g(Field("loss_gan"), "stage2_loss_g_fake", &[Out("disc_pred_fake_g_local")])
                .shall_be(true)
                .when(&[When::NotNull("disc"), When::Lists("stage2_loss_type", "loss_gan", &[])]),
        ],
    },
    ModelTerms {
        types: &["DIM"],
        source: "editors.DIM._forward_train",
        terms: &[
            o(Field("loss_alpha"), "loss_alpha", ALPHA).when(&[When::NotOff("train_cfg.train_backbone")]),
            o(Field("loss_comp"), "loss_comp", COMPOSITION).when(&[When::NotOff("train_cfg.train_backbone")]),
            o(Field("loss_refine"), "loss_refine", &[Out("pred_refine"), Out("gt_alpha"), Out("unknown")])
                .when(&[When::NotOff("train_cfg.train_refiner"), When::NotNull("refiner")]),
        ],
    },
    ModelTerms {
        types: &["GCA"],
        source: "editors.GCA._forward_train",
        terms: &[o(Field("loss_alpha"), "loss", ALPHA)],
    },
    ModelTerms {
        types: &["IndexNet"],
        source: "editors.IndexNet._forward_train",
        terms: &[o(Field("loss_alpha"), "loss_alpha", ALPHA), o(Field("loss_comp"), "loss_comp", COMPOSITION)],
    },
    ModelTerms {
        types: &["DCGAN"],
        source: "editors.DCGAN.disc_loss, gen_loss",
        terms: &[on_fake(VANILLA), on_real(VANILLA), of_generator(VANILLA)],
    },
    ModelTerms {
        types: &["LSGAN"],
        source: "editors.LSGAN.disc_loss, gen_loss",
        terms: &[on_fake(LSGAN), on_real(LSGAN), of_generator(LSGAN)],
    },
    ModelTerms {
        types: &["GGAN", "SAGAN", "SNGAN", "BigGAN"],
        source: "editors.GGAN, editors.SAGAN, editors.BigGAN: disc_loss, gen_loss",
        terms: &[on_fake(HINGE), on_real(HINGE), of_generator(HINGE)],
    },
    ModelTerms {
        types: &["ProgressiveGrowingGAN", "PGGAN"],
        source: "editors.ProgressiveGrowingGAN.disc_loss, gen_loss",
        terms: &[
            on_fake(WGAN),
            on_real(WGAN),
            d(Fixed(r#"{"type": "GradientPenaltyLoss", "loss_weight": 10.0, "norm_mode": "HWC"}"#), "loss_gp", GP_DATA),
            d(SHIFT, "loss_disc_shift", FAKE),
            d(SHIFT, "loss_disc_shift", REAL),
            of_generator(WGAN),
        ],
    },
    ModelTerms {
        types: &["StyleGAN1", "StyleGANv1", "StyleGANV1"],
        source: "editors.StyleGAN1.disc_loss, gen_loss",
        terms: &[
            on_fake(LOGISTIC),
            on_real(LOGISTIC),
            d(
                Fixed(r#"{"type": "R1GradientPenaltyComps", "loss_weight": 10.0, "norm_mode": "HWC"}"#),
                "loss_r1_gp",
                &[Out("disc"), Out("real_imgs")],
            ),
            // MMagic's generator minimises WGAN's term.
            of_generator(WGAN),
        ],
    },
    ModelTerms {
        types: &["SinGAN", "PESinGAN"],
        source: "editors.SinGAN.disc_loss, gen_loss",
        terms: &[
            on_fake(WGAN),
            on_real(WGAN),
            d(
                Fixed(r#"{"type": "GradientPenaltyLoss", "loss_weight": 0.1, "norm_mode": "pixel"}"#),
                "loss_gp",
                GP_DATA,
            ),
            of_generator(WGAN),
            g(Fixed(r#"{"type": "MSELoss", "loss_weight": 10.0}"#), "loss_mse", &[Out("recon_imgs"), Out("real_imgs")]),
        ],
    },
    ModelTerms {
        types: &["StableDiffusion", "sd", "StableDiffusionInpaint", "sd-inpaint", "StableDiffusionXL", "sdxl"],
        source: "editors.StableDiffusion.train_step, editors.StableDiffusionXL.train_step",
        terms: &[o(MSE, "loss_mse", DENOISED)],
    },
    ModelTerms {
        types: &["TextualInversion", "ControlStableDiffusion", "ControlStableDiffusionImg2Img"],
        source: "editors.TextualInversion.train_step, editors.ControlStableDiffusion.train_step",
        terms: &[o(MSE, "loss", DENOISED)],
    },
    ModelTerms {
        types: &["DreamBooth"],
        source: "editors.DreamBooth.train_step",
        terms: &[
            o(MSE, "dreambooth_loss", DENOISED),
            o(MSE, "prior_loss", &[Out("prior_pred"), Out("prior_target")]).times_field("prior_loss_weight", 0.0),
        ],
    },
];

/// The row of a model's plain `type`.
pub(crate) fn model(name: &str) -> Option<&'static ModelTerms> {
    MODELS.iter().find(|row| row.types.contains(&name))
}
