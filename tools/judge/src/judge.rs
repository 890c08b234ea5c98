//! The judge: a classifier with the threshold of equal accuracy on both classes, and that accuracy.
//!
//! Threshold and accuracy come from cross-validation, never from texts that the classifier was fitted to.

use std::collections::HashSet;

use data::SourceSpec;
use serde::Serialize;

use crate::classifier::Classifier;
use crate::error::{Error, Result};
use crate::features::Features;

/// Folds of the cross-validation.
const N_FOLDS: usize = 5;
/// Minimum number of texts per class.
const FEWEST: usize = 20;

/// A fitted judge.
#[derive(Clone, Debug)]
pub struct Judge {
    classifier: Classifier,
    /// Size of the data and cross-validated accuracy.
    pub measured: Measured,
}

/// Size of a judge's data and its cross-validated accuracy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Number of better texts.
    pub chosen: usize,
    /// Number of worse texts.
    pub rejected: usize,
    /// Accuracy on better texts.
    pub right_on_chosen: f64,
    /// Accuracy on worse texts.
    pub right_on_rejected: f64,
}

/// Distinct labelled texts of `rows` that do not occur in `seen`, as (text, is better) pairs.
///
/// Both sources have the same `pairs`. `seen` is the reward model's data, including its validation set.
pub fn unseen(rows: &SourceSpec, seen: &SourceSpec) -> Result<Vec<(String, bool)>> {
    let mut known = HashSet::new();
    for row in data::labelled_texts(seen)? {
        known.insert(row?.text);
    }
    let mut texts = Vec::new();
    for row in data::labelled_texts(rows)? {
        let row = row?;
        if known.insert(row.text.clone()) {
            texts.push((row.text, row.chosen));
        }
    }
    Ok(texts)
}

impl Judge {
    /// Fits a judge and cross-validates it.
    pub fn new(features: Features, texts: &[(String, bool)]) -> Result<Self> {
        let texts: Vec<(&str, bool)> = texts.iter().map(|(text, b)| (text.as_str(), *b)).collect();
        let chosen = texts.iter().filter(|(_, better)| *better).count();
        let rejected = texts.len() - chosen;
        if chosen.min(rejected) < FEWEST {
            return Err(Error::TooFew { chosen, rejected });
        }
        let mut odds: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for fold in 0..N_FOLDS {
            let in_fold = |idx: usize| idx % N_FOLDS == fold;
            let others = texts.iter().enumerate().filter(|(idx, _)| !in_fold(*idx));
            let others: Vec<(&str, bool)> = others.map(|(_, text)| *text).collect();
            let classifier = Classifier::fit(features, &others);
            for (text, better) in texts.iter().skip(fold).step_by(N_FOLDS) {
                odds[usize::from(*better)].push(classifier.log_odds(text));
            }
        }
        let [worse, better] = odds;
        let threshold = even_threshold(&worse, &better);
        let share = |n: usize, of: usize| n as f64 / of as f64;
        let measured = Measured {
            chosen,
            rejected,
            right_on_chosen: share(better.iter().filter(|z| **z > threshold).count(), chosen),
            right_on_rejected: share(worse.iter().filter(|z| **z <= threshold).count(), rejected),
        };
        let mut classifier = Classifier::fit(features, &texts);
        classifier.threshold = threshold;
        Ok(Self { classifier, measured })
    }

    /// Whether a text is classified as better.
    pub fn is_better(&self, text: &str) -> bool {
        self.classifier.is_better(text)
    }
}

/// The threshold at which both classes have the same accuracy.
fn even_threshold(worse: &[f64], better: &[f64]) -> f64 {
    let sorted = |odds: &[f64]| {
        let mut odds = odds.to_vec();
        odds.sort_by(f64::total_cmp);
        odds
    };
    let (worse, better) = (sorted(worse), sorted(better));
    let below = |odds: &[f64], z: f64| odds.partition_point(|x| *x <= z) as f64 / odds.len() as f64;
    // With a rising threshold, accuracy on worse texts rises and accuracy on better texts falls.
    let mut candidates = worse.iter().chain(&better).copied().collect::<Vec<f64>>();
    candidates.sort_by(f64::total_cmp);
    let at = candidates.partition_point(|z| below(&worse, *z) + below(&better, *z) < 1.0);
    candidates.get(at).copied().unwrap_or(0.0)
}
