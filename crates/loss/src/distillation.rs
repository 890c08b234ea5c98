//! Divergences between the next-token distributions of a teacher and a student.
//!
//! Shape legend: n positions, v vocabulary, c positions of a chunk.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

use crate::LossSum;

/// Positions whose distributions are compared at once, which limits the memory of intermediate values.
const CHUNK: usize = 128;

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
        let [n, v] = student_nv.dims();
        let (student_nv, teacher_nv) = (student_nv.clone().inner(), teacher_nv.clone().inner());
        let chunks = (0..n).step_by(CHUNK).map(|from| from..(from + CHUNK).min(n));
        let (mut values, mut gradients) = (Vec::new(), Vec::new());
        for rows in chunks {
            let of = |logits: &Tensor<2>| {
                let logits_cv = logits.clone().slice([rows.clone(), 0..v]);
                log_softmax(logits_cv.div_scalar(self.temperature), 1)
            };
            let (value_c, gradient_cv) = self.of_chunk(of(&student_nv), of(&teacher_nv));
            values.push(value_c);
            gradients.push(gradient_cv);
        }
        if values.is_empty() {
            return (Tensor::zeros([0], &student_nv.device()), student_nv);
        }
        (Tensor::cat(values, 0), Tensor::cat(gradients, 0))
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
        let count = student_nv.dims()[0] as u64;
        let (values_n, gradient_nv) = self.with_gradient(&student_nv, teacher_nv);
        // A linear function of the logits with the divergence's gradient, moved to its value.
        let linear = (student_nv * gradient_nv).sum();
        let offset = values_n.sum() - linear.clone().inner();
        LossSum { sum: linear + offset, count }
    }
}

/// ln(eᵃ + eᵇ).
fn log_add_exp(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let gap = (a.clone() - b.clone()).abs().neg();
    a.max_pair(b) + gap.exp().log1p()
}
