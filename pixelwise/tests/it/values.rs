//! Values worked out by hand, options that change a result, and options refused.

use image_losses_autograd::differentiate;
use image_losses_core::{Declared, Error, Loss, Reduction};
use image_losses_ndarray::{NdTensor, value_and_gradients};
use image_losses_pixelwise::*;
use ndarray::{Array4, ArrayD, array};

fn forward<const K: usize>(loss: &impl Loss<K>, inputs: [&ArrayD<f64>; K], weight: Option<&ArrayD<f64>>) -> Vec<f64> {
    let inputs = inputs.map(|input| NdTensor::view(input.view()));
    let weight = weight.map(|weight| NdTensor::view(weight.view()));
    let value = loss.forward(std::array::from_fn(|k| &inputs[k]), weight.as_ref()).unwrap();
    value.into_array().into_raw_vec_and_offset().0
}

#[track_caller]
fn close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-12 * expected.abs().max(1.0), "got {got}, expected {expected}");
    }
}

#[test]
fn psnr_of_a_perfect_prediction_is_minus_80() {
    let x = ArrayD::from_elem(vec![2, 3, 4, 5], 0.3);
    for to_y in [false, true] {
        for loss_weight in [1.0, -0.5] {
            let loss = PsnrLoss { loss_weight, to_y };
            close(&forward(&loss, [&x, &x], None), &[-80.0 * loss_weight]);
        }
    }
}

#[test]
fn psnr_averages_the_samples_in_decibels() {
    // Sample 0 is off by 0.1 everywhere, sample 1 by 1 in one of four elements.
    let x = array![[[0.1, 0.1], [0.1, 0.1]], [[1.0, 0.0], [0.0, 0.0]]].into_dyn();
    let y = ArrayD::zeros(x.raw_dim());
    let decibels = |error: f64| 10.0 * (error + 1e-8).log10();
    close(&forward(&PsnrLoss::default(), [&x, &y], None), &[(decibels(0.01) + decibels(0.25)) / 2.0]);
}

