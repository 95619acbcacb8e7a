//! What a loss is: its options, its name, its inputs and its formula.

use std::fmt::Debug;

use image_losses_kernels::check_length;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Configurable;
use crate::kernels::Array;
use crate::reduction::fused;
use crate::{Expr, Function, Pointwise, Reducer, Reduction, Result, Scalar, Tensor, finite};

/// A loss as its own options: a structure with public fields, which serde reads from a configuration.
///
/// What a constructor would say stands here instead, so that everything which must know a loss's name or formula (the
/// registry of configurations, their schema, lists of losses) reads it from the type. A loss over a network, whose
/// construction reads a checkpoint, keeps a constructor beside.
pub trait Declared: Clone + Debug + Send + Sync + 'static {
    /// Its `type` in a configuration: MMagic's name, where the loss is MMagic's.
    const NAME: &'static str;
    /// Other `type`s that build the same loss.
    const ALIASES: &'static [&'static str] = &[];
    /// The name of its term in a training step. `None`: made of the name, as `loss_l1` of `L1Loss`.
    const TERM: Option<&'static str> = None;
    /// Summary, formula and source.
    const ABOUT: About = About { summary: "", formula: "", source: "" };

    /// Refuses options out of range: called where a loss is built from data, and by every evaluation.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption).
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// A loss in three lines, for lists of losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// One sentence.
    pub summary: &'static str,
    /// One formula a line.
    pub formula: &'static str,
    /// Who defined it.
    pub source: &'static str,
}

/// A tensor that a loss takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its name, as MMagic's argument.
    pub name: &'static str,
    /// It has one channel, (N, 1, …), that all channels of the others share.
    pub per_pixel: bool,
}

impl Input {
    /// An input of the full shape.
    pub const fn full(name: &'static str) -> Self {
        Input { name, per_pixel: false }
    }

    /// An input with one channel.
    pub const fn per_pixel(name: &'static str) -> Self {
        Input { name, per_pixel: true }
    }

    /// `pred`, `target` and then `input2`, `input3`, …: up to eight inputs of the full shape.
    pub const fn usual<const K: usize>() -> [Input; K] {
        const NAMES: [&str; 8] = ["pred", "target", "input2", "input3", "input4", "input5", "input6", "input7"];
        let mut inputs = [Input::full("pred"); K];
        let mut k = 0;
        while k < K {
            inputs[k] = Input::full(NAMES[k]);
            k += 1;
        }
        inputs
    }
}

/// A value, and the gradients by the inputs that were asked for, each in its input's shape.
pub type ValueAndGradients<F, const K: usize> = (F, [Option<Vec<F>>; K]);

/// A loss of `K` tensors and an optional weight, on any engine.
///
/// ```
/// use image_losses_core::{Declared, Input, Loss, Result, Tensor, same_shape};
/// use serde::{Deserialize, Serialize};
///
/// /// λ · mean over the samples of (mean x − mean y)².
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// pub struct BrightnessLoss { pub loss_weight: f64 }
///
/// impl Declared for BrightnessLoss { const NAME: &'static str = "BrightnessLoss"; }
///
/// impl Loss<2> for BrightnessLoss {
///     fn forward<T: Tensor>(&self, [pred, target]: [&T; 2], _: Option<&T>) -> Result<T> {
///         same_shape(Self::NAME, ["pred", "target"], [pred, target])?;
///         let brighter = pred.sub(target)?.mean(&[1, 2, 3], false)?;
///         brighter.mul(&brighter)?.mean_all()?.scale(self.loss_weight)
///     }
/// }
/// ```
pub trait Loss<const K: usize>: Declared {
    /// Its inputs.
    const TAKES: [Input; K] = Input::usual();
    /// The name of its weight; `None`: it takes none.
    const WEIGHT: Option<&'static str> = None;

    /// The loss of `inputs`, weighted by `weight` (its shape and meaning are the loss's own).
    ///
    /// # Errors
    /// Shape errors where the tensors do not fit each other; those of [`check`](Declared::check).
    fn forward<T: Tensor>(&self, inputs: [&T; K], weight: Option<&T>) -> Result<T>;

