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

/// Which bodies compute a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KernelPath {
    /// Those for the CPU, each with a backward pass of its own.
    #[default]
    Cpu,
    /// Tensor operations one by one.
    Generic,
}

/// What a step makes of the hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The cross-entropy of next tokens.
    CrossEntropy,
    /// Log-probabilities of tokens, as preference losses and PPO's policy read them.
    LogProbs,
    /// One number a position.
    Scores,
}

/// How a step is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Computation {
    /// By which bodies.
    pub bodies: KernelPath,
    /// Whether blocks keep their input alone and are computed again in the backward pass.
    pub recomputes_blocks: bool,
    /// To what end.
    pub output: Output,
}

/// Adapters as they count in memory, all layers of a model together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterShape {
    /// Elements that are trained: factors, and a head that the base lacks.
    pub n_trained: u64,
    /// The ranks of all layers.
    pub ranks: u64,
    /// What all layers read and write, for each token.
    pub widths: u64,
    /// Whether what they read is dropped out.
    pub has_dropout: bool,
}

/// Elements that a family's blocks need in a step, for each token but where said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActivationCount {
    /// Held from forward to backward by one block beside its input, without scores.
    pub(crate) block: u64,
    /// The part of that which norms hold for the gradient of their weights alone.
    pub(crate) of_norm_weights: u64,
    /// Held outside the blocks for the final norm's input, and for the gradient of its weight.
    pub(crate) final_norm: [u64; 2],
    /// In use while one block's backward runs, without the scores.
    pub(crate) passing: u64,
    /// Of the largest matrix of a block, however many tokens there are.
    pub(crate) matrix: u64,
    /// However many tokens there are: tables.
    pub(crate) fixed: u64,
    /// Outside the blocks, besides: angles of positions, ids, masks.
    pub(crate) other: u64,
}

/// Bytes of a training step, by part; all weights and activations in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEstimate {
    /// The weights.
    pub weights: u64,
    /// One gradient of each trained weight.
    pub gradients: u64,
    /// The optimizer's state: the two moments of AdamW, unless [`Self::with_optimizer_state`] says otherwise.
    pub optimizer: u64,
    /// What is held from forward to backward.
    pub activations: u64,
    /// What is worked on at once: a chunk of logits in the loss, later the backward of one block.
    pub logits: u64,
    /// Gradients of models that learn beside this one.
    beside: u64,
    /// Whether products add to the sums of earlier micro-batches.
    adds_in_place: bool,
    /// Held until the loss is left behind.
    loss: u64,
    /// Worked on in the loss.
    in_loss: u64,
    /// Worked on in the backward pass of a block; what is computed again among it.
    in_block: u64,
    /// Held by one block.
    of_block: u64,
    /// The gradient of the last product's weight, which comes first and stays to the end.
    head: u64,
    /// The gradient of the token embedding, which comes last, where that is a weight of its own.
    embedding: u64,
    /// Besides, at the end: both gradients of a tied weight beside their sum.
    twice: u64,
    /// The token embedding, where it is trained: the first weight that is updated.
    first_updated: u64,
}

impl MemoryEstimate {
    /// A step of several models of this shape, whose graphs follow one another: `n_weights` elements stand in memory in
    /// all, `n_trained` of them are trained.
    #[must_use]
    pub fn of_several_models(self, n_weights: u64, n_trained: u64) -> Self {
        let (weights, trained) = (bytes(n_weights), bytes(n_trained));
        let beside = trained.saturating_sub(self.gradients);
        Self { weights, gradients: trained, optimizer: trained.saturating_mul(2), beside, ..self }
    }

    /// The same where weights that are not trained are held in bf16. What a product in f32 widens on the way is not counted.
    #[must_use]
    pub fn with_frozen_in_bf16(self) -> Self {
        let frozen = self.weights.saturating_sub(self.gradients);
        Self { weights: self.weights - frozen / 2, ..self }
    }

    /// The same with so many bytes of optimizer state.
    #[must_use]
    pub fn with_optimizer_state(self, bytes: u64) -> Self {
        Self { optimizer: bytes, ..self }
    }

    /// All parts together, as if all stood at once.
    pub fn total(&self) -> u64 {
        sum(&[self.weights, self.gradients, self.optimizer, self.activations, self.logits])
    }

    /// The most that stands at once in a step of so many micro-batches.
    ///
    /// Activations go while gradients come, evenly over the blocks, so one of four moments counts: the loss, the last
    /// block's backward pass, the first block's, the end. The sums over earlier micro-batches stand beside each; where
    /// products add to them in place, only what the loss makes of the head is new.
    pub fn peak(&self, n_micro_batches: u64) -> u64 {
        let sums = if n_micro_batches > 1 { self.gradients } else { self.beside };
        let own = self.gradients.saturating_sub(self.beside);
        let held = self.activations.saturating_sub(self.loss);
        let in_loss = sum(&[self.activations, self.in_loss, self.head]);
        let last_block = sum(&[held, self.in_block, self.head]);
        let own = if n_micro_batches > 1 && self.adds_in_place { self.head } else { own };
        let blocks = own.saturating_sub(self.embedding);
        let first_block = sum(&[self.of_block, self.in_block, blocks]);
        let end = own.saturating_add(self.twice);
        let most = in_loss.max(last_block).max(first_block).max(end);
        // The first update finds gradients and makes moments, and copies each weight once.
        let first = sum(&[self.weights, self.gradients, self.first_updated.saturating_mul(3)]);
        sum(&[self.weights, self.optimizer, sums, most]).max(first)
    }
}

fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |total, &part| total.saturating_add(part))
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |total, &factor| total.saturating_mul(factor))
}

fn bytes(elements: u64) -> u64 {
    elements.saturating_mul(4)
}

/// The loss goes through the logits in chunks of this many elements at most, or of 16 rows; the second is of plain bodies.
const LOGITS_CHUNK: [u64; 2] = [24 << 20, 8 << 20];
/// And of this many rows at most.
const CHUNK_ROWS: u64 = 1024;

/// Bytes of one training step. Saturates, as no size that enters here is certain to be sensible.
///
/// The counts are what the bodies of `kernels` keep, fitted to what a counting allocator measured while one size after the
/// other was changed (`estimates_are_near_what_was_measured`, the example `memory` of bench).
pub(crate) fn memory(
    n_parameters: u64,
    sizes: Sizes,
    shape: TrainingShape,
    computation: Computation,
    count: ActivationCount,
    adapters: Option<AdapterShape>,
) -> MemoryEstimate {
    let Computation { bodies, recomputes_blocks, output } = computation;
    let (n, v) = (shape.n_tokens(), sizes.vocab_size as u64);
    let (d, n_layers) = (sizes.hidden_size as u64, (sizes.n_layers as u64).max(1));
    let trains_all = adapters.is_none();

    // A block, for each token.
    let all_scores = product(&[sizes.n_heads as u64, shape.sequence_length as u64]);
    let scores = match bodies {
        KernelPath::Cpu => [sizes.n_heads as u64, 0],
        // Three tensors and a mask are held, half as many again are in use.
        KernelPath::Generic => {
            [all_scores.saturating_mul(25) / 8, all_scores.saturating_mul(3) / 2]
        }
    };
    let of_adapters = adapters.map_or(0, |adapters| {
        let dropped = if adapters.has_dropout { adapters.widths } else { 0 };
        adapters.ranks.saturating_add(dropped) / n_layers
    });
    let of_norms = if trains_all { 0 } else { count.of_norm_weights };
    let inside = sum(&[count.block.saturating_sub(of_norms), scores[0], of_adapters]);
    let passing = count.passing.max(if scores[1] > 0 { scores[1] + 4 * d } else { 0 });
    let matrix = if trains_all { count.matrix } else { 0 };

    // The loss.
    let elements = LOGITS_CHUNK[usize::from(bodies == KernelPath::Generic)];
    let rows = (elements / v.max(1)).clamp(16, CHUNK_ROWS).min(n);
    let chunk = product(&[rows, v]);
    let logits = product(&[n, v]);
    let [held_by_loss, in_loss] = match (output, bodies) {
        (Output::Scores, _) => [product(&[n, d]), 0],
        // A gradient of hidden states, and products of transposed chunks are packed.
        (_, KernelPath::Cpu) => [
            product(&[n, d]),
            sum(&[product(&[n, d]), chunk, if trains_all { chunk / 2 } else { 0 }]),
        ],
        (Output::CrossEntropy, KernelPath::Generic) => {
            [logits, sum(&[product(&[n, d]), logits / 4 * 3, chunk.saturating_mul(5) / 2])]
        }
        (Output::LogProbs, KernelPath::Generic) => [
            logits.saturating_mul(2),
            sum(&[product(&[n, d]), logits / 4 * 5, chunk.saturating_mul(5) / 2]),
        ],
    };
    let final_norm = count.final_norm[0] + if trains_all { count.final_norm[1] } else { 0 };
    let loss = product(&[n, final_norm]).saturating_add(held_by_loss);

    let kept = d.saturating_add(if recomputes_blocks { 0 } else { inside });
    let blocks = product(&[n, n_layers, kept]);
    let other = product(&[n, count.other]).saturating_add(count.fixed);
    let again = if recomputes_blocks { inside } else { 0 };
    let in_block = product(&[n, again.saturating_add(passing)]).saturating_add(matrix);

    let n_trained = adapters.map_or(n_parameters, |adapters| adapters.n_trained);
    let n_weights = n_parameters.saturating_add(if trains_all { 0 } else { n_trained });
    let table = if trains_all { product(&[v, d]) } else { 0 };
    let has_logits = output != Output::Scores;
    let is_tied = sizes.tied && has_logits;
    let twice = if is_tied && bodies == KernelPath::Generic { table.saturating_mul(2) } else { 0 };
    MemoryEstimate {
        weights: bytes(n_weights),
        gradients: bytes(n_trained),
        optimizer: bytes(n_trained).saturating_mul(2),
        activations: bytes(sum(&[blocks, loss, other])),
        logits: bytes(in_loss.max(in_block)),
        beside: 0,
        adds_in_place: bodies == KernelPath::Cpu && !recomputes_blocks,
        loss: bytes(loss),
        in_loss: bytes(in_loss),
        in_block: bytes(in_block),
        of_block: bytes(product(&[n, kept]).saturating_add(other)),
        head: if has_logits { bytes(table) } else { 0 },
        embedding: if is_tied { 0 } else { bytes(table) },
        twice: bytes(twice),
        first_updated: bytes(table),
    }
}
