//! Builds the answer to a request from the tokens of its completions, whole or in parts.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use generate::{FinishReason, LiveToken};
use serde_json::json;
use tokenizer::Tokenizer;

use crate::api::{
    CallAnswer, CalledFunction, Chunk, ChunkChoice, ChunkContent, Delta, Logprobs, Message,
    Request, Usage, Whole, WholeChoice, WholeContent,
};
use crate::app::Served;
use crate::endpoint::Endpoint;
use crate::logprobs;
use crate::metrics::ModelMetrics;
use crate::tool_calls::{ToolCall, ToolCalls};

/// Settings of an answer, and the numbers so far.
pub(crate) struct Reply {
    endpoint: Endpoint,
    id: String,
    created: u64,
    model: String,
    tokenizer: Tokenizer,
    metrics: ModelMetrics,
    include_usage: bool,
    logprobs: bool,
    n_prompt_tokens: usize,
    n_shared_tokens: usize,
    n_tokens: usize,
    choices: Vec<Choice>,
    start: Instant,
}

/// A completion so far.
#[derive(Default)]
struct Choice {
    /// Bytes of its tokens, for offsets.
    n_bytes: usize,
    is_finished: bool,
    /// Finds calls of tools, if the answer may have any.
    tool_calls: Option<ToolCalls>,
}

/// Addition of a token to a completion.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) logprobs: Option<Logprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

impl Part {
    /// Moves the calls of tools out of the text.
    fn find_calls(&mut self, tool_calls: &mut ToolCalls) {
        (self.text, self.calls) = tool_calls.push(&self.text);
        if self.finish_reason.is_some() {
            self.text += &tool_calls.finish();
        }
        let has_ended = self.finish_reason == Some("stop") && tool_calls.n_calls() > 0;
        if has_ended || tool_calls.is_full() {
            self.finish_reason = Some("tool_calls");
        }
    }
}

impl Reply {
    pub(crate) fn new(
        endpoint: Endpoint,
        served: &Served,
        request: &Request,
        start: Instant,
    ) -> Self {
        let n_choices = request.prompts.len() * request.settings.n;
        let prefix = match endpoint {
            Endpoint::Chat => "chatcmpl",
            Endpoint::Completions => "cmpl",
        };
        let template = served.tokenizer.chat_template();
        let has_form = template.is_some_and(|template| ToolCalls::is_form_of(template.source()));
        let max_calls = request.max_calls.filter(|_| has_form);
        let choice = || Choice { tool_calls: max_calls.map(ToolCalls::new), ..Choice::default() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            endpoint,
            id: format!("{prefix}-{:024x}", now.as_nanos()),
            created: now.as_secs(),
            model: served.name.clone(),
            tokenizer: served.tokenizer.clone(),
            metrics: served.metrics.clone(),
            include_usage: request.include_usage,
            logprobs: request.logprobs,
            n_prompt_tokens: request.prompts.iter().map(Vec::len).sum(),
            n_shared_tokens: 0,
            n_tokens: 0,
            choices: (0..n_choices).map(|_| choice()).collect(),
            start,
        }
    }

    pub(crate) fn n_choices(&self) -> usize {
        self.choices.len()
    }

