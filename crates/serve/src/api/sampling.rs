//! The fields that chat completions and completions share: sampling, length, stop texts, streaming.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use generate::{LEAST_TEMPERATURE, Sampling, Settings, Stop};
use serde::Deserialize;
use serde_json::Value;
use tokenizer::Tokenizer;

use super::tools::RequiredCalls;
use super::{ApiError, Fields};

/// Completions of a request.
pub(super) const MAX_CHOICES: usize = 32;
/// Stop texts of a request, and bytes of each.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;
/// Fields that say who asks, or how the request is billed and stored; they change no answer.
const IGNORED: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
];

/// A request that was read.
#[derive(Debug)]
pub(crate) struct Request {
    /// Ids of each prompt.
    pub(crate) prompts: Vec<Vec<u32>>,
    /// Sampling of each completion; `settings.n` is their number for each prompt.
    pub(crate) settings: Settings,
    pub(crate) seed: u64,
    pub(crate) stream: bool,
    /// Whether a stream ends with the numbers of tokens.
    pub(crate) include_usage: bool,
    /// Whether answers have log-probabilities.
    pub(crate) logprobs: bool,
    /// The form of answers.
    pub(crate) rule: Option<Rule>,
    /// Calls of tools that an answer has at most; none where the prompt describes no tools.
    pub(crate) max_calls: Option<usize>,
}

/// The form of answers.
#[derive(Debug)]
pub(crate) enum Rule {
    /// JSON that follows a schema.
    Schema(Value),
    /// Calls of tools.
    Calls(RequiredCalls),
}

impl Rule {
    /// The field that asks for it.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::Schema(_) => "response_format",
            Self::Calls(_) => "tools",
        }
    }
}

/// What a request is compared with.
pub(crate) struct Limits<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    /// The model's context length.
    pub(crate) context: usize,
    /// Bytes of the longest token.
    pub(crate) token_bytes: usize,
    /// Rows of the model's embedding.
    pub(crate) vocab_size: usize,
    /// The largest number of tokens of a completion.
    pub(crate) max_tokens: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    include_usage: Option<bool>,
    // Padding against observers of the network, which these streams do not have.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Reads the shared fields. Prompts and log-probabilities are left to the caller.
pub(super) fn read(fields: &mut Fields, limits: &Limits<'_>) -> Result<Request, ApiError> {
    fields.ignore(&IGNORED);
    let stream = fields.take::<bool>("stream")?.unwrap_or(false);
    let options: Option<StreamOptions> = fields.take("stream_options")?;
    if options.is_some() && !stream {
        let message = "`stream_options` needs `stream`: true";
        return Err(ApiError::field("stream_options", message));
    }
    let include_usage = options.and_then(|options| options.include_usage).unwrap_or(false);
    let max_new_tokens = max_new_tokens(fields, limits)?;
    let settings = Settings {
        sampling: sampling(fields)?,
        n: fields.count("n", 1..=MAX_CHOICES)?.unwrap_or(1),
        max_new_tokens,
        min_new_tokens: fields.count("min_tokens", 0..=max_new_tokens)?.unwrap_or(0),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields, limits)?,
        eos_ids: limits.tokenizer.eos_ids(),
        vocab_size: Some(limits.tokenizer.vocab_size()),
        // Without stop texts, too: it decodes the text.
        stop: Some(Stop::new(stop(fields)?, limits.tokenizer)),
        ..Settings::default()
    };
    let seed = fields.take::<i128>("seed")?.map_or_else(random_seed, |seed| seed as u64);
    let (prompts, logprobs, rule, max_calls) = (Vec::new(), false, None, None);
    Ok(Request { prompts, settings, seed, stream, include_usage, logprobs, rule, max_calls })
}

/// OpenAI's temperature and top-p, and the names that other servers use for the filters that it lacks.
fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    let temperature = fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0);
    let top_p = fields.number("top_p", 0.0..=1.0)?.filter(|&top_p| top_p < 1.0);
    let min_p = fields.number("min_p", 0.0..=1.0)?.filter(|&min_p| min_p > 0.0);
    let top_k = fields.count("top_k", 0..=usize::MAX)?.filter(|&top_k| top_k > 0);
    let repetition_penalty = fields.number("repetition_penalty", 0.01..=100.0)?.unwrap_or(1.0);
    // Of the filters with no probability at all, the most likely token is left.
    if temperature < LEAST_TEMPERATURE || top_p == Some(0.0) {
        return Ok(Sampling { repetition_penalty, ..Sampling::greedy() });
    }
    Ok(Sampling { temperature, top_k, top_p, min_p, repetition_penalty, greedy: false })
}

