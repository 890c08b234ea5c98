//! Turns a rendered conversation with located contents into token ids, roles and a loss mask.

use std::ops::Range;

use super::assistant_turn::hint;
use super::template_layout::{RenderedChat, TurnSpan};
use super::{AssistantTurn, ChatTemplate, Encoded, Message, Role};
use crate::{Error, Result, Tokenizer};

/// A token with its byte range in the rendering.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) id: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Encodes one rendered conversation.
pub(crate) struct ChatEncoder<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) template: &'a ChatTemplate,
    pub(crate) messages: &'a [Message],
    pub(crate) chat: &'a RenderedChat,
}

impl ChatEncoder<'_> {
    pub(crate) fn encoded(&self, tokens: &[Token]) -> Result<Encoded> {
        let mut encoded = Encoded {
            ids: tokens.iter().map(|token| token.id).collect(),
            roles: tokens.iter().map(|token| self.role(*token)).collect(),
            loss_mask: vec![false; tokens.len()],
            turns: Vec::with_capacity(self.chat.turns.len()),
        };
        for span in &self.chat.turns {
            let turn = self.turn(tokens, span)?;
            let is_target = self.messages.get(turn.message).is_none_or(|m| m.is_target);
            for idx in turn.targets.clone() {
                if let (Some(mask), Some(role)) =
                    (encoded.loss_mask.get_mut(idx), encoded.roles.get_mut(idx))
                {
                    *mask = is_target;
                    *role = Some(Role::Assistant);
                }
            }
            encoded.turns.push(turn);
        }
        Ok(encoded)
    }

    /// The tokens of the rendering, split at the boundaries of the assistant's words if possible.
    ///
    /// At inference the model receives the ids of the prompt and writes the ids of its answer, so no
    /// token may cross that boundary. Tokenizers that treat the start of a text in a special way
    /// encode the whole text instead, and `turn` refuses tokens that cross a boundary.
    pub(crate) fn tokens(&self) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        if !self.tokenizer.backend.encodes_piecewise {
            self.template_text(0..self.chat.text.len(), &mut tokens)?;
            self.check_prompts(&tokens)?;
            return Ok(tokens);
        }
        let mut position = 0;
        for span in &self.chat.turns {
            self.template_text(position..span.prompt_end, &mut tokens)?;
            position = self.answer(span, &mut tokens)?;
        }
        self.template_text(position..self.chat.text.len(), &mut tokens)?;
        Ok(tokens)
    }

    /// Adds the tokens from the end of a prompt to the end of the turn's end token; returns the
    /// byte at which they end.
    ///
    /// They are encoded in one piece, as the model writes them, unless the words hold the text of
    /// a special token: those are encoded by themselves, as text.
    pub(crate) fn answer(&self, span: &TurnSpan, tokens: &mut Vec<Token>) -> Result<usize> {
        let content = &span.content;
        let end = self.end_token(span).map_or(content.end, |(_, end)| end);
        if self.tokenizer.backend.contains_control_token(self.slice(content)) {
            self.plain(span.prompt_end..content.start, tokens)?;
            self.literal(content, tokens)?;
            self.plain(content.end..end, tokens)?;
        } else {
            self.plain(span.prompt_end..end, tokens)?;
        }
        Ok(end)
    }

    fn literal(&self, content: &Range<usize>, tokens: &mut Vec<Token>) -> Result<()> {
        let ids = self.tokenizer.backend.encode_literal(self.slice(content))?;
        let (start, end) = (content.start, content.end);
        tokens.extend(ids.into_iter().map(|id| Token { id, start, end }));
        Ok(())
    }

    /// Adds the tokens of a part of the rendering outside of the assistant's words.
    ///
    /// The part is encoded in one piece, as in transformers, unless a message in it contains the
    /// text of a special token. Then messages are encoded separately, with special tokens as text.
    pub(crate) fn template_text(&self, range: Range<usize>, tokens: &mut Vec<Token>) -> Result<()> {
        let backend = &self.tokenizer.backend;
        let inside =
            |content: &Range<usize>| range.start <= content.start && content.end <= range.end;
        let dangerous = backend.encodes_piecewise
            && self.chat.contents.iter().any(|(_, content)| {
                inside(content) && backend.contains_control_token(self.slice(content))
            });
        let mut position = range.start;
        if dangerous {
            for (_, content) in self.chat.contents.iter().filter(|(_, content)| inside(content)) {
                self.plain(position..content.start, tokens)?;
                self.literal(content, tokens)?;
                position = content.end;
            }
        }
        self.plain(position..range.end, tokens)
    }

    fn plain(&self, range: Range<usize>, tokens: &mut Vec<Token>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let encoded = self.tokenizer.backend.encode_with_offsets(self.slice(&range))?;
        tokens.extend(encoded.into_iter().map(|(id, start, end)| Token {
            id,
            start: range.start + start,
            end: range.start + end,
        }));
        Ok(())
    }

    /// Checks that the ids of each prompt are a prefix of the whole.
    fn check_prompts(&self, tokens: &[Token]) -> Result<()> {
        for span in &self.chat.turns {
            let prompt = self.tokenizer.encode_plain(self.slice(&(0..span.prompt_end)))?;
            let first = tokens.iter().take(prompt.len()).map(|token| token.id);
            let ends = tokens.get(prompt.len()).is_none_or(|next| next.start >= span.prompt_end);
            if !prompt.iter().copied().eq(first) || !ends {
                return Err(self.refuse(span.message, "is joined to its prompt by the tokenizer"));
            }
        }
        Ok(())
    }

    /// The turn in token indices: its targets begin where its prompt ends.
    fn turn(&self, tokens: &[Token], span: &TurnSpan) -> Result<AssistantTurn> {
        let prompt_len = tokens.partition_point(|token| token.start < span.prompt_end);
        let last_of_prompt = prompt_len.checked_sub(1).and_then(|idx| tokens.get(idx));
        if last_of_prompt.is_some_and(|token| token.end > span.prompt_end) {
            return Err(self.refuse(span.message, "is joined to its prompt by the tokenizer"));
        }
        let Some((end_id, end)) = self.end_token(span) else {
            return Err(self.no_end(span));
        };
        // An end token with `lstrip` or `rstrip` covers white space around its text.
        let ends = |token: &Token| token.id == end_id && token.start < end && token.end >= end;
        let written = tokens.get(prompt_len..).unwrap_or_default();
        let Some(n_words) = written.iter().position(ends) else {
            return Err(self.no_end(span));
        };
        let mut words = written.iter().take(n_words);
        if words.any(|token| token.id == end_id || Some(token.id) == self.tokenizer.eos()) {
            return Err(self.refuse(span.message, "contains the token that ends turns"));
        }
        let targets = prompt_len..prompt_len + n_words + 1;
        Ok(AssistantTurn { message: span.message, prompt_len, targets })
    }

    /// The added token that ends a turn, whatever comes later, and the byte at which it ends.
    fn end_token(&self, span: &TurnSpan) -> Option<(u32, usize)> {
        let backend = &self.tokenizer.backend;
        let has_fields =
            self.messages.get(span.message).is_some_and(|message| !message.fields.is_empty());
        if has_fields {
            // Tool calls are wrapped in tokens of their own: the last token ends the turn.
            let written = span.last_tail.trim_end();
            let (id, _) = backend.trailing_added_token(written)?;
            let is_stable = span.tail.starts_with(written);
            return is_stable.then_some((id, span.content.end + written.len()));
        }
        let tail = span.tail.trim_start();
        let id = backend.leading_added_token(tail)?;
        let (text, _) = backend.added_token(id)?;
        Some((id, span.content.end + (span.tail.len() - tail.len()) + text.len()))
    }

    pub(crate) fn role(&self, token: Token) -> Option<Role> {
        let contents = &self.chat.contents;
        let owner = contents
            .iter()
            .find(|(_, content)| token.start < content.end && token.end > content.start);
        owner.and_then(|(idx, _)| self.messages.get(*idx)).map(|message| message.role)
    }

    fn slice(&self, range: &Range<usize>) -> &str {
        self.chat.text.get(range.clone()).unwrap_or_default()
    }

    fn no_end(&self, span: &TurnSpan) -> Error {
        let last = self.tokenizer.backend.leading_added_token(span.last_tail.trim_start());
        if last != self.tokenizer.backend.leading_added_token(span.tail.trim_start()) {
            return self.refuse(span.message, "ends differently once later messages follow");
        }
        no_end(self.template, span.message, &span.last_tail)
    }

    fn refuse(&self, message: usize, what: &str) -> Error {
        Error::Spans {
            name: self.template.name().to_owned(),
            reason: format!("message {message} (assistant) {what}"),
            hint: hint(),
        }
    }
}

pub(crate) fn no_end(template: &ChatTemplate, message: usize, tail: &str) -> Error {
    let after: String = tail.chars().take(24).collect();
    Error::Spans {
        name: template.name().to_owned(),
        reason: format!(
            "no special token ends message {message} (assistant); what follows it is {after:?}"
        ),
        hint:
            "a model trained on it would never stop; choose a template whose end token is in the \
               tokenizer, such as `plain`"
                .to_owned(),
    }
}
