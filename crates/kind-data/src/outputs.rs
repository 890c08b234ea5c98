//! Comments → the files that recipes read, as bytes.
//!
//! It deliberately writes nothing: `main` does, and the tests compare what is committed.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use flate2::{Compression, GzBuilder};
use seed::{Purpose, Rng, derive, shuffled_index};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::fill::{Comment, Split, fill_all};
use crate::source::Source;
use crate::{N_HELDOUT_PAIRS, N_PAIRS, NAMED_IN_TEN, PLAIN_PROMPT, SEED};

/// One file of the dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Its name in `datasets/kind`.
    pub name: &'static str,
    /// Its rows, one JSON object a line.
    pub jsonl: String,
    /// How many rows.
    pub n_rows: usize,
}

impl OutputFile {
    fn new<Row: Serialize>(name: &'static str, rows: &[Row]) -> Result<Self> {
        let mut jsonl = String::new();
        for row in rows {
            let line = serde_json::to_string(row)
                .map_err(|error| Error::Pack { name: name.to_owned(), source: error.into() })?;
            jsonl.push_str(&line);
            jsonl.push('\n');
        }
        Ok(Self { name, jsonl, n_rows: rows.len() })
    }

    /// Whether the file is packed, by its name.
    pub fn is_packed(&self) -> bool {
        Path::new(self.name).extension() == Some(OsStr::new("gz"))
    }

    /// The bytes on disk: packed where the name ends in `.gz`, with no time and no name inside.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        if !self.is_packed() {
            return Ok(self.jsonl.clone().into_bytes());
        }
        // 255: "unknown operating system", so that every machine writes the same header.
        let builder = GzBuilder::new().mtime(0).operating_system(255);
        let mut packer = builder.write(Vec::new(), Compression::best());
        packer
            .write_all(self.jsonl.as_bytes())
            .and_then(|()| packer.finish())
            .map_err(|source| Error::Pack { name: self.name.to_owned(), source })
    }
}

#[derive(Serialize)]
struct CommentRow<'a> {
    text: &'a str,
    emotion: &'a str,
    topic: &'a str,
    pattern: usize,
    split: &'a str,
}

#[derive(Serialize)]
struct InstructionRow<'a> {
    prompt: String,
    completion: &'a str,
}

#[derive(Serialize)]
struct PairRow<'a> {
    prompt: &'a str,
    chosen: &'a str,
    rejected: &'a str,
}

#[derive(Serialize)]
struct PromptRow<'a> {
    prompt: &'a str,
}

/// Every file of the dataset that is not written by hand.
pub fn outputs(source: &Source) -> Result<Vec<OutputFile>> {
    let comments = fill_all(source)?;
    let (train, heldout): (Vec<Comment>, Vec<Comment>) =
        comments.into_iter().partition(|comment| comment.split == Split::Train);
    Ok(vec![
        OutputFile::new("comments.jsonl.gz", &comment_rows(&train))?,
        OutputFile::new("comments-heldout.jsonl.gz", &comment_rows(&heldout))?,
        OutputFile::new("instructions.jsonl.gz", &instruction_rows(&train, Split::Train))?,
        OutputFile::new(
            "instructions-heldout.jsonl.gz",
            &instruction_rows(&heldout, Split::Heldout),
        )?,
        OutputFile::new("pairs.jsonl.gz", &pair_rows(&train, Split::Train, N_PAIRS))?,
        OutputFile::new(
            "pairs-heldout.jsonl.gz",
            &pair_rows(&heldout, Split::Heldout, N_HELDOUT_PAIRS),
        )?,
        OutputFile::new("prompts.jsonl", &[PromptRow { prompt: PLAIN_PROMPT }])?,
    ])
}

fn comment_rows(comments: &[Comment]) -> Vec<CommentRow<'_>> {
    comments
        .iter()
        .map(|comment| CommentRow {
            text: &comment.text,
            emotion: comment.emotion.name,
            topic: &comment.topic,
            pattern: comment.pattern,
            split: comment.split.name(),
        })
        .collect()
}

/// Every comment once, seven in ten of them under a prompt that names the emotion.
fn instruction_rows(comments: &[Comment], split: Split) -> Vec<InstructionRow<'_>> {
    let mut rng = Rng::new(derive(SEED, split.name(), Purpose::Mix, 0, 0));
    let mut prompt = |comment: &Comment| {
        if rng.below(10) < NAMED_IN_TEN {
            format!("Write a comment that shows {}.", comment.emotion.name)
        } else {
            PLAIN_PROMPT.to_owned()
        }
    };
    comments
        .iter()
        .map(|comment| InstructionRow { prompt: prompt(comment), completion: &comment.text })
        .collect()
}

/// A kind comment beside an unkind one, no comment twice: topic, length and wording differ by
/// chance, only the emotion by rule.
fn pair_rows(comments: &[Comment], split: Split, n_pairs: usize) -> Vec<PairRow<'_>> {
    let (kind, unkind): (Vec<&Comment>, Vec<&Comment>) =
        comments.iter().partition(|comment| comment.emotion.kind);
    let key = derive(SEED, split.name(), Purpose::Pairs, 0, 0);
    let n_unkind = unkind.len() as u64;
    let mut pairs = Vec::with_capacity(n_pairs);
    for (nth, chosen) in (0..n_unkind).zip(kind).take(n_pairs) {
        let rejected = unkind.get(shuffled_index(key, n_unkind, nth) as usize);
        pairs.extend(rejected.map(|rejected| PairRow {
            prompt: PLAIN_PROMPT,
            chosen: &chosen.text,
            rejected: &rejected.text,
        }));
    }
    pairs
}
