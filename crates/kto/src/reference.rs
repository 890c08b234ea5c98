//! Reference log-probabilities of answers, after their own prompts and after those of other rows. Only texts that the stage
//! visits are computed; `train` saves them.

use burn::tensor::{Device, Tensor, TensorData};
use data::{Batch, Share};
use generate::without_autodiff;
use loss::UnpairedObjective;
use model::CausalLm;
use plan::{KtoPlan, Plan, StagePlan};
use serde_json::json;
use train::{ReferenceLogprobs, RunDir, add_reference, reference_of};

use crate::{Result, answer_logprobs};

/// log π_ref(answer | prompt) by the samples of prompt and answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference(pub ReferenceLogprobs<2>);

impl Reference {
    /// Computes the log-probabilities of every text that the stage's steps and evaluations visit.
    ///
    /// Batches are those of the steps, so that policy and reference of the first step are bit-identical.
    pub fn compute(
        stage: &StagePlan,
        objective: &UnpairedObjective,
        model: &CausalLm,
        device: &Device,
    ) -> Result<ReferenceLogprobs<2>> {
        let model = without_autodiff(model);
        let mut sums = ReferenceLogprobs::new();
        let steps = (0..stage.max_steps).map(|step| stage.dataset.batch(step));
        for batch in steps.chain(eval_batches(stage)) {
            let mismatched = objective.reads_kl().then(|| batch.mismatched());
            for batch in std::iter::once(batch).chain(mismatched) {
                let micro_batches = batch.micro_batches_of(Share::WHOLE, 1, stage.micro_batch);
                for (_, micro) in micro_batches {
                    compute_batch(stage, &model, &micro, device, &mut sums)?;
                }
            }
        }
        Ok(sums)
    }

    /// The log-probabilities of the rows of a batch, `[b]`, on the device of the policy's.
    ///
    /// Errors: a row without a precomputed value.
    pub fn of(&self, stage: &StagePlan, batch: &Batch, policy_b: &Tensor<1>) -> Result<Tensor<1>> {
        let known = texts(batch).map(|samples| reference_of(&self.0, stage, samples));
        let values = known.collect::<train::Result<Vec<f32>>>()?;
        let n = values.len();
        Ok(Tensor::from_data(TensorData::new(values, [n]), &policy_b.device()))
    }
}

/// The validation set in parts of a step's size, in which rows are combined as in a step.
pub(crate) fn eval_batches(stage: &StagePlan) -> impl Iterator<Item = Batch> + '_ {
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    stage.dataset.eval_batches(stage.rows_per_step, max_rows)
}

/// The samples of each row: those of its prompt and of its answer, which are the same unless the rows are mismatched.
fn texts(batch: &Batch) -> impl Iterator<Item = [u64; 2]> + '_ {
    batch.sample_starts.windows(2).map(|bounds| {
        let samples = batch.samples.get(bounds[0]..bounds[1]).unwrap_or_default();
        let of = |sample: Option<&u64>| sample.copied().unwrap_or_default();
        [of(samples.first()), of(samples.last())]
    })
}

fn compute_batch(
    stage: &StagePlan,
    model: &CausalLm,
    batch: &Batch,
    device: &Device,
    sums: &mut ReferenceLogprobs<2>,
) -> Result<()> {
    // A later epoch visits the same rows again.
    if texts(batch).all(|samples| sums.contains_key(&samples)) {
        return Ok(());
    }
    let logprobs_b = answer_logprobs(model, &batch.trimmed(), device);
    let logprobs = kernels::with_host_values(&logprobs_b, <[f32]>::to_vec);
    for (samples, logprob) in texts(batch).zip(logprobs) {
        add_reference(sums, stage, samples, logprob)?;
    }
    Ok(())
}

/// A hash of everything that the log-probabilities depend on: the initial weights, the token ids, the rows visited.
pub fn reference_key(
    plan: &Plan,
    stage: &StagePlan,
    kto: &KtoPlan,
    run_dir: &RunDir,
) -> Result<String> {
    let section = &kto.section;
    let settings = json!({
        "lora": section.lora,
        "overlong": section.overlong,
        "mismatched": section.loss.reads_kl(),
    });
    Ok(train::reference_key(plan, stage, run_dir, &settings)?)
}
