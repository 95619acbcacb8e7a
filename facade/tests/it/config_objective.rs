//! Objectives against the same steps computed by hand, and every kind of mistake.
#![cfg(all(
    feature = "config",
    feature = "ndarray",
    feature = "ndarray",
    feature = "pixelwise",
    feature = "gan",
    feature = "penalties",
    feature = "light-cnn"
))]

use image_losses::AnyTensor;
use image_losses::config::check::check;
use image_losses::config::{BuildContext, Inputs, Item, Registry, network};
use image_losses::core::{Differentiable, Error, Result, Tensor, Unary};
use image_losses::ndarray::NdTensor;
use image_losses::objective::{Note, Objective, Report, Side};
use image_losses::penalties::{Call, Draws, GeneratorPathRegularizer, NormMode, PathLengthState, R1GradientPenalty};
use serde_json::{Value, json};

use crate::support::leaf;

type Any<'g> = AnyTensor<'g>;

/// D(x) = tanh(x·A)·b for images (N, 1, 2, 2).
fn discriminator<'g>(parameters: &[Any<'g>], x: &Any<'g>) -> Result<Any<'g>> {
    let flat = x.reshape(&[x.shape()[0], 4])?;
    flat.matmul(&parameters[0], false, false)?.unary(Unary::Tanh)?.matmul(&parameters[1], false, false)
}

/// G(w) = mean_softplus(mean of the latents (N, 2, 3) · C), an image.
fn generator<'g>(parameters: &[Any<'g>], latents: &Any<'g>) -> Result<Any<'g>> {
    let n = latents.shape()[0];
    let image = latents.reshape(&[n, 6])?.matmul(&parameters[2], false, false)?;
    image.unary(Unary::Softplus)?.reshape(&[n, 1, 2, 2])
}

fn mean_softplus<'g>(scores: Any<'g>) -> Result<Any<'g>> {
    scores.unary(Unary::Softplus)?.mean_all()
}

const SHAPES: [[usize; 2]; 3] = [[4, 3], [3, 1], [6, 4]];

/// One step of either side by some means: its total's value and the gradients of the side's parameters.
struct Outcome {
    total: f64,
    gradients: Vec<Vec<f64>>,
}

/// What a training loop draws for one iteration.
struct Batch {
    real: Vec<f64>,
    latents: Vec<f64>,
    noise: Vec<f64>,
}

const BATCH: usize = 4;

fn batch(draws: &mut Draws) -> Batch {
    Batch {
        real: draws.normal_values(BATCH * 4),
        latents: draws.normal_values(BATCH * 6),
        noise: draws.normal_values(BATCH / 2 * 4),
    }
}

fn own(side: Side) -> std::ops::Range<usize> {
    if side == Side::Discriminator { 0..2 } else { 2..3 }
}

/// Runs `step` with the parameters and the batch.
fn on_arrays(
    parameters: &[Vec<f64>],
    batch: &Batch,
    body: impl FnOnce(&[Any<'static>], [Any<'static>; 3]) -> Result<Outcome>,
) -> Outcome {
    let parameters: Vec<_> =
        parameters.iter().zip(SHAPES).map(|(values, shape)| leaf(values.clone(), &shape)).collect();
    let inputs = [
        leaf(batch.real.clone(), &[BATCH, 1, 2, 2]),
        leaf(batch.latents.clone(), &[BATCH, 2, 3]),
        leaf(batch.noise.clone(), &[BATCH / 2, 1, 2, 2]),
    ];
    body(&parameters, inputs).unwrap()
}

/// The values of several tensors.
fn numbers(tensors: &[&Any<'_>]) -> Result<Vec<Vec<f64>>> {
    tensors.iter().map(|tensor| tensor.values()).collect()
}

/// Two lists of values.
type Terms = (Vec<Vec<f64>>, Vec<Vec<f64>>);

/// Gradients of the side's parameters and the other tensors, evaluated.
fn differentiated<'g>(side: Side, total: &Any<'g>, parameters: &[Any<'g>], others: &[&Any<'g>]) -> Result<Terms> {
    let leaves: Vec<&Any<'g>> = parameters[own(side)].iter().collect();
    let gradients: Vec<Any<'g>> = Any::gradients(total, &leaves, false)?.into_iter().map(Option::unwrap).collect();
    let wanted: Vec<&Any<'g>> = gradients.iter().chain(others.iter().copied()).collect();
    let mut values = numbers(&wanted)?;
    let rest = values.split_off(gradients.len());
    Ok((values, rest))
}

