//! The list of model families; nothing else lists them.

/// Calls `$then` with every family: its variant of [`Family`], and its file in `family/`.
macro_rules! for_each_family {
    ($then:ident) => {
        $then! {
            /// RMSNorm, rotary positions, SwiGLU.
            Llama(llama),
            /// LayerNorm, learned positions, GELU.
            Gpt2(gpt2),
            /// Llama with norms on queries and keys.
            Qwen3(qwen3),
            /// Llama with an attention window in all layers.
            Mistral(mistral),
            /// Llama with biases of queries, keys and values, and windows in the upper layers.
            Qwen2(qwen2),
            /// Norms before and after each half of a block, soft caps, alternating windows, GeGLU.
            Gemma2(gemma2),
            /// Gemma 2 with norms on queries and keys in place of soft caps, and a rotary base of its own in windowed layers.
            Gemma3Text(gemma3),
            /// Llama with packed projections and LongRoPE.
            Phi3(phi3),
            /// Norms after each half of a block, and over whole queries and keys.
            Olmo2(olmo2),
            /// OLMo 2 with windows in three of four layers.
            Olmo3(olmo3),
            /// OLMo 2 with norms of each head, windows in three of four layers and no positions in the others.
            Exaone4(exaone4),
            /// Llama with layers without positions.
            SmolLm3(smollm3),
            /// Llama with multipliers of embeddings, scores, residual stream and logits.
            Granite(granite),
            /// Mistral with experts in place of the MLP.
            Mixtral(mixtral),
            /// Qwen2 with experts, one of which every token is sent to.
            Qwen2Moe(qwen2_moe),
            /// Qwen3 with experts.
            Qwen3Moe(qwen3_moe),
        }
    };
}

pub(crate) use for_each_family;

/// Declares [`Family`] with a variant per family.
macro_rules! declare {
    ($($(#[$doc:meta])* $family:ident($module:ident),)+) => {
        /// The model families.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Family {
            $($(#[$doc])* $family,)+
        }

        impl Family {
            /// All families.
            pub const ALL: &[Self] = &[$(Self::$family),+];
        }
    };
}

for_each_family!(declare);
