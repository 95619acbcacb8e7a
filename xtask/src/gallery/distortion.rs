//! One photograph, distorted in five ways to the same mean squared error.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageReader, RgbImage, imageops};
use image_losses::AnyTensor;
use image_losses::config::{Component, Inputs, Kind};
use image_losses::core::Tensor;
use image_losses::ndarray::NdTensor;
use image_losses::penalties::Draws;

use super::scene::total;

/// All have this peak signal-to-noise ratio, as nearly as eight bits allow.
pub(super) const DECIBELS: f64 = 25.0;

/// A picture with its name.
#[derive(Clone, Debug)]
pub(super) struct Distortion {
    pub(super) name: &'static str,
    pub(super) image: RgbImage,
}

/// The photograph first, then its distortions.
pub(super) fn all() -> Result<Vec<Distortion>, String> {
    let bytes = include_bytes!("../../../facade/examples/photographs/astronaut.png");
    let image = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    let image = image.decode().map_err(|error| error.to_string())?.to_rgb8();
    let photograph = imageops::resize(&image, 128, 128, imageops::FilterType::Lanczos3);
    let noise = Draws::new(7).normal_values(photograph.len());
    let noisy = |strength: f64| {
        let mut image = photograph.clone();
        for (byte, noise) in image.iter_mut().zip(&noise) {
            *byte = (f64::from(*byte) + 255.0 * strength * noise).round().clamp(0.0, 255.0) as u8;
        }
        Ok(image)
    };
    let blurred = |strength: f64| Ok(imageops::blur(&photograph, (8.0 * strength) as f32));
    let shifted = |strength: f64| {
        let pixels = 10.0 * strength;
        Ok(RgbImage::from_fn(128, 128, |x, y| {
            let from = (f64::from(x) - pixels).max(0.0);
            let (left, part) = (from.floor() as u32, from.fract());
            let pair = [photograph.get_pixel(left, y), photograph.get_pixel((left + 1).min(127), y)];
            let mix = |c: usize| ((1.0 - part) * f64::from(pair[0][c]) + part * f64::from(pair[1][c])).round() as u8;
            image::Rgb([mix(0), mix(1), mix(2)])
        }))
    };
    let compressed = |strength: f64| {
        let quality = (100.0 * (1.0 - strength)).round().clamp(1.0, 100.0) as u8;
        let mut bytes = Vec::new();
        let written = JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&photograph);
        written.map_err(|error| error.to_string())?;
        let image = image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg);
        image.map(|image| image.to_rgb8()).map_err(|error| error.to_string())
    };
    let faded = |strength: f64| {
        let mut image = photograph.clone();
        image.iter_mut().for_each(|byte| *byte = (128.0 + (f64::from(*byte) - 128.0) * (1.0 - strength)).round() as u8);
        Ok(image)
    };
    let distort = |name, distorted: &dyn Fn(f64) -> Result<RgbImage, String>| -> Result<Distortion, String> {
        // The error grows with the strength: halve the interval.
        let (mut low, mut high) = (0.001, 0.999);
        for _ in 0..24 {
            let middle = 0.5 * (low + high);
            if psnr(&distorted(middle)?, &photograph) > DECIBELS { low = middle } else { high = middle }
        }
        Ok(Distortion { name, image: distorted(low)? })
    };
    Ok(vec![
        Distortion { name: "photograph", image: photograph.clone() },
        distort("noise", &noisy)?,
        distort("blur", &blurred)?,
        distort("shift", &shifted)?,
        distort("JPEG", &compressed)?,
        distort("contrast", &faded)?,
    ])
}

/// The peak signal-to-noise ratio of two pictures of one size, in decibels.
pub(super) fn psnr(x: &RgbImage, y: &RgbImage) -> f64 {
    let squares = x.iter().zip(y.iter()).map(|(&x, &y)| ((f64::from(x) - f64::from(y)) / 255.0).powi(2));
    -10.0 * (squares.sum::<f64>() / x.len() as f64).log10()
}

/// The value of a loss between a picture and the photograph, both in [0, 1]; of the picture alone where the loss takes
/// no more.
pub(super) fn value(component: &mut Component, x: &RgbImage, photograph: &RgbImage) -> Result<f64, String> {
    let planes = |image: &RgbImage| {
        let values = (0..3).flat_map(|c| image.pixels().map(move |pixel| f64::from(pixel[c]) / 255.0));
        NdTensor::<f64>::constant(&(), &values.collect::<Vec<_>>(), &[1, 3, 128, 128]).map(AnyTensor::from)
    };
    let arguments = component.arguments();
    let named = arguments.iter().filter(|argument| argument.required && argument.kind == Kind::Tensor);
    let evaluated = (|| {
        let mut inputs = Inputs::new();
        for (argument, image) in named.zip([x, photograph]) {
            inputs = inputs.tensor(argument.name, planes(image)?);
        }
        if let Some(text) = arguments.iter().find(|argument| argument.kind == Kind::Tokens) {
            inputs = inputs.tokens(text.name, vec![vec![8, 3, 9, 0]]);
        }
        total(component, &inputs)?.values()
    })();
    evaluated.map(|values| values[0]).map_err(|error| error.to_string())
}
