//! The instruction set, chosen at run time.
//!
//! A kernel is one generic function, compiled once per instruction set. Nothing is contracted or reordered by itself, so
//! that every one of them computes the same bits: where a kernel says `mul_add` it is fused on each of them, by an
//! instruction or, where there is none, by the library. What comes from the C library is chosen by that itself;
//! the crate's documentation lists it.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use crate::once::get_or_make;

/// An instruction set that kernels are compiled for.
///
/// The environment variable `IMAGE_LOSSES_ISA` (`avx512`, `avx2`, `portable`), read once, forces a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the target guarantees; on aarch64 that includes NEON, with which the compiler vectorises the kernels there.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, VL, DQ and BW.
    Avx512,
}

/// The best instruction set of this machine, or the one the environment asks for if the machine has it.
pub fn detect() -> Isa {
    static CHOICE: OnceLock<Isa> = OnceLock::new();
    *get_or_make(&CHOICE, || {
        let best = available();
        match std::env::var("IMAGE_LOSSES_ISA").as_deref() {
            Ok("portable") => Isa::Portable,
            Ok("avx2") => best.min(Isa::Avx2),
            _ => best,
        }
    })
}

/// The best instruction set that this machine has.
pub fn available() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("fma")
        {
            return Isa::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Isa::Avx2;
        }
    }
    Isa::Portable
}

/// A loop that [`run`] compiles for each instruction set; implement `run` with `#[inline(always)]`.
pub(crate) trait Kernel {
    /// The loop.
    fn run(self);
}

/// Runs `kernel`, compiled for `isa`; one that the machine lacks falls back to what it has.
#[inline]
pub(crate) fn run(isa: Isa, kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        fn avx512(kernel: impl Kernel) {
            kernel.run();
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(kernel: impl Kernel) {
            kernel.run();
        }
        match isa.min(available_once()) {
            // SAFETY: `min` with what was detected leaves only instruction sets that this machine has.
            Isa::Avx512 => return unsafe { avx512(kernel) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2(kernel) },
            Isa::Portable => {}
        }
    }
    let _ = isa;
    kernel.run();
}

/// [`available`], asked once.
#[cfg(target_arch = "x86_64")]
pub(super) fn available_once() -> Isa {
    static BEST: OnceLock<Isa> = OnceLock::new();
    *get_or_make(&BEST, available)
}
