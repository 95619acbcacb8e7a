//! Weighting and reducing: the last step of every loss, in one place.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use image_losses_kernels::map::Map;
use image_losses_kernels::once::get_or_make;
use image_losses_kernels::{check_length, checked_count};

use crate::kernels::{Array, count};
use crate::{Error, Expr, Extent, Function, Input, Pointwise, PointwiseLoss, Result, Scalar, Tensor};

/// Added to a sum of weights before dividing by it, as MMagic does.
const EPSILON: f64 = 1e-12;

/// What becomes of the unreduced map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Reduction {
    /// The (weighted) map itself.
    None,
    /// Its mean; with a weight, Σ w·d / (Σ w + 1e-12), w counted once per element of d.
    #[default]
    Mean,
    /// Its sum.
    Sum,
}

/// A reduction with its options.
///
/// With d the unreduced map, w the weight, λ the `loss_weight`:
///
/// | `reduction` | without weight | with weight |
/// |---|---|---|
/// | `none` | λ·d | λ·w·d |
/// | `sum` | λ·Σ d | λ·Σ w·d |
/// | `mean` | λ·mean d | λ·Σ w·d / (Σ w + 1e-12) |
/// | `mean`, `sample_wise` | λ·mean d | λ/N · Σₙ [Σ wₙ·dₙ / (Σ wₙ + 1e-12)] |
///
/// A weight of shape (N, 1, …) counts once for every channel of d. Where the weights sum to zero the result is exactly
/// 0 with zero gradient, in every element type. A weight of exactly 0 takes its pixel out, whatever the inputs hold
/// there: value, gradient and the gradient by the weight are 0, also for an infinite pixel and for NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reducer {
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// None, mean or sum.
    pub reduction: Reduction,
    /// Average each sample by its own weights first; acts with `mean` and a weight.
    pub sample_wise: bool,
}

impl Default for Reducer {
    fn default() -> Self {
        Reducer { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false }
    }
}

