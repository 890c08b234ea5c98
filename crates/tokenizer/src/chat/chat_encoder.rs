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
            for idx in turn.targets.clone() {
                if let (Some(mask), Some(role)) =
                    (encoded.loss_mask.get_mut(idx), encoded.roles.get_mut(idx))
                {
                    *mask = true;
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
            self.answer(span, &mut tokens)?;
            position = span.content.end;
        }
        self.template_text(position..self.chat.text.len(), &mut tokens)?;
        Ok(tokens)
    }

    /// Adds the tokens from the end of a prompt to the end of the assistant's words.
    pub(crate) fn answer(&self, span: &TurnSpan, tokens: &mut Vec<Token>) -> Result<()> {
        self.template_text(span.prompt_end..span.content.start, tokens)?;
        self.literal(&span.content, tokens)
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

    fn turn(&self, tokens: &[Token], span: &TurnSpan) -> Result<AssistantTurn> {
        let content = &span.content;
        let prompt_len = tokens.partition_point(|token| token.start < span.prompt_end);
        let first = tokens
            .iter()
            .position(|token| token.end > content.start || token.start >= content.start);
        let start = first.unwrap_or(tokens.len());
        // A token may include whitespace of the template if the model writes that too.
        let reaches_back = tokens.get(start).is_some_and(|token| {
            token.start < content.start
                && (token.start < span.prompt_end
                    || !self.slice(&(token.start..content.start)).trim().is_empty())
        });
        if reaches_back {
            return Err(self.refuse(span.message, "shares its first token with the template"));
        }
        let after = |token: &Token| token.start >= content.end && token.end > content.end;
        let end = start + tokens.iter().skip(start).position(after).unwrap_or(tokens.len());
        let mut idx = end;
        loop {
            let Some(token) = tokens.get(idx) else {
                return Err(self.no_end(span));
            };
            let gap = self.slice(&(content.end..token.start.max(content.end)));
            if !gap.trim().is_empty() {
                return Err(self.no_end(span));
            }
            if self.ends_turn(*token, span) {
                break;
            }
            idx += 1;
        }
        let words = tokens.get(start..idx).unwrap_or_default();
        let end_id = tokens.get(idx).map(|token| token.id);
        if words
            .iter()
            .any(|token| Some(token.id) == end_id || Some(token.id) == self.tokenizer.eos())
        {
            return Err(self.refuse(span.message, "contains the token that ends turns"));
        }
        Ok(AssistantTurn { message: span.message, prompt_len, targets: start..idx + 1 })
    }

    /// Whether `token` is a special token that follows the content whether or not messages follow.
    fn ends_turn(&self, token: Token, span: &TurnSpan) -> bool {
        let added = self.tokenizer.backend.added_token(token.id);
        let Some((text, _)) = added else { return false };
        let offset = token.start - span.content.end.min(token.start);
        // With `lstrip` a token includes whitespace before it.
        span.tail.get(offset..).is_some_and(|tail| tail.trim_start().starts_with(text))
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
