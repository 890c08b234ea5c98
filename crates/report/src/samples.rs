//! Generated texts of a stage, from samples.jsonl.

use serde_json::{Map, Value};

/// A text that the model generated at a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Number of updates made before it.
    pub step: u64,
    /// Prompt.
    pub prompt: String,
    /// Generated text.
    pub text: String,
    /// Text from the same prompt before the first update.
    pub before: Option<String>,
    /// Score of the reward model, or the reward.
    pub score: Option<f64>,
}

impl Sample {
    pub(crate) fn of(row: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            step: row.get("step").and_then(Value::as_u64)?,
            prompt: text("prompt").unwrap_or_default(),
            text: text("text")?,
            before: text("before"),
            score: row.get("score").and_then(Value::as_f64),
        })
    }
}

/// The samples of each prompt in the order of their steps; prompts in the order of their first sample.
pub(crate) fn by_prompt(samples: &[Sample]) -> Vec<Vec<&Sample>> {
    let mut groups: Vec<Vec<&Sample>> = Vec::new();
    for sample in samples {
        let same = |group: &&mut Vec<&Sample>| {
            group.first().is_some_and(|first| first.prompt == sample.prompt)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(sample),
            None => groups.push(vec![sample]),
        }
    }
    for group in &mut groups {
        group.sort_by_key(|sample| sample.step);
    }
    groups
}
