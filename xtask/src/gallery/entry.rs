//! What the gallery says about each loss that its configuration does not say: formula, source, what to plot.

use super::scene::Scene;

/// A family of losses, a part of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Pixelwise,
    Adversarial,
    Penalty,
    Composition,
    Perceptual,
}

impl Family {
    /// In the page's order.
    pub(super) const ALL: [Family; 5] =
        [Family::Pixelwise, Family::Adversarial, Family::Penalty, Family::Composition, Family::Perceptual];

    pub(super) fn title(self) -> &'static str {
        match self {
            Family::Pixelwise => "Pixel by pixel",
            Family::Adversarial => "Adversarial",
            Family::Penalty => "Penalties on networks",
            Family::Composition => "Matting",
            Family::Perceptual => "Perceptual",
        }
    }
}

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

/// A loss of the registry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its `type`.
    pub(super) name: &'static str,
    pub(super) family: Family,
    /// One sentence.
    pub(super) about: &'static str,
    /// One formula a line.
    pub(super) formula: &'static str,
    /// Who defined it.
    pub(super) source: &'static str,
    pub(super) figures: &'static [Figure],
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

/// Every loss, in the page's order within its family.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        name: "L1Loss",
        family: Family::Pixelwise,
        about: "The mean absolute error: every error pulls alike, so a few large ones do not rule.",
        formula: "λ · reduce |x − y|",
        source: "MMagic",
        figures: &[single!(ERROR, [-2.0, 2.0], Scene::Error), Figure::Ranking("{}")],
    },
    Entry {
        name: "MSELoss",
        family: Family::Pixelwise,
        about: "The mean squared error: large errors rule.",
        formula: "λ · reduce (x − y)²",
        source: "MMagic",
        figures: &[single!(ERROR, [-2.0, 2.0], Scene::Error), Figure::Ranking("{}")],
    },
    Entry {
        name: "CharbonnierLoss",
        family: Family::Pixelwise,
        about: "L1 with a rounded corner: differentiable at zero, the rounder the larger ε.",
        formula: "λ · reduce √((x − y)² + ε)",
        source: "Charbonnier et al., Two Deterministic Half-Quadratic Regularization Algorithms, 1994",
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
    Entry {
        name: "HuberLoss",
        family: Family::Pixelwise,
        about: "A parabola that goes over into lines at δ.",
        formula: "λ · reduce { ½d² where |d| < δ, else δ(|d| − ½δ) },  d = x − y",
        source: "Huber, Robust Estimation of a Location Parameter, 1964",
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
    Entry {
        name: "PSNRLoss",
        family: Family::Pixelwise,
        about: "The negative peak signal-to-noise ratio in decibels; −80 where nothing differs.",
        formula: "λ · meanₙ 10·log₁₀( mean (xₙ − yₙ)² + 1e-8 )",
        source: "Chen et al., Simple Baselines for Image Restoration, 2022",
        figures: &[single!(ERROR, [-1.0, 1.0], Scene::Error), Figure::Ranking(r#"{"toY": true}"#)],
    },
    Entry {
        name: "tv_loss",
        family: Family::Pixelwise,
        about: "Total variation: the squared differences of neighbours. Of the prediction alone.",
        formula: "λ · mean [ (xᵢ,ⱼ₊₁ − xᵢ,ⱼ)² + (xᵢ₊₁,ⱼ − xᵢ,ⱼ)² ]",
        source: "Mahendran and Vedaldi, Understanding Deep Image Representations by Inverting Them, 2015",
        figures: &[
            single!("step between two pixels", [-2.0, 2.0], Scene::Step { argument: "input" }),
            Figure::Ranking("{}"),
        ],
    },
    Entry {
        name: "MaskedTVLoss",
        family: Family::Pixelwise,
        about: "Total variation with absolute differences, where a mask allows. Of the prediction alone.",
        formula: "λ · [ mean_m |xᵢ₊₁,ⱼ − xᵢ,ⱼ| + mean_m |xᵢ,ⱼ₊₁ − xᵢ,ⱼ| ]",
        source: "MMagic",
        figures: &[
            single!("step between two pixels", [-2.0, 2.0], Scene::Step { argument: "pred" }),
            Figure::Ranking("{}"),
        ],
    },
    Entry {
        name: "GradientLoss",
        family: Family::Pixelwise,
        about: "Edges: L1 between Sobel responses.",
        formula: "λ · [ reduce |Sₓ∗x − Sₓ∗y| + reduce |S_y∗x − S_y∗y| ]",
        source: "MMagic",
        figures: &[single!("error of one pixel", [-2.0, 2.0], Scene::OnePixel), Figure::Ranking("{}")],
    },
    Entry {
        name: "GANLoss",
        family: Family::Adversarial,
        about: "What a critic's scores say, in seven functions. λ multiplies the generator's loss alone.",
        formula: "vanilla            mean BCE(σ(s), t)\n\
                  lsgan              mean (s − t)²\n\
                  l1                 mean |s − t|\n\
                  wgan               mean −s on real, mean s on generated\n\
                  hinge              discriminator mean max(0, 1 ∓ s), generator mean −s\n\
                  wgan-logistic-ns   mean softplus(∓s)\n\
                  smgan              lsgan, whose fake target is the blurred mask, and whose generator is weighed by it",
        source: "MMagic; Zeng et al., Aggregated Contextual Transformations for High-Resolution Image Inpainting, 2021 \
                 (smgan)",
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
                    ("generator", SMGAN, Scene::MaskedScore { real: true, discriminator: false }),
                    ("discriminator, real", SMGAN, Scene::MaskedScore { real: true, discriminator: true }),
                    ("discriminator, in the hole", SMGAN, Scene::MaskedScore { real: false, discriminator: true }),
                ],
            },
        ],
    },
    Entry {
        name: "GANLossComps",
        family: Family::Adversarial,
        about: "GANLoss under the name that unconditional models use.",
        formula: "as GANLoss",
        source: "MMagic",
        figures: &[roles!(r#"{"gan_type": "wgan-logistic-ns"}"#)],
    },
    Entry {
        name: "GaussianBlur",
        family: Family::Adversarial,
        about: "A filter, no loss: it softens the masks of smgan.",
        formula: "x ∗ g_σ gᵀ_σ,  g_σ(k) ∝ exp(−k²/2σ²), zero padding",
        source: "MMagic",
        figures: &[Figure::Filter(&[
            ("σ = 4", r#"{"kernel_size": [25, 25], "sigma": [4, 4]}"#),
            ("σ = 10", "{}"),
            ("σ = 2 down, 12 across", r#"{"kernel_size": [13, 73], "sigma": [2, 12]}"#),
        ])],
    },
    Entry {
        name: "AdvLoss",
        family: Family::Adversarial,
        about: "DeblurGANv2's objectives over a critic and two images; here the discriminator's, with D(real) = 0.5.",
        formula: "gan, lsgan    ½[ f(D(fake), 0) + f(D(real), 1) ]\n\
                  wgan-gp       mean D(fake) − mean D(real) + 10 · gradient penalty\n\
                  ragan         ½[ BCE(D(r) − m_f, 1) + BCE(D(f) − m_r, 0) ]\n\
                  ragan-ls      ½[ mean (D(r) − m_f − 1)² + mean (D(f) − m_r + 1)² ],  m: means over pools",
        source: "Kupyn et al., DeblurGAN-v2, 2019",
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
    Entry {
        name: "RelativisticPairingLoss",
        family: Family::Adversarial,
        about: "Each generated image against its real partner; here the real score is 0.",
        formula: "discriminator softplus(s_fake − s_real), generator λ · softplus(s_real − s_fake), means",
        source: "Huang et al., The GAN is dead; long live the GAN!, 2024",
        figures: &[Figure::Curves {
            axis: "score of the generated image",
            range: [-3.0, 3.0],
            curves: &[
                ("generator", "{}", Scene::Pair { model: "generator" }),
                ("discriminator", "{}", Scene::Pair { model: "discriminator" }),
            ],
        }],
    },
    Entry {
        name: "RelativisticAverageHingeLoss",
        family: Family::Adversarial,
        about: "Each image against the other kind's average; here the real score is 0.",
        formula: "mean max(0, 1 − (s_real − mean s_fake)) + mean max(0, 1 + (s_fake − mean s_real)), roles swapped for \
                  the generator",
        source: "Jolicoeur-Martineau, The Relativistic Discriminator, 2018",
        figures: &[Figure::Curves {
            axis: "score of the generated image",
            range: [-3.0, 3.0],
            curves: &[
                ("generator", "{}", Scene::Pair { model: "generator" }),
                ("discriminator", "{}", Scene::Pair { model: "discriminator" }),
            ],
        }],
    },
    Entry {
        name: "LeCamLoss",
        family: Family::Adversarial,
        about: "Holds scores near the other kind's moving average; here both averages are ±0.5 and s_real = 0.5.",
        formula: "λ · [ mean (s_real − α_fake)² + mean (s_fake − α_real)² ]",
        source: "Tseng et al., Regularizing Generative Adversarial Networks under Limited Data, 2021",
        figures: &[Figure::Curves {
            axis: "score of the generated image",
            range: [-3.0, 3.0],
            curves: &[("both sides", "{}", Scene::LeCam), ("one-sided", r#"{"one_sided": true}"#, Scene::LeCam)],
        }],
    },
    Entry {
        name: "FeatureMatchingLoss",
        family: Family::Adversarial,
        about: "A critic's features of generated and of real images, layer by layer.",
        formula: "λ · Σ over layers, mean criterion(f_fake, f_real)",
        source: "Wang et al., High-Resolution Image Synthesis with Conditional GANs, 2018",
        figures: &[Figure::Curves {
            axis: "difference of features",
            range: [-2.0, 2.0],
            curves: &[("l1", "{}", Scene::Features), ("mse", r#"{"criterion": "mse"}"#, Scene::Features)],
        }],
    },
    Entry {
        name: "GradientPenaltyLoss",
        family: Family::Penalty,
        about: "Holds a critic's slope at one; here D(x) = a·x.",
        formula: "λ · mean (‖∂ΣD(x̂)/∂x̂‖ − 1)²,  x̂ = α·real + (1 − α)·fake",
        source: "Gulrajani et al., Improved Training of Wasserstein GANs, 2017",
        figures: &[single!(SLOPE, [-2.0, 3.0], Scene::Slope { data: "real_data" })],
    },
    Entry {
        name: "GradientPenaltyLossComps",
        family: Family::Penalty,
        about: "GradientPenaltyLoss as a component that picks its inputs by `data_info`.",
        formula: "as GradientPenaltyLoss",
        source: "MMagic",
        figures: &[single!(SLOPE, [-2.0, 3.0], Scene::Slope { data: "real_data" })],
    },
    Entry {
        name: "R1GradientPenaltyComps",
        family: Family::Penalty,
        about: "Holds a critic flat at real images; here D(x) = a·x.",
        formula: "λ · mean ‖∂ΣD(x)/∂x‖²  at real x",
        source: "Mescheder et al., Which Training Methods for GANs do actually Converge?, 2018",
        figures: &[single!(SLOPE, [-2.0, 2.0], Scene::Slope { data: "real_data" })],
    },
    Entry {
        name: "R2GradientPenaltyComps",
        family: Family::Penalty,
        about: "The same at generated images.",
        formula: "λ · mean ‖∂ΣD(x)/∂x‖²  at generated x",
        source: "Mescheder et al., Which Training Methods for GANs do actually Converge?, 2018",
        figures: &[single!(SLOPE, [-2.0, 2.0], Scene::Slope { data: "fake_data" })],
    },
    Entry {
        name: "GeneratorPathRegularizerComps",
        family: Family::Penalty,
        about: "A step in the latent space shall move the image by the same length everywhere; here the image is a·w, and \
                the mean length so far is 1.",
        formula: "λ · mean (ℓ − a̅)²,  ℓ = √(mean_L Σ_D (∂Σ(image·noise)/∂w)²),  a̅ ← a̅ + decay·(mean ℓ − a̅)",
        source: "Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020",
        figures: &[single!("the generator's slope a", [-2.0, 3.0], Scene::PathLength)],
    },
    Entry {
        name: "DiscShiftLoss",
        family: Family::Penalty,
        about: "Keeps scores from drifting away from zero.",
        formula: "λ · mean s²,  λ = 0.1",
        source: "Karras et al., Progressive Growing of GANs, 2018",
        figures: &[single!(SCORE, [-3.0, 3.0], Scene::Scores)],
    },
    Entry {
        name: "DiscShiftLossComps",
        family: Family::Penalty,
        about: "The same as a map, averaged where losses are summed.",
        formula: "λ · s²",
        source: "MMagic",
        figures: &[single!(SCORE, [-3.0, 3.0], Scene::Scores)],
    },
    Entry {
        name: "L1CompositionLoss",
        family: Family::Composition,
        about: "How far foreground and background, mixed by α, are from the image; here 1 and 0, observed as 0.6.",
        formula: "λ · reduce |α·f + (1 − α)·b − m|",
        source: "MMagic",
        figures: &[single!(ALPHA, [0.0, 1.0], Scene::Composition)],
    },
    Entry {
        name: "MSECompositionLoss",
        family: Family::Composition,
        about: "The same, squared.",
        formula: "λ · reduce (α·f + (1 − α)·b − m)²",
        source: "MMagic",
        figures: &[single!(ALPHA, [0.0, 1.0], Scene::Composition)],
    },
    Entry {
        name: "CharbonnierCompLoss",
        family: Family::Composition,
        about: "The same, with a rounded corner.",
        formula: "λ · reduce √((α·f + (1 − α)·b − m)² + ε)",
        source: "Xu et al., Deep Image Matting, 2017",
        figures: &[Figure::Curves {
            axis: ALPHA,
            range: [0.0, 1.0],
            curves: &[("ε = 1e-12", "{}", Scene::Composition), ("ε = 0.01", r#"{"eps": 0.01}"#, Scene::Composition)],
        }],
    },
    Entry {
        name: "PerceptualLoss",
        family: Family::Perceptual,
        about: "Content and style over VGG features.",
        formula: "perceptual   w_p · Σₖ wₖ · criterion(fₖ(x), fₖ(y))\n\
                  style        w_s · Σₖ wₖ · criterion(G(fₖ(x)), G(fₖ(y))),  G(f) = f fᵀ/(c·h·w)",
        source: "Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016",
        figures: &[Figure::Ranking(
            r#"{"layer_weights": {"4": 1.0, "9": 1.0}, "vgg_type": "vgg16", "norm_img": false}"#,
        )],
    },
    Entry {
        name: "LPIPS",
        family: Family::Perceptual,
        about: "Weighted distances of normalised features, fitted to people's judgements.",
        formula: "λ · Σₖ mean_hw Σ_c wₖ·(f̂ₖ(x) − f̂ₖ(y))²",
        source: "Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018",
        figures: &[Figure::Ranking(
            r#"{"net": "squeeze", "normalize": true, "pretrained": "seeded:1", "linear_weights": "seeded:1"}"#,
        )],
    },
    Entry {
        name: "DISTS",
        family: Family::Perceptual,
        about: "Structure and texture over VGG features: forgiving towards texture that is only elsewhere.",
        formula: "λ · (1 − Σₖ (αₖ·luminanceₖ + βₖ·structureₖ))",
        source: "Ding et al., Image Quality Assessment: Unifying Structure and Texture Similarity, 2020",
        figures: &[Figure::Ranking(r#"{"pretrained": "seeded:1", "dists_weights": "seeded:1"}"#)],
    },
    Entry {
        name: "TransferalPerceptualLoss",
        family: Family::Perceptual,
        about: "Texture that is moved from a reference, weighed by how well it fits; here s = 1, the texture is 0.",
        formula: "λ · Σᵢ criterion(mᵢ·sᵢ, tᵢ·sᵢ)",
        source: "Yang et al., Learning Texture Transformer Network for Image Super-Resolution, 2020",
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
    Entry {
        name: "LightCNNFeatureLoss",
        family: Family::Perceptual,
        about: "Faces, over LightCNN-9 features.",
        formula: "λ · criterion(f(x), f(y))",
        source: "MMagic (DIC-GAN)",
        figures: &[Figure::Ranking("{}")],
    },
    Entry {
        name: "FaceIdLoss",
        family: Family::Perceptual,
        about: "The same person? Over ArcFace's embedding e of length 1.",
        formula: "λ · meanₙ (1 − e(x)·e(y))",
        source: "Deng et al., ArcFace, 2019",
        figures: &[Figure::Ranking("{}")],
    },
    Entry {
        name: "FaceIdLossComps",
        family: Family::Perceptual,
        about: "FaceIdLoss as a component that picks its inputs by `data_info`.",
        formula: "as FaceIdLoss",
        source: "MMagic",
        figures: &[],
    },
    Entry {
        name: "CLIPLoss",
        family: Family::Perceptual,
        about: "How badly an image fits a text.",
        formula: "λ · (1 − exp(logit_scale)·cos(e(x), e(text))/100)",
        source: "Patashnik et al., StyleCLIP, 2021",
        figures: &[Figure::Ranking(r#"{"clip_model": {"in_size": 128, "scale_factor": 7, "pool_size": 224}}"#)],
    },
    Entry {
        name: "CLIPLossComps",
        family: Family::Perceptual,
        about: "CLIPLoss as a component that picks its inputs by `data_info`.",
        formula: "as CLIPLoss",
        source: "MMagic",
        figures: &[],
    },
];

const SLOPE: &str = "the critic's slope a";
const ALPHA: &str = "α";
const SMGAN: &str = r#"{"gan_type": "smgan", "gaussian_blur": {"kernel_size": [1, 1], "sigma": [1, 1]}}"#;

/// The entry of a type.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}
