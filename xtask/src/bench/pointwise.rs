//! The pointwise losses, and those of neighbouring pixels: forward, and backward to the prediction.

use std::collections::BTreeMap;

use image_losses::autograd::run as graph;
use image_losses::composition::CharbonnierCompLoss;
use image_losses::core::{Differentiable, Loss, PointwiseLoss, Tensor};
use image_losses::gan::{GanLoss, GanType, On, Side};
use image_losses::ndarray::{NdTensor, value_and_gradients};
use image_losses::pixelwise::{
    CharbonnierLoss, GradientLoss, HuberLoss, L1Loss, MaskedTvLoss, MseLoss, PsnrLoss, TvLoss,
};
use ndarray::ArrayD;
use serde_json::json;

use super::subject::{Case, Contestant, Gradient, Make, Output, Subject, Work, uniform};
use crate::Stop;

/// A batch of large images, and one small image.
const SHAPES: [[usize; 4]; 2] = [[8, 3, 512, 512], [1, 3, 64, 64]];
/// The Charbonnier loss' ε: large enough for its rounded tip to be met.
const EPS: f64 = 1e-6;

/// One case per loss and shape.
pub(crate) fn cases() -> Vec<Case> {
    SHAPES.into_iter().flat_map(of_shape).chain(SHAPES.into_iter().flat_map(of_neighbours)).collect()
}

/// The cases of losses that look at neighbours, on one shape.
fn of_neighbours(shape: [usize; 4]) -> Vec<Case> {
    let [n, c, h, w] = shape;
    let image = move |name, seed| (name, uniform(&shape, seed, 0.0, 1.0));
    let case = |kind: &str, make: Make| Case::new(format!("neighbours/{kind} {n}×{c}×{h}×{w}"), make);
    vec![
        case("tv", Box::new(move |name| composed(name, "tv", TvLoss::default(), [image("prediction", 1)], None))),
        case(
            "masked_tv",
            Box::new(move |name| {
                let mask = uniform(&[n, 1, h, w], 3, 0.0, 1.0);
                composed(name, "masked_tv", MaskedTvLoss::default(), [image("prediction", 1)], Some(mask))
            }),
        ),
        case(
            "gradient",
            Box::new(move |name| {
                let inputs = [image("prediction", 1), image("target", 2)];
                let subject = composed(name, "gradient", GradientLoss::default(), inputs, None)?;
                // Magnitudes of responses near 0: the peer filters both images before it subtracts, and rounding picks
                // the sign.
                Ok(Subject { tolerance: [1e-5, 1e-3], ..subject })
            }),
        ),
        case(
            "psnr",
            Box::new(move |name| {
                let inputs = [image("prediction", 1), image("target", 2)];
                composed(name, "psnr", PsnrLoss::default(), inputs, None)
            }),
        ),
    ]
}

