//! Text to token ids and back, special tokens, chat templates and loss masks.
//!
//! Trains byte-level BPE and character tokenizers and reads any tokenizer.json within limits. Depends
//! neither on recipes nor on burn.

mod backend;
mod byte_alphabet;
mod chat;
mod config_values;
mod convert;
mod decode_stream;
mod error;
mod files;
mod load;
mod origin;
mod surplus;
mod tokenizer;
mod train;
mod untrusted;

pub use backend::EosSource;
pub use chat::{
    AssistantTurn, ChatTemplate, Clock, Conversation, Encoded, Message, REASONING_FIELDS, Role,
    TurnEnd,
};
pub use convert::READ_FILES;
pub use decode_stream::DecodeStream;
pub use error::{Error, Result};
pub use tokenizer::Tokenizer;
pub use train::{END_OF_TEXT, UNKNOWN, default_special_tokens};
