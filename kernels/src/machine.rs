//! The block machine: runs a program of vector loops over blocks of elements that stay in the first-level cache.
#![allow(unsafe_code)]

use std::cell::Cell;

use super::isa::Isa;
use super::lanes::Lanes;
use super::simd::{Portable, Vector};
use super::stream::{Sink, Write};
use crate::Element;
use crate::program::{Instruction, Operation, Program, Slot, Stored, Summand, Test, Unary};

/// Elements that an instruction takes at a time. 1024 are equally fast, 256 a tenth slower.
const BLOCK: usize = 512;
/// Elements of a group: every loop is over whole groups. One for each lane of a sum.
const GROUP: usize = size_of::<Lanes>() / size_of::<f64>();
/// Bytes of a cache line.
const LINE: usize = 64;

/// A cache line of working memory.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read as elements")] [u8; LINE]);

/// Bytes from one block of working memory to the next: a line more than the block, so that the blocks do not compete for
/// the same cache lines.
const fn stride<F>() -> usize {
    BLOCK * size_of::<F>() + LINE
}

thread_local! {
    /// Working memory that is reused between machines of a thread.
    static SPARE: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// A program with its working memory; made once for many blocks.
pub struct Machine<'p, F: Element> {
    program: &'p Program,
    isa: Isa,
    memory: Memory,
    /// The place of each slot's block: inputs, constants, registers.
    slots: Vec<*mut F>,
    /// Where this block's outputs go.
    targets: Vec<Target<F>>,
}

/// Blocks of the constants, the registers and, for elements that do not fill a block's last group or are streamed, of the
/// inputs, the weight and the outputs.
struct Memory {
    lines: Vec<Line>,
    start: *mut Line,
}

impl Memory {
    /// Room for so many blocks: what the thread's last machine left, as far as it goes.
    fn new<F>(blocks: usize) -> Self {
        let mut lines = SPARE.take();
        let needed = blocks * stride::<F>() / LINE;
        if lines.len() < needed {
            lines.resize(needed, Line([0; LINE]));
        }
        let start = lines.as_mut_ptr();
        Memory { lines, start }
    }

    /// The start of a block, which has room for `BLOCK` elements.
    fn block<F>(&self, index: usize) -> *mut F {
        let lines = stride::<F>() / LINE;
        assert!((index + 1) * lines <= self.lines.len(), "a block of working memory");
        self.start.wrapping_add(index * lines).cast()
    }

    /// A copy of `values` in a block, with zeros up to a whole group.
    fn padded<F: Element>(&self, index: usize, values: &[F]) -> *mut F {
        let block = self.block(index);
        let n = values.len();
        assert!(n <= BLOCK, "a block's elements");
        // SAFETY: the block has room for `BLOCK` elements, a multiple of `GROUP` and no less than `n`, and nothing else
        // refers to it; zero bits are the number 0.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), block, n);
            block.add(n).write_bytes(0, n.next_multiple_of(GROUP) - n);
        }
        block
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        SPARE.set(std::mem::take(&mut self.lines));
    }
}

/// Elements that a program runs over.
pub struct Block<'a, 'b, F: Element> {
    /// How many.
    pub length: usize,
    /// One slice per input, each at least as long as the block.
    pub inputs: &'b [&'b [F]],
    /// What every result is multiplied by; a weight of 0 makes the result 0, whatever it is. At least as long as the
    /// block.
    pub weight: Option<&'b [F]>,
    /// What the outputs are multiplied by besides.
    pub scale: F,
    /// One for each of the program's outputs, each at least as long as the block.
    pub outputs: &'b mut [Sink<'a, F>],
    /// Receives the program's sum.
    pub sum: Option<&'b mut Lanes>,
}

/// Where an output of a block goes.
#[derive(Clone, Copy)]
struct Target<F> {
    to: *mut F,
    write: Write,
}

