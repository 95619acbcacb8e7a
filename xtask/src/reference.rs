//! `cargo xtask reference`: computes the reference values again, with MMagic itself.

use std::path::PathBuf;

use clap::Args;

use crate::command::{python, root, run as run_command};
use crate::{Outcome, Stop};

/// Arguments of `cargo xtask reference`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the regenerated corpus goes.
    #[arg(long, value_name = "DIR", default_value = "target/reference")]
    out: PathBuf,
    /// Only cases that match, as `pixelwise/l1_*`.
    #[arg(long, value_name = "PATTERN")]
    filter: Option<String>,
    /// Draw new inputs (other shapes, other values) with this seed instead of taking the corpus's.
    #[arg(long, value_name = "SEED")]
    fresh_inputs: Option<u64>,
}

/// Runs the task: sets up a virtual environment on the first call, regenerates, and compares with the corpus.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    let script = root().join("xtask").join("reference").join("generate.py");
    let environment = root().join("target").join("reference-venv");
    run_command(python()?.arg(&script).arg("--setup").arg(&environment))?;
    let mut command = std::process::Command::new(environment.join("bin").join("python"));
    command.current_dir(root()).arg(&script).arg("--out").arg(&arguments.out);
    if let Some(filter) = &arguments.filter {
        command.args(["--filter", filter]);
    }
    match arguments.fresh_inputs {
        Some(seed) => command.arg("--fresh-inputs").arg("--seed").arg(seed.to_string()),
        None => command.arg("--check").arg(root().join("xtask").join("reference")),
    };
    run_command(&mut command)?;
    Ok(Outcome::Success)
}
