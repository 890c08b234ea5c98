//! Cost of a stage: floating-point operations, memory by part, disk space. All are estimates from formulas; `temper plan`
//! measures the running time by a probe.

use arch::{
    AdapterShape, Computation, HeadOutput, KernelPath, MemoryEstimate, ModelConfig, ParamSpec,
    TrainingShape,
};
use data::Dataset;
use recipe::{BaseDtype, Checkpointing, Eval, SampleKind};

use crate::stage::{
    DistillPlan, GrpoPlan, JudgePlan, LoraPlan, MIN_SAMPLED_TOGETHER, PpoPlan, RewardsPlan, Stage,
    Work,
};

/// Weights are saved in f32.
const BYTES_PER_WEIGHT: u64 = 4;

/// Memory of a process besides tensors: the binary, tokenizer, mapped data and batches (measured with small recipes).
const PROCESS_BYTES: u64 = 25_000_000;

/// Size of saved weights.
fn model_bytes(n_weights: u64) -> u64 {
    n_weights.saturating_mul(BYTES_PER_WEIGHT)
}

/// Cost of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Number of parameters of the model.
    pub n_parameters: u64,
    /// Number of parameters that a token does not use: those of experts that it is not sent to.
    pub n_idle: u64,
    /// Number of trained parameters.
    pub n_trained: u64,
    /// Number of tokens in the stage. Padding of pairs is not counted.
    pub n_tokens: u64,
    /// Floating-point operations of the stage, without evaluation.
    pub flops: f64,
    /// Memory of a training step in one replica, by part.
    pub memory: MemoryEstimate,
    /// Keys and values of the answers that are sampled together, in one replica; 0 for a stage that samples none.
    pub kv_cache_bytes: u64,
    /// Peak memory of the process, for all replicas that share a device's memory.
    pub peak_bytes: u64,
    /// Size of a checkpoint.
    pub checkpoint_bytes: u64,
    /// Size of the finished model.
    pub model_bytes: u64,
}

impl Cost {
    /// Peak memory, roughly, with `fewer` rows in a forward pass in place of `micro_batch`: activations shrink with them.
    pub fn peak_bytes_of(&self, micro_batch: usize, fewer: usize) -> u64 {
        let share = micro_batch.saturating_sub(fewer) as f64 / micro_batch.max(1) as f64;
        let freed = (self.memory.activations as f64 * share) as u64;
        self.peak_bytes.saturating_sub(freed)
    }

    /// Cost of a stage; `sample_kind` says how its rows are padded.
    pub(crate) fn of(
        config: &ModelConfig,
        stage: &Stage,
        lora: Option<&LoraPlan>,
        dataset: &Dataset,
        sample_kind: SampleKind,
        step: StepShape,
    ) -> Self {
        match stage.work() {
            Work::Rows { output, n_reference, n_kl_rows, distill } => {
                let mut cost = Self::of_rows(config, output, lora, dataset, sample_kind, step);
                // Nothing is held for a backward pass, so memory is unchanged.
                let n_texts =
                    n_reference.saturating_mul(dataset.batch_rows()).saturating_add(n_kl_rows);
                let length = mean_length(sample_kind, dataset, step.sequence_length);
                if let Some(distill) = distill {
                    cost.add_teacher(config, distill, dataset, step);
                }
                if n_texts > 0 {
                    cost.flops += config.forward_flops(n_texts, length, HeadOutput::LogProbs);
                }
                cost
            }
            Work::Rollouts(ppo) => Self::of_ppo(config, lora, ppo, dataset.n_steps(), step),
            Work::Groups(grpo) => Self::of_grpo(config, lora, grpo, dataset.n_steps(), step),
        }
    }

    /// Cost of training on the rows of `dataset`.
    fn of_rows(
        config: &ModelConfig,
        output: HeadOutput,
        lora: Option<&LoraPlan>,
        dataset: &Dataset,
        sample_kind: SampleKind,
        step: StepShape,
    ) -> Self {
        let StepShape { sequence_length, micro_batch, .. } = step;
        let head = Head::of(config, output);
        let rows = dataset.n_run_rows().saturating_mul(dataset.batch_rows());
        let length = mean_length(sample_kind, dataset, sequence_length);
        let shape = TrainingShape {
            rows: micro_batch * dataset.batch_rows() as usize,
            sequence_length: longest_row(sample_kind, dataset, sequence_length),
        };
        let n_trained = head.n_trained(lora);
        let memory = memory(config, lora, shape, step.computation(output), n_trained)
            .with_optimizer_state(step.optimizer_state);
        Self {
            n_parameters: head.n_parameters + lora.map_or(0, |lora| lora.layout.n_added()),
            n_idle: config.n_parameters() - config.n_active_parameters(),
            n_trained,
            n_tokens: rows.saturating_mul(length),
            flops: training_flops(config, lora, rows, length, output, n_trained),
            memory,
            kv_cache_bytes: 0,
            peak_bytes: step.peak(&memory, step.rows_per_step),
            checkpoint_bytes: step.checkpoint_bytes(n_trained),
            model_bytes: model_bytes(n_trained),
        }
    }

