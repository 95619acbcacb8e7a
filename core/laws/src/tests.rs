//! Each law, handed a loss that breaks it, fails by its name; and the same loss without the fault passes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image_losses_core::kernels::Array;
use image_losses_core::{
    Declared, Differentiable, Expr, Function, Input, Pointwise, PointwiseLoss, Pool2d, Reducer, Reduction, Result,
    Scalar, Tensor, Unary,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::{Deserialize, Serialize};

use crate::{Cpu, Hand, Lawful, Network, Plain, Takes, bits, closed_forms, drawn, laws, norms, operations};
use image_losses_autograd::{AgTensor, Session};
use image_losses_ndarray::NdTensor;

/// What is wrong with a loss.
mod fault {
    pub(super) const NONE: u8 = 0;
    pub(super) const VALUE: u8 = 1;
    pub(super) const SINGLE: u8 = 2;
    pub(super) const PLAIN: u8 = 3;
    pub(super) const GRADIENT: u8 = 4;
    pub(super) const SECOND: u8 = 5;
    pub(super) const WEIGHTLESS: u8 = 6;
    pub(super) const SHIFTED: u8 = 7;
    pub(super) const ASYMMETRIC: u8 = 8;
    pub(super) const FIRST_SAMPLE: u8 = 9;
    pub(super) const MEAN: u8 = 10;
    pub(super) const SAMPLE_WISE: u8 = 11;
    pub(super) const MASKED_MEAN: u8 = 12;
    pub(super) const EMPTY_MASK: u8 = 13;
    pub(super) const EMPTY_MASK_GRADIENT: u8 = 14;
    pub(super) const AT_ZERO: u8 = 15;
    pub(super) const HUGE: u8 = 16;
    pub(super) const DENORMAL: u8 = 17;
    pub(super) const NAN: u8 = 18;
    pub(super) const BROADCASTS: u8 = 19;
    pub(super) const ANY_WEIGHT: u8 = 20;
    pub(super) const THREADS: u8 = 21;
    pub(super) const INSTRUCTIONS: u8 = 22;
    pub(super) const NAN_GRADIENT: u8 = 23;
    pub(super) const MULTIPLIED: u8 = 24;
    pub(super) const SELECTED_LAST: u8 = 25;
    pub(super) const MASKED_GRADIENT: u8 = 26;
    pub(super) const ONE_ENTRY: u8 = 27;
}
use fault::*;

/// (x − y)².
#[derive(Clone, Debug)]
struct Square;

impl Pointwise<2> for Square {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).square()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    loss_weight: f64,
    reduction: Reduction,
    sample_wise: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { loss_weight: 1.0, reduction: Reduction::Mean, sample_wise: false }
    }
}

/// The mean squared error with a fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Faulty<const FAULT: u8>(Options);

const INPUTS: [Input; 2] = [Input::full("pred"), Input::full("target")];

impl<const FAULT: u8> Faulty<FAULT> {
    fn reducer(&self) -> Reducer {
        let Options { loss_weight, reduction, sample_wise } = self.0;
        Reducer { loss_weight, reduction, sample_wise }
    }

