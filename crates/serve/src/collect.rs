//! Waits for all tokens of a request and returns the whole answer.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::api::ApiError;
use crate::engine::Event;
use crate::logprobs;
use crate::reply::{Part, Reply};

/// The whole answer.
pub(crate) async fn answer(
    mut events: UnboundedReceiver<Event>,
    mut reply: Reply,
) -> Result<Response, ApiError> {
    let empty = || Part {
        text: String::new(),
        calls: Vec::new(),
        logprobs: reply.has_logprobs().then(|| reply.no_logprobs()),
        finish_reason: None,
    };
    let mut parts: Vec<Part> = (0..reply.n_choices()).map(|_| empty()).collect();
    while !reply.is_finished() {
        match events.recv().await {
            Some(Event::Token { choice_idx, token }) => {
                let part = reply.part(choice_idx, token);
                if let Some(whole) = parts.get_mut(choice_idx) {
                    append(whole, part);
                }
            }
            Some(Event::Read { n_shared }) => reply.add_shared(n_shared),
            Some(Event::Embedding { .. }) => {}
            Some(Event::Failed { message }) => return Err(ApiError::server(message)),
            None => return Err(ApiError::server("the model stopped")),
        }
    }
    let json = (header::CONTENT_TYPE, "application/json");
    Ok(([json], reply.whole(parts)).into_response())
}

fn append(whole: &mut Part, part: Part) {
    whole.text += &part.text;
    whole.calls.extend(part.calls);
    whole.finish_reason = whole.finish_reason.or(part.finish_reason);
    if let (Some(all), Some(more)) = (&mut whole.logprobs, part.logprobs) {
        logprobs::append(all, more);
    }
}
