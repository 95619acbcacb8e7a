//! The pointwise function, as its author writes it and as the engines hold it.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use super::element::{Dual, Element, Number};
use super::tape::Tape;
use super::tower::Pool;
use crate::kernels::isa::{self, Isa, Kernel};
use crate::kernels::lanes::{self, Lanes};
use crate::kernels::stream::Sink;
use crate::once::get_or_make;
use crate::{Error, Result, Scalar, Unary};

/// Elements evaluated at a time.
const PIECE: usize = 256;
/// Elements of a group, which become vectors without a remainder; a divisor of [`PIECE`].
const GROUP: usize = 64;
/// Elements, or vectors of them, that are computed side by side; a divisor of [`GROUP`].
const WIDTH: usize = 4;

/// A function of `K` numbers, applied to `K` tensors element by element.
///
/// Most losses are one such function followed by a weighted reduction. Write it once over [`Element`]; the value, the
/// partial derivatives of any order, the fused CPU kernel and the composition of tensor operations all come from it.
/// Mark `value` `#[inline(always)]`, so that the kernels become vector code.
///
/// ```
/// use image_losses_core::{Element, Function, Pointwise};
///
/// /// The Cauchy loss ln(1 + ((x − y)/γ)²).
/// #[derive(Clone, Debug)]
/// struct Cauchy { gamma: f64 }
///
/// impl Pointwise<2> for Cauchy {
///     #[inline(always)]
///     fn value<E: Element>(&self, [x, y]: [E; 2]) -> E {
///         (((x - y) / self.gamma).square() + 1.0).ln()
///     }
/// }
///
/// let f = Function::new(Cauchy { gamma: 2.0 });
/// let (x, y) = ([3.0f64], [1.0f64]);
/// assert_eq!(f.at(&[], &[&x[..], &y])?, vec![2f64.ln()]); // d = 2 = γ
/// assert_eq!(f.at(&[0], &[&x[..], &y])?, vec![0.5]); // 2d/(γ² + d²)
/// # Ok::<(), image_losses_core::Error>(())
/// ```
pub trait Pointwise<const K: usize>: Clone + Debug + Send + Sync + 'static {
    /// The function's value.
    fn value<E: Element>(&self, inputs: [E; K]) -> E;
}

/// A pointwise function whose type is erased: what tensors and graph nodes hold. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Function(Arc<dyn Erased>);

/// What is left of a function without its type: evaluation of a block of elements, and the recorded form.
#[doc(hidden)]
pub trait Erased: Debug + Send + Sync {
    fn arity(&self) -> usize;
    fn tape(&self) -> &Tape;
    fn block_f32(&self, block: Block<'_, f32>);
    fn block_f64(&self, block: Block<'_, f64>);
}

/// The evaluation of a block of elements.
#[doc(hidden)]
#[derive(Debug)]
pub struct Block<'a, F: Scalar> {
    pub isa: Isa,
    /// The inputs differentiated by; empty for the value.
    pub partial: &'a [usize],
    /// One slice per input, each at least as long as `weight`.
    pub inputs: &'a [&'a [F]],
    /// What every result is multiplied by; as long as the block. Where it is 0 the result is 0.
    pub weight: &'a [F],
    /// What `out` is multiplied by besides.
    pub scale: F,
    /// Receives the derivative.
    pub out: Option<Sink<'a, F>>,
    /// Receives the sum: of the value beside a first derivative, else of the derivative asked for.
    pub sum: Option<&'a mut Lanes>,
}

#[derive(Debug)]
struct Holder<P, const K: usize> {
    function: P,
    tape: OnceLock<Tape>,
}

impl Function {
    /// Erases a function's type.
    ///
    /// Its kernels are compiled where this is called. In a static, or a function without type parameters and
    /// `#[inline(never)]`, they are compiled once; in a generic one every crate that uses it compiles them again.
    pub fn new<const K: usize, P: Pointwise<K>>(function: P) -> Self {
        Function(Arc::new(Holder::<P, K> { function, tape: OnceLock::new() }))
    }

