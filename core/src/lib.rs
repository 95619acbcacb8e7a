//! Tensor traits, pointwise functions, fused reductions and kernels beneath `image-losses`.
//!
//! Most users want the crate `image-losses` and meet this one as its module `core`. What is here, by what you write:
//!
//! | you write | implement | over |
//! |---|---|---|
//! | a loss that is a function of each pixel | [`Pointwise`] and [`PointwiseLoss`] | [`Expr`] |
//! | a loss of each pixel and its neighbours | [`Loss`], with a [`Stencil`] | [`Expr`] |
//! | any other loss of tensors | [`Loss`] | [`Tensor`] |
//! | a loss of networks, or with a state | a `forward` of its own, and [`config::Configurable`] | [`Differentiable`] |
//! | an engine | the six required methods of [`Tensor`], and [`Differentiable`] if it can | its tensor, and [`Op`] |
//! | a frozen network in one operation | [`Custom`] | [`frozen_function`] |
//!
//! A pointwise function is written once over [`Expr`], and is data then: its derivatives are symbolic, a small machine runs
//! it over blocks that stay in the first-level cache, and engines without our kernels run it operation by operation.
//! Weights and reductions are [`Reducer`]'s, for every loss alike. A loss is its own options, and says its name, formula
//! and source as [`Declared`]. [`gradcheck`] compares derivatives with central differences.
//!
//! ```
//! use image_losses_core::{Expr, Function, Pointwise};
//!
//! /// (x − y)⁴
//! #[derive(Clone, Debug)]
//! struct Quartic;
//!
//! impl Pointwise<2> for Quartic {
//!     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
//!         (x - y).square().square()
//!     }
//! }
//!
//! let quartic = Function::new(Quartic);
//! let (x, y) = ([3.0f64], [1.0f64]);
//! assert_eq!(quartic.at(&[], &[&x[..], &y])?, [16.0]); // d⁴
//! assert_eq!(quartic.at(&[0], &[&x[..], &y])?, [32.0]); // 4d³
//! assert_eq!(quartic.at(&[0, 1], &[&x[..], &y])?, [-48.0]); // −12d²
//! # Ok::<(), image_losses_core::Error>(())
//! ```
//!
//! # The same bits
//! On one machine every result has the same bits on any number of threads, and with any instruction set that the
//! environment variable `IMAGE_LOSSES_ISA` forces.
//!
//! Another processor, operating system or C library computes the same bits too, except for what the following take part
//! in:
//! - logarithm and hyperbolic tangent, in double precision also the exponential and what is made of it (sigmoid,
//!   softplus): these are the C library's, which the variable does not reach. In single precision exponential, sigmoid and
//!   softplus are this crate's.
//! - Fourier transforms: the crate `rustfft` chooses their vectors by the processor, whatever the variable says.
//! - on x86-64 without fused multiply-adds (before AVX2): matrix products of tensors, convolutions in tensor operations with
//!   more than one channel in a group, and in the frozen networks Gram matrices, attention and the convolutions that are
//!   not made for them (strided or dilated ones, and large kernels of many channels). Products are rounded there before
//!   they are added. Where the processor has AVX2, the variable forces no less for them.
//!
//! Names no loss and no engine, and has no `unsafe` code: that is the crate `image-losses-kernels`. A wrong shape or option
//! is an [`Error`] with what was expected and what came.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod broadcast;
pub mod config;
mod fft;
pub mod frozen_function;
pub mod gradcheck;
pub mod kernels;
mod linear;
mod loss;
pub mod op;
mod pointwise;
mod reduction;
mod scalar;
mod shapes;
mod side;
mod stencil;
mod tensor;

pub use image_losses_kernels::{
    Conv2d, Element, Error, NetworkId, Pool2d, Result, Shape, Unary, check_length, checked_count,
};
pub use linear::LinearMap;
pub use loss::{About, Declared, Described, Input, Loss, PointwiseLoss, Reduced, ValueAndGradients, Visitor};
pub use op::{Custom, Op};
pub use pointwise::{Expr, Function, Pointwise};
pub use reduction::{Reducer, Reduction, finite, not_negative, positive, total_weight, weighted_mean};
pub use scalar::Scalar;
pub use shapes::{no_weight, same_images, same_shape};
pub use side::{On, Side};
pub use stencil::{Along, Filter, Stencil};
pub use tensor::{DType, Differentiable, Extent, Interpolation, Literal, Tensor};

/// The page of the registry.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
