//! The losses of MMagic's models as objectives: which terms, of which side, of what, and their values by hand.
#![cfg(all(
    feature = "config",
    feature = "ndarray",
    feature = "pixelwise",
    feature = "composition",
    feature = "gan",
    feature = "penalties",
    feature = "vgg",
    feature = "light-cnn"
))]

use image_losses::AnyTensor;
use image_losses::config::{BuildContext, Inputs, Registry, network};
use image_losses::core::{Differentiable, Error, Result, Tensor};
use image_losses::ndarray::NdTensor;
use image_losses::objective::{Note, Objective, Report, Side};
use serde_json::{Value, json};

use crate::support::leaf;

type Any<'g> = AnyTensor<'g>;

fn build(document: &Value) -> Result<Objective> {
    let context = BuildContext { seeded: Some(7), ..BuildContext::default() };
    Objective::build(&Registry::standard(), document, "model", &context)
}

/// An image of one channel and one column.
fn column(values: &[f64]) -> Any<'static> {
    image(1, values)
}

/// Images (1, c, n, 1).
fn image(channels: usize, values: &[f64]) -> Any<'static> {
    let shape = vec![1, channels, values.len() / channels, 1];
    NdTensor::new(ndarray::ArrayD::from_shape_vec(shape, values.to_vec()).unwrap()).into()
}

fn outputs(named: &[(&str, &[f64])]) -> Inputs<'static, Any<'static>> {
    named.iter().fold(Inputs::new(), |inputs, (name, values)| inputs.tensor(*name, column(values)))
}

fn report(objective: &mut Objective, side: Side, outputs: &Inputs<'_, Any<'static>>) -> Report {
    let step = objective.evaluate(side, outputs).unwrap();
    objective.finish(&step, &step.values().unwrap()).unwrap()
}

/// The values of the terms and the total.
fn assert_report(report: &Report, terms: &[(&str, f64)], total: f64) {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1.0);
    assert_eq!(report.terms.len(), terms.len(), "{report}");
    for (term, (name, value)) in report.terms.iter().zip(terms) {
        assert!(term.name == *name && near(term.value, *value), "{name} = {value}: {report}");
    }
    assert!(near(report.total, total), "total {total}: {report}");
}

/// Terms with what they take: `side: term, …` of a document, and all outputs that it needs.
fn terms(document: &Value) -> Vec<(Side, Vec<String>)> {
    let objective = build(document).unwrap();
    let sides = [Side::Discriminator, Side::Generator];
    // What is written down builds the same objective.
    let again = build(objective.to_value()).unwrap();
    for side in sides {
        assert_eq!((objective.needs(side), objective.term_names(side)), (again.needs(side), again.term_names(side)));
    }
    assert_eq!(objective.to_value(), again.to_value());
    sides.into_iter().map(|side| (side, objective.term_names(side))).filter(|(_, terms)| !terms.is_empty()).collect()
}

fn assert_terms(document: Value, only: &[&str], discriminator: &[&str], generator: &[&str]) {
    let generator = [only, generator].concat();
    let expected = [(Side::Discriminator, discriminator), (Side::Generator, &generator[..])];
    let expected: Vec<(Side, Vec<String>)> = expected
        .into_iter()
        .filter(|(_, terms)| !terms.is_empty())
        .map(|(side, terms)| (side, terms.iter().map(|term| (*term).to_owned()).collect()))
        .collect();
    assert_eq!(terms(&document), expected, "{document}");
}

fn l1() -> Value {
    json!({"type": "L1Loss"})
}
fn lsgan() -> Value {
    json!({"type": "GANLoss", "gan_type": "lsgan", "loss_weight": 0.1})
}
fn vgg() -> Value {
    json!({"type": "PerceptualLoss", "layer_weights": {"2": 1.0}})
}

