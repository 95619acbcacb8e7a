//! Every loss of the registry and every option of it: each builds, is written back, and changes a result.
#![cfg(all(
    feature = "config",
    feature = "ndarray",
    feature = "pixelwise",
    feature = "gan",
    feature = "penalties",
    feature = "composition",
    feature = "light-cnn",
    feature = "face-id",
    feature = "clip",
    feature = "lpips"
))]

use std::collections::BTreeSet;
use std::rc::Rc;

use image_losses::AnyTensor;
use image_losses::config::{BuildContext, Carried, Component, Inputs, Item, Kind, Outcome, Registry, network};
use image_losses::core::{Error, Result, Tensor, Unary};
use image_losses::ndarray::NdTensor;
use image_losses::objective::{Objective, Side};
use image_losses::penalties::{Communicator, Processes};
use serde_json::{Value, json};

use crate::support::leaf;

/// Every loss with a mapping of options that others are compared with, and for each option another value.
fn table() -> Vec<(&'static str, Value, Value)> {
    let special = special();
    let registry = Registry::standard();
    let plain =
        registry.types().map(|entry| entry.name()).filter(|name| !special.iter().any(|(other, ..)| other == name));
    let plain: Vec<_> = plain.map(|name| (name, json!({}), alternatives(name))).collect();
    special.into_iter().chain(plain).collect()
}

/// Another value than the default for each option of a loss that needs none: of numbers something near, of words the first
/// other one.
fn alternatives(name: &str) -> Value {
    let defaults = build(name, &json!({})).unwrap_or_else(|error| panic!("{name} has no row in `special`: {error}"));
    let Value::Object(defaults) = defaults.to_value().unwrap() else { panic!("{name}: no mapping") };
    let other = |option: &str, default: &Value| match default {
        Value::Number(number) => json!(number.as_f64().unwrap() / 2.0 + 0.03),
        Value::Bool(flag) => json!(!flag),
        Value::String(word) => match build(name, &json!({option: "?"})) {
            // The error lists the words, other spellings in capitals among them.
            Err(Error::UnknownName { known, .. }) => {
                known.into_iter().find(|known| known != word && known.to_lowercase() == *known).unwrap().into()
            }
            other => panic!("{name}.{option} has no row in `special`: {other:?}"),
        },
        _ => panic!("{name}.{option} has no row in `special`"),
    };
    let fields = defaults.iter().filter(|(option, _)| *option != "type");
    Value::Object(fields.map(|(option, default)| (option.clone(), other(option, default))).collect())
}

