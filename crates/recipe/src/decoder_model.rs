//! The keys that new models of all families with rotary positions have, and their checks.

use serde_json::Value;

use crate::diagnostics::Diagnostics;
use crate::rope::RopeScaling;

/// The keys of a new model.
pub(crate) trait NewModel {
    /// Vocabulary size, where the recipe names one.
    fn vocab_size(&self) -> Option<usize>;

    /// The key of the maximum sequence length.
    fn positions_key(&self) -> &'static str {
        "max_position_embeddings"
    }

    /// Maximum sequence length, where the recipe sets it.
    fn max_positions(&self) -> Option<usize>;

    /// The keys as in config.json.
    fn keys(&self) -> serde_json::Result<Value>;

    fn check(&self, diagnostics: &mut Diagnostics);
}

/// Declares the section of a family: the keys that all decoders with rotary positions have, with the family's defaults, and
/// the family's own keys. Defaults name functions that the declaring file imports or has.
macro_rules! decoder_model {
    (
        $(#[$doc:meta])*
        $model:ident {
            head_dim: $head_dim:ident $(($width:literal))?,
            rms_norm_eps: $eps:tt,
            rope_theta: $theta:tt,
            tie_word_embeddings: $tied:tt;
            $($(#[$meta:meta])* $key:ident: $type:ty,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[allow(clippy::struct_excessive_bools, reason = "config.json has these keys")]
        pub struct $model {
            /// Width of the model.
            #[schemars(range(min = 2, max = 65_536))]
            pub hidden_size: usize,
            /// Number of blocks.
            #[schemars(range(min = 1, max = 1024))]
            pub num_hidden_layers: usize,
            /// Number of query heads.
            #[schemars(range(min = 1, max = 1024))]
            pub num_attention_heads: usize,
            /// Number of key and value heads; it must divide the number of query heads. Default: one per
            /// query head.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1, max = 1024))]
            pub num_key_value_heads: Option<usize>,
            /// Width of the feed-forward layers.
            #[schemars(range(min = 1, max = 1_048_576))]
            pub intermediate_size: usize,
            #[doc = crate::decoder_model::head_dim_doc!($head_dim $(($width))?)]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 2, max = 4096))]
            pub head_dim: Option<usize>,
            /// Vocabulary size. Default: that of the tokenizer.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1, max = 1_048_576))]
            pub vocab_size: Option<usize>,
            /// Maximum sequence length, in tokens. Default: the longest `sequence_length` of the recipe.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1, max = 16_777_216))]
            pub max_position_embeddings: Option<usize>,
            /// Added to the denominator of RMSNorm for numerical stability.
            #[serde(default = $eps)]
            #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.1))]
            pub rms_norm_eps: f64,
            /// Base of the rotary position embeddings.
            #[serde(default = $theta)]
            #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e12))]
            pub rope_theta: f64,
            /// Scaling of the rotary position embeddings to longer sequences. Default: none.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub rope_scaling: Option<crate::rope::RopeScaling>,
            /// Whether the output layer shares the token embedding's weights.
            #[serde(default = $tied)]
            pub tie_word_embeddings: bool,
            /// Standard deviation of new weights.
            #[serde(default = "default_initializer_range")]
            #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
            pub initializer_range: f64,
            $($(#[$meta])* pub $key: $type,)*
        }

        impl NewModel for $model {
            fn vocab_size(&self) -> Option<usize> {
                self.vocab_size
            }

            fn max_positions(&self) -> Option<usize> {
                self.max_position_embeddings
            }

            fn keys(&self) -> serde_json::Result<Value> {
                serde_json::to_value(self)
            }

            fn check(&self, diagnostics: &mut Diagnostics) {
                DecoderCheck {
                    hidden_size: self.hidden_size,
                    num_attention_heads: self.num_attention_heads,
                    num_key_value_heads: self.num_key_value_heads,
                    head_dim: self.head_dim,
                    divides_width: stringify!($head_dim) == "Divided",
                    rope_scaling: self.rope_scaling.as_ref(),
                }
                .run(diagnostics);
            }
        }
    };
}

/// The documentation of `head_dim`, by its default.
macro_rules! head_dim_doc {
    (Divided) => {
        "Width of a head, an even number. Default: `hidden_size` / `num_attention_heads`."
    };
    (Constant($width:literal)) => {
        concat!("Width of a head, an even number. Default: ", $width, ".")
    };
}

pub(crate) use {decoder_model, head_dim_doc};

/// The keys whose values depend on each other.
pub(crate) struct DecoderCheck<'a> {
    pub(crate) hidden_size: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: Option<usize>,
    pub(crate) head_dim: Option<usize>,
    /// Whether the width of a head is by default that of the model over the number of heads.
    pub(crate) divides_width: bool,
    pub(crate) rope_scaling: Option<&'a RopeScaling>,
}

impl DecoderCheck<'_> {
    pub(crate) fn run(&self, diagnostics: &mut Diagnostics) {
        let heads = self.num_attention_heads;
        if let Some(kv_heads) = self.num_key_value_heads
            && !heads.is_multiple_of(kv_heads)
        {
            diagnostics.value(
                "model.num_key_value_heads",
                &format!("must divide `num_attention_heads` ({heads})"),
                kv_heads,
            );
        }
        match self.head_dim {
            Some(head_dim) if !head_dim.is_multiple_of(2) => {
                diagnostics.value("model.head_dim", "must be even for rotary positions", head_dim);
            }
            None if self.divides_width && !self.hidden_size.is_multiple_of(2 * heads) => {
                diagnostics.value(
                    "model.hidden_size",
                    &format!("must be a multiple of 2 × `num_attention_heads` ({heads}) unless `head_dim` is given"),
                    self.hidden_size,
                );
            }
            Some(_) | None => {}
        }
        if let Some(rope) = self.rope_scaling {
            rope.check("model.rope_scaling", diagnostics);
        }
    }
}

pub(crate) fn no() -> bool {
    false
}

pub(crate) fn yes() -> bool {
    true
}

pub(crate) fn eps_5() -> f64 {
    1e-5
}

pub(crate) fn eps_6() -> f64 {
    1e-6
}

pub(crate) fn theta_1e4() -> f64 {
    10_000.0
}

pub(crate) fn theta_5e5() -> f64 {
    500_000.0
}

pub(crate) fn theta_1e6() -> f64 {
    1_000_000.0
}

pub(crate) fn theta_2e6() -> f64 {
    2_000_000.0
}

pub(crate) fn default_initializer_range() -> f64 {
    0.02
}
