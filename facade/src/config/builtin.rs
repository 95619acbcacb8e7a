//! The entries of this workspace's own losses: one line each.

#[cfg(feature = "gan")]
mod gan;
#[cfg(feature = "penalties")]
mod penalties;
#[cfg(feature = "perceptual")]
mod perceptual;
#[cfg(feature = "pixelwise")]
mod pixelwise;

use super::registry::Entry;

/// An entry with the schema of its options, where schemas are enabled.
#[allow(unused_macros)]
macro_rules! described {
    ($entry:expr, $options:ty) => {{
        #[cfg(feature = "schema")]
        let entry = $entry.described::<$options>();
        #[cfg(not(feature = "schema"))]
        let entry = $entry;
        entry
    }};
}

/// A pointwise loss of `$k` tensors.
#[allow(unused_macros)]
macro_rules! pointwise {
    ($loss:ty, $options:ty, $k:literal) => {
        described!(Entry::pointwise::<$loss, $options, $k>(), $options)
    };
}

/// A loss of `$k` tensors.
#[allow(unused_macros)]
macro_rules! plain {
    ($loss:ty, $options:ty, $k:literal) => {
        described!(Entry::loss::<$loss, $options, $k>(), $options)
    };
}

/// A loss with an adapter.
#[allow(unused_macros)]
macro_rules! adapted {
    ($adapter:ty, $options:ty, $name:literal) => {
        described!(Entry::of::<$adapter>($name), $options)
    };
}

/// A loss over a frozen network.
#[allow(unused_macros)]
macro_rules! frozen {
    ($loss:ty, $options:ty, $name:literal) => {
        described!(perceptual::entry::<$loss>($name), $options)
    };
}

/// Every loss of the enabled families.
pub(super) fn entries() -> Vec<Entry> {
    #[allow(unused_mut)]
    let mut entries: Vec<Entry> = Vec::new();
    #[cfg(feature = "pixelwise")]
    {
        use image_losses_pixelwise as p;
        entries.extend([
            pointwise!(p::L1Loss, p::L1Options, 2),
            pointwise!(p::MseLoss, p::MseOptions, 2),
            pointwise!(p::CharbonnierLoss, p::CharbonnierOptions, 2),
            pointwise!(p::HuberLoss, p::HuberOptions, 2),
            plain!(p::PsnrLoss, p::PsnrOptions, 2),
            plain!(p::TvLoss, p::TvOptions, 1),
            plain!(p::MaskedTvLoss, p::MaskedTvOptions, 1),
            plain!(p::GradientLoss, p::GradientOptions, 2),
        ]);
    }
    #[cfg(feature = "composition")]
    {
        use image_losses_composition as c;
        entries.extend([
            pointwise!(c::L1CompositionLoss, c::L1CompositionOptions, 4),
            pointwise!(c::MseCompositionLoss, c::MseCompositionOptions, 4),
            pointwise!(c::CharbonnierCompLoss, c::CharbonnierCompOptions, 4),
        ]);
    }
    #[cfg(feature = "gan")]
    {
        use image_losses_gan as g;
        entries.extend([
            adapted!(g::GanLoss, g::GanOptions, "GANLoss"),
            adapted!(g::GanLoss, g::GanOptions, "GANLossComps"),
            adapted!(g::GaussianBlur, g::GaussianBlurOptions, "GaussianBlur"),
            adapted!(gan::Adversarial, g::AdvOptions, "AdvLoss"),
            adapted!(gan::LeCam, g::LeCamOptions, "LeCamLoss").named("loss_lecam"),
            adapted!(g::FeatureMatchingLoss, g::FeatureMatchingOptions, "FeatureMatchingLoss"),
            adapted!(g::RelativisticPairingLoss, g::RelativisticPairingOptions, "RelativisticPairingLoss"),
            adapted!(
                g::RelativisticAverageHingeLoss,
                g::RelativisticAverageHingeOptions,
                "RelativisticAverageHingeLoss"
            ),
        ]);
    }
    #[cfg(feature = "penalties")]
    {
        use image_losses_penalties as p;
        entries.extend([
            pointwise!(p::DiscShiftLoss, p::DiscShiftOptions, 1).named("loss_disc_shift"),
            pointwise!(p::DiscShiftLossComps, p::DiscShiftCompsOptions, 1).named("loss_disc_shift"),
            adapted!(penalties::Gradient<false>, p::GradientPenaltyOptions, "GradientPenaltyLoss").named("loss_gp"),
            adapted!(penalties::Gradient<true>, p::GradientPenaltyOptions, "GradientPenaltyLossComps").named("loss_gp"),
            adapted!(p::R1GradientPenalty, p::R1Options, "R1GradientPenaltyComps").named("loss_r1_gp"),
            adapted!(p::R2GradientPenalty, p::R1Options, "R2GradientPenaltyComps").named("loss_r2_gp"),
            adapted!(penalties::PathLength, p::PathLengthOptions, "GeneratorPathRegularizerComps")
                .named("loss_path_regular"),
        ]);
    }
    #[cfg(feature = "perceptual")]
    {
        use image_losses_perceptual as p;
        entries.push(adapted!(p::TransferalPerceptualLoss, p::TransferalPerceptualOptions, "TransferalPerceptualLoss"));
        #[cfg(feature = "vgg")]
        entries.push(frozen!(p::PerceptualLoss, p::PerceptualOptions, "PerceptualLoss"));
        #[cfg(feature = "light-cnn")]
        entries.push(frozen!(p::LightCnnFeatureLoss, p::LightCnnFeatureOptions, "LightCNNFeatureLoss"));
        #[cfg(feature = "face-id")]
        entries.extend([
            frozen!(p::FaceIdLoss, p::FaceIdOptions, "FaceIdLoss").named("loss_id"),
            frozen!(p::FaceIdLoss, p::FaceIdOptions, "FaceIdLossComps").named("loss_id"),
        ]);
        #[cfg(feature = "clip")]
        entries.extend([
            frozen!(p::ClipLoss, p::ClipOptions, "CLIPLoss").named("loss_clip"),
            frozen!(p::ClipLoss, p::ClipOptions, "CLIPLossComps").named("loss_clip"),
        ]);
        #[cfg(feature = "lpips")]
        entries.extend([frozen!(p::Lpips, p::LpipsOptions, "LPIPS"), frozen!(p::Dists, p::DistsOptions, "DISTS")]);
    }
    entries
}
