//! CLIP: an image and a text transformer with a common embedding.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use image_losses_core::{Conv2d, Error, Expr, Function, Pointwise, Result, Tensor, Unary};
use image_losses_kernels::vision_transformer::{self as fused, VisionTransformer};
use serde::{Deserialize, Serialize};

use super::embedding::normalised;
use super::sequential::check_image;
use super::{Architecture, Parameter, Parameters};
use crate::checkpoint::{Checkpoint, Entry, elsewhere};

const NAME: &str = "CLIP";
/// The length of a head's vectors, in every model of OpenAI and every text transformer of OpenCLIP.
pub(crate) const HEAD: usize = 64;
/// PyTorch's summand under the root of layer norm's deviation.
const LAYER_NORM_EPSILON: f64 = 1e-5;
/// Scalars that OpenAI's archives carry beside the parameters.
pub(super) const BESIDE: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

/// The function between the two layers of a block's network. A checkpoint does not tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ClipActivation {
    /// x·sigmoid(1.702 x): OpenAI's models and those of OpenCLIP whose name ends with `quickgelu`.
    #[default]
    QuickGelu,
    /// x·Φ(x), Φ the normal distribution: OpenCLIP's other models.
    Gelu,
}

/// The size of a CLIP model with a vision transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClipShape {
    /// The length of the common embedding.
    pub embed_dim: usize,
    /// Height and width of an image.
    pub image_resolution: usize,
    /// Layers of the vision transformer.
    pub vision_layers: usize,
    /// Width of the vision transformer, a multiple of 64.
    pub vision_width: usize,
    /// Height and width of a patch.
    pub vision_patch_size: usize,
    /// The most tokens in a text.
    pub context_length: usize,
    /// The number of tokens there are.
    pub vocab_size: usize,
    /// Width of the text transformer, a multiple of 64.
    pub transformer_width: usize,
    /// Layers of the text transformer.
    pub transformer_layers: usize,
}

impl ClipShape {
    /// ViT-B/32.
    pub const VIT_B_32: ClipShape = ClipShape {
        embed_dim: 512,
        image_resolution: 224,
        vision_layers: 12,
        vision_width: 768,
        vision_patch_size: 32,
        context_length: 77,
        vocab_size: 49408,
        transformer_width: 512,
        transformer_layers: 12,
    };
    /// ViT-B/16.
    pub const VIT_B_16: ClipShape = ClipShape { vision_patch_size: 16, ..ClipShape::VIT_B_32 };
    /// ViT-L/14.
    pub const VIT_L_14: ClipShape = ClipShape {
        embed_dim: 768,
        vision_layers: 24,
        vision_width: 1024,
        vision_patch_size: 14,
        transformer_width: 768,
        ..ClipShape::VIT_B_32
    };
    /// ViT-L/14 at 336 pixels.
    pub const VIT_L_14_336: ClipShape = ClipShape { image_resolution: 336, ..ClipShape::VIT_L_14 };

