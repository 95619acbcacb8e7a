//! The perceptual losses on tch: the same values and image gradients as on the autograd engine.

use image_losses_core::{Differentiable, Result, Tensor};
use image_losses_perceptual::checkpoint::Checkpoint;
use image_losses_perceptual::networks::{ClipShape, IrDepth, IrMode, IrNet, Tokens, VggType};
use image_losses_perceptual::{
    ClipLoss, ClipModelOptions, ClipOptions, Criterion, Dists, DistsOptions, FaceIdLoss, FaceIdOptions,
    LightCnnFeatureLoss, LightCnnFeatureOptions, Lpips, LpipsNet, LpipsOptions, PerceptualLoss, PerceptualOptions,
    TransferalForm, TransferalPerceptualLoss, Weights,
};
use image_losses_tch::TchTensor;
use tch::{Device, Kind};

/// Numbers in (0, 1), the same for the same seed.
fn values(seed: u64, shape: &[usize]) -> Vec<f64> {
    let checkpoint = Checkpoint::seeded(&[("bias".to_owned(), vec![shape.iter().product()])], seed).unwrap();
    let values = checkpoint.get("bias").unwrap().to_f32().unwrap();
    values.into_iter().map(|value| 0.5 + 5.0 * f64::from(value)).collect()
}

/// A loss of several images, on any engine.
trait Case {
    fn shapes(&self) -> Vec<Vec<usize>>;
    fn forward<T: Tensor>(&self, inputs: &[T]) -> Result<T>;
}

/// Value and gradients on autograd, in double precision.
fn on_autograd(case: &impl Case) -> (Vec<f64>, Vec<Vec<f64>>) {
    let inputs: Vec<_> =
        case.shapes().into_iter().zip(1..).map(|(shape, seed)| (values(seed, &shape), shape)).collect();
    image_losses_autograd::differentiate(&inputs, |x| sum(case, x)).unwrap()
}

fn sum<T: Tensor>(case: &impl Case, inputs: &[T]) -> Result<T> {
    case.forward(inputs)?.sum_all()
}

/// Value and gradients on tch.
fn on_tch(case: &impl Case, kind: Kind) -> (Vec<f64>, Vec<Vec<f64>>) {
    let leaf = |(shape, seed): (Vec<usize>, u64)| {
        TchTensor::constant(&(kind, Device::Cpu), &values(seed, &shape), &shape).unwrap().leaf().unwrap()
    };
    let inputs: Vec<_> = case.shapes().into_iter().zip(1..).map(leaf).collect();
    let value = sum(case, &inputs).unwrap();
    assert_eq!(value.tensor().kind(), kind);
    let gradients = Differentiable::gradients(&value, &inputs.iter().collect::<Vec<_>>(), false).unwrap();
    let read = |tensor: &TchTensor| Vec::<f64>::try_from(tensor.tensor().to_kind(Kind::Double).reshape([-1])).unwrap();
    let gradients = gradients.iter().zip(&inputs).map(|(gradient, input)| match gradient {
        Some(gradient) => read(gradient),
        None => vec![0.0; input.elements()],
    });
    (read(&value), gradients.collect())
}

fn check(name: &str, case: &impl Case, half: Option<Kind>) {
    let (value, gradients) = on_autograd(case);
    let distance = |a: &[f64], b: &[f64]| {
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let scale = square(&mut b.iter().copied());
        let difference = square(&mut a.iter().zip(b).map(|(a, b)| a - b));
        if scale == 0.0 { difference } else { difference / scale }
    };
    // Single precision's gradients may fall on the other side of a kink; its values may not.
    for (kind, of_value, of_gradient) in
        [(Kind::Double, 1e-11, 1e-9), (Kind::Float, 1e-4, 2e-2)].into_iter().chain(half.map(|kind| (kind, 0.1, 0.5)))
    {
        let found = on_tch(case, kind);
        let error = distance(&found.0, &value);
        assert!(error < of_value, "{name} {kind:?}: value off by {error:e}");
        for (ours, theirs) in found.1.iter().zip(&gradients) {
            let error = distance(ours, theirs);
            assert!(error < of_gradient, "{name} {kind:?}: gradient off by {error:e}");
        }
    }
}

struct Vgg(PerceptualLoss);

impl Case for Vgg {
    fn shapes(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 3, 17, 20]; 2]
    }
    fn forward<T: Tensor>(&self, inputs: &[T]) -> Result<T> {
        Ok(self.0.forward(&inputs[0], &inputs[1])?.total()?.unwrap())
    }
}

