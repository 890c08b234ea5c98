//! `temper chat`: a conversation with a model. Answers are printed token by token.
//!
//! The prompt of each turn is the conversation in the model's chat template, as in training.

mod answer;
mod command;
mod conversation;
mod input;

use std::path::Path;

use model::CausalLm;
use tokenizer::{ChatTemplate, Tokenizer};

use self::answer::{Answer, Answering};
use self::command::{Command, HELP};
use self::conversation::Conversation;
use self::input::{Input, Line};
use super::{open_model_as, print};
use crate::args::ChatArgs;
use crate::failure::{Failure, Result};
use crate::render::progress::write_stderr;
use crate::render::stderr;
use crate::render::table::thousands;

pub(crate) fn run(args: &ChatArgs) -> Result<()> {
    let (model, tokenizer) =
        open_model_as::<CausalLm>(&args.dtype, &args.model, args.base.as_deref(), &args.device)?;
    let template = tokenizer.chat_template().ok_or_else(|| {
        Failure::input(
            "the model has no chat template",
            "use a model trained on chats, or `temper generate`",
        )
    })?;
    let mut input = Input::open()?;
    let mut chat = Chat {
        tokenizer: &tokenizer,
        template,
        conversation: Conversation::new(args.system.as_deref()),
        answering: Answering::new(args, &model, &tokenizer, input.interrupt()),
        last: None,
    };
    if input.is_person() {
        print("ctrl-D ends the conversation, ctrl-C an answer; /help lists commands\n")?;
        chat.converse(&mut input)
    } else {
        chat.read_lines(&mut input)
    }
}

/// A conversation and what answers in it.
struct Chat<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    conversation: Conversation,
    answering: Answering<'a>,
    /// The latest answer, for `/stats`.
    last: Option<Answer>,
}

impl Chat<'_> {
    /// With a person: commands are read, and mistakes do not end the conversation.
    fn converse(&mut self, input: &mut Input) -> Result<()> {
        let mut draft = String::new();
        loop {
            let text = match input.line(&std::mem::take(&mut draft))? {
                Line::Text(text) => text,
                Line::Interrupted => continue,
                Line::NotText => {
                    print("that line was not UTF-8 text and is left out\n")?;
                    continue;
                }
                Line::End => return Ok(()),
            };
            let command = Command::parse(&text);
            if matches!(command, Command::Quit) {
                return Ok(());
            }
            let outcome = if matches!(command, Command::Edit) {
                match self.conversation.take_last_user() {
                    Some(text) => {
                        draft = text;
                        Ok(())
                    }
                    None => print("there is no message to edit\n"),
                }
            } else {
                self.obey(command)
            };
            match outcome {
                Ok(()) => {}
                Err(failure) if failure.is_silent() => return Err(failure),
                Err(failure) => print(&failure.text())?,
            }
        }
    }

    /// From a file or a pipe: each line is a message, and the first mistake ends the program.
    fn read_lines(&mut self, input: &mut Input) -> Result<()> {
        while let Line::Text(text) = input.line("")? {
            if text.is_empty() {
                break;
            }
            self.say(&text)?;
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Nothing | Command::Quit | Command::Edit => Ok(()),
            Command::Say(text) => self.say(&text),
            Command::Help => print(HELP),
            Command::System(None) => {
                let system = self.conversation.system().unwrap_or("none").to_owned();
                print(&format!("system message: {system}\n"))
            }
            Command::System(Some(text)) => {
                self.conversation = Conversation::new(Some(&text));
                print("a new conversation with this system message\n")
            }
            Command::Reset => {
                self.conversation.reset();
                print("a new conversation\n")
            }
            Command::Retry => match self.conversation.take_last_user() {
                Some(text) => self.say(&text),
                None => print("there is no answer yet\n"),
            },
            Command::Save(path) => {
                self.conversation.save(Path::new(&path))?;
                print(&format!("saved in {path}\n"))
            }
            Command::Load(path) => {
                self.conversation = Conversation::load(Path::new(&path))?;
                print(&format!("{} messages\n", self.conversation.n_messages()))
            }
            Command::Temperature(None) => {
                print(&format!("temperature {}\n", self.answering.temperature()))
            }
            Command::Temperature(Some(value)) => self.answering.set_temperature(value),
            Command::Stats => self.stats(),
            Command::Unknown(name) => print(&format!("no such command: {name}; see /help\n")),
        }
    }

    /// Adds a message and its answer. After a failure the conversation is as before.
    fn say(&mut self, text: &str) -> Result<()> {
        let before = self.conversation.clone();
        self.conversation.add_user(text);
        let encode = |messages: &[_]| Ok(self.tokenizer.encode_prompt(messages, self.template)?);
        let (room, n_answer) = (self.answering.context(), self.answering.reserved());
        let outcome = self.conversation.prompt(encode, room, n_answer);
        let outcome = outcome.and_then(|(prompt, n_dropped)| {
            if n_dropped > 0 {
                write_stderr(&format!(
                    "(the context of {} tokens is full: the oldest {n_dropped} messages are left out)\n",
                    thousands(room as u64)
                ));
                stderr::flush();
            }
            self.answering.answer(prompt)
        });
        match outcome {
            Ok(answer) => {
                self.conversation.add_answer(&answer.text);
                self.last = Some(answer);
                Ok(())
            }
            Err(failure) => {
                self.conversation = before;
                Err(failure)
            }
        }
    }

    fn stats(&self) -> Result<()> {
        let Some(last) = &self.last else { return print("there is no answer yet\n") };
        print(&format!(
            "{} messages; {} of {} tokens of context\n\
             latest answer: {} tokens in {:.2} s, {:.1} tokens/s, the first after {:.2} s\n",
            self.conversation.n_messages(),
            thousands((last.n_prompt + last.n_tokens) as u64),
            thousands(self.answering.context() as u64),
            thousands(last.n_tokens as u64),
            last.seconds,
            last.tokens_per_s(),
            last.seconds_to_first,
        ))
    }
}
