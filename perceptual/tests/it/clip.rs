//! `CLIPLoss` on a small model: gradients, texts, sizes, errors.
#![cfg(feature = "clip")]

use crate::common::{elements, tensor, values};
use image_losses_autograd::{differentiate, run};
use image_losses_core::gradcheck::check_gradient;
use image_losses_core::{Differentiable, Error, Interpolation, Result, Tensor};
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::checkpoint::Checkpoint;
use image_losses_perceptual::networks::{Clip, ClipActivation, ClipShape, Tokens, fitting, located};
use image_losses_perceptual::{ClipLoss, ClipModelOptions, ClipOptions, Weights};

const SMALL: ClipShape = ClipShape {
    embed_dim: 6,
    image_resolution: 4,
    vision_layers: 2,
    vision_width: 128,
    vision_patch_size: 2,
    context_length: 7,
    vocab_size: 11,
    transformer_width: 64,
    transformer_layers: 2,
};

fn weights() -> Weights {
    Checkpoint::seeded(&SMALL.architecture(), 7).unwrap().into()
}

fn options(normalize: bool) -> ClipOptions {
    // 6 pixels, enlarged twice, averaged over windows of 12 // 4 = 3.
    let clip_model = ClipModelOptions { in_size: 6, scale_factor: 2, pool_size: 4, normalize, ..Default::default() };
    ClipOptions { loss_weight: 0.9, clip_model }
}

fn texts() -> Tokens {
    Tokens::from_ids(vec![vec![9, 3, 10, 0, 0, 0, 0], vec![9, 5, 1, 2, 10, 0, 0], vec![9, 10, 0, 0, 0, 0, 0]]).unwrap()
}

#[test]
fn gradient_against_differences() {
    let shape = [2, 3, 6, 6];
    for normalize in [false, true] {
        let loss = ClipLoss::new(options(normalize), &weights()).unwrap();
        let bound = loss.bind::<NdTensor<f64>>(&()).unwrap();
        let text = bound.encode_text(&texts()).unwrap();
        let worst = check_gradient(
            &[values(1, &shape)],
            1e-6,
            |x| bound.forward_with(&tensor(&x[0], &shape), &text)?.sum_all()?.item(),
            |x| {
                let inputs = [(x[0].clone(), shape.to_vec())];
                Ok(differentiate(&inputs, |x| loss.forward(&x[0], &texts())?.sum_all())?.1)
            },
        );
        let worst = worst.unwrap().unwrap();
        assert!(worst.error < 1e-7, "{worst:?}");
    }
}

#[test]
fn texts_stand_alone() {
    let loss = ClipLoss::new(options(false), &weights()).unwrap().bind::<NdTensor<f64>>(&()).unwrap();
    let shape = [2, 3, 6, 6];
    let image = tensor(&values(1, &shape), &shape);
    let together = loss.forward(&image, &texts()).unwrap();
    assert_eq!(together.shape(), [2, 3]);
    for (column, row) in texts().ids().iter().enumerate() {
        // Alone, and without the zeros after its end.
        let end = row.iter().position(|id| *id == 10).unwrap();
        let alone = Tokens::from_ids(vec![row[..=end].to_vec()]).unwrap();
        let alone = elements(&loss.forward(&image, &alone).unwrap());
        let column = elements(&together.narrow(1, column, 1).unwrap());
        assert!(alone.iter().zip(&column).all(|(a, b)| (a - b).abs() < 1e-13), "{alone:?} {column:?}");
    }
    // What comes after the end has no influence; what comes before it has.
    let value =
        |ids: [u32; 7]| elements(&loss.forward(&image, &Tokens::from_ids(vec![ids.to_vec()]).unwrap()).unwrap())[0];
    assert_eq!(value([9, 3, 10, 0, 0, 0, 0]), value([9, 3, 10, 4, 8, 1, 0]));
    assert_ne!(value([9, 3, 10, 0, 0, 0, 0]), value([9, 4, 10, 0, 0, 0, 0]));
    assert_ne!(value([4, 3, 10, 0, 0, 0, 0]), value([4, 3, 9, 0, 0, 0, 0]));
    assert_ne!(value([9, 3, 4, 10, 0, 0, 0]), value([9, 4, 3, 10, 0, 0, 0]));
}

