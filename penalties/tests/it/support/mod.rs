//! Random small networks and the penalties on them, for any engine.
#![allow(dead_code, unreachable_pub)] // Each test binary uses its part.

use image_losses_core::{Conv2d, Differentiable, Pool2d, Result, Tensor, Unary};
use image_losses_penalties::{
    Call, Draws, GeneratorPathRegularizer, GradientPenaltyLoss, PathLengthState, Processes, R1GradientPenalty,
    R2GradientPenalty,
};
use proptest::prelude::*;

pub mod processes;

/// Values with their shape.
pub type Values = (Vec<f64>, Vec<usize>);

/// A step of a network; parameters are positions in the network's list.
#[derive(Clone, Debug)]
pub enum Layer {
    Conv { weight: usize, stride: usize, padding: usize },
    Linear { weight: usize },
    LeakyRelu(f64),
    Softplus,
    Tanh,
    Flatten,
    Reshape(Vec<usize>),
    MaxPool { size: usize, stride: usize },
}

/// Layers with their parameters; a bias follows its weight.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub layers: Vec<Layer>,
    pub parameters: Vec<Values>,
}

impl Network {
    pub fn forward<T: Tensor>(&self, parameters: &[T], input: &T) -> Result<T> {
        let mut x = input.clone();
        for layer in &self.layers {
            x = match layer {
                Layer::Conv { weight, stride, padding } => {
                    let geometry = Conv2d::padded(*padding).strided(*stride);
                    x.conv2d(&parameters[*weight], Some(&parameters[weight + 1]), geometry)?
                }
                Layer::Linear { weight } => {
                    let out = x.matmul(&parameters[*weight], false, true)?;
                    let bias = &parameters[weight + 1];
                    out.add(&bias.reshape(&[1, bias.elements()])?)?
                }
                Layer::LeakyRelu(slope) => x.leaky_relu(*slope)?,
                Layer::Softplus => x.unary(Unary::Softplus)?,
                Layer::Tanh => x.unary(Unary::Tanh)?,
                Layer::Flatten => x.reshape(&[x.shape()[0], x.elements() / x.shape()[0]])?,
                Layer::Reshape(shape) => x.reshape(&[&x.shape()[..1], shape].concat())?,
                Layer::MaxPool { size, stride } => {
                    x.max_pool2d(Pool2d { size: [*size; 2], stride: [*stride; 2], padding: [0; 2], ceil_mode: false })?
                }
            };
        }
        Ok(x)
    }

    fn parameter(&mut self, draws: &mut Draws, shape: &[usize]) -> usize {
        let count: usize = shape.iter().product();
        let scale = 1.5 / ((count / shape[0]) as f64).sqrt();
        let values = draws.normal_values(count).into_iter().map(|value| value * scale).collect();
        self.parameters.push((values, shape.to_vec()));
        self.parameters.push((draws.normal_values(shape[0]), vec![shape[0]]));
        self.parameters.len() - 2
    }

    fn activation(&mut self, choice: u8) {
        self.layers.push(match choice % 3 {
            0 => Layer::LeakyRelu(0.2),
            1 => Layer::Softplus,
            _ => Layer::Tanh,
        });
    }
}

/// What decides a convolutional block.
#[derive(Clone, Debug)]
pub struct Block {
    pub out: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub activation: u8,
    /// Stride of a 2×2 maximum pooling; 0 for none.
    pub pool: usize,
}

prop_compose! {
    pub fn block()(out in 1usize..4, kernel in 1usize..4, stride in 1usize..3, padding in 0usize..2,
        activation in 0u8..3, pool in 0usize..3) -> Block {
        Block { out, kernel, stride, padding, activation, pool }
    }
}

/// A critic of images, with data for it.
#[derive(Clone, Debug)]
pub struct Critic {
    pub network: Network,
    pub shape: Vec<usize>,
    pub real: Vec<f64>,
    pub fake: Vec<f64>,
    pub mask: Option<Values>,
    pub draws: Draws,
}