    fn compute<T: Tensor>(&self, [x, y]: [&T; 2], weight: Option<&T>, plainly: bool) -> Result<T> {
        let reduce = |x: &T, weight: Option<&T>, reducer: Reducer| {
            reducer.reduce("Faulty", &Function::new(Square), &INPUTS, &[x, y], weight)
        };
        let sum = Reducer { reduction: Reduction::Sum, ..self.reducer() };
        let value = || reduce(x, weight, self.reducer());
        let fitting = x.shape() == y.shape() && x.rank() >= 2 && x.elements() > 0;
        let set = |variable: &str, to: &str| std::env::var(variable).is_ok_and(|value| value == to);
        match FAULT {
            VALUE => value()?.scale(1.0 + 1e-9),
            SINGLE if x.dtype() == image_losses_core::DType::F32 => value()?.scale(1.001),
            PLAIN if plainly => value()?.scale(1.0 + 1e-9),
            // Half of the derivative; a derivative that has none in turn.
            GRADIENT | SECOND if fitting => {
                let difference = x.sub(y)?;
                let still = difference.detach();
                let square = if FAULT == GRADIENT {
                    difference.mul(&still)?
                } else {
                    difference.mul(&still)?.scale(2.0)?.sub(&still.mul(&still)?)?
                };
                square.sum_all()?.scale(self.0.loss_weight)
            }
            WEIGHTLESS => reduce(x, weight, Reducer { loss_weight: 2.0, ..self.reducer() }),
            SHIFTED => value()?.shift(1.0),
            ASYMMETRIC => reduce(&x.scale(1.25)?, weight, self.reducer()),
            FIRST_SAMPLE if fitting => {
                let first = x.narrow(0, 0, 1)?.sum_all()?;
                let value = value()?;
                let shape = vec![1; value.rank()];
                value.add(&first.reshape(&shape)?)
            }
            MEAN if self.0.reduction == Reduction::Mean && weight.is_none() => {
                reduce(x, None, sum)?.scale(1.0 / (x.elements() as f64 + 1.0))
            }
            SAMPLE_WISE => reduce(x, weight, Reducer { sample_wise: false, ..self.reducer() }),
            MASKED_MEAN => match weight {
                // Divided by the number of elements, not by the sum of weights.
                Some(_) if self.0.reduction == Reduction::Mean => {
                    reduce(x, weight, sum)?.scale(2.0 / x.elements().max(1) as f64)
                }
                _ => value(),
            },
            EMPTY_MASK => match weight {
                // 0/0 for an empty mask.
                Some(weight) if self.0.reduction == Reduction::Mean && fitting => {
                    let repeats = x.elements() as f64 / weight.elements() as f64;
                    let total = weight.sum_all()?.scale(repeats)?;
                    let value = reduce(x, Some(weight), sum)?;
                    value.reshape(&total.shape())?.div(&total)
                }
                _ => value(),
            },
            EMPTY_MASK_GRADIENT => value()?.add(&x.sum_all()?.sub(&x.detach().sum_all()?)?),
            // √(d²)², whose root has no derivative at 0; a square of a square; a quotient by what may be next to 0.
            AT_ZERO if fitting => {
                let root = x.sub(y)?.unary(Unary::Square)?.unary(Unary::Sqrt)?;
                root.unary(Unary::Square)?.sum_all()
            }
            HUGE if fitting => x.sub(y)?.unary(Unary::Square)?.unary(Unary::Square)?.unary(Unary::Square)?.sum_all(),
            DENORMAL if fitting => {
                let (one, inverse) = (x.affine(0.0, 1.0)?, x.affine(0.0, 1.0)?.div(x)?);
                x.if_zero(&one, &inverse)?.sum_all()
            }
            // The value is that of one sample.
            NAN if fitting => x.sub(y)?.unary(Unary::Square)?.narrow(0, 0, 1)?.narrow(1, 0, 1)?.sum_all(),
            // The maximum of x and y is NaN with one of them, its gradient is 1.
            NAN_GRADIENT if fitting => {
                let column = [1, 1, x.elements(), 1];
                let pair = T::concatenate(&[&x.reshape(&column)?, &y.reshape(&column)?], 3)?;
                pair.max_pool2d(Pool2d { size: [1, 2], stride: [1, 2], padding: [0; 2], ceil_mode: false })?.sum_all()
            }
            // 0·∞ in the value; in the gradient alone; a gradient under the mask.
            MULTIPLIED | SELECTED_LAST if fitting && weight.is_some() => {
                let difference = x.sub(y)?;
                let weight = weight.unwrap_or(x);
                let weighted = difference.mul(&difference)?.mul(weight)?;
                let zero = T::constant(&x.context(), &[0.0], &[1])?;
                let selected = weight.if_zero(&zero, &weighted)?;
                if FAULT == MULTIPLIED { &weighted } else { &selected }.sum_all()
            }
            MASKED_GRADIENT => value()?.add(&x.sum_all()?.sub(&x.detach().sum_all()?)?),
            BROADCASTS => x.sub(y)?.unary(Unary::Square)?.sum_all(),
            ANY_WEIGHT => {
                let fits = weight.is_none_or(|weight| weight.shape().len() == x.rank());
                reduce(x, weight.filter(|_| fits), self.reducer())
            }
            // 1 + 1e-3 times the derivative by one element.
            ONE_ENTRY if fitting => {
                let first = (0..4).try_fold(x.sub(y)?, |part, axis| part.narrow(axis, 0, 1))?;
                let square = first.mul(&first)?.sum_all()?.scale(1e-3 * self.0.loss_weight / x.elements() as f64)?;
                let value = value()?;
                value.add(&square.sub(&square.detach())?.reshape(&value.shape())?)
            }
            THREADS if set("RAYON_NUM_THREADS", "2") => value()?.scale(1.0 + f64::EPSILON),
            INSTRUCTIONS if set("IMAGE_LOSSES_ISA", "avx2") => value()?.scale(1.0 + f64::EPSILON),
            _ => value(),
        }
    }
}

