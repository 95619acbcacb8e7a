//! Networks that are a list of layers.

use std::sync::{Arc, LazyLock};

use image_losses_core::{Conv2d, Error, Expr, Function, LinearMap, Pointwise, Pool2d, Result, Tensor, Unary};
#[cfg(any(feature = "vgg", feature = "light-cnn"))]
use image_losses_kernels::frozen::{FrozenLayer, FrozenNetwork};

use super::parameters::BoundAffine;
use super::{ChannelAffine, Parameter};

/// A convolution with its bias.
#[derive(Clone, Debug)]
pub(crate) struct Convolution<P> {
    pub(crate) weight: P,
    pub(crate) bias: Option<P>,
    pub(crate) geometry: Conv2d,
}

impl Convolution<Parameter> {
    fn bind<T: Tensor>(&self, context: &T::Context) -> Result<Convolution<T>> {
        Ok(Convolution {
            weight: self.weight.bind(context)?,
            bias: self.bias.as_ref().map(|bias| bias.bind(context)).transpose()?,
            geometry: self.geometry,
        })
    }
}

impl<T: Tensor> Convolution<T> {
    fn forward(&self, x: &T) -> Result<T> {
        x.conv2d(&self.weight, self.bias.as_ref(), self.geometry)
    }
}

/// A layer: `P` holds a tensor of parameters, `A` a factor and a summand per channel.
#[derive(Clone, Debug)]
pub(crate) enum Layer<P = Parameter, A = ChannelAffine> {
    Convolve(Convolution<P>),
    Affine(A),
    Relu,
    MaxPool(Pool2d),
    /// The larger of the first and the second half of the channels.
    #[cfg_attr(not(feature = "light-cnn"), allow(dead_code))]
    MaxFeature,
    /// SqueezeNet's module: squeeze, then two expansions side by side; ReLU after each.
    #[cfg_attr(not(feature = "lpips"), allow(dead_code))]
    Fire(Box<[Convolution<P>; 3]>),
    /// √(blurred x² + 1e-12), every other row and column: DISTS's pooling.
    #[cfg_attr(not(feature = "lpips"), allow(dead_code))]
    L2Pool,
}

impl Layer {
    fn bind<T: Tensor>(&self, context: &T::Context) -> Result<Layer<T, BoundAffine<T>>> {
        Ok(match self {
            Layer::Convolve(convolution) => Layer::Convolve(convolution.bind(context)?),
            Layer::Affine(affine) => Layer::Affine(affine.bind(context)?),
            Layer::Relu => Layer::Relu,
            Layer::MaxPool(pool) => Layer::MaxPool(*pool),
            Layer::MaxFeature => Layer::MaxFeature,
            Layer::Fire(parts) => {
                let [squeeze, one, three] = parts.as_ref();
                Layer::Fire(Box::new([squeeze.bind(context)?, one.bind(context)?, three.bind(context)?]))
            }
            Layer::L2Pool => Layer::L2Pool,
        })
    }
}

impl<T: Tensor> Layer<T, BoundAffine<T>> {
    fn forward(&self, x: &T) -> Result<T> {
        match self {
            Layer::Convolve(convolution) => convolution.forward(x),
            Layer::Affine(affine) => affine.forward(x),
            Layer::Relu => x.unary(Unary::Relu),
            Layer::MaxPool(pool) => x.max_pool2d(*pool),
            Layer::MaxFeature => {
                let half = x.shape()[1] / 2;
                T::pointwise(&LARGER, &[&x.narrow(1, 0, half)?, &x.narrow(1, half, half)?])
            }
            Layer::Fire(parts) => {
                let [squeeze, one, three] = parts.as_ref();
                let squeezed = squeeze.forward(x)?.unary(Unary::Relu)?;
                let (one, three) = (one.forward(&squeezed)?, three.forward(&squeezed)?);
                T::concatenate(&[&one.unary(Unary::Relu)?, &three.unary(Unary::Relu)?], 1)
            }
            Layer::L2Pool => {
                let shape = x.shape();
                let (rows, columns) = (halving_blur(shape[2])?, halving_blur(shape[3])?);
                let mean = x.unary(Unary::Square)?.linear(2, &rows)?.linear(3, &columns)?;
                mean.shift(1e-12)?.unary(Unary::Sqrt)
            }
        }
    }
}

/// A Hann window of three along an axis, zeros beyond its ends, at every other element.
fn halving_blur(extent: usize) -> Result<Arc<LinearMap>> {
    let row = |i: usize| {
        let taps = [((2 * i).checked_sub(1), 0.25), (Some(2 * i), 0.5), (Some(2 * i + 1), 0.25)];
        taps.into_iter().filter_map(|(j, weight)| Some((j.filter(|j| *j < extent)?, weight))).collect()
    };
    LinearMap::from_rows(extent, (0..extent.div_ceil(2)).map(row))
}

/// max(a, b).
#[derive(Clone, Copy, Debug)]
struct Larger;

static LARGER: LazyLock<Function> = LazyLock::new(|| Function::new(Larger));

impl Pointwise<2> for Larger {
    fn value<'e>(&self, [a, b]: [Expr<'e>; 2]) -> Expr<'e> {
        a.max(b)
    }
}

/// Layers one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Sequential {
    name: &'static str,
    /// The channels of the input.
    channels: usize,
    layers: Vec<Layer>,
}

impl Sequential {
    pub(crate) fn new(name: &'static str, channels: usize, layers: Vec<Layer>) -> Self {
        Sequential { name, channels, layers }
    }

