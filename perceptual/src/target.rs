//! What a target contributes to a loss with a network.

use image_losses_core::NetworkId;
use image_losses_core::{Result, Tensor};

/// What a target contributes to a loss: features or embeddings. Compute them once, use them often.
///
/// They belong to the loss that computed them and to its copies. Any other loss refuses them, also one with the same
/// network: [`Error::OtherNetwork`](image_losses_core::Error::OtherNetwork).
#[derive(Clone, Debug)]
pub struct TargetFeatures<T> {
    pub(crate) network: NetworkId,
    /// The target's shape.
    pub(crate) shape: Vec<usize>,
    /// The features, or where the network is fused those of all layers as one tensor.
    pub(crate) features: Vec<T>,
    /// The Gram matrices of [`PerceptualLoss`](crate::PerceptualLoss)'s style term.
    pub(crate) grams: Vec<T>,
    pub(crate) is_flat: bool,
}

impl<T: Tensor> TargetFeatures<T> {
    /// Features of a target of the given shape.
    pub(crate) fn new(network: NetworkId, shape: Vec<usize>, features: Vec<T>) -> Self {
        TargetFeatures { network, shape, features, grams: Vec::new(), is_flat: false }
    }

    /// The features of all layers as one tensor.
    #[cfg(feature = "vgg")]
    pub(crate) fn flat(network: NetworkId, shape: Vec<usize>, features: T) -> Self {
        TargetFeatures { is_flat: true, ..Self::new(network, shape, vec![features]) }
    }

    /// The tensor of a loss that keeps one.
    #[cfg(any(feature = "light-cnn", feature = "face-id", feature = "clip"))]
    pub(crate) fn only(&self, operation: &'static str) -> Result<&T> {
        match &self.features[..] {
            [tensor] => Ok(tensor),
            features => Err(image_losses_core::Error::InputCount { operation, expected: 1, got: features.len() }),
        }
    }

    /// The tensors: one of embeddings; of features as many as there are layers, or one for all where the network is
    /// fused. To be carried to another context with [`map`](TargetFeatures::map)'s help.
    pub fn tensors(&self) -> impl Iterator<Item = &T> {
        self.features.iter().chain(&self.grams)
    }

    /// The same with every tensor replaced: carried to another graph, for instance.
    ///
    /// # Errors
    /// Those of `carry`.
    pub fn map<U: Tensor>(&self, mut carry: impl FnMut(&T) -> Result<U>) -> Result<TargetFeatures<U>> {
        Ok(TargetFeatures {
            network: self.network,
            shape: self.shape.clone(),
            features: self.features.iter().map(&mut carry).collect::<Result<_>>()?,
            grams: self.grams.iter().map(&mut carry).collect::<Result<_>>()?,
            is_flat: self.is_flat,
        })
    }
}
