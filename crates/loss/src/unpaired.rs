//! Losses on single answers that are labelled desirable or undesirable, against a reference model.
//!
//! Shape legend: b answers.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Tensor, TensorData};

/// A loss on labelled answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnpairedLoss {
    /// KTO (Ethayarajh et al. 2024, section 4): the value of an answer relative to the divergence of the policy
    /// from its reference.
    #[default]
    Kto,
    /// APO-zero (D'Oosterlinck et al. 2024) on single answers: KTO with a divergence of 0.
    ApoZeroUnpaired,
}

/// A loss on labelled answers with its coefficients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnpairedObjective {
    /// The loss.
    pub loss: UnpairedLoss,
    /// Factor β between a log-ratio and its implicit reward.
    pub beta: f64,
    /// Weight λ_D of desirable answers.
    pub desirable_weight: f64,
    /// Weight λ_U of undesirable answers.
    pub undesirable_weight: f64,
}

impl UnpairedObjective {
    /// Whether the loss compares rewards with an estimate of KL(policy ‖ reference).
    pub fn reads_kl(&self) -> bool {
        match self.loss {
            UnpairedLoss::Kto => true,
            UnpairedLoss::ApoZeroUnpaired => false,
        }
    }

    /// The weight of an answer.
    pub fn weight(&self, is_desirable: bool) -> f64 {
        if is_desirable { self.desirable_weight } else { self.undesirable_weight }
    }

    /// The implicit rewards β(log π − log π_ref) of answers, `[b]`, from the log-probabilities of both models.
    pub fn rewards(&self, policy_b: Tensor<1>, reference_b: Tensor<1>) -> Tensor<1> {
        (policy_b - reference_b).mul_scalar(self.beta)
    }

    /// The loss of each answer, `[b]`: λ_D(1 − σ(r − βz)) for a desirable one, λ_U(1 − σ(βz − r)) for an undesirable one,
    /// with the implicit reward r and the divergence z = `kl`, which losses that do not read it take as 0.
    ///
    /// # Panics
    /// If the number of labels is not that of the answers.
    pub fn losses(&self, rewards_b: Tensor<1>, desirable: &[bool], kl: f64) -> Tensor<1> {
        let device = rewards_b.device();
        let of = |value: &dyn Fn(bool) -> f32| {
            let values: Vec<f32> = desirable.iter().map(|label| value(*label)).collect();
            Tensor::<1>::from_data(TensorData::new(values, [desirable.len()]), &device)
        };
        // 1 − σ(x) = σ(−x).
        let signs_b = of(&|is_desirable| if is_desirable { -1.0 } else { 1.0 });
        let weights_b = of(&|is_desirable| self.weight(is_desirable) as f32);
        let kl = if self.reads_kl() { kl } else { 0.0 };
        sigmoid((rewards_b.sub_scalar(self.beta * kl)) * signs_b) * weights_b
    }

    /// The mean loss of answers while the policy equals its reference.
    pub fn at_reference(&self, desirable: &[bool]) -> f64 {
        let weights: f64 = desirable.iter().map(|label| self.weight(*label)).sum();
        0.5 * weights / desirable.len().max(1) as f64
    }
}

/// Estimate of KL(policy ‖ reference) from `n` answers to other prompts: the mean of log π − log π_ref, at least 0
/// (Ethayarajh et al. 2024, section 4.1). Without answers it is 0.
pub fn mismatched_kl(log_ratios: f64, n: u64) -> f64 {
    if n == 0 { 0.0 } else { (log_ratios / n as f64).max(0.0) }
}