    /// Whether every completion has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.choices.iter().all(|choice| choice.is_finished)
    }

    /// Counts tokens of a prompt that were known from an earlier one.
    pub(crate) fn add_shared(&mut self, n_tokens: usize) {
        self.n_shared_tokens += n_tokens;
    }

    /// Addition of a token to its completion.
    pub(crate) fn part(&mut self, choice_idx: usize, token: LiveToken) -> Part {
        let LiveToken { choice, text, finish_reason } = token;
        let is_finished = |choice: &Choice| choice.is_finished;
        if self.choices.get(choice_idx).is_some_and(is_finished) {
            // It had as many calls as it may have; its tokens end when all completions have.
            return Part::default();
        }
        if self.n_tokens == 0 {
            self.metrics.observe_first_token(self.start.elapsed());
        }
        self.n_tokens += 1;
        let of_model = choice.of_model.filter(|_| self.logprobs);
        let logprobs = of_model.map(|of_model| match finish_reason {
            // The token that ends a text is no part of it.
            Some(FinishReason::Eos) => self.no_logprobs(),
            Some(FinishReason::Stop | FinishReason::Length) | None => {
                let mut none = 0;
                let state = self.choices.get_mut(choice_idx);
                let n_bytes = state.map_or(&mut none, |state| &mut state.n_bytes);
                logprobs::of_token(self.endpoint, &self.tokenizer, choice.id, &of_model, n_bytes)
            }
        });
        let finish_reason = finish_reason.map(|reason| match reason {
            FinishReason::Eos | FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        });
        let mut part = Part { text, calls: Vec::new(), logprobs, finish_reason };
        if let Some(state) = self.choices.get_mut(choice_idx) {
            if let Some(tool_calls) = &mut state.tool_calls {
                part.find_calls(tool_calls);
            }
            state.is_finished |= part.finish_reason.is_some();
        }
        if self.is_finished() {
            self.metrics.observe_request(self.start.elapsed());
        }
        part
    }

    /// The log-probabilities of no token.
    pub(crate) fn no_logprobs(&self) -> Logprobs {
        logprobs::none(self.endpoint)
    }

    /// Whether the request asks for log-probabilities.
    pub(crate) fn has_logprobs(&self) -> bool {
        self.logprobs
    }

    /// The numbers of tokens so far.
    pub(crate) fn usage(&self) -> Usage {
        Usage::new(self.n_prompt_tokens, self.n_shared_tokens, self.n_tokens)
    }

    /// The whole answer as JSON, from the text, log-probabilities and finish reason of each completion.
    pub(crate) fn whole(&self, parts: Vec<Part>) -> String {
        let choice = |(index, part): (usize, Part)| WholeChoice {
            index,
            content: match self.endpoint {
                Endpoint::Chat => WholeContent::Message(self.message(part.text, part.calls)),
                Endpoint::Completions => WholeContent::Text(part.text),
            },
            logprobs: part.logprobs,
            finish_reason: part.finish_reason.unwrap_or("stop"),
        };
        let whole = Whole {
            id: &self.id,
            object: match self.endpoint {
                Endpoint::Chat => "chat.completion",
                Endpoint::Completions => "text_completion",
            },
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices: parts.into_iter().enumerate().map(choice).collect(),
            usage: self.usage(),
        };
        to_json(&whole)
    }

    fn message(&self, text: String, calls: Vec<ToolCall>) -> Message {
        // Models write white space around their calls.
        let is_empty = !calls.is_empty() && text.trim().is_empty();
        let calls: Vec<CallAnswer> = calls.into_iter().map(|call| self.call(call)).collect();
        Message {
            role: "assistant",
            content: (!is_empty).then_some(text),
            refusal: None,
            tool_calls: (!calls.is_empty()).then_some(calls),
        }
    }

    fn call(&self, call: ToolCall) -> CallAnswer {
        let ToolCall { idx, name, arguments } = call;
        let id = format!("call_{}_{idx}", self.id);
        CallAnswer {
            index: idx,
            id,
            r#type: "function",
            function: CalledFunction { name, arguments },
        }
    }

    /// The chunk that begins a completion; chats have one, with the role.
    pub(crate) fn first_chunk(&self, index: usize) -> Option<String> {
        let (role, content) = (Some("assistant"), Some(String::new()));
        let delta = Delta { role, content, tool_calls: None };
        let content = ChunkContent::Delta(delta);
        let choice = ChunkChoice { index, content, logprobs: None, finish_reason: None };
        (self.endpoint == Endpoint::Chat).then(|| self.chunk(vec![choice], None))
    }

    /// The chunk of a part; none where there is nothing to say.
    pub(crate) fn part_chunk(&self, index: usize, part: Part) -> Option<String> {
        let Part { text, calls, logprobs, finish_reason } = part;
        if text.is_empty() && calls.is_empty() && logprobs.is_none() && finish_reason.is_none() {
            return None;
        }
        let calls: Vec<CallAnswer> = calls.into_iter().map(|call| self.call(call)).collect();
        let content = match self.endpoint {
            Endpoint::Chat => ChunkContent::Delta(Delta {
                role: None,
                content: (!text.is_empty()).then_some(text),
                tool_calls: (!calls.is_empty()).then_some(calls),
            }),
            Endpoint::Completions => ChunkContent::Text(text),
        };
        Some(self.chunk(vec![ChunkChoice { index, content, logprobs, finish_reason }], None))
    }

    /// The last chunk, with the numbers of tokens, if the request asks for them.
    pub(crate) fn usage_chunk(&self) -> Option<String> {
        self.include_usage.then(|| self.chunk(Vec::new(), Some(self.usage())))
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> String {
        to_json(&Chunk {
            id: &self.id,
            object: match self.endpoint {
                Endpoint::Chat => "chat.completion.chunk",
                Endpoint::Completions => "text_completion",
            },
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage: self.include_usage.then(|| json!(usage)),
        })
    }
}

/// The version, on which the tokens of a seed depend.
const FINGERPRINT: &str = concat!("temper-", env!("CARGO_PKG_VERSION"));

fn to_json(value: &impl serde::Serialize) -> String {
    // Texts, numbers and lists always have a form in JSON; a log-probability that is not finite is null.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Part, ToolCalls};

    #[test]
    fn an_answer_with_a_call_ends_with_it() {
        let mut calls = ToolCalls::new(usize::MAX);
        let mut part = |text: &str, finish_reason| {
            let text = text.to_owned();
            let mut part = Part { text, calls: Vec::new(), logprobs: None, finish_reason };
            part.find_calls(&mut calls);
            (part.text, part.calls.len(), part.finish_reason)
        };
        assert_eq!(part("a<tool_call>{\"name\":", None), ("a".to_owned(), 0, None));
        assert_eq!(part(" \"f\"}</tool_call>", None), (String::new(), 1, None));
        assert_eq!(part("<too", Some("stop")), ("<too".to_owned(), 0, Some("tool_calls")));
    }
}
