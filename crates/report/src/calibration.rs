//! `calibration.json` of a stage: how often a reward model's choices are right, by the probability that it gives to them.

use serde::{Deserialize, Serialize};

/// Name of the file.
pub const CALIBRATION_FILE: &str = "calibration.json";

/// Choices of a reward model at its latest evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// Number of updates made before it.
    pub step: u64,
    /// Pairs by the probability that the model gives to its own choice, from 0.5 to 1.
    pub bins: Vec<CalibrationBin>,
}

/// Pairs to whose better answer the model gives about the same probability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CalibrationBin {
    /// Number of pairs.
    pub n: u64,
    /// Pairs in which the model's choice is the chosen text.
    pub n_right: u64,
    /// Sum of the probabilities that the model gives to its choices.
    #[serde(with = "fsio::any_number")]
    pub confidence_sum: f64,
}

impl CalibrationBin {
    /// Mean probability of the choices, and the share that is right; `None` without pairs.
    pub fn point(&self) -> Option<(f64, f64)> {
        let n = self.n as f64;
        let point = (self.confidence_sum / n, self.n_right as f64 / n);
        (self.n > 0 && point.0.is_finite()).then_some(point)
    }
}

impl Calibration {
    /// Number of pairs of all bins.
    pub fn n_pairs(&self) -> u64 {
        self.bins.iter().map(|bin| bin.n).fold(0, u64::saturating_add)
    }
}