/// Checks the inputs of a pointwise loss with a mean or a sum, and hands its map with weights and factors to `compute`.
pub(crate) fn fused<const K: usize, F: Scalar, L: PointwiseLoss<K>, R>(
    loss: &L,
    inputs: [Array<'_, F>; K],
    weight: Option<Array<'_, F>>,
    compute: impl FnOnce(Map<'_, F>) -> Result<R>,
) -> Result<R> {
    loss.check()?;
    let shapes = inputs.map(|input| input.shape);
    let shape = check_inputs(L::NAME, &L::INPUTS, &shapes)?;
    for array in inputs.iter().chain(&weight) {
        check_length(L::NAME, array.data.len(), array.shape)?;
    }
    if let Some(weight) = weight {
        check_weight(L::NAME, shape, weight.shape)?;
    }
    let function = Function::new(loss.clone());
    let reducer = loss.reducer();
    if reducer.reduction == Reduction::None {
        return Err(Error::option(L::NAME, "reduction", "mean or sum for a value with gradients", "none"));
    }
    let repeats = |weight: &Array<'_, F>| count(shape) as f64 / count(weight.shape) as f64;
    let inverse = |sum: f64| if sum == 0.0 { 0.0 } else { 1.0 / (sum + EPSILON) };
    // Multipliers of each sample, or of all: one of 0 takes everything out.
    let mut samples = Vec::new();
    let mut sample_shape = vec![1; shape.len()];
    let scale = match (reducer.reduction, &weight) {
        (Reduction::Mean, None) => reducer.loss_weight / count(shape) as f64,
        (Reduction::Mean, Some(weight)) if reducer.sample_wise => {
            sample_shape[0] = shape[0];
            let repeats = repeats(weight);
            samples = weight
                .data
                .chunks(count(&weight.shape[1..]))
                .map(|sample| F::from_f64(inverse(image_losses_kernels::sum(sample) * repeats)))
                .collect();
            reducer.loss_weight / shape[0] as f64
        }
        (Reduction::Mean, Some(weight)) => {
            let inverse = inverse(image_losses_kernels::sum(weight.data) * repeats(weight));
            if inverse == 0.0 {
                samples = vec![F::ZERO];
            }
            reducer.loss_weight * inverse
        }
        _ => reducer.loss_weight,
    };
    let mut multipliers: Vec<Array<'_, F>> = weight.into_iter().collect();
    if !samples.is_empty() {
        multipliers.push(Array { shape: &sample_shape, data: &samples });
    }
    compute(Map::new(&function, &inputs, &multipliers, shape, scale))
}

impl Reducer {
    /// Checks the shapes, maps, weighs and reduces.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] where full inputs differ, [`Error::ShapeRule`] for a rank under 2,
    /// [`Error::WeightShape`] for a weight that is neither (N, 1, …) nor (N, C, …), [`Error::Empty`] for no elements.
    pub fn reduce<T: Tensor>(
        &self,
        operation: &'static str,
        function: &Function,
        names: &[Input],
        inputs: &[&T],
        weight: Option<&T>,
    ) -> Result<T> {
        let shapes: Vec<_> = inputs.iter().map(|input| input.shape()).collect();
        let views: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let shape = check_inputs(operation, names, &views)?;
        let weight_shape = weight.map(Tensor::shape);
        if let Some(weight_shape) = &weight_shape {
            check_weight(operation, shape, weight_shape)?;
        }
        let scale = self.loss_weight;
        let sum = |weight: Option<&T>, factor: Option<&T>, scale: f64| {
            T::map_reduce(function, inputs, weight, factor, scale, Extent::Sum)
        };
        let result = match (self.reduction, weight) {
            (Reduction::None, weight) => T::map_reduce(function, inputs, weight, None, scale, Extent::Map),
            (Reduction::Sum, weight) => sum(weight, None, scale),
            (Reduction::Mean, None) => sum(None, None, scale / count(shape) as f64),
            (Reduction::Mean, Some(weight)) => {
                let weight = weight.accumulator()?;
                let repeats = count(shape) as f64 / weight.elements() as f64;
                if self.sample_wise {
                    let weight = weight.unless_zero(&weight, 0.0)?;
                    let axes: Vec<usize> = (1..shape.len()).collect();
                    let total = weight.sum(&axes, true)?.scale(repeats)?;
                    sum(Some(&weight.mul(&reciprocal(&total)?)?), None, scale / shape[0] as f64)
                } else {
                    let total = total_weight(&weight)?.scale(repeats)?;
                    sum(Some(&weight), Some(&reciprocal(&total)?), scale)
                }
            }
        }?;
        match inputs.first() {
            Some(first) => result.cast_like(first),
            None => Ok(result),
        }
    }
}

/// `sum` / (`total` + 1e-12), and exactly 0 where `total` is 0: the division that ends every weighted mean.
///
/// # Errors
/// [`Error::Broadcast`] where the shapes do not fit.
pub fn weighted_mean<T: Tensor>(sum: &T, total: &T) -> Result<T> {
    // A product of tensors, not a quotient in one pointwise function: where a sum has overflowed, its own gradient is
    // still the reciprocal alone.
    let zero = T::constant(&total.context(), &[0.0], &vec![1; total.rank()])?;
    total.if_zero(&zero, &sum.mul(&reciprocal(total)?)?)
}

/// The sum of the weights; its gradient by a weight of 0 is 0, since that takes its pixel out.
///
/// # Errors
/// The engine's own.
pub fn total_weight<T: Tensor>(weight: &T) -> Result<T> {
    static ONE: OnceLock<Function> = OnceLock::new();
    if !weight.fuses() {
        return weight.unless_zero(weight, 0.0)?.sum_all();
    }
    // 1, weighted: kernels make no tensor.
    T::map_reduce(get_or_make(&ONE, || Function::new(One)), &[weight], Some(weight), None, 1.0, Extent::Sum)
}

/// 1.
#[derive(Clone, Copy, Debug)]
struct One;

impl Pointwise<1> for One {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        x.constant(1.0)
    }
}

/// 1 / (`total` + 1e-12), and exactly 0 where `total` is 0.
fn reciprocal<T: Tensor>(total: &T) -> Result<T> {
    static GUARDED_RECIPROCAL: OnceLock<Function> = OnceLock::new();
    T::pointwise(get_or_make(&GUARDED_RECIPROCAL, || Function::new(GuardedReciprocal)), &[total])
}

/// 1/(x + 1e-12), 0 where x = 0.
#[derive(Clone, Copy, Debug)]
struct GuardedReciprocal;

impl Pointwise<1> for GuardedReciprocal {
    fn value<'e>(&self, [total]: [Expr<'e>; 1]) -> Expr<'e> {
        // The divisor is replaced before dividing: no infinity arises in the branch that is not taken.
        let one = total.constant(1.0);
        total.if_zero(total.constant(0.0), one / total.if_zero(one, total + EPSILON))
    }
}

