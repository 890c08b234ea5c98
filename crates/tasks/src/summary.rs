//! A task's metrics over all rows, with standard errors and confidence intervals.

use crate::metrics::{Metric, RowScore, RowValue, labelled};

/// The quantile of the normal distribution for intervals of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// A metric over all rows of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Name of the metric.
    pub metric: String,
    /// Name of the filter, or `none`.
    pub filter: String,
    /// The value.
    pub value: f64,
    /// Standard error; `None` for a single row and for metrics per word, byte or instruction.
    ///
    /// Of a mean: the sample's standard deviation over √n. Of `perplexity`, which is e^−mean: the error of the mean times the
    /// value (the delta method).
    pub stderr: Option<f64>,
    /// 95 % confidence interval. Of a share of rows: Wilson's score interval (JASA 22, 1927). Of `perplexity`: e to the ends
    /// of the mean's interval. Of `pass@k`: the normal interval of the mean.
    pub interval: Option<(f64, f64)>,
    /// Number of rows that have a value.
    pub n_rows: usize,
}

impl Estimate {
    /// The name of the metric, with that of its filter if there is one: `acc`, or `exact_match,strict-match`.
    pub fn label(&self) -> String {
        labelled(&self.metric, &self.filter)
    }
}

/// Metrics of rows that [`crate::Task::score`] scored, in its order.
pub fn summarize(rows: &[Vec<RowScore>]) -> Vec<Estimate> {
    let Some(first) = rows.first() else { return Vec::new() };
    let of = |(idx, score): (usize, &RowScore)| {
        let values = rows.iter().filter_map(|row| row.get(idx)).map(|score| score.value);
        let values: Vec<RowValue> = values.filter(|value| *value != RowValue::Unknown).collect();
        if values.is_empty() {
            return None;
        }
        let (value, stderr, interval) = estimate(score.metric, &values);
        let (metric, filter) = (score.metric(), score.filter.clone());
        Some(Estimate { metric, filter, value, stderr, interval, n_rows: values.len() })
    };
    first.iter().enumerate().filter_map(of).collect()
}

/// A note for each metric that is infinite or not a number, with the reason; `estimates` are those of `rows`.
pub(crate) fn not_finite_notes(estimates: &[Estimate], rows: &[Vec<RowScore>]) -> Vec<String> {
    let of = |estimate: &Estimate| {
        let is_same = |score: &&RowScore| {
            score.metric() == estimate.metric && score.filter == estimate.filter
        };
        let values: Vec<RowValue> =
            rows.iter().flatten().filter(is_same).map(|score| score.value).collect();
        format!("`{}` is {}: {}", estimate.label(), estimate.value, why_not_finite(&values))
    };
    estimates.iter().filter(|estimate| !estimate.value.is_finite()).map(of).collect()
}

fn why_not_finite(values: &[RowValue]) -> String {
    let (mut total, mut units) = (0.0, 0);
    for value in values {
        match *value {
            RowValue::Number(value) => (total, units) = (total + value, units + 1),
            RowValue::PerUnit { sum, n_units } => (total, units) = (total + sum, units + n_units),
            RowValue::Parts { .. } | RowValue::Unknown => {}
        }
    }
    if total.is_nan() {
        "the log-probability of a token is not a number".to_owned()
    } else if total.is_infinite() {
        "a token has the probability 0".to_owned()
    } else if units == 0 {
        "the rows have no text that it counts".to_owned()
    } else {
        let mean = -total / units as f64;
        format!("e to the mean loss of {mean:.1} nats is larger than the largest number")
    }
}

type Values = (f64, Option<f64>, Option<(f64, f64)>);

fn estimate(metric: Metric, values: &[RowValue]) -> Values {
    let number = |value: &RowValue| match *value {
        RowValue::Number(value) => value,
        RowValue::PerUnit { sum, .. } => sum,
        RowValue::Parts { n_right, n } => n_right as f64 / n as f64,
        RowValue::Unknown => f64::NAN,
    };
    let numbers: Vec<f64> = values.iter().map(number).collect();
    match metric {
        Metric::Acc
        | Metric::AccNorm
        | Metric::AccBytes
        | Metric::ExactMatch
        | Metric::PromptStrict
        | Metric::PromptLoose => share(&numbers),
        // Their values in a row are shares or weighted means, so the interval is that of a mean.
        Metric::PassAt(_) | Metric::Section | Metric::Score => {
            let (mean, stderr) = mean_and_stderr(&numbers);
            (mean, stderr, stderr.map(|error| (mean - Z * error, mean + Z * error)))
        }
        Metric::InstructionStrict | Metric::InstructionLoose => {
            (share_of_parts(values), None, None)
        }
        Metric::Perplexity => {
            let (mean, stderr) = mean_and_stderr(&numbers);
            let value = (-mean).exp();
            let interval =
                stderr.map(|error| ((-mean - Z * error).exp(), (-mean + Z * error).exp()));
            (value, stderr.map(|error| error * value), interval)
        }
        Metric::WordPerplexity | Metric::BytePerplexity => ((-per_unit(values)).exp(), None, None),
        Metric::BitsPerByte => (-per_unit(values) / std::f64::consts::LN_2, None, None),
    }
}

