//! Text to token ids and back, special tokens, chat templates, and which tokens are learnt.
//!
//! It trains byte-level BPE and character tokenizers and reads any tokenizer.json within limits. It
//! writes no files, builds no batches and knows no recipe.

mod backend;
mod chat;
mod error;
mod files;
mod guard;
mod load;
mod pattern;
mod scan;
mod shape;
mod stream;
mod tokenizer;
mod train;

pub use chat::{ChatTemplate, Clock, Encoded, Message, Role, Turn};
pub use error::{Error, Result};
pub use stream::Stream;
pub use tokenizer::Tokenizer;
pub use train::{END_OF_TEXT, UNKNOWN, default_special_tokens};
