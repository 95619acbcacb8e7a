//! SqueezeNet 1.1's convolutional part.

use image_losses_core::{Conv2d, Pool2d, Result, Tensor};

use super::sequential::Convolution;
use super::{Architecture, BoundSequential, Layer, Parameters, Sequential, parameters};
use crate::checkpoint::Checkpoint;

/// The fire modules by their place in torchvision's `features`: channels in, squeezed, and of each expansion.
const FIRES: [(usize, usize, usize, usize); 8] = [
    (3, 64, 16, 64),
    (4, 128, 16, 64),
    (6, 128, 32, 128),
    (7, 256, 32, 128),
    (9, 256, 48, 192),
    (10, 384, 48, 192),
    (11, 384, 64, 256),
    (12, 512, 64, 256),
];

/// The number of layers in `features`.
const LAYERS: usize = 13;

/// SqueezeNet's convolutional part, as torchvision's `squeezenet1_1.features`.
///
/// Source: F. Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
/// 2016; version 1.1 of the authors' repository.
#[derive(Clone, Debug)]
pub struct SqueezeNet(Sequential);

impl SqueezeNet {
    const NAME: &'static str = "SqueezeNet";

    /// The convolutional part's tensors, as torchvision names them.
    pub fn architecture() -> Architecture {
        let mut tensors = Architecture::new();
        parameters::convolution(&mut tensors, "features.0", [64, 3, 3, 3], true);
        for (index, from, squeezed, expanded) in FIRES {
            let prefix = format!("features.{index}");
            parameters::convolution(&mut tensors, &format!("{prefix}.squeeze"), [squeezed, from, 1, 1], true);
            parameters::convolution(&mut tensors, &format!("{prefix}.expand1x1"), [expanded, squeezed, 1, 1], true);
            parameters::convolution(&mut tensors, &format!("{prefix}.expand3x3"), [expanded, squeezed, 3, 3], true);
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
        let mut convolution = |prefix: String, geometry: Conv2d| {
            Ok::<_, image_losses_core::Error>(Convolution {
                weight: parameters.take(&format!("{prefix}.weight"))?,
                bias: Some(parameters.take(&format!("{prefix}.bias"))?),
                geometry,
            })
        };
        let mut layers =
            vec![Layer::Convolve(convolution("features.0".into(), Conv2d::default().strided(2))?), Layer::Relu];
        for index in layers.len()..LAYERS {
            if FIRES.iter().any(|(place, ..)| *place == index) {
                let prefix = format!("features.{index}");
                layers.push(Layer::Fire(Box::new([
                    convolution(format!("{prefix}.squeeze"), Conv2d::default())?,
                    convolution(format!("{prefix}.expand1x1"), Conv2d::default())?,
                    convolution(format!("{prefix}.expand3x3"), Conv2d::padded(1))?,
                ])));
            } else {
                layers.push(Layer::MaxPool(Pool2d { stride: [2; 2], ceil_mode: true, ..Pool2d::square(3) }));
            }
        }
        Ok(SqueezeNet(Sequential::new(Self::NAME, 3, layers)))
    }

    /// The network on a context; layer i is torchvision's `features.i`.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundSequential<T>> {
        self.0.bind(context)
    }
}
