//! Encodes conversations: token ids with the role and the loss mask of each token.
//!
//! Targets are all that the model has to write after a turn's prompt, up to the token that ends the
//! turn. No id is compared with the padding token, and rendered text is never searched for markers.
//! Truncation and packing belong to the crate `data`.

use std::borrow::Cow;

use serde_json::Value;

use super::assistant_turn::REASONING;
use super::chat_encoder::ChatEncoder;
use super::locate::{locate_last_turn, locate_turns};
use super::message_fields::rendered_fields;
use super::template::MessageView;
use super::token::Token;
use super::{AssistantTurn, ChatTemplate, Conversation, Encoded, Message, Role, TemplateTokens};
use crate::{Error, Result, Tokenizer};

/// Placeholder for an answer that does not exist yet.
const ANSWER: &str = "Tq answer";
/// The same with reasoning, which some prompts ask for.
const REASONED_ANSWER: &str = "<think>\nTq reasoning\n</think>\n\nTq answer";

impl Tokenizer {
    /// Renders a conversation as text.
    pub fn render_chat<'a>(
        &self,
        conversation: impl Into<Conversation<'a>>,
        template: &ChatTemplate,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let conversation = conversation.into();
        let messages = rendered_fields(template, conversation)?;
        let messages: Vec<MessageView<'_>> = messages.iter().map(MessageView::of).collect();
        template.render_messages(
            &messages,
            conversation.tools,
            &self.template_tokens(),
            add_generation_prompt,
        )
    }

    /// Renders a conversation with all fields of its messages, such as `tool_calls`, and with tools.
    ///
    /// `messages` and `tools` are JSON lists, like the arguments of `apply_chat_template`.
    pub fn render_chat_json(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        template: &ChatTemplate,
        add_generation_prompt: bool,
    ) -> Result<String> {
        template.render_json(messages, tools, &self.template_tokens(), add_generation_prompt)
    }

    /// Token ids of a conversation, with the assistant's turns as targets.
    ///
    /// A turn's targets are everything that the model has to write once it got the turn's prompt:
    /// what the template puts before the words (a space, an empty reasoning block), the words, and
    /// the token that ends the turn. Only the template writes special tokens: none is added, and
    /// one in a message's content is encoded as text.
    ///
    /// # Errors
    /// [`Error::Spans`] if the words of the assistant cannot be located exactly, or if the
    /// rendering of a shorter conversation is not the beginning of the longer one.
    pub fn encode_chat<'a>(
        &self,
        conversation: impl Into<Conversation<'a>>,
        template: &ChatTemplate,
    ) -> Result<Encoded> {
        let conversation = conversation.into();
        let messages = self.checked_messages(conversation, template)?;
        let conversation = Conversation { messages: &messages, ..conversation };
        if messages.is_empty() {
            return Err(Error::Conversation {
                reason: "the conversation has no messages".to_owned(),
            });
        }
        let located = locate_turns(template, conversation, &self.template_tokens());
        let encoded = located.and_then(|chat| {
            let encoder = ChatEncoder::new(self, template, conversation, &chat);
            encoder.encoded(&encoder.tokens()?)
        });
        match encoded {
            Err(error @ Error::Spans { .. }) if template.has_generation_blocks() => {
                self.encode_marked(conversation, template).ok_or(error)
            }
            encoded => encoded,
        }
    }

    /// Token ids of a conversation whose only targets are those of the last message, the
    /// assistant's.
    ///
    /// For templates that change earlier turns once later ones follow: one sample of each turn,
    /// with the context as the template writes it then, which is what the model sees.
    pub fn encode_answer<'a>(
        &self,
        conversation: impl Into<Conversation<'a>>,
        template: &ChatTemplate,
    ) -> Result<Encoded> {
        let conversation = conversation.into();
        let messages = self.checked_messages(conversation, template)?;
        let conversation = Conversation { messages: &messages, ..conversation };
        let Some((Message { role: Role::Assistant, .. }, context)) = messages.split_last() else {
            let reason = "the last message is not the assistant's".to_owned();
            return Err(Error::Conversation { reason });
        };
        let chat = locate_last_turn(template, conversation, &self.template_tokens())?;
        let encoder = ChatEncoder::new(self, template, conversation, &chat);
        let span =
            chat.turns.first().filter(|_| self.backend.encodes_piecewise && !context.is_empty());
        let Some(span) = span else {
            return encoder.encoded(&encoder.tokens()?);
        };
        let prompt = self.prompt(conversation.first(context.len()), template)?;
        let mut tokens: Vec<Token> = prompt
            .iter()
            .map(|(id, _)| Token { id: *id, start: 0, end: span.prompt_end })
            .collect();
        let end = encoder.answer(span, &mut tokens)?;
        encoder.template_text(end..chat.text.len(), &mut tokens)?;
        encoder.add_end(&mut tokens);
        let mut encoded = encoder.encoded(&tokens)?;
        for (role, (_, of)) in encoded.roles.iter_mut().zip(prompt) {
            *role = of;
        }
        Ok(encoded)
    }

    /// Token ids of a conversation that is scored as a whole: up to the end token of the
    /// assistant's last turn, which is where a rollout ends and where the score is read.
    ///
    /// The one form in which texts reach a reward model: training, evaluation, `temper score`
    /// and the rewards of rollouts all use these ids.
    pub fn encode_for_scoring<'a>(
        &self,
        conversation: impl Into<Conversation<'a>>,
        template: &ChatTemplate,
    ) -> Result<Encoded> {
        let mut encoded = self.encode_answer(conversation, template)?;
        let end = encoded.turns.last().map_or(encoded.ids.len(), |turn| turn.targets.end);
        encoded.ids.truncate(end);
        encoded.roles.truncate(end);
        encoded.loss_mask.truncate(end);
        Ok(encoded)
    }

    /// Token ids of a conversation with the template's prompt for an answer at its end.
    ///
    /// They are the first ids that [`Self::encode_chat`] and [`Self::encode_answer`] return for
    /// the conversation with the answer. For a template that cannot be tracked, they are those of
    /// the whole rendering, as in transformers.
    pub fn encode_prompt<'a>(
        &self,
        conversation: impl Into<Conversation<'a>>,
        template: &ChatTemplate,
    ) -> Result<Vec<u32>> {
        Ok(self.prompt(conversation.into(), template)?.into_iter().map(|(id, _)| id).collect())
    }

    /// [`Self::encode_prompt`] with the role of each token; none is a target.
    pub fn encode_prompt_roles<'a>(
        &self,
        conversation: impl Into<Conversation<'a>>,
        template: &ChatTemplate,
    ) -> Result<Encoded> {
        let (ids, roles): (Vec<u32>, Vec<Option<Role>>) =
            self.prompt(conversation.into(), template)?.into_iter().unzip();
        Ok(Encoded { loss_mask: vec![false; ids.len()], ids, roles, turns: Vec::new() })
    }

    fn prompt(
        &self,
        conversation: Conversation<'_>,
        template: &ChatTemplate,
    ) -> Result<Vec<(u32, Option<Role>)>> {
        let tools = conversation.tools;
        let messages = self.checked_messages(conversation, template)?;
        let messages = messages.as_ref();
        let text = self.render_chat(Conversation { messages, tools }, template, true)?;
        let tokens = self.template_tokens();
        let opens_reasoning = text.trim_end().ends_with(REASONING[0]);
        for answer in [ANSWER].into_iter().chain(opens_reasoning.then_some(REASONED_ANSWER)) {
            let answered = [messages, &[Message::new(Role::Assistant, answer)]].concat();
            let whole = Conversation { messages: &answered, tools };
            let chat = locate_turns(template, whole, &tokens)
                .or_else(|_| locate_last_turn(template, whole, &tokens));
            if let Ok(chat) = chat
                && let Some(turn) = chat.turns.last()
                && chat.text.get(..turn.prompt_end) == Some(text.as_str())
            {
                let encoder = ChatEncoder::new(self, template, whole, &chat);
                let tokens = encoder.tokens()?;
                let prompt = tokens.iter().take_while(|token| token.start < turn.prompt_end);
                return Ok(prompt.map(|token| (token.id, encoder.role(*token))).collect());
            }
        }
        Ok(self.encode_plain(&text)?.into_iter().map(|id| (id, None)).collect())
    }

    /// Description of the targets that the template's `{% generation %}` blocks decide, if they
    /// differ from the answers with their end tokens; for people. None without blocks.
    pub fn generation_blocks_note(&self, template: &ChatTemplate) -> Option<String> {
        if !template.has_generation_blocks() {
            return None;
        }
        let user = || Message::new(Role::User, "question");
        let messages = [
            user(),
            Message::new(Role::Assistant, ANSWER),
            user(),
            Message::new(Role::Assistant, ANSWER),
        ];
        let probe = |n| self.encode_chat(&messages[..n], template);
        let Ok(encoded) = probe(4).or_else(|_| probe(2)) else {
            return Some(
                "the `{% generation %}` blocks of the chat template decide the targets".to_owned(),
            );
        };
        let targets = encoded.turns.iter().map(|turn| turn.targets.clone());
        let ours: Vec<usize> = targets.flatten().collect();
        let decoded = |ids: Vec<u32>| format!("{:?}", self.decode(&ids, false));
        let indices = || encoded.ids.iter().copied().zip(&encoded.loss_mask).enumerate();
        let more: Vec<u32> = indices()
            .filter(|(idx, (_, mask))| **mask && !ours.contains(idx))
            .map(|(_, (id, _))| id)
            .collect();
        let fewer: Vec<u32> = indices()
            .filter(|(idx, (_, mask))| !**mask && ours.contains(idx))
            .map(|(_, (id, _))| id)
            .collect();
        let mut note =
            "the `{% generation %}` blocks of the chat template decide the targets".to_owned();
        if !more.is_empty() {
            note += &format!("; in a chat of two answers they add {}", decoded(more));
        }
        if !fewer.is_empty() {
            note += &format!(
                "; they leave out {}, which the model has to write at generation",
                decoded(fewer)
            );
        }
        Some(note)
    }

    /// Messages with the fields that the template reads, checked for special tokens.
    fn checked_messages<'a>(
        &self,
        conversation: Conversation<'a>,
        template: &ChatTemplate,
    ) -> Result<Cow<'a, [Message]>> {
        let messages = rendered_fields(template, conversation)?;
        self.check_fields(Conversation { messages: &messages, ..conversation })?;
        Ok(messages)
    }

    /// Encodes a prompt and its completion without a template.
    ///
    /// The ids are those that `encode` adds before texts, the prompt, the completion and the
    /// end-of-text token. The loss mask selects the last two. If the completion ends with an
    /// end-of-text token, no second one is added.
    pub fn encode_prompt_completion(&self, prompt: &str, completion: &str) -> Result<Encoded> {
        let eos = self.require_eos()?;
        let completion = self
            .token_text(eos)
            .and_then(|text| completion.strip_suffix(text.as_str()))
            .unwrap_or(completion);
        let mut ids = self.prefix_ids();
        ids.extend(self.encode_plain(prompt)?);
        let prompt_len = ids.len();
        if self.backend.encodes_piecewise {
            ids.extend(self.backend.encode_literal(completion)?);
        } else {
            let whole = self.encode_plain(&format!("{prompt}{completion}"))?;
            let start = self.prefix_ids().len();
            let same = ids.get(start..).is_some_and(|prompt| whole.starts_with(prompt));
            if !same {
                return Err(Error::Conversation {
                    reason: format!(
                        "the tokenizer joins the end of the prompt and the start of the \
                         completion: `{}`",
                        completion.chars().take(20).collect::<String>()
                    ),
                });
            }
            ids.truncate(start);
            ids.extend(whole);
        }
        if let Some(idx) = ids.iter().skip(prompt_len).position(|id| *id == eos) {
            return Err(Error::Conversation {
                reason: format!("the completion contains the end-of-text token at its token {idx}"),
            });
        }
        ids.push(eos);
        let whose = |idx| if idx < prompt_len { Role::User } else { Role::Assistant };
        let prefix_len = self.backend.prefix.len();
        Ok(Encoded {
            roles: (0..ids.len()).map(|idx| (idx >= prefix_len).then(|| whose(idx))).collect(),
            loss_mask: (0..ids.len()).map(|idx| idx >= prompt_len).collect(),
            turns: vec![AssistantTurn { message: 1, prompt_len, targets: prompt_len..ids.len() }],
            ids,
        })
    }

    /// Checks that the turns of `encoded` continue the ids that the model gets as its prompt at
    /// generation. Of a very long conversation only some turns are checked, at even distances.
    ///
    /// # Errors
    /// [`Error::PromptIds`] with both lists of ids.
    pub fn check_prompts<'a>(
        &self,
        conversation: impl Into<Conversation<'a>>,
        template: &ChatTemplate,
        encoded: &Encoded,
    ) -> Result<()> {
        let conversation = conversation.into();
        for turn in checked_turns(&encoded.turns) {
            let prompt = self.encode_prompt(conversation.first(turn.message), template)?;
            let row = encoded.ids.get(..turn.targets.start).unwrap_or_default();
            if prompt != row {
                return Err(Error::PromptIds {
                    name: template.name().to_owned(),
                    message: turn.message,
                    prompt,
                    row: row.to_vec(),
                });
            }
        }
        Ok(())
    }

    /// Refuses special tokens in tools and in the fields of messages.
    ///
    /// Only contents are located in a rendering; text elsewhere is not told apart from the
    /// template's own, so a special token in it would end or begin a turn.
    fn check_fields(&self, conversation: Conversation<'_>) -> Result<()> {
        let control = |value: &Value| {
            strings(value).into_iter().any(|text| self.backend.contains_control_token(text))
        };
        let refuse = |what: String| {
            let reason = format!("{what} contains a special token of the tokenizer as text");
            Err(Error::Conversation { reason })
        };
        if conversation.tools.iter().any(control) {
            return refuse("a tool".to_owned());
        }
        let with_fields =
            conversation.messages.iter().enumerate().filter(|(_, m)| !m.fields.is_empty());
        for (idx, message) in with_fields {
            let content = message.role == Role::Assistant
                && self.backend.contains_control_token(&message.content);
            if content || message.fields.values().any(control) {
                return refuse(format!("message {idx} ({})", message.role.as_str()));
            }
        }
        Ok(())
    }

    /// Special tokens that a template can write, as transformers passes them.
    pub(crate) fn template_tokens(&self) -> TemplateTokens {
        let usual = [
            ("bos_token", self.bos()),
            ("eos_token", self.eos()),
            ("pad_token", self.pad()),
            ("unk_token", self.unk()),
        ];
        let text = |(name, id): (&str, Option<u32>)| Some((name.to_owned(), self.token_text(id?)?));
        let named = &self.backend.named_tokens;
        TemplateTokens {
            named: usual.into_iter().filter_map(text).chain(named.named.iter().cloned()).collect(),
            additional: named.additional.clone(),
        }
    }
}

