//! Evaluates a case on an engine, through the public configuration, and compares.

use std::collections::BTreeMap;
use std::rc::Rc;

use image_losses::AnyTensor;
use image_losses::config::{BuildContext, Inputs, Item, Registry};
use image_losses::core::{Conv2d, Differentiable, Error, Result, Tensor, Unary};
use image_losses::ndarray::NdTensor;
use serde_json::Value;

use super::case::{Array, Case, Layer};
use super::rule::{self, worse};
use super::{Engine, Target};

/// What came of a case on an engine.
#[derive(Debug)]
pub(crate) enum Checked {
    /// The worst errors of values and of gradients (none where the case has none), relative to their scales.
    Compared {
        value: f64,
        gradient: Option<f64>,
        /// The error of the gradient is the smallest at the case's own and at nearby inputs.
        nearby: bool,
        /// The errors are what the rule allows.
        within: bool,
    },
    /// It could not be evaluated.
    Failed(String),
}

/// Values of a loss that are reported but not differentiated.
const NOT_DIFFERENTIATED: [&str; 2] = ["mean_path_length", "path_lengths"];

/// Evaluates and compares.
pub(crate) fn check(case: &Case, target: Target) -> Checked {
    compare(case, case, target).unwrap_or_else(Checked::Failed)
}

/// Numbers by name.
type Numbers = BTreeMap<String, Vec<f64>>;

/// What an engine computed.
struct Results {
    values: Numbers,
    /// `None` where the case has none.
    gradients: Option<Numbers>,
}

/// The tensors of a case before they are read.
struct Tensors<'g> {
    values: BTreeMap<String, AnyTensor<'g>>,
    gradients: Option<BTreeMap<String, Option<AnyTensor<'g>>>>,
}

/// Evaluates on the target's engine.
fn evaluate(case: &Case, target: Target) -> Result<Results> {
    match (target.engine, target.single) {
        (Engine::Ndarray, false) => {
            let make = |array: &Array| NdTensor::from_vec(array.values.clone(), &array.shape)?.leaf().map(Into::into);
            read(tensors(case, make)?, values)
        }
        (Engine::Ndarray, true) => {
            let make = |array: &Array| NdTensor::from_vec(single(array), &array.shape)?.leaf().map(Into::into);
            read(tensors(case, make)?, values)
        }
        (Engine::Autograd, is_single) => autograd_engine::evaluate(case, is_single),
        (Engine::Tch, is_single) => tch_engine::evaluate(case, is_single),
    }
}

/// The values of tensors that have them at hand.
fn values(tensors: Vec<AnyTensor<'_>>) -> Result<Vec<Vec<f64>>> {
    tensors.iter().map(|tensor| tensor.values()).collect()
}

fn single(array: &Array) -> Vec<f32> {
    array.values.iter().map(|&value| value as f32).collect()
}

#[cfg(feature = "autograd")]
mod autograd_engine {
    use image_losses::autograd::run;

    use super::*;

    pub(super) fn evaluate(case: &Case, is_single: bool) -> Result<Results> {
        if is_single {
            return run::<f32, _>(|session| {
                let make = |array: &Array| session.input(single(array), &array.shape).map(Into::into);
                read(tensors(case, make)?, |tensors| {
                    let nodes = tensors.iter().map(|tensor| match tensor {
                        AnyTensor::AgF32(node) => Ok(node),
                        other => Err(unexpected(other)),
                    });
                    let values = session.evaluate(&nodes.collect::<Result<Vec<_>>>()?)?;
                    Ok(values.into_iter().map(|values| values.into_iter().map(f64::from).collect()).collect())
                })
            });
        }
        run::<f64, _>(|session| {
            let make = |array: &Array| session.input(array.values.clone(), &array.shape).map(Into::into);
            read(tensors(case, make)?, |tensors| {
                let nodes = tensors.iter().map(|tensor| match tensor {
                    AnyTensor::AgF64(node) => Ok(node),
                    other => Err(unexpected(other)),
                });
                session.evaluate(&nodes.collect::<Result<Vec<_>>>()?)
            })
        })
    }

    fn unexpected(tensor: &AnyTensor<'_>) -> Error {
        Error::Unsupported { operation: "a result of another engine", engine: tensor.engine() }
    }
}

#[cfg(not(feature = "autograd"))]
mod autograd_engine {
    use super::*;

    pub(super) fn evaluate(_: &Case, _: bool) -> Result<Results> {
        Err(Error::Unsupported { operation: "this build", engine: "autograd" })
    }
}

#[cfg(feature = "tch")]
mod tch_engine {
    use super::*;
    use image_losses::tch::TchTensor;

