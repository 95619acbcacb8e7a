//! The gallery's drawings as SVG, readable on light and on dark pages.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

const INK: RGBColor = RGBColor(0x20, 0x21, 0x24);
const FAINT: RGBColor = RGBColor(0xDD, 0xE0, 0xE4);
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x1F, 0x6F, 0xB4),
    RGBColor(0xC8, 0x55, 0x10),
    RGBColor(0x2C, 0x85, 0x46),
    RGBColor(0xA0, 0x32, 0x70),
    RGBColor(0x6A, 0x55, 0xBE),
];

/// Colours of light pages and what stands for them on dark ones, and the page's typeface.
const STYLE: &str = "<style>text{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif}\
    @media(prefers-color-scheme:dark){\
    [fill=\"#202124\"]{fill:#E3E6EA}[stroke=\"#202124\"]{stroke:#9AA4B0}\
    [fill=\"#DDE0E4\"]{fill:#39414B}[stroke=\"#DDE0E4\"]{stroke:#39414B}\
    [stroke=\"#1F6FB4\"]{stroke:#6CB2F0}[fill=\"#1F6FB4\"]{fill:#6CB2F0}\
    [stroke=\"#C85510\"]{stroke:#F39A5F}[fill=\"#C85510\"]{fill:#F39A5F}\
    [stroke=\"#2C8546\"]{stroke:#6CCB88}[fill=\"#2C8546\"]{fill:#6CCB88}\
    [stroke=\"#A03270\"]{stroke:#EB86BE}[fill=\"#A03270\"]{fill:#EB86BE}\
    [stroke=\"#6A55BE\"]{stroke:#AE9DF5}[fill=\"#6A55BE\"]{fill:#AE9DF5}}</style>";

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A curve with its name: place, value, derivative.
pub(super) type Curve = (&'static str, Vec<[f64; 3]>);

/// The width of strokes and letters is measured with a font that is compiled in.
fn text(size: u32) -> TextStyle<'static> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Only bytes that are no font are refused.
        let _ = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    });
    ("sans-serif", size).into_font().color(&INK)
}

/// Value on the left, gradient on the right.
pub(super) fn curves(title: &str, axis: &str, curves: &[Curve]) -> Result<String, String> {
    draw([860, 300], |root| {
        let (left, right) = root.split_horizontally(430);
        let value = if title.is_empty() { "value".to_owned() } else { format!("value of {title}") };
        panel(&left, &value, axis, curves, 1)?;
        panel(&right, "gradient", axis, curves, 2)
    })
}

fn panel(area: &Area<'_>, title: &str, axis: &str, curves: &[Curve], which: usize) -> Drawn {
    let numbers = || curves.iter().flat_map(|(_, points)| points).map(|point| point[which]);
    let (mut low, mut high) = (numbers().fold(0f64, f64::min), numbers().fold(0f64, f64::max));
    // A logarithm's pole leaves nothing else to see.
    if which == 2 && high - low > 100.0 {
        (low, high) = (-30.0, 30.0);
    }
    let room = 0.06 * (high - low).max(1e-9);
    let first = curves.first().and_then(|(_, points)| Some([points.first()?[0], points.last()?[0]]));
    let [from, to] = first.unwrap_or([0.0, 1.0]);
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(15))
        .margin(8)
        .margin_right(18)
        .x_label_area_size(40)
        .y_label_area_size(46)
        .build_cartesian_2d(from..to, low - room..high + room)?;
    chart
        .configure_mesh()
        .x_labels(7)
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(text(12))
        .axis_desc_style(text(13))
        .x_label_formatter(&|number| short(*number))
        .y_label_formatter(&|number| short(*number))
        .x_desc(axis)
        .draw()?;
    for ((name, points), colour) in curves.iter().zip(COLOURS.into_iter().cycle()) {
        // A derivative that jumps is two strokes.
        let jump = if which == 2 { 0.15 * (high - low) } else { f64::INFINITY };
        let within = points.iter().map(|point| (point[0], point[which]));
        let mut strokes: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
        for (place, number) in within.filter(|(_, number)| (low - room..=high + room).contains(number)) {
            let stroke = strokes.last().and_then(|stroke| stroke.last());
            if stroke.is_some_and(|(_, before)| (number - before).abs() > jump) {
                strokes.push(Vec::new());
            }
            strokes.last_mut().into_iter().for_each(|stroke| stroke.push((place, number)));
        }
        let mut named = false;
        for stroke in strokes.into_iter().filter(|stroke| stroke.len() > 1) {
            let drawn = chart.draw_series(LineSeries::new(stroke, colour.stroke_width(2)))?;
            if !name.is_empty() && which == 1 && !named {
                drawn
                    .label(*name)
                    .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(3)));
                named = true;
            }
        }
    }
    if which == 1 && curves.iter().any(|(name, _)| !name.is_empty()) {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperMiddle)
            .label_font(text(12))
            .margin(4)
            .draw()?;
    }
    Ok(())
}

/// Bars in groups: for each distortion the numbers of several losses, each relative to its loss's greatest.
pub(super) fn bars(losses: &[&str], groups: &[(&str, Vec<f64>)]) -> Result<String, String> {
    let all = || groups.iter().flat_map(|(_, numbers)| numbers).copied();
    let (low, high) = (all().fold(0f64, f64::min), all().fold(0f64, f64::max));
    draw([860, 230], |root| {
        let count = groups.len() as f64;
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(18)
            .x_label_area_size(28)
            .y_label_area_size(46)
            .build_cartesian_2d(0.0..count + 1.1, low * 1.08..high * 1.08)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(6)
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(FAINT)
            .label_style(text(12))
            .axis_desc_style(text(13))
            .y_desc("relative value")
            .y_label_formatter(&|number| short(*number))
            .draw()?;
        let width = 0.8 / losses.len() as f64;
        for (i, (name, colour)) in losses.iter().zip(COLOURS).enumerate() {
            let bars = groups.iter().enumerate().map(|(group, (_, numbers))| {
                let left = group as f64 + 0.1 + i as f64 * width;
                Rectangle::new([(left, 0.0), (left + 0.9 * width, numbers[i])], colour.filled())
            });
            chart
                .draw_series(bars)?
                .label(*name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(text(12))
            .margin(4)
            .draw()?;
        for (group, (name, _)) in groups.iter().enumerate() {
            let (x, _) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
            let centred = text(13).pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Center,
                plotters::style::text_anchor::VPos::Top,
            ));
            root.draw(&Text::new((*name).to_owned(), (x, 208), centred))?;
        }
        Ok(())
    })
}

fn draw([width, height]: [u32; 2], body: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        body(&root).and_then(|()| Ok(root.present()?)).map_err(|error| error.to_string())?;
    }
    let start = svg.find('>').map_or(0, |end| end + 1);
    svg.insert_str(start, STYLE);
    Ok(svg)
}

/// A number without needless zeros.
fn short(number: f64) -> String {
    let text = format!("{number:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.replace('-', "−") }
}
