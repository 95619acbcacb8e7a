//! The program `image-losses`: documents are checked, checkpoints looked into, losses listed.
//!
//! `cargo install image-losses --features cli` installs it. `cargo xtask config` and `cargo xtask weights` of the repository
//! call the same code.

mod check;
pub mod escape;
mod list;
mod weights;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use check::Check;
pub use list::List;
pub use weights::Weights;

use crate::config::{Registry, schema};

/// Losses for images and videos: checks configurations, looks into checkpoints, lists losses.
///
/// Results go to the standard output, notes and errors to the standard error.
///
/// Exit codes: 0 success, 1 a check failed, 2 the command could not be run as given, 141 the reader of the output went
/// away (as `| head` does).
#[derive(Debug, Parser)]
#[command(name = "image-losses", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
    Weights(Weights),
    /// Print the JSON Schema of all losses and objectives, for editors.
    Schema,
    List(List),
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything asked for succeeded.
    Success,
    /// A check failed.
    Failure,
}

/// Why a command could not be run, in words for the user.
pub type Stop = String;

/// Prints the JSON Schema of all losses and objectives.
///
/// # Errors
/// None that a user can bring about.
pub fn print_schema() -> Result<Outcome, Stop> {
    let text = serde_json::to_string_pretty(&schema(&Registry::standard())).map_err(|error| error.to_string())?;
    println!("{text}");
    Ok(Outcome::Success)
}

/// Where the reader of the output goes away, `println` panics: from here on that ends the program, as a signal ends others.
pub fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<String>();
        if message.is_some_and(|message| message.starts_with("failed printing to stdout")) {
            std::process::exit(141);
        }
        usual(panic);
    }));
}

/// The code that a program ends with; what stopped it goes to the standard error.
pub fn exit_code(outcome: Result<Outcome, Stop>) -> ExitCode {
    match outcome {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Failure) => ExitCode::from(1),
        Err(stop) => {
            eprintln!("error: {}", escape::lines(&stop));
            ExitCode::from(2)
        }
    }
}

/// The program.
pub fn main() -> ExitCode {
    end_with_the_reader();
    exit_code(match Arguments::parse().command {
        Command::Check(check) => check.run(),
        Command::Weights(weights) => weights.run(),
        Command::Schema => print_schema(),
        Command::List(list) => list.run(),
    })
}
