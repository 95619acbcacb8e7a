//! Evaluates a case on an engine, through the public configuration, and compares.

use std::collections::BTreeMap;

use image_losses::AnyTensor;
use image_losses::config::{BuildContext, Inputs, Item, Registry};
use image_losses::core::{Conv2d, Differentiable, Error, Result, Tensor, Unary};
use serde_json::Value;

use super::case::{Array, Case, Layer};
use super::{Engine, Target};

/// What came of a case on an engine.
#[derive(Debug)]
pub(crate) enum Checked {
    /// The worst errors of values and of gradients (none where the engine has none), within tolerance or not.
    Compared { value: f64, gradient: Option<f64>, within: bool },
    /// Not evaluated, and why.
    Skipped(&'static str),
    /// It could not be evaluated.
    Failed(String),
}

/// The largest error accepted: the one table of tolerances.
///
/// | stored | evaluated | value | gradient |
/// |---|---|---|---|
/// | f64 | f64 | 1e-12 | 1e-12 |
/// | f64 | f32 | 2e-6 | 2e-6 |
/// | f64 | f32, `CharbonnierCompLoss` | 2e-6 | 2e-7 / √eps |
/// | f64 | f32, derivatives of a network's derivatives | 2e-6 | 1e-5 |
/// | f32 | f64 | 2e-6 | 2e-6 |
/// | f32 | f32 | 1e-4 | 1e-3 |
/// | f32 | f32 on tch, not CLIP, which has no kinks | 1e-4 | 2e-2 |
///
/// Errors are the largest deviation over the largest reference element: of the tensor, or, for the parameters of a
/// network, of all its parameters together, which are one vector (the gradient of a single bias may cancel). For
/// gradients stored in single precision (the frozen networks) it is the ratio of Euclidean norms, since the kinks of
/// ReLU, maximum pooling and L1 make single elements jump. Our kernels round alike on every processor; libtorch's do not,
/// and with those for AVX2 a few jumps more take the gradient of LightCNN's L1 to 8e-3.
///
/// The Charbonnier composition's gradient d/√(d² + eps) changes by 1/√eps per unit of d, and d is the difference of a
/// merged pixel, rounded to single precision, and the original: the rounding, 6e-8 of a value up to 1 in each of
/// three operations, is amplified by 1/√eps for any implementation that merges in single precision, MMagic's included.
/// A penalty's gradient by a network's parameters passes the network three times (forward, backward, and backward through
/// that), each pass rounding at every layer.
fn tolerance(case: &Case, Target { engine, single }: Target) -> (f64, f64) {
    let eps = case.description.loss.get("eps").and_then(Value::as_f64);
    match (case.stored_single, single, eps) {
        (false, false, _) => (1e-12, 1e-12),
        (false, true, Some(eps)) if case.loss_type() == "CharbonnierCompLoss" => {
            (2e-6, f64::max(2e-6, 2e-7 / eps.sqrt()))
        }
        (false, true, _) if case.name.starts_with("penalties/") => (2e-6, 1e-5),
        (false, true, _) | (true, false, _) => (2e-6, 2e-6),
        (true, true, _) if engine == Engine::Tch && !case.name.starts_with("perceptual/clip") => (1e-4, 2e-2),
        (true, true, _) => (1e-4, 1e-3),
    }
}

/// Values of a loss that are reported but not differentiated.
const NOT_DIFFERENTIATED: [&str; 2] = ["mean_path_length", "path_lengths"];

/// Evaluates and compares.
pub(crate) fn check(case: &Case, target: Target) -> Checked {
    let family = case.name.split('/').next().unwrap_or_default();
    if target.engine == Engine::Ndarray && !case.description.nets.is_empty() && family == "penalties" {
        return Checked::Skipped("a penalty is a derivative, and the ndarray engine has none");
    }
    if target.engine == Engine::Ndarray && case.inputs.contains_key("alpha") {
        return Checked::Skipped("the loss contains a derivative, and the ndarray engine has none");
    }
    match evaluate(case, target) {
        Ok(results) => compare(case, target, &results),
        Err(error) => Checked::Failed(error.to_string()),
    }
}

/// What an engine computed.
struct Results {
    values: BTreeMap<String, Vec<f64>>,
    /// `None` where the engine does not differentiate.
    gradients: Option<BTreeMap<String, Vec<f64>>>,
}

/// The tensors of a case before they are read.
struct Tensors<'g> {
    values: BTreeMap<String, AnyTensor<'g>>,
    gradients: Option<BTreeMap<String, Option<AnyTensor<'g>>>>,
}

