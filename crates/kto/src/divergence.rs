//! Estimate of KL(policy ‖ reference) from prompts with the answers of other rows of the same step.

use burn::tensor::Device;
use data::{Batch, Share};
use generate::without_autodiff;
use loss::{UnpairedObjective, mismatched_kl};
use model::CausalLm;
use plan::StagePlan;
use train::Collective;

use crate::{Reference, Result, answer_logprobs};

/// The log-ratios of mismatched answers: their sum and their number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DivergenceSum {
    /// Sum of log π − log π_ref.
    pub log_ratios: f64,
    /// Number of answers.
    pub n: u64,
}

impl DivergenceSum {
    /// The estimate, which is never negative.
    pub fn mean(&self) -> f64 {
        mismatched_kl(self.log_ratios, self.n)
    }

    /// Sums the log-ratios of all replicas.
    pub(crate) fn sum_over_replicas(&mut self, replicas: &dyn Collective) -> train::Result<()> {
        let mut sums = [self.log_ratios, self.n as f64];
        replicas.sums(&mut sums)?;
        (self.log_ratios, self.n) = (sums[0], sums[1] as u64);
        Ok(())
    }
}

/// The log-ratios of a share of the mismatched rows of `batch`, a whole step or a part of the validation set. Nothing for a
/// loss without divergence.
///
/// An adapter's dropout is off, so the estimate is that of the weights.
pub(crate) fn divergence(
    stage: &StagePlan,
    objective: &UnpairedObjective,
    model: &CausalLm,
    reference: &Reference,
    batch: &Batch,
    share: Share,
    device: &Device,
) -> Result<DivergenceSum> {
    let mut sum = DivergenceSum::default();
    if !objective.reads_kl() {
        return Ok(sum);
    }
    let model = without_autodiff(model);
    for (_, micro) in batch.mismatched().micro_batches_of(share, 1, stage.micro_batch) {
        let micro = micro.trimmed();
        let policy_b = answer_logprobs(&model, &micro, device);
        let ratios_b = policy_b.clone() - reference.of(stage, &micro, &policy_b)?;
        sum.log_ratios += kernels::with_host_values(&ratios_b, |ratios: &[f32]| {
            ratios.iter().copied().map(f64::from).sum::<f64>()
        });
        sum.n += micro.rows as u64;
    }
    Ok(sum)
}
