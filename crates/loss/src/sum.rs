//! A loss as a sum and a count. Means are never added, because that would weight targets unequally.

use burn::tensor::Tensor;

/// The sum of a loss over its terms, and the number of terms.
#[derive(Clone, Debug)]
pub struct LossSum {
    /// Sum over the terms, shape `[1]`.
    pub sum: Tensor<1>,
    /// Number of terms.
    pub count: u64,
}

impl LossSum {
    /// The sum of all terms, `[n]`.
    pub fn of(terms_n: Tensor<1>) -> Self {
        let count = terms_n.dims()[0] as u64;
        Self { sum: terms_n.sum(), count }
    }

    /// The sum with the model's auxiliary loss, such as the load balancing of a mixture of experts.
    ///
    /// `aux_loss` is a mean over the micro-batch of one forward pass, of which this sum has `n_terms` terms. It is added
    /// `n_terms` times, so its mean over a step weights micro-batches by their terms, like the loss.
    #[must_use]
    pub fn with_aux_loss(self, aux_loss: Option<Tensor<1>>, n_terms: u64) -> Self {
        let Some(aux_loss) = aux_loss else { return self };
        Self { sum: self.sum + aux_loss.mul_scalar(n_terms as f64), ..self }
    }

    /// This sum's share of the mean over `total` terms, those of the whole step. The shares of a step's micro-batches add up
    /// to its loss.
    pub fn mean_over(self, total: u64) -> Tensor<1> {
        self.sum.div_scalar(total.max(1) as f64)
    }

    /// The sum on the host; waits for the device.
    pub fn value(&self) -> f64 {
        f64::from(self.sum.clone().inner().into_scalar::<f32>())
    }
}
