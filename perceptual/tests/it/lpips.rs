//! LPIPS and DISTS against PyPI's own packages (tests/data_lpips, written by xtask/scripts/make_lpips.py).
#![cfg(feature = "lpips")]

use image_losses_autograd::{AgTensor, differentiate};
use image_losses_core::gradcheck::check_gradient;
use image_losses_core::{Error, Result, Tensor};
use image_losses_ndarray::NdTensor;
use image_losses_perceptual::checkpoint::Checkpoint;
use image_losses_perceptual::{Dists, DistsOptions, Lpips, LpipsNet, LpipsOptions, LpipsVersion, Weights};

/// A reference file: values by name, and the trained weights in it as a checkpoint of their own.
struct Reference(Checkpoint);

impl Reference {
    fn read(name: &str) -> Self {
        let path = format!("{}/tests/data_lpips/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Reference(Checkpoint::open(path).unwrap())
    }

    fn get(&self, name: &str) -> (Vec<f64>, Vec<usize>) {
        let entry = self.0.get(name).unwrap();
        (entry.to_f32().unwrap().into_iter().map(f64::from).collect(), entry.shape().to_vec())
    }

    fn trained(&self) -> Weights {
        let known = ["input.", "grad.", "value", "cotangent"];
        let trained = self.0.iter().filter(|(name, _)| !known.iter().any(|prefix| name.starts_with(prefix)));
        let entries: Vec<_> =
            trained.map(|(name, entry)| (name.to_owned(), entry.shape().to_vec(), entry.to_f32().unwrap())).collect();
        // Without linear layers there is nothing to read.
        if entries.is_empty() { Weights::default() } else { Checkpoint::from_entries(entries).unwrap().into() }
    }

    /// Compares value and gradients in double precision.
    fn check(
        &self,
        name: &str,
        loss: impl for<'g> Fn(&AgTensor<'g, f64>, &AgTensor<'g, f64>) -> Result<AgTensor<'g, f64>>,
    ) {
        let (prediction, target) = (self.get("input.prediction"), self.get("input.target"));
        let (cotangent, _) = self.get("cotangent");
        let (value, gradients) = differentiate(&[prediction.clone(), target.clone()], |x| {
            let value = loss(&x[0], &x[1])?;
            assert_eq!(value.elements(), cotangent.len(), "{name}");
            let cotangent = Tensor::constant(&value.context(), &cotangent, &value.shape())?;
            value.mul(&cotangent)?.sum_all()
        })
        .unwrap();
        let expected: f64 =
            self.get("value").0.iter().zip(&cotangent).map(|(value, cotangent)| value * cotangent).sum();
        assert!((value[0] - expected).abs() < 1e-7 * expected.abs(), "{name}: {} {expected}", value[0]);
        for (gradient, which) in gradients.iter().zip(["grad.prediction", "grad.target"]) {
            let expected = self.get(which).0;
            let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            let error =
                square(&mut gradient.iter().zip(&expected).map(|(a, b)| a - b)) / square(&mut expected.iter().copied());
            assert!(error < 1e-6, "{name}: {which} {error:e}");
        }
    }
}

fn lpips(name: &str, options: LpipsOptions) {
    let reference = Reference::read(name);
    let loss = Lpips::new(options, &Weights::Seeded(7), &reference.trained()).unwrap();
    reference.check(name, |prediction, target| loss.forward(prediction, target));
}

#[test]
fn lpips_agrees_with_the_package() {
    let options = |net| LpipsOptions { net, ..LpipsOptions::default() };
    lpips("lpips_alex", options(LpipsNet::Alex));
    lpips("lpips_alex_v0.0", LpipsOptions { version: LpipsVersion::V0_0, ..options(LpipsNet::Alex) });
    lpips("lpips_vgg", options(LpipsNet::Vgg));
    lpips("lpips_squeeze", options(LpipsNet::Squeeze));
    lpips("lpips_squeeze_spatial", LpipsOptions { spatial: true, normalize: true, ..options(LpipsNet::Squeeze) });
    lpips("lpips_squeeze_baseline", LpipsOptions { lpips: false, ..options(LpipsNet::Squeeze) });
}

#[test]
fn dists_agrees_with_the_package() {
    let reference = Reference::read("dists");
    let loss = Dists::new(DistsOptions::default(), &Weights::Seeded(7), &reference.trained()).unwrap();
    reference.check("dists", |prediction, target| loss.forward(prediction, target));
}

fn image(seed: u64, shape: &[usize]) -> NdTensor<'static, f64> {
    let checkpoint = Checkpoint::seeded(&[("bias".to_owned(), vec![shape.iter().product()])], seed).unwrap();
    let values = checkpoint.get("bias").unwrap().to_f32().unwrap();
    let values: Vec<f64> = values.into_iter().map(|value| 0.5 + 4.0 * f64::from(value)).collect();
    Tensor::constant(&(), &values, shape).unwrap()
}

