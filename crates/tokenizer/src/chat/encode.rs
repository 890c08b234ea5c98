//! Encodes conversations: token ids with the role and the loss mask of each token.
//!
//! The loss mask selects the tokens that the model must write: the assistant's words and the token
//! that ends its turn. No id is compared with the padding id, and rendered text is never searched
//! for role markers. Truncation and packing belong to the crate `data`.

use super::chat_encoder::{ChatEncoder, Token, no_end};
use super::locate::{locate_last_turn, locate_turns};
use super::{AssistantTurn, ChatTemplate, Encoded, Message, Role, TemplateTokens};
use crate::{Error, Result, Tokenizer};

/// Placeholder for an answer that does not exist yet.
const ANSWER: &str = "answer";

impl Tokenizer {
    /// Renders messages as text, like `apply_chat_template(tokenize=False)`.
    pub fn render_chat(
        &self,
        messages: &[Message],
        template: &ChatTemplate,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let plain: Vec<(Role, &str)> =
            messages.iter().map(|m| (m.role, m.content.as_str())).collect();
        template.render_messages(&plain, &self.template_tokens(), add_generation_prompt)
    }

    /// Encodes a conversation; the loss mask selects the assistant's words and end tokens.
    ///
    /// Only the template writes special tokens: none is added, and their text in a message stays
    /// text. [`Error::Spans`] if the assistant's words cannot be located exactly, or if the
    /// rendering of a shorter conversation is not a prefix of the longer one.
    pub fn encode_chat(&self, messages: &[Message], template: &ChatTemplate) -> Result<Encoded> {
        if messages.is_empty() {
            return Err(Error::Conversation {
                reason: "the conversation has no messages".to_owned(),
            });
        }
        let chat = locate_turns(template, messages, &self.template_tokens())?;
        let encoder = ChatEncoder { tokenizer: self, template, messages, chat: &chat };
        encoder.encoded(&encoder.tokens()?)
    }

    /// Encodes a conversation; the loss mask selects only the last message, the assistant's.
    ///
    /// For templates that change earlier turns once later ones follow: one sample per turn, with the
    /// context that the model sees when it answers.
    pub fn encode_answer(&self, messages: &[Message], template: &ChatTemplate) -> Result<Encoded> {
        let Some((Message { role: Role::Assistant, .. }, context)) = messages.split_last() else {
            let reason = "the last message is not the assistant's".to_owned();
            return Err(Error::Conversation { reason });
        };
        let chat = locate_last_turn(template, messages, &self.template_tokens())?;
        let encoder = ChatEncoder { tokenizer: self, template, messages, chat: &chat };
        let span =
            chat.turns.first().filter(|_| self.backend.encodes_piecewise && !context.is_empty());
        let Some(span) = span else {
            return encoder.encoded(&encoder.tokens()?);
        };
        let prompt = self.prompt(context, template)?;
        let mut tokens: Vec<Token> = prompt
            .iter()
            .map(|(id, _)| Token { id: *id, start: 0, end: span.prompt_end })
            .collect();
        encoder.answer(span, &mut tokens)?;
        encoder.template_text(span.content.end..chat.text.len(), &mut tokens)?;
        let mut encoded = encoder.encoded(&tokens)?;
        for (role, (_, of)) in encoded.roles.iter_mut().zip(prompt) {
            *role = of;
        }
        Ok(encoded)
    }

    /// Encodes a conversation for a reward model: up to the end token of the assistant's last turn,
    /// where a rollout ends and the score is read.
    ///
    /// Reward-model training, evaluation, `temper score` and the rewards of rollouts all use these
    /// ids.
    pub fn encode_for_scoring(
        &self,
        messages: &[Message],
        template: &ChatTemplate,
    ) -> Result<Encoded> {
        let mut encoded = self.encode_answer(messages, template)?;
        let end = encoded.turns.last().map_or(encoded.ids.len(), |turn| turn.targets.end);
        encoded.ids.truncate(end);
        encoded.roles.truncate(end);
        encoded.loss_mask.truncate(end);
        Ok(encoded)
    }

    /// Ids of a conversation followed by the template's generation prompt.
    ///
    /// A prefix of the ids that [`Self::encode_chat`] and [`Self::encode_answer`] return for the
    /// conversation with an answer. If the template's answers cannot be located, these are the ids
    /// of the whole rendering, as in transformers.
    pub fn encode_prompt(&self, messages: &[Message], template: &ChatTemplate) -> Result<Vec<u32>> {
        Ok(self.prompt(messages, template)?.into_iter().map(|(id, _)| id).collect())
    }

    /// [`Self::encode_prompt`] with the role of each token and an empty loss mask.
    pub fn encode_prompt_roles(
        &self,
        messages: &[Message],
        template: &ChatTemplate,
    ) -> Result<Encoded> {
        let (ids, roles): (Vec<u32>, Vec<Option<Role>>) =
            self.prompt(messages, template)?.into_iter().unzip();
        Ok(Encoded { loss_mask: vec![false; ids.len()], ids, roles, turns: Vec::new() })
    }

    fn prompt(
        &self,
        messages: &[Message],
        template: &ChatTemplate,
    ) -> Result<Vec<(u32, Option<Role>)>> {
        let text = self.render_chat(messages, template, true)?;
        let answered = [messages, &[Message::new(Role::Assistant, ANSWER)]].concat();
        if let Ok(chat) = locate_turns(template, &answered, &self.template_tokens())
            && let Some(turn) = chat.turns.last()
            && chat.text.get(..turn.prompt_end) == Some(text.as_str())
        {
            let encoder =
                ChatEncoder { tokenizer: self, template, messages: &answered, chat: &chat };
            let tokens = encoder.tokens()?;
            let prompt = tokens.iter().take_while(|token| token.start < turn.prompt_end);
            return Ok(prompt.map(|token| (token.id, encoder.role(*token))).collect());
        }
        Ok(self.encode_plain(&text)?.into_iter().map(|id| (id, None)).collect())
    }

    /// Token that ends the assistant's turns in `template`.
    pub fn end_token(&self, template: &ChatTemplate) -> Result<u32> {
        let messages =
            [Message::new(Role::User, "question"), Message::new(Role::Assistant, ANSWER)];
        let text = self.render_chat(&messages, template, false)?;
        let tail = text.rsplit_once(ANSWER).map_or("", |(_, tail)| tail);
        self.backend.leading_added_token(tail.trim_start()).ok_or_else(|| no_end(template, 1, tail))
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

    fn template_tokens(&self) -> TemplateTokens {
        let named = [
            ("bos_token", self.bos()),
            ("eos_token", self.eos()),
            ("pad_token", self.pad()),
            ("unk_token", self.unk()),
        ];
        let text = |(name, id): (&str, Option<u32>)| Some((name.to_owned(), self.token_text(id?)?));
        TemplateTokens(named.into_iter().filter_map(text).collect())
    }
}
