//! Memory of a training step, by part, and the pairs that attention computes: the formulas that all families share.
//! Nothing is measured here.

use crate::memory_estimate::{MemoryEstimate, adamw_state_bytes, bytes, product, sum};
use crate::sizes::Sizes;

/// Rows and tokens that go through the model at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingShape {
    /// Rows of a micro-batch.
    pub rows: usize,
    /// Tokens per row.
    pub sequence_length: usize,
}

impl TrainingShape {
    /// Tokens of a micro-batch.
    pub fn n_tokens(self) -> u64 {
        (self.rows as u64).saturating_mul(self.sequence_length as u64)
    }
}

/// The kernels that compute a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KernelPath {
    /// Fused CPU kernels, each with its own backward pass.
    #[default]
    Cpu,
    /// Separate tensor operations, on any device.
    Generic,
}

/// The values that a step computes from hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOutput {
    /// Cross-entropy of the next tokens.
    CrossEntropy,
    /// Log-probabilities of tokens, for preference losses and PPO's policy.
    LogProbs,
    /// Probabilities of all tokens, for divergences from another model.
    Distributions,
    /// One score per position.
    Scores,
}

/// Settings of a step that its cost depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Computation {
    /// The kernels.
    pub kernel_path: KernelPath,
    /// Whether blocks keep only their input and are recomputed in the backward pass.
    pub recomputes_blocks: bool,
    /// The values that are computed from hidden states.
    pub output: HeadOutput,
}

/// Sizes of a model's adapters, summed over all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterShape {
    /// Trained elements: factors, and the head if the base model has none.
    pub n_trained: u64,
    /// Sum of ranks.
    pub total_rank: u64,
    /// Sum of input and output widths of the layers.
    pub total_width: u64,
    /// Whether dropout is applied to inputs.
    pub has_dropout: bool,
}

/// Elements that a family's blocks hold or use in a step, per token unless stated otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActivationCount {
    /// Held by one block from forward to backward, without its input and the attention scores.
    pub(crate) block: u64,
    /// The part of `block` that norms hold only for the gradient of their weights.
    pub(crate) of_norm_weights: u64,
    /// Held for the final norm: its input, and what the gradient of its weight needs.
    pub(crate) final_norm: [u64; 2],
    /// In use during the backward pass of one block, without the attention scores.
    pub(crate) working: u64,
    /// Size of the largest matrix of a block, for any number of tokens.
    pub(crate) matrix: u64,
    /// Tables, for any number of tokens.
    pub(crate) fixed: u64,
    /// Held outside the blocks: angles of positions, ids, masks.
    pub(crate) other: u64,
}

/// Number of (query, key) pairs in one head of one layer for a row of causal attention. With a window, a query attends to
/// that many positions at most, itself included.
pub(crate) fn attended_pairs(row_length: u64, window: Option<usize>) -> u64 {
    let length = u128::from(row_length);
    let window = window.map_or(length, |window| (window as u128).min(length));
    // The first `window` queries see 1, 2, … keys; the others see `window`.
    let n_pairs = window * (window + 1) / 2 + (length - window) * window;
    u64::try_from(n_pairs).unwrap_or(u64::MAX)
}

/// The loss computes logits in chunks of at most this many elements (but at least 16 rows), on CPU and generic kernels.
const LOGITS_CHUNK: [u64; 2] = [24 << 20, 8 << 20];
/// The loss computes logits in chunks of at most this many rows.
const CHUNK_ROWS: u64 = 1024;

/// A divergence computes logits in chunks of at most this many elements (but at least 16 rows), and compares distributions in
/// smaller ones.
const DIVERGENCE_CHUNK: [u64; 2] = [4 << 20, 1 << 19];

/// Memory of one training step. Saturates, because sizes may be unreasonable.
///
/// The counts are those of the tensors that `kernels` holds, fitted to measurements with a counting allocator in which one
/// size at a time was varied (the example `memory` of bench; the test `estimates_are_near_what_was_measured`).
pub(crate) fn training_memory(
    n_parameters: u64,
    sizes: Sizes,
    shape: TrainingShape,
    computation: Computation,
    count: ActivationCount,
    adapters: Option<AdapterShape>,
) -> MemoryEstimate {
    let Computation { kernel_path, recomputes_blocks, output } = computation;
    let (n, v) = (shape.n_tokens(), sizes.vocab_size as u64);
    let (d, n_layers) = (sizes.hidden_size as u64, (sizes.n_layers as u64).max(1));
    let trains_all = adapters.is_none();
    let block = block_elements(sizes, shape, kernel_path, count, adapters);
    let loss = loss_elements(n, v, d, computation, trains_all);

    let final_norm = count.final_norm[0] + if trains_all { count.final_norm[1] } else { 0 };
    let loss_activations = product(&[n, final_norm]).saturating_add(loss.held);
    let kept = d.saturating_add(if recomputes_blocks { 0 } else { block.held });
    let blocks = product(&[n, n_layers, kept]);
    let other = product(&[n, count.other]).saturating_add(count.fixed);
    let recomputed = if recomputes_blocks { block.held } else { 0 };
    let matrix = if trains_all { count.matrix } else { 0 };
    let block_working =
        product(&[n, recomputed.saturating_add(block.working)]).saturating_add(matrix);

    let n_trained = adapters.map_or(n_parameters, |adapters| adapters.n_trained);
    let n_weights = n_parameters.saturating_add(if trains_all { 0 } else { n_trained });
    let table = if trains_all { product(&[v, d]) } else { 0 };
    let has_logits = output != HeadOutput::Scores;
    let is_tied = sizes.tied && has_logits;
    let adds_tied_gradients = is_tied && kernel_path == KernelPath::Generic;
    MemoryEstimate {
        weights: bytes(n_weights),
        gradients: bytes(n_trained),
        optimizer: adamw_state_bytes(n_trained),
        activations: bytes(sum(&[blocks, loss_activations, other])),
        logits: bytes(loss.working.max(block_working)),
        other_gradients: 0,
        accumulates_in_place: kernel_path == KernelPath::Cpu && !recomputes_blocks,
        loss_activations: bytes(loss_activations),
        loss_working: bytes(loss.working),
        block_working: bytes(block_working),
        block_activations: bytes(product(&[n, kept]).saturating_add(other)),
        head_gradient: if has_logits { bytes(table) } else { 0 },
        embedding_gradient: if is_tied { 0 } else { bytes(table) },
        tied_gradients: if adds_tied_gradients { bytes(table.saturating_mul(2)) } else { 0 },
        first_updated: bytes(table),
    }
}