#[test]
fn psnr_on_luma_weighs_the_channels() {
    // A change of c in one channel changes the luma by its coefficient / 255; the offset 16 drops out.
    for (channel, coefficient) in [65.481, 128.553, 24.966].into_iter().enumerate() {
        let y = Array4::from_elem((1, 3, 2, 2), 0.25);
        let mut x = y.clone();
        x.index_axis_mut(ndarray::Axis(1), channel).mapv_inplace(|v| v + 0.5);
        let (x, y) = (x.into_dyn(), y.into_dyn());
        let luma = PsnrLoss { to_y: true, ..Default::default() };
        let error = (0.5f64 * coefficient / 255.0).powi(2);
        close(&forward(&luma, [&x, &y], None), &[10.0 * (error + 1e-8).log10()]);
        // Without the option the channels count alike.
        close(&forward(&PsnrLoss::default(), [&x, &y], None), &[10.0 * (0.25 / 3.0 + 1e-8f64).log10()]);
    }
    let grey = NdTensor::new(Array4::<f64>::zeros((1, 1, 2, 2)));
    let luma: PsnrLoss = serde_json::from_str(r#"{"toY": true}"#).unwrap();
    let refused = luma.forward([&grey, &grey], None).unwrap_err();
    assert!(matches!(refused, Error::ShapeRule { argument: "pred", .. }), "{refused}");
    assert!(refused.to_string().contains("3 channels"), "{refused}");
}

#[test]
fn total_variation_is_per_sample_and_has_no_difference_at_the_edge() {
    // Sample 0: across 1² + 2², down 3² + 4². Sample 1 is constant.
    let x = array![[[[0.0, 1.0], [3.0, 5.0]]], [[[7.0, 7.0], [7.0, 7.0]]]].into_dyn();
    close(&forward(&TvLoss::default(), [&x], None), &[30.0 / 4.0, 0.0]);
    close(&tv_loss(&NdTensor::view(x.view())).unwrap().into_array().into_raw_vec_and_offset().0, &[7.5, 0.0]);
    // Channels count in the mean: 1² and 3² over four elements.
    close(&forward(&TvLoss::default(), [&array![[[[0.0, 1.0]], [[0.0, 3.0]]]].into_dyn()], None), &[2.5]);
    // One row: differences across alone; one pixel: none.
    close(&forward(&TvLoss::default(), [&array![[[[0.0, 1.0, 3.0]]]].into_dyn()], None), &[5.0 / 3.0]);
    close(&forward(&TvLoss::default(), [&array![[[[4.0]], [[9.0]]]].into_dyn()], None), &[0.0]);
}

#[test]
fn masked_total_variation_divides_each_direction_by_its_own_weights() {
    let x = array![[[[0.0, 1.0, 4.0], [2.0, 2.0, 7.0]]]].into_dyn();
    let mask = array![[[[1.0, 0.5, 9.0], [0.0, 2.0, 9.0]]]].into_dyn();
    // Across: |1|·1 + |3|·0.5 + |0|·0 + |5|·2 over 3.5; the last column's weights do not enter.
    // Down: |2|·1 + |1|·0.5 + |3|·9 over 10.5; the last row's weights do not enter.
    close(&forward(&MaskedTvLoss::default(), [&x], Some(&mask)), &[12.5 / 3.5 + 29.5 / 10.5]);
    close(&forward(&MaskedTvLoss::default(), [&x], None), &[9.0 / 4.0 + 6.0 / 3.0]);
    // A mask on the last row and column only leaves no pair in one direction each.
    let corner = array![[[[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]].into_dyn();
    assert_eq!(forward(&MaskedTvLoss::default(), [&x], Some(&corner)), [0.0]);
    // One row: nothing downwards.
    let row = array![[[[0.0, 1.0, 4.0]]]].into_dyn();
    close(&forward(&MaskedTvLoss::default(), [&row], None), &[2.0]);
    close(&forward(&MaskedTvLoss::default(), [&row], Some(&ArrayD::ones(vec![1, 1, 1, 3]))), &[2.0]);
}

#[test]
fn gradient_filters_each_channel_by_itself() {
    // A unit pixel in the middle: the map is the sum of both kernels' absolute values.
    let mut x = Array4::zeros((1, 2, 3, 3));
    x[[0, 1, 1, 1]] = 1.0;
    let (x, y) = (x.into_dyn(), ArrayD::zeros(vec![1, 2, 3, 3]));
    let with = |reduction| GradientLoss { reduction, loss_weight: 2.0 };
    let around = [2.0, 2.0, 2.0, 2.0, 0.0, 2.0, 2.0, 2.0, 2.0].map(|v| 2.0 * v);
    close(&forward(&with(Reduction::None), [&x, &y], None), &[&[0.0; 9][..], &around].concat());
    close(&forward(&with(Reduction::Sum), [&x, &y], None), &[32.0]);
    close(&forward(&with(Reduction::Mean), [&x, &y], None), &[32.0 / 18.0]);
    // Constant images differ in their edges alone: zeros lie beyond.
    let (x, y) = (ArrayD::ones(vec![1, 1, 3, 3]), ArrayD::zeros(vec![1, 1, 3, 3]));
    // Across, rows see 3, 4, 3 (the smoothing loses one at the edge) in the outer two columns; down, likewise.
    close(&forward(&with(Reduction::Sum), [&x, &y], None), &[2.0 * (2.0 * 10.0 + 2.0 * 10.0)]);
}

#[test]
fn charbonnier_without_eps_is_l1() {
    let x = (vec![0.5, 0.5, -1.0, 1e-200], vec![1, 4]);
    let y = (vec![0.5, 1.0, 2.0, 0.0], vec![1, 4]);
    let charbonnier = CharbonnierLoss { eps: 0.0, ..Default::default() };
    let inputs = [x, y];
    let derived = differentiate(&inputs, |inputs| charbonnier.forward([&inputs[0], &inputs[1]], None)).unwrap();
    let expected = differentiate(&inputs, |inputs| L1Loss::default().forward([&inputs[0], &inputs[1]], None)).unwrap();
    assert_eq!(derived, expected);
    assert_eq!(derived.1[0], [0.0, -0.25, -0.25, 0.25]);
}

#[test]
fn huber_is_half_the_squared_error_inside_delta_and_l1_outside() {
    let x = array![[0.5, -2.0, 8.0]].into_dyn();
    let y = array![[0.0, 1.0, 1.0]].into_dyn();
    let huber = |delta| {
        let options = HuberLoss { delta, reduction: Reduction::Sum, ..Default::default() };
        forward(&options, [&x, &y], None)
    };
    close(&huber(100.0), &[0.5 * (0.25 + 9.0 + 49.0)]);
    close(&huber(0.125), &[0.125 * (0.5 + 3.0 + 7.0 - 3.0 * 0.0625)]);
}

#[test]
fn options_outside_their_range_are_refused() {
    let refused = |error: Error, expected: &str| match error {
        Error::InvalidOption { option, .. } => assert_eq!(option, expected),
        other => panic!("{other}"),
    };
    for loss_weight in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(L1Loss { loss_weight, ..Default::default() }.check().unwrap_err(), "loss_weight");
        refused(MseLoss { loss_weight, ..Default::default() }.check().unwrap_err(), "loss_weight");
        let options = CharbonnierLoss { loss_weight, ..Default::default() };
        refused(options.check().unwrap_err(), "loss_weight");
        refused(HuberLoss { loss_weight, ..Default::default() }.check().unwrap_err(), "loss_weight");
        refused(PsnrLoss { loss_weight, ..Default::default() }.check().unwrap_err(), "loss_weight");
        refused(TvLoss { loss_weight }.check().unwrap_err(), "loss_weight");
        refused(MaskedTvLoss { loss_weight }.check().unwrap_err(), "loss_weight");
        refused(GradientLoss { loss_weight, ..Default::default() }.check().unwrap_err(), "loss_weight");
    }
    for eps in [-1e-12, f64::NAN, f64::INFINITY] {
        refused(CharbonnierLoss { eps, ..Default::default() }.check().unwrap_err(), "eps");
    }
    for delta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(HuberLoss { delta, ..Default::default() }.check().unwrap_err(), "delta");
    }
    // What a document holds is checked where it is used.
    let x = NdTensor::new(array![[1.0f64, 2.0]]);
    let read = serde_json::from_str::<HuberLoss>(r#"{"delta": 0}"#).unwrap();
    refused(read.forward([&x, &x], None).unwrap_err(), "delta");
    let read = serde_json::from_str::<CharbonnierLoss>(r#"{"eps": -1}"#).unwrap();
    refused(read.forward([&x, &x], None).unwrap_err(), "eps");
    assert!(serde_json::from_str::<L1Loss>(r#"{"reduction": "avg"}"#).is_err());
}

#[test]
fn defaults_are_those_of_the_original() {
    assert_eq!(CharbonnierLoss::default().eps, 1e-12);
    assert_eq!(HuberLoss::default().delta, 1.0);
    assert!(!PsnrLoss::default().to_y);
    let weights = [
        L1Loss::default().loss_weight,
        MseLoss::default().loss_weight,
        CharbonnierLoss::default().loss_weight,
        HuberLoss::default().loss_weight,
        PsnrLoss::default().loss_weight,
        TvLoss::default().loss_weight,
        MaskedTvLoss::default().loss_weight,
        GradientLoss::default().loss_weight,
    ];
    assert_eq!(weights, [1.0; 8]);
    let names = [L1Loss::NAME, MseLoss::NAME, CharbonnierLoss::NAME, HuberLoss::NAME, PsnrLoss::NAME, TvLoss::NAME];
    assert_eq!(names, ["L1Loss", "MSELoss", "CharbonnierLoss", "HuberLoss", "PSNRLoss", "tv_loss"]);
    assert_eq!([MaskedTvLoss::NAME, GradientLoss::NAME], ["MaskedTVLoss", "GradientLoss"]);
}

#[test]
fn a_mask_takes_an_infinite_pixel_out_on_every_path() {
    let (x, y) = (array![[f32::INFINITY, 3.0]], array![[0.0f32, 1.0]]);
    for (mask, expected) in [(array![[0.0f32, 0.0]], [0.0, 0.0]), (array![[0.0, 0.5]], [2.0, 1.0])] {
        let loss = L1Loss::default();
        let tensors = [&x, &y, &mask].map(|array| NdTensor::view(array.view()));
        let value = loss.forward([&tensors[0], &tensors[1]], Some(&tensors[2])).unwrap().item().unwrap();
        assert_eq!(value, expected[0]);
        let (value, [gradient, _]) =
            value_and_gradients(&loss, [x.view(), y.view()], Some(mask.view()), [true, false]).unwrap();
        assert_eq!(value, expected[0]);
        assert_eq!(gradient.unwrap(), array![[0.0, expected[1]]].into_dyn());
    }
}
