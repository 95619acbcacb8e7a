//! Sums over small filters against loops, and their derivatives to the third order, on the CPU engines.

use image_losses_autograd::{AgTensor, run};
use image_losses_core::gradcheck::{STEP, check_gradient, check_second_derivatives};
use image_losses_core::{Along, Differentiable, Error, Expr, Filter, Pointwise, Result, Stencil, Tensor};
use image_losses_laws::drawn;
use image_losses_ndarray::NdTensor;
use ndarray::ArrayD;
use proptest::prelude::*;

/// d² + tanh d: derivatives of every order.
#[derive(Clone, Copy, Debug)]
struct Smooth;

impl Pointwise<1> for Smooth {
    fn value<'e>(&self, [d]: [Expr<'e>; 1]) -> Expr<'e> {
        d.square() + d.tanh()
    }
}

#[derive(Clone, Debug)]
struct Case {
    shape: Vec<usize>,
    filters: Vec<Filter>,
    has_target: bool,
    /// The channels of the weight.
    weight: Option<usize>,
    scale: f64,
}

/// Numbers from −1 to 1 that repeat at no power of two.
fn numbers(count: usize, step: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * step + step / 3) % 1009) as f64 / 504.5 - 1.0).collect()
}

impl Case {
    /// The shapes of the image, the target and the weight, as far as they are there.
    fn shapes(&self) -> Vec<Vec<usize>> {
        let [n, _, h, w] = self.shape[..] else { unreachable!("four axes") };
        let target = self.has_target.then(|| self.shape.clone());
        let weight = self.weight.map(|channels| vec![n, channels, h, w]);
        [Some(self.shape.clone()), target, weight].into_iter().flatten().collect()
    }

    fn inputs(&self) -> Vec<Vec<f64>> {
        let of = |(shape, step): (Vec<usize>, usize)| numbers(shape.iter().product(), step);
        self.shapes().into_iter().zip([389, 577, 211]).map(of).collect()
    }

    /// The sums, a tensor of shape (N) for each filter.
    fn sums<T: Tensor>(&self, inputs: &[T]) -> Result<Vec<T>> {
        let target = self.has_target.then(|| &inputs[1]);
        let weight = self.weight.map(|_| &inputs[inputs.len() - 1]);
        Stencil::new(Smooth, self.filters.clone()).sums("test", &inputs[0], target, weight, self.scale)
    }

    /// Σ (1 + k + n/2)·s + s²/8 of all sums s, of filter k and sample n: each has a factor of its own, which depends on the
    /// inputs.
    fn total<T: Tensor>(&self, inputs: &[T]) -> Result<T> {
        let mut total: Option<T> = None;
        for (k, sums) in self.sums(inputs)?.iter().enumerate() {
            let factors: Vec<f64> = (0..self.shape[0]).map(|n| 1.0 + k as f64 + n as f64 / 2.0).collect();
            let factors = T::constant(&sums.context(), &factors, &[self.shape[0]])?;
            let term = sums.mul(&factors)?.add(&sums.mul(sums)?.scale(0.125)?)?.sum_all()?;
            total = Some(match total {
                Some(total) => total.add(&term)?,
                None => term,
            });
        }
        Ok(total.expect("a filter"))
    }

    /// The sums by loops, filter after filter.
    fn by_loops(&self, inputs: &[Vec<f64>]) -> Vec<f64> {
        let [n, c, h, w] = self.shape[..] else { unreachable!("four axes") };
        let at = |sample: usize, channel: usize, y: usize, x: usize| ((sample * c + channel) * h + y) * w + x;
        let error = |index: usize| inputs[0][index] - if self.has_target { inputs[1][index] } else { 0.0 };
        // What stands at distance −1, 0 and 1, and whether there is a response.
        let along = |along: Along, position: usize, extent: usize| match along {
            Along::Pixel => ([0.0, 1.0, 0.0], true),
            Along::Difference => ([0.0, -1.0, 1.0], position + 1 < extent),
            Along::Taps(taps) => (taps, true),
        };
        let mut sums = Vec::new();
        for filter in &self.filters {
            for sample in 0..n {
                let mut sum = 0.0;
                for (channel, y, x) in (0..c * h * w).map(|i| (i / (h * w), i / w % h, i % w)) {
                    let ((down, has_row), (across, has_column)) =
                        (along(filter.height, y, h), along(filter.width, x, w));
                    if !has_row || !has_column {
                        continue;
                    }
                    let mut response = 0.0;
                    for (dy, dx) in (0..9).map(|i| (i / 3, i % 3)) {
                        if (1..=h).contains(&(y + dy)) && (1..=w).contains(&(x + dx)) {
                            response += down[dy] * across[dx] * error(at(sample, channel, y + dy - 1, x + dx - 1));
                        }
                    }
                    let weight = match self.weight {
                        None => 1.0,
                        Some(1) => inputs[inputs.len() - 1][(sample * h + y) * w + x],
                        Some(_) => inputs[inputs.len() - 1][at(sample, channel, y, x)],
                    };
                    sum += self.scale * weight * (response * response + response.tanh());
                }
                sums.push(sum);
            }
        }
        sums
    }