impl Critic {
    pub fn new(seed: u64, shape: [usize; 4], blocks: &[Block], hidden: Option<u8>, mask: u8) -> Self {
        let mut draws = Draws::new(seed);
        let mut network = Network::default();
        let [n, channels, mut height, mut width] = shape;
        let mut depth = channels;
        for block in blocks {
            let out = |extent: usize| (extent + 2 * block.padding - block.kernel) / block.stride + 1;
            if height.min(width) + 2 * block.padding < block.kernel {
                break;
            }
            let weight = network.parameter(&mut draws, &[block.out, depth, block.kernel, block.kernel]);
            network.layers.push(Layer::Conv { weight, stride: block.stride, padding: block.padding });
            network.activation(block.activation);
            (depth, height, width) = (block.out, out(height), out(width));
            if block.pool > 0 && height.min(width) >= 2 {
                network.layers.push(Layer::MaxPool { size: 2, stride: block.pool });
                (height, width) = ((height - 2) / block.pool + 1, (width - 2) / block.pool + 1);
            }
        }
        network.layers.push(Layer::Flatten);
        let mut features = depth * height * width;
        if let Some(activation) = hidden {
            let weight = network.parameter(&mut draws, &[3, features]);
            network.layers.push(Layer::Linear { weight });
            network.activation(activation);
            features = 3;
        }
        let weight = network.parameter(&mut draws, &[1, features]);
        network.layers.push(Layer::Linear { weight });
        let count = shape.iter().product();
        let mask = match mask {
            0 => None,
            1 => Some(vec![n, 1, shape[2], shape[3]]),
            _ => Some(shape.to_vec()),
        };
        let (real, fake) = (draws.normal_values(count), draws.normal_values(count));
        let mask = mask.map(|shape| (draws.uniform_values(shape.iter().product()), shape));
        Critic { network, shape: shape.to_vec(), real, fake, mask, draws }
    }
}

prop_compose! {
    pub fn critic()(seed in any::<u64>(), n in 1usize..3, channels in 1usize..3, height in 4usize..7,
        width in 4usize..7, blocks in prop::collection::vec(block(), 1..3), hidden in prop::option::of(0u8..3),
        mask in 0u8..3) -> Critic {
        Critic::new(seed, [n, channels, height, width], &blocks, hidden, mask)
    }
}

/// A generator of images, with latents and noise for it.
#[derive(Clone, Debug)]
pub struct Generator {
    pub network: Network,
    pub latents: Values,
    pub noise: Values,
}

impl Generator {
    pub fn new(seed: u64, [n, layers, features]: [usize; 3], activations: [u8; 2], pool: bool) -> Self {
        let mut draws = Draws::new(seed);
        let mut network = Network::default();
        network.layers.push(Layer::Flatten);
        let weight = network.parameter(&mut draws, &[4, layers * features]);
        network.layers.push(Layer::Linear { weight });
        network.activation(activations[0]);
        let weight = network.parameter(&mut draws, &[2 * 4 * 5, 4]);
        network.layers.extend([Layer::Linear { weight }, Layer::Reshape(vec![2, 4, 5])]);
        let weight = network.parameter(&mut draws, &[1, 2, 3, 3]);
        network.layers.push(Layer::Conv { weight, stride: 1, padding: 1 });
        network.activation(activations[1]);
        let mut image = vec![n, 1, 4, 5];
        if pool {
            network.layers.push(Layer::MaxPool { size: 2, stride: 1 });
            image = vec![n, 1, 3, 4];
        }
        let latents = (draws.normal_values(n * layers * features), vec![n, layers, features]);
        let noise = (draws.normal_values(image.iter().product()), image);
        Generator { network, latents, noise }
    }
}

prop_compose! {
    pub fn generator()(seed in any::<u64>(), n in 1usize..4, layers in 1usize..3, features in 1usize..4,
        first in 0u8..3, second in 0u8..3, pool: bool) -> Generator {
        Generator::new(seed, [n, layers, features], [first, second], pool)
    }
}