#[test]
fn restoration_and_video_models_have_one_side() {
    for name in ["BaseEditModel", "BasicInterpolator", "BasicVSR", "EDVR", "CAIN", "FLAVR", "LIIF", "mmagic.LIIF"] {
        assert_terms(json!({"type": name, "pixel_loss": l1()}), &["loss"], &[], &[]);
    }
    let path = "mmagic.models.editors.basicvsr.basicvsr.BasicVSR";
    let loss = json!({"type": "mmagic.models.losses.pixelwise_loss.CharbonnierLoss"});
    assert_terms(json!({"type": path, "pixel_loss": loss}), &["loss"], &[], &[]);
    let tdan = json!({"type": "TDAN", "pixel_loss": l1(), "lq_pixel_loss": l1()});
    assert_terms(tdan.clone(), &["loss_pix", "loss_pix_lq"], &[], &[]);
    let outputs =
        outputs(&[("fake_imgs", &[1.0]), ("real_imgs", &[4.0]), ("aligned_imgs", &[7.0]), ("lq_imgs", &[5.0])]);
    assert_report(
        &report(&mut build(&tdan).unwrap(), Side::Generator, &outputs),
        &[("loss_pix", 3.0), ("loss_pix_lq", 2.0)],
        5.0,
    );
}

#[test]
fn super_resolution_models_have_the_terms_of_their_steps() {
    let with = |name: &str, more: Value| {
        let mut model = json!({"type": name, "pixel_loss": l1(), "perceptual_loss": vgg(), "gan_loss": lsgan()});
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        model
    };
    let (d, g) = (["loss_d_real", "loss_d_fake"], ["loss_pix", "loss_perceptual", "loss_style", "loss_gan"]);
    assert_terms(with("SRGAN", json!({})), &[], &d, &g);
    assert_terms(with("RealESRGAN", json!({})), &[], &d, &g);
    assert_terms(
        with("ESRGAN", json!({})),
        &[],
        &d,
        &["loss_pix", "loss_perceptual", "loss_style", "loss_gan", "loss_gan"],
    );
    let cleaned = ["loss_pix", "loss_perceptual", "loss_style", "loss_gan", "loss_clean"];
    assert_terms(with("RealBasicVSR", json!({"cleaning_loss": l1()})), &[], &d, &cleaned);
    let transferred = ["loss_pix", "loss_perceptual", "loss_style", "loss_transferal", "loss_gan"];
    let textures = json!({"transferal_perceptual_loss": {"type": "TransferalPerceptualLoss"}});
    assert_terms(with("TTSR", textures), &[], &d, &transferred);
    // A loss that is null is off, and so is an adversarial loss without a discriminator.
    assert_terms(with("SRGAN", json!({"perceptual_loss": null, "gan_loss": null})), &[], &[], &["loss_pix"]);
    assert_terms(with("SRGAN", json!({"perceptual_loss": null, "discriminator": null})), &[], &[], &["loss_pix"]);
    let face = json!({
        "type": "DIC", "generator": {"num_steps": 2}, "pixel_loss": l1(), "align_loss": {"type": "MSELoss"},
        "feature_loss": {"type": "LightCNNFeatureLoss"}, "gan_loss": lsgan(),
    });
    let steps = ["loss_pixel_v0", "loss_pixel_v1", "loss_align_v0", "loss_align_v1", "loss_feature", "loss_gan"];
    assert_terms(face, &[], &d, &steps);
    // Four steps by default, in MMagic's generator.
    let four = json!({"type": "DIC", "pixel_loss": l1()});
    assert_terms(four, &[], &[], &["loss_pixel_v0", "loss_pixel_v1", "loss_pixel_v2", "loss_pixel_v3"]);
    // Real-ESRGAN's switches choose the target.
    let sharp = json!({"type": "RealESRGAN", "pixel_loss": l1(), "is_use_sharpened_gt_in_pixel": true});
    let outputs = outputs(&[("fake_imgs", &[1.0]), ("real_imgs", &[2.0]), ("real_imgs_sharpened", &[4.0])]);
    assert_report(&report(&mut build(&sharp).unwrap(), Side::Generator, &outputs), &[("loss_pix", 3.0)], 3.0);
}

