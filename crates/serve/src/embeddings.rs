//! Answers of `/v1/embeddings`: the state of a text's last token after the model's last norm, at length 1.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::api::ApiError;
use crate::engine::Event;

/// An answer that is being computed.
pub(crate) struct EmbeddingReply {
    pub(crate) model: String,
    pub(crate) n_texts: usize,
    pub(crate) n_tokens: usize,
    pub(crate) is_base64: bool,
}

impl EmbeddingReply {
    /// The answer, once all texts were read.
    pub(crate) async fn answer(
        self,
        mut events: UnboundedReceiver<Event>,
    ) -> Result<Response, ApiError> {
        let mut data: Vec<Value> = vec![Value::Null; self.n_texts];
        let mut n_missing = self.n_texts;
        while n_missing > 0 {
            match events.recv().await {
                Some(Event::Embedding { prompt_idx, values }) => {
                    let Some(place) = data.get_mut(prompt_idx) else { continue };
                    let vector = self.vector(unit(values)?);
                    *place =
                        json!({"object": "embedding", "index": prompt_idx, "embedding": vector});
                    n_missing -= 1;
                }
                Some(Event::Read { .. } | Event::Token { .. }) => {}
                Some(Event::Failed { message }) => return Err(ApiError::server(message)),
                None => return Err(ApiError::server("the model stopped")),
            }
        }
        let n_tokens = self.n_tokens;
        let usage = json!({"prompt_tokens": n_tokens, "total_tokens": n_tokens});
        let answer = json!({"object": "list", "data": data, "model": self.model, "usage": usage});
        let kind = (header::CONTENT_TYPE, "application/json");
        Ok(([kind], answer.to_string()).into_response())
    }

    fn vector(&self, values: Vec<f32>) -> Value {
        if !self.is_base64 {
            return values.into();
        }
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        BASE64_STANDARD.encode(bytes).into()
    }
}

/// The vector divided by its length.
fn unit(values: Vec<f32>) -> Result<Vec<f32>, ApiError> {
    let length = values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if !length.is_finite() {
        return Err(ApiError::server("the model's states are not finite"));
    }
    let length = length.max(f64::MIN_POSITIVE);
    Ok(values.into_iter().map(|x| (f64::from(x) / length) as f32).collect())
}
