//! Renders a conversation and locates the contents of its messages in the text.
//!
//! Never searches for role markers. Placeholders that occur in no text take the place of the
//! contents, and the contents put back must give the real rendering to the byte.

use std::sync::Arc;

use super::assistant_turn::TurnLocator;
use super::template_layout::{
    CachedLayout, LayoutKey, RenderedChat, TemplateLayout, TurnSpan, Untracked, placeholder,
};
use super::{ChatTemplate, Message, Role, TemplateTokens};

/// Renders `messages` and locates every assistant turn.
pub(crate) fn locate_turns(
    template: &ChatTemplate,
    messages: &[Message],
    tokens: &TemplateTokens,
) -> crate::Result<RenderedChat> {
    let layout = cached_layout(template, messages, tokens);
    let text = template.render_messages(&plain(messages), tokens, false)?;
    if let Ok(layout) = &layout
        && let Some(chat) = layout.locate(messages, text.clone())
    {
        return Ok(chat);
    }
    // A template may look into a system or user message, and the date may have changed.
    let is_turn = |_: usize, message: &Message| message.role == Role::Assistant;
    // The reason from tracking all messages is the more general one.
    find(template, messages, tokens, text, is_turn)
        .map_err(|untracked| refuse(template, layout.err().unwrap_or(untracked)))
}

/// Renders `messages`, which end with the assistant's, and locates that last turn.
///
/// The template may change earlier turns, as some do with reasoning.
pub(crate) fn locate_last_turn(
    template: &ChatTemplate,
    messages: &[Message],
    tokens: &TemplateTokens,
) -> crate::Result<RenderedChat> {
    let text = template.render_messages(&plain(messages), tokens, false)?;
    let is_turn = |idx: usize, _: &Message| idx + 1 == messages.len();
    find(template, messages, tokens, text, is_turn).map_err(|reason| refuse(template, reason))
}

/// The layout for conversations with the roles of `messages`, computed once per template.
fn cached_layout(
    template: &ChatTemplate,
    messages: &[Message],
    tokens: &TemplateTokens,
) -> CachedLayout {
    let key = LayoutKey::of(messages, tokens);
    template.cached_layout(key, || {
        let tracked = |_: usize, message: &Message| {
            message.role == Role::Assistant || !message.content.is_empty()
        };
        track(template, messages, tokens, tracked).map(Arc::new)
    })
}

/// Renders placeholders for the messages that `tracked` selects; those of the assistant among them
/// become the layout's turns.
fn track(
    template: &ChatTemplate,
    messages: &[Message],
    tokens: &TemplateTokens,
    tracked: impl Fn(usize, &Message) -> bool,
) -> Result<TemplateLayout, Untracked> {
    let stem = unused_stem(template, messages);
    let placeholders: Vec<String> =
        (0..messages.len()).map(|idx| placeholder(&stem, idx)).collect();
    let marked: Vec<(Role, &str)> = messages
        .iter()
        .zip(&placeholders)
        .enumerate()
        .map(|(idx, (m, mark))| (m.role, if tracked(idx, m) { mark } else { &m.content }))
        .map(|(role, content)| (role, content.as_str()))
        .collect();
    let text = template.render_messages(&marked, tokens, false).map_err(|e| Untracked {
        reason: format!("messages cannot be told apart: {e}"),
        hint: e.hint().unwrap_or_default(),
    })?;
    let mut turns = Vec::new();
    for (idx, message) in messages.iter().enumerate() {
        if message.role == Role::Assistant && tracked(idx, message) {
            let turn = TurnLocator { template, messages: &marked, tokens, idx };
            turns.push(turn.layout(&text)?);
        }
    }
    Ok(TemplateLayout::from_placeholders(&text, &stem, messages.len(), turns))
}

fn find(
    template: &ChatTemplate,
    messages: &[Message],
    tokens: &TemplateTokens,
    text: String,
    is_turn: impl Fn(usize, &Message) -> bool,
) -> Result<RenderedChat, Untracked> {
    let layout = track(template, messages, tokens, &is_turn);
    if let Some(chat) = layout.as_ref().ok().and_then(|l| l.locate(messages, text.clone())) {
        return Ok(chat);
    }
    // The words may determine how they are rendered, as `</think>` does in some templates.
    let plain = plain(messages);
    let turns: Option<Vec<TurnSpan>> = messages
        .iter()
        .enumerate()
        .filter(|(idx, message)| is_turn(*idx, message))
        .map(|(idx, _)| TurnLocator { template, messages: &plain, tokens, idx }.after_prompt(&text))
        .collect();
    let Some(turns) = turns else {
        return Err(layout.err().unwrap_or_else(|| Untracked {
            reason: "it changes the words of a message, so they cannot be located".to_owned(),
            hint: "use a template that writes contents unchanged, such as `chatml`".to_owned(),
        }));
    };
    let contents = turns.iter().map(|turn| (turn.message, turn.content.clone())).collect();
    Ok(RenderedChat { text, contents, turns })
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

/// A word that occurs neither in the template nor in the messages.
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
