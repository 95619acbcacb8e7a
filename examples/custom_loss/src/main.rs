//! Losses of one's own, used from a configuration beside built-in ones.
//!
//! `cauchy` is a pointwise function and contributes itself by being linked (feature `inventory`);
//! `brightness` is a function of whole images and is registered by hand. Run it with
//!
//! ```sh
//! cargo run --release --manifest-path examples/custom_loss/Cargo.toml
//! ```
//!
//! It finds gain and offset of an exposure from an image with burnt-out pixels, under `MSELoss` and under `CauchyLoss`,
//! and writes a table of each descent.

mod brightness;
mod cauchy;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use brightness::BrightnessLoss;
use clap::Parser;
use image_losses::AnyTensor;
use image_losses::config::{BuildContext, Entry, Inputs, Registry};
use image_losses::core::{Differentiable, Tensor};
use image_losses::ndarray::NdTensor;
use image_losses::objective::{Objective, Side};
use indicatif::ProgressBar;
use serde_json::{Value, json};

/// Find the gain and offset of an exposure, in spite of burnt-out pixels, with a loss of one's own.
#[derive(Debug, Parser)]
struct Arguments {
    /// Steps of descent under each objective.
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Where the tables go.
    #[arg(long, value_name = "DIR", default_value = "target/examples/custom_loss")]
    out: PathBuf,
}

/// All built-in losses and the two of this crate.
fn registry() -> Registry {
    // CauchyLoss is there already.
    let mut registry = Registry::standard();
    registry.register(Entry::loss::<BrightnessLoss, 2>());
    registry
}

/// An image, and its exposure ½ · image + ⅕ where every ninth pixel is burnt out.
fn exposed() -> [Vec<f64>; 2] {
    let image: Vec<f64> = (0..64).map(|i| f64::from(37 * i % 64) / 63.0).collect();
    let exposure = image.iter().enumerate().map(|(i, x)| if i % 9 == 0 { 1.0 } else { 0.5 * x + 0.2 });
    let exposure = exposure.collect();
    [image, exposure]
}

/// Descends on gain and offset under an objective; gives them, and a table of the terms at each step.
fn fit(losses: &Value, steps: usize, bar: &ProgressBar) -> image_losses::Result<([f64; 2], String)> {
    let mut objective = Objective::sum(&registry(), losses, "losses", &BuildContext::default())?;
    let [image, exposure] = exposed();
    let (mut found, mut table) = ([1.0, 0.0], String::new());
    let image = AnyTensor::from(NdTensor::from_vec(image, &[1, 1, 8, 8])?);
    let exposure = AnyTensor::from(NdTensor::from_vec(exposure, &[1, 1, 8, 8])?);
    for number in 0..steps {
        let variable = |value: f64| NdTensor::from_vec(vec![value], &[1, 1, 1, 1])?.leaf().map(AnyTensor::from);
        let (gain, offset) = (variable(found[0])?, variable(found[1])?);
        let outputs = Inputs::new().tensor("pred", image.mul(&gain)?.add(&offset)?).tensor("target", exposure.clone());
        let step = objective.evaluate(Side::Generator, &outputs)?;
        let report = objective.finish(&step, &step.values()?)?;
        if number == 0 {
            let names: Vec<&str> = report.terms.iter().map(|term| term.name.as_str()).collect();
            let _ = writeln!(table, "step,gain,offset,total,{}", names.join(","));
        }
        let terms: Vec<String> = report.terms.iter().map(|term| term.value.to_string()).collect();
        let _ = writeln!(table, "{number},{},{},{},{}", found[0], found[1], report.total, terms.join(","));
        let gradients = match step.total() {
            Some(total) => AnyTensor::gradients(total, &[&gain, &offset], false)?,
            None => Vec::new(),
        };
        for (value, gradient) in found.iter_mut().zip(gradients.into_iter().flatten()) {
            *value -= 0.3 * gradient.values()?[0];
        }
        bar.inc(1);
    }
    Ok((found, table))
}