impl<const FAULT: u8> Lawful<2> for Faulty<FAULT> {
    fn apply<T: Differentiable>(&self, inputs: [&T; 2], weight: Option<&T>) -> Result<T> {
        self.compute(inputs, weight, false)
    }
    fn apply_plainly<T: Tensor>(&self, inputs: [&T; 2], weight: Option<&T>) -> Option<Result<T>> {
        Some(self.compute(inputs, weight, true))
    }
}

const TAKES: Takes<2> = Takes { symmetric: Some(true), degree: Some(2), ..Takes::pointwise(INPUTS) };

fn losses<const FAULT: u8>() -> impl Strategy<Value = Faulty<FAULT>> + Clone {
    any::<bool>().prop_map(|sample_wise| Faulty(Options { loss_weight: 1.5, sample_wise, ..Default::default() }))
}

fn by_hand<const FAULT: u8>(loss: &Faulty<FAULT>) -> Vec<Hand<2>> {
    let hand = |x: f64, y: f64, square: f64| Hand {
        shape: vec![1, 1],
        inputs: [vec![x], vec![y]],
        value: loss.0.loss_weight * square,
    };
    vec![hand(1.0, 1.0, 0.0), hand(3.0, 1.0, 4.0)]
}

/// Whether the law was broken; it is under no other name, and where no other law is looked at.
#[track_caller]
fn breaks(name: &str, law: impl FnOnce()) -> bool {
    let Err(panic) = catch_unwind(AssertUnwindSafe(law)) else { return false };
    let text = panic.downcast_ref::<String>().expect("a message");
    assert!(text.starts_with(&format!("{name}: ")), "{name} failed with: {text}");
    true
}

/// Every fault breaks its law, and the loss without a fault keeps it.
macro_rules! broken {
    ($($test:ident: $name:literal, [$($fault:ident),*], |$losses:ident, $takes:ident| $law:expr;)*) => {$(
        #[test]
        fn $test() {
            fn law<const FAULT: u8>() {
                let ($losses, $takes) = (losses::<FAULT>(), TAKES);
                $law;
            }
            assert!(!breaks($name, law::<NONE>), "a loss without a fault");
            $(assert!(breaks($name, law::<$fault>), stringify!($fault));)*
        }
    )*};
}

