//! The losses of faces: LightCNN and ArcFace's networks.
#![cfg(all(feature = "light-cnn", feature = "face-id"))]

use crate::common::{directional_error, elements, tensor, values};
use image_losses_core::{Error, Tensor};
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::checkpoint::Checkpoint;
use image_losses_perceptual::networks::{IrDepth, IrMode, IrNet, LightCnn};
use image_losses_perceptual::{
    Criterion, FaceIdLoss, FaceIdOptions, FaceNetOptions, LightCnnFeatureLoss, LightCnnFeatureOptions, TargetFeatures,
    Weights,
};

/// The one tensor of features.
fn only<T: Tensor>(features: &TargetFeatures<T>) -> &T {
    features.tensors().next().unwrap()
}

#[test]
fn light_cnn_gradient_and_cached_target() {
    let shape = [2, 3, 9, 17];
    let (x, gt) = (values(1, &shape), values(2, &shape));
    for criterion in [Criterion::L1, Criterion::Mse] {
        let options = LightCnnFeatureOptions { loss_weight: -1.7, criterion, pretrained: None, prefix: None };
        let loss = LightCnnFeatureLoss::new(options, &Weights::Seeded(7)).unwrap();
        let bound = loss.bind::<NdTensor<f64>>(&()).unwrap();
        let features = bound.features(&tensor(&gt, &shape)).unwrap();
        assert_eq!(only(&features).shape(), [2, 128, 1, 2]);
        let direct = loss.forward(&tensor(&x, &shape), &tensor(&gt, &shape)).unwrap().item().unwrap();
        let cached = bound.forward_with(&tensor(&x, &shape), &features).unwrap().item().unwrap();
        assert_eq!(direct, cached);
        assert!(direct < 0.0);
        let inputs = [(x.clone(), shape.to_vec()), (gt.clone(), shape.to_vec())];
        let error = directional_error(
            &inputs,
            1e-7,
            |x| loss.forward(&x[0], &x[1]),
            |x| bound.forward_with(x, &features)?.item(),
        );
        assert!(error < 1e-5, "{criterion:?} {error:e}");
    }
}

#[test]
fn light_cnn_takes_one_pixel_and_refuses_what_is_no_image() {
    let loss = LightCnnFeatureLoss::new(LightCnnFeatureOptions::default(), &Weights::Seeded(7)).unwrap();
    let image = |shape: &[usize]| tensor(&vec![0.25; shape.iter().product()], shape);
    // PyTorch's poolings that round up keep a pixel for ever.
    assert_eq!(loss.forward(&image(&[1, 3, 1, 1]), &image(&[1, 3, 1, 1])).unwrap().item().unwrap(), 0.0);
    let refused = |a: &[usize], b: &[usize]| loss.forward(&image(a), &image(b)).unwrap_err();
    assert!(matches!(refused(&[1, 3, 8, 8], &[1, 3, 8, 9]), Error::ShapeMismatch { argument: "gt", .. }));
    assert!(matches!(refused(&[1, 4, 8, 8], &[1, 4, 8, 8]), Error::ShapeRule { .. }));
    assert!(matches!(refused(&[1, 3, 0, 8], &[1, 3, 0, 8]), Error::Empty { .. }));
}

