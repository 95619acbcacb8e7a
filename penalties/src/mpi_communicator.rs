//! Processes that exchange their numbers through MPI.

use image_losses_core::{Error, Result};
use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives as _};

use crate::Communicator;

/// The processes of an MPI communicator.
///
/// ```no_run
/// use image_losses_penalties::{Communicator, MpiCommunicator, mpi};
/// use mpi::traits::Communicator as _;
///
/// let universe = mpi::initialize().expect("MPI starts once per process");
/// let processes = MpiCommunicator::new(universe.world());
/// let total = processes.sum(1.0)?;
/// assert_eq!(total, processes.size() as f64);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
pub struct MpiCommunicator {
    world: SimpleCommunicator,
}

impl std::fmt::Debug for MpiCommunicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MpiCommunicator").field("size", &self.world.size()).field("rank", &self.world.rank()).finish()
    }
}

impl MpiCommunicator {
    /// The processes of a communicator; MPI must stay initialised as long as it is used.
    pub fn new(world: SimpleCommunicator) -> Self {
        MpiCommunicator { world }
    }
}

impl Communicator for MpiCommunicator {
    fn size(&self) -> usize {
        self.world.size() as usize
    }
    fn sum(&self, value: f64) -> Result<f64> {
        let mut total = f64::NAN;
        self.world.all_reduce_into(&value, &mut total, SystemOperation::sum());
        // A failing exchange ends the process (MPI's own error handler); this is the one failure that it can leave.
        if total.is_nan() && !value.is_nan() {
            let message = "the sum over the processes is NaN".to_owned();
            return Err(Error::Engine { engine: "mpi", message });
        }
        Ok(total)
    }
}
