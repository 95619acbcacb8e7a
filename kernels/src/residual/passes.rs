//! What happens around the convolutions.

#![allow(clippy::needless_range_loop)]

use crate::frozen::passes::{Images, ImagesMut, Pass};
use crate::matmul::SharedMut;
use crate::winograd::engine::{Finish, Output};
use crate::winograd::lanes::{LANES, Lanes, Task};
use crate::winograd::layout::Layout;

/// 16 of `values` from `channel`.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn of_channels<L: Lanes>(values: &[f32], channel: usize) -> L {
    // SAFETY: the slice has as many elements (checked here).
    unsafe { L::load(values[channel..][..LANES].as_ptr()) }
}

/// Where a PReLU let elements pass, and its slopes elsewhere.
#[derive(Clone, Copy)]
pub(super) struct SlopeMask<'a> {
    mask: &'a [u16],
    slope: &'a [f32],
}

impl<'a> SlopeMask<'a> {
    /// Of elements in `layout`.
    pub(super) fn new(mask: &'a [u16], slope: &'a [f32], layout: Layout) -> Self {
        assert!(mask.len() >= layout.vectors(layout.batch) && slope.len() == layout.lanes());
        SlopeMask { mask, slope }
    }
}

/// The gradient that reaches a unit's input past it.
#[derive(Clone, Copy)]
pub(super) struct Past<'a> {
    /// The gradient, at every `stride`th pixel.
    pub(super) gradient: Images<'a>,
    /// What the gradient through the unit is multiplied by, as long as the layout has lanes.
    pub(super) scale: &'a [f32],
    pub(super) stride: usize,
}

/// A convolution's input gradient: scaled and added to what came past, then through the PReLU below.
#[derive(Clone, Copy)]
pub(super) struct Back<'a> {
    output: Output<'a>,
    past: Option<Past<'a>>,
    below: Option<SlopeMask<'a>>,
}

impl<'a> Back<'a> {
    /// Writes to `output`; `below` is of its layout.
    pub(super) fn new(
        output: &'a mut [f32],
        layout: Layout,
        past: Option<Past<'a>>,
        below: Option<SlopeMask<'a>>,
    ) -> Self {
        if let Some(Past { gradient, scale, stride }) = past {
            let Layout { height, width, batch, .. } = gradient.layout;
            assert!(scale.len() == layout.lanes() && gradient.layout.lanes() == layout.lanes());
            assert!(batch >= layout.batch);
            assert!(height >= layout.height.div_ceil(stride) && width >= layout.width.div_ceil(stride));
        }
        if let Some(SlopeMask { mask, slope }) = below {
            assert!(mask.len() >= layout.vectors(layout.batch) && slope.len() == layout.lanes());
        }
        Back { output: Output::new(output, layout), past, below }
    }
}

impl Finish for Back<'_> {
    #[inline(always)]
    unsafe fn put<L: Lanes>(&self, value: L, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: `new` checked that the arrays hold the layout; the caller vouches for the position.
        unsafe {
            let mut value = value;
            if let Some(Past { gradient, scale, stride }) = self.past {
                value = value.mul(L::load(scale.as_ptr().add(channel)));
                if stride == 1 {
                    value = value.add(gradient.load(sample, y, x, channel));
                } else if y.is_multiple_of(stride) && x.is_multiple_of(stride) {
                    value = value.add(gradient.load(sample, y / stride, x / stride, channel));
                }
            }
            if let Some(SlopeMask { mask, slope }) = self.below {
                let bits = *mask.get_unchecked(self.output.layout().vector(sample, y, x) + channel / LANES);
                value = value.sloped(bits, L::load(slope.as_ptr().add(channel)));
            }
            self.output.store(value, sample, y, x, channel);
        }
    }
}

/// Scale and shift.
#[derive(Clone, Copy)]
pub(super) struct Norm<'a> {
    pub(super) from: Images<'a>,
    pub(super) to: ImagesMut<'a>,
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
}

impl Pass for Norm<'_> {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: the caller vouches for the pixel and the channels.
        unsafe {
            let value: L = self.from.load(sample, y, x, channel);
            let value = value.mul_add(of_channels(self.scale, channel), of_channels(self.shift, channel));
            value.store(self.to.at(sample, y, x, channel));
        }
    }
}

