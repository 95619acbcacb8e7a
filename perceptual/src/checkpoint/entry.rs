//! One tensor of a checkpoint.

use std::fmt;
use std::sync::Arc;

use half::{bf16, f16};
use image_losses_core::Result;

use super::seeded;
use super::source::{Read, Region, refuse};

/// The highest rank read; PyTorch's own limit is 64, networks have at most 6.
const MAX_RANK: usize = 32;
/// How many elements a tensor may have beyond those of its storage, by strides of zero (`expand`).
const MAX_EXPANSION: u64 = 1 << 20;
/// The part of a tensor that is converted at a time.
const CHUNK: usize = 1 << 16;

/// The element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float (IEEE).
    F16,
    /// 16-bit float with the exponent of a 32-bit one.
    BF16,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 8-bit integer.
    U8,
    /// Boolean, a byte.
    Bool,
}

impl Dtype {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// The type safetensors calls `name`.
    pub(super) fn from_safetensors(name: &str) -> Option<Dtype> {
        Some(match name {
            "F64" => Dtype::F64,
            "F32" => Dtype::F32,
            "F16" => Dtype::F16,
            "BF16" => Dtype::BF16,
            "I64" => Dtype::I64,
            "I32" => Dtype::I32,
            "I16" => Dtype::I16,
            "I8" => Dtype::I8,
            "U64" => Dtype::U64,
            "U32" => Dtype::U32,
            "U16" => Dtype::U16,
            "U8" => Dtype::U8,
            "BOOL" => Dtype::Bool,
            _ => return None,
        })
    }

    /// The type PyTorch calls `torch.<name>`.
    pub(super) fn from_torch(name: &str) -> Option<Dtype> {
        Some(match name {
            "float64" => Dtype::F64,
            "float32" => Dtype::F32,
            "float16" => Dtype::F16,
            "bfloat16" => Dtype::BF16,
            "int64" => Dtype::I64,
            "int32" => Dtype::I32,
            "int16" => Dtype::I16,
            "int8" => Dtype::I8,
            "uint64" => Dtype::U64,
            "uint32" => Dtype::U32,
            "uint16" => Dtype::U16,
            "uint8" => Dtype::U8,
            "bool" => Dtype::Bool,
            _ => return None,
        })
    }

    /// The type of `torch.<name>Storage` and `torch.<name>Tensor`.
    pub(super) fn from_storage(name: &str) -> Option<Dtype> {
        Some(match name {
            "Double" => Dtype::F64,
            "Float" => Dtype::F32,
            "Half" => Dtype::F16,
            "BFloat16" => Dtype::BF16,
            "Long" => Dtype::I64,
            "Int" => Dtype::I32,
            "Short" => Dtype::I16,
            "Char" => Dtype::I8,
            "Byte" => Dtype::U8,
            "Bool" => Dtype::Bool,
            _ => return None,
        })
    }

    /// Converts whole elements, little-endian.
    fn convert(self, bytes: &[u8], values: &mut Vec<f32>) {
        fn each<const N: usize>(bytes: &[u8], values: &mut Vec<f32>, convert: impl Fn([u8; N]) -> f32) {
            values.extend(bytes.as_chunks().0.iter().map(|&element| convert(element)));
        }
        match self {
            Dtype::F64 => each(bytes, values, |element| f64::from_le_bytes(element) as f32),
            Dtype::F32 => each(bytes, values, f32::from_le_bytes),
            Dtype::F16 => each(bytes, values, |element| f16::from_le_bytes(element).to_f32()),
            Dtype::BF16 => each(bytes, values, |element| bf16::from_le_bytes(element).to_f32()),
            Dtype::I64 => each(bytes, values, |element| i64::from_le_bytes(element) as f32),
            Dtype::I32 => each(bytes, values, |element| i32::from_le_bytes(element) as f32),
            Dtype::I16 => each(bytes, values, |element| f32::from(i16::from_le_bytes(element))),
            Dtype::I8 => each(bytes, values, |element| f32::from(i8::from_le_bytes(element))),
            Dtype::U64 => each(bytes, values, |element| u64::from_le_bytes(element) as f32),
            Dtype::U32 => each(bytes, values, |element| u32::from_le_bytes(element) as f32),
            Dtype::U16 => each(bytes, values, |element| f32::from(u16::from_le_bytes(element))),
            Dtype::U8 => each(bytes, values, |[element]| f32::from(element)),
            Dtype::Bool => each(bytes, values, |[element]| f32::from(u8::from(element != 0))),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F64 => "f64",
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::BF16 => "bf16",
            Dtype::I64 => "i64",
            Dtype::I32 => "i32",
            Dtype::I16 => "i16",
            Dtype::I8 => "i8",
            Dtype::U64 => "u64",
            Dtype::U32 => "u32",
            Dtype::U16 => "u16",
            Dtype::U8 => "u8",
            Dtype::Bool => "bool",
        })
    }
}

