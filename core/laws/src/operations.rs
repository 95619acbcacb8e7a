//! What every tensor operation keeps on every engine: extents of 0 and beyond any memory, weights of 0, NaN.

use image_losses_core::{
    Conv2d, Differentiable, Error, Expr, Extent, Function, Interpolation, LinearMap, Op, Pointwise, Pool2d, Result,
    Shape, Tensor, Unary, op::perform,
};
use image_losses_ndarray::NdTensor;

/// Reads the elements of a tensor, row-major.
pub type Read<'a, T> = &'a dyn Fn(&T) -> Result<Vec<f64>>;

/// An operation, the shapes it is tried with, and how it is called.
struct Operation<T> {
    name: &'static str,
    shapes: Vec<Shape>,
    run: fn(&[T]) -> Result<T>,
}

/// x·y.
#[derive(Clone, Copy, Debug)]
struct Product;

impl Pointwise<2> for Product {
    fn value<'e>(&self, [x, y]: [Expr<'e>; 2]) -> Expr<'e> {
        x * y
    }
}

/// x, whatever y is.
#[derive(Clone, Copy, Debug)]
struct First;

impl Pointwise<2> for First {
    fn value<'e>(&self, [x, _]: [Expr<'e>; 2]) -> Expr<'e> {
        x
    }
}

fn product() -> Function {
    Function::new(Product)
}

