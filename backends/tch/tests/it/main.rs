//! Tests of the tch engine: laws, agreement with the CPU engines, half precision, errors.

use laws::ENGINE;

mod gan;
mod half;
mod laws;
mod penalties;
mod perceptual;
mod pixelwise;
