//! Restores a damaged photograph by gradient descent on its pixels, under objectives from a configuration.
//!
//! ```text
//! cargo run --release --example restore --features toml
//! cargo run --release --example restore --features toml,tch -- --engine tch
//! cargo run --release --example restore --features toml -- --config facade/examples/configurations/restore.toml
//! ```
//!
//! Writes `restore.png` (the photograph, what is left of it, and what each objective makes of that, with its PSNR) and
//! `psnr.png` (PSNR over steps).

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser;
use image_losses::AnyTensor;
use image_losses::config::{self, BuildContext, Inputs, Registry, Syntax};
use image_losses::core::{Result, Tensor};
use image_losses::gan::GaussianBlur;
use image_losses::objective::Objective;
use image_losses::penalties::Draws;
use serde::Deserialize;

use support::Outcome;
use support::descent::{Engine, constant, descend};
use support::picture::{CHELSEA, Picture, psnr};
use support::sheet::{Curve, Panel, curves, sheet};

/// Restore a damaged photograph under objectives from a configuration.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Damage and objectives, in TOML; without it, `facade/examples/configurations/restore.toml`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A PNG or JPEG to damage instead of the cat.
    #[arg(long, value_name = "FILE")]
    pub photograph: Option<PathBuf>,
    /// Rows to scale it to.
    #[arg(long, default_value_t = 160)]
    pub height: usize,
    /// Steps of descent under each objective.
    #[arg(long, default_value_t = 200)]
    pub steps: usize,
    /// Seed of noise, gaps and networks.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where `torchvision://vgg16` lies; without it, networks have seeded parameters.
    #[arg(long, value_name = "DIR")]
    pub weights: Option<PathBuf>,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = Engine::Ndarray)]
    pub engine: Engine,
    /// Where the pictures go.
    #[arg(long, value_name = "DIR", default_value = "target/examples/restore")]
    pub out: PathBuf,
}

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    damage: Damage,
    objectives: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Damage {
    blur: f64,
    noise: f32,
    missing: f64,
}

/// What the camera makes of a picture: blur, with a border that does not darken.
fn seen<T: Tensor>(picture: &T, known: &T, blur: &GaussianBlur) -> Result<T> {
    let shape = picture.shape();
    let planes = picture.reshape(&[shape[1], 1, shape[2], shape[3]])?;
    let ones = T::full(&picture.context(), 1.0, &[1, 1, shape[2], shape[3]])?;
    blur.forward(&planes)?.div(&blur.forward(&ones)?)?.reshape(&shape)?.mul(known)
}

/// The part of a recipe that the objectives share.
struct Task {
    photograph: Picture,
    observation: Picture,
    known: Picture,
    blur: GaussianBlur,
}

impl Task {
    fn new(photograph: Picture, damage: Damage, seed: u64) -> Outcome<Self> {
        let blur = GaussianBlur { kernel_size: [7, 7], sigma: [damage.blur; 2] };
        let [_, _, height, width] = photograph.shape();
        let mut draws = Draws::new(seed);
        let lots = draws.uniform_values(height * width);
        let known = Picture::of([1, height, width], |_, y, x| f32::from(lots[y * width + x] >= damage.missing));
        let wide = |picture: &Picture| {
            let values = picture.values.iter().map(|&value| f64::from(value)).collect();
            ndarray::ArrayD::from_shape_vec(&picture.shape()[..], values).map(image_losses::ndarray::NdTensor::new)
        };
        let clean = seen(&wide(&photograph)?, &wide(&known)?, &blur)?;
        let noise = draws.normal_values(photograph.values.len());
        let observed = clean.into_array().into_iter().zip(&noise).enumerate().map(|(i, (value, &noise))| {
            known.values[i % known.values.len()] * (value as f32 + damage.noise * noise as f32).clamp(0.0, 1.0)
        });
        let observation = photograph.with(observed.collect());
        Ok(Task { photograph, observation, known, blur })
    }

