//! What happens between convolutions, a row of pixels at a time.

#![allow(clippy::needless_range_loop)]

use rayon::prelude::*;

use crate::matmul::SharedMut;
use crate::winograd::lanes::{Instructions, LANES, Lanes, Task};
use crate::winograd::layout::Layout;

/// What is done to every pixel of images, 16 channels at a time.
pub(crate) trait Pass: Copy + Sync {
    /// Does it to 16 channels of a pixel.
    ///
    /// # Safety
    /// The processor has the instruction set of `L`; the pixel and the channels lie inside the images, and no other task
    /// has them.
    unsafe fn at<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize);
}

/// Runs a pass over the first `samples` images of a layout, which is that of what it writes unless the pass says
/// otherwise.
///
/// # Safety
/// The pass's images hold these pixels and channels.
pub(crate) unsafe fn pass_over(instructions: Instructions, layout: &Layout, samples: usize, pass: impl Pass + Send) {
    each_row(layout, samples, |sample, y| {
        // SAFETY: each task has a row of its own, and the caller vouches for the pixels.
        unsafe { instructions.run(RowTask { pass, layout, sample, y }) };
    });
}

/// Runs `work` on every row of the first `samples` images.
pub(super) fn each_row(layout: &Layout, samples: usize, work: impl Fn(usize, usize) + Sync + Send) {
    let height = layout.height;
    (0..samples * height).into_par_iter().with_min_len(2).for_each(|row| work(row / height, row % height));
}

/// A row of a pass. The row exists and is the task's alone.
struct RowTask<'a, P> {
    pass: P,
    layout: &'a Layout,
    sample: usize,
    y: usize,
}

impl<P: Pass> Task for RowTask<'_, P> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // Copies, which no store can alias: their fields stay in registers.
        let (pass, layout) = (self.pass, *self.layout);
        for x in 0..layout.width {
            for channel in (0..layout.lanes()).step_by(LANES) {
                // SAFETY: a pixel and channels of this task's row.
                unsafe { pass.at::<L>(self.sample, self.y, x, channel) };
            }
        }
    }
}

/// A read of images in a layout.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) layout: Layout,
}

impl<'a> Images<'a> {
    pub(crate) fn new(data: &'a [f32], layout: Layout) -> Self {
        assert!(data.len() >= layout.len());
        Images { data, layout }
    }

    /// # Safety
    /// The pixel and the channels lie inside, and the processor has the instruction set of `L`.
    #[inline(always)]
    pub(crate) unsafe fn load<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize) -> L {
        // SAFETY: the data hold the layout (checked by `new`); the caller vouches for the rest.
        unsafe { L::load(self.data.as_ptr().add(self.layout.at(sample, y, x) + channel)) }
    }
}

/// Writable images in a layout, shared among tasks that own a row each.
#[derive(Clone, Copy)]
pub(crate) struct ImagesMut<'a> {
    data: SharedMut<'a, f32>,
    layout: Layout,
}

impl<'a> ImagesMut<'a> {
    pub(crate) fn new(data: &'a mut [f32], layout: Layout) -> Self {
        assert!(data.len() >= layout.len());
        ImagesMut { data: SharedMut::new(data), layout }
    }

    /// # Safety
    /// The pixel and the channels lie inside.
    #[inline(always)]
    pub(crate) unsafe fn at(&self, sample: usize, y: usize, x: usize, channel: usize) -> *mut f32 {
        // SAFETY: the data hold the layout (checked by `new`); the caller vouches for the rest.
        unsafe { self.data.start().add(self.layout.at(sample, y, x) + channel) }
    }
}

/// A bit per element of images in a layout, shared among tasks that own a row each.
#[derive(Clone, Copy)]
pub(super) struct BitsMut<'a> {
    bits: SharedMut<'a, u16>,
    layout: Layout,
}

