//! The autograd engine: derivatives of any order, in pure Rust.
//!
//! The `autograd` crate (2.0.0-rc3) serves as a graph engine alone: every node is one of this workspace's operations,
//! with its own shape rule, kernel and derivative. An [`AgTensor`] is a node with its graph and its shape. Work inside a
//! graph of your own with [`AgTensor::from_node`], or let [`run`] make one:
//!
//! ```
//! use image_losses_autograd::run;
//! use image_losses_core::{Differentiable, Tensor};
//!
//! // d/dx Σ x³ at 2, and the derivative of that.
//! let [first, second] = run(|session| {
//!     let x = session.input(vec![2.0f64], &[1])?;
//!     let cube = x.mul(&x)?.mul(&x)?;
//!     let first = Differentiable::gradients(&cube, &[&x], true)?.remove(0).unwrap();
//!     let second = Differentiable::gradients(&first, &[&x], false)?.remove(0).unwrap();
//!     let values = session.evaluate(&[&first, &second])?;
//!     Ok::<_, image_losses_core::Error>([values[0][0], values[1][0]])
//! })?;
//! assert_eq!((first, second), (12.0, 12.0)); // 3x², 6x
//! # Ok::<(), image_losses_core::Error>(())
//! ```
//!
//! A graph holds 480,000 nodes, derivatives included; what would exceed it is an error. A derivative that does not exist
//! is an error of [`Differentiable::gradients`]; one that `autograd::tensor_ops::grad` built is a node whose evaluation
//! fails.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::rc::Rc;

use autograd as ag;
use autograd::ndarray::{ArrayD, ArrayViewD, IxDyn};
use image_losses_core::kernels::{self, Array};
use image_losses_core::{DType, Differentiable, Error, Literal, Op, Result, Scalar, Shape, Tensor};

const ENGINE: &str = "autograd";

/// The number of nodes at which the crate panics.
const MAX_NODES: usize = 500_000;
/// The number of nodes from which on operations are refused. Some nodes are made where no error can be returned, such as
/// those of detached tensors: the rest is left to them.
const NODES: usize = MAX_NODES - 20_000;

/// The graph of an `autograd` context.
// The type stands in a private module; the context's `Deref` names it.
pub type Graph<F> = <ag::Context<'static, 'static, F> as Deref>::Target;

/// An element type of this engine: `f32` or `f64`.
pub trait Element: Scalar + ag::Float {}
impl<F: Scalar + ag::Float> Element for F {}

/// A tensor of the autograd engine: a node, its graph, its shape.
#[derive(Clone)]
pub struct AgTensor<'g, F: Element> {
    node: ag::Tensor<'g, F>,
    graph: &'g Graph<F>,
    shape: Rc<[usize]>,
}

impl<F: Element> std::fmt::Debug for AgTensor<'_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgTensor").field("node", &self.node.id()).field("shape", &self.shape).finish()
    }
}

impl<'g, F: Element> AgTensor<'g, F> {
    /// A node of your own graph, with the shape its value will have. A value of another shape is an error of the
    /// evaluation.
    pub fn from_node(node: ag::Tensor<'g, F>, graph: &'g Graph<F>, shape: &[usize]) -> Self {
        AgTensor { node, graph, shape: shape.into() }
    }

    /// The node, for your own graph.
    pub fn node(&self) -> ag::Tensor<'g, F> {
        self.node
    }

    /// The same node seen through an identity.
    fn pass(&self, differentiable: bool) -> Self {
        let node = ag::Tensor::builder(self.graph)
            .append_input(self.node, false)
            .set_differentiable(differentiable)
            .build(Pass);
        AgTensor { node, graph: self.graph, shape: Rc::clone(&self.shape) }
    }
}

/// A node that computes an operation.
struct Node {
    op: Op,
    inputs: Vec<Rc<[usize]>>,
    shape: Rc<[usize]>,
}

/// Derivatives that [`Differentiable::gradients`] builds.
struct Derivatives {
    /// The number of nodes from which on none are added: the rest is left to nodes that the crate adds.
    capacity: usize,
    /// Whether it has been reached.
    is_full: bool,
    /// Those that could not be built.
    missing: HashMap<usize, Error>,
}

thread_local! {
    /// The derivatives that this thread builds.
    static DERIVATIVES: RefCell<Option<Derivatives>> = const { RefCell::new(None) };
}

