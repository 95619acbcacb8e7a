//! Sums of a function of neighbouring pixels: total variation, edges.

use std::sync::Arc;

use image_losses_kernels::isa;
use image_losses_kernels::stencil::{Stencil as Kernel, Taps};

use crate::kernels::Array;
use crate::op::{Custom, Op, perform};
use crate::reduction::check_weight;
use crate::{
    Error, Expr, Extent, Function, LinearMap, Pointwise, Result, Scalar, Shape, Tensor, total_weight, weighted_mean,
};

/// What a [`Filter`] does along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Along {
    /// Nothing.
    Pixel,
    /// The next element minus this one. The last has no response, unless it is the only one: then its neighbour is itself.
    Difference,
    /// The element before, this one and the next times these factors, zeros beyond the ends.
    Taps([f64; 3]),
}

impl Along {
    /// The factors around a pixel.
    fn taps(self) -> [f64; 3] {
        match self {
            Along::Pixel => [0.0, 1.0, 0.0],
            Along::Difference => [0.0, -1.0, 1.0],
            Along::Taps(taps) => taps,
        }
    }

    /// Whether the last element has no response.
    fn misses_last(self) -> bool {
        self == Along::Difference
    }
}

/// A small filter of images: along the height, then along the width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filter {
    /// Down the image.
    pub height: Along,
    /// Across it.
    pub width: Along,
}

impl Filter {
    /// The axes with what is done along them.
    fn axes(&self) -> [(usize, Along); 2] {
        [(2, self.height), (3, self.width)]
    }

    /// The filter's response at every pixel of images (N, C, H, W), composed of tensor operations; a
    /// [`Difference`](Along::Difference) gives one less along its axis.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a rank other than 4, [`Error::Empty`].
    pub fn apply<T: Tensor>(&self, images: &T) -> Result<T> {
        check("filter", &images.shape(), None, None)?;
        self.axes().into_iter().try_fold(images.clone(), |x, (axis, along)| match along {
            Along::Pixel => Ok(x),
            Along::Taps(taps) => correlate(&x, axis, taps),
            Along::Difference => {
                let [near, far] = neighbours(&x, axis)?;
                far.sub(&near)
            }
        })
    }

    /// The number of responses in images of shape `shape`.
    fn responses(&self, shape: &[usize]) -> usize {
        let answering = self.axes().map(|(axis, along)| (shape[axis] - usize::from(along.misses_last())).max(1));
        shape[..2].iter().chain(&answering).product()
    }
}

/// Σ w·f(S(x − y)) over each sample, for one or several small [`Filter`]s S: a loss of neighbouring pixels before it is
/// averaged.
///
/// Written once, like a pointwise function: the CPU engines compute the sums of all filters in one pass over the image and
/// their gradients in another, or both in one, to any order of derivative; other engines compose them of tensor operations.
///
/// ```
/// use image_losses_core::{Along, Expr, Filter, Pointwise, Stencil, Tensor};
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// /// |d|
/// #[derive(Clone, Copy, Debug)]
/// struct Magnitude;
///
/// impl Pointwise<1> for Magnitude {
///     fn value<'e>(&self, [d]: [Expr<'e>; 1]) -> Expr<'e> {
///         d.abs()
///     }
/// }
///
/// // |x_{i,j+1} − x_{i,j}|
/// let across = Filter { height: Along::Pixel, width: Along::Difference };
/// let image = NdTensor::new(array![[[[0.0f64, 1.0, 4.0], [2.0, 2.0, 7.0]]]]);
/// let sums = Stencil::new(Magnitude, [across]).sums("TotalVariation", &image, None, None, 1.0)?;
/// assert_eq!(sums[0].item()?, 9.0); // 1 + 3 and 0 + 5
/// # Ok::<(), image_losses_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stencil(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    /// f.
    function: Function,
    /// f(a − b).
    of_difference: Function,
    filters: Vec<Filter>,
    taps: Vec<Taps>,
}

/// f(a − b).
#[derive(Clone, Debug)]
struct OfDifference<P>(P);

impl<P: Pointwise<1>> Pointwise<2> for OfDifference<P> {
    fn value<'e>(&self, [a, b]: [Expr<'e>; 2]) -> Expr<'e> {
        self.0.value([a - b])
    }
}

impl Stencil {
    /// `function` of the responses of `filters`.
    pub fn new<P: Pointwise<1>>(function: P, filters: impl Into<Vec<Filter>>) -> Self {
        let filters = filters.into();
        let taps = |filter: &Filter| {
            let (rows, columns) = (filter.height.taps(), filter.width.taps());
            let all = (0..9).map(|at| ([at / 3, at % 3], rows[at / 3] * columns[at % 3]));
            Taps {
                taps: all.filter(|(_, factor)| *factor != 0.0).collect(),
                missing: filter.axes().map(|(_, along)| usize::from(along.misses_last())),
            }
        };
        let taps = filters.iter().map(taps).collect();
        let of_difference = Function::new(OfDifference(function.clone()));
        Stencil(Arc::new(Parts { function: Function::new(function), of_difference, filters, taps }))
    }