impl<'p, F: Element> Machine<'p, F> {
    /// Prepares to run `program` on `isa`, or what the machine has of it.
    pub fn new(isa: Isa, program: &'p Program) -> Self {
        #[cfg(target_arch = "x86_64")]
        let isa = isa.min(super::isa::available_once());
        let kept = program.constants().len() + program.registers();
        let memory = Memory::new::<F>(kept + program.inputs() + 1 + program.outputs());
        let mut slots: Vec<*mut F> = vec![std::ptr::null_mut(); program.inputs()];
        slots.extend((0..kept).map(|block| memory.block(block)));
        for (&constant, &block) in program.constants().iter().zip(&slots[program.inputs()..]) {
            for i in 0..BLOCK {
                // SAFETY: the block has `BLOCK` elements, and nothing else refers to it.
                unsafe { *block.add(i) = F::from_f64(constant) };
            }
        }
        Machine { program, isa, memory, slots, targets: Vec::with_capacity(program.outputs()) }
    }

    /// Runs the program over a block of any length: results to the outputs, the sum of weighted values to the lanes, the
    /// first to the first.
    ///
    /// # Panics
    /// If the block does not have the program's inputs, outputs and sum, or one of them is too short.
    pub fn run(&mut self, block: Block<'_, '_, F>) {
        let Machine { program, isa, ref memory, ref mut slots, ref mut targets } = *self;
        let Block { length, inputs, weight, scale, outputs, sum } = block;
        assert!(
            inputs.len() == program.inputs() && inputs.iter().chain(&weight).all(|values| values.len() >= length),
            "a block's inputs"
        );
        assert!(
            outputs.len() == program.outputs() && outputs.iter().all(|output| output.len() >= length),
            "a block's outputs"
        );
        assert_eq!(sum.is_some(), program.sums(), "a block's sum");
        let mut none: Lanes = [0.0; _];
        let sums = sum.unwrap_or(&mut none);
        // What does not fill a whole group is copied to working memory.
        let padding = program.constants().len() + program.registers();
        for from in (0..length).step_by(BLOCK) {
            let n = BLOCK.min(length - from);
            let whole = n % GROUP == 0;
            for (k, input) in inputs.iter().enumerate() {
                let input = &input[from..][..n];
                slots[k] = if whole { input.as_ptr().cast_mut() } else { memory.padded(padding + k, input) };
            }
            // A weight of 0 keeps the padding out of the sum.
            let weight = match weight.map(|weight| &weight[from..][..n]) {
                Some(weight) if whole => weight.as_ptr(),
                None if whole => std::ptr::null(),
                Some(weight) => memory.padded(padding + inputs.len(), weight).cast_const(),
                None => memory.padded(padding + inputs.len(), &[F::ONE; BLOCK][..n]).cast_const(),
            };
            let buffer = |k: usize| memory.block(padding + inputs.len() + 1 + k);
            targets.clear();
            for (k, output) in outputs.iter_mut().enumerate() {
                let (to, write) = output.part(from, n);
                let is_direct = whole && (write != Write::Stream || to.addr() % LINE == 0);
                targets.push(if is_direct {
                    Target { to, write }
                } else {
                    Target { to: buffer(k), write: Write::Store }
                });
            }
            let mut run = Run {
                instructions: program.instructions(),
                slots,
                weight,
                targets,
                scale,
                sums: &mut *sums,
                length: n.next_multiple_of(GROUP),
            };
            // SAFETY: this processor has the instruction set (`new`). Slots, weight and targets hold whole groups of up to
            // `BLOCK` elements; results are registers (`Program` checks that when it is made), which are this machine's
            // alone, and the outputs are borrowed.
            unsafe { F::execute(isa, &mut run) };
            for (k, output) in outputs.iter_mut().enumerate() {
                if std::ptr::eq(targets[k].to, buffer(k)) {
                    // SAFETY: the buffer holds `n` results, which nothing else refers to.
                    output.put(from, unsafe { std::slice::from_raw_parts(buffer(k), n) });
                }
            }
        }
    }
}

/// A program's run over one block.
#[doc(hidden)]
pub struct Run<'a, F> {
    instructions: &'a [Instruction<Slot>],
    slots: &'a [*mut F],
    /// Null where there is none.
    weight: *const F,
    targets: &'a [Target<F>],
    scale: F,
    sums: &'a mut Lanes,
    /// A multiple of [`GROUP`].
    length: usize,
}

