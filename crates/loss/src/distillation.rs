//! Divergences between the next-token distributions of a teacher and a student.
//!
//! Shape legend: n positions, v vocabulary, k tokens of the teacher, c positions of a chunk.

use burn::tensor::activation::log_softmax;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::{LossSum, TopTokens};

/// Elements of a chunk, and its most positions. Distributions are compared chunk by chunk, which limits the memory of
/// intermediate values.
const CHUNK: [usize; 2] = [1 << 19, 128];

/// The smallest probability of all tokens that are not among the teacher's k, so that its logarithm is finite.
const MIN_TAIL: f64 = 1e-7;

/// The generalized Jensen–Shannon divergence between a teacher's distribution t and a student's distribution s (Agarwal et
/// al. 2024, "On-Policy Distillation of Language Models", section 2): β KL(t ‖ m) + (1 − β) KL(s ‖ m) with the mixture
/// m = βt + (1 − β)s. As in TRL, β = 0 is the forward divergence KL(t ‖ s) and β = 1 the reverse one, KL(s ‖ t).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// Weight β of the teacher in the mixture, from 0 to 1.
    pub beta: f64,
    /// Temperature that divides the logits of both. The loss has no factor of its square.
    pub temperature: f64,
}

impl Distillation {
    /// The divergence of each position, `[n]` in nats, and its gradient with respect to the student's logits, `[n, v]`. Both
    /// are without a graph.
    pub fn with_gradient(
        &self,
        student_nv: &Tensor<2>,
        teacher_nv: &Tensor<2>,
    ) -> (Tensor<1>, Tensor<2>) {
        let teacher_nv = teacher_nv.clone().inner();
        self.by_chunks(student_nv, |log_s_cv, from| {
            let dims = log_s_cv.dims();
            let log_t_cv = self.log_probabilities(rows(&teacher_nv, from, dims));
            self.of_chunk(log_s_cv, log_t_cv)
        })
    }

    /// The same divergence over k + 1 outcomes: each of the teacher's k tokens, and any other token. This is the sum with a
    /// tail bucket of TRL's `teacher_top_k`. Both probabilities of the last outcome are at least 1e-7.
    pub fn with_gradient_of_top(
        &self,
        student_nv: &Tensor<2>,
        teacher: &TopTokens,
    ) -> (Tensor<1>, Tensor<2>) {
        let [_, k] = teacher.ids_nk.dims();
        let logprobs_nj = teacher.logprobs_nj.clone().inner();
        self.by_chunks(student_nv, |log_s_cv, from| {
            let [c, _] = log_s_cv.dims();
            let ids_ck = teacher.ids_nk.clone().slice([from..from + c, 0..k]);
            self.of_chunk_of_top(log_s_cv, ids_ck, rows(&logprobs_nj, from, [c, k + 1]))
        })
    }

    /// Calls `compare` with the student's log-probabilities of each chunk and the chunk's first position.
    fn by_chunks(
        &self,
        student_nv: &Tensor<2>,
        compare: impl Fn(Tensor<2>, usize) -> (Tensor<1>, Tensor<2>),
    ) -> (Tensor<1>, Tensor<2>) {
        let [n, v] = student_nv.dims();
        let student_nv = student_nv.clone().inner();
        let of_chunk = (CHUNK[0] / v.max(1)).clamp(1, CHUNK[1]);
        let (mut values, mut gradients) = (Vec::new(), Vec::new());
        for from in (0..n).step_by(of_chunk) {
            let dims = [of_chunk.min(n - from), v];
            let log_s_cv = self.log_probabilities(rows(&student_nv, from, dims));
            let (value_c, gradient_cv) = compare(log_s_cv, from);
            values.push(value_c);
            gradients.push(gradient_cv);
        }
        if values.is_empty() {
            return (Tensor::zeros([0], &student_nv.device()), student_nv);
        }
        (Tensor::cat(values, 0), Tensor::cat(gradients, 0))
    }

    /// Logarithms of the probabilities at the temperature, `[c, v]`.
    pub fn log_probabilities(&self, logits_cv: Tensor<2>) -> Tensor<2> {
        log_softmax(logits_cv.div_scalar(self.temperature), 1)
    }

