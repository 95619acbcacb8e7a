//! Sixteen `f32` side by side, in whatever registers the machine has.
//!
//! A kernel is written once, generic over [`Lanes`], as a [`Task`]; [`Instructions::run`] enters it through a function
//! compiled for the instruction set, into which everything inlines. Hence plain loops wherever there are lanes: a closure
//! is a function of its own, compiled *without* the instruction set, and where it is not inlined each of its vectors goes
//! through memory.
#![allow(clippy::needless_range_loop)]

use std::ops::Neg;

use crate::isa::{self, Isa};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen `f32`.
///
/// A value comes into being by [`Lanes::load`] and [`Lanes::splat`] alone, whose callers vouch for the processor; the
/// arithmetic on values may rely on it.
pub(crate) trait Lanes: Copy {
    /// # Safety
    /// The processor has the type's instruction set, and 16 elements can be read from `source`.
    unsafe fn load(source: *const f32) -> Self;
    /// # Safety
    /// The processor has the type's instruction set.
    unsafe fn splat(value: f32) -> Self;
    /// # Safety
    /// 16 elements can be written to `target`.
    unsafe fn store(self, target: *mut f32);
    /// Stores past the caches, for results that exceed them. Followed by [`Lanes::fence`] before others may read.
    ///
    /// # Safety
    /// 16 elements can be written to `target`, which is aligned to 64 bytes.
    unsafe fn stream(self, target: *mut f32);
    /// Makes streamed stores visible.
    fn fence();
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// `self * factor + term`.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `term - self * factor`.
    fn mul_sub_from(self, factor: Self, term: Self) -> Self;
    /// The larger; `other` where either is a NaN.
    fn max(self, other: Self) -> Self;
    /// The larger; NaN where either is.
    fn max_or_nan(self, other: Self) -> Self;
    /// The magnitude.
    fn abs(self) -> Self;
    /// A bit for each lane with `self > other`.
    fn greater(self, other: Self) -> u16;
    /// A bit for each lane with `self == other`.
    fn equal(self, other: Self) -> u16;
    /// A bit for each lane with `self > other`, or where either is a NaN: what passes a ReLU that keeps NaN.
    fn passes(self, other: Self) -> u16;
    /// Zero in each lane whose bit is clear.
    fn keep(self, mask: u16) -> Self;
    /// `c (+)= a b` for a small block: `ROWS` (a multiple of 4) rows of `a`, `a_stride` apart and `depth` long; `b` has
    /// `depth` rows of `16 * VECTORS`, one after the other; so has `c`, `ROWS` of them. `ONTO` says what becomes of what `c`
    /// holds: [`FRESH`], [`ADDED`] or [`CONTINUED`]. Sums [`DEPTH`] terms at a time and adds these sums in order, on every
    /// instruction set alike. On the way it asks for what is `ahead`. Compiled once for all tasks: it runs long.
    ///
    /// # Safety
    /// The processor has the type's instruction set; the blocks can be read and `c` written.
    unsafe fn product<const ROWS: usize, const VECTORS: usize, const ONTO: u8>(
        depth: usize,
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        c: *mut f32,
        ahead: &mut Ahead,
    );

    /// A bit for each lane that is a NaN.
    #[inline(always)]
    fn is_nan(self) -> u16 {
        !self.equal(self)
    }

    /// Itself where `mask` has a bit, `slope` times itself elsewhere.
    #[inline(always)]
    fn sloped(self, mask: u16, slope: Self) -> Self {
        self.keep(mask).add(self.keep(!mask).mul(slope))
    }

    /// The sum of the lanes, in order.
    fn sum(self) -> f64 {
        let mut lanes = [0.0_f32; LANES];
        // SAFETY: the array has 16 elements.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes.iter().map(|&lane| f64::from(lane)).sum()
    }
}

/// Terms of a product that are summed before they are added to the rest: one long sum would lose more to rounding than a
/// direct convolution does.
pub(crate) const DEPTH: usize = 16;

