//! The update of a policy from scored groups.
//!
//! The caller gives the order of the completions, so nothing here is random.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use loss::{GroupCounts, entropy_threshold};
use model::{CausalLm, ExpertLoad};
use train::{Learner, StepPlace, StepSums, apply_update};

use super::batch::{Member, Padding, completion_batch};
use super::metrics::{GroupMetrics, means};
use super::score::ScoredGroups;
use super::settings::GroupSettings;
use crate::checks::{check_first_ratio, check_orders};
use crate::rollout::Rollout;
use crate::settings::Conventions;
use crate::{Error, Result};

/// The result of an update.
#[derive(Debug)]
pub struct GroupUpdated {
    /// The policy after the update.
    pub policy: CausalLm,
    /// Metrics of each optimizer step under TRL's names, with `loss` and `grad_norm`.
    pub steps: Vec<BTreeMap<String, f64>>,
    /// Means of those metrics, and the load of the policy's experts.
    pub metrics: BTreeMap<String, f64>,
}

/// One update with learning rate `lr`: one pass over the completions for each of `orders`, each a permutation of them, split
/// into `n_minibatches` equal parts with one optimizer step each. All replicas have scored the same completions.
///
/// Errors: orders that are not permutations, a first ratio other than 1, a non-finite loss or gradient.
pub fn update_groups(
    mut policy: CausalLm,
    learner: &mut Learner<'_>,
    lr: f64,
    scored: &ScoredGroups,
    orders: &[Vec<usize>],
    settings: &GroupSettings,
) -> Result<GroupUpdated> {
    settings.check()?;
    let n_episodes = scored.episodes.len();
    check_orders(orders, n_episodes)?;
    if n_episodes == 0 || !n_episodes.is_multiple_of(settings.n_minibatches) {
        return Err(Error::Minibatches { n_episodes, n_minibatches: settings.n_minibatches });
    }
    let focus = settings.has_old_entropies().then(|| focus_of_update(scored, settings));
    let (mut steps, mut expert_load) = (Vec::new(), ExpertLoad::default());
    let minibatches =
        orders.iter().flat_map(|order| order.chunks(n_episodes / settings.n_minibatches));
    for minibatch in minibatches {
        let samples: Vec<u64> = minibatch.iter().map(|episode| *episode as u64).collect();
        let place = StepPlace { step: learner.optimizer.n_updates() + 1, samples: &samples };
        // The losses of batches are shares of the step's mean already, so their sum is divided by 1.
        let mut sums = learner.begin_step(1, place)?;
        let mut of_batches = Vec::new();
        let size = match settings.conventions {
            Conventions::RealTokens => minibatch.len(),
            Conventions::Trl => settings.micro_batch,
        };
        let mut members = minibatch.to_vec();
        if settings.has_shared_prompts() {
            // Sums over the minibatch have no order, and the completions of a group share its prompt side by side.
            members.sort_unstable();
        }
        for batch in members.chunks(size) {
            let counts =
                counts(scored, batch, minibatch.len().div_ceil(size), focus.as_deref(), settings);
            let share = batch.get(learner.replicas.share().of(batch.len())).unwrap_or_default();
            let pass = Pass { scored, settings, counts, focus: focus.as_deref() };
            let mut metrics = GroupMetrics::default();
            for micro in share.chunks(settings.micro_batch) {
                let is_first = steps.is_empty();
                pass.add_losses(&policy, &mut sums, &mut metrics, micro, learner.device, is_first)?;
            }
            metrics.sum_over_replicas(learner.replicas)?;
            of_batches.push(metrics.named(&settings.objective));
        }
        expert_load.add(&sums.expert_load);
        if !has_signal(scored, minibatch) {
            learner.checks.expect_no_gradient();
        }
        let report;
        (policy, report) = apply_update(policy, learner, sums, lr)?;
        let mut metrics = means(&of_batches);
        metrics.insert("loss".to_owned(), report.loss);
        metrics.insert("grad_norm".to_owned(), report.grad_norm);
        steps.push(metrics);
    }
    let mut metrics = means(&steps);
    metrics.extend(expert_load.metrics());
    Ok(GroupUpdated { policy, steps, metrics })
}

/// Whether some completion of a minibatch is better or worse than its group.
fn has_signal(scored: &ScoredGroups, minibatch: &[usize]) -> bool {
    let mut episodes = minibatch.iter().filter_map(|idx| scored.episodes.get(*idx));
    episodes.any(|episode| episode.is_trained && episode.advantage != 0.0)
}

/// The tokens of each completion that the policy's term is restricted to: those with the highest entropy of the update.
fn focus_of_update(scored: &ScoredGroups, settings: &GroupSettings) -> Vec<Vec<bool>> {
    let trained = scored.episodes.iter().filter(|episode| episode.is_trained);
    let all: Vec<f32> = trained.flat_map(|episode| episode.entropies.iter().copied()).collect();
    let threshold = entropy_threshold(&all, settings.top_entropy_quantile);
    let row = |entropies: &Vec<f32>| entropies.iter().map(|x| *x >= threshold).collect();
    scored.episodes.iter().map(|episode| row(&episode.entropies)).collect()
}