/// The losses whose options must be given, or act in a surrounding of their own.
#[rustfmt::skip]
fn special() -> Vec<(&'static str, Value, Value)> {
    vec![
        ("GANLoss", json!({"gan_type": "lsgan"}), json!({"gan_type": "hinge", "loss_weight": 2.0, "real_label_val": 0.9, "fake_label_val": 0.1})),
        ("GANLoss", json!({"gan_type": "smgan"}), json!({"gaussian_blur": {"kernel_size": [3, 3], "sigma": [1.0, 1.0]}, "gaussian_blur.kernel_size": [5, 3], "gaussian_blur.sigma": [1.0, 2.0]})),
        ("GANLossComps", json!({"gan_type": "vanilla"}), json!({"gan_type": "wgan", "loss_weight": 2.0, "real_label_val": 0.9, "fake_label_val": 0.1})),
        ("GANLossComps", json!({"gan_type": "smgan"}), json!({"gaussian_blur": {"kernel_size": [3, 3]}, "gaussian_blur.kernel_size": [5, 3], "gaussian_blur.sigma": [1.0, 2.0]})),
        ("GaussianBlur", json!({}), json!({"kernel_size": [3, 3], "sigma": [1.0, 1.0]})),
        ("AdvLoss", json!({"loss_type": "gan"}), json!({"loss_type": "wgan-gp"})),
        ("AdvLoss", json!({"loss_type": "ragan"}), json!({"loss_type": "ragan-ls"})),
        ("GradientPenaltyLoss", json!({}), json!({"loss_weight": 2.0, "norm_mode": "HWC", "interpolation": "dragan", "alpha": 0.5, "loss_scale": 1e20})),
        // Without `data_info` the component refuses another `norm_mode` than the default.
        ("GradientPenaltyLossComps", json!({"data_info": {"discriminator": "discriminator", "real_data": "real_data", "fake_data": "fake_data"}}), json!({"loss_weight": 2.0, "norm_mode": "HWC", "interpolation": "dragan", "alpha": 0.5, "loss_scale": 1e20})),
        ("R1GradientPenaltyComps", json!({"interval": 4}), json!({"loss_weight": 2.0, "norm_mode": "HWC", "interval": 3, "multiply_by_interval": true, "loss_scale": 1e20, "use_apex_amp": true})),
        ("R2GradientPenaltyComps", json!({"interval": 4}), json!({"loss_weight": 2.0, "norm_mode": "HWC", "interval": 3, "multiply_by_interval": true, "loss_scale": 1e20, "use_apex_amp": true})),
        ("GeneratorPathRegularizerComps", json!({"interval": 4}), json!({"loss_weight": 2.0, "pl_batch_shrink": 2, "pl_batch_size": 1, "decay": 0.5, "sync_mean_buffer": true, "interval": 3, "multiply_by_interval": true, "loss_scale": 1e20, "use_apex_amp": true})),
        ("PerceptualLoss", json!({"layer_weights": {"0": 1.0, "2": 1.0}, "pretrained": "seeded:7"}), json!({"layer_weights": {"0": 1.0, "2": 0.5}, "layer_weights_style": {"0": 1.0}, "vgg_type": "vgg19_bn", "use_input_norm": false, "perceptual_weight": 0.5, "style_weight": 0.5, "norm_img": false, "pretrained": "seeded:8", "prefix": "generator", "criterion": "mse"})),
        ("LightCNNFeatureLoss", json!({"pretrained": "seeded:7"}), json!({"pretrained": "seeded:8", "prefix": "generator", "loss_weight": 2.0, "criterion": "mse"})),
        ("FaceIdLoss", json!({"facenet": {"ir_se50_weights": "seeded:7"}}), json!({"loss_weight": 2.0, "facenet": {"ir_se50_weights": "seeded:8"}, "facenet.prefix": "generator"})),
        ("FaceIdLossComps", json!({"facenet": {"ir_se50_weights": "seeded:7"}}), json!({"loss_weight": 2.0, "facenet": {"ir_se50_weights": "seeded:7", "mode": "ir"}})),
        ("CLIPLoss", json!({"clip_model": {"in_size": 8, "scale_factor": 2, "pool_size": 16}}), json!({"loss_weight": 2.0, "clip_model": {"in_size": 8, "scale_factor": 2, "pool_size": 16, "normalize": true}, "clip_model.activation": "gelu", "clip_model.head_width": 32})),
        ("CLIPLossComps", json!({"clip_model": {"in_size": 8, "scale_factor": 2, "pool_size": 16}}), json!({"loss_weight": 2.0, "clip_model": {"in_size": 8, "scale_factor": 2, "pool_size": 16, "normalize": true}, "clip_model.activation": "gelu", "clip_model.head_width": 32})),
        ("LPIPS", json!({"pretrained": "seeded:7", "linear_weights": "seeded:7"}), json!({"net": "squeeze", "version": "0.0", "lpips": false, "spatial": true, "normalize": true, "pretrained": "seeded:8", "prefix": "generator", "linear_weights": "seeded:8", "loss_weight": 2.0})),
        ("DISTS", json!({"pretrained": "seeded:7", "dists_weights": "seeded:7"}), json!({"pretrained": "seeded:8", "prefix": "generator", "dists_weights": "seeded:8", "loss_weight": 2.0})),
    ]
}

/// The losses whose networks make them slow: evaluated once, in single precision.
const HEAVY: [&str; 8] = [
    "PerceptualLoss",
    "LightCNNFeatureLoss",
    "FaceIdLoss",
    "FaceIdLossComps",
    "CLIPLoss",
    "CLIPLossComps",
    "LPIPS",
    "DISTS",
];

