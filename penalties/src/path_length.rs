//! The path-length regulariser of StyleGAN2.

use image_losses_core::config::{Argument, Carried, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{About, Declared, Differentiable, Error, Result, Unary, finite, positive};
use serde::{Deserialize, Serialize};

use crate::inner::{LOSS_SCALER, PROCESSES, effective_loss_scale, loss_scaler, scaled_gradient};
use crate::interval::{check_interval, due, weight};
use crate::{Call, Draws, Random};

/// What the regulariser remembers between steps: save and load it with the training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathLengthState {
    /// The moving average of the mean path length; 0 before the first step.
    pub mean_path_length: f64,
}

impl PathLengthState {
    /// Remembers the value of a result's [`mean_path_length`](PathLength::mean_path_length). One that is not finite is not
    /// remembered: the state stays as it was.
    pub fn update(&mut self, mean_path_length: f64) {
        if mean_path_length.is_finite() {
            self.mean_path_length = mean_path_length;
        }
    }
}

/// The result of the regulariser.
#[derive(Clone, Debug, PartialEq)]
pub struct PathLength<T> {
    /// The penalty, to be minimised.
    pub penalty: T,
    /// The moved mean path length, a scalar, detached: its value belongs into the state
    /// ([`PathLengthState::update`]).
    pub mean_path_length: T,
    /// The path length of each sample, (N), detached.
    pub path_lengths: T,
}

/// The path-length regulariser: keeps the length of the generator's Jacobian, seen along random images, near its own
/// moving average.
///
/// y = image·noise / √(H·W), noise normal; g = ∂Σy/∂w at the latents w; ℓ_n = √(mean_l ‖g_{n,l}‖²);
/// a' = a + decay · (mean ℓ − a), a the average so far; L = λ · mean_n (ℓ_n − a')².
///
/// As MMagic and StyleGAN2's authors have it, the gradient also flows through a'. The gradient with respect to the
/// generator's parameters (and to whatever made the latents) is a second derivative.
///
/// With a batch of images of its own, of [`batch_size`](GeneratorPathRegularizer::batch_size) samples. The state is
/// yours: pass it in, and [`update`](PathLengthState::update) it with the value of the result's `mean_path_length` after
/// the step.
///
/// # Shapes
/// Latents: (N, L, D), L the number of layers that are fed. Images and noise: (N, C, H, W).
///
/// In [0, ∞) for λ > 0; 0 where every path has the length a'. ℓ is not differentiable where g = 0; there its derivative
/// is 0.
///
/// # Errors
/// [`Error::ShapeRule`] for latents without three axes or an image without four, [`Error::ShapeMismatch`] for an image
/// of another batch size or noise of another shape, [`Error::Empty`]; [`Error::NotConnected`] for a generator that
/// ignores its latents.
///
/// ```
/// use image_losses_core::{Result, Tensor};
/// use image_losses_ndarray::NdTensor;
/// use image_losses_penalties::{Call, GeneratorPathRegularizer, PathLengthState};
/// use ndarray::array;
///
/// fn generator<T: Tensor>(latents: &T) -> Result<T> {
///     latents.sum_all()?.scale(2.0)?.reshape(&[1, 1, 1, 1])
/// }
///
/// // One pixel, image = 2·(w₁ + w₂), noise 1: g = (2, 2), ℓ = √8, a' = 0.01·√8, L = (0.99·√8)².
/// let mut state = PathLengthState::default();
/// let (latents, noise) = (NdTensor::new(array![[[0.5f64, -1.0]]]), NdTensor::new(array![[[[1.0f64]]]]));
/// let result = GeneratorPathRegularizer::default().forward(generator, &latents, &[&noise], &state, Call::default())?;
/// state.update(result.mean_path_length.item()?);
/// assert!((result.penalty.item()? - 0.99f64.powi(2) * 8.0).abs() < 1e-12);
/// assert!((state.mean_path_length - 0.01 * 8f64.sqrt()).abs() < 1e-15);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, "Analyzing and Improving the Image Quality of StyleGAN",
/// 2020, equation 4; MMagic, `mmagic.models.losses.GeneratorPathRegularizerComps`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GeneratorPathRegularizer {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// The batch is this many times smaller than the training's. Default: 1.
    pub pl_batch_shrink: usize,
    /// The batch size, instead. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pl_batch_size: Option<usize>,
    /// How far the mean path length moves towards the batch's, in [0, 1]. Default: 0.01.
    pub decay: f64,
    /// The mean path length, and the penalty, are those of all processes' batches together. Default: `false`.
    pub sync_mean_buffer: bool,
    /// The regulariser acts when the iteration is a multiple of it. Default: 1.
    pub interval: u64,
    /// λ is multiplied by the interval: its mean over the iterations stays. Default: `false`.
    pub multiply_by_interval: bool,
    /// The image is multiplied by it before the inner gradient, the gradient divided by it after. Default: 1.
    pub loss_scale: f64,
    /// MMagic's name for loss scaling: a `loss_scale` of 1 means [`AMP_LOSS_SCALE`](crate::AMP_LOSS_SCALE). Default:
    /// `false`.
    pub use_apex_amp: bool,
}