impl<'a> BitsMut<'a> {
    /// For `samples` images.
    pub(super) fn new(bits: &'a mut [u16], layout: Layout, samples: usize) -> Self {
        assert!(bits.len() >= layout.vectors(samples));
        BitsMut { bits: SharedMut::new(bits), layout }
    }

    /// # Safety
    /// The pixel and the channels lie inside, and are the caller's alone.
    #[inline(always)]
    unsafe fn set(&self, sample: usize, y: usize, x: usize, channel: usize, bits: u16) {
        // SAFETY: as many words as vectors (checked by `new`); the caller vouches for the rest.
        unsafe { *self.bits.start().add(self.layout.vector(sample, y, x) + channel / LANES) = bits };
    }
}

/// A bit per element of images in a layout.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    bits: &'a [u16],
    layout: Layout,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bits: &'a [u16], layout: Layout) -> Self {
        assert!(bits.len() >= layout.vectors(layout.batch));
        Bits { bits, layout }
    }

    /// # Safety
    /// The pixel and the channels lie inside.
    #[inline(always)]
    unsafe fn get(&self, sample: usize, y: usize, x: usize, channel: usize) -> u16 {
        // SAFETY: as many words as vectors (checked by `new`); the caller vouches for the rest.
        unsafe { *self.bits.get_unchecked(self.layout.vector(sample, y, x) + channel / LANES) }
    }
}

/// Scale, shift and ReLU, in place.
#[derive(Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) images: ImagesMut<'a>,
    /// As long as the layout has lanes.
    pub(super) scale: Option<&'a [f32]>,
    /// As long as the layout has lanes.
    pub(super) shift: Option<&'a [f32]>,
    pub(super) relu: bool,
    /// Which elements of the first images, as many as stand beside it, pass the ReLU.
    pub(super) mask: Option<(BitsMut<'a>, usize)>,
}

impl Pass for Affine<'_> {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: the caller vouches for the pixel and the channels.
        unsafe {
            let target = self.images.at(sample, y, x, channel);
            let mut value = L::load(target);
            if let Some(scale) = self.scale {
                value = value.mul(L::load(scale[channel..][..LANES].as_ptr()));
            }
            if let Some(shift) = self.shift {
                value = value.add(L::load(shift[channel..][..LANES].as_ptr()));
            }
            if self.relu {
                let zero = L::splat(0.0);
                if let Some((mask, _)) = self.mask.filter(|&(_, samples)| sample < samples) {
                    // A NaN passes, so that its gradient is the one above, which is NaN.
                    mask.set(sample, y, x, channel, value.passes(zero));
                }
                // In this order a NaN stays a NaN.
                value = zero.max(value);
            }
            value.store(target);
        }
    }
}

/// A row of 2×2 maxima. The output row exists and is the task's alone, with the input rows' routes.
pub(super) struct PoolTask<'a> {
    pub(super) input: Images<'a>,
    pub(super) output: ImagesMut<'a>,
    /// Pool max(x, 0).
    pub(super) relu: bool,
    /// Which input elements were taken. Rows and columns that no window reaches keep what they have: zero.
    pub(super) route: Option<BitsMut<'a>>,
    pub(super) sample: usize,
    pub(super) y: usize,
}