fn by_objective(
    objective: &mut Objective,
    iteration: usize,
    side: Side,
    parameters: &[Vec<f64>],
    batch: &Batch,
) -> (Outcome, Report) {
    let mut report = None;
    let outcome = on_arrays(parameters, batch, |parameters, [real, latents, noise]| {
        let disc = network(|x| discriminator(parameters, x));
        let gen_ = network(|w| generator(parameters, w));
        let fake = gen_(&latents)?;
        let outputs = Inputs::new()
            .number("iteration", iteration as f64)
            .number("batch_size", BATCH as f64)
            .tensor("disc_pred_fake", disc(&fake.detach())?)
            .tensor("disc_pred_real", disc(&real)?)
            .tensor("disc_pred_fake_g", disc(&fake)?)
            .tensor("real_imgs", real.clone())
            .tensor("latents", latents.clone())
            .tensor("path_noise", noise)
            .network("disc", disc)
            .network("gen", gen_);
        let step = objective.evaluate(side, &outputs)?;
        let total = step.total().unwrap().clone();
        let (gradients, values) = differentiated(side, &total, parameters, &step.tensors())?;
        let finished = objective.finish(&step, &values)?;
        let total = finished.total;
        report = Some(finished);
        Ok(Outcome { total, gradients })
    });
    (outcome, report.unwrap())
}

fn by_hand(
    state: &mut PathLengthState,
    iteration: usize,
    side: Side,
    parameters: &[Vec<f64>],
    batch: &Batch,
) -> Outcome {
    on_arrays(parameters, batch, |parameters, [real, latents, noise]| {
        let disc = network(|x| discriminator(parameters, x));
        let gen_ = network(|w| generator(parameters, w));
        let fake = gen_(&latents)?;
        let mut carried = None;
        let mut total;
        if side == Side::Discriminator {
            total = mean_softplus(disc(&fake.detach())?)?.add(&mean_softplus(disc(&real)?.neg()?)?)?;
            if iteration.is_multiple_of(16) {
                let r1 =
                    R1GradientPenalty { loss_weight: 80.0, norm_mode: NormMode::Hwc, ..R1GradientPenalty::default() };
                total = total.add(&r1.forward(disc, &real, Call::default())?)?;
            }
        } else {
            total = mean_softplus(disc(&fake)?.neg()?)?;
            if iteration.is_multiple_of(4) {
                let path = GeneratorPathRegularizer { loss_weight: 8.0, ..GeneratorPathRegularizer::default() };
                let part = latents.narrow(0, 0, BATCH / 2)?;
                let lengths = path.forward(gen_, &part, &[&noise], state, Call::default())?;
                total = total.add(&lengths.penalty)?;
                carried = Some(lengths.mean_path_length);
            }
        }
        let mut wanted = vec![&total];
        wanted.extend(&carried);
        let (gradients, values) = differentiated(side, &total, parameters, &wanted)?;
        if carried.is_some() {
            state.mean_path_length = values[1][0];
        }
        Ok(Outcome { total: values[0][0], gradients })
    })
}

fn descend(parameters: &mut [Vec<f64>], side: Side, gradients: &[Vec<f64>]) {
    for (parameter, gradient) in parameters[own(side)].iter_mut().zip(gradients) {
        for (value, slope) in parameter.iter_mut().zip(gradient) {
            *value -= 1e-3 * slope;
        }
    }
}

#[test]
fn the_stylegan2_objective_is_its_parts_over_40_iterations() {
    let model = json!({"type": "StyleGAN2", "generator": {"type": "x"}, "loss_config": {"norm_mode": "HWC"}});
    let mut objective = Objective::model(&Registry::standard(), &model, "model", &BuildContext::default()).unwrap();
    assert!(objective.notes().is_empty());
    let mut draws = Draws::new(5);
    let start: Vec<Vec<f64>> =
        SHAPES.iter().map(|[n, m]| draws.normal_values(n * m).iter().map(|v| 0.5 * v).collect()).collect();
    let (mut ours, mut theirs) = (start.clone(), start);
    let mut state = PathLengthState::default();
    let mut acted = [0, 0];
    for iteration in 0..40 {
        // Half way through, the objective is written down and built again, as after a restart.
        if iteration == 20 {
            let saved = objective.state().unwrap();
            objective =
                Objective::build(&Registry::standard(), objective.to_value(), "model", &BuildContext::default())
                    .unwrap();
            objective.restore(saved).unwrap();
        }
        let batch = batch(&mut draws);
        for (position, side) in [Side::Discriminator, Side::Generator].into_iter().enumerate() {
            let (got, report) = by_objective(&mut objective, iteration, side, &ours, &batch);
            let expected = by_hand(&mut state, iteration, side, &theirs, &batch);
            assert!(
                (got.total - expected.total).abs() <= 1e-12 * expected.total.abs(),
                "{iteration} {side:?}: {report}"
            );
            for (a, b) in got.gradients.iter().flatten().zip(expected.gradients.iter().flatten()) {
                assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{iteration} {side:?}: {a} {b}");
            }
            let lazy = ["loss_r1_gp", "loss_path_regular"][position];
            let due = iteration % [16, 4][position] == 0;
            assert_eq!((report.term(lazy).is_some(), report.skipped.iter().any(|name| name == lazy)), (due, !due));
            acted[position] += usize::from(due);
            descend(&mut ours, side, &got.gradients);
            descend(&mut theirs, side, &expected.gradients);
        }
    }
    assert_eq!(acted, [3, 10]);
    assert!(state.mean_path_length > 0.0);
    let saved = objective.state().unwrap();
    assert_eq!(saved.as_object().unwrap().keys().collect::<Vec<_>>(), ["loss_path_regular"]);
    assert_eq!(saved["loss_path_regular"]["type"], "GeneratorPathRegularizerComps");
    assert_eq!(saved["loss_path_regular"]["state"]["mean_path_length"], state.mean_path_length);
}

