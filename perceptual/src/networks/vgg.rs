//! The VGG networks' convolutional part.

use image_losses_core::{Conv2d, Error, Pool2d, Result, Tensor};
use image_losses_kernels::frozen::FrozenNetwork;
use serde::{Deserialize, Serialize};

use super::sequential::Convolution;
use super::{Architecture, BoundSequential, ChannelAffine, Layer, Parameters, Sequential, parameters};
use crate::checkpoint::Checkpoint;

/// Which VGG network: its number of layers with weights, with or without batch norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum VggType {
    /// VGG-11.
    Vgg11,
    /// VGG-11 with batch norm.
    Vgg11Bn,
    /// VGG-13.
    Vgg13,
    /// VGG-13 with batch norm.
    Vgg13Bn,
    /// VGG-16.
    Vgg16,
    /// VGG-16 with batch norm.
    Vgg16Bn,
    /// VGG-19.
    #[default]
    Vgg19,
    /// VGG-19 with batch norm.
    Vgg19Bn,
}

/// One layer's kind in torchvision's `features`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Convolution { from: usize, to: usize },
    BatchNorm(usize),
    Relu,
    Pool,
}

/// One layer: its kind, and its block and number as in `relu5_4`.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: Kind,
    block: usize,
    number: usize,
}

impl VggType {
    /// All of them.
    pub const ALL: [VggType; 8] = [
        VggType::Vgg11,
        VggType::Vgg11Bn,
        VggType::Vgg13,
        VggType::Vgg13Bn,
        VggType::Vgg16,
        VggType::Vgg16Bn,
        VggType::Vgg19,
        VggType::Vgg19Bn,
    ];

    /// Its name, as torchvision and a configuration have it: `vgg19_bn`.
    pub fn name(self) -> &'static str {
        match self {
            VggType::Vgg11 => "vgg11",
            VggType::Vgg11Bn => "vgg11_bn",
            VggType::Vgg13 => "vgg13",
            VggType::Vgg13Bn => "vgg13_bn",
            VggType::Vgg16 => "vgg16",
            VggType::Vgg16Bn => "vgg16_bn",
            VggType::Vgg19 => "vgg19",
            VggType::Vgg19Bn => "vgg19_bn",
        }
    }

    /// The number of convolutions in each of the five blocks.
    fn blocks(self) -> [usize; 5] {
        match self {
            VggType::Vgg11 | VggType::Vgg11Bn => [1, 1, 2, 2, 2],
            VggType::Vgg13 | VggType::Vgg13Bn => [2, 2, 2, 2, 2],
            VggType::Vgg16 | VggType::Vgg16Bn => [2, 2, 3, 3, 3],
            VggType::Vgg19 | VggType::Vgg19Bn => [2, 2, 4, 4, 4],
        }
    }

    fn has_batch_norm(self) -> bool {
        matches!(self, VggType::Vgg11Bn | VggType::Vgg13Bn | VggType::Vgg16Bn | VggType::Vgg19Bn)
    }

    /// The layers, in the order of torchvision's `features`.
    fn places(self) -> Vec<Place> {
        let mut places = Vec::new();
        let mut from = 3;
        for ((block, count), to) in (1..).zip(self.blocks()).zip([64, 128, 256, 512, 512]) {
            for number in 1..=count {
                places.push(Place { kind: Kind::Convolution { from, to }, block, number });
                if self.has_batch_norm() {
                    places.push(Place { kind: Kind::BatchNorm(to), block, number });
                }
                places.push(Place { kind: Kind::Relu, block, number });
                from = to;
            }
            places.push(Place { kind: Kind::Pool, block, number: 0 });
        }
        places
    }

    /// The names of all layers in the order of their indices: `conv1_1`, `bn1_1`, `relu1_1`, …, `pool5`.
    pub fn layer_names(self) -> Vec<String> {
        let name = |Place { kind, block, number }: Place| match kind {
            Kind::Convolution { .. } => format!("conv{block}_{number}"),
            Kind::BatchNorm(_) => format!("bn{block}_{number}"),
            Kind::Relu => format!("relu{block}_{number}"),
            Kind::Pool => format!("pool{block}"),
        };
        self.places().into_iter().map(name).collect()
    }

    /// The index of a layer in torchvision's `features`, from that index in digits (`"34"`) or its name (`relu5_4`).
    ///
    /// ```
    /// use image_losses_perceptual::networks::VggType;
    ///
    /// assert_eq!(VggType::Vgg19.layer("relu5_4")?, 35);
    /// assert_eq!(VggType::Vgg19.layer("35")?, 35);
    /// assert!(VggType::Vgg16.layer("relu5_4").is_err()); // it has three
    /// # Ok::<(), image_losses_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a layer that is not there.
    pub fn layer(self, name: &str) -> Result<usize> {
        let names = self.layer_names();
        let index = match name.parse() {
            Ok(index) => Some(index).filter(|index| *index < names.len()),
            Err(_) => names.iter().position(|known| known == name),
        };
        index.ok_or_else(|| Error::UnknownName {
            path: self.name().to_owned(),
            kind: "layer",
            name: name.to_owned(),
            // The last of the block and kind that were meant, if such there are.
            nearest: name
                .split_once('_')
                .and_then(|(stem, _)| names.iter().rfind(|known| known.split('_').next() == Some(stem)).cloned()),
            known: Vec::new(),
        })
    }

    /// The convolutional part's tensors, as torchvision names them.
    pub fn architecture(self) -> Architecture {
        architecture(&self.places())
    }
}

