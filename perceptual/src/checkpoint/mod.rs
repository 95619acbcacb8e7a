//! Parameters of pretrained networks, read from the files in which they are published.
//!
//! [`Checkpoint::open`] tells the format by the file's content, never by its name:
//!
//! | format | written by |
//! |---|---|
//! | safetensors | Hugging Face |
//! | zip `.pth` | `torch.save` since 1.6 |
//! | legacy `.pth` | `torch.save` from 0.1.10 to 1.5 |
//! | tar `.pth` | `torch.save` before |
//! | TorchScript | `torch.jit.save`, scripted and traced (OpenAI's CLIP) |
//!
//! A training program's dictionary is opened to the one of parameters inside (`state_dict`, `model`, `params_ema`, …),
//! and the prefix `module.` that a parallel wrapper puts before every name is taken off.
//!
//! A file is data, and may be hostile: nothing in it is executed, pickles may use only the names that tensors need,
//! every length is checked against the file before memory is taken for it, and whatever does not fit is an
//! [`Error::Format`]. Tensors stay in the file until they are asked for, so the file must not be changed while a
//! checkpoint of it is in use.
//!
//! The readers are this crate's own, though crates for some of these formats exist: they hold a name, a layout and a
//! place in the file for each tensor, and one small pickle machine serves all four PyTorch formats with one table of
//! permitted names and one budget of steps. The crate `safetensors` wants the whole file in memory or mapped. The crate
//! `pytorch-reader` (0.22.1), given the files of `tests/checkpoint_hostile.rs`, panicked at none, but it keeps a call of
//! `os.system` beside a tensor as an opaque value where this module has to refuse the file, takes 213 MB for a pickle of
//! 862 bytes and 200 MB for an archive of 65 kB, reads an archive of which two entries overlap, and does
//! not read TorchScript. `fuzz/` has a target per format, and `tests/it/checkpoint.rs` and `tests/it/formats.rs` compare with
//! files that PyTorch wrote.

mod entry;
mod legacy_pth;
mod pickle;
mod safetensors;
mod seeded;
mod source;
mod state_dict;
mod storages;
mod tar_pth;
mod torchscript;
mod zip;
mod zip_pth;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use image_losses_core::{Error, Result};

pub use entry::{Dtype, Entry};
use source::{Named, Read, Region, refuse, shown};

/// How many of a file's first bytes tell its format.
const HEAD: u64 = 512;
/// The suffix of a counter that batch norm keeps and evaluation never reads.
const BATCH_COUNT: &str = "num_batches_tracked";

/// What a checkpoint was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// `torch.save` since 1.6.
    Zip,
    /// `torch.save` from 0.1.10 to 1.5.
    Legacy,
    /// `torch.save` before 0.1.10.
    Tar,
    /// `torch.jit.save`.
    TorchScript,
    /// No file: [`Checkpoint::from_entries`].
    Memory,
    /// No file: [`Checkpoint::seeded`].
    Seeded,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors",
            Format::Zip => "zip .pth",
            Format::Legacy => "legacy .pth",
            Format::Tar => "tar .pth",
            Format::TorchScript => "TorchScript",
            Format::Memory => "memory",
            Format::Seeded => "seeded",
        })
    }
}

/// What [`Checkpoint::load`] makes of tensors that the network does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strictness {
    /// They are an error.
    #[default]
    Strict,
    /// They are passed over, as when a network uses a part of a larger one. What is missing is an error still.
    IgnoreUnexpected,
}

/// What lay around the tensors of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wrapping {
    /// The dictionaries that were opened, from the outermost: `["state_dict"]`. A training program keeps the parameters
    /// in one of them.
    pub dictionaries: Vec<String>,
    /// The prefix that was taken off every name: `module.` once or more.
    pub prefix: String,
    /// What else a file held, such as the epoch and the optimizer's state: the first 64 keys, shortened, in backticks.
    pub passed_over: Vec<String>,
}

