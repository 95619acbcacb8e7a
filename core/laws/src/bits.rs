//! The same bits for any number of threads and on any instruction set.
//!
//! The instruction set is chosen once per process: the test starts its own binary again, once per choice, and compares
//! digests of values and gradients.

use std::process::{Command, Stdio};

use image_losses_core::DType;
use image_losses_core::kernels::count;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::{Case, Cpu, Engine, Lawful, Network, Rank, Takes, Weight, drawn};

/// Set in a process that is to print its digests and do nothing else.
const ONLY: &str = "IMAGE_LOSSES_LAWS_BITS";
/// What precedes a digest in the output.
const MARK: &str = "laws-bits ";
/// Of a digest.
const DIGITS: usize = 16;

/// This process is one of those that only print their digests.
pub(crate) fn only() -> bool {
    std::env::var_os(ONLY).is_some()
}

/// Prints the digest of these losses.
pub(crate) fn report<const K: usize, L: Lawful<K>>(losses: &impl Strategy<Value = L>, takes: Takes<K>) {
    println!("\n{MARK}{}", line(losses, takes));
}

/// Asserts that processes with other instruction sets and numbers of threads compute the same bits.
pub(crate) fn same<const K: usize, L: Lawful<K>>(losses: &impl Strategy<Value = L>, takes: Takes<K>) {
    // A network is prepared anew in each process: for it there are no more than one for each instruction set, on one
    // thread, beside this one on all.
    let settings = [("avx2", "1"), ("avx512", "1"), ("portable", "1"), ("avx512", "2"), ("portable", "2")];
    let processes = match takes.network {
        None => 5,
        Some(network) if network.deep => 2,
        Some(_) => 3,
    };
    let start = |(isa, threads): (&'static str, &'static str)| {
        let mut child = Command::new(std::env::current_exe().expect("the path of this test"));
        // With one test thread the name is that of the process's first thread: then all tests print their digests.
        if let Some(test) = std::thread::current().name().filter(|&name| name != "main") {
            child.args([test, "--exact"]);
        }
        let child = child.args(["--nocapture", "--test-threads=1"]).env(ONLY, "1");
        let child = child.env("IMAGE_LOSSES_ISA", isa).env("RAYON_NUM_THREADS", threads);
        (isa, threads, child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a process"))
    };
    // Side by side: most of them have one thread.
    let started: Vec<_> = settings.into_iter().take(processes).map(start).collect();
    let own = line(losses, takes);
    let what = &own[DIGITS..];
    for (isa, threads, child) in started {
        let output = child.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut found = text.lines().filter_map(|line| line.strip_prefix(MARK)).filter(|line| line.ends_with(what));
        assert!(found.any(|line| line == own), "bits: others on {isa} with {threads} threads: {own}, {text}");
    }
}

/// A digest and what it is of.
fn line<const K: usize, L: Lawful<K>>(losses: &impl Strategy<Value = L>, takes: Takes<K>) -> String {
    let rounds = if takes.network.is_some() { 1 } else { 3 };
    // A process that is started inherits the seed.
    let mut runner = TestRunner::new(drawn(rounds));
    let mut digest = 0xcbf2_9ce4_8422_2325u64;
    let mut first = None;
    for round in 0..rounds {
        let loss = losses.new_tree(&mut runner).expect("a loss").current();
        // More than one block of the kernels, and a remainder.
        let shape = match (takes.network, takes.rank) {
            (Some(Network { size: [height, width], .. }), _) => vec![1, takes.channels.unwrap_or(3), height, width],
            (_, Rank::Scores) => vec![9003],
            _ => vec![2, takes.channels.unwrap_or(3), 37, 41],
        };
        let number = |seed: usize| move |i: usize| ((i * 7919 + seed * 104_729) % 4099) as f64 / 2048.0 - 1.0;
        let shapes = takes.shapes(&shape);
        let inputs = std::array::from_fn(|k| (0..count(&shapes[k])).map(number(k + 1)).collect());
        let weight = (takes.weight == Weight::Taken && round > 0).then(|| {
            let shape = if round == 1 { crate::case::per_pixel(&shape) } else { shape.clone() };
            ((0..count(&shape)).map(number(17)).map(f64::abs).collect(), shape)
        });
        let case = Case { shape, shapes, inputs, weight };
        // In double precision a network is composed of operations, whose bits the kernels' own tests compare.
        let dtypes = if takes.network.is_some() { &[DType::F32][..] } else { &[DType::F32, DType::F64] };
        for &dtype in dtypes {
            let plain = Cpu.value(&loss, &case, dtype).expect("a value");
            let derived = if takes.network.is_some() {
                Cpu.trained(&loss, &case, dtype)
            } else {
                Cpu.derived(&loss, &case, dtype, None)
            };
            let (value, gradients, _) = derived.expect("derivatives");
            for number in plain.iter().chain(&value).chain(gradients.iter().flatten()) {
                // FNV-1a over words.
                digest = (digest ^ number.to_bits()).wrapping_mul(0x0100_0000_01b3);
            }
        }
        first.get_or_insert_with(|| format!("{loss:?}"));
    }
    format!("{digest:016x} {} {}", std::any::type_name::<L>(), first.unwrap_or_default())
}
