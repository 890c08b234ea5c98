//! The table of architectures: names in GGUF and in config.json, and the names of the tensors of a block in both.

/// Pairs of names without `.weight` and `.bias`: in a Hugging Face directory, in GGUF.
pub(super) type Names = &'static [(&'static str, &'static str)];

/// An architecture that both sides know.
#[derive(Debug)]
pub(super) struct Architecture {
    /// `general.architecture`, which is also the prefix of its keys.
    pub(super) gguf: &'static str,
    /// `model_type` of config.json.
    pub(super) model_type: &'static str,
    /// The only entry of `architectures` in config.json.
    pub(super) class: &'static str,
    /// Tensors outside of blocks.
    pub(super) top: Names,
    /// Prefix of a block's number in tensor names.
    pub(super) block_prefix: &'static str,
    /// Tensors of a block.
    pub(super) blocks: &'static [Names],
    /// Experts of a block, if there are any.
    pub(super) experts: Option<Experts>,
    /// Rows of queries and keys are in pairs, for RoPE on neighbouring elements.
    pub(super) pairs_rows: bool,
    /// Weights of norms have 1 added.
    pub(super) adds_one: bool,
    /// Files have a window and the layers that it applies to; in the other architectures llama.cpp computes no windows.
    pub(super) has_windows: bool,
    /// Linear layers of blocks are stored as (in, out) in a Hugging Face directory.
    pub(super) transposes: bool,
}

/// Names of the tensors of experts: `{prefix}.{expert}.{name}` in a Hugging Face directory, one 3-D tensor in GGUF.
#[derive(Debug)]
pub(super) struct Experts {
    pub(super) prefix: &'static str,
    pub(super) names: Names,
}

const TOP: Names =
    &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];
const ATTENTION: Names = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
];
const FUSED_ATTENTION: Names =
    &[("self_attn.qkv_proj", "attn_qkv"), ("self_attn.o_proj", "attn_output")];
const QUERY_KEY_NORMS: Names =
    &[("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm")];