/// A product overwrites what was there.
pub(crate) const FRESH: u8 = 0;
/// A product is added to what was there once it is summed.
pub(crate) const ADDED: u8 = 1;
/// A product's sums are added, one by one, to what was there: the bits are those of one product of both depths.
pub(crate) const CONTINUED: u8 = 2;

/// Memory that is read soon. A product asks for a few lines of it with each [`DEPTH`] terms: all at once they would wait
/// for each other, and the product for them.
pub(crate) struct Ahead {
    next: *const f32,
    lines: usize,
}

impl Ahead {
    /// `len` elements from `start`, as far as the products get. Any address will do: nothing is read.
    #[inline(always)]
    pub(crate) fn new(start: *const f32, len: usize) -> Self {
        Ahead { next: start, lines: len / LANES }
    }

    /// Nothing to ask for.
    #[inline(always)]
    pub(crate) fn nothing() -> Self {
        Ahead::new(std::ptr::null(), 0)
    }

    /// Asks for some lines. A quarter of what is read of `b` meanwhile makes as much as all of `b`, by four products with it.
    #[inline(always)]
    fn ask(&mut self, lines: usize) {
        if self.lines >= lines {
            for line in 0..lines {
                prefetch(self.next.wrapping_add(line * LANES));
            }
            self.next = self.next.wrapping_add(lines * LANES);
            self.lines -= lines;
        }
    }
}

/// Asks the second-level cache for the line at `address`, which may be any. The first level is for what is in use.
#[inline(always)]
fn prefetch(address: *const f32) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which every x86-64 processor has and no address makes fail.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    let _ = address;
}

/// A piece of work over [`Lanes`]; implement `run` with `#[inline(always)]`.
pub(crate) trait Task {
    /// Does the work.
    ///
    /// # Safety
    /// The processor has the instruction set of `L`, and whatever the task's own fields demand.
    unsafe fn run<L: Lanes>(self);
}

/// The instruction set of the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instructions {
    /// Plain arrays, for the compiler to vectorise.
    Portable,
    /// Two registers of eight, with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// One register.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// What [`isa::detect`] chose, as far as the lanes know it.
    pub(crate) fn detect() -> Self {
        Self::of(isa::detect())
    }

    /// The lanes for `isa`, or the best below it that the machine has.
    pub(crate) fn of(isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let isa = isa.min(isa::available());
            if isa == Isa::Avx512 {
                return Instructions::Avx512;
            }
            if isa == Isa::Avx2 && is_x86_feature_detected!("fma") {
                return Instructions::Avx2;
            }
        }
        let _ = isa;
        Instructions::Portable
    }

    /// Runs a task with these lanes.
    ///
    /// # Safety
    /// What the task's [`Task::run`] demands beyond the processor, which `self` vouches for.
    pub(crate) unsafe fn run(self, task: impl Task) {
        #[cfg(target_arch = "x86_64")]
        {
            /// # Safety
            /// As [`Instructions::run`].
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            unsafe fn avx512(task: impl Task) {
                // SAFETY: this function is compiled for the instructions, and its caller passes on the rest.
                unsafe { task.run::<x86::Avx512>() }
            }
            /// # Safety
            /// As [`Instructions::run`].
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2(task: impl Task) {
                // SAFETY: as above.
                unsafe { task.run::<x86::Avx2>() }
            }
            match self {
                // SAFETY: the variant exists where `of` found the instructions; the rest is the caller's word.
                Instructions::Avx512 => return unsafe { avx512(task) },
                // SAFETY: as above.
                Instructions::Avx2 => return unsafe { avx2(task) },
                Instructions::Portable => {}
            }
        }
        // SAFETY: arrays need no instruction set; the rest is the caller's word.
        unsafe { task.run::<Portable>() }
    }
}

/// `a * b + c` in each lane, rounded once, as every instruction for it does: results are the same bits on every processor.
#[inline(always)]
fn mul_add(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    } else {
        mul_add_without_instruction(&a, &b, &c)
    }
}

