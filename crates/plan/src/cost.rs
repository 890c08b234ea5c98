//! What a stage costs: operations, memory by part, disk. Estimates from formulas; the time comes from a probe elsewhere.

use arch::{MemoryEstimate, ModelConfig, TrainingShape};
use data::Dataset;

/// A checkpoint holds the weights and two moments of each, four bytes apiece.
const CHECKPOINT_BYTES_PER_PARAMETER: u64 = 12;
/// `model/` holds the weights.
const MODEL_BYTES_PER_PARAMETER: u64 = 4;

/// The cost of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Parameters of the model.
    pub n_parameters: u64,
    /// Parameters that are trained.
    pub n_trained: u64,
    /// Positions that go through the model, padding included.
    pub n_tokens: u64,
    /// Floating-point operations of the whole stage, without evaluation.
    pub flops: f64,
    /// Memory of a step, by part.
    pub memory: MemoryEstimate,
    /// The most that stands at once.
    pub peak_bytes: u64,
    /// Bytes of one checkpoint.
    pub checkpoint_bytes: u64,
    /// Bytes of the finished model.
    pub model_bytes: u64,
}

impl Cost {
    pub(crate) fn of(
        config: &ModelConfig,
        dataset: &Dataset,
        sequence_length: usize,
        rows_per_step: usize,
        micro_batch: usize,
    ) -> Self {
        let n_parameters = config.n_parameters();
        let (rows, length) = (dataset.n_run_rows(), sequence_length as u64);
        // Rows are counted as if each held one sample; packed ones attend to less.
        let pairs = rows.saturating_mul(length * (length + 1) / 2);
        let n_tokens = rows.saturating_mul(length);
        let shape = TrainingShape { rows: micro_batch, sequence_length };
        let memory = config.training_memory(shape);
        Self {
            n_parameters,
            n_trained: n_parameters,
            n_tokens,
            flops: config.training_flops(n_tokens, pairs),
            memory,
            peak_bytes: memory.peak(rows_per_step.div_ceil(micro_batch.max(1)) as u64),
            checkpoint_bytes: n_parameters.saturating_mul(CHECKPOINT_BYTES_PER_PARAMETER),
            model_bytes: n_parameters.saturating_mul(MODEL_BYTES_PER_PARAMETER),
        }
    }
}