impl Derivatives {
    /// What `build` returns, and the derivatives that could not be built meanwhile, by their nodes.
    fn collect<R>(capacity: usize, build: impl FnOnce() -> R) -> (R, HashMap<usize, Error>) {
        /// Ends with the closure, however that does.
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                DERIVATIVES.set(None);
            }
        }
        let end = End;
        DERIVATIVES.set(Some(Derivatives { capacity, is_full: false, missing: HashMap::new() }));
        let result = build();
        let missing = DERIVATIVES.take().map(|derivatives| derivatives.missing).unwrap_or_default();
        drop(end);
        (result, missing)
    }

    /// Whether the graph is full: one of its operations less is to be differentiated.
    fn next_is_refused() -> bool {
        DERIVATIVES.with_borrow_mut(|derivatives| {
            derivatives.as_mut().is_some_and(|derivatives| {
                derivatives.capacity += 1;
                derivatives.is_full
            })
        })
    }
}

/// Refuses a node, the youngest of its graph, for which there is no room.
fn fits(node: usize) -> Result<()> {
    let fits = DERIVATIVES.with_borrow_mut(|derivatives| match derivatives {
        Some(derivatives) => {
            derivatives.is_full |= node >= derivatives.capacity;
            !derivatives.is_full
        }
        None => node < NODES,
    });
    if fits { Ok(()) } else { Err(full()) }
}

/// The error of a graph without room.
fn full() -> Error {
    let message =
        format!("a graph holds {NODES} nodes, derivatives included: evaluate, and go on in a graph of its own");
    Error::Engine { engine: ENGINE, message }
}

/// Refuses tensors of two graphs.
fn same_graph<F: Element>(one: &Graph<F>, other: &Graph<F>) -> Result<()> {
    if std::ptr::eq(one, other) {
        return Ok(());
    }
    Err(Error::Engine { engine: ENGINE, message: "tensors of one graph are expected, these are of two".into() })
}

impl<F: Element> ag::op::Op<F> for Node {
    fn compute(&self, context: &mut ag::op::ComputeContext<F>) -> Result<(), ag::op::OpError> {
        let views: Vec<ArrayViewD<'_, F>> = (0..context.num_inputs()).map(|i| context.input(i)).collect();
        for (view, expected) in views.iter().zip(&self.inputs) {
            if view.shape() != &expected[..] {
                return Err(ag::op::OpError::IncompatibleShape(format!(
                    "{}: the graph was built for shape {expected:?}, got {:?}",
                    self.op.name(),
                    view.shape()
                )));
            }
        }
        if let (Op::Reshape(shape), [view]) = (&self.op, &views[..])
            && let Ok(view) = view.clone().into_shape(IxDyn(shape))
        {
            context.append_output_view(view);
            return Ok(());
        }
        let elements: Vec<Cow<'_, [F]>> = views.iter().map(row_major).collect();
        let arrays: Vec<Array<'_, F>> =
            self.inputs.iter().zip(&elements).map(|(shape, data)| Array { shape, data }).collect();
        let out = kernels::evaluate(&self.op, &arrays, &self.shape);
        let out = ArrayD::from_shape_vec(IxDyn(&self.shape), out)
            .map_err(|error| ag::op::OpError::NdArrayError(self.op.name().to_owned(), error))?;
        drop(elements);
        context.append_output(out);
        Ok(())
    }

    fn grad(&self, context: &mut ag::op::GradientContext<F>) {
        let graph: &Graph<F> = context.graph();
        let tensor = |node, shape: &Rc<[usize]>| AgTensor { node, graph, shape: Rc::clone(shape) };
        let inputs: Vec<_> =
            context.inputs().iter().zip(&self.inputs).map(|(&node, shape)| tensor(node, shape)).collect();
        let gradient = tensor(context.output_grad(), &self.shape);
        let wanted: Vec<bool> = inputs.iter().map(|input| input.node.is_differentiable()).collect();
        let gradients: Vec<Result<Option<AgTensor<'_, F>>>> = match &self.op {
            _ if Derivatives::next_is_refused() => inputs.iter().map(|_| Err(full())).collect(),
            // Each by itself: one that does not exist concerns its input alone.
            Op::Custom(_) => (0..inputs.len())
                .map(|input| {
                    let alone: Vec<bool> = (0..inputs.len()).map(|other| other == input && wanted[other]).collect();
                    self.op.gradients(&inputs, &gradient, &alone).map(|mut gradients| gradients.swap_remove(input))
                })
                .collect(),
            op => match op.gradients(&inputs, &gradient, &wanted) {
                Ok(gradients) => gradients.into_iter().map(Ok).collect(),
                Err(error) => inputs.iter().map(|_| Err(error.clone())).collect(),
            },
        };
        let mut missing = None;
        for gradient in gradients {
            let gradient = match gradient {
                Ok(gradient) => gradient.map(|tensor| tensor.node),
                Err(error) => Some(*missing.get_or_insert_with(|| Missing::build(context, error))),
            };
            context.append_input_grad(gradient);
        }
    }
}

