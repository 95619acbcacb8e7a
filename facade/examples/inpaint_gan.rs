//! Trains a small inpainting GAN on crops of photographs: masked L1, perceptual, style and adversarial losses, all from
//! one configuration.
//!
//! ```text
//! cargo run --release --example inpaint_gan --features toml,tch
//! cargo run --release --example inpaint_gan --features toml,tch -- --vgg vgg16-397923af.pth
//! ```
//!
//! The right edge of each photograph is kept from training, and filled in at the end. Writes `inpaint_gan.png` (crops,
//! their holes, what the generator makes of them, with the PSNR in the hole), `psnr.png` and `losses.png` (over steps).

mod support;

use std::collections::BTreeMap;
use std::f64::consts::{PI, TAU};
use std::path::PathBuf;

use clap::Parser;
use image_losses::AnyTensor;
use image_losses::config::{self, BuildContext, Inputs, Registry, Syntax};
use image_losses::core::Result;
use image_losses::objective::{Objective, Report, Side};
use image_losses::penalties::Draws;
use image_losses::tch::TchTensor;
use image_losses::tch::tch::{self, Device, Tensor, nn, nn::Module, nn::OptimizerConfig};
use serde_json::Value;

use support::Outcome;
use support::picture::{ASTRONAUT, CHELSEA, COFFEE, Picture};
use support::sheet::{Panel, curves, sheet};

/// Train a small inpainting GAN on crops of photographs, and fill in the parts that it has not seen.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The objective, in TOML; without it, `facade/examples/configurations/inpaint_gan.toml`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Trained parameters for the perceptual losses' network, instead of what the objective says.
    #[arg(long, value_name = "FILE")]
    pub vgg: Option<PathBuf>,
    /// Steps of training.
    #[arg(long, default_value_t = 600)]
    pub steps: usize,
    /// Seed of networks, crops and holes.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the pictures go.
    #[arg(long, value_name = "DIR", default_value = "target/examples/inpaint_gan")]
    pub out: PathBuf,
}

/// Rows and columns of a crop, and how many make a batch.
const CROP: usize = 64;
const BATCH: usize = 6;

/// Layers of the generator and the critic.
fn conv(path: nn::Path<'_>, [from, to]: [i64; 2], kernel: i64, stride: i64, dilation: i64) -> nn::Conv2D {
    let padding = dilation * (kernel - 1) / 2;
    nn::conv2d(path, from, to, kernel, nn::ConvConfig { stride, dilation, padding, ..Default::default() })
}

/// The block of Zeng et al., "Aggregated Contextual Transformations for High-Resolution Image Inpainting", 2021: context
/// from near and far, let in through a gate.
#[derive(Debug)]
struct AotBlock {
    contexts: Vec<nn::Conv2D>,
    fuse: nn::Conv2D,
    gate: nn::Conv2D,
}

impl AotBlock {
    fn new(path: &nn::Path<'_>, width: i64) -> Self {
        let context = |dilation: i64| conv(path / format!("context{dilation}"), [width, width / 4], 3, 1, dilation);
        AotBlock {
            contexts: [1, 2, 4, 8].map(context).into(),
            fuse: conv(path / "fuse", [width, width], 3, 1, 1),
            gate: conv(path / "gate", [width, width], 3, 1, 1),
        }
    }
}

impl Module for AotBlock {
    fn forward(&self, x: &Tensor) -> Tensor {
        let contexts: Vec<Tensor> = self.contexts.iter().map(|context| x.apply(context).relu()).collect();
        let (found, gate) = (Tensor::cat(&contexts, 1).apply(&self.fuse), x.apply(&self.gate).sigmoid());
        x + gate * (found - x)
    }
}

/// From a crop with a hole, and the hole, to a crop.
fn generator(path: &nn::Path<'_>) -> nn::Sequential {
    let mut layers = nn::seq()
        .add(conv(path / "first", [4, 24], 5, 1, 1))
        .add_fn(Tensor::relu)
        .add(conv(path / "down1", [24, 48], 4, 2, 1))
        .add_fn(Tensor::relu)
        .add(conv(path / "down2", [48, 64], 4, 2, 1))
        .add_fn(Tensor::relu);
    for block in 0..3 {
        layers = layers.add(AotBlock::new(&(path / format!("block{block}")), 64));
    }
    for (name, channels) in [("up1", [64, 32]), ("up2", [32, 24])] {
        layers = layers
            .add_fn(|x| {
                let size = x.size();
                x.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None)
            })
            .add(conv(path / name, channels, 3, 1, 1))
            .add_fn(Tensor::relu);
    }
    layers.add(conv(path / "last", [24, 3], 3, 1, 1)).add_fn(Tensor::sigmoid)
}

