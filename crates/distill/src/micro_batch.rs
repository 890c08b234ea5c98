//! The divergence of a micro-batch and its gradients.
//!
//! The logits of a micro-batch never exist at once: those of both models, the divergence and the gradients of hidden states and
//! output layer are computed for a chunk of targets at a time. The backward pass of the student's blocks then starts from the
//! gradients of its hidden states.
//!
//! Shape legend: b batch, t time, n positions (b × t), m positions with a target, c targets of a chunk, d model width,
//! v vocabulary, k tokens of the teacher.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use data::Batch;
use loss::{Distillation, HostTopTokens, LossSum, TopTokens};
use model::{Auxiliary, CausalLm};
use nn::TokenBatch;
use plan::{DistillPlan, StagePlan};
use train::Gradients;

use crate::Teacher;
use crate::targets::at_targets;

/// Elements of a chunk of logits, and its fewest and most targets. `arch` has the same numbers for its estimate of memory.
const CHUNK: (usize, [usize; 2]) = (4 << 20, [16, 1024]);

/// The teacher's distributions at the targets of a batch.
#[derive(Debug)]
pub enum TeacherTargets<'a> {
    /// Probabilities of all tokens, from the teacher's hidden states `[m, d]`.
    All {
        /// The teacher.
        teacher: &'a Teacher,
        /// Its hidden states.
        hidden_md: Box<Tensor<2>>,
    },
    /// Its most probable tokens, `[m, k]`.
    Top(Box<TopTokens>),
}

impl<'a> TeacherTargets<'a> {
    /// Probabilities of all tokens.
    pub fn of(teacher: &'a Teacher, batch: &Batch) -> Self {
        Self::All { teacher, hidden_md: Box::new(teacher.hidden(batch)) }
    }
}

/// The summed loss of a micro-batch, with the student's own loss and the load of its experts.
#[derive(Clone, Debug)]
pub struct MicroBatchLoss {
    /// The divergence and the student's own loss, summed over the targets.
    pub sum: f64,
    /// Number of targets.
    pub n_targets: u64,
    /// The student's own loss and the load of its experts.
    pub auxiliary: Auxiliary,
}

/// The divergence of a stage and the tokens that it compares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// The divergence. `loss` has the formula and its source.
    pub divergence: Distillation,
    /// Number of tokens whose probabilities are compared. Embeddings may have more rows than the tokenizer has tokens.
    pub n_ids: usize,
}

impl Objective {
    /// The objective of a stage.
    pub fn of(stage: &StagePlan, distill: &DistillPlan) -> Self {
        let (beta, temperature) = (distill.section.beta, distill.section.temperature);
        let n_ids = stage.config.vocab_size().min(distill.teacher_config.vocab_size());
        Self { divergence: Distillation { beta, temperature }, n_ids }
    }

    /// Adds the gradients of a batch's divergence, summed over its targets, to `gradients`.
    pub fn accumulate(
        &self,
        student: &CausalLm,
        targets: &TeacherTargets<'_>,
        batch: &Batch,
        device: &Device,
        gradients: &mut Gradients,
    ) -> MicroBatchLoss {
        let output = student.forward(&tokens(batch, device));
        let auxiliary = output.auxiliary();
        let hidden_md = at_targets(output.hidden_nd(), batch);
        drop(output);
        let [m, d] = hidden_md.dims();
        let plain_md = hidden_md.clone().inner();
        let mut sum = 0.0;
        let mut slopes = Vec::new();
        for rows in self.chunks(m) {
            let leaf_cd = plain_md.clone().slice([rows.clone(), 0..d]).autodiff().require_grad();
            let loss = self.loss(student.logits(leaf_cd.clone()), targets, rows);
            sum += loss.value();
            gradients.accumulate(student, || {
                let mut of_chunk = loss.sum.backward();
                let slope_cd = leaf_cd.grad_remove(&mut of_chunk).map(Tensor::inner);
                slopes.push(slope_cd.unwrap_or_else(|| leaf_cd.inner().zeros_like()));
                of_chunk
            });
        }
        let of_own =
            auxiliary.loss.as_ref().map(|own| own.clone().inner().into_scalar::<f32>().into());
        sum += of_own.unwrap_or(0.0) * m as f64;
        let linear = (hidden_md * Tensor::cat(slopes, 0)).sum();
        let rest = LossSum { sum: linear, count: m as u64 };
        let rest = rest.with_aux_loss(auxiliary.loss.clone(), m as u64);
        gradients.accumulate(student, || rest.sum.backward());
        MicroBatchLoss { sum, n_targets: m as u64, auxiliary }
    }