/// Every operation of the trait.
fn operations<T: Tensor>() -> Vec<Operation<T>> {
    let image = || vec![2, 3, 4, 5];
    let (column, pixel) = (vec![2, 3, 1, 1], vec![2, 1, 4, 5]);
    macro_rules! operations {
        ($($name:literal: [$($shape:expr),*], |$x:ident| $run:expr;)*) => {
            vec![$(Operation { name: $name, shapes: vec![$($shape),*], run: |$x: &[T]| $run }),*]
        };
    }
    operations! {
        "add": [image(), image()], |x| x[0].add(&x[1]);
        "add, repeated": [image(), column.clone()], |x| x[0].add(&x[1]);
        "sub": [image(), column.clone()], |x| x[0].sub(&x[1]);
        "sub, turned": [column.clone(), image()], |x| x[0].sub(&x[1]);
        "mul": [image(), pixel.clone()], |x| x[0].mul(&x[1]);
        "div": [image(), image()], |x| x[0].div(&x[1]);
        "affine": [image()], |x| x[0].affine(2.0, 1.0);
        "abs": [image()], |x| x[0].unary(Unary::Abs);
        "sqrt": [image()], |x| x[0].unary(Unary::Sqrt);
        "if_not_positive": [image(), image(), column.clone()], |x| x[0].if_not_positive(&x[1], &x[2])?.add(&x[0]);
        "if_zero": [pixel.clone(), image(), image()], |x| x[0].if_zero(&x[1], &x[2])?.add(&x[0]);
        "if_at_most": [image(), pixel.clone(), image(), image()], |x| x[0].if_at_most(&x[1], &x[2], &x[3])?.add(&x[0])?.add(&x[1]);
        "unless_zero": [image(), pixel.clone()], |x| x[0].unless_zero(&x[1], 0.5)?.add(&x[1]);
        "weighted": [image(), pixel.clone()], |x| x[0].weighted(&x[1]);
        "sum of rows": [image()], |x| x[0].sum(&[2], false);
        "sum of ends": [image()], |x| x[0].sum(&[0, 3], true);
        "sum of nothing": [image()], |x| x[0].sum(&[], false);
        "sum_all": [image()], |x| x[0].sum_all()?.reshape(&[1]);
        "mean": [image()], |x| x[0].mean(&[2, 3], true);
        "less its means": [image()], |x| x[0].sub(&x[0].mean(&[2, 3], true)?);
        "norm": [image()], |x| x[0].norm(&[1], true);
        "norm of all": [image()], |x| x[0].norm(&[0, 1, 2, 3], true);
        "broadcast_to": [column], |x| x[0].broadcast_to(&[&x[0].shape()[..2], &[4, 5]].concat());
        "reshape": [image()], |x| x[0].reshape(&[x[0].elements(), 1]);
        "permute": [image()], |x| x[0].permute(&[3, 0, 2, 1]);
        "narrow": [image()], |x| x[0].narrow(2, 1, 2);
        "narrow to nothing": [image()], |x| x[0].narrow(2, 0, 0);
        "pad": [image()], |x| x[0].pad(3, 2, 1);
        "pad first": [image()], |x| x[0].pad(0, 0, 1);
        "concatenate": [image(), image()], |x| T::concatenate(&[&x[0], &x[1]], 1);
        "matmul": [vec![3, 4], vec![4, 5]], |x| x[0].matmul(&x[1], false, false);
        "matmul, turned": [vec![4, 3], vec![5, 4]], |x| x[0].matmul(&x[1], true, true);
        "matmul, batched": [vec![2, 3, 4], vec![2, 4, 5]], |x| x[0].matmul(&x[1], false, false);
        "conv2d": [image(), vec![6, 3, 3, 3]], |x| x[0].convolve(&x[1], Conv2d::padded(1));
        "conv2d of groups": [vec![2, 4, 4, 5], vec![6, 2, 1, 3]],
            |x| x[0].convolve(&x[1], Conv2d::padded(1).strided(2).grouped(2));
        "conv2d with bias": [image(), vec![6, 3, 1, 1], vec![6]],
            |x| x[0].conv2d(&x[1], Some(&x[2]), Conv2d::default());
        "max_pool2d": [image()],
            |x| x[0].max_pool2d(Pool2d { size: [2, 2], stride: [2, 2], padding: [1, 1], ceil_mode: false });
        "max_pool2d, rounded up": [image()],
            |x| x[0].max_pool2d(Pool2d { ceil_mode: true, ..Pool2d::square(3) });
        "avg_pool2d": [image()], |x| x[0].avg_pool2d([2, 2]);
        "adaptive_avg_pool2d": [image()], |x| x[0].adaptive_avg_pool2d([3, 2]);
        "resize": [image()], |x| x[0].resize([3, 7], Interpolation::Bilinear { align_corners: false });
        "map": [image(), pixel.clone()], |x| T::map_reduce(&product(), &[&x[0], &x[1]], None, None, 2.0, Extent::Map);
        "weighted map": [image(), image(), pixel.clone()],
            |x| T::map_reduce(&product(), &[&x[0], &x[1]], Some(&x[2]), None, 2.0, Extent::Map);
        "weighted sum": [image(), image(), pixel.clone()],
            |x| T::map_reduce(&product(), &[&x[0], &x[1]], Some(&x[2]), None, 2.0, Extent::Sum)?.reshape(&[1]);
        "sample sums": [image(), pixel], |x| T::map_sample_sums(&product(), &[&x[0], &x[1]], 2.0);
        "linear": [image()], |x| x[0].linear(3, &LinearMap::filter(x[0].shape()[3], &[1.0, -1.0])?);
        "rfft2": [image()], |x| x[0].rfft2();
        "rfft2 of odd images": [vec![3, 5, 7]], |x| x[0].rfft2();
        "rfft2_adjoint": [vec![2, 4, 3, 2]],
            |x| perform(&Op::RealFftAdjoint { width: 5 }, &[&x[0]]);
        "squared_difference": [image(), image()], |x| x[0].squared_difference(&x[1]);
        "huber_difference": [image(), image()], |x| x[0].huber_difference(&x[1], 0.5);
        "hypotenuse": [image()], |x| x[0].hypotenuse(0.25);
        "leaky_relu": [image()], |x| x[0].leaky_relu(0.2);
        "softmax": [image()], |x| x[0].softmax();
        "full": [image()], |x| T::full(&x[0].context(), 0.5, &x[0].shape());
    }
}

