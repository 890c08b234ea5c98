//! `temper generate`: completes prompts and prints one JSON line per completion.

use std::path::Path;

use ::generate::{Sampling, Settings, Stop, generate};
use model::CausalLm;
use serde_json::{Value, json};
use tokenizer::{Message, Role, Tokenizer};

use super::{open_model_as, print};
use crate::args::GenerateArgs;
use crate::failure::{Failure, Result};

/// Maximum size of a file of prompts.
const PROMPTS_BYTES: u64 = 1 << 30;

/// A prompt as given, for the output, and its ids.
struct Prompt {
    shown: Value,
    ids: Vec<u32>,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let (model, tokenizer) =
        open_model_as::<CausalLm>(&args.dtype, &args.model, args.base.as_deref(), &args.device)?;
    let prompts = prompts(args, &tokenizer)?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty.unwrap_or(1.0),
        greedy: args.greedy,
    };
    let settings = Settings {
        sampling,
        n: args.n,
        max_new_tokens: args.max_new_tokens,
        eos_ids: tokenizer.eos_ids(),
        stop: (!args.stop.is_empty()).then(|| Stop::new(args.stop.clone(), &tokenizer)),
        vocab_size: Some(tokenizer.vocab_size()),
        ..Settings::default()
    };
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let completions = kernels::on_pool(|| generate(&model, &ids, &settings, args.seed, |_| ()))?;
    for completion in completions {
        let Some(prompt) = prompts.get(completion.prompt_idx) else { continue };
        let text = completion.text(&tokenizer);
        let line = json!({
            "prompt": prompt.shown,
            "completion": text,
            "tokens": completion.tokens,
            "finish_reason": completion.finish_reason.as_str(),
        });
        print(&format!("{line}\n"))?;
    }
    Ok(())
}

fn prompts(args: &GenerateArgs, tokenizer: &Tokenizer) -> Result<Vec<Prompt>> {
    let values: Vec<(Value, String)> = match &args.prompts {
        Some(path) => rows(path)?,
        None => args
            .prompt
            .iter()
            .enumerate()
            .map(|(idx, text)| (Value::from(text.clone()), format!("--prompt {}", idx + 1)))
            .collect(),
    };
    if values.is_empty() {
        return Err(Failure::input("no prompt", "give --prompt TEXT or --prompts FILE"));
    }
    values.into_iter().map(|(value, place)| encode(value, &place, args.chat, tokenizer)).collect()
}

/// The lines of a file: JSON objects, or plain text.
pub(super) fn rows(path: &Path) -> Result<Vec<(Value, String)>> {
    let text = fsio::read_text_capped(path, PROMPTS_BYTES)?;
    let mut rows = Vec::new();
    for (idx, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{}:{}", path.display(), idx + 1);
        let value = if line.trim_start().starts_with('{') {
            serde_json::from_str(line).map_err(|error| {
                Failure::input(
                    format!("{place}: not valid JSON: {error}"),
                    "a line is {\"prompt\": …}, {\"messages\": […]} or plain text",
                )
            })?
        } else {
            Value::from(line)
        };
        rows.push((value, place));
    }
    Ok(rows)
}

fn encode(value: Value, place: &str, chat: bool, tokenizer: &Tokenizer) -> Result<Prompt> {
    let raw = value.as_str().or_else(|| value.get("prompt").and_then(Value::as_str));
    let messages = match (raw, value.get("messages")) {
        (Some(text), _) if chat => vec![Message::new(Role::User, text)],
        (Some(text), _) => {
            return Ok(Prompt { shown: Value::from(text), ids: tokenizer.encode(text)? });
        }
        (None, Some(messages)) => messages_of(messages, place)?,
        (None, None) => {
            return Err(Failure::input(
                format!("{place}: neither `prompt` nor `messages`"),
                "a line is {\"prompt\": …}, {\"messages\": […]} or plain text",
            ));
        }
    };
    let template = tokenizer.chat_template().ok_or_else(|| {
        Failure::input(
            "the model has no chat template",
            "remove --chat, or use a model trained on chats",
        )
    })?;
    let ids = tokenizer.encode_prompt(&messages, template)?;
    let shown = match raw {
        Some(text) => Value::from(text),
        None => value.get("messages").cloned().unwrap_or(Value::Null),
    };
    Ok(Prompt { shown, ids })
}

fn messages_of(value: &Value, place: &str) -> Result<Vec<Message>> {
    let wrong = |what: &str| {
        Failure::input(
            format!("{place}: {what}"),
            "messages are [{\"role\": \"user\", \"content\": \"…\"}, …]; roles are system, user, \
             assistant and tool",
        )
    };
    let list = value.as_array().ok_or_else(|| wrong("`messages` is not a list"))?;
    list.iter()
        .map(|message| {
            let text = |key: &str| message.get(key).and_then(Value::as_str);
            let role = match text("role") {
                Some("system") => Role::System,
                Some("user") => Role::User,
                Some("assistant") => Role::Assistant,
                Some("tool") => Role::Tool,
                Some(other) => return Err(wrong(&format!("unknown role: `{other}`"))),
                None => return Err(wrong("a message without `role`")),
            };
            let content = text("content").ok_or_else(|| wrong("a message without `content`"))?;
            Ok(Message::new(role, content))
        })
        .collect()
}
