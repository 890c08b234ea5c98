//! The `length` reward: penalties for long completions.

use recipe::{LengthKeys, LengthShape};

/// Reward of a completion of `n_tokens`; `max_tokens` is the limit, `is_right` whether its answer is.
///
/// `overlong` is equation 13 of DAPO (Yu et al. 2025): 0 up to `max_tokens − cache_tokens`, then linearly down to −1 at
/// `max_tokens`. `cosine` is the schedule of Yeo et al. 2025, section 4: from the first to the second number of `correct`
/// or `wrong` along half a cosine.
pub(crate) fn score(
    n_tokens: usize,
    max_tokens: usize,
    is_right: Option<bool>,
    keys: &LengthKeys,
) -> (Option<f64>, String) {
    match keys.shape {
        LengthShape::Overlong => {
            let cache = keys.cache_tokens.unwrap_or(0).min(max_tokens);
            let free = max_tokens - cache;
            let value = if n_tokens <= free {
                0.0
            } else if n_tokens <= max_tokens && cache > 0 {
                -((n_tokens - free) as f64) / cache as f64
            } else {
                -1.0
            };
            (Some(value), format!("{n_tokens} of {max_tokens} tokens, {free} of them free"))
        }
        LengthShape::Cosine => {
            let Some(is_right) = is_right else {
                return (None, "no reward says whether the answer is right".to_owned());
            };
            let [short, long] = if is_right { keys.correct() } else { keys.wrong() };
            let progress = (n_tokens as f64 / max_tokens.max(1) as f64).min(1.0);
            let share = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            let word = if is_right { "right" } else { "wrong" };
            (
                Some(long + (short - long) * share),
                format!("{word}, {n_tokens} of {max_tokens} tokens"),
            )
        }
    }
}
