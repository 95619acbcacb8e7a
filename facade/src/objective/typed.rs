//! Objectives written in a program: losses by their types, outputs as the tensors of a training loop.

use std::fmt::Debug;
use std::marker::PhantomData;

use image_losses_core::config::{Configurable, Processes};
use image_losses_core::{Declared, Error, Loss, Pointwise, Reduced, Result, Side};
#[cfg(feature = "perceptual")]
use image_losses_perceptual::Frozen;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Builder, KEYS, Objective, Report};
use crate::AnyTensor;
use crate::config::fields::refuse;
use crate::config::{BuildContext, Component, Entry, Inputs, Item, Registry, seed_at};

/// A tensor as a training loop has it: an engine's that has values at hand, or `tch::Tensor` itself.
pub trait EngineTensor<'g>: Sized {
    /// The same tensor for a loss; nothing is copied.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a tensor that its engine does not take (undefined, of whole numbers).
    fn to_any(&self) -> Result<AnyTensor<'g>>;
    /// The tensor back.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a tensor of another engine or element type.
    fn from_any(tensor: AnyTensor<'g>) -> Result<Self>;
}

impl<'g> EngineTensor<'g> for AnyTensor<'g> {
    fn to_any(&self) -> Result<AnyTensor<'g>> {
        Ok(self.clone())
    }
    fn from_any(tensor: AnyTensor<'g>) -> Result<Self> {
        Ok(tensor)
    }
}

/// The tensor is another engine's.
#[cfg(any(feature = "ndarray", feature = "tch"))]
fn other(tensor: &AnyTensor<'_>) -> Error {
    Error::Unsupported { operation: "a tensor of another engine or element type", engine: tensor.engine() }
}

#[cfg(feature = "ndarray")]
macro_rules! arrays {
    ($($element:ty => $variant:ident),*) => {$(
        impl<'g> EngineTensor<'g> for image_losses_ndarray::NdTensor<'g, $element> {
            fn to_any(&self) -> Result<AnyTensor<'g>> {
                Ok(self.clone().into())
            }
            fn from_any(tensor: AnyTensor<'g>) -> Result<Self> {
                match tensor {
                    AnyTensor::$variant(tensor) => Ok(tensor),
                    tensor => Err(other(&tensor)),
                }
            }
        }
    )*};
}
#[cfg(feature = "ndarray")]
arrays!(f32 => NdF32, f64 => NdF64);

#[cfg(feature = "tch")]
impl<'g> EngineTensor<'g> for image_losses_tch::tch::Tensor {
    fn to_any(&self) -> Result<AnyTensor<'g>> {
        image_losses_tch::TchTensor::new(self).map(AnyTensor::Tch)
    }
    #[allow(unreachable_patterns, reason = "tch may be the only engine")]
    fn from_any(tensor: AnyTensor<'g>) -> Result<Self> {
        match tensor {
            AnyTensor::Tch(tensor) => Ok(tensor.into_tensor()),
            tensor => Err(other(&tensor)),
        }
    }
}

/// The outputs of a training step by name: what an objective's losses take.
///
/// Tensors are given by reference, networks as closures or, with tch, as modules. A tensor that its engine does not take is
/// reported by [`Objective::step`].
#[derive(Debug)]
pub struct Outputs<'a, 'g, T> {
    inputs: Inputs<'a, AnyTensor<'g>>,
    error: Option<Error>,
    tensors: PhantomData<fn(T) -> T>,
}

impl<T> Default for Outputs<'_, '_, T> {
    fn default() -> Self {
        Outputs { inputs: Inputs::new(), error: None, tensors: PhantomData }
    }
}

