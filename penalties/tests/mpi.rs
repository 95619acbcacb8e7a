//! Means over MPI processes: each with a part of the batch gives what one with the whole batch gives.
//!
//! Run by `scripts/test-mpi.sh` under `mpirun -n 2`; alone it is one process. Ends with a line `N passed, N failed`.

#[path = "it/support/mod.rs"]
mod support;

use image_losses_penalties::{Communicator, MpiCommunicator, mpi};
use mpi::traits::Communicator as _;

fn main() {
    let universe = mpi::initialize().expect("MPI starts once per process");
    let world = universe.world();
    let rank = world.rank() as usize;
    let communicator = MpiCommunicator::new(universe.world());
    let size = communicator.size();
    // What the caller started must be what MPI sees, or nothing is tested.
    let expected = std::env::var("IMAGE_LOSSES_MPI_PROCESSES").ok().and_then(|text| text.parse().ok());
    let mut results = vec![("number of processes".to_owned(), size == expected.unwrap_or(size))];
    let ranks = communicator.sum(rank as f64).expect("a sum of ranks");
    results.push(("sum of ranks".to_owned(), ranks == (size * (size - 1) / 2) as f64));
    for (name, difference) in support::processes::checks(rank, &communicator).expect("every check runs") {
        results.push((format!("{name}: {difference:.1e}"), difference < 1e-12));
    }
    // A failure in one process is a failure.
    let failed: Vec<bool> =
        results.iter().map(|(_, passed)| communicator.sum(f64::from(u8::from(!passed))) != Ok(0.0)).collect();
    let failures = failed.iter().filter(|failed| **failed).count();
    if rank == 0 {
        println!("{size} processes");
        for ((name, _), failed) in results.iter().zip(&failed) {
            println!("{} {name}", if *failed { "FAILED" } else { "ok" });
        }
        println!("{} passed, {failures} failed", results.len() - failures);
    }
    drop(communicator);
    drop(universe);
    if failures > 0 {
        std::process::exit(1);
    }
}
