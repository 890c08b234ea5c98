//! Whether the answers to a prompt share it in a forward pass, and how many tokens a pass multiplies.

use arch::{KernelPath, ModelConfig};
use recipe::{Conventions, GrpoSection};

/// Where the prompt of a group is in a forward pass over its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptLayout {
    /// Once, before all answers of the group that the pass reads.
    Shared,
    /// Before each answer, for the reason given.
    Repeated(&'static str),
}

impl PromptLayout {
    /// The layout of a policy's passes. Prompts are repeated
    ///
    /// * with `conventions = "trl"`, whose results are compared with TRL's, number by number, in its own layout;
    /// * with kernels other than the CPU's: those of a GPU know no prefixes, and the generic ones hold the scores of a whole
    ///   row, also of answers that do not see each other;
    /// * with experts: the loss of the router and the load of the experts count the tokens of a prompt once an answer;
    /// * where the angles of rotary positions depend on the length of the text and answers may reach that length: the prompt
    ///   would have other angles for each of them.
    ///
    /// Dropout, by which copies of a prompt differ, is refused in the recipe. No family has a bias of the scores.
    pub(crate) fn of(
        section: &GrpoSection,
        config: Option<&ModelConfig>,
        kernels: KernelPath,
    ) -> Self {
        if section.conventions == Conventions::Trl {
            return Self::Repeated("`conventions = \"trl\"`");
        }
        if kernels != KernelPath::Cpu {
            return Self::Repeated("only the CPU's kernels share prompts");
        }
        if let Some(ModelConfig::Decoder(decoder)) = config {
            let longest = section.max_prompt_tokens + section.max_new_tokens;
            let mut fixed = decoder.ropes.iter().filter_map(arch::RopeParameters::fixed_up_to);
            if decoder.experts.is_some() {
                return Self::Repeated("experts count every token");
            }
            if fixed.any(|length| longest > length) {
                return Self::Repeated("positions depend on the length of a text");
            }
        }
        Self::Shared
    }

    /// Whether prompts are shared.
    pub fn is_shared(self) -> bool {
        self == Self::Shared
    }
}

/// The rows of passes over the answers of an update, at full length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassShape {
    /// Prompts that all passes of an epoch read, each as often as a pass has it.
    pub n_prompts: u64,
    /// Tokens that an epoch multiplies: of prompts and answers.
    pub n_tokens: u64,
    /// Most rows in one pass.
    pub rows: usize,
    /// Tokens of each of them.
    pub length: usize,
}

impl PassShape {
    /// Passes of `micro_batch` answers at a time over the `n` answers of an epoch. With several minibatches, of which each
    /// has a random part of every group, numbers of prompts are estimates.
    pub(crate) fn of(
        layout: PromptLayout,
        section: &GrpoSection,
        n: usize,
        micro_batch: usize,
    ) -> Self {
        let (prompt, answer) = (section.max_prompt_tokens, section.max_new_tokens);
        let n_minibatch = n / section.n_minibatches.max(1);
        let micro = micro_batch.min(n_minibatch).max(1);
        if !layout.is_shared() {
            let n_tokens = (n as u64).saturating_mul((prompt + answer) as u64);
            return Self { n_prompts: n as u64, n_tokens, rows: micro, length: prompt + answer };
        }
        // Neighbours of one group in a minibatch.
        let group = (section.num_generations / section.n_minibatches.max(1)).max(1);
        // Groups that a pass over answers `from..to` reads.
        let groups = |from: usize, to: usize| (to - 1) / group - from / group + 1;
        let passes =
            (0..n_minibatch).step_by(micro).map(|from| (from, n_minibatch.min(from + micro)));
        let (mut n_prompts, mut rows) = (0, 0);
        for (from, to) in passes {
            n_prompts += groups(from, to);
            rows = rows.max(groups(from, to));
        }
        let n_prompts = n_prompts as u64 * section.n_minibatches.max(1) as u64;
        // The last token of an answer is not read.
        let read = answer.saturating_sub(1);
        let n_read = (n as u64).saturating_mul(read as u64);
        let n_tokens = n_prompts.saturating_mul(prompt as u64).saturating_add(n_read);
        let mut length = prompt + group.min(micro) * read;
        if rows * length > micro * (prompt + read) {
            // Such groups are not put side by side.
            (rows, length) = (micro, prompt + read);
        }
        Self { n_prompts, n_tokens, rows, length }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arch::{KernelPath, ModelConfig};
    use recipe::{Conventions, GrpoSection};
    use serde_json::json;

    use super::{PassShape, PromptLayout};

    /// Prompts of 70 tokens, 8 answers of 15 to each.
    fn section() -> GrpoSection {
        let text = r#"
            name = "a"
            [grpo]
            policy = { start = "base" }
            prompts = [{ path = "a.jsonl", rows = { prompt = "{q}" } }]
            rewards = [{ kind = "number", answer = "{a}" }]
            max_prompt_tokens = 70
            max_new_tokens = 15
            prompts_per_step = 4
            num_generations = 8
            max_steps = 1
            optimizer = { lr = 1e-5 }
            schedule = { kind = "constant", warmup_steps = 0 }
        "#;
        let loaded = recipe::parse(text.as_bytes(), Path::new("a.toml"), &[]).expect("a recipe");
        loaded.recipe.grpo.expect("a section")
    }

    #[test]
    fn answers_share_a_prompt_within_a_pass() {
        let shape = |layout, micro| PassShape::of(layout, &section(), 32, micro);
        let of = |n_prompts, rows, length| PassShape {
            n_prompts,
            n_tokens: n_prompts * 70 + 32 * 14,
            rows,
            length,
        };
        assert_eq!(shape(PromptLayout::Shared, 8), of(4, 1, 182));
        assert_eq!(shape(PromptLayout::Shared, 16), of(4, 2, 182));
        assert_eq!(shape(PromptLayout::Shared, 4), of(8, 1, 126));
        assert_eq!(shape(PromptLayout::Shared, 12), of(5, 2, 182));
        let repeated = PassShape { n_prompts: 32, n_tokens: 32 * 85, rows: 16, length: 85 };
        assert_eq!(shape(PromptLayout::Repeated("a reason"), 16), repeated);
        let section = GrpoSection { n_minibatches: 4, ..section() };
        let parts = PassShape::of(PromptLayout::Shared, &section, 32, 8);
        assert_eq!(parts, of(16, 4, 98));
    }

    #[test]
    fn each_reason_against_sharing() {
        let config = |more: serde_json::Value| {
            let mut config = json!({
                "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
                "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                "hidden_act": "silu", "tie_word_embeddings": true,
            });
            if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
                config.extend(more.clone());
            }
            ModelConfig::from_json(&config, Path::new("config.json")).expect("a model")
        };
        let plain = config(json!({}));
        let (section, cpu) = (section(), KernelPath::Cpu);
        let of = |section: &GrpoSection, config: &ModelConfig, kernels| {
            PromptLayout::of(section, Some(config), kernels)
        };
        assert!(of(&section, &plain, cpu).is_shared());
        assert!(!of(&section, &plain, KernelPath::Generic).is_shared());
        let trl = GrpoSection { conventions: Conventions::Trl, ..section.clone() };
        assert!(!of(&trl, &plain, cpu).is_shared());
        let dynamic = |n: usize| {
            let rope = json!({ "rope_type": "dynamic", "factor": 2.0 });
            config(json!({ "max_position_embeddings": n, "rope_scaling": rope }))
        };
        assert!(!of(&section, &dynamic(84), cpu).is_shared());
        assert!(of(&section, &dynamic(85), cpu).is_shared());
    }
}