/// The joined resampling is the enlargement and the averaging one after the other, for sizes that do not divide.
#[test]
fn resampling_is_nearest_then_average() {
    for (extent, scale, window) in [(6, 2, 3), (9, 4, 8), (5, 7, 8), (6, 3, 4)] {
        let clip_model = ClipModelOptions {
            in_size: window * 4,
            scale_factor: scale,
            pool_size: scale * 4,
            ..ClipModelOptions::default()
        };
        let size = extent * scale / window;
        let shape = [1, 3, extent, extent];
        let image = tensor(&values(3, &shape), &shape);
        let enlarged = image.resize([extent * scale; 2], Interpolation::Nearest).unwrap();
        let resampled = enlarged.avg_pool2d([window; 2]).unwrap();
        let model = ClipShape { image_resolution: size, vision_patch_size: 1, vision_layers: 1, ..SMALL };
        let checkpoint = Checkpoint::seeded(&model.architecture(), 7).unwrap();
        let network = Clip::load(&checkpoint).unwrap().bind::<NdTensor<f64>>(&()).unwrap();
        let (images, texts_) = (network.encode_image(&resampled).unwrap(), network.encode_text(&texts()).unwrap());
        let cosines = elements(&images.matmul(&texts_, false, true).unwrap());
        let loss = ClipLoss::new(ClipOptions { loss_weight: 1.0, clip_model }, &checkpoint.into()).unwrap();
        let value = elements(&loss.forward(&image, &texts()).unwrap());
        let temperature = 1.0 / 0.07 / 100.0;
        for (value, cosine) in value.iter().zip(cosines) {
            assert!((value - (1.0 - temperature * cosine)).abs() < 1e-6, "{value} {cosine}");
        }
    }
}

#[test]
fn normalisation_is_clips_own() {
    let shape = [1, 3, 6, 6];
    let x = values(5, &shape);
    let (mean, deviation) = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]);
    let normal: Vec<f64> = x.iter().enumerate().map(|(i, x)| (x - mean[i / 36]) / deviation[i / 36]).collect();
    let value = |normalize, x: &[f64]| {
        let loss = ClipLoss::new(options(normalize), &weights()).unwrap();
        elements(&loss.forward(&tensor(x, &shape), &texts()).unwrap())
    };
    let (with, without) = (value(true, &x), value(false, &normal));
    assert!(with.iter().zip(&without).all(|(a, b)| (a - b).abs() < 1e-12));
    assert!(with != value(false, &x));
}

#[test]
fn wrong_inputs_are_refused() {
    let loss = ClipLoss::new(options(false), &weights()).unwrap().bind::<NdTensor<f64>>(&()).unwrap();
    let image = |shape: &[usize]| tensor(&vec![0.25; shape.iter().product()], shape);
    let good = image(&[1, 3, 6, 6]);
    let refused = |image: &NdTensor<'static, f64>, text: &Tokens| loss.forward(image, text).unwrap_err();
    assert!(matches!(refused(&image(&[1, 3, 6, 9]), &texts()), Error::ShapeRule { argument: "image", .. }));
    assert!(matches!(refused(&image(&[1, 1, 6, 6]), &texts()), Error::ShapeRule { .. }));
    assert!(matches!(refused(&image(&[0, 3, 6, 6]), &texts()), Error::Empty { .. }));
    let long = Tokens::from_ids(vec![vec![1; 8]]).unwrap();
    assert!(matches!(refused(&good, &long), Error::InvalidOption { option: "text", .. }));
    let unknown = Tokens::from_ids(vec![vec![9, 11]]).unwrap();
    assert!(matches!(refused(&good, &unknown), Error::InvalidOption { option: "text", .. }));
    assert!(matches!(Tokens::from_ids(vec![vec![1, 2], vec![1]]), Err(Error::Length { .. })));
    assert!(matches!(Tokens::from_ids(vec![]), Err(Error::Empty { .. })));
    assert!(matches!(Tokens::from_ids(vec![vec![]]), Err(Error::Empty { .. })));
}

