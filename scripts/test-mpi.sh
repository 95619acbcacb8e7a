#!/bin/sh
# Runs the test of the `mpi` feature in several MPI processes (two, or as many as the argument says). Needs OpenMPI and
# libclang, which `.ci/setup` installs.
set -eu
cd "$(dirname "$0")/.."
processes="${1:-2}"

command -v mpicc >/dev/null && command -v mpirun >/dev/null || {
    echo "no mpicc or mpirun: .ci/setup installs OpenMPI and libclang" >&2
    exit 2
}

# Cargo starts the test through mpirun.
host="$(rustc -vV | sed -n 's/^host: //p')"
runner="CARGO_TARGET_$(printf '%s' "$host" | tr 'a-z-' 'A-Z_')_RUNNER"
export "$runner=mpirun -n $processes --allow-run-as-root --oversubscribe"
export IMAGE_LOSSES_MPI_PROCESSES="$processes"
exec cargo test --quiet --package image-losses-penalties --features mpi --test mpi
