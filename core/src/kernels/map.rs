//! The fused pointwise kernel: map, weigh, reduce, and the gradients of that, in one pass over memory.
#![allow(unsafe_code)]

use std::borrow::Cow;

use rayon::prelude::*;

use super::broadcast;
use super::isa::{self, Isa, Kernel};
use super::{Array, count};
use crate::pointwise::Block;
use crate::{Function, Scalar};

/// Elements of one plane that share a partial sum in double precision. Fixed, so that sums do not depend on the number
/// of threads.
const UNIT: usize = 4096;
/// Elements evaluated at a time: inputs and results stay in the first-level cache.
const CHUNK: usize = 1024;
/// Units per parallel task.
const TASK: usize = 8;
/// Elements below which threads cost more than they bring.
const SERIAL: usize = 1 << 15;

/// `scale` · f(inputs) · Π multipliers over tensors that broadcast to `shape`.
///
/// Tensors of the full shape, with one channel, with one element per sample and with one element are read in place;
/// other broadcasts are expanded first.
#[derive(Debug)]
pub struct Map<'a, F: Scalar> {
    function: &'a Function,
    scale: f64,
    shape: &'a [usize],
    inputs: Vec<Operand<'a, F>>,
    multipliers: Vec<Operand<'a, F>>,
    samples: usize,
    channels: usize,
    plane: usize,
    isa: Isa,
}

/// A tensor and how it is repeated over the full shape.
#[derive(Debug)]
struct Operand<'a, F: Scalar> {
    data: Cow<'a, [F]>,
    repeat: Repeat,
    shape: &'a [usize],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Every element its own.
    Full,
    /// One channel for all: (N, 1, …).
    Channels,
    /// One element per sample: (N, 1, …, 1).
    Sample,
    /// One element.
    Everywhere,
}

/// Memory that units write to, each its own part.
#[derive(Clone, Copy)]
struct Output<F> {
    start: *mut F,
    repeat: Repeat,
}

// SAFETY: the pointer is only used by `Map::unit`, whose units write to ranges that do not overlap.
unsafe impl<F: Send> Send for Output<F> {}
// SAFETY: as above.
unsafe impl<F: Send> Sync for Output<F> {}

impl<'a, F: Scalar> Operand<'a, F> {
    fn new(array: Array<'a, F>, shape: &[usize]) -> Self {
        let repeat = if array.shape == shape {
            Repeat::Full
        } else if array.data.len() == 1 {
            Repeat::Everywhere
        } else if array.shape.len() == shape.len() && shape.len() >= 2 && array.shape[0] == shape[0] {
            if array.shape[1] == 1 && array.shape[2..] == shape[2..] {
                Repeat::Channels
            } else if array.shape[1..].iter().all(|&extent| extent == 1) {
                Repeat::Sample
            } else {
                Repeat::Full
            }
        } else {
            Repeat::Full
        };
        let data = if repeat == Repeat::Full && array.shape != shape {
            Cow::Owned(broadcast::expand(array, shape))
        } else {
            Cow::Borrowed(array.data)
        };
        Operand { data, repeat, shape: array.shape }
    }
}

