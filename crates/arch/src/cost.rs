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

/// Elements that plain tensor operations hold between forward and backward for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActivationCount {
    /// Of one block, without the scores.
    pub(crate) block: u64,
    /// Before the first block and after the last, without logits.
    pub(crate) outside_blocks: u64,
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
    /// Logits, their log-softmax and their gradient.
    pub logits: u64,
}

impl MemoryEstimate {
    /// All parts together.
    pub fn total(&self) -> u64 {
        [self.weights, self.gradients, self.optimizer, self.activations, self.logits]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// Tensors of the size of the scores that plain attention holds for its backward: the masked scores' softmax, and the
/// scaled product before it.
const SCORES_HELD: u64 = 2;
/// Tensors of the size of the logits alive at the peak.
const LOGITS_HELD: u64 = 3;
const F32_BYTES: u64 = 4;

/// Bytes of one training step. Saturates, as no size that enters here is certain to be sensible.
pub(crate) fn memory(
    n_parameters: u64,
    sizes: Sizes,
    shape: TrainingShape,
    count: ActivationCount,
) -> MemoryEstimate {
    let weights = n_parameters.saturating_mul(F32_BYTES);
    let scores = (sizes.n_heads as u64 * SCORES_HELD).saturating_mul(shape.sequence_length as u64);
    let per_token = count
        .block
        .saturating_add(scores)
        .saturating_mul(sizes.n_layers as u64)
        .saturating_add(count.outside_blocks);
    let per_token_logits = sizes.vocab_size as u64 * LOGITS_HELD;
    let bytes =
        |per_token: u64| shape.n_tokens().saturating_mul(per_token).saturating_mul(F32_BYTES);
    MemoryEstimate {
        weights,
        gradients: weights,
        optimizer: weights.saturating_mul(2),
        activations: bytes(per_token),
        logits: bytes(per_token_logits),
    }
}