/// Operations with extents and parameters whose products or sums overflow.
fn overflowing<T: Tensor>() -> Vec<Operation<T>> {
    const HALF: usize = 1 << 62;
    const ALL: usize = usize::MAX;
    fn geometry(stride: usize, padding: usize, dilation: usize) -> Conv2d {
        Conv2d { stride: [stride, 1], padding: [padding, 0], dilation: [dilation, 1], groups: 1 }
    }
    fn pool(size: usize, stride: usize, padding: usize) -> Pool2d {
        Pool2d { size: [size, 1], stride: [stride, 1], padding: [padding, 0], ceil_mode: true }
    }
    let image = || vec![1, 1, 2, 2];
    let weight = || vec![1, 1, 2, 2];
    macro_rules! operations {
        ($($name:literal: [$($shape:expr),*], |$x:ident| $run:expr;)*) => {
            vec![$(Operation { name: $name, shapes: vec![$($shape),*], run: |$x: &[T]| $run }),*]
        };
    }
    operations! {
        "constant": [image()], |x| T::constant(&x[0].context(), &[], &[0, HALF, 8]);
        "constant, turned": [image()], |x| T::constant(&x[0].context(), &[], &[HALF, 8, 0]);
        "constant of nothing": [image()], |x| T::constant(&x[0].context(), &[], &[HALF, 4]);
        "full": [image()], |x| T::full(&x[0].context(), 1.0, &[HALF, 8]);
        "full, one axis": [image()], |x| T::full(&x[0].context(), 1.0, &[HALF]);
        "full, all": [image()], |x| T::full(&x[0].context(), 1.0, &[ALL]);
        "full, wrapped": [image()], |x| T::full(&x[0].context(), 1.0, &[ALL, ALL]);
        "broadcast_to": [vec![1, 1]], |x| x[0].broadcast_to(&[HALF, 8]);
        "broadcast_to, all": [vec![1]], |x| x[0].broadcast_to(&[ALL]);
        "reshape": [image()], |x| x[0].reshape(&[HALF, 4, 1, 4]);
        "reshape, wrapped": [vec![0]], |x| x[0].reshape(&[HALF, 4]);
        "reshape, with 0": [vec![0]], |x| x[0].reshape(&[HALF, 4, 0]);
        "pad before": [image()], |x| x[0].pad(0, ALL, 1);
        "pad after": [image()], |x| x[0].pad(0, 1, ALL);
        "pad, both": [image()], |x| x[0].pad(2, HALF, HALF);
        "narrow": [image()], |x| x[0].narrow(2, ALL, 2);
        "narrow, long": [image()], |x| x[0].narrow(2, 1, ALL);
        "an axis beyond": [image()], |x| x[0].narrow(ALL, 0, 1);
        "sum of an axis beyond": [image()], |x| x[0].sum(&[ALL], true);
        "mean of an axis beyond": [image()], |x| x[0].mean(&[HALF], true);
        "permute": [image()], |x| x[0].permute(&[ALL, 0, 1, 2]);
        "concatenate": [image()], |x| T::concatenate(&[&x[0], &x[0]], ALL);
        "conv2d, padding": [image(), weight()], |x| x[0].convolve(&x[1], geometry(1, HALF, 1));
        "conv2d, all padding": [image(), weight()], |x| x[0].convolve(&x[1], geometry(1, ALL, 1));
        "conv2d, dilation": [image(), weight()], |x| x[0].convolve(&x[1], geometry(1, 0, ALL));
        "conv2d, all": [image(), weight()], |x| x[0].convolve(&x[1], geometry(ALL, ALL / 2, 2));
        "conv2d, groups": [image(), weight()], |x| x[0].convolve(&x[1], Conv2d::default().grouped(ALL));
        "max_pool2d, size": [image()], |x| x[0].max_pool2d(pool(ALL, 1, HALF));
        "max_pool2d, padding": [image()], |x| x[0].max_pool2d(pool(2, 1, ALL));
        "max_pool2d, wrapped padding": [image()], |x| x[0].max_pool2d(pool(2, 1, HALF * 2));
        "avg_pool2d": [image()], |x| x[0].avg_pool2d([ALL, 1]);
        "adaptive_avg_pool2d": [image()], |x| x[0].adaptive_avg_pool2d([HALF, 1]);
        "resize": [image()], |x| x[0].resize([HALF, 8], Interpolation::Nearest);
        "resize, all": [image()], |x| x[0].resize([1, ALL], Interpolation::Bicubic { align_corners: true });
    }
}

/// The first numbers of a fixed sequence between −1 and 1, without 0.
fn numbers(count: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 7919 + 13) % 1009) as f64 / 504.5 - 0.999).collect()
}

fn tensors<T: Tensor>(context: &T::Context, shapes: &[Shape]) -> Result<Vec<T>> {
    shapes.iter().map(|shape| T::constant(context, &numbers(shape.iter().product()), shape)).collect()
}

