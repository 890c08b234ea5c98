//! Renders a conversation and locates the contents of its messages in the text.
//!
//! Never searches for role markers. Placeholders that occur in no text take the place of the
//! contents, and the contents put back must give the real rendering to the byte.

use std::ops::Range;
use std::sync::Arc;

use super::assistant_turn::{REASONING, TurnLocator};
use super::template::MessageView;
use super::template_layout::{
    CachedLayout, LayoutKey, RenderedChat, TemplateLayout, TurnSpan, Untracked, placeholder,
};
use super::{ChatTemplate, Conversation, Message, Role, TemplateTokens};

/// Renders a conversation and locates every assistant turn.
pub(crate) fn locate_turns(
    template: &ChatTemplate,
    conversation: Conversation<'_>,
    tokens: &TemplateTokens,
) -> crate::Result<RenderedChat> {
    let render = Render { template, conversation, tokens };
    let layout = render.cached_layout();
    let text = render.text()?;
    let is_turn = |_: usize, message: &Message| message.role == Role::Assistant;
    if let Ok(layout) = &layout
        && let Some(chat) = layout.locate(conversation.messages, text.clone())
    {
        return render.with_field_turns(chat, is_turn).map_err(|reason| render.refuse(reason));
    }
    // A template may look into a system or user message, and the date may have changed.
    // The reason from tracking all messages is the more general one.
    render
        .find(text, is_turn, is_turn)
        .map_err(|untracked| render.refuse(layout.err().unwrap_or(untracked)))
}

/// Renders a conversation, which ends with the assistant's message, and locates that last turn.
///
/// The template may change earlier turns, as some do with reasoning.
pub(crate) fn locate_last_turn(
    template: &ChatTemplate,
    conversation: Conversation<'_>,
    tokens: &TemplateTokens,
) -> crate::Result<RenderedChat> {
    let render = Render { template, conversation, tokens };
    let text = render.text()?;
    let last = conversation.messages.len().saturating_sub(1);
    let is_turn = |idx: usize, _: &Message| idx == last;
    let everything = |idx: usize, message: &Message| is_turn(idx, message) || has_content(message);
    // With every content located, special tokens in the texts of messages stay text.
    let found = render.find(text.clone(), everything, is_turn);
    let found = found.or_else(|_| render.find(text.clone(), is_turn, is_turn));
    found
        .or_else(|reason| render.after_own_prompt(&text, last).map_err(|own| own.unwrap_or(reason)))
        .map_err(|reason| render.refuse(reason))
}

/// Whether a message has a content whose place can be found with a placeholder.
fn has_content(message: &Message) -> bool {
    match message.role {
        // An empty answer is located, too: it has a place and an end token.
        Role::Assistant => message.fields.is_empty(),
        Role::System | Role::User | Role::Tool => !message.content.is_empty(),
    }
}

/// A conversation to render, with everything that decides the text.
struct Render<'a> {
    template: &'a ChatTemplate,
    conversation: Conversation<'a>,
    tokens: &'a TemplateTokens,
}

