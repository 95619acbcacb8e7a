//! `cargo xtask gallery`: one page with every loss, its formula, its options, and plots of what it does.

mod distortion;
mod figures;
mod folder;
mod options;
mod page;
mod plot;
mod scene;

use std::path::{Path, PathBuf};

use clap::Args;
use image::{GrayImage, RgbImage};
use image_losses::AnyTensor;
use image_losses::config::{Inputs, Outcome as Evaluated, Registry, schema};
use image_losses::core::Tensor;
use image_losses::ndarray::NdTensor;
use serde_json::Value;

use crate::losses::Listed;
use crate::{Outcome, Stop, escape};
use distortion::Distortion;
use figures::Figure;
use folder::Files;
use page::{Drawing, Section};

/// The options.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail where a file is not what would be written.
    #[arg(long)]
    check: bool,
    /// Where the page lies; without it, `docs/gallery`. The folder is empty, not there, or one that an earlier run wrote: its
    /// `.gallery` lists what the next run may overwrite and delete. Links are not followed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Stop> {
    let standard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gallery");
    let folder = arguments.out.clone().unwrap_or(standard);
    let registry = Registry::standard();
    let losses = crate::losses::all();
    let files = files(&registry, &losses)?;
    if arguments.check {
        let differences = folder::differences(&files, &folder)?;
        differences.iter().for_each(|difference| eprintln!("{}", escape::line(difference)));
        if !differences.is_empty() {
            eprintln!("`cargo xtask gallery` writes it anew");
            return Ok(Outcome::Failure);
        }
        println!("{} losses, {} files, all up to date", losses.len(), files.len());
        return Ok(Outcome::Success);
    }
    folder::write(&files, &folder)?;
    let size = files.values().map(Vec::len).sum::<usize>() / 1024;
    println!("{} losses, {} files, {size} KiB in {}", losses.len(), files.len(), folder.display());
    Ok(Outcome::Success)
}

/// All files of the gallery.
fn files(registry: &Registry, losses: &[Listed]) -> Result<Files, Stop> {
    let mut files = Files::new();
    let pictures = distortion::all()?;
    let Some(Distortion { image: photograph, .. }) = pictures.first() else { return Err("no photograph".to_owned()) };
    let mut shown = Vec::new();
    for Distortion { name, image } in &pictures {
        let decibels = distortion::psnr(image, photograph);
        let note = if decibels.is_finite() { format!("{decibels:.1} dB") } else { String::new() };
        shown.push([picture_file(name), (*name).to_owned(), note]);
        files.insert(picture_file(name), png(image)?);
    }
    let schema = schema(registry);
    let mut sections = Vec::new();
    for &loss in losses {
        let (note, figures) = figures::of(loss.name).map_or(("", &[][..]), |known| (known.note, known.figures));
        let mut drawings = Vec::new();
        for (i, figure) in figures.iter().enumerate() {
            let stem = if figures.len() == 1 { loss.name.to_owned() } else { format!("{}-{}", loss.name, i + 1) };
            drawings.extend(draw(loss.name, &stem, figure, &pictures, &mut files)?);
        }
        sections.push(Section { loss, note, choices: options::options(&schema, loss.name), drawings });
    }
    files.insert("index.html".to_owned(), page::html(&sections, &shown).into_bytes());
    files.insert("README.md".to_owned(), page::markdown(&sections, &shown).into_bytes());
    files.insert("style.css".to_owned(), include_bytes!("style.css").to_vec());
    Ok(files)
}

fn picture_file(name: &str) -> String {
    format!("pictures/{}.png", name.to_lowercase())
}

/// How many places of a curve are evaluated; even, so that none is the corner at zero.
const PLACES: usize = 240;