/// The shapes themselves, and with each extent of each in turn 0: alone, and on the same axis of all that have it.
fn with_zeros(shapes: &[Shape]) -> Vec<Vec<Shape>> {
    let mut cases = vec![shapes.to_vec()];
    for (k, shape) in shapes.iter().enumerate() {
        for axis in 0..shape.len() {
            let mut alone = shapes.to_vec();
            alone[k][axis] = 0;
            cases.push(alone);
            let mut together = shapes.to_vec();
            for other in together.iter_mut().filter(|other| other.len() == shape.len() && other[axis] == shape[axis]) {
                other[axis] = 0;
            }
            cases.push(together);
        }
    }
    cases
}

/// Every operation with every extent 0 in turn: the engine refuses what the ndarray engine refuses, and gives the same
/// shape and elements elsewhere.
///
/// # Panics
/// Where it does not: this is a test.
pub fn extents<T: Tensor>(context: &T::Context, read: Read<'_, T>) {
    for (operation, expected) in operations::<T>().into_iter().zip(operations::<NdTensor<'_, f64>>()) {
        for shapes in with_zeros(&operation.shapes) {
            let name = format!("{} of {shapes:?}", operation.name);
            let found = tensors(context, &shapes).and_then(|inputs| (operation.run)(&inputs));
            let expected = tensors(&(), &shapes).and_then(|inputs| (expected.run)(&inputs));
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found.shape(), expected.shape(), "{name}");
                    let (found, expected) =
                        (read(&found).unwrap(), expected.array().iter().copied().collect::<Vec<_>>());
                    assert_eq!(found.len(), expected.len(), "{name}");
                    for (found, expected) in found.iter().zip(&expected) {
                        let same = (found - expected).abs() < 1e-5 || (found.is_nan() && expected.is_nan());
                        assert!(same, "{name}: {found}, expected {expected}");
                    }
                }
                // What an engine cannot do it says.
                (Err(Error::Unsupported { .. }), _) | (Err(_), Err(_)) => {}
                // libtorch refuses some tensors without elements that the rules allow.
                (Err(Error::Engine { .. }), Ok(_)) if shapes.iter().flatten().any(|&extent| extent == 0) => {}
                (found, expected) => panic!("{name}: {:?}, expected {:?}", found.err(), expected.err()),
            }
        }
    }
}

/// Shapes and parameters that no memory holds are refused.
///
/// # Panics
/// Where they are not: this is a test.
pub fn overflows<T: Tensor>(context: &T::Context) {
    for operation in overflowing::<T>() {
        let inputs = tensors(context, &operation.shapes).unwrap();
        let result = (operation.run)(&inputs);
        assert!(result.is_err(), "{}: of shape {:?}", operation.name, result.map(|x| x.shape()));
    }
}

/// The gradients of every operation with every extent 0 in turn: in their inputs' shapes, zeros where the result has no
/// elements.
///
/// # Panics
/// Where they are not: this is a test.
pub fn extents_of_gradients<T: Differentiable>(context: &T::Context, read: Read<'_, T>) {
    for operation in operations::<T>() {
        for shapes in with_zeros(&operation.shapes) {
            let name = format!("gradient of {} of {shapes:?}", operation.name);
            let inputs = tensors::<T>(context, &shapes).and_then(|x| x.iter().map(T::leaf).collect::<Result<Vec<_>>>());
            let Ok(inputs) = inputs else { continue };
            let Ok(result) = (operation.run)(&inputs) else { continue };
            let gradients = T::gradients(&result, &inputs.iter().collect::<Vec<_>>(), false);
            let gradients = match gradients {
                Err(Error::Engine { .. }) if shapes.iter().flatten().any(|&extent| extent == 0) => continue,
                gradients => gradients.unwrap_or_else(|error| panic!("{name}: {error}")),
            };
            for (gradient, input) in gradients.iter().zip(&inputs) {
                let Some(gradient) = gradient else { continue };
                assert_eq!(gradient.shape(), input.shape(), "{name}");
                let values = read(gradient).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(values.len(), input.elements(), "{name}");
                assert!(result.elements() > 0 || values.iter().all(|&v| v == 0.0), "{name}: {values:?}");
            }
        }
    }
}