impl Default for GeneratorPathRegularizer {
    fn default() -> Self {
        GeneratorPathRegularizer {
            loss_weight: 1.0,
            pl_batch_shrink: 1,
            pl_batch_size: None,
            decay: 0.01,
            sync_mean_buffer: false,
            interval: 1,
            multiply_by_interval: false,
            loss_scale: 1.0,
            use_apex_amp: false,
        }
    }
}

impl Declared for GeneratorPathRegularizer {
    const NAME: &'static str = "GeneratorPathRegularizerComps";
    const TERM: Option<&'static str> = Some("loss_path_regular");
    const ABOUT: About = About {
        summary: "A step in the latent space shall move the image by the same length everywhere.",
        formula: "λ · mean (ℓ − a̅)²,  ℓ = √(mean_L Σ_D (∂Σ(image·noise)/∂w)²),  a̅ ← a̅ + decay·(mean ℓ − a̅)",
        source: "Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020",
    };

    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite, a `pl_batch_shrink`, `pl_batch_size` or
    /// `interval` of 0, a `decay` outside [0, 1], a `loss_scale` that is not finite and above 0.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)?;
        positive(Self::NAME, "loss_scale", self.loss_scale)?;
        check_interval(Self::NAME, self.interval)?;
        if self.pl_batch_shrink == 0 {
            return Err(Error::option(Self::NAME, "pl_batch_shrink", "at least 1", 0));
        }
        if self.pl_batch_size == Some(0) {
            return Err(Error::option(Self::NAME, "pl_batch_size", "at least 1", 0));
        }
        if !(0.0..=1.0).contains(&self.decay) {
            return Err(Error::option(Self::NAME, "decay", "in [0, 1]", self.decay));
        }
        Ok(())
    }
}

impl GeneratorPathRegularizer {
    /// The weight that is in the penalty: λ, times the interval with `multiply_by_interval`.
    pub fn weight(&self) -> f64 {
        let GeneratorPathRegularizer { loss_weight, interval, multiply_by_interval, .. } = *self;
        weight(loss_weight, interval, multiply_by_interval)
    }

    /// Whether the regulariser acts in this iteration.
    pub fn is_due(&self, iteration: u64) -> bool {
        due(self.interval, iteration)
    }

    /// The number of latents to generate for it, where the training's batch has `num_batches` samples: `pl_batch_size`,
    /// or max(1, `num_batches` / `pl_batch_shrink`), rounded down.
    pub fn batch_size(&self, num_batches: usize) -> usize {
        self.pl_batch_size.unwrap_or((num_batches / self.pl_batch_shrink).max(1))
    }

