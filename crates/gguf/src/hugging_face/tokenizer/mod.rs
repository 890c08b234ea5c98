//! `tokenizer.ggml.*` and the files of a Hugging Face tokenizer.

mod pre_tokenizer;
mod read;
mod sentencepiece;
mod vocabulary;
mod write;

pub(super) use read::{token_ids, tokenizer_config, tokenizer_json};
pub use write::TokenizerSource;
pub(super) use write::metadata;
