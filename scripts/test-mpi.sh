#!/bin/sh
# Runs the test of the `mpi` feature in several MPI processes (two, or as many as the argument says). Installs OpenMPI
# and libclang from Debian's packages where they are missing.
set -eu
cd "$(dirname "$0")/.."
processes="${1:-2}"

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1
}
if ! command -v mpicc >/dev/null || ! command -v mpirun >/dev/null || ! have_libclang; then
    as_root=""
    [ "$(id -u)" -eq 0 ] || as_root="sudo"
    $as_root apt-get update -q
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        libopenmpi-dev openmpi-bin clang libclang-dev
fi

# Cargo starts the test through mpirun.
host="$(rustc -vV | sed -n 's/^host: //p')"
runner="CARGO_TARGET_$(printf '%s' "$host" | tr 'a-z-' 'A-Z_')_RUNNER"
export "$runner=mpirun -n $processes --allow-run-as-root --oversubscribe"
export IMAGE_LOSSES_MPI_PROCESSES="$processes"
exec cargo test --quiet --package image-losses-penalties --features mpi --test mpi
