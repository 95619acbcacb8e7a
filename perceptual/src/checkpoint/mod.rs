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
//! | index of shards (`*.index.json`) | Hugging Face; the shards beside it are read |
//!
//! A training program's dictionary is opened to the one of parameters inside (`state_dict`, `model`, `params_ema`, …),
//! and the parts that wrappers put into names (`module.`, `_orig_mod.`, …) are taken off. A network that lies elsewhere
//! is read through [`Checkpoint::under`], which is what the option `prefix` of the losses does.
//!
//! A file is data, and may be hostile: nothing in it is executed, every length is checked against the file before memory
//! is taken for it, and whatever does not fit is an [`Error::Format`]. What else a training program saved (counters,
//! arrays of NumPy, objects of its own classes) is read past: an unknown class is a name without a meaning, and its
//! instances are neither made nor kept. Where such a value stands in the place of a tensor that a network needs, the
//! file does not fit the network. A file whose names run programs (`os.system`) is refused as a whole. Tensors stay in the file until they are asked for, so the file must not be changed while a
//! checkpoint of it is in use.
//!
//! The readers are this crate's own, though crates for some of these formats exist: they hold a name, a layout and a
//! place in the file for each tensor, and one small pickle machine serves all four PyTorch formats with one table of
//! permitted names and one budget of steps. The crate `safetensors` wants the whole file in memory or mapped. The crate
//! `pytorch-reader` (0.22.1), given the files of `tests/checkpoint_hostile.rs`, panicked at none, but it reads a file that
//! calls `os.system` beside a tensor, takes 213 MB for a pickle of
//! 862 bytes and 200 MB for an archive of 65 kB, reads an archive of which two entries overlap, and does
//! not read TorchScript. `fuzz/` has a target per format, and `tests/it/checkpoint.rs` and `tests/it/formats.rs` compare with
//! files that PyTorch wrote.

mod entry;
mod index;
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
use std::sync::Arc;

use image_losses_core::{Error, Result};

pub use entry::{Dtype, Entry};
use source::{Named, Read, Region, refuse, shown};
use state_dict::Contents;

/// How many of a file's first bytes tell its format.
const HEAD: u64 = 512;
/// The suffix of a counter that batch norm keeps and evaluation never reads.
const BATCH_COUNT: &str = "num_batches_tracked";
/// How many places of a network are looked at, and how many names a message lists.
const MAX_PLACES: usize = 16;

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
    /// The parts that wrappers had put into names, wherever they stood, and that were taken off: `module.`,
    /// `_orig_mod.`; all those of the name that had the most.
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
    /// Tensors outside the dictionary that was opened, by their names from the file's root.
    beside: Arc<Named<Entry>>,
    /// What stands in the place of a tensor and is not read: its type or class.
    unread: Arc<HashMap<String, Arc<str>>>,
}

