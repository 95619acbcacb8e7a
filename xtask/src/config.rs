//! `cargo xtask config`: the configurations' schema, and a check of whole documents.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use image_losses::cli::{Check, Outcome, print_schema};
use image_losses::config::check::check;
use image_losses::config::{BuildContext, Registry, read};
use image_losses::objective::model_table;

use crate::Stop;
use crate::command::{python, root, run as run_command};
use crate::in_document::InDocument;
use crate::losses::{Listed, all};
use crate::setup::interpreter;
use crate::verify::case::{Case, find};

/// What to do with configurations.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the JSON Schema of all losses and objectives, for editors.
    Schema,
    /// Build every loss and every known `loss_config` in documents, at any depth; networks with seeded parameters.
    Check(Check),
    /// Print the table of what MMagic's models train with, as `docs/from-mmagic.md` has it.
    Models {
        /// Write it into the document instead.
        #[arg(long)]
        write: bool,
    },
    /// Print the table of losses, as the README has it.
    Losses {
        /// Write it into the README instead.
        #[arg(long)]
        write: bool,
    },
    /// Dump MMagic's own configurations by mmengine, into `target/mmagic-configs`, and check those that have losses.
    ///
    /// Needs Python 3.10 or later with pip. mmengine and MMagic come from PyPI, without PyTorch: about 30 MB.
    Mmagic,
}

const MODELS: InDocument =
    InDocument { path: &["docs", "from-mmagic.md"], marks: ["<!-- models -->\n", "<!-- end of models -->\n"] };

const LOSSES: InDocument =
    InDocument { path: &["README.md"], marks: ["<!-- losses -->\n", "<!-- end of losses -->\n"] };

/// Every loss with what it is for and how its numbers are checked.
fn loss_table() -> Result<String, Stop> {
    let mut cases: BTreeMap<String, usize> = BTreeMap::new();
    for file in find(&root().join("xtask").join("reference"), &[])? {
        *cases.entry(Case::read(&file)?.loss_type().to_owned()).or_default() += 1;
    }
    let peers = std::fs::read_dir(root().join("perceptual").join("tests").join("data_lpips"));
    let peers: Vec<String> = peers
        .map_err(|error| error.to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let mut text = String::from("| type | what for | verified |\n|---|---|---|\n");
    for Listed { name, aliases, about, .. } in all() {
        let names = [&[name], aliases].concat();
        let counted: usize = names.iter().filter_map(|name| cases.get(*name)).sum();
        let of_peers = peers.iter().filter(|file| file.starts_with(&names[0].to_lowercase())).count();
        let verified = match (counted, of_peers) {
            (0, 0) => "by formula ¹".to_owned(),
            (0, count) => format!("{count} ²"),
            (count, _) => count.to_string(),
        };
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(text, "| {} | {} | {verified} |", names.join(", "), about.summary.trim_end_matches('.'));
    }
    Ok(text)
}

/// Runs the command.
pub(crate) fn run(command: &Command) -> Result<Outcome, Stop> {
    match command {
        Command::Schema => print_schema(),
        Command::Check(check) => check.run(),
        Command::Models { write } => MODELS.show(&model_table(), *write),
        Command::Losses { write } => LOSSES.show(&loss_table()?, *write),
        Command::Mmagic => check_mmagic(),
    }
}

/// Dumps MMagic's configurations and checks those that have losses.
fn check_mmagic() -> Result<Outcome, Stop> {
    let script = root().join("xtask").join("scripts").join("dump_mmagic_configs.py");
    let (environment, out) =
        (root().join("target").join("mmengine-venv"), root().join("target").join("mmagic-configs"));
    run_command(python()?.arg(&script).arg("--setup").arg(&environment))?;
    run_command(std::process::Command::new(interpreter(&environment)).arg(&script).arg("--out").arg(&out))?;
    let listed = std::fs::read_dir(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    // Configurations of models that are only run have no loss, which is no mistake in these.
    let registry = Registry::standard();
    let mut with_losses = Vec::new();
    for file in &files {
        let document = read(file).map_err(|error| error.to_string())?;
        if check(&registry, &document, &BuildContext::default()).has_losses() {
            with_losses.push(file.clone());
        }
    }
    println!("{} of {} configurations have losses", with_losses.len(), files.len());
    Check::of(with_losses).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_tables_of_the_code() {
        assert!(MODELS.is_written(&model_table()).unwrap(), "run `cargo xtask config models --write`");
        assert!(LOSSES.is_written(&loss_table().unwrap()).unwrap(), "run `cargo xtask config losses --write`");
    }
}
