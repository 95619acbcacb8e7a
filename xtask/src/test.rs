//! `cargo xtask test`: every crate's tests, and tch's where libtorch is set up.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use clap::Args;

use crate::command::{cargo, libtorch, run as run_command};
use crate::setup::setup_libtorch;
use crate::{Outcome, Stop};

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Set libtorch up first if it is not there, so that the tch engine is tested too.
    #[arg(long)]
    all: bool,
    /// Run the tests that draw (laws and properties) N times, each time from a new seed, and nothing else.
    #[arg(long, value_name = "N", conflicts_with = "seed", value_parser = clap::value_parser!(u64).range(1..))]
    fresh_seeds: Option<u64>,
    /// Run the tests that draw from this seed, and nothing else.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

/// The name of a test that draws holds one of these; `image_losses_laws::drawn` sees to it.
const DRAWN: [&str; 2] = ["laws::", "drawn_"];

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
    // At once: what several crates are built on is compiled once, with one set of features.
    let mut selection = vec!["--features", "image-losses/autograd,xtask/bench,xtask/gallery"];
    if libtorch().is_some() {
        selection.extend(["--workspace", "--features", "image-losses/tch,xtask/tch"]);
    } else {
        println!("tch is left out: libtorch is not set up (`cargo xtask setup libtorch`, or `test --all`)");
    }
    let fresh = RandomState::new();
    let seeds: Option<Vec<u64>> = match (arguments.seed, arguments.fresh_seeds) {
        (Some(seed), _) => Some(vec![seed]),
        (None, count) => count.map(|count| (0..count).map(|i| fresh.hash_one(i)).collect()),
    };
    match seeds {
        Some(seeds) => run_from(&seeds, &selection),
        None => run_all(&selection),
    }
}

/// Runs every test once.
fn run_all(selection: &[&str]) -> Result<Outcome, Stop> {
    let mut count = Count::default();
    let mut print = |line: String| println!("{line}");
    // Examples and benchmarks have no tests: `cargo clippy --all-targets` compiles them.
    let tests = [selection, &["--lib", "--bins", "--tests"]].concat();
    let mut fine = cargo_test(&tests, None, &mut count, &mut print)?;
    fine &= cargo_test(&[selection, &["--doc"]].concat(), None, &mut count, &mut print)?;
    println!("{} passed, {} failed", count.passed, count.failed);
    let success = fine && count.failed == 0 && count.passed > 0;
    Ok(if success { Outcome::Success } else { Outcome::Failure })
}

/// Runs the tests that draw once from each seed. What they print is shown where one fails.
fn run_from(seeds: &[u64], selection: &[&str]) -> Result<Outcome, Stop> {
    let tests = [selection, &["--lib", "--bins", "--tests"]].concat();
    run_command(cargo().args(["test", "--no-run"]).args(&tests))?;
    let filtered = [&tests[..], &["--quiet", "--"], &DRAWN].concat();
    let mut failing = Vec::new();
    for (i, &seed) in seeds.iter().enumerate() {
        let (mut count, mut lines) = (Count::default(), Vec::new());
        let fine = cargo_test(&filtered, Some(seed), &mut count, &mut |line| lines.push(line))?;
        println!("seed {seed} ({} of {}): {} passed, {} failed", i + 1, seeds.len(), count.passed, count.failed);
        if !fine || count.failed > 0 || count.passed == 0 {
            lines.iter().for_each(|line| println!("{line}"));
            failing.push(seed);
        }
    }
    for seed in &failing {
        println!("failed: cargo xtask test --seed {seed}");
    }
    println!("{} seeds passed, {} failed", seeds.len() - failing.len(), failing.len());
    Ok(if failing.is_empty() { Outcome::Success } else { Outcome::Failure })
}

/// Runs `cargo test`, hands its output on and counts; false where it failed.
fn cargo_test(
    arguments: &[&str],
    seed: Option<u64>,
    count: &mut Count,
    line_of: &mut impl FnMut(String),
) -> Result<bool, Stop> {
    let mut child = cargo()
        .args(["test", "--no-fail-fast"])
        .args(arguments)
        .envs(seed.map(|seed| ("PROPTEST_RNG_SEED", seed.to_string())))
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo: {error}"))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(result) = line.strip_prefix("test result:") {
                count.passed += number_before(result, " passed");
                count.failed += number_before(result, " failed");
            }
            line_of(line);
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
