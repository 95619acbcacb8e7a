//! What the engine promises about graphs: results do not depend on what else is asked for, a derivative that does not exist
//! fails, an input without influence has no gradient, a graph that is too large is an error.

use std::sync::Arc;

use autograd as ag;
use image_losses_autograd::{AgTensor, Element, Session, differentiate, run};
use image_losses_core::kernels::Array;
use image_losses_core::{
    Along, Custom, Differentiable, Error, Expr, Extent, Filter, Function, Op, Pool2d, Result, Shape, Stencil, Tensor,
    Unary, op::perform,
};

/// x³
#[derive(Clone, Copy, Debug)]
struct Cube;

impl image_losses_core::Pointwise<1> for Cube {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        x * x * x
    }
}

/// The gradients by each input, which must all exist.
fn gradients<'g, F: Element>(output: &AgTensor<'g, F>, inputs: &[&AgTensor<'g, F>]) -> Result<Vec<AgTensor<'g, F>>> {
    let gradients = Differentiable::gradients(output, inputs, true)?;
    Ok(gradients.into_iter().map(|gradient| gradient.expect("an influence")).collect())
}

/// Each subset of the results, evaluated together, against the expected values.
fn every_subset<'g, F: Element>(
    session: &Session<'g, F>,
    results: &[(&str, &AgTensor<'g, F>, Vec<f64>)],
) -> Result<()> {
    for subset in 1..1usize << results.len() {
        let members: Vec<_> =
            results.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, r)| r).collect();
        let names: Vec<&str> = members.iter().map(|(name, ..)| *name).collect();
        let wanted: Vec<&AgTensor<'g, F>> = members.iter().map(|(_, tensor, _)| *tensor).collect();
        for (values, (name, _, expected)) in session.evaluate(&wanted)?.iter().zip(members) {
            assert_eq!(values.len(), expected.len(), "{name} of {names:?}");
            for (value, expected) in values.iter().zip(expected) {
                let value = image_losses_core::Element::to_f64(*value);
                assert!(
                    (value - expected).abs() <= 1e-6 * expected.abs(),
                    "{name} of {names:?}: {value}, not {expected}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn values_and_derivatives_of_a_sum_do_not_depend_on_what_else_is_evaluated() {
    // Σ w·x³: every derivative up to the third, for one element and for several.
    fn check<F: Element>(x: &[f64], w: &[f64]) {
        run(|session| {
            let shape = [1, x.len()];
            let input = |values: &[f64]| {
                session.input(values.iter().map(|&x| <F as image_losses_core::Element>::from_f64(x)).collect(), &shape)
            };
            let (xs, ws) = (input(x)?, input(w)?);
            let value = AgTensor::map_reduce(&Function::new(Cube), &[&xs], Some(&ws), None, 1.0, Extent::Sum)?;
            let [by_x, by_w] = &gradients(&value, &[&xs, &ws])?[..] else { unreachable!() };
            let [by_xx, by_xw] = &gradients(by_x, &[&xs, &ws])?[..] else { unreachable!() };
            let [by_wx] = &gradients(by_w, &[&xs])?[..] else { unreachable!() };
            let [by_xxx, by_xxw] = &gradients(by_xx, &[&xs, &ws])?[..] else { unreachable!() };
            let of = |f: fn(f64, f64) -> f64| -> Vec<f64> { x.iter().zip(w).map(|(&x, &w)| f(x, w)).collect() };
            every_subset(
                session,
                &[
                    ("value", &value, vec![of(|x, w| w * x * x * x).iter().sum()]),
                    ("∂x", by_x, of(|x, w| 3.0 * w * x * x)),
                    ("∂w", by_w, of(|x, _| x * x * x)),
                    ("∂x∂x", by_xx, of(|x, w| 6.0 * w * x)),
                    ("∂x∂w", by_xw, of(|x, _| 3.0 * x * x)),
                    ("∂w∂x", by_wx, of(|x, _| 3.0 * x * x)),
                    ("∂x∂x∂x", by_xxx, of(|_, w| 6.0 * w)),
                    ("∂x∂x∂w", by_xxw, of(|x, _| 6.0 * x)),
                ],
            )
        })
        .expect("shapes that fit");
    }
    check::<f64>(&[2.0], &[3.0]);
    check::<f32>(&[2.0], &[3.0]);
    check::<f64>(&[2.0, -1.0, 0.5], &[3.0, 0.25, -2.0]);
    check::<f32>(&[2.0, -1.0, 0.5], &[3.0, 0.25, -2.0]);
}

#[test]
fn values_and_derivatives_of_a_stencil_do_not_depend_on_what_else_is_evaluated() {
    // ½·w·d³ with d = (x₁ − y₁) − (x₀ − y₀): the weight is at the first pixel.
    run(|session| {
        let shape = [1, 1, 1, 2];
        let x = session.input(vec![1.0f64, 4.0], &shape)?;
        let y = session.input(vec![0.5, 1.5], &shape)?;
        let w = session.input(vec![3.0, 7.0], &shape)?;
        let across = Filter { height: Along::Pixel, width: Along::Difference };
        let sums = Stencil::new(Cube, [across]).sums("test", &x, Some(&y), Some(&w), 0.5)?;
        let value = &sums[0];
        let [by_x, by_y, by_w] = &gradients(value, &[&x, &y, &w])?[..] else { unreachable!() };
        let [by_xw] = &gradients(by_x, &[&w])?[..] else { unreachable!() };
        let [by_yx, by_yw] = &gradients(by_y, &[&x, &w])?[..] else { unreachable!() };
        // d = 2, the weight 3; gradients of sums of gradients cancel between the two pixels.
        every_subset(
            session,
            &[
                ("value", value, vec![12.0]),
                ("∂x", by_x, vec![-18.0, 18.0]),
                ("∂y", by_y, vec![18.0, -18.0]),
                ("∂w", by_w, vec![4.0, 0.0]),
                ("∂x∂w", by_xw, vec![0.0, 0.0]),
                ("∂y∂x", by_yx, vec![0.0, 0.0]),
                ("∂y∂w", by_yw, vec![0.0, 0.0]),
            ],
        )
    })
    .expect("shapes that fit");
}

/// x, without a gradient that could be computed.
#[derive(Debug)]
struct Once;

impl Custom for Once {
    fn name(&self) -> &'static str {
        "Once"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        Ok(inputs[0].to_vec())
    }
    fn evaluate_f32(&self, inputs: &[Array<'_, f32>]) -> Vec<f32> {
        inputs[0].data.to_vec()
    }
    fn evaluate_f64(&self, inputs: &[Array<'_, f64>]) -> Vec<f64> {
        inputs[0].data.to_vec()
    }
    fn gradient(&self, _: usize) -> Result<Option<Arc<dyn Custom>>> {
        Err(Error::SecondDerivative { operation: "Once" })
    }
}

fn once<'g>(inputs: &[&AgTensor<'g, f64>]) -> Result<AgTensor<'g, f64>> {
    perform(&Op::Custom(Arc::new(Once)), inputs)
}

#[test]
fn a_derivative_that_does_not_exist_fails_where_it_is_evaluated() {
    run(|session| {
        let x = session.input(vec![1.0], &[1])?;
        let y = once(&[&x])?;
        let missing = ag::tensor_ops::grad(&[y.node()], &[x.node()])[0];
        // No error is left for a derivative that exists.
        let square = x.mul(&x)?.sum_all()?;
        let right = gradients(&square, &[&x])?.remove(0);
        assert_eq!(session.evaluate(&[&right])?, [[2.0]]);
        let missing = AgTensor::from_node(missing, session.graph(), &[1]);
        let message = session.evaluate(&[&missing]).expect_err("a missing derivative").to_string();
        assert!(message.contains("Once has no second derivative"), "{message}");
        // So does what is computed from it, and its own derivative.
        assert!(session.evaluate(&[&missing.scale(0.0)?]).is_err());
        let further = ag::tensor_ops::grad(&[missing.node()], &[x.node()])[0];
        assert!(session.evaluate(&[&AgTensor::from_node(further, session.graph(), &[1])]).is_err());
        assert_eq!(session.evaluate(&[&right])?, [[2.0]]);
        Ok::<_, Error>(())
    })
    .expect("derivatives that exist");
}

#[test]
fn a_derivative_that_does_not_exist_is_an_error_of_gradients() {
    run(|session| {
        let x = session.input(vec![1.0], &[1])?;
        let y = once(&[&x])?.sum_all()?;
        for _ in 0..2 {
            let error = Differentiable::gradients(&y, &[&x], false).expect_err("a missing derivative");
            assert_eq!(error, Error::SecondDerivative { operation: "Once" });
        }
        let square = x.mul(&x)?.sum_all()?;
        assert_eq!(session.evaluate(&[&gradients(&square, &[&x])?[0]])?, [[2.0]]);
        Ok::<_, Error>(())
    })
    .expect("derivatives that exist");
}

#[test]
fn a_derivative_that_nobody_needs_does_not_fail() {
    run(|session| {
        let x = session.input(vec![3.0], &[1])?;
        let y = once(&[&x])?;
        // By the result of the operation, not by its input.
        let gradient = gradients(&y.mul(&y)?.sum_all()?, &[&y])?.remove(0);
        assert_eq!(session.evaluate(&[&gradient])?, [[6.0]]);
        Ok::<_, Error>(())
    })
    .expect("derivatives that exist");
}

/// Asserts that the second input of a function has the gradient, the first one none.
fn second_alone(
    name: &str,
    function: impl for<'g> Fn(&AgTensor<'g, f64>, &AgTensor<'g, f64>) -> Result<AgTensor<'g, f64>>,
) {
    let inputs = [(vec![0.0, 1.0], vec![2]), (vec![3.0, 4.0], vec![2])];
    let (_, gradients) = differentiate(&inputs, |inputs| function(&inputs[0], &inputs[1])?.sum_all()).expect(name);
    assert_eq!(gradients[0], [0.0, 0.0], "{name}");
    assert!(gradients[1].iter().any(|&gradient| gradient != 0.0), "{name}");
    run(|session| {
        let x = session.input(vec![0.0, 1.0], &[2])?;
        let y = session.input(vec![3.0, 4.0], &[2])?;
        let output = function(&x, &y)?.sum_all()?;
        assert!(Differentiable::gradients(&output, &[&x, &x], true)?.iter().all(Option::is_none), "{name}");
        let [by_x, by_y] = &Differentiable::gradients(&output, &[&x, &y], true)?[..] else { unreachable!() };
        assert!(by_x.is_none() && by_y.is_some(), "{name}");
        // Of the sum with another term, that term's alone.
        let both = output.add(&x.mul(&x)?.sum_all()?)?;
        assert_eq!(session.evaluate(&[&gradients_of(&both, &x)?])?, [[0.0, 2.0]], "{name}");
        Ok::<_, Error>(())
    })
    .expect(name);
}

fn gradients_of<'g>(output: &AgTensor<'g, f64>, input: &AgTensor<'g, f64>) -> Result<AgTensor<'g, f64>> {
    Ok(gradients(output, &[input])?.remove(0))
}

#[test]
fn an_input_that_is_a_condition_alone_has_no_gradient() {
    second_alone("a condition", |x, y| x.if_zero(y, &y.scale(2.0)?));
    second_alone("a computed condition", |x, y| x.scale(2.0)?.if_zero(y, &y.scale(2.0)?));
    second_alone("in two steps", |x, y| x.scale(2.0)?.scale(3.0)?.if_not_positive(y, &y.scale(2.0)?));
    second_alone("a detached factor", |x, y| x.scale(2.0)?.detach().mul(y));
}

#[test]
fn an_input_that_chooses_maxima_alone_has_no_gradient() {
    // The gradient of a pool by its image chooses pixels by the image, and is linear in what comes from above.
    run(|session| {
        let x = session.input(vec![1.0, 4.0, 3.0, 2.0], &[1, 1, 2, 2])?;
        let pooled = x.max_pool2d(Pool2d::square(2))?;
        let first = gradients(&pooled.mul(&pooled)?.sum_all()?, &[&x])?.remove(0);
        let second = gradients(&first.sum_all()?, &[&x])?.remove(0);
        assert_eq!(session.evaluate(&[&first, &second])?, [[0.0, 8.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]);
        let linear = gradients(&pooled.sum_all()?, &[&x])?.remove(0);
        assert!(Differentiable::gradients(&linear, &[&x], false)?[0].is_none());
        Ok::<_, Error>(())
    })
    .expect("shapes that fit");
}

#[test]
fn a_node_of_ones_own_without_a_gradient_is_no_panic() {
    // The crate's own `sign` has no gradient.
    run(|session| {
        let x = session.input(vec![-2.0f64, 3.0], &[2])?;
        let sign = AgTensor::from_node(ag::tensor_ops::sign(x.node()), session.graph(), &[2]);
        assert!(Differentiable::gradients(&sign.sum_all()?, &[&x], false)?[0].is_none());
        let gradient = gradients_of(&sign.mul(&x)?.sum_all()?, &x)?;
        assert_eq!(session.evaluate(&[&gradient])?, [[-1.0, 1.0]]);
        Ok::<_, Error>(())
    })
    .expect("shapes that fit");
}

#[test]
fn a_tensor_is_its_own_derivative_of_one() {
    run(|session| {
        for (values, shape) in [(vec![2.0], vec![]), (vec![2.0, 3.0], vec![2])] {
            let x = session.input(values.clone(), &shape)?;
            let ones = vec![1.0; values.len()];
            assert_eq!(session.evaluate(&[&gradients_of(&x, &x)?])?, [&ones[..]]);
            let leaf = x.unary(Unary::Square)?.leaf()?;
            assert_eq!(session.evaluate(&[&gradients_of(&leaf, &leaf)?])?, [&ones[..]]);
        }
        Ok::<_, Error>(())
    })
    .expect("shapes that fit");
}

#[test]
fn tensors_of_another_graph_are_refused() {
    run(|one: &Session<'_, f64>| {
        run(|other: &Session<'_, f64>| {
            let (x, y) = (one.input(vec![1.0], &[1])?, other.input(vec![2.0], &[1])?);
            let refused = |result: Result<()>| assert!(matches!(result, Err(Error::Engine { .. })), "{result:?}");
            refused(x.add(&y).map(|_| ()));
            refused(y.add(&x).map(|_| ()));
            refused(Differentiable::gradients(&x, &[&y], false).map(|_| ()));
            Ok::<_, Error>(())
        })
    })
    .expect("inputs that fit");
}

#[test]
fn a_graph_that_is_too_large_is_an_error() {
    run(|session| {
        let x = session.input(vec![1.0f64], &[])?;
        let mut last = x.clone();
        let (mut nodes, error) = (
            0,
            loop {
                match last.shift(1.0) {
                    Ok(next) => last = next,
                    Err(error) => break error,
                }
            },
        );
        assert!(error.to_string().contains("nodes"), "{error}");
        // What was built is there; all that would add to it is refused.
        nodes += session.evaluate(&[&last])?[0][0] as usize;
        assert!(nodes > 450_000, "{nodes}");
        let refused = |what: &str, result: Result<()>| assert_eq!(result, Err(error.clone()), "{what}");
        for _ in 0..1000 {
            refused("operation", last.add(&x).map(|_| ()));
            refused("constant", AgTensor::constant(&session.graph(), &[1.0], &[1]).map(|_| ()));
            refused("input", session.input(vec![1.0], &[]).map(|_| ()));
            refused("leaf", x.leaf().map(|_| ()));
        }
        assert!(Differentiable::gradients(&last, &[&x], false).is_err());
        assert_eq!(session.evaluate(&[&last])?, [[nodes as f64]]);
        Ok::<_, Error>(())
    })
    .expect("a graph that fits");
}

#[test]
fn derivatives_that_do_not_fit_the_graph_are_an_error() {
    // x·2·2·…: each derivative takes a node for each of the operations.
    run(|session| {
        let x = session.input(vec![1.0f64], &[])?;
        let half = (0..150_000).try_fold(x.clone(), |last, _| last.affine(-1.0, 0.5))?;
        let gradient = gradients_of(&half, &x)?;
        assert_eq!(session.evaluate(&[&gradient])?, [[1.0]]);
        // 300,000 nodes are there, and 150,000 more do fit; twice as many do not.
        gradients_of(&half, &x)?;
        let error = Differentiable::gradients(&half, &[&x], false).expect_err("a graph that is full");
        assert!(error.to_string().contains("nodes"), "{error}");
        // Nothing is left of the attempt.
        assert_eq!(session.evaluate(&[&gradient])?, [[1.0]]);
        Ok::<_, Error>(())
    })
    .expect("a graph that fits");
    run(|session| {
        // Each square takes two products and a sum.
        let x = session.input(vec![1.0f64], &[])?;
        let power = (0..150_000).try_fold(x.clone(), |last, _| last.mul(&last))?;
        let error = Differentiable::gradients(&power, &[&x], false).expect_err("a graph that would be too large");
        assert!(error.to_string().contains("nodes"), "{error}");
        let small = (0..20_000).try_fold(x.clone(), |last, _| last.mul(&last)?.unary(Unary::Sqrt))?;
        assert_eq!(session.evaluate(&[&gradients_of(&small, &x)?])?, [[1.0]]);
        Ok::<_, Error>(())
    })
    .expect("a graph that fits");
}

#[test]
fn a_shape_beyond_all_memory_is_an_error() {
    run(|session| {
        let huge = [1 << 40, 1 << 40];
        let x: AgTensor<'_, f32> = session.placeholder(&huge);
        session.placeholder(&[usize::MAX]);
        session.placeholder(&[1 << 63]);
        assert!(matches!(session.evaluate_with(&[(&x, &[1.0])], &[&x]), Err(Error::Length { .. })));
        assert!(matches!(session.input(vec![1.0], &huge), Err(Error::Length { .. })));
        Ok::<_, Error>(())
    })
    .expect("errors alone");
}
