//! The machine against the definition, the derivatives against central differences, and what holds on every path: NaN
//! stays NaN, a weight of 0 takes a pixel out.

use image_losses_kernels::Programs;
use image_losses_kernels::isa::Isa;
use image_losses_kernels::lanes::Lanes;
use image_losses_kernels::machine::{Block, Machine};
use image_losses_kernels::stream::Sink;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::{Expr, Function, Pointwise};
use crate::Scalar;

const SETS: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

/// A step of a random function: an operation on earlier values.
#[derive(Clone, Copy, Debug)]
struct Step {
    operation: u8,
    operands: [usize; 4],
    constant: f64,
}

/// A function of three numbers: each step's operands are among the inputs and the steps before, the last is the result.
#[derive(Clone, Debug)]
struct Steps(Vec<Step>);

impl Pointwise<3> for Steps {
    fn value<'e>(&self, inputs: [Expr<'e>; 3]) -> Expr<'e> {
        let mut values = inputs.to_vec();
        for &Step { operation, operands, constant: c } in &self.0 {
            // Most steps take the one before, so that little is thrown away.
            let last = values.len() - 1;
            let [a, b, then, otherwise] = operands.map(|k| values[k % values.len()]);
            let x = if operands[0] % 3 > 0 { values[last] } else { a };
            values.push(match operation % 31 {
                0 => x + b,
                1 => x - b,
                2 => x * b,
                3 => x / (b.square() + 0.5),
                4 => x.max(b),
                5 => x.min(b),
                6 => x.abs(),
                7 => x.sign() * b,
                8 => x.square() * 0.25,
                9 => (x.square() + c.abs() + 0.01).sqrt(),
                10 => (-x.abs()).exp(),
                11 => (x.abs() + 0.1).ln(),
                12 => x.tanh(),
                13 => x.sigmoid(),
                14 => x.softplus(),
                15 => x.relu(),
                16 => x.leaky_relu(0.2),
                17 => x.clip(-c.abs(), 0.5),
                18 => x.huber(c.abs() + 0.1),
                19 => (x - c).if_not_positive(then, otherwise),
                20 => x.if_zero(then, otherwise),
                21 => x * c,
                22 => x + c,
                23 => c - x,
                24 => c / (x.abs() + 1.0),
                25 => -x,
                26 => x * b + then,
                27 => x / 1.5,
                28 => x.softplus() + x.sigmoid(),
                29 => x * 2.0 * (b * 0.5),
                _ => x.abs().sqrt(),
            });
        }
        values[values.len() - 1]
    }
}

fn steps(length: std::ops::Range<usize>) -> impl Strategy<Value = Steps> {
    let step = (any::<u8>(), any::<[usize; 4]>(), -1.5f64..1.5).prop_map(|(operation, operands, constant)| Step {
        operation,
        operands,
        constant,
    });
    proptest::collection::vec(step, length).prop_map(Steps)
}

