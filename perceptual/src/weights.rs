//! Where the parameters of frozen networks come from: files the user has, never a download.

use std::path::{Path, PathBuf};

use image_losses_core::{Error, Result};

use crate::checkpoint::{Checkpoint, Format};
use crate::networks::Architecture;

/// The environment variable that names the weights directory.
pub const WEIGHTS_VARIABLE: &str = "IMAGE_LOSSES_WEIGHTS";

/// Endings a file may have that a configuration names without one.
const ENDINGS: [&str; 4] = ["safetensors", "pth", "pt", "pkl"];

/// Networks whose file torchvision publishes under another name, before the eight digits.
const PUBLISHED: [(&str, &str); 1] = [("alexnet", "alexnet-owt")];

/// Where a loss finds the parameters of its network.
///
/// [`Weights::default`] follows the loss's configuration (`pretrained`, `ir_se50_weights`, `clip_type`), which may say:
///
/// | configured | read |
/// |---|---|
/// | a path | that file; if it is relative and not there, the same below the weights directory |
/// | a URL, `torchvision://vgg19`, `ViT-B/32` | the file of that name in the weights directory |
/// | nothing | the name under which the network is published, in the weights directory |
/// | `seeded:7` | nothing: made-up parameters from the seed 7 ([`Checkpoint::seeded`]) |
///
/// A name without an ending is completed by `.safetensors`, `.pth`, `.pt` or `.pkl`, with or without the eight digits
/// that PyTorch's files carry (`vgg19-dcbb9e9d.pth`); AlexNet's is also found as torchvision publishes it
/// (`alexnet-owt-7be5be79.pth`). The weights directory is the given one, else that of the
/// environment variable `IMAGE_LOSSES_WEIGHTS`. Nothing is ever downloaded.
///
/// Where the network is a part of what the file holds, the option `prefix` names the part: `generator` for
/// `generator.features.0.weight` ([`Checkpoint::under`]); `image-losses weights FILE` tells it. Parts that the network's
/// names share (`features.`) may be missing there; `prefix: ""` is for a file that lacks nothing else. A seed makes the
/// parameters of the names with the prefix.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Weights {
    /// As the loss is configured.
    Configured {
        /// The weights directory; `None`: the environment variable's.
        directory: Option<PathBuf>,
    },
    /// This checkpoint, whatever is configured.
    Checkpoint(Checkpoint),
    /// Made-up parameters from a seed, whatever is configured: for tests.
    Seeded(u64),
}

impl Default for Weights {
    fn default() -> Self {
        Weights::Configured { directory: None }
    }
}

impl From<Checkpoint> for Weights {
    fn from(checkpoint: Checkpoint) -> Self {
        Weights::Checkpoint(checkpoint)
    }
}

impl Weights {
    /// As the loss is configured, with names looked up in `directory`.
    pub fn directory(directory: impl Into<PathBuf>) -> Self {
        Weights::Configured { directory: Some(directory.into()) }
    }

    /// The file that a configured name stands for, if it is there; names are looked up in `directory`, or else in the
    /// environment variable's.
    pub fn locate(name: &str, directory: Option<&Path>) -> Option<PathBuf> {
        let directory = directory.map(Path::to_owned).or_else(|| std::env::var_os(WEIGHTS_VARIABLE).map(PathBuf::from));
        let request = Request { owner: "weights", option: "name", configured: None, prefix: None, published: name };
        request.find(name, directory.as_deref()).ok().filter(|path| path.is_file())
    }

