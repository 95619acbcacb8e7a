//! The pool of past predictions.

use std::collections::VecDeque;

use image_losses_core::{Error, Result, Tensor, finite};
use image_losses_penalties::Draws;
use serde::{Deserialize, Serialize};

const NAME: &str = "ImagePool";

/// The last `pool_size` predictions (or images), first in, first out.
///
/// Generic over what is stored, one value per sample, so that it serves engines of both kinds:
///
/// - where tensors live on (tch, ndarray) it holds tensors, `ImagePool<TchTensor>`: no copy leaves the device;
/// - where tensors live in one graph only (`autograd`) it holds numbers, `ImagePool<`[`Sample`]`>`: evaluate the
///   predictions together with the loss, add them, and the next graph receives them as constants.
///
/// With numbers it is saved and loaded through serde, random state included. Random draws happen in
/// [`query`](ImagePool::query) alone, and only where more is stored than a query returns
/// ([`with_sample_size`](ImagePool::with_sample_size)); the same seed gives the same draws.
///
/// MMagic's pool of DeblurGANv2 is this with `sample_size` = `pool_size` = 50. A `pool_size` of 0 stores nothing.
///
/// ```
/// use image_losses_gan::ImagePool;
///
/// let mut pool = ImagePool::new(3, 0);
/// pool.add([1, 2, 3, 4]);
/// assert_eq!(pool.query(), [&2, &3, &4]); // the oldest has gone
/// ```
///
/// Source: MMagic, `mmagic.models.losses.adv_loss.ImagePool`; the idea: A. Shrivastava et al., *Learning from Simulated
/// and Unsupervised Images through Adversarial Training*, 2017, section 2.3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved<V>")]
pub struct ImagePool<V> {
    pool_size: usize,
    sample_size: usize,
    items: VecDeque<V>,
    draws: Draws,
}

/// What a file holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved<V> {
    pool_size: usize,
    sample_size: usize,
    items: VecDeque<V>,
    draws: Draws,
}

impl<V> TryFrom<Saved<V>> for ImagePool<V> {
    type Error = Error;
    fn try_from(saved: Saved<V>) -> Result<Self> {
        let Saved { pool_size, sample_size, items, draws } = saved;
        if items.len() > pool_size {
            return Err(Error::option(NAME, "items", format!("at most {pool_size}"), items.len()));
        }
        ImagePool { pool_size, sample_size: pool_size, items, draws }.with_sample_size(sample_size)
    }
}

impl<V> ImagePool<V> {
    /// An empty pool for `pool_size` values; queries return all of them.
    pub fn new(pool_size: usize, seed: u64) -> Self {
        ImagePool { pool_size, sample_size: pool_size, items: VecDeque::new(), draws: Draws::new(seed) }
    }

    /// Queries return at most `sample_size` values, drawn at random without replacement where more are stored.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for 0, unless the pool's own size is 0.
    pub fn with_sample_size(mut self, sample_size: usize) -> Result<Self> {
        if sample_size == 0 && self.pool_size > 0 {
            return Err(Error::option(NAME, "sample_size", "at least 1", sample_size));
        }
        self.sample_size = sample_size;
        Ok(self)
    }

    /// Stores values; the oldest leave when the pool is full.
    pub fn add(&mut self, values: impl IntoIterator<Item = V>) {
        if self.pool_size == 0 {
            return;
        }
        for value in values {
            if self.items.len() == self.pool_size {
                self.items.pop_front();
            }
            self.items.push_back(value);
        }
    }

    /// All values, oldest first, or a random sample of them.
    pub fn query(&mut self) -> Vec<&V> {
        let chosen = self.choose(0);
        chosen.into_iter().map(|index| &self.items[index]).collect()
    }

    /// The number of values stored.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The most that is stored.
    pub fn pool_size(&self) -> usize {
        self.pool_size
    }

