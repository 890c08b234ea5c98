//! What a stage costs: operations, memory by part, disk. Estimates from formulas; the time comes from a probe elsewhere.

use arch::{
    AdapterShape, Computation, KernelPath, MemoryEstimate, ModelConfig, Output, ParamSpec,
    TrainingShape,
};
use data::Dataset;
use recipe::{BaseDtype, Checkpointing, Eval, PpoSection};

use crate::{Algorithm, LoraPlan, PpoPlan};

/// Bytes of a weight, in `model/` and in a checkpoint; the optimizer's state comes on top there.
const BYTES_PER_PARAMETER: u64 = 4;

/// What a process holds besides tensors: the binary, tokenizer, mapped data and batches (measured on small recipes).
const PROCESS_BYTES: u64 = 25_000_000;

/// The cost of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Parameters of the model.
    pub n_parameters: u64,
    /// Parameters that are trained.
    pub n_trained: u64,
    /// Positions that go through the model; of pairs, their tokens without padding.
    pub n_tokens: u64,
    /// Pairs that the starting weights are asked about, once each; 0 for a stage without reference.
    pub n_reference_pairs: u64,
    /// Floating-point operations of the whole stage, without evaluation.
    pub flops: f64,
    /// Memory of a step of one replica, by part.
    pub memory: MemoryEstimate,
    /// The most that stands at once, the rest of the process included; of all replicas where they share a memory.
    pub peak_bytes: u64,
    /// Bytes of one checkpoint.
    pub checkpoint_bytes: u64,
    /// Bytes of the finished model.
    pub model_bytes: u64,
}

impl Cost {
    pub(crate) fn of(
        config: &ModelConfig,
        algorithm: Algorithm,
        lora: Option<&LoraPlan>,
        dataset: &Dataset,
        step: StepShape,
    ) -> Self {
        let StepShape { sequence_length, micro_batch, .. } = step;
        let head = Head::of(config, algorithm);
        let n_parameters = head.n_parameters;
        let rows = dataset.n_run_rows().saturating_mul(dataset.batch_rows());
        let length = counted_length(algorithm, dataset, sequence_length);
        let pairs = rows.saturating_mul(length * (length + 1) / 2);
        let n_tokens = rows.saturating_mul(length);
        let rows_at_once = micro_batch * dataset.batch_rows() as usize;
        let longest = longest_row(algorithm, dataset, sequence_length);
        let shape = TrainingShape { rows: rows_at_once, sequence_length: longest };
        let n_trained = lora.map_or(n_parameters, |lora| lora.n_parameters + head.n_own);
        let computation = step.computation(output_of(algorithm));
        let (memory, flops) = match lora {
            None => {
                (config.training_memory(shape, computation), config.training_flops(n_tokens, pairs))
            }
            Some(lora) => (
                config.adapter_training_memory(shape, computation, adapters(lora, n_trained)),
                config.adapter_training_flops(n_tokens, pairs, n_trained),
            ),
        };
        let memory = as_held(memory.with_optimizer_state(step.optimizer_state), lora);
        let unused_flops = head.unused_flops * n_tokens as f64;
        let unused_flops = if lora.is_some() { unused_flops * 2.0 / 3.0 } else { unused_flops };
        Self {
            n_parameters: n_parameters + lora.map_or(0, |lora| lora.n_parameters),
            n_trained,
            n_tokens,
            n_reference_pairs: 0,
            flops: flops - unused_flops,
            memory,
            peak_bytes: step.peak(&memory, step.rows_per_step),
            checkpoint_bytes: step.checkpoint_bytes(n_trained),
            model_bytes: n_trained.saturating_mul(BYTES_PER_PARAMETER),
        }
    }
}

impl Cost {
    /// Adds what the starting weights say of each pair once, those that are held out among them.
    ///
    /// The memory is that of a step: nothing of it is held for a backward pass.
    pub(crate) fn add_reference(
        &mut self,
        config: &ModelConfig,
        dataset: &Dataset,
        eval: Option<&Eval>,
        sequence_length: usize,
    ) {
        let held_out = dataset.n_eval_rows();
        let measured = eval.and_then(|eval| eval.max_rows).unwrap_or(held_out).min(held_out);
        let trained = dataset.n_run_rows().min(dataset.counts().train_samples);
        self.n_reference_pairs = trained + measured;
        let texts = self.n_reference_pairs.saturating_mul(dataset.batch_rows());
        let length = counted_length(Algorithm::Dpo, dataset, sequence_length);
        let pairs = texts.saturating_mul(length * (length + 1) / 2);
        self.flops += config.forward_flops(texts.saturating_mul(length), pairs);
    }

