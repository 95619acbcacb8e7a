//! A function of small filters' responses, summed, with its derivatives: one pass over the image for each.
//!
//! A few rows at a time go through buffers: pixels to responses, responses to the function's values or derivatives, and
//! these through the transposed filters to the gradient. Only the image is read from memory, and only the gradient
//! written there.
#![allow(unsafe_code)]

use std::ops::Range;

use rayon::prelude::*;

use super::isa::{self, Isa, Kernel};
use super::lanes::{self, Lanes};
use super::machine::{Block, Machine};
use super::map::{filled, multiply};
use super::matmul::SharedMut;
use super::stream::{self, Sink, Write};
use super::{Array, assert_fills, buffers, count};
use crate::Element;
use crate::program::{Program, Programs};

/// Pixels of a task, at least; fixed, so that sums do not depend on the number of threads.
const TASK: usize = 1 << 15;
/// Pixels that go through the buffers at a time, about: several rows, since each step costs something by itself, that stay
/// in the caches.
const STRETCH: usize = 1 << 11;
/// Elements below which threads cost more than they bring.
const SERIAL: usize = 1 << 15;

/// A filter of 3×3 around a pixel, zeros beyond the edges.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps {
    /// Those that are not zero: row and column, from 0 to 2, and the factor.
    pub taps: Vec<([usize; 2], f64)>,
    /// Rows and columns at the end of the image that have no response.
    pub missing: [usize; 2],
}

/// What is computed: f at the filters' responses to (image − target), times the filters' responses to the directions.
///
/// With r the responses, v the directions, S a filter, Sᵀ its transpose, g the factors and w the weight:
/// the sums are Σ w·f⁽ʲ⁾(r)·Π S v, the image's gradient is Σ Sᵀ(g·w·f⁽ʲ⁺¹⁾(r)·Π S v) and the weight's is
/// Σ g·f⁽ʲ⁾(r)·Π S v, j the number of directions.
pub struct Stencil<'a, F: Element> {
    /// f.
    pub function: &'a dyn Programs,
    /// S, several.
    pub filters: &'a [Taps],
    /// (N, C, H, W) of the image, the target and the directions.
    pub shape: [usize; 4],
    /// x, the image.
    pub image: &'a [F],
    /// What is subtracted from it.
    pub target: Option<&'a [F]>,
    /// (N, 1, H, W) or (N, C, H, W); where it is 0 a response takes no part, whatever it is.
    pub weight: Option<Array<'a, F>>,
    /// As the weight, without a factor: what is differentiated by it is 0 where it is 0.
    pub mask: Option<Array<'a, F>>,
    /// v.
    pub directions: Vec<&'a [F]>,
    /// (N, filters): what each sum is multiplied by; 1 where there is none.
    pub factors: Option<&'a [F]>,
    /// What every result is multiplied by.
    pub scale: f64,
    /// The instruction set.
    pub isa: Isa,
}

/// The latest rows of a plane, with a zero before and after each.
struct Ring<F>(Vec<Vec<F>>);

impl<F: Element> Ring<F> {
    /// Of `rows` rows, at first zeros.
    fn new(rows: usize, width: usize) -> Self {
        Ring(vec![vec![F::ZERO; width + 2]; rows])
    }

    fn at(&self, y: usize) -> &[F] {
        &self.0[y % self.0.len()]
    }

    /// Row `y` without the zeros; the row that stood in its place is gone.
    fn at_mut(&mut self, y: usize) -> &mut [F] {
        let rows = self.0.len();
        let row = &mut self.0[y % rows];
        let end = row.len() - 1;
        &mut row[1..end]
    }
}

/// Rows of a plane as the filters read them.
struct Window<'a, F> {
    plane: &'a [F],
    /// What is subtracted.
    target: Option<&'a [F]>,
    width: usize,
    rows: Ring<F>,
    /// The row that is read next, counted from 1.
    next: usize,
}

