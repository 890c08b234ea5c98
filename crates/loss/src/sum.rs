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
