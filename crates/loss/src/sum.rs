//! A loss before its division.
//!
//! There is deliberately no addition of means here: averages of averages weigh targets unequally.

use burn::tensor::Tensor;

/// The sum of a loss over its terms, and how many terms there are.
#[derive(Clone, Debug)]
pub struct LossSum {
    /// Sum over the terms, shape `[1]`.
    pub sum: Tensor<1>,
    /// Number of terms.
    pub count: u64,
}

impl LossSum {
    /// The sum of terms that all count, `[n]`.
    pub fn of(terms_n: Tensor<1>) -> Self {
        let count = terms_n.dims()[0] as u64;
        Self { sum: terms_n.sum(), count }
    }

    /// The sum with a loss of the model's own, such as the load balancing of a mixture of experts.
    ///
    /// `aux_loss` is a mean over the batch of one forward, of which this sum has `n_terms` terms. Added `n_terms` times,
    /// its mean over a step weighs each micro-batch by its terms, as the loss itself does.
    #[must_use]
    pub fn with_aux_loss(self, aux_loss: Option<Tensor<1>>, n_terms: u64) -> Self {
        let Some(aux_loss) = aux_loss else { return self };
        Self { sum: self.sum + aux_loss.mul_scalar(n_terms as f64), ..self }
    }

    /// The share of this sum in the mean over `total` terms: those of the whole step, counted before
    /// its first forward. Shares of micro-batches add up to the step's loss.
    pub fn mean_over(self, total: u64) -> Tensor<1> {
        self.sum.div_scalar(total.max(1) as f64)
    }

    /// The sum on the host. Waits for the device.
    pub fn value(&self) -> f64 {
        f64::from(self.sum.clone().inner().into_scalar::<f32>())
    }
}
