//! Objectives of losses by their types: the same numbers as by hand and as from their own configuration, and every mistake.
#![cfg(all(feature = "config", feature = "ndarray", feature = "pixelwise", feature = "gan", feature = "penalties"))]

use image_losses::config::{BuildContext, Registry};
use image_losses::core::{Error, Expr, Pointwise, Reduced, Result};
use image_losses::ndarray::NdTensor;
use image_losses::objective::{Objective, Outputs, Report};
use image_losses::prelude::*;

type Array = NdTensor<'static, f64>;

fn array(values: &[f64]) -> Array {
    NdTensor::from_vec(values.to_vec(), &[values.len(), 1]).unwrap()
}

/// D(x) = s·x.
fn critic(slope: &Array, x: &Array) -> Result<Array> {
    x.mul(&slope.broadcast_to(&x.shape())?)
}

/// Report and gradients by the slope and by the generated images.
fn step(objective: &mut Objective, side: Side) -> (Report, [f64; 2]) {
    let slope = array(&[2.0]).leaf().unwrap();
    let (fake, real) = (array(&[1.0, -0.5]).leaf().unwrap(), array(&[0.25, 0.75]));
    let outputs = Outputs::new()
        .tensor("fake", &fake)
        .tensor("real", &real)
        .tensor("disc_pred_fake", &critic(&slope, &fake.detach()).unwrap())
        .tensor("disc_pred_real", &critic(&slope, &real).unwrap())
        .tensor("disc_pred_fake_g", &critic(&slope, &fake).unwrap())
        .network("disc", |x| critic(&slope, x));
    let (report, gradients) =
        objective.step(side, &outputs, |total| NdTensor::gradients(total, &[&slope, &fake], false)).unwrap();
    let sums = gradients.unwrap().into_iter().map(|gradient| gradient.map_or(0.0, |tensor| tensor.array().sum()));
    (report, sums.collect::<Vec<_>>().try_into().unwrap())
}

#[test]
fn an_objective_that_makes_its_scores_agrees_with_one_that_is_given_them() {
    let lsgan = || GanLoss::new(GanType::Lsgan);
    let mut made = Objective::builder().adversarial(lsgan(), "disc", ["fake", "real"]).build().unwrap();
    let mut given = Objective::builder().adversarial_scores(lsgan()).build().unwrap();
    for side in [Side::Discriminator, Side::Generator] {
        assert_eq!(step(&mut made, side), step(&mut given, side));
    }
    // D: mean (2·fake)² + mean (2·real − 1)², and nothing by the images; fake 1, −½, real ¼, ¾.
    let (report, [slope, fake]) = step(&mut made, Side::Discriminator);
    let (on_fake, on_real) = ((4.0 + 1.0) / 2.0, (0.25 + 0.25) / 2.0);
    assert_eq!((report.term("loss_disc_fake"), report.term("loss_disc_real")), (Some(on_fake), Some(on_real)));
    // By s: mean 2·fake²·s + mean 2·real·(s·real − 1).
    assert_eq!((slope, fake), ((4.0 + 1.0) / 2.0 + (-0.25 + 0.75) / 2.0, 0.0));
    // G: mean (2·fake − 1)², by the images mean 4·(2·fake − 1) over both.
    let (report, [_, fake]) = step(&mut made, Side::Generator);
    assert_eq!((report.total, fake), ((1.0 + 4.0) / 2.0, 2.0 * 1.0 - 2.0 * 2.0));
}

#[test]
fn pairs_of_scores_are_made_too() {
    let mut objective =
        Objective::builder().adversarial(RelativisticPairingLoss::default(), "disc", ["fake", "real"]).build().unwrap();
    let softplus = |x: f64| x.exp().ln_1p();
    for (side, sign) in [(Side::Discriminator, 1.0), (Side::Generator, -1.0)] {
        let (report, [_, fake]) = step(&mut objective, side);
        // softplus(±(D(fake) − D(real))) for the pairs (2, ½) and (−1, 1½).
        let expected = (softplus(sign * 1.5) + softplus(sign * -2.5)) / 2.0;
        assert!((report.total - expected).abs() < 1e-12, "{report}");
        assert_eq!(fake == 0.0, side == Side::Discriminator);
    }
}