    /// `scale` · Σ w·f(S(x − y)) over each sample: a tensor of shape (N) for each filter.
    ///
    /// Images x and y: (N, C, H, W), each channel filtered by itself; y is 0 where there is none. Weight w, 1 where there is
    /// none: (N, 1, H, W) or (N, C, H, W), at the response's pixel.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a rank other than 4, [`Error::ShapeMismatch`] for an image y of another shape,
    /// [`Error::WeightShape`], [`Error::Empty`].
    pub fn sums<T: Tensor>(
        &self,
        operation: &'static str,
        x: &T,
        y: Option<&T>,
        weight: Option<&T>,
        scale: f64,
    ) -> Result<Vec<T>> {
        let shape = check(operation, &x.shape(), y.map(Tensor::shape), weight.map(Tensor::shape))?;
        // A pixel without neighbours is left to tensor operations, in which NaN shows.
        let has_neighbours = |filter: &Filter| {
            let is_alone = |(axis, along): (usize, Along)| along.misses_last() && shape[axis] == 1;
            shape[2] * shape[3] > 1 && !filter.axes().into_iter().any(is_alone)
        };
        let fits = self.0.filters.iter().all(has_neighbours);
        if x.fuses() && fits {
            let inputs: Vec<&T> = [Some(x), y, weight].into_iter().flatten().collect();
            let roles = [Some(Role::Image), y.map(|_| Role::Target), weight.map(|_| Role::Weight)];
            let roles = roles.into_iter().flatten().collect();
            let (parts, result) = (Arc::clone(&self.0), Of::Sums);
            let sums = Operation { name: operation, parts, result, scale, is_negated: false, roles };
            let sums = perform(&Op::Custom(Arc::new(sums)), &inputs)?;
            return (0..self.0.filters.len()).map(|k| sums.narrow(1, k, 1)?.reshape(&[shape[0]])).collect();
        }
        self.composed(x, y, weight, scale)
    }

    /// The same, composed of tensor operations.
    fn composed<T: Tensor>(&self, x: &T, y: Option<&T>, weight: Option<&T>, scale: f64) -> Result<Vec<T>> {
        let image = match y {
            Some(y) => x.sub(y)?,
            None => x.clone(),
        };
        let sum = |filter: &Filter| {
            let mut response = vec![image.clone()];
            for (axis, along) in filter.axes() {
                let one = |responses: &[T]| match responses {
                    [far, near] => far.sub(near),
                    _ => Ok(responses[0].clone()),
                };
                response = match along {
                    Along::Pixel => response,
                    Along::Difference => {
                        let [near, far] = neighbours(&one(&response)?, axis)?;
                        vec![far, near]
                    }
                    Along::Taps(taps) => vec![correlate(&one(&response)?, axis, taps)?],
                };
            }
            let weight = weight.map(|weight| answered(weight, filter)).transpose()?;
            // The last difference is the function's own.
            let function = if response.len() == 1 { &self.0.function } else { &self.0.of_difference };
            let responses: Vec<&T> = response.iter().collect();
            match &weight {
                None => T::map_sample_sums(function, &responses, scale),
                // Scaled when it is summed: the map has many times the elements.
                Some(_) => T::map_reduce(function, &responses, weight.as_ref(), None, 1.0, Extent::Map)?
                    .sum(&[1, 2, 3], false)?
                    .scale(scale),
            }
        };
        self.0.filters.iter().map(sum).collect()
    }

    /// `scale` times the weighted mean of f over each filter's responses, in all samples: a tensor with one element for each
    /// filter. Exactly 0 where its weights sum to 0. Arguments are those of [`sums`](Stencil::sums).
    ///
    /// # Errors
    /// As [`sums`](Stencil::sums).
    pub fn means<T: Tensor>(
        &self,
        operation: &'static str,
        x: &T,
        y: Option<&T>,
        weight: Option<&T>,
        scale: f64,
    ) -> Result<Vec<T>> {
        let shape = x.shape();
        let sums = self.sums(operation, x, y, weight, scale)?;
        let mean = |(sums, filter): (&T, &Filter)| {
            let sum = sums.sum_all()?;
            let Some(weight) = weight else { return sum.scale(1.0 / filter.responses(&shape) as f64) };
            let weight = answered(weight, filter)?;
            let total = total_weight(&weight)?.scale((shape[1] / weight.shape()[1]) as f64)?;
            weighted_mean(&sum.reshape(&total.shape())?, &total)
        };
        sums.iter().zip(&self.0.filters).map(mean).collect()
    }
}

