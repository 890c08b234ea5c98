//! Contamination: texts of training data that occur in the rows of a task.
//!
//! Two texts share a run of 13 words, after punctuation is removed and letters are lower case (Brown et al. 2020, "Language
//! Models are Few-Shot Learners", appendix C). A text of 8 to 12 words is compared as a whole; shorter ones are not compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Number of words of a run.
const RUN: usize = 13;
/// Number of words of the shortest text that is compared.
const SHORTEST: usize = 8;
/// Number of examples that a report names.
const EXAMPLES: usize = 3;

/// The texts of a row of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowTexts {
    /// Location of the row.
    pub place: String,
    /// Every text in its columns.
    pub texts: Vec<String>,
}

/// Overlap of training data with a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// Name of the task.
    pub task: String,
    /// Number of the task's rows.
    pub n_rows: usize,
    /// Number of the task's rows whose texts are all too short to compare.
    pub n_short: usize,
    /// Number of the task's rows that occur in the training data.
    pub n_found: usize,
    /// Number of rows of training data in which they occur.
    pub n_training_rows: usize,
    /// Locations in the training data and in the task, the first few.
    pub examples: Vec<(String, String)>,
}

/// Rows of tasks, to be found in other texts.
#[derive(Debug, Default)]
pub struct Contamination {
    /// Rows by the hash of a run, for each length of runs.
    rows: BTreeMap<usize, HashMap<u64, Vec<u32>>>,
    /// Index of the task of each row, and its location.
    places: Vec<(usize, String)>,
    reports: Vec<Overlap>,
    /// Location of the last training row that was counted, by task.
    counted: Vec<String>,
    found: BTreeSet<u32>,
}

impl Contamination {
    /// Adds the rows of a task.
    pub fn add_task(&mut self, name: &str, rows: &[RowTexts]) {
        let task = self.reports.len();
        let mut report =
            Overlap { task: name.to_owned(), n_rows: rows.len(), ..Overlap::default() };
        for row in rows {
            let id = self.places.len() as u32;
            self.places.push((task, row.place.clone()));
            let mut is_short = true;
            for text in &row.texts {
                let words = hashed_words(text);
                let length = words.len().min(RUN);
                if length < SHORTEST {
                    continue;
                }
                is_short = false;
                let of_length = self.rows.entry(length).or_default();
                for run in words.windows(length) {
                    let rows = of_length.entry(hash_of(run)).or_default();
                    if rows.last() != Some(&id) {
                        rows.push(id);
                    }
                }
            }
            report.n_short += usize::from(is_short);
        }
        self.reports.push(report);
        self.counted.push(String::new());
    }

    /// Compares the texts of one row of training data, or of a part of a file.
    pub fn compare(&mut self, place: &str, texts: &[String]) {
        let mut hits = BTreeSet::new();
        for text in texts {
            let words = hashed_words(text);
            for (length, rows) in &self.rows {
                for run in words.windows(*length) {
                    hits.extend(rows.get(&hash_of(run)).into_iter().flatten().copied());
                }
            }
        }
        let mut tasks = BTreeSet::new();
        for id in hits {
            let Some((task, of_task)) = self.places.get(id as usize) else { continue };
            let Some(report) = self.reports.get_mut(*task) else { continue };
            report.n_found += usize::from(self.found.insert(id));
            let Some(counted) = self.counted.get_mut(*task) else { continue };
            // Parts of one file have the same location.
            if tasks.insert(*task) && *counted != place {
                place.clone_into(counted);
                report.n_training_rows += 1;
                if report.examples.len() < EXAMPLES {
                    report.examples.push((place.to_owned(), of_task.clone()));
                }
            }
        }
    }

    /// Overlaps of all compared texts, by task.
    pub fn into_reports(self) -> Vec<Overlap> {
        self.reports
    }
}

impl Overlap {
    /// The report as a sentence.
    pub fn sentence(&self) -> String {
        let Self { task, n_rows, n_short, n_found, n_training_rows, examples } = self;
        let short = match n_short {
            0 => String::new(),
            n => format!("; {n} are too short to compare"),
        };
        if *n_found == 0 {
            return format!(
                "no row of {task} occurs in the training data (runs of {RUN} words){short}"
            );
        }
        let shown: Vec<String> =
            examples.iter().map(|(training, row)| format!("{training} has {row}")).collect();
        format!(
            "{n_found} of {n_rows} rows of {task} occur in {n_training_rows} rows of the training data (runs of {RUN} \
             words{short}): {}",
            shown.join(", ")
        )
    }
}