/// A number computed from tensors, on any engine.
pub trait Program {
    fn run<T: Differentiable>(&self, inputs: &[T], processes: Option<&Processes<'_, T>>) -> Result<T>;
}

/// A penalty on a network, as a function of the network's parameters.
#[derive(Clone, Debug)]
pub enum Penalty {
    Gradient(GradientPenaltyLoss, Critic),
    R1(R1GradientPenalty, Critic),
    R2(R2GradientPenalty, Critic),
    PathLength(GeneratorPathRegularizer, PathLengthState, Generator),
}

impl Penalty {
    pub fn parameters(&self) -> &[Values] {
        match self {
            Penalty::Gradient(_, critic) | Penalty::R1(_, critic) | Penalty::R2(_, critic) => {
                &critic.network.parameters
            }
            Penalty::PathLength(_, _, generator) => &generator.network.parameters,
        }
    }
}

impl Program for Penalty {
    fn run<T: Differentiable>(&self, parameters: &[T], processes: Option<&Processes<'_, T>>) -> Result<T> {
        let context = parameters[0].context();
        let constant = |(values, shape): &Values| T::constant(&context, values, shape);
        let data = |critic: &Critic| {
            let batch = |values: &Vec<f64>| T::constant(&context, values, &critic.shape);
            Ok((batch(&critic.real)?, batch(&critic.fake)?, critic.mask.as_ref().map(constant).transpose()?))
        };
        match self {
            Penalty::Gradient(loss, critic) => {
                let (real, fake, mask) = data(critic)?;
                let network = |x: &T| critic.network.forward(parameters, x);
                let call = Call { mask: mask.as_ref(), processes, ..Call::default() };
                loss.forward(network, Some(&fake), &real, &mut critic.draws.clone(), call)
            }
            Penalty::R1(loss, critic) => {
                let (real, _, mask) = data(critic)?;
                let call = Call { mask: mask.as_ref(), processes, ..Call::default() };
                loss.forward(|x| critic.network.forward(parameters, x), &real, call)
            }
            Penalty::R2(loss, critic) => {
                let (_, fake, mask) = data(critic)?;
                let call = Call { mask: mask.as_ref(), processes, ..Call::default() };
                loss.forward(|x| critic.network.forward(parameters, x), &fake, call)
            }
            Penalty::PathLength(loss, state, generator) => {
                let (latents, noise) = (constant(&generator.latents)?, constant(&generator.noise)?);
                let network = |x: &T| generator.network.forward(parameters, x);
                let call = Call { processes, ..Call::default() };
                Ok(loss.forward(network, &latents, &[&noise], state, call)?.penalty)
            }
        }
    }
}

/// The value of a program and its gradient with respect to each input.
pub trait Engine {
    fn differentiate(&self, inputs: &[Values], program: &impl Program) -> Result<(f64, Vec<Vec<f64>>)>;
}

/// The worst disagreement between the gradient with respect to every parameter (a second derivative) and central
/// differences of the penalty (which holds first derivatives), along random directions that move all elements of one
/// parameter each.
///
/// A penalty jumps where a leaky ReLU or a maximum switches: where the widest step disagrees, narrower ones may agree.
pub fn second_derivative_error(engine: &impl Engine, penalty: &Penalty, seed: u64) -> Result<f64> {
    const DIRECTIONS: usize = 2;
    let parameters = penalty.parameters();
    let mut draws = Draws::new(seed);
    let directions: Vec<Vec<Vec<f64>>> = parameters
        .iter()
        .map(|(values, _)| (0..DIRECTIONS).map(|_| draws.normal_values(values.len())).collect())
        .collect();
    let moved = |steps: &[Vec<f64>]| -> Vec<Values> {
        let mut moved = parameters.to_vec();
        for ((parameter, directions), steps) in moved.iter_mut().zip(&directions).zip(steps) {
            for (direction, step) in directions.iter().zip(steps) {
                parameter.0.iter_mut().zip(direction).for_each(|(value, d)| *value += step * d);
            }
        }
        moved
    };
    let (_, gradients) = engine.differentiate(parameters, penalty)?;
    let along: Vec<Vec<f64>> = gradients
        .iter()
        .zip(&directions)
        .map(|(gradient, directions)| {
            directions.iter().map(|direction| gradient.iter().zip(direction).map(|(g, d)| g * d).sum()).collect()
        })
        .collect();
    let origin = vec![vec![0.0; DIRECTIONS]; parameters.len()];
    let mut best = f64::INFINITY;
    for step in [2e-5, 2e-6, 2e-7] {
        let worst = image_losses_core::gradcheck::check_gradient(
            &origin,
            step,
            |steps| Ok(engine.differentiate(&moved(steps), penalty)?.0),
            |_| Ok(along.clone()),
        )?;
        best = best.min(worst.map_or(0.0, |worst| worst.error));
        if best < 1e-6 {
            break;
        }
    }
    Ok(best)
}
