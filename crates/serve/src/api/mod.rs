//! Requests and answers in the form of OpenAI's API, and their errors.

mod answer;
mod chat;
mod completion;
mod embedding;
mod error;
mod fields;
mod message;
mod sampling;
mod tools;

pub(crate) use answer::{
    CallAnswer, CalledFunction, ChatLogprobs, Chunk, ChunkChoice, ChunkContent, Delta, Logprobs,
    Message, TextLogprobs, TokenLogprob, TopLogprob, Usage, Whole, WholeChoice, WholeContent,
};
pub(crate) use embedding::EmbeddingRequest;
pub(crate) use error::ApiError;
pub(crate) use fields::Fields;
pub(crate) use sampling::{Limits, Request, Rule};
pub(crate) use tools::{Function, RequiredCalls};

pub(crate) use chat::read as read_chat;
pub(crate) use completion::read as read_completion;
pub(crate) use embedding::read as read_embeddings;