/// Elements held from forward to backward, and elements in use at once.
struct Elements {
    held: u64,
    working: u64,
}

/// Elements of one block per token.
fn block_elements(
    sizes: Sizes,
    shape: TrainingShape,
    kernel_path: KernelPath,
    count: ActivationCount,
    adapters: Option<AdapterShape>,
) -> Elements {
    let d = sizes.hidden_size as u64;
    let all_scores = product(&[sizes.n_heads as u64, shape.sequence_length as u64]);
    let (scores, scores_working) = match kernel_path {
        KernelPath::Cpu => (sizes.n_heads as u64, 0),
        // Three tensors and a mask are held, half as many again are in use.
        KernelPath::Generic => {
            (all_scores.saturating_mul(25) / 8, all_scores.saturating_mul(3) / 2)
        }
    };
    let of_adapters = adapters.map_or(0, |adapters| {
        let dropped = if adapters.has_dropout { adapters.total_width } else { 0 };
        adapters.total_rank.saturating_add(dropped) / (sizes.n_layers as u64).max(1)
    });
    let of_norms = if adapters.is_some() { count.of_norm_weights } else { 0 };
    let held = sum(&[count.block.saturating_sub(of_norms), scores, of_adapters]);
    let working = count.working.max(if scores_working > 0 {
        scores_working.saturating_add(4 * d)
    } else {
        0
    });
    Elements { held, working }
}

/// Elements of the loss for `n` tokens, a vocabulary of `v` and a width of `d`.
fn loss_elements(n: u64, v: u64, d: u64, computation: Computation, trains_all: bool) -> Elements {
    let Computation { kernel_path, output, .. } = computation;
    let hidden = product(&[n, d]);
    let chunk_elements = match kernel_path {
        KernelPath::Cpu => LOGITS_CHUNK[0],
        KernelPath::Generic => LOGITS_CHUNK[1],
    };
    let rows = (chunk_elements / v.max(1)).clamp(16, CHUNK_ROWS).min(n);
    let chunk = product(&[rows, v]);
    let logits = product(&[n, v]);
    let chunks_working = chunk.saturating_mul(5) / 2;
    match (output, kernel_path) {
        (HeadOutput::Scores, KernelPath::Cpu | KernelPath::Generic) => {
            Elements { held: hidden, working: 0 }
        }
        // Hidden states at targets with their gradients; both models' logits of a chunk, their gradient, a copy of it, and the
        // values of a smaller chunk.
        (HeadOutput::Distributions, KernelPath::Cpu | KernelPath::Generic) => {
            let rows = (DIVERGENCE_CHUNK[0] / v.max(1)).clamp(16, CHUNK_ROWS).min(n);
            let compared = product(&[rows, v]).min(DIVERGENCE_CHUNK[1].max(v));
            let chunks = product(&[rows, v]).saturating_mul(4);
            let working = sum(&[hidden, chunks, compared.saturating_mul(10)]);
            Elements { held: hidden.saturating_mul(2), working }
        }
        // The gradient of hidden states, a chunk, and the packed transpose of a chunk.
        (HeadOutput::CrossEntropy | HeadOutput::LogProbs, KernelPath::Cpu) => {
            let packed = if trains_all { chunk / 2 } else { 0 };
            Elements { held: hidden, working: sum(&[hidden, chunk, packed]) }
        }
        (HeadOutput::CrossEntropy, KernelPath::Generic) => {
            Elements { held: logits, working: sum(&[hidden, logits / 4 * 3, chunks_working]) }
        }
        (HeadOutput::LogProbs, KernelPath::Generic) => Elements {
            held: logits.saturating_mul(2),
            working: sum(&[hidden, logits / 4 * 5, chunks_working]),
        },
    }
}
