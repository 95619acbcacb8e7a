use super::*;
use crate::Conv2d;
use crate::conv::conv2d;
use crate::isa::Isa;
use crate::matmul::test_support::{on_threads, values};

/// Deterministic parameters of a made-up network: each list from a seed of its own, small enough that nothing saturates.
struct Seeds(u64);

impl Seeds {
    fn list(&mut self, len: usize, size: f64) -> Vec<f32> {
        self.0 += 1;
        values::<f32>(len, self.0).into_iter().map(|value| value * size as f32).collect()
    }

    fn weight(&mut self, outputs: usize, inputs: usize) -> Arc<[f32]> {
        self.list(outputs * inputs, (3.0 / inputs as f64).sqrt()).into()
    }

    fn affine(&mut self, channels: usize) -> Affine {
        let scale = self.list(channels, 0.3).into_iter().map(|value| 1.0 + f64::from(value)).collect();
        Affine { scale, shift: self.list(channels, 0.3).into_iter().map(f64::from).collect() }
    }

    fn unit(&mut self, [inputs, outputs, stride]: [usize; 3], excitation: bool) -> Unit {
        Unit {
            stride,
            before: self.affine(inputs),
            first: self.weight(outputs, inputs * 9),
            slope: self.list(outputs, 0.5).into(),
            second: self.weight(outputs, outputs * 9),
            after: self.affine(outputs),
            excitation: excitation.then(|| [self.weight(3, outputs), self.weight(outputs, 3)]),
            shortcut: (inputs != outputs).then(|| (self.weight(outputs, inputs), self.affine(outputs))),
        }
    }
}

