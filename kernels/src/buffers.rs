//! Memory of large results, used again: fresh memory costs a page fault every 4 KiB, several times what a kernel takes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Element;

/// Bytes below which memory comes from the allocator, which has it at hand.
const LARGE: usize = 1 << 20;
/// The most bytes that are kept, unless [`set_kept_memory`] says otherwise.
const KEPT: usize = 1 << 30;

static LIMIT: AtomicUsize = AtomicUsize::new(KEPT);

/// Buffers of one element type that nobody uses, the one given back last at the end.
#[doc(hidden)]
#[derive(Debug)]
pub struct Kept<F>(Mutex<Vec<Vec<F>>>);

impl<F: Element> Kept<F> {
    pub(crate) const fn new() -> Self {
        Kept(Mutex::new(Vec::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<F>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`take`], from these.
    fn take(&self, length: usize) -> Vec<F> {
        let wanted = length.saturating_mul(size_of::<F>());
        let fits = |buffer: &Vec<F>| buffer.capacity() >= length && bytes(buffer) / 2 <= wanted;
        let mut kept = self.lock();
        let found = kept.iter().rposition(fits).map(|at| kept.remove(at));
        // The allocator is not asked under the lock.
        drop(kept);
        found.unwrap_or_else(|| Vec::with_capacity(length))
    }

    /// As [`give_back`], to these, of which at most `limit` bytes are kept.
    fn give_back(&self, mut elements: Vec<F>, limit: usize) {
        if (LARGE..=limit).contains(&bytes(&elements)) {
            elements.clear();
            self.lock().push(elements);
            self.shrink(limit);
        }
    }

    /// Gives the oldest back to the allocator until all together have at most `limit` bytes.
    fn shrink(&self, limit: usize) {
        let mut kept = self.lock();
        let mut bytes: usize = kept.iter().map(bytes).sum();
        let surplus = kept
            .iter()
            .take_while(|buffer| {
                let is_surplus = bytes > limit;
                bytes -= if is_surplus { self::bytes(buffer) } else { 0 };
                is_surplus
            })
            .count();
        let surplus: Vec<Vec<F>> = kept.drain(..surplus).collect();
        // Unmapping takes long: not under the lock.
        drop(kept);
        drop(surplus);
    }
}

/// The memory of a buffer.
fn bytes<F>(buffer: &Vec<F>) -> usize {
    buffer.capacity() * size_of::<F>()
}

/// An empty vector with room for `length` elements: one that was given back, if there is one of at most twice the size.
pub fn take<F: Element>(length: usize) -> Vec<F> {
    if length.saturating_mul(size_of::<F>()) < LARGE {
        return Vec::with_capacity(length);
    }
    F::kept().take(length)
}

/// A vector of `length` zeros.
pub fn zeros<F: Element>(length: usize) -> Vec<F> {
    let mut buffer = take(length);
    buffer.resize(length, F::ZERO);
    buffer
}

/// Keeps the memory of elements that nobody needs any more for a later result. Engines call it when a tensor's elements
/// are dropped.
pub fn give_back<F: Element>(elements: Vec<F>) {
    F::kept().give_back(elements, LIMIT.load(Ordering::Relaxed));
}

/// The most bytes of large results that are kept for later ones, for each element type: 1 GiB unless this says otherwise.
pub fn set_kept_memory(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
    f32::kept().shrink(bytes);
    f64::kept().shrink(bytes);
}

/// Gives all memory that is kept for later results back to the system.
pub fn release_memory() {
    f32::kept().shrink(0);
    f64::kept().shrink(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements of `LARGE` bytes.
    const COUNT: usize = LARGE / size_of::<f64>();

    #[test]
    fn memory_comes_back_where_it_fits() {
        let kept = Kept::<f64>::new();
        let mut first = kept.take(COUNT + 7);
        first.push(1.0);
        let address = first.as_ptr();
        kept.give_back(first, KEPT);
        // Too small for one, and more than twice as large as the other.
        for length in [COUNT + 8, COUNT / 2] {
            assert!(kept.take(length).capacity() >= length);
            assert_eq!(kept.lock().len(), 1);
        }
        let again = kept.take(COUNT);
        assert_eq!((again.as_ptr(), again.len(), kept.lock().len()), (address, 0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let kept = Kept::<f64>::new();
        let limit = 3 * LARGE;
        kept.give_back(vec![0.0; COUNT - 1], limit);
        kept.give_back(vec![0.0; 3 * COUNT + 1], limit);
        assert_eq!(kept.lock().len(), 0, "too small, and larger than all that may be kept");
        for size in [COUNT, COUNT + 1, COUNT + 2, COUNT + 3] {
            kept.give_back(Vec::with_capacity(size), limit);
        }
        // The oldest went.
        let sizes: Vec<usize> = kept.lock().iter().map(Vec::capacity).collect();
        assert_eq!(sizes, [COUNT + 2, COUNT + 3]);
        kept.shrink(0);
        assert_eq!(kept.lock().len(), 0);
    }
}