    /// The stored values, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &V> {
        self.items.iter()
    }

    /// What a query would return if `coming` more values had been added first: positions in the stored values followed
    /// by the coming ones.
    fn choose(&mut self, coming: usize) -> Vec<usize> {
        let total = self.items.len() + coming;
        let mut kept: Vec<usize> = (total.saturating_sub(self.pool_size)..total).collect();
        if kept.len() > self.sample_size {
            // The first steps of a Fisher–Yates shuffle.
            for position in 0..self.sample_size {
                let left = kept.len() - position;
                let drawn = self.draws.uniform_values(1)[0] * left as f64;
                // Below `left`: what is drawn is below 1 by more than rounding takes back.
                kept.swap(position, position + drawn as usize);
            }
            kept.truncate(self.sample_size);
        }
        kept
    }

    /// The mean of what a query would return if the samples of `prediction` had been added first (if it is there): a
    /// constant with one element, in the element type of `like`. `None` where there is nothing.
    pub(crate) fn mean<T: Tensor>(&mut self, prediction: Option<&T>, like: &T) -> Result<Option<T>>
    where
        V: Stored<T>,
    {
        let batch = prediction.map_or(0, |prediction| prediction.shape()[0]);
        let chosen = self.choose(batch);
        let stored = self.items.len();
        let old: Vec<&V> = chosen.iter().filter_map(|&index| self.items.get(index)).collect();
        let mut sum: Option<T> = None;
        let mut count = 0;
        let mut include = |total: T, elements: usize| -> Result<()> {
            count += elements;
            sum = Some(match sum.take() {
                Some(sum) => sum.add(&total)?,
                None => total,
            });
            Ok(())
        };
        if !old.is_empty() {
            let (total, elements) = V::total(&old, like)?;
            include(total, elements)?;
        }
        if let Some(prediction) = prediction {
            let prediction = prediction.detach();
            let new: Vec<usize> = chosen.iter().filter_map(|&index| index.checked_sub(stored)).collect();
            if new.len() == batch {
                include(prediction.sum_all()?, prediction.elements())?;
            } else {
                for index in new {
                    let sample = prediction.narrow(0, index, 1)?;
                    include(sample.sum_all()?, sample.elements())?;
                }
            }
        }
        sum.map(|sum| sum.scale(1.0 / count as f64)).transpose()
    }
}

/// What a pool can hold for an engine with tensors `T`: the tensors themselves, or numbers ([`Sample`]).
pub trait Stored<T: Tensor>: Sized {
    /// The sum over all elements of `items`, a constant with one element in the element type and context of `like`, and
    /// the number of elements.
    ///
    /// # Errors
    /// The engine's own.
    fn total(items: &[&Self], like: &T) -> Result<(T, usize)>;
}

impl<T: Tensor> Stored<T> for T {
    fn total(items: &[&Self], like: &T) -> Result<(T, usize)> {
        let mut sum = T::constant(&like.context(), &[0.0], &[])?;
        let mut count = 0;
        for item in items {
            let total = item.detach().accumulator()?.sum_all()?.cast_like(like)?;
            sum = sum.add(&total)?;
            count += item.elements();
        }
        Ok((sum, count))
    }
}

/// One sample of an evaluated prediction: finite numbers, which outlive a graph and can be saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SavedSample")]
pub struct Sample {
    values: Vec<f64>,
    shape: Vec<usize>,
}

/// What a file holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSample {
    values: Vec<f64>,
    shape: Vec<usize>,
}

impl TryFrom<SavedSample> for Sample {
    type Error = Error;
    fn try_from(saved: SavedSample) -> Result<Self> {
        Sample::new(saved.values, &saved.shape)
    }
}

impl Sample {
    /// The values of one sample, row-major.
    ///
    /// # Errors
    /// [`Error::Length`] where the values do not fill the shape, [`Error::InvalidOption`] for a value that is not finite.
    pub fn new(values: Vec<f64>, shape: &[usize]) -> Result<Self> {
        check_length(&values, shape)?;
        for &value in &values {
            finite("Sample", "values", value)?;
        }
        Ok(Sample { values, shape: shape.to_vec() })
    }

    /// The samples of a batch (N, …), each (1, …). A sample with a value that is not finite is left out: it would stay in
    /// a pool for many steps, and could not be saved.
    ///
    /// # Errors
    /// [`Error::Length`] where the values do not fill the shape, [`Error::ShapeRule`] for a shape without axes,
    /// [`Error::Empty`] for one without elements.
    pub fn split<F: Copy + Into<f64>>(values: &[F], shape: &[usize]) -> Result<Vec<Self>> {
        let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
        check_length(&values, shape)?;
        let Some(&samples) = shape.first() else {
            let expected = "rank at least 1 (batch, …)".into();
            return Err(Error::ShapeRule { operation: "Sample", argument: "values", expected, got: shape.to_vec() });
        };
        if values.is_empty() {
            return Err(Error::Empty { operation: "Sample", argument: "values", got: shape.to_vec() });
        }
        let mut shape = shape.to_vec();
        shape[0] = 1;
        let kept = values.chunks(values.len() / samples).filter(|values| values.iter().all(|value| value.is_finite()));
        Ok(kept.map(|values| Sample { values: values.to_vec(), shape: shape.clone() }).collect())
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

/// Refuses values that do not fill the shape.
fn check_length(values: &[f64], shape: &[usize]) -> Result<()> {
    let expected = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent)).unwrap_or(usize::MAX);
    if expected == values.len() {
        return Ok(());
    }
    Err(Error::Length { operation: "Sample", shape: shape.to_vec(), expected, got: values.len() })
}

impl<T: Tensor> Stored<T> for Sample {
    fn total(items: &[&Self], like: &T) -> Result<(T, usize)> {
        let sum: f64 = items.iter().flat_map(|item| &item.values).sum();
        let count = items.iter().map(|item| item.values.len()).sum();
        Ok((T::constant(&like.context(), &[sum], &[])?, count))
    }
}
