//! The step of StyleGAN2 on arrays and on tch.

#[path = "../../examples/stylegan2.rs"]
#[allow(unreachable_pub, reason = "public in the example, private here")]
mod example;

use image_losses::objective::Report;

/// All terms are there when they are due, and one of the generator's falls.
fn check(reports: &[Report], falls: &str) {
    let [first_d, first_g, .., last_d, last_g] = reports else { panic!("{reports:?}") };
    let names = |report: &Report| report.terms.iter().map(|term| term.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(first_d), ["loss_disc_fake", "loss_disc_real", "loss_r1"]);
    let generators = ["loss_gen", "loss_path", "mean_path_length", "loss_l1", "loss_vgg_perceptual"];
    assert!(generators.iter().all(|name| first_g.term(name).is_some()), "{first_g}");
    assert_eq!(
        (last_d.skipped.as_slice(), last_g.skipped.as_slice()),
        (&["loss_r1".to_owned()][..], &["loss_path".to_owned()][..])
    );
    assert!(reports.iter().all(|report| report.first_not_finite.is_none()));
    assert_eq!(reports.iter().filter(|report| report.term("loss_path").is_some()).count(), reports.len() / 8);
    let values: Vec<f64> = reports.iter().filter_map(|report| report.term(falls)).collect();
    assert!(values.last() < values.first(), "{falls}: {values:?}");
}

#[test]
fn a_step_on_arrays() {
    check(&example::on_arrays(16, example::perceptual(None).unwrap()).unwrap(), "loss_l1");
}

#[cfg(feature = "tch")]
#[test]
fn a_step_on_tch() {
    check(&example::on_tch(16, example::perceptual(None).unwrap()).unwrap(), "loss_path");
}
