//! The frozen networks, engine-neutral: parameters read once, then bound to as many contexts as wanted.
//!
//! A network is loaded from a [`Checkpoint`] and holds its parameters as shared `f32` values; `bind` turns them into
//! tensors of an engine: once per process on an eager engine, once per graph on a lazy one. Networks are evaluated as
//! trained and never train: batch norm uses its running statistics, folded to a factor and a summand per channel, and
//! no gradient flows to a parameter.

#[cfg(any(feature = "face-id", feature = "clip"))]
mod embedding;
// Building blocks that networks share: with few networks some of them have no use.
#[cfg_attr(not(all(feature = "vgg", feature = "light-cnn", feature = "face-id")), allow(dead_code, unused_imports))]
mod parameters;
#[cfg_attr(not(all(feature = "vgg", feature = "light-cnn", feature = "face-id")), allow(dead_code, unused_imports))]
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
#[cfg_attr(
    not(all(feature = "vgg", feature = "light-cnn", feature = "face-id")),
    allow(dead_code, unused_imports)
)]
pub(crate) use parameters::{BoundAffine, ChannelAffine, Parameter, Parameters};
pub use sequential::BoundSequential;
#[cfg_attr(
    not(all(feature = "vgg", feature = "light-cnn", feature = "face-id")),
    allow(dead_code, unused_imports)
)]
pub(crate) use sequential::{Layer, Sequential, check_image};
#[cfg(feature = "lpips")]
pub use squeeze_net::SqueezeNet;
#[cfg(feature = "vgg")]
pub(crate) use vgg::imagenet_normalisation;
#[cfg(feature = "vgg")]
pub use vgg::{Vgg, VggType};

use std::cmp::Reverse;

use crate::checkpoint::Checkpoint;

/// The names of the networks, of those compiled in, that a checkpoint holds all parameters of. Nothing is read but names,
/// shapes and types.
///
/// ```
/// use image_losses_perceptual::checkpoint::Checkpoint;
/// use image_losses_perceptual::networks::{VggType, fitting};
///
/// let checkpoint = Checkpoint::seeded(&VggType::Vgg16.architecture(), 0)?;
/// assert_eq!(fitting(&checkpoint), ["vgg16"]);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
pub fn fitting(checkpoint: &Checkpoint) -> Vec<String> {
    compared(checkpoint).into_iter().filter(Fit::is_exact).map(|fit| fit.network).collect()
}

/// How the tensors of a checkpoint compare with those that a network needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// The network's name.
    pub network: String,
    /// How many of its tensors are there, in the shape and in a type that it needs.
    pub matched: usize,
    /// The tensors that are not there.
    pub missing: Vec<String>,
    /// The tensors that it does not know. A classifier beside the features is known.
    pub unexpected: Vec<String>,
    /// The tensors that are of another shape or are no floating-point numbers, with what is needed and what is there.
    pub mismatched: Vec<String>,
}

impl Fit {
    /// Whether everything is there, and nothing else.
    pub fn is_exact(&self) -> bool {
        self.faults() == 0
    }

    fn faults(&self) -> usize {
        self.missing.len() + self.unexpected.len() + self.mismatched.len()
    }
}

/// How a checkpoint compares with every network, of those compiled in, that it shares a tensor's name with. Those
/// that fit come first, then those that find most of what they need, with the fewest faults first among equals. Nothing
/// is read but names, shapes and types.
///
/// ```
/// use image_losses_perceptual::checkpoint::Checkpoint;
/// use image_losses_perceptual::networks::{VggType, fits};
///
/// let mut architecture = VggType::Vgg16.architecture();
/// architecture.retain(|(name, _)| name != "features.28.bias");
/// let closest = fits(&Checkpoint::seeded(&architecture, 0)?).remove(0);
/// assert_eq!(closest.network, "vgg16");
/// assert_eq!(closest.missing, ["features.28.bias"]);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
pub fn fits(checkpoint: &Checkpoint) -> Vec<Fit> {
    let mut fits = compared(checkpoint);
    fits.retain(|fit| fit.matched + fit.mismatched.len() > 0);
    // Stable: of equally close ones, the first in the order of this module.
    fits.sort_by_key(|fit| (!fit.is_exact(), Reverse(fit.matched), fit.faults()));
    fits
}

/// The comparison with every network, in this module's order.
fn compared(checkpoint: &Checkpoint) -> Vec<Fit> {
    #[cfg_attr(
        not(any(feature = "vgg", feature = "light-cnn", feature = "face-id", feature = "clip")),
        expect(unused_mut, reason = "every network is a feature")
    )]
    let mut known: Vec<(String, Architecture, &[&str])> = Vec::new();
    #[cfg(feature = "vgg")]
    known.extend(VggType::ALL.map(|kind| (kind.name().into(), kind.architecture(), &["classifier."][..])));
    #[cfg(feature = "light-cnn")]
    known.extend([("LightCNN".into(), LightCnn::architecture(), &["classifier."][..])]);
    #[cfg(feature = "face-id")]
    for mode in [IrMode::Ir, IrMode::IrSe] {
        for depth in [IrDepth::L50, IrDepth::L100, IrDepth::L152] {
            for affine in [false, true] {
                known.push((IrNet::name(depth, mode).into(), IrNet::architecture(depth, mode, affine), &[]));
            }
        }
    }
    #[cfg(feature = "lpips")]
    {
        known.push(("AlexNet".into(), AlexNet::architecture(), &["classifier."]));
        known.push(("SqueezeNet".into(), SqueezeNet::architecture(), &["classifier."]));
        for net in [crate::LpipsNet::Alex, crate::LpipsNet::Vgg, crate::LpipsNet::Squeeze] {
            let beside: &[&str] = &["lins.", "net.", "scaling_layer."];
            known.push((format!("linear layers of LPIPS for {net:?}"), net.linear_architecture(), beside));
        }
        known.push(("weights of DISTS".into(), crate::Dists::weights_architecture(), &["stage", "mean", "std"]));
    }
    #[cfg(feature = "clip")]
    if let Ok(shape) = ClipShape::of(checkpoint) {
        let names = ["ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"];
        let published = names.into_iter().find(|name| ClipShape::published(name) == Some(shape));
        known.push((format!("CLIP {}", published.unwrap_or("of another size")), shape.architecture(), &clip::BESIDE));
    }
    known.into_iter().map(|(name, needed, beside)| parameters::compare(checkpoint, name, &needed, beside)).collect()
}
