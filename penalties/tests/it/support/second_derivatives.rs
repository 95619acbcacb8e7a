// The property tests, included where `ENGINE` is the engine under test.

proptest! {
    #![proptest_config(drawn(CASES))]

    #[test]
    fn drawn_second_derivatives_of_the_gradient_penalty(critic in critic(), seed: u64, hwc: bool, dragan: bool, alpha in prop::option::of(0.0..1.0)) {
        let options = GradientPenaltyLoss {
            loss_weight: 0.7,
            norm_mode: if hwc { NormMode::Hwc } else { NormMode::Pixel },
            interpolation: if dragan { Interpolation::Dragan } else { Interpolation::RealFake },
            alpha,
            loss_scale: 8.0,
        };
        let penalty = Penalty::Gradient(options, critic);
        let error = second_derivative_error(&ENGINE, &penalty, seed).unwrap();
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn drawn_second_derivatives_of_r1_and_r2(critic in critic(), seed: u64, hwc: bool, r2: bool) {
        let norm_mode = if hwc { NormMode::Hwc } else { NormMode::Pixel };
        let options = R1GradientPenalty { loss_weight: 0.3, norm_mode, interval: 3, multiply_by_interval: true, loss_scale: 0.5, use_apex_amp: false };
        let penalty = if r2 {
            Penalty::R2(options.into(), critic)
        } else {
            Penalty::R1(options, critic)
        };
        let error = second_derivative_error(&ENGINE, &penalty, seed).unwrap();
        prop_assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn drawn_second_derivatives_of_the_path_length(generator in generator(), seed: u64, mean_path_length in 0.0..3.0, decay in 0.0..1.0) {
        let options = GeneratorPathRegularizer { loss_weight: 0.7, decay, loss_scale: 4.0, ..GeneratorPathRegularizer::default() };
        let penalty = Penalty::PathLength(options, PathLengthState { mean_path_length }, generator);
        let error = second_derivative_error(&ENGINE, &penalty, seed).unwrap();
        prop_assert!(error < 1e-5, "{error}");
    }
}
