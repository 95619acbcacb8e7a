//! Parts of a batch in several processes against the whole in one.

use image_losses_autograd::run;
use image_losses_core::{Differentiable, Result, Unary};
use image_losses_penalties::{
    Communicator, Draws, GeneratorPathRegularizer, GradientPenaltyLoss, NormMode, PathLengthState, Processes,
    R1GradientPenalty, global_masked_mean,
};

use super::{Block, Critic, Generator, Penalty, Program, Values};

/// A program's samples from `start` on, `length` of them.
trait Split: Program {
    fn part(&self, start: usize, length: usize) -> Self;
    fn batch(&self) -> usize;
    fn inputs(&self) -> &[Values];
}

fn slice((values, shape): &Values, start: usize, length: usize) -> Values {
    let each = values.len() / shape[0];
    let mut part = shape.clone();
    part[0] = length;
    (values[start * each..(start + length) * each].to_vec(), part)
}

impl Split for Penalty {
    fn part(&self, start: usize, length: usize) -> Self {
        let critic = |critic: &Critic| {
            let data = |values: &Vec<f64>| slice(&(values.clone(), critic.shape.clone()), start, length).0;
            let (real, fake) = (data(&critic.real), data(&critic.fake));
            let mask = critic.mask.as_ref().map(|mask| slice(mask, start, length));
            let shape = [&[length], &critic.shape[1..]].concat();
            let mut draws = critic.draws.clone();
            draws.uniform_values(start); // The α of the samples before.
            Critic { real, fake, mask, shape, draws, network: critic.network.clone() }
        };
        match self {
            Penalty::Gradient(loss, whole) => Penalty::Gradient(*loss, critic(whole)),
            Penalty::R1(loss, whole) => Penalty::R1(*loss, critic(whole)),
            Penalty::R2(loss, whole) => Penalty::R2(*loss, critic(whole)),
            Penalty::PathLength(options, state, whole) => Penalty::PathLength(
                *options,
                *state,
                Generator {
                    latents: slice(&whole.latents, start, length),
                    noise: slice(&whole.noise, start, length),
                    network: whole.network.clone(),
                },
            ),
        }
    }
    fn batch(&self) -> usize {
        match self {
            Penalty::Gradient(_, critic) | Penalty::R1(_, critic) | Penalty::R2(_, critic) => critic.shape[0],
            Penalty::PathLength(_, _, generator) => generator.latents.1[0],
        }
    }
    fn inputs(&self) -> &[Values] {
        self.parameters()
    }
}

/// A masked mean of squares of data times one number.
#[derive(Clone, Debug)]
struct MaskedMean {
    data: Values,
    mask: Option<Values>,
    factor: Values,
}

impl Program for MaskedMean {
    fn run<T: Differentiable>(&self, inputs: &[T], processes: Option<&Processes<'_, T>>) -> Result<T> {
        let constant = |(values, shape): &Values| T::constant(&inputs[0].context(), values, shape);
        let map = constant(&self.data)?.mul(&inputs[0])?.unary(Unary::Square)?;
        let mask = self.mask.as_ref().map(constant).transpose()?;
        match processes {
            Some(processes) => global_masked_mean(&map, mask.as_ref(), processes),
            // Written anew: Σ w·d / Σ w.
            None => match mask {
                Some(mask) => map.mul(&mask)?.sum_all()?.div(&mask.broadcast_to(&map.shape())?.sum_all()?),
                None => map.mean_all(),
            },
        }
    }
}

impl Split for MaskedMean {
    fn part(&self, start: usize, length: usize) -> Self {
        MaskedMean {
            data: slice(&self.data, start, length),
            mask: self.mask.as_ref().map(|mask| slice(mask, start, length)),
            factor: self.factor.clone(),
        }
    }
    fn batch(&self) -> usize {
        self.data.1[0]
    }
    fn inputs(&self) -> &[Values] {
        std::slice::from_ref(&self.factor)
    }
}

