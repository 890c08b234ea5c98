//! Locates one assistant turn in a rendering: its prompt, its words and the text after them.
//!
//! A turn counts only where the rendering of the shorter conversation is a prefix of the longer one.

use super::message_fields::REASONING_FIELDS;
use super::template::MessageView;
use super::template_layout::{TRIMS, TurnLayout, TurnSpan, Untracked};
use super::{ChatTemplate, TemplateTokens};

/// The tags around the reasoning of a model.
pub(crate) const REASONING: [&str; 2] = ["<think>", "</think>"];

/// One assistant turn among messages with their contents, or with placeholders for them.
pub(crate) struct TurnLocator<'a> {
    pub(crate) template: &'a ChatTemplate,
    pub(crate) messages: &'a [MessageView<'a>],
    pub(crate) tools: &'a [serde_json::Value],
    pub(crate) tokens: &'a TemplateTokens,
    pub(crate) idx: usize,
}

impl TurnLocator<'_> {
    /// The template's text around this turn's placeholder in `text`.
    pub(crate) fn layout(&self, text: &str) -> Result<TurnLayout, Untracked> {
        let idx = self.idx;
        let mark = self.messages.get(idx).map(|m| m.content).unwrap_or_default();
        let mut places = text.match_indices(mark).map(|(start, _)| start);
        let (start, end) = match (places.next(), places.next()) {
            (Some(start), None) => (start, start + mark.len()),
            (None, _) => return Err(self.refuse("omits or changes the words of")),
            _ => return Err(self.refuse("writes more than once")),
        };
        // The rendering in which this turn is the last message.
        let so_far = self.render(idx + 1, false)?;
        let Some(tail) = common_prefix(&so_far, text).get(end..) else {
            return Err(self.refuse("rewrites, once later messages follow,"));
        };
        let before = text.get(..start).unwrap_or_default();
        // The first message has no prompt to compare with.
        let prompt = if idx == 0 { before.to_owned() } else { self.render(idx, true)? };
        if let Some(gap) = before.strip_prefix(prompt.as_str()) {
            let last_tail = so_far.get(end..).unwrap_or_default().to_owned();
            return Ok(TurnLayout {
                message: idx,
                gap: gap.len(),
                tail: tail.to_owned(),
                last_tail,
            });
        }
        Err(self.prompt_differs(&prompt, before))
    }

    /// This turn's location, if `text` continues the turn's prompt with its words.
    pub(crate) fn after_prompt(&self, text: &str) -> Option<TurnSpan> {
        let content = self.messages.get(self.idx)?.content;
        let prompt = self.render(self.idx, true).ok()?;
        let rest = text.strip_prefix(prompt.as_str())?;
        let words = TRIMS.iter().map(|trim| trim(content)).find(|words| rest.starts_with(words))?;
        let content = prompt.len()..prompt.len() + words.len();
        let so_far = self.render(self.idx + 1, false).ok()?;
        let tail = common_prefix(&so_far, text).get(content.end..)?.to_owned();
        let last_tail = so_far.get(content.end..)?.to_owned();
        Some(TurnSpan { message: self.idx, prompt_end: prompt.len(), content, tail, last_tail })
    }

    /// The prompt for this turn, the last one, with its words and the template's end of the turn, where the prompt ends in a
    /// text that `conversation` does not have, as those of reasoning models do.
    ///
    /// A model gets this prompt at generation, so a sample has it too. A prompt that opens a block of reasoning is continued
    /// by the words after their own opening of it.
    pub(crate) fn after_own_prompt(
        &self,
        conversation: &str,
    ) -> Result<(String, TurnSpan), Option<Untracked>> {
        let content = self.messages.get(self.idx).ok_or(None::<Untracked>)?.content;
        let prompt = self.render(self.idx, true)?;
        let shared = common_prefix(&prompt, conversation).len();
        let own = prompt.get(shared..).unwrap_or_default();
        if !own.contains(REASONING[0]) {
            return Err(None);
        }
        let rest = conversation.get(shared..).unwrap_or_default();
        // The template may write an answer without its reasoning.
        let (reasoning, written) = if own.contains(REASONING[1]) {
            ("", content)
        } else {
            let opened = content.trim_start().strip_prefix(own.trim()).map(str::trim_start);
            let split = opened.and_then(|opened| opened.rsplit_once(REASONING[1]));
            split.ok_or_else(|| Some(self.lacks_reasoning(own)))?
        };
        let trimmed = |trim: &fn(&str) -> &str| {
            let written = trim(written);
            Some((written, rest.strip_prefix(written)?))
        };
        let (written, tail) = TRIMS.iter().find_map(trimmed).ok_or(None::<Untracked>)?;
        let words = match content.rsplit_once(REASONING[1]).filter(|_| !reasoning.is_empty()) {
            // The line breaks between reasoning and answer are the message's own.
            Some((_, answer)) => {
                let n_before = answer.len() - answer.trim_start().len();
                let between = answer.get(..n_before).unwrap_or_default();
                format!("{reasoning}{}{between}{}", REASONING[1], written.trim_start())
            }
            None => written.to_owned(),
        };
        let words_end = prompt.len() + words.len();
        let turn = TurnSpan {
            message: self.idx,
            prompt_end: prompt.len(),
            content: prompt.len()..words_end,
            tail: tail.to_owned(),
            last_tail: tail.to_owned(),
        };
        Ok((format!("{prompt}{words}{tail}"), turn))
    }

    fn lacks_reasoning(&self, own: &str) -> Untracked {
        Untracked {
            reason: format!(
                "the prompt for message {} ends in {own:?}, which the model continues with its \
                 reasoning, and the message has none",
                self.idx
            ),
            hint: match self.template.reasoning_fields().first() {
                Some(field) => format!(
                    "give the message its reasoning in `{field}`, or choose a template without it, \
                     such as `chatml`"
                ),
                None => format!(
                    "begin the content with the reasoning, `{}…{}`, or choose a template without \
                     it, such as `chatml`",
                    REASONING[0], REASONING[1]
                ),
            },
        }
    }

    /// This turn's location where its fields, such as reasoning or tool calls, decide what the
    /// template writes: all that follows the prompt counts as the tail, and no content is located.
    pub(crate) fn with_fields(&self, text: &str) -> Result<TurnSpan, Untracked> {
        let prompt = if self.idx == 0 { String::new() } else { self.render(self.idx, true)? };
        let so_far = self.render(self.idx + 1, false)?;
        if !so_far.starts_with(&prompt) {
            return Err(self.prompt_differs(&prompt, &so_far));
        }
        let (Some(tail), Some(last_tail)) =
            (common_prefix(&so_far, text).get(prompt.len()..), so_far.get(prompt.len()..))
        else {
            return Err(self.refuse("rewrites, once later messages follow,"));
        };
        Ok(TurnSpan {
            message: self.idx,
            prompt_end: prompt.len(),
            content: prompt.len()..prompt.len(),
            tail: tail.to_owned(),
            last_tail: last_tail.to_owned(),
        })
    }

    fn prompt_differs(&self, prompt: &str, conversation: &str) -> Untracked {
        let ending = prompt.get(common_prefix(prompt, conversation).len()..).unwrap_or_default();
        let opened = prompt.rfind(REASONING[0]).and_then(|start| prompt.get(start..));
        let opened = opened.filter(|own| own.trim_end() == REASONING[0]);
        let has_reasoning = |message: &MessageView<'_>| {
            REASONING_FIELDS.iter().any(|field| message.fields.contains_key(*field))
        };
        let has_none = !self.messages.get(self.idx).is_some_and(has_reasoning);
        if let Some(own) = opened.filter(|_| self.is_last() && has_none) {
            return self.lacks_reasoning(own);
        }
        Untracked {
            reason: format!(
                "the prompt for message {} ends in {ending:?}, which is not in the conversation \
                 at that point",
                self.idx
            ),
            hint: hint(self.is_last()),
        }
    }

    /// Whether this turn is the last message, so that nothing that follows can have changed it.
    fn is_last(&self) -> bool {
        self.idx + 1 == self.messages.len()
    }

    fn render(&self, n: usize, prompt: bool) -> Result<String, Untracked> {
        let messages = self.messages.get(..n).unwrap_or_default();
        self.template.render_messages(messages, self.tools, self.tokens, prompt).map_err(|e| {
            Untracked {
                reason: format!("message {} has no prompt of its own: {e}", self.idx),
                hint: e.hint().unwrap_or_default(),
            }
        })
    }

    fn refuse(&self, what: &str) -> Untracked {
        Untracked {
            reason: format!("it {what} message {} (assistant)", self.idx),
            hint: hint(self.is_last()),
        }
    }
}

/// The common start of two texts, in whole characters.
fn common_prefix<'a>(left: &'a str, right: &str) -> &'a str {
    let same = left.chars().zip(right.chars()).take_while(|(a, b)| a == b);
    left.get(..same.map(|(c, _)| c.len_utf8()).sum()).unwrap_or_default()
}

/// Advice for a template one of whose assistant turns cannot be located. `is_last`: it ends the
/// conversation.
pub(crate) fn hint(is_last: bool) -> String {
    if is_last {
        "choose a template that writes the prompt and then the answer as it is, such as `chatml`"
    } else {
        "make one sample of each assistant turn with `split_turns = true` in [sft], or choose a \
         template that leaves earlier turns unchanged, such as `chatml`"
    }
    .to_owned()
}