    /// The function behind a tensor's unary operation.
    pub fn unary(operation: Unary) -> Self {
        // One type for each, so that no choice is left inside the loops; each erased once.
        macro_rules! table {
            ($($variant:ident => $method:ident),*) => {
                match operation {
                    $(Unary::$variant => {
                        #[derive(Clone, Copy, Debug)]
                        struct $variant;
                        impl Pointwise<1> for $variant {
                            #[inline(always)]
                            fn value<E: Element>(&self, [x]: [E; 1]) -> E {
                                x.$method()
                            }
                        }
                        static FUNCTION: OnceLock<Function> = OnceLock::new();
                        get_or_make(&FUNCTION, || Function::new($variant)).clone()
                    })*
                    Unary::LogSigmoid => Function::new(LogSigmoid),
                }
            };
        }
        table!(Abs => abs, Sign => sign, Square => square, Sqrt => sqrt, Exp => exp, Ln => ln, Tanh => tanh,
            Sigmoid => sigmoid, Softplus => softplus, Relu => relu)
    }

    /// The number of inputs.
    pub fn arity(&self) -> usize {
        self.0.arity()
    }

    /// The function as tensor operations.
    pub fn tape(&self) -> &Tape {
        self.0.tape()
    }

    /// The partial derivative by the inputs listed in `partial` (none: the value) at every position of the inputs,
    /// up to the length of the shortest.
    ///
    /// # Errors
    /// [`Error::InputCount`] for another number of inputs than [`arity`](Function::arity), or a position in `partial`
    /// beyond it.
    pub fn at<F: Scalar>(&self, partial: &[usize], inputs: &[&[F]]) -> Result<Vec<F>> {
        let (arity, got) = (self.arity(), inputs.len());
        if got != arity || partial.iter().any(|&input| input >= arity) {
            return Err(Error::InputCount { operation: "pointwise", expected: arity, got });
        }
        let length = inputs.iter().map(|input| input.len()).min().unwrap_or(0);
        let mut out = vec![F::ZERO; length];
        self.block(Block {
            isa: isa::detect(),
            partial,
            inputs,
            weight: &vec![F::ONE; length],
            scale: F::ONE,
            out: Some(Sink::new(&mut out)),
            sum: None,
        });
        Ok(out)
    }

    /// Evaluates a block of elements.
    pub(crate) fn block<F: Scalar>(&self, block: Block<'_, F>) {
        F::evaluate_block(&*self.0, block);
    }
}

/// −ln(1 + e⁻ˣ).
#[derive(Clone, Copy, Debug)]
struct LogSigmoid;

impl Pointwise<1> for LogSigmoid {
    #[inline(always)]
    fn value<E: Element>(&self, [x]: [E; 1]) -> E {
        -(-x).softplus()
    }
}

impl<P: Pointwise<K>, const K: usize> Erased for Holder<P, K> {
    fn arity(&self) -> usize {
        K
    }
    fn tape(&self) -> &Tape {
        get_or_make(&self.tape, || Tape::record(K, |inputs| self.function.value(std::array::from_fn(|k| inputs[k]))))
    }
    fn block_f32(&self, block: Block<'_, f32>) {
        evaluate(&self.function, block);
    }
    fn block_f64(&self, block: Block<'_, f64>) {
        evaluate(&self.function, block);
    }
}

