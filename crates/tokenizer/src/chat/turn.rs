//! One turn of the assistant: its words, its prompt, and what follows it, in a rendering.
//!
//! A turn counts only where the rendering of the shorter conversation is the beginning of the
//! longer one. It knows no ids.

use std::ops::Range;

use super::template::TemplateTokens;
use super::{ChatTemplate, Role};

/// Why contents cannot be tracked, and what to do about it.
#[derive(Debug, Clone)]
pub(crate) struct Untracked {
    pub(crate) reason: String,
    pub(crate) hint: String,
}

/// How one turn of the assistant lies in a skeleton.
#[derive(Debug)]
pub(crate) struct TurnPlan {
    pub(crate) message: usize,
    /// Bytes of scaffold between the end of the prompt for this turn and the content.
    pub(crate) gap: usize,
    /// What follows the content, as far as it stays the same when later messages follow.
    pub(crate) tail: String,
    /// What follows the content when this turn is the last one.
    pub(crate) last_tail: String,
}

/// Where one turn of the assistant lies in a rendering, in bytes.
#[derive(Debug)]
pub(crate) struct TurnSpan {
    pub(crate) message: usize,
    /// Where the prompt for this turn ends: from here on the model writes.
    pub(crate) prompt_end: usize,
    pub(crate) content: Range<usize>,
    /// The text after the content, as far as it stays the same when later messages follow.
    pub(crate) tail: String,
    /// The text after the content when this turn is the last one.
    pub(crate) last_tail: String,
}

/// How a template may change the ends of a content: Python's `strip` and its relatives.
pub(crate) const TRIMS: [fn(&str) -> &str; 7] = [
    |text| text,
    str::trim,
    str::trim_start,
    str::trim_end,
    |text| text.trim_matches('\n'),
    |text| text.trim_start_matches('\n'),
    |text| text.trim_end_matches('\n'),
];

/// One turn of the assistant among messages with their contents, or with marks in their place.
pub(crate) struct Turn<'a> {
    pub(crate) template: &'a ChatTemplate,
    pub(crate) messages: &'a [(Role, &'a str)],
    pub(crate) tokens: &'a TemplateTokens,
    pub(crate) idx: usize,
}

impl Turn<'_> {
    /// Where the mark of this turn lies in `text`, and how what surrounds it may change.
    pub(crate) fn plan(&self, text: &str) -> Result<TurnPlan, Untracked> {
        let idx = self.idx;
        let mark = self.messages.get(idx).map(|(_, mark)| *mark).unwrap_or_default();
        let mut places = text.match_indices(mark).map(|(start, _)| start);
        let (start, end) = match (places.next(), places.next()) {
            (Some(start), None) => (start, start + mark.len()),
            (None, _) => return Err(self.refuse("leaves out or changes the words of")),
            _ => return Err(self.refuse("writes more than once")),
        };
        // What the conversation looked like when this turn was its last message.
        let so_far = self.render(idx + 1, false)?;
        let Some(tail) = common_prefix(&so_far, text).get(end..) else {
            return Err(self.refuse("rewrites, once later messages follow,"));
        };
        let before = text.get(..start).unwrap_or_default();
        // Before the first message nothing has been said: there is no prompt to compare with.
        let prompt = if idx == 0 { before.to_owned() } else { self.render(idx, true)? };
        if let Some(gap) = before.strip_prefix(prompt.as_str()) {
            let last_tail = so_far.get(end..).unwrap_or_default().to_owned();
            return Ok(TurnPlan { message: idx, gap: gap.len(), tail: tail.to_owned(), last_tail });
        }
        let ending = prompt.get(common_prefix(&prompt, before).len()..).unwrap_or_default();
        Err(Untracked {
            reason: format!(
                "the prompt for message {idx} ends in {ending:?}, which the conversation does not \
                 have there"
            ),
            hint: hint(),
        })
    }

    /// This turn, if its words are exactly what follows its prompt in `text`.
    pub(crate) fn behind_its_prompt(&self, text: &str) -> Option<TurnSpan> {
        let content = self.messages.get(self.idx)?.1;
        let prompt = self.render(self.idx, true).ok()?;
        let rest = text.strip_prefix(prompt.as_str())?;
        let words = TRIMS.iter().map(|trim| trim(content)).find(|words| rest.starts_with(words))?;
        let content = prompt.len()..prompt.len() + words.len();
        let so_far = self.render(self.idx + 1, false).ok()?;
        let tail = common_prefix(&so_far, text).get(content.end..)?.to_owned();
        let last_tail = so_far.get(content.end..)?.to_owned();
        Some(TurnSpan { message: self.idx, prompt_end: prompt.len(), content, tail, last_tail })
    }

    fn render(&self, n: usize, prompt: bool) -> Result<String, Untracked> {
        let messages = self.messages.get(..n).unwrap_or_default();
        self.template.render_messages(messages, self.tokens, prompt).map_err(|e| Untracked {
            reason: format!("message {} has no prompt of its own: {e}", self.idx),
            hint: e.hint().unwrap_or_default(),
        })
    }

    fn refuse(&self, what: &str) -> Untracked {
        Untracked { reason: format!("it {what} message {} (assistant)", self.idx), hint: hint() }
    }
}

/// What two texts start with, whole characters only.
fn common_prefix<'a>(left: &'a str, right: &str) -> &'a str {
    let same = left.chars().zip(right.chars()).take_while(|(a, b)| a == b);
    left.get(..same.map(|(c, _)| c.len_utf8()).sum()).unwrap_or_default()
}

/// What helps with a template that cannot be tracked over several turns.
pub(crate) fn hint() -> String {
    "make one sample of each assistant turn, or choose a template that leaves earlier turns as they \
     are, such as `chatml`"
        .to_owned()
}
