//! The fused networks against those composed of tensor operations, in single precision on the CPU engines.

use image_losses_autograd::{AgTensor, run};
use image_losses_core::kernels::Array;
use image_losses_core::{Differentiable, Error, Result, Tensor};
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::networks::VggType;
use image_losses_perceptual::{
    Criterion, FaceIdLoss, FaceIdOptions, LightCnnFeatureLoss, LightCnnFeatureOptions, PerceptualLoss,
    PerceptualOptions, Target, TargetFeatures, Weights,
};
use ndarray::Array4;

/// Numbers from −1 to 1 that repeat at no power of two.
fn image(shape: [usize; 4], step: usize) -> Vec<f32> {
    (0..shape.iter().product()).map(|i: usize| ((i * step + step / 3) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// ‖a − b‖/‖b‖
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(f64::MIN_POSITIVE)
}

/// The value and the gradient by `x` on autograd, of terms weighted 1, 3, ….
fn on_autograd(
    shape: [usize; 4],
    x: &[f32],
    gt: &[f32],
    terms: impl for<'g> Fn(&AgTensor<'g, f32>, &AgTensor<'g, f32>) -> Result<Vec<AgTensor<'g, f32>>>,
) -> Result<[Vec<f32>; 2]> {
    run(|session| {
        let inputs = [session.input(x.to_vec(), &shape)?, session.input(gt.to_vec(), &shape)?];
        let terms = terms(&inputs[0], &inputs[1])?;
        let mut total = terms[0].clone();
        for (index, term) in terms.iter().enumerate().skip(1) {
            total = total.add(&term.scale(2.0 * index as f64 + 1.0)?)?;
        }
        let gradients = Differentiable::gradients(&total, &[&inputs[0], &inputs[1]], false)?;
        assert!(gradients[1].is_none(), "the target has no gradient");
        let wanted: Vec<_> = terms.iter().chain(gradients.iter().flatten()).collect();
        let mut found = session.evaluate(&wanted)?;
        let gradient = found.pop().unwrap_or_default();
        Ok([found.concat(), gradient])
    })
}

/// Whether the graph of a second derivative by x can be built.
fn has_second_derivative(
    shape: [usize; 4],
    [x, gt]: [&[f32]; 2],
    value: impl for<'g> Fn(&AgTensor<'g, f32>, &AgTensor<'g, f32>) -> Result<AgTensor<'g, f32>>,
) -> Result<bool> {
    run(|session| {
        let (x, gt) = (session.input(x.to_vec(), &shape)?, session.input(gt.to_vec(), &shape)?);
        let first = Differentiable::gradients(&value(&x, &gt)?, &[&x], true)?.remove(0).expect("x has influence");
        Ok(Differentiable::gradients(&first.sum_all()?, &[&x], false)?[0].is_some())
    })
}

fn options(layers: &[(&str, f64)]) -> PerceptualOptions {
    PerceptualOptions {
        layer_weights: layers.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
        criterion: Criterion::Mse,
        ..PerceptualOptions::default()
    }
}

fn cases() -> Vec<(PerceptualOptions, [usize; 4])> {
    vec![
        (options(&[("2", 1.0), ("relu2_1", 0.5)]), [1, 3, 16, 16]),
        (
            PerceptualOptions { style_weight: 0.0, norm_img: false, ..options(&[("conv1_1", 0.1), ("pool2", 2.0)]) },
            [2, 3, 9, 13],
        ),
        (
            PerceptualOptions {
                vgg_type: VggType::Vgg11Bn,
                use_input_norm: false,
                perceptual_weight: 0.25,
                layer_weights_style: Some([("bn1_1".to_owned(), 2.0), ("relu2_1".to_owned(), 1.0)].into()),
                ..options(&[("relu1_1", 1.0), ("conv2_1", 0.5)])
            },
            [3, 3, 6, 5],
        ),
        (PerceptualOptions { perceptual_weight: 0.0, ..options(&[("relu1_2", 1.0)]) }, [1, 3, 1, 2]),
    ]
}

#[test]
fn perceptual_loss_is_that_of_the_composed_network() -> Result<()> {
    for (options, shape) in cases() {
        let loss = PerceptualLoss::new(options, &Weights::Seeded(7))?;
        let (x, gt) = (image(shape, 389), image(shape, 577));
        let evaluate = |is_composed: bool, is_cached: bool| {
            on_autograd(shape, &x, &gt, |x, gt| {
                let bound = loss.bind(&x.context())?;
                let bound = if is_composed { bound.composed() } else { bound };
                let terms =
                    if is_cached { bound.forward_with(x, &bound.features(gt)?)? } else { bound.forward(x, gt)? };
                Ok(terms.perceptual.into_iter().chain(terms.style).collect())
            })
        };
        let [values, gradient] = evaluate(true, false)?;
        for is_cached in [false, true] {
            let [fused_values, fused_gradient] = evaluate(false, is_cached)?;
            // Winograd's transforms round by some 4e-7 of a feature.
            assert!(distance(&fused_values, &values) < 5e-6, "{values:?} {fused_values:?}");
            assert!(distance(&fused_gradient, &gradient) < 2e-5, "{:e}", distance(&fused_gradient, &gradient));
        }

        // Without an engine, the gradient is that of the plain sum.
        let [_, plain] = on_autograd(shape, &x, &gt, |x, gt| {
            Ok(vec![loss.bind(&x.context())?.composed().forward(x, gt)?.total()?.expect("a term is on")])
        })?;
        let array = |data| Array { shape: &shape, data };
        let found = loss.value_and_gradient(array(&x), Target::Images(&gt))?;
        let features = loss.target_features(array(&gt))?;
        assert_eq!(loss.value_and_gradient(array(&x), Target::Features(&features))?, found);
        let found_values: Vec<f32> = found.perceptual.into_iter().chain(found.style).collect();
        assert!(distance(&found_values, &values) < 5e-6);
        assert!(distance(&found.gradient, &plain) < 2e-5);

        // The engine without derivatives has the same values.
        let tensor = |data: &[f32]| NdTensor::new(Array4::from_shape_vec(shape, data.to_vec()).expect("the shape's"));
        let terms = loss.forward(&tensor(&x), &tensor(&gt))?;
        let on_ndarray: Vec<f32> =
            terms.perceptual.iter().chain(&terms.style).map(NdTensor::item).collect::<Result<_>>()?;
        assert_eq!(on_ndarray, found_values);
    }
    Ok(())
}

#[test]
fn the_style_of_a_target_of_another_size_is_the_same_from_its_features() -> Result<()> {
    // Layer 10 comes before layer 2 in the options, and after it in the network.
    let style = PerceptualOptions {
        perceptual_weight: 0.0,
        layer_weights_style: Some([("10".to_owned(), 2.0), ("2".to_owned(), 0.5), ("relu1_1".to_owned(), 1.0)].into()),
        ..options(&[("0", 1.0)])
    };
    let loss = PerceptualLoss::new(style, &Weights::Seeded(7))?;
    for (shape, other) in [([1, 3, 16, 16], [1, 3, 8, 8]), ([2, 3, 9, 13], [2, 3, 14, 12])] {
        let (x, gt) = (image(shape, 389), image(other, 577));
        // By `forward`, by `features` and `forward_with`; fused and composed.
        let evaluate = |is_composed: bool, is_cached: bool| {
            run(|session| {
                let (x, gt) = (session.input(x.clone(), &shape)?, session.input(gt.clone(), &other)?);
                let bound = loss.bind(&x.context())?;
                let bound = if is_composed { bound.composed() } else { bound };
                let terms =
                    if is_cached { bound.forward_with(&x, &bound.features(&gt)?)? } else { bound.forward(&x, &gt)? };
                assert!(terms.perceptual.is_none());
                let value = terms.style.expect("the style term is on");
                let gradients = Differentiable::gradients(&value, &[&x, &gt], false)?;
                assert!(gradients[1].is_none(), "the target has no gradient");
                let gradient = gradients.into_iter().flatten().next().expect("x has influence");
                let mut found = session.evaluate(&[&value, &gradient])?;
                let gradient = found.pop().unwrap_or_default();
                Ok::<_, Error>((found.concat(), gradient))
            })
        };
        let (value, gradient) = evaluate(true, false)?;
        for (is_composed, is_cached) in [(true, true), (false, false), (false, true)] {
            let (found, found_gradient) = evaluate(is_composed, is_cached)?;
            // Winograd's transforms round by some 4e-7 of a feature.
            assert!(distance(&found, &value) < 5e-6, "{value:?} {found:?}");
            assert!(distance(&found_gradient, &gradient) < 2e-5, "{:e}", distance(&found_gradient, &gradient));
        }
        let tensor =
            |shape, data: &[f32]| NdTensor::new(Array4::from_shape_vec(shape, data.to_vec()).expect("the shape's"));
        let (x, gt) = (tensor(shape, &x), tensor(other, &gt));
        let bound = loss.bind(&())?;
        let terms = bound.forward_with(&x, &bound.features(&gt)?)?;
        assert!(distance(&[terms.style.expect("the style term is on").item()?], &value) < 5e-6);
        // Another number of images or channels is refused, in words.
        let more = tensor([shape[0] + 1, 3, 8, 8], &image([shape[0] + 1, 3, 8, 8], 211));
        let refused = bound.forward_with(&more, &bound.features(&gt)?);
        assert!(matches!(refused, Err(Error::ShapeMismatch { argument: "gt", .. })), "{refused:?}");
    }
    Ok(())
}

#[test]
fn features_of_faces_of_another_size_are_refused() -> Result<()> {
    let loss = LightCnnFeatureLoss::new(LightCnnFeatureOptions::default(), &Weights::Seeded(3))?;
    let bound = loss.bind(&())?;
    let tensor =
        |shape: [usize; 4]| NdTensor::new(Array4::from_shape_vec(shape, image(shape, 389)).expect("the shape's"));
    let wide = tensor([1, 3, 17, 33]);
    // As many numbers as the other's, for another shape.
    let high = tensor([1, 3, 33, 17]);
    let features = bound.features(&wide)?;
    let shapes =
        |features: &TargetFeatures<NdTensor<'_, f32>>| features.tensors().map(NdTensor::shape).collect::<Vec<_>>();
    assert_eq!(shapes(&features), [[1, 128, 2, 3]]);
    assert_eq!(shapes(&features), shapes(&bound.clone().composed().features(&wide)?));
    assert_eq!(bound.forward_with(&wide, &features)?.item()?, 0.0);
    for bound in [bound.clone(), bound.composed()] {
        let refused = bound.forward_with(&high, &features);
        assert!(matches!(refused, Err(Error::ShapeMismatch { .. })), "{refused:?}");
    }
    Ok(())
}

#[test]
fn light_cnn_is_that_of_the_composed_network() -> Result<()> {
    for (shape, loss_weight) in [([1, 3, 16, 16], 1.0), ([2, 3, 9, 21], 0.5), ([1, 3, 1, 1], 2.0)] {
        let options = LightCnnFeatureOptions { loss_weight, criterion: Criterion::Mse, pretrained: None, prefix: None };
        let loss = LightCnnFeatureLoss::new(options, &Weights::Seeded(3))?;
        let (x, gt) = (image(shape, 389), image(shape, 577));
        let evaluate = |is_composed: bool, is_cached: bool| {
            on_autograd(shape, &x, &gt, |x, gt| {
                let bound = loss.bind(&x.context())?;
                let bound = if is_composed { bound.composed() } else { bound };
                Ok(vec![if is_cached { bound.forward_with(x, &bound.features(gt)?)? } else { bound.forward(x, gt)? }])
            })
        };
        let [value, gradient] = evaluate(true, false)?;
        for is_cached in [false, true] {
            let [fused_value, fused_gradient] = evaluate(false, is_cached)?;
            assert!(distance(&fused_value, &value) < 5e-6, "{value:?} {fused_value:?}");
            assert!(distance(&fused_gradient, &gradient) < 2e-5, "{:e}", distance(&fused_gradient, &gradient));
        }
        let array = |data| Array { shape: &shape, data };
        let (found, found_gradient) = loss.value_and_gradient(array(&x), Target::Images(&gt))?;
        assert!(distance(&[found], &value) < 5e-6 && distance(&found_gradient, &gradient) < 2e-5);
        let features = loss.target_features(array(&gt))?;
        assert_eq!(loss.value_and_gradient(array(&x), Target::Features(&features))?, (found, found_gradient));
        let second = |is_composed: bool| {
            has_second_derivative(shape, [&x, &gt], |x, gt| {
                let bound = loss.bind(&x.context())?;
                if is_composed { bound.composed() } else { bound }.forward(x, gt)
            })
        };
        assert!(matches!(second(false), Err(Error::SecondDerivative { operation: "LightCNNFeatureLoss" })));
        assert!(second(true)?);
    }
    Ok(())
}

#[test]
fn face_id_is_that_of_the_composed_network() -> Result<()> {
    let shape = [2, 3, 256, 230];
    let loss = FaceIdLoss::new(FaceIdOptions { loss_weight: 0.7, ..FaceIdOptions::default() }, &Weights::Seeded(3))?;
    let (x, gt) = (image(shape, 389), image(shape, 577));
    let evaluate = |is_composed: bool, is_cached: bool| {
        on_autograd(shape, &x, &gt, |x, gt| {
            let bound = loss.bind(&x.context())?;
            let bound = if is_composed { bound.composed() } else { bound };
            Ok(vec![if is_cached { bound.forward_with(x, &bound.features(gt)?)? } else { bound.forward(x, gt)? }])
        })
    };
    let [value, gradient] = evaluate(true, false)?;
    for is_cached in [false, true] {
        let [fused_value, fused_gradient] = evaluate(false, is_cached)?;
        assert!(distance(&fused_value, &value) < 5e-6, "{value:?} {fused_value:?}");
        assert!(distance(&fused_gradient, &gradient) < 1e-4, "{:e}", distance(&fused_gradient, &gradient));
    }
    let tensor = |data: &[f32]| NdTensor::new(Array4::from_shape_vec(shape, data.to_vec()).expect("the shape's"));
    assert!(distance(&[loss.forward(&tensor(&x), &tensor(&gt))?.item()?], &value) < 5e-6);

    let second = |is_composed: bool| {
        has_second_derivative(shape, [&x, &gt], |x, gt| {
            let bound = loss.bind(&x.context())?;
            if is_composed { bound.composed() } else { bound }.forward(x, gt)
        })
    };
    assert!(matches!(second(false), Err(Error::SecondDerivative { operation: "FaceIdLoss" })));
    assert!(second(true)?);
    Ok(())
}

#[test]
fn a_second_derivative_is_refused_where_it_is_fused_and_right_where_it_is_composed() -> Result<()> {
    let shape = [1, 3, 4, 4];
    let loss = PerceptualLoss::new(
        PerceptualOptions { style_weight: 0.0, ..options(&[("relu1_1", 1.0)]) },
        &Weights::Seeded(1),
    )?;
    let second = |is_composed: bool| {
        run(|session| {
            let (x, gt) = (session.input(image(shape, 389), &shape)?, session.input(image(shape, 577), &shape)?);
            let bound = loss.bind(&x.context())?;
            let bound = if is_composed { bound.composed() } else { bound };
            let value = bound.forward(&x, &gt)?.total()?.expect("a term is on");
            let first = Differentiable::gradients(&value, &[&x], true)?.remove(0).expect("x has influence");
            let second = Differentiable::gradients(&first.mul(&first)?.sum_all()?, &[&x], false)?;
            session.evaluate(&[second[0].as_ref().expect("x has influence")])
        })
    };
    assert!(matches!(second(false), Err(Error::SecondDerivative { operation: "PerceptualLoss" })));
    assert!(second(true)?[0].iter().any(|value| *value != 0.0));
    Ok(())
}

#[test]
fn a_graph_that_is_evaluated_again_has_no_value_of_before() -> Result<()> {
    let shape = [1, 3, 8, 8];
    let loss = PerceptualLoss::new(
        PerceptualOptions { style_weight: 0.0, ..options(&[("relu1_2", 1.0)]) },
        &Weights::Seeded(2),
    )?;
    let gt = image(shape, 577);
    run(|session| {
        let (x, target) = (session.placeholder(&shape), session.input(gt.clone(), &shape)?);
        let value = loss.forward(&x, &target)?.total()?.expect("a term is on");
        let gradient = Differentiable::gradients(&value, &[&x], false)?.remove(0).expect("x has influence");
        for step in [389, 211, 389] {
            let image = image(shape, step);
            let alone = loss.value_and_gradient(Array { shape: &shape, data: &image }, Target::Images(&gt))?;
            // The gradient leaves its value; evaluated for another image, that is not taken.
            let found = session.evaluate_with(&[(&x, &image)], &[&gradient])?;
            assert_eq!(found[0], alone.gradient);
            let other = self::image(shape, step + 2);
            let expected = loss.value_and_gradient(Array { shape: &shape, data: &other }, Target::Images(&gt))?;
            assert_eq!(
                session.evaluate_with(&[(&x, &other)], &[&value])?[0][0],
                expected.perceptual.unwrap_or(f32::NAN)
            );
            let both = session.evaluate_with(&[(&x, &image)], &[&value, &gradient])?;
            assert_eq!((both[0][0], &both[1]), (alone.perceptual.unwrap_or(f32::NAN), &alone.gradient));
        }
        Ok(())
    })
}
