#![no_main]
//! A reference file, as `cargo xtask verify` reads it.
//!
//! ```text
//! cargo fuzz run --sanitizer none reference -- -max_len=8192 -rss_limit_mb=512 -max_total_time=600
//! ```

#[allow(dead_code)] // The command uses the rest.
#[path = "../../src/verify/case.rs"]
mod case;

/// What stops the command.
type Stop = String;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(case) = case::Case::parse("fuzz", data) else { return };
    let of_case = case.inputs.values().chain(case.parameters.values()).chain(case.values.values());
    for array in of_case.chain(case.cotangents.values()).chain(case.gradients.values()) {
        assert_eq!(array.values.len(), array.shape.iter().product::<usize>());
    }
});
