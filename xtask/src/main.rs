//! Development tasks of image-losses: `cargo xtask --help`.
//!
//! Exit codes: 0 where everything asked for succeeded, 1 where a check failed, 2 where the command could not be run
//! as given, 141 where the reader of the output went away.

#[cfg(feature = "bench")]
mod bench;
mod command;
mod config;
mod features;
#[cfg(feature = "gallery")]
mod gallery;
mod in_document;
mod losses;
mod package;
mod reference;
mod setup;
mod soak;
mod test;
mod verify;

/// Tasks that a build with the feature has.
#[cfg(not(feature = "bench"))]
mod bench {
    pub(crate) use crate::command::PassedOn as Arguments;
    use crate::command::again_to_measure;
    use crate::{Outcome, Stop};

    pub(crate) mod memory {
        pub(crate) use super::{Arguments, run};
    }

    pub(crate) fn run(_: &Arguments) -> Result<Outcome, Stop> {
        again_to_measure()
    }
}
/// A task that a build with the feature has.
#[cfg(not(feature = "gallery"))]
mod gallery {
    pub(crate) use crate::command::PassedOn as Arguments;
    use crate::{Outcome, Stop};

    pub(crate) fn run(_: &Arguments) -> Result<Outcome, Stop> {
        crate::command::again("dev", &["gallery"])
    }
}

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use image_losses::cli::{Outcome, Weights, end_with_the_reader, escape, exit_code};

/// Development tasks of image-losses.
///
/// Results go to the standard output, progress and errors to the standard error. Colours are left out where the output is
/// no terminal or NO_COLOR is set. An interrupted command leaves no half-written file and can be started again.
///
/// Exit codes: 0 success, 1 a check failed, 2 the command could not be run as given, 141 the reader of the output went
/// away (as `| head` does).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Compare every loss with the reference values that MMagic computed.
    Verify(verify::Arguments),
    /// Time every loss against PyTorch on the same inputs, in one interleaved run.
    ///
    /// Before anything is timed, our value and gradient are checked against the peer's, and both against double
    /// precision. Then every round times each of the contestants once, in turn; ratios are taken round by round. Needs
    /// `cargo xtask setup torch-peer`.
    Bench(bench::Arguments),
    /// Measure the peak memory of a perceptual loss, ours and PyTorch's.
    ///
    /// VGG-19's perceptual loss (l1 at five layers) of one image of 256×256 with the image's gradient, a few steps in a
    /// process of its own for each contestant, on the same weights and images. What counts is the largest resident set
    /// that the system saw, program and libraries included. Needs `cargo xtask setup torch-peer`.
    Memory(bench::memory::Arguments),
    /// Run the tests of every crate, on tch too where libtorch is set up.
    Test(test::Arguments),
    /// Install what a part of the project needs.
    #[command(subcommand)]
    Setup(setup::Part),
    /// Print the configurations' schema, or check whole documents.
    #[command(subcommand)]
    Config(config::Command),
    /// Make the packages that crates.io would get, and check that they work outside the workspace.
    Package(package::Arguments),
    /// Print what each feature adds to a build, as a Markdown table.
    Features(features::Arguments),
    /// Look into checkpoints.
    #[command(subcommand)]
    Weights(Look),
    /// Train a small objective for thousands of steps, and watch the memory.
    Soak(soak::Arguments),
    /// Write the page of all losses with formulas, options and plots, or check that it is complete and up to date.
    Gallery(gallery::Arguments),
    /// Compute the reference values again, with MMagic itself.
    Reference(reference::Arguments),
}

/// What to do with checkpoints.
#[derive(Debug, Subcommand)]
enum Look {
    Inspect(Weights),
}

/// Why a task could not be run, in words for the user.
type Stop = String;

fn main() -> ExitCode {
    end_with_the_reader();
    let outcome = match Arguments::parse().task {
        Task::Verify(arguments) => verify::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Memory(arguments) => bench::memory::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Setup(part) => setup::run(&part),
        Task::Config(command) => config::run(&command),
        Task::Package(arguments) => package::run(&arguments),
        Task::Features(arguments) => features::run(&arguments),
        Task::Weights(Look::Inspect(weights)) => weights.run(),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Gallery(arguments) => gallery::run(&arguments),
        Task::Reference(arguments) => reference::run(&arguments),
    };
    exit_code(outcome)
}
