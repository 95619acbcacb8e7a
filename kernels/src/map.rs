//! The fused pointwise kernel: map, weigh, reduce, and the gradients of that, in one pass over memory.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::isa::{self, Isa, Kernel};
use super::lanes::{self, Lanes};
use super::machine::{Block, Machine};
use super::matmul::SharedMut;
use super::stream::{self, Sink, Write};
use super::{Array, assert_fills, broadcast, buffers, count, count_in_memory};
use crate::{Element, Programs};

/// Elements of one plane that share a partial sum in double precision. Fixed, so that sums do not depend on the number
/// of threads.
const UNIT: usize = 4096;
/// Elements evaluated at a time: inputs and results stay in the first-level cache.
const CHUNK: usize = 1024;
/// Units per parallel task.
const TASK: usize = 8;
/// Elements below which threads cost more than they bring.
const SERIAL: usize = 1 << 15;

/// `scale` · f(inputs) · Π multipliers over tensors that broadcast to `shape`; 0 where a multiplier is 0, whatever f is.
///
/// Tensors of the full shape, with one channel, with one element per sample and with one element are read in place;
/// other broadcasts are expanded first.
#[derive(Clone, Debug)]
pub struct Map<'a, F: Element> {
    function: &'a dyn Programs,
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
#[derive(Clone, Debug)]
struct Operand<'a, F: Element> {
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

/// A derivative, the memory that units write it to, each its own part, and how that repeats.
#[derive(Clone, Copy)]
struct Output<'a, F> {
    partial: &'a [usize],
    target: SharedMut<'a, F>,
    repeat: Repeat,
    /// The target is too large for the caches.
    streamed: bool,
}

impl<'a, F: Element> Output<'a, F> {
    fn new(partial: &'a [usize], target: &'a mut [MaybeUninit<F>], repeat: Repeat) -> Self {
        let streamed = repeat == Repeat::Full && stream::is_large::<F>(target.len());
        Output { partial, target: SharedMut::new(target).cast(), repeat, streamed }
    }
}

/// A vector whose elements `fill` writes, every one of them.
///
/// # Safety
/// `fill` leaves no element unwritten.
pub(super) unsafe fn filled<F: Element>(length: usize, fill: impl FnOnce(&mut [MaybeUninit<F>])) -> Vec<F> {
    let mut values = buffers::take(length);
    fill(&mut values.spare_capacity_mut()[..length]);
    // SAFETY: the capacity is at least `length`, and the caller vouches for the elements.
    unsafe { values.set_len(length) };
    values
}