#[test]
fn samples_are_independent_and_features_can_be_kept() {
    let shape = [1, 3, 33, 32];
    let (a, b, c) = (image(1, &shape), image(2, &shape), image(3, &shape));
    let (first, second) = (Tensor::concatenate(&[&a, &b], 0).unwrap(), Tensor::concatenate(&[&b, &c], 0).unwrap());
    let values = |value: NdTensor<'_, f64>| value.array().iter().copied().collect::<Vec<_>>();

    let options = LpipsOptions { net: LpipsNet::Squeeze, loss_weight: 2.0, ..LpipsOptions::default() };
    let loss =
        Lpips::new(options, &Weights::Seeded(7), &Weights::Seeded(8)).unwrap().bind::<NdTensor<f64>>(&()).unwrap();
    let both = values(loss.forward(&first, &second).unwrap());
    assert_eq!(both, [values(loss.forward(&a, &b).unwrap())[0], values(loss.forward(&b, &c).unwrap())[0]]);
    assert_eq!(values(loss.forward_with(&first, &loss.features(&second).unwrap()).unwrap()), both);
    assert_eq!(values(loss.forward(&first, &first).unwrap()), [0.0; 2]);
    assert!(matches!(loss.forward(&a, &first), Err(Error::ShapeMismatch { .. })));

    let options = DistsOptions { loss_weight: 3.0, ..DistsOptions::default() };
    let loss =
        Dists::new(options, &Weights::Seeded(7), &Weights::Seeded(8)).unwrap().bind::<NdTensor<f64>>(&()).unwrap();
    let both = values(loss.forward(&first, &second).unwrap());
    assert_eq!(both, [values(loss.forward(&a, &b).unwrap())[0], values(loss.forward(&b, &c).unwrap())[0]]);
    assert_eq!(values(loss.forward_with(&first, &loss.features(&second).unwrap()).unwrap()), both);
    assert!(values(loss.forward(&first, &first).unwrap()).iter().all(|value| value.abs() < 1e-9));
}

#[test]
fn equal_and_flat_images_have_finite_gradients() {
    let lpips = Lpips::new(
        LpipsOptions { net: LpipsNet::Squeeze, ..LpipsOptions::default() },
        &Weights::Seeded(7),
        &Weights::Seeded(7),
    )
    .unwrap();
    let dists = Dists::new(DistsOptions::default(), &Weights::Seeded(7), &Weights::Seeded(7)).unwrap();
    let shape = vec![1, 3, 17, 17];
    for level in [0.0f64, 0.5, -3.0] {
        let flat = (vec![level; 3 * 17 * 17], shape.clone());
        for gradients in [
            differentiate(&[flat.clone(), flat.clone()], |x| lpips.forward(&x[0], &x[1])).unwrap().1,
            differentiate(&[flat.clone(), flat.clone()], |x| dists.forward(&x[0], &x[1])).unwrap().1,
        ] {
            assert!(gradients.iter().flatten().all(|gradient| gradient.is_finite()));
        }
    }
}

