//! The kernels beneath `image-losses`: functions of contiguous slices, and all of the workspace's `unsafe` code.
//!
//! For the crates of this workspace: users meet the crate `image-losses`, and versions of this one promise nothing. Every
//! public function checks in every build that a slice fills its shape, with products that cannot overflow; where one does
//! not, it stops with a panic, or returns an [`Error`] where its documentation says so.
//!
//! | module | computes |
//! |---|---|
//! | [`machine`], [`program`] | programs of pointwise functions, over blocks that stay in the first-level cache |
//! | [`map`] | a pointwise function of tensors, weighed, as a map or summed, with its gradients |
//! | [`stencil`] | the same over the responses of small filters |
//! | [`broadcast`] | elements in other places, repeated, summed |
//! | [`matmul`], [`conv`], [`pool`] | products, convolutions, pooling |
//! | [`winograd`] | convolutions of 3×3 with weights that stay the same |
//! | [`frozen`], [`residual`], [`vision_transformer`] | networks whose weights stay the same, with their gradients by the images |
//! | [`buffers`], [`stream`] | memory that is used again, stores past the caches |
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod broadcast;
pub mod buffers;
pub mod conv;
mod dense;
mod element;
mod embedding;
mod error;
pub mod frozen;
mod geometry;
pub mod isa;
pub mod lanes;
pub mod machine;
pub mod map;
pub mod matmul;
mod network_id;
pub mod once;
mod panels;
pub mod pool;
pub mod program;
pub mod residual;
mod shape;
mod simd;
mod spare;
pub mod stencil;
pub mod stream;
pub mod vision_transformer;
pub mod winograd;

pub use element::Element;
pub use error::{Error, Result, Shape};
pub use geometry::{Conv2d, Pool2d};
pub use network_id::NetworkId;
pub use program::{Programs, Unary};
pub use shape::{check_length, checked_count, count, count_in_memory, is_beyond};

/// A tensor's shape and its elements, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a, F> {
    /// The extents.
    pub shape: &'a [usize],
    /// The elements; as many as the extents' product.
    pub data: &'a [F],
}

/// Panics unless there are as many elements as the shape has.
#[track_caller]
fn assert_fills(what: &str, shape: &[usize], got: usize) {
    assert_eq!(count_in_memory(shape), Some(got), "{what} of shape {shape:?}");
}

/// The sum of a slice, in double precision over fixed blocks.
pub fn sum<F: Element>(values: &[F]) -> f64 {
    map::sum(isa::detect(), values)
}
