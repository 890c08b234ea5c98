//! Answers in the form of OpenAI's API.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// A whole answer.
#[derive(Serialize)]
pub(crate) struct Whole<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'static str,
    pub(crate) choices: Vec<WholeChoice>,
    pub(crate) usage: Usage,
}

/// A completion of a whole answer.
#[derive(Serialize)]
pub(crate) struct WholeChoice {
    pub(crate) index: usize,
    #[serde(flatten)]
    pub(crate) content: WholeContent,
    pub(crate) logprobs: Option<Logprobs>,
    pub(crate) finish_reason: &'static str,
}

/// The text of a completion.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WholeContent {
    Message(Message),
    Text(String),
}

/// The assistant's message.
#[derive(Serialize)]
pub(crate) struct Message {
    pub(crate) role: &'static str,
    pub(crate) content: Option<String>,
    pub(crate) refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_calls: Option<Vec<CallAnswer>>,
}

/// A call of a tool.
#[derive(Serialize)]
pub(crate) struct CallAnswer {
    pub(crate) index: usize,
    pub(crate) id: String,
    pub(crate) r#type: &'static str,
    pub(crate) function: CalledFunction,
}

/// The function of a call.
#[derive(Serialize)]
pub(crate) struct CalledFunction {
    pub(crate) name: String,
    /// The arguments as JSON.
    pub(crate) arguments: String,
}

/// A part of a streamed answer.
#[derive(Serialize)]
pub(crate) struct Chunk<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'static str,
    pub(crate) choices: Vec<ChunkChoice>,
    /// With `include_usage`: null until the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Value>,
}

/// A part of a streamed completion.
#[derive(Serialize)]
pub(crate) struct ChunkChoice {
    pub(crate) index: usize,
    #[serde(flatten)]
    pub(crate) content: ChunkContent,
    pub(crate) logprobs: Option<Logprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// The text of a part.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChunkContent {
    Delta(Delta),
    Text(String),
}

/// Addition of a part to the assistant's message.
#[derive(Default, Serialize)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_calls: Option<Vec<CallAnswer>>,
}

/// Log-probabilities of a completion's tokens.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Logprobs {
    Chat(ChatLogprobs),
    Text(TextLogprobs),
}

/// Those of chat completions.
#[derive(Default, Serialize)]
pub(crate) struct ChatLogprobs {
    pub(crate) content: Vec<TokenLogprob>,
    pub(crate) refusal: Option<Vec<TokenLogprob>>,
}

/// A token with its log-probability and those of the most likely tokens at its position.
#[derive(Serialize)]
pub(crate) struct TokenLogprob {
    #[serde(flatten)]
    pub(crate) token: TopLogprob,
    pub(crate) top_logprobs: Vec<TopLogprob>,
}

/// A token with its log-probability.
#[derive(Serialize)]
pub(crate) struct TopLogprob {
    pub(crate) token: String,
    pub(crate) logprob: f32,
    /// Its bytes, of which a character may have several.
    pub(crate) bytes: Vec<u8>,
}

/// Those of completions.
#[derive(Default, Serialize)]
pub(crate) struct TextLogprobs {
    pub(crate) tokens: Vec<String>,
    pub(crate) token_logprobs: Vec<f32>,
    pub(crate) top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Bytes of the completion's tokens before each token.
    pub(crate) text_offset: Vec<usize>,
}

/// Numbers of tokens.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) prompt_tokens_details: PromptTokens,
}

/// Numbers of tokens of the prompt.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PromptTokens {
    /// Those that were known from an earlier prompt.
    pub(crate) cached_tokens: usize,
}

impl Usage {
    pub(crate) fn new(
        prompt_tokens: usize,
        cached_tokens: usize,
        completion_tokens: usize,
    ) -> Self {
        let total_tokens = prompt_tokens + completion_tokens;
        let prompt_tokens_details = PromptTokens { cached_tokens };
        Self { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details }
    }
}
