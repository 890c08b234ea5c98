//! Keys of config.json that any family may have and that change nothing: either always, or with the value that
//! switches them off. Families' own keys stand with the family.

use serde_json::{Map, Value};

/// Keys that transformers writes into any config.json and that change nothing in a forward pass.
pub(crate) const HARMLESS: &[&str] = &[
    // Who wrote the file, and for which program.
    "_name_or_path",
    "name_or_path",
    "transformers_version",
    "_commit_hash",
    "transformers.js_config",
    "is_llama_config",
    "unsloth_fixed",
    "unsloth_version",
    "tokenizer_class",
    "finetuning_task",
    "task_specific_params",
    "prefix",
    // How outputs are packed, and which kernels compute them.
    "use_cache",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "torchscript",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    "_flash_attn_2_enabled",
    "use_bfloat16",
    "gradient_checkpointing",
    "output_past",
    "tf_legacy_loss",
    "is_decoder",
    "mask_value",
    // Labels of classification heads.
    "id2label",
    "label2id",
    "num_labels",
    "_num_labels",
    "problem_type",
    "classifier_dropout",
    // Defaults for sampling, which belong to generation_config.json.
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
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
    "sep_token_id",
    "decoder_start_token_id",
];

/// Keys that change the mathematics unless they have the value that switches them off.
pub(crate) const SWITCHED_OFF: &[(&str, Off)] = &[
    ("add_cross_attention", Off::False),
    ("is_encoder_decoder", Off::False),
    ("tie_encoder_decoder", Off::False),
    ("use_sliding_window", Off::False),
    ("cross_attention_hidden_size", Off::Null),
    ("quantization_config", Off::Null),
    ("auto_map", Off::Null),
    ("pruned_heads", Off::Empty),
    ("chunk_size_feed_forward", Off::Zero),
];

/// The value with which a feature is absent; null always is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Off {
    Null,
    False,
    Zero,
    Empty,
}

impl Off {
    pub(crate) fn matches(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::False => value.is_null() || value.as_bool() == Some(false),
            Self::Zero => value.is_null() || value.as_f64() == Some(0.0),
            Self::Empty => value.is_null() || value.as_object().is_some_and(Map::is_empty),
        }
    }
}