#[test]
fn dists_gradient_against_differences() {
    let dists = Dists::new(DistsOptions::default(), &Weights::Seeded(7), &Weights::Seeded(5)).unwrap();
    let shape = vec![1, 3, 3, 2];
    let values = |seed| image(seed, &shape).array().iter().copied().collect::<Vec<_>>();
    let inputs = [values(1), values(2)];
    let bound = dists.bind::<NdTensor<f64>>(&()).unwrap();
    let worst = check_gradient(
        &inputs,
        1e-6,
        |x| {
            let [x, y] = [0, 1].map(|i| <NdTensor<f64> as Tensor>::constant(&(), &x[i], &shape).unwrap());
            bound.forward(&x, &y)?.item()
        },
        |x| {
            let inputs = [0, 1].map(|i| (x[i].clone(), shape.clone()));
            Ok(differentiate(&inputs, |x| dists.forward(&x[0], &x[1]))?.1)
        },
    );
    assert!(worst.as_ref().unwrap().unwrap().error < 1e-6, "{worst:?}");
}

#[test]
fn options_and_weights_are_checked() {
    let options = LpipsOptions {
        net: LpipsNet::Vgg,
        version: LpipsVersion::V0_0,
        linear_weights: Some("vgg.pth".into()),
        ..LpipsOptions::default()
    };
    let text = serde_json::to_string(&options).unwrap();
    assert!(text.contains(r#""version":"0.0""#), "{text}");
    assert_eq!(serde_json::from_str::<LpipsOptions>(&text).unwrap(), options);
    assert!(serde_json::from_str::<LpipsOptions>(r#"{"nets": "vgg"}"#).is_err());
    assert!(serde_json::from_str::<DistsOptions>(r#"{"alpha": 1}"#).is_err());
    let bad = LpipsOptions { loss_weight: f64::NAN, ..LpipsOptions::default() };
    assert!(matches!(Lpips::new(bad, &Weights::Seeded(1), &Weights::Seeded(1)), Err(Error::InvalidOption { .. })));

    // AlexNet's linear layers do not fit VGG's.
    let alex = Checkpoint::seeded(&LpipsNet::Alex.linear_architecture(), 1).unwrap();
    let options = LpipsOptions { net: LpipsNet::Vgg, ..LpipsOptions::default() };
    let refused = Lpips::new(options, &Weights::Seeded(1), &alex.into());
    assert!(matches!(refused, Err(Error::CheckpointMismatch { mismatched, .. }) if mismatched.len() == 4));
    let refused = Dists::new(
        DistsOptions::default(),
        &Weights::Seeded(1),
        &Checkpoint::seeded(&[("alpha".to_owned(), vec![1, 1475, 1, 1])], 1).unwrap().into(),
    );
    assert!(matches!(refused, Err(Error::CheckpointMismatch { missing, .. }) if missing == ["beta"]));

    // Too small for AlexNet's poolings.
    let options = LpipsOptions::default();
    let loss = Lpips::new(options, &Weights::Seeded(1), &Weights::Seeded(1)).unwrap();
    let small = image(1, &[1, 3, 20, 20]);
    assert!(matches!(loss.forward(&small, &small), Err(Error::ShapeRule { operation: "AlexNet", .. })));
}

#[test]
fn checkpoints_are_recognised() {
    use image_losses_perceptual::networks::{AlexNet, IrDepth, IrMode, IrNet, LightCnn, SqueezeNet, VggType, fitting};

    let names = |mut architecture: Vec<(String, Vec<usize>)>| {
        let all = fitting(&Checkpoint::seeded(&architecture, 0).unwrap());
        // With another shape, or another tensor beside, it is none.
        architecture.push(("another".into(), vec![1]));
        assert!(fitting(&Checkpoint::seeded(&architecture, 0).unwrap()).is_empty());
        architecture.pop();
        architecture[0].1.push(2);
        assert!(fitting(&Checkpoint::seeded(&architecture, 0).unwrap()).is_empty());
        all
    };
    for kind in VggType::ALL {
        assert_eq!(names(kind.architecture()), [kind.name()]);
    }
    assert_eq!(names(AlexNet::architecture()), ["AlexNet"]);
    assert_eq!(names(SqueezeNet::architecture()), ["SqueezeNet"]);
    assert_eq!(names(LightCnn::architecture()), ["LightCNN"]);
    assert_eq!(names(IrNet::architecture(IrDepth::L100, IrMode::IrSe, false)), ["IR-SE100"]);
    assert_eq!(names(LpipsNet::Vgg.linear_architecture()), ["linear layers of LPIPS for Vgg"]);
    assert_eq!(names(Dists::weights_architecture()), ["weights of DISTS"]);
}
