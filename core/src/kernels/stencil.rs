//! A function of small filters' responses, summed, with its derivatives: one pass over the image for each.
//!
//! Rows go through three buffers at a time: pixels to responses, responses to the function's values or derivatives, and
//! these through the transposed filters to the gradient. Only the image is read from memory, and only the gradient
//! written there.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::isa::{self, Isa, Kernel};
use super::lanes::{self, Lanes};
use super::map::filled;
use super::matmul::SharedMut;
use super::stream::{self, Sink, Write};
use super::{Array, count};
use crate::pointwise::Block;
use crate::{Function, Scalar};

/// Pixels of a task, at least; fixed, so that sums do not depend on the number of threads.
const TASK: usize = 1 << 14;
/// Elements below which threads cost more than they bring.
const SERIAL: usize = 1 << 15;

/// A filter of 3×3 around a pixel, zeros beyond the edges.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taps {
    /// Those that are not zero: row and column, from 0 to 2, and the factor.
    pub(crate) taps: Vec<([usize; 2], f64)>,
    /// Rows and columns at the end of the image that have no response.
    pub(crate) missing: [usize; 2],
}

/// What is computed: f at the filters' responses to (image − target), times the filters' responses to the directions.
///
/// With r the responses, v the directions, S a filter, Sᵀ its transpose, g the factors and w the weight:
/// the sums are Σ w·f⁽ʲ⁾(r)·Π S v, the image's gradient is Σ Sᵀ(g·w·f⁽ʲ⁺¹⁾(r)·Π S v) and the weight's is
/// Σ g·f⁽ʲ⁾(r)·Π S v, j the number of directions.
pub(crate) struct Stencil<'a, F: Scalar> {
    pub(crate) function: &'a Function,
    pub(crate) filters: &'a [Taps],
    /// (N, C, H, W) of the image, the target and the directions.
    pub(crate) shape: [usize; 4],
    pub(crate) image: &'a [F],
    pub(crate) target: Option<&'a [F]>,
    /// (N, 1, H, W) or (N, C, H, W).
    pub(crate) weight: Option<Array<'a, F>>,
    pub(crate) directions: Vec<&'a [F]>,
    /// (N, filters): what each sum is multiplied by; 1 where there is none.
    pub(crate) factors: Option<&'a [F]>,
    pub(crate) scale: f64,
    pub(crate) isa: Isa,
}

/// Three rows of a plane, with a zero before and after each.
struct Window<'a, F> {
    plane: &'a [F],
    /// What is subtracted.
    target: Option<&'a [F]>,
    width: usize,
    rows: [Vec<F>; 3],
}

/// Where row `y` stands in a window; −1 is the row before the first.
fn slot(y: usize) -> usize {
    y % 3
}

impl<'a, F: Scalar> Window<'a, F> {
    fn new(plane: &'a [F], target: Option<&'a [F]>, width: usize) -> Self {
        Window { plane, target, width, rows: std::array::from_fn(|_| vec![F::ZERO; width + 2]) }
    }

    /// Reads row `y`, counted from 1; zeros where the image has none.
    fn load(&mut self, isa: Isa, y: usize) {
        let row = &mut self.rows[slot(y)][1..=self.width];
        let start = y.wrapping_sub(1).wrapping_mul(self.width);
        let source = self.plane.get(start..).and_then(|rest| rest.get(..self.width));
        match (source, self.target) {
            (Some(source), Some(target)) => {
                combine(isa, [(F::ONE, source), (-F::ONE, &target[start..])].into_iter(), row);
            }
            (Some(source), None) => row.copy_from_slice(source),
            (None, _) => row.fill(F::ZERO),
        }
    }

    /// A filter's responses at row `y`, counted from 1.
    fn respond(&self, isa: Isa, filter: &Taps, y: usize, out: &mut [F]) {
        let terms = filter
            .taps
            .iter()
            .map(|&([row, column], factor)| (F::from_f64(factor), &self.rows[slot(y + row + 2)][column..]));
        combine(isa, terms, out);
    }
}

