#!/bin/sh
# The kernels in Miri, which sees undefined behaviour that no sanitizer does: on portable code, without the vector
# instructions that it cannot run, on inputs small enough for an interpreter: right use (kernels/tests/tiny.rs) and misuse of
# every public entry (kernels/tests/misuse.rs). Needs a nightly toolchain with the components miri and rust-src.
#
#   scripts/miri.sh [a filter of test names]
set -eu
cd "$(dirname "$0")/.."
toolchain=${SANITIZE_TOOLCHAIN:-nightly}
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/miri}"
# Threads of a pool live on when a test ends. Its queue (crossbeam-epoch) casts integers to pointers, and is right under
# tree borrows alone.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows -Zmiri-permissive-provenance ${MIRIFLAGS:-}"
# A backtrace for every panic that a test expects would take most of the time.
export IMAGE_LOSSES_ISA=portable RAYON_NUM_THREADS=2 RUST_BACKTRACE=0
cargo "+$toolchain" miri test --package image-losses-kernels --test tiny --test misuse -- "$@"
