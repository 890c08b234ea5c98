//! The token cache: a source is tokenized once, and again only if its inputs change.
//!
//! A cache is stored in `<cache_dir>/<key>`. The key is the SHA-256 of everything that the builder reads: file contents,
//! formats, the keys of the source, tokenizer, chat template, limit, and the version of the builder. Names, weights and
//! sequence lengths are not part of the key, because they change no token. A damaged cache is an error, which names the file.

mod build;
mod chunks;
mod file_hashes;
mod store;

use std::path::{Path, PathBuf};

use recipe::{ChatTargets, Format, OnBadRow};
use serde::Serialize;
use serde_json::{Value, json};
use tokenizer::{ChatTemplate, Clock, Tokenizer};

use crate::error::{Error, Result};
use crate::formats::{Compression, format_name};
use crate::source::file_format;
use crate::spec::SourceSpec;

pub use store::TokenRole;
pub(crate) use store::{PoolCounts, TokenStore};

/// Directory of the locks under which caches are built, in the cache directory.
const LOCKS: &str = "locks";

/// Version of the builder. Increment it when the same inputs produce different tokens.
pub(crate) const BUILDER_VERSION: u32 = 5;

/// Kind of samples that rows are converted to.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Documents, for pretraining.
    Documents,
    /// Chats rendered with a template, for fine-tuning.
    Chats(&'a ChatTemplate, ChatTargets),
    /// Pairs of answers rendered with a template, each text up to its end token.
    Pairs(&'a ChatTemplate),
    /// Labelled answers rendered with a template, each text up to its end token.
    Completions(&'a ChatTemplate),
    /// Prompts rendered with a template, up to the start of the assistant message.
    Prompts(&'a ChatTemplate),
}

/// Unit of [`Progress`] for pairs.
pub(crate) const PAIRS: &str = "pairs";

impl Content<'_> {
    /// Noun for the samples of a source, in the plural.
    fn unit(&self, spec: &SourceSpec) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::Chats(..) => "chats",
            // Pairs that are drawn have no row.
            Self::Pairs(_) if spec.pairs.is_some() => "texts",
            Self::Pairs(_) => PAIRS,
            Self::Completions(_) => "completions",
            Self::Prompts(_) => "prompts",
        }
    }
}

/// Options of [`prepare`].
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions<'a> {
    /// Directory of the caches, such as `runs/.cache`.
    pub cache_dir: &'a Path,
    /// Tokenizer of the model.
    pub tokenizer: &'a Tokenizer,
    /// Kind of samples.
    pub content: Content<'a>,
    /// Whether a bad row stops the preparation.
    pub on_bad_row: OnBadRow,
    /// Whether the first chats of each source are checked: the prompt of a turn must have the same
    /// tokens at generation as in training.
    pub check_prompts: bool,
    /// Maximum number of skipped bad rows per source.
    pub max_bad_rows: u64,
}

/// Progress of the preparation.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Whether another process is tokenizing the same source, for which this one waits.
    pub waiting: bool,
    /// Index of the source, from 0.
    pub source: usize,
    /// Number of sources.
    pub n_sources: usize,
    /// Path of the source as written in the recipe.
    pub path: String,
    /// Bytes read so far from the files of the source.
    pub bytes_read: u64,
    /// Size of the files of the source, in bytes.
    pub n_bytes: u64,
    /// Samples written so far; a pair is one.
    pub n_rows: u64,
    /// Noun for them, in the plural.
    pub unit: &'static str,
    /// Tokens written so far.
    pub n_tokens: u64,
}

/// Tokenized sources, checked and memory-mapped.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) sources: Vec<PreparedSource>,
    pub(crate) ids: SpecialIds,
}

/// One prepared source.
#[derive(Clone, Debug)]
pub(crate) struct PreparedSource {
    /// Path as written in the recipe, for display.
    pub(crate) path: String,
    /// Choice that was made among the files of a directory.
    pub(crate) choice: Option<String>,
    pub(crate) weight: f64,
    pub(crate) key: String,
    pub(crate) store: TokenStore,
}

/// Ids that packing adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpecialIds {
    /// Tokens before a document.
    pub(crate) prefix: Vec<u32>,
    /// End-of-text token.
    pub(crate) end: Option<u32>,
    /// Id of padding. No result depends on it.
    pub(crate) pad: u32,
    /// The tokenizer's file, for errors.
    pub(crate) tokenizer: Option<PathBuf>,
}

impl SpecialIds {
    /// The end-of-text token, or an error that names the tokenizer.
    pub(crate) fn require_end(&self) -> Result<u32> {
        self.end.ok_or_else(|| Error::NoEndToken { path: self.tokenizer.clone() })
    }
}