impl<F: Element> Window<'_, F> {
    /// Reads the rows to `last`, counted from 1; zeros where the image has none.
    fn load(&mut self, isa: Isa, last: usize) {
        while self.next <= last {
            let row = self.rows.at_mut(self.next);
            let start = self.next.wrapping_sub(1).wrapping_mul(self.width);
            let source = self.plane.get(start..).and_then(|rest| rest.get(..self.width));
            match (source, self.target) {
                (Some(source), Some(target)) => {
                    combine(isa, [(F::ONE, source), (-F::ONE, &target[start..])].into_iter(), row);
                }
                (Some(source), None) => row.copy_from_slice(source),
                (None, _) => row.fill(F::ZERO),
            }
            self.next += 1;
        }
    }

    /// A filter's responses at row `y`, counted from 1.
    fn respond(&self, isa: Isa, filter: &Taps, y: usize, out: &mut [F]) {
        let terms = filter
            .taps
            .iter()
            .map(|&([row, column], factor)| (F::from_f64(factor), &self.rows.at(y + row - 1)[column..]));
        combine(isa, terms, out);
    }
}

/// `out` = Σ factor · row.
fn combine<'a, F: Element>(isa: Isa, mut terms: impl Iterator<Item = (F, &'a [F])>, out: &mut [F]) {
    let mut add = false;
    loop {
        let (mut now, mut count) = ([(F::ZERO, &[][..]); 6], 0);
        for (now, term) in now.iter_mut().zip(&mut terms) {
            (*now, count) = (term, count + 1);
        }
        // One loop for each number of terms.
        macro_rules! run {
            ($($number:literal)*) => {
                match count {
                    $($number => {
                        isa::run(isa, Combine { terms: std::array::from_fn::<_, $number, _>(|i| now[i]), out, add });
                    })*
                    _ if !add => out.fill(F::ZERO),
                    _ => {}
                }
            };
        }
        run!(1 2 3 4 5 6);
        if count < now.len() {
            return;
        }
        add = true;
    }
}

/// `out` (+)= Σ factor · row.
struct Combine<'a, 'b, F, const T: usize> {
    terms: [(F, &'a [F]); T],
    out: &'b mut [F],
    add: bool,
}

impl<F: Element, const T: usize> Kernel for Combine<'_, '_, F, T> {
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
struct Rows<'a, F: Element> {
    image: Window<'a, F>,
    directions: Vec<Window<'a, F>>,
    /// A filter's responses, row after row.
    responses: Vec<F>,
    /// What the function's values are multiplied by.
    product: Vec<F>,
    /// A row of a direction's responses.
    slope: Vec<F>,
    /// The function's derivatives.
    results: Vec<F>,
    /// Computes them.
    machine: Machine<'a, F>,
}

impl<F: Element> Rows<'_, F> {
    /// Reads what the responses at rows `ys` take.
    fn load(&mut self, isa: Isa, ys: &Range<usize>) {
        self.image.load(isa, ys.end);
        for direction in &mut self.directions {
            direction.load(isa, ys.end);
        }
    }
}

impl<'a, F: Element> Stencil<'a, F> {
    /// Panics unless the slices fill their shapes.
    fn check(&self) {
        for image in [Some(self.image), self.target].into_iter().flatten().chain(self.directions.iter().copied()) {
            assert_fills("a stencil's image", &self.shape, image.len());
        }
        for weight in [self.weight, self.mask].into_iter().flatten() {
            let [samples, _, height, width] = self.shape;
            let fits = weight.shape == self.shape || weight.shape == [samples, 1, height, width];
            assert!(fits, "a stencil's weight of shape {:?} for images of shape {:?}", weight.shape, self.shape);
            assert_fills("a stencil's weight", weight.shape, weight.data.len());
        }
    }

    /// Rows of a task.
    fn rows(&self) -> usize {
        let [_, _, height, width] = self.shape;
        TASK.div_ceil(width.max(1)).min(height).max(1)
    }

    fn blocks(&self) -> usize {
        self.shape[2].div_ceil(self.rows())
    }

    /// Rows that go through the buffers at a time.
    fn stretch(&self) -> usize {
        (STRETCH / self.shape[3].max(1)).clamp(1, self.rows())
    }

    /// Rows `ys`, as many at a time.
    fn stretches(&self, ys: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let rows = self.stretch();
        ys.clone().step_by(rows).map(move |y| y..ys.end.min(y + rows))
    }