/// Cases drawn from a seed that does not change.
fn each<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let result = runner.run(&strategy, |value| {
        test(value);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Numbers without a pattern, of magnitudes around 1, some of them zeros and ties.
fn numbers<F: Scalar>(count: usize, salt: u64) -> Vec<F> {
    (0..count as u64)
        .map(|i| {
            let bits = (i + 1).wrapping_mul(salt.wrapping_mul(2) + 0x9E37_79B9_7F4A_7C15);
            let x = (bits >> 40) as f64 / f64::from(1u32 << 23) - 1.0;
            F::from_f64(if bits % 11 == 0 { 0.0 } else { 2.5 * x })
        })
        .collect()
}

/// What a program gives: its sum, and its outputs.
fn run<F: Scalar>(
    isa: Isa,
    function: &Function,
    [sum, outputs]: [&[&[usize]]; 2],
    inputs: &[&[F]],
    weight: Option<&[F]>,
    scale: f64,
) -> (f64, Vec<Vec<F>>) {
    let length = inputs[0].len();
    // One more before each output, so that these begin at other places in their cache lines than the inputs.
    let mut results = vec![vec![F::ONE; length + 1]; outputs.len()];
    let mut sinks: Vec<Sink<'_, F>> = results.iter_mut().map(|result| Sink::new(&mut result[1..])).collect();
    let mut lanes: Lanes = [0.0; _];
    let program = function.program(sum.first().copied(), outputs);
    Machine::new(isa, &program).run(Block {
        length,
        inputs,
        weight,
        scale: F::from_f64(scale),
        outputs: &mut sinks,
        sum: (!sum.is_empty()).then_some(&mut lanes),
    });
    assert!(results.iter().all(|result| result[0] == F::ONE), "a result before the output");
    (lanes.iter().sum(), results.into_iter().map(|result| result[1..].to_vec()).collect())
}

/// The machine's values and first derivatives, with and without a weight, against the definition; and the same bits on
/// every instruction set.
fn agrees<F: Scalar>(steps: &Steps, length: usize, tolerance: f64) {
    let function = Function::new(steps.clone());
    let inputs: Vec<Vec<F>> = (1..4).map(|salt| numbers(length + 3, salt)).collect();
    let weight: Vec<F> = numbers(length + 3, 9);
    for start in [0, 3] {
        let inputs: Vec<&[F]> = inputs.iter().map(|input| &input[start..][..length]).collect();
        for weight in [None, Some(&weight[start..][..length])] {
            let outputs: [&[usize]; 4] = [&[], &[0], &[1], &[2]];
            let results = SETS.map(|isa| run(isa, &function, [&[&[]], &outputs], &inputs, weight, 0.5));
            let bits = |(sum, outputs): &(f64, Vec<Vec<F>>)| {
                let all = outputs.iter().flatten().map(|x| x.to_f64().to_bits());
                [sum.to_bits()].into_iter().chain(all).collect::<Vec<_>>()
            };
            for (isa, other) in SETS.iter().zip(&results).skip(1) {
                assert_eq!(bits(&results[0]), bits(other), "{isa:?} {steps:?}");
            }
            let (sum, outputs_found) = &results[0];
            let mut expected_sum = 0.0;
            let mut magnitude = 1.0;
            for i in 0..length {
                let at: Vec<f64> = inputs.iter().map(|input| input[i].to_f64()).collect();
                let w = weight.map_or(1.0, |weight| weight[i].to_f64());
                let times = |value: f64| if w == 0.0 { 0.0 } else { w * value };
                for (partial, found) in outputs.iter().zip(outputs_found) {
                    let (expected, found) = (times(function.defined(partial, &at)) * 0.5, found[i].to_f64());
                    assert!(
                        near(expected, found, tolerance),
                        "{partial:?} at {at:?}: {found}, not {expected}; {steps:?}"
                    );
                }
                let value = times(function.defined(&[], &at));
                expected_sum += value;
                magnitude += value.abs();
            }
            // NaN where both are infinite.
            let error = (sum - expected_sum).abs();
            assert!(
                expected_sum.is_nan() == sum.is_nan() && (error <= tolerance * magnitude || error.is_nan()),
                "the sum: {sum}, not {expected_sum}; {steps:?}"
            );
        }
    }
}

fn near(expected: f64, found: f64, tolerance: f64) -> bool {
    let error = (expected - found).abs();
    error <= tolerance * expected.abs().max(1.0) || expected.is_nan() && found.is_nan() || expected == found
}

#[test]
fn the_machine_computes_what_the_nodes_define() {
    // Rounding alone: 1e-11 allows for cancellation over a dozen steps.
    each(400, (steps(1..14), 1usize..80), |(steps, length)| agrees::<f64>(&steps, length, 1e-11));
}

#[test]
fn long_blocks_and_many_registers_are_no_limits() {
    each(8, (steps(60..90), 1100usize..1300), |(steps, length)| {
        // Bits alone over so many steps: what is close in one is not in the next.
        agrees::<f64>(&steps, length, f64::INFINITY);
    });
    // A value that is taken again after all others: as many registers as there are terms.
    #[derive(Clone, Debug)]
    struct Palindrome;
    impl Pointwise<1> for Palindrome {
        fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
            let terms: Vec<Expr<'e>> = (1..100).map(|k| (x + f64::from(k)).abs()).collect();
            let ahead = terms.iter().fold(x, |sum, &term| (sum + term) * 0.125);
            terms.iter().rev().fold(ahead, |sum, &term| (sum - term) * 0.125)
        }
    }
    let function = Function::new(Palindrome);
    assert!(function.program(None, &[&[]]).registers() > 90);
    let x: Vec<f64> = numbers(77, 1);
    let found = function.at(&[], &[&x]).unwrap();
    for (x, found) in x.into_iter().zip(found) {
        assert!(near(function.defined(&[], &[x]), found, 1e-13));
    }
}

/// A function of a kind, for tests of the rules.
#[derive(Clone, Debug)]
enum Known {
    Abs,
    Square,
    Charbonnier,
    Huber,
    Logits,
    Hinge,
    Clip,
    Max,
    Min,
    Sign,
    Leaky,
    Select,
    Root,
    Exp,
    Tanh,
    Quotient,
}

const KNOWN: [Known; 16] = [
    Known::Abs,
    Known::Square,
    Known::Charbonnier,
    Known::Huber,
    Known::Logits,
    Known::Hinge,
    Known::Clip,
    Known::Max,
    Known::Min,
    Known::Sign,
    Known::Leaky,
    Known::Select,
    Known::Root,
    Known::Exp,
    Known::Tanh,
    Known::Quotient,
];

impl Pointwise<2> for Known {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        let d = x - y;
        match self {
            Known::Abs => d.abs(),
            Known::Square => d.square(),
            Known::Charbonnier => (d.square() + 1e-6).sqrt(),
            Known::Huber => d.huber(0.7),
            Known::Logits => x.softplus() - x * y,
            Known::Hinge => (1.0 - d).relu(),
            Known::Clip => d.clip(-0.5, 0.6) * x,
            Known::Max => x.max(y) * x,
            Known::Min => x.min(y) * x,
            Known::Sign => d.sign() * d,
            Known::Leaky => d.leaky_relu(0.2) * x,
            Known::Select => d.if_not_positive(d.square(), d.exp()),
            Known::Root => d.square().sqrt(),
            Known::Exp => (d * 0.3).exp() + (x.square() + y.square() + 0.3).ln(),
            Known::Tanh => (x * y).tanh() * d.sigmoid(),
            Known::Quotient => x / (y.square() + 1.0),
        }
    }
}

