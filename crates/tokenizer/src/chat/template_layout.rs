//! The text that a template writes around the contents of messages.
//!
//! `locate` finds it by rendering placeholders in place of the contents. A layout holds for all
//! conversations with the same roles. It only counts where the contents, put back into it, give the
//! real rendering to the byte.

use std::ops::Range;
use std::sync::Arc;

use super::{Message, Role, TemplateTokens};

/// A layout, or the reason why the template has none.
pub(crate) type CachedLayout = Result<Arc<TemplateLayout>, Untracked>;

/// Why the contents cannot be located in a rendering, and what to do about it.
#[derive(Debug, Clone)]
pub(crate) struct Untracked {
    pub(crate) reason: String,
    pub(crate) hint: String,
}

/// Everything but the template that determines a layout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LayoutKey {
    tokens: TemplateTokens,
    /// Role of each message, and whether its content is empty.
    messages: Vec<(Role, bool)>,
}

impl LayoutKey {
    pub(crate) fn of(messages: &[Message], tokens: &TemplateTokens) -> Self {
        let messages = messages.iter().map(|m| (m.role, m.content.is_empty())).collect();
        Self { tokens: tokens.clone(), messages }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Text of the template.
    Text(String),
    /// Content of a message, by its index.
    Content(usize),
}

/// A rendering as segments, with the surroundings of each assistant turn.
#[derive(Debug)]
pub(crate) struct TemplateLayout {
    segments: Vec<Segment>,
    turns: Vec<TurnLayout>,
}

/// The template's text around one assistant turn.
#[derive(Debug)]
pub(crate) struct TurnLayout {
    pub(crate) message: usize,
    /// Bytes of template text between the end of the turn's prompt and its content.
    pub(crate) gap: usize,
    /// Text after the content, as far as later messages leave it unchanged.
    pub(crate) tail: String,
    /// Text after the content where this turn is the last one.
    pub(crate) last_tail: String,
}

/// A rendered conversation with the location of each content.
#[derive(Debug)]
pub(crate) struct RenderedChat {
    pub(crate) text: String,
    /// Byte ranges of the contents in the order of the text, with the index of each message.
    pub(crate) contents: Vec<(usize, Range<usize>)>,
    pub(crate) turns: Vec<TurnSpan>,
}

/// Location of one assistant turn in a rendering, in bytes.
#[derive(Debug)]
pub(crate) struct TurnSpan {
    pub(crate) message: usize,
    /// End of the prompt for this turn, where the model starts to write.
    pub(crate) prompt_end: usize,
    pub(crate) content: Range<usize>,
    /// See [`TurnLayout::tail`].
    pub(crate) tail: String,
    /// See [`TurnLayout::last_tail`].
    pub(crate) last_tail: String,
}

/// Ways in which a template may trim a content: Python's `strip` and its variants.
pub(crate) const TRIMS: [fn(&str) -> &str; 7] = [
    |text| text,
    str::trim,
    str::trim_start,
    str::trim_end,
    |text| text.trim_matches('\n'),
    |text| text.trim_start_matches('\n'),
    |text| text.trim_end_matches('\n'),
];

/// Indices into [`TRIMS`] for the four roles, the likely combinations first.
fn trims() -> impl Iterator<Item = [usize; 4]> {
    let n = TRIMS.len();
    let uniform = (0..n).map(|trim| [trim; 4]);
    let mixed = (0..n.pow(4)).map(move |i| [i % n, i / n % n, i / n / n % n, i / n / n / n]);
    uniform.chain(mixed)
}

/// The placeholder for the content of message `idx`; `stem` must occur in no other text.
pub(crate) fn placeholder(stem: &str, idx: usize) -> String {
    format!("{stem}{idx:06}x")
}

impl TemplateLayout {
    /// The layout of `text`, in which placeholders replace the contents of `n_messages` messages.
    pub(crate) fn from_placeholders(
        text: &str,
        stem: &str,
        n_messages: usize,
        turns: Vec<TurnLayout>,
    ) -> Self {
        Self { segments: split(text, stem, n_messages), turns }
    }

    /// Locates the contents of `messages` in their rendering `text`.
    ///
    /// None if the layout with the contents in it differs from `text`.
    pub(crate) fn locate(&self, messages: &[Message], text: String) -> Option<RenderedChat> {
        let contents = trims().find_map(|trims| self.contents(messages, &text, trims))?;
        let turns = self.turns.iter().filter_map(|turn| {
            let (_, content) = contents.iter().find(|(message, _)| *message == turn.message)?;
            Some(TurnSpan {
                message: turn.message,
                prompt_end: content.start - turn.gap,
                content: content.clone(),
                tail: turn.tail.clone(),
                last_tail: turn.last_tail.clone(),
            })
        });
        let turns: Vec<TurnSpan> = turns.collect();
        (turns.len() == self.turns.len()).then_some(RenderedChat { text, contents, turns })
    }

    fn contents(
        &self,
        messages: &[Message],
        text: &str,
        trims: [usize; 4],
    ) -> Option<Vec<(usize, Range<usize>)>> {
        let mut contents = Vec::new();
        let mut position = 0;
        for segment in &self.segments {
            let expected = match segment {
                Segment::Text(text) => text.as_str(),
                Segment::Content(idx) => {
                    let message = messages.get(*idx)?;
                    let trim = TRIMS.get(*trims.get(message.role as usize)?)?;
                    trim(&message.content)
                }
            };
            if !text.get(position..)?.starts_with(expected) {
                return None;
            }
            let end = position + expected.len();
            if let Segment::Content(idx) = segment {
                contents.push((*idx, position..end));
            }
            position = end;
        }
        (position == text.len()).then_some(contents)
    }
}

/// Splits a rendering at its placeholders.
fn split(text: &str, stem: &str, n_messages: usize) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(at) = rest.get(from..).and_then(|tail| tail.find(stem)).map(|at| at + from) {
        let number = rest.get(at + stem.len()..at + stem.len() + 6);
        let idx = number.and_then(|digits| digits.parse::<usize>().ok());
        let Some(idx) = idx.filter(|idx| *idx < n_messages) else {
            from = at + stem.len();
            continue;
        };
        let (before, mark) = rest.split_at(at);
        segments.push(Segment::Text(before.to_owned()));
        segments.push(Segment::Content(idx));
        rest = mark.get(stem.len() + 7..).unwrap_or_default();
        from = 0;
    }
    segments.push(Segment::Text(rest.to_owned()));
    segments
}