/// The mapping with more or other fields; a dotted name goes inside.
fn merged(base: &Value, more: &Value) -> Value {
    let mut value = base.clone();
    for (name, option) in more.as_object().unwrap() {
        let mut place = &mut value;
        for step in name.split('.') {
            place = &mut place[step];
        }
        *place = option.clone();
    }
    value
}

fn document(name: &str, options: &Value) -> Value {
    merged(&json!({"type": name}), options)
}

fn context(name: &str) -> BuildContext {
    let mut context = BuildContext::default();
    if name.starts_with("CLIP") {
        context.seeded = Some(7);
        context.architecture = Some(json!({
            "context_length": 4, "embed_dim": 8, "image_resolution": 16, "transformer_layers": 1,
            "transformer_width": 64, "vision_layers": 1, "vision_patch_size": 8, "vision_width": 64, "vocab_size": 10,
        }));
    }
    context
}

fn build(name: &str, options: &Value) -> Result<Component> {
    Registry::standard().build(&document(name, options), "loss", &context(name))
}

/// Numbers in (0, 1) that look random.
fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| 0.02 + 0.96 * (((i + 1) * 7919 + seed * 104_729) % 1009) as f64 / 1009.0).collect()
}

struct Pair;

impl Communicator for Pair {
    fn size(&self) -> usize {
        2
    }
    fn sum(&self, value: f64) -> Result<f64> {
        Ok(2.0 * value + 1.0)
    }
}

/// All values of some evaluations with what was carried remembered between, with their names and shapes.
type Results = Vec<(String, Vec<usize>, Vec<f64>)>;

fn results(loss: &mut Component) -> Result<Results> {
    if HEAVY.contains(&loss.type_name()) {
        let make = |seed: usize, shape: &[usize]| {
            let values: Vec<f32> = numbers(shape.iter().product(), seed).iter().map(|&v| v as f32).collect();
            NdTensor::from_vec(values, shape).map(AnyTensor::from)
        };
        let inputs = world(make, small(loss.type_name()))?;
        return evaluate(loss, inputs, 1);
    }
    with_world(|inputs| evaluate(loss, inputs.clone(), 3))
}

/// Inputs for every argument there is, that gradients can be asked for.
fn with_world<R>(body: impl FnOnce(&mut Inputs<'_, AnyTensor<'static>>) -> Result<R>) -> Result<R> {
    let make = |seed: usize, shape: &[usize]| Ok(leaf(numbers(shape.iter().product(), seed), shape));
    // The two factors cancel, unless a loss scale overflows between them: 1024 (`use_apex_amp`) already does.
    let critic = network(|x| AnyTensor::unary(x, Unary::Square)?.scale(1e-306)?.scale(1e306)?.sum(&[1, 2, 3], false));
    let generator = network(|w| {
        let batch = AnyTensor::shape(w)[0];
        w.mul(w)?.reshape(&[batch, 1, 2, 3])?.scale(1e-306)?.scale(1e306)
    });
    let read_one = |x: &AnyTensor<'static>| Ok(x.values()?[0]);
    let processes = Processes { communicator: &Pair, read: &read_one };
    let mut inputs = world(make, 4)?;
    for name in ["discriminator", "net"] {
        inputs.insert(name, Item::Network(Rc::new(&critic)));
    }
    inputs.insert("generator", Item::Network(Rc::new(&generator)));
    inputs.insert("processes", Item::Processes(processes));
    body(&mut inputs)
}

/// The extent of images that a network takes.
fn small(name: &str) -> usize {
    match name {
        "LightCNNFeatureLoss" => 128,
        "LPIPS" => 64,
        _ => 8,
    }
}