/// The number of elements of `shape`, if it can be counted.
pub(super) fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}

/// How a tensor lies in its storage; all of it is known to lie inside.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) dtype: Dtype,
    /// In elements, as the strides.
    offset: u64,
    shape: Vec<usize>,
    strides: Vec<u64>,
    elements: usize,
}

impl Layout {
    /// A view of the storage elements `[base, base + stored)`.
    pub(super) fn new(
        dtype: Dtype,
        base: u64,
        stored: u64,
        offset: u64,
        shape: Vec<usize>,
        strides: Vec<u64>,
    ) -> Read<Layout> {
        let rank = shape.len();
        if rank > MAX_RANK || rank != strides.len() {
            return refuse(format!("a tensor of rank {rank} with {} strides", strides.len()));
        }
        let Some(elements) = count(&shape) else {
            return refuse(format!("the shape {shape:?} has more elements than can be counted"));
        };
        if elements as u64 > stored.saturating_add(MAX_EXPANSION) {
            return refuse(format!("the shape {shape:?} over a storage of {stored} elements"));
        }
        let end = if elements == 0 {
            Some(offset)
        } else {
            let steps = shape.iter().zip(&strides);
            steps
                .map(|(&extent, &stride)| (extent as u64 - 1).checked_mul(stride))
                .try_fold(offset, |last, step| last.checked_add(step?))
                .and_then(|last| last.checked_add(1))
        };
        let inside = end.is_some_and(|end| end <= stored);
        match base.checked_add(offset) {
            Some(offset) if inside => Ok(Layout { dtype, offset, shape, strides, elements }),
            _ => refuse(format!(
                "shape {shape:?}, strides {strides:?} and offset {offset} reach outside a storage of {stored} elements"
            )),
        }
    }

    /// The whole of a storage, row-major.
    pub(super) fn contiguous(dtype: Dtype, shape: Vec<usize>) -> Read<Layout> {
        let Some(elements) = count(&shape) else {
            return refuse(format!("the shape {shape:?} has more elements than can be counted"));
        };
        let strides = row_major(&shape);
        Layout::new(dtype, 0, elements as u64, 0, shape, strides)
    }

    pub(super) fn elements(&self) -> usize {
        self.elements
    }

    pub(super) fn rank(&self) -> usize {
        self.shape.len()
    }

    /// From the first element to behind the last, in elements; there is at least one.
    fn extent(&self) -> u64 {
        let steps = self.shape.iter().zip(&self.strides);
        steps.fold(1, |span, (&extent, &stride)| span + (extent as u64).saturating_sub(1) * stride)
    }

    fn is_contiguous(&self) -> bool {
        let rows = row_major(&self.shape);
        rows.iter().zip(&self.strides).zip(&self.shape).all(|((a, b), &extent)| extent == 1 || a == b)
    }

    fn to_f32(&self, storage: &Region) -> Read<Vec<f32>> {
        let size = self.dtype.size();
        let mut values = Vec::with_capacity(self.elements);
        if self.elements == 0 {
            return Ok(values);
        }
        let start = self.offset * size as u64;
        let view = storage.part(start, self.extent() * size as u64, "a tensor")?;
        if self.is_contiguous() {
            let mut chunk = vec![0; CHUNK.min(self.elements * size)];
            let mut position = 0;
            while position < view.len() {
                let len = (view.len() - position).min(chunk.len() as u64);
                let part = &mut chunk[..len as usize];
                view.read_at(position, part)?;
                self.dtype.convert(part, &mut values);
                position += len;
            }
        } else {
            let bytes = view.bytes(0, view.len(), "a tensor")?;
            let mut gathered = Vec::with_capacity(CHUNK);
            let mut index = vec![0; self.shape.len()];
            let mut at = 0u64;
            for _ in 0..self.elements {
                if gathered.len() == CHUNK {
                    self.dtype.convert(&gathered, &mut values);
                    gathered.clear();
                }
                let start = at as usize * size;
                gathered.extend_from_slice(bytes.get(start..start + size).unwrap_or_default());
                // An odometer: the last axis turns fastest.
                for axis in (0..index.len()).rev() {
                    index[axis] += 1;
                    at += self.strides[axis];
                    if index[axis] < self.shape[axis] {
                        break;
                    }
                    at -= self.strides[axis] * index[axis] as u64;
                    index[axis] = 0;
                }
            }
            self.dtype.convert(&gathered, &mut values);
        }
        Ok(values)
    }
}

fn row_major(shape: &[usize]) -> Vec<u64> {
    let mut strides = vec![1u64; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis] as u64);
    }
    strides
}