/// A function that ignores an input is repeated over its shape: sums and means count every element.
///
/// # Panics
/// Where they do not: this is a test.
pub fn ignored_inputs<T: Tensor>(context: &T::Context, read: Read<'_, T>) {
    let first = Function::new(First);
    let pixels = T::constant(context, &[1.0, 2.0, 3.0, 4.0], &[1, 1, 2, 2]).unwrap();
    let images = T::constant(context, &numbers(24), &[2, 3, 2, 2]).unwrap();
    let weight = T::constant(context, &[0.5; 8], &[2, 1, 2, 2]).unwrap();
    let run = |weight, extent| T::map_reduce(&first, &[&pixels, &images], weight, None, 1.0, extent).unwrap();
    let map = run(None, Extent::Map);
    assert_eq!(map.shape(), [2, 3, 2, 2]);
    assert_eq!(read(&map).unwrap(), [1.0, 2.0, 3.0, 4.0].repeat(6));
    assert_eq!(read(&run(None, Extent::Sum)).unwrap(), [60.0]);
    assert_eq!(read(&run(Some(&weight), Extent::Sum)).unwrap(), [30.0]);
    let sums = T::map_sample_sums(&first, &[&pixels, &images], 1.0).unwrap();
    assert_eq!(read(&sums).unwrap(), [30.0, 30.0]);
    // A weight does not enlarge the map.
    let refused = T::map_reduce(&first, &[&pixels, &pixels], Some(&weight), None, 1.0, Extent::Sum);
    assert!(matches!(refused, Err(Error::Broadcast { .. })));
}

/// The derivative by a weight of 0 is 0, in first and in second order, whatever the inputs hold there.
///
/// # Panics
/// Where it is not: this is a test.
pub fn weights_of_zero<T: Differentiable>(context: &T::Context, read: Read<'_, T>) {
    let leaf = |values: &[f64]| T::constant(context, values, &[1, 1, 1, 4]).unwrap().leaf().unwrap();
    let x = leaf(&[f64::INFINITY, f64::NAN, 3.0, -2.0]);
    let w = leaf(&[0.0, 0.0, 0.5, 0.0]);
    let square = Function::unary(Unary::Square);
    for extent in [Extent::Map, Extent::Sum] {
        let value = T::map_reduce(&square, &[&x], Some(&w), None, 2.0, extent).unwrap();
        let sum = value.sum_all().unwrap();
        assert_eq!(read(&sum).unwrap(), [9.0]);
        let first = T::gradients(&sum, &[&x, &w], true).unwrap();
        let [by_x, by_w] = [0, 1].map(|k| first[k].clone().expect("a gradient"));
        assert_eq!(read(&by_x).unwrap(), [0.0, 0.0, 6.0, 0.0]);
        assert_eq!(read(&by_w).unwrap(), [0.0, 0.0, 18.0, 0.0]);
        // ∂/∂w and ∂/∂x of the gradients' sums.
        let second = T::gradients(&by_x.sum_all().unwrap(), &[&x, &w], true).unwrap();
        let [by_xx, by_xw] = [0, 1].map(|k| second[k].as_ref().map(|t| read(t).unwrap()));
        assert_eq!(by_xx.unwrap(), [0.0, 0.0, 2.0, 0.0]);
        assert_eq!(by_xw.unwrap(), [0.0, 0.0, 12.0, 0.0]);
        let second = T::gradients(&by_w.sum_all().unwrap(), &[&x], true).unwrap();
        assert_eq!(read(second[0].as_ref().unwrap()).unwrap(), [0.0, 0.0, 12.0, 0.0]);
    }
    let weighted = x.weighted(&w).unwrap();
    assert_eq!(read(&weighted).unwrap(), [0.0, 0.0, 1.5, 0.0]);
    let gradients = T::gradients(&weighted.sum_all().unwrap(), &[&x, &w], true).unwrap();
    assert_eq!(read(gradients[0].as_ref().unwrap()).unwrap(), [0.0, 0.0, 0.5, 0.0]);
    assert_eq!(read(gradients[1].as_ref().unwrap()).unwrap(), [0.0, 0.0, 3.0, 0.0]);
    // A gradient from above of 0 is not a weight: it has a derivative.
    let direction = leaf(&[0.0, 1.0, 0.0, 0.0]);
    let y = leaf(&[5.0, 6.0, 7.0, 8.0]);
    let square = T::map_reduce(&square, &[&y], None, None, 1.0, Extent::Map).unwrap();
    let along =
        T::gradients(&square.mul(&direction).unwrap().sum_all().unwrap(), &[&y], true).unwrap().remove(0).unwrap();
    let by_direction = T::gradients(&along.sum_all().unwrap(), &[&direction], true).unwrap().remove(0).unwrap();
    assert_eq!(read(&by_direction).unwrap(), [10.0, 12.0, 14.0, 16.0]);
}

