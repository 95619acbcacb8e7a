//! What a training step was made of, in numbers.

use std::fmt;

use image_losses_core::{Error, Result, Tensor};
use serde::Serialize;

use crate::AnyTensor;

/// One side of an objective, evaluated: tensors to differentiate, numbers to come.
///
/// [`total`](Step::total) is what a training step differentiates. Values are read back once, by the engine: eager
/// engines have them at hand, a graph evaluates [`tensors`](Step::tensors) together with whatever else the step needs
/// (the gradients); [`Objective::finish`](super::Objective::finish) takes the values and gives the [`Report`].
#[derive(Clone, Debug)]
pub struct Step<'g> {
    pub(crate) total: Option<AnyTensor<'g>>,
    pub(crate) terms: Vec<StepTerm<'g>>,
    pub(crate) skipped: Vec<String>,
    pub(crate) state: Vec<CarriedTensor<'g>>,
}

/// A part of a term: what one loss adds to it.
#[derive(Clone, Debug)]
pub struct StepTerm<'g> {
    /// The term's name.
    pub name: String,
    /// The weight that is in the value, as the loss says: the value is the weight times the value at weight 1.
    pub weight: f64,
    /// The value, one element; a map's is its mean.
    pub value: AnyTensor<'g>,
    /// It is part of the total.
    pub counts: bool,
}

/// A tensor whose value a loss needs in later steps.
#[derive(Clone, Debug)]
pub(crate) struct CarriedTensor<'g> {
    pub(crate) loss: usize,
    /// The name of the loss's term.
    pub(crate) term: String,
    pub(crate) name: &'static str,
    pub(crate) value: AnyTensor<'g>,
}

impl<'g> Step<'g> {
    /// The sum of all terms whose name contains `loss`, one element; `None` where no term acts in this iteration.
    pub fn total(&self) -> Option<&AnyTensor<'g>> {
        self.total.as_ref()
    }

    /// What the losses added, in their order.
    pub fn terms(&self) -> &[StepTerm<'g>] {
        &self.terms
    }

    /// The terms that their interval skips.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// The tensors whose values a report and the losses' state need, in the order that
    /// [`Objective::finish`](super::Objective::finish) takes them.
    pub fn tensors(&self) -> Vec<&AnyTensor<'g>> {
        let terms = self.terms.iter().map(|term| &term.value);
        self.total.iter().chain(terms).chain(self.state.iter().map(|carried| &carried.value)).collect()
    }

    /// The values of [`tensors`](Step::tensors), on an engine that has them at hand.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a graph: its session evaluates them.
    pub fn values(&self) -> Result<Vec<Vec<f64>>> {
        self.tensors().into_iter().map(AnyTensor::values).collect()
    }

    /// The report of the step, from the values of its [`tensors`](Step::tensors).
    ///
    /// # Errors
    /// [`Error::InputCount`] and [`Error::Length`] where the values are not those of the tensors.
    pub fn report(&self, values: &[Vec<f64>]) -> Result<Report> {
        let tensors = self.tensors();
        if values.len() != tensors.len() {
            let (expected, got) = (tensors.len(), values.len());
            return Err(Error::InputCount { operation: "report", expected, got });
        }
        for (tensor, values) in tensors.iter().zip(values) {
            let (expected, got) = (tensor.elements(), values.len());
            if expected != got {
                return Err(Error::Length { operation: "report", shape: tensor.shape(), expected, got });
            }
        }
        let carried = &values[values.len() - self.state.len()..];
        let mut numbers = values.iter().map(|values| values.first().copied().unwrap_or(0.0));
        let total = self.total.as_ref().and_then(|_| numbers.next()).unwrap_or(0.0);
        let mut terms: Vec<Term> = Vec::new();
        let mut first_not_finite = None;
        for (part, value) in self.terms.iter().zip(numbers) {
            if !value.is_finite() {
                first_not_finite.get_or_insert_with(|| part.name.clone());
            }
            match terms.iter_mut().find(|term| term.name == part.name) {
                Some(term) => {
                    term.value += value;
                    term.weights.push(part.weight);
                }
                None => {
                    let (name, weights, counts) = (part.name.clone(), vec![part.weight], part.counts);
                    terms.push(Term { name, value, weights, counts });
                }
            }
        }
        for (part, values) in self.state.iter().zip(carried) {
            if values.iter().any(|value| !value.is_finite()) {
                first_not_finite.get_or_insert_with(|| part.term.clone());
            }
        }
        if !total.is_finite() {
            first_not_finite.get_or_insert_with(|| "total".to_owned());
        }
        Ok(Report { total, terms, skipped: self.skipped.clone(), first_not_finite })
    }
}

/// A training step in numbers: prints as a line, serialises for a logger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The sum of the terms that count.
    pub total: f64,
    /// The terms, in the order of the configuration; those that share a name added.
    pub terms: Vec<Term>,
    /// The terms that their interval skipped.
    pub skipped: Vec<String>,
    /// The first term with a value that is not finite: where the trouble began. Else the first term of a loss that was to
    /// remember a value that is not finite; else `total` where each term is finite, and their sum is not.
    pub first_not_finite: Option<String>,
}

/// A term of a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// Its name.
    pub name: String,
    /// Its value, weights included.
    pub value: f64,
    /// The weight of each loss that was added up under this name.
    pub weights: Vec<f64>,
    /// It is part of the total; otherwise it is only logged.
    pub counts: bool,
}

impl Report {
    /// The value of the term of that name.
    pub fn term(&self, name: &str) -> Option<f64> {
        self.terms.iter().find(|term| term.name == name).map(|term| term.value)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "total {:.6}", self.total)?;
        for term in &self.terms {
            write!(f, ", {} {:.6}", term.name, term.value)?;
            if term.weights.iter().any(|&weight| weight != 1.0) {
                let weights: Vec<String> = term.weights.iter().map(f64::to_string).collect();
                write!(f, " (weight {})", weights.join(" + "))?;
            }
            if !term.counts {
                f.write_str(" (not in the total)")?;
            }
        }
        if !self.skipped.is_empty() {
            write!(f, ", skipped {}", self.skipped.join(" "))?;
        }
        if let Some(name) = &self.first_not_finite {
            write!(f, ", NOT FINITE from {name} on")?;
        }
        Ok(())
    }
}
