//! The tokenizers library with its panics caught: special tokens, encoding, decoding.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Encoding};

use crate::config_values::{token_ids, token_text};
use crate::files::Files;
use crate::load::{Loaded, load};
use crate::origin::Origin;
use crate::untrusted::bounded::{Library, with_limits, within_budget};
use crate::untrusted::panics::catch;
use crate::{Error, Result};

/// Names of end-of-text tokens, for a tokenizer.json without a config.
pub(crate) const EOS_NAMES: [&str; 6] =
    ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|eot_id|>", "<｜end▁of▁sentence｜>"];
/// Names of padding tokens, for the same case.
pub(crate) const PAD_NAMES: [&str; 4] = ["<|pad|>", "<pad>", "[PAD]", "<|padding|>"];
/// Names of unknown-character tokens, for the same case.
pub(crate) const UNK_NAMES: [&str; 3] = ["<|unk|>", "<unk>", "[UNK]"];

/// Ids of the special tokens with a known meaning; 0 is a valid id.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialTokens {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    /// Where `eos` is from.
    pub(crate) eos_source: Option<EosSource>,
    pub(crate) pad: Option<u32>,
    pub(crate) unk: Option<u32>,
    /// Ids in generation_config.json that end generation, besides `eos`.
    pub(crate) more_eos: Vec<u32>,
}

/// Source of the end-of-text token, or of the token that ends answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EosSource {
    /// The chat template, which writes it between an answer and the next message.
    Template,
    /// tokenizer_config.json or special_tokens_map.json.
    TokenizerConfig,
    /// generation_config.json.
    GenerationConfig,
    /// config.json.
    ModelConfig,
    /// A token of the vocabulary with a usual name, or the first special token of a tokenizer that
    /// is trained here.
    Vocabulary,
    /// A GGUF file.
    Gguf,
    /// The recipe.
    Recipe,
}

impl EosSource {
    /// The source as it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Template => "the chat template",
            Self::TokenizerConfig => "tokenizer_config.json",
            Self::GenerationConfig => "generation_config.json",
            Self::ModelConfig => "config.json",
            Self::Vocabulary => "the vocabulary, by its name",
            Self::Gguf => "the GGUF file",
            Self::Recipe => "the recipe",
        }
    }
}

/// Special tokens besides bos, eos, pad and unk, by the names under which templates read them.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamedTokens {
    pub(crate) named: Vec<(String, String)>,
    /// `additional_special_tokens`.
    pub(crate) additional: Vec<String>,
}

impl NamedTokens {
    /// The tokens that a tokenizer_config.json names: the keys that end in `_token`, and
    /// `extra_special_tokens` as a table of names or as a list.
    fn of(config: &Map<String, Value>) -> Self {
        const USUAL: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];
        let extra = config.get("extra_special_tokens");
        let tables = [Some(config), extra.and_then(Value::as_object)];
        let mut named = Vec::new();
        for (table, is_extra) in tables.into_iter().zip([false, true]) {
            for (name, value) in table.into_iter().flatten() {
                let is_token = is_extra || name.ends_with("_token");
                let Some(text) = token_text(value).filter(|_| is_token) else { continue };
                if !USUAL.contains(&name.as_str()) {
                    named.push((name.clone(), text.to_owned()));
                }
            }
        }
        let lists = [config.get("additional_special_tokens"), extra];
        let listed = lists.into_iter().flatten().filter_map(Value::as_array).flatten();
        Self { named, additional: listed.filter_map(token_text).map(str::to_owned).collect() }
    }
}

/// Files of a tokenizer, for errors.
#[derive(Clone)]
pub(crate) struct SourceFiles {
    /// The tokenizer.json or what stands for it.
    tokenizer: PathBuf,
    /// The file that names further tokens.
    config: PathBuf,
    /// Largest id plus one in the tokenizer.json, and with the further tokens.
    n_ids: [usize; 2],
}

#[derive(Clone)]
pub(crate) struct Backend {
    library: Library,
    /// The same, but special tokens in the text stay text; created on first use.
    literal: OnceLock<Library>,
    /// Added tokens, sorted by id, with their text and whether they are special.
    added: Vec<(u32, String, bool)>,
    /// First characters of added tokens, to skip most texts quickly.
    first_chars: Vec<char>,
    pub(crate) specials: SpecialTokens,
    pub(crate) prefix: Vec<u32>,
    pub(crate) n_ids: usize,
    /// Rows of the model's embedding, if the model is known: ids beyond them are errors.
    n_rows: Option<usize>,
    /// Pieces of a text, encoded one by one, decode to the whole text.
    pub(crate) encodes_piecewise: bool,
    /// SHA-256 of the tokenizer.json; computed on first use.
    json_hash: OnceLock<String>,
    /// Settings of the original tokenizer_config.json that are saved again.
    pub(crate) kept_config: Map<String, Value>,
    pub(crate) named_tokens: NamedTokens,
    /// `None` for a tokenizer that was trained here.
    pub(crate) source: Option<SourceFiles>,
}

