//! The perceptual loss over VGG's first convolution with known parameters, and the transferal perceptual loss, with
//! options drawn. The including test names the engine.

use std::sync::LazyLock;

use image_losses_core::{Differentiable, Result, Tensor};
use image_losses_laws::{Hand, Lawful, Rank, Takes, Weight, general};
use image_losses_perceptual::checkpoint::Checkpoint;
use image_losses_perceptual::networks::VggType;
use image_losses_perceptual::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ENGINE;

fn weights() -> impl Strategy<Value = f64> + Clone {
    (-8..=8i8).prop_map(|v| f64::from(v) / 4.0)
}

fn criterion() -> impl Strategy<Value = Criterion> + Clone {
    prop_oneof![Just(Criterion::L1), Just(Criterion::Mse)]
}

/// What the first three of 64 features multiply their channel by, and what they add: no multiple of 1/128, so that no
/// input of the laws lies on the kink of a ReLU.
const FEATURES: [[f64; 2]; 3] = [[1.0, 0.02], [-0.5, 0.03], [2.0, 0.01]];

/// VGG-11's first convolution: [`FEATURES`], each of its own channel, and 61 zeros.
static CONVOLUTION: LazyLock<Checkpoint> = LazyLock::new(|| {
    let (mut weight, mut bias) = (vec![0.0; 64 * 27], vec![0.0; 64]);
    for (feature, [factor, summand]) in FEATURES.into_iter().enumerate() {
        weight[feature * 27 + feature * 9 + 4] = factor as f32;
        bias[feature] = summand as f32;
    }
    let entries = [("features.0.weight", vec![64, 3, 3, 3], weight), ("features.0.bias", vec![64], bias)];
    Checkpoint::from_entries(entries.map(|(name, shape, values)| (name.to_owned(), shape, values))).unwrap()
});

/// The sum of both terms, composed of tensor operations or as the engine has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Vgg<const COMPOSED: bool>(PerceptualOptions);

impl<const COMPOSED: bool> Vgg<COMPOSED> {
    fn compute<T: Tensor>(&self, [x, gt]: [&T; 2]) -> Result<T> {
        let bound = PerceptualLoss::new(self.0.clone(), &CONVOLUTION.clone().into())?.bind::<T>(&x.context())?;
        let bound = if COMPOSED { bound.composed() } else { bound };
        let total = bound.forward(x, gt)?.total()?.expect("a term that is on");
        total.reshape(&[])
    }
}

impl<const COMPOSED: bool> Lawful<2> for Vgg<COMPOSED> {
    fn apply<T: Differentiable>(&self, inputs: [&T; 2], _: Option<&T>) -> Result<T> {
        self.compute(inputs)
    }
    fn apply_plainly<T: Tensor>(&self, inputs: [&T; 2], _: Option<&T>) -> Option<Result<T>> {
        // An engine of required methods alone has no convolution.
        let can_convolve = std::any::type_name::<T>().contains("NdTensor");
        can_convolve.then(|| self.compute(inputs))
    }
}

/// Layers before and after the ReLU, for both terms or the perceptual one.
fn vgg_options(style: bool) -> impl Strategy<Value = PerceptualOptions> + Clone {
    // Of one sign and not 0: of squares that overflow the sum would be NaN.
    let layers = (weights(), weights()).prop_map(|(before, after)| {
        [("conv1_1", before.abs() + 0.25), ("relu1_1", after.abs() + 0.25)]
            .map(|(layer, weight)| (layer.to_owned(), weight))
            .into()
    });
    (layers.clone(), layers, criterion(), any::<bool>(), any::<bool>()).prop_map(
        move |(layer_weights, style_layers, criterion, use_input_norm, norm_img)| PerceptualOptions {
            layer_weights,
            layer_weights_style: Some(style_layers),
            vgg_type: VggType::Vgg11,
            perceptual_weight: 1.5,
            style_weight: if style { 0.75 } else { 0.0 },
            use_input_norm,
            norm_img,
            criterion,
            pretrained: None,
            prefix: None,
        },
    )
}

