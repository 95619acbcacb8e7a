//! The objectives that MMagic's models have in their code: what their `loss_config` says.

use image_losses_core::{Result, finite, not_negative};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Builder, Objective, Side, Source};
use crate::config::fields::{fields_of, read_options, refuse};
use crate::config::names::own_name;
use crate::config::{BuildContext, Registry, to_value};

/// A model whose objective is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Model {
    /// StyleGAN2, StyleGAN3 and MSPIEStyleGAN2: [`StyleGan2Config`].
    StyleGan2,
    /// WGANGP: [`WganGpConfig`].
    WganGp,
    /// CycleGAN: [`CycleGanConfig`].
    CycleGan,
    /// Pix2Pix: [`Pix2PixConfig`].
    Pix2Pix,
}

/// Models whose losses stand in a `loss_config` with a `gan_loss`.
pub(super) const CONFIGURED: [&str; 3] = ["BaseGAN", "BaseConditionalGAN", "EG3D"];

impl Model {
    /// The model of a `type`. `mmagic.StyleGAN2` and the full path of MMagic's class are `StyleGAN2`.
    pub fn of(name: &str) -> Option<Self> {
        match own_name(name).ok()? {
            "StyleGAN2" | "StyleGAN3" | "MSPIEStyleGAN2" => Some(Model::StyleGan2),
            "WGANGP" => Some(Model::WganGp),
            "CycleGAN" => Some(Model::CycleGan),
            "Pix2Pix" => Some(Model::Pix2Pix),
            _ => None,
        }
    }

    /// The names that [`of`](Model::of) knows.
    pub const TYPES: [&'static str; 6] = ["StyleGAN2", "StyleGAN3", "MSPIEStyleGAN2", "WGANGP", "CycleGAN", "Pix2Pix"];

    /// The fields of its `loss_config`.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Model::StyleGan2 => fields_of::<StyleGan2Config>(),
            Model::WganGp => fields_of::<WganGpConfig>(),
            Model::CycleGan => fields_of::<CycleGanConfig>(),
            Model::Pix2Pix => fields_of::<Pix2PixConfig>(),
        }
    }
}

/// `loss_config` of StyleGAN2, StyleGAN3 and MSPIEStyleGAN2.
///
/// Terms of the discriminator: `loss_disc_fake` = mean softplus(fake), `loss_disc_real` = mean softplus(−real),
/// `loss_r1_gp`; of the generator: `loss_gen` = mean softplus(−fake), `loss_path_regular`. A weight of 0 leaves its
/// penalty out. The mixed-precision switches mean loss scaling: the network's output is multiplied by the output
/// `loss_scaler` (a number; 1024 where the training step offers none) before the inner gradient, which is divided by it
/// after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StyleGan2Config {
    /// λ of R1.
    pub r1_loss_weight: f64,
    /// R1 acts in every so many iterations.
    pub r1_interval: u64,
    /// Over what R1's norm is taken: `pixel` or `HWC`.
    pub norm_mode: String,
    /// The path regulariser acts in every so many iterations.
    pub g_reg_interval: u64,
    /// λ of the path regulariser.
    pub g_reg_weight: f64,
    /// The path regulariser's batch is this many times smaller.
    pub pl_batch_shrink: usize,
    /// R1's inner gradient is taken with loss scaling.
    pub scale_r1_loss: bool,
    /// The same.
    pub r1_use_apex_amp: bool,
    /// The path regulariser's inner gradient is taken with loss scaling.
    pub g_reg_use_apex_amp: bool,
}

impl Default for StyleGan2Config {
    fn default() -> Self {
        StyleGan2Config {
            r1_loss_weight: 80.0,
            r1_interval: 16,
            norm_mode: "pixel".to_owned(),
            g_reg_interval: 4,
            g_reg_weight: 8.0,
            pl_batch_shrink: 2,
            scale_r1_loss: false,
            r1_use_apex_amp: false,
            g_reg_use_apex_amp: false,
        }
    }
}

