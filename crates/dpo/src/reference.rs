//! Reference log-probabilities of the answers of pairs. Only pairs that the stage visits are computed; `train` saves them.

use burn::tensor::{Device, Tensor, TensorData};
use data::Batch;
use generate::without_autodiff;
use loss::{PairLogprobs, SequenceLogprobs};
use model::CausalLm;
use plan::{DpoPlan, Plan, StagePlan};
use serde_json::json;
use train::{ReferenceLogprobs, RunDir, add_reference, reference_of};

use crate::{Objective, Reading, Result, answer_logprobs};

/// log π_ref(answer | prompt) of each text by its sample index.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// The loss has no reference; all values are 0.
    Unused,
    /// Sums over the tokens of each answer.
    Sums(ReferenceLogprobs<1>),
}

impl Reference {
    /// Computes the log-probabilities of every pair that the stage's steps and evaluations visit.
    ///
    /// Batches are those of the steps, so that policy and reference of the first step are bit-identical.
    pub fn compute(
        stage: &StagePlan,
        objective: &Objective,
        model: &CausalLm,
        device: &Device,
    ) -> Result<ReferenceLogprobs<1>> {
        let model = without_autodiff(model);
        let mut sums = ReferenceLogprobs::new();
        let reading = Reading { use_weighting: false, ..objective.logprobs() };
        let dataset = &stage.dataset;
        for step in 0..stage.max_steps {
            for micro in dataset.batch(step).micro_batches(2 * stage.micro_batch) {
                compute_batch(stage, &model, &micro, reading, device, &mut sums)?;
            }
        }
        let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
        for batch in dataset.eval_batches(stage.micro_batch, max_rows) {
            compute_batch(stage, &model, &batch, reading, device, &mut sums)?;
        }
        Ok(sums)
    }

    /// The log-probabilities of a batch whose rows are chosen and rejected texts, alternating. The lengths are the
    /// policy's, because both come from one mask.
    ///
    /// Errors: a sample without a precomputed value.
    pub fn of(
        &self,
        stage: &StagePlan,
        batch: &Batch,
        policy: &PairLogprobs,
    ) -> Result<PairLogprobs> {
        let known = |sample: &u64| match self {
            Self::Unused => Ok(0.0),
            Self::Sums(sums) => reference_of(sums, stage, [*sample]),
        };
        let sums: Vec<f32> = batch.samples.iter().map(known).collect::<train::Result<_>>()?;
        let side = |answers: &SequenceLogprobs, from: usize| {
            let n_tokens_p = answers.n_tokens();
            let sums: Vec<f32> = sums.iter().skip(from).step_by(2).copied().collect();
            let data = TensorData::new(sums, n_tokens_p.dims());
            SequenceLogprobs::from_sums(Tensor::from_data(data, &n_tokens_p.device()), n_tokens_p)
        };
        Ok(PairLogprobs { chosen: side(&policy.chosen, 0), rejected: side(&policy.rejected, 1) })
    }
}

fn compute_batch(
    stage: &StagePlan,
    model: &CausalLm,
    batch: &Batch,
    reading: Reading,
    device: &Device,
    sums: &mut ReferenceLogprobs<1>,
) -> Result<()> {
    // A later epoch visits the same pairs again.
    if batch.samples.iter().all(|sample| sums.contains_key(&[*sample])) {
        return Ok(());
    }
    let found = answer_logprobs(model, &batch.trimmed(), reading, device).pairs;
    let host =
        |answers: &SequenceLogprobs| kernels::with_host_values(&answers.sums(), <[f32]>::to_vec);
    let answers = host(&found.chosen).into_iter().zip(host(&found.rejected));
    let logprobs = answers.flat_map(|(chosen, rejected)| [chosen, rejected]);
    for (sample, logprob) in batch.samples.iter().zip(logprobs) {
        add_reference(sums, stage, [*sample], logprob)?;
    }
    Ok(())
}

/// A hash of everything that the log-probabilities depend on: the initial weights, the token ids, the pairs visited.
pub fn reference_key(
    plan: &Plan,
    stage: &StagePlan,
    dpo: &DpoPlan,
    run_dir: &RunDir,
) -> Result<String> {
    let input = &dpo.section.input;
    let settings = json!({
        "lora": input.lora,
        "overlong": input.overlong,
        "ld_alpha": dpo.section.ld_alpha,
    });
    Ok(train::reference_key(plan, stage, run_dir, &settings)?)
}
