//! The effect of merging an adapter into packed weights, as the KL divergence of the model that was exported from the one
//! that was trained.

use std::path::Path;

use evaluate::proof::kl_divergence;
use model::{CausalLm, load_causal_lm};
use nn::TokenBatch;

use super::open_model;
use crate::args::ExportArgs;
use crate::failure::Result;

/// Texts of different kinds, a few dozen tokens each.
pub(crate) const PROMPTS: [&str; 5] = [
    "The capital of France is Paris, and the capital of Italy is",
    "Once upon a time there was a small dragon who was afraid of",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Question: What is 12 times 11? Answer:",
    "Dear Ms. Miller, thank you for your letter of 3 March. We regret that",
];

/// The mean over all positions of the prompts of KL(trained ‖ exported), in nats; `None` if no prompt has a token.
pub(crate) fn of_export(args: &ExportArgs, exported: &Path) -> Result<Option<f64>> {
    let (trained, tokenizer) = open_model::<CausalLm>(&args.model, args.base.as_deref(), "cpu")?;
    let device = kernels::device("cpu")?;
    let exported = load_causal_lm(exported, &device)?;
    let (mut sum, mut n) = (0.0, 0);
    for prompt in PROMPTS {
        let mut ids = tokenizer.encode(prompt)?;
        ids.truncate(trained.config().max_positions());
        if ids.is_empty() {
            continue;
        }
        let tokens = TokenBatch::of_rows(&ids, 1, &device);
        let logits = |model: &CausalLm| {
            let logits = model.logits(model.forward(&tokens).hidden_btd);
            kernels::with_host_values(&logits, <[f32]>::to_vec)
        };
        let vocab_size = trained.config().vocab_size();
        let (p, q) = (logits(&trained), logits(&exported));
        for (p, q) in p.chunks(vocab_size).zip(q.chunks(vocab_size)) {
            sum += kl_divergence(p, q);
            n += 1;
        }
    }
    Ok((n > 0).then(|| sum / f64::from(n)))
}
