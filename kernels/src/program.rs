//! Programs of the block machine: pointwise functions as straight lines of instructions.

use std::fmt::Debug;
use std::sync::Arc;

/// A function of one tensor, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// |x|; derivative 0 at 0.
    Abs,
    /// sign(x); derivative 0.
    Sign,
    /// x².
    Square,
    /// √x.
    Sqrt,
    /// eˣ.
    Exp,
    /// Natural logarithm.
    Ln,
    /// Hyperbolic tangent.
    Tanh,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
    /// ln(1 + eˣ), without overflow.
    Softplus,
    /// −ln(1 + e⁻ˣ), without overflow: the logarithm of the sigmoid.
    LogSigmoid,
    /// max(0, x); derivative 0 at 0, NaN at NaN.
    Relu,
}

/// A comparison of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// ≤
    AtMost,
    /// <
    Below,
    /// =
    Equal,
}

/// The position of a block: an input's, a constant's or a register's, in this order.
pub type Slot = u32;

/// What one instruction does with every element of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Of one operand.
    Unary(Unary),
    /// 1/x
    Reciprocal,
    /// Both results: they share an exponential.
    SoftplusSigmoid,
    /// x + y
    Add,
    /// x − y
    Sub,
    /// x·y
    Mul,
    /// x/y
    Div,
    /// max(x, y), NaN where either is.
    Max,
    /// min(x, y), NaN where either is.
    Min,
    /// x + c
    Shift,
    /// x·c
    Scale,
    /// x·c + d
    Affine,
    /// The Huber function, of width c.
    Huber,
    /// x, and x·c where x ≤ 0.
    LeakyRelu,
    /// x clipped to [c, d].
    Clip,
    /// The third operand where the test of the first two holds, else the fourth; NaN where one of the first two is NaN.
    Select(Test),
    /// √(x² + c)
    Hypotenuse,
    /// x·y + z, rounded twice
    MulAdd,
    /// To the sum.
    Sum(Summand),
    /// √(x² + c), to the sum too.
    SumHypotenuse,
    /// To an output, times c.
    Store(u32, Stored),
    /// A value to the sum and its derivative times c to an output: of x, or of x − y.
    SumAndStore {
        /// The output.
        output: u32,
        /// What is summed.
        summand: Summand,
        /// Whether of x − y.
        of_difference: bool,
    },
}

impl Operation {
    /// How many operands and results it has.
    fn arity(self) -> [usize; 2] {
        match self {
            Operation::Unary(_)
            | Operation::Reciprocal
            | Operation::Shift
            | Operation::Scale
            | Operation::Affine
            | Operation::Huber
            | Operation::LeakyRelu
            | Operation::Clip
            | Operation::Hypotenuse
            | Operation::SumHypotenuse => [1, 1],
            Operation::SoftplusSigmoid => [1, 2],
            Operation::Add | Operation::Sub | Operation::Mul | Operation::Div | Operation::Max | Operation::Min => {
                [2, 1]
            }
            Operation::Select(_) => [4, 1],
            Operation::MulAdd => [3, 1],
            Operation::Sum(Summand::Difference) => [2, 0],
            Operation::Sum(_) => [1, 0],
            Operation::Store(_, Stored::Difference | Stored::Quotient | Stored::Product) => [2, 0],
            Operation::Store(..) => [1, 0],
            // A quotient's divisor is what was summed.
            Operation::SumAndStore { of_difference, .. } => [1 + usize::from(of_difference), 0],
        }
    }

    /// The output that it stores to.
    fn output(self) -> Option<u32> {
        match self {
            Operation::Store(output, _) | Operation::SumAndStore { output, .. } => Some(output),
            _ => None,
        }
    }
}

/// What of its operand an instruction adds to the sum; where it stores too, the derivative, or for the square its half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Summand {
    /// x
    Value,
    /// |x|
    Abs,
    /// x²
    Square,
    /// max(0, x)
    Relu,
    /// The Huber function, of width d.
    /// The Huber function, of width c.
    Huber,
    /// √(x² + d)
    Hypotenuse,
    /// x − y
    Difference,
}

/// What of its operands an instruction stores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stored {
    /// x
    Value,
    /// sign(x)
    Sign,
    /// 1 where x > 0, else 0.
    Step,
    /// x + d
    Shift,
    /// x clipped to ±d.
    /// x clipped to [c, d].
    Clip,
    /// x − y
    Difference,
    /// x/y
    Quotient,
    /// x·y
    Product,
}

/// An instruction on operands of kind `O`: in a program, [`Slot`]s.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction<O> {
    /// What it does.
    pub operation: Operation,
    /// What it takes.
    pub operands: Vec<O>,
    /// Where its results go.
    pub results: Vec<O>,
    /// c and d.
    pub constants: [f64; 2],
}

/// A straight line of instructions that computes a sum, outputs, or both.
#[derive(Debug)]
pub struct Program {
    inputs: usize,
    outputs: usize,
    sums: bool,
    constants: Vec<f64>,
    registers: usize,
    instructions: Vec<Instruction<Slot>>,
}

impl Program {
    /// The instructions with the number of inputs, outputs and registers, and the values of the constants' slots; `sums` says
    /// whether there is a sum.
    ///
    /// # Panics
    /// If an instruction has not its operation's number of operands and results, or names a slot or an output that is not
    /// there, or a result that is no register.
    pub fn new(
        [inputs, outputs, registers]: [usize; 3],
        sums: bool,
        constants: Vec<f64>,
        instructions: Vec<Instruction<Slot>>,
    ) -> Self {
        // The machine writes results through the slots' pointers: those of registers, never of inputs.
        let first = inputs + constants.len();
        for Instruction { operation, operands, results, .. } in &instructions {
            assert_eq!([operands.len(), results.len()], operation.arity(), "the operands and results of {operation:?}");
            assert!(operands.iter().all(|&slot| (slot as usize) < first + registers), "an operand that is not there");
            let is_register = |&slot: &Slot| (first..first + registers).contains(&(slot as usize));
            assert!(results.iter().all(is_register), "a result outside the registers");
            assert!(operation.output().is_none_or(|output| (output as usize) < outputs), "an output that is not there");
        }
        Program { inputs, outputs, sums, constants, registers, instructions }
    }

    /// The number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }
    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
    /// Whether there is a sum.
    pub fn sums(&self) -> bool {
        self.sums
    }
    /// The values of the constants' slots.
    pub fn constants(&self) -> &[f64] {
        &self.constants
    }
    /// The number of registers.
    pub fn registers(&self) -> usize {
        self.registers
    }
    /// The instructions, in order.
    pub fn instructions(&self) -> &[Instruction<Slot>] {
        &self.instructions
    }
}

/// What programs are made of: a pointwise function with its derivatives.
pub trait Programs: Debug + Send + Sync {
    /// The program for a sum and outputs, each a partial derivative by the inputs listed (none: the value).
    fn program(&self, sum: Option<&[usize]>, outputs: &[&[usize]]) -> Arc<Program>;
}
