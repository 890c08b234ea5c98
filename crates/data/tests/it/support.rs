//! Files, tokenizers and datasets that several tests use.

use std::io::Write;
use std::path::{Path, PathBuf};

use data::{Content, PrepareOptions, Prepared, RunOptions, SourceSpec, prepare};
use recipe::{ColumnValues, OnBadRow};
use tokenizer::{Tokenizer, default_special_tokens};

/// A temporary directory that is removed after the test.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes a file and returns its path.
pub(crate) fn file(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// gzip of some bytes.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Zstandard of some bytes.
pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// A tokenizer of single characters that covers ASCII.
pub(crate) fn chars() -> Tokenizer {
    let text: String = (' '..='~').chain(['\n', '\t', 'é', '日', '本']).collect();
    Tokenizer::train_char(std::iter::once(text), &default_special_tokens()).unwrap()
}

/// A small byte-level BPE.
pub(crate) fn bpe() -> Tokenizer {
    let text = "the cat sat on the mat and the dog ate the hat, then the man ran to the van. ";
    Tokenizer::train_byte_bpe(std::iter::once(text.repeat(20)), 320, &default_special_tokens())
        .unwrap()
}

/// Directory of data outside of the repository, if it exists.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let folder = std::env::var_os("TEMPER_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    folder.is_dir().then_some(folder)
}

/// Prepares sources; a bad row is an error.
pub(crate) fn prepared(
    cache: &Path,
    sources: &[SourceSpec],
    tokenizer: &Tokenizer,
    content: Content<'_>,
) -> data::Result<Prepared> {
    let options = PrepareOptions {
        cache_dir: cache,
        tokenizer,
        content,
        on_bad_row: OnBadRow::Stop,
        max_bad_rows: 0,
        check_prompts: true,
    };
    prepare(sources, &options, &mut |_| {})
}

/// Options of a run of `epochs` epochs.
pub(crate) fn run(sequence_length: usize, rows_per_step: usize, epochs: f64) -> RunOptions {
    RunOptions {
        seed: 1,
        stage: "pretrain".into(),
        sequence_length,
        rows_per_step,
        max_steps: None,
        epochs: Some(epochs),
        max_tokens: None,
        holdout: None,
    }
}

/// Column values as in a recipe.
pub(crate) fn values(columns: &[(&str, &[&str])]) -> ColumnValues {
    let columns: serde_json::Map<_, _> = columns
        .iter()
        .map(|(column, values)| ((*column).to_owned(), serde_json::json!(values)))
        .collect();
    serde_json::from_value(columns.into()).unwrap()
}

/// The texts of a batch, row by row.
pub(crate) fn decoded(batch: &data::Batch, tokenizer: &Tokenizer) -> Vec<String> {
    batch.texts().into_iter().map(|ids| tokenizer.decode(ids, false)).collect()
}

/// An error with its hint, as the command line prints them.
pub(crate) fn shown(error: &data::Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error}\n  hint: {hint}"),
        None => error.to_string(),
    }
}
