//! The convolution itself: tiles to points, products of points, points to outputs.
//!
//! In both schedules one task transforms a tile's output as soon as its products are done. Where the transformed weights
//! are small, a task takes a *block* of tiles through all three steps, with points and products in the second-level
//! cache. Where they are large, all tiles of a *group* are transformed first, and a task owns 32 output channels, whose
//! weights it transforms on the way: reading 36 points for each kernel of 9 taps from memory would take longer.
//!
//! Products run over 64 input channels at a time, of all the tiles, whose points lie side by side ([`Room`]): these weights
//! stay in the first-level cache, and what the next ones come from is asked for meanwhile ([`Ahead`]).
//!
//! Where either side has at most [`FEW`] channels there is little to save, and direct ways are as fast, round less and
//! take kernels of any odd size: of few input channels the windows of a row are gathered, and multiplied with the taps; of
//! few outputs each pixel is multiplied with all taps of a row at once, and what these give is spread over its neighbours.
//!
//! An output is the sum of products over 16 channels: in groups four of these are added up first, in blocks all of them one
//! after the other. With more than 64 input channels the two schedules round differently, so that an image's last bits may
//! depend on how many are beside it.

#![allow(clippy::needless_range_loop)]

use std::cell::RefCell;

use rayon::prelude::*;

use super::lanes::{ADDED, Ahead, CONTINUED, FRESH, Instructions, LANES, Lanes, Task};
use super::layout::{Buffer, Layout};
use super::transform::{OUTPUTS, TILE_POINTS, Transform, taps_exact};
use crate::matmul::SharedMut;

/// Output channels that share a block of weights.
pub(super) const BLOCK: usize = 2 * LANES;
/// Input channels that are multiplied at a time: their weights stay in the first-level cache while all tiles go by. A
/// multiple of what a product sums at a time.
const CHUNK: usize = 64;
/// Pairs of channels from which on weights are transformed on the way.
const LARGE: usize = 256 * 512;
/// Channels, on either side, up to which the convolution is direct.
const FEW: usize = 8;
/// Tiles of a group.
const GROUP: usize = 128;
/// Tiles of a block: with 64 to 256 channels its points take 150 to 600 KB of the second-level cache.
const TILES: usize = 16;
/// Elements between arrays of points, so that these do not compete for the same cache lines.
const SKEW: usize = 3 * LANES;

thread_local! {
    static SCRATCH: RefCell<Buffer> = RefCell::default();
}

/// The weights of one correlation, as its tasks read them: for each block of 32 output channels (16 in a last, half one)
/// an array of what `form` says, output channels innermost.
pub(crate) struct Prepared {
    /// Taps of a kernel along an axis.
    size: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    form: Form,
    data: Buffer,
}

/// What weights are prepared as, by the kernel's size and the numbers of channels alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// For each point, input channels.
    Points,
    /// For each input channel, taps.
    Taps,
    /// For each tap, input channels.
    Direct,
    /// For each row of taps, input channels; innermost not blocks of outputs, but a row's taps with the outputs of each.
    Spread,
    /// Input channels: the kernel is one pixel.
    Pixels,
}

impl Form {
    fn of(size: usize, outputs: usize, inputs: usize) -> Self {
        if size == 1 {
            Form::Pixels
        } else if inputs <= FEW {
            Form::Direct
        } else if outputs <= FEW {
            Form::Spread
        } else if inputs * outputs < LARGE {
            Form::Points
        } else {
            Form::Taps
        }
    }

    /// Values for a pair of channels, in blocks.
    fn values(self, size: usize) -> usize {
        match self {
            Form::Points => TILE_POINTS,
            Form::Taps | Form::Direct | Form::Spread | Form::Pixels => size * size,
        }
    }
}

impl Prepared {
    /// Whether kernels of `size` by `size` taps of `inputs` channels can be prepared, and those of the input gradient: of
    /// any odd size if the channels are few, else 3 and 1.
    pub(super) fn takes(size: usize, inputs: usize) -> bool {
        matches!(size, 1 | 3) || size % 2 == 1 && inputs <= FEW && size * inputs <= BLOCK
    }

    /// Prepares kernels of `size` by `size` taps, `weight(output, input, tap)` each, of which it [`takes`](Self::takes)
    /// those of either the outputs or the inputs.
    pub(crate) fn new(
        size: usize,
        outputs: usize,
        inputs: usize,
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let form = Form::of(size, outputs, inputs);
        assert!(matches!(size, 1 | 3) || matches!(form, Form::Direct | Form::Spread), "kernels that can be prepared");
        match form {
            Form::Spread => Self::spread(size, outputs, inputs, weight),
            _ => Self::in_blocks(form, size, outputs, inputs, weight),
        }
    }

    /// Prepares kernels of 3 by 3 taps for products tap by tap.
    pub(super) fn direct(outputs: usize, inputs: usize, weight: impl Fn(usize, usize, usize) -> f32 + Sync) -> Self {
        Self::in_blocks(Form::Direct, 3, outputs, inputs, weight)
    }

