//! AlexNet's convolutional part.

use image_losses_core::{Conv2d, Pool2d, Result, Tensor};

use super::sequential::Convolution;
use super::{Architecture, BoundSequential, Layer, Parameters, Sequential, parameters};
use crate::checkpoint::Checkpoint;

/// The convolutions by their place in torchvision's `features`: channels in, channels out, kernel, stride, padding.
const CONVOLUTIONS: [(usize, usize, usize, usize, usize, usize); 5] = [
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
];

/// AlexNet's convolutional part up to its fifth ReLU, as torchvision's `alexnet.features`.
///
/// Source: A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
#[derive(Clone, Debug)]
pub struct AlexNet(Sequential);

impl AlexNet {
    const NAME: &'static str = "AlexNet";

    /// The convolutional part's tensors, as torchvision names them.
    pub fn architecture() -> Architecture {
        let mut tensors = Architecture::new();
        for (index, from, to, kernel, ..) in CONVOLUTIONS {
            parameters::convolution(&mut tensors, &format!("features.{index}"), [to, from, kernel, kernel], true);
        }
        tensors
    }

    /// Reads the network from a checkpoint of torchvision. The classifier may be there.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`](image_losses_core::Error::CheckpointMismatch) where the checkpoint is another
    /// network's.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let mut parameters = Parameters::load(checkpoint, Self::NAME, &Self::architecture(), &[], &["classifier."])?;
        let mut layers = Vec::new();
        for (index, _, _, _, stride, padding) in CONVOLUTIONS {
            layers.push(Layer::Convolve(Convolution {
                weight: parameters.take(&format!("features.{index}.weight"))?,
                bias: Some(parameters.take(&format!("features.{index}.bias"))?),
                geometry: Conv2d::padded(padding).strided(stride),
            }));
            layers.push(Layer::Relu);
            if matches!(index, 0 | 3) {
                layers.push(Layer::MaxPool(Pool2d { stride: [2; 2], ..Pool2d::square(3) }));
            }
        }
        Ok(AlexNet(Sequential::new(Self::NAME, 3, layers)))
    }

    /// The network on a context; layer i is torchvision's `features.i`.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundSequential<T>> {
        self.0.bind(context)
    }
}