/// Named tensors, in the order of the file.
///
/// # Example
/// ```
/// use image_losses_perceptual::checkpoint::{Checkpoint, Strictness};
///
/// let needed = [("features.0.weight".to_owned(), vec![2, 1]), ("features.0.bias".to_owned(), vec![2])];
/// let entries = [
///     ("module.features.0.weight".to_owned(), vec![2, 1], vec![1.0, 2.0]),
///     ("module.features.0.bias".to_owned(), vec![2], vec![0.5, -0.5]),
/// ];
/// let checkpoint = Checkpoint::from_entries(entries)?;
/// let weights = checkpoint.load("a network", &needed, Strictness::Strict)?;
/// assert_eq!(weights["features.0.bias"], [0.5, -0.5]);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    wrapping: Wrapping,
    entries: Named<Entry>,
    positions: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens a file of any of the formats above.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is none of the formats, is broken, holds no tensors
    /// or holds something that tensors have no need of.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let region = Region::file(path).map_err(|error| Error::io(path, &error))?;
        Checkpoint::from_region(path, &region)
    }

    /// Reads the contents of a file that is in memory already; `name` stands for it in messages.
    ///
    /// # Errors
    /// As [`open`](Checkpoint::open).
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Checkpoint> {
        let name = name.into();
        Checkpoint::from_region(&name, &Region::memory(&name, bytes))
    }

    /// A checkpoint of `(name, shape, values)`.
    ///
    /// # Errors
    /// [`Error::Length`] if values do not fill their shape, [`Error::Format`] if a name comes twice.
    pub fn from_entries(entries: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>) -> Result<Checkpoint> {
        let entry = |(name, shape, values): (String, Vec<usize>, Vec<f32>)| match entry::count(&shape) {
            Some(elements) if elements == values.len() => Ok((name, Entry::values(shape, values))),
            elements => Err(Error::Length {
                operation: "Checkpoint::from_entries",
                shape,
                expected: elements.unwrap_or(usize::MAX),
                got: values.len(),
            }),
        };
        let entries = entries.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
        Checkpoint::new(Path::new("<memory>"), Format::Memory, entries, Wrapping::default())
    }

    /// Made-up parameters for the tensors of `architecture`, for tests: the same for the same names and seed.
    ///
    /// Each tensor is filled row-major from its own SplitMix64 stream, whose state starts at
    /// `fnv1a64(name) XOR seed`; a draw is `u = (z >> 40) · 2⁻²⁴`.
    ///
    /// | tensor | value |
    /// |---|---|
    /// | rank 2 and more | `(2u - 1) · sqrt(6 / fan_in)`, `fan_in` the product of all extents but the first |
    /// | rank 1, `…running_var` | `0.5 + u` |
    /// | rank 1, `…weight` | `0.5 + 0.5u` |
    /// | rank 1 else | `0.1 · (2u - 1)` |
    /// | rank 0 | `ln(1 / 0.07)`, CLIP's initial temperature |
    /// | `…num_batches_tracked` | 0 |
    ///
    /// # Errors
    /// [`Error::Format`] if a name comes twice or a shape has more elements than can be counted.
    pub fn seeded(architecture: &[(String, Vec<usize>)], seed: u64) -> Result<Checkpoint> {
        let path = Path::new("<seeded>");
        let entry = |(name, shape): &(String, Vec<usize>)| match entry::count(shape) {
            Some(_) => Ok((name.clone(), Entry::seeded(shape.clone(), seeded::Stream::new(name, seed)))),
            None => refuse(format!("the shape {shape:?} has more elements than can be counted")),
        };
        let entries = architecture.iter().map(entry).collect::<Read<_>>().map_err(|fault| fault.at(path))?;
        Checkpoint::new(path, Format::Seeded, entries, Wrapping::default())
    }

    fn from_region(path: &Path, file: &Region) -> Result<Checkpoint> {
        let (format, entries, wrapping) = read(file).map_err(|fault| fault.at(path))?;
        Checkpoint::new(path, format, entries, wrapping)
    }

    fn new(path: &Path, format: Format, mut entries: Named<Entry>, mut wrapping: Wrapping) -> Result<Checkpoint> {
        if format != Format::Seeded {
            wrapping.prefix = state_dict::strip_prefixes(&mut entries);
        }
        let mut positions = HashMap::with_capacity(entries.len());
        for (position, (name, _)) in entries.iter().enumerate() {
            if positions.insert(name.clone(), position).is_some() {
                let message = format!("the tensor {} comes twice", shown(name));
                return Err(Error::Format { path: path.to_owned(), message });
            }
        }
        Ok(Checkpoint { path: path.to_owned(), format, wrapping, entries, positions })
    }

    /// The file, or a name in angle brackets.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was read from.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What lay around the tensors: dictionaries that were opened, a prefix that was taken off, what was passed over.
    pub fn wrapping(&self) -> &Wrapping {
        &self.wrapping
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.positions.get(name).and_then(|&position| self.entries.get(position)).map(|(_, entry)| entry)
    }

    /// All names and tensors, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The tensors that `network` needs, by name, as `f32` in row-major order.
    ///
    /// Names, shapes and types are checked before anything is read. Every needed tensor must be there in the shape
    /// needed and in a floating-point type; tensors beyond them are an error unless `strictness` allows them. The
    /// counters `…num_batches_tracked` are never missing, and never too many.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] with all that is wrong at once, [`Error::Io`] if the file cannot be read.
    pub fn load(
        &self,
        network: &str,
        needed: &[(String, Vec<usize>)],
        strictness: Strictness,
    ) -> Result<BTreeMap<String, Vec<f32>>> {
        let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
        let mut wanted = BTreeMap::new();
        for (name, shape) in needed {
            let is_count = name.ends_with(BATCH_COUNT);
            match self.get(name) {
                None if is_count => {}
                None => missing.push(name.clone()),
                Some(entry) if entry.shape() != shape => {
                    mismatched.push(format!("{name}: needs {shape:?}, has {:?}", entry.shape()));
                }
                Some(entry) if !is_count && !entry.dtype().is_float() => {
                    mismatched.push(format!("{name}: needs a floating-point type, has {}", entry.dtype()));
                }
                Some(entry) => drop(wanted.insert(name.as_str(), entry)),
            }
        }
        let unexpected: Vec<_> = match strictness {
            Strictness::IgnoreUnexpected => Vec::new(),
            Strictness::Strict => {
                let known: HashSet<_> = needed.iter().map(|(name, _)| name.as_str()).collect();
                let names = self.entries.iter().map(|(name, _)| name);
                names.filter(|name| !name.ends_with(BATCH_COUNT) && !known.contains(name.as_str())).cloned().collect()
            }
        };
        if !(missing.is_empty() && unexpected.is_empty() && mismatched.is_empty()) {
            return Err(self.mismatch(network, missing, unexpected, mismatched));
        }
        wanted.into_iter().map(|(name, entry)| Ok((name.to_owned(), entry.to_f32()?))).collect()
    }

    fn mismatch(&self, network: &str, missing: Vec<String>, unexpected: Vec<String>, mismatched: Vec<String>) -> Error {
        Error::CheckpointMismatch {
            path: self.path.clone(),
            network: network.to_owned(),
            missing,
            unexpected,
            mismatched,
        }
    }
}