    /// The published models' names.
    pub const PUBLISHED: [&'static str; 4] = ["ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"];

    /// A published model's size: `ViT-B/32`, `ViT-B/16`, `ViT-L/14`, `ViT-L/14@336px`.
    pub fn published(name: &str) -> Option<Self> {
        match name {
            "ViT-B/32" => Some(ClipShape::VIT_B_32),
            "ViT-B/16" => Some(ClipShape::VIT_B_16),
            "ViT-L/14" => Some(ClipShape::VIT_L_14),
            "ViT-L/14@336px" => Some(ClipShape::VIT_L_14_336),
            _ => None,
        }
    }

    /// The size of the model in a checkpoint, read from its tensors' shapes; the tensors may be named as in OpenAI's
    /// files or as in transformers' `CLIPModel`.
    ///
    /// # Errors
    /// [`Error::Format`] for a model whose image tower is a ResNet, which is not built, or one that lies under a prefix;
    /// [`Error::CheckpointMismatch`] for what is no CLIP.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let checkpoint = &*in_openai_layout(checkpoint)?;
        if checkpoint.get("visual.proj").is_none() && checkpoint.get("visual.layer1.0.conv1.weight").is_some() {
            return Err(Error::Format {
                path: checkpoint.path().to_owned(),
                message: "a CLIP whose image tower is a ResNet; only vision transformers (ViT-…) are supported".into(),
            });
        }
        let mismatch = |missing: Vec<String>, mismatched: Vec<String>| {
            let path = checkpoint.path().to_owned();
            let places = if missing.is_empty() { Vec::new() } else { prefixes(checkpoint) };
            if !places.is_empty() {
                return Error::Format { path, message: elsewhere(NAME, &places) };
            }
            Error::CheckpointMismatch { path, network: NAME.into(), missing, unexpected: Vec::new(), mismatched }
        };
        let shape = |name: &str, rank: usize| match checkpoint.get(name).map(|entry| entry.shape()) {
            None => Err(mismatch(vec![name.to_owned()], Vec::new())),
            Some(shape) if shape.len() != rank => {
                Err(mismatch(Vec::new(), vec![format!("{name}: needs {rank} axes, has {shape:?}")]))
            }
            Some(shape) => Ok(shape.to_vec()),
        };
        let layers = |prefix: &str| {
            let blocks = (0..).take_while(|block| {
                checkpoint.get(&format!("{prefix}transformer.resblocks.{block}.attn.in_proj_weight")).is_some()
            });
            blocks.count()
        };
        let patches = shape("visual.conv1.weight", 4)?;
        let places = shape("visual.positional_embedding", 2)?[0];
        let grid = places.saturating_sub(1).isqrt();
        if grid == 0 || grid * grid + 1 != places || patches[3] == 0 || patches[0] < HEAD {
            let found = format!("visual.positional_embedding: needs a square number of places and one, has {places}");
            return Err(mismatch(Vec::new(), vec![found]));
        }
        let [context_length, transformer_width] = shape("positional_embedding", 2)?[..] else {
            return Err(mismatch(vec!["positional_embedding".into()], Vec::new()));
        };
        Ok(ClipShape {
            embed_dim: shape("text_projection", 2)?[1],
            image_resolution: patches[3].saturating_mul(grid),
            vision_layers: layers("visual."),
            vision_width: patches[0],
            vision_patch_size: patches[3],
            context_length,
            vocab_size: shape("token_embedding.weight", 2)?[0],
            transformer_width,
            transformer_layers: layers(""),
        })
    }

    /// The model's tensors, as OpenAI names them.
    pub fn architecture(&self) -> Architecture {
        let grid = self.image_resolution / self.vision_patch_size.max(1);
        let (vision, text) = (self.vision_width, self.transformer_width);
        let mut tensors: Architecture = vec![
            ("positional_embedding".into(), vec![self.context_length, text]),
            ("text_projection".into(), vec![text, self.embed_dim]),
            ("logit_scale".into(), vec![]),
            ("visual.class_embedding".into(), vec![vision]),
            ("visual.positional_embedding".into(), vec![grid * grid + 1, vision]),
            ("visual.proj".into(), vec![vision, self.embed_dim]),
            ("visual.conv1.weight".into(), vec![vision, 3, self.vision_patch_size, self.vision_patch_size]),
        ];
        let pair = |tensors: &mut Architecture, prefix: &str, shape: &[usize]| {
            tensors.push((format!("{prefix}.weight"), shape.to_vec()));
            tensors.push((format!("{prefix}.bias"), vec![shape[0]]));
        };
        pair(&mut tensors, "visual.ln_pre", &[vision]);
        let towers = [("visual.", vision, self.vision_layers), ("", text, self.transformer_layers)];
        for (tower, width, layers) in towers {
            for layer in 0..layers {
                let prefix = format!("{tower}transformer.resblocks.{layer}");
                tensors.push((format!("{prefix}.attn.in_proj_weight"), vec![3 * width, width]));
                tensors.push((format!("{prefix}.attn.in_proj_bias"), vec![3 * width]));
                pair(&mut tensors, &format!("{prefix}.attn.out_proj"), &[width, width]);
                pair(&mut tensors, &format!("{prefix}.ln_1"), &[width]);
                pair(&mut tensors, &format!("{prefix}.mlp.c_fc"), &[4 * width, width]);
                pair(&mut tensors, &format!("{prefix}.mlp.c_proj"), &[width, 4 * width]);
                pair(&mut tensors, &format!("{prefix}.ln_2"), &[width]);
            }
        }
        pair(&mut tensors, "visual.ln_post", &[vision]);
        tensors.push(("token_embedding.weight".into(), vec![self.vocab_size, text]));
        pair(&mut tensors, "ln_final", &[text]);
        tensors
    }
}

/// Texts as CLIP's transformer reads them: rows of token ids, the end of a text being its largest id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    rows: Vec<Vec<u32>>,
}

