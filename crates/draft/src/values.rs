//! The values of a first recipe, chosen from the sizes of model and data.

use crate::{Facts, Kind};

/// Parameters above which an adapter is trained in place of all weights: optimizer state and gradients of the weights take
/// 12 bytes a parameter.
const LORA_ABOVE: u64 = 50_000_000;
/// Share of the samples that fit in a row.
const FITTING: f64 = 0.99;
/// Row lengths are multiples of this number.
const ROUNDING: u64 = 32;
/// Fewest optimizer steps in which a schedule with warm-up makes sense.
const FEWEST_STEPS: u64 = 20;
/// Steps at which the size of a step is no longer raised.
const MANY_STEPS: u64 = 500;
/// Most updates of a stage in which the model answers prompts: a first look at whether rewards rise.
const MOST_UPDATES: u64 = 200;
/// Episodes of an update of PPO.
const EPISODES: u64 = 64;
/// Prompts of an update of GRPO.
const PROMPTS: u64 = 8;
/// Answers to each prompt in GRPO.
const NUM_GENERATIONS: u64 = 8;
/// Tokens of an answer.
const LONGEST_ANSWER: u64 = 256;
/// Largest step of a stage that counts tokens, in tokens, and of one that counts rows or pairs.
const LARGEST_STEP: (u64, u64) = (65_536, 64);

/// The values that a recipe sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Tokens of a row, of a text of a pair, or of a prompt.
    pub sequence_length: u64,
    /// Rows, pairs, prompts or episodes of a step.
    pub rows_per_step: u64,
    /// Rows, pairs or answers in a forward pass, if fewer than a step has.
    pub micro_batch: Option<u64>,
    /// Answers to each prompt.
    pub num_generations: u64,
    /// Tokens of an answer, where the model answers prompts.
    pub max_new_tokens: u64,
    /// Number of updates, where the model answers prompts.
    pub max_steps: Option<u64>,
    /// Passes over the data.
    pub epochs: u64,
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Whether an adapter is trained.
    pub lora: bool,
    /// Part of the data that is held out as a validation set.
    pub holdout: f64,
    /// Optimizer steps of the stage, once a plan has counted them.
    pub n_steps: Option<u64>,
    /// Whether the recipe is only planned, to measure model and data: samples may be too long.
    pub measures: bool,
}

impl Values {
    /// Values for a plan that measures model and data: long rows, so that no sample is dropped, and small steps.
    pub fn to_measure(kind: Kind, context_length: usize) -> Self {
        Self {
            // Where the model answers prompts, there is room for a token of the answer.
            sequence_length: (context_length as u64)
                .min(4096)
                .saturating_sub(kind.is_online().into())
                .max(1),
            rows_per_step: fewest_rows(kind),
            micro_batch: None,
            num_generations: if kind == Kind::Grpo { 2 } else { 1 },
            max_new_tokens: 1,
            max_steps: Some(1),
            epochs: 1,
            learning_rate: 1e-4,
            lora: false,
            holdout: 0.0,
            n_steps: None,
            measures: true,
        }
    }

    /// Values for a model and data of these sizes.
    pub fn of(kind: Kind, facts: &Facts) -> Self {
        let lora = facts.n_parameters > LORA_ABOVE;
        let sequence_length = sequence_length(kind, facts);
        let n_samples = n_rows(kind, facts);
        let epochs = epochs(kind, n_samples);
        Self {
            sequence_length,
            rows_per_step: rows_per_step(kind, facts, sequence_length, epochs),
            micro_batch: None,
            num_generations: if kind == Kind::Grpo { NUM_GENERATIONS } else { 1 },
            max_new_tokens: max_new_tokens(facts, sequence_length),
            max_steps: kind.is_online().then(|| {
                let rows = rows_per_step(kind, facts, sequence_length, epochs);
                (n_samples / rows).clamp(FEWEST_STEPS, MOST_UPDATES)
            }),
            epochs,
            learning_rate: learning_rate(kind, facts.n_parameters, lora),
            lora,
            holdout: holdout(n_samples),
            n_steps: None,
            measures: false,
        }
    }

    /// Half the size of a step, if a plan counted too few steps for a schedule with warm-up; `None` if that is not so or if a
    /// step cannot be smaller.
    pub fn with_more_steps(&self, kind: Kind, n_steps: u64) -> Option<Self> {
        (n_steps < FEWEST_STEPS && self.rows_per_step / 2 >= fewest_rows(kind))
            .then(|| Self { rows_per_step: self.rows_per_step / 2, ..self.clone() })
    }

    /// Half as many rows in a forward pass; `None` if there is one.
    pub fn with_less_memory(&self) -> Option<Self> {
        let rows = self.micro_batch.unwrap_or(self.rows_per_step * self.num_generations);
        (rows > 1).then(|| Self { micro_batch: Some(rows / 2), ..self.clone() })
    }

