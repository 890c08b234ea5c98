//! The judge's public interface: fitting, exclusion of the reward model's data, and metrics.

// Tests write their input files directly.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use data::SourceSpec;
use judge::{Features, Judge, Metrics, completions, unseen};

/// Labelled rows: better texts contain one of two words, worse ones another two.
fn rows(n: usize) -> String {
    let mut text = String::new();
    for n in 0..n {
        let (word, label) = match n % 4 {
            0 => ("lovely", "joy"),
            1 => ("awful", "anger"),
            2 => ("sweet", "joy"),
            _ => ("nasty", "anger"),
        };
        text +=
            &format!("{{\"text\":\"What a {word} thing, the {n}th!\",\"labels\":[\"{label}\"]}}\n");
    }
    text
}

fn spec(folder: &Path, name: &str, text: &str) -> SourceSpec {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    let mut spec = SourceSpec::file(path);
    let pairs = serde_json::json!({
        "from": "text", "chosen": { "labels": ["joy"] }, "rejected": { "labels": ["anger"] },
    });
    spec.pairs = serde_json::from_value(pairs).unwrap();
    spec
}

#[test]
fn a_judge_learns_from_words_and_from_letters() {
    let folder = tempfile::tempdir().unwrap();
    let seen = spec(folder.path(), "seen.jsonl", &rows(8));
    let texts = unseen(&spec(folder.path(), "rows.jsonl", &rows(200)), &seen).unwrap();
    assert_eq!(texts.len(), 192);
    for features in [Features::Words, Features::Letters] {
        let judge = Judge::new(features, &texts).unwrap();
        assert_eq!((judge.measured.chosen, judge.measured.rejected), (96, 96));
        assert!(judge.measured.right_on_chosen > 0.99, "{:?}", judge.measured);
        assert!(judge.measured.right_on_rejected > 0.99, "{:?}", judge.measured);
        assert!(judge.is_better("a sweet dog") && !judge.is_better("a nasty dog"));
    }
    // Swapped labels reverse the result; random labels give chance accuracy.
    let turned: Vec<(String, bool)> =
        texts.iter().map(|(t, better)| (t.clone(), !better)).collect();
    assert!(!Judge::new(Features::Words, &turned).unwrap().is_better("a sweet dog"));
    let chance: Vec<(String, bool)> = texts
        .iter()
        .enumerate()
        .map(|(idx, (text, _))| (text.clone(), idx * 40503 / 1024 % 2 == 0))
        .collect();
    let measured = Judge::new(Features::Words, &chance).unwrap().measured;
    assert!((measured.right_on_chosen - 0.5).abs() < 0.2, "{measured:?}");
}

#[test]
fn texts_of_the_pairs_are_excluded_within_one_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(100) + &rows(50);
    let whole = spec(folder.path(), "rows.jsonl", &rows);
    let seen = SourceSpec { limit: Some(60), ..whole.clone() };
    let texts = unseen(&whole, &seen).unwrap();
    // Rows 61 to 100; the next fifty repeat rows that were seen.
    assert_eq!(texts.len(), 40);
    assert!(texts[0].0.contains("the 60th"));
    let few = judge::Judge::new(Features::Words, &texts[..30]).unwrap_err().to_string();
    assert_eq!(few, "only 15 better and 15 worse texts do not occur in the recipe's pairs");
}

#[test]
fn metrics_of_completions() {
    let folder = tempfile::tempdir().unwrap();
    let texts = unseen(
        &spec(folder.path(), "rows.jsonl", &rows(200)),
        &spec(folder.path(), "seen.jsonl", &rows(4)),
    );
    let judge = Judge::new(Features::Words, &texts.unwrap()).unwrap();
    let file = folder.path().join("out.jsonl");
    let lines = "{\"completion\":\"a lovely day\"}\n{\"completion\":\"a lovely day\"}\na nasty day\n{\"completion\":\"sweet\"}\n";
    std::fs::write(&file, lines).unwrap();
    let metrics = Metrics::of(&completions(&file).unwrap(), &judge);
    assert_eq!((metrics.n, metrics.better, metrics.distinct), (4, 0.75, 0.75));
    assert_eq!((metrics.most_frequent, metrics.words), (0.5, 2.5));
    // Four distinct bigrams out of six.
    assert!((metrics.distinct_2 - 4.0 / 6.0).abs() < 1e-12);

    std::fs::write(&file, "{\"text\":\"a\"}\n").unwrap();
    let error = completions(&file).unwrap_err();
    assert!(error.to_string().ends_with("out.jsonl:1: no `completion`"), "{error}");
    std::fs::write(&file, "\n").unwrap();
    assert!(completions(&file).unwrap_err().to_string().ends_with("no completions"));
}