    /// Adds the teacher of a distillation: its weights, a forward pass over each row, and the answers that the student
    /// samples.
    fn add_teacher(
        &mut self,
        student: &ModelConfig,
        distill: &DistillPlan,
        dataset: &Dataset,
        step: StepShape,
    ) {
        let teacher = &distill.teacher_config;
        let (rows, length) = (dataset.n_run_rows(), step.sequence_length as u64);
        // Saved tokens are computed once.
        let rows_of_teacher = match distill.section.top_k {
            Some(_) => rows.min(dataset.n_rows(0)).saturating_add(dataset.n_eval_rows()),
            None => rows,
        };
        self.flops += teacher.forward_flops(rows_of_teacher, length, HeadOutput::Distributions);
        let both = self.memory.beside_frozen(teacher.n_parameters());
        if distill.keeps_teacher() {
            self.memory = both;
        }
        // The teacher computes the saved tokens beside the student's weights, before there is optimizer state.
        let first = process_bytes(both.weights.saturating_mul(step.n_together as u64));
        self.peak_bytes = step.peak(&self.memory, step.rows_per_step).max(first);
        let on_policy = distill.section.on_policy;
        if on_policy > 0.0 {
            self.flops +=
                on_policy * student.forward_flops(rows, length, HeadOutput::Distributions);
            self.kv_cache_bytes = step.kv_cache_bytes(student, MIN_SAMPLED_TOGETHER);
            let sampling = step.sampling_peak(&self.memory, self.kv_cache_bytes);
            self.peak_bytes = self.peak_bytes.max(sampling);
        }
    }

    /// Cost of PPO, with every completion at full length: sampled once, scored once by policy, reference, value and reward
    /// model, if there is one, and used by policy and value model in each epoch.
    fn of_ppo(
        config: &ModelConfig,
        lora: Option<&LoraPlan>,
        ppo: &PpoPlan,
        max_steps: u64,
        shape: StepShape,
    ) -> Self {
        let section = &ppo.section;
        let length = shape.sequence_length as u64;
        let n_rows = max_steps.saturating_mul(shape.rows_per_step as u64);
        let value_lora = ppo.value_lora.as_ref();
        let n_policy = Head::of(config, HeadOutput::LogProbs).n_trained(lora);
        let n_value = Head::of(config, HeadOutput::Scores).n_trained(value_lora);

        let forward = config.forward_flops(n_rows, length, HeadOutput::LogProbs);
        let scored = config.forward_flops(n_rows, length, HeadOutput::Scores);
        let policy_epoch =
            training_flops(config, lora, n_rows, length, HeadOutput::LogProbs, n_policy);
        let value_epoch =
            training_flops(config, value_lora, n_rows, length, HeadOutput::Scores, n_value);
        let epochs = section.n_ppo_epochs as f64 * (policy_epoch + value_epoch);
        let n_scalar = 1.0 + ppo.rewards.models.len() as f64;
        let judged = judge_flops(&ppo.rewards, n_rows, length);
        let flops = 3.0 * forward + n_scalar * scored + epochs + judged;

        let n_minibatch = shape.rows_per_step / section.n_minibatches.max(1);
        let rows = TrainingShape {
            rows: shape.micro_batch.min(n_minibatch),
            sequence_length: shape.sequence_length,
        };
        let n_trained = n_policy + n_value;
        let computation = shape.computation(HeadOutput::LogProbs);
        let step = match lora {
            Some(lora) => {
                let adapters = AdapterShape { has_dropout: false, ..adapters(lora, n_policy) };
                config.adapter_training_memory(rows, computation, adapters)
            }
            None => config.training_memory(rows, computation),
        };
        let n_factors = |lora: Option<&LoraPlan>| lora.map_or(0, |lora| lora.layout.n_added());
        let n_weights = ppo.n_base_parameters + n_factors(lora) + n_factors(value_lora);
        let step = step.of_several_models(n_weights, n_trained);
        let memory = as_stored(
            step.with_optimizer_state(shape.optimizer_state),
            config,
            lora,
            ppo.n_bases as u64,
        );
        let kv_cache_bytes =
            shape.kv_cache_bytes(config, shape.micro_batch.max(MIN_SAMPLED_TOGETHER));
        Self {
            n_parameters: n_weights,
            n_idle: config.n_parameters() - config.n_active_parameters(),
            n_trained,
            n_tokens: n_rows.saturating_mul(length),
            flops,
            memory,
            kv_cache_bytes,
            peak_bytes: shape
                .peak(&memory, n_minibatch)
                .max(shape.sampling_peak(&memory, kv_cache_bytes)),
            checkpoint_bytes: shape.checkpoint_bytes(n_trained),
            model_bytes: model_bytes(n_policy),
        }
    }
}