broken! {
    hand_values: "hand values", [VALUE, SINGLE], |losses, takes| laws::hand_values(&Cpu, losses, takes, by_hand);
    engines: "engines", [PLAIN, SINGLE], |losses, takes| laws::engines(&Cpu, losses, takes);
    gradients: "gradients", [GRADIENT, SECOND], |losses, takes| laws::gradients(&Cpu, losses, takes);
    scaling: "scaling", [WEIGHTLESS, SHIFTED], |losses, takes| laws::scaling(&Cpu, losses, takes);
    symmetry: "symmetry", [ASYMMETRIC], |losses, takes| laws::symmetry(&Cpu, losses, takes);
    permutation: "permutation", [FIRST_SAMPLE], |losses, takes| laws::permutation(&Cpu, losses, takes);
    reductions: "reductions", [MEAN, SAMPLE_WISE, MASKED_MEAN], |losses, takes| laws::reductions(&Cpu, losses, takes);
    masks: "masks", [MASKED_MEAN, EMPTY_MASK, EMPTY_MASK_GRADIENT], |losses, takes| laws::masks(&Cpu, losses, takes);
    extremes: "extremes", [AT_ZERO, HUGE, DENORMAL], |losses, takes| laws::extremes(&Cpu, losses, takes);
    masked_out: "masked out", [MULTIPLIED, SELECTED_LAST, MASKED_GRADIENT],
        |losses, takes| laws::masked_out(&Cpu, losses, takes);
    nan: "NaN", [NAN, NAN_GRADIENT], |losses, takes| laws::nan(&Cpu, losses, takes);
    shapes: "shapes", [BROADCASTS, ANY_WEIGHT], |losses, takes| laws::shapes(&Cpu, losses, takes);
    configuration: "configuration", [], |losses, takes| laws::configuration(losses, takes);
}

#[test]
fn a_symmetric_loss_is_not_what_claims_to_be_none() {
    let takes = Takes { symmetric: Some(false), ..TAKES };
    assert!(breaks("symmetry", || laws::symmetry(&Cpu, losses::<NONE>(), takes)));
}

#[test]
fn what_is_drawn_is_the_same_each_time() {
    let draw = || {
        let mut runner = TestRunner::new(drawn(1));
        (0..8).map(|_| any::<u64>().new_tree(&mut runner).expect("a number").current()).collect::<Vec<_>>()
    };
    assert_eq!(draw(), draw());
    assert!(drawn(1).failure_persistence.is_none());
    // A test whose name does not say so must not draw: no fresh seed would reach it.
    let draw =
        |name: &str| std::thread::Builder::new().name(name.to_owned()).spawn(|| drawn(1)).expect("a thread").join();
    assert!(["laws::l1", "gan_loss::drawn_values", "drawn_values"].into_iter().all(|name| draw(name).is_ok()));
    assert!(["gan_loss::values", "outlaws::l1"].into_iter().all(|name| draw(name).is_err()));
}

/// Behind a network derivatives are compared along directions.
#[test]
fn one_wrong_entry_behind_a_network() {
    let network = Network { size: [2, 3], cases: 8, deep: false, hand: 1e-12, double: 1e-12, single: [2e-5, 2e-2] };
    let takes = Takes { network: Some(network), ..TAKES };
    assert!(!breaks("gradients", || laws::gradients(&Cpu, losses::<NONE>(), takes)));
    assert!(breaks("gradients", || laws::gradients(&Cpu, losses::<ONE_ENTRY>(), takes)));
    assert!(breaks("gradients", || laws::gradients(&Cpu, losses::<SECOND>(), takes)));
}

#[test]
fn an_input_with_a_gradient_is_not_held_constant() {
    let takes = Takes { held: [false, true], ..TAKES };
    assert!(breaks("gradients", || laws::gradients(&Cpu, losses::<NONE>(), takes)));
}

/// The bits of processes: this test is started again by the law.
#[test]
fn bits_that_depend_on_threads() {
    if bits::only() {
        return bits::report(&losses::<THREADS>(), TAKES);
    }
    assert!(breaks("bits", || bits::same(&losses::<THREADS>(), TAKES)));
}

#[test]
fn bits_that_depend_on_instructions() {
    if bits::only() {
        return bits::report(&losses::<INSTRUCTIONS>(), TAKES);
    }
    assert!(breaks("bits", || bits::same(&losses::<INSTRUCTIONS>(), TAKES)));
}

#[test]
fn bits_that_depend_on_nothing() {
    if bits::only() {
        return bits::report(&losses::<NONE>(), TAKES);
    }
    assert!(!breaks("bits", || bits::same(&losses::<NONE>(), TAKES)));
}