#[test]
fn srgan_and_esrgan_are_their_formulas() {
    let model = |name: &str| json!({"type": name, "gan_loss": lsgan()});
    let outputs = outputs(&[
        ("disc_pred_fake", &[1.0, 3.0]),
        ("disc_pred_real", &[0.0, 1.0]),
        ("disc_pred_fake_g", &[2.0, 4.0]),
        ("disc_pred_real_g", &[0.5, 1.5]),
    ]);
    let mut plain = build(&model("SRGAN")).unwrap();
    // mean (r − 1)², mean f²; λ · mean (f_g − 1)².
    let d = report(&mut plain, Side::Discriminator, &outputs);
    assert_report(&d, &[("loss_d_real", 0.5), ("loss_d_fake", 5.0)], 5.5);
    assert_report(&report(&mut plain, Side::Generator, &outputs), &[("loss_gan", 0.5)], 0.5);
    let mut relative = build(&model("ESRGAN")).unwrap();
    // ½ mean (r − 2 − 1)² with r − 3 = −3, −2; ½ mean (f − ½)² with ½, 5⁄2.
    let d = report(&mut relative, Side::Discriminator, &outputs);
    assert_report(&d, &[("loss_d_real", 3.25), ("loss_d_fake", 1.625)], 4.875);
    // λ/2 · (mean (f_g − 1 − 1)² + mean (r_g − 3)²) with 0, 2 and −5⁄2, −3⁄2.
    let g = report(&mut relative, Side::Generator, &outputs);
    assert_report(&g, &[("loss_gan", 0.05 * (2.0 + 4.25))], 0.05 * 6.25);
}

#[test]
fn the_other_scores_are_constants_for_esrgans_discriminator_alone() {
    let model = json!({"type": "ESRGAN", "gan_loss": lsgan()});
    let gradient = |side: Side, names: [&str; 2]| {
        let (fake, real) = (leaf(vec![1.0, 3.0], &[2, 1]), leaf(vec![0.0, 1.0], &[2, 1]));
        let outputs = Inputs::new().tensor(names[0], fake.clone()).tensor(names[1], real);
        let step = build(&model).unwrap().evaluate(side, &outputs).unwrap();
        let gradients = Any::gradients(step.total().unwrap(), &[&fake], false).unwrap();
        gradients[0].as_ref().unwrap().values().unwrap()
    };
    // ½ · 2(f − ½)/2: nothing through the mean that the real scores are compared with.
    assert_eq!(gradient(Side::Discriminator, ["disc_pred_fake", "disc_pred_real"]), [0.25, 1.25]);
    // λ/2 · (2(f − ½ − 1)/2 − mean 2(r − 2)/2): the mean of the generated scores has a gradient.
    let expected = [-0.5f64, 1.5].map(|own| 0.05 * (own + 1.5));
    for (a, b) in gradient(Side::Generator, ["disc_pred_fake_g", "disc_pred_real_g"]).iter().zip(expected) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }
}

