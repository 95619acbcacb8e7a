//! Tables of what was measured.

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};

use std::fmt::Write as _;

use super::measure::{Errors, Row, Spread};
use crate::Stop;

/// Below it errors print as zero.
const NO_ERROR: f64 = 1e-12;

pub(crate) fn print_table(rows: &[Row], version: &str, threads: usize) {
    println!("{}", legend(version, threads));
    println!("{}", table(rows, UTF8_FULL_CONDENSED));
}

pub(crate) fn print_markdown(rows: &[Row], version: &str, threads: usize) {
    println!("{}\n", legend(version, threads));
    println!("{}", table(rows, ASCII_MARKDOWN));
}

/// The table of a document: a line for each case, its first contestant beside the peer, and how the others stand.
pub(crate) fn document(rows: &[Row], version: &str, threads: usize, rounds: usize) -> Result<String, Stop> {
    let mut text = format!(
        "Commit {}; {}, {threads} threads on either side; PyTorch {version}; medians of {rounds} rounds.\n\n",
        commit()?,
        processor(),
    );
    text += "| case | ours (ms) | eager (ms) | × eager | × compiled | of the limit | graph × | autograd × | tch × | \
             error, ours / PyTorch |\n|---|---|---|---|---|---|---|---|---|---|\n";
    for case in rows.chunk_by(|a, b| a.name == b.name) {
        let Some(first) = case.first() else { continue };
        let of = |engine: &str| case.iter().find(|row| row.engine == engine).map(|row| row.against_eager.median);
        let cell = |number: Option<f64>| number.map_or_else(|| "–".to_owned(), |number| format!("{number:.2}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {} | {} | {} | {} | {} | {:.1e} / {:.1e} |",
            first.name,
            milliseconds(first.ours),
            milliseconds(first.eager),
            first.against_eager.median,
            cell(first.against_compiled.map(|spread| spread.median)),
            cell(first.of_limit.map(|spread| spread.median)),
            cell(of("ndarray graph")),
            cell(of("autograd")),
            cell(of("tch")),
            first.our_error.gradient,
            first.their_error.gradient,
        );
    }
    Ok(text)
}

/// The commit that is measured, with its date.
fn commit() -> Result<String, Stop> {
    let output = std::process::Command::new("git").args(["show", "--no-patch", "--format=%h of %cs"]).output();
    let output = output.map_err(|error| format!("git: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What the processor is called, with its widest instruction set, where the system tells.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let wide = field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "avx512f"));
    let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    if wide { format!("{name} with AVX-512") } else { name }
}

pub(crate) fn print_json(rows: &[Row]) -> Result<(), Stop> {
    println!("{}", serde_json::to_string_pretty(rows).map_err(|error| error.to_string())?);
    Ok(())
}

fn legend(version: &str, threads: usize) -> String {
    format!(
        "Value and gradient; PyTorch {version}; {threads} threads on either side. Times in ms, medians of interleaved \
         rounds; × says how many times as long PyTorch takes, round by round (middle half in brackets). Limit: the \
         time of a plain stream with the same reads and writes over ours. Errors: relative to double precision, value / \
         gradient (Euclidean norm)."
    )
}

fn table(rows: &[Row], preset: &str) -> Table {
    let mut table = Table::new();
    table.load_preset(preset).set_header([
        "case",
        "engine",
        "ours",
        "eager",
        "×",
        "compiled",
        "×",
        "limit",
        "GFLOP/s",
        "our error",
        "PyTorch's",
        "",
    ]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            row.engine.to_owned(),
            milliseconds(row.ours),
            milliseconds(row.eager),
            ratio(row.against_eager),
            row.compiled.map(milliseconds).unwrap_or_default(),
            row.against_compiled.map(ratio).unwrap_or_default(),
            row.of_limit.map(|part| format!("{:.2}", part.median)).unwrap_or_default(),
            row.gflops.map(|rate| format!("{rate:.0}")).unwrap_or_default(),
            pair(row.our_error),
            pair(row.their_error),
            if row.agrees { String::new() } else { "DIFFERS".to_owned() },
        ]);
    }
    for index in 2..9 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn milliseconds(seconds: f64) -> String {
    let ms = seconds * 1e3;
    if ms < 1.0 { format!("{ms:.4}") } else { format!("{ms:.2}") }
}

fn ratio(Spread { median, low, high }: Spread) -> String {
    format!("{median:.2} [{low:.2}, {high:.2}]")
}

fn pair(errors: Errors) -> String {
    let number = |error: f64| if error < NO_ERROR { "0".to_owned() } else { format!("{error:.1e}") };
    format!("{} / {}", number(errors.value), number(errors.gradient))
}
