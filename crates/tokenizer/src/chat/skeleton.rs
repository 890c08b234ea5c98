//! What a template puts around contents, found by rendering marks in their place.
//!
//! No marker of a role is ever searched for: the marks are unlike any text, stand where the
//! contents stand, and putting the contents back must give the real rendering to the byte. It knows
//! no ids.

use std::ops::Range;
use std::sync::Arc;

use super::template::TemplateTokens;
use super::turn::{TRIMS, Turn, TurnPlan, TurnSpan, Untracked};
use super::{ChatTemplate, Message, Role};

/// A skeleton or the reason why there is none.
pub(crate) type Cached = Result<Arc<Skeleton>, Untracked>;

/// What decides a skeleton, apart from the template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    tokens: TemplateTokens,
    /// Role and emptiness of each message.
    messages: Vec<(Role, bool)>,
}

impl Shape {
    pub(crate) fn of(messages: &[Message], tokens: &TemplateTokens) -> Self {
        let messages = messages.iter().map(|m| (m.role, m.content.is_empty())).collect();
        Self { tokens: tokens.clone(), messages }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The content of a message, by its index.
    Content(usize),
}

/// The parts of a rendering, with a plan for each turn of the assistant.
#[derive(Debug)]
pub(crate) struct Skeleton {
    pieces: Vec<Piece>,
    turns: Vec<TurnPlan>,
}

/// A rendering with the places of the contents.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) text: String,
    /// Contents in the order of the text, with the message each belongs to.
    pub(crate) contents: Vec<(usize, Range<usize>)>,
    pub(crate) turns: Vec<TurnSpan>,
}

/// Ways to trim the four roles, the likely ones first.
fn trims() -> impl Iterator<Item = [usize; 4]> {
    let n = TRIMS.len();
    let uniform = (0..n).map(|trim| [trim; 4]);
    let mixed = (0..n.pow(4)).map(move |i| [i % n, i / n % n, i / n / n % n, i / n / n / n]);
    uniform.chain(mixed)
}

impl Skeleton {
    /// Tracks every message; what it finds holds for all conversations of the same shape.
    pub(crate) fn track_all(
        template: &ChatTemplate,
        messages: &[Message],
        tokens: &TemplateTokens,
    ) -> Result<Self, Untracked> {
        Self::track(template, messages, tokens, |_, message| {
            message.role == Role::Assistant || !message.content.is_empty()
        })
    }

    /// Puts marks in the place of the messages that `tracked` chooses; those of the assistant
    /// among them are the turns.
    fn track(
        template: &ChatTemplate,
        messages: &[Message],
        tokens: &TemplateTokens,
        tracked: impl Fn(usize, &Message) -> bool,
    ) -> Result<Self, Untracked> {
        let stem = unused_stem(template, messages);
        let marks: Vec<String> =
            (0..messages.len()).map(|idx| format!("{stem}{idx:06}x")).collect();
        let marked: Vec<(Role, &str)> = messages
            .iter()
            .zip(&marks)
            .enumerate()
            .map(|(idx, (m, mark))| (m.role, if tracked(idx, m) { mark } else { &m.content }))
            .map(|(role, content)| (role, content.as_str()))
            .collect();
        let text = template.render_messages(&marked, tokens, false).map_err(|e| Untracked {
            reason: format!("messages cannot be told apart: {e}"),
            hint: e.hint().unwrap_or_default(),
        })?;
        let pieces = split(&text, &stem, messages.len());
        let mut turns = Vec::new();
        for (idx, message) in messages.iter().enumerate() {
            if message.role == Role::Assistant && tracked(idx, message) {
                let turn = Turn { template, messages: &marked, tokens, idx };
                turns.push(turn.plan(&text)?);
            }
        }
        Ok(Self { pieces, turns })
    }

    /// Puts the contents of `messages` back; None where that does not give `text`.
    fn lay_out(&self, messages: &[Message], text: String) -> Option<Layout> {
        let contents = trims().find_map(|trims| self.contents(messages, &text, trims))?;
        let turns = self.turns.iter().filter_map(|plan| {
            let (_, content) = contents.iter().find(|(message, _)| *message == plan.message)?;
            Some(TurnSpan {
                message: plan.message,
                prompt_end: content.start - plan.gap,
                content: content.clone(),
                tail: plan.tail.clone(),
                last_tail: plan.last_tail.clone(),
            })
        });
        let turns: Vec<TurnSpan> = turns.collect();
        (turns.len() == self.turns.len()).then_some(Layout { text, contents, turns })
    }

