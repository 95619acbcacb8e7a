//! Parameters of a network, shared and without an engine.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use image_losses_core::{Error, Result, Tensor};

use super::Fit;
use crate::checkpoint::{Checkpoint, Strictness};

/// The tensors of a network: names, as its checkpoint has them, and shapes.
pub type Architecture = Vec<(String, Vec<usize>)>;

/// PyTorch's summand under the root of batch norm's deviation.
const BATCH_NORM_EPSILON: f64 = 1e-5;

/// A tensor of a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) values: Arc<[f32]>,
    pub(crate) shape: Vec<usize>,
}

impl Parameter {
    /// The tensor on a context; no gradient flows to it.
    pub(crate) fn bind<T: Tensor>(&self, context: &T::Context) -> Result<T> {
        T::shared_constant(context, &self.values, &self.shape)
    }

    fn doubles(&self) -> impl Iterator<Item = f64> + '_ {
        self.values.iter().map(|&value| f64::from(value))
    }
}

/// A factor and a summand per channel: what batch norm is in evaluation.
#[derive(Clone, Debug)]
pub(crate) struct ChannelAffine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl ChannelAffine {
    /// x·scale + shift.
    pub(crate) fn new(scale: Vec<f64>, shift: Vec<f64>) -> Self {
        ChannelAffine { scale, shift }
    }

    /// (x − mean)/deviation.
    pub(crate) fn normalisation(mean: &[f64], deviation: &[f64]) -> Self {
        ChannelAffine {
            scale: deviation.iter().map(|deviation| 1.0 / deviation).collect(),
            shift: mean.iter().zip(deviation).map(|(mean, deviation)| -mean / deviation).collect(),
        }
    }

    /// The factors and the summands.
    #[cfg(any(feature = "vgg", feature = "light-cnn", feature = "face-id"))]
    pub(crate) fn parts(&self) -> [&[f64]; 2] {
        [&self.scale, &self.shift]
    }

    pub(crate) fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundAffine<T>> {
        let shape = [1, self.scale.len(), 1, 1];
        Ok(BoundAffine {
            scale: T::constant(context, &self.scale, &shape)?,
            shift: T::constant(context, &self.shift, &shape)?,
        })
    }
}

/// A [`ChannelAffine`] on a context.
#[derive(Clone, Debug)]
pub(crate) struct BoundAffine<T> {
    scale: T,
    shift: T,
}

impl<T: Tensor> BoundAffine<T> {
    pub(crate) fn forward(&self, x: &T) -> Result<T> {
        x.mul(&self.scale)?.add(&self.shift)
    }
}

/// Loaded parameters, taken out one by one as a network is put together.
#[derive(Debug)]
pub(crate) struct Parameters {
    checkpoint: Checkpoint,
    network: String,
    values: BTreeMap<String, Vec<f32>>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Parameters {
    /// Reads the tensors of `needed`. Whatever else the checkpoint holds must be in `known` or start with one of the
    /// prefixes `beside`: parts of the published file that the losses have no use for.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        network: &str,
        needed: &[(String, Vec<usize>)],
        known: &[(String, Vec<usize>)],
        beside: &[&str],
    ) -> Result<Self> {
        // One report of all that does not fit: the extra names join those of the loader.
        let names: HashSet<&str> = known.iter().chain(needed).map(|(name, _)| name.as_str()).collect();
        let extra: Vec<String> = checkpoint
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !checkpoint.is_counter(name) && !names.contains(name))
            .filter(|name| !beside.iter().any(|prefix| name.starts_with(prefix)))
            .map(str::to_owned)
            .collect();
        let mut loaded = checkpoint.load(network, needed, Strictness::IgnoreUnexpected);
        if !extra.is_empty() {
            loaded = Err(match loaded {
                Err(Error::CheckpointMismatch { path, network, missing, mismatched, .. }) => {
                    Error::CheckpointMismatch { path, network, missing, unexpected: extra, mismatched }
                }
                Err(other) => other,
                Ok(_) => Error::CheckpointMismatch {
                    path: checkpoint.path().to_owned(),
                    network: network.to_owned(),
                    missing: Vec::new(),
                    unexpected: extra,
                    mismatched: Vec::new(),
                },
            });
        }
        Ok(Parameters {
            checkpoint: checkpoint.clone(),
            network: network.to_owned(),
            values: loaded?,
            shapes: needed.iter().cloned().collect(),
        })
    }

    /// Takes one out.
    pub(crate) fn take(&mut self, name: &str) -> Result<Parameter> {
        match (self.values.remove(name), self.shapes.get(name)) {
            (Some(values), Some(shape)) => Ok(Parameter { values: values.into(), shape: shape.clone() }),
            _ => Err(Error::CheckpointMismatch {
                path: self.checkpoint.path().to_owned(),
                network: self.network.clone(),
                missing: vec![name.to_owned()],
                unexpected: Vec::new(),
                mismatched: Vec::new(),
            }),
        }
    }

    /// Takes a batch norm, folded: w/√(var + ε) and b − mean·w/√(var + ε). Without `affine`, w = 1 and b = 0.
    pub(crate) fn take_batch_norm(&mut self, prefix: &str, affine: bool) -> Result<ChannelAffine> {
        let mean = self.take(&format!("{prefix}.running_mean"))?;
        let variance = self.take(&format!("{prefix}.running_var"))?;
        let mut scale: Vec<f64> =
            variance.doubles().map(|variance| 1.0 / (variance + BATCH_NORM_EPSILON).sqrt()).collect();
        let mut shift = vec![0.0; scale.len()];
        if affine {
            let (weight, bias) = (self.take(&format!("{prefix}.weight"))?, self.take(&format!("{prefix}.bias"))?);
            scale.iter_mut().zip(weight.doubles()).for_each(|(scale, weight)| *scale *= weight);
            shift = bias.doubles().collect();
        }
        for ((shift, scale), mean) in shift.iter_mut().zip(&scale).zip(mean.doubles()) {
            *shift -= mean * scale;
        }
        Ok(ChannelAffine::new(scale, shift))
    }
}

