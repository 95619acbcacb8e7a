//! The table and the JSON that `verify` prints.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde_json::json;

use super::Target;
use super::case::{Case, File};
use super::evaluate::Checked;
use super::rule::worse;
use crate::{Stop, escape};

/// A case on a target.
pub(crate) struct Row<'a> {
    pub(crate) case: &'a Case,
    pub(crate) target: Target,
    pub(crate) result: Checked,
}

/// What the table says of a loss on a target.
#[derive(Default)]
struct Summary {
    cases: usize,
    failed: usize,
    value: f64,
    gradient: Option<f64>,
}

/// All results so far.
pub(crate) struct Report {
    targets: Vec<Target>,
    /// By family and type, one summary per target.
    losses: BTreeMap<(String, String), Vec<Summary>>,
    failures: Vec<String>,
    records: Vec<serde_json::Value>,
    passed: usize,
    failed: usize,
    /// Of those passed, how many at nearby inputs.
    nearby: usize,
}

impl Report {
    /// No results yet.
    pub(crate) fn new(targets: Vec<Target>) -> Self {
        Report {
            targets,
            losses: BTreeMap::new(),
            failures: Vec::new(),
            records: Vec::new(),
            passed: 0,
            failed: 0,
            nearby: 0,
        }
    }

    /// The number of cases × targets within tolerance.
    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    /// The number that is not, or could not be evaluated.
    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// Adds a file that is no case: one failure for each target.
    pub(crate) fn add_unreadable(&mut self, file: &File, message: String) {
        self.failed += self.targets.len();
        self.records.push(json!({ "case": file.name, "status": "unreadable", "message": message }));
        self.failures.push(format!("{}: {message}", file.name));
    }

    /// Adds a result.
    pub(crate) fn add(&mut self, row: Row<'_>) {
        let Row { case, target, result } = row;
        let family = case.name.split('/').next().unwrap_or_default().to_owned();
        let targets = self.targets.len();
        let summaries = self
            .losses
            .entry((family, case.loss_type().to_owned()))
            .or_insert_with(|| (0..targets).map(|_| Summary::default()).collect());
        let Some(position) = self.targets.iter().position(|known| *known == target) else { return };
        let summary = &mut summaries[position];
        summary.cases += 1;
        let mut record = json!({ "case": case.name, "type": case.loss_type(), "engine": target.name() });
        let status = match result {
            Checked::Compared { value, gradient, nearby, within } => {
                summary.value = worse(summary.value, value);
                if let Some(gradient) = gradient {
                    summary.gradient = Some(worse(summary.gradient.unwrap_or(0.0), gradient));
                }
                record["value_error"] = json!(value);
                record["gradient_error"] = json!(gradient);
                record["nearby_inputs"] = json!(nearby);
                self.nearby += usize::from(nearby && within);
                if within {
                    self.passed += 1;
                    "passed"
                } else {
                    self.failed += 1;
                    summary.failed += 1;
                    let gradient = gradient.map_or("-".to_owned(), |error| format!("{error:.1e}"));
                    self.failures.push(format!(
                        "{} on {}: value off by {value:.1e}, gradient by {gradient}",
                        case.name,
                        target.name()
                    ));
                    "failed"
                }
            }
            Checked::Failed(message) => {
                self.failed += 1;
                summary.failed += 1;
                record["message"] = json!(message);
                self.failures.push(format!("{} on {}: {message}", case.name, target.name()));
                "failed"
            }
        };
        record["status"] = json!(status);
        self.records.push(record);
    }

    /// Prints loss × engine with the worst errors, then failures.
    pub(crate) fn print_table(&self) {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        let header = ["family", "loss", "cases"].into_iter().map(str::to_owned);
        table.set_header(header.chain(self.targets.iter().map(|target| target.name())));
        for ((family, loss), summaries) in &self.losses {
            let cases = summaries.iter().map(|summary| summary.cases).max().unwrap_or(0);
            let mut row = vec![Cell::new(escape::line(family)), Cell::new(escape::line(loss)), Cell::new(cases)];
            row[2] = row[2].clone().set_alignment(CellAlignment::Right);
            for summary in summaries {
                row.push(summary.cell());
            }
            table.add_row(row);
        }
        // The table leaves colours off by itself where the output is no terminal.
        if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            table.force_no_tty();
        }
        println!("{table}");
        println!("Worst relative error of value / gradient against MMagic. A dash: the case has none.");
        if self.nearby > 0 {
            println!(
                "{} gradients in single precision were compared with double precision at nearby inputs, where rounding \
                 crosses no kink.",
                self.nearby
            );
        }
        for failure in &self.failures {
            println!("FAILED {}", escape::line(failure));
        }
    }

    /// Prints every case on every engine, and the counts.
    pub(crate) fn print_json(&self) -> Result<(), Stop> {
        let report = json!({
            "results": self.records,
            "passed": self.passed,
            "failed": self.failed,
        });
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        println!("{}", escape::json(&text));
        Ok(())
    }
}

impl Summary {
    fn cell(&self) -> Cell {
        if self.failed > 0 {
            return Cell::new(format!("{} FAILED", self.failed)).fg(Color::Red);
        }
        let gradient = self.gradient.map_or("-".to_owned(), |error| format!("{error:.1e}"));
        Cell::new(format!("{:.1e} / {gradient}", self.value)).fg(Color::Green)
    }
}