/// Chooses the loop for the derivative asked for.
fn evaluate<const K: usize, P: Pointwise<K>, F: Scalar>(function: &P, block: Block<'_, F>) {
    let Block { isa, partial, inputs, weight, scale, out, sum } = block;
    let operands = Operands { inputs: std::array::from_fn(|k| &inputs[k][..weight.len()]), weight, scale };
    match (partial, out, sum) {
        (_, None, None) => {}
        // The direction is a constant in each of these, so that terms it does not reach vanish.
        ([0], Some(out), None) if K > 0 => {
            isa::run(isa, FirstLoop::<'_, K, 0, P, F> { function, operands, out });
        }
        ([1], Some(out), None) if K > 1 => {
            isa::run(isa, FirstLoop::<'_, K, 1, P, F> { function, operands, out });
        }
        ([0], Some(out), Some(sum)) if K > 0 => {
            isa::run(isa, BothLoop::<'_, K, 0, P, F> { function, operands, out, sum });
        }
        ([1], Some(out), Some(sum)) if K > 1 => {
            isa::run(isa, BothLoop::<'_, K, 1, P, F> { function, operands, out, sum });
        }
        ([], None, Some(sum)) => isa::run(isa, SumLoop { function, operands, sum }),
        ([], Some(out), None) => isa::run(isa, ValueLoop { function, operands, out }),
        ([i], Some(out), sum) => {
            if let Some(sum) = sum {
                isa::run(isa, SumLoop { function, operands, sum });
            }
            isa::run(isa, AnyFirstLoop { function, input: *i, operands, out });
        }
        ([i, j], Some(out), None) => {
            isa::run(isa, SecondLoop { function, directions: [*i, *j], operands, out });
        }
        (_, out, sum) => any_order(function, partial, operands, out, sum),
    }
}

/// Runs `elements`, which gives the function's derivative and value at `W` elements, over the block, and hands the
/// derivatives times weight and scale to `out`, the values times weight to `sum`. A piece stays in the first-level cache,
/// so that memory is read and written without a pause.
#[inline(always)]
fn each<const K: usize, const W: usize, P: Clone, F: Scalar>(
    function: &P,
    Operands { inputs, weight, scale }: Operands<'_, K, F>,
    mut out: Option<Sink<'_, F>>,
    mut sum: Option<&mut Lanes>,
    mut elements: impl FnMut(&P, [[F; W]; K]) -> [[F; W]; 2],
) {
    // A copy, which no store can alias: its options are converted once. In the loop their double precision would halve the
    // width of the vectors.
    let function = function.clone();
    let mut derivatives = [F::ZERO; PIECE];
    let mut values = [F::ZERO; PIECE];
    // The last group, if it is not full: by a loop of its own every function would be compiled twice.
    let (mut last_inputs, mut last_weight) = ([[F::ZERO; GROUP]; K], [F::ZERO; GROUP]);
    for from in (0..weight.len()).step_by(PIECE) {
        let length = PIECE.min(weight.len() - from);
        let inputs = inputs.map(|input| &input[from..][..length]);
        let weight = &weight[from..][..length];
        let groups = derivatives.as_chunks_mut::<GROUP>().0.iter_mut().zip(values.as_chunks_mut::<GROUP>().0);
        for (at, (derivatives, values)) in (0..length).step_by(GROUP).zip(groups) {
            if length - at < GROUP {
                for (last, input) in last_inputs.iter_mut().zip(&inputs) {
                    last[..length - at].copy_from_slice(&input[at..]);
                }
                last_weight[..length - at].copy_from_slice(&weight[at..]);
            }
            let weight = weight[at..].first_chunk().unwrap_or(&last_weight);
            let inputs: [&[F; GROUP]; K] =
                std::array::from_fn(|k| inputs[k][at..].first_chunk().unwrap_or(&last_inputs[k]));
            // The elements side by side are a stride apart, so that they lie in different vectors.
            let stride = GROUP / W;
            for l in 0..stride.min(length - at) {
                let mut at = [[F::ZERO; W]; K];
                for (at, input) in at.iter_mut().zip(&inputs) {
                    for (i, at) in at.iter_mut().enumerate() {
                        *at = input[l + i * stride];
                    }
                }
                let [derivative, value] = elements(&function, at);
                for i in 0..W {
                    let weight = weight[l + i * stride];
                    // A selection: 0·∞ and 0·NaN are NaN.
                    let out = weight == F::ZERO;
                    derivatives[l + i * stride] = if out { F::ZERO } else { derivative[i] * (weight * scale) };
                    values[l + i * stride] = if out { F::ZERO } else { value[i] * weight };
                }
            }
        }
        if let Some(out) = &mut out {
            out.put(from, &derivatives[..length]);
        }
        if let Some(sum) = &mut sum {
            lanes::add(sum, &values[..length]);
        }
    }
}

/// What a block is computed from.
#[derive(Clone, Copy)]
struct Operands<'a, const K: usize, F> {
    inputs: [&'a [F]; K],
    weight: &'a [F],
    scale: F,
}

/// The sum of the function.
struct SumLoop<'a, const K: usize, P, F> {
    function: &'a P,
    operands: Operands<'a, K, F>,
    sum: &'a mut Lanes,
}

impl<const K: usize, P: Pointwise<K>, F: Scalar> Kernel for SumLoop<'_, K, P, F> {
    #[inline(always)]
    fn run(self) {
        each(
            self.function,
            self.operands,
            None,
            Some(self.sum),
            #[inline(always)]
            |function: &P, inputs: [[F; WIDTH]; K]| [[F::ZERO; WIDTH], function.value(inputs.map(Number)).0],
        );
    }
}

/// The function itself.
struct ValueLoop<'a, const K: usize, P, F: Scalar> {
    function: &'a P,
    operands: Operands<'a, K, F>,
    out: Sink<'a, F>,
}

impl<const K: usize, P: Pointwise<K>, F: Scalar> Kernel for ValueLoop<'_, K, P, F> {
    #[inline(always)]
    fn run(self) {
        each(
            self.function,
            self.operands,
            Some(self.out),
            None,
            #[inline(always)]
            |function: &P, inputs: [[F; WIDTH]; K]| [function.value(inputs.map(Number)).0, [F::ZERO; WIDTH]],
        );
    }
}

