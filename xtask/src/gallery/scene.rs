//! How a loss is called while one number varies: the value and the gradient with respect to that number.

use std::collections::VecDeque;

use image_losses::AnyTensor;
use image_losses::config::{BuildContext, Component, Inputs, Kind, Registry, network};
use image_losses::core::{Differentiable, Error, Result, Tensor};
use image_losses::ndarray::NdTensor;
use image_losses::perceptual::Dists;
use serde_json::Value;

/// What varies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scene {
    /// A prediction, against a target of 0.
    Error,
    /// One pixel of a prediction, against a target of 0.
    OnePixel,
    /// The difference of two halves of a picture.
    Step { argument: &'static str },
    /// A critic's score.
    Score { real: bool, discriminator: bool },
    /// A critic's score where a mask has this value: the generator's as if it were real, the discriminator's as generated.
    Masked { mask: f64, discriminator: bool },
    /// Scores by themselves.
    Scores,
    /// The score of a generated image beside that of a real one, which is 0.
    Pair { model: &'static str },
    /// The generated image of a critic that gives it back; the real one is 0.5.
    Adversarial,
    /// The score of a generated image; the averages are 0.5 and −0.5, the real score is 0.5.
    LeCam,
    /// A feature, beside one that is 0.
    Features,
    /// The same under an attention of 1.
    Transferal,
    /// The slope of a linear critic.
    Slope { data: &'static str },
    /// The slope of a linear generator.
    PathLength,
    /// α, where the foreground is 1, the background 0 and the observation 0.6.
    Composition,
}

/// The value and its derivative at a number.
pub(super) fn at(scene: Scene, component: &mut Component, number: f64) -> Result<[f64; 2]> {
    let t = AnyTensor::from(NdTensor::from_vec(vec![number], &[1, 1, 1, 1])?.leaf()?);
    let value = call(scene, component, &t)?;
    let gradient = AnyTensor::gradients(&value, &[&t], false)?.pop().flatten();
    let gradient = match gradient {
        Some(gradient) => gradient,
        None => t.scale(0.0)?,
    };
    Ok([value.values()?[0], gradient.values()?[0]])
}

/// The loss as a function of `t`, which has one element.
fn call<'g>(scene: Scene, component: &mut Component, t: &AnyTensor<'g>) -> Result<AnyTensor<'g>> {
    let constant = |value: f64| AnyTensor::full(&t.context(), value, &[1, 1, 1, 1]);
    let tensors: Vec<&str> = component
        .arguments()
        .iter()
        .filter(|argument| argument.required && argument.kind == Kind::Tensor)
        .map(|argument| argument.name)
        .collect();
    let linear = network(|x: &AnyTensor<'g>| x.mul(t));
    let identity = network(|x: &AnyTensor<'g>| Ok(x.clone()));
    let generator = network(|w: &AnyTensor<'g>| w.mul(&t.reshape(&[1, 1, 1])?)?.reshape(&[1, 1, 2, 2]));
    let inputs = Inputs::new();
    let inputs = match scene {
        Scene::Error => inputs.tensor("pred", t.clone()).tensor("target", constant(0.0)?),
        Scene::OnePixel => {
            let picture = t.pad(2, 2, 2)?.pad(3, 2, 2)?;
            inputs.tensor("target", picture.detach().scale(0.0)?).tensor("pred", picture)
        }
        Scene::Step { argument } => inputs.tensor(argument, t.pad(2, 0, 1)?.broadcast_to(&[1, 1, 2, 2])?),
        Scene::Score { real, discriminator } => {
            inputs.tensor("input", t.clone()).flag("target_is_real", real).flag("is_disc", discriminator)
        }
        Scene::Masked { mask, discriminator } => {
            let inputs = inputs.tensor("input", t.clone()).tensor("mask", constant(mask)?);
            inputs.flag("target_is_real", !discriminator).flag("is_disc", discriminator)
        }
        Scene::Scores => tensors.iter().fold(inputs, |inputs, name| inputs.tensor(*name, t.clone())),
        Scene::Pair { model } => inputs.tensor("fake", t.clone()).tensor("real", constant(0.0)?).text("model", model),
        Scene::Adversarial => {
            let inputs = inputs.network("net", identity).text("model", "discriminator");
            inputs.tensor("fake", t.clone()).tensor("real", constant(0.5)?).tensor("alpha", constant(0.5)?)
        }
        Scene::LeCam => {
            let inputs = inputs.tensor("fake", t.clone()).tensor("real", constant(0.5)?);
            inputs.number("mean_real", 0.5).number("mean_fake", -0.5)
        }
        Scene::Features => inputs.tensors("fake", vec![t.clone()]).tensors("real", vec![constant(0.0)?]),
        Scene::Transferal => {
            let zeros = |side: usize| AnyTensor::full(&t.context(), 0.0, &[1, 1, side, side]);
            let maps = [1, 2, 4].map(|side| t.broadcast_to(&[1, 1, side, side])).into_iter().collect::<Result<_>>()?;
            let textures = [1, 2, 4].map(zeros).into_iter().collect::<Result<_>>()?;
            inputs.tensors("maps", maps).tensors("textures", textures).tensor("soft_attention", constant(1.0)?)
        }
        Scene::Slope { data } => {
            let inputs = inputs.network("discriminator", linear).tensor("fake_data", constant(-1.0)?);
            inputs.tensor(data, constant(1.0)?).tensor("alpha", constant(0.5)?)
        }
        Scene::PathLength => {
            let ones = |shape: &[usize]| AnyTensor::full(&t.context(), 1.0, shape);
            let inputs = inputs.network("generator", generator).tensor("latents", ones(&[1, 1, 4])?);
            inputs.tensor("noise", ones(&[1, 1, 2, 2])?).number("mean_path_length", 1.0)
        }
        Scene::Composition => {
            let values = [t.clone(), constant(1.0)?, constant(0.0)?, constant(0.6)?];
            tensors.iter().zip(values).fold(inputs, |inputs, (name, value)| inputs.tensor(*name, value))
        }
    };
    total(component, &offered(component, inputs))
}

/// Those inputs that the loss takes.
fn offered<'a, T: Clone>(component: &Component, inputs: Inputs<'a, T>) -> Inputs<'a, T> {
    let mut taken = Inputs::new();
    for argument in component.arguments() {
        if let Some(item) = inputs.get(argument.name) {
            taken.insert(argument.name, item.clone());
        }
    }
    taken
}

/// The first value of a loss, or the sum of its terms, as one element.
pub(super) fn total<'g>(component: &mut Component, inputs: &Inputs<'_, AnyTensor<'g>>) -> Result<AnyTensor<'g>> {
    let (values, state) = component.evaluate(inputs)?.into_parts();
    // Where a loss carries state, its other values are for the log.
    let count = if state.is_empty() { values.len() } else { 1 };
    let mut values: VecDeque<_> = values.into_iter().take(count).map(|(_, value)| value).collect();
    let missing = || Error::InputCount { operation: "gallery", expected: 1, got: 0 };
    let first = values.pop_front().ok_or_else(missing)?.mean_all()?;
    values.into_iter().try_fold(first, |sum, value| sum.add(&value.mean_all()?))
}

/// A loss with seeded parameters where it has a network.
pub(super) fn build(name: &str, options: &str) -> std::result::Result<Component, String> {
    let place = |error: &dyn std::fmt::Display| format!("the gallery's {name}: {error}");
    let mut document: Value = serde_json::from_str(options).map_err(|error| place(&error))?;
    document["type"] = name.into();
    if name == "DISTS" {
        // Seeded ones would be negative here and there, which trained ones never are.
        document["dists_weights"] = equal_weights().map_err(|error| place(&error))?.into();
    }
    let architecture = serde_json::json!({
        "context_length": 4, "embed_dim": 16, "image_resolution": 224, "transformer_layers": 1,
        "transformer_width": 64, "vision_layers": 2, "vision_patch_size": 32, "vision_width": 128, "vocab_size": 10,
    });
    let context = BuildContext {
        // It would stand in for the file as well.
        seeded: (name != "DISTS").then_some(1),
        architecture: name.starts_with("CLIP").then_some(architecture),
        ..BuildContext::default()
    };
    let built = Registry::standard().build(&document, name, &context).map_err(|error| place(&error));
    if let Some(path) = document["dists_weights"].as_str() {
        // Read by now; a file that stays is of no harm.
        let _ = std::fs::remove_file(path);
    }
    built
}

/// A file of DISTS's α and β, all equal.
fn equal_weights() -> std::result::Result<String, Box<dyn std::error::Error>> {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let architecture = Dists::weights_architecture();
    let bytes: Vec<Vec<u8>> =
        architecture.iter().map(|(_, shape)| 1f32.to_le_bytes().repeat(shape.iter().product())).collect();
    let mut tensors = Vec::new();
    for ((name, shape), bytes) in architecture.iter().zip(&bytes) {
        tensors.push((name.to_string(), TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    let path = std::env::temp_dir().join(format!("image-losses-dists-{}.safetensors", std::process::id()));
    std::fs::write(&path, serialize(tensors, None)?)?;
    Ok(path.to_string_lossy().into_owned())
}