fn penalised() -> Objective {
    let r1 = R1GradientPenalty { loss_weight: 3.0, ..Default::default() };
    Objective::builder()
        .adversarial_scores(GanLoss { loss_weight: 0.5, ..GanLoss::new(GanType::Hinge) })
        .discriminator("slope", r1, [("discriminator", "disc"), ("real_data", "real")])
        .generator("pixel", CharbonnierLoss { eps: 0.5, ..Default::default() }, [("pred", "fake"), ("target", "real")])
        .build()
        .unwrap()
}

#[test]
fn its_configuration_builds_an_equal_objective() {
    let mut typed = penalised();
    let value = typed.to_value().clone();
    let mut configured = Objective::build(&Registry::standard(), &value, "", &BuildContext::default()).unwrap();
    for side in [Side::Discriminator, Side::Generator] {
        let ((typed, own), (configured, same)) = (step(&mut typed, side), step(&mut configured, side));
        let values = |report: &Report| {
            report.terms.iter().map(|t| (t.name.clone(), t.value, t.weights.clone())).collect::<Vec<_>>()
        };
        assert_eq!(values(&typed), values(&configured));
        // By the rule of MMagic's names neither `slope` nor `pixel` counts; here a loss that is given counts.
        assert!(typed.terms.iter().all(|term| term.counts), "{typed}");
        assert!(own != same && typed.total > configured.total);
    }
    assert!(penalised().notes().is_empty());
}

#[test]
fn what_losses_remember_is_remembered() {
    let lecam = LeCamLoss { decay: 0.5, ..Default::default() };
    let mut objective = Objective::builder()
        .discriminator("loss_lecam", lecam, [("fake", "disc_pred_fake"), ("real", "disc_pred_real")])
        .build()
        .unwrap();
    let before = objective.state().unwrap();
    let scores = array(&[2.0]);
    let outputs = Outputs::new().tensor("disc_pred_fake", &scores).tensor("disc_pred_real", &scores);
    // Before its averages are known it has no value.
    let (_, total) = objective.step(Side::Discriminator, &outputs, |total: &Array| total.item()).unwrap();
    assert_eq!(total, None);
    assert_ne!(before, objective.state().unwrap());
    // A step that fails leaves no trace.
    let before = objective.state().unwrap();
    let scores = array(&[9.0]);
    let outputs = Outputs::new().tensor("disc_pred_fake", &scores).tensor("disc_pred_real", &scores);
    let failing = |_: &Array| Err::<(), _>(Error::Unsupported { operation: "a step", engine: "test" });
    objective.step(Side::Discriminator, &outputs, failing).unwrap_err();
    assert_eq!(before, objective.state().unwrap());
}

#[test]
fn where_no_loss_acts_nothing_is_called() {
    let r1 = R1GradientPenalty { interval: 4, ..Default::default() };
    let mut objective = Objective::builder()
        .discriminator("loss_r1", r1, [("discriminator", "disc"), ("real_data", "real")])
        .build()
        .unwrap();
    let real = array(&[1.0]);
    for (iteration, acts) in [(0.0, true), (1.0, false), (4.0, true)] {
        let outputs =
            Outputs::new().number("iteration", iteration).tensor("real", &real).network("disc", |x: &Array| x.mul(x));
        let (report, total) = objective.step(Side::Discriminator, &outputs, |total| total.item()).unwrap();
        // ∂x²/∂x at 1, squared.
        assert_eq!((total, report.skipped.len()), (acts.then_some(4.0), usize::from(!acts)));
    }
}

/// abs(x − y)³.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Cubic {}

impl Declared for Cubic {
    const NAME: &'static str = "CubicLoss";
}

impl Pointwise<2> for Cubic {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).abs() * (x - y).square()
    }
}

