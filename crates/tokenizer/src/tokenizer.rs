//! The public tokenizer: text to ids and back, special token ids, files to save.
//!
//! `chat` encodes conversations.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::backend::{Backend, SpecialTokenNames};
use crate::byte_alphabet::byte_alphabet;
use crate::chat::ChatTemplate;
use crate::files::{self, TemplateSource};
use crate::{Error, Result};

/// Text to token ids and back. Cheap to clone; all threads can share it.
#[derive(Clone)]
pub struct Tokenizer {
    pub(crate) backend: Arc<Backend>,
    pub(crate) template: Option<ChatTemplate>,
    /// Token that ends an assistant turn in `template`.
    pub(crate) end_of_turn: Option<u32>,
}

impl Tokenizer {
    /// Reads a Hugging Face directory, or a tokenizer.json with the files next to it.
    ///
    /// Reads, if present: tokenizer_config.json, special_tokens_map.json,
    /// chat_template.jinja, and the token ids of generation_config.json or config.json.
    pub fn from_dir_or_file(path: impl AsRef<Path>) -> Result<Self> {
        let files = files::read(path.as_ref())?;
        let backend = Backend::from_files(&files);
        let backend = backend.map_err(|error| error.in_file(Some(&files.path)))?;
        let tokenizer = Self::without_template(backend);
        match files.template {
            Some(TemplateSource { path, source }) => {
                let template = ChatTemplate::from_source(&path.display().to_string(), source)?;
                Ok(tokenizer.with_chat_template(template))
            }
            None => Ok(tokenizer),
        }
    }

    /// A tokenizer from the tokenizer.json of one trained here.
    pub(crate) fn from_trained(json: &str, names: &SpecialTokenNames) -> Result<Self> {
        Ok(Self::without_template(Backend::from_trained(json, names)?))
    }

    fn without_template(backend: Backend) -> Self {
        Self { backend: Arc::new(backend), template: None, end_of_turn: None }
    }

    /// The same tokenizer with `template`, whose end token also counts as end-of-text.
    #[must_use]
    pub fn with_chat_template(&self, template: ChatTemplate) -> Self {
        // A tokenizer for raw text needs no end token of a template; encode_chat reports a missing
        // one.
        let end_of_turn = self.turn_end(&template).ok().map(|end| end.id);
        Self { backend: Arc::clone(&self.backend), template: Some(template), end_of_turn }
    }

    /// The same tokenizer with `token` as its end-of-text token, as TRL's `eos_token` sets it; the
    /// former one still ends texts.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] if the vocabulary lacks it.
    pub fn with_eos_token(&self, token: &str) -> Result<Self> {
        let Some(id) = self.token_id(token) else {
            let unknown = Error::UnknownToken { token: token.to_owned() };
            return Err(unknown.in_file(self.backend.file()));
        };
        let backend = Arc::new(self.backend.with_eos(id));
        Ok(Self { backend, template: self.template.clone(), end_of_turn: self.end_of_turn })
    }

    /// The same tokenizer for a sequence classifier. transformers reads the score at the last token that is not padding, so
    /// the padding token must end no text: where it does, it is replaced by the first special token that neither ends nor
    /// begins a text, or by none.
    #[must_use]
    pub fn for_classifier(&self) -> Self {
        let ends = self.eos_ids();
        if self.pad().is_some_and(|pad| !ends.contains(&pad)) {
            return self.clone();
        }
        let n_ids = u32::try_from(self.vocab_size()).unwrap_or(u32::MAX);
        let is_free =
            |id: &u32| self.is_special(*id) && !ends.contains(id) && self.bos() != Some(*id);
        let backend = Arc::new(self.backend.with_pad((0..n_ids).find(is_free)));
        Self { backend, template: self.template.clone(), end_of_turn: self.end_of_turn }
    }

    /// The same tokenizer with more tokens, as transformers' `add_tokens` adds them: one that the
    /// vocabulary has keeps its id.
    pub fn with_added_tokens(&self, tokens: &[String], special: bool) -> Result<Self> {
        let backend = Arc::new(self.backend.with_added_tokens(tokens, special)?);
        let tokenizer = Self { backend, template: None, end_of_turn: None };
        Ok(match &self.template {
            Some(template) => tokenizer.with_chat_template(template.clone()),
            None => tokenizer,
        })
    }

    /// The same tokenizer for a model whose embedding has `n_rows` rows: an id beyond them is an
    /// [`Error::IdBeyondRows`] where text becomes ids.
    #[must_use]
    pub fn for_embedding(mut self, n_rows: usize) -> Self {
        Arc::make_mut(&mut self.backend).set_rows(n_rows);
        self
    }

    /// Checks that ids from elsewhere, such as a cache, have rows in the embedding of [`Self::for_embedding`].
    pub fn check_ids(&self, ids: &[u32]) -> Result<()> {
        self.backend.check_ids(ids)
    }

