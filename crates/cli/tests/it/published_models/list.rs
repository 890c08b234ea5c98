//! The published models: config.json, numbers of parameters, special tokens, chat templates.

use serde_json::json;

use super::{Extra, Published, Vocabulary};

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Qwen3's: an answer begins with its reasoning, which is left out of earlier turns.
const CHATML_REASONING: &str = "{% set last = namespace(query=-1) %}\
    {% for message in messages %}{% if message.role == 'user' %}{% set last.query = loop.index0 %}{% endif %}{% endfor %}\
    {% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}\
    {% if message.role == 'assistant' and loop.index0 > last.query %}{{ '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}\
    {{ message.content + '<|im_end|>\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const LLAMA3: &str = "{{ '<|begin_of_text|>' }}{% for message in messages %}\
    {{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

const GEMMA: &str = "{{ '<bos>' }}{% for message in messages %}\
    {{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' + message.content | trim + '<end_of_turn>\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}";

const MISTRAL: &str = "{{ '<s>' }}{% for message in messages %}\
    {% if message.role == 'user' %}{{ '[INST] ' + message.content + '[/INST]' }}{% else %}{{ ' ' + message.content + '</s>' }}{% endif %}{% endfor %}";

const QWEN_TOKENS: &[(u64, &str)] =
    &[(151_643, "<|endoftext|>"), (151_644, "<|im_start|>"), (151_645, "<|im_end|>")];

const QWEN3_TOKENS: &[(u64, &str)] = &[
    (151_643, "<|endoftext|>"),
    (151_644, "<|im_start|>"),
    (151_645, "<|im_end|>"),
    (151_667, "<think>"),
    (151_668, "</think>"),
];

const LLAMA3_TOKENS: &[(u64, &str)] = &[
    (128_000, "<|begin_of_text|>"),
    (128_001, "<|end_of_text|>"),
    (128_006, "<|start_header_id|>"),
    (128_007, "<|end_header_id|>"),
    (128_008, "<|eom_id|>"),
    (128_009, "<|eot_id|>"),
];

// The last token has no row in the embedding of the 1B model.
const GEMMA_TOKENS: &[(u64, &str)] = &[
    (0, "<pad>"),
    (1, "<eos>"),
    (2, "<bos>"),
    (3, "<unk>"),
    (105, "<start_of_turn>"),
    (106, "<end_of_turn>"),
    (262_144, "<image_soft_token>"),
];

const MISTRAL_TOKENS: &[(u64, &str)] =
    &[(0, "<unk>"), (1, "<s>"), (2, "</s>"), (3, "[INST]"), (4, "[/INST]")];

/// The models, by size.
pub(crate) fn published() -> Vec<Published> {
    vec![
        smollm2_135m(),
        qwen2_5_0_5b(),
        qwen3_0_6b(),
        gemma3_1b(),
        llama3_2_1b(),
        qwen3_4b(),
        mistral_7b(),
    ]
}

fn smollm2_135m() -> Published {
    Published {
        repository: "HuggingFaceTB/SmolLM2-135M-Instruct",
        n_parameters: 134_515_008,
        config: json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
            "hidden_act": "silu", "hidden_size": 576, "initializer_range": 1.0 / 24.0,
            "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192,
            "mlp_bias": false, "num_attention_heads": 9, "num_hidden_layers": 30,
            "num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-5,
            "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100_000,
            "tie_word_embeddings": true, "torch_dtype": "bfloat16",
            "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152,
        }),
        extra: Extra::default(),
        vocabulary: Vocabulary {
            n_tokens: 49_152,
            special: &[(0, "<|endoftext|>"), (1, "<|im_start|>"), (2, "<|im_end|>")],
            eos: "<|im_end|>",
            sentencepiece: false,
        },
        chat_template: CHATML,
    }
}

fn qwen2_5_0_5b() -> Published {
    Published {
        repository: "Qwen/Qwen2.5-0.5B-Instruct",
        n_parameters: 494_032_768,
        config: json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "attention_dropout": 0.0,
            "bos_token_id": 151_643, "eos_token_id": 151_645, "hidden_act": "silu",
            "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
            "max_position_embeddings": 32768, "max_window_layers": 21, "num_attention_heads": 14,
            "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0, "sliding_window": 32768, "tie_word_embeddings": true,
            "torch_dtype": "bfloat16", "transformers_version": "4.43.1", "use_cache": true,
            "use_sliding_window": false, "vocab_size": 151_936,
        }),
        extra: Extra { qkv_bias: true, ..Extra::default() },
        vocabulary: Vocabulary {
            n_tokens: 151_665,
            special: QWEN_TOKENS,
            eos: "<|im_end|>",
            sentencepiece: false,
        },
        chat_template: CHATML,
    }
}

