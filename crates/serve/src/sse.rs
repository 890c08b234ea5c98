//! Streams the parts of an answer as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, Sleep, sleep};

use crate::api::ApiError;
use crate::engine::Event;
use crate::reply::Reply;

/// Time after which a comment says that the connection is alive: proxies close silent ones.
const SILENCE: Duration = Duration::from_secs(10);

/// The stream of an answer.
pub(crate) fn answer(
    events: UnboundedReceiver<Event>,
    reply: Reply,
    permit: OwnedSemaphorePermit,
) -> Response {
    let pending = (0..reply.n_choices()).filter_map(|idx| reply.first_chunk(idx)).map(data);
    let stream = Parts {
        pending: pending.collect(),
        events,
        reply,
        is_done: false,
        silence: Box::pin(sleep(SILENCE)),
        _permit: permit,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

fn data(json: String) -> Bytes {
    Bytes::from(format!("data: {json}\n\n"))
}

/// The events of an answer. When the reader disconnects it is dropped, which gives up the completions.
struct Parts {
    events: UnboundedReceiver<Event>,
    reply: Reply,
    pending: VecDeque<Bytes>,
    is_done: bool,
    silence: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Parts {
    fn add(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Token { choice_idx, token }) => {
                let part = self.reply.part(choice_idx, token);
                self.pending.extend(self.reply.part_chunk(choice_idx, part).map(data));
                if self.reply.is_finished() {
                    self.pending.extend(self.reply.usage_chunk().map(data));
                    self.end();
                }
            }
            Some(Event::Read { n_shared }) => self.reply.add_shared(n_shared),
            Some(Event::Embedding { .. }) => {}
            Some(Event::Failed { message }) => self.fail(message),
            None => self.fail("the model stopped".to_owned()),
        }
    }

    fn fail(&mut self, message: String) {
        self.pending.push_back(data(ApiError::server(message).json().to_string()));
        self.end();
    }

    fn end(&mut self) {
        self.pending.push_back(data("[DONE]".to_owned()));
        self.is_done = true;
    }
}

impl Stream for Parts {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(bytes) = self.pending.pop_front() {
                self.silence.as_mut().reset(Instant::now() + SILENCE);
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.is_done {
                return Poll::Ready(None);
            }
            if let Poll::Ready(event) = self.events.poll_recv(context) {
                self.add(event);
                continue;
            }
            match self.silence.as_mut().poll(context) {
                Poll::Ready(()) => self.pending.push_back(Bytes::from_static(b": waiting\n\n")),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
