#!/bin/sh
# The kernels' tests and the misuse of every public entry (kernels/tests/misuse.rs) under AddressSanitizer, on each
# instruction set: reads and writes out of bounds, use after free, leaks. kernels/tests/hangs.rs, which is about time, is left
# out. Without overflow checks and debug assertions, as in users' builds. Needs a nightly toolchain
# (`rustup toolchain install nightly`); Miri cannot run these kernels' intrinsics.
#
#   scripts/sanitize.sh [a filter of test names]
#
# The target is named so that build scripts and macros stay without the sanitizer.
set -eu
cd "$(dirname "$0")/.."
toolchain=${SANITIZE_TOOLCHAIN:-nightly}
target=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/sanitize}"
export RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes"
export CARGO_PROFILE_DEV_OVERFLOW_CHECKS=false CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false
# Proptest's own number of cases is for a build that is not several times slower.
export PROPTEST_CASES="${PROPTEST_CASES:-16}"
for isa in portable avx2 avx512; do
    echo "AddressSanitizer, $isa"
    IMAGE_LOSSES_ISA=$isa cargo "+$toolchain" test --package image-losses-kernels --package image-losses-core --target "$target" --lib \
        --test it --test misuse --test numbers --test bits --test tiny -- "$@"
done
echo "AddressSanitizer: nothing found on portable, avx2, avx512"