    /// What an objective may ask for.
    fn outputs<'g>(&self, restored: &AnyTensor<'g>) -> Result<Inputs<'g, AnyTensor<'g>>> {
        let known = constant(restored, &self.known)?;
        let seen = seen(restored, &known, &self.blur)?;
        let observation = constant(restored, &self.observation)?;
        let inputs = Inputs::new().tensor("restored", restored.clone()).tensor("seen", seen);
        Ok(inputs.tensor("observation", observation).tensor("known", known))
    }
}

/// What comes out of a run.
#[derive(Debug)]
pub struct Restored {
    /// PSNR of the damaged photograph, in decibels.
    pub before: f64,
    /// PSNR under each objective.
    pub after: BTreeMap<String, f64>,
}

/// Damages, restores, writes the pictures.
pub fn run(arguments: &Arguments) -> Outcome<Restored> {
    let document = match &arguments.config {
        Some(path) => config::read(path)?,
        None => config::parse(include_str!("configurations/restore.toml"), Syntax::Toml)?,
    };
    let recipe: Recipe = serde_json::from_value(document)?;
    let bytes = match &arguments.photograph {
        Some(path) => std::fs::read(path)?,
        None => CHELSEA.to_vec(),
    };
    let task = Task::new(Picture::photograph(&bytes, arguments.height)?, recipe.damage, arguments.seed)?;
    let before = psnr(&task.observation, &task.photograph);
    let zoom = if arguments.height < 250 { 2 } else { 1 };
    let mut panels = vec![
        Panel::new("photograph", "", &task.photograph, zoom),
        Panel::new("damaged", format!("{before:.2} dB"), &task.observation, zoom),
    ];
    let names = ["restored", "seen", "observation", "known"].map(str::to_owned).to_vec();
    let context = BuildContext {
        weights_directory: arguments.weights.clone(),
        seeded: arguments.weights.is_none().then_some(arguments.seed),
        outputs: Some(names),
        ..BuildContext::default()
    };
    let bar = support::progress(arguments.steps * recipe.objectives.len());
    let (mut after, mut progress): (_, Vec<Curve>) = (BTreeMap::new(), Vec::new());
    for (name, losses) in &recipe.objectives {
        let path = format!("objectives.{name}");
        let mut objective = Objective::sum(&Registry::standard(), losses, &path, &context)?;
        objective.notes().iter().for_each(|note| bar.println(format!("note: {note}")));
        let mut curve = Vec::with_capacity(arguments.steps);
        let budget = (arguments.steps, 0.06);
        let restored = descend(
            arguments.engine,
            &mut objective,
            &task.observation,
            budget,
            |restored| task.outputs(restored),
            |report, restored| {
                curve.push(psnr(restored, &task.photograph));
                bar.set_message(format!("{name}: loss {:.4}", report.total));
                bar.inc(1);
            },
        )?;
        let quality = psnr(&restored, &task.photograph);
        curve.push(quality);
        panels.push(Panel::new(name, format!("{quality:.2} dB"), &restored, zoom));
        progress.push((name.clone(), curve));
        after.insert(name.clone(), quality);
    }
    bar.finish_and_clear();
    support::write_png(&arguments.out.join("restore.png"), &sheet(&panels, 3)?)?;
    let image = curves("Restoration by descent on the pixels", "PSNR in dB", &progress)?;
    support::write_png(&arguments.out.join("psnr.png"), &image)?;
    Ok(Restored { before, after })
}

#[allow(dead_code, reason = "the test of this file runs without it")]
fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let Restored { before, after } = run(&arguments)?;
    let after: Vec<String> = after.iter().map(|(name, quality)| format!("{quality:.2} ({name})")).collect();
    println!("PSNR {before:.2} dB before, {} after; see {}", after.join(", "), arguments.out.display());
    Ok(())
}
