//! Terms of an episode's score: reward models and rewards that were computed before.

use model::ScalarModel;

/// The rewards of a set of episodes. The score of an episode is the weighted sum of the models' scores plus its stated reward.
#[derive(Clone, Copy, Debug)]
pub struct RewardTerms<'r> {
    /// Reward models.
    pub models: &'r [ScalarModel],
    /// Factor of each model's score.
    pub weights: &'r [f32],
    /// Sum of the other weighted rewards, one for each episode; NaN for one without any reward.
    pub stated: Option<&'r [f32]>,
}

impl RewardTerms<'_> {
    /// Whether an episode has no reward at all: a judge or a program gave no value, and nothing else scores it.
    pub(crate) fn is_missing(&self, idx: usize) -> bool {
        let stated = self.stated.and_then(|stated| stated.get(idx));
        self.models.is_empty() && stated.is_some_and(|stated| stated.is_nan())
    }

    /// The score of an episode.
    pub(crate) fn sum(&self, model_scores: &[f32], idx: usize) -> f32 {
        // Without a weight other than 1 a single model's score keeps its bits.
        let terms = model_scores.iter().zip(self.weights).map(|(score, weight)| weight * score);
        let models = terms.reduce(|sum, term| sum + term);
        let stated = self.stated.map(|stated| stated.get(idx).copied().unwrap_or(f32::NAN));
        match (models, stated) {
            (Some(models), Some(stated)) => models + stated,
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => f32::NAN,
        }
    }
}

impl<'r> From<&'r ScalarModel> for RewardTerms<'r> {
    fn from(model: &'r ScalarModel) -> Self {
        Self { models: std::slice::from_ref(model), weights: &[1.0], stated: None }
    }
}
