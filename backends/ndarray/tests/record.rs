//! What operations on arrays leave behind, and its derivatives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image_losses_core::kernels::Array;
use image_losses_core::op::perform;
use image_losses_core::{
    Custom, Differentiable, Error, Expr, Extent, Function, Op, Pointwise, Pool2d, Result, Shape, Tensor, Unary,
};
use image_losses_ndarray::{NdTensor, differentiate, release_memory};
use ndarray::{Array1, Axis, Slice, array};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One test at a time: memory is the process's.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

type Nd = NdTensor<'static, f64>;

fn leaf(values: &[f64], shape: &[usize]) -> Nd {
    NdTensor::from_vec(values.to_vec(), shape).unwrap().leaf().unwrap()
}

fn gradient(output: &Nd, input: &Nd, create_graph: bool) -> Nd {
    NdTensor::gradients(output, &[input], create_graph).unwrap().remove(0).unwrap()
}

fn values(tensor: &Nd) -> Vec<f64> {
    tensor.array().iter().copied().collect()
}

/// x⁴
#[derive(Clone, Copy, Debug)]
struct Fourth;

impl Pointwise<1> for Fourth {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        x.square().square()
    }
}

fn sum_of_fourths(x: &Nd, weight: Option<&Nd>, factor: Option<&Nd>) -> Result<Nd> {
    NdTensor::map_reduce(&Function::new(Fourth), &[x], weight, factor, 1.0, Extent::Sum)
}

#[test]
fn derivatives_of_every_order() {
    let _alone = ALONE.lock();
    let x = leaf(&[2.0, -1.0], &[2]);
    let fourth = sum_of_fourths(&x, None, None).unwrap();
    let mut derivative = fourth.clone();
    // 4x³, 12x², 24x, 24.
    for expected in [[32.0, -4.0], [48.0, 12.0], [48.0, -24.0], [24.0, 24.0]] {
        derivative = gradient(&derivative, &x, true);
        assert_eq!(values(&derivative), expected);
    }
    assert!(NdTensor::gradients(&derivative, &[&x], false).unwrap()[0].is_none_or_zero());
}

trait NoneOrZero {
    fn is_none_or_zero(&self) -> bool;
}

impl NoneOrZero for Option<Nd> {
    fn is_none_or_zero(&self) -> bool {
        self.as_ref().is_none_or(|tensor| tensor.array().iter().all(|&x| x == 0.0))
    }
}

#[test]
fn a_sum_has_the_same_gradient_however_often_and_scaled() {
    let _alone = ALONE.lock();
    let x = leaf(&[2.0, -1.0], &[2]);
    let fourth = sum_of_fourths(&x, None, None).unwrap();
    // The first call takes the gradient that was computed with the value, the second computes it.
    for _ in 0..2 {
        assert_eq!(values(&gradient(&fourth, &x, false)), [32.0, -4.0]);
    }
    for (factor, expected) in [(0.5, [16.0, -2.0]), (0.0, [0.0, 0.0]), (-1.0, [-32.0, 4.0])] {
        let scaled = sum_of_fourths(&x, None, None).unwrap().scale(factor).unwrap();
        assert_eq!(values(&gradient(&scaled, &x, false)), expected);
    }
    // What takes a pixel out does so beside a gradient from above that is NaN.
    let weight = NdTensor::from_vec(vec![0.0, 1.0], &[2]).unwrap();
    let masked = sum_of_fourths(&x, Some(&weight), None).unwrap().scale(f64::NAN).unwrap();
    let masked = values(&gradient(&masked, &x, false));
    assert!(masked[0] == 0.0 && masked[1].is_nan(), "{masked:?}");
}