/// A derivative that could not be built: its evaluation fails, and that of its own derivatives.
struct Missing(Error);

impl Missing {
    /// A node for the derivatives of another.
    fn build<'g, F: Element>(context: &ag::op::GradientContext<'g, F>, error: Error) -> ag::Tensor<'g, F> {
        let mut builder = ag::Tensor::builder(context.graph()).append_input(context.output_grad(), false);
        for input in context.inputs() {
            builder = builder.append_input(input, false);
        }
        let node = builder.build(Missing(error.clone()));
        DERIVATIVES.with_borrow_mut(|derivatives| {
            if let Some(derivatives) = derivatives {
                derivatives.missing.insert(node.id(), error);
            }
        });
        node
    }
}

impl<F: Element> ag::op::Op<F> for Missing {
    fn compute(&self, _: &mut ag::op::ComputeContext<F>) -> Result<(), ag::op::OpError> {
        Err(ag::op::OpError::TypeUnsupported(self.0.to_string()))
    }
    fn grad(&self, context: &mut ag::op::GradientContext<F>) {
        let node = Missing::build(context, self.0.clone());
        for _ in 0..context.num_inputs() {
            context.append_input_grad(Some(node));
        }
    }
}

/// The elements in row-major order; copied only where the view's layout is another.
fn row_major<'v, F: Element>(view: &'v ArrayViewD<'_, F>) -> Cow<'v, [F]> {
    match view.as_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().copied().collect()),
    }
}

/// A node that holds its value.
struct Constant<F>(ArrayD<F>);

impl<F: Element> ag::op::Op<F> for Constant<F> {
    fn compute(&self, context: &mut ag::op::ComputeContext<F>) -> Result<(), ag::op::OpError> {
        context.append_output(self.0.clone());
        Ok(())
    }
    fn grad(&self, _: &mut ag::op::GradientContext<F>) {}
}

/// An identity: marked not differentiable it detaches; over a detached node it is a leaf.
struct Pass;

impl<F: Element> ag::op::Op<F> for Pass {
    fn compute(&self, context: &mut ag::op::ComputeContext<F>) -> Result<(), ag::op::OpError> {
        let view = context.input(0);
        context.append_output_view(view);
        Ok(())
    }
    fn grad(&self, context: &mut ag::op::GradientContext<F>) {
        context.append_input_grad(None);
    }
}

/// The end of what is differentiated, of the inputs (1, 0, number, inputs…): the number has gradient 1 whatever comes from
/// above, and each of the inputs 0, so that the crate, which panics on an input without a gradient, finds one. The crate's
/// own sum would ask the number for its shape, and so compute it first.
struct End;

impl<F: Element> ag::op::Op<F> for End {
    fn compute(&self, context: &mut ag::op::ComputeContext<F>) -> Result<(), ag::op::OpError> {
        let view = context.input(2);
        context.append_output_view(view);
        Ok(())
    }
    fn grad(&self, context: &mut ag::op::GradientContext<F>) {
        let (one, zero) = (context.input(0), context.input(1));
        for gradient in [None, None, Some(one)] {
            context.append_input_grad(gradient);
        }
        for _ in 3..context.num_inputs() {
            context.append_input_grad(Some(zero));
        }
    }
}

impl<'g, F: Element> Tensor for AgTensor<'g, F> {
    type Context = &'g Graph<F>;