    /// The checkpoint, or the part of it that `prefix` names, for a network configured as `configured` (else the published name `published`); `architecture`
    /// is what a seed fills.
    pub(crate) fn open(
        &self,
        request: &Request<'_>,
        architecture: impl FnOnce() -> Result<Architecture>,
    ) -> Result<Checkpoint> {
        let part = |checkpoint: Checkpoint, architecture: Architecture| match request.prefix {
            // What a seed made is the network alone.
            Some(prefix) if checkpoint.format() != Format::Seeded => checkpoint.at(prefix, &architecture),
            _ => Ok(checkpoint),
        };
        let seeded = |architecture: Architecture, seed| {
            Checkpoint::seeded_under(request.prefix.unwrap_or_default(), &architecture, seed)
        };
        let directory = match self {
            Weights::Checkpoint(checkpoint) => return part(checkpoint.clone(), architecture()?),
            Weights::Seeded(seed) => return seeded(architecture()?, *seed),
            Weights::Configured { directory } => directory.clone(),
        };
        let name = request.configured.unwrap_or(request.published);
        if let Some(seed) = name.strip_prefix("seeded") {
            let seed = seed.strip_prefix(':').and_then(|seed| seed.parse().ok());
            let seed = seed.ok_or_else(|| request.invalid("`seeded:` and a whole number, as `seeded:7`", name))?;
            return seeded(architecture()?, seed);
        }
        let directory = directory.or_else(|| std::env::var_os(WEIGHTS_VARIABLE).map(PathBuf::from));
        part(Checkpoint::open(request.find(name, directory.as_deref())?)?, architecture()?)
    }
}

/// The name that a checkpoint is looked up by: the configured one, else the published.
#[cfg(any(feature = "vgg", feature = "light-cnn", feature = "face-id"))]
pub(crate) fn named(configured: Option<&str>, published: &str) -> String {
    configured.unwrap_or(published).to_owned()
}

/// What a loss asks [`Weights`] for.
pub(crate) struct Request<'a> {
    /// The loss.
    pub(crate) owner: &'static str,
    /// The option that configures the file.
    pub(crate) option: &'static str,
    /// What it says, if anything.
    pub(crate) configured: Option<&'a str>,
    /// The part of the file, if not the whole.
    pub(crate) prefix: Option<&'a str>,
    /// The name under which the network is published.
    pub(crate) published: &'a str,
}

impl Request<'_> {
    fn invalid(&self, expected: impl Into<String>, got: &str) -> Error {
        Error::option(self.owner, self.option, expected, got)
    }

    /// The file that `name` stands for.
    fn find(&self, name: &str, directory: Option<&Path>) -> Result<PathBuf> {
        let is_url = name.contains("://");
        let path = Path::new(name);
        if !is_url && (path.is_absolute() || path.is_file()) {
            return Ok(path.to_owned());
        }
        let Some(directory) = directory else {
            let where_to = format!("a file, or a name in a weights directory ({WEIGHTS_VARIABLE} names one)");
            return Err(self.invalid(where_to, name));
        };
        if !is_url && directory.join(path).is_file() {
            return Ok(directory.join(path));
        }
        // A URL's last part; of a published name such as `ViT-B/32` all, as OpenAI names its file.
        let file = match name.split_once("://") {
            Some((_, rest)) => rest.split(['?', '#']).next().unwrap_or_default().rsplit('/').next().unwrap_or_default(),
            None => name,
        };
        let file = file.replace('/', "-");
        if file.is_empty() {
            return Err(self.invalid("a file's name at the end", name));
        }
        if directory.join(&file).is_file() {
            return Ok(directory.join(file));
        }
        if let Some(found) = ENDINGS.iter().map(|end| directory.join(format!("{file}.{end}"))).find(|at| at.is_file()) {
            return Ok(found);
        }
        let published = PUBLISHED.iter().find(|(name, _)| *name == file).map(|(_, published)| *published);
        let hashed = |entry: &Path| {
            let known = entry.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known));
            let stem = entry.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let behind = |name: &str| stem.strip_prefix(name)?.strip_prefix('-');
            let digits = published.and_then(behind).or_else(|| behind(&file));
            known && digits.is_some_and(|digits| digits.len() == 8 && digits.chars().all(|d| d.is_ascii_hexdigit()))
        };
        let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
            .map_err(|error| Error::io(directory, &error))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|entry| hashed(entry))
            .collect();
        found.sort();
        found.into_iter().next().ok_or_else(|| Error::Io {
            path: directory.join(&file),
            message: format!("{}: no such file, as the option `{}` names it", self.owner, self.option),
        })
    }
}
