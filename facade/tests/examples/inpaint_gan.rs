//! The example `inpaint_gan` learns to fill in: few steps, under its own objective and with the other adversarial loss.

#[path = "../../examples/inpaint_gan.rs"]
#[allow(unreachable_pub, reason = "public in the example, private here")]
mod example;

use clap::Parser;
use example::{Arguments, run};

fn learns(name: &str, edited: Option<(&str, &str)>) {
    let out = std::env::temp_dir().join(format!("image-losses-{}-inpaint-{name}", std::process::id()));
    std::fs::create_dir_all(&out).unwrap();
    let mut words = vec!["inpaint_gan", "--steps", "30", "--out"];
    words.extend(out.to_str());
    let file = out.join("objective.toml");
    if let Some((from, to)) = edited {
        let document = include_str!("../../examples/configurations/inpaint_gan.toml");
        assert!(document.contains(from));
        std::fs::write(&file, document.replace(from, to)).unwrap();
        words.extend(["--config"].into_iter().chain(file.to_str()));
    }
    let inpainted = run(&Arguments::parse_from(words)).unwrap();
    let sheet = image::open(out.join("inpaint_gan.png")).unwrap();
    let names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|file| file.unwrap().file_name()).collect();
    std::fs::remove_dir_all(&out).unwrap();
    assert_eq!(names.len(), 3 + usize::from(edited.is_some()), "{names:?}");
    assert!(sheet.width() > 6 * 3 * 64 && sheet.height() > 3 * 3 * 64);
    assert!(inpainted.after > inpainted.before + 1.0, "{inpainted:?}");
}

#[test]
fn holes_are_filled_under_the_soft_mask_loss() {
    learns("smgan", None);
}

#[test]
fn holes_are_filled_under_the_hinge_loss() {
    learns("hinge", Some(("gan_type = \"smgan\"", "gan_type = \"hinge\"")));
}
