//! `cargo xtask bench`: ours against PyTorch, in one interleaved run on the same inputs with as many threads.

mod measure;
pub(crate) mod memory;
mod networks;
mod peer;
mod pointwise;
mod report;
mod scaling;
mod subject;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use globset::{Glob, GlobSetBuilder};
use indicatif::{ProgressBar, ProgressStyle};

use crate::command::again_to_measure;
use crate::in_document::InDocument;
use crate::{Outcome, Stop};
use measure::{Plan, measure};
use peer::Peer;
use subject::Subject;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only cases that match, as `pointwise/l1*`; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    filter: Vec<String>,
    /// Rounds that are measured.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Threads of either side.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Leave `torch.compile` out: compiling takes most of the time of a short run.
    #[arg(long)]
    no_compile: bool,
    /// Measure how the time grows with threads, sizes and batches instead, and draw it to this PNG file.
    #[arg(long, value_name = "FILE")]
    scaling: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the results into `docs/speed.md` instead.
    #[arg(long, conflicts_with_all = ["filter", "scaling", "format"])]
    document: bool,
}

const SPEED: InDocument =
    InDocument { path: &["docs", "speed.md"], marks: ["<!-- speed -->\n", "<!-- end of speed -->\n"] };

/// The choice of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For a document.
    Markdown,
    /// For programs.
    Json,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    if cfg!(debug_assertions) {
        return again_to_measure();
    }
    if let Some(picture) = &arguments.scaling {
        return scaling::run(picture, arguments.rounds);
    }
    let mut filter = GlobSetBuilder::new();
    for pattern in &arguments.filter {
        filter.add(Glob::new(pattern).map_err(|error| error.to_string())?);
    }
    let filter = filter.build().map_err(|error| error.to_string())?;
    // The cases of the scaling are measured when asked for.
    let wanted = |name: &str| {
        if filter.is_empty() { !name.starts_with(scaling::PREFIX) } else { filter.is_match(name) }
    };
    let cases: Vec<subject::Case> = cases().into_iter().filter(|case| wanted(&case.name)).collect();
    if cases.is_empty() {
        return Err(format!("no case matches {:?}; there are: {}", arguments.filter, names().join(", ")));
    }
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global().map_err(|error| error.to_string())?;
    let mut peer = Peer::start(arguments.threads)?;
    let plan = Plan { rounds: arguments.rounds.max(1), compile: !arguments.no_compile };

    let progress = ProgressBar::new(cases.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        progress.set_style(style);
    }
    let mut rows = Vec::new();
    for case in cases {
        progress.set_message(case.name.clone());
        let mut subject: Subject = (case.make)(&case.name)?;
        rows.extend(measure(&mut subject, &mut peer, &plan)?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    match arguments.format {
        _ if arguments.document => {
            let table = report::document(&rows, peer.version(), arguments.threads, plan.rounds)?;
            SPEED.show(&table, true)?;
        }
        Format::Table => report::print_table(&rows, peer.version(), arguments.threads),
        Format::Markdown => report::print_markdown(&rows, peer.version(), arguments.threads),
        Format::Json => report::print_json(&rows)?,
    }
    let wrong = rows.iter().filter(|row| !row.agrees).count();
    if wrong > 0 {
        eprintln!("{wrong} results differ from the peer's");
    }
    Ok(if wrong == 0 { Outcome::Success } else { Outcome::Failure })
}

/// Everything that can be measured.
fn cases() -> Vec<subject::Case> {
    pointwise::cases().into_iter().chain(networks::cases()).chain(scaling::cases()).collect()
}

fn names() -> Vec<String> {
    cases().into_iter().map(|case| case.name).collect()
}
