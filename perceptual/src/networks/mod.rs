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
pub(crate) use clip::HEAD;
#[cfg(feature = "clip")]
pub use clip::{BoundClip, Clip, ClipActivation, ClipShape, Tokens};
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

/// A network that lies somewhere in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The network's name.
    pub network: String,
    /// The value of the option `prefix` that reads it.
    pub prefix: String,
}

/// The networks, of those compiled in, that lie in a file under another name than their own: under a key or prefix, or
/// without a part that all their names share. Nothing is read but names, shapes and types.
///
/// ```
/// use image_losses_perceptual::checkpoint::Checkpoint;
/// use image_losses_perceptual::networks::{VggType, located};
///
/// let architecture = VggType::Vgg16.architecture().into_iter().map(|(name, shape)| (format!("model.{name}"), shape));
/// let found = located(&Checkpoint::seeded(&architecture.collect::<Vec<_>>(), 0)?);
/// assert_eq!((found[0].network.as_str(), found[0].prefix.as_str()), ("vgg16", "model"));
/// # Ok::<(), image_losses_core::Error>(())
/// ```
pub fn located(checkpoint: &Checkpoint) -> Vec<Located> {
    let mut found = Vec::new();
    for (network, needed, beside) in known() {
        for prefix in checkpoint.places(&needed) {
            let fits = |part| parameters::compare(&part, network.clone(), &needed, beside).is_exact();
            if checkpoint.at(&prefix, &needed).is_ok_and(fits) {
                found.push(Located { network: network.clone(), prefix });
            }
        }
    }
    #[cfg(feature = "clip")]
    for prefix in clip::prefixes(checkpoint) {
        let fits = checkpoint.under(&prefix).ok().as_ref().and_then(compared_with_clip);
        found.extend(fits.filter(Fit::is_exact).map(|fit| Located { network: fit.network, prefix }));
    }
    found
}

/// The comparison with CLIP of the checkpoint's own size, in OpenAI's layout.
#[cfg(feature = "clip")]
fn compared_with_clip(checkpoint: &Checkpoint) -> Option<Fit> {
    let shape = ClipShape::of(checkpoint).ok()?;
    let names = ["ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"];
    let published = names.into_iter().find(|name| ClipShape::published(name) == Some(shape));
    let name = format!("CLIP {}", published.unwrap_or("of another size"));
    let checkpoint = clip::in_openai_layout(checkpoint).ok()?;
    Some(parameters::compare(&checkpoint, name, &shape.architecture(), &clip::BESIDE))
}

/// The comparison with every network, in this module's order.
fn compared(checkpoint: &Checkpoint) -> Vec<Fit> {
    let compare = |(name, needed, beside): Known| parameters::compare(checkpoint, name, &needed, beside);
    #[cfg_attr(not(feature = "clip"), expect(unused_mut, reason = "CLIP alone is added"))]
    let mut compared: Vec<Fit> = known().into_iter().map(compare).collect();
    #[cfg(feature = "clip")]
    compared.extend(compared_with_clip(checkpoint));
    compared
}

/// A network's name, what it needs, and the beginnings of what may lie beside.
type Known = (String, Architecture, &'static [&'static str]);

/// Every network whose size its name tells.
fn known() -> Vec<Known> {
    #[cfg_attr(
        not(any(feature = "vgg", feature = "light-cnn", feature = "face-id")),
        expect(unused_mut, reason = "every network is a feature")
    )]
    let mut known: Vec<Known> = Vec::new();
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
    known
}
