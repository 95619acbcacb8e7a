//! What to plot of a loss. One that is not named here stands on the page without a figure.

use super::scene::Scene;

/// Curves of value and gradient, or a ranking of distorted photographs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Figure {
    /// Value and gradient against what `scene` varies.
    Curves {
        /// What is varied, for the axis.
        axis: &'static str,
        /// From where to where.
        range: [f64; 2],
        /// Name, options in JSON, and how the loss is called.
        curves: &'static [(&'static str, &'static str, Scene)],
    },
    /// Distortions of one photograph in the order in which the loss minds them, with these options in JSON.
    Ranking(&'static str),
    /// Pictures of the options in JSON: what a filter makes of a mask.
    Filter(&'static [(&'static str, &'static str)]),
}

/// The figures of a loss.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    /// Its `type`.
    pub(super) name: &'static str,
    /// What the curves hold fixed; may be empty.
    pub(super) note: &'static str,
    pub(super) figures: &'static [Figure],
}

/// The figures of a `type`.
pub(super) fn of(name: &str) -> Option<&'static Figures> {
    FIGURES.iter().find(|figures| figures.name == name)
}

const ERROR: &str = "error x − y";
const SCORE: &str = "score s";

/// Generator, and discriminator on real and on generated images, of one `gan_type`.
macro_rules! roles {
    ($options:literal) => {
        Figure::Curves {
            axis: SCORE,
            range: [-3.0, 3.0],
            curves: &[
                ("generator", $options, Scene::Score { real: true, discriminator: false }),
                ("discriminator, real", $options, Scene::Score { real: true, discriminator: true }),
                ("discriminator, generated", $options, Scene::Score { real: false, discriminator: true }),
            ],
        }
    };
}

/// One curve without a choice of options.
macro_rules! single {
    ($axis:expr, [$low:literal, $high:literal], $scene:expr) => {
        Figure::Curves { axis: $axis, range: [$low, $high], curves: &[("", "{}", $scene)] }
    };
}

