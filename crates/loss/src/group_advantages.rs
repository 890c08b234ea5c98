//! Advantages of completions relative to the other completions of the same prompt. Host code in f64.
//!
//! Group-relative advantages are those of Shao et al. 2024 ("DeepSeekMath", section 4.1), the scalings those of Liu et al. 2025
//! ("Understanding R1-Zero-Like Training") and Hu et al. 2025 ("REINFORCE++"); leave-one-out is Ahmadian et al. 2024 ("Back to
//! Basics", equation 4).

/// Added to a standard deviation before it divides.
const EPSILON: f64 = 1e-4;
/// Largest standard deviation that counts as 0 in metrics.
const ZERO: f64 = 1e-8;

/// Divisor of a reward's difference from the mean of its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RewardScale {
    /// Standard deviation of the group.
    #[default]
    Group,
    /// Standard deviation over all groups of the update.
    Batch,
    /// No scaling.
    None,
}

/// Combination of several rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Weighted sum, normalized by group.
    #[default]
    SumThenNormalize,
    /// Each reward is normalized by group; their weighted sum is normalized over the update.
    NormalizeThenSum,
}

/// Estimator of advantages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AdvantageKind {
    /// Reward minus the mean of its group.
    Group {
        /// Divisor of the difference; of no effect with [`Aggregation::NormalizeThenSum`].
        scale: RewardScale,
        /// Combination of several rewards.
        aggregation: Aggregation,
    },
    /// Reward minus the mean of the others of its group.
    LeaveOneOut {
        /// Whether advantages are standardized over the update.
        normalize: bool,
        /// Bounds of a completion's weighted sum of rewards, before the penalty on its KL divergence.
        reward_clip_range: Option<(f64, f64)>,
    },
}

/// Rewards of completions, those of a prompt adjacent.
#[derive(Clone, Copy, Debug)]
pub struct GroupRewards<'r> {
    /// Value of each reward for each completion; NaN where a completion has no such reward.
    pub values: &'r [Vec<f64>],
    /// Weight of each reward in the sum.
    pub weights: &'r [f64],
    /// Number of completions of a prompt.
    pub group_size: usize,
    /// Subtracted from each completion's sum with [`AdvantageKind::LeaveOneOut`]: β times its KL divergence. Empty for none.
    pub penalties: &'r [f64],
}

/// Advantages of completions.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupAdvantages {
    /// Advantage of each completion; 0 for one without any reward.
    pub advantages: Vec<f32>,
    /// Weighted sum of each completion's rewards, before clipping and penalties; NaN without any reward.
    pub totals: Vec<f64>,
    /// Fraction of completions whose standard deviation is 0.
    pub frac_zero_std: f64,
}

/// The advantage of each completion.
///
/// A missing reward adds nothing to a sum, and a completion without any reward counts in no mean and has advantage 0.
/// Standard deviations are unbiased, and are increased by 1e-4 before they divide.
pub fn group_advantages(rewards: &GroupRewards<'_>, kind: AdvantageKind) -> GroupAdvantages {
    let n = rewards.group_size.max(1);
    let totals: Vec<f64> =
        rewards.values.iter().map(|row| weighted(row, rewards.weights)).collect();
    let (advantages, stds) = match kind {
        AdvantageKind::Group { scale, aggregation: Aggregation::SumThenNormalize } => {
            scaled_by(&totals, n, scale)
        }
        AdvantageKind::Group { aggregation: Aggregation::NormalizeThenSum, .. } => {
            let sums: Vec<f64> = normalized_rows(rewards.values, n)
                .iter()
                .map(|row| weighted(row, rewards.weights))
                .collect();
            let (mean, std) = (mean(&sums), std(&sums));
            let advantages = sums.iter().map(|sum| (sum - mean) / (std + EPSILON)).collect();
            (advantages, vec![std; sums.len()])
        }
        AdvantageKind::LeaveOneOut { normalize, reward_clip_range } => {
            let penalized = penalized(&totals, rewards.penalties, reward_clip_range);
            let mut advantages = leave_one_out(&penalized, n);
            if normalize {
                let (mean, std) = (mean(&advantages), std(&advantages));
                for advantage in &mut advantages {
                    *advantage = (*advantage - mean) / (std + EPSILON);
                }
            }
            (advantages, group_stds(&penalized, n))
        }
    };
    let n_zero = stds.iter().filter(|std| std.abs() <= ZERO).count();
    GroupAdvantages {
        advantages: advantages.iter().map(|x| if x.is_nan() { 0.0 } else { *x as f32 }).collect(),
        frac_zero_std: n_zero as f64 / stds.len().max(1) as f64,
        totals,
    }
}

