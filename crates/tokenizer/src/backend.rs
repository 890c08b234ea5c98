//! The tokenizers library with its panics caught: special tokens, encoding, decoding.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tokenizers::Tokenizer as Library;

use crate::Result;
use crate::files::{Files, token_ids, token_text};
use crate::load::load;
use crate::untrusted::panics::catch;

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
    pub(crate) pad: Option<u32>,
    pub(crate) unk: Option<u32>,
    /// Ids in generation_config.json that end generation, besides `eos`.
    pub(crate) more_eos: Vec<u32>,
}

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
    /// Pieces of a text, encoded one by one, decode to the whole text.
    pub(crate) encodes_piecewise: bool,
    /// SHA-256 of the tokenizer.json; computed on first use.
    json_hash: OnceLock<String>,
    /// Settings of the original tokenizer_config.json that are saved again.
    pub(crate) kept_config: Map<String, Value>,
}

impl Backend {
    pub(crate) fn from_files(files: &Files) -> Result<Self> {
        let (library, n_ids) = load(&files.tokenizer, &files.path, &files.config)?;
        let named = |name: &str| files.config.get(name).and_then(token_text);
        let id = |name: &str| {
            let by_name = named(&format!("{name}_token")).and_then(|t| library.token_to_id(t));
            let by_config = || {
                let ids = token_ids(files.ids.get(&format!("{name}_token_id")));
                ids.first().copied().filter(|id| library.id_to_token(*id).is_some())
            };
            by_name.or_else(by_config)
        };
        let special = |names: &[&str]| find_special(&library, names);
        let specials = SpecialTokens {
            bos: id("bos"),
            eos: id("eos").or_else(|| special(&EOS_NAMES)),
            pad: id("pad").or_else(|| special(&PAD_NAMES)),
            unk: id("unk").or_else(|| special(&UNK_NAMES)),
            more_eos: token_ids(files.ids.get("eos_token_id")),
        };
        let mut kept_config = Map::new();
        for key in ["model_max_length", "padding_side"] {
            if let Some(value) = files.config.get(key) {
                kept_config.insert(key.to_owned(), value.clone());
            }
        }
        Ok(Self::new(library, n_ids, specials, kept_config))
    }

    /// A backend from the tokenizer.json of a tokenizer trained here.
    pub(crate) fn from_trained(json: &str, names: &SpecialTokenNames) -> Result<Self> {
        let (library, n_ids) = load(json, Path::new("tokenizer.json"), &Map::new())?;
        let id = |name: &Option<String>| name.as_ref().and_then(|n| library.token_to_id(n));
        let specials = SpecialTokens {
            bos: id(&names.eos),
            eos: id(&names.eos),
            pad: id(&names.pad),
            unk: id(&names.unk),
            more_eos: Vec::new(),
        };
        Ok(Self::new(library, n_ids, specials, Map::new()))
    }

    fn new(
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
            encodes_piecewise: false,
            json_hash: OnceLock::new(),
            kept_config,
        };
        backend.prefix = backend.find_prefix();
        if backend.specials.bos.is_none() {
            backend.specials.bos = backend.prefix.first().copied();
        }
        backend.encodes_piecewise = backend.probe_piecewise();
        backend
    }

    /// Ids of `text`; `add_special` adds the tokens of the post-processor.
    pub(crate) fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = catch("encoding", || self.library.encode_fast(text, add_special))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of `text`, each with its start and end in bytes.
    pub(crate) fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, usize, usize)>> {
        let encoding = catch("encoding", || self.library.encode(text, false))?;
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
        let encoding = catch("encoding", || literal.encode_fast(text, false))?;
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
        catch("decoding", || self.library.decode(ids, skip_special)).unwrap_or_else(|_| {
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