/// Both terms of images of one pixel, from the formulas.
fn vgg_by_hand(options: &PerceptualOptions, x: [f64; 3], gt: [f64; 3]) -> f64 {
    // ImageNet's statistics, as torchvision has them.
    let (mean, deviation) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let features = |image: [f64; 3], relu: bool| -> [f64; 3] {
        std::array::from_fn(|c| {
            let value = if options.norm_img { (image[c] + 1.0) / 2.0 } else { image[c] };
            let value = if options.use_input_norm { (value - mean[c]) / deviation[c] } else { value };
            let [factor, summand] = FEATURES[c].map(|v| f64::from(v as f32));
            let value = factor * value + summand;
            if relu { value.max(0.0) } else { value }
        })
    };
    // Of the differences that are not 0, among `count`.
    let of = |differences: &[f64], count: f64| match options.criterion {
        Criterion::L1 => differences.iter().map(|d| d.abs()).sum::<f64>() / count,
        Criterion::Mse => differences.iter().map(|d| d * d).sum::<f64>() / count,
        Criterion::Fro => differences.iter().map(|d| d * d).sum::<f64>().sqrt(),
    };
    let mut sum = 0.0;
    for (layer, relu) in [("conv1_1", false), ("relu1_1", true)] {
        let (f, g) = (features(x, relu), features(gt, relu));
        let perceptual: [f64; 3] = std::array::from_fn(|i| f[i] - g[i]);
        // f·fᵀ/(c·h·w), c = 64.
        let pairs = (0..3).flat_map(|i| (0..3).map(move |j| (i, j)));
        let style: Vec<f64> = pairs.map(|(i, j)| (f[i] * f[j] - g[i] * g[j]) / 64.0).collect();
        let style_layers = options.layer_weights_style.as_ref().unwrap_or(&options.layer_weights);
        sum += options.perceptual_weight * options.layer_weights[layer] * of(&perceptual, 64.0)
            + options.style_weight * style_layers[layer] * of(&style, 4096.0);
    }
    sum
}

fn vgg<const COMPOSED: bool>(style: bool) {
    let takes = Takes {
        weight: Weight::Absent,
        rank: Rank::Image,
        channels: Some(3),
        symmetric: Some(true),
        held: [false, true],
        scaled_by: &[],
        // A Gram matrix has squares, its criterion's derivative products of three such factors.
        huge: if style { [1e30, 1e9] } else { [1e30; 2] },
        ..Takes::new(["x", "gt"])
    };
    general(&ENGINE, vgg_options(style).prop_map(Vgg::<COMPOSED>), takes, |loss| {
        let hand = |x: [f64; 3], gt: [f64; 3]| Hand {
            shape: vec![1, 3, 1, 1],
            inputs: [x.to_vec(), gt.to_vec()],
            value: vgg_by_hand(&loss.0, x, gt),
        };
        let point = [0.25, 0.5, -0.75];
        vec![hand(point, point), hand(point, [0.75, -0.25, 0.5]), hand([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])]
    });
}

#[test]
fn perceptual() {
    vgg::<false>(false);
    vgg::<true>(false);
}

#[test]
fn perceptual_and_style() {
    vgg::<false>(true);
    vgg::<true>(true);
}

/// Two levels, with attention: the images twice as large repeat the small ones in both directions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct TwoLevels(TransferalPerceptualLoss);

fn repeated<T: Tensor>(x: &T) -> Result<T> {
    let rows = T::concatenate(&[x, x], 2)?;
    T::concatenate(&[&rows, &rows], 3)
}