/// Value and gradients on the autograd engine, one after the other in one list.
fn evaluate(program: &impl Split, communicator: Option<&dyn Communicator>) -> Result<Vec<f64>> {
    run(|session| {
        let inputs = program.inputs().iter().map(|(values, shape)| session.input(values.clone(), shape));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let read = |tensor: &_| Ok(session.evaluate(&[tensor])?[0][0]);
        let processes = communicator.map(|communicator| Processes { communicator, read: &read });
        let value = program.run(&inputs, processes.as_ref())?;
        let gradients = Differentiable::gradients(&value, &inputs.iter().collect::<Vec<_>>(), false)?;
        let wanted: Vec<_> = [&value].into_iter().chain(gradients.iter().flatten()).collect();
        Ok(session.evaluate(&wanted)?.concat())
    })
}

/// The worst difference between the whole batch and the mean of the processes' shares, over value and gradients. The
/// batch is cut unevenly: every process but the last has one sample.
fn difference(program: &impl Split, rank: usize, communicator: &dyn Communicator) -> Result<f64> {
    let (size, batch) = (communicator.size(), program.batch());
    let length = if rank + 1 == size { batch - (size - 1) } else { 1 };
    let whole = evaluate(program, None)?;
    let share = evaluate(&program.part(rank, length), Some(communicator))?;
    assert_eq!(whole.len(), share.len());
    let mut worst = 0f64;
    for (whole, share) in whole.into_iter().zip(share) {
        let mean = communicator.sum(share)? / size as f64;
        worst = worst.max((whole - mean).abs() / whole.abs().max(1.0));
    }
    Ok(worst)
}

/// The named checks: each with its worst difference, the same in every process.
pub fn checks(rank: usize, communicator: &dyn Communicator) -> Result<Vec<(String, f64)>> {
    let blocks = [Block { out: 3, kernel: 3, stride: 2, padding: 1, activation: 1, pool: 0 }];
    let critic = |mask: u8| Critic::new(17, [4, 2, 5, 5], &blocks, Some(2), mask);
    let mut results = Vec::new();
    for (mask, mask_name) in ["without mask", "with a mask", "with a mask per channel"].into_iter().enumerate() {
        let critic = critic(mask as u8);
        for norm_mode in [NormMode::Pixel, NormMode::Hwc] {
            let options = GradientPenaltyLoss { norm_mode, loss_weight: 10.0, ..Default::default() };
            let penalty = Penalty::Gradient(options, critic.clone());
            let name = format!("gradient penalty {norm_mode:?} {mask_name}");
            results.push((name, difference(&penalty, rank, communicator)?));
            let options = R1GradientPenalty { norm_mode, ..Default::default() };
            let penalty = Penalty::R1(options, critic.clone());
            results.push((format!("R1 {norm_mode:?} {mask_name}"), difference(&penalty, rank, communicator)?));
        }
        let mut draws = Draws::new(5);
        let mask_shape = [None, Some(vec![4, 1, 3]), Some(vec![4, 2, 3])][mask].clone();
        let mean = MaskedMean {
            data: (draws.normal_values(24), vec![4, 2, 3]),
            mask: mask_shape.map(|shape| (draws.uniform_values(shape.iter().product()), shape)),
            factor: (vec![0.7], vec![1, 1, 1]),
        };
        results.push((format!("mean {mask_name}"), difference(&mean, rank, communicator)?));
    }
    let options =
        GeneratorPathRegularizer { decay: 0.3, loss_weight: 2.0, sync_mean_buffer: true, ..Default::default() };
    let state = PathLengthState { mean_path_length: 1.7 };
    let penalty = Penalty::PathLength(options, state, Generator::new(3, [4, 2, 3], [1, 2], false));
    results.push(("path length with sync_mean_buffer".into(), difference(&penalty, rank, communicator)?));
    Ok(results)
}