    /// Chat template of the tokenizer's directory, or the one set later.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Ids of `text`, like transformers' `encode(text, add_special_tokens=True)`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.backend.encode(text, true)
    }

    /// Ids of `text`, like `encode(text, add_special_tokens=False)`: no token is added, but special
    /// tokens in the text become their ids.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        self.backend.encode(text, false)
    }

    /// [`Self::encode_plain`] for many texts on all cores, in order.
    pub fn encode_batch_plain<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode_plain(text.as_ref())).collect()
    }

    /// Text of `ids`. Ids without a token are omitted; invalid UTF-8 becomes `�`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.backend.decode(ids, skip_special)
    }

    /// Bytes that a token adds to a text, which may be a part of a character. None for special tokens, and for bytes that the
    /// vocabulary does not show.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        if self.is_special(id) {
            return None;
        }
        // Inside a text: some decoders drop a space at the start.
        let (once, twice) = (self.decode(&[id], false), self.decode(&[id, id], false));
        let text = twice.strip_prefix(once.as_str()).filter(|text| !text.is_empty());
        let text = text.unwrap_or(once.as_str());
        if !text.contains('\u{fffd}') {
            return Some(text.as_bytes().to_vec());
        }
        let token = self.token_text(id)?;
        let byte = token.strip_prefix("<0x").and_then(|hex| hex.strip_suffix('>'));
        if let Some(byte) = byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            return Some(vec![byte]);
        }
        let alphabet = byte_alphabet();
        let byte = |c: char| alphabet.iter().position(|known| *known == c);
        token.chars().map(|c| byte(c).map(|byte| byte as u8)).collect()
    }

    /// Token of an id as in the vocabulary (`Ġthe`), like `convert_ids_to_tokens`.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.backend.token_text(id)
    }

    /// The tokenizer.json, or the file that stands for it; `None` for a tokenizer that was trained here.
    pub fn file(&self) -> Option<&Path> {
        self.backend.file()
    }

    /// The file that gives a token its id; `None` for one that was added or trained here.
    pub fn file_of_id(&self, id: u32) -> Option<&Path> {
        self.backend.file_of_id(id)
    }

    /// Id of a token as in the vocabulary, like `convert_tokens_to_ids`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.backend.token_id(token)
    }

    /// The first id to which both vocabularies give a token, and not the same one, with the two tokens.
    pub fn first_difference(&self, other: &Self) -> Option<(u32, [String; 2])> {
        let n_ids = u32::try_from(self.vocab_size().min(other.vocab_size())).unwrap_or(u32::MAX);
        let tokens = |id: u32| Some((id, [self.token_text(id)?, other.token_text(id)?]));
        (0..n_ids).filter_map(tokens).find(|(_, [of_self, of_other])| of_self != of_other)
    }

    /// Whether `id` is a special token, which decoding can skip.
    pub fn is_special(&self, id: u32) -> bool {
        self.backend.added_token(id).is_some_and(|(_, special)| special)
    }

    /// Ids that [`Self::encode`] adds before every text: often the bos token or none.
    pub fn prefix_ids(&self) -> Vec<u32> {
        self.backend.prefix.clone()
    }

    /// Beginning-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.backend.specials.bos
    }

    /// End-of-text token, which ends a document.
    pub fn eos(&self) -> Option<u32> {
        self.backend.specials.eos
    }

    /// [`Self::eos`], or an error that says where to set it.
    pub fn require_eos(&self) -> Result<u32> {
        let missing = || {
            let error = Error::MissingSpecialToken { what: "end-of-text" };
            error.in_file(self.backend.file())
        };
        let eos = self.eos().ok_or_else(missing)?;
        self.check_ids(&[eos])?;
        Ok(eos)
    }

    /// Padding token. It may equal the end-of-text token; no mask depends on its value.
    pub fn pad(&self) -> Option<u32> {
        self.backend.specials.pad
    }

    /// Token for characters that are not in the vocabulary.
    pub fn unk(&self) -> Option<u32> {
        self.backend.specials.unk
    }

    /// All ids that end a text: eos, those of generation_config.json, the template's end token.
    pub fn eos_ids(&self) -> Vec<u32> {
        let specials = &self.backend.specials;
        let mut ids = Vec::new();
        for id in specials.eos.iter().chain(&specials.more_eos).chain(&self.end_of_turn) {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        ids
    }

    /// Largest id plus one, which is the number of rows in the embedding.
    pub fn vocab_size(&self) -> usize {
        self.backend.n_ids
    }

    /// SHA-256 of everything that determines ids: tokenizer, special tokens and chat template.
    pub fn hash(&self) -> Result<String> {
        let specials = &self.backend.specials;
        let template = self.template.as_ref().map_or("", ChatTemplate::source);
        let ids = format!(
            "{:?}",
            (&self.backend.prefix, specials.bos, specials.eos, specials.pad, self.eos_ids())
        );
        let parts = [self.backend.json_hash()?, ids, template.to_owned()];
        Ok(fsio::sha256_hex(parts.join("\0").as_bytes()))
    }

    /// Names and contents of the files from which AutoTokenizer loads the same tokenizer.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = vec![
            ("tokenizer.json".to_owned(), self.backend.to_json(false)?.into_bytes()),
            ("tokenizer_config.json".to_owned(), self.config()),
        ];
        if let Some(template) = &self.template {
            let source = template.source().as_bytes().to_vec();
            files.push(("chat_template.jinja".to_owned(), source));
        }
        Ok(files)
    }

    /// tokenizer_config.json with the generic class, which uses tokenizer.json unchanged.
    fn config(&self) -> Vec<u8> {
        let mut config = Map::new();
        config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
        config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
        let specials = &self.backend.specials;
        let named = [
            ("bos_token", specials.bos),
            ("eos_token", specials.eos),
            ("pad_token", specials.pad),
            ("unk_token", specials.unk),
        ];
        for (key, id) in named {
            if let Some(text) = id.and_then(|id| self.token_text(id)) {
                config.insert(key.to_owned(), text.into());
            }
        }
        config.extend(self.backend.kept_config.clone());
        // transformers reads the file of the template since 4.53, and other readers this key alone.
        if let Some(template) = &self.template {
            config.insert("chat_template".to_owned(), template.source().into());
        }
        let mut bytes = format!("{:#}", Value::Object(config)).into_bytes();
        bytes.push(b'\n');
        bytes
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("eos_ids", &self.eos_ids())
            .finish_non_exhaustive()
    }
}
