//! Streaming stores: results too large for the caches go to memory without being read first.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::isa::{self, Isa, Kernel};
use super::matmul::SharedMut;
use crate::Element;

/// Bytes of a cache line, the unit of a streaming store.
const LINE: usize = 64;
/// Results of so many bytes are streamed: less may be read again while a cache still holds it.
const LARGE: usize = 4 << 20;
/// Elements that a task of [`stream`] reads at a time.
const STEP: usize = 1 << 14;

/// Whether a result with so many elements is streamed.
pub(super) fn is_large<F: Element>(elements: usize) -> bool {
    elements * size_of::<F>() >= LARGE
}

/// Where results go, piece by piece.
#[derive(Debug)]
pub struct Sink<'a, F: Element> {
    target: SharedMut<'a, F>,
    first: usize,
    length: usize,
    write: Write,
    isa: Isa,
}

/// How a [`Sink`] takes results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// Stores them.
    Store,
    /// Stores them past the caches.
    Stream,
    /// Adds them to what is there.
    Add,
}

impl<'a, F: Element> Sink<'a, F> {
    /// Into a slice.
    pub fn new(target: &'a mut [F]) -> Self {
        let length = target.len();
        Sink { target: SharedMut::new(target), first: 0, length, write: Write::Store, isa: Isa::Portable }
    }

    /// Into `length` elements from `first` of memory that is shared with other sinks.
    ///
    /// # Safety
    /// No one else reads or writes these elements as long as the sink lives; [`Write::Add`] finds initialised ones.
    ///
    /// # Panics
    /// If the elements end past the memory.
    pub(super) unsafe fn shared(target: SharedMut<'a, F>, first: usize, length: usize, write: Write, isa: Isa) -> Self {
        let _ = target.at(first + length);
        Sink { target, first, length, write, isa }
    }

    /// The number of its elements.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Where the `length` elements from `at` are, and how they take results. The pointer is valid as long as the sink is
    /// borrowed.
    ///
    /// # Panics
    /// If they end past the sink.
    pub(super) fn part(&mut self, at: usize, length: usize) -> (*mut F, Write) {
        assert!(at <= self.length && length <= self.length - at, "results past the end of a sink");
        (self.target.start().wrapping_add(self.first + at), self.write)
    }

    /// Takes results for the elements from `at`.
    ///
    /// # Panics
    /// If they end past the sink.
    #[inline(always)]
    pub(crate) fn put(&mut self, at: usize, values: &[F]) {
        assert!(at <= self.length && values.len() <= self.length - at, "results past the end of a sink");
        let target = self.target.start().wrapping_add(self.first + at);
        // SAFETY: inside the sink (checked above), whose elements are this sink's alone, and initialised where they are
        // added to.
        unsafe {
            match self.write {
                Write::Store => std::ptr::copy_nonoverlapping(values.as_ptr(), target, values.len()),
                Write::Stream => copy(self.isa, values, target),
                Write::Add => {
                    let target = std::slice::from_raw_parts_mut(target, values.len());
                    for (target, &value) in target.iter_mut().zip(values) {
                        *target += value;
                    }
                }
            }
        }
    }
}

/// Copies `source` to `target` past the caches. [`fence`] before another thread reads it.
///
/// # Safety
/// As many elements as `source` has can be written at `target`, which no one else reads or writes meanwhile.
pub(super) unsafe fn copy<F: Element>(isa: Isa, source: &[F], target: *mut F) {
    let misaligned = target.addr() % LINE;
    let head = if misaligned == 0 { 0 } else { ((LINE - misaligned) / size_of::<F>()).min(source.len()) };
    let lines = (source.len() - head) * size_of::<F>() / LINE;
    let body = lines * LINE / size_of::<F>();
    // SAFETY: head, lines and tail make up the source; the caller vouches for as much room at the target, whose
    // elements are aligned, so that the lines begin where `LINE` divides the address.
    unsafe {
        std::ptr::copy_nonoverlapping(source.as_ptr(), target, head);
        copy_lines(isa, source.as_ptr().add(head).cast(), target.add(head).cast(), lines);
        let (rest, target) = (source.as_ptr().add(head + body), target.add(head + body));
        std::ptr::copy_nonoverlapping(rest, target, source.len() - head - body);
    }
}

