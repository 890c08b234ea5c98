//! Requests of `/v1/completions`.

use serde::Deserialize;
use serde_json::json;

use super::sampling::{self, Limits, MAX_CHOICES, Request};
use super::{ApiError, Fields};

/// Log-probabilities of most likely tokens at a position.
const MAX_TOP_LOGPROBS: usize = 20;

/// The forms of `prompt`, and of `input` in requests for embeddings.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, a list of texts, a list of ids or a list of lists of ids")]
pub(super) enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    IdLists(Vec<Vec<u32>>),
}

/// Reads a request; its model has been read.
pub(crate) fn read(mut fields: Fields, limits: &Limits<'_>) -> Result<Request, ApiError> {
    let mut request = sampling::read(&mut fields, limits)?;
    let n_top = fields.count("logprobs", 0..=MAX_TOP_LOGPROBS)?;
    (request.logprobs, request.settings.top_logprobs) = (n_top.is_some(), n_top);
    let best_of = fields.count("best_of", 1..=usize::MAX)?.unwrap_or(request.settings.n);
    if best_of != request.settings.n {
        return Err(ApiError::refused("best_of", &json!(best_of)));
    }
    let prompt: Prompt = fields.require("prompt")?;
    fields.refuse(&[("suffix", json!("")), ("echo", json!(false))])?;
    fields.finish()?;
    request.prompts = prompt.encode("prompt", MAX_CHOICES, limits)?;
    sampling::check_prompts(&request, "prompt", limits)?;
    Ok(request)
}

impl Prompt {
    /// The ids of each text, of which there is at least one, and at most `most`.
    pub(super) fn encode(
        self,
        param: &str,
        most: usize,
        limits: &Limits<'_>,
    ) -> Result<Vec<Vec<u32>>, ApiError> {
        let n_texts = match &self {
            Self::Text(_) | Self::Ids(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::IdLists(lists) => lists.len(),
        };
        if n_texts > most {
            let message = format!("`{param}` has {n_texts} texts; at most {most}");
            return Err(ApiError::field(param, message));
        }
        let encode = |text: String| {
            sampling::check_bytes(text.len(), param, limits)?;
            let encoded = limits.tokenizer.encode(&text);
            encoded.map_err(|error| ApiError::field(param, error.to_string()))
        };
        let ids = match self {
            Self::Text(text) => vec![encode(text)?],
            Self::Texts(texts) => texts.into_iter().map(encode).collect::<Result<_, _>>()?,
            Self::Ids(ids) => vec![ids],
            Self::IdLists(lists) => lists,
        };
        if ids.is_empty() {
            return Err(ApiError::field(param, format!("`{param}` is empty")));
        }
        Ok(ids)
    }
}
