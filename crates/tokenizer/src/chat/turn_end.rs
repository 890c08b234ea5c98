//! What ends an assistant turn: a token that the template writes, or the end-of-text token.

use super::chat_encoder::{ChatEncoder, no_end};
use super::template::MessageView;
use super::template_layout::TurnSpan;
use super::{ChatTemplate, Message, Role, TemplateTokens};
use crate::backend::EosSource;
use crate::{Result, Tokenizer};

/// Contents of the messages that a template is tried with.
const PROBE: [&str; 3] = ["Tq first", "Tq second", "Tq third"];

/// Token that ends the assistant turns of a chat template, and where it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnEnd {
    /// The token.
    pub id: u32,
    /// Source of the token where it is added after the last answer of a chat; None if the template
    /// itself writes it after each answer.
    pub added: Option<EosSource>,
}

/// The end of one turn in a rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanEnd {
    /// A token that the template writes, and the byte at which it ends.
    Written { id: u32, end: usize },
    /// The template writes no such token, and the turn is the last one: this token follows the
    /// whole rendering.
    Added(u32),
    /// The template writes no such token, and messages follow: the byte at which the text ends that
    /// it writes after the answer in any case.
    Open(usize),
}

impl ChatTemplate {
    /// Texts that the template writes before a first user message and between an answer and a second
    /// one.
    fn between_turns(&self, tokens: &TemplateTokens) -> Option<[String; 2]> {
        let roles = [Role::User, Role::Assistant, Role::User];
        let messages: Vec<Message> =
            roles.into_iter().zip(PROBE).map(|(role, text)| Message::new(role, text)).collect();
        let views: Vec<MessageView<'_>> = messages.iter().map(MessageView::of).collect();
        let text = self.render_messages(&views, &[], tokens, false).ok()?;
        let (before, rest) = text.split_once(PROBE[0])?;
        let between = rest.split_once(PROBE[1])?.1.split_once(PROBE[2])?.0;
        Some([before.to_owned(), between.to_owned()])
    }
}

impl Tokenizer {
    /// Token that ends the assistant's turns in `template`: the one that the template writes after
    /// an answer or between an answer and the next message, or else the tokenizer's end-of-text
    /// token. Encoding adds it after the last answer of a chat where the template writes none there.
    ///
    /// # Errors
    /// [`crate::Error::Spans`] if the template writes none and the tokenizer has none.
    pub fn turn_end(&self, template: &ChatTemplate) -> Result<TurnEnd> {
        let messages =
            [Message::new(Role::User, PROBE[0]), Message::new(Role::Assistant, PROBE[1])];
        let text = self.render_chat(&messages, template, false)?;
        let tail = text.rsplit_once(PROBE[1]).map_or("", |(_, tail)| tail);
        if let Some((id, _)) = self.written_end(tail) {
            return Ok(TurnEnd { id, added: None });
        }
        self.added_end(template).ok_or_else(|| no_end(template, 1, tail))
    }

    /// The token of [`Self::turn_end`].
    pub fn end_token(&self, template: &ChatTemplate) -> Result<u32> {
        self.turn_end(template).map(|end| end.id)
    }

    /// The token that is added after a last answer without an end token.
    fn added_end(&self, template: &ChatTemplate) -> Option<TurnEnd> {
        let tokens = self.template_tokens();
        let texts = template.cached_between_turns(&tokens, || template.between_turns(&tokens));
        let own = texts.and_then(|[before, between]| self.own_end(&before, &between));
        if let Some(id) = own {
            return Some(TurnEnd { id, added: Some(EosSource::Template) });
        }
        Some(TurnEnd { id: self.eos()?, added: Some(self.backend.specials.eos_source?) })
    }

    /// The token that the template writes after an answer, unless it is part of the next message's
    /// header, with which the text before a first message ends, too.
    fn own_end(&self, before: &str, between: &str) -> Option<u32> {
        let (end, _) = self.written_end(between)?;
        let ids = [before, between].map(|text| self.encode_plain(text).ok());
        let [Some(before), Some(between)] = ids else { return None };
        let same = before.iter().rev().zip(between.iter().rev()).take_while(|(a, b)| a == b);
        let own = between.get(..between.len() - same.count())?;
        own.contains(&end).then_some(end)
    }

    /// The added token that `tail`, the text after an answer, begins or ends with, and the number
    /// of bytes up to its end.
    pub(crate) fn written_end(&self, tail: &str) -> Option<(u32, usize)> {
        let trimmed = tail.trim_start();
        if let Some(id) = self.backend.leading_added_token(trimmed)
            && let Some((text, _)) = self.backend.added_token(id)
        {
            return Some((id, tail.len() - trimmed.len() + text.len()));
        }
        let (id, _) = self.backend.trailing_added_token(tail.trim_end())?;
        Some((id, tail.trim_end().len()))
    }
}

impl ChatEncoder<'_> {
    /// The end of a turn; None if no source knows a token that ends it.
    pub(crate) fn span_end(&self, span: &TurnSpan) -> Option<SpanEnd> {
        let backend = &self.tokenizer.backend;
        let start = span.content.end;
        let written = |id, n: usize| Some(SpanEnd::Written { id, end: start + n });
        let message = self.messages.get(span.message);
        if message.is_some_and(|message| !message.fields.is_empty()) {
            // Tool calls are wrapped in tokens of their own: the last token ends the turn.
            let last = span.last_tail.trim_end();
            if let Some((id, _)) = backend.trailing_added_token(last) {
                let is_stable = span.tail.starts_with(last);
                return if is_stable { written(id, last.len()) } else { self.marked_end(span) };
            }
        } else if let Some((id, n)) = self.tokenizer.written_end(&span.last_tail) {
            let is_stable = span.tail.get(..n) == span.last_tail.get(..n);
            return if is_stable { written(id, n) } else { self.marked_end(span) };
        }
        let added = self.tokenizer.added_end(self.template)?.id;
        // The token may be part of the next message, or the next message may begin with a token that
        // ends generation, as in GLM-4.
        let after = self.chat.text.get(start + span.tail.len()..).unwrap_or_default();
        let next = after.trim_start();
        if let Some(id) = backend.leading_added_token(next)
            && (id == added || self.tokenizer.eos_ids().contains(&id))
            && let Some((text, _)) = backend.added_token(id)
        {
            return written(id, span.tail.len() + after.len() - next.len() + text.len());
        }
        let is_last = span.message + 1 == self.messages.len();
        Some(if is_last { SpanEnd::Added(added) } else { SpanEnd::Open(start + span.tail.len()) })
    }

    /// The end of a turn whose last token depends on the messages that follow: the last token of
    /// its `{% generation %}` block.
    fn marked_end(&self, span: &TurnSpan) -> Option<SpanEnd> {
        let blocks = self.generation.as_ref()?;
        let block = blocks.iter().rfind(|block| {
            block.start <= span.content.end && span.content.end <= block.end && !block.is_empty()
        })?;
        let text = self.chat.text.get(span.content.end..block.end)?;
        let (id, n) = self.tokenizer.written_end(text)?;
        Some(SpanEnd::Written { id, end: span.content.end + n })
    }
}
