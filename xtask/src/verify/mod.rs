//! `cargo xtask verify`: every loss against the values that MMagic itself computed.

pub(crate) mod case;
mod evaluate;
mod report;
mod rule;
#[cfg(test)]
mod wrong_network;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::command::{again, root};
use crate::{Outcome, Stop, escape};
use case::Case;
use report::{Report, Row};

/// Arguments of `cargo xtask verify`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A directory of reference cases; the project's own by default.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// The engines: by default plain arrays, which need nothing.
    #[arg(long, value_enum, value_delimiter = ',')]
    backend: Vec<Backend>,
    /// The element types.
    #[arg(long, value_enum, default_value = "all")]
    dtype: DTypes,
    /// Only cases that match, as `pixelwise/*`; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    filter: Vec<String>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// The choice of engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// Arrays.
    Ndarray,
    /// Graphs of the crate `autograd`.
    Autograd,
    /// libtorch.
    Tch,
    /// All three.
    All,
}

/// The choice of element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DTypes {
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// Both.
    All,
}

/// The choice of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs: every case on every engine.
    Json,
}

/// An engine with an element type: a column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) engine: Engine,
    pub(crate) single: bool,
}

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Ndarray,
    Autograd,
    Tch,
}

impl Target {
    /// Its name, as `autograd f32`.
    pub(crate) fn name(self) -> String {
        let engine = match self.engine {
            Engine::Ndarray => "ndarray",
            Engine::Autograd => "autograd",
            Engine::Tch => "tch",
        };
        format!("{engine} {}", if self.single { "f32" } else { "f64" })
    }
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    let all = arguments.backend.contains(&Backend::All);
    let wants = |backend| all || arguments.backend.contains(&backend);
    let needed = [
        (wants(Backend::Autograd), cfg!(feature = "autograd"), "autograd"),
        (wants(Backend::Tch), cfg!(feature = "tch"), "tch"),
    ];
    if needed.iter().any(|&(is_wanted, is_here, _)| is_wanted && !is_here) {
        let features: Vec<&str> = needed.iter().filter(|feature| feature.0).map(|feature| feature.2).collect();
        return again("dev", &features);
    }
    let default = arguments.backend.is_empty();
    let engines = [
        (Engine::Ndarray, default || wants(Backend::Ndarray)),
        (Engine::Autograd, wants(Backend::Autograd)),
        (Engine::Tch, wants(Backend::Tch)),
    ];
    let types = [(false, arguments.dtype != DTypes::F32), (true, arguments.dtype != DTypes::F64)];
    let targets: Vec<Target> = engines
        .into_iter()
        .filter(|(_, wanted)| *wanted)
        .flat_map(|(engine, _)| {
            types.into_iter().filter(|(_, wanted)| *wanted).map(move |(single, _)| Target { engine, single })
        })
        .collect();

    let directory = arguments.reference.clone().unwrap_or_else(|| root().join("xtask").join("reference"));
    let files = case::find(&directory, &arguments.filter)?;
    if files.is_empty() {
        return Err(format!("no cases in {} match {:?}", directory.display(), arguments.filter));
    }

    let progress = ProgressBar::new((files.len() * targets.len()) as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        progress.set_style(style);
    }
    let mut report = Report::new(targets.clone());
    for file in &files {
        progress.set_message(escape::line(&file.name));
        match Case::read(file) {
            Ok(case) => {
                for &target in &targets {
                    report.add(Row { case: &case, target, result: evaluate::check(&case, target) });
                    progress.inc(1);
                }
            }
            Err(message) => {
                report.add_unreadable(file, message);
                progress.inc(targets.len() as u64);
            }
        }
    }
    progress.finish_and_clear();
    let counts = format!("{} passed, {} failed", report.passed(), report.failed());
    match arguments.format {
        Format::Table => {
            report.print_table();
            println!("{counts}");
        }
        Format::Json => {
            report.print_json()?;
            eprintln!("{counts}");
        }
    }
    Ok(if report.failed() == 0 && report.passed() > 0 { Outcome::Success } else { Outcome::Failure })
}
