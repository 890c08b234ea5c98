//! The tests of the tokenizer crate in one binary; what needs the shared data skips without it.

mod published;
mod renderings;
mod support;
mod training;
