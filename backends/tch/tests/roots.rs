//! Derivatives on libtorch where there is little or nothing to differentiate, and tensors that no operation takes.

use image_losses_core::{
    Declared, Differentiable, Error, Expr, Loss, Pointwise, PointwiseLoss, Reducer, Result, Tensor, Unary,
};
use image_losses_laws::{closed_forms, norms};
use image_losses_tch::{TchLoss, TchTensor, differentiate};
use tch::{Device, Kind, Tensor as Torch};

/// The mean of (x − y)².
#[derive(Clone, Debug)]
struct Squared;

impl Pointwise<2> for Squared {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).square()
    }
}

impl Declared for Squared {
    const NAME: &'static str = "Squared";
}

impl PointwiseLoss<2> for Squared {
    fn reducer(&self) -> Reducer {
        Reducer::default()
    }
}

fn tensor(values: &[f64]) -> Torch {
    Torch::from_slice(values)
}

fn leaf(values: &[f64]) -> TchTensor {
    TchTensor::own(tensor(values).set_requires_grad(true)).expect("a floating type")
}

fn values(tensors: &[&TchTensor]) -> Result<Vec<Vec<f64>>> {
    tensors.iter().map(|tensor| tensor.values()).collect()
}

/// The gradients' values; `None` where there is none.
fn gradients(output: &TchTensor, inputs: &[&TchTensor], create_graph: bool) -> Vec<Option<Vec<f64>>> {
    let gradients = Differentiable::gradients(output, inputs, create_graph).expect("no error");
    gradients.iter().map(|gradient| gradient.as_ref().map(|gradient| gradient.values().expect("values"))).collect()
}

#[test]
fn derivatives_have_their_closed_forms() {
    for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 2e-6)] {
        closed_forms::<TchTensor>(&(kind, Device::Cpu), values, tolerance).expect("no error");
    }
}

#[test]
fn norms_are_in_range_where_squares_are_not() {
    // Where the largest magnitude is no normal number, a gradient keeps fewer digits than a value.
    norms::<TchTensor>(&(Kind::Float, Device::Cpu), values, &[1e-30, 1e-19, 1e-15, 1.0, 1e15, 1e19, 1e38], 1e-6)
        .expect("f32");
    norms::<TchTensor>(&(Kind::Double, Device::Cpu), values, &[1e-290, 1e-160, 1e-10, 1.0, 1e10, 1e160, 1e300], 1e-14)
        .expect("f64");
    norms::<TchTensor>(&(Kind::Half, Device::Cpu), values, &[1e-3, 1.0, 300.0, 3e4], 2e-3).expect("f16");
    norms::<TchTensor>(&(Kind::BFloat16, Device::Cpu), values, &[1e-30, 1.0, 1e30], 1e-2).expect("bf16");
}

#[test]
fn norms_keep_their_element_type_and_their_shape() -> Result<()> {
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float, Kind::Double] {
        let x = TchTensor::own(Torch::full([2, 3, 4], -2.0, (kind, Device::Cpu)))?;
        for (axes, keep, shape, expected) in [
            (&[0usize, 1, 2][..], false, &[][..], 96.0f64.sqrt()),
            (&[2, 0], true, &[1, 3, 1], 32f64.sqrt()),
            (&[1], false, &[2, 4], 12f64.sqrt()),
            (&[], false, &[2, 3, 4], 2.0),
        ] {
            let norm = x.norm(axes, keep)?;
            assert_eq!((norm.shape(), norm.tensor().kind()), (shape.to_vec(), kind), "{axes:?}");
            assert!(norm.values()?.iter().all(|norm| (norm - expected).abs() <= 8e-3 * expected), "{axes:?}: {norm:?}");
        }
    }
    // No elements: the norm of nothing is 0.
    let empty = TchTensor::own(Torch::zeros([2, 0, 3], (Kind::Float, Device::Cpu)))?;
    assert_eq!(empty.norm(&[1], false)?.values()?, [0.0; 6]);
    assert_eq!(empty.norm(&[0], false)?.shape(), [0, 3]);
    assert!(matches!(empty.norm(&[3], false), Err(Error::ShapeRule { .. })));
    Ok(())
}