fn parts(size: usize, units: &[[usize; 3]], excitation: bool) -> Parts {
    let mut seeds = Seeds(0);
    let channels = units[0][0];
    let units: Vec<Unit> = units.iter().map(|&unit| seeds.unit(unit, excitation)).collect();
    let (last, extent) =
        units.iter().fold((0, size), |(_, extent), unit| (unit.slope.len(), extent.div_ceil(unit.stride)));
    Parts {
        size,
        first: seeds.weight(channels, CHANNELS * 9),
        first_norm: seeds.affine(channels),
        first_slope: seeds.list(channels, 0.5).into(),
        units,
        last_norm: seeds.affine(last),
        projection: [seeds.weight(10, last * extent * extent), seeds.list(10, 0.5).into()],
        embedding_norm: seeds.affine(10),
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Images in double precision, in planes.
#[derive(Clone)]
struct Planes {
    shape: [usize; 4],
    data: Vec<f64>,
}

impl Planes {
    fn convolve(&self, weight: &[f32], kernel: usize, geometry: Conv2d) -> Planes {
        let inputs = self.shape[1];
        let kernel = [weight.len() / (inputs * kernel * kernel), inputs, kernel, kernel];
        let shape: [usize; 4] = geometry.output_shape(&self.shape, &kernel).unwrap().try_into().unwrap();
        Planes { shape, data: conv2d(&geometry, &self.data, self.shape, &wide(weight), kernel) }
    }

    /// Each element's channel and itself become another.
    fn map(mut self, f: impl Fn(usize, f64) -> f64) -> Planes {
        let plane = self.shape[2] * self.shape[3];
        let channels = self.shape[1];
        self.data.iter_mut().enumerate().for_each(|(index, value)| *value = f(index / plane % channels, *value));
        self
    }

    fn affine(self, affine: &Affine) -> Planes {
        self.map(|channel, value| value * affine.scale[channel] + affine.shift[channel])
    }

    fn prelu(self, slope: &[f32]) -> Planes {
        self.map(|channel, value| if value > 0.0 { value } else { value * f64::from(slope[channel]) })
    }
}

/// The definition, in double precision: the embedding of each face.
fn embeddings(parts: &Parts, faces: &[f64], batch: usize) -> Vec<Vec<f64>> {
    let faces = Planes { shape: [batch, CHANNELS, parts.size, parts.size], data: faces.to_vec() };
    let near = Conv2d::padded(1);
    let mut x = faces.convolve(&parts.first, 3, near).affine(&parts.first_norm).prelu(&parts.first_slope);
    for unit in &parts.units {
        let stride = unit.stride;
        let inner = x.clone().affine(&unit.before).convolve(&unit.first, 3, near).prelu(&unit.slope);
        let mut inner = inner.convolve(&unit.second, 3, near.strided(stride)).affine(&unit.after);
        let [_, channels, height, width] = inner.shape;
        if let Some([squeeze, expand]) = &unit.excitation {
            for image in inner.data.chunks_exact_mut(channels * height * width) {
                let means: Vec<f64> = image
                    .chunks_exact(height * width)
                    .map(|plane| plane.iter().sum::<f64>() / (height * width) as f64)
                    .collect();
                let times = |row: &[f32], x: &[f64]| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
                let features: Vec<f64> =
                    squeeze.chunks_exact(channels).map(|row| times(row, &means).max(0.0)).collect();
                for (plane, row) in image.chunks_exact_mut(height * width).zip(expand.chunks_exact(features.len())) {
                    let gate = 1.0 / (1.0 + (-times(row, &features)).exp());
                    plane.iter_mut().for_each(|value| *value *= gate);
                }
            }
        }
        let identity: Vec<f32> = (0..x.shape[1].pow(2)).map(|at| f32::from(at % (x.shape[1] + 1) == 0)).collect();
        let far = Conv2d::default().strided(stride);
        let past = match &unit.shortcut {
            Some((weight, norm)) => x.convolve(weight, 1, far).affine(norm),
            None => x.convolve(&identity, 1, far),
        };
        inner.data.iter_mut().zip(&past.data).for_each(|(inner, past)| *inner += past);
        x = inner;
    }
    let x = x.affine(&parts.last_norm);
    let [weight, bias] = &parts.projection;
    let Affine { scale, shift } = &parts.embedding_norm;
    x.data
        .chunks_exact(x.data.len() / batch)
        .map(|image| {
            let rows = weight.chunks_exact(image.len()).zip(bias.iter());
            let sums = rows.map(|(row, &bias)| {
                f64::from(bias) + row.iter().zip(image).map(|(&w, x)| f64::from(w) * x).sum::<f64>()
            });
            let normed: Vec<f64> =
                sums.zip(scale.iter().zip(shift)).map(|(sum, (scale, shift))| sum * scale + shift).collect();
            let length = normed.iter().map(|value| value * value).sum::<f64>().sqrt();
            normed.into_iter().map(|value| value / length).collect()
        })
        .collect()
}

fn products(parts: &Parts, faces: &[f64], others: &[Vec<f64>]) -> Vec<f64> {
    let dot = |(a, b): (Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a * b).sum();
    embeddings(parts, faces, others.len()).into_iter().zip(others).map(dot).collect()
}

const NETWORKS: [(usize, &[[usize; 3]], bool); 3] = [
    (8, &[[20, 20, 2], [20, 20, 1], [20, 33, 2], [33, 33, 1]], true),
    (10, &[[16, 16, 1], [16, 40, 2]], true),
    (5, &[[7, 7, 2], [7, 12, 1]], false),
];

#[test]
fn agrees_with_the_definition() {
    const BATCH: usize = 3;
    for (size, units, excitation) in NETWORKS {
        let parts = parts(size, units, excitation);
        let pixels = BATCH * CHANNELS * size * size;
        let (faces, others) = (values::<f32>(pixels, 100), values::<f32>(pixels, 101));
        let theirs = embeddings(&parts, &wide(&others), BATCH);
        let flat: Vec<f32> = theirs.iter().flatten().map(|&value| value as f32).collect();
        let factors = [0.5, -2.0, 1.0_f32];
        let expected = products(&parts, &wide(&faces), &theirs);
        // Central differences of the definition, by some of the pixels.
        let step = 1e-5;
        let slope = |pixel: usize| {
            let at = |by: f64| {
                let mut faces = wide(&faces);
                faces[pixel] += by;
                products(&parts, &faces, &theirs).iter().zip(factors).map(|(p, f)| p * f64::from(f)).sum::<f64>()
            };
            (at(step) - at(-step)) / (2.0 * step)
        };
        let some: Vec<usize> = (0..pixels).step_by(pixels / 40).collect();
        let slopes: Vec<f64> = some.iter().map(|&pixel| slope(pixel)).collect();
        let largest = slopes.iter().fold(0.0, |largest: f64, slope| largest.max(slope.abs()));
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            let mut network = ResidualNetwork::new(&parts).unwrap();
            network.instructions = Instructions::of(isa);
            // Twice: the second call finds the first one's memory.
            for target in [Target::Faces(&others), Target::Embeddings(&flat), Target::Faces(&others)] {
                let (got, gradient) = network.compare(&faces, BATCH, target, Some(&factors)).unwrap();
                let gradient = gradient.unwrap();
                for (got, expected) in got.iter().zip(&expected) {
                    assert!((f64::from(*got) - expected).abs() < 1e-5, "{isa:?} {size}: {got} for {expected}");
                }
                for (&pixel, slope) in some.iter().zip(&slopes) {
                    let error = (f64::from(gradient[pixel]) - slope).abs() / largest;
                    assert!(error < 2e-4, "{isa:?} {size}: {} for {slope}", gradient[pixel]);
                }
                assert_eq!(network.compare(&faces, BATCH, target, None).unwrap(), (got, None));
            }
            let embedded = network.embed(&others, BATCH).unwrap();
            assert!(embedded.iter().zip(&flat).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}

#[test]
fn same_bits_on_any_number_of_threads_and_instruction_set() {
    let (size, units, excitation) = NETWORKS[0];
    let parts = parts(size, units, excitation);
    let pixels = 2 * CHANNELS * size * size;
    let (faces, others) = (values::<f32>(pixels, 100), values::<f32>(pixels, 101));
    let run = |isa| {
        let (parts, faces, others) = (&parts, &faces, &others);
        move || {
            let mut network = ResidualNetwork::new(parts).unwrap();
            network.instructions = Instructions::of(isa);
            network.compare(faces, 2, Target::Faces(others), Some(&[1.0, 1.0])).unwrap()
        }
    };
    let one = on_threads(1, run(Isa::Avx512));
    for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
        assert_eq!(one, on_threads(2, run(isa)), "{isa:?}");
        assert_eq!(one, on_threads(5, run(isa)), "{isa:?}");
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let (size, units, excitation) = NETWORKS[2];
    let good = parts(size, units, excitation);
    let refused = |change: &dyn Fn(&mut Parts)| {
        let mut parts = good.clone();
        change(&mut parts);
        assert!(matches!(ResidualNetwork::new(&parts), Err(Error::InvalidOption { .. })));
    };
    refused(&|parts| parts.units.clear());
    refused(&|parts| parts.units[0].stride = 3);
    refused(&|parts| parts.units[1].shortcut = None);
    refused(&|parts| parts.units[1].before = Affine::default());
    refused(&|parts| parts.size = 8);
    refused(&|parts| parts.projection[1] = Arc::new([0.0; 3]));
    refused(&|parts| parts.first = Arc::new([]));
    let network = ResidualNetwork::new(&good).unwrap();
    let faces = vec![0.5; 2 * CHANNELS * 25];
    assert!(matches!(network.embed(&faces, 3), Err(Error::Length { .. })));
    let short = network.compare(&faces, 2, Target::Embeddings(&[0.0; 7]), None);
    assert!(matches!(short, Err(Error::Length { .. })));
    assert!(matches!(network.compare(&faces, 2, Target::Faces(&faces), Some(&[1.0])), Err(Error::Length { .. })));
}

#[test]
fn nan_in_nan_out_on_every_instruction_set() {
    for excitation in [false, true] {
        let parts = parts(7, &[[16, 16, 2], [16, 32, 1]], excitation);
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            let network =
                ResidualNetwork { instructions: Instructions::of(isa), ..ResidualNetwork::new(&parts).unwrap() };
            let mut faces = values::<f32>(2 * 147, 60);
            faces[150] = f32::NAN;
            let others = values::<f32>(2 * 147, 61);
            let (products, gradient) = network.compare(&faces, 2, Target::Faces(&others), Some(&[1.0; 2])).unwrap();
            let gradient = gradient.unwrap();
            assert!(!products[0].is_nan() && products[1].is_nan(), "{isa:?} {products:?}");
            assert!(gradient[..147].iter().all(|slope| !slope.is_nan()) && gradient[150].is_nan(), "{isa:?}");
        }
    }
}

#[test]
fn a_gate_of_nan_is_nan() {
    let list = |len| -> Arc<[f32]> { values::<f32>(len, 3).into() };
    let gate = Gate { squeeze: list(6), expand: list(6), channels: 2, squeezed: 3 };
    let (mut gates, mut sums) = (Gates::default(), vec![0.5; LANES]);
    sums[1] = f32::NAN;
    gate.open(&sums, 4, &mut gates);
    assert!(gates.squeezed.iter().chain(&gates.values[..2]).all(|value| value.is_nan()));
    let mut above = vec![1.0; LANES];
    gate.carry_back(&mut above, 4, &gates);
    assert!(above[..2].iter().all(|slope| slope.is_nan()));
}
