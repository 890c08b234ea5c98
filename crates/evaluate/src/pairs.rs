//! Scores of texts, and metrics of pairs: accuracy, margin, calibration.
//!
//! Training, evaluation and `temper score` all read scores with [`text_scores`]. The last token of a text is found by its
//! length, not by an id.
//!
//! Shape legend: b batch.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use data::Batch;
use model::{Auxiliary, ScalarModel};
use nn::TokenBatch;
use train::Collective;

use crate::{Error, Result};

/// Number of bins of the probability that a model gives to its own choice, from 0.5 to 1.
const BINS: usize = 10;

/// The score of each row of a batch, read at its last token: `[b]`.
pub fn text_scores(model: &ScalarModel, batch: &Batch, device: &Device) -> Tensor<1> {
    text_scores_and_auxiliary(model, batch, device).0
}

/// As [`text_scores`], with the model's auxiliary loss and the load of its experts.
pub fn text_scores_and_auxiliary(
    model: &ScalarModel,
    batch: &Batch,
    device: &Device,
) -> (Tensor<1>, Auxiliary) {
    let Batch { rows, sequence_length: t, ids, positions, segments, .. } = batch;
    let tokens = TokenBatch::new(ids, positions, segments, *rows, *t, device);
    let last: Vec<usize> =
        batch.lengths().into_iter().map(|length| length.saturating_sub(1)).collect();
    let output = model.forward(&tokens);
    (model.scores_of(&output, &last), output.auxiliary())
}

/// Metrics of pairs, as sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairMetrics {
    /// The number of pairs.
    pub n_pairs: u64,
    /// The number of pairs whose chosen text has the higher score.
    pub n_right: u64,
    /// Sum of −ln σ(chosen − rejected).
    pub loss_sum: f64,
    /// Sum of chosen − rejected.
    pub margin_sum: f64,
    /// Sum of all scores, two per pair.
    pub score_sum: f64,
    /// Sum of the squared scores.
    pub square_sum: f64,
    /// By the probability that the model gives to its choice: number of pairs, number of correct ones, sum of probabilities.
    bins: [(u64, u64, f64); BINS],
}

impl PairMetrics {
    /// Adds a pair's two scores.
    pub fn add(&mut self, chosen: f64, rejected: f64) {
        let margin = chosen - rejected;
        let right = u64::from(margin > 0.0);
        self.n_pairs += 1;
        self.n_right += right;
        // ln(1 + e^-m) without overflow on either side.
        self.loss_sum += (-margin).max(0.0) + (-margin.abs()).exp().ln_1p();
        self.margin_sum += margin;
        self.score_sum += chosen + rejected;
        self.square_sum += chosen * chosen + rejected * rejected;
        let confidence = 1.0 / (1.0 + (-margin.abs()).exp());
        let idx = (((confidence - 0.5) * 2.0 * BINS as f64) as usize).min(BINS - 1);
        if let Some((n, n_right, sum)) = self.bins.get_mut(idx) {
            *n += 1;
            *n_right += right;
            *sum += confidence;
        }
    }

    /// Sums the metrics over all replicas.
    pub fn sum_over_replicas(&mut self, replicas: &dyn Collective) -> train::Result<()> {
        let mut sums = vec![self.n_pairs as f64, self.n_right as f64];
        sums.extend([self.loss_sum, self.margin_sum, self.score_sum, self.square_sum]);
        sums.extend(self.bins.iter().flat_map(|(n, right, sum)| [*n as f64, *right as f64, *sum]));
        replicas.sums(&mut sums)?;
        let mut sums = sums.into_iter();
        let mut next = || sums.next().unwrap_or_default();
        (self.n_pairs, self.n_right) = (next() as u64, next() as u64);
        (self.loss_sum, self.margin_sum) = (next(), next());
        (self.score_sum, self.square_sum) = (next(), next());
        for bin in &mut self.bins {
            *bin = (next() as u64, next() as u64, next());
        }
        Ok(())
    }

    /// The share of pairs whose chosen text has the higher score; equal scores count as wrong.
    pub fn accuracy(&self) -> f64 {
        self.n_right as f64 / self.n_pairs as f64
    }

    /// Mean of chosen − rejected.
    pub fn margin(&self) -> f64 {
        self.margin_sum / self.n_pairs as f64
    }

    /// Mean of −ln σ(chosen − rejected).
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.n_pairs as f64
    }

    /// Mean and standard deviation of the scores of all texts.
    pub fn scores(&self) -> (f64, f64) {
        let n = 2.0 * self.n_pairs as f64;
        let mean = self.score_sum / n;
        (mean, (self.square_sum / n - mean * mean).max(0.0).sqrt())
    }

    /// The expected calibration error of σ(|margin|) over ten bins: Guo et al. 2017, "On Calibration of Modern Neural
    /// Networks", equation 3.
    pub fn calibration_error(&self) -> f64 {
        let gaps = self.bins.iter().map(|(_, n_right, sum)| (*n_right as f64 - sum).abs());
        gaps.sum::<f64>() / self.n_pairs as f64
    }

    /// Pairs by the probability that the model gives to its choice, from 0.5 to 1: number of pairs, number of correct ones, sum
    /// of the probabilities.
    pub fn bins(&self) -> &[(u64, u64, f64)] {
        &self.bins
    }

    /// The metrics by their names in logs.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (mean, std) = self.scores();
        let metrics = [
            ("accuracy", self.accuracy()),
            ("margin", self.margin()),
            ("calibration_error", self.calibration_error()),
            ("score_mean", mean),
            ("score_std", std),
        ];
        metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The metrics of the pairs of batches, whose rows alternate: chosen, rejected. No graph is built, even for a model in
/// training.
///
/// Errors: no pairs, or scores that are not finite.
pub fn pair_metrics(
    model: &ScalarModel,
    batches: impl IntoIterator<Item = Batch>,
    device: &Device,
) -> Result<PairMetrics> {
    let model = without_autodiff(model);
    let mut metrics = PairMetrics::default();
    for batch in batches {
        let scores = text_scores(&model, &batch.trimmed(), device);
        let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
        for pair in scores.chunks_exact(2) {
            metrics.add(f64::from(pair[0]), f64::from(pair[1]));
        }
    }
    if metrics.n_pairs == 0 {
        return Err(Error::NoPairs);
    }
    if !metrics.loss_sum.is_finite() {
        return Err(Error::NotFinite(metrics.loss()));
    }
    Ok(metrics)
}

/// The model on the same weights without a graph.
pub(crate) fn without_autodiff(model: &ScalarModel) -> ScalarModel {
    if model.score.weight.val().is_autodiff() { model.valid() } else { model.clone() }
}
