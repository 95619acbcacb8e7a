//! A training step of StyleGAN2 on tch: non-saturating loss, R1, path length, L1 and perceptual.

use image_losses::objective::{Objective, Outputs};
use image_losses::penalties::NormMode;
use image_losses::perceptual::PerceptualOptions;
use image_losses::prelude::*;
use image_losses::tch::tch::{Device, Kind, Tensor, nn, nn::Module, nn::OptimizerConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (stores, on_cpu) =
        ([nn::VarStore::new(Device::Cpu), nn::VarStore::new(Device::Cpu)], (Kind::Float, Device::Cpu));
    let disc = nn::seq().add_fn(|x| x.flatten(1, -1)).add(nn::linear(stores[0].root(), 3 * 256, 1, Default::default()));
    let generator =
        nn::seq().add_fn(|w| w.flatten(1, -1)).add(nn::linear(stores[1].root(), 8, 3 * 256, Default::default()));
    let generator = generator.add_fn(|x| x.tanh().reshape([-1, 3, 16, 16]));
    let mut optimizers = [nn::Adam::default().build(&stores[0], 2e-3)?, nn::Adam::default().build(&stores[1], 2e-3)?];
    let (real, latents) = (Tensor::rand([4, 3, 16, 16], on_cpu), Tensor::randn([4, 2, 4], on_cpu));
    let options = PerceptualOptions {
        layer_weights: [("relu1_2".to_owned(), 1.0)].into(),
        style_weight: 0.0,
        ..Default::default()
    };
    let perceptual = PerceptualLoss::new(options, &Weights::Seeded(1))?;

    let r1 = R1GradientPenalty { loss_weight: 80.0, norm_mode: NormMode::Hwc, interval: 16, ..Default::default() };
    let path = GeneratorPathRegularizer { loss_weight: 8.0, interval: 4, ..Default::default() };
    let mut objective = Objective::builder()
        .adversarial(GanLoss::new(GanType::WganLogisticNs), "disc", ["fake", "real"])
        .discriminator("loss_r1", r1, [("discriminator", "disc"), ("real_data", "real")])
        .generator("loss_path", path, [("generator", "gen")])
        .generator("loss_l1", L1Loss::default(), [("pred", "fake"), ("target", "real")])
        .generator("loss_vgg", perceptual, [("x", "fake"), ("gt", "real")])
        .build()?;
    for iteration in 0..4 {
        for (side, optimizer) in [Side::Discriminator, Side::Generator].into_iter().zip(&mut optimizers) {
            let outputs = Outputs::new()
                .number("iteration", f64::from(iteration))
                .tensor("fake", &generator.forward(&latents))
                .tensor("real", &real)
                .tensor("latents", &latents)
                .module("disc", &disc)
                .module("gen", &generator);
            let (report, _) = objective.step(side, &outputs, |total| optimizer.backward_step(total))?;
            println!("{iteration}: {report}");
            assert!(report.first_not_finite.is_none());
        }
    }
    Ok(())
}
