//! Memory of a training step by part, and the peak over the moments of the step.

/// Memory of a training step in bytes, by part. Weights and activations are in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEstimate {
    /// Weights.
    pub weights: u64,
    /// One gradient for each trained weight.
    pub gradients: u64,
    /// Optimizer state. Two moments for each trained weight (AdamW) until [`Self::with_optimizer_state`] is called.
    pub optimizer: u64,
    /// Activations held from forward to backward.
    pub activations: u64,
    /// Temporary buffers: a chunk of logits in the loss, or the backward pass of one block, whichever is larger.
    pub logits: u64,
    /// Gradients of other models that are trained in the same step.
    pub(crate) other_gradients: u64,
    /// Whether gradients are added in place to those of earlier micro-batches.
    pub(crate) accumulates_in_place: bool,
    /// Activations held until the loss has been computed.
    pub(crate) loss_activations: u64,
    /// Temporary buffers of the loss.
    pub(crate) loss_working: u64,
    /// Temporary buffers of the backward pass of a block, with its recomputed activations.
    pub(crate) block_working: u64,
    /// Activations of one block.
    pub(crate) block_activations: u64,
    /// Gradient of the output layer's weight. It is computed first and held to the end.
    pub(crate) head_gradient: u64,
    /// Gradient of the token embedding, which is computed last. 0 if the embedding is tied.
    pub(crate) embedding_gradient: u64,
    /// Both gradients of a tied weight while they are added up.
    pub(crate) tied_gradients: u64,
    /// The token embedding if it is trained: the first weight to be updated.
    pub(crate) first_updated: u64,
}

impl MemoryEstimate {
    /// A step that trains several models of this shape, one after another: `n_weights` elements in all, `n_trained` of
    /// them trained.
    #[must_use]
    pub fn of_several_models(self, n_weights: u64, n_trained: u64) -> Self {
        let (weights, trained) = (bytes(n_weights), bytes(n_trained));
        let other_gradients = trained.saturating_sub(self.gradients);
        let optimizer = adamw_state_bytes(n_trained);
        Self { weights, gradients: trained, optimizer, other_gradients, ..self }
    }

    /// The same step with frozen weights stored in bf16. Temporary f32 copies inside products are not counted.
    #[must_use]
    pub fn with_frozen_in_bf16(self) -> Self {
        let frozen = self.weights.saturating_sub(self.gradients);
        Self { weights: self.weights - frozen / 2, ..self }
    }

    /// The same step with matrices of `n_elements` in all stored in `packed_bytes`. Products unpack one at a time; the largest
    /// has `largest` elements.
    #[must_use]
    pub fn with_packed_matrices(self, n_elements: u64, packed_bytes: u64, largest: u64) -> Self {
        let weights = self.weights.saturating_sub(bytes(n_elements)).saturating_add(packed_bytes);
        let block_working = self.block_working.saturating_add(bytes(largest));
        let logits = self.logits.max(block_working);
        Self { weights, logits, block_working, ..self }
    }

    /// The same step beside a frozen model of `n_weights` elements.
    #[must_use]
    pub fn beside_frozen(self, n_weights: u64) -> Self {
        Self { weights: self.weights.saturating_add(bytes(n_weights)), ..self }
    }

    /// The same step with this many bytes of optimizer state.
    #[must_use]
    pub fn with_optimizer_state(self, bytes: u64) -> Self {
        Self { optimizer: bytes, ..self }
    }

    /// Sum of all parts.
    pub fn total(&self) -> u64 {
        sum(&[self.weights, self.gradients, self.optimizer, self.activations, self.logits])
    }

    /// Peak memory of a step of `n_micro_batches` micro-batches.
    ///
    /// Activations are freed as gradients are computed, block by block, so the peak is at one of four moments: the loss,
    /// the backward pass of the last block, that of the first block, or the end. Gradients of earlier micro-batches are
    /// held throughout; if gradients are accumulated in place, only that of the output layer is new.
    pub fn peak(&self, n_micro_batches: u64) -> u64 {
        let earlier = if n_micro_batches > 1 { self.gradients } else { self.other_gradients };
        let all_new = self.gradients.saturating_sub(self.other_gradients);
        let new = if n_micro_batches > 1 && self.accumulates_in_place {
            self.head_gradient
        } else {
            all_new
        };
        let held = self.activations.saturating_sub(self.loss_activations);
        let at_loss = sum(&[self.activations, self.loss_working, self.head_gradient]);
        let at_last_block = sum(&[held, self.block_working, self.head_gradient]);
        let block_gradients = new.saturating_sub(self.embedding_gradient);
        let at_first_block = sum(&[self.block_activations, self.block_working, block_gradients]);
        let at_end = new.saturating_add(self.tied_gradients);
        let most = at_loss.max(at_last_block).max(at_first_block).max(at_end);
        // The first update allocates the optimizer state and copies each weight once.
        let first = sum(&[self.weights, self.gradients, self.first_updated.saturating_mul(3)]);
        sum(&[self.weights, self.optimizer, earlier, most]).max(first)
    }
}

pub(crate) fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |total, &part| total.saturating_add(part))
}

pub(crate) fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |total, &factor| total.saturating_mul(factor))
}

pub(crate) fn bytes(elements: u64) -> u64 {
    elements.saturating_mul(4)
}

/// Two moments of each trained weight, in f32.
pub(crate) fn adamw_state_bytes(n_trained: u64) -> u64 {
    bytes(n_trained).saturating_mul(2)
}
