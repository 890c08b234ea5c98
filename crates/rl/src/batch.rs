//! Batches of episodes, and the log-probabilities, values and scores that models compute for them.
//!
//! Scoring and training call the same functions, so log-probabilities have one definition. Rows are padded on the right with
//! a separate segment; no result depends on the padding. Rows of groups may share their prompts
//! (`crates/rl/src/shared_prompts.rs`).

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kernels::LogProbs;
use model::{Auxiliary, CausalLm, ScalarModel};
use nn::TokenBatch;

use crate::reward_terms::RewardTerms;
use crate::rollout::{Rollout, Sampling};
use crate::settings::Conventions;
use crate::shared_prompts::SharedRows;

/// A batch of episodes with the positions at which models are evaluated.
pub(crate) struct EpisodeBatch {
    tokens: TokenBatch,
    /// Flat positions from which a token was sampled, in the order of episodes.
    predicting: Vec<i32>,
    /// The tokens sampled there.
    targets: Vec<i32>,
    /// Flat positions with a value, in the order of episodes.
    valued: Vec<i32>,
}

impl EpisodeBatch {
    pub(crate) fn new(
        episodes: &[&Rollout],
        conventions: Conventions,
        max_new_tokens: usize,
        device: &Device,
    ) -> Self {
        let rows: Vec<&[u32]> = episodes.iter().map(|episode| fed(episode, conventions)).collect();
        let (tokens, t) = padded(&rows, device);
        let (mut predicting, mut targets, mut valued) = (Vec::new(), Vec::new(), Vec::new());
        for (row, episode) in episodes.iter().enumerate() {
            let span = episode.span();
            // The first token of an answer is predicted at the prompt's last position.
            let first = (row * t + span.prompt - 1) as i32;
            let sampled = fed(episode, conventions).get(span.prompt..).unwrap_or_default();
            predicting.extend((first..).take(sampled.len()));
            targets.extend(sampled.iter().map(|id| *id as i32));
            valued.extend((first..).take(conventions.n_values(span.response, max_new_tokens)));
        }
        Self { tokens, predicting, targets, valued }
    }

    /// The batch of real tokens in which neighbours with the same prompt share it. It has no places of values.
    pub(crate) fn sharing_prompts(episodes: &[&Rollout], device: &Device) -> Self {
        let shared = SharedRows::new(episodes);
        let answers = episodes.iter().flat_map(|episode| episode.response());
        Self {
            tokens: shared.batch(device),
            targets: answers.map(|id| *id as i32).collect(),
            predicting: shared.predicting,
            valued: Vec::new(),
        }
    }

    /// log π(token | previous tokens) under the sampling distribution, and the entropy of π at that position: `[n]` each,
    /// in the order of episodes. Last, the model's own loss, for training, and the load of its experts.
    pub(crate) fn logprobs(
        &self,
        model: &CausalLm,
        sampling: &Sampling,
        conventions: Conventions,
    ) -> (LogProbs, Auxiliary) {
        let output = model.forward(&self.tokens);
        let auxiliary = output.auxiliary();
        let hidden_nd = pick(output.hidden_btd, &self.predicting);
        let device = self.tokens.ids_bt.device();
        let targets = TensorData::new(self.targets.clone(), [self.targets.len()]);
        let targets_n = Tensor::<1, Int>::from_data(targets, &device);
        let mut head = model.head();
        let [v, d] = head.weight_vd.dims();
        if let Some(n_ids) = sampling.vocab_size.filter(|n_ids| *n_ids < v) {
            head.weight_vd = head.weight_vd.into_tensor().slice([0..n_ids, 0..d]).into();
        }
        let temperature = conventions.temperature(sampling.temperature);
        (kernels::linear_logprobs(hidden_nd, head, targets_n, temperature), auxiliary)
    }

    /// The expected return at each position by the value model: `[n]`, in the order of episodes. Last, the model's own
    /// loss, for training.
    pub(crate) fn values(&self, model: &ScalarModel) -> (Tensor<1>, Option<Tensor<1>>) {
        let output = model.forward(&self.tokens);
        let hidden_nd = pick(output.hidden_btd, &self.valued);
        (model.score.forward(hidden_nd).reshape([self.valued.len()]), output.aux_loss)
    }
}

/// The reward model's score of each episode, at its last token.
pub(crate) fn scores(episodes: &[&Rollout], model: &ScalarModel, device: &Device) -> Vec<f32> {
    let rows: Vec<&[u32]> = episodes.iter().map(|episode| episode.episode()).collect();
    let (tokens, _) = padded(&rows, device);
    let last: Vec<usize> = rows.iter().map(|row| row.len() - 1).collect();
    kernels::with_host_values(&model.scores_at(&tokens, &last), <[f32]>::to_vec)
}

/// The score of each episode, in small batches and without autodiff.
pub fn scores_of(episodes: &[Rollout], terms: &RewardTerms<'_>, device: &Device) -> Vec<f32> {
    let of_models: Vec<Vec<f32>> =
        terms.models.iter().map(|model| model_scores(episodes, model, device)).collect();
    let score = |idx: usize| {
        let scores: Vec<f32> =
            of_models.iter().filter_map(|scores| scores.get(idx).copied()).collect();
        terms.sum(&scores, idx)
    };
    (0..episodes.len()).map(score).collect()
}

/// A reward model's score of each episode, in small batches and without autodiff.
pub(crate) fn model_scores(episodes: &[Rollout], model: &ScalarModel, device: &Device) -> Vec<f32> {
    const AT_ONCE: usize = 16;
    let model = valid(model);
    let chunks = episodes.chunks(AT_ONCE).map(|chunk| chunk.iter().collect::<Vec<_>>());
    chunks.flat_map(|chunk| scores(&chunk, &model, device)).collect()
}

/// The model without autodiff.
pub(crate) fn valid(model: &ScalarModel) -> ScalarModel {
    if model.score.weight.val().is_autodiff() { model.valid() } else { model.clone() }
}

/// Number of tokens of an episode with a log-probability, including those after its end.
pub(crate) fn n_predicted(episode: &Rollout, conventions: Conventions) -> usize {
    fed(episode, conventions).len() - episode.span().prompt
}

/// The input ids of policy, reference and value model.
fn fed(episode: &Rollout, conventions: Conventions) -> &[u32] {
    match conventions {
        Conventions::RealTokens => episode.episode(),
        Conventions::Trl => episode.ids(),
    }
}

/// Rows padded to the longest, and its length.
fn padded(rows: &[&[u32]], device: &Device) -> (TokenBatch, usize) {
    let t = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for row in rows {
        ids.extend_from_slice(row);
        ids.resize(mask.len() + t, 0);
        mask.extend((0..t).map(|at| at < row.len()));
    }
    (TokenBatch::padded(&ids, &mask, rows.len(), device), t)
}

/// The hidden states at flat positions, `[n, d]`.
fn pick(hidden_btd: Tensor<3>, positions: &[i32]) -> Tensor<2> {
    let device = hidden_btd.device().inner();
    let positions = TensorData::new(positions.to_vec(), [positions.len()]);
    hidden_btd.flatten::<2>(0, 1).select(0, Tensor::<1, Int>::from_data(positions, &device))
}