    fn spread(size: usize, outputs: usize, inputs: usize, weight: impl Fn(usize, usize, usize) -> f32 + Sync) -> Self {
        assert!(size * outputs <= BLOCK, "a row's taps in two vectors");
        let width = (size * outputs).next_multiple_of(LANES);
        let mut data = Buffer::new(size * inputs * width);
        for (index, data) in data.chunks_exact_mut(width.max(1)).enumerate() {
            let (row, input) = (index / inputs, index % inputs);
            for (column, data) in data.chunks_exact_mut(outputs).take(size).enumerate() {
                for (output, value) in data.iter_mut().enumerate() {
                    *value = weight(output, input, row * size + column);
                }
            }
        }
        Prepared { size, inputs, outputs, form: Form::Spread, data }
    }

    fn in_blocks(
        form: Form,
        size: usize,
        outputs: usize,
        inputs: usize,
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let (taps, values) = (size * size, form.values(size));
        let mut data = Buffer::new(outputs.next_multiple_of(LANES) * inputs * values);
        data.par_chunks_mut((BLOCK * inputs * values).max(1)).enumerate().for_each(|(block, data)| {
            let width = vectors(outputs, block) * LANES;
            for output in 0..width.min(outputs - block * BLOCK) {
                for input in 0..inputs {
                    let tap = |tap: usize| weight(block * BLOCK + output, input, tap);
                    let mut put = |index: usize, value: f32| data[index * width + output] = value;
                    match form {
                        Form::Points => {
                            let kernel: [f32; 9] = std::array::from_fn(tap);
                            for (point, value) in taps_exact(&kernel).into_iter().enumerate() {
                                put(point * inputs + input, value as f32);
                            }
                        }
                        Form::Taps => (0..taps).for_each(|index| put(input * taps + index, tap(index))),
                        _ => (0..taps).for_each(|index| put(index * inputs + input, tap(index))),
                    }
                }
            }
        });
        Prepared { size, inputs, outputs, form, data }
    }

    /// Blocks of output channels.
    pub(super) fn blocks(&self) -> usize {
        self.outputs.div_ceil(BLOCK)
    }

    /// Where a block's weights begin.
    pub(super) fn block(&self, index: usize) -> &[f32] {
        &self.data[index * BLOCK * self.inputs * self.form.values(self.size)..]
    }
}

/// Vectors of a block of output channels.
pub(super) fn vectors(outputs: usize, block: usize) -> usize {
    (outputs - block * BLOCK).div_ceil(LANES).min(2)
}

/// Where the points of some tiles lie: for each point, each [`CHUNK`] of input channels, one tile after the other, so that
/// what is multiplied at a time lies in one piece. Rows that are many channels apart the processor does not see coming.
#[derive(Clone, Copy)]
struct Room {
    /// Tiles that there is room for, a multiple of 8.
    tiles: usize,
    /// Input channels, in whole vectors.
    lanes: usize,
}

impl Room {
    fn new(tiles: usize, layout: &Layout) -> Self {
        Room { tiles: tiles.next_multiple_of(8), lanes: layout.lanes() }
    }

    /// Elements from a point to the next.
    fn stride(self) -> usize {
        self.tiles * self.lanes + SKEW
    }

    /// Where the chunk of channels from `start` begins in a point, and how far apart its tiles are.
    #[inline(always)]
    fn chunk(self, start: usize) -> (usize, usize) {
        (start * self.tiles, CHUNK.min(self.lanes - start))
    }

    /// Where a channel of a tile lies in a point.
    #[inline(always)]
    fn at(self, tile: usize, channel: usize) -> usize {
        let start = channel / CHUNK * CHUNK;
        let (begin, row) = self.chunk(start);
        begin + tile * row + channel - start
    }
}

/// What becomes of a finished output.
pub(crate) trait Finish: Copy + Sync {
    /// Takes 16 channels of a pixel.
    ///
    /// # Safety
    /// The pixel and the channels lie inside the output, and no other task writes them.
    unsafe fn put<L: Lanes>(&self, value: L, sample: usize, y: usize, x: usize, channel: usize);
}

/// Where outputs go.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    data: SharedMut<'a, f32>,
    layout: Layout,
    streamed: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn new(data: &'a mut [f32], layout: Layout) -> Self {
        assert!(data.len() >= layout.len());
        // Streamed stores need whole lines.
        let streamed = layout.is_streamed() && data.as_ptr().addr().is_multiple_of(LANES * size_of::<f32>());
        Output { data: SharedMut::new(data), layout, streamed }
    }

    /// What it is laid out as.
    #[inline(always)]
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// # Safety
    /// The pixel and the channels lie inside the layout, and no other task writes them.
    #[inline(always)]
    pub(crate) unsafe fn store<L: Lanes>(&self, value: L, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: the data hold the layout (checked by `new`); a pixel's lanes begin on whole lines if the data do.
        unsafe {
            let target = self.data.start().add(self.layout.at(sample, y, x) + channel);
            if self.streamed { value.stream(target) } else { value.store(target) }
        }
    }
}