#[test]
fn a_function_of_ones_own_is_a_loss_too() {
    let cubic = Reduced { loss_weight: 0.5, ..Reduced::new(Cubic {}) };
    let mut objective =
        Objective::builder().generator("own", cubic, [("pred", "fake"), ("target", "real")]).build().unwrap();
    let (report, _) = step(&mut objective, Side::Generator);
    // Half the mean of ¾³ and 1¼³.
    assert_eq!(report.to_string(), format!("total {:.6}, own {0:.6} (weight 0.5)", (0.421875 + 1.953125) / 4.0));
}

#[test]
fn mistakes_are_errors_that_name_the_loss() {
    let pixel = |takes: [(&str, &str); 2]| Objective::builder().generator("pixel", L1Loss::default(), takes).build();
    let said = |objective: Result<Objective>| objective.unwrap_err().to_string();
    let text = said(pixel([("pred", "fake"), ("targt", "real")]));
    assert!(text.contains("pixel") && text.contains("targt") && text.contains("target"), "{text}");
    let missing = Objective::builder().generator("pixel", L1Loss::default(), [("pred", "fake")]).build();
    let text = said(missing);
    assert!(text.contains("pixel") && text.contains("target"), "{text}");
    let steep = CharbonnierLoss { eps: -1.0, ..Default::default() };
    let text = said(Objective::builder().generator("pixel", steep, []).build());
    assert!(text.contains("pixel") && text.contains("eps") && text.contains("-1"), "{text}");
    let twice =
        Objective::builder().generator("pixel", L1Loss::default(), []).discriminator("pixel", MseLoss::default(), []);
    assert!(said(twice.build()).contains("another loss has this name"));
    let text = said(Objective::builder().adversarial_scores(L1Loss::default()).build());
    assert!(text.contains("gan_loss"), "{text}");
    assert!(said(Objective::builder().build()).contains("there is no loss"));

    let mut objective = pixel([("pred", "fake"), ("target", "real")]).unwrap();
    let fake = array(&[1.0]);
    let outputs = Outputs::new().tensor("fake", &fake);
    let text = objective.step(Side::Generator, &outputs, |total: &Array| total.item()).unwrap_err().to_string();
    assert!(text.contains("pixel") && text.contains("real"), "{text}");
}

#[cfg(feature = "tch")]
#[test]
fn tensors_that_tch_does_not_take_are_named() {
    use image_losses::tch::tch::{Device, Kind, Tensor, nn};

    let mut objective = Objective::builder()
        .generator("pixel", L1Loss::default(), [("pred", "fake"), ("target", "real")])
        .build()
        .unwrap();
    let good = Tensor::zeros([1, 1], (Kind::Float, Device::Cpu));
    for bad in [Tensor::new(), Tensor::zeros([1, 1], (Kind::Int64, Device::Cpu))] {
        let outputs = Outputs::new().tensor("fake", &good).tensor("real", &bad);
        let text = objective.step(Side::Generator, &outputs, |_| ()).unwrap_err().to_string();
        assert!(text.contains("real"), "{text}");
    }
    // A module is a network, and the total a tensor of tch.
    let store = nn::VarStore::new(Device::Cpu);
    let module = nn::linear(store.root(), 1, 1, nn::LinearConfig::default());
    let mut objective =
        Objective::builder().adversarial(GanLoss::new(GanType::Wgan), "disc", ["fake", "real"]).build().unwrap();
    let ones = Tensor::ones([1, 1], (Kind::Float, Device::Cpu));
    let outputs = Outputs::new().tensor("fake", &good).tensor("real", &ones).module("disc", &module);
    let (report, _) = objective.step(Side::Discriminator, &outputs, Tensor::backward).unwrap();
    // D(0) − D(1) = −w, whose derivative by w is −1 and by the bias 0.
    let weight = f64::try_from(&module.ws).unwrap();
    assert!((report.total + weight).abs() < 1e-6);
    assert_eq!(f64::try_from(module.ws.grad()).unwrap(), -1.0);
    assert_eq!(module.bs.as_ref().map(|bias| f64::try_from(bias.grad()).unwrap()), Some(0.0));
}
