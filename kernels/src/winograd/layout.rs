//! How the frozen kernels hold images: channels innermost, in whole vectors, inside a border of zeros.

use std::alloc::{Layout as Allocation, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rayon::prelude::*;

use super::lanes::LANES;
use crate::count_in_memory;
use crate::matmul::SharedMut;

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;
/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;
/// Elements of a result that goes past the caches.
const STREAMED: usize = 2 << 20;

/// (N, H, W, C) with C rounded up to whole vectors, H and W to whole tiles, and one pixel of zeros around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) batch: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    // Derived, and kept because kernels ask for them at every pixel.
    rows: usize,
    columns: usize,
    lanes: usize,
}

impl Layout {
    /// # Panics
    /// If memory cannot hold it; see [`Layout::checked`].
    pub(crate) fn new(shape: [usize; 4]) -> Self {
        Layout::checked(shape).unwrap_or_else(|| panic!("images of shape {shape:?} that memory can hold"))
    }

    /// The layout of images; `None` where memory cannot hold it.
    pub(crate) fn checked([batch, channels, height, width]: [usize; 4]) -> Option<Self> {
        let with_border = |extent: usize| extent.checked_next_multiple_of(4)?.checked_add(2);
        let (rows, columns) = (with_border(height)?, with_border(width)?);
        let lanes = channels.checked_next_multiple_of(LANES)?;
        // Not counted as 0 where the batch is: kernels take the product of any of these.
        count_in_memory(&[batch.max(1), rows, columns, lanes.max(1)])?;
        Some(Layout { batch, height, width, channels, rows, columns, lanes })
    }

    /// The same for another number of images.
    pub(crate) fn with_batch(self, batch: usize) -> Self {
        Layout::new([batch, self.channels, self.height, self.width])
    }

    /// The same with another number of channels.
    pub(crate) fn with_channels(self, channels: usize) -> Self {
        Layout::new([self.batch, channels, self.height, self.width])
    }

    /// Channels of a pixel, in whole vectors.
    #[inline(always)]
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Pixels of a row, border included.
    #[inline(always)]
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Rows, border included.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Elements in all.
    pub(crate) fn len(&self) -> usize {
        self.batch * self.rows() * self.columns() * self.lanes()
    }

    /// Where a pixel's channels begin.
    #[inline(always)]
    pub(crate) fn at(&self, sample: usize, y: usize, x: usize) -> usize {
        ((sample * self.rows() + y + 1) * self.columns() + x + 1) * self.lanes()
    }

    /// Where a pixel's vectors begin in an array without border that has one element for each vector.
    #[inline(always)]
    pub(crate) fn vector(&self, sample: usize, y: usize, x: usize) -> usize {
        ((sample * self.height + y) * self.width + x) * (self.lanes() / LANES)
    }

    /// Vectors of `batch` images, border excluded.
    pub(crate) fn vectors(&self, batch: usize) -> usize {
        batch * self.height * self.width * (self.lanes() / LANES)
    }

    /// Whether a result exceeds the caches, so that storing it past them is faster.
    pub(crate) fn is_streamed(&self) -> bool {
        self.len() >= STREAMED
    }

    /// Zeroes everything that is no pixel.
    pub(crate) fn clear_border(&self, data: &mut [f32]) {
        let (rows, row_len) = (self.rows(), self.columns() * self.lanes());
        for (index, row) in data[..self.len()].chunks_exact_mut(row_len).enumerate() {
            let y = index % rows;
            if y == 0 || y > self.height {
                row.fill(0.0);
            } else {
                row[..self.lanes()].fill(0.0);
                row[(self.width + 1) * self.lanes()..].fill(0.0);
            }
        }
    }