    /// The penalty of `generator` at `latents`, whatever the interval. Random is the noise, normal, in the image's shape. It
    /// takes no mask.
    ///
    /// With `sync_mean_buffer` and the call's processes, the mean path length is that of all processes, and the penalty this
    /// process's share of that of all batches together. Every process must hold the same state.
    ///
    /// # Errors
    /// See the type; [`Error::InvalidOption`] for a mask; those of the communicator.
    pub fn forward<'r, T: Differentiable + 'r>(
        &self,
        generator: impl Fn(&T) -> Result<T>,
        latents: &T,
        random: impl Into<Random<'r, T>>,
        state: &PathLengthState,
        Call { mask, processes, loss_scale }: Call<'_, T>,
    ) -> Result<PathLength<T>> {
        self.check()?;
        if mask.is_some() {
            return Err(Error::option(Self::NAME, "mask", "absent", "a mask"));
        }
        let loss_scale = effective_loss_scale(Self::NAME, loss_scale, self.loss_scale, self.use_apex_amp)?;
        let lengths = self.lengths(generator, latents, random.into(), loss_scale)?;
        let old = state.mean_path_length;
        let decay = self.decay;
        let (penalty, mean) = match processes.filter(|_| self.sync_mean_buffer) {
            None => {
                let mean = lengths.mean_all()?.affine(decay, (1.0 - decay) * old)?;
                let penalty = lengths.sub(&mean.reshape(&[1])?)?.unary(Unary::Square)?.mean_all()?;
                (penalty, mean.detach())
            }
            Some(processes) => {
                let sum = lengths.sum_all()?;
                let size = processes.size();
                let count = processes.sum(lengths.elements() as f64)?;
                let average = processes.sum((processes.read)(&sum)?)? / count;
                let mean = old + decay * (average - old);
                let squares = lengths.shift(-mean)?.unary(Unary::Square)?.sum_all()?.scale(size / count)?;
                // The mean is a constant here: what flows through it is added as a term without value. Summed over
                // the processes, ∂/∂a' of the squares times ∂a'/∂ℓ is −2·decay/count · (average − a') for every ℓ.
                let through = sum.sub(&sum.detach())?.scale(-2.0 * decay * (average - mean) * size / count)?;
                let mean = T::full(&lengths.context(), mean, &[])?;
                (squares.add(&through)?, mean)
            }
        };
        let penalty = penalty.scale(self.weight())?.cast_like(latents)?;
        Ok(PathLength { penalty, mean_path_length: mean, path_lengths: lengths.detach() })
    }

    /// The path length of each sample, (N), in the type that sums are accumulated in.
    fn lengths<T: Differentiable>(
        &self,
        generator: impl Fn(&T) -> Result<T>,
        latents: &T,
        mut random: Random<'_, T>,
        loss_scale: f64,
    ) -> Result<T> {
        let shape = latents.shape();
        let &[n, layers, _] = &shape[..] else {
            let expected = "rank 3 (N, layers, features)".into();
            return Err(Error::ShapeRule { operation: Self::NAME, argument: "latents", expected, got: shape });
        };
        if shape.contains(&0) {
            return Err(Error::Empty { operation: Self::NAME, argument: "latents", got: shape });
        }
        // Differentiated at a leaf added to the latents, which may have a history of their own (a mapping network) and
        // keep it.
        let origin = T::full(&latents.context(), 0.0, &shape)?.leaf()?;
        let image = generator(&latents.add(&origin)?)?;
        let extents = image.shape();
        let &[batch, _, h, w] = &extents[..] else {
            let expected = "rank 4 (N, C, H, W)".into();
            return Err(Error::ShapeRule { operation: Self::NAME, argument: "fake_img", expected, got: extents });
        };
        if batch != n {
            let expected = [&[n], &extents[1..]].concat();
            return Err(Error::ShapeMismatch { operation: Self::NAME, argument: "fake_img", expected, got: extents });
        }
        if extents.contains(&0) {
            return Err(Error::Empty { operation: Self::NAME, argument: "fake_img", got: extents });
        }
        let draw = |draws: &mut Draws| draws.normal(&image.context(), &extents);
        let noise = random.next((Self::NAME, "noise"), &extents, draw)?;
        let projected = image.mul(&noise.scale(1.0 / ((h * w) as f64).sqrt())?)?;
        let gradient = scaled_gradient(&projected, &origin, loss_scale)?;
        let gradient =
            gradient.ok_or_else(|| Error::NotConnected { operation: Self::NAME, argument: "latents".into() })?;
        gradient.norm(&[1, 2], false)?.scale(1.0 / (layers as f64).sqrt())
    }
}