impl Prepared {
    /// Keys of the caches in source order. Checkpoints record them as their data.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.key.as_str())
    }
}

/// Tokenizes every source that has no cache, and memory-maps all of them. Of several processes that need the same cache, one
/// builds it and the others wait.
///
/// Errors: a cache is damaged, or cannot be read.
///
/// `progress` is called on this thread, a few times per second while a source is tokenized.
pub fn prepare(
    sources: &[SourceSpec],
    options: &PrepareOptions<'_>,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Prepared> {
    fsio::create_dir_all(options.cache_dir)?;
    fsio::remove_abandoned_tmps(options.cache_dir);
    let mut prepared = Vec::with_capacity(sources.len());
    for (index, spec) in sources.iter().enumerate() {
        let inputs = inputs(spec, options)?;
        let key = fsio::sha256_hex(inputs.to_string().as_bytes());
        let dir = options.cache_dir.join(&key);
        let store = match open(&dir, spec)? {
            Found::Usable(store) if accepts(options, &store) => store,
            Found::Usable(_) | Found::Other | Found::Nothing => {
                let mut report = Progress {
                    waiting: false,
                    source: index,
                    n_sources: sources.len(),
                    path: spec.path.clone(),
                    bytes_read: 0,
                    n_bytes: total_bytes(&spec.files)?,
                    n_rows: 0,
                    unit: options.content.unit(spec),
                    n_tokens: 0,
                };
                build_once(&dir, &key, spec, options, &inputs, &mut report, progress)?
            }
        };
        prepared.push(PreparedSource {
            path: spec.path.clone(),
            choice: spec.files.choice.clone(),
            weight: spec.weight,
            key,
            store,
        });
    }
    let tokenizer = options.tokenizer;
    let ids = SpecialIds {
        prefix: tokenizer.prefix_ids(),
        end: tokenizer.eos(),
        pad: tokenizer.pad().or(tokenizer.eos()).unwrap_or(0),
        tokenizer: tokenizer.file().map(Path::to_owned),
    };
    Ok(Prepared { sources: prepared, ids })
}

/// Takes the lock under which the directory `name` of the cache is made; calls `waiting` once if another process holds it.
pub fn lock_cache(cache_dir: &Path, name: &str, waiting: impl FnOnce()) -> Result<fsio::Lock> {
    let locks = cache_dir.join(LOCKS);
    fsio::create_dir_all(&locks)?;
    Ok(fsio::Lock::wait(locks.join(name), waiting)?)
}

/// The MANIFEST of a directory of the cache, all of whose files were compared with it; `None` if there is no such directory.
///
/// Errors: it is damaged, or cannot be read.
pub fn verified_cache(dir: &Path) -> Result<Option<fsio::Manifest>> {
    match fsio::verify_dir(dir) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(source @ fsio::Error::Damaged { .. }) => {
            Err(Error::DamagedCache { dir: dir.to_owned(), source })
        }
        Err(error) => Err(error.into()),
    }
}

/// Builds a cache under its lock, unless another process has built it while this one waited for the lock.
fn build_once(
    dir: &Path,
    key: &str,
    spec: &SourceSpec,
    options: &PrepareOptions<'_>,
    inputs: &Value,
    report: &mut Progress,
    progress: &mut dyn FnMut(&Progress),
) -> Result<TokenStore> {
    let _lock = lock_cache(options.cache_dir, key, || {
        report.waiting = true;
        progress(report);
        report.waiting = false;
    })?;
    match open(dir, spec)? {
        Found::Usable(store) if accepts(options, &store) => return Ok(store),
        // It can be built again, so removing it loses nothing.
        Found::Usable(_) | Found::Other => fsio::remove_dir_all(dir)?,
        Found::Nothing => {}
    }
    build::build(dir, spec, options, inputs, report, progress)?;
    match open(dir, spec)? {
        Found::Usable(store) => Ok(store),
        Found::Other | Found::Nothing => {
            Err(Error::bad_file(dir, "a cache that was just written does not read back"))
        }
    }
}

/// Key of a source's cache. Tokenizes nothing.
pub fn cache_key(spec: &SourceSpec, options: &PrepareOptions<'_>) -> Result<String> {
    Ok(fsio::sha256_hex(inputs(spec, options)?.to_string().as_bytes()))
}