    fn context(&self) -> &'g Graph<F> {
        self.graph
    }
    fn shape(&self) -> Shape {
        self.shape.to_vec()
    }
    fn dtype(&self) -> DType {
        F::DTYPE
    }
    fn literal(graph: &&'g Graph<F>, literal: Literal<'_>, shape: &[usize]) -> Result<Self> {
        // The trait's contract gives as many elements as the shape has; were it broken, the evaluation refuses.
        let elements = literal.elements(kernels::count(shape));
        let array = ArrayD::from_shape_vec(IxDyn(shape), elements).unwrap_or_else(|_| ArrayD::zeros(IxDyn(&[0])));
        let node = ag::Tensor::builder(*graph).set_differentiable(false).build(Constant(array));
        fits(node.id())?;
        Ok(AgTensor { node, graph, shape: shape.into() })
    }
    fn detach(&self) -> Self {
        if self.node.is_differentiable() { self.pass(false) } else { self.clone() }
    }
    fn fuses(&self) -> bool {
        true
    }
    fn apply(op: &Op, inputs: &[&Self], shape: &[usize]) -> Result<Option<Self>> {
        let Some(first) = inputs.first().filter(|_| kernels::runs(op, inputs.len())) else { return Ok(None) };
        let mut builder = ag::Tensor::builder(first.graph);
        for input in inputs {
            same_graph(first.graph, input.graph)?;
            builder = builder.append_input(input.node, false);
        }
        let shapes = inputs.iter().map(|input| Rc::clone(&input.shape)).collect();
        let shape: Rc<[usize]> = shape.into();
        let node = builder.build(Node { op: op.clone(), inputs: shapes, shape: Rc::clone(&shape) });
        fits(node.id())?;
        Ok(Some(AgTensor { node, graph: first.graph, shape }))
    }
}

impl<F: Element> Differentiable for AgTensor<'_, F> {
    fn leaf(&self) -> Result<Self> {
        let leaf = self.detach().pass(true);
        fits(leaf.node.id())?;
        Ok(leaf)
    }

    fn gradients(output: &Self, inputs: &[&Self], _create_graph: bool) -> Result<Vec<Option<Self>>> {
        for input in inputs {
            same_graph(output.graph, input.graph)?;
        }
        // The crate panics on inputs that the output does not reach: follow its own links first.
        let wanted: HashSet<usize> = inputs.iter().map(|input| input.node.id()).collect();
        let mut reached = HashMap::new();
        let mut seen = HashSet::new();
        let mut sums = 0;
        let mut pending = vec![output.node];
        while let Some(node) = pending.pop() {
            if !node.is_differentiable() {
                continue;
            }
            if !seen.insert(node.id()) {
                sums += 1;
                continue;
            }
            if wanted.contains(&node.id()) {
                reached.insert(node.id(), node);
            }
            pending.extend((0..node.num_backprop_inputs()).map(|i| node.get_backprop_input(i)));
        }
        if reached.is_empty() {
            return Ok(vec![None; inputs.len()]);
        }
        let mut live: Vec<ag::Tensor<'_, F>> = reached.into_values().collect();
        live.sort_unstable_by_key(|node| node.id());
        let number = |value| AgTensor::full(&output.graph, value, &[]);
        let (one, zero) = (number(1.0)?, number(0.0)?);
        // A full reduction may have any number of axes.
        let ends = [one.node, zero.node, output.sum_all()?.node];
        let end =
            ends.iter().chain(&live).fold(ag::Tensor::builder(output.graph), |end, node| end.append_input(node, false));
        let end = end.build(End);
        // Where the graph becomes full, each operation left takes a node that says so. The crate adds two for each sum of
        // gradients, and a few more.
        let reserved = seen.len() + 2 * sums + 4 * live.len() + 16;
        let capacity = MAX_NODES.checked_sub(reserved).filter(|&capacity| end.id() < capacity).ok_or_else(full)?;
        let (gradients, missing) = Derivatives::collect(capacity, || ag::tensor_ops::grad(&[end], &live));
        let mut by_input = HashMap::new();
        for (input, gradient) in live.iter().zip(gradients) {
            // The zero alone, or the crate's sum of it and others.
            let mut terms: Vec<ag::Tensor<'_, F>> =
                (0..gradient.num_backprop_inputs()).map(|i| gradient.get_backprop_input(i)).collect();
            terms.retain(|term| term.id() != zero.node.id());
            if !terms.is_empty() {
                by_input.insert(input.id(), ag::tensor_ops::add_n(&terms));
            }
        }
        // A derivative that is missing counts where a gradient is computed from it.
        let mut pending: Vec<ag::Tensor<'_, F>> = if missing.is_empty() {
            Vec::new()
        } else {
            live.iter().filter_map(|input| by_input.get(&input.id()).copied()).collect()
        };
        let mut seen = HashSet::new();
        while let Some(node) = pending.pop() {
            if let Some(error) = missing.get(&node.id()) {
                return Err(error.clone());
            }
            if node.id() > end.id() && seen.insert(node.id()) {
                pending.extend((0..node.num_backprop_inputs()).map(|i| node.get_backprop_input(i)));
            }
        }
        let tensor = |input: &&Self| {
            let node = *by_input.get(&input.node.id())?;
            Some(AgTensor { node, graph: input.graph, shape: Rc::clone(&input.shape) })
        };
        Ok(inputs.iter().map(tensor).collect())
    }
}