impl Cost {
    /// Cost of GRPO, with every completion at full length: the prompt of a group read once, its completions sampled, scored
    /// once by each model whose log-probabilities the update needs, and used in each pass.
    fn of_grpo(
        config: &ModelConfig,
        lora: Option<&LoraPlan>,
        grpo: &GrpoPlan,
        max_steps: u64,
        shape: StepShape,
    ) -> Self {
        let section = &grpo.section;
        let length = shape.sequence_length as u64;
        let n_rows = max_steps.saturating_mul(shape.rows_per_step as u64);
        let n_trained = Head::of(config, HeadOutput::LogProbs).n_trained(lora);
        let pass_shape = grpo.pass_shape(shape.rows_per_step, shape.micro_batch);
        let forward = config.forward_flops(n_rows, length, HeadOutput::LogProbs);
        // A prompt that answers share is computed once for them.
        let shared = |of: &dyn Fn(u64, u64) -> f64| {
            let prompt = (section.max_prompt_tokens as u64).min(length);
            let n_prompts = max_steps.saturating_mul(pass_shape.n_prompts);
            of(n_rows, length) - of(n_rows, prompt) + of(n_prompts, prompt)
        };
        let scoring = shared(&|n, length| config.forward_flops(n, length, HeadOutput::LogProbs));
        let pass = shared(&|n, length| {
            training_flops(config, lora, n, length, HeadOutput::LogProbs, n_trained)
        });
        let prompt = section.max_prompt_tokens as f64 / section.num_generations.max(1) as f64;
        let sampled = (section.max_new_tokens as f64 + prompt) / length.max(1) as f64;
        let scored = grpo.n_scoring_passes() as f64;
        let n_models = grpo.rewards.models.len() as f64;
        let reward = n_models * config.forward_flops(n_rows, length, HeadOutput::Scores)
            + judge_flops(&grpo.rewards, n_rows, length);
        let flops =
            sampled * forward + scored * scoring + reward + section.num_iterations as f64 * pass;

        let n_minibatch = shape.rows_per_step / section.n_minibatches.max(1);
        let rows = TrainingShape { rows: pass_shape.rows, sequence_length: pass_shape.length };
        let computation = shape.computation(HeadOutput::LogProbs);
        let step = match lora {
            Some(lora) => {
                let adapters = AdapterShape { has_dropout: false, ..adapters(lora, n_trained) };
                config.adapter_training_memory(rows, computation, adapters)
            }
            None => config.training_memory(rows, computation),
        };
        let n_factors = lora.map_or(0, |lora| lora.layout.n_added());
        let n_weights = grpo.n_base_parameters + n_factors;
        let step = step.of_several_models(n_weights, n_trained);
        let memory = as_stored(
            step.with_optimizer_state(shape.optimizer_state),
            config,
            lora,
            grpo.n_bases as u64,
        );
        let at_once = grpo.sampled_together(shape.micro_batch);
        let kv_cache_bytes = shape.kv_cache_bytes(config, at_once);
        Self {
            n_parameters: n_weights,
            n_idle: config.n_parameters() - config.n_active_parameters(),
            n_trained,
            n_tokens: n_rows.saturating_mul(length),
            flops,
            memory,
            kv_cache_bytes,
            peak_bytes: shape
                .peak(&memory, n_minibatch)
                .max(shape.sampling_peak(&memory, kv_cache_bytes)),
            checkpoint_bytes: shape.checkpoint_bytes(n_trained),
            model_bytes: model_bytes(n_trained),
        }
    }
}