/// What is wrong with a configuration.
macro_rules! configured {
    ($($loss:ident: #[$serde:meta] $reduction:ident;)*) => {$(
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[$serde]
        struct $loss {
            loss_weight: f64,
            reduction: Reduction,
        }
        impl Default for $loss {
            fn default() -> Self {
                $loss { loss_weight: 1.0, reduction: Reduction::$reduction }
            }
        }
        impl Lawful<2> for $loss {
            fn apply<T: Differentiable>(&self, _: [&T; 2], _: Option<&T>) -> Result<T> {
                unreachable!("only its configuration is looked at")
            }
            fn apply_plainly<T: Tensor>(&self, _: [&T; 2], _: Option<&T>) -> Option<Result<T>> {
                None
            }
        }
    )*};
}

configured! {
    Lax: #[serde(default)] Mean;
    Sums: #[serde(default, deny_unknown_fields)] Sum;
}

/// One that forgets its `loss_weight` when it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Forgets {
    #[serde(skip_serializing)]
    loss_weight: f64,
}

impl Default for Forgets {
    fn default() -> Self {
        Forgets { loss_weight: 1.0 }
    }
}

impl Lawful<2> for Forgets {
    fn apply<T: Differentiable>(&self, _: [&T; 2], _: Option<&T>) -> Result<T> {
        unreachable!("only its configuration is looked at")
    }
    fn apply_plainly<T: Tensor>(&self, _: [&T; 2], _: Option<&T>) -> Option<Result<T>> {
        None
    }
}

#[test]
fn wrong_configurations() {
    assert!(breaks("configuration", || laws::configuration(Just(Lax::default()), TAKES)));
    assert!(breaks("configuration", || laws::configuration(Just(Sums::default()), TAKES)));
    assert!(breaks("configuration", || laws::configuration(Just(Forgets { loss_weight: 2.0 }), TAKES)));
    let required = Takes { required: &["loss_weight"], ..TAKES };
    assert!(breaks("configuration", || laws::configuration(Just(Faulty::<NONE>::default()), required)));
}

#[test]
fn operations_of_values() {
    let read = |x: &NdTensor<'_, f64>| Ok(x.array().iter().copied().collect());
    operations::extents(&(), &read);
    operations::overflows::<NdTensor<'_, f64>>(&());
    operations::ignored_inputs(&(), &read);
    operations::extents_of_gradients(&(), &read);
    operations::weights_of_zero(&(), &read);
    operations::nan(&(), &read);
    let values = |tensors: &[&NdTensor<'_, f64>]| tensors.iter().map(|x| read(x)).collect();
    closed_forms::<NdTensor<'_, f64>>(&(), values, 1e-12).unwrap();
    norms::<NdTensor<'_, f64>>(&(), values, &[1e-140, 1e-40, 1.0, 1e40, 1e140], 1e-14).unwrap();
    let read = |x: &Plain| Ok(x.values());
    operations::extents(&(), &read);
    operations::overflows::<Plain>(&());
    operations::ignored_inputs(&(), &read);
}

#[test]
fn operations_of_graphs() {
    fn on<'g>(session: &Session<'g, f64>) {
        let context = session.graph();
        let read = |x: &AgTensor<'g, f64>| Ok(session.evaluate(&[x])?.remove(0));
        operations::extents(&context, &read);
        operations::overflows::<AgTensor<'g, f64>>(&context);
        operations::ignored_inputs(&context, &read);
        operations::extents_of_gradients(&context, &read);
        operations::weights_of_zero(&context, &read);
        operations::nan(&context, &read);
    }
    image_losses_autograd::run(on);
}

/// What is wrong with a fused pass.
mod pass {
    pub(super) const GRADIENT: u8 = 101;
    pub(super) const VALUE: u8 = 102;
    pub(super) const EXTREME: u8 = 103;
    pub(super) const UNCHECKED: u8 = 104;
    pub(super) const NAN: u8 = 105;
    pub(super) const MASKED: u8 = 106;
}