/// A row of numbers as an image tensor.
fn row(values: &[f64]) -> AnyTensor<'static> {
    NdTensor::new(ndarray::Array::from_shape_vec((values.len(), 1), values.to_vec()).unwrap()).into()
}

fn eager(objective: &mut Objective, side: Side, outputs: &Inputs<'_, AnyTensor<'static>>) -> Report {
    let step = objective.evaluate(side, outputs).unwrap();
    let values = step.values().unwrap();
    objective.finish(&step, &values).unwrap()
}

fn gan(document: Value) -> Result<Objective> {
    Objective::build(&Registry::standard(), &document, "losses", &BuildContext::default())
}

#[test]
fn auxiliary_losses_of_one_name_are_added_and_reported() {
    let shift = |weight: f64, output: &str| json!({"type": "DiscShiftLossComps", "loss_weight": weight, "data_info": {"pred": output}});
    let document = json!({
        "gan_loss": {"type": "GANLoss", "gan_type": "hinge", "loss_weight": 0.5},
        "disc_auxiliary_loss": [shift(2.0, "disc_pred_fake"), shift(3.0, "disc_pred_real")],
        "gen_auxiliary_loss": {"type": "L1Loss", "loss_name": "distance", "data_info": {"pred": "a", "target": "b"}},
    });
    let mut objective = gan(document.clone()).unwrap();
    let outputs = Inputs::new()
        .tensor("disc_pred_fake", row(&[1.0, 2.0]))
        .tensor("disc_pred_real", row(&[0.5, 3.0]))
        .tensor("disc_pred_fake_g", row(&[4.0, 6.0]))
        .tensor("a", row(&[1.0]))
        .tensor("b", row(&[3.0]));
    let report = eager(&mut objective, Side::Discriminator, &outputs);
    // 2·mean(1, 4) + 3·mean(¼, 9); the hinge: mean(1 + 1, 1 + 2) and mean(1 − ½, 0).
    assert_eq!(report.term("loss_disc_shift"), Some(5.0 + 13.875));
    assert_eq!(
        report.terms.iter().map(|term| term.name.as_str()).collect::<Vec<_>>(),
        ["loss_disc_fake", "loss_disc_real", "loss_disc_shift"]
    );
    assert_eq!(report.terms[2].weights, [2.0, 3.0]);
    assert_eq!(report.total, 2.5 + 0.25 + 18.875);
    // λ is the generator's; a name without `loss` is only logged.
    let report = eager(&mut objective, Side::Generator, &outputs);
    assert_eq!((report.total, report.term("distance")), (-2.5, Some(2.0)));
    assert_eq!(
        report.to_string(),
        "total -2.500000, loss_gen -2.500000 (weight 0.5), distance 2.000000 (not in the total)"
    );
    let logged = serde_json::to_value(&report).unwrap();
    assert_eq!(logged["terms"][1], json!({"name": "distance", "value": 2.0, "weights": [1.0], "counts": false}));

    let places = ["losses.disc_auxiliary_loss.0", "losses.disc_auxiliary_loss.1"].map(str::to_owned).to_vec();
    let expected = [
        Note::NotCounted { name: "distance".into(), path: "losses.gen_auxiliary_loss".into() },
        Note::SharedName { name: "loss_disc_shift".into(), paths: places },
    ];
    assert_eq!(objective.notes(), expected);
    // Both named so: meant.
    let mut meant = document;
    for i in 0..2 {
        meant["disc_auxiliary_loss"][i]["loss_name"] = "loss_shift".into();
    }
    assert_eq!(gan(meant).unwrap().notes(), &expected[..1]);
}

