//! The token cache: a source is tokenised once, and never again while its inputs stay the same.
//!
//! A cache lies under `<cache_dir>/<key>`, the key being the SHA-256 of everything that the builder
//! can read: contents of files, formats, the source's keys, tokenizer, chat template, limit, and the
//! builder's version. Names, weights and sequence lengths do not enter it: they change no token.
//! It deliberately deletes nothing but a cache that is damaged.

mod build;
mod chunks;
mod file_hashes;
mod store;

use std::path::{Path, PathBuf};

use recipe::OnBadRow;
use serde::Serialize;
use serde_json::{Value, json};
use tokenizer::{ChatTemplate, Tokenizer};

use crate::error::{Error, Result};
use crate::formats::{Compression, format_name};
use crate::source::file_format;
use crate::spec::SourceSpec;

pub use store::TokenRole;
pub(crate) use store::{PoolCounts, TokenStore};

/// Raise it whenever the same inputs would give other tokens.
pub(crate) const BUILDER_VERSION: u32 = 1;

/// What rows become.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Documents to continue, for pretraining.
    Documents,
    /// Chats written out by a template, for fine-tuning.
    Chats(&'a ChatTemplate),
    /// Pairs of answers written out by a template, each text up to its end token.
    Pairs(&'a ChatTemplate),
    /// Prompts written out by a template, up to where the assistant's words begin.
    Prompts(&'a ChatTemplate),
}

/// What preparing needs besides the sources.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions<'a> {
    /// Where caches lie, such as `runs/.cache`.
    pub cache_dir: &'a Path,
    /// What turns text into ids.
    pub tokenizer: &'a Tokenizer,
    /// What rows become.
    pub content: Content<'a>,
    /// Whether a bad row stops the preparation.
    pub on_bad_row: OnBadRow,
    /// How many bad rows may be left out, in each source.
    pub max_bad_rows: u64,
}

/// How far the preparation is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Which source, from 0.
    pub source: usize,
    /// How many sources there are.
    pub n_sources: usize,
    /// The source's path as the recipe writes it.
    pub path: String,
    /// Bytes read of the source's files.
    pub bytes_read: u64,
    /// Bytes of the source's files.
    pub n_bytes: u64,
    /// Documents or chats made.
    pub n_rows: u64,
    /// Tokens made.
    pub n_tokens: u64,
}

/// Sources that are tokenised, checked and mapped.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) sources: Vec<PreparedSource>,
    pub(crate) ids: SpecialIds,
}

/// One prepared source.
#[derive(Clone, Debug)]
pub(crate) struct PreparedSource {
    /// The path as the recipe writes it, for display.
    pub(crate) path: String,
    pub(crate) weight: f64,
    pub(crate) key: String,
    pub(crate) store: TokenStore,
}

/// The ids that packing adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpecialIds {
    /// What stands in front of a document.
    pub(crate) prefix: Vec<u32>,
    /// What ends one.
    pub(crate) end: Option<u32>,
    /// What fills a row behind its last sample; nothing depends on it.
    pub(crate) pad: u32,
}

impl Prepared {
    /// The keys of the caches in source order: what a checkpoint notes as its data.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.key.as_str())
    }
}

/// Tokenises every source that has no valid cache yet, and maps all of them.
///
/// `progress` is called on this thread, a few times a second while a source is tokenised.
pub fn prepare(
    sources: &[SourceSpec],
    options: &PrepareOptions<'_>,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Prepared> {
    fsio::create_dir_all(options.cache_dir)?;
    remove_leftovers(options.cache_dir);
    let mut prepared = Vec::with_capacity(sources.len());
    for (index, spec) in sources.iter().enumerate() {
        let inputs = inputs(spec, options)?;
        let key = fsio::sha256_hex(inputs.to_string().as_bytes());
        let dir = options.cache_dir.join(&key);
        let store = match open(&dir, spec, options) {
            Some(store) => store,
            None => {
                let mut report = Progress {
                    source: index,
                    n_sources: sources.len(),
                    path: spec.path.clone(),
                    bytes_read: 0,
                    n_bytes: total_bytes(&spec.files)?,
                    n_rows: 0,
                    n_tokens: 0,
                };
                match build::build(&dir, spec, options, &inputs, &mut report, progress) {
                    // Another process has just finished the same.
                    Err(Error::Fs(fsio::Error::Exists { .. })) => {}
                    built => built?,
                }
                open(&dir, spec, options).ok_or_else(|| {
                    Error::bad_file(&dir, "a cache that was just written does not read back")
                })?
            }
        };
        prepared.push(PreparedSource { path: spec.path.clone(), weight: spec.weight, key, store });
    }
    let tokenizer = options.tokenizer;
    let ids = SpecialIds {
        prefix: tokenizer.prefix_ids(),
        end: tokenizer.eos(),
        pad: tokenizer.pad().or(tokenizer.eos()).unwrap_or(0),
    };
    Ok(Prepared { sources: prepared, ids })
}

