//! Numbers and extents at the edge: NaN, infinity under a weight of 0, tensors without elements, on the CPU engines.

use image_losses_autograd::{differentiate, run};
use image_losses_core::kernels::Array;
use image_losses_core::{
    Along, Declared, Differentiable, Error, Expr, Filter, Function, Loss, Pointwise, PointwiseLoss, Pool2d, Reducer,
    Stencil, Tensor, Unary,
};
use image_losses_kernels::map::Map;
use image_losses_ndarray::NdTensor;
use ndarray::array;

/// x from 0 to 1.
#[derive(Clone, Copy, Debug)]
struct Clipped;

impl Pointwise<1> for Clipped {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        x.clip(0.0, 1.0)
    }
}

impl Declared for Clipped {
    const NAME: &'static str = "Clipped";
}

impl PointwiseLoss<1> for Clipped {
    fn reducer(&self) -> Reducer {
        Reducer::default()
    }
}

#[test]
fn a_clipped_nan_is_nan_on_every_path() {
    let x = array![[f64::NAN, 0.5]];
    assert!(Clipped.forward([&NdTensor::view(x.view())], None).unwrap().item().unwrap().is_nan());
    let (value, [gradient]) = image_losses_ndarray::value_and_gradients(&Clipped, [x.view()], None, [true]).unwrap();
    assert!(value.is_nan());
    assert_eq!(gradient.unwrap().map(|g| g.is_nan()).into_raw_vec_and_offset().0, [true, false]);
    let inputs = [(vec![f64::NAN, 0.5], vec![1, 2])];
    let (value, gradients) = differentiate(&inputs, |t| Clipped.forward([&t[0]], None)).unwrap();
    assert!(value[0].is_nan() && gradients[0][0].is_nan() && gradients[0][1] == 0.5);
    // Third derivatives, which are computed one element at a time.
    let function = Function::new(Clipped);
    for order in 0..4 {
        let found = function.at(&vec![0; order], &[&[f64::NAN, 0.5][..]]).unwrap();
        assert!(found[0].is_nan() && !found[1].is_nan(), "order {order}: {found:?}");
    }
}

/// (x − y)².
#[derive(Clone, Copy, Debug)]
struct SquaredDifference;

impl Pointwise<2> for SquaredDifference {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        (x - y).square()
    }
}

#[test]
fn a_map_without_elements_has_gradients_of_zeros() {
    // The first input is repeated no times.
    let function = Function::new(SquaredDifference);
    let inputs = [Array { shape: &[1, 1], data: &[3.0f64] }, Array { shape: &[0, 1], data: &[] }];
    let (sum, gradients) = Map::new(&function, &inputs, &[], &[0, 1], 1.0).sum_and_gradients(&[0, 1]);
    assert_eq!((sum, gradients), (0.0, vec![vec![0.0], vec![]]));
    let channels = [Array { shape: &[2, 1, 2], data: &[1.0f64; 4] }, Array { shape: &[2, 0, 2], data: &[] }];
    let (_, gradients) = Map::new(&function, &channels, &[], &[2, 0, 2], 1.0).sum_and_gradients(&[0]);
    assert_eq!(gradients, [vec![0.0; 4]]);
}

#[test]
fn tensors_without_elements_and_beyond_memory_are_no_panic() {
    let image = NdTensor::<f32>::constant(&(), &[], &[1, 1, 0, 2]).unwrap();
    let pool = Pool2d { size: [2, 2], stride: [2, 2], padding: [1, 1], ceil_mode: false };
    assert!(matches!(image.max_pool2d(pool), Err(Error::ShapeRule { .. })));
    let batch = NdTensor::<f32>::constant(&(), &[], &[0, 3, 2, 2]).unwrap();
    let centred = batch.sub(&batch.mean(&[2, 3], true).unwrap()).unwrap();
    assert_eq!(centred.shape(), [0, 3, 2, 2]);
    let pair = NdTensor::new(array![1.0f64, 2.0]);
    assert!(matches!(pair.pad(0, usize::MAX, 1), Err(Error::ShapeRule { .. })));
    assert!(matches!(NdTensor::<f64>::full(&(), 1.0, &[1 << 62, 8]), Err(Error::ShapeRule { .. })));
}

/// d².
#[derive(Clone, Copy, Debug)]
struct Squared;

impl Pointwise<1> for Squared {
    fn value<'e>(&self, [d]: [Expr<'e>; 1]) -> Expr<'e> {
        d.square()
    }
}

#[test]
fn a_response_under_a_weight_of_0_takes_no_part_in_any_derivative() {
    // x_{j+1} − x_j at the first two pixels reads the infinite one.
    let across = Filter { height: Along::Pixel, width: Along::Difference };
    let stencil = Stencil::new(Squared, [across]);
    let found = run(|session| {
        let x = session.input(vec![1.0f64, f64::INFINITY, 2.0, 5.0, 1.0], &[1, 1, 1, 5])?;
        let w = session.input(vec![0.0, 0.0, 0.5, 0.0, 3.0], &[1, 1, 1, 5])?;
        let sum = stencil.sums("test", &x, None, Some(&w), 2.0)?.remove(0);
        let first = Differentiable::gradients(&sum, &[&x, &w], true)?;
        let [by_x, by_w] = [0, 1].map(|k| first[k].clone().expect("reached"));
        let second = Differentiable::gradients(&by_x.unary(Unary::Square)?, &[&x, &w], true)?;
        let [by_xx, by_xw] = [0, 1].map(|k| second[k].clone().expect("reached"));
        session.evaluate(&[&sum, &by_x, &by_w, &by_xx, &by_xw])
    })
    .unwrap();
    // 2·w·d² with w = ½ and d = 3; with g = 2·w·2·d = 6 to either side the sum of squares is 2·g².
    let expected: [&[f64]; 5] = [
        &[9.0],
        &[0.0, 0.0, -6.0, 6.0, 0.0],
        &[0.0, 0.0, 18.0, 0.0, 0.0],
        &[0.0, 0.0, -48.0, 48.0, 0.0],
        &[0.0, 0.0, 288.0, 0.0, 0.0],
    ];
    assert_eq!(found, expected);
}
