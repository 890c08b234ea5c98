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

/// Elements that plain tensor operations hold between forward and backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActivationCount {
    /// Of one block for each token, without the scores.
    pub(crate) block: u64,
    /// Before the first block and after the last for each token, without logits.
    pub(crate) outside_blocks: u64,
    /// However many tokens there are: weights that a product holds a transposed copy of, and tables.
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
    /// What is held between forward and backward, without logits.
    pub activations: u64,
    /// What the last product and the loss hold, forward and backward.
    pub logits: u64,
}

impl MemoryEstimate {
    /// All parts together; never less than [`Self::peak`] of a step of one micro-batch.
    pub fn total(&self) -> u64 {
        [self.weights, self.gradients, self.optimizer, self.activations, self.logits]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// The most that is held at once in a step of so many micro-batches.
    ///
    /// Activations go while gradients come, so the larger of the two counts; sums over earlier micro-batches stand
    /// beside both.
    pub fn peak(&self, n_micro_batches: u64) -> u64 {
        let sums = if n_micro_batches > 1 { self.gradients } else { 0 };
        let passing = self.activations.saturating_add(self.logits).max(self.gradients);
        [self.weights, self.optimizer, sums, passing].into_iter().fold(0, u64::saturating_add)
    }
}

/// Tensors of the size of the scores that plain attention holds for its backward.
const SCORES_HELD: u64 = 3;
/// The loss goes through the logits in chunks of this many elements, in rows from the first number to the second.
const LOGITS_CHUNK: u64 = 8 << 20;
const CHUNK_ROWS: (u64, u64) = (16, 1024);
const F32_BYTES: u64 = 4;

/// Bytes of one training step. Saturates, as no size that enters here is certain to be sensible.
///
/// The counts are what burn's autodiff keeps for the plain bodies of `kernels`, fitted to what a counting allocator
/// measured while one size after the other was doubled (`estimates_are_near_what_was_measured`). Fused bodies will have
/// their own.
pub(crate) fn memory(
    n_parameters: u64,
    sizes: Sizes,
    shape: TrainingShape,
    count: ActivationCount,
) -> MemoryEstimate {
    let weights = n_parameters.saturating_mul(F32_BYTES);
    let length = shape.sequence_length as u64;
    let scores = (sizes.n_heads as u64 * SCORES_HELD).saturating_mul(length);
    let per_token = count
        .block
        .saturating_add(scores)
        .saturating_mul(sizes.n_layers as u64)
        .saturating_add(count.outside_blocks)
        // The mask, one for all blocks.
        .saturating_add(length);
    let held = shape.n_tokens().saturating_mul(per_token).saturating_add(count.fixed);
    let vocab_size = sizes.vocab_size as u64;
    let chunk_rows = (LOGITS_CHUNK / vocab_size.max(1)).clamp(CHUNK_ROWS.0, CHUNK_ROWS.1);
    // Exponentials of every row stay for the backward pass, which needs two more tensors for one chunk.
    let n_rows = shape.n_tokens();
    let logits = n_rows.saturating_add(2 * chunk_rows.min(n_rows)).saturating_mul(vocab_size);
    MemoryEstimate {
        weights,
        gradients: weights,
        optimizer: weights.saturating_mul(2),
        activations: held.saturating_mul(F32_BYTES),
        logits: logits.saturating_mul(F32_BYTES),
    }
}
