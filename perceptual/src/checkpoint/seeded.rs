//! Parameters made from a seed, for tests: the scheme `splitmix64` of the reference values.

/// The stream of one tensor.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    state: u64,
    role: Role,
}

/// What the last part of a rank-1 tensor's name makes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    RunningVar,
    Weight,
    BatchCount,
    Other,
}

impl Stream {
    /// The stream of the tensor `key`: SplitMix64 from `fnv1a64(key) XOR seed`.
    pub(super) fn new(key: &str, seed: u64) -> Stream {
        let role = match key {
            _ if key.ends_with("num_batches_tracked") => Role::BatchCount,
            _ if key.ends_with("running_var") => Role::RunningVar,
            _ if key.ends_with("weight") => Role::Weight,
            _ => Role::Other,
        };
        Stream { state: fnv1a64(key.as_bytes()) ^ seed, role }
    }

    /// The first `elements` values, computed in `f64` and rounded.
    pub(super) fn fill(&self, shape: &[usize], elements: usize) -> Vec<f32> {
        let mut state = self.state;
        // The fan-in of a convolution or a matrix: all axes but the first.
        let fan_in: f64 = shape.iter().skip(1).map(|&extent| extent as f64).product();
        let bound = (6.0 / fan_in).sqrt();
        let value = |u: f64| match (shape.len(), self.role) {
            (_, Role::BatchCount) => 0.0,
            (0, _) => (1.0f64 / 0.07).ln(),
            (1, Role::RunningVar) => 0.5 + u,
            (1, Role::Weight) => 0.5 + 0.5 * u,
            (1, Role::Other) => 0.1 * (2.0 * u - 1.0),
            _ => (2.0 * u - 1.0) * bound,
        };
        (0..elements).map(|_| value((split_mix(&mut state) >> 40) as f64 * 2f64.powi(-24)) as f32).collect()
    }
}

fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = *state;
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
