//! The frozen networks, engine-neutral: parameters read once, then bound to as many contexts as wanted.
//!
//! A network is loaded from a [`Checkpoint`] and holds its parameters as shared `f32` values; `bind` turns them into
//! tensors of an engine: once per process on an eager engine, once per graph on a lazy one. Networks are evaluated as
//! trained and never train: batch norm uses its running statistics, folded to a factor and a summand per channel, and
//! no gradient flows to a parameter.

#[cfg(any(feature = "face-id", feature = "clip"))]
mod embedding;
mod parameters;
mod sequential;

#[cfg(feature = "lpips")]
mod alex_net;
#[cfg(feature = "clip")]
mod clip;
#[cfg(feature = "face-id")]
mod ir_net;
#[cfg(feature = "light-cnn")]
mod light_cnn;
#[cfg(feature = "lpips")]
mod squeeze_net;
#[cfg(feature = "vgg")]
mod vgg;

#[cfg(feature = "lpips")]
pub use alex_net::AlexNet;
#[cfg(feature = "clip")]
pub use clip::{BoundClip, Clip, ClipShape, Tokens};
#[cfg(feature = "face-id")]
pub use ir_net::{BoundIrNet, IrDepth, IrMode, IrNet};
#[cfg(feature = "light-cnn")]
pub use light_cnn::LightCnn;
pub use parameters::Architecture;
#[cfg(feature = "lpips")]
pub use squeeze_net::SqueezeNet;
pub use sequential::BoundSequential;
#[cfg(feature = "vgg")]
pub use vgg::{Vgg, VggType};
#[cfg(feature = "vgg")]
pub(crate) use vgg::imagenet_normalisation;
pub(crate) use parameters::{BoundAffine, ChannelAffine, Parameter, Parameters};
pub(crate) use sequential::{Layer, Sequential, check_image};
