//! DeblurGANv2's adversarial objectives.

use image_losses_core::config::{Argument, Carried, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{About, Declared, Differentiable, Error, Function, Result, Side, Tensor};
use image_losses_penalties::{Call, Draws, GradientPenaltyLoss};
use serde::{Deserialize, Serialize};

use crate::scores::{Distance, Signed, Softplus, SquaredDistance, check_scores, less, mean};
use crate::side::side_of;
use crate::{ImagePool, Sample, Stored};

/// Past predictions in each pool.
const POOL_SIZE: usize = 50;

/// The gradient penalty's factor.
const PENALTY: f64 = 10.0;

/// Which objective an [`AdvLoss`] is. The table stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AdvLossType {
    /// Cross-entropy.
    Gan,
    /// Distance from the label.
    Lsgan,
    /// Wasserstein distance with a gradient penalty.
    WganGp,
    /// Relativistic average cross-entropy.
    Ragan,
    /// Relativistic average least squares.
    RaganLs,
}

/// DeblurGANv2's adversarial objective: of a critic D, generated images f and real images r.
///
/// | `loss_type` | discriminator | generator |
/// |---|---|---|
/// | `gan` | ½ mean softplus(D(f)) + ½ mean softplus(−D(r)) | mean softplus(−D(f)) |
/// | `lsgan` | ½ mean abs(D(f)) + ½ mean abs(D(r) − 1); the name is MMagic's, the distance is not squared | mean abs(D(f) − 1) |
/// | `wgan-gp` | mean D(f) − mean D(r) + 10 · gradient penalty (norm per pixel) | −mean D(f) |
/// | `ragan` | ½ mean softplus(−(D(r) − m_f)) + ½ mean softplus(D(f) − m_r) | ½ mean softplus(D(r) − m_f) + ½ mean softplus(−(D(f) − m_r)) |
/// | `ragan-ls` | ½ mean (D(r) − m_f − 1)² + ½ mean (D(f) − m_r + 1)² | ½ mean (D(r) − m_f + 1)² + ½ mean (D(f) − m_r − 1)² |
///
/// m_f and m_r are the means of the last 50 predictions on generated and on real images, constants without gradient.
/// The discriminator's step counts its own predictions among them; it returns them ([`AdvTerms::predictions`]), and they
/// enter the state when you add them:
///
/// - engines whose tensors live on (tch, ndarray): `AdvState<T>` and [`AdvState::add`], which reads the predictions once;
/// - engines with a graph per step (`autograd`): `AdvState<`[`Sample`](crate::Sample)`>`; evaluate the predictions with
///   the loss, then [`AdvState::add_values`].
///
/// The discriminator's step detaches the generated images.
///
/// # Shapes
/// Images: (N, …), equal for `wgan-gp`; whatever the critic takes. Its output: rank at least 1, batch first.
///
/// # Errors
/// The critic's; [`Error::ShapeRule`] for an output without axes, [`Error::Empty`]; [`Error::MissingInput`] for a
/// generator's relativistic step while the pools are empty; those of
/// [`GradientPenaltyLoss`].
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_core::Side;
/// use image_losses_gan::{AdvLoss, AdvLossType, AdvState, Sample};
/// use image_losses_ndarray::NdTensor;
/// use ndarray::array;
///
/// let loss = AdvLoss { loss_type: AdvLossType::RaganLs };
/// let mut state = AdvState::<Sample>::new(7);
/// for _ in 0..2 {
///     let (fake, real) = (NdTensor::new(array![[1.0f64], [3.0]]), NdTensor::new(array![[4.0], [6.0]]));
///     let terms = loss.forward(|x| Ok(x.clone()), &fake, &real, Side::Discriminator, None, &mut state)?;
///     let new = terms.predictions.unwrap();
///     let values = |x: &NdTensor<'_, f64>| x.array().iter().copied().collect::<Vec<_>>();
///     state.add_values((&values(&new.fake), &new.fake.shape()), (&values(&new.real), &new.real.shape()))?;
///     // m_f = 2, m_r = 5: ½ mean (1², 3²) + ½ mean ((−3)², (−1)²)
///     assert_eq!(terms.loss.item()?, 5.0);
/// }
/// assert_eq!(state.fake_pool.len(), 4);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: MMagic, `mmagic.models.losses.AdvLoss`; O. Kupyn et al., *DeblurGAN-v2: Deblurring (Orders-of-Magnitude)
/// Faster and Better*, 2019, section 3.3; A. Jolicoeur-Martineau, *The Relativistic Discriminator: a Key Element Missing
/// from Standard GAN*, 2018.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AdvLoss {
    /// `gan`, `lsgan`, `wgan-gp`, `ragan` or `ragan-ls`. It has no default.
    pub loss_type: AdvLossType,
}

