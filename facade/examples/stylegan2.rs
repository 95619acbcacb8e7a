//! A training step of StyleGAN2: non-saturating adversarial loss, R1, path length, and L1 and perceptual terms.
//!
//! ```text
//! cargo run --release --example stylegan2                             # pure Rust
//! cargo run --release --example stylegan2 --features tch              # libtorch
//! cargo run --release --example stylegan2 -- --vgg vgg19-dcbb9e9d.pth # with trained features
//! ```
//!
//! The networks are as small as networks can be: what is shown is the objective. Prints a report for each side and step.

use std::path::PathBuf;

use clap::Parser;
#[cfg(feature = "tch")]
use image_losses::core::Error;
use image_losses::core::{Result, Unary};
use image_losses::objective::{Objective, Outputs, Report};
use image_losses::penalties::NormMode;
use image_losses::perceptual::{PerceptualOptions, networks::VggType};
use image_losses::prelude::*;

/// Train two tiny networks with StyleGAN2's objective.
#[derive(Debug, Parser)]
struct Arguments {
    /// Steps of each side.
    #[arg(long, default_value_t = 20)]
    steps: u32,
    /// VGG-19's parameters; seeded ones without.
    #[arg(long, value_name = "FILE")]
    vgg: Option<PathBuf>,
}

const BATCH: usize = 4;
const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
const LATENTS: [usize; 3] = [BATCH, 2, 8];

/// The perceptual term, over one early layer.
pub fn perceptual(vgg: Option<PathBuf>) -> Result<PerceptualLoss> {
    let layer_weights = [("relu2_1".to_owned(), 1.0)].into();
    let options = PerceptualOptions {
        layer_weights,
        vgg_type: VggType::Vgg19,
        style_weight: 0.0,
        pretrained: vgg.as_ref().map(|file| file.to_string_lossy().into_owned()),
        ..Default::default()
    };
    PerceptualLoss::new(options, &if vgg.is_some() { Weights::default() } else { Weights::Seeded(1) })
}

/// Training on arrays: the reports of each step, discriminator's and generator's in turn.
pub fn on_arrays(steps: u32, perceptual: PerceptualLoss) -> Result<Vec<Report>> {
    let mut draws = Draws::new(1);
    let mut normal = |shape: &[usize], scale: f64| {
        let values = draws.normal_values(shape.iter().product());
        NdTensor::from_vec(values.into_iter().map(|value| (scale * value) as f32).collect(), shape)
    };
    let (real, latents) = (normal(&[BATCH, 3, SIDE, SIDE], 0.5)?, normal(&LATENTS, 1.0)?);
    let critic = vec![normal(&[PIXELS, 16], 0.02)?.leaf()?, normal(&[16, 1], 0.2)?.leaf()?];
    let mut parameters = [critic, vec![normal(&[16, PIXELS], 0.1)?.leaf()?]];
    let mut reports = Vec::new();

    // The objective and its steps.
    let r1 = R1GradientPenalty { loss_weight: 80.0, norm_mode: NormMode::Hwc, interval: 16, ..Default::default() };
    let path = GeneratorPathRegularizer { loss_weight: 8.0, interval: 4, ..Default::default() };
    let mut objective = Objective::builder()
        .adversarial(GanLoss::new(GanType::WganLogisticNs), "disc", ["fake", "real"])
        .discriminator("loss_r1", r1, [("discriminator", "disc"), ("real_data", "real")])
        .generator("loss_path", path, [("generator", "gen")])
        .generator("loss_l1", L1Loss::default(), [("pred", "fake"), ("target", "real")])
        .generator("loss_vgg", perceptual, [("x", "fake"), ("gt", "real")])
        .build()?;
    for iteration in 0..steps {
        for (own, side) in [Side::Discriminator, Side::Generator].into_iter().enumerate() {
            let [d, g] = parameters.clone();
            let outputs = Outputs::new()
                .number("iteration", f64::from(iteration))
                .tensor("fake", &generate(&g, &latents)?)
                .tensor("real", &real)
                .tensor("latents", &latents)
                .network("disc", |x| judge(&d, x))
                .network("gen", |w| generate(&g, w));
            let (report, gradients) = objective.step(side, &outputs, |total| gradients(total, &parameters[own]))?;
            descend(&mut parameters[own], gradients.unwrap_or_default())?;
            reports.push(report);
        }
    }
    Ok(reports)
}

type Array = NdTensor<'static, f32>;

/// D(x) = tanh(x·A)·b.
fn judge(parameters: &[Array], x: &Array) -> Result<Array> {
    let hidden = x.reshape(&[x.shape()[0], PIXELS])?.matmul(&parameters[0], false, false)?.unary(Unary::Tanh)?;
    hidden.matmul(&parameters[1], false, false)
}