#[test]
fn models_are_recognised_by_their_shapes() {
    let shape_of = |architecture: &[(String, Vec<usize>)]| {
        Checkpoint::seeded(architecture, 0).and_then(|checkpoint| ClipShape::of(&checkpoint))
    };
    for shape in [SMALL, ClipShape::VIT_B_32, ClipShape::VIT_B_16, ClipShape::VIT_L_14, ClipShape::VIT_L_14_336] {
        assert_eq!(shape_of(&shape.architecture()).unwrap(), shape);
    }
    let names = |shape: ClipShape| fitting(&Checkpoint::seeded(&shape.architecture(), 0).unwrap());
    assert_eq!(names(ClipShape::VIT_L_14), ["CLIP ViT-L/14"]);
    assert_eq!(names(SMALL), ["CLIP of another size"]);
    // OpenAI's archives carry three whole numbers beside.
    let mut architecture = SMALL.architecture();
    architecture.push(("context_length".into(), vec![]));
    assert!(Clip::load(&Checkpoint::seeded(&architecture, 0).unwrap()).is_ok());
    architecture.push(("visual.extra".into(), vec![1]));
    let refused: Result<Clip> = Clip::load(&Checkpoint::seeded(&architecture, 0).unwrap());
    assert!(matches!(refused, Err(Error::CheckpointMismatch { unexpected, .. }) if unexpected == ["visual.extra"]));

    let resnet = [("visual.layer1.0.conv1.weight".to_owned(), vec![64, 64, 1, 1])];
    let refused = shape_of(&resnet).unwrap_err();
    assert!(matches!(&refused, Error::Format { message, .. } if message.contains("ResNet")), "{refused}");
    let vgg = [("features.0.weight".to_owned(), vec![64, 3, 3, 3])];
    assert!(matches!(shape_of(&vgg), Err(Error::CheckpointMismatch { .. })));
    // Every change of one tensor is an error, never a panic.
    for place in 0..SMALL.architecture().len() {
        for change in [vec![], vec![1], vec![0, 0], vec![3, 5], vec![1 << 20, 0], vec![2, 3, 0, 0]] {
            let mut architecture = SMALL.architecture();
            if architecture[place].1 == change {
                continue;
            }
            architecture[place].1 = change;
            let checkpoint = Checkpoint::seeded(&architecture, 0).unwrap();
            assert!(Clip::load(&checkpoint).is_err(), "{:?}", architecture[place]);
        }
    }
}

#[test]
fn options_are_checked_and_survive_serde() {
    let text = serde_json::to_string(&options(true)).unwrap();
    assert_eq!(serde_json::from_str::<ClipOptions>(&text).unwrap(), options(true));
    assert!(serde_json::from_str::<ClipOptions>(r#"{"clip_model": {"size": 3}}"#).is_err());
    // MMagic's defaults.
    let defaults: ClipOptions = serde_json::from_str("{}").unwrap();
    let model = &defaults.clip_model;
    assert_eq!((defaults.loss_weight, model.in_size, model.scale_factor, model.pool_size), (1.0, 1024, 7, 224));
    for (in_size, scale_factor, pool_size) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 2), (usize::MAX, 2, 1)] {
        let clip_model = ClipModelOptions { in_size, scale_factor, pool_size, ..ClipModelOptions::default() };
        let bad = ClipOptions { clip_model, ..ClipOptions::default() };
        assert!(matches!(bad.validate(), Err(Error::InvalidOption { option: "pool_size", .. })));
    }
    let bad = ClipOptions { loss_weight: f64::NAN, ..options(false) };
    assert!(matches!(ClipLoss::new(bad, &weights()), Err(Error::InvalidOption { option: "loss_weight", .. })));
}