impl Declared for AdvLoss {
    const NAME: &'static str = "AdvLoss";
    const ABOUT: About = About {
        summary: "DeblurGANv2's objectives over a critic and two images.",
        formula: "gan, lsgan    ½[ f(D(fake), 0) + f(D(real), 1) ]\n\
                  wgan-gp       mean D(fake) − mean D(real) + 10 · gradient penalty\n\
                  ragan         ½[ BCE(D(r) − m_f, 1) + BCE(D(f) − m_r, 0) ]\n\
                  ragan-ls      ½[ mean (D(r) − m_f − 1)² + mean (D(f) − m_r + 1)² ],  m: means over pools",
        source: "Kupyn et al., DeblurGAN-v2, 2019",
    };
}

impl AdvLoss {
    /// The loss of one step, and the predictions that the pools are to remember.
    ///
    /// `alpha` (N, 1, …) holds the gradient penalty's interpolation weights; without it they are drawn from the state.
    ///
    /// # Errors
    /// As the type says.
    pub fn forward<T: Differentiable, V: Stored<T>>(
        &self,
        critic: impl Fn(&T) -> Result<T>,
        fake: &T,
        real: &T,
        side: Side,
        alpha: Option<&T>,
        state: &mut AdvState<V>,
    ) -> Result<AdvTerms<T>> {
        let detached;
        let fake = if side == Side::Discriminator {
            detached = fake.detach();
            &detached
        } else {
            fake
        };
        let loss = match (self.loss_type, side) {
            (AdvLossType::Ragan | AdvLossType::RaganLs, _) => {
                return self.relativistic(critic, fake, real, side, state);
            }
            (AdvLossType::WganGp, Side::Discriminator) => {
                let (towards_real, towards_fake) = labelled(AdvLossType::WganGp);
                let on_fake = judged(&towards_fake, &critic(fake)?, 1.0)?;
                let on_real = judged(&towards_real, &critic(real)?, 1.0)?;
                let drawn;
                let alpha = match alpha {
                    Some(alpha) => alpha,
                    None => {
                        drawn = state.draw(real)?;
                        &drawn
                    }
                };
                let penalty = GradientPenaltyLoss::default();
                let penalty = penalty.forward(&critic, Some(fake), &real.detach(), &[alpha], Call::default())?;
                let penalty = penalty.accumulator()?.scale(PENALTY)?;
                on_fake.add(&on_real)?.add(&penalty)?.cast_like(fake)
            }
            (kind, Side::Discriminator) => {
                let (towards_real, towards_fake) = labelled(kind);
                let scores = critic(fake)?;
                let on_fake = judged(&towards_fake, &scores, 0.5)?;
                on_fake.add(&judged(&towards_real, &critic(real)?, 0.5)?)?.cast_like(&scores)
            }
            (kind, Side::Generator) => {
                let scores = critic(fake)?;
                judged(&labelled(kind).0, &scores, 1.0)?.cast_like(&scores)
            }
        }?;
        Ok(AdvTerms { loss, predictions: None })
    }

    fn relativistic<T: Tensor, V: Stored<T>>(
        &self,
        critic: impl Fn(&T) -> Result<T>,
        fake: &T,
        real: &T,
        side: Side,
        state: &mut AdvState<V>,
    ) -> Result<AdvTerms<T>> {
        let (on_fake, on_real) = (critic(fake)?, critic(real)?);
        check_scores(Self::NAME, "fake", &on_fake)?;
        check_scores(Self::NAME, "real", &on_real)?;
        let (f, r) = (on_fake.accumulator()?, on_real.accumulator()?);
        let filling = side == Side::Discriminator;
        let empty = || Error::MissingInput {
            operation: Self::NAME,
            argument: "predictions".into(),
            hint: ": the pools are empty; run the discriminator's step first and add its predictions (the finite ones \
                   are stored) to the state"
                .into(),
        };
        let m_f = state.fake_pool.mean(filling.then_some(&f), &f)?.ok_or_else(empty)?;
        let m_r = state.real_pool.mean(filling.then_some(&r), &r)?.ok_or_else(empty)?;
        let (towards_real, towards_fake) = labelled(self.loss_type);
        // The generator wants the two the other way round.
        let (of_real, of_fake) = if filling { (towards_real, towards_fake) } else { (towards_fake, towards_real) };
        let loss = judged(&of_real, &less(&r, &m_f)?, 0.5)?
            .add(&judged(&of_fake, &less(&f, &m_r)?, 0.5)?)?
            .cast_like(&on_fake)?;
        let predictions = filling.then(|| AdvPredictions { fake: on_fake.detach(), real: on_real.detach() });
        Ok(AdvTerms { loss, predictions })
    }
}

