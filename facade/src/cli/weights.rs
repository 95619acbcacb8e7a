//! What a checkpoint holds, and which network it fits.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use comfy_table::{Cell, CellAlignment, Table, presets};
use image_losses_perceptual::checkpoint::{Checkpoint, Entry};
use image_losses_perceptual::networks::{Fit, fits, located};
use serde_json::json;

use super::{Outcome, Stop, escape};

/// How many tensors the table has without `--all`, and how many names a list.
const SHOWN: usize = 20;
/// How many networks that a file does not fit are named.
const NEAR: usize = 3;
/// What a checkpoint of CLIP does not tell.
const CLIP: &str = "CLIP's activation and the width of its heads are not in the file: OpenAI's models have \
                    `activation: quick_gelu` and `head_width: 64`, the defaults; OpenCLIP's models have `activation: gelu` \
                    unless their name ends with `quickgelu`, and ViT-H/14 has `head_width: 80`";

/// Print what checkpoints hold and which of the frozen networks they fit.
///
/// Reads safetensors, `.pth` in each of PyTorch's formats, and TorchScript archives; the content tells which, not the
/// name. Nothing in a file is executed, and no tensor's elements are read. Where no network fits, the closest ones are
/// listed with what is missing, unknown to them or of another shape. A network that lies under a key or a prefix is
/// named with the option `prefix` that reads it. A loss with taps at early layers needs only
/// the tensors up to its last tap.
///
/// Exit codes: 0 every file was read, 2 one could not be.
#[derive(Debug, Args)]
pub struct Weights {
    /// Checkpoints.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// List every tensor and every name, not only the first 20.
    #[arg(long)]
    all: bool,
    /// `json`: an object per file in one array, complete.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How a checkpoint is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Weights {
    /// Runs the command.
    ///
    /// # Errors
    /// What cannot be read, in words.
    pub fn run(&self) -> Result<Outcome, Stop> {
        let open = |file: &PathBuf| Checkpoint::open(file).map_err(|error| error.to_string());
        match self.format {
            Format::Json => {
                let described =
                    self.files.iter().map(|file| Ok(describe(&open(file)?))).collect::<Result<Vec<_>, Stop>>()?;
                let text = serde_json::to_string_pretty(&described).map_err(|error| error.to_string())?;
                println!("{}", escape::json(&text));
            }
            Format::Table => {
                for (number, file) in self.files.iter().enumerate() {
                    if number > 0 {
                        println!();
                    }
                    print(&open(file)?, self.all);
                }
            }
        }
        Ok(Outcome::Success)
    }
}

/// The bytes that a tensor's elements take.
fn bytes(entry: &Entry) -> u128 {
    entry.elements() as u128 * entry.dtype().size() as u128
}

/// A file for programs.
fn describe(checkpoint: &Checkpoint) -> serde_json::Value {
    let tensors: Vec<_> = checkpoint
        .iter()
        .map(|(name, entry)| json!({ "name": name, "dtype": entry.dtype().to_string(), "shape": entry.shape() }))
        .collect();
    let wrapping = checkpoint.wrapping();
    let fits = fits(checkpoint);
    let located: Vec<_> = located(checkpoint)
        .into_iter()
        .map(|found| json!({ "network": found.network, "prefix": found.prefix }))
        .collect();
    let unread: Vec<_> = checkpoint.unread().iter().map(|(name, class)| json!({ "name": name, "is": class })).collect();
    json!({
        "file": checkpoint.path(),
        "format": checkpoint.format().to_string(),
        "opened": wrapping.dictionaries,
        "prefix": wrapping.prefix,
        "passed_over": wrapping.passed_over,
        "unread": unread,
        "located": located,
        "tensors": tensors,
        "elements": checkpoint.iter().map(|(_, entry)| entry.elements() as u64).sum::<u64>(),
        "fits": fits.iter().filter(|fit| fit.is_exact()).map(|fit| fit.network.as_str()).collect::<Vec<_>>(),
        "near": fits.iter().filter(|fit| !fit.is_exact()).take(NEAR).map(near).collect::<Vec<_>>(),
    })
}

/// A network that a file does not fit, for programs.
fn near(fit: &Fit) -> serde_json::Value {
    json!({
        "network": fit.network,
        "matched": fit.matched,
        "missing": fit.missing,
        "unexpected": fit.unexpected,
        "mismatched": fit.mismatched,
    })
}

