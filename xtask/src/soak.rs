//! `cargo xtask soak`: thousands of training steps of a small objective, with an eye on the memory.

use clap::{Args, ValueEnum};
use image_losses::config::{BuildContext, Inputs, Registry};
use image_losses::objective::{Objective, Side, Step};
use image_losses::prelude::{Differentiable, NdTensor};
use image_losses::{AnyTensor, Error, Result};
use indicatif::ProgressBar;
use serde_json::json;

use crate::command::again;
use crate::{Outcome, Stop};

/// Arguments of `cargo xtask soak`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The engine that trains.
    #[arg(long, value_enum, default_value_t = Backend::Ndarray)]
    backend: Backend,
    /// Training steps of each of the two threads.
    #[arg(long, default_value_t = 20_000)]
    steps: usize,
    /// How much the resident size may grow from the 1,000th step to the last, in MiB.
    #[arg(long, default_value_t = 4.0)]
    growth: f64,
}

/// An engine with gradients.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Backend {
    /// Plain arrays.
    Ndarray,
    /// libtorch (needs the feature `tch`).
    Tch,
}

/// Steps after which the memory is first looked at: by then every pool and cache is filled.
const WARM: usize = 1_000;
/// One small image.
const SHAPE: [usize; 4] = [1, 3, 16, 16];

/// Runs the task: two threads train at once, each with its own losses; then each trains alone and must reach the same
/// numbers.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    let &Arguments { backend, steps, growth } = arguments;
    if backend == Backend::Tch && !cfg!(feature = "tch") {
        return again("dev", &["tch"]);
    }
    let warm = WARM.min(steps / 2);
    // Each of the two threads trains beside the other and alone.
    let bar = ProgressBar::new(4 * steps as u64);
    let train = |seed: usize, watched: bool| train(backend, seed, steps, warm, watched, &bar);
    let words = |error: Error| error.to_string();
    let together = std::thread::scope(|scope| {
        let other = scope.spawn(|| train(2, false));
        let first = train(1, true);
        Ok::<_, Error>([
            first?,
            other.join().map_err(|_| Error::Engine { engine: "soak", message: "a panic".into() })??,
        ])
    })
    .map_err(words)?;
    let alone = [train(1, false).map_err(words)?, train(2, false).map_err(words)?];
    bar.finish_and_clear();
    let mut fine = true;
    let [at_warm, at_end] = together[0].resident.unwrap_or_default().map(|kib| kib as f64 / 1024.0);
    println!("{backend:?}: resident {at_warm:.1} MiB after {warm} steps, {at_end:.1} MiB after {steps}");
    if at_warm == 0.0 {
        return Err("the resident size is unknown on this system (no /proc/self/status)".into());
    }
    if at_end - at_warm > growth {
        println!("FAILED: it grew by {:.1} MiB, more than {growth}", at_end - at_warm);
        fine = false;
    }
    for (thread, (together, alone)) in together.iter().zip(&alone).enumerate() {
        println!("thread {thread}: {} at first, {} at last", together.first, together.last);
        if together.image.iter().map(|v| v.to_bits()).ne(alone.image.iter().map(|v| v.to_bits())) {
            println!("FAILED: beside another thread it came to other numbers than alone");
            fine = false;
        }
        if together.last.is_nan() || together.last >= together.first {
            println!("FAILED: the loss did not fall");
            fine = false;
        }
    }
    Ok(if fine { Outcome::Success } else { Outcome::Failure })
}

/// What became of a training.
struct Trained {
    /// The image it arrived at.
    image: Vec<f32>,
    /// The objective in the first and in the last step.
    first: f64,
    last: f64,
    /// The resident size when warm and at the end, in KiB.
    resident: Option<[u64; 2]>,
}

