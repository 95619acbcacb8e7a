//! Checks results, then times in rounds.

use std::time::{Duration, Instant};

use image_losses_kernels::stream::stream;
use serde::Serialize;

use super::peer::{Form, Peer, Reference};
use super::subject::{Contestant, Output, Subject, Work};
use crate::Stop;

/// A sample lasts at least so long: shorter work is repeated.
const SAMPLE: f64 = 0.02;
/// The other side's threads are given so long to fall asleep.
const PAUSE: Duration = Duration::from_millis(3);

/// How to measure.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) compile: bool,
}

/// Median and the middle half.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
        Spread { median: at(0.5), low: at(0.25), high: at(0.75) }
    }
}

/// Relative errors of value and gradient; the gradient's by Euclidean norm.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Errors {
    pub(crate) value: f64,
    pub(crate) gradient: f64,
}

/// What was found for one engine.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) engine: &'static str,
    /// Seconds of a call.
    pub(crate) ours: f64,
    pub(crate) eager: f64,
    pub(crate) compiled: Option<f64>,
    /// How many times as long the peer takes.
    pub(crate) against_eager: Spread,
    pub(crate) against_compiled: Option<Spread>,
    /// The streaming limit's time over ours, for pointwise work.
    pub(crate) of_limit: Option<Spread>,
    /// Billions of operations per second, for networks.
    pub(crate) gflops: Option<f64>,
    /// Against double precision.
    pub(crate) our_error: Errors,
    pub(crate) their_error: Errors,
    /// Our result is the peer's, within the subject's tolerance.
    pub(crate) agrees: bool,
}

/// Checks, then times; a row for each contestant.
pub(crate) fn measure(subject: &mut Subject, peer: &mut Peer, plan: &Plan) -> Result<Vec<Row>, Stop> {
    let reference = peer.load(subject, plan.compile)?;
    let mut found = Vec::new();
    for contestant in &mut subject.contestants {
        let output = call(contestant, &subject.name)?;
        found.push(compare(output, &reference, subject.tolerance));
    }
    let mut limit = Limit::new(subject.work);
    let contestants = &mut subject.contestants;

    // As many calls as fill a sample, found once.
    let once = |seconds: f64| ((SAMPLE / seconds).ceil() as usize).clamp(1, 1000);
    let eager_calls = once(peer.time(Form::Eager, 1)?);
    let compiled_calls = if plan.compile { once(peer.time(Form::Compiled, 1)?) } else { 0 };
    let mut our_calls = Vec::new();
    for contestant in contestants.iter_mut() {
        our_calls.push(once(seconds(1, || call(contestant, &subject.name).map(drop))?));
    }
    let limit_calls = limit.as_mut().map(|limit| once(limit.seconds(1)));

    let (mut ours, mut eager, mut compiled, mut limits) =
        (vec![Vec::new(); contestants.len()], Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        eager.push(peer.time(Form::Eager, eager_calls)?);
        std::thread::sleep(PAUSE);
        for (index, contestant) in contestants.iter_mut().enumerate() {
            // Once to wake the threads up and warm the caches, as the peer does.
            call(contestant, &subject.name)?;
            ours[index].push(seconds(our_calls[index], || call(contestant, &subject.name).map(drop))?);
        }
        if let (Some(limit), Some(calls)) = (&mut limit, limit_calls) {
            limits.push(limit.seconds(calls));
        }
        std::thread::sleep(PAUSE);
        if plan.compile {
            compiled.push(peer.time(Form::Compiled, compiled_calls)?);
        }
    }
    let ratios = |theirs: &[f64], ours: &[f64]| {
        let ratios: Vec<f64> = theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
        (!ratios.is_empty()).then(|| Spread::of(ratios))
    };
    let median = |values: &[f64]| (!values.is_empty()).then(|| Spread::of(values.to_vec()).median);
    let their_error = errors(
        reference.value,
        reference.gradient.iter().map(|&value| f64::from(value)),
        reference.value64,
        &reference.gradient64,
    );
    let mut rows = Vec::new();
    for ((contestant, ours), (our_error, agrees)) in contestants.iter().zip(&ours).zip(found) {
        let (Some(time), Some(eager_time), Some(against_eager)) = (median(ours), median(&eager), ratios(&eager, ours))
        else {
            return Err(format!("{}: no rounds", subject.name));
        };
        rows.push(Row {
            name: subject.name.clone(),
            engine: contestant.engine,
            ours: time,
            eager: eager_time,
            compiled: median(&compiled),
            against_eager,
            against_compiled: ratios(&compiled, ours),
            of_limit: ratios(&limits, ours),
            gflops: match subject.work {
                Work::Arithmetic(operations) => Some(operations / time / 1e9),
                Work::Memory { .. } => None,
            },
            our_error,
            their_error,
            agrees,
        });
    }
    Ok(rows)
}

fn call(contestant: &mut Contestant, name: &str) -> Result<Output, Stop> {
    (contestant.call)().map_err(|error| format!("{name} on {}: {error}", contestant.engine))
}

/// Seconds of a call, averaged over `calls`.
fn seconds(calls: usize, mut call: impl FnMut() -> Result<(), Stop>) -> Result<f64, Stop> {
    let start = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(start.elapsed().as_secs_f64() / calls as f64)
}

/// Our errors, and whether the result is the peer's.
fn compare(output: Output, reference: &Reference, [value, gradient]: [f64; 2]) -> (Errors, bool) {
    let found = output.gradient.into_values();
    let ours = || found.iter().map(|&value| f64::from(value));
    let theirs: Vec<f64> = reference.gradient.iter().map(|&value| f64::from(value)).collect();
    let apart = errors(output.value, ours(), reference.value, &theirs);
    let agrees = theirs.len() == found.len() && apart.value <= value && apart.gradient <= gradient;
    (errors(output.value, ours(), reference.value64, &reference.gradient64), agrees)
}

fn errors(value: f64, gradient: impl Iterator<Item = f64>, expected: f64, expected_gradient: &[f64]) -> Errors {
    let norm: f64 = expected_gradient.iter().map(|value| value * value).sum();
    let apart: f64 = gradient.zip(expected_gradient).map(|(a, b)| (a - b) * (a - b)).sum();
    Errors {
        value: (value - expected).abs() / expected.abs().max(f64::MIN_POSITIVE),
        gradient: (apart / norm.max(f64::MIN_POSITIVE)).sqrt(),
    }
}

/// The memory's limit: the same reads and writes and no work.
struct Limit {
    read: Vec<f32>,
    written: Vec<f32>,
}

impl Limit {
    fn new(work: Work) -> Option<Self> {
        match work {
            Work::Memory { read, written } => Some(Limit { read: vec![1.0; read], written: vec![0.0; written] }),
            Work::Arithmetic(_) => None,
        }
    }

    fn seconds(&mut self, calls: usize) -> f64 {
        std::hint::black_box(stream(&self.read, &mut self.written));
        let start = Instant::now();
        for _ in 0..calls {
            std::hint::black_box(stream(&self.read, &mut self.written));
        }
        start.elapsed().as_secs_f64() / calls as f64
    }
}
