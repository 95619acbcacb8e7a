//! The transferal perceptual loss of texture transfer.

use image_losses_core::config::{Argument, Configurable, Inputs, Kind, Outcome};
use image_losses_core::{About, Declared, Differentiable, Error, Interpolation, Result, Tensor, Unary, finite};
use serde::{Deserialize, Serialize};

use crate::criterion::{self, Criterion};

/// Which form of [`TransferalPerceptualLoss`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TransferalForm {
    /// MMagic's: the attention passes through a sigmoid at level 0 only; the levels are added.
    #[default]
    Mmagic,
    /// The paper's: a sigmoid at every level; the levels' mean.
    Paper,
}

/// The distance of feature maps to the textures transferred into them, weighted by soft attention: transferal
/// perceptual loss, as TTSR uses it.
///
/// L = λ · Σᵢ criterion(mᵢ·sᵢ, tᵢ·sᵢ), i from 0 to the number of levels
///
/// mᵢ: map, tᵢ: texture of level i; s₀ = sigmoid(a) of the attention a, sᵢ = a enlarged 2ⁱ times (bicubic, corners not
/// aligned). Without attention sᵢ = 1. That is MMagic's form. The paper's (`form: paper`): sᵢ = sigmoid(a) enlarged for
/// every level, and the sum divided by the number of levels.
///
/// # Shapes
/// Attention: (N, 1, h, w). Map and texture of level i: (N, Cᵢ, 2ⁱ·h, 2ⁱ·w) each; without attention any (N, C, …).
///
/// In [0, ∞) for λ > 0; 0 for maps equal to their textures. Not differentiable there with `l1`. Maps, textures and
/// attention carry gradients.
///
/// # Errors
/// [`Error::InputCount`] for other numbers of maps and textures or none, [`Error::MissingInput`] for attention that is
/// used and not given, [`Error::ShapeMismatch`], [`Error::ShapeRule`].
///
/// ```
/// use image_losses_core::Tensor;
/// use image_losses_ndarray::NdTensor;
/// use image_losses_perceptual::TransferalPerceptualLoss;
/// use ndarray::Array4;
///
/// let full = |size, value| NdTensor::new(Array4::from_elem((1, 2, size, size), value));
/// let attention = NdTensor::new(Array4::from_elem((1, 1, 2, 2), 0.0f64));
/// let loss = TransferalPerceptualLoss::default();
/// // Level 0: (3·½ − 1·½)² = 1, with sigmoid(0) = ½. Level 1: attention 0.
/// let value = loss.forward(&[&full(2, 3.0), &full(4, 3.0)], Some(&attention), &[&full(2, 1.0), &full(4, 1.0)])?;
/// assert_eq!(value.item()?, 1.0);
/// # Ok::<(), image_losses_core::Error>(())
/// ```
///
/// Source: F. Yang, H. Yang, J. Fu, H. Lu, B. Guo, "Learning Texture Transformer Network for Image Super-Resolution",
/// 2020, equation 10; MMagic, `mmagic.models.losses.TransferalPerceptualLoss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TransferalPerceptualLoss {
    /// λ, multiplies the result. Default: 1.
    pub loss_weight: f64,
    /// Multiply features by the attention first. Default: `true`.
    pub use_attention: bool,
    /// `l1`, `mse` or `fro` between features. Default: `mse`.
    pub criterion: Criterion,
    /// `mmagic` or `paper`. Default: `mmagic`.
    pub form: TransferalForm,
}

impl Default for TransferalPerceptualLoss {
    fn default() -> Self {
        TransferalPerceptualLoss {
            loss_weight: 1.0,
            use_attention: true,
            criterion: Criterion::Mse,
            form: TransferalForm::Mmagic,
        }
    }
}

impl Declared for TransferalPerceptualLoss {
    const NAME: &'static str = "TransferalPerceptualLoss";
    const ABOUT: About = About {
        summary: "Texture that is moved from a reference, weighed by how well it fits.",
        formula: "λ · Σᵢ criterion(mᵢ·sᵢ, tᵢ·sᵢ)",
        source: "Yang et al., Learning Texture Transformer Network for Image Super-Resolution, 2020",
    };