    /// Room for the rows that a stretch reads: one more to either side.
    fn ring(&self) -> Ring<F> {
        Ring::new(self.stretch() + 2, self.shape[3])
    }

    /// The buffers for a plane from row `first`, and what `program` computes.
    fn buffers<'t>(&'t self, plane: usize, first: usize, program: &'t Program) -> Rows<'t, F> {
        let [_, _, height, width] = self.shape;
        let of = |image: &'t [F]| &image[plane * height * width..][..height * width];
        let window = |image, target: Option<_>| Window {
            plane: of(image),
            target: target.map(of),
            width,
            rows: self.ring(),
            next: first - 1,
        };
        let pixels = self.stretch() * width;
        Rows {
            image: window(self.image, self.target),
            directions: self.directions.iter().map(|direction| window(direction, None)).collect(),
            responses: vec![F::ZERO; pixels],
            product: vec![F::ZERO; pixels],
            slope: vec![F::ZERO; width],
            results: vec![F::ZERO; pixels],
            machine: Machine::new(self.isa, program),
        }
    }

    /// The row `y` (from 1) of a plane of a weight.
    fn weight(&self, weight: Option<Array<'a, F>>, plane: usize, y: usize) -> Option<&'a [F]> {
        let [_, channels, height, width] = self.shape;
        let weight = weight?;
        let plane = if weight.shape[1] == channels { plane } else { plane / channels };
        Some(&weight.data[(plane * height + y - 1) * width..][..width])
    }

    /// The program at a filter's responses to rows `ys` (from 1), times weight and directions: its output times `scale` to
    /// `put`, if there is one, row by row as far as there are responses, and its sum to `sum`.
    fn point(
        &self,
        rows: &mut Rows<'_, F>,
        [plane, filter]: [usize; 2],
        ys: &Range<usize>,
        scale: Option<F>,
        sum: Option<&mut Lanes>,
        mut put: impl FnMut(usize, &[F]),
    ) {
        let [_, _, height, width] = self.shape;
        let taps = &self.filters[filter];
        let Rows { image, directions, responses, product, slope, results, machine } = rows;
        let length = width - taps.missing[1];
        let answering = ys.start..ys.end.min(height + 1 - taps.missing[0]);
        let count = answering.len() * length;
        for (y, responses) in answering.clone().zip(responses.chunks_exact_mut(length)) {
            image.respond(self.isa, taps, y, responses);
        }
        let is_weighted = self.weight.is_some() || self.mask.is_some() || !directions.is_empty();
        if is_weighted {
            for (y, product) in answering.clone().zip(product.chunks_exact_mut(length)) {
                match self.weight(self.weight, plane, y) {
                    Some(weight) => product.copy_from_slice(&weight[..length]),
                    None => product.fill(F::ONE),
                }
                for direction in &*directions {
                    let slope = &mut slope[..length];
                    direction.respond(self.isa, taps, y, slope);
                    multiply(product, slope);
                }
                if let Some(mask) = self.weight(self.mask, plane, y) {
                    let masked = product.iter_mut().zip(mask).filter(|(_, mask)| **mask == F::ZERO);
                    masked.for_each(|(product, _)| *product = F::ZERO);
                }
            }
        }
        let mut sink = scale.map(|_| Sink::new(&mut results[..count]));
        machine.run(Block {
            length: count,
            inputs: &[&responses[..count]],
            weight: is_weighted.then_some(&product[..count]),
            scale: scale.unwrap_or(F::ONE),
            outputs: sink.as_mut_slice(),
            sum,
        });
        if scale.is_some() {
            for (y, results) in answering.clone().zip(results.chunks_exact(length)) {
                put(y, results);
            }
            for y in ys.clone().skip(answering.len()) {
                put(y, &[]);
            }
        }
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
    pub fn sums(&self) -> Vec<f64> {
        self.check();
        let partial = vec![0; self.directions.len()];
        let program = self.function.program(Some(&partial[..]), &[]);
        let sums = self.tasks(|plane, start, end| {
            let mut rows = self.buffers(plane, start, &program);
            let mut sums: Vec<Lanes> = vec![[0.0; _]; self.filters.len()];
            for ys in self.stretches(start..end) {
                rows.load(self.isa, &ys);
                for (filter, sum) in sums.iter_mut().enumerate() {
                    self.point(&mut rows, [plane, filter], &ys, None, Some(sum), |_, _| {});
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
    pub fn image_gradient(&self) -> (Vec<F>, Vec<f64>) {
        self.check();
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
        let partial = vec![0; self.directions.len() + 1];
        let is_summed = self.directions.is_empty();
        let program = self.function.program(is_summed.then_some(&[][..]), &[&partial[..]]);
        self.tasks(|plane, start, end| {
            // The responses of one row more to either side take part in a gradient's rows.
            let (first, last) = (start.max(2) - 1, (end + 1).min(height + 1));
            let mut rows = self.buffers(plane, first, &program);
            let mut sums: Vec<Lanes> = vec![[0.0; _]; self.filters.len()];
            let mut derivatives: Vec<Ring<F>> = self.filters.iter().map(|_| self.ring()).collect();
            let mut row = vec![F::ZERO; width];
            let mut put = |derivatives: &[Ring<F>], y: usize| {
                // Pixel y is tap `row` of the response at y + 1 − row; likewise across.
                let terms = self.filters.iter().zip(derivatives).flat_map(|(filter, derivatives)| {
                    filter.taps.iter().map(move |&([row, column], factor)| {
                        (F::from_f64(factor), &derivatives.at(y + 1 - row)[2 - column..])
                    })
                });
                combine(self.isa, terms, &mut row);
                // SAFETY: the row lies inside the gradient, and is this task's alone.
                let mut sink =
                    unsafe { Sink::shared(target, (plane * height + y - 1) * width, width, write, self.isa) };
                sink.put(0, &row);
            };
            let parts = [first..start, start..end, end..last];
            let mut next = start;
            for ys in parts.into_iter().flat_map(|part| self.stretches(part)) {
                rows.load(self.isa, &ys);
                for (filter, (sum, derivatives)) in sums.iter_mut().zip(&mut derivatives).enumerate() {
                    // Rows beside the task's are summed by the tasks that own them.
                    let mut other: Lanes = [0.0; _];
                    let sum = is_summed.then_some(if (start..end).contains(&ys.start) { sum } else { &mut other });
                    let scale = Some(self.factor(plane, filter));
                    self.point(&mut rows, [plane, filter], &ys, scale, sum, |y, results| {
                        let (answered, rest) = derivatives.at_mut(y).split_at_mut(results.len());
                        answered.copy_from_slice(results);
                        rest.fill(F::ZERO);
                    });
                }
                // A gradient's row takes the responses of the next row too.
                for y in next..ys.end - 1 {
                    put(&derivatives, y);
                }
                next = next.max(ys.end - 1);
            }
            if end == height + 1 {
                for derivatives in &mut derivatives {
                    derivatives.at_mut(end).fill(F::ZERO);
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
    pub fn weight_gradient(&self, shape: &[usize]) -> Vec<F> {
        self.check();
        let [_, channels, height, width] = self.shape;
        let is_shared = shape[1] != channels;
        let mut gradient = buffers::zeros(count(&self.shape));
        let target = SharedMut::new(&mut gradient);
        let partial = vec![0; self.directions.len()];
        let program = self.function.program(None, &[&partial[..]]);
        self.tasks(|plane, start, end| {
            let mut rows = self.buffers(plane, start, &program);
            for ys in self.stretches(start..end) {
                rows.load(self.isa, &ys);
                for filter in 0..self.filters.len() {
                    let write = if filter == 0 { Write::Store } else { Write::Add };
                    self.point(
                        &mut rows,
                        [plane, filter],
                        &ys,
                        Some(self.factor(plane, filter)),
                        None,
                        |y, results| {
                            let at = (plane * height + y - 1) * width;
                            // SAFETY: the row lies inside the gradient, and is this task's alone; it begins as zeros.
                            let mut sink = unsafe { Sink::shared(target, at, width, write, self.isa) };
                            sink.put(0, results);
                        },
                    );
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