/// Evaluates on the target's engine.
fn evaluate(case: &Case, target: Target) -> Result<Results> {
    let single = |array: &Array| array.values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    match (target.engine, target.single) {
        (Engine::Ndarray, false) => {
            let make = |array: &Array| Ok(nd(array.values.clone(), &array.shape)?.into());
            read(tensors(case, false, make)?, |tensors| tensors.into_iter().map(read_nd).collect())
        }
        (Engine::Ndarray, true) => {
            let make = |array: &Array| Ok(nd(single(array), &array.shape)?.into());
            read(tensors(case, false, make)?, |tensors| tensors.into_iter().map(read_nd).collect())
        }
        (Engine::Autograd, false) => image_losses::autograd::run::<f64, _>(|session| {
            let make = |array: &Array| session.input(array.values.clone(), &array.shape).map(Into::into);
            read(tensors(case, true, make)?, |tensors| {
                let nodes = tensors
                    .iter()
                    .map(|tensor| if let AnyTensor::AgF64(node) = tensor { Ok(node) } else { Err(unexpected(tensor)) })
                    .collect::<Result<Vec<_>>>()?;
                session.evaluate(&nodes)
            })
        }),
        (Engine::Autograd, true) => image_losses::autograd::run::<f32, _>(|session| {
            let make = |array: &Array| session.input(single(array), &array.shape).map(Into::into);
            read(tensors(case, true, make)?, |tensors| {
                let nodes = tensors
                    .iter()
                    .map(|tensor| if let AnyTensor::AgF32(node) = tensor { Ok(node) } else { Err(unexpected(tensor)) })
                    .collect::<Result<Vec<_>>>()?;
                let values = session.evaluate(&nodes)?;
                Ok(values.into_iter().map(|values| values.into_iter().map(f64::from).collect()).collect())
            })
        }),
        (Engine::Tch, is_single) => tch_engine::evaluate(case, is_single),
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
        read(tensors(case, true, make)?, |tensors| {
            tensors
                .into_iter()
                .map(|tensor| match tensor {
                    AnyTensor::Tch(tensor) => {
                        let flat = tensor.tensor().detach().to_kind(tch::Kind::Double).reshape([-1]);
                        Vec::<f64>::try_from(flat)
                            .map_err(|error| Error::Engine { engine: "tch", message: error.to_string() })
                    }
                    other => Err(unexpected(&other)),
                })
                .collect()
        })
    }
}

#[cfg(not(feature = "tch"))]
mod tch_engine {
    use super::*;

    pub(super) fn evaluate(_: &Case, _: bool) -> Result<Results> {
        Err(Error::Unsupported { operation: "this build", engine: "tch" })
    }
}

fn unexpected(tensor: &AnyTensor<'_>) -> Error {
    Error::Unsupported { operation: "a result of another engine", engine: tensor.engine() }
}

fn nd<F: image_losses::core::Scalar>(
    values: Vec<F>,
    shape: &[usize],
) -> Result<image_losses::ndarray::NdTensor<'static, F>> {
    let got = values.len();
    let array = ndarray::ArrayD::from_shape_vec(shape, values).map_err(|_| Error::Length {
        operation: "input",
        shape: shape.to_vec(),
        expected: shape.iter().product(),
        got,
    })?;
    Ok(image_losses::ndarray::NdTensor::new(array))
}

