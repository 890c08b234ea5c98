//! Names of metrics in other programs: those that TRL logs, grouped as transformers does it for TensorBoard.

use serde_json::{Map, Value};

/// A row of metrics.jsonl for other programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Values {
    /// Number of updates made.
    pub(crate) step: u64,
    /// Values by their names, such as `train/loss`.
    pub(crate) values: Vec<(String, f64)>,
}

impl Values {
    /// The values of a row, and the epoch of an update in a stage of `epochs` in `max_steps`. `None` if the row has no step.
    pub(crate) fn of(row: &Map<String, Value>, epochs: f64, max_steps: u64) -> Option<Self> {
        let step = row.get("step")?.as_u64()?;
        // Every update has a learning rate, and no evaluation has one.
        let is_update = row.contains_key("lr");
        let is_of_pairs = row.contains_key("eval_rewards/chosen");
        let numbers = row.iter().filter(|(name, _)| *name != "step");
        let values = numbers.filter_map(|(name, value)| {
            let name = if is_update { of_update(name) } else { of_evaluation(name, is_of_pairs) };
            // A value that was not finite is null.
            Some((name, value.as_f64()?))
        });
        let epoch = epochs * step as f64 / max_steps.max(1) as f64;
        let epoch = (is_update && epochs > 0.0).then(|| ("train/epoch".to_owned(), epoch));
        Some(Self { step, values: values.chain(epoch).collect() })
    }
}

fn of_update(name: &str) -> String {
    let name = match name {
        "lr" => "learning_rate",
        "tokens" => "num_tokens",
        other => other,
    };
    format!("train/{name}")
}

fn of_evaluation(name: &str, is_of_pairs: bool) -> String {
    let name = match name {
        "accuracy" if is_of_pairs => "rewards/accuracies",
        "margin" if is_of_pairs => "rewards/margins",
        other => other.strip_prefix("eval_").unwrap_or(other),
    };
    format!("eval/{name}")
}

#[cfg(test)]
mod tests {
    use super::Values;

    fn names(row: &str) -> Vec<String> {
        let row = serde_json::from_str(row).unwrap();
        let values = Values::of(&row, 2.0, 8).unwrap();
        let mut names: Vec<String> =
            values.values.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        names.sort();
        names
    }

    /// `rewrite_logs` of transformers 5.23 with the names of TRL 1.12: `eval_` becomes a group, all else is `train/`.
    #[test]
    fn names_are_those_of_trl() {
        let row = r#"{"step":4,"loss":2.5,"grad_norm":null,"lr":0.5,"tokens":9,"rewards/margins":1.5,"objective/kl":3}"#;
        assert_eq!(
            names(row),
            [
                "train/epoch 1",
                "train/learning_rate 0.5",
                "train/loss 2.5",
                "train/num_tokens 9",
                "train/objective/kl 3",
                "train/rewards/margins 1.5"
            ]
        );
        let row = r#"{"step":4,"eval_loss":2.5,"n_targets":7,"accuracy":0.75,"margin":1,"eval_rewards/chosen":3}"#;
        assert_eq!(
            names(row),
            [
                "eval/loss 2.5",
                "eval/n_targets 7",
                "eval/rewards/accuracies 0.75",
                "eval/rewards/chosen 3",
                "eval/rewards/margins 1"
            ]
        );
        // A reward model's are TRL's as they are.
        assert_eq!(names(r#"{"step":4,"accuracy":0.75}"#), ["eval/accuracy 0.75"]);
    }
}
