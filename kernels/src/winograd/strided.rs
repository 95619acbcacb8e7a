//! The frozen 3×3 convolution at stride 2 and padding 1, and its input gradient, in the frozen kernels' layout.
//!
//! Nothing is gathered: in a row, the pixels that one tap reads for neighbouring outputs lie equally far apart, so each
//! tap is a product of pixels with that tap's weights. On the way back the pixels of the input fall into four classes,
//! by whether row and column are even, and each class takes its own taps.

#![allow(clippy::needless_range_loop)]

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::engine::{BLOCK, Finish, Prepared, vectors, with_scratch};
use super::lanes::{ADDED, Ahead, FRESH, Instructions, LANES, Lanes, Task};
use super::layout::Layout;
use crate::assert_fills;
use crate::once::get_or_make;

/// Pixels whose products are formed at a time.
const PIXELS: usize = 8;
/// Pixels past the end of an input that may be read, and are not used.
const SLACK: usize = 2 * PIXELS;

/// The length of an input: its layout, and some room that is read and not used.
pub(crate) fn input_len(layout: &Layout) -> usize {
    layout.len() + SLACK * layout.lanes()
}

/// The weights of a frozen 3×3 convolution at stride 2, prepared when first used, for either direction.
pub(crate) struct StridedWeights {
    outputs: usize,
    inputs: usize,
    weight: Arc<[f32]>,
    forward: OnceLock<Prepared>,
    backward: OnceLock<Prepared>,
}

impl StridedWeights {
    /// From a weight (`outputs`, `inputs`, 3, 3).
    ///
    /// # Panics
    /// If the weight has another number of elements.
    pub(crate) fn new(outputs: usize, inputs: usize, weight: Arc<[f32]>) -> Self {
        assert_fills("a weight", &[outputs, inputs, 3, 3], weight.len());
        StridedWeights { outputs, inputs, weight, forward: OnceLock::new(), backward: OnceLock::new() }
    }

    fn tap(&self, output: usize, input: usize, tap: usize) -> f32 {
        self.weight[(output * self.inputs + input) * 9 + tap]
    }

    /// The convolution of `input`, laid out as `from` in [`input_len`] elements, its border zero. Hands every output of
    /// the layout `to` to `finish`.
    pub(crate) fn convolve(
        &self,
        instructions: Instructions,
        input: &[f32],
        from: Layout,
        to: Layout,
        finish: &impl Finish,
    ) {
        let prepare = || Prepared::direct(self.outputs, self.inputs, |output, input, tap| self.tap(output, input, tap));
        let weights = get_or_make(&self.forward, prepare);
        let phase = Phase { at: [0, 0], taps: (0..9).map(|tap| (tap, [tap / 3, tap % 3])).collect() };
        Strided { input, from, to, weights, grid: to, step: 2, spread: 1, phases: vec![phase] }
            .run(instructions, finish);
    }

    /// The input gradient: of the gradient of the outputs, laid out as `from` in [`input_len`] elements, its border zero.
    /// Hands every pixel of the input's layout `to` to `finish`.
    pub(crate) fn carry_back(
        &self,
        instructions: Instructions,
        gradient: &[f32],
        from: Layout,
        to: Layout,
        finish: &impl Finish,
    ) {
        let prepare = || Prepared::direct(self.inputs, self.outputs, |input, output, tap| self.tap(output, input, tap));
        let weights = get_or_make(&self.backward, prepare);
        // Along an axis: an even pixel is the middle of one window; an odd one the end of one and the beginning of the
        // next. A tap, and how far down or right of the border its pixel lies.
        let along = |odd: usize| if odd == 0 { vec![(1, 1)] } else { vec![(2, 1), (0, 2)] };
        let phase = |at: [usize; 2]| {
            let rows = along(at[0]);
            let taps = rows.iter().flat_map(|&(row, down)| {
                along(at[1]).into_iter().map(move |(column, right)| (row * 3 + column, [down, right]))
            });
            Phase { at, taps: taps.collect() }
        };
        let phases = [[0, 0], [0, 1], [1, 0], [1, 1]].map(phase).to_vec();
        Strided { input: gradient, from, to, weights, grid: from, step: 1, spread: 2, phases }
            .run(instructions, finish);
    }
}

