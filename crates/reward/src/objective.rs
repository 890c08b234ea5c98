//! The loss of a reward model on pairs, with margin and centering.
//!
//! Shape legend: p pairs, b texts (2 × p, chosen and rejected alternating).

use burn::tensor::Tensor;
use loss::{LossSum, pairwise_reward, reward_centering};
use recipe::RewardSection;

/// The coefficients of the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Objective {
    /// The margin by which the chosen score must exceed the rejected one.
    pub margin: f64,
    /// Coefficient of the squared sum of a pair's scores.
    pub centering: f64,
}

impl Objective {
    /// The coefficients of a recipe's section.
    pub fn of(section: &RewardSection) -> Self {
        Self { margin: section.margin, centering: section.centering }
    }

    /// The mean loss of pairs with equal scores: −ln σ(−m).
    pub fn loss_of_equal_scores(self, margins: &[f32]) -> f64 {
        let loss = |margin: f64| (self.margin + margin).exp().ln_1p();
        if margins.is_empty() {
            return loss(0.0);
        }
        margins.iter().map(|margin| loss(f64::from(*margin))).sum::<f64>() / margins.len() as f64
    }

    /// The total margin of each pair; `None` if all are 0.
    fn margins(self, of_pairs: &[f32], n_pairs: usize) -> Option<Vec<f32>> {
        if of_pairs.is_empty() {
            return (self.margin > 0.0).then(|| vec![self.margin as f32; n_pairs]);
        }
        Some(of_pairs.iter().map(|margin| margin + self.margin as f32).collect())
    }

    /// The summed loss of the pairs of scores `[b]`.
    ///
    /// `margins` has one margin for each pair, added to the section's own (Touvron et al. 2023, "Llama 2", equation 2), or
    /// is empty.
    pub fn loss(self, scores_b: Tensor<1>, margins: &[f32]) -> LossSum {
        let n_pairs = scores_b.dims()[0] / 2;
        let scores_p2 = scores_b.reshape([n_pairs, 2]);
        let side_p =
            |idx: usize| scores_p2.clone().slice([0..n_pairs, idx..idx + 1]).reshape([n_pairs]);
        let (chosen_p, rejected_p) = (side_p(0), side_p(1));
        let margin_p = self
            .margins(margins, n_pairs)
            .map(|margins| Tensor::<1>::from_data(margins.as_slice(), &chosen_p.device()));
        let pairs = pairwise_reward(chosen_p.clone(), rejected_p.clone(), margin_p);
        if self.centering == 0.0 {
            return pairs;
        }
        let centred = reward_centering(chosen_p, rejected_p).sum.mul_scalar(self.centering);
        LossSum { sum: pairs.sum + centred, count: pairs.count }
    }
}