    /// Updates of PPO, every answer counted at its full length: sampled once, read once by policy, reference, reward and
    /// value model, and then learned from by policy and value model in each epoch.
    pub(crate) fn of_ppo(
        config: &ModelConfig,
        lora: Option<&LoraPlan>,
        ppo: &PpoPlan,
        section: &PpoSection,
        max_steps: u64,
        shape: StepShape,
    ) -> Self {
        let length = shape.sequence_length as u64;
        let rows = max_steps.saturating_mul(shape.rows_per_step as u64);
        let (n_tokens, pairs) =
            (rows.saturating_mul(length), rows.saturating_mul(length * (length + 1) / 2));
        let scorer = Head::of(config, Algorithm::Reward);
        let n_factors = |lora: Option<&LoraPlan>| lora.map_or(0, |lora| lora.n_parameters);
        let trained = |lora: Option<&LoraPlan>, whole: u64, head: u64| match lora {
            Some(lora) => lora.n_parameters + head,
            None => whole,
        };
        let value_lora = ppo.value_lora.as_ref();
        let n_policy = trained(lora, config.n_parameters(), 0);
        let n_value = trained(value_lora, scorer.n_parameters, scorer.n_own);

        let forward = config.forward_flops(n_tokens, pairs);
        // Scores need no logits.
        let scored = forward - scorer.unused_flops / 3.0 * n_tokens as f64;
        let learned = |lora: Option<&LoraPlan>, n_trained: u64, unused: f64| match lora {
            Some(_) => {
                config.adapter_training_flops(n_tokens, pairs, n_trained)
                    - unused * 2.0 / 3.0 * n_tokens as f64
            }
            None => config.training_flops(n_tokens, pairs) - unused * n_tokens as f64,
        };
        let epoch =
            learned(lora, n_policy, 0.0) + learned(value_lora, n_value, scorer.unused_flops);
        let flops = 3.0 * forward + 2.0 * scored + section.n_ppo_epochs as f64 * epoch;

        let n_minibatch = shape.rows_per_step / section.n_minibatches.max(1);
        let rows = TrainingShape {
            rows: shape.micro_batch.min(n_minibatch),
            sequence_length: shape.sequence_length,
        };
        let n_trained = n_policy + n_value;
        let computation = shape.computation(Output::LogProbs);
        let step = match lora {
            Some(lora) => {
                let adapters = AdapterShape { has_dropout: false, ..adapters(lora, n_policy) };
                config.adapter_training_memory(rows, computation, adapters)
            }
            None => config.training_memory(rows, computation),
        };
        let n_weights = ppo.n_base_parameters + n_factors(lora) + n_factors(value_lora);
        let memory = step.of_several_models(n_weights, n_trained);
        let memory = as_held(memory.with_optimizer_state(shape.optimizer_state), lora);
        Self {
            n_parameters: n_weights,
            n_trained,
            n_tokens,
            flops,
            memory,
            peak_bytes: shape.peak(&memory, shape.rows_per_step / section.n_minibatches.max(1)),
            n_reference_pairs: 0,
            checkpoint_bytes: shape.checkpoint_bytes(n_trained),
            model_bytes: n_policy.saturating_mul(BYTES_PER_PARAMETER),
        }
    }
}

/// The tokens that a row is counted at.
///
/// A text of a pair has a row to itself, which padding fills: it counts by the mean text's length. Other rows are full, and
/// counted as if each held one sample; packed ones attend to less.
fn counted_length(algorithm: Algorithm, dataset: &Dataset, sequence_length: usize) -> u64 {
    match algorithm {
        Algorithm::Reward | Algorithm::Dpo => {
            let counts = dataset.counts();
            counts.tokens.div_ceil(counts.samples.max(1)).min(sequence_length as u64)
        }
        Algorithm::Pretrain | Algorithm::Sft | Algorithm::Ppo => sequence_length as u64,
    }
}

