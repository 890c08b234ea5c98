//! The tests of the tokenizer crate in one binary; what needs the shared data skips without it.

mod chats;
mod encode_decode;
mod interop;
mod published;
mod renderings;
mod support;
mod throughput;
mod training;
mod untrusted;