#[derive(Clone)]
enum Data {
    Stored {
        layout: Arc<Layout>,
        storage: Region,
    },
    Values {
        shape: Vec<usize>,
        values: Arc<[f32]>,
    },
    Seeded {
        shape: Vec<usize>,
        stream: seeded::Stream,
    },
    /// One below the other, along the outermost axis.
    #[cfg_attr(not(feature = "clip"), expect(dead_code, reason = "a layout of CLIP alone"))]
    Joined {
        shape: Vec<usize>,
        parts: Arc<[Entry]>,
    },
    /// A matrix whose axes are exchanged.
    #[cfg_attr(not(feature = "clip"), expect(dead_code, reason = "a layout of CLIP alone"))]
    Transposed {
        shape: Vec<usize>,
        matrix: Arc<Entry>,
    },
}

/// A tensor of a checkpoint: its shape and type at once, its elements when asked for.
#[derive(Clone)]
pub struct Entry(Data);

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("shape", &self.shape()).field("dtype", &self.dtype()).finish_non_exhaustive()
    }
}

impl Entry {
    /// A view of `storage`, which must be long enough for it.
    pub(super) fn stored(layout: Arc<Layout>, storage: Region) -> Read<Entry> {
        if layout.elements > 0 {
            let size = layout.dtype.size() as u64;
            let end = layout.offset.checked_add(layout.extent()).and_then(|end| end.checked_mul(size));
            match end {
                Some(end) if end <= storage.len() => {}
                _ => return refuse(format!("a tensor reaches outside its storage of {} bytes", storage.len())),
            }
        }
        Ok(Entry(Data::Stored { layout, storage }))
    }

    /// Values in memory; `values` must fill `shape`.
    pub(super) fn values(shape: Vec<usize>, values: Vec<f32>) -> Entry {
        Entry(Data::Values { shape, values: values.into() })
    }

    pub(super) fn seeded(shape: Vec<usize>, stream: seeded::Stream) -> Entry {
        Entry(Data::Seeded { shape, stream })
    }

    /// Tensors one below the other, if they differ in no axis but the outermost, and not in type.
    #[cfg(feature = "clip")]
    pub(crate) fn joined(parts: Vec<Entry>) -> Option<Entry> {
        let first = parts.first()?;
        let (dtype, rest) = (first.dtype(), first.shape().get(1..)?.to_vec());
        if parts.iter().any(|part| part.dtype() != dtype || part.shape().get(1..) != Some(&rest)) {
            return None;
        }
        let rows = parts.iter().try_fold(0usize, |rows, part| rows.checked_add(part.shape()[0]))?;
        let shape = [vec![rows], rest].concat();
        Some(Entry(Data::Joined { shape, parts: parts.into() }))
    }

    /// The transpose of a matrix.
    #[cfg(feature = "clip")]
    pub(crate) fn transposed(&self) -> Option<Entry> {
        let &[rows, columns] = self.shape() else { return None };
        Some(Entry(Data::Transposed { shape: vec![columns, rows], matrix: Arc::new(self.clone()) }))
    }

    /// The extents, outermost axis first.
    pub fn shape(&self) -> &[usize] {
        match &self.0 {
            Data::Stored { layout, .. } => &layout.shape,
            Data::Values { shape, .. }
            | Data::Seeded { shape, .. }
            | Data::Joined { shape, .. }
            | Data::Transposed { shape, .. } => shape,
        }
    }

    /// The type of the stored elements.
    pub fn dtype(&self) -> Dtype {
        match &self.0 {
            Data::Stored { layout, .. } => layout.dtype,
            Data::Values { .. } | Data::Seeded { .. } => Dtype::F32,
            Data::Joined { parts, .. } => parts.first().map_or(Dtype::F32, Entry::dtype),
            Data::Transposed { matrix, .. } => matrix.dtype(),
        }
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        match &self.0 {
            Data::Stored { layout, .. } => layout.elements,
            Data::Values { values, .. } => values.len(),
            Data::Seeded { shape, .. } => count(shape).unwrap_or(0),
            Data::Joined { parts, .. } => parts.iter().map(Entry::elements).sum(),
            Data::Transposed { matrix, .. } => matrix.elements(),
        }
    }

    /// The elements, row-major, converted to `f32` from whatever type they have.
    ///
    /// # Errors
    /// [`Error::Io`](image_losses_core::Error::Io) if the file cannot be read any more.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        match &self.0 {
            Data::Stored { layout, storage } => layout.to_f32(storage).map_err(|fault| fault.at(storage.path())),
            Data::Values { values, .. } => Ok(values.to_vec()),
            Data::Seeded { shape, stream } => Ok(stream.fill(shape, self.elements())),
            Data::Joined { parts, .. } => {
                let parts = parts.iter().map(Entry::to_f32).collect::<Result<Vec<_>>>()?;
                Ok(parts.concat())
            }
            Data::Transposed { shape, matrix } => {
                let (rows, columns) = (shape[0], shape[1]);
                let values = matrix.to_f32()?;
                Ok((0..rows * columns).map(|at| values[at % columns * rows + at / columns]).collect())
            }
        }
    }
}