const FAKE: &str = "fake_predictions";
const REAL: &str = "real_predictions";

/// The discriminator's call carries its predictions (`fake_predictions`, `real_predictions`) for the pools. A generator's
/// call in the same graph may be given them as arguments of these names before they are evaluated: they then count as if
/// they had been added.
impl Configurable for AdvLoss {
    type State = AdvState<Sample>;

    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("net", Kind::Network),
            Argument::required("fake", Kind::Tensor),
            Argument::required("real", Kind::Tensor),
            Argument::required("model", Kind::Text),
            Argument::optional("alpha", Kind::Tensor),
            Argument::optional(FAKE, Kind::Tensor),
            Argument::optional(REAL, Kind::Tensor),
        ]
    }

    fn start(&self, seed: u64) -> AdvState<Sample> {
        AdvState::new(seed)
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, state: &mut AdvState<Sample>) -> Result<Outcome<T>> {
        let side = side_of(Self::NAME, inputs)?;
        let net = inputs.get_network(Self::NAME, "net")?;
        let (fake, real) = (inputs.get_tensor(Self::NAME, "fake")?, inputs.get_tensor(Self::NAME, "real")?);
        let alpha = inputs.get_tensor_if_any(Self::NAME, "alpha")?;
        let given = (inputs.get_tensor_if_any(Self::NAME, FAKE)?, inputs.get_tensor_if_any(Self::NAME, REAL)?);
        if let (Side::Generator, (Some(on_fake), Some(on_real))) = (side, given) {
            // For this call alone: what is added may not be evaluated yet.
            let mut with_new = AdvState::<T>::new(0);
            for (pool, known, new) in [
                (&mut with_new.fake_pool, &state.fake_pool, on_fake),
                (&mut with_new.real_pool, &state.real_pool, on_real),
            ] {
                let known = known.iter().map(|sample| T::constant(&fake.context(), sample.values(), sample.shape()));
                pool.add(known.collect::<Result<Vec<_>>>()?);
                let samples = new.shape().first().copied().unwrap_or(0);
                pool.add((0..samples).map(|n| new.narrow(0, n, 1)).collect::<Result<Vec<_>>>()?);
            }
            return Ok(Outcome::Value(self.forward(net, fake, real, side, alpha, &mut with_new)?.loss));
        }
        let terms = self.forward(net, fake, real, side, alpha, state)?;
        let outcome = Outcome::Value(terms.loss);
        Ok(match terms.predictions {
            Some(AdvPredictions { fake, real }) => outcome.carrying(vec![(FAKE, fake), (REAL, real)]),
            None => outcome,
        })
    }

    fn remember(&self, state: &mut AdvState<Sample>, carried: &[Carried]) -> Result<()> {
        match (Carried::find(carried, FAKE), Carried::find(carried, REAL)) {
            (Some(fake), Some(real)) => state.add_values((&fake.values, &fake.shape), (&real.values, &real.shape)),
            _ => Ok(()),
        }
    }
}

/// The functions of a score that should be real, and of one that should be fake.
fn labelled(kind: AdvLossType) -> (Function, Function) {
    match kind {
        AdvLossType::Gan | AdvLossType::Ragan => {
            (Function::new(Softplus { sign: -1.0 }), Function::new(Softplus { sign: 1.0 }))
        }
        AdvLossType::Lsgan => (Function::new(Distance { label: 1.0 }), Function::new(Distance { label: 0.0 })),
        AdvLossType::WganGp => (Function::new(Signed { sign: -1.0 }), Function::new(Signed { sign: 1.0 })),
        AdvLossType::RaganLs => {
            (Function::new(SquaredDistance { label: 1.0 }), Function::new(SquaredDistance { label: -1.0 }))
        }
    }
}