/// Everything that the builder reads, as one value.
fn inputs(spec: &SourceSpec, options: &PrepareOptions<'_>) -> Result<Value> {
    let (name, template) = match options.content {
        Content::Documents => ("documents", None),
        Content::Chats(template, _) => ("chats", Some(template.source())),
        Content::Pairs(template) => ("pairs", Some(template.source())),
        Content::Completions(template) => ("completions", Some(template.source())),
        Content::Prompts(template) => ("prompts", Some(template.source())),
    };
    let tokenizer = options.tokenizer.hash().map_err(|source| Error::TokenizerUse { source })?;
    let mut inputs = json!({
        "builder": BUILDER_VERSION,
        "content": name,
        "template": template,
        "tokenizer": tokenizer,
        "source": reading_inputs(spec, options.cache_dir)?,
    });
    // Only templates that write the date depend on it.
    if let Content::Chats(template, _)
    | Content::Pairs(template)
    | Content::Completions(template)
    | Content::Prompts(template) = options.content
        && let Clock::Fixed(seconds) = template.clock()
        && template.reads("strftime_now")
    {
        inputs["now"] = seconds.into();
    }
    if let Content::Chats(_, targets) = options.content
        && targets != ChatTargets::default()
    {
        inputs["targets"] = value(&targets);
    }
    if options.check_prompts && !matches!(options.content, Content::Documents) {
        inputs["check_prompts"] = true.into();
    }
    Ok(inputs)
}

/// Everything that decides the rows of a source: the contents of its files and its keys.
pub(crate) fn reading_inputs(spec: &SourceSpec, cache_dir: &Path) -> Result<Value> {
    let mut files = Vec::with_capacity(spec.files.len());
    let mut has_types = false;
    for path in &spec.files {
        let format = file_format(path, spec.format)?;
        let hash = file_hashes::file_hash(cache_dir, path)?;
        files.push(json!([hash, format_name(format), Compression::of(path).name()]));
        has_types |= matches!(format, Format::Parquet | Format::Arrow);
    }
    let mut inputs = json!({
        "files": files,
        "layout": value(&spec.layout),
        "text": spec.text,
        "rows": value(&spec.rows),
        "columns": value(&spec.columns),
        "limit": spec.limit,
    });
    // In older caches, 32-bit floats have the digits of 64 bits, and of two columns of one name the last was read.
    if has_types {
        inputs["columns_version"] = 2.into();
    }
    // Keys that were added later are included only if set, so that older caches keep their key.
    if let Some(filter) = &spec.filter {
        inputs["where"] = value(filter);
    }
    if let Some(pairs) = &spec.pairs {
        inputs["pairs"] = value(pairs);
    }
    let options = &spec.files.options;
    if let Some(field) = &options.field {
        inputs["field"] = value(field);
    }
    if let Some(delimiter) = options.delimiter {
        inputs["delimiter"] = value(&delimiter);
    }
    if let Some(max_row_bytes) = options.max_row_bytes {
        inputs["max_row_bytes"] = value(&max_row_bytes);
    }
    if !spec.files.indices.is_empty() {
        let hashes = spec.files.indices.iter().map(|path| file_hashes::file_hash(cache_dir, path));
        inputs["indices"] = value(&hashes.collect::<Result<Vec<String>>>()?);
    }
    if !spec.roles.is_empty() {
        inputs["roles"] = value(&spec.roles);
    }
    if !spec.ignore_columns.is_empty() {
        // Caches with the key `ignore_columns` were built when ignored flags still decided targets.
        inputs["ignored"] = value(&spec.ignore_columns);
    }
    if !spec.answers.is_empty() {
        inputs["answers"] = value(&spec.answers);
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

/// A directory of the cache.
// One at a time, so its size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
enum Found {
    /// Undamaged.
    Usable(TokenStore),
    /// Undamaged, but not as this version writes it.
    Other,
    Nothing,
}

/// Opens a cache.
///
/// Errors: it differs from its MANIFEST, or cannot be read.
fn open(dir: &Path, spec: &SourceSpec) -> Result<Found> {
    let Some(manifest) = verified_cache(dir)? else { return Ok(Found::Nothing) };
    let Ok(summary) = serde_json::from_value(manifest.extra["summary"].clone()) else {
        return Ok(Found::Other);
    };
    Ok(Found::Usable(TokenStore::open(dir, summary, &spec.files)?))
}

/// Whether the recipe accepts as many bad rows as a cache was built with.
fn accepts(options: &PrepareOptions<'_>, store: &TokenStore) -> bool {
    let allowed = match options.on_bad_row {
        OnBadRow::Stop => 0,
        OnBadRow::Skip => options.max_bad_rows,
    };
    store.summary.n_bad <= allowed
}