/// G(w) = tanh(w·C), an image.
fn generate(parameters: &[Array], latents: &Array) -> Result<Array> {
    let n = latents.shape()[0];
    let image = latents.reshape(&[n, 16])?.matmul(&parameters[0], false, false)?.unary(Unary::Tanh)?;
    image.reshape(&[n, 3, SIDE, SIDE])
}

fn gradients(total: &Array, parameters: &[Array]) -> Result<Vec<Option<Array>>> {
    NdTensor::gradients(total, &parameters.iter().collect::<Vec<_>>(), false)
}

/// A step of gradient descent.
fn descend(parameters: &mut [Array], gradients: Vec<Option<Array>>) -> Result<()> {
    for (parameter, gradient) in parameters.iter_mut().zip(gradients) {
        if let Some(gradient) = gradient {
            *parameter = parameter.sub(&gradient.scale(1e-3)?)?.detach().leaf()?;
        }
    }
    Ok(())
}

/// The same with tch.
#[cfg(feature = "tch")]
pub fn on_tch(steps: u32, perceptual: PerceptualLoss) -> Result<Vec<Report>> {
    use image_losses::tch::tch::{Device, Kind, TchError, Tensor, nn, nn::Module, nn::OptimizerConfig};

    image_losses::tch::tch::manual_seed(1);
    let (on_cpu, shape) = ((Kind::Float, Device::Cpu), |extents: [usize; 3]| extents.map(|extent| extent as i64));
    let real = 0.5 * Tensor::randn([BATCH as i64, 3, SIDE as i64, SIDE as i64], on_cpu);
    let latents = Tensor::randn(shape(LATENTS), on_cpu);
    let variables = [nn::VarStore::new(Device::Cpu), nn::VarStore::new(Device::Cpu)];
    let linear = |store: &nn::VarStore, name: &str, a, b| nn::linear(store.root() / name, a, b, Default::default());
    let disc = nn::seq()
        .add_fn(|x| x.flatten(1, -1))
        .add(linear(&variables[0], "a", PIXELS as i64, 16))
        .add_fn(Tensor::tanh)
        .add(linear(&variables[0], "b", 16, 1));
    let generator = nn::seq()
        .add_fn(|w| w.flatten(1, -1))
        .add(linear(&variables[1], "c", 16, PIXELS as i64))
        .add_fn(|x| x.tanh().reshape([-1, 3, SIDE as i64, SIDE as i64]));
    let engine = |error: TchError| Error::Engine { engine: "tch", message: error.to_string() };
    let build = |store| nn::Sgd::default().build(store, 1e-3).map_err(engine);
    let mut optimizers = [build(&variables[0])?, build(&variables[1])?];
    let mut reports = Vec::new();

    // The objective and its steps.
    let r1 = R1GradientPenalty { loss_weight: 80.0, norm_mode: NormMode::Hwc, interval: 16, ..Default::default() };
    let path = GeneratorPathRegularizer { loss_weight: 8.0, interval: 4, ..Default::default() };
    let mut objective = Objective::builder()
        .adversarial(GanLoss::new(GanType::WganLogisticNs), "disc", ["fake", "real"])
        .discriminator("loss_r1", r1, [("discriminator", "disc"), ("real_data", "real")])
        .generator("loss_path", path, [("generator", "gen")])
        .generator("loss_l1", L1Loss::default(), [("pred", "fake"), ("target", "real")])
        .generator("loss_vgg", perceptual, [("x", "fake"), ("gt", "real")])
        .build()?;
    for iteration in 0..steps {
        for (side, optimizer) in [Side::Discriminator, Side::Generator].into_iter().zip(&mut optimizers) {
            let outputs = Outputs::new()
                .number("iteration", f64::from(iteration))
                .tensor("fake", &generator.forward(&latents))
                .tensor("real", &real)
                .tensor("latents", &latents)
                .module("disc", &disc)
                .module("gen", &generator);
            let (report, _) = objective.step(side, &outputs, |total| {
                let _: () = optimizer.backward_step(total);
                Ok(())
            })?;
            reports.push(report);
        }
    }
    Ok(reports)
}

#[allow(dead_code, reason = "the test of this file trains without it")]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let perceptual = perceptual(arguments.vgg)?;
    #[cfg(feature = "tch")]
    let reports = on_tch(arguments.steps, perceptual)?;
    #[cfg(not(feature = "tch"))]
    let reports = on_arrays(arguments.steps, perceptual)?;
    for (step, [discriminator, generator]) in reports.as_chunks().0.iter().enumerate() {
        println!("{step}: discriminator {discriminator}");
        println!("{step}: generator {generator}");
    }
    Ok(())
}