    /// Steps of warm-up: a twentieth of the stage.
    pub(crate) fn warmup_steps(&self) -> u64 {
        self.n_steps.map_or(0, |n_steps| (n_steps / 20).clamp(1, 100))
    }

    /// Steps between two evaluations: five in a stage.
    pub(crate) fn eval_every(&self) -> u64 {
        self.n_steps.map_or(1, |n_steps| (n_steps / 5).clamp(1, 500))
    }
}

/// The fewest rows of a step: KTO compares each answer with the prompt of another one.
fn fewest_rows(kind: Kind) -> u64 {
    if kind == Kind::Kto { 2 } else { 1 }
}

/// The row length in which nearly all samples fit. Documents are packed and cut anyway.
fn sequence_length(kind: Kind, facts: &Facts) -> u64 {
    let context = (facts.context_length as u64).max(1);
    let wanted = match kind {
        Kind::Pretrain => 1024,
        Kind::Sft | Kind::Reward | Kind::Dpo | Kind::Kto => facts.lengths.quantile(FITTING),
        // Half of the context is left to the answers.
        Kind::Ppo | Kind::Grpo => {
            let fitting = facts.lengths.quantile(FITTING).next_multiple_of(ROUNDING);
            return fitting.clamp(1, (context / 2).max(1));
        }
    };
    wanted.next_multiple_of(ROUNDING).clamp(ROUNDING.min(context), context)
}

fn max_new_tokens(facts: &Facts, sequence_length: u64) -> u64 {
    LONGEST_ANSWER.min((facts.context_length as u64).saturating_sub(sequence_length)).max(1)
}

/// Rows of the data. The lengths of pairs are those of their texts, two a pair.
fn n_rows(kind: Kind, facts: &Facts) -> u64 {
    let n_samples = facts.lengths.n_samples();
    match kind {
        Kind::Reward | Kind::Dpo => n_samples / 2,
        Kind::Pretrain | Kind::Sft | Kind::Kto | Kind::Ppo | Kind::Grpo => n_samples,
    }
}

/// Few samples are all needed for training, and of many a smaller part is enough to judge by.
fn holdout(n_samples: u64) -> f64 {
    match n_samples {
        ..20 => 0.0,
        20..100 => 0.2,
        100..1000 => 0.1,
        1000.. => 0.05,
    }
}

/// Fewer passes over more data.
fn epochs(kind: Kind, n_samples: u64) -> u64 {
    match (kind, n_samples) {
        (Kind::Sft, ..1000) => 3,
        (Kind::Sft | Kind::Kto, ..10_000) => 2,
        (
            Kind::Pretrain
            | Kind::Sft
            | Kind::Reward
            | Kind::Dpo
            | Kind::Kto
            | Kind::Ppo
            | Kind::Grpo,
            _,
        ) => 1,
    }
}

/// A power of two: as large as leaves [`MANY_STEPS`], within the limits of a step.
fn rows_per_step(kind: Kind, facts: &Facts, sequence_length: u64, epochs: u64) -> u64 {
    match kind {
        Kind::Ppo => return EPISODES.min(1 << n_rows(kind, facts).max(1).ilog2()),
        Kind::Grpo => return PROMPTS.min(1 << n_rows(kind, facts).max(1).ilog2()),
        Kind::Pretrain | Kind::Sft | Kind::Reward | Kind::Dpo | Kind::Kto => {}
    }
    let (_, counts_tokens) = kind.step_key();
    let (rows, largest) = if counts_tokens {
        let rows = facts.lengths.total().div_ceil(sequence_length);
        (rows, LARGEST_STEP.0 / sequence_length)
    } else {
        (n_rows(kind, facts), LARGEST_STEP.1)
    };
    let wanted = (rows * epochs / MANY_STEPS).clamp(8, largest.max(8));
    1 << wanted.ilog2()
}

/// Learning rates in use for these stages with AdamW; an adapter takes ten times the rate of all weights.
///
/// Pretraining follows GPT-3's table (Brown et al. 2020): 6e-4 at 125M parameters, falling with the root of the size; continued
/// on new data it starts at half of that.
fn learning_rate(kind: Kind, n_parameters: u64, lora: bool) -> f64 {
    let size = (n_parameters as f64 / 125e6).sqrt().max(0.2);
    let of_all_weights = match kind {
        Kind::Pretrain => 3e-4 / size,
        Kind::Sft => 5e-5 / size.max(1.0),
        Kind::Reward => 2e-5 / size.max(1.0),
        Kind::Dpo | Kind::Kto => 5e-6 / size.max(1.0),
        Kind::Ppo => 3e-6 / size.max(1.0),
        Kind::Grpo => 2e-6 / size.max(1.0),
    };
    let rate: f64 = if lora { 10.0 * of_all_weights } else { of_all_weights };
    // One digit: more would pretend to a precision that no rule has.
    let magnitude = 10f64.powf(rate.log10().floor());
    (rate / magnitude).round() * magnitude
}
