//! The tokenizer as the rest of Temper sees it: text to ids and back, special ids, files to save.
//!
//! It holds at most one chat template (its model's own); chats themselves are in `chat`.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::backend::{Backend, SpecialTokenNames};
use crate::chat::ChatTemplate;
use crate::{Error, Result, files};

/// Text to token ids and back. Cheap to clone, the same from every thread.
#[derive(Clone)]
pub struct Tokenizer {
    pub(crate) backend: Arc<Backend>,
    template: Option<ChatTemplate>,
    /// The token that ends an assistant's turn in `template`.
    end_of_turn: Option<u32>,
}

impl Tokenizer {
    /// Reads a Hugging Face folder, or a tokenizer.json with what lies beside it.
    ///
    /// Also read, where present: tokenizer_config.json, special_tokens_map.json,
    /// chat_template.jinja, and the token ids of generation_config.json or config.json.
    pub fn from_dir_or_file(path: impl AsRef<Path>) -> Result<Self> {
        let files = files::read(path.as_ref())?;
        let tokenizer = Self::without_template(Backend::from_files(&files)?);
        match files.template {
            Some(source) => {
                let template = ChatTemplate::from_source("model", source)?;
                Ok(tokenizer.with_chat_template(template))
            }
            None => Ok(tokenizer),
        }
    }

    /// A tokenizer from a tokenizer.json that we made.
    pub(crate) fn from_trained(json: &str, names: &SpecialTokenNames) -> Result<Self> {
        Ok(Self::without_template(Backend::from_trained(json, names)?))
    }

    fn without_template(backend: Backend) -> Self {
        Self { backend: Arc::new(backend), template: None, end_of_turn: None }
    }

    /// The same tokenizer with `template` as its model's own, whose end token also ends texts.
    #[must_use]
    pub fn with_chat_template(&self, template: ChatTemplate) -> Self {
        // A template without an end token is no reason to refuse a tokenizer that is only used
        // for raw text; encode_chat refuses it by name.
        let end_of_turn = self.end_token(&template).ok();
        Self { backend: Arc::clone(&self.backend), template: Some(template), end_of_turn }
    }

    /// The chat template that came with the tokenizer or was given to it.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Ids of `text` as transformers gives them with `add_special_tokens=True`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.backend.encode(text, true)
    }

    /// Ids of `text` with nothing added; special tokens that stand in the text become their ids.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        self.backend.encode(text, false)
    }

    /// [`Self::encode_plain`] of many texts on all cores, in order.
    pub fn encode_batch_plain<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode_plain(text.as_ref())).collect()
    }

    /// The text of `ids`; ids without a token are left out, bytes that are no UTF-8 become `�`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.backend.decode(ids, skip_special)
    }

    /// The raw piece of one id, as the vocabulary spells it (`Ġthe`), for display.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.backend.token_text(id)
    }

    /// The id of a token as the vocabulary spells it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.backend.token_id(token)
    }

    /// Whether `id` is an added token that decoding can skip.
    pub fn is_special(&self, id: u32) -> bool {
        self.backend.added_token(id).is_some_and(|(_, special)| special)
    }

    /// What [`Self::encode`] puts in front of every text; often the bos token or nothing.
    pub fn prefix_ids(&self) -> Vec<u32> {
        self.backend.prefix.clone()
    }

    /// The beginning-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.backend.specials.bos
    }

    /// The end-of-text token, which ends a document.
    pub fn eos(&self) -> Option<u32> {
        self.backend.specials.eos
    }

    /// [`Self::eos`], or an error that says where to name one.
    pub fn require_eos(&self) -> Result<u32> {
        self.eos().ok_or(Error::MissingSpecialToken { what: "end-of-text" })
    }

    /// The padding token; it may be the end-of-text token, and nothing depends on its value.
    pub fn pad(&self) -> Option<u32> {
        self.backend.specials.pad
    }

    /// The token that stands for what the vocabulary cannot write.
    pub fn unk(&self) -> Option<u32> {
        self.backend.specials.unk
    }

    /// Every id that ends a text: eos, those of generation_config.json, the template's end token.
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

    /// The largest id plus one: how many rows an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.backend.n_ids
    }

    /// SHA-256 over everything that decides ids: tokenizer, special tokens and chat template.
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

    /// The files of a folder that AutoTokenizer opens with the same ids: name and bytes of each.
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

    /// tokenizer_config.json. The class is the generic one, which takes tokenizer.json as it is.
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