    /// [`Self::of_chunk`] over the teacher's tokens and the rest.
    ///
    /// The outcomes are a softmax of as many logits, of which the last stands for all other tokens. Each of these has a share of
    /// its gradient: its probability among them.
    fn of_chunk_of_top(
        &self,
        log_s_cv: Tensor<2>,
        ids_ck: Tensor<2, Int>,
        log_t_cj: Tensor<2>,
    ) -> (Tensor<1>, Tensor<2>) {
        let [c, k] = ids_ck.dims();
        let without_top = |x_cv: Tensor<2>| {
            let own_ck = x_cv.clone().gather(1, ids_ck.clone());
            x_cv.scatter(1, ids_ck.clone(), own_ck.neg(), IndexingUpdateOp::Add)
        };
        // The rest is the sum of its own tokens: 1 minus the others' sum has few digits left where they have nearly everything.
        let tail_c1 = without_top(log_s_cv.clone().exp()).sum_dim(1);
        let log_tail_c1 = tail_c1.clamp_min(MIN_TAIL).log();
        let log_s =
            Tensor::cat(vec![log_s_cv.clone().gather(1, ids_ck.clone()), log_tail_c1.clone()], 1);
        let tokens_ck = log_t_cj.clone().slice([0..c, 0..k]);
        let rest_c1 = log_t_cj.slice([0..c, k..k + 1]).clamp_min(MIN_TAIL.ln());
        let (value_c, outcomes) = self.of_chunk(log_s, Tensor::cat(vec![tokens_ck, rest_c1], 1));
        let of_tokens_ck = outcomes.clone().slice([0..c, 0..k]);
        let of_tail_c1 = outcomes.slice([0..c, k..k + 1]);
        let shares_cv = (log_s_cv - log_tail_c1).exp() * of_tail_c1;
        // Their own shares are removed first: x − x is exactly 0, however large x is.
        let others_cv = without_top(shares_cv);
        (value_c, others_cv.scatter(1, ids_ck, of_tokens_ck, IndexingUpdateOp::Add))
    }

    /// The divergence of each position, `[c]`, with its gradient, from the logarithms of both distributions, `[c, v]`.
    ///
    /// With g = ∂/∂s of the divergence, whose constant part cancels, the gradient with respect to a logit is
    /// s(g − Σ s g)/T.
    fn of_chunk(&self, log_s: Tensor<2>, log_t: Tensor<2>) -> (Tensor<1>, Tensor<2>) {
        let [c, _] = log_s.dims();
        let sum = |x_cv: Tensor<2>| x_cv.sum_dim(1);
        let (s, t) = (log_s.clone().exp(), log_t.clone().exp());
        let per_logit = 1.0 / self.temperature;
        if self.beta <= 0.0 {
            let value_c1 = sum(t.clone() * (log_t - log_s));
            return (value_c1.reshape([c]), (s - t).mul_scalar(per_logit));
        }
        let beta = self.beta.min(1.0);
        let (value_c1, slopes, mean_slope_c1) = if beta >= 1.0 {
            let log_ratio = log_s - log_t;
            let value_c1 = sum(s.clone() * log_ratio.clone());
            (value_c1.clone(), log_ratio, value_c1)
        } else {
            let log_m = log_add_exp(
                log_t.clone().add_scalar(beta.ln()),
                log_s.clone().add_scalar((1.0 - beta).ln()),
            );
            let of_student = log_s - log_m.clone();
            let of_student_c1 = sum(s.clone() * of_student.clone()).mul_scalar(1.0 - beta);
            let of_teacher_c1 = sum(t * (log_t - log_m)).mul_scalar(beta);
            let slopes = of_student.mul_scalar(1.0 - beta);
            (of_student_c1.clone() + of_teacher_c1, slopes, of_student_c1)
        };
        let gradient_cv = (s * (slopes - mean_slope_c1)).mul_scalar(per_logit);
        (value_c1.reshape([c]), gradient_cv)
    }

    /// The summed divergence of all positions. Its graph holds the student's logits and their gradient alone.
    pub fn loss(&self, student_nv: Tensor<2>, teacher_nv: &Tensor<2>) -> LossSum {
        let (values_n, gradient_nv) = self.with_gradient(&student_nv, teacher_nv);
        linear_sum(student_nv, values_n, gradient_nv)
    }

    /// The summed divergence over the teacher's most probable tokens and the rest ([`Self::with_gradient_of_top`]).
    pub fn loss_of_top(&self, student_nv: Tensor<2>, teacher: &TopTokens) -> LossSum {
        let (values_n, gradient_nv) = self.with_gradient_of_top(&student_nv, teacher);
        linear_sum(student_nv, values_n, gradient_nv)
    }
}

/// The sum of `values_n` as a function of the logits: a linear one with this gradient, moved to the value.
fn linear_sum(student_nv: Tensor<2>, values_n: Tensor<1>, gradient_nv: Tensor<2>) -> LossSum {
    let count = student_nv.dims()[0] as u64;
    let linear = (student_nv * gradient_nv).sum();
    let offset = values_n.sum() - linear.clone().inner();
    LossSum { sum: linear + offset, count }
}

/// Positions `from..from + c` of a matrix.
fn rows(x_nv: &Tensor<2>, from: usize, [c, v]: [usize; 2]) -> Tensor<2> {
    x_nv.clone().slice([from..from + c, 0..v])
}

/// ln(eᵃ + eᵇ).
fn log_add_exp(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let gap = (a.clone() - b.clone()).abs().neg();
    a.max_pair(b) + gap.exp().log1p()
}