/// The weighted sum of a completion's rewards; NaN if all are missing.
fn weighted(row: &[f64], weights: &[f64]) -> f64 {
    let terms = row.iter().zip(weights).filter(|(value, _)| !value.is_nan());
    let sum = terms.fold(None, |sum, (value, weight)| Some(sum.unwrap_or(0.0) + weight * value));
    sum.unwrap_or(f64::NAN)
}

/// Differences from the group's mean over a standard deviation, and the deviation of each completion.
fn scaled_by(totals: &[f64], n: usize, scale: RewardScale) -> (Vec<f64>, Vec<f64>) {
    let stds = match scale {
        RewardScale::Group | RewardScale::None => group_stds(totals, n),
        RewardScale::Batch => vec![std(totals); totals.len()],
    };
    let means = totals.chunks(n).flat_map(|group| std::iter::repeat_n(mean(group), group.len()));
    let advantage = |((total, mean), std): ((&f64, f64), &f64)| match scale {
        RewardScale::None => total - mean,
        RewardScale::Group | RewardScale::Batch => (total - mean) / (std + EPSILON),
    };
    (totals.iter().zip(means).zip(&stds).map(advantage).collect(), stds)
}

/// The standard deviation of its group, for each completion.
fn group_stds(totals: &[f64], n: usize) -> Vec<f64> {
    totals.chunks(n).flat_map(|group| std::iter::repeat_n(std(group), group.len())).collect()
}

/// Every reward standardized within its group.
fn normalized_rows(rows: &[Vec<f64>], n: usize) -> Vec<Vec<f64>> {
    let mut normalized = rows.to_vec();
    for group in normalized.chunks_mut(n) {
        for idx in 0..group.first().map_or(0, Vec::len) {
            let column: Vec<f64> = group.iter().map(|row| row[idx]).collect();
            let (mean, std) = (mean(&column), std(&column));
            for row in group.iter_mut() {
                row[idx] = (row[idx] - mean) / (std + EPSILON);
            }
        }
    }
    normalized
}

/// Clipped sums minus their penalties.
fn penalized(totals: &[f64], penalties: &[f64], range: Option<(f64, f64)>) -> Vec<f64> {
    let one = |(idx, total): (usize, &f64)| {
        // A missing sum stays missing.
        let clipped = range.map_or(*total, |(low, high)| total.max(low).min(high));
        let clipped = if total.is_nan() { f64::NAN } else { clipped };
        clipped - penalties.get(idx).copied().unwrap_or(0.0)
    };
    totals.iter().enumerate().map(one).collect()
}

/// Each reward minus the mean of the others of its group.
fn leave_one_out(rewards: &[f64], n: usize) -> Vec<f64> {
    let of_group = |group: &[f64]| -> Vec<f64> {
        let known = group.iter().filter(|reward| !reward.is_nan());
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
        group.iter().map(|reward| reward - (sum - reward) / (count - 1.0)).collect()
    };
    rewards.chunks(n).flat_map(of_group).collect()
}

/// Mean of the values that are not NaN; NaN without any.
pub fn mean(values: &[f64]) -> f64 {
    let known: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    if known.is_empty() { f64::NAN } else { known.iter().sum::<f64>() / known.len() as f64 }
}

/// Unbiased standard deviation of the values that are not NaN; NaN with fewer than two.
pub fn std(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: Vec<f64> =
        values.iter().filter(|x| !x.is_nan()).map(|x| (x - mean).powi(2)).collect();
    if squares.len() < 2 {
        return f64::NAN;
    }
    (squares.iter().sum::<f64>() / (squares.len() - 1) as f64).sqrt()
}
