//! A frozen network with its criteria as one operation of the CPU engines.

use std::sync::Arc;

use image_losses_core::frozen_function::{FrozenFunction, apply};
use image_losses_core::kernels::Array;
use image_losses_core::{Error, Result, Shape, Tensor};
use image_losses_kernels::frozen::{Comparison, FrozenNetwork, Target, Term};

/// The sums of some terms between images and a target, one for each group.
#[derive(Debug)]
pub(crate) struct Compare {
    pub(crate) name: &'static str,
    pub(crate) network: Arc<FrozenNetwork>,
    /// The groups' terms; none is empty.
    pub(crate) groups: Vec<Vec<Term>>,
    /// The second input is [`FrozenNetwork::flat_features`] of the target, not the target.
    pub(crate) is_flat: bool,
}

impl Compare {
    /// The groups' sums as a tensor, where the engine has fused operations.
    pub(crate) fn apply<T: Tensor>(self, images: &T, target: &T) -> Option<Result<T>> {
        apply(&Arc::new(self), &[images, target])
    }

    /// Compares, and carries the groups' sums times `gradient` back if there is one.
    fn compare(&self, inputs: &[Array<'_, f32>], gradient: Option<&[f32]>) -> Result<Comparison> {
        let [images, target] = inputs else {
            return Err(Error::InputCount { operation: self.name, expected: 2, got: inputs.len() });
        };
        let shape = four(self.name, images.shape)?;
        let features;
        let target = if self.is_flat {
            features = self.network.features_from_flat(target.data, shape)?;
            Target::Features(&features)
        } else {
            Target::Images(target.data)
        };
        let terms = self.groups.concat();
        let factors: Option<Vec<f64>> = gradient.map(|gradient| {
            let groups = self.groups.iter().zip(gradient);
            groups.flat_map(|(group, &factor)| std::iter::repeat_n(f64::from(factor), group.len())).collect()
        });
        self.network.compare_weighted(images.data, target, shape, &terms, factors.as_deref())
    }

    /// Each group's sum.
    fn sums(&self, values: &[f64]) -> Vec<f32> {
        let mut values = values.iter();
        self.groups.iter().map(|group| values.by_ref().take(group.len()).sum::<f64>() as f32).collect()
    }
}

impl FrozenFunction for Compare {
    fn name(&self) -> &'static str {
        self.name
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let [images, target] = *inputs else {
            return Err(Error::InputCount { operation: self.name, expected: 2, got: inputs.len() });
        };
        let shape = four(self.name, images)?;
        self.network.check_shape(shape)?;
        let expected = if self.is_flat { vec![self.network.flat_len(shape)?] } else { images.to_vec() };
        if target != expected {
            let got = target.to_vec();
            return Err(Error::ShapeMismatch { operation: self.name, argument: "target", expected, got });
        }
        Ok(vec![self.groups.len()])
    }
    fn value(&self, inputs: &[Array<'_, f32>]) -> Vec<f32> {
        // The shape rule has refused whatever could fail.
        self.compare(inputs, None).map(|found| self.sums(&found.values)).unwrap_or_default()
    }
    fn value_and_gradient(&self, inputs: &[Array<'_, f32>], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
        match self.compare(inputs, Some(gradient)) {
            Ok(found) => (self.sums(&found.values), found.gradient.unwrap_or_default()),
            Err(_) => Default::default(),
        }
    }
}

/// The features of a target at every tap of a network, tap after tap: a tensor that can be kept and carried.
#[derive(Debug)]
pub(crate) struct Flatten {
    pub(crate) name: &'static str,
    pub(crate) network: Arc<FrozenNetwork>,
}

impl Flatten {
    /// The features as a tensor, where the engine has fused operations.
    pub(crate) fn apply<T: Tensor>(self, images: &T) -> Option<Result<T>> {
        // Detached: the gradient kernel below is never asked for.
        apply(&Arc::new(self), &[&images.detach()])
    }
}

impl FrozenFunction for Flatten {
    fn name(&self) -> &'static str {
        self.name
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let [images] = *inputs else {
            return Err(Error::InputCount { operation: self.name, expected: 1, got: inputs.len() });
        };
        Ok(vec![self.network.flat_len(four(self.name, images)?)?])
    }
    fn value(&self, inputs: &[Array<'_, f32>]) -> Vec<f32> {
        let flat = |images: &Array<'_, f32>| self.network.flat_features(images.data, four(self.name, images.shape)?);
        inputs.first().map(flat).and_then(Result::ok).unwrap_or_default()
    }
    fn value_and_gradient(&self, inputs: &[Array<'_, f32>], _: &[f32]) -> (Vec<f32>, Vec<f32>) {
        (self.value(inputs), inputs.first().map(|images| vec![0.0; images.data.len()]).unwrap_or_default())
    }
}

/// A shape as (N, C, H, W).
pub(crate) fn four(operation: &'static str, shape: &[usize]) -> Result<[usize; 4]> {
    shape.try_into().map_err(|_| Error::ShapeRule {
        operation,
        argument: "image",
        expected: "rank 4 (N, C, H, W)".into(),
        got: shape.to_vec(),
    })
}