    fn on_autograd(
        &self,
        inputs: &[Vec<f64>],
        compute: impl for<'g> Fn(&[AgTensor<'g, f64>]) -> Result<Vec<AgTensor<'g, f64>>>,
    ) -> Result<Vec<Vec<f64>>> {
        run(|session| {
            let inputs: Vec<AgTensor<'_, f64>> = inputs
                .iter()
                .zip(self.shapes())
                .map(|(values, shape)| session.input(values.clone(), &shape))
                .collect::<Result<_>>()?;
            let wanted = compute(&inputs)?;
            session.evaluate(&wanted.iter().collect::<Vec<_>>())
        })
    }
}

/// The gradients by all inputs, which all have some.
fn gradients<'g>(output: &AgTensor<'g, f64>, inputs: &[AgTensor<'g, f64>]) -> Result<Vec<AgTensor<'g, f64>>> {
    let inputs: Vec<&AgTensor<'g, f64>> = inputs.iter().collect();
    Ok(Differentiable::gradients(output, &inputs, true)?.into_iter().flatten().collect())
}

/// Σ direction·gradient.
fn along<'g>(gradients: &[AgTensor<'g, f64>], direction: &[Vec<f64>]) -> Result<AgTensor<'g, f64>> {
    let mut sum: Option<AgTensor<'g, f64>> = None;
    for (gradient, direction) in gradients.iter().zip(direction) {
        let direction = AgTensor::constant(&gradient.context(), direction, &gradient.shape())?;
        let term = gradient.mul(&direction)?.sum_all()?;
        sum = Some(match sum {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    Ok(sum.expect("an input"))
}

fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let along = prop_oneof![
        Just(Along::Pixel),
        Just(Along::Difference),
        Just(Along::Taps([-1.0, 0.0, 1.0])),
        Just(Along::Taps([0.5, -2.0, 1.25])),
    ];
    prop::collection::vec((along.clone(), along).prop_map(|(height, width)| Filter { height, width }), 1..4)
}

fn cases(extents: std::ops::Range<usize>) -> impl Strategy<Value = Case> {
    let shape = (1..3usize, 1..3usize, extents.clone(), extents).prop_map(|(n, c, h, w)| vec![n, c, h, w]);
    let weight = prop_oneof![Just(None), Just(Some(false)), Just(Some(true))];
    let scale = prop_oneof![Just(1.0), Just(-0.25)];
    (shape, filters(), any::<bool>(), weight, scale).prop_map(|(shape, filters, has_target, weight, scale)| {
        let weight = weight.map(|is_per_element| if is_per_element { shape[1] } else { 1 });
        Case { shape, filters, has_target, weight, scale }
    })
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f64::max)
}

fn check_values(case: &Case) {
    let inputs = case.inputs();
    let expected = case.by_loops(&inputs);
    let tensors: Vec<NdTensor<'_, f64>> = inputs
        .iter()
        .zip(case.shapes())
        .map(|(values, shape)| NdTensor::new(ArrayD::from_shape_vec(shape, values.clone()).unwrap()))
        .collect();
    let found: Vec<f64> = case
        .sums(&tensors)
        .unwrap()
        .into_iter()
        .flat_map(|sums| sums.into_array().into_raw_vec_and_offset().0)
        .collect();
    assert!(worst(&found, &expected) < 1e-12, "{found:?} {expected:?} {case:?}");
    // Together with their gradient they are the same.
    let both = case
        .on_autograd(&inputs, |inputs| {
            let total = case.total(inputs)?;
            let gradients = gradients(&total, inputs)?;
            Ok([case.sums(inputs)?, vec![total], gradients].concat())
        })
        .unwrap();
    assert_eq!(both[..case.filters.len()].concat(), found);
}