impl<'a, 'g: 'a, T: EngineTensor<'g> + 'a> Outputs<'a, 'g, T> {
    /// No outputs yet.
    pub fn new() -> Self {
        Outputs::default()
    }

    /// Adds a tensor.
    #[must_use]
    pub fn tensor(mut self, name: impl Into<String>, tensor: &T) -> Self {
        match tensor.to_any() {
            Ok(tensor) => self.inputs.insert(name, Item::Tensor(tensor)),
            Err(error) => self.refuse(name, error),
        }
        self
    }

    /// Adds several tensors under one name: feature maps, scores at several scales.
    #[must_use]
    pub fn tensors(mut self, name: impl Into<String>, tensors: &[T]) -> Self {
        match tensors.iter().map(T::to_any).collect() {
            Ok(tensors) => self.inputs.insert(name, Item::Tensors(tensors)),
            Err(error) => self.refuse(name, error),
        }
        self
    }

    /// Adds a network.
    #[must_use]
    pub fn network(mut self, name: impl Into<String>, network: impl Fn(&T) -> Result<T> + 'a) -> Self {
        self.inputs = self.inputs.network(name, move |x: &AnyTensor<'g>| network(&T::from_any(x.clone())?)?.to_any());
        self
    }

    /// Adds a number, such as `iteration`.
    #[must_use]
    pub fn number(mut self, name: impl Into<String>, number: f64) -> Self {
        self.inputs.insert(name, Item::Number(number));
        self
    }

    /// Adds rows of token ids.
    #[must_use]
    pub fn tokens(mut self, name: impl Into<String>, tokens: Vec<Vec<u32>>) -> Self {
        self.inputs.insert(name, Item::Tokens(tokens));
        self
    }

    /// Adds the processes that train together.
    #[must_use]
    pub fn processes(mut self, name: impl Into<String>, processes: Processes<'a, AnyTensor<'g>>) -> Self {
        self.inputs.insert(name, Item::Processes(processes));
        self
    }

    /// Keeps the first error, with the output's name.
    fn refuse(&mut self, name: impl Into<String>, error: Error) {
        self.error.get_or_insert(error.at(name.into()));
    }
}

#[cfg(feature = "tch")]
impl<'a> Outputs<'a, 'a, image_losses_tch::tch::Tensor> {
    /// Adds a network that is a module of tch. One that tells training from evaluation is given as a closure
    /// ([`network`](Outputs::network)).
    #[must_use]
    pub fn module(self, name: impl Into<String>, module: &'a impl image_losses_tch::tch::nn::Module) -> Self {
        self.network(name, |x| Ok(module.forward(x)))
    }
}

/// A loss that an [`ObjectiveBuilder`] takes: of tensors, of named arguments, over a frozen network, or a pointwise function
/// with its reduction. `Kind` is found by the compiler.
pub trait IntoLoss<Kind>: Declared {
    /// The loss with what it remembers at the start; random draws start from the seed.
    #[doc(hidden)]
    fn into_loss(self, seed: u64) -> Erased;
}

/// A loss whose type is erased.
#[doc(hidden)]
#[derive(Debug)]
pub struct Erased(pub(crate) Entry, pub(crate) Box<dyn crate::config::ErasedLoss>);

/// Marks of [`IntoLoss`].
#[doc(hidden)]
pub mod kind {
    /// A loss of `K` tensors.
    #[derive(Debug)]
    pub struct OfTensors<const K: usize>;
    /// A pointwise function of `K` tensors.
    #[derive(Debug)]
    pub struct OfFunction<const K: usize>;
    /// A loss of named arguments.
    #[derive(Debug)]
    pub struct OfArguments;
    /// A loss over a frozen network.
    #[derive(Debug)]
    pub struct OverNetwork;
}

impl<L: Loss<K> + Serialize + DeserializeOwned, const K: usize> IntoLoss<kind::OfTensors<K>> for L {
    fn into_loss(self, _: u64) -> Erased {
        Erased(Entry::loss::<L, K>(), crate::config::of_tensors::<L, K>(self))
    }
}

impl<P, const K: usize> IntoLoss<kind::OfFunction<K>> for Reduced<P>
where
    P: Pointwise<K> + Declared + Serialize + DeserializeOwned,
{
    fn into_loss(self, _: u64) -> Erased {
        Erased(Entry::function::<P, K>(), crate::config::of_function::<P, K>(self))
    }
}

impl<L: Configurable> IntoLoss<kind::OfArguments> for L {
    fn into_loss(self, seed: u64) -> Erased {
        Erased(Entry::of::<L>(), crate::config::of_arguments(self, seed))
    }
}

#[cfg(feature = "perceptual")]
impl<L: Frozen> IntoLoss<kind::OverNetwork> for L {
    fn into_loss(self, _: u64) -> Erased {
        Erased(Entry::frozen::<L>(), crate::config::over_network(self))
    }
}

