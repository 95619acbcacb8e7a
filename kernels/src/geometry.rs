//! How windows slide: convolution and pooling geometry, and their output-size rules.

use crate::shape::{count_in_memory, is_beyond};
use crate::{Error, Result, Shape};

/// Stride, padding, dilation and groups of a 2-D convolution, as `torch.nn.functional.conv2d` takes them.
///
/// | option | meaning | default |
/// |---|---|---|
/// | `stride` | step of the window, rows and columns | `[1, 1]` |
/// | `padding` | zeros added on each side, rows and columns | `[0, 0]` |
/// | `dilation` | spacing of the kernel's taps | `[1, 1]` |
/// | `groups` | independent groups of channels | `1` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Step of the window, rows and columns.
    pub stride: [usize; 2],
    /// Zeros added on each side, rows and columns.
    pub padding: [usize; 2],
    /// Spacing of the kernel's taps.
    pub dilation: [usize; 2],
    /// Independent groups of channels.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Self {
        Conv2d { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

impl Conv2d {
    /// Stride 1 and the given padding on both axes.
    pub fn padded(padding: usize) -> Self {
        Conv2d { padding: [padding; 2], ..Conv2d::default() }
    }

    /// The same with another stride on both axes.
    pub fn strided(self, stride: usize) -> Self {
        Conv2d { stride: [stride; 2], ..self }
    }

    /// The same with another number of groups.
    pub fn grouped(self, groups: usize) -> Self {
        Conv2d { groups, ..self }
    }

    /// The shape of input (N, C, H, W) convolved with weight (O, C / groups, KH, KW).
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for ranks other than 4, channels that do not match the groups, a zero stride or dilation,
    /// a kernel larger than the padded input, or a result that memory cannot hold.
    pub fn output_shape(&self, input: &[usize], weight: &[usize]) -> Result<Shape> {
        let rule = |argument, expected: String, got: &[usize]| {
            Err(Error::ShapeRule { operation: "conv2d", argument, expected, got: got.to_vec() })
        };
        if input.len() != 4 {
            return rule("input", "rank 4 (N, C, H, W)".into(), input);
        }
        if weight.len() != 4 {
            return rule("weight", "rank 4 (O, C / groups, KH, KW)".into(), weight);
        }
        if self.groups == 0 || !weight[0].is_multiple_of(self.groups) {
            return rule("weight", format!("output channels in {} groups", self.groups), weight);
        }
        if weight[1].checked_mul(self.groups) != Some(input[1]) {
            return rule("weight", format!("{} input channels in {} groups", input[1], self.groups), weight);
        }
        let window = |axis: usize| Window {
            size: weight[2 + axis],
            stride: self.stride[axis],
            padding: self.padding[axis],
            dilation: self.dilation[axis],
        };
        match (window(0).count(input[2], false), window(1).count(input[3], false)) {
            (Some(h), Some(w)) if count_in_memory(&[input[0], weight[0], h, w]).is_some() => {
                Ok(vec![input[0], weight[0], h, w])
            }
            (Some(h), Some(w)) => rule("input", format!("room in memory for {h}×{w} windows"), input),
            _ => rule(
                "input",
                format!(
                    "at least the kernel's extent {:?} after padding {:?}, with a positive stride",
                    &weight[2..],
                    self.padding
                ),
                input,
            ),
        }
    }
}

/// A 2-D pooling window, as `torch.nn.functional.max_pool2d` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool2d {
    /// Rows and columns of the window.
    pub size: [usize; 2],
    /// Step of the window.
    pub stride: [usize; 2],
    /// Padding on each side; at most half the window.
    pub padding: [usize; 2],
    /// Round the number of windows up: the last one may hang over the edge.
    pub ceil_mode: bool,
}

impl Pool2d {
    /// A square window that steps by its own size.
    pub fn square(size: usize) -> Self {
        Pool2d { size: [size; 2], stride: [size; 2], padding: [0; 2], ceil_mode: false }
    }

    /// The shape of input (N, C, H, W) after pooling.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for a rank other than 4, no rows or columns, a zero window or stride, a padding over half the
    /// window, a window larger than the padded input, or a result that memory cannot hold.
    pub fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        let rule = |expected: String| {
            Err(Error::ShapeRule { operation: "pool2d", argument: "input", expected, got: input.to_vec() })
        };
        if input.len() != 4 {
            return rule("rank 4 (N, C, H, W)".into());
        }
        if input[2] == 0 || input[3] == 0 {
            return rule("at least one row and column".into());
        }
        if (0..2).any(|axis| self.padding[axis] > self.size[axis] / 2) {
            return rule(format!("a padding {:?} of at most half the window {:?}", self.padding, self.size));
        }
        let count = |axis: usize| {
            let window =
                Window { size: self.size[axis], stride: self.stride[axis], padding: self.padding[axis], dilation: 1 };
            window.count(input[2 + axis], self.ceil_mode)
        };
        match (count(0), count(1)) {
            (Some(h), Some(w)) if count_in_memory(&[input[0], input[1], h, w]).is_some() => {
                Ok(vec![input[0], input[1], h, w])
            }
            (Some(h), Some(w)) => rule(format!("room in memory for {h}×{w} windows")),
            _ => rule(format!(
                "at least the window {:?} after padding {:?}, with a positive stride",
                self.size, self.padding
            )),
        }
    }
}

/// One axis of a sliding window.
struct Window {
    size: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
}

impl Window {
    /// How many times it fits into `extent`; `None` where it never does.
    fn count(&self, extent: usize, ceil: bool) -> Option<usize> {
        if self.size == 0 || self.stride == 0 || self.dilation == 0 || self.stride > isize::MAX as usize {
            return None;
        }
        // No position below overflows.
        if is_beyond(&[self.size, self.stride, self.padding, self.dilation, extent]) {
            return None;
        }
        let reach = self.dilation.checked_mul(self.size - 1)?.checked_add(1)?;
        // Kernels count pixels from the padding's edge on, with a sign.
        let padded =
            extent.checked_add(self.padding.checked_mul(2)?).filter(|&padded| padded <= isize::MAX as usize)?;
        let Some(room) = padded.checked_sub(reach) else {
            // Rounded up, even a first window may hang over the far edge.
            return (ceil && extent > 0 && padded.checked_add(self.stride - 1)? >= reach).then_some(1);
        };
        let steps = room / self.stride;
        // Rounded up, unless the extra window would start in the far padding (PyTorch's rule).
        let extra = ceil
            && !room.is_multiple_of(self.stride)
            && (steps + 1).saturating_mul(self.stride) < extent + self.padding;
        Some(steps + 1 + usize::from(extra))
    }
}
