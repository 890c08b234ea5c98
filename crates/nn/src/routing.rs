//! Routing of tokens to experts: probabilities, choice, and the order in which experts compute.
//!
//! Shape legend: n tokens, e experts, j experts of a token, m pairs of a token and one of its experts, d width.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};

/// The experts of each token, and the tokens of each expert.
///
/// Tokens that are padding are sent to no expert.
#[derive(Clone, Debug)]
pub struct Routing {
    /// Probabilities of all experts, `[n, e]`.
    pub probs_ne: Tensor<2>,
    /// The tokens of each expert, in rising order.
    pub tokens_of_expert: Vec<Vec<i32>>,
    /// Number of tokens that are not padding.
    pub n_real: usize,
    /// Factor of each of a token's experts, `[n, j]`.
    weights_nj: Tensor<2>,
    /// For each token and each of its experts, the row among the outputs of all experts, one after the other.
    rows_nj: Vec<i32>,
}

impl Routing {
    /// Sends each token to the `n_chosen` experts of highest probability (Shazeer et al. 2017, section 2.1; the softmax is
    /// taken before the choice). Equal probabilities: the expert with the lower number.
    ///
    /// If `normalizes`, the factors of a token's experts are divided by their sum. `is_real` tells tokens from padding.
    ///
    /// # Panics
    /// If `is_real` has another length than n, or there are fewer than `n_chosen` experts.
    pub fn new(logits_ne: Tensor<2>, n_chosen: usize, normalizes: bool, is_real: &[bool]) -> Self {
        let [n, e] = logits_ne.dims();
        assert!(is_real.len() == n && n_chosen <= e, "{n} tokens, {n_chosen} of {e} experts");
        let device = logits_ne.device().inner();
        let probs_ne = activation::softmax(logits_ne, 1);
        let chosen_nj = kernels::with_host_values(&probs_ne, |probs| {
            probs.chunks(e).flat_map(|row| largest(row, n_chosen)).collect::<Vec<i32>>()
        });
        let (tokens_of_expert, rows_nj) = order(&chosen_nj, n_chosen, e, is_real);
        let chosen = TensorData::new(chosen_nj, [n, n_chosen]);
        let chosen_nj = Tensor::<2, Int>::from_data(chosen, &device);
        let weights_nj = probs_ne.clone().gather(1, chosen_nj);
        let weights_nj =
            if normalizes { weights_nj.clone() / weights_nj.sum_dim(1) } else { weights_nj };
        let n_real = is_real.iter().filter(|real| **real).count();
        Self { probs_ne, tokens_of_expert, n_real, weights_nj, rows_nj }
    }

    /// The weighted sum of each token's experts: `[1, n, d]` of tokens `x_1nd`. `expert` computes the output of one expert,
    /// given its number, for its tokens, `[1, tokens, d]`. An expert without tokens is not called.
    pub fn combine(
        &self,
        x_nd: &Tensor<2>,
        mut expert: impl FnMut(usize, Tensor<3>) -> Tensor<3>,
    ) -> Tensor<2> {
        let ([n, d], [_, n_chosen]) = (x_nd.dims(), self.weights_nj.dims());
        let device = x_nd.device();
        let mut outputs = Vec::new();
        for (number, tokens) in self.tokens_of_expert.iter().enumerate() {
            if tokens.is_empty() {
                continue;
            }
            let x_1md = x_nd.clone().select(0, indices(tokens, &device)).unsqueeze();
            outputs.push(expert(number, x_1md).reshape([tokens.len(), d]));
        }
        // The last row is that of padding.
        outputs.push(Tensor::zeros([1, d], &device));
        let outputs_md = Tensor::cat(outputs, 0);
        let of_tokens = outputs_md.select(0, indices(&self.rows_nj, &device));
        let weights = self.weights_nj.clone().reshape([n, n_chosen, 1]);
        (of_tokens.reshape([n, n_chosen, d]) * weights).sum_dim(1).reshape([n, d])
    }

    /// The sum of the probabilities over all tokens but padding, `[e]`.
    pub fn sum_of_probs(&self, is_real: &[bool]) -> Tensor<1> {
        let [n, e] = self.probs_ne.dims();
        let mask: Vec<f32> = is_real.iter().map(|real| f32::from(u8::from(*real))).collect();
        let device = self.probs_ne.device().inner();
        let mask_n1 = Tensor::<2>::from_data(TensorData::new(mask, [n, 1]), &device);
        (self.probs_ne.clone() * mask_n1).sum_dim(0).reshape([e])
    }
}

fn indices(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &device.clone().inner())
}

/// The numbers of the `n` largest values, the largest first.
fn largest(values: &[f32], n: usize) -> Vec<i32> {
    let mut numbers: Vec<usize> = (0..values.len()).collect();
    // NaN is smaller than anything: a model that has diverged is stopped by the check of its loss.
    let by_value = |a: &usize, b: &usize| {
        let (a, b) = (values[*a], values[*b]);
        b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    };
    numbers.sort_by(by_value);
    numbers.truncate(n);
    numbers.into_iter().map(|number| number as i32).collect()
}

/// The tokens of each expert; and for each token and each of its experts, the row among the outputs of all experts. The row
/// after the last belongs to padding.
fn order(
    chosen_nj: &[i32],
    n_chosen: usize,
    n_experts: usize,
    is_real: &[bool],
) -> (Vec<Vec<i32>>, Vec<i32>) {
    let mut tokens_of_expert = vec![Vec::new(); n_experts];
    let mut places = Vec::with_capacity(chosen_nj.len());
    for (token, (chosen, real)) in chosen_nj.chunks(n_chosen).zip(is_real).enumerate() {
        for &expert in chosen {
            let tokens = &mut tokens_of_expert[expert as usize];
            places.push(real.then_some((expert as usize, tokens.len())));
            if *real {
                tokens.push(token as i32);
            }
        }
    }
    let mut start = 0;
    let mut starts = Vec::with_capacity(n_experts);
    for tokens in &tokens_of_expert {
        starts.push(start);
        start += tokens.len();
    }
    let row = |place: Option<(usize, usize)>| match place {
        Some((expert, idx)) => (starts[expert] + idx) as i32,
        None => start as i32,
    };
    let rows = places.into_iter().map(row).collect();
    (tokens_of_expert, rows)
}

#[cfg(test)]
mod tests {
    use super::{largest, order};

    #[test]
    fn the_largest_first_and_the_lower_number_of_equals() {
        assert_eq!(largest(&[0.1, 0.4, 0.3, 0.4], 3), [1, 3, 2]);
        assert_eq!(largest(&[f32::NAN, 0.4, f32::NAN], 2), [1, 0]);
    }

    #[test]
    fn tokens_are_ordered_by_expert() {
        // Three tokens with two of four experts each; the second is padding.
        let chosen = [2, 0, 1, 3, 0, 3];
        let (tokens, rows) = order(&chosen, 2, 4, &[true, false, true]);
        assert_eq!(tokens, [vec![0, 2], vec![], vec![0], vec![2]]);
        assert_eq!(rows, [2, 0, 4, 4, 1, 3]);
    }
}