/// By `type`.
pub(super) const FIGURES: &[Figures] = &[
    Figures { name: "L1Loss", note: "", figures: &[single!(ERROR, [-2.0, 2.0], Scene::Error), Figure::Ranking("{}")] },
    Figures { name: "MSELoss", note: "", figures: &[single!(ERROR, [-2.0, 2.0], Scene::Error), Figure::Ranking("{}")] },
    Figures {
        name: "CharbonnierLoss",
        note: "",
        figures: &[
            Figure::Curves {
                axis: ERROR,
                range: [-2.0, 2.0],
                curves: &[
                    ("ε = 1e-12", "{}", Scene::Error),
                    ("ε = 0.01", r#"{"eps": 0.01}"#, Scene::Error),
                    ("ε = 0.25", r#"{"eps": 0.25}"#, Scene::Error),
                ],
            },
            Figure::Ranking("{}"),
        ],
    },
    Figures {
        name: "HuberLoss",
        note: "",
        figures: &[
            Figure::Curves {
                axis: ERROR,
                range: [-2.0, 2.0],
                curves: &[
                    ("δ = 0.25", r#"{"delta": 0.25}"#, Scene::Error),
                    ("δ = 1", "{}", Scene::Error),
                    ("δ = 1.5", r#"{"delta": 1.5}"#, Scene::Error),
                ],
            },
            Figure::Ranking(r#"{"delta": 0.05}"#),
        ],
    },
    Figures {
        name: "PSNRLoss",
        note: "",
        figures: &[single!(ERROR, [-1.0, 1.0], Scene::Error), Figure::Ranking(r#"{"toY": true}"#)],
    },
    Figures {
        name: "tv_loss",
        note: "",
        figures: &[
            single!("step between two pixels", [-2.0, 2.0], Scene::Step { argument: "input" }),
            Figure::Ranking("{}"),
        ],
    },
    Figures {
        name: "MaskedTVLoss",
        note: "",
        figures: &[
            single!("step between two pixels", [-2.0, 2.0], Scene::Step { argument: "pred" }),
            Figure::Ranking("{}"),
        ],
    },
    Figures {
        name: "GradientLoss",
        note: "",
        figures: &[single!("error of one pixel", [-2.0, 2.0], Scene::OnePixel), Figure::Ranking("{}")],
    },
    Figures {
        name: "GANLoss",
        note: "",
        figures: &[
            roles!(r#"{"gan_type": "vanilla"}"#),
            roles!(r#"{"gan_type": "lsgan"}"#),
            roles!(r#"{"gan_type": "l1"}"#),
            roles!(r#"{"gan_type": "wgan"}"#),
            roles!(r#"{"gan_type": "hinge"}"#),
            roles!(r#"{"gan_type": "wgan-logistic-ns"}"#),
            Figure::Curves {
                axis: SCORE,
                range: [-3.0, 3.0],
                curves: &[
                    ("generator, in the hole", SMGAN, Scene::Masked { mask: 1.0, discriminator: false }),
                    ("discriminator, generated, in the hole", SMGAN, Scene::Masked { mask: 1.0, discriminator: true }),
                    ("discriminator, generated, outside", SMGAN, Scene::Masked { mask: 0.0, discriminator: true }),
                ],
            },
        ],
    },
    Figures {
        name: "GaussianBlur",
        note: "",
        figures: &[Figure::Filter(&[
            ("σ = 4", r#"{"kernel_size": [25, 25], "sigma": [4, 4]}"#),
            ("σ = 10", "{}"),
            ("σ = 2 down, 12 across", r#"{"kernel_size": [13, 73], "sigma": [2, 12]}"#),
        ])],
    },
    Figures {
        name: "AdvLoss",
        note: "the discriminator's, with D(real) = 0.5",
        figures: &[Figure::Curves {
            axis: "score of the generated image",
            range: [-3.0, 3.0],
            curves: &[
                ("gan", r#"{"loss_type": "gan"}"#, Scene::Adversarial),
                ("lsgan", r#"{"loss_type": "lsgan"}"#, Scene::Adversarial),
                ("wgan-gp", r#"{"loss_type": "wgan-gp"}"#, Scene::Adversarial),
                ("ragan", r#"{"loss_type": "ragan"}"#, Scene::Adversarial),
                ("ragan-ls", r#"{"loss_type": "ragan-ls"}"#, Scene::Adversarial),
            ],
        }],
    },
    Figures {
        name: "RelativisticPairingLoss",
        note: "the real score is 0",
        figures: &[Figure::Curves {
            axis: "score of the generated image",
            range: [-3.0, 3.0],
            curves: &[
                ("generator", "{}", Scene::Pair { model: "generator" }),
                ("discriminator", "{}", Scene::Pair { model: "discriminator" }),
            ],
        }],
    },
    Figures {
        name: "RelativisticAverageHingeLoss",
        note: "the real score is 0",
        figures: &[Figure::Curves {
            axis: "score of the generated image",
            range: [-3.0, 3.0],
            curves: &[
                ("generator", "{}", Scene::Pair { model: "generator" }),
                ("discriminator", "{}", Scene::Pair { model: "discriminator" }),
            ],
        }],
    },
    Figures {
        name: "LeCamLoss",
        note: "both averages are ±0.5 and s_real = 0.5",
        figures: &[Figure::Curves {
            axis: "score of the generated image",
            range: [-3.0, 3.0],
            curves: &[("both sides", "{}", Scene::LeCam), ("one-sided", r#"{"one_sided": true}"#, Scene::LeCam)],
        }],
    },
    Figures {
        name: "FeatureMatchingLoss",
        note: "",
        figures: &[Figure::Curves {
            axis: "difference of features",
            range: [-2.0, 2.0],
            curves: &[("l1", "{}", Scene::Features), ("mse", r#"{"criterion": "mse"}"#, Scene::Features)],
        }],
    },
    Figures {
        name: "GradientPenaltyLoss",
        note: "D(x) = a·x",
        figures: &[single!(SLOPE, [-2.0, 3.0], Scene::Slope { data: "real_data" })],
    },
    Figures {
        name: "GradientPenaltyLossComps",
        note: "",
        figures: &[single!(SLOPE, [-2.0, 3.0], Scene::Slope { data: "real_data" })],
    },
    Figures {
        name: "R1GradientPenaltyComps",
        note: "D(x) = a·x",
        figures: &[single!(SLOPE, [-2.0, 2.0], Scene::Slope { data: "real_data" })],
    },
    Figures {
        name: "R2GradientPenaltyComps",
        note: "",
        figures: &[single!(SLOPE, [-2.0, 2.0], Scene::Slope { data: "fake_data" })],
    },
    Figures {
        name: "GeneratorPathRegularizerComps",
        note: "the image is a·w, and the mean length so far is 1",
        figures: &[single!("generator's slope a", [-2.0, 3.0], Scene::PathLength)],
    },
    Figures { name: "DiscShiftLoss", note: "", figures: &[single!(SCORE, [-3.0, 3.0], Scene::Scores)] },
    Figures { name: "DiscShiftLossComps", note: "", figures: &[single!(SCORE, [-3.0, 3.0], Scene::Scores)] },
    Figures {
        name: "L1CompositionLoss",
        note: "1 and 0, observed as 0.6",
        figures: &[single!(ALPHA, [0.0, 1.0], Scene::Composition)],
    },
    Figures { name: "MSECompositionLoss", note: "", figures: &[single!(ALPHA, [0.0, 1.0], Scene::Composition)] },
    Figures {
        name: "CharbonnierCompLoss",
        note: "",
        figures: &[Figure::Curves {
            axis: ALPHA,
            range: [0.0, 1.0],
            curves: &[("ε = 1e-12", "{}", Scene::Composition), ("ε = 0.01", r#"{"eps": 0.01}"#, Scene::Composition)],
        }],
    },
    Figures {
        name: "PerceptualLoss",
        note: "",
        figures: &[Figure::Ranking(
            r#"{"layer_weights": {"4": 1.0, "9": 1.0}, "vgg_type": "vgg16", "norm_img": false}"#,
        )],
    },
    Figures {
        name: "LPIPS",
        note: "",
        figures: &[Figure::Ranking(
            r#"{"net": "squeeze", "lpips": false, "normalize": true, "pretrained": "seeded:1"}"#,
        )],
    },
    Figures { name: "DISTS", note: "", figures: &[Figure::Ranking(r#"{"pretrained": "seeded:1"}"#)] },
    Figures {
        name: "TransferalPerceptualLoss",
        note: "s = 1, the texture is 0",
        figures: &[Figure::Curves {
            axis: "feature mᵢ",
            range: [-2.0, 2.0],
            curves: &[
                ("mse, MMagic's form", "{}", Scene::Transferal),
                ("l1, MMagic's form", r#"{"criterion": "l1"}"#, Scene::Transferal),
                ("mse, the paper's form", r#"{"form": "paper"}"#, Scene::Transferal),
            ],
        }],
    },
    Figures { name: "LightCNNFeatureLoss", note: "", figures: &[Figure::Ranking("{}")] },
    Figures { name: "FaceIdLoss", note: "", figures: &[Figure::Ranking("{}")] },
    Figures {
        name: "CLIPLoss",
        note: "",
        figures: &[Figure::Ranking(r#"{"clip_model": {"in_size": 128, "scale_factor": 7, "pool_size": 224}}"#)],
    },
];

const SLOPE: &str = "critic's slope a";
const ALPHA: &str = "α";
const SMGAN: &str = r#"{"gan_type": "smgan", "gaussian_blur": {"kernel_size": [1, 1], "sigma": [1, 1]}}"#;