/// As OpenAI's `clip.tokenize` has them.
#[test]
fn tokens() {
    let ids = |text: &str| Tokens::tokenize(&[text], 77).unwrap().ids()[0].clone();
    let head = |text: &str| ids(text).into_iter().take_while(|id| *id != 0).collect::<Vec<_>>();
    assert_eq!(ids("a diagram").len(), 77);
    assert_eq!(head("a diagram"), [49406, 320, 22697, 49407]);
    assert_eq!(head("A   Dog!\n"), head("a dog !"));
    assert_eq!(head(""), [49406, 49407]);
    assert_eq!(Tokens::tokenize(&["a dog"], 4).unwrap().ids()[0], [49406, 320, 1929, 49407]);
    assert!(matches!(Tokens::tokenize(&["a dog"], 3), Err(Error::InvalidOption { option: "text", .. })));
    assert!(matches!(Tokens::tokenize(&[""; 0], 77), Err(Error::Empty { .. })));
}

/// The attention's softmax neither overflows nor loses its derivative.
#[test]
fn softmax_is_stable() {
    let rows = NdTensor::new(ndarray::array![[1000.0f32, 1000.0, f32::NEG_INFINITY], [-1000.0, -1001.0, -1e30]]);
    let softmax = rows.softmax().unwrap();
    let expected = [0.5, 0.5, 0.0, 1.0 / (1.0 + (-1.0f32).exp()), 1.0 / (1.0 + 1f32.exp()), 0.0];
    assert!(softmax.array().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{softmax:?}");
    let worst = check_gradient(
        &[vec![0.5, -1.0, 2.0, 2.0, 800.0, 799.0]],
        1e-6,
        |x| Ok(elements(&tensor(&x[0], &[2, 3]).softmax()?).iter().enumerate().map(|(i, p)| i as f64 * p).sum()),
        |x| {
            Ok(differentiate(&[(x[0].clone(), vec![2, 3])], |x| {
                let ramp = Tensor::constant(&x[0].context(), &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[2, 3])?;
                x[0].softmax()?.mul(&ramp)?.sum_all()
            })?
            .1)
        },
    );
    assert!(worst.as_ref().unwrap().unwrap().error < 1e-8, "{worst:?}");
}

/// ‖a − b‖/‖b‖
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// The fused tower against the composed one, in single precision: values and the gradient of a sum whose terms weigh
/// differently.
#[test]
fn fused_tower_is_the_composed_one() -> Result<()> {
    // An odd patch whose pixels fill no vector, an embedding that fills none; one block, then several.
    let odd = ClipShape { image_resolution: 9, vision_patch_size: 3, embed_dim: 21, vision_layers: 1, ..SMALL };
    let deep = ClipShape { vision_width: 192, vision_layers: 3, ..SMALL };
    for (model, batch, in_size, pool_size, normalize) in
        [(SMALL, 1, 6, 4, false), (SMALL, 3, 6, 4, true), (odd, 2, 9, 9, false), (deep, 4, 6, 4, true)]
    {
        let weights = Checkpoint::seeded(&model.architecture(), 7)?.into();
        let clip_model = ClipModelOptions { in_size, scale_factor: 2, pool_size, normalize, ..Default::default() };
        let loss = ClipLoss::new(ClipOptions { loss_weight: 0.9, clip_model }, &weights)?;
        let shape = [batch, 3, in_size, in_size];
        let image: Vec<f32> = values(5, &shape).into_iter().map(|value| value as f32).collect();
        let on_autograd = |is_composed: bool| {
            run(|session| {
                let x = session.input(image.clone(), &shape)?;
                let bound = loss.bind(&x.context())?;
                let bound = if is_composed { bound.composed() } else { bound };
                let text = bound.encode_text(&texts())?;
                let value = bound.forward_with(&x, &text)?;
                let weights: Vec<f64> = (0..batch * 3).map(|index| index as f64 - 1.5).collect();
                let total = value.mul(&Tensor::constant(&x.context(), &weights, &[batch, 3])?)?.sum_all()?;
                let gradient = Differentiable::gradients(&total, &[&x], false)?.remove(0).expect("a gradient");
                session.evaluate(&[&value, &gradient])
            })
        };
        let (fused, composed) = (on_autograd(false)?, on_autograd(true)?);
        assert_ne!(fused, composed, "not fused");
        for (fused, composed) in fused.iter().zip(&composed) {
            let error = distance(fused, composed);
            assert!(error < 2e-6, "{model:?} {batch}: {error:e}");
        }
    }
    Ok(())
}

#[test]
fn a_second_derivative_is_refused_where_it_is_fused_and_right_where_it_is_composed() -> Result<()> {
    let weights = Checkpoint::seeded(&SMALL.architecture(), 7)?.into();
    let clip_model = ClipModelOptions { in_size: 6, scale_factor: 2, pool_size: 4, ..Default::default() };
    let loss = ClipLoss::new(ClipOptions { loss_weight: 1.0, clip_model }, &weights)?;
    let shape = [1, 3, 6, 6];
    let image: Vec<f32> = values(5, &shape).into_iter().map(|value| value as f32).collect();
    let second = |is_composed: bool| {
        run(|session| {
            let x = session.input(image.clone(), &shape)?;
            let bound = loss.bind(&x.context())?;
            let bound = if is_composed { bound.composed() } else { bound };
            let value = bound.forward(&x, &texts())?.sum_all()?;
            let first = Differentiable::gradients(&value, &[&x], true)?.remove(0).expect("x has influence");
            let second = Differentiable::gradients(&first.mul(&first)?.sum_all()?, &[&x], false)?;
            session.evaluate(&[second[0].as_ref().expect("x has influence")])
        })
    };
    assert!(matches!(second(false), Err(Error::SecondDerivative { operation: "CLIPLoss" })));
    assert!(second(true)?[0].iter().any(|value| *value != 0.0));
    Ok(())
}

/// x·Φ(x) = x/2 + x·φ(x)·(x + x³/3 + x⁵/(3·5) + …), φ the density: a series whose terms do not cancel.
fn gelu(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= x * x / f64::from(2 * n + 1);
        sum += term;
    }
    x / 2.0 + x * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}