impl Backend {
    pub(crate) fn from_files(files: &Files) -> Result<Self> {
        let loaded = load(&files.tokenizer, &files.path, &files.config, files.origin)?;
        let Loaded { library, n_ids, n_file_ids } = loaded;
        let source = Some(SourceFiles {
            tokenizer: files.path.clone(),
            config: files.config_path.clone(),
            n_ids: [n_file_ids, n_ids],
        });
        let by_name = |name: &str| {
            let text = files.config.get(&format!("{name}_token")).and_then(token_text)?;
            library.token_to_id(text)
        };
        let by_id = |name: &str| {
            let ids = token_ids(files.ids.get(&format!("{name}_token_id")));
            ids.first().copied().filter(|id| library.id_to_token(*id).is_some())
        };
        let special = |names: &[&str]| find_special(&library, names);
        let is_gguf = files.origin == Origin::Gguf;
        let of_name = if is_gguf { EosSource::Gguf } else { EosSource::TokenizerConfig };
        let of_id = match (is_gguf, files.has_generation_ids) {
            (true, _) => EosSource::Gguf,
            (false, true) => EosSource::GenerationConfig,
            (false, false) => EosSource::ModelConfig,
        };
        let eos = by_name("eos")
            .map(|id| (id, of_name))
            .or_else(|| by_id("eos").map(|id| (id, of_id)))
            .or_else(|| special(&EOS_NAMES).map(|id| (id, EosSource::Vocabulary)));
        let specials = SpecialTokens {
            bos: by_name("bos").or_else(|| by_id("bos")),
            eos: eos.map(|(id, _)| id),
            eos_source: eos.map(|(_, source)| source),
            pad: by_name("pad").or_else(|| by_id("pad")).or_else(|| special(&PAD_NAMES)),
            unk: by_name("unk").or_else(|| by_id("unk")).or_else(|| special(&UNK_NAMES)),
            more_eos: token_ids(files.ids.get("eos_token_id")),
        };
        let named_tokens = NamedTokens::of(&files.config);
        let mut kept_config = Map::new();
        for key in ["model_max_length", "padding_side"] {
            if let Some(value) = files.config.get(key) {
                kept_config.insert(key.to_owned(), value.clone());
            }
        }
        for (name, text) in &named_tokens.named {
            kept_config.insert(name.clone(), text.clone().into());
        }
        if !named_tokens.additional.is_empty() {
            let tokens = named_tokens.additional.clone();
            kept_config.insert("additional_special_tokens".to_owned(), tokens.into());
        }
        Ok(Self { named_tokens, source, ..Self::new(library, n_ids, specials, kept_config) })
    }

    /// The same with more added tokens, which get the next free ids unless the vocabulary has them.
    pub(crate) fn with_added_tokens(&self, tokens: &[String], special: bool) -> Result<Self> {
        let mut library = self.library.clone();
        let tokens = tokens.iter().map(|text| AddedToken::from(text.as_str(), special));
        let tokens: Vec<AddedToken> = tokens.collect();
        let bytes = tokens.iter().map(|token| token.content.len()).sum();
        with_limits(bytes, || catch("adding tokens", || library.add_tokens(tokens)))
            .map_err(|reason| Error::TextBudget { reason })??;
        let largest = library.get_added_tokens_decoder().into_keys().max();
        let n_ids = self.n_ids.max(largest.map_or(0, |id| id as usize + 1));
        let named_tokens = self.named_tokens.clone();
        let backend = Self::new(library, n_ids, self.specials.clone(), self.kept_config.clone());
        Ok(Self { named_tokens, source: self.source.clone(), ..backend })
    }

    /// The same with another end-of-text token; the former one still ends texts.
    pub(crate) fn with_eos(&self, id: u32) -> Self {
        let mut backend = self.clone();
        let specials = &mut backend.specials;
        specials.more_eos.extend(specials.eos.filter(|former| *former != id));
        (specials.eos, specials.eos_source) = (Some(id), Some(EosSource::Recipe));
        backend
    }

    /// The same with another padding token, or none.
    pub(crate) fn with_pad(&self, id: Option<u32>) -> Self {
        let mut backend = self.clone();
        backend.specials.pad = id;
        backend
    }