    /// Writes `planes` (N, C, H, W), each channel times `scale` plus `shift`, as samples `first..` and clears the rest
    /// of these samples.
    pub(crate) fn fill_from_planes(
        &self,
        planes: &[f32],
        first: usize,
        affine: impl Fn(usize) -> [f32; 2] + Sync,
        data: &mut [f32],
    ) {
        let (lanes, row_len, rows) = (self.lanes(), self.columns() * self.lanes(), self.rows());
        let samples = planes.len() / (self.channels * self.height * self.width).max(1);
        let data = &mut data[first * rows * row_len..][..samples * rows * row_len];
        data.par_chunks_exact_mut(row_len).enumerate().for_each(|(index, row)| {
            row.fill(0.0);
            let (sample, y) = (index / rows, index % rows);
            if y == 0 || y > self.height {
                return;
            }
            for channel in 0..self.channels {
                let [scale, shift] = affine(channel);
                let start = ((sample * self.channels + channel) * self.height + y - 1) * self.width;
                let pixels = row[lanes + channel..].iter_mut().step_by(lanes);
                for (target, &source) in pixels.zip(&planes[start..][..self.width]) {
                    *target = source * scale + shift;
                }
            }
        });
    }

    /// The first `samples` images as planes (N, C, H, W), each channel times `scale`.
    pub(crate) fn to_planes(self, data: &[f32], samples: usize, scale: impl Fn(usize) -> f32 + Sync) -> Vec<f32> {
        let mut planes = vec![0.0; samples * self.channels * self.height * self.width];
        let shared = SharedMut::new(&mut planes);
        (0..samples * self.height).into_par_iter().for_each(|row| {
            let (sample, y) = (row / self.height, row % self.height);
            let pixels = &data[self.at(sample, y, 0)..][..self.width * self.lanes()];
            for channel in 0..self.channels {
                let start = ((sample * self.channels + channel) * self.height + y) * self.width;
                // SAFETY: this row of this channel is no other task's.
                let target = unsafe { shared.part(start, self.width) };
                let scale = scale(channel);
                for (target, pixel) in target.iter_mut().zip(pixels.chunks_exact(self.lanes())) {
                    *target = pixel[channel] * scale;
                }
            }
        });
        planes
    }
}

/// Zeroed `f32`s aligned for any vector, on huge pages where the system grants them.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: it owns its memory like a `Vec<f32>`.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
    pub(crate) fn new(len: usize) -> Self {
        if len == 0 {
            return Buffer { start: NonNull::dangling(), len };
        }
        let allocation = Self::allocation(len);
        // SAFETY: the allocation is not empty.
        let start = unsafe { alloc(allocation) }.cast::<f32>();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(allocation) };
        if allocation.align() == HUGE_PAGE {
            ask_for_huge_pages(start, allocation.size());
        }
        // SAFETY: `len` elements have just been allocated, and zero bytes are zeros.
        unsafe { start.write_bytes(0, len) };
        Buffer { start, len }
    }

    /// At least `len` elements; what was in it may be lost.
    pub(crate) fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Buffer::new(len);
        }
    }

    fn allocation(len: usize) -> Allocation {
        let size = len * size_of::<f32>();
        let align = if size >= 2 * HUGE_PAGE { HUGE_PAGE } else { LINE };
        Allocation::from_size_align(size, align).expect("a buffer that fits the address space")
    }
}

/// Tells the system that the memory is worth huge pages: windows of an image touch many pages, and looking these up would
/// take longer than reading them. A refusal changes nothing.
fn ask_for_huge_pages(start: NonNull<f32>, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        use std::ffi::{c_int, c_void};
        unsafe extern "C" {
            fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
        }
        /// The value that Linux gives it on every architecture.
        const MADV_HUGEPAGE: c_int = 14;
        // SAFETY: advice about memory that has just been allocated, from a page's beginning.
        unsafe { madvise(start.as_ptr().cast(), bytes, MADV_HUGEPAGE) };
    }
    let _ = (start, bytes);
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer::new(0)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated by `new` with this very layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Self::allocation(self.len)) };
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised elements that the buffer owns.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: `len` initialised elements that the buffer owns, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}