/// A graph with the inputs that it will be fed.
pub struct Session<'g, F: Element> {
    context: &'g ag::Context<'g, 'g, F>,
    feeds: RefCell<Vec<(ag::Tensor<'g, F>, ArrayD<F>)>>,
    placeholders: RefCell<Vec<AgTensor<'g, F>>>,
}

impl<F: Element> std::fmt::Debug for Session<'_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("inputs", &self.feeds.borrow().len()).finish()
    }
}

impl<'g, F: Element> Session<'g, F> {
    fn new(context: &'g ag::Context<'g, 'g, F>) -> Self {
        Session { context, feeds: RefCell::default(), placeholders: RefCell::default() }
    }

    /// The graph, to make constants on.
    pub fn graph(&self) -> &'g Graph<F> {
        self.context
    }

    /// An input that gradients can be asked for. The values are fed by reference, never copied again.
    ///
    /// # Errors
    /// [`Error::Length`] where the values do not fill the shape.
    pub fn input(&self, values: Vec<F>, shape: &[usize]) -> Result<AgTensor<'g, F>> {
        let got = values.len();
        let array = ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| length("input", shape, got))?;
        let tensor = self.unfed(shape);
        fits(tensor.node.id())?;
        self.feeds.borrow_mut().push((tensor.node, array));
        Ok(tensor)
    }

    /// An input that gradients can be asked for, whose values come with each
    /// [`evaluate_with`](Session::evaluate_with): a graph is built once and evaluated at every step.
    pub fn placeholder(&self, shape: &[usize]) -> AgTensor<'g, F> {
        let tensor = self.unfed(shape);
        self.placeholders.borrow_mut().push(tensor.clone());
        tensor
    }

    fn unfed(&self, shape: &[usize]) -> AgTensor<'g, F> {
        // The crate panics on an extent of 0 and on one below -1, which leaves it open.
        let open = |&extent: &usize| isize::try_from(extent).ok().filter(|&extent| extent > 0).unwrap_or(-1);
        let extents: Vec<isize> = shape.iter().map(open).collect();
        // Fed by node, never looked up by name: one name serves all.
        let node = self.context.placeholder("image-losses input", &extents);
        AgTensor { node, graph: self.context, shape: shape.into() }
    }

    /// The values of several tensors in one evaluation; intermediates are shared. A second call computes all again.
    ///
    /// # Errors
    /// [`Error::Engine`] where a node fails, [`Error::MissingInput`] for a placeholder.
    pub fn evaluate(&self, tensors: &[&AgTensor<'g, F>]) -> Result<Vec<Vec<F>>> {
        self.evaluate_with(&[], tensors)
    }

    /// As [`evaluate`](Session::evaluate), with the values of every [`placeholder`](Session::placeholder), which are
    /// read in place.
    ///
    /// ```
    /// use image_losses_autograd::run;
    /// use image_losses_core::{Differentiable, Tensor};
    ///
    /// let gradients = run(|session| {
    ///     let x = session.placeholder(&[2]);
    ///     let square = x.mul(&x)?.sum_all()?;
    ///     let gradient = Differentiable::gradients(&square, &[&x], false)?.remove(0).unwrap();
    ///     let at = |values: &[f32]| session.evaluate_with(&[(&x, values)], &[&gradient]);
    ///     Ok::<_, image_losses_core::Error>([at(&[1.0, 2.0])?, at(&[3.0, 4.0])?].concat())
    /// })?;
    /// assert_eq!(gradients, [vec![2.0, 4.0], vec![6.0, 8.0]]);
    /// # Ok::<(), image_losses_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Engine`] where a node fails, [`Error::Length`] for values that do not fill their placeholder,
    /// [`Error::MissingInput`] for a placeholder without values.
    pub fn evaluate_with(
        &self,
        values: &[(&AgTensor<'g, F>, &[F])],
        tensors: &[&AgTensor<'g, F>],
    ) -> Result<Vec<Vec<F>>> {
        // The crate panics when a node is asked for twice: ask once and copy.
        let mut unique: Vec<ag::Tensor<'g, F>> = tensors.iter().map(|tensor| tensor.node).collect();
        unique.sort_by_key(|node| node.id());
        unique.dedup_by_key(|node| node.id());
        let feeds = self.feeds.borrow();
        let mut evaluator = self.context.evaluator();
        evaluator.extend(&unique);
        for (node, array) in feeds.iter() {
            evaluator.feed(*node, array.view());
        }
        for placeholder in self.placeholders.borrow().iter() {
            let Some((_, values)) = values.iter().find(|(tensor, _)| tensor.node.id() == placeholder.node.id()) else {
                let argument = format!("placeholder of shape {:?}", placeholder.shape);
                return Err(Error::MissingInput { operation: "evaluate", argument, hint: String::new() });
            };
            let view = ArrayViewD::from_shape(IxDyn(&placeholder.shape), values)
                .map_err(|_| length("evaluate", &placeholder.shape, values.len()))?;
            evaluator.feed(placeholder.node, view);
        }
        let mut results = evaluator
            .run()
            .into_iter()
            .map(|array| Ok(Some(into_row_major(array?))))
            .collect::<Result<Vec<Option<Vec<F>>>, ag::EvalError>>()
            .map_err(|error| {
                // Its words end with a colon and nothing after it.
                let message = error.to_string().trim_end_matches([':', ' ']).to_owned();
                Error::Engine { engine: ENGINE, message }
            })?;
        let position = |tensor: &AgTensor<'g, F>| unique.iter().position(|node| node.id() == tensor.node.id());
        let mut values: Vec<Vec<F>> = Vec::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            // Moved out where it is asked for first, copied from there later.
            let first = tensors[..index].iter().position(|earlier| earlier.node.id() == tensor.node.id());
            values.push(match first {
                Some(first) => values[first].clone(),
                None => position(tensor).and_then(|at| results[at].take()).unwrap_or_default(),
            });
        }
        Ok(values)
    }
}

/// Values that do not fill a shape.
fn length(operation: &'static str, shape: &[usize], got: usize) -> Error {
    let expected = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent)).unwrap_or(usize::MAX);
    Error::Length { operation, shape: shape.to_vec(), expected, got }
}

