//! `cargo xtask config`: the configurations' schema, and a check of whole documents.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use image_losses::config::check::{Findings, Row, check};
use image_losses::config::{BuildContext, Registry, read, schema};
use image_losses::objective::model_table;

use crate::command::{python, root, run as run_command};
use crate::setup::interpreter;
use crate::{Outcome, Stop, escape};

/// What to do with configurations.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the JSON Schema of all losses and objectives, for editors.
    Schema,
    /// Build every loss and every known `loss_config` in documents, at any depth; networks with seeded parameters.
    Check(CheckArguments),
    /// Print the table of what MMagic's models train with, as `docs/from-mmagic.md` has it.
    Models {
        /// Write it into the document instead.
        #[arg(long)]
        write: bool,
    },
    /// Dump MMagic's own configurations by mmengine, into `target/mmagic-configs`, and check those that have losses.
    ///
    /// Needs Python 3.10 or later with pip. mmengine and MMagic come from PyPI, without PyTorch: about 30 MB.
    Mmagic,
}

/// Where the table of models stands in the document.
const TABLE: [&str; 2] = ["<!-- models -->\n", "<!-- end of models -->\n"];

/// Documents to check.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// JSON, TOML or YAML files, told apart by their endings.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// `tsv`: file, path in the document, type, and `ok` or the error, separated by tabs; tabs, line breaks, backslashes
    /// and control characters in them are escaped, and the summary goes to the standard error.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Where checkpoints are looked up by name; else the directory in `IMAGE_LOSSES_WEIGHTS`.
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// Tab-separated values.
    Tsv,
}

/// Runs the command.
pub(crate) fn run(command: &Command) -> Result<Outcome, Stop> {
    match command {
        Command::Schema => {
            let text =
                serde_json::to_string_pretty(&schema(&Registry::standard())).map_err(|error| error.to_string())?;
            println!("{text}");
            Ok(Outcome::Success)
        }
        Command::Check(arguments) => check_files(arguments),
        Command::Models { write: false } => {
            print!("{}", model_table());
            Ok(Outcome::Success)
        }
        Command::Models { write: true } => {
            let path = document();
            let text = with_table(&text_of(&path)?)?;
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Outcome::Success)
        }
        Command::Mmagic => check_mmagic(),
    }
}

/// The document with the table of models.
fn document() -> PathBuf {
    root().join("docs").join("from-mmagic.md")
}

fn text_of(path: &Path) -> Result<String, Stop> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The document with the table as the code has it.
fn with_table(document: &str) -> Result<String, Stop> {
    let parts = document.split_once(TABLE[0]).and_then(|(before, rest)| Some((before, rest.split_once(TABLE[1])?.1)));
    let (before, after) = parts.ok_or_else(|| format!("the document has no table between {TABLE:?}"))?;
    Ok([before, TABLE[0], &model_table(), TABLE[1], after].concat())
}

/// Dumps MMagic's configurations and checks those that have losses.
fn check_mmagic() -> Result<Outcome, Stop> {
    let script = root().join("xtask").join("scripts").join("dump_mmagic_configs.py");
    let (environment, out) =
        (root().join("target").join("mmengine-venv"), root().join("target").join("mmagic-configs"));
    run_command(python()?.arg(&script).arg("--setup").arg(&environment))?;
    run_command(std::process::Command::new(interpreter(&environment)).arg(&script).arg("--out").arg(&out))?;
    let listed = std::fs::read_dir(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    // Configurations of models that are only run have no loss, which is no mistake in these.
    let registry = Registry::standard();
    let mut with_losses = Vec::new();
    for file in &files {
        let document = read(file).map_err(|error| error.to_string())?;
        if check(&registry, &document, &BuildContext::default()).has_losses() {
            with_losses.push(file.clone());
        }
    }
    println!("{} of {} configurations have losses", with_losses.len(), files.len());
    check_files(&CheckArguments { files: with_losses, format: Format::Table, weights: None })
}

fn check_files(arguments: &CheckArguments) -> Result<Outcome, Stop> {
    let registry = Registry::standard();
    let context = BuildContext { weights_directory: arguments.weights.clone(), ..BuildContext::default() };
    let mut rows: Vec<[String; 4]> = Vec::new();
    let mut remarks = Vec::new();
    let (mut built, mut failed) = (0, 0);
    for file in &arguments.files {
        let Findings { rows: found, notes } = match read(file) {
            Ok(document) => check(&registry, &document, &context),
            // The others are checked all the same.
            Err(error) => {
                let (path, name) = (String::new(), "document".to_owned());
                let row = Row { path, name, error: Some(error), missing: Vec::new() };
                Findings { rows: vec![row], notes: Vec::new() }
            }
        };
        for row in found {
            let status = match &row.error {
                None => {
                    built += 1;
                    "ok".to_owned()
                }
                Some(error) => {
                    failed += 1;
                    error.to_string()
                }
            };
            for name in &row.missing {
                remarks.push(format!("{}: {}: the checkpoint `{name}` is not there", file.display(), row.path));
            }
            rows.push([shown(file), row.path, row.name, status]);
        }
        remarks.extend(notes.iter().map(|note| format!("{}: {note}", file.display())));
    }
    match arguments.format {
        Format::Tsv => {
            for row in &rows {
                let fields: Vec<String> = row.iter().map(|field| escape::cell(field)).collect();
                println!("{}", fields.join("\t"));
            }
        }
        Format::Table => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_header(["file", "path", "type", "status"]);
            for row in rows {
                table.add_row(row.iter().map(|field| escape::line(field)));
            }
            println!("{}", table.trim_fmt());
        }
    }
    for remark in remarks {
        eprintln!("note: {}", escape::line(&remark));
    }
    let counts = format!("{built} built, {failed} failed");
    match arguments.format {
        // Every line of the output is a row.
        Format::Tsv => eprintln!("{counts}"),
        Format::Table => println!("{counts}"),
    }
    Ok(if failed == 0 { Outcome::Success } else { Outcome::Failure })
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_table_of_the_code() {
        let text = text_of(&document()).unwrap();
        assert!(with_table(&text).unwrap() == text, "run `cargo xtask config models --write`");
    }
}
