//! The laws that every loss keeps, called by one line per loss, on any tensor engine.
//!
//! [`pointwise`] holds a pointwise loss to all of them, [`general`] any other loss. Losses are drawn with their options
//! from a proptest strategy; inputs come from a grid (eighths; for the last input odd multiples of 1/128), on which
//! differences of inputs are exact and are never 0 nor at a kink that lies on a multiple of 1/64.
//!
//! | law | what is asserted |
//! |---|---|
//! | hand values | the value at points computed by hand, the first of a perfect prediction |
//! | engines | the same value and gradients on every engine, in double and in single precision; the element type is kept |
//! | gradients | first and second derivatives are those of the value, by central differences; 0 by what is held constant |
//! | scaling | λ multiplies the result; inputs scaled by k scale it by k to the loss's degree |
//! | symmetry | exchanging the first two inputs changes nothing, or does where the loss is not symmetric |
//! | permutation | the order of the samples changes no number |
//! | reductions | none, mean and sum agree, with and without weights; sum = n·mean |
//! | masks | ones are no mask; equal masks make `sample_wise` the mean; an empty one gives exactly 0 |
//! | masked out | infinite and NaN pixels under a weight of 0 change neither value nor gradients, whose elements there are 0 |
//! | extremes | gradients are finite at zero difference, at ±1e30 and for denormals |
//! | NaN | NaN in an input is NaN in the value, and in the gradient by that element unless that is constant |
//! | shapes | shapes that do not fit are refused, by the right variant |
//! | configuration | a serde round trip gives the same loss; unknown fields are refused |
//! | bits | the same bits on 1 and 2 threads, and on AVX-512, AVX2 and portable code |
//!
//! An [`Engine`] is what computes; [`Cpu`] is this workspace's, and other engines are compared with it.

mod bits;
mod case;
mod derivatives;
mod draw;
mod engine;
mod laws;
pub mod operations;
mod plain;

use std::fmt::Debug;

use image_losses_core::{Differentiable, Input, Loss, PointwiseLoss, Result, Tensor};
use proptest::strategy::Strategy;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use case::Case;
pub use derivatives::{closed_forms, norms};
pub use draw::drawn;
pub use engine::{Cpu, Derived, Engine, derive};
pub use plain::Plain;

/// What a loss must be for its laws to be checked: configurable, comparable, movable between threads.
pub trait Configured: Serialize + DeserializeOwned + PartialEq + Debug + Clone + Send + Sync + 'static {}
impl<L: Serialize + DeserializeOwned + PartialEq + Debug + Clone + Send + Sync + 'static> Configured for L {}

/// A function of `K` tensors that the laws are about. Every [`Loss`] is one; a loss with another signature (a role, a
/// state, a network) is wrapped in a structure that fixes what the laws do not draw.
pub trait Lawful<const K: usize>: Configured {
    /// The loss on an engine with derivatives.
    ///
    /// # Errors
    /// The loss's own.
    fn apply<T: Differentiable>(&self, inputs: [&T; K], weight: Option<&T>) -> Result<T>;

    /// The loss on an engine without derivatives; `None` where it needs them.
    fn apply_plainly<T: Tensor>(&self, inputs: [&T; K], weight: Option<&T>) -> Option<Result<T>>;
}

impl<const K: usize, L: Loss<K> + Configured> Lawful<K> for L {
    fn apply<T: Differentiable>(&self, inputs: [&T; K], weight: Option<&T>) -> Result<T> {
        self.forward(inputs, weight)
    }
    fn apply_plainly<T: Tensor>(&self, inputs: [&T; K], weight: Option<&T>) -> Option<Result<T>> {
        Some(self.forward(inputs, weight))
    }
}

/// What a loss does with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It takes one, of shape (N, 1, …) or (N, C, …).
    Taken,
    /// It has the argument and refuses a value.
    Refused,
    /// It has no such argument.
    Absent,
}

/// The numbers of axes that inputs may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// At least 1: a critic's scores.
    Scores,
    /// At least 2: a batch, channels, whatever follows.
    Batch,
    /// 4: a batch of images.
    Image,
}

/// What a loss takes, and which of the optional laws it keeps.
#[derive(Clone, Copy, Debug)]
pub struct Takes<const K: usize> {
    /// The inputs' names, in order, as errors give them.
    pub names: [&'static str; K],
    /// Which inputs have one channel.
    pub per_pixel: [bool; K],
    /// What it does with a weight.
    pub weight: Weight,
    /// The number of axes.
    pub rank: Rank,
    /// The number of channels, if it is fixed.
    pub channels: Option<usize>,
    /// All inputs must have one shape, up to the channels.
    pub same_shape: bool,
    /// The value comes from a map of the inputs' shape by `reduction`.
    pub map: bool,
    /// Which inputs are held constant: they have an influence and no gradient.
    pub held: [bool; K],
    /// A part of the inputs' influence is held constant, so that the gradient is not the value's derivative.
    pub detached: bool,
    /// It has second derivatives on the grid.
    pub smooth: bool,
    /// The last input lies above all others: for a loss of sums of differences, which could cancel to nearly nothing
    /// under a logarithm.
    pub apart: bool,
    /// Exchanging the first two inputs changes nothing (`true`), changes the value (`false`), or is not asked.
    pub symmetric: Option<bool>,
    /// The degree p of L(k·inputs) = kᵖ·L(inputs) for positive k, if there is one.
    pub degree: Option<i32>,
    /// The options that multiply the result.
    pub scaled_by: &'static [&'static str],
    /// The options that have no default.
    pub required: &'static [&'static str],
    /// The largest inputs, in double and in single precision, that leave every gradient finite.
    pub huge: [f64; 2],
    /// The loss looks through a network.
    pub network: Option<Network>,
}

