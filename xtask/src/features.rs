//! `cargo xtask features`: what each feature of the facade adds, as the README's table.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use clap::Args;

use crate::command::{cargo, root, run as run_command};
use crate::{Outcome, Stop};

/// Arguments of `cargo xtask features`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Build each set of features from nothing too, in `target/features`, and print how long it took; minutes each.
    #[arg(long)]
    time: bool,
    /// Only these features, as `config`.
    #[arg(value_name = "FEATURE")]
    features: Vec<String>,
}

/// The sets of the table: without any, one each, and the default.
const FEATURES: [&str; 17] = [
    "ndarray",
    "autograd",
    "tch",
    "pixelwise",
    "gan",
    "penalties",
    "composition",
    "perceptual",
    "vgg",
    "light-cnn",
    "face-id",
    "clip",
    "lpips",
    "config",
    "toml",
    "yaml",
    "schema",
];

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    if let Some(unknown) = arguments.features.iter().find(|name| !FEATURES.contains(&name.as_str())) {
        return Err(format!("no feature `{unknown}`; known are {}", FEATURES.join(", ")));
    }
    let none = dependencies(&["--no-default-features"])?;
    let wanted = |name: &&str| arguments.features.is_empty() || arguments.features.iter().any(|wanted| wanted == name);
    let mut rows = vec![("none".to_owned(), vec!["--no-default-features".to_owned()], none.len())];
    for name in FEATURES.into_iter().filter(wanted) {
        let options = vec!["--no-default-features".to_owned(), "--features".to_owned(), name.to_owned()];
        let of = dependencies(&options)?;
        rows.push((format!("`{name}`"), options, of.difference(&none).count()));
    }
    rows.push(("the default".to_owned(), Vec::new(), dependencies::<&str>(&[])?.difference(&none).count()));

    println!("| feature | packages{} |", if arguments.time { " | clean build" } else { "" });
    println!("|---|---|{}", if arguments.time { "---|" } else { "" });
    for (number, (name, options, packages)) in rows.iter().enumerate() {
        let sign = if number == 0 { "" } else { "+" };
        let time = if arguments.time { format!(" {:.0} s |", clean_build(options)?) } else { String::new() };
        println!("| {name} | {sign}{packages} |{time}");
    }
    Ok(Outcome::Success)
}

/// The packages that a user's build takes in, each version once: not those that only tests need.
fn dependencies<S: AsRef<std::ffi::OsStr>>(options: &[S]) -> Result<BTreeSet<String>, Stop> {
    let arguments = ["tree", "--package", "image-losses", "--edges", "normal,build", "--prefix", "none"];
    let mut command = cargo();
    command.args(arguments).args(["--format", "{p}"]).args(options);
    let output = command.output().map_err(|error| format!("cargo tree: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // "name vVERSION (…)": the brackets differ where a package comes again.
    let name = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok(text.lines().map(name).filter(|name| !name.is_empty() && !name.starts_with("image-losses v")).collect())
}

/// Seconds for `cargo build` from nothing, everything downloaded before.
fn clean_build(options: &[String]) -> Result<f64, Stop> {
    let target = root().join("target").join("features");
    remove(&target)?;
    let start = Instant::now();
    let build = ["build", "--quiet", "--package", "image-losses"];
    run_command(cargo().args(build).args(options).arg("--target-dir").arg(&target))?;
    let seconds = start.elapsed().as_secs_f64();
    remove(&target)?;
    Ok(seconds)
}

fn remove(folder: &Path) -> Result<(), Stop> {
    if !folder.exists() {
        return Ok(());
    }
    std::fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}
