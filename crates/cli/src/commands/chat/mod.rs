//! `temper chat`: a conversation with a model, or with two that get the same messages. Answers are printed token by token.
//!
//! The prompt of each turn is the conversation in the model's chat template, as in training.

mod answer;
mod command;
mod conversation;
mod input;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use model::CausalLm;
use tokenizer::{ChatTemplate, Tokenizer};
use train::BaseModelCache;

use self::answer::{Answer, Answering};
use self::command::{Command, HELP};
use self::conversation::Conversation;
use self::input::{Input, Line};
use super::{bases_for_generation, open_model_among, print};
use crate::args::ChatArgs;
use crate::failure::{Failure, Result};
use crate::render::progress::write_stderr;
use crate::render::stderr;
use crate::render::table::thousands;

pub(crate) fn run(args: &ChatArgs) -> Result<()> {
    // Adapters on one base model share its weights.
    let bases = bases_for_generation(&args.dtype, &args.device)?;
    let mut bases = if args.against.is_none() { bases.keeping_blocks() } else { bases };
    let first = Opened::open(&mut bases, &args.model, args.base.as_deref())?;
    let against = args.against.as_ref();
    let second = against.map(|path| Opened::open(&mut bases, path, None)).transpose()?;
    let mut input = Input::open()?;
    let chat = |opened| Chat::new(args, opened, second.is_some(), &input);
    let chats: Vec<Chat<'_>> =
        [Some(&first), second.as_ref()].into_iter().flatten().map(chat).collect::<Result<_>>()?;
    let mut session = Session { chats };
    if input.is_person() {
        print("ctrl-D ends the conversation, ctrl-C an answer; /help lists commands\n")?;
        session.converse(&mut input)
    } else {
        session.read_lines(&mut input)
    }
}

/// A model of the command line.
struct Opened {
    /// The model as it was given.
    name: String,
    model: CausalLm,
    tokenizer: Tokenizer,
}

impl Opened {
    fn open(bases: &mut BaseModelCache, path: &Path, base: Option<&Path>) -> Result<Self> {
        let (model, tokenizer) = open_model_among(bases, path, base)?;
        Ok(Self { name: path.display().to_string(), model, tokenizer })
    }
}

/// The conversations of one model, or of two that get the same messages. Each reads its own answers.
struct Session<'a> {
    chats: Vec<Chat<'a>>,
}

/// A conversation and what answers in it.
struct Chat<'a> {
    /// Line before each answer, where two models answer.
    label: Option<String>,
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    conversation: Conversation,
    answering: Answering<'a>,
    /// The latest answer, for `/stats`.
    last: Option<Answer>,
}

impl Session<'_> {
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
                match self.take_last_user() {
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
                let system = self.chats.first().and_then(|chat| chat.conversation.system());
                print(&format!("system message: {}\n", system.unwrap_or("none")))
            }
            Command::System(Some(text)) => {
                for chat in &mut self.chats {
                    chat.conversation = Conversation::new(Some(&text));
                }
                print("a new conversation with this system message\n")
            }
            Command::Reset => {
                self.chats.iter_mut().for_each(|chat| chat.conversation.reset());
                print("a new conversation\n")
            }
            Command::Retry => match self.take_last_user() {
                Some(text) => self.say(&text),
                None => print("there is no answer yet\n"),
            },
            Command::Save(path) => self.save(Path::new(&path)),
            Command::Load(path) => {
                let loaded = Conversation::load(Path::new(&path))?;
                let n_messages = loaded.n_messages();
                for chat in &mut self.chats {
                    chat.conversation = loaded.clone();
                }
                print(&format!("{n_messages} messages\n"))
            }
            Command::Temperature(None) => {
                let temperature = self.chats.first().map(|chat| chat.answering.temperature());
                print(&format!("temperature {}\n", temperature.unwrap_or_default()))
            }
            Command::Temperature(Some(value)) => {
                self.chats.iter_mut().for_each(|chat| chat.answering.set_temperature(value));
                print(&format!("temperature {value}\n"))
            }
            Command::Stats => self.chats.iter().try_for_each(Chat::stats),
            Command::Unknown(name) => print(&format!("no such command: {name}; see /help\n")),
        }
    }

    /// Removes the last message of the user and all after it.
    fn take_last_user(&mut self) -> Option<String> {
        let taken = self.chats.iter_mut().map(|chat| chat.conversation.take_last_user());
        // The conversations have the same messages of the user.
        taken.collect::<Vec<_>>().into_iter().next().flatten()
    }

    /// Adds a message and the answers. After a failure the conversations are as before.
    fn say(&mut self, text: &str) -> Result<()> {
        let before: Vec<Conversation> =
            self.chats.iter().map(|chat| chat.conversation.clone()).collect();
        let outcome = self.chats.iter_mut().try_for_each(|chat| chat.say(text));
        if outcome.is_err() {
            for (chat, before) in self.chats.iter_mut().zip(before) {
                chat.conversation = before;
            }
        }
        outcome
    }

    /// Writes the conversation; that of a second model beside it, as in `talk-2.json`.
    fn save(&self, path: &Path) -> Result<()> {
        for (idx, chat) in self.chats.iter().enumerate() {
            let path = if idx == 0 { path.to_owned() } else { second_file(path) };
            chat.conversation.save(&path)?;
            print(&format!("saved in {}\n", path.display()))?;
        }
        Ok(())
    }
}

fn second_file(path: &Path) -> PathBuf {
    let part = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ending) = (part(path.file_stem()), part(path.extension()));
    let dot = if ending.is_empty() { "" } else { "." };
    path.with_file_name(format!("{stem}-2{dot}{ending}"))
}

impl<'a> Chat<'a> {
    fn new(args: &ChatArgs, opened: &'a Opened, has_label: bool, input: &Input) -> Result<Self> {
        let Opened { name, model, tokenizer } = opened;
        let template = tokenizer.chat_template().ok_or_else(|| {
            Failure::input(
                if has_label {
                    format!("the model has no chat template: `{name}`")
                } else {
                    "the model has no chat template".to_owned()
                },
                "use a model trained on chats, or `temper generate`",
            )
        })?;
        Ok(Self {
            label: has_label.then(|| format!("[{name}]\n")),
            tokenizer,
            template,
            conversation: Conversation::new(args.system.as_deref()),
            answering: Answering::new(args, model, tokenizer, input.interrupt()),
            last: None,
        })
    }

    /// Adds a message and its answer.
    fn say(&mut self, text: &str) -> Result<()> {
        if let Some(label) = &self.label {
            print(label)?;
        }
        self.conversation.add_user(text);
        let encode = |messages: &[_]| Ok(self.tokenizer.encode_prompt(messages, self.template)?);
        let (room, n_answer) = (self.answering.context(), self.answering.reserved());
        let (prompt, n_dropped) = self.conversation.prompt(encode, room, n_answer)?;
        if n_dropped > 0 {
            write_stderr(&format!(
                "(the context of {} tokens is full: the oldest {n_dropped} messages are left out)\n",
                thousands(room as u64)
            ));
            stderr::flush();
        }
        let answer = self.answering.answer(prompt)?;
        self.conversation.add_answer(&answer.text);
        self.last = Some(answer);
        Ok(())
    }

    fn stats(&self) -> Result<()> {
        if let Some(label) = &self.label {
            print(label)?;
        }
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