/// [`mul_add`] by several other instructions, side by side in vectors, where the library's function would take each element
/// by itself. Many of them: one copy serves all.
#[inline(never)]
fn mul_add_without_instruction(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES]) -> [f32; LANES] {
    #[cfg(target_arch = "x86_64")]
    {
        /// The same operations in longer vectors: FMA is not enabled, and nothing is contracted.
        #[target_feature(enable = "avx2")]
        fn longer(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES]) -> [f32; LANES] {
            round_twice(a, b, c)
        }
        if isa::available_once() > Isa::Portable {
            // SAFETY: the processor has AVX2.
            return unsafe { longer(a, b, c) };
        }
    }
    round_twice(a, b, c)
}

/// As [`mul_add_without_instruction`].
#[inline(always)]
fn round_twice(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES]) -> [f32; LANES] {
    let (mut rounded, mut is_rare) = ([0.0_f32; LANES], false);
    for lane in 0..LANES {
        // The product is exact: a double has more than twice the digits. So the sum alone is rounded, to a double.
        let sum = f64::from(a[lane]) * f64::from(b[lane]) + f64::from(c[lane]);
        rounded[lane] = sum as f32;
        // Rounding that again, to a single, is as good as rounding once unless the double lies halfway between two
        // singles, whose digits are fewer still below the normal ones.
        let is_halfway = sum.to_bits() as u32 & 0x1fff_ffff == 0x1000_0000;
        let is_below = sum.abs() < f64::from(f32::MIN_POSITIVE) && sum != 0.0;
        is_rare |= is_halfway | is_below;
    }
    if is_rare { std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane])) } else { rounded }
}

/// Sixteen elements of an array.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }

    #[inline(always)]
    fn bits(self, other: Self, f: impl Fn(&f32, &f32) -> bool) -> u16 {
        (0..LANES).fold(0, |bits, lane| bits | u16::from(f(&self.0[lane], &other.0[lane])) << lane)
    }
}

