//! The example `matting` finds α: few steps on small photographs.

#[path = "../../examples/matting.rs"]
#[allow(unreachable_pub, reason = "public in the example, private here")]
mod example;

use clap::Parser;
use example::{Arguments, run};

fn finds(engine: &str) {
    let out = std::env::temp_dir().join(format!("image-losses-{}-matting-{engine}", std::process::id()));
    let words = ["matting", "--height", "64", "--steps", "60", "--engine", engine, "--out"];
    let found = run(&Arguments::parse_from(words.iter().copied().chain(out.to_str()))).unwrap();
    let sheet = image::open(out.join("matting.png")).unwrap();
    let names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|file| file.unwrap().file_name()).collect();
    std::fs::remove_dir_all(&out).unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(sheet.width() > 3 * 2 * 64 && sheet.height() > 2 * 2 * 64);
    // Measured: the trimap's mean error of 0.0432 falls to 0.0031.
    assert!(found.after < 0.1 * found.before, "{found:?}");
}

#[test]
fn alpha_is_found_on_arrays() {
    finds("ndarray");
}

#[cfg(feature = "tch")]
#[test]
fn alpha_is_found_on_tch() {
    finds("tch");
}