    /// Puts another layer in the place of every maximum pooling.
    #[cfg(feature = "lpips")]
    pub(crate) fn replace_pools(&mut self, by: impl Fn() -> Layer) {
        for layer in self.layers.iter_mut().filter(|layer| matches!(layer, Layer::MaxPool(_))) {
            *layer = by();
        }
    }

    /// The fused network up to the deepest of the layers `taps`, on images whose channels are first multiplied by the
    /// first of `input` and increased by the second.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a layer that the fused network has not.
    #[cfg(any(feature = "vgg", feature = "light-cnn"))]
    pub(crate) fn frozen(&self, taps: &[usize], input: Option<[Vec<f32>; 2]>) -> Result<FrozenNetwork> {
        let floats = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
        let unsupported = |operation| Error::Unsupported { operation, engine: "frozen network" };
        let layer = |layer: &Layer| {
            Ok(match layer {
                Layer::Convolve(Convolution { weight, bias, geometry }) => FrozenLayer::Convolution {
                    weight: weight.values.to_vec(),
                    shape: weight.shape[..].try_into().map_err(|_| unsupported("a weight of another rank than 4"))?,
                    bias: bias.as_ref().map(|bias| bias.values.to_vec()).unwrap_or_default(),
                    geometry: *geometry,
                },
                Layer::Affine(affine) => {
                    let [scale, shift] = affine.parts();
                    FrozenLayer::Affine { scale: floats(scale), shift: floats(shift) }
                }
                Layer::Relu => FrozenLayer::Relu,
                Layer::MaxPool(pool) if *pool == (Pool2d { ceil_mode: pool.ceil_mode, ..Pool2d::square(2) }) => {
                    FrozenLayer::MaxPool { ceil_mode: pool.ceil_mode }
                }
                Layer::MaxPool(_) => return Err(unsupported("another pooling than 2×2")),
                Layer::MaxFeature => FrozenLayer::MaxFeature,
                Layer::Fire(_) => return Err(unsupported("SqueezeNet's module")),
                Layer::L2Pool => return Err(unsupported("L2 pooling")),
            })
        };
        let last = taps.iter().max().map_or(0, |deepest| deepest + 1).min(self.layers.len());
        let layers = self.layers[..last].iter().map(layer).collect::<Result<_>>()?;
        let network = FrozenNetwork::new(self.channels, layers, taps)?;
        match input {
            Some([scale, shift]) => network.with_input_affine(&scale, &shift),
            None => Ok(network),
        }
    }

    pub(crate) fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundSequential<T>> {
        Ok(BoundSequential {
            name: self.name,
            channels: self.channels,
            layers: self.layers.iter().map(|layer| layer.bind(context)).collect::<Result<_>>()?,
        })
    }
}

/// A network of layers on a context.
#[derive(Clone, Debug)]
pub struct BoundSequential<T> {
    name: &'static str,
    channels: usize,
    layers: Vec<Layer<T, BoundAffine<T>>>,
}

impl<T: Tensor> BoundSequential<T> {
    /// The outputs of the layers `taps`, in that order; no layer beyond the deepest is run.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for an image of another rank or number of channels than the network takes, or too small for
    /// its poolings; [`Error::InvalidOption`] for a layer that is not there.
    pub fn taps(&self, image: &T, taps: &[usize]) -> Result<Vec<T>> {
        check_image(self.name, "image", &image.shape(), self.channels)?;
        if let Some(beyond) = taps.iter().find(|tap| **tap >= self.layers.len()) {
            return Err(Error::option(self.name, "layer", format!("below {}", self.layers.len()), beyond));
        }
        let mut outputs: Vec<Option<T>> = vec![None; taps.len()];
        let mut x = image.clone();
        let last = taps.iter().max().map_or(0, |deepest| deepest + 1);
        for (index, layer) in self.layers[..last].iter().enumerate() {
            x = layer.forward(&x).map_err(|error| match error {
                // What a pooling or a convolution refused is the image's size.
                Error::ShapeRule { operation: "pool2d" | "conv2d", argument: "input", .. } => Error::ShapeRule {
                    operation: self.name,
                    argument: "image",
                    expected: format!("pixels left at layer {index}, where {:?} come in", x.shape()),
                    got: image.shape(),
                },
                other => other,
            })?;
            for (output, _) in outputs.iter_mut().zip(taps).filter(|(_, tap)| **tap == index) {
                *output = Some(x.clone());
            }
        }
        Ok(outputs.into_iter().flatten().collect())
    }

    /// The output of the last layer.
    ///
    /// # Errors
    /// As [`taps`](BoundSequential::taps).
    pub fn forward(&self, image: &T) -> Result<T> {
        let Some(last) = self.layers.len().checked_sub(1) else { return Ok(image.clone()) };
        self.taps(image, &[last])?.pop().ok_or(Error::InputCount { operation: self.name, expected: 1, got: 0 })
    }
}

/// Refuses what is no batch of images with so many channels.
pub(crate) fn check_image(
    operation: &'static str,
    argument: &'static str,
    shape: &[usize],
    channels: usize,
) -> Result<()> {
    match shape {
        [batch, c, height, width] if *c == channels => {
            if batch * height * width == 0 {
                return Err(Error::Empty { operation, argument, got: shape.to_vec() });
            }
            Ok(())
        }
        _ => Err(Error::ShapeRule {
            operation,
            argument,
            expected: format!("rank 4 (N, C, H, W) with {channels} channels"),
            got: shape.to_vec(),
        }),
    }
}
