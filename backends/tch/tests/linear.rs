//! The matrices of linear maps that are kept: equal maps share one, on each device and in each type, and few are kept.

use image_losses_core::{LinearMap, Result, Tensor};
use image_losses_tch::TchTensor;
use tch::{Device, Kind, Tensor as Torch};

fn matrix(kind: Kind, inputs: usize, kernel: &[f64]) -> Result<TchTensor> {
    // A map of its own each time, as losses make it.
    TchTensor::matrix(&(kind, Device::Cpu), &LinearMap::filter(inputs, kernel)?)
}

/// Whether two share their elements.
fn is_same(a: &TchTensor, b: &TchTensor) -> bool {
    a.tensor().data_ptr() == b.tensor().data_ptr()
}

#[test]
fn matrices_are_kept_and_their_number_is_bounded() -> Result<()> {
    // 1, 2 and 3 before, at and after each element.
    let kernel = [1.0, 2.0, 3.0];
    let first = matrix(Kind::Float, 3, &kernel)?;
    assert_eq!(first.values()?, [2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0]);
    for _ in 0..3 {
        assert!(is_same(&first, &matrix(Kind::Float, 3, &kernel)?));
    }
    assert_eq!(matrix(Kind::Double, 3, &kernel)?.tensor().kind(), Kind::Double);
    assert_eq!(matrix(Kind::Float, 3, &[1.0, 2.0, 4.0])?.values()?[1], 4.0);
    assert!(is_same(&first, &matrix(Kind::Float, 3, &kernel)?));
    // What is used stays, what is not leaves: `first` holds its elements, so that a new matrix has others.
    let unused = matrix(Kind::Float, 4, &kernel)?;
    for inputs in 5..105 {
        matrix(Kind::Float, inputs, &kernel)?;
        assert!(is_same(&first, &matrix(Kind::Float, 3, &kernel)?));
    }
    assert!(!is_same(&unused, &matrix(Kind::Float, 4, &kernel)?));
    // Nor are few large ones kept: 2,000² elements each.
    let large = matrix(Kind::Float, 2000, &kernel)?;
    assert!(is_same(&large, &matrix(Kind::Float, 2000, &kernel)?));
    for inputs in 2001..2006 {
        matrix(Kind::Float, inputs, &kernel)?;
    }
    assert!(!is_same(&large, &matrix(Kind::Float, 2000, &kernel)?));

    // Its use by a graph changes nothing.
    let x = TchTensor::own(Torch::from_slice(&[1.0f32, 10.0, 100.0]).set_requires_grad(true))?;
    for _ in 0..2 {
        let map = LinearMap::filter(3, &kernel)?;
        let squares = x.linear(0, &map)?;
        assert_eq!(squares.values()?, [32.0, 321.0, 210.0]);
        let sum = squares.sum_all()?;
        let gradients = image_losses_core::Differentiable::gradients(&sum, &[&x], false)?;
        assert_eq!(gradients[0].as_ref().expect("an influence").values()?, [3.0, 6.0, 5.0]);
    }
    assert!(!matrix(Kind::Float, 3, &kernel)?.tensor().requires_grad());
    Ok(())
}