/// What a layer's output goes through.
#[derive(Clone, Copy)]
pub(crate) enum Activation<'a> {
    /// Nothing.
    None,
    /// max(x, 0).
    Relu,
    /// x where it is positive, else x times the channel's slope; as many slopes as the layout has lanes.
    Prelu(&'a [f32]),
}

/// A layer's output: bias, activation, and which elements are positive.
#[derive(Clone, Copy)]
pub(crate) struct Forward<'a> {
    output: Output<'a>,
    bias: &'a [f32],
    activation: Activation<'a>,
    mask: Option<SharedMut<'a, u16>>,
    mask_samples: usize,
}

impl<'a> Forward<'a> {
    /// Writes to `output`; `bias` is as long as the layout has lanes. `mask` takes a bit for each element of the first
    /// images, as many as stand beside it, that is positive before its activation, if there is one.
    pub(crate) fn new(
        output: &'a mut [f32],
        layout: Layout,
        bias: &'a [f32],
        activation: Activation<'a>,
        mask: Option<(&'a mut [u16], usize)>,
    ) -> Self {
        assert_eq!(bias.len(), layout.lanes());
        if let Activation::Prelu(slope) = activation {
            assert_eq!(slope.len(), layout.lanes());
        }
        let mask_samples = mask.as_ref().map_or(0, |(_, samples)| *samples);
        let mask = mask.map(|(mask, samples)| {
            assert!(mask.len() >= layout.vectors(samples));
            SharedMut::new(mask)
        });
        Forward { output: Output::new(output, layout), bias, activation, mask, mask_samples }
    }
}

impl Finish for Forward<'_> {
    #[inline(always)]
    unsafe fn put<L: Lanes>(&self, value: L, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: `new` checked that the arrays hold the layout; the caller vouches for the position.
        unsafe {
            let mut value = value.add(L::load(self.bias.as_ptr().add(channel)));
            if !matches!(self.activation, Activation::None) {
                let zero = L::splat(0.0);
                // A NaN passes, so that its gradient is the one above, which is NaN.
                let positive = value.passes(zero);
                if let Some(mask) = self.mask.filter(|_| sample < self.mask_samples) {
                    *mask.start().add(self.output.layout.vector(sample, y, x) + channel / LANES) = positive;
                }
                value = match self.activation {
                    Activation::Prelu(slope) => value.sloped(positive, L::load(slope.as_ptr().add(channel))),
                    // In this order a NaN stays a NaN.
                    _ => zero.max(value),
                };
            }
            self.output.store(value, sample, y, x, channel);
        }
    }
}

/// A layer's input gradient, where the layer below let its elements pass.
#[derive(Clone, Copy)]
pub(crate) struct Backward<'a> {
    output: Output<'a>,
    mask: Option<&'a [u16]>,
}

impl<'a> Backward<'a> {
    /// Writes to `output`, keeping what `mask` has a bit for.
    pub(crate) fn new(output: &'a mut [f32], layout: Layout, mask: Option<&'a [u16]>) -> Self {
        assert!(mask.is_none_or(|mask| mask.len() >= layout.vectors(layout.batch)));
        Backward { output: Output::new(output, layout), mask }
    }
}

impl Finish for Backward<'_> {
    #[inline(always)]
    unsafe fn put<L: Lanes>(&self, value: L, sample: usize, y: usize, x: usize, channel: usize) {
        // SAFETY: `new` checked that the arrays hold the layout; the caller vouches for the position.
        unsafe {
            let value = match self.mask {
                Some(mask) => {
                    value.keep(*mask.get_unchecked(self.output.layout.vector(sample, y, x) + channel / LANES))
                }
                None => value,
            };
            self.output.store(value, sample, y, x, channel);
        }
    }
}

/// A correlation at stride 1, padded by half the kernel.
pub(crate) struct Convolution<'a> {
    input: &'a [f32],
    layout: Layout,
    weights: &'a Prepared,
    instructions: Instructions,
}

impl<'a> Convolution<'a> {
    /// Of an input whose border is zero.
    pub(crate) fn new(input: &'a [f32], layout: Layout, weights: &'a Prepared, instructions: Instructions) -> Self {
        assert!(input.len() >= layout.len() && layout.channels == weights.inputs);
        Convolution { input, layout, weights, instructions }
    }