/// A network that a loss looks through: too much work for hundreds of cases. Few are drawn, each of one or two samples,
/// and derivatives are compared along directions in all inputs together.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Height and width of the images.
    pub size: [usize; 2],
    /// Cases drawn per law.
    pub cases: u32,
    /// It has fifty layers, and an evaluation in double precision takes seconds. Its bits are not compared with those of
    /// portable code, as the kernels' own tests do for such layers; extremes and NaN are looked at in single precision
    /// alone; derivatives are compared with differences on the CPU alone, and on another engine with those of the CPU.
    pub deep: bool,
    /// Error allowed to the hand values, as they are stored.
    pub hand: f64,
    /// Error allowed between engines in double precision, relative to the largest element: its depth adds up rounding.
    pub double: f64,
    /// Error allowed to single precision: of the value, relative to the largest element; of the gradient as a vector,
    /// relative to its length.
    pub single: [f64; 2],
}

impl<const K: usize> Takes<K> {
    /// Inputs of one shape and any rank from 2, a map, no weight; nothing optional.
    pub const fn new(names: [&'static str; K]) -> Self {
        Takes {
            names,
            per_pixel: [false; K],
            weight: Weight::Refused,
            rank: Rank::Batch,
            channels: None,
            same_shape: true,
            map: false,
            held: [false; K],
            detached: false,
            smooth: true,
            apart: false,
            symmetric: None,
            degree: None,
            scaled_by: &["loss_weight"],
            required: &[],
            huge: [1e30; 2],
            network: None,
        }
    }

    /// It looks through a deep network.
    pub(crate) fn is_deep(&self) -> bool {
        self.network.is_some_and(|network| network.deep)
    }

    /// What a pointwise loss of these inputs takes.
    pub const fn pointwise(inputs: [Input; K]) -> Self {
        let mut takes = Takes { weight: Weight::Taken, map: true, ..Takes::new([""; K]) };
        let mut k = 0;
        while k < K {
            takes.names[k] = inputs[k].name;
            takes.per_pixel[k] = inputs[k].per_pixel;
            if inputs[k].per_pixel {
                // With an α a gradient is a product of two other inputs.
                takes.huge[1] = 1e15;
            }
            k += 1;
        }
        takes
    }
}

/// Inputs with the loss's value there, computed by hand; for a map its sum.
#[derive(Clone, Debug)]
pub struct Hand<const K: usize> {
    /// The full shape.
    pub shape: Vec<usize>,
    /// The inputs' elements.
    pub inputs: [Vec<f64>; K],
    /// The value.
    pub value: f64,
}

/// Every law of a pointwise loss. `hand` gives points with the map's value there, before `loss_weight`; the first is of
/// a perfect prediction.
///
/// # Panics
/// Where a law is broken: this is a test.
#[track_caller]
pub fn pointwise<E: Engine, const K: usize, L: PointwiseLoss<K> + Configured>(
    engine: &E,
    losses: impl Strategy<Value = L> + Clone,
    takes: Takes<K>,
    hand: impl Fn(&L) -> Vec<([f64; K], f64)>,
) {
    if bits::only() {
        return bits::report(&losses, takes);
    }
    if E::CPU {
        laws::fused(losses.clone(), takes);
        laws::fused_extremes(losses.clone(), takes);
        laws::fused_nan(losses.clone(), takes);
        laws::fused_masked_out(losses.clone(), takes);
        laws::fused_shapes(losses.clone(), takes);
    }
    general(engine, losses, takes, |loss| {
        let lambda = loss.reducer().loss_weight;
        let hand = hand(loss).into_iter();
        hand.map(|(point, map)| Hand { shape: vec![1, 1], inputs: point.map(|v| vec![v]), value: lambda * map })
            .collect()
    });
}

/// Every law that any loss keeps. `hand` gives at least two values, the first of a perfect prediction.
///
/// # Panics
/// Where a law is broken: this is a test.
#[track_caller]
pub fn general<E: Engine, const K: usize, L: Lawful<K>>(
    engine: &E,
    losses: impl Strategy<Value = L> + Clone,
    takes: Takes<K>,
    hand: impl Fn(&L) -> Vec<Hand<K>>,
) {
    if bits::only() {
        return bits::report(&losses, takes);
    }
    if E::CPU {
        bits::same(&losses, takes);
        laws::configuration(losses.clone(), takes);
    }
    laws::hand_values(engine, losses.clone(), takes, hand);
    laws::engines(engine, losses.clone(), takes);
    laws::gradients(engine, losses.clone(), takes);
    laws::scaling(engine, losses.clone(), takes);
    laws::symmetry(engine, losses.clone(), takes);
    laws::permutation(engine, losses.clone(), takes);
    if takes.map {
        laws::reductions(engine, losses.clone(), takes);
    }
    if takes.weight == Weight::Taken {
        laws::masks(engine, losses.clone(), takes);
        laws::masked_out(engine, losses.clone(), takes);
    }
    laws::extremes(engine, losses.clone(), takes);
    laws::nan(engine, losses.clone(), takes);
    laws::shapes(engine, losses, takes);
}
