//! The program `image-losses`.
#![cfg(feature = "cli")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_image-losses")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn in_workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn losses_are_listed_with_formula_and_options() {
    let losses: Vec<Value> = serde_json::from_slice(&run(&["list", "--format", "json"]).stdout).unwrap();
    let named = |name: &str| losses.iter().find(|loss| loss["type"] == name).unwrap();
    let eps = &named("CharbonnierLoss")["options"].as_array().unwrap().iter().find(|o| o["name"] == "eps").unwrap()["default"];
    assert_eq!(eps, 1e-12);
    assert!(named("L1Loss")["formula"].as_str().unwrap().contains("x − y"));
    let kind = &named("GANLoss")["options"][0];
    assert_eq!((&kind["name"], &kind["required"]), (&"gan_type".into(), &true.into()));
    // A name that a configuration may have is found, and one that none has is named.
    let one = run(&["list", "mmagic.L1Loss"]);
    assert!(text(&one.stdout).starts_with("L1Loss: ") && text(&one.stdout).contains("loss_weight"));
    let short = text(&run(&["list", "--short"]).stdout);
    assert_eq!(short.lines().count(), losses.len());
    let unknown = run(&["list", "L\u{1b}3"]);
    assert_eq!((unknown.status.code(), text(&unknown.stderr).contains("`L\\u{1b}3` is no loss")), (Some(2), true));
}

#[test]
fn documents_are_checked_and_checkpoints_looked_into() {
    let good = in_workspace("facade/examples/configurations/restore.toml");
    let output = run(&["check", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run(&["check", in_workspace("Cargo.toml").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let weights = in_workspace("perceptual/tests/data/zip_training.pth");
    let output = run(&["weights", weights.to_str().unwrap()]);
    assert!(text(&output.stdout).contains("zip .pth") && output.status.success(), "{output:?}");
    assert_eq!(run(&["weights", "nowhere"]).status.code(), Some(2));
    let schema: Value = serde_json::from_slice(&run(&["schema"]).stdout).unwrap();
    assert!(schema["$defs"]["loss"]["allOf"].as_array().unwrap().len() > 30);
}
