//! Memory of large results, used again: fresh memory costs a page fault every 4 KiB, several times what a kernel takes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Scalar;

/// Bytes below which memory comes from the allocator, which has it at hand.
const LARGE: usize = 1 << 20;
/// The most bytes that are kept, unless [`set_kept_memory`] says otherwise.
const KEPT: usize = 1 << 30;

static LIMIT: AtomicUsize = AtomicUsize::new(KEPT);

/// Buffers of one element type that nobody uses, the one given back last at the end.
#[doc(hidden)]
#[derive(Debug)]
pub struct Kept<F>(Mutex<Vec<Vec<F>>>);

impl<F: Scalar> Kept<F> {
    pub(crate) const fn new() -> Self {
        Kept(Mutex::new(Vec::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<F>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(crate) fn take<F: Scalar>(length: usize) -> Vec<F> {
    let wanted = length.saturating_mul(size_of::<F>());
    if wanted < LARGE {
        return Vec::with_capacity(length);
    }
    let mut kept = F::kept().lock();
    let fits = |buffer: &Vec<F>| buffer.capacity() >= length && bytes(buffer) / 2 <= wanted;
    match kept.iter().rposition(fits) {
        Some(at) => kept.remove(at),
        None => {
            drop(kept);
            Vec::with_capacity(length)
        }
    }
}

/// A vector of `length` zeros.
pub(crate) fn zeros<F: Scalar>(length: usize) -> Vec<F> {
    let mut buffer = take(length);
    buffer.resize(length, F::ZERO);
    buffer
}

/// Keeps the memory of elements that nobody needs any more for a later result. Engines call it when a tensor's elements
/// are dropped.
pub fn give_back<F: Scalar>(mut elements: Vec<F>) {
    let limit = LIMIT.load(Ordering::Relaxed);
    if bytes(&elements) < LARGE || bytes(&elements) > limit {
        return;
    }
    elements.clear();
    let kept = F::kept();
    kept.lock().push(elements);
    kept.shrink(limit);
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

    /// The buffers kept of one type, alone: the tests of one process share the pool.
    #[test]
    fn large_memory_comes_back_until_it_is_released() {
        let large = LARGE / size_of::<f64>();
        let mut first = take::<f64>(large + 7);
        first.push(1.0);
        let address = first.as_ptr();
        give_back(first);
        // Too small a buffer for one, and more than twice as large as the other.
        assert_ne!(take::<f64>(large + 8).as_ptr(), address);
        let again = take::<f64>(large);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        give_back(again);
        assert!(zeros::<f64>(large).iter().all(|&x| x == 0.0));
        release_memory();
        assert!(f64::kept().lock().is_empty());

        set_kept_memory(3 * LARGE);
        for _ in 0..5 {
            give_back(Vec::<f64>::with_capacity(large));
        }
        assert_eq!(f64::kept().lock().len(), 3);
        set_kept_memory(KEPT);
        release_memory();
    }
}
