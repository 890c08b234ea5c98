//! The prompts of a proof: conversations for a model with a chat template, plain texts for others.

use arch::ModelConfig;
use serde::{Deserialize, Serialize};
use tokenizer::{ChatTemplate, Clock, Message, Role, Tokenizer};

use super::{Answer, Output};
use crate::error::Result;

/// Number of prompts.
const N_PROMPTS: usize = 5;
/// The largest number of ids of a prompt, and of greedy ids after it. Models with short contexts have fewer.
const MAX_IDS: usize = 64;
const N_GREEDY: usize = 16;
/// The time for templates that write the date: 1 January 2026.
pub(super) const CLOCK: u64 = 1_767_225_600;

const TEXTS: [&str; 5] = [
    "The capital of Norway is Oslo, and the capital of Portugal is",
    "Long ago a miller lived by the river with three sons. The youngest of them",
    "def area(width, height):\n    return width * height\n\nprint(area(3,",
    "Monday, Tuesday, Wednesday, Thursday,",
    "Dear Mr. Novák, thank you for your letter of 12 May. We would like to",
];

/// Conversations with a system message, several turns, code and other scripts.
const CHATS: [&[(Role, &str)]; 6] = [
    &[(Role::User, "What is the capital of Norway?")],
    &[(Role::System, "You answer in one short sentence."), (Role::User, "Why is the sky blue?")],
    &[(Role::User, "Write a Python function that adds two numbers.")],
    &[
        (Role::User, "My name is Ada."),
        (Role::Assistant, "Hello Ada, how can I help you?"),
        (Role::User, "What is my name?"),
    ],
    &[(Role::User, "Translate \"good morning\" into French and Japanese (日本語).")],
    &[(Role::User, "What is 17 + 25?")],
];

/// The assistant's last message in conversations that are scored.
const SCORED: &str = "I would say that it depends, but here is what I know.";

/// A prompt with the model's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// The text, if the prompt is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The conversation, if the prompt is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Turn>>,
    /// Token ids; the first ones of a text that is too long for the model.
    pub ids: Vec<u32>,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

impl Prompt {
    /// The ids of the prompt and of its greedy answer.
    pub(super) fn answered_ids(&self) -> Vec<u32> {
        match &self.answer {
            Answer::Logits { greedy_ids, .. } => [&self.ids[..], greedy_ids].concat(),
            Answer::Score { .. } => self.ids.clone(),
        }
    }
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The words.
    pub content: String,
}

/// Five prompts that the tokenizer can encode, without answers. A model whose tokenizer encodes fewer of our texts gets ids
/// spread over its vocabulary.
///
/// `n_positions` is the context length of the written model, which may be shorter than that of its source.
pub(super) fn choose_prompts(
    tokenizer: &Tokenizer,
    config: &ModelConfig,
    n_positions: usize,
    output: Output,
) -> Vec<Prompt> {
    let limit = MAX_IDS.min(n_positions.saturating_sub(n_greedy(n_positions))).max(1);
    let chats = CHATS.iter().map(|turns| {
        let mut turns: Vec<Turn> =
            turns.iter().map(|(role, text)| Turn::new(*role, text)).collect();
        if output == Output::Scores {
            turns.push(Turn::new(Role::Assistant, SCORED));
        }
        Prompt::new(None, Some(turns))
    });
    let texts = TEXTS.iter().map(|text| Prompt::new(Some((*text).to_owned()), None));
    let candidates = chats.filter(|_| tokenizer.chat_template().is_some()).chain(texts);
    let mut prompts: Vec<Prompt> = candidates
        .filter_map(|mut prompt| {
            let mut ids = prompt_ids(tokenizer, &prompt, output, CLOCK).ok()??;
            ids.truncate(limit);
            prompt.ids = ids;
            (!prompt.ids.is_empty()).then_some(prompt)
        })
        .take(N_PROMPTS)
        .collect();
    let vocab_size = config.vocab_size().min(tokenizer.vocab_size()).max(1);
    while prompts.len() < N_PROMPTS {
        let mut prompt = Prompt::new(None, None);
        let step = prompts.len() + 1;
        let id = |idx: usize| u32::try_from(idx * step * 37 % vocab_size).unwrap_or_default();
        prompt.ids = (0..limit.min(12)).map(id).collect();
        prompts.push(prompt);
    }
    prompts
}

/// The number of greedy ids for a context of this length.
pub(super) fn n_greedy(n_positions: usize) -> usize {
    N_GREEDY.min(n_positions / 2)
}

/// All ids of a prompt's text or conversation; `None` for a prompt of ids alone.
pub(super) fn prompt_ids(
    tokenizer: &Tokenizer,
    prompt: &Prompt,
    output: Output,
    clock: u64,
) -> Result<Option<Vec<u32>>> {
    if let Some(text) = &prompt.text {
        return Ok(Some(tokenizer.encode(text)?));
    }
    let Some(turns) = &prompt.messages else { return Ok(None) };
    let template = tokenizer.chat_template().map(|t| t.with_clock(Clock::Fixed(clock)));
    let Some(template) = template.transpose()? else {
        // A template that was there when the proof was made.
        return Ok(Some(Vec::new()));
    };
    let messages: Vec<Message> = turns.iter().map(Turn::message).collect();
    Ok(Some(encode(tokenizer, &messages, &template, output)?))
}

fn encode(
    tokenizer: &Tokenizer,
    messages: &[Message],
    template: &ChatTemplate,
    output: Output,
) -> tokenizer::Result<Vec<u32>> {
    match output {
        Output::Logits => tokenizer.encode_prompt(messages, template),
        Output::Scores => Ok(tokenizer.encode_for_scoring(messages, template)?.ids),
    }
}

impl Prompt {
    fn new(text: Option<String>, messages: Option<Vec<Turn>>) -> Self {
        Self { text, messages, ids: Vec::new(), answer: Answer::none() }
    }
}

impl Turn {
    fn new(role: Role, content: &str) -> Self {
        Self { role: role.as_str().to_owned(), content: content.to_owned() }
    }

    fn message(&self) -> Message {
        let role = match self.role.as_str() {
            "system" => Role::System,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            _ => Role::User,
        };
        Message::new(role, self.content.clone())
    }
}