impl TwoLevels {
    fn compute<T: Tensor>(&self, [map, attention, texture]: [&T; 3]) -> Result<T> {
        if map.rank() != 4 {
            return self.0.forward(&[map], Some(attention), &[texture]);
        }
        self.0.forward(&[map, &repeated(map)?], Some(attention), &[texture, &repeated(texture)?])
    }
}

impl Lawful<3> for TwoLevels {
    fn apply<T: Differentiable>(&self, inputs: [&T; 3], _: Option<&T>) -> Result<T> {
        self.compute(inputs)
    }
    fn apply_plainly<T: Tensor>(&self, inputs: [&T; 3], _: Option<&T>) -> Option<Result<T>> {
        Some(self.compute(inputs))
    }
}

fn transferal_options(use_attention: bool) -> impl Strategy<Value = TransferalPerceptualLoss> + Clone {
    let form = prop_oneof![Just(TransferalForm::Mmagic), Just(TransferalForm::Paper)];
    (weights(), criterion(), form).prop_map(move |(loss_weight, criterion, form)| TransferalPerceptualLoss {
        loss_weight,
        use_attention,
        criterion,
        form,
    })
}

#[test]
fn transferal() {
    let losses = transferal_options(true).prop_map(TwoLevels);
    let takes = Takes {
        per_pixel: [false, true, false],
        weight: Weight::Absent,
        rank: Rank::Image,
        // What does not fit is refused by the map's name; perceptual/tests/transferal.rs has that.
        same_shape: false,
        // The attention's derivative is a product of two inputs.
        huge: [1e30, 1e15],
        // An attention of 0, which is drawn, is a kink of the absolute difference that it multiplies.
        smooth: false,
        ..Takes::new(["maps", "soft_attention", "textures"])
    };
    general(&ENGINE, losses, takes, |loss| {
        let TransferalPerceptualLoss { loss_weight, criterion, form, .. } = loss.0;
        // Map and texture are 2 apart at both levels; an attention of 0.7 is 0.7 when enlarged.
        let sigmoid = 1.0 / (1.0 + (-0.7f64).exp());
        let of = |attention: f64| if criterion == Criterion::L1 { 2.0 * attention } else { (2.0 * attention).powi(2) };
        let levels = match form {
            TransferalForm::Mmagic => of(sigmoid) + of(0.7),
            TransferalForm::Paper => of(sigmoid),
        };
        let hand = |map: f64, value: f64| Hand { shape: vec![1; 4], inputs: [vec![map], vec![0.7], vec![1.0]], value };
        vec![hand(1.0, 0.0), hand(3.0, loss_weight * levels)]
    });
}

/// Two levels without attention: the second is the negative of the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct WithoutAttention(TransferalPerceptualLoss);

impl Lawful<2> for WithoutAttention {
    fn apply<T: Differentiable>(&self, inputs: [&T; 2], _: Option<&T>) -> Result<T> {
        self.apply_plainly(inputs, None).expect("every engine will do")
    }
    fn apply_plainly<T: Tensor>(&self, [map, texture]: [&T; 2], _: Option<&T>) -> Option<Result<T>> {
        let compute = || self.0.forward(&[map, &map.neg()?], None, &[texture, &texture.neg()?]);
        Some(compute())
    }
}

#[test]
fn transferal_without_attention() {
    let losses = transferal_options(false).prop_map(WithoutAttention);
    let takes = Takes { weight: Weight::Absent, symmetric: Some(true), ..Takes::new(["features", "target features"]) };
    general(&ENGINE, losses, takes, |loss| {
        let TransferalPerceptualLoss { loss_weight, criterion, form, .. } = loss.0;
        let level = if criterion == Criterion::L1 { 3.0 } else { 9.0 };
        let value = loss_weight * if form == TransferalForm::Paper { level } else { 2.0 * level };
        let hand = |map: f64, value: f64| Hand { shape: vec![1, 1], inputs: [vec![map], vec![1.0]], value };
        vec![hand(1.0, 0.0), hand(4.0, value)]
    });
}
