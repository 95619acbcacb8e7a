//! Trains a Wasserstein GAN with gradient penalty on a mixture of eight Gaussians in the plane.
//!
//! ```text
//! cargo run --release --example wgan_gp                  # pure Rust
//! cargo run --release --example wgan_gp --features tch   # libtorch
//! ```
//!
//! Writes `wgan_gp.png`: real (grey) and generated (blue) samples on the left; on the right the critic's (red) and the
//! generator's (blue) loss.

mod support;

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};

use clap::Parser;
use image_losses::core::{Differentiable, Result, Tensor, Unary};
use image_losses::gan::{GanLoss, GanType, On, Side};
use image_losses::ndarray::NdTensor;
use image_losses::penalties::{Call, Draws, GradientPenaltyLoss, NormMode};

use support::Outcome;

/// Train a Wasserstein GAN with gradient penalty on eight Gaussians in the plane.
#[derive(Debug, Parser)]
struct Arguments {
    /// Steps of the generator.
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the picture goes.
    #[arg(long, value_name = "DIR", default_value = "target/examples/wgan_gp")]
    out: PathBuf,
}

/// Values with their shape: networks and batches, whatever the engine.
pub type Values = (Vec<f64>, Vec<usize>);

/// What is minimised: written once, for tensors of any engine.
pub trait Objective {
    /// The value as a function of the parameters.
    fn value<T: Differentiable>(&self, parameters: &[T]) -> Result<T>;
}

/// What differs between engines: how numbers get in and out.
pub trait Engine {
    /// The objective's value and its gradient with respect to each parameter.
    fn differentiate(&self, parameters: &[Values], objective: &impl Objective) -> Result<(Vec<f64>, Vec<Vec<f64>>)>;
}

/// Pure Rust.
#[derive(Debug)]
pub struct Arrays;

impl Engine for Arrays {
    fn differentiate(&self, parameters: &[Values], objective: &impl Objective) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
        let leaf = |(values, shape): &Values| NdTensor::from_vec(values.clone(), shape)?.leaf();
        let leaves = parameters.iter().map(leaf).collect::<Result<Vec<_>>>()?;
        let value = objective.value(&leaves)?;
        let gradients = NdTensor::gradients(&value, &leaves.iter().collect::<Vec<_>>(), false)?;
        let numbers = |tensor: NdTensor<'_, f64>| tensor.into_array().into_raw_vec_and_offset().0;
        let or_zeros = |(gradient, leaf): (Option<_>, &NdTensor<'_, f64>)| {
            gradient.map_or_else(|| vec![0.0; leaf.elements()], numbers)
        };
        Ok((numbers(value), gradients.into_iter().zip(&leaves).map(or_zeros).collect()))
    }
}

/// libtorch.
#[cfg(feature = "tch")]
#[derive(Debug)]
pub struct Torch;

#[cfg(feature = "tch")]
impl Engine for Torch {
    fn differentiate(&self, parameters: &[Values], objective: &impl Objective) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
        use image_losses::tch::{differentiate, tch, tch::Tensor};
        // Matrices this small: more threads only wait for one another.
        tch::set_num_threads(1);
        let tensor = |(values, shape): &Values| {
            Tensor::from_slice(values).reshape(shape.iter().map(|&extent| extent as i64).collect::<Vec<_>>())
        };
        let numbers = |tensor: &Tensor| Vec::try_from(tensor.contiguous().flatten(0, -1)).unwrap_or_default();
        let tensors: Vec<Tensor> = parameters.iter().map(tensor).collect();
        let (value, gradients) =
            differentiate(&tensors.iter().collect::<Vec<_>>(), |parameters| objective.value(parameters))?;
        Ok((numbers(&value), gradients.iter().map(numbers).collect()))
    }
}

/// Fully connected layers of the given widths: weights and biases in turn.
fn network(widths: &[usize], draws: &mut Draws) -> Vec<Values> {
    let layer = |pair: &[usize]| {
        let scale = (2.0 / pair[0] as f64).sqrt();
        let weight = draws.normal_values(pair[0] * pair[1]).into_iter().map(|value| value * scale).collect();
        [(weight, vec![pair[1], pair[0]]), (vec![0.0; pair[1]], vec![1, pair[1]])]
    };
    widths.windows(2).flat_map(layer).collect()
}

/// The network's output; ReLU between the layers.
fn forward<T: Tensor>(parameters: &[T], input: &T) -> Result<T> {
    let mut x = input.clone();
    for (position, layer) in parameters.chunks(2).enumerate() {
        if position > 0 {
            x = x.unary(Unary::Relu)?;
        }
        x = x.matmul(&layer[0], false, true)?.add(&layer[1])?;
    }
    Ok(x)
}

/// Values as constants on the context of `like`.
fn constants<T: Tensor>(like: &T, values: &[Values]) -> Result<Vec<T>> {
    values.iter().map(|(values, shape)| T::constant(&like.context(), values, shape)).collect()
}

fn wasserstein() -> GanLoss {
    GanLoss::new(GanType::Wgan)
}

