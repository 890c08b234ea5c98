//! The step at which the curves of two runs part.

use crate::metrics::{Metrics, Phase};

/// The first step at which two logs differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Parting {
    /// The step.
    pub step: u64,
    /// The metric that differs.
    pub metric: String,
    /// Its value in both logs.
    pub values: (f64, f64),
    /// The last step before it at which both logs agree, if they agree at one.
    pub agreed_until: Option<u64>,
}

/// Compares the steps that both logs have. Rates are no part of the comparison, because no two runs have the same.
///
/// Returns the number of steps that agree to the last bit, and where the first difference is.
pub fn part_at(a: &Metrics, b: &Metrics) -> (u64, Option<Parting>) {
    let mut first: Option<Parting> = None;
    let mut steps = std::collections::BTreeSet::new();
    for series in a.series.iter().filter(|series| series.name != "tokens_per_s") {
        let Some(other) = b.get(series.phase, &series.name) else { continue };
        let mut others = other.points.iter().peekable();
        for point in &series.points {
            while others.peek().is_some_and(|other| other.step < point.step) {
                others.next();
            }
            let Some(other) = others.peek().filter(|other| other.step == point.step) else {
                continue;
            };
            steps.insert(point.step);
            let both_missing = point.value.is_nan() && other.value.is_nan();
            if both_missing || point.value.to_bits() == other.value.to_bits() {
                continue;
            }
            if first.as_ref().is_none_or(|first| point.step < first.step) {
                let metric = match series.phase {
                    Phase::Training => series.name.clone(),
                    Phase::Validation => format!("{} (validation)", series.name),
                };
                let values = (point.value, other.value);
                first = Some(Parting { step: point.step, metric, values, agreed_until: None });
            }
            break;
        }
    }
    let Some(parting) = first else { return (steps.len() as u64, None) };
    let agreed: Vec<u64> = steps.range(..parting.step).copied().collect();
    let agreed_until = agreed.last().copied();
    (agreed.len() as u64, Some(Parting { agreed_until, ..parting }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(text: &str) -> Metrics {
        let rows: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Metrics::of(&rows)
    }

    #[test]
    fn the_first_difference_counts() {
        let a = metrics(
            "{\"step\":1,\"loss\":3.0,\"lr\":1.0,\"tokens_per_s\":5}\n{\"step\":2,\"loss\":2.0,\"lr\":1.0}\n\
             {\"step\":3,\"loss\":1.0,\"lr\":1.0}\n{\"step\":4,\"loss\":1.0}",
        );
        let b = metrics(
            "{\"step\":1,\"loss\":3.0,\"lr\":1.0,\"tokens_per_s\":6}\n{\"step\":2,\"loss\":2.5,\"lr\":1.0}\n\
             {\"step\":3,\"loss\":1.5,\"lr\":1.0}",
        );
        assert_eq!(part_at(&a, &a), (4, None));
        let (n, parting) = part_at(&a, &b);
        let parting = parting.unwrap();
        assert_eq!((n, parting.step, parting.agreed_until), (1, 2, Some(1)));
        assert_eq!((parting.metric.as_str(), parting.values), ("loss", (2.0, 2.5)));
    }
}
