//! Metrics of a file of completions: the share that the judge classifies as better, and diversity.
//!
//! Diversity is computed on the texts as they are, without trimming or lower-casing.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::judge::Judge;

/// Size limit of a file of completions, in bytes.
const FILE_BYTES: u64 = 256 << 20;

/// Metrics of a file of completions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Number of completions.
    pub n: usize,
    /// Share that the judge classifies as better.
    pub better: f64,
    /// Share of distinct texts.
    pub distinct: f64,
    /// Share of the most frequent text.
    pub most_frequent: f64,
    /// Distinct word bigrams divided by all word bigrams (Li et al. 2016, "A Diversity-Promoting Objective Function
    /// for Neural Conversation Models", section 5.2).
    pub distinct_2: f64,
    /// Mean number of words in a completion.
    pub words: f64,
}

impl Metrics {
    /// Computes the metrics of at least one completion.
    pub fn of(texts: &[String], judge: &Judge) -> Self {
        let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
        let mut times: HashMap<&str, usize> = HashMap::new();
        let (mut pairs, mut n_pairs, mut n_words) = (HashSet::new(), 0, 0);
        for text in texts {
            *times.entry(text).or_default() += 1;
            let words: Vec<&str> = text.split_whitespace().collect();
            n_words += words.len();
            n_pairs += words.len().saturating_sub(1);
            pairs.extend(words.windows(2).map(<[&str]>::to_vec));
        }
        let n_better = texts.iter().filter(|text| judge.is_better(text)).count();
        let most = times.values().copied().max().unwrap_or(0);
        Self {
            n: texts.len(),
            better: share(n_better, texts.len()),
            distinct: share(times.len(), texts.len()),
            most_frequent: share(most, texts.len()),
            distinct_2: share(pairs.len(), n_pairs),
            words: share(n_words, texts.len()),
        }
    }
}

/// Reads completions: JSON lines as `temper generate` writes them, or one text per line.
pub fn completions(path: &Path) -> Result<Vec<String>> {
    let text = fsio::read_text_capped(path, FILE_BYTES)?;
    let mut texts = Vec::new();
    for (idx, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |problem: String| Error::Completion {
            path: path.to_path_buf(),
            line: idx + 1,
            problem,
        };
        if !line.trim_start().starts_with('{') {
            texts.push(line.to_owned());
            continue;
        }
        let row: Value = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        let completion = row.get("completion").and_then(Value::as_str);
        texts.push(completion.ok_or_else(|| bad("no `completion`".to_owned()))?.to_owned());
    }
    if texts.is_empty() {
        return Err(Error::NoCompletions { path: path.to_path_buf() });
    }
    Ok(texts)
}
