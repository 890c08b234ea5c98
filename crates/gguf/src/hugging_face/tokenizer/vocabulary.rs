//! The vocabulary of a file: texts, kinds and scores of its tokens, and the ids with a meaning.

use crate::{Error, Metadata, Result, limits};

/// Kinds of tokens, as numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Normal, Self::Unknown, Self::Control, Self::UserDefined, Self::Unused, Self::Byte];

    /// The number of the kind.
    pub(super) fn id(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }

    /// The kind with this number.
    fn from_id(id: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| u64::try_from(kind.id()) == Ok(id))
    }
}

/// The two models of tokenizers that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    /// Byte-level BPE with merges.
    ByteBpe,
    /// sentencepiece BPE with scores.
    SentencePiece,
}

/// The tokens of a file.
#[derive(Debug)]
pub(super) struct Vocabulary<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) model: Model,
    pub(super) tokens: &'a [String],
    pub(super) kinds: Vec<Kind>,
}

impl<'a> Vocabulary<'a> {
    /// The vocabulary; none if the file has none.
    pub(super) fn read(metadata: &'a Metadata) -> Result<Option<Self>> {
        let model = match metadata.text("tokenizer.ggml.model")? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some("gpt2") => Model::ByteBpe,
            Some("llama") => Model::SentencePiece,
            Some(other) => {
                return Err(Error::Unsupported {
                    path: metadata.path().to_owned(),
                    reason: format!("tokenizer model `{other}` is not supported"),
                    hint: "supported: gpt2 (byte-level BPE), llama (sentencepiece BPE)".to_owned(),
                });
            }
        };
        let key = "tokenizer.ggml.tokens";
        let tokens = metadata.require(key, metadata.strings(key)?)?;
        if tokens.len() > limits::TOKENS {
            let (found, limit) = (tokens.len(), limits::TOKENS);
            let reason = format!("{found} tokens, more than the limit of {limit}");
            return Err(Error::Malformed { path: metadata.path().to_owned(), reason });
        }
        let key = "tokenizer.ggml.token_type";
        let kinds = metadata.array(key, "an array of token types from 1 to 6", |value| {
            Kind::from_id(value.as_u64()?)
        })?;
        let kinds = kinds.unwrap_or_else(|| vec![Kind::Normal; tokens.len()]);
        if kinds.len() != tokens.len() {
            return Err(metadata.wrong(key, "as long as tokenizer.ggml.tokens"));
        }
        Ok(Some(Self { metadata, model, tokens, kinds }))
    }

    /// Ids, texts and kinds.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, &'a str, Kind)> {
        let kinds = self.kinds.iter().copied();
        self.tokens
            .iter()
            .zip(kinds)
            .enumerate()
            .map(|(id, (text, kind))| (id, text.as_str(), kind))
    }

    /// The id of a special token; `default` is that of files that do not state it.
    pub(super) fn special(&self, name: &str, default: Option<u64>) -> Result<Option<usize>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let default = default.filter(|_| self.model == Model::SentencePiece);
        let Some(id) = self.metadata.uint(&key)?.or(default) else { return Ok(None) };
        match usize::try_from(id) {
            Ok(id) if id < self.tokens.len() => Ok(Some(id)),
            // Some converters write −1 as 2³² − 1 for "none".
            _ if id == u64::from(u32::MAX) => Ok(None),
            _ => Err(self.metadata.wrong(&key, "the id of a token")),
        }
    }

    pub(super) fn bos(&self) -> Result<Option<usize>> {
        self.special("bos", Some(1))
    }

    pub(super) fn eos(&self) -> Result<Option<usize>> {
        self.special("eos", Some(2))
    }
}
