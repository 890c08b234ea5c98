//! Conversations to ids: which tokens are whose, which are learnt, and where each turn lies.
//!
//! What is learnt is what the model has to write: the assistant's words and the token that ends the
//! turn. No id is compared with the padding token, and rendered text is never searched for markers.
//! Cutting and packing are not done here.

use std::ops::Range;

use super::skeleton::{self, Layout, TurnSpan};
use super::template::TemplateTokens;
use super::{ChatTemplate, Message, Role};
use crate::{Error, Result, Tokenizer};

/// Stands for an answer that is not known yet.
const ANSWER: &str = "answer";

/// A conversation, or a prompt with its completion, as ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The ids.
    pub ids: Vec<u32>,
    /// Whose words each token belongs to; None for what the template writes around them.
    pub roles: Vec<Option<Role>>,
    /// Whether each token is one that the model must learn to write.
    pub loss_mask: Vec<bool>,
    /// The assistant's turns, in order.
    pub turns: Vec<Turn>,
}

/// One turn of the assistant, in indices of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The message, by its index in the conversation.
    pub message: usize,
    /// How many ids the prompt for this turn has: they are the first ones of the conversation.
    pub prompt_len: usize,
    /// The assistant's words and, last, the end token.
    pub targets: Range<usize>,
}

/// A token with the bytes that it covers.
#[derive(Debug, Clone, Copy)]
struct Token {
    id: u32,
    start: usize,
    end: usize,
}

impl Tokenizer {
    /// Renders messages as text.
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

    /// Ids of a conversation, with the assistant's words and end tokens marked as what is learnt.
    ///
    /// Only the template writes special tokens: none is added, and one that stands in a message is
    /// text there. Where the words of the assistant cannot be located exactly, or the rendering of
    /// a shorter conversation is not the beginning of the longer one, it is refused by name.
    pub fn encode_chat(&self, messages: &[Message], template: &ChatTemplate) -> Result<Encoded> {
        if messages.is_empty() {
            return Err(Error::Conversation {
                reason: "a conversation without messages".to_owned(),
            });
        }
        let layout = skeleton::lay_out(template, messages, &self.template_tokens())?;
        let chat = Chat { tokenizer: self, template, messages, layout: &layout };
        chat.encoded(&chat.tokens()?)
    }

    /// Ids of a conversation of which only the last message, the assistant's, is learnt.
    ///
    /// For templates that change earlier turns once later ones follow: one sample of each turn,
    /// with the context as the template writes it then, which is what the model sees.
    pub fn encode_answer(&self, messages: &[Message], template: &ChatTemplate) -> Result<Encoded> {
        let Some((Message { role: Role::Assistant, .. }, context)) = messages.split_last() else {
            let reason = "the last message is not the assistant's".to_owned();
            return Err(Error::Conversation { reason });
        };
        let layout = skeleton::lay_out_last(template, messages, &self.template_tokens())?;
        let chat = Chat { tokenizer: self, template, messages, layout: &layout };
        let span = layout.turns.first().filter(|_| self.backend.separable && !context.is_empty());
        let Some(span) = span else {
            return chat.encoded(&chat.tokens()?);
        };
        let prompt = self.prompt(context, template)?;
        let mut tokens: Vec<Token> = prompt
            .iter()
            .map(|(id, _)| Token { id: *id, start: 0, end: span.prompt_end })
            .collect();
        chat.answer(span, &mut tokens)?;
        chat.scaffold(span.content.end..layout.text.len(), &mut tokens)?;
        let mut encoded = chat.encoded(&tokens)?;
        for (role, (_, of)) in encoded.roles.iter_mut().zip(prompt) {
            *role = of;
        }
        Ok(encoded)
    }

    /// Ids of a conversation with the template's prompt for an answer at its end.
    ///
    /// They are the first ids of what [`Self::encode_chat`] and [`Self::encode_answer`] give for
    /// the conversation with the answer. For a template that cannot be tracked, they are those of
    /// the whole rendering, as transformers gives them.
    pub fn encode_prompt(&self, messages: &[Message], template: &ChatTemplate) -> Result<Vec<u32>> {
        Ok(self.prompt(messages, template)?.into_iter().map(|(id, _)| id).collect())
    }

    /// [`Self::encode_prompt`] with the role of each token.
    fn prompt(
        &self,
        messages: &[Message],
        template: &ChatTemplate,
    ) -> Result<Vec<(u32, Option<Role>)>> {
        let text = self.render_chat(messages, template, true)?;
        let answered = [messages, &[Message::new(Role::Assistant, ANSWER)]].concat();
        if let Ok(layout) = skeleton::lay_out(template, &answered, &self.template_tokens())
            && let Some(turn) = layout.turns.last()
            && layout.text.get(..turn.prompt_end) == Some(text.as_str())
        {
            let chat = Chat { tokenizer: self, template, messages: &answered, layout: &layout };
            let tokens = chat.tokens()?;
            let prompt = tokens.iter().take_while(|token| token.start < turn.prompt_end);
            return Ok(prompt.map(|token| (token.id, chat.role(*token))).collect());
        }
        Ok(self.encode_plain(&text)?.into_iter().map(|id| (id, None)).collect())
    }

