//! What operations on arrays were recorded, and its derivatives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use image_losses_core::kernels::{Gradients, give_back, scale};
use image_losses_core::{Differentiable, Op, Result, Scalar, Tensor};

use crate::NdTensor;

/// How a tensor came about.
#[derive(Debug)]
pub(crate) struct Node<'a, F: Scalar> {
    /// Greater than those of the tensors it was computed from.
    number: u64,
    /// `None` for a leaf.
    operation: Option<Operation<'a, F>>,
}

#[derive(Debug)]
struct Operation<'a, F: Scalar> {
    op: Op,
    inputs: Vec<NdTensor<'a, F>>,
    /// The gradients of the sum of the result's elements, computed with the result.
    gradients: Mutex<Option<Gradients<F>>>,
}

impl<'a, F: Scalar> Node<'a, F> {
    fn new(operation: Option<Operation<'a, F>>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Node { number: NEXT.fetch_add(1, Ordering::Relaxed), operation })
    }

    /// The node of an operation's result.
    pub(crate) fn operation(op: &Op, inputs: &[&NdTensor<'a, F>], gradients: Option<Gradients<F>>) -> Arc<Self> {
        let inputs = inputs.iter().map(|&input| input.clone()).collect();
        Self::new(Some(Operation { op: op.clone(), inputs, gradients: Mutex::new(gradients) }))
    }

    /// The nodes that it was computed from.
    fn before(&self) -> impl Iterator<Item = &Arc<Self>> {
        self.operation.iter().flat_map(|operation| &operation.inputs).filter_map(|input| input.node.as_ref())
    }
}

impl<F: Scalar> Drop for Node<'_, F> {
    fn drop(&mut self) {
        // Not by recursion: a record may be hundreds of thousands of operations long.
        let mut pending: Vec<Operation<'_, F>> = self.operation.take().into_iter().collect();
        while let Some(operation) = pending.pop() {
            let gradients = operation.gradients.into_inner().unwrap_or_else(PoisonError::into_inner);
            gradients.into_iter().flatten().flatten().for_each(give_back);
            for mut input in operation.inputs {
                if let Some(mut node) = input.node.take().and_then(Arc::into_inner) {
                    pending.extend(node.operation.take());
                }
            }
        }
    }
}

impl<'a, F: Scalar> Operation<'a, F> {
    /// The gradients by the wanted inputs; with `create_graph`, recorded in turn.
    fn gradients(
        &self,
        above: &NdTensor<'a, F>,
        wanted: &[bool],
        create_graph: bool,
    ) -> Result<Vec<Option<NdTensor<'a, F>>>> {
        if create_graph {
            return self.op.gradients(&self.inputs, above, wanted);
        }
        if let Some(gradients) = self.computed(above) {
            return Ok(gradients);
        }
        let inputs: Vec<NdTensor<'a, F>> = self.inputs.iter().map(NdTensor::detach).collect();
        self.op.gradients(&inputs, above, wanted)
    }

    /// The gradients that were computed with the result, times the number from above, where that is one for all elements.
    /// They are moved out: asked again, they are computed again.
    fn computed(&self, above: &NdTensor<'a, F>) -> Option<Vec<Option<NdTensor<'a, F>>>> {
        // Times NaN or infinity, the gradients of pixels that a weight takes out would not stay 0.
        let (factor, others) = above.elements().split_first().filter(|(factor, _)| factor.to_f64().is_finite())?;
        let factor = others.iter().all(|other| other == factor).then_some(*factor)?;
        let gradients = self.gradients.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let tensor = |(elements, input): (Option<Vec<F>>, &NdTensor<'a, F>)| {
            let mut elements = elements?;
            match factor {
                _ if factor == F::ONE => {}
                // Also what is not finite.
                _ if factor == F::ZERO => elements.fill(F::ZERO),
                factor => scale(&mut elements, factor),
            }
            Some(NdTensor::of_elements(elements, Arc::clone(&input.shape)))
        };
        Some(gradients.into_iter().zip(&self.inputs).map(tensor).collect())
    }
}

impl<'a, F: Scalar> Differentiable for NdTensor<'a, F> {
    fn leaf(&self) -> Result<Self> {
        Ok(self.with_node(Some(Node::new(None))))
    }

    fn gradients(output: &Self, inputs: &[&Self], create_graph: bool) -> Result<Vec<Option<Self>>> {
        let Some(root) = &output.node else { return Ok(vec![None; inputs.len()]) };
        let wanted: HashSet<u64> = inputs.iter().filter_map(|input| Some(input.node.as_ref()?.number)).collect();
        // Every node comes after those that it was computed from.
        let mut nodes: BTreeMap<u64, &Arc<Node<'a, F>>> = BTreeMap::new();
        let first = wanted.iter().min().copied().unwrap_or(u64::MAX);
        let mut pending = vec![root];
        while let Some(node) = pending.pop() {
            // What is older than every input that is asked for has no part.
            if node.number >= first && nodes.insert(node.number, node).is_none() {
                pending.extend(node.before());
            }
        }
        let mut leading: HashSet<u64> = HashSet::new();
        for (&number, node) in &nodes {
            if wanted.contains(&number) || node.before().any(|before| leading.contains(&before.number)) {
                leading.insert(number);
            }
        }
        let mut found: HashMap<u64, Self> = HashMap::new();
        if leading.contains(&root.number) {
            found.insert(root.number, Self::full(&(), 1.0, &output.shape)?);
        }
        for (&number, node) in nodes.iter().rev().filter(|(number, _)| leading.contains(number)) {
            let Some(operation) = &node.operation else { continue };
            let leads = |input: &Self| input.node.as_ref().is_some_and(|node| leading.contains(&node.number));
            let is_wanted: Vec<bool> = operation.inputs.iter().map(leads).collect();
            if !is_wanted.contains(&true) {
                continue;
            }
            let above = if wanted.contains(&number) { found.get(&number).cloned() } else { found.remove(&number) };
            let Some(above) = above else { continue };
            let gradients = operation.gradients(&above, &is_wanted, create_graph)?;
            for ((gradient, input), is_wanted) in gradients.into_iter().zip(&operation.inputs).zip(is_wanted) {
                let (Some(gradient), Some(node), true) = (gradient, &input.node, is_wanted) else { continue };
                let sum = match found.remove(&node.number) {
                    Some(other) => other.add(&gradient)?,
                    None => gradient,
                };
                found.insert(node.number, sum);
            }
        }
        Ok(inputs.iter().map(|input| found.get(&input.node.as_ref()?.number).cloned()).collect())
    }
}
