//! `[model]`: a new model with the keys of its config.json, or the directory of an existing one.
//! Sizes become parameters in `arch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::activation::Activation;
use crate::decoder_model::{NewModel, default_initializer_range};
use crate::dense_models::{
    Exaone4Model, Gemma2Model, Gemma3TextModel, GraniteModel, LlamaModel, MistralModel, Olmo2Model,
    Olmo3Model, Phi3Model, Qwen2Model, Qwen3Model, SmolLm3Model,
};
use crate::diagnostics::Diagnostics;
use crate::expert_models::{MixtralModel, Qwen2MoeModel, Qwen3MoeModel};

/// Declares [`ModelSection`] with a variant per family, and the match over them.
macro_rules! families {
    ($($(#[$doc:meta])* $name:literal $family:ident($model:ident),)+) => {
        /// Model of the stages that have no `start`: exactly one of `family`, for a new model, and `start`,
        /// for an existing one.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "family")]
        // A recipe has one of these, so its size does not matter.
        #[allow(clippy::large_enum_variant)]
        pub enum ModelSection {
            $($(#[$doc])* #[serde(rename = $name)] $family($model),)+
            /// An existing model.
            #[serde(untagged)]
            Start(StartModel),
        }

        impl ModelSection {
            /// The family's name and keys of a new model.
            fn new_model(&self) -> Option<(&'static str, &dyn NewModel)> {
                match self {
                    $(Self::$family(keys) => Some(($name, keys)),)+
                    Self::Start(_) => None,
                }
            }
        }
    };
}

families! {
    /// Llama: RMSNorm, rotary position embeddings, grouped-query attention, SwiGLU.
    "llama" Llama(LlamaModel),
    /// GPT-2: LayerNorm, learned position embeddings, GELU.
    "gpt2" Gpt2(Gpt2Model),
    /// Qwen3: Llama with an RMSNorm on each query head and each key head.
    "qwen3" Qwen3(Qwen3Model),
    /// Mistral: Llama with an attention window in all blocks.
    "mistral" Mistral(MistralModel),
    /// Qwen2 and Qwen2.5: Llama with biases of queries, keys and values.
    "qwen2" Qwen2(Qwen2Model),
    /// Gemma 2: norms before and after each half of a block, soft caps, windows in every other block, GeGLU.
    "gemma2" Gemma2(Gemma2Model),
    /// Gemma 3 without images: Gemma 2 with norms on queries and keys in place of soft caps.
    "gemma3_text" Gemma3Text(Gemma3TextModel),
    /// Phi-3: Llama with packed projections.
    "phi3" Phi3(Phi3Model),
    /// OLMo 2: norms after each half of a block, and over whole queries and keys.
    "olmo2" Olmo2(Olmo2Model),
    /// OLMo 3: OLMo 2 with windows in three of four blocks.
    "olmo3" Olmo3(Olmo3Model),
    /// EXAONE 4: OLMo 2 with norms of each head, windows in three of four blocks and no positions in the others.
    "exaone4" Exaone4(Exaone4Model),
    /// SmolLM3: Llama with blocks without positions.
    "smollm3" SmolLm3(SmolLm3Model),
    /// Granite: Llama with multipliers of embeddings, scores, residual stream and logits.
    "granite" Granite(GraniteModel),
    /// Mixtral: Mistral with experts in place of the feed-forward layers.
    "mixtral" Mixtral(MixtralModel),
    /// Qwen2 with experts, one of which every token is sent to.
    "qwen2_moe" Qwen2Moe(Qwen2MoeModel),
    /// Qwen3 with experts.
    "qwen3_moe" Qwen3Moe(Qwen3MoeModel),
}

/// An existing model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartModel {
    /// Hugging Face directory (config.json, safetensors, tokenizer.json), relative to the recipe or
    /// under `data:`, or `hf:OWNER/MODEL` after `temper get`.
    #[schemars(extend("format" = "input-path"))]
    pub start: String,
}

/// A new model of the family `gpt2`. The keys are those of its config.json, and `bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Model {
    /// Width of the model, a multiple of the number of heads.
    #[schemars(range(min = 1, max = 65_536))]
    pub n_embd: usize,
    /// Number of blocks.
    #[schemars(range(min = 1, max = 1024))]
    pub n_layer: usize,
    /// Number of heads.
    #[schemars(range(min = 1, max = 1024))]
    pub n_head: usize,
    /// Number of learned positions, the maximum sequence length. Default: the longest
    /// `sequence_length` of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub n_positions: Option<usize>,
    /// Width of the feed-forward layers. Default: 4 × `n_embd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub n_inner: Option<usize>,
    /// Vocabulary size. Default: that of the tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub vocab_size: Option<usize>,
    /// Added to the denominator of LayerNorm for numerical stability.
    #[serde(default = "default_layer_norm_epsilon")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.1))]
    pub layer_norm_epsilon: f64,
    /// Activation function of the feed-forward layers.
    #[serde(default = "default_activation_function")]
    pub activation_function: Activation,
    /// Whether the output layer shares the token embedding's weights.
    #[serde(default = "default_true")]
    pub tie_word_embeddings: bool,
    /// Standard deviation of new weights.
    #[serde(default = "default_initializer_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub initializer_range: f64,
    /// Whether projections and norms have biases. A key of Temper: with `false` these parameters do
    /// not exist in training, and exports write them as zeros.
    #[serde(default = "default_true")]
    pub bias: bool,
}

impl ModelSection {
    pub(crate) const PATH: &'static str = "model";

    /// Whether the section describes a new model.
    pub fn is_new(&self) -> bool {
        self.new_model().is_some()
    }

    /// Vocabulary size, where the recipe names one.
    pub fn vocab_size(&self) -> Option<usize> {
        self.new_model()?.1.vocab_size()
    }

    /// Maximum sequence length with its key, where the recipe sets it.
    pub fn max_positions(&self) -> Option<(&'static str, usize)> {
        let (_, model) = self.new_model()?;
        Some((model.positions_key(), model.max_positions()?))
    }

    /// config.json of a new model. A vocabulary size or maximum sequence length that the recipe
    /// leaves out is filled in. None for an existing model, which has its own file.
    pub fn config_json(&self, vocab_size: usize, max_positions: usize) -> Option<Value> {
        let (model_type, model) = self.new_model()?;
        let Ok(Value::Object(keys)) = model.keys() else { return None };
        let mut config = serde_json::Map::new();
        config.insert("model_type".to_owned(), model_type.into());
        config.extend(keys);
        config.entry("vocab_size").or_insert(vocab_size.into());
        config.entry(model.positions_key()).or_insert(max_positions.into());
        Some(Value::Object(config))
    }

    pub(crate) fn check(&self, diagnostics: &mut Diagnostics) {
        if let Some((_, model)) = self.new_model() {
            model.check(diagnostics);
        }
    }
}

impl NewModel for Gpt2Model {
    fn vocab_size(&self) -> Option<usize> {
        self.vocab_size
    }

    fn positions_key(&self) -> &'static str {
        "n_positions"
    }

    fn max_positions(&self) -> Option<usize> {
        self.n_positions
    }

    fn keys(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    fn check(&self, diagnostics: &mut Diagnostics) {
        if !self.n_embd.is_multiple_of(self.n_head) {
            diagnostics.value(
                "model.n_embd",
                &format!("must be a multiple of `n_head` ({})", self.n_head),
                self.n_embd,
            );
        }
    }
}

fn default_true() -> bool {
    true
}

fn default_layer_norm_epsilon() -> f64 {
    1e-5
}

fn default_activation_function() -> Activation {
    Activation::GeluNew
}