impl Checkpoint {
    /// Opens a file of any of the formats above.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is none of the formats, is broken, is hostile or holds
    /// no tensors.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let region = Region::file(path).map_err(|error| Error::io(path, &error))?;
        match index::shards(&region).map_err(|fault| fault.at(path))? {
            Some(shards) => Checkpoint::joined(path, &shards),
            None => Checkpoint::from_region(path, &region),
        }
    }

    /// The tensors that an index finds in the shards beside it.
    fn joined(path: &Path, shards: &index::Shards) -> Result<Checkpoint> {
        let mut all: Option<(Format, Contents<Entry>)> = None;
        for (file, names) in shards {
            let shard = path.with_file_name(file);
            let region = Region::file(&shard).map_err(|error| Error::io(&shard, &error))?;
            let (format, mut contents) = read(&region).map_err(|fault| fault.at(&shard))?;
            contents.tensors.retain(|(name, _)| names.contains(name));
            contents.unread.retain(|(name, _)| names.contains(name));
            match &mut all {
                None => all = Some((format, contents)),
                Some((_, all)) => {
                    all.tensors.append(&mut contents.tensors);
                    all.unread.append(&mut contents.unread);
                }
            }
        }
        match all {
            Some((format, contents)) => Checkpoint::new(path, format, contents),
            None => Err(Error::Format { path: path.to_owned(), message: "an index without shards".into() }),
        }
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
        Checkpoint::new(Path::new("<memory>"), Format::Memory, Contents::plain(entries))
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
        Checkpoint::seeded_under("", architecture, seed)
    }

    /// The tensors that a seed gives to the names under a prefix, without it.
    pub(crate) fn seeded_under(prefix: &str, architecture: &[(String, Vec<usize>)], seed: u64) -> Result<Checkpoint> {
        let path = Path::new("<seeded>");
        let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
        let key = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        let entry = |(name, shape): &(String, Vec<usize>)| match entry::count(shape) {
            Some(_) => Ok((name.clone(), Entry::seeded(shape.clone(), seeded::Stream::new(&key(name), seed)))),
            None => refuse(format!("the shape {shape:?} has more elements than can be counted")),
        };
        let entries = architecture.iter().map(entry).collect::<Read<_>>().map_err(|fault| fault.at(path))?;
        Checkpoint::new(path, Format::Seeded, Contents::plain(entries))
    }

    fn from_region(path: &Path, file: &Region) -> Result<Checkpoint> {
        let (format, contents) = read(file).map_err(|fault| fault.at(path))?;
        Checkpoint::new(path, format, contents)
    }

    fn new(path: &Path, format: Format, contents: Contents<Entry>) -> Result<Checkpoint> {
        let Contents { mut tensors, mut beside, mut unread, mut wrapping } = contents;
        if format != Format::Seeded {
            wrapping.prefix = state_dict::strip_wrappers(&mut tensors);
            state_dict::strip_wrappers(&mut beside);
            state_dict::strip_wrappers(&mut unread);
        }
        let mut positions = HashMap::with_capacity(tensors.len());
        for (position, (name, _)) in tensors.iter().enumerate() {
            if positions.insert(name.clone(), position).is_some() {
                let message = format!("the tensor {} comes twice", shown(name));
                return Err(Error::Format { path: path.to_owned(), message });
            }
        }
        let (path, beside, unread) = (path.to_owned(), Arc::new(beside), Arc::new(unread.into_iter().collect()));
        Ok(Checkpoint { path, format, wrapping, entries: tensors, positions, beside, unread })
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

    /// Tensors that lie elsewhere in the file than in the dictionary that was opened, by their names from the file's root:
    /// another network's, the optimizer's.
    pub fn beside(&self) -> impl ExactSizeIterator<Item = (&str, &Entry)> {
        self.beside.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The names in a tensor's place whose value is not read, sorted, each with its type or class: an element type such
    /// as `torch.float8_e4m3fn`, an object of another program.
    pub fn unread(&self) -> Vec<(&str, &str)> {
        let mut unread: Vec<_> = self.unread.iter().map(|(name, class)| (name.as_str(), &**class)).collect();
        unread.sort_unstable();
        unread
    }

    /// The tensors whose names lie under `prefix`, without it: `generator` for `generator.conv.weight`. They are looked
    /// for in the dictionary that was opened, then from the file's root. The empty prefix gives the checkpoint as it is.
    ///
    /// ```
    /// use image_losses_perceptual::checkpoint::Checkpoint;
    ///
    /// let entries = [("g_ema.conv.bias".to_owned(), vec![1], vec![2.0]), ("d.bias".to_owned(), vec![1], vec![3.0])];
    /// let generator = Checkpoint::from_entries(entries)?.under("g_ema")?;
    /// assert_eq!(generator.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["conv.bias"]);
    /// # Ok::<(), image_losses_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] where no tensor's name lies under it.
    pub fn under(&self, prefix: &str) -> Result<Checkpoint> {
        let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
        if prefix.is_empty() {
            return Ok(self.clone());
        }
        let prefix = state_dict::stripped(&format!("{prefix}."));
        let opened: String = self.wrapping.dictionaries.iter().flat_map(|key| [key, "."]).collect();
        if opened == prefix {
            return Ok(self.clone());
        }
        let inner = prefix.strip_prefix(&opened).unwrap_or(&prefix);
        let below = |named: &Named<Entry>, prefix: &str| -> Named<Entry> {
            let inner = |(name, entry): &(String, Entry)| Some((name.strip_prefix(prefix)?.to_owned(), entry.clone()));
            named.iter().filter_map(inner).collect()
        };
        let mut entries = below(&self.entries, inner);
        if entries.is_empty() {
            entries = below(&self.beside, &prefix);
        }
        if entries.is_empty() {
            let message = format!("no tensor lies under the prefix {}; there are {}", shown(&prefix), self.roots());
            return Err(Error::Format { path: self.path.clone(), message });
        }
        let unread = self.unread.iter().filter_map(|(name, class)| Some((name.strip_prefix(inner)?, class)));
        let unread = unread.map(|(name, class)| (name.to_owned(), Arc::clone(class))).collect();
        let contents = Contents { tensors: entries, beside: Vec::new(), unread, wrapping: self.wrapping.clone() };
        Checkpoint::new(&self.path, self.format, contents)
    }

    /// The first parts of all names, for messages.
    fn roots(&self) -> String {
        let mut roots = Vec::new();
        for (name, _) in self.entries.iter().chain(&*self.beside) {
            let root = name.split_inclusive('.').next().unwrap_or_default();
            if roots.len() <= MAX_PLACES && !roots.contains(&root) {
                roots.push(root);
            }
        }
        let more = if roots.len() > MAX_PLACES { ", …" } else { "" };
        roots.truncate(MAX_PLACES);
        roots.into_iter().map(shown).collect::<Vec<_>>().join(", ") + more
    }

    /// What the option `prefix` of a loss reads for a network that needs `needed`: the tensors under the prefix. Where
    /// all names of the network share their first part (`features.`) and none there has it, it is put before them.
    pub(crate) fn at(&self, prefix: &str, needed: &[(String, Vec<usize>)]) -> Result<Checkpoint> {
        let mut checkpoint = self.under(prefix)?;
        let parent = common_part(needed);
        if !parent.is_empty() && !checkpoint.entries.iter().any(|(name, _)| name.starts_with(parent)) {
            checkpoint.entries.iter_mut().for_each(|(name, _)| name.insert_str(0, parent));
            let names = checkpoint.entries.iter().enumerate();
            checkpoint.positions = names.map(|(position, (name, _))| (name.clone(), position)).collect();
            let unread = checkpoint.unread.iter().map(|(name, class)| (format!("{parent}{name}"), Arc::clone(class)));
            checkpoint.unread = Arc::new(unread.collect());
        }
        Ok(checkpoint)
    }

    /// The values of the option `prefix` with which [`at`](Checkpoint::at) finds all that is needed, in the file's
    /// order. That of the checkpoint as it is counts only where names lack their first part.
    pub(crate) fn places(&self, needed: &[(String, Vec<usize>)]) -> Vec<String> {
        let Some((first, shape)) = needed.iter().find(|(name, _)| !name.ends_with(BATCH_COUNT)) else {
            return Vec::new();
        };
        let parent = common_part(needed);
        let mut prefixes = Vec::new();
        for (name, entry) in self.entries.iter().chain(&*self.beside) {
            if entry.shape() != shape || prefixes.len() == MAX_PLACES {
                continue;
            }
            let prefix = match (name.strip_suffix(first.as_str()), name.strip_suffix(&first[parent.len()..])) {
                (Some(prefix), _) if prefix.ends_with('.') => prefix,
                (None, Some(prefix)) if !parent.is_empty() && (prefix.is_empty() || prefix.ends_with('.')) => prefix,
                _ => continue,
            };
            let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
            if !prefixes.iter().any(|known| known == prefix) {
                prefixes.push(prefix.to_owned());
            }
        }
        let fits = |checkpoint: Checkpoint| {
            let is_there = |(name, shape): &(String, Vec<usize>)| {
                name.ends_with(BATCH_COUNT)
                    || checkpoint.get(name).is_some_and(|entry| entry.shape() == shape && entry.dtype().is_float())
            };
            needed.iter().all(is_there)
        };
        prefixes.retain(|prefix| self.at(prefix, needed).is_ok_and(fits));
        prefixes
    }

    /// The prefixes under which a tensor of this name lies.
    #[cfg(feature = "clip")]
    pub(crate) fn prefixes_of(&self, name: &str) -> Vec<String> {
        let names = self.entries.iter().chain(&*self.beside);
        let mut prefixes: Vec<_> =
            names.filter_map(|(known, _)| known.strip_suffix(name)?.strip_suffix('.').map(str::to_owned)).collect();
        prefixes.truncate(MAX_PLACES);
        prefixes
    }

    /// The same file with other tensors: those of a network in another layout.
    #[cfg(feature = "clip")]
    pub(crate) fn with_entries(&self, entries: Named<Entry>) -> Result<Checkpoint> {
        let unread = self.unread.iter().map(|(name, class)| (name.clone(), Arc::clone(class))).collect();
        let contents = Contents { tensors: entries, beside: Vec::new(), unread, wrapping: self.wrapping.clone() };
        Checkpoint::new(&self.path, self.format, contents)
    }

    /// Whether a tensor counts something, and is no parameter: batch norm's counter, or a whole number beside the
    /// network's modules, such as `n_averaged` and `num_updates`.
    pub(crate) fn is_counter(&self, name: &str) -> bool {
        let is_whole = |entry: &Entry| entry.shape().is_empty() && !entry.dtype().is_float();
        name.ends_with(BATCH_COUNT) || !name.contains('.') && self.get(name).is_some_and(is_whole)
    }

    /// The tensors that `network` needs, by name, as `f32` in row-major order.
    ///
    /// Names, shapes and types are checked before anything is read. Every needed tensor must be there in the shape
    /// needed and in a floating-point type; tensors beyond them are an error unless `strictness` allows them. Counters
    /// (`…num_batches_tracked`, and whole numbers beside the modules, such as `n_averaged`) are never too many, and the
    /// former never missing.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] with all that is wrong at once; [`Error::Format`] where the network lies elsewhere in
    /// the file, with the prefix that reads it, or in other shards; [`Error::Io`] if the file cannot be read.
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
                None => match self.unread.get(name) {
                    Some(class) => {
                        mismatched.push(format!("{name}: needs a floating-point type, has {}", shown(class)))
                    }
                    None => missing.push(name.clone()),
                },
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
                names.filter(|name| !self.is_counter(name) && !known.contains(name.as_str())).cloned().collect()
            }
        };
        if !(missing.is_empty() && unexpected.is_empty() && mismatched.is_empty()) {
            if !missing.is_empty()
                && let Some(message) = self.elsewhere(network, needed)
            {
                return Err(Error::Format { path: self.path.clone(), message });
            }
            return Err(self.mismatch(network, missing, unexpected, mismatched));
        }
        wanted.into_iter().map(|(name, entry)| Ok((name.to_owned(), entry.to_f32()?))).collect()
    }

    /// Where a network lies that is not in the file's own place, and how to read it.
    pub(crate) fn elsewhere(&self, network: &str, needed: &[(String, Vec<usize>)]) -> Option<String> {
        let places = self.places(needed);
        if places.is_empty() {
            return index::sharded(&self.path);
        }
        Some(elsewhere(network, &places))
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

/// The message for a network that lies under one of `prefixes`.
pub(crate) fn elsewhere(network: &str, prefixes: &[String]) -> String {
    let places: Vec<_> = prefixes.iter().map(|prefix| format!("`prefix: \"{}\"`", prefix.escape_debug())).collect();
    format!("{network} lies under another name in the file; the option {} reads it", places.join(" or "))
}

/// The first part of all names, with its dot, if they share it.
fn common_part(needed: &[(String, Vec<usize>)]) -> &str {
    let first = needed.first().and_then(|(name, _)| name.split_inclusive('.').next()).unwrap_or_default();
    let is_shared = first.ends_with('.') && needed.iter().all(|(name, _)| name.starts_with(first));
    if is_shared { first } else { "" }
}

/// Recognises the format and reads everything but the elements.
fn read(file: &Region) -> Read<(Format, Contents<Entry>)> {
    let head = file.bytes(0, file.len().min(HEAD), "the first bytes")?;
    let (format, contents) = match head.as_slice() {
        [] => return refuse("an empty file"),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            let (contents, dialect) = zip_pth::read(file)?;
            let format = if dialect == pickle::Dialect::TorchScript { Format::TorchScript } else { Format::Zip };
            (format, contents)
        }
        // A length, and the JSON that it measures.
        [_, _, _, _, _, _, _, _, b'{', ..] => (Format::Safetensors, safetensors::read(file)?),
        _ if head.get(tar_pth::MAGIC_AT..).is_some_and(|at| at.starts_with(tar_pth::MAGIC)) => {
            (Format::Tar, tar_pth::read(file)?)
        }
        [0x80, 2..=5, ..] => (Format::Legacy, legacy_pth::read(file)?),
        [b'<', ..] => return refuse("a web page, not a checkpoint: the download failed"),
        _ if head.starts_with(b"version https://git-lfs") => {
            return refuse("a pointer to a file in Git LFS, not the file");
        }
        _ if index::shards(file)?.is_some() => {
            return refuse("an index of shards, which are files beside it: it is read by its path");
        }
        _ => return refuse("neither safetensors nor written by torch.save or torch.jit.save"),
    };
    if !(contents.tensors.is_empty() && contents.beside.is_empty()) {
        return Ok((format, contents));
    }
    match contents.unread.first() {
        Some((name, class)) => refuse(format!(
            "the file holds no tensors that can be read; {} is {} (save the `state_dict()` alone)",
            shown(name),
            shown(class)
        )),
        None => refuse("the file holds no tensors"),
    }
}
