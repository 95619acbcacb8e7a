//! The step of StyleGAN2 on arrays and on tch.

#[path = "../../examples/stylegan2.rs"]
#[allow(unreachable_pub, reason = "public in the example, private here")]
mod example;

use image_losses::objective::Report;

/// All terms are there when they are due, and training moves what it trains.
fn check(reports: &[Report]) {
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
    // The lengths of paths come near their average.
    let lengths: Vec<f64> = reports.iter().filter_map(|report| report.term("loss_path")).collect();
    assert!(lengths.len() == reports.len() / 8 && lengths.last() < lengths.first(), "{lengths:?}");
}

#[test]
fn a_step_on_arrays() {
    check(&example::on_arrays(16, example::perceptual(None).unwrap()).unwrap());
}

#[cfg(feature = "tch")]
#[test]
fn a_step_on_tch() {
    check(&example::on_tch(16, example::perceptual(None).unwrap()).unwrap());
}
