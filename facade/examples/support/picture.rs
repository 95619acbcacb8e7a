//! Pictures as planes of numbers in [0, 1], and how far two are apart.

use std::io::Cursor;
use std::sync::Arc;

use image::{ImageReader, RgbImage, imageops};

use super::Outcome;

/// Planes of numbers, (1, C, H, W): one plane is grey, three are red, green and blue.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The numbers, row-major, plane after plane.
    pub values: Vec<f32>,
    /// How many planes.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Eileen Collins, NASA; public domain.
pub const ASTRONAUT: &[u8] = include_bytes!("../photographs/astronaut.png");
/// A cup of coffee, Rachel Michetti; CC0.
pub const COFFEE: &[u8] = include_bytes!("../photographs/coffee.png");
/// Chelsea the cat, Stefan van der Walt; CC0.
pub const CHELSEA: &[u8] = include_bytes!("../photographs/chelsea.png");

impl Picture {
    /// Decodes a photograph, scaled to a height.
    pub fn photograph(bytes: &[u8], height: usize) -> Outcome<Self> {
        let image = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.decode()?.to_rgb8();
        let width = (image.width() as usize * height).div_ceil(image.height() as usize);
        let image = imageops::resize(&image, width as u32, height as u32, imageops::FilterType::Lanczos3);
        let values = (0..3).flat_map(|channel| image.pixels().map(move |pixel| f32::from(pixel[channel]) / 255.0));
        Ok(Picture { values: values.collect(), channels: 3, height, width })
    }

    /// A picture of a function of channel, row and column.
    pub fn of(shape: [usize; 3], value: impl Fn(usize, usize, usize) -> f32) -> Self {
        let [channels, height, width] = shape;
        let places = (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))));
        Picture { values: places.map(|(c, y, x)| value(c, y, x)).collect(), channels, height, width }
    }

    /// The number at a place.
    pub fn at(&self, channel: usize, y: usize, x: usize) -> f32 {
        self.values[(channel * self.height + y) * self.width + x]
    }

    /// (1, C, H, W).
    pub fn shape(&self) -> [usize; 4] {
        [1, self.channels, self.height, self.width]
    }

    /// The numbers, to be shared with an engine.
    pub fn shared(&self) -> Arc<[f32]> {
        self.values.as_slice().into()
    }

    /// The same planes with other numbers.
    pub fn with(&self, values: Vec<f32>) -> Self {
        Picture { values, ..*self }
    }

    /// A rectangle of it.
    pub fn crop(&self, [top, left]: [usize; 2], [height, width]: [usize; 2]) -> Self {
        Picture::of([self.channels, height, width], |c, y, x| self.at(c, top + y, left + x))
    }

    /// Eight bits a channel; grey where there is one plane.
    pub fn to_image(&self) -> RgbImage {
        RgbImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            let byte = |channel: usize| {
                let value = self.at(channel.min(self.channels - 1), y as usize, x as usize);
                (value.clamp(0.0, 1.0) * 255.0).round() as u8
            };
            image::Rgb([byte(0), byte(1), byte(2)])
        })
    }
}

/// The peak signal-to-noise ratio in decibels, of pictures in [0, 1].
pub fn psnr(prediction: &Picture, target: &Picture) -> f64 {
    let squares = prediction.values.iter().zip(&target.values).map(|(x, y)| f64::from(x.clamp(0.0, 1.0) - y).powi(2));
    -10.0 * (squares.sum::<f64>() / target.values.len() as f64).log10()
}