    /// Hands every output to `finish`, whose layout must be that of the output. `shared` is scratch.
    pub(crate) fn run(&self, finish: &impl Finish, shared: &mut Buffer) {
        if self.tiles() == 0 || self.weights.outputs == 0 {
            return;
        }
        match self.weights.form {
            Form::Direct => self.run_rows(finish),
            Form::Spread => self.run_spread(finish),
            Form::Pixels => self.run_pixels(finish),
            Form::Points if self.tiles() >= 4 * TILES => self.run_blocks(finish),
            Form::Points | Form::Taps => self.run_groups(finish, shared),
        }
    }

    fn tiles(&self) -> usize {
        self.layout.batch * self.tiles_down() * self.tiles_across()
    }

    fn tiles_down(&self) -> usize {
        self.layout.height.div_ceil(OUTPUTS)
    }

    fn tiles_across(&self) -> usize {
        self.layout.width.div_ceil(OUTPUTS)
    }

    /// A tile's sample and first output pixel.
    #[inline(always)]
    fn tile(&self, index: usize) -> (usize, usize, usize) {
        let (row, column) = (index / self.tiles_across(), index % self.tiles_across());
        (row / self.tiles_down(), row % self.tiles_down() * OUTPUTS, column * OUTPUTS)
    }

    /// Runs `work` on every row, its sample and place in that, with `len` elements of scratch.
    fn each_row(&self, len: usize, work: impl Fn(usize, usize, &mut [f32]) + Sync) {
        let height = self.layout.height;
        (0..self.layout.batch * height).into_par_iter().with_min_len(2).for_each(|row| {
            with_scratch(len, |scratch| work(row / height, row % height, scratch));
        });
    }

    fn run_rows(&self, finish: &impl Finish) {
        let Prepared { size, inputs, .. } = *self.weights;
        let windows = self.layout.width.next_multiple_of(8) * size * size * inputs;
        let line = (self.layout.width + size - 1) * inputs;
        self.each_row(windows + line + 8 * BLOCK, |sample, y, scratch| {
            let (windows, scratch) = scratch.split_at_mut(windows);
            let (line, products) = scratch.split_at_mut(line);
            let task = RowTask { convolution: self, finish, sample, y, windows, line, products };
            // SAFETY: the row exists and is this task's alone.
            unsafe { self.instructions.run(task) };
        });
    }

    fn run_spread(&self, finish: &impl Finish) {
        self.each_row(self.layout.width.next_multiple_of(8) * BLOCK, |sample, y, sums| {
            // SAFETY: the row exists and is this task's alone.
            unsafe { self.instructions.run(SpreadTask { convolution: self, finish, sample, y, sums }) };
        });
    }

    fn run_pixels(&self, finish: &impl Finish) {
        self.each_row(8 * BLOCK, |sample, y, products| {
            // SAFETY: the row exists and is this task's alone.
            unsafe { self.instructions.run(PixelTask { convolution: self, finish, sample, y, products }) };
        });
    }

    fn run_blocks(&self, finish: &impl Finish) {
        let block = TILES;
        let room = Room::new(block, &self.layout);
        let [points, products] = [room.stride(), block * BLOCK + LANES];
        (0..self.tiles().div_ceil(block)).into_par_iter().for_each(|index| {
            with_scratch(TILE_POINTS * (points + products), |scratch| {
                let (points_at, products_at) = scratch.split_at_mut(TILE_POINTS * points);
                let task = BlockTask {
                    convolution: self,
                    finish,
                    first: index * block,
                    tiles: block.min(self.tiles() - index * block),
                    points: points_at.as_mut_ptr(),
                    room,
                    products: products_at.as_mut_ptr(),
                    product_stride: products,
                };
                // SAFETY: the scratch holds the points and products of a block, and the tiles are this task's alone.
                unsafe { self.instructions.run(task) };
            });
        });
    }

    fn run_groups(&self, finish: &impl Finish, shared: &mut Buffer) {
        // Groups of the same size: the weights are transformed for each.
        let groups = self.tiles().div_ceil(GROUP);
        let group = self.tiles().div_ceil(groups).next_multiple_of(8).min(self.tiles());
        let room = Room::new(group, &self.layout);
        shared.reserve(TILE_POINTS * room.stride());
        for first in (0..self.tiles()).step_by(group) {
            let tiles = group.min(self.tiles() - first);
            let points = SharedMut::new(&mut *shared);
            (0..tiles.div_ceil(8)).into_par_iter().for_each(|part| {
                let task = InputTask {
                    convolution: self,
                    first,
                    part: [part * 8, tiles.min(part * 8 + 8)],
                    points: points.at(0),
                    room,
                };
                // SAFETY: `shared` holds the points of a group, and these tiles' points are this task's alone.
                unsafe { self.instructions.run(task) };
            });
            let shared = &*shared;
            (0..self.weights.blocks()).into_par_iter().with_max_len(1).for_each(|block| {
                let products = tiles.next_multiple_of(8) * BLOCK + LANES;
                let weights = CHUNK * BLOCK + SKEW;
                with_scratch(TILE_POINTS * (products + weights), |scratch| {
                    let (products_at, weights_at) = scratch.split_at_mut(TILE_POINTS * products);
                    let task = OutputTask {
                        convolution: self,
                        finish,
                        first,
                        tiles,
                        block,
                        points: shared.as_ptr(),
                        room,
                        products: products_at.as_mut_ptr(),
                        product_stride: products,
                        weights: weights_at.as_mut_ptr(),
                        weight_stride: weights,
                    };
                    // SAFETY: the scratch holds the products of a group and a block's weights; the output channels are
                    // this task's alone.
                    unsafe { self.instructions.run(task) };
                });
            });
        }
    }