#[test]
fn a_root_without_history_has_no_gradient() -> Result<()> {
    let x = leaf(&[1.0, 2.0]);
    let constant = TchTensor::new(&tensor(&[3.0, 4.0]))?;
    let recorded = x.mul(&x)?;
    let unrecorded = tch::no_grad(|| x.mul(&x))?;
    for create_graph in [false, true] {
        for root in [&constant, &constant.sum_all()?, &unrecorded, &unrecorded.sum_all()?, &recorded.detach()] {
            assert_eq!(gradients(root, &[&x], create_graph), [None]);
            assert_eq!(gradients(root, &[root, &x], create_graph), [None, None]);
        }
        // A history, but nothing that is asked for in it.
        assert_eq!(gradients(&recorded, &[], create_graph), []);
        assert_eq!(gradients(&recorded, &[&constant], create_graph), [None]);
        assert_eq!(gradients(&recorded, &[&leaf(&[1.0])], create_graph), [None]);
    }
    Ok(())
}

#[test]
fn a_leaf_is_a_root() {
    for create_graph in [false, true] {
        let (x, y) = (leaf(&[1.0, 2.0]), TchTensor::own(Torch::from(3.0).set_requires_grad(true)).expect("a number"));
        assert_eq!(gradients(&x, &[&x], create_graph), [Some(vec![1.0, 1.0])]);
        assert_eq!(gradients(&y, &[&x, &y], create_graph), [None, Some(vec![1.0])]);
    }
}

#[test]
fn history_is_followed_where_none_is_recorded() -> Result<()> {
    let x = leaf(&[1.0, 2.0]);
    let square = x.mul(&x)?;
    // The root has several elements: their sum is what is differentiated.
    assert_eq!(tch::no_grad(|| gradients(&square, &[&x], false)), [Some(vec![2.0, 4.0])]);
    let first = tch::no_grad(|| Differentiable::gradients(&square, &[&x], true))?.remove(0).expect("an influence");
    assert_eq!(gradients(&first, &[&x], false), [Some(vec![2.0, 2.0])]);
    Ok(())
}

#[test]
fn a_tensor_may_be_asked_for_twice() -> Result<()> {
    let x = leaf(&[1.0, 2.0]);
    let square = x.mul(&x)?;
    assert_eq!(
        gradients(&square, &[&x, &x, &square], true),
        [Some(vec![2.0, 4.0]), Some(vec![2.0, 4.0]), Some(vec![1.0, 1.0])]
    );
    let constant = x.detach();
    assert_eq!(gradients(&square, &[&constant, &x, &constant], false), [None, Some(vec![2.0, 4.0]), None]);
    Ok(())
}

#[test]
fn a_graph_that_was_freed_is_an_error() -> Result<()> {
    let x = leaf(&[1.0, 2.0]);
    let square = x.mul(&x)?.sum_all()?;
    square.tensor().backward();
    assert!(matches!(Differentiable::gradients(&square, &[&x], false), Err(Error::Engine { engine: "tch", .. })));
    Ok(())
}

#[test]
fn differentiate_records_within_no_grad() {
    let x = tensor(&[1.0, 2.0]);
    let square = |inputs: &[TchTensor]| inputs[0].mul(&inputs[0])?.sum_all();
    let is_recorded = || leaf(&[1.0]).scale(2.0).expect("no error").tensor().requires_grad();
    tch::no_grad(|| {
        let (value, gradients) = differentiate(&[&x], square).expect("no error");
        assert_eq!((value.double_value(&[]), &gradients[0]), (5.0, &tensor(&[2.0, 4.0])));
        assert!(!value.requires_grad() && !is_recorded());
        let panics = || differentiate(&[&x], |_| panic!("a loss that panics"));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).expect_err("a panic");
        assert!(!is_recorded(), "what was set before is restored");
    });
    assert!(is_recorded());
    // A function that returns what has no history, or an input itself.
    let (_, gradients) = differentiate(&[&x], |inputs| Ok(inputs[0].detach())).expect("no error");
    assert_eq!(gradients[0], tensor(&[0.0, 0.0]));
    let (_, gradients) = differentiate(&[&x, &x], |inputs| Ok(inputs[0].clone())).expect("no error");
    assert_eq!((&gradients[0], &gradients[1]), (&tensor(&[1.0, 1.0]), &tensor(&[0.0, 0.0])));
}