/// The weights of the pixels at which a filter has a response.
fn answered<T: Tensor>(weight: &T, filter: &Filter) -> Result<T> {
    filter.axes().into_iter().filter(|(_, along)| along.misses_last()).try_fold(weight.clone(), |weight, (axis, _)| {
        let [near, _] = neighbours(&weight, axis)?;
        Ok(near)
    })
}

/// The element before, this one and the next along `axis`, times `taps`; zeros beyond the ends.
fn correlate<T: Tensor>(x: &T, axis: usize, taps: [f64; 3]) -> Result<T> {
    let length = x.shape()[axis];
    if x.fuses() {
        return x.linear(axis, &LinearMap::filter(length, &taps)?);
    }
    // Shifted and added: in a dense matrix the zeros would multiply the other pixels, infinite ones too.
    let padded = x.pad(axis, 1, 1)?;
    let mut sum: Option<T> = None;
    // A single element has no neighbours in which NaN would show.
    for (shift, &factor) in taps.iter().enumerate().filter(|(_, factor)| **factor != 0.0 || length == 1) {
        let part = padded.narrow(axis, shift, length)?.scale(factor)?;
        sum = Some(sum.map_or(Ok(part.clone()), |sum| sum.add(&part))?);
    }
    sum.map_or_else(|| x.scale(0.0), Ok)
}

/// All elements along `axis` but the last, and all but the first. A single element is its own neighbour: its
/// difference is 0, or NaN where the element is NaN or infinite.
fn neighbours<T: Tensor>(x: &T, axis: usize) -> Result<[T; 2]> {
    let extent = x.shape()[axis];
    let length = extent.saturating_sub(1).max(1);
    Ok([x.narrow(axis, 0, length)?, x.narrow(axis, extent - length, length)?])
}

/// Refuses shapes that do not fit; returns that of the image.
fn check(operation: &'static str, x: &[usize], y: Option<Shape>, weight: Option<Shape>) -> Result<[usize; 4]> {
    let shape: [usize; 4] = x.try_into().map_err(|_| Error::ShapeRule {
        operation,
        argument: "image",
        expected: "rank 4 (N, C, H, W)".into(),
        got: x.to_vec(),
    })?;
    if shape.contains(&0) {
        return Err(Error::Empty { operation, argument: "image", got: x.to_vec() });
    }
    if let Some(got) = y.filter(|y| *y != x) {
        return Err(Error::ShapeMismatch { operation, argument: "target", expected: x.to_vec(), got });
    }
    if let Some(weight) = weight {
        check_weight(operation, x, &weight)?;
    }
    Ok(shape)
}

/// What an input of an [`Operation`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// x.
    Image,
    /// y.
    Target,
    /// w.
    Weight,
    /// What the derivative of the responses is taken along.
    Direction,
    /// What each sum is multiplied by.
    Factors,
    /// A gradient from above that is a factor of every response, as a weight is.
    Above,
    /// w, which was differentiated by: the result is 0 where it is 0.
    Mask,
    /// Nothing: what was differentiated by, where the result is linear in it.
    Unused,
}

/// What an [`Operation`] results in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// (N, filters): Σ w·f⁽ʲ⁾(r)·Π S v over each sample, j the number of directions v and r = S(x − y).
    Sums,
    /// x's shape: Σ Sᵀ(g·w·f⁽ʲ⁺¹⁾(r)·Π S v), with the factors g.
    Image,
    /// The shape of the weight, which is input `like`: Σ g·f⁽ʲ⁾(r)·Π S v.
    Weight { like: usize },
}

/// The sums, or one of their derivatives: a family that is closed under differentiation, since all of them are linear in
/// the weight, the factors and each direction.
#[derive(Clone, Debug)]
struct Operation {
    name: &'static str,
    parts: Arc<Parts>,
    result: Of,
    scale: f64,
    /// Whether the scale's sign is the opposite: an odd number of derivatives by the target.
    is_negated: bool,
    /// One for each input.
    roles: Vec<Role>,
}

impl Operation {
    fn position(&self, role: Role) -> Option<usize> {
        self.roles.iter().position(|&known| known == role)
    }

    fn has_directions(&self) -> bool {
        self.position(Role::Direction).is_some()
    }

