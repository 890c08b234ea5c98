//! Checks of the writing: articles, spacing, lengths, slots.

use std::collections::BTreeSet;

use kind_data::{Error, Source, fill_all, fill_pattern};

use crate::{COMMENTS, SOURCE};

/// Words that begin with a vowel letter and a consonant sound.
const A_BEFORE: [&str; 5] = ["one", "used", "university", "useful", "euro"];
/// Words that begin with a consonant letter and a vowel sound.
const AN_BEFORE: [&str; 3] = ["hour", "honest", "hourly"];

fn wants_an(word: &str) -> bool {
    if A_BEFORE.contains(&word) {
        return false;
    }
    AN_BEFORE.contains(&word) || word.starts_with(['a', 'e', 'i', 'o', 'u'])
}

/// Checks every filler of every slot in each pattern, whether or not a comment uses it.
#[test]
fn a_and_an_agree_with_every_filler() {
    for pattern in &SOURCE.patterns {
        let mut stride = 1;
        for slot in 0..pattern.slots.len() {
            let n = SOURCE.fillers(pattern, slot).len();
            for filler in 0..n {
                let text = fill_pattern(&SOURCE, pattern, filler * stride);
                assert!(articles_agree(&text), "{text} ({})", pattern.id);
            }
            stride *= n;
        }
    }
}

fn articles_agree(text: &str) -> bool {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '-')
        .filter(|word| !word.is_empty())
        .collect();
    words.windows(2).all(|pair| match pair[0] {
        "a" => !wants_an(pair[1]),
        "an" => wants_an(pair[1]),
        _ => true,
    })
}

#[test]
fn comments_are_tidy() {
    for comment in COMMENTS.iter() {
        let text = &comment.text;
        assert!(text.is_ascii(), "{text}");
        assert!(!text.contains(['{', '}', '\t']) && !text.contains("  "), "{text}");
        assert_eq!(text.trim(), text);
        let n_words = text.split_whitespace().count();
        assert!((4..=25).contains(&n_words), "{n_words} words: {text}");
        let words: Vec<String> = text.split(' ').map(str::to_lowercase).collect();
        let doubled = words.windows(2).find(|pair| {
            pair[0] == pair[1] && ["the", "a", "my", "in", "at", "of", "to"].contains(&&*pair[0])
        });
        assert!(doubled.is_none(), "{text}");
    }
}

#[test]
fn every_slot_is_used_and_within_its_size() {
    let source = &*SOURCE;
    let used: BTreeSet<&String> = source.patterns.iter().flat_map(|p| &p.slots).collect();
    for (name, fillers) in &source.slots {
        assert!(used.contains(name), "no pattern uses `{name}`");
        // There are only seven days and four seasons.
        let least = if ["day", "season"].contains(&name.as_str()) { 4 } else { 8 };
        assert!((least..=30).contains(&fillers.len()), "{name}: {} fillers", fillers.len());
    }
}

#[test]
fn errors_name_the_line() {
    let cases = [
        ("joy\tpets\tI pat the {dog}.", "patterns.tsv:2: unknown slot: `dog`"),
        ("glee\tpets\tI pat the {pet}.", "patterns.tsv:2: unknown emotion: `glee`"),
        ("joy\tI pat the {pet}.", "patterns.tsv:2: expected emotion, topic and pattern"),
        ("joy\tpets\tI pat the {pet.", "patterns.tsv:2: unclosed brace"),
        (
            "joy\tpets\tA {pet} and a {pet}.",
            "patterns.tsv:2: slot occurs twice in one pattern: `pet`",
        ),
        ("joy\tpets\tHi {pet}.\njoy\tpets\tHi {pet}.", "patterns.tsv:3: repeated pattern"),
    ];
    for (patterns, message) in cases {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("emotion\ttopic\tpattern\n{patterns}\n");
        fsio::write_atomic(dir.path().join("patterns.tsv"), text).unwrap();
        fsio::write_atomic(dir.path().join("slots.toml"), "pet = [\"cat\", \"dog\"]\n").unwrap();
        let error = Source::read(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Pattern { .. }) && error.hint().is_some());
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn too_few_combinations_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let text = "emotion\ttopic\tpattern\njoy\tpets\tHi {pet}, hello.\n";
    fsio::write_atomic(dir.path().join("patterns.tsv"), text).unwrap();
    fsio::write_atomic(dir.path().join("slots.toml"), "pet = [\"cat\", \"dog\"]\n").unwrap();
    let error = fill_all(&Source::read(dir.path()).unwrap()).unwrap_err();
    assert!(matches!(error, Error::TooFew { .. }), "{error}");
}
