//! End of an assistant turn: a token that the template writes, or the end-of-text token.

use super::template::MessageView;
use super::{ChatTemplate, Message, Role, TemplateTokens};
use crate::backend::EosSource;
use crate::{Error, Result, Tokenizer};

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
    pub(crate) fn added_end(&self, template: &ChatTemplate) -> Option<TurnEnd> {
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

pub(crate) fn no_end(template: &ChatTemplate, message: usize, tail: &str) -> Error {
    let after: String = tail.chars().take(24).collect();
    Error::Spans {
        name: template.name().to_owned(),
        reason: format!(
            "no special token ends message {message} (assistant), and the tokenizer has no \
             end-of-text token; what follows the message is {after:?}"
        ),
        hint: "a model trained on it would never stop; name a token with `eos_token` in the \
               stage's section, or in tokenizer_config.json"
            .to_owned(),
    }
}