impl Task for PoolTask<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (from, to) = (self.input.layout, self.output.layout);
        let rows = 2.min(from.height - 2 * self.y);
        for x in 0..to.width {
            let columns = 2.min(from.width - 2 * x);
            for channel in (0..to.lanes()).step_by(LANES) {
                // SAFETY: a window of input pixels, and the output pixel of this task's row.
                unsafe {
                    let zero = L::splat(0.0);
                    let mut values = [zero; 4];
                    for index in 0..4 {
                        // Where the window hangs over the edge, a pixel inside it again.
                        let (row, column) = ((index / 2).min(rows - 1), (index % 2).min(columns - 1));
                        values[index] = self.input.load(self.sample, 2 * self.y + row, 2 * x + column, channel);
                    }
                    let (above, below) = (values[0].max_or_nan(values[1]), values[2].max_or_nan(values[3]));
                    let mut best = above.max_or_nan(below);
                    if self.relu {
                        best = zero.max(best);
                    }
                    best.store(self.output.at(self.sample, self.y, x, channel));
                    if let Some(route) = self.route {
                        let mut left = if self.relu { best.passes(zero) } else { u16::MAX };
                        for index in 0..4 {
                            let (row, column) = (index / 2, index % 2);
                            if row < rows && column < columns {
                                // The first that is the maximum, and every NaN.
                                let taken = values[index].equal(best) & left | values[index].is_nan();
                                left &= !taken;
                                route.set(self.sample, 2 * self.y + row, 2 * x + column, channel, taken);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The larger half of the channels of the input, which has twice as many.
#[derive(Clone, Copy)]
pub(super) struct MaxFeature<'a> {
    pub(super) input: Images<'a>,
    pub(super) output: ImagesMut<'a>,
    /// Where the first half was larger or NaN, in the first `samples` images.
    pub(super) route: BitsMut<'a>,
    pub(super) samples: usize,
}

impl Pass for MaxFeature<'_> {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: the caller vouches for the pixel and the channels of the output; the input has twice as many.
        unsafe {
            let first: L = self.input.load(sample, y, x, channel);
            let second: L = self.input.load(sample, y, x, self.output.layout.lanes() + channel);
            if sample < self.samples {
                self.route.set(sample, y, x, channel, first.greater(second) | first.is_nan());
            }
            first.max_or_nan(second).store(self.output.at(sample, y, x, channel));
        }
    }
}

/// The gradient of [`MaxFeature`]'s input.
#[derive(Clone, Copy)]
pub(super) struct Split<'a> {
    /// The gradient of the larger halves.
    pub(super) above: Images<'a>,
    /// With twice the channels.
    pub(super) gradient: ImagesMut<'a>,
    /// Where the first half was larger.
    pub(super) route: Bits<'a>,
}

impl Pass for Split<'_> {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: the caller vouches for the pixel and the channels above; the gradient has twice as many.
        unsafe {
            let above: L = self.above.load(sample, y, x, channel);
            let route = self.route.get(sample, y, x, channel);
            above.keep(route).store(self.gradient.at(sample, y, x, channel));
            let second = self.above.layout.lanes() + channel;
            above.keep(!route).store(self.gradient.at(sample, y, x, second));
        }
    }
}

/// Sums of a row's differences, and the gradient of their criteria. The row exists and is the task's alone.
pub(super) struct CompareTask<'a> {
    pub(super) prediction: Images<'a>,
    pub(super) target: Images<'a>,
    /// Added to the sample to find its target.
    pub(super) offset: usize,
    pub(super) gradient: RowGradient<'a>,
    /// Sum of magnitudes, sum of squares.
    pub(super) sums: &'a mut [f64; 2],
    pub(super) sample: usize,
    pub(super) y: usize,
}

/// What is kept of a row's differences.
#[derive(Clone, Copy)]
pub(super) enum RowGradient<'a> {
    /// Nothing.
    None,
    /// Their signs.
    Signs {
        /// Where the prediction is larger, or the difference NaN.
        positive: BitsMut<'a>,
        /// Where the target is larger, or the difference NaN.
        negative: BitsMut<'a>,
    },
    /// `sign` times the sign plus `linear` times the difference, in vectors without border.
    Dense {
        /// The elements.
        values: SharedMut<'a, f32>,
        /// Factor of the sign.
        sign: f32,
        /// Factor of the difference.
        linear: f32,
    },
}

