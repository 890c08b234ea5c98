//! The adaptive KL coefficient of Ziegler et al. 2019, as a pure function.

/// The coefficient for the next update, after `n_episodes` with a mean KL of `kl` nats.
///
/// β ← β·(1 + e·n/horizon) with e = clip(kl/target − 1, −0.2, 0.2): Ziegler et al. 2019, section 2.2.
pub fn adapted_kl_coef(kl_coef: f64, kl: f64, target: f64, n_episodes: usize, horizon: f64) -> f64 {
    let error = (kl / target - 1.0).clamp(-0.2, 0.2);
    kl_coef * (1.0 + error * n_episodes as f64 / horizon)
}