impl Lanes for Portable {
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 elements.
        Portable(unsafe { source.cast::<[f32; LANES]>().read() })
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; LANES])
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { target.cast::<[f32; LANES]>().write(self.0) };
    }

    #[inline(always)]
    unsafe fn stream(self, target: *mut f32) {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { self.store(target) };
    }

    #[inline(always)]
    fn fence() {}

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Portable(mul_add(self.0, factor.0, term.0))
    }

    #[inline(always)]
    fn mul_sub_from(self, factor: Self, term: Self) -> Self {
        Portable(mul_add(self.0.map(f32::neg), factor.0, term.0))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn max_or_nan(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b || a.is_nan() { a } else { b })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Portable(self.0.map(f32::abs))
    }

    #[inline(always)]
    fn greater(self, other: Self) -> u16 {
        self.bits(other, f32::gt)
    }

    #[inline(always)]
    fn equal(self, other: Self) -> u16 {
        self.bits(other, f32::eq)
    }

    #[inline(always)]
    fn passes(self, other: Self) -> u16 {
        !self.bits(other, f32::le)
    }

    #[inline(always)]
    fn keep(self, mask: u16) -> Self {
        Portable(std::array::from_fn(|lane| if mask >> lane & 1 == 1 { self.0[lane] } else { 0.0 }))
    }

    #[inline(never)]
    unsafe fn product<const ROWS: usize, const VECTORS: usize, const ONTO: u8>(
        depth: usize,
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        c: *mut f32,
        _ahead: &mut Ahead,
    ) {
        // Two rows at a time: eight registers of four.
        for row in (0..ROWS).step_by(2) {
            for vector in 0..VECTORS {
                let mut whole = [Portable([0.0; LANES]); 2];
                if ONTO == CONTINUED {
                    for index in 0..2 {
                        // SAFETY: row and vector lie inside the caller's `c`.
                        whole[index] = unsafe { Portable::load(c.add(((row + index) * VECTORS + vector) * LANES)) };
                    }
                }
                for start in (0..depth).step_by(DEPTH) {
                    let mut sums = [[0.0_f32; LANES]; 2];
                    for step in start..depth.min(start + DEPTH) {
                        // SAFETY: `step` < `depth` and `vector` < `VECTORS` stay inside the caller's `b`; likewise `a`.
                        let (b, left) = unsafe {
                            let b = b.add((step * VECTORS + vector) * LANES).cast::<[f32; LANES]>().read();
                            (b, [*a.add(row * a_stride + step), *a.add((row + 1) * a_stride + step)])
                        };
                        for (sums, left) in sums.iter_mut().zip(left) {
                            *sums = mul_add([left; LANES], b, *sums);
                        }
                    }
                    for (whole, sums) in whole.iter_mut().zip(sums) {
                        *whole = whole.add(Portable(sums));
                    }
                }
                for (index, sums) in whole.into_iter().enumerate() {
                    // SAFETY: row and vector lie inside the caller's `c`.
                    unsafe {
                        let target = c.add(((row + index) * VECTORS + vector) * LANES);
                        if ONTO == ADDED { sums.add(Portable::load(target)) } else { sums }.store(target);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{ADDED, Ahead, CONTINUED, DEPTH, Lanes};

    /// One register of sixteen.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    impl Lanes for Avx512 {
        #[inline(always)]
        unsafe fn load(source: *const f32) -> Self {
            // SAFETY: the caller vouches for the processor and 16 elements.
            unsafe { Avx512(_mm512_loadu_ps(source)) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller vouches for the processor.
            unsafe { Avx512(_mm512_set1_ps(value)) }
        }

        #[inline(always)]
        unsafe fn store(self, target: *mut f32) {
            // SAFETY: the caller vouches for 16 elements, the value for the processor.
            unsafe { _mm512_storeu_ps(target, self.0) }
        }

        #[inline(always)]
        unsafe fn stream(self, target: *mut f32) {
            // SAFETY: the caller vouches for 16 aligned elements, the value for the processor.
            unsafe { _mm512_stream_ps(target, self.0) }
        }

        #[inline(always)]
        fn fence() {
            // SAFETY: every x86-64 processor has the instruction.
            #[allow(unused_unsafe)]
            unsafe {
                _mm_sfence()
            }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx512(_mm512_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx512(_mm512_sub_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx512(_mm512_mul_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx512(_mm512_fmadd_ps(self.0, factor.0, term.0)) }
        }

        #[inline(always)]
        fn mul_sub_from(self, factor: Self, term: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx512(_mm512_fnmadd_ps(self.0, factor.0, term.0)) }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx512(_mm512_max_ps(self.0, other.0)) }
        }

        #[inline(always)]
        fn max_or_nan(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx512(_mm512_mask_mov_ps(_mm512_max_ps(self.0, other.0), self.is_nan(), self.0)) }
        }

        #[inline(always)]
        fn abs(self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx512(_mm512_abs_ps(self.0)) }
        }

        #[inline(always)]
        fn greater(self, other: Self) -> u16 {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0) }
        }

        #[inline(always)]
        fn equal(self, other: Self) -> u16 {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0) }
        }

        #[inline(always)]
        fn passes(self, other: Self) -> u16 {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.0, other.0) }
        }

        #[inline(always)]
        fn keep(self, mask: u16) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx512(_mm512_maskz_mov_ps(mask, self.0)) }
        }

        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        unsafe fn product<const ROWS: usize, const VECTORS: usize, const ONTO: u8>(
            depth: usize,
            a: *const f32,
            a_stride: usize,
            b: *const f32,
            c: *mut f32,
            ahead: &mut Ahead,
        ) {
            // Four rows at a time: with two vectors eight sums of a part, eight of the whole.
            let mut row = 0;
            while row < ROWS {
                // SAFETY: the caller vouches for the processor and the blocks; every offset stays inside them.
                unsafe {
                    let (mut a, mut b) = (a.add(row * a_stride), b);
                    let mut whole = [[_mm512_setzero_ps(); VECTORS]; 4];
                    if ONTO == CONTINUED {
                        for index in 0..4 {
                            for vector in 0..VECTORS {
                                whole[index][vector] = _mm512_loadu_ps(c.add(16 * ((row + index) * VECTORS + vector)));
                            }
                        }
                    }
                    for _ in 0..depth / DEPTH {
                        ahead.ask(DEPTH * VECTORS / 4);
                        let part = avx512_part::<VECTORS>(DEPTH, a, a_stride, b);
                        add_to(&mut whole, part);
                        (a, b) = (a.add(DEPTH), b.add(16 * VECTORS * DEPTH));
                    }
                    if !depth.is_multiple_of(DEPTH) {
                        let part = avx512_part::<VECTORS>(depth % DEPTH, a, a_stride, b);
                        add_to(&mut whole, part);
                    }
                    for index in 0..4 {
                        for vector in 0..VECTORS {
                            let target = c.add(16 * ((row + index) * VECTORS + vector));
                            let sum = whole[index][vector];
                            let sum = if ONTO == ADDED { _mm512_add_ps(sum, _mm512_loadu_ps(target)) } else { sum };
                            _mm512_storeu_ps(target, sum);
                        }
                    }
                }
                row += 4;
            }
        }
    }

    /// Adds a part's sums to the whole's.
    ///
    /// # Safety
    /// The processor has AVX-512.
    #[inline(always)]
    unsafe fn add_to<const VECTORS: usize>(whole: &mut [[__m512; VECTORS]; 4], part: [[__m512; VECTORS]; 4]) {
        for row in 0..4 {
            for vector in 0..VECTORS {
                // SAFETY: the caller vouches for the processor.
                whole[row][vector] = unsafe { _mm512_add_ps(whole[row][vector], part[row][vector]) };
            }
        }
    }

    /// Four rows of sums over `depth` terms.
    ///
    /// # Safety
    /// The processor has AVX-512, and the blocks can be read.
    #[inline(always)]
    unsafe fn avx512_part<const VECTORS: usize>(
        depth: usize,
        a: *const f32,
        a_stride: usize,
        b: *const f32,
    ) -> [[__m512; VECTORS]; 4] {
        // SAFETY: the caller vouches for the processor and the blocks.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; 4];
            for step in 0..depth {
                let b = b.add(16 * VECTORS * step);
                let mut right = [_mm512_setzero_ps(); VECTORS];
                for vector in 0..VECTORS {
                    right[vector] = _mm512_loadu_ps(b.add(16 * vector));
                }
                for row in 0..4 {
                    let left = _mm512_set1_ps(*a.add(row * a_stride + step));
                    for vector in 0..VECTORS {
                        sums[row][vector] = _mm512_fmadd_ps(left, right[vector], sums[row][vector]);
                    }
                }
            }
            sums
        }
    }

    /// Two registers of eight.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    impl Lanes for Avx2 {
        #[inline(always)]
        unsafe fn load(source: *const f32) -> Self {
            // SAFETY: the caller vouches for the processor and 16 elements.
            unsafe { Avx2(_mm256_loadu_ps(source), _mm256_loadu_ps(source.add(8))) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller vouches for the processor.
            unsafe { Avx2(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }

        #[inline(always)]
        unsafe fn store(self, target: *mut f32) {
            // SAFETY: the caller vouches for 16 elements, the value for the processor.
            unsafe {
                _mm256_storeu_ps(target, self.0);
                _mm256_storeu_ps(target.add(8), self.1);
            }
        }

        #[inline(always)]
        unsafe fn stream(self, target: *mut f32) {
            // SAFETY: the caller vouches for 16 aligned elements, the value for the processor.
            unsafe {
                _mm256_stream_ps(target, self.0);
                _mm256_stream_ps(target.add(8), self.1);
            }
        }

        #[inline(always)]
        fn fence() {
            // SAFETY: every x86-64 processor has the instruction.
            #[allow(unused_unsafe)]
            unsafe {
                _mm_sfence()
            }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx2(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx2(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx2(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx2(_mm256_fmadd_ps(self.0, factor.0, term.0), _mm256_fmadd_ps(self.1, factor.1, term.1)) }
        }

        #[inline(always)]
        fn mul_sub_from(self, factor: Self, term: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx2(_mm256_fnmadd_ps(self.0, factor.0, term.0), _mm256_fnmadd_ps(self.1, factor.1, term.1)) }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe { Avx2(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn max_or_nan(self, other: Self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe {
                let (low, high) = (_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1));
                let low = _mm256_blendv_ps(low, self.0, _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0));
                let high = _mm256_blendv_ps(high, self.1, _mm256_cmp_ps::<_CMP_UNORD_Q>(self.1, self.1));
                Avx2(low, high)
            }
        }

        #[inline(always)]
        fn abs(self) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe {
                let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
                Avx2(_mm256_and_ps(self.0, magnitude), _mm256_and_ps(self.1, magnitude))
            }
        }

        #[inline(always)]
        fn greater(self, other: Self) -> u16 {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe {
                let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0));
                let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(self.1, other.1));
                (low | high << 8) as u16
            }
        }

        #[inline(always)]
        fn equal(self, other: Self) -> u16 {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe {
                let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0));
                let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(self.1, other.1));
                (low | high << 8) as u16
            }
        }

        #[inline(always)]
        fn passes(self, other: Self) -> u16 {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe {
                let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(self.0, other.0));
                let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(self.1, other.1));
                (low | high << 8) as u16
            }
        }

        #[inline(always)]
        fn keep(self, mask: u16) -> Self {
            // SAFETY: a value exists only where the processor has the instructions.
            unsafe {
                let bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
                let low = _mm256_and_si256(_mm256_set1_epi32(i32::from(mask & 255)), bit);
                let high = _mm256_and_si256(_mm256_set1_epi32(i32::from(mask >> 8)), bit);
                let low = _mm256_castsi256_ps(_mm256_cmpeq_epi32(low, bit));
                let high = _mm256_castsi256_ps(_mm256_cmpeq_epi32(high, bit));
                Avx2(_mm256_and_ps(self.0, low), _mm256_and_ps(self.1, high))
            }
        }

        #[inline(never)]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn product<const ROWS: usize, const VECTORS: usize, const ONTO: u8>(
            depth: usize,
            a: *const f32,
            a_stride: usize,
            b: *const f32,
            c: *mut f32,
            ahead: &mut Ahead,
        ) {
            // Four rows of sixteen at a time: eight sums.
            for block in 0..ROWS / 4 * VECTORS {
                let (row, vector) = (block / VECTORS * 4, block % VECTORS);
                // SAFETY: the caller vouches for the processor and the blocks; every offset stays inside them.
                unsafe {
                    let a = a.add(row * a_stride);
                    let mut whole = [Avx2(_mm256_setzero_ps(), _mm256_setzero_ps()); 4];
                    if ONTO == CONTINUED {
                        for index in 0..4 {
                            whole[index] = Avx2::load(c.add(16 * ((row + index) * VECTORS + vector)));
                        }
                    }
                    let mut start = 0;
                    while start < depth {
                        ahead.ask(DEPTH / 4);
                        let mut sums = [[_mm256_setzero_ps(); 2]; 4];
                        for step in start..depth.min(start + DEPTH) {
                            let b = b.add(16 * (step * VECTORS + vector));
                            let right = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
                            for index in 0..4 {
                                let left = _mm256_set1_ps(*a.add(index * a_stride + step));
                                for half in 0..2 {
                                    sums[index][half] = _mm256_fmadd_ps(left, right[half], sums[index][half]);
                                }
                            }
                        }
                        for index in 0..4 {
                            whole[index] = whole[index].add(Avx2(sums[index][0], sums[index][1]));
                        }
                        start += DEPTH;
                    }
                    for index in 0..4 {
                        let target = c.add(16 * ((row + index) * VECTORS + vector));
                        let sums = whole[index];
                        if ONTO == ADDED { sums.add(Avx2::load(target)) } else { sums }.store(target);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image_losses_laws::drawn;
    use proptest::prelude::*;

    use super::*;
    use crate::matmul::test_support::values;

    /// Any bits, and numbers whose products and sums meet: those that lie between two singles, and their neighbours.
    fn numbers() -> impl Strategy<Value = f32> {
        let near = (-40..40i32, 0..64u32, any::<bool>()).prop_map(|(exponent, mantissa, sign)| {
            let bits = ((127 + exponent) as u32) << 23 | (mantissa << 17 | mantissa & 3);
            f32::from_bits(bits | u32::from(sign) << 31)
        });
        prop_oneof![any::<u32>().prop_map(f32::from_bits), near]
    }

    proptest! {
        #![proptest_config(drawn(200_000))]
        #[test]
        fn drawn_a_fused_multiplication_and_addition_rounds_once(a in numbers(), b in numbers(), c in numbers()) {
            let (got, expected) = (mul_add([a; LANES], [b; LANES], [c; LANES])[3], a.mul_add(b, c));
            prop_assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{got} {expected}");
        }
    }

    /// `c` after products of the channels up to `middle` and of those behind it.
    struct Parts<'a> {
        middle: usize,
        a: &'a [f32],
        b: &'a [f32],
        c: &'a mut [f32],
    }

    impl Task for Parts<'_> {
        #[inline(always)]
        unsafe fn run<L: Lanes>(self) {
            let Parts { middle, a, b, c } = self;
            let (depth, ahead) = (a.len() / 4, &mut Ahead::nothing());
            let rest = b[middle * 2 * LANES..].as_ptr();
            // SAFETY: `a` has 4 rows of `depth`, `b` `depth` rows and `c` 4 rows of two vectors.
            unsafe {
                L::product::<4, 2, FRESH>(middle, a.as_ptr(), depth, b.as_ptr(), c.as_mut_ptr(), ahead);
                L::product::<4, 2, CONTINUED>(depth - middle, a[middle..].as_ptr(), depth, rest, c.as_mut_ptr(), ahead);
            }
        }
    }

    #[test]
    fn a_continued_product_has_the_bits_of_one_product() {
        for depth in [70, 128, 150] {
            let (a, b) = (values::<f32>(4 * depth, 1), values::<f32>(depth * 2 * LANES, 2));
            let product = |isa, middle| {
                let mut c = vec![f32::NAN; 8 * LANES];
                // SAFETY: the slices have the lengths that the task names.
                unsafe { Instructions::of(isa).run(Parts { middle, a: &a, b: &b, c: &mut c }) };
                c
            };
            let whole = product(Isa::Portable, depth);
            assert!(whole.iter().all(|value| value.is_finite()), "{depth}");
            for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
                for middle in [16, 64, depth] {
                    assert_eq!(whole, product(isa, middle), "{isa:?}: {middle} of {depth}");
                }
            }
        }
    }

    #[test]
    fn it_rounds_once_where_twice_would_show() {
        // (1 + 2⁻¹²)² = 1 + 2⁻¹¹ + 2⁻²⁴ lies halfway between two singles. 2⁻⁸⁰ beside it decides, and is lost in a double.
        let (factor, tiny) = (1.0 + 2f32.powi(-12), 2f32.powi(-80));
        let below = 1.0 + 2f32.powi(-11);
        let above = f32::from_bits(below.to_bits() + 1);
        assert_eq!(
            [0.0, -tiny, tiny].map(|term| mul_add([factor; LANES], [factor; LANES], [term; LANES])[0]),
            [below, below, above]
        );
    }
}