impl Tokens {
    /// Rows of token ids, all equally long: start, words, end, zeros.
    ///
    /// # Errors
    /// [`Error::Empty`] for no texts or texts without tokens, [`Error::Length`] for rows that differ in length.
    pub fn from_ids(rows: Vec<Vec<u32>>) -> Result<Self> {
        let length = rows.first().map_or(0, Vec::len);
        if length == 0 {
            return Err(Error::Empty { operation: "Tokens", argument: "text", got: vec![rows.len(), length] });
        }
        if let Some(other) = rows.iter().find(|row| row.len() != length) {
            let shape = vec![rows.len(), length];
            return Err(Error::Length { operation: "Tokens", shape, expected: length, got: other.len() });
        }
        Ok(Tokens { rows })
    }

    /// Texts through CLIP's byte-pair vocabulary, `context_length` tokens each (77 in every published model): the start
    /// token, the text's, the end token, zeros.
    ///
    /// Making the vocabulary takes a fraction of a second; it is made once.
    ///
    /// ```
    /// use image_losses_perceptual::networks::Tokens;
    ///
    /// let tokens = Tokens::tokenize(&["Hi there"], 77)?;
    /// assert_eq!(tokens.ids()[0][..5], [49406, 1883, 997, 49407, 0]);
    /// # Ok::<(), image_losses_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a text that is longer, as OpenAI's `tokenize` refuses it; [`Error::Empty`] for no
    /// texts.
    pub fn tokenize(texts: &[impl AsRef<str>], context_length: usize) -> Result<Self> {
        use std::sync::OnceLock;

        use instant_clip_tokenizer::{Token, Tokenizer};

        static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
        let tokenizer = image_losses_kernels::once::get_or_make(&TOKENIZER, Tokenizer::new);
        let row = |text: &str| {
            let mut tokens = vec![tokenizer.start_of_text()];
            // Runs of white space count as one space; the vocabulary's own splitting drops it.
            tokenizer.encode(text, &mut tokens);
            tokens.push(tokenizer.end_of_text());
            if tokens.len() > context_length {
                let expected = format!("a text of at most {context_length} tokens");
                return Err(Error::option(NAME, "text", expected, format!("{} for {text:?}", tokens.len())));
            }
            let mut row: Vec<u32> = tokens.into_iter().map(Token::to_u16).map(u32::from).collect();
            row.resize(context_length, 0);
            Ok(row)
        };
        Self::from_ids(texts.iter().map(|text| row(text.as_ref())).collect::<Result<_>>()?)
    }

    /// The rows.
    pub fn ids(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// Where each text ends: its largest id, the first of them.
    fn ends(&self) -> Vec<usize> {
        let end = |row: &Vec<u32>| {
            let largest = row.iter().max();
            row.iter().position(|id| Some(id) == largest).unwrap_or(0)
        };
        self.rows.iter().map(end).collect()
    }
}

/// A matrix (or a layer norm's factors) and its bias.
#[derive(Clone, Debug)]
struct Pair<P> {
    weight: P,
    bias: P,
}

/// A residual attention block.
#[derive(Clone, Debug)]
struct Block<P> {
    before_attention: Pair<P>,
    /// Queries, keys and values.
    attention: Pair<P>,
    attention_out: Pair<P>,
    before_mlp: Pair<P>,
    mlp_in: Pair<P>,
    mlp_out: Pair<P>,
}

/// All but the embedding of tokens, of which only the rows asked for reach an engine.
#[derive(Clone, Debug)]
struct Parts<P> {
    patches: P,
    class: P,
    vision_places: P,
    before_vision: Pair<P>,
    vision: Vec<Block<P>>,
    after_vision: Pair<P>,
    vision_projection: P,
    text_places: P,
    text: Vec<Block<P>>,
    after_text: Pair<P>,
    text_projection: P,
}

/// CLIP with a vision transformer of any size.
///
/// Source: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021; the tensors
/// are named as in OpenAI's `clip/model.py`.
#[derive(Clone, Debug)]
pub struct Clip {
    shape: ClipShape,
    parts: Parts<Parameter>,
    tokens: Parameter,
    logit_scale: f64,
    activation: ClipActivation,
    head_width: usize,
}

impl Clip {
    /// Reads a model from a checkpoint of OpenAI (a TorchScript archive or its state dictionary), of OpenCLIP, or in
    /// transformers' layout, as OpenAI's models are: with QuickGELU and heads of 64. The size is read from the tensors'
    /// shapes.
    ///
    /// # Errors
    /// As [`ClipShape::of`], and [`Error::CheckpointMismatch`] where tensors are missing or left over.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        Clip::load_as(checkpoint, ClipActivation::QuickGelu, HEAD)
    }

