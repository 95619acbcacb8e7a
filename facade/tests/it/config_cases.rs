//! Documents as people have them, each with the outcome that it must have.
//!
//! `expect` is `ok` (every loss builds, and the document is an objective) or `error` (refused, in words that contain those
//! of `says`); the words of an `ok` are those of a missing checkpoint. `raw` are texts of files.
#![cfg(all(
    feature = "config",
    feature = "pixelwise",
    feature = "gan",
    feature = "penalties",
    feature = "vgg",
    feature = "face-id",
    feature = "clip"
))]

use image_losses::config::check::{Findings, check};
use image_losses::config::{BuildContext, Registry, Syntax, parse};
use image_losses::objective::Objective;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
    raw: Vec<Case>,
    basicsr: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    document: Value,
    #[serde(default)]
    file: String,
    #[serde(default)]
    text: String,
    expect: String,
    #[serde(default)]
    says: Vec<String>,
}

impl Case {
    fn assert_says(&self, text: &str) {
        for word in &self.says {
            assert!(text.contains(word.as_str()), "{}: no `{word}` in: {text}", self.name);
        }
    }

    /// The findings are those expected.
    fn assert_found(&self, findings: &Findings) {
        let errors: Vec<String> =
            findings.rows.iter().filter_map(|row| Some(row.error.as_ref()?.to_string())).collect();
        if self.expect == "ok" {
            assert!(errors.is_empty() && !findings.rows.is_empty(), "{}: {errors:?}", self.name);
            let missing: Vec<&str> = findings.rows.iter().flat_map(|row| &row.missing).map(String::as_str).collect();
            self.assert_says(&missing.join("\n"));
        } else {
            assert!(!errors.is_empty(), "{}: no error", self.name);
            self.assert_says(&errors.join("\n"));
        }
    }
}

fn cases() -> Cases {
    serde_json::from_str(include_str!("../cases/configs.json")).unwrap()
}

/// Looks up no checkpoints of the machine's.
fn context() -> BuildContext {
    BuildContext { weights_directory: Some("nowhere".into()), ..BuildContext::default() }
}

#[test]
fn documents_have_their_outcome() {
    let registry = Registry::standard();
    for case in cases().cases {
        case.assert_found(&check(&registry, &case.document, &context()));
        let seeded = BuildContext { seeded: Some(7), ..context() };
        let objective = Objective::build(&registry, &case.document, "", &seeded);
        match (case.expect.as_str(), objective) {
            ("ok", objective) => drop(objective.unwrap_or_else(|error| panic!("{}: {error}", case.name))),
            (_, Ok(_)) => panic!("{}: it is an objective", case.name),
            (_, Err(error)) => case.assert_says(&error.to_string()),
        }
    }
}

#[test]
fn files_have_their_outcome() {
    for case in cases().raw {
        let syntax = match case.file.rsplit('.').next() {
            Some("json") => Syntax::Json,
            #[cfg(feature = "yaml")]
            Some("yaml") => Syntax::Yaml,
            #[cfg(feature = "toml")]
            Some("toml") => Syntax::Toml,
            _ => continue,
        };
        let document = parse(&case.text, syntax).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        case.assert_found(&check(&Registry::standard(), &document, &context()));
    }
}

#[test]
fn option_files_have_their_outcome() {
    for case in cases().basicsr {
        case.assert_found(&check(&Registry::standard(), &case.document, &context()));
    }
}

#[test]
fn names_are_read_at_every_depth_and_what_is_passed_over_is_noted() {
    let build = |document: Value| {
        let context = BuildContext { seeded: Some(7), ..context() };
        Registry::standard().build(&document, "loss", &context)
    };
    let face = |facenet: Value| serde_json::json!({"type": "mmagic.FaceIdLoss", "facenet": facenet});
    for name in ["ArcFace", "mmagic.ArcFace", "mmagic.models.editors.arcface.id_loss.IDLossModel"] {
        let facenet = serde_json::json!({"type": name, "_scope_": "mmagic", "device": "cuda", "map_location": "cpu"});
        let loss = build(face(facenet)).unwrap();
        let noted: Vec<String> = loss.notes().iter().map(ToString::to_string).collect();
        assert!(noted.len() == 2 && noted[0].starts_with("loss.facenet.device is passed over"), "{noted:?}");
        assert_eq!(loss.to_value().unwrap()["facenet"]["type"], "ArcFace");
    }
    let refused = |document: Value, words: [&str; 2]| {
        let error = build(document).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(face(serde_json::json!({"type": "mmdet.ArcFace"})), ["loss.facenet.type", "`mmdet`"]);
    refused(serde_json::json!({"type": "L1Loss", "_scope_": "mmdet"}), ["loss._scope_", "mmdet"]);
    // Where a loss itself is computed is no option of it.
    refused(serde_json::json!({"type": "L1Loss", "device": "cuda"}), ["loss.device", "field"]);
    // The values of a short list are named.
    refused(serde_json::json!({"type": "L1Loss", "reduction": "avg"}), ["`avg`", "`none`, `mean`, `sum`"]);
    // A note comes once, wherever it was found.
    let document = serde_json::json!({"model": {"type": "BaseGAN", "loss_config": {
        "gan_loss": {"type": "GANLoss", "gan_type": "hinge"},
        "gen_auxiliary_loss": face(serde_json::json!({"type": "ArcFace", "device": "cuda"})),
    }}});
    let findings = check(&Registry::standard(), &document, &context());
    assert_eq!(findings.notes.len(), 1, "{:?}", findings.notes);
}