/// The cases on one shape.
pub(crate) fn of_shape(shape: [usize; 4]) -> Vec<Case> {
    let [n, c, h, w] = shape;
    let full = move |seed| uniform(&shape, seed, 0.0, 1.0);
    let one = move |seed| uniform(&[n, 1, h, w], seed, 0.0, 1.0);
    // Scores of a critic, on either side of its margins.
    let scores = move || uniform(&shape, 1, -3.0, 3.0);
    let charbonnier = CharbonnierLoss { eps: EPS, ..Default::default() };
    let adversarial = |gan_type| GanLoss::new(gan_type).criterion(Side::Discriminator, On::Real).map_err(stop);
    let case = |kind: &str, make: Make| Case::new(format!("pointwise/{kind} {n}×{c}×{h}×{w}"), make);
    vec![
        case("l1", Box::new(move |name| pair(name, "l1", L1Loss::default(), [full(1), full(2)], None))),
        case("mse", Box::new(move |name| pair(name, "mse", MseLoss::default(), [full(1), full(2)], None))),
        case("charbonnier", Box::new(move |name| pair(name, "charbonnier", charbonnier, [full(1), full(2)], None))),
        case(
            "masked_charbonnier",
            Box::new(move |name| pair(name, "masked_charbonnier", charbonnier, [full(1), full(2)], Some(one(3)))),
        ),
        case(
            "huber",
            Box::new(move |name| {
                // Differences up to 3, on either side of delta = 1.
                let inputs = [uniform(&shape, 1, -1.5, 1.5), uniform(&shape, 2, -1.5, 1.5)];
                pair(name, "huber", HuberLoss::default(), inputs, None)
            }),
        ),
        case(
            "bce",
            Box::new(move |name| {
                subject(name, "bce", adversarial(GanType::Vanilla)?, [("prediction", scores())], None)
            }),
        ),
        case(
            "hinge",
            Box::new(move |name| {
                subject(name, "hinge", adversarial(GanType::Hinge)?, [("prediction", scores())], None)
            }),
        ),
        case(
            "composition",
            Box::new(move |name| {
                let loss = CharbonnierCompLoss { eps: EPS, ..Default::default() };
                let inputs = [("prediction", one(1)), ("fg", full(2)), ("bg", full(3)), ("target", full(4))];
                subject(name, "composition", loss, inputs, Some(one(5)))
            }),
        ),
    ]
}

pub(crate) fn stop(error: image_losses::Error) -> Stop {
    error.to_string()
}

/// A loss between a prediction and a target.
fn pair<L: PointwiseLoss<2> + Clone + 'static>(
    name: &str,
    kind: &'static str,
    loss: L,
    [prediction, target]: [ArrayD<f32>; 2],
    mask: Option<ArrayD<f32>>,
) -> Result<Subject, Stop> {
    subject(name, kind, loss, [("prediction", prediction), ("target", target)], mask)
}