/// `scale` · the mean of a function of the critic's output, with one axis.
fn judged<T: Tensor>(function: &Function, scores: &T, scale: f64) -> Result<T> {
    mean(AdvLoss::NAME, function, &[("prediction", scores)], scale)
}

/// What one step of an [`AdvLoss`] gives.
#[derive(Clone, Debug)]
pub struct AdvTerms<T> {
    /// The loss, a tensor with one element.
    pub loss: T,
    /// The discriminator's predictions that the pools are to remember; `None` for a generator's step and for objectives
    /// without pools.
    pub predictions: Option<AdvPredictions<T>>,
}

/// A critic's detached outputs.
#[derive(Clone, Debug)]
pub struct AdvPredictions<T> {
    /// On generated images.
    pub fake: T,
    /// On real images.
    pub real: T,
}

/// What an [`AdvLoss`] remembers between steps: the pools of predictions, and the source of its random draws.
///
/// With `V` = [`Sample`](crate::Sample) it is saved and loaded through serde.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvState<V> {
    /// Predictions on generated images.
    pub fake_pool: ImagePool<V>,
    /// Predictions on real images.
    pub real_pool: ImagePool<V>,
    draws: Draws,
}

impl<V> Default for AdvState<V> {
    fn default() -> Self {
        AdvState::new(0)
    }
}

impl<V> AdvState<V> {
    /// Empty pools of 50; the same seed, the same draws.
    pub fn new(seed: u64) -> Self {
        AdvState {
            fake_pool: ImagePool::new(POOL_SIZE, seed),
            real_pool: ImagePool::new(POOL_SIZE, seed.wrapping_add(1)),
            draws: Draws::new(seed.wrapping_add(2)),
        }
    }

    /// A uniform number for each sample of `images`, (N, 1, …).
    fn draw<T: Tensor>(&mut self, images: &T) -> Result<T> {
        let mut shape = images.shape();
        check_scores(AdvLoss::NAME, "real", images)?;
        shape[1..].fill(1);
        self.draws.uniform(&images.context(), &shape)
    }
}

impl<T: Tensor> AdvState<T> {
    /// Remembers the predictions of a discriminator's step, if there are any, without those samples that hold a value that
    /// is not finite. `values` reads a tensor's elements, row-major, as `TchTensor::values` does.
    ///
    /// # Errors
    /// The engine's own, those of `values`, and [`Error::Length`] where it gives another number of elements.
    pub fn add(&mut self, terms: &AdvTerms<T>, values: impl Fn(&T) -> Result<Vec<f64>>) -> Result<()> {
        let Some(AdvPredictions { fake, real }) = &terms.predictions else { return Ok(()) };
        let finite = |prediction: &T| -> Result<Vec<T>> {
            let (shape, values) = (prediction.shape(), values(prediction)?);
            let (expected, got) = (prediction.elements(), values.len());
            if expected != got {
                return Err(Error::Length { operation: AdvLoss::NAME, shape, expected, got });
            }
            let samples = values.chunks((expected / shape.first().copied().unwrap_or(1).max(1)).max(1)).enumerate();
            let kept = samples.filter(|(_, sample)| sample.iter().all(|value| value.is_finite()));
            kept.map(|(n, _)| prediction.narrow(0, n, 1)).collect()
        };
        let (fake, real) = (finite(fake)?, finite(real)?);
        self.fake_pool.add(fake);
        self.real_pool.add(real);
        Ok(())
    }
}

impl AdvState<crate::Sample> {
    /// Remembers the evaluated predictions of a discriminator's step, each with its shape (N, …). A sample with a value
    /// that is not finite is not remembered.
    ///
    /// # Errors
    /// As [`Sample::split`](crate::Sample::split).
    pub fn add_values<F: Copy + Into<f64>>(&mut self, fake: (&[F], &[usize]), real: (&[F], &[usize])) -> Result<()> {
        let (fake, real) = (crate::Sample::split(fake.0, fake.1)?, crate::Sample::split(real.0, real.1)?);
        self.fake_pool.add(fake);
        self.real_pool.add(real);
        Ok(())
    }
}
