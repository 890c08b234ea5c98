//! Keys of config.json that are the same for all families: those that change no forward pass, and those that must be off.

use serde_json::{Map, Value};

/// Attributes of transformers' base configuration (4.57 and 5.23), and keys of other tools, that change no forward pass.
///
/// Keys with a leading underscore (`_name_or_path`, `_attn_implementation`) are ignored by rule. Keys of one family are
/// listed in that family's file.
const IGNORED: &[&str] = &[
    // Origin of the file.
    "name_or_path",
    "transformers_version",
    "transformers.js_config",
    "is_llama_config",
    "unsloth_fixed",
    "unsloth_version",
    // Tokenizer and input pipeline.
    "tokenizer_class",
    "finetuning_task",
    "task_specific_params",
    "prefix",
    "sep_token_id",
    "unk_token_id",
    "decoder_start_token_id",
    // Format of the output, caching and choice of kernels.
    "use_cache",
    "return_dict",
    "use_return_dict",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "torchscript",
    "attn_implementation",
    "experts_implementation",
    "use_bfloat16",
    "gradient_checkpointing",
    "chunk_size_feed_forward",
    // Losses of TensorFlow models, and options of encoder–decoder models: `is_encoder_decoder` itself must be off.
    "tf_legacy_loss",
    "mask_value",
    "is_decoder",
    "tie_encoder_decoder",
    "cross_attention_hidden_size",
    // Labels of classification heads. The number of scores is checked with the shape of the head's weight.
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "classifier_dropout",
    // Default sampling parameters, which belong in generation_config.json.
    "max_length",
    "min_length",
    "max_new_tokens",
    "min_new_tokens",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
];

/// Keys of any family that change the forward pass unless they have this value.
pub(crate) const REQUIRED_OFF: &[(&str, Off)] = &[
    ("add_cross_attention", Off::False),
    ("is_encoder_decoder", Off::False),
    ("compression_config", Off::Null),
    ("pruned_heads", Off::Empty),
    ("per_layer_config", Off::Empty),
];

/// Keys of config.json that change no forward pass in any family. Keys with a leading underscore are ignored besides.
pub fn ignored_config_keys() -> &'static [&'static str] {
    IGNORED
}

/// Whether a key changes no forward pass in any family.
pub(crate) fn is_ignored(key: &str) -> bool {
    key.starts_with('_') || IGNORED.contains(&key)
}

/// The value that turns a feature off; null always does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Off {
    Null,
    False,
    Empty,
}

impl Off {
    pub(crate) fn matches(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::False => value.is_null() || value.as_bool() == Some(false),
            Self::Empty => value.is_null() || value.as_object().is_some_and(Map::is_empty),
        }
    }
}