#[test]
fn a_factor_and_a_weight_have_gradients() {
    let _alone = ALONE.lock();
    let (x, weight, factor) = (leaf(&[2.0, -1.0], &[2]), leaf(&[3.0, 5.0], &[2]), leaf(&[0.5], &[1]));
    let value = sum_of_fourths(&x, Some(&weight), Some(&factor)).unwrap();
    assert_eq!(value.item().unwrap(), 0.5 * (3.0 * 16.0 + 5.0));
    let gradients = NdTensor::gradients(&value, &[&x, &weight, &factor], true).unwrap();
    let gradients: Vec<Vec<f64>> = gradients.iter().map(|gradient| values(gradient.as_ref().unwrap())).collect();
    assert_eq!(gradients, [vec![48.0, -10.0], vec![8.0, 0.5], vec![53.0]]);
    let several = leaf(&[1.0, 1.0], &[2]);
    let refused = sum_of_fourths(&x, None, Some(&several)).unwrap_err();
    assert!(matches!(refused, Error::ShapeRule { argument: "factor", .. }), "{refused}");
}

#[test]
fn contributions_are_added_and_detached_values_have_none() {
    let _alone = ALONE.lock();
    let (x, y) = (leaf(&[3.0], &[1]), leaf(&[5.0], &[1]));
    // x·y + x² + (detached x)·y
    let sum = x.mul(&y).unwrap().add(&x.mul(&x).unwrap()).unwrap().add(&x.detach().mul(&y).unwrap()).unwrap();
    let gradients = NdTensor::gradients(&sum, &[&x, &y], false).unwrap();
    assert_eq!(values(gradients[0].as_ref().unwrap()), [11.0]);
    assert_eq!(values(gradients[1].as_ref().unwrap()), [6.0]);
    // By a value on the way, by the output itself, by what has no part.
    let square = x.mul(&x).unwrap();
    let cube = square.mul(&x).unwrap();
    let gradients = NdTensor::gradients(&cube, &[&square, &cube, &y, &x.detach()], false).unwrap();
    assert_eq!(values(gradients[0].as_ref().unwrap()), [3.0]);
    assert_eq!(values(gradients[1].as_ref().unwrap()), [1.0]);
    assert!(gradients[2].is_none() && gradients[3].is_none());
    // A leaf of a leaf is another one, and what is detached is no output to differentiate.
    assert!(NdTensor::gradients(&cube, &[&x.leaf().unwrap()], false).unwrap()[0].is_none());
    assert!(NdTensor::gradients(&cube.detach(), &[&x], false).unwrap()[0].is_none());
    // Gradients are recorded where that is asked, and else not.
    assert!(NdTensor::gradients(&gradient(&cube, &x, false), &[&x], false).unwrap()[0].is_none());
    assert_eq!(values(&gradient(&gradient(&cube, &x, true), &x, false)), [18.0]);
}

#[test]
fn only_what_is_asked_for_is_computed() {
    let _alone = ALONE.lock();
    release_memory();
    let (x, constant) = (leaf(&[3.0], &[1]), NdTensor::from_vec(vec![0.5; 1 << 18], &[1 << 18]).unwrap());
    let out = x.mul(&constant).unwrap().sum_all().unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    assert_eq!(values(&gradient(&out, &x, false)), [f64::from(1 << 17)]);
    // The gradient of the sum, and its product with the constant; the gradient by the constant would be one more.
    let peak = MEMORY.peak_usage() - before;
    assert!(peak < 5 << 20, "{peak} bytes");
    assert!(NdTensor::gradients(&out, &[&leaf(&[0.0], &[1])], false).unwrap()[0].is_none());
    release_memory();
}

#[test]
fn what_nobody_holds_is_freed_without_recursion() {
    let _alone = ALONE.lock();
    release_memory();
    let before = MEMORY.current_usage();
    {
        let x = leaf(&[1.0], &[1]);
        let mut chain = x.clone();
        for _ in 0..300_000 {
            chain = chain.affine(1.0, 1.0).unwrap();
        }
        assert_eq!(values(&gradient(&chain, &x, false)), [1.0]);
        assert!(MEMORY.current_usage() > before + 300_000 * size_of::<f64>());
    }
    {
        let x = leaf(&vec![0.5; 1 << 18], &[1, 1, 512, 512]);
        let kept = gradient(&sum_of_fourths(&x, None, None).unwrap(), &x, true);
        assert_eq!(kept.array()[[0, 0, 0, 0]], 0.5);
    }
    // Large results are kept for later ones until they are given back.
    assert!(MEMORY.current_usage() >= before + (1 << 20));
    release_memory();
    let left = MEMORY.current_usage().saturating_sub(before);
    assert!(left < 1 << 16, "{left} bytes are left");
}

