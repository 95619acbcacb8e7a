//! The improved residual networks of face recognition, with and without squeeze-and-excitation.

use std::sync::Arc;

use image_losses_core::{Conv2d, Error, Pool2d, Result, Tensor, Unary};
use image_losses_kernels::residual::{self as fused, ResidualNetwork};
use serde::{Deserialize, Serialize};

use super::embedding::normalised;
use super::parameters::BoundAffine;
use super::sequential::check_image;
use super::{Architecture, ChannelAffine, Parameter, Parameters, parameters};
use crate::checkpoint::Checkpoint;

/// The number of layers of an [`IrNet`], as its name says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum IrDepth {
    /// 50.
    #[default]
    L50,
    /// 100 (also called 101).
    L100,
    /// 152.
    L152,
}

impl TryFrom<u32> for IrDepth {
    type Error = Error;
    fn try_from(layers: u32) -> Result<Self> {
        match layers {
            50 => Ok(IrDepth::L50),
            100 => Ok(IrDepth::L100),
            152 => Ok(IrDepth::L152),
            _ => Err(Error::option("ArcFace", "num_layers", "50, 100 or 152", layers)),
        }
    }
}

impl From<IrDepth> for u32 {
    fn from(depth: IrDepth) -> Self {
        match depth {
            IrDepth::L50 => 50,
            IrDepth::L100 => 100,
            IrDepth::L152 => 152,
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for IrDepth {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IrDepth".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "enum": [50, 100, 152] })
    }
}

/// With or without squeeze-and-excitation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum IrMode {
    /// Without.
    Ir,
    /// With.
    #[default]
    IrSe,
}

/// The length of an embedding.
const EMBEDDING: usize = 512;
/// Height and width of the input.
const SIZE: usize = 112;
/// Height and width of the last feature map.
const LAST: usize = 7;
/// How much squeeze-and-excitation squeezes.
const REDUCTION: usize = 16;

/// A residual unit: channels in and out, and the stride.
#[derive(Clone, Copy, Debug)]
struct Unit {
    from: usize,
    to: usize,
    stride: usize,
}

fn units(depth: IrDepth) -> Vec<Unit> {
    let counts = match depth {
        IrDepth::L50 => [3, 4, 14, 3],
        IrDepth::L100 => [3, 13, 30, 3],
        IrDepth::L152 => [3, 8, 36, 3],
    };
    let mut units = Vec::new();
    let mut from = 64;
    for (count, to) in counts.into_iter().zip([64, 128, 256, 512]) {
        for number in 0..count {
            units.push(Unit { from, to, stride: if number == 0 { 2 } else { 1 } });
            from = to;
        }
    }
    units
}

/// A unit's parameters: `P` a tensor, `A` a factor and a summand per channel.
#[derive(Clone, Debug)]
struct Block<P, A> {
    unit: Unit,
    /// The convolution on the way past, where the number of channels changes.
    shortcut: Option<(P, A)>,
    before: A,
    first: P,
    slope: P,
    second: P,
    after: A,
    excitation: Option<[P; 2]>,
}

/// The parts of the network.
#[derive(Clone, Debug)]
struct Parts<P, A> {
    first: P,
    first_norm: A,
    first_slope: P,
    blocks: Vec<Block<P, A>>,
    last_norm: A,
    projection: [P; 2],
    embedding_norm: A,
}

/// The improved residual network that ArcFace is published with: IR-50, -100, -152 and the IR-SE ones, for 112×112.
///
/// Source: J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
/// 2019, section 3.1; the tensors are named as in TreB1eN's InsightFace_Pytorch, which MMagic follows.
#[derive(Clone, Debug)]
pub struct IrNet(Parts<Parameter, ChannelAffine>);

impl IrNet {
    /// Its name: `IR-SE50`.
    pub fn name(depth: IrDepth, mode: IrMode) -> &'static str {
        match (mode, depth) {
            (IrMode::Ir, IrDepth::L50) => "IR-50",
            (IrMode::Ir, IrDepth::L100) => "IR-100",
            (IrMode::Ir, IrDepth::L152) => "IR-152",
            (IrMode::IrSe, IrDepth::L50) => "IR-SE50",
            (IrMode::IrSe, IrDepth::L100) => "IR-SE100",
            (IrMode::IrSe, IrDepth::L152) => "IR-SE152",
        }
    }