/// Writes a file beside its place and renames it, so that no half-written one is ever left there.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, path)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // A term without `loss` in its name is only logged: it is a column of the table.
    let watched = json!({"type": "BrightnessLoss", "loss_weight": 1.0, "loss_name": "brightness"});
    let objectives = [
        ("mse", json!({"loss": {"type": "MSELoss"}, "brightness": watched})),
        ("cauchy", json!({"loss": {"type": "CauchyLoss", "gamma": 0.1, "loss_weight": 0.01}, "brightness": watched})),
    ];
    let bar = ProgressBar::new((arguments.steps * objectives.len()) as u64);
    let mut found = Vec::new();
    for (name, losses) in &objectives {
        let (parameters, table) = fit(losses, arguments.steps, &bar)?;
        write(&arguments.out.join(format!("{name}.csv")), &table)?;
        found.push((name, parameters));
    }
    bar.finish_and_clear();
    println!("gain 0.500, offset 0.200 are right");
    for (name, [gain, offset]) in found {
        println!("gain {gain:.3}, offset {offset:.3} under {name}");
    }
    println!("see {}", arguments.out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cauchy::Cauchy;
    use image_losses::core::{Loss, Reduced};

    #[test]
    fn the_losses_and_their_gradients_are_what_is_worked_out_by_hand() -> image_losses::Result<()> {
        let document = json!({
            "loss_pixel": {"type": "L1Loss", "loss_weight": 0.5},
            "loss_robust": {"type": "CauchyLoss", "gamma": 2.0, "reduction": "sum"},
            "loss_brightness": {"type": "BrightnessLoss", "loss_weight": 10.0},
        });
        let mut objective = Objective::sum(&registry(), &document, "losses", &BuildContext::default())?;
        let pred = AnyTensor::from(NdTensor::from_vec(vec![3.0, 1.0], &[1, 1, 1, 2])?.leaf()?);
        let target = AnyTensor::from(NdTensor::from_vec(vec![1.0, 1.0], &[1, 1, 1, 2])?);
        let outputs = Inputs::new().tensor("pred", pred.clone()).tensor("target", target);
        let step = objective.evaluate(Side::Generator, &outputs)?;
        let total = step.total().expect("three losses act");
        let gradient = AnyTensor::gradients(total, &[&pred], false)?.remove(0).expect("all depend on it").values()?;
        let report = objective.finish(&step, &step.values()?)?;

        // The difference is d = (2, 0).
        let close = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
        close(report.term("loss_pixel").expect("a term"), 0.5); // ½ · mean abs(d)
        close(report.term("loss_robust").expect("a term"), 2f64.ln()); // d = γ at one pixel, 0 at the other
        close(report.term("loss_brightness").expect("a term"), 10.0); // 10 · mean(d)²
        close(report.total, 10.5 + 2f64.ln());
        // ¼ + 2d/(γ² + d²) + 10 · 2 · mean(d) · ½ where d = 2; 0 + 0 + the same last where d = 0.
        close(gradient[0], 0.25 + 0.5 + 10.0);
        close(gradient[1], 10.0);
        Ok(())
    }

    #[test]
    fn they_are_called_with_types_as_well() -> image_losses::Result<()> {
        let pred = NdTensor::from_vec(vec![3.0, 1.0], &[1, 1, 1, 2])?;
        let target = NdTensor::from_vec(vec![1.0, 1.0], &[1, 1, 1, 2])?;
        let robust = Reduced::new(Cauchy { gamma: 2.0 });
        assert_eq!(robust.forward([&pred, &target], None)?.item()?, 2f64.ln() / 2.0);
        assert_eq!(BrightnessLoss { loss_weight: 10.0 }.forward([&pred, &target], None)?.item()?, 10.0);
        Ok(())
    }

    #[test]
    fn burnt_out_pixels_mislead_the_squared_error_alone() -> image_losses::Result<()> {
        let bar = ProgressBar::hidden();
        let error = |losses: &Value| {
            let ([gain, offset], _) = fit(losses, 1000, &bar)?;
            Ok::<_, image_losses::Error>((gain - 0.5).abs().max((offset - 0.2).abs()))
        };
        assert!(error(&json!([{"type": "MSELoss"}]))? > 0.03);
        assert!(error(&json!([{"type": "CauchyLoss", "gamma": 0.1, "loss_weight": 0.01}]))? < 0.01);
        Ok(())
    }
}
