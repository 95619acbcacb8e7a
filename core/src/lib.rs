//! Tensor traits, pointwise functions, fused reductions and kernels beneath `image-losses`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod geometry;
pub mod kernels;
mod scalar;

pub use error::{Error, Result, Shape};
pub use geometry::{Conv2d, Pool2d};
pub use scalar::Scalar;