/// A pointwise loss whose fused pass has a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Fused<const FAULT: u8>(());

impl<const FAULT: u8> Declared for Fused<FAULT> {
    const NAME: &'static str = "Fused";
}

impl<const FAULT: u8> Pointwise<2> for Fused<FAULT> {
    fn value<'e>(&self, inputs: [Expr<'e>; 2]) -> Expr<'e> {
        Square.value(inputs)
    }
}

impl<const FAULT: u8> PointwiseLoss<2> for Fused<FAULT> {
    const INPUTS: [Input; 2] = INPUTS;
    fn reducer(&self) -> Reducer {
        Reducer::default()
    }
    fn value_and_gradients<F: Scalar>(
        &self,
        inputs: [Array<'_, F>; 2],
        weight: Option<Array<'_, F>>,
        wanted: [bool; 2],
    ) -> Result<(F, [Option<Vec<F>>; 2])> {
        let unchecked = (F::ZERO, inputs.map(|input| Some(vec![F::ZERO; input.data.len()])));
        if FAULT == pass::UNCHECKED {
            return Ok(unchecked);
        }
        let (value, mut gradients) = Right.value_and_gradients(inputs, weight, wanted)?;
        let first = gradients[0].as_mut().expect("a gradient");
        match FAULT {
            pass::GRADIENT => first[0] += F::from_f64(1e-3),
            pass::EXTREME if inputs[0].data[0].to_f64() == 0.0 => first[0] = F::from_f64(f64::NAN),
            // A gradient that is a number where the value is none, or not 0 where the weight is.
            pass::NAN => first.iter_mut().filter(|g| g.to_f64().is_nan()).for_each(|g| *g = F::ZERO),
            pass::MASKED if weight.is_some() => first.iter_mut().for_each(|g| *g += F::from_f64(1e-3)),
            pass::VALUE => return Ok((value * F::from_f64(1.001), gradients)),
            _ => {}
        }
        Ok((value, gradients))
    }
}

/// The same without a fault and with the trait's own pass.
#[derive(Clone, Debug)]
struct Right;

impl Declared for Right {
    const NAME: &'static str = "Fused";
}

impl Pointwise<2> for Right {
    fn value<'e>(&self, inputs: [Expr<'e>; 2]) -> Expr<'e> {
        Square.value(inputs)
    }
}

impl PointwiseLoss<2> for Right {
    const INPUTS: [Input; 2] = INPUTS;
    fn reducer(&self) -> Reducer {
        Reducer::default()
    }
}

#[test]
fn fused_passes() {
    assert!(!breaks("fused", || laws::fused(Just(Fused::<NONE>(())), TAKES)));
    assert!(breaks("fused", || laws::fused(Just(Fused::<{ pass::GRADIENT }>(())), TAKES)));
    assert!(breaks("fused", || laws::fused(Just(Fused::<{ pass::VALUE }>(())), TAKES)));
    assert!(!breaks("fused extremes", || laws::fused_extremes(Just(Fused::<NONE>(())), TAKES)));
    assert!(breaks("fused extremes", || laws::fused_extremes(Just(Fused::<{ pass::EXTREME }>(())), TAKES)));
    assert!(!breaks("fused NaN", || laws::fused_nan(Just(Fused::<NONE>(())), TAKES)));
    assert!(breaks("fused NaN", || laws::fused_nan(Just(Fused::<{ pass::NAN }>(())), TAKES)));
    assert!(!breaks("fused masked out", || laws::fused_masked_out(Just(Fused::<NONE>(())), TAKES)));
    assert!(breaks("fused masked out", || laws::fused_masked_out(Just(Fused::<{ pass::MASKED }>(())), TAKES)));
    assert!(!breaks("fused shapes", || laws::fused_shapes(Just(Fused::<NONE>(())), TAKES)));
    assert!(breaks("fused shapes", || laws::fused_shapes(Just(Fused::<{ pass::UNCHECKED }>(())), TAKES)));
}