    pub(super) fn evaluate(case: &Case, single: bool) -> Result<Results> {
        let kind = if single { tch::Kind::Float } else { tch::Kind::Double };
        let make = |array: &Array| {
            let shape: Vec<i64> = array.shape.iter().map(|&extent| extent as i64).collect();
            let tensor = tch::Tensor::from_slice(&array.values).to_kind(kind).reshape(shape);
            TchTensor::own(tensor.set_requires_grad(true)).map(AnyTensor::from)
        };
        read(tensors(case, make)?, values)
    }
}

#[cfg(not(feature = "tch"))]
mod tch_engine {
    use super::*;

    pub(super) fn evaluate(_: &Case, _: bool) -> Result<Results> {
        Err(Error::Unsupported { operation: "this build", engine: "tch" })
    }
}

/// Reads all tensors at once: a lazy engine evaluates once for all.
fn read<'g>(tensors: Tensors<'g>, read: impl FnOnce(Vec<AnyTensor<'g>>) -> Result<Vec<Vec<f64>>>) -> Result<Results> {
    let gradients = tensors.gradients.iter().flatten().filter_map(|(_, gradient)| gradient.clone());
    let wanted: Vec<AnyTensor<'g>> = tensors.values.values().cloned().chain(gradients).collect();
    let mut numbers = read(wanted)?.into_iter();
    let values = tensors.values.into_keys().map(|name| (name, numbers.next().unwrap_or_default())).collect();
    let gradients = tensors.gradients.map(|gradients| {
        gradients
            .into_iter()
            .map(|(name, gradient)| (name, gradient.and_then(|_| numbers.next()).unwrap_or_default()))
            .collect()
    });
    Ok(Results { values, gradients })
}

/// Builds the loss, calls it and differentiates.
fn tensors<'g>(case: &Case, make: impl Fn(&Array) -> Result<AnyTensor<'g>>) -> Result<Tensors<'g>> {
    let weights = case.description.weights.as_ref();
    let context = BuildContext {
        seeded: weights.and_then(|weights| weights.seed),
        architecture: weights.and_then(|weights| weights.architecture.clone()),
        ..BuildContext::default()
    };
    let mut loss = Registry::standard().build(&configuration(case), "loss", &context)?;

    let make_all = |arrays: &BTreeMap<String, Array>| {
        arrays
            .iter()
            .map(|(name, array)| Ok((name.clone(), make(array)?)))
            .collect::<Result<BTreeMap<String, AnyTensor<'g>>>>()
    };
    let inputs = make_all(&case.inputs)?;
    let parameters = make_all(&case.parameters)?;

    let networks: BTreeMap<&str, _> = case
        .description
        .nets
        .iter()
        .map(|(name, layers)| {
            let parameters = &parameters;
            let run = move |x: &AnyTensor<'g>| network(name, layers, parameters, x);
            (name.as_str(), run)
        })
        .collect();

    let mut named: Inputs<'_, AnyTensor<'g>> = Inputs::new();
    let mut lists: BTreeMap<&str, Vec<AnyTensor<'g>>> = BTreeMap::new();
    for (name, tensor) in &inputs {
        match name.split_once('.') {
            Some((list, _)) => lists.entry(list).or_default().push(tensor.clone()),
            None => named.insert(name, Item::Tensor(tensor.clone())),
        }
    }
    for (name, list) in lists {
        named.insert(name, Item::Tensors(list));
    }
    for (name, tokens) in &case.tokens {
        named.insert(name, Item::Tokens(tokens.clone()));
    }
    for (name, network) in &networks {
        named.insert(*name, Item::Network(Rc::new(network)));
    }
    for (name, value) in &case.description.call {
        let item = match value {
            Value::Bool(flag) => Item::Flag(*flag),
            Value::String(text) => Item::Text(text.clone()),
            Value::Number(number) => Item::Number(number.as_f64().unwrap_or(f64::NAN)),
            other => {
                let message = format!("the argument `{name}` of the call is {other}");
                return Err(Error::Config { path: format!("call.{name}"), message });
            }
        };
        named.insert(name, item);
    }

    // The relativistic generator cases were recorded after one discriminator step on the same inputs.
    let relativistic =
        case.description.loss.get("loss_type").and_then(Value::as_str).is_some_and(|kind| kind.starts_with("ragan"));
    let generator = case.description.call.get("model").and_then(Value::as_str) == Some("generator");
    if relativistic && generator {
        let mut discriminator = named.clone();
        discriminator.insert("model", Item::Text("discriminator".into()));
        // Its predictions are taken as arguments: they need not be evaluated in between.
        let (_, predictions) = loss.evaluate(&discriminator)?.into_parts();
        for (name, tensor) in predictions {
            named.insert(name, Item::Tensor(tensor));
        }
    }

    let (values, _) = loss.evaluate(&named)?.into_parts();
    let values: BTreeMap<String, AnyTensor<'g>> =
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if case.gradients.is_empty() {
        return Ok(Tensors { values, gradients: None });
    }

    let mut total: Option<AnyTensor<'g>> = None;
    for (name, value) in &values {
        if NOT_DIFFERENTIATED.contains(&name.as_str()) {
            continue;
        }
        let term = match case.cotangents.get(name) {
            Some(cotangent) => {
                let cotangent = AnyTensor::constant(&value.context(), &cotangent.values, &cotangent.shape)?;
                value.reshape(&cotangent.shape())?.mul(&cotangent)?.sum_all()?
            }
            None => value.sum_all()?,
        };
        total = Some(match total {
            Some(total) => total.add(&term)?,
            None => term,
        });
    }
    let total = total.ok_or(Error::InputCount { operation: "verify", expected: 1, got: 0 })?;
    let mut names = Vec::new();
    let mut leaves = Vec::new();
    for name in case.gradients.keys() {
        let leaf = match name.strip_prefix("net.") {
            Some(parameter) => parameters.get(parameter),
            None => inputs.get(name),
        };
        let missing = || Error::MissingInput { operation: "verify", argument: name.clone(), hint: String::new() };
        leaves.push(leaf.ok_or_else(missing)?);
        names.push(name.clone());
    }
    let gradients = AnyTensor::gradients(&total, &leaves, false)?;
    Ok(Tensors { values, gradients: Some(names.into_iter().zip(gradients).collect()) })
}

