//! Comments → the bytes of the files that recipes read. `main` writes them; the tests compare the committed ones.

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

/// A file of the dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// File name in `datasets/kind`.
    pub name: &'static str,
    /// Rows, one JSON object per line.
    pub jsonl: String,
    /// Number of rows.
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

    /// Whether the file is gzip-compressed, judged by its name.
    pub fn is_packed(&self) -> bool {
        Path::new(self.name).extension() == Some(OsStr::new("gz"))
    }

    /// The bytes on disk: gzip where the name ends in `.gz`, without time stamp or file name.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        if !self.is_packed() {
            return Ok(self.jsonl.clone().into_bytes());
        }
        // 255 means "unknown operating system", so every machine writes the same header.
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

/// All generated files of the dataset.
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

/// Each comment once, seven in ten with a prompt that names the emotion.
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

/// Pairs of a kind (chosen) and an unkind (rejected) comment, each comment used at most once. Topic,
/// length and wording are independent of the side; only the emotion is not.
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