/// What a checkpoint has of the tensors of `needed`, and which others it has but those that start with a prefix of
/// `beside`. Counters of batch norm may be there or not.
pub(crate) fn compare(checkpoint: &Checkpoint, network: String, needed: &Architecture, beside: &[&str]) -> Fit {
    let is_count = |name: &str| name.ends_with("num_batches_tracked");
    let mut fit = Fit { network, matched: 0, missing: Vec::new(), unexpected: Vec::new(), mismatched: Vec::new() };
    for (name, shape) in needed.iter().filter(|(name, _)| !is_count(name)) {
        match checkpoint.get(name) {
            None => fit.missing.push(name.clone()),
            Some(entry) if entry.shape() != shape => {
                fit.mismatched.push(format!("{name}: needs {shape:?}, has {:?}", entry.shape()));
            }
            Some(entry) if !entry.dtype().is_float() => {
                fit.mismatched.push(format!("{name}: needs a floating-point type, has {}", entry.dtype()));
            }
            Some(_) => fit.matched += 1,
        }
    }
    let names: HashSet<&str> = needed.iter().map(|(name, _)| name.as_str()).collect();
    let others = checkpoint.iter().map(|(name, _)| name).filter(|name| {
        !names.contains(name) && !checkpoint.is_counter(name) && !beside.iter().any(|prefix| name.starts_with(prefix))
    });
    fit.unexpected.extend(others.map(str::to_owned));
    fit
}

/// Adds the tensors of a convolution.
pub(crate) fn convolution(to: &mut Architecture, prefix: &str, shape: [usize; 4], bias: bool) {
    to.push((format!("{prefix}.weight"), shape.to_vec()));
    if bias {
        to.push((format!("{prefix}.bias"), vec![shape[0]]));
    }
}

/// Adds the tensors of a batch norm.
pub(crate) fn batch_norm(to: &mut Architecture, prefix: &str, channels: usize, affine: bool) {
    let names =
        if affine { &["weight", "bias", "running_mean", "running_var"][..] } else { &["running_mean", "running_var"] };
    to.extend(names.iter().map(|name| (format!("{prefix}.{name}"), vec![channels])));
    to.push((format!("{prefix}.num_batches_tracked"), Vec::new()));
}

#[cfg(all(test, any(feature = "vgg", feature = "face-id")))]
mod tests {
    use super::*;

    #[test]
    fn batch_norm_is_folded() -> Result<()> {
        let names = ["running_mean", "running_var", "weight", "bias"];
        let entries = [[0.5f32, -2.0], [0.0, 4.0], [3.0, 0.25], [1.0, -1.0]];
        let named = names.iter().zip(entries).map(|(name, values)| (format!("bn.{name}"), vec![2], values.to_vec()));
        let checkpoint = Checkpoint::from_entries(named.collect::<Vec<_>>())?;
        let needed: Architecture = names.iter().map(|name| (format!("bn.{name}"), vec![2])).collect();
        let fold = |affine| Parameters::load(&checkpoint, "a norm", &needed, &[], &[])?.take_batch_norm("bn", affine);
        // PyTorch's ε = 1e-5 alone under the first root.
        let scale = [1.0 / 1e-5f64.sqrt(), 1.0 / 4.00001f64.sqrt()];
        let expect = |found: [&[f64]; 2], expected: [[f64; 2]; 2]| {
            for (found, expected) in found.concat().iter().zip(expected.concat()) {
                assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} {expected}");
            }
        };
        expect(fold(false)?.parts(), [scale, [-0.5 * scale[0], 2.0 * scale[1]]]);
        let weighed = [3.0 * scale[0], 0.25 * scale[1]];
        expect(fold(true)?.parts(), [weighed, [1.0 - 0.5 * weighed[0], -1.0 + 2.0 * weighed[1]]]);
        Ok(())
    }
}