/// Single precision against the definition, to a few of its roundings: no step here amplifies them.
#[test]
fn single_precision_is_as_close_as_its_rounding() {
    for known in &KNOWN {
        let function = Function::new(known.clone());
        let inputs: Vec<Vec<f32>> = (1..3).map(|salt| numbers(1000, salt)).collect();
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        for isa in SETS {
            for partial in [&[][..], &[0], &[1]] {
                let (_, outputs) = run(isa, &function, [&[], &[partial]], &inputs, None, 1.0);
                for (i, &found) in outputs[0].iter().enumerate() {
                    let at = [f64::from(inputs[0][i]), f64::from(inputs[1][i])];
                    let expected = function.defined(partial, &at);
                    assert!(
                        near(expected, found.into(), 2e-6),
                        "{known:?} {partial:?} {at:?}: {found}, not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn random_functions_have_the_same_bits_in_single_precision() {
    each(200, (steps(1..14), 1usize..700), |(steps, length)| agrees::<f32>(&steps, length, f64::INFINITY));
}

/// Derivatives of the orders one to three against central differences of the order below.
#[test]
fn derivatives_are_those_of_the_order_below() {
    // The truncation is h²/6 of a third derivative, the rounding ε/h.
    let (h, tolerance) = (1e-5, 1e-7);
    let mut compared = 0;
    for known in &KNOWN {
        let function = Function::new(known.clone());
        for partial in [&[0][..], &[1], &[0, 0], &[0, 1], &[1, 0], &[1, 1], &[0, 0, 0], &[0, 1, 1], &[1, 0, 1]] {
            let (below, &[by]) = partial.split_at(partial.len() - 1) else { panic!("a last one") };
            for at in [[0.31, -0.45], [-1.2, 0.77], [0.9, 0.41], [2.3, 0.2], [-0.11, -1.7]] {
                let moved = |step: f64| {
                    let mut at = at;
                    at[by] += step;
                    function.defined(below, &at)
                };
                let expected = (moved(h) - moved(-h)) / (2.0 * h);
                let found = function.at(partial, &[&[at[0]][..], &[at[1]]]).unwrap()[0];
                // Charbonnier's higher derivatives grow with 1/|d|: none of these is closer to its edge than 0.3.
                assert!(near(expected, found, tolerance), "{known:?} {partial:?} {at:?}: {found}, not {expected}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, KNOWN.len() * 9 * 5);
}

#[test]
fn nan_stays_nan_in_values_and_gradients() {
    let nan = f64::NAN;
    for known in &KNOWN {
        let function = Function::new(known.clone());
        for inputs in [[nan, 0.3], [0.3, nan], [nan, nan]] {
            for isa in SETS {
                let single = inputs.map(|x| x as f32);
                let (sum, outputs) =
                    run(isa, &function, [&[&[]], &[&[], &[0], &[1]]], &[&[single[0]][..], &[single[1]]], None, 1.0);
                assert!(sum.is_nan() && outputs[0][0].is_nan(), "{known:?} {inputs:?}");
                let (value, gradients) = (function.at(&[], &[&[inputs[0]][..], &[inputs[1]]]).unwrap(), &outputs[1..]);
                assert!(value[0].is_nan());
                // A gradient that does not depend on an input cannot show that it is NaN.
                let is_linear = |input: usize| match known {
                    Known::Logits => input == 1 && !inputs[0].is_nan() || input == 0 && inputs[0].is_nan(),
                    Known::Quotient => input == 0 && !inputs[1].is_nan(),
                    Known::Max | Known::Min => false,
                    _ => false,
                };
                for (input, gradient) in gradients.iter().enumerate() {
                    assert!(gradient[0].is_nan() || is_linear(input), "{known:?} {inputs:?} by {input}");
                }
            }
        }
    }
}

#[test]
fn a_weight_of_zero_takes_the_pixel_out() {
    for known in &KNOWN {
        let function = Function::new(known.clone());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            for length in [1, 32, 45, 600] {
                let mut x: Vec<f32> = numbers(length, 3);
                let y: Vec<f32> = numbers(length, 4);
                let mut weight = vec![1.0; length];
                let clean = x.clone();
                (x[length / 2], weight[length / 2]) = (bad, 0.0);
                for isa in SETS {
                    let run = |x: &[f32]| run(isa, &function, [&[&[]], &[&[0], &[1]]], &[x, &y], Some(&weight), 3.0);
                    let ((sum, outputs), expected) = (run(&x), run(&clean));
                    assert_eq!((sum, &outputs), (expected.0, &expected.1), "{known:?} {bad}");
                    assert_eq!(outputs[0][length / 2], 0.0);
                }
            }
        }
    }
}

#[test]
fn conventions_hold_at_ties() {
    /// A function of two numbers that may be equal.
    #[derive(Clone, Debug)]
    struct Tie(u8);
    impl Pointwise<2> for Tie {
        fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
            match self.0 {
                0 => x.max(y),
                1 => x.min(y),
                2 => (x - y).abs(),
                3 => (x - y).relu(),
                4 => (x - y).leaky_relu(0.25),
                5 => x.clip(-1.0, 1.0) + y,
                6 => (x - y).square().sqrt(),
                7 => (x - y).huber(1.0),
                8 => x.ln().relu() + y,
                9 => (x - y).if_zero((x - y) * 3.0, (x - y).ln()),
                _ => (x - y).sqrt() + (x - y).if_not_positive(x * 0.0, x.ln()),
            }
        }
    }
    let gradients = |which: u8, x: f64, y: f64| {
        let function = Function::new(Tie(which));
        [0, 1].map(|input| function.at(&[input], &[&[x][..], &[y]]).unwrap()[0])
    };
    assert_eq!(gradients(0, 0.5, 0.5), [0.0, 1.0]);
    assert_eq!(gradients(0, f64::INFINITY, f64::INFINITY), [0.0, 1.0]);
    assert_eq!(gradients(1, 0.5, 0.5), [1.0, 0.0]);
    assert_eq!(gradients(2, 0.5, 0.5), [0.0, 0.0]);
    assert_eq!(gradients(3, 0.5, 0.5), [0.0, 0.0]);
    assert_eq!(gradients(4, 0.5, 0.5), [0.25, -0.25]);
    assert_eq!(gradients(5, -1.0, 0.0), [0.0, 1.0]);
    assert_eq!(gradients(5, 1.0, 0.0), [0.0, 1.0]);
    assert_eq!(gradients(5, 0.9, 0.0), [1.0, 1.0]);
    assert_eq!(gradients(6, 0.5, 0.5), [0.0, 0.0]);
    assert_eq!(gradients(7, 1.5, 0.5), [1.0, -1.0]);
    // The branch not taken is infinite.
    assert_eq!(gradients(8, 0.0, 0.0), [0.0, 1.0]);
    assert_eq!(gradients(9, 0.5, 0.5), [3.0, -3.0]);
    assert_eq!(gradients(10, 0.0, 0.0), [0.0, 0.0]);
    // The root's second and third derivatives at 0.
    let root = Function::new(Tie(6));
    assert_eq!(root.at(&[0, 0], &[&[0.5][..], &[0.5]]).unwrap(), [0.0]);
    assert_eq!(root.at(&[0, 0, 1], &[&[0.5][..], &[0.5]]).unwrap(), [0.0]);
}

#[test]
fn a_function_made_again_is_the_same_one() {
    let (a, b) = (Function::new(Known::Abs), Function::new(Known::Abs));
    let program = a.program(Some(&[]), &[&[0]]);
    assert!(std::sync::Arc::ptr_eq(&program, &b.program(Some(&[]), &[&[0]])));
    assert!(!std::sync::Arc::ptr_eq(&program, &b.program(Some(&[]), &[&[1]])));
}

#[test]
fn common_programs_take_few_loops() {
    let loops = |known: Known| Function::new(known).program(Some(&[]), &[&[0]]).instructions().len();
    // What the speed of these losses rests on.
    assert_eq!(loops(Known::Abs), 1);
    assert_eq!(loops(Known::Square), 1);
    assert_eq!(loops(Known::Charbonnier), 1);
    assert_eq!(loops(Known::Hinge), 3);
    assert_eq!(loops(Known::Huber), 1);
    assert_eq!(loops(Known::Logits), 4);
}
