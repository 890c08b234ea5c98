//! The tests of the tokenizer crate in one binary; what needs the shared data skips without it.

mod chats;
mod hostile;
mod interop;
mod published;
mod renderings;
mod support;
mod text;
mod throughput;
mod training;