/// The case's configuration; where it picks its arguments by `data_info`, the case's own inputs (masks, and the random
/// draws that are injected) are picked too.
///
/// Without `data_info`, MMagic's `GradientPenaltyLossComps` does not pass its `norm_mode` on and computes the default norm.
/// This project refuses such a configuration, so the four cases of that kind are read without the option.
fn configuration(case: &Case) -> Value {
    let mut configuration = case.description.loss.clone();
    if case.loss_type() == "GradientPenaltyLossComps"
        && configuration.get("data_info").is_none()
        && let Some(options) = configuration.as_object_mut()
    {
        options.remove("norm_mode");
    }
    if let Some(Value::Object(data_info)) = configuration.get_mut("data_info") {
        for name in case.inputs.keys() {
            if !data_info.values().any(|output| output == name) {
                data_info.insert(name.clone(), Value::String(name.clone()));
            }
        }
    }
    configuration
}

/// A network of the corpus.
fn network<'g>(
    name: &str,
    layers: &[Layer],
    parameters: &BTreeMap<String, AnyTensor<'g>>,
    input: &AnyTensor<'g>,
) -> Result<AnyTensor<'g>> {
    let mut x = input.clone();
    for (i, layer) in layers.iter().enumerate() {
        let parameter = |kind: &str| {
            let key = format!("{name}.{i}.{kind}");
            let missing = Error::MissingInput { operation: "verify", argument: key.clone(), hint: String::new() };
            parameters.get(&key).ok_or(missing)
        };
        x = match layer {
            Layer::Conv2d { stride, padding } => {
                let geometry = Conv2d::padded(*padding).strided(*stride);
                x.conv2d(parameter("weight")?, Some(parameter("bias")?), geometry)?
            }
            Layer::Linear => x.matmul(parameter("weight")?, false, true)?.add(parameter("bias")?)?,
            Layer::LeakyRelu { slope } => x.leaky_relu(*slope)?,
            Layer::Softplus => x.unary(Unary::Softplus)?,
            Layer::Tanh => x.unary(Unary::Tanh)?,
            Layer::Flatten => {
                let shape = x.shape();
                x.reshape(&[shape[0], shape[1..].iter().product()])?
            }
            Layer::Reshape { shape } => {
                let extents: Vec<usize> = [x.shape()[0]].into_iter().chain(shape.iter().copied()).collect();
                x.reshape(&extents)?
            }
        };
    }
    Ok(x)
}

/// Evaluates, and compares with the reference by [`rule`]. `trusted` is evaluated where double precision is asked for
/// in turn: the same case, but for tests.
pub(super) fn compare(case: &Case, trusted: &Case, target: Target) -> Result<Checked, String> {
    let (value_limit, gradient_limit) = rule::limits(case, target.single);
    let results = evaluate(case, target).map_err(|error| error.to_string())?;
    let value = value_error(case, target.single, &results.values)?;
    // Written so that a NaN is not within.
    let mut within = value <= value_limit;
    let Some(gradients) = &results.gradients else {
        return Ok(Checked::Compared { value, gradient: None, nearby: false, within });
    };
    let reference = case.gradients.iter().map(|(name, gradient)| (name.clone(), gradient.values.clone())).collect();
    let mut errors = gradient_errors(case, target.single, gradients, &reference)?;
    let agree = |errors: &[f64]| errors.iter().all(|&error| error <= gradient_limit);
    let nearby = within && target.single && !agree(&errors) && rule::has_nearby(case);
    within &= match nearby {
        true => agree_nearby(case, trusted, target.engine, &mut errors)?,
        false => agree(&errors),
    };
    let gradient = Some(errors.into_iter().fold(0.0, worse));
    Ok(Checked::Compared { value, gradient, nearby, within })
}

