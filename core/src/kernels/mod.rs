//! Kernels on contiguous slices: what the CPU engines run.