#[test]
fn large_results_take_the_memory_of_earlier_ones() {
    let _alone = ALONE.lock();
    release_memory();
    let x = Array1::from_elem(1 << 18, 0.5);
    let step = || {
        let x = NdTensor::view(x.view()).leaf().unwrap();
        let map = NdTensor::pointwise(&Function::new(Fourth), &[&x]).unwrap();
        let sum = map.mul(&x).unwrap().sum_all().unwrap();
        NdTensor::gradients(&sum, &[&x], false).unwrap().remove(0).unwrap().array()[0]
    };
    // 5x⁴
    assert_eq!(step(), 0.3125);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    for _ in 0..3 {
        assert_eq!(step(), 0.3125);
    }
    let peak = MEMORY.peak_usage() - before;
    assert!(peak < x.len() * size_of::<f64>(), "{peak} bytes were taken anew");
    release_memory();
}

#[test]
fn every_kind_of_array_is_a_tensor() {
    let _alone = ALONE.lock();
    let square = array![[1.0, 2.0], [3.0, 4.0]];
    let transposed = square.clone().reversed_axes();
    let part = square.column(1);
    let mut sliced = square.clone();
    sliced.slice_axis_inplace(Axis(0), Slice::from(1..));
    let numbers = |tensor: &NdTensor<'_, f64>| {
        let same = tensor.mul(tensor).unwrap().unary(Unary::Sqrt).unwrap();
        assert_eq!(same.array(), tensor.array());
        tensor.array().iter().copied().collect::<Vec<_>>()
    };
    assert_eq!(numbers(&NdTensor::new(transposed.clone())), [1.0, 3.0, 2.0, 4.0]);
    assert_eq!(numbers(&NdTensor::view(transposed.view())), [1.0, 3.0, 2.0, 4.0]);
    assert_eq!(numbers(&NdTensor::view(part)), [2.0, 4.0]);
    assert_eq!(numbers(&NdTensor::new(sliced.clone())), [3.0, 4.0]);
    assert_eq!(NdTensor::new(sliced.clone()).into_array(), sliced.into_dyn());
    assert_eq!(NdTensor::new(transposed.clone()).clone().into_array(), transposed.into_dyn());
    let refused = NdTensor::from_vec(vec![1.0f32; 3], &[2, 2]).unwrap_err();
    assert!(matches!(refused, Error::Length { expected: 4, got: 3, .. }), "{refused}");
    let nothing = NdTensor::<f64>::from_vec(Vec::new(), &[1 << 20, 0, 1 << 20]).unwrap();
    assert_eq!((nothing.shape(), nothing.array().len()), (vec![1 << 20, 0, 1 << 20], 0));
    assert_eq!(nothing.into_array().shape(), [1 << 20, 0, 1 << 20]);
    let refused = NdTensor::<f64>::from_vec(Vec::new(), &[1 << 40, 0, 1 << 40]).unwrap_err();
    assert!(matches!(refused, Error::ShapeRule { .. }), "{refused}");
}

#[test]
fn a_function_without_influence_has_zeros() {
    let _alone = ALONE.lock();
    let (x, y) = (array![1.0, 2.0], array![3.0, 4.0]);
    let (value, gradients) = differentiate(&[x.view(), y.view()], |t| t[0].mul(&t[0])?.sum_all()).unwrap();
    assert_eq!((value.len(), value.sum()), (1, 5.0));
    assert_eq!(gradients, [array![2.0, 4.0].into_dyn(), array![0.0, 0.0].into_dyn()]);
    let refused = differentiate(&[x.view()], |t| t[0].add(&NdTensor::from_vec(vec![1.0; 3], &[3])?)).unwrap_err();
    assert!(matches!(refused, Error::Broadcast { .. }), "{refused}");
}

