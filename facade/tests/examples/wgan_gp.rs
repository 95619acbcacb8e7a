//! The example `wgan_gp` converges: with a fixed seed it finds every mode of the mixture.

#[path = "../../examples/wgan_gp.rs"]
#[allow(unreachable_pub, reason = "public in the example, private here")]
mod example;

use example::{Arrays, Engine, plot, train};

/// The measure: modes with at least a quarter of their fair share of the samples within three standard deviations, and
/// the fraction of samples within three standard deviations of some mode.
fn converges(engine: &impl Engine, name: &str) {
    let untrained = train(engine, 0, 1, |_| ()).unwrap().coverage;
    assert!(untrained.modes < 4 && untrained.high_quality < 0.3, "{untrained:?}");
    let mut steps = 0;
    let trained = train(engine, 1000, 1, |losses| steps = losses.len()).unwrap();
    assert_eq!((steps, trained.losses.len(), trained.samples.len()), (1000, 1000, 4000));
    // Samples spread evenly along the ring would cover all modes too, with 0.77 of them near one: each mode's circle
    // cuts 4·asin(0.15) of the ring's angle, and 8·4·asin(0.15)/2π = 0.77. The modes must be told apart.
    assert!(trained.coverage.modes == 8 && trained.coverage.high_quality > 0.8, "{:?}", trained.coverage);
    let path = std::env::temp_dir().join(format!("image-losses-{}-{name}.png", std::process::id()));
    plot(&trained, path.to_str().unwrap()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000);
}

#[test]
fn every_mode_is_found_on_arrays() {
    converges(&Arrays, "arrays");
}

#[cfg(feature = "tch")]
#[test]
fn every_mode_is_found_on_tch() {
    converges(&example::Torch, "tch");
}
