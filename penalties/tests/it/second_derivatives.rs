//! The penalties' gradients with respect to every network parameter against central differences, on autograd.

use crate::support::{Engine, Penalty, Program, Values, critic, generator, second_derivative_error};
use image_losses_autograd::differentiate;
use image_losses_core::Result;
use image_losses_laws::drawn;
use image_losses_penalties::{
    GeneratorPathRegularizer, GradientPenaltyLoss, Interpolation, NormMode, PathLengthState, R1GradientPenalty,
};
use proptest::prelude::*;

struct Autograd;
const ENGINE: Autograd = Autograd;
const CASES: u32 = 64;

impl Engine for Autograd {
    fn differentiate(&self, inputs: &[Values], program: &impl Program) -> Result<(f64, Vec<Vec<f64>>)> {
        let (value, gradients) = differentiate(inputs, |inputs| program.run(inputs, None))?;
        Ok((value[0], gradients))
    }
}

include!("support/second_derivatives.rs");