#[test]
fn perceptual() {
    let layers = |layers: &[(&str, f64)]| layers.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
    for (vgg_type, criterion) in [(VggType::Vgg11, Criterion::L1), (VggType::Vgg16Bn, Criterion::Mse)] {
        let options = PerceptualOptions {
            layer_weights: layers(&[("conv1_1", 0.5), ("relu2_1", 1.0), ("relu3_2", 1.0)]),
            layer_weights_style: Some(layers(&[("pool1", 100.0), ("relu3_1", 100.0)])),
            vgg_type,
            criterion,
            ..PerceptualOptions::default()
        };
        check("vgg", &Vgg(PerceptualLoss::new(options, &Weights::Seeded(7)).unwrap()), Some(Kind::BFloat16));
    }
}

struct Transferal(TransferalPerceptualLoss);

impl Case for Transferal {
    fn shapes(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 1, 3, 4], vec![2, 5, 3, 4], vec![2, 2, 6, 8], vec![2, 5, 3, 4], vec![2, 2, 6, 8]]
    }
    fn forward<T: Tensor>(&self, x: &[T]) -> Result<T> {
        self.0.forward(&[&x[1], &x[2]], Some(&x[0]), &[&x[3], &x[4]])
    }
}

#[test]
fn transferal() {
    for form in [TransferalForm::Mmagic, TransferalForm::Paper] {
        let loss = TransferalPerceptualLoss { form, ..TransferalPerceptualLoss::default() };
        check("transferal", &Transferal(loss), Some(Kind::BFloat16));
    }
}

struct LightCnn(LightCnnFeatureLoss);

impl Case for LightCnn {
    fn shapes(&self) -> Vec<Vec<usize>> {
        vec![vec![1, 3, 33, 48]; 2]
    }
    fn forward<T: Tensor>(&self, x: &[T]) -> Result<T> {
        self.0.forward(&x[0], &x[1])
    }
}

#[test]
fn light_cnn() {
    let options = LightCnnFeatureOptions { criterion: Criterion::Mse, ..Default::default() };
    let loss = LightCnnFeatureLoss::new(options, &Weights::Seeded(7)).unwrap();
    check("light cnn", &LightCnn(loss), Some(Kind::BFloat16));
}

struct FaceId(FaceIdLoss);

impl Case for FaceId {
    fn shapes(&self) -> Vec<Vec<usize>> {
        vec![vec![1, 3, 40, 30]; 2]
    }
    fn forward<T: Tensor>(&self, x: &[T]) -> Result<T> {
        self.0.forward(&x[0], &x[1])
    }
}

#[test]
fn face_id() {
    let weights = Checkpoint::seeded(&IrNet::architecture(IrDepth::L50, IrMode::IrSe, true), 7).unwrap();
    let loss = FaceIdLoss::new(FaceIdOptions::default(), &weights.into()).unwrap();
    check("face id", &FaceId(loss), None);
}

struct Clip(ClipLoss);

impl Case for Clip {
    fn shapes(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 3, 6, 6]]
    }
    fn forward<T: Tensor>(&self, x: &[T]) -> Result<T> {
        let texts = Tokens::from_ids(vec![vec![9, 3, 10, 0, 0, 0, 0], vec![9, 5, 1, 2, 10, 0, 0]])?;
        self.0.forward(&x[0], &texts)
    }
}

#[test]
fn clip() {
    let shape = ClipShape {
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
    let weights = Checkpoint::seeded(&shape.architecture(), 7).unwrap();
    let clip_model = ClipModelOptions { in_size: 6, scale_factor: 2, pool_size: 4, ..Default::default() };
    let loss = ClipLoss::new(ClipOptions { loss_weight: 0.9, clip_model }, &weights.into()).unwrap();
    check("clip", &Clip(loss), Some(Kind::BFloat16));
}

struct Similarity(Lpips);

impl Case for Similarity {
    fn shapes(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 3, 33, 40]; 2]
    }
    fn forward<T: Tensor>(&self, x: &[T]) -> Result<T> {
        self.0.forward(&x[0], &x[1])
    }
}

#[test]
fn lpips() {
    for (net, spatial) in [(LpipsNet::Squeeze, true), (LpipsNet::Alex, false), (LpipsNet::Vgg, false)] {
        let options = LpipsOptions { net, spatial, ..LpipsOptions::default() };
        let loss = Lpips::new(options, &Weights::Seeded(7), &Weights::Seeded(8)).unwrap();
        check("lpips", &Similarity(loss), None);
    }
}

struct Structure(Dists);

impl Case for Structure {
    fn shapes(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 3, 11, 14]; 2]
    }
    fn forward<T: Tensor>(&self, x: &[T]) -> Result<T> {
        self.0.forward(&x[0], &x[1])
    }
}

#[test]
fn dists() {
    // Positive weights, as the published ones are.
    let weights = Dists::weights_architecture().into_iter().map(|(name, shape)| (name, shape, vec![0.5; 1475]));
    let weights = Checkpoint::from_entries(weights).unwrap();
    let loss = Dists::new(DistsOptions::default(), &Weights::Seeded(7), &weights.into()).unwrap();
    check("dists", &Structure(loss), None);
}
