//! Metrics of one row, by the names of lm-evaluation-harness.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::definition::KindKey;
use crate::exact_match::ExactMatch;
use crate::filters::Filter;
use crate::instructions::Followed;
use crate::item::{Gold, Response};
use crate::python_text::n_words;

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Acc,
    AccNorm,
    AccBytes,
    ExactMatch,
    Perplexity,
    WordPerplexity,
    BytePerplexity,
    BitsPerByte,
    PromptStrict,
    InstructionStrict,
    PromptLoose,
    InstructionLoose,
    /// Probability that one of k completions is right.
    PassAt(usize),
    /// Weighted mean over the subsets of a section.
    Section,
    /// Mean over sections.
    Score,
}

impl Metric {
    const ALL: [Self; 12] = [
        Self::Acc,
        Self::AccNorm,
        Self::AccBytes,
        Self::ExactMatch,
        Self::Perplexity,
        Self::WordPerplexity,
        Self::BytePerplexity,
        Self::BitsPerByte,
        Self::PromptStrict,
        Self::InstructionStrict,
        Self::PromptLoose,
        Self::InstructionLoose,
    ];

    pub(crate) fn name(self) -> Cow<'static, str> {
        let name = match self {
            Self::PassAt(k) => return format!("pass@{k}").into(),
            Self::Section => "section",
            Self::Score => "score",
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::AccBytes => "acc_bytes",
            Self::ExactMatch => "exact_match",
            Self::Perplexity => "perplexity",
            Self::WordPerplexity => "word_perplexity",
            Self::BytePerplexity => "byte_perplexity",
            Self::BitsPerByte => "bits_per_byte",
            Self::PromptStrict => "prompt_level_strict_acc",
            Self::InstructionStrict => "inst_level_strict_acc",
            Self::PromptLoose => "prompt_level_loose_acc",
            Self::InstructionLoose => "inst_level_loose_acc",
        };
        name.into()
    }

    pub(crate) fn higher_is_better(self) -> bool {
        match self {
            Self::Acc
            | Self::AccNorm
            | Self::AccBytes
            | Self::ExactMatch
            | Self::PromptStrict
            | Self::InstructionStrict
            | Self::PromptLoose
            | Self::InstructionLoose
            | Self::PassAt(_)
            | Self::Section
            | Self::Score => true,
            Self::Perplexity | Self::WordPerplexity | Self::BytePerplexity | Self::BitsPerByte => {
                false
            }
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

/// Metrics of a kind of task: those that are named, or all usual ones.
pub(crate) fn metrics_of(kind: KindKey, names: Option<&[String]>) -> Result<Vec<Metric>, String> {
    use Metric::{
        Acc, AccBytes, AccNorm, BitsPerByte, BytePerplexity, ExactMatch, InstructionLoose,
        InstructionStrict, Perplexity, PromptLoose, PromptStrict, WordPerplexity,
    };
    let (known, usual): (&[Metric], &[Metric]) = match kind {
        KindKey::MultipleChoice => (&[Acc, AccNorm, AccBytes, ExactMatch], &[Acc, AccNorm]),
        KindKey::Loglikelihood => (&[Perplexity, Acc], &[Perplexity, Acc]),
        KindKey::LoglikelihoodRolling => {
            let all = &[WordPerplexity, BytePerplexity, BitsPerByte];
            (all, all)
        }
        KindKey::GenerateUntil => (&[ExactMatch], &[ExactMatch]),
        KindKey::Pairs => (&[Acc], &[Acc]),
        KindKey::InstructionFollowing => {
            let all = &[PromptStrict, InstructionStrict, PromptLoose, InstructionLoose];
            (all, all)
        }
    };
    let Some(names) = names else { return Ok(usual.to_vec()) };
    if names.is_empty() {
        return Err("`metrics` is empty".to_owned());
    }
    let of = |name: &String| {
        let metric = Metric::of_name(name).filter(|metric| known.contains(metric));
        let known: Vec<_> = known.iter().map(|metric| metric.name()).collect();
        metric.ok_or_else(|| {
            format!("{} has no metric `{name}`; it has {}", kind.name(), known.join(", "))
        })
    };
    names.iter().map(of).collect()
}

/// A metric of a task with its direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricName {
    /// Name, with that of the filter if there is one: `acc`, or `exact_match,strict-match`.
    pub name: String,
    /// Whether larger values are better.
    pub higher_is_better: bool,
}

impl MetricName {
    pub(crate) fn new(metric: Metric, filter: &str) -> Self {
        let name = labelled(&metric.name(), filter);
        Self { name, higher_is_better: metric.higher_is_better() }
    }
}

/// The name of a metric, with that of its filter if there is one.
pub(crate) fn labelled(metric: &str, filter: &str) -> String {
    if filter == "none" { metric.to_owned() } else { format!("{metric},{filter}") }
}

/// One metric of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowScore {
    pub(crate) metric: Metric,
    /// Name of the filter; `none` where a task has none.
    pub filter: String,
    /// The value.
    pub value: RowValue,
}

impl RowScore {
    /// Name of the metric.
    pub fn metric(&self) -> String {
        self.metric.name().into_owned()
    }
}

