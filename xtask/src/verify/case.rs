//! A reference case: one file of the corpus, as `xtask/reference/README.md` describes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobSetBuilder};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

use crate::Stop;

/// A file of the corpus.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    /// Family and case, as `pixelwise/l1_mean_plain_0`.
    pub(crate) name: String,
}

/// Numbers with their shape.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

/// A reference case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Family and case.
    pub(crate) name: String,
    /// The loss, its call, its networks.
    pub(crate) description: Description,
    /// The inputs by argument, those of a list as `maps.0`.
    pub(crate) inputs: BTreeMap<String, Array>,
    /// Token inputs by argument.
    pub(crate) tokens: BTreeMap<String, Vec<Vec<u32>>>,
    /// The networks' parameters, as `discriminator.0.weight`.
    pub(crate) parameters: BTreeMap<String, Array>,
    /// The values by name; the single value's name is empty.
    pub(crate) values: BTreeMap<String, Array>,
    /// What the values are multiplied by before differentiation.
    pub(crate) cotangents: BTreeMap<String, Array>,
    /// The gradients, as `pred` or `net.discriminator.0.weight`.
    pub(crate) gradients: BTreeMap<String, Array>,
    /// Stored in single precision.
    pub(crate) stored_single: bool,
}

/// The JSON in a file's metadata.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Description {
    /// The configuration.
    pub(crate) loss: Value,
    /// Arguments that are not tensors.
    #[serde(default)]
    pub(crate) call: BTreeMap<String, Value>,
    /// Networks passed as arguments.
    #[serde(default)]
    pub(crate) nets: BTreeMap<String, Vec<Layer>>,
    /// How a backbone's parameters are made.
    #[serde(default)]
    pub(crate) weights: Option<Weights>,
}

/// A layer of a network that is passed as an argument.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Layer {
    Conv2d { stride: usize, padding: usize },
    Linear,
    LeakyRelu { slope: f64 },
    Softplus,
    Tanh,
    Flatten,
    Reshape { shape: Vec<usize> },
}

/// The parameters of a backbone.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Weights {
    /// They are made from this seed; without one they are those that the configuration names.
    #[serde(default)]
    pub(crate) seed: Option<u64>,
    #[serde(default)]
    pub(crate) architecture: Option<Value>,
}

impl Case {
    /// The loss's `type`.
    pub(crate) fn loss_type(&self) -> &str {
        self.option("type").unwrap_or("?")
    }

    /// A word of the configuration.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.description.loss.get(name).and_then(Value::as_str)
    }

    /// Reads a file; what it is not is said in words.
    pub(crate) fn read(file: &File) -> Result<Self, String> {
        let bytes = std::fs::read(&file.path).map_err(|error| error.to_string())?;
        Self::parse(&file.name, &bytes)
    }

    /// Reads the bytes of a file.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let description = header.metadata().as_ref().and_then(|metadata| metadata.get("case"));
        let description = description.ok_or("the metadata has no `case`")?;
        let description: Description =
            serde_json::from_str(description).map_err(|error| format!("`case` in the metadata: {error}"))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;

        let mut case = Case {
            name: name.to_owned(),
            description,
            inputs: BTreeMap::new(),
            tokens: BTreeMap::new(),
            parameters: BTreeMap::new(),
            values: BTreeMap::new(),
            cotangents: BTreeMap::new(),
            gradients: BTreeMap::new(),
            stored_single: false,
        };
        for (name, view) in tensors.tensors() {
            if view.dtype() == Dtype::I64 {
                let argument = name.strip_prefix("input.").ok_or_else(|| format!("`{name}` holds integers"))?;
                case.tokens.insert(argument.to_owned(), read_tokens(view.data(), view.shape())?);
                continue;
            }
            let values = match view.dtype() {
                Dtype::F64 => numbers::<8>(view.data(), f64::from_le_bytes),
                Dtype::F32 => numbers::<4>(view.data(), |bytes| f64::from(f32::from_le_bytes(bytes))),
                dtype => return Err(format!("`{name}` has the unexpected type {dtype:?}")),
            };
            let array = Array { shape: view.shape().to_vec(), values };
            let under = |prefix: &str| {
                let rest = name.strip_prefix(prefix)?;
                if rest.is_empty() { Some(String::new()) } else { rest.strip_prefix('.').map(str::to_owned) }
            };
            if let Some(key) = under("input") {
                case.inputs.insert(key, array);
            } else if let Some(key) = under("net") {
                case.parameters.insert(key, array);
            } else if let Some(key) = under("value") {
                case.stored_single |= view.dtype() == Dtype::F32;
                case.values.insert(key, array);
            } else if let Some(key) = under("cotangent") {
                case.cotangents.insert(key, array);
            } else if let Some(key) = under("grad") {
                case.gradients.insert(key, array);
            } else {
                return Err(format!("the tensor `{name}` has no meaning here"));
            }
        }
        if case.values.is_empty() {
            return Err("there is no value".into());
        }
        Ok(case)
    }
}

/// Little-endian numbers of `N` bytes.
fn numbers<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<N>().0.iter().map(|&bytes| convert(bytes)).collect()
}

/// Rows of token ids.
fn read_tokens(bytes: &[u8], shape: &[usize]) -> Result<Vec<Vec<u32>>, String> {
    let &[_, length] = shape else { return Err(format!("tokens must have two axes, got {shape:?}")) };
    let ids = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&bytes| u32::try_from(i64::from_le_bytes(bytes)).map_err(|_| "a token id is out of range".to_owned()))
        .collect::<Result<Vec<u32>, String>>()?;
    Ok(ids.chunks(length.max(1)).map(<[u32]>::to_vec).collect())
}

/// The files below a directory that match any of the filters, in order.
pub(crate) fn find(directory: &Path, filters: &[String]) -> Result<Vec<File>, Stop> {
    let mut globs = GlobSetBuilder::new();
    for filter in filters {
        globs.add(Glob::new(filter).map_err(|error| format!("--filter {filter}: {error}"))?);
    }
    let globs = globs.build().map_err(|error| error.to_string())?;
    let mut files = Vec::new();
    walk(directory, directory, &mut files)?;
    files.retain(|file| filters.is_empty() || globs.is_match(&file.name));
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn walk(directory: &Path, root: &Path, files: &mut Vec<File>) -> Result<(), Stop> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            walk(&path, root, files)?;
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            let relative = path.strip_prefix(root).unwrap_or(&path).with_extension("");
            let name = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>();
            files.push(File { name: name.join("/"), path });
        }
    }
    Ok(())
}