/// Compares an engine's gradients in single precision with its own in double precision at nearby inputs, until each
/// part's smallest error is explained. The errors become the smallest.
fn agree_nearby(case: &Case, trusted: &Case, engine: Engine, errors: &mut [f64]) -> Result<bool, String> {
    let (single, double) = (Target { engine, single: true }, Target { engine, single: false });
    if !matches!(compare(trusted, trusted, double)?, Checked::Compared { within: true, .. }) {
        return Ok(false);
    }
    let gradients = |case: &Case, target| {
        let results = evaluate(case, target).map_err(|error| error.to_string())?;
        results.gradients.ok_or_else(|| "there are no gradients at nearby inputs".to_owned())
    };
    let (_, limit) = rule::limits(case, true);
    let mut points = Vec::new();
    for seed in 0..rule::POINTS {
        let point = rule::moved(trusted, rule::NEARBY, seed, true);
        let truth = gradients(&point, double)?;
        let got = gradients(&rule::moved(case, rule::NEARBY, seed, true), single)?;
        keep_smaller(errors, gradient_errors(case, true, &got, &truth)?);
        if errors.iter().all(|&error| error <= limit) {
            return Ok(true);
        }
        points.push((point, truth));
    }
    let mut smallest = vec![f64::INFINITY; errors.len()];
    for (point, truth) in &points {
        let mut spread = vec![0.0; errors.len()];
        for seed in 0..rule::ROUNDINGS {
            let rounded = gradients(&rule::moved(point, rule::ROUNDING, seed, false), double)?;
            for (spread, error) in spread.iter_mut().zip(gradient_errors(case, true, &rounded, truth)?) {
                *spread = worse(*spread, error);
            }
        }
        keep_smaller(&mut smallest, spread);
    }
    Ok(errors.iter().zip(smallest).all(|(&error, spread)| rule::explained(error, limit, spread)))
}

/// Each part's smaller error; NaN is kept.
fn keep_smaller(errors: &mut [f64], others: Vec<f64>) {
    for (error, other) in errors.iter_mut().zip(others) {
        *error = if error.is_nan() || other.is_nan() { f64::NAN } else { error.min(other) };
    }
}

/// The worst error of a case's values.
fn value_error(case: &Case, single: bool, values: &Numbers) -> Result<f64, String> {
    let magnitude = rule::magnitude(case);
    let mut error: f64 = 0.0;
    for (name, expected) in &case.values {
        let got = values.get(name).ok_or_else(|| format!("there is no value `{name}`"))?;
        if got.len() != expected.values.len() {
            return Err(format!("value `{name}`: expected {} elements, got {}", expected.values.len(), got.len()));
        }
        let scale = worse(rule::largest(&expected.values), magnitude);
        error = worse(error, rule::largest_error(got, &expected.values, scale, stored_rounding(case, single)));
    }
    Ok(error)
}

/// The error of each part of the gradients, in a fixed order: of each tensor, or of each image for a frozen network in
/// single precision.
fn gradient_errors(case: &Case, single: bool, got: &Numbers, all: &Numbers) -> Result<Vec<f64>, String> {
    let mut errors = Vec::new();
    for (name, Array { shape, values }) in &case.gradients {
        let expected = all.get(name).filter(|expected| expected.len() == values.len());
        let expected = expected.ok_or_else(|| format!("gradient `{name}` at nearby inputs is missing"))?;
        let none = vec![0.0; values.len()];
        // Empty: no influence, according to the engine.
        let got = got.get(name).filter(|got| !got.is_empty()).unwrap_or(&none);
        if got.len() != expected.len() {
            return Err(format!("gradient `{name}` has {} elements", got.len()));
        }
        if single && rule::frozen(case) {
            errors.extend(rule::euclidean_errors(got, expected, shape.first().copied().unwrap_or(1)));
            continue;
        }
        let network = name.strip_prefix("net.").and_then(|parameter| parameter.split('.').next());
        let scale = match network {
            None => rule::largest(expected),
            Some(network) => {
                let prefix = format!("net.{network}.");
                let together = all.iter().filter(|(name, _)| name.starts_with(&prefix));
                together.map(|(_, gradient)| rule::largest(gradient)).fold(0.0, worse)
            }
        };
        errors.push(rule::largest_error(got, expected, scale, stored_rounding(case, single)));
    }
    Ok(errors)
}

/// By how much of itself an element of the reference may be off, as it is stored.
fn stored_rounding(case: &Case, single: bool) -> f64 {
    if case.stored_single && !single { rule::UNIT } else { 0.0 }
}