    /// The points of the tiles `part[0]..part[1]` behind `first`, which is the first that `points` has room for.
    ///
    /// # Safety
    /// The tiles exist, and their points can be written.
    #[inline(always)]
    unsafe fn transform_input<L: Lanes>(&self, first: usize, part: [usize; 2], points: *mut f32, room: Room) {
        let lanes = self.layout.lanes();
        // SAFETY: the caller's task runs with the instructions of `L`.
        let transform = unsafe { Transform::<L>::new() };
        for index in part[0]..part[1] {
            let (sample, y, x) = self.tile(first + index);
            // The tile begins one pixel up and left of its outputs.
            let start = self.layout.at(sample, y, x) - (self.layout.columns() + 1) * lanes;
            for channel in (0..lanes).step_by(LANES) {
                // SAFETY: whole tiles and their border lie inside the layout, which the input holds (checked by `new`).
                unsafe {
                    let source = self.input.as_ptr().add(start + channel);
                    let target = points.add(room.at(index, channel));
                    transform.input(source, self.layout.columns() * lanes, lanes, target, room.stride());
                }
            }
        }
    }

    /// The outputs of `tiles` tiles from `first` in a block of channels.
    ///
    /// # Safety
    /// The tiles exist, their products can be read, and their outputs are no other task's.
    #[inline(always)]
    unsafe fn transform_output<L: Lanes>(
        &self,
        finish: &impl Finish,
        first: usize,
        tiles: usize,
        block: usize,
        products: *const f32,
        product_stride: usize,
    ) {
        let vectors = vectors(self.weights.outputs, block);
        // Copies, which no store can alias: their fields stay in registers.
        let (finish, layout) = (*finish, self.layout);
        // SAFETY: the caller's task runs with the instructions of `L`.
        let transform = unsafe { Transform::<L>::new() };
        for index in 0..tiles {
            let (sample, top, left) = self.tile(first + index);
            let (height, width) = (OUTPUTS.min(layout.height - top), OUTPUTS.min(layout.width - left));
            for vector in 0..vectors {
                let channel = block * BLOCK + vector * LANES;
                // SAFETY: the caller vouches for the products; pixels outside the image are left out below.
                unsafe {
                    let values = transform.output(products.add((index * vectors + vector) * LANES), product_stride);
                    // Twice, so that the bounds of the usual case are constants and the values stay in registers.
                    if height == OUTPUTS && width == OUTPUTS {
                        for y in 0..OUTPUTS {
                            for x in 0..OUTPUTS {
                                finish.put(values[y][x], sample, top + y, left + x, channel);
                            }
                        }
                    } else {
                        for y in 0..OUTPUTS {
                            for x in 0..OUTPUTS {
                                if y < height && x < width {
                                    finish.put(values[y][x], sample, top + y, left + x, channel);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Lends this thread's scratch.
pub(super) fn with_scratch(len: usize, work: impl FnOnce(&mut [f32])) {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.reserve(len);
        work(&mut scratch[..len]);
    });
}

/// The products of a chunk of one point: `tiles` rows of `depth` channels, `stride` apart, with `depth` rows of weights.
///
/// # Safety
/// The rows, rounded up to a multiple of 4, can be read, and as many rows of products written.
#[inline(always)]
unsafe fn multiply_chunk<L: Lanes, const VECTORS: usize, const ONTO: u8>(
    [tiles, depth]: [usize; 2],
    points: *const f32,
    stride: usize,
    weights: *const f32,
    products: *mut f32,
    mut ahead: Ahead,
) {
    for tile in (0..tiles).step_by(4) {
        // SAFETY: rows of the caller's arrays, at most three past the last tile.
        unsafe {
            let (a, c) = (points.add(tile * stride), products.add(tile * VECTORS * LANES));
            L::product::<4, VECTORS, ONTO>(depth, a, stride, weights, c, &mut ahead);
        }
    }
}

/// A block of tiles, all three steps. The pointers lead to room for the points and products of its tiles, rounded up to
/// a multiple of 8.
struct BlockTask<'a, F> {
    convolution: &'a Convolution<'a>,
    finish: &'a F,
    first: usize,
    tiles: usize,
    points: *mut f32,
    room: Room,
    products: *mut f32,
    product_stride: usize,
}

impl<F: Finish> BlockTask<'_, F> {
    /// # Safety
    /// As [`Task::run`]; the block has `VECTORS` vectors.
    #[inline(always)]
    unsafe fn multiply<L: Lanes, const VECTORS: usize>(&self, block: usize) {
        let weights = self.convolution.weights;
        let width = VECTORS * LANES;
        for point in 0..TILE_POINTS {
            let of_point = &weights.block(block)[point * weights.inputs * width..][..weights.inputs * width];
            for start in (0..weights.inputs).step_by(CHUNK) {
                let depth = CHUNK.min(weights.inputs - start);
                let (begin, stride) = self.room.chunk(start);
                // SAFETY: the fields' pointers hold the points and products of the tiles.
                unsafe {
                    let a = self.points.add(point * self.room.stride() + begin);
                    let b = of_point[start * width..][..depth * width].as_ptr();
                    let c = self.products.add(point * self.product_stride);
                    // Prefetch the next point's weights: they are not in the second-level cache.
                    let ahead = Ahead::new(b.wrapping_add(of_point.len()), depth * width);
                    if start == 0 {
                        multiply_chunk::<L, VECTORS, FRESH>([self.tiles, depth], a, stride, b, c, ahead);
                    } else {
                        multiply_chunk::<L, VECTORS, CONTINUED>([self.tiles, depth], a, stride, b, c, ahead);
                    }
                }
            }
        }
    }
}

impl<F: Finish> Task for BlockTask<'_, F> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let weights = self.convolution.weights;
        // SAFETY: the fields' pointers hold what the methods need.
        unsafe {
            self.convolution.transform_input::<L>(self.first, [0, self.tiles], self.points, self.room);
            for block in 0..weights.blocks() {
                if vectors(weights.outputs, block) == 2 {
                    self.multiply::<L, 2>(block);
                } else {
                    self.multiply::<L, 1>(block);
                }
                let (first, tiles) = (self.first, self.tiles);
                let (products, stride) = (self.products, self.product_stride);
                self.convolution.transform_output::<L>(self.finish, first, tiles, block, products, stride);
            }
        }
        L::fence();
    }
}

/// The first step for a part of a group, which begins with tile `first`. The pointer leads to room for the group's points.
struct InputTask<'a> {
    convolution: &'a Convolution<'a>,
    first: usize,
    part: [usize; 2],
    points: *mut f32,
    room: Room,
}

impl Task for InputTask<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the fields' pointer holds the tiles' points.
        unsafe { self.convolution.transform_input::<L>(self.first, self.part, self.points, self.room) };
    }
}

