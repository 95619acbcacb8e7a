//! No name from a document, a checkpoint or a case reaches the terminal with a control character in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Clears the screen; the second is the same in one character of the C1 set.
const CLEAR: &str = "\u{1b}[2J\u{9b}2J\u{7}";

fn xtask(arguments: &[&str], file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments).arg(file).output().unwrap()
}

/// Both outputs, which have no control characters but the ends of lines and those given.
fn harmless(output: &Output, but: &[char]) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let found = text.chars().find(|&c| c.is_control() && c != '\n' && !but.contains(&c));
        assert_eq!(found, None, "{text:?}");
        text
    })
}

fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("terminal").join(name);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, bytes).unwrap();
    place
}

#[test]
fn a_document_is_escaped() {
    let hostile = format!("{CLEAR}Loss");
    let document = serde_json::json!({
        hostile.clone(): {"type": hostile.clone()},
        "a\tb\nc": [{"type": "L1Loss"}, {"type": "L1Loss", hostile.clone(): 1}],
        "face": {"type": "LightCNNFeatureLoss", "pretrained": hostile.clone()},
        "gan": {"gan_loss": {"type": "GANLoss", "gan_type": "hinge"},
                "gen_auxiliary_loss": {"type": "L1Loss", "loss_name": CLEAR}},
    });
    let file = scratch("document.json", serde_json::to_string(&document).unwrap().as_bytes());
    let [out, err] = harmless(&xtask(&["config", "check"], &file), &[]);
    assert!(out.contains(r"\u{1b}[2J\u{9b}2J\u{7}Loss") && out.contains(r"a\tb\nc.0"), "{out}");
    assert!(out.ends_with("4 built, 2 failed\n"), "{out}");
    assert!(err.contains("the checkpoint `\\u{1b}") && err.contains("is only logged"), "{err}");
}

#[test]
fn every_line_of_tsv_is_a_row() {
    let document = serde_json::json!({"a\tb\n": {"type": "L1Loss"}, "c\\": {"type": format!("x\r\n\t{CLEAR}Loss")}});
    let file = scratch("rows.json", serde_json::to_string(&document).unwrap().as_bytes());
    let output = xtask(&["config", "check", "--format", "tsv"], &file);
    let [out, err] = harmless(&output, &['\t']);
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4], "{out:?}");
    assert_eq!(rows[0][1..], [r"a\tb\n", "L1Loss", "ok"]);
    assert_eq!(rows[1][1..3], [r"c\\", r"x\r\n\t\u{1b}[2J\u{9b}2J\u{7}Loss"]);
    assert!(err.ends_with("1 built, 1 failed\n"), "{err}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_error_is_escaped() {
    for (name, text) in [("broken.toml", format!("a = {CLEAR}\n")), ("broken.json", format!("{{\"{CLEAR}\": 1, x}}"))] {
        let output = xtask(&["config", "check"], &scratch(name, text.as_bytes()));
        harmless(&output, &[]);
        assert_eq!(output.status.code(), Some(1));
    }
    let none = PathBuf::from(format!("no{CLEAR}.json"));
    let [out, _] = harmless(&xtask(&["config", "check"], &none), &[]);
    assert!(out.contains(r"no\u{1b}[2J"), "{out}");
    let [_, err] = harmless(&xtask(&["weights", "inspect"], &none), &[]);
    assert!(err.starts_with("error: no\\u{1b}"), "{err}");
}

#[test]
fn an_unreadable_file_does_not_stop_the_others() {
    let good = scratch("good.json", br#"{"pixel_loss": {"type": "L1Loss"}}"#);
    let without = scratch("without.json", br#"{"a": 1}"#);
    for format in ["tsv", "table"] {
        let without = without.to_str().unwrap();
        let output = xtask(&["config", "check", "--format", format, "nowhere.json", without], &good);
        let [out, err] = harmless(&output, &['\t']);
        let found = |words: &[&str]| out.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found(&["nowhere.json", "document"]) && found(&["without.json", "no loss"]), "{out}");
        assert!(found(&["good.json", "pixel_loss", "ok"]), "{out}");
        assert!(format!("{out}{err}").contains("1 built, 2 failed"), "{out}{err}");
        assert_eq!(output.status.code(), Some(1));
    }
}

/// A file in the format safetensors with two tensors of hostile names and this metadata.
fn tensors(metadata: serde_json::Value) -> Vec<u8> {
    let tensor = |from: usize| serde_json::json!({"dtype": "F32", "shape": [1], "data_offsets": [from, from + 4]});
    let header = serde_json::json!({
        "__metadata__": metadata,
        format!("{CLEAR}.weight"): tensor(0),
        format!("{CLEAR}.bias"): tensor(4),
    });
    let header = serde_json::to_string(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()
}

#[test]
fn a_checkpoint_is_escaped() {
    let file = scratch("checkpoint.safetensors", &tensors(serde_json::json!({})));
    let [out, _] = harmless(&xtask(&["weights", "inspect"], &file), &[]);
    assert!(out.contains(r"\u{1b}[2J"), "{out}");
    let [out, _] = harmless(&xtask(&["weights", "inspect", "--format", "json"], &file), &[]);
    let described: serde_json::Value = serde_json::from_str(&out).unwrap();
    let names: Vec<&str> =
        described[0]["tensors"].as_array().unwrap().iter().map(|tensor| tensor["name"].as_str().unwrap()).collect();
    assert!(names.iter().any(|name| name.contains("weight")), "{names:?}");
}

#[test]
fn a_reference_case_is_escaped() {
    let case = serde_json::json!({"loss": {"type": format!("{CLEAR}Loss")}}).to_string();
    let file = scratch("cases/family/case.safetensors", &tensors(serde_json::json!({"case": case})));
    let folder = file.parent().unwrap().parent().unwrap();
    let arguments = ["verify", "--dtype", "f64", "--reference"];
    let [out, _] = harmless(&xtask(&arguments, folder), &[]);
    assert!(out.contains(r"FAILED family/case: the tensor `\u{1b}"), "{out}");
    let [out, _] = harmless(&xtask(&["verify", "--format", "json", "--reference"], folder), &[]);
    assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
}