#[test]
fn light_cnn_options_and_weights() {
    let options = LightCnnFeatureOptions {
        pretrained: Some("a.pth".into()),
        prefix: None,
        loss_weight: 0.1,
        criterion: Criterion::Mse,
    };
    let text = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<LightCnnFeatureOptions>(&text).unwrap(), options);
    assert!(serde_json::from_str::<LightCnnFeatureOptions>(r#"{"weight": 1}"#).is_err());
    // MMagic's default.
    assert_eq!(serde_json::from_str::<LightCnnFeatureOptions>("{}").unwrap().loss_weight, 1.0);
    let bad = LightCnnFeatureOptions { loss_weight: f64::NAN, ..options };
    assert!(matches!(LightCnnFeatureLoss::new(bad, &Weights::Seeded(0)), Err(Error::InvalidOption { .. })));

    let mut architecture = LightCnn::architecture();
    assert_eq!(architecture.len(), 18);
    architecture.push(("classifier.0.filter.weight".into(), vec![4, 4]));
    assert!(LightCnn::load(&Checkpoint::seeded(&architecture, 0).unwrap()).is_ok());
    architecture[0].0 = "features.0.weight".into();
    let refused = LightCnn::load(&Checkpoint::seeded(&architecture, 0).unwrap()).unwrap_err();
    assert!(matches!(refused, Error::CheckpointMismatch { missing, unexpected, .. }
        if missing == ["features.0.filter.weight"] && unexpected == ["features.0.weight"]));
}

#[test]
fn face_networks_have_the_published_tensors() {
    // Counted in the published definitions: 50 units of 2 convolutions each …
    for (depth, mode, affine, count) in [
        (IrDepth::L50, IrMode::IrSe, true, 24),
        (IrDepth::L50, IrMode::Ir, false, 24),
        (IrDepth::L100, IrMode::Ir, false, 49),
        (IrDepth::L152, IrMode::IrSe, false, 50),
    ] {
        let architecture = IrNet::architecture(depth, mode, affine);
        let units = architecture.iter().filter(|(name, _)| name.ends_with(".res_layer.1.weight")).count();
        assert_eq!(units, count, "{}", IrNet::name(depth, mode));
        let excited = architecture.iter().any(|(name, _)| name.ends_with(".res_layer.5.fc1.weight"));
        assert_eq!(excited, mode == IrMode::IrSe);
        // … and a squeeze to a sixteenth of the channels.
        let squeezes: Vec<_> =
            architecture.iter().filter(|(name, _)| name.ends_with(".res_layer.5.fc1.weight")).collect();
        assert!(squeezes.iter().all(|(_, shape)| shape[0] * 16 == shape[1]), "{squeezes:?}");
        assert_eq!(architecture.iter().any(|(name, _)| name == "output_layer.4.weight"), affine);
    }
    // A network without squeeze-and-excitation is not one with it, nor the other way.
    let ir = Checkpoint::seeded(&IrNet::architecture(IrDepth::L50, IrMode::Ir, false), 1).unwrap();
    let refused = IrNet::load(IrDepth::L50, IrMode::IrSe, &ir).unwrap_err();
    assert!(matches!(refused, Error::CheckpointMismatch { missing, .. } if missing.len() == 48));
    let se = Checkpoint::seeded(&IrNet::architecture(IrDepth::L50, IrMode::IrSe, true), 1).unwrap();
    let refused = IrNet::load(IrDepth::L50, IrMode::Ir, &se).unwrap_err();
    assert!(matches!(refused, Error::CheckpointMismatch { unexpected, .. } if unexpected.len() == 48));
}

#[test]
fn face_id_gradient_and_cached_target() {
    // The smaller kind, loaded without the last batch norm's factors; the reference values cover IR-SE50.
    let weights = Checkpoint::seeded(&IrNet::architecture(IrDepth::L50, IrMode::Ir, false), 7).unwrap();
    let facenet = FaceNetOptions { mode: IrMode::Ir, ..FaceNetOptions::default() };
    let loss = FaceIdLoss::new(FaceIdOptions { loss_weight: 0.8, facenet }, &weights.into()).unwrap();
    let shape = [1, 3, 20, 30];
    let (x, gt) = (values(1, &shape), values(2, &shape));
    let bound = loss.bind::<NdTensor<f64>>(&()).unwrap();
    let target = bound.features(&tensor(&gt, &shape)).unwrap();
    assert_eq!(only(&target).shape(), [1, 512]);
    let length: f64 = elements(only(&target)).iter().map(|e| e * e).sum();
    assert!((length - 1.0).abs() < 1e-12);
    let itself = bound.forward_with(&tensor(&gt, &shape), &target).unwrap().item().unwrap();
    assert!(itself.abs() < 1e-12, "{itself}");
    // A mean over the batch: the same for one pair as for three copies of it.
    let copies = |image: &[f64]| tensor(&image.repeat(3), &[3, shape[1], shape[2], shape[3]]);
    let alone = bound.forward(&tensor(&x, &shape), &tensor(&gt, &shape)).unwrap().item().unwrap();
    let threefold = bound.forward(&copies(&x), &copies(&gt)).unwrap().item().unwrap();
    assert!((alone - threefold).abs() < 1e-12 && alone > 0.0, "{alone} {threefold}");
    let inputs = [(x, shape.to_vec()), (gt, shape.to_vec())];
    let error =
        directional_error(&inputs, 1e-7, |x| loss.forward(&x[0], &x[1]), |x| bound.forward_with(x, &target)?.item());
    assert!(error < 1e-5, "{error:e}");

    let image = |shape: &[usize]| tensor(&vec![0.25; shape.iter().product()], shape);
    let refused = |a: &[usize], b: &[usize]| bound.forward(&image(a), &image(b)).unwrap_err();
    assert!(matches!(refused(&[1, 3, 8, 8], &[1, 3, 8, 9]), Error::ShapeMismatch { argument: "gt", .. }));
    assert!(matches!(refused(&[1, 1, 8, 8], &[1, 1, 8, 8]), Error::ShapeRule { argument: "pred", .. }));
    // Not resized, and too narrow for the crop.
    assert!(matches!(refused(&[1, 3, 256, 219], &[1, 3, 256, 219]), Error::ShapeRule { argument: "pred", .. }));
    assert!(bound.features(&image(&[1, 3, 256, 220])).is_ok());
    let other = bound.features(&image(&[2, 3, 8, 8])).unwrap();
    assert!(matches!(bound.forward_with(&image(&[1, 3, 8, 8]), &other), Err(Error::ShapeMismatch { .. })));
}

#[test]
fn a_face_is_cut_out_where_mmagic_cuts_it() {
    let weights = Checkpoint::seeded(&IrNet::architecture(IrDepth::L50, IrMode::Ir, false), 7).unwrap();
    let facenet = FaceNetOptions { mode: IrMode::Ir, ..FaceNetOptions::default() };
    let loss = FaceIdLoss::new(FaceIdOptions { loss_weight: 1.0, facenet }, &weights.into()).unwrap();
    let bound = loss.bind::<NdTensor<f32>>(&()).unwrap();
    // Rows 35 to 222 and columns 32 to 219 of an image of 256 by 256 count, the first and the last of them too.
    let embedding = |change: &dyn Fn(usize, usize) -> bool| {
        let pixel = |i: usize| if change(i / 256 % 256, i % 256) { 2.0 } else { (i % 1009) as f64 / 504.5 - 1.0 };
        let image: Vec<f64> = (0..3 * 256 * 256).map(pixel).collect();
        let image = <NdTensor<f32> as Tensor>::constant(&(), &image, &[1, 3, 256, 256]).unwrap();
        only(&bound.features(&image).unwrap()).array().iter().copied().collect::<Vec<_>>()
    };
    let unchanged = embedding(&|_, _| false);
    let (rows, columns) = (35..223, 32..220);
    assert_eq!(embedding(&|row, column| !rows.contains(&row) || !columns.contains(&column)), unchanged);
    for edge in [35, 222] {
        assert_ne!(embedding(&|row, _| row == edge), unchanged, "row {edge}");
    }
    for edge in [32, 219] {
        assert_ne!(embedding(&|_, column| column == edge), unchanged, "column {edge}");
    }
}

#[test]
fn face_id_options() {
    let options = FaceIdOptions {
        loss_weight: 0.5,
        facenet: FaceNetOptions {
            ir_se50_weights: Some("model_ir_se50.pth".into()),
            num_layers: IrDepth::L152,
            mode: IrMode::Ir,
            ..FaceNetOptions::default()
        },
    };
    let text = serde_json::to_string(&options).unwrap();
    assert!(text.contains(r#""type":"ArcFace""#) && text.contains(r#""num_layers":152"#), "{text}");
    assert_eq!(serde_json::from_str::<FaceIdOptions>(&text).unwrap(), options);
    let parse = serde_json::from_str::<FaceIdOptions>;
    assert_eq!(
        parse(r#"{"facenet": {"type": "ArcFace", "ir_se50_weights": null}}"#).unwrap(),
        FaceIdOptions::default()
    );
    // MMagic's default.
    assert_eq!(parse("{}").unwrap().loss_weight, 1.0);
    assert!(parse(r#"{"facenet": {"type": "CosFace"}}"#).is_err());
    assert!(parse(r#"{"facenet": {"num_layers": 34}}"#).is_err());
    assert!(parse(r#"{"face_net": {}}"#).is_err());
    let bad = FaceIdOptions { loss_weight: f64::INFINITY, ..options };
    assert!(matches!(FaceIdLoss::new(bad, &Weights::Seeded(0)), Err(Error::InvalidOption { .. })));
}
