//! What a training step costs: floating-point operations and bytes, each part separately. Formulas only; nothing is
//! measured here.

use crate::family::Sizes;

/// The rows and tokens that go through the model at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingShape {
    /// Rows of a micro-batch.
    pub rows: usize,
    /// Tokens of a row.
    pub sequence_length: usize,
}

impl TrainingShape {
    /// Tokens of a micro-batch.
    pub fn n_tokens(self) -> u64 {
        (self.rows as u64).saturating_mul(self.sequence_length as u64)
    }
}

/// Elements that a family's blocks need in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActivationCount {
    /// Held from forward to backward by one block for each token, without the scores.
    pub(crate) block: u64,
    /// Held outside the blocks for each token, without logits.
    pub(crate) outside_blocks: u64,
    /// In use for each token while one block's backward runs, without the scores.
    pub(crate) passing: u64,
    /// However many tokens there are: tables.
    pub(crate) fixed: u64,
}

/// Bytes of a training step, by part; all weights and activations in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEstimate {
    /// The weights.
    pub weights: u64,
    /// One gradient of each trained weight.
    pub gradients: u64,
    /// The two moments of AdamW.
    pub optimizer: u64,
    /// What is held from forward to backward.
    pub activations: u64,
    /// What is worked on at once: a chunk of logits in the loss, later the backward of one block.
    pub logits: u64,
    /// The gradient of the last product's weight, which comes first and stays to the end.
    head: u64,
    /// Whether that weight is also the token embedding, whose gradient is added at the end.
    tied: bool,
}

impl MemoryEstimate {
    /// The same step with other weights trained beside those, which stay as they are.
    pub(crate) fn with_frozen_weights(self, n_trained: u64) -> Self {
        let trained = n_trained.saturating_mul(F32_BYTES);
        Self {
            weights: self.weights.saturating_add(trained),
            gradients: trained,
            optimizer: trained.saturating_mul(2),
            head: 0,
            tied: false,
            ..self
        }
    }

    /// A step of several models of this shape, whose graphs follow one another: `n_weights` elements stand in memory in
    /// all, `n_trained` of them are trained.
    #[must_use]
    pub fn of_several_models(self, n_weights: u64, n_trained: u64) -> Self {
        let (weights, trained) =
            (n_weights.saturating_mul(F32_BYTES), n_trained.saturating_mul(F32_BYTES));
        Self { weights, gradients: trained, optimizer: trained.saturating_mul(2), ..self }
    }

    /// All parts together, as if all stood at once.
    pub fn total(&self) -> u64 {
        sum(&[self.weights, self.gradients, self.optimizer, self.activations, self.logits])
    }

    /// The most that stands at once in a step of so many micro-batches.
    ///
    /// Activations go while gradients come, so the larger of the two counts; the sums over earlier micro-batches stand
    /// beside both.
    pub fn peak(&self, n_micro_batches: u64) -> u64 {
        let sums = if n_micro_batches > 1 { self.gradients } else { 0 };
        let first = sum(&[self.activations, self.logits, self.head]);
        // Both gradients of a tied weight and their sum stand side by side.
        let twice_more = if self.tied { self.head.saturating_mul(2) } else { 0 };
        let last = self.gradients.saturating_add(twice_more);
        sum(&[self.weights, self.optimizer, sums, first.max(last)])
    }
}

fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |total, &part| total.saturating_add(part))
}

/// The loss goes through the logits in chunks of this many elements at most.
const LOGITS_CHUNK: u64 = 8 << 20;
const F32_BYTES: u64 = 4;

/// Bytes of one training step. Saturates, as no size that enters here is certain to be sensible.
///
/// The counts are what burn's autodiff keeps for the bodies of `kernels`, fitted to what a counting allocator measured
/// while one size after the other was doubled (`estimates_are_near_what_was_measured`).
pub(crate) fn memory(
    n_parameters: u64,
    sizes: Sizes,
    shape: TrainingShape,
    count: ActivationCount,
) -> MemoryEstimate {
    let (n_tokens, vocab_size) = (shape.n_tokens(), sizes.vocab_size as u64);
    let bytes = |elements: u64| elements.saturating_mul(F32_BYTES);
    // One tensor of scores, `[h, t]` for each token, is held by each block; half as much again is in use at once.
    let scores = (sizes.n_heads as u64).saturating_mul(shape.sequence_length as u64);
    let per_token = count
        .block
        .saturating_add(scores)
        .saturating_mul(sizes.n_layers as u64)
        .saturating_add(count.outside_blocks);
    let held = n_tokens.saturating_mul(per_token).saturating_add(count.fixed);
    let passing = n_tokens.saturating_mul(count.passing.max(scores.saturating_add(scores / 2)));
    let chunk = n_tokens.saturating_mul(vocab_size).min(LOGITS_CHUNK.max(vocab_size));
    let weights = bytes(n_parameters);
    MemoryEstimate {
        weights,
        gradients: weights,
        optimizer: weights.saturating_mul(2),
        activations: bytes(held),
        logits: bytes(passing.max(chunk + chunk / 2)),
        head: bytes(vocab_size * sizes.hidden_size as u64),
        tied: sizes.tied,
    }
}
