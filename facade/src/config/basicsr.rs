//! Names and fields of BasicSR's option files (Real-ESRGAN's, NAFNet's and their descendants') and of traiNNer-redux, where
//! the loss is one of ours.
//!
//! What BasicSR 1.4.2's losses compute is taken over, also where its documentation says less: `GANFeatLoss` multiplies by
//! its `loss_weight` twice.

use image_losses_core::{Error, Result};
use serde_json::{Map, Value};

use super::fields::{join, refuse, unknown};

/// Names of other programs for the same loss. traiNNer-redux writes names in small letters.
const NAMES: [(&str, &str); 7] = [
    ("MultiScaleGANLoss", "GANLoss"),
    ("GANFeatLoss", "FeatureMatchingLoss"),
    ("WeightedTVLoss", "MaskedTVLoss"),
    ("l1loss", "L1Loss"),
    ("mseloss", "MSELoss"),
    ("charbonnierloss", "CharbonnierLoss"),
    ("ganloss", "GANLoss"),
];

/// The end of the keys under which BasicSR's option files have their losses: `pixel_opt`, `perceptual_opt`, `gan_opt`.
const KEY_END: &str = "_opt";

/// Our name of a loss that another program names so.
pub(crate) fn own_name_of(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
}

/// Rewrites the options of a loss of this name, as another program wrote them, into ours.
pub(crate) fn rewrite(name: &str, options: &mut Map<String, Value>, path: &str) -> Result<()> {
    match name {
        "PerceptualLoss" => perceptual(options, path),
        "PSNRLoss" => mean_alone("PSNRLoss", options, path),
        "WeightedTVLoss" => mean_alone("WeightedTVLoss", options, path),
        "GANFeatLoss" => feature_matching(options, path),
        _ => Ok(()),
    }
}

/// BasicSR's perceptual loss is told from MMagic's by `range_norm` or by its key. It takes images in [0, 1] by default, and
/// has no style term unless it is weighted.
fn perceptual(options: &mut Map<String, Value>, path: &str) -> Result<()> {
    let is_keyed = path.rsplit('.').next().is_some_and(|key| key.ends_with(KEY_END));
    if !is_keyed && !options.contains_key("range_norm") {
        return Ok(());
    }
    let range = options.shift_remove("range_norm").unwrap_or(Value::Bool(false));
    if options.contains_key("norm_img") {
        let message = "`range_norm` (BasicSR's) and `norm_img` (MMagic's) say the same: give one";
        return Err(refuse(&join(path, "norm_img"), message));
    }
    if !range.is_boolean() {
        return Err(refuse(&join(path, "range_norm"), format!("expected a switch, got {range}")));
    }
    options.insert("norm_img".to_owned(), range);
    options.entry("style_weight").or_insert_with(|| 0.into());
    Ok(())
}

/// Takes away a `reduction` that says what the loss does anyway; refuses another.
fn mean_alone(owner: &'static str, options: &mut Map<String, Value>, path: &str) -> Result<()> {
    match options.shift_remove("reduction") {
        None => Ok(()),
        Some(Value::String(word)) if word == "mean" => Ok(()),
        Some(other) => {
            let got = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            Err(Error::option(owner, "reduction", "`mean`, the only one here", got).at(path))
        }
    }
}

/// λ of the criterion and λ of the sum: λ².
fn feature_matching(options: &mut Map<String, Value>, path: &str) -> Result<()> {
    mean_alone("GANFeatLoss", options, path)?;
    if let Some(weight) = options.get("loss_weight").and_then(Value::as_f64) {
        options.insert("loss_weight".to_owned(), (weight * weight).into());
    }
    match options.get("criterion").and_then(Value::as_str) {
        None | Some("l1") => Ok(()),
        Some("l2") => {
            options.insert("criterion".to_owned(), "mse".into());
            Ok(())
        }
        Some(other) => Err(unknown(join(path, "criterion"), "value", other, ["l1", "l2"])),
    }
}