fn max_new_tokens(fields: &mut Fields, limits: &Limits<'_>) -> Result<usize, ApiError> {
    let most = 1..=usize::MAX;
    let newer = fields.count("max_completion_tokens", most.clone())?;
    let older = fields.count("max_tokens", most)?;
    let (name, n) = match (newer, older) {
        (Some(newer), Some(older)) if newer != older => {
            let message = "`max_tokens` and `max_completion_tokens` differ; give one of them";
            return Err(ApiError::field("max_tokens", message));
        }
        (Some(n), _) => ("max_completion_tokens", n),
        (None, Some(n)) => ("max_tokens", n),
        (None, None) => return Ok(limits.max_tokens),
    };
    if n > limits.max_tokens {
        let most = limits.max_tokens;
        let message = format!("`{name}` must be at most {most}, the limit of this server: `{n}`");
        return Err(ApiError::field(name, message));
    }
    Ok(n)
}

fn logit_bias(fields: &mut Fields, limits: &Limits<'_>) -> Result<Vec<(u32, f32)>, ApiError> {
    let biases: BTreeMap<String, f32> = fields.take("logit_bias")?.unwrap_or_default();
    let bias = |(id, bias): (String, f32)| {
        let known = id.parse::<u32>().ok().filter(|&id| (id as usize) < limits.vocab_size);
        match known.filter(|_| (-100.0..=100.0).contains(&bias)) {
            Some(id) => Ok((id, bias)),
            None => Err(ApiError::field(
                "logit_bias",
                format!(
                    "`logit_bias` maps ids below {} to numbers between -100 and 100: `{id}`: `{bias}`",
                    limits.vocab_size
                ),
            )),
        }
    };
    biases.into_iter().map(bias).collect()
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = match fields.take("stop")? {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    };
    let wrong = |message: &str| Err(ApiError::field("stop", message));
    if stops.len() > MAX_STOPS {
        return wrong(&format!("`stop` has {} texts; at most {MAX_STOPS}", stops.len()));
    }
    if stops.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
        return wrong(&format!("a text of `stop` has between 1 and {MAX_STOP_BYTES} bytes"));
    }
    Ok(stops)
}

/// A seed for a request without one: such requests are meant to differ.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// Checks the number of completions and each prompt.
pub(super) fn check_prompts(
    request: &Request,
    param: &str,
    limits: &Limits<'_>,
) -> Result<(), ApiError> {
    let n_choices = request.prompts.len() * request.settings.n;
    if n_choices > MAX_CHOICES {
        let message =
            format!("the request asks for {n_choices} completions; at most {MAX_CHOICES}");
        return Err(ApiError::field(if param == "messages" { "n" } else { param }, message));
    }
    for prompt in &request.prompts {
        check_ids(prompt, param, limits)?;
        if prompt.len() >= limits.context {
            return Err(ApiError::context(param, prompt.len(), limits.context));
        }
    }
    Ok(())
}

/// Refuses a text that no tokens of the context can hold, before it is turned into tokens: that takes hundreds of bytes of memory
/// for each byte. Normalizers may shorten a text, so twice the bytes are let through.
pub(super) fn check_bytes(
    n_bytes: usize,
    param: &str,
    limits: &Limits<'_>,
) -> Result<(), ApiError> {
    let most = limits.context.saturating_mul(limits.token_bytes).saturating_mul(2);
    if n_bytes <= most { Ok(()) } else { Err(ApiError::bytes(param, n_bytes, limits.context)) }
}

/// Refuses a text without ids, and unknown ids.
pub(super) fn check_ids(ids: &[u32], param: &str, limits: &Limits<'_>) -> Result<(), ApiError> {
    if ids.is_empty() {
        return Err(ApiError::field(param, "the prompt has no tokens"));
    }
    let known = limits.vocab_size;
    match ids.iter().find(|&&id| id as usize >= known) {
        None => Ok(()),
        Some(id) => {
            let message = format!("the prompt has an id beyond the vocabulary of {known}: `{id}`");
            Err(ApiError::field(param, message))
        }
    }
}