    /// The same with what a checkpoint does not tell: the activation of both transformers, and the length of a head's
    /// vectors in the vision transformer. Heads of the text transformer have 64.
    ///
    /// # Errors
    /// As [`load`](Clip::load), and [`Error::InvalidOption`] for a `head_width` that does not divide the width.
    pub fn load_as(checkpoint: &Checkpoint, activation: ClipActivation, head_width: usize) -> Result<Self> {
        let shape = ClipShape::of(checkpoint)?;
        let checkpoint = &*in_openai_layout(checkpoint)?;
        let needed = shape.architecture();
        let mut parameters = Parameters::load(checkpoint, NAME, &needed, &[], &BESIDE)?;
        let parameters = &mut parameters;
        if head_width == 0 || !shape.vision_width.is_multiple_of(head_width) {
            let expected = format!("a divisor of the vision transformer's width, {}", shape.vision_width);
            return Err(Error::option(NAME, "head_width", expected, head_width));
        }
        if !shape.transformer_width.is_multiple_of(HEAD) {
            return Err(Error::Format {
                path: checkpoint.path().to_owned(),
                message: format!("a text transformer of a width that heads of {HEAD} do not divide: {shape:?}"),
            });
        }
        let logit_scale = parameters.take("logit_scale")?.values.first().map_or(0.0, |&value| f64::from(value));
        let tokens = parameters.take("token_embedding.weight")?;
        let parts = Parts {
            patches: parameters.take("visual.conv1.weight")?,
            class: parameters.take("visual.class_embedding")?,
            vision_places: parameters.take("visual.positional_embedding")?,
            before_vision: take_pair(parameters, "visual.ln_pre")?,
            vision: take_blocks(parameters, "visual.", shape.vision_layers)?,
            after_vision: take_pair(parameters, "visual.ln_post")?,
            vision_projection: parameters.take("visual.proj")?,
            text_places: parameters.take("positional_embedding")?,
            text: take_blocks(parameters, "", shape.transformer_layers)?,
            after_text: take_pair(parameters, "ln_final")?,
            text_projection: parameters.take("text_projection")?,
        };
        Ok(Clip { shape, parts, tokens, logit_scale, activation, head_width })
    }

    /// Its size.
    pub fn shape(&self) -> ClipShape {
        self.shape
    }

    /// The logarithm of the scale of its cosines.
    pub fn logit_scale(&self) -> f64 {
        self.logit_scale
    }

    /// The image's transformer, fused: with QuickGELU alone.
    pub(crate) fn frozen(&self) -> Result<VisionTransformer> {
        if self.activation != ClipActivation::QuickGelu {
            return Err(Error::option(NAME, "activation", "quick_gelu in the fused transformer", "gelu"));
        }
        let values = |parameter: &Parameter| Arc::clone(&parameter.values);
        let layer = |pair: &Pair<Parameter>| fused::Layer { weight: values(&pair.weight), bias: values(&pair.bias) };
        let block = |block: &Block<Parameter>| fused::Block {
            before_attention: layer(&block.before_attention),
            attention: layer(&block.attention),
            attention_out: layer(&block.attention_out),
            before_mlp: layer(&block.before_mlp),
            mlp_in: layer(&block.mlp_in),
            mlp_out: layer(&block.mlp_out),
        };
        let parts = &self.parts;
        VisionTransformer::new(&fused::Parts {
            resolution: self.shape.image_resolution,
            patch: self.shape.vision_patch_size,
            heads: self.shape.vision_width / self.head_width,
            patches: values(&parts.patches),
            class: values(&parts.class),
            places: values(&parts.vision_places),
            before: layer(&parts.before_vision),
            blocks: parts.vision.iter().map(block).collect(),
            after: layer(&parts.after_vision),
            projection: values(&parts.vision_projection),
        })
    }

