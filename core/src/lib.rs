//! Tensor traits, pointwise functions, fused reductions and kernels beneath `image-losses`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
pub mod frozen_function;
mod geometry;
pub mod gradcheck;
pub mod kernels;
mod linear;
mod pointwise;
mod primitive;
mod reduction;
mod scalar;
mod tensor;

pub use error::{Error, Result, Shape};
pub use geometry::{Conv2d, Pool2d};
pub use linear::LinearMap;
pub use pointwise::{Dual, Element, Function, Number, Pointwise, Tape};
pub use primitive::{Arithmetic, FusedOperation, Primitive, PrimitiveTensor, Selection, vjp};
pub use reduction::{Input, Loss, PointwiseLoss, Reducer, Reduction, finite, not_negative, positive, weighted_mean};
pub use scalar::Scalar;
pub use tensor::{DType, Differentiable, Extent, Interpolation, Tensor, Unary};