#[test]
fn records_may_be_shared_between_threads() {
    let _alone = ALONE.lock();
    let x = leaf(&[2.0, -1.0], &[2]);
    let fourth = sum_of_fourths(&x, None, None).unwrap();
    let gradients: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| values(&gradient(&fourth, &x, false)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(gradients.iter().all(|gradient| gradient == &[32.0, -4.0]), "{gradients:?}");
}

#[test]
fn pooling_and_arithmetic_have_the_gradients_of_their_closed_forms() {
    let _alone = ALONE.lock();
    let x = leaf(&[1.0, 4.0, 3.0, 2.0], &[1, 1, 2, 2]);
    let pool = Pool2d { size: [2, 2], stride: [2, 2], padding: [0; 2], ceil_mode: false };
    let largest = x.max_pool2d(pool).unwrap();
    assert_eq!(values(&gradient(&largest.mul(&largest).unwrap(), &x, false)), [0.0, 8.0, 0.0, 0.0]);
    // 1/x, by the divisor alone.
    let one = NdTensor::from_vec(vec![1.0], &[1]).unwrap();
    let quotient = one.div(&x).unwrap();
    assert_eq!(values(&gradient(&quotient, &x, false)), [-1.0, -1.0 / 16.0, -1.0 / 9.0, -0.25]);
}

/// Σ x², which counts how often each of its kernels runs.
#[derive(Debug)]
struct CustomSquare {
    is_gradient: bool,
    runs: Arc<[AtomicUsize; 2]>,
}

impl Custom for CustomSquare {
    fn name(&self) -> &'static str {
        "CustomSquare"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        Ok(if self.is_gradient { inputs[0].to_vec() } else { vec![] })
    }
    fn evaluate_f32(&self, _: &[Array<'_, f32>]) -> Vec<f32> {
        unreachable!("double precision alone")
    }
    fn evaluate_f64(&self, inputs: &[Array<'_, f64>]) -> Vec<f64> {
        self.runs[0].fetch_add(1, Ordering::Relaxed);
        let x = inputs[0].data;
        if self.is_gradient {
            x.iter().map(|x| 2.0 * x * inputs[1].data[0]).collect()
        } else {
            vec![x.iter().map(|x| x * x).sum()]
        }
    }
    fn gradient(&self, _: usize) -> Result<Option<Arc<dyn Custom>>> {
        if self.is_gradient {
            return Err(Error::SecondDerivative { operation: "CustomSquare" });
        }
        Ok(Some(Arc::new(CustomSquare { is_gradient: true, runs: Arc::clone(&self.runs) })))
    }
    fn with_gradient_f64(&self, inputs: &[Array<'_, f64>], input: usize) -> Option<(Vec<f64>, Vec<f64>)> {
        if self.is_gradient || input > 0 {
            return None;
        }
        self.runs[1].fetch_add(1, Ordering::Relaxed);
        let x = inputs[0].data;
        Some((vec![x.iter().map(|x| x * x).sum()], x.iter().map(|x| 2.0 * x).collect()))
    }
}

#[test]
fn a_custom_value_and_its_gradient_are_computed_at_once() {
    let _alone = ALONE.lock();
    let runs: Arc<[AtomicUsize; 2]> = Arc::default();
    let square = |x: &Nd| {
        perform(&Op::Custom(Arc::new(CustomSquare { is_gradient: false, runs: Arc::clone(&runs) })), &[x]).unwrap()
    };
    let counts = || [runs[0].load(Ordering::Relaxed), runs[1].load(Ordering::Relaxed)];
    let x = leaf(&[1.0, 2.0], &[2]);
    let value = square(&x);
    // Through further operations, as those of a weighted sum of losses.
    let total = value.scale(3.0).unwrap().add(&x.sum_all().unwrap()).unwrap();
    assert_eq!((total.item().unwrap(), values(&gradient(&total, &x, false))), (18.0, vec![7.0, 13.0]));
    assert_eq!(counts(), [0, 1], "the gradient comes with the value");
    assert_eq!(values(&gradient(&total, &x, false)), [7.0, 13.0]);
    assert_eq!(counts(), [1, 1], "it is handed over once");
    square(&x.detach());
    assert_eq!(counts(), [2, 1], "without a leaf there is no gradient");
    // A second derivative that does not exist is an error where it is asked for.
    let first = gradient(&square(&x), &x, true);
    let missing = NdTensor::gradients(&first, &[&x], false).unwrap_err();
    assert!(matches!(missing, Error::SecondDerivative { .. }), "{missing}");
}