/// Trains an image towards another by gradient steps.
fn train(
    backend: Backend,
    seed: usize,
    steps: usize,
    warm: usize,
    watched: bool,
    bar: &ProgressBar,
) -> Result<Trained> {
    let document = json!({
        "loss_pixel": {"type": "CharbonnierLoss", "eps": 1e-6, "data_info": {"pred": "fake", "target": "real"}},
        "loss_tv": {"type": "tv_loss", "loss_weight": 0.01, "data_info": {"input": "fake"}},
        "loss_psnr": {"type": "PSNRLoss", "loss_weight": 1e-3, "data_info": {"pred": "fake", "target": "real"},
                      "interval": 4},
    });
    let mut objective = Objective::sum(&Registry::standard(), &document, "losses", &BuildContext::default())?;
    let elements: usize = SHAPE.iter().product();
    let number = |i: usize, factor: usize| ((i * factor + seed) % 251) as f32 / 251.0;
    let mut image: Vec<f32> = (0..elements).map(|i| number(i, 89)).collect();
    let target: Vec<f32> = (0..elements).map(|i| number(i, 37)).collect();
    let (mut first, mut last, mut resident) = (f64::NAN, f64::NAN, [0; 2]);
    for step in 0..steps {
        let (value, gradient) = match backend {
            Backend::Ndarray => on_arrays(&mut objective, &image, &target, step)?,
            Backend::Tch => on_tch(&mut objective, &image, &target, step)?,
        };
        // A step that gets shorter, so that the image settles.
        let rate = 100.0 / (1.0 + step as f64 / 100.0);
        for (x, g) in image.iter_mut().zip(gradient) {
            *x -= (rate * g) as f32;
        }
        if step == 0 {
            first = value;
        }
        last = value;
        if watched && (step + 1 == warm || step + 1 == steps) {
            resident[usize::from(step + 1 == steps)] = resident_size().unwrap_or(0);
        }
        bar.inc(1);
    }
    Ok(Trained { image, first, last, resident: watched.then_some(resident) })
}

/// The objective and its gradient with respect to the image.
type Derived = (f64, Vec<f64>);

/// The objective of a step, on any engine: its total and all tensors whose values it waits for.
fn evaluate<'g>(
    objective: &mut Objective,
    fake: &AnyTensor<'g>,
    real: AnyTensor<'g>,
    iteration: usize,
) -> Result<(Step<'g>, AnyTensor<'g>)> {
    let outputs = Inputs::new().tensor("fake", fake.clone()).tensor("real", real).number("iteration", iteration as f64);
    let step = objective.evaluate(Side::Generator, &outputs)?;
    let total = step.total().cloned();
    let total = total.ok_or(Error::Unsupported { operation: "a step without a total", engine: fake.engine() })?;
    Ok((step, total))
}

fn on_arrays(objective: &mut Objective, image: &[f32], target: &[f32], iteration: usize) -> Result<Derived> {
    let fake = AnyTensor::from(NdTensor::from_vec(image.to_vec(), &SHAPE)?.leaf()?);
    let real = AnyTensor::from(NdTensor::from_vec(target.to_vec(), &SHAPE)?);
    let (step, total) = evaluate(objective, &fake, real, iteration)?;
    let gradient = AnyTensor::gradients(&total, &[&fake], false)?.pop().flatten();
    let report = objective.finish(&step, &step.values()?)?;
    Ok((report.total, gradient.map(|gradient| gradient.values()).transpose()?.unwrap_or_default()))
}

#[cfg(feature = "tch")]
fn on_tch(objective: &mut Objective, image: &[f32], target: &[f32], iteration: usize) -> Result<Derived> {
    use image_losses::tch::TchTensor;

    let tensor = |values: &[f32]| tch::Tensor::from_slice(values).reshape(SHAPE.map(|extent| extent as i64));
    let leaf = tensor(image).set_requires_grad(true);
    let (fake, real) = (AnyTensor::from(TchTensor::new(&leaf)?), AnyTensor::from(TchTensor::own(tensor(target))?));
    let (step, total) = evaluate(objective, &fake, real, iteration)?;
    if let AnyTensor::Tch(total) = &total {
        total.tensor().backward();
    }
    let report = objective.finish(&step, &step.values()?)?;
    Ok((report.total, TchTensor::own(leaf.grad())?.values()?))
}

#[cfg(not(feature = "tch"))]
fn on_tch(_: &mut Objective, _: &[f32], _: &[f32], _: usize) -> Result<Derived> {
    Err(Error::Unsupported { operation: "soak", engine: "tch" })
}

/// The process's resident size in KiB, where the system tells.
fn resident_size() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