/// The derivative by input `I`.
struct FirstLoop<'a, const K: usize, const I: usize, P, F: Scalar> {
    function: &'a P,
    operands: Operands<'a, K, F>,
    out: Sink<'a, F>,
}

impl<const K: usize, const I: usize, P: Pointwise<K>, F: Scalar> Kernel for FirstLoop<'_, K, I, P, F> {
    #[inline(always)]
    fn run(self) {
        each(
            self.function,
            self.operands,
            Some(self.out),
            None,
            #[inline(always)]
            |function, inputs| [first(function, I, inputs).derivative.0, [F::ZERO; WIDTH]],
        );
    }
}

/// The derivative by input `I`, and the sum of the function.
struct BothLoop<'a, const K: usize, const I: usize, P, F: Scalar> {
    function: &'a P,
    operands: Operands<'a, K, F>,
    out: Sink<'a, F>,
    sum: &'a mut Lanes,
}

impl<const K: usize, const I: usize, P: Pointwise<K>, F: Scalar> Kernel for BothLoop<'_, K, I, P, F> {
    #[inline(always)]
    fn run(self) {
        each(
            self.function,
            self.operands,
            Some(self.out),
            Some(self.sum),
            #[inline(always)]
            |function, inputs| {
                let dual = first(function, I, inputs);
                [dual.derivative.0, dual.value.0]
            },
        );
    }
}

/// The derivative by an input chosen at run time.
struct AnyFirstLoop<'a, const K: usize, P, F: Scalar> {
    function: &'a P,
    input: usize,
    operands: Operands<'a, K, F>,
    out: Sink<'a, F>,
}

impl<const K: usize, P: Pointwise<K>, F: Scalar> Kernel for AnyFirstLoop<'_, K, P, F> {
    #[inline(always)]
    fn run(self) {
        each(
            self.function,
            self.operands,
            Some(self.out),
            None,
            #[inline(always)]
            |function, inputs| [first(function, self.input, inputs).derivative.0, [F::ZERO; WIDTH]],
        );
    }
}

/// Value and derivative by one input, side by side.
#[inline(always)]
fn first<const K: usize, P: Pointwise<K>, F: Scalar>(
    function: &P,
    input: usize,
    inputs: [[F; WIDTH]; K],
) -> Dual<Number<F, WIDTH>> {
    function.value(std::array::from_fn(|k| Dual {
        value: Number(inputs[k]),
        derivative: Number([if k == input { F::ONE } else { F::ZERO }; WIDTH]),
    }))
}

/// The second derivative by two inputs.
struct SecondLoop<'a, const K: usize, P, F: Scalar> {
    function: &'a P,
    directions: [usize; 2],
    operands: Operands<'a, K, F>,
    out: Sink<'a, F>,
}

impl<const K: usize, P: Pointwise<K>, F: Scalar> Kernel for SecondLoop<'_, K, P, F> {
    #[inline(always)]
    fn run(self) {
        let seed = |k: usize, direction: usize| Number([if k == direction { F::ONE } else { F::ZERO }; WIDTH]);
        let [i, j] = self.directions;
        let seeds: [(Number<F, WIDTH>, Number<F, WIDTH>); K] = std::array::from_fn(|k| (seed(k, i), seed(k, j)));
        each(
            self.function,
            self.operands,
            Some(self.out),
            None,
            #[inline(always)]
            |function, inputs| {
                let dual = function.value(std::array::from_fn(|k| Dual {
                    value: Dual { value: Number(inputs[k]), derivative: seeds[k].0 },
                    derivative: Dual { value: seeds[k].1, derivative: Number([F::ZERO; WIDTH]) },
                }));
                [dual.derivative.derivative.0, [F::ZERO; WIDTH]]
            },
        );
    }
}

/// Any derivative and the sum of the same, one element at a time.
fn any_order<const K: usize, P: Pointwise<K>, F: Scalar>(
    function: &P,
    partial: &[usize],
    operands: Operands<'_, K, F>,
    out: Option<Sink<'_, F>>,
    sum: Option<&mut Lanes>,
) {
    let seeds: [Vec<bool>; K] = std::array::from_fn(|k| partial.iter().map(|&direction| direction == k).collect());
    let mut pool = Pool::default();
    each(function, operands, out, sum, |function, inputs: [[F; 1]; K]| {
        let derivative = function.value(std::array::from_fn(|k| pool.input(inputs[k][0], &seeds[k]))).top();
        pool.clear();
        [[derivative], [derivative]]
    });
}