/// Outputs that take the same taps.
#[derive(Clone, Debug)]
struct Phase {
    /// Where in a square of `spread` by `spread` outputs.
    at: [usize; 2],
    /// Taps, and where their pixel lies from the one up and left of the input's.
    taps: Vec<(usize, [usize; 2])>,
}

/// Products over a grid: `step` pixels of the input and `spread` of the output between its points.
struct Strided<'a> {
    input: &'a [f32],
    from: Layout,
    to: Layout,
    weights: &'a Prepared,
    grid: Layout,
    step: usize,
    spread: usize,
    phases: Vec<Phase>,
}

impl Strided<'_> {
    fn run(&self, instructions: Instructions, finish: &impl Finish) {
        assert!(self.input.len() >= input_len(&self.from) && self.from.channels == self.weights.inputs);
        assert!(self.to.channels == self.weights.outputs && self.to.batch == self.from.batch);
        // A task keeps a block's weights and takes many rows: enough tasks for all threads, whatever their number.
        const TASKS: usize = 16;
        let (blocks, rows) = (self.weights.blocks(), self.grid.batch * self.grid.height);
        let parts = TASKS.div_ceil(blocks.max(1)).min(rows);
        (0..blocks * parts).into_par_iter().with_max_len(1).for_each(|task| {
            let (block, part) = (task / parts, task % parts);
            with_scratch(PIXELS * BLOCK, |products| {
                let rows = [part * rows / parts, (part + 1) * rows / parts];
                let task = RowsTask { strided: self, finish, rows, block, products };
                // SAFETY: these rows of these channels are this task's alone.
                unsafe { instructions.run(task) };
            });
        });
    }
}

/// Some rows of a block of output channels, which are this task's alone. `products` holds a block for 8 pixels.
struct RowsTask<'a, F> {
    strided: &'a Strided<'a>,
    finish: &'a F,
    rows: [usize; 2],
    block: usize,
    products: &'a mut [f32],
}

