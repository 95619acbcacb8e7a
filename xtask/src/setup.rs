//! `cargo xtask setup`: installs what a part of the project needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Subcommand;

use crate::command::{libtorch, python, root, run as run_command};
use crate::{Outcome, Stop};

/// What can be set up.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// libtorch 2.11.0 for the tch engine, from PyPI's wheels, into `.libtorch/`.
    Libtorch,
    /// A Python with PyTorch 2.11.0, numpy and safetensors, to compare with, into `target/torch-peer/`.
    ///
    /// Needs Python 3.11 or later with pip. On Linux PyPI's wheel brings CUDA's libraries: about 2.5 GB to download and
    /// 5 GB on disk. Where such a Python is at hand already, name it in IMAGE_LOSSES_PEER_PYTHON instead.
    TorchPeer,
}

/// The wheels that hold libtorch and what it loads at start, without their dependencies.
const WHEELS: &[&str] = &["torch==2.11.0"];
/// What the Linux wheel links to besides, even on a machine without a GPU.
const LINUX_WHEELS: &[&str] = &["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];

/// What the Python to compare with has, in the versions that the numbers of this repository were taken with.
const PEER: &[&str] = &["torch==2.11.0", "numpy==2.4.6", "safetensors==0.8.0"];
/// The file in the peer's environment that says what is installed completely.
const PEER_RECORD: &str = "installed.txt";

/// Runs the task.
pub(crate) fn run(part: &Part) -> Result<Outcome, Stop> {
    match part {
        Part::Libtorch => setup_libtorch(),
        Part::TorchPeer => setup_torch_peer(),
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

/// The peer's environment.
fn torch_peer_folder() -> PathBuf {
    root().join("target").join("torch-peer")
}

/// An environment's interpreter.
pub(crate) fn interpreter(environment: &Path) -> PathBuf {
    if cfg!(windows) { environment.join("Scripts").join("python.exe") } else { environment.join("bin").join("python") }
}

/// The interpreter of the peer's environment, if it is there, complete and of the versions wanted.
pub(crate) fn installed_torch_peer() -> Option<PathBuf> {
    let folder = torch_peer_folder();
    let record = std::fs::read_to_string(folder.join(PEER_RECORD)).ok()?;
    let python = interpreter(&folder);
    (record == PEER.join("\n") && python.exists()).then_some(python)
}

/// Makes the peer's environment, unless it is there.
fn setup_torch_peer() -> Result<Outcome, Stop> {
    if let Some(python) = installed_torch_peer() {
        println!("A Python with {} is set up: {}", PEER.join(", "), python.display());
        return Ok(Outcome::Success);
    }
    let folder = torch_peer_folder();
    println!("Installing {} from PyPI into {}.", PEER.join(", "), folder.display());
    // An environment knows its own path and cannot be moved. The record is written last: without it, what an
    // interruption left is begun again.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    run_command(python()?.args(["-m", "venv"]).arg(&folder))?;
    let python = interpreter(&folder);
    run_command(Command::new(&python).args(["-m", "pip", "install", "--disable-pip-version-check"]).args(PEER))?;
    run_command(
        Command::new(&python).args(["-c", "import torch, numpy, safetensors; print('PyTorch', torch.__version__)"]),
    )?;
    let record = folder.join(PEER_RECORD);
    std::fs::write(&record, PEER.join("\n")).map_err(|error| format!("{}: {error}", record.display()))?;
    println!("The Python to compare with is {}", python.display());
    Ok(Outcome::Success)
}
