//! Terms of an episode's score: a reward model and rewards that were computed from the text.

use model::ScalarModel;

/// The rewards of a set of episodes. The score of an episode is `weight` times the model's score plus its stated reward.
#[derive(Clone, Copy, Debug)]
pub struct RewardTerms<'r> {
    /// Reward model.
    pub model: Option<&'r ScalarModel>,
    /// Factor of the model's score.
    pub weight: f32,
    /// Sum of the other weighted rewards, one for each episode.
    pub stated: Option<&'r [f32]>,
}

impl RewardTerms<'_> {
    /// The score of an episode.
    pub(crate) fn sum(&self, model_score: Option<f32>, idx: usize) -> f32 {
        // Without a weight other than 1 the model's score keeps its bits.
        let model = model_score.map(|score| self.weight * score);
        let stated = self.stated.map(|stated| stated.get(idx).copied().unwrap_or(f32::NAN));
        match (model, stated) {
            (Some(model), Some(stated)) => model + stated,
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => f32::NAN,
        }
    }
}

impl<'r> From<&'r ScalarModel> for RewardTerms<'r> {
    fn from(model: &'r ScalarModel) -> Self {
        Self { model: Some(model), weight: 1.0, stated: None }
    }
}