/// `loss_config` of WGANGP.
///
/// Terms of the discriminator: `loss_disc_fake` = mean(fake), `loss_disc_real` = −mean(real), `loss_gp`; of the
/// generator: `loss_gen` = −mean(fake). Both spellings of the keys work: MMagic's configurations have the first, its
/// code reads the second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WganGpConfig {
    /// Over what the penalty's norm is taken: `pixel` or `HWC`.
    #[serde(alias = "norm_mode")]
    pub gp_norm_mode: String,
    /// λ of the penalty.
    #[serde(alias = "loss_weight")]
    pub gp_loss_weight: f64,
}

impl Default for WganGpConfig {
    fn default() -> Self {
        WganGpConfig { gp_norm_mode: "HWC".to_owned(), gp_loss_weight: 10.0 }
    }
}

/// `loss_config` of CycleGAN.
///
/// For each domain d of `reachable_domains` (in MMagic a field of the model; `a` and `b` where it has none), terms of the
/// discriminators: `loss_gan_d_{d}` = ½(mean `disc_pred_fake_{d}`² + mean (`disc_pred_real_{d}` − 1)²); of the
/// generators: `loss_gan_g_{d}` = mean (`disc_pred_fake_g_{d}` − 1)²; over both domains `cycle_loss` =
/// λ Σ mean abs(`cycle_{d}` − `real_{d}`) and `id_loss` = λ Σ mean abs(`identity_{d}` − `real_{d}`). A weight of 0 leaves
/// its term out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CycleGanConfig {
    /// λ of the cycle.
    pub cycle_loss_weight: f64,
    /// λ of the identity.
    pub id_loss_weight: f64,
}

impl Default for CycleGanConfig {
    fn default() -> Self {
        CycleGanConfig { cycle_loss_weight: 10.0, id_loss_weight: 0.5 }
    }
}

/// `loss_config` of Pix2Pix.
///
/// Terms of the discriminator, with ½ in each: `loss_gan_d_fake`, `loss_gan_d_real`, the cross-entropies of
/// `disc_pred_fake` and `disc_pred_real`; of the generator: `loss_gan_g`, that of `disc_pred_fake_g`, and `loss_pixel` =
/// λ mean abs(real − fake) of `real_{d}` and `fake_{d}`, d the model's `default_domain`; of `real_imgs` and `fake_imgs`
/// where it has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pix2PixConfig {
    /// λ of the absolute error.
    pub pixel_loss_weight: f64,
}

impl Default for Pix2PixConfig {
    fn default() -> Self {
        Pix2PixConfig { pixel_loss_weight: 100.0 }
    }
}

/// An output that must be there.
fn output(name: impl Into<String>) -> Source {
    Source::Output { name: name.into(), required: true }
}

/// An output that may be there.
fn if_there(name: &str) -> Source {
    Source::Output { name: name.to_owned(), required: false }
}

/// Checks a number of a `loss_config`.
fn checked(result: Result<()>, path: &str) -> Result<()> {
    result.map_err(|error| error.at(path))
}

/// The objective of a model's `loss_config`; the model's mapping tells the domains.
pub(super) fn build(
    model: Model,
    mapping: &Map<String, Value>,
    registry: &Registry,
    path: &str,
    context: &BuildContext,
) -> Result<Objective> {
    let config = mapping.get("loss_config").cloned().unwrap_or_else(|| json!({}));
    let config = if config.is_null() { json!({}) } else { config };
    let mut parts = Builder::new(registry, path, context);
    let config = match model {
        Model::StyleGan2 => style_gan2(&mut parts, read_options(config, path)?)?,
        Model::WganGp => wgan_gp(&mut parts, read_options(config, path)?)?,
        Model::CycleGan => cycle_gan(&mut parts, read_options(config, path)?, mapping)?,
        Model::Pix2Pix => pix2pix(&mut parts, read_options(config, path)?, mapping)?,
    };
    let mut value = Map::new();
    for key in ["type", "reachable_domains", "default_domain"] {
        if let Some(field) = mapping.get(key) {
            value.insert(key.to_owned(), field.clone());
        }
    }
    value.insert("loss_config".to_owned(), config);
    parts.finish(Value::Object(value))
}

