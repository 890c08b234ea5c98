//! Counts, the split and the committed files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use kind_data::{N_COMMENTS, N_HELDOUT_COMMENTS, N_HELDOUT_PAIRS, N_PAIRS, PLAIN_PROMPT};
use kind_data::{OutputFile, Split};
use serde_json::Value;

use crate::{COMMENTS, OUTPUTS, SOURCE, dir};

fn unpacked(file: &OutputFile) -> String {
    let bytes = fsio::read_capped(dir().join(file.name), 8 << 20).unwrap();
    assert!(bytes.len() < 2 << 20, "{} holds {} bytes", file.name, bytes.len());
    if !file.is_packed() {
        return String::from_utf8(bytes).unwrap();
    }
    assert_eq!(bytes[3..10], [0, 0, 0, 0, 0, 2, 255], "{}: time or name inside", file.name);
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    text
}

fn rows(file: &OutputFile) -> Vec<Value> {
    file.jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn field(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap().to_owned()
}

/// Decompressed contents are compared, because a compressor's output may change with its version.
#[test]
fn committed_files_equal_the_generator_output() {
    for file in OUTPUTS.iter() {
        let same = unpacked(file) == file.jsonl;
        assert!(same, "{} is stale: run `cargo run -p kind-data`", file.name);
        assert_eq!(file.bytes().unwrap(), file.bytes().unwrap());
    }
}

#[test]
fn patterns_cover_topics_and_emotions() {
    let source = &*SOURCE;
    assert!(source.patterns.len() >= 1_500);
    assert!(source.slots.len() >= 40);
    let topics: BTreeSet<&str> = source.patterns.iter().map(|p| p.topic.as_str()).collect();
    assert!(topics.len() >= 14, "{topics:?}");
    let mut emotions: BTreeMap<&str, usize> = BTreeMap::new();
    for pattern in &source.patterns {
        *emotions.entry(pattern.emotion.name).or_default() += 1;
        assert!((1..=4).contains(&pattern.slots.len()), "{}", pattern.text);
    }
    assert_eq!(emotions.len(), 16);
    assert!(emotions.values().all(|&n| n >= 75), "{emotions:?}");
    let n_kind = source.patterns.iter().filter(|p| p.emotion.kind).count();
    let share = n_kind as f64 / source.patterns.len() as f64;
    assert!((0.45..0.55).contains(&share), "{share}");
}

#[test]
fn comments_are_distinct_and_split_by_pattern() {
    let comments = &*COMMENTS;
    assert_eq!(comments.len(), N_COMMENTS);
    let texts: BTreeSet<&str> = comments.iter().map(|c| c.text.as_str()).collect();
    assert_eq!(texts.len(), N_COMMENTS);
    let patterns = |split| -> BTreeSet<usize> {
        comments.iter().filter(|c| c.split == split).map(|c| c.pattern).collect()
    };
    let (train, heldout) = (patterns(Split::Train), patterns(Split::Heldout));
    assert!(train.is_disjoint(&heldout));
    assert_eq!(train.len() + heldout.len(), SOURCE.patterns.len());
    assert!(heldout.len().abs_diff(SOURCE.patterns.len() / 10) <= 8, "{}", heldout.len());
    let n_heldout = comments.iter().filter(|c| c.split == Split::Heldout).count();
    assert_eq!(n_heldout, N_HELDOUT_COMMENTS);
    for split in [Split::Train, Split::Heldout] {
        let part: Vec<_> = comments.iter().filter(|c| c.split == split).collect();
        assert_eq!(part.iter().filter(|c| c.emotion.kind).count() * 2, part.len());
    }
}

#[test]
fn instructions_and_pairs_keep_the_split() {
    let kind: BTreeMap<&str, (bool, Split)> = COMMENTS
        .iter()
        .map(|comment| (comment.text.as_str(), (comment.emotion.kind, comment.split)))
        .collect();
    for file in OUTPUTS.iter() {
        let split = if file.name.contains("heldout") { Split::Heldout } else { Split::Train };
        let rows = rows(file);
        if file.name.starts_with("instructions") {
            let plain = rows.iter().filter(|row| row["prompt"] == PLAIN_PROMPT).count();
            let share = plain as f64 / rows.len() as f64;
            assert!((0.28..0.32).contains(&share), "{}: {share}", file.name);
            for row in rows {
                assert_eq!(kind[field(&row, "completion").as_str()].1, split);
            }
        } else if file.name.starts_with("pairs") {
            let n = if split == Split::Train { N_PAIRS } else { N_HELDOUT_PAIRS };
            assert_eq!(rows.len(), n, "{}", file.name);
            let mut seen = BTreeSet::new();
            for row in rows {
                for (name, is_kind) in [("chosen", true), ("rejected", false)] {
                    let text = field(&row, name);
                    assert_eq!(kind[text.as_str()], (is_kind, split));
                    assert!(seen.insert(text), "{row}");
                }
            }
        }
    }
}

#[test]
fn hand_pairs_come_from_no_pattern() {
    let text = fsio::read_text_capped(dir().join("hand_pairs.jsonl"), 1 << 20).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 100);
    let comments = &*COMMENTS;
    let known: BTreeSet<&str> = comments.iter().map(|c| c.text.as_str()).collect();
    let mut seen = BTreeSet::new();
    for row in &rows {
        assert_eq!(row["prompt"], PLAIN_PROMPT);
        for name in ["chosen", "rejected"] {
            let text = field(row, name);
            assert!(!known.contains(text.as_str()), "{text}");
            assert!(seen.insert(text.clone()), "repeated: {text}");
        }
    }
}
