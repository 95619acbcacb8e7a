//! Running other programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Outcome, Stop};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    command
}

/// Arguments of a task that this build lacks: [`again`] passes them on.
#[cfg(not(all(feature = "bench", feature = "gallery")))]
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct PassedOn {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _words: Vec<OsString>,
}

/// Runs this program again with its arguments, built with these features, and optimised where the profile is `release`.
pub(crate) fn again(profile: &str, features: &[&str]) -> Result<Outcome, Stop> {
    if features.contains(&"tch") && libtorch().is_none() {
        return Err("the tch engine needs libtorch: run `cargo xtask setup libtorch` first".into());
    }
    let status = cargo()
        .args(["run", "--quiet", "--package", "xtask", "--profile", profile, "--features", &features.join(","), "--"])
        .args(std::env::args_os().skip(1))
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    match status.code() {
        Some(0) => Ok(Outcome::Success),
        Some(1) => Ok(Outcome::Failure),
        _ => Err(format!("the run with {} ended with {status}", features.join(" and "))),
    }
}

/// Runs a task of the feature `bench`: optimised, and on tch where libtorch is set up.
pub(crate) fn again_to_measure() -> Result<Outcome, Stop> {
    again("release", if libtorch().is_some() { &["bench", "tch"] } else { &["bench"] })
}

/// A Python interpreter that the user's path has.
pub(crate) fn python() -> Result<Command, Stop> {
    ["python3", "python"]
        .into_iter()
        .find(|name| {
            let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        })
        .map(|name| {
            let mut command = Command::new(name);
            command.current_dir(root());
            command
        })
        .ok_or_else(|| "no Python interpreter was found (python3)".to_owned())
}

/// Runs a program to its end; anything but success stops the task.
pub(crate) fn run(command: &mut Command) -> Result<(), Stop> {
    let status = command.status().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", command.get_program().display())) }
}

/// Where libtorch is, if it is set up: in the folder `LIBTORCH` names (as the build sees it), or where `setup` puts it.
pub(crate) fn libtorch() -> Option<PathBuf> {
    let named = std::env::var_os("LIBTORCH").map(PathBuf::from);
    let own = root().join(".libtorch").join("torch");
    named.into_iter().chain([own]).find(|folder| folder.join("lib").is_dir())
}

/// A Python with PyTorch, to compare with: the interpreter that `IMAGE_LOSSES_PEER_PYTHON` names, or the one that
/// `cargo xtask setup torch-peer` installs.
#[cfg(feature = "bench")]
pub(crate) fn torch_peer() -> Result<Command, Stop> {
    let python = match std::env::var_os("IMAGE_LOSSES_PEER_PYTHON").filter(|named| !named.is_empty()) {
        Some(named) => PathBuf::from(named),
        None => crate::setup::installed_torch_peer().ok_or(
            "a Python with PyTorch is needed to compare with: `cargo xtask setup torch-peer` installs one, or \
             IMAGE_LOSSES_PEER_PYTHON names an interpreter that has torch, numpy and safetensors",
        )?,
    };
    let mut command = Command::new(python);
    command.current_dir(root());
    Ok(command)
}
