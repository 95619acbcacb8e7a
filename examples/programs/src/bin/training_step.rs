//! A training step on tch.

use image_losses::prelude::*;
use image_losses::tch::tch::{Device, Kind, Tensor, nn, nn::Module, nn::OptimizerConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let variables = nn::VarStore::new(Device::Cpu);
    let network = nn::conv2d(variables.root(), 3, 3, 3, nn::ConvConfig { padding: 1, ..Default::default() });
    let mut optimizer = nn::Adam::default().build(&variables, 1e-2)?;
    let target = Tensor::rand([4, 3, 16, 16], (Kind::Float, Device::Cpu));
    let input = &target + 0.1 * target.randn_like();

    let criterion = CharbonnierLoss { eps: 1e-6, ..Default::default() };
    let mut values = Vec::new();
    for _ in 0..50 {
        let loss = criterion.call([&network.forward(&input), &target], None)?;
        optimizer.backward_step(&loss);
        values.push(loss.double_value(&[]));
    }
    println!("from {:.4} to {:.4}", values[0], values[49]);
    assert!(values[49] < values[0]);
    Ok(())
}