type Start = Box<dyn FnOnce(u64) -> Result<Erased>>;

/// A loss with its place in an objective to be built.
struct Planned {
    /// Whose term it is; `None` for the adversarial loss, which is both sides'.
    side: Option<Side>,
    name: String,
    loss: Start,
    takes: Vec<(String, String)>,
}

/// Builds an [`Objective`] from losses.
///
/// Each loss has the name of its term, unique in the objective, and pairs (argument of the loss, name of the output): what an
/// optional argument is taken from may be left out, and all pairs where each output has its argument's name. Every loss counts
/// in the total, whatever its name.
///
/// ```
/// use image_losses::ndarray::NdTensor;
/// use image_losses::objective::{Objective, Outputs};
/// use image_losses::prelude::*;
/// use ndarray::array;
///
/// let mut objective = Objective::builder()
///     .generator("pixel", L1Loss { loss_weight: 2.0, ..Default::default() }, [("pred", "out"), ("target", "real")])
///     .generator("smooth", TvLoss::default(), [("input", "out")])
///     .build()?;
/// let out = NdTensor::new(array![[[[1.0f64, 1.0]]]]).leaf()?;
/// let real = NdTensor::new(array![[[[1.0f64, 2.0]]]]);
/// let outputs = Outputs::new().tensor("out", &out).tensor("real", &real);
/// let (report, gradients) =
///     objective.step(Side::Generator, &outputs, |total| NdTensor::gradients(total, &[&out], false))?;
/// let gradient = gradients.and_then(|mut gradients| gradients.remove(0)).map(|gradient| gradient.into_array());
/// assert_eq!(gradient, Some(array![[[[0.0, -1.0]]]].into_dyn()));
/// assert_eq!(report.to_string(), "total 1.000000, pixel 1.000000 (weight 2), smooth 0.000000");
/// # Ok::<(), image_losses::Error>(())
/// ```
#[derive(Default)]
pub struct ObjectiveBuilder {
    losses: Vec<Planned>,
    seed: u64,
}

impl Debug for ObjectiveBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.losses.iter().map(|loss| &loss.name)).finish()
    }
}

impl ObjectiveBuilder {
    /// The adversarial loss, which is both sides', of what the network `critic` says of the outputs `fake` and `real`: a
    /// [`GanLoss`](image_losses_gan::GanLoss) in the terms `loss_disc_fake`, `loss_disc_real` and `loss_gen`, one of pairs in
    /// `loss_disc` and `loss_gen`. The discriminator's step takes `fake` as a constant.
    #[must_use]
    pub fn adversarial<Kind>(self, loss: impl IntoLoss<Kind> + 'static, critic: &str, [fake, real]: [&str; 2]) -> Self {
        let made_of = [("critic", critic), ("fake", fake), ("real", real)];
        self.plan(None, KEYS[0], loss, owned(made_of))
    }

    /// The same of scores that are outputs of the step: `disc_pred_fake` and `disc_pred_real` for the discriminator,
    /// `disc_pred_fake_g` (and `disc_pred_real_g`, where the loss takes pairs) for the generator.
    #[must_use]
    pub fn adversarial_scores<Kind>(self, loss: impl IntoLoss<Kind> + 'static) -> Self {
        self.plan(None, KEYS[0], loss, Vec::new())
    }

    /// A loss of the discriminator's step.
    #[must_use]
    pub fn discriminator<Kind, const N: usize>(
        self,
        name: &str,
        loss: impl IntoLoss<Kind> + 'static,
        takes: [(&str, &str); N],
    ) -> Self {
        self.plan(Some(Side::Discriminator), name, loss, owned(takes))
    }

    /// A loss of the generator's step, or of the only one.
    #[must_use]
    pub fn generator<Kind, const N: usize>(
        self,
        name: &str,
        loss: impl IntoLoss<Kind> + 'static,
        takes: [(&str, &str); N],
    ) -> Self {
        self.plan(Some(Side::Generator), name, loss, owned(takes))
    }