fn style_gan2(parts: &mut Builder<'_>, config: StyleGan2Config) -> Result<Value> {
    let owner = "StyleGAN2";
    checked(finite(owner, "r1_loss_weight", config.r1_loss_weight), parts.path())?;
    checked(finite(owner, "g_reg_weight", config.g_reg_weight), parts.path())?;
    for (option, interval) in [("r1_interval", config.r1_interval), ("g_reg_interval", config.g_reg_interval)] {
        if interval == 0 {
            return Err(image_losses_core::Error::option(owner, option, "at least 1", 0).at(parts.path()));
        }
    }
    if config.pl_batch_shrink == 0 {
        return Err(image_losses_core::Error::option(owner, "pl_batch_shrink", "at least 1", 0).at(parts.path()));
    }
    let place = parts.path().to_owned();
    parts.adversarial(&json!({"type": "GANLoss", "gan_type": "wgan-logistic-ns"}), &place)?;
    if config.r1_loss_weight != 0.0 {
        let scaled = config.scale_r1_loss || config.r1_use_apex_amp;
        let loss = json!({
            "type": "R1GradientPenaltyComps",
            "loss_weight": config.r1_loss_weight,
            "interval": config.r1_interval,
            "norm_mode": config.norm_mode,
            "use_apex_amp": scaled,
        });
        let mut sources = vec![("discriminator", output("disc")), ("real_data", output("real_imgs"))];
        if scaled {
            sources.push(("loss_scaler", if_there("loss_scaler")));
        }
        parts.add(Side::Discriminator, "loss_r1_gp", &loss, sources, 1.0)?;
    }
    if config.g_reg_weight != 0.0 {
        let loss = json!({
            "type": "GeneratorPathRegularizerComps",
            "loss_weight": config.g_reg_weight,
            "interval": config.g_reg_interval,
            "pl_batch_shrink": config.pl_batch_shrink,
            "use_apex_amp": config.g_reg_use_apex_amp,
        });
        let mut sources = vec![
            ("generator", output("gen")),
            ("latents", output("latents")),
            ("num_batches", if_there("batch_size")),
            ("noise", if_there("path_noise")),
            ("processes", if_there("processes")),
        ];
        if config.g_reg_use_apex_amp {
            sources.push(("loss_scaler", if_there("loss_scaler")));
        }
        parts.add(Side::Generator, "loss_path_regular", &loss, sources, 1.0)?;
    }
    to_value(&config)
}

fn wgan_gp(parts: &mut Builder<'_>, config: WganGpConfig) -> Result<Value> {
    checked(finite("WGANGP", "gp_loss_weight", config.gp_loss_weight), parts.path())?;
    let place = parts.path().to_owned();
    parts.adversarial(&json!({"type": "GANLoss", "gan_type": "wgan"}), &place)?;
    if config.gp_loss_weight != 0.0 {
        let loss = json!({
            "type": "GradientPenaltyLoss",
            "loss_weight": config.gp_loss_weight,
            "norm_mode": config.gp_norm_mode,
        });
        let sources = vec![
            ("discriminator", output("disc")),
            ("real_data", output("real_imgs")),
            ("fake_data", output("fake_imgs")),
            ("alpha", if_there("alpha")),
        ];
        parts
            .add(Side::Discriminator, "loss_gp", &loss, sources, 1.0)
            .map_err(|error| gp_spelling(error, parts.path()))?;
    }
    to_value(&config)
}

