//! Tensor names: from GGUF to a Hugging Face directory and back.

use super::architecture::Architecture;

/// The counterpart of a tensor of a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromGguf {
    /// One tensor.
    One(String),
    /// A tensor for each expert; the name has `{}` for its number.
    Experts {
        /// The name up to the number.
        before: String,
        /// The name after the number.
        after: String,
    },
    /// Factors of RoPE, which are part of config.json.
    RopeFactors,
}

/// The counterpart of a tensor of a Hugging Face directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToGguf {
    /// The name in GGUF.
    pub(super) name: String,
    /// Index of the expert.
    pub(super) expert: Option<usize>,
}

/// Names of tensors that hold factors of RoPE.
pub(super) const ROPE_FACTORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

impl Architecture {
    /// The counterpart of tensor `name` of a GGUF file.
    pub(super) fn hf_name(&self, name: &str) -> Option<FromGguf> {
        if ROPE_FACTORS.contains(&name) {
            return Some(FromGguf::RopeFactors);
        }
        let (stem, kind) = split_kind(name)?;
        let Some(rest) = stem.strip_prefix("blk.") else {
            let (hf, _) = self.top.iter().find(|(_, gguf)| *gguf == stem)?;
            return Some(FromGguf::One(format!("{hf}.{kind}")));
        };
        let (layer, part) = split_number(rest)?;
        let prefix = format!("{}{layer}.", self.block_prefix);
        if let Some(experts) = &self.experts
            && let Some((hf, _)) = experts.names.iter().find(|(_, gguf)| *gguf == part)
        {
            let before = format!("{prefix}{}.", experts.prefix);
            return Some(FromGguf::Experts { before, after: format!(".{hf}.{kind}") });
        }
        let (hf, _) = self.blocks.iter().copied().flatten().find(|(_, gguf)| *gguf == part)?;
        Some(FromGguf::One(format!("{prefix}{hf}.{kind}")))
    }

    /// The counterpart of tensor `name` of a Hugging Face directory.
    pub(super) fn gguf_name(&self, name: &str) -> Option<ToGguf> {
        let (stem, kind) = split_kind(name)?;
        let one = |name: String| ToGguf { name: format!("{name}.{kind}"), expert: None };
        let Some(rest) = stem.strip_prefix(self.block_prefix) else {
            let (_, gguf) = self.top.iter().find(|(hf, _)| *hf == stem)?;
            return Some(one((*gguf).to_owned()));
        };
        let (layer, part) = split_number(rest)?;
        if let Some(experts) = &self.experts
            && let Some(rest) = part.strip_prefix(experts.prefix)
        {
            let (expert, part) = split_number(rest.strip_prefix('.')?)?;
            let (_, gguf) = experts.names.iter().find(|(hf, _)| *hf == part)?;
            let name = format!("blk.{layer}.{gguf}.{kind}");
            return Some(ToGguf { name, expert: Some(expert) });
        }
        let (_, gguf) = self.blocks.iter().copied().flatten().find(|(hf, _)| *hf == part)?;
        Some(one(format!("blk.{layer}.{gguf}")))
    }
}

/// Splits `stem.weight` or `stem.bias`.
fn split_kind(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))
}

/// Splits `12.rest`; the number has no sign and no leading zero.
fn split_number(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('.')?;
    let parsed: usize = number.parse().ok()?;
    (parsed.to_string() == number).then_some((parsed, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        let cases = [
            ("llama", "blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight"),
            ("llama", "token_embd.weight", "model.embed_tokens.weight"),
            ("qwen2", "blk.0.attn_v.bias", "model.layers.0.self_attn.v_proj.bias"),
            ("gemma2", "blk.1.ffn_norm.weight", "model.layers.1.pre_feedforward_layernorm.weight"),
            (
                "olmo2",
                "blk.1.post_ffw_norm.weight",
                "model.layers.1.post_feedforward_layernorm.weight",
            ),
            ("gpt2", "blk.11.attn_qkv.bias", "transformer.h.11.attn.c_attn.bias"),
            ("mixtral", "blk.0.ffn_gate_inp.weight", "model.layers.0.block_sparse_moe.gate.weight"),
        ];
        for (model_type, gguf, hf) in cases {
            let arch = Architecture::of_model_type(model_type).unwrap();
            assert_eq!(arch.hf_name(gguf), Some(FromGguf::One(hf.to_owned())), "{gguf}");
            let expected = ToGguf { name: gguf.to_owned(), expert: None };
            assert_eq!(arch.gguf_name(hf), Some(expected), "{hf}");
        }
    }

    #[test]
    fn experts_are_parts_of_one_tensor() {
        let arch = Architecture::of_model_type("qwen3_moe").unwrap();
        let found = arch.gguf_name("model.layers.2.mlp.experts.17.up_proj.weight");
        let expected = ToGguf { name: "blk.2.ffn_up_exps.weight".to_owned(), expert: Some(17) };
        assert_eq!(found, Some(expected));
        let expected = FromGguf::Experts {
            before: "model.layers.2.mlp.experts.".to_owned(),
            after: ".up_proj.weight".to_owned(),
        };
        assert_eq!(arch.hf_name("blk.2.ffn_up_exps.weight"), Some(expected));
    }

    #[test]
    fn unknown_names_have_no_counterpart() {
        let arch = Architecture::of_model_type("llama").unwrap();
        for name in ["blk.01.attn_q.weight", "blk.x.attn_q.weight", "blk.0.attn_q", "nothing"] {
            assert_eq!(arch.hf_name(name), None, "{name}");
        }
        assert_eq!(arch.gguf_name("model.layers.0.self_attn.q_norm.weight"), None);
        assert_eq!(arch.hf_name("rope_freqs.weight"), Some(FromGguf::RopeFactors));
    }
}