    /// The model on a context.
    ///
    /// # Errors
    /// The engine's own.
    pub fn bind<T: Tensor>(&self, context: &T::Context) -> Result<BoundClip<T>> {
        let one = |parameter: &Parameter| parameter.bind(context);
        let pair = |pair: &Pair<Parameter>| {
            Ok::<_, Error>(Pair { weight: pair.weight.bind(context)?, bias: pair.bias.bind(context)? })
        };
        let block = |block: &Block<Parameter>| {
            Ok(Block {
                before_attention: pair(&block.before_attention)?,
                attention: pair(&block.attention)?,
                attention_out: pair(&block.attention_out)?,
                before_mlp: pair(&block.before_mlp)?,
                mlp_in: pair(&block.mlp_in)?,
                mlp_out: pair(&block.mlp_out)?,
            })
        };
        let parts = &self.parts;
        Ok(BoundClip {
            shape: self.shape,
            logit_scale: self.logit_scale,
            activation: self.activation,
            head_width: self.head_width,
            tokens: self.tokens.clone(),
            parts: Parts {
                patches: one(&parts.patches)?,
                class: one(&parts.class)?,
                vision_places: one(&parts.vision_places)?,
                before_vision: pair(&parts.before_vision)?,
                vision: parts.vision.iter().map(block).collect::<Result<_>>()?,
                after_vision: pair(&parts.after_vision)?,
                vision_projection: one(&parts.vision_projection)?,
                text_places: one(&parts.text_places)?,
                text: parts.text.iter().map(block).collect::<Result<_>>()?,
                after_text: pair(&parts.after_text)?,
                text_projection: one(&parts.text_projection)?,
            },
        })
    }
}

/// The prefixes under which a CLIP lies in a file.
pub(super) fn prefixes(checkpoint: &Checkpoint) -> Vec<String> {
    let mut prefixes = checkpoint.prefixes_of("visual.conv1.weight");
    prefixes.extend(checkpoint.prefixes_of("vision_model.embeddings.patch_embedding.weight"));
    prefixes.retain(|prefix| checkpoint.under(prefix).is_ok_and(|part| ClipShape::of(&part).is_ok()));
    prefixes
}

/// Whether the tensors are named as in transformers' `CLIPModel`.
fn is_in_transformers_layout(checkpoint: &Checkpoint) -> bool {
    checkpoint.get("vision_model.embeddings.patch_embedding.weight").is_some()
}

/// The checkpoint with OpenAI's names. transformers keeps queries, keys and values apart, and projections transposed.
pub(super) fn in_openai_layout(checkpoint: &Checkpoint) -> Result<Cow<'_, Checkpoint>> {
    if !is_in_transformers_layout(checkpoint) {
        return Ok(Cow::Borrowed(checkpoint));
    }
    let mut entries = Vec::new();
    // Queries, keys and values by the name of what they become.
    let mut joint: BTreeMap<String, [Option<(&str, &Entry)>; 3]> = BTreeMap::new();
    for (name, entry) in checkpoint.iter() {
        if name.ends_with(".embeddings.position_ids") {
            continue;
        }
        match openai_name(name) {
            Some((new, Role::Plain)) => entries.push((new, entry.clone())),
            Some((new, Role::Transposed)) => entries.push((new, entry.transposed().unwrap_or_else(|| entry.clone()))),
            Some((new, Role::Part(part))) => joint.entry(new).or_default()[part] = Some((name, entry)),
            None => entries.push((name.to_owned(), entry.clone())),
        }
    }
    for (new, parts) in joint {
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        let joined =
            (parts.len() == 3).then(|| Entry::joined(parts.iter().map(|(_, entry)| (*entry).clone()).collect()));
        match joined.flatten() {
            Some(joined) => entries.push((new, joined)),
            // They are left over, and what they become is missing.
            None => entries.extend(parts.into_iter().map(|(name, entry)| (name.to_owned(), entry.clone()))),
        }
    }
    checkpoint.with_entries(entries).map(Cow::Owned)
}

/// What a tensor of transformers is to one of OpenAI.
enum Role {
    Plain,
    Transposed,
    /// Queries (0), keys (1) or values (2).
    Part(usize),
}

/// OpenAI's name for a tensor of transformers' `CLIPModel`.
fn openai_name(name: &str) -> Option<(String, Role)> {
    let whole = match name {
        "logit_scale" => "logit_scale",
        "visual_projection.weight" => return Some(("visual.proj".into(), Role::Transposed)),
        "text_projection.weight" => return Some(("text_projection".into(), Role::Transposed)),
        "vision_model.embeddings.class_embedding" => "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight" => "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight" => "visual.positional_embedding",
        "text_model.embeddings.token_embedding.weight" => "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight" => "positional_embedding",
        _ => "",
    };
    if !whole.is_empty() {
        return Some((whole.into(), Role::Plain));
    }
    let (module, own) = name.rsplit_once('.')?;
    let norm = match module {
        "vision_model.pre_layrnorm" => "visual.ln_pre",
        "vision_model.post_layernorm" => "visual.ln_post",
        "text_model.final_layer_norm" => "ln_final",
        _ => "",
    };
    if !norm.is_empty() {
        return Some((format!("{norm}.{own}"), Role::Plain));
    }
    let (tower, rest) = match module.strip_prefix("vision_model.encoder.layers.") {
        Some(rest) => ("visual.", rest),
        None => ("", module.strip_prefix("text_model.encoder.layers.")?),
    };
    let (layer, part) = rest.split_once('.')?;
    let block = format!("{tower}transformer.resblocks.{layer}");
    let plain = match part {
        "layer_norm1" => "ln_1",
        "layer_norm2" => "ln_2",
        "mlp.fc1" => "mlp.c_fc",
        "mlp.fc2" => "mlp.c_proj",
        "self_attn.out_proj" => "attn.out_proj",
        _ => {
            let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
            let index = parts.iter().position(|known| *known == part)?;
            return Some((format!("{block}.attn.in_proj_{own}"), Role::Part(index)));
        }
    };
    Some((format!("{block}.{plain}.{own}"), Role::Plain))
}