/// The elements in row-major order; copied only where the layout is another.
fn into_row_major<F: Element>(array: ArrayD<F>) -> Vec<F> {
    if array.is_standard_layout() { array.into_raw_vec() } else { array.iter().copied().collect() }
}

/// Runs `body` with a graph of its own.
pub fn run<F: Element, R>(body: impl for<'g> FnOnce(&Session<'g, F>) -> R) -> R {
    ag::run(|context: &mut ag::Context<'_, '_, F>| {
        let context: &ag::Context<'_, '_, F> = context;
        body(&Session::new(context))
    })
}

/// Values with their shape.
pub type Values<F> = (Vec<F>, Vec<usize>);

/// The value of a function of tensors and its gradient with respect to each, in one evaluation.
///
/// A value with several elements is differentiated through its sum. An input without influence has a gradient of
/// zeros.
///
/// ```
/// use image_losses_autograd::differentiate;
/// use image_losses_core::Tensor;
///
/// let x = (vec![1.0f64, 2.0], vec![2]);
/// let (value, gradients) = differentiate(&[x], |inputs| inputs[0].mul(&inputs[0])?.sum_all())?;
/// assert_eq!((value, gradients), (vec![5.0], vec![vec![2.0, 4.0]]));
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Length`] where values do not fill their shape, and those of `function`.
pub fn differentiate<F: Element>(
    inputs: &[Values<F>],
    function: impl for<'g> Fn(&[AgTensor<'g, F>]) -> Result<AgTensor<'g, F>>,
) -> Result<(Vec<F>, Vec<Vec<F>>)> {
    run(|session| {
        let tensors: Vec<_> = inputs.iter().map(|(_, shape)| session.placeholder(shape)).collect();
        let value = function(&tensors)?;
        let gradients = Differentiable::gradients(&value, &tensors.iter().collect::<Vec<_>>(), false)?;
        let wanted: Vec<&AgTensor<'_, F>> = [&value].into_iter().chain(gradients.iter().flatten()).collect();
        let values: Vec<_> = tensors.iter().zip(inputs.iter().map(|(values, _)| &values[..])).collect();
        let mut results = session.evaluate_with(&values, &wanted)?.into_iter();
        let value = results.next().unwrap_or_default();
        let gradients = gradients
            .iter()
            .zip(inputs)
            .map(|(gradient, (values, _))| {
                gradient.as_ref().and_then(|_| results.next()).unwrap_or_else(|| vec![F::ZERO; values.len()])
            })
            .collect();
        Ok((value, gradients))
    })
}

/// The page of the registry.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