/// From a crop to a score for each of its patches.
fn critic(path: &nn::Path<'_>) -> nn::Sequential {
    let leaky = |x: &Tensor| x.maximum(&(x * 0.2));
    nn::seq()
        .add(conv(path / "down1", [3, 24], 4, 2, 1))
        .add_fn(leaky)
        .add(conv(path / "down2", [24, 48], 4, 2, 1))
        .add_fn(leaky)
        .add(conv(path / "down3", [48, 64], 4, 2, 1))
        .add_fn(leaky)
        .add(conv(path / "scores", [64, 1], 3, 1, 1))
}

/// The network's optimiser, with the moments that GANs are trained with.
fn adam(variables: &nn::VarStore) -> Outcome<nn::Optimizer> {
    Ok(nn::Adam { beta1: 0.5, beta2: 0.99, ..nn::Adam::default() }.build(variables, 0.0)?)
}

/// A hole, 1 inside: two strokes of a brush.
fn hole(draws: &mut Draws) -> Picture {
    let side = CROP as f64;
    let mut dabs = Vec::new();
    for _ in 0..2 {
        let lots = draws.uniform_values(4);
        let (mut y, mut x) = (side * (0.2 + 0.6 * lots[0]), side * (0.2 + 0.6 * lots[1]));
        let (mut angle, radius) = (TAU * lots[2], side * (0.05 + 0.05 * lots[3]));
        for turn in draws.normal_values(20) {
            dabs.push((y, x, radius));
            angle += 0.3 * turn;
            (y, x) = ((y + 2.0 * angle.sin()).clamp(0.0, side), (x + 2.0 * angle.cos()).clamp(0.0, side));
        }
    }
    let covered = |y: f64, x: f64| dabs.iter().any(|&(top, left, radius)| (y - top).hypot(x - left) < radius);
    Picture::of([1, CROP, CROP], |_, y, x| f32::from(covered(y as f64, x as f64)))
}

/// Crops with their holes, as one batch.
struct Batch {
    crops: Tensor,
    mask: Tensor,
}

impl Batch {
    fn of(pictures: &[(Picture, Picture)]) -> Self {
        let tensor = |picture: &Picture| Tensor::from_slice(&picture.values).reshape(picture.shape().map(|n| n as i64));
        let (crops, masks): (Vec<_>, Vec<_>) = pictures.iter().map(|(crop, hole)| (tensor(crop), tensor(hole))).unzip();
        Batch { crops: Tensor::cat(&crops, 0), mask: Tensor::cat(&masks, 0) }
    }

    /// What the generator paints, and the crops with their holes filled by it.
    fn painted(&self, generator: &nn::Sequential) -> (Tensor, Tensor) {
        let valid = 1.0 - &self.mask;
        let seen = Tensor::cat(&[(&self.crops * 2.0 - 1.0) * &valid, self.mask.shallow_clone()], 1);
        let painted = generator.forward(&seen);
        let filled = &self.crops * &valid + &painted * &self.mask;
        (painted, filled)
    }
}

/// A random part of a photograph, without the edge that is kept from training.
fn crop(photograph: &Picture, draws: &mut Draws) -> Picture {
    let lots = draws.uniform_values(3);
    let place = |lot: f64, extent: usize| (lot * (extent - CROP + 1) as f64) as usize;
    let crop =
        photograph.crop([place(lots[0], photograph.height), place(lots[1], photograph.width - CROP)], [CROP, CROP]);
    let mirrored = lots[2] < 0.5;
    Picture::of([3, CROP, CROP], |c, y, x| crop.at(c, y, if mirrored { CROP - 1 - x } else { x }))
}