/// `out` = Σ factor · row.
fn combine<'a, F: Scalar>(isa: Isa, terms: impl Iterator<Item = (F, &'a [F])>, out: &mut [F]) {
    let terms: Vec<(F, &[F])> = terms.collect();
    let mut add = false;
    let mut rest = &terms[..];
    while let [first, ..] = rest {
        let count = [6, 4, 2, 1].into_iter().find(|&count| count <= rest.len()).unwrap_or(1);
        let (now, later) = rest.split_at(count);
        match count {
            6 => isa::run(isa, Combine { terms: std::array::from_fn::<_, 6, _>(|i| now[i]), out, add }),
            4 => isa::run(isa, Combine { terms: std::array::from_fn::<_, 4, _>(|i| now[i]), out, add }),
            2 => isa::run(isa, Combine { terms: std::array::from_fn::<_, 2, _>(|i| now[i]), out, add }),
            _ => isa::run(isa, Combine { terms: [*first], out, add }),
        }
        (rest, add) = (later, true);
    }
    if !add {
        out.fill(F::ZERO);
    }
}

/// `out` (+)= Σ factor · row.
struct Combine<'a, 'b, F, const T: usize> {
    terms: [(F, &'a [F]); T],
    out: &'b mut [F],
    add: bool,
}

impl<F: Scalar, const T: usize> Kernel for Combine<'_, '_, F, T> {
    #[inline(always)]
    fn run(self) {
        let length = self.out.len();
        let terms = self.terms.map(|(factor, row)| (factor, &row[..length]));
        let at = |i: usize| {
            let mut sum = terms[0].0 * terms[0].1[i];
            for (factor, row) in &terms[1..] {
                sum += *factor * row[i];
            }
            sum
        };
        if self.add {
            for (i, out) in self.out.iter_mut().enumerate() {
                *out += at(i);
            }
        } else {
            for (i, out) in self.out.iter_mut().enumerate() {
                *out = at(i);
            }
        }
    }
}

/// Buffers of a task.
struct Rows<'a, F> {
    image: Window<'a, F>,
    directions: Vec<Window<'a, F>>,
    /// A filter's responses.
    responses: Vec<F>,
    /// What the function's values are multiplied by.
    product: Vec<F>,
    /// A direction's responses.
    slope: Vec<F>,
    ones: Vec<F>,
    /// As many zeros as the function's derivatives have orders.
    partial: Vec<usize>,
}

impl<F: Scalar> Rows<'_, F> {
    fn load(&mut self, isa: Isa, y: usize) {
        self.image.load(isa, y);
        for direction in &mut self.directions {
            direction.load(isa, y);
        }
    }
}

impl<'a, F: Scalar> Stencil<'a, F> {
    /// Rows of a task.
    fn rows(&self) -> usize {
        let [_, _, height, width] = self.shape;
        TASK.div_ceil(width.max(1)).min(height).max(1)
    }

    fn blocks(&self) -> usize {
        self.shape[2].div_ceil(self.rows())
    }