const MLP: Names =
    &[("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];
const FUSED_MLP: Names = &[("mlp.gate_up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];
const NORMS_BEFORE: Names =
    &[("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")];
const NORMS_AFTER: Names = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const NORMS_AROUND: Names = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const SHARED_EXPERT: Names = &[
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
];
const QWEN_ROUTER: Names = &[("mlp.gate", "ffn_gate_inp")];
const QWEN_EXPERTS: Experts = Experts {
    prefix: "mlp.experts",
    names: &[
        ("gate_proj", "ffn_gate_exps"),
        ("up_proj", "ffn_up_exps"),
        ("down_proj", "ffn_down_exps"),
    ],
};

/// A decoder of the common form; the entries of the table change what differs.
const DECODER: Architecture = Architecture {
    gguf: "",
    model_type: "",
    class: "",
    top: TOP,
    block_prefix: "model.layers.",
    blocks: &[ATTENTION, MLP, NORMS_BEFORE],
    experts: None,
    pairs_rows: false,
    adds_one: false,
    has_windows: false,
    transposes: false,
};

/// All architectures. `mistral` is written as `llama`, and read back as that.
pub(super) const TABLE: &[Architecture] = &[
    Architecture {
        gguf: "llama",
        model_type: "llama",
        class: "LlamaForCausalLM",
        pairs_rows: true,
        ..DECODER
    },
    Architecture {
        gguf: "llama",
        model_type: "mistral",
        class: "MistralForCausalLM",
        pairs_rows: true,
        ..DECODER
    },
    Architecture {
        gguf: "llama",
        model_type: "mixtral",
        class: "MixtralForCausalLM",
        blocks: &[ATTENTION, &[("block_sparse_moe.gate", "ffn_gate_inp")], NORMS_BEFORE],
        experts: Some(Experts {
            prefix: "block_sparse_moe.experts",
            names: &[("w1", "ffn_gate_exps"), ("w3", "ffn_up_exps"), ("w2", "ffn_down_exps")],
        }),
        pairs_rows: true,
        ..DECODER
    },
    Architecture { gguf: "qwen2", model_type: "qwen2", class: "Qwen2ForCausalLM", ..DECODER },
    Architecture {
        gguf: "qwen3",
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        blocks: &[ATTENTION, QUERY_KEY_NORMS, MLP, NORMS_BEFORE],
        ..DECODER
    },
    Architecture {
        gguf: "qwen2moe",
        model_type: "qwen2_moe",
        class: "Qwen2MoeForCausalLM",
        blocks: &[ATTENTION, QWEN_ROUTER, SHARED_EXPERT, NORMS_BEFORE],
        experts: Some(QWEN_EXPERTS),
        ..DECODER
    },
    Architecture {
        gguf: "qwen3moe",
        model_type: "qwen3_moe",
        class: "Qwen3MoeForCausalLM",
        blocks: &[ATTENTION, QUERY_KEY_NORMS, QWEN_ROUTER, NORMS_BEFORE],
        experts: Some(QWEN_EXPERTS),
        ..DECODER
    },
    Architecture {
        gguf: "gemma2",
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        blocks: &[ATTENTION, MLP, NORMS_AROUND],
        adds_one: true,
        has_windows: true,
        ..DECODER
    },
    Architecture {
        gguf: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        blocks: &[ATTENTION, QUERY_KEY_NORMS, MLP, NORMS_AROUND],
        adds_one: true,
        has_windows: true,
        ..DECODER
    },
    Architecture {
        gguf: "phi3",
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        blocks: &[FUSED_ATTENTION, FUSED_MLP, NORMS_BEFORE],
        ..DECODER
    },
    Architecture {
        gguf: "olmo2",
        model_type: "olmo2",
        class: "Olmo2ForCausalLM",
        blocks: &[ATTENTION, QUERY_KEY_NORMS, MLP, NORMS_AFTER],
        ..DECODER
    },
    Architecture {
        gguf: "olmo2",
        model_type: "olmo3",
        class: "Olmo3ForCausalLM",
        blocks: &[ATTENTION, QUERY_KEY_NORMS, MLP, NORMS_AFTER],
        has_windows: true,
        ..DECODER
    },
    Architecture {
        gguf: "exaone4",
        model_type: "exaone4",
        class: "Exaone4ForCausalLM",
        blocks: &[ATTENTION, QUERY_KEY_NORMS, MLP, NORMS_AFTER],
        has_windows: true,
        ..DECODER
    },
    Architecture {
        gguf: "smollm3",
        model_type: "smollm3",
        class: "SmolLM3ForCausalLM",
        pairs_rows: true,
        ..DECODER
    },
    Architecture {
        gguf: "granite",
        model_type: "granite",
        class: "GraniteForCausalLM",
        pairs_rows: true,
        ..DECODER
    },
    Architecture {
        gguf: "gpt2",
        model_type: "gpt2",
        class: "GPT2LMHeadModel",
        top: &[
            ("transformer.wte", "token_embd"),
            ("transformer.wpe", "position_embd"),
            ("transformer.ln_f", "output_norm"),
            ("lm_head", "output"),
        ],
        block_prefix: "transformer.h.",
        blocks: &[&[
            ("ln_1", "attn_norm"),
            ("attn.c_attn", "attn_qkv"),
            ("attn.c_proj", "attn_output"),
            ("ln_2", "ffn_norm"),
            ("mlp.c_fc", "ffn_up"),
            ("mlp.c_proj", "ffn_down"),
        ]],
        transposes: true,
        ..DECODER
    },
];

impl Architecture {
    /// The architecture of a GGUF file. Two names are those of several families: `llama` with or without experts, `olmo2`
    /// with or without windows.
    pub(super) fn of_gguf(
        name: &str,
        has_experts: bool,
        has_windows: bool,
    ) -> Option<&'static Self> {
        TABLE.iter().find(|arch| match arch.gguf {
            "llama" => name == "llama" && arch.experts.is_some() == has_experts,
            "olmo2" => name == "olmo2" && arch.has_windows == has_windows,
            gguf => gguf == name,
        })
    }

    /// Whether llama.cpp takes the width of a head to be the model's width divided by the number of heads.
    pub(super) fn has_fixed_heads(&self) -> bool {
        matches!(self.gguf, "qwen2" | "qwen2moe" | "olmo2" | "phi3" | "exaone4")
    }

    /// Whether llama.cpp needs the head in the file even if it is the embedding.
    pub(super) fn always_has_head(&self) -> bool {
        matches!(self.gguf, "qwen2moe" | "olmo2")
    }

    /// Whether llama.cpp takes the embedding as the head.
    pub(super) fn is_always_tied(&self) -> bool {
        self.gguf == "gemma2"
    }

    /// The architecture of a config.json.
    pub(super) fn of_model_type(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|arch| arch.model_type == name)
    }

    /// All names in GGUF, for messages.
    pub(super) fn known_in_gguf() -> String {
        let mut names: Vec<&str> = TABLE.iter().map(|arch| arch.gguf).collect();
        names.dedup();
        names.join(", ")
    }

    /// All names in config.json, for messages.
    pub(super) fn known_model_types() -> String {
        TABLE.iter().map(|arch| arch.model_type).collect::<Vec<_>>().join(", ")
    }
}
