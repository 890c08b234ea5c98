//! Context of a block: what its parts read besides their input.

use std::sync::Arc;

use burn::tensor::Tensor;
use kernels::AttentionMask;

/// The positions' rotary angles, the mask of a block, and settings of the forward pass.
#[derive(Clone)]
pub(super) struct BlockContext {
    /// Cosines and sines, `[b, t, c]` each; `None` in a block without positions.
    pub(super) rope: Option<(Tensor<3>, Tensor<3>)>,
    pub(super) mask: AttentionMask,
    /// Tells tokens from padding; empty in models without experts.
    pub(super) is_real: Arc<Vec<bool>>,
    /// Whether a sparse block recomputes its parts in the backward pass. Dense blocks are recomputed as a whole.
    pub(super) recomputes: bool,
}