    /// The token that ends the assistant's turns in `template`.
    pub fn end_token(&self, template: &ChatTemplate) -> Result<u32> {
        let messages =
            [Message::new(Role::User, "question"), Message::new(Role::Assistant, ANSWER)];
        let text = self.render_chat(&messages, template, false)?;
        let tail = text.rsplit_once(ANSWER).map_or("", |(_, tail)| tail);
        self.backend.added_at(tail.trim_start()).ok_or_else(|| no_end(template, 1, tail))
    }

    /// Ids of a prompt and its completion without any template.
    ///
    /// What `encode` puts in front of texts, the prompt, the completion and the end-of-text token;
    /// the last two are learnt. An end-of-text token that the completion ends with counts as that.
    pub fn encode_prompt_completion(&self, prompt: &str, completion: &str) -> Result<Encoded> {
        let eos = self.require_eos()?;
        let completion = self
            .token_text(eos)
            .and_then(|text| completion.strip_suffix(text.as_str()))
            .unwrap_or(completion);
        let mut ids = self.prefix_ids();
        ids.extend(self.encode_plain(prompt)?);
        let prompt_len = ids.len();
        if self.backend.separable {
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
                reason: format!("the completion holds the end-of-text token at its token {idx}"),
            });
        }
        ids.push(eos);
        let whose = |idx| if idx < prompt_len { Role::User } else { Role::Assistant };
        let prefix_len = self.backend.prefix.len();
        Ok(Encoded {
            roles: (0..ids.len()).map(|idx| (idx >= prefix_len).then(|| whose(idx))).collect(),
            loss_mask: (0..ids.len()).map(|idx| idx >= prompt_len).collect(),
            turns: vec![Turn { message: 1, prompt_len, targets: prompt_len..ids.len() }],
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

/// A rendered conversation while it becomes ids.
struct Chat<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    messages: &'a [Message],
    layout: &'a Layout,
}

impl Chat<'_> {
    fn encoded(&self, tokens: &[Token]) -> Result<Encoded> {
        let mut encoded = Encoded {
            ids: tokens.iter().map(|token| token.id).collect(),
            roles: tokens.iter().map(|token| self.role(*token)).collect(),
            loss_mask: vec![false; tokens.len()],
            turns: Vec::with_capacity(self.layout.turns.len()),
        };
        for span in &self.layout.turns {
            let turn = self.turn(tokens, span)?;
            for idx in turn.targets.clone() {
                if let (Some(mask), Some(role)) =
                    (encoded.loss_mask.get_mut(idx), encoded.roles.get_mut(idx))
                {
                    *mask = true;
                    *role = Some(Role::Assistant);
                }
            }
            encoded.turns.push(turn);
        }
        Ok(encoded)
    }

    /// The tokens of the rendering, cut at the borders of what the model writes if that can be.
    ///
    /// At inference the model gets the ids of the prompt and writes the ids of its answer, so no
    /// token may reach over that border. Tokenizers that treat the start of a text in a special
    /// way get the whole text instead, and `turn` refuses tokens that reach over a border.
    fn tokens(&self) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        if !self.tokenizer.backend.separable {
            self.scaffold(0..self.layout.text.len(), &mut tokens)?;
            self.check_prompts(&tokens)?;
            return Ok(tokens);
        }
        let mut position = 0;
        for span in &self.layout.turns {
            self.scaffold(position..span.prompt_end, &mut tokens)?;
            self.answer(span, &mut tokens)?;
            position = span.content.end;
        }
        self.scaffold(position..self.layout.text.len(), &mut tokens)?;
        Ok(tokens)
    }

    /// Adds the tokens from the end of a prompt to the end of the assistant's words.
    fn answer(&self, span: &TurnSpan, tokens: &mut Vec<Token>) -> Result<()> {
        self.scaffold(span.prompt_end..span.content.start, tokens)?;
        self.literal(&span.content, tokens)
    }

    fn literal(&self, content: &Range<usize>, tokens: &mut Vec<Token>) -> Result<()> {
        let ids = self.tokenizer.backend.encode_literal(self.slice(content))?;
        let (start, end) = (content.start, content.end);
        tokens.extend(ids.into_iter().map(|id| Token { id, start, end }));
        Ok(())
    }

    /// Adds the tokens of a part of the rendering outside of the assistant's words.
    ///
    /// It is encoded in one piece, as transformers would, unless a message in it holds the text of
    /// a special token: then the messages are cut out and theirs is text.
    fn scaffold(&self, range: Range<usize>, tokens: &mut Vec<Token>) -> Result<()> {
        let backend = &self.tokenizer.backend;
        let inside =
            |content: &Range<usize>| range.start <= content.start && content.end <= range.end;
        let dangerous =
            backend.separable
                && self.layout.contents.iter().any(|(_, content)| {
                    inside(content) && backend.holds_control(self.slice(content))
                });
        let mut position = range.start;
        if dangerous {
            for (_, content) in self.layout.contents.iter().filter(|(_, content)| inside(content)) {
                self.piece(position..content.start, tokens)?;
                self.literal(content, tokens)?;
                position = content.end;
            }
        }
        self.piece(position..range.end, tokens)
    }

    fn piece(&self, range: Range<usize>, tokens: &mut Vec<Token>) -> Result<()> {
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

    /// Checks that the ids of each prompt are the first ids of the whole.
    fn check_prompts(&self, tokens: &[Token]) -> Result<()> {
        for span in &self.layout.turns {
            let prompt = self.tokenizer.encode_plain(self.slice(&(0..span.prompt_end)))?;
            let first = tokens.iter().take(prompt.len()).map(|token| token.id);
            let ends = tokens.get(prompt.len()).is_none_or(|next| next.start >= span.prompt_end);
            if !prompt.iter().copied().eq(first) || !ends {
                return Err(self.refuse(span.message, "is joined to its prompt by the tokenizer"));
            }
        }
        Ok(())
    }

    fn turn(&self, tokens: &[Token], span: &TurnSpan) -> Result<Turn> {
        let content = &span.content;
        let prompt_len = tokens.partition_point(|token| token.start < span.prompt_end);
        let first = tokens
            .iter()
            .position(|token| token.end > content.start || token.start >= content.start);
        let start = first.unwrap_or(tokens.len());
        // A token may take white space of the scaffold along where the model writes that, too.
        let reaches_back = tokens.get(start).is_some_and(|token| {
            token.start < content.start
                && (token.start < span.prompt_end
                    || !self.slice(&(token.start..content.start)).trim().is_empty())
        });
        if reaches_back {
            return Err(self.refuse(span.message, "shares its first token with the template"));
        }
        let after = |token: &Token| token.start >= content.end && token.end > content.end;
        let end = start + tokens.iter().skip(start).position(after).unwrap_or(tokens.len());
        let mut idx = end;
        loop {
            let Some(token) = tokens.get(idx) else {
                return Err(self.no_end(span));
            };
            let gap = self.slice(&(content.end..token.start.max(content.end)));
            if !gap.trim().is_empty() {
                return Err(self.no_end(span));
            }
            if self.ends_turn(*token, span) {
                break;
            }
            idx += 1;
        }
        let words = tokens.get(start..idx).unwrap_or_default();
        let end_id = tokens.get(idx).map(|token| token.id);
        if words
            .iter()
            .any(|token| Some(token.id) == end_id || Some(token.id) == self.tokenizer.eos())
        {
            return Err(self.refuse(span.message, "holds the token that ends turns"));
        }
        Ok(Turn { message: span.message, prompt_len, targets: start..idx + 1 })
    }

    /// Whether `token` is a special token that follows the content whatever comes later.
    fn ends_turn(&self, token: Token, span: &TurnSpan) -> bool {
        let added = self.tokenizer.backend.added_token(token.id);
        let Some((text, _)) = added else { return false };
        let offset = token.start - span.content.end.min(token.start);
        // With `lstrip` a token covers white space before it.
        span.tail.get(offset..).is_some_and(|tail| tail.trim_start().starts_with(text))
    }

    fn role(&self, token: Token) -> Option<Role> {
        let contents = &self.layout.contents;
        let owner = contents
            .iter()
            .find(|(_, content)| token.start < content.end && token.end > content.start);
        owner.and_then(|(idx, _)| self.messages.get(*idx)).map(|message| message.role)
    }

    fn slice(&self, range: &Range<usize>) -> &str {
        self.layout.text.get(range.clone()).unwrap_or_default()
    }

    fn no_end(&self, span: &TurnSpan) -> Error {
        let last = self.tokenizer.backend.added_at(span.last_tail.trim_start());
        if last != self.tokenizer.backend.added_at(span.tail.trim_start()) {
            return self.refuse(span.message, "ends in another way once later messages follow");
        }
        no_end(self.template, span.message, &span.last_tail)
    }

    fn refuse(&self, message: usize, what: &str) -> Error {
        Error::Spans {
            name: self.template.name().to_owned(),
            reason: format!("message {message} (assistant) {what}"),
            hint: skeleton::hint(),
        }
    }
}

fn no_end(template: &ChatTemplate, message: usize, tail: &str) -> Error {
    let after: String = tail.chars().take(24).collect();
    Error::Spans {
        name: template.name().to_owned(),
        reason: format!(
            "no special token ends message {message} (assistant); what follows it is {after:?}"
        ),
        hint: "a model trained so would never stop; choose a template whose end token the \
               tokenizer knows, such as `plain`"
            .to_owned(),
    }
}
