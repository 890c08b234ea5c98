//! An HTTP server with the interface of OpenAI: chat completions, completions, embeddings, models, metrics and a page to
//! chat.
//!
//! Each model has a thread that decodes all of its requests together (`engine`). Requests become token ids in `api`;
//! `routes` joins the two. This crate listens and opens no connection of its own.

mod access;
mod api;
mod app;
mod call_grammar;
mod collect;
mod embeddings;
mod endpoint;
mod engine;
mod error;
mod grammar;
mod logprobs;
mod metrics;
mod reply;
mod routes;
mod schema_keywords;
mod schema_limits;
mod server;
mod sse;
mod timed_io;
mod tool_calls;

use std::fmt;

use model::CausalLm;
use tokenizer::Tokenizer;

pub use error::{Error, Result};
pub use server::{Listener, run};

/// The models that are served.
pub struct Models {
    /// Each has a thread and a batch of its own.
    pub models: Vec<CausalLm>,
    /// The names by which requests choose them.
    pub named: Vec<NamedModel>,
}

/// A model, or one of a model's adapters, with the name by which requests choose it.
pub struct NamedModel {
    /// The name.
    pub name: String,
    /// The index of the model.
    pub model_idx: usize,
    /// The number of the adapter, in a model that has several (`lora::join`).
    pub adapter: Option<usize>,
    /// The tokenizer, with its chat template if it has one.
    pub tokenizer: Tokenizer,
}

/// Limits of requests, and the key.
#[derive(Clone)]
pub struct Options {
    /// The largest number of tokens of a completion, which is also their number where a request names none.
    pub max_tokens: usize,
    /// Requests that are answered at the same time; further ones are refused.
    pub max_clients: usize,
    /// The key that requests send as `Authorization: Bearer KEY`.
    pub key: Option<String>,
}

impl fmt::Debug for Options {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_tokens", &self.max_tokens)
            .field("max_clients", &self.max_clients)
            .finish_non_exhaustive()
    }
}