impl Task for CompareTask<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let layout = self.prediction.layout;
        // SAFETY: the task runs with the instructions of `L`.
        let zero = unsafe { L::splat(0.0) };
        for x in 0..layout.width {
            let (mut magnitudes, mut squares) = (zero, zero);
            for channel in (0..layout.lanes()).step_by(LANES) {
                // SAFETY: pixels and channels of a row that exists, whose gradient is this task's alone.
                unsafe {
                    let prediction: L = self.prediction.load(self.sample, self.y, x, channel);
                    let target: L = self.target.load(self.sample + self.offset, self.y, x, channel);
                    let difference = prediction.sub(target);
                    magnitudes = magnitudes.add(difference.abs());
                    squares = difference.mul_add(difference, squares);
                    match self.gradient {
                        RowGradient::None => {}
                        RowGradient::Signs { positive, negative } => {
                            // Of a NaN both.
                            positive.set(self.sample, self.y, x, channel, difference.passes(zero));
                            negative.set(self.sample, self.y, x, channel, zero.passes(difference));
                        }
                        RowGradient::Dense { values, sign, linear } => {
                            let plus = L::splat(sign).keep(difference.greater(zero));
                            let minus = L::splat(sign).keep(zero.greater(difference));
                            let mut value = plus.sub(minus);
                            if linear != 0.0 {
                                value = difference.mul_add(L::splat(linear), value);
                            } else {
                                // Zero times an infinite difference would be NaN; the sign of a NaN is.
                                value = value.add(difference.keep(difference.is_nan()));
                            }
                            let index = layout.vector(self.sample, self.y, x) * LANES + channel;
                            value.store(values.start().add(index));
                        }
                    }
                }
            }
            self.sums[0] += magnitudes.sum();
            self.sums[1] += squares.sum();
        }
    }
}

/// The gradient that reaches a step's output: from the step above, from the tap, past the ReLU.
#[derive(Clone, Copy)]
pub(super) struct Gather<'a> {
    /// Read where `above` says so, and written.
    pub(super) gradient: ImagesMut<'a>,
    pub(super) above: Above<'a>,
    pub(super) signs: Option<(Bits<'a>, Bits<'a>, f32)>,
    /// Vectors without border, for the whole layout.
    pub(super) dense: Option<&'a [f32]>,
    pub(super) mask: Option<Bits<'a>>,
}

/// The gradient from the step above.
#[derive(Clone, Copy)]
pub(super) enum Above<'a> {
    /// None: nothing above reaches a tap.
    None,
    /// It is in place.
    InPlace,
    /// It is that of a pool's output.
    Pooled {
        /// The gradient.
        gradient: Images<'a>,
        /// Which elements the pool took.
        route: Bits<'a>,
    },
}

impl Pass for Gather<'_> {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: the caller vouches for the pixel and the channels; a pool's output pixel is checked to exist.
        unsafe {
            let target = self.gradient.at(sample, y, x, channel);
            let mut value = match self.above {
                Above::InPlace => L::load(target),
                Above::Pooled { gradient, route }
                    if y / 2 < gradient.layout.height && x / 2 < gradient.layout.width =>
                {
                    let above: L = gradient.load(sample, y / 2, x / 2, channel);
                    above.keep(route.get(sample, y, x, channel))
                }
                Above::Pooled { .. } | Above::None => L::splat(0.0),
            };
            if let Some((positive, negative, factor)) = self.signs {
                let factor = L::splat(factor);
                let (positive, negative) = (positive.get(sample, y, x, channel), negative.get(sample, y, x, channel));
                value = value.add(factor.keep(positive)).sub(factor.keep(negative));
                if positive & negative != 0 {
                    value = value.add(L::splat(f32::NAN).keep(positive & negative));
                }
            }
            if let Some(dense) = self.dense {
                let index = self.gradient.layout.vector(sample, y, x) * LANES + channel;
                value = value.add(L::load(dense[index..][..LANES].as_ptr()));
            }
            if let Some(mask) = self.mask {
                value = value.keep(mask.get(sample, y, x, channel));
            }
            value.store(target);
        }
    }
}