/// The turns whose prompts are checked: all, or every 2nd, 4th, … counted from the last.
///
/// Finding the prompt of message `n` renders the messages before each earlier turn, about n² messages.
fn checked_turns(turns: &[AssistantTurn]) -> Vec<&AssistantTurn> {
    const MESSAGES: usize = 1 << 18;
    let work = |turn: &AssistantTurn| turn.message.saturating_mul(turn.message);
    // The first message has no prompt.
    let feasible = |turn: &&AssistantTurn| turn.message > 0 && work(turn) <= MESSAGES;
    let turns: Vec<&AssistantTurn> = turns.iter().filter(feasible).collect();
    let every = |step| turns.iter().rev().step_by(step);
    let mut step = 1;
    while step < turns.len() && every(step).map(|turn| work(turn)).sum::<usize>() > MESSAGES {
        step *= 2;
    }
    every(step).copied().collect()
}

/// All texts in a JSON value, keys included.
fn strings(value: &Value) -> Vec<&str> {
    let mut texts = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => texts.push(text.as_str()),
            Value::Array(items) => open.extend(items),
            Value::Object(map) => {
                texts.extend(map.keys().map(String::as_str));
                open.extend(map.values());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::{AssistantTurn, checked_turns};

    #[test]
    fn the_prompts_of_some_turns_of_a_long_conversation_are_checked() {
        let turns = |n: usize| -> Vec<AssistantTurn> {
            let turn = |i| AssistantTurn { message: 2 * i + 1, prompt_len: 0, targets: 0..0 };
            (0..n).map(turn).collect()
        };
        let checked = |n| -> Vec<usize> {
            let turns = turns(n);
            checked_turns(&turns).iter().map(|turn| turn.message).collect()
        };
        assert_eq!(checked(3), [5, 3, 1]);
        assert_eq!(checked(50).len(), 50);
        let some = checked(100);
        assert_eq!((some.len(), some[0], some[1]), (13, 199, 183));
        // The prompts of the last turns would take too long.
        let some = checked(5000);
        assert!(!some.is_empty() && some.iter().all(|message| *message <= 512), "{some:?}");
        assert!(checked(0).is_empty());
    }
}