impl<'a, F: Scalar> Map<'a, F> {
    /// Lays the operands out; their shapes broadcast to `shape` (the caller has checked).
    pub fn new(
        function: &'a Function,
        inputs: &[Array<'a, F>],
        multipliers: &[Array<'a, F>],
        shape: &'a [usize],
        scale: f64,
    ) -> Self {
        let mut inputs: Vec<_> = inputs.iter().map(|&input| Operand::new(input, shape)).collect();
        let multipliers: Vec<_> = multipliers.iter().map(|&input| Operand::new(input, shape)).collect();
        // Inputs are read as slices: what is repeated more coarsely than a channel is expanded.
        for input in &mut inputs {
            if matches!(input.repeat, Repeat::Sample | Repeat::Everywhere) && count(shape) != 1 {
                let array = Array { shape: input.shape, data: &input.data };
                input.data = Cow::Owned(broadcast::expand(array, shape));
                input.repeat = Repeat::Full;
            } else if input.repeat == Repeat::Everywhere {
                input.repeat = Repeat::Full;
            }
        }
        let any = |repeat| inputs.iter().chain(&multipliers).any(|operand| operand.repeat == repeat);
        let (samples, channels) = if any(Repeat::Channels) {
            (shape[0], shape[1])
        } else if any(Repeat::Sample) {
            (shape[0], 1)
        } else {
            (1, 1)
        };
        let plane = count(shape).checked_div(samples * channels).unwrap_or(0);
        Map { function, scale, shape, inputs, multipliers, samples, channels, plane, isa: isa::detect() }
    }

    /// The same on another instruction set.
    pub fn on(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// The map differentiated by the inputs in `partial`, at every element.
    pub fn values(&self, partial: &[usize]) -> Vec<F> {
        let mut out = vec![F::ZERO; count(self.shape)];
        let output = Output { start: out.as_mut_ptr(), repeat: Repeat::Full };
        self.run(None, &[(partial.to_vec(), output)]);
        out
    }

    /// The sum of the map differentiated by the inputs in `partial`.
    pub fn sum(&self, partial: &[usize]) -> f64 {
        self.run(Some(partial), &[])
    }

    /// The sum, and its gradient with respect to each input in `wanted`, in that input's own shape.
    pub fn sum_and_gradients(&self, wanted: &[usize]) -> (f64, Vec<Vec<F>>) {
        let mut buffers: Vec<Vec<F>> = wanted
            .iter()
            .map(|&input| {
                let length = match self.inputs[input].repeat {
                    Repeat::Channels => self.samples * self.plane,
                    _ => count(self.shape),
                };
                vec![F::ZERO; length]
            })
            .collect();
        let outputs: Vec<_> = wanted
            .iter()
            .zip(&mut buffers)
            .map(|(&input, buffer)| {
                let repeat = self.inputs[input].repeat;
                (vec![input], Output { start: buffer.as_mut_ptr(), repeat })
            })
            .collect();
        let sum = self.run(Some(&[]), &outputs);
        for (&input, buffer) in wanted.iter().zip(&mut buffers) {
            // An input that was expanded has its gradient summed back.
            let operand = &self.inputs[input];
            if operand.repeat == Repeat::Full && operand.shape != self.shape {
                *buffer = broadcast::sum_to(Array { shape: self.shape, data: buffer }, operand.shape);
            }
        }
        (sum, buffers)
    }

    /// Runs all units; returns the sum over `summed`, the derivative asked for, or 0.
    fn run(&self, summed: Option<&[usize]>, outputs: &[(Vec<usize>, Output<F>)]) -> f64 {
        let blocks = self.plane.div_ceil(UNIT);
        let units = self.samples * blocks;
        let unit = |id: usize| self.unit(id / blocks, id % blocks, summed, outputs);
        let mut partial = vec![0.0; units];
        if count(self.shape) < SERIAL {
            partial.iter_mut().enumerate().for_each(|(id, sum)| *sum = unit(id));
        } else {
            partial.par_chunks_mut(TASK).enumerate().for_each(|(task, sums)| {
                for (k, sum) in sums.iter_mut().enumerate() {
                    *sum = unit(task * TASK + k);
                }
            });
        }
        pairwise_sum(&partial) * self.scale
    }

    /// One stretch of pixels of one sample, all channels: writes the outputs, returns the sum before `scale`.
    fn unit(&self, sample: usize, block: usize, summed: Option<&[usize]>, outputs: &[(Vec<usize>, Output<F>)]) -> f64 {
        let start = block * UNIT;
        let end = self.plane.min(start + UNIT);
        // Multipliers with one number here are gathered into one.
        let factor: f64 = self
            .multipliers
            .iter()
            .map(|multiplier| match multiplier.repeat {
                Repeat::Sample => multiplier.data[sample].to_f64(),
                Repeat::Everywhere => multiplier.data[0].to_f64(),
                Repeat::Full | Repeat::Channels => 1.0,
            })
            .product();
        let scale = F::from_f64(self.scale * factor);
        let mut sum = 0.0;
        let mut values = [F::ZERO; CHUNK];
        let mut scratch = [F::ZERO; CHUNK];
        let mut inputs: Vec<&[F]> = Vec::with_capacity(self.inputs.len());
        let mut weights: Vec<&[F]> = Vec::with_capacity(self.multipliers.len());
        for from in (start..end).step_by(CHUNK) {
            let length = CHUNK.min(end - from);
            for channel in 0..self.channels {
                let full = (sample * self.channels + channel) * self.plane + from;
                let at = |repeat| if repeat == Repeat::Channels { sample * self.plane + from } else { full };
                inputs.clear();
                inputs.extend(self.inputs.iter().map(|input| &input.data[at(input.repeat)..][..length]));
                weights.clear();
                weights.extend(
                    self.multipliers
                        .iter()
                        .filter(|m| matches!(m.repeat, Repeat::Full | Repeat::Channels))
                        .map(|m| &m.data[at(m.repeat)..][..length]),
                );
                // The value comes for free beside the first of the first derivatives.
                let mut value_done = false;
                for (partial, output) in outputs {
                    let beside = summed == Some(&[]) && partial.len() == 1 && !value_done;
                    // SAFETY: `start` points to `count(shape)` elements, or to `samples · plane` where the output
                    // repeats over channels; the range lies inside, and no other unit has the same sample and pixels.
                    let target = unsafe { std::slice::from_raw_parts_mut(output.start.add(at(output.repeat)), length) };
                    let accumulate = output.repeat == Repeat::Channels && channel > 0;
                    let out = if accumulate { &mut scratch[..length] } else { &mut *target };
                    let value = beside.then_some(&mut values[..length]);
                    self.function.block(Block { isa: self.isa, partial, inputs: &inputs, out, value });
                    isa::run(self.isa, Weigh { values: out, weights: &weights, scale });
                    if accumulate {
                        isa::run(self.isa, Add { target, values: &scratch[..length] });
                    }
                    value_done |= beside;
                }
                if let Some(partial) = summed {
                    let out = &mut values[..length];
                    if !value_done {
                        self.function.block(Block { isa: self.isa, partial, inputs: &inputs, out, value: None });
                    }
                    let mut chunk = 0.0;
                    isa::run(self.isa, Sum { values: &values[..length], weights: &weights, sum: &mut chunk });
                    sum += chunk;
                }
            }
        }
        sum * factor
    }
}

/// values · Π weights · scale, in place.
struct Weigh<'a, F> {
    values: &'a mut [F],
    weights: &'a [&'a [F]],
    scale: F,
}

impl<F: Scalar> Kernel for Weigh<'_, F> {
    #[inline(always)]
    fn run(self) {
        match self.weights {
            [] if self.scale == F::ONE => {}
            [] => {
                for value in self.values {
                    *value *= self.scale;
                }
            }
            [first, rest @ ..] => {
                for (value, &weight) in self.values.iter_mut().zip(*first) {
                    *value *= weight * self.scale;
                }
                for weights in rest {
                    for (value, &weight) in self.values.iter_mut().zip(*weights) {
                        *value *= weight;
                    }
                }
            }
        }
    }
}