/// What the regulariser remembers where it is called by named arguments: its state, and the source of its noise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathLengthMemory {
    /// The moving average of the mean path length; 0 before the first step.
    pub mean_path_length: f64,
    /// The source of the noise.
    pub draws: Draws,
}

const MEAN: &str = "mean_path_length";

/// MMagic's generators draw their latents themselves; here the training step offers them, a batch as large as its own, of
/// which the first are taken.
impl Configurable for GeneratorPathRegularizer {
    type State = PathLengthMemory;
    const TERMS: &'static [(&'static str, &'static str)] =
        &[("penalty", "loss_path_regular"), (MEAN, MEAN), ("path_lengths", "path_lengths")];

    fn arguments(&self) -> Vec<Argument> {
        vec![
            Argument::required("generator", Kind::Network),
            Argument::required("latents", Kind::Tensor).or_output("latents"),
            Argument::optional("num_batches", Kind::Number),
            Argument::optional("noise", Kind::Tensor),
            Argument::optional(MEAN, Kind::Number),
            loss_scaler(self.use_apex_amp),
            PROCESSES,
        ]
    }

    fn start(&self, seed: u64) -> PathLengthMemory {
        PathLengthMemory { mean_path_length: 0.0, draws: Draws::new(seed) }
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, memory: &mut PathLengthMemory) -> Result<Outcome<T>> {
        let generator = inputs.get_network(Self::NAME, "generator")?;
        let latents = inputs.get_tensor(Self::NAME, "latents")?;
        let shape = latents.shape();
        let offered = shape.first().copied().unwrap_or(0);
        let batch = match inputs.get_number_if_any(Self::NAME, "num_batches")? {
            None => offered,
            Some(number) if number >= 1.0 && number.fract() == 0.0 => number as usize,
            Some(number) => return Err(Error::option(Self::NAME, "num_batches", "a whole number, at least 1", number)),
        };
        let wanted = self.batch_size(batch);
        let latents = match offered.cmp(&wanted) {
            std::cmp::Ordering::Equal => latents.clone(),
            std::cmp::Ordering::Greater => latents.narrow(0, 0, wanted)?,
            std::cmp::Ordering::Less => {
                let expected = format!("at least {wanted} samples");
                return Err(Error::ShapeRule { operation: Self::NAME, argument: "latents", expected, got: shape });
            }
        };
        let given = inputs.get_number_if_any(Self::NAME, MEAN)?;
        let state = PathLengthState { mean_path_length: given.unwrap_or(memory.mean_path_length) };
        let call = Call {
            processes: inputs.get_processes_if_any(Self::NAME, PROCESSES.name)?,
            loss_scale: inputs.get_number_if_any(Self::NAME, LOSS_SCALER)?,
            ..Call::default()
        };
        let given = inputs.get_tensor_if_any(Self::NAME, "noise")?.map(|noise| [noise]);
        let random = given.as_ref().map_or_else(|| Random::Drawn(&mut memory.draws), Random::from);
        let lengths = self.forward(generator, &latents, random, &state, call)?;
        let mean = lengths.mean_path_length;
        let values = vec![("penalty", lengths.penalty), (MEAN, mean.clone()), ("path_lengths", lengths.path_lengths)];
        Ok(Outcome::Carrying { values, state: vec![(MEAN, mean)] })
    }

    fn weight<T>(&self, value: &str, _: &Inputs<'_, T>) -> Result<Option<f64>> {
        Ok(Some(if value == "penalty" { GeneratorPathRegularizer::weight(self) } else { 1.0 }))
    }

    fn interval(&self) -> u64 {
        self.interval
    }

    fn remember(&self, memory: &mut PathLengthMemory, carried: &[Carried]) -> Result<()> {
        if let Some(&mean) = Carried::find(carried, MEAN).and_then(|carried| carried.values.first()) {
            let mut state = PathLengthState { mean_path_length: memory.mean_path_length };
            state.update(mean);
            memory.mean_path_length = state.mean_path_length;
        }
        Ok(())
    }
}