/// Draws a figure; its files join the others.
fn draw(
    name: &str,
    stem: &str,
    figure: &Figure,
    pictures: &[Distortion],
    files: &mut Files,
) -> Result<Vec<Drawing>, Stop> {
    match figure {
        Figure::Curves { axis, range: [low, high], curves } => {
            let mut drawn = Vec::new();
            for (label, options, scene) in *curves {
                let mut component = scene::build(name, options)?;
                let points = (0..PLACES).map(|i| {
                    let place = low + (high - low) * i as f64 / (PLACES - 1) as f64;
                    let [value, derivative] = scene::at(*scene, &mut component, place)?;
                    Ok([place, value, derivative])
                });
                let points = points.collect::<image_losses::core::Result<Vec<_>>>();
                drawn.push((*label, points.map_err(|error| format!("{name}: {error}"))?));
            }
            let title = variant(name, curves.first().map_or("{}", |(_, options, _)| options));
            let file = format!("plots/{stem}.svg");
            files.insert(file.clone(), plot::curves(&title, axis, &drawn)?.into_bytes());
            let caption = format!("{title}: value and gradient against the {axis}.");
            Ok(vec![Drawing::Plot { file, caption }])
        }
        Figure::Ranking(options) => {
            let rises = rises(name, options, pictures)?;
            let mut order: Vec<usize> = (0..rises.len()).collect();
            order.sort_by(|&a, &b| rises[a].total_cmp(&rises[b]));
            let item = |&i: &usize| {
                let name = pictures[i + 1].name;
                [picture_file(name), name.to_owned(), signed(rises[i])]
            };
            let chosen = if *options == "{}" { String::new() } else { format!(" with {options}") };
            let caption =
                format!("What {name}{chosen} minds least to most; below, its rise above the photograph's value.");
            let strip = Drawing::Strip { items: order.iter().map(item).collect(), caption };

            let mut losses = vec![(name, *options)];
            losses.extend([("L1Loss", "{}"), ("MSELoss", "{}")].into_iter().filter(|(other, _)| *other != name));
            let mut groups: Vec<(&str, Vec<f64>)> = order.iter().map(|&i| (pictures[i + 1].name, Vec::new())).collect();
            for (loss, options) in &losses {
                let rises = self::rises(loss, options, pictures)?;
                let greatest =
                    rises.iter().fold(0f64, |greatest, rise| greatest.max(rise.abs())).max(f64::MIN_POSITIVE);
                for ((_, numbers), &i) in groups.iter_mut().zip(&order) {
                    numbers.push(rises[i] / greatest);
                }
            }
            let file = format!("plots/{stem}.svg");
            let names: Vec<&str> = losses.iter().map(|(name, _)| *name).collect();
            files.insert(file.clone(), plot::bars(&names, &groups)?.into_bytes());
            let caption = "Each loss relative to its own greatest rise.".to_owned();
            Ok(vec![strip, Drawing::Plot { file, caption }])
        }
        Figure::Filter(choices) => {
            let mask = |y: usize, x: usize| f64::from((24..72).contains(&y) && (16..80).contains(&x) && x + y > 60);
            let values: Vec<f64> = (0..96 * 96).map(|i| mask(i / 96, i % 96)).collect();
            let mut items = Vec::new();
            let mut add = |label: &str, values: &[f64]| {
                let file = format!("pictures/{stem}-{}.png", items.len());
                let byte = |value: &f64| (255.0 * value.clamp(0.0, 1.0)).round() as u8;
                let image = GrayImage::from_raw(96, 96, values.iter().map(byte).collect());
                let image = image::DynamicImage::ImageLuma8(image.unwrap_or_default()).to_rgb8();
                files.insert(file.clone(), png(&image)?);
                items.push([file, label.to_owned(), String::new()]);
                Ok::<(), Stop>(())
            };
            add("mask", &values)?;
            for (label, options) in *choices {
                let mut filter = scene::build(name, options)?;
                let filtered = NdTensor::<f64>::constant(&(), &values, &[1, 1, 96, 96])
                    .and_then(|mask| filter.evaluate(&Inputs::new().tensor("x", AnyTensor::from(mask))))
                    .and_then(|outcome| match outcome {
                        Evaluated::Value(filtered) => filtered.values(),
                        _ => Ok(Vec::new()),
                    });
                add(label, &filtered.map_err(|error| format!("{name}: {error}"))?)?;
            }
            Ok(vec![Drawing::Strip {
                items,
                caption: "A mask of 96×96 pixels, and what the filter makes of it.".to_owned(),
            }])
        }
    }
}

/// How much each distortion raises a loss above its value for the photograph.
fn rises(name: &str, options: &str, pictures: &[Distortion]) -> Result<Vec<f64>, Stop> {
    let mut component = scene::build(name, options)?;
    let [Distortion { image: photograph, .. }, distorted @ ..] = pictures else {
        return Err("no photograph".to_owned());
    };
    let mut value = |image: &RgbImage| {
        distortion::value(&mut component, image, photograph).map_err(|error| format!("{name}: {error}"))
    };
    let base = value(photograph)?;
    distorted.iter().map(|distortion| Ok(value(&distortion.image)? - base)).collect()
}

/// A number with its sign and three digits.
fn signed(number: f64) -> String {
    let text = if (0.001..1000.0).contains(&number.abs()) {
        let decimals = (2 - number.abs().log10().floor() as i32).max(0) as usize;
        format!("{number:+.decimals$}")
    } else {
        format!("{number:+.2e}")
    };
    text.replace('-', "−")
}

/// The loss, or its kind where it has some.
fn variant(name: &str, options: &str) -> String {
    let kind = serde_json::from_str::<Value>(options)
        .ok()
        .and_then(|options| Some(options.get("gan_type")?.as_str()?.to_owned()));
    kind.unwrap_or_else(|| name.to_owned())
}

fn png(image: &RgbImage) -> Result<Vec<u8>, Stop> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).map_err(|error| error.to_string())?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Vec<&'static str> {
        Registry::standard().types().map(|entry| entry.name()).collect()
    }

    #[test]
    fn every_loss_of_the_registry_is_listed_and_every_figure_is_of_one() {
        let listed: Vec<&str> =
            crate::losses::all().iter().flat_map(|loss| loss.aliases.iter().copied().chain([loss.name])).collect();
        assert!(types().iter().all(|name| listed.contains(name)), "{listed:?}");
        assert_eq!(listed.len(), types().len());
        for figures in figures::FIGURES {
            assert!(listed.contains(&figures.name), "{}", figures.name);
        }
        assert!(
            crate::losses::all().iter().all(|loss| !loss.about.summary.is_empty() && !loss.about.source.is_empty())
        );
    }

    #[test]
    fn every_option_has_a_meaning() {
        let schema = schema(&Registry::standard());
        for name in types() {
            let choices = options::options(&schema, name);
            assert!(!choices.is_empty(), "{name}");
            assert!(choices.iter().all(|choice| !choice.meaning.is_empty()), "{name}: {choices:?}");
        }
    }

    /// The derivative of a curve is that of its value: Charbonnier's at 1, d/√(d² + ε) with ε = ¼.
    #[test]
    fn a_curve_is_the_loss_and_its_gradient() {
        let mut component = scene::build("CharbonnierLoss", r#"{"eps": 0.25}"#).unwrap();
        let [value, derivative] = scene::at(scene::Scene::Error, &mut component, 1.0).unwrap();
        assert!((value - 1.25f64.sqrt()).abs() < 1e-12 && (derivative - 1.0 / 1.25f64.sqrt()).abs() < 1e-12);
    }
}