fn take_pair(parameters: &mut Parameters, prefix: &str) -> Result<Pair<Parameter>> {
    Ok(Pair {
        weight: parameters.take(&format!("{prefix}.weight"))?,
        bias: parameters.take(&format!("{prefix}.bias"))?,
    })
}

fn take_blocks(parameters: &mut Parameters, tower: &str, layers: usize) -> Result<Vec<Block<Parameter>>> {
    let block = |layer| {
        let prefix = format!("{tower}transformer.resblocks.{layer}");
        Ok(Block {
            before_attention: take_pair(parameters, &format!("{prefix}.ln_1"))?,
            attention: Pair {
                weight: parameters.take(&format!("{prefix}.attn.in_proj_weight"))?,
                bias: parameters.take(&format!("{prefix}.attn.in_proj_bias"))?,
            },
            attention_out: take_pair(parameters, &format!("{prefix}.attn.out_proj"))?,
            before_mlp: take_pair(parameters, &format!("{prefix}.ln_2"))?,
            mlp_in: take_pair(parameters, &format!("{prefix}.mlp.c_fc"))?,
            mlp_out: take_pair(parameters, &format!("{prefix}.mlp.c_proj"))?,
        })
    };
    (0..layers).map(block).collect()
}

/// A [`Clip`] on a context.
#[derive(Clone, Debug)]
pub struct BoundClip<T> {
    shape: ClipShape,
    logit_scale: f64,
    activation: ClipActivation,
    head_width: usize,
    tokens: Parameter,
    parts: Parts<T>,
}

impl<T: Tensor> BoundClip<T> {
    /// Its size.
    pub fn shape(&self) -> ClipShape {
        self.shape
    }

    /// The logarithm of the factor between cosines and logits.
    pub fn logit_scale(&self) -> f64 {
        self.logit_scale
    }

    /// The embeddings of images: (N, 3, R, R) to (N, D), each of length 1.
    ///
    /// # Errors
    /// [`Error::ShapeRule`] for images of another size than the model's.
    pub fn encode_image(&self, images: &T) -> Result<T> {
        let shape = images.shape();
        let (size, width, patch) = (self.shape.image_resolution, self.shape.vision_width, self.shape.vision_patch_size);
        check_image(NAME, "image", &shape, 3)?;
        if shape[2..] != [size, size] {
            let expected = format!("{size}×{size} pixels for the vision transformer");
            return Err(Error::ShapeRule { operation: NAME, argument: "image", expected, got: shape });
        }
        let (batch, places) = (shape[0], (size / patch) * (size / patch));
        let parts = &self.parts;
        let patches = images.convolve(&parts.patches, Conv2d::default().strided(patch))?;
        let patches = patches.reshape(&[batch, width, places])?.permute(&[0, 2, 1])?;
        let class = parts.class.reshape(&[1, 1, width])?.broadcast_to(&[batch, 1, width])?;
        let mut x = T::concatenate(&[&class, &patches], 1)?;
        x = x.add(&parts.vision_places.reshape(&[1, places + 1, width])?)?;
        x = layer_norm(&x, &parts.before_vision)?;
        for block in &parts.vision {
            x = block.forward(&x, None, self.head_width, self.activation)?;
        }
        x = layer_norm(&x.narrow(1, 0, 1)?.reshape(&[batch, width])?, &parts.after_vision)?;
        normalised(&x.matmul(&parts.vision_projection, false, false)?)
    }