/// The second and third step for a group of tiles and a block of output channels.
struct OutputTask<'a, F> {
    convolution: &'a Convolution<'a>,
    finish: &'a F,
    first: usize,
    tiles: usize,
    block: usize,
    points: *const f32,
    room: Room,
    products: *mut f32,
    product_stride: usize,
    weights: *mut f32,
    weight_stride: usize,
}

impl<F: Finish> OutputTask<'_, F> {
    /// # Safety
    /// As [`Task::run`]; the block has `VECTORS` vectors.
    #[inline(always)]
    unsafe fn multiply<L: Lanes, const VECTORS: usize>(&self) {
        let weights = self.convolution.weights;
        let source = weights.block(self.block).as_ptr();
        // SAFETY: the task runs with the instructions of `L`.
        let transform = unsafe { Transform::<L>::new() };
        for start in (0..weights.inputs).step_by(CHUNK) {
            let depth = CHUNK.min(weights.inputs - start);
            let width = VECTORS * LANES;
            let (begin, stride) = self.room.chunk(start);
            if weights.form == Form::Taps {
                for pair in 0..depth * VECTORS {
                    let (input, vector) = (pair / VECTORS, pair % VECTORS);
                    // SAFETY: the taps lie inside the block's weights, the points inside the scratch.
                    unsafe {
                        let taps = source.add((start + input) * 9 * width + vector * LANES);
                        let target = self.weights.add(input * width + vector * LANES);
                        transform.taps(taps, width, target, self.weight_stride);
                    }
                }
            }
            for point in 0..TILE_POINTS {
                // SAFETY: the fields' pointers hold the group's points and products and this part of the weights.
                unsafe {
                    let a = self.points.add(point * self.room.stride() + begin);
                    let (b, ahead) = if weights.form == Form::Points {
                        let b = source.add((point * weights.inputs + start) * width);
                        (b, Ahead::new(b.wrapping_add(weights.inputs * width), depth * width))
                    } else {
                        // While this chunk is multiplied the next one's taps arrive, a part with each point.
                        let part = 9 * depth * width / TILE_POINTS;
                        let ahead = source.wrapping_add(9 * (start + depth) * width + point * part);
                        (self.weights.add(point * self.weight_stride).cast_const(), Ahead::new(ahead, part))
                    };
                    let c = self.products.add(point * self.product_stride);
                    if start > 0 {
                        multiply_chunk::<L, VECTORS, ADDED>([self.tiles, depth], a, stride, b, c, ahead);
                    } else {
                        multiply_chunk::<L, VECTORS, FRESH>([self.tiles, depth], a, stride, b, c, ahead);
                    }
                }
            }
        }
    }
}

