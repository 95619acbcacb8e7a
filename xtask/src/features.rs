//! `cargo xtask features`: what each feature of the facade adds, as the table of `docs/features.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use clap::Args;

use crate::command::{cargo, root, run as run_command};
use crate::in_document::InDocument;
use crate::{Outcome, Stop};

/// Arguments of `cargo xtask features`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Build each set of features from nothing too, in `target/features`, and print how long it took.
    ///
    /// As a user's `cargo build` does: without optimisation, everything downloaded before. Features that bring the same
    /// packages are built once. The processor time, where the system tells it, is that of all cores together, and
    /// depends less on what else the machine does.
    #[arg(long)]
    time: bool,
    /// Write the table into `docs/features.md` instead.
    #[arg(long, conflicts_with_all = ["time", "features"])]
    write: bool,
    /// Only these features, as `config`.
    #[arg(value_name = "FEATURE")]
    features: Vec<String>,
}

const TABLE: InDocument =
    InDocument { path: &["docs", "features.md"], marks: ["<!-- features -->\n", "<!-- end of features -->\n"] };

/// The facade's manifest: the comment above a feature says what it brings.
const MANIFEST: &str = include_str!("../../facade/Cargo.toml");

/// A feature as the manifest has it.
struct Feature {
    name: &'static str,
    brings: String,
    is_default: bool,
}

/// The facade's features, in the manifest's order.
fn known() -> Vec<Feature> {
    let section = MANIFEST.split("[features]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap_or_default();
    let defaults = section.split("default = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default();
    let (mut known, mut words) = (Vec::new(), Vec::new());
    for line in section.lines() {
        let line = line.trim_end();
        match (line.strip_prefix("# "), line.split_once(" = [")) {
            (Some(comment), _) => words.push(comment),
            (None, Some((name, _))) if name != "default" => {
                let is_default = defaults.contains(&format!("\"{name}\""));
                known.push(Feature { name, brings: words.join(" ").trim_end_matches('.').to_owned(), is_default });
                words.clear();
            }
            // An empty line ends what is said of a group.
            _ if line.is_empty() || line == "]" => words.clear(),
            _ => {}
        }
    }
    known
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    let known = known();
    if let Some(unknown) = arguments.features.iter().find(|name| known.iter().all(|feature| feature.name != *name)) {
        let names: Vec<&str> = known.iter().map(|feature| feature.name).collect();
        return Err(format!("no feature `{unknown}`; known are {}", names.join(", ")));
    }
    let none = dependencies(&["--no-default-features"])?;
    let wanted = |name: &str| arguments.features.is_empty() || arguments.features.iter().any(|wanted| wanted == name);
    let row = |name: &str, brings: &str, is_default: bool, options: Vec<String>| {
        let packages = dependencies(&options)?;
        Ok::<_, Stop>((name.to_owned(), brings.to_owned(), is_default, options, packages))
    };
    let mut rows = vec![row("none", "the core", false, vec!["--no-default-features".to_owned()])?];
    for Feature { name, brings, is_default } in known.iter().filter(|feature| wanted(feature.name)) {
        let options = vec!["--no-default-features".to_owned(), "--features".to_owned(), (*name).to_owned()];
        rows.push(row(&format!("`{name}`"), brings, *is_default, options)?);
    }
    rows.push(row("the default", "what is marked so above", false, Vec::new())?);

    let timed = |cells: &'static str| if arguments.time { cells } else { "" };
    let mut text = format!("| feature | brings | packages | default |{}\n", timed(" clean build | processor time |"));
    let _ = writeln!(text, "|---|---|---|---|{}", timed("---|---|"));
    for (number, (name, brings, is_default, options, packages)) in rows.iter().enumerate() {
        let count = match number {
            0 => packages.len().to_string(),
            _ => format!("+{}", packages.difference(&none).count()),
        };
        let same = rows[..number].iter().find(|(.., others)| others == packages);
        let time = match same {
            _ if !arguments.time => String::new(),
            Some((other, ..)) => format!(" as {other} | |"),
            None => {
                eprintln!("building {name} ({} of {})", number + 1, rows.len());
                clean_build(options)?
            }
        };
        let default = if *is_default { "yes" } else { "" };
        let _ = writeln!(text, "| {name} | {brings} | {count} | {default} |{time}");
    }
    TABLE.show(&text, arguments.write)
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

/// The profile of a user's build, in place of this workspace's, which optimises its dependencies.
const PROFILE: [&str; 5] = [
    "profile.dev.opt-level=0",
    "profile.dev.package.\"*\".opt-level=0",
    "profile.dev.package.\"*\".debug=true",
    "profile.dev.package.image-losses-kernels.opt-level=0",
    "profile.dev.package.image-losses-core.opt-level=0",
];

/// What `cargo build` from nothing takes, as cells of the table.
fn clean_build(options: &[String]) -> Result<String, Stop> {
    let target = root().join("target").join("features");
    remove(&target)?;
    let (start, before) = (Instant::now(), processor_time());
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "image-losses"]).args(options).arg("--target-dir").arg(&target);
    run_command(build.args(PROFILE.iter().flat_map(|setting| ["--config", setting])))?;
    let (wall, after) = (start.elapsed().as_secs_f64(), processor_time());
    remove(&target)?;
    let processor = before.zip(after).map(|(before, after)| format!("{:.0} s", after - before)).unwrap_or_default();
    Ok(format!(" {wall:.0} s | {processor} |"))
}

/// Seconds that the programs started from here, and those they started, have run on all cores; known on Linux alone.
fn processor_time() -> Option<f64> {
    // Of fields in hundredths of a second, `cutime` and `cstime`: the 14th and 15th after the program's name, which
    // stands in brackets.
    let status = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = status.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((field(13)? + field(14)?) / 100.0)
}

fn remove(folder: &Path) -> Result<(), Stop> {
    if !folder.exists() {
        return Ok(());
    }
    std::fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn every_feature_says_what_it_brings() {
        let known = known();
        assert!(known.len() > 18 && known.iter().any(|feature| feature.name == "cli"));
        assert!(known.iter().all(|feature| !feature.brings.is_empty()));
        let defaults = known.iter().filter(|feature| feature.is_default).count();
        assert_eq!(defaults, 11);
    }
}