/// Makes streamed results visible to other threads.
#[inline]
pub(super) fn fence() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Copies whole lines.
///
/// # Safety
/// The lines can be read and written; the target begins on a line.
#[inline]
unsafe fn copy_lines(isa: Isa, source: *const u8, target: *mut u8, lines: usize) {
    // Miri has no streaming stores.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{
            _mm_loadu_si128, _mm_stream_si128, _mm256_loadu_si256, _mm256_stream_si256, _mm512_loadu_si512,
            _mm512_stream_si512,
        };

        /// A loop over vectors of one width; the pointers hold `$lines` lines and the target begins on one.
        macro_rules! copy {
            ($load:ident, $store:ident, $bytes:literal, $source:ident, $target:ident, $lines:ident) => {
                for at in (0..$lines * LINE).step_by($bytes) {
                    // SAFETY: the offset lies inside the lines that the caller vouches for.
                    unsafe { $store($target.add(at).cast(), $load($source.add(at).cast())) };
                }
            };
        }
        /// # Safety
        /// As [`copy_lines`].
        #[target_feature(enable = "avx512f")]
        unsafe fn wide(source: *const u8, target: *mut u8, lines: usize) {
            copy!(_mm512_loadu_si512, _mm512_stream_si512, 64, source, target, lines);
        }
        /// # Safety
        /// As [`copy_lines`].
        #[target_feature(enable = "avx")]
        unsafe fn middle(source: *const u8, target: *mut u8, lines: usize) {
            copy!(_mm256_loadu_si256, _mm256_stream_si256, 32, source, target, lines);
        }
        match isa.min(isa::available_once()) {
            // SAFETY: this machine has the instructions; the caller vouches for the lines.
            Isa::Avx512 => unsafe { wide(source, target, lines) },
            // SAFETY: as above.
            Isa::Avx2 => unsafe { middle(source, target, lines) },
            Isa::Portable => copy!(_mm_loadu_si128, _mm_stream_si128, 16, source, target, lines),
        }
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    {
        let _ = isa;
        // SAFETY: the caller vouches for the lines.
        unsafe { std::ptr::copy_nonoverlapping(source, target, lines * LINE) };
    }
}

/// Reads all of `read` once and writes all of `written` once, streaming, with every thread: the time this takes is what
/// the memory allows any kernel with the same reads and writes. Returns a number that depends on what was read.
///
/// ```
/// let mut written = vec![1.0; 100];
/// assert_eq!(image_losses_kernels::stream::stream(&[1.0, 2.0], &mut written), 3.0);
/// assert_eq!(written, [0.0; 100]);
/// ```
pub fn stream(read: &[f32], written: &mut [f32]) -> f32 {
    let isa = isa::detect();
    let tasks = read.len().max(written.len()).div_ceil(STEP).max(1);
    let length = written.len();
    let target = SharedMut::new(written);
    let part = |total: usize, task: usize| total * task / tasks..total * (task + 1) / tasks;
    let sums: Vec<f32> = (0..tasks)
        .into_par_iter()
        .map(|task| {
            let mut sum = 0.0;
            isa::run(isa, Total { values: &read[part(read.len(), task)], sum: &mut sum });
            let zeros = [0.0; 4096];
            let range = part(length, task);
            for start in range.clone().step_by(zeros.len()) {
                let zeros = &zeros[..zeros.len().min(range.end - start)];
                // SAFETY: the range lies inside `written` and is this task's alone.
                unsafe { copy(isa, zeros, target.at(start)) };
            }
            fence();
            sum
        })
        .collect();
    sums.iter().sum()
}

/// Σ values, in single precision over independent lanes.
struct Total<'a> {
    values: &'a [f32],
    sum: &'a mut f32,
}

impl Kernel for Total<'_> {
    #[inline(always)]
    fn run(self) {
        const LANES: usize = 64;
        let mut sums = [0.0; LANES];
        let mut chunks = self.values.chunks_exact(LANES);
        for chunk in &mut chunks {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum += value;
            }
        }
        *self.sum = sums.iter().chain(chunks.remainder()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_at_any_alignment_and_length() {
        let source: Vec<f32> = (0..300).map(|i| i as f32 + 1.0).collect();
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            for (start, length) in [(0, 0), (1, 1), (3, 15), (5, 16), (0, 64), (7, 250), (16, 284)] {
                let mut target = vec![0.0f32; 320];
                // SAFETY: the target is longer than `start + length`.
                unsafe { copy(isa, &source[..length], target.as_mut_ptr().add(start)) };
                fence();
                assert!(target[..start].iter().chain(&target[start + length..]).all(|&value| value == 0.0));
                assert_eq!(target[start..start + length], source[..length]);
            }
        }
        let doubles: Vec<f64> = (0..50).map(f64::from).collect();
        let mut target = vec![0.0; 51];
        // SAFETY: the target is longer.
        unsafe { copy(Isa::Avx512, &doubles, target.as_mut_ptr().add(1)) };
        assert_eq!(target[1..], doubles);
    }
}
