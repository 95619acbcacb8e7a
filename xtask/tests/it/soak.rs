//! A short `soak`, alone in its process: its memory is flat, and a limit below nothing is exceeded.

use std::process::Command;

#[test]
fn a_short_run_is_flat_and_a_limit_below_nothing_is_exceeded() {
    let code = |growth: &str| {
        let soak = ["soak", "--steps", "600", growth];
        Command::new(env!("CARGO_BIN_EXE_xtask")).args(soak).status().unwrap().code()
    };
    if std::fs::exists("/proc/self/status").unwrap() {
        assert_eq!(code("--growth=8"), Some(0));
        assert_eq!(code("--growth=-1e6"), Some(1));
    } else {
        assert_eq!(code("--growth=8"), Some(2));
    }
}