/// The penalty's own option stands in the document with the model's spelling.
fn gp_spelling(error: image_losses_core::Error, path: &str) -> image_losses_core::Error {
    match error {
        image_losses_core::Error::UnknownName { path: place, kind, name, nearest, known }
            if place == format!("{path}.norm_mode") =>
        {
            let path = format!("{path}.gp_norm_mode");
            image_losses_core::Error::UnknownName { path, kind, name, nearest, known }
        }
        error => error,
    }
}

fn cycle_gan(parts: &mut Builder<'_>, config: CycleGanConfig, model: &Map<String, Value>) -> Result<Value> {
    checked(not_negative("CycleGAN", "cycle_loss_weight", config.cycle_loss_weight), parts.path())?;
    checked(not_negative("CycleGAN", "id_loss_weight", config.id_loss_weight), parts.path())?;
    let domains: Vec<String> = match model.get("reachable_domains") {
        None | Some(Value::Null) => vec!["a".to_owned(), "b".to_owned()],
        Some(domains) => serde_json::from_value(domains.clone())
            .map_err(|_| refuse(parts.path(), "`reachable_domains` is a list of words"))?,
    };
    let lsgan = json!({"type": "GANLoss", "gan_type": "lsgan"});
    for domain in &domains {
        for (kind, real) in [("fake", false), ("real", true)] {
            let scores = output(format!("disc_pred_{kind}_{domain}"));
            let sources =
                vec![("input", scores), ("target_is_real", Source::Flag(real)), ("is_disc", Source::Flag(true))];
            parts.add(Side::Discriminator, &format!("loss_gan_d_{domain}"), &lsgan, sources, 0.5)?;
        }
        let sources = vec![
            ("input", output(format!("disc_pred_fake_g_{domain}"))),
            ("target_is_real", Source::Flag(true)),
            ("is_disc", Source::Flag(false)),
        ];
        parts.add(Side::Generator, &format!("loss_gan_g_{domain}"), &lsgan, sources, 1.0)?;
    }
    let likenesses =
        [("cycle_loss", "cycle", config.cycle_loss_weight), ("id_loss", "identity", config.id_loss_weight)];
    for (name, image, weight) in likenesses {
        if weight == 0.0 {
            continue;
        }
        for domain in &domains {
            let sources =
                vec![("pred", output(format!("{image}_{domain}"))), ("target", output(format!("real_{domain}")))];
            parts.add(Side::Generator, name, &json!({"type": "L1Loss", "loss_weight": weight}), sources, 1.0)?;
        }
    }
    to_value(&config)
}

fn pix2pix(parts: &mut Builder<'_>, config: Pix2PixConfig, model: &Map<String, Value>) -> Result<Value> {
    checked(finite("Pix2Pix", "pixel_loss_weight", config.pixel_loss_weight), parts.path())?;
    let vanilla = json!({"type": "GANLoss", "gan_type": "vanilla"});
    for (kind, real) in [("fake", false), ("real", true)] {
        let scores = output(format!("disc_pred_{kind}"));
        let sources = vec![("input", scores), ("target_is_real", Source::Flag(real)), ("is_disc", Source::Flag(true))];
        parts.add(Side::Discriminator, &format!("loss_gan_d_{kind}"), &vanilla, sources, 0.5)?;
    }
    let sources = vec![
        ("input", output("disc_pred_fake_g")),
        ("target_is_real", Source::Flag(true)),
        ("is_disc", Source::Flag(false)),
    ];
    parts.add(Side::Generator, "loss_gan_g", &vanilla, sources, 1.0)?;
    if config.pixel_loss_weight != 0.0 {
        let domain = model.get("default_domain").and_then(Value::as_str);
        let image = |kind: &str| output(domain.map_or(format!("{kind}_imgs"), |domain| format!("{kind}_{domain}")));
        let sources = vec![("pred", image("fake")), ("target", image("real"))];
        let loss = json!({"type": "L1Loss", "loss_weight": config.pixel_loss_weight});
        parts.add(Side::Generator, "loss_pixel", &loss, sources, 1.0)?;
    }
    to_value(&config)
}