fn architecture(places: &[Place]) -> Architecture {
    let mut tensors = Architecture::new();
    for (index, place) in places.iter().enumerate() {
        let prefix = format!("features.{index}");
        match place.kind {
            Kind::Convolution { from, to } => parameters::convolution(&mut tensors, &prefix, [to, from, 3, 3], true),
            Kind::BatchNorm(channels) => parameters::batch_norm(&mut tensors, &prefix, channels, true),
            Kind::Relu | Kind::Pool => {}
        }
    }
    tensors
}

/// A VGG network's convolutional part, up to the deepest layer that is needed.
#[derive(Clone, Debug)]
pub struct Vgg {
    vgg_type: VggType,
    layers: Sequential,
}

impl Vgg {
    /// Reads the first `layers` layers from a checkpoint of torchvision. The classifier may be there.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] where the checkpoint is another network's, [`Error::InvalidOption`] for more layers
    /// than there are.
    pub fn load(vgg_type: VggType, layers: usize, checkpoint: &Checkpoint) -> Result<Self> {
        let places = vgg_type.places();
        let Some(used) = places.get(..layers) else {
            return Err(Error::option(vgg_type.name(), "layers", format!("at most {}", places.len()), layers));
        };
        let known = architecture(&places);
        let mut parameters =
            Parameters::load(checkpoint, vgg_type.name(), &architecture(used), &known, &["classifier."])?;
        let layer = |(index, place): (usize, &Place)| {
            let prefix = format!("features.{index}");
            Ok(match place.kind {
                Kind::Convolution { .. } => Layer::Convolve(Convolution {
                    weight: parameters.take(&format!("{prefix}.weight"))?,
                    bias: Some(parameters.take(&format!("{prefix}.bias"))?),
                    geometry: Conv2d::padded(1),
                }),
                Kind::BatchNorm(_) => Layer::Affine(parameters.take_batch_norm(&prefix, true)?),
                Kind::Relu => Layer::Relu,
                Kind::Pool => Layer::MaxPool(Pool2d::square(2)),
            })
        };
        let layers = used.iter().enumerate().map(layer).collect::<Result<_>>()?;
        Ok(Vgg { vgg_type, layers: Sequential::new(vgg_type.name(), 3, layers) })
    }

    /// Which one it is.
    pub fn vgg_type(&self) -> VggType {
        self.vgg_type
    }

    /// The network on a context. Its input is what torchvision's `features` take: images that are normalised already.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundSequential<T>> {
        self.layers.bind(context)
    }

    /// The shape that a layer puts out for images of this shape.
    pub(crate) fn output_shape(
        &self,
        layer: usize,
        [samples, mut channels, mut height, mut width]: [usize; 4],
    ) -> [usize; 4] {
        for place in self.vgg_type.places().iter().take(layer + 1) {
            match place.kind {
                Kind::Convolution { to, .. } => channels = to,
                Kind::Pool => [height, width] = [height / 2, width / 2],
                Kind::BatchNorm(_) | Kind::Relu => {}
            }
        }
        [samples, channels, height, width]
    }

    /// The network with its criteria, fused: on images that `input` maps to those that the network takes.
    pub(crate) fn frozen(&self, taps: &[usize], input: [Vec<f32>; 2]) -> Result<FrozenNetwork> {
        self.layers.frozen(taps, Some(input))
    }

    /// The same with another pooling: DISTS's.
    #[cfg(feature = "lpips")]
    pub(crate) fn with_l2_pooling(mut self) -> Self {
        self.layers.replace_pools(|| Layer::L2Pool);
        self
    }
}

/// ImageNet's mean and deviation, for images in [0, 1].
pub(crate) fn imagenet_normalisation() -> ChannelAffine {
    ChannelAffine::normalisation(&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225])
}
