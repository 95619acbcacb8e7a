//! Finds the α of a composite by gradient descent, under composition and alpha losses weighed by a trimap.
//!
//! ```text
//! cargo run --release --example matting --features toml
//! cargo run --release --example matting --features toml,tch -- --engine tch
//! ```
//!
//! The cat is laid over the coffee with a soft, ragged matte; noise is added, and α is sought where a trimap is unsure.
//! Writes `matting.png` (composite, trimap, α as sought and as it is, their difference) and `error.png` (curves).

mod support;

use std::path::PathBuf;

use clap::Parser;
use image_losses::config::{self, BuildContext, Inputs, Registry, Syntax};
use image_losses::objective::Objective;
use image_losses::penalties::Draws;

use support::Outcome;
use support::descent::{Engine, constant, descend};
use support::picture::{CHELSEA, COFFEE, Picture};
use support::sheet::{Panel, curves, sheet};

/// Find the α of a composite.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The objective, in TOML; without it, `facade/examples/configurations/matting.toml`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Rows of the pictures.
    #[arg(long, default_value_t = 160)]
    pub height: usize,
    /// Steps of descent.
    #[arg(long, default_value_t = 150)]
    pub steps: usize,
    /// Seed of the noise.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = Engine::Ndarray)]
    pub engine: Engine,
    /// Where the pictures go.
    #[arg(long, value_name = "DIR", default_value = "target/examples/matting")]
    pub out: PathBuf,
}

/// A disc with tufts and a soft edge, in parts of the height.
fn matte(height: usize, width: usize) -> Picture {
    let scale = height as f32;
    Picture::of([1, height, width], |_, y, x| {
        let (dy, dx) = (y as f32 / scale - 0.5, (x as f32 - 0.5 * width as f32) / scale);
        let angle = dy.atan2(dx);
        let radius = 0.36 + 0.025 * (7.0 * angle).sin() + 0.03 * (23.0 * angle).sin() * (3.0 * angle).cos();
        let along = ((radius - dy.hypot(dx)) / 0.09 + 0.5).clamp(0.0, 1.0);
        along * along * (3.0 - 2.0 * along)
    })
}

/// The mean absolute error of α.
fn error(alpha: &Picture, truth: &Picture) -> f64 {
    let differences = alpha.values.iter().zip(&truth.values).map(|(x, y)| f64::from((x - y).abs()));
    differences.sum::<f64>() / truth.values.len() as f64
}

/// The mean absolute errors of α before and after.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Of the trimap.
    pub before: f64,
    /// Of what was found.
    pub after: f64,
}

/// Composes, finds α, writes the pictures.
pub fn run(arguments: &Arguments) -> Outcome<Found> {
    let document = match &arguments.config {
        Some(path) => config::read(path)?,
        None => config::parse(include_str!("configurations/matting.toml"), Syntax::Toml)?,
    };
    let [fg, bg] = [Picture::photograph(CHELSEA, arguments.height)?, Picture::photograph(COFFEE, arguments.height)?];
    let (height, width) = (fg.height, fg.width.min(bg.width));
    let [fg, bg] = [fg, bg].map(|picture| picture.crop([0, 0], [height, width]));
    let truth = matte(height, width);
    let noise = Draws::new(arguments.seed).normal_values(fg.values.len());
    let composite = Picture::of([3, height, width], |c, y, x| {
        let alpha = truth.at(0, y, x);
        let noise = noise[(c * height + y) * width + x] as f32;
        (alpha * fg.at(c, y, x) + (1.0 - alpha) * bg.at(c, y, x) + 0.01 * noise).clamp(0.0, 1.0)
    });
    let plane = |value: &dyn Fn(f32) -> f32| truth.with(truth.values.iter().map(|&alpha| value(alpha)).collect());
    let trimap = plane(&|alpha| if alpha <= 0.0 || alpha >= 1.0 { alpha } else { 0.5 });
    let sure = plane(&|alpha| f32::from(alpha <= 0.0 || alpha >= 1.0));
    let unsure = plane(&|alpha| f32::from(alpha > 0.0 && alpha < 1.0));

    let names = ["pred_alpha", "fg", "bg", "ori_merged", "alpha", "sure", "unsure"].map(str::to_owned).to_vec();
    let context = BuildContext { outputs: Some(names), ..BuildContext::default() };
    let mut objective = Objective::sum(&Registry::standard(), &document, "losses", &context)?;
    let bar = support::progress(arguments.steps);
    objective.notes().iter().for_each(|note| bar.println(format!("note: {note}")));
    let mut errors = Vec::with_capacity(arguments.steps);
    let alpha = descend(
        arguments.engine,
        &mut objective,
        &trimap,
        (arguments.steps, 0.05),
        |alpha| {
            let given = [("fg", &fg), ("bg", &bg), ("ori_merged", &composite), ("alpha", &trimap)];
            let mut given = given.into_iter().chain([("sure", &sure), ("unsure", &unsure)]);
            let offered = Inputs::new().tensor("pred_alpha", alpha.clone());
            given.try_fold(offered, |inputs, (name, picture)| Ok(inputs.tensor(name, constant(alpha, picture)?)))
        },
        |report, alpha| {
            errors.push(error(alpha, &truth));
            bar.set_message(format!("loss {:.5}", report.total));
            bar.inc(1);
        },
    )?;
    bar.finish_and_clear();
    let found = Found { before: error(&trimap, &truth), after: error(&alpha, &truth) };
    errors.push(found.after);

    let difference = alpha.with(alpha.values.iter().zip(&truth.values).map(|(x, y)| 4.0 * (x - y).abs()).collect());
    let lifted = Picture::of([3, height, width], |c, y, x| {
        let alpha = alpha.at(0, y, x);
        alpha * fg.at(c, y, x) + (1.0 - alpha)
    });
    let zoom = if arguments.height < 250 { 2 } else { 1 };
    let panels = [
        Panel::new("composite", "observed, with noise", &composite, zoom),
        Panel::new("trimap", format!("mean error {:.4}", found.before), &trimap, zoom),
        Panel::new("foreground, lifted out", "over white, by α as found", &lifted, zoom),
        Panel::new("α as found", format!("mean error {:.4}", found.after), &alpha, zoom),
        Panel::new("α as it is", "", &truth, zoom),
        Panel::new("difference", "four times enlarged", &difference, zoom),
    ];
    support::write_png(&arguments.out.join("matting.png"), &sheet(&panels, 3)?)?;
    let image = curves("Matting by descent on α", "mean absolute error of α", &[("α".to_owned(), errors)])?;
    support::write_png(&arguments.out.join("error.png"), &image)?;
    Ok(found)
}

#[allow(dead_code, reason = "the test of this file runs without it")]
fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let Found { before, after } = run(&arguments)?;
    println!("mean error of α {before:.4} in the trimap, {after:.4} as found; see {}", arguments.out.display());
    Ok(())
}
