//! What is wrong with documents.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};

use super::{Outcome, Stop, escape};
use crate::config::check::{Findings, Row, check};
use crate::config::{BuildContext, Registry, read};

/// Build every loss and every known `loss_config` in documents, at any depth; networks with seeded parameters.
///
/// Exit codes: 0 all were built, 1 one was not.
#[derive(Debug, Args)]
pub struct Check {
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

impl Check {
    /// A check of these files, as a table.
    pub fn of(files: Vec<PathBuf>) -> Self {
        Check { files, format: Format::Table, weights: None }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// None: what cannot be read is a row.
    pub fn run(&self) -> Result<Outcome, Stop> {
        let registry = Registry::standard();
        let context = BuildContext { weights_directory: self.weights.clone(), ..BuildContext::default() };
        let mut rows: Vec<[String; 4]> = Vec::new();
        let mut remarks = Vec::new();
        let (mut built, mut failed) = (0, 0);
        for file in &self.files {
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
                rows.push([file.display().to_string(), row.path, row.name, status]);
            }
            remarks.extend(notes.iter().map(|note| format!("{}: {note}", file.display())));
        }
        match self.format {
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
        match self.format {
            // Every line of the output is a row.
            Format::Tsv => eprintln!("{counts}"),
            Format::Table => println!("{counts}"),
        }
        Ok(if failed == 0 { Outcome::Success } else { Outcome::Failure })
    }
}