    fn contents(
        &self,
        messages: &[Message],
        text: &str,
        trims: [usize; 4],
    ) -> Option<Vec<(usize, Range<usize>)>> {
        let mut contents = Vec::new();
        let mut position = 0;
        for piece in &self.pieces {
            let expected = match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Content(idx) => {
                    let message = messages.get(*idx)?;
                    let trim = TRIMS.get(*trims.get(message.role as usize)?)?;
                    trim(&message.content)
                }
            };
            if !text.get(position..)?.starts_with(expected) {
                return None;
            }
            let end = position + expected.len();
            if let Piece::Content(idx) = piece {
                contents.push((*idx, position..end));
            }
            position = end;
        }
        (position == text.len()).then_some(contents)
    }
}

/// Renders `messages` and finds where each turn of the assistant lies.
pub(crate) fn lay_out(
    template: &ChatTemplate,
    messages: &[Message],
    tokens: &TemplateTokens,
) -> crate::Result<Layout> {
    let everything = template.skeleton(messages, tokens);
    let text = template.render_messages(&plain(messages), tokens, false)?;
    if let Ok(skeleton) = &everything
        && let Some(layout) = skeleton.lay_out(messages, text.clone())
    {
        return Ok(layout);
    }
    // A template may look into a system or user message, and the date may have changed.
    let is_turn = |_: usize, message: &Message| message.role == Role::Assistant;
    // The first reason, of all messages, is the more general one.
    find(template, messages, tokens, text, is_turn)
        .map_err(|untracked| refuse(template, everything.err().unwrap_or(untracked)))
}

/// Renders `messages`, which end with the assistant's, and finds where that last one lies.
///
/// Earlier turns may be changed by the template, as some do with reasoning.
pub(crate) fn lay_out_last(
    template: &ChatTemplate,
    messages: &[Message],
    tokens: &TemplateTokens,
) -> crate::Result<Layout> {
    let text = template.render_messages(&plain(messages), tokens, false)?;
    let is_turn = |idx: usize, _: &Message| idx + 1 == messages.len();
    find(template, messages, tokens, text, is_turn).map_err(|reason| refuse(template, reason))
}

fn find(
    template: &ChatTemplate,
    messages: &[Message],
    tokens: &TemplateTokens,
    text: String,
    is_turn: impl Fn(usize, &Message) -> bool,
) -> Result<Layout, Untracked> {
    let marked = Skeleton::track(template, messages, tokens, &is_turn);
    if let Some(layout) = marked.as_ref().ok().and_then(|s| s.lay_out(messages, text.clone())) {
        return Ok(layout);
    }
    // The words may decide how they are rendered, as `</think>` does in some templates.
    let plain = plain(messages);
    let turns: Option<Vec<TurnSpan>> = messages
        .iter()
        .enumerate()
        .filter(|(idx, message)| is_turn(*idx, message))
        .map(|(idx, _)| Turn { template, messages: &plain, tokens, idx }.behind_its_prompt(&text))
        .collect();
    let Some(turns) = turns else {
        return Err(marked.err().unwrap_or_else(|| Untracked {
            reason: "it changes the words of a message, so they cannot be located".to_owned(),
            hint: "use a template that writes contents as they are, such as `chatml`".to_owned(),
        }));
    };
    let contents = turns.iter().map(|turn| (turn.message, turn.content.clone())).collect();
    Ok(Layout { text, contents, turns })
}

fn plain(messages: &[Message]) -> Vec<(Role, &str)> {
    messages.iter().map(|message| (message.role, message.content.as_str())).collect()
}

fn refuse(template: &ChatTemplate, untracked: Untracked) -> crate::Error {
    crate::Error::Spans {
        name: template.name().to_owned(),
        reason: untracked.reason,
        hint: untracked.hint,
    }
}

/// A word that neither the template nor the messages hold.
fn unused_stem(template: &ChatTemplate, messages: &[Message]) -> String {
    let mut n = 0u32;
    loop {
        let stem = format!("Tq{n}mark");
        let taken =
            template.source().contains(&stem) || messages.iter().any(|m| m.content.contains(&stem));
        if !taken {
            return stem;
        }
        n += 1;
    }
}

/// Cuts a rendering at its marks.
fn split(text: &str, stem: &str, n_messages: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
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
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Content(idx));
        rest = mark.get(stem.len() + 7..).unwrap_or_default();
        from = 0;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces
}
