//! One kernel sliding over one plane.

use crate::Element;
use crate::isa::{self, Kernel};

/// Output rows that share a strip of the input.
pub(super) const ROWS: usize = 16;

/// The geometry of one plane: output `(y, x)` sums `kernel (a, b)` times the input at
/// `(y * stride + a * dilation - lead) / gap`, where that is a whole number inside the input.
pub(super) struct Slide {
    /// Rows and columns of the input.
    pub(super) input: [usize; 2],
    /// Spacing of the input's elements; between them lie zeros.
    pub(super) gap: [usize; 2],
    /// Rows and columns of the kernel.
    pub(super) kernel: [usize; 2],
    /// Rows and columns of the output.
    pub(super) output: [usize; 2],
    /// Step of the window.
    pub(super) stride: [usize; 2],
    /// Spacing of the kernel's taps.
    pub(super) dilation: [usize; 2],
    /// Zeros before the input; negative where it is cropped.
    pub(super) lead: [isize; 2],
}

impl Slide {
    /// Fills the output rows from `top`; `strip` is scratch.
    pub(super) fn run<F: Element>(&self, input: &[F], kernel: &[F], top: usize, output: &mut [F], strip: &mut Vec<F>) {
        if self.output[1] > 8 {
            self.run_lanes::<F, 32>(input, kernel, top, output, strip);
        } else {
            self.run_lanes::<F, 8>(input, kernel, top, output, strip);
        }
    }

    fn run_lanes<F: Element, const LANES: usize>(
        &self,
        input: &[F],
        kernel: &[F],
        top: usize,
        output: &mut [F],
        strip: &mut Vec<F>,
    ) {
        let rows = output.len() / self.output[1];
        // Columns of a strip's line: every stride-th column follows its neighbour, so that a tap's operands for
        // consecutive outputs are contiguous.
        let reach = (self.kernel[1] - 1) * self.dilation[1];
        let line = self.output[1].next_multiple_of(LANES) + reach / self.stride[1];
        self.fill(input, top, rows, line, strip);
        isa::run(isa::detect(), Sum::<F, LANES> { slide: self, kernel, strip, line, output });
    }

    /// The input beneath `rows` output rows, zeros included: for each row and each column modulo the stride, a line.
    fn fill<F: Element>(&self, input: &[F], top: usize, rows: usize, line: usize, strip: &mut Vec<F>) {
        let height = (rows - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] + 1;
        let step = self.stride[1];
        strip.clear();
        strip.resize(height * step * line, F::ZERO);
        for (row, lines) in strip.chunks_exact_mut(step * line).enumerate() {
            let Some(y) = self.source(0, top * self.stride[0] + row) else { continue };
            let source = &input[y * self.input[1]..][..self.input[1]];
            if step == 1 && self.gap[1] == 1 {
                // Column `x` of the line is column `x - lead` of the source.
                let first = self.lead[1].max(0) as usize;
                let skipped = (-self.lead[1]).max(0) as usize;
                let len = line.saturating_sub(first).min(source.len().saturating_sub(skipped));
                if len > 0 {
                    lines[first..][..len].copy_from_slice(&source[skipped..][..len]);
                }
                continue;
            }
            for (phase, line) in lines.chunks_exact_mut(line).enumerate() {
                for (column, target) in line.iter_mut().enumerate() {
                    if let Some(x) = self.source(1, column * step + phase) {
                        *target = source[x];
                    }
                }
            }
        }
    }

    /// The input's row or column at a position counted from the start of the zeros.
    fn source(&self, axis: usize, position: usize) -> Option<usize> {
        let position = usize::try_from(position as isize - self.lead[axis]).ok()?;
        let index = position / self.gap[axis];
        (position.is_multiple_of(self.gap[axis]) && index < self.input[axis]).then_some(index)
    }
}

/// The outputs of some rows: `LANES` neighbours at a time, one sum per kernel row and these added, which keeps rounding
/// small for large kernels. Plain arithmetic in a fixed order: the same bits with any instruction set.
struct Sum<'a, F, const LANES: usize> {
    slide: &'a Slide,
    kernel: &'a [F],
    strip: &'a [F],
    /// Columns of a line of the strip.
    line: usize,
    output: &'a mut [F],
}

impl<F: Element, const LANES: usize> Kernel for Sum<'_, F, LANES> {
    #[inline(always)]
    fn run(self) {
        let Sum { slide, kernel, strip, line, output } = self;
        let step = slide.stride[1];
        for (row, output) in output.chunks_exact_mut(slide.output[1]).enumerate() {
            for (block, output) in output.chunks_mut(LANES).enumerate() {
                let mut total = [F::ZERO; LANES];
                for (tap_row, kernel) in kernel.chunks_exact(slide.kernel[1]).enumerate() {
                    let lines =
                        &strip[(row * slide.stride[0] + tap_row * slide.dilation[0]) * step * line..][..step * line];
                    let mut sum = [F::ZERO; LANES];
                    let (mut phase, mut column) = (0, block * LANES);
                    for &weight in kernel {
                        let operands: &[F; LANES] =
                            lines[phase * line + column..].first_chunk().expect("a strip as wide as its lanes");
                        for lane in 0..LANES {
                            sum[lane] += weight * operands[lane];
                        }
                        phase += slide.dilation[1];
                        column += phase / step;
                        phase %= step;
                    }
                    for lane in 0..LANES {
                        total[lane] += sum[lane];
                    }
                }
                let len = output.len();
                output.copy_from_slice(&total[..len]);
            }
        }
    }
}
