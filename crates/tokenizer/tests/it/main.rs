//! Tests of the tokenizer crate; those that need the shared data skip where it is missing.

mod chats;
mod conversion;
mod encode_decode;
mod generation_masks;
mod interop;
mod published;
mod renderings;
mod support;
mod surplus;
mod throughput;
mod training;
mod untrusted;