/// NaN in, NaN out, as value and as derivative: every function of [`image_losses_core::Expr`], those that compare
/// included, and the engine's own [`Unary`] operations.
///
/// # Panics
/// Where NaN is lost: this is a test.
pub fn nan<T: Differentiable>(context: &T::Context, read: Read<'_, T>) {
    let check = |name: &str, function: &Function| {
        let leaf = |values: &[f64]| T::constant(context, values, &[1, 1, 1, 4]).unwrap().leaf().unwrap();
        let (x, y) = (leaf(&[f64::NAN, 0.25, f64::NAN, 4.0]), leaf(&[0.5; 4]));
        for extent in [Extent::Map, Extent::Sum] {
            let value = T::map_reduce(function, &[&x, &y], None, None, 1.0, extent).unwrap();
            let gradient = T::gradients(&value.sum_all().unwrap(), &[&x], true).unwrap().remove(0).unwrap();
            let (value, gradient) = (read(&value).unwrap(), read(&gradient).unwrap());
            let is_nan = |values: &[f64]| values.iter().map(|v| v.is_nan()).collect::<Vec<_>>();
            let each = [true, false, true, false];
            assert_eq!(is_nan(&value), if value.len() == 1 { &each[..1] } else { &each[..] }, "{name}: {value:?}");
            assert_eq!(is_nan(&gradient), each, "gradient of {name}: {gradient:?}");
        }
    };
    macro_rules! functions {
        ($($name:ident: |$x:ident, $y:ident| $value:expr;)*) => {$({
            #[derive(Clone, Copy, Debug)]
            #[allow(non_camel_case_types)]
            struct $name;
            impl Pointwise<2> for $name {
                fn value<'e>(&self, [$x, $y]: [Expr<'e>; 2]) -> Expr<'e> {
                    $value
                }
            }
            check(stringify!($name), &Function::new($name));
        })*};
    }
    functions! {
        abs: |x, _y| x.abs();
        sqrt: |x, _y| x.sqrt();
        exp: |x, _y| x.exp();
        ln: |x, _y| x.ln();
        tanh: |x, _y| x.tanh();
        sigmoid: |x, _y| x.sigmoid();
        softplus: |x, _y| x.softplus();
        square: |x, _y| x.square();
        relu: |x, _y| x.relu();
        clip: |x, _y| x.clip(0.0, 1.0);
        huber: |x, _y| x.huber(1.0);
        leaky_relu: |x, _y| x.leaky_relu(0.2);
        max: |x, y| x.max(y);
        max_turned: |x, y| y.max(x);
        min: |x, y| x.min(y);
        min_turned: |x, y| y.min(x);
        quotient: |x, y| y / x;
        times_sign: |x, y| x.sign() * x * y;
        selected: |x, y| (x - 1.0).if_not_positive(x, x * y);
        selected_at_zero: |x, y| (x - 0.25).if_zero(x, x * y);
    }
    // The engine's own operations.
    for function in [
        Unary::Abs,
        Unary::Square,
        Unary::Sqrt,
        Unary::Exp,
        Unary::Ln,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Softplus,
        Unary::LogSigmoid,
        Unary::Relu,
    ] {
        let x = T::constant(context, &[f64::NAN, 0.25, -f64::NAN, 4.0], &[4]).unwrap().leaf().unwrap();
        let value = x.unary(function).unwrap();
        let gradient = T::gradients(&value.sum_all().unwrap(), &[&x], true).unwrap().remove(0).unwrap();
        for found in [read(&value).unwrap(), read(&gradient).unwrap()] {
            let is_nan: Vec<bool> = found.iter().map(|v| v.is_nan()).collect();
            assert_eq!(is_nan, [true, false, true, false], "{function:?}: {found:?}");
        }
    }
    // Equal infinities have a larger one.
    let infinite = T::constant(context, &[f64::INFINITY, f64::NEG_INFINITY], &[2]).unwrap();
    let larger = infinite.if_at_most(&infinite, &infinite, &infinite).unwrap();
    assert_eq!(read(&larger).unwrap(), [f64::INFINITY, f64::NEG_INFINITY]);
}
