//! Requests of `/v1/embeddings`.

use serde_json::json;

use super::completion::Prompt;
use super::sampling::{self, Limits};
use super::{ApiError, Fields};

/// Texts of a request.
const MAX_TEXTS: usize = 2048;

/// A request that was read.
#[derive(Debug)]
pub(crate) struct EmbeddingRequest {
    /// Ids of each text.
    pub(crate) texts: Vec<Vec<u32>>,
    /// Whether vectors are sent as base64 of f32 in little-endian order, which OpenAI's Python client asks for.
    pub(crate) is_base64: bool,
}

/// Reads a request; its model, whose states have `width` numbers, has been read.
pub(crate) fn read(
    mut fields: Fields,
    limits: &Limits<'_>,
    width: usize,
) -> Result<EmbeddingRequest, ApiError> {
    fields.ignore(&["user"]);
    let format: Option<String> = fields.take("encoding_format")?;
    let is_base64 = match format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("`encoding_format` must be float or base64: `{other}`");
            return Err(ApiError::field("encoding_format", message));
        }
    };
    let dimensions = fields.count("dimensions", 1..=usize::MAX)?;
    if let Some(other) = dimensions.filter(|n| *n != width) {
        return Err(ApiError::refused("dimensions", &json!(other)));
    }
    let texts = fields.require::<Prompt>("input")?.encode("input", MAX_TEXTS, limits)?;
    fields.finish()?;
    for text in &texts {
        sampling::check_ids(text, "input", limits)?;
        if text.len() > limits.context {
            return Err(ApiError::context_of_text("input", text.len(), limits.context));
        }
    }
    Ok(EmbeddingRequest { texts, is_base64 })
}