/// A file for people.
fn print(checkpoint: &Checkpoint, all: bool) {
    let limit = if all { usize::MAX } else { SHOWN };
    println!("{}: {}", escape::line(&checkpoint.path().display().to_string()), checkpoint.format());
    let wrapping = checkpoint.wrapping();
    if !wrapping.dictionaries.is_empty() {
        println!("opened: {}", escape::line(&wrapping.dictionaries.join(" / ")));
    }
    if !wrapping.prefix.is_empty() {
        println!("taken off names: {}", escape::line(&wrapping.prefix));
    }
    if !wrapping.passed_over.is_empty() {
        println!("passed over: {}", list(&wrapping.passed_over, limit));
    }

    let unread: Vec<_> = checkpoint.unread().iter().map(|(name, class)| format!("{name} ({class})")).collect();
    if !unread.is_empty() {
        println!("not read: {}", list(&unread, limit));
    }

    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["tensor", "type", "shape", "elements"]);
    for (name, entry) in checkpoint.iter().take(limit) {
        let name = escape::line(name);
        let elements = Cell::new(entry.elements()).set_alignment(CellAlignment::Right);
        let row = [Cell::new(name), Cell::new(entry.dtype()), Cell::new(format!("{:?}", entry.shape())), elements];
        table.add_row(row);
    }
    println!("{table}");
    if checkpoint.len() > limit {
        println!("… and {} more (--all lists them)", checkpoint.len() - limit);
    }
    let elements: u128 = checkpoint.iter().map(|(_, entry)| entry.elements() as u128).sum();
    let size: u128 = checkpoint.iter().map(|(_, entry)| bytes(entry)).sum();
    let size = if size < 1_000_000 { format!("{size} bytes") } else { format!("{:.1} MB", size as f64 / 1e6) };
    println!("{} tensors, {elements} elements, {size}", checkpoint.len());

    let fits = fits(checkpoint);
    let exact: Vec<_> = fits.iter().filter(|fit| fit.is_exact()).map(|fit| fit.network.as_str()).collect();
    if exact.is_empty() {
        println!("fits no network as a whole{}", if fits.is_empty() { "" } else { "; the closest:" });
        for fit in fits.iter().take(NEAR) {
            println!("  {}: {} tensors as needed", fit.network, fit.matched);
            for (what, names) in
                [("missing", &fit.missing), ("unknown", &fit.unexpected), ("different", &fit.mismatched)]
            {
                if !names.is_empty() {
                    println!("    {} {what}: {}", names.len(), list(names, if all { limit } else { 4 }));
                }
            }
        }
    } else {
        println!("fits {}", exact.join(", "));
    }
    let located = located(checkpoint);
    for found in &located {
        println!("{} lies under another name: `prefix: \"{}\"` reads it", found.network, found.prefix.escape_debug());
    }
    if exact
        .iter()
        .copied()
        .chain(located.iter().map(|found| found.network.as_str()))
        .any(|name| name.starts_with("CLIP"))
    {
        println!("{CLIP}");
    }
}

/// Names, as far as the limit goes.
fn list(names: &[String], limit: usize) -> String {
    let mut text = names.iter().take(limit).map(|name| escape::line(name)).collect::<Vec<_>>().join(", ");
    if names.len() > limit {
        text += &format!(", … and {} more", names.len() - limit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(name: &str) -> Checkpoint {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("perceptual").join("tests");
        Checkpoint::open(tests.join(name)).unwrap()
    }

    #[test]
    fn a_training_file_is_described() {
        let described = describe(&open("data/zip_training.pth"));
        assert_eq!(described["format"], "zip .pth");
        assert_eq!(described["opened"], json!(["state_dict"]));
        assert_eq!(described["prefix"], "module.");
        let passed_over = described["passed_over"].as_array().unwrap();
        assert!(passed_over.contains(&json!("`epoch`")) && passed_over.contains(&json!("`optimizer`")));
        assert_eq!(described["fits"], json!([]));
    }

    /// Names and shapes are all that is looked at: the elements are a hole in the file.
    #[test]
    fn networks_under_a_prefix_are_located() {
        let path = std::env::temp_dir().join(format!("image-losses-located-{}.safetensors", std::process::id()));
        let mut offset = 0;
        let mut header = serde_json::Map::new();
        for (name, shape) in image_losses_perceptual::networks::VggType::Vgg11.architecture() {
            let end = offset + 4 * shape.iter().product::<usize>();
            let tensor = json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, end] });
            header.insert(format!("generator.{name}"), tensor);
            offset = end;
        }
        header
            .insert("scale".into(), json!({ "dtype": "F8_E4M3", "shape": [1], "data_offsets": [offset, offset + 1] }));
        let header = serde_json::Value::Object(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let len = (bytes.len() + offset + 1) as u64;
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
        let described = describe(&Checkpoint::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(described["fits"], json!([]));
        assert_eq!(described["located"], json!([{ "network": "vgg11", "prefix": "generator" }]));
        assert_eq!(described["unread"], json!([{ "name": "scale", "is": "F8_E4M3" }]));
    }

    #[test]
    fn near_misses_say_what_is_missing() {
        let described = describe(&open("data_formats/tar.pth"));
        let closest = &described["near"][0];
        assert_eq!(closest["network"], "vgg11");
        assert_eq!(closest["matched"], 2);
        // Eight convolutions with weight and bias, less the first. The script's view belongs to the classifier.
        assert_eq!(closest["missing"].as_array().unwrap().len(), 14);
        assert_eq!(closest["unexpected"], json!([]));
        let names: Vec<_> = (0..30).map(|number| number.to_string()).collect();
        assert!(list(&names, 2) == "0, 1, … and 28 more" && list(&names[..1], 2) == "0");
    }
}
