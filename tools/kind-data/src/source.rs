//! Parsing and validation of the two hand-written files, `patterns.tsv` and `slots.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::{Error, Result};

/// Slot names and their fillers.
pub type Slots = BTreeMap<String, Vec<String>>;

/// Size limit of either file, in bytes.
const SOURCE_BYTES: u64 = 4 << 20;

/// An emotion, named as in GoEmotions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Emotion {
    /// GoEmotions' label.
    pub name: &'static str,
    /// Whether the reward model should prefer comments with this emotion.
    pub kind: bool,
}

impl Emotion {
    /// The sixteen emotions, kind ones first.
    pub const ALL: [Self; 16] = [
        Self { name: "admiration", kind: true },
        Self { name: "amusement", kind: true },
        Self { name: "approval", kind: true },
        Self { name: "caring", kind: true },
        Self { name: "excitement", kind: true },
        Self { name: "gratitude", kind: true },
        Self { name: "joy", kind: true },
        Self { name: "love", kind: true },
        Self { name: "optimism", kind: true },
        Self { name: "pride", kind: true },
        Self { name: "relief", kind: true },
        Self { name: "anger", kind: false },
        Self { name: "annoyance", kind: false },
        Self { name: "disappointment", kind: false },
        Self { name: "disapproval", kind: false },
        Self { name: "disgust", kind: false },
    ];

    /// The emotion with this label.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|emotion| emotion.name == name)
    }
}

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Literal text.
    Text(String),
    /// A slot, by its index in [`Pattern::slots`].
    Slot(usize),
}

/// A comment with slots.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Line in `patterns.tsv`, from 1, without the header.
    pub id: usize,
    /// The emotion it expresses.
    pub emotion: Emotion,
    /// The topic.
    pub topic: String,
    /// The text as written, with `{slots}`.
    pub text: String,
    /// The text, split at its slots.
    pub pieces: Vec<Piece>,
    /// Slot names in order of appearance, without repetition.
    pub slots: Vec<String>,
    /// Number of combinations of fillers.
    pub n_fills: usize,
}

/// The contents of both files.
#[derive(Clone, Debug)]
pub struct Source {
    /// Patterns in file order.
    pub patterns: Vec<Pattern>,
    /// Fillers by slot name.
    pub slots: Slots,
}

impl Source {
    /// Reads `patterns.tsv` and `slots.toml` from a directory.
    pub fn read(dir: &Path) -> Result<Self> {
        let slots_path = dir.join("slots.toml");
        let slots = parse_slots(&slots_path, &fsio::read_text_capped(&slots_path, SOURCE_BYTES)?)?;
        let path = dir.join("patterns.tsv");
        let text = fsio::read_text_capped(&path, SOURCE_BYTES)?;
        Ok(Self { patterns: parse_patterns(&path, &text, &slots)?, slots })
    }

    /// The fillers of a pattern's slot.
    pub fn fillers(&self, pattern: &Pattern, slot: usize) -> &[String] {
        let name = pattern.slots.get(slot);
        name.and_then(|name| self.slots.get(name)).map_or(&[], Vec::as_slice)
    }
}

fn parse_slots(path: &Path, text: &str) -> Result<Slots> {
    let fail = |message: String| Error::Slots { path: path.to_owned(), message };
    let slots: Slots = toml_edit::de::from_str(text).map_err(|error| fail(error.to_string()))?;
    for (name, fillers) in &slots {
        let distinct: BTreeSet<&String> = fillers.iter().collect();
        if fillers.is_empty() || distinct.len() != fillers.len() {
            return Err(fail(format!("empty slot or repeated filler: `{name}`")));
        }
    }
    Ok(slots)
}

fn parse_patterns(path: &Path, text: &str, slots: &Slots) -> Result<Vec<Pattern>> {
    let mut patterns = Vec::new();
    let mut seen = BTreeSet::new();
    for (row, line) in text.lines().enumerate().skip(1) {
        let fail = |problem, value: &str| Error::Pattern {
            path: path.to_owned(),
            line: row + 1,
            problem,
            value: value.to_owned(),
        };
        let fields: Vec<&str> = line.split('\t').collect();
        let &[emotion, topic, text] = fields.as_slice() else {
            return Err(fail("expected emotion, topic and pattern", line));
        };
        let emotion = Emotion::named(emotion).ok_or_else(|| fail("unknown emotion", emotion))?;
        if !seen.insert(text) {
            return Err(fail("repeated pattern", text));
        }
        let (pieces, names) = cut(text).map_err(|(problem, value)| fail(problem, &value))?;
        let mut n_fills = 1_usize;
        for name in &names {
            let fillers = slots.get(name).ok_or_else(|| fail("unknown slot", name))?;
            n_fills = n_fills.saturating_mul(fillers.len());
        }
        patterns.push(Pattern {
            id: row,
            emotion,
            topic: topic.to_owned(),
            text: text.to_owned(),
            pieces,
            slots: names,
            n_fills,
        });
    }
    Ok(patterns)
}

/// Pieces and slot names, or the problem and the offending text.
type Cut = std::result::Result<(Vec<Piece>, Vec<String>), (&'static str, String)>;

/// Splits a pattern at its slots. Fails on an unclosed brace and on a repeated slot, with which two
/// combinations could give the same text.
fn cut(text: &str) -> Cut {
    let mut pieces = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or(("unclosed brace", text.to_owned()))?;
        if names.iter().any(|known| known == name) {
            return Err(("slot occurs twice in one pattern", name.to_owned()));
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(Piece::Slot(names.len()));
        names.push(name.to_owned());
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok((pieces, names))
}
