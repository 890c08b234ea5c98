//! The groups of an update: sampled, rewarded, and, by dynamic sampling, replaced where their rewards are all equal (Yu et al.
//! 2025, "DAPO", section 3.2).
//!
//! The prompts of a replacement depend on the update and the try alone, so a resumed run draws the same ones.

use std::collections::{BTreeMap, VecDeque};

use burn::tensor::Device;
use model::CausalLm;
use plan::{GrpoPlan, Plan, StagePlan};
use rl::{Prompts, RewardSources, RewardTable, Rollouts, StatedRewards, has_signal};
use seed::Purpose;
use train::Collective;

use crate::settings::advantages;
use crate::{Result, answers, rewarded};

/// Sampled groups with their rewards.
pub(crate) struct Sampled {
    pub(crate) rollouts: Rollouts,
    pub(crate) rewards: RewardTable,
    /// Rewards that need no reward model, with reasons.
    pub(crate) stated: Option<StatedRewards>,
    /// Numbers of groups that were sampled and replaced, and of completions at which a program failed.
    pub(crate) metrics: BTreeMap<String, f64>,
}

/// The inputs of sampling besides policy and prompts.
pub(crate) struct Sampler<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) stage: &'a StagePlan,
    pub(crate) grpo: &'a GrpoPlan,
    pub(crate) sources: &'a RewardSources,
    pub(crate) device: &'a Device,
    pub(crate) replicas: &'a dyn Collective,
}

impl Sampler<'_> {
    /// The groups of update `step` for these prompts.
    pub(crate) fn groups(
        &self,
        policy: &CausalLm,
        prompts: &Prompts,
        step: u64,
    ) -> Result<Sampled> {
        let section = &self.grpo.section;
        let mut sampled = self.draw(policy, prompts, step, 0)?;
        let max_tries = section.dynamic_sampling_max_tries;
        if max_tries == 0 {
            return Ok(sampled);
        }
        let mut equal: VecDeque<usize> = self.equal_groups(&sampled.rewards).into();
        let (mut n_sampled, mut n_equal, mut n_replaced) = (prompts.ids.len(), equal.len(), 0);
        for number in 1..=max_tries {
            if equal.is_empty() {
                break;
            }
            let first = step.saturating_mul(max_tries).saturating_add(number - 1);
            let first = first.saturating_mul(section.prompts_per_step as u64);
            let batch = self.stage.dataset.spare_batch(first, equal.len());
            let spare = Prompts::of_batch(&batch, &self.stage.dataset);
            let drawn = self.draw(policy, &spare, step, number)?;
            let without = self.equal_groups(&drawn.rewards);
            // Programs fail at completions that are not kept, too.
            for (name, n) in &drawn.metrics {
                *sampled.metrics.entry(name.clone()).or_default() += n;
            }
            n_sampled += spare.ids.len();
            n_equal += without.len();
            for group in (0..spare.ids.len()).filter(|group| !without.contains(group)) {
                let Some(place) = equal.pop_front() else { break };
                sampled.replace(place, &drawn, group, section.num_generations);
                n_replaced += 1;
            }
        }
        for (name, n) in [
            ("dynamic_sampling/sampled_groups", n_sampled),
            ("dynamic_sampling/equal_groups", n_equal),
            ("dynamic_sampling/replaced_groups", n_replaced),
        ] {
            sampled.metrics.insert(name.to_owned(), n as f64);
        }
        Ok(sampled)
    }

    /// Several completions of each prompt with their rewards. The sampled ids are the trained ids: they are never converted to
    /// text and back.
    fn draw(
        &self,
        policy: &CausalLm,
        prompts: &Prompts,
        step: u64,
        number: u64,
    ) -> Result<Sampled> {
        let Self { plan, stage, grpo, sources, device, replicas } = *self;
        let n = grpo.section.num_generations;
        let seed = seed::derive(plan.seed, &stage.name, Purpose::Rollout, step, number);
        let rollouts = answers::sample(policy, &prompts.ids, n, grpo, stage, seed, replicas)?;
        let (rewards, stated) =
            rewarded::of(&rollouts, prompts, n, grpo, sources, stage, device, replicas)?;
        let metrics = stated.as_ref().map(StatedRewards::failures).unwrap_or_default();
        Ok(Sampled { rollouts, rewards, stated, metrics })
    }

    /// Groups whose rewards are all equal.
    fn equal_groups(&self, rewards: &RewardTable) -> Vec<usize> {
        let section = &self.grpo.section;
        let kind = advantages(section);
        let groups = rewards.values.chunks(section.num_generations.max(1)).enumerate();
        let is_equal = |group: &[Vec<f64>]| !has_signal(group, &rewards.weights, kind);
        groups.filter(|(_, group)| is_equal(group)).map(|(idx, _)| idx).collect()
    }
}

impl Sampled {
    /// Puts group `from` of other completions in the place of group `to`; both have `n` completions.
    fn replace(&mut self, to: usize, other: &Self, from: usize, n: usize) {
        let (to, from) = (to * n..(to + 1) * n, from * n..(from + 1) * n);
        copy(&mut self.rollouts.episodes, &other.rollouts.episodes, to.clone(), from.clone());
        copy(&mut self.rewards.values, &other.rewards.values, to.clone(), from.clone());
        if let (Some(stated), Some(other)) = (&mut self.stated, &other.stated) {
            copy(&mut stated.episodes, &other.episodes, to.clone(), from.clone());
            copy(&mut stated.totals, &other.totals, to, from);
        }
    }
}

fn copy<T: Clone>(
    to: &mut [T],
    from: &[T],
    to_place: std::ops::Range<usize>,
    from_place: std::ops::Range<usize>,
) {
    if let (Some(to), Some(from)) = (to.get_mut(to_place), from.get(from_place)) {
        to.clone_from_slice(from);
    }
}