/// The image tower as its paper writes it, in plain loops: the embedding of one image, of length 1.
fn embedding(checkpoint: &Checkpoint, shape: ClipShape, image: &[f64], head_width: usize, exact: bool) -> Vec<f64> {
    let get = |name: &str| -> Vec<f64> {
        checkpoint.get(name).unwrap().to_f32().unwrap().into_iter().map(f64::from).collect()
    };
    let (size, patch, width) = (shape.image_resolution, shape.vision_patch_size, shape.vision_width);
    let grid = size / patch;
    let norm = |row: &[f64], name: &str| -> Vec<f64> {
        let (weight, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let unit = row.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt());
        unit.zip(weight.iter().zip(&bias)).map(|(x, (weight, bias))| x * weight + bias).collect()
    };
    let linear = |row: &[f64], weight: &[f64], bias: &[f64]| -> Vec<f64> {
        let product = |output: &[f64]| output.iter().zip(row).map(|(w, x)| w * x).sum::<f64>();
        weight.chunks(row.len()).map(product).zip(bias).map(|(sum, bias)| sum + bias).collect()
    };
    let (conv, places) = (get("visual.conv1.weight"), get("visual.positional_embedding"));
    let mut tokens = vec![get("visual.class_embedding")];
    for (top, left) in (0..grid * grid).map(|at| (at / grid * patch, at % grid * patch)) {
        let pixels: Vec<f64> = (0..3 * patch * patch)
            .map(|i| (i / (patch * patch), i / patch % patch, i % patch))
            .map(|(c, y, x)| image[(c * size + top + y) * size + left + x])
            .collect();
        tokens.push(linear(&pixels, &conv, &vec![0.0; width]));
    }
    for (token, place) in tokens.iter_mut().zip(places.chunks(width)) {
        token.iter_mut().zip(place).for_each(|(x, place)| *x += place);
        *token = norm(token, "visual.ln_pre");
    }
    for layer in 0..shape.vision_layers {
        let name = |part: &str| format!("visual.transformer.resblocks.{layer}.{part}");
        let (weight, bias) = (get(&name("attn.in_proj_weight")), get(&name("attn.in_proj_bias")));
        let joint: Vec<_> = tokens.iter().map(|token| linear(&norm(token, &name("ln_1")), &weight, &bias)).collect();
        let (weight, bias) = (get(&name("attn.out_proj.weight")), get(&name("attn.out_proj.bias")));
        for (token, own) in tokens.iter_mut().zip(&joint) {
            let mut seen = Vec::with_capacity(width);
            for head in (0..width).step_by(head_width) {
                let part = |joint: &[f64], part: usize| joint[part * width + head..][..head_width].to_vec();
                let query = part(own, 0);
                let score = |other: &Vec<f64>| {
                    let dot: f64 = query.iter().zip(part(other, 1)).map(|(q, k)| q * k).sum();
                    (dot / (head_width as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = joint.iter().map(score).collect();
                let sum: f64 = scores.iter().sum();
                let values: Vec<_> = joint.iter().map(|other| part(other, 2)).collect();
                seen.extend(
                    (0..head_width)
                        .map(|i| scores.iter().zip(&values).map(|(score, value)| score / sum * value[i]).sum::<f64>()),
                );
            }
            let out = linear(&seen, &weight, &bias);
            token.iter_mut().zip(out).for_each(|(x, out)| *x += out);
        }
        let [[w1, b1], [w2, b2]] =
            ["mlp.c_fc", "mlp.c_proj"].map(|part| ["weight", "bias"].map(|own| get(&format!("{}.{own}", name(part)))));
        for token in &mut tokens {
            let mut hidden = linear(&norm(token, &name("ln_2")), &w1, &b1);
            hidden.iter_mut().for_each(|x| *x = if exact { gelu(*x) } else { *x / (1.0 + (-1.702 * *x).exp()) });
            let out = linear(&hidden, &w2, &b2);
            token.iter_mut().zip(out).for_each(|(x, out)| *x += out);
        }
    }
    let last = norm(&tokens[0], "visual.ln_post");
    let projection = get("visual.proj");
    let mut found = vec![0.0; shape.embed_dim];
    for (x, row) in last.iter().zip(projection.chunks(shape.embed_dim)) {
        found.iter_mut().zip(row).for_each(|(sum, weight)| *sum += x * weight);
    }
    let length = found.iter().map(|x| x * x).sum::<f64>().sqrt();
    found.iter_mut().for_each(|x| *x /= length);
    found
}

/// What a checkpoint does not tell: each activation and head width is that of the formula, and no two are the same.
#[test]
fn activation_and_heads_are_those_of_the_formula() {
    let checkpoint = Checkpoint::seeded(&SMALL.architecture(), 7).unwrap();
    let shape = [1, 3, 4, 4];
    let image = values(9, &shape);
    let mut seen: Vec<Vec<f64>> = Vec::new();
    for activation in [ClipActivation::QuickGelu, ClipActivation::Gelu] {
        for head_width in [64, 32, 128] {
            let network =
                Clip::load_as(&checkpoint, activation, head_width).unwrap().bind::<NdTensor<f64>>(&()).unwrap();
            let found = elements(&network.encode_image(&tensor(&image, &shape)).unwrap());
            let expected = embedding(&checkpoint, SMALL, &image, head_width, activation == ClipActivation::Gelu);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-12, "{activation:?} {head_width}: {found} {expected}");
            }
            let differs = |other: &Vec<f64>| found.iter().zip(other).any(|(a, b)| (a - b).abs() > 1e-6);
            assert!(seen.iter().all(differs), "{activation:?} {head_width}");
            seen.push(found);
        }
    }
    for head_width in [0, 48, 256] {
        let refused = Clip::load_as(&checkpoint, ClipActivation::Gelu, head_width);
        assert!(matches!(refused, Err(Error::InvalidOption { option: "head_width", .. })), "{head_width}");
    }
}

/// The loss takes both from its options, in single precision too, where the image tower may be fused.
#[test]
fn the_loss_uses_its_options() {
    let shape = [1, 3, 6, 6];
    let image = values(1, &shape);
    let single: Vec<f32> = image.iter().map(|&value| value as f32).collect();
    let mut seen = Vec::new();
    for activation in [ClipActivation::QuickGelu, ClipActivation::Gelu] {
        for head_width in [64, 32] {
            let mut options = options(false);
            (options.clip_model.activation, options.clip_model.head_width) = (activation, head_width);
            let text = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<ClipOptions>(&text).unwrap(), options);
            let loss = ClipLoss::new(options, &weights()).unwrap();
            let double = elements(&loss.forward(&tensor(&image, &shape), &texts()).unwrap());
            let array = ndarray::ArrayD::from_shape_vec(shape.to_vec(), single.clone()).unwrap();
            let found = loss.forward(&NdTensor::new(array), &texts()).unwrap();
            for (column, double) in double.iter().enumerate() {
                let found = f64::from(found.narrow(1, column, 1).unwrap().item().unwrap());
                // Single precision through two blocks of width 128.
                assert!((found - double).abs() < 1e-4, "{activation:?} {head_width}: {found} {double}");
            }
            seen.push(double);
        }
    }
    assert!((0..seen.len()).all(|i| seen[..i].iter().all(|other| *other != seen[i])), "{seen:?}");
    let bad = serde_json::from_str::<ClipOptions>(r#"{"clip_model": {"activation": "relu"}}"#).unwrap_err();
    assert!(bad.to_string().contains("quick_gelu"), "{bad}");
    let mut none = options(false);
    none.clip_model.head_width = 0;
    assert!(matches!(none.validate(), Err(Error::InvalidOption { option: "head_width", .. })));
}

/// The model's tensors as transformers' `CLIPModel` names them.
fn transformers(checkpoint: &Checkpoint) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut entries = vec![("text_model.embeddings.position_ids".to_owned(), vec![1, 7], vec![0.0; 7])];
    for (name, entry) in checkpoint.iter() {
        let (shape, values) = (entry.shape().to_vec(), entry.to_f32().unwrap());
        let (tower, rest) = match name.strip_prefix("visual.") {
            Some(rest) => ("vision_model", rest),
            None => ("text_model", name),
        };
        if let "proj" | "text_projection" = rest {
            let (rows, columns) = (shape[0], shape[1]);
            let name = if rest == "proj" { "visual_projection.weight" } else { "text_projection.weight" };
            let values = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
            entries.push((name.to_owned(), vec![columns, rows], values));
        } else if let Some((block, own)) = rest.split_once(".attn.in_proj_") {
            let layer = block.rsplit('.').next().unwrap();
            let rows = shape[0] / 3;
            for (part, values) in ["q", "k", "v"].iter().zip(values.chunks(values.len() / 3)) {
                let name = format!("{tower}.encoder.layers.{layer}.self_attn.{part}_proj.{own}");
                entries.push((name, [&[rows], &shape[1..]].concat(), values.to_vec()));
            }
        } else {
            let name = match (tower, rest) {
                (_, "logit_scale") => rest.to_owned(),
                (_, "class_embedding") => format!("{tower}.embeddings.class_embedding"),
                (_, "positional_embedding") => format!("{tower}.embeddings.position_embedding.weight"),
                (_, "conv1.weight") => format!("{tower}.embeddings.patch_embedding.weight"),
                (_, "token_embedding.weight") => format!("{tower}.embeddings.token_embedding.weight"),
                _ => {
                    let rest = rest.replace("ln_pre.", "pre_layrnorm.").replace("ln_post.", "post_layernorm.");
                    let rest = rest
                        .replace("ln_final.", "final_layer_norm.")
                        .replace("transformer.resblocks.", "encoder.layers.");
                    let rest = rest.replace(".ln_1.", ".layer_norm1.").replace(".ln_2.", ".layer_norm2.");
                    let rest = rest.replace(".mlp.c_fc.", ".mlp.fc1.").replace(".mlp.c_proj.", ".mlp.fc2.");
                    format!("{tower}.{}", rest.replace(".attn.", ".self_attn."))
                }
            };
            entries.push((name, shape, values));
        }
    }
    entries
}