impl<F: Finish> RowsTask<'_, F> {
    /// # Safety
    /// As [`Task::run`]; the block has `VECTORS` vectors.
    #[inline(always)]
    unsafe fn multiply<L: Lanes, const VECTORS: usize>(&mut self) {
        let Strided { input, from, to, weights, grid, step, spread, phases } = self.strided;
        let (depth, lanes, finish) = (weights.inputs, from.lanes(), *self.finish);
        let block = &weights.block(self.block)[..9 * depth * VECTORS * LANES];
        let products = self.products[..PIXELS * VECTORS * LANES].as_mut_ptr();
        for row in self.rows[0]..self.rows[1] {
            let (sample, y) = (row / grid.height, row % grid.height);
            for x in (0..grid.width).step_by(PIXELS) {
                let corner = from.at(sample, y * step, x * step) - (from.columns() + 1) * lanes;
                for Phase { at, taps } in phases {
                    for (index, &(tap, [down, right])) in taps.iter().enumerate() {
                        let start = corner + (down * from.columns() + right) * lanes;
                        let pixels = input[start..][..(PIXELS - 1) * step * lanes + depth].as_ptr();
                        let taps = block[tap * depth * VECTORS * LANES..].as_ptr();
                        let (stride, ahead) = (step * lanes, &mut Ahead::nothing());
                        // SAFETY: the slices hold the pixels, the tap's weights and the products.
                        unsafe {
                            if index == 0 {
                                L::product::<PIXELS, VECTORS, FRESH>(depth, pixels, stride, taps, products, ahead);
                            } else {
                                L::product::<PIXELS, VECTORS, ADDED>(depth, pixels, stride, taps, products, ahead);
                            }
                        }
                    }
                    let bottom = y * spread + at[0];
                    for index in 0..PIXELS.min(grid.width - x) {
                        let across = (x + index) * spread + at[1];
                        if bottom < to.height && across < to.width {
                            for vector in 0..VECTORS {
                                // SAFETY: the pixel lies inside the output, and its block is this task's.
                                unsafe {
                                    let value = L::load(products.add((index * VECTORS + vector) * LANES));
                                    let channel = self.block * BLOCK + vector * LANES;
                                    finish.put(value, sample, bottom, across, channel);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl<F: Finish> Task for RowsTask<'_, F> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        // SAFETY: the caller's word.
        unsafe {
            if vectors(self.strided.weights.outputs, self.block) == 2 {
                self.multiply::<L, 2>();
            } else {
                self.multiply::<L, 1>();
            }
        }
        L::fence();
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::{Activation, Backward, Forward};
    use super::super::layout::Buffer;
    use super::*;
    use crate::Conv2d;
    use crate::conv::{conv2d, conv2d_input_gradient};
    use crate::isa::Isa;
    use crate::matmul::test_support::{on_threads, values, worst_error};

    fn wide(values: &[f32]) -> Vec<f64> {
        values.iter().copied().map(f64::from).collect()
    }

    /// Value and input gradient, with what they should be.
    fn both(isa: Isa, [batch, inputs, outputs, height, width]: [usize; 5]) -> [(Vec<f32>, Vec<f64>); 2] {
        let geometry = Conv2d::padded(1).strided(2);
        let shape = [batch, inputs, height, width];
        let input = values::<f32>(shape.iter().product(), 1);
        let kernel = [outputs, inputs, 3, 3];
        let weight = values::<f32>(kernel.iter().product(), 2);
        let (low, across) = (height.div_ceil(2), width.div_ceil(2));
        let above_shape = [batch, outputs, low, across];
        let above = values::<f32>(above_shape.iter().product(), 3);
        let expected = conv2d(&geometry, &wide(&input), shape, &wide(&weight), kernel);
        let expected_gradient =
            conv2d_input_gradient(&geometry, &wide(&above), above_shape, &wide(&weight), kernel, [height, width]);

        let (from, to) = (Layout::new(shape), Layout::new(above_shape));
        let weights = StridedWeights::new(outputs, inputs, weight.into());
        let laid_out = |planes: &[f32], layout: Layout| {
            // What lies behind the layout is read and must not matter.
            let mut buffer = Buffer::new(input_len(&layout));
            buffer.fill(f32::NAN);
            layout.fill_from_planes(planes, 0, |_| [1.0, 0.0], &mut buffer);
            buffer
        };
        let (mut output, bias) = (Buffer::new(to.len()), vec![0.0; to.lanes()]);
        let finish = Forward::new(&mut output, to, &bias, Activation::None, None);
        weights.convolve(Instructions::of(isa), &laid_out(&input, from), from, to, &finish);
        let mut gradient = Buffer::new(from.len());
        let finish = Backward::new(&mut gradient, from, None);
        weights.carry_back(Instructions::of(isa), &laid_out(&above, to), to, from, &finish);
        [
            (to.to_planes(&output, batch, |_| 1.0), expected),
            (from.to_planes(&gradient, batch, |_| 1.0), expected_gradient),
        ]
    }

    #[test]
    fn agrees_with_the_definition() {
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            for case in
                [[1, 1, 1, 1, 1], [2, 3, 17, 5, 8], [1, 20, 40, 14, 14], [2, 64, 48, 9, 30], [1, 33, 64, 56, 20]]
            {
                for (got, expected) in both(isa, case) {
                    let error = worst_error(&got, &expected);
                    assert!(error < 2e-6, "{isa:?} {case:?}: {error:e}");
                }
            }
        }
    }

    #[test]
    fn same_bits_on_any_number_of_threads_and_instruction_set() {
        let run = |isa| move || both(isa, [3, 20, 70, 14, 14]).map(|(values, _)| values);
        let one = on_threads(1, run(Isa::Avx512));
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            assert_eq!(one, on_threads(2, run(isa)), "{isa:?}");
            assert_eq!(one, on_threads(5, run(isa)), "{isa:?}");
        }
    }
}