/// Removes what killed processes left half made; whoever still lives keeps what it is making.
fn remove_leftovers(cache_dir: &Path) {
    let Ok(entries) = std::fs::read_dir(cache_dir) else { return };
    for entry in entries.filter_map(std::result::Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process =
            name.rsplit_once(".tmp-").map(|(_, process)| Path::new("/proc").join(process));
        let lives =
            process.is_none_or(|process| process.exists() || !Path::new("/proc/self").exists());
        if fsio::is_stale_tmp(&name) && !lives {
            // If it cannot be removed it only takes space.
            let _ = fsio::remove_dir_all(entry.path());
        }
    }
}

/// The key that a source's cache would have; nothing is tokenised.
pub fn cache_key(spec: &SourceSpec, options: &PrepareOptions<'_>) -> Result<String> {
    Ok(fsio::sha256_hex(inputs(spec, options)?.to_string().as_bytes()))
}

/// Everything that the builder can read, as one value.
fn inputs(spec: &SourceSpec, options: &PrepareOptions<'_>) -> Result<Value> {
    let (content, template) = match options.content {
        Content::Documents => ("documents", None),
        Content::Chats(template) => ("chats", Some(template.source())),
        Content::Pairs(template) => ("pairs", Some(template.source())),
        Content::Prompts(template) => ("prompts", Some(template.source())),
    };
    let tokenizer = options.tokenizer.hash().map_err(|source| Error::TokenizerUse { source })?;
    Ok(json!({
        "builder": BUILDER_VERSION,
        "content": content,
        "template": template,
        "tokenizer": tokenizer,
        "source": reading_inputs(spec, options.cache_dir)?,
    }))
}

/// Everything that decides which rows a source gives: its files' contents and its keys.
pub(crate) fn reading_inputs(spec: &SourceSpec, cache_dir: &Path) -> Result<Value> {
    let mut files = Vec::with_capacity(spec.files.len());
    for path in &spec.files {
        let format = format_name(file_format(path, spec.format)?);
        let hash = file_hashes::file_hash(cache_dir, path)?;
        files.push(json!([hash, format, Compression::of(path).name()]));
    }
    let mut inputs = json!({
        "files": files,
        "layout": value(&spec.layout),
        "text": spec.text,
        "rows": value(&spec.rows),
        "columns": value(&spec.columns),
        "limit": spec.limit,
    });
    // Keys that came later are named where they are set, so that older caches keep theirs.
    if let Some(filter) = &spec.filter {
        inputs["where"] = value(filter);
    }
    if let Some(pairs) = &spec.pairs {
        inputs["pairs"] = value(pairs);
    }
    Ok(inputs)
}

fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or(Value::Null)
}

fn total_bytes(files: &[PathBuf]) -> Result<u64> {
    let mut total = 0;
    for path in files {
        total += std::fs::metadata(path).map_err(|error| Error::io(path, error))?.len();
    }
    Ok(total)
}

/// Opens a cache that is whole and that the recipe accepts; removes a damaged one.
fn open(dir: &Path, spec: &SourceSpec, options: &PrepareOptions<'_>) -> Option<TokenStore> {
    if !dir.exists() {
        return None;
    }
    let summary = fsio::verify_dir(dir)
        .ok()
        .and_then(|manifest| serde_json::from_value(manifest.extra["summary"].clone()).ok());
    let store = summary.and_then(|summary| TokenStore::open(dir, summary, &spec.files).ok());
    let Some(store) = store else {
        // It can be made again, so nothing is lost by removing it.
        let _ = fsio::remove_dir_all(dir);
        return None;
    };
    // A cache made with bad rows left out does not serve a recipe that stops at them.
    let allowed = match options.on_bad_row {
        OnBadRow::Stop => 0,
        OnBadRow::Skip => options.max_bad_rows,
    };
    if store.summary.n_bad > allowed {
        let _ = fsio::remove_dir_all(dir);
        return None;
    }
    Some(store)
}
