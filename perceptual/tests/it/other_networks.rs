//! A target's features belong to the loss that computed them: every other one refuses them, by name.
#![cfg(all(feature = "vgg", feature = "light-cnn", feature = "face-id"))]

use image_losses_core::kernels::Array;
use image_losses_core::{Error, Result, Tensor};
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::networks::{IrMode, VggType};
use image_losses_perceptual::{
    FaceIdLoss, FaceIdOptions, FaceNetOptions, LightCnnFeatureLoss, LightCnnFeatureOptions, PerceptualLoss,
    PerceptualOptions, Target, Weights,
};

const SHAPE: [usize; 4] = [1, 3, 8, 8];

fn image<T: Tensor<Context = ()>>(seed: usize) -> T {
    let values: Vec<f64> = (0..192).map(|i| ((i * 389 + seed * 577) % 1009) as f64 / 1009.0).collect();
    T::constant(&(), &values, &SHAPE).unwrap()
}

#[track_caller]
fn refused<R: std::fmt::Debug>(result: Result<R>) {
    let Err(error @ Error::OtherNetwork { .. }) = result else { panic!("{result:?}") };
    let text = error.to_string();
    assert!(text.contains("features must be of network") && text.contains("got those of network"), "{text}");
}

fn perceptual(vgg_type: VggType, layer: &str, style_weight: f64, seed: u64) -> PerceptualLoss {
    let layer_weights = [(layer.to_owned(), 1.0)].into();
    let options = PerceptualOptions { layer_weights, vgg_type, style_weight, ..PerceptualOptions::default() };
    PerceptualLoss::new(options, &Weights::Seeded(seed)).unwrap()
}

/// Through the engine, fused and composed.
fn by_engine<T: Tensor<Context = ()>>(ours: &PerceptualLoss, other: &PerceptualLoss) {
    for is_composed in [false, true] {
        let bind = |loss: &PerceptualLoss| {
            let bound = loss.bind::<T>(&()).unwrap();
            if is_composed { bound.composed() } else { bound }
        };
        let (x, gt) = (image::<T>(1), image::<T>(2));
        refused(bind(ours).forward_with(&x, &bind(other).features(&gt).unwrap()).map(drop));
        let features = bind(ours).features(&gt).unwrap();
        assert!(bind(&ours.clone()).forward_with(&x, &features).is_ok());
        assert!(bind(ours).forward_with(&x, &features.map(|tensor| Ok(tensor.clone())).unwrap()).is_ok());
    }
}

#[test]
fn perceptual_loss() {
    use VggType::{Vgg11, Vgg16, Vgg19};
    for style_weight in [0.0, 1.0] {
        let ours = perceptual(Vgg19, "relu1_2", style_weight, 7);
        let pixels = |seed| image::<NdTensor<f32>>(seed).array().iter().copied().collect::<Vec<f32>>();
        let (x, gt) = (pixels(1), pixels(2));
        let array = |data| Array { shape: &SHAPE, data };
        for other in [
            // Another depth, other weights, another layer, the same again.
            perceptual(Vgg16, "relu1_2", style_weight, 7),
            perceptual(Vgg11, "relu1_1", style_weight, 7),
            perceptual(Vgg19, "relu1_2", style_weight, 8),
            perceptual(Vgg19, "pool1", style_weight, 7),
            perceptual(Vgg19, "relu1_2", style_weight, 7),
        ] {
            let features = other.target_features(array(&gt)).unwrap();
            refused(ours.value_and_gradient(array(&x), Target::Features(&features)));
            by_engine::<NdTensor<f32>>(&ours, &other);
            by_engine::<NdTensor<f64>>(&ours, &other);
        }
        let features = ours.clone().target_features(array(&gt)).unwrap();
        let found = ours.value_and_gradient(array(&x), Target::Features(&features)).unwrap();
        assert_eq!(found, ours.value_and_gradient(array(&x), Target::Images(&gt)).unwrap());
    }
}

