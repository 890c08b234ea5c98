//! The parts of a rendering that a template marks with `{% generation %}` blocks.
//!
//! Templates for training mark what the model writes. Where a template has such blocks, they decide
//! the targets, as in transformers' `return_assistant_tokens_mask`.

use std::ops::Range;

use super::template::MessageView;
use super::token::{Token, mark, tokens_of};
use super::{AssistantTurn, ChatTemplate, Conversation, Encoded, Role, TemplateTokens};
use crate::{Result, Tokenizer};

impl Tokenizer {
    /// Encodes a conversation whose answers cannot be located, by the template's `{% generation %}`
    /// blocks alone; None if the blocks do not tell which tokens are targets.
    ///
    /// The whole rendering is encoded at once, so no message may have the text of a special token.
    pub(crate) fn encode_marked(
        &self,
        conversation: Conversation<'_>,
        template: &ChatTemplate,
    ) -> Option<Encoded> {
        let messages = conversation.messages;
        if messages.iter().any(|message| self.backend.contains_control_token(&message.content)) {
            return None;
        }
        let text = self.render_chat(conversation, template, false).ok()?;
        let tokens = self.template_tokens();
        let blocks = generation_spans(template, conversation, &tokens, &text)?;
        let tokens = self.offset_tokens(&text).ok()?;
        let mut encoded = Encoded {
            ids: tokens.iter().map(|token| token.id).collect(),
            roles: vec![None; tokens.len()],
            loss_mask: vec![false; tokens.len()],
            turns: Vec::new(),
        };
        let answers = messages.iter().enumerate();
        let answers: Vec<usize> =
            answers.filter(|(_, m)| m.role == Role::Assistant).map(|(idx, _)| idx).collect();
        let ranges: Vec<Range<usize>> = blocks
            .iter()
            .map(|block| tokens_of(&tokens, block))
            .filter(|range| !range.is_empty())
            .collect();
        let one_each = ranges.len() == answers.len();
        let all_targets = messages.iter().all(|message| message.is_target);
        if !(one_each || all_targets) {
            return None;
        }
        for (number, targets) in ranges.into_iter().enumerate() {
            let message = answers.get(number).copied().filter(|_| one_each);
            if message.and_then(|idx| messages.get(idx)).is_none_or(|message| message.is_target) {
                mark(&mut encoded, targets.clone());
            }
            if let Some(message) = message {
                encoded.turns.push(AssistantTurn { message, prompt_len: targets.start, targets });
            }
        }
        Some(encoded)
    }

    fn offset_tokens(&self, text: &str) -> Result<Vec<Token>> {
        let encoded = self.backend.encode_with_offsets(text)?;
        Ok(encoded.into_iter().map(|(id, start, end)| Token { id, start, end }).collect())
    }
}

/// Byte ranges of the blocks in `text`, the rendering of `conversation`; None if the template has
/// no blocks, or if marks in the rendering change it.
pub(crate) fn generation_spans(
    template: &ChatTemplate,
    conversation: Conversation<'_>,
    tokens: &TemplateTokens,
    text: &str,
) -> Option<Vec<Range<usize>>> {
    if !template.has_generation_blocks() {
        return None;
    }
    let marks = unused_marks(text);
    let views: Vec<MessageView<'_>> = conversation.messages.iter().map(MessageView::of).collect();
    let marked = template.render_with_marks(&views, conversation.tools, tokens, &marks).ok()?;
    let (plain, spans) = remove_marks(&marked, &marks)?;
    (plain == text).then_some(spans)
}

/// Two marks that do not occur in `text`.
fn unused_marks(text: &str) -> [String; 2] {
    let mut n = 0u32;
    loop {
        let marks = ["start", "end"].map(|name| format!("Tg{n}{name}"));
        if !marks.iter().any(|mark| text.contains(mark.as_str())) {
            return marks;
        }
        n += 1;
    }
}

/// The text without its marks, and the ranges between them; None if they are not in pairs.
fn remove_marks(marked: &str, [start, end]: &[String; 2]) -> Option<(String, Vec<Range<usize>>)> {
    let mut plain = String::with_capacity(marked.len());
    let mut spans = Vec::new();
    let mut rest = marked;
    while let Some((before, after)) = rest.split_once(start.as_str()) {
        let (inside, after) = after.split_once(end.as_str())?;
        plain.push_str(before);
        let first = plain.len();
        plain.push_str(inside);
        spans.push(first..plain.len());
        rest = after;
    }
    plain.push_str(rest);
    Some((plain, spans))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_removed_in_pairs() {
        let marks = unused_marks("Tg0start");
        assert_eq!(marks, ["Tg1start", "Tg1end"]);
        assert_eq!(
            remove_marks("aTg1startbcTg1endTg1startTg1endd", &marks),
            Some(("abcd".to_owned(), vec![1..3, 3..3]))
        );
        assert_eq!(remove_marks("aTg1start", &marks), None);
    }
}
