//! Tables of what was measured.

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};

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