/// Value of a metric for one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowValue {
    /// A number whose mean is the task's metric, or enters it.
    Number(f64),
    /// A log-likelihood and the number of units that it is divided by: words or bytes.
    PerUnit {
        /// Log-likelihood of the text in nats.
        sum: f64,
        /// Number of words or bytes.
        n_units: u64,
    },
    /// Parts of a row of which some are right; the task's metric is a share of all parts.
    Parts {
        /// Number of right ones.
        n_right: u64,
        /// Number of all.
        n: u64,
    },
    /// The row has no such value.
    Unknown,
}

impl RowValue {
    /// The value as lm-evaluation-harness stores it: a number or a pair.
    pub fn to_json(self) -> Value {
        match self {
            Self::Number(value) => json!(value),
            Self::PerUnit { sum, n_units } => json!([sum, n_units]),
            Self::Parts { n_right, n } => json!([n_right, n]),
            Self::Unknown => Value::Null,
        }
    }
}

fn score(metric: Metric, value: f64) -> RowScore {
    RowScore { metric, filter: "none".to_owned(), value: RowValue::Number(value) }
}

fn as_number(right: bool) -> f64 {
    if right { 1.0 } else { 0.0 }
}

/// Index of the largest value, the first among equals.
fn argmax(values: impl Iterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (idx, value) in values.enumerate() {
        if best.is_none_or(|(_, top)| value > top) {
            best = Some((idx, value));
        }
    }
    best.map(|(idx, _)| idx)
}

/// Metrics of a row with choices. `acc_norm` divides by characters, `acc_bytes` by bytes of a choice without its delimiter.
pub(crate) fn of_choices(
    metrics: &[Metric],
    index: usize,
    choices: &[String],
    responses: &[(f64, bool)],
) -> Vec<RowScore> {
    let by = |length: &dyn Fn(&String) -> usize| {
        let values = responses.iter().zip(choices);
        let best = argmax(values.map(|((sum, _), choice)| sum / length(choice) as f64));
        as_number(best == Some(index))
    };
    let of = |metric: &Metric| {
        let value = match metric {
            Metric::AccNorm => by(&|choice| choice.chars().count()),
            Metric::AccBytes => by(&String::len),
            Metric::ExactMatch => {
                as_number(responses.get(index).is_some_and(|(_, greedy)| *greedy))
            }
            Metric::Acc
            | Metric::Perplexity
            | Metric::WordPerplexity
            | Metric::BytePerplexity
            | Metric::BitsPerByte
            | Metric::PromptStrict
            | Metric::InstructionStrict
            | Metric::PromptLoose
            | Metric::InstructionLoose
            | Metric::PassAt(_)
            | Metric::Section
            | Metric::Score => by(&|_| 1),
        };
        score(*metric, value)
    };
    metrics.iter().map(of).collect()
}

/// Metrics of a row with one continuation.
pub(crate) fn of_continuation(metrics: &[Metric], sum: f64, is_greedy: bool) -> Vec<RowScore> {
    let of = |metric: &Metric| {
        let value = if *metric == Metric::Perplexity { sum } else { as_number(is_greedy) };
        score(*metric, value)
    };
    metrics.iter().map(of).collect()
}

/// Metrics of a whole text.
pub(crate) fn of_text(metrics: &[Metric], text: &str, sum: f64) -> Vec<RowScore> {
    let of = |metric: &Metric| {
        let n_units = if *metric == Metric::WordPerplexity { n_words(text) } else { text.len() };
        let value = RowValue::PerUnit { sum, n_units: n_units as u64 };
        RowScore { metric: *metric, filter: "none".to_owned(), value }
    };
    metrics.iter().map(of).collect()
}

/// `exact_match` of completions and `pass@k`, once for each filter, with the extracted answers.
///
/// `rewards` are the scores of the completions, for filters that select the best one. For `pass@k` each completion is
/// filtered alone.
pub(crate) fn of_completions(
    filters: &[Filter],
    exact: &ExactMatch,
    right: &[String],
    completions: &[String],
    rewards: Option<&[f64]>,
    pass_at: &[usize],
) -> (Vec<RowScore>, Vec<(String, String)>) {
    let (mut scores, mut answers) = (Vec::new(), Vec::new());
    for filter in filters {
        let mut add = |metric, value| {
            let (filter, value) = (filter.name.clone(), RowValue::Number(value));
            scores.push(RowScore { metric, filter, value });
        };
        let answer = filter.apply(completions, rewards);
        add(Metric::ExactMatch, as_number(exact.matches(&answer, right)));
        let is_right = |text: &&String| {
            exact.matches(&filter.apply(std::slice::from_ref(*text), Some(&[0.0])), right)
        };
        if !pass_at.is_empty() {
            let n_right = completions.iter().filter(is_right).count();
            for &k in pass_at {
                add(Metric::PassAt(k), probability_of_a_pass(completions.len(), n_right, k));
            }
        }
        answers.push((filter.name.clone(), answer));
    }
    (scores, answers)
}

