//! The result of a stage in a few words.

use std::fmt;

use serde_json::Value;

use crate::metrics::{Metrics, Phase, Series};
use crate::numbers::value;
use crate::run::number;
use crate::stage::StageData;

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

/// The evaluation of a stage that counts: of the weights in `model/` if it is finished, or else the latest one. `metric` is the
/// metric of the recipe, if it names one.
pub fn final_validation(stage: &StageData, metric: Option<&str>) -> Option<LastValidation> {
    let series = metric.and_then(|name| stage.metrics.get(Phase::Validation, name));
    let of_metric = series.and_then(Series::last).map(|last| LastValidation {
        step: last.step,
        metric: metric.unwrap_or_default().to_owned(),
        value: last.value,
    });
    let last = of_metric.or_else(|| last_validation(&stage.metrics))?;
    let Some(finished) = &stage.finished else { return Some(last) };
    let exported = finished.result.get(&last.metric).and_then(Value::as_f64);
    Some(match exported {
        Some(value) => LastValidation { step: finished.exported_step, value, ..last },
        None => last,
    })
}

/// Whether a larger value of a metric of evaluations is a better one.
pub fn higher_is_better(metric: &str) -> bool {
    !["loss", "perplexity", "bits_per_byte"].iter().any(|ending| metric.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{final_validation, headline, higher_is_better};
    use crate::metrics::{Metrics, Phase, Point, Series};
    use crate::stage::{FinishedFile, StageData};

    #[test]
    fn the_validation_of_a_finished_stage_is_that_of_its_model() {
        let series = |name: &str, values: [f64; 2]| Series {
            phase: Phase::Validation,
            name: name.to_owned(),
            points: vec![
                Point { step: 10, value: values[0] },
                Point { step: 20, value: values[1] },
            ],
        };
        let series = vec![series("eval_loss", [2.0, 3.0]), series("task/a/acc", [0.5, 0.25])];
        let metrics = Metrics { series, ..Metrics::default() };
        let running = StageData { metrics, ..StageData::default() };
        let text = |stage: &StageData, metric| {
            final_validation(stage, metric).map(|of| format!("{of} at {}", of.step))
        };
        assert_eq!(text(&running, None).as_deref(), Some("loss 3.000 at 20"));
        assert_eq!(text(&running, Some("task/a/acc")).as_deref(), Some("a/acc 0.2500 at 20"));
        let result = json!({"eval_loss": 2.0, "task/a/acc": 0.5});
        let finished = FinishedFile { steps: 20, exported_step: 10, result, ..Default::default() };
        let finished = StageData { finished: Some(finished), ..running };
        assert_eq!(text(&finished, None).as_deref(), Some("loss 2.000 at 10"));
        assert_eq!(text(&finished, Some("task/a/acc")).as_deref(), Some("a/acc 0.5000 at 10"));
        assert!(final_validation(&StageData::default(), None).is_none());
        assert!(higher_is_better("accuracy") && !higher_is_better("task/w/word_perplexity"));
    }

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
