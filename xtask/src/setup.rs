//! `cargo xtask setup`: installs what a part of the project needs.

use clap::Subcommand;

use crate::command::{libtorch, python, root, run as run_command};
use crate::{Outcome, Stop};

/// What can be set up.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// libtorch 2.11.0 for the tch engine, from PyPI's wheels, into `.libtorch/`.
    Libtorch,
}

/// The wheels that hold libtorch and what it loads at start, without their dependencies.
const WHEELS: &[&str] = &["torch==2.11.0"];
/// What the Linux wheel links to besides, even on a machine without a GPU.
const LINUX_WHEELS: &[&str] = &["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];

/// Runs the task.
pub(crate) fn run(part: &Part) -> Result<Outcome, Stop> {
    match part {
        Part::Libtorch => setup_libtorch(),
    }
}

/// Puts libtorch where the build looks for it.
pub(crate) fn setup_libtorch() -> Result<Outcome, Stop> {
    if let Some(folder) = libtorch() {
        println!("libtorch is set up in {}", folder.display());
        return Ok(Outcome::Success);
    }
    let target = root().join(".libtorch");
    let wheels: Vec<&str> =
        WHEELS.iter().chain(if cfg!(target_os = "linux") { LINUX_WHEELS } else { &[] }).copied().collect();
    println!("Downloading {} from PyPI: about 0.5 GB, 1.2 GB unpacked, into {}.", wheels.join(", "), target.display());
    // Installed beside its place and moved there when complete: an interruption leaves nothing half done.
    let partial = root().join(".libtorch.partial");
    for left in [&partial, &target] {
        if left.exists() {
            std::fs::remove_dir_all(left).map_err(|error| format!("{}: {error}", left.display()))?;
        }
    }
    run_command(
        python()?
            .args(["-m", "pip", "install", "--no-deps", "--disable-pip-version-check", "--root-user-action=ignore"])
            .arg("--target")
            .arg(&partial)
            .args(&wheels),
    )?;
    std::fs::rename(&partial, &target).map_err(|error| format!("{}: {error}", target.display()))?;
    println!("libtorch is set up. The first build of the tch engine takes some minutes.");
    Ok(Outcome::Success)
}