    /// The network's tensors. The last batch norm has factors and summands of its own where `affine` says so, as
    /// IR-SE50's published checkpoint has; the larger networks' have not.
    pub fn architecture(depth: IrDepth, mode: IrMode, affine: bool) -> Architecture {
        let mut tensors = Architecture::new();
        let to = &mut tensors;
        parameters::convolution(to, "input_layer.0", [64, 3, 3, 3], false);
        parameters::batch_norm(to, "input_layer.1", 64, true);
        to.push(("input_layer.2.weight".into(), vec![64]));
        for (index, unit) in units(depth).into_iter().enumerate() {
            let Unit { from, to: channels, .. } = unit;
            let prefix = format!("body.{index}");
            if from != channels {
                parameters::convolution(to, &format!("{prefix}.shortcut_layer.0"), [channels, from, 1, 1], false);
                parameters::batch_norm(to, &format!("{prefix}.shortcut_layer.1"), channels, true);
            }
            let prefix = format!("{prefix}.res_layer");
            parameters::batch_norm(to, &format!("{prefix}.0"), from, true);
            parameters::convolution(to, &format!("{prefix}.1"), [channels, from, 3, 3], false);
            to.push((format!("{prefix}.2.weight"), vec![channels]));
            parameters::convolution(to, &format!("{prefix}.3"), [channels, channels, 3, 3], false);
            parameters::batch_norm(to, &format!("{prefix}.4"), channels, true);
            if mode == IrMode::IrSe {
                let squeezed = channels / REDUCTION;
                parameters::convolution(to, &format!("{prefix}.5.fc1"), [squeezed, channels, 1, 1], false);
                parameters::convolution(to, &format!("{prefix}.5.fc2"), [channels, squeezed, 1, 1], false);
            }
        }
        parameters::batch_norm(to, "output_layer.0", 512, true);
        to.push(("output_layer.3.weight".into(), vec![EMBEDDING, 512 * LAST * LAST]));
        to.push(("output_layer.3.bias".into(), vec![EMBEDDING]));
        parameters::batch_norm(to, "output_layer.4", EMBEDDING, affine);
        tensors
    }

    /// Reads the network from a checkpoint.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] where the checkpoint is another network's.
    pub fn load(depth: IrDepth, mode: IrMode, checkpoint: &Checkpoint) -> Result<Self> {
        let affine = ["weight", "bias"].iter().any(|name| checkpoint.get(&format!("output_layer.4.{name}")).is_some());
        let needed = Self::architecture(depth, mode, affine);
        let mut parameters = Parameters::load(checkpoint, Self::name(depth, mode), &needed, &[], &[])?;
        let parameters = &mut parameters;
        let mut blocks = Vec::new();
        for (index, unit) in units(depth).into_iter().enumerate() {
            let prefix = format!("body.{index}");
            let shortcut = if unit.from == unit.to {
                None
            } else {
                Some((
                    parameters.take(&format!("{prefix}.shortcut_layer.0.weight"))?,
                    parameters.take_batch_norm(&format!("{prefix}.shortcut_layer.1"), true)?,
                ))
            };
            let prefix = format!("{prefix}.res_layer");
            let excitation = match mode {
                IrMode::Ir => None,
                IrMode::IrSe => Some([
                    parameters.take(&format!("{prefix}.5.fc1.weight"))?,
                    parameters.take(&format!("{prefix}.5.fc2.weight"))?,
                ]),
            };
            blocks.push(Block {
                unit,
                shortcut,
                before: parameters.take_batch_norm(&format!("{prefix}.0"), true)?,
                first: parameters.take(&format!("{prefix}.1.weight"))?,
                slope: per_channel(parameters.take(&format!("{prefix}.2.weight"))?),
                second: parameters.take(&format!("{prefix}.3.weight"))?,
                after: parameters.take_batch_norm(&format!("{prefix}.4"), true)?,
                excitation,
            });
        }
        Ok(IrNet(Parts {
            first: parameters.take("input_layer.0.weight")?,
            first_norm: parameters.take_batch_norm("input_layer.1", true)?,
            first_slope: per_channel(parameters.take("input_layer.2.weight")?),
            blocks,
            last_norm: parameters.take_batch_norm("output_layer.0", true)?,
            projection: [parameters.take("output_layer.3.weight")?, parameters.take("output_layer.3.bias")?],
            embedding_norm: parameters.take_batch_norm("output_layer.4", affine)?,
        }))
    }

    /// The network on a context.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundIrNet<T>> {
        let pair = |pair: &[Parameter; 2]| Ok::<_, Error>([pair[0].bind(context)?, pair[1].bind(context)?]);
        let block = |block: &Block<Parameter, ChannelAffine>| {
            Ok(Block {
                unit: block.unit,
                shortcut: match &block.shortcut {
                    Some((weight, norm)) => Some((weight.bind(context)?, norm.bind(context)?)),
                    None => None,
                },
                before: block.before.bind(context)?,
                first: block.first.bind(context)?,
                slope: block.slope.bind(context)?,
                second: block.second.bind(context)?,
                after: block.after.bind(context)?,
                excitation: block.excitation.as_ref().map(pair).transpose()?,
            })
        };
        let parts = &self.0;
        Ok(BoundIrNet(Parts {
            first: parts.first.bind(context)?,
            first_norm: parts.first_norm.bind(context)?,
            first_slope: parts.first_slope.bind(context)?,
            blocks: parts.blocks.iter().map(block).collect::<Result<_>>()?,
            last_norm: parts.last_norm.bind(context)?,
            projection: pair(&parts.projection)?,
            embedding_norm: parts.embedding_norm.bind(context)?,
        }))
    }
}

