//! How every test draws.

use proptest::test_runner::{Config, RngSeed};

/// The seed that every test draws from, unless `PROPTEST_RNG_SEED` names another.
const SEED: u64 = 20_260_214;

/// The configuration of every test that draws: `cases` cases, or as many as `PROPTEST_CASES` says, from a fixed seed, so
/// that a test passes always or never. No file remembers a failure: its seed reproduces it.
///
/// `cargo xtask test --fresh-seeds N` finds such a test by its name: it begins with `drawn_`, or the test stands in a
/// module `laws`.
///
/// # Panics
/// Where it is called from a test with another name.
pub fn drawn(cases: u32) -> Config {
    // With one test thread the test runs in the process's first thread, which has no test's name.
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("main");
    let found = name.starts_with("drawn_") || name.starts_with("laws::");
    let found = found || name.contains("::drawn_") || name.contains("::laws::");
    assert!(found || name == "main", "{name} draws: a name that begins with `drawn_` says so");
    let named = Config::default();
    Config {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { named.cases } else { cases },
        rng_seed: if named.rng_seed == RngSeed::Random { RngSeed::Fixed(SEED) } else { named.rng_seed },
        failure_persistence: None,
        ..named
    }
}