#[test]
fn transformers_layout_is_read() {
    let checkpoint = Checkpoint::seeded(&SMALL.architecture(), 7).unwrap();
    let entries = transformers(&checkpoint);
    let other = Checkpoint::from_entries(entries.clone()).unwrap();
    assert!(other.get("visual.conv1.weight").is_none() && other.len() > checkpoint.len());
    assert_eq!(ClipShape::of(&other).unwrap(), SMALL);
    assert_eq!(fitting(&other), ["CLIP of another size"]);
    let shape = [2, 3, 4, 4];
    let images = tensor(&values(9, &shape), &shape);
    let encode = |checkpoint: &Checkpoint| {
        let network = Clip::load(checkpoint).unwrap().bind::<NdTensor<f64>>(&()).unwrap();
        [network.encode_image(&images).unwrap(), network.encode_text(&texts()).unwrap()].map(|x| elements(&x))
    };
    assert_eq!(encode(&other), encode(&checkpoint));
    // Without its keys, a layer has no attention.
    let gone = "vision_model.encoder.layers.1.self_attn.k_proj.weight";
    let some = entries.iter().filter(|(name, ..)| name != gone).cloned();
    match Clip::load(&Checkpoint::from_entries(some).unwrap()) {
        Err(Error::CheckpointMismatch { unexpected, .. }) => {
            let queries = "vision_model.encoder.layers.1.self_attn.q_proj.weight";
            assert!(unexpected.iter().any(|name| name == queries), "{unexpected:?}");
        }
        other => panic!("{other:?}"),
    }
    // Under a prefix, in either layout.
    for entries in
        [entries, checkpoint.iter().map(|(n, e)| (n.to_owned(), e.shape().to_vec(), e.to_f32().unwrap())).collect()]
    {
        let inner = entries.into_iter().map(|(name, shape, values)| (format!("clip.{name}"), shape, values));
        let outer = Checkpoint::from_entries(inner).unwrap();
        let refused = Clip::load(&outer).unwrap_err().to_string();
        assert!(refused.contains("`prefix: \"clip\"`"), "{refused}");
        let found = located(&outer);
        assert_eq!((found.len(), &*found[0].network, &*found[0].prefix), (1, "CLIP of another size", "clip"));
        let mut with = options(false);
        with.clip_model.prefix = Some("clip".into());
        let shape = [1, 3, 6, 6];
        let image = tensor(&values(1, &shape), &shape);
        let value = |options: ClipOptions, checkpoint: Checkpoint| {
            elements(&ClipLoss::new(options, &checkpoint.into()).unwrap().forward(&image, &texts()).unwrap())
        };
        assert_eq!(value(with, outer), value(options(false), checkpoint.clone()));
    }
}