    /// The embeddings of texts: (M, D), each of length 1.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for more tokens than the model takes or ids beyond its vocabulary.
    pub fn encode_text(&self, tokens: &Tokens) -> Result<T> {
        let rows = tokens.ids();
        let ClipShape { context_length, vocab_size, transformer_width: width, .. } = self.shape;
        let got = rows.iter().map(Vec::len).max().unwrap_or(0);
        if got > context_length {
            return Err(Error::option(NAME, "text", format!("at most {context_length} tokens"), got));
        }
        if let Some(id) = rows.iter().flatten().find(|id| **id as usize >= vocab_size) {
            return Err(Error::option(NAME, "text", format!("token ids below {vocab_size}"), id));
        }
        // A token sees only those before it: what follows the last text's end has no influence.
        let ends = tokens.ends();
        let (texts, length) = (rows.len(), ends.iter().max().map_or(0, |end| end + 1));
        let ids = rows.iter().flat_map(|row| &row[..length]);
        let values: Vec<f64> = ids
            .flat_map(|id| &self.tokens.values[*id as usize * width..][..width])
            .map(|&value| f64::from(value))
            .collect();
        let parts = &self.parts;
        let places = parts.text_places.narrow(0, 0, length)?.reshape(&[1, length, width])?;
        let mut x = T::constant(&parts.patches.context(), &values, &[texts, length, width])?.add(&places)?;
        let mask: Vec<f64> =
            (0..length * length).map(|i| if i % length > i / length { f64::NEG_INFINITY } else { 0.0 }).collect();
        let mask = T::constant(&x.context(), &mask, &[1, 1, length, length])?;
        for block in &parts.text {
            x = block.forward(&x, Some(&mask), HEAD, self.activation)?;
        }
        let last: Vec<T> = ends
            .iter()
            .enumerate()
            .map(|(text, end)| x.narrow(0, text, 1)?.narrow(1, *end, 1))
            .collect::<Result<_>>()?;
        let x = T::concatenate(&last.iter().collect::<Vec<_>>(), 0)?.reshape(&[texts, width])?;
        let x = layer_norm(&x, &parts.after_text)?;
        normalised(&x.matmul(&parts.text_projection, false, false)?)
    }
}

impl<T: Tensor> Block<T> {
    /// (N, L, D) to the same; `mask` is added to the scores.
    fn forward(&self, x: &T, mask: Option<&T>, head_width: usize, activation: ClipActivation) -> Result<T> {
        let shape = x.shape();
        let (batch, length, width) = (shape[0], shape[1], shape[2]);
        let heads = width / head_width;
        let flat = [batch * length, width];
        let joint = linear(&layer_norm(x, &self.before_attention)?.reshape(&flat)?, &self.attention)?;
        let part = |index: usize| {
            let part = joint.narrow(1, index * width, width)?;
            part.reshape(&[batch, length, heads, head_width])?.permute(&[0, 2, 1, 3])
        };
        let (queries, keys, values) = (part(0)?.scale(1.0 / (head_width as f64).sqrt())?, part(1)?, part(2)?);
        let mut scores = queries.matmul(&keys, false, true)?;
        if let Some(mask) = mask {
            scores = scores.add(mask)?;
        }
        let seen = scores.softmax()?.matmul(&values, false, false)?.permute(&[0, 2, 1, 3])?;
        let x = x.add(&linear(&seen.reshape(&flat)?, &self.attention_out)?.reshape(&shape)?)?;
        let hidden = linear(&layer_norm(&x, &self.before_mlp)?.reshape(&flat)?, &self.mlp_in)?;
        let activation = match activation {
            ClipActivation::QuickGelu => &QUICK_GELU,
            ClipActivation::Gelu => &GELU,
        };
        let hidden = T::pointwise(activation, &[&hidden])?;
        x.add(&linear(&hidden, &self.mlp_out)?.reshape(&shape)?)
    }
}

/// x Wᵀ + b on rows.
fn linear<T: Tensor>(rows: &T, layer: &Pair<T>) -> Result<T> {
    rows.matmul(&layer.weight, false, true)?.add(&layer.bias.reshape(&[1, layer.bias.elements()])?)
}

/// (x − mean)/√(var + ε)·w + b over the last axis.
fn layer_norm<T: Tensor>(x: &T, layer: &Pair<T>) -> Result<T> {
    let last = x.rank() - 1;
    let wide = x.accumulator()?;
    let centred = wide.sub(&wide.mean(&[last], true)?)?;
    let deviation = centred.unary(Unary::Square)?.mean(&[last], true)?.shift(LAYER_NORM_EPSILON)?.unary(Unary::Sqrt)?;
    let mut row = vec![1; x.rank()];
    row[last] = layer.weight.elements();
    centred.div(&deviation)?.cast_like(x)?.mul(&layer.weight.reshape(&row)?)?.add(&layer.bias.reshape(&row)?)
}