/// Operations of judges that read `n_rows` answers of `length` tokens with their prompts, and write replies of full length.
fn judge_flops(rewards: &RewardsPlan, n_rows: u64, length: u64) -> f64 {
    let one = |judge: &JudgePlan| {
        let length = length.saturating_add(judge.max_new_tokens as u64);
        let config = judge.config.as_ref();
        config.map_or(0.0, |config| config.forward_flops(n_rows, length, HeadOutput::LogProbs))
    };
    rewards.judges.iter().map(one).sum()
}

/// Memory of a training step of one model.
fn memory(
    config: &ModelConfig,
    lora: Option<&LoraPlan>,
    shape: TrainingShape,
    computation: Computation,
    n_trained: u64,
) -> MemoryEstimate {
    let step = match lora {
        None => config.training_memory(shape, computation),
        Some(lora) => config.adapter_training_memory(shape, computation, adapters(lora, n_trained)),
    };
    as_stored(step, config, lora, 1)
}

/// Floating-point operations of training on `n_rows` rows of `row_length` tokens.
fn training_flops(
    config: &ModelConfig,
    lora: Option<&LoraPlan>,
    n_rows: u64,
    row_length: u64,
    output: HeadOutput,
    n_trained: u64,
) -> f64 {
    match lora {
        None => config.training_flops(n_rows, row_length, output),
        Some(_) => config.adapter_training_flops(n_rows, row_length, output, n_trained),
    }
}

/// Tokens per row for counting operations.
///
/// Each text of a pair, and each labelled answer, has a padded row of its own and counts with the mean length of texts. Other rows are full and count
/// as one sample, although packed samples attend to fewer keys.
fn mean_length(sample_kind: SampleKind, dataset: &Dataset, sequence_length: usize) -> u64 {
    match sample_kind {
        SampleKind::Pairs | SampleKind::Completions => {
            let counts = dataset.counts();
            counts.tokens.div_ceil(counts.samples.max(1)).min(sequence_length as u64)
        }
        SampleKind::Documents | SampleKind::Chats | SampleKind::Prompts => sequence_length as u64,
    }
}

/// Maximum length of the rows of a micro-batch.
///
/// Padding that all texts of a micro-batch share is removed. The longest of the first rows is used for all.
fn longest_row(sample_kind: SampleKind, dataset: &Dataset, sequence_length: usize) -> usize {
    const N_ROWS: u64 = 4096;
    if !matches!(sample_kind, SampleKind::Pairs | SampleKind::Completions) {
        return sequence_length;
    }
    dataset.longest_row(N_ROWS).unwrap_or(sequence_length).min(sequence_length)
}

/// Resident memory of a process: tensors, fragmentation of the allocator, and the rest. Fitted to runs of all stages, from
/// 30 MB to 800 MB.
fn process_bytes(tensors: u64) -> u64 {
    tensors.saturating_add(tensors / 8).saturating_add(PROCESS_BYTES)
}

/// Number of pairs or rows whose reference log-probabilities a stage computes: those that it trains on, and those that it
/// evaluates on.
pub(crate) fn n_reference(dataset: &Dataset, eval: Option<&Eval>) -> u64 {
    let n_validation = dataset.n_eval_rows();
    let evaluated = eval.and_then(|eval| eval.max_rows).unwrap_or(n_validation);
    dataset.n_run_rows().min(dataset.counts().train_samples) + evaluated.min(n_validation)
}

/// Applies the dtype of frozen weights (`lora.base_dtype`) to `n_bases` base models.
fn as_stored(
    memory: MemoryEstimate,
    config: &ModelConfig,
    lora: Option<&LoraPlan>,
    n_bases: u64,
) -> MemoryEstimate {
    let layers = config.adaptable_layers();
    let sizes =
        || layers.iter().map(|layer| (layer.d_in as u64).saturating_mul(layer.d_out as u64));
    let n: u64 = sizes().sum();
    let packed = |bytes: u64| {
        let largest = sizes().max().unwrap_or(0);
        memory.with_packed_matrices(
            n.saturating_mul(n_bases),
            bytes.saturating_mul(n_bases),
            largest,
        )
    };
    match lora.map(|lora| lora.base_dtype) {
        Some(BaseDtype::Bf16) => memory.with_frozen_in_bf16(),
        // A byte a weight and a number a row.
        Some(BaseDtype::Int8) => {
            packed(n + 4 * layers.iter().map(|layer| layer.d_out as u64).sum::<u64>())
        }
        // Half a byte a weight, a byte for the scale of 64, a number for each 256 scales.
        Some(BaseDtype::Nf4) => packed(n / 2 + n / 64 + n / (64 * 256) * 4),
        Some(BaseDtype::F32) | None => memory,
    }
}