impl<F: Finish> Task for OutputTask<'_, F> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the fields' pointers hold what the methods need.
        unsafe {
            if vectors(self.convolution.weights.outputs, self.block) == 2 {
                self.multiply::<L, 2>();
            } else {
                self.multiply::<L, 1>();
            }
            let (first, tiles) = (self.first, self.tiles);
            let (products, stride) = (self.products, self.product_stride);
            self.convolution.transform_output::<L>(self.finish, first, tiles, self.block, products, stride);
        }
        L::fence();
    }
}

/// The products of 8 rows of `depth` numbers, `stride` apart, with a block's taps: the first `count` of them are the outputs
/// from (`sample`, `y`, `x`) on.
///
/// # Safety
/// The rows and the taps can be read, and no other task writes these outputs.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn put_products<L: Lanes, const VECTORS: usize>(
    depth: usize,
    rows: *const f32,
    stride: usize,
    taps: *const f32,
    products: &mut [f32],
    finish: &impl Finish,
    [sample, y, x, count]: [usize; 4],
    block: usize,
) {
    let products = products[..8 * VECTORS * LANES].as_mut_ptr();
    // SAFETY: the slice holds the products of 8 rows; the caller vouches for the rest.
    unsafe {
        L::product::<8, VECTORS, FRESH>(depth, rows, stride, taps, products, &mut Ahead::nothing());
        for index in 0..count {
            for vector in 0..VECTORS {
                let value = L::load(products.add((index * VECTORS + vector) * LANES));
                finish.put(value, sample, y, x + index, block * BLOCK + vector * LANES);
            }
        }
    }
}

/// A row of a convolution by one pixel. The row exists and is the task's alone; `products` holds the outputs of 8 pixels.
struct PixelTask<'a, F> {
    convolution: &'a Convolution<'a>,
    finish: &'a F,
    sample: usize,
    y: usize,
    products: &'a mut [f32],
}

impl<F: Finish> PixelTask<'_, F> {
    /// # Safety
    /// As [`Task::run`]; the block has `VECTORS` vectors.
    #[inline(always)]
    unsafe fn multiply<L: Lanes, const VECTORS: usize>(&mut self, block: usize) {
        let Convolution { input, layout, weights, .. } = self.convolution;
        let (finish, width, lanes) = (*self.finish, layout.width, layout.lanes());
        let taps = weights.block(block)[..weights.inputs * VECTORS * LANES].as_ptr();
        for x in (0..width).step_by(8) {
            // Pixels past the row's end are read and left out: a column and a row of at least 6 lie behind the last.
            let pixels = input[layout.at(self.sample, self.y, x)..][..8 * lanes].as_ptr();
            let place = [self.sample, self.y, x, 8.min(width - x)];
            // SAFETY: the slices hold what is read; the row is this task's.
            unsafe {
                put_products::<L, VECTORS>(weights.inputs, pixels, lanes, taps, self.products, &finish, place, block);
            }
        }
    }
}

impl<F: Finish> Task for PixelTask<'_, F> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        for block in 0..self.convolution.weights.blocks() {
            // SAFETY: the caller's word.
            unsafe {
                if vectors(self.convolution.weights.outputs, block) == 2 {
                    self.multiply::<L, 2>(block);
                } else {
                    self.multiply::<L, 1>(block);
                }
            }
        }
        L::fence();
    }
}

/// A row of a convolution of few input channels. The row exists and is the task's alone; `windows` holds its windows, their
/// number rounded up to a multiple of 8, `line` a row with what lies beyond its ends, `products` the outputs of 8.
struct RowTask<'a, F> {
    convolution: &'a Convolution<'a>,
    finish: &'a F,
    sample: usize,
    y: usize,
    windows: &'a mut [f32],
    line: &'a mut [f32],
    products: &'a mut [f32],
}

