//! How the time grows: threads, image sizes and batches, as a table and a picture.

use std::path::Path;
use std::process::{Command, Stdio};

use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use serde_json::Value;

use super::pointwise;
use super::subject::Case;
use crate::{Outcome, Stop};

/// The numbers of threads that are compared.
const THREADS: [usize; 2] = [1, 2];
/// Heights and widths, at a batch of 4.
const SIZES: [usize; 5] = [64, 128, 256, 512, 1024];
/// Batches, at 256×256.
const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];
/// What the names of these cases begin with.
pub(super) const PREFIX: &str = "scaling/";
/// The engine that is drawn.
const ENGINE: &str = "ndarray";

/// The Charbonnier loss in every size and batch.
pub(super) fn cases() -> Vec<Case> {
    let sizes = SIZES.map(|size| [4, 3, size, size]);
    let batches = BATCHES.map(|batch| [batch, 3, 256, 256]);
    let mut shapes: Vec<[usize; 4]> = sizes.into_iter().chain(batches).collect();
    shapes.sort_unstable();
    shapes.dedup();
    let charbonnier = |shape| pointwise::of_shape(shape).into_iter().find(|case| case.name.contains("/charbonnier"));
    let renamed = |case: Case| Case { name: case.name.replace("pointwise/", PREFIX), ..case };
    shapes.into_iter().filter_map(charbonnier).map(renamed).collect()
}

/// Milliseconds of a call of ours and of PyTorch's.
struct Point {
    shape: [usize; 4],
    threads: usize,
    ours: f64,
    eager: f64,
}

/// Measures with each number of threads, in a process of its own, prints a table and draws a picture.
pub(super) fn run(picture: &Path, rounds: usize) -> Result<Outcome, Stop> {
    let mut points = Vec::new();
    for threads in THREADS {
        points.extend(measure(threads, rounds)?);
    }
    println!("| images | threads | ours (ms) | PyTorch eager (ms) | ratio |\n|---|---|---|---|---|");
    for Point { shape: [n, c, h, w], threads, ours, eager } in &points {
        println!("| {n}×{c}×{h}×{w} | {threads} | {ours:.3} | {eager:.3} | {:.1} |", eager / ours);
    }
    draw(picture, &points).map_err(|error| format!("{}: {error}", picture.display()))?;
    println!("\ndrawn to {}", picture.display());
    Ok(Outcome::Success)
}

/// Runs this program again with so many threads.
fn measure(threads: usize, rounds: usize) -> Result<Vec<Point>, Stop> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["bench", "--format", "json", "--no-compile", "--filter", &format!("{PREFIX}*")])
        .args(["--threads", &threads.to_string(), "--rounds", &rounds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let point = |row: &Value| {
        let extents: Vec<usize> =
            row["name"].as_str()?.split(' ').next_back()?.split('×').filter_map(|part| part.parse().ok()).collect();
        let milliseconds = |field: &str| row[field].as_f64().map(|seconds| seconds * 1e3);
        Some(Point {
            shape: extents.try_into().ok()?,
            threads,
            ours: milliseconds("ours")?,
            eager: milliseconds("eager")?,
        })
    };
    Ok(rows.iter().filter(|row| row["engine"] == ENGINE).filter_map(point).collect())
}

/// Two panels: by size and by batch.
fn draw(path: &Path, points: &[Point]) -> Result<(), Box<dyn std::error::Error>> {
    // A second registration changes nothing.
    let _ = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    let (width, height) = (1200, 520);
    let mut pixels = vec![0; 3 * (width * height) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let panels = root.split_evenly((1, 2));
        let by_size = |point: &Point| (point.shape[0] == 4).then_some(point.shape[2]);
        let by_batch = |point: &Point| (point.shape[2] == 256).then_some(point.shape[0]);
        panel(&panels[0], points, "4×3×S×S", "height and width S", &SIZES, by_size)?;
        panel(&panels[1], points, "N×3×256×256", "batch N", &BATCHES, by_batch)?;
        root.present()?;
    }
    // Written beside its place and moved there: an interruption leaves no half a picture.
    let partial = path.with_extension("partial.png");
    image::save_buffer(&partial, &pixels, width, height, image::ExtendedColorType::Rgb8)?;
    std::fs::rename(&partial, path)?;
    Ok(())
}

/// Time over one extent, both axes logarithmic.
fn panel<D: DrawingBackend>(
    area: &DrawingArea<D, plotters::coord::Shift>,
    points: &[Point],
    shape: &str,
    label: &str,
    extents: &[usize],
    extent: impl Fn(&Point) -> Option<usize>,
) -> Result<(), Box<dyn std::error::Error>>
where
    D::ErrorType: 'static,
{
    let (first, last) = (extents[0] as f64, extents[extents.len() - 1] as f64);
    let shown: Vec<&Point> = points.iter().filter(|point| extent(point).is_some()).collect();
    let times = || shown.iter().flat_map(|point| [point.ours, point.eager]);
    let (low, high) = (times().fold(f64::MAX, f64::min) / 1.5, times().fold(0.0, f64::max) * 1.5);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("Charbonnier, value and gradient, {shape}"), ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((first * 0.9..last * 1.1).log_scale().base(2.0), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(label)
        .y_desc("milliseconds")
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value}"))
        .draw()?;
    let series = [("ours", RGBColor(0, 90, 160)), ("PyTorch eager", RGBColor(200, 80, 0))];
    for (index, (name, colour)) in series.into_iter().enumerate() {
        for threads in THREADS {
            let time = |point: &Point| if index == 0 { point.ours } else { point.eager };
            let mut line: Vec<(f64, f64)> = shown
                .iter()
                .filter(|point| point.threads == threads)
                .filter_map(|point| Some((extent(point)? as f64, time(point))))
                .collect();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            let style = if threads == 1 { colour.mix(0.45) } else { colour.mix(1.0) }.stroke_width(3);
            chart
                .draw_series(LineSeries::new(line, style).point_size(3))?
                .label(format!("{name}, {threads} thread{}", if threads == 1 { "" } else { "s" }))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
