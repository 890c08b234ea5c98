//! Texts of requests as tokens: where a context ends and its continuation begins, and windows of long texts.

use tokenizer::Tokenizer;

use crate::error::Result;

/// A tokenizer with the prefix token and the length of a model's context.
pub(super) struct TaskTokenizer<'a> {
    tokenizer: &'a Tokenizer,
    /// Token before a text that has no context: beginning-of-text, or else end-of-text.
    prefix: u32,
    prefix_text: String,
    max_positions: usize,
}

/// Tokens whose log-likelihood is computed, with those before them. Both are not empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    pub(super) context: Vec<u32>,
    pub(super) continuation: Vec<u32>,
}

impl Pair {
    /// The ids that the model reads: all but the last.
    pub(super) fn input(&self) -> Vec<u32> {
        let mut input = self.context.clone();
        input.extend(self.continuation.iter().take(self.continuation.len().saturating_sub(1)));
        input
    }

    /// Number of ids that the model reads.
    pub(super) fn n_input(&self) -> usize {
        self.context.len() + self.continuation.len() - 1
    }
}

impl<'a> TaskTokenizer<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, max_positions: usize) -> Result<Self> {
        let prefix = match tokenizer.bos() {
            Some(bos) => bos,
            None => tokenizer.require_eos()?,
        };
        let prefix_text = tokenizer.decode(&[prefix], false);
        Ok(Self { tokenizer, prefix, prefix_text, max_positions })
    }

    pub(super) fn tokenizer(&self) -> &'a Tokenizer {
        self.tokenizer
    }

    /// Tokens of a prompt with the special tokens that the model expects, which a text that begins with the prefix token has
    /// already.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let has_prefix = !self.prefix_text.is_empty() && text.starts_with(&self.prefix_text);
        let ids = if has_prefix {
            self.tokenizer.encode_plain(text)
        } else {
            self.tokenizer.encode(text)
        };
        Ok(ids?)
    }

    /// Tokens of a continuation and of the text before it, and whether tokens at the beginning were cut off.
    ///
    /// White space at the end of the context is moved to the continuation. Both texts are tokenized together; the
    /// continuation's tokens are those after as many tokens as the context alone has. The inner error is a sentence.
    pub(super) fn pair(
        &self,
        context: &str,
        continuation: &str,
    ) -> Result<std::result::Result<(Pair, bool), String>> {
        let kept = tasks::python_trim_end(context);
        let moved = context.get(kept.len()..).unwrap_or_default();
        let (mut context, mut rest) = if kept.is_empty() {
            let ids = self.tokenizer.encode_plain(&(moved.to_owned() + continuation))?;
            if ids.first() == Some(&self.prefix) {
                (ids[..1].to_vec(), ids[1..].to_vec())
            } else {
                (vec![self.prefix], ids)
            }
        } else {
            let whole = self.encode(&format!("{kept}{moved}{continuation}"))?;
            let context = self.encode(kept)?;
            let rest = whole.get(context.len()..).unwrap_or_default().to_vec();
            (context, rest)
        };
        if context.is_empty() {
            context.push(self.prefix);
        }
        if rest.is_empty() {
            let reason = format!("the continuation has no tokens of its own: `{continuation}`");
            return Ok(Err(reason));
        }
        let n_longest = self.max_positions;
        if rest.len() > n_longest {
            return Ok(Err(format!(
                "a continuation of {} tokens, but the model's context is {n_longest}",
                rest.len()
            )));
        }
        // The last token is predicted, not read.
        let n_excess = (context.len() + rest.len()).saturating_sub(n_longest + 1);
        let n_cut = n_excess.min(context.len() - 1);
        context.drain(..n_cut);
        rest.shrink_to_fit();
        Ok(Ok((Pair { context, continuation: rest }, n_cut > 0)))
    }

    /// Disjoint windows of a text, each with at least one token before it; none for a text without tokens.
    ///
    /// The first is predicted from the prefix token. The last one is as long as what remains, and the tokens before it fill
    /// the model's context.
    pub(super) fn windows(&self, text: &str) -> Result<Vec<Pair>> {
        let ids = self.encode(text)?;
        let n_longest = self.max_positions;
        let mut windows = Vec::new();
        let mut start = 0;
        while start < ids.len() {
            let end = (start + n_longest).min(ids.len());
            let continuation = ids[start..end].to_vec();
            let context = if start == 0 {
                vec![self.prefix]
            } else {
                ids[end - n_longest - 1..start].to_vec()
            };
            windows.push(Pair { context, continuation });
            start = end;
        }
        Ok(windows)
    }
}