#[test]
fn inpainting_models_have_the_terms_of_their_stages() {
    let losses = |name: &str, more: Value| {
        let mut model = json!({
            "type": name, "loss_gan": lsgan(), "loss_l1_hole": l1(), "loss_l1_valid": l1(),
            "loss_composed_percep": vgg(), "loss_tv": {"type": "MaskedTVLoss"},
            "loss_gp": {"type": "GradientPenaltyLoss"}, "loss_disc_shift": {"type": "DiscShiftLoss"},
        });
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        model
    };
    let d = ["fake_loss", "loss_disc_shift", "real_loss", "loss_disc_shift"];
    let composed = ["loss_composed_percep", "loss_composed_style"];
    let reconstructed = ["loss_g_fake", "loss_l1_hole", "loss_l1_valid"];
    let out = ["loss_out_percep", "loss_out_style"];
    let join = |parts: &[&[&'static str]]| parts.concat();
    let one = losses("OneStageInpaintor", json!({"loss_out_percep": true}));
    assert_terms(one, &[], &join(&[&d, &["loss_gp"]]), &join(&[&reconstructed, &composed, &out, &["loss_tv"]]));
    let partial = losses("PConvInpaintor", json!({"disc": null}));
    assert_terms(partial, &[], &[], &join(&[&reconstructed[1..], &composed, &["loss_tv"]]));
    assert_terms(losses("GLInpaintor", json!({})), &[], &d, &reconstructed);
    let smgan = json!({"type": "GANLoss", "gan_type": "smgan"});
    let aot = losses("AOTInpaintor", json!({"loss_gan": smgan, "loss_out_percep": true}));
    assert_terms(aot.clone(), &[], &["disc_losses"; 2], &join(&[&["loss_g_fake", "loss_l1_valid"], &out]));
    let needs: Vec<String> = build(&aot).unwrap().needs(Side::Discriminator).into_iter().map(|n| n.output).collect();
    assert_eq!(needs, ["disc_pred_real", "mask", "disc_pred_fake", "mask"]);
    let two = losses("TwoStageInpaintor", json!({}));
    assert_terms(
        two,
        &[],
        &join(&[&d, &["loss_gp"]]),
        &["stage1_loss_l1_hole", "stage2_loss_l1_hole", "stage2_loss_g_fake"],
    );
    let lists = json!({
        "stage1_loss_type": ["loss_l1_valid", "loss_composed_percep"], "stage2_loss_type": ["loss_tv", "loss_gan"],
    });
    let staged =
        ["stage1_loss_l1_valid", "stage1_loss_composed_percep", "stage1_loss_composed_style", "stage2_loss_tv"];
    assert_terms(
        losses("TwoStageInpaintor", lists.clone()),
        &[],
        &join(&[&d, &["loss_gp"]]),
        &join(&[&staged, &["stage2_loss_g_fake"]]),
    );
    let places = ["fake_loss_global", "fake_loss_local", "loss_disc_shift_global", "loss_disc_shift_local"];
    let real = ["real_loss_global", "real_loss_local", "loss_disc_shift_global", "loss_disc_shift_local"];
    assert_terms(
        losses("DeepFillv1Inpaintor", lists),
        &[],
        &join(&[&places, &real, &["loss_gp_global", "loss_gp_local"]]),
        &join(&[&staged, &["stage2_loss_g_fake"; 2]]),
    );
}

#[test]
fn inpainting_is_its_formulas() {
    let model = json!({
        "type": "OneStageInpaintor", "loss_gan": lsgan(), "loss_disc_shift": {"type": "DiscShiftLoss", "loss_weight": 0.1},
        "loss_l1_hole": l1(), "loss_l1_valid": {"type": "L1Loss", "reduction": "sum"},
    });
    let outputs = outputs(&[
        ("disc_pred_fake", &[1.0, 3.0]),
        ("disc_pred_real", &[0.0, 1.0]),
        ("disc_pred_fake_g", &[2.0, 4.0]),
        ("fake_res", &[1.0, 2.0, 7.0]),
        ("real_imgs", &[2.0, 4.0, 3.0]),
        ("mask", &[1.0, 1.0, 0.0]),
    ]);
    let mut objective = build(&model).unwrap();
    // mean f² = 5 and mean (r − 1)² = ½, and ½ · 0.1 times their squares.
    let d = report(&mut objective, Side::Discriminator, &outputs);
    assert_report(&d, &[("fake_loss", 5.0), ("loss_disc_shift", 0.05 * 25.25), ("real_loss", 0.5)], 5.5 + 0.05 * 25.25);
    // In the hole the mean of 1 and 2 (over 2 + 1e-12), outside the sum 4.
    let g = report(&mut objective, Side::Generator, &outputs);
    assert_report(&g, &[("loss_g_fake", 0.5), ("loss_l1_hole", 1.5), ("loss_l1_valid", 4.0)], 6.0);
}

#[test]
fn matting_models_have_the_terms_of_what_is_trained() {
    let comp = json!({"type": "L1CompositionLoss"});
    let dim = |train_cfg: Value| json!({"type": "DIM", "loss_alpha": l1(), "loss_comp": comp, "loss_refine": l1(), "train_cfg": train_cfg});
    let all = json!({"train_backbone": true, "train_refiner": true});
    assert_terms(dim(all), &["loss_alpha", "loss_comp", "loss_refine"], &[], &[]);
    assert_terms(dim(json!({"train_refiner": false})), &["loss_alpha", "loss_comp"], &[], &[]);
    assert_terms(dim(json!({"train_backbone": false})), &["loss_refine"], &[], &[]);
    assert_terms(json!({"type": "GCA", "loss_alpha": l1()}), &["loss"], &[], &[]);
    let index = json!({"type": "IndexNet", "loss_alpha": l1(), "loss_comp": comp});
    assert_terms(index.clone(), &["loss_alpha", "loss_comp"], &[], &[]);
    let outputs = outputs(&[
        ("pred_alpha", &[0.5, 1.0]),
        ("gt_alpha", &[0.25, 0.0]),
        ("unknown", &[1.0, 0.0]),
        ("gt_fg", &[1.0, 1.0]),
        ("gt_bg", &[0.0, 0.0]),
        ("gt_merged", &[0.75, 0.0]),
    ]);
    // Where it is unknown: abs(½ − ¼), and abs(½·1 + ½·0 − ¾).
    let report = report(&mut build(&index).unwrap(), Side::Generator, &outputs);
    assert_report(&report, &[("loss_alpha", 0.25), ("loss_comp", 0.25)], 0.5);
}

#[test]
fn deblurgan_v2_is_its_formulas() {
    let terms_of = |more: Value| {
        let mut model = json!({"type": "DeblurGanV2", "disc_loss": "ragan-ls", "pixel_loss": vgg()});
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        model
    };
    assert_terms(terms_of(json!({})), &[], &["loss_d"], &["loss_g_content", "loss_g_content", "loss_g_adv"]);
    let double = terms_of(json!({"discriminator": {"backbone": "DoubleGan"}}));
    let g = ["loss_g_content", "loss_g_content", "loss_g_adv", "loss_g_adv"];
    assert_terms(double.clone(), &[], &["loss_d"; 2], &g);
    // Each discriminator has pools of its own.
    let states = build(&double).unwrap().state().unwrap();
    assert_eq!(states.as_object().unwrap().keys().collect::<Vec<_>>(), ["disc_loss", "disc_loss.copy"]);
    let model =
        json!({"type": "DeblurGanV2", "disc_loss": {"type": "AdvLoss", "loss_type": "lsgan"}, "adv_lambda": 0.01});
    let critic = network(|x: &Any<'static>| Ok(x.clone()));
    let outputs = Inputs::new()
        .tensor("fake_imgs", image(3, &[1.0, 1.0, 1.0]))
        .tensor("real_imgs", image(3, &[-1.0, -1.0, -1.0]))
        .network("disc", critic);
    let mut objective = build(&model).unwrap();
    // `lsgan` of AdvLoss compares by absolute values: ½ (abs(1 − 0) + abs(−1 − 1)), abs(1 − 1).
    let d = report(&mut objective, Side::Discriminator, &outputs);
    assert_report(&d, &[("loss_d", 0.01 * 1.5)], 0.015);
    // ½ in `loss_g_content`, and once more in `loss_g`: the mean of (1/σ)² over the channels.
    let content = [0.229f64, 0.224, 0.225].map(|sigma| sigma.powi(-2)).iter().sum::<f64>() / 3.0;
    let g = report(&mut objective, Side::Generator, &outputs);
    assert_report(&g, &[("loss_g_content", content), ("loss_g_adv", 0.0)], content);
}

#[test]
fn models_with_losses_in_their_code_are_their_formulas() {
    let d = ["loss_disc_fake", "loss_disc_real"];
    for name in ["DCGAN", "LSGAN", "GGAN", "SAGAN", "SNGAN", "BigGAN"] {
        assert_terms(json!({"type": name}), &[], &d, &["loss_gen"]);
    }
    let shifted = ["loss_disc_fake", "loss_disc_real", "loss_gp", "loss_disc_shift", "loss_disc_shift"];
    assert_terms(json!({"type": "ProgressiveGrowingGAN"}), &[], &shifted, &["loss_gen"]);
    assert_terms(json!({"type": "StyleGANv1", "loss_config": {}}), &[], &[d[0], d[1], "loss_r1_gp"], &["loss_gen"]);
    assert_terms(json!({"type": "PESinGAN"}), &[], &[d[0], d[1], "loss_gp"], &["loss_gen", "loss_mse"]);
    assert_terms(json!({"type": "StableDiffusion"}), &["loss_mse"], &[], &[]);
    assert_terms(json!({"type": "ControlStableDiffusion"}), &["loss"], &[], &[]);
    assert_terms(json!({"type": "DreamBooth"}), &["dreambooth_loss"], &[], &[]);
    let prior = json!({"type": "DreamBooth", "prior_loss_weight": 0.5});
    assert_terms(prior.clone(), &["dreambooth_loss", "prior_loss"], &[], &[]);
    let outputs = outputs(&[
        ("disc_pred_fake", &[1.0, 3.0]),
        ("disc_pred_real", &[0.0, 2.0]),
        ("disc_pred_fake_g", &[2.0, 4.0]),
        ("model_pred", &[1.0]),
        ("model_target", &[3.0]),
        ("prior_pred", &[1.0]),
        ("prior_target", &[2.0]),
    ]);
    let values = |name: &str, side: Side| report(&mut build(&json!({"type": name})).unwrap(), side, &outputs);
    // mean max(0, 1 + f) and mean max(0, 1 − r); −mean f.
    assert_report(&values("BigGAN", Side::Discriminator), &[(d[0], 3.0), (d[1], 0.5)], 3.5);
    assert_report(&values("BigGAN", Side::Generator), &[("loss_gen", -3.0)], -3.0);
    assert_report(&values("LSGAN", Side::Discriminator), &[(d[0], 5.0), (d[1], 1.0)], 6.0);
    assert_report(&values("StyleGAN1", Side::Generator), &[("loss_gen", -3.0)], -3.0);
    let prior = report(&mut build(&prior).unwrap(), Side::Generator, &outputs);
    assert_report(&prior, &[("dreambooth_loss", 4.0), ("prior_loss", 0.5)], 4.5);
}

#[test]
fn progressive_gans_penalties_are_their_formulas() {
    // D(x) = 3·x₁ + 4·x₂: its gradient has length 5 everywhere.
    let slopes = leaf(vec![3.0, 4.0], &[1, 1, 1, 2]);
    let critic = network(|x: &Any<'_>| x.mul(&slopes.broadcast_to(&x.shape())?)?.sum(&[1, 2, 3], false));
    let outputs = Inputs::new()
        .tensor("disc_pred_fake", leaf(vec![1.0, 3.0], &[2, 1]))
        .tensor("disc_pred_real", leaf(vec![0.0, 2.0], &[2, 1]))
        .tensor("fake_imgs", leaf(vec![0.5; 4], &[2, 1, 1, 2]))
        .tensor("real_imgs", leaf(vec![0.25; 4], &[2, 1, 1, 2]))
        .network("disc", critic);
    let mut objective = build(&json!({"type": "PGGAN"})).unwrap();
    let step = objective.evaluate(Side::Discriminator, &outputs).unwrap();
    let report = objective.finish(&step, &step.values().unwrap()).unwrap();
    let names = ["loss_disc_fake", "loss_disc_real", "loss_gp", "loss_disc_shift"];
    let (total, values) = (report.total, names.map(|name| report.term(name).unwrap()));
    // 10 · (5 − 1)²; 0.0005 · (mean f² + mean r²).
    let expected = [2.0, -1.0, 160.0, 0.0005 * (5.0 + 2.0)];
    for (a, b) in values.iter().zip(expected) {
        assert!((a - b).abs() < 1e-10, "{values:?}");
    }
    assert!((total - expected.iter().sum::<f64>()).abs() < 1e-10);
}

#[test]
fn a_null_loss_is_off_and_one_alone_is_an_objective() {
    assert_terms(json!({"loss_a": l1(), "loss_b": null}), &["loss_a"], &[], &[]);
    assert_terms(json!([l1(), null]), &["loss_l1"], &[], &[]);
    assert_terms(l1(), &["loss_l1"], &[], &[]);
    assert_terms(json!({"type": "L1Loss", "loss_name": "distance"}), &["distance"], &[], &[]);
    assert_terms(json!({"gan_loss": null, "pixel_loss": l1()}), &["pixel_loss"], &[], &[]);
    let aux = json!({"type": "DiscShiftLossComps", "data_info": {"pred": "disc_pred_fake"}});
    assert_terms(json!({"gan_loss": null, "disc_auxiliary_loss": [null, aux]}), &[], &["loss_disc_shift"], &[]);
    // A loss beside an adversarial one is the generator's.
    let d = ["loss_disc_fake", "loss_disc_real"];
    let three = json!({"pixel_loss": l1(), "perceptual_loss": null, "gan_loss": lsgan()});
    assert_terms(three, &[], &d, &["loss_gen", "pixel_loss"]);
    for nothing in [json!({}), json!([]), json!({"a": null}), json!([null]), json!({"a": 1}), json!({"type": "GCA"})] {
        let error = build(&nothing).unwrap_err().to_string();
        assert!(error.contains("no loss"), "{nothing}: {error}");
    }
}

#[test]
fn a_sum_in_which_nothing_counts_as_a_loss_counts_all() {
    let other = json!({"type": "L1Loss", "data_info": {"pred": "other", "target": "target"}});
    let outputs = outputs(&[("pred", &[1.0]), ("target", &[4.0]), ("other", &[2.0])]);
    for (document, total) in [
        (json!({"pixel": l1(), "more": other}), 5.0),
        (json!([{"type": "L1Loss", "loss_name": "distance"}]), 3.0),
        (json!({"type": "L1Loss", "loss_name": "distance"}), 3.0),
    ] {
        let mut objective = build(&document).unwrap();
        assert_eq!(objective.notes(), []);
        let report = report(&mut objective, Side::Generator, &outputs);
        assert_eq!(report.total, total, "{report}");
        assert!(report.terms.iter().all(|term| term.counts));
    }
    // As soon as one counts by its name, the names say which do.
    let mut mixed = build(&json!({"pixel": l1(), "loss_more": other})).unwrap();
    assert!(matches!(mixed.notes(), [Note::NotCounted { name, .. }] if name == "pixel"));
    assert_eq!(report(&mut mixed, Side::Generator, &outputs).total, 2.0);
}

#[test]
fn what_a_model_cannot_call_is_refused_with_its_place() {
    let refused = |document: Value, words: &[&str]| {
        let error = build(&document).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(json!({"type": "SRGAN", "pixel_loss": {"type": "L1Los"}}), &["model.pixel_loss.type", "L1Loss"]);
    refused(json!({"type": "GCA", "loss_alpha": {"type": "PSNRLoss"}}), &["model.loss_alpha", "PSNRLoss takes 2", "3"]);
    refused(json!({"type": "SRGAN", "gan_loss": l1()}), &["model.gan_loss", "target"]);
    refused(
        json!({"type": "SRGAN", "gan_loss": {"type": "GANLoss", "gan_type": "smgan"}}),
        &["model.gan_loss", "mask"],
    );
    let info = json!({"type": "L1Loss", "data_info": {"pred": "a", "target": "b"}});
    refused(json!({"type": "SRGAN", "pixel_loss": info}), &["model.pixel_loss.data_info"]);
    refused(json!({"type": "DeblurGanV2", "adv_lambda": "x", "disc_loss": "ragan"}), &["model.adv_lambda", "number"]);
    refused(json!({"type": "DIC", "generator": {"num_steps": 0}, "pixel_loss": l1()}), &["model.generator.num_steps"]);
    refused(json!({"type": "DCGAN", "loss_config": {"x": 1}}), &["model.loss_config", "DCGAN"]);
    refused(json!({"type": "MyModel", "loss_config": {"x": 1}}), &["MyModel"]);
    refused(json!({"type": "mmdet.SRGAN", "loss_config": {"x": 1}}), &["mmdet"]);
    let offering = BuildContext { outputs: Some(vec!["fake_imgs".into()]), ..BuildContext::default() };
    let srgan = json!({"type": "SRGAN", "pixel_loss": l1()});
    let error = Objective::build(&Registry::standard(), &srgan, "model", &offering).unwrap_err();
    assert!(matches!(error, Error::UnknownName { kind: "output", name, .. } if name == "real_imgs"));
}