/// Inputs for every argument there is.
fn world<'a, 'g>(
    make: impl Fn(usize, &[usize]) -> Result<AnyTensor<'g>>,
    image: usize,
) -> Result<Inputs<'a, AnyTensor<'g>>> {
    let mut inputs = Inputs::new().number("iteration", 4.0).number("num_batches", 2.0);
    let images = [
        "pred",
        "target",
        "input",
        "x",
        "gt",
        "image",
        "fake",
        "real",
        "real_data",
        "fake_data",
        "fg",
        "bg",
        "ori_merged",
    ];
    for (seed, name) in images.into_iter().enumerate() {
        inputs.insert(name, Item::Tensor(make(seed, &[2, 3, image, image])?));
    }
    for (seed, name) in ["weight", "mask", "pred_alpha"].into_iter().enumerate() {
        inputs.insert(name, Item::Tensor(make(20 + seed, &[2, 1, image, image])?));
    }
    inputs.insert("latents", Item::Tensor(make(30, &[2, 2, 3])?));
    inputs.insert("soft_attention", Item::Tensor(make(31, &[2, 1, 2, 2])?));
    for (seed, name) in [(32, "maps"), (34, "textures")] {
        inputs.insert(name, Item::Tensors(vec![make(seed, &[2, 3, 2, 2])?, make(seed + 1, &[2, 2, 4, 4])?]));
    }
    inputs.insert("text", Item::Tokens(vec![vec![1, 2, 9, 0], vec![1, 5, 6, 9]]));
    Ok(inputs)
}

fn evaluate<'g>(loss: &mut Component, mut inputs: Inputs<'_, AnyTensor<'g>>, times: usize) -> Result<Results> {
    let takes = |kind: &str| loss.arguments().iter().any(|argument| argument.name == kind);
    let calls: Vec<Vec<(&str, Item<'_, AnyTensor<'g>>)>> = if takes("is_disc") {
        let roles = [(true, true), (true, false), (false, true), (false, false)];
        roles.map(|(real, disc)| vec![("target_is_real", Item::Flag(real)), ("is_disc", Item::Flag(disc))]).into()
    } else if takes("model") {
        ["discriminator", "generator"].map(|model| vec![("model", Item::Text(model.into()))]).into()
    } else {
        vec![Vec::new()]
    };
    let is_clip = takes("text");
    let mut all = Vec::new();
    for time in 0..times {
        // What is averaged over calls must change.
        if let (true, Some(real), Some(fake)) = (time > 0, inputs.get("real").cloned(), inputs.get("fake").cloned()) {
            inputs.insert("real", fake);
            inputs.insert("fake", real);
        }
        for call in &calls {
            for (name, item) in call {
                inputs.insert(*name, item.clone());
            }
            let outcome = loss.evaluate(&inputs)?;
            if let Outcome::Skipped = outcome {
                all.push(("skipped".to_owned(), Vec::new(), Vec::new()));
                continue;
            }
            let (values, state) = outcome.into_parts();
            for (name, tensor) in &values {
                // One number is a scalar; CLIP's is a table of images and texts, a path length belongs to a sample, and of these
                // there may be one.
                let is_scalar = tensor.rank() == 0 || tensor.elements() > 1 || is_clip || *name == "path_lengths";
                assert!(is_scalar, "{name}: {:?}", tensor.shape());
                all.push(((*name).to_owned(), tensor.shape(), tensor.values()?));
            }
            let carried = state
                .into_iter()
                .map(|(name, tensor)| Ok(Carried { name, values: tensor.values()?, shape: tensor.shape() }));
            loss.remember(&carried.collect::<Result<Vec<_>>>()?)?;
        }
    }
    Ok(all)
}