#[test]
fn light_cnn_feature_loss() {
    let loss = |seed| LightCnnFeatureLoss::new(LightCnnFeatureOptions::default(), &Weights::Seeded(seed)).unwrap();
    let (ours, other) = (loss(7), loss(8));
    let (x, gt) = (image::<NdTensor<f32>>(1), image::<NdTensor<f32>>(2));
    let data = |image: &NdTensor<f32>| image.array().iter().copied().collect::<Vec<f32>>();
    let (pixels, target) = (data(&x), data(&gt));
    let array = |data| Array { shape: &SHAPE, data };
    let features = other.target_features(array(&target)).unwrap();
    refused(ours.value_and_gradient(array(&pixels), Target::Features(&features)));
    for is_composed in [false, true] {
        let bind = |loss: &LightCnnFeatureLoss| {
            let bound = loss.bind::<NdTensor<f32>>(&()).unwrap();
            if is_composed { bound.composed() } else { bound }
        };
        refused(bind(&ours).forward_with(&x, &bind(&other).features(&gt).unwrap()));
        assert!(bind(&ours.clone()).forward_with(&x, &bind(&ours).features(&gt).unwrap()).is_ok());
        // Of images of another size.
        let small = NdTensor::<f32>::constant(&(), &[0.5; 48], &[1, 3, 4, 4]).unwrap();
        let refused = bind(&ours).forward_with(&x, &bind(&ours).features(&small).unwrap());
        assert!(matches!(refused, Err(Error::ShapeMismatch { .. })), "{refused:?}");
    }
}

#[test]
fn face_id_loss() {
    let facenet = FaceNetOptions { mode: IrMode::Ir, ..FaceNetOptions::default() };
    let options = FaceIdOptions { loss_weight: 1.0, facenet };
    let loss = |seed| FaceIdLoss::new(options.clone(), &Weights::Seeded(seed)).unwrap();
    let (ours, other) = (loss(7), loss(8));
    let features = other.bind::<NdTensor<f32>>(&()).unwrap().features(&image(2)).unwrap();
    let bound = ours.bind::<NdTensor<f32>>(&()).unwrap();
    refused(bound.forward_with(&image(1), &features));
    refused(bound.composed().forward_with(&image(1), &features));
}

#[cfg(feature = "lpips")]
#[test]
fn lpips_and_dists() {
    use image_losses_perceptual::{Dists, DistsOptions, Lpips, LpipsNet, LpipsOptions};
    let options = LpipsOptions { net: LpipsNet::Squeeze, ..LpipsOptions::default() };
    let loss = |seed| {
        let loss = Lpips::new(options.clone(), &Weights::Seeded(seed), &Weights::Seeded(1)).unwrap();
        loss.bind::<NdTensor<f64>>(&()).unwrap()
    };
    let image = |seed: usize| {
        let values: Vec<f64> = (0..3 * 33 * 32).map(|i| ((i * 389 + seed * 577) % 1009) as f64 / 1009.0).collect();
        NdTensor::<f64>::constant(&(), &values, &[1, 3, 33, 32]).unwrap()
    };
    let (ours, other) = (loss(7), loss(8));
    refused(ours.forward_with(&image(1), &other.features(&image(2)).unwrap()));
    assert!(ours.clone().forward_with(&image(1), &ours.features(&image(2)).unwrap()).is_ok());
    let loss = |seed| {
        let loss = Dists::new(DistsOptions::default(), &Weights::Seeded(7), &Weights::Seeded(seed)).unwrap();
        loss.bind::<NdTensor<f64>>(&()).unwrap()
    };
    let (ours, other) = (loss(7), loss(8));
    refused(ours.forward_with(&image(1), &other.features(&image(2)).unwrap()));
    assert!(ours.clone().forward_with(&image(1), &ours.features(&image(2)).unwrap()).is_ok());
}