/// mean D(fake) − mean D(real) + gradient penalty, as a function of the critic.
struct CriticLoss<'a> {
    generator: &'a [Values],
    /// Real samples, latents, α.
    batch: [Values; 3],
}

impl Objective for CriticLoss<'_> {
    fn value<T: Differentiable>(&self, critic: &[T]) -> Result<T> {
        let batch = constants(&critic[0], &self.batch)?;
        let [real, latents, alpha] = &batch[..] else { unreachable!("three batches") };
        let fake = forward(&constants(&critic[0], self.generator)?, latents)?;
        let (loss, critic) = (wasserstein(), |x: &T| forward(critic, x));
        let on_fake = loss.forward(&critic(&fake)?, Side::Discriminator, On::Fake, None)?;
        let on_real = loss.forward(&critic(real)?, Side::Discriminator, On::Real, None)?;
        // λ = 1: the 10 of image critics holds one of these few dimensions too tightly, and the modes are not told apart.
        let options = GradientPenaltyLoss { norm_mode: NormMode::Hwc, ..GradientPenaltyLoss::default() };
        let penalty = options.forward(critic, Some(&fake), real, &[alpha], Call::default())?;
        on_fake.add(&on_real)?.add(&penalty)
    }
}

/// −mean D(fake), as a function of the generator.
struct GeneratorLoss<'a> {
    critic: &'a [Values],
    latents: Values,
}

impl Objective for GeneratorLoss<'_> {
    fn value<T: Differentiable>(&self, generator: &[T]) -> Result<T> {
        let latents = constants(&generator[0], std::slice::from_ref(&self.latents))?;
        let fake = forward(generator, &latents[0])?;
        wasserstein().forward(
            &forward(&constants(&generator[0], self.critic)?, &fake)?,
            Side::Generator,
            On::Fake,
            None,
        )
    }
}

/// The generator's samples themselves.
struct Samples(Values);

impl Objective for Samples {
    fn value<T: Differentiable>(&self, generator: &[T]) -> Result<T> {
        forward(generator, &constants(&generator[0], std::slice::from_ref(&self.0))?[0])
    }
}

/// The optimiser of Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.
struct Adam {
    step: i32,
    moments: Vec<Vec<[f64; 2]>>,
}

impl Adam {
    const BETA: [f64; 2] = [0.5, 0.9];

    fn new(parameters: &[Values]) -> Self {
        Adam { step: 0, moments: parameters.iter().map(|(values, _)| vec![[0.0; 2]; values.len()]).collect() }
    }

    fn update(&mut self, rate: f64, parameters: &mut [Values], gradients: &[Vec<f64>]) {
        self.step += 1;
        let correction = Adam::BETA.map(|beta| 1.0 - beta.powi(self.step));
        for ((parameter, gradient), moments) in parameters.iter_mut().zip(gradients).zip(&mut self.moments) {
            for ((value, g), moments) in parameter.0.iter_mut().zip(gradient).zip(moments) {
                for (moment, (beta, g)) in moments.iter_mut().zip(Adam::BETA.into_iter().zip([*g, g * g])) {
                    *moment = beta * *moment + (1.0 - beta) * g;
                }
                let [mean, square] = [moments[0] / correction[0], moments[1] / correction[1]];
                *value -= rate * mean / (square.sqrt() + 1e-8);
            }
        }
    }
}

const MODES: usize = 8;
const RADIUS: f64 = 2.0;
const DEVIATION: f64 = 0.2;
const LATENTS: usize = 2;
const BATCH: usize = 128;
const CRITIC_STEPS: usize = 3;

fn centre(mode: usize) -> [f64; 2] {
    let angle = TAU * mode as f64 / MODES as f64;
    [RADIUS * angle.cos(), RADIUS * angle.sin()]
}

/// Samples of the mixture.
fn mixture(count: usize, draws: &mut Draws) -> Values {
    let modes = draws.uniform_values(count);
    let noise = draws.normal_values(2 * count);
    let sample = |(u, noise): (&f64, &[f64])| {
        let centre = centre((u * MODES as f64) as usize);
        [centre[0] + DEVIATION * noise[0], centre[1] + DEVIATION * noise[1]]
    };
    (modes.iter().zip(noise.chunks(2)).flat_map(sample).collect(), vec![count, 2])
}

fn latents(count: usize, draws: &mut Draws) -> Values {
    (draws.normal_values(count * LATENTS), vec![count, LATENTS])
}

/// How well samples cover the mixture.
#[derive(Clone, Copy, Debug)]
pub struct Coverage {
    /// Modes with at least a quarter of their fair share of the samples within three standard deviations.
    pub modes: usize,
    /// The fraction of samples within three standard deviations of some mode.
    pub high_quality: f64,
}