impl Render<'_> {
    fn views(&self) -> Vec<MessageView<'_>> {
        self.conversation.messages.iter().map(MessageView::of).collect()
    }

    fn text(&self) -> crate::Result<String> {
        let tools = self.conversation.tools;
        self.template.render_messages(&self.views(), tools, self.tokens, false)
    }

    /// The layout for conversations with these roles, computed once per template.
    fn cached_layout(&self) -> CachedLayout {
        let Conversation { messages, tools } = self.conversation;
        let is_turn = |_: usize, message: &Message| message.role == Role::Assistant;
        let track = || self.track(|_, m| has_content(m), is_turn).map(Arc::new);
        // Fields and tools decide the text around the contents, so such layouts are not shared.
        if !tools.is_empty() || messages.iter().any(|message| !message.fields.is_empty()) {
            return track();
        }
        self.template.cached_layout(LayoutKey::of(messages, self.tokens), track)
    }

    /// Renders placeholders for the messages that `tracked` selects; the turns among them become
    /// the layout's, unless their fields decide what the template writes.
    fn track(
        &self,
        tracked: impl Fn(usize, &Message) -> bool,
        is_turn: impl Fn(usize, &Message) -> bool,
    ) -> Result<TemplateLayout, Untracked> {
        let Conversation { messages, tools } = self.conversation;
        let stem = self.unused_stem();
        let placeholders: Vec<String> =
            (0..messages.len()).map(|idx| placeholder(&stem, idx)).collect();
        let tracked = |idx: usize, message: &Message| has_content(message) && tracked(idx, message);
        let marked: Vec<MessageView<'_>> = messages
            .iter()
            .zip(&placeholders)
            .enumerate()
            .map(|(idx, (message, mark))| {
                let view = MessageView::of(message);
                if tracked(idx, message) { MessageView { content: mark, ..view } } else { view }
            })
            .collect();
        let text =
            self.template.render_messages(&marked, tools, self.tokens, false).map_err(|e| {
                Untracked {
                    reason: format!("messages cannot be told apart: {e}"),
                    hint: e.hint().unwrap_or_default(),
                }
            })?;
        let mut turns = Vec::new();
        for (idx, message) in messages.iter().enumerate() {
            if is_turn(idx, message) && tracked(idx, message) {
                turns.push(self.locator(&marked, idx).layout(&text)?);
            }
        }
        Ok(TemplateLayout::from_placeholders(&text, &stem, messages.len(), turns))
    }

    fn find(
        &self,
        text: String,
        tracked: impl Fn(usize, &Message) -> bool,
        is_turn: impl Fn(usize, &Message) -> bool + Copy,
    ) -> Result<RenderedChat, Untracked> {
        let messages = self.conversation.messages;
        let layout = self.track(tracked, is_turn);
        let located = layout.as_ref().ok().and_then(|l| l.locate(messages, text.clone()));
        if let Some(chat) = located {
            return self.with_field_turns(chat, is_turn);
        }
        // The words may determine how they are rendered, as `</think>` does in some templates.
        let plain = self.views();
        let turns: Option<Vec<TurnSpan>> = messages
            .iter()
            .enumerate()
            .filter(|(idx, message)| is_turn(*idx, message) && has_content(message))
            .map(|(idx, _)| self.locator(&plain, idx).after_prompt(&text))
            .collect();
        let Some(turns) = turns else {
            return Err(layout.err().unwrap_or_else(|| Untracked {
                reason: "it changes the words of a message, so they cannot be located".to_owned(),
                hint: "use a template that writes contents unchanged, such as `chatml`".to_owned(),
            }));
        };
        let contents = turns.iter().map(|turn| (turn.message, turn.content.clone())).collect();
        self.with_field_turns(RenderedChat { text, contents, turns }, is_turn)
    }

    /// The last turn after its prompt, where the prompt ends in a text that the conversation does not have.
    ///
    /// Errors: the reason why the answer cannot follow the prompt, if it is known.
    fn after_own_prompt(&self, text: &str, last: usize) -> Result<RenderedChat, Option<Untracked>> {
        let message = self.conversation.messages.get(last).ok_or(None)?;
        // Other templates are not rendered again.
        if !has_content(message) || !self.template.source().contains(REASONING[0]) {
            return Err(None);
        }
        let (text, turn) = self.locator(&self.views(), last).after_own_prompt(text)?;
        let prompt = text.get(..turn.prompt_end).unwrap_or_default();
        let mut contents = self.contents_of_prompt(last, prompt).unwrap_or_default();
        contents.push((last, turn.content.clone()));
        Ok(RenderedChat { text, contents, turns: vec![turn] })
    }

    /// The contents of the first `n` messages in their rendering with a prompt; `None` if they cannot be located.
    fn contents_of_prompt(&self, n: usize, prompt: &str) -> Option<Vec<(usize, Range<usize>)>> {
        let Conversation { messages, tools } = self.conversation;
        let messages = messages.get(..n)?;
        let stem = self.unused_stem();
        let placeholders: Vec<String> = (0..n).map(|idx| placeholder(&stem, idx)).collect();
        let marked: Vec<MessageView<'_>> = messages
            .iter()
            .zip(&placeholders)
            .map(|(message, mark)| {
                let view = MessageView::of(message);
                if has_content(message) { MessageView { content: mark, ..view } } else { view }
            })
            .collect();
        let text = self.template.render_messages(&marked, tools, self.tokens, true).ok()?;
        let layout = TemplateLayout::from_placeholders(&text, &stem, n, Vec::new());
        Some(layout.locate(messages, prompt.to_owned())?.contents)
    }

    /// Adds the turns whose fields decide what the template writes.
    fn with_field_turns(
        &self,
        mut chat: RenderedChat,
        is_turn: impl Fn(usize, &Message) -> bool,
    ) -> Result<RenderedChat, Untracked> {
        let plain = self.views();
        for (idx, message) in self.conversation.messages.iter().enumerate() {
            if is_turn(idx, message) && !has_content(message) {
                chat.turns.push(self.locator(&plain, idx).with_fields(&chat.text)?);
            }
        }
        chat.turns.sort_by_key(|turn| turn.message);
        Ok(chat)
    }

    fn locator<'b>(&'b self, messages: &'b [MessageView<'b>], idx: usize) -> TurnLocator<'b> {
        let tools = self.conversation.tools;
        TurnLocator { template: self.template, messages, tools, tokens: self.tokens, idx }
    }

    fn refuse(&self, untracked: Untracked) -> crate::Error {
        crate::Error::Spans {
            name: self.template.name().to_owned(),
            reason: untracked.reason,
            hint: untracked.hint,
        }
    }

    /// A word that occurs neither in the template nor in the conversation.
    fn unused_stem(&self) -> String {
        let Conversation { messages, tools } = self.conversation;
        let fields = messages.iter().filter(|message| !message.fields.is_empty());
        let fields: Vec<String> = fields
            .map(|message| format!("{:?}", message.fields))
            .chain(tools.iter().map(|tool| format!("{tool:?}")))
            .collect();
        let mut n = 0u32;
        loop {
            let stem = format!("Tq{n}mark");
            let taken = self.template.source().contains(&stem)
                || messages.iter().any(|message| message.content.contains(&stem))
                || fields.iter().any(|text| text.contains(&stem));
            if !taken {
                return stem;
            }
            n += 1;
        }
    }
}
