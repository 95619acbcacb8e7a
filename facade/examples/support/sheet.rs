//! Sheets: labelled pictures side by side, and curves.

use std::sync::Once;

use anyhow::Context;
use image::{RgbImage, imageops};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::Outcome;
use super::picture::Picture;

const INK: RGBColor = RGBColor(32, 33, 36);
const FAINT: RGBColor = RGBColor(222, 224, 228);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 96, 20),
    RGBColor(44, 140, 70),
    RGBColor(170, 50, 120),
    RGBColor(110, 90, 190),
    RGBColor(120, 110, 60),
];

/// Space around panels, and the height of their captions.
const MARGIN: u32 = 16;
const CAPTION: u32 = 52;

/// Text is drawn with a font that is compiled in: nothing needs to be installed.
pub fn fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, bytes) in [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())] {
            // Only bytes that are no font are refused.
            let _ = register_font("sans-serif", style, bytes);
        }
    });
}

fn bold(size: u32) -> TextStyle<'static> {
    ("sans-serif", size, FontStyle::Bold).into_font().color(&INK)
}

fn plain(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// A picture with a title and a line below it.
#[derive(Clone, Debug)]
pub struct Panel {
    title: String,
    note: String,
    image: RgbImage,
}

impl Panel {
    /// A panel of a picture, magnified by a whole factor.
    pub fn new(title: impl Into<String>, note: impl Into<String>, picture: &Picture, zoom: u32) -> Self {
        let image = picture.to_image();
        let (width, height) = (zoom * image.width(), zoom * image.height());
        let image = imageops::resize(&image, width, height, imageops::FilterType::Nearest);
        Panel { title: title.into(), note: note.into(), image }
    }
}

/// Panels in rows of so many.
pub fn sheet(panels: &[Panel], columns: usize) -> Outcome<RgbImage> {
    fonts();
    let widest = panels.iter().map(|panel| panel.image.width()).max().unwrap_or(1);
    let tallest = panels.iter().map(|panel| panel.image.height()).max().unwrap_or(1);
    let (columns, rows) = (columns.clamp(1, panels.len().max(1)) as u32, panels.len().div_ceil(columns.max(1)) as u32);
    let (cell, line) = (widest + MARGIN, tallest + CAPTION + MARGIN);
    let place = |i: usize| ((i as u32 % columns) * cell + MARGIN, (i as u32 / columns) * line + MARGIN);
    let mut image = drawn([columns * cell + MARGIN, rows * line + MARGIN], |root| {
        for (i, panel) in panels.iter().enumerate() {
            let (x, y) = place(i);
            let (x, y) = (x as i32, (y + panel.image.height() + 8) as i32);
            root.draw(&Text::new(panel.title.clone(), (x, y), bold(17)))?;
            root.draw(&Text::new(panel.note.clone(), (x, y + 22), plain(15)))?;
        }
        Ok(())
    })?;
    for (i, panel) in panels.iter().enumerate() {
        let (x, y) = place(i);
        imageops::replace(&mut image, &panel.image, i64::from(x), i64::from(y));
    }
    Ok(image)
}

/// A named curve over steps.
pub type Curve = (String, Vec<f64>);

/// Curves over steps with a legend.
pub fn curves(title: &str, vertical: &str, curves: &[Curve]) -> Outcome<RgbImage> {
    fonts();
    let all = || curves.iter().flat_map(|(_, values)| values).copied().filter(|value| value.is_finite());
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let room = 0.05 * (high - low).max(1e-6);
    let steps = curves.iter().map(|(_, values)| values.len()).max().unwrap_or(1).max(2);
    drawn([900, 520], |root| {
        let mut chart = ChartBuilder::on(root)
            .caption(title, bold(20))
            .margin(MARGIN)
            .x_label_area_size(46)
            .y_label_area_size(70)
            .build_cartesian_2d(0..steps, low - room..high + room)?;
        chart
            .configure_mesh()
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(plain(14))
            .axis_desc_style(plain(15))
            .x_desc("step")
            .y_desc(vertical)
            .draw()?;
        for ((name, values), colour) in curves.iter().zip(COLOURS.into_iter().cycle()) {
            chart
                .draw_series(LineSeries::new(values.iter().copied().enumerate(), colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleRight)
            .background_style(WHITE.mix(0.9))
            .border_style(FAINT)
            .label_font(plain(14))
            .margin(10)
            .draw()?;
        Ok(())
    })
}

/// A white picture of a size, drawn upon.
pub fn drawn(
    [width, height]: [u32; 2],
    draw: impl FnOnce(&DrawingArea<BitMapBackend<'_>, plotters::coord::Shift>) -> Outcome<()>,
) -> Outcome<RgbImage> {
    fonts();
    let mut buffer = vec![0; 3 * (width * height) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut buffer, (width, height)).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
    }
    RgbImage::from_raw(width, height, buffer).context("a buffer of another size")
}
