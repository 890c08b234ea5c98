//! `temper chat`: a conversation with a model. Answers are printed token by token.
//!
//! The prompt of each turn is the whole conversation in the model's chat template, as in training.

use std::io::{self, BufRead, IsTerminal, Write};

use ::generate::{Sampling, Settings, generate};
use model::CausalLm;
use tokenizer::{ChatTemplate, Message, Role, Tokenizer};

use super::{open_model_as, print};
use crate::args::ChatArgs;
use crate::failure::{Failure, Result};
use crate::render::printable::printable;

pub(crate) fn run(args: &ChatArgs) -> Result<()> {
    let (model, tokenizer) =
        open_model_as::<CausalLm>(&args.dtype, &args.model, args.base.as_deref(), &args.device)?;
    let template = tokenizer.chat_template().ok_or_else(|| {
        Failure::input(
            "the model has no chat template",
            "use a model trained on chats, or `temper generate`",
        )
    })?;
    let mut messages: Vec<Message> = Vec::new();
    messages.extend(args.system.as_ref().map(|text| Message::new(Role::System, text)));
    let is_person = io::stdin().is_terminal();
    if is_person {
        print("an empty line or Ctrl-D ends the conversation\n")?;
    }
    for turn in 0.. {
        if is_person {
            print("> ")?;
        }
        let mut line = String::new();
        let n_read = io::stdin().lock().read_line(&mut line).map_err(|error| {
            Failure::input(format!("cannot read from stdin: {error}"), "type a line of UTF-8 text")
        })?;
        let text = line.trim();
        if n_read == 0 || text.is_empty() {
            break;
        }
        messages.push(Message::new(Role::User, text));
        let answer = answer(args, &model, &tokenizer, template, &messages, turn)?;
        messages.push(Message::new(Role::Assistant, &answer));
    }
    Ok(())
}

/// Samples the model's answer, prints it token by token and returns it.
fn answer(
    args: &ChatArgs,
    model: &CausalLm,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    turn: u64,
) -> Result<String> {
    let prompt = tokenizer.encode_prompt(messages, template)?;
    let context = model.config().max_positions();
    if prompt.len() >= context {
        return Err(Failure::input(
            format!(
                "the conversation has {} tokens and the model's context is {context}",
                prompt.len()
            ),
            "start a new conversation",
        ));
    }
    let settings = Settings {
        sampling: Sampling {
            temperature: args.temperature,
            top_p: args.top_p,
            greedy: args.greedy,
            ..Sampling::default()
        },
        max_new_tokens: args.max_new_tokens.min(context - prompt.len()),
        eos_ids: tokenizer.eos_ids(),
        vocab_size: Some(tokenizer.vocab_size()),
        ..Settings::default()
    };
    let mut stream = tokenizer.decode_stream(true);
    let mut out = io::stdout().lock();
    let mut written = Ok(());
    let mut show = |text: &str| {
        if written.is_ok() {
            written = out.write_all(printable(text).as_bytes()).and_then(|()| out.flush());
        }
    };
    let seed = args.seed.wrapping_add(turn);
    let completions = generate(model, &[prompt], &settings, seed, |token| {
        if !settings.eos_ids.contains(&token.id) {
            show(&stream.push(token.id));
        }
    })?;
    show(&format!("{}\n", stream.finish()));
    drop(out);
    if written.is_err() {
        return Err(Failure::quiet());
    }
    Ok(completions.first().map(|answer| answer.text(tokenizer)).unwrap_or_default())
}
