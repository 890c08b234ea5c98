//! The result of a stage in a few words.

use std::fmt;

use serde_json::Value;

use crate::metrics::{Metrics, Phase};
use crate::numbers::value;
use crate::run::number;

/// The result of a finished stage, with its value before training where that was measured: `loss 4.12`, `reward −0.2 → 2.9`.
/// `None` if nothing was measured.
pub fn headline(result: &Value) -> Option<String> {
    let change = |name: &str, pointer: &str| {
        let after = number(result, &format!("/{pointer}"))?;
        let before = number(result, &format!("/before/{pointer}"));
        let before = before.map(|before| format!("{} → ", value(before))).unwrap_or_default();
        Some(format!("{name} {before}{}", value(after)))
    };
    if let Some(score) = change("score", "score") {
        let kl = number(result, "/kl").map(|kl| format!(", KL {}", value(kl)));
        return Some(score + &kl.unwrap_or_default());
    }
    if let Some(reward) = change("reward", "reward") {
        return Some(reward);
    }
    if let Some(accuracy) = number(result, "/accuracy") {
        // Where all margins were 0, as those of a policy from its reference, there was no accuracy.
        let had_margins = number(result, "/before/margin").is_some_and(|margin| margin != 0.0);
        let before = number(result, "/before/accuracy").filter(|_| had_margins);
        let before = before.map(|share| format!("{:.1} → ", 100.0 * share)).unwrap_or_default();
        return Some(format!("accuracy {before}{:.1} %", 100.0 * accuracy));
    }
    if let Some(loss) = change("validation loss", "eval_loss") {
        let bits = number(result, "/bits_per_byte").map(|bits| format!(" ({bits:.3} bits/byte)"));
        return Some(loss + &bits.unwrap_or_default());
    }
    let tasks = result.as_object()?.iter();
    let (name, score) = tasks
        .filter(|(name, _)| name.starts_with("task/"))
        .find_map(|(name, score)| Some((name, score.as_f64()?)))?;
    Some(format!("{} {}", name.trim_start_matches("task/"), value(score)))
}

/// The metric of the latest evaluation that matters most.
#[derive(Clone, Debug, PartialEq)]
pub struct LastValidation {
    /// Number of updates made before it.
    pub step: u64,
    /// Name in metrics.jsonl.
    pub metric: String,
    /// Value.
    pub value: f64,
}

impl fmt::Display for LastValidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.metric.as_str() {
            "eval_loss" => "loss",
            name => name.trim_start_matches("task/"),
        };
        write!(f, "{name} {}", value(self.value))
    }
}

/// The latest evaluation of a stage.
pub fn last_validation(metrics: &Metrics) -> Option<LastValidation> {
    let known = ["score", "reward", "accuracy", "eval_loss"];
    let known = known.iter().find_map(|name| metrics.get(Phase::Validation, name));
    let of_task = || metrics.of_phase(Phase::Validation).find(|of| of.name.starts_with("task/"));
    let series = known.or_else(of_task)?;
    let last = series.last()?;
    Some(LastValidation { step: last.step, metric: series.name.clone(), value: last.value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::headline;

    #[test]
    fn results_of_all_kinds_have_a_headline() {
        let of = |result| headline(&result).unwrap_or_default();
        assert_eq!(
            of(json!({"eval_loss": 4.1, "bits_per_byte": 1.25})),
            "validation loss 4.100 (1.250 bits/byte)"
        );
        assert_eq!(
            of(json!({"score": 2.9, "kl": 6.0, "before": {"score": -0.2}})),
            "score −0.2000 → 2.900, KL 6.000"
        );
        assert_eq!(of(json!({"accuracy": 0.901, "margin": 2.0})), "accuracy 90.1 %");
        let before = json!({"accuracy": 0.5, "margin": 0.1});
        assert_eq!(of(json!({"accuracy": 0.75, "before": before})), "accuracy 50.0 → 75.0 %");
        assert_eq!(of(json!({"task/arc_easy/acc": 0.5})), "arc_easy/acc 0.5000");
        assert_eq!(headline(&json!(null)), None);
        assert_eq!(headline(&json!({"eval_loss": "x"})), None);
    }
}