/// A pointwise loss, differentiated by its first input.
fn subject<const K: usize, L: PointwiseLoss<K> + Clone + 'static>(
    name: &str,
    kind: &'static str,
    loss: L,
    inputs: [(&'static str, ArrayD<f32>); K],
    mask: Option<ArrayD<f32>>,
) -> Result<Subject, Stop> {
    let arrays = (loss.clone(), inputs.clone().map(|(_, array)| array), mask.clone());
    let mut subject = composed(name, kind, loss, inputs, mask)?;
    let on_arrays = Contestant::new("ndarray", move || {
        let (loss, inputs, mask) = &arrays;
        let views = std::array::from_fn(|k| inputs[k].view());
        let wanted = std::array::from_fn(|k| k == 0);
        let (value, gradients) =
            value_and_gradients(loss, views, mask.as_ref().map(|mask| mask.view()), wanted).map_err(stop)?;
        let gradient = gradients.into_iter().next().flatten().ok_or("no gradient")?;
        Ok(Output { value: f64::from(value), gradient: Gradient::Values(gradient.into_raw_vec_and_offset().0) })
    });
    subject.contestants.insert(0, on_arrays);
    Ok(subject)
}

/// Any loss that the engines differentiate by its first input; the sum of its values, if there are several.
fn composed<const K: usize, L: Loss<K> + Clone + 'static>(
    name: &str,
    kind: &'static str,
    loss: L,
    inputs: [(&'static str, ArrayD<f32>); K],
    mask: Option<ArrayD<f32>>,
) -> Result<Subject, Stop> {
    let mut tensors: BTreeMap<&'static str, ArrayD<f32>> = inputs.iter().cloned().collect();
    tensors.extend(mask.clone().map(|mask| ("mask", mask)));
    let work = Work::Memory { read: tensors.values().map(|array| array.len()).sum(), written: inputs[0].1.len() };
    let inputs = inputs.map(|(_, array)| array);
    Ok(Subject {
        name: name.to_owned(),
        description: json!({ "kind": kind, "wanted": "prediction", "eps": EPS }),
        tensors,
        work,
        contestants: contestants(loss, inputs, mask),
        tolerance: [1e-5, 1e-4],
    })
}

/// Every engine that differentiates.
fn contestants<const K: usize, L: Loss<K> + Clone + 'static>(
    loss: L,
    inputs: [ArrayD<f32>; K],
    mask: Option<ArrayD<f32>>,
) -> Vec<Contestant> {
    #[cfg(feature = "tch")]
    let on_tch = on_tch(loss.clone(), &inputs, mask.as_ref());
    let (own, arrays, weights) = (loss.clone(), inputs.clone(), mask.clone());
    let on_arrays = Contestant::new("ndarray graph", move || {
        let tensors: [_; K] = std::array::from_fn(|k| NdTensor::view(arrays[k].view()));
        let weight = weights.as_ref().map(|mask| NdTensor::view(mask.view()));
        let leaf = tensors[0].leaf().map_err(stop)?;
        let all = std::array::from_fn(|k| if k == 0 { &leaf } else { &tensors[k] });
        let mut value = own.forward(all, weight.as_ref()).map_err(stop)?;
        if value.elements() > 1 {
            value = value.sum_all().map_err(stop)?;
        }
        let gradient = NdTensor::gradients(&value, &[&leaf], false).map_err(stop)?.pop().flatten();
        let gradient = gradient.ok_or("no gradient")?.into_array().into_raw_vec_and_offset().0;
        Ok(Output { value: f64::from(value.item().map_err(stop)?), gradient: Gradient::Values(gradient) })
    });
    let on_autograd = Contestant::new("autograd", move || {
        graph::<f32, _>(|session| {
            let nodes: [_; K] = std::array::from_fn(|k| session.placeholder(inputs[k].shape()));
            let weight = mask.as_ref().map(|mask| session.placeholder(mask.shape()));
            let mut value = loss.forward(std::array::from_fn(|k| &nodes[k]), weight.as_ref())?;
            if value.elements() > 1 {
                value = value.sum_all()?;
            }
            let gradients = Differentiable::gradients(&value, &[&nodes[0]], false)?;
            let gradient = gradients.first().and_then(Option::as_ref).unwrap_or(&nodes[0]);
            let arrays = inputs.iter().chain(&mask).map(|array| array.as_slice().unwrap_or_default());
            let feeds: Vec<_> = nodes.iter().chain(&weight).zip(arrays).collect();
            let mut results = session.evaluate_with(&feeds, &[&value, gradient])?.into_iter();
            let value = results.next().and_then(|value| value.first().copied()).unwrap_or(f32::NAN);
            Ok(Output { value: f64::from(value), gradient: Gradient::Values(results.next().unwrap_or_default()) })
        })
        .map_err(stop)
    });
    vec![
        on_arrays,
        on_autograd,
        #[cfg(feature = "tch")]
        on_tch,
    ]
}

/// libtorch by way of this library.
#[cfg(feature = "tch")]
fn on_tch<const K: usize, L: Loss<K> + 'static>(
    loss: L,
    inputs: &[ArrayD<f32>; K],
    mask: Option<&ArrayD<f32>>,
) -> Contestant {
    use image_losses::tch::TchLoss;

    tch::set_num_threads(rayon::current_num_threads() as i32);
    let tensor = |array: &ArrayD<f32>| {
        let shape: Vec<i64> = array.shape().iter().map(|&extent| extent as i64).collect();
        tch::Tensor::from_slice(array.as_slice().unwrap_or_default()).reshape(shape)
    };
    let mut inputs: [tch::Tensor; K] = std::array::from_fn(|k| tensor(&inputs[k]));
    inputs[0] = inputs[0].set_requires_grad(true);
    let mask = mask.map(tensor);
    Contestant::new("tch", move || {
        let mut value = loss.call(std::array::from_fn(|k| &inputs[k]), mask.as_ref()).map_err(stop)?;
        if value.numel() > 1 {
            value = value.sum(None);
        }
        let gradient = tch::Tensor::run_backward(&[&value], &[&inputs[0]], false, false).swap_remove(0);
        Ok(Output { value: value.double_value(&[]), gradient: Gradient::Tch(gradient) })
    })
}