/// The tokens that the rows of a micro-batch have at most.
///
/// Pairs go through the model without the padding that all of them share. The first steps are looked at: what they have at
/// most is about what all have.
fn longest_row(algorithm: Algorithm, dataset: &Dataset, sequence_length: usize) -> usize {
    const N_STEPS: u64 = 32;
    if !matches!(algorithm, Algorithm::Reward | Algorithm::Dpo) {
        return sequence_length;
    }
    let steps = 0..dataset.n_steps().min(N_STEPS);
    let longest = steps.filter_map(|step| dataset.batch(step).lengths().into_iter().max()).max();
    longest.unwrap_or(sequence_length).min(sequence_length)
}

/// What the system shows of a process: tensors, the gaps between them that the allocator keeps, and the rest. Measured on
/// runs of all stages, from 30 MB to 800 MB.
fn of_process(tensors: u64) -> u64 {
    tensors.saturating_add(tensors / 8).saturating_add(PROCESS_BYTES)
}

/// What a stage makes of hidden states.
fn output_of(algorithm: Algorithm) -> Output {
    match algorithm {
        Algorithm::Pretrain | Algorithm::Sft => Output::CrossEntropy,
        Algorithm::Dpo | Algorithm::Ppo => Output::LogProbs,
        Algorithm::Reward => Output::Scores,
    }
}

/// The frozen weights in the type that the adapter's keys ask for.
fn as_held(memory: MemoryEstimate, lora: Option<&LoraPlan>) -> MemoryEstimate {
    match lora.map(|lora| lora.base_dtype) {
        Some(BaseDtype::Bf16) => memory.with_frozen_in_bf16(),
        Some(BaseDtype::F32) | None => memory,
    }
}

fn adapters(lora: &LoraPlan, n_trained: u64) -> AdapterShape {
    let rank = lora.config.rank as u64;
    AdapterShape {
        n_trained,
        ranks: rank.saturating_mul(lora.n_layers as u64),
        widths: lora.n_parameters / rank.max(1),
        has_dropout: lora.config.dropout > 0.0,
    }
}

/// The sizes of a step, and how it is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepShape {
    /// Tokens of a row.
    pub(crate) sequence_length: usize,
    /// Rows, pairs or episodes of a step.
    pub(crate) rows_per_step: usize,
    /// Among how many replicas they are shared.
    pub(crate) replicas: usize,
    /// How many of those stand in one memory.
    pub(crate) n_together: usize,
    /// How many rows go through a model at once.
    pub(crate) micro_batch: usize,
    /// By which bodies.
    pub(crate) bodies: KernelPath,
    /// What is kept for the backward pass.
    pub(crate) checkpointing: Checkpointing,
    /// Bytes of the optimizer's state.
    pub(crate) optimizer_state: u64,
}

impl StepShape {
    fn checkpoint_bytes(&self, n_trained: u64) -> u64 {
        n_trained.saturating_mul(BYTES_PER_PARAMETER).saturating_add(self.optimizer_state)
    }

    fn computation(self, output: Output) -> Computation {
        let recomputes_blocks = self.checkpointing == Checkpointing::Block;
        Computation { bodies: self.bodies, recomputes_blocks, output }
    }
}

impl StepShape {
    /// The most that stands in one memory, where an update is made of so many rows.
    fn peak(&self, memory: &MemoryEstimate, rows: usize) -> u64 {
        let share = rows.div_ceil(self.replicas.max(1));
        let of_replica = memory.peak(share.div_ceil(self.micro_batch.max(1)) as u64);
        of_process(of_replica.saturating_mul(self.n_together as u64))
    }
}

/// What the head of a stage's model changes.
struct Head {
    n_parameters: u64,
    /// Those of a head that a language model does not have; it is trained whole beside an adapter.
    n_own: u64,
    /// Operations a token that a language model's head would cost and this one does not.
    unused_flops: f64,
}

impl Head {
    fn of(config: &ModelConfig, algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Pretrain | Algorithm::Sft | Algorithm::Dpo | Algorithm::Ppo => {
                Self { n_parameters: config.n_parameters(), n_own: 0, unused_flops: 0.0 }
            }
            Algorithm::Reward => {
                let parameters = config.sequence_classifier_parameters();
                let logits = (config.vocab_size() * config.hidden_size()) as f64;
                Self {
                    n_parameters: parameters.iter().map(ParamSpec::n_elements).sum(),
                    n_own: config.hidden_size() as u64,
                    unused_flops: 6.0 * logits,
                }
            }
        }
    }
}