/// Every text in the columns of a row.
pub fn texts_of(columns: &Map<String, Value>) -> Vec<String> {
    fn add(value: &Value, texts: &mut Vec<String>) {
        match value {
            Value::String(text) => texts.push(text.clone()),
            Value::Array(values) => values.iter().for_each(|value| add(value, texts)),
            Value::Object(values) => values.values().for_each(|value| add(value, texts)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut texts = Vec::new();
    columns.values().for_each(|value| add(value, &mut texts));
    texts
}

/// Hashes of the words of a text: letters and digits in lower case, between white space and punctuation.
///
/// In GPT-3's check and lm-evaluation-harness white space alone separates words, and punctuation is removed from them: `a,b` is one
/// word. A copy that lost its spaces, or whose dashes are hyphens, would then be missed.
fn hashed_words(text: &str) -> Vec<u64> {
    let (mut words, mut word, mut before) = (Vec::new(), None, ' ');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() {
            let lower = c.to_lowercase();
            word = lower.fold(word, |hash, c| Some(mixed(hash.unwrap_or(SEED), u64::from(c))));
        } else if separates(before, c, chars.peek().copied()) {
            words.extend(word.take());
        }
        before = c;
    }
    words.extend(word);
    words
}

/// Whether a character other than a letter or digit ends a word. Apostrophes do not, and neither do marks between two digits, as in
/// `1,000.5`, accents, and what has no width.
fn separates(before: char, c: char, after: Option<char>) -> bool {
    let is_in_number = before.is_ascii_digit() && after.is_some_and(|c| c.is_ascii_digit());
    match c {
        '\'' | '`' | '\u{2018}' | '\u{2019}' => false,
        '.' | ',' => !is_in_number,
        // General punctuation, that of East Asia, and its wide forms.
        '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' | '\u{3001}'..='\u{303f}' => true,
        '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' => true,
        _ => c.is_whitespace() || c.is_ascii_punctuation(),
    }
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;

fn hash_of(run: &[u64]) -> u64 {
    run.iter().fold(SEED, |hash, word| mixed(hash, *word))
}

/// A bijective mix of both numbers in each argument, after splitmix64's.
fn mixed(hash: u64, next: u64) -> u64 {
    let mut x = hash.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ next;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Contamination, RowTexts, hashed_words, texts_of};

    fn words(from: usize, to: usize) -> String {
        (from..to).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ")
    }

    fn row(place: &str, text: String) -> RowTexts {
        RowTexts { place: place.to_owned(), texts: vec![text] }
    }

    #[test]
    fn runs_of_13_words_and_short_texts_are_found() {
        let mut all = Contamination::default();
        all.add_task("long", &[row("t:1", words(0, 20)), row("t:2", words(100, 120))]);
        all.add_task("short", &[row("s:1", words(0, 9)), row("s:2", words(0, 7))]);
        // 12 words in a row are not enough for a long text, but have the 9 of the short one.
        all.compare("a:1", &[words(0, 12)]);
        // Case and punctuation do not matter.
        all.compare(
            "a:2",
            &[format!("Before, {}! After.", words(5, 18).to_uppercase().replace(' ', ",\n"))],
        );
        all.compare("a:3", &[words(7, 20) + " x", words(6, 19)]);
        all.compare("a:4", &[words(200, 300)]);
        let reports = all.into_reports();
        let [long, short] = reports.as_slice() else { panic!("{reports:?}") };
        assert_eq!((long.n_rows, long.n_found, long.n_short, long.n_training_rows), (2, 1, 0, 2));
        assert_eq!(
            long.examples,
            [("a:2", "t:1"), ("a:3", "t:1")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert_eq!(
            (short.n_rows, short.n_found, short.n_short, short.n_training_rows),
            (2, 1, 1, 1)
        );
        assert_eq!(
            short.sentence(),
            "1 of 2 rows of short occur in 1 rows of the training data (runs of 13 words; 1 are too short to compare): \
             a:1 has s:1"
        );
    }

    #[test]
    fn words_end_at_punctuation() {
        let is_same = |a: &str, b: &str| hashed_words(a) == hashed_words(b);
        let joined = words(0, 20).replace(' ', ",");
        for copy in [joined.clone(), joined.replace(',', "\u{2014}"), joined.replace(',', "...\n")]
        {
            assert!(is_same(&copy, &words(0, 20)), "{copy}");
            let mut all = Contamination::default();
            all.add_task("t", &[row("t:1", words(0, 20))]);
            all.compare("a:1", &[copy]);
            assert_eq!(all.into_reports()[0].n_found, 1);
        }
        assert!(is_same("The end.Next: a well-known “thing”", "the end next a well known thing"));
        assert!(is_same("Don\u{2019}t pay 1,000.50!", "dont pay 100050") && !is_same("1, 2", "12"));
        assert!(is_same("\u{4f60}\u{ff0c}\u{597d}\u{3002}", "\u{4f60} \u{597d}"));
        assert!(hashed_words(" ... '' ").is_empty());
    }

    #[test]
    fn texts_of_all_columns_are_compared() {
        let columns = serde_json::json!({ "a": "x", "b": [1, "y", { "c": "z" }], "d": null });
        assert_eq!(texts_of(columns.as_object().unwrap()), ["x", "y", "z"]);
    }
}
