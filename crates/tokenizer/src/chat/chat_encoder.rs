//! Turns a rendered conversation with located contents into token ids, roles and a loss mask.

use std::ops::Range;

use super::assistant_turn::hint;
use super::generation_blocks::generation_spans;
use super::template_layout::{RenderedChat, TurnSpan};
use super::token::{Token, mark, tokens_of};
use super::turn_end::{SpanEnd, no_end};
use super::{AssistantTurn, ChatTemplate, Conversation, Encoded, Message, Role};
use crate::{Error, Result, Tokenizer};

/// Encodes one rendered conversation.
pub(crate) struct ChatEncoder<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) template: &'a ChatTemplate,
    pub(crate) messages: &'a [Message],
    pub(crate) chat: &'a RenderedChat,
    /// Byte ranges of the template's `{% generation %}` blocks, which decide the loss mask.
    pub(crate) generation: Option<Vec<Range<usize>>>,
}

impl<'a> ChatEncoder<'a> {
    /// An encoder of `chat`, the rendering of `conversation`.
    pub(crate) fn new(
        tokenizer: &'a Tokenizer,
        template: &'a ChatTemplate,
        conversation: Conversation<'a>,
        chat: &'a RenderedChat,
    ) -> Self {
        let generation = if template.has_generation_blocks() {
            generation_spans(template, conversation, &tokenizer.template_tokens(), &chat.text)
        } else {
            None
        };
        Self { tokenizer, template, messages: conversation.messages, chat, generation }
    }

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
        if let Some(blocks) = &self.generation {
            self.mask_by_blocks(tokens, blocks, &mut encoded);
        }
        Ok(encoded)
    }

    /// Sets the loss mask to the tokens of the template's `{% generation %}` blocks, and to the
    /// end token after the rendering.
    fn mask_by_blocks(&self, tokens: &[Token], blocks: &[Range<usize>], encoded: &mut Encoded) {
        encoded.loss_mask.fill(false);
        let is_target = |turn: &AssistantTurn| {
            self.messages.get(turn.message).is_none_or(|message| message.is_target)
        };
        let end = self.chat.text.len()..usize::MAX;
        for block in blocks.iter().chain([&end]) {
            let range = tokens_of(tokens, block);
            let overlaps = |turn: &&AssistantTurn| {
                turn.targets.start < range.end && range.start < turn.targets.end
            };
            if encoded.turns.iter().find(overlaps).is_none_or(is_target) {
                mark(encoded, range);
            }
        }
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
            self.add_end(&mut tokens);
            return Ok(tokens);
        }
        let mut position = 0;
        for span in &self.chat.turns {
            self.template_text(position..span.prompt_end, &mut tokens)?;
            position = self.answer(span, &mut tokens)?;
        }
        self.template_text(position..self.chat.text.len(), &mut tokens)?;
        self.add_end(&mut tokens);
        Ok(tokens)
    }

    /// Adds the end-of-text token after the last answer if the template writes no end token.
    pub(crate) fn add_end(&self, tokens: &mut Vec<Token>) {
        if let Some(SpanEnd::Added(id)) = self.chat.turns.last().and_then(|s| self.span_end(s)) {
            let end = self.chat.text.len();
            tokens.push(Token { id, start: end, end });
        }
    }

    /// Adds the tokens from the end of a prompt to the end of the turn's end token; returns the
    /// byte at which they end.
    ///
    /// They are encoded in one piece, as the model writes them, unless the words hold the text of
    /// a special token: those are encoded by themselves, as text.
    pub(crate) fn answer(&self, span: &TurnSpan, tokens: &mut Vec<Token>) -> Result<usize> {
        let content = &span.content;
        let end = match self.span_end(span) {
            Some(SpanEnd::Written { end, .. } | SpanEnd::Open(end)) => end,
            Some(SpanEnd::Added(_)) => self.chat.text.len(),
            None => content.end,
        };
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
        let Some(end) = self.span_end(span) else {
            return Err(self.no_end(span));
        };
        let written = tokens.get(prompt_len..).unwrap_or_default();
        let (id, n_words, n_targets) = match end {
            SpanEnd::Written { id, end } => {
                // An end token with `lstrip` or `rstrip` covers white space around its text.
                let ends = |token: &Token| token.id == id && token.start < end && token.end >= end;
                let n_words = written.iter().position(ends).ok_or_else(|| self.no_end(span))?;
                (Some(id), n_words, n_words + 1)
            }
            SpanEnd::Open(end) => {
                let n_words = written.iter().take_while(|token| token.end <= end).count();
                (None, n_words, n_words)
            }
            SpanEnd::Added(id) => (Some(id), written.len().saturating_sub(1), written.len()),
        };
        let mut words = written.iter().take(n_words).map(|token| Some(token.id));
        if words.any(|word| word == self.tokenizer.eos() || (id.is_some() && word == id)) {
            return Err(self.refuse(span.message, "contains the token that ends turns"));
        }
        let targets = prompt_len..prompt_len + n_targets;
        Ok(AssistantTurn { message: span.message, prompt_len, targets })
    }

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
        let end = |tail: &str| self.tokenizer.written_end(tail).map(|(id, _)| id);
        if end(&span.last_tail) != end(&span.tail) {
            return self.refuse(span.message, "ends differently once later messages follow");
        }
        no_end(self.template, span.message, &span.last_tail)
    }

    fn refuse(&self, message: usize, what: &str) -> Error {
        Error::Spans {
            name: self.template.name().to_owned(),
            reason: format!("message {message} (assistant) {what}"),
            hint: hint(message + 1 == self.messages.len()),
        }
    }
}