/// target + values, in place.
struct Add<'a, F> {
    target: &'a mut [F],
    values: &'a [F],
}

impl<F: Scalar> Kernel for Add<'_, F> {
    #[inline(always)]
    fn run(self) {
        for (target, &value) in self.target.iter_mut().zip(self.values) {
            *target += value;
        }
    }
}

/// Σ values · Π weights, in a fixed order.
struct Sum<'a, F> {
    values: &'a [F],
    weights: &'a [&'a [F]],
    sum: &'a mut f64,
}

impl<F: Scalar> Kernel for Sum<'_, F> {
    #[inline(always)]
    fn run(self) {
        *self.sum = match self.weights {
            [] => lanes(self.values.len(), |i| self.values[i]),
            [weights] => {
                let weights = &weights[..self.values.len()];
                lanes(self.values.len(), |i| self.values[i] * weights[i])
            }
            weights => lanes(self.values.len(), |i| {
                weights.iter().fold(self.values[i], |product, weights| product * weights[i])
            }),
        };
    }
}

/// Sums `term(0..length)` in double precision in 32 independent lanes, then across them: the order is the same on every
/// instruction set.
#[inline(always)]
pub(super) fn lanes<F: Scalar>(length: usize, term: impl Fn(usize) -> F) -> f64 {
    const LANES: usize = 32;
    let mut sums = [0.0; LANES];
    let whole = length / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(i + lane).to_f64();
        }
        i += LANES;
    }
    for (sum, i) in sums.iter_mut().zip(whole..length) {
        *sum += term(i).to_f64();
    }
    sums.iter().sum()
}

/// A sum whose rounding error grows with the logarithm of the length.
pub(super) fn pairwise_sum(values: &[f64]) -> f64 {
    if values.len() <= 8 {
        values.iter().sum()
    } else {
        let (left, right) = values.split_at(values.len() / 2);
        pairwise_sum(left) + pairwise_sum(right)
    }
}