proptest! {
    #![proptest_config(drawn(64))]

    #[test]
    fn drawn_sums_are_those_of_loops(case in cases(1..7)) {
        check_values(&case);
    }

    #[test]
    fn drawn_derivatives_are_those_of_differences(case in cases(2..5)) {
        let inputs = case.inputs();
        let value = |inputs: &[Vec<f64>]| Ok(case.on_autograd(inputs, |inputs| Ok(vec![case.total(inputs)?]))?[0][0]);
        let gradient = |inputs: &[Vec<f64>]| {
            case.on_autograd(inputs, |inputs| gradients(&case.total(inputs)?, inputs))
        };
        let product = |inputs: &[Vec<f64>], direction: &[Vec<f64>]| {
            case.on_autograd(inputs, |inputs| {
                let first = gradients(&case.total(inputs)?, inputs)?;
                gradients(&along(&first, direction)?, inputs)
            })
        };
        let first = check_gradient(&inputs, STEP, value, gradient).unwrap().unwrap();
        // Totals of 1e3 round by 1e-13, over a step of 6e-6; the third's curvature is another ten times that.
        prop_assert!(first.error < 1e-6, "{first:?}");
        let second = check_second_derivatives(&inputs, STEP, gradient, product).unwrap().unwrap();
        prop_assert!(second.error < 1e-6, "{second:?}");
        // The third along one direction: Σ d·H·d as a function, and its gradient.
        let direction: Vec<Vec<f64>> = inputs.iter().map(|input| numbers(input.len(), 307)).collect();
        let curvature = |inputs: &[Vec<f64>]| {
            let found = product(inputs, &direction)?.concat();
            Ok(found.iter().zip(direction.concat()).map(|(a, b)| a * b).sum())
        };
        let third = |inputs: &[Vec<f64>]| {
            case.on_autograd(inputs, |inputs| {
                let first = gradients(&case.total(inputs)?, inputs)?;
                let second = gradients(&along(&first, &direction)?, inputs)?;
                gradients(&along(&second, &direction)?, inputs)
            })
        };
        let third = check_gradient(&inputs, STEP, curvature, third).unwrap().unwrap();
        prop_assert!(third.error < 1e-5, "{third:?}");
    }
}

#[test]
fn large_images_run_in_several_tasks() {
    // Stretches of 55 rows, three in a plane.
    let filters = vec![
        Filter { height: Along::Taps([1.0, 2.0, 1.0]), width: Along::Taps([-1.0, 0.0, 1.0]) },
        Filter { height: Along::Difference, width: Along::Pixel },
    ];
    for (shape, weight) in [([1, 1, 121, 300], None), ([2, 3, 56, 301], Some(1)), ([1, 2, 3, 20_000], Some(2))] {
        let case = Case { shape: shape.to_vec(), filters: filters.clone(), has_target: true, weight, scale: 1e-3 };
        check_values(&case);
        // The sums are linear in the weight, and those of squares and tanh in nothing else: a few differences will do.
        let inputs = case.inputs();
        let found = case.on_autograd(&inputs, |inputs| gradients(&case.total(inputs)?, inputs)).unwrap();
        let value = |inputs: &[Vec<f64>]| {
            let sums = case.by_loops(inputs);
            let n = shape[0];
            let term = |(at, s): (usize, &f64)| (1.0 + (at / n) as f64 + (at % n) as f64 / 2.0) * s + s * s / 8.0;
            sums.iter().enumerate().map(term).sum::<f64>()
        };
        let row = shape[3];
        for (input, found) in found.iter().enumerate() {
            // To either side of where tasks meet, the first and the last.
            let elements = [0, 54 * row + 7, 55 * row, found.len() - 1].map(|element| element.min(found.len() - 1));
            for element in elements {
                let moved = |by: f64| {
                    let mut inputs = inputs.clone();
                    inputs[input][element] += by;
                    value(&inputs)
                };
                let difference = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                // Rounding of a sum of 1e2 over the step.
                assert!((found[element] - difference).abs() < 1e-8, "{element}: {} {difference}", found[element]);
            }
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    type Image = NdTensor<'static, f64>;
    let across = Stencil::new(Smooth, [Filter { height: Along::Pixel, width: Along::Difference }]);
    let tensor = |shape: &[usize]| Image::new(ArrayD::zeros(shape));
    let image = tensor(&[2, 3, 4, 5]);
    let refused =
        |x: &Image, y: Option<&Image>, weight: Option<&Image>| across.sums("test", x, y, weight, 1.0).unwrap_err();
    assert!(matches!(refused(&tensor(&[3, 4, 5]), None, None), Error::ShapeRule { .. }));
    assert!(matches!(refused(&tensor(&[2, 3, 0, 5]), None, None), Error::Empty { .. }));
    assert!(matches!(refused(&image, Some(&tensor(&[2, 3, 4, 1])), None), Error::ShapeMismatch { .. }));
    assert!(matches!(refused(&image, None, Some(&tensor(&[2, 2, 4, 5]))), Error::WeightShape { .. }));
    assert!(matches!(across.means("test", &tensor(&[3, 4, 5]), None, None, 1.0), Err(Error::ShapeRule { .. })));
}