fn per_unit(values: &[RowValue]) -> f64 {
    let (mut sums, mut units) = (0.0, 0);
    for value in values {
        if let RowValue::PerUnit { sum, n_units } = value {
            sums += sum;
            units += n_units;
        }
    }
    sums / units as f64
}

fn share_of_parts(values: &[RowValue]) -> f64 {
    let (mut right, mut all) = (0, 0);
    for value in values {
        if let RowValue::Parts { n_right, n } = value {
            right += n_right;
            all += n;
        }
    }
    right as f64 / all as f64
}

fn mean_and_stderr(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let stderr = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt() / n.sqrt());
    (mean, stderr)
}

fn share(values: &[f64]) -> Values {
    let (p, stderr) = mean_and_stderr(values);
    (p, stderr, Some(wilson_interval(p, values.len())))
}

/// Wilson's 95 % score interval of a share `p` of `n`.
pub fn wilson_interval(p: f64, n: usize) -> (f64, f64) {
    let n = n as f64;
    let scale = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    (centre - half, centre + half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(metric: Metric, values: &[RowValue]) -> Vec<Vec<RowScore>> {
        let score =
            |value: &RowValue| vec![RowScore { metric, filter: "none".to_owned(), value: *value }];
        values.iter().map(score).collect()
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn a_metric_that_is_no_number_has_a_note_with_the_reason() {
        let notes = |metric, values: &[RowValue]| {
            let rows = rows(metric, values);
            not_finite_notes(&summarize(&rows), &rows).join("|")
        };
        let per_unit = |sum, n_units| RowValue::PerUnit { sum, n_units };
        assert_eq!(
            notes(Metric::WordPerplexity, &[per_unit(-2000.0, 1), per_unit(-1000.0, 1)]),
            "`word_perplexity` is inf: e to the mean loss of 1500.0 nats is larger than the largest number"
        );
        assert_eq!(
            notes(Metric::BitsPerByte, &[per_unit(f64::NEG_INFINITY, 3), per_unit(-1.0, 1)]),
            "`bits_per_byte` is inf: a token has the probability 0"
        );
        assert_eq!(
            notes(Metric::Perplexity, &[RowValue::Number(f64::NAN)]),
            "`perplexity` is NaN: the log-probability of a token is not a number"
        );
        assert_eq!(
            notes(Metric::BytePerplexity, &[per_unit(-1.0, 0)]),
            "`byte_perplexity` is inf: the rows have no text that it counts"
        );
        assert_eq!(notes(Metric::BytePerplexity, &[per_unit(-700.0, 1)]), "");
        assert_eq!(notes(Metric::Acc, &[RowValue::Number(1.0)]), "");
    }

    #[test]
    fn a_share_has_wilsons_interval() {
        // 11 of 20, with the values of scipy's `binomtest(11, 20).proportion_ci(method="wilson")`.
        let values: Vec<RowValue> =
            (0..20).map(|i| RowValue::Number(if i < 11 { 1.0 } else { 0.0 })).collect();
        let all = summarize(&rows(Metric::Acc, &values));
        let Estimate { value, stderr, interval, n_rows, .. } = &all[0];
        near(*value, 0.55);
        near(stderr.unwrap(), (0.55 * 0.45 / 19.0f64).sqrt());
        let (low, high) = interval.unwrap();
        near(low, 0.342_085_342_450_342_4);
        near(high, 0.741_802_141_744_375_8);
        assert_eq!(*n_rows, 20);
    }

    #[test]
    fn perplexities_divide_sums() {
        let per_unit = |sum, n_units| RowValue::PerUnit { sum, n_units };
        let values = [per_unit(-6.0, 2), per_unit(-3.0, 1)];
        near(summarize(&rows(Metric::WordPerplexity, &values))[0].value, 3f64.exp());
        near(summarize(&rows(Metric::BitsPerByte, &values))[0].value, 3.0 / 2f64.ln());
        let values = [RowValue::Number(-1.0), RowValue::Number(-3.0)];
        let estimate = &summarize(&rows(Metric::Perplexity, &values))[0];
        near(estimate.value, 2f64.exp());
        near(estimate.stderr.unwrap(), 2f64.exp());
        assert!(summarize(&[]).is_empty());
    }
}
