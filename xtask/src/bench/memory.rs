//! `cargo xtask memory`: the peak memory of a perceptual loss with its gradient, ours and PyTorch's.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use image_losses::perceptual::checkpoint::Checkpoint;
use image_losses::perceptual::networks::VggType;
use serde_json::json;

use super::networks;
use super::networks::{VggLoss, seeded};
use crate::command::{again_to_measure, root, torch_peer};
use crate::{Outcome, Stop};

/// Batch, channels, height, width.
const SHAPE: [usize; 4] = [1, 3, 256, 256];

/// Arguments of `cargo xtask memory`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Threads of either side.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Steps that each takes.
    #[arg(long, default_value_t = 3)]
    steps: usize,
    /// Be the process that is measured, on the weights of this file.
    #[arg(long, hide = true, requires = "contestant")]
    weights: Option<PathBuf>,
    /// How this process computes.
    #[arg(long, hide = true, value_enum)]
    contestant: Option<Way>,
}

/// A way of ours to compute the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Without an engine.
    Plain,
    /// As a graph.
    Autograd,
}

/// Runs the task.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    if cfg!(debug_assertions) {
        return again_to_measure();
    }
    if let (Some(weights), Some(way)) = (&arguments.weights, arguments.contestant) {
        return be_measured(arguments, weights, way);
    }
    let (_, weights) = seeded("vgg19", &VggType::Vgg19.architecture())?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let description = json!({
        "kind": "vgg19", "wanted": "prediction", "weights": weights, "layers": networks::VGG_LAYERS, "cached": false,
        "shape": SHAPE, "threads": arguments.threads, "steps": arguments.steps, "program": program,
    });
    let status = torch_peer()?
        .arg(root().join("xtask").join("scripts").join("compare_memory.py"))
        .arg(description.to_string())
        .status()
        .map_err(|error| format!("the PyTorch peer: {error}"))?;
    match status.code() {
        Some(0) => Ok(Outcome::Success),
        Some(1) => Ok(Outcome::Failure),
        _ => Err(format!("the comparison ended with {status}")),
    }
}

/// The steps, and nothing else; prints the last value.
fn be_measured(arguments: &Arguments, weights: &Path, way: Way) -> Result<Outcome, Stop> {
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global().map_err(|error| error.to_string())?;
    let checkpoint = Checkpoint::open(weights).map_err(|error| error.to_string())?;
    let loss = VggLoss::new(checkpoint, SHAPE)?;
    let mut value = f64::NAN;
    for _ in 0..arguments.steps {
        let output = match way {
            Way::Plain => loss.plain()?,
            Way::Autograd => loss.on_autograd()?,
        };
        value = output.value;
    }
    println!("{value}");
    Ok(Outcome::Success)
}