    /// A backend from the tokenizer.json of a tokenizer trained here.
    pub(crate) fn from_trained(json: &str, names: &SpecialTokenNames) -> Result<Self> {
        let path = Path::new("tokenizer.json");
        let Loaded { library, n_ids, .. } = load(json, path, &Map::new(), Origin::TokenizerJson)?;
        let id = |name: &Option<String>| name.as_ref().and_then(|n| library.token_to_id(n));
        let specials = SpecialTokens {
            bos: id(&names.eos),
            eos: id(&names.eos),
            eos_source: Some(EosSource::Vocabulary),
            pad: id(&names.pad),
            unk: id(&names.unk),
            more_eos: Vec::new(),
        };
        Ok(Self::new(library, n_ids, specials, Map::new()))
    }

    pub(crate) fn new(
        library: Library,
        n_ids: usize,
        mut specials: SpecialTokens,
        kept_config: Map<String, Value>,
    ) -> Self {
        let mut added: Vec<(u32, String, bool)> = library
            .get_added_tokens_decoder()
            .into_iter()
            .map(|(id, token)| (id, token.content, token.special))
            .collect();
        added.sort_unstable();
        let mut first_chars: Vec<char> =
            added.iter().filter_map(|(_, text, _)| text.chars().next()).collect();
        first_chars.sort_unstable();
        first_chars.dedup();
        specials.more_eos.retain(|id| (*id as usize) < n_ids);
        let mut backend = Self {
            library,
            literal: OnceLock::new(),
            added,
            first_chars,
            specials,
            prefix: Vec::new(),
            n_ids,
            n_rows: None,
            encodes_piecewise: false,
            json_hash: OnceLock::new(),
            kept_config,
            named_tokens: NamedTokens::default(),
            source: None,
        };
        backend.prefix = backend.find_prefix();
        if backend.specials.bos.is_none() {
            backend.specials.bos = backend.prefix.first().copied();
        }
        backend.encodes_piecewise = backend.probe_piecewise();
        backend
    }

    /// Runs `encode` on `text` within its budget and checks the ids.
    fn encoding(
        &self,
        text: &str,
        encode: impl FnOnce() -> tokenizers::Result<Encoding>,
    ) -> Result<Encoding> {
        let encoding = within_budget(text, || catch("encoding", encode))
            .map_err(|reason| Error::TextBudget { reason })
            .and_then(|encoding| encoding)
            .map_err(|error| error.in_file(self.file()))?;
        self.check_ids(encoding.get_ids())?;
        Ok(encoding)
    }

    /// The same for a model whose embedding has `n_rows` rows.
    pub(crate) fn set_rows(&mut self, n_rows: usize) {
        self.n_rows = Some(n_rows);
    }

