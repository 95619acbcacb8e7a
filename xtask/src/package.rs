//! `cargo xtask package`: the packages as crates.io would get them, built outside the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::command::{cargo, root, run as run_command};
use crate::{Outcome, Stop};

/// Arguments of `cargo xtask package`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Unpack the packages into a temporary folder, check what each holds, and build and run a small program against
    /// the facade and its dependencies there. Without it, the packages are only made.
    #[arg(long)]
    check: bool,
}

/// What every package must hold.
const FILES: [&str; 4] = ["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "src/lib.rs"];

/// The program that stands for a user's: a loss as a type with its gradient, and one from a configuration.
const PROGRAM: &str = r#"use image_losses::config::{BuildContext, Registry};
use image_losses::ndarray::value_and_gradients;
use image_losses::pixelwise::L1Loss;
use ndarray::array;

fn main() {
    let (x, y) = (array![[1.0f32, 2.0], [3.0, 4.0]], array![[1.0f32, 4.0], [3.0, 0.0]]);
    let (value, [gradient, _]) =
        value_and_gradients(&L1Loss::default(), [x.view(), y.view()], None, [true, false]).unwrap();
    assert_eq!(value, 1.5);
    assert_eq!(gradient.unwrap(), array![[0.0, -0.25], [0.0, 0.25]].into_dyn());
    let configuration = serde_json::json!({ "type": "CharbonnierLoss", "eps": 1e-6 });
    Registry::standard().build(&configuration, "pixel_loss", &BuildContext::default()).unwrap();
    println!("the packed crates work outside the workspace");
}
"#;

/// A folder that goes when it is dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    let target = root().join("target").join("package-check");
    // Packages of an earlier version must not be taken for this one's.
    let packages = target.join("package");
    if packages.exists() {
        std::fs::remove_dir_all(&packages).map_err(at(&packages))?;
    }
    // Neither the tasks nor the laws are published.
    let left_out = ["--exclude", "xtask", "--exclude", "image-losses-laws"];
    let make = ["package", "--quiet", "--workspace", "--no-verify", "--allow-dirty"];
    run_command(cargo().args(make).args(left_out).arg("--target-dir").arg(&target))?;
    let made = crates(&packages)?;
    println!("{} packages in {}", made.len(), packages.display());
    if arguments.check { check(&made, &target) } else { Ok(Outcome::Success) }
}

/// The `.crate` files of a folder, in order.
fn crates(folder: &Path) -> Result<Vec<PathBuf>, Stop> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "crate") {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() { Err(format!("{} holds no packages", folder.display())) } else { Ok(found) }
}

/// Unpacks, looks and builds.
fn check(packages: &[PathBuf], target: &Path) -> Result<Outcome, Stop> {
    // Elsewhere: beneath the workspace's root, cargo would take the packages for its members.
    let folder = std::env::temp_dir().join(format!("image-losses-package-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("src")).map_err(at(&folder))?;
    let folder = Temporary(folder);
    let version = env!("CARGO_PKG_VERSION");
    let mut faults = Vec::new();
    let mut manifest = format!(
        "[package]\nname = \"packed\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         image-losses = \"={version}\"\nndarray = \"0.17\"\nserde_json = \"1\"\n\n[workspace]\n\n[patch.crates-io]\n"
    );
    for package in packages {
        run_command(Command::new("tar").arg("-xzf").arg(package).arg("-C").arg(&folder.0))?;
        let stem = package.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = stem.strip_suffix(&format!("-{version}")) else {
            faults.push(format!("{stem}: not version {version}"));
            continue;
        };
        let unpacked = folder.0.join(&stem);
        faults.extend(missing(&unpacked).into_iter().map(|file| format!("{stem}: no {file}")));
        manifest += &format!("{name} = {{ path = \"{stem}\" }}\n");
    }
    if !faults.is_empty() {
        faults.iter().for_each(|fault| println!("FAILED {fault}"));
        return Ok(Outcome::Failure);
    }
    for (file, text) in [("Cargo.toml", manifest.as_str()), ("src/main.rs", PROGRAM)] {
        let path = folder.0.join(file);
        std::fs::write(&path, text).map_err(at(&path))?;
    }
    run_command(cargo().current_dir(&folder.0).args(["run", "--quiet"]).env("CARGO_TARGET_DIR", target.join("build")))?;
    Ok(Outcome::Success)
}

/// The files that an unpacked package lacks.
fn missing(unpacked: &Path) -> Vec<&'static str> {
    FILES.into_iter().filter(|file| !unpacked.join(file).is_file()).collect()
}

/// An error with the path that it concerns.
fn at(path: &Path) -> impl Fn(std::io::Error) -> Stop {
    let path = path.to_owned();
    move |error| format!("{}: {error}", path.display())
}
