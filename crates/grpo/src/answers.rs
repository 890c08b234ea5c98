//! Completions sampled from the policy, for training, validation and the samples of the log. Ids are decoded to text for display
//! only.

use std::collections::BTreeMap;

use burn::tensor::Device;
use generate::Settings as Generation;
use loss::{AdvantageKind, Aggregation, GroupRewards, RewardScale, group_advantages, known_mean};
use model::CausalLm;
use plan::{GrpoPlan, Plan, StagePlan};
use rl::{
    EndReason, Prompts, RewardSources, RewardTable, Rollouts, Sampling, completion_metrics,
    question, sample_together, shown_text,
};
use seed::Purpose;
use serde_json::{Value, json};
use train::{Collective, EvalRow, SampleRow, SingleReplica};

use crate::{Result, rewarded};

/// Number of prompts whose completions are logged.
const SHOWN: usize = 3;

/// Completions before the first update.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    /// Metrics of the validation prompts; `None` without validation.
    pub(crate) metrics: Option<AnswerMetrics>,
    /// The logged prompts.
    prompts: Prompts,
    /// The completions of the logged prompts.
    texts: Vec<String>,
}

/// Metrics of a set of completions.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerMetrics {
    /// Number of completions.
    pub n: usize,
    /// Mean of the weighted sums of rewards; NaN if no completion has a reward.
    pub reward: f64,
    /// Mean of each reward, fraction with an end token and mean length, by the names of the logs.
    pub extra: BTreeMap<String, f64>,
}

impl AnswerMetrics {
    fn of(rollouts: &Rollouts, table: &RewardTable) -> Self {
        let totals = totals(table);
        let mut extra = BTreeMap::new();
        for (idx, name) in table.names.iter().enumerate() {
            let column: Vec<f64> = table.values.iter().map(|row| row[idx]).collect();
            let mean = known_mean(&column);
            if !mean.is_nan() {
                extra.insert(format!("rewards/{name}/mean"), mean);
            }
        }
        let episodes = &rollouts.episodes;
        let n_ended = episodes.iter().filter(|e| e.span().end == EndReason::EndToken).count();
        let lengths = completion_metrics(episodes);
        let name = "completions/mean_length";
        extra.extend(lengths.get(name).map(|length| (name.to_owned(), *length)));
        extra.insert("ended".to_owned(), n_ended as f64 / episodes.len().max(1) as f64);
        Self { n: episodes.len(), reward: known_mean(&totals), extra }
    }

    /// The metrics by the names of the logs.
    fn named(&self) -> BTreeMap<String, f64> {
        let reward = Some(("reward".to_owned(), self.reward));
        reward.filter(|_| self.is_rewarded()).into_iter().chain(self.extra.clone()).collect()
    }

    /// Whether some completion has a reward.
    pub(crate) fn is_rewarded(&self) -> bool {
        !self.reward.is_nan()
    }

    /// A row of the evaluation log. Its loss is the negated mean reward, so that smaller is better as in other stages; it has
    /// none without a reward.
    pub(crate) fn row(&self, step: u64) -> EvalRow {
        EvalRow {
            step,
            eval_loss: self.is_rewarded().then_some(-self.reward),
            n_targets: self.n as u64,
            extra: self.named(),
        }
    }
}

/// The weighted sum of each completion's rewards; NaN without any.
fn totals(table: &RewardTable) -> Vec<f64> {
    let groups = GroupRewards {
        values: &table.values,
        weights: &table.weights,
        group_size: 1,
        penalties: &[],
    };
    let (scale, aggregation) = (RewardScale::None, Aggregation::SumThenNormalize);
    group_advantages(&groups, AdvantageKind::Group { scale, aggregation }).totals
}

/// The sampling settings of the recipe.
pub fn sampling(grpo: &GrpoPlan, stage: &StagePlan) -> Generation {
    let section = &grpo.section;
    Generation {
        sampling: generate::Sampling {
            temperature: section.temperature,
            top_p: section.top_p,
            top_k: section.top_k,
            min_p: section.min_p,
            ..generate::Sampling::default()
        },
        max_new_tokens: section.max_new_tokens,
        eos_ids: stage.tokenizer.eos_ids(),
        vocab_size: Some(stage.tokenizer.vocab_size()),
        batch_rows: grpo.sampled_together(stage.micro_batch),
        ..Generation::default()
    }
}