    /// The buffers for a plane, and derivatives of order `order`.
    fn buffers(&self, plane: usize, order: usize) -> Rows<'a, F> {
        let [_, _, height, width] = self.shape;
        let of = |image: &'a [F]| &image[plane * height * width..][..height * width];
        Rows {
            image: Window::new(of(self.image), self.target.map(of), width),
            directions: self.directions.iter().map(|direction| Window::new(of(direction), None, width)).collect(),
            responses: vec![F::ZERO; width],
            product: vec![F::ZERO; width],
            slope: vec![F::ZERO; width],
            ones: vec![F::ONE; width],
            partial: vec![0; order],
        }
    }

    /// The weight of row `y` (from 1) of a plane.
    fn weight(&self, plane: usize, y: usize) -> Option<&'a [F]> {
        let [_, channels, height, width] = self.shape;
        let weight = self.weight?;
        let plane = if weight.shape[1] == channels { plane } else { plane / channels };
        Some(&weight.data[(plane * height + y - 1) * width..][..width])
    }

    /// The derivative at a filter's responses to row `y` (from 1), times weight and directions: to `out` times the factor
    /// beside it, and to `sum`, which takes the function's value beside a first derivative.
    fn point(
        &self,
        rows: &mut Rows<'_, F>,
        [plane, y, filter]: [usize; 3],
        out: Option<(Sink<'_, F>, F)>,
        sum: Option<&mut Lanes>,
    ) {
        let [_, _, height, width] = self.shape;
        let taps = &self.filters[filter];
        let Rows { image, directions, responses, product, slope, ones, partial } = rows;
        let length = width - taps.missing[1];
        if y > height - taps.missing[0] {
            if let Some((mut sink, _)) = out {
                slope.fill(F::ZERO);
                sink.put(0, slope);
            }
            return;
        }
        image.respond(self.isa, taps, y, responses);
        let mut weight = self.weight(plane, y).unwrap_or(ones);
        if !directions.is_empty() {
            product.copy_from_slice(weight);
            for direction in directions {
                direction.respond(self.isa, taps, y, slope);
                product.iter_mut().zip(&*slope).for_each(|(product, &slope)| *product *= slope);
            }
            weight = product;
        }
        let (mut out, scale) = out.map_or((None, F::ONE), |(sink, scale)| (Some(sink), scale));
        if let Some(sink) = &mut out {
            slope[length..].fill(F::ZERO);
            sink.put(length, &slope[length..]);
        }
        self.function.block(Block {
            isa: self.isa,
            partial,
            inputs: &[&responses[..length]],
            weight: &weight[..length],
            scale,
            out,
            sum,
        });
    }

    /// Runs `work` for every plane and stretch of rows (from 1): the sums that it returns, in double precision, in order.
    fn tasks(&self, work: impl Fn(usize, usize, usize) -> Vec<f64> + Sync) -> Vec<Vec<f64>> {
        let [samples, channels, height, _] = self.shape;
        let (blocks, rows) = (self.blocks(), self.rows());
        let one = |task: usize| {
            let start = task % blocks * rows;
            work(task / blocks, start + 1, height.min(start + rows) + 1)
        };
        let tasks = samples * channels * blocks;
        if count(&self.shape) < SERIAL {
            (0..tasks).map(one).collect()
        } else {
            (0..tasks).into_par_iter().map(one).collect()
        }
    }

    /// Tasks' sums as (N, filters), times the scale.
    fn by_sample(&self, sums: &[Vec<f64>]) -> Vec<f64> {
        let of_filter = |sums: &[Vec<f64>], filter: usize| {
            let sums: Vec<f64> = sums.iter().map(|sums| sums[filter]).collect();
            lanes::pairwise(&sums) * self.scale
        };
        let samples = sums.chunks(self.shape[1] * self.blocks());
        samples.flat_map(|sums| (0..self.filters.len()).map(move |filter| of_filter(sums, filter))).collect()
    }

    /// The sums, (N, filters).
    pub(crate) fn sums(&self) -> Vec<f64> {
        let order = self.directions.len();
        let sums = self.tasks(|plane, start, end| {
            let mut rows = self.buffers(plane, order);
            let mut sums: Vec<Lanes> = vec![[0.0; _]; self.filters.len()];
            rows.load(self.isa, start - 1);
            rows.load(self.isa, start);
            for y in start..end {
                rows.load(self.isa, y + 1);
                for (filter, sum) in sums.iter_mut().enumerate() {
                    self.point(&mut rows, [plane, y, filter], None, Some(sum));
                }
            }
            sums.iter().map(|lanes| lanes.iter().sum()).collect()
        });
        self.by_sample(&sums)
    }

    /// What a filter's part of a gradient is multiplied by in a plane.
    fn factor(&self, plane: usize, filter: usize) -> F {
        let sample = plane / self.shape[1];
        let factor = self.factors.map_or(1.0, |factors| factors[sample * self.filters.len() + filter].to_f64());
        F::from_f64(factor * self.scale)
    }

    /// The image's gradient, and the sums where there are no directions.
    pub(crate) fn image_gradient(&self) -> (Vec<F>, Vec<f64>) {
        let mut sums = Vec::new();
        // SAFETY: every row of every plane is written, by the task that owns it.
        let gradient = unsafe {
            filled(count(&self.shape), |gradient| sums = self.write_image_gradient(SharedMut::new(gradient).cast()))
        };
        (gradient, self.by_sample(&sums))
    }

    /// Writes the image's gradient; each task's sums.
    fn write_image_gradient(&self, target: SharedMut<'_, F>) -> Vec<Vec<f64>> {
        let [_, _, height, width] = self.shape;
        let write = if stream::is_large::<F>(count(&self.shape)) { Write::Stream } else { Write::Store };
        let order = self.directions.len() + 1;
        self.tasks(|plane, start, end| {
            let mut rows = self.buffers(plane, order);
            let mut sums: Vec<Lanes> = vec![[0.0; _]; self.filters.len()];
            // Derivatives at three rows of responses, a zero before and after each.
            let mut derivatives: Vec<[Vec<F>; 3]> =
                self.filters.iter().map(|_| std::array::from_fn(|_| vec![F::ZERO; width + 2])).collect();
            let mut row = vec![F::ZERO; width];
            let mut put = |derivatives: &[[Vec<F>; 3]], y: usize| {
                // Pixel y is tap `row` of the response at y + 1 − row; likewise across.
                let terms = self.filters.iter().zip(derivatives).flat_map(|(filter, derivatives)| {
                    filter.taps.iter().map(move |&([row, column], factor)| {
                        (F::from_f64(factor), &derivatives[slot(y + 4 - row)][2 - column..])
                    })
                });
                combine(self.isa, terms, &mut row);
                // SAFETY: the row lies inside the gradient, and is this task's alone.
                let mut sink =
                    unsafe { Sink::shared(target, (plane * height + y - 1) * width, width, write, self.isa) };
                sink.put(0, &row);
            };
            // The responses of one row more to either side take part in a gradient's rows.
            let (first, last) = (start.max(2) - 1, (end + 1).min(height + 1));
            rows.load(self.isa, first - 1);
            rows.load(self.isa, first);
            for y in first..last {
                rows.load(self.isa, y + 1);
                for (filter, (sum, derivatives)) in sums.iter_mut().zip(&mut derivatives).enumerate() {
                    let sum = (order == 1 && (start..end).contains(&y)).then_some(sum);
                    let out = Sink::new(&mut derivatives[slot(y)][1..=width]);
                    let out = Some((out, self.factor(plane, filter)));
                    self.point(&mut rows, [plane, y, filter], out, sum);
                }
                if y > start {
                    put(&derivatives, y - 1);
                }
            }
            if end == height + 1 {
                for derivatives in &mut derivatives {
                    derivatives[slot(end)].fill(F::ZERO);
                }
                put(&derivatives, height);
            }
            if write == Write::Stream {
                stream::fence();
            }
            sums.iter().map(|lanes| lanes.iter().sum()).collect()
        })
    }

    /// The gradient of a weight of shape `shape`, which is not among the factors.
    pub(crate) fn weight_gradient(&self, shape: &[usize]) -> Vec<F> {
        let [_, channels, height, width] = self.shape;
        let is_shared = shape[1] != channels;
        let mut gradient = vec![F::ZERO; count(&self.shape)];
        let target = SharedMut::new(&mut gradient);
        let order = self.directions.len();
        self.tasks(|plane, start, end| {
            let mut rows = self.buffers(plane, order);
            rows.load(self.isa, start - 1);
            rows.load(self.isa, start);
            for y in start..end {
                rows.load(self.isa, y + 1);
                for filter in 0..self.filters.len() {
                    let write = if filter == 0 { Write::Store } else { Write::Add };
                    let at = (plane * height + y - 1) * width;
                    // SAFETY: the row lies inside the gradient, and is this task's alone; it begins as zeros.
                    let sink = unsafe { Sink::shared(target, at, width, write, self.isa) };
                    let out = Some((sink, self.factor(plane, filter)));
                    self.point(&mut rows, [plane, y, filter], out, None);
                }
            }
            Vec::new()
        });
        if !is_shared {
            return gradient;
        }
        super::broadcast::sum_to(Array { shape: &self.shape, data: &gradient }, shape)
    }
}
