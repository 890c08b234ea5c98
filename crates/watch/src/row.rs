//! Rows of metrics.jsonl as named numbers.

use std::collections::BTreeMap;

use serde_json::Value;

/// An update or an evaluation: its step and its metrics by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Number of updates made.
    pub step: u64,
    /// Whether it is an evaluation.
    pub is_eval: bool,
    /// The metrics that are numbers. A value that was not finite is missing, because JSON has none.
    pub values: BTreeMap<String, f64>,
}

impl Row {
    /// The row of a JSON object; `None` if it is not one, or has no step.
    pub fn of(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let step = object.get("step")?.as_u64()?;
        let numbers = object.iter().filter(|(name, _)| name.as_str() != "step");
        let values: BTreeMap<String, f64> =
            numbers.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
        // Every update has a learning rate, and no evaluation has one.
        Some(Self { step, is_eval: !values.contains_key("lr"), values })
    }

    /// The row of a line of the file.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        Self::of(&serde_json::from_str(line).ok()?)
    }

    /// The first of these metrics that the row has.
    pub fn first_of(&self, names: &[&str]) -> Option<f64> {
        names.iter().find_map(|name| self.values.get(*name).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::Row;

    #[test]
    fn updates_and_evaluations_are_told_apart() {
        let update = Row::of_line(r#"{"step":3,"loss":null,"lr":1e-3,"tokens":9}"#).unwrap();
        assert!(!update.is_eval);
        assert_eq!((update.step, update.first_of(&["loss", "lr"])), (3, Some(1e-3)));
        let eval = Row::of_line(r#"{"step":3,"eval_loss":2.5,"n_targets":7}"#).unwrap();
        assert!(eval.is_eval);
        for broken in ["", "3", r#"{"step":-1}"#, r#"{"loss":1}"#, r#"{"step":3,"lo"#] {
            assert_eq!(Row::of_line(broken), None, "{broken}");
        }
    }
}