    /// The seed of random draws (a penalty's α, the noise of path lengths); each loss mixes its name into it. Default: 0.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        ObjectiveBuilder { seed, ..self }
    }

    fn plan<Kind, L: IntoLoss<Kind> + 'static>(
        mut self,
        side: Option<Side>,
        name: &str,
        loss: L,
        takes: Vec<(String, String)>,
    ) -> Self {
        let loss: Start = Box::new(|seed| {
            loss.check()?;
            Ok(loss.into_loss(seed))
        });
        self.losses.push(Planned { side, name: name.to_owned(), loss, takes });
        self
    }

    /// The objective.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a loss with an option out of range, [`Error::UnknownName`] for an argument that a loss does
    /// not take, [`Error::MissingKey`] where one that it needs has no output, [`Error::Config`] for two losses of one name, for
    /// none, and for an adversarial loss that takes neither scores nor pairs; each with the loss's name.
    pub fn build(self) -> Result<Objective> {
        let (registry, context) = (Registry::empty(), BuildContext { draws: self.seed, ..BuildContext::default() });
        let mut parts = Builder::new(&registry, "", &context);
        let mut sides: [Vec<Value>; 2] = Default::default();
        let mut adversarial = Value::Null;
        for Planned { side, name, loss, takes } in self.losses {
            if parts.places.contains(&name) {
                return Err(refuse(&name, "another loss has this name"));
            }
            let erased = loss(seed_at(self.seed, &name)).map_err(|error| error.at(&name))?;
            let Some(side) = side else {
                let made_of = match &takes[..] {
                    [(_, critic), (_, fake), (_, real)] => Some([critic.as_str(), fake, real]),
                    _ => None,
                };
                let loss = Component::typed(erased, &name, None, &context)?;
                adversarial = parts.adversarial_built(loss, &name, made_of)?;
                continue;
            };
            let loss = Component::typed(erased, &name, Some(takes), &context)?;
            let value = parts.built(side, loss, name, None, true)?;
            sides[usize::from(side == Side::Generator)].push(value);
        }
        let lists = sides.into_iter().map(Value::Array);
        let value: Map<String, Value> =
            KEYS.into_iter().map(str::to_owned).zip(std::iter::once(adversarial).chain(lists)).collect();
        parts.finish(Value::Object(value))
    }
}

fn owned<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.into_iter().map(|(argument, output)| (argument.to_owned(), output.to_owned())).collect()
}

/// What descending on a total gives ([`Objective::step`]): nothing, or a result.
pub trait Descended {
    /// What is handed on.
    type Given;
    /// It, or the error.
    ///
    /// # Errors
    /// That of the result.
    fn into_result(self) -> Result<Self::Given>;
}

impl Descended for () {
    type Given = ();
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl<R> Descended for Result<R> {
    type Given = R;
    fn into_result(self) -> Result<R> {
        self
    }
}

impl Objective {
    /// An objective of losses by their types.
    pub fn builder() -> ObjectiveBuilder {
        ObjectiveBuilder::default()
    }

    /// One side of a training step: evaluates its losses, hands the total to `descend` (which differentiates it and moves the
    /// parameters), and lets the losses remember what they must. [`ObjectiveBuilder`] has an example.
    ///
    /// Gives the report, and what `descend` gave: nothing where every loss is skipped in this iteration, and it is not called.
    /// Where it fails nothing is remembered but where random draws stand. On a graph of `autograd`, whose values a session computes, [`evaluate`](Objective::evaluate) and [`finish`](Objective::finish) are
    /// called apart.
    ///
    /// # Errors
    /// An output that its engine does not take, those of [`evaluate`](Objective::evaluate), of `descend` and of
    /// [`finish`](Objective::finish).
    pub fn step<'g, T: EngineTensor<'g>, D: Descended>(
        &mut self,
        side: Side,
        outputs: &Outputs<'_, 'g, T>,
        descend: impl FnOnce(&T) -> D,
    ) -> Result<(Report, Option<D::Given>)> {
        if let Some(error) = &outputs.error {
            return Err(error.clone());
        }
        let step = self.evaluate(side, &outputs.inputs)?;
        let descended = match step.total() {
            Some(total) => Some(descend(&T::from_any(total.clone())?).into_result()?),
            None => None,
        };
        Ok((self.finish(&step, &step.values()?)?, descended))
    }
}