/// What the report says of a loss, called twice in each of its roles: the values with their weights.
fn reported(name: &str, term: &str, options: &Value) -> Vec<(String, f64, f64)> {
    let document = json!({term: document(name, options)});
    let mut objective = Objective::sum(&Registry::standard(), &document, "losses", &context(name)).unwrap();
    let takes = |argument: &str| objective.needs(Side::Generator).iter().any(|need| need.output == argument);
    // Whether the target is real, whether it is the discriminator's step.
    let roles = [(true, true), (true, false), (false, true), (false, false)];
    let roles = if takes("is_disc") {
        &roles[..]
    } else if takes("model") {
        &roles[..2]
    } else {
        &roles[..1]
    };
    let mut all = Vec::new();
    if HEAVY.contains(&name) {
        let make = |seed: usize, shape: &[usize]| {
            let values: Vec<f32> = numbers(shape.iter().product(), seed).iter().map(|&v| v as f32).collect();
            NdTensor::from_vec(values, shape).map(AnyTensor::from)
        };
        let inputs = world(make, small(name)).unwrap();
        let evaluated = objective.evaluate(Side::Generator, &inputs).unwrap();
        let report = objective.finish(&evaluated, &evaluated.values().unwrap()).unwrap();
        all.extend(report.terms.into_iter().map(|term| (term.name, term.value, term.weights[0])));
        return all;
    }
    with_world(|inputs| {
        for _ in 0..2 {
            for &(real, disc) in roles {
                inputs.insert("target_is_real", Item::Flag(real));
                inputs.insert("is_disc", Item::Flag(disc));
                inputs.insert("model", Item::Text(if disc { "discriminator" } else { "generator" }.into()));
                let evaluated = objective.evaluate(Side::Generator, inputs)?;
                let report = objective.finish(&evaluated, &evaluated.values()?)?;
                all.extend(report.terms.into_iter().map(|term| (term.name, term.value, term.weights[0])));
            }
        }
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{name}: {error}"));
    all
}

#[test]
fn every_value_is_its_reported_weight_times_the_value_at_weight_1() {
    const WEIGHTS: [&str; 3] = ["loss_weight", "perceptual_weight", "style_weight"];
    for (name, base, alternatives) in table() {
        let heavy = HEAVY.contains(&name);
        let mut documents = vec![base.clone()];
        if !heavy {
            let alternatives = alternatives.as_object().unwrap().iter();
            documents.extend(alternatives.map(|(option, value)| merged(&base, &json!({option: value}))));
        }
        let registry = Registry::standard();
        let fields = registry.get(name).unwrap().fields();
        let with = |options: &Value, weights: [f64; 3]| {
            let own = WEIGHTS.iter().zip(weights).filter(|(option, _)| fields.contains(option));
            own.fold(options.clone(), |options, (option, weight)| merged(&options, &json!({*option: weight})))
        };
        let mut weighed = false;
        for (position, options) in documents.iter().enumerate() {
            let mut plain = with(options, [1.0; 3]);
            plain.as_object_mut().unwrap().remove("multiply_by_interval");
            let all_weights = [[1.75, 0.25, 2.5], [-0.5, 0.5, 0.75], [1.0; 3]];
            for weights in &all_weights[..if heavy { 1 } else { 3 }] {
                let options = with(options, *weights);
                // Under a name that counts, and under one that is only logged.
                let names = ["loss_term", "term"];
                for term in &names[..if heavy || position > 0 { 1 } else { 2 }] {
                    let (found, unit) = (reported(name, term, &options), reported(name, term, &plain));
                    assert_eq!(found.len(), unit.len(), "{name} with {options}");
                    for ((at, value, weight), (_, plain, one)) in found.iter().zip(&unit) {
                        let expected = weight * plain;
                        let rounding = if heavy { 1e-6 } else { 1e-12 } * (value.abs() + weight.abs());
                        let same = (value - expected).abs() <= rounding || !value.is_finite() && !expected.is_finite();
                        assert!(same, "{name} with {options}: {at} is {value}, expected {weight} · {plain}");
                        assert_eq!(*one, 1.0, "{name} with {options}: {at}");
                        weighed |= *weight != 1.0;
                    }
                }
            }
        }
        assert_eq!(weighed, fields.iter().any(|field| WEIGHTS.contains(field)), "{name}");
    }
}

/// Whether two results differ by more than rounding.
fn differ(a: &Results, b: &Results) -> bool {
    let near = |a: &f64, b: &f64| {
        a.to_bits() == b.to_bits() || (a - b).is_finite() && (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
    };
    a.len() != b.len()
        || a.iter().zip(b).any(|((name, shape, values), (other, extents, others))| {
            name != other
                || shape.iter().product::<usize>() != extents.iter().product::<usize>()
                || !values.iter().zip(others).all(|(a, b)| near(a, b))
        })
}

#[test]
fn every_option_of_every_loss_changes_a_result() {
    let registry = Registry::standard();
    let table = table();
    let mut covered: BTreeSet<(String, String)> = BTreeSet::new();
    for (name, base, alternatives) in &table {
        let reference = results(&mut build(name, base).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!reference.is_empty(), "{name} gives nothing");
        for (option, value) in alternatives.as_object().unwrap() {
            covered.insert(((*name).to_owned(), option.split('.').next().unwrap().to_owned()));
            let options = merged(base, &json!({option: value}));
            let changed = build(name, &options).and_then(|mut loss| results(&mut loss));
            let changed = changed.unwrap_or_else(|error| panic!("{name} with {option} = {value}: {error}"));
            assert!(differ(&reference, &changed), "{name}: {option} = {value} changes nothing: {reference:?}");
        }
    }
    for entry in registry.types() {
        for field in entry.fields() {
            let key = (entry.name().to_owned(), (*field).to_owned());
            assert!(covered.contains(&key), "the table has no row for {}.{field}", entry.name());
        }
    }
}

#[test]
fn the_common_fields_act_for_every_loss() {
    for (name, base, _) in table() {
        if HEAVY.contains(&name) {
            continue; // The same code, at more expense.
        }
        let loss = build(name, &base).unwrap();
        let arguments = loss.arguments();
        // Named by the argument, but for one: the result is that of another input.
        let tensors: Vec<&str> = arguments
            .iter()
            .filter(|a| a.required && matches!(a.kind, Kind::Tensor | Kind::Tensors) && a.name != "soft_attention")
            .map(|a| a.name)
            .collect();
        let mut data_info = json!({});
        for argument in arguments.iter().filter(|argument| argument.required || argument.name == "fake_data") {
            data_info[argument.name] = argument.name.into();
        }
        if arguments.iter().any(|argument| argument.name == "is_disc") {
            data_info["is_disc"] = "is_disc".into();
            data_info["mask"] = "mask".into();
        }
        let named = merged(&base, &json!({"data_info": data_info}));
        let reference = results(&mut build(name, &named).unwrap()).unwrap();
        let other = match tensors[0] {
            "maps" => "textures",
            "pred_alpha" => "mask",
            // Half the latents would be of another shape: the same in reverse is not there. Any other tensor is refused.
            "latents" => "real",
            "real" | "fg" => "target",
            _ => "real",
        };
        let mut moved = named.clone();
        moved["data_info"][tensors[0]] = other.into();
        let changed = build(name, &moved).and_then(|mut loss| results(&mut loss));
        assert!(changed.is_err() || differ(&reference, &changed.unwrap()), "{name}: data_info picks nothing");

        let skipping = merged(&named, &json!({"interval": 3}));
        let skipped = results(&mut build(name, &skipping).unwrap()).unwrap();
        assert!(skipped.iter().all(|(name, ..)| name == "skipped"), "{name}: the interval skips nothing");

        let other = build(name, &merged(&base, &json!({"loss_name": "loss_other"}))).unwrap();
        assert_eq!((loss.loss_name() == "loss_other", other.loss_name().as_str()), (false, "loss_other"));
    }
}

#[test]
fn every_configuration_is_written_back_complete() {
    let registry = Registry::standard();
    for (name, base, alternatives) in table() {
        let mut documents = vec![base.clone()];
        documents.extend(
            alternatives.as_object().unwrap().iter().map(|(option, value)| merged(&base, &json!({option: value}))),
        );
        for options in documents.into_iter().take(if HEAVY.contains(&name) { 2 } else { usize::MAX }) {
            let options = merged(&options, &json!({"loss_name": "loss_x"}));
            let written = build(name, &options).unwrap().to_value().unwrap();
            let again = registry.build(&written, "loss", &context(name)).unwrap().to_value().unwrap();
            assert_eq!(written, again);
            assert_eq!(written["type"], name);
            for (option, value) in options.as_object().unwrap() {
                let kept = &written[option];
                let inside = value.as_object().is_some_and(|map| map.iter().all(|(key, value)| kept[key] == *value));
                assert!(kept == value || inside, "{name}: {option} = {value} became {kept}");
            }
        }
    }
}
