//! `cargo xtask test`: every crate's tests, and tch's where libtorch is set up.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use clap::Args;

use crate::command::{cargo, libtorch};
use crate::setup::setup_libtorch;
use crate::{Outcome, Stop};

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Set libtorch up first if it is not there, so that the tch engine is tested too.
    #[arg(long)]
    all: bool,
}

/// How many tests ran.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    if arguments.all {
        setup_libtorch()?;
    }
    let mut count = Count::default();
    let mut fine = cargo_test(&["--all-targets"], &mut count)?;
    fine &= cargo_test(&["--doc"], &mut count)?;
    if libtorch().is_some() {
        // At once: what both are built on is compiled once.
        let features = "image-losses/tch,image-losses/toml";
        fine &= cargo_test(
            &["--package", "image-losses-tch", "--package", "image-losses", "--features", features],
            &mut count,
        )?;
    } else {
        println!("tch is left out: libtorch is not set up (`cargo xtask setup libtorch`, or `test --all`)");
    }
    println!("{} passed, {} failed", count.passed, count.failed);
    let success = fine && count.failed == 0 && count.passed > 0;
    Ok(if success { Outcome::Success } else { Outcome::Failure })
}

/// Runs `cargo test`, passes its output on and counts; false where it failed.
fn cargo_test(arguments: &[&str], count: &mut Count) -> Result<bool, Stop> {
    let mut child = cargo()
        .args(["test", "--no-fail-fast"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo: {error}"))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            println!("{line}");
            if let Some(result) = line.strip_prefix("test result:") {
                count.passed += number_before(result, " passed");
                count.failed += number_before(result, " failed");
            }
        }
    }
    Ok(child.wait().map_err(|error| format!("cargo: {error}"))?.success())
}

/// The number that stands before `word`.
fn number_before(line: &str, word: &str) -> usize {
    line.split(word)
        .next()
        .and_then(|head| head.rsplit(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::number_before;

    #[test]
    fn counts_are_read_from_cargos_last_line() {
        let line = " ok. 13 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.63s";
        assert_eq!(number_before(line, " passed"), 13);
        assert_eq!(number_before(line, " failed"), 2);
    }
}