/// The peak signal-to-noise ratio in the hole, in decibels.
fn quality(prediction: &Picture, target: &Picture, hole: &Picture) -> f64 {
    let mask = hole.values.iter().cycle().map(|&inside| f64::from(inside));
    let squares = prediction.values.iter().zip(&target.values).map(|(x, y)| f64::from(x - y).powi(2));
    let sum: f64 = mask.zip(squares).map(|(inside, square)| inside * square).sum();
    let count = 3.0 * hole.values.iter().map(|&inside| f64::from(inside)).sum::<f64>();
    -10.0 * (sum / count).log10()
}

/// The crop with its hole in the mean colour of what is left.
fn mean_filled(crop: &Picture, hole: &Picture) -> Picture {
    let plane = CROP * CROP;
    let left = plane as f32 - hole.values.iter().sum::<f32>();
    let means: Vec<f32> = crop
        .values
        .chunks(plane)
        .map(|values| values.iter().zip(&hole.values).map(|(value, inside)| value * (1.0 - inside)).sum::<f32>() / left)
        .collect();
    Picture::of([3, CROP, CROP], |c, y, x| if hole.at(0, y, x) > 0.0 { means[c] } else { crop.at(c, y, x) })
}

/// The crops as the generator fills them.
fn filled(generator: &nn::Sequential, batch: &Batch, pictures: &[(Picture, Picture)]) -> Outcome<Vec<Picture>> {
    let values = Vec::<f32>::try_from(tch::no_grad(|| batch.painted(generator).1).flatten(0, -1))?;
    Ok(values.chunks(3 * CROP * CROP).zip(pictures).map(|(values, (crop, _))| crop.with(values.to_vec())).collect())
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// One side's step: its terms, and a step of its optimiser.
fn descend(
    objective: &mut Objective,
    side: Side,
    outputs: &[(&str, &Tensor)],
    optimizer: &mut nn::Optimizer,
) -> Result<Report> {
    let inputs = outputs.iter().try_fold(Inputs::new(), |inputs, (name, tensor)| {
        Ok::<_, image_losses::Error>(inputs.tensor(*name, AnyTensor::from(TchTensor::new(tensor)?)))
    })?;
    let step = objective.evaluate(side, &inputs)?;
    if let Some(AnyTensor::Tch(total)) = step.total() {
        optimizer.backward_step(total.tensor());
    }
    objective.finish(&step, &step.values()?)
}

/// The objective, with the perceptual losses' parameters from a file if one is given.
fn objective(arguments: &Arguments) -> Outcome<Objective> {
    let mut document = match &arguments.config {
        Some(path) => config::read(path)?,
        None => config::parse(include_str!("configurations/inpaint_gan.toml"), Syntax::Toml)?,
    };
    if let (Some(file), Some(Value::Array(losses))) = (&arguments.vgg, document.get_mut("gen_auxiliary_loss")) {
        for loss in losses.iter_mut().filter(|loss| loss["type"] == "PerceptualLoss") {
            loss["pretrained"] = file.to_string_lossy().into();
        }
    }
    let scores = ["disc_pred_fake", "disc_pred_real", "disc_pred_fake_g"];
    let images = ["fake_imgs", "filled", "real_imgs", "mask", "valid"];
    let names = scores.into_iter().chain(images).map(str::to_owned).collect();
    let context = BuildContext { outputs: Some(names), ..BuildContext::default() };
    Ok(Objective::gan(&Registry::standard(), &document, "objective", &context)?)
}

/// The mean PSNR in the holes of the crops that training has not seen, in decibels.
#[derive(Clone, Copy, Debug)]
pub struct Inpainted {
    /// Filled with the mean colour of what is left.
    pub mean_colour: f64,
    /// By the untrained generator.
    pub before: f64,
    /// By the trained one.
    pub after: f64,
}

/// Trains, fills in, writes the pictures.
pub fn run(arguments: &Arguments) -> Outcome<Inpainted> {
    let mut objective = objective(arguments)?;
    tch::manual_seed(arguments.seed as i64);
    let mut draws = Draws::new(arguments.seed);
    let photographs = [ASTRONAUT, CHELSEA, COFFEE].map(|bytes| Picture::photograph(bytes, 192));
    let photographs = photographs.into_iter().collect::<Outcome<Vec<_>>>()?;
    let mut unseen = Vec::new();
    for photograph in &photographs {
        for top in [16, 112] {
            unseen.push((photograph.crop([top, photograph.width - CROP], [CROP, CROP]), hole(&mut draws)));
        }
    }
    let unseen_batch = Batch::of(&unseen);

    let [of_generator, of_critic] = [nn::VarStore::new(Device::Cpu), nn::VarStore::new(Device::Cpu)];
    let (generator, critic) = (generator(&of_generator.root()), critic(&of_critic.root()));
    let (mut generator_adam, mut critic_adam) = (adam(&of_generator)?, adam(&of_critic)?);
    let judged = |pictures: &[Picture]| {
        mean(pictures.iter().zip(&unseen).map(|(picture, (crop, hole))| quality(picture, crop, hole)))
    };
    let bar = support::progress(arguments.steps);
    objective.notes().iter().for_each(|note| bar.println(format!("note: {note}")));
    let mut qualities = vec![judged(&filled(&generator, &unseen_batch, &unseen)?)];
    let mut terms: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for step in 0..arguments.steps {
        let rate = 0.5 + 0.5 * (PI * step as f64 / arguments.steps as f64).cos();
        generator_adam.set_lr(1e-3 * rate);
        critic_adam.set_lr(4e-4 * rate);
        let pictures: Vec<_> = (0..BATCH)
            .map(|i| (crop(&photographs[(step * BATCH + i) % photographs.len()], &mut draws), hole(&mut draws)))
            .collect();
        let batch = Batch::of(&pictures);
        let (painted, filled_in) = batch.painted(&generator);
        let on_fake = critic.forward(&filled_in.detach());
        let on_real = critic.forward(&batch.crops);
        let outputs = [("disc_pred_fake", &on_fake), ("disc_pred_real", &on_real), ("mask", &batch.mask)];
        let of_critic = descend(&mut objective, Side::Discriminator, &outputs, &mut critic_adam)?;
        let (scores, valid) = (critic.forward(&filled_in), 1.0 - &batch.mask);
        let outputs = [
            ("disc_pred_fake_g", &scores),
            ("fake_imgs", &painted),
            ("filled", &filled_in),
            ("real_imgs", &batch.crops),
            ("mask", &batch.mask),
            ("valid", &valid),
        ];
        let of_generator = descend(&mut objective, Side::Generator, &outputs, &mut generator_adam)?;
        for term in of_critic.terms.iter().chain(&of_generator.terms) {
            terms.entry(term.name.clone()).or_default().push(term.value);
        }
        qualities.push(judged(&filled(&generator, &unseen_batch, &unseen)?));
        let now = qualities[step + 1];
        bar.set_message(format!("critic {:.3}, generator {:.3}, {now:.2} dB", of_critic.total, of_generator.total));
        bar.inc(1);
    }
    let results = filled(&generator, &unseen_batch, &unseen)?;
    bar.finish_and_clear();

    let mut panels = Vec::new();
    let holed: Vec<_> = unseen.iter().map(|(crop, hole)| mean_filled(crop, hole)).collect();
    for ((crop, hole), (masked, result)) in unseen.iter().zip(holed.iter().zip(&results)) {
        let decibels = |picture: &Picture| format!("{:.2} dB in the hole", quality(picture, crop, hole));
        panels.push(Panel::new("photograph", "", crop, 3));
        panels.push(Panel::new("in the mean colour", decibels(masked), masked, 3));
        panels.push(Panel::new("filled in", decibels(result), result, 3));
    }
    support::write_png(&arguments.out.join("inpaint_gan.png"), &sheet(&panels, 6)?)?;
    let (before, after) = (qualities[0], qualities[arguments.steps]);
    let image = curves("Filling in what training has not seen", "PSNR in the hole, dB", &[("mean".into(), qualities)])?;
    support::write_png(&arguments.out.join("psnr.png"), &image)?;
    let image = curves("Terms of the objective", "value, weighted", &terms.into_iter().collect::<Vec<_>>())?;
    support::write_png(&arguments.out.join("losses.png"), &image)?;
    Ok(Inpainted { mean_colour: judged(&holed), before, after })
}

#[allow(dead_code, reason = "the test of this file runs without it")]
fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let Inpainted { mean_colour, before, after } = run(&arguments)?;
    let out = arguments.out.display();
    println!(
        "PSNR in the hole {mean_colour:.2} dB in the mean colour, {before:.2} untrained, {after:.2} trained; see {out}"
    );
    Ok(())
}
