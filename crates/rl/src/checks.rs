//! Invariants of PPO; a violation stops the run.

use burn::module::Module;
use fsio::Sha256;
use model::visit_tensors;

use crate::scored::ScoredEpisode;
use crate::{Error, Result};

/// Maximum distance of the first ratios from 1, on average and at worst. One function computes both log-probabilities, but
/// its matrix products can differ in shape and so in the last bits.
fn ratio_bounds(precision: kernels::Precision) -> (f32, f32) {
    match precision {
        kernels::Precision::F32 => (1e-4, 1e-4),
        kernels::Precision::Tf32 | kernels::Precision::Bf16 => (5e-3, 5e-2),
    }
}

/// Relative tolerance for the sum of an episode's f32 rewards.
const REWARD_SUM: f64 = 1e-5;

/// A hash of all weights with their names, equal at the start and the end of a run for a frozen model.
pub fn weights_hash<M: Module>(model: &M) -> String {
    let mut hash = Sha256::new();
    let visited = visit_tensors(model, |name, shape, values| {
        hash.update(format!("{name} {shape:?}\n"));
        for value in values {
            hash.update(value.to_le_bytes());
        }
        Ok::<(), std::convert::Infallible>(())
    });
    match visited {
        Ok(()) => hash.finish_hex(),
        Err(never) => match never {},
    }
}

/// Requires that the rewards of an episode sum to its score minus β times its KL, and are finite.
pub(crate) fn check_reward_sum(number: usize, episode: &ScoredEpisode, kl_coef: f64) -> Result<()> {
    let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
    let sizes = |values: &[f32]| values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
    let rewards = sum(&episode.rewards);
    let expected = f64::from(episode.score) - kl_coef * sum(&episode.kl);
    let scale = 1.0 + f64::from(episode.score.abs()) + kl_coef * sizes(&episode.kl);
    let is_close = (rewards - expected).abs() <= REWARD_SUM * scale;
    if is_close { Ok(()) } else { Err(Error::RewardSum { episode: number, rewards, expected }) }
}

/// Requires that every ratio of the first minibatch is 1, because the policy has not changed yet.
pub(crate) fn check_first_ratio(ratios: &[f32]) -> Result<()> {
    let off = |ratio: f32| {
        let difference = (ratio - 1.0).abs();
        if difference.is_nan() { f32::INFINITY } else { difference }
    };
    let (mean_bound, worst_bound) = ratio_bounds(kernels::precision());
    let mean = ratios.iter().copied().map(off).sum::<f32>() / ratios.len().max(1) as f32;
    let worst = ratios.iter().copied().max_by(|a, b| off(*a).total_cmp(&off(*b)));
    match worst {
        Some(ratio) if off(ratio) > worst_bound || mean > mean_bound => {
            Err(Error::FirstRatio { ratio })
        }
        _ => Ok(()),
    }
}

/// Requires that the order of each epoch contains every episode once.
pub(crate) fn check_orders(orders: &[Vec<usize>], n_episodes: usize) -> Result<()> {
    for (epoch, order) in orders.iter().enumerate() {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..n_episodes) {
            return Err(Error::Order { epoch, n_episodes });
        }
    }
    Ok(())
}