/// Refuses shapes that do not fit; returns the full one.
fn check_inputs<'a>(operation: &'static str, names: &[Input], shapes: &[&'a [usize]]) -> Result<&'a [usize]> {
    if names.len() != shapes.len() {
        return Err(Error::InputCount { operation, expected: names.len(), got: shapes.len() });
    }
    let mut full: Option<&[usize]> = None;
    for (input, &shape) in names.iter().zip(shapes) {
        if shape.len() < 2 {
            return Err(Error::ShapeRule {
                operation,
                argument: input.name,
                expected: "rank at least 2 (batch, channels, …)".into(),
                got: shape.to_vec(),
            });
        }
        match full {
            _ if input.per_pixel => {}
            None => full = Some(shape),
            Some(expected) if expected == shape => {}
            Some(expected) => {
                return Err(Error::ShapeMismatch {
                    operation,
                    argument: input.name,
                    expected: expected.to_vec(),
                    got: shape.to_vec(),
                });
            }
        }
    }
    let full = full.ok_or(Error::InputCount { operation, expected: 1, got: 0 })?;
    for (input, &shape) in names.iter().zip(shapes) {
        if input.per_pixel && shape != per_pixel(full) {
            return Err(Error::ShapeMismatch {
                operation,
                argument: input.name,
                expected: per_pixel(full),
                got: shape.to_vec(),
            });
        }
    }
    if checked_count(operation, names[0].name, full)? == 0 {
        return Err(Error::Empty { operation, argument: names[0].name, got: full.to_vec() });
    }
    Ok(full)
}

/// The shape with one channel.
fn per_pixel(shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape[1] = 1;
    shape
}

/// Refuses a weight that is neither per pixel nor per element.
pub(crate) fn check_weight(operation: &'static str, shape: &[usize], weight: &[usize]) -> Result<()> {
    let per_pixel = per_pixel(shape);
    if weight == shape || weight == per_pixel {
        return Ok(());
    }
    Err(Error::WeightShape { operation, per_pixel, per_element: shape.to_vec(), got: weight.to_vec() })
}

/// Refuses a number that is not finite.
///
/// # Errors
/// [`Error::InvalidOption`] otherwise.
pub fn finite(owner: &'static str, option: &'static str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::option(owner, option, "finite", value)) }
}

/// Refuses a number that is not finite, or negative.
///
/// # Errors
/// [`Error::InvalidOption`] otherwise.
pub fn not_negative(owner: &'static str, option: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(Error::option(owner, option, "finite and at least 0", value))
    }
}

/// Refuses a number that is not finite, or not positive.
///
/// # Errors
/// [`Error::InvalidOption`] otherwise.
pub fn positive(owner: &'static str, option: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(Error::option(owner, option, "finite and above 0", value))
    }
}