/// Unbiased estimate of the probability that one of `k` completions is right, from `n` of which `n_right` are (Chen et al.
/// 2021, "Evaluating Large Language Models Trained on Code", equation 1): 1 − C(n − c, k) / C(n, k), as a product.
fn probability_of_a_pass(n: usize, n_right: usize, k: usize) -> f64 {
    let n_wrong = n - n_right;
    if n_wrong < k {
        return 1.0;
    }
    1.0 - (n_wrong + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// Whether the chosen text of a pair scores higher than the rejected one; equal scores are wrong.
pub(crate) fn of_pair(chosen: f64, rejected: f64) -> Vec<RowScore> {
    vec![score(Metric::Acc, as_number(chosen > rejected))]
}

/// Metrics of an answer to a prompt with instructions. A prompt with an instruction that is not checked has no value of its own.
pub(crate) fn of_instructions(metrics: &[Metric], followed: &[Option<Followed>]) -> Vec<RowScore> {
    let checked: Vec<Followed> = followed.iter().flatten().copied().collect();
    let of = |metric: &Metric| {
        let strict = matches!(metric, Metric::PromptStrict | Metric::InstructionStrict);
        let is_right = |of: &&Followed| if strict { of.strict } else { of.loose };
        let (n_right, n) = (checked.iter().filter(is_right).count(), checked.len());
        let value = if matches!(metric, Metric::PromptStrict | Metric::PromptLoose) {
            let is_known = n == followed.len();
            if is_known { RowValue::Number(as_number(n_right == n)) } else { RowValue::Unknown }
        } else if n == 0 {
            RowValue::Unknown
        } else {
            RowValue::Parts { n_right: n_right as u64, n: n as u64 }
        };
        RowScore { metric: *metric, filter: "none".to_owned(), value }
    };
    metrics.iter().map(of).collect()
}

/// The object that `temper eval --json` prints for a row.
pub(crate) fn row_json(
    gold: &Gold,
    requests: Vec<Value>,
    scores: &[RowScore],
    answers: &[(String, String)],
) -> serde_json::Map<String, Value> {
    let mut row = serde_json::Map::new();
    let target = match gold {
        Gold::Choice { index, .. } => json!(index),
        Gold::Texts(texts) => match texts.as_slice() {
            [text] => json!(text),
            texts => json!(texts),
        },
        Gold::Instructions(instructions) => json!(instructions.names()),
        Gold::Pair { subset } => json!(subset),
    };
    row.insert("target".to_owned(), target);
    row.insert("requests".to_owned(), Value::Array(requests));
    if !answers.is_empty() {
        let answers = answers.iter().map(|(name, text)| (name.clone(), json!(text)));
        row.insert("filtered".to_owned(), Value::Object(answers.collect()));
    }
    for score in scores {
        let name = score.metric();
        if score.filter == "none" {
            row.insert(name, score.value.to_json());
        } else {
            let by_filter = row.entry(name).or_insert_with(|| json!({}));
            by_filter[&score.filter] = score.value.to_json();
        }
    }
    row
}

/// Log-likelihoods of responses; `None` if one has another kind.
pub(crate) fn log_likelihoods(responses: &[Response]) -> Option<Vec<(f64, bool)>> {
    let of = |response: &Response| match response {
        Response::LogLikelihood { sum, is_greedy } => Some((*sum, *is_greedy)),
        Response::Rolling { .. }
        | Response::Generated(_)
        | Response::Ranked(_)
        | Response::Score(_) => None,
    };
    responses.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_of_a_pass_is_that_of_draws_without_replacement() {
        // C(5, 2) = 10 pairs, of which C(3, 2) = 3 have no right one.
        assert!((probability_of_a_pass(5, 2, 2) - 0.7).abs() < 1e-15);
        assert!((probability_of_a_pass(5, 2, 1) - 0.4).abs() < 1e-15);
        assert_eq!(probability_of_a_pass(5, 0, 3), 0.0);
        assert_eq!(probability_of_a_pass(5, 3, 3), 1.0);
        // 1 − C(190, 100) / C(200, 100).
        assert!((probability_of_a_pass(200, 10, 100) - 0.999_228_973_937_282_2).abs() < 1e-12);
    }

    #[test]
    fn norms_divide_by_characters_or_bytes_of_the_choice() {
        let choices = ["éé".to_owned(), "abc".to_owned()];
        let metrics = [Metric::Acc, Metric::AccNorm, Metric::AccBytes, Metric::ExactMatch];
        let values = |index, sums: [f64; 2]| -> Vec<RowValue> {
            let responses = [(sums[0], true), (sums[1], false)];
            of_choices(&metrics, index, &choices, &responses).iter().map(|s| s.value).collect()
        };
        let numbers = |list: [f64; 4]| list.map(RowValue::Number).to_vec();
        // By characters −1.1 and −1; by bytes −0.55 and −1.
        assert_eq!(values(0, [-2.2, -3.0]), numbers([1.0, 0.0, 1.0, 1.0]));
        assert_eq!(values(1, [-2.2, -3.0]), numbers([0.0, 1.0, 0.0, 0.0]));
        // The first of equals is chosen.
        assert_eq!(values(0, [-3.0, -3.0])[0], RowValue::Number(1.0));
    }
}