impl Coverage {
    fn of(samples: &[f64]) -> Self {
        let mut counts = [0usize; MODES];
        for sample in samples.chunks(2) {
            let near = |mode: &usize| {
                let centre = centre(*mode);
                (sample[0] - centre[0]).hypot(sample[1] - centre[1]) < 3.0 * DEVIATION
            };
            if let Some(mode) = (0..MODES).find(near) {
                counts[mode] += 1;
            }
        }
        let total = samples.len() / 2;
        Coverage {
            modes: counts.iter().filter(|&&count| 4 * MODES * count >= total).count(),
            high_quality: counts.iter().sum::<usize>() as f64 / total as f64,
        }
    }
}

/// What a training leaves.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The critic's and the generator's loss at each step.
    pub losses: Vec<[f64; 2]>,
    /// Generated points, x and y in turn.
    pub samples: Vec<f64>,
    /// How well they cover the mixture.
    pub coverage: Coverage,
}

/// Trains for a number of generator steps; `progress` hears of each.
pub fn train(engine: &impl Engine, steps: usize, seed: u64, mut progress: impl FnMut(&[[f64; 2]])) -> Result<Trained> {
    let mut draws = Draws::new(seed);
    let mut generator = network(&[LATENTS, 64, 64, 2], &mut draws);
    let mut critic = network(&[2, 64, 64, 1], &mut draws);
    let (mut of_generator, mut of_critic) = (Adam::new(&generator), Adam::new(&critic));
    let mut losses = Vec::with_capacity(steps);
    for step in 0..steps {
        // Falls to zero, so that the two come to rest.
        let rate = 1e-3 * (1.0 - step as f64 / steps as f64);
        let mut critic_loss = 0.0;
        for _ in 0..CRITIC_STEPS {
            let alpha = (draws.uniform_values(BATCH), vec![BATCH, 1]);
            let batch = [mixture(BATCH, &mut draws), latents(BATCH, &mut draws), alpha];
            let objective = CriticLoss { generator: &generator, batch };
            let (value, gradients) = engine.differentiate(&critic, &objective)?;
            of_critic.update(3.0 * rate, &mut critic, &gradients);
            critic_loss = value[0];
        }
        let objective = GeneratorLoss { critic: &critic, latents: latents(BATCH, &mut draws) };
        let (value, gradients) = engine.differentiate(&generator, &objective)?;
        of_generator.update(2.0 * rate, &mut generator, &gradients);
        losses.push([critic_loss, value[0]]);
        progress(&losses);
    }
    let (samples, _) = engine.differentiate(&generator, &Samples(latents(2000, &mut draws)))?;
    let coverage = Coverage::of(&samples);
    Ok(Trained { losses, samples, coverage })
}

/// Writes samples and loss curves as a PNG.
pub fn plot(trained: &Trained, path: &str) -> Outcome<()> {
    use plotters::prelude::*;
    let steps = trained.losses.len();
    let all = || trained.losses.iter().flatten().copied();
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let image = support::sheet::drawn([1200, 600], |root| {
        let (left, right) = root.split_horizontally(600);
        let mut chart = ChartBuilder::on(&left)
            .margin(10)
            .caption("samples: real (grey), generated (blue)", ("sans-serif", 18))
            .x_label_area_size(30)
            .y_label_area_size(36)
            .build_cartesian_2d(-3.0..3.0, -3.0..3.0)?;
        chart.configure_mesh().disable_mesh().draw()?;
        let (real, _) = mixture(trained.samples.len() / 2, &mut Draws::new(0));
        let mut points = |samples: &[f64], colour: RGBAColor| {
            chart.draw_series(samples.chunks(2).map(|p| Circle::new((p[0], p[1]), 2, colour.filled()))).map(|_| ())
        };
        points(&real, BLACK.mix(0.2))?;
        points(&trained.samples, BLUE.mix(0.6))?;
        let mut chart = ChartBuilder::on(&right)
            .margin(10)
            .caption("losses: critic (red), generator (blue)", ("sans-serif", 18))
            .x_label_area_size(30)
            .y_label_area_size(44)
            .build_cartesian_2d(0..steps.max(1), low..high.max(low + 1.0))?;
        chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("step").draw()?;
        for (which, colour) in [RED, BLUE].into_iter().enumerate() {
            let curve = trained.losses.iter().enumerate().map(|(step, losses)| (step, losses[which]));
            chart.draw_series(LineSeries::new(curve, colour))?;
        }
        Ok(())
    })?;
    support::write_png(Path::new(path), &image)
}

#[allow(dead_code, reason = "the test of this file trains without it")]
fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    #[cfg(feature = "tch")]
    let engine = Torch;
    #[cfg(not(feature = "tch"))]
    let engine = Arrays;

    let bar = support::progress(arguments.steps);
    let trained = train(&engine, arguments.steps, arguments.seed, |losses| {
        let [critic, generator] = losses[losses.len() - 1];
        bar.set_message(format!("critic {critic:.3}, generator {generator:.3}"));
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    let path = arguments.out.join("wgan_gp.png");
    plot(&trained, &path.to_string_lossy())?;
    let Coverage { modes, high_quality } = trained.coverage;
    let part = 100.0 * high_quality;
    println!("{modes} of {MODES} modes covered, {part:.0} % of the samples near one; see {}", path.display());
    Ok(())
}