/// An element type that the machine is compiled for.
#[doc(hidden)]
pub trait Execute: Sized {
    /// Runs a program over a block.
    ///
    /// # Safety
    /// The processor has the instruction set. The instructions name slots and targets that there are; slots, weight and
    /// targets hold as many elements as the block has; no other thread writes them meanwhile, and no other one reads the
    /// targets and those slots that instructions write.
    unsafe fn execute(isa: Isa, run: &mut Run<'_, Self>);
}

macro_rules! execute {
    ($element:ty, $portable:literal, $avx2:ident, $avx512:ident) => {
        impl Execute for $element {
            unsafe fn execute(isa: Isa, run: &mut Run<'_, Self>) {
                #[cfg(target_arch = "x86_64")]
                {
                    use super::simd::{$avx2, $avx512};

                    /// # Safety
                    /// As [`Execute::execute`].
                    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                    unsafe fn avx512(run: &mut Run<'_, $element>) {
                        // SAFETY: the instruction set is enabled; the rest is the caller's.
                        unsafe { interpret::<$avx512>(run) }
                    }
                    /// # Safety
                    /// As [`Execute::execute`].
                    #[target_feature(enable = "avx2,fma")]
                    unsafe fn avx2(run: &mut Run<'_, $element>) {
                        // SAFETY: as above.
                        unsafe { interpret::<$avx2>(run) }
                    }
                    match isa {
                        // SAFETY: the caller's.
                        Isa::Avx512 => return unsafe { avx512(run) },
                        // SAFETY: the caller's.
                        Isa::Avx2 => return unsafe { avx2(run) },
                        Isa::Portable => {}
                    }
                }
                let _ = isa;
                // SAFETY: portable vectors need no instruction set; the rest is the caller's.
                unsafe { interpret::<Portable<$element, $portable>>(run) }
            }
        }
    };
}
execute!(f32, 4, Avx2Single, Avx512Single);
execute!(f64, 2, Avx2Double, Avx512Double);

/// Runs the instructions, each over the whole block.
///
/// # Safety
/// As [`Execute::execute`], in code compiled for the vectors' instruction set.
#[inline(always)]
unsafe fn interpret<V: Vector>(run: &mut Run<'_, V::Item>) {
    let (length, scale, weight) = (run.length, run.scale, run.weight);
    let is_weighted = !weight.is_null();
    // A loop over groups, each of `GROUP / V::LANES` vectors: `$at` is a vector's offset, `$k` its place in the group.
    macro_rules! each {
        (|$at:ident, $k:ident| $body:expr) => {{
            let mut start = 0;
            while start < length {
                let mut $k = 0;
                while $k < GROUP / V::LANES {
                    let $at = start + $k * V::LANES;
                    $body;
                    $k += 1;
                }
                start += GROUP;
            }
        }};
    }
    for instruction in run.instructions {
        let operand = |k: usize| -> *const V::Item { run.slots[instruction.operands[k] as usize] };
        let result = |k: usize| run.slots[instruction.results[k] as usize];
        // The macros are used in the unsafe block below.
        macro_rules! load {
            ($from:ident, $at:ident) => {
                V::load($from.add($at))
            };
        }
        macro_rules! unary {
            (|$x:ident| $value:expr) => {{
                let (x, to) = (operand(0), result(0));
                each!(|at, _k| {
                    let $x = load!(x, at);
                    ($value).store(to.add(at))
                })
            }};
        }
        macro_rules! binary {
            (|$x:ident, $y:ident| $value:expr) => {{
                let (x, y, to) = (operand(0), operand(1), result(0));
                each!(|at, _k| {
                    let ($x, $y) = (load!(x, at), load!(y, at));
                    ($value).store(to.add(at))
                })
            }};
        }
        macro_rules! select {
            ($test:ident) => {{
                let (x, bound, then, otherwise, to) = (operand(0), operand(1), operand(2), operand(3), result(0));
                each!(|at, _k| {
                    let (x, bound) = (load!(x, at), load!(bound, at));
                    let chosen = x.$test(bound, load!(then, at), load!(otherwise, at));
                    x.nan_or(bound.nan_or(chosen)).store(to.add(at))
                })
            }};
        }
        // Vectors to an output, as its target says.
        macro_rules! put {
            ($output:expr, |$at:ident, $k:ident| $value:expr) => {{
                let Target { to, write } = run.targets[$output as usize];
                match write {
                    Write::Store => each!(|$at, $k| ($value).store(to.add($at))),
                    // Streamed targets begin on a cache line (`Machine::run`).
                    Write::Stream => each!(|$at, $k| ($value).stream(to.add($at))),
                    Write::Add => each!(|$at, $k| V::load(to.add($at)).add($value).store(to.add($at))),
                }
            }};
        }
        // Vectors, weighted, to an output.
        macro_rules! store {
            ($output:expr, |$at:ident| $value:expr) => {
                if is_weighted {
                    put!($output, |$at, _k| V::weigh(load!(weight, $at), $value))
                } else {
                    put!($output, |$at, _k| $value)
                }
            };
        }
        // Vectors, weighted, to the sum.
        macro_rules! sum {
            (|$at:ident| $value:expr) => {{
                let mut sums = V::load_sums(run.sums);
                if is_weighted {
                    each!(|$at, k| V::weigh(load!(weight, $at), $value).add_to(&mut sums, k))
                } else {
                    each!(|$at, k| ($value).add_to(&mut sums, k))
                }
                V::store_sums(sums, run.sums);
            }};
        }
        let [first, second] = instruction.constants;
        // SAFETY: offsets stay below `length`, as many elements as every slot, the weight and every target hold; the caller
        // vouches for these and for the instruction set.
        unsafe {
            let (zero, one) = (V::constant(0.0), V::constant(1.0));
            let (c, d) = (V::constant(first), V::constant(second));
            match instruction.operation {
                Operation::Unary(Unary::Abs) => unary!(|x| x.abs()),
                Operation::Unary(Unary::Sign) => unary!(|x| x.sign()),
                Operation::Unary(Unary::Square) => unary!(|x| x.mul(x)),
                Operation::Unary(Unary::Sqrt) => unary!(|x| x.sqrt()),
                Operation::Unary(Unary::Exp) => unary!(|x| x.exp()),
                Operation::Unary(Unary::Ln) => unary!(|x| x.ln()),
                Operation::Unary(Unary::Tanh) => unary!(|x| x.tanh()),
                Operation::Unary(Unary::Sigmoid) => unary!(|x| x.sigmoid()),
                Operation::Unary(Unary::Softplus) => unary!(|x| x.softplus_sigmoid().0),
                Operation::Unary(Unary::LogSigmoid) => unary!(|x| zero.sub(zero.sub(x).softplus_sigmoid().0)),
                Operation::Unary(Unary::Relu) => unary!(|x| x.relu()),
                Operation::Reciprocal => unary!(|x| one.div(x)),
                Operation::SoftplusSigmoid => {
                    let (x, softplus, sigmoid) = (operand(0), result(0), result(1));
                    each!(|at, _k| {
                        let values = load!(x, at).softplus_sigmoid();
                        values.0.store(softplus.add(at));
                        values.1.store(sigmoid.add(at));
                    });
                }
                Operation::Add => binary!(|x, y| x.add(y)),
                Operation::Sub => binary!(|x, y| x.sub(y)),
                Operation::Mul => binary!(|x, y| x.mul(y)),
                Operation::Div => binary!(|x, y| x.div(y)),
                Operation::Max => binary!(|x, y| x.nan_or(x.greater_or(y))),
                Operation::Min => binary!(|x, y| x.nan_or(x.less_or(y))),
                Operation::Shift => unary!(|x| x.add(c)),
                Operation::Scale => unary!(|x| x.mul(c)),
                Operation::Affine => unary!(|x| x.mul(c).add(d)),
                Operation::Clip => unary!(|x| x.clip(c, d)),
                Operation::Huber => unary!(|x| x.huber(c)),
                Operation::LeakyRelu => unary!(|x| x.if_le(zero, x.mul(c), x)),
                Operation::Select(Test::AtMost) => select!(if_le),
                Operation::Select(Test::Below) => select!(if_lt),
                Operation::Select(Test::Equal) => select!(if_eq),
                Operation::Hypotenuse => unary!(|x| x.mul(x).add(c).sqrt()),
                Operation::MulAdd => {
                    let (x, y, z, to) = (operand(0), operand(1), operand(2), result(0));
                    each!(|at, _k| load!(x, at).mul(load!(y, at)).add(load!(z, at)).store(to.add(at)));
                }
                Operation::Sum(summand) => {
                    let x = operand(0);
                    match summand {
                        Summand::Value => sum!(|at| load!(x, at)),
                        Summand::Abs => sum!(|at| load!(x, at).abs()),
                        Summand::Square => sum!(|at| {
                            let x = load!(x, at);
                            x.mul(x)
                        }),
                        Summand::Relu => sum!(|at| load!(x, at).relu()),
                        Summand::Huber => sum!(|at| load!(x, at).huber(d)),
                        Summand::Hypotenuse => sum!(|at| {
                            let x = load!(x, at);
                            x.mul(x).add(d).sqrt()
                        }),
                        Summand::Difference => {
                            let y = operand(1);
                            sum!(|at| load!(x, at).sub(load!(y, at)));
                        }
                    }
                }
                Operation::SumHypotenuse => {
                    let (x, to) = (operand(0), result(0));
                    sum!(|at| {
                        let x = load!(x, at);
                        let root = x.mul(x).add(c).sqrt();
                        root.store(to.add(at));
                        root
                    });
                }
                Operation::Store(output, stored) => {
                    let (x, c) = (operand(0), c.mul(V::splat(scale)));
                    match stored {
                        Stored::Value => store!(output, |at| load!(x, at).mul(c)),
                        Stored::Sign => store!(output, |at| load!(x, at).sign().mul(c)),
                        Stored::Step => store!(output, |at| load!(x, at).step(c)),
                        Stored::Shift => store!(output, |at| load!(x, at).add(d).mul(c)),
                        Stored::Clip => store!(output, |at| load!(x, at).clip(zero.sub(d), d).mul(c)),
                        Stored::Difference => {
                            let y = operand(1);
                            store!(output, |at| load!(x, at).sub(load!(y, at)).mul(c));
                        }
                        Stored::Quotient => {
                            let y = operand(1);
                            store!(output, |at| load!(x, at).div(load!(y, at)).mul(c));
                        }
                        Stored::Product => {
                            let y = operand(1);
                            store!(output, |at| load!(x, at).mul(load!(y, at)).mul(c));
                        }
                    }
                }
                Operation::SumAndStore { output, summand, of_difference } => {
                    let c = c.mul(V::splat(scale));
                    let (x, y) = (operand(0), if of_difference { operand(1) } else { operand(0) });
                    let mut sums = V::load_sums(run.sums);
                    macro_rules! both {
                        (|$x:ident| $value:expr, $slope:expr) => {{
                            macro_rules! taken {
                                ($at:ident) => {
                                    if of_difference { load!(x, $at).sub(load!(y, $at)) } else { load!(x, $at) }
                                };
                            }
                            if is_weighted {
                                put!(output, |at, k| {
                                    let ($x, weight) = (taken!(at), load!(weight, at));
                                    V::weigh(weight, $value).add_to(&mut sums, k);
                                    V::weigh(weight, $slope)
                                })
                            } else {
                                put!(output, |at, k| {
                                    let $x = taken!(at);
                                    ($value).add_to(&mut sums, k);
                                    $slope
                                })
                            }
                        }};
                    }
                    match summand {
                        Summand::Abs => both!(|x| x.abs(), x.sign().mul(c)),
                        Summand::Square => both!(|x| x.mul(x), x.mul(c)),
                        Summand::Relu => both!(|x| x.relu(), x.step(c)),
                        Summand::Huber => both!(|x| x.huber(d), x.clip(zero.sub(d), d).mul(c)),
                        Summand::Hypotenuse => {
                            both!(|x| x.mul(x).add(d).sqrt(), x.div(x.mul(x).add(d).sqrt()).mul(c));
                        }
                        // These have no derivative that is stored with them.
                        Summand::Value | Summand::Difference => {}
                    }
                    V::store_sums(sums, run.sums);
                }
            }
        }
    }
}
