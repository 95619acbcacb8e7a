//! What is measured: one piece of work, as the peer does it and as each of our engines does.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use crate::Stop;

/// Makes the subject of the given name.
pub(crate) type Make = Box<dyn Fn(&str) -> Result<Subject, Stop>>;

/// A case by name; its tensors are made when it is run.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) make: Make,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, make: impl Fn(&str) -> Result<Subject, Stop> + 'static) -> Self {
        Case { name: name.into(), make: Box::new(make) }
    }
}

/// A value and the gradient by the one tensor that has one.
pub(crate) struct Output {
    pub(crate) value: f64,
    pub(crate) gradient: Gradient,
}

/// A gradient where the engine left it: reading it out is the comparison's need, not the work's.
pub(crate) enum Gradient {
    Values(Vec<f32>),
    #[cfg(feature = "tch")]
    Tch(tch::Tensor),
}

impl Gradient {
    /// The elements, row-major.
    pub(crate) fn into_values(self) -> Vec<f32> {
        match self {
            Gradient::Values(values) => values,
            #[cfg(feature = "tch")]
            Gradient::Tch(tensor) => Vec::try_from(tensor.contiguous().view([-1])).unwrap_or_default(),
        }
    }
}

/// One way of ours to do the work.
pub(crate) struct Contestant {
    /// `ndarray`, `autograd`, `tch`, or a variant of these.
    pub(crate) engine: &'static str,
    /// Does it once.
    pub(crate) call: Box<dyn FnMut() -> Result<Output, Stop>>,
}

impl Contestant {
    pub(crate) fn new(engine: &'static str, call: impl FnMut() -> Result<Output, Stop> + 'static) -> Self {
        Contestant { engine, call: Box::new(call) }
    }
}

/// How much work it is, for comparison with the machine's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Elements of single precision that must be read, and written.
    Memory { read: usize, written: usize },
    /// Floating-point operations, convolutions counted as direct ones.
    Arithmetic(f64),
}

/// One piece of work.
pub(crate) struct Subject {
    pub(crate) name: String,
    /// What the peer is told: `kind`, `wanted` (the tensor whose gradient is asked for), options.
    pub(crate) description: serde_json::Value,
    pub(crate) tensors: BTreeMap<&'static str, ArrayD<f32>>,
    pub(crate) work: Work,
    pub(crate) contestants: Vec<Contestant>,
    /// The largest relative deviation from the peer's single-precision value and gradient (Euclidean norm) that counts
    /// as the same result.
    pub(crate) tolerance: [f64; 2],
}

/// Numbers in [`low`, `high`) from a seed, by SplitMix64.
pub(crate) fn uniform(shape: &[usize], seed: u64, low: f32, high: f32) -> ArrayD<f32> {
    let mut state = seed;
    ArrayD::from_shape_simple_fn(shape, || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (high - low) * ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    })
}