    /// Checks that the embedding has a row for each id.
    pub(crate) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let Some(n_rows) = self.n_rows else { return Ok(()) };
        match ids.iter().find(|id| **id as usize >= n_rows) {
            None => Ok(()),
            Some(id) => {
                let token = self.token_text(*id).unwrap_or_default();
                let beyond = Error::IdBeyondRows { token, id: *id, n_rows };
                Err(beyond.in_file(self.file_of_id(*id)))
            }
        }
    }

    /// The tokenizer.json, for errors.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| source.tokenizer.as_path())
    }

    /// The file that gives a token its id; `None` if it was added here.
    pub(crate) fn file_of_id(&self, id: u32) -> Option<&Path> {
        let source = self.source.as_ref()?;
        let files = [&source.tokenizer, &source.config].into_iter().zip(source.n_ids);
        let mut files = files.filter(|(_, n_ids)| (id as usize) < *n_ids);
        files.next().map(|(path, _)| path.as_path())
    }

    /// Ids of `text`; `add_special` adds the tokens of the post-processor.
    pub(crate) fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.encoding(text, || self.library.encode_fast(text, add_special))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of `text`, each with its start and end in bytes.
    pub(crate) fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, usize, usize)>> {
        let encoding = self.encoding(text, || self.library.encode(text, false))?;
        let offsets = encoding.get_offsets().iter();
        Ok(encoding.get_ids().iter().zip(offsets).map(|(id, (a, b))| (*id, *a, *b)).collect())
    }

    /// Ids of a text in which special tokens count as plain text, so that data cannot end a turn.
    ///
    /// Added tokens that are not special, such as `<think>` in some models, stay tokens.
    pub(crate) fn encode_literal(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text, false)?;
        if !ids.iter().any(|id| self.is_control_token(*id)) {
            return Ok(ids);
        }
        let literal = self.literal.get_or_init(|| {
            let mut copy = self.library.clone();
            copy.set_encode_special_tokens(true);
            copy
        });
        let encoding = self.encoding(text, || literal.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Whether text can inject this special token; the unknown-character token does not count.
    pub(crate) fn is_control_token(&self, id: u32) -> bool {
        Some(id) != self.specials.unk
            && (self.added_token(id).is_some_and(|(_, special)| special)
                || Some(id) == self.specials.eos)
    }

    /// Whether `text` contains a special token.
    pub(crate) fn contains_control_token(&self, text: &str) -> bool {
        text.contains(self.first_chars.as_slice())
            && self
                .added
                .iter()
                .any(|(id, token, _)| self.is_control_token(*id) && text.contains(token))
    }

    /// The longest added token at the start of `text`.
    pub(crate) fn leading_added_token(&self, text: &str) -> Option<u32> {
        let fitting = self.added.iter().filter(|(_, token, _)| text.starts_with(token.as_str()));
        fitting.max_by_key(|(_, token, _)| token.len()).map(|(id, _, _)| *id)
    }

    /// The added token that `text` ends with, the longest if several do, and its length in bytes.
    pub(crate) fn trailing_added_token(&self, text: &str) -> Option<(u32, usize)> {
        let fitting = self.added.iter().filter(|(_, token, _)| text.ends_with(token.as_str()));
        let longest = fitting.max_by_key(|(_, token, _)| token.len());
        longest.map(|(id, token, _)| (*id, token.len()))
    }

    /// The text of an added token and whether it is special.
    pub(crate) fn added_token(&self, id: u32) -> Option<(&str, bool)> {
        let idx = self.added.binary_search_by_key(&id, |(id, _, _)| *id).ok()?;
        self.added.get(idx).map(|(_, text, special)| (text.as_str(), *special))
    }

    pub(crate) fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let decode = || catch("decoding", || self.library.decode(ids, skip_special));
        // A few bytes for each token; with_limits adds what any text has.
        let decoded = with_limits(ids.len() * 8, decode);
        decoded.ok().and_then(Result::ok).unwrap_or_else(|| {
            // The decoder is broken; the raw pieces still show the tokens.
            ids.iter().filter_map(|id| self.token_text(*id)).collect()
        })
    }

    pub(crate) fn token_text(&self, id: u32) -> Option<String> {
        self.library.id_to_token(id)
    }

    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        self.library.token_to_id(token)
    }

    /// The tokenizer.json; the same bytes for the same tokenizer.
    pub(crate) fn to_json(&self, pretty: bool) -> Result<String> {
        catch("writing tokenizer.json", || self.library.to_string(pretty))
    }

    /// SHA-256 of [`Self::to_json`].
    pub(crate) fn json_hash(&self) -> Result<String> {
        if let Some(hash) = self.json_hash.get() {
            return Ok(hash.clone());
        }
        let hash = fsio::sha256_hex(self.to_json(false)?.as_bytes());
        Ok(self.json_hash.get_or_init(|| hash).clone())
    }

    /// Ids that `encode` adds before every text.
    fn find_prefix(&self) -> Vec<u32> {
        let (Ok(plain), Ok(full)) = (self.encode("a", false), self.encode("a", true)) else {
            return Vec::new();
        };
        if plain.is_empty() {
            return full;
        }
        let start = full.windows(plain.len()).position(|window| window == plain.as_slice());
        start.and_then(|start| full.get(..start)).map(<[u32]>::to_vec).unwrap_or_default()
    }

    /// Whether pieces of a text, encoded one by one, decode to the same text as the whole.
    ///
    /// True for byte-level and character tokenizers; false for those that mark the start of a text
    /// (a prefix space, sentencepiece's `▁`) or put spaces between tokens.
    fn probe_piecewise(&self) -> bool {
        const PIECES: [(&str, &str); 6] = [
            ("ab", "cd"),
            ("ab ", "cd"),
            ("ab", " cd"),
            ("ab\n", "\ncd"),
            ("ab:\n", " cd"),
            ("1", "2."),
        ];
        PIECES.iter().all(|(left, right)| {
            let whole = self.encode(&format!("{left}{right}"), false);
            let parts = self
                .encode(left, false)
                .and_then(|ids| Ok([ids, self.encode(right, false)?].concat()));
            match (whole, parts) {
                (Ok(whole), Ok(parts)) => self.decode(&whole, false) == self.decode(&parts, false),
                _ => false,
            }
        })
    }
}

/// Special tokens of a tokenizer that is trained here.
#[derive(Debug, Default)]
pub(crate) struct SpecialTokenNames {
    pub(crate) eos: Option<String>,
    pub(crate) pad: Option<String>,
    pub(crate) unk: Option<String>,
}

fn find_special(library: &Library, names: &[&str]) -> Option<u32> {
    let added = library.get_added_tokens_decoder();
    names.iter().find_map(|name| library.token_to_id(name).filter(|id| added.contains_key(id)))
}
