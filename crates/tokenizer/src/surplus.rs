//! Special tokens without a row in a model's embedding, which are left out.
//!
//! Models of one series share a tokenizer, and the smaller ones may lack rows for tokens that only the others use: Gemma 3
//! 1B has none for `<image_soft_token>`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::backend::{Backend, NamedTokens};
use crate::load::load;
use crate::origin::Origin;
use crate::{Result, Tokenizer};

impl Tokenizer {
    /// The same tokenizer without the special tokens that have no row in an embedding of `n_rows` rows, and their texts.
    ///
    /// `None` if there are no ids beyond the rows, or if one of them is needed: an ordinary token, one that begins, ends or
    /// pads texts, or one that the chat template writes.
    pub fn without_surplus(&self, n_rows: usize) -> Option<(Self, Vec<String>)> {
        let surplus = self.backend.surplus(n_rows)?;
        let template = self.template.as_ref().map_or("", |template| template.source());
        let is_used = |text: &String| template.contains(text.as_str());
        let ends_turns = self.end_of_turn.is_some_and(|id| id as usize >= n_rows);
        if ends_turns || surplus.iter().any(is_used) {
            return None;
        }
        // A tokenizer that cannot be written and read again keeps its tokens.
        let backend = Arc::new(self.backend.without(n_rows, &surplus).ok()?);
        let template = self.template.clone();
        Some((Self { backend, template, end_of_turn: self.end_of_turn }, surplus))
    }
}

impl Backend {
    /// Texts of the special tokens whose ids are `n_rows` or more. `None` without such ids, and if one of them is no special
    /// token or has a meaning.
    fn surplus(&self, n_rows: usize) -> Option<Vec<String>> {
        let beyond = (n_rows..self.n_ids).map(|id| u32::try_from(id).ok());
        let texts: Option<Vec<String>> = beyond
            .map(|id| match self.added_token(id?) {
                Some((text, true)) => Some(text.to_owned()),
                Some((_, false)) | None => None,
            })
            .collect();
        let specials = &self.specials;
        let named = [specials.bos, specials.eos, specials.pad, specials.unk];
        let mut needed = named.into_iter().flatten().chain(specials.more_eos.iter().copied());
        let is_needed = needed.any(|id| id as usize >= n_rows);
        texts.filter(|texts| !texts.is_empty() && !is_needed)
    }

    /// The same without ids from `n_rows` on, whose texts are `surplus`.
    fn without(&self, n_rows: usize, surplus: &[String]) -> Result<Self> {
        let mut json: Value = serde_json::from_str(&self.to_json(false)?).unwrap_or_default();
        let has_row = |id: Option<u64>| id.is_some_and(|id| id < n_rows as u64);
        if let Some(added) = json.get_mut("added_tokens").and_then(Value::as_array_mut) {
            added.retain(|token| has_row(token.get("id").and_then(Value::as_u64)));
        }
        if let Some(vocab) = json.pointer_mut("/model/vocab").and_then(Value::as_object_mut) {
            vocab.retain(|_, id| has_row(id.as_u64()));
        }
        let (path, config) = (Path::new("tokenizer.json"), Map::new());
        let loaded = load(&json.to_string(), path, &config, Origin::TokenizerJson)?;
        let is_surplus =
            |text: Option<&str>| surplus.iter().any(|gone| Some(gone.as_str()) == text);
        let mut kept_config = self.kept_config.clone();
        kept_config.retain(|_, value| !is_surplus(value.as_str()));
        if let Some(Value::Array(listed)) = kept_config.get_mut("additional_special_tokens") {
            listed.retain(|token| !is_surplus(token.as_str()));
        }
        let NamedTokens { mut named, mut additional } = self.named_tokens.clone();
        named.retain(|(_, text)| !is_surplus(Some(text.as_str())));
        additional.retain(|text| !is_surplus(Some(text.as_str())));
        let mut backend =
            Self::new(loaded.library, loaded.n_ids, self.specials.clone(), kept_config);
        backend.named_tokens = NamedTokens { named, additional };
        backend.source.clone_from(&self.source);
        Ok(backend)
    }
}
