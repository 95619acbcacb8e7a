"""The peak memory of a perceptual loss with its gradient: ours and PyTorch's, each in a process of its own.

`cargo xtask memory` runs it. What counts is the largest resident set, as `wait4` reports it (and `/usr/bin/time -v`).
Exits with 1 where ours is larger or the values differ.
"""

import json
import os
import subprocess
import sys


def uniform(shape, seed):
    """The images of `cargo xtask bench`: SplitMix64 in [0, 1)."""
    import numpy

    count = numpy.prod(shape)
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(seed) + numpy.uint64(0x9E3779B97F4A7C15) * numpy.arange(1, count + 1, dtype=numpy.uint64)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z = z ^ (z >> numpy.uint64(31))
    return ((z >> numpy.uint64(40)).astype(numpy.float32) / numpy.float32(2**24)).reshape(shape)


def be_measured(description):
    """PyTorch's steps, and nothing else; prints the last value."""
    import torch

    torch.set_num_threads(description["threads"])
    if description["steps"] == 0:
        print("nan")
        return
    import bench_cases

    tensors = {
        name: torch.from_numpy(uniform(description["shape"], seed))
        for name, seed in (("prediction", 1), ("target", 2))
    }
    call = bench_cases.build(description, tensors)
    tensors["prediction"].requires_grad_(True)
    for _ in range(description["steps"]):
        value = call(tensors)
        torch.autograd.grad(value, tensors["prediction"])
    print(value.item())


def measure(command):
    """The last value and the peak in MiB."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    value = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[0]} ended with {child.returncode}")
    # Linux counts in KiB, macOS in bytes.
    return float(value), usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main():
    description = json.loads(sys.argv[1])
    if len(sys.argv) > 2:
        be_measured(description)
        return 0
    program, weights = description["program"], description["weights"]
    limits = ["--threads", str(description["threads"]), "--steps", str(description["steps"])]

    def ours(way):
        return [program, "memory", *limits, "--weights", weights, "--contestant", way]

    def theirs(steps):
        return [sys.executable, os.path.abspath(__file__), json.dumps(description | {"steps": steps}), "measured"]

    expected, limit = measure(theirs(description["steps"]))
    _, imported = measure(theirs(0))
    print("VGG-19 perceptual loss with image gradient,", "×".join(map(str, description["shape"])))
    print(f"{'PyTorch':10} {limit:8.0f} MiB   (of which {imported:.0f} MiB before any work)")
    is_good = True
    for way in ("plain", "autograd"):
        value, peak = measure(ours(way))
        agrees = abs(value - expected) <= 1e-4 * abs(expected)
        is_good = is_good and agrees and peak <= limit
        print(f"{way:10} {peak:8.0f} MiB   {'' if agrees else f'value {value} differs from {expected}'}".rstrip())
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