    /// The value and the gradients by the inputs that are wanted, in one pass over slices without a record, where the loss
    /// has such a form: [`PointwiseLoss`] has.
    fn fused<F: Scalar>(
        &self,
        inputs: [Array<'_, F>; K],
        weight: Option<Array<'_, F>>,
        wanted: [bool; K],
    ) -> Option<Result<ValueAndGradients<F, K>>> {
        let _ = (inputs, weight, wanted);
        None
    }

    /// As [`fused`](Loss::fused), with the gradients written to memory of the caller's.
    fn fused_into<F: Scalar>(
        &self,
        inputs: [Array<'_, F>; K],
        weight: Option<Array<'_, F>>,
        gradients: [Option<&mut [F]>; K],
    ) -> Option<Result<F>> {
        let _ = (inputs, weight, gradients);
        None
    }
}

/// A loss that is a pointwise function of `K` tensors and a weighted reduction.
///
/// The author gives the function and the reduction; weights, every engine, the fused kernels and gradients follow:
/// [`Loss`] is implemented for every pointwise loss.
///
/// ```
/// use image_losses_core::{Declared, Expr, Pointwise, PointwiseLoss, Reducer};
///
/// /// ln(1 + (x − y)²), its mean.
/// #[derive(Clone, Debug)]
/// struct CauchyLoss;
///
/// impl Declared for CauchyLoss { const NAME: &'static str = "CauchyLoss"; }
///
/// impl Pointwise<2> for CauchyLoss {
///     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> { ((x - y).square() + 1.0).ln() }
/// }
///
/// impl PointwiseLoss<2> for CauchyLoss {
///     fn reducer(&self) -> Reducer { Reducer::default() }
/// }
/// ```
///
/// Without fields for the reduction: [`Reduced`].
pub trait PointwiseLoss<const K: usize>: Pointwise<K> + Declared {
    /// Its inputs.
    const INPUTS: [Input; K] = Input::usual();

    /// How the map is reduced.
    fn reducer(&self) -> Reducer;

    /// The value and the gradients of a mean or a sum, in closed form: one fused pass over CPU slices, no engine.
    ///
    /// `wanted` says for which inputs a gradient is computed; each comes in its input's shape.
    ///
    /// # Errors
    /// Shape errors as for [`Loss::forward`]; [`Error::InvalidOption`](crate::Error::InvalidOption) for the reduction
    /// `none`, which has no single value.
    fn value_and_gradients<F: Scalar>(
        &self,
        inputs: [Array<'_, F>; K],
        weight: Option<Array<'_, F>>,
        wanted: [bool; K],
    ) -> Result<ValueAndGradients<F, K>> {
        fused(self, inputs, weight, |map| {
            let positions: Vec<usize> = (0..K).filter(|&input| wanted[input]).collect();
            let (value, gradients) = map.sum_and_gradients(&positions);
            let mut by_input = [const { None }; K];
            for (input, gradient) in positions.into_iter().zip(gradients) {
                by_input[input] = Some(gradient);
            }
            Ok((F::from_f64(value), by_input))
        })
    }

    /// The value; the gradients asked for are written to memory of the caller's, which a training loop can use again
    /// and again.
    ///
    /// # Errors
    /// As [`value_and_gradients`](PointwiseLoss::value_and_gradients), and [`Error::Length`](crate::Error::Length) where
    /// a gradient has not its input's number of elements.
    fn value_and_gradients_into<F: Scalar>(
        &self,
        inputs: [Array<'_, F>; K],
        weight: Option<Array<'_, F>>,
        gradients: [Option<&mut [F]>; K],
    ) -> Result<F> {
        for (gradient, input) in gradients.iter().zip(&inputs) {
            if let Some(gradient) = gradient {
                check_length("value_and_gradients_into", gradient.len(), input.shape)?;
            }
        }
        fused(self, inputs, weight, |map| {
            let targets = gradients.into_iter().enumerate().filter_map(|(input, target)| Some((input, target?)));
            Ok(F::from_f64(map.sum_and_gradients_into(targets.collect())))
        })
    }
}

impl<const K: usize, L: PointwiseLoss<K>> Loss<K> for L {
    const TAKES: [Input; K] = L::INPUTS;
    const WEIGHT: Option<&'static str> = Some("weight");

    fn forward<T: Tensor>(&self, inputs: [&T; K], weight: Option<&T>) -> Result<T> {
        self.check()?;
        self.reducer().reduce(Self::NAME, &Function::new(self.clone()), &L::INPUTS, &inputs, weight)
    }

    fn fused<F: Scalar>(
        &self,
        inputs: [Array<'_, F>; K],
        weight: Option<Array<'_, F>>,
        wanted: [bool; K],
    ) -> Option<Result<ValueAndGradients<F, K>>> {
        Some(self.value_and_gradients(inputs, weight, wanted))
    }

    fn fused_into<F: Scalar>(
        &self,
        inputs: [Array<'_, F>; K],
        weight: Option<Array<'_, F>>,
        gradients: [Option<&mut [F]>; K],
    ) -> Option<Result<F>> {
        Some(self.value_and_gradients_into(inputs, weight, gradients))
    }
}

/// A pointwise function with the options of a weighted reduction: a [`PointwiseLoss`] of which only the function was
/// written.
///
/// ```
/// use image_losses_core::{Declared, Expr, Loss, Pointwise, Reduced};
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// /// ln(1 + ((x − y)/γ)²)
/// #[derive(Clone, Debug)]
/// struct Cauchy { gamma: f64 }
///
/// impl Declared for Cauchy { const NAME: &'static str = "CauchyLoss"; }
///
/// impl Pointwise<2> for Cauchy {
///     fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> { (((x - y) / self.gamma).square() + 1.0).ln() }
/// }
///
/// let loss = Reduced { loss_weight: 3.0, ..Reduced::new(Cauchy { gamma: 2.0 }) };
/// let (pred, target) = (NdTensor::new(array![[3.0f64, 1.0]]), NdTensor::new(array![[1.0f64, 1.0]]));
/// let value = loss.forward([&pred, &target], None)?.item()?;
/// assert_eq!(value, 1.5 * 2f64.ln()); // d = 2 = γ at one of two elements
/// # Ok::<(), image_losses_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reduced<P> {
    /// The function, with its own options.
    pub function: P,
    /// λ, multiplies the result.
    pub loss_weight: f64,
    /// None, mean or sum.
    pub reduction: Reduction,
    /// Average each sample by its own weights first; acts with `mean` and a weight.
    pub sample_wise: bool,
}

impl<P> Reduced<P> {
    /// The mean of the function.
    pub fn new(function: P) -> Self {
        let Reducer { loss_weight, reduction, sample_wise } = Reducer::default();
        Reduced { function, loss_weight, reduction, sample_wise }
    }
}

impl<P: Declared> Declared for Reduced<P> {
    const NAME: &'static str = P::NAME;
    const ALIASES: &'static [&'static str] = P::ALIASES;
    const TERM: Option<&'static str> = P::TERM;
    const ABOUT: About = P::ABOUT;

    fn check(&self) -> Result<()> {
        finite(P::NAME, "loss_weight", self.loss_weight)?;
        self.function.check()
    }
}

impl<P: Pointwise<K>, const K: usize> Pointwise<K> for Reduced<P> {
    fn value<'e>(&self, inputs: [Expr<'e>; K]) -> Expr<'e> {
        self.function.value(inputs)
    }
}

impl<P: Pointwise<K> + Declared, const K: usize> PointwiseLoss<K> for Reduced<P> {
    fn reducer(&self) -> Reducer {
        let Reduced { loss_weight, reduction, sample_wise, .. } = *self;
        Reducer { loss_weight, reduction, sample_wise }
    }
}

/// Options with a JSON Schema, where schemas are enabled; else any options.
#[cfg(feature = "schema")]
pub trait Described: schemars::JsonSchema {}
#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> Described for T {}
/// Options with a JSON Schema, where schemas are enabled; else any options.
#[cfg(not(feature = "schema"))]
pub trait Described {}
#[cfg(not(feature = "schema"))]
impl<T> Described for T {}

/// Sees every loss of a family by its type: what a list of losses is made by. Each family has one function `every`.
pub trait Visitor {
    /// A loss of `K` tensors.
    fn loss<L: Loss<K> + Serialize + DeserializeOwned + Described, const K: usize>(&mut self);
    /// A loss that is called by named arguments.
    fn configurable<L: Configurable + Described>(&mut self);
}
