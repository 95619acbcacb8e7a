//! `cargo xtask config`: the configurations' schema, and a check of whole documents.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use image_losses::config::check::{Findings, check};
use image_losses::config::{BuildContext, Registry, read, schema};

use crate::{Outcome, Stop, escape};

/// What to do with configurations.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the JSON Schema of all losses and objectives, for editors.
    Schema,
    /// Build every loss and every known `loss_config` in documents, at any depth; networks with seeded parameters.
    Check(CheckArguments),
}

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
    }
}

fn check_files(arguments: &CheckArguments) -> Result<Outcome, Stop> {
    let registry = Registry::standard();
    let context = BuildContext { weights_directory: arguments.weights.clone(), ..BuildContext::default() };
    let mut rows: Vec<[String; 4]> = Vec::new();
    let mut remarks = Vec::new();
    let (mut built, mut failed) = (0, 0);
    for file in &arguments.files {
        let document = read(file).map_err(|error| error.to_string())?;
        let Findings { rows: found, notes } = check(&registry, &document, &context);
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