/// Recognises the format and reads everything but the elements.
fn read(file: &Region) -> Read<(Format, Named<Entry>, Wrapping)> {
    let head = file.bytes(0, file.len().min(HEAD), "the first bytes")?;
    let (format, entries, wrapping) = match head.as_slice() {
        [] => return refuse("an empty file"),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            let (entries, wrapping, dialect) = zip_pth::read(file)?;
            let format = if dialect == pickle::Dialect::TorchScript { Format::TorchScript } else { Format::Zip };
            (format, entries, wrapping)
        }
        // A length, and the JSON that it measures.
        [_, _, _, _, _, _, _, _, b'{', ..] => (Format::Safetensors, safetensors::read(file)?, Wrapping::default()),
        _ if head.get(tar_pth::MAGIC_AT..).is_some_and(|at| at.starts_with(tar_pth::MAGIC)) => {
            let (entries, wrapping) = tar_pth::read(file)?;
            (Format::Tar, entries, wrapping)
        }
        [0x80, 2..=5, ..] => {
            let (entries, wrapping) = legacy_pth::read(file)?;
            (Format::Legacy, entries, wrapping)
        }
        [b'<', ..] => return refuse("a web page, not a checkpoint: the download failed"),
        _ if head.starts_with(b"version https://git-lfs") => {
            return refuse("a pointer to a file in Git LFS, not the file");
        }
        _ => return refuse("neither safetensors nor written by torch.save or torch.jit.save"),
    };
    if entries.is_empty() { refuse("the file holds no tensors") } else { Ok((format, entries, wrapping)) }
}