    /// # Errors
    /// [`Error::InvalidOption`] for a `loss_weight` that is not finite.
    fn check(&self) -> Result<()> {
        finite(Self::NAME, "loss_weight", self.loss_weight)
    }
}

impl TransferalPerceptualLoss {
    /// The loss of feature maps and textures, a pair for each level, from small to large.
    ///
    /// # Errors
    /// Those of the type's description.
    pub fn forward<T: Tensor>(&self, maps: &[&T], soft_attention: Option<&T>, textures: &[&T]) -> Result<T> {
        let TransferalPerceptualLoss { loss_weight, use_attention, criterion, form } = *self;
        self.check()?;
        if maps.len() != textures.len() {
            return Err(Error::InputCount { operation: Self::NAME, expected: maps.len(), got: textures.len() });
        }
        let attention = match (use_attention, soft_attention) {
            (true, None) => {
                return Err(Error::MissingInput {
                    operation: Self::NAME,
                    argument: "soft_attention".into(),
                    hint: ": `use_attention` is set".into(),
                });
            }
            (true, attention) => attention,
            (false, _) => None,
        };
        let weight = match form {
            TransferalForm::Mmagic => loss_weight,
            TransferalForm::Paper => loss_weight / maps.len().max(1) as f64,
        };
        let level = |(level, (map, texture)): (usize, (&&T, &&T))| {
            let Some(attention) = attention else { return criterion.compare(Self::NAME, *map, *texture, weight) };
            let soft = self.soft(attention, level)?;
            let expected = map.shape();
            if texture.shape() != expected {
                let got = texture.shape();
                return Err(Error::ShapeMismatch { operation: Self::NAME, argument: "textures", expected, got });
            }
            let mut expected = soft.shape();
            expected[1] = map.shape().get(1).copied().unwrap_or(1);
            if map.shape() != expected {
                return Err(Error::ShapeMismatch {
                    operation: Self::NAME,
                    argument: "maps",
                    expected,
                    got: map.shape(),
                });
            }
            criterion.compare(Self::NAME, &map.mul(&soft)?, &texture.mul(&soft)?, weight)
        };
        let sum = criterion::sum(maps.iter().zip(textures).enumerate().map(level))?;
        sum.ok_or(Error::InputCount { operation: Self::NAME, expected: 1, got: 0 })
    }

    /// The attention of a level.
    fn soft<T: Tensor>(&self, attention: &T, level: usize) -> Result<T> {
        let shape = attention.shape();
        let [_, 1, height, width] = shape[..] else {
            let expected = "rank 4 with 1 channel (N, 1, H, W)".into();
            return Err(Error::ShapeRule { operation: Self::NAME, argument: "soft_attention", expected, got: shape });
        };
        let gate = if level == 0 || self.form == TransferalForm::Paper {
            attention.unary(Unary::Sigmoid)?
        } else {
            attention.clone()
        };
        match level {
            0 => Ok(gate),
            _ => gate.resize([height << level, width << level], Interpolation::Bicubic { align_corners: false }),
        }
    }
}

impl Configurable for TransferalPerceptualLoss {
    type State = ();

    fn arguments(&self) -> Vec<Argument> {
        let required = self.use_attention;
        vec![
            Argument::required("maps", Kind::Tensors),
            Argument { required, ..Argument::optional("soft_attention", Kind::Tensor) },
            Argument::required("textures", Kind::Tensors),
        ]
    }

    fn evaluate<T: Differentiable>(&self, inputs: &Inputs<'_, T>, _: &mut ()) -> Result<Outcome<T>> {
        let (maps, textures) = (inputs.get_tensors(Self::NAME, "maps")?, inputs.get_tensors(Self::NAME, "textures")?);
        let attention = inputs.get_tensor_if_any(Self::NAME, "soft_attention")?;
        self.forward(&maps, attention, &textures).map(Outcome::Value)
    }
}