fn read_nd(tensor: AnyTensor<'_>) -> Result<Vec<f64>> {
    match tensor {
        AnyTensor::NdF64(tensor) => Ok(tensor.array().iter().copied().collect()),
        AnyTensor::NdF32(tensor) => Ok(tensor.array().iter().map(|&value| f64::from(value)).collect()),
        other => Err(unexpected(&other)),
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
fn tensors<'g>(
    case: &Case,
    differentiate: bool,
    make: impl Fn(&Array) -> Result<AnyTensor<'g>>,
) -> Result<Tensors<'g>> {
    let weights = case.description.weights.as_ref();
    let context = BuildContext {
        seeded: weights.map(|weights| weights.seed),
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
        named.insert(*name, Item::Network(network));
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
    if !differentiate || case.gradients.is_empty() {
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

/// Compares with the reference.
fn compare(case: &Case, target: Target, results: &Results) -> Checked {
    let mut value_error: f64 = 0.0;
    for (name, expected) in &case.values {
        let Some(got) = results.values.get(name) else {
            return Checked::Failed(format!("there is no value `{name}`"));
        };
        if got.len() != expected.values.len() {
            let lengths = (expected.values.len(), got.len());
            return Checked::Failed(format!("value `{name}`: expected {} elements, got {}", lengths.0, lengths.1));
        }
        value_error = worse(value_error, largest_error(got, &expected.values, largest(&expected.values)));
    }
    let mut gradient_error = None;
    if let Some(gradients) = &results.gradients {
        let mut worst: f64 = 0.0;
        for (name, expected) in &case.gradients {
            let mut got = gradients.get(name).cloned().unwrap_or_default();
            if got.is_empty() {
                // No influence, according to the engine.
                got = vec![0.0; expected.values.len()];
            }
            if got.len() != expected.values.len() {
                return Checked::Failed(format!("gradient `{name}` has {} elements", got.len()));
            }
            let network = name.strip_prefix("net.").and_then(|parameter| parameter.split('.').next());
            let reference = match network {
                None => largest(&expected.values),
                Some(network) => {
                    let prefix = format!("net.{network}.");
                    let together = case.gradients.iter().filter(|(name, _)| name.starts_with(&prefix));
                    together.map(|(_, gradient)| largest(&gradient.values)).fold(0.0, f64::max)
                }
            };
            let error = if case.stored_single {
                euclidean_error(&got, &expected.values)
            } else {
                largest_error(&got, &expected.values, reference)
            };
            worst = worse(worst, error);
        }
        gradient_error = Some(worst);
    }
    let (value_limit, gradient_limit) = tolerance(case, target);
    // Written so that a NaN is not within.
    let within = value_error <= value_limit && gradient_error.is_none_or(|error| error <= gradient_limit);
    Checked::Compared { value: value_error, gradient: gradient_error, within }
}

/// The larger of two errors; NaN is the largest.
pub(crate) fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| worse(largest, value.abs()))
}

/// The largest deviation, relative to `reference` (absolute where that is 0).
fn largest_error(got: &[f64], expected: &[f64], reference: f64) -> f64 {
    let deviation = got.iter().zip(expected).fold(0.0, |worst, (got, expected)| worse(worst, (got - expected).abs()));
    if reference > 0.0 { deviation / reference } else { deviation }
}

/// ‖got − expected‖ / ‖expected‖.
fn euclidean_error(got: &[f64], expected: &[f64]) -> f64 {
    let norm = expected.iter().map(|value| value * value).sum::<f64>().sqrt();
    let deviation = got.iter().zip(expected).map(|(got, expected)| (got - expected).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 { deviation / norm } else { deviation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_a_number_is_never_within() {
        assert!(worse(0.0, f64::NAN).is_nan());
        assert!(largest_error(&[f64::NAN], &[1.0], 1.0).is_nan());
        assert!(euclidean_error(&[f64::NAN], &[1.0]).is_nan());
    }

    #[test]
    fn errors_are_relative_to_the_largest_element() {
        assert_eq!(largest_error(&[1.0, 4.5], &[1.0, 5.0], 5.0), 0.1);
        assert_eq!(largest_error(&[0.25], &[0.0], 0.0), 0.25);
        assert_eq!(euclidean_error(&[3.0, 0.0], &[3.0, 4.0]), 0.8);
    }
}
