//! The judge from outside: it learns what it is shown, leaves out what a reward model saw, and counts what stands there.

// Tests write their own files.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use data::SourceSpec;
use judge::{Features, Figures, Judge, completions, unseen};

/// Labelled rows: good texts have one of three words, bad ones another three.
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
fn a_judge_learns_what_it_is_shown_by_words_and_by_letters() {
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
    // The other way round, the same texts teach the opposite; labels by chance teach nothing.
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
fn what_the_pairs_have_is_left_out_also_of_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(100) + &rows(50);
    let whole = spec(folder.path(), "rows.jsonl", &rows);
    let seen = SourceSpec { limit: Some(60), ..whole.clone() };
    let texts = unseen(&whole, &seen).unwrap();
    // Rows 61 to 100; the fifty behind them repeat what was seen.
    assert_eq!(texts.len(), 40);
    assert!(texts[0].0.contains("the 60th"));
    let few = judge::Judge::new(Features::Words, &texts[..30]).unwrap_err().to_string();
    assert_eq!(few, "only 15 better and 15 worse texts that the recipe's pairs do not have");
}

#[test]
fn completions_are_counted_as_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let texts = unseen(
        &spec(folder.path(), "rows.jsonl", &rows(200)),
        &spec(folder.path(), "seen.jsonl", &rows(4)),
    );
    let judge = Judge::new(Features::Words, &texts.unwrap()).unwrap();
    let file = folder.path().join("out.jsonl");
    let lines = "{\"completion\":\"a lovely day\"}\n{\"completion\":\"a lovely day\"}\na nasty day\n{\"completion\":\"sweet\"}\n";
    std::fs::write(&file, lines).unwrap();
    let figures = Figures::of(&completions(&file).unwrap(), &judge);
    assert_eq!((figures.n, figures.better, figures.distinct), (4, 0.75, 0.75));
    assert_eq!((figures.most_frequent, figures.words), (0.5, 2.5));
    // Four different pairs of words among six.
    assert!((figures.distinct_2 - 4.0 / 6.0).abs() < 1e-12);

    std::fs::write(&file, "{\"text\":\"a\"}\n").unwrap();
    let error = completions(&file).unwrap_err();
    assert!(error.to_string().ends_with("out.jsonl:1: no `completion`"), "{error}");
    std::fs::write(&file, "\n").unwrap();
    assert!(completions(&file).unwrap_err().to_string().ends_with("no completions"));
}