/// The denominators of a batch.
fn counts(
    scored: &ScoredGroups,
    batch: &[usize],
    batches_per_step: usize,
    focus: Option<&[Vec<bool>]>,
    settings: &GroupSettings,
) -> GroupCounts {
    let n_tokens = |idx: &usize| -> usize {
        let is_trained = scored.episodes.get(*idx).is_some_and(|episode| episode.is_trained);
        let rollout = scored.rollouts.episodes.get(*idx).filter(|_| is_trained);
        rollout.map_or(0, |rollout| rollout.span().response)
    };
    let n_focused = |idx: &usize| -> usize {
        let is_trained = scored.episodes.get(*idx).is_some_and(|episode| episode.is_trained);
        let row = focus.and_then(|focus| focus.get(*idx)).filter(|_| is_trained);
        row.map_or(0, |row| row.iter().filter(|is| **is).count())
    };
    let n_all: usize = (0..scored.episodes.len()).map(|idx| n_tokens(&idx)).sum();
    GroupCounts {
        rows: batch.len(),
        tokens: batch.iter().map(n_tokens).sum(),
        focus_tokens: batch.iter().map(n_focused).sum(),
        tokens_per_step: n_all.max(1) as f64 / settings.n_minibatches as f64,
        max_new_tokens: scored.rollouts.sampling.max_new_tokens,
        batches_per_step,
    }
}

/// The common inputs of all micro-batches of a batch.
struct Pass<'a> {
    scored: &'a ScoredGroups,
    settings: &'a GroupSettings,
    counts: GroupCounts,
    focus: Option<&'a [Vec<bool>]>,
}

impl Pass<'_> {
    /// Adds loss, gradients and metrics of a micro-batch.
    fn add_losses(
        &self,
        policy: &CausalLm,
        sums: &mut StepSums<'_>,
        metrics: &mut GroupMetrics,
        micro: &[usize],
        device: &Device,
        is_first: bool,
    ) -> Result<()> {
        let Self { scored, settings, .. } = self;
        let member = |idx: &usize| -> Option<Member<'_>> {
            Some((scored.rollouts.episodes.get(*idx)?, scored.episodes.get(*idx)?))
        };
        let members: Vec<Member<'_>> = micro.iter().filter_map(member).collect();
        let rollouts: Vec<&Rollout> = members.iter().map(|(rollout, _)| *rollout).collect();
        let sampling = &scored.rollouts.sampling;
        let conventions = Conventions::RealTokens;
        let batch = settings.batch(&rollouts, sampling, device);
        let (new, auxiliary) = batch.logprobs(policy, sampling, conventions);
        sums.expert_load.add(&auxiliary.expert_load);

        let padding = Padding::of(&members, device);
        let lengths: Vec<usize> = members
            .iter()
            .map(|(rollout, episode)| if episode.is_trained { rollout.span().response } else { 0 })
            .collect();
        let mut counts = self.counts;
        let focus = match self.focus {
            Some(focus) => Some(micro.iter().filter_map(|idx| focus.get(*idx).cloned()).collect()),
            None if settings.top_entropy_quantile < 1.0 => {
                let rows = current_focus(&new.entropy_n, &members, settings);
                counts.focus_tokens = rows.iter().flatten().filter(|is| **is).count();
                Some(rows)
            }
            None => None,
        };
        let focus: Option<Vec<Vec<bool>>> = focus;
        let batch =
            completion_batch(&members, &padding, new.logprobs_n, new.entropy_n, focus.as_deref());
        let terms = settings.objective.terms(&batch, &counts);
        let has_old = members.iter().all(|(_, episode)| !episode.logprobs.is_empty());
        if is_first && has_old {
            kernels::with_host_values(&terms.log_ratios_bt.clone().exp(), check_first_ratio)?;
        }
        let advantages: Vec<f32> = members.iter().map(|(_, episode)| episode.advantage).collect();
        let entropies = kernels::with_host_values(&batch.entropies_bt, <[f32]>::to_vec);
        metrics.add(&terms, &entropies, &lengths, &advantages, &settings.objective);

        sums.loss += value(&terms.loss);
        let share = lengths.iter().sum::<usize>() as f64
            / (counts.tokens.max(1) * counts.batches_per_step.max(1)) as f64;
        let loss = match auxiliary.loss {
            Some(auxiliary) => terms.loss + auxiliary.mul_scalar(share),
            None => terms.loss,
        };
        sums.gradients.accumulate(policy, || loss.backward());
        Ok(())
    }
}

/// The tokens of a micro-batch with the highest current entropy.
fn current_focus(
    entropies_n: &Tensor<1>,
    members: &[Member<'_>],
    settings: &GroupSettings,
) -> Vec<Vec<bool>> {
    let entropies = kernels::with_host_values(entropies_n, <[f32]>::to_vec);
    let mut rows = Vec::with_capacity(members.len());
    let mut rest = entropies.as_slice();
    for (rollout, episode) in members {
        let (row, after) = rest.split_at(rollout.span().response.min(rest.len()));
        rows.push((row, episode.is_trained));
        rest = after;
    }
    let trained: Vec<f32> =
        rows.iter().filter(|(_, is)| *is).flat_map(|(row, _)| row.iter().copied()).collect();
    let threshold = entropy_threshold(&trained, settings.top_entropy_quantile);
    let row = |(row, is_trained): &(&[f32], bool)| -> Vec<bool> {
        row.iter().map(|x| *is_trained && *x >= threshold).collect()
    };
    rows.iter().map(row).collect()
}

fn value(x: &Tensor<1>) -> f64 {
    f64::from(x.clone().inner().into_scalar::<f32>())
}
