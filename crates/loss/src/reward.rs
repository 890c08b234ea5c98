//! Losses of reward models, from one score per text.
//!
//! Shape legend: p pairs.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

use crate::LossSum;

/// −log σ(s⁺ − s⁻ − m) for each pair: Bradley–Terry (Ouyang et al. 2022, equation 1), with the margin
/// m of Touvron et al. 2023, "Llama 2", equation 2.
pub fn pairwise_reward(
    chosen_p: Tensor<1>,
    rejected_p: Tensor<1>,
    margin_p: Option<Tensor<1>>,
) -> LossSum {
    let difference_p = chosen_p - rejected_p;
    let difference_p = match margin_p {
        Some(margin_p) => difference_p - margin_p,
        None => difference_p,
    };
    LossSum::of(log_sigmoid(difference_p).neg())
}

/// (s⁺ + s⁻)² for each pair, which centres scores on zero (Eisenstein et al. 2023, "Helping or Herding?"). The caller
/// multiplies it by a small coefficient and adds it to the pair loss.
pub fn reward_centering(chosen_p: Tensor<1>, rejected_p: Tensor<1>) -> LossSum {
    LossSum::of((chosen_p + rejected_p).square())
}
