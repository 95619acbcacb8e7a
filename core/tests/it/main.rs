//! Tests of the reductions, the stencils and the gradient checker. The kernels' `tests/tiny.rs` is what an interpreter finishes.

mod gradcheck;
mod reductions;
mod stencil;