#[test]
fn the_first_term_that_is_not_finite_is_named() {
    let document = json!({"loss_a": {"type": "L1Loss"}, "loss_b": {"type": "L1Loss", "data_info": {"pred": "c", "target": "target"}}});
    let mut objective = gan(document).unwrap();
    let outputs =
        |a: f64, c: f64| Inputs::new().tensor("pred", row(&[a])).tensor("c", row(&[c])).tensor("target", row(&[0.0]));
    let mut first = |a, c| eager(&mut objective, Side::Generator, &outputs(a, c)).first_not_finite;
    assert_eq!(first(1.0, 2.0), None);
    assert_eq!(first(1.0, f64::NAN), Some("loss_b".to_owned()));
    assert_eq!(first(f64::INFINITY, f64::NAN), Some("loss_a".to_owned()));
    assert_eq!(first(f64::MAX, f64::MAX), Some("total".to_owned()));
}

/// Saves the objective's state as text, builds the objective again and loads it.
fn reloaded(objective: &Objective) -> Objective {
    let text = serde_json::to_string(&objective.state().unwrap()).unwrap();
    let mut again = gan(objective.to_value().clone()).unwrap();
    again.restore(serde_json::from_str(&text).unwrap()).unwrap();
    again
}

#[test]
fn lecam_reports_what_is_not_finite_and_remembers_the_last_finite_means() {
    let document = json!({"loss_lecam": {"type": "LeCamLoss", "decay": 0.5}});
    let mut objective = gan(document).unwrap();
    let outputs = |fake: f64, real: f64| Inputs::new().tensor("fake", row(&[fake])).tensor("real", row(&[real]));
    // The first call has no value yet; the mean that is not finite is reported all the same.
    let report = eager(&mut objective, Side::Generator, &outputs(f64::NAN, 2.0));
    assert_eq!((report.terms.len(), report.first_not_finite.as_deref()), (0, Some("loss_lecam")));
    eager(&mut objective, Side::Generator, &outputs(4.0, 2.0));
    for overflow in [f64::NAN, f64::INFINITY] {
        let report = eager(&mut objective, Side::Generator, &outputs(overflow, 2.0));
        assert!(!report.total.is_finite());
        assert_eq!(report.first_not_finite.as_deref(), Some("loss_lecam"));
        objective = reloaded(&objective);
    }
    let report = eager(&mut objective, Side::Generator, &outputs(3.0, 5.0));
    // α_real = 2, α_fake = 4.
    assert_eq!((report.total, report.first_not_finite), (1.0 + 1.0, None));
}