/// Every second pixel of every second row.
#[derive(Clone, Copy)]
pub(super) struct Thin<'a> {
    /// As large as that takes, with as many channels.
    pub(super) from: Images<'a>,
    pub(super) to: ImagesMut<'a>,
}

impl Pass for Thin<'_> {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: the caller vouches for the pixel and the channels; the source is as large as that takes.
        unsafe {
            let value: L = self.from.load(sample, 2 * y, 2 * x, channel);
            value.store(self.to.at(sample, y, x, channel));
        }
    }
}

/// A unit's output: what its gates multiply, plus what came past; and what the next unit's first convolution takes.
#[derive(Clone, Copy)]
pub(super) struct Join<'a> {
    pub(super) outputs: Images<'a>,
    /// Of each image, as long as the layout has lanes.
    pub(super) gates: Option<&'a [f32]>,
    pub(super) past: Images<'a>,
    pub(super) target: ImagesMut<'a>,
    /// The next unit's scale and shift, and where they lead.
    pub(super) following: Option<(ImagesMut<'a>, &'a [f32], &'a [f32])>,
}

impl Pass for Join<'_> {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: the caller vouches for the pixel and the channels.
        unsafe {
            let output: L = self.outputs.load(sample, y, x, channel);
            let past: L = self.past.load(sample, y, x, channel);
            let at = sample * self.outputs.layout.lanes() + channel;
            let value = match self.gates {
                Some(gates) => output.mul_add(of_channels(gates, at), past),
                None => output.add(past),
            };
            value.store(self.target.at(sample, y, x, channel));
            if let Some((normed, scale, shift)) = self.following {
                let value = value.mul_add(of_channels(scale, channel), of_channels(shift, channel));
                value.store(normed.at(sample, y, x, channel));
            }
        }
    }
}

/// The gradient of what the gates multiply: the unit's, times the gates, plus what reaches every pixel by way of the means.
#[derive(Clone, Copy)]
pub(super) struct Spread<'a> {
    pub(super) gradient: Images<'a>,
    /// Of each image the gates and the gradients of its pixels, as long as the layout has lanes.
    pub(super) gates: Option<(&'a [f32], &'a [f32])>,
    pub(super) target: ImagesMut<'a>,
}

impl Pass for Spread<'_> {
    #[inline(always)]
    unsafe fn at<L: Lanes>(&self, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: the caller vouches for the pixel and the channels.
        unsafe {
            let mut value: L = self.gradient.load(sample, y, x, channel);
            if let Some((gates, means)) = self.gates {
                let at = sample * self.gradient.layout.lanes() + channel;
                value = value.mul_add(of_channels(gates, at), of_channels(means, at));
            }
            value.store(self.target.at(sample, y, x, channel));
        }
    }
}

/// Sums over the pixels of some channels of an image, which are this task's alone.
pub(super) struct SumTask<'a> {
    pub(super) images: Images<'a>,
    /// Of the same layout.
    pub(super) factors: Option<Images<'a>>,
    /// Of each image, as long as the layout has lanes.
    pub(super) sums: SharedMut<'a, f32>,
    pub(super) sample: usize,
    /// From the first up to the second; whole vectors.
    pub(super) channels: [usize; 2],
}

impl Task for SumTask<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (layout, sample) = (self.images.layout, self.sample);
        for channel in (self.channels[0]..self.channels[1]).step_by(LANES) {
            // SAFETY: pixels and channels of an image that exists; its sums are this task's alone.
            unsafe {
                let mut total = L::splat(0.0);
                for y in 0..layout.height {
                    let mut row = L::splat(0.0);
                    for x in 0..layout.width {
                        let value: L = self.images.load(sample, y, x, channel);
                        row = match self.factors {
                            Some(factors) => value.mul_add(factors.load(sample, y, x, channel), row),
                            None => row.add(value),
                        };
                    }
                    total = total.add(row);
                }
                total.store(self.sums.start().add(sample * layout.lanes() + channel));
            }
        }
    }
}