fn qwen3_0_6b() -> Published {
    Published {
        repository: "Qwen/Qwen3-0.6B",
        n_parameters: 751_632_384,
        config: json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": false,
            "attention_dropout": 0.0, "bos_token_id": 151_643, "eos_token_id": 151_645,
            "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
            "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
            "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 1_000_000,
            "sliding_window": null, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
            "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false,
            "vocab_size": 151_936,
        }),
        extra: Extra { qk_norm: true, repeated_head: true, ..Extra::default() },
        vocabulary: qwen3_vocabulary(),
        chat_template: CHATML_REASONING,
    }
}

fn qwen3_4b() -> Published {
    Published {
        repository: "Qwen/Qwen3-4B",
        n_parameters: 4_022_468_096,
        config: json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": false,
            "attention_dropout": 0.0, "bos_token_id": 151_643, "eos_token_id": 151_645,
            "head_dim": 128, "hidden_act": "silu", "hidden_size": 2560, "initializer_range": 0.02,
            "intermediate_size": 9728, "max_position_embeddings": 40960, "max_window_layers": 36,
            "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 1_000_000,
            "sliding_window": null, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
            "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false,
            "vocab_size": 151_936,
        }),
        extra: Extra { qk_norm: true, ..Extra::default() },
        vocabulary: qwen3_vocabulary(),
        chat_template: CHATML_REASONING,
    }
}

fn qwen3_vocabulary() -> Vocabulary {
    Vocabulary { n_tokens: 151_669, special: QWEN3_TOKENS, eos: "<|im_end|>", sentencepiece: false }
}

fn gemma3_1b() -> Published {
    Published {
        repository: "google/gemma-3-1b-it",
        n_parameters: 999_885_952,
        config: json!({
            "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
            "attention_bias": false, "attention_dropout": 0.0, "attn_logit_softcapping": null,
            "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106],
            "final_logit_softcapping": null, "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
            "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
            "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
            "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6,
            "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1_000_000,
            "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
            "transformers_version": "4.50.0.dev0", "use_cache": true, "vocab_size": 262_144,
        }),
        extra: Extra { qk_norm: true, norms_after: true, ..Extra::default() },
        vocabulary: Vocabulary {
            n_tokens: 262_145,
            special: GEMMA_TOKENS,
            eos: "<eos>",
            sentencepiece: true,
        },
        chat_template: GEMMA,
    }
}

fn llama3_2_1b() -> Published {
    Published {
        repository: "meta-llama/Llama-3.2-1B-Instruct",
        n_parameters: 1_235_814_400,
        config: json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": false,
            "attention_dropout": 0.0, "bos_token_id": 128_000,
            "eos_token_id": [128_001, 128_008, 128_009], "head_dim": 64, "hidden_act": "silu",
            "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
            "max_position_embeddings": 131_072, "mlp_bias": false, "num_attention_heads": 32,
            "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
            "rms_norm_eps": 1e-5,
            "rope_scaling": {
                "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3",
            },
            "rope_theta": 500_000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
            "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128_256,
        }),
        extra: Extra::default(),
        vocabulary: Vocabulary {
            n_tokens: 128_256,
            special: LLAMA3_TOKENS,
            eos: "<|eot_id|>",
            sentencepiece: false,
        },
        chat_template: LLAMA3,
    }
}

fn mistral_7b() -> Published {
    Published {
        repository: "mistralai/Mistral-7B-Instruct-v0.3",
        n_parameters: 7_248_023_552,
        config: json!({
            "architectures": ["MistralForCausalLM"], "model_type": "mistral",
            "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
            "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
            "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32,
            "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0,
            "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "transformers_version": "4.42.0.dev0", "use_cache": true, "vocab_size": 32768,
        }),
        extra: Extra::default(),
        vocabulary: Vocabulary {
            n_tokens: 32_768,
            special: MISTRAL_TOKENS,
            eos: "</s>",
            sentencepiece: true,
        },
        chat_template: MISTRAL,
    }
}
