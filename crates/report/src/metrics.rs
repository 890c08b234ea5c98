//! Metrics of a stage as series of points, from the rows of metrics.jsonl.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Keys of a row that are no metrics.
const COUNTERS: [&str; 3] = ["step", "tokens", "n_targets"];

/// When a metric was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// In a training step.
    Training,
    /// In an evaluation.
    Validation,
}

/// A value at a step; NaN where the log has none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Number of updates.
    pub step: u64,
    /// Value.
    pub value: f64,
}

/// A metric over the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// When it was measured.
    pub phase: Phase,
    /// Name in metrics.jsonl.
    pub name: String,
    /// Points in the order of their steps, one for each step.
    pub points: Vec<Point>,
}

impl Series {
    /// The last value that is a number.
    pub fn last(&self) -> Option<Point> {
        self.points.iter().rev().copied().find(|point| point.value.is_finite())
    }

    /// The first value that is a number.
    pub fn first(&self) -> Option<Point> {
        self.points.iter().copied().find(|point| point.value.is_finite())
    }

    /// The smallest and the largest value that is a number.
    pub fn range(&self) -> Option<(f64, f64)> {
        let finite = self.points.iter().map(|point| point.value).filter(|value| value.is_finite());
        finite.fold(None, |range, value| match range {
            None => Some((value, value)),
            Some((low, high)) => Some((low.min(value), high.max(value))),
        })
    }
}

/// All series of a stage, in the order in which the log mentions them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The series.
    pub series: Vec<Series>,
    /// Step of the last row of training.
    pub last_step: u64,
    /// Tokens up to that row.
    pub tokens: u64,
}

impl Metrics {
    /// Sorts the values of rows into series.
    pub(crate) fn of(rows: &[Map<String, Value>]) -> Self {
        let mut out = Self::default();
        let mut places: HashMap<(Phase, &str), usize> = HashMap::new();
        for row in rows {
            let Some(step) = row.get("step").and_then(Value::as_u64) else { continue };
            let phase = if row.contains_key("loss") { Phase::Training } else { Phase::Validation };
            if phase == Phase::Training {
                out.last_step = out.last_step.max(step);
                let tokens = row.get("tokens").and_then(Value::as_u64).unwrap_or(0);
                out.tokens = out.tokens.max(tokens);
            }
            for (name, value) in row {
                let value = match value {
                    Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
                    // A number that is not finite has no other form in JSON.
                    Value::Null => f64::NAN,
                    Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                        continue;
                    }
                };
                if COUNTERS.contains(&name.as_str()) {
                    continue;
                }
                let idx = *places.entry((phase, name)).or_insert_with(|| {
                    out.series.push(Series { phase, name: name.clone(), points: Vec::new() });
                    out.series.len() - 1
                });
                if let Some(series) = out.series.get_mut(idx) {
                    series.points.push(Point { step, value });
                }
            }
        }
        for series in &mut out.series {
            one_point_a_step(&mut series.points);
        }
        out
    }

    /// A series by its name.
    pub fn get(&self, phase: Phase, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.phase == phase && series.name == name)
    }

    /// The series of one phase.
    pub fn of_phase(&self, phase: Phase) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(move |series| series.phase == phase)
    }
}

/// Sorts points by step; of several at one step the last stays.
fn one_point_a_step(points: &mut Vec<Point>) {
    points.sort_by_key(|point| point.step);
    points.reverse();
    points.dedup_by_key(|point| point.step);
    points.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Map<String, Value>> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn rows_of_both_kinds_become_series() {
        let metrics = Metrics::of(&rows(
            "{\"step\":1,\"loss\":3.5,\"tokens\":10,\"note\":\"x\"}\n{\"step\":1,\"eval_loss\":3.0,\"n_targets\":5}\n\
             {\"step\":2,\"loss\":null,\"tokens\":20}\n{\"step\":2,\"loss\":2.0,\"tokens\":20}\n{\"loss\":1}",
        ));
        assert_eq!((metrics.last_step, metrics.tokens, metrics.series.len()), (2, 20, 2));
        let loss = metrics.get(Phase::Training, "loss").unwrap();
        let point = |step, value| Point { step, value };
        assert_eq!(loss.points, [point(1, 3.5), point(2, 2.0)]);
        assert_eq!(loss.range(), Some((2.0, 3.5)));
        assert!(metrics.get(Phase::Training, "eval_loss").is_none());
        assert_eq!(
            metrics.get(Phase::Validation, "eval_loss").unwrap().last(),
            Some(point(1, 3.0))
        );
    }
}