impl<'a, F: Element> Operand<'a, F> {
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

impl<'a, F: Element> Map<'a, F> {
    /// Lays the operands out; their shapes broadcast to `shape` (the caller has checked).
    ///
    /// # Panics
    /// If an operand has not as many elements as its shape, or the shape has more than memory can hold.
    pub fn new(
        function: &'a dyn Programs,
        inputs: &[Array<'a, F>],
        multipliers: &[Array<'a, F>],
        shape: &'a [usize],
        scale: f64,
    ) -> Self {
        for array in inputs.iter().chain(multipliers) {
            assert_fills("a map's operand", array.shape, array.data.len());
        }
        assert!(count_in_memory(shape).is_some(), "a map of shape {shape:?}");
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
        let plane = count(shape).checked_div(count(&[samples, channels])).unwrap_or(0);
        Map { function, scale, shape, inputs, multipliers, samples, channels, plane, isa: isa::detect() }
    }

    /// The same on another instruction set.
    pub fn on(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// The map differentiated by the inputs in `partial`, at every element.
    pub fn values(&self, partial: &[usize]) -> Vec<F> {
        self.values_summed_to(partial, self.shape)
    }

    /// The sum of the map differentiated by the inputs in `partial`.
    pub fn sum(&self, partial: &[usize]) -> f64 {
        self.run(Some(partial), &[])
    }

    /// The map differentiated by the inputs in `partial`, summed down to `target`: in the same pass where all of a sample or
    /// its channels are summed, in another where something else is.
    pub fn values_summed_to(&self, partial: &[usize], target: &[usize]) -> Vec<F> {
        assert!(count_in_memory(target).is_some(), "a map summed to shape {target:?}");
        let is_target = |extents: [Option<usize>; 3]| {
            let [batch, channels, rest] = extents;
            target.len() == self.shape.len()
                && target
                    .iter()
                    .zip(self.shape)
                    .enumerate()
                    .all(|(axis, (&extent, &full))| extent == [batch, channels, rest][axis.min(2)].unwrap_or(full))
        };
        if self.shape.len() >= 2 && is_target([None, Some(1), Some(1)]) {
            return self.sample_sums(partial);
        }
        let is_channels = self.channels > 1 && is_target([None, Some(1), None]);
        let (repeat, length) = match is_channels {
            true => (Repeat::Channels, count(target)),
            false => (Repeat::Full, count(self.shape)),
        };
        if count(self.shape) == 0 {
            // No unit runs.
            return vec![F::ZERO; count(target)];
        }
        // SAFETY: the units write all of an output of either kind.
        let values = unsafe {
            filled(length, |out| {
                self.run(None, &[Output::new(partial, out, repeat)]);
            })
        };
        if is_channels || target == self.shape {
            return values;
        }
        broadcast::sum_to(Array { shape: self.shape, data: &values }, target)
    }

    /// The sum of a derivative over each sample.
    fn sample_sums(&self, partial: &[usize]) -> Vec<F> {
        // Planes end with the samples: a sample without channels of their own is one plane.
        let batch = self.shape[0];
        let (channels, samples) = if self.samples == batch { (self.channels, batch) } else { (1, batch) };
        let plane = count(self.shape).checked_div(samples * channels).unwrap_or(0);
        let by_sample = Map { samples, channels, plane, ..self.clone() };
        let blocks = plane.div_ceil(UNIT);
        let sums = by_sample.unit_sums(Some(partial), &[]);
        if blocks == 0 {
            return vec![F::ZERO; batch];
        }
        sums.chunks(blocks).map(|sums| F::from_f64(lanes::pairwise(sums) * self.scale)).collect()
    }

    /// The sum, and its gradient with respect to each input in `wanted`, in that input's own shape.
    pub fn sum_and_gradients(&self, wanted: &[usize]) -> (f64, Vec<Vec<F>>) {
        let mut gradients: Vec<Vec<F>> =
            wanted.iter().map(|&input| buffers::take(count(self.inputs[input].shape))).collect();
        let targets = wanted
            .iter()
            .zip(&mut gradients)
            .map(|(&input, gradient)| (input, &mut gradient.spare_capacity_mut()[..count(self.inputs[input].shape)]))
            .collect();
        let sum = self.write_gradients(targets);
        for (&input, gradient) in wanted.iter().zip(&mut gradients) {
            // SAFETY: the capacity is at least that, and `write_gradients` has written every element.
            unsafe { gradient.set_len(count(self.inputs[input].shape)) };
        }
        (sum, gradients)
    }

    /// The sum; its gradient with respect to each input named in `targets` is written there.
    ///
    /// # Panics
    /// If a target has not as many elements as its input; callers check first.
    pub fn sum_and_gradients_into(&self, targets: Vec<(usize, &mut [F])>) -> f64 {
        let targets = targets.into_iter().map(|(input, target)| (input, as_uninit(target))).collect();
        self.write_gradients(targets)
    }

    /// The sum; every element of every target is written.
    fn write_gradients(&self, targets: Vec<(usize, &mut [MaybeUninit<F>])>) -> f64 {
        if count(self.shape) == 0 {
            // No unit runs, while an input that is broadcast to a map without elements may have some.
            for (input, target) in targets {
                assert_eq!(target.len(), count(self.inputs[input].shape), "a gradient has its input's elements");
                target.fill(MaybeUninit::new(F::ZERO));
            }
            return 0.0;
        }
        // An input that was expanded has its gradient written in full, and summed back.
        let is_expanded = |input: usize| {
            let operand = &self.inputs[input];
            operand.repeat == Repeat::Full && operand.shape != self.shape
        };
        let mut full: Vec<Vec<F>> = targets
            .iter()
            .map(|(input, target)| {
                assert_eq!(target.len(), count(self.inputs[*input].shape), "a gradient has its input's elements");
                if is_expanded(*input) { vec![F::ZERO; count(self.shape)] } else { Vec::new() }
            })
            .collect();
        let partials: Vec<[usize; 1]> = targets.iter().map(|(input, _)| [*input]).collect();
        let mut expanded = Vec::new();
        let mut outputs = Vec::new();
        for (((input, target), full), partial) in targets.into_iter().zip(&mut full).zip(&partials) {
            if is_expanded(input) {
                outputs.push(Output::new(partial, as_uninit(full), Repeat::Full));
                expanded.push((input, target));
            } else {
                outputs.push(Output::new(partial, target, self.inputs[input].repeat));
            }
        }
        let sum = self.run(Some(&[]), &outputs);
        // An expanded gradient is not empty, since the map is not.
        for ((input, target), full) in expanded.into_iter().zip(full.iter().filter(|full| !full.is_empty())) {
            let small = broadcast::sum_to(Array { shape: self.shape, data: full }, self.inputs[input].shape);
            for (target, value) in target.iter_mut().zip(small) {
                target.write(value);
            }
        }
        sum
    }

    /// Runs all units, which write every element of the outputs; returns the sum over `summed`, the derivative asked
    /// for, or 0.
    fn run(&self, summed: Option<&[usize]>, outputs: &[Output<'_, F>]) -> f64 {
        lanes::pairwise(&self.unit_sums(summed, outputs)) * self.scale
    }

    /// Runs all units; returns their sums, before `scale`, sample after sample.
    fn unit_sums(&self, summed: Option<&[usize]>, outputs: &[Output<'_, F>]) -> Vec<f64> {
        let blocks = self.plane.div_ceil(UNIT);
        let units = self.samples * blocks;
        let partials: Vec<&[usize]> = outputs.iter().map(|output| output.partial).collect();
        let program = self.function.program(summed, &partials);
        let mut partial = vec![0.0; units];
        let work = |first: usize, sums: &mut [f64]| {
            let mut machine = Machine::new(self.isa, &program);
            for (k, sum) in sums.iter_mut().enumerate() {
                let id = first + k;
                *sum = self.unit(&mut machine, id / blocks, id % blocks, summed.is_some(), outputs);
            }
            if outputs.iter().any(|output| output.streamed) {
                stream::fence();
            }
        };
        if count(self.shape) < SERIAL {
            work(0, &mut partial);
        } else {
            partial.par_chunks_mut(TASK).enumerate().for_each(|(task, sums)| work(task * TASK, sums));
        }
        partial
    }

    /// One stretch of pixels of one sample, all channels: writes the outputs, returns the sum before `scale`.
    fn unit(
        &self,
        machine: &mut Machine<'_, F>,
        sample: usize,
        block: usize,
        is_summed: bool,
        outputs: &[Output<'_, F>],
    ) -> f64 {
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
        // One of them is 0: all of the stretch is taken out.
        let is_out = self.multipliers.iter().any(|multiplier| match multiplier.repeat {
            Repeat::Sample => multiplier.data[sample] == F::ZERO,
            Repeat::Everywhere => multiplier.data[0] == F::ZERO,
            Repeat::Full | Repeat::Channels => false,
        });
        let factor = if is_out { 0.0 } else { factor };
        let scale = F::from_f64(self.scale * factor);
        let mut lanes: Lanes = [0.0; _];
        let mut product = [if is_out { F::ZERO } else { F::ONE }; CHUNK];
        let mut inputs: Vec<&[F]> = Vec::with_capacity(self.inputs.len());
        let mut weights: Vec<&[F]> = Vec::with_capacity(self.multipliers.len());
        let mut sinks: Vec<Sink<'_, F>> = Vec::with_capacity(outputs.len());
        // Channel after channel: a long stretch of each tensor is read at a time, as the memory likes it.
        for channel in 0..self.channels {
            for from in (start..end).step_by(CHUNK) {
                let length = CHUNK.min(end - from);
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
                let weight = match weights[..] {
                    _ if is_out => Some(&product[..length]),
                    [] => None,
                    [weight] => Some(weight),
                    [first, ref rest @ ..] => {
                        product[..length].copy_from_slice(first);
                        for weight in rest {
                            multiply(&mut product[..length], weight);
                        }
                        Some(&product[..length])
                    }
                };
                sinks.clear();
                sinks.extend(outputs.iter().map(|output| {
                    let write = match output.repeat {
                        Repeat::Channels if channel > 0 => Write::Add,
                        _ if output.streamed => Write::Stream,
                        _ => Write::Store,
                    };
                    // SAFETY: the target has `count(shape)` elements, or `samples · plane` where the output repeats over
                    // channels; no other unit has these, since its sample or its pixels differ. Those added to were
                    // written for channel 0.
                    unsafe { Sink::shared(output.target, at(output.repeat), length, write, self.isa) }
                }));
                machine.run(Block {
                    length,
                    inputs: &inputs,
                    weight,
                    scale,
                    outputs: &mut sinks,
                    sum: is_summed.then_some(&mut lanes),
                });
            }
        }
        lanes.iter().sum::<f64>() * factor
    }
}

/// `product` times `weight`, 0 where either is 0.
pub(super) fn multiply<F: Element>(product: &mut [F], weight: &[F]) {
    for (product, &weight) in product.iter_mut().zip(weight) {
        let is_out = *product == F::ZERO || weight == F::ZERO;
        *product = if is_out { F::ZERO } else { *product * weight };
    }
}

/// Initialised elements as ones that may be overwritten.
fn as_uninit<F: Element>(values: &mut [F]) -> &mut [MaybeUninit<F>] {
    // SAFETY: the layout is the same; kernels only ever write initialised numbers through it.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// The sum of a slice, by units.
pub(super) fn sum<F: Element>(isa: Isa, values: &[F]) -> f64 {
    let unit = |values: &[F]| {
        let mut lanes: Lanes = [0.0; _];
        isa::run(isa, Sum { values, lanes: &mut lanes });
        lanes.iter().sum()
    };
    let units: Vec<f64> = if values.len() < SERIAL {
        values.chunks(UNIT).map(unit).collect()
    } else {
        values.par_chunks(UNIT).with_min_len(TASK).map(unit).collect()
    };
    lanes::pairwise(&units)
}

/// Σ values.
struct Sum<'a, F> {
    values: &'a [F],
    lanes: &'a mut Lanes,
}

impl<F: Element> Kernel for Sum<'_, F> {
    #[inline(always)]
    fn run(self) {
        lanes::add(self.lanes, self.values);
    }
}
