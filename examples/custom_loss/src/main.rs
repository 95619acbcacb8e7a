//! Two losses of one's own, used from a configuration beside a built-in one.
//!
//! `cauchy` is a pointwise function and contributes itself by being linked (feature `inventory`); `brightness` is a
//! function of whole images and is registered by hand. Run it with
//!
//! ```sh
//! cargo run --manifest-path examples/custom_loss/Cargo.toml
//! ```

mod brightness;
mod cauchy;

use brightness::BrightnessLoss;
use image_losses::AnyTensor;
use image_losses::autograd;
use image_losses::config::{BuildContext, Entry, Inputs, Registry};
use image_losses::core::{Differentiable, Result};
use image_losses::objective::{Objective, Side};
use serde_json::json;

fn main() -> Result<()> {
    let mut registry = Registry::standard();
    assert!(registry.get("CauchyLoss").is_some(), "contributed by being linked");
    registry.register(Entry::of::<BrightnessLoss>("BrightnessLoss"));

    let document = json!({
        "loss_pixel": {"type": "L1Loss", "loss_weight": 0.5},
        "loss_robust": {"type": "CauchyLoss", "gamma": 2.0, "reduction": "sum"},
        "loss_brightness": {"type": "BrightnessLoss", "loss_weight": 10.0},
    });
    let mut objective = Objective::sum(&registry, &document, "losses", &BuildContext::default())?;

    let (report, gradient) = autograd::run(|session| {
        let pred = AnyTensor::from(session.input(vec![3.0f64, 1.0], &[1, 1, 1, 2])?);
        let target = AnyTensor::from(session.input(vec![1.0f64, 1.0], &[1, 1, 1, 2])?);
        let outputs = Inputs::new().tensor("pred", pred.clone()).tensor("target", target);
        let step = objective.evaluate(Side::Only, &outputs)?;

        // Every value and the gradient in one evaluation of the graph.
        let total = step.total().expect("three losses act");
        let gradient = AnyTensor::gradients(total, &[&pred], false)?.remove(0).expect("all depend on the prediction");
        let mut wanted = step.tensors();
        wanted.push(&gradient);
        let mut values = AnyTensor::evaluate(session, &wanted)?;
        let gradient = values.pop().expect("as many as wanted");
        Ok::<_, image_losses::Error>((objective.finish(&step, &values)?, gradient))
    })?;

    println!("{report}");
    println!("gradient {gradient:?}");

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
