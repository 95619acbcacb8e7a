//! Means over several processes: threads that exchange numbers stand for them.

use std::sync::{Barrier, Mutex};

use image_losses_autograd::run;
use image_losses_core::Result;
use image_losses_penalties::{Communicator, Processes, SingleProcess, global_masked_mean};

/// One thread of several that sum together.
struct Thread<'a> {
    rank: usize,
    slots: &'a Mutex<Vec<f64>>,
    barrier: &'a Barrier,
}

impl Communicator for Thread<'_> {
    fn size(&self) -> usize {
        self.slots.lock().unwrap().len()
    }
    fn sum(&self, value: f64) -> Result<f64> {
        self.slots.lock().unwrap()[self.rank] = value;
        self.barrier.wait();
        let sum = self.slots.lock().unwrap().iter().sum();
        self.barrier.wait();
        Ok(sum)
    }
}

#[test]
fn parts_of_a_batch_give_what_the_whole_gives() {
    for size in [1, 2, 3] {
        let (slots, barrier) = (Mutex::new(vec![0.0; size]), Barrier::new(size));
        let results: Vec<_> = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..size)
                .map(|rank| {
                    let (slots, barrier) = (&slots, &barrier);
                    scope.spawn(move || {
                        crate::support::processes::checks(rank, &Thread { rank, slots, barrier }).unwrap()
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert!(results.iter().all(|result| result.len() == 16));
        for (name, difference) in results.concat() {
            assert!(difference < 1e-12, "{size} processes, {name}: {difference}");
        }
    }
}

#[test]
fn a_mask_that_is_zero_everywhere_gives_zero() {
    let value = run(|session| {
        let map = session.input(vec![3.0f64; 4], &[2, 2])?;
        let mask = session.input(vec![0.0; 2], &[2, 1])?;
        let read = |tensor: &_| Ok(session.evaluate(&[tensor])?[0][0]);
        let processes = Processes { communicator: &SingleProcess, read: &read };
        let mean = global_masked_mean(&map, Some(&mask), &processes)?;
        Ok::<_, image_losses_core::Error>(session.evaluate(&[&mean])?[0][0])
    });
    assert_eq!(value, Ok(0.0));
}