impl IrNet {
    /// The network as one operation of the CPU.
    ///
    /// # Errors
    /// None that its parameters, once loaded, could cause.
    pub(crate) fn frozen(&self) -> Result<ResidualNetwork> {
        let values = |parameter: &Parameter| Arc::clone(&parameter.values);
        let affine = |affine: &ChannelAffine| {
            let [scale, shift] = affine.parts().map(<[f64]>::to_vec);
            fused::Affine { scale, shift }
        };
        let unit = |block: &Block<Parameter, ChannelAffine>| fused::Unit {
            stride: block.unit.stride,
            before: affine(&block.before),
            first: values(&block.first),
            slope: values(&block.slope),
            second: values(&block.second),
            after: affine(&block.after),
            excitation: block.excitation.as_ref().map(|pair| pair.each_ref().map(values)),
            shortcut: block.shortcut.as_ref().map(|(weight, norm)| (values(weight), affine(norm))),
        };
        let parts = &self.0;
        ResidualNetwork::new(&fused::Parts {
            size: SIZE,
            first: values(&parts.first),
            first_norm: affine(&parts.first_norm),
            first_slope: values(&parts.first_slope),
            units: parts.blocks.iter().map(unit).collect(),
            last_norm: affine(&parts.last_norm),
            projection: parts.projection.each_ref().map(values),
            embedding_norm: affine(&parts.embedding_norm),
        })
    }
}

/// (C) as (1, C, 1, 1).
fn per_channel(parameter: Parameter) -> Parameter {
    Parameter { shape: vec![1, parameter.values.len(), 1, 1], ..parameter }
}

/// An [`IrNet`] on a context.
#[derive(Clone, Debug)]
pub struct BoundIrNet<T>(Parts<T, BoundAffine<T>>);

impl<T: Tensor> BoundIrNet<T> {
    /// The embeddings of faces: (N, 3, 112, 112) to (N, 512), each of length 1.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for images of another shape.
    pub fn embed(&self, faces: &T) -> Result<T> {
        let shape = faces.shape();
        check_image("ArcFace", "image", &shape, 3)?;
        if shape[2..] != [SIZE, SIZE] {
            return Err(Error::ShapeRule {
                operation: "ArcFace",
                argument: "image",
                expected: format!("{SIZE}×{SIZE} pixels"),
                got: shape,
            });
        }
        let parts = &self.0;
        let mut x = faces.convolve(&parts.first, Conv2d::padded(1))?;
        x = prelu(&parts.first_norm.forward(&x)?, &parts.first_slope)?;
        for block in &parts.blocks {
            x = block.forward(&x)?;
        }
        x = parts.last_norm.forward(&x)?.reshape(&[shape[0], 512 * LAST * LAST])?;
        let [weight, bias] = &parts.projection;
        x = x.matmul(weight, false, true)?.add(&bias.reshape(&[1, EMBEDDING])?)?;
        x = parts.embedding_norm.forward(&x.reshape(&[shape[0], EMBEDDING, 1, 1])?)?.reshape(&[shape[0], EMBEDDING])?;
        normalised(&x)
    }
}

impl<T: Tensor> Block<T, BoundAffine<T>> {
    fn forward(&self, x: &T) -> Result<T> {
        let stride = self.unit.stride;
        let past = match &self.shortcut {
            Some((weight, norm)) => norm.forward(&x.convolve(weight, Conv2d::default().strided(stride))?)?,
            None if stride == 1 => x.clone(),
            None => x.max_pool2d(Pool2d { size: [1; 2], stride: [stride; 2], padding: [0; 2], ceil_mode: false })?,
        };
        let inner = self.before.forward(x)?.convolve(&self.first, Conv2d::padded(1))?;
        let inner = prelu(&inner, &self.slope)?.convolve(&self.second, Conv2d::padded(1).strided(stride))?;
        let mut inner = self.after.forward(&inner)?;
        if let Some([squeeze, expand]) = &self.excitation {
            let gate = inner.mean(&[2, 3], true)?.convolve(squeeze, Conv2d::default())?.unary(Unary::Relu)?;
            inner = inner.mul(&gate.convolve(expand, Conv2d::default())?.unary(Unary::Sigmoid)?)?;
        }
        inner.add(&past)
    }
}

/// x where x > 0, else slope·x, with a slope per channel.
fn prelu<T: Tensor>(x: &T, slope: &T) -> Result<T> {
    x.if_not_positive(&x.mul(slope)?, x)
}
