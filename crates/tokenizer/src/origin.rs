//! The kinds of files that tokenizers are read from.

/// Kind of the files that a tokenizer is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// tokenizer.json.
    TokenizerJson,
    /// Files of an older release, converted.
    Converted,
    /// A GGUF file.
    Gguf,
}
