//! Inputs of a law, drawn from a grid.

use std::fmt;

use image_losses_core::kernels::count;
use proptest::prelude::*;

use crate::{Rank, Takes, Weight};

/// Inputs and weight of one evaluation.
#[derive(Clone)]
pub struct Case<const K: usize> {
    /// The full shape.
    pub shape: Vec<usize>,
    /// Each input's shape.
    pub shapes: [Vec<usize>; K],
    /// Each input's elements.
    pub inputs: [Vec<f64>; K],
    /// The weight with its shape.
    pub weight: Option<(Vec<f64>, Vec<usize>)>,
}

/// The shapes, the inputs and the weight, of long ones the first elements.
impl<const K: usize> fmt::Debug for Case<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = |values: &Vec<f64>| {
            format!("{:?}{}", &values[..values.len().min(64)], if values.len() > 64 { "…" } else { "" })
        };
        write!(formatter, "{:?} {}", self.shapes, self.inputs.each_ref().map(first).join(" "))?;
        self.weight.iter().try_for_each(|(values, shape)| write!(formatter, " weight {shape:?} {}", first(values)))
    }
}

/// A shape with one channel.
pub(crate) fn per_pixel(shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(channels) = shape.get_mut(1) {
        *channels = 1;
    }
    shape
}

impl<const K: usize> Takes<K> {
    /// Each input's shape.
    pub(crate) fn shapes(&self, shape: &[usize]) -> [Vec<usize>; K] {
        self.per_pixel.map(|one| if one { per_pixel(shape) } else { shape.to_vec() })
    }

    /// The `v`-th number of input `k`'s grid; the last input's lie between those of the others, or above them all.
    fn on_grid(&self, k: usize, v: i32) -> f64 {
        if k + 1 < K {
            return f64::from(v) / 8.0;
        }
        let above = if self.apart { 5.0 } else { 0.0 };
        above + f64::from(8 * v + 1) / 64.0 + 1.0 / 128.0
    }
}

/// Images of a network's size, each from one drawn number: a tree of choices per pixel would take longer than the
/// network.
fn images<const K: usize>(takes: Takes<K>, size: [usize; 2]) -> impl Strategy<Value = Case<K>> {
    (1..3usize, any::<u32>()).prop_map(move |(samples, seed)| {
        let shape = vec![samples, takes.channels.unwrap_or(3), size[0], size[1]];
        let shapes = takes.shapes(&shape);
        // A multiplicative generator modulo a prime; its high part is the number.
        let mut state = u64::from(seed) % 2_147_483_646 + 1;
        let mut number = || {
            state = state * 48_271 % 2_147_483_647;
            (state * 33 / 2_147_483_647) as i32 - 16
        };
        let inputs = std::array::from_fn(|k| (0..count(&shapes[k])).map(|_| takes.on_grid(k, number())).collect());
        Case { shape, shapes, inputs, weight: None }
    })
}

pub(crate) fn cases<const K: usize>(takes: Takes<K>) -> BoxedStrategy<Case<K>> {
    if let Some(network) = takes.network {
        return images(takes, network.size).boxed();
    }
    let rank = match takes.rank {
        Rank::Scores => 1..5usize,
        Rank::Batch => 2..6,
        Rank::Image => 4..5,
    };
    let shapes = rank.prop_flat_map(|rank| prop::collection::vec(1..4usize, rank)).prop_map(move |mut shape| {
        if let (Some(channels), Some(extent)) = (takes.channels, shape.get_mut(1)) {
            *extent = channels;
        }
        shape
    });
    (shapes, 0..3u8)
        .prop_flat_map(move |(shape, weighted)| {
            let shapes = takes.shapes(&shape);
            let inputs: Vec<_> = shapes
                .iter()
                .enumerate()
                .map(|(k, shape)| {
                    prop::collection::vec((-16..=16i32).prop_map(move |v| takes.on_grid(k, v)), count(shape))
                })
                .collect();
            let weight_shape = match (takes.weight, weighted) {
                (Weight::Taken, 1) => Some(per_pixel(&shape)),
                (Weight::Taken, 2) => Some(shape.clone()),
                _ => None,
            };
            let weight = weight_shape.map_or(Just(None).boxed(), |shape| {
                let values = prop_oneof![1 => Just(0.0), 4 => (0..=8u8).prop_map(|v| f64::from(v) / 4.0)];
                prop::collection::vec(values, count(&shape)).prop_map(move |v| Some((v, shape.clone()))).boxed()
            });
            (Just(shape), Just(shapes), inputs, weight).prop_map(|(shape, shapes, inputs, weight)| {
                let inputs = inputs.try_into().expect("K inputs");
                Case { shape, shapes, inputs, weight }
            })
        })
        .boxed()
}
