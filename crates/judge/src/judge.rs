//! A judge: a classifier, the threshold at which it is right equally often on both sides, and how often that is.
//!
//! It deliberately measures itself on texts that it was not fitted to, part by part.

use std::collections::HashSet;

use data::SourceSpec;
use serde::Serialize;

use crate::classifier::Classifier;
use crate::error::{Error, Result};
use crate::features::Features;

/// Parts of the texts, each judged by a classifier that was fitted to the others.
const PARTS: usize = 5;
/// The fewest texts of a side.
const FEWEST: usize = 20;

/// A judge that is ready.
#[derive(Clone, Debug)]
pub struct Judge {
    classifier: Classifier,
    /// What it was fitted to, and how good it is.
    pub measured: Measured,
}

/// What a judge was fitted to, and how good it is on texts that it was not fitted to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Better texts.
    pub chosen: usize,
    /// Worse texts.
    pub rejected: usize,
    /// The share of better texts that it finds better.
    pub right_on_chosen: f64,
    /// The share of worse texts that it finds worse.
    pub right_on_rejected: f64,
}

/// Labelled texts of `rows` that do not stand in `seen`, each once, with whether it is one of the better ones.
///
/// Both sources have the same `pairs`; `seen` is what the reward model could learn from, held-out rows included.
pub fn unseen(rows: &SourceSpec, seen: &SourceSpec) -> Result<Vec<(String, bool)>> {
    let mut known = HashSet::new();
    for row in data::labelled(seen)? {
        known.insert(row?.text);
    }
    let mut texts = Vec::new();
    for row in data::labelled(rows)? {
        let row = row?;
        if known.insert(row.text.clone()) {
            texts.push((row.text, row.chosen));
        }
    }
    Ok(texts)
}

impl Judge {
    /// Fits a judge and measures it.
    pub fn new(features: Features, texts: &[(String, bool)]) -> Result<Self> {
        let texts: Vec<(&str, bool)> = texts.iter().map(|(text, b)| (text.as_str(), *b)).collect();
        let chosen = texts.iter().filter(|(_, better)| *better).count();
        let rejected = texts.len() - chosen;
        if chosen.min(rejected) < FEWEST {
            return Err(Error::TooFew { chosen, rejected });
        }
        let mut odds: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for part in 0..PARTS {
            let in_part = |idx: usize| idx % PARTS == part;
            let others = texts.iter().enumerate().filter(|(idx, _)| !in_part(*idx));
            let others: Vec<(&str, bool)> = others.map(|(_, text)| *text).collect();
            let classifier = Classifier::fit(features, &others);
            for (text, better) in texts.iter().skip(part).step_by(PARTS) {
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

    /// Whether a text counts as one of the better ones.
    pub fn is_better(&self, text: &str) -> bool {
        self.classifier.is_better(text)
    }
}

/// The threshold at which as large a share of the worse texts lies below as of the better ones above.
fn even_threshold(worse: &[f64], better: &[f64]) -> f64 {
    let sorted = |odds: &[f64]| {
        let mut odds = odds.to_vec();
        odds.sort_by(f64::total_cmp);
        odds
    };
    let (worse, better) = (sorted(worse), sorted(better));
    let below = |odds: &[f64], z: f64| odds.partition_point(|x| *x <= z) as f64 / odds.len() as f64;
    // From below, the share of worse texts that are right rises and that of better ones falls.
    let mut candidates = worse.iter().chain(&better).copied().collect::<Vec<f64>>();
    candidates.sort_by(f64::total_cmp);
    let at = candidates.partition_point(|z| below(&worse, *z) + below(&better, *z) < 1.0);
    candidates.get(at).copied().unwrap_or(0.0)
}