#[test]
fn tensors_that_no_operation_takes_are_refused() {
    let dense = Torch::eye(4, (Kind::Float, Device::Cpu));
    let refused = [
        ("undefined", Torch::new()),
        ("an undefined gradient", dense.grad()),
        ("Int64", dense.to_kind(Kind::Int64)),
        ("Uint8", dense.to_kind(Kind::Uint8)),
        ("Bool", dense.to_kind(Kind::Bool)),
        ("ComplexFloat", dense.to_kind(Kind::ComplexFloat)),
        ("Float8e4m3fn", dense.to_kind(Kind::Float8e4m3fn)),
        ("quantised", dense.quantize_per_tensor(0.1, 0, Kind::QInt8)),
        ("sparse coordinates", dense.to_sparse(None, None::<i64>, None)),
        ("compressed rows", dense.to_sparse_csr(None)),
        ("compressed columns", dense.to_sparse_csc(None)),
        ("blocks of compressed rows", dense.to_sparse_bsr([2, 2], None)),
        ("MKL-DNN", dense.f_to_mkldnn(None).unwrap_or_else(|_| Torch::new())),
    ];
    for (name, tensor) in refused {
        let is_refused =
            |result: Result<()>| assert!(matches!(result, Err(Error::InvalidOption { .. })), "{name}: {result:?}");
        is_refused(TchTensor::new(&tensor).map(|_| ()));
        is_refused(TchTensor::own(tensor.shallow_clone()).map(|_| ()));
        is_refused(differentiate(&[&dense, &tensor], |inputs| inputs[0].unary(Unary::Exp)).map(|_| ()));
        is_refused(Squared.call([&tensor, &dense], None).map(|_| ()));
        is_refused(Squared.call([&dense, &tensor], None).map(|_| ()));
        is_refused(Squared.call([&dense, &dense], Some(&tensor)).map(|_| ()));
    }
    // Strided views of any kind are taken.
    for view in
        [dense.transpose(0, 1), dense.narrow(1, 1, 2), dense.flip([0]), dense.unsqueeze(0).expand([3, 4, 4], false)]
    {
        TchTensor::new(&view).expect("a strided tensor");
    }
    let wrapped = TchTensor::new(&dense).expect("a strided tensor");
    Squared.forward([&wrapped, &wrapped], None).expect("a strided tensor");
}

#[test]
fn constants_are_rounded_to_their_type() -> Result<()> {
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float, Kind::Double] {
        let context = (kind, Device::Cpu);
        for value in [0.0, -0.0, 0.1, 1e5, -1e39, 1e-42, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            // An upload and a conversion.
            let expected = tensor(&[value]).to_kind(kind).to_kind(Kind::Double).double_value(&[0]);
            for (shape, count) in [(&[][..], 1), (&[1][..], 1), (&[2, 3], 6)] {
                let same = |constant: TchTensor| -> Result<()> {
                    assert_eq!((constant.shape(), constant.tensor().kind()), (shape.to_vec(), kind));
                    let bits = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
                    assert!(constant.values()?.iter().all(|&got| bits(got) == bits(expected)), "{value} in {kind:?}");
                    Ok(())
                };
                same(TchTensor::constant(&context, &vec![value; count], shape)?)?;
                same(TchTensor::full(&context, value, shape)?)?;
            }
        }
        assert_eq!(TchTensor::constant(&context, &[0.0, -0.0, 2.0], &[3])?.values()?, [0.0, 0.0, 2.0]);
        assert_eq!(TchTensor::constant(&context, &[], &[0, 2])?.shape(), [0, 2]);
        assert!(matches!(TchTensor::constant(&context, &[1.0, 1.0], &[3]), Err(Error::Length { .. })));
    }
    Ok(())
}

#[test]
fn numbers_that_a_type_does_not_hold_are_no_panic() -> Result<()> {
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float, Kind::Double] {
        let x = TchTensor::own(Torch::ones([2], (kind, Device::Cpu)))?;
        for number in [1e5, -1e39, f64::MAX, f64::INFINITY, f64::NAN] {
            let rounded = tensor(&[number]).to_kind(kind).to_kind(Kind::Double).double_value(&[0]);
            let same = |got: Result<TchTensor>| -> Result<()> {
                let got = got?.values()?[0];
                assert!(got == rounded || (got.is_nan() && rounded.is_nan()), "{number} in {kind:?}: {got}");
                Ok(())
            };
            same(x.scale(number))?;
            same(x.scale(0.0)?.shift(number))?;
            same(x.affine(0.0, number))?;
            same(x.sub(&x)?.affine(-1.0, number))?;
            if number > 0.0 {
                let root = x.scale(0.0)?.hypotenuse(number)?.values()?[0];
                let expected = tensor(&[number.sqrt()]).to_kind(kind).to_kind(Kind::Double).double_value(&[0]);
                assert_eq!(root, expected, "√{number} in {kind:?}");
                let difference = x.huber_difference(&x, number)?.values()?[0];
                assert!(difference == 0.0 || difference.is_nan(), "{difference}");
            }
        }
    }
    Ok(())
}