    /// The result, and the sums where they come for free.
    fn evaluate<F: Scalar>(&self, inputs: &[Array<'_, F>]) -> (Vec<F>, Vec<f64>) {
        let of = |role| self.position(role).map(|at| inputs[at]);
        let Some(image) = of(Role::Image) else { return Default::default() };
        let directions = self.roles.iter().zip(inputs).filter(|(role, _)| **role == Role::Direction);
        let kernel = Kernel {
            function: &self.parts.function,
            filters: &self.parts.taps,
            shape: std::array::from_fn(|axis| image.shape[axis]),
            image: image.data,
            target: of(Role::Target).map(|target| target.data),
            weight: of(Role::Weight).or_else(|| of(Role::Above)),
            mask: of(Role::Mask),
            directions: directions.map(|(_, direction)| direction.data).collect(),
            factors: of(Role::Factors).map(|factors| factors.data),
            scale: if self.is_negated { -self.scale } else { self.scale },
            isa: isa::detect(),
        };
        match self.result {
            Of::Sums => (kernel.sums().into_iter().map(F::from_f64).collect(), Vec::new()),
            Of::Image => {
                let (gradient, mut sums) = kernel.image_gradient();
                if self.is_negated {
                    sums.iter_mut().for_each(|sum| *sum = -*sum);
                }
                (gradient, sums)
            }
            Of::Weight { like } => (kernel.weight_gradient(inputs[like].shape), Vec::new()),
        }
    }
}

impl Operation {
    /// The sums and their gradient by an image, where every sum is likely to count alike: means over equally many responses.
    fn with_gradient<F: Scalar>(&self, inputs: &[Array<'_, F>], input: usize) -> Option<(Vec<F>, Vec<F>)> {
        let image = self.position(Role::Image).map(|at| inputs[at])?;
        let counts_alike = self.parts.filters.len() == 1 || image.shape[2] == image.shape[3];
        let is_image = matches!(self.roles[input], Role::Image | Role::Target);
        if self.result != Of::Sums || self.roles.len() > 2 || !is_image || !counts_alike || self.has_directions() {
            return None;
        }
        let mut roles = self.roles.clone();
        roles.push(Role::Factors);
        let is_negated = self.is_negated != (self.roles[input] == Role::Target);
        let gradient = Operation { result: Of::Image, roles, is_negated, ..self.clone() };
        let shape = [image.shape[0], self.parts.filters.len()];
        let factors = vec![F::ONE; shape[0] * shape[1]];
        let operands: Vec<_> = inputs.iter().copied().chain([Array { shape: &shape, data: &factors }]).collect();
        let (gradient, sums) = gradient.evaluate(&operands);
        Some((sums.into_iter().map(F::from_f64).collect(), gradient))
    }
}

impl Custom for Operation {
    fn name(&self) -> &'static str {
        self.name
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let (expected, got) = (self.roles.len(), inputs.len());
        let image = self.position(Role::Image).filter(|_| expected == got);
        let image = image.ok_or(Error::InputCount { operation: self.name, expected, got })?;
        // The first operation's inputs have been checked; a derivative's are these and tensors of its results' shapes.
        Ok(match self.result {
            Of::Sums => vec![inputs[image][0], self.parts.filters.len()],
            Of::Image => inputs[image].to_vec(),
            Of::Weight { like } => inputs[like].to_vec(),
        })
    }
    fn evaluate_f32(&self, inputs: &[Array<'_, f32>]) -> Vec<f32> {
        self.evaluate(inputs).0
    }
    fn evaluate_f64(&self, inputs: &[Array<'_, f64>]) -> Vec<f64> {
        self.evaluate(inputs).0
    }
    fn with_gradient_f32(&self, inputs: &[Array<'_, f32>], input: usize) -> Option<(Vec<f32>, Vec<f32>)> {
        self.with_gradient(inputs, input)
    }
    fn with_gradient_f64(&self, inputs: &[Array<'_, f64>], input: usize) -> Option<(Vec<f64>, Vec<f64>)> {
        self.with_gradient(inputs, input)
    }
    fn gradient(&self, input: usize) -> Result<Option<Arc<dyn Custom>>> {
        let role = self.roles[input];
        // What the gradient from above is to the derivative.
        let (result, above) = match (self.result, role) {
            (_, Role::Unused | Role::Mask) => return Ok(None),
            (Of::Sums, Role::Weight | Role::Above) => (Of::Weight { like: input }, Role::Factors),
            (Of::Sums, _) => (Of::Image, Role::Factors),
            (Of::Image, Role::Weight | Role::Above) => (Of::Weight { like: input }, Role::Direction),
            (Of::Image, Role::Factors) => (Of::Sums, Role::Direction),
            (Of::Image, _) => (Of::Image, Role::Direction),
            (Of::Weight { .. }, Role::Factors) => (Of::Sums, Role::Above),
            (Of::Weight { .. }, _) => (Of::Image, Role::Above),
        };
        let mut roles = self.roles.clone();
        match role {
            Role::Image | Role::Target => {}
            Role::Weight => roles[input] = Role::Mask,
            _ => roles[input] = Role::Unused,
        }
        roles.push(above);
        let is_negated = self.is_negated != (role == Role::Target);
        let (name, parts, scale) = (self.name, Arc::clone(&self.parts), self.scale);
        Ok(Some(Arc::new(Operation { name, parts, result, scale, is_negated, roles })))
    }
}
