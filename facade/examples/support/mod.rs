//! What the examples share: photographs, gradient descent on pixels, sheets of labelled pictures, files.
#![allow(dead_code, unreachable_pub, reason = "no example uses all of it; examples and their tests share it")]

#[cfg(all(feature = "ndarray", feature = "config"))]
pub mod descent;
pub mod picture;
pub mod sheet;

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

/// What an example ends with: an error is told in words.
pub type Outcome<T> = anyhow::Result<T>;

/// A bar with room for a message.
pub fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}");
    ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Writes a file beside its place and renames it, so that no half-written one is ever left there.
pub fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)?;
    Ok(())
}

/// Writes a picture as PNG.
pub fn write_png(path: &Path, image: &image::RgbImage) -> Outcome<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png)?;
    write(path, bytes.get_ref())
}