impl<F: Finish> RowTask<'_, F> {
    /// For each pixel of the row, for each tap, the input channels.
    #[inline(always)]
    fn gather(&mut self) {
        let Convolution { input, layout, weights, .. } = self.convolution;
        let Prepared { size, inputs, .. } = **weights;
        let (lanes, reach) = (layout.lanes(), size / 2);
        self.line.fill(0.0);
        for tap_row in 0..size {
            let pixels = &mut self.line[reach * inputs..][..layout.width * inputs];
            match read_by(self.y, tap_row, size, layout.height) {
                Some(y) => {
                    let source = input[layout.at(self.sample, y, 0)..].chunks_exact(lanes);
                    for (target, source) in pixels.chunks_exact_mut(inputs).zip(source) {
                        target.iter_mut().zip(source).for_each(|(target, &source)| *target = source);
                    }
                }
                None => pixels.fill(0.0),
            }
            let windows = self.windows.chunks_exact_mut(size * size * inputs).take(layout.width);
            for (x, window) in windows.enumerate() {
                let target = &mut window[tap_row * size * inputs..][..size * inputs];
                let source = &self.line[x * inputs..][..size * inputs];
                target.iter_mut().zip(source).for_each(|(target, &source)| *target = source);
            }
        }
    }

    /// # Safety
    /// As [`Task::run`]; the block has `VECTORS` vectors.
    #[inline(always)]
    unsafe fn multiply<L: Lanes, const VECTORS: usize>(&mut self, block: usize) {
        let Convolution { layout, weights, .. } = self.convolution;
        let (finish, width) = (*self.finish, layout.width);
        let depth = weights.size * weights.size * weights.inputs;
        let taps = weights.block(block)[..depth * VECTORS * LANES].as_ptr();
        for x in (0..width).step_by(8) {
            let windows = self.windows[x * depth..][..8 * depth].as_ptr();
            let place = [self.sample, self.y, x, 8.min(width - x)];
            // SAFETY: the slices hold what is read; the row is this task's.
            unsafe { put_products::<L, VECTORS>(depth, windows, depth, taps, self.products, &finish, place, block) };
        }
    }
}

impl<F: Finish> Task for RowTask<'_, F> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        self.gather();
        for block in 0..self.convolution.weights.blocks() {
            // SAFETY: the caller's word.
            unsafe {
                if vectors(self.convolution.weights.outputs, block) == 2 {
                    self.multiply::<L, 2>(block);
                } else {
                    self.multiply::<L, 1>(block);
                }
            }
        }
        L::fence();
    }
}

/// Along an axis, the input that tap `tap` of `size` reads for output `at`, if it is one of the image's `extent`.
#[inline(always)]
fn read_by(at: usize, tap: usize, size: usize, extent: usize) -> Option<usize> {
    (at + tap).checked_sub(size / 2).filter(|&from| from < extent)
}

/// A row of a convolution to few channels. The row exists and is the task's alone; `sums` holds 32 numbers for each of its
/// pixels, their number rounded up to a multiple of 8.
struct SpreadTask<'a, F> {
    convolution: &'a Convolution<'a>,
    finish: &'a F,
    sample: usize,
    y: usize,
    sums: &'a mut [f32],
}

impl<F: Finish> SpreadTask<'_, F> {
    /// # Safety
    /// As [`Task::run`]; a row of taps has `VECTORS` vectors.
    #[inline(always)]
    unsafe fn multiply<L: Lanes, const VECTORS: usize>(&mut self) {
        let Convolution { input, layout, weights, .. } = self.convolution;
        let Prepared { size, inputs, outputs, .. } = **weights;
        let (finish, width, lanes) = (*self.finish, layout.width, layout.lanes());
        let mut is_first = true;
        for tap_row in 0..size {
            let Some(y) = read_by(self.y, tap_row, size, layout.height) else { continue };
            let taps = weights.data[tap_row * inputs * VECTORS * LANES..][..inputs * VECTORS * LANES].as_ptr();
            for x in (0..width).step_by(8) {
                // Pixels past the row's end are read and left out: a column and a row of at least 6 lie behind the last.
                let pixels = input[layout.at(self.sample, y, x)..][..8 * lanes].as_ptr();
                let sums = self.sums[x * VECTORS * LANES..][..8 * VECTORS * LANES].as_mut_ptr();
                let ahead = &mut Ahead::nothing();
                // SAFETY: the slices hold what is read and written.
                unsafe {
                    if is_first {
                        L::product::<8, VECTORS, FRESH>(inputs, pixels, lanes, taps, sums, ahead);
                    } else {
                        L::product::<8, VECTORS, ADDED>(inputs, pixels, lanes, taps, sums, ahead);
                    }
                }
            }
            is_first = false;
        }
        for x in 0..width {
            let mut pixel = [0.0_f32; LANES];
            for tap in 0..size {
                let Some(from) = read_by(x, tap, size, width) else { continue };
                let sums = &self.sums[from * VECTORS * LANES + tap * outputs..][..outputs];
                pixel.iter_mut().zip(sums).for_each(|(pixel, sum)| *pixel += sum);
            }
            // SAFETY: the array is a vector; the pixel is one of this task's row.
            unsafe { finish.put(L::load(pixel.as_ptr()), self.sample, self.y, x, 0) };
        }
    }
}

impl<F: Finish> Task for SpreadTask<'_, F> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        let Prepared { size, outputs, .. } = *self.convolution.weights;
        // SAFETY: the caller's word.
        unsafe {
            if vectors(size * outputs, 0) == 2 {
                self.multiply::<L, 2>();
            } else {
                self.multiply::<L, 1>();
            }
        }
        L::fence();
    }
}