    /// The divergence of a batch, summed over its targets, without gradients. `student` has no autodiff.
    pub fn measure(
        &self,
        student: &CausalLm,
        targets: &TeacherTargets<'_>,
        batch: &Batch,
        device: &Device,
    ) -> f64 {
        let hidden_md = at_targets(student.forward(&tokens(batch, device)).hidden_nd(), batch);
        let [m, d] = hidden_md.dims();
        let of_chunk = |rows: Range<usize>| {
            let logits_cv = student.logits(hidden_md.clone().slice([rows.clone(), 0..d]));
            self.loss(logits_cv, targets, rows).value()
        };
        self.chunks(m).map(of_chunk).sum()
    }

    /// The teacher's `k` most probable tokens at the targets of a batch.
    pub fn top_tokens(&self, teacher: &Teacher, batch: &Batch, k: usize) -> HostTopTokens {
        let hidden_md = teacher.hidden(batch);
        let [m, d] = hidden_md.dims();
        let mut top = HostTopTokens::default();
        for rows in self.chunks(m) {
            let logits_cv = self.of_ids(teacher.logits(hidden_md.clone().slice([rows, 0..d])));
            let chunk = HostTopTokens::select(&self.divergence.log_probabilities(logits_cv), k);
            top.ids.extend(chunk.ids);
            top.logprobs.extend(chunk.logprobs);
        }
        top
    }

    /// The divergence of some targets from the student's logits.
    fn loss(
        &self,
        student_cv: Tensor<2>,
        targets: &TeacherTargets<'_>,
        rows: Range<usize>,
    ) -> LossSum {
        let student_cv = self.of_ids(student_cv);
        match targets {
            TeacherTargets::All { teacher, hidden_md } => {
                let [_, d] = hidden_md.dims();
                let logits_cv = teacher.logits(hidden_md.clone().slice([rows, 0..d]));
                self.divergence.loss(student_cv, &self.of_ids(logits_cv))
            }
            TeacherTargets::Top(top) => {
                let [_, k] = top.ids_nk.dims();
                let top = TopTokens {
                    ids_nk: top.ids_nk.clone().slice([rows.clone(), 0..k]),
                    logprobs_nj: top.logprobs_nj.clone().slice([rows, 0..k + 1]),
                };
                self.divergence.loss_of_top(student_cv, &top)
            }
        }
    }

    /// Ranges of at most as many targets as a chunk has.
    fn chunks(&self, m: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (elements, [fewest, most]) = CHUNK;
        let c = (elements / self.n_ids.max(1)).clamp(fewest, most);
        (0..m).step_by(c).map(move |from| from..(from + c).min(m))
    }

    fn of_ids(&self, logits_cv: Tensor<2>) -> Tensor<2> {
        let [c, v] = logits_cv.dims();
        if self.n_ids < v { logits_cv.slice([0..c, 0..self.n_ids]) } else { logits_cv }
    }
}

fn tokens(batch: &Batch, device: &Device) -> TokenBatch {
    let (b, t) = (batch.rows, batch.sequence_length);
    TokenBatch::new(&batch.ids, &batch.positions, &batch.segments, b, t, device)
}
