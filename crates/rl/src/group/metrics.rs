//! Metrics of completions and of optimizer steps under TRL's names.

use std::collections::BTreeMap;

use loss::{GroupLoss, GroupObjective, GroupTerms, known_mean};
use train::Collective;

use crate::rollout::{EndReason, Rollout};

/// Lengths of completions, and how many were cut off.
pub fn completion_metrics(episodes: &[Rollout]) -> BTreeMap<String, f64> {
    let length = |episode: &Rollout| episode.span().response as f64;
    let all: Vec<f64> = episodes.iter().map(length).collect();
    let ended = episodes.iter().filter(|episode| episode.span().end == EndReason::EndToken);
    let mut ended: Vec<f64> = ended.map(length).collect();
    let clipped = 1.0 - ended.len() as f64 / all.len().max(1) as f64;
    if ended.is_empty() {
        ended.push(0.0);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let low = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let metrics = [
        ("completions/mean_length", mean(&all)),
        ("completions/min_length", low(&all)),
        ("completions/max_length", high(&all)),
        ("completions/clipped_ratio", clipped),
        ("completions/mean_terminated_length", mean(&ended)),
        ("completions/min_terminated_length", low(&ended)),
        ("completions/max_terminated_length", high(&ended)),
    ];
    metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Sums over a batch, from which its metrics follow.
#[derive(Clone, Debug, Default)]
pub struct GroupMetrics {
    /// Tokens in the loss, completions.
    n_tokens: f64,
    n_rows: f64,
    entropy: f64,
    kl: f64,
    policy_loss: f64,
    /// Ratios beyond the lower, the upper and either bound: tokens, or completions where ratios are theirs.
    clipped: [f64; 3],
    phi: f64,
    /// Share of clipped ratios in each completion with tokens in the loss, below and above.
    rows: Vec<[f64; 2]>,
}

/// Number of sums that replicas exchange before those of completions.
const N_SUMS: usize = 9;

impl GroupMetrics {
    /// Adds the completions of a batch: `lengths` are their tokens in the loss, 0 for one that is masked; `entropies` has one
    /// row of the batch's width for each.
    pub fn add(
        &mut self,
        terms: &GroupTerms,
        entropies: &[f32],
        lengths: &[usize],
        advantages: &[f32],
        objective: &GroupObjective,
    ) {
        let width = entropies.len() / lengths.len().max(1);
        let ratios = host(&terms.ratios);
        let is_of_rows = is_row_level(objective);
        let n_ratios = ratios.len() / lengths.len().max(1);
        let masked_sum = |values: &[f32]| -> f64 {
            let rows = values.chunks(width.max(1)).zip(lengths);
            rows.map(|(row, n)| row.iter().take(*n).map(|x| f64::from(*x)).sum::<f64>()).sum()
        };
        self.n_tokens += lengths.iter().sum::<usize>() as f64;
        self.n_rows += lengths.len() as f64;
        self.entropy += masked_sum(entropies);
        self.policy_loss += f64::from(terms.policy_loss.clone().into_scalar::<f32>());
        if let Some(kl_bt) = &terms.kl_bt {
            self.kl += masked_sum(&host(kl_bt));
        }
        if let Some(phi_b1) = &terms.phi_b1 {
            self.phi += host(phi_b1).iter().map(|x| f64::from(*x)).sum::<f64>();
        }
        let (low, high) = bounds(objective);
        for ((row, n), advantage) in ratios.chunks(n_ratios.max(1)).zip(lengths).zip(advantages) {
            let counted = if is_of_rows { 1 } else { *n };
            let row = row.iter().take(counted).map(|ratio| f64::from(*ratio));
            let below = if *advantage < 0.0 { row.clone().filter(|r| *r < low).count() } else { 0 };
            let above = if *advantage > 0.0 { row.filter(|r| *r > high).count() } else { 0 };
            let (below, above) = (below as f64, above as f64);
            for (sum, n) in self.clipped.iter_mut().zip([below, above, below + above]) {
                *sum += n;
            }
            if counted > 0 {
                self.rows.push([below / counted as f64, above / counted as f64]);
            }
        }
    }

    /// Adds the sums of all other replicas.
    pub(super) fn sum_over_replicas(&mut self, replicas: &dyn Collective) -> train::Result<()> {
        if replicas.world_size() == 1 {
            return Ok(());
        }
        let [low, high, either] = self.clipped;
        let mut numbers = vec![
            self.n_tokens,
            self.n_rows,
            self.entropy,
            self.kl,
            self.policy_loss,
            low,
            high,
            either,
            self.phi,
        ];
        numbers.extend(self.rows.iter().flatten());
        *self = Self::default();
        for of_replica in replicas.all_gather(numbers)? {
            let (sums, rows) = of_replica.split_at(N_SUMS.min(of_replica.len()));
            let &[n_tokens, n_rows, entropy, kl, policy_loss, low, high, either, phi] = sums else {
                continue;
            };
            self.n_tokens += n_tokens;
            self.n_rows += n_rows;
            self.entropy += entropy;
            self.kl += kl;
            self.policy_loss += policy_loss;
            for (sum, n) in self.clipped.iter_mut().zip([low, high, either]) {
                *sum += n;
            }
            self.phi += phi;
            self.rows.extend(rows.chunks_exact(2).map(|pair| [pair[0], pair[1]]));
        }
        Ok(())
    }

    /// The metrics of the batch.
    pub fn named(&self, objective: &GroupObjective) -> BTreeMap<String, f64> {
        let n_tokens = self.n_tokens.max(1.0);
        let n_ratios = if is_row_level(objective) { self.n_rows.max(1.0) } else { n_tokens };
        let mut metrics = BTreeMap::from([("entropy".to_owned(), self.entropy / n_tokens)]);
        let mut insert = |name: &str, value: f64| metrics.insert(name.to_owned(), value);
        if objective.beta != 0.0 {
            insert("kl", self.kl / n_tokens);
        }
        if objective.entropy_coef != 0.0 {
            insert("policy_loss", self.policy_loss);
            insert("entropy_coef", objective.entropy_coef);
        }
        let [low, high, either] = self.clipped.map(|sum| sum / n_ratios);
        match objective.loss {
            loss if loss.clips() => {
                insert("clip_ratio/low_mean", low);
                insert("clip_ratio/high_mean", high);
                insert("clip_ratio/region_mean", either);
                let lows = self.rows.iter().map(|[low, _]| *low);
                let highs = self.rows.iter().map(|[_, high]| *high);
                if !self.rows.is_empty() {
                    insert("clip_ratio/low_min", lows.fold(f64::INFINITY, f64::min));
                    insert("clip_ratio/high_max", highs.fold(0.0, f64::max));
                }
            }
            GroupLoss::Cispo => {
                insert("cispo_clip_ratio", high);
            }
            GroupLoss::Vespo { .. } => {
                insert("vespo/phi_seq_mean", self.phi / self.n_rows.max(1.0));
            }
            GroupLoss::Sapo { .. }
            | GroupLoss::Grpo
            | GroupLoss::Bnpo
            | GroupLoss::DrGrpo
            | GroupLoss::Dapo
            | GroupLoss::Luspo
            | GroupLoss::Rloo => {}
        }
        metrics
    }
}

/// Means of metrics over batches or steps; one that some of them lack is a mean over the others.
pub(super) fn means(all: &[BTreeMap<String, f64>]) -> BTreeMap<String, f64> {
    let names: std::collections::BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    let mean = |name: &String| {
        let values: Vec<f64> =
            all.iter().filter_map(|metrics| metrics.get(name).copied()).collect();
        known_mean(&values)
    };
    names.into_iter().map(|name| (name.clone(), mean(name))).collect()
}

/// Whether ratios are those of whole completions.
fn is_row_level(objective: &GroupObjective) -> bool {
    objective.loss == GroupLoss::Rloo || objective.level == loss::RatioLevel::Sequence
}

/// Bounds beyond which a ratio counts as clipped.
fn bounds(objective: &GroupObjective) -> (f64, f64) {
    let high = match objective.loss {
        GroupLoss::Cispo => objective.epsilon_high,
        GroupLoss::Grpo
        | GroupLoss::Bnpo
        | GroupLoss::DrGrpo
        | GroupLoss::Dapo
        | GroupLoss::Sapo { .. }
        | GroupLoss::Vespo { .. }
        | GroupLoss::Luspo
        | GroupLoss::Rloo => 1.0 + objective.epsilon_high,
    };
    (1.0 - objective.epsilon, high)
}

fn host(x: &burn::tensor::Tensor<2>) -> Vec<f32> {
    kernels::with_host_values(x, <[f32]>::to_vec)
}
