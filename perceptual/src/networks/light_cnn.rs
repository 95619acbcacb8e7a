//! LightCNN-9's convolutional part.

use image_losses_core::{Conv2d, Pool2d, Result, Tensor};
use image_losses_kernels::frozen::FrozenNetwork;

use super::sequential::Convolution;
use super::{Architecture, BoundSequential, Layer, Parameters, Sequential, parameters};
use crate::checkpoint::Checkpoint;

/// The nine max-feature convolutions, by their place in `features`: channels in, channels out, kernel.
const CONVOLUTIONS: [(usize, usize, usize, usize); 9] = [
    (0, 3, 48, 5),
    (2, 48, 48, 1),
    (3, 48, 96, 3),
    (5, 96, 96, 1),
    (6, 96, 192, 3),
    (8, 192, 192, 1),
    (9, 192, 128, 3),
    (10, 128, 128, 1),
    (11, 128, 128, 3),
];

/// The places of the poolings.
const LAYERS: usize = 13;

/// LightCNN-9 without its classifier, as MMagic's `LightCNN.features`: max-feature-map convolutions 5·1·3·1·3·1·3·1·3
/// and 2×2 maximum poolings that round up.
///
/// Source: X. Wu, R. He, Z. Sun, T. Tan, "A Light CNN for Deep Face Representation with Noisy Labels", 2018.
#[derive(Clone, Debug)]
pub struct LightCnn(Sequential);

impl LightCnn {
    const NAME: &'static str = "LightCNN";

    /// The convolutional part's tensors, as MMagic names them.
    pub fn architecture() -> Architecture {
        let mut tensors = Architecture::new();
        for (index, from, to, kernel) in CONVOLUTIONS {
            let prefix = format!("features.{index}.filter");
            parameters::convolution(&mut tensors, &prefix, [2 * to, from, kernel, kernel], true);
        }
        tensors
    }

    /// Reads the network from a checkpoint of MMagic. The classifier may be there.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`](image_losses_core::Error::CheckpointMismatch) where the checkpoint is another
    /// network's.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let needed = Self::architecture();
        let mut parameters = Parameters::load(checkpoint, Self::NAME, &needed, &[], &["classifier."])?;
        let mut layers = Vec::new();
        for index in 0..LAYERS {
            let Some((_, _, _, kernel)) = CONVOLUTIONS.into_iter().find(|(place, ..)| *place == index) else {
                layers.push(Layer::MaxPool(Pool2d { ceil_mode: true, ..Pool2d::square(2) }));
                continue;
            };
            let prefix = format!("features.{index}.filter");
            layers.push(Layer::Convolve(Convolution {
                weight: parameters.take(&format!("{prefix}.weight"))?,
                bias: Some(parameters.take(&format!("{prefix}.bias"))?),
                geometry: Conv2d::padded(kernel / 2),
            }));
            layers.push(Layer::MaxFeature);
        }
        Ok(LightCnn(Sequential::new(Self::NAME, 3, layers)))
    }

    /// The last layer: each convolution is two, itself and the larger half of its channels.
    pub(crate) const LAST: usize = LAYERS + CONVOLUTIONS.len() - 1;

    /// The network with its criterion, fused, tapped at its last layer.
    pub(crate) fn frozen(&self) -> Result<FrozenNetwork> {
        self.0.frozen(&[Self::LAST], None)
    }

    /// The network on a context.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundSequential<T>> {
        self.0.bind(context)
    }
}