/// Samples `n` completions of each prompt, those of a prompt adjacent, on all replicas together.
pub(crate) fn sample(
    policy: &CausalLm,
    prompts: &[Vec<u32>],
    n: usize,
    grpo: &GrpoPlan,
    stage: &StagePlan,
    seed: u64,
    replicas: &dyn Collective,
) -> Result<Rollouts> {
    let settings = Generation { n, ..sampling(grpo, stage) };
    let distribution = Sampling::before_filters(&settings)?;
    Ok(sample_together(policy, prompts, &settings, &distribution, seed, replicas)?)
}

/// Completions of the policy before the first update; a resumed run samples the same ones.
pub(crate) fn before(
    plan: &Plan,
    stage: &StagePlan,
    grpo: &GrpoPlan,
    initial: &CausalLm,
    sources: &RewardSources,
    device: &Device,
) -> Result<Before> {
    let prompts = Prompts::shown(&stage.dataset, SHOWN);
    let texts = shown(initial, &prompts.ids, plan, stage, grpo)?;
    let mut metrics = None;
    if stage.dataset.n_eval_rows() > 0 {
        metrics = Some(validation(plan, stage, grpo, initial, sources, device)?);
    }
    Ok(Before { metrics, prompts, texts })
}

/// The metrics of completions of the validation prompts; the random draws are the same at every step.
pub(crate) fn validation(
    plan: &Plan,
    stage: &StagePlan,
    grpo: &GrpoPlan,
    policy: &CausalLm,
    sources: &RewardSources,
    device: &Device,
) -> Result<AnswerMetrics> {
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    let prompts = Prompts::of_validation(&stage.dataset, stage.micro_batch, max_rows);
    let n = rl::VALIDATION_ANSWERS.div_ceil(prompts.ids.len().max(1));
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Eval, 0, 0);
    let rollouts = sample(policy, &prompts.ids, n, grpo, stage, seed, &SingleReplica)?;
    let replicas = &SingleReplica;
    let (table, _) = rewarded::of(&rollouts, &prompts, n, grpo, sources, stage, device, replicas)?;
    Ok(AnswerMetrics::of(&rollouts, &table))
}

/// The current policy's completions of the logged prompts.
#[expect(clippy::too_many_arguments, reason = "the models, the plan and the step")]
pub(crate) fn table(
    policy: &CausalLm,
    before: &Before,
    plan: &Plan,
    stage: &StagePlan,
    grpo: &GrpoPlan,
    sources: &RewardSources,
    step: u64,
    device: &Device,
) -> Result<Vec<SampleRow>> {
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Sample, step, 0);
    let prompts = &before.prompts;
    let rollouts = sample(policy, &prompts.ids, 1, grpo, stage, seed, &SingleReplica)?;
    let replicas = &SingleReplica;
    let (table, _) = rewarded::of(&rollouts, prompts, 1, grpo, sources, stage, device, replicas)?;
    let rows = rollouts.episodes.iter().zip(&before.texts).zip(totals(&table));
    Ok(rows
        .map(|((episode, before), score)| SampleRow {
            step,
            prompt: stage.tokenizer.decode(episode.prompt(), false),
            text: shown_text(episode, &stage.tokenizer),
            before: Some(before.clone()),
            score: Some(score).filter(|score| !score.is_nan()),
        })
        .collect())
}

/// The result of the stage: the evaluation of the exported policy, that before the first update, and a prompt with its
/// completions before and after.
pub(crate) fn result(
    before: &Before,
    exported: Option<&EvalRow>,
    policy: &CausalLm,
    plan: &Plan,
    stage: &StagePlan,
    grpo: &GrpoPlan,
) -> Result<Value> {
    let after = shown(policy, &before.prompts.ids, plan, stage, grpo)?;
    let mut result = json!(exported);
    if result.is_null() {
        result = json!({});
    }
    if let Some(metrics) = &before.metrics {
        result["before"] = json!(metrics.named());
    }
    if let (Some(prompt), Some(was), Some(is)) =
        (before.prompts.ids.first(), before.texts.first(), after.first())
    {
        let prompt = question(prompt, &stage.tokenizer);
        result["example"] = json!({ "prompt": prompt, "before": was, "after": is });
    }
    Ok(result)
}

/// A model's completions of the logged prompts, with a random stream of their own.
fn shown(
    policy: &CausalLm,
    prompts: &[Vec<u32>],
    plan: &Plan,
    stage: &StagePlan,
    grpo: &GrpoPlan,
) -> Result<Vec<String>> {
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Sample, 0, 0);
    let rollouts = sample(policy, prompts, 1, grpo, stage, seed, &SingleReplica)?;
    Ok(rollouts.episodes.iter().map(|episode| shown_text(episode, &stage.tokenizer)).collect())
}
