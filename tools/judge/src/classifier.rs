//! Logistic regression over sets of features, fitted with AdaGrad (Duchi et al. 2011) and balanced class weights.
//!
//! The order of the texts comes from a fixed seed, so the same texts give the same weights.

use std::collections::HashMap;

use seed::{Purpose, derive, shuffled_index};

use crate::features::Features;

/// Passes over the texts.
const EPOCHS: u64 = 5;
/// Learning rate of AdaGrad.
const LR: f64 = 0.1;
/// L2 penalty, applied to a weight whenever its feature occurs.
const WEIGHT_DECAY: f64 = 1e-4;

/// Binary classifier: better texts against worse ones.
#[derive(Clone, Debug)]
pub struct Classifier {
    features: Features,
    ids: HashMap<String, usize>,
    weights: Vec<f64>,
    bias: f64,
    /// Log-odds above which a text is classified as better.
    pub(crate) threshold: f64,
}

/// A weight and the sum of its squared gradients.
#[derive(Clone, Copy, Default)]
struct Adaptive {
    value: f64,
    squares: f64,
}

impl Adaptive {
    fn step(&mut self, gradient: f64) {
        self.squares += gradient * gradient;
        self.value += LR * gradient / (self.squares + 1e-8).sqrt();
    }
}

impl Classifier {
    /// Fits the classifier to (text, is better) pairs.
    pub fn fit(features: Features, texts: &[(&str, bool)]) -> Self {
        let mut ids = HashMap::new();
        let rows: Vec<(Vec<usize>, bool)> = texts
            .iter()
            .map(|(text, better)| {
                let of_text = features.of(text).into_iter();
                let row = of_text.map(|feature| {
                    let next = ids.len();
                    *ids.entry(feature).or_insert(next)
                });
                (row.collect(), *better)
            })
            .collect();
        let n_better = rows.iter().filter(|(_, better)| *better).count();
        // Balanced class weights: each class counts for half of the texts.
        let weigh = |n: usize| rows.len() as f64 / (2 * n.max(1)) as f64;
        let (of_better, of_worse) = (weigh(n_better), weigh(rows.len() - n_better));
        let mut weights = vec![Adaptive::default(); ids.len()];
        let mut bias = Adaptive::default();
        for epoch in 0..EPOCHS {
            let key = derive(0, "judge", Purpose::Shuffle, epoch, 0);
            for idx in 0..rows.len() as u64 {
                let at = shuffled_index(key, rows.len() as u64, idx) as usize;
                let Some((row, better)) = rows.get(at) else { continue };
                let sum: f64 = row.iter().filter_map(|id| weights.get(*id)).map(|w| w.value).sum();
                let probability = 1.0 / (1.0 + (-(bias.value + sum)).exp());
                let error =
                    if *better { (1.0 - probability) * of_better } else { -probability * of_worse };
                bias.step(error);
                for id in row {
                    if let Some(weight) = weights.get_mut(*id) {
                        weight.step(error - WEIGHT_DECAY * weight.value);
                    }
                }
            }
        }
        let weights = weights.into_iter().map(|weight| weight.value).collect();
        Self { features, ids, weights, bias: bias.value, threshold: 0.0 }
    }

    /// Log-odds that a text is better. Unknown features are ignored.
    pub fn log_odds(&self, text: &str) -> f64 {
        let of_text = self.features.of(text).into_iter();
        let known = of_text.filter_map(|feature| self.ids.get(&feature));
        self.bias + known.filter_map(|id| self.weights.get(*id)).sum::<f64>()
    }

    /// Whether a text is classified as better.
    pub fn is_better(&self, text: &str) -> bool {
        self.log_odds(text) > self.threshold
    }
}