#[test]
fn pools_report_predictions_that_are_not_finite_and_do_not_remember_them() {
    let document = json!({"gan_loss": {"type": "AdvLoss", "loss_type": "ragan-ls"}});
    let mut objective = gan(document).unwrap();
    let critic = network(|x: &AnyTensor<'static>| Ok(x.clone()));
    let outputs = |fake: &[f64], real: &[f64]| {
        Inputs::new().tensor("fake_imgs", row(fake)).tensor("real_imgs", row(real)).network("disc", critic)
    };
    for overflow in [f64::NAN, f64::INFINITY] {
        let report = eager(&mut objective, Side::Discriminator, &outputs(&[overflow, 1.0], &[3.0, 3.0]));
        assert_eq!(report.first_not_finite.as_deref(), Some("loss_disc"));
        objective = reloaded(&objective);
    }
    // m_f = 1, m_r = 3: ½((3 − 1 + 1)² + (0 − 3 − 1)²).
    let report = eager(&mut objective, Side::Generator, &outputs(&[0.0], &[3.0]));
    assert_eq!((report.total, report.first_not_finite), (12.5, None));
}

#[test]
fn the_mean_path_length_survives_an_overflow() {
    let document = json!({"loss_path": {"type": "GeneratorPathRegularizerComps", "decay": 0.5}});
    let mut objective = gan(document).unwrap();
    // image = s·(w₁ + w₂), noise 1: the length is √2·s, moved halfway.
    let step = |objective: &mut Objective, slope: f64| {
        let generator = network(|w: &Any<'_>| w.sum_all()?.scale(slope)?.reshape(&[1, 1, 1, 1]));
        let outputs = Inputs::new()
            .tensor("latents", leaf(vec![0.5, -1.0], &[1, 1, 2]))
            .tensor("noise", leaf(vec![1.0], &[1, 1, 1, 1]))
            .network("generator", generator);
        let step = objective.evaluate(Side::Generator, &outputs).unwrap();
        objective.finish(&step, &step.values().unwrap()).unwrap()
    };
    let near = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-12;
    let report = step(&mut objective, 2.0);
    assert!(near(report.term("mean_path_length"), 2f64.sqrt()) && near(report.term("loss_path"), 2.0), "{report}");
    for overflow in [f64::INFINITY, f64::NAN] {
        let report = step(&mut objective, overflow);
        assert_eq!(report.first_not_finite.as_deref(), Some("loss_path"));
        objective = reloaded(&objective);
    }
    // Half way from √2 to 2√2 again.
    let report = step(&mut objective, 2.0);
    assert!(near(report.term("mean_path_length"), 1.5 * 2f64.sqrt()), "{report}");
    assert_eq!(report.first_not_finite, None);
}

#[test]
fn losses_at_different_places_draw_differently() {
    let penalty = json!({"type": "GradientPenaltyLossComps", "data_info": {
        "discriminator": "disc", "real_data": "real_imgs", "fake_data": "fake_imgs"}});
    let values = |document: Value, draws: u64| {
        let context = BuildContext { draws, ..BuildContext::default() };
        let mut objective = Objective::build(&Registry::standard(), &document, "losses", &context).unwrap();
        // The norm of the gradient at x is 2x: the penalty says where α was.
        let critic = network(|x: &Any<'_>| x.mul(x));
        let tensor = |value: f64| leaf(vec![value], &[1, 1, 1, 1]);
        let outputs = Inputs::new()
            .tensor("disc_pred_fake", tensor(0.0))
            .tensor("disc_pred_real", tensor(0.0))
            .tensor("real_imgs", tensor(2.0))
            .tensor("fake_imgs", tensor(1.0))
            .network("disc", critic);
        let side = if document.get("gan_loss").is_some() { Side::Discriminator } else { Side::Generator };
        let step = objective.evaluate(side, &outputs).unwrap();
        let wanted: Vec<&Any<'_>> = step.terms().iter().filter(|t| t.name.contains("gp")).map(|t| &t.value).collect();
        numbers(&wanted).unwrap().concat()
    };
    let vanilla = json!({"type": "GANLoss", "gan_type": "vanilla"});
    for document in [
        json!({"gan_loss": vanilla, "disc_auxiliary_loss": [penalty, penalty, penalty]}),
        json!({"loss_gp": penalty, "loss_gp_2": penalty, "other_gp_loss": penalty}),
        json!([penalty, penalty, penalty]),
    ] {
        let (drawn, other) = (values(document.clone(), 1), values(document.clone(), 2));
        let all: Vec<f64> = drawn.iter().chain(&other).copied().collect();
        assert_eq!(all.len(), 6);
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{all:?}");
        }
        // The same document and seed, the same draws.
        assert_eq!(values(document, 1), drawn);
    }
}

#[test]
fn a_state_is_restored_by_place_and_that_of_another_objective_is_refused() {
    let lecam = json!({"type": "LeCamLoss"});
    let penalty = json!({"type": "GradientPenaltyLoss"});
    let pixel = json!({"type": "L1Loss"});
    let mut objective = gan(json!({"a": lecam, "p": pixel, "b": lecam})).unwrap();
    let saved = json!({
        "a": {"type": "LeCamLoss", "state": {"real": 1.0, "fake": 2.0}},
        "b": {"type": "LeCamLoss", "state": {"real": 3.0, "fake": 4.0}},
    });
    objective.restore(saved.clone()).unwrap();
    assert_eq!(objective.state().unwrap(), saved);
    // The same losses in another order: each finds its own.
    let mut turned = gan(json!({"b": lecam, "a": lecam})).unwrap();
    turned.restore(saved.clone()).unwrap();
    assert_eq!(turned.state().unwrap(), saved);

    let place = |error: Error, expected: &str, words: &str| {
        assert!(matches!(&error, Error::Config { path, .. } if path == expected), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let another = "another objective";
    let refused = |document: Value, state: Value| {
        let mut objective = gan(document).unwrap();
        let before = objective.state().unwrap();
        let error = objective.restore(state).unwrap_err();
        assert_eq!(objective.state().unwrap(), before, "a refused state changes nothing");
        error
    };
    place(refused(json!({"a": lecam}), saved.clone()), "state.b", another);
    place(refused(json!({"a": lecam, "b": lecam, "c": penalty}), saved.clone()), "state.c", another);
    place(refused(json!({"a": lecam, "b": penalty}), saved.clone()), "state.b", another);
    place(refused(json!({"b": penalty, "a": lecam}), saved.clone()), "state.b", another);
    place(refused(json!({"a": lecam, "b": pixel}), saved.clone()), "state.b", another);
    place(refused(json!({"a": lecam}), json!([{"real": 1.0, "fake": 2.0}])), "state", "mapping");
    let error = refused(json!({"a": lecam}), json!({"a": {"type": "LeCamLoss", "state": {}, "x": 1}}));
    assert!(matches!(&error, Error::UnknownName { path, .. } if path == "state.a.x"), "{error}");
    let error = refused(json!({"a": lecam}), json!({"a": {"type": "LeCamLoss", "state": {"real": "x"}}}));
    assert!(error.to_string().contains("state.a"), "{error}");

    // Places are those in the objective's own document, wherever that lies in the whole.
    let document =
        json!({"gan_loss": {"type": "AdvLoss", "loss_type": "ragan"}, "disc_auxiliary_loss": [lecam, penalty]});
    let build =
        |path: &str| Objective::build(&Registry::standard(), &document, path, &BuildContext::default()).unwrap();
    let state = build("model.loss_config").state().unwrap();
    let places: Vec<&String> = state.as_object().unwrap().keys().collect();
    assert_eq!(places, ["gan_loss", "disc_auxiliary_loss.0", "disc_auxiliary_loss.1"]);
    build("").restore(state).unwrap();
    let mut dotted =
        Objective::build(&Registry::standard(), &json!({".a": lecam, "a": lecam}), "", &BuildContext::default());
    let state = dotted.as_mut().unwrap().state().unwrap();
    assert_eq!(state.as_object().unwrap().len(), 2);
    dotted.unwrap().restore(state).unwrap();
}

#[test]
fn a_norm_that_would_be_ignored_is_refused() {
    let call = |options: Value| {
        let mut document = json!({"type": "GradientPenaltyLossComps"});
        document.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let mut loss = Registry::standard().build(&document, "loss", &BuildContext::default()).unwrap();
        let critic = network(|x: &Any<'_>| Ok(x.clone()));
        let tensor = || leaf(vec![1.0, 2.0], &[1, 2]);
        let inputs =
            Inputs::new().tensor("real_data", tensor()).tensor("fake_data", tensor()).network("discriminator", critic);
        loss.evaluate(&inputs).map(|_| ())
    };
    let picking = json!({"discriminator": "discriminator", "real_data": "real_data", "fake_data": "fake_data"});
    call(json!({})).unwrap();
    call(json!({"norm_mode": "pixel"})).unwrap();
    call(json!({"norm_mode": "HWC", "data_info": picking})).unwrap();
    let error = call(json!({"norm_mode": "HWC"})).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { option: "norm_mode", .. }), "{error}");
}

#[test]
fn the_other_models_are_their_terms() {
    let numbers = |model: Value, side: Side, outputs: &Inputs<'_, AnyTensor<'static>>| {
        let mut objective = gan(model).unwrap();
        eager(&mut objective, side, outputs)
    };
    let outputs = Inputs::new()
        .tensor("disc_pred_fake", row(&[1.0, 2.0]))
        .tensor("disc_pred_real", row(&[0.0, 4.0]))
        .tensor("disc_pred_fake_g", row(&[3.0, 3.0]))
        .tensor("fake_imgs", row(&[1.0, 1.0]))
        .tensor("real_imgs", row(&[1.0, 4.0]));
    // WGAN-GP without its penalty: the mean of the fake scores, minus that of the real ones.
    for key in ["gp_loss_weight", "loss_weight"] {
        let report = numbers(json!({"type": "WGANGP", "loss_config": {key: 0.0}}), Side::Discriminator, &outputs);
        assert_eq!(
            (report.term("loss_disc_fake"), report.term("loss_disc_real"), report.total),
            (Some(1.5), Some(-2.0), -0.5)
        );
    }
    let wgan = numbers(json!({"type": "WGANGP", "loss_config": {}}), Side::Generator, &outputs);
    assert_eq!(wgan.term("loss_gen"), Some(-3.0));
    let pix =
        numbers(json!({"type": "Pix2Pix", "loss_config": {"pixel_loss_weight": 10.0}}), Side::Generator, &outputs);
    assert_eq!(pix.term("loss_pixel"), Some(15.0));
    assert!((pix.term("loss_gan_g").unwrap() - (-3f64).exp().ln_1p()).abs() < 1e-12);

    let mut outputs = Inputs::new();
    for (i, domain) in ["photo", "mask"].into_iter().enumerate() {
        let i = i as f64;
        for (name, value) in [
            ("disc_pred_fake", 1.0 + i),
            ("disc_pred_real", 3.0),
            ("disc_pred_fake_g", 2.0),
            ("cycle", 1.0),
            ("identity", 5.0),
            ("real", 2.0 + i),
        ] {
            outputs.insert(format!("{name}_{domain}"), Item::Tensor(row(&[value])));
        }
    }
    let cycle =
        json!({"type": "CycleGAN", "reachable_domains": ["photo", "mask"], "loss_config": {"id_loss_weight": 0.5}});
    let report = numbers(cycle.clone(), Side::Discriminator, &outputs);
    assert!(report.terms.iter().all(|term| term.weights == [0.5, 0.5]), "{report}");
    assert_eq!((report.term("loss_gan_d_photo"), report.term("loss_gan_d_mask")), (Some(2.5), Some(4.0)));
    let report = numbers(cycle, Side::Generator, &outputs);
    assert_eq!((report.term("cycle_loss"), report.term("id_loss"), report.total), (Some(30.0), Some(2.5), 34.5));
}

#[test]
fn mixed_precision_switches_scale_the_inner_gradient() {
    // Between two factors that cancel, a gradient in single precision survives without scaling, and overflows with it.
    let total = |config: Value, side: Side| {
        let mut objective = gan(json!({"type": "StyleGAN2", "loss_config": config})).unwrap();
        let mut run = || {
            let tensor = |values: Vec<f32>, shape: &[usize]| NdTensor::from_vec(values, shape)?.leaf().map(Any::from);
            let stretched = network(|x| Any::mul(x, x)?.scale(1e-36)?.scale(1e36)?.reshape(&[1, 1, 1, 2]));
            let scores = tensor(vec![0.0, 0.0], &[2, 1])?;
            let outputs = Inputs::new()
                .number("iteration", 0.0)
                .tensor("disc_pred_fake", scores.clone())
                .tensor("disc_pred_real", scores.clone())
                .tensor("disc_pred_fake_g", scores)
                .tensor("real_imgs", tensor(vec![1.0, 2.0], &[1, 1, 1, 2])?)
                .tensor("latents", tensor(vec![1.0, 2.0], &[1, 1, 2])?)
                .tensor("path_noise", tensor(vec![1.0, 2.0], &[1, 1, 1, 2])?)
                .network("disc", stretched)
                .network("gen", stretched);
            let step = objective.evaluate(side, &outputs)?;
            Ok::<_, Error>(objective.finish(&step, &step.values()?)?.total)
        };
        run().unwrap()
    };
    for (side, switches) in
        [(Side::Discriminator, &["scale_r1_loss", "r1_use_apex_amp"][..]), (Side::Generator, &["g_reg_use_apex_amp"])]
    {
        assert!(total(json!({}), side).is_finite());
        for switch in switches {
            assert!(!total(json!({*switch: true}), side).is_finite(), "{switch}");
        }
    }
}

#[test]
fn every_mistake_has_its_variant_and_its_place() {
    let registry = Registry::standard();
    let build = |value: Value| registry.build(&value, "m.0", &BuildContext::default()).unwrap_err();
    let unknown = |path: &str, kind: &'static str, name: &str, nearest: Option<&str>| Error::UnknownName {
        path: path.into(),
        kind,
        name: name.into(),
        nearest: nearest.map(Into::into),
        known: match kind {
            "value" if name == "meen" => ["none", "mean", "sum"].map(Into::into).into(),
            "value" => ["pixel", "HWC"].map(Into::into).into(),
            _ => Vec::new(),
        },
    };
    let missing = |path: &str, key: &str| Error::MissingKey { path: path.into(), key: key.into() };
    let at_option = |error: &Error, place: &str, name: &str| {
        matches!(error, Error::At { path, error } if path == place
            && matches!(**error, Error::InvalidOption { option, .. } if option == name))
    };
    assert!(matches!(build(json!([1])), Error::Config { path, .. } if path == "m.0"));
    assert_eq!(build(json!({"loss_weight": 1.0})), missing("m.0", "type"));
    assert!(matches!(build(json!({"type": 3})), Error::Config { path, .. } if path == "m.0.type"));
    assert_eq!(build(json!({"type": "L1Los"})), unknown("m.0.type", "type", "L1Los", Some("L1Loss")));
    assert_eq!(
        build(json!({"type": "L1Loss", "los_weight": 1})),
        unknown("m.0.los_weight", "field", "los_weight", Some("loss_weight"))
    );
    assert_eq!(
        build(json!({"type": "L1Loss", "data_inf": {}})),
        unknown("m.0.data_inf", "field", "data_inf", Some("data_info"))
    );
    assert_eq!(
        build(json!({"type": "L1Loss", "reduction": "meen"})),
        unknown("m.0.reduction", "value", "meen", Some("mean"))
    );
    assert!(
        matches!(build(json!({"type": "L1Loss", "loss_weight": "1"})), Error::Config { path, .. } if path == "m.0.loss_weight")
    );
    assert!(at_option(&build(json!({"type": "CharbonnierLoss", "eps": -1.0})), "m.0", "eps"));
    assert!(at_option(&build(json!({"type": "L1Loss", "interval": 0})), "m.0", "interval"));
    assert_eq!(build(json!({"type": "GANLoss"})), missing("m.0", "gan_type"));
    let r1 = |data_info: Value| json!({"type": "R1GradientPenaltyComps", "data_info": data_info});
    assert_eq!(build(r1(json!({"real_data": "real_imgs"}))), missing("m.0.data_info", "discriminator"));
    assert_eq!(
        build(r1(json!({"real_data": "real_imgs", "discriminater": "disc"}))),
        unknown("m.0.data_info.discriminater", "argument", "discriminater", Some("discriminator"))
    );
    let offering = BuildContext { outputs: Some(vec!["real_imgs".into(), "disc".into()]), ..BuildContext::default() };
    assert_eq!(
        registry.build(&r1(json!({"real_data": "real_img", "discriminator": "disc"})), "m.0", &offering).unwrap_err(),
        unknown("m.0.data_info.real_data", "output", "real_img", Some("real_imgs"))
    );

    let objective = |value: Value| Objective::build(&registry, &value, "m", &BuildContext::default()).unwrap_err();
    let vanilla = json!({"type": "GANLoss", "gan_type": "vanilla"});
    assert_eq!(
        objective(json!({"gan_loss": vanilla, "disc_auxilary_loss": []})),
        unknown("m.disc_auxilary_loss", "field", "disc_auxilary_loss", Some("disc_auxiliary_loss"))
    );
    assert!(
        matches!(objective(json!({"gan_loss": {"type": "L1Loss"}})), Error::Config { path, .. } if path == "m.gan_loss")
    );
    assert!(
        matches!(Objective::gan(&registry, &json!({}), "m", &BuildContext::default()).unwrap_err(), e if e == missing("m", "gan_loss"))
    );
    assert_eq!(
        objective(json!({"gan_loss": vanilla, "gen_auxiliary_loss": [{"type": "L1Los"}]})),
        unknown("m.gen_auxiliary_loss.0.type", "type", "L1Los", Some("L1Loss"))
    );
    assert_eq!(
        objective(json!({"type": "StyleGAN4", "loss_config": {}})),
        unknown("m.type", "type", "StyleGAN4", Some("StyleGAN1"))
    );
    let style = |config: Value| objective(json!({"type": "StyleGAN2", "loss_config": config}));
    assert_eq!(
        style(json!({"r1_los_weight": 1})),
        unknown("m.loss_config.r1_los_weight", "field", "r1_los_weight", Some("r1_loss_weight"))
    );
    assert_eq!(style(json!({"norm_mode": "HCW"})), unknown("m.loss_config.norm_mode", "value", "HCW", Some("HWC")));
    assert!(at_option(&style(json!({"r1_interval": 0})), "m.loss_config", "r1_interval"));
    assert!(matches!(objective(json!([])), Error::Config { path, .. } if path == "m"));

    // At the step: an output that is not there, one of another kind.
    let mut objective = gan(json!({"loss_a": {"type": "L1Loss"}})).unwrap();
    let evaluate = |objective: &mut Objective, outputs: Inputs<'_, AnyTensor<'static>>| {
        objective.evaluate(Side::Generator, &outputs).unwrap_err()
    };
    let is_missing = |error: Error, name: &str| {
        matches!(error, Error::At { path, error } if path == "losses.loss_a"
            && matches!(&*error, Error::MissingInput { argument, .. } if argument == name))
    };
    assert!(is_missing(evaluate(&mut objective, Inputs::new().tensor("pred", row(&[1.0]))), "target"));
    assert!(is_missing(
        evaluate(&mut objective, Inputs::new().number("pred", 1.0).tensor("target", row(&[1.0]))),
        "pred"
    ));
    let mut objective = gan(json!({"loss_a": {"type": "L1Loss", "interval": 2}})).unwrap();
    assert!(is_missing(evaluate(&mut objective, Inputs::new().tensor("pred", row(&[1.0]))), "iteration"));
}

#[test]
fn the_checker_finds_every_loss_at_any_depth() {
    let document = json!({
        "model": {
            "type": "StyleGAN2",
            "generator": {"type": "StyleGANv2Generator", "pretrained": "nowhere.pth"},
            "loss_config": {"r1_loss_weight": 10.0},
            "losses": [{"type": "L1Loss"}, {"type": "L1Loss", "los_weight": 1.0}],
            "extra": {"type": "DreamLoss"},
        },
        "other": {"type": "Unknown", "loss_config": {"x": 1}},
        "second": {"type": "mmagic.Pix2Pix", "loss_config": {"pixel_weight": 1}},
        "face": {"type": "mmagic.models.losses.LightCNNFeatureLoss", "pretrained": "https://example.org/nowhere.pth"},
    });
    let findings = check(&Registry::standard(), &document, &BuildContext::default());
    let rows: Vec<(&str, &str, bool, usize)> = findings
        .rows
        .iter()
        .map(|row| (row.path.as_str(), row.name.as_str(), row.error.is_none(), row.missing.len()))
        .collect();
    assert_eq!(
        rows,
        [
            ("model.loss_config", "loss_config of StyleGAN2", true, 0),
            ("model.losses.0", "L1Loss", true, 0),
            ("model.losses.1", "L1Loss", false, 0),
            ("model.extra", "DreamLoss", false, 0),
            ("other.loss_config", "loss_config of Unknown", false, 0),
            ("second.loss_config", "loss_config of mmagic.Pix2Pix", false, 0),
            ("face", "mmagic.models.losses.LightCNNFeatureLoss", true, 1),
        ]
    );
    assert!(
        matches!(&findings.rows[3].error, Some(Error::UnknownName { path, kind: "type", .. }) if path == "model.extra.type")
    );
}
