//! Processes that train together.

use crate::Result;

/// Processes that train together, each with its part of the batch.
///
/// [`SingleProcess`] is the only process there is; with the feature `mpi`, `MpiCommunicator` of the penalties speaks MPI.
/// Every process must make the same calls in the same order.
pub trait Communicator {
    /// The number of processes.
    fn size(&self) -> usize;
    /// The sum of every process's `value`, the same in all of them.
    ///
    /// # Errors
    /// [`Error::Engine`](crate::Error::Engine) where the exchange fails.
    fn sum(&self, value: f64) -> Result<f64>;
}

/// One process: every sum is its own value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SingleProcess;

impl Communicator for SingleProcess {
    fn size(&self) -> usize {
        1
    }
    fn sum(&self, value: f64) -> Result<f64> {
        Ok(value)
    }
}

/// A communicator, and how a number is read from the engine to be exchanged.
///
/// The tensor trait has no read-back: a lazy engine evaluates its graph for it. So the caller says how: for `autograd`
/// an evaluation of the session, for `tch` `double_value`.
#[derive(Clone, Copy)]
pub struct Processes<'a, T> {
    /// Exchanges the numbers.
    pub communicator: &'a dyn Communicator,
    /// The value of a tensor with one element.
    pub read: &'a dyn Fn(&T) -> Result<f64>,
}

impl<T> std::fmt::Debug for Processes<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processes").field("size", &self.communicator.size()).finish_non_exhaustive()
    }
}

impl<T> Processes<'_, T> {
    /// The number of processes, to scale by.
    pub fn size(&self) -> f64 {
        self.communicator.size() as f64
    }
    /// The sum of every process's `value`.
    ///
    /// # Errors
    /// The communicator's.
    pub fn sum(&self, value: f64) -> Result<f64> {
        self.communicator.sum(value)
    }
}