#[cfg(test)]
mod tests {
    use tokenizer::{Tokenizer, default_special_tokens};

    use super::{Pair, TaskTokenizer};

    fn bytes() -> Tokenizer {
        let specials = default_special_tokens();
        let texts = std::iter::once("ab".to_owned());
        Tokenizer::train_byte_bpe(texts, 256 + specials.len(), &specials).unwrap()
    }

    fn text(tokenizer: &Tokenizer, ids: &[u32]) -> String {
        tokenizer.decode(ids, false)
    }

    #[test]
    fn white_space_moves_to_the_continuation() {
        let tokenizer = bytes();
        let of = TaskTokenizer::new(&tokenizer, 100).unwrap();
        let (Pair { context, continuation }, truncated) = of.pair("ab \n", "c").unwrap().unwrap();
        assert!(text(&tokenizer, &context).ends_with("ab"));
        assert_eq!(text(&tokenizer, &continuation), " \nc");
        assert!(!truncated);
    }

    #[test]
    fn an_empty_context_is_the_prefix_token() {
        let tokenizer = bytes();
        let of = TaskTokenizer::new(&tokenizer, 100).unwrap();
        let (pair, _) = of.pair("", "ab").unwrap().unwrap();
        assert_eq!(
            (pair.context.len(), text(&tokenizer, &pair.continuation)),
            (1, "ab".to_owned())
        );
        assert_eq!(pair.context, vec![of.prefix]);
        let prefix = of.prefix_text.clone();
        let (pair, _) = of.pair("", &format!("{prefix}ab")).unwrap().unwrap();
        assert_eq!(
            (pair.context, text(&tokenizer, &pair.continuation)),
            (vec![of.prefix], "ab".to_owned())
        );
    }

    #[test]
    fn long_contexts_lose_their_beginning() {
        let tokenizer = bytes();
        let of = TaskTokenizer::new(&tokenizer, 4).unwrap();
        let (pair, truncated) = of.pair("abcdef", "gh").unwrap().unwrap();
        assert_eq!(text(&tokenizer, &pair.context), "def");
        assert_eq!((pair.n_input(), pair.input().len(), truncated), (4, 4, true));
        let (pair, truncated) = of.pair("abcdef", "ghij").unwrap().unwrap();
        assert_eq!((pair.context.len(), pair.n_input(), truncated), (1, 4, true));
        assert!(of.pair("a", "bcdef").unwrap().unwrap_err().contains("5 tokens"));
        assert!(of.pair("a", "").unwrap().unwrap_err().contains("no tokens"));
    }

    #[test]
    fn windows_are_disjoint_and_cover_the_text() {
        let tokenizer = bytes();
        let of = TaskTokenizer::new(&tokenizer, 4).unwrap();
        let ids = of.encode("abcdefghij").unwrap();
        let windows = of.windows("abcdefghij").unwrap();
        let predicted: Vec<u32> = windows.iter().flat_map(|w| w.continuation.clone()).collect();
        assert_eq!(predicted, ids);
        assert!(windows.iter().all(|window| window.n_input() <= 4));
        let last = windows.last().unwrap();
        assert_eq!(last.n_input(), 4);
        assert!(of.windows("").unwrap().iter().all(|w| !w.continuation.is_empty()));
    }
}