/// x·sigmoid(1.702 x), CLIP's Gaussian error linear unit.
#[derive(Clone, Copy, Debug)]
struct QuickGelu;

static QUICK_GELU: LazyLock<Function> = LazyLock::new(|| Function::new(QuickGelu));

impl Pointwise<1> for QuickGelu {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        x * (x * 1.702).sigmoid()
    }
}

/// x·Φ(x), the Gaussian error linear unit: max(x, 0) − |x|·erfc(|x|/√2)/2, which cancels nowhere.
#[derive(Clone, Copy, Debug)]
struct Gelu;

static GELU: LazyLock<Function> = LazyLock::new(|| Function::new(Gelu));

/// The Chebyshev coefficients of ln(erfc(z)·exp(z²)/t) over t = 2/(2 + z) in (0, 1], z ≥ 0, the first halved; the sum
/// of all that are left out is below 1e-15.
const ERFC: [f64; 24] = [
    -1.302_653_719_781_709_4 / 2.0,
    0.641_969_792_356_490_3,
    0.019_476_473_204_185_836,
    -0.009_561_514_786_808_632,
    -0.000_946_595_344_482_036_9,
    0.000_366_839_497_852_761_47,
    4.252_332_480_690_777e-5,
    -2.027_857_811_253_424e-5,
    -1.624_290_004_647_027e-6,
    1.303_655_835_580_523_4e-6,
    1.562_644_172_206_720_7e-8,
    -8.523_809_591_492_883e-8,
    6.529_054_439_102_302e-9,
    5.059_343_495_546_961e-9,
    -9.913_641_564_875_996e-10,
    -2.273_651_222_993_823e-10,
    9.646_791_102_696_682e-11,
    2.394_038_075_874_243e-12,
    -6.886_027_519_160_092e-12,
    8.944_879_200_147_888e-13,
    3.130_921_469_709_519e-13,
    -1.127_082_301_858_760_3e-13,
    3.810_964_401_546_875e-16,
    7.106_092_530_266_315e-15,
];

impl Pointwise<1> for Gelu {
    fn value<'e>(&self, [x]: [Expr<'e>; 1]) -> Expr<'e> {
        let z = x.abs() * std::f64::consts::FRAC_1_SQRT_2;
        let t = z.constant(2.0) / (z + 2.0);
        // Clenshaw's recurrence at 2t − 1, doubled.
        let y = t * 4.0 - 2.0;
        let (mut later, mut last) = (z.constant(0.0), z.constant(0.0));
        for &coefficient in ERFC[1..].iter().rev() {
            (later, last) = (last, y * last - later + coefficient);
        }
        let erfc = t * (y * 0.5 * last - later + ERFC[0] - z.square()).exp();
        // |x| has the derivative 0 at 0, this 1/2.
        x.if_zero(x * 0.5, x.relu() - x.abs() * erfc * 0.5)
    }
}

#[cfg(test)]
mod tests {
    use image_losses_autograd::differentiate;

    use super::*;

    /// x·erfc(−x/√2)/2 and its derivative erfc(−x/√2)/2 + x·exp(−x²/2)/√(2π), by Python's `math`.
    #[test]
    fn gelu_and_its_derivative() -> Result<()> {
        let table = [
            (0.0, 0.0, 0.5),
            (1e-3, 0.000_500_398_942_213_911, 0.500_797_884_294_841_4),
            (0.5, 0.345_731_230_637_006_56, 0.867_495_124_656_162_9),
            (-1.0, -0.158_655_253_931_457_07, -0.083_315_470_587_686_29),
            (2.0, 1.954_499_736_103_641_6, 1.085_231_801_078_197),
            (-5.0, -1.433_257_859_395_973_1e-6, -7.146_946_001_792_295e-6),
            (-12.0, -2.131_778_534_493_242_4e-32, -2.557_895_661_674_895_6e-31),
            (30.0, 30.0, 1.0),
        ];
        for (x, value, derivative) in table {
            let inputs = [(vec![x], vec![1])];
            let (found, gradients) = differentiate(&inputs, |x| Tensor::pointwise(&GELU, &[&x[0]]))?;
            // exp's argument, x²/2, is rounded: 72 · 2⁻⁵³ at −12, and as often again by each of the recurrence's terms.
            let error = |found: f64, expected: f64| (found - expected).abs() / f64::max(expected.abs(), 1e-300);
            assert!(error(found[0], value) <= 1e-13, "{x}: {found:?}");
            assert!(error(gradients[0][0], derivative) <= 1e-12, "{x}: derivative {gradients:?}");
        }
        Ok(())
    }
}