fn adapters(lora: &LoraPlan, n_trained: u64) -> AdapterShape {
    AdapterShape {
        n_trained,
        total_rank: lora.layout.total_rank(),
        total_width: lora.layout.total_width(),
        has_dropout: lora.config.dropout > 0.0,
    }
}

/// Sizes of a training step, and how it is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepShape {
    /// Tokens per row.
    pub(crate) sequence_length: usize,
    /// Rows, pairs or episodes per step.
    pub(crate) rows_per_step: usize,
    /// Number of replicas that share a step.
    pub(crate) replicas: usize,
    /// Number of replicas in one device's memory.
    pub(crate) n_together: usize,
    /// Rows per micro-batch.
    pub(crate) micro_batch: usize,
    /// The kernels.
    pub(crate) kernel_path: KernelPath,
    /// Activation checkpointing.
    pub(crate) checkpointing: Checkpointing,
    /// Bytes of the optimizer's state and of averaged weights.
    pub(crate) optimizer_state: u64,
}

impl StepShape {
    /// A checkpoint contains the trained weights and the optimizer's state.
    fn checkpoint_bytes(&self, n_trained: u64) -> u64 {
        model_bytes(n_trained).saturating_add(self.optimizer_state)
    }

    fn computation(self, output: HeadOutput) -> Computation {
        let recomputes_blocks = self.checkpointing == Checkpointing::Block;
        Computation { kernel_path: self.kernel_path, recomputes_blocks, output }
    }

    /// Keys and values, in f32, of the answers that are sampled together: `at_once` of them if there are as many.
    fn kv_cache_bytes(&self, config: &ModelConfig, at_once: usize) -> u64 {
        let share = self.rows_per_step.div_ceil(self.replicas.max(1));
        let rows = at_once.min(share) as u64;
        // The place of a finished answer is given to the next one, which needs room for padding: `generate` has as much.
        let length = self.sequence_length;
        let length = if at_once < share { length + (length / 4).max(16) } else { length };
        let elements = config.kv_cache_elements(length);
        rows.saturating_mul(elements).saturating_mul(BYTES_PER_WEIGHT)
    }

    /// Memory of the process while answers are sampled: weights, optimizer state and the key–value cache.
    fn sampling_peak(&self, memory: &MemoryEstimate, kv_cache_bytes: u64) -> u64 {
        let tensors =
            memory.weights.saturating_add(memory.optimizer).saturating_add(kv_cache_bytes);
        process_bytes(tensors.saturating_mul(self.n_together as u64))
    }

    /// Peak memory of the process for an update of `rows` rows.
    fn peak(&self, memory: &MemoryEstimate, rows: usize) -> u64 {
        let share = rows.div_ceil(self.replicas.max(1));
        let of_replica = memory.peak(share.div_ceil(self.micro_batch.max(1)) as u64);
        process_bytes(of_replica.saturating_mul(self.n_together as u64))
    }
}

/// Parameters of a model by its head.
struct Head {
    n_parameters: u64,
    /// Parameters of a head that language models lack. It is trained as a whole, next to an adapter.
    n_own: u64,
}

impl Head {
    fn of(config: &ModelConfig, output: HeadOutput) -> Self {
        match output {
            HeadOutput::CrossEntropy | HeadOutput::LogProbs | HeadOutput::Distributions => {
                Self { n_parameters: config.n_parameters(), n_own: 0 }
            }
            HeadOutput::Scores => {
                let parameters = config.sequence_classifier_parameters();
                Self {
                    n_parameters: parameters.iter().map(ParamSpec::n_elements).sum(),
                    n_own: config.hidden_size() as u64,
                }
            }
        }
    }

    /// Number of parameters that are trained.
    fn n_trained(&self, lora: Option<&LoraPlan>) -> u64 {
        lora.map_or(self.n_parameters, |lora| lora.layout.n_trained() + self.n_own)
    }
}
